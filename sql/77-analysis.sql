/*
 * analysis: what is kept for questions about customers, and how it is kept up.
 *
 * Facts of each purchase (analysis_purchase and its parts and returns) are made
 * from the purchase itself; sums by day and by member are made from the facts.
 * CALL loyalty.refresh_analysis() walks the purchases in the order of their
 * keys, a batch a transaction, and makes anew the facts of those that changed,
 * then the days and members that these touch: what is kept is a function of the
 * purchases, whatever happened to them and in whichever order.
 *
 * A purchase has changed when the transaction that wrote its row may not have
 * been seen by the last run: row.xmin not before the oldest transaction that ran
 * when that one began.  No clock, no queue, nothing on the way of an insert.
 */
CREATE TABLE loyalty.analysis_setting (
    program_id      integer PRIMARY KEY,
    lapse_days      integer NOT NULL DEFAULT 90 CHECK (lapse_days BETWEEN 1 AND 3650),
    lapse_factor    numeric NOT NULL DEFAULT 3 CHECK (lapse_factor BETWEEN 1 AND 100),
    compare_days    integer NOT NULL DEFAULT 90 CHECK (compare_days BETWEEN 1 AND 3650),
    horizon_days    integer NOT NULL DEFAULT 365 CHECK (horizon_days BETWEEN 1 AND 3650),
    consent         text NOT NULL DEFAULT 'opt_out' CHECK (consent IN ('opt_out', 'opt_in')),
    set_at          timestamptz NOT NULL DEFAULT now(),
    set_by          name NOT NULL DEFAULT session_user
);
COMMENT ON TABLE loyalty.analysis_setting IS 'What analysis of a programme goes by; see set_analysis. Programmes without a row go by the defaults';
COMMENT ON COLUMN loyalty.analysis_setting.lapse_days IS 'A member has lapsed after so many days without a purchase';
COMMENT ON COLUMN loyalty.analysis_setting.lapse_factor IS 'A member is overdue after so many times its own mean interval';
COMMENT ON COLUMN loyalty.analysis_setting.compare_days IS 'Length of the periods that are compared: before and after, the last and the one before it';
COMMENT ON COLUMN loyalty.analysis_setting.horizon_days IS 'How far ahead value is expected';
COMMENT ON COLUMN loyalty.analysis_setting.consent IS 'opt_out: statistics about persons leave out who withdrew consent to the purpose analysis; opt_in: who did not give it';

CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.analysis_setting
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('program_id');

CREATE TABLE loyalty.analysis_run (
    only_one        boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    run             bigint NOT NULL DEFAULT 0,
    horizon         xid8,
    next_horizon    xid8,
    guest_program   integer,
    zones           jsonb,
    position        bigint,
    started_at      timestamptz,
    fresh_at        timestamptz,
    finished_at     timestamptz,
    touched         bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE loyalty.analysis_run IS 'How far refresh_analysis came: one row, locked by each of its batches';
COMMENT ON COLUMN loyalty.analysis_run.horizon IS 'What transactions before it wrote is all in; NULL: nothing is';
COMMENT ON COLUMN loyalty.analysis_run.next_horizon IS 'What horizon will be when the present run ends';
COMMENT ON COLUMN loyalty.analysis_run.guest_program IS 'The programme that guests'' purchases count for';
COMMENT ON COLUMN loyalty.analysis_run.zones IS 'Time zones of the programmes, by which the facts have their days';
COMMENT ON COLUMN loyalty.analysis_run.position IS 'The present run has come so far in purchase_id; NULL: none is under way';
COMMENT ON COLUMN loyalty.analysis_run.fresh_at IS 'All that was committed by then is in';
COMMENT ON COLUMN loyalty.analysis_run.touched IS 'Purchases that the present or last run made anew';

CREATE TABLE loyalty.analysis_product (
    program_id  integer NOT NULL,
    sku         text NOT NULL,
    category    text,
    brand       text,
    changed     boolean NOT NULL,
    PRIMARY KEY (program_id, sku)
);
CREATE INDEX analysis_product_changed_idx ON loyalty.analysis_product (sku) WHERE changed;
COMMENT ON TABLE loyalty.analysis_product IS 'Categories and brands as the facts have them; changed: the present run makes the facts of its purchases anew';

CREATE TABLE loyalty.analysis_purchase (
    purchase_id bigint PRIMARY KEY,
    program_id  integer NOT NULL,
    member_id   bigint,
    day         date NOT NULL,
    occurred_at timestamptz NOT NULL,
    store       text,
    channel     text,
    lines       integer NOT NULL,
    quantity    numeric NOT NULL,
    amount      numeric NOT NULL,
    returned    numeric NOT NULL
);
CREATE INDEX analysis_purchase_member_id_idx ON loyalty.analysis_purchase (member_id, day);
CREATE INDEX analysis_purchase_day_idx ON loyalty.analysis_purchase (program_id, day);
COMMENT ON TABLE loyalty.analysis_purchase IS 'Facts of each completed purchase, in the programme''s zone and currency; under the member that its member was merged into';

CREATE TABLE loyalty.analysis_return (
    return_id   bigint PRIMARY KEY,
    purchase_id bigint NOT NULL,
    program_id  integer NOT NULL,
    member_id   bigint,
    day         date NOT NULL,
    store       text,
    channel     text,
    reason      text,
    amount      numeric NOT NULL,
    days_after  integer NOT NULL,
    complete    boolean NOT NULL
);
CREATE INDEX analysis_return_purchase_id_idx ON loyalty.analysis_return (purchase_id);
CREATE INDEX analysis_return_day_idx ON loyalty.analysis_return (program_id, day);
COMMENT ON TABLE loyalty.analysis_return IS 'Facts of each return of such a purchase';

CREATE TABLE loyalty.analysis_part (
    purchase_id bigint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('category', 'brand')),
    name        text NOT NULL,
    lines       integer NOT NULL,
    quantity    numeric NOT NULL,
    amount      numeric NOT NULL,
    PRIMARY KEY (purchase_id, kind, name)
);
COMMENT ON TABLE loyalty.analysis_part IS 'What of such a purchase was of each category and brand; empty name: of none';

CREATE TABLE loyalty.analysis_day (
    program_id  integer NOT NULL,
    day         date NOT NULL,
    store       text,
    channel     text,
    purchases   bigint NOT NULL,
    guest_purchases bigint NOT NULL,
    members     bigint NOT NULL,
    lines       bigint NOT NULL,
    quantity    numeric NOT NULL,
    amount      numeric NOT NULL,
    guest_amount numeric NOT NULL,
    returns     bigint NOT NULL,
    returned    numeric NOT NULL
);
CREATE INDEX analysis_day_day_idx ON loyalty.analysis_day (program_id, day);
COMMENT ON TABLE loyalty.analysis_day IS 'Sums of a day in a store and channel; returns on the day on which they came back';

CREATE TABLE loyalty.analysis_part_day (
    program_id  integer NOT NULL,
    day         date NOT NULL,
    kind        text NOT NULL,
    name        text NOT NULL,
    purchases   bigint NOT NULL,
    lines       bigint NOT NULL,
    quantity    numeric NOT NULL,
    amount      numeric NOT NULL,
    PRIMARY KEY (program_id, day, kind, name)
);
COMMENT ON TABLE loyalty.analysis_part_day IS 'Sums of a day by category and by brand';

CREATE TABLE loyalty.analysis_pair_day (
    program_id  integer NOT NULL,
    day         date NOT NULL,
    kind        text NOT NULL,
    name        text NOT NULL,
    other       text NOT NULL,
    purchases   bigint NOT NULL,
    PRIMARY KEY (program_id, day, kind, name, other)
);
COMMENT ON TABLE loyalty.analysis_pair_day IS 'Baskets of a day that hold two categories, or two brands; baskets of over 100 are left out';

CREATE TABLE loyalty.analysis_member (
    member_id   bigint PRIMARY KEY,
    program_id  integer NOT NULL,
    purchases   bigint NOT NULL,
    days        bigint NOT NULL,
    lines       bigint NOT NULL,
    amount      numeric NOT NULL,
    returned    numeric NOT NULL,
    first_day   date NOT NULL,
    second_day  date,
    third_day   date,
    last_day    date NOT NULL
);
COMMENT ON TABLE loyalty.analysis_member IS 'Sums of a member''s purchases';

CREATE TABLE loyalty.analysis_member_month (
    member_id   bigint NOT NULL,
    program_id  integer NOT NULL,
    month       date NOT NULL,
    purchases   bigint NOT NULL,
    amount      numeric NOT NULL,
    returned    numeric NOT NULL,
    PRIMARY KEY (member_id, month)
);
COMMENT ON TABLE loyalty.analysis_member_month IS 'The same by month';

CREATE TABLE loyalty.analysis_member_store (
    member_id   bigint NOT NULL,
    program_id  integer NOT NULL,
    store       text,
    channel     text,
    purchases   bigint NOT NULL,
    amount      numeric NOT NULL
);
CREATE INDEX analysis_member_store_member_id_idx ON loyalty.analysis_member_store (member_id);
COMMENT ON TABLE loyalty.analysis_member_store IS 'The same by store and channel';

CREATE TABLE loyalty.analysis_member_part (
    member_id   bigint NOT NULL,
    program_id  integer NOT NULL,
    kind        text NOT NULL,
    name        text NOT NULL,
    purchases   bigint NOT NULL,
    days        bigint NOT NULL,
    first_day   date NOT NULL,
    last_day    date NOT NULL,
    quantity    numeric NOT NULL,
    amount      numeric NOT NULL,
    PRIMARY KEY (member_id, kind, name)
);
COMMENT ON TABLE loyalty.analysis_member_part IS 'The same by category and by brand';

CREATE TABLE loyalty.analysis_model (
    program_id  integer PRIMARY KEY,
    as_of       date NOT NULL,
    horizon_days integer NOT NULL,
    buying      loyalty.bgnbd_model,
    spending    loyalty.gamma_gamma_model
);
COMMENT ON TABLE loyalty.analysis_model IS 'Models of buying as the last run fitted them; time in weeks, a purchase is a day with purchases';

CREATE FUNCTION loyalty.set_analysis(program_id integer, lapse_days integer DEFAULT 90, lapse_factor numeric DEFAULT 3, compare_days integer DEFAULT 90,
        horizon_days integer DEFAULT 365, consent text DEFAULT 'opt_out') RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM loyalty.require_program(program_id);
    IF (SELECT g.wallet_of FROM loyalty.program g WHERE g.program_id = program_id) IS NOT NULL THEN
        RAISE EXCEPTION 'a setting of analysis is not valid' USING ERRCODE = 'LY812', DETAIL = 'The programme is a wallet.', HINT = 'Set it for the programme whose wallet it is.';
    END IF;
    INSERT INTO loyalty.analysis_setting (program_id, lapse_days, lapse_factor, compare_days, horizon_days, consent)
        VALUES (program_id, lapse_days, lapse_factor, compare_days, horizon_days, consent)
        ON CONFLICT ON CONSTRAINT analysis_setting_pkey DO UPDATE SET lapse_days = excluded.lapse_days, lapse_factor = excluded.lapse_factor,
            compare_days = excluded.compare_days, horizon_days = excluded.horizon_days, consent = excluded.consent, set_at = now(), set_by = session_user;
EXCEPTION
    WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION 'a setting of analysis is not valid' USING ERRCODE = 'LY812', DETAIL = SQLERRM,
            HINT = 'Days from 1 to 3650, lapse_factor from 1 to 100; consent is opt_out or opt_in.';
END
$$;
COMMENT ON FUNCTION loyalty.set_analysis(integer, integer, numeric, integer, integer, text) IS 'Says what analysis of a programme goes by: when a member has lapsed or is overdue, the length of compared periods, how far ahead value is expected, and whether statistics about persons need consent to the purpose analysis';
REVOKE ALL ON FUNCTION loyalty.set_analysis(integer, integer, numeric, integer, integer, text) FROM PUBLIC;

/* --- facts --------------------------------------------------------------- */

CREATE FUNCTION loyalty.analysis_touched(after_id bigint, upto_id bigint, horizon xid8) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- both ages are counted from the same transaction, so that they compare where the numbers wrap
    young integer := age(horizon::xid);
    ids bigint[];
BEGIN
    IF horizon IS NULL THEN
        SELECT array_agg(x.id ORDER BY x.id) INTO ids FROM (
            SELECT p.purchase_id AS id FROM loyalty.purchase p WHERE p.purchase_id > after_id AND p.purchase_id <= upto_id
            UNION SELECT f.purchase_id FROM loyalty.analysis_purchase f WHERE f.purchase_id > after_id AND f.purchase_id <= upto_id) x;
        RETURN ids;
    END IF;
    SELECT array_agg(x.id ORDER BY x.id) INTO ids FROM (
        SELECT p.purchase_id AS id FROM loyalty.purchase p WHERE p.purchase_id > after_id AND p.purchase_id <= upto_id AND age(p.xmin) <= young
        UNION SELECT r.purchase_id FROM loyalty.returned r LEFT JOIN loyalty.purchase_return q USING (return_id)
            WHERE r.purchase_id > after_id AND r.purchase_id <= upto_id AND (age(r.xmin) <= young OR age(q.xmin) <= young)
        UNION SELECT t.purchase_id FROM loyalty.analysis_return t
            WHERE t.purchase_id > after_id AND t.purchase_id <= upto_id AND NOT EXISTS (SELECT FROM loyalty.returned r WHERE r.return_id = t.return_id)
        UNION SELECT f.purchase_id FROM loyalty.analysis_purchase f
            WHERE f.purchase_id > after_id AND f.purchase_id <= upto_id
                AND (NOT EXISTS (SELECT FROM loyalty.purchase p WHERE p.purchase_id = f.purchase_id)
                     OR f.member_id IN (SELECT a.account_id FROM loyalty.account a WHERE a.merged_into IS NOT NULL))) x;
    IF EXISTS (SELECT FROM loyalty.analysis_product c WHERE c.changed) THEN
        SELECT array_agg(DISTINCT x.id ORDER BY x.id) INTO ids FROM (
            SELECT unnest(ids) AS id
            UNION ALL SELECT p.purchase_id FROM loyalty.purchase p CROSS JOIN LATERAL unnest(p.lines) l
                WHERE p.purchase_id > after_id AND p.purchase_id <= upto_id AND l.sku IN (SELECT c.sku FROM loyalty.analysis_product c WHERE c.changed)) x;
    END IF;
    IF EXISTS (SELECT FROM loyalty.exchange_rate r WHERE age(r.xmin) <= young) THEN
        SELECT array_agg(DISTINCT x.id ORDER BY x.id) INTO ids FROM (
            SELECT unnest(ids) AS id
            UNION ALL SELECT p.purchase_id FROM loyalty.purchase p
                WHERE p.purchase_id > after_id AND p.purchase_id <= upto_id
                    AND p.currency IN (SELECT r.from_currency FROM loyalty.exchange_rate r WHERE age(r.xmin) <= young)) x;
    END IF;
    RETURN ids;
END
$$;
COMMENT ON FUNCTION loyalty.analysis_touched(bigint, bigint, xid8) IS 'Purchases of a range of keys that were written, returned, deleted, merged into another member''s or changed category since the horizon';
REVOKE ALL ON FUNCTION loyalty.analysis_touched(bigint, bigint, xid8) FROM PUBLIC;

CREATE FUNCTION loyalty.make_analysis_facts(ids bigint[], guest_program integer) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (ids);
    DELETE FROM loyalty.analysis_part t WHERE t.purchase_id = ANY (ids);
    DELETE FROM loyalty.analysis_return r WHERE r.purchase_id = ANY (ids);
    INSERT INTO loyalty.analysis_purchase
        SELECT p.purchase_id, g.program_id, coalesce(a.merged_into, p.member_id), (p.occurred_at AT TIME ZONE g.time_zone)::date, p.occurred_at, p.store, p.channel,
               l.lines, l.quantity, c.amount, c.returned
        FROM loyalty.purchase p
             LEFT JOIN loyalty.member m ON m.member_id = p.member_id
             LEFT JOIN loyalty.account a ON a.account_id = p.member_id
             JOIN loyalty.program g ON g.program_id = CASE WHEN p.member_id IS NULL THEN guest_program ELSE m.program_id END
             LEFT JOIN loyalty.exchange_rate x ON x.from_currency = p.currency AND x.to_currency = g.currency AND x.day = (p.occurred_at AT TIME ZONE g.time_zone)::date
             CROSS JOIN LATERAL (SELECT CASE WHEN coalesce(p.currency, g.currency) = g.currency THEN 1 ELSE x.rate END AS rate) e
             CROSS JOIN LATERAL (SELECT round(p.amount * e.rate, 4) AS amount,
                                        round(coalesce((SELECT sum(r.amount) FROM loyalty.returned r WHERE r.purchase_id = p.purchase_id), 0) * e.rate, 4) AS returned) c
             CROSS JOIN LATERAL (SELECT count(*) AS lines, coalesce(sum(n.quantity), 0) AS quantity FROM unnest(p.lines) n) l
        WHERE p.purchase_id = ANY (ids) AND p.status = 'completed' AND e.rate IS NOT NULL;
    INSERT INTO loyalty.analysis_part
        SELECT f.purchase_id, k.kind, k.name, count(*), coalesce(sum(l.quantity), 0),
               round(coalesce(sum(coalesce(l.amount, l.quantity * l.unit_price - coalesce(l.discount, 0))), 0) * CASE WHEN p.amount = 0 THEN 1 ELSE f.amount / p.amount END, 4)
        FROM loyalty.analysis_purchase f
             JOIN loyalty.purchase p USING (purchase_id)
             CROSS JOIN LATERAL unnest(p.lines) l
             LEFT JOIN loyalty.analysis_product c ON c.program_id = f.program_id AND c.sku = l.sku
             CROSS JOIN LATERAL (VALUES ('category', coalesce(c.category, '')), ('brand', c.brand)) k (kind, name)
        WHERE f.purchase_id = ANY (ids) AND k.name IS NOT NULL
        GROUP BY f.purchase_id, f.amount, p.amount, k.kind, k.name;
    INSERT INTO loyalty.analysis_return
        SELECT r.return_id, f.purchase_id, f.program_id, f.member_id, d.day, f.store, f.channel, q.reason,
               round(r.amount * CASE WHEN p.amount = 0 THEN 1 ELSE f.amount / p.amount END, 4), greatest(d.day - f.day, 0), r.complete
        FROM loyalty.analysis_purchase f
             JOIN loyalty.purchase p USING (purchase_id)
             JOIN loyalty.program g ON g.program_id = f.program_id
             JOIN loyalty.returned r USING (purchase_id)
             JOIN loyalty.purchase_return q USING (return_id)
             CROSS JOIN LATERAL (SELECT (q.occurred_at AT TIME ZONE g.time_zone)::date AS day) d
        WHERE f.purchase_id = ANY (ids);
END
$$;
COMMENT ON FUNCTION loyalty.make_analysis_facts(bigint[], integer) IS 'Makes the facts of purchases anew; none of those that are void or gone';
REVOKE ALL ON FUNCTION loyalty.make_analysis_facts(bigint[], integer) FROM PUBLIC;

/* --- sums ---------------------------------------------------------------- */

CREATE FUNCTION loyalty.sum_analysis_days(programs integer[], days date[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM loyalty.analysis_day d USING ROWS FROM (unnest(programs), unnest(days)) k (program_id, day) WHERE d.program_id = k.program_id AND d.day = k.day;
    DELETE FROM loyalty.analysis_part_day d USING ROWS FROM (unnest(programs), unnest(days)) k (program_id, day) WHERE d.program_id = k.program_id AND d.day = k.day;
    DELETE FROM loyalty.analysis_pair_day d USING ROWS FROM (unnest(programs), unnest(days)) k (program_id, day) WHERE d.program_id = k.program_id AND d.day = k.day;
    INSERT INTO loyalty.analysis_day
        SELECT x.program_id, x.day, x.store, x.channel, count(x.purchase_id), count(x.purchase_id) FILTER (WHERE x.member_id IS NULL), count(DISTINCT x.member_id) FILTER (WHERE x.purchase_id IS NOT NULL),
               sum(x.lines), sum(x.quantity), sum(x.amount), coalesce(sum(x.amount) FILTER (WHERE x.member_id IS NULL), 0), count(x.return_id), sum(x.returned)
        FROM (SELECT f.program_id, f.day, f.store, f.channel, f.purchase_id, f.member_id, f.lines, f.quantity, f.amount, NULL::bigint AS return_id, 0::numeric AS returned
              FROM loyalty.analysis_purchase f JOIN ROWS FROM (unnest(programs), unnest(days)) k (program_id, day) USING (program_id, day)
              UNION ALL
              SELECT r.program_id, r.day, r.store, r.channel, NULL, r.member_id, 0, 0, 0, r.return_id, r.amount
              FROM loyalty.analysis_return r JOIN ROWS FROM (unnest(programs), unnest(days)) k (program_id, day) USING (program_id, day)) x
        GROUP BY x.program_id, x.day, x.store, x.channel;
    INSERT INTO loyalty.analysis_part_day
        SELECT f.program_id, f.day, t.kind, t.name, count(*), sum(t.lines), sum(t.quantity), sum(t.amount)
        FROM loyalty.analysis_purchase f JOIN ROWS FROM (unnest(programs), unnest(days)) k (program_id, day) USING (program_id, day)
             JOIN loyalty.analysis_part t USING (purchase_id)
        GROUP BY f.program_id, f.day, t.kind, t.name;
    INSERT INTO loyalty.analysis_pair_day
        SELECT f.program_id, f.day, t.kind, t.name, o.name, count(*)
        FROM loyalty.analysis_purchase f JOIN ROWS FROM (unnest(programs), unnest(days)) k (program_id, day) USING (program_id, day)
             JOIN loyalty.analysis_part t USING (purchase_id)
             JOIN loyalty.analysis_part o ON o.purchase_id = t.purchase_id AND o.kind = t.kind AND o.name > t.name
        WHERE t.name <> '' AND (SELECT count(*) FROM loyalty.analysis_part n WHERE n.purchase_id = f.purchase_id AND n.kind = t.kind) <= 100
        GROUP BY f.program_id, f.day, t.kind, t.name, o.name;
END
$$;
COMMENT ON FUNCTION loyalty.sum_analysis_days(integer[], date[]) IS 'Makes the sums of days anew from the facts';
REVOKE ALL ON FUNCTION loyalty.sum_analysis_days(integer[], date[]) FROM PUBLIC;

CREATE FUNCTION loyalty.sum_analysis_members(members bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM loyalty.analysis_member m WHERE m.member_id = ANY (members);
    DELETE FROM loyalty.analysis_member_month m WHERE m.member_id = ANY (members);
    DELETE FROM loyalty.analysis_member_store m WHERE m.member_id = ANY (members);
    DELETE FROM loyalty.analysis_member_part m WHERE m.member_id = ANY (members);
    INSERT INTO loyalty.analysis_member
        SELECT f.member_id, f.program_id, count(*), count(DISTINCT f.day), sum(f.lines), sum(f.amount), sum(f.returned),
               min(f.day), (array_agg(f.day ORDER BY f.day))[2], (array_agg(f.day ORDER BY f.day))[3], max(f.day)
        FROM loyalty.analysis_purchase f WHERE f.member_id = ANY (members) GROUP BY f.member_id, f.program_id;
    INSERT INTO loyalty.analysis_member_month
        SELECT f.member_id, f.program_id, date_trunc('month', f.day)::date, count(*), sum(f.amount), sum(f.returned)
        FROM loyalty.analysis_purchase f WHERE f.member_id = ANY (members) GROUP BY 1, 2, 3;
    INSERT INTO loyalty.analysis_member_store
        SELECT f.member_id, f.program_id, f.store, f.channel, count(*), sum(f.amount)
        FROM loyalty.analysis_purchase f WHERE f.member_id = ANY (members) GROUP BY 1, 2, 3, 4;
    INSERT INTO loyalty.analysis_member_part
        SELECT f.member_id, f.program_id, t.kind, t.name, count(*), count(DISTINCT f.day), min(f.day), max(f.day), sum(t.quantity), sum(t.amount)
        FROM loyalty.analysis_purchase f JOIN loyalty.analysis_part t USING (purchase_id)
        WHERE f.member_id = ANY (members) GROUP BY 1, 2, 3, 4;
END
$$;
COMMENT ON FUNCTION loyalty.sum_analysis_members(bigint[]) IS 'Makes the sums of members anew from the facts';
REVOKE ALL ON FUNCTION loyalty.sum_analysis_members(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.make_analysis(ids bigint[], guest_program integer) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    members bigint[];
    programs integer[];
    days date[];
    more bigint[];
    known bigint[];
BEGIN
    IF ids IS NULL THEN
        RETURN;
    END IF;
    -- what they counted for, then what they count for
    SELECT array_agg(DISTINCT f.member_id) INTO members FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (ids) AND f.member_id IS NOT NULL;
    SELECT array_agg(x.program_id), array_agg(x.day) INTO programs, days
        FROM (SELECT f.program_id, f.day FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (ids)
              UNION SELECT r.program_id, r.day FROM loyalty.analysis_return r WHERE r.purchase_id = ANY (ids)) x;
    known := loyalty.note_baskets_before(ids);
    PERFORM loyalty.make_analysis_facts(ids, guest_program);
    PERFORM loyalty.note_baskets_after(ids, known);
    PERFORM loyalty.take_back_accepted(ids);
    SELECT array_agg(DISTINCT f.member_id) INTO more FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (ids) AND f.member_id IS NOT NULL;
    SELECT array_agg(x.program_id), array_agg(x.day) INTO programs, days
        FROM (SELECT * FROM ROWS FROM (unnest(programs), unnest(days)) k (program_id, day)
              UNION SELECT f.program_id, f.day FROM loyalty.analysis_purchase f WHERE f.purchase_id = ANY (ids)
              UNION SELECT r.program_id, r.day FROM loyalty.analysis_return r WHERE r.purchase_id = ANY (ids)) x;
    PERFORM loyalty.sum_analysis_days(programs, days);
    PERFORM loyalty.sum_analysis_members(ARRAY(SELECT unnest(members) UNION SELECT unnest(more)));
END
$$;
COMMENT ON FUNCTION loyalty.make_analysis(bigint[], integer) IS 'Makes the facts of purchases anew, and the sums of the days and members that they touch';
REVOKE ALL ON FUNCTION loyalty.make_analysis(bigint[], integer) FROM PUBLIC;

/* --- who may be analysed ------------------------------------------------- */

CREATE VIEW loyalty.analysis_policy AS
    SELECT g.program_id, coalesce(s.lapse_days, 90) AS lapse_days, coalesce(s.lapse_factor, 3) AS lapse_factor, coalesce(s.compare_days, 90) AS compare_days,
           coalesce(s.horizon_days, 365) AS horizon_days, coalesce(s.consent, 'opt_out') AS consent,
           least((now() AT TIME ZONE g.time_zone)::date, (SELECT max(d.day) + 1 FROM loyalty.analysis_day d WHERE d.program_id = g.program_id AND d.purchases > 0)) AS as_of
    FROM loyalty.program g LEFT JOIN loyalty.analysis_setting s USING (program_id)
    WHERE g.wallet_of IS NULL
    OFFSET 0;           -- once a programme, not once a row of what it is joined to
COMMENT ON VIEW loyalty.analysis_policy IS 'What analysis of each programme goes by, and the day from which it looks back: today, or the day after the last purchase where that is earlier, so that a feed that stopped makes nobody lapse';

CREATE VIEW loyalty.analysis_word AS
    SELECT DISTINCT ON (coalesce(a.merged_into, c.member_id)) coalesce(a.merged_into, c.member_id) AS member_id, c.given
    FROM loyalty.consent_change c LEFT JOIN loyalty.account a ON a.account_id = c.member_id
    WHERE c.purpose = 'analysis'
    ORDER BY coalesce(a.merged_into, c.member_id), c.occurred_at DESC, c.number DESC;
COMMENT ON VIEW loyalty.analysis_word IS 'Members'' last word on the purpose analysis, by whatever way it came; of whoever was merged, under the one that it was merged into';

CREATE VIEW loyalty.analysis_subject AS
    SELECT m.member_id, m.program_id
    FROM loyalty.member m LEFT JOIN loyalty.analysis_word w USING (member_id) LEFT JOIN loyalty.analysis_setting s USING (program_id)
    WHERE coalesce(w.given, s.consent IS DISTINCT FROM 'opt_in')
          AND NOT EXISTS (SELECT FROM loyalty.erasure e WHERE e.member_id = m.member_id);
COMMENT ON VIEW loyalty.analysis_subject IS 'Members that statistics about persons may tell of: not who withdrew consent to the purpose analysis (opt_in: who never gave it), nor who was erased';

/* --- the run ------------------------------------------------------------- */

CREATE FUNCTION loyalty.fit_analysis() RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM loyalty.analysis_model;
    INSERT INTO loyalty.analysis_model
        SELECT p.program_id, p.as_of, p.horizon_days,
               loyalty.bgnbd_fit((m.days - 1)::float8, (m.last_day - m.first_day) / 7.0, (p.as_of - m.first_day) / 7.0),
               loyalty.gamma_gamma_fit(m.days::float8, ((m.amount - m.returned) / m.days)::float8) FILTER (WHERE m.amount > m.returned)
        FROM loyalty.analysis_policy p JOIN loyalty.analysis_member m USING (program_id) JOIN loyalty.analysis_subject s USING (member_id)
        WHERE m.last_day <= p.as_of
        GROUP BY p.program_id, p.as_of, p.horizon_days;
$$;
COMMENT ON FUNCTION loyalty.fit_analysis() IS 'Fits the models of buying of every programme';
REVOKE ALL ON FUNCTION loyalty.fit_analysis() FROM PUBLIC;

CREATE FUNCTION loyalty.is_model_old(horizon xid8) RETURNS boolean
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM loyalty.analysis_policy p LEFT JOIN loyalty.analysis_model m USING (program_id)
                   WHERE p.as_of IS NOT NULL AND (m.as_of, m.horizon_days) IS DISTINCT FROM (p.as_of, p.horizon_days))
        OR EXISTS (SELECT FROM loyalty.consent_change c WHERE c.purpose = 'analysis' AND age(c.xmin) <= age(horizon::xid))
        OR EXISTS (SELECT FROM loyalty.analysis_setting s WHERE age(s.xmin) <= age(horizon::xid))
        OR EXISTS (SELECT FROM loyalty.erasure e WHERE age(e.xmin) <= age(horizon::xid))
$$;
COMMENT ON FUNCTION loyalty.is_model_old(xid8) IS 'Whether the models of buying must be fitted again though no purchase changed since the horizon: another day, other settings, other members who may be analysed';
REVOKE ALL ON FUNCTION loyalty.is_model_old(xid8) FROM PUBLIC;

CREATE FUNCTION loyalty.begin_analysis(rebuild boolean) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s loyalty.analysis_run;
    guests integer := (SELECT min(g.program_id) FROM loyalty.program g WHERE g.wallet_of IS NULL);
    oldest xid8;
BEGIN
    INSERT INTO loyalty.analysis_run DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT * INTO s FROM loyalty.analysis_run FOR UPDATE;
    IF s.position IS NOT NULL AND NOT rebuild THEN
        RETURN s.run;           -- go on where a run was left, or help the one that runs
    END IF;
    oldest := pg_snapshot_xmin(pg_current_snapshot());
    IF rebuild THEN
        PERFORM loyalty.forget_baskets();
        PERFORM loyalty.take_back_accepted(ARRAY(SELECT f.purchase_id FROM loyalty.analysis_purchase f WHERE NOT EXISTS (SELECT FROM loyalty.purchase p WHERE p.purchase_id = f.purchase_id)));
        DELETE FROM loyalty.analysis_purchase;
        DELETE FROM loyalty.analysis_part;
        DELETE FROM loyalty.analysis_return;
        DELETE FROM loyalty.analysis_day;
        DELETE FROM loyalty.analysis_part_day;
        DELETE FROM loyalty.analysis_pair_day;
        DELETE FROM loyalty.analysis_member;
        DELETE FROM loyalty.analysis_member_month;
        DELETE FROM loyalty.analysis_member_store;
        DELETE FROM loyalty.analysis_member_part;
        DELETE FROM loyalty.analysis_product;
        s.horizon := NULL;
    ELSIF EXISTS (SELECT FROM loyalty.program g WHERE s.zones ->> g.program_id::text <> g.time_zone) THEN
        s.horizon := NULL;      -- other days: make everything anew
    ELSIF s.guest_program IS DISTINCT FROM guests OR oldest::text::numeric - s.horizon::text::numeric NOT BETWEEN 0 AND 2000000000 THEN
        s.horizon := NULL;      -- nothing to go by: look at everything
    END IF;
    -- those that differ only: a conflict would lock the rows of all the others
    INSERT INTO loyalty.analysis_product
        SELECT p.program_id, p.sku, p.category, p.brand, true
        FROM loyalty.product p LEFT JOIN loyalty.analysis_product c ON c.program_id = p.program_id AND c.sku = p.sku
        WHERE c.sku IS NULL OR (c.category, c.brand) IS DISTINCT FROM (p.category, p.brand)
        ON CONFLICT ON CONSTRAINT analysis_product_pkey DO UPDATE SET category = excluded.category, brand = excluded.brand, changed = true;
    UPDATE loyalty.analysis_product c SET category = NULL, brand = NULL, changed = true
        WHERE NOT EXISTS (SELECT FROM loyalty.product p WHERE p.program_id = c.program_id AND p.sku = c.sku);
    UPDATE loyalty.analysis_run SET run = s.run + 1, horizon = s.horizon, next_horizon = oldest, guest_program = guests,
        zones = (SELECT jsonb_object_agg(g.program_id, g.time_zone) FROM loyalty.program g WHERE g.wallet_of IS NULL), position = -9223372036854775808,
        started_at = clock_timestamp(), touched = 0;
    RETURN s.run + 1;
END
$$;
COMMENT ON FUNCTION loyalty.begin_analysis(boolean) IS 'Begins a run of refresh_analysis, or joins the one that was begun; returns its number';
REVOKE ALL ON FUNCTION loyalty.begin_analysis(boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.step_analysis(run bigint, batch integer) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s loyalty.analysis_run;
    upto bigint;
    ids bigint[];
BEGIN
    SELECT * INTO s FROM loyalty.analysis_run FOR UPDATE;
    IF s.run <> step_analysis.run OR s.position IS NULL THEN
        RETURN false;           -- somebody else ended it
    END IF;
    SELECT max(x.purchase_id) INTO upto
        FROM (SELECT p.purchase_id FROM loyalty.purchase p WHERE p.purchase_id > s.position ORDER BY p.purchase_id LIMIT batch) x;
    ids := loyalty.analysis_touched(s.position, coalesce(upto, 9223372036854775807), s.horizon);
    PERFORM loyalty.make_analysis(ids, s.guest_program);
    IF upto IS NULL THEN
        DELETE FROM loyalty.analysis_product c WHERE c.changed AND NOT EXISTS (SELECT FROM loyalty.product p WHERE p.program_id = c.program_id AND p.sku = c.sku);
        UPDATE loyalty.analysis_product c SET changed = false WHERE c.changed;
        IF s.horizon IS NULL OR s.touched > 0 OR ids IS NOT NULL OR loyalty.is_model_old(s.horizon) THEN
            PERFORM loyalty.fit_analysis();
        END IF;
        IF s.horizon IS NULL THEN
            -- what was just filled: plans of the views go by its statistics at once
            ANALYZE loyalty.analysis_purchase, loyalty.analysis_part, loyalty.analysis_return, loyalty.analysis_day, loyalty.analysis_part_day, loyalty.analysis_pair_day,
                loyalty.analysis_member, loyalty.analysis_member_month, loyalty.analysis_member_store, loyalty.analysis_member_part;
        END IF;
        UPDATE loyalty.analysis_run SET position = NULL, horizon = next_horizon, next_horizon = NULL, fresh_at = started_at, finished_at = clock_timestamp(),
            touched = touched + coalesce(cardinality(ids), 0);
        RETURN false;
    END IF;
    UPDATE loyalty.analysis_run SET position = upto, touched = touched + coalesce(cardinality(ids), 0);
    RETURN true;
END
$$;
COMMENT ON FUNCTION loyalty.step_analysis(bigint, integer) IS 'One batch of refresh_analysis; false: it is done';
REVOKE ALL ON FUNCTION loyalty.step_analysis(bigint, integer) FROM PUBLIC;

CREATE PROCEDURE loyalty.refresh_analysis(batch integer DEFAULT 10000, rebuild boolean DEFAULT false)
    LANGUAGE plpgsql
AS $$
DECLARE
    run bigint;
    more boolean;
BEGIN
    IF batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'batch must be at least 1' USING ERRCODE = 'LY110', DETAIL = pg_catalog.format('Got %s.', coalesce(batch::text, 'NULL'));
    END IF;
    run := loyalty.begin_analysis(coalesce(rebuild, false));
    COMMIT;
    LOOP
        more := loyalty.step_analysis(run, batch);
        COMMIT;
        EXIT WHEN NOT more;
    END LOOP;
    RAISE NOTICE 'refresh_analysis: % purchases made anew', (SELECT r.touched FROM loyalty.analysis_run r);
END
$$;
COMMENT ON PROCEDURE loyalty.refresh_analysis(integer, boolean) IS 'Brings what is kept for analysis up to date: looks at so many purchases a transaction and makes anew what changed. Stopped, it goes on where it was; rebuild forgets everything first';
REVOKE ALL ON PROCEDURE loyalty.refresh_analysis(integer, boolean) FROM PUBLIC;
