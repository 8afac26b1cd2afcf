-- one client, :client of them, on the account :member; every answer is a line
\set VERBOSITY sqlstate
SET client_min_messages = warning;
SELECT CASE WHEN :client % 2 = 0 THEN 'read committed' ELSE 'repeatable read' END AS isolation \gset
SET default_transaction_isolation = :'isolation';
SELECT format(s, :member, 'c' || :client || ' ' || i, :accounts) FROM generate_series(1, :rounds) i, unnest(ARRAY[
    $$SELECT 'hundred', claim_id FROM loyalty.claim(%s, 'hundred', '%s')$$,
    $$SELECT 'one each', claim_id FROM loyalty.claim(%s, 'one each', '%s o')$$,
    $$INSERT INTO loyalty.purchase (member_id, amount, reference) SELECT m, 1, '%2$s ' || m FROM unnest(ARRAY[%1$s, %1$s %% %3$s + 1]) m RETURNING 'purchase', purchase_id$$,
    $$UPDATE loyalty.purchase SET status = 'void' WHERE reference LIKE '%2$s _' AND right('%2$s', 1) IN ('3', '7') AND %1$s > 0$$,
    $$SELECT 'codes', coupon_id FROM loyalty.issue_coupon(%s, 'codes', '%s')$$,
    $$SELECT 'uses', use_id FROM loyalty.use_coupon('uses', %s, '%s')$$,
    $$SELECT 'single', use_id FROM loyalty.use_coupon('single', %s, '%s s')$$,
    $$SELECT 'full card', claim_id FROM loyalty.claim(%s, 'full card', '%s f', card => 'card')$$]) s \gexec
