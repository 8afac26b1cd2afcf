# Online Retail: what the views say equals the reference tables; clean sales without returns are the gross amounts
set -euo pipefail
psql -qX -d postgres -c 'DROP DATABASE IF EXISTS retail' -c 'CREATE DATABASE retail'
export PGDATABASE=retail
run() { psql -qXAt -v ON_ERROR_STOP=1 "$@"; }
run -f test/demo/stage.sql
zcat "$LOYALTY_DATA/online-retail/online_retail.csv.gz" | run -c "\copy raw_line from stdin (format csv, header)"
run -f test/demo/programme.sql
# the store is the country
run <<'SQL'
INSERT INTO loyalty.purchase (member_id, occurred_at, store, channel, amount, lines, source, reference)
    SELECT b.member_id, b.occurred_at, c.country, b.channel, b.amount, b.lines, 'shop', b.reference
    FROM basket b JOIN (SELECT invoice_no, min(country) AS country FROM sale GROUP BY 1) c ON c.invoice_no = b.reference ORDER BY b.reference;
SQL
began=$(date +%s%N)
run -c 'CALL loyalty.refresh_analysis()'
echo "refresh of $(run -c 'SELECT count(*) FROM loyalty.purchase') purchases: $((($(date +%s%N) - began) / 1000000)) ms"
run -c ANALYZE
for name in customer_revenue rfm_cells_ntile rfm_cells_cume rfm_score_counts pareto monthly_revenue cohort_retention country_revenue frequency_distribution facts; do
  file=$LOYALTY_DATA/online-retail/reference/$name.csv
  run -c "CREATE TABLE $name ($(head -n 1 "$file" | tr -d '\r' | sed 's/,/ text, /g') text)"
  run -c "\copy $name from '$file' (format csv, header)"
done
sums=$(mktemp)
cat >"$sums" <<'SQL'
CREATE FUNCTION same(what text, ours text, theirs text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wrong bigint;
    n bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM ((%1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL %1$s)) d', ours, theirs) INTO wrong;
    EXECUTE format('SELECT count(*) FROM (%s) d', theirs) INTO n;
    IF wrong <> 0 OR n = 0 THEN
        RAISE EXCEPTION '%: % rows of % differ', what, wrong, n;
    END IF;
    RAISE NOTICE '%: % rows equal', what, n;
END $$;
SELECT same('RFM', 'SELECT m.external_id, r.recency_days, r.frequency, r.monetary, r.r_ntile, r.f_ntile, r.m_ntile, r.r_cume, r.f_cume, r.m_cume FROM loyalty.bi_rfm r JOIN loyalty.member m USING (member_id)',
    'SELECT customer_id, recency_days::bigint, sale_invoices::bigint, gross_value::numeric, r_ntile::bigint, f_ntile::bigint, m_ntile::bigint, r_cume::bigint, f_cume::bigint, m_cume::bigint FROM customer_revenue WHERE sale_invoices::int > 0');
SELECT same('days with purchases', 'SELECT m.external_id, c.purchase_days, c.first_day, c.last_day FROM loyalty.bi_cadence c JOIN loyalty.member m USING (member_id)',
    'SELECT customer_id, sale_days::bigint, first_sale::date, last_sale::date FROM customer_revenue WHERE sale_invoices::int > 0');
SELECT same('RFM cells, ' || m, format('SELECT r, f, m, members, amount FROM loyalty.bi_rfm_cell WHERE method = %L', m),
    format('SELECT r::bigint, f::bigint, m::bigint, customers::bigint, gross_value::numeric FROM rfm_cells_%s', m)) FROM unnest('{ntile,cume}'::text[]) m;
SELECT same('RFM scores', 'SELECT v.method, v.dimension, v.score, count(*) FROM loyalty.bi_rfm r CROSS JOIN LATERAL (VALUES (''ntile'', ''r'', r.r_ntile), (''ntile'', ''f'', r.f_ntile), (''ntile'', ''m'', r.m_ntile),
        (''cume'', ''r'', r.r_cume), (''cume'', ''f'', r.f_cume), (''cume'', ''m'', r.m_cume)) v (method, dimension, score) GROUP BY 1, 2, 3',
    'SELECT method, dimension, score::bigint, customers::bigint FROM rfm_score_counts WHERE customers <> ''0''');
SELECT same('Pareto', 'SELECT p.top_percent, p.members, p.amount, p.total, p.share FROM loyalty.bi_pareto p WHERE p.measure = ''gross'' AND p.top_percent IN (1, 5, 10, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)',
    'SELECT top_pct_customers::numeric, customers::bigint, value::numeric, total::numeric, share::numeric FROM pareto WHERE measure = ''gross_value''');
SELECT same('months', 'SELECT to_char(month, ''YYYY-MM''), lines, purchases, members, new_buyers, amount, average_order FROM loyalty.bi_month',
    'SELECT month, sales_lines::bigint, sales_invoices::bigint, active_customers::bigint, new_customers::bigint, sales_value::numeric, aov_gross::numeric FROM monthly_revenue');
SELECT same('cohorts', 'SELECT to_char(cohort, ''YYYY-MM''), month_offset, members FROM loyalty.bi_cohort', 'SELECT cohort, month_offset::bigint, customers::bigint FROM cohort_retention');
SELECT same('countries', 'SELECT store, lines, purchases, members, amount FROM loyalty.bi_store',
    'SELECT country, sales_lines::bigint, sales_invoices::bigint, customers::bigint, sales_value::numeric FROM country_revenue WHERE sales_lines <> ''0''');
SELECT same('frequency', 'SELECT purchases, members FROM loyalty.bi_frequency', 'SELECT sale_invoices::bigint, customers::bigint FROM frequency_distribution');
SELECT same('facts', 'SELECT v.* FROM loyalty.bi_program p CROSS JOIN LATERAL (VALUES (''repeat_purchase_rate_invoices'', p.repeat_rate), (''repeat_purchase_rate_days'', p.repeat_day_rate), (''gini_gross_value'', p.gini),
        (''sales_customers'', p.buyers), (''sales_invoices'', p.purchases), (''sales_value'', p.amount), (''average_order_value_gross'', p.average_order)) v (fact, value)',
    'SELECT fact, value::numeric FROM facts WHERE fact IN (''repeat_purchase_rate_invoices'', ''repeat_purchase_rate_days'', ''gini_gross_value'', ''sales_customers'', ''sales_invoices'', ''sales_value'', ''average_order_value_gross'')');
DO $$
DECLARE
    share numeric;
    repeat numeric;
BEGIN
    SELECT top_fifth_share, repeat_rate INTO share, repeat FROM loyalty.bi_program;
    IF round(100 * share, 3) <> 74.617 OR round(100 * repeat, 3) <> 65.583 THEN
        RAISE EXCEPTION 'the best fifth brings % and % come again', share, repeat;
    END IF;
    RAISE NOTICE 'the best fifth brings % per cent, % per cent come again', round(100 * share, 3), round(100 * repeat, 3);
END $$;
SQL
run -f "$sums" 2>&1 | sed 's/.*NOTICE: *//; /^$/d'
rm -f "$sums"
# BG/NBD in days up to the last day of trade: what the Python package lifetimes prints of this file in public notebooks
run <<'SQL'
DO $$
DECLARE
    f loyalty.bgnbd_model;
BEGIN
    SELECT (loyalty.bgnbd_fit(days - 1, last_day - first_day, date '2011-12-09' - first_day)).* INTO f FROM loyalty.analysis_member;
    IF (round(f.a::numeric, 2), round(f.alpha::numeric, 1), round(f.b::numeric, 2), round(f.r::numeric, 2), f.converged) IS DISTINCT FROM (0.00, 68.9, 6.75, 0.83, true) THEN
        RAISE EXCEPTION 'BG/NBD: %', f;
    END IF;
END $$;
SQL
echo "BG/NBD: r 0.83, alpha 68.9, a 0.00, b 6.75 in days"
# every view whole, each column made; the best of three times, as others may be at work here
slow=
for view in $(run -c "SELECT relname FROM pg_class WHERE relnamespace = 'loyalty'::regnamespace AND relkind = 'v' AND relname LIKE 'bi\\_%' ORDER BY 1"); do
  took=
  for try in 1 2 3; do
    began=$(date +%s%N)
    run -c "COPY (SELECT * FROM loyalty.$view) TO STDOUT" >/dev/null
    one=$((($(date +%s%N) - began) / 1000000))
    [ -n "$took" ] && [ "$took" -le $one ] || took=$one
    [ $one -gt 500 ] || break
  done
  echo "$view: $took ms"
  # a benchmark, not a test: it fails only where a bound is asked for
  [ $took -le "${VIEW_MS:-2000}" ] || { echo "$view took longer than ${VIEW_MS:-2000} ms"; slow=${VIEW_MS:+1}; }
done
# cancellations: the gross amounts stay, what is kept grows to what is made from nothing
run -f test/demo/cancel.sql
began=$(date +%s%N)
run -c 'CALL loyalty.refresh_analysis()'
echo "refresh after $(run -c 'SELECT count(*) FROM loyalty.purchase_return') returns: $((($(date +%s%N) - began) / 1000000)) ms"
run <<'SQL'
DO $$
BEGIN
    IF (SELECT (amount, returned) FROM loyalty.bi_program) IS DISTINCT FROM (SELECT (8911407.904, sum(r.amount)) FROM loyalty.returned r) THEN
        RAISE EXCEPTION 'returns: %', (SELECT p FROM loyalty.bi_program p);
    END IF;
END $$;
CREATE TABLE grown AS SELECT to_jsonb(x) AS x FROM loyalty.analysis_purchase x UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_day x UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_member x
    UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_member_part x UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_model x;
CALL loyalty.refresh_analysis(3000, true);
CREATE TABLE rebuilt AS SELECT to_jsonb(x) AS x FROM loyalty.analysis_purchase x UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_day x UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_member x
    UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_member_part x UNION ALL SELECT to_jsonb(x) FROM loyalty.analysis_model x;
SELECT 1 / (CASE WHEN EXISTS ((TABLE grown EXCEPT ALL TABLE rebuilt) UNION ALL (TABLE rebuilt EXCEPT ALL TABLE grown)) THEN 0 ELSE 1 END);
SQL
exit ${slow:-0}
