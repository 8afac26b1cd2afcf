-- balance, statement, quote, explain and the cabinet
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
    RETURN NEXT;
END
$$;
-- ids differ with the tests that ran before: names stand in for them
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Read' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Read') AND external_id = who $$;
SELECT loyalty.create_program('Read', currency => 'EUR', hold_days => 14, expiry_months => 12, expiry_round => 'day', point_value => 0.05) = pg_temp.p() AS made;
SELECT loyalty.add_tier(pg_temp.p(), 'Silver', 100, 'spend') > 0 AS silver, loyalty.add_tier(pg_temp.p(), 'Gold', 1000, 'spend') > 0 AS gold;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base, loyalty.add_rule(pg_temp.p(), 'big', 'purchase', 'bonus', '5', 'purchase.amount >= 50') > 0 AS bonus;
SELECT loyalty.enroll(pg_temp.p(), 'ann', '2024-01-01') > 0 AS ann;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, reference, lines) VALUES
    (pg_temp.m('ann'), '2025-03-01 10:00', 60, 'read-1', loyalty.lines('[{"sku": "A", "quantity": 2, "unit_price": 20}, {"sku": "B", "amount": 20}]')),
    (pg_temp.m('ann'), '2025-04-01 10:00', 40, 'read-2', NULL), (pg_temp.m('ann'), '2025-05-01 10:00', 7, 'read-3', NULL);
-- before, pending, available, partly dead, all dead
SELECT d::date AS day, b.* FROM unnest('{2025-02-28,2025-03-01,2025-03-15,2025-05-20,2026-03-15,2026-05-15}'::date[]) d, loyalty.balance(pg_temp.m('ann'), d) b;
SELECT state FROM pg_temp.refused($$SELECT loyalty.balance(-1)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.balance(pg_temp.m('ann'), 'infinity')$$);
-- newest first; the running balance is right with a limit and with a period
SELECT seq, occurred_at, kind, points, balance_after, description, available_from, expires_on FROM loyalty.statement(pg_temp.m('ann'));
SELECT seq, balance_after FROM loyalty.statement(pg_temp.m('ann'), max_rows => 1);
SELECT seq, balance_after FROM loyalty.statement(pg_temp.m('ann'), '2025-03-01', '2025-04-15');
SELECT count(*) FROM loyalty.statement(pg_temp.m('ann'), max_rows => 0);
SELECT state FROM pg_temp.refused($$SELECT loyalty.statement(pg_temp.m('ann'), max_rows => -1)$$);
-- a quote is the award, and writes nothing
SELECT points, available_from, expires_on, tier, tier_after, jsonb_array_length(breakdown) AS rules FROM loyalty.quote(pg_temp.m('ann'), 80, occurred_at => '2025-06-01 10:00');
SELECT count(*) AS entries FROM loyalty.entry WHERE account_id = pg_temp.m('ann');
SELECT rule, version, kind, fired, points FROM loyalty.explain((SELECT purchase_id FROM loyalty.purchase WHERE reference = 'read-1')) ORDER BY rule;
-- views
SELECT line, sku, quantity, unit_price, amount FROM loyalty.purchase_line WHERE member_id = pg_temp.m('ann') ORDER BY line;
SELECT seq, rule, version, points FROM loyalty.entry_rule WHERE account_id = pg_temp.m('ann') ORDER BY seq, rule;
SELECT seq, line, points FROM loyalty.entry_line WHERE account_id = pg_temp.m('ann') ORDER BY seq, line;
SELECT tier, valid_from, valid_to, cause FROM loyalty.tier_history WHERE member_id = pg_temp.m('ann');
SELECT expiry_month, points FROM loyalty.points_outstanding WHERE program_id = pg_temp.p() ORDER BY 1;
SELECT (SELECT sum(points) FROM loyalty.points_outstanding WHERE program_id = pg_temp.p()) = (SELECT sum(points) FROM loyalty.entry WHERE account_id = pg_temp.m('ann')) AS outstanding_is_the_ledger;
-- the cabinet, with a lot that does not die within the test
SELECT loyalty.adjust(pg_temp.m('ann'), 250, 'gift', expires_on => '2999-01-01') AS seq;
SELECT c -> 'balance' ->> 'available' AS available, c -> 'worth' ->> 'currency' AS currency, c -> 'lots' -> 0 ->> 'expires_on' AS dies, c -> 'tier' ->> 'name' AS tier,
       c -> 'lifetime' AS lifetime, jsonb_array_length(c -> 'statement') AS lines, (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(c) k) AS keys FROM loyalty.cabinet(pg_temp.m('ann')) c;
SELECT * FROM loyalty.check();
SELECT a, r.* FROM unnest('{NULL,-1}'::text[]) a, pg_temp.refused(format('SELECT loyalty.statement(pg_temp.m(''ann''), max_rows => %s)', coalesce(a, 'NULL'))) r;
SELECT a, r.* FROM unnest('{"{}",3,"[3]","null"}'::jsonb[]) a, pg_temp.refused(format('SELECT loyalty.simulate(pg_temp.p(), %L)', a)) r;
SELECT count(*) FROM loyalty.simulate(pg_temp.p(), '[{"name": "a draft", "kind": "bonus", "points": "1"}]') WHERE rule = 'a draft';
