/*
 * lots_type.c
 *	  The base type loyalty.lots: text and binary form, operators, sum.
 *
 * Thin: everything that is arithmetic stands in lots.c.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/syscache.h"

#include "compat.h"
#include "errors.h"
#include "lots.h"

/* Raise what a pure function reports. */
void
LotsRaise(CoreStatus status)
{
	switch (status)
	{
		case CORE_OK:
			return;
		case CORE_OVERFLOW:
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("points out of range"),
					 errdetail("A sum of points leaves the range of bigint.")));
		case CORE_CORRUPT:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("stored lots are not readable")));
		case CORE_INVALID:
			ereport(ERROR,
					(errcode(ERRCODE_LY_INVALID_POINTS),
					 errmsg("not a valid lot"),
					 errdetail("A lot is available before it expires, and amounts taken or given are not negative.")));
		case CORE_INSUFFICIENT:
			ereport(ERROR,
					(errcode(ERRCODE_LY_INSUFFICIENT_POINTS),
					 errmsg("not enough points")));
		case CORE_TOO_MANY:
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("lots has at most %d elements", LOTS_MAX)));
	}
}

/* Find a type of our schema. */
Oid
OurTypeOid(const char *name)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum(name),
						   ObjectIdGetDatum(get_namespace_oid("loyalty", false)));
}

/* The oid of the type. */
Oid
LotsTypeOid(void)
{
	return OurTypeOid("lots");
}

/* Read a datum into a set in the current memory context. */
LotSet *
LotsFromDatum(Datum value, LotSet *set)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

	LotsRaise(lotset_decode((const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), set));
	return set;
}

/* Make a datum of a set. */
Datum
LotsToDatum(const LotSet *set)
{
	size_t		size = lotset_encoded_size(set);
	struct varlena *bytes = palloc(VARHDRSZ + size);

	SET_VARSIZE(bytes, VARHDRSZ + size);
	lotset_encode(set, (uint8 *) VARDATA(bytes));
	return PointerGetDatum(bytes);
}

/* ------------------------------------------------------------------------
 * Text
 * ------------------------------------------------------------------------ */

/* Refuse text that is no lots. */
static void
raise_syntax(const char *text, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid input syntax for type lots: \"%.*s\"",
					pg_mbcliplen(text, (int) strlen(text), 60), text),
			 errdetail("%s", detail),
			 errhint("Write {[2026-12-01,2027-12-01)=120, [2026-12-15,)=30}.")));
}

/* Skip blanks. */
static const char *
skip_blanks(const char *at)
{
	while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
		at++;
	return at;
}

/* Demand one character. */
static const char *
expect(const char *text, const char *at, char wanted)
{
	at = skip_blanks(at);
	if (*at != wanted)
		raise_syntax(text, psprintf("Expected \"%c\" at character %d.", wanted,
									(int) (at - text) + 1));
	return at + 1;
}

/* Read YYYY-MM-DD, infinity, -infinity or nothing, up to a stop character. */
static const char *
read_day(const char *text, const char *at, char stop, int32 otherwise, int32 *day)
{
	const char *end;
	char	   *word;

	at = skip_blanks(at);
	end = strchr(at, stop);
	if (end == NULL || end - at > 30)
		raise_syntax(text, psprintf("Expected a day and \"%c\" at character %d.", stop,
									(int) (at - text) + 1));
	word = pnstrdup(at, end - at);
	for (size_t n = strlen(word); n > 0 && word[n - 1] == ' '; n--)
		word[n - 1] = '\0';
	if (word[0] == '\0')
		*day = otherwise;
	else if (strcmp(word + strspn(word, "0123456789-"), " BC") != 0 &&
			 word[strspn(word, "0123456789-")] != '\0' && strcmp(word, "infinity") != 0 &&
			 strcmp(word, "-infinity") != 0)
		raise_syntax(text, psprintf("\"%s\" is not a day of the form YYYY-MM-DD.", word));
	else
		*day = DatumGetDateADT(DirectFunctionCall1(date_in, CStringGetDatum(word)));
	pfree(word);
	return end + 1;
}

/* Read a signed whole number. */
static const char *
read_amount(const char *text, const char *at, int64 *amount)
{
	const char *start;
	char	   *word;
	size_t		length;

	at = skip_blanks(at);
	start = at;
	if (*at == '-' || *at == '+')
		at++;
	length = strspn(at, "0123456789");
	if (length == 0 || length > 20)
		raise_syntax(text, psprintf("Expected a whole number at character %d.",
									(int) (start - text) + 1));
	at += length;
	word = pnstrdup(start, at - start);
	*amount = pg_strtoint64(word);
	pfree(word);
	return at;
}

/* Read one lot. */
static const char *
read_lot(const char *text, const char *at, LotSet *set)
{
	Lot			lot;

	at = expect(text, at, '[');
	at = read_day(text, at, ',', DATEVAL_NOBEGIN, &lot.available_from);
	at = read_day(text, at, ')', DATEVAL_NOEND, &lot.expires_on);
	at = expect(text, at, '=');
	at = read_amount(text, at, &lot.amount);
	if (!lot_is_valid(lot))
		raise_syntax(text, "A lot is available before it expires.");
	LotsRaise(lotset_add_lot(set, lot));
	CHECK_FOR_INTERRUPTS();
	return at;
}

PG_FUNCTION_INFO_V1(loyalty_lots_in);

Datum
loyalty_lots_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	const char *at = expect(text, text, '{');
	LotSet		set;

	lotset_init(&set);
	at = skip_blanks(at);
	while (*at != '}')
	{
		at = skip_blanks(read_lot(text, at, &set));
		if (*at == ',')
			at = skip_blanks(at + 1);
		else if (*at != '}')
			raise_syntax(text, psprintf("Expected \",\" or \"}\" at character %d.",
										(int) (at - text) + 1));
	}
	if (*skip_blanks(at + 1) != '\0')
		raise_syntax(text, "There is text behind the closing brace.");
	PG_RETURN_DATUM(LotsToDatum(&set));
}

/* Append YYYY-MM-DD or infinity. */
static void
append_day(StringInfo out, int32 day)
{
	if (day == DATEVAL_NOEND)
		appendStringInfoString(out, "infinity");
	else
	{
		struct pg_tm tm;
		char		buffer[MAXDATELEN + 1];

		j2date(day + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
		EncodeDateOnly(&tm, USE_ISO_DATES, buffer);
		appendStringInfoString(out, buffer);
	}
}

/* The text form of a set. */
char *
LotsToText(const LotSet *set)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoChar(&out, '{');
	for (int i = 0; i < set->n; i++)
	{
		const Lot  *lot = &set->lot[i];

		appendStringInfoString(&out, i == 0 ? "[" : ", [");
		if (lot->available_from != DATEVAL_NOBEGIN)
			append_day(&out, lot->available_from);
		appendStringInfoChar(&out, ',');
		if (lot->expires_on != DATEVAL_NOEND)
			append_day(&out, lot->expires_on);
		appendStringInfo(&out, ")=" INT64_FORMAT, lot->amount);
	}
	appendStringInfoChar(&out, '}');
	return out.data;
}

PG_FUNCTION_INFO_V1(loyalty_lots_out);

Datum
loyalty_lots_out(PG_FUNCTION_ARGS)
{
	LotSet		set;

	PG_RETURN_CSTRING(LotsToText(LotsFromDatum(PG_GETARG_DATUM(0), &set)));
}

/* ------------------------------------------------------------------------
 * Binary
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_lots_send);

Datum
loyalty_lots_send(PG_FUNCTION_ARGS)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(0));
	StringInfoData out;

	pq_begintypsend(&out);
	pq_sendbytes(&out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	PG_RETURN_BYTEA_P(pq_endtypsend(&out));
}

PG_FUNCTION_INFO_V1(loyalty_lots_recv);

Datum
loyalty_lots_recv(PG_FUNCTION_ARGS)
{
	StringInfo	in = (StringInfo) PG_GETARG_POINTER(0);
	int			length = in->len - in->cursor;
	const char *bytes = pq_getmsgbytes(in, length);
	LotSet		set;

	if (lotset_decode((const uint8 *) bytes, length, &set) != CORE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid binary form of type lots")));
	PG_RETURN_DATUM(LotsToDatum(&set));
}

/* ------------------------------------------------------------------------
 * Operators
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_lots_add);

Datum
loyalty_lots_add(PG_FUNCTION_ARGS)
{
	LotSet		a;
	LotSet		b;

	LotsFromDatum(PG_GETARG_DATUM(0), &a);
	LotsFromDatum(PG_GETARG_DATUM(1), &b);
	LotsRaise(lotset_add(&a, &b));
	PG_RETURN_DATUM(LotsToDatum(&a));
}

PG_FUNCTION_INFO_V1(loyalty_lots_subtract);

Datum
loyalty_lots_subtract(PG_FUNCTION_ARGS)
{
	LotSet		a;
	LotSet		b;

	LotsFromDatum(PG_GETARG_DATUM(0), &a);
	LotsFromDatum(PG_GETARG_DATUM(1), &b);
	LotsRaise(lotset_subtract(&a, &b));
	PG_RETURN_DATUM(LotsToDatum(&a));
}

PG_FUNCTION_INFO_V1(loyalty_lots_negate);

Datum
loyalty_lots_negate(PG_FUNCTION_ARGS)
{
	LotSet		a;

	LotsFromDatum(PG_GETARG_DATUM(0), &a);
	LotsRaise(lotset_negate(&a));
	PG_RETURN_DATUM(LotsToDatum(&a));
}

/* Compare bytes: equal values have equal bytes. */
static bool
same_bytes(FunctionCallInfo fcinfo)
{
	struct varlena *a = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(0));
	struct varlena *b = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(1));

	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

PG_FUNCTION_INFO_V1(loyalty_bytes_eq);

Datum
loyalty_bytes_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(same_bytes(fcinfo));
}

PG_FUNCTION_INFO_V1(loyalty_bytes_ne);

Datum
loyalty_bytes_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!same_bytes(fcinfo));
}

PG_FUNCTION_INFO_V1(loyalty_bytes_hash);

Datum
loyalty_bytes_hash(PG_FUNCTION_ARGS)
{
	struct varlena *a = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(0));

	return hash_any((unsigned char *) VARDATA_ANY(a), (int) VARSIZE_ANY_EXHDR(a));
}

/* ------------------------------------------------------------------------
 * Questions
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_lots_make);

/* lots(available_from, expires_on, points) */
Datum
loyalty_lots_make(PG_FUNCTION_ARGS)
{
	Lot			lot;
	LotSet		set;

	lot.available_from = PG_GETARG_DATEADT(0);
	lot.expires_on = PG_GETARG_DATEADT(1);
	lot.amount = PG_GETARG_INT64(2);
	if (!lot_is_valid(lot))
		LotsRaise(CORE_INVALID);
	lotset_init(&set);
	LotsRaise(lotset_add_lot(&set, lot));
	PG_RETURN_DATUM(LotsToDatum(&set));
}

/* Answer a question about a day. */
static Datum
ask(FunctionCallInfo fcinfo, CoreStatus (*question) (const LotSet *, int32, int64 *))
{
	LotSet		set;
	int64		points;

	LotsFromDatum(PG_GETARG_DATUM(0), &set);
	LotsRaise(question(&set, PG_GETARG_DATEADT(1), &points));
	PG_RETURN_INT64(points);
}

PG_FUNCTION_INFO_V1(loyalty_lots_available);

Datum
loyalty_lots_available(PG_FUNCTION_ARGS)
{
	return ask(fcinfo, lotset_available);
}

PG_FUNCTION_INFO_V1(loyalty_lots_pending);

Datum
loyalty_lots_pending(PG_FUNCTION_ARGS)
{
	return ask(fcinfo, lotset_pending);
}

PG_FUNCTION_INFO_V1(loyalty_lots_expired);

Datum
loyalty_lots_expired(PG_FUNCTION_ARGS)
{
	return ask(fcinfo, lotset_expired);
}

PG_FUNCTION_INFO_V1(loyalty_lots_total);

Datum
loyalty_lots_total(PG_FUNCTION_ARGS)
{
	LotSet		set;
	int64		points;

	LotsFromDatum(PG_GETARG_DATUM(0), &set);
	LotsRaise(lotset_total(&set, &points));
	PG_RETURN_INT64(points);
}

PG_FUNCTION_INFO_V1(loyalty_lots_debt);

Datum
loyalty_lots_debt(PG_FUNCTION_ARGS)
{
	LotSet		set;

	LotsFromDatum(PG_GETARG_DATUM(0), &set);
	PG_RETURN_INT64(lotset_debt(&set));
}

PG_FUNCTION_INFO_V1(loyalty_lots_unnest);

/* unnest(lots): one row a lot. */
Datum
loyalty_lots_unnest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LotSet		set;

	InitMaterializedSRF(fcinfo, 0);
	LotsFromDatum(PG_GETARG_DATUM(0), &set);
	for (int i = 0; i < set.n; i++)
	{
		Datum		v[3];
		bool		n[3] = {false, false, false};

		v[0] = DateADTGetDatum(set.lot[i].available_from);
		v[1] = DateADTGetDatum(set.lot[i].expires_on);
		v[2] = Int64GetDatum(set.lot[i].amount);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	}
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * sum
 * ------------------------------------------------------------------------ */

/* The state of an aggregate call, made at the first row. */
static LotSet *
sum_state(FunctionCallInfo fcinfo, MemoryContext *context)
{
	LotSet	   *state;

	if (!AggCheckCallContext(fcinfo, context))
		elog(ERROR, "lots_sum was called outside an aggregate");
	if (!PG_ARGISNULL(0))
		return (LotSet *) PG_GETARG_POINTER(0);
	state = MemoryContextAlloc(*context, sizeof(LotSet));
	lotset_init(state);
	return state;
}

/* Add to a state in its own context. */
static void
sum_add(LotSet *state, const LotSet *what, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	LotsRaise(lotset_add(state, what));
	MemoryContextSwitchTo(old);
}

PG_FUNCTION_INFO_V1(loyalty_lots_sum_step);

Datum
loyalty_lots_sum_step(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	LotSet	   *state = sum_state(fcinfo, &context);
	LotSet		value;

	if (!PG_ARGISNULL(1))
		sum_add(state, LotsFromDatum(PG_GETARG_DATUM(1), &value), context);
	PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(loyalty_lots_sum_combine);

Datum
loyalty_lots_sum_combine(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	LotSet	   *state = sum_state(fcinfo, &context);

	if (!PG_ARGISNULL(1))
		sum_add(state, (LotSet *) PG_GETARG_POINTER(1), context);
	PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(loyalty_lots_sum_final);

Datum
loyalty_lots_sum_final(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(LotsToDatum((LotSet *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(loyalty_lots_sum_serial);

Datum
loyalty_lots_sum_serial(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(LotsToDatum((LotSet *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(loyalty_lots_sum_deserial);

Datum
loyalty_lots_sum_deserial(PG_FUNCTION_ARGS)
{
	LotSet	   *state = palloc(sizeof(LotSet));

	PG_RETURN_POINTER(LotsFromDatum(PG_GETARG_DATUM(0), state));
}
