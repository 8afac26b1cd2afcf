-- title: Where points come from and go
-- chapter: Points
-- about: All entries of the ledger by kind; together they are the points on the books.
-- view: bi_points_flow
-- column: kind text Kind
-- column: points points Points
-- column: cost money Cost
-- column: entries count Entries
-- chart: bars x=kind y=points horizontal=yes
SELECT kind, sum(points) AS points, sum(cost) AS cost, sum(entries) AS entries FROM loyalty.bi_points_flow WHERE program_id = :program GROUP BY kind ORDER BY 2 DESC, 1
