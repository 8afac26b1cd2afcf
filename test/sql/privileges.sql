-- three kinds of users, and everybody else
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
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Privileges' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Privileges') AND external_id = who $$;
SELECT loyalty.create_program('Privileges') = pg_temp.p() AS made;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base, loyalty.enroll(pg_temp.p(), 'ann', birthday => '2000-01-01') > 0 AS ann;
CREATE ROLE loyalty_test_none;
CREATE ROLE loyalty_test_app;
CREATE ROLE loyalty_test_bi;
CREATE ROLE loyalty_test_admin;
SELECT loyalty.grant_app('loyalty_test_app'), loyalty.grant_bi('loyalty_test_bi'), loyalty.grant_admin('loyalty_test_admin');
SELECT state FROM pg_temp.refused($$SELECT loyalty.grant_app('loyalty_test_nobody')$$);
-- nobody's rights are none; the types are for all
SET ROLE loyalty_test_none;
SELECT * FROM pg_temp.refused($$SELECT FROM loyalty.purchase$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.balance(1)$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (amount) VALUES (1)$$);
SELECT loyalty.total('{[2025-01-01,)=5}'), loyalty.lines('[]');
-- an application inserts and asks
SET ROLE loyalty_test_app;
SELECT loyalty.enroll(pg_temp.p(), 'bea') = pg_temp.m('bea') AS enrolled;
INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (pg_temp.m('ann'), 5, 'privileges-1') RETURNING reference;
INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (pg_temp.m('ann'), 5, 'privileges-1') ON CONFLICT (source, reference) DO NOTHING RETURNING reference;
SELECT available FROM loyalty.balance(pg_temp.m('ann'));
SELECT points, balance_after FROM loyalty.statement(pg_temp.m('ann'));
SELECT points FROM loyalty.quote(pg_temp.m('ann'), 7);
SELECT rule, fired FROM loyalty.explain((SELECT purchase_id FROM loyalty.purchase WHERE reference = 'privileges-1'));
SELECT jsonb_typeof(loyalty.cabinet(pg_temp.m('ann'))), loyalty.describe(pg_temp.p(), 'base');
-- it cannot pass for a restore, change, read, post, or grant
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, recorded_at) VALUES (pg_temp.m('ann'), 5, '2020-01-01')$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.purchase SET amount = 500$$);
SELECT * FROM pg_temp.refused($$SELECT amount FROM loyalty.purchase$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.member (program_id, external_id) VALUES (pg_temp.p(), 'x')$$);
SELECT * FROM pg_temp.refused($$SELECT birthday FROM loyalty.member$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.account SET lots = '{}'$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.entry SELECT * FROM loyalty.entry$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('ann'), 5, 'mine')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.post(pg_temp.m('ann'), 'adjust', '{[,)=5}', '{}', now(), 'mine', 'k')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.release_award(1)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.grant_admin('loyalty_test_app')$$);
SELECT * FROM pg_temp.refused($$CREATE TRIGGER t AFTER INSERT ON loyalty.purchase EXECUTE FUNCTION loyalty.award()$$);
-- BI reads the books, every view, and nothing of a person
SET ROLE loyalty_test_bi;
SELECT v, count(r.message) AS readable FROM unnest('{rule_current,purchase_line,entry_rule,entry_line,tier_history,points_outstanding,held_award_open,liability,breakage,points_flow,redemption,open_hold}'::text[]) v, pg_temp.refused(format('SELECT count(*) FROM loyalty.%I', v)) r WHERE r.message = 'accepted' GROUP BY 1 ORDER BY 1;
SELECT count(*) > 0 AS members FROM (SELECT member_id, status FROM loyalty.member) m;
SELECT * FROM pg_temp.refused($$SELECT external_id FROM loyalty.member$$);
SELECT * FROM pg_temp.refused($$SELECT birthday FROM loyalty.member$$);
SELECT * FROM pg_temp.refused($$SELECT attributes FROM loyalty.member$$);
SELECT * FROM pg_temp.refused($$SELECT * FROM loyalty.member_balance$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.cabinet(pg_temp.m('ann'))$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (amount) VALUES (1)$$);
-- an administrator runs the programme, and has no way around the ledger
SET ROLE loyalty_test_admin;
SELECT loyalty.add_tier(pg_temp.p(), 'One', 0) > 0 AS tier, loyalty.adjust(pg_temp.m('ann'), 5, 'gift') AS seq, loyalty.set_tier(pg_temp.m('ann'), 'One', '2999-01-01', 'friend');
INSERT INTO loyalty.product (program_id, sku) VALUES (pg_temp.p(), 'A');
-- members get their numbers from the sequence
INSERT INTO loyalty.member (program_id, external_id) VALUES (pg_temp.p(), 'by hand');
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.member (member_id, program_id, external_id) VALUES (4000000000000050, pg_temp.p(), 'a household')$$);
UPDATE loyalty.purchase SET amount = 6 WHERE reference = 'privileges-1';
SELECT * FROM pg_temp.refused($$UPDATE loyalty.purchase SET recorded_at = '2020-01-01'$$);
SELECT * FROM pg_temp.refused($$DELETE FROM loyalty.purchase$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.entry SET points = 0$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.account SET lots = '{}'$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.rule (program_id, name) VALUES (pg_temp.p(), 'raw')$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.program SET negative_limit = 0$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.post(pg_temp.m('ann'), 'adjust', '{[,)=5}', '{}', now(), 'mine', 'k')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.grant_admin('loyalty_test_none')$$);
SELECT * FROM pg_temp.refused($$ALTER TABLE loyalty.entry DISABLE TRIGGER ALL$$);
SELECT kind, points FROM loyalty.entry WHERE account_id = pg_temp.m('ann') ORDER BY seq;
SELECT * FROM loyalty.check();
RESET ROLE;
DROP OWNED BY loyalty_test_none, loyalty_test_app, loyalty_test_bi, loyalty_test_admin;
DROP ROLE loyalty_test_none, loyalty_test_app, loyalty_test_bi, loyalty_test_admin;
