/*
 * challenge: goals over periods, and streaks of periods in a row.
 *
 * What a purchase or activity is worth to a challenge is kept as an item; the
 * progress of a period is the sum of its items, what is met follows from the
 * progress, and the ledger posts the difference to what was given before.  So
 * a return, a correction and a late purchase come out as if all had happened
 * in order.
 */

CREATE TABLE loyalty.challenge (
    challenge_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    name        text NOT NULL CHECK (btrim(name) <> '' AND octet_length(name) <= 200),
    metric      text NOT NULL CHECK (metric IN ('visits', 'days', 'spend', 'units', 'points', 'activities', 'value')),
    event       text NOT NULL,
    condition   text,
    goal        numeric NOT NULL CHECK (goal > 0 AND goal < 1e12),
    period      text NOT NULL CHECK (period IN ('once', 'day', 'week', 'month', 'quarter', 'year')),
    streak      integer NOT NULL DEFAULT 1 CHECK (streak BETWEEN 1 AND 1000),
    max_times   integer CHECK (max_times >= 1),
    points      bigint NOT NULL DEFAULT 0 CHECK (points BETWEEN 0 AND 1000000000000),
    badge       text CHECK (btrim(badge) <> ''),
    reward_id   integer,
    opt_in      boolean NOT NULL DEFAULT false,
    active_from timestamptz NOT NULL,
    active_until timestamptz NOT NULL,
    description text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by  name NOT NULL DEFAULT session_user,
    retired_from timestamptz,
    retired_at  timestamptz,
    reason      text,
    CONSTRAINT challenge_event_check CHECK (event = ANY (CASE metric WHEN 'visits' THEN '{purchase,line}' WHEN 'days' THEN '{purchase,line,activity}' WHEN 'spend' THEN '{purchase,line}'
        WHEN 'units' THEN '{purchase,line}' WHEN 'points' THEN '{purchase,activity}' ELSE '{activity}' END::text[])),
    CONSTRAINT challenge_once_check CHECK (period <> 'once' OR (streak = 1 AND max_times IS NULL)),
    CONSTRAINT challenge_gives_check CHECK (points > 0 OR badge IS NOT NULL OR reward_id IS NOT NULL),
    CONSTRAINT challenge_active_check CHECK (active_from < active_until),
    CONSTRAINT challenge_retired_check CHECK ((retired_from IS NULL) = (retired_at IS NULL))
);
CREATE UNIQUE INDEX challenge_name_idx ON loyalty.challenge (program_id, name) WHERE retired_at IS NULL;
CREATE INDEX challenge_program_id_idx ON loyalty.challenge (program_id);
CREATE INDEX challenge_reward_id_idx ON loyalty.challenge (reward_id);
COMMENT ON TABLE loyalty.challenge IS 'Challenges: a goal in each period, or once, or in so many periods in a row. Immutable; only the retirement is added later';
COMMENT ON COLUMN loyalty.challenge.metric IS 'What counts: visits (purchases), days (on which something counted), spend, units, points (that purchases or activities earned), activities, value (of activities)';
COMMENT ON COLUMN loyalty.challenge.event IS 'purchase, line or activity: the row that the condition is about';
COMMENT ON COLUMN loyalty.challenge.condition IS 'SQL expression, boolean, as of a rule of that event; only rows where it is true count; NULL: all';
COMMENT ON COLUMN loyalty.challenge.goal IS 'How much must be reached in a period: in purchases, days, money, units, whole points';
COMMENT ON COLUMN loyalty.challenge.period IS 'once, from active_from to active_until; or each day, week (from Monday), month, quarter or year of the programme''s zone';
COMMENT ON COLUMN loyalty.challenge.streak IS 'Gives after so many met periods in a row, and again after as many more';
COMMENT ON COLUMN loyalty.challenge.max_times IS 'A member gets it so many times at most, the earliest ones; NULL: no limit';
COMMENT ON COLUMN loyalty.challenge.points IS 'Points that it gives, in smallest units: they wait and die as earned ones, and do not count for tiers';
COMMENT ON COLUMN loyalty.challenge.badge IS 'Badge that it gives; NULL: none';
COMMENT ON COLUMN loyalty.challenge.reward_id IS 'Reward that it gives, as a claim that costs nothing; NULL: none';
COMMENT ON COLUMN loyalty.challenge.opt_in IS 'Counts only what happens after the member joined it';
COMMENT ON COLUMN loyalty.challenge.active_from IS 'Counts what occurred in [active_from, active_until)';
COMMENT ON COLUMN loyalty.challenge.retired_from IS 'What occurs from then on counts no more, where it is recorded after retired_at';

CREATE TABLE loyalty.challenge_member (
    challenge_id integer NOT NULL,
    member_id   bigint NOT NULL,
    joined_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (member_id, challenge_id)
);
COMMENT ON TABLE loyalty.challenge_member IS 'Who joined which challenge that must be joined';

CREATE TABLE loyalty.challenge_item (
    challenge_id integer NOT NULL,
    source_id   bigint NOT NULL,
    member_id   bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    period_from date NOT NULL,
    value       numeric NOT NULL,
    PRIMARY KEY (source_id, challenge_id)
);
CREATE INDEX challenge_item_period_idx ON loyalty.challenge_item (member_id, challenge_id, period_from);
COMMENT ON TABLE loyalty.challenge_item IS 'What a purchase (less what came back of it) or activity is worth to a challenge; nothing is kept of what is worth nothing';
COMMENT ON COLUMN loyalty.challenge_item.member_id IS 'The transaction''s own member, also where that was merged into another';
COMMENT ON COLUMN loyalty.challenge_item.period_from IS 'First day of the period in which it counts, -infinity where there is one period only';

CREATE TABLE loyalty.challenge_progress (
    challenge_id integer NOT NULL,
    member_id   bigint NOT NULL,
    period_from date NOT NULL,
    progress    numeric NOT NULL,
    reached_at  timestamptz,
    last_at     timestamptz NOT NULL,
    last_id     bigint NOT NULL,
    PRIMARY KEY (member_id, challenge_id, period_from)
);
COMMENT ON TABLE loyalty.challenge_progress IS 'The sum of the items of a member, with those of members merged into it, in a period';
COMMENT ON COLUMN loyalty.challenge_progress.last_at IS 'occurred_at of the last item: what occurs later adds to the sum without a look at the earlier ones';
COMMENT ON COLUMN loyalty.challenge_progress.last_id IS 'source_id of the last item';
COMMENT ON COLUMN loyalty.challenge_progress.reached_at IS 'When what happened until then had reached the goal; NULL: not reached';

CREATE TABLE loyalty.challenge_grant (
    grant_id    bigint PRIMARY KEY DEFAULT nextval('loyalty.transaction_id_seq'),
    challenge_id integer NOT NULL,
    member_id   bigint NOT NULL,
    period_from date NOT NULL,
    granted     boolean NOT NULL,
    reached_at  timestamptz,
    changes     integer NOT NULL DEFAULT 0,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    claim_id    bigint,
    UNIQUE (member_id, challenge_id, period_from),
    CHECK (granted = (reached_at IS NOT NULL))
);
COMMENT ON TABLE loyalty.challenge_grant IS 'What a challenge gave for a period, or for a streak that ended with it; taken back and given again in the same row. Written by the engine alone';
COMMENT ON COLUMN loyalty.challenge_grant.grant_id IS 'source_id of its entries';
COMMENT ON COLUMN loyalty.challenge_grant.granted IS 'Given, and not taken back';
COMMENT ON COLUMN loyalty.challenge_grant.reached_at IS 'The instant for which it was given: its day is that of the points';
COMMENT ON COLUMN loyalty.challenge_grant.changes IS 'How often it was given, moved to another day or taken back; a part of its entries'' keys';

CREATE UNIQUE INDEX challenge_grant_claim_id_idx ON loyalty.challenge_grant (claim_id) WHERE claim_id IS NOT NULL;
CREATE INDEX challenge_grant_challenge_id_idx ON loyalty.challenge_grant (challenge_id);
COMMENT ON COLUMN loyalty.challenge_grant.claim_id IS 'The claim of its reward; NULL: none, or one that could not be had yet. Of what was taken back: a claim that was used';

CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.challenge
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.challenge_grant
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');

CREATE FUNCTION loyalty.keep_challenge() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.retired_at IS NULL AND NEW.retired_at IS NOT NULL
       AND (to_jsonb(NEW) - '{retired_from,retired_at,reason}'::text[]) = (to_jsonb(OLD) - '{retired_from,retired_at,reason}'::text[]) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'challenges are immutable'
        USING ERRCODE = 'LY901', DETAIL = 'What they gave follows from what they say.', HINT = 'Retire it with loyalty.retire_challenge and add another.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_challenge() IS 'Lets a challenge be retired once, and nothing else';
REVOKE ALL ON FUNCTION loyalty.keep_challenge() FROM PUBLIC;
CREATE TRIGGER keep_challenge BEFORE UPDATE OR DELETE ON loyalty.challenge
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_challenge();
CREATE TRIGGER refuse_change BEFORE TRUNCATE ON loyalty.challenge
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');

/* ------------------------------------------------------------------------
 * Periods
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.period_start(period text, day date) RETURNS date
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ BEGIN RETURN CASE WHEN period = 'once' THEN '-infinity'::date ELSE date_trunc(period, day::timestamp)::date END; END $$;
COMMENT ON FUNCTION loyalty.period_start(text, date) IS 'The first day of the period in which a day lies; -infinity for once';

CREATE FUNCTION loyalty.period_number(period text, first_day date) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ BEGIN RETURN CASE period WHEN 'day' THEN first_day - date '2000-01-03' WHEN 'week' THEN (first_day - date '2000-01-03') / 7
              WHEN 'once' THEN 0
              ELSE (extract(year FROM nullif(nullif(first_day, 'infinity'), '-infinity'))::integer * 12 + extract(month FROM first_day)::integer - 1) / CASE period WHEN 'month' THEN 1 WHEN 'quarter' THEN 3 ELSE 12 END END; END $$;
COMMENT ON FUNCTION loyalty.period_number(text, date) IS 'Numbers periods by their first day: those that follow each other differ by one';

CREATE FUNCTION loyalty.period_end(period text, first_day date) RETURNS date
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE period WHEN 'once' THEN 'infinity'::date WHEN 'quarter' THEN (first_day + interval '3 months')::date
              ELSE (first_day + ('1 ' || period)::interval)::date END $$;
COMMENT ON FUNCTION loyalty.period_end(text, date) IS 'The first day after the period that begins on a day';

/* ------------------------------------------------------------------------
 * What counts
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.counted(metric text, event text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE WHEN metric = 'spend' AND event = 'line' THEN 'line.amount' WHEN metric = 'spend' THEN 'purchase.total'
              WHEN metric = 'units' AND event = 'line' THEN 'line.quantity' WHEN metric = 'units' THEN 'purchase.quantity'
              WHEN metric = 'value' THEN 'greatest(activity.value, 0)' ELSE '1' END $$;
COMMENT ON FUNCTION loyalty.counted(text, text) IS 'What a metric counts of a row, as an expression of the rules';

CREATE FUNCTION loyalty.challenge_values(program_id integer, p loyalty.purchase) RETURNS TABLE (challenge_id integer, value numeric)
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_challenge_values';
COMMENT ON FUNCTION loyalty.challenge_values(integer, loyalty.purchase) IS 'What a purchase is worth to each challenge for which it counts';
REVOKE ALL ON FUNCTION loyalty.challenge_values(integer, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.challenge_values(program_id integer, v loyalty.activity) RETURNS TABLE (challenge_id integer, value numeric)
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_challenge_values';
COMMENT ON FUNCTION loyalty.challenge_values(integer, loyalty.activity) IS 'What an activity is worth to each challenge for which it counts';
REVOKE ALL ON FUNCTION loyalty.challenge_values(integer, loyalty.activity) FROM PUBLIC;

CREATE FUNCTION loyalty.kept_purchase(p loyalty.purchase) RETURNS loyalty.purchase
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    back record;
    bought numeric := p.amount;
    kept loyalty.line[];
    l loyalty.line;
    y record;
    largest integer;
    rest numeric := 0;
BEGIN
    SELECT sum(d.amount) AS amount, bool_or(d.complete) AS complete INTO back FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id;
    IF back.complete IS NULL THEN
        RETURN p;
    ELSIF back.complete OR back.amount >= p.amount THEN
        RETURN NULL;
    END IF;
    p.amount := p.amount - back.amount;
    p.tax := trunc(p.tax * p.amount / bought, 4);
    p.paid_with_points := trunc(p.paid_with_points * p.amount / bought, 4);
    p.paid_with_gift_card := trunc(p.paid_with_gift_card * p.amount / bought, 4);
    p.shipping := least(p.shipping, p.amount);
    IF cardinality(p.lines) > 0 THEN
        FOR y IN SELECT * FROM loyalty.returned_lines(p) x WHERE x.above < x.below ORDER BY x.line LOOP
            l := p.lines[array_lower(p.lines, 1) + y.line - 1];
            IF l.quantity IS NOT NULL THEN
                l.quantity := y.bought - y.back;
            END IF;
            l.amount := round(y.cost * (y.below - y.above) / y.below, 4);
            l.discount := NULL;
            kept := array_append(kept, l);
            IF largest IS NULL OR l.amount > kept[largest].amount THEN
                largest := cardinality(kept);
            END IF;
            rest := rest + l.amount;
        END LOOP;
        -- the order's discount takes up what was given back on the whole order
        rest := rest + coalesce(p.shipping, 0) - p.amount;
        IF rest < 0 AND kept IS NOT NULL THEN
            kept[largest].amount := kept[largest].amount - rest;
        END IF;
        p.discount := greatest(rest, 0);
        p.lines := kept;
    END IF;
    RETURN p;
END
$$;
COMMENT ON FUNCTION loyalty.kept_purchase(loyalty.purchase) IS 'A purchase without what came back of it, as if the rest had been bought alone; NULL where nothing is left';
REVOKE ALL ON FUNCTION loyalty.kept_purchase(loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.worth_of_purchase(program_id integer, p loyalty.purchase) RETURNS TABLE (challenge_id integer, value numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id) THEN
        p := loyalty.kept_purchase(p);
        IF p.purchase_id IS NULL THEN RETURN; END IF;
    END IF;
    IF NOT EXISTS (SELECT FROM loyalty.program g WHERE g.program_id = program_id AND g.on_rule_error = 'hold') THEN
        RETURN QUERY SELECT * FROM loyalty.challenge_values(program_id, p);
        RETURN;
    END IF;
    BEGIN
        RETURN QUERY SELECT * FROM loyalty.challenge_values(program_id, p);
    EXCEPTION WHEN SQLSTATE 'LY203' OR SQLSTATE 'LY204' THEN
        RAISE WARNING 'purchase % counts for no challenge: %', p.purchase_id, SQLERRM;
    END;
END
$$;
COMMENT ON FUNCTION loyalty.worth_of_purchase(integer, loyalty.purchase) IS 'What the rest of a purchase is worth to each challenge; where a rule that raises must not fail the sale, a condition that raises counts nothing';
REVOKE ALL ON FUNCTION loyalty.worth_of_purchase(integer, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.worth_of_activity(program_id integer, v loyalty.activity) RETURNS TABLE (challenge_id integer, value numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.program g WHERE g.program_id = program_id AND g.on_rule_error = 'hold') THEN
        RETURN QUERY SELECT * FROM loyalty.challenge_values(program_id, v);
        RETURN;
    END IF;
    BEGIN
        RETURN QUERY SELECT * FROM loyalty.challenge_values(program_id, v);
    EXCEPTION WHEN SQLSTATE 'LY203' OR SQLSTATE 'LY204' THEN
        RAISE WARNING 'activity % counts for no challenge: %', v.activity_id, SQLERRM;
    END;
END
$$;
COMMENT ON FUNCTION loyalty.worth_of_activity(integer, loyalty.activity) IS 'Likewise of an activity';
REVOKE ALL ON FUNCTION loyalty.worth_of_activity(integer, loyalty.activity) FROM PUBLIC;

CREATE FUNCTION loyalty.items_of(sources bigint[]) RETURNS SETOF loyalty.challenge_item
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
    SELECT c.challenge_id, w.source_id, w.member_id, w.occurred_at, loyalty.period_start(c.period, (w.occurred_at AT TIME ZONE w.time_zone)::date), trim_scale(x.value)
    FROM (SELECT p.purchase_id AS source_id, p.member_id, p.occurred_at, p.recorded_at, a.merged_into, g.time_zone, g.points_scale, v.challenge_id, v.value
          FROM unnest(sources) s JOIN loyalty.purchase p ON p.purchase_id = s JOIN loyalty.account a ON a.account_id = p.member_id JOIN loyalty.program g USING (program_id)
               CROSS JOIN LATERAL loyalty.worth_of_purchase(g.program_id, p) v
          WHERE p.status <> 'void' AND NOT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = p.purchase_id AND (h.released_at IS NULL OR h.refused_at IS NOT NULL))
          UNION ALL
          SELECT t.activity_id, t.member_id, t.occurred_at, t.recorded_at, a.merged_into, g.time_zone, g.points_scale, v.challenge_id, v.value
          FROM unnest(sources) s JOIN loyalty.activity t ON t.activity_id = s JOIN loyalty.account a ON a.account_id = t.member_id JOIN loyalty.program g USING (program_id)
               CROSS JOIN LATERAL loyalty.worth_of_activity(g.program_id, t) v
          WHERE t.status <> 'void' AND NOT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = t.activity_id AND (h.released_at IS NULL OR h.refused_at IS NOT NULL))) w
         JOIN loyalty.challenge c USING (challenge_id)
         CROSS JOIN LATERAL (SELECT CASE
             WHEN c.metric = 'points' THEN (SELECT sum(e.points) FROM loyalty.entry e WHERE e.source_id = w.source_id AND e.kind IN ('earn', 'correct', 'return')
                 AND e.account_id < 5000000000000000) / 10::numeric ^ w.points_scale
             WHEN c.metric IN ('visits', 'days', 'activities') THEN least(w.value, 1) ELSE w.value END AS value) x
    WHERE x.value > 0 AND w.occurred_at >= c.active_from AND w.occurred_at < c.active_until
      AND (c.retired_at IS NULL OR w.occurred_at < c.retired_from OR w.recorded_at < c.retired_at)
      AND (NOT c.opt_in OR w.occurred_at >= (SELECT min(j.joined_at) FROM loyalty.challenge_member j WHERE j.challenge_id = c.challenge_id
               AND j.member_id = ANY (loyalty.same_member(coalesce(w.merged_into, w.member_id)))));
END
$$;
COMMENT ON FUNCTION loyalty.items_of(bigint[]) IS 'What purchases and activities are worth to challenges, reckoned anew';
REVOKE ALL ON FUNCTION loyalty.items_of(bigint[]) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Progress, targets and grants
 * ------------------------------------------------------------------------ */

CREATE TYPE loyalty.period_count AS (progress numeric, reached_at timestamptz, last_at timestamptz, last_id bigint);
COMMENT ON TYPE loyalty.period_count IS 'The progress of a period, when it reached the goal, and its last item';

CREATE FUNCTION loyalty.count_on(c loyalty.challenge, had loyalty.period_count, more loyalty.challenge_item[]) RETURNS loyalty.period_count
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    zone text := (SELECT g.time_zone FROM loyalty.program g WHERE g.program_id = c.program_id);
    i loyalty.challenge_item;
BEGIN
    FOR i IN SELECT * FROM unnest(more) m ORDER BY m.occurred_at, m.source_id LOOP
        IF c.metric <> 'days' THEN
            had.progress := had.progress + i.value;
        ELSIF (had.last_at AT TIME ZONE zone)::date IS DISTINCT FROM (i.occurred_at AT TIME ZONE zone)::date THEN
            had.progress := had.progress + 1;
        END IF;
        IF had.reached_at IS NULL AND had.progress >= c.goal THEN
            had.reached_at := i.occurred_at;
        END IF;
        had.last_at := i.occurred_at;
        had.last_id := i.source_id;
    END LOOP;
    had.progress := trim_scale(had.progress);
    RETURN had;
END
$$;
COMMENT ON FUNCTION loyalty.count_on(loyalty.challenge, loyalty.period_count, loyalty.challenge_item[]) IS 'Counts items that occurred after those counted so far';
REVOKE ALL ON FUNCTION loyalty.count_on(loyalty.challenge, loyalty.period_count, loyalty.challenge_item[]) FROM PUBLIC;

CREATE FUNCTION loyalty.count_period(c loyalty.challenge, member_id bigint, period_from date) RETURNS loyalty.period_count
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    RETURN loyalty.count_on(c, ROW(0, NULL, NULL, NULL)::loyalty.period_count, ARRAY(SELECT i FROM loyalty.challenge_item i
        WHERE i.member_id = ANY (ARRAY(SELECT member_id UNION ALL SELECT a.account_id FROM loyalty.account a WHERE a.merged_into = member_id))
            AND i.challenge_id = c.challenge_id AND i.period_from = period_from));
END
$$;
COMMENT ON FUNCTION loyalty.count_period(loyalty.challenge, bigint, date) IS 'The progress of a member in a period, reckoned anew from its items';
REVOKE ALL ON FUNCTION loyalty.count_period(loyalty.challenge, bigint, date) FROM PUBLIC;

CREATE FUNCTION loyalty.challenge_target(challenge_id integer, member_id bigint) RETURNS TABLE (period_from date, reached_at timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH met AS (
        SELECT p.period_from, p.reached_at, c.streak, c.max_times,
               loyalty.period_number(c.period, p.period_from) - row_number() OVER (ORDER BY p.period_from) AS run
        FROM loyalty.challenge_progress p JOIN loyalty.challenge c USING (challenge_id)
        WHERE p.member_id = challenge_target.member_id AND p.challenge_id = challenge_target.challenge_id AND p.reached_at IS NOT NULL),
    placed AS (SELECT m.*, row_number() OVER (PARTITION BY m.run ORDER BY m.period_from) AS place FROM met m),
    complete AS (SELECT q.*, row_number() OVER (ORDER BY q.period_from) AS time FROM placed q WHERE mod(q.place, q.streak) = 0)
    SELECT f.period_from, f.reached_at FROM complete f WHERE f.max_times IS NULL OR f.time <= f.max_times;
END
$$;
COMMENT ON FUNCTION loyalty.challenge_target(integer, bigint) IS 'The periods for which a member should have been given a challenge: every streak-th met period of a run, the earliest max_times of them';
REVOKE ALL ON FUNCTION loyalty.challenge_target(integer, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.set_grant(c loyalty.challenge, member_id bigint, period_from date, reached_at timestamptz) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    g loyalty.challenge_grant;
    reason text := 'Challenge ' || c.name || CASE WHEN c.period = 'once' THEN '' ELSE format(', %s of %s', c.period, to_char(period_from, 'YYYY-MM-DD')) END;
BEGIN
    INSERT INTO loyalty.challenge_grant AS x (challenge_id, member_id, period_from, granted, reached_at, changes)
        VALUES (c.challenge_id, member_id, period_from, reached_at IS NOT NULL, reached_at, 1)
        ON CONFLICT ON CONSTRAINT challenge_grant_member_id_challenge_id_period_from_key
        DO UPDATE SET granted = excluded.granted, reached_at = excluded.reached_at, changes = x.changes + 1, changed_at = now()
        RETURNING * INTO g;
    IF c.points > 0 THEN
        PERFORM loyalty.post_grant(g.grant_id, member_id, CASE WHEN g.granted THEN c.points ELSE 0 END, coalesce(reached_at, now()),
            reason || CASE WHEN g.granted THEN '' ELSE ' no longer met' END, format('loyalty:challenge %s %s', g.grant_id, g.changes));
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.set_grant(loyalty.challenge, bigint, date, timestamptz) IS 'Gives a challenge for a period at an instant, moves it to another day, or takes it back (NULL)';
REVOKE ALL ON FUNCTION loyalty.set_grant(loyalty.challenge, bigint, date, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.post_grant(grant_id bigint, member_id bigint, points bigint, at timestamptz, reason text, key text) RETURNS bigint
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_post_grant';
COMMENT ON FUNCTION loyalty.post_grant(bigint, bigint, bigint, timestamptz, text, text) IS 'Posts what a grant should have given at an instant, and takes back what it had given before; returns the difference';
REVOKE ALL ON FUNCTION loyalty.post_grant(bigint, bigint, bigint, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.give_won_reward(c loyalty.challenge, g loyalty.challenge_grant) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m loyalty.member;
    r loyalty.reward;
    given loyalty.claim;
BEGIN
    SELECT * INTO m FROM loyalty.member q WHERE q.member_id = g.member_id;
    SELECT * INTO r FROM loyalty.reward q WHERE q.reward_id = c.reward_id;
    IF m.status <> 'active' OR r.retired_at IS NOT NULL OR (loyalty.reward_obstacle(r, loyalty.member_facts(m.member_id), true)).code IS NOT NULL THEN
        RETURN;
    END IF;
    given := loyalty.make_claim(m, r, format('loyalty:challenge %s %s', g.grant_id, g.changes), 1, NULL, true);
    UPDATE loyalty.challenge_grant x SET claim_id = given.claim_id WHERE x.grant_id = g.grant_id;
EXCEPTION WHEN OTHERS THEN
    -- no stock, no code, no key that signs: the sale stands, and the next one that counts tries again
    IF SQLSTATE NOT LIKE 'LY%' THEN
        RAISE;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.give_won_reward(loyalty.challenge, loyalty.challenge_grant) IS 'Hands the reward of a challenge out, where it can be had now';
REVOKE ALL ON FUNCTION loyalty.give_won_reward(loyalty.challenge, loyalty.challenge_grant) FROM PUBLIC;

CREATE FUNCTION loyalty.take_won_reward(c loyalty.challenge, g loyalty.challenge_grant) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given loyalty.claim;
BEGIN
    SELECT * INTO STRICT given FROM loyalty.claim q WHERE q.claim_id = g.claim_id FOR NO KEY UPDATE;
    IF given.undone_at IS NULL THEN
        PERFORM loyalty.unmake_claim(given, format('Challenge %s no longer met', c.name));
    END IF;
    UPDATE loyalty.challenge_grant x SET claim_id = NULL WHERE x.grant_id = g.grant_id;
EXCEPTION WHEN SQLSTATE 'LY707' THEN
    NULL;                       -- used: it stays theirs, and is not given again
END
$$;
COMMENT ON FUNCTION loyalty.take_won_reward(loyalty.challenge, loyalty.challenge_grant) IS 'Takes the reward of a challenge back, where nothing of it was used';
REVOKE ALL ON FUNCTION loyalty.take_won_reward(loyalty.challenge, loyalty.challenge_grant) FROM PUBLIC;

CREATE FUNCTION loyalty.settle_rewards(c loyalty.challenge, member_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    g loyalty.challenge_grant;
BEGIN
    FOR g IN SELECT x.* FROM loyalty.challenge_grant x
             WHERE x.member_id = member_id AND x.challenge_id = c.challenge_id AND x.granted = (x.claim_id IS NULL) ORDER BY x.granted, x.period_from LOOP
        IF g.granted THEN
            PERFORM loyalty.give_won_reward(c, g);
        ELSE
            PERFORM loyalty.take_won_reward(c, g);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.settle_rewards(loyalty.challenge, bigint) IS 'Takes back the rewards of what is no longer met, as far as nobody used them, and hands out those that are due';
REVOKE ALL ON FUNCTION loyalty.settle_rewards(loyalty.challenge, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.settle_challenge(c loyalty.challenge, member_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    zone text := (SELECT p.time_zone FROM loyalty.program p WHERE p.program_id = c.program_id);
    closed boolean := (SELECT a.closed FROM loyalty.account a WHERE a.account_id = member_id);
    r record;
BEGIN
    -- what is given comes before what is taken, for programmes that forbid debts
    FOR r IN SELECT coalesce(t.period_from, g.period_from) AS period_from, t.reached_at, g.granted, g.reached_at AS given_at
             FROM loyalty.challenge_target(c.challenge_id, member_id) t
                  FULL JOIN (SELECT x.* FROM loyalty.challenge_grant x WHERE x.member_id = member_id AND x.challenge_id = c.challenge_id) g USING (period_from)
             WHERE t.reached_at IS DISTINCT FROM g.reached_at
             ORDER BY t.reached_at IS NULL, 1 LOOP
        IF closed AND r.reached_at IS NOT NULL AND NOT coalesce(r.granted, false) THEN
            CONTINUE;
        ELSIF r.granted AND r.reached_at IS NOT NULL AND (closed OR (r.reached_at AT TIME ZONE zone)::date = (r.given_at AT TIME ZONE zone)::date) THEN
            UPDATE loyalty.challenge_grant x SET reached_at = r.reached_at
                WHERE x.member_id = member_id AND x.challenge_id = c.challenge_id AND x.period_from = r.period_from;
        ELSE
            PERFORM loyalty.set_grant(c, member_id, r.period_from, r.reached_at);
        END IF;
    END LOOP;
    IF c.reward_id IS NOT NULL THEN
        PERFORM loyalty.settle_rewards(c, member_id);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.settle_challenge(loyalty.challenge, bigint) IS 'Gives and takes back what the progress of a member demands; a closed member is given nothing more';
REVOKE ALL ON FUNCTION loyalty.settle_challenge(loyalty.challenge, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.count_key(c loyalty.challenge, member_id bigint, period_from date, gone boolean, more loyalty.challenge_item[]) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.challenge_progress;
    n loyalty.period_count;
BEGIN
    SELECT q.* INTO p FROM loyalty.challenge_progress q WHERE q.member_id = member_id AND q.challenge_id = c.challenge_id AND q.period_from = period_from;
    IF gone OR EXISTS (SELECT FROM unnest(more) m WHERE (m.occurred_at, m.source_id) <= (p.last_at, p.last_id)) THEN
        n := loyalty.count_period(c, member_id, period_from);
    ELSE
        n := loyalty.count_on(c, ROW(coalesce(p.progress, 0), p.reached_at, p.last_at, p.last_id)::loyalty.period_count, more);
    END IF;
    IF n.last_id IS NULL THEN
        DELETE FROM loyalty.challenge_progress q WHERE q.member_id = member_id AND q.challenge_id = c.challenge_id AND q.period_from = period_from;
    ELSE
        INSERT INTO loyalty.challenge_progress (challenge_id, member_id, period_from, progress, reached_at, last_at, last_id)
            VALUES (c.challenge_id, member_id, period_from, n.progress, n.reached_at, n.last_at, n.last_id)
            ON CONFLICT ON CONSTRAINT challenge_progress_pkey
            DO UPDATE SET progress = excluded.progress, reached_at = excluded.reached_at, last_at = excluded.last_at, last_id = excluded.last_id;
    END IF;
    RETURN p.reached_at IS DISTINCT FROM n.reached_at;
END
$$;
COMMENT ON FUNCTION loyalty.count_key(loyalty.challenge, bigint, date, boolean, loyalty.challenge_item[]) IS 'Counts new items of a period, all of it anew where something is gone or came late; tells whether the goal is reached otherwise than before';
REVOKE ALL ON FUNCTION loyalty.count_key(loyalty.challenge, bigint, date, boolean, loyalty.challenge_item[]) FROM PUBLIC;

CREATE FUNCTION loyalty.count_items(gone loyalty.challenge_item[], come loyalty.challenge_item[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    c loyalty.challenge;
    person bigint;
    settle boolean := false;
BEGIN
    FOR r IN SELECT coalesce(a.merged_into, a.account_id) AS member_id, x.challenge_id, x.period_from,
                    bool_or(x.gone) AS gone, array_agg(x.item) FILTER (WHERE NOT x.gone) AS more
             FROM (SELECT i.member_id, i.challenge_id, i.period_from, true AS gone, i AS item FROM unnest(gone) i
                   UNION ALL SELECT i.member_id, i.challenge_id, i.period_from, false, i FROM unnest(come) i) x
                  JOIN loyalty.account a ON a.account_id = x.member_id
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LOOP
        IF c.challenge_id IS DISTINCT FROM r.challenge_id OR person <> r.member_id THEN
            IF settle THEN
                PERFORM loyalty.settle_challenge(c, person);
            END IF;
            SELECT * INTO c FROM loyalty.challenge q WHERE q.challenge_id = r.challenge_id;
            person := r.member_id;
            settle := c.reward_id IS NOT NULL;
        END IF;
        settle := loyalty.count_key(c, person, r.period_from, r.gone, r.more) OR settle;
    END LOOP;
    IF settle THEN
        PERFORM loyalty.settle_challenge(c, person);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.count_items(loyalty.challenge_item[], loyalty.challenge_item[]) IS 'Counts the periods of items that are gone and of those that came, and settles their challenges';
REVOKE ALL ON FUNCTION loyalty.count_items(loyalty.challenge_item[], loyalty.challenge_item[]) FROM PUBLIC;

CREATE FUNCTION loyalty.leave_trace(gone loyalty.challenge_item[], come loyalty.challenge_item[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    silent bigint[] := ARRAY(SELECT g.member_id FROM unnest(gone) g
        UNION SELECT i.member_id FROM unnest(come) i WHERE NOT EXISTS (SELECT FROM loyalty.entry e WHERE e.source_id = i.source_id AND e.recorded_at = now()));
BEGIN
    IF silent <> '{}' THEN
        UPDATE loyalty.account a SET seq = a.seq
            WHERE a.account_id IN (SELECT unnest(ARRAY[o.account_id, o.merged_into]) FROM loyalty.account o WHERE o.account_id = ANY (silent));
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.leave_trace(loyalty.challenge_item[], loyalty.challenge_item[]) IS 'What posts nothing leaves no trace in an account: this does, so that whoever has an older snapshot must try again';
REVOKE ALL ON FUNCTION loyalty.leave_trace(loyalty.challenge_item[], loyalty.challenge_item[]) FROM PUBLIC;

CREATE FUNCTION loyalty.lock_tracked(sources bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    people bigint[] := ARRAY(SELECT DISTINCT unnest(ARRAY[o.account_id, o.merged_into]) FROM loyalty.account o WHERE o.account_id = ANY (ARRAY(
        SELECT p.member_id FROM loyalty.purchase p WHERE p.purchase_id = ANY (sources) UNION
        SELECT v.member_id FROM loyalty.activity v WHERE v.activity_id = ANY (sources) UNION
        SELECT i.member_id FROM loyalty.challenge_item i WHERE i.source_id = ANY (sources))));
BEGIN
    PERFORM FROM loyalty.account a WHERE a.account_id = ANY (people) ORDER BY a.merged_into IS NULL, a.account_id FOR NO KEY UPDATE;
    RETURN people;
END
$$;
COMMENT ON FUNCTION loyalty.lock_tracked(bigint[]) IS 'Locks the members whose purchases and activities these are or were, and those into whom they were merged; the award has locked the most';
REVOKE ALL ON FUNCTION loyalty.lock_tracked(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.track(sources bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    locked bigint[] := loyalty.lock_tracked(sources);
    before loyalty.challenge_item[] := ARRAY(SELECT i FROM loyalty.challenge_item i WHERE i.source_id = ANY (sources));
    after loyalty.challenge_item[] := ARRAY(SELECT i FROM loyalty.items_of(sources) i);
    gone loyalty.challenge_item[] := ARRAY(SELECT b FROM unnest(before) b EXCEPT SELECT f FROM unnest(after) f);
    come loyalty.challenge_item[] := ARRAY(SELECT f FROM unnest(after) f EXCEPT SELECT b FROM unnest(before) b);
BEGIN
    IF gone = '{}' AND come = '{}' THEN
        RETURN;
    END IF;
    DELETE FROM loyalty.challenge_item i USING unnest(gone) g WHERE i.source_id = g.source_id AND i.challenge_id = g.challenge_id;
    INSERT INTO loyalty.challenge_item SELECT f.* FROM unnest(come) f;
    PERFORM loyalty.leave_trace(gone, come);
    PERFORM loyalty.count_items(gone, come);
END
$$;
COMMENT ON FUNCTION loyalty.track(bigint[]) IS 'Counts purchases and activities for challenges, as they are now, and posts the difference';
REVOKE ALL ON FUNCTION loyalty.track(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.count_last(come loyalty.challenge_item[]) RETURNS integer[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted integer[] := '{}';
    c loyalty.challenge;
    r record;
BEGIN
    FOR r IN INSERT INTO loyalty.challenge_progress AS p (challenge_id, member_id, period_from, progress, reached_at, last_at, last_id)
                 SELECT q.challenge_id, f.member_id, f.period_from, f.value, CASE WHEN f.value >= q.goal THEN f.occurred_at END, f.occurred_at, f.source_id
                 FROM unnest(come) f JOIN loyalty.challenge q USING (challenge_id) ORDER BY 1
             ON CONFLICT ON CONSTRAINT challenge_progress_pkey DO UPDATE SET
                 (progress, reached_at, last_at, last_id) = (SELECT trim_scale(n.progress), coalesce(p.reached_at, CASE WHEN n.progress >= q.goal THEN excluded.last_at END), excluded.last_at, excluded.last_id
                     FROM loyalty.challenge q JOIN loyalty.program g USING (program_id)
                          CROSS JOIN LATERAL (SELECT p.progress + CASE WHEN q.metric = 'days' AND (p.last_at AT TIME ZONE g.time_zone)::date = (excluded.last_at AT TIME ZONE g.time_zone)::date
                              THEN 0 ELSE excluded.progress END AS progress) n
                     WHERE q.challenge_id = p.challenge_id)
                 WHERE (p.last_at, p.last_id) < (excluded.last_at, excluded.last_id)
             RETURNING p.challenge_id, p.member_id, p.reached_at = p.last_at AS reached LOOP
        counted := counted || r.challenge_id;
        SELECT * INTO c FROM loyalty.challenge q WHERE q.challenge_id = r.challenge_id AND (r.reached OR q.reward_id IS NOT NULL);
        IF FOUND THEN
            PERFORM loyalty.settle_challenge(c, r.member_id);
        END IF;
    END LOOP;
    RETURN counted;
END
$$;
COMMENT ON FUNCTION loyalty.count_last(loyalty.challenge_item[]) IS 'Counts those items, at most one of a period, that occurred last of it, without a look at the others; returns their challenges';
REVOKE ALL ON FUNCTION loyalty.count_last(loyalty.challenge_item[]) FROM PUBLIC;

CREATE FUNCTION loyalty.track_new(sources bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    come loyalty.challenge_item[];
    counted integer[];
BEGIN
    IF EXISTS (SELECT FROM loyalty.challenge_item i WHERE i.source_id = ANY (sources)) THEN
        PERFORM loyalty.track(sources);
        RETURN;
    END IF;
    come := ARRAY(SELECT i FROM loyalty.items_of(sources) i);
    IF come = '{}' THEN
        RETURN;
    END IF;
    INSERT INTO loyalty.challenge_item SELECT f.* FROM unnest(come) f;
    PERFORM loyalty.leave_trace('{}', come);
    IF cardinality(sources) > 1 THEN
        PERFORM loyalty.count_items('{}', come);
        RETURN;
    END IF;
    -- one purchase is one item of a period
    counted := loyalty.count_last(come);
    IF cardinality(counted) < cardinality(come) THEN
        PERFORM loyalty.count_items('{}', ARRAY(SELECT f FROM unnest(come) f WHERE f.challenge_id <> ALL (counted)));
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.track_new(bigint[]) IS 'track, for what was just inserted and awarded to members whose accounts are locked';
REVOKE ALL ON FUNCTION loyalty.track_new(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.track_all(sources bigint[], fresh boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR n IN 0 .. (cardinality(sources) - 1) / 1000 LOOP
        IF fresh THEN
            PERFORM loyalty.track_new(sources[n * 1000 + 1:n * 1000 + 1000]);
        ELSE
            PERFORM loyalty.track(sources[n * 1000 + 1:n * 1000 + 1000]);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.track_all(bigint[], boolean) IS 'track, or where all are fresh track_new, a thousand at a time';
REVOKE ALL ON FUNCTION loyalty.track_all(bigint[], boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.merge_challenges(from_member bigint, to_member bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sources bigint[];
    c loyalty.challenge;
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.challenge) THEN
        RETURN;
    END IF;
    -- as if it had been one member from the start: what only the first was given goes with it
    UPDATE loyalty.challenge_grant g SET member_id = to_member
        WHERE g.member_id = from_member
            AND NOT EXISTS (SELECT FROM loyalty.challenge_grant x WHERE x.member_id = to_member AND x.challenge_id = g.challenge_id AND x.period_from = g.period_from);
    DELETE FROM loyalty.challenge_progress p WHERE p.member_id = from_member;
    sources := ARRAY(SELECT i.source_id FROM loyalty.challenge_item i WHERE i.member_id = ANY (loyalty.same_member(to_member))
                     UNION SELECT e.source_id FROM loyalty.entry e WHERE e.account_id IN (from_member, to_member) AND e.kind = 'earn' ORDER BY 1);
    PERFORM loyalty.track_all(sources);
    PERFORM loyalty.count_items(ARRAY(SELECT i FROM loyalty.challenge_item i WHERE i.member_id = ANY (loyalty.same_member(to_member))), '{}');
    FOR c IN SELECT * FROM loyalty.challenge q
             WHERE q.challenge_id IN (SELECT g.challenge_id FROM loyalty.challenge_grant g WHERE g.member_id IN (from_member, to_member)) ORDER BY q.challenge_id LOOP
        PERFORM loyalty.settle_challenge(c, to_member);
        PERFORM loyalty.settle_challenge(c, from_member);
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.merge_challenges(bigint, bigint) IS 'Counts the progress of merged members together; what both were given for the same is taken back once';
REVOKE ALL ON FUNCTION loyalty.merge_challenges(bigint, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Setting up
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.add_challenge(program_id integer, name text, metric text, goal numeric, points bigint DEFAULT 0,
        period text DEFAULT 'once', streak integer DEFAULT 1, condition text DEFAULT NULL, event text DEFAULT NULL,
        badge text DEFAULT NULL, reward text DEFAULT NULL, max_times integer DEFAULT NULL, opt_in boolean DEFAULT false,
        active_from timestamptz DEFAULT now(), active_until timestamptz DEFAULT 'infinity', description text DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    about text := coalesce(event, CASE WHEN metric = 'units' THEN 'line' WHEN metric IN ('activities', 'value') THEN 'activity' ELSE 'purchase' END);
    id integer;
    gift integer;
    detail text;
    broken text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF (SELECT g.wallet_of FROM loyalty.program g WHERE g.program_id = program_id) IS NOT NULL THEN
        RAISE EXCEPTION 'challenge "%" is not valid', name USING ERRCODE = 'LY751', DETAIL = 'The programme is a wallet.', HINT = 'Add it to the programme whose wallet it is.';
    END IF;
    IF reward IS NOT NULL THEN
        SELECT r.reward_id INTO gift FROM loyalty.reward r WHERE r.program_id = program_id AND r.name = reward AND r.retired_at IS NULL FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            PERFORM loyalty.raise_unknown_reward(program_id, reward);
        END IF;
    END IF;
    INSERT INTO loyalty.challenge (program_id, name, metric, event, condition, goal, period, streak, max_times, points, badge, reward_id, opt_in, active_from, active_until, description)
        VALUES (program_id, name, metric, about, condition, goal, period, streak, max_times, coalesce(points, 0), badge, gift, opt_in, active_from, active_until, description)
        RETURNING challenge_id INTO id;
    PERFORM loyalty.check_rule(name, about, 'bonus', loyalty.counted(metric, about), condition);
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.challenge', broken, jsonb_build_object(
            'name', name, 'metric', metric, 'event', about, 'condition', condition, 'goal', goal, 'period', period, 'streak', streak, 'max_times', max_times,
            'points', points, 'badge', badge, 'reward_id', reward, 'opt_in', opt_in, 'active_from', active_from, 'active_until', active_until,
            'description', description)), detail);
    RAISE EXCEPTION 'challenge "%" is not valid', name
        USING ERRCODE = 'LY751', DETAIL = detail,
              HINT = 'The comments on loyalty.challenge say what each column may be; a name is unique among the challenges that are not retired.';
END
$$;
COMMENT ON FUNCTION loyalty.add_challenge IS 'Adds a challenge: goal of a metric once or in each period, or streak periods in a row; gives points (smallest units), a badge, a reward. The condition is SQL over the rows of the event, as of a rule. What occurred before it was added counts where active_from says so, once loyalty.count_challenges has run';
REVOKE ALL ON FUNCTION loyalty.add_challenge FROM PUBLIC;

CREATE FUNCTION loyalty.retire_challenge(program_id integer, name text, from_at timestamptz DEFAULT now(), reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF from_at IS NULL THEN
        RAISE EXCEPTION 'challenge "%" needs an instant to be retired from', name USING ERRCODE = 'LY751';
    END IF;
    UPDATE loyalty.challenge c SET retired_from = from_at, retired_at = clock_timestamp(), reason = reason
        WHERE c.program_id = program_id AND c.name = name AND c.retired_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'programme % has no challenge "%" that is not retired', program_id, name
            USING ERRCODE = 'LY752', HINT = 'loyalty.challenge lists the challenges.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.retire_challenge IS 'Ends a challenge for what occurs from an instant on; what was counted and given stays, and returns still take it back';
REVOKE ALL ON FUNCTION loyalty.retire_challenge FROM PUBLIC;

CREATE FUNCTION loyalty.join_challenge(member_id bigint, challenge_id integer) RETURNS timestamptz
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    c loyalty.challenge;
    joined timestamptz;
    problem text;
BEGIN
    PERFORM FROM loyalty.account a WHERE a.account_id = member_id FOR NO KEY UPDATE;
    SELECT q.* INTO c FROM loyalty.challenge q WHERE q.challenge_id = challenge_id AND q.program_id = m.program_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'challenge % does not exist', coalesce(challenge_id::text, 'NULL') USING ERRCODE = 'LY752', HINT = 'loyalty.challenges lists those of a member.';
    END IF;
    SELECT j.joined_at INTO joined FROM loyalty.challenge_member j WHERE j.member_id = member_id AND j.challenge_id = challenge_id;
    IF FOUND THEN
        RETURN joined;
    END IF;
    problem := CASE WHEN NOT c.opt_in THEN 'It counts for everybody; nobody needs to join it.'
                    WHEN now() >= least(c.active_until, c.retired_from) THEN 'It is over.'
                    WHEN m.member_id >= 4000000000000000 THEN 'It is a household: its members join.'
                    WHEN (SELECT a.closed FROM loyalty.account a WHERE a.account_id = member_id) THEN 'The member is closed.' END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'member % cannot join challenge "%"', member_id, c.name USING ERRCODE = 'LY753', DETAIL = problem;
    END IF;
    INSERT INTO loyalty.challenge_member AS j (challenge_id, member_id) VALUES (challenge_id, member_id)
        ON CONFLICT DO NOTHING RETURNING j.joined_at INTO joined;
    RETURN coalesce(joined, (SELECT j.joined_at FROM loyalty.challenge_member j WHERE j.challenge_id = challenge_id AND j.member_id = member_id));
END
$$;
COMMENT ON FUNCTION loyalty.join_challenge(bigint, integer) IS 'Lets a member take part in a challenge that must be joined, from now on; returns since when. Doing it again changes nothing';
REVOKE ALL ON FUNCTION loyalty.join_challenge(bigint, integer) FROM PUBLIC;

CREATE PROCEDURE loyalty.count_challenges(program_id integer, batch integer DEFAULT 1000)
    LANGUAGE plpgsql
AS $$
DECLARE
    since timestamptz := (SELECT pg_catalog.min(c.active_from) FROM loyalty.challenge c WHERE c.program_id = count_challenges.program_id);
    last bigint := 0;
    ids bigint[];
    counted bigint := 0;
BEGIN
    PERFORM loyalty.require_program(count_challenges.program_id);
    IF batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'batch must be at least 1' USING ERRCODE = 'LY110', DETAIL = format('Got %s.', coalesce(batch::text, 'NULL'));
    END IF;
    LOOP
        SELECT pg_catalog.array_agg(x.id ORDER BY x.id), pg_catalog.max(x.id) INTO ids, last
            FROM (SELECT s.id FROM (SELECT p.purchase_id AS id, p.member_id, p.occurred_at FROM loyalty.purchase p WHERE p.purchase_id > last
                                    UNION ALL SELECT v.activity_id, v.member_id, v.occurred_at FROM loyalty.activity v WHERE v.activity_id > last) s
                       JOIN loyalty.account a ON a.account_id = s.member_id
                  WHERE a.program_id = count_challenges.program_id AND s.occurred_at >= since
                  ORDER BY s.id LIMIT batch) x;
        EXIT WHEN ids IS NULL;
        PERFORM loyalty.track_all(ids);
        counted := counted + pg_catalog.cardinality(ids);
        COMMIT;
    END LOOP;
    RAISE NOTICE 'count_challenges: counted % purchases and activities', counted;
END
$$;
COMMENT ON PROCEDURE loyalty.count_challenges(integer, integer) IS 'Counts for the challenges of a programme all that occurred since the first of them, a batch a transaction: for challenges that begin before they were added, and after articles or attributes that conditions name have changed';
REVOKE ALL ON PROCEDURE loyalty.count_challenges(integer, integer) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.challenges(member_id bigint, as_of timestamptz DEFAULT now())
    RETURNS TABLE (challenge_id integer, name text, metric text, period text, period_from date, ends_at timestamptz, progress numeric, goal numeric, reached_at timestamptz,
                   streak integer, streak_so_far integer, points bigint, badge text, reward text, times integer, points_given bigint, open boolean, joined_at timestamptz, description text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    m loyalty.member := loyalty.require_member(challenges.member_id);
    zone text := (SELECT p.time_zone FROM loyalty.program p WHERE p.program_id = m.program_id);
    person bigint := (SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = m.member_id);
    persons bigint[] := loyalty.same_member(person);
BEGIN
    IF as_of IS NULL OR as_of NOT BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 00:00+00' THEN
        RAISE EXCEPTION 'as_of must be a time between the years 1900 and 9999' USING ERRCODE = 'LY102';
    END IF;
    RETURN QUERY
    SELECT c.challenge_id, c.name, c.metric, c.period, d.first_day,
           least(c.active_until, c.retired_from, CASE WHEN c.period <> 'once' THEN loyalty.period_end(c.period, d.first_day)::timestamp AT TIME ZONE zone END),
           coalesce(p.progress, 0), c.goal, p.reached_at, c.streak,
           (WITH met AS (SELECT q.period_from, loyalty.period_number(c.period, q.period_from) AS number FROM loyalty.challenge_progress q
                         WHERE q.member_id = person AND q.challenge_id = c.challenge_id AND q.reached_at IS NOT NULL AND q.period_from <= d.first_day),
                 run AS (SELECT met.number, met.number - row_number() OVER (ORDER BY met.number) AS run FROM met),
                 now_running AS (SELECT count(*) AS n FROM run GROUP BY run.run HAVING max(run.number) >= loyalty.period_number(c.period, d.first_day) - 1)
            SELECT coalesce((SELECT CASE WHEN mod(r.n, c.streak) = 0 AND p.reached_at IS NOT NULL THEN c.streak ELSE mod(r.n, c.streak) END FROM now_running r), 0))::integer,
           c.points, c.badge, w.name, g.times, g.times * c.points,
           as_of >= c.active_from AND as_of < least(c.active_until, c.retired_from)
               AND (c.period <> 'once' OR p.reached_at IS NULL) AND (c.max_times IS NULL OR g.times < c.max_times) AND (NOT c.opt_in OR j.joined_at IS NOT NULL),
           j.joined_at, c.description
    FROM loyalty.challenge c
         CROSS JOIN LATERAL (SELECT loyalty.period_start(c.period, (as_of AT TIME ZONE zone)::date) AS first_day) d
         LEFT JOIN loyalty.challenge_progress p ON p.member_id = person AND p.challenge_id = c.challenge_id AND p.period_from = d.first_day
         CROSS JOIN LATERAL (SELECT count(*)::integer AS times FROM loyalty.challenge_grant x WHERE x.member_id = ANY (persons) AND x.challenge_id = c.challenge_id AND x.granted) g
         CROSS JOIN LATERAL (SELECT min(x.joined_at) AS joined_at FROM loyalty.challenge_member x WHERE x.member_id = ANY (persons) AND x.challenge_id = c.challenge_id) j
         LEFT JOIN loyalty.reward w ON w.reward_id = c.reward_id
    WHERE c.program_id = m.program_id AND as_of >= c.active_from
      AND (as_of < least(c.active_until, c.retired_from) OR g.times > 0)
    ORDER BY 17 DESC, 6, 2, 1;
END
$$;
COMMENT ON FUNCTION loyalty.challenges(bigint, timestamptz) IS 'The challenges of a member: the present period with its progress and end, how many periods of a streak are met so far, and what was given; those that are over where they gave something';
REVOKE ALL ON FUNCTION loyalty.challenges(bigint, timestamptz) FROM PUBLIC;

CREATE VIEW loyalty.member_badge AS
    SELECT g.member_id, c.program_id, c.badge, c.name AS challenge, g.period_from, g.reached_at
    FROM loyalty.challenge_grant g JOIN loyalty.challenge c USING (challenge_id)
    WHERE g.granted AND c.badge IS NOT NULL;
COMMENT ON VIEW loyalty.member_badge IS 'Badges that members hold, with the challenge and period that gave them';

CREATE VIEW loyalty.challenge_result AS
    SELECT c.program_id, c.challenge_id, c.name, c.metric, c.period, p.members, coalesce(p.progress, 0) AS progress, coalesce(p.met, 0) AS periods_met,
           coalesce(g.grants, 0) AS grants, coalesce(g.grants, 0) * c.points AS points
    FROM loyalty.challenge c
         LEFT JOIN LATERAL (SELECT count(DISTINCT q.member_id) AS members, sum(q.progress) AS progress, count(q.reached_at) AS met FROM loyalty.challenge_progress q WHERE q.challenge_id = c.challenge_id) p ON true
         LEFT JOIN LATERAL (SELECT count(*) AS grants FROM loyalty.challenge_grant x WHERE x.challenge_id = c.challenge_id AND x.granted) g ON true;
COMMENT ON VIEW loyalty.challenge_result IS 'What came of each challenge: who took part, periods met, grants and points; derived, never kept';

/* ------------------------------------------------------------------------
 * Check
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.recount_period(challenge_id integer, member_id bigint, period_from date) RETURNS loyalty.period_count
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN (WITH item AS (
        SELECT i.occurred_at, i.source_id, c.goal,
               CASE WHEN c.metric <> 'days' THEN i.value
                    WHEN row_number() OVER (PARTITION BY (i.occurred_at AT TIME ZONE g.time_zone)::date ORDER BY i.occurred_at, i.source_id) = 1 THEN 1 ELSE 0 END AS counts
        FROM loyalty.challenge c JOIN loyalty.program g USING (program_id) JOIN loyalty.challenge_item i USING (challenge_id)
        WHERE c.challenge_id = recount_period.challenge_id AND i.member_id = ANY (loyalty.same_member(recount_period.member_id)) AND i.period_from = recount_period.period_from),
    run AS (SELECT item.*, sum(item.counts) OVER (ORDER BY item.occurred_at, item.source_id) AS total FROM item)
    SELECT ROW(trim_scale(coalesce(sum(run.counts), 0)), min(run.occurred_at) FILTER (WHERE run.total >= run.goal), max(run.occurred_at),
               (SELECT l.source_id FROM item l ORDER BY l.occurred_at DESC, l.source_id DESC LIMIT 1))::loyalty.period_count
    FROM run);
END
$$;
COMMENT ON FUNCTION loyalty.recount_period(integer, bigint, date) IS 'count_period in another way, for check()';
REVOKE ALL ON FUNCTION loyalty.recount_period(integer, bigint, date) FROM PUBLIC;

CREATE FUNCTION loyalty.check_challenges() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET client_min_messages = error
AS $$
    WITH keys AS MATERIALIZED (
        SELECT coalesce(a.merged_into, a.account_id) AS member_id, i.challenge_id, i.period_from
        FROM loyalty.challenge_item i JOIN loyalty.account a ON a.account_id = i.member_id
        UNION SELECT p.member_id, p.challenge_id, p.period_from FROM loyalty.challenge_progress p),
    people AS MATERIALIZED (
        SELECT k.member_id, k.challenge_id FROM keys k UNION SELECT g.member_id, g.challenge_id FROM loyalty.challenge_grant g),
    -- what is named by the rows member and product may have changed since
    sources AS MATERIALIZED (
        SELECT p.purchase_id AS source_id, p.member_id, p.occurred_at, p.recorded_at FROM loyalty.purchase p
        UNION ALL SELECT v.activity_id, v.member_id, v.occurred_at, v.recorded_at FROM loyalty.activity v),
    begun AS MATERIALIZED (SELECT c.program_id, min(c.active_from) AS since FROM loyalty.challenge c GROUP BY 1),
    anew AS MATERIALIZED (
        SELECT n.*, s.recorded_at
        FROM (SELECT array_agg(x.source_id) AS ids
              FROM (SELECT s.source_id, row_number() OVER () / 1000 AS batch
                    FROM begun b JOIN loyalty.account a USING (program_id) JOIN sources s ON s.member_id = a.account_id AND s.occurred_at >= b.since) x
              GROUP BY x.batch) g
             CROSS JOIN LATERAL loyalty.items_of(g.ids) n JOIN sources s USING (source_id))
    SELECT 'the progress of a challenge is the sum of what counts', k.member_id,
           format('challenge %s, period %s: kept %s, counted %s', k.challenge_id, k.period_from, p.progress, n.progress)
        FROM keys k CROSS JOIN LATERAL loyalty.recount_period(k.challenge_id, k.member_id, k.period_from) n
            LEFT JOIN loyalty.challenge_progress p USING (member_id, challenge_id, period_from)
        WHERE (coalesce(p.progress, 0), p.reached_at, p.last_at, p.last_id) IS DISTINCT FROM (n.progress, n.reached_at, n.last_at, n.last_id)
    UNION ALL
    SELECT 'what counts for a challenge is what was bought and kept', coalesce(n.member_id, i.member_id),
           format('challenge %s, transaction %s: kept %s, reckoned %s', coalesce(n.challenge_id, i.challenge_id), coalesce(n.source_id, i.source_id), i.value, n.value)
        FROM anew n FULL JOIN loyalty.challenge_item i USING (source_id, challenge_id)
            JOIN loyalty.challenge c ON c.challenge_id = coalesce(n.challenge_id, i.challenge_id)
        WHERE (n.member_id, n.occurred_at, n.period_from, n.value) IS DISTINCT FROM (i.member_id, i.occurred_at, i.period_from, i.value)
            AND (i.source_id IS NOT NULL OR n.recorded_at > c.created_at)
            AND coalesce(c.condition, '') !~ E'\\m(member|product)\\M'
    UNION ALL
    SELECT 'a challenge is given for the periods that reached it', x.member_id,
           format('challenge %s, period %s: reached %s, given %s', x.challenge_id, x.period_from, x.reached_at, x.given_at)
        FROM (SELECT coalesce(q.member_id, g.member_id) AS member_id, coalesce(q.challenge_id, g.challenge_id) AS challenge_id, coalesce(t.period_from, g.period_from) AS period_from, t.reached_at, g.reached_at AS given_at
              FROM people q CROSS JOIN LATERAL
                  (SELECT * FROM loyalty.challenge_target(q.challenge_id, q.member_id)) t
                  FULL JOIN loyalty.challenge_grant g ON (g.member_id, g.challenge_id, g.period_from) = (q.member_id, q.challenge_id, t.period_from)) x
            LEFT JOIN loyalty.account a ON a.account_id = x.member_id
        WHERE x.reached_at IS DISTINCT FROM x.given_at AND NOT (coalesce(a.closed, false) AND x.given_at IS NULL)
    UNION ALL
    SELECT 'what a challenge gave is in the ledger', g.member_id, format('grant %s: %s of %s points', g.grant_id, coalesce(e.points, 0), c.points)
        FROM loyalty.challenge_grant g JOIN loyalty.challenge c USING (challenge_id) JOIN loyalty.program p USING (program_id)
            LEFT JOIN LATERAL (SELECT sum(n.points) AS points FROM loyalty.entry n WHERE n.source_id = g.grant_id) e ON true
        WHERE coalesce(e.points, 0) <> CASE WHEN g.granted THEN c.points ELSE 0 END
            AND NOT (p.negative = 'clamp' AND e.points BETWEEN 0 AND c.points)
    UNION ALL
    SELECT 'entries of challenges have their grant', e.account_id, format('entry %s', e.seq)
        FROM loyalty.entry e WHERE e.kind = 'challenge' AND NOT EXISTS (SELECT FROM loyalty.challenge_grant g WHERE g.grant_id = e.source_id)
    UNION ALL
    SELECT 'the reward of a challenge is a claim of its member', g.member_id, format('grant %s, claim %s', g.grant_id, g.claim_id)
        FROM loyalty.challenge_grant g JOIN loyalty.challenge c USING (challenge_id)
        WHERE g.claim_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.claim q WHERE q.claim_id = g.claim_id AND q.reward_id = c.reward_id
            AND q.member_id = ANY (loyalty.same_member(g.member_id)) AND q.points = 0 AND starts_with(q.key, 'loyalty:challenge '))
    UNION ALL
    SELECT 'a claim that a challenge gave has its grant', q.member_id, format('claim %s', q.claim_id)
        FROM loyalty.claim q
        WHERE starts_with(q.key, 'loyalty:challenge ') AND q.undone_at IS NULL AND NOT EXISTS (SELECT FROM loyalty.challenge_grant g WHERE g.claim_id = q.claim_id)
$$;
COMMENT ON FUNCTION loyalty.check_challenges() IS 'Invariants of challenges; a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_challenges() FROM PUBLIC;
