/*
 * budget.c
 *	  The rows of velocity limits: locked once a chunk, read, written back.
 *
 * Owns limit_state, limit_use and limit_decision.  Rows of limit_state that
 * are missing are inserted, then all are locked, both in the order of (limit,
 * subject), after the accounts.  Decides nothing.
 */
#include "limit.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "columns.h"
#include "compat.h"
#include "errors.h"

#define STATE_OF_KEYS(join, locking) \
	"SELECT u.n, s.ring, u.kind IS NOT NULL AND EXISTS (SELECT FROM loyalty.blocked_subject b" \
	"  WHERE b.program_id = u.program_id AND b.kind = u.kind AND b.subject = u.subject" \
	"  AND b.until > pg_catalog.now())" \
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) WITH ORDINALITY u (limit_id, subject, program_id, kind, n)" \
	" " join " JOIN LATERAL (SELECT q.ring FROM loyalty.limit_state q" \
	"  WHERE q.limit_id = u.limit_id AND q.subject = u.subject" locking ") s ON true"

/* As in the ledger: a row at a time, in the order of the arrays. */
static KeptPlan insert_states = {"INSERT INTO loyalty.limit_state (limit_id, subject)"
	" SELECT u.limit_id, u.subject FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u (limit_id, subject)"
	" ON CONFLICT (limit_id, subject) DO NOTHING"};
static KeptPlan lock_states = {STATE_OF_KEYS("", " FOR NO KEY UPDATE")};
static KeptPlan read_states_plan = {STATE_OF_KEYS("LEFT", "")};
static KeptPlan update_states = {"UPDATE loyalty.limit_state s SET ring = u.ring"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u (limit_id, subject, ring)"
	" WHERE s.limit_id = u.limit_id AND s.subject = u.subject"};
static KeptPlan select_uses = {"SELECT source_id, limit_id, subject, bucket, granted, active"
	" FROM loyalty.limit_use WHERE source_id = ANY ($1) ORDER BY source_id, limit_id"};
static KeptPlan upsert_uses = {"INSERT INTO loyalty.limit_use AS w (source_id, limit_id, subject, bucket, granted, active)"
	" SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) u"
	" ON CONFLICT (source_id, limit_id) DO UPDATE SET subject = excluded.subject,"
	" bucket = excluded.bucket, granted = excluded.granted, active = excluded.active"};
static KeptPlan insert_decisions = {"INSERT INTO loyalty.limit_decision (source_id, limit_id, subject, verdict,"
	" reason, wanted, used, granted, points_wanted, points)"
	" SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),"
	" pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10)) u"};

/* ------------------------------------------------------------------------
 * The gate
 * ------------------------------------------------------------------------ */

/* Tell whether any programme has a limit, or had one. */
bool
LimitsExist(void)
{
	static bool exist;
	static bool known = false;
	static uint64 generation;

	while (!known || generation != ProgramGeneration())
	{
		known = false;
		generation = ProgramGeneration();
		/* what is cached is true for every transaction, whatever this one sees */
		PushActiveSnapshot(GetLatestSnapshot());
		if (SPI_execute("SELECT FROM loyalty.velocity_limit LIMIT 1", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read the limits");
		exist = SPI_processed > 0;
		known = true;
		PopActiveSnapshot();
	}
	return exist;
}

/* Begin with the limits of a chunk; lives in the current memory context. */
LimitBook *
LimitsOpen(void)
{
	LimitBook  *book = palloc0(sizeof(LimitBook));

	book->context = CurrentMemoryContext;
	return book;
}

/* ------------------------------------------------------------------------
 * Keys
 * ------------------------------------------------------------------------ */

/* By limit and subject, as the primary key of limit_state. */
static int
compare_states(const void *a, const void *b)
{
	const SubjectState *left = a;
	const SubjectState *right = b;
	int			nleft;
	int			nright;
	int			order;

	if (left->limit_id != right->limit_id)
		return left->limit_id < right->limit_id ? -1 : 1;
	nleft = (int) VARSIZE_ANY_EXHDR(left->subject);
	nright = (int) VARSIZE_ANY_EXHDR(right->subject);
	order = memcmp(VARDATA_ANY(left->subject), VARDATA_ANY(right->subject), Min(nleft, nright));
	return order != 0 ? order : (nleft > nright) - (nleft < nright);
}

/* Note the key of a use. */
static void
add_key(LimitBook *book, const LimitUse *use, int32 program_id)
{
	SubjectState *state = &book->state[book->nstates++];

	memset(state, 0, sizeof(SubjectState));
	state->limit_id = use->limit_id;
	state->subject = use->subject;
	state->program_id = program_id;
	if (use->limit != NULL)
	{
		state->buckets = use->limit->buckets;
		state->subject_kind = use->limit->subject_kind;
	}
}

/* Keep one of equal keys, one that knows its limit where there is any. */
static void
drop_duplicates(LimitBook *book)
{
	int			n = 0;

	qsort(book->state, book->nstates, sizeof(SubjectState), compare_states);
	for (int i = 0; i < book->nstates; i++)
	{
		if (n == 0 || compare_states(&book->state[n - 1], &book->state[i]) != 0)
			book->state[n++] = book->state[i];
		else if (book->state[n - 1].buckets == 0)
			book->state[n - 1] = book->state[i];
	}
	book->nstates = n;
}

/* The state of a use. */
static SubjectState *
find_state(const LimitBook *book, const LimitUse *use)
{
	SubjectState	key = {.limit_id = use->limit_id,.subject = use->subject};

	return bsearch(&key, book->state, book->nstates, sizeof(SubjectState), compare_states);
}

/* Collect the keys of all uses of the events, in order. */
void
LimitsKeys(LimitBook *book)
{
	int			size = 0;
	ListCell   *cell;

	foreach(cell, book->events)
	{
		const EventLimits *limits = lfirst(cell);

		size += limits->nuses + limits->nold;
	}
	book->state = palloc(sizeof(SubjectState) * Max(size, 1));
	book->nstates = 0;
	foreach(cell, book->events)
	{
		const EventLimits *limits = lfirst(cell);

		for (int i = 0; i < limits->nuses; i++)
			add_key(book, &limits->use[i], limits->use[i].limit->program_id);
		for (int i = 0; i < limits->nold; i++)
			add_key(book, &limits->old[i], 0);
	}
	drop_duplicates(book);
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------ */

/* The keys as arguments. */
static void
key_columns(const LimitBook *book, int ncolumns, Columns *columns)
{
	static const Oid types[4] = {INT4OID, TEXTOID, INT4OID, TEXTOID};

	ColumnsInit(columns, book->nstates, ncolumns, types);
	for (int i = 0; i < book->nstates; i++)
	{
		const SubjectState *state = &book->state[i];

		ColumnsPut(columns, 0, Int32GetDatum(state->limit_id));
		ColumnsPut(columns, 1, PointerGetDatum(state->subject));
		if (ncolumns == 4)
		{
			ColumnsPut(columns, 2, Int32GetDatum(state->program_id));
			ColumnsPut(columns, 3, state->subject_kind);
			columns->isnull[3][columns->n] = state->subject_kind == 0;
		}
		columns->n++;
	}
}

/* Read a ring from its row; one that nothing was added to is empty. */
static void
read_ring(SubjectState *state, Datum value)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	if (VARSIZE_ANY_EXHDR(bytes) == 0)
		ring_init(&state->ring, Max(state->buckets, 1));
	else if (ring_decode((uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), &state->ring) != CORE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_LY_BROKEN_BOOKS),
				 errmsg("the ring of a subject of limit %d is damaged", state->limit_id)));
}

/* Take the rows of the last statement. */
static void
read_states(LimitBook *book)
{
	SPITupleTable *table = SPI_tuptable;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		n = SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull);
		SubjectState *state = &book->state[DatumGetInt64(n) - 1];
		MemoryContext old = MemoryContextSwitchTo(book->context);
		Datum		ring = SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull);

		if (!isnull)			/* a quote asks for rows that are not there */
			read_ring(state, ring);
		state->blocked = DatumGetBool(SPI_getbinval(table->vals[i], table->tupdesc, 3, &isnull));
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(table);
}

/* Let every use know its state. */
static void
join_states(LimitBook *book)
{
	ListCell   *cell;

	foreach(cell, book->events)
	{
		EventLimits *limits = lfirst(cell);

		for (int i = 0; i < limits->nuses; i++)
			limits->use[i].state = find_state(book, &limits->use[i]);
		for (int i = 0; i < limits->nold; i++)
			limits->old[i].state = find_state(book, &limits->old[i]);
	}
}

/* Lock the rows of the keys, first made where they are missing. */
void
LimitsLockKeys(LimitBook *book)
{
	Columns		columns;

	if (book->nstates == 0)
		return;
	key_columns(book, 2, &columns);
	ColumnsRun(&insert_states, &columns, SPI_OK_INSERT);
	key_columns(book, 4, &columns);
	ColumnsRun(&lock_states, &columns, SPI_OK_SELECT);
	/* a row that is there but not visible to an old snapshot */
	if (SPI_processed != (uint64) book->nstates)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a subject of a limit appeared meanwhile"),
				 errhint("Try again.")));
	read_states(book);
}

/* Lock the rows of the keys and let the events know them. */
void
LimitsLock(LimitBook *book)
{
	LimitsLockKeys(book);
	join_states(book);
}

/* Read the rows of the keys, for a quote; a missing one is empty. */
void
LimitsRead(LimitBook *book)
{
	Columns		columns;

	if (book->nstates == 0)
		return;
	for (int i = 0; i < book->nstates; i++)
		ring_init(&book->state[i].ring, Max(book->state[i].buckets, 1));
	key_columns(book, 4, &columns);
	ColumnsRun(&read_states_plan, &columns, SPI_OK_SELECT);
	read_states(book);
	join_states(book);
}

/* An integer of a row of a result. */
static int64
number_at(SPITupleTable *table, uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull));
}

/* The first row of a source, or of those after it. */
static uint64
first_row(SPITupleTable *table, uint64 count, int64 source_id)
{
	uint64		first = 0;
	uint64		last = count;

	while (first < last)
	{
		uint64		middle = (first + last) / 2;

		if (number_at(table, middle, 1) < source_id)
			first = middle + 1;
		else
			last = middle;
	}
	return first;
}

/* Take what one source used from the rows, which are in the order of sources. */
static void
take_old(EventLimits *limits, SPITupleTable *table, uint64 count)
{
	uint64		first = first_row(table, count, limits->source_id);
	bool		isnull;

	while (first + limits->nold < count &&
		   number_at(table, first + limits->nold, 1) == limits->source_id)
		limits->nold++;
	limits->old = palloc0(sizeof(LimitUse) * Max(limits->nold, 1));
	for (int i = 0; i < limits->nold; i++)
	{
		HeapTuple	row = table->vals[first + i];
		LimitUse   *old = &limits->old[i];

		old->limit_id = DatumGetInt32(SPI_getbinval(row, table->tupdesc, 2, &isnull));
		old->subject = DatumGetTextPCopy(SPI_getbinval(row, table->tupdesc, 3, &isnull));
		old->bucket = number_at(table, first + i, 4);
		old->granted = number_at(table, first + i, 5);
		old->active = DatumGetBool(SPI_getbinval(row, table->tupdesc, 6, &isnull));
	}
}

/* Read what sources used so far into the events of the book. */
void
LimitsReadOld(LimitBook *book, const int64 *sources, int n)
{
	static const Oid type = INT8OID;
	Columns		columns;
	SPITupleTable *table;
	uint64		count;
	ListCell   *cell;

	ColumnsInit(&columns, n, 1, &type);
	for (int i = 0; i < n; i++)
	{
		ColumnsPut(&columns, 0, Int64GetDatum(sources[i]));
		columns.n++;
	}
	ColumnsRun(&select_uses, &columns, SPI_OK_SELECT);
	table = SPI_tuptable;
	count = SPI_processed;
	foreach(cell, book->events)
		take_old(lfirst(cell), table, count);
	SPI_freetuptable(table);
}

/* ------------------------------------------------------------------------
 * Writing back
 * ------------------------------------------------------------------------ */

/* The stored form of a ring, in no more room than it needs: a chunk has thousands of them. */
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

/* Write the rings that changed. */
static void
write_states(LimitBook *book)
{
	static const Oid types[3] = {INT4OID, TEXTOID, BYTEAOID};
	Columns		columns;

	ColumnsInit(&columns, book->nstates, 3, types);
	for (int i = 0; i < book->nstates; i++)
	{
		const SubjectState *state = &book->state[i];

		if (!state->changed)
			continue;
		ColumnsPut(&columns, 0, Int32GetDatum(state->limit_id));
		ColumnsPut(&columns, 1, PointerGetDatum(state->subject));
		ColumnsPut(&columns, 2, ring_datum(&state->ring));
		columns.n++;
	}
	if (columns.n == 0)
		return;
	ColumnsRun(&update_states, &columns, SPI_OK_UPDATE);
	if (SPI_processed != (uint64) columns.n)
		elog(ERROR, "wrote " UINT64_FORMAT " rings of %d", SPI_processed, columns.n);
}

/* Add what an event used, or does not use any more, to the rows. */
static void
put_use(Columns *columns, int64 source_id, const LimitUse *use, bool active)
{
	ColumnsPut(columns, 0, Int64GetDatum(source_id));
	ColumnsPut(columns, 1, Int32GetDatum(use->limit_id));
	ColumnsPut(columns, 2, PointerGetDatum(use->subject));
	ColumnsPut(columns, 3, Int64GetDatum(use->bucket));
	ColumnsPut(columns, 4, Int64GetDatum(use->granted));
	ColumnsPut(columns, 5, BoolGetDatum(active));
	columns->n++;
}

/* Tell whether a limit judged an event. */
static bool
was_judged(const EventLimits *limits, int32 limit_id)
{
	for (int i = 0; i < limits->nuses; i++)
	{
		if (limits->use[i].limit_id == limit_id && limits->use[i].judged)
			return true;
	}
	return false;
}

/* Write what each event used. */
static void
write_uses(LimitBook *book)
{
	static const Oid types[6] = {INT8OID, INT4OID, TEXTOID, INT8OID, INT8OID, BOOLOID};
	Columns		columns;
	ListCell   *cell;
	int			size = 0;

	foreach(cell, book->events)
		size += ((EventLimits *) lfirst(cell))->nuses + ((EventLimits *) lfirst(cell))->nold;
	ColumnsInit(&columns, size, 6, types);
	foreach(cell, book->events)
	{
		const EventLimits *limits = lfirst(cell);

		for (int i = 0; i < limits->nuses; i++)
		{
			if (limits->use[i].judged)
				put_use(&columns, limits->source_id, &limits->use[i], limits->use[i].active);
		}
		for (int i = 0; i < limits->nold; i++)
		{
			if (limits->old[i].active && !was_judged(limits, limits->old[i].limit_id))
				put_use(&columns, limits->source_id, &limits->old[i], false);
		}
	}
	if (columns.n > 0)
		ColumnsRun(&upsert_uses, &columns, SPI_OK_INSERT);
}

/* Write the decisions. */
static void
write_decisions(LimitBook *book)
{
	static const Oid types[10] = {INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	static const char *const verdicts[] = {"allow", "clip", "hold", "reject"};
	Columns		columns;
	ListCell   *cell;

	if (book->decisions == NIL)
		return;
	ColumnsInit(&columns, list_length(book->decisions), 10, types);
	foreach(cell, book->decisions)
	{
		const LimitDecision *decision = lfirst(cell);

		ColumnsPut(&columns, 0, Int64GetDatum(decision->source_id));
		ColumnsPut(&columns, 1, Int32GetDatum(decision->use->limit_id));
		ColumnsPut(&columns, 2, PointerGetDatum(decision->use->subject));
		ColumnsPut(&columns, 3, CStringGetTextDatum(verdicts[decision->verdict]));
		ColumnsPut(&columns, 4, CStringGetTextDatum(decision->blocked ? "blocked" : decision->late ? "late" : "reached"));
		ColumnsPut(&columns, 5, Int64GetDatum(decision->wanted));
		ColumnsPut(&columns, 6, Int64GetDatum(decision->used));
		ColumnsPut(&columns, 7, Int64GetDatum(decision->granted));
		ColumnsPut(&columns, 8, Int64GetDatum(decision->points_wanted));
		ColumnsPut(&columns, 9, Int64GetDatum(decision->points));
		columns.n++;
	}
	ColumnsRun(&insert_decisions, &columns, SPI_OK_INSERT);
}

/* Write all that changed. */
void
LimitsFlush(LimitBook *book)
{
	write_states(book);
	write_uses(book);
	write_decisions(book);
}

/* ------------------------------------------------------------------------
 * For SQL
 * ------------------------------------------------------------------------ */

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

PG_FUNCTION_INFO_V1(loyalty_check_limit);

/* check_limit(name, event, subject, condition): compile a limit or raise. */
Datum
loyalty_check_limit(PG_FUNCTION_ARGS)
{
	char	   *arguments[4];

	for (int i = 0; i < 4; i++)
		arguments[i] = PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
	if (arguments[0] == NULL || arguments[1] == NULL || arguments[2] == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_RULE),
				 errmsg("a limit needs a name, an event and a subject")));
	ProgramCheckLimit(arguments[0], arguments[1], arguments[2], arguments[3]);
	PG_RETURN_VOID();
}
