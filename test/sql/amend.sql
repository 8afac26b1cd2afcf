-- purchases that move, households and merges: nothing is kept twice, given to another, or forgotten
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
    message := regexp_replace(message, '[0-9]{3,}|member [0-9]+|voucher [0-9]+|(purchase|household|redemption) [0-9]+', 'N', 'g');
    RETURN NEXT;
END
$$;
SELECT loyalty.create_program('Amend', currency => 'GBP', point_value => 0.01, expiry => 'never', tier_window => 'lifetime') > 0 AS made;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name = 'Amend' AND m.external_id = who $$;
CREATE FUNCTION pg_temp.p(wallet text DEFAULT NULL) RETURNS integer LANGUAGE sql AS $$ SELECT coalesce(w.program_id, p.program_id) FROM loyalty.program p LEFT JOIN loyalty.program w ON w.wallet_of = p.program_id AND w.wallet = $1 WHERE p.name = 'Amend' $$;
CREATE FUNCTION pg_temp.r(member text, key text) RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce((SELECT r.redemption_id FROM loyalty.redemption r WHERE r.member_id = pg_temp.m(member) AND r.key = $2), (SELECT h.hold_id FROM loyalty.account a, unnest(a.holds) h WHERE a.account_id = pg_temp.m(member) AND h.key = $2)) $$;
SELECT loyalty.add_tier(pg_temp.p(), 'bronze', 0, 'spend') > 0, loyalty.add_tier(pg_temp.p(), 'gold', 500, 'spend') > 0, loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount * 10') > 0;
SELECT count(loyalty.enroll(pg_temp.p(), 'm' || n, '2024-01-01')) FROM generate_series(1, 12) n;
CREATE FUNCTION pg_temp.own() RETURNS TABLE (member text, available bigint, tier text) LANGUAGE sql AS $$
    SELECT m.external_id, loyalty.total(a.lots), t.name FROM loyalty.member m JOIN loyalty.program p USING (program_id) JOIN loyalty.account a ON a.account_id = m.member_id LEFT JOIN loyalty.tier t USING (tier_id) WHERE p.name = 'Amend' $$;
SELECT loyalty.create_household(pg_temp.p(), h) > 0 AS made FROM unnest('{h1,h2,h3}'::text[]) h;
-- a purchase that was moved, and whose two members then share an account, comes back whole
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('m2'), 100, 'amend', 'a');
UPDATE loyalty.purchase SET member_id = pg_temp.m('m3') WHERE source = 'amend' AND reference = 'a';
SELECT loyalty.join_household(pg_temp.m('m2'), pg_temp.m('h1')), loyalty.join_household(pg_temp.m('m3'), pg_temp.m('h1'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('amend', 'a');
SELECT d.points_taken, d.complete FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) WHERE p.source = 'amend' AND p.reference = 'a';
-- one that moves within a household says so
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('m2'), 60, 'amend', 'b');
UPDATE loyalty.purchase SET member_id = pg_temp.m('m3') WHERE source = 'amend' AND reference = 'b';
UPDATE loyalty.purchase SET member_id = pg_temp.m('m3') WHERE source = 'amend' AND reference = 'b';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('amend', 'b', 10);
SELECT e.kind, e.points, (e.detail ->> 'member')::bigint = pg_temp.m('m3') AS of_third FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'amend' AND p.reference = 'b' ORDER BY e.seq;
SELECT d.points_taken FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) WHERE p.source = 'amend' AND p.reference = 'b';
SELECT * FROM loyalty.check();
-- a wallet earns with its member, never alone, and is not merged alone
SELECT loyalty.add_wallet(pg_temp.p(), 'W') > 0 AS made;
SELECT loyalty.add_rule(pg_temp.p('W'), 'w', 'purchase', 'base', '5') > 0;
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('m4'), 10, 'amend', 'c');
SELECT r.* FROM unnest(ARRAY['INSERT INTO loyalty.purchase (member_id, amount) VALUES (%s, 10)', 'INSERT INTO loyalty.purchase (member_id, amount, status) VALUES (%s, 10, ''void'')', 'INSERT INTO loyalty.activity (member_id, kind) VALUES (%s, ''x'')',
    'UPDATE loyalty.purchase SET member_id = %s WHERE source = ''amend'' AND reference = ''c''', 'SELECT loyalty.merge_members(%s, pg_temp.m(''m5''), ''x'')']) s, pg_temp.refused(format(s, loyalty.wallet(pg_temp.m('m4'), 'W'))) r;
-- households are not merged
SELECT r.* FROM unnest('{h1,m6}'::text[], '{m6,h1}'::text[]) AS u (a, b), pg_temp.refused(format('SELECT loyalty.merge_members(%s, %s, ''x'')', pg_temp.m(a), pg_temp.m(b))) r;
-- a purchase is paid by a redemption or a hold of whoever buys, and by one alone
SELECT loyalty.adjust(pg_temp.m(m), 500, 'gift', 'g') > 0 AS given FROM unnest('{m2,m5,m6}'::text[]) m;
SELECT redeemed FROM loyalty.redeem(pg_temp.m('m5'), 100, 'r');
SELECT held FROM loyalty.hold(pg_temp.m('m5'), 100, 'h', '1 hour');
SELECT redeemed FROM loyalty.redeem(pg_temp.m('m2'), 100, 'f');
SELECT x.* FROM (VALUES (1, 'm6', pg_temp.r('m5', 'r')), (2, NULL, pg_temp.r('m5', 'r')), (3, 'm5', 1), (4, 'm6', pg_temp.r('m5', 'h'))) AS v (n, who, id),
    pg_temp.refused(format('INSERT INTO loyalty.purchase (member_id, amount, paid_with_points, redemption_id) VALUES (%L, 5, 1, %s)', pg_temp.m(v.who), v.id)) x ORDER BY n;
INSERT INTO loyalty.purchase (member_id, amount, paid_with_points, redemption_id, source, reference) VALUES (pg_temp.m('m5'), 5, 1, pg_temp.r('m5', 'r'), 'amend', 'd'), (pg_temp.m('m5'), 5, 1, pg_temp.r('m5', 'h'), 'amend', 'e'), (pg_temp.m('m3'), 5, 1, pg_temp.r('h1', 'f'), 'amend', 'f');
SELECT * FROM pg_temp.refused(format('INSERT INTO loyalty.purchase (member_id, amount, paid_with_points, redemption_id) VALUES (%s, 5, 1, %s)', pg_temp.m('m5'), pg_temp.r('m5', 'r')));
SELECT * FROM pg_temp.refused($$UPDATE loyalty.purchase SET member_id = pg_temp.m('m6') WHERE source = 'amend' AND reference = 'd'$$);
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'amend' AND reference = 'd';
INSERT INTO loyalty.purchase (member_id, amount, paid_with_points, redemption_id, source, reference) VALUES (pg_temp.m('m5'), 6, 1, pg_temp.r('m5', 'r'), 'amend', 'd2');
SELECT * FROM pg_temp.refused($$UPDATE loyalty.purchase SET status = 'completed' WHERE source = 'amend' AND reference = 'd'$$);
SELECT count(*) FROM loyalty.check();
SELECT loyalty.release(pg_temp.m('m5'), 'h');
SELECT count(*) FROM loyalty.check();
-- the tier of a household opens its rewards to its members; it is the household's alone
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('m7'), 900, 'amend', 'g');
SELECT loyalty.add_reward(pg_temp.p(), 'G', 'badge', 0, min_tier => 'gold') > 0;
SELECT loyalty.join_household(pg_temp.m('m7'), pg_temp.m('h2')), loyalty.join_household(pg_temp.m('m8'), pg_temp.m('h2'));
SELECT count(*) FROM loyalty.claim(pg_temp.m('m8'), 'G', 'x');
SELECT loyalty.leave_household(pg_temp.m('m7')), loyalty.join_household(pg_temp.m('m7'), pg_temp.m('h3'));
SELECT member, tier FROM pg_temp.own() WHERE member IN ('m7', 'm8', 'h2', 'h3') ORDER BY 1;
SELECT c.cause, t.name FROM loyalty.tier_change c LEFT JOIN loyalty.tier t USING (tier_id) WHERE c.account_id = pg_temp.m('m7') ORDER BY c.number;
-- nobody leaves a household with points of it on hold
SELECT held FROM loyalty.hold(pg_temp.m('m8'), 50, 'hold');
SELECT * FROM pg_temp.refused($$SELECT loyalty.leave_household(pg_temp.m('m8'))$$);
SELECT redeemed FROM loyalty.capture(pg_temp.m('m8'), 'hold');
SELECT loyalty.leave_household(pg_temp.m('m8'));
SELECT restored FROM loyalty.undo(pg_temp.m('m8'), 'hold');
-- who was merged brings vouchers along, and what was claimed of limited rewards and coupons
SELECT loyalty.add_reward(pg_temp.p(), 'once', 'product', 0, sku => 'MUG', member_limit => 1) > 0;
SELECT loyalty.add_coupon_pool(pg_temp.p(), 'welcome', 'discount_amount', 1, uses => 'multi', max_per_member => 1) > 0;
SELECT loyalty.import_coupons(pg_temp.p(), 'welcome', '{HELLO1}') >= 0;
SELECT count(*) FROM loyalty.claim(pg_temp.m('m9'), 'once', 'x');
SELECT count(*) FROM loyalty.use_coupon('HELLO1', pg_temp.m('m9'), 'u');
SELECT length(token) AS letters FROM loyalty.make_voucher(pg_temp.p(), 'points', 50, pg_temp.m('m9'), key => 'v');
SELECT loyalty.merge_members(pg_temp.m('m9'), pg_temp.m('m10'), 'same person') AS moved;
SELECT * FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('m10'), 'once', 'y')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.use_coupon('HELLO1', pg_temp.m('m10'), 'u2')$$);
SELECT limit_left FROM loyalty.rewards_for(pg_temp.m('m10')) WHERE reward = 'once';
SELECT status, usable FROM loyalty.vouchers(pg_temp.m('m10'));
SELECT kind FROM loyalty.redeem_voucher((SELECT loyalty.voucher_token(voucher_id) FROM loyalty.voucher WHERE program_id = pg_temp.p() AND key = 'v'), 'w', pg_temp.m('m10'));
-- lines of which something came back keep their price
INSERT INTO loyalty.purchase (member_id, amount, source, reference, lines) VALUES (pg_temp.m('m6'), 20, 'amend', 'l', loyalty.lines('[{"sku": "TOY", "quantity": 2, "unit_price": 5}, {"sku": "COF", "unit_price": 10}]'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('amend', 'l', loyalty.return_lines('[{"line": 1, "quantity": 1}]'));
SELECT * FROM pg_temp.refused($$UPDATE loyalty.purchase SET amount = 50, lines = loyalty.lines('[{"sku": "TOY", "quantity": 2, "unit_price": 20}, {"sku": "COF", "unit_price": 10}]') WHERE source = 'amend' AND reference = 'l'$$);
UPDATE loyalty.purchase SET amount = 23, lines = loyalty.lines('[{"sku": "TOY", "quantity": 2, "unit_price": 5}, {"sku": "COF", "unit_price": 10}, {"sku": "MUG", "unit_price": 3}]') WHERE source = 'amend' AND reference = 'l';
-- a closed member keeps what its challenge gave, on the day that is right now
SELECT loyalty.add_challenge(pg_temp.p(), 'week', 'visits', 2, 50, 'week', active_from => '2026-01-01') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('m11'), '2026-11-10 12:00', 1, 'amend', 'w1'), (pg_temp.m('m11'), '2026-11-11 12:00', 1, 'amend', 'w2'), (pg_temp.m('m11'), '2026-11-12 12:00', 1, 'amend', 'w3');
SELECT loyalty.close_member(pg_temp.m('m11'));
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'amend' AND reference = 'w1';
SELECT granted, reached_at FROM loyalty.challenge_grant WHERE member_id = pg_temp.m('m11');
-- names fit where they are looked up, and times into a calendar
SELECT r.state FROM unnest(ARRAY['SELECT loyalty.add_wallet(pg_temp.p(), :n)', 'SELECT loyalty.add_reward(pg_temp.p(), :n, ''badge'', 0)', 'SELECT loyalty.set_cashier_limit(pg_temp.p(), :n)', 'SELECT loyalty.create_program(:n)',
    'SELECT loyalty.adjust(pg_temp.m(''m1''), 5, ''x'', NULL, ''1713-01-01'')', 'SELECT loyalty.import_entry(pg_temp.m(''m1''), 5, now(), ''x'', ''i'', visits => 9223372036854775807)', 'SELECT loyalty.challenges(pg_temp.m(''m1''), ''infinity'')']) s,
    pg_temp.refused(replace(s, ':n', quote_literal((SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) i)))) r;
-- a comment in a mapping ends where it ends
CREATE SCHEMA amend;
CREATE TABLE amend.header (id integer PRIMARY KEY, member text, total numeric);
CREATE TABLE amend.line (header_id integer, price numeric);
SELECT loyalty.attach('amend.header', 'purchase', '{"member": "member", "reference": "id::text", "amount": "total"}', pg_temp.p(), lines => 'amend.line', lines_mapping => '{"amount": "price -- net"}', lines_key => 'header_id', header_key => 'id') > 0;
BEGIN;
INSERT INTO amend.line VALUES (1, 7);
INSERT INTO amend.header VALUES (1, 'm12', 7);
COMMIT;
SELECT member, available FROM pg_temp.own() WHERE member = 'm12';
SELECT loyalty.detach('amend.header');
DROP SCHEMA amend CASCADE;
SELECT * FROM loyalty.check();
