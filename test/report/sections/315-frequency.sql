-- title: How often members bought
-- chapter: Members
-- about: Members by the number of their purchases; twenty and more together.
-- view: bi_frequency
-- column: purchases text Purchases
-- column: members count Members
-- column: member_share percent Share
-- column: amount money What they spent
-- chart: bars x=purchases y=members
SELECT CASE WHEN least(purchases, 20) = 20 THEN '20+' ELSE least(purchases, 20)::text END AS purchases, sum(members) AS members, sum(member_share) AS member_share, sum(amount) AS amount
FROM loyalty.bi_frequency WHERE program_id = :program GROUP BY least(purchases, 20) ORDER BY least(purchases, 20)
