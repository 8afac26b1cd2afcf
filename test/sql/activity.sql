-- activities that earn: once, when true, in time, and less when there are many
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
    message := regexp_replace(message, '(member|programme|purchase|transaction|activity) \d+', '\1 N', 'g');
    detail := regexp_replace(detail, '\d{2,}', 'N', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Activities' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.did(who text, kind text, subject text DEFAULT NULL, attributes jsonb DEFAULT NULL, at timestamptz DEFAULT '2024-03-10 12:00+00') RETURNS text LANGUAGE sql AS $$
    INSERT INTO loyalty.activity (member_id, occurred_at, kind, subject, attributes) VALUES (pg_temp.m(who), at, kind, subject, attributes) RETURNING activity_id::text $$;
CREATE FUNCTION pg_temp.shown(kinds text) RETURNS TABLE (who text, kind text, subject text, verdict text, reason text, factor numeric, points numeric) LANGUAGE sql AS $$
    SELECT m.external_id, v.kind, left(v.subject, 20), a.verdict, a.reason, a.factor, (SELECT sum(e.points) FROM loyalty.entry e WHERE e.source_id = v.activity_id)
    FROM loyalty.activity v JOIN loyalty.member m USING (member_id) LEFT JOIN loyalty.activity_admission a USING (activity_id)
    WHERE m.program_id = pg_temp.p() AND v.kind = ANY (string_to_array(kinds, ',')) ORDER BY v.activity_id $$;
SELECT loyalty.create_program('Activities', currency => 'EUR', time_zone => 'America/New_York', expiry => 'never', points_scale => 1) > 0 AS made;
SELECT count(loyalty.enroll(pg_temp.p(), name, '2024-01-01')) FROM unnest('{ann,bea,cid,dan}'::text[]) name;
SELECT count(loyalty.add_rule(pg_temp.p(), kind || ' points', 'activity', 'base', points, format('activity.kind = %L', kind))) FROM (VALUES ('review', '10'), ('photo', '4'), ('share', '3'), ('receipt', 'activity.value'), ('field', '2'), ('profile', '50'), ('visit', '1')) v (kind, points);
-- what a policy may be
SELECT n, r.state, r.message FROM (VALUES (1, $$'x', quota_per_subject => 0$$), (2, $$'x', falling => 1$$), (3, $$'x', falling => 0.12345$$), (4, $$'x', window_days => -1$$), (5, $$'x', on_fail => 'shout'$$), (6, $$''$$), (7, $$NULL$$), (8, $$'x', complete_kind => 'y'$$),
    (9, $$'x', true, fields => '{}'$$), (10, $$'x', true, fields => '{a}', complete_kind => 'x'$$), (11, $$'x', fields => '{a}', complete_kind => 'y'$$), (12, $$'x', once_per_subject => NULL$$)) c (n, call), pg_temp.refused(format('SELECT loyalty.set_activity_policy(pg_temp.p(), %s)', call)) r ORDER BY n;
SELECT r.* FROM pg_temp.refused('SELECT loyalty.set_activity_policy(0, ''x'')') r;
-- a kind without a policy earns as ever
SELECT pg_temp.did('ann', 'visit') > '0', pg_temp.did('ann', 'visit') > '0';
SELECT * FROM pg_temp.shown('visit');
-- once per subject, of an article that was bought and kept
SELECT loyalty.set_activity_policy(pg_temp.p(), 'review', once_per_subject => true, verified_purchase => true);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, source, reference) VALUES
    (pg_temp.m('ann'), '2024-03-01', 30, loyalty.lines('[{"sku": "CUP", "quantity": 2, "unit_price": 10}, {"sku": "POT", "quantity": 1, "unit_price": 10}]'), 'acts', 'a1'),
    (pg_temp.m('bea'), '2024-03-20', 10, loyalty.lines('[{"sku": "CUP", "quantity": 1, "unit_price": 10}]'), 'acts', 'b1'),
    (pg_temp.m('cid'), '2024-03-01', 10, loyalty.lines('[{"sku": "CUP", "quantity": 1, "unit_price": 10}]'), 'acts', 'c1');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines, source, reference) VALUES ('acts', 'a1', loyalty.return_lines('[{"line": 1, "quantity": 1}, {"line": 2, "quantity": 1}]'), 'acts', 'ra');
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'acts' AND reference = 'c1';
SELECT count(pg_temp.did(who, 'review', subject)) FROM (VALUES (1, 'ann', 'CUP'), (2, 'ann', 'CUP'), (3, 'ann', 'POT'), (4, 'bea', 'CUP'), (5, 'cid', 'CUP'), (6, 'ann', NULL), (7, 'ann', ''), (8, 'ann', repeat('x', 1001))) v (n, who, subject);
SELECT * FROM pg_temp.shown('review');
SELECT m.external_id, r.kind, r.subject, r.reason FROM loyalty.activity_refusal r JOIN loyalty.member m USING (member_id) WHERE r.program_id = pg_temp.p() AND r.subject = 'POT' ORDER BY r.activity_id;
-- explain says so
SELECT e.rule, e.kind, e.fired, e.points, e.why FROM loyalty.activity v CROSS JOIN LATERAL loyalty.explain(v.activity_id) e WHERE v.member_id = pg_temp.m('ann') AND v.kind = 'review' AND v.subject = 'POT' AND (e.fired OR e.rule IS NULL OR e.rule = 'review points') ORDER BY e.rule NULLS LAST;
-- a decision stands whatever is changed later, and void takes the points back
UPDATE loyalty.activity SET attributes = '{"stars": 5}' WHERE member_id = pg_temp.m('ann') AND kind = 'review';
UPDATE loyalty.activity SET status = 'void' WHERE member_id = pg_temp.m('ann') AND kind = 'review';
UPDATE loyalty.activity SET status = 'completed' WHERE member_id = pg_temp.m('ann') AND kind = 'review';
SELECT * FROM pg_temp.shown('review') WHERE who = 'ann' AND verdict = 'paid';
SELECT sum(points) FROM pg_temp.shown('review');
-- a quota of an article, and falling points, exactly
SELECT loyalty.set_activity_policy(pg_temp.p(), 'photo', quota_per_subject => 2, falling => 0.35);
INSERT INTO loyalty.activity (member_id, occurred_at, kind, subject) SELECT pg_temp.m(who), '2024-03-10', 'photo', 'CUP' FROM unnest('{ann,bea,cid,dan,ann,bea,cid}'::text[]) WITH ORDINALITY w (who, n) ORDER BY n;
SELECT pg_temp.did('dan', 'photo', 'POT') > '0', loyalty.falling_factor(0.35, 2, 10000), loyalty.falling_factor(0, 3, 4), loyalty.falling_factor(0.5, 1, 5);
SELECT subject, factor, count(*), points FROM pg_temp.shown('photo') GROUP BY 1, 2, 4 ORDER BY 1, 2 DESC;
UPDATE loyalty.activity SET value = 1 WHERE kind = 'photo' AND member_id = pg_temp.m('ann');
SELECT subject, factor, count(*), points FROM pg_temp.shown('photo') GROUP BY 1, 2, 4 ORDER BY 1, 2 DESC;
-- soon after delivery
SELECT loyalty.set_activity_policy(pg_temp.p(), 'share', window_days => 3);
UPDATE loyalty.purchase SET attributes = '{"delivered_at": "2024-03-08"}' WHERE source = 'acts' AND reference = 'a1';
SELECT count(pg_temp.did('ann', 'share', n::text, a::jsonb)) FROM (VALUES (1, '{"delivered_at": "2024-03-07T12:00:00Z"}'), (2, '{"delivered_at": "2024-03-07T11:59:59Z"}'), (3, '{"delivered_at": "2024-03-11"}'), (4, NULL), (5, '{"delivered_at": "soon"}'), (6, '{"delivered_at": "2024-02-31"}'), (7, '{"delivered_at": "infinity"}'),
    (8, '{"purchase_id": "x"}'), (9, '{"purchase_id": 0}'), (10, '{"delivered_at": "2024-03-07 07:00:00"}')) v (n, a);
SELECT count(pg_temp.did('ann', 'share', '11', jsonb_build_object('purchase_id', purchase_id))), count(pg_temp.did('bea', 'share', '12', jsonb_build_object('purchase_id', purchase_id))) FROM loyalty.purchase WHERE source = 'acts' AND reference = 'a1';
SELECT * FROM pg_temp.shown('share');
-- a receipt: not too old, nobody's before, looked at
SELECT loyalty.set_activity_policy(pg_temp.p(), 'receipt', needs_approval => true, max_age_days => 10, unique_fingerprint => true);
SELECT count(pg_temp.did(who, 'receipt', NULL, a::jsonb)) FROM (VALUES (1, 'ann', '{"fingerprint": "F1", "receipt_date": "2024-03-01"}'), (2, 'bea', '{"fingerprint": "F1", "receipt_date": "2024-03-01"}'), (3, 'ann', '{"fingerprint": "F1", "receipt_date": "2024-03-01"}'),
    (4, 'bea', '{"fingerprint": "F2", "receipt_date": "2024-02-28"}'), (5, 'bea', '{"fingerprint": "F2", "receipt_date": "2024-03-11"}'), (6, 'bea', '{"receipt_date": "2024-03-09"}'), (7, 'bea', '{"fingerprint": "F2"}'), (8, 'cid', '{"fingerprint": "F2", "receipt_date": "2024-02-29"}')) v (n, who, a);
UPDATE loyalty.activity SET value = 7.5 WHERE kind = 'receipt' AND member_id IN (pg_temp.m('ann'), pg_temp.m('cid'));
SELECT * FROM pg_temp.shown('receipt');
SELECT transaction, activity, value, reason, detail FROM loyalty.review_queue WHERE program = 'Activities' ORDER BY source_id;
SELECT e.rule, e.kind, e.fired, e.why FROM loyalty.review_queue q CROSS JOIN LATERAL loyalty.explain(q.source_id) e WHERE q.member_id = pg_temp.m('cid') AND q.program = 'Activities' AND (e.rule IS NULL OR e.rule = 'receipt points') ORDER BY e.rule NULLS LAST;
SELECT loyalty.approve(source_id, 'seen') AS posted FROM loyalty.review_queue WHERE member_id = pg_temp.m('ann') AND program = 'Activities';
SELECT loyalty.refuse(source_id, 'forged') AS taken FROM loyalty.review_queue WHERE member_id = pg_temp.m('cid') AND program = 'Activities';
UPDATE loyalty.activity SET value = 9 WHERE kind = 'receipt' AND member_id IN (pg_temp.m('ann'), pg_temp.m('cid'));
SELECT * FROM pg_temp.shown('receipt') WHERE verdict = 'held';
SELECT loyalty.refuse(source_id, 'forged as well') AS taken FROM loyalty.review_award WHERE member_id = pg_temp.m('ann') AND program = 'Activities';
SELECT * FROM pg_temp.shown('receipt') WHERE verdict = 'held';
-- what waits keeps its place in the quota
SELECT loyalty.set_activity_policy(pg_temp.p(), 'video', quota_per_subject => 1, falling => 0.5, needs_approval => true), loyalty.add_rule(pg_temp.p(), 'video points', 'activity', 'base', '7', $$activity.kind = 'video'$$) > 0;
SELECT count(pg_temp.did(w, 'video', 'CUP')) FROM unnest('{ann,bea,cid}'::text[]) w;
SELECT loyalty.approve(array_agg(source_id), 'fine') FROM loyalty.review_queue WHERE program = 'Activities' AND activity = 'video';
UPDATE loyalty.activity SET value = 1 WHERE kind = 'video';
SELECT * FROM pg_temp.shown('video');
-- a profile: each field once, and something for all of them
SELECT loyalty.set_activity_policy(pg_temp.p(), 'field', once_per_subject => true, fields => '{size,colour,pet}', complete_kind => 'profile');
SELECT count(pg_temp.did('ann', 'field', f)) FROM unnest('{size,size,colour,car}'::text[]) f;
SELECT pg_temp.did('ann', 'profile') > '0';
INSERT INTO loyalty.activity (member_id, occurred_at, kind, subject) SELECT pg_temp.m(who), '2024-03-10', 'field', f FROM unnest('{ann,bea}'::text[]) who, unnest('{size,colour,pet}'::text[]) f;
SELECT pg_temp.did('bea', 'profile') > '0', pg_temp.did('bea', 'field', 'pet') > '0';
SELECT * FROM pg_temp.shown('field,profile') ORDER BY who, kind, subject, verdict, reason;
-- reject: the activity does not stand
SELECT loyalty.set_activity_policy(pg_temp.p(), 'visit', once_per_subject => true, on_fail => 'reject');
SELECT pg_temp.did('dan', 'visit', 'S1') > '0';
SELECT r.* FROM pg_temp.refused('SELECT pg_temp.did(''dan'', ''visit'', ''S1'')') r;
SELECT count(*) FROM loyalty.activity WHERE kind = 'visit' AND member_id = pg_temp.m('dan');
-- merged members are one
SELECT pg_temp.did('cid', 'visit', 'S1') > '0', loyalty.merge_members(pg_temp.m('cid'), pg_temp.m('bea'), 'same') IS NOT NULL;
SELECT r.state, r.detail FROM pg_temp.refused('SELECT pg_temp.did(''bea'', ''visit'', ''S1'')') r;
-- the price list
SELECT kind, rule, points, terms FROM loyalty.activity_prices WHERE program_id = pg_temp.p() ORDER BY kind, rule;
SELECT r.* FROM pg_temp.refused('SELECT loyalty.set_activity_policy(pg_temp.p(), ''share'', true, fields => ''{a}'', complete_kind => ''visit'')') r;
SELECT loyalty.drop_activity_policy(pg_temp.p(), 'field');
SELECT kind FROM loyalty.activity_policy WHERE program_id = pg_temp.p() ORDER BY 1;
SELECT r.state FROM unnest('{DELETE FROM loyalty.activity_admission,TRUNCATE loyalty.activity_admission}'::text[]) s, pg_temp.refused(s) r;
SELECT * FROM loyalty.check();
