-- members and their accounts
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
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Members' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Members') AND external_id = who $$;
SELECT loyalty.create_program('Members') = pg_temp.p() AS made;
SELECT loyalty.enroll(pg_temp.p(), 'ann', '2024-01-01', birthday => '2000-02-29') = pg_temp.m('ann') AS new, loyalty.enroll(pg_temp.p(), 'ann') = pg_temp.m('ann') AS again;
SELECT state FROM pg_temp.refused($$SELECT loyalty.enroll(-1, 'ann')$$);
-- every way in opens an account, in the same statement
INSERT INTO loyalty.member (program_id, external_id) SELECT pg_temp.p(), 'bulk ' || i FROM generate_series(1, 3) i;
SELECT external_id, a.seq, a.lots, a.program_id = pg_temp.p() AS same_programme FROM loyalty.member m JOIN loyalty.account a ON a.account_id = m.member_id WHERE m.program_id = pg_temp.p() ORDER BY 1;
-- members stay, under their number and in their programme
SELECT state FROM pg_temp.refused($$DELETE FROM loyalty.member WHERE external_id = 'ann'$$);
SELECT state FROM pg_temp.refused($$TRUNCATE loyalty.member CASCADE$$);
SELECT state FROM pg_temp.refused($$UPDATE loyalty.member SET member_id = -member_id WHERE external_id = 'ann'$$);
SELECT state FROM pg_temp.refused($$UPDATE loyalty.member SET program_id = -1 WHERE external_id = 'ann'$$);
UPDATE loyalty.member SET external_id = 'anne' WHERE program_id = pg_temp.p() AND external_id = 'ann';
-- a closed member neither earns nor is given points, and can be opened again
SELECT loyalty.close_member(pg_temp.m('anne'));
SELECT state FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount) VALUES (pg_temp.m('anne'), 5)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.quote(pg_temp.m('anne'), 5)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('anne'), 5, 'gift')$$);
SELECT loyalty.set_member_status(pg_temp.m('anne'), 'active');
SELECT loyalty.adjust(pg_temp.m('anne'), 5, 'gift') AS seq;
SELECT state FROM pg_temp.refused($$SELECT loyalty.close_member(-1)$$);
-- the trigger function opens accounts for its own table alone
CREATE TEMP TABLE forged (LIKE loyalty.member);
CREATE TRIGGER forge AFTER INSERT ON forged REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.open_accounts();
SELECT state FROM pg_temp.refused($$INSERT INTO forged (member_id, program_id, external_id, joined_at, status, staff, created_at) VALUES (-5, 1, 'x', now(), 'active', false, now())$$);
DROP TABLE forged;
SELECT * FROM loyalty.check();
