/*
 * stamp: cards that purchases fill.  So many units, visits or so much money
 * make a full card, and a full card is a reward.
 *
 * Stamps are kept as lots, in 1/10000 of a stamp: they have days, they are
 * spent soonest expiry first, and what comes back after it was spent leaves a
 * debt that later stamps repay.  For every purchase and card the stamps posted
 * move towards those that it should have given, so that doing it twice posts
 * nothing the second time.  A purchase decides which lines count; a return
 * takes a share of what was decided and decides nothing.
 *
 * The account of the member is locked first, then its sheet of the card.
 */

CREATE FUNCTION loyalty.check_card_condition(card text, condition text) RETURNS void
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'loyalty_check_card_condition';
COMMENT ON FUNCTION loyalty.check_card_condition(text, text) IS 'Compiles a card''s condition over the rows purchase, line and product, or raises LY201 or LY202';
REVOKE ALL ON FUNCTION loyalty.check_card_condition(text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.stamps_of(program_id integer, p loyalty.purchase, only_card integer DEFAULT 0) RETURNS TABLE (card_id integer, lines bigint[])
    LANGUAGE C STABLE STRICT ROWS 2 AS 'MODULE_PATHNAME', 'loyalty_stamps_of';
COMMENT ON FUNCTION loyalty.stamps_of(integer, loyalty.purchase, integer) IS 'Which cards (0: all) a purchase stamps and what each line gives, before returns; decided by the code that decides rules';
REVOKE ALL ON FUNCTION loyalty.stamps_of(integer, loyalty.purchase, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.stamp_earn(balance loyalty.lots, day date, expires_on date, amount bigint) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_stamp_earn';
COMMENT ON FUNCTION loyalty.stamp_earn(loyalty.lots, date, date, bigint) IS 'What earning stamps posts: a debt is repaid first';
REVOKE ALL ON FUNCTION loyalty.stamp_earn(loyalty.lots, date, date, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.stamp_spend(balance loyalty.lots, amount bigint, day date) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_stamp_spend';
COMMENT ON FUNCTION loyalty.stamp_spend(loyalty.lots, bigint, date) IS 'What spending stamps posts: those that expire soonest first; NULL where there are not so many';
REVOKE ALL ON FUNCTION loyalty.stamp_spend(loyalty.lots, bigint, date) FROM PUBLIC;

CREATE FUNCTION loyalty.stamp_take_back(balance loyalty.lots, posted loyalty.lots, amount bigint, day date, leave_debt boolean) RETURNS loyalty.lots
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_stamp_take_back';
COMMENT ON FUNCTION loyalty.stamp_take_back(loyalty.lots, loyalty.lots, bigint, date, boolean) IS 'What taking stamps back posts: the very lots that were posted, then others, then a debt or nothing';
REVOKE ALL ON FUNCTION loyalty.stamp_take_back(loyalty.lots, loyalty.lots, bigint, date, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.stamp_restore(program_id integer, balance loyalty.lots, given loyalty.lots, day date) RETURNS loyalty.lots
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_stamp_restore';
COMMENT ON FUNCTION loyalty.stamp_restore(integer, loyalty.lots, loyalty.lots, date) IS 'What giving stamps back posts: the very lots, those that died meanwhile by the programme''s policy restore';
REVOKE ALL ON FUNCTION loyalty.stamp_restore(integer, loyalty.lots, loyalty.lots, date) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Cards
 * ------------------------------------------------------------------------ */

CREATE TABLE loyalty.stamp_card (
    card_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    name        text NOT NULL CHECK (name <> '' AND octet_length(name) <= 200),
    counts      text NOT NULL CHECK (counts IN ('units', 'visits', 'amount')),
    every       numeric NOT NULL CHECK (every > 0 AND every <= 1e9 AND every = round(every, 4)),
    reward_id   integer NOT NULL,
    condition   text,
    valid_from  timestamptz NOT NULL DEFAULT now(),
    valid_until timestamptz NOT NULL DEFAULT 'infinity',
    expiry_days integer CHECK (expiry_days BETWEEN 1 AND 36500),
    on_return   text NOT NULL DEFAULT 'debt' CHECK (on_return IN ('debt', 'forgive', 'revoke')),
    automatic   boolean NOT NULL DEFAULT false,
    description text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  name NOT NULL DEFAULT session_user,
    retired_at  timestamptz,
    retired_by  name,
    reason      text,
    UNIQUE (program_id, name),
    CONSTRAINT stamp_card_validity_check CHECK (valid_from < valid_until),
    CONSTRAINT stamp_card_retired_check CHECK (num_nonnulls(retired_at, retired_by) <> 1)
);
CREATE INDEX stamp_card_reward_id_idx ON loyalty.stamp_card (reward_id);
COMMENT ON TABLE loyalty.stamp_card IS 'Cards that purchases fill. Never edited: retire one and add another';
COMMENT ON COLUMN loyalty.stamp_card.counts IS 'A stamp is a unit of the lines that count, a purchase with such a line, or a unit of the currency spent on them (as purchase.amount in rules)';
COMMENT ON COLUMN loyalty.stamp_card.every IS 'So many stamps make a full card';
COMMENT ON COLUMN loyalty.stamp_card.reward_id IS 'What a full card is good for';
COMMENT ON COLUMN loyalty.stamp_card.condition IS 'SQL expression over the rows purchase, line and product: the lines that count; NULL: all but excluded articles';
COMMENT ON COLUMN loyalty.stamp_card.valid_from IS 'Purchases that occur in [valid_from, valid_until) count';
COMMENT ON COLUMN loyalty.stamp_card.expiry_days IS 'Days that a stamp lives, from its purchase; NULL: for good';
COMMENT ON COLUMN loyalty.stamp_card.on_return IS 'Stamps that are taken back and were spent: a debt, forgiven, or the rewards of full cards are revoked as far as nobody used them, and the rest is a debt';
COMMENT ON COLUMN loyalty.stamp_card.automatic IS 'A full card is claimed in the transaction of the purchase; one whose reward cannot be had stays full';
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.stamp_card
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();

CREATE SEQUENCE loyalty.stamp_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.stamp_id_seq IS 'Orders the stamps of a card';

CREATE TABLE loyalty.stamp (
    stamp_id    bigint PRIMARY KEY DEFAULT nextval('loyalty.stamp_id_seq'),
    card_id     integer NOT NULL,
    member_id   bigint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('earn', 'correct', 'return', 'claim', 'undo', 'merge')),
    purchase_id bigint,
    claim_id    bigint,
    amount      bigint NOT NULL,
    lots        loyalty.lots NOT NULL,
    lines       bigint[],
    recorded_at timestamptz NOT NULL DEFAULT now(),
    actor       name NOT NULL DEFAULT session_user,
    CONSTRAINT stamp_cause_check CHECK ((purchase_id IS NOT NULL) = (kind IN ('earn', 'correct', 'return')) AND (claim_id IS NOT NULL) = (kind IN ('claim', 'undo')))
);
ALTER SEQUENCE loyalty.stamp_id_seq OWNED BY loyalty.stamp.stamp_id;
CREATE INDEX stamp_purchase_id_idx ON loyalty.stamp (purchase_id) WHERE purchase_id IS NOT NULL;
CREATE INDEX stamp_claim_id_idx ON loyalty.stamp (claim_id) WHERE claim_id IS NOT NULL;
CREATE INDEX stamp_card_id_idx ON loyalty.stamp (card_id, member_id);
COMMENT ON TABLE loyalty.stamp IS 'Every change of a member''s stamps, never updated, never deleted';
COMMENT ON COLUMN loyalty.stamp.amount IS 'Sum of lots, in 1/10000 of a stamp';
COMMENT ON COLUMN loyalty.stamp.lots IS 'The signed change of the sheet''s lots';
COMMENT ON COLUMN loyalty.stamp.lines IS 'What each line of the purchase gives before returns, as last decided';

CREATE TABLE loyalty.stamp_sheet (
    card_id     integer NOT NULL,
    member_id   bigint NOT NULL,
    lots        loyalty.lots NOT NULL DEFAULT '{}',
    PRIMARY KEY (card_id, member_id)
) WITH (fillfactor = 80);
CREATE INDEX stamp_sheet_member_id_idx ON loyalty.stamp_sheet (member_id);
COMMENT ON TABLE loyalty.stamp_sheet IS 'The stamps that members have: the sum of their changes. Written by the engine alone';

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.stamp
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.stamp_sheet
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');

CREATE FUNCTION loyalty.keep_stamp_card() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changing constant text[] := '{retired_at,retired_by,reason}';
BEGIN
    IF TG_LEVEL = 'ROW' AND OLD.retired_at IS NULL AND to_jsonb(NEW) - changing = to_jsonb(OLD) - changing THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'LY901', DETAIL = 'What members were promised stays what it was.',
              HINT = 'loyalty.retire_stamp_card ends a card, loyalty.add_stamp_card adds another.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_stamp_card() IS 'Lets a card be retired, and nothing else';
REVOKE ALL ON FUNCTION loyalty.keep_stamp_card() FROM PUBLIC;
CREATE TRIGGER keep_stamp_card BEFORE UPDATE ON loyalty.stamp_card
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_stamp_card();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.stamp_card
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_stamp_card();

CREATE FUNCTION loyalty.stamp_history(program_id integer, since timestamptz) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    tries integer := 0;
BEGIN
    -- purchases under way either see the card or are waited for; who has an account locked may be about to
    -- insert one, so that nobody is waited for with the table locked
    LOOP
        BEGIN
            LOCK TABLE loyalty.purchase IN SHARE MODE;
            PERFORM FROM loyalty.account a
                WHERE a.account_id IN (SELECT q.member_id FROM loyalty.purchase q JOIN loyalty.member m USING (member_id) WHERE m.program_id = program_id AND q.occurred_at >= since)
                ORDER BY a.account_id FOR NO KEY UPDATE NOWAIT;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            tries := tries + 1;
            IF tries = 100 THEN
                RAISE EXCEPTION 'the members are too busy to stamp what is on file'
                    USING ERRCODE = 'LY722', HINT = 'Add the card at a quieter time, or with valid_from now().';
            END IF;
        END;
        PERFORM pg_sleep(0.02 * tries);
    END LOOP;
    PERFORM loyalty.stamp_purchases(array_agg(q.purchase_id), true)
        FROM loyalty.purchase q JOIN loyalty.member m USING (member_id)
        WHERE m.program_id = program_id AND m.status <> 'closed' AND q.occurred_at >= since;
END
$$;
COMMENT ON FUNCTION loyalty.stamp_history(integer, timestamptz) IS 'Stamps the purchases on file, and makes those that come wait';
REVOKE ALL ON FUNCTION loyalty.stamp_history(integer, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.add_stamp_card(program_id integer, name text, counts text, every numeric, reward text,
        condition text DEFAULT NULL, category text DEFAULT NULL, valid_from timestamptz DEFAULT now(), valid_until timestamptz DEFAULT 'infinity',
        expiry_days integer DEFAULT NULL, on_return text DEFAULT 'debt', automatic boolean DEFAULT false, description text DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    gift integer;
    full_condition text := condition;
    detail text;
    broken text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF (SELECT g.wallet_of FROM loyalty.program g WHERE g.program_id = program_id) IS NOT NULL THEN
        RAISE EXCEPTION 'stamp card "%" is not valid', name USING ERRCODE = 'LY722', DETAIL = 'The programme is a wallet.', HINT = 'Add it to the programme whose wallet it is.';
    END IF;
    IF category IS NOT NULL THEN
        full_condition := format('product.category = %L', category) || coalesce(' AND (' || condition || ')', '');
    END IF;
    -- alone first: what closes the parenthesis is no condition
    PERFORM loyalty.check_card_condition(name, condition);
    PERFORM loyalty.check_card_condition(name, full_condition);
    SELECT r.reward_id INTO gift FROM loyalty.reward r WHERE r.program_id = program_id AND r.name = reward AND r.retired_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM loyalty.raise_unknown_reward(program_id, reward);
    END IF;
    INSERT INTO loyalty.stamp_card (program_id, name, counts, every, reward_id, condition, valid_from, valid_until, expiry_days, on_return, automatic, description)
        VALUES (program_id, name, counts, trim_scale(every), gift, full_condition, valid_from, valid_until, expiry_days, on_return, automatic, description)
        RETURNING card_id INTO id;
    IF valid_from < now() THEN
        PERFORM loyalty.stamp_history(program_id, valid_from);
    END IF;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.stamp_card', broken, jsonb_build_object(
            'name', name, 'counts', counts, 'every', every, 'reward_id', reward, 'condition', full_condition, 'valid_from', valid_from, 'valid_until', valid_until,
            'expiry_days', expiry_days, 'on_return', on_return, 'automatic', automatic, 'description', description)), detail);
    RAISE EXCEPTION 'stamp card "%" is not valid', name
        USING ERRCODE = 'LY722', DETAIL = detail,
              HINT = 'A name is the card''s for ever; counts is units, visits or amount, on_return is debt, forgive or revoke; the comments on loyalty.stamp_card say more.';
END
$$;
COMMENT ON FUNCTION loyalty.add_stamp_card IS 'Adds a stamp card: every so many units, visits or so much amount give a reward. condition (SQL over purchase, line, product) and category say which lines count. With valid_from in the past the purchases on file count too';
REVOKE ALL ON FUNCTION loyalty.add_stamp_card FROM PUBLIC;

CREATE FUNCTION loyalty.require_stamp_card(program_id integer, name text) RETURNS loyalty.stamp_card
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    s loyalty.stamp_card;
BEGIN
    SELECT * INTO s FROM loyalty.stamp_card q WHERE q.program_id = program_id AND q.name = name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'programme % has no stamp card "%"', program_id, name USING ERRCODE = 'LY721', HINT = 'loyalty.add_stamp_card makes one.';
    END IF;
    RETURN s;
END
$$;
COMMENT ON FUNCTION loyalty.require_stamp_card(integer, text) IS 'A stamp card by its name, or LY721';
REVOKE ALL ON FUNCTION loyalty.require_stamp_card(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.retire_stamp_card(program_id integer, name text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    s loyalty.stamp_card := loyalty.require_stamp_card(program_id, name);
BEGIN
    UPDATE loyalty.stamp_card q SET retired_at = now(), retired_by = session_user, reason = reason WHERE q.card_id = s.card_id AND q.retired_at IS NULL;
END
$$;
COMMENT ON FUNCTION loyalty.retire_stamp_card(integer, text, text) IS 'Ends a card: purchases to come do not stamp it; full ones can still be claimed';
REVOKE ALL ON FUNCTION loyalty.retire_stamp_card(integer, text, text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Sheets
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.lock_sheet(card_id integer, member_id bigint) RETURNS loyalty.lots
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    lots loyalty.lots;
BEGIN
    SELECT q.lots INTO lots FROM loyalty.stamp_sheet q WHERE q.card_id = card_id AND q.member_id = member_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO loyalty.stamp_sheet (card_id, member_id) VALUES (card_id, member_id) ON CONFLICT ON CONSTRAINT stamp_sheet_pkey DO NOTHING;
        SELECT q.lots INTO STRICT lots FROM loyalty.stamp_sheet q WHERE q.card_id = card_id AND q.member_id = member_id FOR NO KEY UPDATE;
    END IF;
    RETURN lots;
END
$$;
COMMENT ON FUNCTION loyalty.lock_sheet(integer, bigint) IS 'Locks a member''s stamps on a card, first made where there are none; returns them';
REVOKE ALL ON FUNCTION loyalty.lock_sheet(integer, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.post_stamps(change loyalty.stamp) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO loyalty.stamp (card_id, member_id, kind, purchase_id, claim_id, amount, lots, lines)
        VALUES (change.card_id, change.member_id, change.kind, change.purchase_id, change.claim_id, loyalty.total(change.lots), change.lots, change.lines);
    UPDATE loyalty.stamp_sheet q SET lots = q.lots OPERATOR(loyalty.+) change.lots
        WHERE q.card_id = change.card_id AND q.member_id = change.member_id AND change.lots OPERATOR(loyalty.<>) '{}'::loyalty.lots;
END
$$;
COMMENT ON FUNCTION loyalty.post_stamps(loyalty.stamp) IS 'Writes a change of a locked sheet down';
REVOKE ALL ON FUNCTION loyalty.post_stamps(loyalty.stamp) FROM PUBLIC;

CREATE FUNCTION loyalty.stamps_left(p loyalty.purchase, counts text, lines bigint[]) RETURNS bigint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    back record;
    given bigint := (SELECT CASE counts WHEN 'visits' THEN max(n) ELSE sum(n) END FROM unnest(lines) n);
BEGIN
    SELECT bool_or(d.complete) AS complete, coalesce(sum(r.amount), 0) AS on_order INTO back
        FROM loyalty.returned d JOIN loyalty.purchase_return r USING (return_id) WHERE d.purchase_id = p.purchase_id;
    IF back.complete IS NULL OR coalesce(given, 0) = 0 THEN
        RETURN coalesce(given, 0);
    ELSIF back.complete THEN
        RETURN 0;
    ELSIF coalesce(cardinality(p.lines), 0) = 0 THEN
        RETURN CASE WHEN counts = 'amount' THEN given - div(2 * given * least(back.on_order, p.amount) + p.amount, 2 * p.amount) ELSE given END;
    END IF;
    -- money given back takes money, and a line that it pays whole; a visit lasts as long as something of it is kept
    RETURN coalesce((SELECT CASE counts
            WHEN 'visits' THEN max(g.n) FILTER (WHERE x.above < x.below)
            WHEN 'units' THEN sum(g.n - CASE WHEN x.above >= x.below THEN g.n ELSE div(2 * g.n * least(x.back, x.bought) + x.bought, 2 * x.bought) END)
            ELSE sum(g.n - div(2 * g.n * least(x.above * p.amount + back.on_order * x.below, x.below * p.amount) + x.below * p.amount, 2 * x.below * p.amount)) END
        FROM loyalty.returned_lines(p) x JOIN unnest(lines) WITH ORDINALITY g (n, line) USING (line) WHERE g.n > 0), 0);
END
$$;
COMMENT ON FUNCTION loyalty.stamps_left(loyalty.purchase, text, bigint[]) IS 'What a purchase whose lines give so much gives after its returns, in 1/10000 of a stamp: of each line its share, rounded to nearest, half up, over all returns together';
REVOKE ALL ON FUNCTION loyalty.stamps_left(loyalty.purchase, text, bigint[]) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Full cards
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.card_of_reward(r loyalty.reward, card text) RETURNS integer
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s loyalty.stamp_card;
BEGIN
    IF card IS NULL THEN
        RETURN NULL;
    END IF;
    s := loyalty.require_stamp_card(r.program_id, card);
    IF s.reward_id <> r.reward_id THEN
        RAISE EXCEPTION 'stamp card "%" is not for reward "%"', card, r.name
            USING ERRCODE = 'LY721', DETAIL = (SELECT format('It is for "%s".', q.name) FROM loyalty.reward q WHERE q.reward_id = s.reward_id);
    END IF;
    RETURN s.card_id;
END
$$;
COMMENT ON FUNCTION loyalty.card_of_reward(loyalty.reward, text) IS 'The card that pays for a reward, or LY721; NULL is no card';
REVOKE ALL ON FUNCTION loyalty.card_of_reward(loyalty.reward, text) FROM PUBLIC;

CREATE FUNCTION loyalty.take_cards(c loyalty.claim) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s loyalty.stamp_card;
    balance loyalty.lots := loyalty.lock_sheet(c.card_id, c.member_id);
    day date := loyalty.local_day(c.program_id, c.claimed_at);
    change loyalty.stamp;
BEGIN
    SELECT * INTO STRICT s FROM loyalty.stamp_card q WHERE q.card_id = c.card_id;
    change.lots := loyalty.stamp_spend(balance, (s.every * 10000)::bigint * c.quantity, day);
    IF change.lots IS NULL THEN
        RAISE EXCEPTION 'stamp card "%" of member % is not full', s.name, c.member_id
            USING ERRCODE = 'LY723', DETAIL = format('It has %s of %s stamps.', trim_scale(loyalty.available(balance, day) / 10000.0), s.every * c.quantity);
    END IF;
    change.card_id := c.card_id;
    change.member_id := c.member_id;
    change.kind := 'claim';
    change.claim_id := c.claim_id;
    PERFORM loyalty.post_stamps(change);
END
$$;
COMMENT ON FUNCTION loyalty.take_cards(loyalty.claim) IS 'Takes the stamps of a claim''s full cards, or raises LY723';
REVOKE ALL ON FUNCTION loyalty.take_cards(loyalty.claim) FROM PUBLIC;

CREATE FUNCTION loyalty.give_cards(c loyalty.claim) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- of one who was merged the stamps moved
    owner bigint := (SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = c.member_id);
    balance loyalty.lots := loyalty.lock_sheet(c.card_id, owner);
    change loyalty.stamp;
BEGIN
    SELECT loyalty.stamp_restore(c.program_id, balance, OPERATOR(loyalty.-) t.lots, loyalty.local_day(c.program_id, now())) INTO STRICT change.lots
        FROM loyalty.stamp t WHERE t.claim_id = c.claim_id AND t.kind = 'claim';
    change.card_id := c.card_id;
    change.member_id := owner;
    change.kind := 'undo';
    change.claim_id := c.claim_id;
    PERFORM loyalty.post_stamps(change);
END
$$;
COMMENT ON FUNCTION loyalty.give_cards(loyalty.claim) IS 'Gives the stamps of a claim back: the very lots; a debt is repaid first';
REVOKE ALL ON FUNCTION loyalty.give_cards(loyalty.claim) FROM PUBLIC;

CREATE FUNCTION loyalty.claim_full_cards(s loyalty.stamp_card, member_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    r loyalty.reward;
    today date := loyalty.local_day(s.program_id, now());
BEGIN
    SELECT * INTO r FROM loyalty.reward q WHERE q.reward_id = s.reward_id;
    WHILE m.status = 'active' AND r.retired_at IS NULL AND (loyalty.reward_obstacle(r, loyalty.member_facts(member_id), true)).code IS NULL
          AND loyalty.available(loyalty.lock_sheet(s.card_id, member_id), today) >= s.every * 10000 LOOP
        PERFORM loyalty.make_claim(m, r, NULL, 1, s.card_id);
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    -- no stock, no code, no key that signs: the sale stands, and the card stays full
    IF SQLSTATE NOT LIKE 'LY%' THEN
        RAISE;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.claim_full_cards(loyalty.stamp_card, bigint) IS 'Claims the reward of a member''s full cards, all of them or, where it cannot be had, none';
REVOKE ALL ON FUNCTION loyalty.claim_full_cards(loyalty.stamp_card, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.revoke_full_cards(s loyalty.stamp_card, member_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    c loyalty.claim;
BEGIN
    FOR c IN SELECT q.* FROM loyalty.claim q WHERE q.member_id = member_id AND q.card_id = s.card_id AND q.undone_at IS NULL
             ORDER BY q.claim_id DESC FOR NO KEY UPDATE LOOP
        EXIT WHEN loyalty.debt(loyalty.lock_sheet(s.card_id, member_id)) = 0;
        BEGIN
            PERFORM loyalty.unmake_claim(c, 'Return of goods that had filled the card');
        EXCEPTION WHEN SQLSTATE 'LY707' THEN
            NULL;               -- used: its stamps stay owed
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.revoke_full_cards(loyalty.stamp_card, bigint) IS 'Undoes claims of a card that leave it in debt, the last first, as far as what they handed out was not used';
REVOKE ALL ON FUNCTION loyalty.revoke_full_cards(loyalty.stamp_card, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Stamping
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.decide_stamps(program_id integer, p loyalty.purchase) RETURNS TABLE (card_id integer, lines bigint[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    one integer;
BEGIN
    IF (SELECT g.on_rule_error FROM loyalty.program g WHERE g.program_id = program_id) = 'fail' THEN
        RETURN QUERY SELECT d.card_id, d.lines FROM loyalty.stamps_of(program_id, p) d;
        RETURN;
    END IF;
    FOR one IN SELECT s.card_id FROM loyalty.stamp_card s WHERE s.program_id = program_id ORDER BY s.card_id LOOP
        BEGIN
            RETURN QUERY SELECT d.card_id, d.lines FROM loyalty.stamps_of(program_id, p, one) d;
        EXCEPTION WHEN SQLSTATE 'LY203' THEN
            RAISE WARNING 'stamp card % cannot decide on purchase %: %', one, p.purchase_id, SQLERRM
                USING ERRCODE = 'LY203', HINT = 'An update of the purchase decides anew.';
            RETURN QUERY SELECT one, NULL::bigint[];
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.decide_stamps(integer, loyalty.purchase) IS 'stamps_of; where on_rule_error is hold, a condition that fails lets the sale stand, leaves the card as it was (lines NULL) and warns';
REVOKE ALL ON FUNCTION loyalty.decide_stamps(integer, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.stamp_targets(p loyalty.purchase, decide boolean)
    RETURNS TABLE (card_id integer, member_id bigint, lines bigint[], posted loyalty.lots, posted_lines bigint[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH decided AS (
        SELECT d.card_id, coalesce(a.merged_into, a.account_id) AS member_id, d.lines
        FROM loyalty.account a CROSS JOIN LATERAL loyalty.decide_stamps(a.program_id, p) d
        WHERE decide AND a.account_id = p.member_id AND NOT loyalty.counts_not(p.purchase_id)),
    posted AS (
        SELECT t.card_id, coalesce(a.merged_into, a.account_id) AS member_id, loyalty.sum(t.lots) AS lots, max(t.stamp_id) AS last
        FROM loyalty.stamp t JOIN loyalty.account a ON a.account_id = t.member_id
        WHERE t.purchase_id = p.purchase_id GROUP BY 1, 2)
    SELECT coalesce(d.card_id, s.card_id), coalesce(d.member_id, s.member_id), CASE WHEN d.lines IS NULL AND (d.card_id IS NOT NULL OR NOT decide) THEN t.lines ELSE coalesce(d.lines, '{}') END, s.lots, t.lines
    FROM decided d FULL JOIN posted s ON s.card_id = d.card_id AND s.member_id = d.member_id
        LEFT JOIN loyalty.stamp t ON t.stamp_id = s.last
    ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION loyalty.stamp_targets(loyalty.purchase, boolean) IS 'The sheets that a purchase concerns: what its lines give now, or gave when it was decided last, and what was posted';
REVOKE ALL ON FUNCTION loyalty.stamp_targets(loyalty.purchase, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.stamp_difference(p loyalty.purchase, s loyalty.stamp_card, change loyalty.stamp, posted loyalty.lots) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    balance loyalty.lots := loyalty.lock_sheet(change.card_id, change.member_id);
    difference bigint := loyalty.stamps_left(p, s.counts, change.lines) - loyalty.total(posted);
    day date := loyalty.local_day(s.program_id, p.occurred_at);
BEGIN
    change.lots := CASE
        WHEN difference > 0 THEN loyalty.stamp_earn(balance, day, coalesce(day + s.expiry_days, 'infinity'), difference)
        WHEN difference < 0 THEN loyalty.stamp_take_back(balance, posted, -difference, loyalty.local_day(s.program_id, now()), s.on_return <> 'forgive')
        ELSE '{}' END;
    PERFORM loyalty.post_stamps(change);
    IF difference > 0 AND s.automatic THEN
        PERFORM loyalty.claim_full_cards(s, change.member_id);
    ELSIF difference < 0 AND s.on_return = 'revoke' THEN
        PERFORM loyalty.revoke_full_cards(s, change.member_id);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.stamp_difference(loyalty.purchase, loyalty.stamp_card, loyalty.stamp, loyalty.lots) IS 'Posts the difference between the stamps that a purchase should have given and those posted';
REVOKE ALL ON FUNCTION loyalty.stamp_difference(loyalty.purchase, loyalty.stamp_card, loyalty.stamp, loyalty.lots) FROM PUBLIC;

CREATE FUNCTION loyalty.stamp_purchases(purchase_ids bigint[], decide boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p loyalty.purchase;
    s loyalty.stamp_card;
    x record;
    change loyalty.stamp;
BEGIN
    FOR p IN SELECT q.* FROM loyalty.purchase q WHERE q.purchase_id = ANY (purchase_ids) ORDER BY q.member_id, q.occurred_at, q.purchase_id LOOP
        FOR x IN SELECT * FROM loyalty.stamp_targets(p, decide) LOOP
            SELECT * INTO s FROM loyalty.stamp_card q WHERE q.card_id = x.card_id;
            -- a card newer than this transaction's snapshot does not count its purchases
            IF NOT FOUND OR (x.lines IS NOT DISTINCT FROM x.posted_lines
                             AND loyalty.stamps_left(p, s.counts, x.lines) = coalesce(loyalty.total(x.posted), 0)) THEN
                CONTINUE;
            END IF;
            change.card_id := x.card_id;
            change.member_id := x.member_id;
            change.kind := CASE WHEN NOT decide THEN 'return' WHEN x.posted IS NULL THEN 'earn' ELSE 'correct' END;
            change.purchase_id := p.purchase_id;
            change.lines := x.lines;
            PERFORM loyalty.stamp_difference(p, s, change, coalesce(x.posted, '{}'));
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.stamp_purchases(bigint[], boolean) IS 'Moves the stamps of purchases towards what they should have given, in the order of each member''s time; decide: which lines count is decided anew. The accounts are locked by the caller';
REVOKE ALL ON FUNCTION loyalty.stamp_purchases(bigint[], boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.merge_stamps(from_member bigint, to_member bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    q loyalty.stamp_sheet;
    balance loyalty.lots;
    owed bigint;
    today date;
    program integer := (loyalty.require_member(to_member)).program_id;
    change loyalty.stamp;
BEGIN
    today := loyalty.local_day(program, now());
    change.kind := 'merge';
    FOR q IN SELECT * FROM loyalty.stamp_sheet x WHERE x.member_id = from_member AND x.lots OPERATOR(loyalty.<>) '{}'::loyalty.lots ORDER BY x.card_id FOR NO KEY UPDATE LOOP
        change.card_id := q.card_id;
        change.member_id := from_member;
        change.lots := OPERATOR(loyalty.-) q.lots;
        PERFORM loyalty.post_stamps(change);
        balance := loyalty.lock_sheet(q.card_id, to_member);
        owed := loyalty.debt(q.lots);
        -- what is owed on either side is paid from the other
        change.lots := loyalty.stamp_restore(program, balance, q.lots OPERATOR(loyalty.+) loyalty.lots('-infinity', 'infinity', owed), today);
        change.lots := change.lots OPERATOR(loyalty.+) loyalty.stamp_take_back(balance OPERATOR(loyalty.+) change.lots, '{}', owed, today, true);
        change.member_id := to_member;
        PERFORM loyalty.post_stamps(change);
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.merge_stamps(bigint, bigint) IS 'Moves the stamps of a member who is merged into another; nothing where there are none';
REVOKE ALL ON FUNCTION loyalty.merge_stamps(bigint, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.stamp_cards(member_id bigint)
    RETURNS TABLE (card text, reward text, description text, counts text, every numeric, stamps numeric, missing numeric, full_cards bigint,
                   debt numeric, next_expiry_on date, next_expiry numeric, valid_until timestamptz, open boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    m loyalty.member := loyalty.require_member(stamp_cards.member_id);
    today date := loyalty.local_day(m.program_id, now());
BEGIN
    RETURN QUERY SELECT s.name, r.name, s.description, s.counts, s.every, trim_scale(mod(b.stamps, s.every)), trim_scale(s.every - mod(b.stamps, s.every) + b.debt),
            div(b.stamps, s.every)::bigint, b.debt, e.expires_on, trim_scale(e.points / 10000.0), nullif(s.valid_until, 'infinity'),
            s.retired_at IS NULL AND now() >= s.valid_from AND now() < s.valid_until
        FROM loyalty.stamp_card s JOIN loyalty.reward r USING (reward_id)
            LEFT JOIN loyalty.stamp_sheet q ON q.card_id = s.card_id AND q.member_id = m.member_id
            CROSS JOIN LATERAL (SELECT greatest(coalesce(loyalty.available(q.lots, today), 0), 0) / 10000.0 AS stamps,
                                       trim_scale(coalesce(loyalty.debt(q.lots), 0) / 10000.0) AS debt) b
            LEFT JOIN LATERAL (SELECT u.expires_on, sum(u.points) AS points FROM loyalty.unnest(q.lots) u
                               WHERE u.points > 0 AND u.expires_on > today AND isfinite(u.expires_on) GROUP BY 1 ORDER BY 1 LIMIT 1) e ON true
        WHERE s.program_id = m.program_id AND (b.stamps > 0 OR b.debt > 0 OR (s.retired_at IS NULL AND now() < s.valid_until))
        ORDER BY s.name;
END
$$;
COMMENT ON FUNCTION loyalty.stamp_cards(bigint) IS 'A member''s progress on every card: full ones to claim, stamps on the one that is being filled, what is missing, what is owed, and what dies next';
REVOKE ALL ON FUNCTION loyalty.stamp_cards(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Invariants, for check()
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_stamps() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'a sheet is the sum of its stamps', coalesce(q.member_id, t.member_id), format('card %s: sheet %s, stamps %s', coalesce(q.card_id, t.card_id), q.lots, t.lots)
        FROM loyalty.stamp_sheet q FULL JOIN (SELECT n.card_id, n.member_id, loyalty.sum(n.lots) AS lots FROM loyalty.stamp n GROUP BY 1, 2) t
            ON t.card_id = q.card_id AND t.member_id = q.member_id
        WHERE coalesce(q.lots, '{}') OPERATOR(loyalty.<>) coalesce(t.lots, '{}')
    UNION ALL
    SELECT 'an amount of stamps is the total of its lots', n.member_id, format('stamp %s', n.stamp_id)
        FROM loyalty.stamp n WHERE n.amount <> loyalty.total(n.lots)
    UNION ALL
    SELECT 'no stamps are negative but the debt', q.member_id, format('card %s: %s', q.card_id, q.lots)
        FROM loyalty.stamp_sheet q
        WHERE EXISTS (SELECT FROM loyalty.unnest(q.lots) u WHERE u.points < 0 AND NOT (u.available_from = '-infinity' AND u.expires_on = 'infinity'))
    UNION ALL
    SELECT 'a purchase has given the stamps that it should', n.member_id, format('purchase %s, card %s: %s of %s', n.purchase_id, n.card_id, n.amount, w.wanted)
        FROM (SELECT n.purchase_id, n.card_id, max(n.member_id) AS member_id, sum(n.amount) AS amount FROM loyalty.stamp n WHERE n.purchase_id IS NOT NULL GROUP BY 1, 2) n
            JOIN loyalty.stamp_card s USING (card_id)
            JOIN loyalty.purchase p USING (purchase_id)
            CROSS JOIN LATERAL (SELECT t.lines FROM loyalty.stamp t WHERE t.purchase_id = n.purchase_id AND t.card_id = n.card_id
                                ORDER BY (t.member_id = p.member_id) DESC, t.stamp_id DESC LIMIT 1) d
            CROSS JOIN LATERAL (SELECT CASE WHEN p.status = 'void' OR p.member_id IS NULL THEN 0 ELSE loyalty.stamps_left(p, s.counts, d.lines) END AS wanted) w
        WHERE CASE WHEN s.on_return = 'forgive' THEN n.amount < w.wanted ELSE n.amount <> w.wanted END
    UNION ALL
    SELECT 'the stamps of a claim are taken, and given back when it is undone', c.member_id, format('claim %s', c.claim_id)
        FROM loyalty.claim c JOIN loyalty.stamp_card s USING (card_id)
            CROSS JOIN LATERAL (SELECT coalesce(sum(n.amount) FILTER (WHERE n.kind = 'claim'), 0) AS taken, coalesce(sum(n.amount) FILTER (WHERE n.kind = 'undo'), 0) AS given
                                FROM loyalty.stamp n WHERE n.claim_id = c.claim_id AND n.card_id = c.card_id) n
        WHERE -n.taken <> s.every * 10000 * c.quantity OR n.given <> CASE WHEN c.undone_at IS NULL THEN 0 ELSE -n.taken END
    UNION ALL
    SELECT 'every stamp has its cause', n.member_id, format('stamp %s', n.stamp_id)
        FROM loyalty.stamp n
        WHERE (n.purchase_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.purchase p WHERE p.purchase_id = n.purchase_id))
            OR (n.claim_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.claim c WHERE c.claim_id = n.claim_id AND c.card_id = n.card_id))
    UNION ALL
    SELECT 'a card, its reward and its members are of one programme', q.member_id, format('card %s', s.card_id)
        FROM loyalty.stamp_card s LEFT JOIN loyalty.stamp_sheet q USING (card_id)
        WHERE NOT EXISTS (SELECT FROM loyalty.reward r WHERE r.reward_id = s.reward_id AND r.program_id = s.program_id)
            OR (q.member_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = q.member_id AND m.program_id = s.program_id))
$$;
COMMENT ON FUNCTION loyalty.check_stamps() IS 'The invariants of stamp cards, a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_stamps() FROM PUBLIC;
