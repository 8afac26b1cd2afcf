-- a role with grant_bi alone reads every view for BI, and nothing that tells who a member is
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
CREATE EXTENSION pgtap;
CREATE ROLE tap_reader;
SELECT loyalty.grant_bi('tap_reader') \gset ignore_
SELECT loyalty.create_program('Read', point_value => 0.01) \gset ignore_
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount') \gset ignore_
SELECT loyalty.add_tier(1, 'Silver', 50, 'spend') \gset ignore_
INSERT INTO loyalty.product (program_id, sku, category, brand) VALUES (1, 'a', 'A', 'X'), (1, 'b', 'B', 'Y');
INSERT INTO loyalty.member (program_id, external_id, birthday, joined_at) SELECT 1, 'secret person ' || n, '1980-01-01', now() - interval '400 days' FROM generate_series(1, 5) n;
INSERT INTO loyalty.purchase (member_id, amount, lines, occurred_at, source, reference, attributes)
    SELECT member_id, 100, loyalty.lines('[{"sku": "a", "quantity": 1, "amount": 50}, {"sku": "b", "quantity": 1, "amount": 50}]'), now() - make_interval(days => 100 * n), 'tap', member_id || ' ' || n, '{"card": "secret card"}'
    FROM loyalty.member, generate_series(1, 3) n;
CALL loyalty.refresh_analysis();
SELECT * FROM no_plan();
CREATE TEMP VIEW bi AS SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = 'loyalty'::regnamespace AND c.relkind = 'v' AND c.relname LIKE 'bi\_%';
GRANT SELECT ON bi TO tap_reader;
SELECT cmp_ok(count(*), '>=', 46::bigint, 'the views are there') FROM bi;
SELECT is_empty($$SELECT relname FROM bi WHERE obj_description(oid, 'pg_class') IS NULL$$, 'every one says what it answers');
SELECT is_empty($$SELECT b.relname, a.attname FROM bi b JOIN pg_attribute a ON a.attrelid = b.oid AND a.attnum > 0 WHERE col_description(b.oid, a.attnum) IS NULL$$, 'and what every column is');
SELECT is_empty($$SELECT b.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM bi b JOIN pg_attribute a ON a.attrelid = b.oid AND a.attnum > 0
    WHERE a.atttypid NOT IN ('int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'date'::regtype, 'text'::regtype, 'bool'::regtype, 'timestamptz'::regtype, 'float8'::regtype)$$, 'all of plain types');
SELECT is_empty($$SELECT relname FROM bi WHERE relname <> 'bi_freshness' AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = oid AND a.attname = 'program_id')$$, 'all say of which programme');
SELECT is_empty($$SELECT b.relname, a.attname FROM bi b JOIN pg_attribute a ON a.attrelid = b.oid AND a.attnum > 0 WHERE a.attname ~ 'external|birthday|attributes|email|phone|(^|_)card$|reference' AND (b.relname, a.attname) <> ('bi_stamp_card', 'card')$$, 'none has a column that tells who a member is');
-- as the role itself
SET ROLE tap_reader;
SELECT lives_ok(format('SELECT * FROM loyalty.%I', relname), relname || ' is read') FROM bi ORDER BY 1;
CREATE FUNCTION pg_temp.secrets() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v text; n bigint;
BEGIN
    FOR v IN SELECT relname FROM bi LOOP
        EXECUTE format('SELECT count(*) FROM loyalty.%I x WHERE x::text ~ ''secret|1980''', v) INTO n;
        IF n > 0 THEN RETURN NEXT v; END IF;
    END LOOP;
END $$;
SELECT is_empty('SELECT pg_temp.secrets()', 'and none shows an external id, a birthday or an attribute');
SELECT is(count(*), 5::bigint, 'it has the members') FROM loyalty.bi_rfm;
SELECT throws_ok($$SELECT external_id FROM loyalty.member$$, '42501', NULL, 'external ids are not read');
SELECT throws_ok($$SELECT * FROM loyalty.member_balance$$, '42501', NULL, 'nor balances with external ids');
SELECT throws_ok($$CALL loyalty.refresh_analysis()$$, '42501', NULL, 'BI refreshes nothing');
SELECT throws_ok($$SELECT loyalty.set_analysis(1)$$, '42501', NULL, 'and sets nothing');
RESET ROLE;
SELECT is_empty($$SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'loyalty'::regnamespace AND c.relkind IN ('r', 'v', 'S')
    AND (has_table_privilege('tap_reader', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') OR (c.relkind <> 'S' AND has_any_column_privilege('tap_reader', c.oid, 'INSERT, UPDATE')))$$, 'it writes nowhere');
SELECT is_empty($$SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'loyalty'::regnamespace AND c.relkind IN ('r', 'v')
    AND (c.relname ~ '^analysis_' OR c.relname IN ('person', 'identity', 'erasure', 'audit', 'member_balance', 'referral_code', 'blocked_subject', 'limit_state', 'limit_use', 'limit_subject', 'limit_used', 'cashier_limit', 'cashier_day', 'held_award'))
    AND has_any_column_privilege('tap_reader', c.oid, 'SELECT')$$, 'and reads nothing of what is kept beneath, nor persons, identities, codes and blocked subjects');
SELECT set_eq($$SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = 'loyalty.member'::regclass AND a.attnum > 0 AND has_column_privilege('tap_reader', a.attrelid, a.attnum, 'SELECT')$$,
    ARRAY['member_id', 'program_id', 'joined_at', 'status', 'staff'], 'of members only what tells nothing of them');
-- the list of live views is right: the others lead to what is kept
SELECT is_empty($$WITH RECURSIVE uses AS (
        SELECT b.relname AS view, d.refobjid AS used FROM bi b JOIN pg_rewrite r ON r.ev_class = b.oid JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> b.oid
        UNION SELECT u.view, d.refobjid FROM uses u JOIN pg_rewrite r ON r.ev_class = u.used JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass)
    SELECT f.view_name, f.kept FROM loyalty.bi_freshness f WHERE f.kept <> EXISTS (SELECT FROM uses u JOIN pg_class c ON c.oid = u.used WHERE u.view = f.view_name AND c.relname ~ '^analysis_(purchase|part|return|day|part_day|pair_day|member|member_.*|model)$|^copurchase_pair$|^suggestion$')$$, 'bi_freshness knows which views are kept');
SELECT * FROM finish();
DROP EXTENSION loyalty CASCADE;
DROP OWNED BY tap_reader;
DROP ROLE tap_reader;
DROP EXTENSION pgtap;
