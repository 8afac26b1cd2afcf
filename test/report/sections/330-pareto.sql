-- title: How much the best members bring
-- chapter: Members
-- about: Members from the best to the least, and their share of all spending; the higher the bow, the fewer carry the shop.
-- view: bi_pareto
-- column: top_share percent The best
-- column: measure text Sales
-- column: share percent Bring
-- column: members count Members
-- column: amount money Amount
-- chart: curve x=top_share y=share series=measure at=0.2
SELECT top_percent / 100 AS top_share, measure, share, members, amount FROM loyalty.bi_pareto WHERE program_id = :program ORDER BY measure, top_percent
-- say
SELECT format('The best fifth of the members who bought brings {percent %s} of the sales.', round(share, 4)) FROM q WHERE top_share = 0.2 AND measure = 'gross'
