/*
 * setup: making programmes, tiers, rules and members.
 */

CREATE FUNCTION loyalty.explain_check(relation regclass, name text, given jsonb) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s; expected %s.',
                  (SELECT string_agg(format('%s is %s', a.attname, coalesce((given -> a.attname)::text, 'NULL')), ', ' ORDER BY a.attnum)
                   FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) AND given ? a.attname::text),
                  CASE WHEN e.text ~ E'^\\(\\w+ = ANY \\(ARRAY\\[[^\\]]*\\]\\)\\)$'
                       THEN 'one of ' || (SELECT string_agg(m[1], ', ') FROM regexp_matches(e.text, '''([^'']*)''::text', 'g') m)
                       ELSE regexp_replace(regexp_replace(e.text, E'::(text|numeric|bigint)(\\[\\])?', '', 'g'), E'\\s+', ' ', 'g') END)
        FROM pg_constraint c, pg_get_expr(c.conbin, c.conrelid) AS e (text)
        WHERE c.conrelid = relation AND c.conname = name AND c.contype = 'c'
$$;
COMMENT ON FUNCTION loyalty.explain_check(regclass, text, jsonb) IS 'What was given, and what a check of a table expected instead; NULL where it has no such check';
REVOKE ALL ON FUNCTION loyalty.explain_check(regclass, text, jsonb) FROM PUBLIC;

CREATE FUNCTION loyalty.create_program(
        name text,
        time_zone text DEFAULT 'UTC',
        currency text DEFAULT 'EUR',
        points_name text DEFAULT 'points',
        points_scale integer DEFAULT 0,
        point_value numeric DEFAULT NULL,
        hold_days integer DEFAULT 0,
        expiry text DEFAULT 'after',
        expiry_months integer DEFAULT 12,
        expiry_days integer DEFAULT 0,
        expiry_round text DEFAULT 'month',
        expiry_fixed_day text DEFAULT NULL,
        rounding text DEFAULT 'floor',
        multipliers text DEFAULT 'product',
        negative text DEFAULT 'allow',
        negative_limit bigint DEFAULT NULL,
        tier_window text DEFAULT 'calendar',
        tier_months integer DEFAULT 12,
        downgrade text DEFAULT 'one_step',
        grace_days integer DEFAULT 0,
        revoke_days integer DEFAULT 30,
        on_rule_error text DEFAULT 'fail',
        restore text DEFAULT 'grace',
        restore_days integer DEFAULT 30,
        reinstate_days integer DEFAULT 0,
        pending text DEFAULT 'days',
        redeem_min bigint DEFAULT 1,
        redeem_step bigint DEFAULT 1,
        redeem_max bigint DEFAULT NULL,
        redeem_max_share numeric DEFAULT 1,
        redeem_line_max numeric DEFAULT NULL,
        transfer_max bigint DEFAULT NULL,
        household_max integer DEFAULT NULL,
        proof_above bigint DEFAULT NULL,
        cashier_points_max bigint DEFAULT NULL,
        cashier_redemptions_max integer DEFAULT NULL,
        earn_on_tax boolean DEFAULT false,
        earn_on_shipping boolean DEFAULT false,
        earn_on_gift_card boolean DEFAULT false,
        earn_on_points boolean DEFAULT false) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    detail text;
    broken text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = time_zone) THEN
        RAISE EXCEPTION 'time zone "%" is not known', time_zone
            USING ERRCODE = 'LY001', HINT = 'pg_timezone_names lists them; Europe/London is one.';
    END IF;
    INSERT INTO loyalty.program (name, time_zone, currency, points_name, points_scale, point_value,
            hold_days, expiry, expiry_months, expiry_days, expiry_round, expiry_fixed_day, rounding,
            multipliers, negative, negative_limit, tier_window, tier_months, downgrade, grace_days,
            revoke_days, on_rule_error, restore, restore_days, reinstate_days, pending, redeem_min, redeem_step, redeem_max,
            redeem_max_share, redeem_line_max, transfer_max, household_max, proof_above, cashier_points_max, cashier_redemptions_max, earn_on_tax, earn_on_shipping, earn_on_gift_card, earn_on_points)
        VALUES (name, time_zone, currency, points_name, points_scale, point_value,
            hold_days, expiry, expiry_months, expiry_days, expiry_round, expiry_fixed_day, rounding,
            multipliers, negative, negative_limit, tier_window, tier_months, downgrade, grace_days,
            revoke_days, on_rule_error, restore, restore_days, reinstate_days, pending, redeem_min, redeem_step, redeem_max,
            redeem_max_share, redeem_line_max, transfer_max, household_max, proof_above, cashier_points_max, cashier_redemptions_max, earn_on_tax, earn_on_shipping, earn_on_gift_card, earn_on_points)
        RETURNING program_id INTO id;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.program', broken, jsonb_build_object(
            'name', name, 'time_zone', time_zone, 'currency', currency, 'points_name', points_name, 'points_scale', points_scale, 'point_value', point_value,
            'hold_days', hold_days, 'expiry', expiry, 'expiry_months', expiry_months, 'expiry_days', expiry_days, 'expiry_round', expiry_round,
            'expiry_fixed_day', expiry_fixed_day, 'rounding', rounding, 'multipliers', multipliers, 'negative', negative, 'negative_limit', negative_limit,
            'tier_window', tier_window, 'tier_months', tier_months, 'downgrade', downgrade, 'grace_days', grace_days, 'revoke_days', revoke_days,
            'on_rule_error', on_rule_error, 'restore', restore, 'restore_days', restore_days, 'reinstate_days', reinstate_days, 'pending', pending,
            'redeem_min', redeem_min, 'redeem_step', redeem_step, 'redeem_max', redeem_max, 'redeem_max_share', redeem_max_share, 'redeem_line_max', redeem_line_max,
            'transfer_max', transfer_max, 'household_max', household_max, 'proof_above', proof_above, 'cashier_points_max', cashier_points_max,
            'cashier_redemptions_max', cashier_redemptions_max)), detail);
    RAISE EXCEPTION 'programme "%" is not valid', name
        USING ERRCODE = 'LY001', DETAIL = detail,
              HINT = 'The comments on loyalty.program say what each policy may be.';
END
$$;
COMMENT ON FUNCTION loyalty.create_program IS 'Makes a programme; returns its id. Every policy has a default and is passed by name';
REVOKE ALL ON FUNCTION loyalty.create_program FROM PUBLIC;

CREATE FUNCTION loyalty.keep_program() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'programmes and tiers are kept for as long as the ledger' USING ERRCODE = 'LY004', HINT = 'Retire its rules to end a programme.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = NEW.time_zone) THEN
        RAISE EXCEPTION 'time zone "%" is not known', NEW.time_zone
            USING ERRCODE = 'LY001', HINT = 'pg_timezone_names lists them; Europe/London is one.';
    END IF;
    IF (NEW.program_id, NEW.currency, NEW.points_scale, NEW.wallet_of) IS DISTINCT FROM (OLD.program_id, OLD.currency, OLD.points_scale, OLD.wallet_of)
       AND EXISTS (SELECT FROM loyalty.account a WHERE a.program_id = OLD.program_id) THEN
        RAISE EXCEPTION 'the currency and the scale of programme "%" stay', OLD.name
            USING ERRCODE = 'LY004', DETAIL = 'They give what stands in the ledger its meaning.';
    END IF;
    IF NEW.time_zone <> OLD.time_zone AND EXISTS (SELECT FROM loyalty.account a WHERE a.program_id = OLD.program_id AND a.seq > 0) THEN
        RAISE EXCEPTION 'the time zone of programme "%" stays', OLD.name
            USING ERRCODE = 'LY004', DETAIL = 'It decided on which day each transaction in the ledger falls.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION loyalty.keep_program() IS 'Refuses to delete programmes and tiers, and to change what gives the ledger its meaning';
REVOKE ALL ON FUNCTION loyalty.keep_program() FROM PUBLIC;
CREATE TRIGGER keep_program BEFORE UPDATE ON loyalty.program
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_program();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.program
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_program();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.tier
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_program();

CREATE FUNCTION loyalty.change_program(program_id integer, policies jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    known text[] := ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = 'loyalty.program'::regclass AND a.attnum > 0 AND NOT a.attisdropped
                          AND a.attname NOT IN ('program_id', 'wallet_of', 'wallet', 'created_at'));
    stray text;
    detail text;
    broken text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    SELECT k INTO stray FROM jsonb_object_keys(policies) k WHERE k <> ALL (known) LIMIT 1;
    IF stray IS NOT NULL OR policies IS NULL THEN
        RAISE EXCEPTION 'a programme has no policy "%"', stray USING ERRCODE = 'LY001', HINT = 'Policies are ' || array_to_string(known, ', ') || '.';
    END IF;
    EXECUTE format('UPDATE loyalty.program p SET (%1$s) = (SELECT %1$s FROM jsonb_populate_record(p, $2)) WHERE p.program_id = $1',
                   (SELECT string_agg(quote_ident(k), ', ') FROM unnest(known) k)) USING program_id, policies;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR data_exception THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.program', broken,
        (SELECT to_jsonb(p) || policies FROM loyalty.program p WHERE p.program_id = program_id)), detail);
    RAISE EXCEPTION 'programme % is not valid like this', program_id
        USING ERRCODE = 'LY001', DETAIL = detail, HINT = 'The comments on loyalty.program say what each policy may be.';
END
$$;
COMMENT ON FUNCTION loyalty.change_program(integer, jsonb) IS 'Changes policies of a programme, for what happens from now on: {"redeem_min": 100, "expiry_months": 24}';
REVOKE ALL ON FUNCTION loyalty.change_program(integer, jsonb) FROM PUBLIC;

CREATE FUNCTION loyalty.wallet_account(wallet_id integer, member_id bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT 5000000000000000 + wallet_id::bigint * 100000000000 + member_id $$;
COMMENT ON FUNCTION loyalty.wallet_account(integer, bigint) IS 'The number of the account that a member has in a wallet';
REVOKE ALL ON FUNCTION loyalty.wallet_account(integer, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.require_program(program_id integer) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.program p WHERE p.program_id = require_program.program_id) THEN
        RAISE EXCEPTION 'programme % does not exist', program_id
            USING ERRCODE = 'LY002', HINT = 'loyalty.create_program makes one.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.require_program(integer) IS 'Raises LY002 where a programme does not exist';
REVOKE ALL ON FUNCTION loyalty.require_program(integer) FROM PUBLIC;

CREATE FUNCTION loyalty.check_articles() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- a restore may bring the articles before the first programme
    IF EXISTS (SELECT FROM loyalty.program) THEN
        PERFORM loyalty.require_program(n.program_id) FROM (SELECT DISTINCT q.program_id FROM new_rows q) n;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION loyalty.check_articles() IS 'Refuses articles of a programme that does not exist';
REVOKE ALL ON FUNCTION loyalty.check_articles() FROM PUBLIC;
CREATE TRIGGER check_articles AFTER INSERT ON loyalty.product
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.check_articles();
CREATE TRIGGER check_articles_change AFTER UPDATE ON loyalty.product
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.check_articles();

CREATE FUNCTION loyalty.add_tier(program_id integer, name text, threshold numeric,
        metric text DEFAULT 'points', multiplier numeric DEFAULT 1, rank integer DEFAULT NULL,
        negative_limit bigint DEFAULT NULL, reinstate_days integer DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    new_rank integer := rank;
    detail text;
    broken text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    PERFORM FROM loyalty.program p WHERE p.program_id = program_id FOR UPDATE;
    IF new_rank IS NULL THEN
        SELECT coalesce(max(t.rank), 0) + 1 INTO new_rank FROM loyalty.tier t WHERE t.program_id = program_id;
    END IF;
    IF EXISTS (SELECT FROM loyalty.tier t WHERE t.program_id = program_id AND t.metric = metric
               AND ((t.rank < new_rank AND t.threshold >= threshold) OR (t.rank > new_rank AND t.threshold <= threshold))) THEN
        RAISE EXCEPTION 'tier "%" would stand out of order', name
            USING ERRCODE = 'LY003',
                  DETAIL = format('A threshold of %s %s at rank %s is not between those of its neighbours.', threshold, metric, new_rank),
                  HINT = 'Add tiers from the lowest to the highest, or give a rank.';
    END IF;
    INSERT INTO loyalty.tier (program_id, name, threshold, metric, multiplier, rank, negative_limit, reinstate_days)
        VALUES (program_id, name, threshold, metric, multiplier, new_rank, negative_limit, reinstate_days) RETURNING tier_id INTO id;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.tier', broken, jsonb_build_object(
            'name', name, 'threshold', threshold, 'metric', metric, 'multiplier', multiplier, 'rank', new_rank, 'negative_limit', negative_limit,
            'reinstate_days', reinstate_days)), detail);
    RAISE EXCEPTION 'tier "%" is not valid', name
        USING ERRCODE = 'LY003', DETAIL = detail, HINT = 'The metric is points, spend or visits; name and rank are unique in the programme.';
END
$$;
COMMENT ON FUNCTION loyalty.add_tier IS 'Adds a tier; its threshold is in whole points, money or visits, as metric says. Members reach it with their next purchase';
REVOKE ALL ON FUNCTION loyalty.add_tier FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Rules
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.keep_version() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.retired_at IS NULL AND NEW.retired_at IS NOT NULL
       AND (to_jsonb(NEW) - '{retired_from,retired_at,reason}'::text[]) = (to_jsonb(OLD) - '{retired_from,retired_at,reason}'::text[]) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'rule versions are immutable'
        USING ERRCODE = 'LY901', DETAIL = 'An award pins the versions that made it.',
              HINT = 'Use loyalty.replace_rule or loyalty.retire_rule.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_version() IS 'Lets a rule version be retired once, and nothing else';
REVOKE ALL ON FUNCTION loyalty.keep_version() FROM PUBLIC;
CREATE TRIGGER keep_version BEFORE UPDATE OR DELETE ON loyalty.rule_version
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_version();

CREATE FUNCTION loyalty.add_rule(program_id integer, name text, event text, kind text, points text,
        condition text DEFAULT NULL, priority integer DEFAULT 100, exclusive_group text DEFAULT NULL,
        active_from timestamptz DEFAULT '-infinity', active_until timestamptz DEFAULT 'infinity',
        description text DEFAULT NULL, caps jsonb DEFAULT NULL, budget numeric DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    detail text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    caps := loyalty.check_caps(name, caps, (SELECT p.points_scale FROM loyalty.program p WHERE p.program_id = program_id));
    PERFORM loyalty.check_rule(name, event, kind, points, condition);
    INSERT INTO loyalty.rule (program_id, name) VALUES (program_id, name) RETURNING rule_id INTO id;
    INSERT INTO loyalty.rule_version (rule_id, version, event, kind, points, condition, priority,
            exclusive_group, active_from, active_until, description, created_at, caps)
        VALUES (id, 1, event, kind, points, condition, priority, exclusive_group, active_from,
            active_until, description, now(), caps);
    IF budget IS NOT NULL THEN
        PERFORM loyalty.set_budget(program_id, name, budget);
    END IF;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT;
    RAISE EXCEPTION 'rule "%" is not valid', name
        USING ERRCODE = 'LY201', DETAIL = detail,
              HINT = 'A name is unique in the programme (loyalty.replace_rule makes a new version), and active_from is before active_until.';
END
$$;
COMMENT ON FUNCTION loyalty.add_rule IS 'Adds a rule: event purchase, line or activity; kind base, multiply or bonus; points and condition are SQL over the rows member, purchase, line, product, activity; caps are the most points a member is given by it per day, week, month, year or ever, and budget the most that all are. Refused here where it is wrong';
REVOKE ALL ON FUNCTION loyalty.add_rule FROM PUBLIC;

CREATE FUNCTION loyalty.retire_rule(program_id integer, name text, from_at timestamptz DEFAULT now(), reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF from_at IS NULL THEN
        RAISE EXCEPTION 'rule "%" needs an instant to be retired from', name USING ERRCODE = 'LY201';
    END IF;
    UPDATE loyalty.rule_version v SET retired_from = from_at, retired_at = now(), reason = reason
        FROM loyalty.rule r
        WHERE r.rule_id = v.rule_id AND r.program_id = program_id AND r.name = name AND v.retired_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'programme % has no active rule "%"', program_id, name
            USING ERRCODE = 'LY205', HINT = 'loyalty.rule_current lists the rules.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.retire_rule IS 'Ends a rule for events from an instant on; what it gave stays';
REVOKE ALL ON FUNCTION loyalty.retire_rule FROM PUBLIC;

CREATE FUNCTION loyalty.replace_rule(program_id integer, name text, points text DEFAULT NULL,
        condition text DEFAULT NULL, event text DEFAULT NULL, kind text DEFAULT NULL,
        priority integer DEFAULT NULL, exclusive_group text DEFAULT NULL,
        from_at timestamptz DEFAULT now(), active_until timestamptz DEFAULT NULL,
        description text DEFAULT NULL, caps jsonb DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    old loyalty.rule_version;
    taken timestamptz;
    new_until timestamptz;
BEGIN
    SELECT v.* INTO old FROM loyalty.rule_version v JOIN loyalty.rule r USING (rule_id)
        WHERE r.program_id = program_id AND r.name = name ORDER BY v.version DESC LIMIT 1 FOR UPDATE OF r;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'programme % has no rule "%"', program_id, name
            USING ERRCODE = 'LY205', HINT = 'loyalty.add_rule makes one.';
    END IF;
    -- a retirement is never moved, so an earlier start would let two versions fire on one event
    SELECT max(v.retired_from) INTO taken FROM loyalty.rule_version v
        WHERE v.rule_id = old.rule_id AND v.retired_from > v.active_from AND v.active_until > from_at;
    new_until := coalesce(active_until, old.active_until);
    IF from_at IS NULL OR taken > from_at OR from_at >= new_until THEN
        RAISE EXCEPTION 'a new version of rule "%" cannot start at %', name, coalesce(from_at::text, 'NULL')
            USING ERRCODE = 'LY201',
                  DETAIL = CASE WHEN taken > from_at THEN format('An earlier version applies until %s.', taken)
                                ELSE format('It would end at %s.', new_until) END,
                  HINT = 'Give from_at where the earlier version ends or later, and an active_until behind it.';
    END IF;
    PERFORM loyalty.check_rule(name, coalesce(event, old.event), coalesce(kind, old.kind),
                               coalesce(points, old.points), coalesce(condition, old.condition));
    caps := loyalty.check_caps(name, coalesce(caps, old.caps), (SELECT p.points_scale FROM loyalty.program p WHERE p.program_id = program_id));
    UPDATE loyalty.rule_version v SET retired_from = from_at, retired_at = now()
        WHERE v.rule_version_id = old.rule_version_id AND v.retired_at IS NULL;
    INSERT INTO loyalty.rule_version (rule_id, version, event, kind, points, condition, priority,
            exclusive_group, active_from, active_until, description, created_at, caps)
        VALUES (old.rule_id, old.version + 1, coalesce(event, old.event), coalesce(kind, old.kind),
            coalesce(points, old.points), coalesce(condition, old.condition),
            coalesce(priority, old.priority), coalesce(exclusive_group, old.exclusive_group), from_at,
            new_until, coalesce(description, old.description), now(), caps);
    RETURN old.version + 1;
END
$$;
COMMENT ON FUNCTION loyalty.replace_rule IS 'Makes a new version of a rule for events from an instant on; NULL keeps what the last version says, caps => ''{}'' takes the caps away; the budget is the rule''s and stays (set_budget)';
REVOKE ALL ON FUNCTION loyalty.replace_rule FROM PUBLIC;

CREATE VIEW loyalty.rule_current AS
    SELECT r.program_id, r.name, v.version, v.event, v.kind, v.points, v.condition, v.priority,
           v.exclusive_group, v.active_from, least(v.active_until, v.retired_from) AS active_until, v.description, v.rule_version_id,
           v.caps, (SELECT b.budget FROM loyalty.rule_budget b WHERE b.rule_id = r.rule_id) AS budget
    FROM loyalty.rule r JOIN loyalty.rule_version v USING (rule_id)
    WHERE v.retired_at IS NULL OR v.retired_from > now();
COMMENT ON VIEW loyalty.rule_current IS 'Rule versions that still fire or will; active_until takes a retirement to come into account';

CREATE FUNCTION loyalty.describe_condition(condition text, currency text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part text;
    m text[];
    days text[];
    said text[] := '{}';
    parts text[] := regexp_split_to_array(condition, E'\\s+and\\s+', 'i');
BEGIN
    IF condition IS NULL THEN RETURN ''; END IF;
    -- words inside a literal are no operators; a literal that the split cut has an odd number of quotes
    IF regexp_replace(condition, '''[^'']*''', '', 'g') ~* E'\\mor\\M|\\mnot\\M|\\mcase\\M|\\mbetween\\M'
       OR EXISTS (SELECT FROM unnest(parts) x WHERE mod(length(x) - length(replace(x, '''', '')), 2) = 1) THEN
        RETURN ' when ' || condition;
    END IF;
    FOREACH part IN ARRAY parts LOOP
        part := btrim(part);
        m := regexp_match(part, E'^(?:product|line|purchase|member)\\.(category|brand|sku|store|channel|tier)\\s*=\\s*''([^'']*)''$');
        IF m IS NOT NULL THEN
            said := said || CASE m[1]
                WHEN 'category' THEN 'on articles of category ' || m[2]
                WHEN 'brand' THEN 'on articles of brand ' || m[2]
                WHEN 'sku' THEN 'on article ' || m[2]
                WHEN 'store' THEN 'in store ' || m[2]
                WHEN 'channel' THEN 'through channel ' || m[2]
                ELSE 'for members of tier ' || m[2] END;
            CONTINUE;
        END IF;
        m := regexp_match(part, E'^purchase\\.(amount|total)\\s*(>=|>)\\s*([0-9.]+)$');
        IF m IS NOT NULL THEN
            said := said || format('when %s %s %s are spent', CASE m[2] WHEN '>' THEN 'more than' ELSE 'at least' END, m[3], currency);
            CONTINUE;
        END IF;
        m := regexp_match(part, E'^purchase\\.(?:amount|total)\\s*(>=|>)\\s*([0-9.]+)\\s*\\*\\s*member\\.average_order$');
        IF m IS NOT NULL THEN
            said := said || format('when the order is %s %s times the member''s average', CASE m[1] WHEN '>' THEN 'over' ELSE 'at least' END, m[2]);
            CONTINUE;
        END IF;
        m := regexp_match(part, E'^purchase\\.number\\s*=\\s*([0-9]+)$');
        IF m IS NOT NULL THEN
            said := said || CASE m[1] WHEN '1' THEN 'on the first purchase' ELSE format('on purchase number %s', m[1]) END;
            CONTINUE;
        END IF;
        m := regexp_match(part, E'^(?:purchase|activity)\\.weekday\\s+in\\s*\\(([1-7, ]+)\\)$', 'i');
        IF m IS NOT NULL THEN
            days := ARRAY(SELECT (ARRAY['Mondays','Tuesdays','Wednesdays','Thursdays','Fridays','Saturdays','Sundays'])[d::int]
                          FROM unnest(string_to_array(replace(m[1], ' ', ''), ',')) d ORDER BY d::int);
            said := said || ('on ' || concat_ws(' and ', nullif(array_to_string(days[:cardinality(days) - 1], ', '), ''), days[cardinality(days)]));
            CONTINUE;
        END IF;
        m := regexp_match(part, E'^activity\\.kind\\s*=\\s*''([^'']*)''$');
        said := said || CASE
            WHEN m IS NOT NULL THEN 'for the activity ' || m[1]
            WHEN part = 'member.is_birthday' THEN 'on the member''s birthday'
            WHEN part = 'product.own_brand' THEN 'on own-brand articles'
            WHEN part = 'member.staff' THEN 'for staff'
            ELSE 'when ' || part END;
    END LOOP;
    RETURN ' ' || array_to_string(said, ' and ');
END
$$;
COMMENT ON FUNCTION loyalty.describe_condition(text, text) IS 'A condition in plain words; what has no words of its own is quoted';
REVOKE ALL ON FUNCTION loyalty.describe_condition(text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.describe(program_id integer, name text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    v record;
    p loyalty.program;
    m text[];
    gives text;
BEGIN
    SELECT * INTO p FROM loyalty.program q WHERE q.program_id = program_id;
    SELECT * INTO v FROM loyalty.rule_current r WHERE r.program_id = program_id AND r.name = name
        ORDER BY r.active_from <= now() AND now() < r.active_until DESC, r.version DESC LIMIT 1;
    IF v IS NULL THEN
        RAISE EXCEPTION 'programme % has no active rule "%"', program_id, name USING ERRCODE = 'LY205';
    END IF;
    m := regexp_match(v.points, E'^(?:purchase|line)\\.amount\\s*\\*\\s*([0-9.]+)$');
    gives := CASE
        WHEN v.kind = 'multiply' AND v.points ~ '^[0-9.]+$' THEN
            CASE v.points WHEN '2' THEN 'Double' WHEN '3' THEN 'Triple' ELSE v.points || ' times the' END || ' ' || p.points_name
        WHEN v.kind = 'multiply' THEN p.points_name || ' times (' || v.points || ')'
        WHEN v.points ~ E'^(purchase|line)\\.amount$' THEN format('1 %s for each %s spent', p.points_name, p.currency)
        WHEN m IS NOT NULL THEN format('%s %s for each %s spent', m[1], p.points_name, p.currency)
        WHEN v.points ~ '^[0-9.]+$' THEN v.points || CASE v.kind WHEN 'bonus' THEN ' extra ' ELSE ' ' END || p.points_name
        ELSE format('%s: %s', p.points_name, v.points) END;
    RETURN gives || loyalty.describe_condition(v.condition, p.currency)
        || CASE WHEN v.active_from > '-infinity' THEN ' from ' || to_char(v.active_from AT TIME ZONE p.time_zone, 'YYYY-MM-DD HH24:MI') ELSE '' END
        || CASE WHEN v.active_until < 'infinity' THEN ' until ' || to_char(v.active_until AT TIME ZONE p.time_zone, 'YYYY-MM-DD HH24:MI') ELSE '' END
        || CASE WHEN v.exclusive_group IS NOT NULL THEN format('; only the best of group %s counts', v.exclusive_group) ELSE '' END
        || loyalty.cap_words(v.caps, v.budget, p.points_name)
        || '.';
END
$$;
COMMENT ON FUNCTION loyalty.describe(integer, text) IS 'A rule as one plain sentence';
REVOKE ALL ON FUNCTION loyalty.describe(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.lint_rules(program_id integer)
    RETURNS TABLE (rule text, severity text, finding text, hint text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH r AS (SELECT c.*, loyalty.rule_constant(c.condition, c.event) AS constant
               FROM loyalty.rule_current c WHERE c.program_id = lint_rules.program_id),
    caps AS (SELECT r.name, r.budget, c.key AS period, (c.value ->> 0)::numeric AS cap, array_position('{day,week,month,year,ever}', c.key) AS n
             FROM r CROSS JOIN LATERAL jsonb_each(r.caps) c),
    named AS (SELECT r.name, m[1] AS column_name, m[2] AS value
              FROM r, regexp_matches(r.condition, E'(?:product|line|member)\\.(category|brand|sku|tier)\\s*=\\s*''([^'']*)''', 'g') m)
    SELECT r.name, 'error', 'It can never fire: its activation ended on ' || r.active_until || '.', 'Retire it, or replace it with a later end.'
        FROM r WHERE r.active_until <= now()
    UNION ALL
    SELECT r.name, 'error', 'It can never fire: its condition is always ' || r.constant || '.', 'Correct the condition.'
        FROM r WHERE r.constant IN ('false', 'null')
    UNION ALL
    SELECT r.name, 'notice', 'Its condition is always true.', 'Leave the condition out.'
        FROM r WHERE r.constant = 'true'
    UNION ALL
    SELECT b.name, 'warning', format('It says the same as rule "%s", so both give their points.', a.name), 'Retire one, or put both into one exclusive group.'
        FROM r a JOIN r b ON a.event = b.event AND a.kind = b.kind AND a.points = b.points
            AND a.condition IS NOT DISTINCT FROM b.condition AND a.rule_version_id < b.rule_version_id
            AND a.active_from < b.active_until AND b.active_from < a.active_until
            AND (a.exclusive_group IS NULL OR a.exclusive_group IS DISTINCT FROM b.exclusive_group)
    UNION ALL
    SELECT CASE WHEN a.points::numeric > b.points::numeric THEN b.name ELSE a.name END, 'warning',
           format('Rule "%s" of its exclusive group fires on the same condition and gives at least as much.', CASE WHEN a.points::numeric > b.points::numeric THEN a.name ELSE b.name END),
           'It can never win: retire it.'
        FROM r a JOIN r b ON a.event = b.event AND a.kind = b.kind AND a.exclusive_group = b.exclusive_group
            AND a.condition IS NOT DISTINCT FROM b.condition AND a.rule_version_id < b.rule_version_id
        WHERE a.points ~ E'^[0-9]+(\\.[0-9]+)?$' AND b.points ~ E'^[0-9]+(\\.[0-9]+)?$'
    UNION ALL
    SELECT r.name, 'warning', 'It multiplies, and no base rule gives anything to multiply.', 'Add a base rule.'
        FROM r WHERE r.kind = 'multiply' AND NOT EXISTS
            (SELECT FROM r b WHERE b.kind = 'base' AND (b.event = 'activity') = (r.event = 'activity'))
    UNION ALL
    SELECT r.name, 'warning', 'It multiplies by ' || r.points || '.', 'A factor of 1 does nothing; 0 takes all base points away.'
        FROM r WHERE r.kind = 'multiply' AND r.points ~ E'^(0|1)(\\.0+)?$'
    UNION ALL
    SELECT r.name, 'notice', 'It gives nothing.', 'Its points are 0.'
        FROM r WHERE r.kind <> 'multiply' AND r.points ~ E'^0(\\.0+)?$'
    UNION ALL
    SELECT n.name, 'warning', format('No %s is called "%s".', n.column_name, n.value), 'Correct the name, or add it first.'
        FROM named n
        WHERE CASE n.column_name
            WHEN 'tier' THEN NOT EXISTS (SELECT FROM loyalty.tier t WHERE t.program_id = lint_rules.program_id AND t.name = n.value)
            WHEN 'category' THEN NOT EXISTS (SELECT FROM loyalty.product q WHERE q.program_id = lint_rules.program_id AND q.category = n.value)
            WHEN 'brand' THEN NOT EXISTS (SELECT FROM loyalty.product q WHERE q.program_id = lint_rules.program_id AND q.brand = n.value)
            ELSE NOT EXISTS (SELECT FROM loyalty.product q WHERE q.program_id = lint_rules.program_id AND q.sku = n.value) END
    UNION ALL
    SELECT c.name, 'warning', format('It gives nothing: its cap per %s is 0.', c.period), 'Raise the cap, or retire the rule.'
        FROM caps c WHERE c.cap = 0
    UNION ALL
    SELECT c.name, 'warning', format('Its cap per %s, %s, is above its budget, %s.', c.period, c.cap, c.budget), 'One member may use up the budget.'
        FROM caps c WHERE c.cap > c.budget
    UNION ALL
    SELECT a.name, 'notice', format('Its cap per %s, %s, is never reached: the one per %s is %s.', a.period, a.cap, b.period, b.cap), 'Leave it out, or lower it.'
        FROM caps a JOIN caps b ON b.name = a.name AND b.n > a.n AND b.cap <= a.cap
    UNION ALL
    SELECT r.name, 'warning', 'It gives nothing: its budget is 0.', 'loyalty.set_budget raises it.'
        FROM r WHERE r.budget = 0
    UNION ALL
    SELECT r.name, 'notice', 'It is hard to explain: its condition has ' || length(r.condition) || ' characters.', 'Split it, or describe it in its description.'
        FROM r WHERE length(r.condition) > 300
    ORDER BY 1, 2, 3
$$;
COMMENT ON FUNCTION loyalty.lint_rules(integer) IS 'Rules that can never fire, shadow each other, do nothing or confuse';
REVOKE ALL ON FUNCTION loyalty.lint_rules(integer) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Members
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.accounts_of(member_id bigint, program_id integer) RETURNS TABLE (account_id bigint)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT accounts_of.member_id UNION ALL
    SELECT loyalty.wallet_account(w.program_id, accounts_of.member_id) FROM loyalty.program w
        WHERE w.wallet_of = accounts_of.program_id AND accounts_of.member_id < 100000000000
$$;
COMMENT ON FUNCTION loyalty.accounts_of(bigint, integer) IS 'The numbers of a member''s own account and of its wallets''';
REVOKE ALL ON FUNCTION loyalty.accounts_of(bigint, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.open_accounts() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_RELID <> 'loyalty.member'::regclass THEN
        RAISE EXCEPTION 'table "%" may not open accounts', TG_TABLE_NAME USING ERRCODE = 'LY902';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE loyalty.account a SET closed = n.status = 'closed', frozen = n.status = 'frozen', joined_at = n.joined_at
            FROM (SELECT q.*, x.account_id FROM new_rows q CROSS JOIN LATERAL loyalty.accounts_of(q.member_id, q.program_id) x ORDER BY x.account_id) n
            WHERE a.account_id = n.account_id AND (a.closed, a.frozen, a.joined_at) IS DISTINCT FROM (n.status = 'closed', n.status = 'frozen', n.joined_at);
        RETURN NULL;
    END IF;
    -- no foreign keys: pg_restore loads tables in parallel, in any order
    IF EXISTS (SELECT FROM new_rows n JOIN loyalty.program p USING (program_id) WHERE p.wallet_of IS NOT NULL AND n.created_at = now()) THEN
        RAISE EXCEPTION 'nobody enrolls in a wallet' USING ERRCODE = 'LY304', HINT = 'Members of its programme have it.';
    END IF;
    PERFORM loyalty.require_program(n.program_id) FROM (SELECT DISTINCT q.program_id FROM new_rows q WHERE q.created_at = now()) n;
    INSERT INTO loyalty.account (account_id, program_id, closed, frozen, joined_at)
        SELECT n.member_id, n.program_id, n.status = 'closed', n.status = 'frozen', n.joined_at FROM new_rows n WHERE n.created_at = now() ORDER BY n.member_id
        ON CONFLICT (account_id) DO NOTHING;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION loyalty.open_accounts() IS 'Opens the account of every new member, and keeps what accounts copy of their members';
REVOKE ALL ON FUNCTION loyalty.open_accounts() FROM PUBLIC;
CREATE TRIGGER open_accounts AFTER INSERT ON loyalty.member
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.open_accounts();

CREATE TRIGGER follow_member AFTER UPDATE ON loyalty.member
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.open_accounts();

CREATE FUNCTION loyalty.keep_member() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'members are kept for as long as the ledger'
        USING ERRCODE = 'LY303', HINT = 'Close a member with loyalty.close_member; member_id and program_id never change.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_member() IS 'Refuses to delete or renumber members';
REVOKE ALL ON FUNCTION loyalty.keep_member() FROM PUBLIC;
CREATE TRIGGER keep_member BEFORE DELETE OR TRUNCATE ON loyalty.member
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_member();
CREATE TRIGGER keep_member_key BEFORE UPDATE OF member_id, program_id ON loyalty.member
    FOR EACH ROW WHEN (OLD.member_id <> NEW.member_id OR OLD.program_id <> NEW.program_id)
    EXECUTE FUNCTION loyalty.keep_member();

CREATE FUNCTION loyalty.keep_birthday() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- a restored member brings the time
    IF TG_OP = 'INSERT' THEN
        IF NEW.created_at = now() THEN
            NEW.birthday_since := now();
        END IF;
    ELSIF NEW.birthday IS DISTINCT FROM OLD.birthday THEN
        NEW.birthday_since := now();
    END IF;
    IF NEW.birthday IS NULL THEN
        NEW.birthday_since := NULL;
    END IF;
    IF NEW.time_zone IS NOT NULL THEN
        -- a name, and one that the server knows; looking it up in pg_timezone_names reads hundreds of files
        IF NEW.time_zone !~ '^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$' THEN
            RAISE EXCEPTION 'no name of a time zone' USING ERRCODE = '22023';
        END IF;
        PERFORM now() AT TIME ZONE NEW.time_zone;
    END IF;
    RETURN NEW;
EXCEPTION WHEN invalid_parameter_value THEN
    RAISE EXCEPTION 'time zone "%" is not known', left(NEW.time_zone, 200)
        USING ERRCODE = 'LY304', HINT = 'pg_timezone_names lists them; Europe/London is one.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_birthday() IS 'Notes since when a member''s birthday is known, and refuses (LY304) a time zone that is not';
REVOKE ALL ON FUNCTION loyalty.keep_birthday() FROM PUBLIC;
CREATE TRIGGER keep_birthday BEFORE INSERT ON loyalty.member
    FOR EACH ROW WHEN (NEW.birthday IS NOT NULL OR NEW.time_zone IS NOT NULL OR NEW.birthday_since IS NOT NULL) EXECUTE FUNCTION loyalty.keep_birthday();
CREATE TRIGGER keep_birthday_change BEFORE UPDATE OF birthday, birthday_since, time_zone ON loyalty.member
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_birthday();

CREATE FUNCTION loyalty.enroll(program_id integer, external_id text, joined_at timestamptz DEFAULT now(),
        birthday date DEFAULT NULL, staff boolean DEFAULT false, attributes jsonb DEFAULT NULL, referral_code text DEFAULT NULL, time_zone text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id bigint;
BEGIN
    PERFORM loyalty.require_program(program_id);
    INSERT INTO loyalty.member (program_id, external_id, joined_at, birthday, staff, attributes, time_zone)
        VALUES (program_id, external_id, joined_at, birthday, staff, attributes, time_zone)
        ON CONFLICT ON CONSTRAINT member_program_id_external_id_key DO NOTHING RETURNING member_id INTO id;
    IF id IS NULL THEN
        -- whoever was merged into another member is that one
        SELECT coalesce(a.merged_into, m.member_id) INTO id FROM loyalty.member m JOIN loyalty.account a ON a.account_id = m.member_id
            WHERE m.program_id = program_id AND m.external_id = external_id;
    END IF;
    IF referral_code IS NOT NULL THEN
        PERFORM loyalty.refer(id, referral_code, registered_at => joined_at);
    END IF;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    -- the row itself is not for an error message or a log
    RAISE EXCEPTION 'member is not valid'
        USING ERRCODE = 'LY304', HINT = 'external_id is not empty and has up to 500 bytes, joined_at is finite, a birthday lies between 1850 and 2200.';
END
$$;
COMMENT ON FUNCTION loyalty.enroll IS 'Makes a member, or finds the one with that external id, or the one into which that was merged; registers who referred it; returns member_id';
REVOKE ALL ON FUNCTION loyalty.enroll FROM PUBLIC;

CREATE FUNCTION loyalty.set_member_status(member_id bigint, status text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    -- as an UPDATE of the member locks them
    PERFORM FROM loyalty.member m WHERE m.member_id = member_id FOR NO KEY UPDATE;
    PERFORM FROM loyalty.account a WHERE a.account_id = member_id FOR NO KEY UPDATE;
    IF status IS NULL OR status NOT IN ('active', 'frozen', 'closed') THEN
        RAISE EXCEPTION '"%" is not a status of a member', status USING ERRCODE = 'LY304', HINT = 'A member is active, frozen or closed.';
    END IF;
    IF EXISTS (SELECT FROM loyalty.account a WHERE a.account_id = member_id AND a.merged_into IS NOT NULL) THEN
        RAISE EXCEPTION 'member % was merged into another', member_id USING ERRCODE = 'LY433', DETAIL = 'It stays closed.';
    END IF;
    IF status = 'closed' AND EXISTS (SELECT FROM loyalty.household_member h WHERE h.household_id = member_id AND h.left_at IS NULL) THEN
        RAISE EXCEPTION 'household % is shared', member_id USING ERRCODE = 'LY307', DETAIL = 'What its members buy would go to an account from which nobody may spend.',
            HINT = 'loyalty.leave_household lets each of them leave.';
    END IF;
    UPDATE loyalty.member m SET status = status WHERE m.member_id = member_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member % does not exist', member_id USING ERRCODE = 'LY301', HINT = 'loyalty.enroll makes a member.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.set_member_status(bigint, text) IS 'active, frozen or closed; waits for awards under way';
REVOKE ALL ON FUNCTION loyalty.set_member_status(bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.close_member(member_id bigint) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT loyalty.set_member_status(member_id, 'closed') $$;
COMMENT ON FUNCTION loyalty.close_member(bigint) IS 'Closes a member: neither earns nor spends any more; the ledger stays';
REVOKE ALL ON FUNCTION loyalty.close_member(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.lines(lines jsonb) RETURNS loyalty.line[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result loyalty.line[] := '{}';
    element jsonb;
    n integer := 0;
    stray text;
BEGIN
    IF jsonb_typeof(lines) <> 'array' THEN
        RAISE EXCEPTION 'lines must be a JSON array' USING ERRCODE = 'LY106', HINT = 'For example [{"sku": "A1", "quantity": 2, "unit_price": 4.50}].';
    END IF;
    FOR element IN SELECT * FROM jsonb_array_elements(lines) LOOP
        n := n + 1;
        IF jsonb_typeof(element) <> 'object' THEN
            RAISE EXCEPTION 'line % is not an object', n USING ERRCODE = 'LY106';
        END IF;
        SELECT k INTO stray FROM jsonb_object_keys(element) k
            WHERE k <> ALL (ARRAY['sku', 'quantity', 'unit_price', 'amount', 'discount']) LIMIT 1;
        IF stray IS NOT NULL THEN
            RAISE EXCEPTION 'line % has an unknown key "%"', n, stray
                USING ERRCODE = 'LY106', HINT = 'Keys are sku, quantity, unit_price, amount and discount.';
        END IF;
        BEGIN
            result := result || ROW(element ->> 'sku', coalesce((element ->> 'quantity')::numeric, 1),
                (element ->> 'unit_price')::numeric, (element ->> 'amount')::numeric,
                (element ->> 'discount')::numeric)::loyalty.line;
        EXCEPTION WHEN data_exception THEN
            RAISE EXCEPTION 'line % holds something that is not a number', n
                USING ERRCODE = 'LY106', DETAIL = element::text;
        END;
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION loyalty.lines(jsonb) IS 'Lines of a basket from JSON: [{"sku": "A1", "quantity": 2, "unit_price": 4.50}]';
