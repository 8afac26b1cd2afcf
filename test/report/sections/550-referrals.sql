-- title: Friends of friends
-- chapter: Rules and rewards
-- about: All referrals: invited, became members, bought enough, both sides rewarded.
-- view: bi_referral
-- column: step text Step
-- column: referrals count Referrals
-- column: share percent Of all
-- chart: bars x=step y=referrals horizontal=yes label=yes
SELECT v.step, v.n AS referrals, round(v.n / nullif(r.invited, 0)::numeric, 4) AS share
FROM (SELECT sum(invited) AS invited, sum(registered) AS registered, sum(qualified) AS qualified, sum(rewarded) AS rewarded FROM loyalty.bi_referral WHERE program_id = :program) r
     CROSS JOIN LATERAL (VALUES (1, 'Invited', r.invited), (2, 'Registered', r.registered), (3, 'Bought enough', r.qualified), (4, 'Rewarded', r.rewarded)) v (n_, step, n) WHERE r.invited > 0 ORDER BY v.n_
