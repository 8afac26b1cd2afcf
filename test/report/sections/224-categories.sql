-- title: Categories
-- chapter: Sales
-- about: What sells, to how many members, and how many of those buy it again.
-- view: bi_category
-- column: category text Category
-- column: amount money Sales
-- column: amount_share percent Share
-- column: members count Members
-- column: repeat_share percent Buy it again
-- column: quantity count Pieces
-- chart: bars x=category y=amount horizontal=yes label=yes
SELECT coalesce(category, '(none)') AS category, amount, amount_share, members, round(repeat_buyers / nullif(members, 0)::numeric, 4) AS repeat_share, quantity
FROM loyalty.bi_category WHERE program_id = :program ORDER BY amount DESC, 1 LIMIT 25
