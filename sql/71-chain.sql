/*
 * chain: the proof that nobody touched the books.
 */
CREATE FUNCTION loyalty.verify_accounts(first bigint, last bigint, keyed_from timestamptz, incremental boolean)
    RETURNS TABLE (account_id bigint, seq bigint, problem text, detail text)
    LANGUAGE C STABLE PARALLEL SAFE ROWS 10 COST 100000 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off SET jit = off
    AS 'MODULE_PATHNAME', 'loyalty_verify_accounts';
COMMENT ON FUNCTION loyalty.verify_accounts(bigint, bigint, timestamptz, boolean) IS 'A part of verify(): accounts numbered from first to last';
REVOKE ALL ON FUNCTION loyalty.verify_accounts(bigint, bigint, timestamptz, boolean) FROM PUBLIC;

CREATE FUNCTION loyalty.accounts_of(member_id bigint) RETURNS SETOF bigint
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT accounts_of.member_id
    UNION SELECT a.household_id FROM loyalty.account a WHERE a.account_id = accounts_of.member_id AND a.household_id IS NOT NULL
    UNION SELECT a.account_id FROM loyalty.member m JOIN loyalty.program w ON w.wallet_of = m.program_id
                 JOIN loyalty.account a ON a.account_id = loyalty.wallet_account(w.program_id, m.member_id)
          WHERE m.member_id = accounts_of.member_id
$$;
COMMENT ON FUNCTION loyalty.accounts_of(bigint) IS 'The accounts of a member: its own, those of its wallets, and its household''s';
REVOKE ALL ON FUNCTION loyalty.accounts_of(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.verify(member_id bigint DEFAULT NULL, account_from bigint DEFAULT NULL, account_to bigint DEFAULT NULL, keyed_from timestamptz DEFAULT NULL, incremental boolean DEFAULT false)
    RETURNS TABLE (account_id bigint, seq bigint, problem text, detail text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m bigint := verify.member_id;
BEGIN
    IF m IS NULL THEN
        RETURN QUERY SELECT v.* FROM loyalty.verify_accounts(account_from, account_to, keyed_from, incremental) v;
    ELSE
        PERFORM loyalty.require_member(m);
        RETURN QUERY SELECT v.* FROM loyalty.accounts_of(m) a, loyalty.verify_accounts(a, a, keyed_from, incremental) v;
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.verify(bigint, bigint, bigint, timestamptz, boolean) IS 'The first entry of each account that is wrong, and how: gap, hash, key, points, a head or sums that disagree. No row when all is well. Of all accounts, of a member, or of accounts from one number to another; entries recorded since keyed_from must bear a key (infinity: none need one, not even behind one that does); incremental looks at what was posted since the last seal() alone';
REVOKE ALL ON FUNCTION loyalty.verify(bigint, bigint, bigint, timestamptz, boolean) FROM PUBLIC;
