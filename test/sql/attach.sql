-- tables of one's own award points: by mapping, status, lines, partitions
\set ECHO queries
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA shop;
CREATE TYPE shop.order_status AS ENUM ('cart', 'paid', 'cancelled');
CREATE TABLE shop.orders (id int, gone text, buyer text, placed timestamp, total text, status shop.order_status NOT NULL DEFAULT 'cart', region text) PARTITION BY LIST (region);
ALTER TABLE shop.orders DROP COLUMN gone;
CREATE TABLE shop.orders_north PARTITION OF shop.orders FOR VALUES IN ('north');
CREATE TABLE shop.orders_south (region text, status shop.order_status NOT NULL, total text, placed timestamp, buyer text, id int);
ALTER TABLE shop.orders ATTACH PARTITION shop.orders_south FOR VALUES IN ('south');
SELECT loyalty.create_program('Attached', currency => 'EUR', time_zone => 'Europe/Berlin') AS prog \gset
SELECT loyalty.add_rule(:prog, 'base', 'purchase', 'base', 'purchase.amount') > 0, loyalty.add_rule(:prog, 'units', 'line', 'bonus', 'line.quantity') > 0,
       loyalty.add_rule(:prog, 'review', 'activity', 'base', '5', 'activity.kind = ''review''') > 0;
SELECT loyalty.enroll(:prog, 'ed', '2024-01-01') > 0, loyalty.enroll(:prog, 'flo', '2024-01-01') > 0;
SELECT loyalty.attach('shop.orders', 'purchase',
    '{"member": "orders.buyer", "reference": "id::text", "occurred_local": "placed", "amount": "total::numeric", "store": "region"}', :prog, qualifies => 'status = ''paid''') > 0 AS attached;
CREATE VIEW shop.points AS SELECT p.reference, m.external_id, p.status, e.kind, e.points FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id
    JOIN loyalty.member m ON m.member_id = e.account_id WHERE p.source LIKE 'shop.%' ORDER BY p.reference, e.account_id, e.seq;
INSERT INTO shop.orders (id, buyer, placed, total, status, region) VALUES (1, 'ed', '2024-05-01 10:00', '100', 'cart', 'north'), (2, 'flo', '2024-05-01 11:00', '50', 'paid', 'south');
SELECT * FROM shop.points;
-- into the status, by the leaf; a changed amount; out of it; back again
UPDATE shop.orders_north SET status = 'paid' WHERE id = 1;
UPDATE shop.orders SET total = '80' WHERE id = 1;
UPDATE shop.orders SET status = 'cancelled' WHERE id = 1;
UPDATE shop.orders SET status = 'cancelled' WHERE id = 1;
UPDATE shop.orders SET status = 'paid' WHERE id = 1;
DELETE FROM shop.orders WHERE id = 2;
SELECT * FROM shop.points;
SELECT occurred_at, store FROM loyalty.purchase WHERE reference = '1' AND source = 'shop.orders';
-- a statement over partitions, rows moving between them and other owners
INSERT INTO shop.orders_south (id, buyer, placed, total, status, region) SELECT i, 'ed', '2024-06-01', i, 'paid', 'south' FROM generate_series(10, 12) i;
UPDATE shop.orders SET region = 'north', buyer = 'flo' WHERE id = 11;
SELECT * FROM shop.points WHERE reference IN ('10', '11', '12');
-- errors name the table, the column and the row, and nothing is lost or changed
INSERT INTO shop.orders (id, buyer, placed, total, status, region) SELECT i, 'ed', '2024-06-01', CASE i WHEN 777 THEN 'free' ELSE '1' END, 'paid', 'north' FROM generate_series(100, 1000) i;
INSERT INTO shop.orders (id, buyer, placed, total, status, region) VALUES (20, 'nobody', '2024-06-01', '1', 'paid', 'north');
INSERT INTO shop.orders (id, buyer, placed, total, status, region) VALUES (10, 'ed', '2024-06-01', '999', 'paid', 'north');
TRUNCATE shop.orders;
SELECT loyalty.attach('shop.orders', 'purchase', '{}', :prog);
SELECT loyalty.attach('shop.orders_north', 'purchase', '{"member": "buyer", "reference": "id::text", "amount": "totl"}', :prog);
SELECT loyalty.attach('shop.orders_north', 'purchase', '{"member": "buyer", "reference": "id::text", "amount": "random()"}', :prog);
SELECT loyalty.attach('shop.orders_north', 'purchase', '{"member": "buyer", "reference": "id::text", "price": "1"}', :prog);
SELECT count(*) FROM shop.orders;
-- a header and its lines, in either order of arrival
CREATE TABLE shop.receipt (no int PRIMARY KEY, card text, paid numeric);
CREATE TABLE shop.receipt_line (receipt int, article text, units int, price numeric);
SELECT loyalty.attach('shop.receipt', 'purchase', '{"member": "card", "reference": "''R'' || no::text", "amount": "paid"}', :prog, source => 'shop.till',
    lines => 'shop.receipt_line', lines_key => 'receipt', header_key => 'no', lines_mapping => '{"sku": "article", "quantity": "units", "unit_price": "price"}') > 0 AS attached;
BEGIN;
INSERT INTO shop.receipt_line VALUES (1, 'A', 2, 10), (1, 'B', 1, 5);
INSERT INTO shop.receipt VALUES (1, 'ed', 25);
COMMIT;
INSERT INTO shop.receipt VALUES (2, 'flo', 7);
INSERT INTO shop.receipt_line VALUES (2, 'C', 7, 1);
SELECT * FROM shop.points WHERE reference LIKE 'R%';
SELECT p.reference, l.line, l.sku, l.quantity, l.amount FROM loyalty.purchase p JOIN loyalty.purchase_line l USING (purchase_id) WHERE p.source = 'shop.till' ORDER BY 1, 2;
-- a mapping of lines that fails names its table and the line
CREATE TABLE shop.slip (no int PRIMARY KEY, card text);
CREATE TABLE shop.slip_line (slip int, article text, units text);
SELECT loyalty.attach('shop.slip', 'purchase', '{"member": "card", "reference": "no::text", "amount": "2"}', :prog,
    lines => 'shop.slip_line', lines_key => 'slip', header_key => 'no', lines_mapping => '{"sku": "article", "quantity": "units::numeric", "unit_price": "1"}') > 0 AS attached;
INSERT INTO shop.slip VALUES (1, 'ed');
\set VERBOSITY sqlstate
INSERT INTO shop.slip_line VALUES (1, 'A', 'two');
\set VERBOSITY default
-- activities
CREATE TABLE shop.review (id int PRIMARY KEY, author text, stars int, article text, approved boolean);
SELECT loyalty.attach('shop.review', 'activity', '{"member": "author", "reference": "id::text", "kind": "''review''", "value": "stars", "subject": "article"}', :prog, qualifies => 'approved') > 0 AS attached;
INSERT INTO shop.review VALUES (1, 'ed', 5, 'A', false), (2, 'flo', 1, 'B', true);
UPDATE shop.review SET approved = true;
SELECT v.reference, v.kind, v.value, v.subject, e.points FROM loyalty.entry e JOIN loyalty.activity v ON v.activity_id = e.source_id WHERE v.source = 'shop.review' ORDER BY 1;
SELECT * FROM loyalty.check();
-- a partition added later is found by check() and mended by attach_triggers
CREATE TABLE shop.orders_west PARTITION OF shop.orders FOR VALUES IN ('west');
SELECT invariant, detail FROM loyalty.check();
SELECT loyalty.attach_triggers('shop.orders');
SELECT loyalty.detach('shop.orders');
INSERT INTO shop.orders (id, buyer, placed, total, status, region) VALUES (30, 'ed', '2024-06-01', '1', 'paid', 'west');
SELECT count(*) FROM shop.points WHERE reference = '30';
-- the trigger function of a table that is not attached
CREATE TRIGGER forge AFTER INSERT ON shop.orders_west REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION loyalty.receive();
INSERT INTO shop.orders_west (id, buyer, placed, total, status, region) VALUES (31, 'ed', '2024-06-01', '1', 'paid', 'west');
SELECT * FROM loyalty.check();
-- returns: negative rows of the table of sales, and a table of their own
CREATE TABLE shop.sale (no text PRIMARY KEY, card text, cancels text, sold timestamptz, total numeric);
SELECT loyalty.attach('shop.sale', 'purchase', '{"member": "card", "reference": "no", "occurred_at": "sold", "amount": "total"}', :prog, qualifies => 'total > 0') > 0 AS sales,
       loyalty.attach('shop.sale', 'return', '{"reference": "no", "occurred_at": "sold", "purchase": "cancels", "purchase_source": "''shop.sale''", "amount": "-total"}', :prog, qualifies => 'total < 0') > 0 AS returns;
INSERT INTO shop.sale VALUES ('S1', 'ed', NULL, '2024-05-01', 90), ('C1', 'ed', 'S1', '2024-05-02', -30);
SELECT d.number, d.amount, d.points_taken, d.complete FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) WHERE p.source = 'shop.sale' ORDER BY 1;
-- the same row again takes nothing, another content is refused, and so is taking it back
UPDATE shop.sale SET card = card WHERE no = 'C1';
UPDATE shop.sale SET total = -31 WHERE no = 'C1';
DELETE FROM shop.sale WHERE no = 'C1';
INSERT INTO shop.sale VALUES ('C2', 'ed', 'S9', '2024-05-02', -30);
CREATE TABLE shop.sent_back (id int PRIMARY KEY, slip text, of_sale text, items jsonb, accepted boolean);
SELECT loyalty.attach('shop.sent_back', 'return', '{"reference": "slip", "purchase": "of_sale", "purchase_source": "''shop.till''", "lines": "items"}', :prog, qualifies => 'accepted') > 0 AS attached;
INSERT INTO shop.sent_back VALUES (1, 'B1', 'R1', '[{"sku": "A", "quantity": 1}, {"line": 2}]', false);
SELECT count(*) FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) WHERE p.source = 'shop.till';
UPDATE shop.sent_back SET accepted = true;
SELECT d.number, d.amount, d.points_taken, d.complete FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) WHERE p.source = 'shop.till' ORDER BY 1;
INSERT INTO shop.sent_back VALUES (2, 'B2', 'R1', '[{"sku": "A", "pieces": 1}]', true);
SELECT loyalty.detach('shop.sale');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'shop.sale'::regclass;
DROP TRIGGER forge ON shop.orders_west;
SELECT * FROM loyalty.check();
-- what is no table of the shop's own, or goes away, is not attached
CREATE TEMP TABLE fleeting (id int, who text, total numeric);
CREATE VIEW shop.view AS SELECT * FROM shop.sale;
SELECT loyalty.add_wallet(:prog, 'Wallet of the attached') AS wallet \gset
\set mapping '{"member": "who", "reference": "id::text", "amount": "total"}'
SELECT loyalty.attach('fleeting', 'purchase', :'mapping', :prog);
SELECT loyalty.attach('shop.view', 'purchase', :'mapping', :prog);
SELECT loyalty.attach('loyalty.member', 'activity', '{"member": "external_id", "reference": "member_id::text", "kind": "''enrolled''"}', :prog);
SELECT loyalty.attach('pg_class', 'activity', '{"member": "relname::text", "reference": "oid::text", "kind": "''table''"}', :prog);
CREATE TABLE shop.gone (id int, who text, total numeric);
\set VERBOSITY terse
SELECT loyalty.attach('shop.gone', 'purchase', :'mapping', :wallet);
SELECT loyalty.attach('shop.gone', 'purchase', :'mapping', :prog, lines => 'loyalty.purchase', lines_key => 'purchase_id', header_key => 'id', lines_mapping => '{}');
\set VERBOSITY default
-- a table may have another name; of one that is gone check() says how to let go of it
CREATE TABLE shop.gone_line (gone int, article text);
SELECT loyalty.attach('shop.gone', 'purchase', :'mapping', :prog, lines => 'shop.gone_line', lines_key => 'gone', header_key => 'id', lines_mapping => '{"sku": "article"}') > 0 AS attached;
SELECT loyalty.detach_source('shop.gone');
ALTER TABLE shop.gone RENAME TO elsewhere;
INSERT INTO shop.elsewhere VALUES (1, 'ed', 3);
SELECT reference, points FROM shop.points WHERE reference = '1' AND points = 3;
SELECT * FROM loyalty.check();
DROP TABLE shop.elsewhere;
SELECT * FROM loyalty.check();
SELECT loyalty.detach_source('shop.gone');
SELECT loyalty.detach_source('shop.gone');
INSERT INTO shop.gone_line VALUES (1, 'A');
SELECT * FROM loyalty.check();
-- a dump that leaves tables out: the others are attached all the same
SELECT '"shop".no_such_table'::loyalty.table_ref, '12345'::loyalty.table_ref, 'shop.sale'::loyalty.table_ref = 'shop.sale'::regclass AS found;
-- what a row lacks is told of the attached table, not of where its rows go
CREATE TABLE shop.lacking (id int, who text, total numeric);
SELECT loyalty.attach('shop.lacking', 'purchase', :'mapping', :prog) > 0 AS attached;
INSERT INTO shop.lacking VALUES (7, 'ed', NULL);
SELECT loyalty.detach('shop.lacking'), loyalty.attach('shop.lacking', 'activity', '{"member": "who", "reference": "id::text", "kind": "total::text"}', :prog) > 0 AS attached;
INSERT INTO shop.lacking VALUES (7, NULL, 1);
INSERT INTO shop.lacking VALUES (7, 'ed', NULL);
SELECT loyalty.detach('shop.lacking');
SELECT * FROM loyalty.check();
