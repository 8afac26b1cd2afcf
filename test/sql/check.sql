-- check sees every damage
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    RETURN NEXT;
END
$$;
-- ids differ with the tests that ran before: names stand in for them
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Check' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Check') AND external_id = who $$;
SELECT loyalty.create_program('Check', on_rule_error => 'hold') = pg_temp.p() AS made;
SELECT loyalty.add_tier(pg_temp.p(), 'Silver', 100) > 0 AS silver, loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', '100 * purchase.amount / (purchase.amount - 1)', 'purchase.amount < 1000') > 0 AS base;
SELECT loyalty.enroll(pg_temp.p(), 'ann', '2024-01-01') > 0 AS ann, loyalty.enroll(pg_temp.p(), 'bob', '2024-01-01') > 0 AS bob;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT pg_temp.m('ann'), '2025-01-01'::timestamptz + i * interval '1 day', 50 FROM generate_series(1, 4) i;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (pg_temp.m('bob'), '2025-01-01', 10, 'check-1'), (pg_temp.m('bob'), '2025-01-02', 1, 'check-2'), (pg_temp.m('bob'), '2025-01-03', 11, 'check-3');
SELECT count(*) AS held FROM loyalty.held_award_open WHERE member_id = pg_temp.m('bob');
SELECT * FROM loyalty.check();
-- does the damage as a superuser without triggers could, looks, and takes it back
CREATE FUNCTION pg_temp.seen(damage text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    SET LOCAL session_replication_role = replica;
    EXECUTE damage;
    SET LOCAL session_replication_role = origin;
    SELECT coalesce(string_agg(DISTINCT invariant, ', ' ORDER BY invariant), 'NOTHING') INTO found FROM loyalty.check();
    RAISE EXCEPTION '%', found USING ERRCODE = 'ZZ001';
EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
    RETURN SQLERRM;
END
$$;
SELECT what, pg_temp.seen(format(damage, pg_temp.m('ann'), pg_temp.m('bob'))) FROM (VALUES
    (1, 'points of an entry', 'UPDATE loyalty.entry SET points = points + 1 WHERE account_id = %1$s AND seq = 2'),
    (2, 'lots of an entry', 'UPDATE loyalty.entry SET lots = ''{[,)=1}'', points = 1 WHERE account_id = %1$s AND seq = 2'),
    (3, 'actor of an entry', 'UPDATE loyalty.entry SET actor = ''x'' WHERE account_id = %1$s AND seq = 2'),
    (4, 'an entry cut out', 'DELETE FROM loyalty.entry WHERE account_id = %1$s AND seq = 2'),
    (5, 'the last entry cut off', 'DELETE FROM loyalty.entry WHERE account_id = %1$s AND seq = 4'),
    (6, 'lots of an account', 'UPDATE loyalty.account SET lots = ''{}'' WHERE account_id = %1$s'),
    (7, 'a negative lot', 'UPDATE loyalty.account SET lots = ''{[2025-01-01,2026-01-01)=-5}'' WHERE account_id = %1$s'),
    (8, 'tally of an account', 'UPDATE loyalty.account SET tally = ''{}'' WHERE account_id = %1$s'),
    (9, 'head of an account', 'UPDATE loyalty.account SET head = '''' WHERE account_id = %1$s'),
    (10, 'number of an account', 'UPDATE loyalty.account SET seq = 9 WHERE account_id = %1$s'),
    (11, 'tier of an account', 'UPDATE loyalty.account SET tier_id = NULL WHERE account_id = %1$s'),
    (12, 'history of tiers', 'DELETE FROM loyalty.tier_change WHERE account_id = %1$s'),
    (13, 'an account gone', 'DELETE FROM loyalty.account WHERE account_id = %2$s'),
    (14, 'a member gone', 'DELETE FROM loyalty.member WHERE member_id = %2$s'),
    (15, 'a purchase gone', 'DELETE FROM loyalty.purchase WHERE reference = ''check-1'''),
    (16, 'a purchase without award', 'INSERT INTO loyalty.purchase (member_id, amount) VALUES (%2$s, 5)'),
    (17, 'a purchase voided behind the engine', 'UPDATE loyalty.purchase SET status = ''void'' WHERE reference = ''check-1'''),
    (18, 'a purchase moved behind the engine', 'UPDATE loyalty.purchase SET member_id = %1$s WHERE reference = ''check-1'''),
    (19, 'a held award forgotten', 'DELETE FROM loyalty.held_award WHERE account_id = %2$s'),
    (20, 'a held award called released', 'UPDATE loyalty.held_award SET released_at = now() WHERE account_id = %2$s'),
    (21, 'an award held that was posted', 'INSERT INTO loyalty.held_award (source_id, account_id, reason) SELECT purchase_id, %2$s, ''x'' FROM loyalty.purchase WHERE reference = ''check-1''')) v (n, what, damage)
    ORDER BY n;
-- the engine's own triggers: each one switched off is noticed
SELECT t.tgrelid::regclass, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 'loyalty'::regnamespace AND NOT t.tgisinternal
        AND pg_temp.seen(format('ALTER TABLE %s DISABLE TRIGGER %I', t.tgrelid::regclass, t.tgname)) !~ 'triggers stand'
    ORDER BY 1::text, 2;
SELECT * FROM loyalty.check();
