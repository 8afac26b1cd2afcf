-- title: Whose refill is due
-- chapter: Members
-- about: Members whose own rhythm says that the next purchase of a category falls into the next fourteen days, and those who are late.
-- view: bi_category_cadence
-- column: category text Category
-- column: due count Due in 14 days
-- column: overdue count Long overdue
-- column: interval days Days between, median
-- chart: bars x=category y=due,overdue stack=yes horizontal=yes
SELECT coalesce(category, '(none)') AS category, count(*) FILTER (WHERE next_expected_on BETWEEN as_of AND as_of + 14) AS due, count(*) FILTER (WHERE overdue) AS overdue, percentile_disc(0.5) WITHIN GROUP (ORDER BY mean_interval) AS interval
FROM loyalty.bi_category_cadence WHERE program_id = :program AND mean_interval IS NOT NULL GROUP BY category HAVING count(*) >= 3 ORDER BY 2 DESC, 1 LIMIT 15
