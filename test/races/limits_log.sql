-- Every purchase that is there, for the oracle, of a card in the order in which they had it.
COPY (
    SELECT p.program, p.attributes ->> 'card', l.maximum * loyalty.limit_unit(l.measure, 0)::bigint, (extract(epoch FROM p.occurred_at) * 1000000)::bigint,
           CASE p.program WHEN 1 THEN 1 WHEN 2 THEN p.amount ELSE p.amount * 10000 END::bigint, CASE p.program WHEN 1 THEN (e.points > 0)::integer WHEN 2 THEN e.points ELSE p.amount * 10000 END::bigint,
           coalesce(d.reason, '')
    FROM (SELECT q.*, m.program_id AS program FROM loyalty.purchase q JOIN loyalty.member m USING (member_id)) p
        JOIN races.log r ON r.reference = p.reference
        JOIN loyalty.velocity_limit l ON l.program_id = p.program
        LEFT JOIN loyalty.limit_decision d ON d.source_id = p.purchase_id
        CROSS JOIN LATERAL (SELECT coalesce(sum(x.points), 0) AS points FROM loyalty.entry x WHERE x.account_id = p.member_id AND x.source_id = p.purchase_id) e
    ORDER BY 1, 2, r.n) TO STDOUT;
