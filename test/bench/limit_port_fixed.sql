-- cheaper by hand, and another limit: a window that begins every day at midnight, one upsert a purchase
SET client_min_messages = warning;
CREATE SCHEMA port;
CREATE TABLE port.counter (subject bigint, bucket bigint, n bigint NOT NULL, PRIMARY KEY (subject, bucket)) WITH (fillfactor = 70);
CREATE FUNCTION port.count_purchase() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    used bigint;
BEGIN
    INSERT INTO port.counter AS c VALUES (NEW.member_id, extract(epoch FROM NEW.occurred_at)::bigint / 86400, 1) ON CONFLICT (subject, bucket) DO UPDATE SET n = c.n + 1 RETURNING c.n INTO used;
    IF used > 10000 THEN
        RAISE EXCEPTION 'more than 10,000 in a day';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER count_purchase BEFORE INSERT ON loyalty.purchase FOR EACH ROW EXECUTE FUNCTION port.count_purchase();
