-- the chain and verify: what a superuser without triggers does to the books is found, and the first entry that is wrong is named
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Chain' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Chain') AND external_id = who $$;
SELECT loyalty.create_program('Chain') = pg_temp.p() AS made, loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base;
SELECT count(loyalty.enroll(pg_temp.p(), n, '2024-01-01')) AS members FROM unnest('{una,ugo,eli,leo}'::text[]) n;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT pg_temp.m('una'), '2025-01-01'::timestamptz + i * interval '1 day', 100 * i FROM generate_series(1, 4) i;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT pg_temp.m('ugo'), '2025-02-01'::timestamptz + i * interval '1 day', 10 + i FROM generate_series(1, 3) i;
SELECT loyalty.adjust(pg_temp.m('una'), 50, 'gift', 'gift 1') AS seq;
SELECT redeemed FROM loyalty.redeem(pg_temp.m('una'), 30, 'spent 1');
SELECT loyalty.adjust(pg_temp.m('una'), 8, 'apology', 'gift 2') AS seq;
SELECT seq, kind, points FROM loyalty.entry WHERE account_id = pg_temp.m('una') ORDER BY seq;
-- nothing is wrong, of all, of one, of some
SELECT * FROM loyalty.verify();
SELECT * FROM loyalty.verify(pg_temp.m('una'));
SELECT * FROM loyalty.verify(account_from => pg_temp.m('una'), account_to => pg_temp.m('leo'));
-- in parallel workers too
BEGIN;
SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0;
SELECT count(*) FROM loyalty.account a, LATERAL loyalty.verify_accounts(a.account_id, a.account_id, NULL, false) v;
ROLLBACK;
-- every entry bears its key's number, or none does
SELECT count(DISTINCT length(hash)) AS kinds, coalesce(bool_and(get_byte(hash, 0) = 8) FILTER (WHERE length(hash) = 33), true) AS key_8 FROM loyalty.entry WHERE account_id IN (pg_temp.m('una'), pg_temp.m('ugo'));
-- the damage, as a superuser without triggers could do it; what verify and check say; and back
CREATE FUNCTION pg_temp.seen(damage text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
    checked text;
    n bigint;
BEGIN
    SET LOCAL session_replication_role = replica;
    EXECUTE damage;
    GET DIAGNOSTICS n = ROW_COUNT;
    SET LOCAL session_replication_role = origin;
    IF n = 0 THEN
        RAISE EXCEPTION 'no damage: %', damage USING ERRCODE = 'ZZ001';
    END IF;
    SELECT string_agg(format('%s %s: %s', coalesce((SELECT external_id FROM loyalty.member m WHERE m.member_id = v.account_id), 'nobody'), v.seq, v.problem), ', ' ORDER BY v.account_id) INTO found FROM loyalty.verify() v;
    IF found IS NULL THEN
        BEGIN
            SELECT string_agg(DISTINCT c.invariant, ', ' ORDER BY c.invariant) INTO checked FROM loyalty.check() c;
        EXCEPTION WHEN OTHERS THEN
            checked := SQLSTATE || ' ' || regexp_replace(SQLERRM, '[0-9]+', 'N', 'g');
        END;
    END IF;
    RAISE EXCEPTION '%', coalesce(found, 'check: ' || checked, 'NOTHING') USING ERRCODE = 'ZZ001';
EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
    RETURN SQLERRM;
END
$$;
-- another value for a column, whatever its type; a null becomes one that is not
CREATE FUNCTION pg_temp.other(name text, type text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE type WHEN 'bigint' THEN format('coalesce(%I, 0) + 1', name) WHEN 'integer' THEN format('coalesce(%I, 0) + 1', name) WHEN 'text' THEN format('coalesce(%I, '''') || ''x''', name)
        WHEN 'timestamp with time zone' THEN format('coalesce(%I, now()) + interval ''1 microsecond''', name) WHEN 'date' THEN format('coalesce(%I, ''2030-01-01'') + 1', name) WHEN 'boolean' THEN format('NOT %I', name)
        WHEN 'bytea' THEN format('CASE WHEN coalesce(length(%1$I), 0) = 0 THEN ''\x00''::bytea ELSE set_bit(%1$I, 70 %% (8 * length(%1$I)), 1 - get_bit(%1$I, 70 %% (8 * length(%1$I)))) END', name)
        WHEN 'jsonb' THEN format('coalesce(%I, ''{}'') || ''{"x": 1}''', name) WHEN 'loyalty.lots' THEN format('%I OPERATOR(loyalty.+) ''{[2030-01-01,)=1}''', name) WHEN 'loyalty.tally' THEN format('%I OPERATOR(loyalty.+) ''{2030-01: visits=1}''', name)
        WHEN 'loyalty.hold[]' THEN format('ARRAY[ROW(77, ''forged'', now(), now() + interval ''1 year'', ''{[,)=1}'', NULL)]::loyalty.hold[]') WHEN 'bigint[]' THEN 'ARRAY[7]' END
$$;
CREATE TEMP VIEW columns AS SELECT c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.oid IN ('loyalty.entry'::regclass, 'loyalty.account'::regclass) AND a.attnum > 0 AND NOT a.attisdropped;
-- flip: every column of entry 2
SELECT attname, pg_temp.seen(format('UPDATE loyalty.entry SET %I = %s WHERE account_id = %s AND seq = 2', attname, replace(pg_temp.other(attname, type), 'coalesce("seq", 0) + 1', '77'), pg_temp.m('una'))) AS seen
    FROM columns WHERE relname = 'entry' AND attname NOT IN ('seq', 'account_id') ORDER BY attnum;
SELECT attname, pg_temp.seen(format('UPDATE loyalty.entry SET %I = %s WHERE account_id = %s AND seq = 2', attname, value, pg_temp.m('una'))) AS seen FROM (VALUES ('account_id', '123456789'), ('seq', '77')) v (attname, value);
-- what is null becomes empty, and what is not null
SELECT attname, pg_temp.seen(format('UPDATE loyalty.entry SET %I = %s WHERE account_id = %s AND seq = 5', attname, value, pg_temp.m('una'))) AS seen FROM (VALUES ('source_id', '0'), ('breakdown', ''''''), ('detail', 'NULL'), ('detail', '''{}'''), ('reason', 'NULL'), ('key', 'NULL')) v (attname, value)
    WHERE NOT EXISTS (SELECT FROM loyalty.entry e WHERE e.account_id = pg_temp.m('una') AND e.seq = 5 AND attname = 'detail' AND value = 'NULL' AND e.detail IS NULL);
-- swap: every column between entries 5 and 7, where they differ; whole entries between two accounts
SELECT attname, pg_temp.seen(format('UPDATE loyalty.entry e SET %1$I = o.%1$I FROM loyalty.entry o WHERE o.account_id = e.account_id AND e.seq IN (5, 7) AND o.seq = 12 - e.seq AND e.account_id = %2$s AND e.%1$I::text IS DISTINCT FROM o.%1$I::text', attname, pg_temp.m('una'))) AS seen
    FROM columns WHERE relname = 'entry' AND attname IN ('points', 'lots', 'reason', 'recorded_at', 'hash') ORDER BY attnum;
SELECT attname, pg_temp.seen(format('UPDATE loyalty.entry e SET %1$I = o.%1$I FROM loyalty.entry o WHERE o.account_id = e.account_id AND e.seq IN (2, 6) AND o.seq = 8 - e.seq AND e.account_id = %2$s AND e.%1$I::text IS DISTINCT FROM o.%1$I::text', attname, pg_temp.m('una'))) AS seen
    FROM columns WHERE relname = 'entry' AND attname IN ('kind', 'source_id', 'occurred_at', 'breakdown', 'tally', 'detail') ORDER BY attnum;
SELECT what, pg_temp.seen(format(damage, pg_temp.m('una'), pg_temp.m('ugo'))) AS seen FROM (VALUES
    (1, 'entries of two accounts swapped', 'UPDATE loyalty.entry SET account_id = -account_id WHERE account_id IN (%1$s, %2$s) AND seq = 2; UPDATE loyalty.entry SET account_id = %1$s + %2$s + account_id WHERE account_id IN (-%1$s, -%2$s)'),
    (2, 'two entries reordered', 'UPDATE loyalty.entry SET seq = -seq WHERE account_id = %1$s AND seq IN (2, 3); UPDATE loyalty.entry SET seq = 5 + seq WHERE account_id = %1$s AND seq IN (-2, -3)'),
    (3, 'the first entry deleted', 'DELETE FROM loyalty.entry WHERE account_id = %1$s AND seq = 1'),
    (4, 'one in the middle deleted', 'DELETE FROM loyalty.entry WHERE account_id = %1$s AND seq = 3'),
    (5, 'the same, and the later ones moved up', 'DELETE FROM loyalty.entry WHERE account_id = %1$s AND seq = 3; UPDATE loyalty.entry SET seq = -seq WHERE account_id = %1$s AND seq > 3; UPDATE loyalty.entry SET seq = -seq - 1 WHERE account_id = %1$s AND seq < 0'),
    (6, 'the tail cut', 'DELETE FROM loyalty.entry WHERE account_id = %1$s AND seq >= 6'),
    (7, 'all of an account deleted', 'DELETE FROM loyalty.entry WHERE account_id = %1$s'),
    (8, 'an entry forged behind the last', 'INSERT INTO loyalty.entry SELECT account_id, 8, kind, points, source_id, occurred_at, recorded_at, lots, tally, breakdown, actor, reason, ''k8'', detail, hash FROM loyalty.entry WHERE account_id = %1$s AND seq = 5'),
    (9, 'the same, and the account follows', 'WITH e AS (INSERT INTO loyalty.entry SELECT account_id, 8, kind, points, source_id, occurred_at, recorded_at, lots, tally, breakdown, actor, reason, ''k8'', detail, hash FROM loyalty.entry WHERE account_id = %1$s AND seq = 5 RETURNING *) UPDATE loyalty.account a SET seq = e.seq, head = e.hash, lots = a.lots OPERATOR(loyalty.+) e.lots FROM e WHERE a.account_id = e.account_id'),
    (10, 'an entry forged in front of all', 'INSERT INTO loyalty.entry SELECT account_id, 0, kind, points, source_id, occurred_at, recorded_at, lots, tally, breakdown, actor, reason, ''k0'', detail, hash FROM loyalty.entry WHERE account_id = %1$s AND seq = 5'),
    (11, 'entries for an account that is none', 'INSERT INTO loyalty.entry SELECT 987654321, 1, kind, points, source_id, occurred_at, recorded_at, lots, tally, breakdown, actor, reason, ''k0'', detail, hash FROM loyalty.entry WHERE account_id = %1$s AND seq = 1'),
    (12, 'an account deleted', 'DELETE FROM loyalty.account WHERE account_id = %1$s'),
    (13, 'an account deleted that has no entries', 'DELETE FROM loyalty.account WHERE account_id = (SELECT max(account_id) FROM loyalty.account WHERE program_id = (SELECT program_id FROM loyalty.account WHERE account_id = %1$s))'),
    (14, 'an account forged', 'INSERT INTO loyalty.account (account_id, program_id, joined_at) SELECT 987654321, program_id, now() FROM loyalty.account WHERE account_id = %1$s'),
    (15, 'the tail cut, and the account''s number and head follow', 'WITH gone AS (DELETE FROM loyalty.entry WHERE account_id = %1$s AND seq >= 6) UPDATE loyalty.account a SET seq = 5, head = e.hash FROM loyalty.entry e WHERE e.account_id = a.account_id AND e.seq = 5 AND a.account_id = %1$s'),
    (16, 'another key''s number', 'UPDATE loyalty.entry SET hash = CASE length(hash) WHEN 33 THEN set_byte(hash, 0, 9) ELSE ''\x09'' || hash END WHERE account_id = %1$s AND seq = 4'),
    (17, 'the number of the key that signs', 'UPDATE loyalty.entry SET hash = CASE length(hash) WHEN 33 THEN set_byte(hash, 0, 7) ELSE ''\x07'' || hash END WHERE account_id = %1$s AND seq = 4'),
    (18, 'a hash of no length', 'UPDATE loyalty.entry SET hash = '''' WHERE account_id = %1$s AND seq = 4'),
    (19, 'a hash cut short', 'UPDATE loyalty.entry SET hash = substr(hash, 1, 31) WHERE account_id = %1$s AND seq = 4'),
    (20, 'points and lots of an entry and its account', 'WITH e AS (UPDATE loyalty.entry SET points = points + 100, lots = lots OPERATOR(loyalty.+) ''{[,)=100}'' WHERE account_id = %1$s AND seq = 5) UPDATE loyalty.account SET lots = lots OPERATOR(loyalty.+) ''{[,)=100}'' WHERE account_id = %1$s')) v (n, what, damage)
    ORDER BY n;
-- every column of an account; what entries do not say is held against members, tiers and households by check
SELECT attname, pg_temp.seen(format('UPDATE loyalty.account SET %I = %s WHERE account_id = %s', attname, pg_temp.other(attname, type), pg_temp.m('una'))) AS seen
    FROM columns WHERE relname = 'account' AND attname <> 'account_id' ORDER BY attnum;
SELECT pg_temp.seen(format('UPDATE loyalty.account SET account_id = 987654321 WHERE account_id = %s', pg_temp.m('una'))) AS account_id;
-- swap of two accounts' columns
SELECT attname, pg_temp.seen(format('UPDATE loyalty.account a SET %1$I = o.%1$I FROM loyalty.account o WHERE a.account_id IN (%2$s, %3$s) AND o.account_id = %2$s + %3$s - a.account_id', attname, pg_temp.m('una'), pg_temp.m('ugo'))) AS seen
    FROM columns WHERE relname = 'account' AND attname IN ('seq', 'lots', 'tally', 'head', 'last_event_at') ORDER BY attnum;
-- only members' accounts: a member has to exist
SELECT loyalty.verify(-5);
-- entries recorded since a time must bear a key
SELECT (SELECT count(*) = 0 FROM loyalty.verify(pg_temp.m('una'), keyed_from => '-infinity')) = EXISTS (SELECT FROM loyalty.entry WHERE account_id = pg_temp.m('una') AND length(hash) = 33) AS told;
SELECT * FROM loyalty.verify();
