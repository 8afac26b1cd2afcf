-- title: Limits
-- chapter: Watch
-- about: How often each limit stepped in, and the points that it kept back.
-- view: bi_limit
-- column: limit_name text Limit
-- column: decisions count Decisions
-- column: verdict text Verdict
-- column: reason text Reason
-- column: kept points Kept back
-- column: maximum number Maximum
-- column: measure text Of
-- chart: bars x=limit_name y=decisions series=verdict stack=yes horizontal=yes
SELECT limit_name, sum(decisions) AS decisions, coalesce(verdict, 'never reached') AS verdict, reason, sum(points_wanted - points) AS kept, maximum, measure
FROM loyalty.bi_limit WHERE program_id = :program GROUP BY limit_name, verdict, reason, maximum, measure ORDER BY 2 DESC, 1
