SET client_min_messages = warning;
SET work_mem = '256MB';
SELECT loyalty.enroll(1, 'a hundred', '2020-01-01') AS hundred, loyalty.enroll(1, 'a million', '2020-01-01') AS million \gset
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT :hundred, timestamptz '2025-01-01' + i * interval '6 days', 10 FROM generate_series(1, 100) i;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT :million, timestamptz '2025-01-01' + i * interval '50 seconds', 10 FROM generate_series(1, 1000000) i;
VACUUM ANALYZE loyalty.account;
