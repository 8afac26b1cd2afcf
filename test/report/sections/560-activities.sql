-- title: What members do besides buying
-- chapter: Rules and rewards
-- about: Reviews, answers, sign-ups and the like, by month.
-- view: bi_activity
-- column: month month Month
-- column: kind text Kind
-- column: activities count Activities
-- column: members count Members
-- column: points points Points
-- chart: bars x=month y=activities series=kind stack=yes
WITH a AS (SELECT * FROM loyalty.bi_activity WHERE program_id = :program), p AS (SELECT kind, rank() OVER (ORDER BY sum(activities) DESC, kind) AS place FROM a GROUP BY kind)
SELECT month, CASE WHEN place <= 7 THEN kind ELSE 'others' END AS kind, sum(activities) AS activities, max(members) AS members, sum(points) AS points FROM a JOIN p USING (kind) GROUP BY 1, 2 ORDER BY 1, min(place)
