-- proof: nobody spends another's points for knowing a number, and no cashier more than the day's limit
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    message := regexp_replace(message, '(member) [0-9]+', '\1 N', 'g');
    detail := regexp_replace(detail, 'until .*', 'until then.');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Proof' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT m.member_id FROM loyalty.member m WHERE m.program_id = pg_temp.p() AND m.external_id = who $$;
SELECT loyalty.create_program('Proof', currency => 'EUR', point_value => 0.01, expiry => 'never', proof_above => 50) > 0;
SELECT count(loyalty.enroll(pg_temp.p(), n, '2024-01-01')) FROM unnest('{ann,bob}'::text[]) n;
SELECT count(loyalty.adjust(pg_temp.m(n), 10000, 'start', 's')) FROM unnest('{ann,bob}'::text[]) n;
SELECT loyalty.add_reward(pg_temp.p(), 'mug', 'product', 60, sku => 'MUG') > 0;
-- few points need none; more do, whichever way they leave
SELECT redeemed FROM loyalty.redeem(pg_temp.m('ann'), 50, 'k1');
SELECT r.* FROM unnest('{"redeem(%s, 51, ''k2'')","hold(%s, 51, ''k2'')","transfer(%1$s, %2$s, 51, ''k2'')","claim(%s, ''mug'', ''k2'')"}'::text[]) f, pg_temp.refused('SELECT loyalty.' || format(f, pg_temp.m('ann'), pg_temp.m('bob'))) r;
-- in parts they are as many: what went that day counts, held, captured and transferred, and what was released does not
SELECT redeemed FROM loyalty.redeem(pg_temp.m('bob'), 20, 'p1');
SELECT held FROM loyalty.hold(pg_temp.m('bob'), 10, 'p2');
SELECT held FROM loyalty.hold(pg_temp.m('bob'), 20, 'p3');
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.redeem(%s, 1, ''p4'')', pg_temp.m('bob'))) r;
SELECT loyalty.release(pg_temp.m('bob'), 'p3'), redeemed FROM loyalty.capture(pg_temp.m('bob'), 'p2', 8);
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.redeem(%s, 23, ''p4'')', pg_temp.m('bob'))) r;
SELECT loyalty.transfer(pg_temp.m('bob'), pg_temp.m('ann'), 22, 'p4');
SELECT restored FROM loyalty.undo(pg_temp.m('bob'), 'p1');
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.hold(%s, 1, ''p5'')', pg_temp.m('bob'))) r;
-- a code is told once, looks like a code, and lets one thing through
CREATE TEMP TABLE told AS SELECT 1 AS n, loyalty.issue_proof(pg_temp.m('ann')) AS code;
SELECT loyalty.is_code(code), length(code) FROM told;
SELECT count(*) FROM loyalty.redemption_proof p, told WHERE p::text LIKE '%' || replace(code, '-', '') || '%';
SELECT r.* FROM told, unnest(ARRAY[format('SELECT loyalty.redeem(%s, 60, ''k3'', proof => ''wrong'')', pg_temp.m('ann')), format('SELECT loyalty.redeem(%s, 60, ''k3'', proof => '''')', pg_temp.m('ann')),
    format('SELECT loyalty.redeem(%s, 60, ''k3'', proof => %L)', pg_temp.m('bob'), code)]) s, pg_temp.refused(s) r;
SELECT redeemed FROM told, loyalty.redeem(pg_temp.m('ann'), 60, 'k3', proof => lower(replace(code, '-', ' ')));
SELECT redeemed FROM loyalty.redeem(pg_temp.m('ann'), 60, 'k3') AS retry_needs_none;
SELECT r.* FROM told, pg_temp.refused(format('SELECT loyalty.redeem(%s, 60, ''k4'', proof => %L)', pg_temp.m('ann'), code)) r;
SELECT e.detail ? 'proof' AS named, e.detail::text ~ code AS told FROM loyalty.entry e, told WHERE e.account_id = pg_temp.m('ann') AND e.key = 'k3';
-- a newer one takes its place; it may be for fewer points; it dies
INSERT INTO told SELECT 2, loyalty.issue_proof(pg_temp.m('ann'));
INSERT INTO told SELECT 3, loyalty.issue_proof(pg_temp.m('ann'), 70);
SELECT r.* FROM told, pg_temp.refused(format('SELECT loyalty.redeem(%s, 71, ''k5'', proof => %L)', pg_temp.m('ann'), code)) r WHERE n > 1 ORDER BY n;
SELECT h.held FROM told, loyalty.hold(pg_temp.m('ann'), 70, 'k5', proof => code) h WHERE n = 3;
SELECT redeemed FROM loyalty.capture(pg_temp.m('ann'), 'k5', 65);
INSERT INTO told SELECT 4, loyalty.issue_proof(pg_temp.m('ann'), ttl => '1 microsecond');
SELECT pg_sleep(0.01);
SELECT r.* FROM told, pg_temp.refused(format('SELECT loyalty.redeem(%s, 60, ''k6'', proof => %L)', pg_temp.m('ann'), code)) r WHERE n = 4;
INSERT INTO told SELECT 5, loyalty.issue_proof(pg_temp.m('ann'));
SELECT loyalty.transfer(pg_temp.m('ann'), pg_temp.m('bob'), 60, 'k6', proof => code) FROM told WHERE n = 5;
INSERT INTO told SELECT 6, loyalty.issue_proof(pg_temp.m('ann'));
SELECT points FROM told, loyalty.claim(pg_temp.m('ann'), 'mug', 'k6', proof => code) WHERE n = 6;
-- what failed used nothing up
INSERT INTO told SELECT 7, loyalty.issue_proof(pg_temp.m('ann'));
SELECT r.* FROM told, pg_temp.refused(format('SELECT loyalty.redeem(%s, 1000000, ''k7'', proof => %L)', pg_temp.m('ann'), code)) r WHERE n = 7;
SELECT redeemed FROM told, loyalty.redeem(pg_temp.m('ann'), 100, 'k7', proof => code) WHERE n = 7;
SELECT r.* FROM unnest(ARRAY[format('%s, 0', pg_temp.m('ann')), format('%s, ttl => ''2 days''', pg_temp.m('ann')), format('%s, ttl => NULL', pg_temp.m('ann')), '-1', 'NULL']) a, pg_temp.refused('SELECT loyalty.issue_proof(' || a || ')') r;
-- cashiers: whoever redeems is named and counted, by points and by number
SELECT loyalty.change_program(pg_temp.p(), '{"proof_above": null, "cashier_points_max": 100, "cashier_redemptions_max": 3}');
SELECT r.* FROM unnest(ARRAY['10, ''c1''', '10, ''c1'', cashier => ''''', '101, ''c1'', cashier => ''eve''', '60, ''c1'', cashier => ''eve''', '60, ''c1'', cashier => ''eve''', '41, ''c2'', cashier => ''eve''', '40, ''c2'', cashier => ''eve''', '1, ''c3'', cashier => ''eve''', '10, ''c3'', cashier => ''fay''']) a,
    pg_temp.refused(format('SELECT loyalty.redeem(%s, %s)', pg_temp.m('bob'), a)) r;
-- so is whoever transfers
SELECT r.* FROM unnest(ARRAY['10, ''t1''', '101, ''t1'', cashier => ''gil''', '60, ''t1'', cashier => ''gil''', '60, ''t1'', cashier => ''gil''', '41, ''t2'', cashier => ''gil''']) a, pg_temp.refused(format('SELECT loyalty.transfer(%s, %s, %s)', pg_temp.m('bob'), pg_temp.m('ann'), a)) r;
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.redeem(%s, 41, ''t2'', cashier => ''gil'')', pg_temp.m('bob'))) r;
SELECT cashier, points, redemptions FROM loyalty.cashier_day WHERE program_id = pg_temp.p() AND cashier = 'gil';
SELECT held FROM loyalty.hold(pg_temp.m('bob'), 10, 'c4', cashier => 'fay');
SELECT loyalty.release(pg_temp.m('bob'), 'c4');
SELECT points FROM loyalty.claim(pg_temp.m('bob'), 'mug', 'c5', cashier => 'fay');
SELECT * FROM pg_temp.refused(format('SELECT loyalty.redeem(%s, 1, ''c6'', cashier => ''fay'')', pg_temp.m('bob')));
SELECT restored FROM loyalty.undo(pg_temp.m('bob'), 'c1');
SELECT cashier, points, redemptions FROM loyalty.cashier_day WHERE program_id = pg_temp.p() ORDER BY 1;
-- some have limits of their own
SELECT loyalty.set_cashier_limit(pg_temp.p(), 'web'), loyalty.set_cashier_limit(pg_temp.p(), 'fay', 100, 4), loyalty.set_cashier_limit(pg_temp.p(), 'new', 0, 0);
SELECT a, r.state, r.detail FROM unnest('{web,fay,new}'::text[]) a, pg_temp.refused(format('SELECT loyalty.redeem(%s, 20, ''w %s'', cashier => %L)', pg_temp.m('bob'), a, a)) r;
SELECT a, r.state, r.detail FROM unnest('{web,fay}'::text[]) a, pg_temp.refused(format('SELECT loyalty.redeem(%s, 2000, ''x %s'', cashier => %L)', pg_temp.m('bob'), a, a)) r;
SELECT r.* FROM unnest('{"-1, ''a''","%s, ''''","%s, ''a'', -1"}'::text[]) a, pg_temp.refused(format('SELECT loyalty.set_cashier_limit(' || a || ')', pg_temp.p())) r;
SELECT cashier, points, redemptions FROM loyalty.cashier_day WHERE program_id = pg_temp.p() ORDER BY 1;
SELECT * FROM loyalty.check();
-- white space and what is not seen make nobody another cashier
SELECT a, r.state FROM unnest(ARRAY[E'fay\t', E'\u00a0fay', E'f\u200bay', E'fay\u00ad ']) a, pg_temp.refused(format('SELECT loyalty.redeem(%s, 2000, %L, cashier => %L)', pg_temp.m('bob'), 'y ' || a, a)) r;
SELECT loyalty.cashier_name(E' Ada \u2003\u00a0 Lovelace\r\n') AS name, loyalty.cashier_name(E'\t\u200b') = '' AS nobody;
-- and check() sees what was forged
BEGIN;
UPDATE loyalty.cashier_day SET points = points + 1 WHERE cashier = 'fay' AND program_id = pg_temp.p();
UPDATE loyalty.redemption_proof SET source_id = 1 WHERE member_id = pg_temp.m('ann') AND points = 70;
SELECT c.invariant, count(*) FROM loyalty.check() c GROUP BY 1 ORDER BY 1;
ROLLBACK;
