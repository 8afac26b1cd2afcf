/*
 * staff: nobody enters anything for themselves.  A programme that knows which
 * cashier is which member holds their own awards for review, and lets them
 * neither spend, adjust nor transfer their own or their household's points.
 */

CREATE TABLE loyalty.cashier (
    program_id  integer NOT NULL,
    cashier     text NOT NULL CHECK (cashier <> '' AND octet_length(cashier) <= 200),
    member_id   bigint NOT NULL,
    set_at      timestamptz NOT NULL DEFAULT now(),
    set_by      name NOT NULL DEFAULT session_user,
    PRIMARY KEY (program_id, cashier)
);
COMMENT ON TABLE loyalty.cashier IS 'Which cashier, as tills name it, or role that connects is which member';
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.cashier
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('program_id,cashier');
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.cashier
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();

CREATE FUNCTION loyalty.own_cashier(program_id integer, member_id bigint, cashier text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    theirs loyalty.account;
BEGIN
    SELECT * INTO theirs FROM loyalty.account a WHERE a.account_id = loyalty.person_of(member_id);
    RETURN (SELECT c.cashier
            FROM loyalty.cashier c JOIN loyalty.account mine ON mine.account_id = c.member_id
            WHERE c.program_id = program_id AND c.cashier IN (loyalty.cashier_name(cashier), session_user)
                  AND ARRAY[mine.account_id, mine.household_id, mine.merged_into] && ARRAY[theirs.account_id, theirs.household_id, theirs.merged_into]
            LIMIT 1);
END
$$;
COMMENT ON FUNCTION loyalty.own_cashier(integer, bigint, text) IS 'The cashier, of the one named and the role that connected, whose own or household''s account it is; NULL where it is neither''s';
REVOKE ALL ON FUNCTION loyalty.own_cashier(integer, bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.own_activity(activity_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    RETURN (SELECT loyalty.own_cashier(m.program_id, v.member_id, v.attributes ->> 'cashier')
            FROM loyalty.activity v JOIN loyalty.member m USING (member_id)
            WHERE v.activity_id = activity_id
                  -- what was decided on once does not wait again
                  AND NOT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = activity_id));
END
$$;
COMMENT ON FUNCTION loyalty.own_activity(bigint) IS 'The cashier who entered an activity of its own or its household''s; NULL where nobody did';
REVOKE ALL ON FUNCTION loyalty.own_activity(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.admit(source_ids bigint[], activities boolean) RETURNS TABLE (source_id bigint, verdict text, reason text, detail text, factor numeric)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF NOT activities THEN
        RETURN QUERY SELECT p.purchase_id, 'held', 'own account', 'cashier ' || o.cashier, NULL::numeric
            FROM unnest(source_ids) AS i (id)
                 JOIN loyalty.purchase p ON p.purchase_id = i.id
                 JOIN loyalty.member m USING (member_id)
                 CROSS JOIN LATERAL loyalty.own_cashier(m.program_id, m.member_id, p.attributes ->> 'cashier') AS o (cashier)
            WHERE o.cashier IS NOT NULL;
        RETURN;
    END IF;
    RETURN QUERY WITH decided AS MATERIALIZED (SELECT * FROM loyalty.admit_activities(source_ids))
        SELECT i.id,
               CASE WHEN d.verdict = 'refused' THEN 'refused' WHEN d.verdict = 'held' OR o.cashier IS NOT NULL THEN 'held' ELSE 'paid' END,
               CASE WHEN d.verdict = 'refused' OR o.cashier IS NULL THEN d.reason ELSE concat_ws('; ', 'own account', d.reason) END,
               'cashier ' || o.cashier, d.factor
        FROM unnest(source_ids) AS i (id)
             LEFT JOIN decided d ON d.source_id = i.id
             CROSS JOIN LATERAL loyalty.own_activity(i.id) AS o (cashier);
END
$$;
COMMENT ON FUNCTION loyalty.admit(bigint[], boolean) IS 'Decides about new purchases or activities before they are awarded, in the order given: refused, held, or paid, the latter with a factor';
REVOKE ALL ON FUNCTION loyalty.admit(bigint[], boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.set_cashier(program_id integer, cashier text, member_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_program(program_id);
    cashier := loyalty.cashier_name(cashier);
    IF coalesce(cashier, '') = '' OR octet_length(cashier) > 200 THEN
        RAISE EXCEPTION 'a cashier is not valid' USING ERRCODE = 'LY445', DETAIL = 'Expected a cashier''s name of at most 200 bytes, as tills pass it, or that of a role that connects.';
    END IF;
    IF member_id IS NULL THEN
        DELETE FROM loyalty.cashier c WHERE c.program_id = program_id AND c.cashier = cashier;
        RETURN;
    END IF;
    IF (loyalty.require_member(member_id)).program_id <> program_id THEN
        RAISE EXCEPTION 'member % is of another programme', member_id USING ERRCODE = 'LY445';
    END IF;
    INSERT INTO loyalty.cashier VALUES (program_id, cashier, member_id)
        ON CONFLICT ON CONSTRAINT cashier_pkey DO UPDATE SET member_id = excluded.member_id, set_at = now(), set_by = session_user;
END
$$;
COMMENT ON FUNCTION loyalty.set_cashier(integer, text, bigint) IS 'Says which member a cashier is, by the name that tills pass or the role that connects; NULL: none. What it enters for itself or its household is held or refused from then on';
REVOKE ALL ON FUNCTION loyalty.set_cashier(integer, text, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.refuse_own(program_id integer, member_id bigint, cashier text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text := loyalty.own_cashier(coalesce((SELECT p.wallet_of FROM loyalty.program p WHERE p.program_id = refuse_own.program_id), program_id), member_id, cashier);
BEGIN
    IF own IS NOT NULL THEN
        RAISE EXCEPTION 'cashier "%" may not do that for member %', own, member_id
            USING ERRCODE = 'LY446', DETAIL = 'The account is the cashier''s own, or of the same household.', HINT = 'Let a colleague do it.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.refuse_own(integer, bigint, text) IS 'LY446 where a cashier would spend, adjust or transfer for itself or its household';
REVOKE ALL ON FUNCTION loyalty.refuse_own(integer, bigint, text) FROM PUBLIC;

CREATE VIEW loyalty.cashier_activity AS
    SELECT x.program_id, x.cashier, x.day, count(*) FILTER (WHERE x.kind <> 'adjust') AS redemptions, coalesce(sum(x.points) FILTER (WHERE x.kind <> 'adjust'), 0) AS points,
           count(*) FILTER (WHERE x.kind = 'adjust') AS adjustments, coalesce(sum(x.points) FILTER (WHERE x.kind = 'adjust'), 0) AS adjusted,
           count(DISTINCT x.account_id) AS members, sum(x.points) AS handled, sum(DISTINCT x.of_member) FILTER (WHERE x.place = 1) AS top_member_points
    FROM (SELECT y.*, row_number() OVER (PARTITION BY y.program_id, y.cashier, y.day ORDER BY y.of_member DESC, y.account_id) AS place
          FROM (SELECT a.program_id, coalesce(btrim(e.detail -> 'request' ->> 'cashier'), e.actor) AS cashier, (e.occurred_at AT TIME ZONE p.time_zone)::date AS day,
                       e.account_id, e.kind, abs(e.points) AS points,
                       sum(abs(e.points)) OVER (PARTITION BY a.program_id, coalesce(btrim(e.detail -> 'request' ->> 'cashier'), e.actor), (e.occurred_at AT TIME ZONE p.time_zone)::date, e.account_id) AS of_member
                FROM loyalty.entry e JOIN loyalty.account a USING (account_id) JOIN loyalty.program p ON p.program_id = a.program_id
                WHERE e.kind IN ('redeem', 'capture', 'adjust') OR (e.kind = 'transfer' AND e.points < 0)) y) x
    GROUP BY x.program_id, x.cashier, x.day;
COMMENT ON VIEW loyalty.cashier_activity IS 'What each cashier (the one that the till named, else the role that connected) redeemed or transferred, and adjusted, on each day, and how much of it was one member''s';

CREATE VIEW loyalty.unusual_cashiers AS
    WITH days AS MATERIALIZED (SELECT * FROM loyalty.cashier_activity)
    SELECT c.program_id, c.cashier, c.day, c.redemptions, c.points, c.adjustments, c.adjusted, c.members, c.top_member_points,
           round(c.top_member_points / nullif(c.handled, 0), 4) AS top_member_share, o.cashiers AS others, o.redemptions AS median_redemptions, o.points AS median_points, o.adjustments AS median_adjustments,
           concat_ws('; ',
               CASE WHEN c.redemptions >= 5 AND c.redemptions > 3 * o.redemptions THEN 'more than three times the redemptions of others' END,
               CASE WHEN c.redemptions >= 5 AND c.points > 3 * o.points THEN 'more than three times the points of others' END,
               CASE WHEN c.adjustments >= 3 AND c.adjustments > 3 * o.adjustments THEN 'more than three times the adjustments of others' END,
               CASE WHEN c.redemptions + c.adjustments >= 5 AND 2 * c.top_member_points > c.handled THEN 'more than half for one member' END) AS findings
    FROM days c
         CROSS JOIN LATERAL (
             SELECT count(*) AS cashiers, percentile_disc(0.5) WITHIN GROUP (ORDER BY d.redemptions) AS redemptions,
                    percentile_disc(0.5) WITHIN GROUP (ORDER BY d.points) AS points, percentile_disc(0.5) WITHIN GROUP (ORDER BY d.adjustments) AS adjustments
             FROM days d WHERE d.program_id = c.program_id AND d.day = c.day AND d.cashier <> c.cashier) o
    WHERE (c.redemptions >= 5 AND (c.redemptions > 3 * o.redemptions OR c.points > 3 * o.points))
          OR (c.adjustments >= 3 AND c.adjustments > 3 * o.adjustments)
          OR (c.redemptions + c.adjustments >= 5 AND 2 * c.top_member_points > c.handled);
COMMENT ON VIEW loyalty.unusual_cashiers IS 'Cashiers'' days that stand out: from five redemptions, more than three times the (lower) median of the other cashiers of the day in number or points; from three adjustments likewise; from five operations, more than half of the points one member''s. findings says which';
