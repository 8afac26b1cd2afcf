-- a return takes back its share, and a full return in any number of parts nets to zero
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    detail := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
    detail := regexp_replace(detail, '(after the return on|bought on) [-0-9 :.+]+', '\1 T', 'g');
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Return' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.source(ref text) RETURNS bigint LANGUAGE sql AS $$ SELECT purchase_id FROM loyalty.purchase WHERE source = 'return test' AND reference = ref $$;
CREATE FUNCTION pg_temp.net(ref text) RETURNS TABLE (entries bigint, lots loyalty.lots, tally loyalty.tally) LANGUAGE sql AS $$
    SELECT count(*), loyalty.sum(e.lots), loyalty.sum(e.tally) FROM loyalty.entry e WHERE e.source_id = pg_temp.source(ref) $$;
SELECT loyalty.create_program('Return', currency => 'EUR', point_value => 0.01, hold_days => 14, expiry => 'never') > 0 AS made;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'line', 'base', 'line.amount * 1.7') > 0 AS made, loyalty.add_rule(pg_temp.p(), 'order', 'purchase', 'bonus', '5') > 0 AS made;
SELECT loyalty.add_tier(pg_temp.p(), 'Silver', 100) > 0 AS made;
SELECT count(loyalty.enroll(pg_temp.p(), who, '2024-01-01')) FROM unnest('{ann,bob,cid,dan}'::text[]) who;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, shipping, lines, source, reference)
    SELECT pg_temp.m('ann'), '2026-03-05 10:00+00', 100.99, 5, loyalty.lines('[{"sku": "A", "quantity": 3, "unit_price": 10}, {"sku": "B", "quantity": 7, "unit_price": 9.57, "discount": 1}]'), 'return test', r FROM unnest('{o1,o2,o3,o4}'::text[]) r;
SELECT * FROM pg_temp.net('o1');
-- by line and quantity
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('return test', 'o1', ARRAY[ROW(1, NULL, 1, NULL)::loyalty.return_line]);
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('return test', 'o1', ARRAY[ROW(NULL, 'B', 2, NULL)::loyalty.return_line, ROW(1, NULL, 1, NULL)::loyalty.return_line]);
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'o1', 10);
SELECT d.number, d.amount, d.points_taken, d.complete FROM loyalty.returned d WHERE d.purchase_id = pg_temp.source('o1') ORDER BY 1;
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('return test', 'o1');
SELECT d.number, d.amount, d.points_taken, d.complete FROM loyalty.returned d WHERE d.purchase_id = pg_temp.source('o1') ORDER BY 1;
SELECT * FROM pg_temp.net('o1');
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'o1', 0.01)$$);
-- all lines back is all back, many rows in one statement
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines)
    SELECT 'return test', 'o2', ARRAY[ROW(NULL, s, 1, NULL)::loyalty.return_line] FROM unnest('{A,B,A,B,B,B,A,B,B,B}'::text[]) s;
SELECT * FROM pg_temp.net('o2');
SELECT sum(amount) AS money, bool_or(complete) AS complete FROM loyalty.returned WHERE purchase_id = pg_temp.source('o2');
-- by amount
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) SELECT 'return test', 'o3', 100.99 / 13 FROM generate_series(1, 13);
SELECT * FROM pg_temp.net('o3');
-- more than was bought
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'o4', 101)$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('return test', 'o4', ARRAY[ROW(1, NULL, 4, NULL)::loyalty.return_line])$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('return test', 'o4', ARRAY[ROW(NULL, 'A', 4, NULL)::loyalty.return_line])$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('return test', 'o4', ARRAY[ROW(3, NULL, 1, NULL)::loyalty.return_line])$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('return test', 'o4', ARRAY[ROW(1, 'A', 1, NULL)::loyalty.return_line])$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'o4', -1)$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'o4', 'NaN')$$);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, occurred_at) VALUES ('return test', 'o4', '2026-01-01')$$);
SELECT state FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, member_id) VALUES ('return test', 'o4', pg_temp.m('bob'))$$);
SELECT state FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('return test', 'none')$$);
SELECT state FROM pg_temp.refused($$UPDATE loyalty.purchase_return SET amount = 1$$);
SELECT state FROM pg_temp.refused($$DELETE FROM loyalty.purchase_return$$);
-- a correction after a return keeps the return's share; a void takes the rest
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, lines) VALUES ('return test', 'o4', ARRAY[ROW(1, NULL, NULL, NULL)::loyalty.return_line]);
SELECT * FROM pg_temp.net('o4');
UPDATE loyalty.purchase SET amount = 70.99, lines = loyalty.lines('[{"sku": "A", "quantity": 3, "unit_price": 10}, {"sku": "B", "quantity": 4, "unit_price": 9.2475, "discount": 1}]') WHERE purchase_id = pg_temp.source('o4');
SELECT * FROM pg_temp.net('o4');
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.source('o4');
SELECT * FROM pg_temp.net('o4');
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('return test', 'o4')$$);
SELECT pending, debt FROM loyalty.balance(pg_temp.m('ann'));
SELECT tier, cause FROM loyalty.tier_history WHERE member_id = pg_temp.m('ann') ORDER BY valid_from, valid_to;
-- a return after the points were spent leaves a debt, and pending points go first
SELECT loyalty.adjust(pg_temp.m('bob'), 500, 'gift', 'g');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, source, reference) VALUES (pg_temp.m('bob'), '2026-03-05', 100, loyalty.lines('[{"sku": "A", "unit_price": 100}]'), 'return test', 'b1'), (pg_temp.m('bob'), now(), 100, loyalty.lines('[{"sku": "A", "unit_price": 100}]'), 'return test', 'b2');
SELECT available, pending FROM loyalty.balance(pg_temp.m('bob'));
SELECT redeemed FROM loyalty.redeem(pg_temp.m('bob'), 675, 'all');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('return test', 'b1');
SELECT available, pending, debt FROM loyalty.balance(pg_temp.m('bob'));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('return test', 'b2');
SELECT available, pending, debt FROM loyalty.balance(pg_temp.m('bob'));
-- points that died and were closed are not taken a second time
SELECT loyalty.create_program('Return dead', currency => 'EUR', expiry => 'after', expiry_months => 0, expiry_days => 1, expiry_round => 'day') > 0 AS made;
CREATE FUNCTION pg_temp.d() RETURNS bigint LANGUAGE sql AS $$ SELECT loyalty.enroll((SELECT program_id FROM loyalty.program WHERE name = 'Return dead'), 'dee', '2024-01-01') $$;
SELECT loyalty.add_rule(program_id, 'base', 'purchase', 'base', 'purchase.amount') > 0 AS made FROM loyalty.program WHERE name = 'Return dead';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.d(), '2026-03-05', 100, 'return test', 'd1');
CALL loyalty.close_expired();
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'd1', 30);
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('return test', 'd1');
SELECT kind, points FROM loyalty.entry WHERE account_id = (SELECT pg_temp.d()) ORDER BY seq;
SELECT lots, tally FROM loyalty.account WHERE account_id = pg_temp.d();
-- mixed tender: points to points, money to money
SELECT loyalty.adjust(pg_temp.m('cid'), 1000, 'gift', 'g');
WITH r AS (SELECT * FROM loyalty.redeem(pg_temp.m('cid'), 700, 'pay', reference => 'c1'))
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, paid_with_points, redemption_id, source, reference) SELECT pg_temp.m('cid'), now(), 30, money, redemption_id, 'return test', 'c1' FROM r;
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'c1', 10), ('return test', 'c1', 10);
SELECT number, amount, money, points_money, points_restored, points_taken, complete FROM loyalty.returned WHERE purchase_id = pg_temp.source('c1') ORDER BY 1;
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('return test', 'c1');
SELECT number, amount, money, points_money, points_restored, points_taken, complete FROM loyalty.returned WHERE purchase_id = pg_temp.source('c1') ORDER BY 1;
SELECT available, pending, debt FROM loyalty.balance(pg_temp.m('cid'));
-- a purchase costs no less than what came back of it, void or not
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.m('cid'), 100, 'return test', 'v1');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'v1', 60);
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'return test' AND reference = 'v1';
SELECT state FROM pg_temp.refused($$UPDATE loyalty.purchase SET amount = 10 WHERE source = 'return test' AND reference = 'v1'$$);
-- what a clamp forgave is not asked for again, and not given either
SELECT loyalty.create_program('Return clamp', expiry => 'never', negative => 'clamp') > 0 AS made;
CREATE FUNCTION pg_temp.k() RETURNS bigint LANGUAGE sql AS $$ SELECT loyalty.enroll((SELECT program_id FROM loyalty.program WHERE name = 'Return clamp'), 'kay', '2024-01-01') $$;
SELECT loyalty.add_rule(program_id, 'base', 'purchase', 'base', 'purchase.amount') > 0 AS made FROM loyalty.program WHERE name = 'Return clamp';
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference) VALUES (pg_temp.k(), '2026-03-05', 93, 'return test', 'k1');
SELECT redeemed FROM loyalty.redeem(pg_temp.k(), 50, 'r');
UPDATE loyalty.purchase SET amount = 1 WHERE source = 'return test' AND reference = 'k1';
SELECT available, debt FROM loyalty.balance(pg_temp.k());
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.k(), 10, 'return test', 'k2');
UPDATE loyalty.purchase SET amount = 1 WHERE source = 'return test' AND reference = 'k1';
UPDATE loyalty.purchase SET amount = 30 WHERE source = 'return test' AND reference = 'k1';
SELECT available, debt FROM loyalty.balance(pg_temp.k());
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'k1', 4);
SELECT available, debt FROM loyalty.balance(pg_temp.k());
UPDATE loyalty.purchase SET amount = 97 WHERE source = 'return test' AND reference = 'k1';
SELECT available, debt FROM loyalty.balance(pg_temp.k());
SELECT kind, points, tally FROM loyalty.entry WHERE account_id = (SELECT pg_temp.k()) AND source_id = pg_temp.source('k1') ORDER BY seq;
-- a guest's purchase comes back too, never more than was bought
INSERT INTO loyalty.purchase (amount, source, reference) VALUES (10, 'return test', 'guest');
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'guest', 6);
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference, amount) VALUES ('return test', 'guest', 4.02)$$);
SELECT description, points FROM loyalty.statement(pg_temp.m('bob')) ORDER BY seq;
SELECT * FROM loyalty.check();
