-- the same key again is the first result, whatever became of the points
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
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Forbid' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Forbid') AND external_id = who $$;
CREATE FUNCTION pg_temp.c() RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member JOIN loyalty.program USING (program_id) WHERE name = 'Clamp' $$;
SELECT loyalty.create_program('Forbid', negative => 'forbid') > 0 AS forbid, loyalty.create_program('Clamp', negative => 'clamp') > 0 AS clamp;
SELECT count(loyalty.enroll(program_id, 'ann', '2024-01-01')) FROM loyalty.program WHERE name IN ('Forbid', 'Clamp');
SELECT loyalty.adjust(pg_temp.m('ann'), 100, 'gift', 'k1') AS seq, loyalty.adjust(pg_temp.m('ann'), 100, 'gift', 'k1') AS again;
-- the points are gone, and the retry still finds its entry
SELECT loyalty.adjust(pg_temp.m('ann'), -100, 'mistake', 'k2') AS seq;
SELECT loyalty.adjust(pg_temp.m('ann'), -100, 'mistake', 'k2') AS again;
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('ann'), -1, 'mistake', 'k3')$$);
-- clamp takes what is there
SELECT loyalty.adjust(pg_temp.c(), 40, 'gift', 'k1') AS seq;
SELECT loyalty.adjust(pg_temp.c(), -100, 'mistake', 'k2') AS seq;
SELECT loyalty.adjust(pg_temp.c(), -100, 'mistake', 'k2') AS again;
SELECT seq, points, lots::text <> '{}' AS took FROM loyalty.entry WHERE account_id = pg_temp.c() ORDER BY seq;
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.c(), -30, 'mistake', 'k2')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.c(), -50, 'mistake', 'k2')$$);
-- what a hold that lapsed had frozen is there to be taken, and its key is taken
SELECT loyalty.adjust(pg_temp.c(), 40, 'gift', 'k3') AS seq;
SELECT held FROM loyalty.hold(pg_temp.c(), 30, 'h', ttl => '1 microsecond');
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.c(), 5, 'gift', 'h')$$);
SELECT loyalty.adjust(pg_temp.c(), -35, 'mistake', 'k4') > 0 AS taken;
SELECT kind, key, points FROM loyalty.entry WHERE account_id = pg_temp.c() ORDER BY seq;
-- other content under the same key
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('ann'), 101, 'gift', 'k1')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('ann'), 100, 'another gift', 'k1')$$);
SELECT loyalty.adjust(pg_temp.m('ann'), 10, 'gift', 'k4', expires_on => '2999-01-01') AS seq, loyalty.adjust(pg_temp.m('ann'), 10, 'gift', 'k4', expires_on => '2999-01-01') AS again;
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('ann'), 10, 'gift', 'k4', expires_on => '2998-01-01')$$);
SELECT loyalty.open_balance(pg_temp.m('ann'), 500, 'old cards', spend => 70, visits => 7) AS seq, loyalty.open_balance(pg_temp.m('ann'), 500, 'old cards', spend => 70, visits => 7) AS again;
SELECT state FROM pg_temp.refused($$SELECT loyalty.open_balance(pg_temp.m('ann'), 500, 'old cards', spend => 71, visits => 7)$$);
SELECT loyalty.import_entry(pg_temp.m('ann'), 5, '2023-06-01', 'old', 'o1', expires_on => '2999-01-01', spend => 5, visits => 1) AS seq, loyalty.import_entry(pg_temp.m('ann'), 5, '2023-06-01', 'old', 'o1', expires_on => '2999-01-01', spend => 5, visits => 1) AS again;
SELECT state FROM pg_temp.refused($$SELECT loyalty.import_entry(pg_temp.m('ann'), 5, '2023-06-01', 'old', 'o1', expires_on => '2999-01-01', spend => 5, visits => 2)$$);
-- a retry after the member was closed is still the first result
SELECT loyalty.close_member(pg_temp.m('ann'));
SELECT loyalty.adjust(pg_temp.m('ann'), 100, 'gift', 'k1') AS again;
SELECT state FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('ann'), 100, 'gift', 'k9')$$);
-- what is no adjustment
SELECT v.n, x.state FROM (VALUES (1, '0', 'x'), (2, 'NULL', 'x'), (3, '1000000000000001', 'x'), (4, '5', ' '), (5, '5', NULL)) v (n, p, r), pg_temp.refused(format('SELECT loyalty.adjust(%s, %s, %L)', pg_temp.c(), p, r)) x ORDER BY 1;
SELECT * FROM loyalty.check();
