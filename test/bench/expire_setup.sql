-- members with ten lots that are dead and two that live, in the engine, in a port of it and in the usual tables of a shop
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE EXTENSION IF NOT EXISTS plpgsql;
SELECT loyalty.create_program('Expire', time_zone => 'Europe/London', currency => 'GBP', point_value => 0.01) AS program_id \gset e_
SELECT nextval('loyalty.member_id_seq') AS before \gset e_
INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT :e_program_id, 'x' || i, '2024-01-01' FROM generate_series(1, :accounts) i;
SELECT count(loyalty.post(m.member_id, 'open', l.lots, '{}', now() - interval '400 days', 'benchmark', NULL)) AS n FROM loyalty.member m,
    (SELECT loyalty.sum(loyalty.lots(current_date - 400, current_date + 30 - 31 * i, 100)) AS lots FROM generate_series(-1, 10) i) l
    WHERE m.member_id > :e_before \gset e_
CREATE SCHEMA port;
CREATE TABLE port.entry (LIKE loyalty.entry INCLUDING ALL);
CREATE TABLE port.account (LIKE loyalty.account INCLUDING ALL) WITH (fillfactor = 90);
INSERT INTO port.account SELECT * FROM loyalty.account WHERE account_id > :e_before;
-- the same bookkeeping, an account at a time: one closing entry with the lots that died, chained by a hash
CREATE PROCEDURE port.close_expired(day date, upto bigint) LANGUAGE plpgsql AS $$
DECLARE
    id bigint; n int := 0; a port.account; dead loyalty.lots; h bytea;
BEGIN
    FOR id IN SELECT account_id FROM port.account WHERE account_id <= upto AND loyalty.expired(lots, day) > 0 ORDER BY 1 LOOP
        SELECT * INTO a FROM port.account WHERE account_id = id FOR NO KEY UPDATE;
        SELECT loyalty.sum(loyalty.lots(u.available_from, u.expires_on, -u.points)) INTO dead
            FROM loyalty.unnest(a.lots) u WHERE u.points > 0 AND u.expires_on <= day;
        CONTINUE WHEN dead IS NULL;
        h := sha256(a.head || convert_to(row(id, a.seq + 1, dead)::text, 'UTF8'));
        INSERT INTO port.entry (account_id, seq, kind, points, occurred_at, recorded_at, lots, tally, actor, hash)
            VALUES (id, a.seq + 1, 'expire', loyalty.total(dead), now(), now(), dead, '{}', session_user, h);
        UPDATE port.account SET lots = lots OPERATOR(loyalty.+) dead, seq = seq + 1, head = h, last_event_at = now() WHERE account_id = id;
        n := n + 1;
        IF n % 1000 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
-- the usual tables: a row a lot, a balance, and an entry for every lot that died
CREATE SCHEMA shop;
CREATE TABLE shop.account (account_id bigint PRIMARY KEY, balance bigint NOT NULL, seq bigint NOT NULL, head bytea NOT NULL) WITH (fillfactor = 90);
CREATE TABLE shop.lot (lot_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint NOT NULL, expires_on date NOT NULL, remaining bigint NOT NULL) WITH (fillfactor = 90);
CREATE TABLE shop.entry (account_id bigint, seq bigint, kind text NOT NULL, points bigint NOT NULL, lot_id bigint, recorded_at timestamptz NOT NULL, actor text NOT NULL, hash bytea NOT NULL, PRIMARY KEY (account_id, seq));
INSERT INTO shop.account SELECT account_id, loyalty.total(lots), seq, head FROM port.account;
INSERT INTO shop.lot (account_id, expires_on, remaining) SELECT a.account_id, u.expires_on, u.points FROM port.account a, loyalty.unnest(a.lots) u;
CREATE INDEX ON shop.lot (account_id);
CREATE PROCEDURE shop.close_expired(day date, upto bigint) LANGUAGE plpgsql AS $$
DECLARE
    l shop.lot; a shop.account; n int := 0; h bytea;
BEGIN
    FOR l IN SELECT * FROM shop.lot WHERE account_id <= upto AND expires_on <= day AND remaining > 0 ORDER BY account_id, lot_id LOOP
        SELECT * INTO a FROM shop.account WHERE account_id = l.account_id FOR NO KEY UPDATE;
        h := sha256(a.head || convert_to(row(a.account_id, a.seq + 1, l.remaining)::text, 'UTF8'));
        INSERT INTO shop.entry VALUES (a.account_id, a.seq + 1, 'expire', -l.remaining, l.lot_id, now(), session_user, h);
        UPDATE shop.lot SET remaining = 0 WHERE lot_id = l.lot_id;
        UPDATE shop.account SET balance = balance - l.remaining, seq = seq + 1, head = h WHERE account_id = a.account_id;
        n := n + 1;
        IF n % 1000 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
VACUUM ANALYZE;
