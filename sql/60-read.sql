/*
 * read: what an application, a member and BI see.
 */

CREATE VIEW loyalty.purchase_line AS
    SELECT p.purchase_id, p.member_id, p.occurred_at, l.line::integer, l.sku, l.quantity, l.unit_price,
           coalesce(l.amount, l.quantity * l.unit_price - coalesce(l.discount, 0)) AS amount, l.discount
    FROM loyalty.purchase p, ROWS FROM (pg_catalog.unnest(p.lines)) WITH ORDINALITY
         AS l (sku, quantity, unit_price, amount, discount, line);
COMMENT ON VIEW loyalty.purchase_line IS 'The lines of all baskets';

CREATE VIEW loyalty.entry_rule AS
    SELECT e.account_id, e.seq, e.kind, e.source_id, e.occurred_at, r.rule_version_id,
           coalesce(u.name, 'tier ' || t.name) AS rule, v.version, r.exact, r.points
    FROM loyalty.entry e
         CROSS JOIN LATERAL loyalty.breakdown_rules(e.breakdown) r
         LEFT JOIN loyalty.rule_version v ON v.rule_version_id = r.rule_version_id
         LEFT JOIN loyalty.rule u ON u.rule_id = v.rule_id
         LEFT JOIN loyalty.tier t ON t.tier_id = r.tier_id;
COMMENT ON VIEW loyalty.entry_rule IS 'What each rule gave in each entry, exactly and as posted; a correction''s rows are differences';

CREATE VIEW loyalty.entry_line AS
    SELECT e.account_id, e.seq, e.kind, e.source_id, l.line, l.points
    FROM loyalty.entry e CROSS JOIN LATERAL loyalty.breakdown_lines(e.breakdown) l;
COMMENT ON VIEW loyalty.entry_line IS 'Each line''s share of the points of an entry';

CREATE VIEW loyalty.tier_history AS
    SELECT c.account_id AS member_id, t.name AS tier, t.rank, c.changed_at AS valid_from,
           lead(c.changed_at, 1, 'infinity') OVER (PARTITION BY c.account_id ORDER BY c.number) AS valid_to,
           c.until AS good_until, c.cause, c.source_id, c.reason
    FROM loyalty.tier_change c LEFT JOIN loyalty.tier t USING (tier_id);
COMMENT ON VIEW loyalty.tier_history IS 'Tiers of members as [valid_from, valid_to), with the cause';

CREATE VIEW loyalty.member_balance AS
    SELECT m.member_id, m.program_id, m.external_id, m.status, t.name AS tier,
           greatest(loyalty.available(l.free, d.today), 0) AS available,
           loyalty.pending(l.free, d.today) AS pending, loyalty.total(l.held) AS held, loyalty.debt(a.lots) AS debt,
           loyalty.spend(a.tally) AS lifetime_spend, loyalty.points(a.tally) AS lifetime_points,
           loyalty.visits(a.tally) AS lifetime_purchases, a.last_event_at, a.household_id
    FROM loyalty.member m
         JOIN loyalty.program p USING (program_id)
         JOIN loyalty.account a ON a.account_id = m.member_id
         LEFT JOIN loyalty.tier t ON t.tier_id = a.tier_id
         CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE p.time_zone)::date AS today) d
         CROSS JOIN LATERAL loyalty.lots_at(p.program_id, a.lots, a.holds, a.last_event_at, now()) l;
COMMENT ON VIEW loyalty.member_balance IS 'Balance, tier and lifetime sums of every member, today in the programme''s zone. Whoever is in a household has nothing of its own: see the household''s row';

CREATE VIEW loyalty.points_outstanding AS
    SELECT a.program_id, date_trunc('month', u.expires_on)::date AS expiry_month, sum(u.points) AS points
    FROM loyalty.account a
         CROSS JOIN LATERAL loyalty.lots_at(a.program_id, a.lots, NULL, a.last_event_at, now()) l
         CROSS JOIN LATERAL loyalty.unnest(l.free) u
    GROUP BY 1, 2;
COMMENT ON VIEW loyalty.points_outstanding IS 'Points on the books by the month in which they die; infinity: never; sums to the ledger';

CREATE VIEW loyalty.held_award_open AS
    SELECT h.source_id, h.account_id AS member_id, h.held_at, now() - h.held_at AS age, h.reason, h.detail
    FROM loyalty.held_award h WHERE h.released_at IS NULL AND h.refused_at IS NULL;
COMMENT ON VIEW loyalty.held_award_open IS 'Awards that wait for a person, with their age';

CREATE FUNCTION loyalty.require_member(member_id bigint) RETURNS loyalty.member
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m loyalty.member;
    wallet_id integer;
BEGIN
    IF member_id < 5000000000000000 THEN
        SELECT * INTO m FROM loyalty.member q WHERE q.member_id = require_member.member_id;
    ELSE
        wallet_id := (member_id - 5000000000000000) / 100000000000;
        SELECT q.* INTO m FROM loyalty.member q JOIN loyalty.program w ON w.program_id = wallet_id AND w.wallet_of = q.program_id
            WHERE q.member_id = (require_member.member_id - 5000000000000000) % 100000000000;
        m.member_id := member_id;
        m.program_id := wallet_id;
    END IF;
    IF m.external_id IS NULL THEN
        RAISE EXCEPTION 'member % does not exist', member_id
            USING ERRCODE = 'LY301', HINT = 'loyalty.enroll makes a member.';
    END IF;
    RETURN m;
END
$$;
COMMENT ON FUNCTION loyalty.require_member(bigint) IS 'A member, or LY301; of a wallet''s account its member, as one of the wallet';
REVOKE ALL ON FUNCTION loyalty.require_member(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.balance(member_id bigint, as_of date DEFAULT NULL,
        OUT available bigint, OUT pending bigint, OUT held bigint, OUT debt bigint,
        OUT next_expiry_on date, OUT next_expiry_points bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m loyalty.member := loyalty.require_member(balance.member_id);
    home bigint := loyalty.account_of(m.member_id);
    zone text := (SELECT p.time_zone FROM loyalty.program p WHERE p.program_id = m.program_id);
    today date := (now() AT TIME ZONE zone)::date;
    day date := coalesce(as_of, today);
    l loyalty.lots;
    frozen loyalty.lots;
    at timestamptz;
BEGIN
    IF day NOT BETWEEN '0001-01-01' AND '9999-12-31' THEN
        RAISE EXCEPTION 'as_of must be a day of the years 1 to 9999' USING ERRCODE = 'LY102';
    END IF;
    IF day >= today THEN
        SELECT x.free, x.held INTO l, frozen FROM loyalty.account a,
            loyalty.lots_at(a.program_id, a.lots, a.holds, a.last_event_at, greatest(now(), day::timestamp AT TIME ZONE zone)) x
            WHERE a.account_id = home;
        IF NOT FOUND THEN       -- a wallet that was never used
            l := '{}';
            frozen := '{}';
        END IF;
    ELSE
        at := (day + 1)::timestamp AT TIME ZONE zone;
        SELECT coalesce(loyalty.sum(e.lots), '{}') INTO l FROM loyalty.entry e
            WHERE e.account_id = home AND e.occurred_at < at;
        -- what was on hold when that day ended: holds still open, and those resolved later
        SELECT coalesce(loyalty.sum(h.lots), '{}') INTO frozen FROM loyalty.account a, unnest(a.holds) h
            WHERE a.account_id = home AND h.held_at < at AND h.held_until >= at;
        SELECT frozen OPERATOR(loyalty.+) coalesce(loyalty.sum((e.detail ->> 'held_lots')::loyalty.lots), '{}') INTO frozen FROM loyalty.entry e
            WHERE e.account_id = home AND e.occurred_at >= at AND e.kind IN ('capture', 'release')
                AND (e.detail ->> 'held_at')::timestamptz < at;
        SELECT x.free INTO l FROM loyalty.lots_at(m.program_id, l OPERATOR(loyalty.-) frozen, NULL,
            (SELECT max(e.occurred_at) FROM loyalty.entry e WHERE e.account_id = home AND e.occurred_at < at), at) x;
    END IF;
    available := greatest(loyalty.available(l, day), 0);
    pending := loyalty.pending(l, day);
    held := loyalty.total(frozen);
    debt := loyalty.debt(l);
    SELECT u.expires_on, sum(u.points) INTO next_expiry_on, next_expiry_points
        FROM loyalty.unnest(l) u WHERE u.points > 0 AND u.expires_on > day AND isfinite(u.expires_on)
        GROUP BY u.expires_on ORDER BY u.expires_on LIMIT 1;
END
$$;
COMMENT ON FUNCTION loyalty.balance(bigint, date) IS 'A member''s points on a day, past or future, in the programme''s zone: what is available, pending, held and owed, and what dies next. Today and the future read one row; a past day sums the entries that occurred by then';
REVOKE ALL ON FUNCTION loyalty.balance(bigint, date) FROM PUBLIC;

CREATE FUNCTION loyalty.statement(member_id bigint, from_at timestamptz DEFAULT NULL, until_at timestamptz DEFAULT NULL,
        max_rows integer DEFAULT 100)
    RETURNS TABLE (seq bigint, occurred_at timestamptz, kind text, points bigint, balance_after bigint,
                   source_id bigint, description text, available_from date, expires_on date)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    m loyalty.member := loyalty.require_member(statement.member_id);
    home bigint := loyalty.account_of(m.member_id);
    running bigint := coalesce((SELECT loyalty.total(a.lots) FROM loyalty.account a WHERE a.account_id = home), 0);
    e loyalty.entry;
    p record;
    shown integer := 0;
BEGIN
    IF max_rows IS NULL OR max_rows < 0 THEN
        RAISE EXCEPTION 'max_rows must be a number that is not negative' USING ERRCODE = 'LY110', DETAIL = format('Got %s.', coalesce(max_rows::text, 'NULL'));
    END IF;
    FOR e IN
        SELECT n.* FROM loyalty.entry n WHERE n.account_id = home ORDER BY n.seq DESC
    LOOP
        EXIT WHEN shown >= max_rows;
        IF (until_at IS NULL OR e.occurred_at < until_at) AND (from_at IS NULL OR e.occurred_at >= from_at) THEN
            shown := shown + 1;
            SELECT q.amount, coalesce(q.currency, g.currency) AS currency, q.reference, v.kind AS activity INTO p
                FROM loyalty.program g
                     LEFT JOIN loyalty.purchase q ON q.purchase_id = e.source_id
                     LEFT JOIN loyalty.activity v ON v.activity_id = e.source_id
                WHERE g.program_id = m.program_id;
            seq := e.seq; occurred_at := e.occurred_at; kind := e.kind; points := e.points;
            balance_after := running; source_id := e.source_id;
            description := CASE
                WHEN e.kind = 'earn' AND p.amount IS NOT NULL THEN format('Purchase %s of %s %s', coalesce(p.reference, e.source_id::text), trim_scale(p.amount), p.currency)
                WHEN e.kind = 'earn' THEN 'Activity ' || p.activity
                WHEN e.kind = 'return' THEN format('Return of purchase %s, %s %s', coalesce(p.reference, e.source_id::text), e.detail ->> 'amount', p.currency)
                WHEN e.kind = 'correct' THEN 'Correction of ' || coalesce('purchase ' || coalesce(p.reference, e.source_id::text), 'activity')
                WHEN e.kind = 'expire' THEN 'Expired'
                WHEN e.kind = 'redeem' AND e.key LIKE 'loyalty:claim %' THEN 'Reward: ' || (e.detail -> 'request' ->> 'reward')
                WHEN e.kind = 'undo' AND e.key LIKE 'loyalty:undo claim %' THEN 'Given back: a reward' || coalesce(', ' || e.reason, '')
                WHEN e.kind IN ('redeem', 'capture') THEN 'Redeemed' || coalesce(' for ' || (e.detail -> 'request' ->> 'reference'), '') || coalesce(format(' worth %s %s', round((e.detail ->> 'money')::numeric, loyalty.currency_digits(e.detail ->> 'currency')), e.detail ->> 'currency'), '')
                WHEN e.kind = 'undo' THEN 'Given back: redemption ' || (e.detail -> 'request' ->> 'redemption')
                WHEN e.kind = 'release' AND e.key IS NOT NULL THEN 'Hold ' || e.key || CASE WHEN e.detail ? 'lapsed' THEN ' expired' ELSE ' released' END
                WHEN e.kind = 'release' THEN 'Pending points released'
                WHEN e.kind = 'reinstate' THEN 'Reinstated' || coalesce(': ' || e.reason, '')
                WHEN e.kind = 'transfer' THEN CASE WHEN e.points < 0 THEN 'Given to member ' || (e.detail ->> 'to') ELSE 'Received from member ' || (e.detail ->> 'from') END
                WHEN e.kind = 'join' THEN CASE WHEN (e.detail ->> 'from')::bigint = e.account_id THEN 'Brought into household ' || (e.detail ->> 'to') ELSE 'Brought by member ' || (e.detail ->> 'from') END
                WHEN e.kind = 'leave' THEN CASE WHEN (e.detail ->> 'from')::bigint = e.account_id THEN 'Taken along by member ' || (e.detail ->> 'to') ELSE 'Taken along from household ' || (e.detail ->> 'from') END
                WHEN e.kind = 'merge' THEN CASE WHEN (e.detail ->> 'from')::bigint = e.account_id THEN 'Merged into member ' || (e.detail ->> 'to') ELSE 'Taken over from member ' || (e.detail ->> 'from') END
                WHEN e.kind = 'write_off' THEN 'Debt forgiven: ' || e.reason
                ELSE coalesce(e.reason, e.kind) END
                || coalesce(' by member ' || (e.detail ->> 'member'), '');
            SELECT u.available_from, u.expires_on INTO available_from, expires_on
                FROM loyalty.unnest(e.lots) u ORDER BY abs(u.points) DESC, u.expires_on LIMIT 1;
            RETURN NEXT;
        END IF;
        running := running - e.points;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.statement(bigint, timestamptz, timestamptz, integer) IS 'The entries of a member, newest first, with the balance of the books after each. Walks the key backwards and stops at max_rows, whatever the statistics say: hence the planner settings';
REVOKE ALL ON FUNCTION loyalty.statement(bigint, timestamptz, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.quote(member_id bigint, amount numeric, lines loyalty.line[] DEFAULT NULL,
        occurred_at timestamptz DEFAULT now(), store text DEFAULT NULL, channel text DEFAULT NULL,
        currency text DEFAULT NULL, tax numeric DEFAULT NULL, shipping numeric DEFAULT NULL,
        discount numeric DEFAULT NULL, paid_with_points numeric DEFAULT NULL,
        paid_with_gift_card numeric DEFAULT NULL, attributes jsonb DEFAULT NULL, source text DEFAULT 'purchase')
    RETURNS TABLE (points bigint, available_from date, expires_on date, tier text, tier_after text, breakdown jsonb)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.purchase;
BEGIN
    PERFORM loyalty.require_member(member_id);
    p.purchase_id := 0;
    p.member_id := member_id;
    p.amount := amount;
    p.lines := lines;
    p.occurred_at := coalesce(occurred_at, now());
    p.recorded_at := greatest(p.occurred_at, now());
    p.store := store;
    p.channel := channel;
    p.currency := currency;
    p.tax := tax;
    p.shipping := shipping;
    p.discount := discount;
    p.paid_with_points := paid_with_points;
    p.paid_with_gift_card := paid_with_gift_card;
    p.attributes := attributes;
    p.status := 'completed';
    p.source := source;
    RETURN QUERY
        SELECT q.points, q.available_from, q.expires_on, q.tier, q.tier_after,
               (SELECT coalesce(jsonb_agg(jsonb_build_object('rule', coalesce(u.name, 'tier ' || t.name), 'points', r.points) ORDER BY r.rule_version_id NULLS LAST), '[]')
                FROM loyalty.breakdown_rules(q.breakdown) r
                     LEFT JOIN loyalty.rule_version v ON v.rule_version_id = r.rule_version_id
                     LEFT JOIN loyalty.rule u ON u.rule_id = v.rule_id
                     LEFT JOIN loyalty.tier t ON t.tier_id = r.tier_id)
        FROM loyalty.quote_purchase(p) q;
END
$$;
COMMENT ON FUNCTION loyalty.quote IS 'What a purchase would earn, now or at any time, by the code of the award itself; writes nothing';
REVOKE ALL ON FUNCTION loyalty.quote FROM PUBLIC;

CREATE FUNCTION loyalty.no_award(source_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    h loyalty.held_award;
BEGIN
    SELECT * INTO h FROM loyalty.held_award q WHERE q.source_id = no_award.source_id;
    -- tills read this: what the reviewer wrote stands in review_award
    IF h.refused_at IS NOT NULL THEN RETURN 'refused by a person'; END IF;
    IF h.source_id IS NOT NULL AND h.released_at IS NULL THEN RETURN 'waits for approval: ' || h.reason; END IF;
    RETURN (SELECT 'gives no points: it ' || a.reason FROM loyalty.activity_admission a WHERE a.activity_id = no_award.source_id AND a.verdict = 'refused');
END
$$;
COMMENT ON FUNCTION loyalty.no_award(bigint) IS 'Why a purchase or activity gives nothing, or nothing yet, whatever the rules say; NULL where it may';
REVOKE ALL ON FUNCTION loyalty.no_award(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.given_by_rules(source_id bigint) RETURNS TABLE (rule text, version integer, given bigint, capped boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.name, v.version, coalesce(g.points, 0), u.allowed IS NOT NULL AND u.granted <= u.allowed
    FROM (SELECT DISTINCT m.program_id FROM loyalty.cap_use q JOIN loyalty.member m USING (member_id) WHERE q.source_id = given_by_rules.source_id) p
        JOIN loyalty.rule r USING (program_id) JOIN loyalty.rule_version v USING (rule_id)
        LEFT JOIN loyalty.cap_use u ON u.source_id = given_by_rules.source_id AND u.rule_version_id = v.rule_version_id
        LEFT JOIN (SELECT b.rule_version_id, sum(b.points)::bigint AS points
                   FROM loyalty.entry e CROSS JOIN LATERAL loyalty.breakdown_rules(e.breakdown) b WHERE e.source_id = given_by_rules.source_id GROUP BY 1) g
            ON g.rule_version_id = v.rule_version_id
    WHERE u.source_id IS NOT NULL OR g.rule_version_id IS NOT NULL
$$;
COMMENT ON FUNCTION loyalty.given_by_rules(bigint) IS 'What each rule version gave for a transaction of which capped rules gave some, and which of them were cut';
REVOKE ALL ON FUNCTION loyalty.given_by_rules(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.explain(purchase_id bigint)
    RETURNS TABLE (rule text, version integer, event text, kind text, fired boolean, points bigint, exact numeric, why text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH w AS MATERIALIZED (SELECT n.why FROM loyalty.no_award(purchase_id) AS n (why))
    (SELECT e.rule, e.version, e.event, e.kind, e.fired AND w.why IS NULL, CASE WHEN w.why IS NULL THEN coalesce(c.given, e.points) END, CASE WHEN w.why IS NULL THEN e.exact END,
           CASE WHEN e.fired AND w.why IS NOT NULL THEN w.why
                WHEN c.capped THEN format('capped: wanted %s, given %s. %s', trim_scale(e.exact), c.given, e.why) ELSE e.why END
    FROM w CROSS JOIN loyalty.explain_source(purchase_id) WITH ORDINALITY AS e (rule, version, event, kind, fired, points, exact, why, n)
        LEFT JOIN loyalty.given_by_rules(purchase_id) c ON c.rule = e.rule AND c.version = e.version
    ORDER BY e.n)
    UNION ALL
    SELECT NULL, NULL, NULL, 'review', false, NULL, NULL, w.why FROM w WHERE w.why IS NOT NULL
$$;
COMMENT ON FUNCTION loyalty.explain(bigint) IS 'Why each rule fired on a purchase or activity and what it gave, or why it did not fire; with the rule versions, tier and history that the award pinned';
REVOKE ALL ON FUNCTION loyalty.explain(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.tier_progress(member_id bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    p loyalty.program;
    a loyalty.account;
    today date;
    first_month date;
    held loyalty.tier;
    next_tier loyalty.tier;
    reached numeric;
BEGIN
    SELECT * INTO p FROM loyalty.program q WHERE q.program_id = m.program_id;
    SELECT * INTO a FROM loyalty.account q WHERE q.account_id = loyalty.account_of(m.member_id);
    today := (now() AT TIME ZONE p.time_zone)::date;
    first_month := CASE p.tier_window
        WHEN 'calendar' THEN date_trunc('year', today)::date
        WHEN 'rolling' THEN (date_trunc('month', today) - make_interval(months => p.tier_months - 1))::date
        WHEN 'anniversary' THEN (date_trunc('month', today) - make_interval(months =>
            mod(extract(month FROM today)::integer - extract(month FROM m.joined_at AT TIME ZONE p.time_zone)::integer + 12, 12)))::date
        END;
    SELECT * INTO held FROM loyalty.tier t WHERE t.tier_id = a.tier_id;
    SELECT * INTO next_tier FROM loyalty.tier t WHERE t.program_id = p.program_id AND t.rank > coalesce(held.rank, 0)
        ORDER BY t.rank LIMIT 1;
    reached := CASE coalesce(next_tier.metric, held.metric)
        WHEN 'points' THEN loyalty.points(a.tally, first_month, today) / 10::numeric ^ p.points_scale
        WHEN 'spend' THEN loyalty.spend(a.tally, first_month, today)
        WHEN 'visits' THEN loyalty.visits(a.tally, first_month, today) END;
    RETURN jsonb_build_object('name', held.name, 'since', a.tier_since, 'good_until', a.tier_until,
        'pinned_until', a.tier_pinned, 'window', p.tier_window, 'metric', coalesce(next_tier.metric, held.metric),
        'reached', trim_scale(reached), 'next', next_tier.name,
        'missing', trim_scale(greatest(next_tier.threshold - reached, 0)));
END
$$;
COMMENT ON FUNCTION loyalty.tier_progress(bigint) IS 'A member''s tier, what the window holds, and what is missing to the next';
REVOKE ALL ON FUNCTION loyalty.tier_progress(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.cabinet(member_id bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    p loyalty.program;
    a loyalty.account;
    b record;
    today date;
    worth numeric;
    free record;
BEGIN
    SELECT * INTO p FROM loyalty.program q WHERE q.program_id = m.program_id;
    SELECT * INTO a FROM loyalty.account q WHERE q.account_id = loyalty.account_of(m.member_id);
    SELECT * INTO b FROM loyalty.balance(m.member_id) q;
    SELECT x.free AS lots INTO free FROM loyalty.lots_at(m.program_id, a.lots, a.holds, a.last_event_at, now()) x;
    today := (now() AT TIME ZONE p.time_zone)::date;
    worth := trunc(b.available / 10::numeric ^ p.points_scale * p.point_value, loyalty.currency_digits(p.currency));
    RETURN jsonb_build_object(
        'member', jsonb_build_object('member_id', m.member_id, 'external_id', m.external_id,
            'program', p.name, 'status', m.status, 'joined_at', m.joined_at),
        'balance', to_jsonb(b) || jsonb_build_object('points_name', p.points_name, 'points_scale', p.points_scale),
        'worth', CASE WHEN worth IS NOT NULL THEN jsonb_build_object('amount', worth, 'currency', p.currency,
            'text', format('Your %s are worth %s %s', p.points_name, worth, p.currency)) END,
        'lots', (SELECT coalesce(jsonb_agg(jsonb_build_object('points', u.points, 'available_from', u.available_from,
                    'expires_on', u.expires_on) ORDER BY u.expires_on, u.available_from), '[]')
                 FROM loyalty.unnest(free.lots) u WHERE u.expires_on > today),
        'holds', (SELECT coalesce(jsonb_agg(jsonb_build_object('key', h.key, 'points', h.points, 'money', h.money, 'held_until', h.held_until) ORDER BY h.held_until), '[]')
                  FROM loyalty.open_hold h WHERE h.member_id = m.member_id AND NOT h.lapsed),
        'expiring', (SELECT coalesce(jsonb_agg(jsonb_build_object('expires_on', x.expires_on, 'points', x.points) ORDER BY x.expires_on), '[]')
                     FROM (SELECT u.expires_on, sum(u.points) AS points FROM loyalty.unnest(free.lots) u
                           WHERE u.points > 0 AND u.expires_on > today AND isfinite(u.expires_on) GROUP BY 1) x),
        'wallets', loyalty.wallets_of(m.member_id),
        'tier', loyalty.tier_progress(m.member_id),
        'referral', (SELECT jsonb_build_object('code', (SELECT k.code FROM loyalty.referral_code k WHERE k.member_id = m.member_id), 'referrals', (SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') FROM loyalty.referrals(m.member_id) r))
                     WHERE EXISTS (SELECT FROM loyalty.referral_policy k WHERE k.program_id = m.program_id)),
        'challenges', (SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]') FROM loyalty.challenges(m.member_id) c),
        'lifetime', jsonb_build_object('spend', trim_scale(loyalty.spend(a.tally)), 'points', loyalty.points(a.tally),
            'purchases', loyalty.visits(a.tally)),
        'rewards', (SELECT coalesce(jsonb_agg(to_jsonb(r) - '{obstacle,why}'::text[] ORDER BY r.points, r.reward), '[]') FROM loyalty.rewards_for(m.member_id) r WHERE r.claimable > 0),
        'stamp_cards', (SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.card), '[]') FROM loyalty.stamp_cards(m.member_id) c),
        'coupons', (SELECT coalesce(jsonb_agg(to_jsonb(k) - '{status,usable}'::text[] ORDER BY k.coupon_id), '[]') FROM loyalty.coupons(m.member_id) k WHERE k.usable),
        'distinctions', (SELECT coalesce(jsonb_agg(to_jsonb(d) ORDER BY d.kind, d.reward), '[]') FROM loyalty.distinctions(m.member_id) d),
        'consents', (SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.purpose, c.channel), '[]') FROM loyalty.current_consents(m.member_id) c),
        'statement', (SELECT coalesce(jsonb_agg(to_jsonb(s) ORDER BY s.seq DESC), '[]') FROM loyalty.statement(m.member_id, max_rows => 10) s));
END
$$;
COMMENT ON FUNCTION loyalty.cabinet(bigint) IS 'Everything a member''s page shows, in one call: balance, worth, lots, expiry, tier and progress, referrals, challenges, rewards to claim, stamp cards, codes, distinctions, consents, last entries';
REVOKE ALL ON FUNCTION loyalty.cabinet(bigint) FROM PUBLIC;
