-- A shop of two years, the same every time: few customers buy much and few
-- articles sell much (squares of uniform hashes), November is four times March,
-- nights are quiet.
INSERT INTO raw_line
SELECT row_number() OVER (ORDER BY o, l), (100000 + o)::text, 'A' || article, names.name, quantity, at,
       price, CASE WHEN abs(hashint8extended(o, 9)) % 12 > 0 THEN (1000 + customer)::text END, 'United Kingdom'
FROM (SELECT o, abs(hashint8extended(o, 1)) % 1500 * (abs(hashint8extended(o, 2)) % 1500) / 1500 AS customer,
             timestamp '2023-01-01 08:00' + (2 * 365 * greatest(x, (abs(hashint8extended(o, 3)) % 1000) / 1000.0)) * interval '1 day'
                 + (abs(hashint8extended(o, 4)) % 720) * interval '1 minute' AS at,
             1 + abs(hashint8extended(o, 5)) % 8 AS n
      FROM (SELECT o, (abs(hashint8extended(o, 6)) % 10000) / 10000.0 AS x FROM generate_series(1, 20000) o) u
      WHERE (abs(hashint8extended(o, 7)) % 100) < 100 - 60 * abs(11 - ((x * 24)::int % 12)) / 11) orders,
     LATERAL generate_series(1, n) l,
     LATERAL (SELECT (abs(hashint8extended(o * 17 + l, 1)) % 300) * (abs(hashint8extended(o * 17 + l, 2)) % 300) / 300 AS article,
                     1 + abs(hashint8extended(o * 17 + l, 3)) % 6 AS quantity) a,
     LATERAL (SELECT ((95 + (abs(hashint8extended(article, 4)) % 2000)) / 100.0)::numeric(10, 2) AS price) p,
     LATERAL (SELECT (ARRAY['Teapot', 'Christmas star', 'Notebook', 'Lantern', 'Party bag', 'Mug', 'Cushion', 'Christmas card', 'Cake stand', 'Umbrella'])[1 + article % 10] || ' no. ' || article AS name) names;
