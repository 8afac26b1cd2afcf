/*
 * limit: velocity limits.  How much of a measure a subject may do in any
 * window of some length; asked inside the award.
 */
CREATE TABLE loyalty.velocity_limit (
    limit_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    program_id  integer NOT NULL,
    name        text NOT NULL CHECK (name <> '' AND octet_length(name) <= 200),
    event       text NOT NULL CHECK (event IN ('purchase', 'activity', 'redemption')),
    measure     text NOT NULL CHECK (measure IN ('count', 'amount', 'points')),
    maximum     numeric NOT NULL CHECK (maximum >= 0 AND maximum <= 1e15),
    per         interval NOT NULL,
    subject     text NOT NULL,
    subject_kind text CHECK (subject_kind <> '' AND octet_length(subject_kind) <= 200),
    condition   text,
    verdict     text NOT NULL CHECK (verdict IN ('allow', 'clip', 'hold', 'reject')),
    buckets     integer NOT NULL CHECK (buckets BETWEEN 1 AND 1440),
    active_from timestamptz NOT NULL DEFAULT now(),
    description text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  name NOT NULL DEFAULT session_user,
    retired_at  timestamptz,
    retired_by  name,
    reason      text,
    UNIQUE (program_id, name),
    CONSTRAINT velocity_limit_amount_check CHECK (measure <> 'amount' OR event <> 'activity'),
    CONSTRAINT velocity_limit_hold_check CHECK (verdict <> 'hold' OR event <> 'redemption'),
    CONSTRAINT velocity_limit_whole_check CHECK (CASE measure WHEN 'count' THEN maximum = trunc(maximum) WHEN 'amount' THEN maximum = round(maximum, 4) AND maximum < 1e11 ELSE true END),
    CONSTRAINT velocity_limit_length_check CHECK (extract(year FROM per) = 0 AND extract(month FROM per) = 0 AND extract(epoch FROM per) BETWEEN 1 AND 34560000),
    CONSTRAINT velocity_limit_retired_check CHECK (num_nonnulls(retired_at, retired_by) <> 1)
);
COMMENT ON TABLE loyalty.velocity_limit IS 'So much in any window of some length, for each subject. Never edited: retire one and add another';
COMMENT ON COLUMN loyalty.velocity_limit.maximum IS 'Transactions, money or whole points, as measure says';
COMMENT ON COLUMN loyalty.velocity_limit.per IS 'The length of the window, which slides; a day is 24 hours';
COMMENT ON COLUMN loyalty.velocity_limit.subject IS 'SQL expression over member and purchase, activity or redemption, text: who or what is limited; NULL: the limit does not concern the transaction';
COMMENT ON COLUMN loyalty.velocity_limit.subject_kind IS 'The list of blocked subjects that it asks; NULL: none';
COMMENT ON COLUMN loyalty.velocity_limit.verdict IS 'Where more is wanted than is left: allow and write it down, clip the points to what is left (of a redemption that may be partial; others are refused), hold the award for a person, reject the transaction';
COMMENT ON COLUMN loyalty.velocity_limit.buckets IS 'In so many parts the window slides: it may refuse what comes up to one part after it';
COMMENT ON COLUMN loyalty.velocity_limit.active_from IS 'Transactions that occurred before are not counted';
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.velocity_limit
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();

CREATE TABLE loyalty.limit_subject (
    program_id  integer NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    rings       bytea NOT NULL DEFAULT '',
    PRIMARY KEY (program_id, subject)
) WITH (fillfactor = 70);
COMMENT ON TABLE loyalty.limit_subject IS 'What each subject used of the limits of its programme, for each a ring of parts of the window; updated in place under its lock. Written by the award alone';
COMMENT ON COLUMN loyalty.limit_subject.rings IS 'limit_state shows them';

CREATE FUNCTION loyalty.limit_rings(rings bytea) RETURNS TABLE (limit_id integer, ring bytea)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 4 AS 'MODULE_PATHNAME', 'loyalty_limit_rings';
COMMENT ON FUNCTION loyalty.limit_rings(bytea) IS 'The rings of limit_subject, a row a limit';
REVOKE ALL ON FUNCTION loyalty.limit_rings(bytea) FROM PUBLIC;

CREATE VIEW loyalty.limit_state AS
    SELECT x.limit_id, s.subject, x.ring FROM loyalty.limit_subject s CROSS JOIN LATERAL loyalty.limit_rings(s.rings) x;
COMMENT ON VIEW loyalty.limit_state IS 'What each subject used of each limit, in a ring of parts of the window';

CREATE TABLE loyalty.limit_used (
    source_id   bigint PRIMARY KEY,
    uses        bytea NOT NULL
);
COMMENT ON TABLE loyalty.limit_used IS 'What each transaction used of the limits that were asked about it: what a correction, a void or a full return gives back';
COMMENT ON COLUMN loyalty.limit_used.uses IS 'limit_use shows them';

CREATE FUNCTION loyalty.limit_uses(uses bytea) RETURNS TABLE (limit_id integer, subject text, bucket bigint, granted bigint, active boolean)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 4 AS 'MODULE_PATHNAME', 'loyalty_limit_uses';
COMMENT ON FUNCTION loyalty.limit_uses(bytea) IS 'What limit_used has of a transaction, a row a limit';
REVOKE ALL ON FUNCTION loyalty.limit_uses(bytea) FROM PUBLIC;

CREATE VIEW loyalty.limit_use AS
    SELECT w.source_id, x.limit_id, x.subject COLLATE "C" AS subject, x.bucket, x.granted, x.active FROM loyalty.limit_used w CROSS JOIN LATERAL loyalty.limit_uses(w.uses) x;
COMMENT ON VIEW loyalty.limit_use IS 'What each transaction used of each limit that was asked about it';
COMMENT ON COLUMN loyalty.limit_use.bucket IS 'The part of time that it counts in';
COMMENT ON COLUMN loyalty.limit_use.granted IS 'Transactions, 1/10000 of money, or smallest units of points';
COMMENT ON COLUMN loyalty.limit_use.active IS 'false: given back';

CREATE TABLE loyalty.limit_hold (
    limit_id    integer NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    source_id   bigint NOT NULL,
    bucket      bigint NOT NULL,
    granted     bigint NOT NULL CHECK (granted >= 0),
    held_until  timestamptz NOT NULL,
    lapsed      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (source_id, limit_id)
);
CREATE INDEX limit_hold_open_idx ON loyalty.limit_hold (limit_id, subject) WHERE NOT lapsed;
COMMENT ON TABLE loyalty.limit_hold IS 'What holds of points use of limits until they are captured, are released or end by themselves; changed under the lock of the subject';
COMMENT ON COLUMN loyalty.limit_hold.held_until IS 'From then on it counts no more';
COMMENT ON COLUMN loyalty.limit_hold.lapsed IS 'It ended by itself and its room was given back; limit_use still says what it had used';

CREATE TABLE loyalty.limit_decision (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_id   bigint NOT NULL,
    limit_id    integer NOT NULL,
    subject     text NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT now(),
    verdict     text NOT NULL,
    reason      text NOT NULL,
    wanted      bigint NOT NULL,
    used        bigint NOT NULL,
    granted     bigint NOT NULL,
    points_wanted bigint NOT NULL,
    points      bigint NOT NULL
);
CREATE INDEX limit_decision_source_id_idx ON loyalty.limit_decision (source_id);
COMMENT ON TABLE loyalty.limit_decision IS 'Decisions of limits that were not a plain pass, with the figures that they used';
COMMENT ON COLUMN loyalty.limit_decision.reason IS 'reached, blocked (the subject), or late: it comes later than the ring remembers';
COMMENT ON COLUMN loyalty.limit_decision.used IS 'In the fullest window, before it; in units of limit_use.granted';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.limit_decision
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');

CREATE TABLE loyalty.blocked_subject (
    program_id  integer NOT NULL,
    kind        text NOT NULL CHECK (kind <> '' AND octet_length(kind) <= 200),
    subject     text COLLATE "C" NOT NULL CHECK (octet_length(subject) <= 500),
    until       timestamptz NOT NULL DEFAULT 'infinity',
    reason      text NOT NULL CHECK (reason <> ''),
    blocked_at  timestamptz NOT NULL DEFAULT now(),
    blocked_by  name NOT NULL DEFAULT session_user,
    PRIMARY KEY (program_id, kind, subject)
);
COMMENT ON TABLE loyalty.blocked_subject IS 'Subjects of which the limits that name their kind admit nothing: devices, cards, addresses';

CREATE FUNCTION loyalty.keep_limit() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changing constant text[] := '{retired_at,retired_by,reason}';
BEGIN
    IF TG_LEVEL = 'ROW' AND OLD.retired_at IS NULL AND to_jsonb(NEW) - changing = to_jsonb(OLD) - changing THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'LY901', DETAIL = 'Decisions name the limit that made them.',
              HINT = 'loyalty.retire_limit ends a limit, loyalty.add_limit adds another.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_limit() IS 'Lets a limit be retired, and nothing else';
REVOKE ALL ON FUNCTION loyalty.keep_limit() FROM PUBLIC;
CREATE TRIGGER keep_limit BEFORE UPDATE ON loyalty.velocity_limit
    FOR EACH ROW EXECUTE FUNCTION loyalty.keep_limit();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.velocity_limit
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_limit();

CREATE FUNCTION loyalty.limit_unit(measure text, points_scale integer) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE measure WHEN 'amount' THEN 10000 WHEN 'points' THEN 10::numeric ^ points_scale ELSE 1 END $$;
CREATE FUNCTION loyalty.limit_units(l loyalty.velocity_limit, points_scale integer) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT (l.maximum * loyalty.limit_unit(l.measure, points_scale))::bigint $$;
COMMENT ON FUNCTION loyalty.limit_units(loyalty.velocity_limit, integer) IS 'The maximum of a limit in the units that are counted';
COMMENT ON FUNCTION loyalty.limit_unit(text, integer) IS 'How many of the units that are counted make one of a limit''s maximum';
REVOKE ALL ON FUNCTION loyalty.limit_units(loyalty.velocity_limit, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION loyalty.limit_unit(text, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.limit_width(l loyalty.velocity_limit) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT ceil(extract(epoch FROM l.per) * 1000000 / l.buckets)::bigint $$;
COMMENT ON FUNCTION loyalty.limit_width(loyalty.velocity_limit) IS 'The length of a part of a limit''s window, in microseconds';
REVOKE ALL ON FUNCTION loyalty.limit_width(loyalty.velocity_limit) FROM PUBLIC;

CREATE FUNCTION loyalty.ring_sums(ring bytea) RETURNS TABLE (bucket bigint, amount bigint)
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 25 AS 'MODULE_PATHNAME', 'loyalty_ring_sums';
COMMENT ON FUNCTION loyalty.ring_sums(bytea) IS 'What a ring remembers, a row a part of time that is not zero';
REVOKE ALL ON FUNCTION loyalty.ring_sums(bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.ring_from(ring bytea) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_ring_from';
COMMENT ON FUNCTION loyalty.ring_from(bytea) IS 'The first part of time that a ring remembers';
REVOKE ALL ON FUNCTION loyalty.ring_from(bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.ring_used(ring bytea, bucket bigint) RETURNS bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_ring_used';
COMMENT ON FUNCTION loyalty.ring_used(bytea, bigint) IS 'What is used of the fullest window around a part of time; NULL where it is forgotten';
REVOKE ALL ON FUNCTION loyalty.ring_used(bytea, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.ring_add(ring bytea, bucket bigint, amount bigint) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_ring_add';
COMMENT ON FUNCTION loyalty.ring_add(bytea, bigint, bigint) IS 'A ring with so much more in a part of time';
REVOKE ALL ON FUNCTION loyalty.ring_add(bytea, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.check_limit(name text, event text, subject text, condition text) RETURNS void
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'loyalty_check_limit';
COMMENT ON FUNCTION loyalty.check_limit(text, text, text, text) IS 'Compiles a limit''s expressions, or raises LY201 or LY202';
REVOKE ALL ON FUNCTION loyalty.check_limit(text, text, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.add_limit(program_id integer, name text, maximum numeric, per interval,
        event text DEFAULT 'purchase', measure text DEFAULT 'count', subject text DEFAULT 'member.external_id',
        verdict text DEFAULT 'hold', condition text DEFAULT NULL, buckets integer DEFAULT 12,
        subject_kind text DEFAULT NULL, active_from timestamptz DEFAULT now(), description text DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id integer;
    scale integer;
    detail text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    SELECT p.points_scale INTO scale FROM loyalty.program p WHERE p.program_id = program_id AND p.wallet_of IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a wallet has no limits of its own' USING ERRCODE = 'LY451', HINT = 'Limit the programme whose wallet it is.';
    END IF;
    IF event IS NULL OR event NOT IN ('purchase', 'activity', 'redemption') OR name IS NULL OR subject IS NULL THEN
        RAISE EXCEPTION 'limit "%" is not valid', name
            USING ERRCODE = 'LY451', HINT = 'It has a name and a subject, and its event is purchase, activity or redemption.';
    END IF;
    IF event = 'redemption' AND verdict = 'hold' THEN
        RAISE EXCEPTION 'limit "%" is not valid', name
            USING ERRCODE = 'LY451', DETAIL = 'A redemption cannot wait for a person.', HINT = 'Its verdict is allow, clip or reject.';
    END IF;
    IF event = 'redemption' AND measure = 'amount' AND NOT EXISTS (SELECT FROM loyalty.program p WHERE p.program_id = program_id AND p.point_value > 0) THEN
        RAISE EXCEPTION 'limit "%" is not valid', name
            USING ERRCODE = 'LY451', DETAIL = 'The programme does not say what a point is worth.', HINT = 'Set its point_value, or let the limit measure points.';
    END IF;
    IF measure = 'points' AND maximum <> round(maximum, scale) OR maximum * loyalty.limit_unit(measure, scale) > 1e15 THEN
        RAISE EXCEPTION 'limit "%" is not valid', name
            USING ERRCODE = 'LY451', DETAIL = format('Its maximum is %s.', maximum), HINT = 'At most 10^15 of the smallest unit, and whole ones.';
    END IF;
    PERFORM loyalty.check_limit(name, event, subject, condition);
    INSERT INTO loyalty.velocity_limit (program_id, name, event, measure, maximum, per, subject, subject_kind, condition, verdict, buckets, active_from, description)
        VALUES (program_id, name, event, measure, trim_scale(maximum), per, subject, subject_kind, condition, verdict, buckets, active_from, description)
        RETURNING limit_id INTO id;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT;
    RAISE EXCEPTION 'limit "%" is not valid', name
        USING ERRCODE = 'LY451', DETAIL = detail,
              HINT = 'A name is the limit''s for ever; measure is count, amount (not of activities) or points, verdict is allow, clip, hold or reject, per is from a second to 400 days, with no months; the comments on loyalty.velocity_limit say more.';
END
$$;
COMMENT ON FUNCTION loyalty.add_limit IS 'Adds a velocity limit: so many transactions, so much money or so many points in any window of the length per, for each subject (SQL over member and purchase, activity or redemption). What goes beyond is held for a person unless verdict says allow, clip or reject; a redemption is never held';
REVOKE ALL ON FUNCTION loyalty.add_limit FROM PUBLIC;

CREATE FUNCTION loyalty.retire_limit(program_id integer, name text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.velocity_limit l WHERE l.program_id = program_id AND l.name = name) THEN
        RAISE EXCEPTION 'programme % has no limit "%"', program_id, name USING ERRCODE = 'LY452', HINT = 'loyalty.add_limit makes one.';
    END IF;
    UPDATE loyalty.velocity_limit l SET retired_at = now(), retired_by = session_user, reason = reason
        WHERE l.program_id = program_id AND l.name = name AND l.retired_at IS NULL;
END
$$;
COMMENT ON FUNCTION loyalty.retire_limit(integer, text, text) IS 'Ends a limit for transactions to come';
REVOKE ALL ON FUNCTION loyalty.retire_limit(integer, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.block_subject(program_id integer, kind text, subject text, until timestamptz DEFAULT 'infinity', reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF coalesce(reason, '') = '' THEN
        RAISE EXCEPTION 'blocking a subject needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for whoever reads it later.';
    END IF;
    INSERT INTO loyalty.blocked_subject AS b (program_id, kind, subject, until, reason) VALUES (program_id, kind, subject, coalesce(until, 'infinity'), reason)
        ON CONFLICT ON CONSTRAINT blocked_subject_pkey
        DO UPDATE SET until = excluded.until, reason = excluded.reason, blocked_at = excluded.blocked_at, blocked_by = excluded.blocked_by;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    -- the subject is not for an error message or a log
    RAISE EXCEPTION 'the subject to be blocked is not valid' USING ERRCODE = 'LY451', HINT = 'It has a kind, and up to 500 bytes.';
END
$$;
COMMENT ON FUNCTION loyalty.block_subject IS 'Blocks a subject: the limits of its kind admit nothing of it until then';
REVOKE ALL ON FUNCTION loyalty.block_subject FROM PUBLIC;

CREATE FUNCTION loyalty.unblock_subject(program_id integer, kind text, subject text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    DELETE FROM loyalty.blocked_subject b WHERE b.program_id = program_id AND b.kind = kind AND b.subject = subject;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION loyalty.unblock_subject(integer, text, text) IS 'Unblocks a subject; false where it was not blocked';
REVOKE ALL ON FUNCTION loyalty.unblock_subject(integer, text, text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Returns
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.release_limits(sources bigint[]) RETURNS void
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_release_limits';
COMMENT ON FUNCTION loyalty.release_limits(bigint[]) IS 'Gives back, once, what transactions used of limits; their accounts are locked by the caller';
REVOKE ALL ON FUNCTION loyalty.release_limits(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.give_back_limits(purchases bigint[]) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT loyalty.release_limits(ARRAY(SELECT DISTINCT d.purchase_id FROM loyalty.returned d WHERE d.purchase_id = ANY (purchases) AND d.complete)) $$;
COMMENT ON FUNCTION loyalty.give_back_limits(bigint[]) IS 'Gives back, once, what purchases used of limits that came back whole; their accounts are locked by the caller';
REVOKE ALL ON FUNCTION loyalty.give_back_limits(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.lock_limits_of(sources bigint[]) RETURNS void
    LANGUAGE C VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'loyalty_lock_limits_of';
COMMENT ON FUNCTION loyalty.lock_limits_of(bigint[]) IS 'Locks, in one order, the subjects to which transactions and redemptions may give room back; the accounts are locked by the caller';
REVOKE ALL ON FUNCTION loyalty.lock_limits_of(bigint[]) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * What is left
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.limit_subjects(member_id bigint) RETURNS TABLE (limit_id integer, subject text, bucket bigint)
    LANGUAGE C STABLE STRICT ROWS 8 AS 'MODULE_PATHNAME', 'loyalty_limit_subjects';
COMMENT ON FUNCTION loyalty.limit_subjects(bigint) IS 'The limits whose subject follows from the member alone, and what it is now';
REVOKE ALL ON FUNCTION loyalty.limit_subjects(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.limit_ring(limit_id integer, subject text) RETURNS bytea
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    ring bytea := (SELECT s.ring FROM loyalty.limit_state s WHERE s.limit_id = limit_id AND s.subject = subject);
    u loyalty.limit_hold;
BEGIN
    FOR u IN SELECT h.* FROM loyalty.limit_hold h WHERE h.limit_id = limit_id AND h.subject = subject AND NOT h.lapsed AND h.held_until <= now() LOOP
        ring := loyalty.ring_add(ring, u.bucket, -u.granted);
    END LOOP;
    RETURN ring;
END
$$;
COMMENT ON FUNCTION loyalty.limit_ring(integer, text) IS 'What a subject used of a limit, without what holds used that ended by themselves; NULL: nothing yet';
REVOKE ALL ON FUNCTION loyalty.limit_ring(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.limit_status(member_id bigint)
    RETURNS TABLE (name text, event text, measure text, maximum numeric, per interval, used numeric, "left" numeric, verdict text, blocked boolean, renews_on date)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_member(member_id);
    RETURN QUERY
        SELECT l.name, l.event, l.measure, l.maximum, l.per, u.used,
               CASE WHEN b.blocked THEN 0 ELSE greatest(l.maximum - u.used, 0) END, l.verdict, b.blocked, NULL::date
        FROM loyalty.limit_subjects(member_id) k
            JOIN loyalty.velocity_limit l USING (limit_id)
            JOIN loyalty.program p USING (program_id)
            CROSS JOIN LATERAL (SELECT trim_scale(coalesce(loyalty.ring_used(loyalty.limit_ring(k.limit_id, k.subject), k.bucket), 0) / loyalty.limit_unit(l.measure, p.points_scale)) AS used) u
            CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM loyalty.blocked_subject q WHERE q.program_id = l.program_id AND q.kind = l.subject_kind
                                               AND q.subject = k.subject AND q.until > now()) AS blocked) b
        UNION ALL
        SELECT c.name, c.event, 'points', c.maximum, ('1 ' || nullif(c.period, 'ever'))::interval, c.used, greatest(c.maximum - c.used, 0), 'clip', false, c.renews_on
        FROM loyalty.cap_status(member_id) c
        ORDER BY 1, 10, 5;
END
$$;
COMMENT ON FUNCTION loyalty.limit_status(bigint) IS 'What a member has used of each limit on itself and of the caps of rules, what is left now, and the day on which a cap begins anew; a window slides, and has none';
REVOKE ALL ON FUNCTION loyalty.limit_status(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Invariants, for check()
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.check_limits() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    l loyalty.velocity_limit;
BEGIN
    RETURN QUERY
        SELECT 'a limit''s ring is the sum of what was used', NULL::bigint, format('limit %s, part %s: %s, used %s', coalesce(r.limit_id, u.limit_id), coalesce(r.bucket, u.bucket), r.amount, u.amount)
        FROM (SELECT s.limit_id, s.subject, x.bucket, x.amount FROM loyalty.limit_state s CROSS JOIN LATERAL loyalty.ring_sums(s.ring) x) r
            FULL JOIN (SELECT w.limit_id, w.subject, w.bucket, sum(w.granted) AS amount
                       FROM loyalty.limit_use w LEFT JOIN loyalty.limit_state s ON s.limit_id = w.limit_id AND s.subject = w.subject
                       WHERE w.active AND w.granted > 0
                           AND NOT EXISTS (SELECT FROM loyalty.limit_hold h WHERE h.source_id = w.source_id AND h.limit_id = w.limit_id AND h.lapsed)
                           AND w.bucket >= coalesce(loyalty.ring_from(s.ring), w.bucket)
                       GROUP BY 1, 2, 3) u
                ON u.limit_id = r.limit_id AND u.subject = r.subject AND u.bucket = r.bucket
        WHERE coalesce(r.amount, 0) <> coalesce(u.amount, 0);
    FOR l IN SELECT * FROM loyalty.velocity_limit v WHERE v.verdict <> 'allow' ORDER BY v.limit_id LOOP
        RETURN QUERY EXECUTE format(
            'SELECT ''no window has more than its limit admits'', NULL::bigint, format(''limit %%s, part %%s: %%s of %%s'', $1, w.bucket, w.total, $2)
             FROM (SELECT u.bucket, sum(u.granted) OVER (PARTITION BY u.subject ORDER BY u.bucket RANGE BETWEEN %s PRECEDING AND CURRENT ROW) AS total
                   FROM loyalty.limit_use u WHERE u.limit_id = $1 AND u.active
                       AND NOT EXISTS (SELECT FROM loyalty.limit_hold h WHERE h.source_id = u.source_id AND h.limit_id = u.limit_id AND h.lapsed)) w WHERE w.total > $2', l.buckets)
            USING l.limit_id, (SELECT loyalty.limit_units(l, p.points_scale) FROM loyalty.program p WHERE p.program_id = l.program_id);
    END LOOP;
    RETURN QUERY
        SELECT 'what uses a limit is a transaction that stands', p.member_id, format('source %s', u.source_id)
        FROM loyalty.limit_use u JOIN loyalty.velocity_limit v ON v.limit_id = u.limit_id AND v.event <> 'redemption'
            LEFT JOIN loyalty.purchase p ON p.purchase_id = u.source_id
            LEFT JOIN loyalty.activity a ON a.activity_id = u.source_id
        WHERE u.active AND (coalesce(p.status, a.status, 'void') = 'void' OR EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = u.source_id AND d.complete));
    RETURN QUERY
        SELECT 'a redemption uses of a limit what went', e.account_id, format('redemption %s, limit %s: used %s, went %s', u.source_id, u.limit_id, CASE WHEN u.active THEN u.granted ELSE 0 END, coalesce(e.points, h.points))
        FROM loyalty.limit_use u JOIN loyalty.velocity_limit v ON v.limit_id = u.limit_id AND v.event = 'redemption'
            LEFT JOIN LATERAL (
                SELECT min(n.account_id) FILTER (WHERE n.kind <> 'undo') AS account_id, -sum(n.points)::bigint AS points FROM loyalty.entry n
                WHERE n.source_id = u.source_id AND (n.kind IN ('redeem', 'capture', 'undo') OR n.kind = 'transfer' AND n.points < 0)
                HAVING count(*) > 0) e ON true
            LEFT JOIN loyalty.limit_hold k ON k.source_id = u.source_id AND k.limit_id = u.limit_id
            LEFT JOIN (SELECT o.hold_id, loyalty.total(o.lots) AS points FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) o
                WHERE a.holds IS NOT NULL) h ON h.hold_id = k.source_id
        WHERE CASE WHEN k.source_id IS NOT NULL THEN e.points IS NOT NULL OR NOT u.active OR k.lapsed AND k.held_until > now() OR h.points IS NULL AND k.held_until > now()
                        OR (k.bucket, k.granted, k.subject) <> (u.bucket, u.granted, u.subject)
                   ELSE u.active <> (coalesce(e.points, 0) > 0) END
            OR u.active AND v.measure = 'points' AND v.verdict <> 'allow' AND u.granted <> coalesce(e.points, h.points, u.granted)
            OR u.active AND v.measure = 'count' AND v.verdict <> 'allow' AND u.granted <> 1;
END
$$;
COMMENT ON FUNCTION loyalty.check_limits() IS 'The invariants of velocity limits, a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_limits() FROM PUBLIC;
