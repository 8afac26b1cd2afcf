-- vouchers: signed, verified offline, redeemed once
\set ECHO queries
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
SELECT coalesce(current_setting('loyalty.key_file', true), '') = '' AS no_key \gset
\if :no_key
\echo this server has no loyalty.key_file: vouchers are not tested
\quit
\endif
CREATE FUNCTION pg_temp.refused(statement text) RETURNS TABLE (state text, message text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    message := regexp_replace(message, '\d+', 'N', 'g');
    RETURN NEXT;
END
$$;
-- ids differ with the tests that ran before: names stand in for them
CREATE FUNCTION pg_temp.p(what text DEFAULT 'Vouchers') RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT program_id FROM loyalty.program WHERE name = what $$;
CREATE FUNCTION pg_temp.m(who text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT member_id FROM loyalty.member JOIN loyalty.program USING (program_id) WHERE name IN ('Vouchers', 'Elsewhere') AND external_id = who $$;
CREATE FUNCTION pg_temp.v(k text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT voucher_id FROM loyalty.voucher WHERE program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Vouchers') AND key = k $$;
CREATE FUNCTION pg_temp.t(k text) RETURNS text LANGUAGE sql AS $$ SELECT loyalty.voucher_token(pg_temp.v(k)) $$;
SELECT loyalty.create_program('Vouchers', currency => 'GBP', time_zone => 'Pacific/Auckland', points_scale => 2) > 0 AS made, loyalty.create_program('Elsewhere') > 0 AS another;
SELECT count(loyalty.enroll(pg_temp.p(), name)) FROM unnest('{ann,bea,cid,dan}'::text[]) name;
SELECT loyalty.enroll(pg_temp.p('Elsewhere'), 'eve') > 0 AS eve;
-- the keys for tills; a fresh line has a secret of 64 digits and is different every time
SELECT key_id, encode(public_key, 'hex') AS public_key, status FROM loyalty.voucher_keys();
SELECT regexp_replace(loyalty.make_key(255), '[0-9a-f]{64}', 'SEED') AS line, loyalty.make_key(1) <> loyalty.make_key(1) AS fresh;
SELECT * FROM unnest('{0,256,-1}'::int[]) id, pg_temp.refused(format('SELECT loyalty.make_key(%s)', id));
-- one of each kind
SELECT kind, length(token) AS letters, token ~ '^[0-9A-HJKMNP-TV-Z]+$' AS qr_alphanumeric FROM (VALUES
    ('amount', 10.50, NULL), ('percent', 12.5, NULL), ('product', NULL, 'COFFEE'), ('service', NULL, NULL), ('shipping', NULL, NULL),
    ('event', 25, NULL), ('donation', 5, NULL), ('partner', 40, NULL), ('points', 150.25, NULL)) AS v (kind, value, sku),
    loyalty.make_voucher(pg_temp.p(), v.kind, v.value, sku => v.sku, valid_from => '2024-01-01', key => v.kind);
SELECT key, value, currency, sku, valid_from, valid_until, status, octet_length(nonce) AS nonce, key_id, issued_by = session_user AS mine FROM loyalty.voucher WHERE program_id = pg_temp.p() ORDER BY voucher_id;
SELECT count(DISTINCT nonce) FROM loyalty.voucher WHERE program_id = pg_temp.p();
-- what the token says, with the key file and with the public key alone
SELECT t.authentic, t.key_id, t.voucher_id = v.voucher_id AS number, t.program_id = v.program_id AS program, t.kind, t.value, t.currency, t.sku, t.valid_from, t.valid_until, t.member_tag, t.nonce = v.nonce AS nonce
    FROM loyalty.voucher v, loyalty.read_token(loyalty.voucher_token(v.voucher_id)) t WHERE v.program_id = pg_temp.p() ORDER BY v.voucher_id;
SELECT bool_and(loyalty.verify_token(pg_temp.t('amount'), public_key)) AS verified, bool_and((loyalty.read_token(pg_temp.t('amount'), public_key)).authentic) AS authentic, bool_or(loyalty.verify_token(pg_temp.t('amount'), sha256(public_key))) AS by_another_key FROM loyalty.voucher_keys();
SELECT count(*) AS recorded FROM loyalty.voucher_key k JOIN loyalty.voucher_keys() f USING (key_id, public_key);
-- a member's token carries four bytes that only this member has
SELECT length(token) AS letters FROM loyalty.make_voucher(pg_temp.p(), 'amount', 5, pg_temp.m('ann'), '2024-01-01', key => 'anns');
SELECT t.member_tag = loyalty.member_tag(pg_temp.m('ann'), t.nonce) AS anns, t.member_tag = loyalty.member_tag(pg_temp.m('bea'), t.nonce) AS beas, octet_length(t.member_tag) FROM loyalty.read_token(pg_temp.t('anns')) t;
SELECT encode(loyalty.member_tag(1, '\x0102030405060708'), 'hex') = encode(substr(sha512('loyalty member v1'::bytea || '\x01020304050607080000000000000001'), 1, 4), 'hex') AS as_documented;
-- an article that does not fit is left out
SELECT length(token) AS letters, (loyalty.read_token(token)).sku FROM unnest(ARRAY[repeat('x', 32), repeat('x', 33), 'Käse']) s, loyalty.make_voucher(pg_temp.p(), 'product', 2, sku => s, valid_from => '2024-01-01', key => 'sku ' || s);
-- the same key and content is the same voucher; a key belongs to one voucher
SELECT voucher_id = pg_temp.v('amount') AS same, token = pg_temp.t('amount') AS same_token FROM loyalty.make_voucher(pg_temp.p(), 'amount', 10.5, valid_from => '2024-01-01', key => 'amount');
SELECT voucher_id = pg_temp.v('amount') AS the_day_left_out FROM loyalty.make_voucher(pg_temp.p(), 'amount', 10.5000, key => 'amount');
SELECT n, r.* FROM (VALUES (1, $$'amount', 11, key => 'amount'$$), (2, $$'donation', 10.5, key => 'amount'$$), (3, $$'amount', 10.5, pg_temp.m('ann'), key => 'amount'$$),
    (4, $$'amount', 10.5, valid_from => '2024-01-02', key => 'amount'$$), (5, $$'amount', 10.5, valid_until => '2999-01-02', key => 'amount'$$), (6, $$'amount', 10.5, sku => 'A', key => 'amount'$$),
    (7, $$'amount', 10.5, terms => '{"from": 50}', key => 'amount'$$), (8, $$'amount', 10.5, source_id => 1, key => 'amount'$$)) c (n, call), pg_temp.refused(format('SELECT loyalty.make_voucher(pg_temp.p(), %s)', call)) r ORDER BY n;
SELECT count(DISTINCT voucher_id) AS without_a_key_two FROM generate_series(1, 2) i, loyalty.make_voucher(pg_temp.p(), 'shipping', valid_from => date '2024-01-01' + 0 * i);
-- what is no voucher
SELECT n, r.* FROM (VALUES (1, $$'discount', 1$$), (2, $$NULL, 1$$), (3, $$'amount'$$), (4, $$'amount', 0$$), (5, $$'amount', -1$$), (6, $$'amount', 'NaN'$$), (7, $$'amount', 'Infinity'$$),
    (8, $$'amount', 1000000000001$$), (9, $$'amount', 0.00001$$), (10, $$'percent', 100.01$$), (11, $$'product', 1$$), (12, $$'product', 1.5, sku => 'A'$$), (13, $$'points', 1.001$$),
    (14, $$'amount', 1, valid_from => '2024-02-01', valid_until => '2024-01-31'$$), (15, $$'amount', 1, valid_until => 'infinity'$$), (16, $$'amount', 1, valid_from => '-infinity'$$),
    (17, $$'amount', 1, valid_from => '1999-12-31'$$), (18, $$'amount', 1, key => ''$$), (19, $$'product', sku => ''$$), (20, $$'amount', 1, -1$$), (21, $$'amount', 1, pg_temp.m('eve')$$)) c (n, call),
    pg_temp.refused(format('SELECT loyalty.make_voucher(pg_temp.p(), %s)', call)) r ORDER BY n;
SELECT * FROM pg_temp.refused($$SELECT loyalty.make_voucher(-1, 'amount', 1)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.make_voucher(pg_temp.p(), 'points', 1e12 + 1)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.make_voucher(pg_temp.p(), 'amount', 1, key => repeat('k', 40000))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.voucher_token(-1)$$);
-- the largest one fits
SELECT length(token) AS letters, t.value, t.valid_from, t.valid_until FROM loyalty.make_voucher(pg_temp.p(), 'amount', 1000000000000, pg_temp.m('ann'), '7741-11-22', '9999-12-31', repeat('y', 32), key => 'largest'), loyalty.read_token(token) t;
-- redeemed once: the same call again is the first result, another one is refused
SELECT status, redeemed_at = now() AS now, redeemed_by = session_user AS by_me, redeem_key, redeem_member_id, redeem_store, redeem_purchase_id FROM loyalty.redeem_voucher(pg_temp.t('amount'), 'r1', store => 'S1');
SELECT status, redeem_key FROM loyalty.redeem_voucher(pg_temp.t('amount'), 'r1', store => 'S1');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('amount'), 'r2', store => 'S1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('amount'), 'r1', store => 'S2')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('amount'), 'r1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('amount'), 'r1', pg_temp.m('ann'), 'S1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('percent'), 'r1', store => 'S1')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('percent'), NULL)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('percent'), '')$$);
SELECT voucher_id = pg_temp.v('amount') AS the_making_is_still_the_same FROM loyalty.make_voucher(pg_temp.p(), 'amount', 10.5, key => 'amount');
-- read by hand: small letters, hyphens, I, L and O
SELECT status FROM loyalty.redeem_voucher(lower(regexp_replace(translate(pg_temp.t('percent'), '10', 'IO'), '(....)', '\1-', 'g')), 'r3');
-- forged and damaged ones: every letter changed, cut, prolonged; all sorts of things
SELECT count(*) > 140 AS all_letters, count(*) FILTER (WHERE r.state IN ('LY611', 'LY603')) = count(*) AS refused, count(*) FILTER (WHERE loyalty.verify_token(bad, k.public_key)) AS verified
    FROM loyalty.voucher_keys() k, pg_temp.t('product') t, generate_series(1, length(t)) i, LATERAL (SELECT overlay(t PLACING CASE substr(t, i, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM i) AS bad) b, pg_temp.refused(format('SELECT loyalty.redeem_voucher(%L, %L)', bad, 'never')) r;
SELECT count(*) > 140 AS all_lengths, count(*) FILTER (WHERE r.state = 'LY611') = count(*) AS refused FROM pg_temp.t('product') t, generate_series(0, length(t) - 1) i, pg_temp.refused(format('SELECT loyalty.redeem_voucher(%L, %L)', left(t, i), 'never')) r;
SELECT n, r.* FROM pg_temp.t('product') t, LATERAL (VALUES (1, t || '0'), (2, t || '00000000'), (3, ' ' || t), (4, t || E'\n'), (5, t || t), (6, 'U' || substr(t, 2)), (7, ''), (8, '----'), (9, 'voucher'), (10, 'Ω'), (11, repeat('0', 240)), (12, repeat('Z', 100000)), (13, repeat('-', 513)), (14, NULL)) c (n, bad),
    pg_temp.refused(format('SELECT loyalty.redeem_voucher(%L, %L)', bad, 'never')) r ORDER BY n;
SELECT * FROM pg_temp.refused($$SELECT loyalty.read_token('nonsense')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.read_token('nonsense', '\x00')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.verify_token(pg_temp.t('product'), '\x00')$$);
SELECT loyalty.verify_token(repeat('Z', 1000000), sha256('')) AS huge, loyalty.verify_token('', sha256('')) AS empty, (loyalty.read_token(pg_temp.t('product'), sha256(''))).authentic;
-- a key that the file does not have
SELECT * FROM pg_temp.refused($$SELECT loyalty.sign_voucher(v, 9) FROM loyalty.voucher v WHERE voucher_id = pg_temp.v('product')$$);
-- signed here and not of this voucher: another database's, another programme's, a row that somebody changed
CREATE FUNCTION pg_temp.signed(k text, changes jsonb) RETURNS text LANGUAGE sql AS $$ SELECT loyalty.sign_voucher(jsonb_populate_record(v, changes), 7) FROM loyalty.voucher v WHERE voucher_id = pg_temp.v(k) $$;
SELECT n, r.* FROM (VALUES (1, '{}'), (2, '{"voucher_id": 9223372036854775807}'), (3, '{"nonce": "\\x0000000000000000"}'), (4, '{"program_id": 2147483647}'), (5, '{"value": 2}'), (6, '{"kind": "service"}'), (7, '{"valid_until": "2999-01-01"}'), (8, '{"sku": "TEA"}'), (9, '{"member_id": 1}'), (10, '{"currency": "EUR"}')) c (n, changes),
    pg_temp.refused(format('DO $do$ BEGIN PERFORM loyalty.redeem_voucher(pg_temp.signed(%L, %L), %L); RAISE EXCEPTION %L; END $do$', 'product', changes, 'never', 'redeemed')) r ORDER BY n;
SELECT n, r.* FROM (VALUES (1, '{"voucher_id": -1}'), (2, '{"program_id": 0}'), (3, '{"valid_from": "1999-01-01"}'), (4, '{"valid_from": "infinity"}'), (5, '{"value": 9e13}'), (6, '{"kind": "x"}'), (7, '{"nonce": "\\x00"}'), (8, '{"nonce": null}'), (9, '{"currency": "EURO"}'), (10, '{"currency": "e"}')) c (n, changes),
    pg_temp.refused(format('SELECT pg_temp.signed(%L, %L)', 'product', changes)) r ORDER BY n;
-- a member's voucher is the member's
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('anns'), 'r4', pg_temp.m('bea'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('anns'), 'r4')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('anns'), 'r4', pg_temp.m('eve'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('anns'), 'r4', -1)$$);
SELECT voucher_id = pg_temp.v('anns') AS anns, kind, value, currency, status, usable FROM loyalty.vouchers(pg_temp.m('ann'));
SELECT loyalty.set_member_status(pg_temp.m('ann'), 'frozen');
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('anns'), 'r4', pg_temp.m('ann'))$$);
SELECT loyalty.set_member_status(pg_temp.m('ann'), 'active');
SELECT status, redeem_member_id = pg_temp.m('ann') AS ann FROM loyalty.redeem_voucher(pg_temp.t('anns'), 'r4', pg_temp.m('ann'));
SELECT loyalty.close_member(pg_temp.m('dan'));
SELECT * FROM pg_temp.refused($$SELECT loyalty.make_voucher(pg_temp.p(), 'amount', 1, pg_temp.m('dan'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('service'), 'r5', pg_temp.m('dan'))$$);
-- a bearer's voucher remembers who brought it, and the purchase
INSERT INTO loyalty.purchase (member_id, amount, reference) VALUES (pg_temp.m('bea'), 20, 'voucher-1'), (pg_temp.m('eve'), 20, 'voucher-2'), (NULL, 20, 'voucher-3');
CREATE FUNCTION pg_temp.bought(r text) RETURNS bigint LANGUAGE sql AS $$ SELECT purchase_id FROM loyalty.purchase WHERE reference = r $$;
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('service'), 'r6', purchase_id => -1)$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('service'), 'r6', pg_temp.m('cid'), purchase_id => pg_temp.bought('voucher-1'))$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('service'), 'r6', purchase_id => pg_temp.bought('voucher-2'))$$);
SELECT status, redeem_member_id = pg_temp.m('bea') AS bea, redeem_purchase_id = pg_temp.bought('voucher-1') AS purchase FROM loyalty.redeem_voucher(pg_temp.t('service'), 'r6', pg_temp.m('bea'), 'S1', pg_temp.bought('voucher-1'));
SELECT status FROM loyalty.redeem_voucher(pg_temp.t('event'), 'r7', purchase_id => pg_temp.bought('voucher-3'));
-- the first and the last day are the programme's, on the other side of the world
CREATE FUNCTION pg_temp.today() RETURNS date LANGUAGE sql AS $$ SELECT (now() AT TIME ZONE 'Pacific/Auckland')::date $$;
SELECT d.n, r.state FROM (VALUES (1, -1, -1), (2, -1, 0), (3, 0, 0), (4, 0, 1), (5, 1, 1)) d (n, first, last), LATERAL (SELECT token FROM loyalty.make_voucher(pg_temp.p(), 'amount', 1, valid_from => pg_temp.today() + first, valid_until => pg_temp.today() + last) OFFSET 0) v, pg_temp.refused(format('SELECT loyalty.redeem_voucher(%L, %L)', token, 'day ' || n)) r ORDER BY n;
SELECT (loyalty.read_token(token)).valid_from = pg_temp.today() AS from_today FROM loyalty.make_voucher(pg_temp.p(), 'amount', 1);
-- a voucher for points gives them, once, to the member who brings it
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('points'), 'r8')$$);
SELECT status FROM loyalty.redeem_voucher(pg_temp.t('points'), 'r8', pg_temp.m('cid'));
SELECT status FROM loyalty.redeem_voucher(pg_temp.t('points'), 'r8', pg_temp.m('cid'));
SELECT kind, points, reason = format('voucher %s', pg_temp.v('points')) AS reason FROM loyalty.entry WHERE account_id = pg_temp.m('cid');
-- revoked, with a reason
SELECT * FROM unnest(ARRAY['NULL', '''''', '''  ''']) reason, pg_temp.refused(format('SELECT loyalty.revoke_voucher(pg_temp.v(%L), %s)', 'donation', reason));
SELECT status, revoked_at = now() AS now, revoked_by = session_user AS by_me, reason FROM loyalty.revoke_voucher(pg_temp.v('donation'), 'printed twice');
SELECT status FROM loyalty.revoke_voucher(pg_temp.v('donation'), 'printed twice');
SELECT * FROM pg_temp.refused($$SELECT loyalty.revoke_voucher(pg_temp.v('donation'), 'another reason')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.redeem_voucher(pg_temp.t('donation'), 'r9')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.revoke_voucher(pg_temp.v('amount'), 'too late')$$);
SELECT * FROM pg_temp.refused($$SELECT loyalty.revoke_voucher(-1, 'unknown')$$);
-- nothing else changes a voucher, not even the owner's own hand
SELECT n, r.* FROM (VALUES (1, $$UPDATE loyalty.voucher SET value = 100 WHERE key = 'partner'$$), (2, $$UPDATE loyalty.voucher SET nonce = nonce WHERE key = 'partner'$$), (3, $$UPDATE loyalty.voucher SET status = 'issued', redeemed_at = NULL, redeemed_by = NULL, redeem_key = NULL, redeem_store = NULL WHERE key = 'amount'$$),
    (4, $$UPDATE loyalty.voucher SET status = 'redeemed', redeemed_at = '2024-01-01', redeemed_by = session_user, redeem_key = 'x' WHERE key = 'partner'$$), (5, $$UPDATE loyalty.voucher SET status = 'redeemed', redeemed_at = now(), redeemed_by = 'somebody', redeem_key = 'x' WHERE key = 'partner'$$),
    (6, $$UPDATE loyalty.voucher SET status = 'redeemed', redeemed_at = now(), redeemed_by = session_user, redeem_key = 'x', value = 1 WHERE key = 'partner'$$), (7, $$UPDATE loyalty.voucher SET valid_until = '2999-01-01', status = 'revoked', revoked_at = now(), revoked_by = session_user, reason = 'x' WHERE key = 'partner'$$),
    (8, $$DELETE FROM loyalty.voucher$$), (9, $$TRUNCATE loyalty.voucher$$), (10, $$UPDATE loyalty.voucher_key SET public_key = sha256('')$$), (11, $$DELETE FROM loyalty.voucher_key$$), (12, $$TRUNCATE loyalty.voucher_key$$)) c (n, statement), pg_temp.refused(statement) r ORDER BY n;
-- a row changed behind the triggers is found at the till
BEGIN;
ALTER TABLE loyalty.voucher DISABLE TRIGGER keep_voucher;
UPDATE loyalty.voucher SET value = 4000 WHERE voucher_id = pg_temp.v('partner');
SELECT r.* FROM (SELECT pg_temp.signed('partner', '{"value": 40}')) AS t (token), pg_temp.refused(format('SELECT loyalty.redeem_voucher(%L, %L)', token, 'never')) r;
-- check() sees a missing trigger, and states that cannot be
SELECT invariant, detail FROM loyalty.check();
ALTER TABLE loyalty.voucher DROP CONSTRAINT voucher_redeemed_check, DROP CONSTRAINT voucher_redeem_detail_check, DROP CONSTRAINT voucher_revoked_check;
DROP INDEX loyalty.voucher_redeem_key_idx;
UPDATE loyalty.voucher SET status = 'issued' WHERE voucher_id = pg_temp.v('amount');
UPDATE loyalty.voucher SET reason = NULL WHERE voucher_id = pg_temp.v('donation');
UPDATE loyalty.voucher SET redeem_key = 'r6' WHERE voucher_id = pg_temp.v('event');
UPDATE loyalty.voucher SET redeem_member_id = NULL WHERE voucher_id = pg_temp.v('anns');
UPDATE loyalty.voucher SET valid_until = '2024-01-01' WHERE voucher_id = pg_temp.v('percent');
UPDATE loyalty.voucher SET value = 151 WHERE voucher_id = pg_temp.v('points');
UPDATE loyalty.voucher SET key_id = 8, program_id = -1 WHERE voucher_id = pg_temp.v('partner');
SELECT invariant, (SELECT v.key FROM loyalty.voucher v WHERE detail ~ format('voucher %s\M', v.voucher_id)) AS voucher FROM loyalty.check() ORDER BY 1, 2;
ROLLBACK;
-- three kinds of users
CREATE ROLE loyalty_test_none;
CREATE ROLE loyalty_test_app;
CREATE ROLE loyalty_test_bi;
CREATE ROLE loyalty_test_admin;
SELECT loyalty.grant_app('loyalty_test_app'), loyalty.grant_bi('loyalty_test_bi'), loyalty.grant_admin('loyalty_test_admin');
SELECT loyalty.make_voucher(pg_temp.p(), 'amount', 1, pg_temp.m('ann'), key => 'u1') IS NOT NULL AS made;
SELECT set_config('test.u1', loyalty.voucher_token(pg_temp.v('u1')), false) <> '' AS printed;
SET ROLE loyalty_test_none;
SELECT n, r.* FROM (VALUES (1, 'SELECT loyalty.verify_token('''', '''')'), (2, 'SELECT loyalty.read_token('''')'), (3, 'SELECT loyalty.voucher_keys()'), (4, 'SELECT FROM loyalty.voucher'), (5, 'SELECT loyalty.redeem_voucher('''', '''')'), (6, 'SHOW loyalty.key_file'), (7, 'SET loyalty.key_file = ''/tmp/mine''')) c (n, statement), pg_temp.refused(statement) r ORDER BY n;
SET ROLE loyalty_test_app;
SELECT count(*) FILTER (WHERE usable) AS usable FROM loyalty.vouchers(pg_temp.m('ann'));
SELECT state FROM pg_temp.refused($$SELECT loyalty.voucher_token(pg_temp.v('u1'))$$);
SELECT (loyalty.read_token(current_setting('test.u1'))).authentic;
SELECT status, redeemed_by = session_user AS by_the_session FROM loyalty.redeem_voucher(current_setting('test.u1'), 'u1', pg_temp.m('ann'));
SELECT n, r.* FROM (VALUES (1, 'SELECT loyalty.make_voucher(1, ''amount'', 1)'), (2, 'SELECT loyalty.revoke_voucher(1, ''x'')'), (3, 'SELECT status FROM loyalty.voucher'), (4, 'UPDATE loyalty.voucher SET status = ''issued'''), (5, 'SELECT loyalty.sign_voucher(jsonb_populate_record(NULL::loyalty.voucher, ''{}''), 7)'), (6, 'SELECT loyalty.voucher_keys()'), (7, 'SELECT loyalty.make_key(1)'), (8, 'SHOW loyalty.key_file')) c (n, statement), pg_temp.refused(statement) r ORDER BY n;
SET ROLE loyalty_test_bi;
SELECT count(*) > 0 AS vouchers FROM (SELECT voucher_id, status, redeem_store, key_id FROM loyalty.voucher) v;
SELECT count(*) FROM loyalty.voucher_key;
SELECT n, r.* FROM (VALUES (1, 'SELECT nonce FROM loyalty.voucher'), (2, 'SELECT * FROM loyalty.voucher'), (3, 'SELECT loyalty.voucher_token(1)'), (4, 'SELECT loyalty.redeem_voucher('''', '''')')) c (n, statement), pg_temp.refused(statement) r ORDER BY n;
SET ROLE loyalty_test_admin;
SELECT voucher_id > 0 AS made FROM loyalty.make_voucher(pg_temp.p(), 'percent', 5, key => 'u2');
SELECT status FROM loyalty.revoke_voucher(pg_temp.v('u2'), 'a test');
SELECT count(*) FROM loyalty.voucher_keys();
SELECT n, r.* FROM (VALUES (1, 'SELECT nonce FROM loyalty.voucher'), (2, 'INSERT INTO loyalty.voucher (program_id) VALUES (1)'), (3, 'UPDATE loyalty.voucher SET status = ''issued'''), (4, 'DELETE FROM loyalty.voucher'), (5, 'SELECT loyalty.sign_voucher(jsonb_populate_record(NULL::loyalty.voucher, ''{}''), 7)'), (6, 'SELECT loyalty.make_key(1)'), (7, 'INSERT INTO loyalty.voucher_key (key_id, public_key) VALUES (9, sha256(''''))')) c (n, statement), pg_temp.refused(statement) r ORDER BY n;
RESET ROLE;
-- make_key is a superuser's, whoever is granted it
GRANT EXECUTE ON FUNCTION loyalty.make_key TO loyalty_test_admin;
SET ROLE loyalty_test_admin;
SELECT * FROM pg_temp.refused($$SELECT loyalty.make_key(1)$$);
RESET ROLE;
DROP OWNED BY loyalty_test_none, loyalty_test_app, loyalty_test_bi, loyalty_test_admin;
DROP ROLE loyalty_test_none, loyalty_test_app, loyalty_test_bi, loyalty_test_admin;
SELECT loyalty.adjust(pg_temp.m('cid'), 100, 'For rewards') > 0 AS points;
-- vouchers of a claim: as many as pieces, revoked when it is undone, unless one was used
SELECT count(loyalty.add_reward(pg_temp.p(), 'voucher ' || kind, kind, 10, 5, sku => sku, issues => 'voucher', valid_days => 10, terms => '{"from": 20}')) FROM (VALUES ('discount_amount', NULL), ('discount_percent', NULL), ('product', 'MUG')) v (kind, sku);
SELECT k, points, cardinality(voucher_ids) AS vouchers, cardinality(tokens) AS tokens FROM unnest('{discount_amount,discount_percent,product}'::text[]) k, loyalty.claim(pg_temp.m('cid'), 'voucher ' || k, 'v ' || k, 2);
SELECT v.kind, v.value, v.currency, v.sku, v.terms, v.valid_until - loyalty.local_day(pg_temp.p(), now()) AS days, v.member_id = c.member_id AS the_members, v.source_id = c.redemption_id AS paid
    FROM loyalty.claim c, loyalty.voucher v WHERE c.member_id = pg_temp.m('cid') AND v.voucher_id = ANY (c.voucher_ids) ORDER BY v.voucher_id;
SELECT c.voucher_ids = d.voucher_ids AS same FROM loyalty.claim c, loyalty.claim(pg_temp.m('cid'), 'voucher product', 'v product', 2) d WHERE c.member_id = pg_temp.m('cid') AND c.key = 'v product';
SELECT status FROM loyalty.claim(pg_temp.m('cid'), 'voucher product', 'v product', 2) c, loyalty.redeem_voucher(c.tokens[1], 'till 1', pg_temp.m('cid'));
SELECT r.* FROM pg_temp.refused($$SELECT loyalty.undo_claim(pg_temp.m('cid'), 'v product', 'Why')$$) r;
SELECT restored FROM loyalty.undo_claim(pg_temp.m('cid'), 'v discount_amount', 'Why');
SELECT v.status, v.reason, count(*) FROM loyalty.claim c JOIN loyalty.voucher v ON v.voucher_id = ANY (c.voucher_ids) WHERE c.member_id = pg_temp.m('cid') GROUP BY 1, 2 ORDER BY 1;
SELECT * FROM loyalty.check();
