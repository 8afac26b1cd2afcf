-- members who bought before, and a programme whose total is that of all baskets
SELECT loyalty.create_program('Bench', time_zone => 'UTC', currency => 'EUR') \gset b_
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount') \gset b_
INSERT INTO loyalty.product (program_id, sku, name, category, brand)
    SELECT 1, i.item, 'Article ' || i.item, 'category ' || (hashtext(i.item) & 63), 'brand ' || (hashtext(i.item) & 255) FROM stored, loyalty.item_counts(t) i;
INSERT INTO loyalty.member (program_id, external_id) SELECT 1, 'm' || i FROM generate_series(1, 10000) i;
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, lines)
    SELECT 1 + (n * j) % 10000, cardinality(skus), now() - make_interval(days => 6 * j), (SELECT array_agg(ROW(u, 1, 1, NULL, NULL)::loyalty.line) FROM unnest(skus) u) FROM probe, generate_series(1, 5) j;
INSERT INTO loyalty.out_of_stock SELECT program_id, sku FROM loyalty.product WHERE hashtext(sku) % 100 = 0;
CALL loyalty.fold_copurchase();
UPDATE loyalty.copurchase_total SET baskets = (SELECT t FROM stored) WHERE program_id = 1;
VACUUM ANALYZE;
