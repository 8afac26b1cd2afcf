/*
 * tally_type.c
 *	  The base type loyalty.tally: text and binary form, operators, sum.
 *
 * Thin: everything that is arithmetic stands in tally.c.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/numeric.h"
#include "utils/syscache.h"

#include "calendar.h"
#include "compat.h"
#include "errors.h"
#include "tally.h"

#define SPEND_DIGITS 4

/* Raise what a pure function reports. */
void
TallyRaise(CoreStatus status)
{
	switch (status)
	{
		case CORE_OK:
			return;
		case CORE_OVERFLOW:
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("tally out of range"),
					 errdetail("A sum of spend, points or visits leaves the range of bigint.")));
		case CORE_TOO_MANY:
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("tally has at most %d months", TALLY_MAX)));
		case CORE_INVALID:
			ereport(ERROR,
					(errcode(ERRCODE_LY_INVALID_TIME),
					 errmsg("a month of a tally lies between the years 1 and 290000")));
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("stored tally is not readable")));
	}
}

/* The oid of the type. */
Oid
TallyTypeOid(void)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("tally"),
						   ObjectIdGetDatum(get_namespace_oid("loyalty", false)));
}

/* Read a datum into a set in the current memory context. */
TallySet *
TallyFromDatum(Datum value, TallySet *set)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

	TallyRaise(tallyset_decode((const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), set));
	return set;
}

/* Make a datum of a set. */
Datum
TallyToDatum(const TallySet *set)
{
	size_t		size = tallyset_encoded_size(set);
	struct varlena *bytes = palloc(VARHDRSZ + size);

	SET_VARSIZE(bytes, VARHDRSZ + size);
	tallyset_encode(set, (uint8 *) VARDATA(bytes));
	return PointerGetDatum(bytes);
}

/* Spend as a numeric. */
static Numeric
spend_numeric(int64 spend)
{
	return int64_div_fast_to_numeric(spend, SPEND_DIGITS);
}

/* Spend from a numeric, exactly. */
static int64
spend_from_numeric(Numeric value)
{
	Datum		scaled;
	Datum		whole;

	if (numeric_is_nan(value) || numeric_is_inf(value))
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_AMOUNT), errmsg("spend must be a finite number")));
	scaled = DirectFunctionCall2(numeric_mul, NumericGetDatum(value),
								 NumericGetDatum(int64_to_numeric(10000)));
	whole = DirectFunctionCall2(numeric_trunc, scaled, Int32GetDatum(0));
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, scaled, whole)))
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_AMOUNT),
				 errmsg("spend has at most %d decimals", SPEND_DIGITS)));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, whole));
}

/* ------------------------------------------------------------------------
 * Text: {2026-11: spend=120.5 points=12 visits=1, before: ...}
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_tally_out);

Datum
loyalty_tally_out(PG_FUNCTION_ARGS)
{
	StringInfoData out;
	TallySet	set;

	TallyFromDatum(PG_GETARG_DATUM(0), &set);
	initStringInfo(&out);
	appendStringInfoChar(&out, '{');
	for (int i = 0; i < set.n; i++)
	{
		const TallyMonth *month = &set.month[i];
		int			year;
		int			number;
		int			day;

		if (i > 0)
			appendStringInfoString(&out, ", ");
		if (month->month == TALLY_BEFORE)
			appendStringInfoString(&out, "before");
		else
		{
			calendar_civil(calendar_month_start(month->month), &year, &number, &day);
			appendStringInfo(&out, "%04d-%02d", year, number);
		}
		appendStringInfo(&out, ": spend=%s points=" INT64_FORMAT " visits=" INT64_FORMAT,
						 numeric_normalize(spend_numeric(month->spend)), month->points,
						 month->visits);
	}
	appendStringInfoChar(&out, '}');
	PG_RETURN_CSTRING(out.data);
}

/* Refuse text that is no tally. */
static void
raise_syntax(const char *text, const char *at, const char *expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid input syntax for type tally: \"%.*s\"",
					pg_mbcliplen(text, (int) strlen(text), 60), text),
			 errdetail("Expected %s at character %d.", expected, (int) (at - text) + 1),
			 errhint("Write {2026-11: spend=120.5 points=12 visits=1, before: spend=1000}.")));
}

static const char *
skip_blanks(const char *at)
{
	while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
		at++;
	return at;
}

/* Read YYYY-MM or before. */
static const char *
read_month(const char *text, const char *at, int32 *month)
{
	char	   *end;
	long		year;
	long		number;

	if (strncmp(at, "before", 6) == 0)
	{
		*month = TALLY_BEFORE;
		return at + 6;
	}
	if (*at < '0' || *at > '9' || strspn(at, "0123456789") > 6)
		raise_syntax(text, at, "a month of the form YYYY-MM, or before");
	year = strtol(at, &end, 10);
	if (*end != '-' || strspn(end + 1, "0123456789") != 2)
		raise_syntax(text, end, "a month of the form YYYY-MM");
	number = strtol(end + 1, &end, 10);
	if (number < 1 || number > 12 || year > 290000)
		raise_syntax(text, at, "a month of the form YYYY-MM");
	*month = (int32) ((year - 2000) * 12 + number - 1);
	return end;
}

/* Read name=number. */
static const char *
read_sum(const char *text, const char *at, TallyMonth *month)
{
	size_t		name = strspn(at, "abcdefghijklmnopqrstuvwxyz");
	const char *value = at + name + 1;
	size_t		length;
	char	   *word;

	if (name == 0 || at[name] != '=')
		raise_syntax(text, at, "spend=, points= or visits=");
	length = strspn(value, "0123456789.-+");
	if (length == 0 || length > 40)
		raise_syntax(text, value, "a number");
	word = pnstrdup(value, length);
	if (strncmp(at, "spend", name) == 0 && name == 5)
		month->spend =
			spend_from_numeric(DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(word),
																   ObjectIdGetDatum(InvalidOid),
																   Int32GetDatum(-1))));
	else if (strncmp(at, "points", name) == 0 && name == 6)
		month->points = pg_strtoint64(word);
	else if (strncmp(at, "visits", name) == 0 && name == 6)
		month->visits = pg_strtoint64(word);
	else
		raise_syntax(text, at, "spend=, points= or visits=");
	return value + length;
}

PG_FUNCTION_INFO_V1(loyalty_tally_in);

Datum
loyalty_tally_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	const char *at = skip_blanks(text);
	TallySet	set;

	tallyset_init(&set);
	if (*at != '{')
		raise_syntax(text, at, "\"{\"");
	at = skip_blanks(at + 1);
	while (*at != '}')
	{
		TallyMonth	month = {0};

		at = skip_blanks(read_month(text, at, &month.month));
		if (*at != ':')
			raise_syntax(text, at, "\":\"");
		at = skip_blanks(at + 1);
		while (*at >= 'a' && *at <= 'z')
			at = skip_blanks(read_sum(text, at, &month));
		CHECK_FOR_INTERRUPTS();
		TallyRaise(tallyset_add_month(&set, month));
		if (*at == ',')
			at = skip_blanks(at + 1);
		else if (*at != '}')
			raise_syntax(text, at, "\",\" or \"}\"");
	}
	if (*skip_blanks(at + 1) != '\0')
		raise_syntax(text, at + 1, "nothing behind the closing brace");
	PG_RETURN_DATUM(TallyToDatum(&set));
}

/* ------------------------------------------------------------------------
 * Binary
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_tally_recv);

Datum
loyalty_tally_recv(PG_FUNCTION_ARGS)
{
	StringInfo	in = (StringInfo) PG_GETARG_POINTER(0);
	int			length = in->len - in->cursor;
	const char *bytes = pq_getmsgbytes(in, length);
	TallySet	set;

	if (tallyset_decode((const uint8 *) bytes, length, &set) != CORE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid binary form of type tally")));
	PG_RETURN_DATUM(TallyToDatum(&set));
}

/* ------------------------------------------------------------------------
 * Operators
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_tally_add);

Datum
loyalty_tally_add(PG_FUNCTION_ARGS)
{
	TallySet	a;
	TallySet	b;

	TallyFromDatum(PG_GETARG_DATUM(0), &a);
	TallyFromDatum(PG_GETARG_DATUM(1), &b);
	TallyRaise(tallyset_add(&a, &b));
	PG_RETURN_DATUM(TallyToDatum(&a));
}

PG_FUNCTION_INFO_V1(loyalty_tally_subtract);

Datum
loyalty_tally_subtract(PG_FUNCTION_ARGS)
{
	TallySet	a;
	TallySet	b;

	TallyFromDatum(PG_GETARG_DATUM(0), &a);
	TallyFromDatum(PG_GETARG_DATUM(1), &b);
	TallyRaise(tallyset_subtract(&a, &b));
	PG_RETURN_DATUM(TallyToDatum(&a));
}

PG_FUNCTION_INFO_V1(loyalty_tally_negate);

Datum
loyalty_tally_negate(PG_FUNCTION_ARGS)
{
	TallySet	a;

	TallyFromDatum(PG_GETARG_DATUM(0), &a);
	TallyRaise(tallyset_negate(&a));
	PG_RETURN_DATUM(TallyToDatum(&a));
}

/* ------------------------------------------------------------------------
 * Questions
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_tally_make);

/* tally(month, spend, points, visits); a null month: before the books. */
Datum
loyalty_tally_make(PG_FUNCTION_ARGS)
{
	TallyMonth	month = {0};
	TallySet	set;

	if (PG_ARGISNULL(0))
		month.month = TALLY_BEFORE;
	else if (DATE_NOT_FINITE(PG_GETARG_DATEADT(0)))
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_TIME), errmsg("a month must be finite")));
	else
		month.month = calendar_month(PG_GETARG_DATEADT(0));
	month.spend = PG_ARGISNULL(1) ? 0 : spend_from_numeric(PG_GETARG_NUMERIC(1));
	month.points = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	month.visits = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3);
	tallyset_init(&set);
	TallyRaise(tallyset_add_month(&set, month));
	PG_RETURN_DATUM(TallyToDatum(&set));
}

/* Sum the months from one day's to another's; a null day leaves that side open. */
static void
sum_days(FunctionCallInfo fcinfo, TallyMonth *sums)
{
	TallySet	set;
	int32		from = INT32_MIN;
	int32		to = INT32_MAX;

	TallyFromDatum(PG_GETARG_DATUM(0), &set);
	if (PG_NARGS() > 1 && !PG_ARGISNULL(1) && !DATE_NOT_FINITE(PG_GETARG_DATEADT(1)))
		from = calendar_month(PG_GETARG_DATEADT(1));
	if (PG_NARGS() > 2 && !PG_ARGISNULL(2) && !DATE_NOT_FINITE(PG_GETARG_DATEADT(2)))
		to = calendar_month(PG_GETARG_DATEADT(2));
	TallyRaise(tallyset_sum(&set, from, to, sums));
}

PG_FUNCTION_INFO_V1(loyalty_tally_spend);

Datum
loyalty_tally_spend(PG_FUNCTION_ARGS)
{
	TallyMonth	sums;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	sum_days(fcinfo, &sums);
	PG_RETURN_NUMERIC(spend_numeric(sums.spend));
}

PG_FUNCTION_INFO_V1(loyalty_tally_points);

Datum
loyalty_tally_points(PG_FUNCTION_ARGS)
{
	TallyMonth	sums;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	sum_days(fcinfo, &sums);
	PG_RETURN_INT64(sums.points);
}

PG_FUNCTION_INFO_V1(loyalty_tally_visits);

Datum
loyalty_tally_visits(PG_FUNCTION_ARGS)
{
	TallyMonth	sums;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	sum_days(fcinfo, &sums);
	PG_RETURN_INT64(sums.visits);
}

PG_FUNCTION_INFO_V1(loyalty_tally_unnest);

/* unnest(tally): one row a month. */
Datum
loyalty_tally_unnest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TallySet	set;

	InitMaterializedSRF(fcinfo, 0);
	TallyFromDatum(PG_GETARG_DATUM(0), &set);
	for (int i = 0; i < set.n; i++)
	{
		const TallyMonth *month = &set.month[i];
		Datum		v[4];
		bool		n[4] = {false, false, false, false};

		n[0] = month->month == TALLY_BEFORE;
		v[0] = n[0] ? (Datum) 0 : DateADTGetDatum(calendar_month_start(month->month));
		v[1] = NumericGetDatum(spend_numeric(month->spend));
		v[2] = Int64GetDatum(month->points);
		v[3] = Int64GetDatum(month->visits);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	}
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * sum
 * ------------------------------------------------------------------------ */

/* The state of an aggregate call, made at the first row. */
static TallySet *
sum_state(FunctionCallInfo fcinfo, MemoryContext *context)
{
	TallySet   *state;

	if (!AggCheckCallContext(fcinfo, context))
		elog(ERROR, "tally_sum was called outside an aggregate");
	if (!PG_ARGISNULL(0))
		return (TallySet *) PG_GETARG_POINTER(0);
	state = MemoryContextAlloc(*context, sizeof(TallySet));
	tallyset_init(state);
	return state;
}

/* Add to a state in its own context. */
static void
sum_add(TallySet *state, const TallySet *what, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	TallyRaise(tallyset_add(state, what));
	MemoryContextSwitchTo(old);
}

PG_FUNCTION_INFO_V1(loyalty_tally_sum_step);

Datum
loyalty_tally_sum_step(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	TallySet   *state = sum_state(fcinfo, &context);
	TallySet	value;

	if (!PG_ARGISNULL(1))
		sum_add(state, TallyFromDatum(PG_GETARG_DATUM(1), &value), context);
	PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(loyalty_tally_sum_combine);

Datum
loyalty_tally_sum_combine(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	TallySet   *state = sum_state(fcinfo, &context);

	if (!PG_ARGISNULL(1))
		sum_add(state, (TallySet *) PG_GETARG_POINTER(1), context);
	PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(loyalty_tally_sum_final);

Datum
loyalty_tally_sum_final(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(TallyToDatum((TallySet *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(loyalty_tally_sum_serial);

Datum
loyalty_tally_sum_serial(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(TallyToDatum((TallySet *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(loyalty_tally_sum_deserial);

Datum
loyalty_tally_sum_deserial(PG_FUNCTION_ARGS)
{
	TallySet   *state = palloc(sizeof(TallySet));

	PG_RETURN_POINTER(TallyFromDatum(PG_GETARG_DATUM(0), state));
}
