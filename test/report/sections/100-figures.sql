-- title: Figures
-- chapter: At a glance
-- view: bi_program bi_member bi_breakage bi_liability bi_rfm
-- chart: tiles
SELECT v.label, v.value, v.format, v.note
FROM (SELECT * FROM loyalty.bi_program WHERE program_id = :program) g
     CROSS JOIN (SELECT count(*) FILTER (WHERE status = 'active') AS members FROM loyalty.bi_member WHERE program_id = :program AND NOT household) m
     CROSS JOIN (SELECT count(*) FILTER (WHERE recency_days <= 90) AS lately FROM loyalty.bi_rfm WHERE program_id = :program) r
     LEFT JOIN (SELECT outstanding, breakage_rate, spent_rate FROM loyalty.bi_breakage WHERE program_id = :program ORDER BY month DESC LIMIT 1) b ON true
     CROSS JOIN (SELECT sum(cost) AS cost FROM loyalty.bi_liability WHERE program_id = :program) l
     CROSS JOIN LATERAL (VALUES
        (1, 'Members', m.members::numeric, 'count', format('{count %s} bought so far', g.buyers)),
        (2, 'Bought in the last 90 days', r.lately, 'count', format('{percent %s} of all who ever did', round(r.lately / nullif(g.buyers, 0)::numeric, 4))),
        (3, 'Net sales', g.net_amount, 'money', format('{money %s} before returns', g.amount)),
        (4, 'Purchases', g.purchases, 'count', format('{count %s} by guests', g.guest_purchases)),
        (5, 'Average order', g.average_order, 'money', NULL),
        (6, 'Come a second time', g.repeat_rate, 'percent', format('{count %s} members', g.repeat_buyers)),
        (7, 'The best fifth brings', g.top_fifth_share, 'percent', format('Gini %s', round(g.gini, 2))),
        (8, 'Points on the books', b.outstanding, 'points', 'worth {money ' || l.cost || '}'),
        (9, 'Points spent', b.spent_rate, 'percent', 'of all that was given'),
        (10, 'Points that died', b.breakage_rate, 'percent', 'of all that was given')) v (n, label, value, format, note)
WHERE v.value IS NOT NULL ORDER BY v.n
