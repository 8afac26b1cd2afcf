-- a ledger of :entries entries, twenty an account, in the order of trade
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Verify');
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
SELECT count(loyalty.enroll(1, 'm' || i)) FROM generate_series(1, :entries / 20) i;
INSERT INTO loyalty.purchase (member_id, amount) SELECT 1 + i % (:entries / 20), i % 90 + 1 FROM generate_series(1, :entries) i;
VACUUM ANALYZE;
