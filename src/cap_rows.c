/*
 * cap_rows.c
 *	  The rows of caps: counters and uses, read and written back once a chunk.
 *
 * The only writer of cap_state and cap_use.  Decides nothing.
 */
#include "cap_internal.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"

#include "columns.h"
#include "compat.h"

static const char *const period_name[CALENDAR_PERIODS] = {"day", "week", "month", "year", "ever"};

static KeptPlan read_counter = {"SELECT s.used FROM loyalty.cap_state s"
	" JOIN ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) u (rule_id, period, member_id, from_day)"
	" ON s.rule_id = u.rule_id AND s.period = u.period AND s.member_id = u.member_id AND s.from_day = u.from_day"};
static KeptPlan write_counters = {"INSERT INTO loyalty.cap_state AS s (rule_id, period, member_id, from_day, used)"
	" SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5)) u"
	" ON CONFLICT (rule_id, period, member_id, from_day) DO UPDATE SET used = excluded.used"};
static KeptPlan read_uses = {"SELECT u.source_id, u.rule_version_id, v.rule_id, r.program_id,"
	" loyalty.cap_units(v.caps, p.points_scale), b.stock_id, u.member_id, u.day, u.granted, u.active, u.budgeted, u.allowed, u.wanted"
	" FROM loyalty.cap_use u JOIN loyalty.rule_version v USING (rule_version_id) JOIN loyalty.rule r USING (rule_id)"
	" JOIN loyalty.program p USING (program_id) LEFT JOIN loyalty.rule_budget b USING (rule_id)"
	" WHERE u.source_id = ANY ($1) ORDER BY u.source_id, u.rule_version_id"};
static KeptPlan write_uses = {"INSERT INTO loyalty.cap_use AS w (source_id, rule_version_id, member_id, day, granted, active, budgeted, allowed, wanted)"
	" SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),"
	" pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9)) u"
	" ON CONFLICT (source_id, rule_version_id) DO UPDATE SET member_id = excluded.member_id, day = excluded.day,"
	" granted = excluded.granted, active = excluded.active, budgeted = excluded.budgeted, allowed = excluded.allowed, wanted = excluded.wanted"};
static KeptPlan remove_uses = {"DELETE FROM loyalty.cap_use w"
	" USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u (source_id, rule_version_id)"
	" WHERE w.source_id = u.source_id AND w.rule_version_id = u.rule_version_id"};

/* The key of a counter as arguments. */
static void
key_columns(Columns *columns, const CounterKey *key)
{
	ColumnsPut(columns, 0, Int32GetDatum(key->rule_id));
	ColumnsPut(columns, 1, CStringGetTextDatum(period_name[key->period]));
	ColumnsPut(columns, 2, Int64GetDatum(key->member_id));
	ColumnsPut(columns, 3, DateADTGetDatum(key->from));
}

/* What a counter stands at in its row. */
int64
CapReadUsed(const CounterKey *key)
{
	static const Oid types[4] = {INT4OID, TEXTOID, INT8OID, DATEOID};
	Columns		columns;
	bool		isnull;
	int64		used = 0;

	ColumnsInit(&columns, 1, 4, types);
	key_columns(&columns, key);
	columns.n = 1;
	ColumnsRun(&read_counter, &columns, SPI_OK_SELECT);
	if (SPI_processed > 0)
		used = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return used;
}

/* An integer of a row of a result, otherwise where it is null. */
static int64
number_at(SPITupleTable *table, uint64 row, int column, int64 otherwise)
{
	bool		isnull;
	Datum		value = SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull);

	if (isnull)
		return otherwise;
	switch (SPI_gettypeid(table->tupdesc, column))
	{
		case BOOLOID:
			return DatumGetBool(value);
		case INT8OID:
			return DatumGetInt64(value);
		default:
			return DatumGetInt32(value);	/* or a date */
	}
}

/* The caps of a version, of a row of a result. */
static void
caps_at(SPITupleTable *table, uint64 row, int column, int64 *cap)
{
	bool		isnull;
	Datum		value = SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull);
	Datum	   *values;
	bool	   *nulls;
	int			n = 0;

	if (!isnull)
		deconstruct_array(DatumGetArrayTypeP(value), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &values, &nulls, &n);
	for (int period = 0; period < CALENDAR_PERIODS; period++)
		cap[period] = period >= n || nulls[period] ? -1 : DatumGetInt64(values[period]);
}

/* Take one use of an event from its row. */
static void
take_use(EventCaps *caps, SPITupleTable *table, uint64 row)
{
	CapUse	   *use = CapAddUse(caps);
	CapStand   *stored = &use->stored;
	bool		isnull;

	use->version_id = (int32) number_at(table, row, 2, 0);
	use->rule_id = (int32) number_at(table, row, 3, 0);
	use->program_id = (int32) number_at(table, row, 4, 0);
	caps_at(table, row, 5, use->cap);
	use->stock_id = number_at(table, row, 6, 0);
	stored->there = true;
	stored->member_id = number_at(table, row, 7, 0);
	stored->day = (int32) number_at(table, row, 8, 0);
	stored->granted = number_at(table, row, 9, 0);
	stored->active = number_at(table, row, 10, 0) != 0;
	stored->budgeted = number_at(table, row, 11, 0) != 0;
	stored->allowed = number_at(table, row, 12, -1);
	stored->wanted = CapKeepNumber(caps->book, DatumGetNumeric(SPI_getbinval(table->vals[row], table->tupdesc, 13, &isnull)));
	use->now = *stored;
	use->drawn = stored->active && stored->budgeted ? stored->granted : 0;
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

		if (number_at(table, middle, 1, 0) < source_id)
			first = middle + 1;
		else
			last = middle;
	}
	return first;
}

/* Read what sources used so far into the events of a book. */
void
CapsReadOld(CapBook *book, const int64 *sources, int n)
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
	ColumnsRun(&read_uses, &columns, SPI_OK_SELECT);
	table = SPI_tuptable;
	count = SPI_processed;
	foreach(cell, book->events)
	{
		EventCaps  *caps = lfirst(cell);
		uint64		row = first_row(table, count, caps->event->source_id);

		for (; row < count && number_at(table, row, 1, 0) == caps->event->source_id; row++)
			take_use(caps, table, row);
	}
	SPI_freetuptable(table);
}

/* Open a book for one event that may have used something; NULL where no rule has caps. */
CapBook *
CapsOpenFor(Event *event)
{
	CapBook    *book;

	if (!CapsExist())
		return NULL;
	book = CapsOpen(CAPS_AWARD);
	CapsAttach(book, event);
	CapsReadOld(book, &event->source_id, 1);
	return book;
}

/* Tell whether a use stands otherwise than its row says. */
static bool
use_changed(const CapUse *use)
{
	const CapStand *a = &use->now;
	const CapStand *b = &use->stored;

	if (!a->there || !b->there)
		return a->there != b->there;
	return a->member_id != b->member_id || a->day != b->day || a->granted != b->granted ||
		a->active != b->active || a->budgeted != b->budgeted || a->allowed != b->allowed ||
		DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a->wanted), NumericGetDatum(b->wanted))) != 0;
}

/* Add a use to the rows to be written. */
static void
put_use(Columns *columns, int64 source_id, const CapUse *use)
{
	ColumnsPut(columns, 0, Int64GetDatum(source_id));
	ColumnsPut(columns, 1, Int32GetDatum(use->version_id));
	ColumnsPut(columns, 2, Int64GetDatum(use->now.member_id));
	ColumnsPut(columns, 3, DateADTGetDatum(use->now.day));
	ColumnsPut(columns, 4, Int64GetDatum(use->now.granted));
	ColumnsPut(columns, 5, BoolGetDatum(use->now.active));
	ColumnsPut(columns, 6, BoolGetDatum(use->now.budgeted));
	ColumnsPut(columns, 7, Int64GetDatum(use->now.allowed));
	columns->isnull[7][columns->n] = use->now.allowed < 0;
	ColumnsPut(columns, 8, NumericGetDatum(use->now.wanted));
	columns->n++;
}

/* Write the uses that changed. */
static void
flush_uses(CapBook *book)
{
	static const Oid types[9] = {INT8OID, INT4OID, INT8OID, DATEOID, INT8OID, BOOLOID, BOOLOID, INT8OID, NUMERICOID};
	Columns		written;
	Columns		removed;
	ListCell   *cell;
	int			size = 0;

	foreach(cell, book->events)
		size += ((EventCaps *) lfirst(cell))->nuses;
	ColumnsInit(&written, size, 9, types);
	ColumnsInit(&removed, size, 2, types);
	foreach(cell, book->events)
	{
		const EventCaps *caps = lfirst(cell);

		for (int i = 0; i < caps->nuses; i++)
		{
			CapUse	   *use = &caps->use[i];

			if (!use_changed(use))
				continue;
			if (use->now.there)
				put_use(&written, caps->event->source_id, use);
			else
			{
				ColumnsPut(&removed, 0, Int64GetDatum(caps->event->source_id));
				ColumnsPut(&removed, 1, Int32GetDatum(use->version_id));
				removed.n++;
			}
			use->stored = use->now;
		}
	}
	if (written.n > 0)
		ColumnsRun(&write_uses, &written, SPI_OK_INSERT);
	if (removed.n > 0)
		ColumnsRun(&remove_uses, &removed, SPI_OK_DELETE);
}

/* Write the counters that changed. */
static void
flush_counters(CapBook *book)
{
	static const Oid types[5] = {INT4OID, TEXTOID, INT8OID, DATEOID, INT8OID};
	HASH_SEQ_STATUS status;
	Columns		columns;
	Counter    *counter;

	if (book->counters == NULL)
		return;
	ColumnsInit(&columns, (int) hash_get_num_entries(book->counters), 5, types);
	hash_seq_init(&status, book->counters);
	while ((counter = hash_seq_search(&status)) != NULL)
	{
		if (counter->used == counter->stored)
			continue;
		key_columns(&columns, &counter->key);
		ColumnsPut(&columns, 4, Int64GetDatum(counter->used));
		columns.n++;
		counter->stored = counter->used;
	}
	if (columns.n > 0)
		ColumnsRun(&write_counters, &columns, SPI_OK_INSERT);
}

/* Write all that changed. */
void
CapsFlush(CapBook *book)
{
	flush_uses(book);
	flush_counters(book);
	CapEmptyPurses(book);
}
