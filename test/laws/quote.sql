-- quote = award, 10,000 times
SET client_min_messages = warning;
SET synchronous_commit = off;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Q', hold_days => 7, rounding => 'nearest', points_scale => 2, multipliers => 'best') AS p \gset ignore_
SELECT loyalty.add_tier(1, 'A', 0, 'spend'), loyalty.add_tier(1, 'B', 500, 'spend', 1.1), loyalty.add_tier(1, 'C', 50000, 'points', 1.337) \gset ignore_
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount / 3'),
    loyalty.add_rule(1, 'line', 'line', 'multiply', '1.2', 'line.sku = ''X'''),
    loyalty.add_rule(1, 'night', 'purchase', 'bonus', '1.23', 'extract(hour from purchase.occurred_at) >= 20'),
    loyalty.add_rule(1, 'best one', 'purchase', 'bonus', '10', 'purchase.number % 10 = 0', exclusive_group => 'g'),
    loyalty.add_rule(1, 'best two', 'purchase', 'bonus', '5', 'purchase.number % 5 = 0', exclusive_group => 'g') \gset ignore_
INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT 1, 'm' || i, '2020-01-01' FROM generate_series(1, 50) i;
DO $$
DECLARE q record; e record; t text; l loyalty.line[]; a numeric; m bigint; at timestamptz;
BEGIN
    FOR i IN 1..10000 LOOP
        m := 1 + abs(hashint8extended(i, 1)) % 50;
        at := timestamptz '2023-01-01' + interval '47 minutes' * i;
        l := ARRAY[ROW(CASE WHEN i % 3 = 0 THEN 'X' ELSE 'Y' END, 1, NULL, (abs(hashint8extended(i, 2)) % 9999) / 100.0, NULL),
                   ROW('Z', 2, NULL, (abs(hashint8extended(i, 3)) % 999) / 1000.0, NULL)]::loyalty.line[];
        a := (SELECT sum(amount) FROM unnest(l));
        SELECT * INTO q FROM loyalty.quote(m, a, l, occurred_at => at, tax => a / 8 - mod(a / 8, 0.01));
        INSERT INTO loyalty.purchase (member_id, occurred_at, amount, tax, lines) VALUES (m, at, a, a / 8 - mod(a / 8, 0.01), l);
        SELECT n.points, n.lots, t2.name INTO e FROM loyalty.entry n JOIN loyalty.account c USING (account_id) LEFT JOIN loyalty.tier t2 USING (tier_id)
            WHERE n.account_id = m AND n.kind = 'earn' ORDER BY n.seq DESC LIMIT 1;
        IF q.points <> e.points OR q.tier_after IS DISTINCT FROM e.name OR (q.points > 0 AND e.lots OPERATOR(loyalty.<>) loyalty.lots(q.available_from, q.expires_on, q.points)) THEN
            RAISE EXCEPTION 'purchase %: quoted %, awarded %', i, q, e;
        END IF;
    END LOOP;
END $$;
SELECT 'nothing was tested' WHERE (SELECT count(*) FROM loyalty.entry WHERE kind = 'earn') <> 10000;
SELECT * FROM loyalty.check();
