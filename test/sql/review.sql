-- awards that wait for a person: approved or refused, once, with a reason
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
    message := regexp_replace(message, '(member|programme|purchase|transaction) \d+', '\1 N', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Reviews' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.of(r text) RETURNS bigint LANGUAGE sql AS $$ SELECT purchase_id FROM loyalty.purchase WHERE source = 'reviews' AND reference = r $$;
CREATE FUNCTION pg_temp.given(r text) RETURNS TABLE (kind text, points bigint, lots loyalty.lots, tally loyalty.tally) LANGUAGE sql AS $$ SELECT e.kind, e.points, e.lots, e.tally FROM loyalty.entry e WHERE e.source_id = pg_temp.of(r) ORDER BY e.account_id, e.seq $$;
SELECT loyalty.create_program('Reviews', currency => 'EUR', expiry => 'never', on_rule_error => 'hold') > 0 AS made;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base, loyalty.add_rule(pg_temp.p(), 'odd', 'purchase', 'bonus', '10 / ((purchase.attributes ->> ''x'')::numeric)', 'purchase.attributes ? ''x''') > 0 AS odd;
SELECT loyalty.add_wallet(pg_temp.p(), 'Stars') > 0 AS wallet;
SELECT count(loyalty.enroll(pg_temp.p(), name, '2024-01-01')) FROM unnest('{ann,bea,cid}'::text[]) name;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, attributes, source, reference)
    SELECT pg_temp.m(who), '2024-02-01', amount, 'S1', '{"x": 0}', 'reviews', r FROM (VALUES ('ann', 10, 'a'), ('ann', 20, 'b'), ('bea', 30, 'c'), ('bea', 40, 'd'), ('cid', 50, 'e')) v (who, amount, r);
SELECT program, transaction, member_id = pg_temp.m('ann') AS anns, amount, currency, store, source, reference, status, reason, failed, days, band FROM loyalty.review_queue WHERE program = 'Reviews' ORDER BY reference;
UPDATE loyalty.held_award SET held_at = held_at - interval '1 day' * CASE source_id WHEN pg_temp.of('a') THEN 2 WHEN pg_temp.of('c') THEN 6 WHEN pg_temp.of('d') THEN 30 WHEN pg_temp.of('e') THEN 12 ELSE 0 END
    WHERE source_id IN (SELECT purchase_id FROM loyalty.purchase WHERE source = 'reviews');
SELECT reason, band, waiting, currency, amount FROM loyalty.review_ageing WHERE program = 'Reviews' ORDER BY days_from;
-- a rule that raises has to be put right; until then nothing is decided
SELECT r.* FROM pg_temp.refused('SELECT loyalty.approve(pg_temp.of(''a''), ''it is good'')') r;
SELECT r.* FROM pg_temp.refused('SELECT loyalty.approve(ARRAY[pg_temp.of(''a''), 0], ''it is good'')') r;
SELECT loyalty.replace_rule(pg_temp.p(), 'odd', points => '1', from_at => '-infinity') > 0 AS replaced;
SELECT r.* FROM unnest(ARRAY['NULL', '''''', '''  ''', 'repeat(''x'', 2001)']) reason, unnest('{approve,refuse}'::text[]) f, pg_temp.refused(format('SELECT loyalty.%s(pg_temp.of(''a''), %s)', f, reason)) r;
SELECT loyalty.approve('{}'::bigint[], 'none') AS none, loyalty.approve(NULL::bigint[], 'none') AS none_either;
SELECT r.* FROM pg_temp.refused('SELECT loyalty.refuse(NULL::bigint, ''x'')') r;
-- approved and refused, each once
SELECT loyalty.approve(pg_temp.of('a'), 'it is good') AS posted, loyalty.approve(pg_temp.of('a'), 'again') AS again;
SELECT loyalty.refuse(ARRAY[pg_temp.of('c'), pg_temp.of('b'), pg_temp.of('b')], 'twice the same receipt') AS taken, loyalty.refuse(pg_temp.of('b'), 'again') AS again;
SELECT reference, decision, released_by = session_user AS by_me, release_reason, refused_by = session_user AS refused_by_me, refuse_reason FROM loyalty.review_award WHERE program = 'Reviews' ORDER BY reference;
SELECT r.* FROM unnest('{b,a,z}'::text[]) WITH ORDINALITY x (ref, n), pg_temp.refused(format('SELECT loyalty.approve(pg_temp.of(%L), ''x'')', ref)) r ORDER BY n;
SELECT r.* FROM pg_temp.refused('SELECT loyalty.release_award(pg_temp.of(''b''))') r;
SELECT r.* FROM pg_temp.refused('SELECT loyalty.refuse(ARRAY[pg_temp.of(''d''), 0], ''x'')') r;
-- what was refused gives nothing, whatever becomes of its purchase
UPDATE loyalty.purchase SET amount = 25 WHERE purchase_id = pg_temp.of('b');
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.of('b');
UPDATE loyalty.purchase SET status = 'completed', member_id = pg_temp.m('cid') WHERE purchase_id = pg_temp.of('b');
SELECT count(*) FROM pg_temp.given('b');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount, source, reference) VALUES ('reviews', 'b', 5, 'reviews', 'rb');
SELECT count(*) FROM pg_temp.given('b');
-- refused after it was approved: the points go, the purchase stands and counts
SELECT * FROM pg_temp.given('a');
SELECT loyalty.refuse(pg_temp.of('a'), 'found out') AS taken, loyalty.refuse(pg_temp.of('a'), 'again') AS again;
SELECT * FROM pg_temp.given('a');
SELECT r.* FROM pg_temp.refused('SELECT loyalty.approve(pg_temp.of(''a''), ''x'')') r;
UPDATE loyalty.purchase SET amount = 12 WHERE purchase_id = pg_temp.of('a');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount, source, reference) VALUES ('reviews', 'a', 5, 'reviews', 'ra');
SELECT kind, points, tally FROM pg_temp.given('a');
UPDATE loyalty.purchase SET member_id = pg_temp.m('cid') WHERE purchase_id = pg_temp.of('a');
UPDATE loyalty.purchase SET member_id = pg_temp.m('ann') WHERE purchase_id = pg_temp.of('a');
SELECT member_id = pg_temp.m('ann') AS ann, available, lifetime_points, lifetime_spend FROM loyalty.member_balance WHERE member_id IN (pg_temp.m('ann'), pg_temp.m('cid')) ORDER BY member_id;
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.of('a');
SELECT sum(points) AS points, loyalty.sum(tally) AS tally FROM pg_temp.given('a');
-- void while it waits: approving posts nothing
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.of('e');
SELECT loyalty.approve(pg_temp.of('e'), 'cancelled anyway') AS nothing;
-- what waits without a fault is decided with the rules that were known then, and so are its corrections
UPDATE loyalty.held_award SET failed = false, held_at = (SELECT min(created_at) FROM loyalty.rule_version v JOIN loyalty.rule u USING (rule_id) WHERE u.program_id = pg_temp.p() AND u.name = 'odd') WHERE source_id = pg_temp.of('d');
UPDATE loyalty.purchase SET attributes = '{"x": 5}' WHERE purchase_id = pg_temp.of('d');
SELECT loyalty.approve(pg_temp.of('d'), 'as it was') AS forty_and_ten_fifths;
UPDATE loyalty.purchase SET store = 'S2' WHERE purchase_id = pg_temp.of('d');
SELECT kind, points FROM pg_temp.given('d');
SELECT * FROM loyalty.review_queue WHERE program = 'Reviews';
-- a wallet's part waits with the rest
SELECT loyalty.add_rule(w.program_id, 'stars', 'purchase', 'base', '3') > 0 AS stars FROM loyalty.program w WHERE w.wallet_of = pg_temp.p();
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('bea'), now(), 7, 'reviews', 'w');
SELECT points FROM pg_temp.given('w');
SELECT * FROM loyalty.check();
