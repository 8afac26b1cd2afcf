-- title: From the first purchase to the third
-- chapter: Members
-- about: How many members come so far, and how long they take from one step to the next.
-- view: bi_ladder
-- column: step text Purchase
-- column: members count Members
-- column: rate percent Of those at the step before
-- column: median_days days Days from the step before, median
-- column: mean_days days Days, mean
-- chart: bars x=step y=members horizontal=yes label=yes
SELECT CASE step WHEN 1 THEN 'First purchase' WHEN 2 THEN 'Second' WHEN 3 THEN 'Third' ELSE step::text END AS step, members, rate, CASE WHEN step > 1 THEN median_days END AS median_days, CASE WHEN step > 1 THEN mean_days END AS mean_days
FROM loyalty.bi_ladder l WHERE program_id = :program ORDER BY l.step
-- say
SELECT format('{percent %s} of those who bought once come a second time, half of them within %s days; {percent %s} of those come a third time.', b.rate, b.median_days, c.rate) FROM q b, q c WHERE b.step = 'Second' AND c.step = 'Third'
