/*
 * breakdown.c
 *	  The stored explanation of an award: encode, decode, subtract.
 *
 * Layout, all integers zigzag LEB128 varints (core.h): version byte 1; tier,
 * purchases and spend that were pinned; number of rules, then of each: id,
 * points, length and digits of the exact amount; number of lines, then the
 * points of each.  Knows nothing of tables.
 */
#include "postgres.h"

#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "breakdown.h"
#include "compat.h"
#include "core.h"
#include "errors.h"

#define BREAKDOWN_VERSION 1
#define BREAKDOWN_MAX 100000

/* Append an integer as a varint. */
static void
put(StringInfo out, int64 value)
{
	uint8		buffer[16];
	size_t		length = core_put_varint(buffer, core_zigzag(value));

	appendBinaryStringInfo(out, (const char *) buffer, (int) length);
}

/* Make the stored form. */
bytea *
BreakdownEncode(const Breakdown *breakdown)
{
	StringInfoData out;
	bytea	   *result;

	initStringInfo(&out);
	appendStringInfoSpaces(&out, VARHDRSZ);
	appendStringInfoChar(&out, BREAKDOWN_VERSION);
	put(&out, breakdown->pinned.tier_id);
	put(&out, breakdown->pinned.purchases);
	put(&out, breakdown->pinned.spend);
	put(&out, breakdown->nrules);
	for (int i = 0; i < breakdown->nrules; i++)
	{
		const BreakdownRule *rule = &breakdown->rule[i];
		char	   *exact = numeric_normalize(rule->exact);
		int			length = (int) strlen(exact);

		put(&out, rule->id);
		put(&out, rule->points);
		put(&out, length);
		appendBinaryStringInfo(&out, exact, length);
		pfree(exact);
	}
	put(&out, breakdown->nlines);
	for (int i = 0; i < breakdown->nlines; i++)
		put(&out, breakdown->line[i]);
	result = (bytea *) out.data;
	SET_VARSIZE(result, out.len);
	return result;
}

typedef struct Reader
{
	const uint8 *at;
	const uint8 *end;
} Reader;

/* Refuse bytes that no encoder wrote. */
static void
raise_corrupt(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_BROKEN_BOOKS),
			 errmsg("breakdown is not readable"),
			 errdetail("The bytes do not follow the format of version %d.", BREAKDOWN_VERSION)));
}

/* Read one varint. */
static int64
get(Reader *reader)
{
	uint64		value;
	size_t		length = core_get_varint(reader->at, reader->end - reader->at, &value);

	if (length == 0)
		raise_corrupt();
	reader->at += length;
	return core_unzigzag(value);
}

/* Read a count, which the remaining bytes must be able to hold. */
static int
get_count(Reader *reader)
{
	int64		count = get(reader);

	if (count < 0 || count > BREAKDOWN_MAX || count > reader->end - reader->at)
		raise_corrupt();
	return (int) count;
}

/* Read an exact amount. */
static Numeric
get_numeric(Reader *reader)
{
	int			length = get_count(reader);
	char	   *digits = pnstrdup((const char *) reader->at, length);
	Datum		value;

	for (int i = 0; i < length; i++)
	{
		if (strchr("0123456789.-", digits[i]) == NULL || digits[i] == '\0')
			raise_corrupt();
	}
	reader->at += length;
	value = DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
								ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	return DatumGetNumeric(value);
}

/* Read the stored form. */
void
BreakdownDecode(const bytea *bytes, Breakdown *breakdown)
{
	Reader		reader;

	reader.at = (const uint8 *) VARDATA_ANY(bytes);
	reader.end = reader.at + VARSIZE_ANY_EXHDR(bytes);
	if (reader.at == reader.end || *reader.at++ != BREAKDOWN_VERSION)
		raise_corrupt();
	breakdown->pinned.tier_id = (int32) get(&reader);
	breakdown->pinned.purchases = get(&reader);
	breakdown->pinned.spend = get(&reader);
	breakdown->nrules = get_count(&reader);
	breakdown->rule = palloc(sizeof(BreakdownRule) * Max(breakdown->nrules, 1));
	for (int i = 0; i < breakdown->nrules; i++)
	{
		breakdown->rule[i].id = (int32) get(&reader);
		breakdown->rule[i].points = get(&reader);
		breakdown->rule[i].exact = get_numeric(&reader);
	}
	breakdown->nlines = get_count(&reader);
	breakdown->line = palloc(sizeof(int64) * Max(breakdown->nlines, 1));
	for (int i = 0; i < breakdown->nlines; i++)
		breakdown->line[i] = get(&reader);
	if (reader.at != reader.end)
		raise_corrupt();
}

/* Find the part of a rule, appending a zero one where there is none. */
static BreakdownRule *
rule_part(Breakdown *breakdown, int32 id)
{
	BreakdownRule *part;

	for (int i = 0; i < breakdown->nrules; i++)
	{
		if (breakdown->rule[i].id == id)
			return &breakdown->rule[i];
	}
	if (breakdown->nrules == 0)
		breakdown->rule = palloc(sizeof(BreakdownRule));
	else
		breakdown->rule = repalloc(breakdown->rule,
								   sizeof(BreakdownRule) * (breakdown->nrules + 1));
	part = &breakdown->rule[breakdown->nrules++];
	part->id = id;
	part->points = 0;
	part->exact = int64_to_numeric(0);
	return part;
}

/* Take one breakdown off another, so that parts keep adding up to what is posted. */
void
BreakdownSubtract(Breakdown *from, const Breakdown *what)
{
	for (int i = 0; i < what->nrules; i++)
	{
		BreakdownRule *part = rule_part(from, what->rule[i].id);

		part->points -= what->rule[i].points;
		part->exact = DatumGetNumeric(DirectFunctionCall2(numeric_sub,
														  NumericGetDatum(part->exact),
														  NumericGetDatum(what->rule[i].exact)));
	}
	if (what->nlines > from->nlines)
	{
		int64	   *line = palloc0(sizeof(int64) * what->nlines);

		if (from->nlines > 0)
			memcpy(line, from->line, sizeof(int64) * from->nlines);
		from->line = line;
		from->nlines = what->nlines;
	}
	for (int i = 0; i < what->nlines; i++)
		from->line[i] -= what->line[i];
}

PG_FUNCTION_INFO_V1(loyalty_breakdown_rules);

/* breakdown_rules(bytea): the rules' parts, exact and posted. */
Datum
loyalty_breakdown_rules(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Breakdown	breakdown;

	InitMaterializedSRF(fcinfo, 0);
	BreakdownDecode(PG_GETARG_BYTEA_PP(0), &breakdown);
	for (int i = 0; i < breakdown.nrules; i++)
	{
		const BreakdownRule *rule = &breakdown.rule[i];
		Datum		values[4];
		bool		nulls[4] = {false, false, false, false};

		nulls[0] = rule->id <= 0;
		values[0] = Int32GetDatum(rule->id);
		nulls[1] = rule->id > 0;
		values[1] = Int32GetDatum(-rule->id);
		values[2] = NumericGetDatum(rule->exact);
		values[3] = Int64GetDatum(rule->points);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(loyalty_breakdown_lines);

/* breakdown_lines(bytea): the points of each line, from 1. */
Datum
loyalty_breakdown_lines(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Breakdown	breakdown;

	InitMaterializedSRF(fcinfo, 0);
	BreakdownDecode(PG_GETARG_BYTEA_PP(0), &breakdown);
	for (int i = 0; i < breakdown.nlines; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};

		values[0] = Int32GetDatum(i + 1);
		values[1] = Int64GetDatum(breakdown.line[i]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
