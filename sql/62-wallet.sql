/*
 * wallet: more kinds of points in one programme, each with its own rules,
 * expiry, tiers and value.  A wallet is a programme inside a programme: what
 * its members buy feeds both.  A member's account in it opens by itself; its
 * number goes where a function takes a member.
 */
CREATE FUNCTION loyalty.add_wallet(program_id integer, name text, points_name text DEFAULT NULL, points_scale integer DEFAULT 0,
        point_value numeric DEFAULT NULL, policies jsonb DEFAULT '{}') RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    p loyalty.program;
    id integer;
    detail text;
    broken text;
BEGIN
    PERFORM loyalty.require_program(program_id);
    SELECT * INTO p FROM loyalty.program q WHERE q.program_id = program_id;
    IF p.wallet_of IS NOT NULL THEN
        RAISE EXCEPTION 'programme % is a wallet itself', program_id USING ERRCODE = 'LY001', HINT = 'Add the wallet to programme ' || p.wallet_of || '.';
    END IF;
    INSERT INTO loyalty.program (name, time_zone, currency, points_name, points_scale, point_value, wallet_of, wallet)
        VALUES (p.name || ': ' || name, p.time_zone, p.currency, coalesce(points_name, name), points_scale, point_value, program_id, name)
        RETURNING loyalty.program.program_id INTO id;
    IF policies <> '{}' THEN
        PERFORM loyalty.change_program(id, policies);
    END IF;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation OR numeric_value_out_of_range THEN
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, broken = CONSTRAINT_NAME;
    detail := coalesce(loyalty.explain_check('loyalty.program', broken, jsonb_build_object(
            'name', name, 'points_name', points_name, 'points_scale', points_scale, 'point_value', point_value, 'wallet', name)), detail);
    RAISE EXCEPTION 'wallet "%" is not valid', name
        USING ERRCODE = 'LY001', DETAIL = detail, HINT = 'Names are unique in the programme; the comments on loyalty.program say what each policy may be.';
END
$$;
COMMENT ON FUNCTION loyalty.add_wallet(integer, text, text, integer, numeric, jsonb) IS 'Adds a kind of points to a programme; returns its id, to which rules and tiers are added as to a programme''s. policies as for change_program. What was bought before stays without it';
REVOKE ALL ON FUNCTION loyalty.add_wallet(integer, text, text, integer, numeric, jsonb) FROM PUBLIC;

CREATE FUNCTION loyalty.wallet(member_id bigint, name text) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
    id integer;
BEGIN
    SELECT p.program_id INTO id FROM loyalty.program p WHERE p.wallet_of = m.program_id AND p.wallet = name;
    IF id IS NULL OR m.member_id >= 100000000000 THEN
        RAISE EXCEPTION 'member % has no wallet "%"', member_id, name USING ERRCODE = 'LY301', HINT = 'loyalty.add_wallet adds one to a programme; a household has none.';
    END IF;
    RETURN loyalty.wallet_account(id, m.member_id);
END
$$;
COMMENT ON FUNCTION loyalty.wallet(bigint, text) IS 'The number of a member''s account in a wallet, for functions that take a member: balance(wallet(7, ''Stamps''))';
REVOKE ALL ON FUNCTION loyalty.wallet(bigint, text) FROM PUBLIC;

CREATE VIEW loyalty.wallet_balance AS
    SELECT m.member_id, w.wallet_of AS program_id, w.wallet, w.program_id AS wallet_id, a.account_id, t.name AS tier,
           greatest(loyalty.available(l.free, d.today), 0) AS available, loyalty.pending(l.free, d.today) AS pending,
           loyalty.total(l.held) AS held, loyalty.debt(a.lots) AS debt, loyalty.points(a.tally) AS lifetime_points, a.last_event_at
    FROM loyalty.program w
         JOIN loyalty.account a ON a.program_id = w.program_id
         JOIN loyalty.member m ON m.member_id = (a.account_id - 5000000000000000) % 100000000000
         LEFT JOIN loyalty.tier t ON t.tier_id = a.tier_id
         CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE w.time_zone)::date AS today) d
         CROSS JOIN LATERAL loyalty.lots_at(w.program_id, a.lots, a.holds, a.last_event_at, now()) l
    WHERE w.wallet_of IS NOT NULL;
COMMENT ON VIEW loyalty.wallet_balance IS 'Balance and tier of every wallet that was used, today in the programme''s zone';

CREATE FUNCTION loyalty.wallets_of(member_id bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.require_member(member_id);
BEGIN
    RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object('name', w.wallet, 'account_id', x.id, 'points_name', w.points_name, 'points_scale', w.points_scale,
                       'tier', loyalty.tier_progress(x.id) ->> 'name') || to_jsonb(b) ORDER BY w.wallet), '[]')
        FROM loyalty.program w CROSS JOIN LATERAL (SELECT loyalty.wallet_account(w.program_id, m.member_id) AS id) x CROSS JOIN LATERAL loyalty.balance(x.id) b
        WHERE w.wallet_of = m.program_id AND m.member_id < 100000000000);
END
$$;
COMMENT ON FUNCTION loyalty.wallets_of(bigint) IS 'A member''s wallets with their balances, for cabinet';
REVOKE ALL ON FUNCTION loyalty.wallets_of(bigint) FROM PUBLIC;
