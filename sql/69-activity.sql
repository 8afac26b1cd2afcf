/*
 * activity: what keeps activities that earn points honest.  A policy of a kind
 * says what one must be to earn; what the rules give comes after.
 *
 * What was decided about an activity is a row of activity_admission, written in
 * the transaction of its INSERT under the lock of its member's account.  Its
 * unique indexes hold what may be paid once; a row whose activity was refused
 * claims nothing.  What is void, or refused by a person, gives back what it had
 * claimed; an activity that is void no more claims it again, as far as it is
 * still to be had.
 */

CREATE TABLE loyalty.activity_policy (
    program_id          integer NOT NULL,
    kind                text NOT NULL CHECK (kind <> '' AND octet_length(kind) <= 200),
    once_per_subject    boolean NOT NULL DEFAULT false,
    needs_approval      boolean NOT NULL DEFAULT false,
    verified_purchase   boolean NOT NULL DEFAULT false,
    quota_per_subject   integer CHECK (quota_per_subject > 0),
    falling             numeric NOT NULL DEFAULT 0 CHECK (falling >= 0 AND falling < 1 AND scale(falling) <= 4),
    window_days         integer CHECK (window_days BETWEEN 0 AND 36500),
    max_age_days        integer CHECK (max_age_days BETWEEN 0 AND 36500),
    unique_fingerprint  boolean NOT NULL DEFAULT false,
    fields              text[] CHECK (cardinality(fields) > 0 AND array_ndims(fields) = 1 AND array_position(fields, NULL) IS NULL),
    complete_kind       text CHECK (complete_kind <> kind),
    completes           text,
    days_before         integer CHECK (days_before BETWEEN 0 AND 60),
    held_days           integer CHECK (held_days BETWEEN 0 AND 3650),
    catch_up_days       integer CHECK (catch_up_days BETWEEN 0 AND 180),
    leap_day            text CHECK (leap_day IN ('02-28', '03-01')),
    on_fail             text NOT NULL DEFAULT 'refuse' CHECK (on_fail IN ('refuse', 'reject')),
    set_at              timestamptz NOT NULL DEFAULT now(),
    set_by              name NOT NULL DEFAULT session_user,
    PRIMARY KEY (program_id, kind),
    CONSTRAINT activity_policy_occasion_check CHECK (num_nonnulls(days_before, held_days, catch_up_days, leap_day) IN (0, 4)
                                                     AND (days_before IS NULL OR (kind IN ('birthday', 'anniversary') AND once_per_subject))),
    CONSTRAINT activity_policy_complete_check CHECK (complete_kind IS NULL OR (fields IS NOT NULL AND once_per_subject))
);
COMMENT ON TABLE loyalty.activity_policy IS 'What an activity of a kind must be to earn; see set_activity_policy';
COMMENT ON COLUMN loyalty.activity_policy.quota_per_subject IS 'So many of a subject earn in full; of each so many more, times falling once more';
COMMENT ON COLUMN loyalty.activity_policy.completes IS 'It is what a member gets for all fields of that kind';
COMMENT ON COLUMN loyalty.activity_policy.days_before IS 'An occasion, see set_occasion: its points come so many days before; NULL: none, likewise below';
COMMENT ON COLUMN loyalty.activity_policy.held_days IS 'So long before that day its date must stand in the books';
COMMENT ON COLUMN loyalty.activity_policy.catch_up_days IS 'So many days later the job still makes up for one that it missed';
COMMENT ON COLUMN loyalty.activity_policy.leap_day IS 'When 29 February is celebrated in other years';
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.activity_policy
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();

CREATE TABLE loyalty.activity_admission (
    activity_id bigint PRIMARY KEY,
    program_id  integer NOT NULL,
    kind        text NOT NULL,
    member_id   bigint NOT NULL,
    subject     text,
    once        boolean NOT NULL,
    fingerprint text,
    number      bigint,
    factor      numeric CHECK (factor BETWEEN 0 AND 1),
    verdict     text NOT NULL CHECK (verdict IN ('paid', 'held', 'refused')),
    reason      text,
    decided_at  timestamptz NOT NULL DEFAULT now(),
    given_back_at timestamptz,
    CONSTRAINT activity_admission_reason_check CHECK ((verdict = 'refused') <= (reason IS NOT NULL AND NOT once AND fingerprint IS NULL AND number IS NULL))
);
CREATE UNIQUE INDEX activity_admission_once_idx ON loyalty.activity_admission (program_id, kind, member_id, subject) WHERE once AND given_back_at IS NULL;
CREATE UNIQUE INDEX activity_admission_fingerprint_idx ON loyalty.activity_admission (program_id, fingerprint) WHERE fingerprint IS NOT NULL AND given_back_at IS NULL;
COMMENT ON TABLE loyalty.activity_admission IS 'What was decided about each activity of a kind that has a policy; written with it, kept for ever';
COMMENT ON COLUMN loyalty.activity_admission.once IS 'It is the member''s one of its subject';
COMMENT ON COLUMN loyalty.activity_admission.number IS 'The how-manieth of its subject, of all members, where there is a quota';
COMMENT ON COLUMN loyalty.activity_admission.given_back_at IS 'Since then its subject, fingerprint and number are free for others; NULL: they are its own';
COMMENT ON COLUMN loyalty.activity_admission.factor IS 'Its points are what the rules give times this; NULL: 1';
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.activity_admission
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('transaction');

CREATE TABLE loyalty.activity_quota (
    program_id  integer NOT NULL,
    kind        text NOT NULL,
    subject     text NOT NULL,
    counted     bigint NOT NULL CHECK (counted > 0),
    taken       bigint NOT NULL,
    freed       bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (program_id, kind, subject)
) WITH (fillfactor = 50);
COMMENT ON TABLE loyalty.activity_quota IS 'How many activities of a kind a subject has had, where a policy has a quota';
COMMENT ON COLUMN loyalty.activity_quota.taken IS 'The number that was given last';
COMMENT ON COLUMN loyalty.activity_quota.freed IS 'Numbers up to counted that were given back, ascending; the next activity gets the first of them';

CREATE FUNCTION loyalty.set_activity_policy(program_id integer, kind text, once_per_subject boolean DEFAULT false, needs_approval boolean DEFAULT false,
        verified_purchase boolean DEFAULT false, quota_per_subject integer DEFAULT NULL, falling numeric DEFAULT 0, window_days integer DEFAULT NULL,
        max_age_days integer DEFAULT NULL, unique_fingerprint boolean DEFAULT false, fields text[] DEFAULT NULL, complete_kind text DEFAULT NULL,
        on_fail text DEFAULT 'refuse') RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF EXISTS (SELECT FROM loyalty.activity_policy q WHERE q.program_id = program_id
               AND ((q.kind = kind AND num_nonnulls(q.completes, q.days_before) > 0) OR (q.kind = complete_kind AND q.completes IS DISTINCT FROM kind))) THEN
        RAISE EXCEPTION 'kind "%" has another policy', coalesce(complete_kind, kind) USING ERRCODE = 'LY162', HINT = 'Take another complete_kind.';
    END IF;
    DELETE FROM loyalty.activity_policy q WHERE q.program_id = program_id AND (q.kind = kind OR q.completes = kind);
    INSERT INTO loyalty.activity_policy (program_id, kind, once_per_subject, needs_approval, verified_purchase, quota_per_subject, falling, window_days,
                                         max_age_days, unique_fingerprint, fields, complete_kind, on_fail)
        VALUES (program_id, kind, once_per_subject, needs_approval, verified_purchase, quota_per_subject, falling, window_days,
                max_age_days, unique_fingerprint, fields, complete_kind, on_fail);
    IF complete_kind IS NOT NULL THEN
        INSERT INTO loyalty.activity_policy (program_id, kind, once_per_subject, completes) VALUES (program_id, complete_kind, true, kind);
    END IF;
EXCEPTION
    WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION 'a policy of activities is not valid' USING ERRCODE = 'LY162', DETAIL = SQLERRM,
            HINT = 'A kind; numbers above zero; falling from 0 to below 1 with up to four decimals; on_fail is refuse or reject; complete_kind, another kind, goes with fields and once_per_subject.';
END
$$;
COMMENT ON FUNCTION loyalty.set_activity_policy(integer, text, boolean, boolean, boolean, integer, numeric, integer, integer, boolean, text[], text, text) IS 'Says what an activity of a kind must be to earn points, in place of what was said before; what was decided stays';
REVOKE ALL ON FUNCTION loyalty.set_activity_policy(integer, text, boolean, boolean, boolean, integer, numeric, integer, integer, boolean, text[], text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.drop_activity_policy(program_id integer, kind text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ DELETE FROM loyalty.activity_policy q WHERE q.program_id = drop_activity_policy.program_id AND (q.kind = drop_activity_policy.kind OR q.completes = drop_activity_policy.kind) $$;
COMMENT ON FUNCTION loyalty.drop_activity_policy(integer, text) IS 'Takes the policy of a kind away: its activities earn what the rules give';
REVOKE ALL ON FUNCTION loyalty.drop_activity_policy(integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.time_of(value text, zone text) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF value IS NULL OR value !~ E'^\\d{4}-\\d\\d-\\d\\d' THEN RETURN NULL; END IF;
    IF value ~ E':.*([+-]\\d|Z)' THEN RETURN value::timestamptz; END IF;
    RETURN value::timestamp AT TIME ZONE zone;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION loyalty.time_of(text, text) IS 'An ISO 8601 day or time, in a time zone where it names none; NULL where it is none';
REVOKE ALL ON FUNCTION loyalty.time_of(text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.persons_of(member_id bigint) RETURNS bigint[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT array_agg(a.account_id ORDER BY a.account_id) FROM loyalty.account a WHERE a.account_id = persons_of.member_id OR a.merged_into = persons_of.member_id $$;
COMMENT ON FUNCTION loyalty.persons_of(bigint) IS 'A member and those that were merged into it';
REVOKE ALL ON FUNCTION loyalty.persons_of(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.has_bought(persons bigint[], sku text, before timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- the ledger's entries find a member's purchases; those in a household's account, by whose they are
    SELECT EXISTS (
        SELECT FROM loyalty.purchase p
        WHERE p.purchase_id IN (SELECT e.source_id FROM loyalty.entry e
                                WHERE e.kind IN ('earn', 'correct')
                                      AND (e.account_id = ANY (persons)
                                           OR e.account_id IN (SELECT h.household_id FROM loyalty.household_member h WHERE h.member_id = ANY (persons))))
              AND p.member_id = ANY (persons) AND p.status = 'completed' AND p.occurred_at <= before
              AND EXISTS (SELECT FROM unnest(p.lines) l WHERE l.sku = has_bought.sku)
              AND (CASE WHEN EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id)
                        THEN NOT EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id AND d.complete)
                             AND EXISTS (SELECT FROM loyalty.returned_lines(p) r, unnest(p.lines) WITH ORDINALITY l (sku, quantity, unit_price, amount, discount, line)
                                         WHERE r.line = l.line AND l.sku = has_bought.sku AND r.above < r.below)
                        ELSE true END))
$$;
COMMENT ON FUNCTION loyalty.has_bought(bigint[], text, timestamptz) IS 'Whether one of these members bought an article and did not bring all of it back';
REVOKE ALL ON FUNCTION loyalty.has_bought(bigint[], text, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.set_complete(program_id integer, kind text, persons bigint[]) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM loyalty.activity_policy p
                   WHERE p.program_id = set_complete.program_id AND p.kind = set_complete.kind AND p.fields IS NOT NULL
                         AND NOT EXISTS (SELECT FROM unnest(p.fields) f
                                         WHERE NOT EXISTS (SELECT FROM loyalty.activity_admission a
                                                           WHERE a.program_id = p.program_id AND a.kind = p.kind AND a.member_id = ANY (persons) AND a.subject = f
                                                                 AND a.once AND a.given_back_at IS NULL
                                                                 AND NOT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = a.activity_id AND (h.released_at IS NULL OR h.refused_at IS NOT NULL)))))
$$;
COMMENT ON FUNCTION loyalty.set_complete(integer, text, bigint[]) IS 'Whether a member has filled in every field of a kind, none of which waits';
REVOKE ALL ON FUNCTION loyalty.set_complete(integer, text, bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.promptness_fault(v loyalty.activity, days integer, persons bigint[], zone text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    delivered timestamptz := loyalty.time_of(v.attributes ->> 'delivered_at', zone);
    p loyalty.purchase;
BEGIN
    IF v.attributes ? 'purchase_id' THEN
        IF v.attributes ->> 'purchase_id' ~ E'^\\d{1,18}$' THEN
            SELECT * INTO p FROM loyalty.purchase q WHERE q.purchase_id = (v.attributes ->> 'purchase_id')::bigint AND q.member_id = ANY (persons) AND q.status = 'completed';
        END IF;
        IF p.purchase_id IS NULL THEN RETURN 'names a purchase that is not the member''s'; END IF;
        -- what the shop says of the delivery is better than what the member says
        delivered := coalesce(loyalty.time_of(p.attributes ->> 'delivered_at', zone), delivered, p.occurred_at);
    END IF;
    RETURN CASE WHEN delivered IS NULL THEN 'says neither delivered_at nor purchase_id'
                WHEN v.occurred_at < delivered THEN 'was before the delivery'
                WHEN v.occurred_at > delivered + make_interval(days => days) THEN format('was more than %s days after the delivery', days) END;
END
$$;
COMMENT ON FUNCTION loyalty.promptness_fault(loyalty.activity, integer, bigint[], text) IS 'Why an activity was not within so many days of a delivery, NULL where it was';
REVOKE ALL ON FUNCTION loyalty.promptness_fault(loyalty.activity, integer, bigint[], text) FROM PUBLIC;

CREATE FUNCTION loyalty.age_fault(v loyalty.activity, days integer, zone text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN d.made IS NULL THEN 'says no receipt_date'
                WHEN d.made > d.day THEN 'is of a receipt that is not yet'
                WHEN d.day - d.made > days THEN format('is of a receipt more than %s days old', days) END
    FROM (SELECT (loyalty.time_of(v.attributes ->> 'receipt_date', zone) AT TIME ZONE zone)::date AS made, (v.occurred_at AT TIME ZONE zone)::date AS day) d
$$;
COMMENT ON FUNCTION loyalty.age_fault(loyalty.activity, integer, text) IS 'Why a receipt is too old, NULL where it is not';
REVOKE ALL ON FUNCTION loyalty.age_fault(loyalty.activity, integer, text) FROM PUBLIC;

CREATE FUNCTION loyalty.policy_fault(p loyalty.activity_policy, v loyalty.activity, persons bigint[], zone text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject text := v.subject;
    fingerprint text := v.attributes ->> 'fingerprint';
    fault text;
BEGIN
    IF p.completes IS NOT NULL THEN
        RETURN CASE WHEN NOT loyalty.set_complete(p.program_id, p.completes, persons) THEN format('comes when all of %s is there', p.completes) END;
    END IF;
    IF p.days_before IS NOT NULL THEN
        -- whose date is when, and whether it stood there, was looked at by the job
        RETURN CASE WHEN v.source <> 'loyalty:' || p.kind THEN 'comes from loyalty.birthdays alone' END;
    END IF;
    fault := CASE
        WHEN (p.once_per_subject OR p.verified_purchase OR p.quota_per_subject IS NOT NULL OR p.fields IS NOT NULL) AND coalesce(subject, '') = '' THEN 'names no subject'
        WHEN octet_length(subject) > 1000 THEN 'has a subject of more than 1000 bytes'
        WHEN p.fields IS NOT NULL AND subject <> ALL (p.fields) THEN 'names a field that is none of the set'
        WHEN p.unique_fingerprint AND coalesce(fingerprint, '') = '' THEN 'has no fingerprint'
        WHEN p.unique_fingerprint AND octet_length(fingerprint) > 500 THEN 'has a fingerprint of more than 500 bytes'
        END;
    IF fault IS NULL AND p.max_age_days IS NOT NULL THEN fault := loyalty.age_fault(v, p.max_age_days, zone); END IF;
    IF fault IS NULL AND p.window_days IS NOT NULL THEN fault := loyalty.promptness_fault(v, p.window_days, persons, zone); END IF;
    IF fault IS NULL AND p.verified_purchase AND NOT loyalty.has_bought(persons, subject, v.occurred_at) THEN
        fault := 'is about an article that the member did not buy, or gave back';
    END IF;
    RETURN fault;
END
$$;
COMMENT ON FUNCTION loyalty.policy_fault(loyalty.activity_policy, loyalty.activity, bigint[], text) IS 'What an activity lacks by itself to be paid, NULL where nothing';
REVOKE ALL ON FUNCTION loyalty.policy_fault(loyalty.activity_policy, loyalty.activity, bigint[], text) FROM PUBLIC;

CREATE FUNCTION loyalty.falling_factor(falling numeric, quota integer, number bigint) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    factor numeric := 1;
BEGIN
    FOR i IN 1 .. least((number - 1) / quota, 10000) LOOP
        factor := trunc(factor * falling, 12);
        EXIT WHEN factor = 0;
    END LOOP;
    RETURN trim_scale(factor);
END
$$;
COMMENT ON FUNCTION loyalty.falling_factor(numeric, integer, bigint) IS 'What the how-manieth of a subject is worth: 1 within the quota, times falling for every quota that is full, cut to twelve decimals';
REVOKE ALL ON FUNCTION loyalty.falling_factor(numeric, integer, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.claim_fault(program_id integer, kind text, persons bigint[], subject text, once boolean, fingerprint text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN once AND EXISTS (SELECT FROM loyalty.activity_admission a
                              WHERE a.program_id = claim_fault.program_id AND a.kind = claim_fault.kind AND a.member_id = ANY (persons)
                                    AND a.subject = claim_fault.subject AND a.once AND a.given_back_at IS NULL) THEN 'is not the member''s first of its subject'
        WHEN EXISTS (SELECT FROM loyalty.activity_admission a
                     WHERE a.program_id = claim_fault.program_id AND a.fingerprint = claim_fault.fingerprint AND a.given_back_at IS NULL) THEN 'has a fingerprint that was used before' END
$$;
COMMENT ON FUNCTION loyalty.claim_fault(integer, text, bigint[], text, boolean, text) IS 'Why a member cannot claim a subject or fingerprint, NULL where it can';
REVOKE ALL ON FUNCTION loyalty.claim_fault(integer, text, bigint[], text, boolean, text) FROM PUBLIC;

CREATE FUNCTION loyalty.take_number(program_id integer, kind text, subject text) RETURNS bigint
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO loyalty.activity_quota AS q VALUES (program_id, kind, subject, 1, 1)
        ON CONFLICT ON CONSTRAINT activity_quota_pkey DO UPDATE
        SET counted = CASE WHEN q.freed = '{}' THEN q.counted + 1 ELSE q.counted END, taken = coalesce(q.freed[1], q.counted + 1), freed = q.freed[2:]
        RETURNING q.taken
$$;
COMMENT ON FUNCTION loyalty.take_number(integer, text, text) IS 'The next number of a subject under a quota; one that was given back comes first';
REVOKE ALL ON FUNCTION loyalty.take_number(integer, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.claim_activity(p loyalty.activity_policy, v loyalty.activity, persons bigint[], OUT fault text, OUT factor numeric)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    named text := CASE WHEN p.completes IS NOT NULL THEN '' ELSE v.subject END;
    print text := CASE WHEN p.unique_fingerprint THEN v.attributes ->> 'fingerprint' END;
    n bigint;
BEGIN
    fault := loyalty.claim_fault(p.program_id, p.kind, persons, named, p.once_per_subject, print);
    IF fault IS NOT NULL THEN
        RETURN;
    END IF;
    INSERT INTO loyalty.activity_admission (activity_id, program_id, kind, member_id, subject, once, fingerprint, verdict)
        VALUES (v.activity_id, p.program_id, p.kind, v.member_id, named, p.once_per_subject, print, CASE WHEN p.needs_approval THEN 'held' ELSE 'paid' END)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        fault := CASE WHEN print IS NOT NULL THEN 'has a fingerprint that was used before' ELSE 'is not the member''s first of its subject' END;
    ELSIF p.quota_per_subject IS NOT NULL THEN
        n := loyalty.take_number(p.program_id, p.kind, named);
        factor := loyalty.falling_factor(p.falling, p.quota_per_subject, n);
        UPDATE loyalty.activity_admission a SET number = n, factor = claim_activity.factor WHERE a.activity_id = v.activity_id;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.claim_activity(loyalty.activity_policy, loyalty.activity, bigint[]) IS 'Claims what an activity may be paid for once and counts it against a quota, or says why it cannot';
REVOKE ALL ON FUNCTION loyalty.claim_activity(loyalty.activity_policy, loyalty.activity, bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.give_claims_back(activity_ids bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a loyalty.activity_admission;
BEGIN
    FOR a IN SELECT q.* FROM loyalty.activity_admission q WHERE q.activity_id = ANY (activity_ids) AND q.verdict <> 'refused' AND q.given_back_at IS NULL
             ORDER BY q.program_id, q.kind, q.subject, q.activity_id FOR NO KEY UPDATE LOOP
        UPDATE loyalty.activity_admission q SET given_back_at = now() WHERE q.activity_id = a.activity_id;
        UPDATE loyalty.activity_quota q SET freed = ARRAY(SELECT u FROM unnest(q.freed || a.number) u ORDER BY u)
            WHERE (q.program_id, q.kind, q.subject) = (a.program_id, a.kind, a.subject) AND a.number IS NOT NULL;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.give_claims_back(bigint[]) IS 'Gives back, once, the subjects, fingerprints and numbers of activities that are void or refused';
REVOKE ALL ON FUNCTION loyalty.give_claims_back(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.claim_again(a loyalty.activity_admission) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fault text := loyalty.claim_fault(a.program_id, a.kind, loyalty.persons_of(a.member_id), a.subject, a.once, a.fingerprint);
    p loyalty.activity_policy;
    n bigint;
BEGIN
    IF fault IS NULL THEN
        BEGIN
            UPDATE loyalty.activity_admission q SET given_back_at = NULL WHERE q.activity_id = a.activity_id;
        EXCEPTION WHEN unique_violation THEN
            fault := CASE WHEN a.fingerprint IS NOT NULL THEN 'has a fingerprint that was used before' ELSE 'is not the member''s first of its subject' END;
        END;
    END IF;
    IF fault IS NOT NULL THEN
        UPDATE loyalty.activity_admission q SET verdict = 'refused', reason = fault, once = false, fingerprint = NULL, number = NULL, factor = NULL, given_back_at = NULL
            WHERE q.activity_id = a.activity_id;
    ELSIF a.number IS NOT NULL THEN
        SELECT * INTO p FROM loyalty.activity_policy q WHERE q.program_id = a.program_id AND q.kind = a.kind;
        n := loyalty.take_number(a.program_id, a.kind, a.subject);
        UPDATE loyalty.activity_admission q SET number = n, factor = loyalty.falling_factor(p.falling, p.quota_per_subject, n) WHERE q.activity_id = a.activity_id;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.claim_again(loyalty.activity_admission) IS 'Claims what an activity gave back that is void no more, or refuses it';
REVOKE ALL ON FUNCTION loyalty.claim_again(loyalty.activity_admission) FROM PUBLIC;

CREATE FUNCTION loyalty.settle_claims(activity_ids bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a loyalty.activity_admission;
BEGIN
    PERFORM loyalty.give_claims_back(ARRAY(SELECT v.activity_id FROM loyalty.activity v WHERE v.activity_id = ANY (activity_ids) AND v.status = 'void'));
    FOR a IN SELECT q.* FROM loyalty.activity_admission q JOIN loyalty.activity v USING (activity_id)
             WHERE q.activity_id = ANY (activity_ids) AND q.given_back_at IS NOT NULL AND v.status <> 'void'
                   AND NOT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = q.activity_id AND h.refused_at IS NOT NULL)
             ORDER BY q.program_id, q.kind, q.subject, q.activity_id FOR NO KEY UPDATE OF q LOOP
        PERFORM loyalty.claim_again(a);
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.settle_claims(bigint[]) IS 'Lets changed activities give back what they claim no more, and claim again what they claim anew';
REVOKE ALL ON FUNCTION loyalty.settle_claims(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.admitted(activity_ids bigint[]) RETURNS TABLE (source_id bigint, verdict text, reason text, detail text, factor numeric)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    -- whether one waits is said by held_award from now on
    AS $$ SELECT a.activity_id, CASE a.verdict WHEN 'held' THEN 'paid' ELSE a.verdict END, a.reason, NULL, a.factor FROM loyalty.activity_admission a WHERE a.activity_id = ANY (activity_ids) $$;
COMMENT ON FUNCTION loyalty.admitted(bigint[]) IS 'What was decided about activities when they were new';
REVOKE ALL ON FUNCTION loyalty.admitted(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.lock_subjects(activity_ids bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- of two statements of many rows the second waits here, in one order, before either claims what the other wants
    PERFORM pg_advisory_xact_lock(1819241836, b.bucket)
        FROM (SELECT DISTINCT hashtext(x.key) & 255 AS bucket
              FROM loyalty.activity v
                   JOIN loyalty.member m USING (member_id)
                   JOIN loyalty.activity_policy p ON p.program_id = m.program_id AND p.kind = v.kind
                   CROSS JOIN LATERAL (VALUES (CASE WHEN p.unique_fingerprint THEN v.attributes ->> 'fingerprint' END),
                                              (CASE WHEN p.quota_per_subject IS NOT NULL THEN v.subject END)) x (key)
              WHERE v.activity_id = ANY (activity_ids) AND x.key IS NOT NULL ORDER BY 1) b;
END
$$;
COMMENT ON FUNCTION loyalty.lock_subjects(bigint[]) IS 'Puts statements of many activities that want the same fingerprints or quotas one after the other';
REVOKE ALL ON FUNCTION loyalty.lock_subjects(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.admit_activity(p loyalty.activity_policy, v loyalty.activity, OUT verdict text, OUT reason text, OUT factor numeric)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    persons bigint[] := loyalty.persons_of(v.member_id);
    zone text := (SELECT g.time_zone FROM loyalty.program g WHERE g.program_id = p.program_id);
BEGIN
    verdict := CASE WHEN p.needs_approval THEN 'held' ELSE 'paid' END;
    reason := loyalty.policy_fault(p, v, persons, zone);
    IF reason IS NULL THEN
        SELECT c.fault, c.factor INTO reason, factor FROM loyalty.claim_activity(p, v, persons) c;
    END IF;
    IF reason IS NULL THEN
        reason := CASE WHEN p.needs_approval THEN format('needs approval: %s', p.kind) END;
        RETURN;
    END IF;
    verdict := 'refused';
    IF p.on_fail = 'reject' THEN
        RAISE EXCEPTION 'activity % gives no points', v.activity_id USING ERRCODE = 'LY161', DETAIL = format('It %s.', reason), HINT = format('The policy of "%s" says so.', p.kind);
    END IF;
    INSERT INTO loyalty.activity_admission (activity_id, program_id, kind, member_id, subject, once, verdict, reason)
        VALUES (v.activity_id, p.program_id, p.kind, v.member_id, left(v.subject, 200), false, verdict, reason);
END
$$;
COMMENT ON FUNCTION loyalty.admit_activity(loyalty.activity_policy, loyalty.activity) IS 'Decides whether a new activity may be paid, and writes it down; LY161 where its policy rejects';
REVOKE ALL ON FUNCTION loyalty.admit_activity(loyalty.activity_policy, loyalty.activity) FROM PUBLIC;

CREATE FUNCTION loyalty.admit_activities(activity_ids bigint[]) RETURNS TABLE (source_id bigint, verdict text, reason text, detail text, factor numeric)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    p loyalty.activity_policy;
    v loyalty.activity;
BEGIN
    IF cardinality(activity_ids) > 1 THEN PERFORM loyalty.lock_subjects(activity_ids); END IF;
    IF EXISTS (SELECT FROM loyalty.activity_admission a WHERE a.activity_id = ANY (activity_ids)) THEN
        PERFORM loyalty.settle_claims(activity_ids);
        RETURN QUERY SELECT a.* FROM loyalty.admitted(activity_ids) a;
    END IF;
    FOR v IN SELECT q.* FROM unnest(activity_ids) WITH ORDINALITY u (id, n) JOIN loyalty.activity q ON q.activity_id = u.id
             WHERE q.status <> 'void' AND NOT EXISTS (SELECT FROM loyalty.activity_admission a WHERE a.activity_id = u.id) ORDER BY u.n LOOP
        SELECT q.* INTO p FROM loyalty.activity_policy q JOIN loyalty.member m ON m.program_id = q.program_id
            WHERE m.member_id = v.member_id AND q.kind = v.kind;
        CONTINUE WHEN NOT FOUND;
        source_id := v.activity_id;
        detail := NULL;
        SELECT x.verdict, x.reason, x.factor INTO verdict, reason, factor FROM loyalty.admit_activity(p, v) x;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.admit_activities(bigint[]) IS 'Decides about new activities in the order given; of others it tells what was decided';
REVOKE ALL ON FUNCTION loyalty.admit_activities(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.sets_of(activity_ids bigint[]) RETURNS TABLE (member_id bigint, occurred_at timestamptz, complete_kind text, is_complete boolean, recorded text[])
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.member_id, s.occurred_at, s.complete_kind, loyalty.set_complete(s.program_id, s.kind, x.persons), ARRAY(SELECT p || ' ' || s.complete_kind FROM unnest(x.persons) p)
    FROM (SELECT coalesce(c.merged_into, c.account_id) AS member_id, max(v.occurred_at) AS occurred_at, p.program_id, p.kind, p.complete_kind
          FROM loyalty.activity_admission a
               JOIN loyalty.activity v USING (activity_id)
               JOIN loyalty.account c ON c.account_id = a.member_id
               JOIN loyalty.activity_policy p ON p.program_id = a.program_id AND p.kind = a.kind AND p.complete_kind IS NOT NULL
          WHERE a.activity_id = ANY (activity_ids)
          GROUP BY 1, 3, 4, 5) s
         CROSS JOIN LATERAL (SELECT loyalty.persons_of(s.member_id) AS persons) x
$$;
COMMENT ON FUNCTION loyalty.sets_of(bigint[]) IS 'The sets to which activities belong, whether they are complete, and the references under which that would be recorded';
REVOKE ALL ON FUNCTION loyalty.sets_of(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.complete_sets(activity_ids bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO loyalty.activity AS v (member_id, occurred_at, kind, source, reference)
        SELECT s.member_id, s.occurred_at, s.complete_kind, 'loyalty:complete', s.member_id || ' ' || s.complete_kind
        FROM loyalty.sets_of(activity_ids) s JOIN loyalty.account c ON c.account_id = s.member_id AND NOT c.closed
        WHERE s.is_complete
              AND NOT EXISTS (SELECT FROM loyalty.activity o WHERE o.source = 'loyalty:complete' AND o.reference = ANY (s.recorded) AND o.status = 'completed')
        ORDER BY s.member_id, s.complete_kind
        -- what somebody else made void stays so
        ON CONFLICT (source, reference) DO UPDATE SET status = 'completed', attributes = NULL WHERE v.status = 'void' AND v.attributes ? 'incomplete';
    IF EXISTS (SELECT FROM loyalty.activity_admission a WHERE a.activity_id = ANY (activity_ids) AND a.given_back_at IS NOT NULL) THEN
        UPDATE loyalty.activity v SET status = 'void', attributes = '{"incomplete": true}'
            FROM loyalty.sets_of(activity_ids) s
            WHERE NOT s.is_complete AND v.source = 'loyalty:complete' AND v.reference = ANY (s.recorded) AND v.status = 'completed';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.complete_sets(bigint[]) IS 'Records the activity that a member gets for having filled in every field of a kind, once, and makes it void where a field is gone';
REVOKE ALL ON FUNCTION loyalty.complete_sets(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.policy_text(p loyalty.activity_policy) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws('; ',
        CASE WHEN p.completes IS NOT NULL THEN format('once, when all of %s is there', p.completes) WHEN p.fields IS NOT NULL THEN format('for each of %s', array_to_string(p.fields, ', ')) END,
        CASE WHEN p.days_before = 0 THEN format('once a year, on the %s', p.kind) WHEN p.days_before > 0 THEN format('once a year, %s days before the %s', p.days_before, p.kind) END,
        CASE WHEN p.held_days > 0 THEN format('whose date is known %s days before', p.held_days) END,
        CASE WHEN p.once_per_subject AND p.completes IS NULL AND p.days_before IS NULL THEN 'once per subject' END,
        CASE WHEN p.verified_purchase THEN 'for an article that the member bought and kept' END,
        CASE WHEN p.quota_per_subject IS NOT NULL THEN format('in full for the first %s of a subject, then times %s for every further %s', p.quota_per_subject, p.falling, p.quota_per_subject) END,
        CASE WHEN p.window_days IS NOT NULL THEN format('within %s days of delivery', p.window_days) END,
        CASE WHEN p.max_age_days IS NOT NULL THEN format('for a receipt of up to %s days', p.max_age_days) END,
        CASE WHEN p.unique_fingerprint THEN 'for a receipt that nobody used before' END,
        CASE WHEN p.needs_approval THEN 'once approved' END)
$$;
COMMENT ON FUNCTION loyalty.policy_text(loyalty.activity_policy) IS 'A policy in words';
REVOKE ALL ON FUNCTION loyalty.policy_text(loyalty.activity_policy) FROM PUBLIC;

CREATE VIEW loyalty.activity_prices AS
    SELECT coalesce(p.program_id, r.program_id) AS program_id, coalesce(p.kind, r.kind) AS kind, r.rule, r.rule_kind, r.points, r.condition, nullif(loyalty.policy_text(p), '') AS terms
    FROM loyalty.activity_policy p
         FULL JOIN (SELECT c.program_id, substring(c.condition FROM E'activity\\.kind\\s*=\\s*''((?:[^'']|'''')*)''') AS kind, c.name AS rule, c.kind AS rule_kind, c.points, c.condition
                    FROM loyalty.rule_current c WHERE c.event = 'activity') r
             ON r.program_id = p.program_id AND r.kind = p.kind;
COMMENT ON VIEW loyalty.activity_prices IS 'The price list of activities: what the rules in force give for each kind, on which terms. Rules whose condition does not say activity.kind = ''...'' stand with kind NULL; a policy without a rule gives nothing';

CREATE VIEW loyalty.activity_refusal AS
    SELECT a.activity_id, a.program_id, a.member_id, a.kind, a.subject, v.occurred_at, a.decided_at, a.reason
    FROM loyalty.activity_admission a JOIN loyalty.activity v USING (activity_id)
    WHERE a.verdict = 'refused';
COMMENT ON VIEW loyalty.activity_refusal IS 'Activities that their policy gave no points, with the reason';

CREATE FUNCTION loyalty.check_activities() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'an activity that its policy refused gives no points', a.member_id, format('activity %s: %s points', a.activity_id, e.points)
        FROM loyalty.activity_admission a CROSS JOIN LATERAL (SELECT sum(n.points) AS points FROM loyalty.entry n WHERE n.source_id = a.activity_id AND n.kind IN ('earn', 'correct')) e
        WHERE a.verdict = 'refused' AND e.points <> 0
    UNION ALL
    SELECT 'an activity that needs approval waits or was decided on', a.member_id, format('activity %s', a.activity_id)
        FROM loyalty.activity_admission a WHERE a.verdict = 'held' AND NOT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = a.activity_id)
    UNION ALL
    SELECT 'what was admitted exists', a.member_id, format('activity %s', a.activity_id)
        FROM loyalty.activity_admission a WHERE NOT EXISTS (SELECT FROM loyalty.activity v WHERE v.activity_id = a.activity_id)
    UNION ALL
    SELECT 'a quota counts what it let through, each number once', NULL, format('%s of %s: %s counted, %s there, given back %s', q.kind, q.subject, q.counted, n.n, q.freed)
        FROM loyalty.activity_quota q
             CROSS JOIN LATERAL (SELECT count(*) AS n, count(DISTINCT x.number) AS numbers, max(x.number) AS last
                                 FROM (SELECT a.number FROM loyalty.activity_admission a
                                       WHERE (a.program_id, a.kind, a.subject) = (q.program_id, q.kind, q.subject) AND a.number IS NOT NULL AND a.given_back_at IS NULL
                                       UNION ALL SELECT unnest(q.freed)) x) n
        WHERE n.n <> n.numbers OR n.last <> q.counted OR q.counted <> n.n
    UNION ALL
    SELECT 'what a person refused claims nothing', a.member_id, format('activity %s', a.activity_id)
        FROM loyalty.activity_admission a JOIN loyalty.held_award h ON h.source_id = a.activity_id
        WHERE h.refused_at IS NOT NULL AND a.given_back_at IS NULL AND a.verdict <> 'refused'
    UNION ALL
    SELECT 'unique keys stand', NULL, w.name
        FROM unnest(ARRAY['activity_admission_pkey', 'activity_admission_once_idx', 'activity_admission_fingerprint_idx', 'activity_quota_pkey']) AS w (name)
        WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                          WHERE c.relname = w.name AND c.relnamespace = 'loyalty'::regnamespace AND i.indisunique AND i.indisvalid)
$$;
COMMENT ON FUNCTION loyalty.check_activities() IS 'The invariants of activities under a policy that are broken';
REVOKE ALL ON FUNCTION loyalty.check_activities() FROM PUBLIC;
