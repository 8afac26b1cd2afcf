-- the law of analysis: whatever happened, in whichever order and however often it was refreshed, what is kept is what is made from nothing
SET client_min_messages = warning;
SET synchronous_commit = off;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('One', time_zone => 'Asia/Tokyo', currency => 'JPY'), loyalty.create_program('Two', time_zone => 'America/Lima', currency => 'PEN') \gset ignore_
SELECT loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.amount') FROM generate_series(1, 2) p \g /dev/null
INSERT INTO loyalty.exchange_rate (from_currency, to_currency, day, rate) SELECT 'USD', c, date '2025-01-01' + d, 3 + d / 7.0 FROM unnest('{JPY,PEN}'::text[]) c, generate_series(-2, 150) d;
INSERT INTO loyalty.product (program_id, sku, category, brand) SELECT p, 's' || n, 'c' || n % 4, CASE WHEN n % 3 > 0 THEN 'b' || n % 5 END FROM generate_series(1, 2) p, generate_series(1, 12) n;
SELECT loyalty.enroll(1 + n % 2, 'm' || n, joined_at => '2024-12-01') FROM generate_series(1, 40) n \g /dev/null
SELECT setseed(0.42) \g /dev/null
CREATE FUNCTION pick(n int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION any_time() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT timestamptz '2025-01-01 00:00+00' + make_interval(mins => pick(140 * 24 * 60)) $$;
CREATE FUNCTION basket() RETURNS loyalty.line[] LANGUAGE sql VOLATILE AS $$
    SELECT array_agg(ROW('s' || (1 + pick(15)), 1 + pick(3), NULL, 10, NULL)::loyalty.line) FROM generate_series(0, pick(4)) $$;
CREATE SEQUENCE reference;
CREATE FUNCTION buy() RETURNS void LANGUAGE plpgsql AS $$
DECLARE b loyalty.line[] := CASE WHEN pick(4) > 0 THEN basket() END;
BEGIN
    INSERT INTO loyalty.purchase (member_id, occurred_at, store, channel, currency, amount, lines, reference)
        VALUES (CASE WHEN pick(8) > 0 THEN (SELECT a.account_id FROM loyalty.account a WHERE a.merged_into IS NULL ORDER BY random() LIMIT 1) END, any_time(), (ARRAY['x', 'y', NULL])[1 + pick(3)], (ARRAY['web', NULL])[1 + pick(2)],
                CASE WHEN pick(6) = 0 THEN 'USD' END, coalesce(10 * cardinality(b), pick(900)), b, nextval('reference')::text);
END $$;
-- one thing that may happen
CREATE FUNCTION happen() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    p loyalty.purchase;
    one bigint;
    other bigint;
BEGIN
    SELECT * INTO p FROM loyalty.purchase ORDER BY random() LIMIT 1;
    CASE pick(12)
        WHEN 0, 1, 2, 3 THEN PERFORM buy();
        WHEN 4 THEN UPDATE loyalty.purchase q SET status = CASE q.status WHEN 'void' THEN 'completed' ELSE 'void' END WHERE q.purchase_id = p.purchase_id;
        WHEN 5 THEN UPDATE loyalty.purchase q SET amount = q.amount + 1, lines = NULL WHERE q.purchase_id = p.purchase_id;
        WHEN 6 THEN UPDATE loyalty.purchase q SET store = 'z', channel = 'app' WHERE q.purchase_id = p.purchase_id;
        WHEN 7, 8 THEN INSERT INTO loyalty.purchase_return (purchase_id, occurred_at, amount) VALUES (p.purchase_id, any_time(), CASE WHEN pick(2) = 0 THEN 1 END);
        WHEN 9 THEN UPDATE loyalty.product SET category = CASE WHEN pick(5) > 0 THEN 'c' || pick(6) END WHERE sku = 's' || (1 + pick(15));
        WHEN 10 THEN UPDATE loyalty.purchase q SET occurred_at = any_time() WHERE q.purchase_id = p.purchase_id;
        ELSE
            IF pick(6) = 0 THEN
                SELECT m.member_id INTO one FROM loyalty.member m WHERE m.status = 'active' ORDER BY random() LIMIT 1;
                SELECT m.member_id INTO other FROM loyalty.member m WHERE m.status = 'active' AND m.member_id <> one AND m.program_id = (SELECT x.program_id FROM loyalty.member x WHERE x.member_id = one) ORDER BY random() LIMIT 1;
                PERFORM loyalty.merge_members(one, other, 'the same');
            ELSIF pick(3) = 0 THEN
                DELETE FROM loyalty.product WHERE sku = 's' || (1 + pick(15));
            ELSE
                INSERT INTO loyalty.product (program_id, sku, category, brand) VALUES (1 + pick(2), 's' || (1 + pick(15)), 'new', 'new') ON CONFLICT DO NOTHING;
            END IF;
    END CASE;
EXCEPTION WHEN OTHERS THEN
    NULL;       -- what the programme refuses has not happened
END $$;
-- a stored refresh that may be left anywhere
CREATE FUNCTION left_refresh() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    run bigint := loyalty.begin_analysis(false);
BEGIN
    FOR i IN 0 .. pick(4) LOOP
        EXIT WHEN NOT loyalty.step_analysis(run, 1 + pick(30));
    END LOOP;
END $$;
SELECT buy() FROM generate_series(1, 100) \g /dev/null
CREATE PROCEDURE live(rounds int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. rounds LOOP
        PERFORM happen();
        COMMIT;
        IF pick(15) = 0 THEN PERFORM left_refresh(); COMMIT; END IF;
        IF pick(60) = 0 THEN CALL loyalty.refresh_analysis(1 + pick(200)); END IF;
    END LOOP;
END $$;
CREATE TABLE kept (round int, made text, name text, x jsonb);
CREATE PROCEDURE keep(round int, made text) LANGUAGE plpgsql AS $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY '{product,purchase,return,part,day,part_day,pair_day,member,member_month,member_store,member_part,model}'::text[] LOOP
        EXECUTE format('INSERT INTO kept SELECT $1, $2, $3, to_jsonb(x) FROM loyalty.analysis_%s x', name) USING round, made, name;
    END LOOP;
END $$;
CREATE PROCEDURE compare(round int) LANGUAGE plpgsql AS $$
BEGIN
    CALL loyalty.refresh_analysis(50);      -- may only end a run that was left
    CALL loyalty.refresh_analysis(50);
    CALL keep(round, 'grown');
    CALL loyalty.refresh_analysis(rebuild => true);
    CALL keep(round, 'made from nothing');
END $$;
CALL live(400);
CALL compare(1);
CALL live(400);
CALL compare(2);
CALL live(400);
CALL compare(3);
SELECT round, name, count(*), min(x::text) FROM (
    (SELECT round, name, x FROM kept WHERE made = 'grown' EXCEPT ALL SELECT round, name, x FROM kept WHERE made <> 'grown')
    UNION ALL (SELECT round, name, x FROM kept WHERE made <> 'grown' EXCEPT ALL SELECT round, name, x FROM kept WHERE made = 'grown')) d GROUP BY 1, 2;
-- something was kept of each kind, and it is what plain SQL over the purchases says
SELECT name, 'nothing was kept' FROM unnest('{product,purchase,return,part,day,part_day,pair_day,member,member_month,member_store,member_part,model}'::text[]) name WHERE NOT EXISTS (SELECT FROM kept k WHERE k.name = name.name);
WITH plain AS (
    SELECT coalesce(m.program_id, 1) AS program_id, (p.occurred_at AT TIME ZONE g.time_zone)::date AS day,
           round(p.amount * CASE WHEN p.currency IS NULL THEN 1 ELSE (SELECT r.rate FROM loyalty.exchange_rate r WHERE r.from_currency = p.currency AND r.to_currency = g.currency AND r.day = (p.occurred_at AT TIME ZONE g.time_zone)::date) END, 4) AS amount
    FROM loyalty.purchase p LEFT JOIN loyalty.member m USING (member_id) JOIN loyalty.program g ON g.program_id = coalesce(m.program_id, 1) WHERE p.status = 'completed'),
days AS (SELECT program_id, day, count(*)::bigint AS purchases, sum(amount) AS amount FROM plain WHERE amount IS NOT NULL GROUP BY 1, 2),
ours AS (SELECT program_id, day, sum(purchases)::bigint AS purchases, sum(amount) AS amount FROM loyalty.bi_day GROUP BY 1, 2 HAVING sum(purchases) > 0)
SELECT 'days', * FROM ((TABLE days EXCEPT ALL TABLE ours) UNION ALL (TABLE ours EXCEPT ALL TABLE days)) d;
SELECT * FROM loyalty.check();
