# Groceries, Epub, T10I4D100K, Online Retail: every pair and every measure of the reference answers
set -eu
psql -qX -d postgres -c 'DROP DATABASE IF EXISTS pairs' -c 'CREATE DATABASE pairs'
export PGDATABASE=pairs
run() { psql -qXAt -v ON_ERROR_STOP=1 "$@"; }
run <<'SQL'
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
CREATE TABLE reference (dataset text, file text, rank int, item_a text, item_b text, n bigint, n_a bigint, n_b bigint, n_ab bigint, support float8, conf_a_b float8, conf_b_a float8, lift float8, leverage float8,
    conviction_a_b float8, conviction_b_a float8, jaccard float8, cosine float8, chi2 float8, llr float8, llr_signed float8);
CREATE TABLE item_reference (dataset text, item text, n bigint);
CREATE TABLE result (dataset text PRIMARY KEY, whole loyalty.copurchase);
CREATE TABLE basket_item (dataset text, basket text, item text);
SQL
dataset() { # dataset NAME BASKET_COLUMN ITEM_COLUMN
  local file=$LOYALTY_DATA/$1/baskets.csv.gz
  run -c "CREATE TEMP TABLE raw ($(zcat "$file" | head -n 1 | tr -d '\r' | sed 's/,/ text, /g') text)" -c "\copy raw from program 'zcat $file' (format csv, header)" \
    -c "INSERT INTO basket_item SELECT '$1', basket_id, item FROM raw"
}
for name in groceries epub t10i4d100k; do dataset $name; done
run -c "CREATE TEMP TABLE raw ($(zcat "$LOYALTY_DATA/online-retail/online_retail.csv.gz" | head -n 1 | tr -d '\r' | sed 's/,/ text, /g') text)" \
  -c "\copy raw from program 'zcat $LOYALTY_DATA/online-retail/online_retail.csv.gz' (format csv, header)" \
  -c "INSERT INTO basket_item SELECT 'online-retail', invoice_no, stock_code FROM raw WHERE customer_id <> '' AND quantity::int > 0 AND unit_price::numeric > 0 AND invoice_no !~ '^[AC]'"
reference() { # reference NAME FILE
  run -c "CREATE TEMP TABLE part (LIKE reference)" -c "ALTER TABLE part DROP dataset, DROP file" \
    -c "\copy part from program 'case $2 in *.gz) zcat $LOYALTY_DATA/$1/reference/$2;; *) cat $LOYALTY_DATA/$1/reference/$2;; esac' (format csv, header)" \
    -c "INSERT INTO reference SELECT '$1', '$2', * FROM part"
}
for name in groceries epub t10i4d100k; do
  reference $name all_pairs.csv.gz
  run -c "CREATE TEMP TABLE part (item text, n bigint)" -c "\copy part from '$LOYALTY_DATA/$name/reference/item_counts.csv' (format csv, header)" -c "INSERT INTO item_reference SELECT '$name', * FROM part"
done
for name in groceries epub t10i4d100k online-retail; do reference $name top_pairs.csv; reference $name top_pairs_by_llr.csv; done
run <<'SQL'
-- integers where all items are; some baskets of Online Retail are larger than 500 items
INSERT INTO result SELECT dataset, loyalty.copurchase(items, 1000) FROM (SELECT dataset, array_agg(item) AS items FROM basket_item WHERE dataset <> 't10i4d100k' GROUP BY dataset, basket) t GROUP BY dataset;
INSERT INTO result SELECT dataset, loyalty.copurchase_rows(basket, item::int) FROM basket_item WHERE dataset = 't10i4d100k' GROUP BY dataset;
CREATE TABLE pair AS SELECT r.dataset, p.* FROM result r, loyalty.pairs(whole) p;
DO $$
DECLARE wrong text; n bigint; compared bigint;
BEGIN
    IF (SELECT count(*) FROM pair WHERE dataset = 'groceries') <> 9636 OR (SELECT count(*) FROM pair WHERE dataset = 'epub') <> 23534
       OR (SELECT count(*) FROM pair WHERE dataset = 't10i4d100k') <> 300828
       OR (SELECT (count(*), sum(p.n_ab), max(p.n)) IS DISTINCT FROM (2220183::bigint, 9119978::numeric, 18532::bigint) FROM pair p WHERE dataset = 'online-retail') THEN
        RAISE EXCEPTION 'not the pairs of the reference: %', (SELECT string_agg(format('%s %s', dataset, count), ', ') FROM (SELECT dataset, count(*) FROM pair GROUP BY dataset) t);
    END IF;
    SELECT count(*), min(format('%s: %s, %s', r.dataset, r.item_a, r.item_b)) INTO n, wrong
      FROM reference r LEFT JOIN pair p ON p.dataset = r.dataset AND p.a = r.item_a AND p.b = r.item_b,
        LATERAL (VALUES (r.support, p.support), (r.conf_a_b, p.confidence_ab), (r.conf_b_a, p.confidence_ba), (r.lift, p.lift), (r.leverage, p.leverage), (r.conviction_a_b, p.conviction_ab), (r.conviction_b_a, p.conviction_ba),
            (r.jaccard, p.jaccard), (r.cosine, p.cosine), (r.chi2, p.chi_square), (r.llr, p.log_likelihood),
            (r.llr_signed, CASE WHEN p.n_ab::numeric * p.n >= p.n_a::numeric * p.n_b THEN 1 ELSE -1 END * p.log_likelihood),
            ((r.conf_a_b + r.conf_b_a) / 2, p.kulczynski), (abs(r.n_a - r.n_b) / (r.n_a + r.n_b - r.n_ab)::float8, p.imbalance_ratio),
            (r.n, p.n), (r.n_a, p.n_a), (r.n_b, p.n_b), (r.n_ab, p.n_ab)) AS m (expected, got)
     WHERE NOT coalesce(got = expected OR CASE WHEN got <> 'infinity' AND expected <> 'infinity' THEN abs(got - expected) <= 1e-9 * abs(expected) END, false);
    SELECT count(*) INTO compared FROM reference;
    IF n <> 0 THEN RAISE EXCEPTION '% of the figures of % pairs differ, among them %', n, compared, wrong; END IF;
    IF compared <> 35929 OR (SELECT count(*) FROM reference WHERE dataset = 'groceries' AND file = 'all_pairs.csv.gz') <> 9636 THEN RAISE EXCEPTION 'only % pairs to compare with', compared; END IF;
    SELECT count(*) INTO n FROM item_reference e FULL JOIN (SELECT r.dataset, i.* FROM result r, loyalty.item_counts(whole) i WHERE r.dataset <> 'online-retail') i ON i.dataset = e.dataset AND i.item = e.item WHERE i.n IS DISTINCT FROM e.n;
    IF n <> 0 THEN RAISE EXCEPTION '% item counts differ', n; END IF;
END $$;
SQL
