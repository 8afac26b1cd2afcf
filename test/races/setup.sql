-- few accounts for many sessions; :accounts of them, and one more for the storm
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Debts', currency => 'EUR', point_value => 0.01, expiry => 'never', negative => 'allow');
SELECT loyalty.create_program('No debts', currency => 'EUR', point_value => 0.01, expiry => 'never', negative => 'forbid');
SELECT loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.total') FROM generate_series(1, 2) p;
SELECT loyalty.enroll(CASE WHEN a <= :accounts / 2 THEN 1 ELSE 2 END, 'm' || a, '2024-01-01') FROM generate_series(1, :accounts) a;
SELECT loyalty.enroll(1, 'storm', '2024-01-01');
-- lots that die on several days, so that the order in which they are spent matters
SELECT loyalty.adjust(a.account_id, 100, 'to begin with', 'init ' || d, expires_on => current_date + 100 * d) FROM loyalty.account a, generate_series(1, 3) d ORDER BY 1;
SELECT loyalty.adjust(max(account_id), 1000000, 'for the storm', 'init') FROM loyalty.account;
CREATE SCHEMA races;
-- what the clients are told to do: one row for every effect that a statement asks for
CREATE TABLE races.issued (client integer, n integer, kind text, account bigint, key text, points bigint, isolation text);
-- what the server acknowledged
CREATE TABLE races.answer (client integer, n integer, state text, rid bigint, value bigint);
CREATE TABLE races.lost (client integer, n integer);
CREATE TABLE races.ready (load integer);
-- every effect that is there
CREATE VIEW races.effect AS
    SELECT e.kind, e.account_id AS account, e.key, CASE WHEN e.kind NOT IN ('release', 'transfer') THEN e.source_id END AS rid,
           CASE WHEN e.kind = 'release' THEN (e.detail ->> 'held')::bigint ELSE abs(e.points) END AS value, e.detail ? 'lapsed' AS by_itself
        FROM loyalty.entry e WHERE e.key IS NOT NULL AND e.key !~ '^(loyalty:|init)'
    UNION ALL
    SELECT 'hold', e.account_id, e.key, e.source_id, (e.detail ->> 'held')::bigint, false
        FROM loyalty.entry e WHERE e.key IS NOT NULL AND e.kind IN ('capture', 'release')
    UNION ALL SELECT 'hold', h.member_id, h.key, h.redemption_id, h.points, false FROM loyalty.open_hold h
    UNION ALL SELECT 'purchase', coalesce(p.member_id, 0), p.reference, NULL, NULL, false FROM loyalty.purchase p
    UNION ALL SELECT 'return', 0, r.reference, NULL, NULL, false FROM loyalty.purchase_return r
    UNION ALL SELECT 'void', 0, p.reference, NULL, NULL, false FROM loyalty.purchase p WHERE p.status = 'void';
