/*
 * checkpoint: signed states of the whole ledger, and proofs against them.
 *
 * The leaves are an append-only list: every seal() appends, for each account
 * with new entries, one leaf (account, entries from and to, head, points, and
 * the root of a small tree over the new entries), in order of account_id.  A
 * checkpoint signs the root over the first size leaves.  An account's entries
 * commit in order of seq, for its row is locked: a snapshot sees all up to
 * account.seq, and what is still under way comes with a later checkpoint.
 */
CREATE TABLE loyalty.checkpoint (
    size          bigint PRIMARY KEY CHECK (size > 0),
    root          bytea NOT NULL,
    previous_size bigint NOT NULL,
    previous_root bytea NOT NULL,
    sealed_at     timestamptz NOT NULL,
    key_id        integer NOT NULL,
    signature     bytea NOT NULL
);
COMMENT ON TABLE loyalty.checkpoint IS 'Signed roots of the list of leaves. Keep a copy elsewhere: loyalty.export_checkpoint()';
COMMENT ON COLUMN loyalty.checkpoint.size IS 'How many leaves it covers: those numbered from 0 to size - 1';

CREATE TABLE loyalty.checkpoint_leaf (
    number       bigint PRIMARY KEY,
    account_id   bigint NOT NULL,
    first_seq    bigint NOT NULL,
    seq          bigint NOT NULL,
    head         bytea NOT NULL,
    lots         loyalty.lots NOT NULL,
    tally        loyalty.tally NOT NULL,
    entries_root bytea NOT NULL,
    hash         bytea NOT NULL
);
CREATE UNIQUE INDEX checkpoint_leaf_account_id_idx ON loyalty.checkpoint_leaf (account_id, number);
COMMENT ON TABLE loyalty.checkpoint_leaf IS 'What was sealed: the state of an account after its entries from first_seq to seq';
COMMENT ON COLUMN loyalty.checkpoint_leaf.entries_root IS 'Root of the Merkle tree over these entries';

CREATE TABLE loyalty.checkpoint_node (
    level  integer NOT NULL,
    number bigint NOT NULL,
    hash   bytea NOT NULL,
    PRIMARY KEY (level, number)
);
COMMENT ON TABLE loyalty.checkpoint_node IS 'Roots of complete subtrees of 2^level leaves, of every eighth level, so that no proof reads many leaves';

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.checkpoint_leaf
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.checkpoint_node
    FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_change('ledger');

/* ------------------------------------------------------------------------
 * Bytes, roots and paths
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.entry_bytes(previous bytea, entry loyalty.entry) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_entry_bytes';
COMMENT ON FUNCTION loyalty.entry_bytes(bytea, loyalty.entry) IS 'The canonical bytes of an entry behind the previous hash, and its hash';
REVOKE ALL ON FUNCTION loyalty.entry_bytes(bytea, loyalty.entry) FROM PUBLIC;

CREATE FUNCTION loyalty.merkle_root(leaves bytea[]) RETURNS bytea
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_merkle_root';
COMMENT ON FUNCTION loyalty.merkle_root(bytea[]) IS 'Root of the Merkle tree (RFC 6962) over hashes of leaves';
REVOKE ALL ON FUNCTION loyalty.merkle_root(bytea[]) FROM PUBLIC;

CREATE FUNCTION loyalty.merkle_path(leaves bytea[], leaf bigint) RETURNS bytea[]
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_merkle_path';
COMMENT ON FUNCTION loyalty.merkle_path(bytea[], bigint) IS 'The hashes that lead from a leaf, counted from 0, to the root; NULL where there is no such leaf';
REVOKE ALL ON FUNCTION loyalty.merkle_path(bytea[], bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.tree_root(start bigint, size bigint) RETURNS bytea
    LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tree_root';
COMMENT ON FUNCTION loyalty.tree_root(bigint, bigint) IS 'Root over leaves of checkpoints';
REVOKE ALL ON FUNCTION loyalty.tree_root(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.tree_path(leaf bigint, size bigint) RETURNS bytea[]
    LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tree_path';
COMMENT ON FUNCTION loyalty.tree_path(bigint, bigint) IS 'The hashes that lead from a leaf of checkpoints to the root of the first so many';
REVOKE ALL ON FUNCTION loyalty.tree_path(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.tree_consistency(old_size bigint, size bigint) RETURNS bytea[]
    LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_tree_consistency';
COMMENT ON FUNCTION loyalty.tree_consistency(bigint, bigint) IS 'The hashes that prove that the first old_size leaves are the beginning of the first size';
REVOKE ALL ON FUNCTION loyalty.tree_consistency(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.sign_checkpoint(bytes bytea, key_id integer) RETURNS bytea
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'loyalty_sign_checkpoint';
COMMENT ON FUNCTION loyalty.sign_checkpoint(bytea, integer) IS 'The signature of a checkpoint''s bytes';
REVOKE ALL ON FUNCTION loyalty.sign_checkpoint(bytea, integer) FROM PUBLIC;

CREATE FUNCTION loyalty.is_signed(bytes bytea, signature bytea, public_key bytea) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'loyalty_is_signed';
COMMENT ON FUNCTION loyalty.is_signed(bytea, bytea, bytea) IS 'Whether a key signed a checkpoint''s bytes';
REVOKE ALL ON FUNCTION loyalty.is_signed(bytea, bytea, bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.merkle_leaf(bytes bytea) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT sha256(E'\\x00'::bytea || bytes) $$;
COMMENT ON FUNCTION loyalty.merkle_leaf(bytea) IS 'Hash of a leaf (RFC 6962)';
REVOKE ALL ON FUNCTION loyalty.merkle_leaf(bytea) FROM PUBLIC;

CREATE FUNCTION loyalty.checkpoint_bytes(c loyalty.checkpoint) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT int8send(c.size) || c.root || int8send(c.previous_size) || c.previous_root || timestamptz_send(c.sealed_at) || int4send(c.key_id) $$;
COMMENT ON FUNCTION loyalty.checkpoint_bytes(loyalty.checkpoint) IS 'What the signature of a checkpoint covers: size, root, previous size and root, time (microseconds since 2000), number of the key';
REVOKE ALL ON FUNCTION loyalty.checkpoint_bytes(loyalty.checkpoint) FROM PUBLIC;

CREATE FUNCTION loyalty.leaf_bytes(l loyalty.checkpoint_leaf) RETURNS bytea
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT convert_to('loyalty.leaf.v1', 'UTF8') || E'\\x00'::bytea || int8send(l.account_id) || int8send(l.first_seq) || int8send(l.seq) || int4send(length(l.head)) || l.head
        || int8send(loyalty.total(l.lots)) || sha256(loyalty.lots_send(l.lots)) || sha256(loyalty.tally_send(l.tally)) || l.entries_root
    $$;
COMMENT ON FUNCTION loyalty.leaf_bytes(loyalty.checkpoint_leaf) IS 'What a leaf''s hash covers: account, first and last entry, head, points, digests of lots and tally, root over the entries';
REVOKE ALL ON FUNCTION loyalty.leaf_bytes(loyalty.checkpoint_leaf) FROM PUBLIC;

CREATE FUNCTION loyalty.entry_leaves(account_id bigint, first_seq bigint, last_seq bigint) RETURNS bytea[]
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(loyalty.merkle_leaf(loyalty.entry_bytes(x.previous, x.entry)) ORDER BY x.seq) FILTER (WHERE x.seq >= first_seq), '{}')
    FROM (SELECT n.seq, n.entry, lag(n.hash) OVER (ORDER BY n.seq) AS previous
          FROM (SELECT entry, entry.* FROM loyalty.entry) AS n (entry)
          WHERE n.account_id = entry_leaves.account_id AND n.seq BETWEEN first_seq - 1 AND last_seq) x
$$;
COMMENT ON FUNCTION loyalty.entry_leaves(bigint, bigint, bigint) IS 'The hashes of entries of an account as leaves of a tree';
REVOKE ALL ON FUNCTION loyalty.entry_leaves(bigint, bigint, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Sealing
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.seal_batch(above bigint, batch integer, OUT last bigint, OUT leaves bigint, OUT refused bigint)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    c loyalty.checkpoint;
    broken record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('loyalty.seal', 0));
    SELECT k.size, k.root INTO c.previous_size, c.previous_root FROM loyalty.checkpoint k ORDER BY k.size DESC LIMIT 1;
    c.previous_size := coalesce(c.previous_size, 0);
    c.previous_root := coalesce(c.previous_root, sha256(''));
    c.key_id := loyalty.signing_key();
    c.sealed_at := clock_timestamp();
    -- one statement, so that all of it sees one snapshot
    WITH due AS MATERIALIZED (
        SELECT a.account_id, a.seq, a.head, a.lots, a.tally, coalesce(l.seq, 0) + 1 AS first_seq
        FROM loyalty.account a
            LEFT JOIN LATERAL (SELECT k.seq FROM loyalty.checkpoint_leaf k WHERE k.account_id = a.account_id ORDER BY k.number DESC LIMIT 1) l ON true
        WHERE a.account_id > above AND a.seq <> coalesce(l.seq, 0)
        ORDER BY a.account_id LIMIT batch),
    -- entries that were chained without a key, where a key file was not there, are sealed as they are
    bad AS MATERIALIZED (
        SELECT v.account_id FROM (SELECT min(d.account_id) AS first, max(d.account_id) AS last FROM due d) x, loyalty.verify_accounts(x.first, x.last, 'infinity', true) v
        WHERE x.first IS NOT NULL),
    good AS (
        SELECT c.previous_size + row_number() OVER (ORDER BY d.account_id) - 1 AS number, d.account_id, d.first_seq, d.seq, d.head, d.lots, d.tally,
               loyalty.merkle_root(loyalty.entry_leaves(d.account_id, d.first_seq, d.seq)) AS entries_root
        FROM due d WHERE d.seq >= d.first_seq AND NOT EXISTS (SELECT FROM bad b WHERE b.account_id = d.account_id)),
    written AS (
        INSERT INTO loyalty.checkpoint_leaf
            SELECT g.number, g.account_id, g.first_seq, g.seq, g.head, g.lots, g.tally, g.entries_root,
                   loyalty.merkle_leaf(loyalty.leaf_bytes(ROW(g.number, g.account_id, g.first_seq, g.seq, g.head, g.lots, g.tally, g.entries_root, '')::loyalty.checkpoint_leaf))
            FROM good g
        RETURNING 1)
    SELECT (SELECT max(d.account_id) FROM due d), (SELECT count(*) FROM written), (SELECT count(DISTINCT b.account_id) FROM bad b) INTO last, leaves, refused;
    IF leaves = 0 THEN
        RETURN;
    END IF;
    c.size := c.previous_size + leaves;
    FOR level IN 8 .. 56 BY 8 LOOP
        INSERT INTO loyalty.checkpoint_node (level, number, hash)
            SELECT level, n, loyalty.tree_root(n << level, 1::bigint << level) FROM generate_series(c.previous_size >> level, (c.size >> level) - 1) n;
    END LOOP;
    c.root := loyalty.tree_root(0, c.size);
    c.signature := loyalty.sign_checkpoint(loyalty.checkpoint_bytes(c), c.key_id);
    INSERT INTO loyalty.checkpoint VALUES (c.*);
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'somebody else sealed meanwhile' USING ERRCODE = '40001', HINT = 'Seal at READ COMMITTED, or try again.';
END
$$;
COMMENT ON FUNCTION loyalty.seal_batch(bigint, integer) IS 'Seals accounts above a number that have new entries; returns the last of them, NULL where there is none. A part of seal()';
REVOKE ALL ON FUNCTION loyalty.seal_batch(bigint, integer) FROM PUBLIC;

CREATE PROCEDURE loyalty.seal(batch integer DEFAULT 10000)
    LANGUAGE plpgsql
AS $$
DECLARE
    above bigint := 0;
    done record;
    sealed bigint := 0;
    refused bigint := 0;
BEGIN
    IF batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'batch must be at least 1' USING ERRCODE = '22023';
    END IF;
    LOOP
        SELECT * INTO done FROM loyalty.seal_batch(above, batch);
        EXIT WHEN done.last IS NULL;
        above := done.last;
        sealed := sealed + done.leaves;
        refused := refused + done.refused;
        COMMIT;
    END LOOP;
    IF refused > 0 THEN
        RAISE WARNING 'seal: % accounts are broken and were left out', refused USING HINT = 'loyalty.verify() names what is wrong with each.';
    END IF;
    RAISE NOTICE 'seal: sealed % accounts', sealed;
END
$$;
COMMENT ON PROCEDURE loyalty.seal(integer) IS 'Seals every account that has new entries, so many a transaction, each with a signed checkpoint of its own. Waits for nobody and nobody waits for it; an account that verify() finds broken is left out. Needs a key that signs';
REVOKE ALL ON PROCEDURE loyalty.seal(integer) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * Proofs, as JSON for whoever has no server
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.find_checkpoint(size bigint) RETURNS loyalty.checkpoint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c loyalty.checkpoint;
BEGIN
    SELECT k.* INTO c FROM loyalty.checkpoint k WHERE find_checkpoint.size IS NULL OR k.size = find_checkpoint.size ORDER BY k.size DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no checkpoint%', coalesce(' of size ' || size, '') USING ERRCODE = 'LY904', HINT = 'CALL loyalty.seal() makes one.';
    END IF;
    RETURN c;
END
$$;
COMMENT ON FUNCTION loyalty.find_checkpoint(bigint) IS 'The checkpoint of a size, or the last one; LY904 where there is none';
REVOKE ALL ON FUNCTION loyalty.find_checkpoint(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.checkpoint_json(c loyalty.checkpoint) RETURNS jsonb
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
    SELECT jsonb_build_object('size', c.size, 'root', encode(c.root, 'hex'), 'previous_size', c.previous_size, 'previous_root', encode(c.previous_root, 'hex'),
        'sealed_at', c.sealed_at, 'key_id', c.key_id, 'bytes', encode(loyalty.checkpoint_bytes(c), 'hex'), 'signature', encode(c.signature, 'hex'))
$$;
COMMENT ON FUNCTION loyalty.checkpoint_json(loyalty.checkpoint) IS 'A checkpoint as JSON';
REVOKE ALL ON FUNCTION loyalty.checkpoint_json(loyalty.checkpoint) FROM PUBLIC;

CREATE FUNCTION loyalty.export_checkpoint(size bigint DEFAULT NULL) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT jsonb_build_object('kind', 'checkpoint', 'checkpoint', loyalty.checkpoint_json(loyalty.find_checkpoint(size))) $$;
COMMENT ON FUNCTION loyalty.export_checkpoint(bigint) IS 'A checkpoint to keep elsewhere: of a size, or the last one';
REVOKE ALL ON FUNCTION loyalty.export_checkpoint(bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.hex_path(path bytea[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT coalesce(jsonb_agg(encode(p.hash, 'hex') ORDER BY p.n), '[]') FROM unnest(path) WITH ORDINALITY p (hash, n) $$;
COMMENT ON FUNCTION loyalty.hex_path(bytea[]) IS 'Hashes as JSON';
REVOKE ALL ON FUNCTION loyalty.hex_path(bytea[]) FROM PUBLIC;

CREATE FUNCTION loyalty.leaf_proof(l loyalty.checkpoint_leaf, c loyalty.checkpoint) RETURNS jsonb
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object('checkpoint', loyalty.checkpoint_json(c),
        'leaf', jsonb_build_object('number', l.number, 'bytes', encode(loyalty.leaf_bytes(l), 'hex'), 'path', loyalty.hex_path(loyalty.tree_path(l.number, c.size))))
$$;
COMMENT ON FUNCTION loyalty.leaf_proof(loyalty.checkpoint_leaf, loyalty.checkpoint) IS 'That a leaf is in a checkpoint, as JSON';
REVOKE ALL ON FUNCTION loyalty.leaf_proof(loyalty.checkpoint_leaf, loyalty.checkpoint) FROM PUBLIC;

CREATE FUNCTION loyalty.inclusion_proof(account_id bigint, seq bigint, size bigint DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c loyalty.checkpoint := loyalty.find_checkpoint(inclusion_proof.size);
    l loyalty.checkpoint_leaf;
    bytes bytea;
    leaves bytea[];
BEGIN
    SELECT k.* INTO l FROM loyalty.checkpoint_leaf k
        WHERE k.account_id = inclusion_proof.account_id AND k.number < c.size AND inclusion_proof.seq BETWEEN k.first_seq AND k.seq ORDER BY k.number LIMIT 1;
    SELECT loyalty.entry_bytes(p.hash, e) INTO bytes
        FROM loyalty.entry e LEFT JOIN loyalty.entry p ON p.account_id = e.account_id AND p.seq = e.seq - 1
        WHERE e.account_id = inclusion_proof.account_id AND e.seq = inclusion_proof.seq;
    IF l.number IS NULL OR bytes IS NULL THEN
        RAISE EXCEPTION 'entry % of account % is not in the checkpoint of size %', inclusion_proof.seq, inclusion_proof.account_id, c.size
            USING ERRCODE = 'LY904', HINT = 'What was posted since is in the next one: CALL loyalty.seal().';
    END IF;
    leaves := loyalty.entry_leaves(l.account_id, l.first_seq, l.seq);
    RETURN loyalty.leaf_proof(l, c) || jsonb_build_object('kind', 'entry', 'entry', jsonb_build_object(
        'account_id', l.account_id, 'seq', inclusion_proof.seq, 'bytes', encode(bytes, 'hex'),
        'number', inclusion_proof.seq - l.first_seq, 'of', l.seq - l.first_seq + 1,
        'path', loyalty.hex_path(loyalty.merkle_path(leaves, inclusion_proof.seq - l.first_seq))));
END
$$;
COMMENT ON FUNCTION loyalty.inclusion_proof(bigint, bigint, bigint) IS 'That an entry is in a checkpoint (of a size, or the last one), as JSON';
REVOKE ALL ON FUNCTION loyalty.inclusion_proof(bigint, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.balance_proof(member_id bigint, size bigint DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c loyalty.checkpoint := loyalty.find_checkpoint(balance_proof.size);
    m loyalty.member := loyalty.require_member(balance_proof.member_id);
    l loyalty.checkpoint_leaf;
BEGIN
    SELECT k.* INTO l FROM loyalty.checkpoint_leaf k WHERE k.account_id = loyalty.account_of(m.member_id) AND k.number < c.size ORDER BY k.number DESC LIMIT 1;
    IF l.number IS NULL THEN
        RAISE EXCEPTION 'member % is not in the checkpoint of size %', m.member_id, c.size
            USING ERRCODE = 'LY904', HINT = 'What was posted since is in the next one: CALL loyalty.seal().';
    END IF;
    RETURN loyalty.leaf_proof(l, c) || jsonb_build_object('kind', 'balance', 'account_id', l.account_id, 'seq', l.seq, 'points', loyalty.total(l.lots));
END
$$;
COMMENT ON FUNCTION loyalty.balance_proof(bigint, bigint) IS 'That a member''s account had so many points in a checkpoint (of a size, or the last one), as JSON';
REVOKE ALL ON FUNCTION loyalty.balance_proof(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION loyalty.consistency_proof(old_size bigint, new_size bigint DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o loyalty.checkpoint := loyalty.find_checkpoint(old_size);
    n loyalty.checkpoint := loyalty.find_checkpoint(new_size);
BEGIN
    IF old_size IS NULL OR o.size > n.size THEN
        RAISE EXCEPTION 'the older checkpoint comes first' USING ERRCODE = 'LY904', DETAIL = format('Sizes are %s and %s.', old_size, n.size);
    END IF;
    RETURN jsonb_build_object('kind', 'consistency', 'old', loyalty.checkpoint_json(o), 'checkpoint', loyalty.checkpoint_json(n),
        'path', loyalty.hex_path(loyalty.tree_consistency(o.size, n.size)));
END
$$;
COMMENT ON FUNCTION loyalty.consistency_proof(bigint, bigint) IS 'That one checkpoint has all that an older one had, and only more, as JSON';
REVOKE ALL ON FUNCTION loyalty.consistency_proof(bigint, bigint) FROM PUBLIC;

/* ------------------------------------------------------------------------
 * The books against what was sealed
 * ------------------------------------------------------------------------ */

CREATE FUNCTION loyalty.verify_sealed(kept jsonb DEFAULT NULL) RETURNS TABLE (account_id bigint, seq bigint, problem text, detail text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
    WITH k AS (
        SELECT (kept -> 'checkpoint' ->> 'size')::bigint AS size, decode(kept -> 'checkpoint' ->> 'root', 'hex') AS root WHERE kept IS NOT NULL),
    wrong AS (
        SELECT DISTINCT ON (l.account_id) l.account_id, l.seq,
               CASE WHEN l.hash <> loyalty.merkle_leaf(loyalty.leaf_bytes(l)) THEN 'leaf' WHEN e.account_id IS NULL THEN 'cut' ELSE 'rewritten' END AS problem
        FROM loyalty.checkpoint_leaf l LEFT JOIN loyalty.entry e ON e.account_id = l.account_id AND e.seq = l.seq
        WHERE l.hash <> loyalty.merkle_leaf(loyalty.leaf_bytes(l)) OR e.hash IS DISTINCT FROM l.head
        ORDER BY l.account_id, l.number)
    SELECT w.account_id, w.seq, w.problem,
           CASE w.problem WHEN 'leaf' THEN 'What was sealed of it was changed.' WHEN 'cut' THEN 'It was sealed and is missing.' ELSE 'It is not what was sealed.' END FROM wrong w
    UNION ALL
    SELECT NULL, NULL, 'kept checkpoint', CASE WHEN cardinality(s.leaves) = k.size THEN format('The first %s leaves are not those of the checkpoint that was kept.', k.size)
                                               ELSE format('Of the %s leaves of the checkpoint that was kept there are %s.', k.size, coalesce(cardinality(s.leaves), 0)) END
        FROM k, LATERAL (SELECT array_agg(loyalty.merkle_leaf(loyalty.leaf_bytes(l)) ORDER BY l.number) AS leaves FROM loyalty.checkpoint_leaf l WHERE l.number BETWEEN 0 AND k.size - 1) s
        WHERE cardinality(s.leaves) IS DISTINCT FROM k.size OR loyalty.merkle_root(s.leaves) IS DISTINCT FROM k.root
    UNION ALL
    SELECT NULL, NULL, 'checkpoint', format('The checkpoint of size %s is not %s.', c.size, CASE WHEN s.signed THEN 'the root of its leaves, or does not follow the one before' ELSE 'signed by the key that it names' END)
        FROM (SELECT h.*, lag(h.size, 1, 0::bigint) OVER (ORDER BY h.size) AS before_size, lag(h.root, 1, sha256('')) OVER (ORDER BY h.size) AS before_root FROM loyalty.checkpoint h) c
            CROSS JOIN LATERAL (SELECT coalesce((SELECT loyalty.is_signed(loyalty.checkpoint_bytes(ROW(c.size, c.root, c.previous_size, c.previous_root, c.sealed_at, c.key_id, c.signature)::loyalty.checkpoint), c.signature, v.public_key)
                                                 FROM loyalty.voucher_key v WHERE v.key_id = c.key_id), false) AS signed) s
        WHERE NOT s.signed OR c.previous_size <> c.before_size OR c.previous_root <> c.before_root
              OR CASE WHEN c.size = (SELECT count(*) FROM loyalty.checkpoint_leaf l WHERE l.number BETWEEN 0 AND c.size - 1) THEN loyalty.tree_root(0, c.size) <> c.root ELSE true END
$$;
COMMENT ON FUNCTION loyalty.verify_sealed(jsonb) IS 'What was sealed and is not so any more: the first entry of each account, checkpoints that are not right; with a checkpoint that was kept elsewhere (export_checkpoint) also whether the books still contain it. No row when all is well';
REVOKE ALL ON FUNCTION loyalty.verify_sealed(jsonb) FROM PUBLIC;
