-- title: Liability by the month in which points die
-- chapter: Points
-- about: What today's points would cost if all were spent.
-- view: bi_liability
-- column: expiry_month text Die in
-- column: state text State
-- column: cost money Cost
-- column: points points Points
-- column: accounts count Accounts
-- chart: bars x=expiry_month y=cost series=state stack=yes
SELECT coalesce(to_char(expiry_month, 'Mon YYYY'), 'never') AS expiry_month, state, sum(cost) AS cost, sum(points) AS points, sum(accounts) AS accounts
FROM loyalty.bi_liability l WHERE program_id = :program GROUP BY l.expiry_month, state ORDER BY l.expiry_month, state
-- say
SELECT format('All points on the books are worth {money %s}; {money %s} of it can be spent today.', sum(cost), coalesce(sum(cost) FILTER (WHERE state = 'available'), 0)) FROM q HAVING sum(cost) IS NOT NULL
