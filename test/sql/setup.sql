-- programmes, tiers, rules and their words
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
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Setup' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Setup') AND external_id = who $$;
SELECT loyalty.create_program('Setup', 'Europe/London', 'GBP', points_name => 'stars', points_scale => 2, point_value => 0.01) = pg_temp.p() AS made;
SELECT time_zone, currency, points_name, points_scale, hold_days, expiry, expiry_months, rounding, negative, tier_window, on_rule_error FROM loyalty.program WHERE program_id = pg_temp.p();
SELECT state FROM pg_temp.refused($$SELECT loyalty.create_program('Setup')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.create_program('Setup 2', 'Nowhere/Land')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.create_program('Setup 2', expiry => 'fixed_day')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.create_program('Setup 2', rounding => 'up')$$);
-- tiers take the next rank and keep the order of their thresholds
SELECT loyalty.add_tier(pg_temp.p(), 'Low', 0) > 0 AS low, loyalty.add_tier(pg_temp.p(), 'Mid', 100, multiplier => 1.5) > 0 AS mid, loyalty.add_tier(pg_temp.p(), 'High', 500, rank => 9) > 0 AS high;
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_tier(pg_temp.p(), 'Late', 50)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.add_tier(pg_temp.p(), 'Between', 300, rank => 5)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.add_tier(pg_temp.p(), 'Low', 9000)$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.add_tier(pg_temp.p(), 'Odd', 9000, 'smiles')$$);
SELECT state FROM pg_temp.refused($$SELECT loyalty.add_tier(-1, 'Low', 0)$$);
SELECT name, metric, threshold, multiplier, rank FROM loyalty.tier WHERE program_id = pg_temp.p() ORDER BY rank;
-- rules in words
SELECT count(loyalty.add_rule(pg_temp.p(), name, event, kind, points, condition)) FROM (VALUES
    ('each', 'purchase', 'base', 'purchase.amount', NULL),
    ('two each', 'purchase', 'base', 'purchase.amount * 2', 'purchase.store = ''S1'''),
    ('big', 'purchase', 'bonus', '50', 'purchase.amount >= 100'),
    ('first', 'purchase', 'bonus', '10', 'purchase.number = 1'),
    ('birthday', 'purchase', 'multiply', '3', 'member.is_birthday'),
    ('toys', 'line', 'multiply', '2', 'product.category = ''toys'''),
    ('review', 'activity', 'base', '5', 'activity.kind = ''review'''),
    ('other', 'purchase', 'bonus', '1', 'purchase.quantity > 3 or member.staff')) v (name, event, kind, points, condition);
SELECT name, loyalty.describe(pg_temp.p(), name) FROM loyalty.rule_current WHERE program_id = pg_temp.p() ORDER BY name;
SELECT state FROM pg_temp.refused($$SELECT loyalty.describe(pg_temp.p(), 'nonesuch')$$);
-- versions are immutable, retired once
SELECT loyalty.replace_rule(pg_temp.p(), 'big', points => '60', from_at => '2025-01-01') AS version;
SELECT version, points, condition, active_from, retired_from FROM loyalty.rule_version JOIN loyalty.rule USING (rule_id) WHERE program_id = pg_temp.p() AND name = 'big' ORDER BY version;
SELECT state FROM pg_temp.refused($$UPDATE loyalty.rule_version SET retired_from = 'infinity' WHERE retired_at IS NOT NULL$$);
SELECT state FROM pg_temp.refused($$UPDATE loyalty.rule_version SET points = '9'$$);
SELECT state FROM pg_temp.refused($$DELETE FROM loyalty.rule_version$$);
SELECT loyalty.retire_rule(pg_temp.p(), 'big', '2026-01-01', 'over');
SELECT state FROM pg_temp.refused($$SELECT loyalty.retire_rule(pg_temp.p(), 'big')$$);
-- lines of a basket
SELECT * FROM unnest(loyalty.lines('[{"sku": "A", "quantity": 2, "unit_price": 1.5}, {"amount": 3, "discount": 0.25}]'));
SELECT cardinality(loyalty.lines('[]')), loyalty.lines(NULL) IS NULL AS nothing;
SELECT * FROM pg_temp.refused($$SELECT loyalty.lines('{}')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.lines('[{}, 3]')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.lines('[{"sku": "A"}, {"colour": "red"}]')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.lines('[{"sku": "A", "amount": "much"}]')$$);
SELECT * FROM loyalty.check();
-- articles are of a programme that exists; a policy that is refused says what it may be
SELECT * FROM pg_temp.refused($$INSERT INTO loyalty.product (program_id, sku) VALUES (pg_temp.p(), 'theirs'), (999, 'nobody''s')$$);
SELECT * FROM pg_temp.refused($$UPDATE loyalty.product SET program_id = 999$$);
\set VERBOSITY default
SELECT loyalty.create_program('x', downgrade => 'earned');
SELECT loyalty.create_program('x', expiry => 'after', expiry_months => 0);
SELECT loyalty.change_program(pg_temp.p(), '{"tier_months": 0}');
