-- title: Revenue: new, returning, guests
-- chapter: Sales
-- about: What came in each month from members in their first month of buying, from members who came back, and from guests; before returns.
-- size: wide
-- view: bi_month bi_cohort
-- column: month month Month
-- column: returning_amount money Members who came back
-- column: new_amount money New members
-- column: guest_amount money Guests
-- column: other_amount money Without analysis consent
-- column: returned money Returned
-- chart: bars x=month y=returning_amount,new_amount,guest_amount,other_amount stack=yes height=320
SELECT m.month, coalesce(c.returning_amount, 0) AS returning_amount, coalesce(c.new_amount, 0) AS new_amount, m.guest_amount,
       m.amount - m.guest_amount - coalesce(c.returning_amount, 0) - coalesce(c.new_amount, 0) AS other_amount, m.returned
FROM loyalty.bi_month m
     LEFT JOIN (SELECT month, sum(amount) FILTER (WHERE month_offset > 0) AS returning_amount, sum(amount) FILTER (WHERE month_offset = 0) AS new_amount
                FROM loyalty.bi_cohort WHERE program_id = :program GROUP BY month) c USING (month)
WHERE m.program_id = :program ORDER BY m.month
-- say
SELECT format('In the last whole month, {month %s}, members who came back brought {percent %s} of the revenue.', month, round(returning_amount / nullif(returning_amount + new_amount + guest_amount + other_amount, 0), 4))
FROM q WHERE month < (SELECT max(month) FROM q) ORDER BY month DESC LIMIT 1
