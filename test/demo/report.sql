\pset border 2
SELECT max(p.occurred_at AT TIME ZONE 'Europe/London')::date AS day FROM loyalty.purchase p \gset last_
\echo
\echo '  THE GIFT CLUB, as of the last day of trade' :last_day
\echo
\pset title 'The programme'
SELECT name AS rule, loyalty.describe(1, name) AS "in plain words" FROM loyalty.rule_current WHERE program_id = 1 ORDER BY rule_version_id;
\pset title 'Trade'
SELECT to_char(count(*), 'FM999,999,999') AS purchases, to_char(count(DISTINCT member_id), 'FM999,999') AS members,
       to_char(sum(amount), 'FM999,999,999.000') AS "gross spend, GBP", min(occurred_at)::date AS "from", max(occurred_at)::date AS "to" FROM loyalty.purchase WHERE status = 'completed';
\pset title 'Where the points came from'
SELECT r.rule, to_char(count(*), 'FM999,999') AS awards, to_char(sum(r.points), 'FM999,999,999') AS points,
       to_char(sum(r.points) / 100.0, 'FM9,999,999.00') AS "cost, GBP" FROM loyalty.entry_rule r GROUP BY 1 ORDER BY sum(r.points) DESC;
\pset title 'Tiers'
SELECT coalesce(t.name, 'none') AS tier, to_char(count(*), 'FM999,999') AS members, to_char(sum(loyalty.spend(a.tally)), 'FM999,999,999.00') AS "spend, GBP",
       to_char(100 * sum(loyalty.spend(a.tally)) / sum(sum(loyalty.spend(a.tally))) OVER (), 'FM990.0') || ' %' AS "of all"
FROM loyalty.account a LEFT JOIN loyalty.tier t USING (tier_id) GROUP BY t.rank, t.name ORDER BY t.rank DESC NULLS LAST;
\pset title 'The ten best members'
SELECT m.external_id AS member, t.name AS tier, to_char(loyalty.visits(a.tally), 'FM9,999') AS purchases, to_char(loyalty.spend(a.tally), 'FM999,999,999.00') AS "spend, GBP",
       to_char(loyalty.points(a.tally), 'FM999,999,999') AS "points earned", to_char(greatest(loyalty.available(a.lots, :'last_day'), 0), 'FM999,999,999') AS available,
       to_char(loyalty.pending(a.lots, :'last_day'), 'FM999,999') AS pending
FROM loyalty.account a JOIN loyalty.member m ON m.member_id = a.account_id LEFT JOIN loyalty.tier t USING (tier_id)
ORDER BY loyalty.spend(a.tally) DESC, m.external_id LIMIT 10;
SELECT p.purchase_id, p.reference, p.amount, m.external_id, p.occurred_at FROM loyalty.purchase p JOIN loyalty.member m USING (member_id)
    WHERE EXISTS (SELECT FROM unnest(p.lines) l JOIN loyalty.product q ON q.program_id = 1 AND q.sku = l.sku WHERE q.category = 'Christmas')
      AND p.amount BETWEEN 500 AND 800 AND p.status = 'completed' ORDER BY p.occurred_at DESC, 1 LIMIT 1 \gset one_
\pset title 'One purchase explained'
SELECT :'one_reference' AS invoice, :'one_amount' AS "amount, GBP", :'one_external_id' AS member, :'one_occurred_at' AS "when";
SELECT rule, CASE WHEN fired THEN 'yes' ELSE 'no' END AS fired, points, trim_scale(round(exact, 4)) AS exactly, why FROM loyalty.explain(:one_purchase_id);
\pset title 'A statement (last five entries of the best member)'
SELECT m.member_id FROM loyalty.account a JOIN loyalty.member m ON m.member_id = a.account_id ORDER BY loyalty.spend(a.tally) DESC, 1 LIMIT 1 \gset best_
SELECT seq, occurred_at::date AS day, kind, points, balance_after AS balance, description, available_from AS "good from", expires_on AS "dies on" FROM loyalty.statement(:best_member_id, max_rows => 5);
\pset title 'Points on the books, by the month in which they die or died'
SELECT CASE WHEN isfinite(month) THEN to_char(month, 'YYYY-MM') ELSE '(debt)' END AS "dies in", to_char(points, 'FM999,999,999') AS points, to_char(points / 100.0, 'FM999,999.00') AS "cost, GBP", repeat('#', (60 * points / max(points) OVER ())::int) AS " "
FROM (SELECT date_trunc('month', u.expires_on) AS month, sum(u.points) AS points FROM loyalty.account a, loyalty.unnest(a.lots) u WHERE u.expires_on > :'last_day' GROUP BY 1) x ORDER BY month;
\pset title 'The books'
SELECT to_char(count(*), 'FM999,999,999') AS entries, to_char(sum(points), 'FM999,999,999') AS "sum of points",
       (SELECT to_char(sum(loyalty.total(lots)), 'FM999,999,999') FROM loyalty.account) AS "sum of accounts", (SELECT count(*) FROM loyalty.check()) AS "broken invariants",
       pg_size_pretty(pg_total_relation_size('loyalty.entry')) AS "ledger size" FROM loyalty.entry;
