-- what is bought together, folded while purchases come, change, come back and go, equals what is counted anew
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT setseed(0.4) \gset s_
SELECT loyalty.create_program('Fold', time_zone => 'UTC', currency => 'EUR') AS p \gset
-- a programme that had only guests may have another time zone: their days are counted anew
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, lines) VALUES (NULL, 20, '2026-02-01 23:00Z', ARRAY[ROW('a1', 1, 10, NULL, NULL), ROW('a2', 1, 10, NULL, NULL)]::loyalty.line[]);
SET client_min_messages = error;
CALL loyalty.fold_copurchase();
SELECT loyalty.change_program(:p, '{"time_zone": "Asia/Tokyo"}') \gset z_
CALL loyalty.fold_copurchase();
SELECT d.day FROM loyalty.copurchase_day d UNION ALL SELECT f.day FROM loyalty.analysis_purchase f UNION ALL SELECT s.day FROM loyalty.analysis_day s EXCEPT SELECT '2026-02-02'::date;
SELECT loyalty.change_program(:p, '{"time_zone": "UTC"}') \gset z_
SET client_min_messages = warning;
SELECT loyalty.add_rule(:p, 'base', 'purchase', 'base', 'purchase.amount') \gset r_
SELECT count(loyalty.enroll(:p, 'm' || i)) AS n FROM generate_series(1, 20) i \gset m_
-- a member, or whom it was merged into
CREATE FUNCTION pg_temp.same(who bigint) RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = who $$;
CREATE FUNCTION pg_temp.lines() RETURNS loyalty.line[] LANGUAGE sql VOLATILE AS
    $$ SELECT array_agg(ROW('a' || floor(12 * random() * random())::integer, 1 + floor(2 * random()), 10, NULL, NULL)::loyalty.line) FROM generate_series(1, 1 + floor(5 * random())::integer) $$;
CREATE FUNCTION pg_temp.buy(n integer) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO loyalty.purchase (member_id, amount, occurred_at, lines)
        SELECT CASE WHEN random() < 0.2 THEN NULL ELSE pg_temp.same(1 + floor(20 * random())::bigint) END, (SELECT sum(x.quantity * x.unit_price) FROM unnest(l.lines) x),
            '2026-01-01'::timestamptz + make_interval(hours => floor(24 * 80 * random())::integer), l.lines
        FROM generate_series(1, n) i CROSS JOIN LATERAL (SELECT pg_temp.lines() AS lines, i) l $$;
-- a random mix of everything that may happen to a purchase
CREATE FUNCTION pg_temp.stir() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    p loyalty.purchase;
BEGIN
    PERFORM pg_temp.buy(20);
    FOR p IN SELECT * FROM loyalty.purchase WHERE status = 'completed' ORDER BY random() LIMIT 12 LOOP
        BEGIN
            CASE floor(6 * random())::integer
                WHEN 0 THEN UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = p.purchase_id;
                WHEN 1 THEN INSERT INTO loyalty.purchase_return (purchase_id, occurred_at) VALUES (p.purchase_id, '2026-04-01');
                WHEN 2 THEN INSERT INTO loyalty.purchase_return (purchase_id, occurred_at, lines) VALUES (p.purchase_id, '2026-04-01', ARRAY[ROW(1, NULL, NULL, NULL)::loyalty.return_line]);
                WHEN 3 THEN INSERT INTO loyalty.purchase_return (purchase_id, occurred_at, lines) VALUES (p.purchase_id, '2026-04-01', ARRAY[ROW(NULL, p.lines[1].sku, 1, NULL)::loyalty.return_line]);
                WHEN 4 THEN UPDATE loyalty.purchase SET occurred_at = occurred_at + make_interval(hours => floor(100 * random() - 50)::integer) WHERE purchase_id = p.purchase_id;
                ELSE PERFORM loyalty.change_consent(pg_temp.same(p.member_id), 'analysis', 'any', 'law', random() < 0.5, now()) WHERE p.member_id IS NOT NULL;
            END CASE;
        EXCEPTION WHEN SQLSTATE 'LY114' OR SQLSTATE 'LY112' OR SQLSTATE 'LY102' THEN NULL;       -- more came back than was bought
        END;
    END LOOP;
    -- one with a word of its own into another
    PERFORM loyalty.merge_members(f.id, t.id, 'law')
        FROM (SELECT c.member_id AS id FROM loyalty.consent_change c JOIN loyalty.account a ON a.account_id = c.member_id WHERE a.merged_into IS NULL ORDER BY random() LIMIT 1) f
            CROSS JOIN LATERAL (SELECT a.account_id AS id FROM loyalty.account a WHERE a.merged_into IS NULL AND a.account_id <> f.id ORDER BY random() LIMIT 1) t;
END $$;
CREATE TEMP VIEW differs AS
    WITH back AS (  -- an obvious count of what came back, by line where it was named, then by article
        SELECT p.purchase_id, l.line, l.sku, l.quantity, (SELECT coalesce(bool_or(x.line = l.line), false) FROM loyalty.purchase_return r CROSS JOIN LATERAL unnest(r.lines) x WHERE r.purchase_id = p.purchase_id) AS whole,
               (SELECT coalesce(sum(x.quantity), 0) FROM loyalty.purchase_return r CROSS JOIN LATERAL unnest(r.lines) x WHERE r.purchase_id = p.purchase_id AND x.sku = l.sku) AS of_sku
        FROM loyalty.purchase p CROSS JOIN LATERAL unnest(p.lines) WITH ORDINALITY l (sku, quantity, u, a, d, line) WHERE p.status = 'completed'),
    ordered AS (SELECT b.*, coalesce(sum(CASE WHEN b.whole THEN 0 ELSE b.quantity END) OVER (PARTITION BY b.purchase_id, b.sku ORDER BY b.line ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before FROM back b),
    item AS (
        SELECT DISTINCT p.occurred_at::date AS day, p.purchase_id, o.sku FROM ordered o JOIN loyalty.purchase p USING (purchase_id)
        WHERE NOT o.whole AND o.of_sku - o.before < o.quantity
            AND NOT EXISTS (SELECT FROM loyalty.purchase_return r WHERE r.purchase_id = p.purchase_id AND r.lines IS NULL)
            AND NOT EXISTS (SELECT FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id AND d.complete)
            AND coalesce((SELECT c.given FROM loyalty.consent_change c WHERE pg_temp.same(c.member_id) = pg_temp.same(p.member_id) ORDER BY c.number DESC LIMIT 1), true)),
    model AS (SELECT a.day, a.sku AS a, b.sku AS b, count(*) AS n FROM item a JOIN item b ON b.purchase_id = a.purchase_id AND b.sku > a.sku COLLATE "C" GROUP BY 1, 2, 3
              UNION ALL SELECT day, sku, NULL, count(*) FROM item GROUP BY 1, 2),
    kept AS (SELECT d.day, x.a, x.b, x.n_ab FROM loyalty.copurchase_day d CROSS JOIN LATERAL loyalty.pair_counts(d.baskets) x
             UNION ALL SELECT d.day, x.item, NULL, x.n FROM loyalty.copurchase_day d CROSS JOIN LATERAL loyalty.item_counts(d.baskets) x)
    (TABLE model EXCEPT ALL TABLE kept) UNION ALL (TABLE kept EXCEPT ALL TABLE model);
SET client_min_messages = error;
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
SELECT pg_temp.stir() \gset x_
CALL loyalty.fold_copurchase(days => 3);
TABLE differs LIMIT 5;
SELECT * FROM loyalty.check();
CALL loyalty.fold_copurchase(rebuild => true);
TABLE differs LIMIT 5;
SELECT 'nothing was tried' WHERE (SELECT count(*) FROM loyalty.returned) < 20 OR (SELECT count(*) FROM loyalty.consent_change) < 10;
