-- title: Would they recommend you?
-- chapter: Rules and rewards
-- about: Net promoter score of the answers of each month: per cent of 9 and 10 less per cent of 0 to 6.
-- view: bi_activity
-- column: month month Month
-- column: nps number NPS
-- column: answers count Answers
-- chart: lines x=month y=nps
SELECT month, round(sum(nps * activities) / sum(activities), 1) AS nps, sum(activities) AS answers FROM loyalty.bi_activity WHERE program_id = :program AND nps IS NOT NULL GROUP BY month ORDER BY month
