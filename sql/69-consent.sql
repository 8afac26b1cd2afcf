/*
 * consent: what a member agreed to, for which purpose and channel, when and
 * where it was said.  Nothing is overwritten: the last word counts.
 */
CREATE SEQUENCE loyalty.consent_number_seq AS bigint;
COMMENT ON SEQUENCE loyalty.consent_number_seq IS 'Orders the consents that were said at one instant';

CREATE TABLE loyalty.consent_change (
    member_id   bigint NOT NULL,
    purpose     text NOT NULL CHECK (btrim(purpose) <> '' AND octet_length(purpose) <= 200),
    channel     text NOT NULL CHECK (btrim(channel) <> '' AND octet_length(channel) <= 200),
    occurred_at timestamptz NOT NULL CHECK (isfinite(occurred_at)),
    number      bigint NOT NULL DEFAULT nextval('loyalty.consent_number_seq'),
    given       boolean NOT NULL,
    source      text NOT NULL CHECK (btrim(source) <> '' AND octet_length(source) <= 1000),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    actor       name NOT NULL DEFAULT session_user,
    PRIMARY KEY (member_id, purpose, channel, occurred_at, number)
);
ALTER SEQUENCE loyalty.consent_number_seq OWNED BY loyalty.consent_change.number;
COMMENT ON TABLE loyalty.consent_change IS 'Every consent and every withdrawal, append-only';
COMMENT ON COLUMN loyalty.consent_change.purpose IS 'What for: marketing, profiling, partners...';
COMMENT ON COLUMN loyalty.consent_change.channel IS 'By what way: email, sms, phone, post, push...';
COMMENT ON COLUMN loyalty.consent_change.source IS 'Where it was said: a form and its version, a till, a call';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.consent_change
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.keep_record();

CREATE VIEW loyalty.consent AS
    SELECT DISTINCT ON (coalesce(a.merged_into, c.member_id), c.purpose, c.channel)
           coalesce(a.merged_into, c.member_id) AS member_id, c.purpose, c.channel, c.given, c.occurred_at AS since, c.source, c.recorded_at, c.actor
    FROM loyalty.consent_change c LEFT JOIN loyalty.account a ON a.account_id = c.member_id
    ORDER BY coalesce(a.merged_into, c.member_id), c.purpose, c.channel, c.occurred_at DESC, c.number DESC;
COMMENT ON VIEW loyalty.consent IS 'The last word of every member on every purpose and channel; of whoever was merged, under the one that it was merged into';

CREATE FUNCTION loyalty.current_consents(member_id bigint) RETURNS TABLE (purpose text, channel text, given boolean, since timestamptz, source text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT ON (c.purpose, c.channel) c.purpose, c.channel, c.given, c.occurred_at, c.source
    FROM loyalty.consent_change c
    WHERE c.member_id = ANY (loyalty.same_member((SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = member_id)))
    ORDER BY c.purpose, c.channel, c.occurred_at DESC, c.number DESC
$$;
COMMENT ON FUNCTION loyalty.current_consents(bigint) IS 'A member''s last word on every purpose and channel';
REVOKE ALL ON FUNCTION loyalty.current_consents(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.change_consent(member_id bigint, purpose text, channel text, source text, given boolean, occurred_at timestamptz) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_person(member_id);
BEGIN
    IF coalesce(btrim(purpose), '') = '' OR coalesce(btrim(channel), '') = '' OR coalesce(btrim(source), '') = ''
       OR octet_length(purpose) > 200 OR octet_length(channel) > 200 OR octet_length(source) > 1000 THEN
        RAISE EXCEPTION 'a consent has a purpose, a channel and a source'
            USING ERRCODE = 'LY626', HINT = 'For example ''marketing'', ''email'', ''sign-up form 3''.';
    END IF;
    IF occurred_at IS NULL OR NOT isfinite(occurred_at) OR occurred_at > now() + interval '1 day' THEN
        RAISE EXCEPTION 'occurred_at is out of range' USING ERRCODE = 'LY102', DETAIL = 'Expected a time up to one day from now.';
    END IF;
    -- a retry says nothing new
    IF NOT EXISTS (SELECT FROM loyalty.consent_change c WHERE c.member_id = m.member_id AND c.purpose = purpose AND c.channel = channel
                   AND c.occurred_at = occurred_at AND c.given = given AND c.source = source) THEN
        INSERT INTO loyalty.consent_change (member_id, purpose, channel, occurred_at, given, source)
            VALUES (m.member_id, purpose, channel, occurred_at, given, source);
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.change_consent(bigint, text, text, text, boolean, timestamptz) IS 'Records a consent or its withdrawal';
REVOKE ALL ON FUNCTION loyalty.change_consent(bigint, text, text, text, boolean, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.give_consent(member_id bigint, purpose text, channel text, source text, occurred_at timestamptz DEFAULT now()) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT loyalty.change_consent(member_id, purpose, channel, source, true, occurred_at) $$;
COMMENT ON FUNCTION loyalty.give_consent(bigint, text, text, text, timestamptz) IS 'A member agrees to a purpose by a channel; the last word by occurred_at counts';
REVOKE ALL ON FUNCTION loyalty.give_consent(bigint, text, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.withdraw_consent(member_id bigint, purpose text, channel text, source text, occurred_at timestamptz DEFAULT now()) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT loyalty.change_consent(member_id, purpose, channel, source, false, occurred_at) $$;
COMMENT ON FUNCTION loyalty.withdraw_consent(bigint, text, text, text, timestamptz) IS 'A member agrees no more to a purpose by a channel';
REVOKE ALL ON FUNCTION loyalty.withdraw_consent(bigint, text, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION loyalty.has_consent(member_id bigint, purpose text, channel text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT c.given FROM loyalty.consent_change c
        WHERE c.member_id = ANY (loyalty.same_member((SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = has_consent.member_id)))
            AND c.purpose = has_consent.purpose AND c.channel = has_consent.channel
        ORDER BY c.occurred_at DESC, c.number DESC LIMIT 1), false)
$$;
COMMENT ON FUNCTION loyalty.has_consent(bigint, text, text) IS 'Whether a member''s last word on a purpose and channel was yes; false where it said nothing';
REVOKE ALL ON FUNCTION loyalty.has_consent(bigint, text, text) FROM PUBLIC;
