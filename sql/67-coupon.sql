/*
 * coupon: pools of codes, issued to members and used at tills, never more often
 * than they may.
 *
 * A pool is of single codes, each used once, or of codes that many use.  Uses
 * of a whole pool are limited by a stock in shares, as rewards are; those of a
 * member by the member's counter.
 */
CREATE FUNCTION loyalty.make_code(length integer) RETURNS text
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_make_code';
COMMENT ON FUNCTION loyalty.make_code(integer) IS 'A random code of 8 to 32 letters in groups of four, none easily taken for another, the last one a check';
REVOKE ALL ON FUNCTION loyalty.make_code(integer) FROM PUBLIC;

CREATE FUNCTION loyalty.is_code(code text) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_is_code';
COMMENT ON FUNCTION loyalty.is_code(text) IS 'Whether the check letter of a code that make_coupons made is right: false for one wrong letter and for two exchanged ones';
REVOKE ALL ON FUNCTION loyalty.is_code(text) FROM PUBLIC;

CREATE TABLE loyalty.coupon_pool (
    pool_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    name        text NOT NULL CHECK (name <> '' AND octet_length(name) <= 200),
    uses        text NOT NULL DEFAULT 'single' CHECK (uses IN ('single', 'multi')),
    reward_id   integer,
    kind        text CHECK (kind IN ('discount_amount', 'discount_percent', 'product', 'service', 'shipping', 'event', 'donation', 'partner')),
    value       numeric CHECK (value > 0 AND value <= 1e12 AND value = round(value, 4)),
    currency    text CHECK (currency ~ '^[A-Z]{3}$'),
    sku         text CHECK (sku <> ''),
    partner     text CHECK (partner <> ''),
    terms       jsonb,
    max_uses    bigint CHECK (max_uses >= 0),
    stock_id    bigint,
    max_per_member integer CHECK (max_per_member > 0),
    codes_per_member integer CHECK (codes_per_member > 0),
    valid_from  timestamptz NOT NULL DEFAULT '-infinity',
    valid_until timestamptz NOT NULL DEFAULT 'infinity',
    valid_days  integer CHECK (valid_days BETWEEN 0 AND 36500),
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  name NOT NULL DEFAULT session_user,
    retired_at  timestamptz,
    retired_by  name,
    reason      text,
    UNIQUE (program_id, name),
    CONSTRAINT coupon_pool_gives_check CHECK (num_nonnulls(reward_id, kind) = 1),
    CONSTRAINT coupon_pool_gift_check CHECK (reward_id IS NULL OR num_nonnulls(value, currency, sku, partner) = 0),
    CONSTRAINT coupon_pool_value_needed_check CHECK (kind NOT IN ('discount_amount', 'discount_percent', 'donation') OR value IS NOT NULL),
    CONSTRAINT coupon_pool_percent_check CHECK (kind <> 'discount_percent' OR value <= 100),
    CONSTRAINT coupon_pool_sku_needed_check CHECK (kind <> 'product' OR sku IS NOT NULL),
    CONSTRAINT coupon_pool_stock_check CHECK ((max_uses IS NULL) = (stock_id IS NULL)),
    CONSTRAINT coupon_pool_validity_check CHECK (valid_from < valid_until),
    CONSTRAINT coupon_pool_retired_check CHECK (num_nonnulls(retired_at, retired_by) <> 1)
);
COMMENT ON TABLE loyalty.coupon_pool IS 'Codes that give the same';
COMMENT ON COLUMN loyalty.coupon_pool.uses IS 'single: each code is used once; multi: any code of the pool by many, as far as max_uses and max_per_member go';
COMMENT ON COLUMN loyalty.coupon_pool.reward_id IS 'The reward that a use gives for nothing, out of its stock; NULL: what kind, value and sku say';
COMMENT ON COLUMN loyalty.coupon_pool.value IS 'Money in currency; per cent (discount_percent); number of articles (product). NULL: what terms say';
COMMENT ON COLUMN loyalty.coupon_pool.max_uses IS 'Most uses of all codes of the pool together; NULL: no limit';
COMMENT ON COLUMN loyalty.coupon_pool.stock_id IS 'Where the shares of max_uses are';
COMMENT ON COLUMN loyalty.coupon_pool.max_per_member IS 'Most uses of the pool by one member; NULL: no limit';
COMMENT ON COLUMN loyalty.coupon_pool.codes_per_member IS 'Most codes that issue_coupon gives to one member; NULL: no limit';
COMMENT ON COLUMN loyalty.coupon_pool.valid_from IS 'Issued and used in [valid_from, valid_until)';
COMMENT ON COLUMN loyalty.coupon_pool.valid_days IS 'Days that a code is good after it was issued; NULL: as long as the pool';

CREATE SEQUENCE loyalty.coupon_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.coupon_id_seq IS 'Numbers coupons and their uses';

CREATE TABLE loyalty.coupon (
    coupon_id   bigint PRIMARY KEY DEFAULT nextval('loyalty.coupon_id_seq'),
    program_id  integer NOT NULL,
    pool_id     integer NOT NULL,
    code        text NOT NULL CHECK (code ~ '^[^[:space:]]([^[:cntrl:]]{0,62}[^[:space:]])?$'),
    slot        integer NOT NULL DEFAULT floor(random() * 2147483647),
    status      text NOT NULL DEFAULT 'free' CHECK (status IN ('free', 'issued', 'used', 'void')),
    member_id   bigint,
    key         text CHECK (key <> ''),
    issued_at   timestamptz,
    issued_by   name,
    valid_until timestamptz,
    voided_at   timestamptz,
    reason      text,
    CONSTRAINT coupon_issued_check CHECK (num_nonnulls(member_id, issued_at, issued_by) IN (0, 3)),
    CONSTRAINT coupon_free_check CHECK ((status = 'free' AND member_id IS NULL) OR (status = 'issued' AND member_id IS NOT NULL) OR status IN ('used', 'void')),
    CONSTRAINT coupon_void_check CHECK ((status = 'void') = (voided_at IS NOT NULL))
) WITH (fillfactor = 80);
ALTER SEQUENCE loyalty.coupon_id_seq OWNED BY loyalty.coupon.coupon_id;
CREATE UNIQUE INDEX coupon_code_idx ON loyalty.coupon (program_id, upper(translate(code, ' -', '')));
CREATE INDEX coupon_free_idx ON loyalty.coupon (pool_id, slot) WHERE status = 'free';
CREATE UNIQUE INDEX coupon_key_idx ON loyalty.coupon (member_id, key) WHERE key IS NOT NULL;
COMMENT ON TABLE loyalty.coupon IS 'Codes. Written by the coupon functions alone';
COMMENT ON COLUMN loyalty.coupon.code IS 'Unique in the programme; spaces, hyphens and case do not count';
COMMENT ON COLUMN loyalty.coupon.slot IS 'Random: where issuers look for a free code, so that they do not meet';
COMMENT ON COLUMN loyalty.coupon.status IS 'free: nobody''s yet, and usable by whoever has it; issued to a member; used (of a single pool); void';
COMMENT ON COLUMN loyalty.coupon.member_id IS 'Who alone may use it; NULL: the bearer';
COMMENT ON COLUMN loyalty.coupon.key IS 'Idempotency key of its issue, unique with the member for ever';
COMMENT ON COLUMN loyalty.coupon.valid_until IS 'End of an issued code; NULL: the pool''s';

CREATE TABLE loyalty.coupon_use (
    use_id      bigint PRIMARY KEY DEFAULT nextval('loyalty.coupon_id_seq'),
    program_id  integer NOT NULL,
    pool_id     integer NOT NULL,
    coupon_id   bigint NOT NULL,
    reward_id   integer,
    member_id   bigint NOT NULL,
    key         text NOT NULL CHECK (key <> ''),
    purchase_id bigint,
    reference   text,
    store       text,
    used_at     timestamptz NOT NULL DEFAULT now(),
    used_by     name NOT NULL DEFAULT session_user,
    released_at timestamptz,
    released_by name,
    reason      text,
    UNIQUE (member_id, key),
    CONSTRAINT coupon_use_released_check CHECK (num_nonnulls(released_at, released_by, reason) IN (0, 3))
);
CREATE INDEX coupon_use_coupon_id_idx ON loyalty.coupon_use (coupon_id);
COMMENT ON TABLE loyalty.coupon_use IS 'Every use of a code. Written by use_coupon and release_coupon alone';
COMMENT ON COLUMN loyalty.coupon_use.reward_id IS 'The reward that it gave';
COMMENT ON COLUMN loyalty.coupon_use.key IS 'Idempotency key, unique with the member for ever';
COMMENT ON COLUMN loyalty.coupon_use.released_at IS 'The use was taken back: it counts no more, and its code is good again';

CREATE TABLE loyalty.coupon_taken (
    pool_id     integer NOT NULL,
    member_id   bigint NOT NULL,
    issued      integer NOT NULL DEFAULT 0 CHECK (issued >= 0),
    used        integer NOT NULL DEFAULT 0 CHECK (used >= 0),
    PRIMARY KEY (pool_id, member_id)
);
COMMENT ON TABLE loyalty.coupon_taken IS 'How many codes of a pool a member was issued, and how often the member used the pool';

CREATE FUNCTION loyalty.keep_coupon() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changing text[] := TG_ARGV[0];
    old_row jsonb;
    new_row jsonb;
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        old_row := to_jsonb(OLD);
        new_row := to_jsonb(NEW);
        -- what is void, retired or released stays so
        IF new_row - changing = old_row - changing AND old_row ->> 'status' IS DISTINCT FROM 'void'
           AND old_row -> 'retired_at' IN ('null') IS NOT FALSE AND old_row -> 'released_at' IN ('null') IS NOT FALSE THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'LY901', DETAIL = 'Codes and their uses are kept for as long as the ledger.',
              HINT = 'Call loyalty.issue_coupon, use_coupon, release_coupon, void_coupon or retire_coupon_pool.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_coupon() IS 'Refuses every change of pools, codes and uses but those named, and their deletion';
REVOKE ALL ON FUNCTION loyalty.keep_coupon() FROM PUBLIC;
CREATE TRIGGER keep_coupon BEFORE UPDATE ON loyalty.coupon_pool
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_coupon('{retired_at,retired_by,reason}');
CREATE TRIGGER keep_coupon BEFORE UPDATE ON loyalty.coupon
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_coupon('{status,member_id,key,issued_at,issued_by,valid_until,voided_at,reason}');
CREATE TRIGGER keep_coupon BEFORE UPDATE ON loyalty.coupon_use
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_coupon('{released_at,released_by,reason}');
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.coupon_pool
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_coupon();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.coupon
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_coupon();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.coupon_use
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_coupon();

/* ------------------------------------------------------------------------
 * Pools
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.require_pool(program_id integer, name text) RETURNS loyalty.coupon_pool
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.coupon_pool;
BEGIN
    SELECT * INTO p FROM loyalty.coupon_pool q WHERE q.program_id = program_id AND q.name = name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'programme % has no coupon pool "%"', program_id, name USING ERRCODE = 'LY710', HINT = 'loyalty.add_coupon_pool makes one.';
    END IF;
    RETURN p;
END
$$;
COMMENT ON FUNCTION loyalty.require_pool(integer, text) IS 'A pool by its name, or LY710';
REVOKE ALL ON FUNCTION loyalty.require_pool(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.issuing_pool(program_id integer, name text) RETURNS integer
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p loyalty.coupon_pool;
BEGIN
    IF name IS NULL THEN
        RETURN NULL;
    END IF;
    p := loyalty.require_pool(program_id, name);
    IF p.uses <> 'single' OR p.reward_id IS NOT NULL THEN
        RAISE EXCEPTION 'a reward cannot hand out codes of pool "%"', name
            USING ERRCODE = 'LY708', DETAIL = CASE WHEN p.uses <> 'single' THEN 'Its codes are for many.' ELSE 'Its codes give a reward themselves.' END;
    END IF;
    RETURN p.pool_id;
END
$$;
COMMENT ON FUNCTION loyalty.issuing_pool(integer, text) IS 'The pool whose codes a reward hands out, or LY708 or LY710; NULL is no pool';
REVOKE ALL ON FUNCTION loyalty.issuing_pool(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.add_coupon_pool(program_id integer, name text, kind text DEFAULT NULL, value numeric DEFAULT NULL,
        reward text DEFAULT NULL, uses text DEFAULT 'single', max_uses bigint DEFAULT NULL, max_per_member integer DEFAULT NULL,
        codes_per_member integer DEFAULT 1, valid_from timestamptz DEFAULT '-infinity', valid_until timestamptz DEFAULT 'infinity',
        valid_days integer DEFAULT NULL, sku text DEFAULT NULL, partner text DEFAULT NULL, terms jsonb DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    gift integer;
    coin text;
    detail text;
    broken text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF reward IS NOT NULL THEN
        SELECT r.reward_id INTO gift FROM loyalty.reward r WHERE r.program_id = program_id AND r.name = reward AND r.retired_at IS NULL;
        IF NOT FOUND THEN
            PERFORM loyalty.raise_unknown_reward(program_id, reward);
        END IF;
    END IF;
    IF value IS NOT NULL AND kind NOT IN ('discount_percent', 'product') THEN
        SELECT p.currency INTO coin FROM loyalty.program p WHERE p.program_id = program_id;
    END IF;
    INSERT INTO loyalty.coupon_pool (program_id, name, uses, reward_id, kind, value, currency, sku, partner, terms,
            max_uses, stock_id, max_per_member, codes_per_member, valid_from, valid_until, valid_days)
        VALUES (program_id, name, uses, gift, kind, trim_scale(value), coin, sku, partner, terms,
            max_uses, CASE WHEN max_uses >= 0 THEN loyalty.make_stock(max_uses) END, max_per_member, codes_per_member, valid_from, valid_until, valid_days)
        RETURNING pool_id INTO id;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.coupon_pool', broken, jsonb_build_object(
            'name', name, 'uses', uses, 'reward_id', reward, 'kind', kind, 'value', value, 'currency', coin, 'sku', sku, 'partner', partner, 'terms', terms,
            'max_uses', max_uses, 'max_per_member', max_per_member, 'codes_per_member', codes_per_member, 'valid_from', valid_from, 'valid_until', valid_until,
            'valid_days', valid_days)), detail);
    RAISE EXCEPTION 'coupon pool "%" is not valid', name
        USING ERRCODE = 'LY719', DETAIL = detail,
              HINT = 'A pool has a name of its own and gives either a reward or what kind, value and sku say; the comments on loyalty.coupon_pool say more.';
END
$$;
COMMENT ON FUNCTION loyalty.add_coupon_pool IS 'Adds a pool of codes; returns its id. uses single: each code once, multi: a code for many. A use gives the reward, or what kind, value and sku say';
REVOKE ALL ON FUNCTION loyalty.add_coupon_pool FROM PUBLIC;

CREATE FUNCTION loyalty.retire_coupon_pool(program_id integer, name text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.coupon_pool := loyalty.require_pool(program_id, name);
BEGIN
    UPDATE loyalty.coupon_pool q SET retired_at = now(), retired_by = session_user, reason = reason WHERE q.pool_id = p.pool_id AND q.retired_at IS NULL;
END
$$;
COMMENT ON FUNCTION loyalty.retire_coupon_pool(integer, text, text) IS 'Ends a pool: none of its codes is issued or used any more';
REVOKE ALL ON FUNCTION loyalty.retire_coupon_pool(integer, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.import_coupons(program_id integer, pool text, codes text[]) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.coupon_pool := loyalty.require_pool(program_id, pool);
    added bigint;
    other text;
BEGIN
    -- in the index's order, so that two imports do not cross
    INSERT INTO loyalty.coupon (program_id, pool_id, code)
        SELECT DISTINCT ON (upper(translate(c, ' -', ''))) p.program_id, p.pool_id, btrim(c) FROM unnest(codes) c ORDER BY upper(translate(c, ' -', '')), c
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    SELECT min(k.code) INTO other FROM unnest(codes) c JOIN loyalty.coupon k
        ON k.program_id = p.program_id AND upper(translate(k.code, ' -', '')) = upper(translate(c, ' -', '')) WHERE k.pool_id <> p.pool_id;
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'code "%" is another pool''s', other USING ERRCODE = 'LY719', DETAIL = 'A code is unique in the programme; spaces, hyphens and case do not count.';
    END IF;
    RETURN added;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the list of codes is not valid'
        USING ERRCODE = 'LY719', DETAIL = 'A code is of 1 to 64 printable characters.', HINT = 'Nothing was imported.';
END
$$;
COMMENT ON FUNCTION loyalty.import_coupons(integer, text, text[]) IS 'Adds codes that somebody else made; returns how many are new. Those that the pool has already are passed over';
REVOKE ALL ON FUNCTION loyalty.import_coupons(integer, text, text[]) FROM PUBLIC;

CREATE FUNCTION loyalty.make_coupons(program_id integer, pool text, number integer, length integer DEFAULT 12) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.coupon_pool := loyalty.require_pool(program_id, pool);
    made bigint := 0;
    added bigint;
BEGIN
    IF coalesce(number, 0) NOT BETWEEN 1 AND 10000000 OR coalesce(length, 0) NOT BETWEEN 8 AND 32 THEN
        RAISE EXCEPTION 'make 1 to 10000000 codes of 8 to 32 letters' USING ERRCODE = 'LY719', DETAIL = format('Got %s and %s.', coalesce(number::text, 'NULL'), coalesce(length::text, 'NULL'));
    END IF;
    WHILE made < number LOOP
        INSERT INTO loyalty.coupon (program_id, pool_id, code)
            SELECT p.program_id, p.pool_id, loyalty.make_code(length) FROM generate_series(1, number - made) ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS added = ROW_COUNT;
        made := made + added;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION loyalty.make_coupons(integer, text, integer, integer) IS 'Makes random codes; returns how many. loyalty.is_code tells a mistyped one';
REVOKE ALL ON FUNCTION loyalty.make_coupons(integer, text, integer, integer) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Issuing
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_pool_open(p loyalty.coupon_pool) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p.retired_at IS NOT NULL OR now() < p.valid_from OR now() >= p.valid_until THEN
        RAISE EXCEPTION 'coupons of pool "%" are not valid now', p.name
            USING ERRCODE = 'LY714', DETAIL = CASE WHEN p.retired_at IS NOT NULL THEN format('The pool was retired on %s.', p.retired_at)
                ELSE format('They are valid from %s to %s.', p.valid_from, p.valid_until) END;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_pool_open(loyalty.coupon_pool) IS 'Raises LY714 where a pool is not valid now';
REVOKE ALL ON FUNCTION loyalty.check_pool_open(loyalty.coupon_pool) FROM PUBLIC;

CREATE FUNCTION loyalty.count_issued(p loyalty.coupon_pool, member_id bigint, most integer) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    most := most - (SELECT coalesce(sum(t.issued), 0) FROM loyalty.coupon_taken t
        WHERE t.pool_id = p.pool_id AND t.member_id = ANY (loyalty.same_member(member_id)) AND t.member_id <> member_id);
    -- written even where nothing is limited: of two sessions with one member at REPEATABLE READ one raises 40001
    INSERT INTO loyalty.coupon_taken AS t (pool_id, member_id, issued) VALUES (p.pool_id, member_id, 1)
        ON CONFLICT ON CONSTRAINT coupon_taken_pkey DO UPDATE SET issued = t.issued + 1 WHERE t.issued < most OR most IS NULL;
    IF NOT FOUND OR most <= 0 THEN
        RAISE EXCEPTION 'member % has its codes of pool "%" already', member_id, p.name
            USING ERRCODE = 'LY716', DETAIL = format('A member is issued %s.', p.codes_per_member);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.count_issued(loyalty.coupon_pool, bigint, integer) IS 'Counts a code that a member is issued, or raises LY716';
REVOKE ALL ON FUNCTION loyalty.count_issued(loyalty.coupon_pool, bigint, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.take_code(p loyalty.coupon_pool, may_wait boolean) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $$
DECLARE
    start integer := floor(random() * 2147483647);
    id bigint;
BEGIN
    -- issuers begin at random places and pass over what others hold
    SELECT k.coupon_id INTO id FROM loyalty.coupon k WHERE k.pool_id = p.pool_id AND k.status = 'free' AND k.slot >= start
        ORDER BY k.pool_id, k.slot LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        SELECT k.coupon_id INTO id FROM loyalty.coupon k WHERE k.pool_id = p.pool_id AND k.status = 'free'
            ORDER BY k.pool_id, k.slot LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    IF id IS NULL AND may_wait THEN
        -- those that others hold may come free again
        SELECT k.coupon_id INTO id FROM loyalty.coupon k WHERE k.pool_id = p.pool_id AND k.status = 'free'
            ORDER BY k.pool_id, k.slot LIMIT 1 FOR NO KEY UPDATE;
    END IF;
    IF id IS NULL THEN
        RAISE EXCEPTION 'pool "%" has no free code', p.name USING ERRCODE = 'LY718', HINT = 'loyalty.make_coupons and loyalty.import_coupons add codes.';
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION loyalty.take_code(loyalty.coupon_pool, boolean) IS 'Locks a free code, or raises LY718 where there is none that anybody could still give back';
REVOKE ALL ON FUNCTION loyalty.take_code(loyalty.coupon_pool, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.give_code(p loyalty.coupon_pool, member_id bigint, key text, valid_days integer, may_wait boolean DEFAULT true) RETURNS loyalty.coupon
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    k loyalty.coupon;
    id bigint := loyalty.take_code(p, may_wait);
    zone text := (SELECT g.time_zone FROM loyalty.program g WHERE g.program_id = p.program_id);
BEGIN
    UPDATE loyalty.coupon q SET status = 'issued', member_id = member_id, key = key, issued_at = now(), issued_by = session_user,
            valid_until = (loyalty.local_day(p.program_id, now()) + valid_days + 1)::timestamp AT TIME ZONE zone
        WHERE q.coupon_id = id RETURNING * INTO k;
    RETURN k;
END
$$;
COMMENT ON FUNCTION loyalty.give_code(loyalty.coupon_pool, bigint, text, integer, boolean) IS 'Issues a free code of a pool to a member';
REVOKE ALL ON FUNCTION loyalty.give_code(loyalty.coupon_pool, bigint, text, integer, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.issue_coupons(r loyalty.reward, c loyalty.claim, may_wait boolean) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p loyalty.coupon_pool;
    ids bigint[] := '{}';
    k loyalty.coupon;
BEGIN
    SELECT * INTO p FROM loyalty.coupon_pool q WHERE q.pool_id = r.pool_id;
    PERFORM loyalty.check_pool_open(p);
    FOR piece IN 1 .. c.quantity LOOP
        PERFORM loyalty.count_issued(p, c.member_id, NULL);
        k := loyalty.give_code(p, c.member_id, format('loyalty:claim %s %s', c.claim_id, piece), coalesce(r.valid_days, p.valid_days), may_wait);
        ids := ids || k.coupon_id;
    END LOOP;
    RETURN ids;
END
$$;
COMMENT ON FUNCTION loyalty.issue_coupons(loyalty.reward, loyalty.claim, boolean) IS 'Issues a code for every piece of a claim';
REVOKE ALL ON FUNCTION loyalty.issue_coupons(loyalty.reward, loyalty.claim, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.issue_coupon(member_id bigint, pool text, key text, OUT coupon_id bigint, OUT code text, OUT valid_until timestamptz)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_member(member_id);
    p loyalty.coupon_pool;
    k loyalty.coupon;
BEGIN
    PERFORM loyalty.check_key('issuing a coupon', key);
    p := loyalty.require_pool(m.program_id, pool);
    SELECT * INTO k FROM loyalty.coupon q WHERE q.member_id = member_id AND q.key = key;
    IF FOUND AND k.pool_id <> p.pool_id THEN
        PERFORM loyalty.raise_key_reused(member_id, key, format('It issued coupon %s of another pool.', k.coupon_id));
    ELSIF NOT FOUND THEN
        PERFORM loyalty.check_member_active(m);
        PERFORM loyalty.check_pool_open(p);
        IF p.uses = 'multi' THEN
            RAISE EXCEPTION 'codes of pool "%" are for everybody', pool USING ERRCODE = 'LY719', DETAIL = 'Only single codes are issued to a member.';
        END IF;
        PERFORM loyalty.count_issued(p, member_id, p.codes_per_member);
        k := loyalty.give_code(p, member_id, key, p.valid_days);
    END IF;
    coupon_id := k.coupon_id;
    code := k.code;
    valid_until := least(k.valid_until, nullif(p.valid_until, 'infinity'));
END
$$;
COMMENT ON FUNCTION loyalty.issue_coupon(bigint, text, text) IS 'Gives a member an unused code of a pool, which nobody else can use; the same key again returns the same code';
REVOKE ALL ON FUNCTION loyalty.issue_coupon(bigint, text, text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Using
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.find_coupon(program_id integer, code text) RETURNS loyalty.coupon
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    k loyalty.coupon;
BEGIN
    SELECT * INTO k FROM loyalty.coupon q WHERE q.program_id = program_id AND upper(translate(q.code, ' -', '')) = upper(translate(code, ' -', ''));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the programme has no such code'
            USING ERRCODE = 'LY711', DETAIL = CASE WHEN loyalty.is_code(code) THEN 'It is well-formed.' ELSE 'It is mistyped, or was not made here: its check letter is wrong.' END;
    END IF;
    RETURN k;
END
$$;
COMMENT ON FUNCTION loyalty.find_coupon(integer, text) IS 'A coupon by its code, or LY711';
REVOKE ALL ON FUNCTION loyalty.find_coupon(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.check_coupon(k loyalty.coupon, member_id bigint) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF k.status = 'used' THEN
        RAISE EXCEPTION 'coupon % has been used', k.coupon_id
            USING ERRCODE = 'LY712', DETAIL = (SELECT format('On %s, reference %s.', u.used_at, coalesce(u.reference, u.purchase_id::text, '-')) FROM loyalty.coupon_use u WHERE u.coupon_id = k.coupon_id AND u.released_at IS NULL);
    ELSIF k.status = 'void' THEN
        RAISE EXCEPTION 'coupon % is void', k.coupon_id USING ERRCODE = 'LY713', DETAIL = format('Since %s: %s', k.voided_at, coalesce(k.reason, '-'));
    ELSIF k.member_id <> ALL (loyalty.same_member(member_id)) THEN
        RAISE EXCEPTION 'coupon % is another member''s', k.coupon_id USING ERRCODE = 'LY715', HINT = 'Only the member it was issued to may use it.';
    ELSIF now() >= k.valid_until THEN
        RAISE EXCEPTION 'coupon % is not valid any more', k.coupon_id USING ERRCODE = 'LY714', DETAIL = format('It was valid until %s.', k.valid_until);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_coupon(loyalty.coupon, bigint) IS 'Refuses a code that a member may not use now';
REVOKE ALL ON FUNCTION loyalty.check_coupon(loyalty.coupon, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.check_coupon_purchase(member_id bigint, purchase_id bigint) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF purchase_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.purchase p WHERE p.purchase_id = purchase_id AND p.member_id = member_id) THEN
        RAISE EXCEPTION 'member % has no purchase %', member_id, purchase_id
            USING ERRCODE = 'LY709', HINT = 'Insert the purchase first, or give the till''s own number as reference.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_coupon_purchase(bigint, bigint) IS 'Raises LY709 where a purchase is not the member''s';
REVOKE ALL ON FUNCTION loyalty.check_coupon_purchase(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.count_used(p loyalty.coupon_pool, member_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    most integer := p.max_per_member - (SELECT coalesce(sum(t.used), 0) FROM loyalty.coupon_taken t
        WHERE t.pool_id = p.pool_id AND t.member_id = ANY (loyalty.same_member(member_id)) AND t.member_id <> member_id);
BEGIN
    INSERT INTO loyalty.coupon_taken AS t (pool_id, member_id, used) VALUES (p.pool_id, member_id, 1)
        ON CONFLICT ON CONSTRAINT coupon_taken_pkey DO UPDATE SET used = t.used + 1 WHERE t.used < most OR most IS NULL;
    IF NOT FOUND OR most <= 0 THEN
        RAISE EXCEPTION 'member % may not use coupons of pool "%" any more', member_id, p.name
            USING ERRCODE = 'LY716', DETAIL = format('A member uses %s.', p.max_per_member);
    END IF;
    IF p.stock_id IS NOT NULL AND NOT loyalty.take_stock(p.stock_id, 1) THEN
        RAISE EXCEPTION 'coupons of pool "%" are used up', p.name USING ERRCODE = 'LY717', DETAIL = format('They were for %s uses in all.', p.max_uses);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.count_used(loyalty.coupon_pool, bigint) IS 'Counts a use against the limits of a pool, or raises LY716 or LY717';
REVOKE ALL ON FUNCTION loyalty.count_used(loyalty.coupon_pool, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.make_use(k loyalty.coupon, p loyalty.coupon_pool, asked loyalty.coupon_use) RETURNS loyalty.coupon_use
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    u loyalty.coupon_use;
BEGIN
    PERFORM loyalty.count_used(p, asked.member_id);
    PERFORM loyalty.take_reward(r, 1) FROM loyalty.reward r WHERE r.reward_id = p.reward_id;
    IF p.uses = 'single' THEN
        UPDATE loyalty.coupon q SET status = 'used' WHERE q.coupon_id = k.coupon_id;
    END IF;
    INSERT INTO loyalty.coupon_use (program_id, pool_id, coupon_id, reward_id, member_id, key, purchase_id, reference, store)
        VALUES (k.program_id, k.pool_id, k.coupon_id, p.reward_id, asked.member_id, asked.key, asked.purchase_id, asked.reference, asked.store)
        RETURNING * INTO u;
    RETURN u;
END
$$;
COMMENT ON FUNCTION loyalty.make_use(loyalty.coupon, loyalty.coupon_pool, loyalty.coupon_use) IS 'Takes all that a use takes, and writes it down';
REVOKE ALL ON FUNCTION loyalty.make_use(loyalty.coupon, loyalty.coupon_pool, loyalty.coupon_use) FROM PUBLIC;

CREATE FUNCTION loyalty.use_coupon(code text, member_id bigint, key text, purchase_id bigint DEFAULT NULL, reference text DEFAULT NULL,
        store text DEFAULT NULL, OUT use_id bigint, OUT pool text, OUT reward text, OUT kind text, OUT value numeric, OUT currency text,
        OUT sku text, OUT partner text, OUT terms jsonb)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_member(member_id);
    asked loyalty.coupon_use;
    u loyalty.coupon_use;
    k loyalty.coupon;
    p loyalty.coupon_pool;
BEGIN
    PERFORM loyalty.check_key('a use of a coupon', key);
    k := loyalty.find_coupon(m.program_id, code);
    SELECT * INTO p FROM loyalty.coupon_pool q WHERE q.pool_id = k.pool_id;
    SELECT * INTO u FROM loyalty.coupon_use q WHERE q.member_id = member_id AND q.key = key;
    IF NOT FOUND THEN
        PERFORM loyalty.check_member_active(m);
        PERFORM loyalty.check_pool_open(p);
        IF p.uses = 'single' THEN
            SELECT * INTO k FROM loyalty.coupon q WHERE q.coupon_id = k.coupon_id FOR NO KEY UPDATE;
        END IF;
        PERFORM loyalty.check_coupon(k, member_id);
        PERFORM loyalty.check_coupon_purchase(member_id, purchase_id);
        asked.member_id := member_id;
        asked.key := key;
        asked.purchase_id := purchase_id;
        asked.reference := reference;
        asked.store := store;
        u := loyalty.make_use(k, p, asked);
    ELSIF (u.coupon_id, u.purchase_id, u.reference, u.store) IS DISTINCT FROM (k.coupon_id, purchase_id, reference, store) THEN
        PERFORM loyalty.raise_key_reused(member_id, key, format('It used coupon %s, purchase %s, reference %s, store %s.', u.coupon_id,
            coalesce(u.purchase_id::text, '-'), coalesce(u.reference, '-'), coalesce(u.store, '-')));
    END IF;
    use_id := u.use_id;
    pool := p.name;
    SELECT r.name, coalesce(p.kind, r.kind), coalesce(p.value, r.value), coalesce(p.currency, r.currency), coalesce(p.sku, r.sku),
           coalesce(p.partner, r.partner), coalesce(p.terms, r.terms)
        INTO reward, kind, value, currency, sku, partner, terms
        FROM (SELECT) one LEFT JOIN loyalty.reward r ON r.reward_id = p.reward_id;
END
$$;
COMMENT ON FUNCTION loyalty.use_coupon IS 'Uses a code for a member, never more often than the pool allows, and returns what it gives; spaces, hyphens and case do not count. The same key and content again returns the first result';
REVOKE ALL ON FUNCTION loyalty.use_coupon FROM PUBLIC;

CREATE FUNCTION loyalty.release_coupon(member_id bigint, key text, reason text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_member(member_id);
    u loyalty.coupon_use;
BEGIN
    IF coalesce(btrim(reason), '') = '' THEN
        RAISE EXCEPTION 'releasing a coupon needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why: the order was cancelled, for example.';
    END IF;
    SELECT * INTO u FROM loyalty.coupon_use q WHERE q.member_id = member_id AND q.key = key FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member % has not used a coupon with key "%"', member_id, key USING ERRCODE = 'LY711';
    END IF;
    IF u.released_at IS NULL THEN
        -- a code that was the bearer's is from now on this member's
        UPDATE loyalty.coupon q SET status = 'issued', member_id = coalesce(q.member_id, member_id), issued_at = coalesce(q.issued_at, now()), issued_by = coalesce(q.issued_by, session_user)
            WHERE q.coupon_id = u.coupon_id AND q.status = 'used';
        UPDATE loyalty.coupon_taken t SET used = t.used - 1 WHERE t.pool_id = u.pool_id AND t.member_id = member_id;
        PERFORM loyalty.give_stock(p.stock_id, 1) FROM loyalty.coupon_pool p WHERE p.pool_id = u.pool_id AND p.stock_id IS NOT NULL;
        PERFORM loyalty.give_stock(r.stock_id, 1) FROM loyalty.reward r WHERE r.reward_id = u.reward_id AND r.stock_id IS NOT NULL;
        UPDATE loyalty.coupon_use q SET released_at = now(), released_by = session_user, reason = reason WHERE q.use_id = u.use_id;
    END IF;
    RETURN u.use_id;
END
$$;
COMMENT ON FUNCTION loyalty.release_coupon(bigint, text, text) IS 'Takes the use with that key back, once: it counts no more, and the code is good again';
REVOKE ALL ON FUNCTION loyalty.release_coupon(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.void_coupon(program_id integer, code text, reason text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    k loyalty.coupon := loyalty.find_coupon(program_id, code);
BEGIN
    IF coalesce(btrim(reason), '') = '' THEN
        RAISE EXCEPTION 'voiding a coupon needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for the member and the auditor.';
    END IF;
    SELECT * INTO k FROM loyalty.coupon q WHERE q.coupon_id = k.coupon_id FOR NO KEY UPDATE;
    IF k.status = 'used' THEN
        RAISE EXCEPTION 'coupon % has been used', k.coupon_id USING ERRCODE = 'LY712';
    END IF;
    UPDATE loyalty.coupon q SET status = 'void', voided_at = now(), reason = reason WHERE q.coupon_id = k.coupon_id AND q.status <> 'void';
    RETURN k.coupon_id;
END
$$;
COMMENT ON FUNCTION loyalty.void_coupon(integer, text, text) IS 'Makes a code that was not used worthless for good';
REVOKE ALL ON FUNCTION loyalty.void_coupon(integer, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.coupons(member_id bigint)
    RETURNS TABLE (coupon_id bigint, code text, pool text, kind text, value numeric, currency text, sku text, terms jsonb,
                   status text, valid_until timestamptz, usable boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    m loyalty.member := loyalty.require_member(coupons.member_id);
BEGIN
    RETURN QUERY SELECT k.coupon_id, k.code, p.name, coalesce(p.kind, r.kind), coalesce(p.value, r.value), coalesce(p.currency, r.currency),
            coalesce(p.sku, r.sku), coalesce(p.terms, r.terms), k.status, nullif(least(k.valid_until, p.valid_until), 'infinity'),
            k.status = 'issued' AND m.status = 'active' AND p.retired_at IS NULL AND now() >= p.valid_from AND now() < least(k.valid_until, p.valid_until)
        FROM loyalty.coupon k JOIN loyalty.coupon_pool p USING (pool_id) LEFT JOIN loyalty.reward r USING (reward_id)
        WHERE k.member_id = ANY (loyalty.same_member(m.member_id)) ORDER BY k.issued_at, k.coupon_id;
END
$$;
COMMENT ON FUNCTION loyalty.coupons(bigint) IS 'The codes that a member was issued, and which of them are good now';
REVOKE ALL ON FUNCTION loyalty.coupons(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Invariants, for check()
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_coupons() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'the shares of a pool and its uses make max_uses', NULL::bigint, format('pool %s: %s left, %s used, of %s', p.pool_id, s.remaining, u.n, p.max_uses)
        FROM loyalty.coupon_pool p
            CROSS JOIN LATERAL (SELECT coalesce(sum(q.remaining), 0) AS remaining FROM loyalty.stock_share q WHERE q.stock_id = p.stock_id) s
            CROSS JOIN LATERAL (SELECT count(*) AS n FROM loyalty.coupon_use q WHERE q.pool_id = p.pool_id AND q.released_at IS NULL) u
        WHERE p.max_uses IS NOT NULL AND s.remaining + u.n <> p.max_uses
    UNION ALL
    SELECT 'a single code is used once, and then it is used', max(u.member_id), format('coupon %s: %s uses, %s', k.coupon_id, count(u.use_id), k.status)
        FROM loyalty.coupon k JOIN loyalty.coupon_pool p USING (pool_id)
            LEFT JOIN loyalty.coupon_use u ON u.coupon_id = k.coupon_id AND u.released_at IS NULL
        WHERE p.uses = 'single'
        GROUP BY k.coupon_id HAVING count(u.use_id) <> CASE WHEN k.status = 'used' THEN 1 ELSE 0 END
    UNION ALL
    SELECT 'a code is used by its member alone', u.member_id, format('coupon %s', k.coupon_id)
        FROM loyalty.coupon_use u JOIN loyalty.coupon k USING (coupon_id)
        WHERE u.released_at IS NULL AND k.member_id <> u.member_id
            AND NOT EXISTS (SELECT FROM loyalty.account a WHERE a.account_id = k.member_id AND a.merged_into IS NOT NULL)
    UNION ALL
    SELECT 'a member''s codes and uses are within the limits', t.member_id,
           format('pool %s: counted %s issued and %s used, found %s and %s', t.pool_id, t.issued, t.used, k.n, u.n)
        FROM loyalty.coupon_taken t JOIN loyalty.coupon_pool p USING (pool_id)
            CROSS JOIN LATERAL (SELECT count(*) AS n FROM loyalty.coupon q WHERE q.pool_id = t.pool_id AND q.member_id = t.member_id AND q.key IS NOT NULL) k
            CROSS JOIN LATERAL (SELECT count(*) AS n FROM loyalty.coupon_use q WHERE q.pool_id = t.pool_id AND q.member_id = t.member_id AND q.released_at IS NULL) u
        WHERE t.issued <> k.n OR t.used <> u.n OR t.used > p.max_per_member
    UNION ALL
    SELECT 'a use is counted', u.member_id, format('use %s', u.use_id)
        FROM loyalty.coupon_use u
        WHERE u.released_at IS NULL AND NOT EXISTS (SELECT FROM loyalty.coupon_taken t WHERE t.pool_id = u.pool_id AND t.member_id = u.member_id)
    UNION ALL
    SELECT 'a code, its pool and its member are of one programme', k.member_id, format('coupon %s', k.coupon_id)
        FROM loyalty.coupon k
        WHERE NOT EXISTS (SELECT FROM loyalty.coupon_pool p WHERE p.pool_id = k.pool_id AND p.program_id = k.program_id)
            OR (k.member_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = k.member_id AND m.program_id = k.program_id))
$$;
COMMENT ON FUNCTION loyalty.check_coupons() IS 'The invariants of coupons, a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_coupons() FROM PUBLIC;
