-- title: Brands
-- chapter: Sales
-- about: The fifteen brands that sell most.
-- view: bi_brand
-- column: brand text Brand
-- column: amount money Sales
-- column: members count Members
-- column: repeat_share percent Buy it again
-- chart: bars x=brand y=amount horizontal=yes label=yes
SELECT coalesce(brand, '(none)') AS brand, amount, members, round(repeat_buyers / nullif(members, 0)::numeric, 4) AS repeat_share
FROM loyalty.bi_brand WHERE program_id = :program ORDER BY amount DESC, 1 LIMIT 15
