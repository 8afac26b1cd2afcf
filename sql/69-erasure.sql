/*
 * erasure: of a person nothing stays but a number, and the ledger keeps its sums.
 */
CREATE TABLE loyalty.erasure (
    member_id   bigint PRIMARY KEY,
    erased_at   timestamptz NOT NULL DEFAULT now(),
    erased_by   name NOT NULL DEFAULT session_user,
    reason      text NOT NULL CHECK (btrim(reason) <> '')
);
COMMENT ON TABLE loyalty.erasure IS 'Members whose personal data was erased, for ever';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.erasure
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_record();

CREATE FUNCTION loyalty.lock_people(member_id bigint) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    target bigint := (SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = member_id);
    people bigint[] := loyalty.same_member(target);
BEGIN
    -- as an UPDATE of the members locks them
    PERFORM FROM loyalty.member m WHERE m.member_id = ANY (people) ORDER BY m.member_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member % does not exist', member_id USING ERRCODE = 'LY301', HINT = 'loyalty.enroll makes a member.';
    END IF;
    PERFORM FROM loyalty.account a WHERE a.account_id = ANY (people) ORDER BY a.merged_into IS NULL, a.account_id FOR NO KEY UPDATE;
    IF NOT people @> loyalty.same_member(target) OR EXISTS (SELECT FROM loyalty.account a WHERE a.account_id = target AND a.merged_into IS NOT NULL) THEN
        RAISE EXCEPTION 'member % was merged at the same time', member_id USING ERRCODE = '40001', HINT = 'Try again.';
    END IF;
    RETURN people;
END
$$;
COMMENT ON FUNCTION loyalty.lock_people(bigint) IS 'Locks a member, the one that it was merged into and all that were merged into that one; returns them';
REVOKE ALL ON FUNCTION loyalty.lock_people(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.erase_member(member_id bigint, reason text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    people bigint[];
    reason_before text := coalesce(current_setting('loyalty.reason', true), '');
BEGIN
    IF coalesce(btrim(reason), '') = '' THEN
        RAISE EXCEPTION 'an erasure needs a reason' USING ERRCODE = 'LY402', HINT = 'Say why, for the auditor, and nothing of the person.';
    END IF;
    people := loyalty.lock_people(member_id);
    IF NOT EXISTS (SELECT FROM unnest(people) p WHERE p NOT IN (SELECT e.member_id FROM loyalty.erasure e WHERE e.member_id = ANY (people))) THEN
        RETURN false;
    END IF;
    INSERT INTO loyalty.erasure (member_id, reason) SELECT p, reason FROM unnest(people) p ORDER BY p ON CONFLICT DO NOTHING;
    DELETE FROM loyalty.identity i WHERE i.member_id = ANY (people);
    DELETE FROM loyalty.person p WHERE p.member_id = ANY (people);
    UPDATE loyalty.suggestion s SET member_id = NULL WHERE s.member_id = ANY (people);
    INSERT INTO loyalty.consent_change (member_id, purpose, channel, occurred_at, given, source)
        SELECT people[1], c.purpose, c.channel, greatest(c.since, now()), false, 'erasure' FROM loyalty.current_consents(people[1]) c WHERE c.given;
    PERFORM set_config('loyalty.reason', reason, true);
    UPDATE loyalty.member m SET status = 'closed', external_id = 'erased ' || encode(loyalty.make_nonce(), 'hex'), birthday = NULL, time_zone = NULL, attributes = NULL
        WHERE m.member_id = ANY (people);
    PERFORM set_config('loyalty.reason', reason_before, true);
    UPDATE loyalty.held_award h SET detail = NULL WHERE h.account_id = ANY (people) AND h.detail IS NOT NULL;
    UPDATE loyalty.household_member h SET reason = NULL, leave_reason = NULL WHERE h.member_id = ANY (people) AND num_nonnulls(h.reason, h.leave_reason) > 0;
    RETURN true;
END
$$;
COMMENT ON FUNCTION loyalty.erase_member(bigint, text) IS 'Erases a person: fields, contacts, external id, birthday, attributes; withdraws all consents and closes the member. The ledger stays as it is. Whoever was merged with it is erased, too. Doing it again does nothing: false';
REVOKE ALL ON FUNCTION loyalty.erase_member(bigint, text) FROM PUBLIC;
