-- Limits that all clients want to use up at once: a race is a card, and about :races of them follow each other.
-- Of three programmes each has one limit: on the count (held), on points (clipped), on the amount (rejected).
SET client_min_messages = warning;
CREATE EXTENSION loyalty;
SELECT loyalty.create_program('Limits ' || p, expiry => 'never') FROM generate_series(1, 3) p;
SELECT loyalty.add_rule(p, 'base', 'purchase', 'base', 'purchase.amount') FROM generate_series(1, 3) p;
SELECT loyalty.add_limit(p, 'limit', (ARRAY[5, 100, 70])[p], '1 hour', measure => (ARRAY['count', 'points', 'amount'])[p], verdict => (ARRAY['hold', 'clip', 'reject'])[p],
    subject => 'purchase.attributes ->> ''card''', active_from => '2020-01-01') FROM generate_series(1, 3) p;
-- every client has a member in each programme: nothing but the card is shared
SELECT loyalty.enroll(p, 'client ' || c, '2020-01-01') FROM generate_series(1, 3) p, generate_series(1, :clients) c ORDER BY c, p;
CREATE SCHEMA races;
-- a row a purchase, in the order in which they had the card: its row is locked until the end of the transaction
CREATE TABLE races.log (n bigint GENERATED ALWAYS AS IDENTITY (CACHE 1), reference text);
-- which race it is now: one begins every :pace milliseconds, the first when all clients are there
CREATE TABLE races.ready (at timestamptz DEFAULT clock_timestamp());
CREATE TABLE races.setting AS SELECT :pace::integer AS pace, :races::integer AS races, :clients AS clients;
CREATE VIEW races.clock AS SELECT (SELECT max(at) FROM races.ready) + interval '0.1 second' AS began, pace, races FROM races.setting;
CREATE FUNCTION races.now() RETURNS integer LANGUAGE sql VOLATILE AS
    $$ SELECT greatest((extract(epoch FROM clock_timestamp() - began) * 1000 / pace)::integer + 1, 1) FROM races.clock $$;
CREATE FUNCTION races.at() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT date_trunc('hour', began) - interval '10 hours' + interval '1 microsecond' * floor(random() * 6900000000) FROM races.clock $$;
-- the part of a window that an instant is in, as the limits count them: from 2000 on
CREATE FUNCTION races.part(at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    $$ SELECT floor(extract(epoch FROM at - timestamptz '2000-01-01 00:00+00') / 300)::bigint $$;
