/*
 * return: goods that come back take back what they had earned.
 *
 * A return decides nothing anew: it takes the returned share of what the award
 * gave, cumulatively, so that the parts of a full return add up to all of it.
 */

CREATE TYPE loyalty.return_line AS (
    line        integer,
    sku         text,
    quantity    numeric,
    amount      numeric
);
COMMENT ON TYPE loyalty.return_line IS 'What came back of one line of a purchase';
COMMENT ON COLUMN loyalty.return_line.line IS 'Number of the purchase''s line, from 1; NULL: by sku';
COMMENT ON COLUMN loyalty.return_line.sku IS 'Article; where several lines have it, the first ones are taken';
COMMENT ON COLUMN loyalty.return_line.quantity IS 'How much came back; NULL with amount NULL: the whole line';
COMMENT ON COLUMN loyalty.return_line.amount IS 'Money given back for the line where no quantity came back: a price reduction';

CREATE TABLE loyalty.purchase_return (
    return_id       bigint PRIMARY KEY DEFAULT nextval('loyalty.transaction_id_seq'),
    purchase_id     bigint,
    purchase_source text NOT NULL DEFAULT 'purchase',
    purchase_reference text,
    member_id       bigint,
    occurred_at     timestamptz NOT NULL DEFAULT now() CHECK (isfinite(occurred_at)),
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    amount          numeric,
    lines           loyalty.return_line[],
    reason          text,
    attributes      jsonb,
    source          text NOT NULL DEFAULT 'return',
    reference       text,
    CONSTRAINT purchase_return_reference_key UNIQUE (source, reference)
);
COMMENT ON TABLE loyalty.purchase_return IS 'Goods or money given back for a purchase: whole (neither lines nor amount), by line, or by amount. An INSERT takes back what they had earned, in the same transaction';
COMMENT ON COLUMN loyalty.purchase_return.purchase_id IS 'What is returned; NULL: named by purchase_source and purchase_reference';
COMMENT ON COLUMN loyalty.purchase_return.member_id IS 'Who returns it; where it is given it must be the purchase''s member';
COMMENT ON COLUMN loyalty.purchase_return.recorded_at IS 'Set by the default alone: a row that brings another time is a restored one and takes nothing';
COMMENT ON COLUMN loyalty.purchase_return.amount IS 'Money given back on the whole order; exclusive of lines';
COMMENT ON COLUMN loyalty.purchase_return.reference IS 'The till''s own number; (source, reference) is unique for ever';

CREATE TABLE loyalty.returned (
    return_id       bigint PRIMARY KEY,
    purchase_id     bigint NOT NULL,
    number          integer NOT NULL,
    amount          numeric NOT NULL DEFAULT 0,
    money           numeric NOT NULL DEFAULT 0,
    points_money    numeric NOT NULL DEFAULT 0,
    points_restored bigint NOT NULL DEFAULT 0,
    points_taken    bigint NOT NULL DEFAULT 0,
    complete        boolean NOT NULL DEFAULT false,
    UNIQUE (purchase_id, number)
);
COMMENT ON TABLE loyalty.returned IS 'What came of each return; written by the engine alone';
COMMENT ON COLUMN loyalty.returned.number IS 'The how-manieth return of its purchase, from 1';
COMMENT ON COLUMN loyalty.returned.amount IS 'Worth of what came back, in the purchase''s currency: money plus points_money';
COMMENT ON COLUMN loyalty.returned.money IS 'Of that, what goes back as money';
COMMENT ON COLUMN loyalty.returned.points_money IS 'Of that, the share that was paid with points, in the original ratio';
COMMENT ON COLUMN loyalty.returned.points_restored IS 'Points given back for points_money, where the purchase names its redemption';
COMMENT ON COLUMN loyalty.returned.points_taken IS 'Points of the entry that took them back; less than was earned where the negative policy takes less. Where they had died and were closed, that entry takes them from an entry that opens them again';
COMMENT ON COLUMN loyalty.returned.complete IS 'Nothing of the purchase is left after this return';

CREATE FUNCTION loyalty.return_lines(lines jsonb) RETURNS loyalty.return_line[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result loyalty.return_line[] := '{}';
    element jsonb;
    stray text;
BEGIN
    IF jsonb_typeof(lines) <> 'array' THEN
        RAISE EXCEPTION 'lines must be a JSON array' USING ERRCODE = 'LY106', HINT = 'For example [{"sku": "A1", "quantity": 2}].';
    END IF;
    FOR element IN SELECT * FROM jsonb_array_elements(lines) LOOP
        IF jsonb_typeof(element) <> 'object' THEN
            RAISE EXCEPTION 'a line of a return is not an object' USING ERRCODE = 'LY106', DETAIL = element::text;
        END IF;
        SELECT k INTO stray FROM jsonb_object_keys(element) k WHERE k <> ALL (ARRAY['line', 'sku', 'quantity', 'amount']) LIMIT 1;
        IF stray IS NOT NULL THEN
            RAISE EXCEPTION 'a line of a return has an unknown key "%"', stray
                USING ERRCODE = 'LY106', HINT = 'Keys are line or sku, and quantity or amount.';
        END IF;
        BEGIN
            result := result || ROW((element ->> 'line')::integer, element ->> 'sku', (element ->> 'quantity')::numeric,
                (element ->> 'amount')::numeric)::loyalty.return_line;
        EXCEPTION WHEN data_exception THEN
            RAISE EXCEPTION 'a line of a return holds something that is not a number' USING ERRCODE = 'LY106', DETAIL = element::text;
        END;
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION loyalty.return_lines(jsonb) IS 'Lines of a return from JSON: [{"sku": "A1", "quantity": 2}, {"line": 3}]';

CREATE FUNCTION loyalty.purchase_digits(p loyalty.purchase) RETURNS integer
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN loyalty.currency_digits(coalesce(p.currency,
        (SELECT g.currency FROM loyalty.member m JOIN loyalty.program g USING (program_id) WHERE m.member_id = p.member_id), '---'));
END
$$;
COMMENT ON FUNCTION loyalty.purchase_digits(loyalty.purchase) IS 'Digits of the minor unit of a purchase''s currency';
REVOKE ALL ON FUNCTION loyalty.purchase_digits(loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.raise_return(purchase_id bigint, code text, detail text, hint text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'purchase % cannot be returned like this', purchase_id
        USING ERRCODE = code, DETAIL = detail, HINT = coalesce(hint, 'Lines are {line or sku, quantity or amount}; without lines and amount the whole purchase comes back.');
END
$$;
COMMENT ON FUNCTION loyalty.raise_return(bigint, text, text, text) IS 'Refuses a return';
REVOKE ALL ON FUNCTION loyalty.raise_return(bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.named_returns(purchase_id bigint)
    RETURNS TABLE (line integer, sku text, quantity numeric, amount numeric, whole boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT u.line, u.sku, sum(u.quantity), sum(u.amount) FILTER (WHERE u.quantity IS NULL), bool_or(u.quantity IS NULL AND u.amount IS NULL)
        FROM loyalty.returned d JOIN loyalty.purchase_return q USING (return_id) CROSS JOIN LATERAL unnest(q.lines) u
        WHERE d.purchase_id = named_returns.purchase_id GROUP BY 1, 2;
END
$$;
COMMENT ON FUNCTION loyalty.named_returns(bigint) IS 'What came back of a purchase so far, by the line or the article that the returns name';
REVOKE ALL ON FUNCTION loyalty.named_returns(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.returned_lines(p loyalty.purchase)
    RETURNS TABLE (line integer, sku text, cost numeric, bought numeric, back numeric, money numeric, above numeric, below numeric, surplus numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_hashjoin = on    -- lines are joined to lines here, and there may be thousands
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH x AS MATERIALIZED (SELECT * FROM loyalty.named_returns(p.purchase_id)),
    l AS (
        SELECT u.line::integer, u.sku, coalesce(u.amount, u.quantity * u.unit_price - coalesce(u.discount, 0), 0) AS cost,
               CASE WHEN u.quantity <> 0 THEN u.quantity ELSE 1 END AS bought
        FROM ROWS FROM (unnest(p.lines)) WITH ORDINALITY AS u (sku, quantity, unit_price, amount, discount, line)),
    named AS (      -- what came back by the number of the line
        SELECT l.*, coalesce(x.quantity, 0) AS quantity, coalesce(x.amount, 0) AS amount, coalesce(x.whole, false) AS whole
        FROM l LEFT JOIN x ON x.line = l.line),
    ordered AS (    -- and by the article: the first lines that have it are taken first
        SELECT n.*, s.quantity AS of_sku, s.amount AS money_of_sku, coalesce(s.whole, false) AS whole_sku,
               row_number() OVER w AS place,
               sum(greatest(n.bought - n.quantity, 0)) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
               sum(greatest(n.bought - n.quantity, 0)) OVER (PARTITION BY n.sku) AS there
        FROM named n LEFT JOIN x s ON s.line IS NULL AND s.sku = n.sku
        WINDOW w AS (PARTITION BY n.sku ORDER BY n.line)),
    total AS (
        SELECT o.line, o.sku, o.cost, o.bought,
               o.quantity + least(greatest(o.bought - o.quantity, 0), greatest(coalesce(o.of_sku, 0) - coalesce(o.before, 0), 0)) AS back,
               o.amount + CASE WHEN o.place = 1 THEN coalesce(o.money_of_sku, 0) ELSE 0 END AS money,
               o.whole OR o.whole_sku AS whole, greatest(coalesce(o.of_sku, 0) - o.there, 0) AS surplus
        FROM ordered o)
    SELECT t.line, t.sku, t.cost, t.bought, t.back, t.money,
           CASE WHEN t.whole THEN 1 WHEN t.cost = 0 THEN t.back ELSE t.back * t.cost + t.money * t.bought END,
           CASE WHEN t.whole THEN 1 WHEN t.cost = 0 THEN t.bought ELSE t.bought * t.cost END, t.surplus
    FROM total t;
END
$$;
COMMENT ON FUNCTION loyalty.returned_lines(loyalty.purchase) IS 'Of each line of a purchase: its cost, how much was bought and came back, money given back, and the share that is gone as above / below, exactly; surplus: pieces of its article beyond what was bought';
REVOKE ALL ON FUNCTION loyalty.returned_lines(loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.returned_share(purchase_id bigint, line_points bigint[], gross_points bigint, gross_spend bigint,
        OUT points bigint, OUT spend bigint, OUT amount numeric, OUT complete boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_hashjoin = on
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.purchase;
    digits integer;
    goods numeric;          -- what the lines cost together: the total less shipping
    on_order numeric;       -- money given back on the whole order
    l record;
BEGIN
    SELECT * INTO p FROM loyalty.purchase q WHERE q.purchase_id = purchase_id;
    goods := p.amount - coalesce(p.shipping, 0);
    SELECT coalesce(sum(q.amount), 0), coalesce(bool_or(q.amount IS NULL AND q.lines IS NULL), false) INTO on_order, complete
        FROM loyalty.returned d JOIN loyalty.purchase_return q USING (return_id) WHERE d.purchase_id = purchase_id;
    -- as precise as the purchase's own amounts: some prices have more digits than the currency
    digits := greatest(loyalty.purchase_digits(p), scale(trim_scale(p.amount)), (SELECT max(scale(trim_scale(coalesce(u.amount, u.quantity * u.unit_price)))) FROM unnest(p.lines) u));
    SELECT coalesce(sum(CASE WHEN s.total = 0 THEN 0 ELSE round(x.cost * goods * x.above / (s.total * x.below), digits) END), 0) AS amount,
           count(*) AS n, bool_and(x.above = x.below) AS all_back,
           sum(CASE WHEN p.amount = 0 THEN div(2 * lp.points * x.above + x.below, 2 * x.below)
               ELSE div(2 * lp.points * least(x.above * p.amount + on_order * x.below, x.below * p.amount) + x.below * p.amount, 2 * x.below * p.amount) END) AS points,
           min(x.line) FILTER (WHERE x.above > x.below OR (x.cost = 0 AND x.money > 0)) AS beyond,
           min(x.sku) FILTER (WHERE x.surplus > 0) AS surplus
        INTO l
        FROM (SELECT y.*, sum(y.cost) OVER () AS total FROM loyalty.returned_lines(p) y) x
             CROSS JOIN LATERAL (SELECT x.total) s
             LEFT JOIN ROWS FROM (unnest(line_points)) WITH ORDINALITY AS lp (points, line) ON lp.line = x.line;
    IF l.surplus IS NOT NULL THEN
        PERFORM loyalty.raise_return(purchase_id, 'LY114', format('More of article %s came back than was bought.', l.surplus));
    ELSIF l.beyond IS NOT NULL THEN
        PERFORM loyalty.raise_return(purchase_id, 'LY114', (SELECT format('More of line %s came back than was bought: %s of %s, and %s of %s in money.', y.line, y.back, y.bought, y.money, y.cost) FROM loyalty.returned_lines(p) y WHERE y.line = l.beyond));
    ELSIF l.amount + on_order > p.amount + l.n * 0.1 ^ digits THEN
        PERFORM loyalty.raise_return(purchase_id, 'LY114', format('%s was given back in all; the purchase was of %s.', l.amount + on_order, p.amount));
    END IF;
    amount := l.amount + on_order;
    complete := complete OR amount >= p.amount OR (l.n > 0 AND l.all_back);
    IF complete THEN
        amount := p.amount;
        points := gross_points;
        spend := gross_spend;
    ELSE
        spend := div(2 * gross_spend * amount + p.amount, 2 * p.amount);
        points := CASE WHEN l.n > 0 AND l.n = cardinality(line_points) THEN l.points ELSE div(2 * gross_points * amount + p.amount, 2 * p.amount) END;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.returned_share(bigint, bigint[], bigint, bigint) IS
    'What the returns registered for a purchase take back of it: of each line its points x share returned, rounded to nearest, half up, over all returns together; of spend (1/10000 of a unit) and money likewise. Raises LY114 where more came back than was bought';
REVOKE ALL ON FUNCTION loyalty.returned_share(bigint, bigint[], bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.post_return(purchase_id bigint, occurred_at timestamptz, reason text, key text, detail jsonb) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'loyalty_post_return';
COMMENT ON FUNCTION loyalty.post_return(bigint, timestamptz, text, text, jsonb) IS 'Posts what the returns of a purchase take back and have not taken yet; returns the points';
REVOKE ALL ON FUNCTION loyalty.post_return(bigint, timestamptz, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION loyalty.check_return(r loyalty.purchase_return, p loyalty.purchase) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    x loyalty.return_line;
    lines integer := cardinality(coalesce(p.lines, '{}'));
    -- looked up once: there may be thousands of lines on both sides
    strange text[] := ARRAY(SELECT u.sku FROM unnest(r.lines) u WHERE u.sku NOT IN (SELECT coalesce(l.sku, '') FROM unnest(p.lines) l));
BEGIN
    IF p.status = 'void' THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY112', 'It is void.', 'What a void purchase earned is taken back already.');
    END IF;
    IF r.member_id <> p.member_id OR (r.member_id IS NOT NULL AND p.member_id IS NULL) THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY113', 'It is not of member ' || r.member_id || '.', 'Leave member_id null, or name the member who bought it.');
    END IF;
    IF r.occurred_at < p.occurred_at THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY102', format('It was bought on %s, after the return on %s.', p.occurred_at, r.occurred_at), 'A return occurs after its purchase.');
    END IF;
    IF r.lines IS NOT NULL AND r.amount IS NOT NULL THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY115', 'Both lines and an amount are given.');
    END IF;
    IF r.amount IS NOT NULL AND NOT (r.amount > 0 AND r.amount < 1e12) THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY101', format('Its amount is %s.', r.amount), 'The amount of a return is above zero.');
    END IF;
    IF r.amount > p.amount THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY114', format('%s was given back; the purchase was of %s.', r.amount, p.amount));
    END IF;
    IF cardinality(r.lines) = 0 THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY115', 'The array of lines is empty.');
    END IF;
    FOREACH x IN ARRAY coalesce(r.lines, '{}') LOOP
        IF x IS NULL OR (x.line IS NULL) = (x.sku IS NULL) THEN
            PERFORM loyalty.raise_return(p.purchase_id, 'LY115', 'A line of a return names either a line or an article.');
        END IF;
        IF x.line NOT BETWEEN 1 AND lines OR x.sku = ANY (strange) THEN
            PERFORM loyalty.raise_return(p.purchase_id, 'LY116', format('It has no line %s.', coalesce(x.line::text, 'with article ' || x.sku)));
        END IF;
        IF x.quantity IS NOT NULL AND x.amount IS NOT NULL THEN
            PERFORM loyalty.raise_return(p.purchase_id, 'LY115', 'A line of a return has a quantity or an amount, not both.');
        END IF;
        IF NOT coalesce(x.quantity > 0 AND x.quantity < 1e12, true) OR NOT coalesce(x.amount > 0 AND x.amount < 1e12, true) THEN
            PERFORM loyalty.raise_return(p.purchase_id, 'LY101', 'Quantities and amounts of a return are above zero.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION loyalty.check_return(loyalty.purchase_return, loyalty.purchase) IS 'Refuses a return that does not fit its purchase';
REVOKE ALL ON FUNCTION loyalty.check_return(loyalty.purchase_return, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.restore_tender(return_id bigint, p loyalty.purchase, wanted numeric, complete boolean) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    redemption loyalty.redemption;
    before bigint := (SELECT coalesce(sum(d.points_restored), 0) FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id);
    points bigint;
BEGIN
    IF p.redemption_id IS NULL THEN
        RETURN 0;
    END IF;
    SELECT * INTO redemption FROM loyalty.redemption x WHERE x.redemption_id = p.redemption_id;
    -- what paid for a reward is given back with the reward: undo_claim
    IF NOT FOUND OR starts_with(redemption.key, 'loyalty:claim ') THEN
        RETURN 0;
    END IF;
    points := CASE WHEN complete THEN redemption.points ELSE div(redemption.points * wanted, p.amount) END - before;
    points := least(points, redemption.spent);
    IF points <= 0 THEN
        RETURN 0;
    END IF;
    PERFORM loyalty.undo_tender(redemption.member_id, redemption.key, points, 'loyalty:tender ' || return_id, 'Return of goods paid with points');
    RETURN points;
END
$$;
COMMENT ON FUNCTION loyalty.restore_tender(bigint, loyalty.purchase, numeric, boolean) IS 'Gives back the points that had paid for what came back (wanted: its worth so far), cumulatively; returns how many';
REVOKE ALL ON FUNCTION loyalty.restore_tender(bigint, loyalty.purchase, numeric, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.take_return(r loyalty.purchase_return, p loyalty.purchase) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before record;
    so_far record;
    digits integer := loyalty.purchase_digits(p);
    by_points numeric;
    restored bigint;
    taken bigint;
BEGIN
    PERFORM loyalty.check_return(r, p);
    SELECT count(*) AS n, coalesce(sum(d.amount), 0) AS amount, coalesce(sum(d.points_money), 0) AS points_money, coalesce(bool_or(d.complete), false) AS complete
        INTO before FROM loyalty.returned d WHERE d.purchase_id = p.purchase_id;
    IF before.complete THEN
        PERFORM loyalty.raise_return(p.purchase_id, 'LY114', 'All of it came back before.');
    END IF;
    INSERT INTO loyalty.returned (return_id, purchase_id, number) VALUES (r.return_id, p.purchase_id, before.n + 1);
    SELECT * INTO so_far FROM loyalty.returned_share(p.purchase_id, '{}', 0, 0) s;
    by_points := CASE WHEN p.amount = 0 THEN 0 WHEN so_far.complete THEN coalesce(p.paid_with_points, 0)
                 ELSE round(coalesce(p.paid_with_points, 0) * so_far.amount / p.amount, digits) END - before.points_money;
    restored := loyalty.restore_tender(r.return_id, p, so_far.amount, so_far.complete);
    taken := loyalty.post_return(p.purchase_id, r.occurred_at, r.reason, 'loyalty:return ' || r.return_id,
        jsonb_build_object('return', r.return_id, 'amount', trim_scale(so_far.amount - before.amount)));
    UPDATE loyalty.returned d SET amount = so_far.amount - before.amount, money = so_far.amount - before.amount - by_points,
            points_money = by_points, points_restored = restored, points_taken = taken, complete = so_far.complete
        WHERE d.return_id = r.return_id;
    -- where no account changes the purchase does, so that whoever has an older snapshot must try again
    IF NOT EXISTS (SELECT FROM loyalty.entry e WHERE e.source_id = p.purchase_id AND e.account_id = p.member_id) THEN
        UPDATE loyalty.purchase q SET status = q.status WHERE q.purchase_id = p.purchase_id;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.take_return(loyalty.purchase_return, loyalty.purchase) IS 'Registers one return of a locked purchase and posts what it takes back';
REVOKE ALL ON FUNCTION loyalty.take_return(loyalty.purchase_return, loyalty.purchase) FROM PUBLIC;

CREATE FUNCTION loyalty.returned_purchase(r loyalty.purchase_return) RETURNS bigint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce(r.purchase_id, (SELECT p.purchase_id FROM loyalty.purchase p WHERE p.source = r.purchase_source AND p.reference = r.purchase_reference));
END
$$;
COMMENT ON FUNCTION loyalty.returned_purchase(loyalty.purchase_return) IS 'The purchase that a return names, NULL where it names none by its reference';
REVOKE ALL ON FUNCTION loyalty.returned_purchase(loyalty.purchase_return) FROM PUBLIC;

CREATE FUNCTION loyalty.take_returns() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    returns bigint[];
    purchases bigint[];
    r record;
    given loyalty.purchase_return;
    p loyalty.purchase;
BEGIN
    IF TG_RELID <> 'loyalty.purchase_return'::regclass THEN
        RAISE EXCEPTION 'table "%" may not return purchases', TG_TABLE_NAME USING ERRCODE = 'LY902';
    END IF;
    PERFORM loyalty.check_source(n.source) FROM (SELECT DISTINCT q.source FROM new_rows q WHERE q.recorded_at = now()) n;
    -- purchases before accounts, each in ascending order: as an UPDATE of purchases does;
    -- a purchase that is only now being committed is not locked here and does not exist for these returns
    SELECT array_agg(x.return_id), array_agg(x.purchase_id) INTO returns, purchases
        FROM (SELECT n.return_id, loyalty.returned_purchase(n) AS purchase_id
              FROM new_rows w JOIN loyalty.purchase_return n USING (return_id) WHERE w.recorded_at = now()) x;
    PERFORM FROM loyalty.purchase q WHERE q.purchase_id = ANY (purchases) ORDER BY q.purchase_id FOR NO KEY UPDATE;
    -- all accounts concerned: who bought, to whom the purchase gave before it was moved, whose points paid, who was referred and referred, into whom they were merged
    PERFORM FROM loyalty.account a
        WHERE a.account_id = ANY (ARRAY(
            SELECT unnest(ARRAY[y.account_id, o.merged_into, o.household_id] || o.left_households)
            FROM loyalty.purchase q
                 CROSS JOIN LATERAL (SELECT q.member_id UNION ALL
                     SELECT e.account_id FROM loyalty.entry e WHERE e.source_id = q.purchase_id UNION ALL
                     SELECT e.account_id FROM loyalty.entry e WHERE e.source_id = q.redemption_id UNION ALL SELECT unnest(ARRAY[x.friend_id, x.referrer_id]) FROM loyalty.referral x WHERE x.purchase_id = q.purchase_id) y (account_id)
                 LEFT JOIN loyalty.account o ON o.account_id = y.account_id
            WHERE q.purchase_id = ANY (purchases)))
        ORDER BY a.merged_into IS NULL, a.account_id FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM loyalty.velocity_limit l WHERE l.event = 'redemption') THEN
        PERFORM loyalty.lock_limits_of(ARRAY(SELECT x FROM loyalty.purchase q CROSS JOIN unnest(ARRAY[q.purchase_id, q.redemption_id]) x WHERE q.purchase_id = ANY (purchases) AND x IS NOT NULL));
    END IF;
    FOR r IN SELECT n.return_id, q.purchase_id
             FROM new_rows n
                  JOIN unnest(returns, purchases) x (return_id, purchase_id) ON x.return_id = n.return_id
                  LEFT JOIN loyalty.purchase q ON q.purchase_id = x.purchase_id
             WHERE n.recorded_at = now() ORDER BY q.member_id, n.occurred_at, n.return_id LOOP
        SELECT * INTO given FROM loyalty.purchase_return n WHERE n.return_id = r.return_id;
        IF r.purchase_id IS NULL THEN
            RAISE EXCEPTION 'return % names no purchase that exists', r.return_id
                USING ERRCODE = 'LY111', DETAIL = format('purchase_id is %s, reference %s of source %s.', coalesce(given.purchase_id::text, 'null'), coalesce(given.purchase_reference, 'null'), given.purchase_source),
                      HINT = 'Give purchase_id, or purchase_source and purchase_reference.';
        END IF;
        SELECT * INTO p FROM loyalty.purchase q WHERE q.purchase_id = r.purchase_id;
        PERFORM loyalty.take_return(given, p);
    END LOOP;
    PERFORM loyalty.stamp_purchases(purchases, false);
    IF EXISTS (SELECT FROM loyalty.velocity_limit) THEN
        PERFORM loyalty.give_back_limits(purchases);
    END IF;
    IF EXISTS (SELECT FROM loyalty.challenge) THEN
        PERFORM loyalty.track_all(ARRAY(SELECT DISTINCT q FROM unnest(purchases) q WHERE q IS NOT NULL ORDER BY q));
    END IF;
    IF EXISTS (SELECT FROM loyalty.referral x WHERE x.purchase_id = ANY (purchases)) THEN
        PERFORM loyalty.settle_referrals(purchases);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION loyalty.take_returns() IS 'Takes back what returned purchases had earned';
REVOKE ALL ON FUNCTION loyalty.take_returns() FROM PUBLIC;

CREATE TRIGGER take_returns AFTER INSERT ON loyalty.purchase_return
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION loyalty.take_returns();

CREATE FUNCTION loyalty.pays(redemption_id bigint, member_id bigint) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH person AS (
        SELECT a.account_id, a.household_id, a.left_households, loyalty.same_member(coalesce(a.merged_into, a.account_id)) AS same
        FROM loyalty.account a WHERE a.account_id = pays.member_id)
    SELECT EXISTS (SELECT FROM person p JOIN loyalty.entry e ON e.source_id = pays.redemption_id AND e.kind IN ('redeem', 'capture')
                   WHERE CASE WHEN e.account_id < 5000000000000000 THEN e.account_id ELSE (e.account_id - 5000000000000000) % 100000000000 END
                       = ANY (p.same || p.household_id || p.left_households))
        OR EXISTS (SELECT FROM person p JOIN loyalty.account h ON h.account_id IN (p.account_id, p.household_id) CROSS JOIN LATERAL unnest(h.holds) o
                   WHERE o.hold_id = pays.redemption_id)
        OR EXISTS (SELECT FROM loyalty.program g JOIN loyalty.member m ON m.program_id = g.wallet_of AND m.member_id = pays.member_id
                       JOIN loyalty.account w ON w.account_id = loyalty.wallet_account(g.program_id, m.member_id) CROSS JOIN LATERAL unnest(w.holds) o
                   WHERE o.hold_id = pays.redemption_id)
$$;
COMMENT ON FUNCTION loyalty.pays(bigint, bigint) IS 'Whether a redemption or an open hold is of a member, of its household or wallets, or of a member that was merged into it';
REVOKE ALL ON FUNCTION loyalty.pays(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.check_paid() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    other bigint := (SELECT p.purchase_id FROM loyalty.purchase p WHERE p.redemption_id = NEW.redemption_id AND p.purchase_id <> NEW.purchase_id AND p.status <> 'void' LIMIT 1);
BEGIN
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'redemption % has paid for purchase % already', NEW.redemption_id, other
            USING ERRCODE = 'LY118', HINT = 'Each purchase names a redemption of its own; what comes back of it goes back there.';
    ELSIF NEW.member_id IS NULL OR NOT loyalty.pays(NEW.redemption_id, NEW.member_id) THEN
        RAISE EXCEPTION 'redemption % does not pay for purchase %', NEW.redemption_id, NEW.purchase_id
            USING ERRCODE = 'LY118', DETAIL = format('It is no redemption or open hold of %s.', coalesce('member ' || NEW.member_id, 'a guest')),
                  HINT = 'redemption_id is what loyalty.redeem, hold or capture returned for the member who buys.';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION loyalty.check_paid() IS 'Refuses a purchase that names another''s redemption, or one that paid for another purchase';
REVOKE ALL ON FUNCTION loyalty.check_paid() FROM PUBLIC;

-- deferred, so that but for a race check_paid is first to speak
ALTER TABLE loyalty.purchase ADD CONSTRAINT purchase_redemption_key EXCLUDE (redemption_id WITH =) WHERE (redemption_id IS NOT NULL AND status <> 'void') DEFERRABLE INITIALLY DEFERRED;
-- rows that are restored or replicated were checked where they came from
CREATE TRIGGER check_paid AFTER INSERT ON loyalty.purchase
    FOR EACH ROW WHEN (NEW.redemption_id IS NOT NULL AND NEW.status <> 'void' AND NEW.recorded_at = now()) EXECUTE FUNCTION loyalty.check_paid();
CREATE TRIGGER check_paid_change AFTER UPDATE OF redemption_id, member_id, status ON loyalty.purchase
    FOR EACH ROW WHEN (NEW.redemption_id IS NOT NULL AND NEW.status <> 'void' AND (NEW.redemption_id, NEW.member_id, NEW.status) IS DISTINCT FROM (OLD.redemption_id, OLD.member_id, OLD.status))
    EXECUTE FUNCTION loyalty.check_paid();

CREATE FUNCTION loyalty.keep_returned() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    back record;
BEGIN
    SELECT sum(d.amount) AS amount, bool_or(d.complete) AS complete INTO back FROM loyalty.returned d WHERE d.purchase_id = NEW.purchase_id;
    IF back.amount > NEW.amount OR back.complete THEN
        PERFORM loyalty.raise_return(NEW.purchase_id, 'LY114', format('%s of it came back%s; its amount cannot become %s.', back.amount, CASE WHEN back.complete THEN ', which was all' END, NEW.amount),
            'A purchase is not made less than what came back of it, and not changed once all of it came back.');
    END IF;
    IF back.amount IS NOT NULL AND back.amount <> (SELECT s.amount FROM loyalty.returned_share(NEW.purchase_id, '{}', 0, 0) s) THEN
        PERFORM loyalty.raise_return(NEW.purchase_id, 'LY114', format('%s was given back for lines of it, which would be worth something else.', back.amount),
            'A line of which something came back keeps its price, and the order its share of discounts.');
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION loyalty.keep_returned() IS 'Refuses to make a purchase less than what came back of it, to change one that came back whole, or the price of lines of which something did';
REVOKE ALL ON FUNCTION loyalty.keep_returned() FROM PUBLIC;

CREATE TRIGGER keep_returned AFTER UPDATE OF amount, lines ON loyalty.purchase
    FOR EACH ROW WHEN ((NEW.amount, NEW.lines) IS DISTINCT FROM (OLD.amount, OLD.lines)) EXECUTE FUNCTION loyalty.keep_returned();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.purchase_return
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('transaction');
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.returned
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
