/*
 * review: awards that wait for a person.  They are approved or refused, with a
 * reason, by somebody who is named.
 *
 * Many are decided at once or none: their transactions and accounts are locked
 * first, in one order, so that two who decide on the same ones do not lock each
 * other out.
 */

CREATE FUNCTION loyalty.refuse_award(source_id bigint) RETURNS void
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_refuse_award';
REVOKE ALL ON FUNCTION loyalty.refuse_award(bigint) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.refuse_award(bigint) IS 'Takes back what an award that is marked as refused had given; for refuse';

CREATE FUNCTION loyalty.lock_awards(source_ids bigint[]) RETURNS void
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_lock_awards';
REVOKE ALL ON FUNCTION loyalty.lock_awards(bigint[]) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.lock_awards(bigint[]) IS 'Locks transactions in the order given and then the accounts that they concern; LY405 where there is no such transaction';

CREATE FUNCTION loyalty.counts_not(source_id bigint) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = counts_not.source_id AND (h.released_at IS NULL OR h.refused_at IS NOT NULL)) $$;
COMMENT ON FUNCTION loyalty.counts_not(bigint) IS 'Whether the award of a transaction waits or was refused: it stamps no card and counts for no challenge';
REVOKE ALL ON FUNCTION loyalty.counts_not(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.lock_review(source_ids bigint[], reason text) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ids bigint[] := ARRAY(SELECT DISTINCT u FROM unnest(source_ids) u ORDER BY u);
BEGIN
    IF reason IS NULL OR btrim(reason) = '' OR octet_length(reason) > 2000 THEN
        RAISE EXCEPTION 'a decision needs a reason' USING ERRCODE = 'LY402', DETAIL = 'Expected a text of at most 2000 bytes.', HINT = 'Say why, for the member and the auditor.';
    END IF;
    -- a number that somebody looked for and did not find is not to be passed over
    IF EXISTS (SELECT FROM unnest(source_ids) s WHERE s IS NULL) THEN
        RAISE EXCEPTION 'no award of transaction NULL is held' USING ERRCODE = 'LY405', HINT = 'loyalty.review_queue lists those that wait.';
    END IF;
    PERFORM loyalty.lock_awards(ids);
    RETURN ids;
END
$$;
COMMENT ON FUNCTION loyalty.lock_review(bigint[], text) IS 'Checks the reason of a decision and locks what it is about; the ids in order, each once';
REVOKE ALL ON FUNCTION loyalty.lock_review(bigint[], text) FROM PUBLIC;

CREATE FUNCTION loyalty.held_award_of(source_id bigint) RETURNS loyalty.held_award
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    h loyalty.held_award;
BEGIN
    -- whoever decided in a transaction that this one does not see is 40001 here
    SELECT * INTO h FROM loyalty.held_award q WHERE q.source_id = source_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no award of transaction % is held', source_id USING ERRCODE = 'LY405', HINT = 'loyalty.review_queue lists those that wait.';
    END IF;
    RETURN h;
END
$$;
COMMENT ON FUNCTION loyalty.held_award_of(bigint) IS 'Locks a held award; LY405 where none was ever held';
REVOKE ALL ON FUNCTION loyalty.held_award_of(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.approve(source_ids bigint[], reason text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    ids bigint[] := loyalty.lock_review(source_ids, reason);
    id bigint;
    h loyalty.held_award;
    points bigint := 0;
BEGIN
    FOREACH id IN ARRAY ids LOOP
        h := loyalty.held_award_of(id);
        -- release_award raises where it was refused
        IF h.released_at IS NULL OR h.refused_at IS NOT NULL THEN
            points := points + loyalty.release_award(id);
            UPDATE loyalty.held_award q SET release_reason = reason WHERE q.source_id = id;
        END IF;
    END LOOP;
    RETURN points;
END
$$;
COMMENT ON FUNCTION loyalty.approve(bigint[], text) IS 'Approves held awards, with a reason, and posts them; returns the points. One approved before is left alone; LY407 where one was refused';
REVOKE ALL ON FUNCTION loyalty.approve(bigint[], text) FROM PUBLIC;

CREATE FUNCTION loyalty.approve(source_id bigint, reason text) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT loyalty.approve(ARRAY[source_id], reason) $$;
COMMENT ON FUNCTION loyalty.approve(bigint, text) IS 'Approves one held award';
REVOKE ALL ON FUNCTION loyalty.approve(bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.forget_refused(source_id bigint) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT loyalty.stamp_purchases(ARRAY[source_id], true);
    SELECT loyalty.track(ARRAY[source_id]);
    SELECT loyalty.give_claims_back(ARRAY[source_id]);
    SELECT loyalty.complete_sets(ARRAY[source_id]);
$$;
COMMENT ON FUNCTION loyalty.forget_refused(bigint) IS 'Takes back what a refused transaction counted for: stamps, challenges, what it claims as an activity, and the bonus of its set';
REVOKE ALL ON FUNCTION loyalty.forget_refused(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.refuse(source_ids bigint[], reason text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    ids bigint[] := loyalty.lock_review(source_ids, reason);
    id bigint;
    h loyalty.held_award;
    before numeric;
    after numeric;
    points bigint := 0;
BEGIN
    FOREACH id IN ARRAY ids LOOP
        h := loyalty.held_award_of(id);
        CONTINUE WHEN h.refused_at IS NOT NULL;
        UPDATE loyalty.held_award q SET refused_at = now(), refused_by = session_user, refuse_reason = reason WHERE q.source_id = id;
        IF h.released_at IS NOT NULL THEN
            SELECT coalesce(sum(e.points), 0) INTO before FROM loyalty.entry e WHERE e.source_id = id;
            PERFORM loyalty.refuse_award(id);
            SELECT coalesce(sum(e.points), 0) INTO after FROM loyalty.entry e WHERE e.source_id = id;
            points := points + (before - after)::bigint;
        END IF;
        PERFORM loyalty.forget_refused(id);
    END LOOP;
    RETURN points;
END
$$;
COMMENT ON FUNCTION loyalty.refuse(bigint[], text) IS 'Refuses held awards for ever, with a reason; the points of one that was approved before are taken back, and its purchase stands. Returns the points taken back; one refused before is left alone';
REVOKE ALL ON FUNCTION loyalty.refuse(bigint[], text) FROM PUBLIC;

CREATE FUNCTION loyalty.refuse(source_id bigint, reason text) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT loyalty.refuse(ARRAY[source_id], reason) $$;
COMMENT ON FUNCTION loyalty.refuse(bigint, text) IS 'Refuses one held award';
REVOKE ALL ON FUNCTION loyalty.refuse(bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.age_band(age interval) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE WHEN age < '1 day' THEN 'under 1 day' WHEN age < '3 days' THEN '1 to 2 days' WHEN age < '7 days' THEN '3 to 6 days'
                      WHEN age < '30 days' THEN '7 to 29 days' ELSE '30 days or more' END $$;
COMMENT ON FUNCTION loyalty.age_band(interval) IS 'How long something waits, in bands of whole days';
REVOKE ALL ON FUNCTION loyalty.age_band(interval) FROM PUBLIC;

CREATE VIEW loyalty.review_award AS
    SELECT m.program_id, g.name AS program, h.source_id, CASE WHEN p.purchase_id IS NULL THEN 'activity' ELSE 'purchase' END AS transaction,
           coalesce(p.member_id, v.member_id) AS member_id, coalesce(p.occurred_at, v.occurred_at) AS occurred_at,
           p.amount, CASE WHEN p.purchase_id IS NOT NULL THEN coalesce(p.currency, g.currency) END AS currency, p.store, v.kind AS activity, v.subject, v.value,
           coalesce(p.source, v.source) AS source, coalesce(p.reference, v.reference) AS reference, coalesce(p.status, v.status) AS status,
           h.reason, h.detail, h.failed, h.held_at, h.released_at, h.released_by, h.release_reason, h.refused_at, h.refused_by, h.refuse_reason,
           CASE WHEN h.refused_at IS NOT NULL THEN 'refused' WHEN h.released_at IS NOT NULL THEN 'approved' ELSE 'waiting' END AS decision
    FROM loyalty.held_award h
         LEFT JOIN loyalty.purchase p ON p.purchase_id = h.source_id
         LEFT JOIN loyalty.activity v ON v.activity_id = h.source_id
         LEFT JOIN loyalty.member m ON m.member_id = coalesce(p.member_id, v.member_id)
         LEFT JOIN loyalty.program g ON g.program_id = m.program_id;
COMMENT ON VIEW loyalty.review_award IS 'Every award that was ever held, with what was decided, by whom and why';

CREATE VIEW loyalty.review_queue AS
    SELECT a.program_id, a.program, a.source_id, a.transaction, a.member_id, a.occurred_at, a.amount, a.currency, a.store, a.activity, a.subject, a.value,
           a.source, a.reference, a.status, a.reason, a.detail, a.failed, a.held_at, w.age, floor(extract(epoch FROM w.age) / 86400)::integer AS days, loyalty.age_band(w.age) AS band
    FROM loyalty.review_award a CROSS JOIN LATERAL (SELECT now() - a.held_at AS age) w
    WHERE a.released_at IS NULL AND a.refused_at IS NULL;
COMMENT ON VIEW loyalty.review_queue IS 'Awards that wait for approve or refuse, with what they are for, why they wait and for how long; status void: its transaction was cancelled, and approving posts nothing';

CREATE VIEW loyalty.review_ageing AS
    SELECT q.program_id, q.program, q.reason, q.band, min(q.days) AS days_from, count(*) AS waiting, q.currency, sum(q.amount) AS amount, min(q.held_at) AS oldest
    FROM loyalty.review_queue q GROUP BY q.program_id, q.program, q.reason, q.band, q.currency;
COMMENT ON VIEW loyalty.review_ageing IS 'How many awards wait for how long, by reason and band of days';

CREATE FUNCTION loyalty.check_reviews() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- points of the tally: where the policy clamps, lots may be left that nobody could take
    SELECT 'what was refused gives no points', h.account_id, format('source %s: %s points', h.source_id, s.points)
        FROM loyalty.held_award h
             CROSS JOIN LATERAL (SELECT coalesce(loyalty.points(loyalty.sum(e.tally)), 0) AS points FROM loyalty.entry e
                                 WHERE e.source_id = h.source_id AND e.kind IN ('earn', 'correct', 'return')) s
        WHERE h.refused_at IS NOT NULL AND s.points <> 0
    UNION ALL
    SELECT 'an approval has its time', h.account_id, format('source %s', h.source_id)
        FROM loyalty.held_award h
        WHERE h.released_at < h.held_at OR h.refused_at < h.held_at OR (h.released_at IS NULL) <> (h.released_by IS NULL)
$$;
COMMENT ON FUNCTION loyalty.check_reviews() IS 'The invariants of awards that wait for a person that are broken';
REVOKE ALL ON FUNCTION loyalty.check_reviews() FROM PUBLIC;
