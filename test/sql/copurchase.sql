-- what is bought with what
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE SCHEMA cop;
SET search_path = cop, loyalty, pg_catalog;
CREATE TABLE basket (id int, store int, items text[]);
INSERT INTO basket VALUES (1, 1, '{milk,bread}'), (2, 1, '{milk,bread,beer}'), (3, 1, '{milk}'), (4, 2, '{beer,milk,beer,NULL}'), (5, 2, '{bread,eggs}'),
    (6, 2, '{}'), (7, 2, NULL), (8, 2, '{NULL}');
SELECT copurchase(items) AS c FROM basket \gset
SELECT :'c';
SELECT * FROM totals(:'c');
SELECT basket_count(:'c');
SELECT * FROM item_counts(:'c');
\x on
SELECT * FROM pairs(:'c') WHERE (a, b) IN (('bread', 'milk'), ('bread', 'eggs'));
\x off
SELECT a, b, n_ab FROM pairs(:'c') ORDER BY a, b;
SELECT a, b, n_ab FROM pairs(:'c', 2) ORDER BY a, b;
SELECT * FROM pair_counts(:'c', min_count => 2);
SELECT item, because, n_ab, round(score::numeric, 6) AS score FROM also_bought(:'c', '{bread}', min_count => 1);
SELECT item, because, n_ab, round(score::numeric, 6) AS score FROM also_bought(:'c', '{bread,beer,caviar,NULL,beer}', min_count => 1, measure => 'count');
SELECT m, item, because, n_ab, CASE WHEN score < 'infinity' THEN round(score::numeric, 6)::text ELSE score::text END AS score
  FROM unnest('{count,confidence,lift,leverage,conviction,jaccard,cosine,kulczynski,chi_square,log_likelihood}'::text[]) WITH ORDINALITY u (m, i), also_bought(:'c', '{eggs,milk}', 1, m, 1) ORDER BY i;
SELECT count(*) FROM also_bought(:'c', '{}');
SELECT count(*) FROM also_bought(:'c', '{bread}', 0);
-- integers, in one type with texts but not in one value
SELECT copurchase(i) AS i FROM (VALUES ('{3,-1,10}'::bigint[]), ('{10,3}'), ('{9223372036854775807,-9223372036854775808}')) v (i) \gset
SELECT * FROM item_counts(:'i');
SELECT a, b, n_ab, jaccard FROM pairs(:'i');
SELECT item, because, n_ab, score FROM also_bought(:'i', '{10,3x,"",99999999999999999999}', min_count => 1);
SELECT copurchase(i) = copurchase(i::bigint[]) AS same FROM (VALUES ('{3,-1,10}'::int[]), ('{10,3}')) v (i);
SELECT :'i'::copurchase + :'c';
\echo :LAST_ERROR_SQLSTATE
-- lines of purchases
SELECT copurchase(lines) = copurchase(ARRAY(SELECT sku FROM unnest(lines))) AS same, (totals(copurchase(lines))).*
  FROM (VALUES (loyalty.lines('[{"sku": "a", "quantity": 1, "unit_price": 2}, {"sku": "b", "quantity": 1, "unit_price": 2}, {"sku": "a", "quantity": 1, "unit_price": 2}]')), (ARRAY[(NULL, 1, 2, 2, 0), ('b', 1, 2, 2, 0)]::loyalty.line[])) v (lines);
-- nothing
SELECT copurchase(items) IS NULL AS none FROM basket WHERE false;
SELECT copurchase(items) AS nothing FROM basket WHERE id > 5 \gset
SELECT :'nothing', (totals(:'nothing')).*, (SELECT count(*) FROM pairs(:'nothing')) AS n_pairs, (SELECT count(*) FROM item_counts(:'nothing')) AS n_items, (SELECT count(*) FROM also_bought(:'nothing', '{milk}')) AS n_also;
SELECT :'c'::copurchase + :'nothing' = :'c' AS neutral, :'i'::copurchase + :'nothing' = :'i' AS to_both;
-- a group
CREATE TABLE store_day AS SELECT store, copurchase(items) AS c FROM basket GROUP BY store;
SELECT sum(c) = :'c' AS whole, sum(c) IS NOT NULL AS summed, count(*) FROM store_day;
SELECT a.c + b.c = b.c + a.c AS commutes, a.c + b.c - b.c = a.c AS inverse, a.c - a.c = :'nothing' AS zero, a.c <> b.c AS differ FROM store_day a, store_day b WHERE a.store = 1 AND b.store = 2;
SELECT b.c - a.c FROM store_day a, store_day b WHERE a.store = 1 AND b.store = 2;
SELECT :'nothing'::copurchase - :'c';
\echo :LAST_ERROR_SQLSTATE
SELECT sum(c) IS NULL AS none FROM store_day WHERE false;
-- what a stored value is, a value is that comes back: text, binary
SELECT :'c'::copurchase::text::copurchase = :'c' AS text_comes_back;
SELECT 'nonsense'::copurchase;
\echo :LAST_ERROR_SQLSTATE
SELECT '\x'::copurchase;
SELECT '\x01000000000000'::copurchase;
SELECT overlay(:'c' placing 'ff' from 3 for 2)::copurchase;
SELECT (:'c' || '00')::copurchase;
-- large baskets count, their pairs do not, and it is told
SELECT (totals(copurchase(i, 3))).* FROM (VALUES ('{a,b,c}'::text[]), ('{a,b,c,d}'), ('{a,b,a,b}')) v (i);
SELECT * FROM pair_counts((SELECT copurchase(i, 3) FROM (VALUES ('{a,b,c}'::text[]), ('{a,b,c,d}'), ('{a,b,a,b}')) v (i)));
SELECT (totals(copurchase(ARRAY(SELECT generate_series(1, n))))).* FROM (VALUES (500), (501)) v (n);
SELECT copurchase('{a,b}'::text[], 0);
\echo :LAST_ERROR_SQLSTATE
-- rows in any order
SELECT copurchase_rows(id, item) = :'c' AS by_rows FROM (SELECT id, unnest(items) AS item FROM basket ORDER BY random()) t;
SELECT copurchase_rows(id::text, item) = :'c' AS by_text FROM (SELECT id, unnest(items) AS item FROM basket) t;
SELECT * FROM pair_counts((SELECT copurchase_rows(b, i) FROM (VALUES (1, 5), (2, 5), (1, 6), (2, 6), (NULL, 7), (2, NULL), (1, 6)) v (b, i)));
SELECT (totals(copurchase_rows(b, i, 1))).* FROM (VALUES (1, 5), (2, 5), (1, 6)) v (b, i);
SELECT copurchase_rows(b, i) FROM (VALUES (1, 1.5)) v (b, i);
SELECT copurchase_rows(b, i) IS NULL AS none FROM (VALUES (1, 1)) v (b, i) WHERE false;
-- random baskets: the same as a self-join
CREATE TABLE line (basket int, item int) PARTITION BY HASH (basket);
CREATE TABLE line_0 PARTITION OF line FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE line_1 PARTITION OF line FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT setseed(0.5);
INSERT INTO line SELECT b, (200 * random() ^ 3)::int FROM generate_series(1, 3000) b, generate_series(1, 1 + (b * 7919 % 12));
CREATE TABLE trip (basket int, store int, items int[]) PARTITION BY LIST (store);
CREATE TABLE trip_0 PARTITION OF trip FOR VALUES IN (0);
CREATE TABLE trip_1 PARTITION OF trip FOR VALUES IN (1, 2);
INSERT INTO trip SELECT basket, basket % 3, array_agg(item) FROM line GROUP BY basket;
ANALYZE line, trip;
CREATE TABLE joined AS SELECT x.item AS a, y.item AS b, count(*) AS n_ab FROM (SELECT DISTINCT * FROM line) x JOIN (SELECT DISTINCT * FROM line) y ON y.basket = x.basket AND y.item > x.item GROUP BY 1, 2;
SELECT copurchase(items) AS whole FROM trip \gset
SELECT count(*), sum(n_ab), (SELECT count(*) FROM pair_counts(:'whole') p FULL JOIN joined j ON j.a = p.a::int AND j.b = p.b::int WHERE p.n_ab IS DISTINCT FROM j.n_ab) AS differ FROM joined;
SELECT count(*) AS item_counts_that_differ FROM item_counts(:'whole') i FULL JOIN (SELECT item, count(DISTINCT basket) AS n FROM line GROUP BY item) l ON l.item = i.item::int WHERE i.n IS DISTINCT FROM l.n;
SELECT sum(c) = :'whole' AS by_store FROM (SELECT copurchase(items) AS c FROM trip GROUP BY store) t;
SELECT copurchase(items) FILTER (WHERE basket > 1000) + copurchase(items) FILTER (WHERE basket <= 1000) = :'whole' AS in_parts,
    copurchase(items) - copurchase(items) FILTER (WHERE basket <= 1000) = copurchase(items) FILTER (WHERE basket > 1000) AS less_a_part FROM trip;
SELECT copurchase_rows(basket, item) = :'whole' AS by_rows FROM line;
SELECT count(*) AS pairs_that_differ_in_text FROM (SELECT a, b, n_ab FROM pair_counts((SELECT copurchase(items::text[]) FROM trip))) t FULL JOIN (SELECT least(a, b) AS a, greatest(a, b) AS b, n_ab FROM (SELECT a COLLATE "C" AS a, b COLLATE "C" AS b, n_ab FROM pair_counts(:'whole')) s) p USING (a, b) WHERE t.n_ab IS DISTINCT FROM p.n_ab;
-- the best of all pairs, whatever the measure: the same as sorting them all
CREATE TABLE step AS SELECT a AS x, b AS y, n, n_a, n_b, n_ab, lift, leverage, jaccard, cosine, kulczynski, chi_square, log_likelihood, confidence_ab AS confidence, conviction_ab AS conviction FROM pairs(:'whole')
    UNION ALL SELECT b, a, n, n_b, n_a, n_ab, lift, leverage, jaccard, cosine, kulczynski, chi_square, log_likelihood, confidence_ba, conviction_ba FROM pairs(:'whole');
CREATE TABLE asked AS SELECT basket, items::text[] AS items, m FROM trip, unnest('{count,confidence,lift,leverage,conviction,jaccard,cosine,kulczynski,chi_square,log_likelihood}'::text[]) m WHERE basket % 150 = 0;
WITH fast AS (SELECT basket, m, array_agg(f.score ORDER BY f.score DESC) AS scores, array_agg(f.n_ab ORDER BY f.n_ab) AS counts FROM asked, also_bought(:'whole', items, 7, m, 3) f GROUP BY 1, 2),
slow AS (SELECT basket, m, array_agg(score ORDER BY score DESC) AS scores FROM (SELECT basket, m, y, max(score) AS score, row_number() OVER (PARTITION BY basket, m ORDER BY max(score) DESC) AS place
    FROM (SELECT basket, m, y, CASE WHEN n_ab * n >= n_a * n_b OR m NOT IN ('chi_square', 'log_likelihood') THEN 1 ELSE -1 END * CASE m WHEN 'count' THEN n_ab ELSE (to_jsonb(step) ->> m)::float8 END AS score FROM asked JOIN step ON x = ANY (items) AND NOT y = ANY (items) WHERE n_ab >= 3) t GROUP BY basket, m, y) t WHERE place <= 7 GROUP BY 1, 2)
SELECT m, count(*) AS baskets, count(*) FILTER (WHERE cardinality(f.scores) IS DISTINCT FROM cardinality(s.scores) OR EXISTS (SELECT FROM unnest(f.scores, s.scores) u (got, expected) WHERE got <> expected AND NOT abs(got - expected) <= 1e-9 * abs(expected))) AS differ
  FROM fast f FULL JOIN slow s USING (basket, m) GROUP BY m ORDER BY m COLLATE "C";
-- in parallel, and partition by partition
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SET enable_partitionwise_aggregate = on;
ALTER TABLE trip_0 SET (parallel_workers = 2);
ALTER TABLE trip_1 SET (parallel_workers = 2);
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$ DECLARE line text; BEGIN FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP IF line ~ '(Partial|Finalize).*Aggregate' THEN RETURN NEXT regexp_replace(trim(line), '^-> *', ''); END IF; END LOOP; END $$;
SELECT DISTINCT plan_of('SELECT copurchase(items) FROM trip') ORDER BY 1;
SELECT copurchase(items) = :'whole' AS parallel FROM trip;
SELECT copurchase_rows(basket, item) = :'whole' AS parallel_rows FROM line;
SELECT sum(c) = :'whole' AS of_groups FROM (SELECT store, copurchase(items) AS c FROM trip GROUP BY store) t;
CREATE TABLE daily AS SELECT basket % 30 AS day, copurchase(items) AS c FROM trip GROUP BY 1;
ALTER TABLE daily SET (parallel_workers = 2);
SELECT DISTINCT plan_of('SELECT sum(c) FROM daily') ORDER BY 1;
SELECT sum(c) = :'whole' AS parallel_sum FROM daily;
RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size; RESET max_parallel_workers_per_gather; RESET enable_partitionwise_aggregate;
-- a stored one is read in slices
CREATE TABLE kept (c copurchase);
INSERT INTO kept SELECT copurchase(items) FROM trip;
SELECT pg_column_compression(c) IS NULL AS not_compressed, pg_column_size(c) > 10000 AS large FROM kept;
SELECT bool_and(k = w) AS the_same FROM kept, unnest('{0,3,17}'::text[]) x, LATERAL (SELECT array_agg(f) AS k FROM also_bought(c, ARRAY[x], 5) f) k, LATERAL (SELECT array_agg(f) AS w FROM also_bought(:'whole', ARRAY[x], 5) f) w;
SELECT x AS because, f.item, f.n_ab = (SELECT n_ab FROM joined WHERE (a, b) IN ((least(x, f.item)::int, greatest(x, f.item)::int), (least(x::int, f.item::int), greatest(x::int, f.item::int)))) AS right
  FROM kept, unnest('{0,17}'::text[]) x, also_bought(c, ARRAY[x], 3, 'confidence') f;
-- and read by binary copy
SELECT current_setting('data_directory') || '/copurchase.bin' AS file \gset
COPY kept TO :'file' (FORMAT binary);
CREATE TABLE kept_again (c copurchase);
COPY kept_again FROM :'file' (FORMAT binary);
SELECT a.c = b.c AS binary_comes_back FROM kept a, kept_again b;
COPY (SELECT '\x0102030405'::bytea) TO :'file' (FORMAT binary);
COPY kept_again FROM :'file' (FORMAT binary);
-- within its memory, or not at all
SET loyalty.copurchase_memory = '1MB';
SELECT copurchase(items) = :'whole' AS in_little FROM trip;
SELECT sum(c) = :'whole' AS sum_in_little FROM daily;
SELECT copurchase(ARRAY[i, i + 1]) FROM generate_series(1, 100000) i;
\echo :LAST_ERROR_SQLSTATE
SELECT copurchase_rows(i, i) FROM generate_series(1, 100000) i;
SELECT count(c) FROM (SELECT copurchase(ARRAY[i, i + 1]) AS c FROM generate_series(1, 100000) i GROUP BY i % 10000) t;
SET enable_sort = off;
SELECT count(c) FROM (SELECT copurchase(ARRAY[i, i + 1]) AS c FROM generate_series(1, 100000) i GROUP BY i % 10000) t;
RESET enable_sort;
RESET loyalty.copurchase_memory;
SELECT basket_count(copurchase(ARRAY[i, i + 1])) FROM generate_series(1, 100000) i;
-- questions that make no sense
SELECT * FROM also_bought(:'c', '{milk}', 5, 'charm');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM also_bought(:'c', '{milk}', -1);
RESET search_path;
DROP SCHEMA cop CASCADE;
-- a reading that is cancelled gives back the memory that it took
SET loyalty.copurchase_memory = '1MB';
DO $$
DECLARE
    form text := loyalty.copurchase(ARRAY(SELECT generate_series(1, 3000)));
    cancelled integer := 0;
BEGIN
    FOR i IN 1..50 LOOP
        BEGIN
            PERFORM pg_cancel_backend(pg_backend_pid()), form::loyalty.copurchase;
        EXCEPTION WHEN query_canceled THEN
            cancelled := cancelled + 1;
        END;
    END LOOP;
    RAISE WARNING '% cancelled, % baskets', cancelled, loyalty.basket_count(form::loyalty.copurchase);
END
$$;
RESET loyalty.copurchase_memory;
