-- the order law of challenges: in order, in one statement and at random, with returns and voids in between, give the same progress, grants and lots
SET client_min_messages = warning;
SET synchronous_commit = off;
CREATE EXTENSION loyalty;
CREATE FUNCTION make_program(name text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE p int := loyalty.create_program(name, time_zone => 'Australia/Sydney', currency => 'AUD', hold_days => 7, expiry_months => 600);
BEGIN
    INSERT INTO loyalty.product (program_id, sku, category, excluded) SELECT p, 'S' || i, 'C' || i % 3, i % 7 = 0 FROM generate_series(1, 10) i;
    PERFORM loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.amount');
    INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT p, 'm' || i, '2024-01-01' FROM generate_series(1, 25) i;
    RETURN p;
END $$;
CREATE FUNCTION add_challenges(p integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM loyalty.add_challenge(p, 'visits', 'visits', 3, 30, 'week', active_from => '2025-01-01'),
        loyalty.add_challenge(p, 'streak', 'visits', 1, 100, 'week', 3, active_from => '2025-01-01'),
        loyalty.add_challenge(p, 'twice', 'days', 4, 200, 'month', 2, max_times => 2, active_from => '2025-01-01'),
        loyalty.add_challenge(p, 'spend', 'spend', 60, 40, 'day', active_from => '2025-01-01', condition => 'purchase.total >= 20'),
        loyalty.add_challenge(p, 'units', 'units', 14, 50, 'quarter', active_from => '2025-01-01', active_until => '2025-08-01', condition => 'product.category = ''C1'''),
        loyalty.add_challenge(p, 'lines', 'spend', 300, 70, 'year', event => 'line', active_from => '2025-01-01', condition => 'line.quantity > 1'),
        loyalty.add_challenge(p, 'points', 'points', 400, 80, 'once', active_from => '2025-02-01', badge => 'B');
END $$;
SELECT make_program('order'), make_program('statement'), make_program('random'), make_program('later') \gset ignore_
SELECT add_challenges(program_id) FROM loyalty.program WHERE name <> 'later' ORDER BY program_id \g /dev/null
CREATE TABLE basket AS SELECT i, 'm' || 1 + abs(hashint8extended(i, 1)) % 25 AS who,
    timestamptz '2024-12-30' + interval '1 minute' * (abs(hashint8extended(i, 3)) % (270 * 1440)) AS at,
    (SELECT array_agg(ROW('S' || 1 + abs(hashint8extended(i * 31 + l, 5)) % 12, 1 + abs(hashint8extended(i * 31 + l, 6)) % 4, NULL, (abs(hashint8extended(i * 31 + l, 7)) % 5000) / 100.0, NULL)::loyalty.line)
     FROM generate_series(1, 1 + abs(hashint8extended(i, 4)) % 3) l) AS lines
    FROM generate_series(1, 900) i;
ALTER TABLE basket ADD amount numeric;
UPDATE basket SET amount = (SELECT sum(amount) FROM unnest(lines));
CREATE FUNCTION member_of(p text, who text) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT member_id FROM loyalty.member JOIN loyalty.program g USING (program_id) WHERE g.name = p AND external_id = who $$;
-- what happens to basket i: its purchase, then its correction, then its return
CREATE FUNCTION happen(p text, i bigint, step integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE b basket;
BEGIN
    SELECT * INTO b FROM basket x WHERE x.i = happen.i;
    IF step = 1 THEN
        INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference) VALUES (member_of(p, b.who), b.at, b.amount, b.lines, p || b.i);
    ELSIF step = 2 AND i % 11 = 0 THEN
        UPDATE loyalty.purchase SET status = 'void' WHERE reference = p || b.i;
    ELSIF step = 2 AND i % 13 = 0 THEN
        UPDATE loyalty.purchase SET member_id = member_of(p, 'm' || 1 + i % 25), occurred_at = b.at + interval '9 days' WHERE reference = p || b.i;
    ELSIF step = 3 AND i % 11 <> 0 AND i % 7 = 0 THEN
        INSERT INTO loyalty.purchase_return (purchase_reference) VALUES (p || b.i);
    ELSIF step = 3 AND i % 11 <> 0 AND i % 5 = 0 THEN
        INSERT INTO loyalty.purchase_return (purchase_reference, lines) VALUES (p || b.i, ARRAY[ROW(1, NULL, 1, NULL)::loyalty.return_line]);
    END IF;
END $$;
SELECT happen('order', i, step) FROM basket, generate_series(1, 3) step ORDER BY at, i, step \g /dev/null
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference) SELECT member_of('statement', who), at, amount, lines, 'statement' || i FROM basket ORDER BY hashint8(i);
SELECT happen('statement', i, step) FROM basket, generate_series(2, 3) step ORDER BY step, hashint8(i) \g /dev/null
SELECT happen('random', i, step) FROM basket, generate_series(1, 3) step ORDER BY hashint8extended(i, 77) % 1000 + step * 300, i, step \g /dev/null
-- counted afterwards, by the job
SELECT happen('later', i, step) FROM basket, generate_series(1, 3) step ORDER BY hashint8(i), step \g /dev/null
SELECT 'counted without a challenge', * FROM loyalty.challenge_item i JOIN loyalty.purchase p ON p.purchase_id = i.source_id WHERE p.reference ~ '^later' LIMIT 5;
SELECT add_challenges(program_id) FROM loyalty.program WHERE name = 'later' \g /dev/null
SELECT program_id AS later FROM loyalty.program WHERE name = 'later' \gset
CALL loyalty.count_challenges(:later, 97);
CREATE VIEW outcome AS
    SELECT g.name, m.external_id, c.name AS challenge, x.period_from, p.progress, p.reached_at, coalesce(r.granted, false) AS granted
    FROM (SELECT challenge_id, member_id, period_from FROM loyalty.challenge_progress UNION SELECT challenge_id, member_id, period_from FROM loyalty.challenge_grant WHERE granted) x
        JOIN loyalty.challenge c USING (challenge_id) JOIN loyalty.program g USING (program_id) JOIN loyalty.member m USING (member_id)
        LEFT JOIN loyalty.challenge_progress p USING (challenge_id, member_id, period_from) LEFT JOIN loyalty.challenge_grant r USING (challenge_id, member_id, period_from);
SELECT 'differs', b.name, a.* FROM (SELECT * FROM outcome WHERE name = 'order') a CROSS JOIN unnest('{statement,random,later}'::text[]) b (name)
    FULL JOIN (SELECT * FROM outcome WHERE name <> 'order') o ON (o.name, o.external_id, o.challenge, o.period_from) = (b.name, a.external_id, a.challenge, a.period_from)
    WHERE (a.progress, a.reached_at, a.granted) IS DISTINCT FROM (o.progress, o.reached_at, o.granted) LIMIT 10;
SELECT 'lots differ', external_id FROM (SELECT g.name, m.external_id, loyalty.sum(e.lots)::text AS lots FROM loyalty.entry e JOIN loyalty.member m ON m.member_id = e.account_id JOIN loyalty.program g USING (program_id) WHERE e.kind = 'challenge' GROUP BY 1, 2) l
    GROUP BY 2 HAVING count(DISTINCT lots) > 1 OR count(*) <> 4;
-- against purchases alone, in plain SQL: a visit is a purchase that is neither void nor all back
WITH week AS (
    SELECT DISTINCT p.member_id, date_trunc('week', p.occurred_at AT TIME ZONE 'Australia/Sydney')::date AS w, count(*) OVER (PARTITION BY p.member_id, date_trunc('week', p.occurred_at AT TIME ZONE 'Australia/Sydney')) AS n
    FROM loyalty.purchase p WHERE p.status = 'completed' AND p.occurred_at >= '2025-01-01' AND NOT EXISTS (SELECT FROM loyalty.returned r WHERE r.purchase_id = p.purchase_id AND r.complete)),
run AS (SELECT *, w - 7 * row_number() OVER (PARTITION BY member_id ORDER BY w)::integer AS start FROM week),
wanted AS (
    SELECT member_id, 'visits' AS name, w FROM week WHERE n >= 3
    UNION ALL SELECT member_id, 'streak', w FROM (SELECT *, row_number() OVER (PARTITION BY member_id, start ORDER BY w) AS place FROM run) x WHERE place % 3 = 0)
SELECT 'not as reckoned', w.*, g.period_from FROM wanted w
    FULL JOIN (SELECT g.member_id, c.name, g.period_from FROM loyalty.challenge_grant g JOIN loyalty.challenge c USING (challenge_id) WHERE g.granted AND c.name IN ('visits', 'streak')) g
        ON (g.member_id, g.name, g.period_from) = (w.member_id, w.name, w.w) WHERE w.w IS NULL OR g.period_from IS NULL LIMIT 10;
SELECT 'too easy', name, n FROM (SELECT c.name, count(*) FILTER (WHERE g.granted) AS n, count(*) FILTER (WHERE NOT g.granted) AS taken FROM loyalty.challenge c LEFT JOIN loyalty.challenge_grant g USING (challenge_id) GROUP BY 1) x WHERE n < 8;
SELECT 'nothing was taken back' WHERE NOT EXISTS (SELECT FROM loyalty.challenge_grant WHERE NOT granted);
SELECT * FROM loyalty.check();
-- everything void: nothing is left
UPDATE loyalty.purchase p SET status = 'void' WHERE p.status = 'completed' AND NOT EXISTS (SELECT FROM loyalty.returned r WHERE r.purchase_id = p.purchase_id);
INSERT INTO loyalty.purchase_return (purchase_id) SELECT p.purchase_id FROM loyalty.purchase p WHERE p.status = 'completed' AND NOT EXISTS (SELECT FROM loyalty.returned r WHERE r.purchase_id = p.purchase_id AND r.complete);
SELECT 'left over', account_id, lots FROM loyalty.account WHERE lots OPERATOR(loyalty.<>) '{}';
SELECT 'left over', * FROM loyalty.challenge_progress LIMIT 5;
SELECT * FROM loyalty.check();
