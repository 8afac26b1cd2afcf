SET client_min_messages = warning;
CREATE EXTENSION loyalty;
CREATE EXTENSION IF NOT EXISTS plpgsql;
SELECT loyalty.create_program('Bench', time_zone => 'Europe/London', currency => 'GBP', hold_days => 14) \gset b_
SELECT loyalty.add_tier(1, 'T1', 0, 'spend'), loyalty.add_tier(1, 'T2', 1000, 'spend', 1.1), loyalty.add_tier(1, 'T3', 5000, 'spend', 1.25), loyalty.add_tier(1, 'T4', 20000, 'spend', 1.5) \gset b_
SELECT loyalty.add_rule(1, 'base', 'purchase', 'base', 'purchase.amount'), loyalty.add_rule(1, 'store', 'purchase', 'multiply', '1.5', 'purchase.store = ''S3'''),
       loyalty.add_rule(1, 'big', 'purchase', 'bonus', '50', 'purchase.amount >= 90'), loyalty.add_rule(1, 'first', 'purchase', 'bonus', '10', 'purchase.number = 1'),
       loyalty.add_rule(1, 'evening', 'purchase', 'bonus', '2', 'extract(hour from purchase.occurred_at) >= 20') \gset b_
INSERT INTO loyalty.member (program_id, external_id, joined_at) SELECT 1, 'm' || i, '2024-01-01' FROM generate_series(1, :members) i;
-- everybody has bought once
INSERT INTO loyalty.purchase (member_id, amount, store) SELECT member_id, 10, 'S1' FROM loyalty.member;
-- the peers: the same columns and indexes, no triggers
CREATE FUNCTION make_peer(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SCHEMA %I', name);
    EXECUTE format('CREATE TABLE %I.purchase (LIKE loyalty.purchase INCLUDING ALL)', name);
    EXECUTE format('CREATE TABLE %I.entry (LIKE loyalty.entry INCLUDING ALL)', name);
    EXECUTE format('CREATE TABLE %I.account (LIKE loyalty.account INCLUDING ALL) WITH (fillfactor = 90)', name);
    EXECUTE format('INSERT INTO %I.account SELECT * FROM loyalty.account', name);
END $$;
SELECT count(make_peer(n)) AS peers FROM unnest('{twin,plain,port,port_set,port_row}'::text[]) n \gset b_
-- an honest port: a row-level trigger in PL/pgSQL with the same five rules and four tiers
CREATE FUNCTION port_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    a record; day date := (NEW.occurred_at AT TIME ZONE 'Europe/London')::date; tier int; exact numeric; pts bigint; l loyalty.lots; t loyalty.tally;
    factor numeric; h bytea; spend numeric; parts text := ''; available date; dies date;
BEGIN
    EXECUTE format('SELECT * FROM %I.account WHERE account_id = $1 FOR NO KEY UPDATE', TG_TABLE_SCHEMA) INTO a USING NEW.member_id;
    factor := (ARRAY[1, 1.1, 1.25, 1.5])[coalesce(a.tier_id, 1)];
    exact := NEW.amount * factor; parts := 'base ' || NEW.amount;
    IF NEW.store = 'S3' THEN exact := exact * 1.5; parts := parts || ', store 1.5'; END IF;
    IF NEW.amount >= 90 THEN exact := exact + 50; parts := parts || ', big 50'; END IF;
    IF a.seq = 0 THEN exact := exact + 10; parts := parts || ', first 10'; END IF;
    IF extract(hour FROM NEW.occurred_at AT TIME ZONE 'Europe/London') >= 20 THEN exact := exact + 2; parts := parts || ', evening 2'; END IF;
    pts := floor(exact);
    available := day + 14;
    dies := (date_trunc('month', available + interval '12 months' - interval '1 day') + interval '1 month')::date;
    l := loyalty.lots(available, dies, pts);
    t := loyalty.tally(day, NEW.amount, pts, 1);
    spend := loyalty.spend(a.tally, date_trunc('year', day)::date, day) + NEW.amount;
    tier := greatest(a.tier_id, CASE WHEN spend >= 20000 THEN 4 WHEN spend >= 5000 THEN 3 WHEN spend >= 1000 THEN 2 ELSE 1 END);
    h := sha256(a.head || convert_to(row(NEW.member_id, a.seq + 1, pts, l, t, parts)::text, 'UTF8'));
    EXECUTE format('INSERT INTO %I.entry (account_id, seq, kind, points, source_id, occurred_at, recorded_at, lots, tally, breakdown, actor, hash) VALUES ($1, $2, ''earn'', $3, $4, $5, now(), $6, $7, $8, session_user, $9)', TG_TABLE_SCHEMA)
        USING NEW.member_id, a.seq + 1, pts, NEW.purchase_id, NEW.occurred_at, l, t, convert_to(parts, 'UTF8'), h;
    EXECUTE format('UPDATE %I.account SET lots = lots OPERATOR(loyalty.+) $2, tally = tally OPERATOR(loyalty.+) $3, seq = seq + 1, head = $4, tier_id = $5, last_event_at = $6 WHERE account_id = $1', TG_TABLE_SCHEMA)
        USING NEW.member_id, l, t, h, tier, NEW.occurred_at;
    RETURN NULL;
END $$;
DO $$ DECLARE body text := pg_get_functiondef('port_row()'::regprocedure); s text; BEGIN
    -- static SQL for each schema, as one would write it by hand
    FOREACH s IN ARRAY ARRAY['port', 'port_row'] LOOP
        EXECUTE regexp_replace(regexp_replace(regexp_replace(regexp_replace(body, 'public\.port_row\(\)', 'public.' || s || '_award()'),
            'EXECUTE format\(''SELECT \* FROM %I.account WHERE account_id = \$1 FOR NO KEY UPDATE'', TG_TABLE_SCHEMA\) INTO a USING NEW.member_id', format('SELECT * INTO a FROM %I.account WHERE account_id = NEW.member_id FOR NO KEY UPDATE', s)),
            'EXECUTE format\(''INSERT INTO.*?USING NEW.member_id, a.seq[^;]*;', format('INSERT INTO %I.entry (account_id, seq, kind, points, source_id, occurred_at, recorded_at, lots, tally, breakdown, actor, hash) VALUES (NEW.member_id, a.seq + 1, ''earn'', pts, NEW.purchase_id, NEW.occurred_at, now(), l, t, convert_to(parts, ''UTF8''), session_user, h);', s)),
            'EXECUTE format\(''UPDATE.*?USING NEW.member_id, l[^;]*;', format('UPDATE %I.account SET lots = lots OPERATOR(loyalty.+) l, tally = tally OPERATOR(loyalty.+) t, seq = seq + 1, head = h, tier_id = tier, last_event_at = NEW.occurred_at WHERE account_id = NEW.member_id;', s));
        EXECUTE format('CREATE TRIGGER award AFTER INSERT ON %I.purchase FOR EACH ROW EXECUTE FUNCTION public.%I()', s, s || '_award');
    END LOOP;
END $$;
-- a set-based port: one statement-level trigger; the tier of a statement's start for all its rows, no chain
CREATE FUNCTION port_set_award() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM port_set.account WHERE account_id IN (SELECT member_id FROM n) ORDER BY account_id FOR NO KEY UPDATE;
    CREATE TEMP TABLE posted ON COMMIT DROP AS
    SELECT p.member_id AS account_id, a.seq + row_number() OVER (PARTITION BY p.member_id ORDER BY p.occurred_at, p.purchase_id) AS seq, x.pts, p.purchase_id, p.occurred_at, p.amount,
           loyalty.lots(x.day + 14, (date_trunc('month', x.day + 14 + interval '12 months' - interval '1 day') + interval '1 month')::date, x.pts) AS lots,
           loyalty.tally(x.day, p.amount, x.pts, 1) AS tally
    FROM n p JOIN port_set.account a ON a.account_id = p.member_id,
         LATERAL (SELECT (p.occurred_at AT TIME ZONE 'Europe/London')::date AS day,
             floor(p.amount * (ARRAY[1, 1.1, 1.25, 1.5])[coalesce(a.tier_id, 1)] * CASE WHEN p.store = 'S3' THEN 1.5 ELSE 1 END + CASE WHEN p.amount >= 90 THEN 50 ELSE 0 END
                 + CASE WHEN a.seq = 0 THEN 10 ELSE 0 END + CASE WHEN extract(hour FROM p.occurred_at AT TIME ZONE 'Europe/London') >= 20 THEN 2 ELSE 0 END)::bigint AS pts) x;
    INSERT INTO port_set.entry (account_id, seq, kind, points, source_id, occurred_at, recorded_at, lots, tally, breakdown, actor, hash)
        SELECT account_id, seq, 'earn', pts, purchase_id, occurred_at, now(), lots, tally, '\x00', session_user, '\x00' FROM posted ORDER BY account_id, seq;
    UPDATE port_set.account a SET lots = a.lots OPERATOR(loyalty.+) s.lots, tally = a.tally OPERATOR(loyalty.+) s.tally, seq = s.seq, last_event_at = s.at,
           tier_id = greatest(a.tier_id, CASE WHEN loyalty.spend(a.tally) + s.spend >= 20000 THEN 4 WHEN loyalty.spend(a.tally) + s.spend >= 5000 THEN 3 WHEN loyalty.spend(a.tally) + s.spend >= 1000 THEN 2 ELSE 1 END)
        FROM (SELECT account_id, loyalty.sum(lots) AS lots, loyalty.sum(tally) AS tally, max(seq) AS seq, max(occurred_at) AS at, sum(amount) AS spend FROM posted GROUP BY 1) s WHERE s.account_id = a.account_id;
    RETURN NULL;
END $$;
CREATE TRIGGER award AFTER INSERT ON port_set.purchase REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION port_set_award();
ANALYZE;
