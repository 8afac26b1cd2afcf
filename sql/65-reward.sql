/*
 * reward: a catalogue of what points buy, and claims on it.
 *
 * Nothing here is counted twice or beyond its number, at any isolation level:
 * what is limited lies in rows that every taker updates.  A stock lies in
 * shares, so that takers do not wait for each other while there is enough.
 * Locks are taken in this order: the member's account, codes that are named, the
 * member's counters, shares, codes that are free.
 */

/* ------------------------------------------------------------------------
 * Conditions
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_condition(owner text, condition text) RETURNS void
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'loyalty_check_condition';
COMMENT ON FUNCTION loyalty.check_condition(text, text) IS 'Compiles a condition over the row member, or raises LY201 or LY202';
REVOKE ALL ON FUNCTION loyalty.check_condition(text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.condition_holds(condition text, member loyalty.member_facts) RETURNS boolean
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'loyalty_condition_holds';
COMMENT ON FUNCTION loyalty.condition_holds(text, loyalty.member_facts) IS 'Whether a condition is true of a member; NULL is no condition. LY203 where it fails';
REVOKE ALL ON FUNCTION loyalty.condition_holds(text, loyalty.member_facts) FROM PUBLIC;

CREATE FUNCTION loyalty.member_facts(member_id bigint) RETURNS loyalty.member_facts
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    facts loyalty.member_facts;
BEGIN
    SELECT m.external_id, (m.joined_at AT TIME ZONE p.time_zone)::date, m.birthday,
           -- adding years makes 28 February of the 29th where there is none
           coalesce((m.birthday + make_interval(years => extract(year FROM d.today)::integer - extract(year FROM m.birthday)::integer))::date = d.today, false),
           m.staff, t.name, coalesce(t.rank, 0), loyalty.visits(a.tally), loyalty.spend(a.tally),
           loyalty.spend(a.tally) / nullif(loyalty.visits(a.tally), 0), m.attributes
        INTO facts
        FROM loyalty.member m
             JOIN loyalty.program p USING (program_id)
             JOIN loyalty.account a ON a.account_id = loyalty.account_of(m.member_id)
             LEFT JOIN loyalty.tier t USING (tier_id)
             CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE p.time_zone)::date AS today) d
        WHERE m.member_id = member_id;
    RETURN facts;
END
$$;
COMMENT ON FUNCTION loyalty.member_facts(bigint) IS 'The row member as rules know it, of today';
REVOKE ALL ON FUNCTION loyalty.member_facts(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Stock in shares
 * ------------------------------------------------------------------------ */

CREATE SEQUENCE loyalty.stock_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.stock_id_seq IS 'Numbers stocks, of rewards and of coupons'' uses';

CREATE TABLE loyalty.stock_share (
    stock_id    bigint NOT NULL,
    share       integer NOT NULL,
    remaining   bigint NOT NULL CHECK (remaining >= 0),
    PRIMARY KEY (stock_id, share)
) WITH (fillfactor = 50);
COMMENT ON TABLE loyalty.stock_share IS 'What is left of a stock, in 64 shares or so; a taker locks one of them. Written by take_stock and give_stock alone';

CREATE FUNCTION loyalty.make_stock(quantity bigint) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id bigint := nextval('loyalty.stock_id_seq');
    shares integer := least(greatest(quantity, 1), 64);
BEGIN
    INSERT INTO loyalty.stock_share (stock_id, share, remaining)
        SELECT id, i, quantity / shares + CASE WHEN i < quantity % shares THEN 1 ELSE 0 END FROM generate_series(0, shares - 1) i;
    RETURN id;
END
$$;
COMMENT ON FUNCTION loyalty.make_stock(bigint) IS 'Lays a quantity into shares; returns the stock''s number';
REVOKE ALL ON FUNCTION loyalty.make_stock(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.stock_left(stock_id bigint) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT sum(s.remaining)::bigint FROM loyalty.stock_share s WHERE s.stock_id = stock_left.stock_id $$;
COMMENT ON FUNCTION loyalty.stock_left(bigint) IS 'What is left in all shares; NULL: no such stock';
REVOKE ALL ON FUNCTION loyalty.stock_left(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.take_waiting(stock_id bigint, quantity bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    share integer[];
    remaining bigint[];
    part bigint;
    wanted bigint := quantity;
BEGIN
    -- each share that is left has one at least, so that so many are enough; in order, so that waiters do not cross
    SELECT array_agg(l.share), array_agg(l.remaining) INTO share, remaining
        FROM (SELECT q.share, q.remaining FROM loyalty.stock_share q
              WHERE q.stock_id = stock_id AND q.remaining > 0 ORDER BY q.share LIMIT quantity FOR NO KEY UPDATE) l;
    IF coalesce((SELECT sum(x) FROM unnest(remaining) x), 0) < quantity THEN
        RETURN false;
    END IF;
    FOR i IN 1 .. cardinality(share) LOOP
        part := least(wanted, remaining[i]);
        UPDATE loyalty.stock_share q SET remaining = q.remaining - part WHERE q.stock_id = stock_id AND q.share = share[i];
        wanted := wanted - part;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION loyalty.take_waiting(bigint, bigint) IS 'Takes from as many shares as it needs and waits for those who hold them; false: there is not so much';
REVOKE ALL ON FUNCTION loyalty.take_waiting(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.take_stock(stock_id bigint, quantity bigint, may_wait boolean DEFAULT true) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    free integer;
BEGIN
    SELECT q.share INTO free FROM loyalty.stock_share q WHERE q.stock_id = stock_id AND q.remaining >= quantity
        ORDER BY random() LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE loyalty.stock_share q SET remaining = q.remaining - quantity WHERE q.stock_id = stock_id AND q.share = free;
        RETURN true;
    END IF;
    -- takers under way only make it less: where it is too little already, nobody needs to wait
    RETURN may_wait AND loyalty.stock_left(stock_id) >= quantity AND loyalty.take_waiting(stock_id, quantity);
END
$$;
COMMENT ON FUNCTION loyalty.take_stock(bigint, bigint, boolean) IS 'Takes from a share that nobody holds, else waits for those that are held; false only when there is not so much left, or where it may not wait';
REVOKE ALL ON FUNCTION loyalty.take_stock(bigint, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.give_stock(stock_id bigint, quantity bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    chosen integer;
BEGIN
    SELECT q.share INTO chosen FROM loyalty.stock_share q WHERE q.stock_id = stock_id ORDER BY random() LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE loyalty.stock_share q SET remaining = q.remaining + quantity WHERE q.stock_id = stock_id AND q.share = chosen;
    ELSE
        -- a share of its own: who gives back waits for nobody
        INSERT INTO loyalty.stock_share AS q (stock_id, share, remaining) VALUES (stock_id, 64 + floor(random() * 2000000000)::integer, quantity)
            ON CONFLICT ON CONSTRAINT stock_share_pkey DO UPDATE SET remaining = q.remaining + excluded.remaining;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.give_stock(bigint, bigint) IS 'Puts back into a stock, without waiting';
REVOKE ALL ON FUNCTION loyalty.give_stock(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.add_stock(stock_id bigint, quantity bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    shares integer := least(greatest(coalesce(loyalty.stock_left(stock_id), 0) + quantity, 1), 64);
BEGIN
    PERFORM FROM loyalty.stock_share q WHERE q.stock_id = stock_id ORDER BY q.share FOR NO KEY UPDATE;
    INSERT INTO loyalty.stock_share (stock_id, share, remaining)
        SELECT stock_id, i, 0 FROM generate_series(0, shares - 1) i ON CONFLICT DO NOTHING;
    UPDATE loyalty.stock_share q SET remaining = q.remaining + quantity / shares + CASE WHEN q.share < quantity % shares THEN 1 ELSE 0 END
        WHERE q.stock_id = stock_id AND q.share < shares;
END
$$;
COMMENT ON FUNCTION loyalty.add_stock(bigint, bigint) IS 'Adds to a stock, over all of its shares; waits for those who hold one';
REVOKE ALL ON FUNCTION loyalty.add_stock(bigint, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * The catalogue
 * ------------------------------------------------------------------------ */

CREATE TABLE loyalty.reward (
    reward_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    name        text NOT NULL CHECK (name <> '' AND octet_length(name) <= 200),
    kind        text NOT NULL CHECK (kind IN ('discount_amount', 'discount_percent', 'product', 'service', 'shipping', 'event',
                                              'donation', 'partner', 'status', 'badge', 'access')),
    points      bigint CHECK (points BETWEEN 0 AND 1000000000000),
    value       numeric CHECK (value > 0 AND value <= 1e12 AND value = round(value, 4)),
    currency    text CHECK (currency ~ '^[A-Z]{3}$'),
    sku         text CHECK (sku <> ''),
    partner     text CHECK (partner <> ''),
    category    text,
    description text,
    terms       jsonb,
    valid_from  timestamptz NOT NULL DEFAULT '-infinity',
    valid_until timestamptz NOT NULL DEFAULT 'infinity',
    stock       bigint CHECK (stock >= 0),
    stock_id    bigint,
    member_limit integer CHECK (member_limit > 0),
    limit_period text NOT NULL DEFAULT 'ever' CHECK (limit_period IN ('day', 'week', 'month', 'year', 'ever')),
    tier_id     integer,
    condition   text,
    issues      text NOT NULL DEFAULT 'nothing' CHECK (issues IN ('nothing', 'voucher', 'coupon')),
    pool_id     integer,
    valid_days  integer CHECK (valid_days BETWEEN 0 AND 36500),
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  name NOT NULL DEFAULT session_user,
    retired_at  timestamptz,
    retired_by  name,
    reason      text,
    CONSTRAINT reward_validity_check CHECK (valid_from < valid_until),
    CONSTRAINT reward_value_needed_check CHECK (kind NOT IN ('discount_amount', 'discount_percent', 'donation') OR value IS NOT NULL),
    CONSTRAINT reward_percent_check CHECK (kind <> 'discount_percent' OR value <= 100),
    CONSTRAINT reward_currency_needed_check CHECK ((currency IS NOT NULL) = (value IS NOT NULL AND kind NOT IN ('discount_percent', 'product'))),
    CONSTRAINT reward_sku_needed_check CHECK (kind <> 'product' OR sku IS NOT NULL),
    CONSTRAINT reward_shares_check CHECK ((stock IS NULL) = (stock_id IS NULL)),
    CONSTRAINT reward_pool_check CHECK ((issues = 'coupon') = (pool_id IS NOT NULL)),
    CONSTRAINT reward_voucher_check CHECK (issues <> 'voucher' OR kind NOT IN ('status', 'badge', 'access')),
    CONSTRAINT reward_lasting_check CHECK (valid_days IS NULL OR issues <> 'nothing' OR kind IN ('status', 'badge', 'access')),
    CONSTRAINT reward_retired_check CHECK (num_nonnulls(retired_at, retired_by) <> 1)
);
CREATE UNIQUE INDEX reward_name_idx ON loyalty.reward (program_id, name) WHERE retired_at IS NULL;
CREATE UNIQUE INDEX reward_stock_id_idx ON loyalty.reward (stock_id) WHERE stock_id IS NOT NULL;
COMMENT ON TABLE loyalty.reward IS 'What members may claim. What was once offered is never edited: retire it and add another';
COMMENT ON COLUMN loyalty.reward.kind IS 'discount_amount, discount_percent, product, service, shipping, event, donation, partner, and what is worth nothing outside: status, badge, access';
COMMENT ON COLUMN loyalty.reward.points IS 'Price of one, in the programme''s smallest unit of a point; 0: free; NULL: not for points, only for a full stamp card or a challenge';
COMMENT ON COLUMN loyalty.reward.value IS 'Money in currency; per cent (discount_percent); number of articles (product). NULL: what terms say';
COMMENT ON COLUMN loyalty.reward.terms IS 'Conditions for the till or the partner to apply';
COMMENT ON COLUMN loyalty.reward.valid_from IS 'Claimable in [valid_from, valid_until)';
COMMENT ON COLUMN loyalty.reward.stock IS 'How many there are in all, claimed ones included; NULL: no limit';
COMMENT ON COLUMN loyalty.reward.stock_id IS 'Where its shares are';
COMMENT ON COLUMN loyalty.reward.member_limit IS 'Most that one member claims in a limit_period, of the programme''s calendar; NULL: no limit';
COMMENT ON COLUMN loyalty.reward.tier_id IS 'The lowest tier that may claim it; NULL: any';
COMMENT ON COLUMN loyalty.reward.condition IS 'SQL expression over the row member; NULL: all members';
COMMENT ON COLUMN loyalty.reward.issues IS 'What a claim hands out for each piece: nothing, a signed voucher, or a code of the pool pool_id';
COMMENT ON COLUMN loyalty.reward.valid_days IS 'Days after the claim that the voucher or code is good, or the status, badge or access lasts; NULL: no end';

CREATE FUNCTION loyalty.keep_reward() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changing constant text[] := '{stock,retired_at,retired_by,reason}';
BEGIN
    IF TG_LEVEL = 'ROW' AND OLD.retired_at IS NULL AND to_jsonb(NEW) - changing = to_jsonb(OLD) - changing THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'LY901', DETAIL = 'What members claimed stays what it was.',
              HINT = 'loyalty.retire_reward ends a reward, loyalty.add_reward adds another, loyalty.restock_reward changes its stock.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_reward() IS 'Lets a reward be restocked and retired, and nothing else';
REVOKE ALL ON FUNCTION loyalty.keep_reward() FROM PUBLIC;
CREATE TRIGGER keep_reward BEFORE UPDATE ON loyalty.reward
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_reward();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.reward
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_reward();

CREATE FUNCTION loyalty.require_tier(program_id integer, tier text) RETURNS integer
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
BEGIN
    SELECT t.tier_id INTO id FROM loyalty.tier t WHERE t.program_id = program_id AND t.name = tier;
    IF id IS NULL AND tier IS NOT NULL THEN
        RAISE EXCEPTION 'programme % has no tier "%"', program_id, tier USING ERRCODE = 'LY003', HINT = 'loyalty.add_tier makes one.';
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION loyalty.require_tier(integer, text) IS 'A tier by its name, or LY003; NULL is no tier';
REVOKE ALL ON FUNCTION loyalty.require_tier(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.add_reward(program_id integer, name text, kind text, points bigint,
        value numeric DEFAULT NULL, sku text DEFAULT NULL, partner text DEFAULT NULL,
        stock bigint DEFAULT NULL, member_limit integer DEFAULT NULL, limit_period text DEFAULT 'ever',
        min_tier text DEFAULT NULL, condition text DEFAULT NULL,
        valid_from timestamptz DEFAULT '-infinity', valid_until timestamptz DEFAULT 'infinity',
        issues text DEFAULT 'nothing', pool text DEFAULT NULL, valid_days integer DEFAULT NULL,
        category text DEFAULT NULL, description text DEFAULT NULL, terms jsonb DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    detail text;
    broken text;
    coin text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF (SELECT g.wallet_of FROM loyalty.program g WHERE g.program_id = program_id) IS NOT NULL THEN
        RAISE EXCEPTION 'reward "%" is not valid', name USING ERRCODE = 'LY708', DETAIL = 'The programme is a wallet.', HINT = 'Add it to the programme whose wallet it is.';
    END IF;
    PERFORM loyalty.check_condition(format('reward "%s"', name), condition);
    IF value IS NOT NULL AND kind NOT IN ('discount_percent', 'product') THEN
        SELECT p.currency INTO coin FROM loyalty.program p WHERE p.program_id = program_id;
    END IF;
    INSERT INTO loyalty.reward (program_id, name, kind, points, value, currency, sku, partner, category, description, terms,
            valid_from, valid_until, stock, stock_id, member_limit, limit_period, tier_id, condition, issues, pool_id, valid_days)
        VALUES (program_id, name, kind, points, trim_scale(value), coin, sku, partner, category, description, terms,
            valid_from, valid_until, stock, CASE WHEN stock >= 0 THEN loyalty.make_stock(stock) END, member_limit, limit_period,
            loyalty.require_tier(program_id, min_tier), condition, issues, loyalty.issuing_pool(program_id, pool), valid_days)
        RETURNING reward_id INTO id;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.reward', broken, jsonb_build_object(
            'name', name, 'kind', kind, 'points', points, 'value', value, 'currency', coin, 'sku', sku, 'partner', partner, 'category', category,
            'description', description, 'terms', terms, 'valid_from', valid_from, 'valid_until', valid_until, 'stock', stock, 'member_limit', member_limit,
            'limit_period', limit_period, 'condition', condition, 'issues', issues, 'valid_days', valid_days)), detail);
    RAISE EXCEPTION 'reward "%" is not valid', name
        USING ERRCODE = 'LY708', DETAIL = detail,
              HINT = 'A name is unique among the rewards that are not retired; the comments on loyalty.reward say what each kind needs.';
END
$$;
COMMENT ON FUNCTION loyalty.add_reward IS 'Adds a reward to the catalogue; returns its id. points is the price in smallest units, 0: free, NULL: only for a full stamp card; condition is SQL over the row member, refused here where it is wrong';
REVOKE ALL ON FUNCTION loyalty.add_reward FROM PUBLIC;

CREATE FUNCTION loyalty.raise_unknown_reward(program_id integer, name text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'programme % has no reward "%"', program_id, name
        USING ERRCODE = 'LY701', HINT = 'It may be retired; loyalty.rewards_for(member_id) lists what there is.';
END
$$;
COMMENT ON FUNCTION loyalty.raise_unknown_reward(integer, text) IS 'Raises LY701';
REVOKE ALL ON FUNCTION loyalty.raise_unknown_reward(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.retire_reward(program_id integer, name text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    card text;
    challenge text;
BEGIN
    UPDATE loyalty.reward r SET retired_at = now(), retired_by = session_user, reason = reason
        WHERE r.program_id = program_id AND r.name = name AND r.retired_at IS NULL RETURNING r.reward_id INTO id;
    IF NOT FOUND THEN
        PERFORM loyalty.raise_unknown_reward(program_id, name);
    END IF;
    SELECT s.name INTO card FROM loyalty.stamp_card s WHERE s.reward_id = id AND s.retired_at IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'reward "%" is what stamp card "%" gives', name, card
            USING ERRCODE = 'LY708', HINT = 'Retire the card first: loyalty.retire_stamp_card.';
    END IF;
    SELECT c.name INTO challenge FROM loyalty.challenge c WHERE c.reward_id = id AND c.retired_at IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'reward "%" is what challenge "%" gives', name, challenge
            USING ERRCODE = 'LY708', HINT = 'Retire the challenge first: loyalty.retire_challenge.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.retire_reward(integer, text, text) IS 'Ends a reward; what was claimed stays. Its name is free for another one';
REVOKE ALL ON FUNCTION loyalty.retire_reward(integer, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.restock_reward(program_id integer, name text, quantity bigint) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    r loyalty.reward;
BEGIN
    SELECT * INTO r FROM loyalty.reward q WHERE q.program_id = program_id AND q.name = name AND q.retired_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM loyalty.raise_unknown_reward(program_id, name);
    END IF;
    IF r.stock_id IS NULL OR quantity IS NULL OR r.stock + quantity > 1e15 THEN
        RAISE EXCEPTION 'reward "%" cannot be restocked by %', name, coalesce(quantity::text, 'NULL')
            USING ERRCODE = 'LY708', DETAIL = CASE WHEN r.stock_id IS NULL THEN 'Its stock is unlimited.' ELSE 'A stock is at most 10^15.' END;
    END IF;
    IF quantity >= 0 THEN
        PERFORM loyalty.add_stock(r.stock_id, quantity);
    ELSIF NOT loyalty.take_stock(r.stock_id, -quantity) THEN
        RAISE EXCEPTION 'reward "%" has not so many left', name
            USING ERRCODE = 'LY703', DETAIL = format('%s were to go; %s are left.', -quantity, loyalty.stock_left(r.stock_id));
    END IF;
    UPDATE loyalty.reward q SET stock = q.stock + quantity WHERE q.reward_id = r.reward_id;
    RETURN loyalty.stock_left(r.stock_id);
END
$$;
COMMENT ON FUNCTION loyalty.restock_reward(integer, text, bigint) IS 'Adds to the stock of a reward, or with a negative number takes from it; returns what is left';
REVOKE ALL ON FUNCTION loyalty.restock_reward(integer, text, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Claims
 * ------------------------------------------------------------------------ */

CREATE SEQUENCE loyalty.claim_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.claim_id_seq IS 'Numbers claims';

CREATE TABLE loyalty.claim (
    claim_id    bigint PRIMARY KEY DEFAULT nextval('loyalty.claim_id_seq'),
    program_id  integer NOT NULL,
    member_id   bigint NOT NULL,
    reward_id   integer NOT NULL,
    key         text NOT NULL CHECK (key <> ''),
    quantity    integer NOT NULL CHECK (quantity > 0),
    points      bigint NOT NULL CHECK (points >= 0),
    redemption_id bigint,
    card_id     integer,
    period_on   date NOT NULL,
    voucher_ids bigint[],
    coupon_ids  bigint[],
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    claimed_by  name NOT NULL DEFAULT session_user,
    undone_at   timestamptz,
    undone_by   name,
    reason      text,
    UNIQUE (member_id, key),
    CONSTRAINT claim_paid_check CHECK ((points > 0) = (redemption_id IS NOT NULL)),
    CONSTRAINT claim_undone_check CHECK (num_nonnulls(undone_at, undone_by, reason) IN (0, 3))
);
ALTER SEQUENCE loyalty.claim_id_seq OWNED BY loyalty.claim.claim_id;
CREATE INDEX claim_reward_id_idx ON loyalty.claim (reward_id);
COMMENT ON TABLE loyalty.claim IS 'Rewards that members took. Written by claim and undo_claim alone';
COMMENT ON COLUMN loyalty.claim.key IS 'Idempotency key, unique with the member for ever';
COMMENT ON COLUMN loyalty.claim.points IS 'What it cost in all, smallest units';
COMMENT ON COLUMN loyalty.claim.redemption_id IS 'The redemption that paid for it; NULL: it was free';
COMMENT ON COLUMN loyalty.claim.card_id IS 'The stamp card that it was claimed from; NULL: none';
COMMENT ON COLUMN loyalty.claim.period_on IS 'First day of the limit''s period that it counts in';
COMMENT ON COLUMN loyalty.claim.voucher_ids IS 'Vouchers that it handed out';
COMMENT ON COLUMN loyalty.claim.coupon_ids IS 'Codes that it handed out';

CREATE TABLE loyalty.reward_taken (
    reward_id   integer NOT NULL,
    member_id   bigint NOT NULL,
    period_on   date NOT NULL,
    taken       integer NOT NULL CHECK (taken >= 0),
    PRIMARY KEY (reward_id, member_id, period_on)
);
COMMENT ON TABLE loyalty.reward_taken IS 'How many of a limited reward a member has claimed in a period';

CREATE FUNCTION loyalty.keep_claim() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    undoing constant text[] := '{undone_at,undone_by,reason}';
BEGIN
    IF TG_LEVEL = 'ROW' AND OLD.undone_at IS NULL AND NEW.undone_at = now() AND NEW.undone_by = session_user
       AND to_jsonb(NEW) - undoing = to_jsonb(OLD) - undoing THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'LY901', DETAIL = 'A claim is undone once; nothing else about it ever changes.', HINT = 'Call loyalty.undo_claim.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_claim() IS 'Refuses every change of a claim but its being undone';
REVOKE ALL ON FUNCTION loyalty.keep_claim() FROM PUBLIC;
CREATE TRIGGER keep_claim BEFORE UPDATE ON loyalty.claim
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_claim();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.claim
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_claim();

CREATE FUNCTION loyalty.redeem_claim(member_id bigint, points bigint, claim_id bigint, reward text, cashier text, proof text) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'loyalty_redeem_claim';
COMMENT ON FUNCTION loyalty.redeem_claim(bigint, bigint, bigint, text, text, text) IS 'Spends the points that a new claim costs; returns the redemption';
REVOKE ALL ON FUNCTION loyalty.redeem_claim(bigint, bigint, bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.undo_redeem_claim(member_id bigint, claim_id bigint, reason text) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'loyalty_undo_redeem_claim';
COMMENT ON FUNCTION loyalty.undo_redeem_claim(bigint, bigint, text) IS 'Gives the points of a claim back, the very lots; returns how many';
REVOKE ALL ON FUNCTION loyalty.undo_redeem_claim(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.lock_member(member_id bigint) RETURNS loyalty.member
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM FROM loyalty.account a WHERE a.account_id = member_id FOR NO KEY UPDATE;
    RETURN loyalty.require_member(member_id);
END
$$;
COMMENT ON FUNCTION loyalty.lock_member(bigint) IS 'Locks a member''s account; returns the member, or LY301';
REVOKE ALL ON FUNCTION loyalty.lock_member(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.check_member_active(m loyalty.member) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF m.status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', m.member_id USING ERRCODE = 'LY302';
    ELSIF m.status = 'frozen' THEN
        RAISE EXCEPTION 'member % is frozen', m.member_id
            USING ERRCODE = 'LY305', DETAIL = 'A frozen member earns and does not spend.', HINT = 'loyalty.set_member_status(member_id, ''active'') thaws it.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_member_active(loyalty.member) IS 'Raises LY302 or LY305 where a member does not spend';
REVOKE ALL ON FUNCTION loyalty.check_member_active(loyalty.member) FROM PUBLIC;

CREATE FUNCTION loyalty.check_key(what text, key text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(key, '') = '' OR octet_length(key) > 500 OR starts_with(key, 'loyalty:') THEN
        RAISE EXCEPTION '% needs a key', what
            USING ERRCODE = 'LY709', DETAIL = 'Expected a text of up to 500 bytes that is not empty and does not begin with "loyalty:".',
                  HINT = 'A key of the caller''s makes a retry harmless; the number of the order or of the request is a good one.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_key(text, text) IS 'Raises LY709 where an idempotency key is missing';
REVOKE ALL ON FUNCTION loyalty.check_key(text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.raise_key_reused(member_id bigint, key text, detail text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'key "%" of member % was used for something else', key, member_id
        USING ERRCODE = 'LY404', DETAIL = detail, HINT = 'A key belongs to one operation for ever; take another.';
END
$$;
COMMENT ON FUNCTION loyalty.raise_key_reused(bigint, text, text) IS 'Raises LY404';
REVOKE ALL ON FUNCTION loyalty.raise_key_reused(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.limit_period_on(r loyalty.reward, at timestamptz) RETURNS date
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE r.limit_period WHEN 'ever' THEN '-infinity' ELSE date_trunc(r.limit_period, loyalty.local_day(r.program_id, at)::timestamp)::date END;
END
$$;
COMMENT ON FUNCTION loyalty.limit_period_on(loyalty.reward, timestamptz) IS 'First day of the period that a claim counts in';
REVOKE ALL ON FUNCTION loyalty.limit_period_on(loyalty.reward, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.failed_condition(condition text, facts loyalty.member_facts, OUT code text, OUT why text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT loyalty.condition_holds(condition, facts) THEN
        code := 'LY705';
        why := format('Its condition is not true: %s', condition);
    END IF;
EXCEPTION WHEN SQLSTATE 'LY203' THEN
    -- one reward whose condition fails must not hide the others
    code := 'LY203';
    -- the error may quote what is known of the member
    why := format('Its condition fails for this member: %s', condition);
END
$$;
COMMENT ON FUNCTION loyalty.failed_condition(text, loyalty.member_facts) IS 'SQLSTATE and sentence where a condition is not true of a member';
REVOKE ALL ON FUNCTION loyalty.failed_condition(text, loyalty.member_facts) FROM PUBLIC;

CREATE FUNCTION loyalty.reward_obstacle(r loyalty.reward, facts loyalty.member_facts, with_card boolean, OUT code text, OUT why text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    needed loyalty.tier;
BEGIN
    SELECT * INTO needed FROM loyalty.tier t WHERE t.tier_id = r.tier_id;
    IF now() < r.valid_from THEN
        code := 'LY702';
        why := format('It can be claimed from %s on.', r.valid_from);
    ELSIF now() >= r.valid_until THEN
        code := 'LY702';
        why := format('It could be claimed until %s.', r.valid_until);
    ELSIF needed.rank > facts.tier_rank THEN
        code := 'LY705';
        why := format('It is for members of tier %s and above.', needed.name);
    ELSIF r.points IS NULL AND NOT with_card THEN
        code := 'LY705';
        why := 'It is not for points, only for a full stamp card.';
    ELSIF r.condition IS NOT NULL THEN
        SELECT f.code, f.why INTO code, why FROM loyalty.failed_condition(r.condition, facts) f;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.reward_obstacle(loyalty.reward, loyalty.member_facts, boolean) IS 'Why a member may not claim a reward whatever is left of it: SQLSTATE and sentence; NULL: nothing is in the way';
REVOKE ALL ON FUNCTION loyalty.reward_obstacle(loyalty.reward, loyalty.member_facts, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.claimed_so_far(reward_id integer, member_id bigint, period_on date) RETURNS integer
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(sum(t.taken), 0)::integer FROM loyalty.reward_taken t
    WHERE t.reward_id = claimed_so_far.reward_id AND t.member_id = ANY (loyalty.same_member(claimed_so_far.member_id)) AND t.period_on = claimed_so_far.period_on
$$;
COMMENT ON FUNCTION loyalty.claimed_so_far(integer, bigint, date) IS 'How many of a limited reward a member, and those who were merged into it, claimed in a period';
REVOKE ALL ON FUNCTION loyalty.claimed_so_far(integer, bigint, date) FROM PUBLIC;

CREATE FUNCTION loyalty.count_claimed(r loyalty.reward, member_id bigint, period_on date, quantity integer) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    most integer;
BEGIN
    IF r.member_limit IS NULL THEN
        RETURN;
    END IF;
    -- those who were merged into the member claim nothing any more
    most := r.member_limit - (SELECT coalesce(sum(t.taken), 0) FROM loyalty.reward_taken t
        WHERE t.reward_id = r.reward_id AND t.member_id = ANY (loyalty.same_member(member_id)) AND t.member_id <> member_id AND t.period_on = period_on);
    -- the same row for every claim of a member: at REPEATABLE READ one of two raises 40001
    IF quantity <= most THEN
        INSERT INTO loyalty.reward_taken AS t (reward_id, member_id, period_on, taken) VALUES (r.reward_id, member_id, period_on, quantity)
            ON CONFLICT ON CONSTRAINT reward_taken_pkey DO UPDATE SET taken = t.taken + excluded.taken WHERE t.taken + excluded.taken <= most;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RAISE EXCEPTION 'member % may not claim so many of reward "%"', member_id, r.name
        USING ERRCODE = 'LY704',
              DETAIL = format('The limit is %s %s; %s were claimed before, %s more are asked for.', r.member_limit,
                  CASE r.limit_period WHEN 'ever' THEN 'in all' ELSE 'a ' || r.limit_period END,
                  loyalty.claimed_so_far(r.reward_id, member_id, period_on), quantity);
END
$$;
COMMENT ON FUNCTION loyalty.count_claimed(loyalty.reward, bigint, date, integer) IS 'Counts a claim against the member''s limit, or raises LY704';
REVOKE ALL ON FUNCTION loyalty.count_claimed(loyalty.reward, bigint, date, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.take_reward(r loyalty.reward, quantity integer, may_wait boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF r.stock_id IS NOT NULL AND NOT loyalty.take_stock(r.stock_id, quantity, may_wait) THEN
        RAISE EXCEPTION 'reward "%" is out of stock', r.name
            USING ERRCODE = 'LY703', DETAIL = format('%s asked for; %s of %s left.', quantity, loyalty.stock_left(r.stock_id), r.stock);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.take_reward(loyalty.reward, integer, boolean) IS 'Takes from a reward''s stock, or raises LY703';
REVOKE ALL ON FUNCTION loyalty.take_reward(loyalty.reward, integer, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.issue_vouchers(r loyalty.reward, c loyalty.claim) RETURNS bigint[]
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(v.voucher_id ORDER BY v.voucher_id)
    FROM generate_series(1, c.quantity) piece,
         loyalty.make_voucher(r.program_id, CASE r.kind WHEN 'discount_amount' THEN 'amount' WHEN 'discount_percent' THEN 'percent' ELSE r.kind END,
             r.value, c.member_id, valid_until => loyalty.local_day(r.program_id, c.claimed_at) + r.valid_days, sku => r.sku, terms => r.terms,
             key => format('loyalty:claim %s %s', c.claim_id, piece), source_id => c.redemption_id) v
$$;
COMMENT ON FUNCTION loyalty.issue_vouchers(loyalty.reward, loyalty.claim) IS 'Makes a voucher for every piece of a claim';
REVOKE ALL ON FUNCTION loyalty.issue_vouchers(loyalty.reward, loyalty.claim) FROM PUBLIC;

CREATE FUNCTION loyalty.make_claim(m loyalty.member, r loyalty.reward, key text, quantity integer, card_id integer, won boolean DEFAULT false, cashier text DEFAULT NULL, proof text DEFAULT NULL) RETURNS loyalty.claim
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    c loyalty.claim;
    -- in a purchase of many members nobody waits: two of them could wait for each other
    may_wait boolean := key IS NOT NULL AND NOT won;
BEGIN
    c.claim_id := nextval('loyalty.claim_id_seq');
    c.program_id := m.program_id;
    c.member_id := m.member_id;
    c.reward_id := r.reward_id;
    c.key := coalesce(key, format('loyalty:card %s', c.claim_id));
    c.quantity := quantity;
    c.points := CASE WHEN card_id IS NULL AND NOT won THEN r.points * quantity ELSE 0 END;
    c.card_id := card_id;
    c.period_on := loyalty.limit_period_on(r, now());
    c.claimed_at := now();
    c.claimed_by := session_user;
    PERFORM loyalty.count_claimed(r, m.member_id, c.period_on, quantity);
    IF card_id IS NOT NULL THEN
        PERFORM loyalty.take_cards(c);
    END IF;
    PERFORM loyalty.take_reward(r, quantity, may_wait);
    IF c.points > 0 THEN
        c.redemption_id := loyalty.redeem_claim(m.member_id, c.points, c.claim_id, r.name, cashier, proof);
    END IF;
    IF r.issues = 'voucher' THEN
        c.voucher_ids := loyalty.issue_vouchers(r, c);
    ELSIF r.issues = 'coupon' THEN
        c.coupon_ids := loyalty.issue_coupons(r, c, may_wait);
    END IF;
    INSERT INTO loyalty.claim SELECT c.* ON CONFLICT ON CONSTRAINT claim_member_id_key_key DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'key "%" of member % is being used by another session', c.key, m.member_id USING ERRCODE = '40001', HINT = 'Try again.';
    END IF;
    RETURN c;
END
$$;
COMMENT ON FUNCTION loyalty.make_claim(loyalty.member, loyalty.reward, text, integer, integer, boolean, text, text) IS 'Takes all that a claim takes, hands out what it hands out, and writes it down; key NULL: one of the engine''s own; won: a challenge gives it';
REVOKE ALL ON FUNCTION loyalty.make_claim(loyalty.member, loyalty.reward, text, integer, integer, boolean, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.compare_claim(made loyalty.claim, reward text, quantity integer, card text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reward_then text := (SELECT r.name FROM loyalty.reward r WHERE r.reward_id = made.reward_id);
    card_then text := (SELECT s.name FROM loyalty.stamp_card s WHERE s.card_id = made.card_id);
BEGIN
    IF (reward, quantity, card) IS DISTINCT FROM (reward_then, made.quantity, card_then) THEN
        PERFORM loyalty.raise_key_reused(made.member_id, made.key, format('Claim %s is of %s of "%s"%s.', made.claim_id, made.quantity, reward_then,
            CASE WHEN card_then IS NULL THEN '' ELSE format(' for card "%s"', card_then) END));
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.compare_claim(loyalty.claim, text, integer, text) IS 'Raises LY404 where a key''s claim is not what is asked for';
REVOKE ALL ON FUNCTION loyalty.compare_claim(loyalty.claim, text, integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.claim(member_id bigint, reward text, key text, quantity integer DEFAULT 1, card text DEFAULT NULL, cashier text DEFAULT NULL, proof text DEFAULT NULL,
        OUT claim_id bigint, OUT points bigint, OUT redemption_id bigint, OUT codes text[], OUT voucher_ids bigint[], OUT tokens text[])
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_member(member_id);
    r loyalty.reward;
    c loyalty.claim;
    obstacle record;
BEGIN
    PERFORM loyalty.check_key('a claim', key);
    IF coalesce(quantity, 0) NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'a claim is of 1 to 1000 pieces' USING ERRCODE = 'LY709', DETAIL = format('Got %s.', coalesce(quantity::text, 'NULL'));
    END IF;
    SELECT * INTO c FROM loyalty.claim q WHERE q.member_id = member_id AND q.key = key;
    IF FOUND THEN
        PERFORM loyalty.compare_claim(c, reward, quantity, card);
    ELSE
        SELECT * INTO r FROM loyalty.reward q WHERE q.program_id = m.program_id AND q.name = reward AND q.retired_at IS NULL;
        IF NOT FOUND THEN
            PERFORM loyalty.raise_unknown_reward(m.program_id, reward);
        END IF;
        PERFORM loyalty.check_member_active(m);
        SELECT * INTO obstacle FROM loyalty.reward_obstacle(r, loyalty.member_facts(member_id), card IS NOT NULL);
        IF obstacle.code IS NOT NULL THEN
            RAISE EXCEPTION 'member % may not claim reward "%"', member_id, reward USING ERRCODE = obstacle.code, DETAIL = obstacle.why;
        END IF;
        c := loyalty.make_claim(m, r, key, quantity, loyalty.card_of_reward(r, card), cashier => cashier, proof => proof);
    END IF;
    claim_id := c.claim_id;
    points := c.points;
    redemption_id := c.redemption_id;
    voucher_ids := c.voucher_ids;
    codes := ARRAY(SELECT k.code FROM loyalty.coupon k WHERE k.coupon_id = ANY (c.coupon_ids) ORDER BY k.coupon_id);
    tokens := ARRAY(SELECT loyalty.voucher_token(v) FROM unnest(c.voucher_ids) v);
END
$$;
COMMENT ON FUNCTION loyalty.claim(bigint, text, text, integer, text, text, text) IS 'Claims a reward: takes its points, those that expire soonest first, counts it against stock and limits, and returns the codes or signed vouchers that it issues. card: for a full stamp card instead of points. The same key and content again returns the first result';
REVOKE ALL ON FUNCTION loyalty.claim(bigint, text, text, integer, text, text, text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Undoing
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.take_issued_back(c loyalty.claim, reason text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    used text;
BEGIN
    -- locked first: a till that redeems one of them meanwhile waits, or makes us wait
    PERFORM FROM loyalty.voucher v WHERE v.voucher_id = ANY (c.voucher_ids) ORDER BY v.voucher_id FOR NO KEY UPDATE;
    PERFORM FROM loyalty.coupon k WHERE k.coupon_id = ANY (c.coupon_ids) ORDER BY k.coupon_id FOR NO KEY UPDATE;
    SELECT string_agg(x.what, ', ') INTO used FROM (
        SELECT format('voucher %s', v.voucher_id) AS what FROM loyalty.voucher v WHERE v.voucher_id = ANY (c.voucher_ids) AND v.status = 'redeemed'
        UNION ALL SELECT format('code %s', k.code) FROM loyalty.coupon k WHERE k.coupon_id = ANY (c.coupon_ids) AND k.status = 'used') x;
    IF used IS NOT NULL THEN
        RAISE EXCEPTION 'what claim % handed out has been used', c.claim_id
            USING ERRCODE = 'LY707', DETAIL = format('Used: %s.', used), HINT = 'A coupon''s use can be taken back first: loyalty.release_coupon.';
    END IF;
    PERFORM loyalty.revoke_voucher(v.voucher_id, reason) FROM loyalty.voucher v WHERE v.voucher_id = ANY (c.voucher_ids) AND v.status = 'issued';
    UPDATE loyalty.coupon k SET status = 'void', voided_at = now(), reason = reason WHERE k.coupon_id = ANY (c.coupon_ids) AND k.status = 'issued';
END
$$;
COMMENT ON FUNCTION loyalty.take_issued_back(loyalty.claim, text) IS 'Makes what a claim handed out worthless, or raises LY707 where some of it was used';
REVOKE ALL ON FUNCTION loyalty.take_issued_back(loyalty.claim, text) FROM PUBLIC;

CREATE FUNCTION loyalty.unmake_claim(c loyalty.claim, reason text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.take_issued_back(c, reason);
    UPDATE loyalty.reward_taken t SET taken = t.taken - c.quantity
        WHERE t.reward_id = c.reward_id AND t.member_id = c.member_id AND t.period_on = c.period_on;
    IF c.card_id IS NOT NULL THEN
        PERFORM loyalty.give_cards(c);
    END IF;
    IF c.points > 0 THEN
        PERFORM loyalty.undo_redeem_claim(c.member_id, c.claim_id, reason);
    END IF;
    PERFORM loyalty.give_stock(r.stock_id, c.quantity) FROM loyalty.reward r WHERE r.reward_id = c.reward_id AND r.stock_id IS NOT NULL;
    UPDATE loyalty.claim q SET undone_at = now(), undone_by = session_user, reason = reason WHERE q.claim_id = c.claim_id;
END
$$;
COMMENT ON FUNCTION loyalty.unmake_claim(loyalty.claim, text) IS 'Gives everything back that a locked claim took, or raises LY707';
REVOKE ALL ON FUNCTION loyalty.unmake_claim(loyalty.claim, text) FROM PUBLIC;

CREATE FUNCTION loyalty.undo_claim(member_id bigint, key text, reason text, OUT claim_id bigint, OUT restored bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_member(member_id);
    c loyalty.claim;
BEGIN
    IF coalesce(btrim(reason), '') = '' THEN
        RAISE EXCEPTION 'undoing a claim needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for the member and the auditor.';
    END IF;
    SELECT * INTO c FROM loyalty.claim q WHERE q.member_id = member_id AND q.key = key FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member % has no claim with key "%"', member_id, key USING ERRCODE = 'LY706';
    END IF;
    claim_id := c.claim_id;
    restored := c.points;
    IF c.undone_at IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM loyalty.unmake_claim(c, reason);
END
$$;
COMMENT ON FUNCTION loyalty.undo_claim(bigint, text, text) IS 'Undoes the claim with that key, whole and once: points, stock and limit come back, its vouchers and codes become worthless. Refused where one of them was used';
REVOKE ALL ON FUNCTION loyalty.undo_claim(bigint, text, text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.rewards_for(member_id bigint)
    RETURNS TABLE (reward text, kind text, category text, description text, points bigint, value numeric, currency text, sku text,
                   partner text, terms jsonb, valid_until timestamptz, claimable bigint, obstacle text, why text, stock_left bigint, limit_left integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    m loyalty.member := loyalty.require_member(rewards_for.member_id);
    facts loyalty.member_facts := loyalty.member_facts(m.member_id);
    b record;
    r loyalty.reward;
    o record;
BEGIN
    SELECT * INTO b FROM loyalty.balance(m.member_id);
    FOR r IN SELECT * FROM loyalty.reward q WHERE q.program_id = m.program_id AND q.retired_at IS NULL AND q.valid_until > now()
             ORDER BY q.points NULLS LAST, q.name LOOP
        SELECT * INTO o FROM loyalty.reward_obstacle(r, facts, false);
        reward := r.name; kind := r.kind; category := r.category; description := r.description; points := r.points; value := r.value;
        currency := r.currency; sku := r.sku; partner := r.partner; terms := r.terms; valid_until := nullif(r.valid_until, 'infinity');
        stock_left := loyalty.stock_left(r.stock_id);
        limit_left := r.member_limit - loyalty.claimed_so_far(r.reward_id, m.member_id, loyalty.limit_period_on(r, now()));
        SELECT x.code, x.why INTO obstacle, why FROM (VALUES
            (1, m.status = 'closed', 'LY302', 'The member is closed.'),
            (2, m.status = 'frozen', 'LY305', 'The member is frozen.'),
            (3, o.code IS NOT NULL, o.code, o.why),
            (4, limit_left <= 0, 'LY704', format('The limit of %s %s is used up.', r.member_limit, CASE r.limit_period WHEN 'ever' THEN 'in all' ELSE 'a ' || r.limit_period END)),
            (5, stock_left = 0, 'LY703', 'It is out of stock.'),
            (6, r.points > 0 AND b.debt > 0, 'LY411', format('The member owes %s points.', b.debt)),
            (7, r.points > b.available, 'LY401', format('%s points are missing.', r.points - b.available))) AS x (place, stands, code, why)
            WHERE x.stands ORDER BY x.place LIMIT 1;
        claimable := CASE WHEN obstacle IS NULL THEN least(1000, limit_left, stock_left, CASE WHEN r.points > 0 THEN b.available / r.points END) ELSE 0 END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.rewards_for(bigint) IS 'The rewards of a member''s programme: how many of each it can claim now for points, and where none, the SQLSTATE that claim would raise and why';
REVOKE ALL ON FUNCTION loyalty.rewards_for(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.distinctions(member_id bigint)
    RETURNS TABLE (kind text, reward text, description text, terms jsonb, quantity bigint, held_since timestamptz, held_until date)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    m loyalty.member := loyalty.require_member(distinctions.member_id);
    today date := loyalty.local_day(m.program_id, now());
BEGIN
    RETURN QUERY SELECT r.kind, r.name, r.description, r.terms, sum(c.quantity), min(c.claimed_at), nullif(max(u.last_day), 'infinity')
        FROM loyalty.claim c JOIN loyalty.reward r USING (reward_id)
            CROSS JOIN LATERAL (SELECT coalesce(loyalty.local_day(r.program_id, c.claimed_at) + r.valid_days, 'infinity') AS last_day) u
        WHERE c.member_id = ANY (loyalty.same_member(m.member_id)) AND c.undone_at IS NULL
            AND r.kind IN ('status', 'badge', 'access') AND u.last_day >= today
        GROUP BY r.reward_id ORDER BY r.kind, r.name;
END
$$;
COMMENT ON FUNCTION loyalty.distinctions(bigint) IS 'What a member claimed and holds that is worth nothing outside: status, badges, access; held_until is the last day, NULL: for good';
REVOKE ALL ON FUNCTION loyalty.distinctions(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Invariants, for check()
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_rewards() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'the shares of a reward and what was taken make its stock', NULL::bigint,
           format('reward %s: %s left, %s claimed, %s given with coupons, of %s', r.reward_id, s.remaining, c.quantity, u.quantity, r.stock)
        FROM loyalty.reward r
            CROSS JOIN LATERAL (SELECT coalesce(sum(q.remaining), 0) AS remaining FROM loyalty.stock_share q WHERE q.stock_id = r.stock_id) s
            CROSS JOIN LATERAL (SELECT coalesce(sum(q.quantity), 0) AS quantity FROM loyalty.claim q WHERE q.reward_id = r.reward_id AND q.undone_at IS NULL) c
            CROSS JOIN LATERAL (SELECT count(*) AS quantity FROM loyalty.coupon_use q WHERE q.reward_id = r.reward_id AND q.released_at IS NULL) u
        WHERE r.stock IS NOT NULL AND s.remaining + c.quantity + u.quantity <> r.stock
    UNION ALL
    SELECT 'a claim that cost points has its redemption', c.member_id, format('claim %s, redemption %s', c.claim_id, c.redemption_id)
        FROM loyalty.claim c
        WHERE c.points > 0 AND NOT EXISTS
            (SELECT FROM loyalty.redemption n WHERE n.redemption_id = c.redemption_id AND n.points = c.points
                AND n.key = format('loyalty:claim %s', c.claim_id) AND n.undone = CASE WHEN c.undone_at IS NULL THEN 0 ELSE c.points END)
    UNION ALL
    SELECT 'a redemption for a claim has its claim', n.account_id, format('entry %s, %s', n.seq, n.key)
        FROM loyalty.entry n
        WHERE n.kind = 'redeem' AND starts_with(n.key, 'loyalty:claim ')
            AND NOT EXISTS (SELECT FROM loyalty.claim c WHERE c.redemption_id = n.source_id)
    UNION ALL
    SELECT 'claims are within the member''s limit', t.member_id, format('reward %s, period %s: counted %s, claimed %s', t.reward_id, t.period_on, t.taken, coalesce(c.quantity, 0))
        FROM loyalty.reward r
            JOIN loyalty.reward_taken t USING (reward_id)
            LEFT JOIN LATERAL (SELECT sum(q.quantity) AS quantity FROM loyalty.claim q
                WHERE q.reward_id = t.reward_id AND q.member_id = t.member_id AND q.period_on = t.period_on AND q.undone_at IS NULL) c ON true
        WHERE t.taken <> coalesce(c.quantity, 0) OR t.taken > r.member_limit
    UNION ALL
    SELECT 'a limited claim is counted', c.member_id, format('claim %s', c.claim_id)
        FROM loyalty.claim c JOIN loyalty.reward r USING (reward_id)
        WHERE r.member_limit IS NOT NULL
            AND NOT EXISTS (SELECT FROM loyalty.reward_taken t WHERE t.reward_id = c.reward_id AND t.member_id = c.member_id AND t.period_on = c.period_on)
    UNION ALL
    SELECT 'a claim is of a reward and a member of one programme', c.member_id, format('claim %s', c.claim_id)
        FROM loyalty.claim c
        WHERE NOT EXISTS (SELECT FROM loyalty.reward r WHERE r.reward_id = c.reward_id AND r.program_id = c.program_id)
            OR NOT EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = c.member_id AND m.program_id = c.program_id)
    UNION ALL
    SELECT 'what a claim handed out exists, and is worthless once it is undone', c.member_id, format('claim %s', c.claim_id)
        FROM loyalty.claim c
            CROSS JOIN LATERAL (SELECT count(*) AS n, count(*) FILTER (WHERE v.status <> 'revoked') AS good FROM loyalty.voucher v WHERE v.voucher_id = ANY (c.voucher_ids) AND v.member_id = c.member_id) v
            CROSS JOIN LATERAL (SELECT count(*) AS n, count(*) FILTER (WHERE k.status <> 'void') AS good FROM loyalty.coupon k WHERE k.coupon_id = ANY (c.coupon_ids) AND k.member_id = c.member_id) k
        WHERE v.n <> coalesce(cardinality(c.voucher_ids), 0) OR k.n <> coalesce(cardinality(c.coupon_ids), 0)
            OR (c.undone_at IS NOT NULL AND v.good + k.good > 0)
$$;
COMMENT ON FUNCTION loyalty.check_rewards() IS 'The invariants of rewards and claims, a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_rewards() FROM PUBLIC;
