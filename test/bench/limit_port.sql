-- the same limit by hand: a counter a subject and twelfth of the window, upserted and summed by a row-level trigger in PL/pgSQL; what it does not do: late purchases, corrections, giving back
SET client_min_messages = warning;
CREATE SCHEMA port;
CREATE TABLE port.counter (subject bigint, bucket bigint, n bigint NOT NULL, PRIMARY KEY (subject, bucket)) WITH (fillfactor = 70);
CREATE FUNCTION port.count_purchase() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    b constant bigint := extract(epoch FROM NEW.occurred_at)::bigint / 7200;
BEGIN
    INSERT INTO port.counter AS c VALUES (NEW.member_id, b, 1) ON CONFLICT (subject, bucket) DO UPDATE SET n = c.n + 1;
    IF (SELECT sum(c.n) FROM port.counter c WHERE c.subject = NEW.member_id AND c.bucket BETWEEN b - 12 AND b) > 10000 THEN
        RAISE EXCEPTION 'more than 10,000 in a day';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER count_purchase BEFORE INSERT ON loyalty.purchase FOR EACH ROW EXECUTE FUNCTION port.count_purchase();
