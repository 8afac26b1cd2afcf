/*
 * admit.c
 *	  What must be known of events before they are awarded: activities under a
 *	  policy of their kind, and purchases that somebody enters for themselves.
 *
 * The award comes here where a programme that a statement concerns has policies
 * or knows its cashiers; elsewhere it costs one comparison an event.  What is
 * decided stands in SQL, under the locks of the events' accounts, in the order of
 * the events.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "award.h"
#include "compat.h"
#include "source.h"

/* Tell whether something is to be asked about events of a kind in a programme. */
bool
AdmitConcerns(const Program *program, RuleEvent kind)
{
	return (kind == ON_ACTIVITY && program->has_policies) || program->knows_cashiers;
}

/*
 * Ask about events; the answers are those of (source_id, verdict, reason, detail,
 * factor).  A void activity is asked about, too: it gives back what it claims.
 */
static void
ask(const char *sql, Event **event, int n)
{
	Oid			types[2] = {INT8ARRAYOID, BOOLOID};
	Datum	   *ids = palloc(sizeof(Datum) * (n + 1));
	Datum		values[2];
	int			nids = 0;

	for (int i = 0; i < n; i++)
	{
		if (event[i]->has_member && (!event[i]->is_void || event[i]->kind == ON_ACTIVITY))
			ids[nids++] = Int64GetDatum(event[i]->source_id);
	}
	values[0] = PointerGetDatum(construct_array(ids, nids, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = BoolGetDatum(n > 0 && event[0]->kind == ON_ACTIVITY);
	if (SPI_execute_with_args(sql, 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not admit events");
}

/* Take down what was answered about one event. */
static void
take_answer(Event *event, HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	char	   *verdict = SPI_getvalue(row, desc, 2);
	Datum		factor = SPI_getbinval(row, desc, 5, &isnull);

	event->refused |= strcmp(verdict, "refused") == 0;
	if (strcmp(verdict, "held") == 0)
	{
		event->hold_reason = SPI_getvalue(row, desc, 3);
		event->hold_detail = SPI_getvalue(row, desc, 4);
	}
	if (!isnull)
		event->factor = DatumGetNumericCopy(factor);
}

/* Take down the answers. */
static void
take_answers(Event **event, int n)
{
	SPITupleTable *table = SPI_tuptable;

	for (uint64 r = 0; r < SPI_processed; r++)
	{
		bool		isnull;
		int64		source_id = DatumGetInt64(SPI_getbinval(table->vals[r], table->tupdesc, 1, &isnull));

		for (int i = 0; i < n; i++)
		{
			if (event[i]->source_id == source_id)
				take_answer(event[i], table->vals[r], table->tupdesc);
		}
	}
	SPI_freetuptable(table);
}

/* Decide which events may be awarded, and note it; their accounts are locked by the caller. */
void
AdmitEvents(Event **event, int n)
{
	ask("SELECT source_id, verdict, reason, detail, factor FROM loyalty.admit($1, $2)", event, n);
	take_answers(event, n);
}

/* Read what was decided of an event when it was new. */
void
AdmitRead(const Program *program, Event *event)
{
	if (event->kind != ON_ACTIVITY || !program->has_policies)
		return;
	ask("SELECT source_id, verdict, reason, detail, factor FROM loyalty.admitted($1) WHERE $2", &event, 1);
	take_answers(&event, 1);
}

/* Give what a member gets for having done all of a set. */
void
AdmitComplete(Event **event, int n)
{
	bool		before = SourceReceiving(true);

	PG_TRY();
	{
		ask("SELECT loyalty.complete_sets($1) WHERE $2", event, n);
	}
	PG_FINALLY();
	{
		SourceReceiving(before);
	}
	PG_END_TRY();
}
