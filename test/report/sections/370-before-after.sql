-- title: Before and after
-- chapter: Members
-- about: The average order in as many days before and after members reached a tier, or were first given points by a campaign. Not a proof: who climbs was buying more already.
-- view: bi_before_after
-- column: name text What happened
-- column: average_order_before money Order before
-- column: average_order_after money Order after
-- column: purchases_before count Purchases before
-- column: purchases_after count Purchases after
-- column: members count Members
-- column: days count Days
-- chart: bars x=name y=average_order_before,average_order_after horizontal=yes label=yes
SELECT event || ': ' || name AS name, average_order_before, average_order_after, purchases_before, purchases_after, members, days
FROM loyalty.bi_before_after WHERE program_id = :program AND event <> 'join' AND members >= 5 ORDER BY event DESC, members DESC, name LIMIT 10
