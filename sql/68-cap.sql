/*
 * cap: caps and budgets of rules are made, changed, shown and checked here.
 */
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.rule_budget
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.rule_budget
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');

CREATE FUNCTION loyalty.check_caps(name text, caps jsonb, points_scale integer) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    c record;
BEGIN
    IF caps IS NULL OR jsonb_typeof(caps) = 'null' OR caps = '{}' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(caps) <> 'object' THEN
        RAISE EXCEPTION 'caps of rule "%" are not an object', name USING ERRCODE = 'LY201', HINT = 'For example {"day": 50, "month": 500}.';
    END IF;
    FOR c IN SELECT e.key, e.value FROM jsonb_each(caps) e LOOP
        IF c.key NOT IN ('day', 'week', 'month', 'year', 'ever') THEN
            RAISE EXCEPTION 'rule "%" has a cap per "%"', name, c.key USING ERRCODE = 'LY201', HINT = 'A cap is per day, week, month, year or ever.';
        END IF;
        IF jsonb_typeof(c.value) <> 'number' OR NOT coalesce((c.value ->> 0)::numeric BETWEEN 0 AND 1e15 / 10::numeric ^ points_scale
               AND (c.value ->> 0)::numeric = round((c.value ->> 0)::numeric, points_scale), false) THEN
            RAISE EXCEPTION 'the cap of rule "%" per % is not a number of points', name, c.key
                USING ERRCODE = 'LY201', DETAIL = format('It is %s.', c.value), HINT = 'At most 10^15 of the smallest unit, and whole ones.';
        END IF;
    END LOOP;
    RETURN caps;
END
$$;
COMMENT ON FUNCTION loyalty.check_caps(text, jsonb, integer) IS 'Caps of a rule as they are kept, or LY201; NULL: none';
REVOKE ALL ON FUNCTION loyalty.check_caps(text, jsonb, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.set_budget(program_id integer, rule text, budget numeric, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    scale integer;
    b loyalty.rule_budget;
    units bigint;
    remaining bigint;
    spent bigint;
BEGIN
    PERFORM loyalty.require_program(program_id);
    SELECT r.rule_id, p.points_scale INTO id, scale FROM loyalty.rule r JOIN loyalty.program p USING (program_id)
        WHERE r.program_id = program_id AND r.name = rule FOR NO KEY UPDATE OF r;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'programme % has no rule "%"', program_id, rule USING ERRCODE = 'LY205', HINT = 'loyalty.add_rule makes one.';
    END IF;
    IF budget IS NULL OR NOT budget BETWEEN 0 AND 1e15 / 10::numeric ^ scale OR budget <> round(budget, scale) THEN
        RAISE EXCEPTION 'the budget of rule "%" is not a number of points', rule
            USING ERRCODE = 'LY201', DETAIL = format('It is %s.', coalesce(budget::text, 'NULL')), HINT = 'At most 10^15 of the smallest unit, and whole ones.';
    END IF;
    units := budget * 10::numeric ^ scale;
    SELECT * INTO b FROM loyalty.rule_budget q WHERE q.rule_id = id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO loyalty.rule_budget (rule_id, budget, stock_id, reason) VALUES (id, trim_scale(budget), loyalty.make_stock(units), reason);
        RETURN;
    END IF;
    -- whoever takes or gives back is waited for
    PERFORM FROM loyalty.stock_share s WHERE s.stock_id = b.stock_id ORDER BY s.share FOR UPDATE;
    remaining := loyalty.stock_left(b.stock_id);
    spent := b.budget * 10::numeric ^ scale - remaining;
    IF units < spent THEN
        RAISE EXCEPTION 'the budget of rule "%" cannot be less than what it gave', rule
            USING ERRCODE = 'LY201', DETAIL = format('It gave %s; the budget would be %s.', trim_scale(spent / 10::numeric ^ scale), budget), HINT = 'loyalty.retire_rule ends the rule.';
    END IF;
    IF units - spent > remaining THEN
        PERFORM loyalty.add_stock(b.stock_id, units - spent - remaining);
    ELSIF units - spent < remaining THEN
        PERFORM loyalty.take_waiting(b.stock_id, remaining - (units - spent));
    END IF;
    UPDATE loyalty.rule_budget q SET budget = trim_scale(budget), changed_at = now(), changed_by = session_user, reason = reason WHERE q.rule_id = id;
END
$$;
COMMENT ON FUNCTION loyalty.set_budget(integer, text, numeric, text) IS 'What a rule may give to all members together, in whole points, from now on; raised or lowered any time, never below what it gave';
REVOKE ALL ON FUNCTION loyalty.set_budget(integer, text, numeric, text) FROM PUBLIC;

CREATE FUNCTION loyalty.take_free(stock_id bigint, wanted bigint) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    s record;
    taken bigint := 0;
BEGIN
    FOR s IN SELECT q.share, q.remaining FROM loyalty.stock_share q WHERE q.stock_id = stock_id AND q.remaining > 0 ORDER BY q.share LOOP
        EXIT WHEN taken >= wanted;
        SELECT q.share, q.remaining INTO s FROM loyalty.stock_share q WHERE q.stock_id = stock_id AND q.share = s.share FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND OR s.remaining = 0;
        UPDATE loyalty.stock_share q SET remaining = q.remaining - least(s.remaining, wanted - taken) WHERE q.stock_id = stock_id AND q.share = s.share;
        taken := taken + least(s.remaining, wanted - taken);
    END LOOP;
    RETURN taken;
END
$$;
COMMENT ON FUNCTION loyalty.take_free(bigint, bigint) IS 'Takes so much from shares that nobody holds, or all that is in them';
REVOKE ALL ON FUNCTION loyalty.take_free(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.take_budget(stock_id bigint, wanted bigint, may_wait boolean) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    taken bigint;
BEGIN
    IF loyalty.take_stock(stock_id, wanted, false) THEN
        RETURN wanted;
    END IF;
    BEGIN
        taken := loyalty.take_free(stock_id, wanted);
        IF taken = wanted OR NOT may_wait OR loyalty.stock_left(stock_id) = 0 THEN
            RETURN taken;
        END IF;
        -- shares are let go before others are waited for, or two might wait for each other
        RAISE EXCEPTION 'others hold the rest' USING ERRCODE = '55P03';
    EXCEPTION WHEN lock_not_available THEN
        PERFORM FROM loyalty.stock_share q WHERE q.stock_id = stock_id AND q.remaining > 0 ORDER BY q.share FOR NO KEY UPDATE;
    END;
    RETURN loyalty.take_free(stock_id, wanted);
END
$$;
COMMENT ON FUNCTION loyalty.take_budget(bigint, bigint, boolean) IS 'Takes so much of a budget, or what is left of it: from a share that nobody holds, else from several; only where these are not enough it waits, if it may, for those who hold the others';
REVOKE ALL ON FUNCTION loyalty.take_budget(bigint, bigint, boolean) FROM PUBLIC;

CREATE VIEW loyalty.budget_status AS
    SELECT r.program_id, r.name AS rule, b.budget, b.budget - l.remaining AS spent, l.remaining AS "left", b.changed_at
    FROM loyalty.rule_budget b JOIN loyalty.rule r USING (rule_id) JOIN loyalty.program p USING (program_id)
        CROSS JOIN LATERAL (SELECT trim_scale(coalesce(sum(s.remaining), 0) / 10::numeric ^ p.points_scale) AS remaining
                            FROM loyalty.stock_share s WHERE s.stock_id = b.stock_id) l;
COMMENT ON VIEW loyalty.budget_status IS 'Budgets of rules: what was given of them and what is left, in whole points';

CREATE FUNCTION loyalty.cap_status(member_id bigint)
    RETURNS TABLE (name text, event text, maximum numeric, period text, used numeric, renews_on date)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.name, v.event, trim_scale((c.value ->> 0)::numeric), c.key,
           trim_scale(coalesce(s.used, 0) / 10::numeric ^ p.points_scale), (f.from_day + ('1 ' || nullif(c.key, 'ever'))::interval)::date
    FROM loyalty.member m
        JOIN loyalty.program p ON p.program_id = m.program_id OR p.wallet_of = m.program_id
        JOIN loyalty.rule r ON r.program_id = p.program_id
        JOIN loyalty.rule_version v USING (rule_id)
        CROSS JOIN LATERAL jsonb_each(v.caps) c
        CROSS JOIN LATERAL (SELECT loyalty.cap_from((now() AT TIME ZONE p.time_zone)::date, c.key) AS from_day) f
        LEFT JOIN loyalty.cap_state s ON s.member_id = m.member_id AND s.rule_id = r.rule_id AND s.period = c.key AND s.from_day = f.from_day
    WHERE m.member_id = cap_status.member_id AND v.active_from <= now() AND least(v.active_until, v.retired_from) > now()
$$;
COMMENT ON FUNCTION loyalty.cap_status(bigint) IS 'What each capped rule gave a member in the period that runs';
REVOKE ALL ON FUNCTION loyalty.cap_status(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Invariants, for check()
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_caps() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH capped AS (SELECT v.rule_version_id FROM loyalty.rule_version v WHERE v.caps IS NOT NULL),
    given AS MATERIALIZED (
        SELECT e.source_id, b.rule_version_id, sum(b.points) AS points
        FROM loyalty.entry e CROSS JOIN LATERAL loyalty.breakdown_rules(e.breakdown) b
        WHERE EXISTS (SELECT FROM loyalty.rule_version v WHERE v.caps IS NOT NULL) OR EXISTS (SELECT FROM loyalty.rule_budget)
        GROUP BY 1, 2),
    counted AS (
        SELECT v.rule_id, c.key AS period, u.member_id, loyalty.cap_from(u.day, c.key) AS from_day, sum(u.granted) AS used
        FROM loyalty.cap_use u JOIN loyalty.rule_version v USING (rule_version_id) CROSS JOIN LATERAL jsonb_each(v.caps) c
        WHERE u.active GROUP BY 1, 2, 3, 4),
    most AS (
        SELECT v.rule_id, c.key AS period, max((c.value ->> 0)::numeric * 10::numeric ^ p.points_scale) AS maximum
        FROM loyalty.rule_version v JOIN loyalty.rule r USING (rule_id) JOIN loyalty.program p USING (program_id) CROSS JOIN LATERAL jsonb_each(v.caps) c GROUP BY 1, 2)
    SELECT 'what a capped rule gave is what the entries say', u.member_id, format('source %s, rule version %s: %s, entries %s', g.source_id, g.rule_version_id, u.granted, g.points)
        FROM given g LEFT JOIN loyalty.cap_use u USING (source_id, rule_version_id)
        WHERE CASE WHEN u.source_id IS NULL THEN g.points > 0 AND g.rule_version_id IN (SELECT k.rule_version_id FROM capped k)
                   ELSE u.active AND u.granted <> g.points END
    UNION ALL
    SELECT 'what a capped rule gave is what the entries say', u.member_id, format('source %s, rule version %s: %s, no entry', u.source_id, u.rule_version_id, u.granted)
        FROM loyalty.cap_use u
        WHERE u.granted > 0 AND NOT EXISTS (SELECT FROM given g WHERE g.source_id = u.source_id AND g.rule_version_id = u.rule_version_id)
    UNION ALL
    SELECT 'a cap''s counter is the sum of what was given', coalesce(s.member_id, c.member_id), format('rule %s, %s from %s: %s, given %s', coalesce(s.rule_id, c.rule_id), coalesce(s.period, c.period), coalesce(s.from_day, c.from_day), s.used, c.used)
        FROM loyalty.cap_state s FULL JOIN counted c ON c.rule_id = s.rule_id AND c.period = s.period AND c.member_id = s.member_id AND c.from_day = s.from_day
        WHERE coalesce(s.used, 0) <> coalesce(c.used, 0)
    UNION ALL
    SELECT 'nobody is given more than a cap', s.member_id, format('rule %s, %s from %s: %s of %s', s.rule_id, s.period, s.from_day, s.used, m.maximum)
        FROM loyalty.cap_state s LEFT JOIN most m USING (rule_id, period)
        WHERE s.used > coalesce(m.maximum, 0)
    UNION ALL
    SELECT 'a budget is what is left and what was given', NULL, format('rule %s: budget %s, left %s, given %s', b.rule_id, b.budget, l.remaining, coalesce(g.given, 0))
        FROM loyalty.rule_budget b JOIN loyalty.rule r USING (rule_id) JOIN loyalty.program p USING (program_id)
            CROSS JOIN LATERAL (SELECT coalesce(sum(s.remaining), 0) AS remaining FROM loyalty.stock_share s WHERE s.stock_id = b.stock_id) l
            CROSS JOIN LATERAL (SELECT sum(u.granted) AS given FROM loyalty.cap_use u JOIN loyalty.rule_version v USING (rule_version_id)
                                WHERE v.rule_id = b.rule_id AND u.active AND u.budgeted) g
        WHERE b.budget * 10::numeric ^ p.points_scale <> l.remaining + coalesce(g.given, 0)
    UNION ALL
    SELECT 'what counts for a cap is a transaction that stands', u.member_id, format('source %s', u.source_id)
        FROM loyalty.cap_use u LEFT JOIN loyalty.purchase p ON p.purchase_id = u.source_id
            LEFT JOIN loyalty.activity a ON a.activity_id = u.source_id
        WHERE u.active AND u.granted > 0 AND (coalesce(p.status, a.status, 'void') = 'void' OR EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = u.source_id AND d.complete))
$$;
COMMENT ON FUNCTION loyalty.check_caps() IS 'The invariants of caps and budgets of rules, a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_caps() FROM PUBLIC;
