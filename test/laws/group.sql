-- lots and tally are groups: 100,000 random cases each
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SET search_path = loyalty, public;
CREATE FUNCTION some_lots(seed bigint) RETURNS loyalty.lots LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(loyalty.sum(loyalty.lots(date '2024-01-01' + (abs(hashint8extended(seed * 7 + i, 1)) % 30)::int,
                                    date '2024-02-01' + (abs(hashint8extended(seed * 7 + i, 2)) % 30)::int,
                                    hashint8extended(seed * 7 + i, 3) % 1000)), '{}')
    FROM generate_series(1, abs(hashint8extended(seed, 4)) % 5) i $$;
CREATE FUNCTION some_tally(seed bigint) RETURNS loyalty.tally LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(loyalty.sum(loyalty.tally((date '2024-01-01' + make_interval(months => (abs(hashint8extended(seed * 7 + i, 1)) % 30)::int))::date,
                                     (hashint8extended(seed * 7 + i, 2) % 1000000) / 10000.0, hashint8extended(seed * 7 + i, 3) % 1000, 1)), '{}')
    FROM generate_series(1, abs(hashint8extended(seed, 4)) % 5) i $$;
CREATE TABLE cases AS SELECT i, some_lots(i) AS a, some_lots(-i) AS b, some_lots(i + 1000000) AS c,
    some_tally(i) AS x, some_tally(-i) AS y, some_tally(i + 1000000) AS z FROM generate_series(1, 100000) i;
SELECT 'lots: commutative', i FROM cases WHERE a + b <> b + a;
SELECT 'lots: associative', i FROM cases WHERE (a + b) + c <> a + (b + c);
SELECT 'lots: inverse', i FROM cases WHERE a + (- a) <> '{}'::loyalty.lots OR (a + b) - b <> a;
SELECT 'lots: text', i FROM cases WHERE a::text::loyalty.lots <> a;
SELECT 'lots: total', i FROM cases WHERE total(a + b) <> total(a) + total(b);
SELECT 'lots: every day', i FROM cases, (VALUES (date '2024-01-15'), (date '2024-02-10')) d (day)
    WHERE available(a, day) + pending(a, day) + expired(a, day) <> total(a);
SELECT 'tally: commutative', i FROM cases WHERE x + y <> y + x;
SELECT 'tally: associative', i FROM cases WHERE (x + y) + z <> x + (y + z);
SELECT 'tally: inverse', i FROM cases WHERE x + (- x) <> '{}'::loyalty.tally OR (x + y) - y <> x;
SELECT 'tally: text', i FROM cases WHERE x::text::loyalty.tally <> x;
SELECT 'tally: sums', i FROM cases WHERE spend(x + y) <> spend(x) + spend(y) OR points(x + y) <> points(x) + points(y);
-- sums in parallel are sums in order
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;
CREATE TEMP TABLE parallel_sums AS SELECT sum(a) AS a, sum(x) AS x FROM cases;
SET max_parallel_workers_per_gather = 0;
SELECT 'parallel sum' FROM (SELECT sum(a) AS a, sum(x) AS x FROM cases) s, parallel_sums p WHERE s.a <> p.a OR s.x <> p.x;
-- binary copies
COPY cases TO PROGRAM 'cat > /dev/null' (FORMAT binary);
CREATE TABLE again (LIKE cases);
\copy cases to 'pgtmp.bin' (format binary)
\copy again from 'pgtmp.bin' (format binary)
\! rm -f pgtmp.bin
SELECT 'binary', i FROM cases JOIN again USING (i) WHERE cases.a <> again.a OR cases.x <> again.x;
SELECT 'grouping' FROM (SELECT count(DISTINCT a::text) AS n FROM cases) t, (SELECT count(*) AS n FROM (SELECT a FROM cases GROUP BY a) g) g WHERE t.n <> g.n;
