/*
 * adjust: points by hand, opening balances and history from another system.
 */

CREATE FUNCTION loyalty.entry_of_key(member_id bigint, key text) RETURNS loyalty.entry
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    a loyalty.account;
    e loyalty.entry;
BEGIN
    -- the entry of a hold that lapsed bears its key
    PERFORM loyalty.settle_holds(member_id);
    IF key IS NULL THEN RETURN NULL; END IF;
    SELECT * INTO a FROM loyalty.account q WHERE q.account_id = member_id;
    SELECT * INTO e FROM loyalty.entry q
        WHERE q.account_id = ANY (ARRAY[a.account_id, a.household_id] || a.left_households) AND q.key = key LIMIT 1;
    IF e.account_id IS NULL AND EXISTS (SELECT FROM loyalty.account q, unnest(q.holds) h
            WHERE q.account_id = coalesce(a.household_id, a.account_id) AND h.key = key) THEN
        RAISE EXCEPTION 'key "%" of member % is a hold', key, member_id USING ERRCODE = 'LY404', HINT = 'A key belongs to one operation for ever; take another.';
    END IF;
    RETURN e;
END
$$;
COMMENT ON FUNCTION loyalty.entry_of_key(bigint, text) IS 'Locks a member''s account; the entry that a key made there, in its household''s or in one that it left, NULL where it made none; LY404 where it is an open hold''s';
REVOKE ALL ON FUNCTION loyalty.entry_of_key(bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.posted_before(account_id bigint, key text, kind text, points bigint,
        occurred_at timestamptz, reason text, tally loyalty.tally, expires_on date) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    e loyalty.entry;
BEGIN
    SELECT * INTO e FROM loyalty.entry_of_key(account_id, key);
    IF e.account_id IS NULL THEN RETURN NULL; END IF;
    IF e.kind <> kind OR coalesce((e.detail -> 'request' ->> 'points')::bigint, e.points) <> points OR e.reason IS DISTINCT FROM reason
       OR (occurred_at IS NOT NULL AND e.occurred_at <> occurred_at)
       OR e.tally OPERATOR(loyalty.<>) tally
       OR EXISTS (SELECT FROM loyalty.unnest(e.lots) u
                  WHERE points > 0 AND isfinite(u.available_from) AND u.expires_on <> expires_on) THEN
        RAISE EXCEPTION 'key "%" of member % was used for something else', key, account_id
            USING ERRCODE = 'LY404',
                  DETAIL = format('Entry %s is %s %s (%s); this call is %s %s (%s).', e.seq, e.kind, e.points, e.reason, kind, points, reason),
                  HINT = 'A key belongs to one operation for ever; take another.';
    END IF;
    RETURN e.seq;
END
$$;
COMMENT ON FUNCTION loyalty.posted_before(bigint, text, text, bigint, timestamptz, text, loyalty.tally, date) IS 'Locks the account; the entry that a key already made, NULL where it made none; LY404 where it made another';
REVOKE ALL ON FUNCTION loyalty.posted_before(bigint, text, text, bigint, timestamptz, text, loyalty.tally, date) FROM PUBLIC;

CREATE FUNCTION loyalty.asked_detail(lots loyalty.lots, points bigint) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE WHEN loyalty.total(lots) <> points THEN jsonb_build_object('request', jsonb_build_object('points', points)) END $$;
COMMENT ON FUNCTION loyalty.asked_detail(loyalty.lots, bigint) IS 'What an entry must remember of its request where a policy gave it other points: under clamp only what there is goes';
REVOKE ALL ON FUNCTION loyalty.asked_detail(loyalty.lots, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.check_own_key(key text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF key = '' OR octet_length(key) > 500 THEN
        RAISE EXCEPTION 'a key is not empty and has up to 500 bytes' USING ERRCODE = 'LY403';
    END IF;
    IF starts_with(key, 'loyalty:') THEN
        RAISE EXCEPTION 'keys that begin with "loyalty:" are the engine''s own' USING ERRCODE = 'LY403', HINT = 'Take another key.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_own_key(text) IS 'Refuses keys that callers cannot use';
REVOKE ALL ON FUNCTION loyalty.check_own_key(text) FROM PUBLIC;

CREATE FUNCTION loyalty.check_points(points bigint, reason text, occurred_at timestamptz) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF reason IS NULL OR btrim(reason) = '' THEN
        RAISE EXCEPTION 'points by hand need a reason'
            USING ERRCODE = 'LY402', HINT = 'Say why, for the member and the auditor.';
    END IF;
    IF points IS NULL OR points = 0 OR abs(points) > 1000000000000000 THEN
        RAISE EXCEPTION '% points cannot be posted', coalesce(points::text, 'NULL')
            USING ERRCODE = 'LY403', DETAIL = 'Expected a number other than 0, up to 10^15 either way.';
    END IF;
    IF occurred_at IS NULL OR occurred_at < '1900-01-01 00:00+00' OR occurred_at > now() + interval '1 day' THEN
        RAISE EXCEPTION 'occurred_at is out of range'
            USING ERRCODE = 'LY102', DETAIL = format('Expected a time from the year 1900 to one day from now; got %s.', coalesce(occurred_at::text, 'null'));
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_points(bigint, text, timestamptz) IS 'Refuses points by hand without a reason, amount or time';
REVOKE ALL ON FUNCTION loyalty.check_points(bigint, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.check_sums(spend numeric, visits bigint) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF abs(coalesce(spend, 'NaN')) > 1e12 OR coalesce(visits, -1) NOT BETWEEN 0 AND 1000000000 THEN
        RAISE EXCEPTION 'spend or visits are out of range'
            USING ERRCODE = 'LY101', DETAIL = format('Expected at most 10^12 in money and 10^9 visits; got %s and %s.', coalesce(spend::text, 'null'), coalesce(visits::text, 'null'));
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.check_sums(numeric, bigint) IS 'Refuses sums of another system that no member can have';
REVOKE ALL ON FUNCTION loyalty.check_sums(numeric, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.post_adjustment(member_id bigint, points bigint, reason text, key text DEFAULT NULL,
        occurred_at timestamptz DEFAULT NULL, expires_on date DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    at timestamptz := coalesce(occurred_at, now());
    day date;
    first bigint;
    l loyalty.lots;
BEGIN
    PERFORM loyalty.check_points(points, reason, at);
    -- the account is locked here: no other session is between this look and the posting
    first := loyalty.posted_before(member_id, key, 'adjust', points, occurred_at, reason, '{}', expires_on);
    IF first IS NOT NULL THEN
        RETURN first;
    END IF;
    m := loyalty.require_member(member_id);
    IF m.status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', member_id USING ERRCODE = 'LY302';
    END IF;
    day := loyalty.local_day(m.program_id, at);
    IF expires_on <= day THEN
        RAISE EXCEPTION 'points cannot expire on % or earlier', day USING ERRCODE = 'LY403';
    END IF;
    IF points > 0 THEN
        l := loyalty.earn_lots(member_id, day, coalesce(expires_on, loyalty.expires_on(m.program_id, day)), points);
    ELSE
        l := loyalty.take_lots(member_id, -points, loyalty.local_day(m.program_id, now()));
    END IF;
    RETURN loyalty.post(member_id, 'adjust', l, '{}', at, reason, key, detail => loyalty.asked_detail(l, points));
END
$$;
COMMENT ON FUNCTION loyalty.post_adjustment(bigint, bigint, text, text, timestamptz, date) IS 'adjust, with a key of the engine''s own or of the caller''s';
REVOKE ALL ON FUNCTION loyalty.post_adjustment(bigint, bigint, text, text, timestamptz, date) FROM PUBLIC;

CREATE FUNCTION loyalty.adjust(member_id bigint, points bigint, reason text, key text DEFAULT NULL,
        occurred_at timestamptz DEFAULT NULL, expires_on date DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM loyalty.check_own_key(key);
    PERFORM loyalty.refuse_own((loyalty.require_member(member_id)).program_id, member_id, NULL);
    RETURN loyalty.post_adjustment(member_id, points, reason, key, occurred_at, expires_on);
END
$$;
COMMENT ON FUNCTION loyalty.adjust(bigint, bigint, text, text, timestamptz, date) IS 'Gives or takes points (smallest units) by hand, with a mandatory reason; returns the entry''s number. The same key and content again returns the first entry';
REVOKE ALL ON FUNCTION loyalty.adjust(bigint, bigint, text, text, timestamptz, date) FROM PUBLIC;

CREATE FUNCTION loyalty.open_balance(member_id bigint, points bigint, reason text, key text DEFAULT 'opening balance',
        occurred_at timestamptz DEFAULT NULL, expires_on date DEFAULT NULL, spend numeric DEFAULT 0,
        visits bigint DEFAULT 0, available_from date DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    at timestamptz := coalesce(occurred_at, now());
    first bigint;
    day date;
    l loyalty.lots;
    t loyalty.tally := loyalty.tally(NULL, spend, points, visits);
BEGIN
    PERFORM loyalty.check_points(points, reason, at);
    PERFORM loyalty.check_sums(spend, visits);
    PERFORM loyalty.refuse_own(m.program_id, member_id, NULL);
    IF points < 0 OR spend < 0 OR visits < 0 OR key IS NULL THEN
        RAISE EXCEPTION 'an opening balance is not negative and has a key' USING ERRCODE = 'LY403';
    END IF;
    PERFORM loyalty.check_own_key(key);
    first := loyalty.posted_before(member_id, key, 'open', points, occurred_at, reason, t, expires_on);
    IF first IS NOT NULL THEN
        RETURN first;
    END IF;
    IF (loyalty.require_member(member_id)).status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', member_id USING ERRCODE = 'LY302';
    END IF;
    day := coalesce(available_from, loyalty.local_day(m.program_id, at));
    l := loyalty.earn_lots(member_id, day, coalesce(expires_on, loyalty.expires_on(m.program_id, day)), points);
    RETURN loyalty.post(member_id, 'open', l, t, at, reason, key);
END
$$;
COMMENT ON FUNCTION loyalty.open_balance(bigint, bigint, text, text, timestamptz, date, numeric, bigint, date) IS 'Brings in what a member had in another system: points with their days, lifetime spend and visits. Once per key';
REVOKE ALL ON FUNCTION loyalty.open_balance(bigint, bigint, text, text, timestamptz, date, numeric, bigint, date) FROM PUBLIC;

CREATE FUNCTION loyalty.import_entry(member_id bigint, points bigint, occurred_at timestamptz, reason text, key text,
        available_from date DEFAULT NULL, expires_on date DEFAULT NULL, spend numeric DEFAULT 0, visits bigint DEFAULT 0) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    first bigint;
    day date;
    l loyalty.lots;
    t loyalty.tally;
BEGIN
    PERFORM loyalty.check_points(points, reason, occurred_at);
    PERFORM loyalty.check_sums(spend, visits);
    PERFORM loyalty.refuse_own(m.program_id, member_id, NULL);
    IF key IS NULL THEN
        RAISE EXCEPTION 'an imported entry needs the key that it had' USING ERRCODE = 'LY403',
            HINT = 'The key makes a second import of the same file harmless.';
    END IF;
    PERFORM loyalty.check_own_key(key);
    t := loyalty.tally(loyalty.local_day(m.program_id, occurred_at), spend, greatest(points, 0), visits);
    first := loyalty.posted_before(member_id, key, 'import', points, occurred_at, reason, t, expires_on);
    IF first IS NOT NULL THEN
        RETURN first;
    END IF;
    IF (loyalty.require_member(member_id)).status = 'closed' THEN
        RAISE EXCEPTION 'member % is closed', member_id USING ERRCODE = 'LY302';
    END IF;
    day := coalesce(available_from, loyalty.local_day(m.program_id, occurred_at));
    IF points > 0 THEN
        l := loyalty.earn_lots(member_id, day, coalesce(expires_on, loyalty.expires_on(m.program_id, day)), points);
    ELSE
        l := loyalty.take_lots(member_id, -points, day);
    END IF;
    RETURN loyalty.post(member_id, 'import', l, t, occurred_at, reason, key, detail => loyalty.asked_detail(l, points));
END
$$;
COMMENT ON FUNCTION loyalty.import_entry IS 'Replays one entry of another system''s history with its original date; the same key again is harmless';
REVOKE ALL ON FUNCTION loyalty.import_entry FROM PUBLIC;
