/*
 * proof: who may spend a member's points.  A one-time code that only the member
 * has been sent; and what one cashier may redeem in a day.
 *
 * Whoever knows a telephone number knows somebody's account.  Where a programme
 * says proof_above, more points than that leave an account in a day only with a code.  A
 * code has forty bits, so that nobody guesses one while it lives, and guesses
 * need not be counted: a counter would go away with the transaction that failed.
 */

CREATE TABLE loyalty.redemption_proof (
    proof_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    member_id   bigint NOT NULL,
    digest      bytea NOT NULL CHECK (octet_length(digest) = 32),
    points      bigint CHECK (points > 0),
    issued_at   timestamptz NOT NULL DEFAULT now(),
    issued_by   name NOT NULL DEFAULT session_user,
    valid_until timestamptz NOT NULL,
    withdrawn_at timestamptz,
    used_at     timestamptz,
    source_id   bigint,
    CONSTRAINT redemption_proof_used_check CHECK ((used_at IS NULL) = (source_id IS NULL) AND (used_at IS NULL OR withdrawn_at IS NULL))
);
CREATE UNIQUE INDEX redemption_proof_open_idx ON loyalty.redemption_proof (member_id) WHERE used_at IS NULL AND withdrawn_at IS NULL;
CREATE INDEX redemption_proof_digest_idx ON loyalty.redemption_proof (member_id, digest);
COMMENT ON TABLE loyalty.redemption_proof IS 'One-time codes with which members prove that they want to spend; a member has one that is good. Written by issue_proof and use_proof alone';
COMMENT ON COLUMN loyalty.redemption_proof.digest IS 'SHA-256 of member and code; the code itself is told once and kept nowhere';
COMMENT ON COLUMN loyalty.redemption_proof.points IS 'Most points that it lets go, smallest units; NULL: any number';
COMMENT ON COLUMN loyalty.redemption_proof.withdrawn_at IS 'A newer one took its place';
COMMENT ON COLUMN loyalty.redemption_proof.source_id IS 'The redemption, hold or transfer that it let through';

CREATE TABLE loyalty.cashier_limit (
    program_id      integer NOT NULL,
    cashier         text NOT NULL CHECK (cashier <> ''),
    points_max      bigint CHECK (points_max >= 0),
    redemptions_max integer CHECK (redemptions_max >= 0),
    set_at          timestamptz NOT NULL DEFAULT now(),
    set_by          name NOT NULL DEFAULT session_user,
    PRIMARY KEY (program_id, cashier)
);
COMMENT ON TABLE loyalty.cashier_limit IS 'Cashiers with limits of their own, in place of the programme''s cashier_points_max and cashier_redemptions_max';
COMMENT ON COLUMN loyalty.cashier_limit.points_max IS 'Most points a day, smallest units; NULL: no limit';
COMMENT ON COLUMN loyalty.cashier_limit.redemptions_max IS 'Most redemptions, holds and transfers a day; NULL: no limit';

CREATE TABLE loyalty.cashier_day (
    program_id  integer NOT NULL,
    cashier     text NOT NULL,
    day         date NOT NULL,
    points      bigint NOT NULL CHECK (points >= 0),
    redemptions integer NOT NULL CHECK (redemptions > 0),
    PRIMARY KEY (program_id, cashier, day)
) WITH (fillfactor = 50);
COMMENT ON TABLE loyalty.cashier_day IS 'What cashiers redeemed on a day of a programme that limits them; undoing takes nothing off. Written by count_cashier alone';

CREATE FUNCTION loyalty.proof_digest(member_id bigint, proof text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT sha256(convert_to(member_id || ' ' || translate(upper(proof), ' -', ''), 'UTF8')) $$;
COMMENT ON FUNCTION loyalty.proof_digest(bigint, text) IS 'What is kept of a code; spaces, hyphens and case do not count';
REVOKE ALL ON FUNCTION loyalty.proof_digest(bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.person_of(member_id bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT CASE WHEN member_id >= 5000000000000000 THEN (member_id - 5000000000000000) % 100000000000 ELSE member_id END $$;
COMMENT ON FUNCTION loyalty.person_of(bigint) IS 'The member whose wallet an account is; another member itself';
REVOKE ALL ON FUNCTION loyalty.person_of(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.issue_proof(member_id bigint, points bigint DEFAULT NULL, ttl interval DEFAULT '10 minutes') RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    person bigint := loyalty.person_of(member_id);
    proof text := loyalty.make_code(10);
BEGIN
    IF m.status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', member_id USING ERRCODE = 'LY302';
    END IF;
    IF points <= 0 OR coalesce(ttl, '0') <= '0' OR ttl > '1 day' THEN
        RAISE EXCEPTION 'a proof is not valid' USING ERRCODE = 'LY445', DETAIL = 'Expected points above zero or NULL, and a time to live of up to one day.';
    END IF;
    -- of two at the same time the second waits, and withdraws what the first has made
    PERFORM FROM loyalty.member q WHERE q.member_id = person FOR NO KEY UPDATE;
    UPDATE loyalty.redemption_proof p SET withdrawn_at = now() WHERE p.member_id = person AND p.used_at IS NULL AND p.withdrawn_at IS NULL;
    INSERT INTO loyalty.redemption_proof (member_id, digest, points, valid_until)
        VALUES (person, loyalty.proof_digest(person, proof), points, clock_timestamp() + ttl)
        -- one of an older snapshot raises 40001
        ON CONFLICT DO NOTHING;
    RETURN proof;
END
$$;
COMMENT ON FUNCTION loyalty.issue_proof(bigint, bigint, interval) IS 'Makes a one-time code for a member, told once, in place of an earlier one. For the role that sends it to the member; a till that could ask for it would prove nothing';
REVOKE ALL ON FUNCTION loyalty.issue_proof(bigint, bigint, interval) FROM PUBLIC;

CREATE FUNCTION loyalty.use_proof(member_id bigint, points bigint, proof text, source_id bigint) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    person bigint := loyalty.person_of(member_id);
    digest bytea := loyalty.proof_digest(person, proof);
    moment timestamptz := clock_timestamp();
    p loyalty.redemption_proof;
BEGIN
    UPDATE loyalty.redemption_proof q SET used_at = moment, source_id = source_id
        WHERE q.member_id = person AND q.digest = digest AND q.used_at IS NULL AND q.withdrawn_at IS NULL
              AND q.valid_until > moment AND (q.points IS NULL OR q.points >= points)
        RETURNING q.* INTO p;
    IF NOT FOUND THEN
        SELECT * INTO p FROM loyalty.redemption_proof q WHERE q.member_id = person AND q.digest = digest ORDER BY q.proof_id DESC LIMIT 1;
        RAISE EXCEPTION 'the proof of member % is not good', member_id
            USING ERRCODE = 'LY442', HINT = 'loyalty.issue_proof makes a new one.',
                  DETAIL = CASE WHEN p.proof_id IS NULL THEN 'It is not the code that the member was sent.'
                                WHEN p.used_at IS NOT NULL THEN 'It was used already.'
                                WHEN p.withdrawn_at IS NOT NULL THEN 'A newer one took its place.'
                                WHEN p.valid_until <= moment THEN format('It was good until %s.', p.valid_until)
                                ELSE format('It lets %s points go; this takes %s.', p.points, points) END;
    END IF;
    RETURN p.proof_id;
END
$$;
COMMENT ON FUNCTION loyalty.use_proof(bigint, bigint, text, bigint) IS 'Uses a member''s code up, or raises LY442; returns its number';
REVOKE ALL ON FUNCTION loyalty.use_proof(bigint, bigint, text, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.spent_without_proof(program_id integer, account_id bigint, day date) RETURNS bigint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    since timestamptz := (SELECT day::timestamp AT TIME ZONE p.time_zone FROM loyalty.program p WHERE p.program_id = program_id);
    e loyalty.entry;
    spent numeric;
BEGIN
    -- what was held today counts while it is open, and where it was captured
    SELECT coalesce(sum(loyalty.total(h.lots)), 0) INTO spent
        FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h
        WHERE a.account_id = account_id AND h.held_at >= since AND h.held_until > now() AND NOT coalesce(h.detail ? 'proof', false);
    -- from the last entry back, until there is none of today; an entry's time is that of its transaction's start
    FOR e IN SELECT * FROM loyalty.entry n WHERE n.account_id = account_id ORDER BY n.seq DESC LOOP
        EXIT WHEN e.recorded_at < since - interval '1 day';
        IF e.points < 0 AND NOT coalesce(e.detail ? 'proof', false)
           AND ((e.kind IN ('redeem', 'transfer') AND e.occurred_at >= since) OR (e.kind = 'capture' AND (e.detail ->> 'held_at')::timestamptz >= since)) THEN
            spent := spent - e.points;
        END IF;
    END LOOP;
    RETURN spent::bigint;
END
$$;
COMMENT ON FUNCTION loyalty.spent_without_proof(integer, bigint, date) IS 'The points that went from a locked account on a day by redemptions, holds and transfers without a one-time code; undoing takes nothing off';
REVOKE ALL ON FUNCTION loyalty.spent_without_proof(integer, bigint, date) FROM PUBLIC;

CREATE FUNCTION loyalty.cashier_name(cashier text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    -- what is not seen is dropped, every other white space is one space
    SELECT btrim(regexp_replace(regexp_replace(cashier, E'[\\u0001-\\u0008\\u000e-\\u001f\\u007f-\\u0084\\u0086-\\u009f\\u00ad\\u180e\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff]', '', 'g'),
                                E'[\\u0009-\\u000d\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+', ' ', 'g'))
$$;
COMMENT ON FUNCTION loyalty.cashier_name(text) IS 'The name under which a cashier is counted: white space and invisible characters make nobody another cashier';
REVOKE ALL ON FUNCTION loyalty.cashier_name(text) FROM PUBLIC;

CREATE FUNCTION loyalty.set_cashier_limit(program_id integer, cashier text, points_max bigint DEFAULT NULL, redemptions_max integer DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM loyalty.require_program(program_id);
    cashier := loyalty.cashier_name(cashier);
    IF coalesce(cashier, '') = '' OR octet_length(cashier) > 200 OR points_max < 0 OR redemptions_max < 0 THEN
        RAISE EXCEPTION 'a cashier''s limit is not valid' USING ERRCODE = 'LY445', DETAIL = 'Expected a cashier''s name of at most 200 bytes and numbers from zero, or NULL for no limit.';
    END IF;
    INSERT INTO loyalty.cashier_limit VALUES (program_id, cashier, points_max, redemptions_max)
        ON CONFLICT ON CONSTRAINT cashier_limit_pkey DO UPDATE
        SET points_max = excluded.points_max, redemptions_max = excluded.redemptions_max, set_at = now(), set_by = session_user;
END
$$;
COMMENT ON FUNCTION loyalty.set_cashier_limit(integer, text, bigint, integer) IS 'Gives a cashier limits of its own; NULL: none. They count where the programme limits cashiers at all (cashier_points_max, cashier_redemptions_max)';
REVOKE ALL ON FUNCTION loyalty.set_cashier_limit(integer, text, bigint, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.count_cashier(program_id integer, cashier text, day date, points bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    points_max bigint;
    redemptions_max integer;
    counted loyalty.cashier_day;
BEGIN
    cashier := loyalty.cashier_name(cashier);
    IF coalesce(cashier, '') = '' OR octet_length(cashier) > 200 THEN
        RAISE EXCEPTION 'who redeems must be named' USING ERRCODE = 'LY444', DETAIL = 'The programme limits what one cashier redeems in a day.',
            HINT = 'Pass cashier; a web shop is one too, and loyalty.set_cashier_limit may leave it without limits.';
    END IF;
    SELECT CASE WHEN l.cashier IS NULL THEN p.cashier_points_max ELSE l.points_max END,
           CASE WHEN l.cashier IS NULL THEN p.cashier_redemptions_max ELSE l.redemptions_max END INTO points_max, redemptions_max
        FROM loyalty.program p LEFT JOIN loyalty.cashier_limit l ON l.program_id = p.program_id AND l.cashier = cashier
        WHERE p.program_id = program_id;
    INSERT INTO loyalty.cashier_day AS d VALUES (program_id, cashier, day, points, 1)
        ON CONFLICT ON CONSTRAINT cashier_day_pkey DO UPDATE SET points = d.points + excluded.points, redemptions = d.redemptions + 1
        RETURNING d.* INTO counted;
    IF counted.points > points_max OR counted.redemptions > redemptions_max THEN
        RAISE EXCEPTION 'cashier "%" has reached the limit of the day', cashier
            USING ERRCODE = 'LY443',
                  DETAIL = format('This is redemption %s of %s and would make it %s points of %s.', counted.redemptions, coalesce(redemptions_max::text, 'any number'),
                                  counted.points, coalesce(points_max::text, 'any number')),
                  HINT = 'loyalty.set_cashier_limit gives one cashier other limits.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.count_cashier(integer, text, date, bigint) IS 'Counts a redemption, hold or transfer of a cashier, or raises LY443 or LY444';
REVOKE ALL ON FUNCTION loyalty.count_cashier(integer, text, date, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.check_proofs() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- what a proof let through stands in the books, once
    WITH spent AS (
        SELECT e.source_id, (e.detail ->> 'proof')::bigint AS proof_id, e.account_id, min(-e.points) AS points
            FROM loyalty.entry e WHERE e.detail ? 'proof' AND e.kind <> 'undo' GROUP BY 1, 2, 3
        UNION ALL
        SELECT h.hold_id, (h.detail ->> 'proof')::bigint, a.account_id, loyalty.total(h.lots)
            FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h WHERE a.holds IS NOT NULL AND h.detail ? 'proof')
    SELECT 'a proof lets one redemption through', p.member_id, format('proof %s, source %s', p.proof_id, p.source_id)
        FROM loyalty.redemption_proof p
        WHERE p.source_id IS NOT NULL AND (SELECT count(DISTINCT s.source_id) FROM spent s WHERE s.proof_id = p.proof_id AND s.source_id = p.source_id) <> 1
    UNION ALL
    SELECT 'a proof lets one redemption through', s.account_id, format('source %s names proof %s', s.source_id, s.proof_id)
        FROM spent s LEFT JOIN loyalty.redemption_proof p ON p.proof_id = s.proof_id AND p.source_id = s.source_id
        WHERE p.proof_id IS NULL OR s.points > p.points
    UNION ALL
    -- limits may come in the middle of a day, so that the books may say more than was counted
    SELECT 'what a cashier is said to have redeemed stands in the books', NULL, format('%s on %s: %s points in %s redemptions; the books say %s in %s', d.cashier, d.day, d.points, d.redemptions, coalesce(b.points, 0), b.n)
        FROM loyalty.cashier_day d
             JOIN loyalty.program p USING (program_id)
             CROSS JOIN LATERAL (
                 SELECT sum(x.points) AS points, count(*) AS n FROM (
                     SELECT -e.points AS points FROM loyalty.entry e JOIN loyalty.account a USING (account_id)
                         WHERE a.program_id = d.program_id AND e.kind = 'redeem' AND loyalty.cashier_name(e.detail -> 'request' ->> 'cashier') = d.cashier
                               AND (e.occurred_at AT TIME ZONE p.time_zone)::date = d.day
                     UNION ALL
                     SELECT -e.points FROM loyalty.entry e JOIN loyalty.account a USING (account_id)
                         WHERE a.program_id = d.program_id AND e.kind = 'transfer' AND e.points < 0 AND loyalty.cashier_name(e.detail -> 'request' ->> 'cashier') = d.cashier
                               AND (e.occurred_at AT TIME ZONE p.time_zone)::date = d.day
                     UNION ALL
                     SELECT (e.detail ->> 'held')::bigint FROM loyalty.entry e JOIN loyalty.account a USING (account_id)
                         WHERE a.program_id = d.program_id AND e.kind IN ('capture', 'release') AND loyalty.cashier_name(e.detail -> 'request' ->> 'cashier') = d.cashier
                               AND ((e.detail ->> 'held_at')::timestamptz AT TIME ZONE p.time_zone)::date = d.day
                     UNION ALL
                     SELECT (h.detail ->> 'held')::bigint FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h
                         WHERE a.holds IS NOT NULL AND a.program_id = d.program_id AND loyalty.cashier_name(h.detail -> 'request' ->> 'cashier') = d.cashier
                               AND (h.held_at AT TIME ZONE p.time_zone)::date = d.day) x) b
        WHERE d.points > coalesce(b.points, 0) OR d.redemptions > b.n
$$;
COMMENT ON FUNCTION loyalty.check_proofs() IS 'The invariants of proofs and of cashiers'' counters that are broken';
REVOKE ALL ON FUNCTION loyalty.check_proofs() FROM PUBLIC;
