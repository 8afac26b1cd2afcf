/*
 * jobs: procedures that commit in batches and may be stopped and run again.
 * No balance depends on them.
 */

CREATE FUNCTION loyalty.job_day(as_of date, time_zone text, batch integer) RETURNS date
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    today date := (now() AT TIME ZONE time_zone)::date;
BEGIN
    IF batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'batch must be at least 1' USING ERRCODE = 'LY110', DETAIL = format('Got %s.', coalesce(batch::text, 'NULL'));
    END IF;
    IF as_of > today THEN
        RAISE EXCEPTION 'jobs cannot run as of %, which is still to come', as_of
            USING ERRCODE = 'LY102', DETAIL = format('Today is %s in %s.', today, time_zone),
                  HINT = 'What they write is never taken back; loyalty.balance shows any future day without writing.';
    END IF;
    RETURN coalesce(as_of, today);
END
$$;
COMMENT ON FUNCTION loyalty.job_day(date, text, integer) IS 'The day of a job in a programme''s zone; refuses days to come, on which points and tiers are still good';
REVOKE ALL ON FUNCTION loyalty.job_day(date, text, integer) FROM PUBLIC;

CREATE PROCEDURE loyalty.close_expired(as_of date DEFAULT NULL, batch integer DEFAULT 100)
    LANGUAGE plpgsql
AS $$
DECLARE
    last bigint := 0;
    ids bigint[];
    closed bigint := 0;
    seen bigint := 0;
    day date;
    program record;
BEGIN
    FOR program IN SELECT p.program_id, p.time_zone, p.expiry = 'sliding' AS slides FROM loyalty.program p ORDER BY 1 LOOP
        day := loyalty.job_day(as_of, program.time_zone, batch);
        last := 0;
        LOOP
            -- lots say themselves when they die, but where points slide or a hold has frozen some
            SELECT pg_catalog.array_agg(x.account_id ORDER BY x.account_id), pg_catalog.max(x.account_id) INTO ids, last
                FROM (SELECT a.account_id FROM loyalty.account a
                      WHERE a.account_id > last AND a.program_id = program.program_id
                            AND CASE WHEN a.holds IS NULL AND NOT program.slides THEN loyalty.expired(a.lots, day)
                                     ELSE loyalty.expired((loyalty.lots_at(a.program_id, a.lots, a.holds, a.last_event_at, now())).free, day) END > 0
                      ORDER BY a.account_id LIMIT batch) x;
            EXIT WHEN ids IS NULL;
            closed := closed + loyalty.post_expiry(ids, day);
            seen := seen + pg_catalog.cardinality(ids);
            COMMIT;
            RAISE DEBUG 'close_expired: % accounts', seen;
        END LOOP;
    END LOOP;
    RAISE NOTICE 'close_expired: closed the dead lots of % accounts', closed;
END
$$;
COMMENT ON PROCEDURE loyalty.close_expired(date, integer) IS 'Writes closing entries for lots that are dead on a day (today in each programme''s zone), a batch a transaction. For the books: dead lots are unspendable without it';
REVOKE ALL ON PROCEDURE loyalty.close_expired(date, integer) FROM PUBLIC;

CREATE PROCEDURE loyalty.review_tiers(as_of date DEFAULT NULL, batch integer DEFAULT 1000)
    LANGUAGE plpgsql
AS $$
DECLARE
    last bigint := 0;
    ids bigint[];
    changed bigint := 0;
    day date;
    program record;
BEGIN
    FOR program IN SELECT p.program_id, p.time_zone FROM loyalty.program p ORDER BY 1 LOOP
        day := loyalty.job_day(as_of, program.time_zone, batch);
        last := 0;
        LOOP
            SELECT pg_catalog.array_agg(x.account_id ORDER BY x.account_id), pg_catalog.max(x.account_id) INTO ids, last
                FROM (SELECT a.account_id FROM loyalty.account a
                      WHERE a.account_id > last AND a.program_id = program.program_id
                            AND a.tier_id IS NOT NULL AND a.tier_until < day
                      ORDER BY a.account_id LIMIT batch) x;
            EXIT WHEN ids IS NULL;
            changed := changed + loyalty.post_review(ids, day);
            COMMIT;
        END LOOP;
    END LOOP;
    RAISE NOTICE 'review_tiers: reviewed the tiers of % accounts', changed;
END
$$;
COMMENT ON PROCEDURE loyalty.review_tiers(date, integer) IS 'Renews or lowers, by the programme''s policy, tiers whose term ended before a day; a batch a transaction';
REVOKE ALL ON PROCEDURE loyalty.review_tiers(date, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.schedule() RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'pg_cron') THEN
        RETURN 'pg_cron is not installed; CALL loyalty.close_expired() and loyalty.review_tiers() daily, and loyalty.birthdays() and loyalty.fold_copurchase() (which refreshes analysis) hourly, by any scheduler';
    END IF;
    EXECUTE 'SELECT cron.schedule(''loyalty close_expired'', ''10 3 * * *'', ''CALL loyalty.close_expired()'')';
    EXECUTE 'SELECT cron.schedule(''loyalty review_tiers'', ''40 3 * * *'', ''CALL loyalty.review_tiers()'')';
    -- days begin at another hour in other time zones
    EXECUTE 'SELECT cron.schedule(''loyalty birthdays'', ''20 * * * *'', ''CALL loyalty.birthdays()'')';
    EXECUTE 'SELECT cron.schedule(''loyalty fold_copurchase'', ''50 * * * *'', ''CALL loyalty.fold_copurchase()'')';
    RETURN 'scheduled close_expired at 03:10, review_tiers at 03:40, birthdays at 20 and fold_copurchase, which refreshes analysis, at 50 minutes past every hour';
END
$$;
COMMENT ON FUNCTION loyalty.schedule() IS 'Registers the jobs with pg_cron where it is installed';
REVOKE ALL ON FUNCTION loyalty.schedule() FROM PUBLIC;
