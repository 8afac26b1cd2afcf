/*
 * check: every invariant that exists, one row for each that is broken.
 */
CREATE FUNCTION loyalty.check_transactions() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH posted AS MATERIALIZED (
        SELECT e.source_id, loyalty.spend(loyalty.sum(e.tally)) AS spend, sum(e.points) AS points,
               bool_or(e.account_id < 5000000000000000) AS awarded
        FROM loyalty.entry e WHERE e.kind IN ('earn', 'correct', 'return') GROUP BY 1)
    SELECT 'the ledger counts what a purchase cost, less what came back', p.member_id,
           format('purchase %s: %s, less %s; counted %s', p.purchase_id, p.amount, coalesce(r.amount, 0), s.spend)
        FROM posted s
            JOIN loyalty.purchase p ON p.purchase_id = s.source_id
            JOIN loyalty.member m ON m.member_id = p.member_id
            JOIN loyalty.program g ON g.program_id = m.program_id
            LEFT JOIN LATERAL (SELECT sum(d.amount) AS amount, bool_or(d.complete) AS complete FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id) r ON true
        -- what a limit let wait gave its part to the wallets
        WHERE s.awarded AND p.status = 'completed' AND coalesce(p.currency, g.currency) = g.currency
            AND s.spend <> CASE WHEN r.complete THEN 0 ELSE round(p.amount, 4) - coalesce(r.amount, 0) END
    UNION ALL
    SELECT 'a void activity nets to nothing', v.member_id, format('activity %s: %s', v.activity_id, s.points)
        FROM posted s JOIN loyalty.activity v ON v.activity_id = s.source_id
        WHERE v.status = 'void' AND s.points <> 0
    UNION ALL
    SELECT 'what a return took and gave back is in the ledger', p.member_id,
           format('return %s: took %s, in the ledger %s; gave back %s, in the ledger %s', d.return_id, d.points_taken, coalesce(t.points, 0), d.points_restored, coalesce(u.points, 0))
        FROM loyalty.returned d
            LEFT JOIN loyalty.purchase p USING (purchase_id)
            LEFT JOIN (SELECT e.key, -sum(e.points) AS points FROM loyalty.entry e WHERE e.kind = 'return' AND e.account_id < 5000000000000000 GROUP BY 1) t ON t.key = 'loyalty:return ' || d.return_id
            LEFT JOIN (SELECT e.key, sum(e.points) AS points FROM loyalty.entry e WHERE e.kind = 'undo' AND starts_with(e.key, 'loyalty:tender ') GROUP BY 1) u ON u.key = 'loyalty:tender ' || d.return_id
        WHERE d.points_taken <> coalesce(t.points, 0) OR d.points_restored <> coalesce(u.points, 0)
            OR NOT EXISTS (SELECT FROM loyalty.purchase_return r WHERE r.return_id = d.return_id)
    UNION ALL
    SELECT 'transactions are of members that exist', x.member_id, x.what
        FROM (SELECT p.member_id, 'purchase ' || p.purchase_id FROM loyalty.purchase p
              UNION ALL SELECT v.member_id, 'activity ' || v.activity_id FROM loyalty.activity v) AS x (member_id, what)
        WHERE x.member_id IS NOT NULL AND NOT EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = x.member_id)
    UNION ALL
    SELECT 'a purchase was paid by a redemption that exists', p.member_id, format('purchase %s, redemption %s', p.purchase_id, p.redemption_id)
        FROM loyalty.purchase p
        WHERE p.redemption_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM loyalty.entry e WHERE e.source_id = p.redemption_id AND e.kind IN ('redeem', 'capture', 'release'))
            AND p.redemption_id NOT IN (SELECT h.hold_id FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h WHERE a.holds IS NOT NULL)
    UNION ALL
    SELECT 'a merged account says into which', e.account_id, format('merged into %s', e.detail ->> 'to')
        FROM loyalty.entry e JOIN loyalty.account a USING (account_id)
        WHERE e.kind = 'merge' AND (e.detail ->> 'from')::bigint = e.account_id AND a.merged_into IS NULL
    UNION ALL
    SELECT 'an account knows its last event', a.account_id, format('account %s, entries %s', a.last_event_at, l.at)
        FROM loyalty.account a LEFT JOIN (SELECT e.account_id, max(e.occurred_at) AS at FROM loyalty.entry e GROUP BY 1) l USING (account_id)
        WHERE a.last_event_at IS DISTINCT FROM l.at
    UNION ALL
    SELECT 'tiers are those of the programme', x.account_id, format('tier %s', x.tier_id)
        FROM (SELECT a.account_id, a.tier_id FROM loyalty.account a UNION ALL SELECT c.account_id, c.tier_id FROM loyalty.tier_change c) x
        WHERE x.tier_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM loyalty.tier t JOIN loyalty.account a USING (program_id) WHERE t.tier_id = x.tier_id AND a.account_id = x.account_id)
    UNION ALL
    SELECT 'a tier is pinned no longer than it was by hand', a.account_id, format('pinned until %s', a.tier_pinned)
        FROM loyalty.account a
        WHERE a.tier_pinned IS NOT NULL
            AND NOT EXISTS (SELECT FROM loyalty.tier_change c WHERE c.account_id = a.account_id AND c.cause = 'manual' AND coalesce(c.until, 'infinity') >= a.tier_pinned)
    UNION ALL
    SELECT 'the tier is held since and until the last change says', a.account_id, format('since %s until %s, history %s until %s', a.tier_since, a.tier_until, c.changed_at, c.until)
        FROM loyalty.account a CROSS JOIN LATERAL
            (SELECT t.changed_at, t.until FROM loyalty.tier_change t WHERE t.account_id = a.account_id ORDER BY t.number DESC LIMIT 1) c
        WHERE (a.tier_since, a.tier_until) IS DISTINCT FROM (c.changed_at, c.until)
    UNION ALL
    SELECT 'an account that never had a tier has no times of one', a.account_id, format('since %s until %s', a.tier_since, a.tier_until)
        FROM loyalty.account a
        WHERE (a.tier_since IS NOT NULL OR a.tier_until IS NOT NULL OR a.tier_pinned IS NOT NULL) AND NOT EXISTS (SELECT FROM loyalty.tier_change t WHERE t.account_id = a.account_id)
    UNION ALL
    SELECT 'rule versions that awards pinned are kept', NULL, format('rule version %s', x.rule_version_id)
        FROM (SELECT DISTINCT r.rule_version_id FROM loyalty.entry e CROSS JOIN LATERAL loyalty.breakdown_rules(e.breakdown) r WHERE r.rule_version_id > 0) x
        WHERE NOT EXISTS (SELECT FROM loyalty.rule_version v WHERE v.rule_version_id = x.rule_version_id)
    UNION ALL
    SELECT 'personal data is of members that exist', x.member_id, x.what
        FROM (SELECT p.member_id, 'field ' || p.field, NULL::integer FROM loyalty.person p
              UNION ALL SELECT i.member_id, 'a contact, ' || i.kind, i.program_id FROM loyalty.identity i) AS x (member_id, what, program_id)
        WHERE NOT EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = x.member_id AND m.program_id = coalesce(x.program_id, m.program_id))
    UNION ALL
    SELECT 'of an erased member nothing is left', x.member_id, x.what
        FROM (SELECT p.member_id, 'field ' || p.field FROM loyalty.person p UNION ALL SELECT i.member_id, 'a contact, ' || i.kind FROM loyalty.identity i
              UNION ALL SELECT m.member_id, 'birthday or attributes' FROM loyalty.member m WHERE num_nonnulls(m.birthday, m.time_zone, m.attributes) > 0
              UNION ALL SELECT m.member_id, 'it is not closed' FROM loyalty.member m WHERE m.status <> 'closed') AS x (member_id, what)
        WHERE EXISTS (SELECT FROM loyalty.erasure e WHERE e.member_id = x.member_id)
    UNION ALL
    SELECT 'unique keys stand', NULL, w.name
        FROM unnest(ARRAY['entry_pkey', 'entry_key_idx', 'account_pkey', 'purchase_pkey', 'purchase_reference_key', 'activity_pkey', 'activity_reference_key',
                          'purchase_return_reference_key', 'member_pkey', 'member_program_id_external_id_key', 'held_award_pkey', 'returned_pkey', 'person_pkey', 'identity_pkey', 'erasure_pkey']) AS w (name)
        WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                          WHERE c.relname = w.name AND c.relnamespace = 'loyalty'::regnamespace AND i.indisunique AND i.indisvalid)
$$;
COMMENT ON FUNCTION loyalty.check_transactions() IS 'Invariants between transactions and the ledger, and of what the ledger refers to; a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_transactions() FROM PUBLIC;

CREATE FUNCTION loyalty.check_together() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT 'the total of what is bought together is the sum of its days', NULL::bigint, format('programme %s', t.program_id)
        FROM loyalty.copurchase_total t CROSS JOIN LATERAL (SELECT loyalty.sum_days(t.program_id, t.from_day, 'infinity') AS days) d
        WHERE CASE WHEN t.baskets IS NULL OR d.days IS NULL THEN coalesce(loyalty.basket_count(coalesce(t.baskets, d.days)), 0) <> 0 ELSE t.baskets OPERATOR(loyalty.<>) d.days END
    UNION ALL
        SELECT 'what is accepted was suggested', s.member_id, format('suggestion %s, article %s', a.suggestion_id, a.sku)
        FROM loyalty.suggestion_accepted a LEFT JOIN loyalty.suggestion s USING (suggestion_id) WHERE coalesce(a.sku <> ALL (s.skus), true);
END
$$;
COMMENT ON FUNCTION loyalty.check_together() IS 'The invariants of co-purchase and suggestions, a part of check()';
REVOKE ALL ON FUNCTION loyalty.check_together() FROM PUBLIC;

-- in PL/pgSQL: its tables are made in a later room
CREATE FUNCTION loyalty.check_analysis() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT 'what is kept of a day is the sum of its purchases', NULL::bigint, format('programme %s, %s: %s purchases of %s, kept %s of %s', k.program_id, k.day, f.purchases, f.amount, d.purchases, d.amount)
        FROM (SELECT p.program_id, p.day, count(*) AS purchases, sum(p.amount) AS amount FROM loyalty.analysis_purchase p GROUP BY 1, 2) f
             FULL JOIN (SELECT x.program_id, x.day, sum(x.purchases) AS purchases, sum(x.amount) AS amount FROM loyalty.analysis_day x GROUP BY 1, 2 HAVING sum(x.purchases) > 0) d USING (program_id, day)
             CROSS JOIN LATERAL (SELECT coalesce(f.program_id, d.program_id) AS program_id, coalesce(f.day, d.day) AS day) k
        WHERE (f.purchases, f.amount) IS DISTINCT FROM (d.purchases, d.amount);
    RETURN QUERY
        SELECT 'what is kept of a member is the sum of its purchases', coalesce(f.member_id, m.member_id), format('%s purchases of %s, kept %s of %s', f.purchases, f.amount, m.purchases, m.amount)
        FROM (SELECT p.member_id, count(*) AS purchases, sum(p.amount) AS amount, sum(p.returned) AS returned, min(p.day) AS first_day, max(p.day) AS last_day
              FROM loyalty.analysis_purchase p WHERE p.member_id IS NOT NULL GROUP BY 1) f
             FULL JOIN loyalty.analysis_member m ON m.member_id = f.member_id
        WHERE (f.purchases, f.amount, f.returned, f.first_day, f.last_day) IS DISTINCT FROM (m.purchases, m.amount, m.returned, m.first_day, m.last_day);
END
$$;
COMMENT ON FUNCTION loyalty.check_analysis() IS 'The invariants of what is kept for analysis that are broken';
REVOKE ALL ON FUNCTION loyalty.check_analysis() FROM PUBLIC;

CREATE FUNCTION loyalty.check() RETURNS TABLE (invariant text, account_id bigint, detail text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
    WITH e AS MATERIALIZED (
        SELECT n.account_id, n.seq, n.points, n.lots, n.tally, n.hash, n.source_id, n.kind, n.key,
               loyalty.is_chained(lag(n.hash) OVER w, n.entry) AS chained,
               n.seq - coalesce(lag(n.seq) OVER w, 0) AS step
        FROM (SELECT entry, entry.* FROM loyalty.entry) AS n (entry)
        WINDOW w AS (PARTITION BY n.account_id ORDER BY n.seq)),
    s AS MATERIALIZED (
        SELECT e.account_id, loyalty.sum(e.lots) AS lots, loyalty.sum(e.tally) AS tally, max(e.seq) AS seq,
               (array_agg(e.hash ORDER BY e.seq DESC))[1] AS head
        FROM e GROUP BY 1)
    SELECT 'account is the sum of its entries', a.account_id, format('lots %s, entries %s', a.lots, s.lots)
        FROM loyalty.account a LEFT JOIN s USING (account_id)
        WHERE a.lots OPERATOR(loyalty.<>) coalesce(s.lots, '{}')
    UNION ALL
    SELECT 'tally is the sum of the entries', a.account_id, format('tally %s, entries %s', a.tally, s.tally)
        FROM loyalty.account a LEFT JOIN s USING (account_id)
        WHERE a.tally OPERATOR(loyalty.<>) coalesce(s.tally, '{}')
    UNION ALL
    SELECT 'points are the total of lots', e.account_id, format('entry %s', e.seq)
        FROM e WHERE e.points <> loyalty.total(e.lots)
    UNION ALL
    SELECT 'entries are numbered without a gap', e.account_id, format('entry %s', e.seq)
        FROM e WHERE e.step <> 1
    UNION ALL
    SELECT 'entries are chained', e.account_id, format('entry %s does not follow from the one before', e.seq)
        FROM e WHERE e.chained IS NOT TRUE
    UNION ALL
    SELECT 'account knows its last entry', a.account_id, format('account %s, entries %s', a.seq, s.seq)
        FROM loyalty.account a LEFT JOIN s USING (account_id)
        WHERE a.seq <> coalesce(s.seq, 0) OR a.head <> coalesce(s.head, ''::bytea)
    UNION ALL
    SELECT 'entries have an account', s.account_id, NULL
        FROM s WHERE NOT EXISTS (SELECT FROM loyalty.account a WHERE a.account_id = s.account_id)
    UNION ALL
    SELECT 'no lot is negative but the debt', a.account_id, format('%s', a.lots)
        FROM loyalty.account a
        WHERE EXISTS (SELECT FROM loyalty.unnest(a.lots) u WHERE u.points < 0
                      AND NOT (u.available_from = '-infinity' AND u.expires_on = 'infinity'))
    UNION ALL
    SELECT 'every member has an account', m.member_id, m.external_id
        FROM loyalty.member m WHERE NOT EXISTS (SELECT FROM loyalty.account a WHERE a.account_id = m.member_id)
    UNION ALL
    SELECT 'accounts copy their members faithfully', m.member_id, m.external_id
        FROM loyalty.member m JOIN loyalty.account a ON a.account_id = m.member_id
        WHERE (a.program_id, a.closed, a.frozen, a.joined_at) <> (m.program_id, m.status = 'closed', m.status = 'frozen', m.joined_at)
    UNION ALL
    SELECT 'wallets copy their members faithfully', a.account_id, m.external_id
        FROM loyalty.account a JOIN loyalty.member m ON m.member_id = (a.account_id - 5000000000000000) % 100000000000
        WHERE a.account_id >= 5000000000000000 AND (a.closed, a.frozen, a.joined_at) <> (m.status = 'closed', m.status = 'frozen', m.joined_at)
    UNION ALL
    SELECT 'what is configured belongs to a programme', NULL, x.what
        FROM (SELECT program_id, 'tier ' || name FROM loyalty.tier UNION ALL SELECT program_id, 'rule ' || name FROM loyalty.rule
              UNION ALL SELECT program_id, 'article ' || sku FROM loyalty.product UNION ALL SELECT program_id, 'table ' || relation::text FROM loyalty.attachment
              UNION ALL SELECT program_id, 'reward ' || name FROM loyalty.reward UNION ALL SELECT program_id, 'coupon pool ' || name FROM loyalty.coupon_pool
              UNION ALL SELECT program_id, 'member ' || external_id FROM loyalty.member UNION ALL SELECT program_id, 'account ' || account_id FROM loyalty.account) AS x (program_id, what)
        WHERE NOT EXISTS (SELECT FROM loyalty.program p WHERE p.program_id = x.program_id)
    UNION ALL
    SELECT 'every rule version belongs to a rule', NULL, v.rule_version_id::text
        FROM loyalty.rule_version v WHERE NOT EXISTS (SELECT FROM loyalty.rule r WHERE r.rule_id = v.rule_id)
    UNION ALL
    SELECT 'every account has a member', a.account_id, NULL
        FROM loyalty.account a
        WHERE NOT EXISTS (SELECT FROM loyalty.member m WHERE m.member_id = a.account_id AND a.account_id < 5000000000000000)
            AND NOT EXISTS (SELECT FROM loyalty.member m JOIN loyalty.program w ON w.program_id = a.program_id AND w.wallet_of = m.program_id
                            WHERE a.account_id = loyalty.wallet_account(w.program_id, m.member_id) AND m.member_id = (a.account_id - 5000000000000000) % 100000000000)
    UNION ALL
    SELECT 'a held award is in the ledger once it is released, and not before', h.account_id,
           format('source %s, %s', h.source_id, CASE WHEN h.released_at IS NULL THEN 'held' ELSE 'released' END)
        FROM loyalty.held_award h
            LEFT JOIN loyalty.purchase p ON p.purchase_id = h.source_id
        WHERE CASE WHEN h.released_at IS NULL
                   THEN EXISTS (SELECT FROM e WHERE e.source_id = h.source_id AND e.account_id < 5000000000000000)
                   ELSE p.purchase_id IS NOT NULL AND p.status = 'completed'
                        AND p.member_id IS NOT NULL AND NOT EXISTS (SELECT FROM e WHERE e.source_id = h.source_id) END
    UNION ALL
    SELECT 'a source is awarded once', e.account_id, format('source %s: %s entries', e.source_id, count(*))
        FROM e WHERE e.kind = 'earn' GROUP BY e.account_id, e.source_id HAVING count(*) > 1
    UNION ALL
    SELECT 'every source exists', e.account_id, format('entry %s names %s', e.seq, e.source_id)
        FROM e WHERE e.source_id IS NOT NULL AND e.kind IN ('earn', 'correct', 'return')
            AND NOT EXISTS (SELECT FROM loyalty.purchase p WHERE p.purchase_id = e.source_id)
            AND NOT EXISTS (SELECT FROM loyalty.activity v WHERE v.activity_id = e.source_id)
    UNION ALL
    SELECT 'every purchase of a member is in the ledger or held', p.member_id, format('purchase %s', p.purchase_id)
        FROM loyalty.purchase p
        WHERE p.member_id IS NOT NULL AND p.status = 'completed'
            AND NOT EXISTS (SELECT FROM loyalty.entry n WHERE n.source_id = p.purchase_id AND (n.account_id = p.member_id OR (n.detail ->> 'member')::bigint = p.member_id))
            AND NOT EXISTS (SELECT FROM loyalty.entry n JOIN loyalty.account a ON a.account_id = p.member_id WHERE n.source_id = p.purchase_id AND n.account_id = a.merged_into)
            AND NOT EXISTS (SELECT FROM loyalty.held_award h WHERE h.source_id = p.purchase_id AND h.released_at IS NULL)
    UNION ALL
    SELECT 'a void purchase nets to nothing', p.member_id, format('purchase %s', p.purchase_id)
        FROM loyalty.purchase p JOIN loyalty.entry n ON n.source_id = p.purchase_id
        WHERE p.status = 'void'
        GROUP BY p.member_id, p.purchase_id
        HAVING loyalty.sum(n.tally) OPERATOR(loyalty.<>) '{}'::loyalty.tally
    UNION ALL
    SELECT 'every return has its effect', p.member_id, format('return %s', r.return_id)
        FROM loyalty.purchase_return r
            LEFT JOIN loyalty.returned d USING (return_id)
            LEFT JOIN loyalty.purchase p ON p.purchase_id = d.purchase_id
        WHERE d.return_id IS NULL OR p.purchase_id IS NULL
            OR p.purchase_id <> coalesce(r.purchase_id, p.purchase_id)
    UNION ALL
    SELECT 'a return never exceeds its purchase', p.member_id, format('purchase %s: %s of %s', p.purchase_id, sum(d.amount), p.amount)
        FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id)
        GROUP BY p.member_id, p.purchase_id HAVING sum(d.amount) > p.amount OR count(*) <> max(d.number)
    UNION ALL
    SELECT 'what came back whole nets to nothing', p.member_id, format('purchase %s: %s', p.purchase_id, loyalty.sum(n.tally))
        FROM loyalty.purchase p JOIN loyalty.entry n ON n.source_id = p.purchase_id
        WHERE p.status = 'completed' AND EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id AND d.complete)
        GROUP BY p.member_id, p.purchase_id
        HAVING loyalty.sum(n.tally) OPERATOR(loyalty.<>) '{}'::loyalty.tally
    UNION ALL
    SELECT 'a redemption is undone at most once', min(n.account_id), format('redemption %s', n.source_id)
        FROM e n WHERE n.kind IN ('redeem', 'capture', 'undo')
        GROUP BY n.source_id
        HAVING sum(n.points) > 0 OR count(*) FILTER (WHERE n.kind <> 'undo') <> 1
    UNION ALL
    SELECT 'held lots are in the account', a.account_id, format('hold %s', h.key)
        FROM loyalty.account a JOIN loyalty.program USING (program_id) CROSS JOIN LATERAL unnest(a.holds) h
        WHERE EXISTS (SELECT FROM loyalty.lots_at(a.program_id, a.lots, a.holds, NULL, '-infinity') f, loyalty.unnest(f.free) l
                      WHERE l.points < 0 AND (isfinite(l.available_from) OR -l.points > loyalty.debt(a.lots)))
    UNION ALL
    SELECT 'a hold is open or resolved', a.account_id, format('hold %s', h.key)
        FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h
        WHERE EXISTS (SELECT FROM e WHERE e.account_id = a.account_id AND e.key = h.key)
    UNION ALL
    SELECT 'a hold says what it holds', a.account_id, format('hold %s', h.key)
        FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h
        WHERE h.hold_id IS NULL OR coalesce(h.key, '') = '' OR h.held_at IS NULL OR h.held_until IS NULL OR h.held_at >= h.held_until
            OR (h.detail ->> 'held')::bigint IS DISTINCT FROM loyalty.total(h.lots)
            OR EXISTS (SELECT FROM loyalty.unnest(h.lots) l WHERE l.points <= 0)
            OR EXISTS (SELECT FROM e WHERE e.source_id = h.hold_id)
    UNION ALL
    SELECT 'a hold has a key and a number of its own', a.account_id, format('hold %s', h.key)
        FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h
        GROUP BY a.account_id, h.key HAVING count(*) > 1
    UNION ALL
    SELECT 'a hold has a key and a number of its own', min(a.account_id), format('number %s', h.hold_id)
        FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h
        GROUP BY h.hold_id HAVING count(*) > 1
    UNION ALL
    SELECT 'only who shares a household''s account is blocked in it', a.account_id, NULL
        FROM loyalty.account a WHERE a.household_blocked AND a.household_id IS NULL
    UNION ALL
    SELECT 'accounts and households agree on which were left', coalesce(a.account_id, h.member_id), format('account %s, households %s', a.ids, h.ids)
        FROM (SELECT q.account_id, ARRAY(SELECT DISTINCT u FROM unnest(q.left_households) u ORDER BY 1) AS ids FROM loyalty.account q WHERE q.left_households IS NOT NULL) a
            FULL JOIN (SELECT m.member_id, array_agg(DISTINCT m.household_id ORDER BY m.household_id) AS ids FROM loyalty.household_member m WHERE m.left_at IS NOT NULL GROUP BY 1) h
            ON h.member_id = a.account_id
        WHERE a.ids IS DISTINCT FROM h.ids
    UNION ALL
    SELECT 'a transfer nets to nothing', min(n.account_id), format('transfer %s', n.source_id)
        FROM e n WHERE n.kind IN ('transfer', 'merge', 'join', 'leave') GROUP BY n.source_id
        HAVING sum(n.points) <> 0 OR count(*) <> 2 OR loyalty.sum(n.tally) OPERATOR(loyalty.<>) '{}'::loyalty.tally
    UNION ALL
    SELECT 'a merged account is empty and closed', a.account_id, format('merged into %s', a.merged_into)
        FROM loyalty.account a LEFT JOIN loyalty.account t ON t.account_id = a.merged_into
        WHERE a.merged_into IS NOT NULL AND (NOT a.closed OR t.merged_into IS NOT NULL OR t.account_id IS NULL
            OR a.lots OPERATOR(loyalty.<>) '{}'::loyalty.lots OR a.tally OPERATOR(loyalty.<>) '{}'::loyalty.tally)
    UNION ALL
    SELECT 'who shares a household''s account has nothing of its own', a.account_id, format('household %s', a.household_id)
        FROM loyalty.account a LEFT JOIN loyalty.account h ON h.account_id = a.household_id
        WHERE a.household_id IS NOT NULL AND (h.household_id IS NOT NULL OR h.program_id IS DISTINCT FROM a.program_id OR a.holds IS NOT NULL
            OR a.lots OPERATOR(loyalty.<>) '{}'::loyalty.lots OR a.tally OPERATOR(loyalty.<>) '{}'::loyalty.tally)
    UNION ALL
    SELECT 'accounts and households agree on who is in which', coalesce(a.account_id, h.member_id), format('account %s, household %s', a.household_id, h.household_id)
        FROM (SELECT * FROM loyalty.account WHERE household_id IS NOT NULL) a
            FULL JOIN (SELECT * FROM loyalty.household_member WHERE left_at IS NULL) h ON h.member_id = a.account_id
        WHERE a.household_id IS DISTINCT FROM h.household_id
    UNION ALL
    SELECT 'the tier is that of the last change', a.account_id, format('account %s, history %s', a.tier_id, c.tier_id)
        FROM loyalty.account a LEFT JOIN LATERAL
            (SELECT t.tier_id FROM loyalty.tier_change t WHERE t.account_id = a.account_id ORDER BY t.number DESC LIMIT 1) c ON true
        WHERE a.tier_id IS DISTINCT FROM c.tier_id
    UNION ALL
    SELECT 'no earned tier is missing', a.account_id, format('held %s, earned %s', t.name, earned.name)
        FROM loyalty.account a
            JOIN loyalty.program p USING (program_id)
            LEFT JOIN loyalty.tier t USING (tier_id)
            JOIN loyalty.tier earned ON earned.tier_id = loyalty.earned_tier(a.account_id, (a.last_event_at AT TIME ZONE p.time_zone)::date)
            LEFT JOIN LATERAL (SELECT c.cause FROM loyalty.tier_change c WHERE c.account_id = a.account_id ORDER BY c.number DESC LIMIT 1) c ON true
        WHERE earned.rank > coalesce(t.rank, 0) AND coalesce(c.cause, '') NOT IN ('manual', 'review', 'revoked')
            AND a.last_event_at IS NOT NULL
            AND EXISTS (SELECT FROM loyalty.entry n WHERE n.account_id = a.account_id AND n.kind = 'earn'
                        AND n.seq > (SELECT coalesce(max(o.seq), 0) FROM loyalty.entry o WHERE o.account_id = a.account_id AND o.kind IN ('open', 'import', 'adjust')))
    UNION ALL
    SELECT * FROM loyalty.check_transactions()
    UNION ALL
    SELECT * FROM loyalty.check_vouchers()
    UNION ALL
    SELECT * FROM loyalty.check_proofs()
    UNION ALL
    SELECT * FROM loyalty.check_rewards()
    UNION ALL
    SELECT * FROM loyalty.check_coupons()
    UNION ALL
    SELECT * FROM loyalty.check_stamps()
    UNION ALL
    SELECT * FROM loyalty.check_challenges()
    UNION ALL
    SELECT * FROM loyalty.check_reviews()
    UNION ALL
    SELECT * FROM loyalty.check_referrals()
    UNION ALL
    SELECT * FROM loyalty.check_activities()
    UNION ALL
    SELECT * FROM loyalty.check_occasions()
    UNION ALL
    SELECT * FROM loyalty.check_limits()
    UNION ALL
    SELECT * FROM loyalty.check_caps()
    UNION ALL
    SELECT * FROM loyalty.check_analysis()
    UNION ALL
    SELECT * FROM loyalty.check_together()
    UNION ALL
    SELECT 'the engine''s triggers stand and are enabled', NULL, w.relation || '.' || w.trigger
        FROM (VALUES ('purchase', 'award_insert'), ('purchase', 'award_update'), ('purchase', 'refuse_change'), ('purchase', 'refuse_key_change'), ('purchase', 'keep_returned'), ('purchase', 'check_paid'), ('purchase', 'check_paid_change'),
                     ('activity', 'award_insert'), ('activity', 'award_update'), ('activity', 'refuse_change'), ('activity', 'refuse_key_change'),
                     ('purchase_return', 'take_returns'), ('purchase_return', 'refuse_change'), ('returned', 'refuse_change'),
                     ('entry', 'refuse_change'), ('tier_change', 'refuse_change'), ('account', 'refuse_change'), ('household_member', 'refuse_change'), ('held_award', 'refuse_change'), ('activity_admission', 'refuse_change'), ('activity_policy', 'configuration_changed'), ('cashier', 'configuration_changed'), ('rule_budget', 'configuration_changed'), ('rule_budget', 'refuse_change'), ('rule_budget', 'write_audit'),
                     ('member', 'open_accounts'), ('member', 'follow_member'), ('member', 'keep_member'), ('member', 'keep_member_key'), ('member', 'keep_birthday'), ('member', 'keep_birthday_change'), ('rule_version', 'keep_version'),
                     ('voucher', 'keep_voucher'), ('voucher', 'refuse_change'), ('voucher_key', 'refuse_change'), ('checkpoint', 'refuse_change'), ('checkpoint_leaf', 'refuse_change'), ('checkpoint_node', 'refuse_change'),
                     ('reward', 'keep_reward'), ('reward', 'refuse_change'), ('claim', 'keep_claim'), ('claim', 'refuse_change'),
                     ('coupon_pool', 'keep_coupon'), ('coupon_pool', 'refuse_change'), ('coupon', 'keep_coupon'), ('coupon', 'refuse_change'),
                     ('coupon_use', 'keep_coupon'), ('coupon_use', 'refuse_change'), ('stamp', 'refuse_change'), ('stamp_sheet', 'refuse_change'),
                     ('stamp_card', 'keep_stamp_card'), ('stamp_card', 'refuse_change'), ('stamp_card', 'configuration_changed'),
                     ('challenge', 'configuration_changed'), ('challenge', 'keep_challenge'), ('challenge', 'refuse_change'), ('challenge_grant', 'refuse_change'),
                     ('referral_policy', 'configuration_changed'), ('referral_policy', 'keep_referral_policy'), ('referral_policy', 'refuse_change'), ('referral', 'refuse_change'), ('referral_change', 'refuse_change'),
                     ('velocity_limit', 'configuration_changed'), ('velocity_limit', 'keep_limit'), ('velocity_limit', 'refuse_change'), ('limit_decision', 'refuse_change'),
                     ('attachment', 'configuration_changed'), ('program', 'configuration_changed'), ('program', 'keep_program'), ('program', 'refuse_change'), ('tier', 'refuse_change'), ('tier', 'configuration_changed'),
                     ('product', 'configuration_changed'), ('product', 'check_articles'), ('product', 'check_articles_change'), ('rule', 'configuration_changed'),
                     ('rule_version', 'configuration_changed'), ('audit', 'refuse_change'), ('consent_change', 'refuse_change'), ('erasure', 'refuse_change'),
                     ('program', 'write_audit'), ('tier', 'write_audit'), ('product', 'write_audit'), ('rule', 'write_audit'), ('rule_version', 'write_audit'), ('exchange_rate', 'write_audit'), ('attachment', 'write_audit'), ('reward', 'write_audit'), ('coupon_pool', 'write_audit'), ('stamp_card', 'write_audit'), ('challenge', 'write_audit'), ('referral_policy', 'write_audit'), ('velocity_limit', 'write_audit'), ('blocked_subject', 'write_audit'), ('activity_policy', 'write_audit'), ('cashier', 'write_audit'), ('cashier_limit', 'write_audit'), ('analysis_setting', 'write_audit'), ('member', 'write_audit'), ('member', 'write_audit_of_staff')) AS w (relation, trigger)
        WHERE NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = ('loyalty.' || w.relation)::regclass
                          AND g.tgname = w.trigger AND g.tgenabled IN ('O', 'A'))
    UNION ALL
    SELECT 'attached tables are there', NULL,
           CASE WHEN NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = a.relation)
                THEN format('the table of source "%s" is gone; loyalty.detach_source lets go of it', a.source)
                ELSE format('the table of the lines of %s is gone; loyalty.detach lets go of both', a.relation) END
        FROM loyalty.attachment a
        WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = a.relation)
            OR (a.lines_relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = a.lines_relation))
    UNION ALL
    SELECT 'attached tables and their partitions have their triggers', NULL, x.relation::text || '.' || w.trigger
        FROM (SELECT coalesce(t.relid, c.oid::regclass) AS relation
              FROM loyalty.attachment a
                   JOIN pg_class c ON c.oid IN (a.relation, a.lines_relation)
                   LEFT JOIN LATERAL pg_partition_tree(c.oid) t ON true) x,
             (VALUES ('loyalty_insert'), ('loyalty_update'), ('loyalty_delete'), ('loyalty_truncate')) AS w (trigger)
        WHERE NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = x.relation
                          AND g.tgname = w.trigger AND g.tgenabled IN ('O', 'A'))
$$;
COMMENT ON FUNCTION loyalty.check() IS 'One row for every broken invariant of the books; no row when all is well. Reads everything';
REVOKE ALL ON FUNCTION loyalty.check() FROM PUBLIC;
