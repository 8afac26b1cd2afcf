-- referrals: codes, states, both sides' points, what makes one void, review, merged members, every refusal
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.g(program text) RETURNS integer LANGUAGE sql AS $$ SELECT p.program_id FROM loyalty.program p WHERE p.name = program $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name ~ '^Referrals' AND m.external_id = who $$;
CREATE FUNCTION pg_temp.code(who text) RETURNS text LANGUAGE sql AS $$ SELECT loyalty.referral_code(pg_temp.m(who)) $$;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    message := regexp_replace(message, '(programme|member|referral|purchase) [0-9]+', '\1 N', 'g');
    RETURN NEXT;
END
$$;
-- a member enrolled by the code of another, at an instant
CREATE FUNCTION pg_temp.join_by(who text, referrer text, at timestamptz DEFAULT '2026-03-01 12:00+00', traits jsonb DEFAULT NULL) RETURNS boolean LANGUAGE sql AS
    $$ SELECT loyalty.enroll(m.program_id, who, at, attributes => traits, referral_code => loyalty.referral_code(m.member_id)) > 0 FROM loyalty.member m WHERE m.member_id = pg_temp.m(referrer) $$;
CREATE FUNCTION pg_temp.buy(who text, at timestamptz, amount numeric, reference text, attributes jsonb DEFAULT NULL) RETURNS TABLE (state text, reason text, friend bigint, referrer bigint) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference, attributes) VALUES (pg_temp.m(who), at, amount, 'referral test', reference, attributes);
    RETURN QUERY SELECT * FROM pg_temp.outcome(who);
END
$$;
CREATE FUNCTION pg_temp.outcome(who text) RETURNS TABLE (state text, reason text, friend bigint, referrer bigint) LANGUAGE sql AS $$
    SELECT r.state, r.reason, (SELECT sum(e.points) FROM loyalty.entry e WHERE e.source_id = r.referral_id AND (e.detail ->> 'side' = 'friend' OR (e.points < 0 AND e.account_id = loyalty.account_of(r.friend_id))))::bigint,
        (SELECT sum(e.points) FROM loyalty.entry e WHERE e.source_id = r.referral_id AND (e.detail ->> 'side' = 'referrer' OR (e.points < 0 AND e.account_id = loyalty.account_of(r.referrer_id))))::bigint
    FROM loyalty.referral r WHERE r.friend_id = pg_temp.m(who) $$;
SELECT loyalty.create_program('Referrals', time_zone => 'America/New_York', currency => 'USD', expiry => 'never', hold_days => 5) > 0;
SELECT loyalty.add_rule(pg_temp.g('Referrals'), 'base', 'purchase', 'base', 'purchase.amount') > 0;
SELECT count(loyalty.enroll(pg_temp.g('Referrals'), n, '2025-01-01')) FROM unnest('{ann,bob}'::text[]) n;
-- no policy, no referral
SELECT * FROM pg_temp.refused($$SELECT pg_temp.code('ann')$$);
SELECT loyalty.cabinet(pg_temp.m('ann')) -> 'referral' AS referral;
SELECT loyalty.set_referral(pg_temp.g('Referrals'), 500, 300, min_amount => 20, qualify_days => 30, hold_days => 14, cap => 3) > 0;
SELECT loyalty.set_referral(pg_temp.g('Referrals'), 500, 300, min_amount => 20, qualify_days => 30, hold_days => 14, cap => 3) = (SELECT policy_id FROM loyalty.referral_policy WHERE program_id = pg_temp.g('Referrals')) AS the_same;
-- codes
SELECT pg_temp.code('ann') = pg_temp.code('ann') AS always_the_same, loyalty.is_code(pg_temp.code('ann')), pg_temp.code('ann') <> pg_temp.code('bob') AS ones_own;
SELECT state, message ~ 'no member refers with code' AS refused, detail FROM pg_temp.refused($$SELECT loyalty.enroll(pg_temp.g('Referrals'), 'typo', referral_code => 'AAAA-AAAA')$$);
SELECT count(*) AS no_typo FROM loyalty.member WHERE external_id = 'typo';
-- invited, registered, too small a purchase, qualified and rewarded
SELECT loyalty.invite(pg_temp.m('ann'), 'to cid', 'e-mail') = loyalty.invite(pg_temp.m('ann'), 'to cid') AS once;
SELECT loyalty.enroll(pg_temp.g('Referrals'), 'cid', '2026-03-01 12:00+00') > 0;
SELECT loyalty.refer(pg_temp.m('cid'), lower(translate(pg_temp.code('ann'), '-', ' ')), 'to cid', '2026-03-01 12:00+00') = loyalty.refer(pg_temp.m('cid'), pg_temp.code('ann')) AS once;
SELECT * FROM pg_temp.buy('cid', '2026-03-05 12:00+00', 19.99, 'c1');
SELECT points FROM loyalty.quote(pg_temp.m('cid'), 20.00, occurred_at => '2026-03-06 12:00+00');
SELECT * FROM pg_temp.buy('cid', '2026-03-06 12:00+00', 20, 'c2');
SELECT e.kind, e.points, e.lots, e.reason, e.detail ->> 'side' AS side, m.external_id FROM loyalty.entry e JOIN loyalty.member m ON m.member_id = e.account_id WHERE m.member_id IN (pg_temp.m('ann'), pg_temp.m('cid')) ORDER BY e.account_id, e.seq;
SELECT c.number, c.state, c.reason FROM loyalty.referral_change c JOIN loyalty.referral r USING (referral_id) WHERE r.key = 'to cid' ORDER BY 1;
SELECT * FROM pg_temp.buy('cid', '2026-03-07 12:00+00', 100, 'c3');
SELECT side, state, points, available_from FROM loyalty.referrals(pg_temp.m('ann'));
SELECT side, state, key, points, available_from FROM loyalty.referrals(pg_temp.m('cid'));
SELECT c -> 'referral' ->> 'code' = pg_temp.code('ann') AS code, jsonb_path_query_array(c, '$.referral.referrals[*].state') AS states FROM loyalty.cabinet(pg_temp.m('ann')) c;
SELECT description, points FROM loyalty.statement(pg_temp.m('ann'));
-- void with its purchase: by a part that falls below the minimum, by all of it, by a void, by another member
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount, source) VALUES ('referral test', 'c3', 100, 'referral test');
SELECT * FROM pg_temp.outcome('cid');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount, source) VALUES ('referral test', 'c2', 0.01, 'referral test');
SELECT * FROM pg_temp.outcome('cid');
SELECT * FROM pg_temp.buy('cid', '2026-03-08 12:00+00', 100, 'c4');
SELECT pg_temp.join_by('dan', 'bob'), pg_temp.join_by('eve', 'bob'), pg_temp.join_by('fay', 'bob');
SELECT * FROM pg_temp.buy('dan', '2026-03-05 12:00+00', 50, 'd1');
SELECT * FROM pg_temp.buy('eve', '2026-03-05 12:00+00', 50, 'e1');
SELECT * FROM pg_temp.buy('fay', '2026-03-05 12:00+00', 50, 'f1');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, source) VALUES ('referral test', 'd1', 'referral test');
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'referral test' AND reference = 'e1';
UPDATE loyalty.purchase SET member_id = pg_temp.m('ann') WHERE source = 'referral test' AND reference = 'f1';
SELECT w.who, o.* FROM unnest('{dan,eve,fay}'::text[]) w (who) CROSS JOIN LATERAL pg_temp.outcome(w.who) o;
UPDATE loyalty.purchase SET status = 'completed' WHERE source = 'referral test' AND reference = 'e1';
SELECT * FROM pg_temp.outcome('eve');
SELECT external_id, points FROM loyalty.member JOIN loyalty.account ON account_id = member_id CROSS JOIN LATERAL (SELECT sum(e.points) AS points FROM loyalty.entry e WHERE e.account_id = member_id AND e.kind = 'referral') e WHERE external_id IN ('ann', 'bob', 'cid', 'dan', 'eve', 'fay') AND member.program_id = pg_temp.g('Referrals') ORDER BY 1;
SELECT * FROM loyalty.check();
-- a correction lets a purchase qualify, and the window ends
SELECT pg_temp.join_by('gil', 'bob'), pg_temp.join_by('hal', 'bob'), pg_temp.join_by('ian', 'bob', '2026-03-01 03:00+00');
SELECT * FROM pg_temp.buy('gil', '2026-03-05 12:00+00', 5, 'g1');
UPDATE loyalty.purchase SET amount = 25 WHERE source = 'referral test' AND reference = 'g1';
SELECT * FROM pg_temp.outcome('gil');
SELECT * FROM pg_temp.buy('hal', '2026-04-01 12:00+00', 50, 'h1');
SELECT * FROM pg_temp.buy('ian', '2026-02-28 12:00+00', 10, 'i0');
SELECT * FROM pg_temp.buy('ian', '2026-03-31 03:00+00', 50, 'i1');
-- points and gift cards pay for no minimum
SELECT pg_temp.join_by('joe', 'bob', '2026-04-01');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, paid_with_gift_card, source, reference) VALUES (pg_temp.m('joe'), '2026-04-02', 39.99, 20, 'referral test', 'j1');
SELECT * FROM pg_temp.outcome('joe');
-- shared contacts and cards make it void, a shared device waits for review; so do two friends with one card
UPDATE loyalty.member SET attributes = '{"email": "Bob@example.com", "phone": "1"}' WHERE member_id = pg_temp.m('bob');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference, attributes) VALUES (pg_temp.m('bob'), '2026-04-03 12:00+00', 5, 'referral test', 'b1', '{"device": "D1", "card": "C1"}');
SELECT pg_temp.join_by('kim', 'bob', '2026-04-01', '{"email": " bob@EXAMPLE.com"}'), pg_temp.join_by('lea', 'bob', '2026-04-01'), pg_temp.join_by('max', 'bob', '2026-04-01'), pg_temp.join_by('ned', 'bob', '2026-04-01'), pg_temp.join_by('oda', 'bob', '2026-04-01');
SELECT * FROM pg_temp.buy('kim', '2026-04-05 12:00+00', 50, 'k1');
SELECT * FROM pg_temp.buy('lea', '2026-04-05 12:00+00', 50, 'l1', '{"card": "C1"}');
SELECT * FROM pg_temp.buy('max', '2026-04-05 12:00+00', 50, 'm1', '{"device": "D1", "card": "C2"}');
SELECT * FROM pg_temp.buy('ned', '2026-04-05 13:00+00', 50, 'n1', '{"card": "C2"}');
SELECT friend_id = pg_temp.m('max') AS max, reason, age >= '0' AS age FROM loyalty.referral_review WHERE friend_id IN (pg_temp.m('max'), pg_temp.m('ned')) ORDER BY friend_id;
-- a third in April: two are in review
SELECT * FROM pg_temp.buy('oda', '2026-04-06 12:00+00', 50, 'o1');
SELECT pg_temp.join_by('pia', 'bob', '2026-04-01');
SELECT * FROM pg_temp.buy('pia', '2026-04-07 12:00+00', 50, 'p1');
SELECT loyalty.approve_referral(r.referral_id, 'one tablet, two people') FROM loyalty.referral r WHERE r.friend_id = pg_temp.m('max');
SELECT loyalty.approve_referral(r.referral_id) FROM loyalty.referral r WHERE r.friend_id = pg_temp.m('max');
SELECT loyalty.refuse_referral(r.referral_id, 'the same person') FROM loyalty.referral r WHERE r.friend_id = pg_temp.m('ned');
SELECT w.who, o.* FROM unnest('{max,ned,oda}'::text[]) w (who) CROSS JOIN LATERAL pg_temp.outcome(w.who) o;
-- what was refused makes room
SELECT pg_temp.join_by('quy', 'bob', '2026-04-01');
SELECT * FROM pg_temp.buy('quy', '2026-04-08 12:00+00', 50, 'q1');
-- refused after it was rewarded
SELECT loyalty.refuse_referral(r.referral_id, 'found out') FROM loyalty.referral r WHERE r.friend_id = pg_temp.m('quy');
SELECT * FROM pg_temp.outcome('quy');
-- one statement with many friends: in order of time, the cap takes the earliest
SELECT pg_temp.join_by('r' || n, 'ann', '2026-05-01') FROM generate_series(1, 5) n;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m('r' || n), timestamptz '2026-05-20 12:00+00' - n * interval '1 day', 50, 'referral test', 'r' || n FROM generate_series(1, 5) n UNION ALL
    SELECT pg_temp.m('ann'), '2026-05-17 12:00+00', 50, 'referral test', 'a' || n FROM generate_series(1, 2) n;
SELECT w.who, o.* FROM unnest('{r1,r2,r3,r4,r5}'::text[]) w (who) CROSS JOIN LATERAL pg_temp.outcome(w.who) o;
-- households: one for both is void, one's own gets the points
SELECT loyalty.create_household(pg_temp.g('Referrals'), 'home') > 0, loyalty.create_household(pg_temp.g('Referrals'), 'other home') > 0;
SELECT pg_temp.join_by('sam', 'cid', '2026-05-01'), pg_temp.join_by('tom', 'cid', '2026-05-01');
SELECT loyalty.join_household(pg_temp.m('cid'), pg_temp.m('home'), 'family') >= 0, loyalty.join_household(pg_temp.m('sam'), pg_temp.m('home'), 'family') >= 0, loyalty.join_household(pg_temp.m('tom'), pg_temp.m('other home'), 'family') >= 0;
SELECT * FROM pg_temp.buy('sam', '2026-05-05 12:00+00', 50, 's1');
SELECT * FROM pg_temp.buy('tom', '2026-05-05 12:00+00', 50, 't1');
SELECT m.external_id, e.points, e.detail ->> 'side' AS side FROM loyalty.entry e JOIN loyalty.member m ON m.member_id = e.account_id WHERE e.kind = 'referral' AND m.external_id ~ 'home' ORDER BY 1;
-- taken back where it went, also after leaving
SELECT loyalty.leave_household(pg_temp.m('cid'), 0, 'moved') >= 0;
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'referral test' AND reference = 't1';
SELECT * FROM pg_temp.outcome('tom');
SELECT m.external_id, sum(e.points) FROM loyalty.entry e JOIN loyalty.member m ON m.member_id = e.account_id WHERE e.kind = 'referral' AND m.external_id ~ 'home' GROUP BY 1 ORDER BY 1;
-- a referrer who spent it all owes it, or is forgiven where the programme forbids debts; the friend's return does not fail
SELECT loyalty.create_program('Referrals strict', currency => 'USD', expiry => 'never', negative => 'forbid') > 0;
SELECT loyalty.set_referral(pg_temp.g('Referrals strict'), 500, 0) > 0;
SELECT loyalty.enroll(pg_temp.g('Referrals strict'), 'una', '2025-01-01') > 0;
SELECT pg_temp.join_by('val', 'una', '2026-05-01');
SELECT * FROM pg_temp.buy('val', '2026-05-02', 0, 'v1');
SELECT count(*) FROM loyalty.redeem(pg_temp.m('una'), 400, 'all');
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'referral test' AND reference = 'v1';
SELECT * FROM pg_temp.outcome('val');
SELECT available, debt FROM loyalty.balance(pg_temp.m('una'));
-- merged: a referrer, a friend, a friend with its referrer, a circle
SELECT count(loyalty.enroll(pg_temp.g('Referrals'), n, '2025-01-01')) FROM unnest('{wim,wim2,xia}'::text[]) n;
SELECT pg_temp.join_by('yan', 'wim2', '2026-06-01'), pg_temp.join_by('zoe', 'xia', '2026-06-01'), pg_temp.join_by('zed', 'yan', '2026-06-01');
SELECT loyalty.merge_members(pg_temp.m('wim2'), pg_temp.m('wim'), 'same') >= 0;
SELECT * FROM pg_temp.buy('yan', '2026-06-02 12:00+00', 50, 'y1');
SELECT * FROM pg_temp.buy('zoe', '2026-06-02 12:00+00', 50, 'z1');
SELECT pg_temp.code('wim2') = pg_temp.code('wim') AS one_code;
SELECT loyalty.merge_members(pg_temp.m('zoe'), pg_temp.m('xia'), 'same') >= 0;
SELECT * FROM pg_temp.outcome('zoe');
SELECT m.external_id, t.depth, r.external_id AS referrer, t.state FROM loyalty.referral_tree t JOIN loyalty.member m USING (member_id) LEFT JOIN loyalty.member r ON r.member_id = t.referrer_id WHERE t.root = pg_temp.m('wim') ORDER BY 2, 1;
SELECT loyalty.merge_members(pg_temp.m('zed'), pg_temp.m('wim'), 'same') >= 0;
SELECT r.state, r.reason FROM loyalty.referral r WHERE r.friend_id = pg_temp.m('wim');
SELECT * FROM pg_temp.outcome('yan');
-- the promise of its time: a new policy is for new referrals
SELECT pg_temp.join_by('aba', 'bob', '2026-07-01');
SELECT loyalty.set_referral(pg_temp.g('Referrals'), 10, 0, reason => 'too dear') > 0;
SELECT pg_temp.join_by('abe', 'bob', '2026-07-01');
SELECT loyalty.retire_referral(pg_temp.g('Referrals'), 'over');
SELECT * FROM pg_temp.buy('aba', '2026-07-02 12:00+00', 50, 'aba');
SELECT * FROM pg_temp.buy('abe', '2026-07-02 12:00+00', 1, 'abe');
SELECT e.lots FROM loyalty.entry e JOIN loyalty.referral r ON r.referral_id = e.source_id WHERE r.friend_id = pg_temp.m('abe');
-- every refusal
SELECT * FROM pg_temp.refused($$SELECT pg_temp.code('ann')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_referral(0, 1, 1)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_referral(pg_temp.g('Referrals'), 0, 0)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_referral(pg_temp.g('Referrals'), 1, 1, cap => 0)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_referral(pg_temp.g('Referrals'), 1, 1, cap_period => 'fortnight')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_referral(pg_temp.g('Referrals'), 1, 1, void_on => NULL)$$);
SELECT loyalty.set_referral(pg_temp.g('Referrals'), 500, 300, min_amount => 20) > 0;
SELECT * FROM pg_temp.refused($$SELECT loyalty.refer(pg_temp.m('ann'), pg_temp.code('ann'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.refer(pg_temp.m('abe'), pg_temp.code('ann'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.refer(pg_temp.m('bob'), pg_temp.code('ann'))$$);
SELECT loyalty.enroll(pg_temp.g('Referrals'), 'bought') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) VALUES (pg_temp.m('bought'), now() - interval '1 minute', 1);
SELECT * FROM pg_temp.refused($$SELECT loyalty.refer(pg_temp.m('bought'), pg_temp.code('ann'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.refer(pg_temp.m('home'), pg_temp.code('ann'))$$);
SELECT state, detail FROM pg_temp.refused($$SELECT loyalty.refer(pg_temp.m('val'), pg_temp.code('ann'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.refer(0, 'x')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.invite(pg_temp.m('ann'), '')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.approve_referral(0)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.approve_referral(r.referral_id) FROM loyalty.referral r WHERE r.friend_id = pg_temp.m('quy')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.refuse_referral(0, 'x')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.refuse_referral(0, ' ')$$);
SELECT loyalty.close_member(pg_temp.m('bought'));
SELECT * FROM pg_temp.refused($$SELECT pg_temp.code('bought')$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.referral_policy SET friend_points = 1$$);
SELECT * FROM pg_temp.refused($$DELETE FROM loyalty.referral$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.referral_change SET reason = 'x'$$);
SELECT state, message FROM pg_temp.refused($$INSERT INTO loyalty.referral (program_id, policy_id, referrer_id, friend_id, state, registered_at) SELECT program_id, policy_id, referrer_id, friend_id, 'registered', now() FROM loyalty.referral WHERE friend_id = pg_temp.m('abe')$$);
-- a closed referrer brings nothing
SELECT pg_temp.join_by('acy', 'xia', '2026-08-01');
SELECT loyalty.close_member(pg_temp.m('xia'));
SELECT * FROM pg_temp.buy('acy', '2026-08-02 12:00+00', 50, 'acy');
SELECT month, invited, registered, qualified, in_review, rewarded, void, points, conversion FROM loyalty.referral_funnel WHERE program_id = pg_temp.g('Referrals') AND month < '2026-09-01' ORDER BY month;
SELECT * FROM loyalty.check();
-- check sees damages
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE loyalty.referral SET state = 'void', void_at = now(), reason = 'x' WHERE friend_id = pg_temp.m('aba');
UPDATE loyalty.referral SET state = 'rewarded', rewarded_at = now(), void_at = NULL WHERE friend_id = pg_temp.m('eve');
INSERT INTO loyalty.referral (program_id, policy_id, referrer_id, friend_id, state, registered_at) SELECT program_id, policy_id, pg_temp.m('gil'), pg_temp.m('bob'), 'registered', now() FROM loyalty.referral WHERE friend_id = pg_temp.m('abe');
UPDATE loyalty.account SET merged_into = pg_temp.m('gil') WHERE account_id = pg_temp.m('ian');
UPDATE loyalty.purchase SET amount = 1 WHERE source = 'referral test' AND reference = 'g1';
INSERT INTO loyalty.referral (program_id, policy_id, referrer_id, friend_id, state, registered_at) SELECT program_id, policy_id, pg_temp.m('una'), pg_temp.m('home'), 'registered', now() FROM loyalty.referral WHERE friend_id = pg_temp.m('abe');
SELECT DISTINCT invariant FROM loyalty.check_referrals() ORDER BY 1;
ROLLBACK;
