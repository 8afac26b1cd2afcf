/*
 * checkpoint.c
 *	  Signed checkpoints of the ledger: Merkle trees over what SQL keeps.
 *
 * SQL (sql/72-checkpoint.sql) decides what is sealed and writes it; here its
 * roots and paths are computed, from leaves and from those inner nodes that
 * are kept, and checkpoints are signed.  Reads in the snapshot of the calling
 * query; writes nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "errors.h"
#include "keys.h"
#include "merkle.h"

#define KEPT_LEVELS 8			/* of every so many levels one is kept */
#define CHECKPOINT_DOMAIN "loyalty checkpoint v1"

/* Make a bytea. */
static Datum
bytes_datum(const void *bytes, size_t length)
{
	bytea	   *result = palloc(VARHDRSZ + length);

	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), bytes, length);
	return PointerGetDatum(result);
}

/* Make an array of hashes. */
static Datum
path_datum(const MerkleHash *path, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = bytes_datum(path[i].bytes, MERKLE_HASH_BYTES);
	return PointerGetDatum(construct_array(elements, n, BYTEAOID, -1, false, TYPALIGN_INT));
}

/* Copy a hash out of a bytea. */
static void
copy_hash(Datum value, MerkleHash *hash)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

	if (VARSIZE_ANY_EXHDR(bytes) != MERKLE_HASH_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_LY_BROKEN_BOOKS),
				 errmsg("a node of the checkpoints' tree is no hash")));
	memcpy(hash->bytes, VARDATA_ANY(bytes), MERKLE_HASH_BYTES);
}

/* ------------------------------------------------------------------------
 * A tree in an array
 * ------------------------------------------------------------------------ */

/* Take a leaf of an array. */
static bool
fetch_from_array(void *source, int level, int64 number, MerkleHash *hash)
{
	if (level == 0)
		*hash = ((MerkleHash *) source)[number];
	return level == 0;
}

/* Take the leaves of an array; returns how many. */
static int
take_leaves(ArrayType *array, MerkleHash **leaves)
{
	Datum	   *elements;
	int			n;

	if (array_contains_nulls(array))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a hash is null")));
	deconstruct_array(array, BYTEAOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	*leaves = palloc(sizeof(MerkleHash) * Max(n, 1));
	for (int i = 0; i < n; i++)
		copy_hash(elements[i], &(*leaves)[i]);
	return n;
}

PG_FUNCTION_INFO_V1(loyalty_merkle_root);

/* merkle_root(leaves): the root over hashes of leaves. */
Datum
loyalty_merkle_root(PG_FUNCTION_ARGS)
{
	MerkleTree	tree = {NULL, fetch_from_array};
	MerkleHash *leaves;
	MerkleHash	root;
	int			n = take_leaves(PG_GETARG_ARRAYTYPE_P(0), &leaves);

	tree.source = leaves;
	merkle_root(&tree, 0, n, &root);
	return bytes_datum(root.bytes, MERKLE_HASH_BYTES);
}

PG_FUNCTION_INFO_V1(loyalty_merkle_path);

/* merkle_path(leaves, leaf): the hashes that lead from a leaf, counted from 0, to the root. */
Datum
loyalty_merkle_path(PG_FUNCTION_ARGS)
{
	MerkleTree	tree = {NULL, fetch_from_array};
	MerkleHash *leaves;
	MerkleHash	path[MERKLE_MAX_PATH];
	int			n = take_leaves(PG_GETARG_ARRAYTYPE_P(0), &leaves);
	int64		leaf = PG_GETARG_INT64(1);

	if (leaf < 0 || leaf >= n)
		PG_RETURN_NULL();
	tree.source = leaves;
	return path_datum(path, merkle_inclusion(&tree, leaf, n, path));
}

/* ------------------------------------------------------------------------
 * The tree of all checkpoints
 * ------------------------------------------------------------------------ */

/* Fetch a node that is kept. */
static bool
fetch_from_tables(void *source, int level, int64 number, MerkleHash *hash)
{
	static SPIPlanPtr plans[2];
	static const char *const queries[2] = {
		"SELECT l.hash FROM loyalty.checkpoint_leaf l WHERE l.number = $2 AND $1 = 0",
		"SELECT n.hash FROM loyalty.checkpoint_node n WHERE n.level = $1 AND n.number = $2"
	};
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2] = {Int32GetDatum(level), Int64GetDatum(number)};
	int			which = level == 0 ? 0 : 1;
	bool		isnull;
	bool		found;

	if (level % KEPT_LEVELS != 0)
		return false;
	if (plans[which] == NULL)
	{
		plans[which] = SPI_prepare(queries[which], 2, types);
		if (plans[which] == NULL)
			elog(ERROR, "could not prepare the reading of checkpoints");
		SPI_keepplan(plans[which]);
	}
	if (SPI_execute_plan(plans[which], values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read checkpoints");
	found = SPI_processed == 1;
	if (found)
		copy_hash(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull), hash);
	SPI_freetuptable(SPI_tuptable);
	if (!found && level == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_BROKEN_BOOKS),
				 errmsg("leaf " INT64_FORMAT " of the checkpoints is missing", number)));
	return found;
}

PG_FUNCTION_INFO_V1(loyalty_tree_root);

/* tree_root(start, size): the root over leaves of the tables. */
Datum
loyalty_tree_root(PG_FUNCTION_ARGS)
{
	MerkleTree	tree = {NULL, fetch_from_tables};
	MerkleHash	root;

	if (PG_GETARG_INT64(0) < 0 || PG_GETARG_INT64(1) < 0)
		PG_RETURN_NULL();
	SPI_connect();
	merkle_root(&tree, PG_GETARG_INT64(0), PG_GETARG_INT64(1), &root);
	SPI_finish();
	return bytes_datum(root.bytes, MERKLE_HASH_BYTES);
}

PG_FUNCTION_INFO_V1(loyalty_tree_path);

/* tree_path(leaf, size): the hashes that lead from a leaf to the root of the first so many. */
Datum
loyalty_tree_path(PG_FUNCTION_ARGS)
{
	MerkleTree	tree = {NULL, fetch_from_tables};
	MerkleHash	path[MERKLE_MAX_PATH];
	int64		leaf = PG_GETARG_INT64(0);
	int64		size = PG_GETARG_INT64(1);
	int			n;

	if (leaf < 0 || leaf >= size)
		PG_RETURN_NULL();
	SPI_connect();
	n = merkle_inclusion(&tree, leaf, size, path);
	SPI_finish();
	return path_datum(path, n);
}

PG_FUNCTION_INFO_V1(loyalty_tree_consistency);

/* tree_consistency(old_size, size): the hashes that prove that nothing but leaves was added. */
Datum
loyalty_tree_consistency(PG_FUNCTION_ARGS)
{
	MerkleTree	tree = {NULL, fetch_from_tables};
	MerkleHash	path[MERKLE_MAX_PATH];
	int64		old_size = PG_GETARG_INT64(0);
	int64		size = PG_GETARG_INT64(1);
	int			n;

	if (old_size < 0 || old_size > size)
		PG_RETURN_NULL();
	SPI_connect();
	n = merkle_consistency(&tree, old_size, size, path);
	SPI_finish();
	return path_datum(path, n);
}

/* ------------------------------------------------------------------------
 * Signatures
 * ------------------------------------------------------------------------ */

/* What is signed: the domain, and the checkpoint's bytes. */
static uint8 *
signed_message(const bytea *checkpoint, size_t *length)
{
	size_t		domain = strlen(CHECKPOINT_DOMAIN);
	size_t		size = VARSIZE_ANY_EXHDR(checkpoint);
	uint8	   *message = palloc(domain + size);

	memcpy(message, CHECKPOINT_DOMAIN, domain);
	memcpy(message + domain, VARDATA_ANY(checkpoint), size);
	*length = domain + size;
	return message;
}

PG_FUNCTION_INFO_V1(loyalty_sign_checkpoint);

/* sign_checkpoint(checkpoint_bytes, key_id): their signature. */
Datum
loyalty_sign_checkpoint(PG_FUNCTION_ARGS)
{
	uint8		signature[SIGNATURE_BYTES];
	size_t		length;
	uint8	   *message = signed_message(PG_GETARG_BYTEA_PP(0), &length);

	KeysSign(PG_GETARG_INT32(1), message, length, signature);
	return bytes_datum(signature, sizeof(signature));
}

PG_FUNCTION_INFO_V1(loyalty_is_signed);

/* is_signed(checkpoint_bytes, signature, public_key): whether the key signed them. */
Datum
loyalty_is_signed(PG_FUNCTION_ARGS)
{
	bytea	   *signature = PG_GETARG_BYTEA_PP(1);
	bytea	   *key = PG_GETARG_BYTEA_PP(2);
	size_t		length;
	uint8	   *message = signed_message(PG_GETARG_BYTEA_PP(0), &length);

	if (VARSIZE_ANY_EXHDR(signature) != SIGNATURE_BYTES || VARSIZE_ANY_EXHDR(key) != SIGNATURE_PUBLIC_BYTES)
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(signature_verify((const uint8 *) VARDATA_ANY(signature), message, length,
									(const uint8 *) VARDATA_ANY(key)));
}
