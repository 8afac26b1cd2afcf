# Online Retail: limits of n invoices in an hour, a day and a week stop whom the reference table says, and nobody else
set -eu
psql -qX -d postgres -c 'DROP DATABASE IF EXISTS retail_limits' -c 'CREATE DATABASE retail_limits'
export PGDATABASE=retail_limits
run() { psql -qXAt -v ON_ERROR_STOP=1 "$@"; }
run -f test/demo/stage.sql
zcat "$LOYALTY_DATA/online-retail/online_retail.csv.gz" | run -c "\copy raw_line from stdin (format csv, header)"
run -c "CREATE TABLE reference (customer_id text, max_in_1h int, max_in_24h int, max_in_7d int)"
run -c "\copy reference from '$LOYALTY_DATA/online-retail/reference/velocity_max_invoices.csv' (format csv, header)"
run <<'SQL' >/dev/null
CREATE EXTENSION loyalty;
-- as the reference, which knows no time zone; its times are whole minutes, so that parts of a minute are exact
SELECT loyalty.create_program('Limited', time_zone => 'UTC', currency => 'GBP');
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
SELECT loyalty.add_limit(1, '2 in 1h', 2, '1 hour', verdict => 'allow', buckets => 60, active_from => '-infinity'),
       loyalty.add_limit(1, '3 in 24h', 3, '1 day', verdict => 'allow', buckets => 1440, active_from => '-infinity'),
       loyalty.add_limit(1, '5 in 24h', 5, '1 day', verdict => 'allow', buckets => 1440, active_from => '-infinity'),
       loyalty.add_limit(1, '4 in 7d', 4, '7 days', verdict => 'allow', buckets => 1008, active_from => '-infinity');
INSERT INTO loyalty.member (program_id, external_id, joined_at)
    SELECT 1, customer_id, min(invoice_date) AT TIME ZONE 'UTC' FROM raw_line WHERE customer_id IS NOT NULL AND quantity > 0 AND unit_price > 0 AND invoice_no !~ '^[CA]' GROUP BY customer_id;
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, source, reference)
    SELECT m.member_id, min(r.invoice_date) AT TIME ZONE 'UTC', sum(r.quantity * r.unit_price), 'shop', r.invoice_no
    FROM raw_line r JOIN loyalty.member m ON m.external_id = r.customer_id
    WHERE r.quantity > 0 AND r.unit_price > 0 AND r.invoice_no !~ '^[CA]' GROUP BY m.member_id, r.invoice_no;
DO $$
DECLARE
    l record;
    wrong bigint;
    stopped bigint;
BEGIN
    FOR l IN SELECT * FROM loyalty.velocity_limit ORDER BY limit_id LOOP
        SELECT count(*) FILTER (WHERE d.subject IS NOT NULL), count(*) FILTER (WHERE (d.subject IS NOT NULL) <> (r.most > l.maximum))
            INTO stopped, wrong
            FROM (SELECT customer_id, CASE WHEN l.name LIKE '%1h' THEN max_in_1h WHEN l.name LIKE '%24h' THEN max_in_24h ELSE max_in_7d END AS most FROM reference) r
                LEFT JOIN (SELECT DISTINCT subject FROM loyalty.limit_decision WHERE limit_id = l.limit_id) d ON d.subject = r.customer_id;
        -- the parts of a week are ten minutes long: a limit may stop somebody up to one of them early, never late
        IF stopped = 0 OR wrong > (CASE WHEN l.name LIKE '%7d' THEN 5 ELSE 0 END) THEN
            RAISE EXCEPTION 'limit % stopped % customers, % of them differ from the reference', l.name, stopped, wrong;
        END IF;
        IF EXISTS (SELECT FROM reference r WHERE r.max_in_7d > 4 AND l.name LIKE '%7d'
                   AND NOT EXISTS (SELECT FROM loyalty.limit_decision d WHERE d.limit_id = l.limit_id AND d.subject = r.customer_id)) THEN
            RAISE EXCEPTION 'limit % did not stop everybody', l.name;
        END IF;
        -- the most that it saw, with the one that it stopped, is the reference's
        SELECT count(*) INTO wrong
            FROM (SELECT d.subject, max(d.used + d.wanted) AS most FROM loyalty.limit_decision d WHERE d.limit_id = l.limit_id GROUP BY 1) d
                JOIN reference r ON r.customer_id = d.subject
            WHERE l.name NOT LIKE '%7d' AND d.most <> CASE WHEN l.name LIKE '%1h' THEN r.max_in_1h ELSE r.max_in_24h END;
        IF wrong > 0 THEN
            RAISE EXCEPTION 'limit % saw other figures than the reference of % customers', l.name, wrong;
        END IF;
    END LOOP;
END $$;
SELECT 1 / (CASE WHEN EXISTS (SELECT FROM loyalty.check()) THEN 0 ELSE 1 END);
SQL
run -c "SELECT 1 / (CASE WHEN EXISTS (SELECT FROM loyalty.check()) THEN 0 ELSE 1 END)" >/dev/null
