-- coupons: pools of codes, imported or made, issued and used, never more often than they may
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
    message := regexp_replace(message, '(member|programme|coupon|purchase|claim) \d+', '\1 N', 'g');
    detail := regexp_replace(detail, '(coupon|purchase) \d+', '\1 N', 'g');
    detail := regexp_replace(detail, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00', 'WHEN', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Coupons' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.bought(r text) RETURNS bigint LANGUAGE sql AS $$ SELECT purchase_id FROM loyalty.purchase WHERE reference = r $$;
SELECT loyalty.create_program('Coupons', currency => 'USD', time_zone => 'America/New_York') > 0 AS made;
SELECT count(loyalty.enroll(pg_temp.p(), name)) FROM unnest('{ann,bea,cid,dan}'::text[]) name;
-- a code of the engine's own finds one wrong letter and two neighbours exchanged
SELECT n, loyalty.make_code(n) ~ '^[34679ACDEFGHJKMNPQRTWXY]{4}(-[34679ACDEFGHJKMNPQRTWXY]{1,4})+$' AS well_formed, loyalty.is_code(loyalty.make_code(n)) AS good FROM unnest('{8,12,32}'::int[]) n;
SELECT n, r.state FROM unnest('{7,33,-1}'::int[]) n, pg_temp.refused(format('SELECT loyalty.make_code(%s)', n)) r;
SELECT bool_and(loyalty.is_code(lower(replace(c, '-', ' ')))) AS as_typed,
       bool_or(loyalty.is_code(overlay(c PLACING l FROM i))) FILTER (WHERE l <> substr(c, i, 1) AND substr(c, i, 1) <> '-') AS wrong_letter,
       bool_or(loyalty.is_code(overlay(c PLACING substr(c, i + 1, 1) || substr(c, i, 1) FROM i))) FILTER (WHERE substr(c, i, 1) <> substr(c, i + 1, 1) AND substr(c, i, 2) !~ '-' AND i < length(c)) AS exchanged
    FROM (SELECT loyalty.make_code(12 + 0 * n) AS c FROM generate_series(1, 20) n) m, generate_series(1, length(c)) i, regexp_split_to_table('34679ACDEFGHJKMNPQRTWXY', '') l;
SELECT count(*) FILTER (WHERE loyalty.is_code(c)) AS good FROM unnest(ARRAY['', '3', 'hello', repeat('3', 33), repeat('3', 100000), '33333333Ω', E'3333333\n3']) c;
-- pools
SELECT loyalty.add_coupon_pool(pg_temp.p(), 'welcome', 'discount_amount', 5, valid_days => 14, terms => '{"from": 20}') > 0 AS single,
       loyalty.add_coupon_pool(pg_temp.p(), 'summer', 'discount_percent', 20, uses => 'multi', max_uses => 3, max_per_member => 2) > 0 AS multi;
SELECT loyalty.add_reward(pg_temp.p(), 'mug', 'product', 100, sku => 'MUG', stock => 2) > 0 AS mug;
SELECT loyalty.add_coupon_pool(pg_temp.p(), 'mugs', reward => 'mug', max_per_member => 5) > 0 AS mugs, loyalty.add_coupon_pool(pg_temp.p(), 'later', 'shipping', valid_from => '2999-01-01') > 0 AS later,
       loyalty.add_coupon_pool(pg_temp.p(), 'past', 'shipping', valid_until => '2001-01-01') > 0 AS past;
SELECT n, r.state, r.detail FROM (VALUES (1, $$'welcome', 'service'$$), (2, $$'x'$$), (3, $$'x', 'badge'$$), (4, $$'x', 'discount_amount'$$), (5, $$'x', 'discount_percent', 101$$), (6, $$'x', 'product'$$), (7, $$'x', 'service', reward => 'mug'$$), (8, $$'x', reward => 'no such'$$),
    (9, $$'x', 'service', uses => 'some'$$), (10, $$'x', 'service', max_uses => -1$$), (11, $$'x', 'service', max_per_member => 0$$), (12, $$'x', 'service', valid_from => '2024-01-02', valid_until => '2024-01-01'$$), (13, $$'', 'service'$$), (14, $$NULL, 'service'$$)) c (n, call),
    pg_temp.refused(format('SELECT loyalty.add_coupon_pool(pg_temp.p(), %s)', call)) r ORDER BY n;
-- imported, twice without harm, and made
SELECT loyalty.import_coupons(pg_temp.p(), 'welcome', '{HELLO-1,hello-2,Hello-3}') AS new, loyalty.import_coupons(pg_temp.p(), 'welcome', '{HELLO 1,hello2,HELLO-4,hello-4}') AS new_again, loyalty.import_coupons(pg_temp.p(), 'summer', '{SUMMER}') AS summer,
       loyalty.import_coupons(pg_temp.p(), 'mugs', '{MUG1,MUG2,MUG3}') AS mugs, loyalty.import_coupons(pg_temp.p(), 'later', '{LATER}') AS later, loyalty.import_coupons(pg_temp.p(), 'past', '{PAST}') AS past;
SELECT r.state, r.message, r.detail FROM (VALUES ($$'mugs', '{summer}'$$), ($$'mugs', '{""}'$$), ($$'mugs', '{NULL}'$$), ($$'mugs', ARRAY[repeat('x', 65)]$$), ($$'mugs', ARRAY[E'a\tb']$$), ($$'no such', '{A}'$$)) c (call), pg_temp.refused(format('SELECT loyalty.import_coupons(pg_temp.p(), %s)', call)) r;
SELECT loyalty.import_coupons(pg_temp.p(), 'mugs', '{}') AS none, loyalty.import_coupons(pg_temp.p(), 'mugs', NULL) AS none_either;
SELECT loyalty.add_coupon_pool(pg_temp.p(), 'made', 'service') > 0 AS pool, loyalty.make_coupons(pg_temp.p(), 'made', 1000) AS made;
SELECT count(DISTINCT code) AS codes, bool_and(loyalty.is_code(code)) AS good, min(length(code)), max(status) FROM loyalty.coupon JOIN loyalty.coupon_pool USING (pool_id) WHERE name = 'made';
SELECT r.state, r.detail FROM (VALUES ($$'made', 0$$), ($$'made', 1, 7$$), ($$'made', 1, 33$$), ($$'made', NULL$$), ($$'no such', 1$$)) c (call), pg_temp.refused(format('SELECT loyalty.make_coupons(pg_temp.p(), %s)', call)) r;
-- issued to a member: nobody else uses it
SELECT code IN ('HELLO-1', 'hello-2', 'Hello-3', 'HELLO-4') AS one_of_them, valid_until::date - loyalty.local_day(pg_temp.p(), now()) AS days FROM loyalty.issue_coupon(pg_temp.m('ann'), 'welcome', 'i1');
SELECT count(DISTINCT code) AS the_same FROM generate_series(1, 3), loyalty.issue_coupon(pg_temp.m('ann'), 'welcome', 'i1');
SELECT n, r.* FROM (VALUES (1, 'ann', $$'made', 'i1'$$), (2, 'ann', $$'welcome', 'i2'$$), (3, 'ann', $$'summer', 'i2'$$), (4, 'ann', $$'later', 'i2'$$), (5, 'ann', $$'past', 'i2'$$), (6, 'ann', $$'no such', 'i2'$$), (7, 'ann', $$'made', NULL$$)) c (n, who, call),
    pg_temp.refused(format('SELECT loyalty.issue_coupon(pg_temp.m(%L), %s)', who, call)) r ORDER BY n;
SELECT length(set_config('test.anns', code, false)) > 0 AS anns FROM loyalty.coupons(pg_temp.m('ann')) LIMIT 1;
SELECT pool, kind, value, currency, terms, status, usable FROM loyalty.coupons(pg_temp.m('ann'));
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L)', current_setting('test.anns'), 'bea', 'u1')) r;
SELECT use_id > 0 AS used, pool, reward, kind, value, currency, sku, terms FROM loyalty.use_coupon(current_setting('test.anns'), pg_temp.m('ann'), 'u1', reference => 'R1', store => 'S1');
SELECT use_id > 0 AS used, value FROM loyalty.use_coupon(lower(current_setting('test.anns')), pg_temp.m('ann'), 'u1', reference => 'R1', store => 'S1');
SELECT n, r.* FROM (VALUES (1, $$'u2'$$), (2, $$'u1'$$), (3, $$'u1', reference => 'R2', store => 'S1'$$), (4, $$NULL$$)) c (n, call), pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %s)', current_setting('test.anns'), 'ann', call)) r ORDER BY n;
SELECT r.* FROM pg_temp.refused($$SELECT loyalty.use_coupon('SUMMER', pg_temp.m('ann'), 'u1', reference => 'R1', store => 'S1')$$) r;
-- codes that are not
SELECT n, r.* FROM (VALUES (1, 'no such'), (2, ''), (3, NULL), (4, 'LATER'), (5, 'PAST')) c (n, code), pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L)', code, 'bea', 'b1')) r ORDER BY n;
SELECT r.state, r.detail FROM (SELECT loyalty.make_code(12 + 0 * n) AS c FROM generate_series(1, 1) n) m, pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L)', c, 'bea', 'b1')) r;
-- the bearer's: an imported code that nobody was issued; with the purchase
INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (pg_temp.m('bea'), 20, 'coupon-1');
SELECT length(set_config('test.free', code, false)) > 0 AS free FROM loyalty.coupon k JOIN loyalty.coupon_pool p USING (pool_id) WHERE p.program_id = pg_temp.p() AND name = 'welcome' AND status = 'free' ORDER BY coupon_id LIMIT 1;
SELECT r.* FROM unnest(ARRAY[-1, pg_temp.bought('coupon-1')]) id, pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L, %s)', current_setting('test.free'), 'cid', 'c1', id)) r;
SELECT value FROM loyalty.use_coupon(current_setting('test.free'), pg_temp.m('bea'), 'b1', pg_temp.bought('coupon-1'));
-- released: it counts no more, and is good again, for this member
SELECT r.* FROM (VALUES ($$'no such', 'Why'$$), ($$'b1', ' '$$), ($$'b1', NULL$$)) c (call), pg_temp.refused(format('SELECT loyalty.release_coupon(pg_temp.m(%L), %s)', 'bea', call)) r;
SELECT loyalty.release_coupon(pg_temp.m('bea'), 'b1', 'Order cancelled') > 0 AS released, loyalty.release_coupon(pg_temp.m('bea'), 'b1', 'Order cancelled') > 0 AS again;
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L)', current_setting('test.free'), 'cid', 'c1')) r;
SELECT value FROM loyalty.use_coupon(current_setting('test.free'), pg_temp.m('bea'), 'b2');
SELECT count(*), count(released_at) AS released FROM loyalty.coupon_use WHERE member_id = pg_temp.m('bea');
-- one code for many: twice a member, three times in all
SELECT n, r.state, r.detail FROM (VALUES (1, 'ann'), (2, 'ann'), (3, 'ann'), (4, 'bea'), (5, 'cid')) c (n, who), pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L)', 'summer', who, 's' || n)) r ORDER BY n;
SELECT loyalty.release_coupon(pg_temp.m('ann'), 's2', 'Returned') > 0 AS released;
SELECT value FROM loyalty.use_coupon('Summer', pg_temp.m('cid'), 's5');
-- a code gives a reward for nothing, out of its stock
SELECT n, r.state, r.detail FROM generate_series(1, 3) n, pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L)', 'MUG' || n, 'cid', 'm' || n)) r;
SELECT reward, kind, sku FROM loyalty.use_coupon('MUG2', pg_temp.m('cid'), 'm2');
SELECT r.state, r.detail FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('cid'), 'mug', 'x')$$) r;
SELECT loyalty.release_coupon(pg_temp.m('cid'), 'm1', 'Broken') > 0 AS released, loyalty.stock_left(stock_id) AS left FROM loyalty.reward WHERE program_id = pg_temp.p() AND name = 'mug';
SELECT loyalty.stock_left(stock_id) AS left FROM loyalty.reward WHERE program_id = pg_temp.p() AND name = 'mug';
-- a reward that hands out codes
SELECT n, r.state, r.detail FROM (VALUES (1, 'summer'), (2, 'mugs')) c (n, pool), pg_temp.refused(format('SELECT loyalty.add_reward(pg_temp.p(), %L, %L, 1, issues => %L, pool => %L)', 'x', 'service', 'coupon', pool)) r ORDER BY n;
SELECT loyalty.add_coupon_pool(pg_temp.p(), 'cinema', 'partner', partner => 'Odeon') > 0 AS pool, loyalty.import_coupons(pg_temp.p(), 'cinema', '{ODEON-A,ODEON-B,ODEON-C}') AS codes;
SELECT loyalty.add_reward(pg_temp.p(), 'tickets', 'partner', 10, issues => 'coupon', pool => 'cinema', valid_days => 7, partner => 'Odeon') > 0 AS tickets, loyalty.adjust(pg_temp.m('dan'), 100, 'Start') > 0 AS start;
SELECT points, cardinality(codes) AS codes FROM loyalty.claim(pg_temp.m('dan'), 'tickets', 't1', 2);
SELECT r.* FROM pg_temp.refused($$SELECT loyalty.claim(pg_temp.m('dan'), 'tickets', 't2', 2)$$) r;
SELECT available AS nothing_taken FROM loyalty.balance(pg_temp.m('dan'));
SELECT length(set_config('test.ticket', code, false)) > 0 AS ticket FROM loyalty.coupons(pg_temp.m('dan')) ORDER BY coupon_id LIMIT 1;
SELECT jsonb_array_length(loyalty.cabinet(pg_temp.m('dan')) -> 'coupons') AS in_the_cabinet;
SELECT kind, partner FROM loyalty.use_coupon(current_setting('test.ticket'), pg_temp.m('dan'), 'cinema');
SELECT r.state, r.message FROM pg_temp.refused($$SELECT loyalty.undo_claim(pg_temp.m('dan'), 't1', 'Why')$$) r;
SELECT loyalty.release_coupon(pg_temp.m('dan'), 'cinema', 'Film cancelled') > 0 AS released;
SELECT restored FROM loyalty.undo_claim(pg_temp.m('dan'), 't1', 'Film cancelled');
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.use_coupon(%L, pg_temp.m(%L), %L)', current_setting('test.ticket'), 'dan', 'cinema 2')) r;
SELECT available FROM loyalty.balance(pg_temp.m('dan'));
-- void, expired, retired
SELECT r.state FROM (VALUES ($$'HELLO-1', NULL$$), ($$'no such', 'Why'$$)) c (call), pg_temp.refused(format('SELECT loyalty.void_coupon(pg_temp.p(), %s)', call)) r;
SELECT r.* FROM pg_temp.refused(format('SELECT loyalty.void_coupon(pg_temp.p(), %L, %L)', current_setting('test.anns'), 'Why')) r;
SELECT loyalty.void_coupon(pg_temp.p(), 'MUG3', 'Printed twice') > 0 AS void, loyalty.void_coupon(pg_temp.p(), 'MUG3', 'Printed twice') > 0 AS again;
SELECT r.* FROM pg_temp.refused($$SELECT loyalty.use_coupon('MUG3', pg_temp.m('cid'), 'm4')$$) r;
SELECT loyalty.add_coupon_pool(pg_temp.p(), 'brief', 'service', valid_days => 0) > 0 AS pool, loyalty.import_coupons(pg_temp.p(), 'brief', '{BRIEF}') AS code;
SELECT valid_until::date - now()::date <= 1 AS tonight FROM loyalty.issue_coupon(pg_temp.m('cid'), 'brief', 'brief');
UPDATE loyalty.coupon SET valid_until = now() - interval '1 second' WHERE code = 'BRIEF';
SELECT r.* FROM pg_temp.refused($$SELECT loyalty.use_coupon('BRIEF', pg_temp.m('cid'), 'm4')$$) r;
SELECT loyalty.retire_coupon_pool(pg_temp.p(), 'made', 'Over');
SELECT r.state, r.message, r.detail FROM pg_temp.refused($$SELECT loyalty.issue_coupon(pg_temp.m('cid'), 'made', 'm4')$$) r;
SELECT r.state FROM pg_temp.refused($$SELECT loyalty.retire_coupon_pool(pg_temp.p(), 'no such')$$) r;
-- frozen and closed members
SELECT loyalty.set_member_status(pg_temp.m('cid'), 'frozen');
SELECT r.state FROM unnest(ARRAY[$$SELECT loyalty.issue_coupon(pg_temp.m('cid'), 'welcome', 'f')$$, $$SELECT loyalty.use_coupon('SUMMER', pg_temp.m('cid'), 'f')$$, $$SELECT loyalty.use_coupon('SUMMER', -1, 'f')$$]) s, pg_temp.refused(s) r;
-- nothing is edited, nothing is deleted
SELECT r.state, r.message FROM unnest(ARRAY['UPDATE loyalty.coupon SET code = code || ''x''', 'UPDATE loyalty.coupon SET status = ''free'', voided_at = NULL WHERE status = ''void''', 'DELETE FROM loyalty.coupon', 'TRUNCATE loyalty.coupon', 'UPDATE loyalty.coupon_use SET member_id = 1', 'DELETE FROM loyalty.coupon_use', 'TRUNCATE loyalty.coupon_use',
    'UPDATE loyalty.coupon_pool SET value = 100', 'DELETE FROM loyalty.coupon_pool', 'TRUNCATE loyalty.coupon_pool']) s, pg_temp.refused(s) r;
-- whoever takes over a member takes over the codes
SELECT length(set_config('test.dans', code, false)) > 0 AS dans FROM loyalty.issue_coupon(pg_temp.m('dan'), 'welcome', 'd');
SELECT loyalty.merge_members(pg_temp.m('dan'), pg_temp.m('ann'), 'Same person') > 0 AS merged;
SELECT count(*) FROM loyalty.coupons(pg_temp.m('ann')) WHERE usable;
SELECT value FROM loyalty.use_coupon(current_setting('test.dans'), pg_temp.m('ann'), 'd');
SELECT * FROM loyalty.check();
