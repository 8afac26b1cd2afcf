/*
 * bi, continued: what is sold and to whom, from what refresh_analysis keeps.
 * Views that tell of persons, or of groups made of their histories, leave out
 * whom analysis_subject leaves out.  They are security barriers: a reader's own
 * function in a query's WHERE shall not be shown the rows before that.
 */
CREATE VIEW loyalty.bi_program WITH (security_barrier) AS
    SELECT g.program_id, g.name AS program, g.currency, g.points_name, g.point_value, a.as_of, coalesce(d.purchases, 0)::bigint AS purchases, coalesce(d.guest_purchases, 0)::bigint AS guest_purchases,
           coalesce(d.amount, 0) AS amount, coalesce(d.returned, 0) AS returned, coalesce(d.amount - d.returned, 0) AS net_amount, round(d.amount / nullif(d.purchases, 0), 6) AS average_order,
           m.buyers, m.repeat_buyers, round(m.repeat_buyers / nullif(m.buyers, 0)::numeric, 9) AS repeat_rate, round(m.repeat_day_buyers / nullif(m.buyers, 0)::numeric, 9) AS repeat_day_rate,
           round(m.top_share, 9) AS top_fifth_share, round(m.gini::numeric, 9) AS gini
    FROM loyalty.program g JOIN loyalty.analysis_policy a USING (program_id)
         LEFT JOIN LATERAL (SELECT sum(d.purchases) AS purchases, sum(d.guest_purchases) AS guest_purchases, sum(d.amount) AS amount, sum(d.returned) AS returned
                            FROM loyalty.analysis_day d WHERE d.program_id = g.program_id) d ON true
         CROSS JOIN LATERAL (SELECT count(*) AS buyers, count(*) FILTER (WHERE m.purchases >= 2) AS repeat_buyers, count(*) FILTER (WHERE m.days >= 2) AS repeat_day_buyers,
                                    loyalty.pareto_share(m.amount, 0.2) AS top_share, loyalty.gini(m.amount::double precision) AS gini
                             FROM loyalty.analysis_member m JOIN loyalty.analysis_subject s USING (member_id) WHERE m.program_id = g.program_id) m;
COMMENT ON VIEW loyalty.bi_program IS 'Each programme in one row: sales, buyers, how many come again, how much the best fifth brings';

CREATE VIEW loyalty.bi_day AS
    SELECT d.program_id, d.day, d.store, d.channel, d.purchases, d.guest_purchases, d.members, d.lines, d.quantity, d.amount, d.guest_amount, d.returns, d.returned, d.amount - d.returned AS net_amount,
           round(d.amount / nullif(d.purchases, 0), 6) AS average_order
    FROM loyalty.analysis_day d;
COMMENT ON VIEW loyalty.bi_day IS 'Daily activity by store and channel; returns count on the day on which they came back';

CREATE VIEW loyalty.bi_month AS
    WITH sales AS (
        SELECT d.program_id, date_trunc('month', d.day)::date AS month, sum(d.purchases)::bigint AS purchases, sum(d.guest_purchases)::bigint AS guest_purchases, sum(d.lines)::bigint AS lines,
               sum(d.quantity) AS quantity, sum(d.amount) AS amount, sum(d.guest_amount) AS guest_amount, sum(d.returns)::bigint AS returns, sum(d.returned) AS returned
        FROM loyalty.analysis_day d GROUP BY 1, 2),
    buyers AS (SELECT m.program_id, m.month, count(*) AS members FROM loyalty.analysis_member_month m GROUP BY 1, 2),
    fresh AS (SELECT m.program_id, date_trunc('month', m.first_day)::date AS month, count(*) AS new_buyers FROM loyalty.analysis_member m GROUP BY 1, 2)
    SELECT s.program_id, s.month, s.purchases, s.guest_purchases, coalesce(b.members, 0) AS members, coalesce(f.new_buyers, 0) AS new_buyers, s.lines, s.quantity, s.amount, s.guest_amount,
           s.returns, s.returned, s.amount - s.returned AS net_amount, round(s.amount / nullif(s.purchases, 0), 6) AS average_order
    FROM sales s LEFT JOIN buyers b USING (program_id, month) LEFT JOIN fresh f USING (program_id, month);
COMMENT ON VIEW loyalty.bi_month IS 'Sales by month, members who bought in it and those who bought for the first time';

CREATE VIEW loyalty.bi_store AS
    WITH sales AS (
        SELECT d.program_id, d.store, sum(d.purchases)::bigint AS purchases, sum(d.guest_purchases)::bigint AS guest_purchases, sum(d.lines)::bigint AS lines, sum(d.quantity) AS quantity,
               sum(d.amount) AS amount, sum(d.guest_amount) AS guest_amount, sum(d.returns)::bigint AS returns, sum(d.returned) AS returned, min(d.day) FILTER (WHERE d.purchases > 0) AS first_day, max(d.day) FILTER (WHERE d.purchases > 0) AS last_day
        FROM loyalty.analysis_day d GROUP BY 1, 2),
    buyers AS (SELECT m.program_id, m.store, count(DISTINCT m.member_id) AS members FROM loyalty.analysis_member_store m GROUP BY 1, 2)
    SELECT s.program_id, s.store, s.purchases, s.guest_purchases, coalesce(b.members, 0) AS members, s.lines, s.quantity, s.amount, s.guest_amount, s.returns, s.returned, s.amount - s.returned AS net_amount,
           round(s.amount / nullif(s.purchases, 0), 6) AS average_order, s.first_day, s.last_day
    FROM sales s LEFT JOIN buyers b ON b.program_id = s.program_id AND b.store IS NOT DISTINCT FROM s.store;
COMMENT ON VIEW loyalty.bi_store IS 'Sales and members of each store';

CREATE VIEW loyalty.bi_channel AS
    WITH sales AS (
        SELECT d.program_id, d.channel, sum(d.purchases)::bigint AS purchases, sum(d.guest_purchases)::bigint AS guest_purchases, sum(d.lines)::bigint AS lines, sum(d.quantity) AS quantity,
               sum(d.amount) AS amount, sum(d.guest_amount) AS guest_amount, sum(d.returns)::bigint AS returns, sum(d.returned) AS returned, min(d.day) FILTER (WHERE d.purchases > 0) AS first_day, max(d.day) FILTER (WHERE d.purchases > 0) AS last_day
        FROM loyalty.analysis_day d GROUP BY 1, 2),
    buyers AS (SELECT m.program_id, m.channel, count(DISTINCT m.member_id) AS members FROM loyalty.analysis_member_store m GROUP BY 1, 2)
    SELECT s.program_id, s.channel, s.purchases, s.guest_purchases, coalesce(b.members, 0) AS members, s.lines, s.quantity, s.amount, s.guest_amount, s.returns, s.returned, s.amount - s.returned AS net_amount,
           round(s.amount / nullif(s.purchases, 0), 6) AS average_order, s.first_day, s.last_day
    FROM sales s LEFT JOIN buyers b ON b.program_id = s.program_id AND b.channel IS NOT DISTINCT FROM s.channel;
COMMENT ON VIEW loyalty.bi_channel IS 'Sales and members of each channel';

CREATE VIEW loyalty.bi_category AS
    WITH sales AS (
        SELECT d.program_id, d.name, sum(d.purchases)::bigint AS purchases, sum(d.lines)::bigint AS lines, sum(d.quantity) AS quantity, sum(d.amount) AS amount, min(d.day) AS first_day, max(d.day) AS last_day
        FROM loyalty.analysis_part_day d WHERE d.kind = 'category' GROUP BY 1, 2),
    buyers AS (SELECT m.program_id, m.name, count(*) AS members, count(*) FILTER (WHERE m.purchases >= 2) AS repeat_buyers FROM loyalty.analysis_member_part m WHERE m.kind = 'category' GROUP BY 1, 2)
    SELECT s.program_id, nullif(s.name, '') AS category, s.purchases, coalesce(b.members, 0) AS members, coalesce(b.repeat_buyers, 0) AS repeat_buyers, s.lines, s.quantity, s.amount,
           round(s.amount / nullif(sum(s.amount) OVER (PARTITION BY s.program_id), 0), 6) AS amount_share, s.first_day, s.last_day
    FROM sales s LEFT JOIN buyers b USING (program_id, name);
COMMENT ON VIEW loyalty.bi_category IS 'Sales of each category of articles and the members who buy in it; NULL: articles of none';

CREATE VIEW loyalty.bi_category_month AS
    SELECT d.program_id, date_trunc('month', d.day)::date AS month, nullif(d.name, '') AS category, sum(d.purchases)::bigint AS purchases, sum(d.lines)::bigint AS lines, sum(d.quantity) AS quantity, sum(d.amount) AS amount
    FROM loyalty.analysis_part_day d WHERE d.kind = 'category' GROUP BY 1, 2, d.name;
COMMENT ON VIEW loyalty.bi_category_month IS 'The same by month';

CREATE VIEW loyalty.bi_brand AS
    WITH sales AS (
        SELECT d.program_id, d.name, sum(d.purchases)::bigint AS purchases, sum(d.lines)::bigint AS lines, sum(d.quantity) AS quantity, sum(d.amount) AS amount, min(d.day) AS first_day, max(d.day) AS last_day
        FROM loyalty.analysis_part_day d WHERE d.kind = 'brand' GROUP BY 1, 2),
    buyers AS (SELECT m.program_id, m.name, count(*) AS members, count(*) FILTER (WHERE m.purchases >= 2) AS repeat_buyers FROM loyalty.analysis_member_part m WHERE m.kind = 'brand' GROUP BY 1, 2)
    SELECT s.program_id, s.name AS brand, s.purchases, coalesce(b.members, 0) AS members, coalesce(b.repeat_buyers, 0) AS repeat_buyers, s.lines, s.quantity, s.amount,
           round(s.amount / nullif(sum(s.amount) OVER (PARTITION BY s.program_id), 0), 6) AS amount_share, s.first_day, s.last_day
    FROM sales s LEFT JOIN buyers b USING (program_id, name);
COMMENT ON VIEW loyalty.bi_brand IS 'Sales of each brand and the members who buy it';

CREATE VIEW loyalty.bi_affinity AS
    WITH whole AS (SELECT d.program_id, sum(d.purchases) AS purchases FROM loyalty.analysis_day d GROUP BY 1),
    part AS (SELECT d.program_id, d.kind, d.name, sum(d.purchases) AS purchases FROM loyalty.analysis_part_day d GROUP BY 1, 2, 3),
    pair AS (SELECT d.program_id, d.kind, d.name, d.other, sum(d.purchases) AS purchases FROM loyalty.analysis_pair_day d GROUP BY 1, 2, 3, 4)
    SELECT p.program_id, p.kind, p.name, p.other, w.purchases::bigint AS baskets, a.purchases::bigint AS with_name, b.purchases::bigint AS with_other, p.purchases::bigint AS with_both,
           round(p.purchases / w.purchases, 9) AS support, round(p.purchases / a.purchases, 9) AS confidence, round(p.purchases / b.purchases, 9) AS confidence_back,
           round(p.purchases * w.purchases / (a.purchases * b.purchases), 9) AS lift
    FROM pair p JOIN whole w USING (program_id) JOIN part a USING (program_id, kind, name) JOIN part b ON b.program_id = p.program_id AND b.kind = p.kind AND b.name = p.other;
COMMENT ON VIEW loyalty.bi_affinity IS 'Categories, and brands, that are bought in one basket: how often, and how much more often than by chance';

CREATE VIEW loyalty.bi_return AS
    SELECT r.program_id, date_trunc('month', r.day)::date AS month, r.store, r.reason, count(*) AS returns, count(DISTINCT r.purchase_id) AS purchases, count(DISTINCT r.member_id) AS members,
           sum(r.amount) AS returned, count(*) FILTER (WHERE r.complete) AS complete, round(avg(r.days_after), 2) AS mean_days
    FROM loyalty.analysis_return r GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW loyalty.bi_return IS 'Returns by the month in which they came back, store and reason';

CREATE VIEW loyalty.bi_pareto WITH (security_barrier) AS
    WITH value AS (
        SELECT m.program_id, v.measure, v.amount
        FROM loyalty.analysis_member m JOIN loyalty.analysis_subject s USING (member_id) CROSS JOIN LATERAL (VALUES ('gross', m.amount), ('net', m.amount - m.returned)) v (measure, amount)),
    curve AS (SELECT v.program_id, v.measure, count(*) AS n, sum(v.amount) AS total, loyalty.pareto_curve(v.amount) AS shares FROM value v GROUP BY 1, 2)
    SELECT c.program_id, c.measure, p.percent::numeric AS top_percent, ceil(c.n * p.percent / 100.0)::bigint AS members, round(c.shares[p.percent] * c.total, 4) AS amount, c.total, round(c.shares[p.percent], 9) AS share
    FROM curve c CROSS JOIN generate_series(1, 100) p (percent);
COMMENT ON VIEW loyalty.bi_pareto IS 'What the best 1, 2 ... 100 per cent of the members who bought bring, gross and net of returns';

CREATE VIEW loyalty.bi_frequency WITH (security_barrier) AS
    SELECT m.program_id, m.purchases, count(*) AS members, round(count(*) / sum(count(*)) OVER (PARTITION BY m.program_id), 6) AS member_share, sum(m.amount) AS amount
    FROM loyalty.analysis_member m JOIN loyalty.analysis_subject s USING (member_id) GROUP BY m.program_id, m.purchases;
COMMENT ON VIEW loyalty.bi_frequency IS 'How many members bought so many times';

CREATE VIEW loyalty.bi_rfm WITH (security_barrier) AS
    SELECT x.program_id, x.member_id, x.as_of, x.last_day, (x.as_of - x.last_day)::bigint AS recency_days, x.purchases AS frequency, x.amount AS monetary, x.amount - x.returned AS net_amount,
           ntile(5) OVER (PARTITION BY x.program_id ORDER BY x.last_day, x.member_id)::bigint AS r_ntile,
           ntile(5) OVER (PARTITION BY x.program_id ORDER BY x.purchases, x.member_id)::bigint AS f_ntile,
           ntile(5) OVER (PARTITION BY x.program_id ORDER BY x.amount, x.member_id)::bigint AS m_ntile,
           -- the ceiling of 5 * cume_dist(), in integers: the peers' frame ends with the last peer
           (5 * count(*) OVER (PARTITION BY x.program_id ORDER BY x.last_day) + x.n - 1) / x.n AS r_cume,
           (5 * count(*) OVER (PARTITION BY x.program_id ORDER BY x.purchases) + x.n - 1) / x.n AS f_cume,
           (5 * count(*) OVER (PARTITION BY x.program_id ORDER BY x.amount) + x.n - 1) / x.n AS m_cume
    FROM (SELECT m.*, p.as_of, count(*) OVER (PARTITION BY m.program_id) AS n
          FROM loyalty.analysis_member m JOIN loyalty.analysis_subject s USING (member_id) JOIN loyalty.analysis_policy p ON p.program_id = m.program_id) x;
COMMENT ON VIEW loyalty.bi_rfm IS 'Recency, frequency and gross spend of each member who bought, with scores from 1 to 5 (best) by both usual rules: equal fifths, where ties are cut by member, and by cumulative distribution, where ties share a score';

CREATE VIEW loyalty.bi_rfm_cell AS
    SELECT r.program_id, m.method, m.r, m.f, m.m, count(*) AS members, sum(r.monetary) AS amount, sum(r.net_amount) AS net_amount, round(avg(r.recency_days), 2) AS mean_recency_days
    FROM loyalty.bi_rfm r CROSS JOIN LATERAL (VALUES ('ntile', r.r_ntile, r.f_ntile, r.m_ntile), ('cume', r.r_cume, r.f_cume, r.m_cume)) m (method, r, f, m)
    GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW loyalty.bi_rfm_cell IS 'Members and spend of each RFM cell, by both rules';

CREATE VIEW loyalty.bi_segment AS
    SELECT x.program_id, x.segment, count(*) AS members, sum(x.monetary) AS amount, round(avg(x.recency_days), 2) AS mean_recency_days, round(avg(x.frequency), 4) AS mean_purchases
    FROM (SELECT r.*, CASE WHEN r.r_cume >= 4 AND r.f_cume >= 4 THEN 'champions' WHEN r.f_cume >= 4 AND r.r_cume <= 2 THEN 'at risk' WHEN r.f_cume >= 4 THEN 'loyal'
                           WHEN r.r_cume >= 4 AND r.frequency = 1 THEN 'new' WHEN r.r_cume >= 4 THEN 'promising' WHEN r.r_cume = 3 THEN 'needs attention'
                           WHEN r.m_cume >= 4 THEN 'big spenders gone' ELSE 'hibernating' END AS segment
          FROM loyalty.bi_rfm r) x
    GROUP BY 1, 2;
COMMENT ON VIEW loyalty.bi_segment IS 'Members by named segments of the RFM scores by cumulative distribution';

CREATE VIEW loyalty.bi_cohort WITH (security_barrier) AS
    WITH active AS (
        SELECT m.program_id, date_trunc('month', b.first_day)::date AS cohort, m.month, count(*) AS members, sum(m.purchases) AS purchases, sum(m.amount) AS amount
        FROM loyalty.analysis_member_month m JOIN loyalty.analysis_member b USING (member_id) JOIN loyalty.analysis_subject s USING (member_id)
        GROUP BY 1, 2, 3)
    SELECT a.program_id, a.cohort, a.month, (12 * (extract(year FROM a.month) - extract(year FROM a.cohort)) + extract(month FROM a.month) - extract(month FROM a.cohort))::bigint AS month_offset,
           a.members, f.members AS cohort_members, round(a.members / f.members::numeric, 6) AS retention, a.purchases::bigint AS purchases, a.amount
    FROM active a JOIN active f ON f.program_id = a.program_id AND f.cohort = a.cohort AND f.month = f.cohort;
COMMENT ON VIEW loyalty.bi_cohort IS 'Members by the month of their first purchase, and how many of them bought again in each month after it';

CREATE VIEW loyalty.bi_ladder WITH (security_barrier) AS
    SELECT x.program_id, x.step, x.members, round(x.members / nullif(x.before, 0)::numeric, 6) AS rate, round(x.members / nullif(x.buyers, 0)::numeric, 6) AS rate_of_all, x.mean_days, x.median_days
    FROM (SELECT m.program_id, l.step, count(l.day) AS members, count(l.previous) AS before, count(*) AS buyers, round(avg(l.day - l.previous), 2) AS mean_days,
                 (percentile_disc(0.5) WITHIN GROUP (ORDER BY l.day - l.previous))::bigint AS median_days
          FROM loyalty.analysis_member m JOIN loyalty.analysis_subject s USING (member_id)
               CROSS JOIN LATERAL (VALUES (1::bigint, m.first_day, m.first_day), (2, m.second_day, m.first_day), (3, m.third_day, m.second_day)) l (step, day, previous)
          GROUP BY 1, 2) x;
COMMENT ON VIEW loyalty.bi_ladder IS 'First, second and third purchase: how many members come so far, and after how many days';

CREATE VIEW loyalty.bi_cadence WITH (security_barrier) AS
    SELECT m.program_id, m.member_id, p.as_of, m.purchases, m.days AS purchase_days, m.first_day, m.last_day, c.mean_interval, (m.last_day + ceil(c.mean_interval)::integer) AS next_expected_on,
           (p.as_of - m.last_day)::bigint AS recency_days, round((p.as_of - m.last_day) / nullif(c.mean_interval, 0), 4) AS intervals_missed,
           coalesce(p.as_of - m.last_day > p.lapse_factor * c.mean_interval, false) AS overdue, p.as_of - m.last_day > p.lapse_days AS lapsed
    FROM loyalty.analysis_member m JOIN loyalty.analysis_subject s USING (member_id) JOIN loyalty.analysis_policy p ON p.program_id = m.program_id
         CROSS JOIN LATERAL (SELECT CASE WHEN m.days >= 3 THEN round((m.last_day - m.first_day) / (m.days - 1)::numeric, 4) END AS mean_interval) c;
COMMENT ON VIEW loyalty.bi_cadence IS 'Each member''s own rhythm (from three days with purchases), when the next purchase is expected, and the lapse that follows from it';

CREATE VIEW loyalty.bi_category_cadence WITH (security_barrier) AS
    SELECT x.program_id, x.member_id, x.category, x.as_of, x.purchase_days, x.first_day, x.last_day, x.mean_interval, x.last_day + ceil(x.mean_interval)::integer AS next_expected_on,
           x.recency_days, coalesce(x.recency_days > x.lapse_factor * x.mean_interval, false) AS overdue
    FROM (SELECT m.program_id, m.member_id, nullif(m.name, '') AS category, p.as_of, p.lapse_factor, m.days AS purchase_days, m.first_day, m.last_day, (p.as_of - m.last_day)::bigint AS recency_days,
                 CASE WHEN m.days >= 3 THEN round((m.last_day - m.first_day) / (m.days - 1)::numeric, 4) END AS mean_interval
          FROM loyalty.analysis_member_part m JOIN loyalty.analysis_subject s USING (member_id) JOIN loyalty.analysis_policy p ON p.program_id = m.program_id WHERE m.kind = 'category') x;
COMMENT ON VIEW loyalty.bi_category_cadence IS 'The same for each category that a member buys: whose coffee is due';

CREATE VIEW loyalty.bi_churn WITH (security_barrier) AS
    WITH recent AS (
        SELECT f.member_id, sum(f.amount) FILTER (WHERE f.day >= p.as_of - p.compare_days) AS last_amount, sum(f.amount) FILTER (WHERE f.day < p.as_of - p.compare_days) AS before_amount,
               count(*) FILTER (WHERE f.day >= p.as_of - p.compare_days) AS last_purchases, count(*) FILTER (WHERE f.day < p.as_of - p.compare_days) AS before_purchases,
               sum(f.returned) FILTER (WHERE f.day >= p.as_of - p.compare_days) AS last_returned
        FROM loyalty.analysis_policy p JOIN loyalty.analysis_purchase f ON f.program_id = p.program_id AND f.day >= p.as_of - 2 * p.compare_days AND f.day < p.as_of
        WHERE f.member_id IS NOT NULL GROUP BY f.member_id),
    signal AS (
        SELECT m.program_id, m.member_id, p.as_of, m.purchases, m.amount, m.last_day, (p.as_of - m.last_day)::bigint AS recency_days, c.mean_interval, p.lapse_days, p.lapse_factor,
               p.as_of - m.last_day > p.lapse_days AS lapsed,
               coalesce(p.as_of - m.last_day > p.lapse_factor * c.mean_interval, false) AS overdue,
               m.purchases = 1 AND p.as_of - m.last_day > p.lapse_days AS never_came_back,
               coalesce(r.before_purchases >= 2 AND 2 * r.last_purchases <= r.before_purchases, false) AS buys_less_often,
               coalesce(r.before_amount > 0 AND 2 * coalesce(r.last_amount, 0) <= r.before_amount, false) AS spends_less,
               coalesce(r.last_amount > 0 AND 2 * r.last_returned > r.last_amount, false) AS returns_much,
               coalesce(d.direction = 'down', false) AS tier_lost
        FROM loyalty.analysis_member m JOIN loyalty.analysis_subject s USING (member_id) JOIN loyalty.analysis_policy p ON p.program_id = m.program_id
             CROSS JOIN LATERAL (SELECT CASE WHEN m.days >= 3 THEN round((m.last_day - m.first_day) / (m.days - 1)::numeric, 4) END AS mean_interval) c
             LEFT JOIN recent r ON r.member_id = m.member_id
             LEFT JOIN LATERAL (
                 SELECT CASE WHEN coalesce(t.rank, 0) < coalesce((SELECT o.rank FROM loyalty.tier_change e LEFT JOIN loyalty.tier o ON o.tier_id = e.tier_id
                                  WHERE e.account_id = x.account_id AND e.number < x.number ORDER BY e.number DESC LIMIT 1), 0) THEN 'down' END AS direction
                 FROM loyalty.tier_change x LEFT JOIN loyalty.tier t ON t.tier_id = x.tier_id
                 WHERE x.account_id = m.member_id AND x.changed_at >= p.as_of - p.compare_days ORDER BY x.number DESC LIMIT 1) d ON true)
    SELECT g.program_id, g.member_id, g.as_of, g.purchases, g.amount, g.last_day, g.recency_days, g.mean_interval, g.lapsed, g.overdue, g.never_came_back, g.buys_less_often, g.spends_less, g.returns_much, g.tier_lost,
           (g.lapsed::integer + g.overdue::integer + g.never_came_back::integer + g.buys_less_often::integer + g.spends_less::integer + g.returns_much::integer + g.tier_lost::integer)::bigint AS signals,
           nullif(concat_ws('; ',
               CASE WHEN g.never_came_back THEN format('bought once, %s days ago', g.recency_days) WHEN g.lapsed THEN format('no purchase for %s days, more than %s', g.recency_days, g.lapse_days) END,
               CASE WHEN g.overdue THEN format('%s days without a purchase, usually buys every %s', g.recency_days, round(g.mean_interval, 1)) END,
               CASE WHEN g.buys_less_often THEN 'buys half as often as before, or less' END,
               CASE WHEN g.spends_less THEN 'spends half as much as before, or less' END,
               CASE WHEN g.returns_much THEN 'sent back more than half of the last purchases' END,
               CASE WHEN g.tier_lost THEN 'lost a tier' END), '') AS reasons
    FROM signal g;
COMMENT ON VIEW loyalty.bi_churn IS 'Signs that a member is leaving, by name, and in words';

CREATE VIEW loyalty.bi_churn_reason AS
    WITH churn AS MATERIALIZED (SELECT * FROM loyalty.bi_churn)
    SELECT c.program_id, r.reason, count(*) FILTER (WHERE r.holds) AS members, round(count(*) FILTER (WHERE r.holds) / count(*)::numeric, 6) AS member_share, coalesce(sum(c.amount) FILTER (WHERE r.holds), 0) AS amount
    FROM churn c
         CROSS JOIN LATERAL (VALUES ('lapsed', c.lapsed), ('overdue', c.overdue), ('never came back', c.never_came_back), ('buys less often', c.buys_less_often), ('spends less', c.spends_less),
                                    ('returns much', c.returns_much), ('tier lost', c.tier_lost), ('none', c.signals = 0)) r (reason, holds)
    GROUP BY 1, 2;
COMMENT ON VIEW loyalty.bi_churn_reason IS 'How many members show each sign of leaving, and what they had spent in all';

CREATE VIEW loyalty.bi_before_after WITH (security_barrier) AS
    WITH event AS (
        SELECT m.program_id, 'join' AS event, 'joined' AS name, m.member_id, (m.joined_at AT TIME ZONE g.time_zone)::date AS day
        FROM loyalty.member m JOIN loyalty.program g USING (program_id)
        UNION ALL
        SELECT a.program_id, 'tier', t.name, c.account_id, min((c.changed_at AT TIME ZONE g.time_zone)::date)
        FROM loyalty.tier_change c JOIN loyalty.account a USING (account_id) JOIN loyalty.program g USING (program_id) JOIN loyalty.tier t ON t.tier_id = c.tier_id
        WHERE t.rank > 1 GROUP BY 1, 3, 4
        UNION ALL
        SELECT a.program_id, 'campaign', r.rule, r.account_id, min((r.occurred_at AT TIME ZONE g.time_zone)::date)
        FROM loyalty.entry_rule r JOIN loyalty.account a USING (account_id) JOIN loyalty.program g USING (program_id) JOIN loyalty.rule_version v USING (rule_version_id)
        WHERE v.active_from > '-infinity' OR v.active_until < 'infinity' GROUP BY 1, 3, 4)
    SELECT e.program_id, e.event, e.name, p.compare_days::bigint AS days, count(DISTINCT e.member_id) AS members, count(f.purchase_id) FILTER (WHERE f.day < e.day) AS purchases_before, count(f.purchase_id) FILTER (WHERE f.day >= e.day) AS purchases_after,
           coalesce(sum(f.amount) FILTER (WHERE f.day < e.day), 0) AS amount_before, coalesce(sum(f.amount) FILTER (WHERE f.day >= e.day), 0) AS amount_after,
           round(avg(f.amount) FILTER (WHERE f.day < e.day), 6) AS average_order_before, round(avg(f.amount) FILTER (WHERE f.day >= e.day), 6) AS average_order_after
    FROM event e JOIN loyalty.analysis_policy p ON p.program_id = e.program_id AND e.day <= p.as_of - p.compare_days
         JOIN loyalty.analysis_subject s USING (member_id)
         LEFT JOIN loyalty.analysis_purchase f ON f.member_id = e.member_id AND f.day >= e.day - p.compare_days AND f.day < e.day + p.compare_days
    GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW loyalty.bi_before_after IS 'Purchases and the average order in as many days before and after members joined, reached a tier for the first time or were given points by a campaign for the first time; only where the days after have passed';

CREATE VIEW loyalty.bi_value WITH (security_barrier) AS
    SELECT m.program_id, m.member_id, l.as_of, l.horizon_days::bigint AS horizon_days, m.days - 1 AS repeat_days, round((m.last_day - m.first_day) / 7.0, 4) AS weeks_active, round((l.as_of - m.first_day) / 7.0, 4) AS weeks_known,
           round(e.alive::numeric, 6) AS alive, round(e.purchases::numeric, 6) AS expected_purchases, round(e.worth::numeric, 4) AS expected_order, round((e.purchases * e.worth)::numeric, 4) AS expected_amount
    FROM loyalty.analysis_model l JOIN loyalty.analysis_member m USING (program_id) JOIN loyalty.analysis_subject s USING (member_id)
         CROSS JOIN LATERAL (
             SELECT loyalty.bgnbd_alive((l.buying).r, (l.buying).alpha, (l.buying).a, (l.buying).b, (m.days - 1)::double precision, (m.last_day - m.first_day) / 7.0::double precision, (l.as_of - m.first_day) / 7.0::double precision) AS alive,
                    loyalty.bgnbd_expected((l.buying).r, (l.buying).alpha, (l.buying).a, (l.buying).b, (m.days - 1)::double precision, (m.last_day - m.first_day) / 7.0::double precision, (l.as_of - m.first_day) / 7.0::double precision,
                                           l.horizon_days / 7.0::double precision) AS purchases,
                    CASE WHEN m.amount > m.returned THEN loyalty.gamma_gamma_mean((l.spending).p, (l.spending).q, (l.spending).v, m.days::double precision, ((m.amount - m.returned) / m.days)::double precision) END AS worth) e
    WHERE m.last_day <= l.as_of;
COMMENT ON VIEW loyalty.bi_value IS 'What each member is expected to bring: the probability of still being a customer and the expected days with purchases (BG/NBD), and what such a day is worth (gamma-gamma)';

CREATE VIEW loyalty.bi_value_model AS
    SELECT l.program_id, l.as_of, l.horizon_days::bigint AS horizon_days, (l.buying).customers AS members, (l.buying).r::numeric AS r, (l.buying).alpha::numeric AS alpha, (l.buying).a::numeric AS a, (l.buying).b::numeric AS b,
           (l.buying).log_likelihood::numeric AS buying_log_likelihood, (l.buying).converged AS buying_converged, (l.spending).customers AS spenders, (l.spending).p::numeric AS p, (l.spending).q::numeric AS q, (l.spending).v::numeric AS v,
           (l.spending).log_likelihood::numeric AS spending_log_likelihood, (l.spending).converged AS spending_converged
    FROM loyalty.analysis_model l;
COMMENT ON VIEW loyalty.bi_value_model IS 'The fitted models that bi_value goes by; time in weeks';

CREATE VIEW loyalty.bi_freshness AS
    SELECT c.relname::text AS view_name, obj_description(c.oid, 'pg_class') AS answers, k.kept, CASE WHEN k.folded THEN f.fresh_at WHEN k.kept THEN r.fresh_at ELSE now() END AS fresh_at,
           CASE WHEN k.folded THEN f.finished_at WHEN k.kept THEN r.finished_at END AS refreshed_at,
           k.kept AND CASE WHEN k.folded THEN coalesce(f.started_at > f.finished_at, f.started_at IS NOT NULL) ELSE r.position IS NOT NULL END AS refreshing
    FROM pg_class c
         -- those that read the ledger and its rooms themselves; the others read what refresh_analysis or fold_copurchase keeps
         CROSS JOIN LATERAL (SELECT c.relname <> ALL ('{bi_member,bi_membership,bi_tier,bi_tier_movement,bi_points_flow,bi_liability,bi_partner_liability,bi_breakage,bi_rule,bi_rule_month,bi_reward,bi_redemption,bi_voucher,bi_coupon,bi_stamp_card,bi_challenge,bi_referral,bi_limit,bi_review,bi_activity,bi_staff}') AS kept, c.relname = ANY ('{bi_copurchase,bi_suggestion}') AS folded) k
         LEFT JOIN loyalty.analysis_run r ON true
         LEFT JOIN loyalty.copurchase_run f ON true
    WHERE c.relnamespace = 'loyalty'::regnamespace AND c.relkind = 'v' AND c.relname LIKE E'bi\\_%' AND c.relname <> 'bi_freshness';
COMMENT ON VIEW loyalty.bi_freshness IS 'Every view for BI, what it answers and how fresh it is: kept ones by the last CALL loyalty.refresh_analysis() or loyalty.fold_copurchase() (fresh_at NULL: never), the others now';
