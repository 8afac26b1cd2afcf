/*
 * referral: a member brings a friend, and both are given points when the
 * friend first buys enough.
 *
 * A referral is invited, registered, qualified, rewarded, or void, or waits
 * for review.  All that changes one happens under the locks of both accounts.
 * Who was referred has referred nobody before, so that no circle can close.
 */

CREATE TABLE loyalty.referral_policy (
    policy_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    referrer_points bigint NOT NULL CHECK (referrer_points BETWEEN 0 AND 1000000000000),
    friend_points bigint NOT NULL CHECK (friend_points BETWEEN 0 AND 1000000000000),
    min_amount  numeric NOT NULL CHECK (min_amount >= 0 AND min_amount < 1e12),
    qualify_days integer NOT NULL CHECK (qualify_days BETWEEN 0 AND 36500),
    hold_days   integer CHECK (hold_days BETWEEN 0 AND 3650),
    cap         integer CHECK (cap >= 1),
    cap_period  text NOT NULL CHECK (cap_period IN ('once', 'day', 'week', 'month', 'quarter', 'year')),
    void_on     text[] NOT NULL CHECK (cardinality(void_on) <= 20 AND coalesce(array_ndims(void_on), 1) = 1 AND array_position(void_on, NULL) IS NULL),
    review_on   text[] NOT NULL CHECK (cardinality(review_on) <= 20 AND coalesce(array_ndims(review_on), 1) = 1 AND array_position(review_on, NULL) IS NULL),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by  name NOT NULL DEFAULT session_user,
    retired_at  timestamptz,
    retired_by  name,
    reason      text,
    CONSTRAINT referral_policy_gives_check CHECK (referrer_points > 0 OR friend_points > 0),
    CONSTRAINT referral_policy_retired_check CHECK ((retired_at IS NULL) = (retired_by IS NULL))
);
CREATE UNIQUE INDEX referral_policy_program_id_idx ON loyalty.referral_policy (program_id) WHERE retired_at IS NULL;
COMMENT ON TABLE loyalty.referral_policy IS 'What a programme gives for referrals. Immutable: a change retires the row and adds another; a referral keeps the one under which it began';
COMMENT ON COLUMN loyalty.referral_policy.referrer_points IS 'In smallest units, as friend_points';
COMMENT ON COLUMN loyalty.referral_policy.min_amount IS 'What the friend''s purchase must cost at least, in the programme''s currency, less what points and gift cards paid of it';
COMMENT ON COLUMN loyalty.referral_policy.qualify_days IS 'It must occur by so many days after the day on which the friend was registered';
COMMENT ON COLUMN loyalty.referral_policy.hold_days IS 'The points become available so many days after the purchase; NULL: when points earned on that day would';
COMMENT ON COLUMN loyalty.referral_policy.cap IS 'So many referrals of a referrer are rewarded in a cap_period (once: ever), by the day of the friend''s purchase; NULL: no limit';
COMMENT ON COLUMN loyalty.referral_policy.void_on IS 'Attributes of members and purchases; a value that friend and referrer share makes the referral void';
COMMENT ON COLUMN loyalty.referral_policy.review_on IS 'Likewise, but somebody must decide; so also where two friends of one referrer share a value of either list';

CREATE TABLE loyalty.referral_code (
    member_id   bigint PRIMARY KEY,
    program_id  integer NOT NULL,
    code        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX referral_code_code_idx ON loyalty.referral_code (program_id, upper(translate(code, ' -', '')));
COMMENT ON TABLE loyalty.referral_code IS 'The code by which a member refers friends; that of a merged member refers for the one into which it was merged';
COMMENT ON COLUMN loyalty.referral_code.code IS 'Unique in the programme; spaces, hyphens and case do not count';

CREATE TABLE loyalty.referral (
    referral_id bigint PRIMARY KEY DEFAULT nextval('loyalty.transaction_id_seq'),
    program_id  integer NOT NULL,
    policy_id   integer NOT NULL,
    referrer_id bigint NOT NULL,
    friend_id   bigint,
    key         text CHECK (key <> '' AND octet_length(key) <= 500),
    channel     text CHECK (octet_length(channel) <= 500),
    state       text NOT NULL CHECK (state IN ('invited', 'registered', 'review', 'rewarded', 'void')),
    reason      text,
    invited_at  timestamptz NOT NULL DEFAULT now(),
    registered_at timestamptz CHECK (isfinite(registered_at)),
    purchase_id bigint,
    qualified_at timestamptz,
    rewarded_at timestamptz,
    void_at     timestamptz,
    CONSTRAINT referral_registered_check CHECK ((friend_id IS NULL) = (registered_at IS NULL) AND (state <> 'invited' OR friend_id IS NULL)
        AND (friend_id IS NOT NULL OR state IN ('invited', 'void'))),
    CONSTRAINT referral_qualified_check CHECK ((purchase_id IS NULL) = (qualified_at IS NULL) AND (purchase_id IS NOT NULL OR state NOT IN ('review', 'rewarded'))),
    CONSTRAINT referral_rewarded_check CHECK (state <> 'rewarded' OR rewarded_at IS NOT NULL),
    CONSTRAINT referral_void_check CHECK ((state = 'void') = (void_at IS NOT NULL) AND (state <> 'void' OR reason IS NOT NULL)),
    CONSTRAINT referral_self_check CHECK (friend_id <> referrer_id OR state = 'void')
);
CREATE UNIQUE INDEX referral_friend_id_idx ON loyalty.referral (friend_id) WHERE friend_id IS NOT NULL;
CREATE UNIQUE INDEX referral_key_idx ON loyalty.referral (referrer_id, key) WHERE key IS NOT NULL;
CREATE INDEX referral_referrer_id_idx ON loyalty.referral (referrer_id, qualified_at);
CREATE INDEX referral_purchase_id_idx ON loyalty.referral (purchase_id) WHERE purchase_id IS NOT NULL;
COMMENT ON TABLE loyalty.referral IS 'Who brought whom, and what came of it; a friend is referred once for ever. Written by the engine alone';
COMMENT ON COLUMN loyalty.referral.referral_id IS 'source_id of its entries';
COMMENT ON COLUMN loyalty.referral.policy_id IS 'What was promised when it began';
COMMENT ON COLUMN loyalty.referral.friend_id IS 'NULL: invited, and not registered yet';
COMMENT ON COLUMN loyalty.referral.key IS 'Names the invitation among those of its referrer';
COMMENT ON COLUMN loyalty.referral.state IS 'invited; registered (the friend is a member); review (qualified, and somebody must decide); rewarded; void';
COMMENT ON COLUMN loyalty.referral.reason IS 'Why it is in that state, where that needs a reason';
COMMENT ON COLUMN loyalty.referral.purchase_id IS 'The friend''s first purchase that qualified';
COMMENT ON COLUMN loyalty.referral.qualified_at IS 'When that occurred';
COMMENT ON COLUMN loyalty.referral.rewarded_at IS 'When both were given their points; they wait for the return window';

CREATE TABLE loyalty.referral_change (
    referral_id bigint NOT NULL,
    number      integer NOT NULL,
    state       text NOT NULL CHECK (state IN ('invited', 'registered', 'qualified', 'review', 'rewarded', 'void')),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    changed_by  name NOT NULL DEFAULT session_user,
    reason      text,
    PRIMARY KEY (referral_id, number)
);
COMMENT ON TABLE loyalty.referral_change IS 'Every change of a referral''s state: when, by whom, why';

CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.referral_policy
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.referral
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.referral_change
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE TRUNCATE ON loyalty.referral_policy
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');

CREATE FUNCTION loyalty.keep_referral_policy() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.retired_at IS NULL AND NEW.retired_at IS NOT NULL
       AND (to_jsonb(NEW) - '{retired_at,retired_by,reason}'::text[]) = (to_jsonb(OLD) - '{retired_at,retired_by,reason}'::text[]) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'policies of referrals are immutable'
        USING ERRCODE = 'LY901', DETAIL = 'Referrals keep what they were promised.', HINT = 'loyalty.set_referral makes a new one.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_referral_policy() IS 'Lets a policy be retired once, and nothing else';
REVOKE ALL ON FUNCTION loyalty.keep_referral_policy() FROM PUBLIC;
CREATE TRIGGER keep_referral_policy BEFORE UPDATE OR DELETE ON loyalty.referral_policy
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_referral_policy();

/* ------------------------------------------------------------------------
 * Setting up
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.retire_referral(program_id integer, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_program(program_id);
    UPDATE loyalty.referral_policy p SET retired_at = now(), retired_by = session_user, reason = reason
        WHERE p.program_id = program_id AND p.retired_at IS NULL;
END
$$;
COMMENT ON FUNCTION loyalty.retire_referral(integer, text) IS 'No more invitations and registrations; what began before goes on as it was promised';
REVOKE ALL ON FUNCTION loyalty.retire_referral(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.set_referral(program_id integer, referrer_points bigint, friend_points bigint, min_amount numeric DEFAULT 0,
        qualify_days integer DEFAULT 30, hold_days integer DEFAULT NULL, cap integer DEFAULT NULL, cap_period text DEFAULT 'month',
        void_on text[] DEFAULT '{email,phone,card}', review_on text[] DEFAULT '{device,address}', reason text DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    detail text;
    broken text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF (SELECT g.wallet_of FROM loyalty.program g WHERE g.program_id = program_id) IS NOT NULL THEN
        RAISE EXCEPTION 'the policy of referrals is not valid' USING ERRCODE = 'LY761', DETAIL = 'The programme is a wallet.', HINT = 'Set it for the programme whose wallet it is.';
    END IF;
    SELECT p.policy_id INTO id FROM loyalty.referral_policy p
        WHERE p.program_id = program_id AND p.retired_at IS NULL
            AND (p.referrer_points, p.friend_points, p.min_amount, p.qualify_days, p.hold_days, p.cap, p.cap_period, p.void_on, p.review_on)
                IS NOT DISTINCT FROM (referrer_points, friend_points, min_amount, qualify_days, hold_days, cap, cap_period, void_on, review_on);
    IF id IS NULL THEN
        PERFORM loyalty.retire_referral(program_id, reason);
        INSERT INTO loyalty.referral_policy (program_id, referrer_points, friend_points, min_amount, qualify_days, hold_days, cap, cap_period, void_on, review_on)
            VALUES (program_id, referrer_points, friend_points, min_amount, qualify_days, hold_days, cap, cap_period, void_on, review_on) RETURNING policy_id INTO id;
    END IF;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.referral_policy', broken, jsonb_build_object(
            'referrer_points', referrer_points, 'friend_points', friend_points, 'min_amount', min_amount, 'qualify_days', qualify_days, 'hold_days', hold_days,
            'cap', cap, 'cap_period', cap_period, 'void_on', void_on, 'review_on', review_on)), detail);
    RAISE EXCEPTION 'the policy of referrals is not valid'
        USING ERRCODE = 'LY761', DETAIL = detail, HINT = 'The comments on loyalty.referral_policy say what each column may be.';
END
$$;
COMMENT ON FUNCTION loyalty.set_referral IS 'What a programme gives for referrals from now on (points in smallest units); returns policy_id. The same again changes nothing';
REVOKE ALL ON FUNCTION loyalty.set_referral FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Codes, invitations, registrations
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.lock_people(people bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM loyalty.account a WHERE a.account_id = ANY (people) ORDER BY a.merged_into IS NULL, a.account_id FOR NO KEY UPDATE;
    PERFORM FROM loyalty.account h WHERE h.account_id IN (SELECT unnest(a.household_id || a.left_households) FROM loyalty.account a WHERE a.account_id = ANY (people))
        ORDER BY h.account_id FOR NO KEY UPDATE;
END
$$;
COMMENT ON FUNCTION loyalty.lock_people(bigint[]) IS 'Locks members, then the households in which they are or were, each in ascending order';
REVOKE ALL ON FUNCTION loyalty.lock_people(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.require_referrer(member_id bigint) RETURNS loyalty.member
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(coalesce((SELECT a.merged_into FROM loyalty.account a WHERE a.account_id = member_id), member_id));
BEGIN
    IF m.status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', m.member_id USING ERRCODE = 'LY302', DETAIL = 'It refers nobody and is not referred.';
    ELSIF m.member_id >= 4000000000000001 THEN
        RAISE EXCEPTION 'member % neither refers nor is referred', m.member_id USING ERRCODE = 'LY763', DETAIL = 'It is a household or a wallet.', HINT = 'Name one of the persons.';
    END IF;
    RETURN m;
END
$$;
COMMENT ON FUNCTION loyalty.require_referrer(bigint) IS 'A person, or the one into whom it was merged, who may refer and be referred';
REVOKE ALL ON FUNCTION loyalty.require_referrer(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.open_policy(program_id integer) RETURNS loyalty.referral_policy
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    policy loyalty.referral_policy;
BEGIN
    SELECT * INTO policy FROM loyalty.referral_policy p WHERE p.program_id = program_id AND p.retired_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'programme % does not reward referrals', program_id USING ERRCODE = 'LY764', HINT = 'loyalty.set_referral says what it gives.';
    END IF;
    RETURN policy;
END
$$;
COMMENT ON FUNCTION loyalty.open_policy(integer) IS 'What a programme gives for referrals now, or LY764';
REVOKE ALL ON FUNCTION loyalty.open_policy(integer) FROM PUBLIC;

CREATE FUNCTION loyalty.referral_code(member_id bigint) RETURNS text
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_referrer(member_id);
    code text;
BEGIN
    PERFORM loyalty.open_policy(m.program_id);
    LOOP
        SELECT c.code INTO code FROM loyalty.referral_code c WHERE c.member_id = m.member_id;
        EXIT WHEN FOUND;
        INSERT INTO loyalty.referral_code (member_id, program_id, code) VALUES (m.member_id, m.program_id, loyalty.make_code(8)) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN code;
END
$$;
COMMENT ON FUNCTION loyalty.referral_code(bigint) IS 'The code by which a member refers friends: always the same; loyalty.is_code tells a mistyped one';
REVOKE ALL ON FUNCTION loyalty.referral_code(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.move_referral(referral_id bigint, state text, reason text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF state <> 'qualified' THEN
        UPDATE loyalty.referral r SET state = state, reason = reason, rewarded_at = CASE WHEN state = 'rewarded' THEN now() ELSE r.rewarded_at END,
                void_at = CASE WHEN state = 'void' THEN now() END
            WHERE r.referral_id = referral_id;
    END IF;
    INSERT INTO loyalty.referral_change (referral_id, number, state, reason)
        SELECT referral_id, count(*) + 1, state, reason FROM loyalty.referral_change c WHERE c.referral_id = referral_id;
END
$$;
COMMENT ON FUNCTION loyalty.move_referral(bigint, text, text) IS 'Brings a referral whose accounts are locked into a state, and writes that down';
REVOKE ALL ON FUNCTION loyalty.move_referral(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.invite(member_id bigint, key text, channel text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_referrer(member_id);
    policy loyalty.referral_policy := loyalty.open_policy(m.program_id);
    id bigint;
BEGIN
    INSERT INTO loyalty.referral (program_id, policy_id, referrer_id, key, channel, state) VALUES (m.program_id, policy.policy_id, m.member_id, key, channel, 'invited')
        ON CONFLICT DO NOTHING RETURNING referral_id INTO id;
    IF id IS NULL THEN
        SELECT r.referral_id INTO STRICT id FROM loyalty.referral r WHERE r.referrer_id = m.member_id AND r.key = key;
    ELSE
        PERFORM loyalty.move_referral(id, 'invited', NULL);
    END IF;
    RETURN id;
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'the invitation is not valid' USING ERRCODE = 'LY763', DETAIL = 'A key is not empty; key and channel have up to 500 bytes each.';
END
$$;
COMMENT ON FUNCTION loyalty.invite(bigint, text, text) IS 'Notes that a member invited somebody who is no member yet; refer names it by its key. Returns referral_id; the same key returns the first';
REVOKE ALL ON FUNCTION loyalty.invite(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.find_referrer(program_id integer, code text) RETURNS bigint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id bigint;
BEGIN
    SELECT coalesce(a.merged_into, a.account_id) INTO id FROM loyalty.referral_code c JOIN loyalty.account a ON a.account_id = c.member_id
        WHERE c.program_id = program_id AND upper(translate(c.code, ' -', '')) = upper(translate(code, ' -', ''));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no member refers with code "%"', left(code, 50)
            USING ERRCODE = 'LY762', DETAIL = CASE WHEN loyalty.is_code(code) THEN 'It is well-formed.' ELSE 'It is mistyped, or was not made here: its check letter is wrong.' END,
                  HINT = 'loyalty.referral_code makes a member''s code.';
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION loyalty.find_referrer(integer, text) IS 'Whose code it is, or LY762';
REVOKE ALL ON FUNCTION loyalty.find_referrer(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.has_bought(member_id bigint, before timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM loyalty.account a JOIN loyalty.entry e ON e.account_id IN (a.account_id, a.household_id) AND e.kind = 'earn'
                       JOIN loyalty.purchase p ON p.purchase_id = e.source_id AND p.member_id = a.account_id
                   WHERE a.account_id = ANY (loyalty.same_member(has_bought.member_id)) AND p.status <> 'void' AND p.occurred_at < before)
$$;
COMMENT ON FUNCTION loyalty.has_bought(bigint, timestamptz) IS 'Whether a member has bought before an instant, and not taken it back with a void';
REVOKE ALL ON FUNCTION loyalty.has_bought(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.check_friend(friend_id bigint, referrer_id bigint, at timestamptz) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    detail text := CASE
        WHEN friend_id = referrer_id THEN 'Nobody refers themselves.'
        WHEN EXISTS (SELECT FROM loyalty.referral r WHERE r.friend_id = friend_id) THEN 'It was referred before, by another member.'
        WHEN EXISTS (SELECT FROM loyalty.referral r WHERE r.referrer_id = friend_id AND r.friend_id IS NOT NULL AND r.state <> 'void') THEN 'It has referred others already.'
        WHEN loyalty.has_bought(friend_id, at) THEN 'It has bought before.' END;
BEGIN
    IF detail IS NOT NULL THEN
        RAISE EXCEPTION 'member % cannot be referred', friend_id USING ERRCODE = 'LY763', DETAIL = detail, HINT = 'A friend is a new member; register the code when it joins.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_friend(bigint, bigint, timestamptz) IS 'Refuses who is not new; both accounts are locked';
REVOKE ALL ON FUNCTION loyalty.check_friend(bigint, bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.refer(friend_member_id bigint, code text, key text DEFAULT NULL, registered_at timestamptz DEFAULT now()) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_referrer(friend_member_id);
    referrer bigint := loyalty.find_referrer(m.program_id, code);
    policy loyalty.referral_policy;
    id bigint;
BEGIN
    PERFORM FROM loyalty.account a WHERE a.account_id IN (m.member_id, referrer) ORDER BY a.merged_into IS NULL, a.account_id FOR NO KEY UPDATE;
    SELECT r.referral_id INTO id FROM loyalty.referral r WHERE r.friend_id = m.member_id AND r.referrer_id = referrer;
    IF FOUND THEN
        RETURN id;
    END IF;
    policy := loyalty.open_policy(m.program_id);
    IF EXISTS (SELECT FROM loyalty.account a WHERE a.account_id IN (m.member_id, referrer) AND a.merged_into IS NOT NULL) THEN
        RAISE EXCEPTION 'member % or member % was merged into another meanwhile', m.member_id, referrer USING ERRCODE = '40001', HINT = 'Try again.';
    END IF;
    PERFORM loyalty.require_referrer(referrer);
    PERFORM loyalty.check_friend(m.member_id, referrer, registered_at);
    UPDATE loyalty.referral r SET friend_id = m.member_id, registered_at = registered_at, state = 'registered'
        WHERE r.referrer_id = referrer AND r.key = key AND r.state = 'invited' RETURNING r.referral_id INTO id;
    IF id IS NULL THEN
        INSERT INTO loyalty.referral (program_id, policy_id, referrer_id, friend_id, state, invited_at, registered_at)
            VALUES (m.program_id, policy.policy_id, referrer, m.member_id, 'registered', registered_at, registered_at) RETURNING referral_id INTO id;
    END IF;
    PERFORM loyalty.move_referral(id, 'registered', NULL);
    -- so that whoever has an older snapshot must try again
    UPDATE loyalty.account a SET seq = a.seq WHERE a.account_id IN (m.member_id, referrer);
    RETURN id;
END
$$;
COMMENT ON FUNCTION loyalty.refer(bigint, text, text, timestamptz) IS 'Registers that a new member was referred, by the code of another, with the key of the invitation where there was one; returns referral_id. Again changes nothing';
REVOKE ALL ON FUNCTION loyalty.refer(bigint, text, text, timestamptz) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Qualifying
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.referral_worth(program_id integer, p loyalty.purchase) RETURNS numeric
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_referral_worth';
COMMENT ON FUNCTION loyalty.referral_worth(integer, loyalty.purchase) IS 'What a purchase costs in the programme''s currency, less what points and gift cards paid of it';
REVOKE ALL ON FUNCTION loyalty.referral_worth(integer, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.give_referral(referral_id bigint, member_id bigint, to_friend boolean, points bigint, at timestamptz, hold_days integer, reason text) RETURNS bigint
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_give_referral';
COMMENT ON FUNCTION loyalty.give_referral(bigint, bigint, boolean, bigint, timestamptz, integer, text) IS 'Posts the points of one side of a referral, available after hold_days (below 0: as earned ones)';
REVOKE ALL ON FUNCTION loyalty.give_referral(bigint, bigint, boolean, bigint, timestamptz, integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.take_referral(referral_id bigint, member_id bigint, reason text) RETURNS bigint
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_take_referral';
COMMENT ON FUNCTION loyalty.take_referral(bigint, bigint, text) IS 'Takes back what a referral gave to both sides, as far as the policy on debts can; returns the points posted';
REVOKE ALL ON FUNCTION loyalty.take_referral(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.still_qualifies(r loyalty.referral, p loyalty.purchase) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    policy loyalty.referral_policy;
    day date := loyalty.local_day(r.program_id, p.occurred_at);
    first_day date := loyalty.local_day(r.program_id, r.registered_at);
BEGIN
    SELECT * INTO policy FROM loyalty.referral_policy q WHERE q.policy_id = r.policy_id;
    IF p.status = 'void' THEN
        RETURN 'purchase was made void';
    ELSIF p.member_id IS NULL OR p.member_id <> ALL (loyalty.same_member(r.friend_id)) THEN
        RETURN 'purchase is not the friend''s';
    ELSIF day < first_day THEN
        RETURN 'purchase was before the registration';
    ELSIF day > first_day + policy.qualify_days THEN
        RETURN 'purchase was too late';
    END IF;
    IF EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id) THEN
        p := loyalty.kept_purchase(p);
        IF p.purchase_id IS NULL THEN
            RETURN 'purchase was returned';
        END IF;
    END IF;
    RETURN CASE WHEN loyalty.referral_worth(r.program_id, p) < policy.min_amount THEN 'purchase is below the minimum' END;
END
$$;
COMMENT ON FUNCTION loyalty.still_qualifies(loyalty.referral, loyalty.purchase) IS 'Why a purchase, less what came back of it, does not qualify a referral; NULL where it does';
REVOKE ALL ON FUNCTION loyalty.still_qualifies(loyalty.referral, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.referral_marks(member_id bigint, names text[], until timestamptz, p loyalty.purchase DEFAULT NULL) RETURNS TABLE (name text, value text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT n, lower(btrim(x.attributes ->> n))
    FROM (SELECT m.attributes FROM loyalty.member m WHERE m.member_id = ANY (loyalty.same_member(referral_marks.member_id))
          UNION ALL SELECT referral_marks.p.attributes
          UNION ALL SELECT q.attributes
              FROM (SELECT e.source_id FROM loyalty.entry e WHERE e.account_id = loyalty.account_of(referral_marks.member_id) AND e.kind = 'earn' ORDER BY e.seq DESC LIMIT 200) s
                  JOIN loyalty.purchase q ON q.purchase_id = s.source_id
              WHERE q.member_id = ANY (loyalty.same_member(referral_marks.member_id)) AND q.occurred_at <= until) x
         CROSS JOIN unnest(names) n
    WHERE btrim(x.attributes ->> n) <> ''
$$;
COMMENT ON FUNCTION loyalty.referral_marks(bigint, text[], timestamptz, loyalty.purchase) IS 'The values of attributes that a member, its last purchases before an instant and one purchase have';
REVOKE ALL ON FUNCTION loyalty.referral_marks(bigint, text[], timestamptz, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.shared_mark(r loyalty.referral, p loyalty.purchase, names text[], with_friends boolean) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mine text[] := ARRAY(SELECT format('%s=%s', k.name, k.value) FROM loyalty.referral_marks(r.friend_id, names, p.occurred_at, p) k);
    shared text;
BEGIN
    IF mine <> '{}' AND with_friends THEN
        SELECT min(k.name) INTO shared
            FROM (SELECT x.friend_id FROM loyalty.referral x WHERE x.referrer_id = r.referrer_id AND x.referral_id <> r.referral_id AND x.qualified_at IS NOT NULL
                  ORDER BY x.qualified_at DESC LIMIT 100) o CROSS JOIN LATERAL loyalty.referral_marks(o.friend_id, names, p.occurred_at) k
            WHERE format('%s=%s', k.name, k.value) = ANY (mine);
    ELSIF mine <> '{}' THEN
        SELECT min(k.name) INTO shared FROM loyalty.referral_marks(r.referrer_id, names, p.occurred_at) k WHERE format('%s=%s', k.name, k.value) = ANY (mine);
    END IF;
    RETURN shared;
END
$$;
COMMENT ON FUNCTION loyalty.shared_mark(loyalty.referral, loyalty.purchase, text[], boolean) IS 'The attribute of which friend and referrer, or two friends of one referrer, have the same value; NULL: none';
REVOKE ALL ON FUNCTION loyalty.shared_mark(loyalty.referral, loyalty.purchase, text[], boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.referrers_above(member_id bigint) RETURNS SETOF bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE up (id) AS (
        SELECT r.referrer_id FROM loyalty.referral r WHERE r.friend_id = referrers_above.member_id AND r.state <> 'void'
        UNION SELECT r.referrer_id FROM up JOIN loyalty.referral r ON r.friend_id = up.id AND r.state <> 'void')
    SELECT id FROM up
$$;
COMMENT ON FUNCTION loyalty.referrers_above(bigint) IS 'Who referred a member, who referred that one, and so on';
REVOKE ALL ON FUNCTION loyalty.referrers_above(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.cap_is_reached(r loyalty.referral, policy loyalty.referral_policy, at timestamptz) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    zone text := (SELECT g.time_zone FROM loyalty.program g WHERE g.program_id = r.program_id);
    first_day date := loyalty.period_start(policy.cap_period, loyalty.local_day(r.program_id, at));
    after_day date := loyalty.period_end(policy.cap_period, first_day);
BEGIN
    RETURN policy.cap <= (SELECT count(*) FROM loyalty.referral o
        WHERE o.referrer_id = r.referrer_id AND o.state IN ('review', 'rewarded') AND o.referral_id <> r.referral_id
            AND o.qualified_at >= first_day::timestamp AT TIME ZONE zone AND o.qualified_at < after_day::timestamp AT TIME ZONE zone);
END
$$;
COMMENT ON FUNCTION loyalty.cap_is_reached(loyalty.referral, loyalty.referral_policy, timestamptz) IS 'Whether the referrer has as many rewarded referrals, or ones in review, as the period of an instant allows';
REVOKE ALL ON FUNCTION loyalty.cap_is_reached(loyalty.referral, loyalty.referral_policy, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.judge_referral(r loyalty.referral, p loyalty.purchase, OUT verdict text, OUT reason text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    policy loyalty.referral_policy;
    friend loyalty.account;
    referrer loyalty.account;
    shared text;
BEGIN
    SELECT * INTO policy FROM loyalty.referral_policy q WHERE q.policy_id = r.policy_id;
    SELECT * INTO friend FROM loyalty.account a WHERE a.account_id = r.friend_id;
    SELECT * INTO referrer FROM loyalty.account a WHERE a.account_id = r.referrer_id;
    verdict := 'void';
    reason := CASE
        WHEN r.friend_id = r.referrer_id THEN 'friend is the referrer'
        WHEN r.friend_id IN (SELECT loyalty.referrers_above(r.referrer_id)) THEN 'referrals go in a circle'
        WHEN referrer.closed THEN 'referrer is closed'
        WHEN friend.household_id = referrer.household_id THEN 'friend and referrer share a household'
        ELSE 'friend and referrer share their ' || loyalty.shared_mark(r, p, policy.void_on, false) END;
    IF reason IS NULL AND loyalty.cap_is_reached(r, policy, p.occurred_at) THEN
        reason := format('referrer has %s rewarded referrals %s', policy.cap, CASE WHEN policy.cap_period = 'once' THEN 'already' ELSE 'in that ' || policy.cap_period END);
    END IF;
    IF reason IS NULL THEN
        verdict := 'review';
        reason := coalesce('friend and referrer share their ' || loyalty.shared_mark(r, p, policy.review_on, false),
                           'two friends of the referrer share their ' || loyalty.shared_mark(r, p, policy.void_on || policy.review_on, true));
    END IF;
    IF reason IS NULL THEN
        verdict := 'rewarded';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.judge_referral(loyalty.referral, loyalty.purchase) IS 'What becomes of a referral that a purchase qualifies: rewarded, or void or review and why';
REVOKE ALL ON FUNCTION loyalty.judge_referral(loyalty.referral, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.reward_referral(r loyalty.referral, reason text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    policy loyalty.referral_policy;
BEGIN
    SELECT * INTO policy FROM loyalty.referral_policy q WHERE q.policy_id = r.policy_id;
    IF policy.friend_points > 0 THEN
        PERFORM loyalty.give_referral(r.referral_id, r.friend_id, true, policy.friend_points, r.qualified_at, coalesce(policy.hold_days, -1), 'Referred by a member');
    END IF;
    IF policy.referrer_points > 0 THEN
        PERFORM loyalty.give_referral(r.referral_id, r.referrer_id, false, policy.referrer_points, r.qualified_at, coalesce(policy.hold_days, -1), 'Referred a friend');
    END IF;
    PERFORM loyalty.move_referral(r.referral_id, 'rewarded', reason);
END
$$;
COMMENT ON FUNCTION loyalty.reward_referral(loyalty.referral, text) IS 'Gives both sides of a qualified referral their points';
REVOKE ALL ON FUNCTION loyalty.reward_referral(loyalty.referral, text) FROM PUBLIC;

CREATE FUNCTION loyalty.void_referral(r loyalty.referral, reason text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF r.state = 'rewarded' THEN
        PERFORM loyalty.take_referral(r.referral_id, r.friend_id, 'Referral taken back: ' || reason);
    END IF;
    PERFORM loyalty.move_referral(r.referral_id, 'void', reason);
END
$$;
COMMENT ON FUNCTION loyalty.void_referral(loyalty.referral, text) IS 'Makes a referral void and takes back what it gave';
REVOKE ALL ON FUNCTION loyalty.void_referral(loyalty.referral, text) FROM PUBLIC;

CREATE FUNCTION loyalty.qualify_referral(r loyalty.referral, p loyalty.purchase) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    obstacle text := loyalty.still_qualifies(r, p);
    judgement record;
BEGIN
    IF obstacle = 'purchase was too late' THEN
        PERFORM loyalty.void_referral(r, obstacle);
        RETURN;
    ELSIF obstacle IS NOT NULL THEN
        RETURN;
    END IF;
    UPDATE loyalty.referral x SET purchase_id = p.purchase_id, qualified_at = p.occurred_at WHERE x.referral_id = r.referral_id RETURNING * INTO r;
    PERFORM loyalty.move_referral(r.referral_id, 'qualified', NULL);
    SELECT * INTO judgement FROM loyalty.judge_referral(r, p);
    IF judgement.verdict = 'rewarded' THEN
        PERFORM loyalty.reward_referral(r, NULL);
    ELSE
        PERFORM loyalty.move_referral(r.referral_id, judgement.verdict, judgement.reason);
    END IF;
    -- the referrer's cap: who has an older snapshot of it must try again
    UPDATE loyalty.account a SET seq = a.seq WHERE a.account_id = r.referrer_id;
END
$$;
COMMENT ON FUNCTION loyalty.qualify_referral(loyalty.referral, loyalty.purchase) IS 'Lets a purchase of the friend qualify a registered referral, where it can';
REVOKE ALL ON FUNCTION loyalty.qualify_referral(loyalty.referral, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.settle_referrals(sources bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    locked bigint[];
    obstacle text;
    r loyalty.referral;
    p loyalty.purchase;
BEGIN
    -- the award has locked them; a referral that was registered meanwhile waits for the next purchase rather than making this one wait out of order
    locked := ARRAY(SELECT a.account_id FROM loyalty.account a WHERE a.account_id = ANY (ARRAY(
            SELECT unnest(ARRAY[x.friend_id, x.referrer_id]) FROM loyalty.referral x WHERE x.purchase_id = ANY (sources) AND x.state IN ('review', 'rewarded')
            UNION SELECT unnest(ARRAY[x.friend_id, x.referrer_id]) FROM loyalty.purchase q JOIN loyalty.referral x ON x.friend_id = q.member_id AND x.state = 'registered' WHERE q.purchase_id = ANY (sources)))
        ORDER BY a.account_id FOR NO KEY UPDATE SKIP LOCKED);
    FOR r IN SELECT x.* FROM loyalty.referral x WHERE x.purchase_id = ANY (sources) AND x.state IN ('review', 'rewarded') ORDER BY x.referral_id LOOP
        SELECT * INTO p FROM loyalty.purchase q WHERE q.purchase_id = r.purchase_id;
        obstacle := loyalty.still_qualifies(r, p);
        IF obstacle IS NOT NULL THEN
            PERFORM loyalty.void_referral(r, obstacle);
        END IF;
    END LOOP;
    FOR p IN SELECT q.* FROM loyalty.purchase q WHERE q.purchase_id = ANY (sources) AND q.status <> 'void' ORDER BY q.occurred_at, q.purchase_id LOOP
        SELECT * INTO r FROM loyalty.referral x WHERE x.friend_id = p.member_id AND x.state = 'registered' AND ARRAY[x.friend_id, x.referrer_id] <@ locked;
        IF FOUND THEN
            PERFORM loyalty.qualify_referral(r, p);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.settle_referrals(bigint[]) IS 'Takes back what purchases had brought and bring no more; then lets those of friends qualify, in order of time';
REVOKE ALL ON FUNCTION loyalty.settle_referrals(bigint[]) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Review, merging
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.lock_referral(referral_id bigint) RETURNS loyalty.referral
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    r loyalty.referral;
BEGIN
    SELECT * INTO r FROM loyalty.referral x WHERE x.referral_id = referral_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'referral % does not exist', referral_id USING ERRCODE = 'LY765', HINT = 'The view loyalty.referral_review has those that wait.';
    END IF;
    -- purchases before accounts, as a return does
    PERFORM FROM loyalty.purchase p WHERE p.purchase_id = r.purchase_id FOR NO KEY UPDATE;
    PERFORM loyalty.lock_people(ARRAY[r.friend_id, r.referrer_id]);
    SELECT * INTO r FROM loyalty.referral x WHERE x.referral_id = referral_id FOR NO KEY UPDATE;
    RETURN r;
END
$$;
COMMENT ON FUNCTION loyalty.lock_referral(bigint) IS 'A referral, with its purchase and accounts locked, or LY765';
REVOKE ALL ON FUNCTION loyalty.lock_referral(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.approve_referral(referral_id bigint, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r loyalty.referral := loyalty.lock_referral(referral_id);
BEGIN
    IF r.state = 'rewarded' THEN
        RETURN;
    ELSIF r.state <> 'review' THEN
        RAISE EXCEPTION 'referral % does not wait for review', r.referral_id USING ERRCODE = 'LY766', DETAIL = format('It is %s.', r.state || coalesce(': ' || r.reason, ''));
    END IF;
    IF EXISTS (SELECT FROM loyalty.account a WHERE a.account_id IN (r.friend_id, r.referrer_id) AND a.closed) THEN
        RAISE EXCEPTION 'referral % cannot be rewarded', r.referral_id USING ERRCODE = 'LY766', DETAIL = 'One of the two is closed.', HINT = 'Refuse it with loyalty.refuse_referral.';
    END IF;
    PERFORM loyalty.refuse_own(r.program_id, x, NULL) FROM unnest(ARRAY[r.friend_id, r.referrer_id]) x;
    PERFORM loyalty.reward_referral(r, coalesce(reason, 'approved'));
END
$$;
COMMENT ON FUNCTION loyalty.approve_referral(bigint, text) IS 'Rewards a referral that waits for review. Again does nothing';
REVOKE ALL ON FUNCTION loyalty.approve_referral(bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.refuse_referral(referral_id bigint, reason text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r loyalty.referral;
BEGIN
    IF reason IS NULL OR btrim(reason) = '' THEN
        RAISE EXCEPTION 'refusing a referral needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for the members and the auditor.';
    END IF;
    r := loyalty.lock_referral(referral_id);
    IF r.state <> 'void' THEN
        PERFORM loyalty.void_referral(r, reason);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.refuse_referral(bigint, text) IS 'Makes a referral void, whatever its state, and takes back what it gave. Again does nothing';
REVOKE ALL ON FUNCTION loyalty.refuse_referral(bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.referrers_of(from_member bigint, to_member bigint) RETURNS bigint[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT ARRAY(SELECT r.referrer_id FROM loyalty.referral r WHERE r.friend_id IN (from_member, to_member) AND r.state <> 'void') $$;
COMMENT ON FUNCTION loyalty.referrers_of(bigint, bigint) IS 'Who referred two members that are to be one: their points may have to be taken back';
REVOKE ALL ON FUNCTION loyalty.referrers_of(bigint, bigint) FROM PUBLIC;

CREATE TABLE loyalty.referral_merge (
    program_id  integer PRIMARY KEY,
    merges      bigint NOT NULL
);
COMMENT ON TABLE loyalty.referral_merge IS 'Merges of members in a programme with referrals. They are made one after the other: of two at once neither would see the circle that both close';

CREATE FUNCTION loyalty.lock_referral_merges(member_id bigint) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    -- a row that is written, not an advisory lock: a merge with an older snapshot raises 40001
    INSERT INTO loyalty.referral_merge AS q (program_id, merges)
        SELECT m.program_id, 1 FROM loyalty.member m
        WHERE m.member_id = lock_referral_merges.member_id AND EXISTS (SELECT FROM loyalty.referral_policy p WHERE p.program_id = m.program_id)
        ON CONFLICT ON CONSTRAINT referral_merge_pkey DO UPDATE SET merges = q.merges + 1
$$;
COMMENT ON FUNCTION loyalty.lock_referral_merges(bigint) IS 'Makes merges of members of a programme with referrals wait for each other';
REVOKE ALL ON FUNCTION loyalty.lock_referral_merges(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.merge_referrals(from_member bigint, to_member bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r loyalty.referral;
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.referral_policy) THEN
        RETURN;
    END IF;
    -- one person: referred by itself, or twice
    FOR r IN SELECT x.* FROM loyalty.referral x WHERE x.state <> 'void' AND (x.friend_id, x.referrer_id) IN ((from_member, to_member), (to_member, from_member)) ORDER BY 1 LOOP
        PERFORM loyalty.void_referral(r, 'friend is the referrer');
    END LOOP;
    FOR r IN SELECT x.* FROM loyalty.referral x WHERE x.state <> 'void' AND x.friend_id = from_member
             AND EXISTS (SELECT FROM loyalty.referral y WHERE y.friend_id = to_member) LOOP
        PERFORM loyalty.void_referral(r, 'friend was referred before');
    END LOOP;
    UPDATE loyalty.referral x SET friend_id = to_member WHERE x.friend_id = from_member AND NOT EXISTS (SELECT FROM loyalty.referral y WHERE y.friend_id = to_member);
    UPDATE loyalty.referral x SET referrer_id = to_member,
            key = CASE WHEN NOT EXISTS (SELECT FROM loyalty.referral y WHERE y.referrer_id = to_member AND y.key = x.key) THEN x.key END
        WHERE x.referrer_id = from_member;
    FOR r IN SELECT x.* FROM loyalty.referral x WHERE x.state <> 'void' AND x.friend_id = to_member AND to_member IN (SELECT loyalty.referrers_above(x.referrer_id)) LOOP
        PERFORM loyalty.void_referral(r, 'referrals go in a circle');
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.merge_referrals(bigint, bigint) IS 'Makes referrals of merged members those of one: what they would not have been given as one is taken back';
REVOKE ALL ON FUNCTION loyalty.merge_referrals(bigint, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.referrals(member_id bigint)
    RETURNS TABLE (referral_id bigint, side text, state text, reason text, key text, invited_at timestamptz, registered_at timestamptz, qualified_at timestamptz, points bigint, available_from date)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    m loyalty.member := loyalty.require_member(referrals.member_id);
BEGIN
    RETURN QUERY
    SELECT r.referral_id, s.side, r.state, r.reason, CASE WHEN s.side = 'referrer' THEN r.key END, r.invited_at, r.registered_at, r.qualified_at, coalesce(x.points, 0)::bigint, x.available_from
    FROM loyalty.referral r
         CROSS JOIN LATERAL (SELECT CASE WHEN r.referrer_id = m.member_id THEN 'referrer' ELSE 'friend' END AS side) s
         LEFT JOIN LATERAL (SELECT sum(e.points) AS points, max(l.available_from) FILTER (WHERE r.state = 'rewarded' AND isfinite(l.available_from)) AS available_from
                            FROM loyalty.entry e LEFT JOIN LATERAL (SELECT u.available_from FROM loyalty.unnest(e.lots) u ORDER BY u.points DESC LIMIT 1) l ON true
                            WHERE e.source_id = r.referral_id AND (e.account_id = m.member_id OR e.account_id = loyalty.account_of(m.member_id))
                                AND coalesce(e.detail ->> 'side', s.side) = s.side) x ON true
    WHERE m.member_id IN (r.referrer_id, r.friend_id)
    ORDER BY r.invited_at, r.referral_id;
END
$$;
COMMENT ON FUNCTION loyalty.referrals(bigint) IS 'The referrals of a member, as the one who refers and the one who was referred, with the points it has from them; not who the other is';
REVOKE ALL ON FUNCTION loyalty.referrals(bigint) FROM PUBLIC;

CREATE VIEW loyalty.referral_review AS
    SELECT r.referral_id, r.program_id, r.referrer_id, r.friend_id, r.purchase_id, r.qualified_at, r.reason, c.changed_at AS waiting_since, now() - c.changed_at AS age
    FROM loyalty.referral r
         CROSS JOIN LATERAL (SELECT x.changed_at FROM loyalty.referral_change x WHERE x.referral_id = r.referral_id ORDER BY x.number DESC LIMIT 1) c
    WHERE r.state = 'review';
COMMENT ON VIEW loyalty.referral_review IS 'Referrals that wait for approve_referral or refuse_referral';

CREATE VIEW loyalty.referral_funnel AS
    SELECT r.program_id, date_trunc('month', r.invited_at AT TIME ZONE g.time_zone)::date AS month, count(*) AS invited, count(r.registered_at) AS registered, count(r.qualified_at) AS qualified,
           count(*) FILTER (WHERE r.state = 'review') AS in_review, count(*) FILTER (WHERE r.state = 'rewarded') AS rewarded, count(*) FILTER (WHERE r.state = 'void') AS void,
           coalesce(sum(e.points), 0)::bigint AS points, round(count(*) FILTER (WHERE r.state = 'rewarded')::numeric / count(*), 4) AS conversion
    FROM loyalty.referral r JOIN loyalty.program g USING (program_id)
         LEFT JOIN LATERAL (SELECT sum(n.points) AS points FROM loyalty.entry n WHERE n.source_id = r.referral_id) e ON true
    GROUP BY 1, 2;
COMMENT ON VIEW loyalty.referral_funnel IS 'How far the referrals of each month came: those that began in it, how many of them were registered, qualified and rewarded so far, the points given to both sides less what was taken back, and the share that was rewarded';

CREATE VIEW loyalty.referral_tree AS
    WITH RECURSIVE edge AS (SELECT r.program_id, r.referrer_id, r.friend_id, r.state FROM loyalty.referral r WHERE r.friend_id IS NOT NULL AND r.state <> 'void'),
    tree AS (
        SELECT DISTINCT e.program_id, e.referrer_id AS member_id, NULL::bigint AS referrer_id, NULL::text AS state, 0 AS depth, e.referrer_id AS root
        FROM edge e WHERE NOT EXISTS (SELECT FROM edge x WHERE x.friend_id = e.referrer_id)
        UNION ALL
        SELECT e.program_id, e.friend_id, e.referrer_id, e.state, t.depth + 1, t.root FROM tree t JOIN edge e ON e.referrer_id = t.member_id)
    SELECT * FROM tree;
COMMENT ON VIEW loyalty.referral_tree IS 'Who brought whom, from those whom nobody brought (depth 0) down; without what is void';

CREATE FUNCTION loyalty.check_referrals() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH given AS MATERIALIZED (
        SELECT e.source_id AS referral_id, sum(e.points) AS points, coalesce(sum(e.points) FILTER (WHERE e.detail ->> 'side' = 'friend'), 0) AS to_friend,
               coalesce(sum(e.points) FILTER (WHERE e.detail ->> 'side' = 'referrer'), 0) AS to_referrer, count(*) AS entries,
               count(*) FILTER (WHERE e.detail ? 'side') AS sides
        FROM loyalty.entry e WHERE e.kind = 'referral' GROUP BY 1)
    SELECT 'a friend is referred once', coalesce(a.merged_into, a.account_id), format('%s referrals', count(*))
        FROM loyalty.referral r JOIN loyalty.account a ON a.account_id = r.friend_id WHERE r.state <> 'void'
        GROUP BY coalesce(a.merged_into, a.account_id) HAVING count(*) > 1
    UNION ALL
    SELECT 'referrals do not go in a circle', r.friend_id, format('referral %s', r.referral_id)
        FROM loyalty.referral r WHERE r.state <> 'void' AND r.friend_id IN (SELECT loyalty.referrers_above(r.friend_id))
    UNION ALL
    SELECT 'a rewarded referral gave both sides once what was promised', r.friend_id, format('referral %s: %s and %s', r.referral_id, g.to_friend, g.to_referrer)
        FROM loyalty.referral r JOIN loyalty.referral_policy p USING (policy_id) LEFT JOIN given g USING (referral_id)
        WHERE r.state = 'rewarded' AND (coalesce(g.to_friend, 0), coalesce(g.to_referrer, 0), g.points, g.entries) IS DISTINCT FROM
            (p.friend_points, p.referrer_points, (p.friend_points + p.referrer_points)::numeric, (p.friend_points > 0)::integer + (p.referrer_points > 0)::integer::bigint)
    UNION ALL
    SELECT 'what is not rewarded gave nothing, or took it back', r.friend_id, format('referral %s: %s points', r.referral_id, g.points)
        FROM loyalty.referral r JOIN given g USING (referral_id) JOIN loyalty.program p USING (program_id)
        WHERE r.state <> 'rewarded' AND (r.state <> 'void' OR g.points < 0 OR g.sides > 2 OR (g.points > 0 AND p.negative = 'allow' AND p.negative_limit IS NULL
                AND NOT EXISTS (SELECT FROM loyalty.tier t WHERE t.program_id = p.program_id AND t.negative_limit IS NOT NULL)))
    UNION ALL
    SELECT 'entries of referrals have their referral', e.account_id, format('entry %s', e.seq)
        FROM loyalty.entry e WHERE e.kind = 'referral' AND NOT EXISTS (SELECT FROM loyalty.referral r WHERE r.referral_id = e.source_id)
    UNION ALL
    SELECT 'a referral is in the state of its last change', r.referrer_id, format('referral %s: %s, history %s', r.referral_id, r.state, c.state)
        FROM loyalty.referral r LEFT JOIN LATERAL (SELECT x.state FROM loyalty.referral_change x WHERE x.referral_id = r.referral_id ORDER BY x.number DESC LIMIT 1) c ON true
        WHERE r.state IS DISTINCT FROM c.state
    UNION ALL
    SELECT 'a referral stands on a purchase that qualifies', r.friend_id, format('referral %s, purchase %s', r.referral_id, r.purchase_id)
        FROM loyalty.referral r JOIN loyalty.program g USING (program_id) LEFT JOIN loyalty.purchase p USING (purchase_id)
        -- rates of exchange may have changed since
        WHERE r.state IN ('review', 'rewarded') AND (p.purchase_id IS NULL OR (coalesce(p.currency, g.currency) = g.currency AND loyalty.still_qualifies(r, p) IS NOT NULL))
    UNION ALL
    SELECT 'referrals are among members of their programme', r.friend_id, format('referral %s', r.referral_id)
        FROM loyalty.referral r LEFT JOIN loyalty.member a ON a.member_id = r.referrer_id LEFT JOIN loyalty.member f ON f.member_id = r.friend_id
        WHERE a.program_id IS DISTINCT FROM r.program_id OR (r.friend_id IS NOT NULL AND f.program_id IS DISTINCT FROM r.program_id)
$$;
COMMENT ON FUNCTION loyalty.check_referrals() IS 'Invariants of referrals; a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_referrals() FROM PUBLIC;
