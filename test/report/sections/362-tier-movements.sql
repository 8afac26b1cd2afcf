-- title: Up and down the tiers
-- chapter: Members
-- about: Members who rose (up) and who fell (down) in each month.
-- view: bi_tier_movement
-- column: month month Month
-- column: up count Up
-- column: down count Down
-- chart: bars x=month y=up,down stack=yes
SELECT month, coalesce(sum(changes) FILTER (WHERE direction = 'up' AND from_tier IS NOT NULL), 0) AS up, -coalesce(sum(changes) FILTER (WHERE direction = 'down'), 0) AS down
FROM loyalty.bi_tier_movement WHERE program_id = :program GROUP BY month HAVING count(*) FILTER (WHERE direction = 'down' OR direction = 'up' AND from_tier IS NOT NULL) > 0 ORDER BY month
