-- what a rule may say: nothing of a user's runs, no clock, and the same in every session
\set ECHO queries
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS loyalty;
BEGIN;
SELECT loyalty.create_program('Expressions') > 0 AS program;
CREATE ROLE expression_admin;
SELECT loyalty.grant_admin('expression_admin');
CREATE FUNCTION pg_temp.p() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = 'Expressions' $$;
CREATE FUNCTION pg_temp.refused(condition text) RETURNS TABLE (state text, message text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM loyalty.add_rule(pg_temp.p(), 'expression', 'purchase', 'base', '1', condition);
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    RETURN NEXT;
END
$$;
-- a star is no expression
SELECT * FROM pg_temp.refused('*');
SELECT * FROM pg_temp.refused('purchase.*');
-- the CHECK of a domain is anybody's code: not even reading a literal may run it
SET LOCAL ROLE expression_admin;
CREATE FUNCTION pg_temp.trap(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE WARNING 'the trap ran as the owner: %', current_user <> 'expression_admin';
    RETURN true;
END
$$;
CREATE DOMAIN pg_temp.trapped AS integer CHECK (pg_temp.trap(value));
CREATE TYPE pg_temp.trapped_row AS (value pg_temp.trapped);
CREATE FUNCTION pg_temp.takes(pg_temp.trapped[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
SELECT state, regexp_replace(message, 'pg_temp_\d+', 'pg_temp') AS message
FROM unnest(ARRAY['''{1}''::trapped[] is not null', '''(1)''::pg_temp.trapped_row is not null', '''1''::trapped is not null',
    'pg_temp.takes(''{1}'')', '1 operator(pg_temp.+) 1 = 2', 'nosuch.f(1)']) AS c, pg_temp.refused(c);
RESET ROLE;
-- the clock's words, however they are written; the same words as text are words
SELECT c AS condition, state, message
FROM unnest(ARRAY['purchase.day = '' Today ''', 'purchase.day = $q$now$q$::date', 'purchase.day = any (''{2026-01-01,tomorrow}''::date[])',
    'purchase.day <@ ''[yesterday,2099-01-01]''::daterange', 'purchase.occurred_at > ''today 10:00''']) AS c, pg_temp.refused(c);
SELECT * FROM pg_temp.refused('purchase.store = ''today'' and purchase.day > ''2026-01-01''');
-- a session's settings do not change what a rule means
SELECT loyalty.rule_constant(c, 'purchase') FROM unnest(ARRAY['extract(month from date ''01/02/2026'') = 1', 'purchase.store = null', '''a\b'' = E''a\\b''']) AS c;
SET LOCAL datestyle = 'ISO, DMY';
SET LOCAL transform_null_equals = on;
SET LOCAL standard_conforming_strings = off;
SELECT loyalty.rule_constant(c, 'purchase') FROM unnest(ARRAY[E'extract(month from date ''01/02/2026'') = 1', E'purchase.store = null', E'''a\\b'' = E''a\\\\b''']) AS c;
ROLLBACK;
