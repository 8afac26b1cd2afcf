-- caps of rules, per member and period, and budgets of rules
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
    RETURN NEXT;
END
$$;
-- ids differ with the tests that ran before: names stand in for them
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Caps' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql AS $$ SELECT member_id FROM loyalty.member WHERE program_id = pg_temp.p() AND external_id = who $$;
CREATE FUNCTION pg_temp.buy(who text, at timestamptz, amount numeric, reference text, lines loyalty.line[] DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
    $$ INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference, source) VALUES (pg_temp.m(who), at, amount, lines, reference, 'caps') RETURNING purchase_id $$;
CREATE FUNCTION pg_temp.b(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT purchase_id FROM loyalty.purchase WHERE source = 'caps' AND reference = name $$;
CREATE VIEW pg_temp.given AS SELECT p.reference, r.rule, trim_scale(sum(r.exact)) AS wanted, sum(r.points) AS points
    FROM loyalty.purchase p JOIN loyalty.entry_rule r ON r.source_id = p.purchase_id WHERE p.source = 'caps' GROUP BY p.purchase_id, 1, 2 ORDER BY p.purchase_id, 2;
CREATE VIEW pg_temp.used AS SELECT m.external_id, r.name, s.period, s.from_day, s.used FROM loyalty.cap_state s JOIN loyalty.rule r USING (rule_id) JOIN loyalty.member m USING (member_id)
    WHERE r.program_id = pg_temp.p() ORDER BY 1, 2, 3, 4;
SELECT loyalty.create_program('Caps', time_zone => 'America/New_York', currency => 'USD', expiry => 'never') = pg_temp.p() AS made;
SELECT count(loyalty.enroll(pg_temp.p(), name, '2014-01-01')) FROM unnest('{ann,bea,cid,dan,eve}'::text[]) name;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount * 0.5') > 0 AS base;
SELECT loyalty.add_rule(pg_temp.p(), 'extra', 'purchase', 'bonus', 'purchase.amount', 'purchase.amount < 1000', caps => '{"day": 50, "month": 120}') > 0 AS extra;
-- cut exactly, before the rounding; the entry keeps what was wanted; a day is the programme's
SELECT count(pg_temp.buy('ann', at, amount, reference)) FROM (VALUES
    ('2015-03-02 15:00+00'::timestamptz, 33.5, 'a1'), ('2015-03-02 16:00+00', 120, 'a2'), ('2015-03-03 03:00+00', 10, 'a3'), ('2015-03-03 06:00+00', 40, 'a4'), ('2015-03-04 16:00+00', 90, 'a5'), ('2015-04-01 16:00+00', 90, 'a6')) v (at, amount, reference);
SELECT * FROM pg_temp.given;
SELECT * FROM pg_temp.used;
SELECT rule, fired, points, exact, why FROM loyalty.explain(pg_temp.b('a2'));
SELECT rule, fired, points, exact, why FROM loyalty.explain(pg_temp.b('a3'));
SELECT rule, fired, points, exact, why FROM loyalty.explain(pg_temp.b('a1'));
SELECT * FROM loyalty.check();
-- what is voided is there again, once; an UPDATE is judged on what others left; nothing changes, nothing is posted
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.b('a1');
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.b('a1');
SELECT * FROM pg_temp.used WHERE from_day = '2015-03-02';
UPDATE loyalty.purchase SET amount = amount WHERE purchase_id = pg_temp.b('a2');
UPDATE loyalty.purchase SET store = 'x' WHERE purchase_id = pg_temp.b('a2');
SELECT * FROM pg_temp.given WHERE reference IN ('a1', 'a2', 'a3');
UPDATE loyalty.purchase SET amount = 30 WHERE purchase_id = pg_temp.b('a2');
UPDATE loyalty.purchase SET amount = 70 WHERE purchase_id = pg_temp.b('a3');
UPDATE loyalty.purchase SET status = 'completed' WHERE purchase_id = pg_temp.b('a1');
SELECT * FROM pg_temp.given WHERE reference IN ('a1', 'a2', 'a3');
SELECT * FROM pg_temp.used;
SELECT count(*) AS entries FROM loyalty.entry WHERE source_id IN (pg_temp.b('a1'), pg_temp.b('a2'), pg_temp.b('a3'));
UPDATE loyalty.purchase SET amount = amount WHERE source = 'caps';
SELECT count(*) AS entries FROM loyalty.entry WHERE source_id IN (pg_temp.b('a1'), pg_temp.b('a2'), pg_temp.b('a3'));
SELECT * FROM loyalty.check();
-- another day, another member
UPDATE loyalty.purchase SET occurred_at = '2015-03-20 16:00+00' WHERE purchase_id = pg_temp.b('a3');
UPDATE loyalty.purchase SET member_id = pg_temp.m('bea') WHERE purchase_id = pg_temp.b('a2');
SELECT * FROM pg_temp.used;
SELECT * FROM loyalty.check();
-- what comes back whole gives it back, once; a part of it does not
INSERT INTO loyalty.purchase_return (purchase_id, amount) VALUES (pg_temp.b('a2'), 10);
SELECT * FROM pg_temp.used WHERE external_id = 'bea';
INSERT INTO loyalty.purchase_return (purchase_id, amount) VALUES (pg_temp.b('a2'), 20);
SELECT * FROM pg_temp.used WHERE external_id = 'bea';
SELECT pg_temp.buy('bea', '2015-03-02 18:00+00', 49, 'b1') > 0 AS bought;
UPDATE loyalty.purchase SET occurred_at = '2015-03-02 17:00+00' WHERE purchase_id = pg_temp.b('a2');
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.b('a2');
SELECT * FROM pg_temp.used WHERE external_id = 'bea';
SELECT * FROM loyalty.check();
-- a quote is what the award gives, and uses nothing
SELECT points FROM loyalty.quote(pg_temp.m('bea'), 20, occurred_at => '2015-03-02 19:00+00');
SELECT points FROM loyalty.quote(pg_temp.m('bea'), 20, occurred_at => '2015-03-02 19:00+00');
SELECT pg_temp.buy('bea', '2015-03-02 19:00+00', 20, 'b2') > 0 AS bought;
SELECT sum(points) FROM pg_temp.given WHERE reference = 'b2';
-- many rows are as one after the other
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, source)
    SELECT pg_temp.m('cid'), '2015-05-04 12:00+00'::timestamptz + interval '10 hours' * i, 20, 'c' || i, 'caps' FROM generate_series(9, 0, -1) i;
SELECT * FROM pg_temp.given WHERE reference LIKE 'c_' AND rule = 'extra' ORDER BY reference;
SELECT * FROM pg_temp.used WHERE external_id = 'cid';
-- several capped rules, lines, a multiplier and the tier's: each rule's own part is cut, and all parts add up
SELECT loyalty.add_rule(pg_temp.p(), 'toys', 'line', 'bonus', 'line.amount', 'line.sku = ''TOY''', caps => '{"week": 10}') > 0 AS toys;
SELECT loyalty.add_rule(pg_temp.p(), 'double', 'purchase', 'multiply', '2.5', 'purchase.amount > 10', caps => '{"year": 15, "ever": 100}') > 0 AS double;
SELECT pg_temp.buy('dan', '2015-06-01 12:00+00', 30.25, 'd1', loyalty.lines('[{"sku": "TOY", "unit_price": 20.25}, {"sku": "TEA", "unit_price": 10}]')) > 0 AS bought;
SELECT pg_temp.buy('dan', '2015-06-07 12:00+00', 30.25, 'd2', loyalty.lines('[{"sku": "TOY", "unit_price": 20.25}, {"sku": "TEA", "unit_price": 10}]')) > 0 AS bought;
SELECT * FROM pg_temp.given WHERE reference LIKE 'd_';
SELECT p.reference, l.line, l.points FROM loyalty.entry_line l JOIN loyalty.purchase p ON p.purchase_id = l.source_id WHERE p.reference LIKE 'd_' AND p.source = 'caps' ORDER BY 1, 2;
SELECT * FROM pg_temp.used WHERE external_id = 'dan';
-- in words, and what is wrong with them
SELECT name, loyalty.describe(pg_temp.p(), name) FROM loyalty.rule_current WHERE program_id = pg_temp.p() ORDER BY 1;
SELECT loyalty.replace_rule(pg_temp.p(), 'double', caps => '{}') AS version;
SELECT loyalty.replace_rule(pg_temp.p(), 'toys', '0.5 * line.amount') AS version;
SELECT loyalty.replace_rule(pg_temp.p(), 'toys', caps => '{"day": 20, "week": 5, "ever": 0}') AS version;
SELECT rule, severity, finding, hint FROM loyalty.lint_rules(pg_temp.p()) WHERE rule <> 'double';
SELECT name, version, caps FROM loyalty.rule_current WHERE program_id = pg_temp.p() ORDER BY 1, 2;
SELECT r.* FROM unnest(ARRAY['{"day": -1}', '{"fortnight": 1}', '{"day": "5"}', '{"day": 0.5}', '5', '{"day": 1e30}', '[1]', '{"day": null}']) AS c, pg_temp.refused(format('SELECT loyalty.add_rule(pg_temp.p(), ''bad'', ''purchase'', ''bonus'', ''1'', caps => %L)', c)) r;
-- what is left
SELECT name, event, measure, maximum, per, used, "left", verdict, renews_on IS NOT NULL AS renews FROM loyalty.limit_status(pg_temp.m('dan'));
-- simulated rules have their caps, from the beginning of the simulated time
SELECT rule, awards, points FROM loyalty.simulate(pg_temp.p(), '[{"name": "s", "kind": "bonus", "points": "purchase.amount", "caps": {"month": 60}}]', '2015-05-01', '2015-06-01', false);
SELECT rule, awards, points FROM loyalty.simulate(pg_temp.p(), '[]', '2015-05-01', '2015-06-01');
SELECT * FROM loyalty.check();
-- a budget for all members together: the last points are found, what is voided or comes back is there again
SELECT loyalty.retire_rule(pg_temp.p(), name, '2015-07-01') FROM unnest('{extra,double,toys}'::text[]) name;
SELECT loyalty.add_rule(pg_temp.p(), 'gift', 'purchase', 'bonus', 'purchase.amount', active_from => '2015-07-01', caps => '{"day": 80}', budget => 200) > 0 AS gift;
CREATE VIEW pg_temp.gift AS SELECT rule, budget, spent, "left" FROM loyalty.budget_status WHERE program_id = pg_temp.p();
SELECT count(pg_temp.buy(who, at, amount, reference)) FROM (VALUES
    ('ann', '2015-07-02 15:00+00'::timestamptz, 60.5, 'g1'), ('bea', '2015-07-02 16:00+00', 100, 'g2'), ('cid', '2015-07-02 17:00+00', 100, 'g3'), ('dan', '2015-07-02 18:00+00', 100, 'g4')) v (who, at, amount, reference);
SELECT * FROM pg_temp.given WHERE reference LIKE 'g_' AND rule = 'gift';
SELECT * FROM pg_temp.gift;
SELECT rule, points, why FROM loyalty.explain(pg_temp.b('g3')) WHERE rule = 'gift';
SELECT points FROM loyalty.quote(pg_temp.m('eve'), 20, occurred_at => '2015-07-02 19:00+00');
SELECT * FROM loyalty.check();
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = pg_temp.b('g1');
INSERT INTO loyalty.purchase_return (purchase_id) VALUES (pg_temp.b('g3'));
SELECT * FROM pg_temp.gift;
SELECT points FROM loyalty.quote(pg_temp.m('eve'), 20, occurred_at => '2015-07-02 19:00+00');
UPDATE loyalty.purchase SET amount = amount WHERE reference LIKE 'g_' AND source = 'caps';
SELECT * FROM pg_temp.gift;
SELECT pg_temp.buy('eve', '2015-07-03 12:00+00', 70, 'g5') > 0 AS bought;
SELECT * FROM pg_temp.given WHERE reference IN ('g4', 'g5') AND rule = 'gift';
SELECT * FROM loyalty.check();
-- more, less, and not less than was given
SELECT loyalty.set_budget(pg_temp.p(), 'gift', 1000, 'it went well');
SELECT * FROM pg_temp.gift;
SELECT loyalty.set_budget(pg_temp.p(), 'gift', 240);
SELECT r.* FROM unnest('{100,-1,0.5,1e30,NULL}'::text[]) AS b, pg_temp.refused(format('SELECT loyalty.set_budget(pg_temp.p(), ''gift'', %L)', b)) r;
SELECT state FROM pg_temp.refused($$SELECT loyalty.set_budget(pg_temp.p(), 'none', 1)$$);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, source)
    SELECT pg_temp.m(who), '2015-07-06 12:00+00'::timestamptz + interval '10 minutes' * n, 15, 'h' || n, 'caps' FROM unnest('{eve,ann,dan,bea,cid}'::text[]) WITH ORDINALITY u (who, n) ORDER BY who;
SELECT * FROM pg_temp.given WHERE reference LIKE 'h_' AND rule = 'gift' ORDER BY reference;
SELECT * FROM pg_temp.gift;
SELECT loyalty.describe(pg_temp.p(), 'gift');
SELECT loyalty.replace_rule(pg_temp.p(), 'gift', caps => '{"month": 500}') AS version;
SELECT rule, severity, finding, hint FROM loyalty.lint_rules(pg_temp.p()) WHERE rule = 'gift';
-- a rule gets a budget later: what it gave before is not of it, and stays
SELECT loyalty.set_budget(pg_temp.p(), 'base', 30);
UPDATE loyalty.purchase SET amount = 40 WHERE purchase_id = pg_temp.b('h1');
SELECT pg_temp.buy('eve', '2015-07-08 12:00+00', 70, 'i1') > 0 AS bought;
SELECT * FROM pg_temp.given WHERE reference IN ('h1', 'i1');
SELECT * FROM pg_temp.gift ORDER BY 1;
SELECT * FROM loyalty.check();
-- an award that waits uses nothing until it is released; refused it gives back
SELECT loyalty.add_limit(pg_temp.p(), 'one a day', 1, '1 day', verdict => 'hold') > 0 AS limited;
SELECT loyalty.set_budget(pg_temp.p(), 'base', 1000);
SELECT loyalty.set_budget(pg_temp.p(), 'gift', 400);
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, source) VALUES (pg_temp.m('ann'), now(), 10, 'w1', 'caps'), (pg_temp.m('ann'), now(), 20, 'w2', 'caps');
SELECT u.granted FROM loyalty.cap_use u WHERE u.source_id = pg_temp.b('w2');
SELECT loyalty.release_award(pg_temp.b('w2')) AS points;
SELECT u.granted FROM loyalty.cap_use u WHERE u.source_id = pg_temp.b('w2') ORDER BY 1;
SELECT loyalty.refuse(pg_temp.b('w2'), 'no');
SELECT count(*) FROM loyalty.cap_use u WHERE u.source_id = pg_temp.b('w2');
SELECT rule, spent FROM pg_temp.gift ORDER BY 1;
SELECT loyalty.retire_limit(pg_temp.p(), 'one a day');
-- activities, a wallet's rules, and members that share an account: everybody has caps of their own
SELECT loyalty.add_wallet(pg_temp.p(), 'stars') > 0 AS wallet;
SELECT loyalty.add_rule(program_id, 'star', 'activity', 'bonus', '3', caps => '{"day": 7}', budget => 25) > 0 AS star FROM loyalty.program WHERE wallet_of = pg_temp.p();
SELECT loyalty.add_rule(pg_temp.p(), 'visit', 'activity', 'bonus', '5', caps => '{"ever": 8}') > 0 AS visit;
SELECT loyalty.create_household(pg_temp.p(), 'Caps home') > 0 AS home;
SELECT count(loyalty.join_household(pg_temp.m(name), pg_temp.m('Caps home'))) FROM unnest('{ann,bea}'::text[]) name;
INSERT INTO loyalty.activity (member_id, kind, occurred_at, reference, source) SELECT pg_temp.m(who), 'visit', '2015-08-01 12:00+00', who || n, 'caps' FROM unnest('{ann,bea,cid}'::text[]) who, generate_series(1, 3) n;
SELECT m.external_id, r.rule, sum(r.points) FROM loyalty.activity a JOIN loyalty.member m USING (member_id) JOIN loyalty.entry_rule r ON r.source_id = a.activity_id WHERE a.source = 'caps' GROUP BY 1, 2 ORDER BY 1, 2;
UPDATE loyalty.activity SET status = 'void' WHERE source = 'caps' AND reference IN ('ann1', 'cid1');
UPDATE loyalty.activity SET attributes = '{}' WHERE source = 'caps';
SELECT m.external_id, r.rule, sum(r.points) FROM loyalty.activity a JOIN loyalty.member m USING (member_id) JOIN loyalty.entry_rule r ON r.source_id = a.activity_id WHERE a.source = 'caps' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT rule, budget, spent FROM loyalty.budget_status WHERE rule = 'star';
SELECT name, maximum, used, "left" FROM loyalty.limit_status(pg_temp.m('ann'));
SELECT * FROM loyalty.check();
