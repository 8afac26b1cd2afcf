-- challenges: progress over periods, streaks, what a return rolls back, merged members, every refusal
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name ~ '^Challenge' AND m.external_id = who $$;
CREATE FUNCTION pg_temp.g(program text) RETURNS integer LANGUAGE sql AS $$ SELECT p.program_id FROM loyalty.program p WHERE p.name = program $$;
CREATE FUNCTION pg_temp.c(challenge text) RETURNS integer LANGUAGE sql AS $$ SELECT c.challenge_id FROM loyalty.challenge c WHERE c.name = challenge $$;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    message := regexp_replace(message, '(programme|member|challenge|transaction) [0-9]+', '\1 N', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.progress(who text) RETURNS TABLE (challenge text, period_from date, progress numeric, reached_on date, granted boolean, changes integer, points bigint) LANGUAGE sql AS $$
    SELECT c.name, period_from, p.progress, p.reached_at::date, g.granted, g.changes, (SELECT sum(e.points) FROM loyalty.entry e WHERE e.source_id = g.grant_id)
    FROM (SELECT * FROM loyalty.challenge_progress WHERE member_id = pg_temp.m(who)) p
        FULL JOIN (SELECT * FROM loyalty.challenge_grant WHERE member_id = pg_temp.m(who)) g USING (challenge_id, period_from) JOIN loyalty.challenge c USING (challenge_id) ORDER BY 1, 2 $$;
SELECT loyalty.create_program('Challenges', time_zone => 'America/New_York', currency => 'USD', expiry => 'never', hold_days => 5, points_scale => 1) > 0;
SELECT loyalty.add_rule(pg_temp.g('Challenges'), 'base', 'purchase', 'base', 'purchase.amount') > 0, loyalty.add_rule(pg_temp.g('Challenges'), 'review', 'activity', 'base', '2', 'activity.kind = ''review''') > 0;
SELECT loyalty.add_tier(pg_temp.g('Challenges'), 'Silver', 500, 'spend') > 0;
INSERT INTO loyalty.product (program_id, sku, category, excluded) VALUES (pg_temp.g('Challenges'), 'COFFEE', 'drinks', false), (pg_temp.g('Challenges'), 'TEA', 'drinks', false), (pg_temp.g('Challenges'), 'CARD', 'gifts', true);
SELECT count(loyalty.enroll(pg_temp.g('Challenges'), n, '2025-01-01')) FROM unnest('{ann,bob,cid,dan,eve,fay,gil}'::text[]) n;
-- nothing is counted before there is a challenge
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('ann'), '2026-03-02 12:00+00', 10, 'challenge test', 'early');
SELECT count(*) FROM loyalty.challenge_item;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'three visits a week', 'visits', 3, 500, 'week', active_from => '2026-03-02 05:00+00') > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'two weeks in a row', 'visits', 1, 1000, 'week', 2, active_from => '2026-03-02 05:00+00', max_times => 2) > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'spring spend', 'spend', 200, 2000, badge => 'Spring', active_from => '2026-03-01 05:00+00', active_until => '2026-06-01 04:00+00') > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'drinks of the month', 'units', 5, 100, 'month', condition => 'product.category = ''drinks''', active_from => '2026-03-01 05:00+00') > 0;
-- by visits, with the edges of the zone's week: Monday 2 March 05:00 UTC begins it
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES
    (pg_temp.m('ann'), '2026-03-02 04:59:59+00', 10, 'challenge test', 'a0'), (pg_temp.m('ann'), '2026-03-02 05:00+00', 10, 'challenge test', 'a1'),
    (pg_temp.m('ann'), '2026-03-09 03:59:59+00', 10, 'challenge test', 'a2'), (pg_temp.m('ann'), '2026-03-09 04:00+00', 10, 'challenge test', 'a3');
SELECT * FROM pg_temp.progress('ann');
-- what was there before the challenge counts once it is asked to
CALL loyalty.count_challenges(pg_temp.g('Challenges'), 2);
SELECT * FROM pg_temp.progress('ann');
SELECT seq, kind, points, description, available_from FROM loyalty.statement(pg_temp.m('ann')) WHERE kind = 'challenge';
-- doing it again does nothing
CALL loyalty.count_challenges(pg_temp.g('Challenges'));
UPDATE loyalty.purchase SET store = 'x' WHERE source = 'challenge test';
SELECT count(*) FROM loyalty.entry WHERE account_id = (SELECT pg_temp.m('ann')) AND kind = 'challenge';
-- a return takes progress and bonus back to the point; a later purchase gives them again
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('challenge test', 'a1');
SELECT * FROM pg_temp.progress('ann');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('ann'), '2026-03-05', 10, 'challenge test', 'a4');
SELECT * FROM pg_temp.progress('ann');
-- void, another day, another member, an amount
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'challenge test' AND reference = 'a4';
SELECT * FROM pg_temp.progress('ann') WHERE challenge = 'three visits a week';
UPDATE loyalty.purchase SET status = 'completed' WHERE source = 'challenge test' AND reference = 'a4';
UPDATE loyalty.purchase SET occurred_at = '2026-03-06' WHERE source = 'challenge test' AND reference = 'a4';
SELECT * FROM pg_temp.progress('ann') WHERE challenge = 'three visits a week';
UPDATE loyalty.purchase SET member_id = pg_temp.m('bob') WHERE source = 'challenge test' AND reference = 'a4';
SELECT * FROM pg_temp.progress('ann') WHERE challenge = 'three visits a week';
SELECT * FROM pg_temp.progress('bob');
UPDATE loyalty.purchase SET member_id = NULL WHERE source = 'challenge test' AND reference = 'a4';
SELECT * FROM pg_temp.progress('bob');
UPDATE loyalty.purchase SET amount = 300 WHERE source = 'challenge test' AND reference = 'a3';
SELECT * FROM pg_temp.progress('ann') WHERE challenge = 'spring spend';
SELECT badge, challenge FROM loyalty.member_badge WHERE member_id = pg_temp.m('ann');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('challenge test', 'a3', 130.01);
SELECT * FROM pg_temp.progress('ann') WHERE challenge = 'spring spend';
SELECT count(*) FROM loyalty.member_badge;
SELECT * FROM loyalty.check();
-- units of lines, with what came back by piece, by money and on the order; excluded articles count nothing
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, shipping, discount, tax, lines, source, reference) VALUES (pg_temp.m('bob'), '2026-03-10', 42.5, 5, 2.5, 3.3, loyalty.lines('[{"sku": "COFFEE", "quantity": 4, "unit_price": 5}, {"sku": "TEA", "quantity": 2.5, "unit_price": 4}, {"sku": "CARD", "quantity": 9, "amount": 10}, {"sku": "?", "amount": 0}]'), 'challenge test', 'b1');
SELECT * FROM pg_temp.progress('bob');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('challenge test', 'b1', loyalty.return_lines('[{"sku": "COFFEE", "quantity": 1}, {"sku": "TEA", "amount": 1}]'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('challenge test', 'b1', 7.77);
SELECT * FROM pg_temp.progress('bob');
SELECT k.amount, k.tax, k.shipping, k.discount, l.* FROM loyalty.purchase p, loyalty.kept_purchase(p) k, unnest(k.lines) l WHERE p.source = 'challenge test' AND p.reference = 'b1';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('challenge test', 'b1', loyalty.return_lines('[{"sku": "COFFEE", "quantity": 2}]'));
SELECT * FROM pg_temp.progress('bob') WHERE challenge = 'drinks of the month';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('challenge test', 'b1');
SELECT * FROM pg_temp.progress('bob') WHERE challenge = 'drinks of the month';
-- a return or a discount that leaves hardly more than the shipping
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, shipping, lines, source, reference) VALUES (pg_temp.m('bob'), '2026-03-12', 25, 5, loyalty.lines('[{"sku": "COFFEE", "quantity": 3, "unit_price": 6.666666666, "amount": 20}]'), 'challenge test', 'b2');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('challenge test', 'b2', loyalty.return_lines('[{"sku": "COFFEE", "quantity": 1}]'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('challenge test', 'b2', 15);
SELECT k.amount, k.shipping, k.discount, l.* FROM loyalty.purchase p, loyalty.kept_purchase(p) k, unnest(k.lines) l WHERE p.source = 'challenge test' AND p.reference = 'b2';
SELECT * FROM loyalty.check();
-- streaks: broken, mended by what comes late, twice at most, moved to the earliest
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m('cid'), at, 1, 'challenge test', 'c ' || at::date FROM unnest('{2026-03-10,2026-03-24,2026-03-31,2026-04-07,2026-04-14}'::timestamptz[]) at;
SELECT * FROM pg_temp.progress('cid') WHERE challenge = 'two weeks in a row';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('cid'), '2026-03-17', 1, 'challenge test', 'late');
SELECT * FROM pg_temp.progress('cid') WHERE challenge = 'two weeks in a row';
SELECT name, period_from, streak_so_far, times, points_given, open FROM loyalty.challenges(pg_temp.m('cid'), '2026-04-15') WHERE streak > 1;
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'challenge test' AND reference = 'late';
SELECT * FROM pg_temp.progress('cid') WHERE challenge = 'two weeks in a row';
SELECT sum(points) FROM loyalty.entry WHERE account_id = (SELECT pg_temp.m('cid')) AND kind = 'challenge';
SELECT * FROM loyalty.check();
-- days, points, activities and their values, conditions on the member, joining
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'four days', 'days', 4, 40, 'month', active_from => '2026-04-01') > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'points of the day', 'points', 30, 30, 'day', active_from => '2026-04-01') > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'two reviews', 'activities', 2, 20, 'quarter', condition => 'activity.kind = ''review''', active_from => '2026-04-01') > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'ten kilometres', 'value', 10, 10, 'year', condition => 'activity.kind = ''walk''', active_from => '2026-04-01') > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'silver visits', 'visits', 1, 70, 'month', condition => 'member.tier_rank >= 1', active_from => '2026-04-01') > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'a coffee', 'visits', 2, 0, 'once', event => 'line', condition => 'line.sku = ''COFFEE''', badge => 'Barista', opt_in => true, active_from => '2026-04-01') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('dan'), '2026-04-02 14:00', 20, 'challenge test', 'd1'), (pg_temp.m('dan'), '2026-04-02 16:00', 10, 'challenge test', 'd2'), (pg_temp.m('dan'), '2026-04-03', 5, 'challenge test', 'd3'), (pg_temp.m('dan'), '2026-04-03 12:00', 500, 'challenge test', 'd4'), (pg_temp.m('dan'), '2026-04-04 12:00', 5, 'challenge test', 'd5');
INSERT INTO loyalty.activity (member_id, occurred_at, kind, value, source, reference) VALUES (pg_temp.m('dan'), '2026-04-05', 'review', NULL, 'challenge test', 'r1'), (pg_temp.m('dan'), '2026-05-05', 'review', 1, 'challenge test', 'r2'), (pg_temp.m('dan'), '2026-05-06', 'walk', 9.5, 'challenge test', 'w1'), (pg_temp.m('dan'), '2026-05-07', 'walk', -3, 'challenge test', 'w2'), (pg_temp.m('dan'), '2026-05-08', 'walk', 0.75, 'challenge test', 'w3');
SELECT * FROM pg_temp.progress('dan') WHERE challenge IN ('four days', 'points of the day', 'two reviews', 'ten kilometres', 'silver visits');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('challenge test', 'd2', 0.5);
UPDATE loyalty.activity SET status = 'void' WHERE source = 'challenge test' AND reference = 'r1';
UPDATE loyalty.activity SET value = 0.4 WHERE source = 'challenge test' AND reference = 'w3';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('dan'), '2026-04-05 12:00', 5, 'challenge test', 'd6');
SELECT * FROM pg_temp.progress('dan') WHERE challenge IN ('four days', 'points of the day', 'two reviews', 'ten kilometres', 'silver visits');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines) SELECT pg_temp.m('eve'), now(), 10, loyalty.lines('[{"sku": "COFFEE", "amount": 5}, {"sku": "COFFEE", "amount": 5}]');
SELECT count(*) FROM pg_temp.progress('eve') WHERE challenge = 'a coffee';
SELECT loyalty.join_challenge(pg_temp.m('eve'), pg_temp.c('a coffee')) = loyalty.join_challenge(pg_temp.m('eve'), pg_temp.c('a coffee'));
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines) SELECT pg_temp.m('eve'), now(), 10, loyalty.lines('[{"sku": "COFFEE", "amount": 5}, {"sku": "COFFEE", "amount": 5}]') FROM generate_series(1, 2);
SELECT challenge, progress, granted, points FROM pg_temp.progress('eve') WHERE challenge = 'a coffee';
SELECT name, metric, period, progress, goal, points, badge, times, open FROM loyalty.challenges(pg_temp.m('eve')) WHERE name ~ 'coffee|spend';
SELECT c ->> 'name' AS name, c ->> 'progress' AS progress FROM jsonb_array_elements(loyalty.cabinet(pg_temp.m('eve')) -> 'challenges') c WHERE c ->> 'badge' IS NOT NULL ORDER BY 1;
SELECT * FROM loyalty.check();
-- a retired challenge: what was given stays, a return still takes it back, the name is free again
SELECT loyalty.retire_challenge(pg_temp.g('Challenges'), 'silver visits', '2026-04-05', 'over');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('dan'), '2026-04-06', 5, 'challenge test', 'd7');
SELECT * FROM pg_temp.progress('dan') WHERE challenge = 'silver visits';
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'silver visits', 'visits', 10, 70) > 0;
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'challenge test' AND reference IN ('d5', 'd6', 'd7');
SELECT * FROM pg_temp.progress('dan') WHERE challenge = 'silver visits';
-- merged members: their progress counts together, what both were given is taken back once
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m(who), at, 90, 'challenge test', who || at::date FROM unnest('{fay,gil}'::text[]) who, unnest('{2026-03-03,2026-03-04,2026-03-05}'::timestamptz[]) at;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('fay'), '2026-03-24', 1, 'challenge test', 'f1'), (pg_temp.m('gil'), '2026-03-31', 1, 'challenge test', 'g1');
SELECT loyalty.merge_members(pg_temp.m('fay'), pg_temp.m('gil'), 'the same');
SELECT * FROM pg_temp.progress('fay');
SELECT * FROM pg_temp.progress('gil');
SELECT loyalty.merge_members(pg_temp.m('fay'), pg_temp.m('gil'), 'the same');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('challenge test', 'f1');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) SELECT 'challenge test', reference FROM loyalty.purchase WHERE source = 'challenge test' AND reference ~ '^(fay|gil)';
SELECT * FROM pg_temp.progress('gil');
SELECT sum(e.points) FROM loyalty.entry e JOIN loyalty.challenge_grant g ON g.grant_id = e.source_id WHERE g.member_id IN ((SELECT pg_temp.m('fay')), (SELECT pg_temp.m('gil')));
SELECT * FROM loyalty.check();
-- a household's member has its own progress, and the household the points; who is closed is given nothing more
SELECT loyalty.join_household(pg_temp.m('eve'), loyalty.create_household(pg_temp.g('Challenges'), 'house')) > 0 AS brought;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m('eve'), '2026-03-10', 70, 'challenge test', 'e' || n FROM generate_series(1, 3) n;
SELECT e.points, e.reason, e.detail = jsonb_build_object('member', (SELECT pg_temp.m('eve'))) AS of_eve FROM loyalty.entry e WHERE e.account_id = (SELECT pg_temp.m('house')) AND e.kind = 'challenge' ORDER BY e.seq;
SELECT loyalty.leave_household(pg_temp.m('eve'), 0);
SELECT loyalty.close_member(pg_temp.m('eve'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) SELECT 'challenge test', 'e' || n FROM generate_series(1, 3) n;
SELECT sum(e.points) FROM loyalty.entry e WHERE e.account_id = (SELECT pg_temp.m('house')) AND e.kind = 'challenge';
SELECT * FROM loyalty.check();
-- points that were spent: the policy decides
SELECT loyalty.create_program('Challenges forbid', currency => 'USD', expiry => 'never', negative => 'forbid', point_value => 0.01) > 0;
SELECT loyalty.add_rule(pg_temp.g('Challenges forbid'), 'base', 'purchase', 'base', '0') > 0, loyalty.add_challenge(pg_temp.g('Challenges forbid'), 'one', 'visits', 1, 100, 'day', active_from => '2026-01-01') > 0, loyalty.enroll(pg_temp.g('Challenges forbid'), 'hal', '2025-01-01') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('hal'), '2026-02-01 12:00', 1, 'challenge test', 'h1');
SELECT redeemed FROM loyalty.redeem(pg_temp.m('hal'), 100, 'all');
SELECT state, message FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('challenge test', 'h1')$$);
-- moved to another time of its day nothing is posted, moved to another day it is given there first
UPDATE loyalty.purchase SET occurred_at = '2026-02-01 13:00' WHERE source = 'challenge test' AND reference = 'h1';
UPDATE loyalty.purchase SET occurred_at = '2026-02-02 13:00' WHERE source = 'challenge test' AND reference = 'h1';
SELECT seq, kind, points, lots FROM loyalty.entry WHERE account_id = (SELECT pg_temp.m('hal')) ORDER BY seq;
SELECT * FROM loyalty.check();
-- a condition that raises: refuses the sale, or counts nothing where the programme says so
SELECT loyalty.add_challenge(pg_temp.g('Challenges forbid'), 'raises', 'visits', 1, 1, condition => '1 / (purchase.amount - 13) > 0') > 0;
SELECT state, message FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount) VALUES (pg_temp.m('hal'), 13)$$);
UPDATE loyalty.program SET on_rule_error = 'hold' WHERE program_id = pg_temp.g('Challenges forbid');
-- (with a warning that names the purchase)
SET client_min_messages = error;
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('hal'), 13, 'challenge test', 'h2');
SELECT count(*) FROM loyalty.challenge_item i JOIN loyalty.purchase p ON p.purchase_id = i.source_id WHERE p.reference = 'h2' AND p.source = 'challenge test';
-- a purchase whose award is held counts when that is released
SELECT loyalty.add_rule(pg_temp.g('Challenges forbid'), 'raises', 'purchase', 'bonus', '7 / (purchase.amount - 14) + 50') > 0, loyalty.add_challenge(pg_temp.g('Challenges forbid'), 'earner', 'points', 40, 5, active_from => '2026-02-03') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('hal'), '2026-02-03', 14, 'challenge test', 'h3');
SELECT * FROM pg_temp.progress('hal') WHERE challenge IN ('earner', 'one');
SELECT loyalty.replace_rule(pg_temp.g('Challenges forbid'), 'raises', '50', from_at => '2026-02-01') > 0;
SELECT loyalty.release_award(p.purchase_id) FROM loyalty.purchase p WHERE p.source = 'challenge test' AND p.reference = 'h3';
SELECT * FROM pg_temp.progress('hal') WHERE challenge IN ('earner');
SELECT * FROM loyalty.check();
-- a wallet has no challenges; what it earns of a purchase are other points
SELECT loyalty.add_wallet(pg_temp.g('Challenges'), 'Miles', policies => '{"expiry": "never"}') > 0;
SELECT loyalty.add_rule(pg_temp.g('Challenges: Miles'), 'miles', 'purchase', 'base', '1000') > 0, loyalty.add_rule(pg_temp.g('Challenges: Miles'), 'steps', 'activity', 'base', '7') > 0;
SELECT loyalty.enroll(pg_temp.g('Challenges'), 'ida', '2025-01-01') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m('ida'), '2026-04-07 12:00', 10, 'challenge test', 'i' || n FROM generate_series(1, 3) n;
SELECT * FROM pg_temp.progress('ida');
SELECT e.account_id = (SELECT pg_temp.m('ida')) AS own, e.kind, sum(e.points) FROM loyalty.entry e WHERE e.account_id IN ((SELECT pg_temp.m('ida')), loyalty.wallet((SELECT pg_temp.m('ida')), 'Miles')) GROUP BY 1, 2 ORDER BY 1, 2;
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('challenge test', 'i1');
SELECT * FROM pg_temp.progress('ida');
SELECT count(*) FROM loyalty.challenges(loyalty.wallet(pg_temp.m('ida'), 'Miles'));
-- an activity that gives nothing and is made void, a held purchase that becomes a guest's: neither leaves anything behind
INSERT INTO loyalty.activity (member_id, occurred_at, kind, value, source, reference) VALUES (pg_temp.m('ida'), '2026-05-08', 'walk', 5, 'challenge test', 'w4');
SELECT * FROM pg_temp.progress('ida') WHERE challenge = 'ten kilometres';
UPDATE loyalty.activity SET status = 'void' WHERE source = 'challenge test' AND reference = 'w4';
SELECT * FROM pg_temp.progress('ida') WHERE challenge = 'ten kilometres';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('hal'), '2026-02-04', 14, 'challenge test', 'h4');
SELECT * FROM pg_temp.progress('hal') WHERE period_from = '2026-02-04';
SELECT loyalty.replace_rule(pg_temp.g('Challenges forbid'), 'raises', '1 / (purchase.amount - 14)', from_at => '2026-02-01') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('hal'), '2026-02-05', 14, 'challenge test', 'h5');
SELECT count(*) FROM loyalty.held_award h JOIN loyalty.purchase p ON p.purchase_id = h.source_id WHERE p.source = 'challenge test' AND p.reference = 'h5';
SELECT * FROM pg_temp.progress('hal') WHERE period_from = '2026-02-05';
UPDATE loyalty.purchase SET member_id = NULL WHERE source = 'challenge test' AND reference = 'h5';
SELECT * FROM pg_temp.progress('hal') WHERE period_from = '2026-02-05';
SELECT * FROM loyalty.check();
-- points that wait for a release do so, and are released like the others
SELECT loyalty.create_program('Challenges pending', currency => 'EUR', pending => 'release', expiry => 'never') > 0, loyalty.add_challenge(pg_temp.g('Challenges pending'), 'first', 'visits', 1, 9, active_from => '2026-01-01') > 0, loyalty.enroll(pg_temp.g('Challenges pending'), 'joe', '2025-01-01') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) VALUES (pg_temp.m('joe'), '2026-02-01', 1);
SELECT available, pending FROM loyalty.balance(pg_temp.m('joe'));
SELECT loyalty.release_pending(g.grant_id) FROM loyalty.challenge_grant g WHERE g.member_id = pg_temp.m('joe');
SELECT available, pending FROM loyalty.balance(pg_temp.m('joe'));
-- a table of one's own counts as loyalty.purchase does
CREATE TABLE challenge_orders (id bigint PRIMARY KEY, who text, at timestamptz, total numeric, paid boolean);
SELECT loyalty.attach('challenge_orders', 'purchase', '{"member": "who", "reference": "id::text", "occurred_at": "at", "amount": "total"}', pg_temp.g('Challenges'), qualifies => 'paid') > 0;
SELECT loyalty.enroll(pg_temp.g('Challenges'), 'kim', '2025-01-01') > 0;
INSERT INTO challenge_orders SELECT n, 'kim', '2026-04-07 12:00', 10, n <> 3 FROM generate_series(1, 3) n;
SELECT * FROM pg_temp.progress('kim');
UPDATE challenge_orders SET paid = true WHERE id = 3;
SELECT * FROM pg_temp.progress('kim') WHERE challenge = 'three visits a week';
DELETE FROM challenge_orders WHERE id = 1;
SELECT * FROM pg_temp.progress('kim') WHERE challenge = 'three visits a week';
SELECT loyalty.detach('challenge_orders');
DROP TABLE challenge_orders;
SELECT * FROM loyalty.check();
-- a reward: a claim that costs nothing; out of stock it waits, taken back it is worthless, used it stays theirs
CREATE FUNCTION pg_temp.won(who text) RETURNS TABLE (period_from date, granted boolean, code text, status text, undone boolean, points bigint, reason text) LANGUAGE sql AS $$
    SELECT g.period_from, g.granted, CASE WHEN k.code IS NOT NULL THEN 'a code' END, k.status, q.undone_at IS NOT NULL, q.points, q.reason
    FROM loyalty.challenge_grant g LEFT JOIN loyalty.claim q ON starts_with(q.key, format('loyalty:challenge %s ', g.grant_id)) LEFT JOIN loyalty.coupon k ON k.coupon_id = ANY (q.coupon_ids)
    WHERE g.member_id = pg_temp.m(who) ORDER BY 1, q.claim_id $$;
SELECT loyalty.create_program('Challenges reward', currency => 'EUR', expiry => 'never') > 0, loyalty.enroll(pg_temp.g('Challenges reward'), 'lea', '2025-01-01') > 0, loyalty.enroll(pg_temp.g('Challenges reward'), 'max', '2025-01-01') > 0;
SELECT loyalty.add_coupon_pool(pg_temp.g('Challenges reward'), 'spree', 'discount_amount', 5) > 0;
SELECT loyalty.add_reward(pg_temp.g('Challenges reward'), 'five off', 'discount_amount', NULL, value => 5, issues => 'coupon', pool => 'spree', stock => 2) > 0;
SELECT loyalty.add_challenge(pg_temp.g('Challenges reward'), 'twice a day', 'visits', 2, period => 'day', reward => 'five off', active_from => '2026-01-01') > 0;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m('lea'), timestamptz '2026-02-01 12:00' + n * interval '12 hours', 10, 'challenge test', 'l' || n FROM generate_series(0, 4) n;
SELECT * FROM pg_temp.won('lea');
SELECT loyalty.make_coupons(pg_temp.g('Challenges reward'), 'spree', 5);
-- the next purchase tries again: both are given, and a third is out of stock
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) SELECT pg_temp.m('lea'), timestamptz '2026-02-05 12:00' + n * interval '1 hour', 10, 'challenge test', 'l' || (n + 5) FROM generate_series(0, 1) n;
SELECT * FROM pg_temp.won('lea');
-- taken back it is worthless, and goes to the day that waits
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('challenge test', 'l1');
SELECT * FROM pg_temp.won('lea');
-- used it stays theirs; met again, nothing more is given
SELECT u.value FROM loyalty.challenge_grant g JOIN loyalty.claim q USING (claim_id) JOIN loyalty.coupon k ON k.coupon_id = ANY (q.coupon_ids) CROSS JOIN LATERAL loyalty.use_coupon(k.code, pg_temp.m('lea'), 'till 1') u WHERE g.member_id = pg_temp.m('lea') AND g.period_from = '2026-02-03';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('challenge test', 'l3');
SELECT * FROM pg_temp.won('lea');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('lea'), '2026-02-03 15:00', 10, 'challenge test', 'l8');
SELECT * FROM pg_temp.won('lea');
SELECT name, reward, times FROM loyalty.challenges(pg_temp.m('lea'), '2026-02-03');
SELECT * FROM loyalty.check();
SELECT loyalty.merge_members(pg_temp.m('lea'), pg_temp.m('max'), 'the same');
SELECT count(*) FROM pg_temp.won('lea');
SELECT * FROM pg_temp.won('max');
SELECT * FROM loyalty.check();
-- what is refused
SELECT r.* FROM unnest(ARRAY[
    format('SELECT loyalty.add_challenge(-1, ''x'', ''visits'', 1, 1)'),
    format('SELECT loyalty.add_challenge(%s, ''x'', ''smiles'', 1, 1)', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, NULL, ''visits'', 1, 1)', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', NULL, 1, 1)', pg_temp.g('Challenges')),
    format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 0, 1)', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', ''NaN'', 1)', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1)', pg_temp.g('Challenges')),
    format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, -1)', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1, ''fortnight'')', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1, ''once'', 2)', pg_temp.g('Challenges')),
    format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1, ''day'', 0)', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1, event => ''activity'')', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1, active_from => ''2026-02-01'', active_until => ''2026-01-01'')', pg_temp.g('Challenges')),
    format('SELECT loyalty.add_challenge(%s, ''four days'', ''visits'', 1, 1)', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1, condition => ''line.sku = 1'')', pg_temp.g('Challenges')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1, condition => ''now() > purchase.occurred_at'')', pg_temp.g('Challenges')),
    format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, 1)', pg_temp.g('Challenges: Miles')), format('SELECT loyalty.add_challenge(%s, ''x'', ''visits'', 1, reward => ''five on'')', pg_temp.g('Challenges reward')),
    format('SELECT loyalty.retire_reward(%s, ''five off'')', pg_temp.g('Challenges reward')),
    'SELECT loyalty.join_challenge(pg_temp.m(''house''), pg_temp.c(''a coffee''))', 'SELECT loyalty.join_challenge(loyalty.wallet(pg_temp.m(''ida''), ''Miles''), pg_temp.c(''a coffee''))',
    format('SELECT loyalty.retire_challenge(%s, ''none'')', pg_temp.g('Challenges')), format('SELECT loyalty.retire_challenge(%s, ''four days'', NULL)', pg_temp.g('Challenges')), format('SELECT loyalty.join_challenge(-1, %s)', pg_temp.c('a coffee')), format('SELECT loyalty.join_challenge(pg_temp.m(''hal''), %s)', pg_temp.c('a coffee')),
    'SELECT loyalty.join_challenge(pg_temp.m(''ann''), NULL)', format('SELECT loyalty.join_challenge(pg_temp.m(''fay''), %s)', pg_temp.c('a coffee')), 'SELECT loyalty.join_challenge(pg_temp.m(''ann''), c.challenge_id) FROM loyalty.challenge c WHERE c.name = ''four days''',
    'SELECT loyalty.challenges(-1)', 'CALL loyalty.count_challenges(-1)', format('CALL loyalty.count_challenges(%s, 0)', pg_temp.g('Challenges')),
    'UPDATE loyalty.challenge SET goal = 1', 'DELETE FROM loyalty.challenge', 'TRUNCATE loyalty.challenge', 'DELETE FROM loyalty.challenge_grant', 'TRUNCATE loyalty.challenge_grant'
    ]) s, pg_temp.refused(s) r;
SELECT loyalty.retire_challenge(pg_temp.g('Challenges'), 'a coffee');
SELECT * FROM pg_temp.refused(format('SELECT loyalty.join_challenge(pg_temp.m(''ann''), %s)', pg_temp.c('a coffee')));
-- check() sees what somebody changed behind the engine's back
BEGIN;
UPDATE loyalty.challenge_progress SET progress = progress + 1 WHERE member_id = pg_temp.m('cid') AND period_from = '2026-03-09';
UPDATE loyalty.challenge_item SET value = 2 WHERE member_id = pg_temp.m('dan') AND period_from = '2026-04-02';
UPDATE loyalty.challenge_grant SET granted = false, reached_at = NULL WHERE member_id = pg_temp.m('hal') AND period_from = '2026-02-02';
UPDATE loyalty.challenge_grant SET claim_id = NULL WHERE member_id = pg_temp.m('max') AND claim_id IS NOT NULL;
SELECT invariant, count(*) FROM loyalty.check() GROUP BY 1 ORDER BY 1;
ROLLBACK;
SELECT name, metric, members, progress, periods_met, grants, points FROM loyalty.challenge_result WHERE program_id = pg_temp.g('Challenges') ORDER BY 1, 2, 4;
-- what other tests do is not counted any more
SELECT count(loyalty.retire_challenge(c.program_id, c.name)) FROM loyalty.challenge c WHERE c.retired_at IS NULL;
SELECT * FROM loyalty.check();
-- what stands in the books is the same whatever the session's style of dates
BEGIN;
SET LOCAL datestyle = 'German, DMY';
SELECT loyalty.add_challenge(pg_temp.g('Challenges'), 'style of dates', 'visits', 1, 1, 'month', active_from => '2024-01-01') > 0 AS added;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT min(m.member_id), '2024-05-06', 1 FROM loyalty.member m WHERE m.program_id = pg_temp.g('Challenges') AND m.status = 'active';
SELECT reason FROM loyalty.entry WHERE reason LIKE 'Challenge style of dates%';
ROLLBACK;
