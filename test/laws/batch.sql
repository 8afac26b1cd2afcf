-- the batch law: one COPY, statements of 1,000 and row by row in random order give identical accounts
SET client_min_messages = warning;
SET synchronous_commit = off;
CREATE EXTENSION loyalty;
CREATE FUNCTION make_program(name text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE p int := loyalty.create_program(name, time_zone => 'Europe/London', currency => 'GBP', hold_days => 14, expiry_months => 3);
BEGIN
    PERFORM loyalty.add_tier(p, 'Bronze', 0, 'spend'), loyalty.add_tier(p, 'Silver', 300, 'spend', 1.25), loyalty.add_tier(p, 'Gold', 900, 'points', 1.5), loyalty.add_tier(p, 'Platinum', 2000, 'spend', 2);
    INSERT INTO loyalty.product (program_id, sku, category, excluded) SELECT p, 'S' || i, 'C' || i % 5, i % 17 = 0 FROM generate_series(1, 100) i;
    PERFORM loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.amount'),
        loyalty.add_rule(p, 'category', 'line', 'multiply', '1.5', 'product.category = ''C3'''),
        loyalty.add_rule(p, 'units', 'line', 'base', 'line.quantity * 0.1', 'product.category in (''C1'', ''C2'')'),
        loyalty.add_rule(p, 'threshold', 'purchase', 'bonus', '25', 'purchase.amount >= 1.2 * member.average_order'),
        loyalty.add_rule(p, 'third', 'purchase', 'bonus', '33', 'purchase.number = 3');
    INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT p, 'm' || i, '2023-01-01' FROM generate_series(1, 200) i;
    RETURN p;
END $$;
SELECT make_program('copy'), make_program('thousands'), make_program('rows') \gset ignore_
-- 12,000 baskets, three copies of each for the three programmes
CREATE TABLE basket AS SELECT i, 'm' || 1 + (abs(hashint8extended(i, 1)) % 200) * (abs(hashint8extended(i, 2)) % 200) / 200 AS who,
    timestamptz '2023-01-01' + interval '1 minute' * (i * 60 + abs(hashint8extended(i, 3)) % 50) AS at,
    (SELECT array_agg(ROW('S' || 1 + abs(hashint8extended(i * 31 + l, 5)) % 110, 1 + abs(hashint8extended(i * 31 + l, 6)) % 4, NULL,
        (abs(hashint8extended(i * 31 + l, 7)) % 5000) / 100.0, NULL)::loyalty.line) FROM generate_series(1, 1 + abs(hashint8extended(i, 4)) % 4) l) AS lines
    FROM generate_series(1, 12000) i;
ALTER TABLE basket ADD amount numeric;
UPDATE basket SET amount = (SELECT sum(amount) FROM unnest(lines));
CREATE FUNCTION member_of(p text, who text) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT member_id FROM loyalty.member JOIN loyalty.program g USING (program_id) WHERE g.name = p AND external_id = who $$;
-- one COPY
CREATE TABLE outgoing AS SELECT member_of('copy', who) AS member_id, at AS occurred_at, amount, lines, 'copy' || i AS reference FROM basket ORDER BY hashint8(i);
\copy outgoing to 'pgtmp.copy'
\copy loyalty.purchase (member_id, occurred_at, amount, lines, reference) from 'pgtmp.copy'
\! rm -f pgtmp.copy
-- statements of 1,000 in order of time
DO $$ BEGIN
    FOR n IN 0..11 LOOP
        INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference)
            SELECT member_of('thousands', who), at, amount, lines, 'thousands' || i FROM basket WHERE i > n * 1000 AND i <= (n + 1) * 1000;
    END LOOP;
END $$;
-- row by row, members in random order, each member's own timeline in order
DO $$ DECLARE b record; BEGIN
    FOR b IN SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY who ORDER BY at, i) AS n FROM basket) x ORDER BY n, hashtext(who) LOOP
        INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference) VALUES (member_of('rows', b.who), b.at, b.amount, b.lines, 'rows' || b.i);
    END LOOP;
END $$;
CREATE VIEW outcome AS SELECT g.name, m.external_id, a.lots, a.tally, a.seq, t.name AS tier, a.tier_until, a.tier_since FROM loyalty.account a JOIN loyalty.member m ON m.member_id = a.account_id
    JOIN loyalty.program g ON g.program_id = a.program_id LEFT JOIN loyalty.tier t USING (tier_id);
SELECT 'differs', a.name, b.name, external_id FROM outcome a JOIN outcome b USING (external_id) WHERE a.name = 'copy' AND b.name <> 'copy'
    AND (a.lots OPERATOR(loyalty.<>) b.lots OR a.tally OPERATOR(loyalty.<>) b.tally OR a.seq <> b.seq OR a.tier <> b.tier OR a.tier_until <> b.tier_until OR a.tier_since <> b.tier_since);
SELECT 'sums of entries differ', kind FROM (SELECT g.name, e.kind, sum(points) AS points, count(*) AS n FROM loyalty.entry e JOIN loyalty.account a USING (account_id) JOIN loyalty.program g USING (program_id) GROUP BY 1, 2) s
    GROUP BY kind HAVING count(DISTINCT (points, n)) > 1 OR count(*) <> 3;
SELECT 'too easy: no tiers or no expiry' WHERE (SELECT count(DISTINCT tier) FROM outcome) < 4 OR NOT EXISTS (SELECT FROM loyalty.entry WHERE kind = 'expire');
SELECT * FROM loyalty.check();
-- parts add up: rules and lines to the entry, for every entry
SELECT 'rules do not add up', account_id, seq FROM loyalty.entry_rule r JOIN loyalty.entry e USING (account_id, seq) GROUP BY 1, 2, 3, e.points HAVING sum(r.points) <> e.points LIMIT 5;
SELECT 'lines do not add up', account_id, seq FROM loyalty.entry_line r JOIN loyalty.entry e USING (account_id, seq) GROUP BY 1, 2, 3, e.points HAVING sum(r.points) <> e.points LIMIT 5;
