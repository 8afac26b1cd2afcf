-- baskets of about 9.4 items out of :items, of which some are much more popular than others (Zipf, exponent 0.9)
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS loyalty;
SELECT setseed(0.42) \gset ignore_
CREATE TEMP TABLE popularity AS SELECT array_agg(upto / total ORDER BY i) AS upto FROM (SELECT i, sum(i ^ -0.9::float8) OVER (ORDER BY i) AS upto, sum(i ^ -0.9::float8) OVER () AS total FROM generate_series(1, :items) i) t;
-- items are numbered as a shop does it: not by popularity
CREATE TABLE basket_item AS SELECT DISTINCT b AS basket, (100000 + ((1 + width_bucket(random(), upto))::bigint * 7919 % 20011))::int AS item FROM popularity, generate_series(1, :baskets) b, generate_series(1, 2 + (hashint4(b) & 15) + (b % 6 = 0)::int) i;
CREATE TABLE basket AS SELECT basket, array_agg(item) AS items, array_agg('sku-' || item) AS skus FROM basket_item GROUP BY basket;
-- thirty of a thousand
CREATE TABLE large AS SELECT i AS basket, ARRAY(SELECT 100000 + ((s * 17 + i)::bigint * 7919 % 20011) FROM generate_series(1, 1000) s)::int[] AS items FROM generate_series(1, 30) i;
CREATE TABLE stored AS SELECT loyalty.copurchase(items) AS c, loyalty.copurchase(skus) AS t FROM basket;
CREATE TABLE probe AS SELECT row_number() OVER (ORDER BY basket) AS n, items::text[] AS items, skus FROM basket ORDER BY basket LIMIT 10000;
ALTER TABLE probe ADD PRIMARY KEY (n);
VACUUM ANALYZE basket_item, basket, large, stored, probe;
