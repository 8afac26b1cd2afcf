/*
 * cap: what single rules may give, to a member in a period and in all.  What
 * was given is counted here; the caps themselves stand in the rules' versions.
 */
CREATE TABLE loyalty.cap_state (
    rule_id     integer NOT NULL,
    period      text NOT NULL CHECK (period IN ('day', 'week', 'month', 'year', 'ever')),
    member_id   bigint NOT NULL,
    from_day    date NOT NULL,
    used        bigint NOT NULL CHECK (used >= 0),
    PRIMARY KEY (member_id, rule_id, period, from_day)
) WITH (fillfactor = 70);
COMMENT ON TABLE loyalty.cap_state IS 'What a capped rule gave to a member in a period, in smallest units of points. Written by the engine alone, under the lock of the member''s account';
COMMENT ON COLUMN loyalty.cap_state.from_day IS 'First day of the period, in the programme''s time zone; -infinity: ever';

CREATE TABLE loyalty.cap_use (
    source_id   bigint NOT NULL,
    rule_version_id integer NOT NULL,
    member_id   bigint NOT NULL,
    day         date NOT NULL,
    granted     bigint NOT NULL CHECK (granted >= 0),
    active      boolean NOT NULL,
    budgeted    boolean NOT NULL,
    allowed     bigint,
    wanted      numeric NOT NULL,
    PRIMARY KEY (source_id, rule_version_id)
);
CREATE INDEX cap_use_rule_version_id_idx ON loyalty.cap_use (rule_version_id);
COMMENT ON TABLE loyalty.cap_use IS 'What each transaction was given by each capped rule version: what a correction, a void or a full return gives back';
COMMENT ON COLUMN loyalty.cap_use.member_id IS 'Whose caps count it';
COMMENT ON COLUMN loyalty.cap_use.day IS 'The day that it counts on';
COMMENT ON COLUMN loyalty.cap_use.granted IS 'Smallest units of points, as the entries'' breakdowns say';
COMMENT ON COLUMN loyalty.cap_use.active IS 'false: given back, for the whole purchase came back';
COMMENT ON COLUMN loyalty.cap_use.budgeted IS 'It is of the rule''s budget';
COMMENT ON COLUMN loyalty.cap_use.allowed IS 'What was left where the rule wanted more; NULL: there was enough';
COMMENT ON COLUMN loyalty.cap_use.wanted IS 'What it wanted to give, exactly, in smallest units';

CREATE TABLE loyalty.rule_budget (
    rule_id     integer PRIMARY KEY,
    budget      numeric NOT NULL CHECK (budget >= 0 AND budget <= 1e15),
    stock_id    bigint NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    changed_by  name NOT NULL DEFAULT session_user,
    reason      text
);
COMMENT ON TABLE loyalty.rule_budget IS 'What a rule may give to all members together, in whole points; what is left of it lies in shares (stock_share)';
COMMENT ON COLUMN loyalty.rule_budget.stock_id IS 'Where its shares are';
COMMENT ON COLUMN loyalty.rule_budget.created_at IS 'Awards that were decided before are not of the budget';

CREATE FUNCTION loyalty.cap_units(caps jsonb, points_scale integer) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN caps IS NOT NULL THEN
        ARRAY(SELECT ((caps ->> p.period)::numeric * 10::numeric ^ points_scale)::bigint
              FROM unnest('{day,week,month,year,ever}'::text[]) WITH ORDINALITY AS p (period, n) ORDER BY p.n) END
$$;
COMMENT ON FUNCTION loyalty.cap_units(jsonb, integer) IS 'The caps of a rule per day, week, month, year and ever, in smallest units; NULL where it has none';
REVOKE ALL ON FUNCTION loyalty.cap_units(jsonb, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.cap_from(day date, period text) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE period WHEN 'ever' THEN '-infinity'::date ELSE date_trunc(period, day::timestamp)::date END $$;
COMMENT ON FUNCTION loyalty.cap_from(date, text) IS 'The first day of the period of a cap that a day lies in; weeks begin on Monday';
REVOKE ALL ON FUNCTION loyalty.cap_from(date, text) FROM PUBLIC;

CREATE FUNCTION loyalty.cap_words(caps jsonb, budget numeric, points_name text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce('; at most ' || string_agg(format('%s %s %s', c.value ->> 0, points_name,
                CASE c.key WHEN 'ever' THEN 'a member ever' ELSE 'a member and ' || c.key END), ', ' ORDER BY array_position('{day,week,month,year,ever}', c.key)), '')
           || CASE WHEN budget IS NOT NULL THEN format('; at most %s %s to all members together', budget, points_name) ELSE '' END
    FROM jsonb_each(coalesce(caps, '{}')) c
$$;
COMMENT ON FUNCTION loyalty.cap_words(jsonb, numeric, text) IS 'The caps and the budget of a rule, in plain words';
REVOKE ALL ON FUNCTION loyalty.cap_words(jsonb, numeric, text) FROM PUBLIC;
