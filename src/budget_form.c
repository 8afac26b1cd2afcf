/*
 * budget_form.c
 *	  The stored form of what limits know: the rings of all limits of a subject
 *	  in one row, and all that a transaction used of limits in one.
 *
 * rings: for each limit, ascending, its id, the length of its ring, the ring.
 * uses: for each limit, ascending, its id, its programme, the part of time, what was
 * granted, whether it stands, the length of the subject, the subject.
 * Numbers are varints.
 */
#include "limit.h"

#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "compat.h"
#include "errors.h"

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------ */

/* Begin a bytea. */
static void
begin_form(StringInfo form)
{
	initStringInfo(form);
	appendStringInfoSpaces(form, VARHDRSZ);
}

/* The bytea, in no more room than it needs: a chunk has thousands of them. */
static Datum
end_form(StringInfo form)
{
	bytea	   *bytes = palloc(form->len);

	memcpy(bytes, form->data, form->len);
	SET_VARSIZE(bytes, form->len);
	pfree(form->data);
	return PointerGetDatum(bytes);
}

/* Add a number. */
static void
put_number(StringInfo form, uint64 value)
{
	enlargeStringInfo(form, CORE_MAX_VARINT);
	form->len += core_put_varint((uint8 *) form->data + form->len, value);
}

/* Add bytes and their length. */
static void
put_bytes(StringInfo form, const void *bytes, size_t length)
{
	put_number(form, length);
	appendBinaryStringInfo(form, bytes, (int) length);
}

/* Add the ring of a limit, where there is something in it. */
static void
put_ring(StringInfo form, const SubjectState *state)
{
	uint8		few[256];
	size_t		most = ring_encoded_size(&state->ring);
	uint8	   *bytes = most <= sizeof(few) ? few : palloc(most);

	if (state->ring.head != RING_EMPTY)
	{
		put_number(form, (uint64) state->limit_id);
		put_bytes(form, bytes, ring_encode(&state->ring, bytes));
	}
	if (bytes != few)
		pfree(bytes);
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

/* Where a form is read. */
typedef struct FormReader
{
	const uint8 *at;
	const uint8 *end;
} FormReader;

/* Refuse a row that this did not write. */
static void
raise_damaged(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_BROKEN_BOOKS),
			 errmsg("what limits know of a subject or a transaction is damaged")));
}

/* Begin to read; NULL is an empty form. */
static FormReader
read_form(const bytea *form)
{
	FormReader	reader = {NULL, NULL};

	if (form != NULL)
	{
		reader.at = (const uint8 *) VARDATA_ANY(form);
		reader.end = reader.at + VARSIZE_ANY_EXHDR(form);
	}
	return reader;
}

/* Read the next number. */
static uint64
get_number(FormReader *reader)
{
	uint64		value = 0;
	size_t		length = core_get_varint(reader->at, reader->end - reader->at, &value);

	if (length == 0)
		raise_damaged();
	reader->at += length;
	return value;
}

/* Read a number that is an id. */
static int32
get_id(FormReader *reader)
{
	uint64		value = get_number(reader);

	if (value > PG_INT32_MAX)
		raise_damaged();
	return (int32) value;
}

/* Read bytes and their length. */
static const uint8 *
get_bytes(FormReader *reader, size_t *length)
{
	const uint8 *bytes;
	uint64		value = get_number(reader);

	if (value > (uint64) (reader->end - reader->at))
		raise_damaged();
	*length = (size_t) value;
	bytes = reader->at;
	reader->at += value;
	return bytes;
}

/* Read a ring. */
static void
get_ring(const uint8 *bytes, size_t length, Ring *ring)
{
	if (ring_decode(bytes, length, ring) != CORE_OK)
		raise_damaged();
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------ */

/* Read the rings of a row into the states of its subject; what is not there is empty. */
void
LimitsReadRings(const SubjectRow *row, SubjectState *state)
{
	FormReader	reader = read_form(row->rings);
	int			next = 0;

	while (reader.at < reader.end)
	{
		int32		limit_id = get_id(&reader);
		size_t		length;
		const uint8 *bytes = get_bytes(&reader, &length);

		while (next < row->nstates && state[next].limit_id < limit_id)
		{
			ring_init(&state[next].ring, Max(state[next].buckets, 1));
			next++;
		}
		if (next < row->nstates && state[next].limit_id == limit_id)
			get_ring(bytes, length, &state[next++].ring);
	}
	for (; next < row->nstates; next++)
		ring_init(&state[next].ring, Max(state[next].buckets, 1));
}

/* The stored form of a row's rings: those of the states, and those of other limits as they were. */
Datum
LimitsRingsDatum(const SubjectRow *row, const SubjectState *state)
{
	FormReader	reader = read_form(row->rings);
	StringInfoData form;
	int			next = 0;

	begin_form(&form);
	while (reader.at < reader.end)
	{
		int32		limit_id = get_id(&reader);
		size_t		length;
		const uint8 *bytes = get_bytes(&reader, &length);

		while (next < row->nstates && state[next].limit_id < limit_id)
			put_ring(&form, &state[next++]);
		if (next < row->nstates && state[next].limit_id == limit_id)
			put_ring(&form, &state[next++]);
		else
		{
			put_number(&form, (uint64) limit_id);
			put_bytes(&form, bytes, length);
		}
	}
	while (next < row->nstates)
		put_ring(&form, &state[next++]);
	return end_form(&form);
}

/* Read one use. */
static void
get_use(FormReader *reader, LimitUse *use)
{
	size_t		length;
	const uint8 *bytes;

	memset(use, 0, sizeof(LimitUse));
	use->limit_id = get_id(reader);
	use->program_id = get_id(reader);
	use->bucket = core_unzigzag(get_number(reader));
	use->granted = (int64) get_number(reader);
	use->active = get_number(reader) != 0;
	bytes = get_bytes(reader, &length);
	use->subject = cstring_to_text_with_len((const char *) bytes, (int) length);
	if (use->granted < 0 || use->bucket < -RING_MAX_BUCKET || use->bucket > RING_MAX_BUCKET)
		raise_damaged();
}

/* Read what a transaction used. */
int
LimitsReadUses(const bytea *form, LimitUse **uses)
{
	FormReader	reader = read_form(form);
	int			n = 0;
	int			size = 8;

	*uses = palloc(sizeof(LimitUse) * size);
	while (reader.at < reader.end)
	{
		if (n == size)
			*uses = repalloc(*uses, sizeof(LimitUse) * (size *= 2));
		get_use(&reader, &(*uses)[n++]);
	}
	return n;
}

/* The stored form of what a transaction used. */
Datum
LimitsUsesDatum(const LimitUse *use, int n)
{
	StringInfoData form;

	begin_form(&form);
	for (int i = 0; i < n; i++)
	{
		if (use[i].granted < 0)
			elog(ERROR, "less than nothing of limit %d was granted", use[i].limit_id);
		put_number(&form, (uint64) use[i].limit_id);
		put_number(&form, (uint64) use[i].program_id);
		put_number(&form, core_zigzag(use[i].bucket));
		put_number(&form, (uint64) use[i].granted);
		put_number(&form, use[i].active);
		put_bytes(&form, VARDATA_ANY(use[i].subject), VARSIZE_ANY_EXHDR(use[i].subject));
	}
	return end_form(&form);
}

/* ------------------------------------------------------------------------
 * For SQL
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_limit_rings);

/* limit_rings(rings): a row a limit. */
Datum
loyalty_limit_rings(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	FormReader	reader = read_form(PG_GETARG_BYTEA_PP(0));

	InitMaterializedSRF(fcinfo, 0);
	while (reader.at < reader.end)
	{
		int32		limit_id = get_id(&reader);
		size_t		length;
		const uint8 *bytes = get_bytes(&reader, &length);
		Datum		v[2] = {Int32GetDatum(limit_id), PointerGetDatum(cstring_to_text_with_len((const char *) bytes, (int) length))};
		bool		n[2] = {false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(loyalty_limit_uses);

/* limit_uses(uses): a row a limit. */
Datum
loyalty_limit_uses(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LimitUse   *use;
	int			count = LimitsReadUses(PG_GETARG_BYTEA_PP(0), &use);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < count; i++)
	{
		Datum		v[5] = {Int32GetDatum(use[i].limit_id), PointerGetDatum(use[i].subject), Int64GetDatum(use[i].bucket),
		Int64GetDatum(use[i].granted), BoolGetDatum(use[i].active)};
		bool		n[5] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	}
	return (Datum) 0;
}

/* The stored form of one ring. */
static Datum
ring_datum(const Ring *ring)
{
	uint8	   *longest = palloc(ring_encoded_size(ring));
	size_t		length = ring_encode(ring, longest);
	bytea	   *bytes = palloc(VARHDRSZ + length);

	SET_VARSIZE(bytes, VARHDRSZ + length);
	memcpy(VARDATA(bytes), longest, length);
	pfree(longest);
	return PointerGetDatum(bytes);
}

/* A bucket argument: one that some instant falls into, since buckets are walked over one by one. */
static int64
bucket_argument(int64 bucket)
{
	if (bucket < -RING_MAX_BUCKET || bucket > RING_MAX_BUCKET)
		ereport(ERROR,
				(errcode(ERRCODE_LY_BROKEN_BOOKS),
				 errmsg("no time is in part " INT64_FORMAT " of a limit's window", bucket)));
	return bucket;
}

/* A ring argument. */
static void
ring_argument(bytea *bytes, Ring *ring)
{
	if (ring_decode((uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), ring) != CORE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_LY_BROKEN_BOOKS), errmsg("the ring of a subject is damaged")));
}

PG_FUNCTION_INFO_V1(loyalty_ring_sums);

/* ring_sums(ring): what it remembers, a row a bucket that is not zero. */
Datum
loyalty_ring_sums(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	Ring		ring;

	InitMaterializedSRF(fcinfo, 0);
	if (VARSIZE_ANY_EXHDR(bytes) == 0)
		return (Datum) 0;
	ring_argument(bytes, &ring);
	for (int i = 0; ring.head != RING_EMPTY && i < ring_size(&ring); i++)
	{
		Datum		v[2] = {Int64GetDatum(ring.head - i)};
		bool		n[2] = {false, false};

		if (ring_sum(&ring, ring.head - i) == 0)
			continue;
		v[1] = Int64GetDatum(ring_sum(&ring, ring.head - i));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(loyalty_ring_from);

/* ring_from(ring): the first bucket that it remembers; NULL for an empty one. */
Datum
loyalty_ring_from(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	Ring		ring;

	if (VARSIZE_ANY_EXHDR(bytes) == 0)
		PG_RETURN_NULL();
	ring_argument(bytes, &ring);
	if (ring.head == RING_EMPTY)
		PG_RETURN_NULL();
	PG_RETURN_INT64(ring.head - ring_size(&ring) + 1);
}

PG_FUNCTION_INFO_V1(loyalty_ring_used);

/* ring_used(ring, bucket): what is used of the fullest window around a bucket; NULL where it is forgotten. */
Datum
loyalty_ring_used(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	Ring		ring;
	int64		used = 0;

	if (VARSIZE_ANY_EXHDR(bytes) == 0)
		PG_RETURN_INT64(0);
	ring_argument(bytes, &ring);
	if (!ring_used(&ring, bucket_argument(PG_GETARG_INT64(1)), &used))
		PG_RETURN_NULL();
	PG_RETURN_INT64(used);
}

PG_FUNCTION_INFO_V1(loyalty_ring_add);

/* ring_add(ring, bucket, amount): for what SQL gives back. */
Datum
loyalty_ring_add(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	Ring		ring;

	if (VARSIZE_ANY_EXHDR(bytes) == 0)
		PG_RETURN_BYTEA_P(bytes);
	ring_argument(bytes, &ring);
	ring_add(&ring, bucket_argument(PG_GETARG_INT64(1)), PG_GETARG_INT64(2));
	return ring_datum(&ring);
}
