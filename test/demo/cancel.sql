-- Cancellations ('C' invoices) are matched to what they cancel: of the same customer, the same article at the same
-- price, bought earlier; the latest such line first, as many pieces of it as are left.
CREATE TABLE cancelled AS
    SELECT row_number() OVER (ORDER BY invoice_date, line_no) AS number, invoice_no, customer_id, stock_code, unit_price, -quantity AS quantity,
           invoice_date AT TIME ZONE 'Europe/London' AS at, 0 AS matched, NULL::text AS reason
    FROM raw_line WHERE customer_id IS NOT NULL AND invoice_no ~ '^C' AND quantity < 0;
CREATE TABLE open_line AS
    SELECT b.reference, m.external_id AS customer_id, b.occurred_at, l.line, l.sku, l.unit_price, l.quantity::integer AS quantity, 0 AS gone
    FROM basket b JOIN loyalty.member m USING (member_id), unnest(b.lines) WITH ORDINALITY AS l (sku, quantity, unit_price, amount, discount, line);
CREATE INDEX ON open_line (customer_id, sku, unit_price, occurred_at DESC);
ANALYZE open_line;
CREATE TABLE match (number bigint, reference text, line integer, quantity integer);
DO $$
DECLARE
    c record;
    o record;
    missing integer;
BEGIN
    FOR c IN SELECT * FROM cancelled ORDER BY number LOOP
        missing := c.quantity;
        FOR o IN SELECT ctid, * FROM open_line s WHERE s.customer_id = c.customer_id AND s.sku = c.stock_code AND s.unit_price = c.unit_price
                 AND s.occurred_at <= c.at AND s.gone < s.quantity ORDER BY s.occurred_at DESC, s.reference DESC, s.line DESC LOOP
            EXIT WHEN missing = 0;
            INSERT INTO match VALUES (c.number, o.reference, o.line, least(missing, o.quantity - o.gone));
            UPDATE open_line SET gone = gone + least(missing, o.quantity - o.gone) WHERE ctid = o.ctid;
            missing := missing - least(missing, o.quantity - o.gone);
        END LOOP;
        UPDATE cancelled SET matched = quantity - missing, reason = CASE
                WHEN missing = 0 THEN NULL
                WHEN c.stock_code !~ '^[0-9]{5}' THEN 'not an article (discount, postage, manual)'
                WHEN NOT EXISTS (SELECT FROM open_line s WHERE s.customer_id = c.customer_id AND s.sku = c.stock_code) THEN 'never bought in this file'
                WHEN NOT EXISTS (SELECT FROM open_line s WHERE s.customer_id = c.customer_id AND s.sku = c.stock_code AND s.occurred_at <= c.at) THEN 'bought only later'
                WHEN NOT EXISTS (SELECT FROM open_line s WHERE s.customer_id = c.customer_id AND s.sku = c.stock_code AND s.unit_price = c.unit_price AND s.occurred_at <= c.at) THEN 'bought at another price'
                ELSE 'more came back than was bought' END
            WHERE number = c.number;
    END LOOP;
END $$;
-- a return is what one 'C' invoice gives back of one purchase
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, occurred_at, lines, source, reference)
    SELECT 'shop', m.reference, min(c.at), array_agg(ROW(m.line, NULL, m.quantity, NULL)::loyalty.return_line ORDER BY c.number, m.line), 'shop', c.invoice_no || ' of ' || m.reference
    FROM match m JOIN cancelled c USING (number) GROUP BY c.invoice_no, m.reference ORDER BY min(c.at), c.invoice_no, m.reference;
