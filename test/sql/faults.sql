-- faults that were found by review, each of which stays mended
\set ECHO all
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
    message := regexp_replace(message, '(member|programme) [0-9]+', '\1 N', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name ~ '^Faults' AND m.external_id = who $$;
SELECT loyalty.create_program('Faults', currency => 'EUR', points_scale => 4) AS f, loyalty.create_program('Faults held', currency => 'EUR', points_scale => 4, on_rule_error => 'hold') AS h \gset
SELECT count(loyalty.add_rule(p, r, 'line', k, v, c)) FROM unnest(ARRAY[:f, :h]) p, (VALUES ('base', 'base', 'line.amount', NULL), ('b', 'multiply', '3', 'line.sku = ''B''')) AS r (r, k, v, c);
SELECT count(loyalty.enroll(p, n)) FROM (VALUES (:f, 'ann'), (:h, 'bea'), (:f, 'cid'), (:f, 'dan'), (:f, 'eva'), (:f, 'fay')) AS m (p, n);
-- a draft rule that lacks something is an error and no crash
SELECT r.* FROM unnest(ARRAY['[{"name": "x", "kind": "base"}]', '[{"name": "x", "points": "1"}]', '[7]', '[{"kind": "bonus", "points": "1", "event": "sale"}]']) d, pg_temp.refused(format('SELECT loyalty.simulate(%s, %L)', :f, d)) r;
-- holds that no ledger wrote
SELECT r.* FROM unnest(ARRAY['NULL', 'ROW(1, NULL, now(), now(), ''{}'', NULL)']) x, pg_temp.refused(format('SELECT loyalty.lots_at(%s, ''{}'', ARRAY[%s]::loyalty.hold[], NULL, now())', :f, x)) r;
-- lines in another currency are converted once, also where the award may be held
INSERT INTO loyalty.exchange_rate VALUES ('IDR', 'EUR', '2024-03-01', 0.00006);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, currency, lines)
    SELECT pg_temp.m(n), '2024-03-01 12:00', 45000, 'IDR', loyalty.lines('[{"sku": "A", "amount": 15000}, {"sku": "B", "amount": 30000}]') FROM unnest(ARRAY['ann', 'bea']) n;
SELECT e.points, (SELECT array_agg(l.points ORDER BY l.line) FROM loyalty.entry_line l WHERE (l.account_id, l.seq) = (e.account_id, e.seq)) FROM loyalty.entry e WHERE e.account_id IN ((SELECT pg_temp.m('ann')), (SELECT pg_temp.m('bea')));
-- a batch is taken in order of member and time, however large its rows are
SELECT loyalty.add_rule(:f, 'number', 'purchase', 'bonus', 'purchase.number * purchase.amount') > 0;
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, attributes)
    SELECT pg_temp.m('cid'), g, timestamptz '2024-03-02' - make_interval(secs => g), jsonb_build_object('x', repeat('y', 280000)) FROM generate_series(1, 128) g;
INSERT INTO loyalty.purchase (member_id, amount, occurred_at)
    SELECT pg_temp.m('dan'), g, timestamptz '2024-03-02' - make_interval(secs => g) FROM generate_series(1, 128) g;
SELECT sum(points) FILTER (WHERE account_id = (SELECT pg_temp.m('cid'))) = sum(points) FILTER (WHERE account_id = (SELECT pg_temp.m('dan'))) AS equal FROM loyalty.entry;
-- guests are checked as well
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (purchase_id, amount) SELECT -g, g - 3 FROM generate_series(1, 5) g$$);
-- the key of an open hold is taken, by whatever else; the hold is resolved as before
SELECT loyalty.adjust(pg_temp.m('eva'), 1000, 'gift') AS seq;
SELECT held FROM loyalty.hold(pg_temp.m('eva'), 10, 'k1', '1 day'), loyalty.redeem(pg_temp.m('eva'), 20, 'r1');
SELECT * FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('eva'), pg_temp.m('fay'), 5, 'k1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.adjust(pg_temp.m('eva'), 5, 'gift', 'k1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.undo(pg_temp.m('eva'), 'r1', 5, 'k1')$$);
SELECT redeemed FROM loyalty.capture(pg_temp.m('eva'), 'k1');
-- and so is that of a hold that lapsed and was not written down yet
SELECT held FROM loyalty.hold(pg_temp.m('eva'), 10, 'k2', '1 millisecond'), pg_sleep(0.01);
SELECT pg_sleep(0.01);
SELECT * FROM pg_temp.refused($$SELECT loyalty.transfer(pg_temp.m('eva'), pg_temp.m('fay'), 5, 'k2')$$);
-- keys of the engine's own are not for callers, undo included; returns still use them
SELECT * FROM pg_temp.refused($$SELECT loyalty.undo(pg_temp.m('eva'), 'r1', 5, 'loyalty:return 1')$$);
INSERT INTO loyalty.purchase (member_id, amount, paid_with_points, redemption_id, source, reference)
    SELECT member_id, 10, 5, redemption_id, 'faults', 'tender' FROM loyalty.redemption WHERE member_id = pg_temp.m('eva') AND key = 'r1';
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, source, reference) VALUES ('faults', 'tender', 'faults', 'tender');
SELECT d.points_restored FROM loyalty.returned d JOIN loyalty.purchase_return r USING (return_id) WHERE r.source = 'faults';
-- a purchase that went to another member is explained by what its present member's award pinned
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.m('ann'), '2024-03-03', 10, 'faults', 'moved');
UPDATE loyalty.purchase SET member_id = pg_temp.m('fay') WHERE source = 'faults' AND reference = 'moved';
SELECT e.points, (SELECT sum(x.points) FROM loyalty.explain(e.source_id) x) AS explained FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.reference = 'moved' AND e.account_id = p.member_id;
-- what is written can be read again
SELECT t, t::loyalty.lots::text = t AS same FROM (SELECT loyalty.lots('4713-01-01 BC', '0044-03-15 BC', 5)::text) AS x (t);
SELECT r.* FROM unnest(ARRAY['SELECT loyalty.tally(''0044-03-15 BC'', 1, 1, 1)', 'SELECT loyalty.tally(''300000-01-01'', 1, 1, 1)',
    'SELECT loyalty.sum(loyalty.lots(date ''2000-01-01'' + g, ''infinity'', 1)) FROM generate_series(1, 1000001) g',
    'SELECT loyalty.sum(loyalty.tally(date ''0001-01-01'' + g * 31, 1, 1, 1)) FROM generate_series(1, 120000) g',
    'SELECT (''{'' || repeat(''é'', 100))::loyalty.lots']) s, pg_temp.refused(s) r;
-- an administrator reads the balances
CREATE ROLE loyalty_test_admin;
SELECT loyalty.grant_admin('loyalty_test_admin');
SET ROLE loyalty_test_admin;
SELECT available FROM loyalty.member_balance WHERE member_id = pg_temp.m('eva');
RESET ROLE;
DROP OWNED BY loyalty_test_admin;
DROP ROLE loyalty_test_admin;
-- a literal of a mapping or rule means the same in every session
CREATE SCHEMA faults;
CREATE TABLE faults.sale (id integer, at timestamptz, amount numeric);
SELECT loyalty.attach('faults.sale', 'purchase', '{"member": "null::text", "reference": "id::text", "amount": "amount"}', :f, qualifies => 'at >= ''2024-06-01 00:00''') > 0;
SET timezone = 'America/New_York';
INSERT INTO faults.sale VALUES (1, '2024-06-01 02:00+00', 10);
SET timezone = 'UTC';
SELECT reference FROM loyalty.purchase WHERE source = 'faults.sale';
-- what the owner of an attached table puts behind its names and types runs with the owner's rights
CREATE ROLE loyalty_test_shop;
CREATE SCHEMA shop_of_a_role AUTHORIZATION loyalty_test_shop;
SET ROLE loyalty_test_shop;
CREATE TABLE shop_of_a_role.orders (id integer, amount numeric);
CREATE TABLE shop_of_a_role.line (order_id integer, sku text, price numeric);
RESET ROLE;
SELECT loyalty.attach('shop_of_a_role.orders', 'purchase', '{"member": "null::text", "reference": "id::text", "amount": "amount"}', :f,
    lines => 'shop_of_a_role.line', lines_key => 'order_id', header_key => 'id', lines_mapping => '{"sku": "sku", "amount": "price"}') > 0;
SET SESSION AUTHORIZATION loyalty_test_shop;
INSERT INTO shop_of_a_role.line VALUES (1, 'A', 10);
INSERT INTO shop_of_a_role.orders VALUES (1, 10);
CREATE TYPE shop_of_a_role.sku AS ENUM ('A');
CREATE FUNCTION shop_of_a_role.spy(shop_of_a_role.sku) RETURNS json LANGUAGE sql AS $$ SELECT to_json(current_user::text) $$;
CREATE CAST (shop_of_a_role.sku AS json) WITH FUNCTION shop_of_a_role.spy(shop_of_a_role.sku);
ALTER TABLE shop_of_a_role.line ALTER COLUMN sku TYPE shop_of_a_role.sku USING sku::shop_of_a_role.sku;
INSERT INTO shop_of_a_role.line VALUES (2, 'A', 20);
INSERT INTO shop_of_a_role.orders VALUES (2, 20);
UPDATE shop_of_a_role.line SET price = 20 WHERE order_id = 2;
RESET SESSION AUTHORIZATION;
SELECT p.reference, l.sku FROM loyalty.purchase p, unnest(p.lines) l WHERE p.source = 'shop_of_a_role.orders' ORDER BY 1;
SET SESSION AUTHORIZATION loyalty_test_shop;
DROP TABLE shop_of_a_role.line;
CREATE VIEW shop_of_a_role.line AS SELECT 3 AS order_id, current_user::text AS sku, 30::numeric AS price, 0::oid AS tableoid, '(0,1)'::tid AS ctid;
INSERT INTO shop_of_a_role.orders VALUES (3, 30);
RESET SESSION AUTHORIZATION;
SELECT loyalty.detach('shop_of_a_role.orders'), loyalty.detach('faults.sale');
-- an attached table may have a column of any name, and its name may come to stand for something else
CREATE TABLE faults.headed (id integer, amount numeric, h integer, n integer);
CREATE TABLE faults.headed_line (order_id integer, price numeric, n integer, h integer);
SELECT loyalty.attach('faults.headed', 'purchase', '{"member": "null::text", "reference": "id::text", "amount": "amount"}', :f,
    lines => 'faults.headed_line', lines_key => 'order_id', header_key => 'id', lines_mapping => '{"amount": "price"}') > 0;
INSERT INTO faults.headed VALUES (1, 0, 12345, 1);
INSERT INTO faults.headed_line VALUES (1, 0, 1, 1);
SELECT reference, cardinality(lines) FROM loyalty.purchase WHERE source = 'faults.headed';
ALTER TABLE faults.headed_line RENAME COLUMN order_id TO of_order;
INSERT INTO faults.headed_line VALUES (1, 0, 1, 1);
ALTER TABLE faults.headed_line RENAME COLUMN of_order TO order_id;
ALTER TABLE faults.headed RENAME TO headed_once;
CREATE TABLE faults.headed (id integer);
INSERT INTO faults.headed_line VALUES (1, 0, 1, 1);
SELECT loyalty.detach('faults.headed_once');
-- tables that do not exist are an error and no crash
SELECT r.* FROM unnest(ARRAY['to_regclass(''no.such'')', '12345678::regclass', 'NULL']) t, pg_temp.refused(format('SELECT loyalty.attach(%s, ''purchase'', ''{"member": "m", "reference": "r", "amount": "a"}'', %s)', t, :f)) r;
SELECT * FROM pg_temp.refused(format('SELECT loyalty.attach(''faults.sale'', ''purchase'', NULL, %s)', :f));
SELECT r.* FROM unnest(ARRAY['NULL, NULL, NULL, NULL', '''pg_class'', ''purchase'', NULL, NULL', '12345678, ''purchase'', ''{}'', NULL']) a, pg_temp.refused(format('SELECT loyalty.check_mapping(%s)', a)) r;
-- an attached table may be renamed, with its lines; its source is nobody else's; a dropped one is forgotten
CREATE TABLE faults.receipt (id integer, amount numeric);
CREATE TABLE faults.receipt_line (receipt_id integer, price numeric);
SELECT loyalty.attach('faults.receipt', 'purchase', '{"member": "null::text", "reference": "id::text", "amount": "amount"}', :f,
    lines => 'faults.receipt_line', lines_key => 'receipt_id', header_key => 'id', lines_mapping => '{"amount": "price"}') > 0;
INSERT INTO faults.receipt_line VALUES (1, 5);
ALTER TABLE faults.receipt_line RENAME TO receipt_item;
INSERT INTO faults.receipt VALUES (1, 5);
ALTER TABLE faults.receipt RENAME TO slip;
INSERT INTO faults.receipt_item VALUES (1, 0);
SELECT reference, cardinality(lines) FROM loyalty.purchase WHERE source = 'faults.receipt';
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (amount, source, reference) VALUES (1, 'faults.receipt', '2')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('dan'), 1, 'faults.receipt', '2')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.activity (member_id, kind, source, reference) VALUES (pg_temp.m('dan'), 'x', 'faults.receipt', '2')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, source, reference) VALUES ('faults.receipt', '1', 'faults.receipt', '2')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO faults.slip VALUES (2, 0), (2, 0)$$);
DROP TABLE faults.slip, faults.receipt_item;
CREATE TABLE faults.receipt (id integer, amount numeric);
SELECT loyalty.attach('faults.receipt', 'purchase', '{"member": "null::text", "reference": "id::text", "amount": "amount"}', :f) > 0;
INSERT INTO faults.receipt VALUES (3, 5);
SELECT loyalty.detach('faults.receipt');
-- lines that are no numbers do not lift the limit of an order
SELECT r.* FROM unnest(ARRAY['NaN', 'Infinity', '-1', NULL]) n, pg_temp.refused(format('SELECT loyalty.redeem(pg_temp.m(''eva''), 1, ''nan'', lines => ARRAY[ROW(''A'', 1, %L, NULL, NULL)::loyalty.line])', n)) r;
-- keys of the engine's own are not for adjustments either; texts and times have bounds
SELECT r.* FROM unnest(ARRAY['SELECT loyalty.adjust(pg_temp.m(''eva''), 1, ''x'', ''loyalty:voucher 1'')', 'SELECT loyalty.open_balance(pg_temp.m(''eva''), 1, ''x'', ''loyalty:voucher 1'')',
    'SELECT loyalty.import_entry(pg_temp.m(''eva''), 1, now(), ''x'', ''loyalty:voucher 1'')', 'SELECT loyalty.adjust(pg_temp.m(''eva''), 1, ''x'', repeat(''k'', 501))',
    'SELECT loyalty.hold(pg_temp.m(''eva''), 1, ''long'', ''178000000 years'')', 'SELECT loyalty.hold(pg_temp.m(''eva''), 1, ''long'', ''-178000000 years'')',
    'SELECT loyalty.balance(pg_temp.m(''eva''), ''5874896-01-01'')', 'SELECT loyalty.enroll(1, repeat(''x'', 100000))', 'SELECT loyalty.explain(-1)']) s, pg_temp.refused(s) r;
SELECT q.available_from = (now() AT TIME ZONE 'UTC')::date AS today FROM loyalty.quote(pg_temp.m('eva'), 10, occurred_at => NULL) q;
-- a purchase that was returned in part, or whole, does not earn in full again when its member changes
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('dan'), 100, 'moved', 'part'), (NULL, 100, 'moved', 'guest'), (NULL, 100, 'moved', 'whole');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount, source, reference) VALUES ('moved', 'part', 40, 'moved', '1'), ('moved', 'guest', 40, 'moved', '2'), ('moved', 'whole', NULL, 'moved', '3');
SELECT loyalty.total(a.lots) AS before FROM loyalty.account a WHERE a.account_id = pg_temp.m('fay') \gset
UPDATE loyalty.purchase SET member_id = pg_temp.m('fay') WHERE source = 'moved';
SELECT p.reference, sum(e.points) = sum(e.points) FILTER (WHERE e.account_id = pg_temp.m('fay')) AS all_there, loyalty.spend(loyalty.sum(e.tally)) AS spend
    FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'moved' GROUP BY 1 ORDER BY 1;
-- whoever was merged buys as the other; the books of the merged stay closed
SELECT count(loyalty.enroll(:f, n)) FROM unnest('{gus,hal}'::text[]) n;
SELECT loyalty.merge_members(pg_temp.m('gus'), pg_temp.m('hal'), 'same');
SELECT loyalty.enroll(:f, 'gus') = pg_temp.m('hal') AS merged;
CREATE TABLE faults.order_of (id integer, who text, amount numeric);
SELECT loyalty.attach('faults.order_of', 'purchase', '{"member": "who", "reference": "id::text", "amount": "amount"}', :f) > 0;
INSERT INTO faults.order_of VALUES (1, 'gus', 10);
SELECT member_id = pg_temp.m('hal') AS merged FROM loyalty.purchase WHERE source = 'faults.order_of';
SELECT r.* FROM unnest(ARRAY['loyalty.import_entry(pg_temp.m(''gus''), 5, now(), ''x'', ''i'')', 'loyalty.open_balance(pg_temp.m(''gus''), 5, ''x'')', 'loyalty.adjust(pg_temp.m(''gus''), 5, ''x'')', 'loyalty.set_member_status(pg_temp.m(''gus''), ''active'')']) s, pg_temp.refused('SELECT ' || s) r;
UPDATE loyalty.purchase SET member_id = pg_temp.m('gus') WHERE source = 'moved' AND reference = 'none';
SELECT count(loyalty.enroll(:h, n)) FROM unnest('{ian,joy}'::text[]) n;
SELECT loyalty.add_rule(:h, 'raises', 'purchase', 'bonus', '10 / (purchase.amount - 5)') > 0;
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('ian'), 5, 'faults', 'held');
SELECT loyalty.retire_rule(:h, 'raises', '-infinity'), loyalty.merge_members(pg_temp.m('ian'), pg_temp.m('joy'), 'same');
SELECT loyalty.release_award(purchase_id) AS points FROM loyalty.purchase WHERE source = 'faults' AND reference = 'held';
UPDATE loyalty.purchase SET amount = 6 WHERE source = 'faults' AND reference = 'held';
SELECT e.account_id = (SELECT pg_temp.m('joy')) AS merged, e.kind, loyalty.spend(e.tally) AS spend FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE p.source = 'faults' AND p.reference = 'held' ORDER BY e.seq;
-- partitions that leave an attached table
CREATE TABLE faults.part (id integer, amount numeric) PARTITION BY RANGE (id);
CREATE TABLE faults.part_1 PARTITION OF faults.part FOR VALUES FROM (1) TO (10);
SELECT loyalty.attach('faults.part', 'purchase', '{"member": "null::text", "reference": "id::text", "amount": "amount"}', :f) > 0;
SELECT * FROM pg_temp.refused(format('SELECT loyalty.attach(''faults.part_1'', ''purchase'', ''{"member": "null::text", "reference": "id::text", "amount": "amount"}'', %s)', :f));
SELECT * FROM pg_temp.refused('SELECT loyalty.detach(''faults.part_1'')');
ALTER TABLE faults.part DETACH PARTITION faults.part_1;
SELECT loyalty.detach('faults.part_1');
INSERT INTO faults.part_1 VALUES (1, 1);
TRUNCATE faults.part_1;
SELECT loyalty.detach('faults.part'), loyalty.detach('faults.order_of');
SELECT * FROM pg_temp.refused('SELECT loyalty.detach(''faults.part_1'')');
-- what gives the ledger its meaning stays; policies are changed by name
SELECT r.* FROM unnest(ARRAY['DELETE FROM loyalty.program', 'DELETE FROM loyalty.tier', 'TRUNCATE loyalty.program', format('UPDATE loyalty.program SET currency = ''USD'' WHERE program_id = %s', :f),
    format('UPDATE loyalty.program SET points_scale = 0 WHERE program_id = %s', :f), format('UPDATE loyalty.program SET time_zone = ''Mars/Base'' WHERE program_id = %s', :f),
    format('SELECT loyalty.change_program(%s, ''{"redeem_minimum": 1}'')', :f), format('SELECT loyalty.change_program(%s, ''{"redeem_min": 0}'')', :f), format('SELECT loyalty.change_program(%s, ''{"redeem_min": "x"}'')', :f),
    format('SELECT loyalty.change_program(%s, NULL)', :f), 'SELECT loyalty.change_program(-1, ''{}'')', format('SELECT loyalty.change_program(%s, ''{"redeem_min": 2, "transfer_max": 100}'')', :f)]) s, pg_temp.refused(s) r;
SELECT redeem_min, transfer_max FROM loyalty.program WHERE program_id = :f;
-- columns that somebody added do not disturb
BEGIN;
ALTER TABLE loyalty.entry ADD COLUMN extra integer DEFAULT 5;
ALTER TYPE loyalty.line ADD ATTRIBUTE extra integer;
ALTER TYPE loyalty.hold ADD ATTRIBUTE extra integer;
SELECT held FROM loyalty.hold(pg_temp.m('eva'), 10, 'wide');
INSERT INTO loyalty.purchase (member_id, amount, lines) VALUES (pg_temp.m('eva'), 1, ARRAY[ROW('A', 1, 1, NULL, NULL, 7)::loyalty.line]);
SELECT * FROM loyalty.check();
ROLLBACK;
-- what no caller passes is an error and no crash, and comes to an end
SELECT r.* FROM unnest(ARRAY['SELECT loyalty.check_limit(NULL, NULL, NULL, NULL)', 'SELECT loyalty.check_limit(''x'', ''purchase'', NULL, ''true'')',
    format('SELECT loyalty.give_referral(1, %s, true, -1, now(), 0, ''x'')', pg_temp.m('fay')),
    'SELECT loyalty.ring_used(''\x0100010a'', 9223372036854775807)', 'SELECT loyalty.ring_add(''\x0100010a'', 9223372036854775807, 1)', 'SELECT loyalty.ring_add(''\x01'', -9223372036854775808, 1)',
    'SELECT loyalty.check_mapping(''pg_class'', ''purchase'', ''["member"]'', NULL)', 'SELECT * FROM loyalty.balance(-9223372036854775808)', 'SELECT * FROM loyalty.balance(9223372036854775807)']) s, pg_temp.refused(s) r;
-- conditions: one that cannot be compiled leaves nothing behind, of the others so many are kept
SELECT count(*) AS refused FROM generate_series(1, 5) i, pg_temp.refused(format('SELECT loyalty.condition_holds(%L, jsonb_populate_record(NULL::loyalty.member_facts, ''{}''))', 'nothing_' || i)) r WHERE r.state LIKE 'LY%';
SELECT count(*) AS kept FROM pg_backend_memory_contexts WHERE name = 'loyalty condition';
SELECT count(*) FILTER (WHERE loyalty.condition_holds(format('member.spend > %s', i), jsonb_populate_record(NULL::loyalty.member_facts, '{"spend": 50}'))) AS hold FROM generate_series(1, 130) i;
SELECT count(*) AS kept FROM pg_backend_memory_contexts WHERE name = 'loyalty condition';
-- multipliers that cancel out: the one that leads beyond all bounds is named
SELECT loyalty.create_program('Faults large', currency => 'EUR') AS l \gset
SELECT count(loyalty.add_rule(:l, r, 'purchase', k, v)) FROM (VALUES ('base', 'base', 'purchase.amount'), ('up', 'multiply', '1e15'), ('farther up', 'multiply', '1e15'), ('down', 'multiply', '1e-30')) AS r (r, k, v);
SELECT loyalty.enroll(:l, 'zoe') > 0;
SELECT state, regexp_replace(message, '\d+$', 'N') AS message FROM pg_temp.refused($$INSERT INTO loyalty.purchase (member_id, amount) VALUES (pg_temp.m('zoe'), 5)$$);
DROP SCHEMA shop_of_a_role, faults CASCADE;
DROP ROLE loyalty_test_shop;
SELECT * FROM loyalty.check();
