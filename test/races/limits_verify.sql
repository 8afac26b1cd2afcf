-- Every row that this prints is something that went wrong.
SET client_min_messages = warning;
SET jit = off;
SELECT 'refused with ' || a.state, count(*) FROM races.answer a
    WHERE NOT (a.state = '00000' OR (a.state = 'LY453' AND a.race % 3 = 2) OR (a.state = '40001' AND split_part(a.reference, '.', 1)::integer % 3 > 0)) GROUP BY a.state;
SELECT 'deadlocks', deadlocks FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0;
SELECT 'acknowledged and not there', a.* FROM races.answer a WHERE a.state = '00000' AND NOT EXISTS (SELECT FROM loyalty.purchase p WHERE p.reference = a.reference);
SELECT 'there and not acknowledged', p.reference FROM loyalty.purchase p WHERE NOT EXISTS (SELECT FROM races.answer a WHERE a.reference = p.reference AND a.state = '00000') AND NOT :crashed;
SELECT 'there and refused', a.* FROM races.answer a JOIN loyalty.purchase p USING (reference) WHERE a.state <> '00000';
SELECT 'not in the log', p.reference FROM loyalty.purchase p WHERE NOT EXISTS (SELECT FROM races.log l WHERE l.reference = p.reference);
-- what each award came to, and what each ring has of it: the counters are a replay of what is there
CREATE TEMP TABLE replayed AS
    SELECT m.program_id AS limit_id, p.attributes ->> 'card' AS subject, races.part(p.occurred_at) AS bucket,
           sum(CASE m.program_id WHEN 1 THEN (e.points > 0)::integer WHEN 2 THEN e.points ELSE p.amount * 10000 END)::bigint AS amount
    FROM loyalty.purchase p JOIN loyalty.member m USING (member_id)
        CROSS JOIN LATERAL (SELECT coalesce(sum(x.points), 0) AS points FROM loyalty.entry x WHERE x.account_id = p.member_id AND x.source_id = p.purchase_id) e
    GROUP BY 1, 2, 3;
SELECT 'ring', limit_id, subject, bucket, n.amount AS there, w.amount AS replayed
    FROM (SELECT s.limit_id, s.subject, loyalty.ring_from(s.ring) AS remembered, r.* FROM loyalty.limit_state s CROSS JOIN LATERAL loyalty.ring_sums(s.ring) r) n
        FULL JOIN (SELECT x.* FROM replayed x WHERE x.amount <> 0) w USING (limit_id, subject, bucket)
    WHERE n.amount IS DISTINCT FROM w.amount AND NOT EXISTS (SELECT FROM loyalty.limit_state s WHERE s.limit_id = w.limit_id AND s.subject = w.subject AND w.bucket < loyalty.ring_from(s.ring));
-- a purchase that was rejected would not have been within the limit in the end either, but for a part of the window
SELECT 'rejected within the limit', a.* FROM races.answer a
    WHERE a.state = 'LY453' AND NOT EXISTS (
        SELECT FROM (SELECT w.bucket, sum(w.amount) OVER (ORDER BY w.bucket RANGE BETWEEN 12 PRECEDING AND CURRENT ROW) AS used
                     FROM replayed w WHERE w.limit_id = 3 AND w.subject = 'card ' || a.race) u
        WHERE u.used + a.amount * 10000 > 700000 AND u.bucket BETWEEN races.part(a.at) - 12 AND races.part(a.at) + 24)
        AND NOT EXISTS (SELECT FROM replayed w WHERE w.limit_id = 3 AND w.subject = 'card ' || a.race AND w.bucket > races.part(a.at) + 12);
SELECT * FROM loyalty.check();
