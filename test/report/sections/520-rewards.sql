-- title: Rewards
-- chapter: Rules and rewards
-- about: What members take for their points.
-- view: bi_reward
-- column: reward text Reward
-- column: claims count Claims
-- column: members count Members
-- column: points points Points
-- column: cost money Worth
-- column: price points Price
-- column: stock count In stock
-- column: offered yes Offered
-- chart: bars x=reward y=claims horizontal=yes label=yes
SELECT reward, claims, members, points, cost, price, stock, offered FROM loyalty.bi_reward WHERE program_id = :program ORDER BY claims DESC, reward LIMIT 25
-- say
SELECT format('%s is what members like most.', (SELECT reward FROM q ORDER BY claims DESC, reward LIMIT 1)) || coalesce(' Nobody took ' || string_agg(reward, ', ' ORDER BY reward) FILTER (WHERE claims = 0 AND offered) || '.', '') FROM q HAVING max(claims) > 0
