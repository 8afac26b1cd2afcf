/*
 * fuzz.c
 *	  libFuzzer inside a backend: what it makes up becomes the parameter of a
 *	  query, and coverage of the extension's own code guides it.
 *
 * Built into a copy of the extension by test/fuzz/run, never into an installed
 * one.  Every input runs in a subtransaction of its own.  What must not happen
 * ends the process, so that libFuzzer keeps the input: a signal, undefined
 * behaviour, an error of class XX or of no class, a law that comes out false,
 * and memory that a query leaves behind.  Proofs are judged without a query:
 * what is accepted must be what is in the tree.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "merkle.h"

/* what a thousand inputs may leave in the backend's caches */
#define LEAK_BYTES (64 * 1024 * 1024)

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*callback) (const uint8_t *data, size_t size));

static SPIPlanPtr plan;
static Oid	parameter;			/* BYTEAOID, TEXTOID, or of the type to receive */
static bool receives;
static bool proves;
static MemoryContext scratch;
static Size memory_at_start;
static int64 inputs;

/* End the process with what went wrong; libFuzzer keeps the input. */
static void
fail(const char *why, const char *what)
{
	fprintf(stderr, "fuzz: %s: %s\n", why, what);
	abort();
}

/* Receive the input as a value of the type, and send that again: the form is canonical. */
static void
receive(const uint8_t *data, size_t size)
{
	StringInfoData in;
	Oid			function;
	Oid			io_parameter;
	bool		varlena;
	bytea	   *sent;
	Datum		value;

	initStringInfo(&in);
	appendBinaryStringInfo(&in, (const char *) data, (int) size);
	getTypeBinaryInputInfo(parameter, &function, &io_parameter);
	value = OidReceiveFunctionCall(function, &in, io_parameter, -1);
	getTypeBinaryOutputInfo(parameter, &function, &varlena);
	sent = OidSendFunctionCall(function, value);
	if ((size_t) VARSIZE_ANY_EXHDR(sent) != size || memcmp(VARDATA_ANY(sent), data, size) != 0)
		fail("not canonical", "other bytes were sent than received");
}

/* Run the query; its first column, where boolean, must not be false. */
static void
query(const uint8_t *data, size_t size)
{
	Datum		value = PointerGetDatum(cstring_to_text_with_len((const char *) data, (int) size));
	Datum		result;
	bool		isnull;

	if (SPI_execute_plan(plan, &value, NULL, false, 0) < 0)
		fail("the query does not run", "");
	if (SPI_processed > 0 && SPI_gettypeid(SPI_tuptable->tupdesc, 1) == BOOLOID)
	{
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull && !DatumGetBool(result))
			fail("a law does not hold", "");
	}
}

/* ------------------------------------------------------------------------
 * Proofs: the verifications themselves, on trees of up to so many leaves
 * ------------------------------------------------------------------------ */

#define LEAVES 16
#define RANGES (LEAVES * (LEAVES + 1) / 2)

static MerkleHash leaf[LEAVES];
static MerkleHash range[RANGES];	/* the roots over all ranges of leaves */

/* The leaves are those of the array. */
static bool
fetch_leaf(void *source, int level, int64 number, MerkleHash *hash)
{
	if (level == 0)
		*hash = leaf[number];
	return level == 0;
}

static const MerkleTree tree = {NULL, fetch_leaf};

/* Make the leaves and the roots over all ranges of them, once. */
static void
make_ranges(void)
{
	static bool made = false;
	int			n = 0;

	if (made)
		return;
	made = true;
	for (uint8 i = 0; i < LEAVES; i++)
		merkle_leaf(&i, 1, &leaf[i]);
	for (int first = 0; first < LEAVES; first++)
		for (int size = 1; first + size <= LEAVES; size++)
			merkle_root(&tree, first, size, &range[n++]);
}

/* Take the next bytes of the input, zeroes behind its end. */
static uint64
take(const uint8_t **data, size_t *size, int bytes)
{
	uint64		value = 0;

	while (bytes-- > 0)
	{
		value <<= 8;
		if (*size == 0)
			continue;
		value |= *(*data)++;
		(*size)--;
	}
	return value;
}

/* Take a hash: of a range, or one with another first byte; false for the latter. */
static bool
take_hash(const uint8_t **data, size_t *size, MerkleHash *hash)
{
	uint8		other;

	*hash = range[take(data, size, 1) % RANGES];
	other = (uint8) take(data, size, 1);
	hash->bytes[0] ^= other;
	return other == 0;
}

/* What is accepted must be what the tree has, and what it has must be accepted. */
static void
prove(const uint8_t *data, size_t size)
{
	uint8		kind = (uint8) take(&data, &size, 1);
	int			n = 1 + (int) (take(&data, &size, 1) % LEAVES);
	int64		at = kind & 2 ? (int64) take(&data, &size, 8) : (int64) (take(&data, &size, 1) % (n + 1));
	int64		of = kind & 4 ? (int64) take(&data, &size, 8) : n;
	int			claimed = 0;
	int			right = 0;
	bool		genuine;
	bool		accepted;
	MerkleHash	hash;
	MerkleHash	root;
	MerkleHash	expected;
	MerkleHash	path[MERKLE_MAX_PATH + 2];
	MerkleHash	genuine_path[MERKLE_MAX_PATH];
	bool		inclusion = (kind & 1) == 0;

	make_ranges();
	merkle_root(&tree, 0, n, &root);
	genuine = take_hash(&data, &size, &hash);
	while (size > 0 && claimed < lengthof(path))
		take_hash(&data, &size, &path[claimed++]);
	accepted = inclusion ? merkle_verify_inclusion(&hash, at, of, path, claimed, &root) :
		merkle_verify_consistency(at, of, path, claimed, &hash, &root);
	if (accepted && !genuine && !(at == 0 && !inclusion))
		fail("proof", "of a hash that the tree has not");
	if (of != n || at < 0 || at > n || (inclusion ? at == n : at == 0))
		return;
	if (inclusion)
	{
		right = merkle_inclusion(&tree, at, n, genuine_path);
		expected = leaf[at];
	}
	else
	{
		right = merkle_consistency(&tree, at, n, genuine_path);
		merkle_root(&tree, 0, at, &expected);
	}
	genuine = claimed == right && memcmp(&hash, &expected, sizeof(MerkleHash)) == 0 &&
		memcmp(path, genuine_path, sizeof(MerkleHash) * right) == 0;
	if (accepted != genuine)
		fail("proof", accepted ? "a false one was accepted" : "a true one was refused");
}

/* Tell an error that a caller may make from one that must not happen. */
static void
judge(ErrorData *error)
{
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTERNAL_ERROR || error->elevel > ERROR)
		fail(unpack_sql_state(error->sqlerrcode), error->message);
}

/* See that nothing piles up. */
static void
watch_memory(void)
{
	Size		now;

	if (++inputs % 1000 != 0)
		return;
	CHECK_FOR_INTERRUPTS();
	now = MemoryContextMemAllocated(TopMemoryContext, true);
	if (inputs == 1000)
		memory_at_start = now;
	else if (now > memory_at_start + LEAK_BYTES)
		fail("memory", "what earlier inputs left");
}

/* Give one input to the backend. */
static int
try_input(const uint8_t *data, size_t size)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = CurrentMemoryContext;

	if (parameter == TEXTOID && (memchr(data, 0, size) != NULL ||
								 !pg_verifymbstr((const char *) data, (int) size, true)))
		return -1;
	if (proves)
	{
		prove(data, size);
		watch_memory();
		return 0;
	}
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(scratch);
	PG_TRY();
	{
		if (receives)
			receive(data, size);
		else
			query(data, size);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(scratch);
		error = CopyErrorData();
		FlushErrorState();
		judge(error);
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	MemoryContextReset(scratch);
	watch_memory();
	return 0;
}

/* The words of a text[], as a C program's arguments. */
static char **
arguments(ArrayType *array, int *argc)
{
	Datum	   *words;
	char	  **argv;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &words, NULL, argc);
	argv = palloc(sizeof(char *) * (*argc + 2));
	argv[0] = "fuzz";
	for (int i = 0; i < *argc; i++)
		argv[i + 1] = TextDatumGetCString(words[i]);
	argv[++(*argc)] = NULL;
	return argv;
}

PG_FUNCTION_INFO_V1(loyalty_fuzz);

/*
 * fuzz(how, query, arguments): how is 'text' or 'bytea', the parameter's type,
 * or 'receive', and then the query is a type's name, or 'proof', and then there
 * is no query.  Ends the backend.
 */
Datum
loyalty_fuzz(PG_FUNCTION_ARGS)
{
	char	   *how = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *what = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int			argc;
	char	  **argv = arguments(PG_GETARG_ARRAYTYPE_P(2), &argc);

	SPI_connect();
	scratch = AllocSetContextCreate(TopMemoryContext, "fuzz input", ALLOCSET_DEFAULT_SIZES);
	receives = strcmp(how, "receive") == 0;
	proves = strcmp(how, "proof") == 0;
	parameter = receives ? typenameTypeId(NULL, typeStringToTypeName(what)) :
		strcmp(how, "text") == 0 ? TEXTOID : BYTEAOID;
	if (!receives && !proves)
	{
		plan = SPI_prepare(what, 1, &parameter);
		if (plan == NULL)
			elog(ERROR, "the query does not parse");
		SPI_keepplan(plan);
	}
	exit(LLVMFuzzerRunDriver(&argc, &argv, try_input));
}
