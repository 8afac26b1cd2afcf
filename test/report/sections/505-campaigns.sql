-- title: Campaigns
-- chapter: Rules and rewards
-- about: Rules with a beginning or an end: the share of members who were given something by them, and the cost.
-- view: bi_rule
-- column: rule text Campaign
-- column: response percent Members reached
-- column: cost money Cost
-- column: points points Points
-- column: members count Members
-- column: active_from day From
-- column: active_until day Until
-- chart: bars x=rule y=response horizontal=yes label=yes
SELECT rule, response, cost, points, members, active_from, active_until FROM loyalty.bi_rule WHERE program_id = :program AND campaign ORDER BY active_from DESC NULLS LAST, rule LIMIT 15
-- say
SELECT format('%s reached {percent %s} of the members for {money %s}.', rule, response, cost) FROM q WHERE cost > 0 ORDER BY response DESC, rule LIMIT 1
