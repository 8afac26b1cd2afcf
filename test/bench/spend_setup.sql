-- members with ten lots that die on ten days; the twin has the same accounts, entries and indexes, and no triggers
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Spend', time_zone => 'Europe/London', currency => 'GBP', point_value => 0.01) \gset b_
SELECT loyalty.add_tier(1, 'T1', 0, 'spend'), loyalty.add_tier(1, 'T2', 1000, 'spend', 1.1) \gset b_
INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT 1, 'm' || i, '2024-01-01' FROM generate_series(1, :spenders) i;
-- somebody who bought and then got points that die at the end of each of the next ten months
INSERT INTO loyalty.purchase (member_id, amount, store) SELECT member_id, 10, 'S1' FROM loyalty.member;
SELECT count(loyalty.post(m.member_id, 'open', l.lots, '{}', now(), 'benchmark', NULL)) AS n FROM loyalty.member m,
    (SELECT loyalty.sum(loyalty.lots(current_date - 30, (date_trunc('month', current_date) + make_interval(months => i))::date, 1000000)) AS lots
     FROM generate_series(1, 10) i) l \gset b_
CREATE SCHEMA twin;
CREATE TABLE twin.entry (LIKE loyalty.entry INCLUDING ALL);
CREATE TABLE twin.account (LIKE loyalty.account INCLUDING ALL) WITH (fillfactor = 90);
CREATE SEQUENCE twin.transaction_id_seq;
INSERT INTO twin.account SELECT * FROM loyalty.account;
INSERT INTO twin.entry SELECT * FROM loyalty.entry;
VACUUM ANALYZE;
