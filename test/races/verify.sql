-- Every row that this prints is something that went wrong.
SET client_min_messages = warning;
SET jit = off;
SET timezone = 'UTC';
-- without an answer: of each client of a load that was cut off the first statement may have had its effect, the later ones were not sent
INSERT INTO races.lost
    SELECT DISTINCT ON (i.client) i.client, i.n FROM races.issued i
    WHERE NOT EXISTS (SELECT FROM races.answer a WHERE (a.client, a.n) = (i.client, i.n)) AND NOT EXISTS (SELECT FROM races.lost l WHERE l.client = i.client)
    ORDER BY i.client, i.n;
SELECT 'not answered', l.client, l.n FROM races.lost l WHERE NOT :crashed;
SELECT 'answered after what was lost', a.client, a.n FROM races.answer a JOIN races.lost l ON l.client = a.client AND a.n >= l.n;
-- no deadlock, no internal error, no broken constraint; to try again only where the isolation says so
SELECT 'refused with ' || a.state, i.kind, i.isolation, count(*), min(i.key) FROM races.answer a JOIN races.issued i USING (client, n)
    WHERE a.state NOT IN ('00000', 'LY401', 'LY404', 'LY411', 'LY412', 'LY414', 'LY422', 'LY423', 'LY424', 'LY425', 'LY426', 'LY102', 'LY111', 'LY112', 'LY114', 'LY116', 'LY118')
        AND NOT (a.state = '40001' AND i.isolation <> 'read committed')
        -- two purchases that name one redemption at the same moment: the second is refused when it commits
        AND NOT (a.state = '23P01' AND i.kind = 'purchase')
    GROUP BY 1, 2, 3;
SELECT 'deadlocks', deadlocks FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0;

-- every effect that is there
CREATE TEMP TABLE effect AS SELECT * FROM races.effect;
-- and every effect that was asked for, with what was answered
CREATE TEMP TABLE wanted AS
    SELECT i.kind, i.account, i.key, count(a.state) AS answers, coalesce(bool_or(a.state = '00000' AND (i.kind NOT IN ('void', 'amount') OR a.value IS NOT NULL)), false) AS done,
           bool_or(l.client IS NOT NULL) AS lost,
           count(DISTINCT (a.rid, a.value)) FILTER (WHERE a.state = '00000') AS results,
           min(a.rid) FILTER (WHERE a.state = '00000') AS rid, min(a.value) FILTER (WHERE a.state = '00000') AS value
    FROM races.issued i LEFT JOIN races.answer a USING (client, n) LEFT JOIN races.lost l USING (client, n)
    GROUP BY 1, 2, 3;
UPDATE wanted SET rid = NULL, value = NULL, results = 1 WHERE kind IN ('purchase', 'return', 'void', 'amount');
CREATE TEMP TABLE outcome AS
    SELECT w.*, e.key IS NOT NULL AS there, e.rid AS there_rid, e.value AS there_value, e.n
    FROM wanted w LEFT JOIN (SELECT kind, account, key, min(rid) AS rid, min(value) AS value, bool_or(by_itself) AS by_itself, count(*) AS n FROM effect GROUP BY 1, 2, 3) e USING (kind, account, key)
    WHERE NOT coalesce(e.by_itself AND NOT w.done, false);
SELECT 'one key, several results', w.* FROM wanted w WHERE w.results > 1;
SELECT 'acknowledged and not there', o.* FROM outcome o WHERE o.done AND NOT o.there AND o.kind <> 'amount';
SELECT 'acknowledged with another result', o.* FROM outcome o WHERE o.done AND o.there AND (o.rid, o.value) IS DISTINCT FROM (o.there_rid, o.there_value) AND o.kind NOT IN ('purchase', 'return', 'void', 'amount');
SELECT 'there and not acknowledged', o.* FROM outcome o WHERE o.there AND NOT o.done AND NOT o.lost;
SELECT 'there twice', o.* FROM outcome o WHERE o.n > 1;
SELECT 'there and never asked for', e.* FROM effect e WHERE NOT e.by_itself AND NOT EXISTS (SELECT FROM wanted w WHERE (w.kind, w.account, w.key) = (e.kind, e.account, e.key));
SELECT 'an amount that nobody set', p.reference, p.amount FROM loyalty.purchase p
    WHERE NOT EXISTS (SELECT FROM races.issued i LEFT JOIN races.answer a USING (client, n)
                      WHERE i.key = p.reference AND i.points = p.amount AND (i.kind = 'purchase' OR (i.kind = 'amount' AND coalesce(a.state, '00000') = '00000')));

-- what there is, by plain arithmetic over what was acknowledged (or was lost and is there)
CREATE TEMP TABLE flow AS
    SELECT account, CASE WHEN kind = 'undo' THEN 1 ELSE -1 END * coalesce(value, there_value) AS points FROM outcome
        WHERE (done OR there) AND kind IN ('redeem', 'capture', 'undo', 'transfer')
    UNION ALL SELECT e.account_id, e.points FROM loyalty.entry e WHERE e.kind = 'transfer' AND e.key IS NULL
    UNION ALL SELECT a.account_id, 300 + CASE WHEN a.account_id = (SELECT max(account_id) FROM loyalty.account) THEN 1000000 ELSE 0 END FROM loyalty.account a
    UNION ALL SELECT p.member_id, p.amount - coalesce((SELECT CASE WHEN bool_or(d.complete) THEN p.amount ELSE sum(d.amount) END FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id), 0)
        FROM loyalty.purchase p WHERE p.member_id IS NOT NULL AND p.status = 'completed'
    UNION ALL SELECT r.member_id, d.points_restored FROM loyalty.returned d JOIN loyalty.purchase p USING (purchase_id) JOIN loyalty.redemption r USING (redemption_id);
SELECT 'balance', a.account_id, loyalty.total(a.lots) AS there, sum(f.points) AS computed FROM loyalty.account a LEFT JOIN flow f ON f.account = a.account_id
    GROUP BY a.account_id HAVING loyalty.total(a.lots) <> sum(f.points);

-- what was spent was affordable: after a redemption or a transfer nothing is owed, and without debts never
CREATE TEMP TABLE running AS
    SELECT e.account_id, e.seq, e.kind, e.points, sum(e.points) OVER (PARTITION BY e.account_id ORDER BY e.seq) AS after FROM loyalty.entry e;
SELECT 'spent what was not there', r.* FROM running r JOIN loyalty.account a USING (account_id)
    WHERE r.after < 0 AND (a.program_id = 2 OR r.kind = 'redeem' OR (r.kind = 'transfer' AND r.points < 0));
SELECT 'a return without its entry', r.return_id, count(e) FROM loyalty.returned r JOIN loyalty.purchase p USING (purchase_id) LEFT JOIN loyalty.entry e ON e.key = 'loyalty:return ' || r.return_id
    WHERE p.member_id IS NOT NULL GROUP BY 1, r.return_id HAVING count(e) <> 1;
SELECT 'points that paid went back otherwise', e.key, e.points FROM loyalty.entry e LEFT JOIN loyalty.returned d ON e.key = 'loyalty:tender ' || d.return_id
    WHERE e.key LIKE 'loyalty:tender %' AND e.points IS DISTINCT FROM d.points_restored;
SELECT 'hold and free lots', a.account_id FROM loyalty.account a, loyalty.lots_at(a.program_id, a.lots, a.holds, a.last_event_at, now()) f, loyalty.unnest(f.free) u WHERE u.points < 0 AND (a.program_id = 2 OR isfinite(u.available_from));
SELECT * FROM loyalty.check();
SELECT 'verify', v.* FROM loyalty.verify() v;
