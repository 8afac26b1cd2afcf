-- pgledger, with accounts of names that a script can make up
SET client_min_messages = warning;
\i :ulid
\i :pgledger
INSERT INTO pgledger_accounts (id, name, currency, allow_negative_balance, allow_positive_balance, created_at, updated_at)
    SELECT 'pgla_' || lpad(i::text, 26, '0'), 'm' || i, 'GBP', true, true, now(), now() FROM generate_series(1, :spenders) i;
VACUUM ANALYZE;
