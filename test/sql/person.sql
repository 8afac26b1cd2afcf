-- personal data: sealed, found by a blind index, resealed
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
SELECT coalesce(current_setting('loyalty.key_file', true), '') = '' AS no_key \gset
\if :no_key
\echo this server has no loyalty.key_file: personal data is not tested
\quit
\endif
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text) LANGUAGE plpgsql AS $$
DECLARE
    hidden text;
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hidden = PG_EXCEPTION_DETAIL;
    message := regexp_replace(message, '\d+', 'N', 'g') || CASE WHEN hidden || message ~* 'canary' THEN ' AND TELLS' ELSE '' END;
    RETURN NEXT;
END
$$;
-- ids differ with the tests that ran before: names stand in for them
CREATE FUNCTION pg_temp.p(what text DEFAULT 'Persons') RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = what $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member WHERE program_id IN (pg_temp.p(), pg_temp.p('Other persons')) AND external_id = who $$;
CREATE FUNCTION pg_temp.who(kind text, value text, program text DEFAULT 'Persons') RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT (SELECT external_id FROM loyalty.member WHERE member_id = loyalty.find_member(pg_temp.p(program), kind, value)) $$;
SELECT loyalty.create_program('Persons') > 0 AS made, loyalty.create_program('Other persons') > 0 AS another;
SELECT count(loyalty.enroll(pg_temp.p(), name)) FROM unnest('{ann,bea,cid,dan}'::text[]) name;
SELECT loyalty.enroll(pg_temp.p('Other persons'), 'eve') > 0 AS eve;
-- fields are set one by one, changed and taken away
SELECT loyalty.set_person(pg_temp.m('ann'), '{"name": "Ann Ä. Smith", "address": {"city": "Leeds", "street": ["1 High Street"]}, "children": 2, "post": true, "empty": "", "fax": "x"}');
SELECT loyalty.set_person(pg_temp.m('ann'), '{"children": 3, "fax": null, "never": null}');
SELECT loyalty.set_person(pg_temp.m('bea'), '{}');
SELECT loyalty.person(pg_temp.m('ann')), loyalty.person(pg_temp.m('bea'));
SELECT field, key_id, octet_length(sealed) AS bytes FROM loyalty.person WHERE member_id = pg_temp.m('ann') ORDER BY field;
-- lengths say little: values of 0 to 31 bytes are sealed into one length, of 32 to 63 into the next
SELECT octet_length(loyalty.seal_value(1, 'f', repeat('x', n))) AS bytes, min(n), max(n) FROM generate_series(0, 200) n GROUP BY 1 ORDER BY 1;
SELECT count(*) AS open_again FROM generate_series(0, 600) n WHERE loyalty.open_value(1, 'f', loyalty.seal_value(1, 'f', repeat('ä', n) || 'x')) = repeat('ä', n) || 'x';
SELECT loyalty.seal_value(1, 'f', 'x') <> loyalty.seal_value(1, 'f', 'x') AS never_twice_the_same;
-- what was moved or damaged does not open
CREATE TABLE pg_temp.s AS SELECT loyalty.seal_value(1, 'f', 'canary') AS v;
SELECT n, r.* FROM (VALUES (1, $$loyalty.open_value(1, 'f', v)$$), (2, $$loyalty.open_value(2, 'f', v)$$), (3, $$loyalty.open_value(1, 'g', v)$$), (4, $$loyalty.open_value(1, 'f', '')$$), (5, $$loyalty.open_value(1, 'f', substr(v, 1, 73))$$),
    (6, $$loyalty.open_contact(1, 'f', v)$$), (7, $$loyalty.reseal_value(2, 'f', v)$$), (8, $$loyalty.open_value(1, 'f', v || '\x00')$$), (9, $$loyalty.open_value(1, 'f', set_byte(v, 1, 7))$$)) c (n, call),
    pg_temp.refused(format('SELECT %s FROM pg_temp.s', call)) r ORDER BY n;
SELECT count(*) AS bytes, r.state FROM pg_temp.s, generate_series(0, octet_length(v) - 1) i, pg_temp.refused(format('SELECT loyalty.open_value(1, %L, %L)', 'f', set_byte(v, i, get_byte(v, i) # 1))) r GROUP BY 2 ORDER BY 2;
-- what is no field
SELECT n, r.* FROM (VALUES (1, '[]'), (2, '"canary"'), (3, NULL), (4, '{"Canary": 1}'), (5, '{"": 1}'), (6, format('{"a": "%s"}', repeat('x', 17000))), (7, format('{"%s": 1}', repeat('x', 32))), (8, '{"canary@x": 1}'),
    (9, (SELECT jsonb_object_agg('f' || i, i)::text FROM generate_series(1, 101) i))) c (n, fields), pg_temp.refused(format('SELECT loyalty.set_person(pg_temp.m(%L), %L)', 'cid', fields)) r ORDER BY n;
SELECT * FROM pg_temp.refused('SELECT loyalty.set_person(-1, ''{}'')');
SELECT * FROM pg_temp.refused('SELECT loyalty.person(-1)');
-- a member has many contacts, a contact has one member, however it is spelt
SELECT loyalty.set_contact(pg_temp.m('ann'), kind, value) FROM (VALUES ('phone', '+44 20 7946 0018'), ('email', ' Ann.Smith@Example.COM '), ('email', 'ann@work.example'), ('card', '4006 3813 3393 1'), ('telegram', '@AnnSmith')) v (kind, value);
SELECT loyalty.person(pg_temp.m('ann')) -> 'contacts' AS contacts;
SELECT kind, value, pg_temp.who(kind, value) FROM (VALUES (1, 'phone', '+442079460018'), (2, 'phone', '0044 (20) 7946-0018'), (3, 'phone', '+442079460019'), (4, 'email', 'ANN.SMITH@EXAMPLE.COM'), (5, 'email', 'ann@work.example'), (6, 'email', 'ann@home.example'),
    (7, 'card', '4006381333931'), (8, 'telegram', 'annsmith'), (9, 'instagram', 'annsmith')) v (n, kind, value) ORDER BY n;
SELECT loyalty.set_contact(pg_temp.m('ann'), 'email', 'ANN@WORK.EXAMPLE');
SELECT count(*) AS still FROM loyalty.identity WHERE member_id = pg_temp.m('ann');
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_contact(pg_temp.m('ann'), 'email', 'canary@x.example')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_contact(pg_temp.m('bea'), 'email', 'Canary@X.example')$$);
-- another programme's members are others
SELECT loyalty.set_contact(pg_temp.m('eve'), 'email', 'canary@x.example');
SELECT pg_temp.who('email', 'canary@x.example'), pg_temp.who('email', 'canary@x.example', 'Other persons') AS elsewhere, (SELECT count(DISTINCT blind) FROM loyalty.identity WHERE member_id IN (pg_temp.m('ann'), pg_temp.m('eve')) AND kind = 'email') AS blinds;
-- the programme's country
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_contact(pg_temp.m('bea'), 'phone', '020 7946 0018')$$);
SELECT country, loyalty.change_program(pg_temp.p(), jsonb_build_object('country_code', country)), value, loyalty.open_contact(1, 'phone', loyalty.seal_contact(1, 'phone', country, value)) FROM (VALUES ('44', '020 7946 0018'), ('44', '+1 212 555 0100'), ('7', '8 (912) 345-67-89'), ('7', '912 345 67 89'), ('7', '79123456789'),
    ('1', '(212) 555-0100'), ('1', '1-212-555-0100'), ('39', '06 6982'), ('49', '030/901820')) v (country, value);
SELECT loyalty.change_program(pg_temp.p(), '{"country_code": "44"}');
SELECT pg_temp.who('phone', '020 7946 0018');
SELECT * FROM pg_temp.refused($$SELECT loyalty.change_program(pg_temp.p(), '{"country_code": "+44"}')$$);
-- what is no contact
SELECT kind, value, r.* FROM (VALUES (1, 'phone', '12'), (2, 'phone', '+0 123 456 789'), (3, 'phone', '+44 20 7946 CANARY'), (4, 'phone', '+1234567890123456'), (5, 'email', 'canary'), (6, 'email', 'canary@'), (7, 'email', '@canary.example'), (8, 'email', 'a@canary@b.example'), (9, 'email', 'a b@canary.example'),
    (10, 'email', 'a@canary.'), (11, 'card', '4006381333933'), (12, 'card', 'canary'), (13, 'card', '12345'), (14, 'telegram', '@'), (15, 'telegram', ''), (16, 'Telegram', 'canary'), (17, NULL, 'canary'), (18, 'email', NULL), (19, 'telegram', E'canary\n2')) v (n, kind, value),
    pg_temp.refused(format('SELECT loyalty.set_contact(pg_temp.m(%L), %L, %L)', 'cid', kind, value)) r ORDER BY n;
SELECT * FROM pg_temp.refused($$SELECT loyalty.find_member(pg_temp.p(), 'email', 'canary')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.find_member(-1, 'email', 'canary@x.example')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.set_contact(-1, 'email', 'canary@x.example')$$);
-- taken away, it may be somebody else's
SELECT loyalty.remove_contact(pg_temp.m('bea'), 'email', 'canary@x.example') AS not_hers, loyalty.remove_contact(pg_temp.m('ann'), 'email', 'canary@x.example') AS gone, loyalty.remove_contact(pg_temp.m('ann'), 'email', 'canary@x.example') AS again;
SELECT loyalty.set_contact(pg_temp.m('bea'), 'email', 'canary@x.example'), loyalty.set_person(pg_temp.m('bea'), '{"name": "Bea", "city": "York"}');
-- whoever was merged is the other one: found, shown and changed as one
SELECT loyalty.set_person(pg_temp.m('dan'), '{"name": "Dan", "size": "M"}'), loyalty.set_contact(pg_temp.m('dan'), 'telegram', 'dan');
SELECT loyalty.merge_members(pg_temp.m('dan'), pg_temp.m('bea'), 'the same person') AS points;
SELECT pg_temp.who('telegram', 'dan'), loyalty.person(pg_temp.m('bea')), loyalty.person(pg_temp.m('dan')) = loyalty.person(pg_temp.m('bea')) AS same;
SELECT loyalty.set_contact(pg_temp.m('bea'), 'telegram', 'dan'), loyalty.set_contact(pg_temp.m('dan'), 'email', 'dan@x.example'), loyalty.set_person(pg_temp.m('dan'), '{"size": null, "city": "Hull"}');
SELECT loyalty.person(pg_temp.m('bea'));
-- the application writes and finds, and reads nothing
CREATE ROLE loyalty_test_till;
CREATE ROLE loyalty_test_support;
SELECT loyalty.grant_app('loyalty_test_till'), loyalty.grant_support('loyalty_test_support');
SET ROLE loyalty_test_till;
SELECT loyalty.find_member(pg_temp.p(), 'telegram', 'dan') = pg_temp.m('bea') AS found, loyalty.set_person(pg_temp.m('cid'), '{"name": "Cid"}');
SELECT * FROM pg_temp.refused($$SELECT loyalty.person(pg_temp.m('cid'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.open_value(1, 'f', '')$$);
SELECT * FROM pg_temp.refused($$SELECT * FROM loyalty.person$$);
SELECT * FROM pg_temp.refused($$SELECT * FROM loyalty.identity$$);
SET ROLE loyalty_test_support;
SELECT loyalty.person(pg_temp.m('cid'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.enroll(pg_temp.p(), 'x')$$);
RESET ROLE;
DROP OWNED BY loyalty_test_till, loyalty_test_support;
DROP ROLE loyalty_test_till, loyalty_test_support;
-- keys
SELECT regexp_replace(loyalty.make_key(1, kind), '[0-9a-f]{64}', 'SECRET') FROM unnest('{ed25519,xchacha20,index}'::text[]) kind;
SELECT * FROM pg_temp.refused($$SELECT loyalty.make_key(1, 'rot13')$$);
CALL loyalty.reseal(1);
SELECT * FROM pg_temp.refused('DO $$BEGIN CALL loyalty.reseal(0); END$$');
SELECT * FROM loyalty.check();
