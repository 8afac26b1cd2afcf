-- title: Recency and frequency
-- chapter: Members
-- about: Members by how lately (5: just now) and how often (5: most often) they buy. Top right are the regulars, top left those to win back.
-- view: bi_rfm_cell
-- column: r count Recency score
-- column: f count Frequency score
-- column: members count Members
-- column: amount money Spent
-- column: mean_recency_days days Days since
-- chart: heat x=r y=f value=members up=yes xname=yes from=0
SELECT r, f, sum(members) AS members, sum(amount) AS amount, round(sum(mean_recency_days * members) / sum(members), 1) AS mean_recency_days
FROM loyalty.bi_rfm_cell WHERE program_id = :program AND method = 'cume' GROUP BY r, f ORDER BY f DESC, r
