-- the order law of referrals: row by row in order of time, in one statement, in chunks, and members in any order give the same states and lots
SET client_min_messages = warning;
SET synchronous_commit = off;
CREATE EXTENSION loyalty;
-- 40 members; every other one was brought by an earlier one, many of them by a few, so that caps bind
CREATE TABLE person AS SELECT i, CASE WHEN i > 8 AND i % 3 <> 0 THEN 1 + abs(hashint8extended(i, 1)) % (CASE WHEN i % 2 = 0 THEN 4 ELSE i - 5 END) END AS brought_by, timestamptz '2025-01-01' + interval '1 day' * (i / 2) AS joined FROM generate_series(1, 60) i;
CREATE FUNCTION make_program(name text, capped boolean) RETURNS int LANGUAGE plpgsql AS $$
DECLARE p int := loyalty.create_program(name, time_zone => 'Australia/Sydney', currency => 'AUD', hold_days => 7, expiry_months => 600);
    r person;
BEGIN
    PERFORM loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.amount');
    PERFORM loyalty.set_referral(p, 500, 300, min_amount => 20, qualify_days => 60, cap => CASE WHEN capped THEN 2 END, cap_period => 'month');
    FOR r IN SELECT * FROM person ORDER BY i LOOP
        PERFORM loyalty.enroll(p, 'm' || r.i, r.joined, referral_code => (SELECT loyalty.referral_code(m.member_id) FROM loyalty.member m WHERE m.program_id = p AND m.external_id = 'm' || r.brought_by));
    END LOOP;
    RETURN p;
END $$;
SELECT make_program(n, n ~ 'capped') FROM unnest('{capped rows,capped statement,capped chunks,free rows,free members}'::text[]) n \g /dev/null
CREATE TABLE basket AS SELECT i, 1 + abs(hashint8extended(i, 1)) % 60 AS who, timestamptz '2025-01-01' + interval '1 minute' * (abs(hashint8extended(i, 3)) % (200 * 1440)) AS at,
    abs(hashint8extended(i, 4)) % 60 AS amount, CASE WHEN i % 5 = 0 THEN jsonb_build_object('card', abs(hashint8extended(i, 5)) % 12, 'device', abs(hashint8extended(i, 6)) % 40) END AS attributes
    FROM generate_series(1, 1500) i;
CREATE FUNCTION member_of(p text, who bigint) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT member_id FROM loyalty.member JOIN loyalty.program g USING (program_id) WHERE g.name = p AND external_id = 'm' || who $$;
CREATE FUNCTION buy(p text, b basket) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, reference) VALUES (member_of(p, b.who), b.at, b.amount, b.attributes, p || b.i) $$;
SELECT buy('capped rows', b) FROM (SELECT * FROM basket ORDER BY at, i) b \g /dev/null
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, reference) SELECT member_of('capped statement', who), at, amount, attributes, 'capped statement' || i FROM basket ORDER BY hashint8(i);
-- more than a chunk: guests and members of no referral beside them
SELECT loyalty.enroll(program_id, 'x' || i, '2025-01-01') FROM loyalty.program, generate_series(1, 50) i WHERE name = 'capped chunks' \g /dev/null
INSERT INTO loyalty.purchase (member_id, occurred_at, amount, attributes, reference)
    SELECT member_of('capped chunks', who), at, amount, attributes, 'capped chunks' || i FROM basket UNION ALL
    SELECT (SELECT min(member_id) FROM loyalty.member WHERE external_id = 'x1') + i % 50, timestamptz '2025-03-01' + i * interval '1 second', 1, NULL, 'x' || i FROM generate_series(1, 9000) i ORDER BY 5;
-- each member's own purchases in order, the members in any; only without caps and shared marks does that make no difference
UPDATE basket SET attributes = NULL;
SELECT buy('free rows', b) FROM (SELECT * FROM basket ORDER BY at, i) b \g /dev/null
SELECT buy('free members', b) FROM (SELECT * FROM basket ORDER BY hashint8(who), at, i) b \g /dev/null
CREATE VIEW outcome AS
    SELECT g.name, m.external_id AS friend, s.external_id AS referrer, r.state, r.reason, r.qualified_at, regexp_replace(p.reference, '\D', '', 'g') AS basket,
        (SELECT loyalty.sum(e.lots)::text FROM loyalty.entry e WHERE e.source_id = r.referral_id AND e.account_id = r.friend_id) AS friends, (SELECT loyalty.sum(e.lots)::text FROM loyalty.entry e WHERE e.source_id = r.referral_id AND e.account_id = r.referrer_id) AS referrers
    FROM loyalty.referral r JOIN loyalty.program g USING (program_id) JOIN loyalty.member m ON m.member_id = r.friend_id JOIN loyalty.member s ON s.member_id = r.referrer_id LEFT JOIN loyalty.purchase p USING (purchase_id);
SELECT 'differs', o.*, a.* FROM outcome a JOIN outcome o ON o.friend = a.friend AND split_part(o.name, ' ', 1) = split_part(a.name, ' ', 1)
    WHERE a.name ~ 'rows' AND o.name !~ 'rows' AND (to_jsonb(a) - 'name') <> (to_jsonb(o) - 'name') LIMIT 10;
SELECT 'lots differ', a.name, a.external_id, a.lots, b.name, b.lots FROM (SELECT g.name, m.external_id, c.lots FROM loyalty.account c JOIN loyalty.member m ON m.member_id = c.account_id JOIN loyalty.program g ON g.program_id = m.program_id WHERE m.external_id ~ '^m') a
    JOIN (SELECT g.name, m.external_id, c.lots FROM loyalty.account c JOIN loyalty.member m ON m.member_id = c.account_id JOIN loyalty.program g ON g.program_id = m.program_id) b USING (external_id)
    WHERE split_part(a.name, ' ', 1) = split_part(b.name, ' ', 1) AND a.lots OPERATOR(loyalty.<>) b.lots LIMIT 10;
SELECT 'too easy', state, n FROM unnest('{rewarded,void,review}'::text[]) state CROSS JOIN LATERAL (SELECT count(*) AS n FROM outcome o WHERE o.name = 'capped rows' AND o.state = state.state) x WHERE n < 2;
SELECT 'no cap bound' WHERE NOT EXISTS (SELECT FROM outcome WHERE reason ~ 'rewarded referrals');
SELECT * FROM loyalty.check();
-- everything void: nothing is left
UPDATE loyalty.purchase SET status = 'void';
SELECT 'left over', account_id, lots FROM loyalty.account WHERE lots OPERATOR(loyalty.<>) '{}';
SELECT 'left over', state, count(*) FROM loyalty.referral WHERE state IN ('review', 'rewarded') GROUP BY 2;
SELECT * FROM loyalty.check();
