/*
 * suggest: what to offer to the person who stands here, with the reason in words.
 *
 * What goes with the basket, by the total of fold_copurchase, less what is in it
 * and what is out of stock.  For a member who may be analysed also less what was
 * just bought and what it does not like, and what it has a taste for comes first.
 * Everybody else gets what everybody gets, and is not named in the log.
 */
CREATE TABLE loyalty.out_of_stock (
    program_id  integer NOT NULL,
    sku         text NOT NULL CHECK (sku <> '' AND octet_length(sku) <= 500),
    store       text NOT NULL DEFAULT '' CHECK (octet_length(store) <= 500),
    PRIMARY KEY (program_id, sku, store)
);
COMMENT ON TABLE loyalty.out_of_stock IS 'Articles that are not to be had and so are not suggested; kept by the shop';
COMMENT ON COLUMN loyalty.out_of_stock.store IS 'Where; empty: nowhere is it to be had';

CREATE SEQUENCE loyalty.suggestion_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.suggestion_id_seq IS 'Numbers suggestions';

CREATE TABLE loyalty.suggestion (
    suggestion_id   bigint PRIMARY KEY DEFAULT nextval('loyalty.suggestion_id_seq'),
    program_id      integer NOT NULL,
    member_id       bigint,
    suggested_at    timestamptz NOT NULL DEFAULT now(),
    store           text,
    channel         text,
    basket          text[] NOT NULL,
    skus            text[] NOT NULL,
    because         text[] NOT NULL,
    actor           name NOT NULL DEFAULT session_user
);
ALTER SEQUENCE loyalty.suggestion_id_seq OWNED BY loyalty.suggestion.suggestion_id;
CREATE INDEX suggestion_member_id_idx ON loyalty.suggestion (member_id) WHERE member_id IS NOT NULL;
CREATE INDEX suggestion_suggested_at_idx ON loyalty.suggestion (suggested_at);
COMMENT ON TABLE loyalty.suggestion IS 'What was suggested, to whom and for which basket';
COMMENT ON COLUMN loyalty.suggestion.member_id IS 'NULL: a guest, or a member who may not be analysed';
COMMENT ON COLUMN loyalty.suggestion.skus IS 'The articles, best first';
COMMENT ON COLUMN loyalty.suggestion.because IS 'The article of the basket that each goes with';

CREATE TABLE loyalty.suggestion_accepted (
    suggestion_id   bigint NOT NULL,
    sku             text NOT NULL,
    quantity        numeric,
    amount          numeric NOT NULL CHECK (amount >= 0 AND amount < 1e12),
    accepted_at     timestamptz NOT NULL DEFAULT now(),
    purchase_id     bigint,
    PRIMARY KEY (suggestion_id, sku)
);
CREATE INDEX suggestion_accepted_purchase_id_idx ON loyalty.suggestion_accepted (purchase_id) WHERE purchase_id IS NOT NULL;
COMMENT ON TABLE loyalty.suggestion_accepted IS 'What was bought of what was suggested';
COMMENT ON COLUMN loyalty.suggestion_accepted.amount IS 'Extra revenue: what its lines cost, in the programme''s currency';
COMMENT ON COLUMN loyalty.suggestion_accepted.purchase_id IS 'The purchase that settle_suggestions found; NULL: the till said so';

/* --- the person ---------------------------------------------------------- */

CREATE FUNCTION loyalty.just_bought(member_id bigint, days integer) RETURNS text[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_variable
BEGIN
    -- the last entries of the account say it at once, without a job; purchases that earned nothing stand in the facts
    RETURN (
        SELECT array_agg(DISTINCT l.sku)
        FROM (SELECT e.source_id AS purchase_id
              FROM loyalty.account a CROSS JOIN LATERAL
                  (SELECT n.source_id FROM loyalty.entry n WHERE n.account_id = coalesce(a.household_id, a.account_id) AND n.source_id IS NOT NULL ORDER BY n.seq DESC LIMIT 50) e
              WHERE a.account_id = member_id
              UNION
              (SELECT f.purchase_id FROM loyalty.analysis_purchase f WHERE f.member_id = member_id AND f.day > current_date - days - 2 ORDER BY f.day DESC LIMIT 50)) x
            JOIN loyalty.purchase p USING (purchase_id) CROSS JOIN LATERAL unnest(p.lines) l
        WHERE p.member_id = ANY (loyalty.same_member(member_id)) AND p.status = 'completed' AND l.sku IS NOT NULL
            AND p.occurred_at > now() - make_interval(days => days));
END
$$;
COMMENT ON FUNCTION loyalty.just_bought(bigint, integer) IS 'Articles that a member bought in so many days, of its last fifty purchases';
REVOKE ALL ON FUNCTION loyalty.just_bought(bigint, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.disliked(attributes jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof(attributes -> 'dislikes') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(attributes -> 'dislikes')) ELSE '{}' END
$$;
COMMENT ON FUNCTION loyalty.disliked(jsonb) IS 'What a member does not like, by its attribute dislikes: articles, categories and brands';
REVOKE ALL ON FUNCTION loyalty.disliked(jsonb) FROM PUBLIC;

CREATE FUNCTION loyalty.rank_candidates(program_id integer, member_id bigint, basket text[], k integer, wanted integer, store text, skip text[], dislikes text[])
    RETURNS TABLE (sku text, because text, n_ab bigint, score float8, taste text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off     -- a few rows of large tables, by key
AS $$
#variable_conflict use_variable
BEGIN
    RETURN QUERY
        SELECT c.item, c.because, c.n_ab, c.score * (1 + coalesce(t.category, 0) + coalesce(t.brand, 0)),
               CASE WHEN t.category >= 0.2 THEN p.category WHEN t.brand >= 0.2 THEN p.brand END
        FROM (SELECT g.program_id, b.* FROM loyalty.copurchase_total g JOIN loyalty.copurchase_policy y USING (program_id)
                  CROSS JOIN LATERAL loyalty.also_bought(g.baskets, basket, wanted, y.measure, y.min_count) b
              WHERE g.program_id = program_id AND b.score > 0 AND b.item <> ALL (skip)) c
            LEFT JOIN loyalty.product p ON p.program_id = program_id AND p.sku = c.item
            -- what the member buys of the category and of the brand, as a share of its purchases
            LEFT JOIN LATERAL (SELECT max(x.purchases) FILTER (WHERE x.kind = 'category')::float8 / max(s.purchases) AS category, max(x.purchases) FILTER (WHERE x.kind = 'brand')::float8 / max(s.purchases) AS brand
                               FROM loyalty.analysis_member s JOIN loyalty.analysis_member_part x USING (member_id)
                               WHERE s.member_id = member_id AND (x.kind, x.name) IN (('category', p.category), ('brand', p.brand))) t ON member_id IS NOT NULL
        WHERE NOT coalesce(c.item = ANY (dislikes) OR p.category = ANY (dislikes) OR p.brand = ANY (dislikes), false)
            AND NOT EXISTS (SELECT FROM loyalty.out_of_stock o WHERE o.program_id = program_id AND o.sku = c.item AND o.store IN ('', coalesce(store, '')))
        ORDER BY 4 DESC, c.n_ab DESC, c.item
        LIMIT k;
END
$$;
COMMENT ON FUNCTION loyalty.rank_candidates(integer, bigint, text[], integer, integer, text, text[], text[]) IS 'Of the wanted articles that go best with a basket, the k that fit';
REVOKE ALL ON FUNCTION loyalty.rank_candidates(integer, bigint, text[], integer, integer, text, text[], text[]) FROM PUBLIC;

CREATE FUNCTION loyalty.suggest(member_id bigint, basket text[], k integer DEFAULT 3, program_id integer DEFAULT NULL, store text DEFAULT NULL, channel text DEFAULT NULL, log boolean DEFAULT true)
    RETURNS TABLE (suggestion_id bigint, rank integer, sku text, name text, because text, baskets bigint, score float8, reason text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 3
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member;
    person bigint;
    items text[] := ARRAY(SELECT DISTINCT u FROM unnest(basket) u WHERE u <> '');
    skip text[] := '{}';
    dislikes text[] := '{}';
    found loyalty.suggestion;
    scores float8[];
    counts bigint[];
    tastes text[];
    wanted integer;
BEGIN
    IF k IS NULL OR k NOT BETWEEN 1 AND 100 OR cardinality(items) > 1000 OR octet_length(store) > 500 OR octet_length(channel) > 500 THEN
        RAISE EXCEPTION 'a suggestion cannot be made like this' USING ERRCODE = 'LY814',
            DETAIL = format('k is %s, the basket has %s articles.', coalesce(k::text, 'NULL'), cardinality(items)), HINT = 'k from 1 to 100, at most 1000 articles, store and channel of at most 500 bytes.';
    END IF;
    IF member_id IS NULL THEN
        PERFORM loyalty.require_program(program_id);
        IF (SELECT g.wallet_of FROM loyalty.program g WHERE g.program_id = program_id) IS NOT NULL THEN
            RAISE EXCEPTION 'a suggestion cannot be made like this' USING ERRCODE = 'LY814', DETAIL = 'The programme is a wallet.', HINT = 'Suggest by the programme whose wallet it is.';
        END IF;
    ELSE
        m := loyalty.require_member(member_id);
        IF program_id <> m.program_id THEN
            RAISE EXCEPTION 'member % is of another programme', member_id USING ERRCODE = 'LY814', DETAIL = format('It is of programme %s, not %s.', m.program_id, program_id);
        END IF;
        program_id := m.program_id;
        SELECT coalesce(a.merged_into, m.member_id) INTO person FROM loyalty.account a WHERE a.account_id = m.member_id;
        IF loyalty.may_analyse(person) THEN
            skip := coalesce(loyalty.just_bought(person, (SELECT y.skip_days FROM loyalty.copurchase_policy y WHERE y.program_id = program_id)), '{}');
            dislikes := loyalty.disliked(m.attributes);
        ELSE
            person := NULL;
        END IF;
    END IF;
    -- most of the best ones fit; where they do not, look further
    FOREACH wanted IN ARRAY ARRAY[k * 4 + 20, 1000] LOOP
        SELECT array_agg(c.sku), array_agg(c.because), array_agg(c.n_ab), array_agg(c.score), array_agg(c.taste)
            INTO found.skus, found.because, counts, scores, tastes
            FROM loyalty.rank_candidates(program_id, person, items, k, wanted, store, skip, dislikes) c;
        EXIT WHEN cardinality(found.skus) = k OR cardinality(items) = 0;
    END LOOP;
    IF found.skus IS NULL THEN
        RETURN;
    END IF;
    IF log THEN
        INSERT INTO loyalty.suggestion AS s (program_id, member_id, store, channel, basket, skus, because)
            VALUES (program_id, person, store, channel, items, found.skus, found.because) RETURNING s.suggestion_id INTO found.suggestion_id;
    END IF;
    RETURN QUERY
        SELECT found.suggestion_id, x.rank::integer, x.sku, p.name, x.because, x.n, x.score,
               format('bought together with %s %s%s', coalesce(w.name, x.because), CASE x.n WHEN 1 THEN 'once' WHEN 2 THEN 'twice' ELSE x.n || ' times' END, CASE WHEN x.taste IS NOT NULL THEN ', and you often buy ' || x.taste ELSE '' END)
        FROM ROWS FROM (unnest(found.skus), unnest(found.because), unnest(counts), unnest(scores), unnest(tastes)) WITH ORDINALITY AS x (sku, because, n, score, taste, rank)
            LEFT JOIN loyalty.product p ON p.program_id = program_id AND p.sku = x.sku
            LEFT JOIN loyalty.product w ON w.program_id = program_id AND w.sku = x.because
        ORDER BY x.rank;
END
$$;
COMMENT ON FUNCTION loyalty.suggest(bigint, text[], integer, integer, text, text, boolean) IS
    'What to offer with a basket, to a member or (member_id NULL, with program_id) to a guest: articles that go with it, best first, with the reason in words. Logged unless log is false, so that what came of it can be read in bi_suggestion';
REVOKE ALL ON FUNCTION loyalty.suggest(bigint, text[], integer, integer, text, text, boolean) FROM PUBLIC;

/* --- what came of it ----------------------------------------------------- */

CREATE FUNCTION loyalty.accept_suggestion(suggestion_id bigint, sku text, amount numeric, quantity numeric DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF NOT EXISTS (SELECT FROM loyalty.suggestion s WHERE s.suggestion_id = suggestion_id AND sku = ANY (s.skus)) THEN
        RAISE EXCEPTION 'suggestion % has no such article', coalesce(suggestion_id::text, 'NULL') USING ERRCODE = 'LY815', DETAIL = format('Article %s was not suggested.', coalesce(quote_literal(sku), 'NULL')),
            HINT = 'loyalty.suggest returns the number of a suggestion and its articles.';
    END IF;
    IF amount IS NULL OR amount = 'NaN' OR amount < 0 OR amount >= 1e12 OR quantity <= 0 OR quantity >= 1e12 THEN
        RAISE EXCEPTION 'amount % is not an amount of money', coalesce(amount::text, 'NULL') USING ERRCODE = 'LY101', DETAIL = 'Expected an amount from 0 to 10^12 and, where it is given, a quantity above 0.';
    END IF;
    INSERT INTO loyalty.suggestion_accepted (suggestion_id, sku, quantity, amount) VALUES (suggestion_id, sku, quantity, amount) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION loyalty.accept_suggestion(bigint, text, numeric, numeric) IS 'The till says that a suggested article was bought, and what it cost: for guests, who have no purchases of their own by which it is found; false where that was known';
REVOKE ALL ON FUNCTION loyalty.accept_suggestion(bigint, text, numeric, numeric) FROM PUBLIC;

CREATE FUNCTION loyalty.take_back_accepted(ids bigint[]) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM loyalty.suggestion_accepted a
        WHERE a.purchase_id = ANY (ids) AND NOT EXISTS (
            SELECT FROM loyalty.purchase p CROSS JOIN LATERAL unnest(loyalty.kept_lines(p)) l WHERE p.purchase_id = a.purchase_id AND p.status = 'completed' AND l.sku = a.sku)
$$;
COMMENT ON FUNCTION loyalty.take_back_accepted(bigint[]) IS 'What is void or came back entirely of purchases that changed is no yield of a suggestion any more; refresh_analysis calls it';
REVOKE ALL ON FUNCTION loyalty.take_back_accepted(bigint[]) FROM PUBLIC;

CREATE FUNCTION loyalty.settle_suggestions() RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n bigint;
BEGIN
    WITH bought AS (
        -- a purchase is the yield of one suggestion: the last one before it
        SELECT DISTINCT ON (p.purchase_id, l.sku) s.suggestion_id, l.sku, l.quantity,
               round(coalesce(l.amount, l.quantity * l.unit_price - coalesce(l.discount, 0), 0) * CASE WHEN p.amount = 0 THEN 1 ELSE f.amount / p.amount END, 4) AS amount, p.occurred_at, p.purchase_id
        FROM loyalty.suggestion s
            JOIN loyalty.copurchase_policy y USING (program_id)
            LEFT JOIN loyalty.account c ON c.account_id = s.member_id
            JOIN loyalty.analysis_purchase f ON f.member_id = coalesce(c.merged_into, s.member_id) AND f.day BETWEEN s.suggested_at::date - 1 AND s.suggested_at::date + y.accept_days + 1
            JOIN loyalty.purchase p USING (purchase_id)
            CROSS JOIN LATERAL (SELECT x.sku, sum(x.quantity) AS quantity, NULL::numeric AS unit_price, sum(coalesce(x.amount, x.quantity * x.unit_price - coalesce(x.discount, 0))) AS amount, NULL::numeric AS discount
                                FROM unnest(loyalty.kept_lines(p)) x GROUP BY x.sku) l
        WHERE s.suggested_at > now() - make_interval(days => y.accept_days + 40)
            AND p.occurred_at >= s.suggested_at AND p.occurred_at <= s.suggested_at + make_interval(days => y.accept_days)
            AND l.sku = ANY (s.skus) AND EXISTS (SELECT FROM loyalty.analysis_subject w WHERE w.member_id = f.member_id)
        ORDER BY p.purchase_id, l.sku, s.suggested_at DESC, s.suggestion_id DESC)
    INSERT INTO loyalty.suggestion_accepted AS a (suggestion_id, sku, quantity, amount, accepted_at, purchase_id)
        SELECT DISTINCT ON (b.suggestion_id, b.sku) b.suggestion_id, b.sku, b.quantity, greatest(b.amount, 0), b.occurred_at, b.purchase_id
        FROM bought b ORDER BY b.suggestion_id, b.sku, b.occurred_at, b.purchase_id
        ON CONFLICT ON CONSTRAINT suggestion_accepted_pkey DO NOTHING;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$$;
COMMENT ON FUNCTION loyalty.settle_suggestions() IS 'Finds the purchases of members in which they bought what had been suggested to them, within accept_days, but for those who may not be analysed; fold_copurchase calls it. Returns how many articles were found';
REVOKE ALL ON FUNCTION loyalty.settle_suggestions() FROM PUBLIC;

/* --- for BI -------------------------------------------------------------- */

CREATE VIEW loyalty.bi_copurchase AS
    SELECT c.program_id, c.rank, c.a, p.name AS a_name, c.b, q.name AS b_name, c.n AS baskets, c.n_a AS a_baskets, c.n_b AS b_baskets, c.n_ab AS both_baskets,
           c.support, c.confidence_ab, c.confidence_ba, c.lift, c.jaccard, c.cosine, c.log_likelihood, t.from_day, t.folded_at
    FROM loyalty.copurchase_pair c JOIN loyalty.copurchase_total t USING (program_id)
        LEFT JOIN loyalty.product p ON p.program_id = c.program_id AND p.sku = c.a
        LEFT JOIN loyalty.product q ON q.program_id = c.program_id AND q.sku = c.b;
COMMENT ON VIEW loyalty.bi_copurchase IS 'The thousand pairs of articles that are bought together most clearly more often than by chance';

CREATE VIEW loyalty.bi_suggestion AS
    SELECT s.program_id, (s.suggested_at AT TIME ZONE g.time_zone)::date AS day, s.store, s.channel, s.member_id IS NOT NULL AS personal,
           count(*) AS suggestions, sum(cardinality(s.skus)) AS articles, count(*) FILTER (WHERE a.accepted > 0) AS accepted_suggestions, coalesce(sum(a.accepted), 0)::bigint AS accepted_articles,
           coalesce(sum(a.amount), 0) AS extra_revenue, round(count(*) FILTER (WHERE a.accepted > 0) / count(*)::numeric, 6) AS acceptance
    FROM loyalty.suggestion s JOIN loyalty.program g USING (program_id)
        LEFT JOIN LATERAL (SELECT count(*) AS accepted, sum(a.amount) AS amount FROM loyalty.suggestion_accepted a WHERE a.suggestion_id = s.suggestion_id) a ON true
    GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW loyalty.bi_suggestion IS 'What was suggested each day, what was bought of it and the extra revenue';
