-- title: Returns
-- chapter: Sales
-- about: What came back in each month, by the reason that was given.
-- view: bi_return
-- column: month month Month
-- column: reason text Reason
-- column: returned money Returned
-- column: returns count Returns
-- column: mean_days days Days after
-- chart: bars x=month y=returned series=reason stack=yes
WITH r AS (SELECT month, coalesce(reason, '(no reason)') AS reason, returned, returns, mean_days FROM loyalty.bi_return WHERE program_id = :program),
     p AS (SELECT reason, rank() OVER (ORDER BY sum(returned) DESC, reason) AS place FROM r GROUP BY reason)
SELECT month, CASE WHEN place <= 6 THEN reason ELSE 'other reasons' END AS reason, sum(returned) AS returned, sum(returns) AS returns, round(sum(returns * mean_days) / sum(returns), 1) AS mean_days
FROM r JOIN p USING (reason) GROUP BY 1, 2 ORDER BY 1, min(place)
-- say
SELECT format('%s is the reason for {percent %s} of what comes back.', upper(left(reason, 1)) || substr(reason, 2), round(sum(returned) / nullif(sum(sum(returned)) OVER (), 0), 4)) FROM q GROUP BY reason ORDER BY sum(returned) DESC LIMIT 1
