-- title: Categories by month
-- chapter: Sales
-- about: Sales of the eight largest categories; the others together.
-- view: bi_category_month
-- column: month month Month
-- column: category text Category
-- column: amount money Sales
-- column: purchases count Purchases
-- chart: bars x=month y=amount series=category stack=yes
WITH c AS (SELECT month, coalesce(category, '(none)') AS category, purchases, amount FROM loyalty.bi_category_month WHERE program_id = :program),
     r AS (SELECT category, rank() OVER (ORDER BY sum(amount) DESC, category) AS place FROM c GROUP BY category)
SELECT month, CASE WHEN place <= 8 THEN category ELSE 'others' END AS category, sum(amount) AS amount, sum(purchases) AS purchases
FROM c JOIN r USING (category) GROUP BY 1, 2 ORDER BY 1, min(place)
