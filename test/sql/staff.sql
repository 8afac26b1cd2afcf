-- staff: nobody enters anything for themselves or their household
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
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Staff' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.held() RETURNS TABLE (reference text, reason text, detail text) LANGUAGE sql AS $$ SELECT q.reference, q.reason, q.detail FROM loyalty.review_queue q WHERE q.program = 'Staff' ORDER BY 1 $$;
SELECT loyalty.create_program('Staff', currency => 'EUR', expiry => 'never', point_value => 0.01) > 0 AS made;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base, loyalty.add_rule(pg_temp.p(), 'visit', 'activity', 'base', '5') > 0 AS visit, loyalty.add_wallet(pg_temp.p(), 'Stars') > 0 AS wallet;
SELECT loyalty.add_rule(w.program_id, 'stars', 'purchase', 'base', '3') > 0 AS stars FROM loyalty.program w WHERE w.wallet_of = pg_temp.p();
SELECT count(loyalty.enroll(pg_temp.p(), name, '2024-01-01')) FROM unnest('{ann,bea,cid,dan}'::text[]) name;
SELECT count(loyalty.adjust(pg_temp.m(w), 1000, 'start')) FROM unnest('{ann,bea,cid,dan}'::text[]) w;
SELECT n, r.state FROM (VALUES (1, $$pg_temp.p(), '', 1$$), (2, $$pg_temp.p(), NULL, 1$$), (3, $$pg_temp.p(), 'x', 0$$), (4, $$0, 'x', 1$$), (5, $$pg_temp.p(), repeat('x', 201), 1$$)) c (n, call), pg_temp.refused(format('SELECT loyalty.set_cashier(%s)', call)) r ORDER BY n;
SELECT loyalty.set_cashier(pg_temp.p(), ' 7 ', pg_temp.m('ann'));
-- a purchase: its award waits; so does its part in the wallet
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, source, reference) VALUES (pg_temp.m('ann'), '2024-02-01', 10, '{"cashier": "7"}', 'staff', 'own'), (pg_temp.m('bea'), '2024-02-01', 20, '{"cashier": "7"}', 'staff', 'other'), (pg_temp.m('ann'), '2024-02-01', 30, '{"cashier": "8"}', 'staff', 'by 8'), (pg_temp.m('ann'), '2024-02-01', 40, NULL, 'staff', 'by none');
INSERT INTO loyalty.activity (member_id, occurred_at, kind, attributes, source, reference) VALUES (pg_temp.m('ann'), '2024-02-01', 'visit', '{"cashier": "7"}', 'staff', 'own visit');
SELECT * FROM pg_temp.held();
SELECT p.reference, e.points FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'staff' ORDER BY 1, 2;
SELECT loyalty.replace_rule(pg_temp.p(), 'base', points => '2 * purchase.amount', from_at => '-infinity') > 0 AS other_rules;
UPDATE loyalty.purchase SET amount = 11 WHERE source = 'staff' AND reference = 'own';
SELECT loyalty.approve(array_agg(source_id), 'seen') AS eleven_and_five FROM loyalty.review_queue WHERE program = 'Staff';
UPDATE loyalty.purchase SET store = 'S' WHERE source = 'staff' AND reference = 'own';
SELECT p.reference, e.kind, e.points FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'staff' AND p.reference = 'own' ORDER BY 1, 2, 3;
SELECT loyalty.refuse(purchase_id, 'it was not') AS fourteen FROM loyalty.purchase WHERE source = 'staff' AND reference = 'own';
SELECT sum(e.points) FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'staff' AND p.reference = 'own';
-- spending: refused for whoever the till names; a transfer and an adjustment for the role that connected
SELECT loyalty.adjust(loyalty.wallet(pg_temp.m('ann'), 'Stars'), 5, 'stars') > 0 AS stars;
SELECT n, r.* FROM (VALUES (1, $$redeem(pg_temp.m('ann'), 10, 'r1', cashier => '7')$$), (2, $$hold(pg_temp.m('ann'), 10, 'h1', cashier => E'\t7\u200b')$$), (3, $$redeem(pg_temp.m('ann'), 10, 'r2', cashier => '8')$$), (4, $$redeem(pg_temp.m('bea'), 10, 'r3', cashier => '7')$$), (5, $$redeem(loyalty.wallet(pg_temp.m('ann'), 'Stars'), 1, 'r4', cashier => '7')$$)) c (n, call),
    pg_temp.refused('SELECT loyalty.' || call) r ORDER BY n;
-- a household is one
SELECT loyalty.create_household(pg_temp.p(), 'home') > 0 AS made;
SELECT count(loyalty.join_household(pg_temp.m(w), pg_temp.m('home'))) FROM unnest('{ann,cid}'::text[]) w;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, source, reference) VALUES (pg_temp.m('cid'), '2024-02-02', 10, '{"cashier": "7"}', 'staff', 'at home'), (pg_temp.m('dan'), '2024-02-02', 10, '{"cashier": "7"}', 'staff', 'stranger');
SELECT * FROM pg_temp.held();
SELECT n, r.* FROM (VALUES (1, $$redeem(pg_temp.m('cid'), 10, 'c1', cashier => '7')$$), (2, $$redeem(pg_temp.m('dan'), 10, 'd1', cashier => '7')$$)) c (n, call), pg_temp.refused('SELECT loyalty.' || call) r ORDER BY n;
SELECT loyalty.leave_household(pg_temp.m('cid'), reason => 'moved') IS NOT NULL AS left;
SELECT r.* FROM pg_temp.refused($$SELECT loyalty.redeem(pg_temp.m('cid'), 0, 'c2', cashier => '7')$$) r;
-- the role that connected
SELECT loyalty.set_cashier(pg_temp.p(), session_user::text, pg_temp.m('dan'));
SELECT n, r.* FROM (VALUES (1, $$adjust(pg_temp.m('dan'), 10, 'me')$$), (2, $$adjust(pg_temp.m('bea'), 10, 'you')$$), (3, $$transfer(pg_temp.m('bea'), pg_temp.m('dan'), 10, 't1')$$), (4, $$transfer(pg_temp.m('dan'), pg_temp.m('bea'), 10, 't2')$$), (5, $$redeem(pg_temp.m('dan'), 10, 'd2')$$)) c (n, call),
    (SELECT session_user::text AS me) u, LATERAL (SELECT x.state, replace(x.message, u.me, 'ME') AS message FROM pg_temp.refused('SELECT loyalty.' || call) x) r ORDER BY n;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('dan'), '2024-02-03', 10, 'staff', 'mine');
SELECT reference, reason FROM pg_temp.held();
-- neither opening balances, imports, holds of others and debts, nor the approval of one's own award
SELECT loyalty.set_cashier(pg_temp.p(), session_user::text, NULL);
SELECT held FROM loyalty.hold(pg_temp.m('dan'), 10, 'd3');
SELECT loyalty.set_cashier(pg_temp.p(), session_user::text, pg_temp.m('dan'));
SELECT n, r.state FROM (VALUES (1, $$capture(pg_temp.m('dan'), 'd3')$$), (2, $$open_balance(pg_temp.m('dan'), 10, 'me')$$), (3, $$import_entry(pg_temp.m('dan'), 10, '2024-01-02', 'me', 'i1')$$), (4, $$reinstate(pg_temp.m('dan'), 'i2', 'me')$$), (5, $$write_off(pg_temp.m('dan'), 'me', 'i3')$$),
    (6, $$approve((SELECT purchase_id FROM loyalty.purchase WHERE source = 'staff' AND reference = 'mine'), 'me')$$), (7, $$release_award((SELECT purchase_id FROM loyalty.purchase WHERE source = 'staff' AND reference = 'mine'))$$), (8, $$open_balance(pg_temp.m('bea'), 10, 'you')$$), (9, $$release(pg_temp.m('dan'), 'd3')$$)) c (n, call),
    pg_temp.refused('SELECT loyalty.' || call) r ORDER BY n;
SELECT reference, reason FROM pg_temp.held();
SELECT loyalty.set_cashier(pg_temp.p(), session_user::text, NULL);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('dan'), '2024-02-03', 10, 'staff', 'no more mine');
SELECT reference FROM pg_temp.held();
-- cashiers that stand out
SELECT count(r.redeemed) FROM (VALUES ('x', 'bea', 6, 50), ('y', 'bea', 1, 10), ('z', 'dan', 1, 20), ('w', 'dan', 2, 10)) c (cashier, who, times, points), generate_series(1, c.times) n, LATERAL loyalty.redeem(pg_temp.m(who), c.points, format('u %s %s', c.cashier, n), cashier => c.cashier) r;
SELECT cashier, redemptions, points, adjustments, members, top_member_points FROM loyalty.cashier_activity WHERE program_id = pg_temp.p() AND cashier IN ('x', 'y', 'z', 'w') ORDER BY 1;
SELECT cashier, redemptions, points, top_member_share, others, median_redemptions, median_points, findings FROM loyalty.unusual_cashiers WHERE program_id = pg_temp.p() AND cashier <> session_user ORDER BY 1;
-- an award that waited for a person is asked about by the limits when it is approved: it is cut, and counts
SELECT loyalty.add_limit(pg_temp.p(), 'fifty a day', 50, '1 day', measure => 'points', active_from => '2024-05-01') > 0 AS points, loyalty.add_limit(pg_temp.p(), 'five a day', 5, '1 day', verdict => 'reject', active_from => '2024-05-01', subject => $$member.external_id || purchase.store$$) > 0 AS rejects;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, source, reference) SELECT pg_temp.m('ann'), '2024-05-02 10:00+00', 10, '{"cashier": "7"}', 'staff', 'limited ' || n FROM generate_series(1, 3) n;
SELECT loyalty.approve(purchase_id, 'seen') AS posted FROM loyalty.purchase WHERE source = 'staff' AND reference = 'limited 1';
SELECT loyalty.approve(array_agg(purchase_id), 'seen') AS cut FROM loyalty.purchase WHERE source = 'staff' AND reference IN ('limited 2', 'limited 3');
SELECT p.reference, e.points, e.detail ->> 'wanted' AS wanted FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'staff' AND p.reference LIKE 'limited %' AND e.account_id < 5000000000000000 ORDER BY 1;
SELECT u.granted, u.active FROM loyalty.limit_use u JOIN loyalty.purchase p ON p.purchase_id = u.source_id WHERE p.source = 'staff' AND p.reference LIKE 'limited %' ORDER BY p.reference;
-- one that rejects does so
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, store, attributes, source, reference) SELECT pg_temp.m('ann'), '2024-05-08 10:00+00', 1, 'S', jsonb_build_object('cashier', CASE WHEN n = 6 THEN '7' ELSE '8' END), 'staff', 'many ' || n FROM generate_series(1, 6) n;
SELECT r.state, r.message FROM loyalty.purchase p, pg_temp.refused(format('SELECT loyalty.approve(%s, ''seen'')', p.purchase_id)) r WHERE p.source = 'staff' AND p.reference = 'many 6';
-- what the limit itself let wait is a person's word; what comes later than a limit remembers, too
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, source, reference) VALUES (pg_temp.m('ann'), '2024-05-02 11:00+00', 10, '{"cashier": "8"}', 'staff', 'over'), (pg_temp.m('ann'), '2024-05-03 10:00+00', 10, '{"cashier": "7"}', 'staff', 'old'), (pg_temp.m('ann'), '2024-05-20 10:00+00', 10, NULL, 'staff', 'newer');
SELECT q.reference, q.reason FROM loyalty.review_queue q WHERE q.program = 'Staff' AND q.reference IN ('over', 'old') ORDER BY 1;
SELECT reference, loyalty.approve(purchase_id, 'seen') AS posted FROM loyalty.purchase WHERE source = 'staff' AND reference IN ('over', 'old') ORDER BY 1;
SELECT * FROM loyalty.check();
