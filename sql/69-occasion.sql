/*
 * occasion: birthdays and anniversaries of joining.  A job records each as an
 * activity, so that rules say what it gives, limits apply and explain explains.
 *
 * An occasion is its member's one of a year, however often the job runs and
 * whatever becomes of the date: the activity's reference and the policy's subject
 * are the year in which it is celebrated.
 */

CREATE FUNCTION loyalty.celebration(date date, first_day date, last_day date, leaps_to_march boolean) RETURNS date
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_celebration';
COMMENT ON FUNCTION loyalty.celebration(date, date, date, boolean) IS 'The last day of a span (up to a year) on which a date is celebrated, in a year after its own; NULL where none is';
REVOKE ALL ON FUNCTION loyalty.celebration(date, date, date, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.set_occasion(program_id integer, occasion text, days_before integer DEFAULT 0, held_days integer DEFAULT 30,
        catch_up_days integer DEFAULT 7, leap_day text DEFAULT '02-28') RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF EXISTS (SELECT FROM loyalty.program p WHERE p.program_id = program_id AND p.wallet_of IS NOT NULL) THEN
        RAISE EXCEPTION 'a wallet has no occasions' USING ERRCODE = 'LY162', HINT = 'Those of its programme count in it, too.';
    END IF;
    IF EXISTS (SELECT FROM loyalty.activity_policy q WHERE q.program_id = program_id AND q.kind = occasion AND q.days_before IS NULL) THEN
        RAISE EXCEPTION 'kind "%" has another policy', occasion USING ERRCODE = 'LY162', HINT = 'loyalty.drop_activity_policy takes it away.';
    END IF;
    DELETE FROM loyalty.activity_policy q WHERE q.program_id = program_id AND q.kind = occasion;
    INSERT INTO loyalty.activity_policy (program_id, kind, once_per_subject, days_before, held_days, catch_up_days, leap_day)
        VALUES (program_id, occasion, true, days_before, held_days, catch_up_days, leap_day);
EXCEPTION
    WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION 'an occasion is not valid' USING ERRCODE = 'LY162',
            DETAIL = format('Got %s, days_before %s, held_days %s, catch_up_days %s, leap_day %s.', coalesce(occasion, 'NULL'), coalesce(days_before::text, 'NULL'),
                            coalesce(held_days::text, 'NULL'), coalesce(catch_up_days::text, 'NULL'), coalesce(leap_day, 'NULL')),
            HINT = 'An occasion is birthday or anniversary; days_before from 0 to 60, held_days to 3650, catch_up_days to 180; leap_day is 02-28 or 03-01.';
END
$$;
COMMENT ON FUNCTION loyalty.set_occasion(integer, text, integer, integer, integer, text) IS 'Lets loyalty.birthdays record an activity of kind birthday or anniversary for each member once a year; rules of that kind say what it gives';
REVOKE ALL ON FUNCTION loyalty.set_occasion(integer, text, integer, integer, integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.due_occasions(p loyalty.activity_policy, as_of date, after bigint, batch integer) RETURNS TABLE (member_id bigint, occurred_at timestamptz, year text, years integer)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.member_id, (o.day - p.days_before)::timestamp AT TIME ZONE z.zone, y.year::text, y.year - extract(year FROM t.date)::integer
    FROM loyalty.program g
         JOIN loyalty.member m USING (program_id)
         CROSS JOIN LATERAL (SELECT coalesce(m.time_zone, g.time_zone) AS zone) z
         -- a day begins where the member is; the job's own day may be one that was
         CROSS JOIN LATERAL (SELECT least(as_of, (now() AT TIME ZONE z.zone)::date) AS today,
                                    CASE p.kind WHEN 'birthday' THEN m.birthday ELSE (m.joined_at AT TIME ZONE z.zone)::date END AS date,
                                    (CASE p.kind WHEN 'birthday' THEN m.birthday_since ELSE m.created_at END AT TIME ZONE z.zone)::date AS since) t
         CROSS JOIN LATERAL (SELECT loyalty.celebration(t.date, t.today - p.catch_up_days + p.days_before, t.today + p.days_before, p.leap_day = '03-01') AS day) o
         CROSS JOIN LATERAL (SELECT extract(year FROM o.day)::integer AS year) y
    WHERE g.program_id = p.program_id AND m.member_id > after AND m.member_id < 4000000000000001 AND m.status <> 'closed'
          AND o.day IS NOT NULL AND t.since + p.held_days <= o.day - p.days_before
          AND NOT EXISTS (SELECT FROM loyalty.activity v WHERE v.source = 'loyalty:' || p.kind AND v.reference = m.member_id || ' ' || y.year)
    ORDER BY m.member_id LIMIT batch
$$;
COMMENT ON FUNCTION loyalty.due_occasions(loyalty.activity_policy, date, bigint, integer) IS 'The next members whose occasion is due or was missed, with its time, the year in which it is celebrated and how many years it is';
REVOKE ALL ON FUNCTION loyalty.due_occasions(loyalty.activity_policy, date, bigint, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.celebrate(p loyalty.activity_policy, as_of date, after bigint, batch integer, OUT last bigint, OUT celebrated bigint)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    d record;
    n bigint;
BEGIN
    celebrated := 0;
    SELECT max(q.member_id) INTO last FROM loyalty.due_occasions(p, as_of, after, batch) q;
    -- how old somebody is stays with the birthday
    INSERT INTO loyalty.activity (member_id, occurred_at, kind, value, subject, source, reference)
        SELECT q.member_id, q.occurred_at, p.kind, CASE p.kind WHEN 'anniversary' THEN q.years END, q.year, 'loyalty:' || p.kind, q.member_id || ' ' || q.year
        FROM loyalty.due_occasions(p, as_of, after, batch) q
        ON CONFLICT ON CONSTRAINT activity_reference_key DO NOTHING;
    GET DIAGNOSTICS celebrated = ROW_COUNT;
EXCEPTION WHEN OTHERS THEN
    -- one member whom a rule or a limit refuses keeps nobody else from theirs
    IF left(SQLSTATE, 2) <> 'LY' THEN
        RAISE;
    END IF;
    IF batch = 1 THEN
        RAISE WARNING 'birthdays: the % of member % is not recorded: %', p.kind, last, SQLERRM USING ERRCODE = SQLSTATE;
        RETURN;
    END IF;
    last := after;
    FOR i IN 1 .. batch LOOP
        SELECT c.last, c.celebrated INTO d FROM loyalty.celebrate(p, as_of, last, 1) c;
        EXIT WHEN d.last IS NULL;
        last := d.last;
        celebrated := celebrated + d.celebrated;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.celebrate(loyalty.activity_policy, date, bigint, integer) IS 'Records the next occasions; where one is refused, one by one. Returns the last member, NULL where none is left, and how many';
REVOKE ALL ON FUNCTION loyalty.celebrate(loyalty.activity_policy, date, bigint, integer) FROM PUBLIC;

CREATE PROCEDURE loyalty.birthdays(as_of date DEFAULT NULL, batch integer DEFAULT 500)
    LANGUAGE plpgsql
AS $$
DECLARE
    day date;
    policy loyalty.activity_policy;
    zone text;
    done record;
    after bigint;
    celebrated bigint := 0;
BEGIN
    FOR policy IN SELECT q.* FROM loyalty.activity_policy q WHERE q.days_before IS NOT NULL ORDER BY q.program_id, q.kind LOOP
        SELECT p.time_zone INTO zone FROM loyalty.program p WHERE p.program_id = policy.program_id;
        PERFORM loyalty.job_day(as_of, zone, batch);
        after := 0;
        LOOP
            SELECT * INTO done FROM loyalty.celebrate(policy, as_of, after, batch);
            EXIT WHEN done.last IS NULL;
            after := done.last;
            celebrated := celebrated + done.celebrated;
            COMMIT;
        END LOOP;
    END LOOP;
    RAISE NOTICE 'birthdays: recorded % birthdays and anniversaries', celebrated;
END
$$;
COMMENT ON PROCEDURE loyalty.birthdays(date, integer) IS 'Records the birthdays and anniversaries of a day (today where each member is), and those missed lately, a batch a transaction; each once a year. See set_occasion';
REVOKE ALL ON PROCEDURE loyalty.birthdays(date, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.check_occasions() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'an occasion was decided on, as its member''s one of the year', v.member_id, format('activity %s', v.activity_id)
        FROM loyalty.activity v LEFT JOIN loyalty.activity_admission a USING (activity_id)
        WHERE v.source IN ('loyalty:birthday', 'loyalty:anniversary')
              AND (a.activity_id IS NULL OR 'loyalty:' || a.kind <> v.source OR NOT v.reference LIKE '% ' || a.subject)
    UNION ALL
    SELECT 'a birthday is known since some time', m.member_id, NULL
        FROM loyalty.member m WHERE (m.birthday IS NULL) <> (m.birthday_since IS NULL)
$$;
COMMENT ON FUNCTION loyalty.check_occasions() IS 'The invariants of birthdays and anniversaries that are broken';
REVOKE ALL ON FUNCTION loyalty.check_occasions() FROM PUBLIC;
