-- :accounts members of a programme with tiers and debts, and what the clients of the honest load call
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Honest', currency => 'EUR', point_value => 0.01, negative => 'allow', hold_days => 0);
SELECT loyalty.add_tier(1, 'A', 0, 'spend'), loyalty.add_tier(1, 'B', 1000, 'spend', 1.5);
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount');
SELECT count(loyalty.enroll(1, 'm' || a, '2024-01-01')) FROM generate_series(1, :accounts) a;
CREATE SCHEMA honest;
CREATE SEQUENCE honest.key;
-- purchases of some members in one statement
CREATE FUNCTION honest.buy(n integer, accounts integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO loyalty.purchase (member_id, amount, reference) SELECT 1 + floor(random() * accounts), 1 + floor(random() * 80), 'buy ' || nextval('honest.key') FROM generate_series(1, n)
$$;
-- one of the other operations; what is refused is undone by itself
CREATE FUNCTION honest.act(accounts integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m constant bigint := 1 + floor(random() * accounts);
    k constant text := 'key ' || nextval('honest.key');
    before record;
BEGIN
    CASE floor(random() * 7)
        WHEN 0 THEN PERFORM loyalty.redeem(m, 1 + floor(random() * 50)::bigint, k, partial => true);
        WHEN 1 THEN PERFORM loyalty.hold(m, 1 + floor(random() * 50)::bigint, k, partial => true), loyalty.capture(m, k);
        WHEN 2 THEN PERFORM loyalty.hold(m, 1 + floor(random() * 50)::bigint, k, partial => true), loyalty.release(m, k);
        WHEN 3 THEN
            SELECT r.member_id, r.key INTO before FROM loyalty.redemption r WHERE r.member_id = m LIMIT 1;
            PERFORM loyalty.undo(before.member_id, before.key);
        WHEN 4 THEN UPDATE loyalty.purchase p SET status = 'void' WHERE p.purchase_id = (SELECT max(q.purchase_id) FROM loyalty.purchase q WHERE q.member_id = m AND q.status <> 'void');
        WHEN 5 THEN UPDATE loyalty.purchase p SET amount = amount + 3 WHERE p.purchase_id = (SELECT max(q.purchase_id) FROM loyalty.purchase q WHERE q.member_id = m AND q.status <> 'void');
        WHEN 6 THEN PERFORM loyalty.transfer(m, 1 + m % accounts, 1 + floor(random() * 20)::bigint, k);
    END CASE;
    RETURN '00000';
EXCEPTION WHEN OTHERS THEN
    IF SQLSTATE IN ('40001', '40P01') THEN
        RAISE;
    END IF;
    RETURN SQLSTATE;
END
$$;
