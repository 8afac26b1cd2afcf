# Online Retail: the engine agrees with the reference table, customer by customer, and with a plain SQL recomputation
set -eu
psql -qX -d postgres -c 'DROP DATABASE IF EXISTS retail' -c 'CREATE DATABASE retail'
export PGDATABASE=retail
run() { psql -qXAt -v ON_ERROR_STOP=1 "$@"; }
run -f test/demo/stage.sql
zcat "$LOYALTY_DATA/online-retail/online_retail.csv.gz" | run -c "\copy raw_line from stdin (format csv, header)"
run -f test/demo/programme.sql
run -f test/demo/load.sql
run -f test/demo/recompute.sql
head=$(head -n 1 "$LOYALTY_DATA/online-retail/reference/customer_revenue.csv")
run -c "CREATE TABLE reference ($(echo "$head" | tr -d '\r' | sed 's/,/ text, /g') text)"
run -c "\copy reference from '$LOYALTY_DATA/online-retail/reference/customer_revenue.csv' (format csv, header)"
run <<'SQL'
DO $$
DECLARE wrong bigint; n bigint; total numeric; purchases bigint;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE r.gross_value::numeric IS DISTINCT FROM loyalty.spend(a.tally) OR r.sale_invoices::bigint IS DISTINCT FROM loyalty.visits(a.tally))
        INTO n, wrong FROM (SELECT * FROM reference WHERE sale_invoices::int > 0) r FULL JOIN loyalty.member m ON m.external_id = r.customer_id LEFT JOIN loyalty.account a ON a.account_id = m.member_id;
    SELECT sum(amount), count(*) INTO total, purchases FROM loyalty.purchase;
    IF wrong <> 0 OR n <> 4338 OR total <> 8911407.904 OR purchases <> 18532 THEN
        RAISE EXCEPTION '% of % customers differ from the reference; % in % purchases', wrong, n, total, purchases;
    END IF;
END $$;
SQL
run -f test/demo/cancel.sql
run -f test/demo/recompute_net.sql
run <<'SQL'
DO $$
DECLARE net numeric; missing numeric; given numeric;
BEGIN
    SELECT sum(loyalty.spend(tally)) INTO net FROM loyalty.account;
    SELECT sum((quantity - matched) * unit_price) INTO missing FROM cancelled;
    IF net - missing <> 8300065.814 THEN
        RAISE EXCEPTION 'net % less % that could not be matched is not 8300065.814', net, missing;
    END IF;
    SELECT sum(b.available + b.pending + b.debt) INTO given FROM loyalty.member_balance b WHERE b.external_id IN ('12346', '16446');
    IF given <> 0 THEN
        RAISE EXCEPTION 'customers 12346 and 16446 have % points left', given;
    END IF;
END $$;
SELECT 1 / (CASE WHEN EXISTS (SELECT FROM loyalty.check()) THEN 0 ELSE 1 END);
SQL
