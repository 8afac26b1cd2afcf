-- fresh purchases and entries; accounts as they were at the start
SET client_min_messages = warning;
SET session_replication_role = replica;
TRUNCATE loyalty.purchase, loyalty.entry, loyalty.tier_change, twin.purchase, twin.entry, plain.purchase, port_set.purchase, port_set.entry, port_row.purchase, port_row.entry;
TRUNCATE loyalty.account, twin.account, port_set.account, port_row.account;
INSERT INTO loyalty.account (account_id, program_id, joined_at) SELECT member_id, program_id, joined_at FROM loyalty.member ORDER BY 1;
INSERT INTO twin.account SELECT * FROM loyalty.account;
INSERT INTO port_set.account SELECT * FROM loyalty.account;
INSERT INTO port_row.account SELECT * FROM loyalty.account;
DROP TABLE IF EXISTS incoming;
CREATE UNLOGGED TABLE incoming AS SELECT 1 + abs(hashint8extended(i, 1)) % :members AS member_id, timestamptz '2024-01-01' + i * interval '15 seconds' AS occurred_at,
    (100 + abs(hashint8extended(i, 2)) % 9900) / 100.0 AS amount, 'S' || i % 5 AS store, 'R' || i AS reference FROM generate_series(1, :rows) i;
VACUUM ANALYZE;
