/*
 * copurchase_type.c
 *	  The base type loyalty.copurchase: text and binary form, + and -, and the
 *	  memory that all statistics of a backend may take together.
 *
 * Thin: counting stands in copurchase.c, the forms in copurchase_form.c.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "copurchase_type.h"
#include "errors.h"

static int	copurchase_memory = 262144; /* kB */
static CopBudget budget;

/* Define the setting. */
void
CopurchaseInit(void)
{
	DefineCustomIntVariable("loyalty.copurchase_memory",
							"Memory that all co-purchase statistics of a backend may take together.",
							"A query that needs more fails; each parallel worker may take as much.",
							&copurchase_memory, 262144, 1024, MAX_KILOBYTES, PGC_USERSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
}

/* The budget, as the setting is now. */
CopBudget *
CopurchaseBudget(void)
{
	budget.limit = (int64) copurchase_memory * 1024;
	return &budget;
}

/* Raise what a pure function reports. */
void
CopurchaseRaise(CoreStatus status)
{
	switch (status)
	{
		case CORE_OK:
			return;
		case CORE_INVALID:
			ereport(ERROR,
					(errcode(ERRCODE_LY_ITEMS_OF_TWO_KINDS),
					 errmsg("a copurchase has items that are integers, or items that are texts, not both"),
					 errhint("Cast the integers to text.")));
		case CORE_INSUFFICIENT:
			ereport(ERROR,
					(errcode(ERRCODE_LY_NOT_PART_OF),
					 errmsg("a copurchase can only be taken from one that holds it"),
					 errdetail("A count would be below zero, or more baskets would hold a pair than one of its items.")));
		case CORE_TOO_MANY:
			ereport(ERROR,
					(errcode(ERRCODE_LY_COPURCHASE_MEMORY),
					 errmsg("co-purchase statistics need more memory than loyalty.copurchase_memory allows"),
					 errdetail("It allows %d kB.", copurchase_memory),
					 errhint("Set loyalty.copurchase_memory higher, lower max_items, or count fewer items: categories, or those that sell.")));
		case CORE_OVERFLOW:
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("a count of a copurchase leaves the range of bigint")));
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("stored copurchase is not readable")));
	}
}

/* a builder, and what gives its memory back when its context goes */
typedef struct OwnedBuilder
{
	CopBuilder	builder;
	MemoryContextCallback callback;
} OwnedBuilder;

static void
give_back(void *argument)
{
	CopBuilder *builder = argument;

	budget.used -= builder->charged;
	builder->charged = 0;
}

/* Begin a builder in the current memory context. */
CopBuilder *
CopurchaseBegin(uint32 max_items)
{
	OwnedBuilder *owned = palloc(sizeof(OwnedBuilder));

	cop_init(&owned->builder, CopurchaseBudget(), max_items);
	owned->callback.func = give_back;
	owned->callback.arg = &owned->builder;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &owned->callback);
	return &owned->builder;
}

/* Make a datum of bytes behind which VARHDRSZ were left free. */
static Datum
make_datum(uint8 *bytes, size_t length)
{
	if (length + VARHDRSZ > MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a copurchase of %zu bytes is more than a value may have", length),
				 errhint("Count fewer items: categories, or those that sell.")));
	SET_VARSIZE(bytes, length + VARHDRSZ);
	return PointerGetDatum(bytes);
}

/* The statistics that a builder holds. */
Datum
CopurchaseFinish(CopBuilder *builder)
{
	uint8	   *bytes;
	size_t		length;

	CopurchaseRaise(cop_finish(builder, VARHDRSZ, &bytes, &length));
	return make_datum(bytes, length);
}

/* ------------------------------------------------------------------------
 * Text, the binary form in hexadecimal digits; and binary
 * ------------------------------------------------------------------------ */

/* Refuse what is no wire form, whoever sent it. */
static void
raise_form(CoreStatus status, int code)
{
	if (status != CORE_OK && status != CORE_CORRUPT)
		CopurchaseRaise(status);
	if (status != CORE_OK)
		ereport(ERROR,
				(errcode(code),
				 errmsg("invalid form of type copurchase"),
				 errhint("Only what the output of a copurchase wrote can be read; statistics are made by the aggregate copurchase(items).")));
}

/* Read a wire form; its texts must be what the database's encoding allows. */
static Datum
read_wire(const char *wire, size_t length, int code)
{
	uint8	   *bytes;
	size_t		stored;
	CopView		view;

	raise_form(cop_from_wire((const uint8 *) wire, length, VARHDRSZ, CopurchaseBegin(COP_MAX_ITEMS), &bytes, &stored), code);
	raise_form(cop_view(&view, bytes + VARHDRSZ, stored, true), code);
	for (uint32 i = 0; view.head.kind == COP_TEXT && i < view.head.nitems; i++)
	{
		const uint8 *text;
		size_t		ntext;

		raise_form(cop_text(&view, i, &text, &ntext), code);
		if (!pg_verifymbstr((const char *) text, (int) ntext, true))
			raise_form(CORE_CORRUPT, code);
	}
	return make_datum(bytes, stored);
}

/* The wire form of a datum, behind so many bytes of room. */
static uint8 *
write_wire(Datum value, size_t prefix, size_t *length)
{
	struct varlena *stored = PG_DETOAST_DATUM_PACKED(value);
	CopView		view;
	uint8	   *wire;

	CopurchaseRaise(cop_view(&view, (const uint8 *) VARDATA_ANY(stored), VARSIZE_ANY_EXHDR(stored), true));
	CopurchaseRaise(cop_to_wire(&view, &wire, length, prefix));
	return wire;
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_out);

Datum
loyalty_copurchase_out(PG_FUNCTION_ARGS)
{
	size_t		length;
	uint8	   *wire = write_wire(PG_GETARG_DATUM(0), 0, &length);
	char	   *text;

	if (length > MaxAllocSize / 2 - 8)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a copurchase of %zu bytes is too large for its text form", length),
				 errhint("Use the binary form: COPY ... (FORMAT binary).")));
	text = palloc(2 * length + 3);
	memcpy(text, "\\x", 2);
	hex_encode((const char *) wire, length, text + 2);
	text[2 * length + 2] = '\0';
	PG_RETURN_CSTRING(text);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_in);

Datum
loyalty_copurchase_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	size_t		length = strlen(text);
	char	   *wire;

	if (length < 2 || text[0] != '\\' || text[1] != 'x' || length % 2 != 0 ||
		strspn(text + 2, "0123456789abcdef") != length - 2)
		raise_form(CORE_CORRUPT, ERRCODE_INVALID_TEXT_REPRESENTATION);
	wire = palloc(length / 2);
	length = hex_decode(text + 2, length - 2, wire);
	PG_RETURN_DATUM(read_wire(wire, length, ERRCODE_INVALID_TEXT_REPRESENTATION));
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_send);

Datum
loyalty_copurchase_send(PG_FUNCTION_ARGS)
{
	size_t		length;
	uint8	   *wire = write_wire(PG_GETARG_DATUM(0), VARHDRSZ, &length);

	PG_RETURN_DATUM(make_datum(wire, length));
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_recv);

Datum
loyalty_copurchase_recv(PG_FUNCTION_ARGS)
{
	StringInfo	in = (StringInfo) PG_GETARG_POINTER(0);
	int			length = in->len - in->cursor;

	PG_RETURN_DATUM(read_wire(pq_getmsgbytes(in, length), length, ERRCODE_INVALID_BINARY_REPRESENTATION));
}

/* ------------------------------------------------------------------------
 * + and -
 * ------------------------------------------------------------------------ */

/* One statistic and another, with a sign. */
static Datum
combine(Datum a, Datum b, int sign)
{
	CopBuilder *builder = CopurchaseBegin(COP_MAX_ITEMS);
	struct varlena *first = PG_DETOAST_DATUM_PACKED(a);
	struct varlena *second = PG_DETOAST_DATUM_PACKED(b);

	CopurchaseRaise(cop_add_stored(builder, (uint8 *) VARDATA_ANY(first), VARSIZE_ANY_EXHDR(first), 1, false));
	CopurchaseRaise(cop_add_stored(builder, (uint8 *) VARDATA_ANY(second), VARSIZE_ANY_EXHDR(second), sign, false));
	return CopurchaseFinish(builder);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_add);

Datum
loyalty_copurchase_add(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(combine(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), 1));
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_subtract);

Datum
loyalty_copurchase_subtract(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(combine(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), -1));
}
