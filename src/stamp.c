/*
 * stamp.c
 *	  Stamp cards: which purchases stamp them, and the arithmetic of stamps.
 *
 * Stamps are lots, as points are: they have days, are spent soonest expiry
 * first, and what was taken back after it was spent is a debt.  Which card a
 * purchase stamps is decided by the code that decides rules; the rest, with
 * every lock, is SQL's business.  Writes nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"

#include "award.h"
#include "compat.h"
#include "errors.h"

/* Stamp the cards of the members who bought; their accounts are locked by the caller. */
void
StampPurchases(const int64 *purchase_ids, int n)
{
	Oid			type = INT8ARRAYOID;
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum		value;

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(purchase_ids[i]);
	value = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
											TYPALIGN_DOUBLE));
	if (SPI_execute_with_args("SELECT loyalty.stamp_purchases($1, true)", 1, &type, &value, NULL,
							  false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not stamp the cards of purchases");
}

PG_FUNCTION_INFO_V1(loyalty_check_card_condition);

/* check_card_condition(card, condition): compile it or raise; NULL is no condition. */
Datum
loyalty_check_card_condition(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(1))
		ProgramCheckCard(PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0)),
						 text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * Deciding
 * ------------------------------------------------------------------------ */

/* Tell whether a card counts purchases of a time. */
static bool
card_is_open(const Card *card, const Event *event)
{
	return event->occurred_at >= card->valid_from && event->occurred_at < card->valid_until &&
		event->recorded_at < card->retired_at;
}

/* Emit what a purchase gives to a card, line by line; nothing where it gives nothing. */
static void
put_stamps(ReturnSetInfo *rsinfo, const Card *card, const int64 *stamps, int n)
{
	Datum	   *lines = palloc(sizeof(Datum) * n);
	Datum		v[2];
	bool		nulls[2] = {false, false};
	bool		any = false;

	for (int i = 0; i < n; i++)
	{
		lines[i] = Int64GetDatum(stamps[i]);
		any |= stamps[i] > 0;
	}
	v[0] = Int32GetDatum(card->card_id);
	v[1] = PointerGetDatum(construct_array(lines, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
	if (any)
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
}

/* Decide every card of a programme, or only one. */
static void
decide_cards(ReturnSetInfo *rsinfo, Program *program, Event *event, int32 only)
{
	int			n = Max(event->nlines, 1);
	int64	   *stamps = palloc(sizeof(int64) * n);

	AwardPrepare(program, event);
	for (int i = 0; i < program->ncards; i++)
	{
		if ((only != 0 && program->card[i].card_id != only) ||
			!card_is_open(&program->card[i], event))
			continue;
		EarnStamps(program, event, &program->card[i], stamps);
		put_stamps(rsinfo, &program->card[i], stamps, n);
	}
}

PG_FUNCTION_INFO_V1(loyalty_stamps_of);

/* stamps_of(program_id, purchase, only_card): which cards it stamps, and what each line gives. */
Datum
loyalty_stamps_of(PG_FUNCTION_ARGS)
{
	Program    *program;
	Event		event;

	InitMaterializedSRF(fcinfo, 0);
	EventFromDatum(PG_GETARG_HEAPTUPLEHEADER(1), ON_PURCHASE, &event);
	program = ProgramPin(PG_GETARG_INT32(0));
	PG_TRY();
	{
		if (program->ncards > 0 && event.has_member && !event.is_void)
			decide_cards((ReturnSetInfo *) fcinfo->resultinfo, program, &event, PG_GETARG_INT32(2));
	}
	PG_FINALLY();
	{
		ProgramUnpin(program);
	}
	PG_END_TRY();
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * Arithmetic
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_stamp_earn);

/* stamp_earn(lots, day, expires_on, amount): what earning posts; a debt is repaid first. */
Datum
loyalty_stamp_earn(PG_FUNCTION_ARGS)
{
	Lot			lot = {.available_from = PG_GETARG_DATEADT(1), .expires_on = PG_GETARG_DATEADT(2),
	.amount = PG_GETARG_INT64(3)};
	LotSet		balance;
	LotSet		delta;

	LotsFromDatum(PG_GETARG_DATUM(0), &balance);
	lotset_init(&delta);
	LotsRaise(lotset_earn(&balance, lot, &delta));
	PG_RETURN_DATUM(LotsToDatum(&delta));
}

PG_FUNCTION_INFO_V1(loyalty_stamp_spend);

/* stamp_spend(lots, amount, day): what spending posts, NULL where there is not so much. */
Datum
loyalty_stamp_spend(PG_FUNCTION_ARGS)
{
	LotSet		balance;
	LotSet		delta;
	CoreStatus	status;

	LotsFromDatum(PG_GETARG_DATUM(0), &balance);
	lotset_init(&delta);
	status = lotset_spend(&balance, PG_GETARG_INT64(1), PG_GETARG_DATEADT(2), &delta);
	if (status == CORE_INSUFFICIENT)
		PG_RETURN_NULL();
	LotsRaise(status);
	PG_RETURN_DATUM(LotsToDatum(&delta));
}

PG_FUNCTION_INFO_V1(loyalty_stamp_take_back);

/* stamp_take_back(lots, posted, amount, day, debt): what taking back posts: the very lots, others, a debt. */
Datum
loyalty_stamp_take_back(PG_FUNCTION_ARGS)
{
	LotSet		balance;
	LotSet		posted;
	LotSet		delta;
	int64		taken;

	LotsFromDatum(PG_GETARG_DATUM(0), &balance);
	LotsFromDatum(PG_GETARG_DATUM(1), &posted);
	lotset_init(&delta);
	LotsRaise(lotset_take_back(&balance, &posted, PG_GETARG_INT64(2), PG_GETARG_DATEADT(3),
							   PG_GETARG_BOOL(4) ? NEGATIVE_ALLOW : NEGATIVE_CLAMP, -1, &delta,
							   &taken));
	PG_RETURN_DATUM(LotsToDatum(&delta));
}

PG_FUNCTION_INFO_V1(loyalty_stamp_restore);

/* stamp_restore(program_id, lots, given, day): what giving lots back posts; those that died by the programme's policy. */
Datum
loyalty_stamp_restore(PG_FUNCTION_ARGS)
{
	Program    *program = ProgramPin(PG_GETARG_INT32(0));
	LotSet		balance;
	LotSet		given;
	LotSet		delta;

	LotsFromDatum(PG_GETARG_DATUM(1), &balance);
	LotsFromDatum(PG_GETARG_DATUM(2), &given);
	lotset_init(&delta);
	LotsRaise(lotset_restore(&balance, &given, PG_GETARG_DATEADT(3), program->restore,
							 program->restore_days, &delta));
	ProgramUnpin(program);
	PG_RETURN_DATUM(LotsToDatum(&delta));
}
