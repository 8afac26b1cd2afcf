-- clean sales: a customer is known, nothing is cancelled or free
CREATE TABLE sale AS
    SELECT *, quantity * unit_price AS amount FROM raw_line
    WHERE customer_id IS NOT NULL AND quantity > 0 AND unit_price > 0 AND invoice_no !~ '^[CA]';
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Gift Club', time_zone => 'Europe/London', currency => 'GBP', point_value => 0.01,
    hold_days => 14, expiry_months => 12, expiry_round => 'month', tier_window => 'calendar') \gset demo_
SELECT loyalty.add_tier(1, 'Bronze', 0, 'spend'), loyalty.add_tier(1, 'Silver', 1000, 'spend', 1.1),
       loyalty.add_tier(1, 'Gold', 5000, 'spend', 1.25), loyalty.add_tier(1, 'Platinum', 20000, 'spend', 1.5) \gset demo_
SELECT loyalty.add_rule(1, 'base rate', 'purchase', 'base', 'purchase.amount'),
       loyalty.add_rule(1, 'double Christmas', 'line', 'multiply', '2', 'product.category = ''Christmas'''),
       loyalty.add_rule(1, 'big basket', 'purchase', 'bonus', '100', 'purchase.amount >= 500') \gset demo_
INSERT INTO loyalty.product (program_id, sku, name, category)
    SELECT 1, stock_code, d, CASE WHEN d ILIKE '%christmas%' THEN 'Christmas' WHEN d ILIKE '%bag%' THEN 'Bags' WHEN d ILIKE '%cake%' THEN 'Cakes' ELSE 'Gifts' END
    FROM (SELECT stock_code, max(description) AS d FROM sale GROUP BY 1) p;
INSERT INTO loyalty.member (program_id, external_id, joined_at)
    SELECT 1, customer_id, min(invoice_date) AT TIME ZONE 'Europe/London' FROM sale GROUP BY customer_id ORDER BY 2;
CREATE TABLE basket AS
    SELECT m.member_id, min(invoice_date) AT TIME ZONE 'Europe/London' AS occurred_at, 'web'::text AS channel, sum(amount) AS amount,
           array_agg(ROW(stock_code, quantity, unit_price, NULL, NULL)::loyalty.line ORDER BY line_no) AS lines, invoice_no AS reference
    FROM sale JOIN loyalty.member m ON m.external_id = customer_id GROUP BY m.member_id, invoice_no ORDER BY invoice_no;
ANALYZE;
