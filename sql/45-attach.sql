/*
 * attach: tables of the DBA's own as transaction tables.
 */
CREATE TYPE loyalty.table_ref;

CREATE FUNCTION loyalty.table_ref_in(cstring) RETURNS loyalty.table_ref
    LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_table_ref_in';
COMMENT ON FUNCTION loyalty.table_ref_in(cstring) IS 'The table of a name, or 1 where there is none';
REVOKE ALL ON FUNCTION loyalty.table_ref_in(cstring) FROM PUBLIC;

CREATE FUNCTION loyalty.table_ref_out(loyalty.table_ref) RETURNS cstring
    LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'regclassout';
COMMENT ON FUNCTION loyalty.table_ref_out(loyalty.table_ref) IS 'The name that a table has now';
REVOKE ALL ON FUNCTION loyalty.table_ref_out(loyalty.table_ref) FROM PUBLIC;

CREATE TYPE loyalty.table_ref (INPUT = loyalty.table_ref_in, OUTPUT = loyalty.table_ref_out, LIKE = regclass);
COMMENT ON TYPE loyalty.table_ref IS 'A table, like regclass; but a name that stands for none is read as 1, so that a registry is restored where one of its tables is not';
CREATE CAST (loyalty.table_ref AS oid) WITHOUT FUNCTION AS IMPLICIT;
COMMENT ON CAST (loyalty.table_ref AS oid) IS 'The table''s number';
CREATE CAST (loyalty.table_ref AS regclass) WITHOUT FUNCTION AS IMPLICIT;
COMMENT ON CAST (loyalty.table_ref AS regclass) IS 'The table';
CREATE CAST (regclass AS loyalty.table_ref) WITHOUT FUNCTION AS ASSIGNMENT;
COMMENT ON CAST (regclass AS loyalty.table_ref) IS 'The table';

CREATE TABLE loyalty.attachment (
    attachment_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation        loyalty.table_ref NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('purchase', 'activity', 'return')),
    program_id      integer NOT NULL,
    source          text NOT NULL UNIQUE CHECK (source <> ''),
    mapping         jsonb NOT NULL,
    qualifies       text,
    lines_relation  loyalty.table_ref,
    lines_key       text,
    header_key      text,
    lines_mapping   jsonb
);
CREATE UNIQUE INDEX attachment_relation_idx ON loyalty.attachment (relation, (kind = 'return')) WHERE relation <> 1::oid;
CREATE UNIQUE INDEX attachment_lines_relation_idx ON loyalty.attachment (lines_relation) WHERE lines_relation <> 1::oid;
COMMENT ON TABLE loyalty.attachment IS 'Tables whose rows become purchases, activities or returns; one table may hold purchases and their returns';
COMMENT ON COLUMN loyalty.attachment.relation IS 'The table; 1 where it was not there when this was restored';
COMMENT ON COLUMN loyalty.attachment.source IS 'Stands as source in the rows received; unique for ever';
COMMENT ON COLUMN loyalty.attachment.mapping IS 'SQL expressions over the table''s row: member (external id), reference, occurred_at, amount, ...';
COMMENT ON COLUMN loyalty.attachment.lines_relation IS 'The table of the lines, whose lines_key names the header''s header_key; lines_mapping holds SQL expressions over its row';
CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON loyalty.attachment
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.configuration_changed();

CREATE FUNCTION loyalty.receive() RETURNS trigger
    LANGUAGE C SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    AS 'MODULE_PATHNAME', 'loyalty_receive';
REVOKE ALL ON FUNCTION loyalty.receive() FROM PUBLIC;
COMMENT ON FUNCTION loyalty.receive() IS 'Turns the rows of an attached table into purchases, activities or returns; refuses tables that are not attached';

CREATE FUNCTION loyalty.check_mapping(relation regclass, kind text, mapping jsonb, qualifies text) RETURNS void
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'loyalty_check_mapping';
REVOKE ALL ON FUNCTION loyalty.check_mapping(regclass, text, jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.check_mapping(regclass, text, jsonb, text) IS 'Compiles a mapping over a table''s row; raises what is wrong with it';

CREATE FUNCTION loyalty.attach_triggers(relation regclass) RETURNS integer
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part regclass;
    made integer := 0;
BEGIN
    FOR part IN SELECT coalesce(t.relid, attach_triggers.relation) FROM (SELECT attach_triggers.relation) AS r (root)
                LEFT JOIN LATERAL pg_partition_tree(r.root) t ON true LOOP
        IF EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = part AND g.tgname = 'loyalty_insert') THEN
            CONTINUE;
        END IF;
        EXECUTE format('CREATE TRIGGER loyalty_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS loyalty_new FOR EACH STATEMENT EXECUTE FUNCTION loyalty.receive()', part);
        EXECUTE format('CREATE TRIGGER loyalty_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS loyalty_old NEW TABLE AS loyalty_new FOR EACH STATEMENT EXECUTE FUNCTION loyalty.receive()', part);
        EXECUTE format('CREATE TRIGGER loyalty_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS loyalty_old FOR EACH STATEMENT EXECUTE FUNCTION loyalty.receive()', part);
        EXECUTE format('CREATE TRIGGER loyalty_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION loyalty.receive()', part);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
REVOKE ALL ON FUNCTION loyalty.attach_triggers(regclass) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.attach_triggers(regclass) IS 'Puts the triggers on an attached table and on those of its partitions that lack them; run it again after adding a partition';

CREATE FUNCTION loyalty.column_type(relation regclass, name text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT format_type(a.atttypid, NULL) FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = name AND NOT a.attisdropped $$;
REVOKE ALL ON FUNCTION loyalty.column_type(regclass, text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.column_type(regclass, text) IS 'The type of a column, NULL where there is none';

CREATE FUNCTION loyalty.lines_query(a loyalty.attachment) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- every part of the mapping was compiled as one allowed expression over the row of that name
    SELECT format(
        'SELECT n.member, n.reference, n.occurred_at, n.occurred_local, n.store, n.channel, n.currency, n.amount, n.tax, n.shipping, n.discount, n.paid_with_points, n.paid_with_gift_card, '
        'CASE WHEN n.qualifies THEN (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(%s)) ORDER BY %I.tableoid, %I.ctid) FROM %s AS %I WHERE %I.%I = n.lines_of::%s) END AS lines, n.attributes, n.lines_of, n.qualifies '
        'FROM loyalty_header n',
        (SELECT string_agg(format(E'%L, (%s\n)', e.key, e.value), ', ') FROM jsonb_each_text(a.lines_mapping) e),
        c.relname, c.relname, a.lines_relation, c.relname, c.relname, a.lines_key, loyalty.column_type(a.lines_relation, a.lines_key))
    FROM pg_class c WHERE c.oid = a.lines_relation
$$;
REVOKE ALL ON FUNCTION loyalty.lines_query(loyalty.attachment) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.lines_query(loyalty.attachment) IS 'How the engine reads the lines of mapped headers, by the names that the tables have now; NULL where lines have no table of their own';

CREATE FUNCTION loyalty.header_query(a loyalty.attachment) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- (h.*) is the row even where the table has a column h; locked in one order, so that two sessions wait and do not deadlock
    SELECT format('SELECT (h.*)::%s FROM %s AS h WHERE h.%I = ANY ($1::%s[]) ORDER BY h.%I FOR NO KEY UPDATE', a.relation, a.relation, a.header_key,
                  loyalty.column_type(a.relation, a.header_key), a.header_key)
    WHERE a.lines_relation IS NOT NULL
$$;
REVOKE ALL ON FUNCTION loyalty.header_query(loyalty.attachment) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.header_query(loyalty.attachment) IS 'How the engine locks and reads the headers of changed lines, likewise';

CREATE FUNCTION loyalty.require_attachable(relation regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c pg_class;
BEGIN
    SELECT * INTO c FROM pg_class q WHERE q.oid = relation;
    IF NOT FOUND OR c.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table', coalesce(relation::text, 'NULL') USING ERRCODE = 'LY501';
    END IF;
    IF c.relpersistence = 't' THEN
        RAISE EXCEPTION 'table % is temporary', relation USING ERRCODE = 'LY501', HINT = 'Attach a table that stays.';
    END IF;
    IF c.relnamespace IN ('loyalty'::regnamespace, 'pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace) THEN
        RAISE EXCEPTION 'table % is not one of your own', relation
            USING ERRCODE = 'LY501', DETAIL = 'Tables of the system and of loyalty itself are not attached.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION loyalty.require_attachable(regclass) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.require_attachable(regclass) IS 'Raises LY501 for what is no table of the shop''s own, or one that goes away with its session';

CREATE FUNCTION loyalty.attach(relation regclass, kind text, mapping jsonb, program_id integer,
        qualifies text DEFAULT NULL, source text DEFAULT NULL,
        lines regclass DEFAULT NULL, lines_key text DEFAULT NULL, header_key text DEFAULT NULL,
        lines_mapping jsonb DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    known text[] := CASE kind WHEN 'return' THEN ARRAY['member', 'reference', 'occurred_at', 'occurred_local', 'purchase', 'purchase_source', 'amount', 'lines', 'reason', 'attributes']
        WHEN 'activity' THEN ARRAY['member', 'reference', 'occurred_at', 'occurred_local', 'kind', 'value', 'subject', 'attributes']
        ELSE ARRAY['member', 'reference', 'occurred_at', 'occurred_local', 'store', 'channel', 'currency', 'amount', 'tax', 'shipping', 'discount', 'paid_with_points', 'paid_with_gift_card', 'lines', 'attributes'] END;
    needed text[] := CASE kind WHEN 'return' THEN ARRAY['reference', 'purchase'] WHEN 'activity' THEN ARRAY['member', 'reference', 'kind'] ELSE ARRAY['member', 'reference', 'amount'] END;
    stray text;
    id integer;
    old loyalty.attachment;
BEGIN
    IF kind IS NULL OR kind NOT IN ('purchase', 'activity', 'return') THEN
        RAISE EXCEPTION '"%" is not a kind of transaction', kind USING ERRCODE = 'LY501', HINT = 'Kinds are purchase, activity and return.';
    END IF;
    IF kind <> 'purchase' AND lines IS NOT NULL THEN
        RAISE EXCEPTION 'only purchases have lines in a table of their own' USING ERRCODE = 'LY501', HINT = 'Map lines to a jsonb array instead.';
    END IF;
    PERFORM loyalty.require_attachable(t) FROM unnest(ARRAY[relation] || CASE WHEN lines IS NOT NULL THEN ARRAY[lines] END) t;
    IF mapping IS NULL OR jsonb_typeof(mapping) <> 'object' OR jsonb_typeof(lines_mapping) <> 'object' THEN
        RAISE EXCEPTION 'a mapping is an object of SQL expressions' USING ERRCODE = 'LY501', HINT = 'For example {"member": "customer", "reference": "id::text", "amount": "total"}.';
    END IF;
    SELECT * INTO old FROM loyalty.attachment a WHERE a.source = coalesce(source, relation::text || CASE WHEN kind = 'return' THEN ' returns' ELSE '' END);
    IF FOUND AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = old.relation) THEN
        DELETE FROM loyalty.attachment a WHERE a.attachment_id = old.attachment_id;
    ELSIF FOUND AND old.relation <> relation THEN
        RAISE EXCEPTION 'source "%" belongs to table %', old.source, old.relation USING ERRCODE = 'LY504', HINT = 'Give another source.';
    END IF;
    IF EXISTS (SELECT FROM loyalty.attachment a WHERE a.relation = relation AND (a.kind = 'return') = (kind = 'return')) THEN
        RAISE EXCEPTION 'table % is attached already', relation USING ERRCODE = 'LY504', HINT = 'loyalty.detach lets go of it.';
    END IF;
    SELECT k INTO stray FROM jsonb_object_keys(mapping) k WHERE k <> ALL (known) LIMIT 1;
    IF stray IS NOT NULL THEN
        RAISE EXCEPTION 'mapping of table % names "%", which no % has', relation, stray, kind
            USING ERRCODE = 'LY501', HINT = 'Columns are ' || array_to_string(known, ', ') || '.';
    END IF;
    SELECT k INTO stray FROM unnest(needed) k WHERE mapping ->> k IS NULL LIMIT 1;
    IF stray IS NOT NULL THEN
        RAISE EXCEPTION 'mapping of table % lacks %', relation, stray USING ERRCODE = 'LY501';
    END IF;
    PERFORM loyalty.require_program(program_id);
    IF EXISTS (SELECT FROM loyalty.program p WHERE p.program_id = program_id AND p.wallet_of IS NOT NULL) THEN
        RAISE EXCEPTION 'table % cannot be attached to programme %', relation, program_id
            USING ERRCODE = 'LY501', DETAIL = 'The programme is a wallet.', HINT = 'Attach it to the programme whose wallet it is.';
    END IF;
    PERFORM loyalty.check_mapping(relation, kind, mapping, qualifies);
    IF lines IS NOT NULL THEN
        PERFORM loyalty.check_mapping(lines, 'activity', jsonb_build_object('subject', lines_mapping ->> 'sku'), NULL);
        PERFORM loyalty.check_mapping(lines, 'activity', jsonb_build_object('value', e.value), NULL)
            FROM jsonb_each_text(lines_mapping) e WHERE e.key <> 'sku';
        SELECT k INTO stray FROM jsonb_object_keys(lines_mapping) k WHERE k <> ALL (ARRAY['sku', 'quantity', 'unit_price', 'amount', 'discount']) LIMIT 1;
        IF stray IS NOT NULL OR lines_key IS NULL OR header_key IS NULL THEN
            RAISE EXCEPTION 'mapping of lines % is not complete or names "%"', lines, stray
                USING ERRCODE = 'LY501', HINT = 'Give lines_key, header_key and a lines_mapping with sku, quantity, unit_price, amount, discount.';
        END IF;
        IF loyalty.column_type(lines, lines_key) IS NULL OR loyalty.column_type(relation, header_key) IS NULL THEN
            RAISE EXCEPTION 'column % of % or % of % does not exist', lines_key, lines, header_key, relation USING ERRCODE = 'LY501';
        END IF;
        mapping := mapping || jsonb_build_object('lines_of', format('%I::text', header_key));
    END IF;
    IF EXISTS (SELECT FROM loyalty.attachment a JOIN pg_partition_ancestors(relation) t ON t.relid IN (a.relation, a.lines_relation) AND t.relid <> relation) THEN
        RAISE EXCEPTION 'table % is a partition of an attached table', relation USING ERRCODE = 'LY504';
    END IF;
    INSERT INTO loyalty.attachment (relation, kind, program_id, source, mapping, qualifies, lines_relation, lines_key, header_key, lines_mapping)
        VALUES (relation, kind, program_id, coalesce(source, relation::text || CASE WHEN kind = 'return' THEN ' returns' ELSE '' END), mapping, qualifies, lines, lines_key, header_key, lines_mapping)
        RETURNING attachment_id INTO id;
    PERFORM loyalty.attach_triggers(relation);
    IF lines IS NOT NULL THEN
        PERFORM loyalty.attach_triggers(lines);
    END IF;
    RETURN id;
END
$$;
REVOKE ALL ON FUNCTION loyalty.attach(regclass, text, jsonb, integer, text, text, regclass, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.attach(regclass, text, jsonb, integer, text, text, regclass, text, text, jsonb) IS 'Makes a table''s rows purchases, activities or returns: mapping holds SQL expressions over the row, qualifies when it counts (status = ''paid''); lines may stand in a table of their own whose lines_key names the header''s header_key';

CREATE FUNCTION loyalty.detach(relation regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tables oid[];
    trigger record;
    found_some boolean;
BEGIN
    IF EXISTS (SELECT FROM loyalty.attachment q JOIN pg_partition_ancestors(detach.relation) t ON t.relid IN (q.relation, q.lines_relation) AND t.relid <> detach.relation) THEN
        RAISE EXCEPTION 'table % is a partition of an attached table', relation USING ERRCODE = 'LY503', HINT = 'Detach that table, or detach the partition from it first.';
    END IF;
    SELECT array_agg(DISTINCT coalesce(t.relid, x.relid)) INTO tables
        FROM (SELECT detach.relation UNION SELECT q.lines_relation::regclass FROM loyalty.attachment q WHERE q.relation = detach.relation) x (relid)
             LEFT JOIN LATERAL pg_partition_tree(x.relid) t ON true WHERE x.relid IS NOT NULL;
    DELETE FROM loyalty.attachment q WHERE q.relation = detach.relation;
    found_some := FOUND;
    -- also what a partition keeps that was taken out of its table
    FOR trigger IN SELECT g.tgrelid::regclass AS relation, g.tgname AS name FROM pg_trigger g
                   WHERE g.tgfoid = 'loyalty.receive()'::regprocedure AND g.tgrelid = ANY (tables) LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger.name, trigger.relation);
        found_some := true;
    END LOOP;
    IF NOT found_some THEN
        RAISE EXCEPTION 'table % is not attached', relation USING ERRCODE = 'LY503';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION loyalty.detach(regclass) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.detach(regclass) IS 'Lets go of a table, or of a partition that was taken out of an attached one; what its rows earned stays';

CREATE FUNCTION loyalty.detach_source(source text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a loyalty.attachment;
    trigger record;
BEGIN
    SELECT * INTO a FROM loyalty.attachment q WHERE q.source = detach_source.source;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no table is attached as source "%"', source USING ERRCODE = 'LY503', HINT = 'loyalty.attachment lists the sources.';
    END IF;
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = a.relation) THEN
        RAISE EXCEPTION 'table % of source "%" is there', a.relation, source USING ERRCODE = 'LY503', HINT = 'loyalty.detach lets go of it.';
    END IF;
    DELETE FROM loyalty.attachment q WHERE q.attachment_id = a.attachment_id;
    FOR trigger IN SELECT g.tgrelid::regclass AS relation, g.tgname AS name FROM pg_class c LEFT JOIN LATERAL pg_partition_tree(c.oid) t ON true
                       JOIN pg_trigger g ON g.tgrelid = coalesce(t.relid, c.oid)
                   WHERE c.oid = a.lines_relation AND g.tgfoid = 'loyalty.receive()'::regprocedure LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger.name, trigger.relation);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION loyalty.detach_source(text) FROM PUBLIC;
COMMENT ON FUNCTION loyalty.detach_source(text) IS 'Lets go of an attached table that is not there any more, and of the table of its lines';
