-- consents, erasure, and the audit
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
    message := regexp_replace(message, '\d+', 'N', 'g');
    RETURN NEXT;
END
$$;
-- ids differ with the tests that ran before: names stand in for them
CREATE TABLE pg_temp.who (name text, id bigint);
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Erasure' $$;
CREATE FUNCTION pg_temp.m(text) RETURNS bigint LANGUAGE sql AS $$ SELECT w.id FROM pg_temp.who w WHERE w.name = $1 $$;
CREATE FUNCTION pg_temp.audit(since bigint) RETURNS TABLE (relation name, operation text, old jsonb, new jsonb, reason text) LANGUAGE sql AS $$
    SELECT a.relation, a.operation, a.old, a.new, a.reason FROM loyalty.audit a WHERE a.audit_id > since ORDER BY a.audit_id $$;
SELECT loyalty.create_program('Erasure', expiry => 'never') > 0 AS made;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base;
INSERT INTO pg_temp.who SELECT name, loyalty.enroll(pg_temp.p(), 'canary ' || name, birthday => '1990-01-02', attributes => '{"shoe": "canary"}') FROM unnest('{ann,bea,cid}'::text[]) name;
INSERT INTO loyalty.purchase (member_id, amount) SELECT id, 100 FROM pg_temp.who;
-- consents: the last word by its time counts, nothing is overwritten
SELECT loyalty.has_consent(pg_temp.m('ann'), 'marketing', 'email') AS said_nothing;
SELECT loyalty.give_consent(pg_temp.m('ann'), 'marketing', 'email', 'form 3', '2025-01-01'), loyalty.give_consent(pg_temp.m('ann'), 'marketing', 'sms', 'form 3', '2025-01-01'), loyalty.give_consent(pg_temp.m('ann'), 'marketing', 'sms', 'form 3', '2025-01-01');
SELECT loyalty.withdraw_consent(pg_temp.m('ann'), 'marketing', 'email', 'call', '2025-03-01'), loyalty.give_consent(pg_temp.m('ann'), 'marketing', 'email', 'an older form', '2025-02-01');
SELECT loyalty.has_consent(pg_temp.m('ann'), 'marketing', 'email') AS email, loyalty.has_consent(pg_temp.m('ann'), 'marketing', 'sms') AS sms, loyalty.has_consent(pg_temp.m('ann'), 'profiling', 'sms') AS profiling, loyalty.has_consent(-1, 'marketing', 'sms') AS nobody;
SELECT purpose, channel, occurred_at, given, source, actor = session_user AS by_me FROM loyalty.consent_change WHERE member_id = pg_temp.m('ann') ORDER BY number;
SELECT purpose, channel, given, since, source FROM loyalty.consent WHERE member_id = pg_temp.m('ann');
SELECT loyalty.cabinet(pg_temp.m('ann')) -> 'consents' AS consents;
SELECT n, r.* FROM (VALUES (1, $$'', 'sms', 'x'$$), (2, $$'a', NULL, 'x'$$), (3, $$'a', 'sms', ' '$$), (4, $$'a', 'sms', 'x', 'infinity'$$), (5, $$'a', 'sms', 'x', now() + interval '2 days'$$), (6, $$repeat('a', 201), 'sms', 'x'$$)) c (n, call),
    pg_temp.refused(format('SELECT loyalty.give_consent(pg_temp.m(%L), %s)', 'ann', call)) r ORDER BY n;
SELECT * FROM pg_temp.refused($$SELECT loyalty.give_consent(-1, 'a', 'b', 'c')$$);
SELECT n, r.* FROM (VALUES (1, 'UPDATE loyalty.consent_change SET given = true'), (2, 'DELETE FROM loyalty.consent_change'), (3, 'TRUNCATE loyalty.consent_change'), (4, 'UPDATE loyalty.audit SET reason = NULL'), (5, 'DELETE FROM loyalty.audit'), (6, 'TRUNCATE loyalty.audit'),
    (7, 'DELETE FROM loyalty.erasure'), (8, 'UPDATE loyalty.erasure SET reason = NULL'), (9, 'TRUNCATE loyalty.erasure')) c (n, statement), pg_temp.refused(statement) r ORDER BY n;
-- the audit: who, what, from what, to what, why; of a person only that something changed
CREATE TABLE pg_temp.start AS SELECT max(audit_id) AS id FROM loyalty.audit;
SELECT loyalty.change_program(pg_temp.p(), '{"redeem_min": 10}');
SET loyalty.reason = 'spring';
SELECT loyalty.change_program(pg_temp.p(), '{"redeem_min": 20}');
RESET loyalty.reason;
SELECT loyalty.change_program(pg_temp.p(), '{"redeem_min": 20}');
INSERT INTO loyalty.product (program_id, sku, category) VALUES (pg_temp.p(), 'A', 'tea');
UPDATE loyalty.product SET category = 'coffee' WHERE sku = 'A' AND program_id = pg_temp.p();
DELETE FROM loyalty.product WHERE sku = 'A' AND program_id = pg_temp.p();
SELECT loyalty.retire_rule(pg_temp.p(), 'base', '2040-01-01', 'enough');
UPDATE loyalty.member SET staff = true, birthday = '1991-02-03', external_id = 'canary 2 bea', attributes = '{"shoe": "canary 43"}' WHERE member_id = pg_temp.m('bea');
SELECT loyalty.set_member_status(pg_temp.m('bea'), 'frozen'), loyalty.set_member_status(pg_temp.m('bea'), 'active'), loyalty.set_member_status(pg_temp.m('bea'), 'active');
SELECT relation, operation, old - '{program_id,name}'::text[] AS old, CASE WHEN operation = 'insert' THEN new - 'program_id' ELSE new - 'retired_at' END AS new, reason FROM pg_temp.start, pg_temp.audit(start.id);
SELECT count(*) FROM loyalty.audit WHERE to_jsonb(audit)::text LIKE '%canary%';
SELECT actor = session_user AS by_me, acting_as, key = jsonb_build_object('program_id', pg_temp.p()) AS key FROM loyalty.audit WHERE reason = 'spring';
-- what guards the programme is audited as well, without saying who is blocked
CREATE TABLE pg_temp.guards AS SELECT max(audit_id) AS id FROM loyalty.audit;
SELECT loyalty.add_limit(pg_temp.p(), 'three a day', 3, '1 day') > 0 AS limited, loyalty.block_subject(pg_temp.p(), 'card', 'canary', reason => 'stolen') IS NOT NULL AS blocked, loyalty.set_cashier(pg_temp.p(), 'till 9', pg_temp.m('ann')) IS NOT NULL AS known, loyalty.set_activity_policy(pg_temp.p(), 'review', needs_approval => true) IS NOT NULL AS policy;
SELECT relation, operation, key ? 'subject' OR new ->> 'subject' = 'canary' AS told FROM loyalty.audit WHERE audit_id > (SELECT id FROM pg_temp.guards) ORDER BY audit_id;
SELECT loyalty.retire_limit(pg_temp.p(), 'three a day', 'done') IS NOT NULL AS retired, loyalty.unblock_subject(pg_temp.p(), 'card', 'canary') IS NOT NULL AS unblocked, loyalty.set_cashier(pg_temp.p(), 'till 9', NULL) IS NOT NULL AS forgotten, loyalty.drop_activity_policy(pg_temp.p(), 'review') IS NOT NULL AS dropped;
CREATE ROLE loyalty_test_clerk;
SELECT loyalty.grant_admin('loyalty_test_clerk');
SELECT loyalty.enroll(pg_temp.p(), 'clerk', staff => true) > 0 AS staff;
SET ROLE loyalty_test_clerk;
UPDATE loyalty.member SET staff = false WHERE external_id = 'clerk';
SELECT operation, actor <> 'loyalty_test_clerk' AS somebody, acting_as, old -> 'staff' AS old, new -> 'staff' AS new FROM loyalty.audit WHERE relation = 'member' ORDER BY audit_id DESC LIMIT 2;
SELECT n, r.* FROM (VALUES (1, 'INSERT INTO loyalty.audit (relation, operation, key) VALUES (''x'', ''insert'', ''{}'')'), (2, 'DELETE FROM loyalty.audit'), (3, 'SELECT loyalty.write_audit()'), (4, 'CREATE TEMP TABLE t (i int); CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit(''i'')')) c (n, statement), pg_temp.refused(statement) r ORDER BY n;
-- who says that it restores a dump does not stay unseen but where it owns the table
SET row_security = off; SET check_function_bodies = off;
INSERT INTO loyalty.exchange_rate VALUES ('XAA', 'XBB', '2025-01-01', 2);
RESET row_security; RESET check_function_bodies;
RESET ROLE;
SELECT count(*) AS owner_restores FROM loyalty.audit WHERE key @> '{"from_currency": "XAA"}';
DELETE FROM loyalty.exchange_rate WHERE from_currency = 'XAA';
DROP OWNED BY loyalty_test_clerk;
DROP ROLE loyalty_test_clerk;
-- erasure
SELECT coalesce(current_setting('loyalty.key_file', true), '') <> '' AS keys \gset
\if :keys
SELECT loyalty.set_person(id, '{"name": "canary"}'), loyalty.set_contact(id, 'telegram', 'canary_' || name) FROM pg_temp.who ORDER BY id;
\endif
SELECT * FROM pg_temp.refused($$SELECT loyalty.erase_member(pg_temp.m('ann'), ' ')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.erase_member(-1, 'asked for')$$);
SELECT loyalty.merge_members(pg_temp.m('cid'), pg_temp.m('ann'), 'the same person') AS points;
CREATE TABLE pg_temp.before AS SELECT count(*) AS entries, sum(points) AS points, md5(string_agg(hash::text, ',' ORDER BY account_id, seq)) AS hashes FROM loyalty.entry;
SELECT loyalty.erase_member(pg_temp.m('cid'), 'asked for') AS erased, loyalty.erase_member(pg_temp.m('ann'), 'again') AS again;
SELECT name, external_id ~ '^erased [0-9a-f]{16}$' AS pseudonym, status, birthday, attributes, staff FROM loyalty.member JOIN pg_temp.who ON id = member_id ORDER BY 1;
SELECT name, erased_by = session_user AS by_me, reason FROM loyalty.erasure JOIN pg_temp.who ON id = member_id ORDER BY 1;
SELECT count(*) AS left_over FROM (SELECT member_id FROM loyalty.person UNION ALL SELECT member_id FROM loyalty.identity) x JOIN pg_temp.who ON id = member_id WHERE name <> 'bea';
SELECT purpose, channel, given, source FROM loyalty.consent WHERE member_id = pg_temp.m('ann');
SELECT (SELECT ROW(count(*), sum(points), md5(string_agg(hash::text, ',' ORDER BY account_id, seq))) FROM loyalty.entry) = (SELECT ROW(entries, points, hashes) FROM pg_temp.before) AS the_ledger_stays;
SELECT operation, old, new - 'external_id' AS new, reason FROM loyalty.audit WHERE relation = 'member' AND key ->> 'member_id' = pg_temp.m('ann')::text ORDER BY audit_id DESC LIMIT 1;
SELECT count(*) AS traces FROM (SELECT to_jsonb(t)::text AS row FROM loyalty.member t UNION ALL SELECT to_jsonb(t)::text FROM loyalty.audit t UNION ALL SELECT to_jsonb(t)::text FROM loyalty.entry t UNION ALL SELECT to_jsonb(t)::text FROM loyalty.erasure t) x WHERE row LIKE '%canary ann%' OR row LIKE '%canary cid%';
\if :keys
SELECT loyalty.find_member(pg_temp.p(), 'telegram', 'canary_ann') AS nobody, loyalty.person(pg_temp.m('ann')) AS nothing, loyalty.find_member(pg_temp.p(), 'telegram', 'canary_bea') = pg_temp.m('bea') AS bea;
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_person(pg_temp.m('cid'), '{"name": "x"}')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_contact(pg_temp.m('ann'), 'telegram', 'x')$$);
\endif
SELECT * FROM pg_temp.refused($$SELECT loyalty.give_consent(pg_temp.m('ann'), 'a', 'b', 'c')$$);
SELECT available FROM loyalty.balance(pg_temp.m('ann'));
SELECT loyalty.enroll(pg_temp.p(), 'canary ann') NOT IN (SELECT id FROM pg_temp.who) AS another_member;
SELECT * FROM loyalty.check();
-- what check() finds
BEGIN;
UPDATE loyalty.member SET birthday = '1990-01-02' WHERE member_id = pg_temp.m('ann');
INSERT INTO loyalty.person (member_id, field, sealed) VALUES (-1, 'name', decode(repeat('01', 74), 'hex')), (pg_temp.m('ann'), 'name', decode(repeat('01', 74), 'hex'));
ALTER TABLE loyalty.tier DISABLE TRIGGER write_audit;
SELECT invariant, CASE WHEN account_id > 0 THEN 'ann' END AS who, detail FROM loyalty.check() ORDER BY 1, 2, 3;
ROLLBACK;
