-- an insert awards its points in the same statement, and explains them
\set ECHO queries
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Club', time_zone => 'Europe/London', currency => 'GBP', point_value => 0.01, hold_days => 14) AS program;
SELECT loyalty.add_tier(1, 'Bronze', 0, 'spend'), loyalty.add_tier(1, 'Silver', 500, 'spend', 1.25), loyalty.add_tier(1, 'Gold', 2000, 'spend', 1.5);
INSERT INTO loyalty.product (program_id, sku, category, brand, own_brand, margin, excluded) VALUES
    (1, 'TOY', 'toys', 'Acme', false, 0.2, false), (1, 'TEA', 'drinks', 'House', true, 0.5, false), (1, 'CARD', 'gift cards', NULL, false, 0, true);
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
SELECT loyalty.add_rule(1, 'toys', 'line', 'multiply', '2', 'product.category = ''toys''');
SELECT loyalty.add_rule(1, 'big basket', 'purchase', 'bonus', '50', 'purchase.amount >= 100');
SELECT loyalty.add_rule(1, 'welcome', 'purchase', 'bonus', '10', 'purchase.number = 1');
SELECT loyalty.add_rule(1, 'above your average', 'purchase', 'bonus', '7', 'purchase.amount >= 1.5 * member.average_order');
SELECT loyalty.add_rule(1, 'weekend', 'purchase', 'bonus', '3', 'purchase.weekday in (6, 7)');
SELECT loyalty.add_rule(1, 'sign-up', 'activity', 'base', '25', 'activity.kind = ''sign-up''');
SELECT name, loyalty.describe(1, name) FROM loyalty.rule_current ORDER BY rule_version_id;
SELECT loyalty.enroll(1, 'anna', '2024-01-01'), loyalty.enroll(1, 'bob', '2024-01-01'), loyalty.enroll(1, 'anna') AS anna_again;
-- Monday 2024-01-01: 150 with a toy of 100
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference) VALUES
    (1, '2024-01-01 12:00', 150, loyalty.lines('[{"sku": "TOY", "unit_price": 100}, {"sku": "TEA", "quantity": 2, "unit_price": 25}]'), 'A1');
SELECT kind, points, lots, tally FROM loyalty.entry ORDER BY account_id, seq;
SELECT rule, exact, points FROM loyalty.entry_rule ORDER BY account_id, seq, rule_version_id;
SELECT line, points FROM loyalty.entry_line ORDER BY line;
SELECT rule, fired, points, why FROM loyalty.explain(1);
-- excluded articles, tax, shipping, gift cards and points earn nothing
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, tax, shipping, paid_with_points, paid_with_gift_card, lines) VALUES
    (2, '2024-01-02 12:00', 100, 10, 5, 20, 15, loyalty.lines('[{"sku": "TEA", "amount": 50}, {"sku": "CARD", "amount": 45}]'));
SELECT rule, exact, points FROM loyalty.entry_rule WHERE account_id = 2 ORDER BY seq, rule_version_id;
SELECT line, points FROM loyalty.entry_line WHERE account_id = 2 ORDER BY line;
-- a promotion inside a batch: the next event of the same statement earns at the new tier
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT 1, '2024-02-05 10:00'::timestamptz + i * interval '1 minute', 90 FROM generate_series(1, 6) i;
SELECT seq, points, lots FROM loyalty.entry WHERE account_id = 1 ORDER BY seq;
SELECT member_id, tier, valid_from, good_until, cause, source_id FROM loyalty.tier_history ORDER BY 1, 3;
-- a late purchase earns at the tier of its own time
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) VALUES (1, '2024-01-20', 80);
SELECT rule, points FROM loyalty.entry_rule WHERE account_id = 1 AND seq = 8 ORDER BY rule_version_id;
-- activities; those that no rule wants leave no trace in the ledger
INSERT INTO loyalty.activity (member_id, occurred_at, kind) VALUES (2, '2024-02-01', 'sign-up'), (2, '2024-02-01', 'login');
SELECT kind, points, lots FROM loyalty.entry WHERE account_id = 2 ORDER BY seq;
-- a guest's purchase is kept and earns nothing
INSERT INTO loyalty.purchase (amount) VALUES (10);
-- an update posts the difference, a void takes everything back, twice is once
UPDATE loyalty.purchase SET amount = 100, lines = loyalty.lines('[{"sku": "TOY", "unit_price": 100}]') WHERE reference = 'A1';
SELECT kind, points, lots, tally FROM loyalty.entry WHERE account_id = 1 AND source_id = 1 ORDER BY seq;
UPDATE loyalty.purchase SET store = 'S1' WHERE reference = 'A1';
UPDATE loyalty.purchase SET status = 'void' WHERE reference = 'A1';
UPDATE loyalty.purchase SET status = 'void' WHERE reference = 'A1';
SELECT loyalty.sum(lots), loyalty.sum(tally), count(*) FROM loyalty.entry WHERE source_id = 1;
-- and a purchase can move to another member
UPDATE loyalty.purchase SET member_id = 2 WHERE occurred_at = '2024-01-20';
SELECT account_id, kind, points FROM loyalty.entry WHERE source_id = (SELECT purchase_id FROM loyalty.purchase WHERE occurred_at = '2024-01-20') ORDER BY account_id, seq;
-- an upsert of the same row posts nothing; of a changed one, the difference
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (2, '2024-03-01', 40, 'U1')
    ON CONFLICT (source, reference) DO UPDATE SET amount = excluded.amount;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (2, '2024-03-01', 40, 'U1')
    ON CONFLICT (source, reference) DO UPDATE SET amount = excluded.amount;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference) VALUES (2, '2024-03-01', 45, 'U1')
    ON CONFLICT (source, reference) DO UPDATE SET amount = excluded.amount;
SELECT kind, points FROM loyalty.entry e JOIN loyalty.purchase p ON p.purchase_id = e.source_id WHERE reference = 'U1' ORDER BY seq;
-- quote = award
SELECT points, available_from, expires_on, tier, tier_after, breakdown FROM loyalty.quote(1, 120, occurred_at => '2024-03-09 12:00');
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) VALUES (1, '2024-03-09 12:00', 120);
SELECT points, lots FROM loyalty.entry WHERE account_id = 1 ORDER BY seq DESC LIMIT 1;
-- other currencies by the rate of the day
INSERT INTO loyalty.exchange_rate VALUES ('EUR', 'GBP', '2024-03-10', 0.85);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, currency) VALUES (2, '2024-03-10 12:00', 100, 'EUR');
SELECT points, tally FROM loyalty.entry WHERE account_id = 2 ORDER BY seq DESC LIMIT 1;
SELECT rule, tier, awards, points, cost FROM loyalty.simulate(1, '[{"name": "draft", "kind": "bonus", "points": "1"}]', '2024-02-01') ORDER BY 1, 2;
SELECT * FROM loyalty.check();
