/*
 * expiry: what dies when, whom to tell, what may live again, and what it all
 * costs.  Death itself takes effect by date; see jobs for the closing entries.
 */
CREATE FUNCTION loyalty.expiry_schedule(member_id bigint) RETURNS TABLE (expires_on date, points bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m loyalty.member := loyalty.require_member(expiry_schedule.member_id);
    today date := loyalty.local_day(m.program_id, now());
BEGIN
    RETURN QUERY
        SELECT u.expires_on, sum(u.points)::bigint
        FROM loyalty.account a
             CROSS JOIN LATERAL loyalty.lots_at(a.program_id, a.lots, a.holds, a.last_event_at, now()) l
             CROSS JOIN LATERAL loyalty.unnest(l.free) u
        WHERE a.account_id = loyalty.account_of(m.member_id) AND u.points > 0 AND u.expires_on > today
        GROUP BY 1 ORDER BY 1;
END
$$;
COMMENT ON FUNCTION loyalty.expiry_schedule(bigint) IS 'How many of a member''s points die on which day; infinity: never';
REVOKE ALL ON FUNCTION loyalty.expiry_schedule(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.notices_due(program_id integer, days_before integer DEFAULT 30, since date DEFAULT NULL, as_of date DEFAULT NULL)
    RETURNS TABLE (member_id bigint, expires_on date, points bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    day date;
    last date;
BEGIN
    PERFORM loyalty.require_program(notices_due.program_id);
    IF days_before IS NULL OR days_before < 0 OR days_before > 36500 THEN
        RAISE EXCEPTION 'days_before must be from 0 to 36500' USING ERRCODE = 'LY110', DETAIL = format('Got %s.', coalesce(days_before::text, 'NULL'));
    END IF;
    day := coalesce(as_of, loyalty.local_day(notices_due.program_id, now()));
    last := coalesce(since, day - 1);
    RETURN QUERY
        SELECT a.account_id, u.expires_on, sum(u.points)::bigint
        FROM loyalty.account a
             CROSS JOIN LATERAL loyalty.lots_at(a.program_id, a.lots, a.holds, a.last_event_at, now()) l
             CROSS JOIN LATERAL loyalty.unnest(l.free) u
        WHERE a.program_id = notices_due.program_id AND NOT a.closed AND u.points > 0
              AND u.expires_on > last + days_before AND u.expires_on <= day + days_before AND u.expires_on > day
        GROUP BY 1, 2 ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION loyalty.notices_due(integer, integer, date, date) IS 'Members to tell that points die: every lot date that came within days_before after the day since (the last run; NULL: yesterday) and up to as_of (NULL: today)';
REVOKE ALL ON FUNCTION loyalty.notices_due(integer, integer, date, date) FROM PUBLIC;

CREATE FUNCTION loyalty.reinstate(member_id bigint, key text, reason text, points bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    e loyalty.entry;
BEGIN
    IF reason IS NULL OR btrim(reason) = '' THEN
        RAISE EXCEPTION 'a reinstatement needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for the member and the auditor.';
    END IF;
    IF key IS NULL OR key = '' OR key LIKE 'loyalty:%' THEN
        RAISE EXCEPTION 'a reinstatement needs a key' USING ERRCODE = 'LY403', HINT = 'The key makes a retry harmless.';
    END IF;
    SELECT * INTO e FROM loyalty.entry_of_key(member_id, key);
    IF e.account_id IS NOT NULL THEN
        -- the entry takes the dead lots out and puts the living one in: its positive part is what was given
        IF e.kind <> 'reinstate' OR e.reason <> reason
           OR points <> (SELECT sum(u.points) FROM loyalty.unnest(e.lots) u WHERE u.points > 0) THEN
            RAISE EXCEPTION 'key "%" of member % was used for something else', key, member_id
                USING ERRCODE = 'LY404', DETAIL = format('Entry %s is %s (%s).', e.seq, e.kind, e.reason), HINT = 'A key belongs to one operation for ever; take another.';
        END IF;
        RETURN (SELECT sum(u.points) FROM loyalty.unnest(e.lots) u WHERE u.points > 0);
    END IF;
    IF (loyalty.require_member(member_id)).status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', member_id USING ERRCODE = 'LY302';
    END IF;
    PERFORM loyalty.refuse_own((loyalty.require_member(member_id)).program_id, member_id, NULL);
    RETURN loyalty.post_reinstatement(member_id, points, reason, key);
END
$$;
COMMENT ON FUNCTION loyalty.reinstate(bigint, text, text, bigint) IS 'Lets points that died within reinstate_days (NULL: all of them) live restore_days more, with a reason; returns how many';
REVOKE ALL ON FUNCTION loyalty.reinstate(bigint, text, text, bigint) FROM PUBLIC;

CREATE VIEW loyalty.points_flow AS
    SELECT a.program_id, date_trunc('month', e.occurred_at AT TIME ZONE p.time_zone)::date AS month, e.kind,
           count(*) AS entries, sum(e.points)::numeric AS points,
           round(sum(e.points) / 10::numeric ^ p.points_scale * p.point_value, 2) AS cost
    FROM loyalty.entry e JOIN loyalty.account a USING (account_id) JOIN loyalty.program p USING (program_id)
    GROUP BY a.program_id, p.points_scale, p.point_value, 2, e.kind;
COMMENT ON VIEW loyalty.points_flow IS 'Points by month and kind of entry, and their cost at point_value; over all months and kinds they sum to the points on the accounts';

CREATE VIEW loyalty.liability AS
    SELECT a.program_id, date_trunc('month', u.available_from)::date AS available_month, date_trunc('month', u.expires_on)::date AS expiry_month,
           CASE WHEN u.points < 0 THEN 'debt' WHEN u.part = 'held' THEN 'held' WHEN u.expires_on <= d.today THEN 'dead'
                WHEN u.available_from > d.today THEN 'pending' ELSE 'available' END AS state,
           count(DISTINCT a.account_id) AS accounts, sum(u.points)::numeric AS points,
           round(sum(u.points) / 10::numeric ^ p.points_scale * p.point_value, 2) AS cost
    FROM loyalty.account a
         JOIN loyalty.program p USING (program_id)
         CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE p.time_zone)::date AS today) d
         CROSS JOIN LATERAL loyalty.lots_at(a.program_id, a.lots, a.holds, a.last_event_at, now()) l
         CROSS JOIN LATERAL (SELECT f.available_from, f.expires_on, f.points, 'free' AS part FROM loyalty.unnest(l.free) f
                             UNION ALL SELECT h.available_from, h.expires_on, h.points, 'held' FROM loyalty.unnest(l.held) h) u
    GROUP BY a.program_id, p.points_scale, p.point_value, 2, 3, 4;
COMMENT ON VIEW loyalty.liability IS 'Points on the books by the month in which they became available (their age), the month in which they die and their state today: available, pending, held, dead (not closed yet), debt; with their cost at point_value. Sums to the accounts';

CREATE VIEW loyalty.partner_liability AS
    WITH given AS (
        -- what the lines of each partner's articles gave, by the lot that it went into
        SELECT x.account_id, x.available_from, x.expires_on, x.partner, x.points,
               sum(x.points) OVER (PARTITION BY x.account_id, x.available_from, x.expires_on ORDER BY x.partner NULLS FIRST) AS upto,
               sum(x.points) OVER (PARTITION BY x.account_id, x.available_from, x.expires_on) AS whole
        FROM (SELECT e.account_id, u.available_from, u.expires_on, t.partner, sum(coalesce(l.points, u.points)) AS points
              FROM loyalty.entry e
                   JOIN loyalty.account a USING (account_id)
                   JOIN loyalty.program p USING (program_id)
                   CROSS JOIN LATERAL loyalty.unnest(e.lots) u
                   LEFT JOIN loyalty.purchase b ON b.purchase_id = e.source_id
                   -- the lines are taken apart once an entry (a subscript would do it once a line), and where nobody is a partner not at all
                   LEFT JOIN LATERAL (SELECT d.points, n.sku FROM loyalty.breakdown_lines(e.breakdown) d
                                      LEFT JOIN ROWS FROM (unnest(b.lines)) WITH ORDINALITY n (sku, quantity, unit_price, amount, discount, line) ON n.line = d.line
                                      WHERE EXISTS (SELECT FROM loyalty.product x WHERE x.partner IS NOT NULL)) l ON true
                   LEFT JOIN loyalty.product t ON t.program_id = coalesce(p.wallet_of, p.program_id) AND t.sku = l.sku
              WHERE u.points > 0 OR e.kind = 'correct'
              GROUP BY 1, 2, 3, 4 HAVING sum(coalesce(l.points, u.points)) > 0) x)
    SELECT a.program_id, g.partner, count(DISTINCT a.account_id) AS accounts, sum(s.points)::numeric AS points,
           round(sum(s.points) / 10::numeric ^ p.points_scale * p.point_value, 2) AS cost
    FROM loyalty.account a
         JOIN loyalty.program p USING (program_id)
         CROSS JOIN LATERAL loyalty.unnest(a.lots) u
         LEFT JOIN given g ON g.account_id = a.account_id AND g.available_from = u.available_from AND g.expires_on = u.expires_on AND u.points > 0
         -- parts of a whole by cumulative rounding: they always add up to it
         CROSS JOIN LATERAL (SELECT CASE WHEN g.account_id IS NULL THEN u.points
                                         ELSE div(u.points * g.upto, g.whole) - div(u.points * (g.upto - g.points), g.whole) END AS points) s
    GROUP BY a.program_id, p.points_scale, p.point_value, g.partner;
COMMENT ON VIEW loyalty.partner_liability IS 'Points on the books by the partner whose articles gave them (product.partner; NULL: one''s own, and all that no line gave). What was spent, died or was taken back of a lot counts for all its partners in proportion; sums to liability';

CREATE VIEW loyalty.breakage AS
    SELECT f.program_id, f.month,
           coalesce(sum(f.points) FILTER (WHERE f.kind IN ('earn', 'challenge', 'referral', 'correct', 'adjust', 'open', 'import', 'reinstate', 'write_off')), 0) AS given,
           coalesce(-sum(f.points) FILTER (WHERE f.kind = 'return'), 0) AS returned,
           coalesce(-sum(f.points) FILTER (WHERE f.kind IN ('redeem', 'capture', 'undo')), 0) AS spent,
           coalesce(-sum(f.points) FILTER (WHERE f.kind = 'expire'), 0) AS expired,
           coalesce(sum(f.points) FILTER (WHERE f.kind IN ('transfer', 'release', 'merge', 'join', 'leave')), 0) AS moved,
           sum(sum(f.points)) OVER (PARTITION BY f.program_id ORDER BY f.month) AS outstanding
    FROM loyalty.points_flow f GROUP BY f.program_id, f.month;
COMMENT ON VIEW loyalty.breakage IS 'By month: points given, taken back by returns, spent, expired, moved (nets to nothing but over months), and what is outstanding at its end: given - returned - spent - expired + moved, summed up';
