/*
 * fold: what is bought together, kept up to date.
 *
 * A day's statistics (copurchase_day) are a function of its purchases less what
 * came back of them, without members who may not be analysed.  refresh_analysis
 * notes what it made facts of: purchases that are new (copurchase_added), whose
 * baskets are added to their day, and days of which a purchase changed
 * (copurchase_stale), which are counted anew.  The total of a programme is the sum
 * of the days of its window, and changes with them in the same transaction.
 *
 * Nothing stands on the way of an insert.  Lock order: copurchase_run, then
 * analysis_run, then the days.
 */
CREATE TABLE loyalty.copurchase_setting (
    program_id      integer PRIMARY KEY,
    window_days     integer NOT NULL DEFAULT 365 CHECK (window_days BETWEEN 1 AND 3650),
    max_items       integer NOT NULL DEFAULT 500 CHECK (max_items BETWEEN 2 AND 100000),
    min_count       bigint NOT NULL DEFAULT 3 CHECK (min_count >= 1),
    measure         text NOT NULL DEFAULT 'cosine'
        CHECK (measure IN ('count', 'confidence', 'lift', 'leverage', 'conviction', 'jaccard', 'cosine', 'kulczynski', 'chi_square', 'log_likelihood')),
    skip_days       integer NOT NULL DEFAULT 14 CHECK (skip_days BETWEEN 0 AND 3650),
    accept_days     integer NOT NULL DEFAULT 1 CHECK (accept_days BETWEEN 0 AND 365),
    set_at          timestamptz NOT NULL DEFAULT now(),
    set_by          name NOT NULL DEFAULT session_user
);
COMMENT ON TABLE loyalty.copurchase_setting IS 'What co-purchase and suggestions of a programme go by; see set_copurchase. Programmes without a row go by the defaults';
COMMENT ON COLUMN loyalty.copurchase_setting.window_days IS 'The total is of so many days back from today';
COMMENT ON COLUMN loyalty.copurchase_setting.max_items IS 'A basket of more distinct articles counts no pairs';
COMMENT ON COLUMN loyalty.copurchase_setting.min_count IS 'A pair is spoken of when so many baskets held it';
COMMENT ON COLUMN loyalty.copurchase_setting.measure IS 'What suggestions are ordered by; see also_bought';
COMMENT ON COLUMN loyalty.copurchase_setting.skip_days IS 'What a member bought in so many days is not suggested';
COMMENT ON COLUMN loyalty.copurchase_setting.accept_days IS 'A suggestion is accepted when its member buys it within so many days';

CREATE VIEW loyalty.copurchase_policy AS
    SELECT g.program_id, coalesce(s.window_days, 365) AS window_days, coalesce(s.max_items, 500) AS max_items, coalesce(s.min_count, 3) AS min_count,
           coalesce(s.measure, 'cosine') AS measure, coalesce(s.skip_days, 14) AS skip_days, coalesce(s.accept_days, 1) AS accept_days,
           (now() AT TIME ZONE g.time_zone)::date - coalesce(s.window_days, 365) + 1 AS from_day
    FROM loyalty.program g LEFT JOIN loyalty.copurchase_setting s USING (program_id)
    WHERE g.wallet_of IS NULL;
COMMENT ON VIEW loyalty.copurchase_policy IS 'What co-purchase and suggestions of each programme go by, and the first day of its window';

CREATE TABLE loyalty.copurchase_run (
    only_one        boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    horizon         xid8,
    started_at      timestamptz,
    fresh_at        timestamptz,
    finished_at     timestamptz
);
COMMENT ON TABLE loyalty.copurchase_run IS 'How far fold_copurchase came: one row, locked by each of its batches; none before the first';
COMMENT ON COLUMN loyalty.copurchase_run.horizon IS 'Consents, erasures and settings that transactions before it wrote are in';
COMMENT ON COLUMN loyalty.copurchase_run.fresh_at IS 'All that was committed by then is in';

CREATE TABLE loyalty.copurchase_added (
    purchase_id     bigint PRIMARY KEY,
    program_id      integer NOT NULL,
    day             date NOT NULL
);
CREATE INDEX copurchase_added_day_idx ON loyalty.copurchase_added (program_id, day);
COMMENT ON TABLE loyalty.copurchase_added IS 'Purchases that are not in the statistics of their day yet';

CREATE TABLE loyalty.copurchase_stale (
    program_id      integer NOT NULL,
    day             date NOT NULL,
    PRIMARY KEY (program_id, day)
);
COMMENT ON TABLE loyalty.copurchase_stale IS 'Days whose statistics are to be counted anew';

CREATE TABLE loyalty.copurchase_day (
    program_id      integer NOT NULL,
    day             date NOT NULL,
    baskets         loyalty.copurchase NOT NULL,
    folded_at       timestamptz NOT NULL,
    PRIMARY KEY (program_id, day)
);
COMMENT ON TABLE loyalty.copurchase_day IS 'What was bought together on each day, in the programme''s zone';

CREATE TABLE loyalty.copurchase_total (
    program_id      integer PRIMARY KEY,
    from_day        date NOT NULL,
    max_items       integer NOT NULL,
    baskets         loyalty.copurchase,
    folded_at       timestamptz NOT NULL,
    listed_at       timestamptz,
    listed_count    bigint
);
COMMENT ON TABLE loyalty.copurchase_total IS 'The sum of the days of each programme''s window';
COMMENT ON COLUMN loyalty.copurchase_total.max_items IS 'Setting that its days were counted with';
COMMENT ON COLUMN loyalty.copurchase_total.listed_at IS 'folded_at of what its foremost pairs were listed of; NULL: not yet';
COMMENT ON COLUMN loyalty.copurchase_total.listed_count IS 'min_count that they were listed with';

CREATE TABLE loyalty.copurchase_pair (
    program_id      integer NOT NULL,
    rank            integer NOT NULL,
    a text NOT NULL, b text NOT NULL, n bigint NOT NULL, n_a bigint NOT NULL, n_b bigint NOT NULL, n_ab bigint NOT NULL,
    support float8, confidence_ab float8, confidence_ba float8, lift float8, leverage float8, conviction_ab float8, conviction_ba float8,
    jaccard float8, cosine float8, kulczynski float8, imbalance_ratio float8, chi_square float8, log_likelihood float8,
    PRIMARY KEY (program_id, rank)
);
COMMENT ON TABLE loyalty.copurchase_pair IS 'The thousand pairs of each programme''s total that are bought together most clearly more often than by chance: by log_likelihood, lift above 1';

CREATE FUNCTION loyalty.set_copurchase(program_id integer, window_days integer DEFAULT 365, max_items integer DEFAULT 500, min_count bigint DEFAULT 3,
        measure text DEFAULT 'cosine', skip_days integer DEFAULT 14, accept_days integer DEFAULT 1) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF (SELECT g.wallet_of FROM loyalty.program g WHERE g.program_id = program_id) IS NOT NULL THEN
        RAISE EXCEPTION 'a setting of co-purchase is not valid' USING ERRCODE = 'LY813', DETAIL = 'The programme is a wallet.', HINT = 'Set it for the programme whose wallet it is.';
    END IF;
    INSERT INTO loyalty.copurchase_setting (program_id, window_days, max_items, min_count, measure, skip_days, accept_days)
        VALUES (program_id, window_days, max_items, min_count, measure, skip_days, accept_days)
        ON CONFLICT ON CONSTRAINT copurchase_setting_pkey DO UPDATE SET window_days = excluded.window_days, max_items = excluded.max_items, min_count = excluded.min_count,
            measure = excluded.measure, skip_days = excluded.skip_days, accept_days = excluded.accept_days, set_at = now(), set_by = session_user;
EXCEPTION
    WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION 'a setting of co-purchase is not valid' USING ERRCODE = 'LY813', DETAIL = SQLERRM,
            HINT = 'window_days from 1 to 3650, max_items from 2 to 100000, min_count from 1, skip_days to 3650, accept_days to 365; measure is one that also_bought knows.';
END
$$;
COMMENT ON FUNCTION loyalty.set_copurchase(integer, integer, integer, bigint, text, integer, integer) IS 'Says what co-purchase and suggestions of a programme go by: how many days back, the largest basket whose pairs count, how many baskets make a pair, what suggestions are ordered by, for how long what was bought is not suggested again, and when a suggestion counts as accepted';
REVOKE ALL ON FUNCTION loyalty.set_copurchase(integer, integer, integer, bigint, text, integer, integer) FROM PUBLIC;

/* --- what refresh_analysis notes ----------------------------------------- */

CREATE FUNCTION loyalty.note_baskets_before(ids bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.copurchase_run) THEN
        RETURN NULL;            -- the first fold looks at every day
    END IF;
    INSERT INTO loyalty.copurchase_stale
        SELECT DISTINCT f.program_id, f.day FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (ids)
        ON CONFLICT DO NOTHING;
    RETURN ARRAY(SELECT f.purchase_id FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (ids));
END
$$;
COMMENT ON FUNCTION loyalty.note_baskets_before(bigint[]) IS 'Notes, before the facts of purchases are made anew, the days that they counted for; returns those that had facts';
REVOKE ALL ON FUNCTION loyalty.note_baskets_before(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.note_baskets_after(ids bigint[], known bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF known IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO loyalty.copurchase_stale
        SELECT DISTINCT f.program_id, f.day FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (known)
        ON CONFLICT DO NOTHING;
    INSERT INTO loyalty.copurchase_added
        SELECT f.purchase_id, f.program_id, f.day
        FROM unnest(ids) i (purchase_id) JOIN loyalty.analysis_purchase f USING (purchase_id)
        WHERE NOT EXISTS (SELECT FROM unnest(known) k WHERE k = i.purchase_id)
        ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION loyalty.note_baskets_after(bigint[], bigint[]) IS 'Notes, when the facts of purchases were made anew, those that are new and the days of the others';
REVOKE ALL ON FUNCTION loyalty.note_baskets_after(bigint[], bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.forget_baskets() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM loyalty.copurchase_run;
    DELETE FROM loyalty.copurchase_added;
    DELETE FROM loyalty.copurchase_stale;
END
$$;
COMMENT ON FUNCTION loyalty.forget_baskets() IS 'Lets the next fold count every day anew';
REVOKE ALL ON FUNCTION loyalty.forget_baskets() FROM PUBLIC;

/* --- counting ------------------------------------------------------------ */

CREATE FUNCTION loyalty.kept_lines(p loyalty.purchase) RETURNS loyalty.line[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id) THEN
        RETURN p.lines;
    END IF;
    IF EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id AND d.complete) THEN
        RETURN '{}';
    END IF;
    -- a price reduction takes no article out of a basket
    RETURN ARRAY(SELECT p.lines[r.line] FROM loyalty.returned_lines(p) r LEFT JOIN loyalty.named_returns(p.purchase_id) n ON n.line = r.line OR (n.line IS NULL AND n.sku = r.sku)
                 GROUP BY r.line HAVING NOT coalesce(bool_or(n.whole), false) AND min(r.back) < min(r.bought) ORDER BY r.line);
END
$$;
COMMENT ON FUNCTION loyalty.kept_lines(loyalty.purchase) IS 'The lines of a purchase that did not come back entirely';
REVOKE ALL ON FUNCTION loyalty.kept_lines(loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.count_baskets(ids bigint[], max_items integer) RETURNS loyalty.copurchase
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- the last word of each member who bought, and of whom was merged into it: not analysis_word, which is everybody's
    WITH people AS MATERIALIZED (
        SELECT DISTINCT f.member_id FROM unnest(ids) i (purchase_id) JOIN loyalty.analysis_purchase f USING (purchase_id) WHERE f.member_id IS NOT NULL),
    word AS MATERIALIZED (
        SELECT DISTINCT ON (p.member_id) p.member_id, c.given
        FROM people p
            CROSS JOIN LATERAL (SELECT p.member_id AS id UNION ALL SELECT a.account_id FROM loyalty.account a WHERE a.merged_into = p.member_id) x
            JOIN loyalty.consent_change c ON c.member_id = x.id AND c.purpose = 'analysis'
        ORDER BY p.member_id, c.occurred_at DESC, c.number DESC)
    SELECT loyalty.copurchase(CASE WHEN EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id) THEN loyalty.kept_lines(p) ELSE p.lines END, count_baskets.max_items)
    FROM unnest(ids) i (purchase_id)
        JOIN loyalty.analysis_purchase f USING (purchase_id)
        JOIN loyalty.purchase p USING (purchase_id)
        LEFT JOIN loyalty.analysis_setting s ON s.program_id = f.program_id
        LEFT JOIN word w ON w.member_id = f.member_id
    WHERE f.member_id IS NULL
        OR (coalesce(w.given, s.consent IS DISTINCT FROM 'opt_in') AND NOT EXISTS (SELECT FROM loyalty.erasure e WHERE e.member_id = f.member_id))
$$;
COMMENT ON FUNCTION loyalty.count_baskets(bigint[], integer) IS 'The statistics of purchases, without those of members who may not be analysed; guests'' count';
REVOKE ALL ON FUNCTION loyalty.count_baskets(bigint[], integer) FROM PUBLIC;

CREATE FUNCTION loyalty.may_analyse(member_id bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    RETURN NOT EXISTS (SELECT FROM loyalty.erasure e WHERE e.member_id = member_id)
        AND coalesce((SELECT c.given FROM loyalty.consent_change c WHERE c.member_id = ANY (loyalty.same_member(member_id)) AND c.purpose = 'analysis'
                      ORDER BY c.occurred_at DESC, c.number DESC LIMIT 1),
                     (SELECT s.consent IS DISTINCT FROM 'opt_in' FROM loyalty.member m LEFT JOIN loyalty.analysis_setting s USING (program_id) WHERE m.member_id = member_id));
END
$$;
COMMENT ON FUNCTION loyalty.may_analyse(bigint) IS 'Whether a member, one that was not merged into another, is one of analysis_subject';
REVOKE ALL ON FUNCTION loyalty.may_analyse(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.fold_day(program_id integer, day date, max_items integer, OUT was loyalty.copurchase, OUT baskets loyalty.copurchase)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    ids bigint[];
BEGIN
    SELECT d.baskets INTO was FROM loyalty.copurchase_day d WHERE d.program_id = program_id AND d.day = day FOR UPDATE;
    WITH gone AS (DELETE FROM loyalty.copurchase_added a WHERE a.program_id = program_id AND a.day = day RETURNING a.purchase_id)
    SELECT array_agg(g.purchase_id) INTO ids FROM gone g;
    DELETE FROM loyalty.copurchase_stale s WHERE s.program_id = program_id AND s.day = day;
    IF FOUND THEN
        baskets := loyalty.count_baskets(ARRAY(SELECT f.purchase_id FROM loyalty.analysis_purchase f WHERE f.program_id = program_id AND f.day = day), max_items);
    ELSE
        baskets := loyalty.count_baskets(ids, max_items);
        baskets := CASE WHEN baskets IS NULL THEN was WHEN was IS NULL THEN baskets ELSE was OPERATOR(loyalty.+) baskets END;
    END IF;
    IF baskets IS NULL OR loyalty.basket_count(baskets) = 0 THEN
        baskets := NULL;
        DELETE FROM loyalty.copurchase_day d WHERE d.program_id = program_id AND d.day = day;
    ELSE
        INSERT INTO loyalty.copurchase_day AS d (program_id, day, baskets, folded_at) VALUES (program_id, day, baskets, clock_timestamp())
            ON CONFLICT ON CONSTRAINT copurchase_day_pkey DO UPDATE SET baskets = excluded.baskets, folded_at = excluded.folded_at;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.fold_day(integer, date, integer) IS 'Brings the statistics of a day up to date; returns what they were and what they are, NULL: nothing';
REVOKE ALL ON FUNCTION loyalty.fold_day(integer, date, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.sum_days(program_id integer, from_day date, before_day date) RETURNS loyalty.copurchase
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT loyalty.sum(d.baskets) FROM loyalty.copurchase_day d
    WHERE d.program_id = sum_days.program_id AND d.day >= sum_days.from_day AND d.day < sum_days.before_day
$$;
COMMENT ON FUNCTION loyalty.sum_days(integer, date, date) IS 'The sum of days, from one up to before another';
REVOKE ALL ON FUNCTION loyalty.sum_days(integer, date, date) FROM PUBLIC;

CREATE FUNCTION loyalty.change_total(program_id integer, plus loyalty.copurchase[], minus loyalty.copurchase[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    total loyalty.copurchase;
    less loyalty.copurchase;
BEGIN
    SELECT loyalty.sum(x.b) INTO total FROM (
        SELECT t.baskets AS b FROM loyalty.copurchase_total t WHERE t.program_id = program_id
        UNION ALL SELECT unnest(plus)) x;
    SELECT loyalty.sum(x.b) INTO less FROM unnest(minus) x (b);
    IF less IS NOT NULL THEN
        total := total OPERATOR(loyalty.-) less;
    END IF;
    UPDATE loyalty.copurchase_total t SET baskets = total, folded_at = clock_timestamp() WHERE t.program_id = program_id;
END
$$;
COMMENT ON FUNCTION loyalty.change_total(integer, loyalty.copurchase[], loyalty.copurchase[]) IS 'Adds statistics to a programme''s total and takes others away';
REVOKE ALL ON FUNCTION loyalty.change_total(integer, loyalty.copurchase[], loyalty.copurchase[]) FROM PUBLIC;

CREATE FUNCTION loyalty.move_window(program_id integer, from_day date) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    before date := (SELECT t.from_day FROM loyalty.copurchase_total t WHERE t.program_id = program_id);
BEGIN
    IF before < from_day THEN
        PERFORM loyalty.change_total(program_id, '{}', ARRAY[loyalty.sum_days(program_id, before, from_day)]);
    ELSIF before > from_day THEN
        PERFORM loyalty.change_total(program_id, ARRAY[loyalty.sum_days(program_id, from_day, before)], '{}');
    END IF;
    UPDATE loyalty.copurchase_total t SET from_day = from_day WHERE t.program_id = program_id AND t.from_day <> from_day;
END
$$;
COMMENT ON FUNCTION loyalty.move_window(integer, date) IS 'Lets a programme''s total begin with another day';
REVOKE ALL ON FUNCTION loyalty.move_window(integer, date) FROM PUBLIC;

/* --- the job ------------------------------------------------------------- */

CREATE FUNCTION loyalty.stale_consents(horizon xid8) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH said AS (
        SELECT c.member_id FROM loyalty.consent_change c WHERE c.purpose = 'analysis' AND age(c.xmin) <= age(horizon::xid)
        UNION SELECT e.member_id FROM loyalty.erasure e WHERE age(e.xmin) <= age(horizon::xid)
        -- whoever was merged brings its word along
        UNION SELECT c.member_id FROM loyalty.account a JOIN loyalty.consent_change c ON c.member_id = a.account_id AND c.purpose = 'analysis'
            WHERE a.merged_into IS NOT NULL AND age(a.xmin) <= age(horizon::xid)),
    concerned AS (
        SELECT DISTINCT coalesce(a.merged_into, s.member_id) AS member_id FROM said s LEFT JOIN loyalty.account a ON a.account_id = s.member_id)
    INSERT INTO loyalty.copurchase_stale
        SELECT f.program_id, f.day FROM concerned c JOIN loyalty.analysis_purchase f USING (member_id)
        UNION
        SELECT f.program_id, f.day FROM loyalty.analysis_setting s JOIN loyalty.analysis_purchase f USING (program_id) WHERE age(s.xmin) <= age(horizon::xid)
        ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION loyalty.stale_consents(xid8) IS 'Notes the days of members whose consent to the purpose analysis may have changed since the horizon, by their word or by a merge';
REVOKE ALL ON FUNCTION loyalty.stale_consents(xid8) FROM PUBLIC;

CREATE FUNCTION loyalty.begin_fold() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s loyalty.copurchase_run;
    oldest xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
    INSERT INTO loyalty.copurchase_run DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT * INTO s FROM loyalty.copurchase_run FOR UPDATE;
    -- not only locked: a batch of refresh_analysis that waits here at REPEATABLE READ must not go on with a snapshot in which there is no run to note for
    UPDATE loyalty.analysis_run r SET run = r.run;
    IF s.horizon IS NULL OR oldest::text::numeric - s.horizon::text::numeric NOT BETWEEN 0 AND 2000000000 THEN
        INSERT INTO loyalty.copurchase_stale SELECT DISTINCT f.program_id, f.day FROM loyalty.analysis_purchase f ON CONFLICT DO NOTHING;
        INSERT INTO loyalty.copurchase_stale SELECT d.program_id, d.day FROM loyalty.copurchase_day d ON CONFLICT DO NOTHING;
    ELSE
        PERFORM loyalty.stale_consents(s.horizon);
    END IF;
    INSERT INTO loyalty.copurchase_total (program_id, from_day, max_items, folded_at)
        SELECT p.program_id, p.from_day, p.max_items, clock_timestamp() FROM loyalty.copurchase_policy p ON CONFLICT DO NOTHING;
    INSERT INTO loyalty.copurchase_stale
        SELECT d.program_id, d.day FROM loyalty.copurchase_day d JOIN loyalty.copurchase_total t USING (program_id) JOIN loyalty.copurchase_policy p USING (program_id)
        WHERE t.max_items <> p.max_items ON CONFLICT DO NOTHING;
    UPDATE loyalty.copurchase_total t SET max_items = p.max_items FROM loyalty.copurchase_policy p WHERE p.program_id = t.program_id AND p.max_items <> t.max_items;
    PERFORM loyalty.move_window(t.program_id, p.from_day) FROM loyalty.copurchase_total t JOIN loyalty.copurchase_policy p USING (program_id) WHERE t.from_day <> p.from_day;
    UPDATE loyalty.copurchase_run SET horizon = oldest, started_at = clock_timestamp();
END
$$;
COMMENT ON FUNCTION loyalty.begin_fold() IS 'Begins a run of fold_copurchase: notes what changed other than purchases, and moves the windows';
REVOKE ALL ON FUNCTION loyalty.begin_fold() FROM PUBLIC;

CREATE FUNCTION loyalty.step_fold(days integer) RETURNS integer
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    due record;
    folded record;
    plus loyalty.copurchase[] := '{}';
    minus loyalty.copurchase[] := '{}';
    n integer := 0;
    program integer;
BEGIN
    PERFORM FROM loyalty.copurchase_run FOR UPDATE;
    PERFORM FROM loyalty.analysis_run FOR UPDATE;
    SELECT min(x.program_id) INTO program FROM (SELECT s.program_id FROM loyalty.copurchase_stale s UNION ALL SELECT a.program_id FROM loyalty.copurchase_added a) x;
    FOR due IN
        SELECT x.day, t.max_items, t.from_day
        FROM (SELECT s.day FROM loyalty.copurchase_stale s WHERE s.program_id = program
              UNION SELECT a.day FROM loyalty.copurchase_added a WHERE a.program_id = program) x
            JOIN loyalty.copurchase_total t ON t.program_id = program
        ORDER BY x.day LIMIT days
    LOOP
        SELECT * INTO folded FROM loyalty.fold_day(program, due.day, due.max_items);
        IF due.day >= due.from_day THEN
            plus := array_append(plus, folded.baskets);
            minus := array_append(minus, folded.was);
        END IF;
        n := n + 1;
    END LOOP;
    IF n > 0 THEN
        PERFORM loyalty.change_total(program, plus, minus);
    END IF;
    RETURN n;
END
$$;
COMMENT ON FUNCTION loyalty.step_fold(integer) IS 'Folds so many days of one programme; returns how many there were';
REVOKE ALL ON FUNCTION loyalty.step_fold(integer) FROM PUBLIC;

CREATE FUNCTION loyalty.finish_fold() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    due integer[];
BEGIN
    PERFORM FROM loyalty.copurchase_run FOR UPDATE;
    -- those that changed since, in this run or in one that did not come to its end
    due := ARRAY(SELECT t.program_id FROM loyalty.copurchase_total t JOIN loyalty.copurchase_policy y USING (program_id)
                 WHERE (t.listed_at, t.listed_count) IS DISTINCT FROM (t.folded_at, y.min_count));
    DELETE FROM loyalty.copurchase_pair c WHERE c.program_id = ANY (due);
    INSERT INTO loyalty.copurchase_pair
        SELECT t.program_id, p.* FROM loyalty.copurchase_total t JOIN loyalty.copurchase_policy y USING (program_id)
            CROSS JOIN LATERAL (SELECT row_number() OVER (ORDER BY q.log_likelihood DESC, q.n_ab DESC, q.a, q.b)::integer, q.*
                                FROM loyalty.pairs(t.baskets, y.min_count) q WHERE q.lift > 1 ORDER BY 1 LIMIT 1000) p
        WHERE t.baskets IS NOT NULL AND t.program_id = ANY (due);
    UPDATE loyalty.copurchase_total t SET listed_at = t.folded_at, listed_count = y.min_count
        FROM loyalty.copurchase_policy y WHERE y.program_id = t.program_id AND t.program_id = ANY (due);
    UPDATE loyalty.copurchase_run SET finished_at = clock_timestamp(), fresh_at = (SELECT r.fresh_at FROM loyalty.analysis_run r);
END
$$;
COMMENT ON FUNCTION loyalty.finish_fold() IS 'Ends a run of fold_copurchase: lists the foremost pairs anew';
REVOKE ALL ON FUNCTION loyalty.finish_fold() FROM PUBLIC;

CREATE PROCEDURE loyalty.fold_copurchase(days integer DEFAULT 10, rebuild boolean DEFAULT false)
    LANGUAGE plpgsql
AS $$
DECLARE
    n bigint := 0;
    more integer;
BEGIN
    IF days IS NULL OR days < 1 THEN
        RAISE EXCEPTION 'days must be at least 1' USING ERRCODE = 'LY110', DETAIL = pg_catalog.format('Got %s.', coalesce(days::text, 'NULL'));
    END IF;
    CALL loyalty.refresh_analysis();
    IF rebuild THEN
        PERFORM loyalty.forget_baskets();
    END IF;
    PERFORM loyalty.begin_fold();
    COMMIT;
    LOOP
        more := loyalty.step_fold(days);
        COMMIT;
        EXIT WHEN more = 0;
        n := n + more;
        RAISE NOTICE 'fold_copurchase: % days', n;
    END LOOP;
    PERFORM loyalty.settle_suggestions();
    PERFORM loyalty.finish_fold();
    COMMIT;
END
$$;
COMMENT ON PROCEDURE loyalty.fold_copurchase(integer, boolean) IS 'Folds what was bought, returned and changed since into the statistics of what is bought together, so many days a transaction, after it brought analysis up to date. Stopped, the next goes on where it was; rebuild counts every day anew';
REVOKE ALL ON PROCEDURE loyalty.fold_copurchase(integer, boolean) FROM PUBLIC;
