/*
 * redeem: points after they are earned.  Every function takes a key of the
 * caller's: the same key and content again gives the first result and changes
 * nothing, other content is LY404, for ever.
 */

CREATE FUNCTION loyalty.payable_with_points(program_id integer, order_amount numeric, lines loyalty.line[]) RETURNS numeric
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.program;
    payable numeric;
BEGIN
    SELECT * INTO p FROM loyalty.program q WHERE q.program_id = program_id;
    IF order_amount < 0 OR order_amount = 'NaN' OR order_amount >= 1e12 THEN
        RAISE EXCEPTION 'order_amount % is not an amount of money', order_amount
            USING ERRCODE = 'LY101', DETAIL = 'Expected an amount from 0 to 10^12.';
    END IF;
    IF EXISTS (SELECT FROM unnest(lines) l CROSS JOIN LATERAL unnest(ARRAY[l.quantity, l.unit_price, l.amount, l.discount]) x (value)
               WHERE x.value < 0 OR x.value = 'NaN' OR x.value >= 1e12)
       OR EXISTS (SELECT FROM unnest(lines) l WHERE coalesce(l.amount, l.quantity * l.unit_price) IS NULL) THEN
        RAISE EXCEPTION 'a line is not valid' USING ERRCODE = 'LY106', DETAIL = 'Expected an amount, or a quantity and a unit price, from 0 to 10^12.';
    END IF;
    payable := order_amount * p.redeem_max_share;
    IF lines IS NOT NULL THEN
        payable := least(payable, (SELECT coalesce(sum(least(x.amount, p.redeem_line_max)), 0) * CASE WHEN order_amount IS NULL THEN p.redeem_max_share ELSE 1 END
            FROM (SELECT greatest(coalesce(l.amount, l.quantity * l.unit_price - coalesce(l.discount, 0), 0), 0) AS amount, l.sku
                  FROM unnest(lines) l) x
            WHERE NOT EXISTS (SELECT FROM loyalty.product a WHERE a.program_id = p.program_id AND a.sku = x.sku AND a.excluded)));
    END IF;
    RETURN payable;
END
$$;
COMMENT ON FUNCTION loyalty.payable_with_points(integer, numeric, loyalty.line[]) IS 'Most money of an order that points may pay: its amount and its lines, by redeem_max_share and redeem_line_max; excluded articles not at all';
REVOKE ALL ON FUNCTION loyalty.payable_with_points(integer, numeric, loyalty.line[]) FROM PUBLIC;

CREATE FUNCTION loyalty.redeem(member_id bigint, points bigint, key text, partial boolean DEFAULT false,
        order_amount numeric DEFAULT NULL, lines loyalty.line[] DEFAULT NULL, reference text DEFAULT NULL,
        store text DEFAULT NULL, cashier text DEFAULT NULL, reason text DEFAULT NULL, proof text DEFAULT NULL,
        OUT redemption_id bigint, OUT redeemed bigint, OUT money numeric, OUT currency text, OUT undone bigint)
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_redeem';
COMMENT ON FUNCTION loyalty.redeem IS 'Spends points (smallest units), those that expire soonest first; with partial as many as the balance, the order and the programme allow. Returns what was taken, its money value in whole minor units, and how many of the points were given back since (of a key that is used again)';
REVOKE ALL ON FUNCTION loyalty.redeem FROM PUBLIC;

CREATE FUNCTION loyalty.hold(member_id bigint, points bigint, key text, ttl interval DEFAULT '15 minutes',
        partial boolean DEFAULT false, order_amount numeric DEFAULT NULL, lines loyalty.line[] DEFAULT NULL,
        reference text DEFAULT NULL, store text DEFAULT NULL, cashier text DEFAULT NULL, proof text DEFAULT NULL,
        OUT redemption_id bigint, OUT held bigint, OUT money numeric, OUT currency text, OUT held_until timestamptz)
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_hold';
COMMENT ON FUNCTION loyalty.hold IS 'Sets points aside until they are captured, released, or ttl has passed, which needs no job. Held lots neither die nor are spent by others';
REVOKE ALL ON FUNCTION loyalty.hold FROM PUBLIC;

CREATE FUNCTION loyalty.capture(member_id bigint, key text, points bigint DEFAULT NULL, reference text DEFAULT NULL,
        OUT redemption_id bigint, OUT redeemed bigint, OUT money numeric, OUT currency text)
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_capture';
COMMENT ON FUNCTION loyalty.capture IS 'Spends the hold with that key, or some points of it; the rest is released';
REVOKE ALL ON FUNCTION loyalty.capture FROM PUBLIC;

CREATE FUNCTION loyalty.release(member_id bigint, key text, reason text DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_release';
COMMENT ON FUNCTION loyalty.release IS 'Gives the hold with that key back; returns its points';
REVOKE ALL ON FUNCTION loyalty.release FROM PUBLIC;

CREATE FUNCTION loyalty.undo(member_id bigint, key text, points bigint DEFAULT NULL, undo_key text DEFAULT NULL,
        reason text DEFAULT NULL, OUT redemption_id bigint, OUT restored bigint, OUT money numeric, OUT currency text)
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_undo';
COMMENT ON FUNCTION loyalty.undo IS 'Gives the redemption with that key back, whole or in part: the very lots it took, those that died meanwhile by the programme''s policy restore. A part needs an undo_key of its own';
REVOKE ALL ON FUNCTION loyalty.undo FROM PUBLIC;

CREATE FUNCTION loyalty.undo_tender(member_id bigint, key text, points bigint, undo_key text, reason text,
        OUT redemption_id bigint, OUT restored bigint, OUT money numeric, OUT currency text)
    LANGUAGE C VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_undo_tender';
COMMENT ON FUNCTION loyalty.undo_tender IS 'undo for returns, with a key of the engine''s own';
REVOKE ALL ON FUNCTION loyalty.undo_tender FROM PUBLIC;

CREATE FUNCTION loyalty.transfer(from_member bigint, to_member bigint, points bigint, key text, reason text DEFAULT NULL, proof text DEFAULT NULL, cashier text DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_transfer';
COMMENT ON FUNCTION loyalty.transfer IS 'Moves points from one member to another of the programme; the lots keep their days. The key belongs to the giver';
REVOKE ALL ON FUNCTION loyalty.transfer FROM PUBLIC;

CREATE FUNCTION loyalty.write_off(member_id bigint, reason text, key text, points bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_write_off';
COMMENT ON FUNCTION loyalty.write_off IS 'Forgives a member''s debt or a part of it, with a reason; returns the points forgiven';
REVOKE ALL ON FUNCTION loyalty.write_off FROM PUBLIC;

CREATE FUNCTION loyalty.post_merge(from_member bigint, to_member bigint, reason text) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'loyalty_post_merge';
COMMENT ON FUNCTION loyalty.post_merge(bigint, bigint, text) IS 'Moves lots, tally and the better tier of one account to another; nothing where that was done before';
REVOKE ALL ON FUNCTION loyalty.post_merge(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.merge_members(from_member bigint, to_member bigint, reason text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    points bigint;
BEGIN
    IF reason IS NULL OR btrim(reason) = '' THEN
        RAISE EXCEPTION 'a merge needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for the member and the auditor.';
    END IF;
    PERFORM loyalty.lock_referral_merges(to_member);
    PERFORM FROM loyalty.member m WHERE m.member_id IN (from_member, to_member) ORDER BY m.member_id FOR NO KEY UPDATE;
    IF (SELECT count(*) FROM loyalty.member m WHERE m.member_id IN (from_member, to_member)) < (CASE WHEN from_member = to_member THEN 1 ELSE 2 END) THEN
        RAISE EXCEPTION 'member % or member % does not exist', from_member, to_member USING ERRCODE = 'LY301', HINT = 'Wallets are merged with their members.';
    END IF;
    -- those that were merged into the first follow it; merged accounts are locked before all others
    PERFORM FROM loyalty.account a WHERE a.account_id IN (from_member, to_member) OR a.merged_into = from_member OR a.account_id = ANY (loyalty.referrers_of(from_member, to_member)) ORDER BY a.merged_into IS NULL, a.account_id FOR NO KEY UPDATE;
    points := loyalty.post_merge(from_member, to_member, reason);
    PERFORM loyalty.post_merge(loyalty.wallet_account(w.program_id, from_member), loyalty.wallet_account(w.program_id, to_member), reason)
        FROM loyalty.program w JOIN loyalty.member m ON m.program_id = w.wallet_of AND m.member_id = from_member
        WHERE EXISTS (SELECT FROM loyalty.account a WHERE a.account_id = loyalty.wallet_account(w.program_id, from_member))
        ORDER BY w.program_id;
    PERFORM loyalty.merge_stamps(from_member, to_member);
    UPDATE loyalty.member m SET status = 'closed' WHERE m.member_id = from_member AND m.status <> 'closed';
    PERFORM loyalty.merge_challenges(from_member, to_member);
    PERFORM loyalty.merge_referrals(from_member, to_member);
    RETURN points;
END
$$;
COMMENT ON FUNCTION loyalty.merge_members(bigint, bigint, text) IS 'Merges one member into another: points and stamps with their days, sums and the better tier move, the first is closed, and what is returned or corrected of its purchases later goes to the second. Doing it again does nothing. Returns the points moved';
REVOKE ALL ON FUNCTION loyalty.merge_members(bigint, bigint, text) FROM PUBLIC;

CREATE VIEW loyalty.redemption AS
    SELECT e.source_id AS redemption_id, a.program_id, e.account_id AS member_id, e.key, e.kind = 'capture' AS was_held,
           e.occurred_at, -e.points AS points, coalesce(u.points, 0) AS undone, -e.points - coalesce(u.points, 0) AS spent,
           round((e.detail ->> 'money')::numeric, loyalty.currency_digits(e.detail ->> 'currency')) AS money, round(coalesce(u.money, 0), loyalty.currency_digits(e.detail ->> 'currency')) AS money_undone, e.detail ->> 'currency' AS currency,
           e.detail -> 'request' ->> 'reference' AS reference, e.detail -> 'request' ->> 'store' AS store,
           e.detail -> 'request' ->> 'cashier' AS cashier, e.actor, e.reason
    FROM loyalty.entry e
         JOIN loyalty.account a USING (account_id)
         LEFT JOIN LATERAL (SELECT sum(n.points)::bigint AS points, sum((n.detail ->> 'money')::numeric) AS money FROM loyalty.entry n
                            WHERE n.source_id = e.source_id AND n.kind = 'undo') u ON true
    WHERE e.kind IN ('redeem', 'capture');
COMMENT ON VIEW loyalty.redemption IS 'Every redemption, with what was given back of it';

CREATE VIEW loyalty.open_hold AS
    SELECT h.hold_id AS redemption_id, a.program_id, a.account_id AS member_id, h.key, h.held_at, h.held_until, h.held_until <= now() AS lapsed,
           loyalty.total(h.lots) AS points, round((h.detail ->> 'held_money')::numeric, loyalty.currency_digits(h.detail ->> 'currency')) AS money, h.detail ->> 'currency' AS currency,
           h.detail -> 'request' ->> 'reference' AS reference
    FROM loyalty.account a CROSS JOIN LATERAL unnest(a.holds) h
    WHERE a.holds IS NOT NULL;
COMMENT ON VIEW loyalty.open_hold IS 'Holds that nobody has captured or released; lapsed ones count as released already';
