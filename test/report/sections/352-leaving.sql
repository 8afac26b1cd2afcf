-- title: Whom to win back first
-- chapter: Members
-- about: The twenty members with signs of leaving who have spent most.
-- view: bi_churn
-- column: member_id code Member
-- column: amount money Spent
-- column: recency_days count Days since
-- column: reasons text Why
WITH c AS MATERIALIZED (SELECT * FROM loyalty.bi_churn WHERE program_id = :program)
SELECT member_id, amount, recency_days, reasons FROM c WHERE signals > 0 AND recency_days <= 365 ORDER BY amount DESC, member_id LIMIT 20
