-- The shop of the report: two years of trade that end now, planned here in the schema shop and played by week.sql while
-- the server's clock runs through them. The same each time but for the dates.
--   psql -v ends=2026-11-25 -f shop.sql
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
CREATE SCHEMA shop;
CREATE FUNCTION shop.u(n bigint, salt integer) RETURNS float8 LANGUAGE sql IMMUTABLE AS
    'SELECT (1 + (hashint8extended(n, salt) & 1073741823)) / 1073741825.0::float8';
CREATE TABLE shop.clock AS SELECT date :'ends' - 728 AS starts, date :'ends' AS ends;

-- what it sells; goes_with: what else lies in the basket
CREATE TABLE shop.article AS
    SELECT row_number() OVER () AS n, * FROM (VALUES
        ('TEA-1', 'Earl Grey', 'Tea', 'Leaf Trade', 6.50, 'HON-1', 10), ('TEA-2', 'Assam', 'Tea', 'Leaf Trade', 5.90, 'HON-1', 7), ('TEA-3', 'Sencha', 'Tea', 'Leaf Trade', 8.40, 'CRO-1', 5),
        ('TEA-4', 'Peppermint', 'Tea', 'House', 4.20, 'HON-2', 6), ('TEA-5', 'Rooibos', 'Tea', 'House', 4.50, 'BIS-1', 4),
        ('HON-1', 'Acacia honey', 'Honey', 'Bee & Bloom', 7.80, 'TEA-1', 4), ('HON-2', 'Heather honey', 'Honey', 'Bee & Bloom', 9.20, 'TEA-4', 3), ('HON-3', 'Lime blossom honey', 'Honey', 'House', 6.90, 'BIS-2', 2),
        ('COF-1', 'Espresso beans', 'Coffee', 'Roastery Nine', 12.50, 'CHO-1', 9), ('COF-2', 'Filter coffee', 'Coffee', 'Roastery Nine', 9.80, 'BIS-1', 7), ('COF-3', 'Decaf', 'Coffee', 'House', 9.20, 'BIS-2', 3),
        ('BIS-1', 'Shortbread', 'Biscuits', 'House', 3.80, 'COF-2', 5), ('BIS-2', 'Almond biscuits', 'Biscuits', 'House', 4.60, 'COF-1', 4), ('BIS-3', 'Oat biscuits', 'Biscuits', 'Mill Lane', 3.20, 'TEA-2', 3),
        ('CHO-1', 'Dark chocolate', 'Chocolate', 'Mill Lane', 4.90, 'COF-1', 5), ('CHO-2', 'Hazelnut chocolate', 'Chocolate', 'Mill Lane', 5.20, 'GIF-1', 4), ('CHO-3', 'Orange chocolate', 'Chocolate', 'Mill Lane', 5.20, 'GIF-2', 2),
        ('CRO-1', 'Teapot', 'Crockery', 'Kiln', 34.00, 'TEA-3', 1), ('CRO-2', 'Mug', 'Crockery', 'Kiln', 11.50, 'COF-2', 2), ('CRO-3', 'Tea strainer', 'Crockery', 'Kiln', 8.90, 'TEA-1', 2),
        ('GIF-1', 'Gift box', 'Gifts', 'House', 24.00, 'CHO-2', 2), ('GIF-2', 'Greeting card', 'Gifts', 'House', 2.80, 'GIF-1', 3), ('GIF-3', 'Beeswax candle', 'Gifts', 'Bee & Bloom', 13.50, 'HON-2', 2))
        a (sku, name, category, brand, price, goes_with, popularity);
ALTER TABLE shop.article ADD upto float8;
UPDATE shop.article a SET upto = x.upto FROM (SELECT sku, (sum(popularity) OVER (ORDER BY n))::float8 / sum(popularity) OVER () AS upto FROM shop.article) x WHERE x.sku = a.sku;

-- who buys: many come once, a few every week; some leave
CREATE TABLE shop.person AS
    SELECT p, c.starts + (CASE WHEN shop.u(p, 1) < 0.22 THEN 35 * shop.u(p, 2) ELSE 35 + 690 * power(shop.u(p, 2), 0.85) END)::integer AS joins,
           0.015 + 0.8 * power(shop.u(p, 3), 3) AS weekly, -ln(shop.u(p, 4)) * 70 AS weeks,
           CASE WHEN shop.u(p, 5) < 0.2 THEN 'Web' WHEN shop.u(p, 5) < 0.58 THEN 'High Street' WHEN shop.u(p, 5) < 0.83 THEN 'Station' ELSE 'Market Hall' END AS store,
           NULL::bigint AS brought_by, NULL::bigint AS member_id
    FROM shop.clock c, generate_series(1, 640) p;
UPDATE shop.person f SET brought_by = (SELECT r.p FROM shop.person r WHERE r.joins < f.joins - 20 AND r.joins + (7 * r.weeks)::integer > f.joins AND r.weekly > 0.1 ORDER BY shop.u(r.p * 10000 + f.p, 6) LIMIT 1)
    WHERE shop.u(p, 7) < 0.16;

-- when they come: at their own rhythm, more before Christmas, less in July and August
CREATE TABLE shop.visit AS
    SELECT row_number() OVER (ORDER BY v.at, v.p) AS v, v.*
    FROM (SELECT x.p, x.store, x.k, x.day + ((9 + 9 * shop.u(x.p * 1000 + x.k, 9)) * interval '1 hour') AS at
          FROM (SELECT p.*, k, p.joins + (7 * sum(CASE WHEN k = 1 THEN 0 ELSE -ln(shop.u(p.p * 1000 + k, 8)) / p.weekly / 1.45 END) OVER (PARTITION BY p.p ORDER BY k))::integer AS day
                FROM shop.person p, generate_series(1, 170) k) x, shop.clock c
          WHERE x.day < c.ends - 1 AND x.day <= x.joins + (7 * x.weeks)::integer
                AND (x.k = 1 OR shop.u(x.p * 1000 + x.k, 10) < (ARRAY[0.62, 0.6, 0.64, 0.66, 0.64, 0.6, 0.5, 0.48, 0.62, 0.7, 0.84, 1.0])[extract(month FROM x.day)::integer])
          UNION ALL
          SELECT NULL, (ARRAY['High Street', 'Station', 'Market Hall'])[1 + g % 3], 0, c.starts + 1 + (725 * shop.u(g, 11))::integer + (9 + 9 * shop.u(g, 12)) * interval '1 hour'
          FROM shop.clock c, generate_series(1, 900) g
          UNION ALL
          -- one who tries what the till lets pass: eight baskets on one day, three times
          SELECT 3, 'Station', 900 + g, c.ends - (ARRAY[5, 130, 410])[1 + g / 8] + (10 + g % 8) * interval '1 hour' FROM shop.clock c, generate_series(0, 23) g) v;
CREATE INDEX ON shop.visit (at);

-- what they take: one thing, often what goes with it, sometimes more
CREATE TABLE shop.basket AS
    SELECT x.v, array_agg(ROW(x.sku, x.quantity, x.price, NULL, NULL)::loyalty.line ORDER BY x.sku) AS lines, sum(x.quantity * x.price) AS amount
    FROM (SELECT t.v, b.sku, b.price, max(1 + (2.4 * power(shop.u(t.v * 10 + b.n, 13), 4))::integer)::numeric AS quantity
          FROM shop.visit t
               CROSS JOIN LATERAL (SELECT * FROM shop.article a WHERE a.upto >= shop.u(t.v, 14) ORDER BY a.upto LIMIT 1) first
               CROSS JOIN LATERAL (SELECT first.sku UNION SELECT first.goes_with WHERE shop.u(t.v, 15) < 0.42
                                   UNION SELECT a.sku FROM generate_series(1, (3.6 * power(shop.u(t.v, 16), 2.2))::integer) i,
                                                LATERAL (SELECT a.sku FROM shop.article a WHERE a.upto >= shop.u(t.v * 10 + i, 17) ORDER BY a.upto LIMIT 1) a) w
               JOIN shop.article b ON b.sku = w.sku
          GROUP BY t.v, b.sku, b.price) x
    GROUP BY x.v;
ALTER TABLE shop.basket ADD PRIMARY KEY (v);
ANALYZE;

-- the programme
SELECT loyalty.create_program('Honey Club', time_zone => 'Europe/London', currency => 'GBP', points_name => 'drops', point_value => 0.01, hold_days => 14,
    expiry_months => 9, expiry_round => 'month', tier_window => 'rolling', tier_months => 12) > 0 \g /dev/null
SELECT loyalty.add_tier(1, 'Bee', 0, 'spend'), loyalty.add_tier(1, 'Silver', 150, 'spend', 1.1), loyalty.add_tier(1, 'Gold', 400, 'spend', 1.25), loyalty.add_tier(1, 'Queen', 900, 'spend', 1.5) \g /dev/null
INSERT INTO loyalty.product (program_id, sku, name, category, brand) SELECT 1, sku, name, category, brand FROM shop.article;
SELECT loyalty.add_rule(1, 'Base rate', 'purchase', 'base', '4 * purchase.amount'),
       loyalty.add_rule(1, 'House brand', 'line', 'multiply', '1.5', 'product.brand = ''House'''),
       loyalty.add_rule(1, 'Big basket', 'purchase', 'bonus', '100', 'purchase.amount >= 60'),
       loyalty.add_rule(1, 'Reviews', 'activity', 'base', '30', 'activity.kind = ''review'''),
       loyalty.add_rule(1, 'Survey', 'activity', 'base', '10', 'activity.kind = ''nps''') \g /dev/null
SELECT loyalty.add_rule(1, r.name, r.event, r.kind, r.points, r.condition, active_from => c.ends - r.began, active_until => c.ends - r.ended)
    FROM shop.clock c, (VALUES ('Tea month', 'line', 'multiply', '2', 'product.category = ''Tea''', 560, 530), ('Honey weeks', 'line', 'multiply', '3', 'product.category = ''Honey''', 400, 379),
        ('Spring gifts', 'purchase', 'bonus', '80', 'purchase.amount >= 25', 250, 229), ('Back from holiday', 'purchase', 'bonus', '60', 'purchase.amount >= 15', 90, 62),
        ('Coffee days', 'line', 'multiply', '2', 'product.category = ''Coffee''', 35, 5)) r (name, event, kind, points, condition, began, ended) \g /dev/null
SELECT loyalty.add_reward(1, 'Free mug', 'product', 600, sku => 'CRO-2', category => 'Gifts', stock => 400), loyalty.add_reward(1, 'Five pounds off', 'discount_amount', 500, 5, category => 'Discounts'),
       loyalty.add_reward(1, 'Tea tasting', 'event', 900, category => 'Events'), loyalty.add_reward(1, 'Free delivery', 'shipping', 250, category => 'Delivery'),
       loyalty.add_reward(1, 'Plant a meadow', 'donation', 300, 3, category => 'Good causes'), loyalty.add_reward(1, 'Teapot', 'product', 2400, sku => 'CRO-1', category => 'Gifts', stock => 30),
       loyalty.add_reward(1, 'Free coffee beans', 'product', NULL, sku => 'COF-1') \g /dev/null
SELECT loyalty.add_coupon_pool(1, 'welcome', 'discount_amount', 3, valid_days => 60), loyalty.add_coupon_pool(1, 'we miss you', 'discount_percent', 15, valid_days => 30) \g /dev/null
SELECT loyalty.make_coupons(1, 'welcome', 700), loyalty.make_coupons(1, 'we miss you', 700) \g /dev/null
SELECT loyalty.add_stamp_card(1, 'Ten coffees', 'units', 10, 'Free coffee beans', category => 'Coffee', valid_from => now()) \g /dev/null
SELECT loyalty.add_challenge(1, 'Three visits a month', 'visits', 3, 60, 'month'), loyalty.add_challenge(1, 'Tea explorer', 'units', 4, 40, 'month', condition => 'product.category = ''Tea''', badge => 'Tea explorer'),
       loyalty.add_challenge(1, 'Four weeks in a row', 'visits', 1, 100, 'week', streak => 4, badge => 'Regular') \g /dev/null
SELECT loyalty.set_referral(1, 250, 150, min_amount => 12, qualify_days => 45, cap => 5) \g /dev/null
SELECT loyalty.add_limit(1, 'Four baskets a day', 4, '1 day'), loyalty.add_limit(1, '2000 drops a day', 2000, '1 day', measure => 'points', verdict => 'clip') \g /dev/null
SELECT loyalty.set_activity_policy(1, 'review', once_per_subject => true, verified_purchase => true, needs_approval => true) \g /dev/null
\ir week.sql
