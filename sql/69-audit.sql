/*
 * audit: who changed what of a programme's configuration and of a member's
 * standing, when, from what to what, and why.  What happens to points stands
 * in the ledger.
 */
CREATE FUNCTION loyalty.keep_record() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = CASE WHEN TG_OP = 'TRUNCATE' THEN 'LY505' ELSE 'LY901' END,
              DETAIL = 'Records of changes, consents and erasures are append-only.';
END
$$;
COMMENT ON FUNCTION loyalty.keep_record() IS 'Refuses what would rewrite the audit, consents and erasures';
REVOKE ALL ON FUNCTION loyalty.keep_record() FROM PUBLIC;

CREATE SEQUENCE loyalty.audit_id_seq AS bigint;
COMMENT ON SEQUENCE loyalty.audit_id_seq IS 'Orders the records of the audit';

CREATE TABLE loyalty.audit (
    audit_id    bigint NOT NULL DEFAULT nextval('loyalty.audit_id_seq'),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor       name NOT NULL DEFAULT session_user,
    acting_as   name,
    relation    name NOT NULL,
    operation   text NOT NULL CHECK (operation IN ('insert', 'update', 'delete')),
    key         jsonb NOT NULL,
    old         jsonb,
    new         jsonb,
    reason      text,
    PRIMARY KEY (recorded_at, audit_id)
);
ALTER SEQUENCE loyalty.audit_id_seq OWNED BY loyalty.audit.audit_id;
CREATE INDEX audit_key_idx ON loyalty.audit (relation, key);
COMMENT ON TABLE loyalty.audit IS 'Every change of programmes, tiers, articles, rules, rewards, pools, cards, challenges, rates, limits and attached tables, and of members'' status, staff flag and dates. Append-only';
COMMENT ON COLUMN loyalty.audit.actor IS 'The role that had connected (session_user)';
COMMENT ON COLUMN loyalty.audit.acting_as IS 'The role taken on with SET ROLE, NULL: none';
COMMENT ON COLUMN loyalty.audit.old IS 'Of an update the columns that changed; what is personal is not shown';
COMMENT ON COLUMN loyalty.audit.reason IS 'The setting loyalty.reason, else the reason of the row itself';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.audit
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_record();

CREATE FUNCTION loyalty.is_restore(relation regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- what every script of pg_dump sets, from somebody who could as well disable triggers
    SELECT current_setting('row_security') = 'off' AND current_setting('check_function_bodies') = 'off'
        AND pg_has_role(session_user, c.relowner, 'MEMBER') FROM pg_class c WHERE c.oid = relation
$$;
COMMENT ON FUNCTION loyalty.is_restore(regclass) IS 'A table''s owner is restoring a dump';
REVOKE ALL ON FUNCTION loyalty.is_restore(regclass) FROM PUBLIC;

CREATE FUNCTION loyalty.audited(content jsonb, other jsonb, hidden text[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_object_agg(c.key, CASE WHEN c.key = ANY (hidden) AND c.value <> 'null' THEN '"(not shown)"' ELSE c.value END)
    FROM jsonb_each(content) c WHERE other IS NULL OR other -> c.key IS DISTINCT FROM c.value
$$;
COMMENT ON FUNCTION loyalty.audited(jsonb, jsonb, text[]) IS 'What the audit says of a row: the columns that differ from the other one, without what is personal';
REVOKE ALL ON FUNCTION loyalty.audited(jsonb, jsonb, text[]) FROM PUBLIC;

CREATE FUNCTION loyalty.write_audit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    keys constant text[] := string_to_array(TG_ARGV[0], ',');
    hidden constant text[] := string_to_array(TG_ARGV[1], ',');
    before jsonb;
    after jsonb;
BEGIN
    IF TG_TABLE_SCHEMA <> 'loyalty' THEN
        RAISE EXCEPTION 'table "%" may not write the audit', TG_TABLE_NAME USING ERRCODE = 'LY902';
    END IF;
    IF TG_OP <> 'INSERT' THEN before := to_jsonb(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN after := to_jsonb(NEW); END IF;
    IF before = after OR (TG_OP = 'INSERT' AND loyalty.is_restore(TG_RELID)) THEN
        RETURN NULL;
    END IF;
    INSERT INTO loyalty.audit (acting_as, relation, operation, key, old, new, reason)
        VALUES (nullif(current_setting('role'), 'none'), TG_TABLE_NAME, lower(TG_OP),
            (SELECT jsonb_object_agg(k, coalesce(after, before) -> k) FROM unnest(keys) k),
            loyalty.audited(before, after, hidden), loyalty.audited(after, before, hidden),
            coalesce(nullif(current_setting('loyalty.reason', true), ''), after ->> 'reason'));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION loyalty.write_audit() IS 'Writes the change of a row into the audit';
REVOKE ALL ON FUNCTION loyalty.write_audit() FROM PUBLIC;

CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.program
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('program_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.tier
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('tier_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.product
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('program_id,sku');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.rule
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('rule_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.rule_version
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('rule_version_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.rule_budget
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('rule_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.exchange_rate
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('from_currency,to_currency,day');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.attachment
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('attachment_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.reward
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('reward_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.coupon_pool
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('pool_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.stamp_card
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('card_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.challenge
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('challenge_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.referral_policy
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('policy_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.velocity_limit
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('limit_id');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.blocked_subject
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('program_id,kind', 'subject');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.activity_policy
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('program_id,kind');
CREATE TRIGGER write_audit AFTER INSERT OR UPDATE OR DELETE ON loyalty.cashier_limit
    FOR EACH ROW EXECUTE FUNCTION loyalty.write_audit('program_id,cashier');
-- enrolling is daily business; what flags a member, closes it or moves its dates is not
CREATE TRIGGER write_audit AFTER UPDATE ON loyalty.member
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION loyalty.write_audit('member_id', 'external_id,birthday,birthday_since,time_zone,attributes');
CREATE TRIGGER write_audit_of_staff AFTER INSERT ON loyalty.member
    FOR EACH ROW WHEN (NEW.staff) EXECUTE FUNCTION loyalty.write_audit('member_id', 'external_id,birthday,birthday_since,time_zone,attributes');
