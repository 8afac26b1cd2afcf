-- title: Rules by month
-- chapter: Rules and rewards
-- about: What the rules gave in each month.
-- view: bi_rule_month
-- column: month month Month
-- column: rule text Rule
-- column: points points Points
-- column: cost money Cost
-- column: members count Members
-- chart: bars x=month y=points series=rule stack=yes
WITH m AS (SELECT * FROM loyalty.bi_rule_month WHERE program_id = :program), p AS (SELECT rule, rank() OVER (ORDER BY sum(points) DESC, rule) AS place FROM m GROUP BY rule)
SELECT month, CASE WHEN place <= 7 THEN rule ELSE 'others' END AS rule, sum(points) AS points, sum(cost) AS cost, max(members) AS members FROM m JOIN p USING (rule) GROUP BY 1, 2 ORDER BY 1, min(place)
