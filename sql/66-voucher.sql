/*
 * voucher: signed tokens that a till verifies offline, redeemed exactly once
 * online.  The keys stand in the file of loyalty.key_file, never here.
 */
CREATE SEQUENCE loyalty.voucher_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.voucher_id_seq IS 'Numbers vouchers';

CREATE TABLE loyalty.voucher_key (
    key_id      integer PRIMARY KEY CHECK (key_id BETWEEN 1 AND 255),
    public_key  bytea NOT NULL CHECK (octet_length(public_key) = 32),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    recorded_by name NOT NULL DEFAULT session_user
);
COMMENT ON TABLE loyalty.voucher_key IS 'The public half of every key that has signed a voucher, recorded when it first did; append-only';
COMMENT ON COLUMN loyalty.voucher_key.public_key IS 'Ed25519';

CREATE FUNCTION loyalty.make_nonce() RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_make_nonce';
COMMENT ON FUNCTION loyalty.make_nonce() IS '8 random bytes';
REVOKE ALL ON FUNCTION loyalty.make_nonce() FROM PUBLIC;

CREATE TABLE loyalty.voucher (
    voucher_id  bigint PRIMARY KEY DEFAULT nextval('loyalty.voucher_id_seq') CHECK (voucher_id > 0),
    program_id  integer NOT NULL,
    member_id   bigint,
    kind        text NOT NULL CHECK (kind IN ('amount', 'percent', 'product', 'service', 'shipping', 'event', 'donation', 'partner', 'points')),
    value       numeric CHECK (value > 0 AND value <= 1e12 AND value = round(value, 4)),
    currency    text CHECK (currency ~ '^[A-Z]{3}$'),
    sku         text CHECK (sku <> ''),
    terms       jsonb,
    issued_at   timestamptz NOT NULL DEFAULT now(),
    issued_by   name NOT NULL DEFAULT session_user,
    valid_from  date NOT NULL CHECK (valid_from BETWEEN '2000-01-01' AND '9999-12-31'),
    valid_until date CHECK (valid_until <= '9999-12-31'),
    key         text CHECK (key <> ''),
    source_id   bigint,
    key_id      integer NOT NULL CHECK (key_id BETWEEN 1 AND 255),
    nonce       bytea NOT NULL DEFAULT loyalty.make_nonce() CHECK (octet_length(nonce) = 8),
    status      text NOT NULL DEFAULT 'issued' CHECK (status IN ('issued', 'redeemed', 'revoked')),
    redeemed_at timestamptz,
    redeemed_by name,
    redeem_key  text CHECK (redeem_key <> ''),
    redeem_member_id   bigint,
    redeem_store       text,
    redeem_purchase_id bigint,
    revoked_at  timestamptz,
    revoked_by  name,
    reason      text CHECK (btrim(reason) <> ''),
    CONSTRAINT voucher_days_check CHECK (valid_from <= valid_until),
    CONSTRAINT voucher_value_needed_check CHECK (kind NOT IN ('amount', 'percent', 'donation', 'points') OR value IS NOT NULL),
    CONSTRAINT voucher_percent_check CHECK (kind <> 'percent' OR value <= 100),
    CONSTRAINT voucher_sku_needed_check CHECK (kind <> 'product' OR sku IS NOT NULL),
    CONSTRAINT voucher_currency_needed_check CHECK ((currency IS NOT NULL) = (value IS NOT NULL AND kind NOT IN ('percent', 'product', 'points'))),
    CONSTRAINT voucher_redeemed_check CHECK (num_nonnulls(redeemed_at, redeemed_by, redeem_key) = CASE status WHEN 'redeemed' THEN 3 ELSE 0 END),
    CONSTRAINT voucher_redeem_detail_check CHECK (status = 'redeemed' OR num_nonnulls(redeem_member_id, redeem_store, redeem_purchase_id) = 0),
    CONSTRAINT voucher_revoked_check CHECK (num_nonnulls(revoked_at, revoked_by, reason) = CASE status WHEN 'revoked' THEN 3 ELSE 0 END)
);
ALTER SEQUENCE loyalty.voucher_id_seq OWNED BY loyalty.voucher.voucher_id;
CREATE UNIQUE INDEX voucher_key_idx ON loyalty.voucher (program_id, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX voucher_redeem_key_idx ON loyalty.voucher (program_id, redeem_key) WHERE redeem_key IS NOT NULL;
CREATE INDEX voucher_member_id_idx ON loyalty.voucher (member_id) WHERE member_id IS NOT NULL;
COMMENT ON TABLE loyalty.voucher IS 'Vouchers, each redeemed once or revoked. Written by the voucher functions alone';
COMMENT ON COLUMN loyalty.voucher.member_id IS 'Whose it is; NULL: the bearer''s';
COMMENT ON COLUMN loyalty.voucher.kind IS 'amount, percent, product, service, shipping, event, donation, partner, points';
COMMENT ON COLUMN loyalty.voucher.value IS 'Money in currency; per cent of the purchase (percent); number of articles (product); whole points (points). NULL: what terms say (shipping: all of it)';
COMMENT ON COLUMN loyalty.voucher.terms IS 'Conditions for the till to apply; not part of the token';
COMMENT ON COLUMN loyalty.voucher.valid_until IS 'Last valid day in the programme''s zone; NULL: no end';
COMMENT ON COLUMN loyalty.voucher.key IS 'Idempotency key of its making, unique in the programme for ever';
COMMENT ON COLUMN loyalty.voucher.source_id IS 'The redemption that paid for it';
COMMENT ON COLUMN loyalty.voucher.key_id IS 'The key that signed it when it was issued';
COMMENT ON COLUMN loyalty.voucher.nonce IS 'Random; a token that does not carry it is another voucher''s';
COMMENT ON COLUMN loyalty.voucher.redeemed_by IS 'The session''s role';
COMMENT ON COLUMN loyalty.voucher.redeem_key IS 'Idempotency key of its redemption, unique in the programme for ever';

CREATE FUNCTION loyalty.keep_voucher() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    redeeming constant text[] := '{status,redeemed_at,redeemed_by,redeem_key,redeem_member_id,redeem_store,redeem_purchase_id}';
    revoking constant text[] := '{status,revoked_at,revoked_by,reason}';
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        IF OLD.status = 'issued' AND NEW.status = 'redeemed' AND NEW.redeemed_at = now() AND NEW.redeemed_by = session_user
           AND to_jsonb(NEW) - redeeming = to_jsonb(OLD) - redeeming THEN
            RETURN NEW;
        END IF;
        IF OLD.status = 'issued' AND NEW.status = 'revoked' AND NEW.revoked_at = now() AND NEW.revoked_by = session_user
           AND to_jsonb(NEW) - revoking = to_jsonb(OLD) - revoking THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'LY901',
              DETAIL = 'An issued voucher is redeemed or revoked, once; nothing else about it ever changes.',
              HINT = 'Call loyalty.redeem_voucher or loyalty.revoke_voucher.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_voucher() IS 'Refuses every change of a voucher but its redemption and its revocation, and every change of a recorded key';
REVOKE ALL ON FUNCTION loyalty.keep_voucher() FROM PUBLIC;
CREATE TRIGGER keep_voucher BEFORE UPDATE ON loyalty.voucher
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_voucher();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.voucher
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_voucher();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.voucher_key
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_voucher();

/* ------------------------------------------------------------------------
 * Keys
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.make_key(id integer, kind text DEFAULT 'ed25519') RETURNS text
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_make_key';
COMMENT ON FUNCTION loyalty.make_key(integer, text) IS 'A line for the key file with a fresh secret, kept nowhere; superusers only. Kinds are ed25519 (signs), blake2b (chains entries), xchacha20 (seals personal data) and index (finds members by it)';
REVOKE ALL ON FUNCTION loyalty.make_key(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.voucher_keys() RETURNS TABLE (key_id integer, public_key bytea, status text)
    LANGUAGE C STABLE ROWS 4 AS 'MODULE_PATHNAME', 'loyalty_voucher_keys';
COMMENT ON FUNCTION loyalty.voucher_keys() IS 'The public keys of the key file, for tills: the one that signs, those that verify, those that are retired';
REVOKE ALL ON FUNCTION loyalty.voucher_keys() FROM PUBLIC;

CREATE FUNCTION loyalty.signing_key() RETURNS integer
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    signer record;
    recorded bytea;
BEGIN
    SELECT k.key_id, k.public_key INTO signer FROM loyalty.voucher_keys() k WHERE k.status = 'signing';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no key of the key file may sign'
            USING ERRCODE = 'LY601', HINT = 'loyalty.make_key(id) returns a line for it.';
    END IF;
    SELECT k.public_key INTO recorded FROM loyalty.voucher_key k WHERE k.key_id = signer.key_id;
    IF NOT FOUND THEN
        INSERT INTO loyalty.voucher_key (key_id, public_key) VALUES (signer.key_id, signer.public_key) ON CONFLICT DO NOTHING;
        SELECT k.public_key INTO recorded FROM loyalty.voucher_key k WHERE k.key_id = signer.key_id;
    END IF;
    IF recorded <> signer.public_key THEN
        RAISE EXCEPTION 'key % of the key file is not the key % that signed before', signer.key_id, signer.key_id
            USING ERRCODE = 'LY602',
                  DETAIL = format('Its public key is recorded as %s and is now %s.', encode(recorded, 'hex'), encode(signer.public_key, 'hex')),
                  HINT = 'A number belongs to one key for ever; give the new key another one.';
    END IF;
    RETURN signer.key_id;
END
$$;
COMMENT ON FUNCTION loyalty.signing_key() IS 'The key that signs now, its public half recorded; LY601 where there is none';
REVOKE ALL ON FUNCTION loyalty.signing_key() FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Tokens
 * ------------------------------------------------------------------------ */

CREATE TYPE loyalty.token AS (
    authentic   boolean,
    key_id      integer,
    voucher_id  bigint,
    program_id  integer,
    kind        text,
    value       numeric,
    currency    text,
    sku         text,
    valid_from  date,
    valid_until date,
    member_tag  bytea,
    nonce       bytea
);
COMMENT ON TYPE loyalty.token IS 'What a voucher''s token says of itself';
COMMENT ON COLUMN loyalty.token.authentic IS 'The signature is the key''s; where it is not, believe nothing else of it';
COMMENT ON COLUMN loyalty.token.sku IS 'Carried where it has 32 printable ASCII characters at most';
COMMENT ON COLUMN loyalty.token.member_tag IS 'loyalty.member_tag of its member; NULL: the bearer''s';

CREATE FUNCTION loyalty.sign_voucher(voucher loyalty.voucher, key_id integer) RETURNS text
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_sign_voucher';
COMMENT ON FUNCTION loyalty.sign_voucher(loyalty.voucher, integer) IS 'The token of a voucher, signed with a key of the key file';
REVOKE ALL ON FUNCTION loyalty.sign_voucher(loyalty.voucher, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.read_token(token text) RETURNS loyalty.token
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_read_token';
COMMENT ON FUNCTION loyalty.read_token(text) IS 'What a token says, and whether a key of the key file signed it; reads no table';
REVOKE ALL ON FUNCTION loyalty.read_token(text) FROM PUBLIC;

CREATE FUNCTION loyalty.read_token(token text, public_key bytea) RETURNS loyalty.token
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_read_token';
COMMENT ON FUNCTION loyalty.read_token(text, bytea) IS 'What a token says, and whether the owner of a public key signed it; needs no key file';
REVOKE ALL ON FUNCTION loyalty.read_token(text, bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.verify_token(token text, public_key bytea) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_verify_token';
COMMENT ON FUNCTION loyalty.verify_token(text, bytea) IS 'Whether a text is a whole token that the owner of a public key signed; false for all else';
REVOKE ALL ON FUNCTION loyalty.verify_token(text, bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.member_tag(member_id bigint, nonce bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_member_tag';
COMMENT ON FUNCTION loyalty.member_tag(bigint, bytea) IS 'The 4 bytes that stand for a member in a token: the first of SHA-512 of "loyalty member v1", nonce and member_id (8 bytes, big-endian)';
REVOKE ALL ON FUNCTION loyalty.member_tag(bigint, bytea) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_voucher_member(program_id integer, member_id bigint) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member;
BEGIN
    IF member_id IS NULL THEN
        RETURN;
    END IF;
    m := loyalty.require_member(member_id);
    IF m.program_id <> program_id THEN
        RAISE EXCEPTION 'the voucher is of another programme'
            USING ERRCODE = 'LY617', DETAIL = format('The voucher is of programme %s, member %s of programme %s.', program_id, member_id, m.program_id);
    END IF;
    IF m.status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', member_id USING ERRCODE = 'LY302';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_voucher_member(integer, bigint) IS 'Refuses a closed member and one of another programme; NULL is nobody in particular';
REVOKE ALL ON FUNCTION loyalty.check_voucher_member(integer, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.compare_voucher(made loyalty.voucher, asked loyalty.voucher) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    compared constant text[] := '{kind,value,currency,member_id,valid_from,valid_until,sku,terms,source_id}';
    different text;
BEGIN
    SELECT string_agg(c, ', ') INTO different FROM unnest(compared) c
        WHERE to_jsonb(made) -> c IS DISTINCT FROM to_jsonb(asked) -> c;
    IF different IS NOT NULL THEN
        RAISE EXCEPTION 'key "%" of programme % was used for something else', asked.key, asked.program_id
            USING ERRCODE = 'LY404', DETAIL = format('Voucher %s differs in %s.', made.voucher_id, different),
                  HINT = 'A key belongs to one operation for ever; take another.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.compare_voucher(loyalty.voucher, loyalty.voucher) IS 'Raises LY404 where a key''s voucher is not what is asked for';
REVOKE ALL ON FUNCTION loyalty.compare_voucher(loyalty.voucher, loyalty.voucher) FROM PUBLIC;

CREATE FUNCTION loyalty.store_voucher(asked loyalty.voucher) RETURNS loyalty.voucher
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made loyalty.voucher;
    detail text;
    broken text;
BEGIN
    INSERT INTO loyalty.voucher (program_id, member_id, kind, value, currency, sku, terms, valid_from, valid_until, key, source_id, key_id)
        VALUES (asked.program_id, asked.member_id, asked.kind, asked.value, asked.currency, asked.sku, asked.terms,
                asked.valid_from, asked.valid_until, asked.key, asked.source_id, asked.key_id)
        ON CONFLICT (program_id, key) WHERE key IS NOT NULL DO NOTHING RETURNING * INTO made;
    RETURN made;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.voucher', broken, to_jsonb(asked)), detail);
    RAISE EXCEPTION 'the voucher is not valid'
        USING ERRCODE = 'LY618', DETAIL = detail,
              HINT = 'The comments on loyalty.voucher say what each kind needs; a value is above 0 with four decimals at most.';
END
$$;
COMMENT ON FUNCTION loyalty.store_voucher(loyalty.voucher) IS 'Writes a new voucher; NULL where its key was used before';
REVOKE ALL ON FUNCTION loyalty.store_voucher(loyalty.voucher) FROM PUBLIC;

CREATE FUNCTION loyalty.make_voucher(program_id integer, kind text, value numeric DEFAULT NULL, member_id bigint DEFAULT NULL,
        valid_from date DEFAULT NULL, valid_until date DEFAULT NULL, sku text DEFAULT NULL, terms jsonb DEFAULT NULL,
        key text DEFAULT NULL, source_id bigint DEFAULT NULL, OUT voucher_id bigint, OUT token text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.program;
    asked loyalty.voucher;
    made loyalty.voucher;
BEGIN
    PERFORM loyalty.require_program(program_id);
    SELECT * INTO p FROM loyalty.program q WHERE q.program_id = program_id;
    asked.key_id := loyalty.signing_key();
    asked.program_id := program_id;
    asked.member_id := member_id;
    asked.kind := kind;
    asked.value := trim_scale(value);
    asked.currency := CASE WHEN value IS NOT NULL AND kind NOT IN ('percent', 'product', 'points') THEN p.currency END;
    asked.sku := sku;
    asked.terms := terms;
    asked.valid_from := coalesce(valid_from, loyalty.local_day(program_id, now()));
    asked.valid_until := valid_until;
    asked.key := key;
    asked.source_id := source_id;
    IF kind IN ('points', 'product') AND value <> round(value, CASE kind WHEN 'points' THEN p.points_scale ELSE 0 END) THEN
        RAISE EXCEPTION 'the voucher is not valid'
            USING ERRCODE = 'LY618', DETAIL = format('%s has more decimals than the programme''s %s.', value, CASE kind WHEN 'points' THEN 'points' ELSE 'articles' END);
    END IF;
    IF (kind = 'points' AND value * 10::numeric ^ p.points_scale > 1e15) OR length(key) > 500 OR length(sku) > 500 THEN
        RAISE EXCEPTION 'the voucher is not valid'
            USING ERRCODE = 'LY618', DETAIL = 'Expected points up to 10^15 of the smallest unit, and texts of up to 500 characters.';
    END IF;
    SELECT * INTO made FROM loyalty.voucher v WHERE v.program_id = program_id AND v.key = key;
    IF NOT FOUND THEN
        PERFORM loyalty.check_voucher_member(program_id, member_id);
        made := loyalty.store_voucher(asked);
    END IF;
    IF made.voucher_id IS NULL THEN
        -- another session was faster
        SELECT * INTO made FROM loyalty.voucher v WHERE v.program_id = program_id AND v.key = key;
    END IF;
    IF valid_from IS NULL THEN
        asked.valid_from := made.valid_from;
    END IF;
    PERFORM loyalty.compare_voucher(made, asked);
    voucher_id := made.voucher_id;
    token := loyalty.sign_voucher(made, asked.key_id);
END
$$;
COMMENT ON FUNCTION loyalty.make_voucher IS 'Makes a voucher and its signed token. kind: amount, percent, product, service, shipping, event, donation, partner or points; member_id NULL: the bearer''s; valid_from NULL: today; valid_until, the last valid day, NULL: no end. The same key and content again returns the first one';
REVOKE ALL ON FUNCTION loyalty.make_voucher FROM PUBLIC;

CREATE FUNCTION loyalty.voucher_token(voucher_id bigint) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    v loyalty.voucher;
BEGIN
    SELECT * INTO v FROM loyalty.voucher q WHERE q.voucher_id = voucher_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'voucher % does not exist', voucher_id USING ERRCODE = 'LY616', HINT = 'loyalty.make_voucher makes one.';
    END IF;
    RETURN loyalty.sign_voucher(v, loyalty.signing_key());
END
$$;
COMMENT ON FUNCTION loyalty.voucher_token(bigint) IS 'The token of a voucher, signed with the key that signs now';
REVOKE ALL ON FUNCTION loyalty.voucher_token(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.vouchers(member_id bigint)
    RETURNS TABLE (voucher_id bigint, kind text, value numeric, currency text, sku text, terms jsonb,
                   valid_from date, valid_until date, status text, usable boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    today date := loyalty.local_day(m.program_id, now());
BEGIN
    RETURN QUERY SELECT v.voucher_id, v.kind, v.value, v.currency, v.sku, v.terms, v.valid_from, v.valid_until, v.status,
            v.status = 'issued' AND m.status = 'active' AND today BETWEEN v.valid_from AND coalesce(v.valid_until, 'infinity')
        FROM loyalty.voucher v WHERE v.member_id = ANY (loyalty.same_member(m.member_id)) ORDER BY v.voucher_id;
END
$$;
COMMENT ON FUNCTION loyalty.vouchers(bigint) IS 'A member''s own vouchers, and which of them can be redeemed today; loyalty.voucher_token makes their tokens';
REVOKE ALL ON FUNCTION loyalty.vouchers(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Redeeming and revoking
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.lock_voucher(t loyalty.token) RETURNS loyalty.voucher
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v loyalty.voucher;
BEGIN
    -- nobody but a holder of a key can make anybody wait
    IF t.authentic IS NOT TRUE THEN
        RAISE EXCEPTION 'the token is forged or damaged'
            USING ERRCODE = 'LY611', HINT = 'Scan it again; if that does not help, it was not made here.';
    END IF;
    SELECT * INTO v FROM loyalty.voucher q WHERE q.voucher_id = t.voucher_id FOR NO KEY UPDATE;
    IF NOT FOUND OR (v.program_id = t.program_id AND v.nonce <> t.nonce) THEN
        RAISE EXCEPTION 'voucher % does not exist', t.voucher_id
            USING ERRCODE = 'LY616', DETAIL = 'The token is authentic: a key of this server signed it for another database, or for a later state of this one.';
    END IF;
    IF v.program_id <> t.program_id THEN
        RAISE EXCEPTION 'the voucher is of another programme'
            USING ERRCODE = 'LY617', DETAIL = format('The token says programme %s, voucher %s is of programme %s.', t.program_id, v.voucher_id, v.program_id);
    END IF;
    IF (t.kind, t.value, t.currency, t.valid_from, t.valid_until, t.member_tag) IS DISTINCT FROM
       (v.kind, v.value, v.currency, v.valid_from, v.valid_until, loyalty.member_tag(v.member_id, v.nonce))
       OR t.sku <> coalesce(v.sku, '') THEN
        RAISE EXCEPTION 'the token does not agree with voucher %', v.voucher_id
            USING ERRCODE = 'LY611', DETAIL = 'The token is authentic, so the voucher''s row was changed after it was issued.';
    END IF;
    RETURN v;
END
$$;
COMMENT ON FUNCTION loyalty.lock_voucher(loyalty.token) IS 'Locks the voucher that an authentic token names';
REVOKE ALL ON FUNCTION loyalty.lock_voucher(loyalty.token) FROM PUBLIC;

CREATE FUNCTION loyalty.check_open(v loyalty.voucher) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF v.status = 'redeemed' THEN
        RAISE EXCEPTION 'voucher % has been redeemed', v.voucher_id
            USING ERRCODE = 'LY612', DETAIL = format('On %s, store %s, purchase %s.', v.redeemed_at, coalesce(v.redeem_store, '-'), coalesce(v.redeem_purchase_id::text, '-'));
    END IF;
    IF v.status = 'revoked' THEN
        RAISE EXCEPTION 'voucher % has been revoked', v.voucher_id
            USING ERRCODE = 'LY613', DETAIL = format('On %s: %s', v.revoked_at, v.reason);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_open(loyalty.voucher) IS 'Raises LY612 or LY613 where a voucher is no more open';
REVOKE ALL ON FUNCTION loyalty.check_open(loyalty.voucher) FROM PUBLIC;

CREATE FUNCTION loyalty.check_redeemer(v loyalty.voucher, member_id bigint) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    today date := loyalty.local_day(v.program_id, now());
BEGIN
    PERFORM loyalty.check_voucher_member(v.program_id, member_id);
    IF v.member_id <> ALL (loyalty.same_member(member_id)) OR (v.member_id IS NOT NULL AND member_id IS NULL) THEN
        RAISE EXCEPTION 'voucher % is another member''s', v.voucher_id
            USING ERRCODE = 'LY615', DETAIL = format('It belongs to a member, and the call names %s.', CASE WHEN member_id IS NULL THEN 'none' ELSE 'another one' END),
                  HINT = 'Name the member who redeems it.';
    END IF;
    IF EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = member_id AND m.status = 'frozen') THEN
        RAISE EXCEPTION 'member % is frozen', member_id USING ERRCODE = 'LY305', HINT = 'loyalty.set_member_status makes a member active again.';
    END IF;
    IF v.kind = 'points' AND member_id IS NULL THEN
        RAISE EXCEPTION 'a voucher for points needs the member who gets them' USING ERRCODE = 'LY618';
    END IF;
    IF today < v.valid_from OR today > v.valid_until THEN
        RAISE EXCEPTION 'voucher % is not valid on %', v.voucher_id, today
            USING ERRCODE = 'LY614', DETAIL = format('It is valid from %s to %s.', v.valid_from, coalesce(v.valid_until::text, 'no end'));
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_redeemer(loyalty.voucher, bigint) IS 'Refuses a voucher on a wrong day or in a wrong hand';
REVOKE ALL ON FUNCTION loyalty.check_redeemer(loyalty.voucher, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.check_voucher_purchase(v loyalty.voucher, member_id bigint, purchase_id bigint) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    buyer bigint;
BEGIN
    IF purchase_id IS NULL THEN
        RETURN;
    END IF;
    SELECT p.member_id INTO buyer FROM loyalty.purchase p WHERE p.purchase_id = purchase_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'purchase % does not exist', purchase_id
            USING ERRCODE = 'LY618', HINT = 'Insert the purchase first, in the same transaction, or leave purchase_id out.';
    END IF;
    IF buyer <> member_id THEN
        RAISE EXCEPTION 'voucher % is another member''s', v.voucher_id
            USING ERRCODE = 'LY615', DETAIL = format('Purchase %s is of member %s, who is not the one who redeems.', purchase_id, buyer);
    END IF;
    PERFORM loyalty.check_voucher_member(v.program_id, buyer);
END
$$;
COMMENT ON FUNCTION loyalty.check_voucher_purchase(loyalty.voucher, bigint, bigint) IS 'Refuses a purchase that does not exist or is another''s';
REVOKE ALL ON FUNCTION loyalty.check_voucher_purchase(loyalty.voucher, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.credit_voucher(v loyalty.voucher) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM loyalty.post_adjustment(v.redeem_member_id, (v.value * 10::numeric ^ p.points_scale)::bigint,
                                    format('voucher %s', v.voucher_id), format('loyalty:voucher %s', v.voucher_id))
        FROM loyalty.program p WHERE p.program_id = v.program_id;
END
$$;
COMMENT ON FUNCTION loyalty.credit_voucher(loyalty.voucher) IS 'Gives the points of a voucher to the member who redeemed it';
REVOKE ALL ON FUNCTION loyalty.credit_voucher(loyalty.voucher) FROM PUBLIC;

CREATE FUNCTION loyalty.refuse_redeem_key(program_id integer, key text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'key "%" of programme % was used for something else', key, program_id
        USING ERRCODE = 'LY404', DETAIL = 'It belongs to the redemption of another voucher, or of this one with other details.',
              HINT = 'A key belongs to one operation for ever; take another.';
END
$$;
COMMENT ON FUNCTION loyalty.refuse_redeem_key(integer, text) IS 'Raises LY404';
REVOKE ALL ON FUNCTION loyalty.refuse_redeem_key(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.redeem_voucher(token text, key text, member_id bigint DEFAULT NULL,
        store text DEFAULT NULL, purchase_id bigint DEFAULT NULL) RETURNS loyalty.voucher
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    v loyalty.voucher := loyalty.lock_voucher(loyalty.read_token(token));
BEGIN
    IF key IS NULL OR key = '' THEN
        RAISE EXCEPTION 'a redemption needs a key'
            USING ERRCODE = 'LY618', HINT = 'The key makes a retry harmless: the number of the receipt and of the voucher on it, for example.';
    END IF;
    IF v.redeem_key = key AND (v.redeem_member_id, v.redeem_store, v.redeem_purchase_id) IS NOT DISTINCT FROM (member_id, store, purchase_id) THEN
        RETURN v;
    END IF;
    PERFORM loyalty.refuse_redeem_key(v.program_id, key) FROM loyalty.voucher q WHERE q.program_id = v.program_id AND q.redeem_key = key;
    PERFORM loyalty.check_open(v);
    PERFORM loyalty.check_redeemer(v, member_id);
    PERFORM loyalty.check_voucher_purchase(v, member_id, purchase_id);
    BEGIN
        UPDATE loyalty.voucher q
            SET status = 'redeemed', redeemed_at = now(), redeemed_by = session_user, redeem_key = key,
                redeem_member_id = member_id, redeem_store = store, redeem_purchase_id = purchase_id
            WHERE q.voucher_id = v.voucher_id RETURNING * INTO v;
    EXCEPTION WHEN unique_violation THEN
        -- another session used the key for another voucher meanwhile
        PERFORM loyalty.refuse_redeem_key(v.program_id, key);
    END;
    IF v.kind = 'points' THEN
        PERFORM loyalty.credit_voucher(v);
    END IF;
    RETURN v;
END
$$;
COMMENT ON FUNCTION loyalty.redeem_voucher(text, text, bigint, text, bigint) IS 'Redeems the voucher of a token, exactly once; the same key and content again returns the first result. A voucher for points gives them to the member';
REVOKE ALL ON FUNCTION loyalty.redeem_voucher(text, text, bigint, text, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.revoke_voucher(voucher_id bigint, reason text) RETURNS loyalty.voucher
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    v loyalty.voucher;
BEGIN
    IF reason IS NULL OR btrim(reason) = '' THEN
        RAISE EXCEPTION 'to revoke a voucher needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for the member and the auditor.';
    END IF;
    SELECT * INTO v FROM loyalty.voucher q WHERE q.voucher_id = voucher_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'voucher % does not exist', voucher_id USING ERRCODE = 'LY616', HINT = 'loyalty.make_voucher makes one.';
    END IF;
    IF v.status = 'revoked' AND v.reason = reason THEN
        RETURN v;
    END IF;
    PERFORM loyalty.check_open(v);
    UPDATE loyalty.voucher q SET status = 'revoked', revoked_at = now(), revoked_by = session_user, reason = reason
        WHERE q.voucher_id = v.voucher_id RETURNING * INTO v;
    RETURN v;
END
$$;
COMMENT ON FUNCTION loyalty.revoke_voucher(bigint, text) IS 'Revokes a voucher for good, with a mandatory reason; the same reason again returns the first result';
REVOKE ALL ON FUNCTION loyalty.revoke_voucher(bigint, text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Invariants, for check()
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_vouchers() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'a voucher''s columns agree with its status', v.member_id, format('voucher %s is %s', v.voucher_id, v.status)
        FROM loyalty.voucher v
        WHERE num_nonnulls(v.redeemed_at, v.redeemed_by, v.redeem_key) <> CASE v.status WHEN 'redeemed' THEN 3 ELSE 0 END
            OR num_nonnulls(v.revoked_at, v.revoked_by, v.reason) <> CASE v.status WHEN 'revoked' THEN 3 ELSE 0 END
    UNION ALL
    SELECT 'a redemption key redeems one voucher', NULL, format('programme %s, %s vouchers', v.program_id, count(*))
        FROM loyalty.voucher v WHERE v.redeem_key IS NOT NULL GROUP BY v.program_id, v.redeem_key HAVING count(*) > 1
    UNION ALL
    SELECT 'a voucher is redeemed on its days and by its member', v.member_id, format('voucher %s', v.voucher_id)
        FROM loyalty.voucher v JOIN loyalty.program p USING (program_id)
        WHERE v.status = 'redeemed'
            AND ((v.redeemed_at AT TIME ZONE p.time_zone)::date NOT BETWEEN v.valid_from AND coalesce(v.valid_until, 'infinity')
                 OR (v.member_id IS NOT NULL AND (v.redeem_member_id IS NULL OR v.member_id <> ALL (loyalty.same_member(v.redeem_member_id)))))
    UNION ALL
    SELECT 'a voucher belongs to a programme and to a member of it', v.member_id, format('voucher %s', v.voucher_id)
        FROM loyalty.voucher v
        WHERE NOT EXISTS (SELECT FROM loyalty.program p WHERE p.program_id = v.program_id)
            OR (v.member_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = v.member_id AND m.program_id = v.program_id))
    UNION ALL
    SELECT 'a voucher''s key is recorded', v.member_id, format('voucher %s, key %s', v.voucher_id, v.key_id)
        FROM loyalty.voucher v WHERE NOT EXISTS (SELECT FROM loyalty.voucher_key k WHERE k.key_id = v.key_id)
    UNION ALL
    SELECT 'the points of a voucher are given once it is redeemed', v.redeem_member_id, format('voucher %s', v.voucher_id)
        FROM loyalty.voucher v JOIN loyalty.program p USING (program_id)
        WHERE v.kind = 'points' AND v.status = 'redeemed'
            AND NOT EXISTS (SELECT FROM loyalty.entry n
                            WHERE (n.account_id = v.redeem_member_id OR n.account_id IN (SELECT h.household_id FROM loyalty.household_member h WHERE h.member_id = v.redeem_member_id))
                                AND n.kind = 'adjust' AND n.key = format('loyalty:voucher %s', v.voucher_id) AND n.points = v.value * 10::numeric ^ p.points_scale)
    UNION ALL
    SELECT 'points were given for a voucher that was redeemed', n.account_id, n.reason
        FROM loyalty.entry n
        WHERE n.kind = 'adjust' AND starts_with(n.key, 'loyalty:voucher ')
            AND NOT EXISTS (SELECT FROM loyalty.voucher v WHERE v.voucher_id = substr(n.key, 17)::bigint AND v.status = 'redeemed')
$$;
COMMENT ON FUNCTION loyalty.check_vouchers() IS 'The invariants of vouchers, a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_vouchers() FROM PUBLIC;
