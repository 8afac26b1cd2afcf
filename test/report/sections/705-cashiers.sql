-- title: Who handled points
-- chapter: Watch
-- about: Points redeemed and adjusted by each cashier, or by the role that connected, in the last 90 days with any.
-- view: bi_staff
-- column: cashier text Cashier
-- column: points points Redeemed
-- column: adjusted points Adjusted
-- column: redemptions count Redemptions
-- column: adjustments count Adjustments
-- column: days count Days
-- chart: bars x=cashier y=points,adjusted stack=yes horizontal=yes
SELECT cashier, sum(points) AS points, sum(adjusted) AS adjusted, sum(redemptions) AS redemptions, sum(adjustments) AS adjustments, count(*) AS days
FROM loyalty.bi_staff WHERE program_id = :program AND day > (SELECT max(day) - 90 FROM loyalty.bi_staff WHERE program_id = :program) GROUP BY cashier ORDER BY sum(points) + sum(adjusted) DESC, cashier LIMIT 20
