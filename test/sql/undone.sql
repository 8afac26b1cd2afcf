-- what is void or refused gives back what it had claimed and counted, once
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
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Undone' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.did(who text, kind text, subject text, reference text, attributes jsonb DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO loyalty.activity (member_id, occurred_at, kind, subject, attributes, source, reference) VALUES (pg_temp.m(who), '2024-03-10 12:00+00', kind, subject, attributes, 'undone', reference) $$;
CREATE FUNCTION pg_temp.of(ref text) RETURNS bigint LANGUAGE sql AS $$ SELECT activity_id FROM loyalty.activity WHERE source = 'undone' AND reference = ref UNION ALL SELECT purchase_id FROM loyalty.purchase WHERE source = 'undone' AND reference = ref $$;
CREATE FUNCTION pg_temp.void(ref text, status text DEFAULT 'void') RETURNS void LANGUAGE sql AS $$ UPDATE loyalty.activity SET status = void.status WHERE source = 'undone' AND reference = ref $$;
CREATE TEMP VIEW seen AS SELECT coalesce(v.reference, v.kind) AS reference, m.external_id AS who, v.kind, v.subject, v.status, a.verdict, a.reason, a.number, a.factor, a.given_back_at IS NOT NULL AS given_back, (SELECT sum(e.points) FROM loyalty.entry e WHERE e.source_id = v.activity_id) AS points
    FROM loyalty.activity v JOIN loyalty.member m USING (member_id) LEFT JOIN loyalty.activity_admission a USING (activity_id) WHERE m.program_id = pg_temp.p() ORDER BY v.activity_id;
SELECT loyalty.create_program('Undone', currency => 'EUR', expiry => 'never', points_scale => 1) > 0 AS made;
SELECT count(loyalty.enroll(pg_temp.p(), name, '2024-01-01')) FROM unnest('{ann,bea,cid,dan}'::text[]) name;
SELECT count(loyalty.add_rule(pg_temp.p(), kind, 'activity', 'base', points, format('activity.kind = %L', kind))) FROM (VALUES ('review', '10'), ('photo', '4'), ('receipt', '20'), ('field', '2'), ('profile', '50')) v (kind, points);
SELECT loyalty.set_activity_policy(pg_temp.p(), 'review', once_per_subject => true), loyalty.set_activity_policy(pg_temp.p(), 'photo', quota_per_subject => 1, falling => 0.5),
    loyalty.set_activity_policy(pg_temp.p(), 'receipt', unique_fingerprint => true, needs_approval => true), loyalty.set_activity_policy(pg_temp.p(), 'field', once_per_subject => true, needs_approval => true, fields => '{size,colour}', complete_kind => 'profile');
-- a subject: another takes it, and the first cannot have it again
SELECT pg_temp.did('ann', 'review', 'CUP', 'r1'), pg_temp.void('r1'), pg_temp.void('r1'), pg_temp.did('ann', 'review', 'CUP', 'r2'), pg_temp.void('r1', 'completed'), pg_temp.did('ann', 'review', 'CUP', 'r3');
SELECT reference, status, verdict, reason, given_back, points FROM seen WHERE kind = 'review';
-- where nobody took it, it has it again
SELECT pg_temp.void('r2'), pg_temp.void('r2', 'completed'), pg_temp.did('ann', 'review', 'CUP', 'r4');
SELECT reference, status, verdict, given_back, points FROM seen WHERE reference IN ('r2', 'r4');
-- numbers under a quota: each that is given back goes to the next, once
SELECT pg_temp.did(who, 'photo', 'CUP', 'p' || n) FROM (VALUES (1, 'ann'), (2, 'bea'), (3, 'cid')) v (n, who);
SELECT pg_temp.void('p1'), pg_temp.void('p1'), pg_temp.void('p2');
SELECT counted, taken, freed FROM loyalty.activity_quota WHERE program_id = pg_temp.p();
SELECT pg_temp.did('dan', 'photo', 'CUP', 'p4'), pg_temp.void('p1', 'completed'), pg_temp.did('dan', 'photo', 'CUP', 'p5');
SELECT counted, taken, freed FROM loyalty.activity_quota WHERE program_id = pg_temp.p();
SELECT reference, status, number, factor, given_back, points FROM seen WHERE kind = 'photo';
-- a row that was void from the start takes nothing before it counts
INSERT INTO loyalty.activity (member_id, occurred_at, kind, subject, status, source, reference) VALUES (pg_temp.m('ann'), '2024-03-10', 'photo', 'CUP', 'void', 'undone', 'p6');
SELECT pg_temp.void('p6', 'completed');
SELECT reference, status, number, factor, points FROM seen WHERE reference = 'p6';
-- in one statement: what is given back is there for the rows that come with it
UPDATE loyalty.activity SET status = CASE reference WHEN 'p4' THEN 'void' ELSE status END, value = 1 WHERE source = 'undone' AND kind = 'photo';
SELECT counted, freed FROM loyalty.activity_quota WHERE program_id = pg_temp.p();
-- a fingerprint: what a person refuses gives it back
SELECT pg_temp.did('ann', 'receipt', NULL, 'f1', '{"fingerprint": "F"}'), pg_temp.did('bea', 'receipt', NULL, 'f2', '{"fingerprint": "F"}');
SELECT loyalty.refuse(pg_temp.of('f1'), 'not hers') AS taken, loyalty.refuse(pg_temp.of('f1'), 'still not') AS again;
SELECT pg_temp.did('bea', 'receipt', NULL, 'f3', '{"fingerprint": "F"}'), pg_temp.void('f1'), pg_temp.void('f1', 'completed');
SELECT loyalty.approve(pg_temp.of('f3'), 'hers') AS posted, loyalty.refuse(pg_temp.of('f3'), 'no') AS taken;
SELECT pg_temp.did('cid', 'receipt', NULL, 'f4', '{"fingerprint": "F"}');
SELECT reference, verdict, reason, given_back, points FROM seen WHERE kind = 'receipt';
-- what waits and is void meanwhile
SELECT pg_temp.void('f4'), pg_temp.did('dan', 'receipt', NULL, 'f5', '{"fingerprint": "F"}'), pg_temp.void('f4', 'completed');
SELECT loyalty.approve(ARRAY[pg_temp.of('f4'), pg_temp.of('f5')], 'fine') AS one;
SELECT reference, verdict, reason, given_back, points FROM seen WHERE reference IN ('f4', 'f5');
-- a set: its bonus comes with the last field that is approved, goes with one that is refused, and comes again
SELECT pg_temp.did('ann', 'field', 'size', 's1'), pg_temp.did('ann', 'field', 'colour', 's2');
SELECT regexp_replace(reference, '\d+ ', '') AS reference, status, points FROM seen WHERE kind IN ('field', 'profile');
SELECT loyalty.approve(pg_temp.of('s1'), 'ok') AS one, loyalty.approve(pg_temp.of('s2'), 'ok') AS two;
SELECT regexp_replace(reference, '\d+ ', '') AS reference, status, points FROM seen WHERE kind IN ('field', 'profile');
SELECT loyalty.refuse(pg_temp.of('s2'), 'invented') AS taken;
SELECT regexp_replace(reference, '\d+ ', '') AS reference, status, given_back, points FROM seen WHERE kind IN ('field', 'profile');
SELECT pg_temp.did('ann', 'field', 'colour', 's3');
SELECT loyalty.approve(pg_temp.of('s3'), 'ok') AS one;
SELECT regexp_replace(reference, '\d+ ', '') AS reference, status, given_back, points FROM seen WHERE kind IN ('field', 'profile');
SELECT pg_temp.void('s1');
SELECT regexp_replace(reference, '\d+ ', '') AS reference, status, given_back, points FROM seen WHERE kind IN ('field', 'profile');
-- a bonus that somebody else made void stays so
SELECT pg_temp.void('s1', 'completed');
UPDATE loyalty.activity SET status = 'void', attributes = NULL WHERE kind = 'profile' AND member_id = pg_temp.m('ann');
UPDATE loyalty.activity SET value = 3 WHERE kind = 'field' AND member_id = pg_temp.m('ann');
SELECT regexp_replace(reference, '\d+ ', '') AS reference, status, given_back, points FROM seen WHERE kind IN ('field', 'profile');
-- stamps and challenges: a purchase that waits counts when it is approved, and no more when it is refused
SELECT loyalty.add_reward(pg_temp.p(), 'coffee', 'badge', 100) > 0 AS reward;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base, loyalty.add_stamp_card(pg_temp.p(), 'visits', 'visits', 5, 'coffee', valid_from => '2024-01-01') > 0 AS card,
    loyalty.add_challenge(pg_temp.p(), 'two', 'visits', 2, 30, active_from => '2024-01-01') > 0 AS challenge, loyalty.set_cashier(pg_temp.p(), '7', pg_temp.m('dan'));
CREATE TEMP VIEW counted AS SELECT (SELECT stamps FROM loyalty.stamp_cards(pg_temp.m('dan')) WHERE card = 'visits') AS stamps, (SELECT progress FROM loyalty.challenge_progress WHERE member_id = pg_temp.m('dan')) AS visits,
    (SELECT sum(points) FROM loyalty.entry WHERE account_id = pg_temp.m('dan') AND kind = 'challenge') AS won;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, source, reference) VALUES (pg_temp.m('dan'), '2024-04-01', 10, '{"cashier": "7"}', 'undone', 'b1'), (pg_temp.m('dan'), '2024-04-02', 10, '{"cashier": "8"}', 'undone', 'b2'), (pg_temp.m('dan'), '2024-04-03', 10, '{"cashier": "7"}', 'undone', 'b3');
SELECT * FROM counted;
SELECT loyalty.approve(pg_temp.of('b1'), 'seen') AS posted;
SELECT * FROM counted;
UPDATE loyalty.purchase SET amount = 12 WHERE source = 'undone';
SELECT loyalty.refuse(ARRAY[pg_temp.of('b1'), pg_temp.of('b3')], 'not bought') AS taken;
SELECT * FROM counted;
UPDATE loyalty.purchase SET amount = 13 WHERE source = 'undone';
SELECT * FROM counted;
SELECT * FROM loyalty.check();
