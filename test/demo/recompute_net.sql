-- The same with returns, in plain SQL: of each line its points x pieces that came back, rounded, over all returns of the purchase together.
-- A line's points are read from the ledger, and must add up to the purchase's.
CREATE TEMP TABLE line_now AS
WITH back AS (SELECT m.reference, m.line, sum(m.quantity) AS quantity FROM match m GROUP BY 1, 2),
earned AS MATERIALIZED (SELECT x.source_id, x.line, x.points FROM loyalty.entry_line x WHERE x.kind = 'earn')
SELECT p.purchase_id, p.member_id, p.amount, l.line, l.quantity, l.quantity * l.unit_price AS cost, coalesce(b.quantity, 0) AS back, e.points
FROM loyalty.purchase p
     CROSS JOIN LATERAL unnest(p.lines) WITH ORDINALITY AS l (sku, quantity, unit_price, amount, discount, line)
     JOIN earned e ON e.source_id = p.purchase_id AND e.line = l.line
     LEFT JOIN back b ON b.reference = p.reference AND b.line = l.line;
CREATE TEMP TABLE net AS
SELECT purchase_id, member_id, amount, sum(points) AS points, bool_and(back = quantity) AS complete,
       CASE WHEN bool_and(back = quantity) THEN sum(points) ELSE sum(floor(points * back / quantity + 0.5)) END AS points_back,
       CASE WHEN bool_and(back = quantity) THEN amount ELSE sum(round(cost * back / quantity, 3)) END AS money_back
FROM line_now GROUP BY 1, 2, 3;
DO $$
DECLARE wrong bigint; compared bigint;
BEGIN
    SELECT count(*) INTO wrong FROM net n WHERE n.points <> (SELECT e.points FROM loyalty.entry e WHERE e.source_id = n.purchase_id AND e.kind = 'earn');
    IF wrong > 0 THEN
        RAISE EXCEPTION 'the lines of % purchases do not add up to their points', wrong;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE e.points - coalesce(n.points_back, 0) IS DISTINCT FROM loyalty.points(a.tally)
            OR e.spend - coalesce(n.money_back, 0) IS DISTINCT FROM loyalty.spend(a.tally)
            OR e.purchases - coalesce(n.complete, 0) IS DISTINCT FROM loyalty.visits(a.tally))
        INTO compared, wrong
        FROM expected e JOIN loyalty.member m ON m.external_id = e.customer_id JOIN loyalty.account a ON a.account_id = m.member_id
            LEFT JOIN (SELECT member_id, sum(points_back) AS points_back, sum(money_back) AS money_back, count(*) FILTER (WHERE complete) AS complete FROM net GROUP BY 1) n USING (member_id);
    IF wrong > 0 OR compared = 0 THEN
        RAISE EXCEPTION '% of % members differ from the recomputation after returns', wrong, compared;
    END IF;
    RAISE NOTICE 'all % members agree to the point after returns', compared;
END $$;
