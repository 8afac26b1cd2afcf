/*
 * budget.c
 *	  The rows of velocity limits: locked once a chunk, read, written back.
 *
 * Owns limit_subject, limit_used and limit_decision.  Rows of limit_subject that
 * are missing are inserted, and all are locked, in the order of (programme,
 * subject), after the accounts.  Decides nothing.
 */
#include "limit.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "columns.h"
#include "compat.h"
#include "errors.h"

#define FEW_ROWS 4				/* one at a time; more at once */

/* One row; the arguments are those of key_types and the new value */
static const Oid key_types[3] = {INT4OID, TEXTOID, BYTEAOID};
static KeptPlan read_row_plan = {"SELECT rings FROM loyalty.limit_subject WHERE program_id = $1 AND subject = $2"};
static KeptPlan lock_row_plan = {"SELECT rings FROM loyalty.limit_subject WHERE program_id = $1 AND subject = $2 FOR NO KEY UPDATE"};
static KeptPlan insert_row_plan = {"INSERT INTO loyalty.limit_subject (program_id, subject) VALUES ($1, $2)"
	" ON CONFLICT (program_id, subject) DO NOTHING"};
static KeptPlan update_row_plan = {"UPDATE loyalty.limit_subject SET rings = $3 WHERE program_id = $1 AND subject = $2"};

/*
 * Many; as in the ledger a row at a time, in the order of the arrays.  Each is
 * made or locked before the next one: whoever made a later row first could
 * wait for an earlier one of somebody who waits for the later.
 */
static KeptPlan lock_rows_plan = {"INSERT INTO loyalty.limit_subject AS s (program_id, subject)"
	" SELECT u.program_id, u.subject FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u (program_id, subject)"
	" ON CONFLICT (program_id, subject) DO UPDATE SET rings = s.rings WHERE false"};
static KeptPlan read_rows_plan = {"SELECT s.rings, u.n"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY u (program_id, subject, n)"
	" JOIN loyalty.limit_subject s ON s.program_id = u.program_id AND s.subject = u.subject"};
static KeptPlan update_rows_plan = {"UPDATE loyalty.limit_subject s SET rings = u.rings"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u (program_id, subject, rings)"
	" WHERE s.program_id = u.program_id AND s.subject = u.subject"};

static KeptPlan blocked_plan = {"SELECT u.n"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) u (program_id, kind, subject, n)"
	" WHERE EXISTS (SELECT FROM loyalty.blocked_subject b WHERE b.program_id = u.program_id AND b.kind = u.kind"
	"  AND b.subject = u.subject AND b.until > pg_catalog.now())"};

#define USES_INSERT "INSERT INTO loyalty.limit_used AS w (source_id, uses) "
#define USES_CONFLICT " ON CONFLICT (source_id) DO UPDATE SET uses = excluded.uses"

static KeptPlan select_uses = {"SELECT source_id, uses FROM loyalty.limit_used WHERE source_id = ANY ($1) ORDER BY source_id"};
/* a new transaction has no row: it need not be looked for */
static KeptPlan insert_use = {USES_INSERT "VALUES ($1, $2)"};
static KeptPlan upsert_uses = {USES_INSERT
	"SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u" USES_CONFLICT};
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

/* By programme and subject, as the primary key of limit_subject. */
static int
compare_subjects(const SubjectState *left, const SubjectState *right)
{
	int			nleft;
	int			nright;
	int			order;

	if (left->program_id != right->program_id)
		return left->program_id < right->program_id ? -1 : 1;
	nleft = (int) VARSIZE_ANY_EXHDR(left->subject);
	nright = (int) VARSIZE_ANY_EXHDR(right->subject);
	order = memcmp(VARDATA_ANY(left->subject), VARDATA_ANY(right->subject), Min(nleft, nright));
	return order != 0 ? order : (nleft > nright) - (nleft < nright);
}

/* By programme, subject and limit. */
static int
compare_states(const void *a, const void *b)
{
	const SubjectState *left = a;
	const SubjectState *right = b;
	int			order = compare_subjects(left, right);

	return order != 0 ? order : (left->limit_id > right->limit_id) - (left->limit_id < right->limit_id);
}

/* Note the key of a use. */
static void
add_key(LimitBook *book, const LimitUse *use)
{
	SubjectState *state = &book->state[book->nstates++];

	memset(state, 0, sizeof(SubjectState));
	state->limit_id = use->limit_id;
	state->subject = use->subject;
	state->program_id = use->program_id;
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
	SubjectState key = {.limit_id = use->limit_id,.program_id = use->program_id,.subject = use->subject};

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
			add_key(book, &limits->use[i]);
		for (int i = 0; i < limits->nold; i++)
			add_key(book, &limits->old[i]);
	}
	drop_duplicates(book);
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------ */

/* Find the rows of the states, which are in order. */
static void
group_rows(LimitBook *book)
{
	book->row = palloc0(sizeof(SubjectRow) * book->nstates);
	book->nrows = 0;
	for (int i = 0; i < book->nstates; i++)
	{
		if (i == 0 || compare_subjects(&book->state[i - 1], &book->state[i]) != 0)
			book->row[book->nrows++].first = i;
		book->row[book->nrows - 1].nstates++;
	}
}

/* Put the key of a row before its other values. */
static void
put_key(const LimitBook *book, const SubjectRow *row, Datum *values)
{
	values[0] = Int32GetDatum(book->state[row->first].program_id);
	values[1] = PointerGetDatum(book->state[row->first].subject);
}

/* Take a row of the last statement. */
static void
read_row(LimitBook *book, SubjectRow *row, uint64 n)
{
	bool		isnull;
	MemoryContext old = MemoryContextSwitchTo(book->context);

	row->rings = DatumGetByteaPCopy(SPI_getbinval(SPI_tuptable->vals[n], SPI_tuptable->tupdesc, 1, &isnull));
	LimitsReadRings(row, &book->state[row->first]);
	MemoryContextSwitchTo(old);
}

/* Refuse to go on where a row is there but not visible to an old snapshot. */
static void
raise_appeared(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("a subject of a limit appeared meanwhile"),
			 errhint("Try again.")));
}

/* Lock one row; where it is missing it is made, and is then locked by that. */
static void
lock_row(LimitBook *book, SubjectRow *row)
{
	Datum		key[2];

	put_key(book, row, key);
	ColumnsRunOne(&lock_row_plan, 2, key_types, key, SPI_OK_SELECT);
	if (SPI_processed == 0)
	{
		ColumnsRunOne(&insert_row_plan, 2, key_types, key, SPI_OK_INSERT);
		if (SPI_processed == 1)
		{
			LimitsReadRings(row, &book->state[row->first]);
			return;
		}
		ColumnsRunOne(&lock_row_plan, 2, key_types, key, SPI_OK_SELECT);
	}
	if (SPI_processed == 0)
		raise_appeared();
	read_row(book, row, 0);
	SPI_freetuptable(SPI_tuptable);
}

/* Lock many rows at once. */
static void
lock_rows(LimitBook *book)
{
	Columns		columns;
	Datum		key[2];

	ColumnsInit(&columns, book->nrows, 2, key_types);
	for (int i = 0; i < book->nrows; i++)
	{
		put_key(book, &book->row[i], key);
		ColumnsPut(&columns, 0, key[0]);
		ColumnsPut(&columns, 1, key[1]);
		columns.n++;
	}
	ColumnsRun(&lock_rows_plan, &columns, SPI_OK_INSERT);
	ColumnsRun(&read_rows_plan, &columns, SPI_OK_SELECT);
	if (SPI_processed != (uint64) book->nrows)
		raise_appeared();
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		n = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull);

		read_row(book, &book->row[DatumGetInt64(n) - 1], i);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Ask the lists of blocked subjects, where a limit has one. */
static void
read_blocked(LimitBook *book)
{
	static const Oid types[4] = {INT4OID, TEXTOID, TEXTOID, INT4OID};
	Columns		columns;

	columns.n = 0;
	for (int i = 0; i < book->nstates; i++)
	{
		const SubjectState *state = &book->state[i];

		if (state->subject_kind == 0)
			continue;
		if (columns.n == 0)
			ColumnsInit(&columns, book->nstates, 4, types);
		ColumnsPut(&columns, 0, Int32GetDatum(state->program_id));
		ColumnsPut(&columns, 1, state->subject_kind);
		ColumnsPut(&columns, 2, PointerGetDatum(state->subject));
		ColumnsPut(&columns, 3, Int32GetDatum(i));
		columns.n++;
	}
	if (columns.n == 0)
		return;
	ColumnsRun(&blocked_plan, &columns, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		n = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		book->state[DatumGetInt32(n)].blocked = true;
	}
	SPI_freetuptable(SPI_tuptable);
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

/* Lock the rows of the keys, made where they are missing, in order. */
void
LimitsLockKeys(LimitBook *book)
{
	if (book->nstates == 0)
		return;
	group_rows(book);
	if (book->nrows > FEW_ROWS)
		lock_rows(book);
	else
	{
		for (int i = 0; i < book->nrows; i++)
			lock_row(book, &book->row[i]);
	}
	read_blocked(book);
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
	if (book->nstates == 0)
		return;
	group_rows(book);
	for (int i = 0; i < book->nrows; i++)
	{
		SubjectRow *row = &book->row[i];
		Datum		key[2];

		put_key(book, row, key);
		ColumnsRunOne(&read_row_plan, 2, key_types, key, SPI_OK_SELECT);
		if (SPI_processed == 0)
			LimitsReadRings(row, &book->state[row->first]);
		else
			read_row(book, row, 0);
		SPI_freetuptable(SPI_tuptable);
	}
	read_blocked(book);
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

/* Take what one source used from its row; the rows are in the order of sources. */
static void
take_old(EventLimits *limits, SPITupleTable *table, uint64 count)
{
	uint64		row = first_row(table, count, limits->source_id);
	bool		isnull;

	if (row < count && number_at(table, row, 1) == limits->source_id)
		limits->nold = LimitsReadUses(DatumGetByteaPP(SPI_getbinval(table->vals[row], table->tupdesc, 2, &isnull)),
									  &limits->old);
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

/* Tell whether a ring of a row changed. */
static bool
row_changed(const LimitBook *book, const SubjectRow *row)
{
	for (int i = 0; i < row->nstates; i++)
	{
		if (book->state[row->first + i].changed)
			return true;
	}
	return false;
}

/* Put the key and the new rings of a row. */
static void
put_row(const LimitBook *book, const SubjectRow *row, Datum *values)
{
	put_key(book, row, values);
	values[2] = LimitsRingsDatum(row, &book->state[row->first]);
}

/* Write the rings that changed, a row at a time. */
static void
write_few_rows(const LimitBook *book)
{
	for (int i = 0; i < book->nrows; i++)
	{
		Datum		values[3];

		if (!row_changed(book, &book->row[i]))
			continue;
		put_row(book, &book->row[i], values);
		ColumnsRunOne(&update_row_plan, 3, key_types, values, SPI_OK_UPDATE);
		if (SPI_processed != 1)
			elog(ERROR, "a subject of a limit vanished under its lock");
	}
}

/* Write the rings that changed, all rows at once. */
static void
write_many_rows(const LimitBook *book)
{
	Columns		columns;

	ColumnsInit(&columns, book->nrows, 3, key_types);
	for (int i = 0; i < book->nrows; i++)
	{
		Datum		values[3];

		if (!row_changed(book, &book->row[i]))
			continue;
		put_row(book, &book->row[i], values);
		for (int j = 0; j < 3; j++)
			ColumnsPut(&columns, j, values[j]);
		columns.n++;
	}
	if (columns.n == 0)
		return;
	ColumnsRun(&update_rows_plan, &columns, SPI_OK_UPDATE);
	if (SPI_processed != (uint64) columns.n)
		elog(ERROR, "wrote " UINT64_FORMAT " subjects of limits of %d", SPI_processed, columns.n);
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

/* By limit. */
static int
compare_uses(const void *a, const void *b)
{
	int32		left = ((const LimitUse *) a)->limit_id;
	int32		right = ((const LimitUse *) b)->limit_id;

	return (left > right) - (left < right);
}

/* What an event uses now, and what it used before and does not use any more; false where that is in its row already. */
static bool
uses_of(const EventLimits *limits, Datum *uses)
{
	LimitUse   *use = palloc(sizeof(LimitUse) * Max(limits->nuses + limits->nold, 1));
	bool		changed = false;
	int			n = 0;

	for (int i = 0; i < limits->nuses; i++)
	{
		if (!limits->use[i].judged)
			continue;
		use[n++] = limits->use[i];
		changed = true;
	}
	for (int i = 0; i < limits->nold; i++)
	{
		if (was_judged(limits, limits->old[i].limit_id))
			continue;
		changed |= limits->old[i].active;
		use[n] = limits->old[i];
		use[n++].active = false;
	}
	if (changed)
	{
		qsort(use, n, sizeof(LimitUse), compare_uses);
		*uses = LimitsUsesDatum(use, n);
	}
	pfree(use);
	return changed;
}

/* Write what each event used. */
static void
write_uses(const LimitBook *book)
{
	static const Oid types[2] = {INT8OID, BYTEAOID};
	Columns		columns;
	ListCell   *cell;
	bool		added = true;

	ColumnsInit(&columns, list_length(book->events), 2, types);
	foreach(cell, book->events)
	{
		const EventLimits *limits = lfirst(cell);
		Datum		uses;

		if (!uses_of(limits, &uses))
			continue;
		ColumnsPut(&columns, 0, Int64GetDatum(limits->source_id));
		ColumnsPut(&columns, 1, uses);
		columns.n++;
		added &= limits->nold == 0;
	}
	if (columns.n == 1 && added)
	{
		Datum		values[2] = {columns.value[0][0], columns.value[1][0]};

		ColumnsRunOne(&insert_use, 2, types, values, SPI_OK_INSERT);
	}
	else if (columns.n > 0)
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
	if (book->nrows > FEW_ROWS)
		write_many_rows(book);
	else
		write_few_rows(book);
	write_uses(book);
	write_decisions(book);
}

/* ------------------------------------------------------------------------
 * For SQL
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_release_limits);

/* release_limits(sources): give back, once, what transactions used. */
Datum
loyalty_release_limits(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	Datum	   *ids;
	int			n;
	int64	   *sources;
	LimitBook  *book;
	ListCell   *cell;

	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, NULL, &n);
	SPI_connect();
	book = LimitsOpen();
	sources = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		Event		event = {.source_id = DatumGetInt64(ids[i])};

		sources[i] = event.source_id;
		LimitsOf(book, &event);
	}
	LimitsReadOld(book, sources, n);
	LimitsKeys(book);
	LimitsLock(book);
	foreach(cell, book->events)
		LimitsForget(lfirst(cell));
	LimitsFlush(book);
	SPI_finish();
	PG_RETURN_VOID();
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
