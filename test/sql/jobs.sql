-- jobs write for days that were, in the programme's own zone
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
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Jobs' $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Jobs') AND external_id = who $$;
SELECT loyalty.create_program('Jobs', 'Pacific/Kiritimati', expiry_months => 1, expiry_round => 'day', downgrade => 'requalify') = pg_temp.p() AS made;
SELECT loyalty.add_tier(pg_temp.p(), 'Silver', 100) > 0 AS silver, loyalty.add_rule(pg_temp.p(), 'base', 'purchase', 'base', 'purchase.amount') > 0 AS base;
SELECT count(loyalty.enroll(pg_temp.p(), 'm' || i, '2023-01-01')) FROM generate_series(1, 5) i;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount) SELECT pg_temp.m('m' || i), '2024-01-10 12:00', 150 FROM generate_series(1, 5) i;
-- live points are not closed before their day, and nothing is demoted before its term ends
SELECT loyalty.adjust(pg_temp.m('m1'), 70, 'gift', expires_on => '2999-01-01') AS seq;
\set VERBOSITY sqlstate
CALL loyalty.close_expired('2999-06-01');
CALL loyalty.close_expired('infinity');
CALL loyalty.review_tiers('2999-06-01');
CALL loyalty.close_expired(batch => 0);
CALL loyalty.review_tiers(batch => NULL);
\set VERBOSITY default
SELECT available, next_expiry_on, next_expiry_points FROM loyalty.balance(pg_temp.m('m1'));
-- noon of the 10th is the 11th on Kiritimati: a month later the points live one day longer than in UTC
CREATE FUNCTION pg_temp.expired() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM loyalty.entry JOIN loyalty.account USING (account_id) WHERE program_id = pg_temp.p() AND kind = 'expire' $$;
CREATE FUNCTION pg_temp.reviewed() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM loyalty.tier_change JOIN loyalty.account USING (account_id) WHERE program_id = pg_temp.p() AND cause = 'review' $$;
CALL loyalty.close_expired('2024-02-10', batch => 2);
SELECT pg_temp.expired();
CALL loyalty.close_expired('2024-02-11', batch => 2);
SELECT pg_temp.expired();
CALL loyalty.review_tiers('2025-12-31', batch => 2);
SELECT pg_temp.reviewed();
CALL loyalty.review_tiers('2026-01-01', batch => 2);
SELECT pg_temp.reviewed();
-- the second run has nothing to do
CALL loyalty.close_expired('2024-02-11', batch => 2);
CALL loyalty.review_tiers('2026-01-01', batch => 2);
SELECT pg_temp.expired(), pg_temp.reviewed();
SELECT available FROM loyalty.balance(pg_temp.m('m1'));
SELECT * FROM loyalty.check();
