-- title: Awards that wait for a person
-- chapter: Watch
-- about: How many wait, why, and for how long.
-- view: bi_review
-- column: reason text Reason
-- column: band text Waiting for
-- column: waiting count Waiting
-- column: oldest_on day Oldest
-- chart: bars x=band y=waiting series=reason stack=yes horizontal=yes
SELECT reason, band, sum(waiting) AS waiting, min(oldest_on) AS oldest_on FROM loyalty.bi_review WHERE program_id = :program GROUP BY reason, band, days_from ORDER BY days_from, reason
