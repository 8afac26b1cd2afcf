-- :guarded members who bought once, in a programme of five rules and four tiers without limits or referrals
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Bench', time_zone => 'Europe/London', currency => 'GBP', hold_days => 14) \gset b_
SELECT loyalty.add_tier(1, 'T1', 0, 'spend'), loyalty.add_tier(1, 'T2', 1000, 'spend', 1.1), loyalty.add_tier(1, 'T3', 5000, 'spend', 1.25), loyalty.add_tier(1, 'T4', 20000, 'spend', 1.5) \gset b_
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount'), loyalty.add_rule(1, 'store', 'purchase', 'multiply', '1.5', 'purchase.store = ''S3'''),
       loyalty.add_rule(1, 'big', 'purchase', 'bonus', '50', 'purchase.amount >= 90'), loyalty.add_rule(1, 'first', 'purchase', 'bonus', '10', 'purchase.number = 1'),
       loyalty.add_rule(1, 'evening', 'purchase', 'bonus', '2', 'extract(hour from purchase.occurred_at) >= 20') \gset b_
INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT 1, 'm' || i, '2024-01-01' FROM generate_series(1, :guarded) i;
INSERT INTO loyalty.purchase (member_id, amount, store) SELECT member_id, 10, 'S1' FROM loyalty.member;
VACUUM ANALYZE;
