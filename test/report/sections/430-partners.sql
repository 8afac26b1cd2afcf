-- title: Liability by partner
-- chapter: Points
-- about: Points on the books by the partner whose articles gave them.
-- view: bi_partner_liability
-- column: partner text Partner
-- column: cost money Cost
-- column: points points Points
-- column: accounts count Accounts
-- chart: bars x=partner y=points horizontal=yes
SELECT coalesce(partner, 'our own') AS partner, cost, points, accounts FROM loyalty.bi_partner_liability WHERE program_id = :program AND EXISTS (SELECT FROM loyalty.bi_partner_liability p WHERE p.program_id = :program AND p.partner IS NOT NULL) ORDER BY points DESC, 1
