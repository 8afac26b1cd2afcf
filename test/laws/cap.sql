-- caps and budgets: one COPY, statements of 1,000 and row by row in order of time give the same, a quote is the award, nobody is given more, and what changes nothing posts nothing
SET client_min_messages = warning;
SET synchronous_commit = off;
CREATE EXTENSION loyalty;
CREATE FUNCTION make_program(name text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE p int := loyalty.create_program(name, time_zone => 'Europe/London', currency => 'GBP', rounding => CASE name WHEN 'q' THEN 'ceil' ELSE 'nearest' END, points_scale => 1);
BEGIN
    PERFORM loyalty.add_tier(p, 'Bronze', 0, 'spend'), loyalty.add_tier(p, 'Silver', 2000, 'spend', 1.25);
    PERFORM loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.amount / 3', caps => '{"year": 2500}'),
        loyalty.add_rule(p, 'units', 'line', 'base', 'line.amount / 7', 'line.sku in (''S1'', ''S2'')', caps => '{"day": 10.5, "week": 20}'),
        loyalty.add_rule(p, 'best', 'line', 'multiply', '1.37', 'line.sku = ''S3''', caps => '{"month": 12.3}'),
        loyalty.add_rule(p, 'less', 'line', 'multiply', '0.9', 'line.sku = ''S4'''),
        loyalty.add_rule(p, 'bonus', 'purchase', 'bonus', 'purchase.amount * 0.11', caps => '{"day": 5, "ever": 150}'),
        loyalty.add_rule(p, 'campaign', 'purchase', 'bonus', 'purchase.amount * 0.333', 'purchase.weekday = 5', budget => 5000),
        loyalty.add_rule(p, 'small', 'line', 'bonus', 'line.amount', 'line.sku = ''S9''', caps => '{"month": 40}', budget => 333.3);
    INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT p, 'm' || i, '2023-01-01' FROM generate_series(1, 60) i;
    RETURN p;
END $$;
SELECT make_program('copy'), make_program('thousands'), make_program('rows') \gset ignore_
CREATE TABLE basket AS SELECT i, 'm' || 1 + (abs(hashint8extended(i, 1)) % 60) * (abs(hashint8extended(i, 2)) % 60) / 60 AS who,
    timestamptz '2023-01-01' + interval '1 minute' * (i * 60 + abs(hashint8extended(i, 3)) % 50) AS at,
    (SELECT array_agg(ROW('S' || 1 + abs(hashint8extended(i * 31 + l, 5)) % 12, 1, NULL, (abs(hashint8extended(i * 31 + l, 7)) % 5000) / 100.0, NULL)::loyalty.line) FROM generate_series(1, 1 + abs(hashint8extended(i, 4)) % 4) l) AS lines
    FROM generate_series(1, 4800) i;
ALTER TABLE basket ADD amount numeric;
UPDATE basket SET amount = (SELECT sum(amount) FROM unnest(lines));
CREATE FUNCTION member_of(p text, who text) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT member_id FROM loyalty.member JOIN loyalty.program g USING (program_id) WHERE g.name = p AND external_id = who $$;
CREATE TABLE outgoing AS SELECT member_of('copy', who) AS member_id, at AS occurred_at, amount, lines, 'copy' || i AS reference FROM basket ORDER BY hashint8(i);
\copy outgoing to 'pgtmp.copy'
\copy loyalty.purchase (member_id, occurred_at, amount, lines, reference) from 'pgtmp.copy'
\! rm -f pgtmp.copy
DO $$ BEGIN
    FOR n IN 0..4 LOOP
        INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference)
            SELECT member_of('thousands', who), at, amount, lines, 'thousands' || i FROM basket WHERE i > n * 1000 AND i <= (n + 1) * 1000;
    END LOOP;
END $$;
-- row by row, every third quoted before
DO $$
DECLARE b record; q bigint; id bigint; m bigint;
BEGIN
    FOR b IN SELECT * FROM basket ORDER BY at, i LOOP
        m := member_of('rows', b.who);
        IF b.i % 3 = 0 THEN SELECT points INTO q FROM loyalty.quote(m, b.amount, b.lines, occurred_at => b.at); END IF;
        INSERT INTO loyalty.purchase (member_id, occurred_at, amount, lines, reference) VALUES (m, b.at, b.amount, b.lines, 'rows' || b.i) RETURNING purchase_id INTO id;
        IF b.i % 3 = 0 AND q <> (SELECT points FROM loyalty.entry WHERE source_id = id AND kind = 'earn') THEN
            RAISE EXCEPTION 'purchase %: quoted %', b.i, q;
        END IF;
    END LOOP;
END $$;
CREATE VIEW outcome AS SELECT g.name, regexp_replace(p.reference, '[a-z]*', '') AS i, r.rule, r.exact, r.points FROM loyalty.purchase p JOIN loyalty.member m USING (member_id) JOIN loyalty.program g USING (program_id)
    JOIN loyalty.entry_rule r ON r.source_id = p.purchase_id AND r.kind = 'earn';
SELECT 'differs', i, rule FROM outcome GROUP BY i, rule HAVING count(*) <> 3 OR count(DISTINCT points) > 1 OR count(DISTINCT exact) > 1 LIMIT 5;
SELECT 'counters differ', name, external_id FROM (SELECT m.external_id, r.name, s.period, s.from_day, s.used FROM loyalty.cap_state s JOIN loyalty.rule r USING (rule_id) JOIN loyalty.member m USING (member_id)) s
    GROUP BY external_id, name, period, from_day HAVING count(*) <> 3 OR count(DISTINCT used) > 1 LIMIT 5;
SELECT 'too easy', r.name FROM loyalty.rule r WHERE name <> 'less' AND (SELECT count(*) FROM loyalty.cap_use u JOIN loyalty.rule_version v USING (rule_version_id) WHERE v.rule_id = r.rule_id AND u.allowed > 0) < 5 AND name NOT IN ('campaign', 'small');
SELECT 'a budget is not used up', rule, "left" FROM loyalty.budget_status WHERE "left" <> 0;
SELECT 'rules do not add up', account_id, seq FROM loyalty.entry_rule r JOIN loyalty.entry e USING (account_id, seq) GROUP BY 1, 2, 3, e.points HAVING sum(r.points) <> e.points LIMIT 5;
SELECT 'lines do not add up', account_id, seq FROM loyalty.entry_line r JOIN loyalty.entry e USING (account_id, seq) GROUP BY 1, 2, 3, e.points HAVING sum(r.points) <> e.points LIMIT 5;
SELECT 'more than wanted', rule, points, exact FROM outcome WHERE points > ceil(exact) AND rule IN ('units', 'bonus', 'campaign', 'small') LIMIT 5;
SELECT * FROM loyalty.check();
-- nothing changes, nothing is posted
CREATE TABLE before AS SELECT count(*) AS n FROM loyalty.entry;
UPDATE loyalty.purchase SET amount = amount;
SELECT 'posted', count(*) - min(n) FROM loyalty.entry, before HAVING count(*) <> min(n);
-- what is given back is there for others, and all of it comes back
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id % 3 = 0;
INSERT INTO loyalty.purchase_return (purchase_id) SELECT purchase_id FROM loyalty.purchase WHERE purchase_id % 60 = 1;
SELECT * FROM loyalty.check();
UPDATE loyalty.purchase SET amount = amount + 1, lines = NULL WHERE purchase_id % 3 = 2;
SELECT * FROM loyalty.check();
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id % 60 <> 1;
SELECT 'not given back', rule, spent FROM loyalty.budget_status WHERE spent <> 0;
SELECT 'not given back', * FROM loyalty.cap_state WHERE used <> 0 LIMIT 5;
SELECT * FROM loyalty.check();
