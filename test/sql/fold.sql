-- what is bought together, kept by day; and what is suggested
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS loyalty;
SELECT loyalty.create_program('Fold', time_zone => 'UTC', currency => 'EUR', point_value => 0.01) AS p \gset
SELECT loyalty.add_rule(:p, 'fold base', 'purchase', 'base', 'purchase.amount') > 0 AS rule;
INSERT INTO loyalty.product (program_id, sku, name, category, brand) VALUES
    (:p, 'fold-tea', 'Tea', 'drinks', 'Leaf'), (:p, 'fold-milk', 'Milk', 'dairy', 'Cow'), (:p, 'fold-cake', 'Cake', 'bakery', 'Oven'),
    (:p, 'fold-jam', 'Jam', 'bakery', 'Oven'), (:p, 'fold-soap', NULL, 'house', NULL);
SELECT loyalty.enroll(:p, 'fold ann') AS ann, loyalty.enroll(:p, 'fold bob') AS bob, loyalty.enroll(:p, 'fold eve') AS eve \gset
CREATE FUNCTION pg_temp.basket(VARIADIC skus text[]) RETURNS loyalty.line[] LANGUAGE sql AS
    $$ SELECT array_agg(ROW('fold-' || s, 1, 10, NULL, NULL)::loyalty.line) FROM unnest(skus) s $$;
CREATE FUNCTION pg_temp.buy(member bigint, days integer, VARIADIC skus text[]) RETURNS bigint LANGUAGE sql AS
    $$ INSERT INTO loyalty.purchase (member_id, amount, occurred_at, lines) VALUES (member, 10 * cardinality(skus), now() - make_interval(days => days), pg_temp.basket(VARIADIC skus)) RETURNING purchase_id $$;
-- an obvious model: every pair of articles of a completed purchase that did not come back entirely, of whoever may be analysed
CREATE TEMP VIEW model AS
    WITH kept AS (
        SELECT f.day, p.purchase_id, l.sku
        FROM loyalty.analysis_purchase f JOIN loyalty.purchase p USING (purchase_id) CROSS JOIN LATERAL unnest(p.lines) WITH ORDINALITY l (sku, q, u, a, d, line)
        WHERE p.status = 'completed' AND f.program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Fold')
            AND (p.member_id IS NULL OR EXISTS (SELECT FROM loyalty.analysis_subject s WHERE s.member_id = f.member_id))
            AND NOT EXISTS (SELECT FROM loyalty.purchase_return r WHERE r.purchase_id = p.purchase_id AND r.lines IS NULL AND r.amount IS NULL)
            AND NOT EXISTS (SELECT FROM loyalty.purchase_return r CROSS JOIN LATERAL unnest(r.lines) x WHERE r.purchase_id = p.purchase_id AND (x.line = l.line OR x.sku = l.sku) AND x.amount IS NULL)),
    item AS (SELECT DISTINCT day, purchase_id, sku FROM kept)
    SELECT a.day, a.sku AS a, b.sku AS b, count(*) AS n FROM item a JOIN item b ON b.purchase_id = a.purchase_id AND b.sku > a.sku COLLATE "C" GROUP BY 1, 2, 3;
CREATE TEMP VIEW kept AS
    SELECT d.day, x.a, x.b, x.n_ab AS n FROM loyalty.copurchase_day d CROSS JOIN LATERAL loyalty.pair_counts(d.baskets) x WHERE d.program_id = (SELECT program_id FROM loyalty.program WHERE name = 'Fold');
CREATE TEMP VIEW differs AS (TABLE model EXCEPT ALL TABLE kept) UNION ALL (TABLE kept EXCEPT ALL TABLE model);

SELECT count(pg_temp.buy(:ann, 5, 'tea', 'milk')) + count(pg_temp.buy(:ann, 4, 'tea', 'milk', 'cake')) + count(pg_temp.buy(:bob, 4, 'tea', 'milk', 'milk'))
     + count(pg_temp.buy(:bob, 3, 'tea', 'cake')) + count(pg_temp.buy(:eve, 3, 'tea', 'soap')) + count(pg_temp.buy(:eve, 2, 'tea', 'jam')) AS bought;
SELECT pg_temp.buy(:bob, 30, 'tea', 'cake') AS late \gset
SELECT pg_temp.buy(:bob, 31, 'jam', 'cake', 'milk') AS mixed \gset
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT x.a, x.b, x.n_ab FROM loyalty.copurchase_total t CROSS JOIN LATERAL loyalty.pair_counts(t.baskets) x WHERE t.program_id = :p ORDER BY 3 DESC, 1, 2;

-- new purchases are added, on old days too; nothing is stale
SELECT pg_temp.buy(:ann, 4, 'tea', 'milk') > 0 AS bought;
CALL loyalty.refresh_analysis();
SELECT count(*) AS added, (SELECT count(*) FROM loyalty.copurchase_stale) AS stale FROM loyalty.copurchase_added;
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
-- a purchase that changes, one that is void, one of which a line comes back, one that comes back entirely, and a price reduction
UPDATE loyalty.purchase SET lines = pg_temp.basket('tea', 'jam'), occurred_at = occurred_at - interval '2 days' WHERE purchase_id = :late;
INSERT INTO loyalty.purchase_return (purchase_id, lines) VALUES (:mixed, loyalty.return_lines('[{"sku": "fold-milk"}]'));
INSERT INTO loyalty.purchase_return (purchase_id, lines) SELECT max(purchase_id), loyalty.return_lines('[{"line": 1, "amount": 1}]') FROM loyalty.purchase WHERE member_id = :ann;
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
INSERT INTO loyalty.purchase_return (purchase_id) VALUES (:mixed);
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = :late;
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT count(*) AS gone FROM loyalty.copurchase_day WHERE program_id = :p AND day < current_date - 20;
-- a member who does not want to be analysed is left out, and is in again
SELECT loyalty.withdraw_consent(:eve, 'analysis', 'any', 'test');
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT count(*) AS of_eve FROM kept WHERE 'fold-soap' IN (a, b);
SELECT loyalty.give_consent(:eve, 'analysis', 'any', 'test', now() + interval '1 minute');
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT count(*) AS of_eve FROM kept WHERE 'fold-soap' IN (a, b);
-- whoever is merged into another brings its word along: the other's days are counted anew, too; what was suggested to it is accepted by the other
SELECT loyalty.enroll(:p, 'fold sam') AS sam, loyalty.enroll(:p, 'fold same') AS same \gset
SELECT pg_temp.buy(:sam, 12, 'wax', 'oil') + pg_temp.buy(:same, 20, 'wax', 'oil') > 0 AS bought;
SELECT loyalty.set_copurchase(:p, min_count => 1);
CALL loyalty.fold_copurchase();
SELECT suggestion_id AS merged_s FROM loyalty.suggest(:same, '{fold-wax}', 1) \gset
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, lines) VALUES (:sam, 10, now() + interval '1 hour', pg_temp.basket('oil'));
SELECT loyalty.withdraw_consent(:same, 'analysis', 'any', 'test');
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT count(*) AS of_sam FROM kept WHERE 'fold-wax' IN (a, b);
SELECT loyalty.merge_members(:same, :sam, 'test') > 0 AS merged;
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT count(*) AS of_sam FROM kept WHERE 'fold-wax' IN (a, b);
SELECT count(*) AS accepted FROM loyalty.suggestion_accepted WHERE suggestion_id = :merged_s;
SELECT loyalty.give_consent(:sam, 'analysis', 'any', 'test', now() + interval '1 minute');
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT sku FROM loyalty.suggestion_accepted WHERE suggestion_id = :merged_s;
SELECT loyalty.set_copurchase(:p);
-- the total is the sum of the window's days, whatever the window; twice changes nothing; counting anew gives the same
CREATE TEMP VIEW broken AS
    SELECT t.program_id FROM loyalty.copurchase_total t WHERE t.baskets::text IS DISTINCT FROM loyalty.sum_days(t.program_id, t.from_day, 'infinity')::text AND loyalty.basket_count(t.baskets) > 0;
TABLE broken;
SELECT loyalty.set_copurchase(:p, window_days => 4, min_count => 1);
CALL loyalty.fold_copurchase();
TABLE broken;
SELECT loyalty.basket_count(baskets) FROM loyalty.copurchase_total WHERE program_id = :p;
SELECT loyalty.set_copurchase(:p, window_days => 365, min_count => 1, max_items => 2);
CALL loyalty.fold_copurchase(days => 1);
TABLE broken;
SELECT (loyalty.totals(baskets)).* FROM loyalty.copurchase_total WHERE program_id = :p;
SELECT loyalty.set_copurchase(:p, min_count => 1);
CALL loyalty.fold_copurchase();
CREATE TEMP TABLE before AS SELECT program_id, day, baskets FROM loyalty.copurchase_day;
CALL loyalty.fold_copurchase();
CALL loyalty.fold_copurchase(rebuild => true);
CALL loyalty.refresh_analysis(rebuild => true);
CALL loyalty.fold_copurchase();
SELECT count(*) AS differ FROM before b FULL JOIN loyalty.copurchase_day d USING (program_id, day) WHERE b.baskets::text IS DISTINCT FROM d.baskets::text;
SELECT * FROM differs;
TABLE broken;

-- suggestions: a guest, for whom nothing personal counts
SELECT count(pg_temp.buy(:ann, 40 + i, 'pen', 'ink')) + count(pg_temp.buy(:ann, 40 + i, 'pen', 'ink', 'soap')) AS bought FROM generate_series(1, 3) i;
SELECT loyalty.set_copurchase(:p);
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT rank, sku, name, because, baskets, round(score::numeric, 6) AS score, reason FROM loyalty.suggest(NULL, '{fold-pen,fold-cake}', 4, program_id => :p);
SELECT loyalty.set_copurchase(:p, min_count => 1, measure => 'count');
SELECT rank, sku, name, because, baskets, score, reason FROM loyalty.suggest(NULL, '{fold-tea}', 4, program_id => :p);
-- a member: not what was just bought, and what it has a taste for first
SELECT pg_temp.buy(:bob, 40, 'jam', 'cake') + pg_temp.buy(:bob, 41, 'jam') + pg_temp.buy(:bob, 42, 'cake') > 0 AS taste;
SELECT pg_temp.buy(:eve, 0, 'milk') > 0 AS just_bought;
CALL loyalty.fold_copurchase();
SELECT rank, sku, because, baskets, reason FROM loyalty.suggest(:eve, '{fold-tea}', 4);
SELECT loyalty.set_copurchase(:p, min_count => 1, skip_days => 1, measure => 'count');
SELECT rank, sku, because, baskets, reason FROM loyalty.suggest(:bob, '{fold-tea,fold-nothing,NULL}', 4);
-- not what the member does not like, nor what is not to be had, here or anywhere
UPDATE loyalty.member SET attributes = '{"dislikes": ["dairy", "fold-soap"]}' WHERE member_id = :bob;
INSERT INTO loyalty.out_of_stock VALUES (:p, 'fold-jam', 'S1');
SELECT rank, sku FROM loyalty.suggest(:bob, '{fold-tea}', 4, store => 'S1');
SELECT rank, sku FROM loyalty.suggest(:bob, '{fold-tea}', 4, store => 'S2');
INSERT INTO loyalty.out_of_stock VALUES (:p, 'fold-jam');
SELECT rank, sku FROM loyalty.suggest(:bob, '{fold-tea}', 4, store => 'S2');
-- who may not be analysed gets what a guest gets, and is not named
SELECT loyalty.withdraw_consent(:bob, 'analysis', 'any', 'test', now() + interval '2 minutes');
SELECT rank, sku FROM loyalty.suggest(:bob, '{fold-tea}', 4);
SELECT member_id IS NULL AS nobody, skus FROM loyalty.suggestion ORDER BY suggestion_id DESC LIMIT 1;
-- an empty basket, unknown articles, and no log
SELECT count(*) FROM loyalty.suggest(:eve, '{}');
SELECT count(*) FROM loyalty.suggest(:eve, NULL);
SELECT count(*) FROM loyalty.suggest(:eve, '{nothing}');
SELECT count(*) AS logged FROM loyalty.suggestion \gset before_
SELECT count(*), count(suggestion_id) AS numbered FROM loyalty.suggest(:eve, '{fold-cake}', log => false);
SELECT count(*) = :before_logged AS not_logged FROM loyalty.suggestion;

-- what came of it: bought within a day after it was suggested
DELETE FROM loyalty.out_of_stock;
SELECT suggestion_id AS s FROM loyalty.suggest(:eve, '{fold-tea}', 4, store => 'S1') LIMIT 1 \gset
SELECT suggestion_id AS guest FROM loyalty.suggest(NULL, '{fold-tea}', 2, program_id => :p, store => 'S1') LIMIT 1 \gset
INSERT INTO loyalty.purchase (member_id, amount, occurred_at, lines) VALUES (:eve, 40, now() + interval '1 hour', pg_temp.basket('tea', 'cake', 'cake', 'jam')) RETURNING purchase_id AS yield \gset
SELECT loyalty.accept_suggestion(:guest, 'fold-milk', 12.5), loyalty.accept_suggestion(:guest, 'fold-milk', 99);
CALL loyalty.fold_copurchase();
SELECT suggestion_id = :s AS this, sku, quantity, amount FROM loyalty.suggestion_accepted WHERE purchase_id IS NOT NULL ORDER BY 2;
CALL loyalty.fold_copurchase();
SELECT personal, suggestions, articles, accepted_suggestions, accepted_articles, extra_revenue, acceptance FROM loyalty.bi_suggestion WHERE program_id = :p AND store = 'S1' ORDER BY personal;
-- taken back
INSERT INTO loyalty.purchase_return (purchase_id, occurred_at, lines) VALUES (:yield, now() + interval '2 hours', loyalty.return_lines('[{"sku": "fold-jam"}]'));
CALL loyalty.fold_copurchase();
SELECT sku FROM loyalty.suggestion_accepted WHERE suggestion_id = :s;
UPDATE loyalty.purchase SET status = 'void' WHERE purchase_id = :yield;
CALL loyalty.fold_copurchase();
SELECT sku FROM loyalty.suggestion_accepted WHERE suggestion_id = :s;
SELECT loyalty.erase_member(:eve, 'test');
SELECT count(*) AS named FROM loyalty.suggestion WHERE member_id = :eve;
CALL loyalty.fold_copurchase();
SELECT * FROM differs;
SELECT a_name, b_name, both_baskets, round(lift::numeric, 4) AS lift FROM loyalty.bi_copurchase WHERE program_id = :p ORDER BY rank;
-- the pairs are listed anew when the setting changed, and after a run that was killed before it came to that
SELECT loyalty.set_copurchase(:p, min_count => 3);
CALL loyalty.fold_copurchase();
SELECT count(*) > 0 AS listed, count(*) FILTER (WHERE both_baskets < 3) AS rare FROM loyalty.bi_copurchase WHERE program_id = :p;
SELECT count(pg_temp.buy(:ann, 7, 'pen', 'ink')) FROM generate_series(1, 2);
CALL loyalty.refresh_analysis();
SELECT loyalty.begin_fold(), loyalty.step_fold(100);
CALL loyalty.fold_copurchase();
SELECT c.both_baskets = x.n_ab AS right FROM loyalty.bi_copurchase c JOIN loyalty.copurchase_total t USING (program_id) CROSS JOIN LATERAL loyalty.pair_counts(t.baskets) x
    WHERE program_id = :p AND (c.a, c.b) = ('fold-ink', 'fold-pen') AND (x.a, x.b) = (c.a, c.b);
SELECT view_name, kept, fresh_at IS NOT NULL AS fresh, refreshing FROM loyalty.bi_freshness WHERE view_name IN ('bi_copurchase', 'bi_suggestion') ORDER BY 1;

-- what a caller can do wrong
SELECT loyalty.suggest(-1, '{a}');
SELECT loyalty.suggest(:ann, '{a}', 0);
SELECT loyalty.suggest(NULL, '{a}');
CREATE FUNCTION pg_temp.state_of(statement text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE statement; RETURN 'no error'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
SELECT pg_temp.state_of(format('SELECT loyalty.suggest(%s, ''{a}'', program_id => %s)', :ann, :p + 1000));
SELECT loyalty.suggest(:ann, array_agg(i::text)) FROM generate_series(1, 1001) i;
SELECT pg_temp.state_of(format('SELECT loyalty.accept_suggestion(%s, ''fold-nothing'', 1)', :guest));
SELECT loyalty.accept_suggestion(:guest, 'fold-milk', 'NaN');
SELECT loyalty.set_copurchase(:p, measure => 'magic');
SELECT loyalty.add_wallet(:p, 'Fold stamps') AS wallet \gset
SELECT loyalty.set_copurchase(:wallet);
SELECT loyalty.set_analysis(:wallet);
SELECT loyalty.suggest(NULL, '{a}', program_id => :wallet);
CALL loyalty.fold_copurchase(days => 0);
SELECT * FROM loyalty.check() WHERE invariant LIKE '%together%';
