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

#include "columns.h"

/* Holds that ended by themselves have their room back, once: under the lock of the state. */
static KeptPlan lapse_uses = {"UPDATE loyalty.limit_use w SET active = false, held_until = NULL"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u (n, limit_id, subject)"
	" WHERE w.limit_id = u.limit_id AND w.subject = u.subject AND w.active AND w.held_until <= pg_catalog.now()"
	" RETURNING u.n, w.bucket, w.granted"};

/* Take what holds used that ended by themselves out of the rings of locked states. */
static void
drop_lapsed(LimitBook *book)
{
	static const Oid types[3] = {INT4OID, INT4OID, TEXTOID};
	Columns		columns;

	ColumnsInit(&columns, book->nstates, 3, types);
	for (int i = 0; i < book->nstates; i++)
	{
		ColumnsPut(&columns, 0, Int32GetDatum(i));
		ColumnsPut(&columns, 1, Int32GetDatum(book->state[i].limit_id));
		ColumnsPut(&columns, 2, PointerGetDatum(book->state[i].subject));
		columns.n++;
	}
	ColumnsRun(&lapse_uses, &columns, SPI_OK_UPDATE_RETURNING);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		SubjectState *state = &book->state[DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull))];

		ring_add(&state->ring, DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull)),
				 -DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull)));
		state->changed = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Find and lock the limits that concern a redemption; false where there are none. */
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
	LimitsKeys(book);
	LimitsLock(book);
	drop_lapsed(book);
	return true;
}

/* Write down what was decided of a redemption. */
void
SpendCount(const Event *event)
{
	LimitsFlush(event->limits->book);
}

/* Note until when a hold uses what it uses; DT_NOEND: it is no hold any more. */
void
SpendHold(int64 source_id, TimestampTz held_until)
{
	Oid			types[2] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[2] = {Int64GetDatum(source_id), TimestampTzGetDatum(held_until)};
	char		nulls[2] = {' ', held_until == DT_NOEND ? 'n' : ' '};

	if (SPI_execute_with_args("UPDATE loyalty.limit_use SET held_until = $2 WHERE source_id = $1",
							  2, types, values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not note what a hold uses of limits");
}

/* Read what a source used and lock its states. */
static bool
lock_uses(LimitBook *book, EventLimits *limits)
{
	limits->nold = 0;
	LimitsReadOld(book, &limits->source_id, 1);
	if (limits->nold == 0)
		return false;
	LimitsKeys(book);
	LimitsLock(book);
	return true;
}

/*
 * Leave so many points and so much money of what a redemption used of limits.
 * The rest goes back.  False where the room of a hold went to others meanwhile,
 * as it ended by itself.
 */
bool
SpendLeave(Program *program, int64 source_id, int64 points, int64 money, bool held)
{
	LimitBook  *book = LimitsOpen();
	Event		event = {.source_id = source_id};
	EventLimits *limits = LimitsOf(book, &event);
	bool		stands = true;

	/* whoever holds the state may end a hold: what it uses is read again under the lock */
	if (!lock_uses(book, limits) || (held && !lock_uses(book, limits)))
		return true;
	LimitsPin(limits, program);
	if (limits->nuses != limits->nold)
		elog(ERROR, "redemption " INT64_FORMAT " used limits of another programme", source_id);
	for (int i = 0; i < limits->nuses; i++)
		stands &= limits->use[i].active;
	LimitsLeave(limits, points, money);
	LimitsFlush(book);
	if (held)
		SpendHold(source_id, DT_NOEND);
	return stands;
}
