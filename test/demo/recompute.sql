-- Every member's points in plain SQL over the raw lines, without the engine:
-- tier = the best that the calendar years so far earned before this invoice.
CREATE TABLE expected AS
WITH invoice AS (
    SELECT customer_id, invoice_no, min(invoice_date) AS at, sum(amount) AS amount,
           sum(amount * CASE WHEN christmas THEN 2 ELSE 1 END) AS weighted
    FROM sale JOIN (SELECT stock_code, max(description) ILIKE '%christmas%' AS christmas FROM sale GROUP BY 1) p USING (stock_code)
    GROUP BY 1, 2),
running AS (
    SELECT *, CASE WHEN year_sum >= 20000 THEN 4 WHEN year_sum >= 5000 THEN 3 WHEN year_sum >= 1000 THEN 2 ELSE 1 END AS earned
    FROM (SELECT *, sum(amount) OVER (PARTITION BY customer_id, date_trunc('year', at) ORDER BY at, invoice_no) AS year_sum FROM invoice) y),
tiered AS (
    SELECT *, max(earned) OVER (PARTITION BY customer_id ORDER BY at, invoice_no ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS tier FROM running)
SELECT customer_id, count(*) AS purchases, sum(amount) AS spend,
       sum(floor(weighted * (ARRAY[1, 1.1, 1.25, 1.5])[coalesce(tier, 1)] + CASE WHEN amount >= 500 THEN 100 ELSE 0 END)) AS points,
       max(earned) AS tier
FROM tiered GROUP BY 1;
DO $$
DECLARE wrong bigint; compared bigint;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE e.points IS DISTINCT FROM loyalty.points(a.tally) OR e.spend IS DISTINCT FROM loyalty.spend(a.tally)
            OR e.purchases IS DISTINCT FROM loyalty.visits(a.tally) OR e.tier IS DISTINCT FROM t.rank)
        INTO compared, wrong
        FROM expected e FULL JOIN loyalty.member m ON m.external_id = e.customer_id
            LEFT JOIN loyalty.account a ON a.account_id = m.member_id LEFT JOIN loyalty.tier t USING (tier_id);
    IF wrong > 0 OR compared = 0 THEN
        RAISE EXCEPTION '% of % members differ from the recomputation', wrong, compared;
    END IF;
    RAISE NOTICE 'all % members agree to the point: points, spend, purchases and tier', compared;
END $$;
