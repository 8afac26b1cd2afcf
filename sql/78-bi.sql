/*
 * bi: the views that a BI tool reads, all named bi_..., with plain types only
 * and nothing that tells who a member is.  This file: the programme and its books.
 */
CREATE VIEW loyalty.bi_member AS
    SELECT m.program_id, m.member_id, (m.joined_at AT TIME ZONE p.time_zone)::date AS joined_on, m.status, m.staff, m.member_id >= 4000000000000001 AS household,
           b.household_id IS NOT NULL AS in_household, b.tier, b.available, b.pending, b.held, b.debt,
           b.lifetime_spend, b.lifetime_points, b.lifetime_purchases, (b.last_event_at AT TIME ZONE p.time_zone)::date AS last_event_on
    FROM loyalty.member m JOIN loyalty.program p USING (program_id) JOIN loyalty.member_balance b USING (member_id);
COMMENT ON VIEW loyalty.bi_member IS 'Every member: status, tier, balance and lifetime sums today';

CREATE VIEW loyalty.bi_membership AS
    SELECT x.program_id, x.month, sum(x.joined)::bigint AS joined, sum(x.active)::bigint AS still_active, sum(sum(x.joined)) OVER (PARTITION BY x.program_id ORDER BY x.month)::bigint AS members
    FROM (SELECT m.program_id, date_trunc('month', m.joined_at AT TIME ZONE p.time_zone)::date AS month, 1 AS joined, (m.status = 'active')::integer AS active
          FROM loyalty.member m JOIN loyalty.program p USING (program_id) WHERE m.member_id < 4000000000000001) x
    GROUP BY x.program_id, x.month;
COMMENT ON VIEW loyalty.bi_membership IS 'Members who joined in each month, and how many have joined by its end';

CREATE VIEW loyalty.bi_tier AS
    SELECT b.program_id, coalesce(t.rank, 0)::bigint AS rank, b.tier, count(*) AS members, sum(b.lifetime_spend) AS lifetime_spend,
           round(sum(b.lifetime_spend) / nullif(sum(sum(b.lifetime_spend)) OVER (PARTITION BY b.program_id), 0), 6) AS spend_share,
           sum(b.available)::numeric AS available, sum(b.pending)::numeric AS pending
    FROM loyalty.member_balance b LEFT JOIN loyalty.tier t ON t.program_id = b.program_id AND t.name = b.tier
    WHERE b.status <> 'closed' AND b.member_id < 4000000000000001
    GROUP BY b.program_id, t.rank, b.tier;
COMMENT ON VIEW loyalty.bi_tier IS 'Members of each tier today, what they spent in all and the points they have; tier NULL: none';

CREATE VIEW loyalty.bi_tier_movement AS
    SELECT x.program_id, x.month, x.from_tier, x.to_tier, x.direction, x.cause, count(*) AS changes
    FROM (SELECT a.program_id, date_trunc('month', c.changed_at AT TIME ZONE p.time_zone)::date AS month, c.cause, t.name AS to_tier,
                 lag(t.name) OVER w AS from_tier,
                 CASE WHEN coalesce(t.rank, 0) > coalesce(lag(t.rank) OVER w, 0) THEN 'up' WHEN coalesce(t.rank, 0) < coalesce(lag(t.rank) OVER w, 0) THEN 'down' ELSE 'same' END AS direction
          FROM loyalty.tier_change c JOIN loyalty.account a USING (account_id) JOIN loyalty.program p USING (program_id) LEFT JOIN loyalty.tier t ON t.tier_id = c.tier_id
          WINDOW w AS (PARTITION BY c.account_id ORDER BY c.number)) x
    GROUP BY x.program_id, x.month, x.from_tier, x.to_tier, x.direction, x.cause;
COMMENT ON VIEW loyalty.bi_tier_movement IS 'Changes of tiers by month: from which to which, up or down, and why';

CREATE VIEW loyalty.bi_points_flow AS
    SELECT f.program_id, f.month, f.kind, f.entries, f.points, f.cost FROM loyalty.points_flow f;
COMMENT ON VIEW loyalty.bi_points_flow IS 'Points by month and kind of entry; over all months and kinds they sum to the points on the books';

CREATE VIEW loyalty.bi_liability AS
    SELECT l.program_id, l.state, CASE WHEN isfinite(l.available_month) THEN l.available_month END AS available_month, CASE WHEN isfinite(l.expiry_month) THEN l.expiry_month END AS expiry_month, l.accounts, l.points, l.cost
    FROM loyalty.liability l;
COMMENT ON VIEW loyalty.bi_liability IS 'Points on the books today: what state they are in, since when they are available (NULL: a debt, or not released yet) and when they die (NULL: never)';

CREATE VIEW loyalty.bi_partner_liability AS
    SELECT l.program_id, l.partner, l.accounts, l.points, l.cost FROM loyalty.partner_liability l;
COMMENT ON VIEW loyalty.bi_partner_liability IS 'Points on the books by the partner whose articles gave them; NULL: one''s own';

CREATE VIEW loyalty.bi_breakage AS
    SELECT b.program_id, b.month, b.given, b.returned, b.spent, b.expired, b.moved, b.outstanding,
           round(sum(b.expired) OVER w / nullif(sum(b.given - b.returned) OVER w, 0), 6) AS breakage_rate,
           round(sum(b.spent) OVER w / nullif(sum(b.given - b.returned) OVER w, 0), 6) AS spent_rate
    FROM loyalty.breakage b WINDOW w AS (PARTITION BY b.program_id ORDER BY b.month);
COMMENT ON VIEW loyalty.bi_breakage IS 'Points given, spent and expired in each month, what is outstanding at its end, and the shares of all that was given until then that expired and that was spent';

CREATE VIEW loyalty.bi_rule AS
    SELECT g.program_id, x.rule, x.version, v.event, v.kind, v.active_from > '-infinity' OR v.active_until < 'infinity' AS campaign,
           CASE WHEN isfinite(v.active_from) THEN (v.active_from AT TIME ZONE g.time_zone)::date END AS active_from,
           CASE WHEN isfinite(least(v.active_until, v.retired_from)) THEN (least(v.active_until, v.retired_from) AT TIME ZONE g.time_zone)::date END AS active_until,
           x.awards, x.members, x.points, round(x.points / 10::numeric ^ g.points_scale * g.point_value, 2) AS cost, x.first_on, x.last_on,
           round(x.members / nullif((SELECT count(*) FROM loyalty.member m WHERE m.program_id = g.program_id AND m.member_id < 4000000000000001), 0)::numeric, 6) AS response
    FROM (SELECT s.program_id, s.rule, s.version, s.rule_version_id, count(*) FILTER (WHERE s.points <> 0) AS awards, count(DISTINCT s.account_id) FILTER (WHERE s.points <> 0) AS members,
                 sum(s.points)::numeric AS points, min(s.day) AS first_on, max(s.day) AS last_on
          FROM (SELECT a.program_id, r.rule, r.version, r.rule_version_id, r.account_id, r.source_id, sum(r.points) AS points, min((r.occurred_at AT TIME ZONE p.time_zone)::date) AS day
                FROM loyalty.entry_rule r JOIN loyalty.account a USING (account_id) JOIN loyalty.program p USING (program_id)
                GROUP BY a.program_id, r.rule, r.version, r.rule_version_id, r.account_id, r.source_id) s
          GROUP BY s.program_id, s.rule, s.version, s.rule_version_id) x
         JOIN loyalty.program g USING (program_id)
         LEFT JOIN loyalty.rule_version v ON v.rule_version_id = x.rule_version_id;
COMMENT ON VIEW loyalty.bi_rule IS 'What each version of a rule gave and cost so far, and to how many members; those with a beginning or an end are campaigns';

CREATE VIEW loyalty.bi_rule_month AS
    SELECT a.program_id, date_trunc('month', r.occurred_at AT TIME ZONE p.time_zone)::date AS month, r.rule, count(DISTINCT r.source_id) AS awards, count(DISTINCT r.account_id) AS members,
           sum(r.points)::numeric AS points, round(sum(r.points) / 10::numeric ^ p.points_scale * p.point_value, 2) AS cost
    FROM loyalty.entry_rule r JOIN loyalty.account a USING (account_id) JOIN loyalty.program p USING (program_id)
    GROUP BY a.program_id, p.points_scale, p.point_value, 2, r.rule;
COMMENT ON VIEW loyalty.bi_rule_month IS 'What each rule gave and cost in each month';

CREATE VIEW loyalty.bi_reward AS
    SELECT r.program_id, r.reward_id::bigint AS reward_id, r.name AS reward, r.kind, r.category, r.partner, r.points AS price, r.stock, r.retired_at IS NULL AND r.valid_from <= now() AND r.valid_until > now() AS offered,
           coalesce(c.claims, 0) AS claims, coalesce(c.pieces, 0)::bigint AS pieces, coalesce(c.members, 0) AS members, coalesce(c.points, 0)::numeric AS points,
           round(coalesce(c.points, 0) / 10::numeric ^ p.points_scale * p.point_value, 2) AS cost, coalesce(c.undone, 0) AS undone, c.first_on, c.last_on
    FROM loyalty.reward r JOIN loyalty.program p USING (program_id)
         LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE c.undone_at IS NULL) AS claims, sum(c.quantity) FILTER (WHERE c.undone_at IS NULL) AS pieces,
                                   count(DISTINCT c.member_id) FILTER (WHERE c.undone_at IS NULL) AS members, sum(c.points) FILTER (WHERE c.undone_at IS NULL) AS points,
                                   count(*) FILTER (WHERE c.undone_at IS NOT NULL) AS undone,
                                   min((c.claimed_at AT TIME ZONE p.time_zone)::date) AS first_on, max((c.claimed_at AT TIME ZONE p.time_zone)::date) AS last_on
                            FROM loyalty.claim c WHERE c.reward_id = r.reward_id) c ON true;
COMMENT ON VIEW loyalty.bi_reward IS 'How popular each reward is: claims that were not undone, pieces, members, points';

CREATE VIEW loyalty.bi_redemption AS
    SELECT r.program_id, date_trunc('month', r.occurred_at AT TIME ZONE p.time_zone)::date AS month, r.store, count(*) AS redemptions, count(DISTINCT r.member_id) AS members,
           sum(r.points)::numeric AS points, sum(r.undone)::numeric AS undone, sum(r.spent)::numeric AS spent, sum(r.money - r.money_undone) AS amount
    FROM loyalty.redemption r JOIN loyalty.program p USING (program_id)
    GROUP BY r.program_id, 2, r.store;
COMMENT ON VIEW loyalty.bi_redemption IS 'Redemptions by month and store, what was given back of them, and the money they paid';

CREATE VIEW loyalty.bi_voucher AS
    SELECT v.program_id, date_trunc('month', v.issued_at AT TIME ZONE p.time_zone)::date AS month, v.kind, v.currency, count(*) AS issued, count(*) FILTER (WHERE v.status = 'redeemed') AS redeemed,
           count(*) FILTER (WHERE v.status = 'revoked') AS revoked, count(*) FILTER (WHERE v.status = 'issued' AND v.valid_until < (now() AT TIME ZONE p.time_zone)::date) AS expired,
           count(*) FILTER (WHERE v.status = 'issued' AND coalesce(v.valid_until >= (now() AT TIME ZONE p.time_zone)::date, true)) AS open,
           sum(v.value) AS value, sum(v.value) FILTER (WHERE v.status = 'redeemed') AS redeemed_value
    FROM loyalty.voucher v JOIN loyalty.program p USING (program_id)
    GROUP BY v.program_id, 2, v.kind, v.currency;
COMMENT ON VIEW loyalty.bi_voucher IS 'Vouchers by the month in which they were issued and what became of them';

CREATE VIEW loyalty.bi_coupon AS
    SELECT p.program_id, p.pool_id::bigint AS pool_id, p.name AS pool, p.uses AS kind, c.codes, c.issued, c.void, u.used, u.released, u.members,
           round(u.used / nullif(c.issued, 0)::numeric, 6) AS response
    FROM loyalty.coupon_pool p
         CROSS JOIN LATERAL (SELECT count(*) AS codes, count(*) FILTER (WHERE c.member_id IS NOT NULL) AS issued, count(*) FILTER (WHERE c.status = 'void') AS void FROM loyalty.coupon c WHERE c.pool_id = p.pool_id) c
         CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE u.released_at IS NULL) AS used, count(*) FILTER (WHERE u.released_at IS NOT NULL) AS released,
                                    count(DISTINCT u.member_id) FILTER (WHERE u.released_at IS NULL) AS members FROM loyalty.coupon_use u WHERE u.pool_id = p.pool_id) u;
COMMENT ON VIEW loyalty.bi_coupon IS 'Codes of each pool: how many were given to members, and used';

CREATE VIEW loyalty.bi_stamp_card AS
    SELECT c.program_id, c.card_id::bigint AS card_id, c.name AS card, c.retired_at IS NULL AS offered, s.members, s.stamps, s.claims
    FROM loyalty.stamp_card c
         CROSS JOIN LATERAL (SELECT count(DISTINCT s.member_id) AS members, coalesce(sum(s.amount) FILTER (WHERE s.kind IN ('earn', 'correct', 'return')), 0) / 10000.0 AS stamps,
                                    count(*) FILTER (WHERE s.kind = 'claim') - count(*) FILTER (WHERE s.kind = 'undo') AS claims
                             FROM loyalty.stamp s WHERE s.card_id = c.card_id) s;
COMMENT ON VIEW loyalty.bi_stamp_card IS 'Stamp cards: who collects, stamps given, full cards claimed';

CREATE VIEW loyalty.bi_challenge AS
    SELECT r.program_id, r.challenge_id::bigint AS challenge_id, r.name AS challenge, r.metric, r.period, coalesce(r.members, 0) AS members, r.progress, r.periods_met, r.grants, r.points::numeric AS points,
           round(r.points / 10::numeric ^ p.points_scale * p.point_value, 2) AS cost
    FROM loyalty.challenge_result r JOIN loyalty.program p USING (program_id);
COMMENT ON VIEW loyalty.bi_challenge IS 'What came of each challenge';

CREATE VIEW loyalty.bi_referral AS
    SELECT f.program_id, f.month, f.invited, f.registered, f.qualified, f.in_review, f.rewarded, f.void, f.points::numeric AS points, f.conversion FROM loyalty.referral_funnel f;
COMMENT ON VIEW loyalty.bi_referral IS 'The funnel of referrals, by the month in which they began';

CREATE VIEW loyalty.bi_limit AS
    SELECT l.program_id, l.limit_id::bigint AS limit_id, l.name AS limit_name, l.event, l.measure, l.maximum, l.verdict AS on_reached, l.retired_at IS NULL AS active,
           d.month, d.verdict, d.reason, coalesce(d.decisions, 0) AS decisions, coalesce(d.points_wanted, 0)::numeric AS points_wanted, coalesce(d.points, 0)::numeric AS points
    FROM loyalty.velocity_limit l JOIN loyalty.program p USING (program_id)
         LEFT JOIN LATERAL (SELECT date_trunc('month', d.decided_at AT TIME ZONE p.time_zone)::date AS month, d.verdict, d.reason, count(*) AS decisions, sum(d.points_wanted) AS points_wanted, sum(d.points) AS points
                            FROM loyalty.limit_decision d WHERE d.limit_id = l.limit_id GROUP BY 1, 2, 3) d ON true;
COMMENT ON VIEW loyalty.bi_limit IS 'Velocity limits and what they decided in each month; a limit that was never reached has one row without a month';

CREATE VIEW loyalty.bi_review AS
    SELECT a.program_id, a.reason, a.band, a.days_from::bigint AS days_from, a.waiting, a.currency, a.amount, (a.oldest AT TIME ZONE p.time_zone)::date AS oldest_on
    FROM loyalty.review_ageing a JOIN loyalty.program p USING (program_id);
COMMENT ON VIEW loyalty.bi_review IS 'Awards that wait for a person: how many, why and how long';

CREATE VIEW loyalty.bi_activity AS
    SELECT m.program_id, date_trunc('month', v.occurred_at AT TIME ZONE p.time_zone)::date AS month, v.kind, count(*) AS activities, count(DISTINCT v.member_id) AS members, round(avg(v.value), 4) AS mean_value,
           loyalty.nps(v.value::integer) FILTER (WHERE v.kind ~ '(^|_)nps(_|$)' AND v.value BETWEEN 0 AND 10 AND v.value = trunc(v.value)) AS nps,
           coalesce(sum(e.points), 0)::numeric AS points
    FROM loyalty.activity v JOIN loyalty.member m USING (member_id) JOIN loyalty.program p USING (program_id)
         LEFT JOIN LATERAL (SELECT sum(n.points) AS points FROM loyalty.entry n WHERE n.source_id = v.activity_id) e ON true
    WHERE v.status = 'completed'
    GROUP BY m.program_id, 2, v.kind;
COMMENT ON VIEW loyalty.bi_activity IS 'Activities by month and kind, with the points they gave; nps is of kinds named nps, answers from 0 to 10 in value';

CREATE VIEW loyalty.bi_staff AS
    SELECT c.program_id, c.day, c.cashier, c.redemptions, c.points::numeric AS points, c.adjustments, c.adjusted::numeric AS adjusted, c.members,
           round(c.top_member_points / nullif(c.handled, 0), 4) AS top_member_share, u.findings IS NOT NULL AS unusual, u.findings
    FROM loyalty.cashier_activity c LEFT JOIN loyalty.unusual_cashiers u USING (program_id, cashier, day);
COMMENT ON VIEW loyalty.bi_staff IS 'What each cashier redeemed and adjusted on each day, and the days that stand out';
