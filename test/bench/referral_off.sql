-- the same members, nobody referred
SET client_min_messages = warning;
INSERT INTO loyalty.member (program_id, external_id) SELECT 1, 'friend ' || i FROM generate_series(1, :guarded / 10) i;
VACUUM ANALYZE;
