/*
 * spend.c
 *	  Velocity limits on redemptions: finding and locking those that concern
 *	  one, counting it, giving room back.
 *
 * Called under the lock of the account, from which it goes on to the states of
 * the subjects in the order of their keys.  What limits say is decided in
 * limit.c, their rows are budget.c's; this room knows that a hold uses a limit
 * until it ends, and no longer, whoever finds it first.
 */
#include "spend.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"

#include "columns.h"

static KeptPlan insert_holds = {"INSERT INTO loyalty.limit_hold (source_id, limit_id, subject, bucket, granted, held_until)"
	" SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) u"};
static KeptPlan lapse_holds = {"UPDATE loyalty.limit_hold h SET lapsed = true"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u (n, limit_id, subject)"
	" WHERE h.limit_id = u.limit_id AND h.subject = u.subject AND NOT h.lapsed AND h.held_until <= pg_catalog.now()"
	" RETURNING u.n, h.bucket, h.granted"};
static KeptPlan delete_holds = {"DELETE FROM loyalty.limit_hold h USING pg_catalog.unnest($1) u (source_id)"
	" WHERE h.source_id = u.source_id RETURNING h.limit_id, h.lapsed"};

/* An integer of a row of the last result. */
static int64
number_at(uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull));
}

/*
 * Take what holds used that ended by themselves out of the rings of locked
 * states.  Under these locks each is taken out once.
 */
static void
drop_lapsed(EventLimits *limits)
{
	static const Oid types[3] = {INT8OID, INT4OID, TEXTOID};
	Columns		columns;

	ColumnsInit(&columns, limits->nuses, 3, types);
	for (int i = 0; i < limits->nuses; i++)
	{
		ColumnsPut(&columns, 0, Int64GetDatum(i));
		ColumnsPut(&columns, 1, Int32GetDatum(limits->use[i].limit_id));
		ColumnsPut(&columns, 2, PointerGetDatum(limits->use[i].subject));
		columns.n++;
	}
	ColumnsRun(&lapse_holds, &columns, SPI_OK_UPDATE_RETURNING);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		SubjectState *state = limits->use[number_at(i, 1)].state;

		ring_add(&state->ring, number_at(i, 2), -number_at(i, 3));
		state->changed = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Find and lock the limits that concern a redemption, and number it; false where there are none. */
bool
SpendAsk(Ledger *ledger, Program *program, Event *event)
{
	LimitBook  *book = LimitsOpen();
	MemberFacts facts;

	event->limits = LimitsOf(book, event);
	memset(&facts, 0, sizeof(facts));
	AwardPersonFacts(ledger, program, event, &facts);
	EarnFacts(program, event, &facts);
	LimitsFind(event->limits, program, event);
	if (event->limits->nuses == 0)
		return false;
	event->source_id = event->limits->source_id = LedgerNextSource();
	LimitsKeys(book);
	LimitsLock(book);
	drop_lapsed(event->limits);
	return true;
}

/* Write down what was decided of a redemption. */
void
SpendCount(const Event *event)
{
	LimitsFlush(event->limits->book);
}

/* Note until when a hold uses what was counted for it. */
void
SpendHold(const Event *event, TimestampTz held_until)
{
	static const Oid types[6] = {INT8OID, INT4OID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID};
	Columns		columns;

	ColumnsInit(&columns, event->limits->nuses, 6, types);
	for (int i = 0; i < event->limits->nuses; i++)
	{
		const LimitUse *use = &event->limits->use[i];

		ColumnsPut(&columns, 0, Int64GetDatum(event->source_id));
		ColumnsPut(&columns, 1, Int32GetDatum(use->limit_id));
		ColumnsPut(&columns, 2, PointerGetDatum(use->subject));
		ColumnsPut(&columns, 3, Int64GetDatum(use->bucket));
		ColumnsPut(&columns, 4, Int64GetDatum(use->granted));
		ColumnsPut(&columns, 5, TimestampTzGetDatum(held_until));
		columns.n++;
	}
	ColumnsRun(&insert_holds, &columns, SPI_OK_INSERT);
}

/* A source as an argument. */
static void
source_column(int64 source_id, Columns *columns)
{
	static const Oid type = INT8OID;

	ColumnsInit(columns, 1, 1, &type);
	ColumnsPut(columns, 0, Int64GetDatum(source_id));
	columns->n = 1;
}

/*
 * A hold is one no more; its states are locked.  What it used that was given
 * to others as it ended by itself is not given back again: false where there
 * is such.
 */
static bool
end_hold(EventLimits *limits)
{
	Columns		columns;
	bool		stands = true;

	source_column(limits->source_id, &columns);
	ColumnsRun(&delete_holds, &columns, SPI_OK_DELETE_RETURNING);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		HeapTuple	row = SPI_tuptable->vals[i];
		int32		limit_id = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));

		if (!DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull)))
			continue;
		stands = false;
		for (int j = 0; j < limits->nuses; j++)
		{
			if (limits->use[j].limit_id == limit_id)
				limits->use[j].active = false;
		}
	}
	SPI_freetuptable(SPI_tuptable);
	return stands;
}

/*
 * Leave so many points and so much money of what a redemption used of limits,
 * whose account is locked.  The rest goes back.  False where the room of a hold
 * went to others meanwhile, as it ended by itself.
 */
bool
SpendLeave(Program *program, int64 source_id, int64 points, int64 money, bool held)
{
	LimitBook  *book = LimitsOpen();
	Event		event = {.source_id = source_id};
	EventLimits *limits = LimitsOf(book, &event);
	bool		stands = true;

	LimitsReadOld(book, &source_id, 1);
	if (limits->nold == 0)
		return true;
	LimitsKeys(book);
	LimitsLock(book);
	LimitsPin(limits, program);
	if (limits->nuses != limits->nold)
		elog(ERROR, "redemption " INT64_FORMAT " used limits of another programme", source_id);
	if (held)
		stands = end_hold(limits);
	LimitsLeave(limits, points, money);
	LimitsFlush(book);
	return stands;
}

PG_FUNCTION_INFO_V1(loyalty_lock_limits_of);

/* lock_limits_of(sources): lock, in one order, what sources may give room back to. */
Datum
loyalty_lock_limits_of(PG_FUNCTION_ARGS)
{
	Datum	   *values;
	int64	   *sources;
	int			n;
	LimitBook  *book;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &values, NULL, &n);
	sources = palloc(sizeof(int64) * Max(n, 1));
	SPI_connect();
	book = LimitsOpen();
	for (int i = 0; i < n; i++)
	{
		Event		event = {.source_id = sources[i] = DatumGetInt64(values[i])};

		LimitsOf(book, &event);
	}
	LimitsReadOld(book, sources, n);
	LimitsKeys(book);
	LimitsLockKeys(book);
	SPI_finish();
	PG_RETURN_VOID();
}
