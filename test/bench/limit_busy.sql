-- a limit on the store: 20,000 stores with one purchase in the window, one with 100,000
SET client_min_messages = warning;
SELECT loyalty.add_limit(1, 'store', 1000000000, '30 days', subject => 'purchase.store') \gset b_
INSERT INTO loyalty.purchase (member_id, amount, store) SELECT i, 10, 'quiet ' || i FROM generate_series(1, least(:guarded, 20000)) i;
INSERT INTO loyalty.purchase (member_id, amount, store) SELECT 1 + i % :guarded, 10, 'busy' FROM generate_series(1, 100000) i;
VACUUM ANALYZE;
