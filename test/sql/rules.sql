-- versions of a rule never overlap; lint and words
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
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Rules' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Rules') AND external_id = who $$;
SELECT loyalty.create_program('Rules', currency => 'EUR') = pg_temp.p() AS made;
SELECT loyalty.enroll(pg_temp.p(), 'ann', '2024-01-01') > 0 AS ann;
SELECT loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base;
SELECT loyalty.replace_rule(pg_temp.p(), 'base', 'purchase.amount * 2', from_at => '2025-06-01') AS version;
-- version 1 applies until June: another start before it would make two versions fire on one purchase
SELECT * FROM pg_temp.refused($$SELECT loyalty.replace_rule(pg_temp.p(), 'base', 'purchase.amount * 3', from_at => '2025-03-01')$$);
SELECT loyalty.replace_rule(pg_temp.p(), 'base', 'purchase.amount * 3', from_at => '2025-06-01') AS version;
SELECT loyalty.retire_rule(pg_temp.p(), 'base', '2025-09-01', 'autumn');
SELECT * FROM pg_temp.refused($$SELECT loyalty.replace_rule(pg_temp.p(), 'base', 'purchase.amount * 4', from_at => '2025-08-01')$$);
SELECT loyalty.replace_rule(pg_temp.p(), 'base', 'purchase.amount * 4', from_at => '2025-10-01') AS version;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT pg_temp.m('ann'), d, 100 FROM unnest('{2025-04-01,2025-07-01,2025-09-15,2025-11-01}'::timestamptz[]) d;
SELECT occurred_at::date, rule, version, r.points FROM loyalty.entry e LEFT JOIN loyalty.entry_rule r USING (account_id, seq, occurred_at) WHERE account_id = pg_temp.m('ann') ORDER BY 1, 3;
-- what cannot start says so
SELECT loyalty.add_rule(pg_temp.p(), 'over', 'purchase', 'bonus', '1', active_until => '2020-01-01') > 0 AS added;
SELECT state, message <> '' AS told FROM pg_temp.refused($$SELECT loyalty.replace_rule(pg_temp.p(), 'over', '2')$$);
SELECT loyalty.replace_rule(pg_temp.p(), 'over', '2', from_at => '2020-01-01', active_until => '2021-01-01') AS version;
SELECT state FROM pg_temp.refused($$SELECT loyalty.retire_rule(pg_temp.p(), 'over', NULL)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.replace_rule(pg_temp.p(), 'over', '2', from_at => NULL)$$);
-- words
SELECT count(loyalty.add_rule(pg_temp.p(), name, event, kind, points, condition)) FROM (VALUES
    ('salt', 'line', 'bonus', '5', 'product.category = ''salt and pepper'''), ('this or that', 'line', 'bonus', '5', 'product.brand = ''this or that'' and product.own_brand'),
    ('weekend', 'purchase', 'multiply', '2', 'purchase.weekday in (6, 7)'), ('sunday', 'purchase', 'multiply', '2', 'purchase.weekday in (7)')) v (name, event, kind, points, condition);
-- constants that no rule may give are refused when it is saved
SELECT loyalty.add_rule(pg_temp.p(), 'negative', 'purchase', 'bonus', '-5');
SELECT loyalty.add_rule(pg_temp.p(), 'not a number', 'purchase', 'bonus', '''NaN''');
SELECT loyalty.add_rule(pg_temp.p(), 'huge', 'purchase', 'bonus', '10::numeric ^ 1000');
SELECT name, loyalty.describe(pg_temp.p(), name) FROM loyalty.rule_current WHERE program_id = pg_temp.p() ORDER BY name;
SELECT rule, severity, finding FROM loyalty.lint_rules(pg_temp.p());
SELECT * FROM loyalty.check();
