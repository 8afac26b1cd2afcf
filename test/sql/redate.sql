-- what is corrected moves wholly: the days of points, mapped times, returns after a household; and no owner of a table gains by it
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
SELECT loyalty.create_program('Redate', currency => 'GBP', point_value => 0.01, hold_days => 14) > 0 AS made;
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Redate' $$;
CREATE FUNCTION pg_temp.house() RETURNS bigint LANGUAGE sql AS $$ SELECT m.member_id FROM loyalty.member m WHERE m.program_id = pg_temp.p() AND m.external_id = 'house' $$;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0, count(loyalty.enroll(pg_temp.p(), 'd' || n, '2020-01-01')) FROM generate_series(1, 6) n;
CREATE FUNCTION pg_temp.d(n int) RETURNS bigint LANGUAGE sql AS $$ SELECT m.member_id FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE p.name = 'Redate' AND m.external_id = 'd' || n $$;
CREATE FUNCTION pg_temp.entries(n int) RETURNS TABLE (kind text, points bigint, lots loyalty.lots, tally loyalty.tally) LANGUAGE sql AS $$ SELECT e.kind, e.points, e.lots, e.tally FROM loyalty.entry e WHERE e.account_id = pg_temp.d(n) ORDER BY e.seq $$;
-- the year was wrong: what died of it lives again, with the days that it would have had
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, source, reference) VALUES (pg_temp.d(1), 450, '2023-11-20 12:00+00', 'redate', 'a');
CALL loyalty.close_expired();
SELECT lots FROM loyalty.account WHERE account_id = pg_temp.d(1);
UPDATE loyalty.purchase SET occurred_at = '2024-11-20 12:00+00' WHERE source = 'redate' AND reference = 'a';
SELECT lots, tally FROM loyalty.account WHERE account_id = pg_temp.d(1);
SELECT * FROM pg_temp.entries(1) WHERE kind <> 'expire';
-- what comes later goes with the new days; the time of day changes nothing, and neither does a changed policy
UPDATE loyalty.purchase SET amount = 500 WHERE source = 'redate' AND reference = 'a';
SELECT loyalty.change_program(pg_temp.p(), '{"hold_days": 0}') IS NOT NULL AS changed;
UPDATE loyalty.purchase SET occurred_at = '2024-11-20 18:00+00', amount = 490 WHERE source = 'redate' AND reference = 'a';
SELECT lots, tally FROM loyalty.account WHERE account_id = pg_temp.d(1);
-- what was spent stays spent
SELECT loyalty.change_program(pg_temp.p(), '{"expiry": "never"}') IS NOT NULL AS changed;
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, source, reference) VALUES (pg_temp.d(2), 100, '2024-02-01 12:00+00', 'redate', 'b'), (pg_temp.d(2), 50, '2024-03-01 12:00+00', 'redate', 'c');
SELECT loyalty.redeem(pg_temp.d(2), 70, 'r') IS NOT NULL AS redeemed;
UPDATE loyalty.purchase SET occurred_at = '2024-05-01 12:00+00' WHERE source = 'redate' AND reference = 'b';
SELECT lots, tally FROM loyalty.account WHERE account_id = pg_temp.d(2);
UPDATE loyalty.purchase SET status = 'void' WHERE source = 'redate';
SELECT n, lots, tally FROM loyalty.account a, generate_series(1, 2) n WHERE account_id = pg_temp.d(n) ORDER BY 1;
-- a mapped time is corrected by an UPDATE; where none is mapped, the first one stays
CREATE SCHEMA redate;
CREATE TABLE redate.dated (id int PRIMARY KEY, buyer text, total numeric, placed timestamptz);
CREATE TABLE redate.undated (id int PRIMARY KEY, buyer text, total numeric);
SELECT loyalty.attach('redate.dated', 'purchase', '{"member": "buyer", "reference": "id::text", "amount": "total", "occurred_at": "placed"}', pg_temp.p()) > 0,
       loyalty.attach('redate.undated', 'purchase', '{"member": "buyer", "reference": "id::text", "amount": "total"}', pg_temp.p()) > 0;
INSERT INTO redate.dated VALUES (1, 'd3', 100, '2024-02-01');
INSERT INTO redate.undated VALUES (1, 'd4', 10);
CREATE TEMP TABLE first AS SELECT occurred_at FROM loyalty.purchase WHERE source = 'redate.undated';
UPDATE redate.dated SET placed = '2024-09-01', total = 110;
UPDATE redate.undated SET total = 12;
SELECT p.amount, p.occurred_at FROM loyalty.purchase p WHERE p.source = 'redate.dated';
SELECT p.amount, p.occurred_at = f.occurred_at AS same FROM loyalty.purchase p, first f WHERE p.source = 'redate.undated';
SELECT lots, tally FROM loyalty.account WHERE account_id = pg_temp.d(3);
-- many rows of which nothing mapped changes, in linear time
INSERT INTO redate.undated SELECT n, 'd4', 1 FROM generate_series(2, 20000) n;
SET statement_timeout = '60s';
UPDATE redate.undated SET buyer = buyer;
RESET statement_timeout;
SELECT count(*), sum(points) FROM loyalty.entry WHERE account_id = pg_temp.d(4);
-- a purchase of a household that moved out, in again and was left there comes back from there
SELECT loyalty.create_household(pg_temp.p(), 'house') > 0 AS made;
SELECT loyalty.join_household(pg_temp.d(5), pg_temp.house());
INSERT INTO loyalty.purchase (member_id, amount, source, reference) VALUES (pg_temp.d(5), 100, 'redate', 'q');
UPDATE loyalty.purchase SET member_id = pg_temp.d(6) WHERE source = 'redate' AND reference = 'q';
SELECT loyalty.join_household(pg_temp.d(6), pg_temp.house());
SELECT loyalty.leave_household(pg_temp.d(6));
INSERT INTO loyalty.purchase_return (purchase_source, purchase_reference) VALUES ('redate', 'q');
SELECT d.points_taken, d.complete FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) WHERE p.source = 'redate' AND p.reference = 'q';
SELECT lots FROM loyalty.account WHERE account_id = pg_temp.house();
-- a household that somebody shares is not closed
\set VERBOSITY terse
DO $$ BEGIN PERFORM loyalty.close_member(pg_temp.house()); EXCEPTION WHEN SQLSTATE 'LY307' THEN RAISE WARNING 'LY307'; END $$;
SELECT loyalty.leave_household(pg_temp.d(5));
SELECT loyalty.close_member(pg_temp.house());
-- the owner of a table of lines runs code of its own while the lines are read: as itself, and it leaves no setting behind
CREATE ROLE regress_shop;
GRANT USAGE, CREATE ON SCHEMA redate TO regress_shop;
SET ROLE regress_shop;
CREATE FUNCTION redate.sneak(int) RETURNS boolean LANGUAGE sql AS $$ SELECT CASE WHEN current_user = 'regress_shop' THEN set_config('search_path', 'redate, pg_catalog', false) IS NOT NULL ELSE true END $$;
CREATE DOMAIN redate.sneaky AS int CHECK (redate.sneak(value));
CREATE FUNCTION redate.caught(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN IF current_user <> 'regress_shop' THEN RAISE EXCEPTION 'an operator of regress_shop runs as another'; END IF; RETURN textlike($1, $2); END $$;
CREATE OPERATOR redate.= (FUNCTION = redate.caught, LEFTARG = text, RIGHTARG = text);
CREATE TABLE redate.head (id int PRIMARY KEY, buyer text, total numeric);
CREATE TABLE redate.line (head_id int, sku text, price numeric);
RESET ROLE;
SELECT loyalty.attach('redate.head', 'purchase', '{"member": "buyer", "reference": "id::text", "amount": "total"}', pg_temp.p(), lines => 'redate.line', lines_key => 'head_id', header_key => 'id', lines_mapping => '{"sku": "sku || ''\\''", "amount": "price"}') > 0;
ALTER TABLE redate.line ALTER head_id TYPE redate.sneaky;
BEGIN;
INSERT INTO redate.line VALUES (1, 'x', 5);
INSERT INTO redate.head VALUES (1, 'd4', 5);
COMMIT;
SHOW search_path;
SET standard_conforming_strings = off;
UPDATE redate.line SET sku = 'y';
RESET standard_conforming_strings;
SELECT lines FROM loyalty.purchase WHERE source = 'redate.head';
-- a kind that a dropped constraint let through
SELECT * FROM loyalty.challenge_values(1, row(1, 1, now(), now(), null, null, null, null, 'completed', 'activity', null)::loyalty.activity);
SELECT loyalty.detach('redate.head'), loyalty.detach('redate.dated'), loyalty.detach('redate.undated');
DROP SCHEMA redate CASCADE;
DROP ROLE regress_shop;
SELECT * FROM loyalty.check();
