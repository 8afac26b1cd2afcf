\pset border 2
\pset title 'Cancellations (of one customer, article and price, the latest purchase before them first)'
SELECT CASE WHEN r.matched THEN 'matched to a purchase and taken back' ELSE 'not matched: ' || r.reason END AS "cancelled lines",
       to_char(count(*), 'FM99,999') AS lines, to_char(sum(r.pieces), 'FM999,999') AS pieces, to_char(sum(r.money), 'FM999,999.000') AS "GBP"
FROM (SELECT true AS matched, NULL AS reason, c.matched AS pieces, c.matched * c.unit_price AS money FROM cancelled c WHERE c.matched > 0
      UNION ALL SELECT false, c.reason, c.quantity - c.matched, (c.quantity - c.matched) * c.unit_price FROM cancelled c WHERE c.matched < c.quantity) r
GROUP BY r.matched, r.reason ORDER BY r.matched DESC, sum(r.money) DESC;
\pset title 'Spend of known customers'
SELECT to_char((SELECT sum(amount) FROM loyalty.purchase), 'FM999,999,999.000') AS gross, to_char((SELECT sum(amount) FROM loyalty.returned), 'FM999,999,999.000') AS returned,
       to_char((SELECT sum(loyalty.spend(tally)) FROM loyalty.account), 'FM999,999,999.000') AS "net on the books",
       to_char((SELECT sum((quantity - matched) * unit_price) FROM cancelled), 'FM999,999,999.000') AS "cancelled, not matched",
       to_char((SELECT sum(loyalty.spend(tally)) FROM loyalty.account) - (SELECT sum((quantity - matched) * unit_price) FROM cancelled), 'FM999,999,999.000') AS "net if all were";
\pset title 'Two customers who took back what they had bought for a fortune'
SELECT m.external_id AS customer, to_char(sum(p.amount), 'FM999,999.00') AS bought, to_char((SELECT sum(d.amount) FROM loyalty.returned d JOIN loyalty.purchase q USING (purchase_id) WHERE q.member_id = m.member_id), 'FM999,999.00') AS returned,
       b.available, b.pending, b.debt, b.lifetime_points AS "points kept"
FROM loyalty.member m JOIN loyalty.purchase p USING (member_id) JOIN loyalty.member_balance b USING (member_id) WHERE m.external_id IN ('12346', '16446')
GROUP BY m.member_id, m.external_id, b.available, b.pending, b.debt, b.lifetime_points ORDER BY 1;
