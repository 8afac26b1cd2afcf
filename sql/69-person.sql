/*
 * person: names, addresses and contacts, sealed before a row exists, and
 * members found by a contact.  The keys stand in the file of
 * loyalty.key_file.  Plaintext is handed from function to function in plain
 * expressions and never in a query, so that no plan and no parameter of an
 * inner statement holds it.
 */
CREATE TABLE loyalty.person (
    member_id   bigint NOT NULL,
    field       text NOT NULL,
    sealed      bytea NOT NULL CHECK (octet_length(sealed) >= 74),
    key_id      integer NOT NULL GENERATED ALWAYS AS (get_byte(sealed, 1)) STORED,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (member_id, field)
);
COMMENT ON TABLE loyalty.person IS 'Personal data of members, a row a field, sealed with XChaCha20-Poly1305 for this member and field. Read through loyalty.person(member_id)';
COMMENT ON COLUMN loyalty.person.sealed IS 'Version, key number, nonce, ciphertext with its tag; padded to 32, 64, 128... bytes';
COMMENT ON COLUMN loyalty.person.key_id IS 'The key of the key file that opens it';

CREATE TABLE loyalty.identity (
    program_id  integer NOT NULL,
    kind        text NOT NULL,
    blind       bytea NOT NULL CHECK (octet_length(blind) = 17),
    member_id   bigint NOT NULL,
    sealed      bytea NOT NULL CHECK (octet_length(sealed) >= 74),
    key_id      integer NOT NULL GENERATED ALWAYS AS (get_byte(sealed, 1)) STORED,
    index_key_id integer NOT NULL GENERATED ALWAYS AS (get_byte(blind, 0)) STORED,
    added_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (program_id, kind, blind)
);
CREATE INDEX identity_member_id_idx ON loyalty.identity (member_id);
COMMENT ON TABLE loyalty.identity IS 'Contacts by which members are found: phone, email, card, and names in social networks; each belongs to one member of a programme';
COMMENT ON COLUMN loyalty.identity.blind IS 'Number of the index key, then 16 bytes of BLAKE2b under it over programme, kind and the value in its one spelling';
COMMENT ON COLUMN loyalty.identity.sealed IS 'The value in its one spelling, sealed like loyalty.person.sealed';

/* ------------------------------------------------------------------------
 * Sealing
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.seal_value(member_id bigint, field text, value text) RETURNS bytea
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_seal_value';
COMMENT ON FUNCTION loyalty.seal_value(bigint, text, text) IS 'A field of a member, sealed with the current key';
REVOKE ALL ON FUNCTION loyalty.seal_value(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.seal_fields(member_id bigint, fields jsonb, OUT names text[], OUT sealed bytea[])
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_seal_fields';
COMMENT ON FUNCTION loyalty.seal_fields(bigint, jsonb) IS 'The names of an object''s members and their values as JSON text, sealed; null where the value is null';
REVOKE ALL ON FUNCTION loyalty.seal_fields(bigint, jsonb) FROM PUBLIC;

CREATE FUNCTION loyalty.open_value(member_id bigint, field text, sealed bytea) RETURNS text
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_open_value';
COMMENT ON FUNCTION loyalty.open_value(bigint, text, bytea) IS 'What was sealed for this member and field';
REVOKE ALL ON FUNCTION loyalty.open_value(bigint, text, bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.reseal_value(member_id bigint, field text, sealed bytea) RETURNS bytea
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_reseal_value';
COMMENT ON FUNCTION loyalty.reseal_value(bigint, text, bytea) IS 'The same value, sealed with the current key';
REVOKE ALL ON FUNCTION loyalty.reseal_value(bigint, text, bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.seal_contact(member_id bigint, kind text, country_code text, value text) RETURNS bytea
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_seal_contact';
COMMENT ON FUNCTION loyalty.seal_contact(bigint, text, text, text) IS 'A contact in its one spelling, sealed with the current key';
REVOKE ALL ON FUNCTION loyalty.seal_contact(bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.open_contact(member_id bigint, kind text, sealed bytea) RETURNS text
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_open_contact';
COMMENT ON FUNCTION loyalty.open_contact(bigint, text, bytea) IS 'The contact that was sealed for this member';
REVOKE ALL ON FUNCTION loyalty.open_contact(bigint, text, bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.blind_contact(program_id integer, kind text, country_code text, value text) RETURNS bytea[]
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_blind_contact';
COMMENT ON FUNCTION loyalty.blind_contact(integer, text, text, text) IS 'The blind indexes of a contact under all index keys, the current one''s first';
REVOKE ALL ON FUNCTION loyalty.blind_contact(integer, text, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.reseal_contact(program_id integer, member_id bigint, kind text, sealed bytea, OUT resealed bytea, OUT blind bytea)
    LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'loyalty_reseal_contact';
COMMENT ON FUNCTION loyalty.reseal_contact(integer, bigint, text, bytea) IS 'The same contact sealed, and its blind index, under the current keys';
REVOKE ALL ON FUNCTION loyalty.reseal_contact(integer, bigint, text, bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.current_key(kind text) RETURNS integer
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_current_key';
COMMENT ON FUNCTION loyalty.current_key(text) IS 'The number of the key of a kind that is used for what is new';
REVOKE ALL ON FUNCTION loyalty.current_key(text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.lock_person(member_id bigint) RETURNS loyalty.member
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member;
BEGIN
    -- whoever was merged into another member is that one
    SELECT q.* INTO m FROM loyalty.member q
        WHERE q.member_id = (SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = member_id) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'member % does not exist', member_id USING ERRCODE = 'LY301', HINT = 'loyalty.enroll makes a member.';
    END IF;
    IF EXISTS (SELECT FROM loyalty.erasure e WHERE e.member_id IN (m.member_id, member_id)) THEN
        RAISE EXCEPTION 'member % was erased', member_id
            USING ERRCODE = 'LY625', DETAIL = 'Nothing of a person is kept under this number any more.', HINT = 'Enroll the person anew.';
    END IF;
    -- so that whoever erases the member and has an older snapshot tries again: it does not see what is written now
    UPDATE loyalty.member q SET status = q.status WHERE q.member_id = m.member_id;
    RETURN m;
END
$$;
COMMENT ON FUNCTION loyalty.lock_person(bigint) IS 'Locks a member, or the one that it was merged into; LY625 where it was erased';
REVOKE ALL ON FUNCTION loyalty.lock_person(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.set_person(member_id bigint, fields jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_person(member_id);
    s record;
BEGIN
    IF fields IS NULL THEN
        RAISE EXCEPTION 'the fields of a person are a JSON object' USING ERRCODE = 'LY624';
    END IF;
    s := loyalty.seal_fields(m.member_id, fields);
    INSERT INTO loyalty.person AS p (member_id, field, sealed)
        SELECT m.member_id, u.field, u.sealed FROM unnest(s.names, s.sealed) AS u (field, sealed) WHERE u.sealed IS NOT NULL
        ON CONFLICT ON CONSTRAINT person_pkey DO UPDATE SET sealed = excluded.sealed, changed_at = now();
    DELETE FROM loyalty.person p USING unnest(s.names, s.sealed) AS u (field, sealed)
        WHERE p.member_id = ANY (loyalty.same_member(m.member_id)) AND p.field = u.field
            AND (u.sealed IS NULL OR p.member_id <> m.member_id);
END
$$;
COMMENT ON FUNCTION loyalty.set_person(bigint, jsonb) IS 'Sets fields of a member''s personal data, any JSON each; null takes a field away, fields that are not named stay. Sealed before a row exists';
REVOKE ALL ON FUNCTION loyalty.set_person(bigint, jsonb) FROM PUBLIC;

CREATE FUNCTION loyalty.blinds_of(program_id integer, kind text, value text) RETURNS bytea[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    country text;
BEGIN
    SELECT coalesce(p.country_code, '') INTO country FROM loyalty.program p WHERE p.program_id = program_id;
    IF NOT FOUND THEN
        PERFORM loyalty.require_program(program_id);
    END IF;
    IF kind IS NULL OR value IS NULL THEN
        RAISE EXCEPTION 'a contact has a kind and a value' USING ERRCODE = 'LY622', HINT = 'Kinds are phone, email, card and the names of social networks.';
    END IF;
    RETURN loyalty.blind_contact(program_id, kind, country, value);
END
$$;
COMMENT ON FUNCTION loyalty.blinds_of(integer, text, text) IS 'The blind indexes of a contact under all index keys, the current one''s first; LY622 where it is none';
REVOKE ALL ON FUNCTION loyalty.blinds_of(integer, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.set_contact(member_id bigint, kind text, value text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_person(member_id);
    country text := coalesce((SELECT p.country_code FROM loyalty.program p WHERE p.program_id = m.program_id), '');
    blinds bytea[];
    sealed bytea;
    owner bigint;
BEGIN
    blinds := loyalty.blinds_of(m.program_id, kind, value);
    sealed := loyalty.seal_contact(m.member_id, kind, country, value);
    LOOP
        -- locked, so that an older snapshot does not refuse what was taken away since
        SELECT i.member_id INTO owner FROM loyalty.identity i
            WHERE i.program_id = m.program_id AND i.kind = kind AND i.blind = ANY (blinds) LIMIT 1 FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO loyalty.identity (program_id, kind, blind, member_id, sealed) VALUES (m.program_id, kind, blinds[1], m.member_id, sealed)
            ON CONFLICT ON CONSTRAINT identity_pkey DO NOTHING;
        IF FOUND THEN RETURN; END IF;
    END LOOP;
    IF owner <> ALL (loyalty.same_member(m.member_id)) THEN
        RAISE EXCEPTION 'this % belongs to another member', kind
            USING ERRCODE = 'LY621', DETAIL = 'A contact is one member''s of the programme.',
                  HINT = 'loyalty.find_member finds whose it is; loyalty.merge_members makes two members one.';
    END IF;
END
$$;
COMMENT ON FUNCTION loyalty.set_contact(bigint, text, text) IS 'Adds a contact to a member: phone, email, card, or a name in a network (telegram, instagram...). A member has any number of them, a contact one member of the programme (LY621). Doing it again does nothing';
REVOKE ALL ON FUNCTION loyalty.set_contact(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.remove_contact(member_id bigint, kind text, value text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    m loyalty.member := loyalty.lock_person(member_id);
    blinds bytea[] := loyalty.blinds_of(m.program_id, kind, value);
BEGIN
    DELETE FROM loyalty.identity i
        WHERE i.program_id = m.program_id AND i.kind = kind AND i.blind = ANY (blinds) AND i.member_id = ANY (loyalty.same_member(m.member_id));
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION loyalty.remove_contact(bigint, text, text) IS 'Takes a contact from a member; false where it was not the member''s';
REVOKE ALL ON FUNCTION loyalty.remove_contact(bigint, text, text) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.find_member(program_id integer, kind text, value text) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    blinds bytea[] := loyalty.blinds_of(program_id, kind, value);
BEGIN
    RETURN (SELECT coalesce(a.merged_into, i.member_id) FROM loyalty.identity i LEFT JOIN loyalty.account a ON a.account_id = i.member_id
            WHERE i.program_id = program_id AND i.kind = kind AND i.blind = ANY (blinds) LIMIT 1);
END
$$;
COMMENT ON FUNCTION loyalty.find_member(integer, text, text) IS 'The member of a programme that has this contact, in any spelling; whoever was merged is the one that it was merged into. NULL: nobody';
REVOKE ALL ON FUNCTION loyalty.find_member(integer, text, text) FROM PUBLIC;

CREATE FUNCTION loyalty.person(member_id bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    target bigint := (SELECT coalesce(a.merged_into, a.account_id) FROM loyalty.account a WHERE a.account_id = member_id);
    people bigint[] := loyalty.same_member(coalesce(target, member_id));
BEGIN
    PERFORM loyalty.require_member(member_id);
    -- the member's own fields cover those of whoever was merged into it
    RETURN coalesce((SELECT jsonb_object_agg(p.field, loyalty.open_value(p.member_id, p.field, p.sealed)::jsonb ORDER BY p.member_id = target, p.member_id)
                     FROM loyalty.person p WHERE p.member_id = ANY (people)), '{}')
        || jsonb_build_object('contacts', coalesce((
            SELECT jsonb_agg(jsonb_build_object('kind', c.kind, 'value', c.value) ORDER BY c.kind, c.value)
            FROM (SELECT i.kind, loyalty.open_contact(i.member_id, i.kind, i.sealed) AS value
                  FROM loyalty.identity i WHERE i.member_id = ANY (people)) c), '[]'));
END
$$;
COMMENT ON FUNCTION loyalty.person(bigint) IS 'A member''s personal data in the clear: the fields and, under contacts, the contacts';
REVOKE ALL ON FUNCTION loyalty.person(bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Rotation
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.reseal_fields(after_member bigint, after_field text, size integer, OUT member_id bigint, OUT field text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS MATERIALIZED (
        SELECT p.member_id, p.field FROM loyalty.person p
        WHERE (p.member_id, p.field) > (after_member, after_field) AND p.key_id <> (SELECT loyalty.current_key('xchacha20'))
        ORDER BY p.member_id, p.field LIMIT size FOR UPDATE),
    done AS (
        UPDATE loyalty.person p SET sealed = loyalty.reseal_value(p.member_id, p.field, p.sealed)
        FROM due d WHERE p.member_id = d.member_id AND p.field = d.field)
    SELECT d.member_id, d.field FROM due d ORDER BY d.member_id DESC, d.field DESC LIMIT 1
$$;
COMMENT ON FUNCTION loyalty.reseal_fields(bigint, text, integer) IS 'Seals some fields under other keys anew; the last of them, NULL where there was none';
REVOKE ALL ON FUNCTION loyalty.reseal_fields(bigint, text, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.reseal_contacts(after_program integer, after_kind text, after_blind bytea, size integer,
        OUT program_id integer, OUT kind text, OUT blind bytea)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS MATERIALIZED (
        SELECT i.program_id, i.kind, i.blind, i.member_id, i.sealed FROM loyalty.identity i
        WHERE (i.program_id, i.kind, i.blind) > (after_program, after_kind, after_blind)
            AND (i.key_id <> (SELECT loyalty.current_key('xchacha20')) OR i.index_key_id <> (SELECT loyalty.current_key('index')))
        ORDER BY i.program_id, i.kind, i.blind LIMIT size FOR UPDATE),
    done AS (
        UPDATE loyalty.identity i SET sealed = r.resealed, blind = r.blind
        FROM due d CROSS JOIN LATERAL loyalty.reseal_contact(d.program_id, d.member_id, d.kind, d.sealed) r
        WHERE (i.program_id, i.kind, i.blind) = (d.program_id, d.kind, d.blind))
    SELECT d.program_id, d.kind, d.blind FROM due d ORDER BY d.program_id DESC, d.kind DESC, d.blind DESC LIMIT 1
$$;
COMMENT ON FUNCTION loyalty.reseal_contacts(integer, text, bytea, integer) IS 'Seals and indexes some contacts under other keys anew; the last of them, NULL where there was none';
REVOKE ALL ON FUNCTION loyalty.reseal_contacts(integer, text, bytea, integer) FROM PUBLIC;

CREATE PROCEDURE loyalty.reseal(batch integer DEFAULT 1000)
    LANGUAGE plpgsql
AS $$
DECLARE
    last_member bigint := 0;
    last_field text := '';
    last_program integer := 0;
    last_kind text := '';
    last_blind bytea := '';
BEGIN
    IF batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'batch must be at least 1' USING ERRCODE = '22023';
    END IF;
    LOOP
        SELECT r.member_id, r.field INTO last_member, last_field FROM loyalty.reseal_fields(last_member, last_field, batch) r;
        COMMIT;
        EXIT WHEN last_member IS NULL;
    END LOOP;
    LOOP
        SELECT r.program_id, r.kind, r.blind INTO last_program, last_kind, last_blind FROM loyalty.reseal_contacts(last_program, last_kind, last_blind, batch) r;
        COMMIT;
        EXIT WHEN last_program IS NULL;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE loyalty.reseal(integer) IS 'Seals all personal data with the current keys, a batch a transaction, beside the traffic; call it again after an interruption. Then the old keys may go';
REVOKE ALL ON PROCEDURE loyalty.reseal(integer) FROM PUBLIC;
