/*
 * household: several members on one account.  A household is a member of its
 * own; whoever joins it earns into its account and spends from it.
 */
CREATE FUNCTION loyalty.account_of(member_id bigint) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT coalesce((SELECT a.household_id FROM loyalty.account a WHERE a.account_id = member_id), member_id) $$;
COMMENT ON FUNCTION loyalty.account_of(bigint) IS 'The account that a member earns into and spends from: its own or its household''s';
REVOKE ALL ON FUNCTION loyalty.account_of(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.same_member(member_id bigint) RETURNS bigint[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT ARRAY(SELECT same_member.member_id UNION ALL SELECT a.account_id FROM loyalty.account a WHERE a.merged_into = same_member.member_id) $$;
COMMENT ON FUNCTION loyalty.same_member(bigint) IS 'A member and those who were merged into it';
REVOKE ALL ON FUNCTION loyalty.same_member(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.create_household(program_id integer, external_id text, joined_at timestamptz DEFAULT now()) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    id bigint;
BEGIN
    PERFORM loyalty.require_program(program_id);
    INSERT INTO loyalty.member (member_id, program_id, external_id, joined_at)
        VALUES (nextval('loyalty.household_id_seq'), program_id, external_id, joined_at)
        ON CONFLICT ON CONSTRAINT member_program_id_external_id_key DO NOTHING RETURNING member_id INTO id;
    IF id IS NULL THEN
        SELECT m.member_id INTO id FROM loyalty.member m
            WHERE m.program_id = program_id AND m.external_id = external_id AND m.member_id >= 4000000000000001;
    END IF;
    IF id IS NULL THEN
        RAISE EXCEPTION 'a member has that external id' USING ERRCODE = 'LY307', HINT = 'Give the household one of its own.';
    END IF;
    RETURN id;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'household is not valid'
        USING ERRCODE = 'LY304', HINT = 'external_id is not empty, joined_at is finite.';
END
$$;
COMMENT ON FUNCTION loyalty.create_household(integer, text, timestamptz) IS 'Makes a household, or finds the one with that external id; returns its number, which every function takes where it takes a member';
REVOKE ALL ON FUNCTION loyalty.create_household(integer, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.join_household(member_id bigint, household_id bigint, reason text DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_join_household';
COMMENT ON FUNCTION loyalty.join_household(bigint, bigint, text) IS 'Lets a member share the account of a household: its points with their days, its history and its tier, if that is the better one, move there. Returns the points moved; doing it again does nothing';
REVOKE ALL ON FUNCTION loyalty.join_household(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.leave_household(member_id bigint, points bigint DEFAULT 0, reason text DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_leave_household';
COMMENT ON FUNCTION loyalty.leave_household(bigint, bigint, text) IS 'Gives a member an account of its own again, with so many of the household''s points, those that die soonest; the rest and the history stay, and what was bought meanwhile is corrected there';
REVOKE ALL ON FUNCTION loyalty.leave_household(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION loyalty.block_in_household(member_id bigint, blocked boolean DEFAULT true) RETURNS void
    LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'loyalty_block_in_household';
COMMENT ON FUNCTION loyalty.block_in_household(bigint, boolean) IS 'A blocked member earns for its household and does not spend its points';
REVOKE ALL ON FUNCTION loyalty.block_in_household(bigint, boolean) FROM PUBLIC;

CREATE VIEW loyalty.household AS
    SELECT h.household_id, m.program_id, h.member_id, h.joined_at, h.reason, h.left_at, h.leave_reason,
           h.left_at IS NULL AND a.household_blocked AS blocked
    FROM loyalty.household_member h
         JOIN loyalty.member m ON m.member_id = h.household_id
         JOIN loyalty.account a ON a.account_id = h.member_id;
COMMENT ON VIEW loyalty.household IS 'Who shares or shared the account of which household';

CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON loyalty.household_member
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
