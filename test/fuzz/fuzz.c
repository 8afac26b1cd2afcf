/*
 * fuzz.c
 *	  libFuzzer inside a backend: what it makes up becomes the parameter of a
 *	  query, and coverage of the extension's own code guides it.
 *
 * Built into a copy of the extension by test/fuzz/run, never into an installed
 * one.  Every input runs in a subtransaction of its own.  What must not happen
 * ends the process, so that libFuzzer keeps the input: a signal, undefined
 * behaviour, an error of class XX or of no class, a law that comes out false,
 * and memory that a query leaves behind.
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

/* what a thousand inputs may leave in the backend's caches */
#define LEAK_BYTES (64 * 1024 * 1024)

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*callback) (const uint8_t *data, size_t size));

static SPIPlanPtr plan;
static Oid	parameter;			/* BYTEAOID, TEXTOID, or of the type to receive */
static bool receives;
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
 * or 'receive', and then the query is a type's name.  Ends the backend.
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
	parameter = receives ? typenameTypeId(NULL, typeStringToTypeName(what)) :
		strcmp(how, "text") == 0 ? TEXTOID : BYTEAOID;
	if (!receives)
	{
		plan = SPI_prepare(what, 1, &parameter);
		if (plan == NULL)
			elog(ERROR, "the query does not parse");
		SPI_keepplan(plan);
	}
	exit(LLVMFuzzerRunDriver(&argc, &argv, try_input));
}
