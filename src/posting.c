/*
 * posting.c
 *	  The SQL functions that post without a transaction row: adjustments,
 *	  expiry, reviews, tiers set by hand, releases of held awards.
 *
 * Each opens a ledger, locks in ascending order, decides with the pure rooms
 * and flushes.  Writes nothing itself.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/typcache.h"

#include "award.h"
#include "compat.h"
#include "errors.h"
#include "hold.h"
#include "ledger.h"
#include "lifetime.h"
#include "program.h"
#include "tier.h"

/* Lock the account of a member, which must exist: its own or its household's. */
static Account *
lock_account(Ledger *ledger, int64 account_id)
{
	Account    *account;

	LedgerLock(ledger, &account_id, 1);
	account = LedgerAccount(ledger, account_id);
	if (account == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_MEMBER),
				 errmsg("member " INT64_FORMAT " does not exist", account_id),
				 errhint("loyalty.enroll makes a member.")));
	return LedgerHome(ledger, account);
}

/* A text argument, NULL where it is null. */
static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

PG_FUNCTION_INFO_V1(loyalty_post);

/* post(account_id, kind, lots, tally, occurred_at, reason, key, source_id): one entry. */
Datum
loyalty_post(PG_FUNCTION_ARGS)
{
	Ledger	   *ledger;
	LotSet		lots;
	TallySet	tally;
	Posting		posting = {0};
	int64		seq;

	for (int i = 0; i < 5; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of post must not be null", i + 1)));
	}
	SPI_connect();
	ledger = LedgerOpen();
	posting.kind = text_argument(fcinfo, 1);
	LotsFromDatum(PG_GETARG_DATUM(2), &lots);
	TallyFromDatum(PG_GETARG_DATUM(3), &tally);
	posting.lots = &lots;
	posting.tally = &tally;
	posting.occurred_at = PG_GETARG_TIMESTAMPTZ(4);
	posting.reason = text_argument(fcinfo, 5);
	posting.key = text_argument(fcinfo, 6);
	posting.source_id = PG_ARGISNULL(7) ? 0 : PG_GETARG_INT64(7);
	posting.detail = PG_ARGISNULL(8) ? (Datum) 0 : PG_GETARG_DATUM(8);
	seq = LedgerPost(ledger, lock_account(ledger, PG_GETARG_INT64(0)), &posting);
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(seq);
}

/* Return lots past SPI_finish. */
static Datum
finish_with_lots(const LotSet *lots)
{
	Datum		inside = LotsToDatum(lots);
	Datum		outside = SPI_datumTransfer(inside, false, -1);

	SPI_finish();
	return outside;
}

PG_FUNCTION_INFO_V1(loyalty_settle_holds);

/* settle_holds(account_id): lock an account and write down which of its holds lapsed. */
Datum
loyalty_settle_holds(PG_FUNCTION_ARGS)
{
	Ledger	   *ledger;
	Account    *account;
	Program    *program;

	SPI_connect();
	ledger = LedgerOpen();
	account = lock_account(ledger, PG_GETARG_INT64(0));
	if (account->nholds > 0)
	{
		program = ProgramPin(account->program_id);
		HoldsSettle(ledger, program, account);
		ProgramUnpin(program);
		LedgerFlush(ledger);
	}
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(loyalty_take_lots);

/* take_lots(account_id, points, day): what taking points away posts. */
Datum
loyalty_take_lots(PG_FUNCTION_ARGS)
{
	int64		points = PG_GETARG_INT64(1);
	Ledger	   *ledger;
	Account    *account;
	Program    *program;
	LotSet		none;
	LotSet		lots;
	LotSet		free;
	int64		taken;
	CoreStatus	status;
	NegativePolicy policy;
	int64		limit;

	SPI_connect();
	ledger = LedgerOpen();
	account = lock_account(ledger, PG_GETARG_INT64(0));
	program = ProgramPin(account->program_id);
	policy = program->negative;
	limit = ProgramNegativeLimit(program, account->tier_id);
	ProgramUnpin(program);
	lotset_init(&none);
	lotset_init(&lots);
	status = lotset_take_back(HoldsFree(account, &free), &none, points, PG_GETARG_DATEADT(2),
							  policy, limit, &lots, &taken);
	if (status == CORE_INSUFFICIENT)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INSUFFICIENT_POINTS),
				 errmsg("member " INT64_FORMAT " does not have " INT64_FORMAT " points to take",
						account->account_id, points),
				 errdetail("The programme forbids the debt that this would leave."),
				 errhint("The programme's policy negative and negative_limit decide this.")));
	LotsRaise(status);
	return finish_with_lots(&lots);
}

PG_FUNCTION_INFO_V1(loyalty_earn_lots);

/* earn_lots(account_id, available_from, expires_on, points): what giving points posts. */
Datum
loyalty_earn_lots(PG_FUNCTION_ARGS)
{
	Ledger	   *ledger;
	Account    *account;
	Lot			lot;
	LotSet		lots;

	lot.available_from = PG_GETARG_DATEADT(1);
	lot.expires_on = PG_GETARG_DATEADT(2);
	lot.amount = PG_GETARG_INT64(3);
	if (lot.amount <= 0 || lot.available_from >= lot.expires_on)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_POINTS),
				 errmsg("a lot needs points above zero and days in order"),
				 errdetail("Got " INT64_FORMAT " points.", lot.amount)));
	SPI_connect();
	ledger = LedgerOpen();
	account = lock_account(ledger, PG_GETARG_INT64(0));
	lotset_init(&lots);
	LotsRaise(lotset_earn(&account->lots, lot, &lots));
	return finish_with_lots(&lots);
}

/* Lock the accounts of an array argument. */
static int
lock_array(Ledger *ledger, ArrayType *array, Account **accounts)
{
	Datum	   *elements;
	bool	   *nulls;
	int64	   *ids;
	int			n;
	int			count = 0;

	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &elements, &nulls, &n);
	ids = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			ids[count++] = DatumGetInt64(elements[i]);
	}
	if (count > 0)
		LedgerLock(ledger, ids, count);
	return LedgerAccounts(ledger, accounts);
}

PG_FUNCTION_INFO_V1(loyalty_post_expiry);

/* post_expiry(account_ids, as_of): close dead lots. */
Datum
loyalty_post_expiry(PG_FUNCTION_ARGS)
{
	int32		as_of = PG_GETARG_DATEADT(1);
	Ledger	   *ledger;
	Account    *accounts;
	int64		count = 0;
	int			n;

	SPI_connect();
	ledger = LedgerOpen();
	n = lock_array(ledger, PG_GETARG_ARRAYTYPE_P(0), &accounts);
	for (int i = 0; i < n; i++)
	{
		Program    *program = ProgramPin(accounts[i].program_id);

		HoldsSettle(ledger, program, &accounts[i]);
		if (LifetimeClose(ledger, program, &accounts[i], as_of,
						  Max(LedgerNow(ledger), accounts[i].last_event_at)))
			count++;
		ProgramUnpin(program);
	}
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(count);
}

/* Review one account: true where its tier or its term changed. */
static bool
review_account(Ledger *ledger, const Program *program, Account *account, int32 as_of)
{
	const TierPolicy *policy = &program->tier_policy;
	int32		joined_on = ProgramDay(program, account->joined_at);
	int			current = ProgramTierIndex(program, account->tier_id);
	int			earned;
	int			next;
	int32		until;

	if (current == NO_TIER || account->tier_until == DATEVAL_NOEND ||
		account->tier_until + policy->grace_days >= as_of || account->tier_pinned >= as_of)
		return false;
	LotsRaise(tier_earned(policy, program->tier, program->ntiers, &account->tally,
						  joined_on, account->tier_until, &earned));
	next = tier_after_review(policy, current, earned);
	/* what has been earned since the term ended counts as well */
	LotsRaise(tier_earned(policy, program->tier, program->ntiers, &account->tally,
						  joined_on, as_of, &earned));
	next = Max(next, Min(earned, current));
	until = next == NO_TIER ? DATEVAL_NOEND : tier_good_until(policy, joined_on, as_of);
	LedgerSetTier(ledger, account, next == NO_TIER ? 0 : program->tier[next].tier_id,
				  next == current ? account->tier_since : LedgerNow(ledger), until,
				  "review", 0, NULL);
	return true;
}

PG_FUNCTION_INFO_V1(loyalty_post_review);

/* post_review(account_ids, as_of): renew or lower the tiers that are due. */
Datum
loyalty_post_review(PG_FUNCTION_ARGS)
{
	int32		as_of = PG_GETARG_DATEADT(1);
	Ledger	   *ledger;
	Account    *accounts;
	int64		count = 0;
	int			n;

	SPI_connect();
	ledger = LedgerOpen();
	n = lock_array(ledger, PG_GETARG_ARRAYTYPE_P(0), &accounts);
	for (int i = 0; i < n; i++)
	{
		Program    *program = ProgramPin(accounts[i].program_id);

		if (review_account(ledger, program, &accounts[i], as_of))
			count++;
		ProgramUnpin(program);
	}
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(count);
}

/* Find a tier by name. */
static int
find_tier(const Program *program, const char *name)
{
	for (int i = 0; i < program->ntiers; i++)
	{
		if (strcmp(program->tier_info[i].name, name) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_TIER),
			 errmsg("programme \"%s\" has no tier \"%s\"", program->name, name)));
}

PG_FUNCTION_INFO_V1(loyalty_set_tier);

/* set_tier(member_id, tier, pinned_until, reason): a tier by hand. */
Datum
loyalty_set_tier(PG_FUNCTION_ARGS)
{
	char	   *name = text_argument(fcinfo, 1);
	char	   *reason = text_argument(fcinfo, 3);
	Ledger	   *ledger;
	Account    *account;
	Program    *program;
	int			index;
	int32		until = DATEVAL_NOEND;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_MEMBER), errmsg("member must not be null")));
	if (reason == NULL || strspn(reason, " \t\n") == strlen(reason))
		ereport(ERROR,
				(errcode(ERRCODE_LY_REASON_REQUIRED),
				 errmsg("a tier set by hand needs a reason")));
	SPI_connect();
	ledger = LedgerOpen();
	account = lock_account(ledger, PG_GETARG_INT64(0));
	program = ProgramPin(account->program_id);
	index = name == NULL ? NO_TIER : find_tier(program, name);
	account->tier_pinned = PG_ARGISNULL(2) ? DATEVAL_NOBEGIN : PG_GETARG_DATEADT(2);
	if (index != NO_TIER)
		until = tier_good_until(&program->tier_policy, ProgramDay(program, account->joined_at),
								ProgramDay(program, LedgerNow(ledger)));
	if (until != DATEVAL_NOEND && !PG_ARGISNULL(2))
		until = Max(until, account->tier_pinned);
	LedgerSetTier(ledger, account, index == NO_TIER ? 0 : program->tier[index].tier_id,
				  LedgerNow(ledger), until, "manual", 0, reason);
	ProgramUnpin(program);
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(loyalty_local_day);

/* local_day(program_id, at): the day in the programme's zone. */
Datum
loyalty_local_day(PG_FUNCTION_ARGS)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(1);
	Program    *program;
	int32		day;

	if (TIMESTAMP_IS_NOBEGIN(at))
		PG_RETURN_DATEADT(DATEVAL_NOBEGIN);
	if (TIMESTAMP_IS_NOEND(at))
		PG_RETURN_DATEADT(DATEVAL_NOEND);
	program = ProgramPin(PG_GETARG_INT32(0));
	day = ProgramDay(program, at);
	ProgramUnpin(program);
	PG_RETURN_DATEADT(day);
}

PG_FUNCTION_INFO_V1(loyalty_expires_on);

/* expires_on(program_id, available_from): by the programme's policy. */
Datum
loyalty_expires_on(PG_FUNCTION_ARGS)
{
	Program    *program = ProgramPin(PG_GETARG_INT32(0));
	int32		day = calendar_expires_on(&program->expiry, PG_GETARG_DATEADT(1));

	ProgramUnpin(program);
	PG_RETURN_DATEADT(day);
}

PG_FUNCTION_INFO_V1(loyalty_earned_tier);

/* earned_tier(account_id, day): what the window earns. */
Datum
loyalty_earned_tier(PG_FUNCTION_ARGS)
{
	int64		account_id = PG_GETARG_INT64(0);
	Ledger	   *ledger;
	Account    *account;
	Program    *program;
	int			earned = NO_TIER;
	int32		tier_id = 0;

	SPI_connect();
	ledger = LedgerOpen();
	LedgerRead(ledger, account_id);
	account = LedgerAccount(ledger, account_id);
	if (account != NULL)
	{
		program = ProgramPin(account->program_id);
		LotsRaise(tier_earned(&program->tier_policy, program->tier, program->ntiers,
							  &account->tally, ProgramDay(program, account->joined_at),
							  PG_GETARG_DATEADT(1), &earned));
		if (earned != NO_TIER)
			tier_id = program->tier[earned].tier_id;
		ProgramUnpin(program);
	}
	SPI_finish();
	if (earned == NO_TIER)
		PG_RETURN_NULL();
	PG_RETURN_INT32(tier_id);
}

/* Read a transaction by its number into an event, under a lock as an UPDATE takes it or without; false where there is none. */
bool
TransactionRead(int64 source_id, bool lock, Event *event)
{
	static const char *const sql[2][2] = {
		{"SELECT * FROM loyalty.purchase WHERE purchase_id = $1",
		"SELECT * FROM loyalty.purchase WHERE purchase_id = $1 FOR NO KEY UPDATE"},
		{"SELECT * FROM loyalty.activity WHERE activity_id = $1",
		"SELECT * FROM loyalty.activity WHERE activity_id = $1 FOR NO KEY UPDATE"}
	};
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(source_id);

	for (int i = 0; i < 2; i++)
	{
		RuleEvent	kind = i == 0 ? ON_PURCHASE : ON_ACTIVITY;
		TupleTableSlot *slot;

		if (SPI_execute_with_args(sql[i][lock], 1, &type, &value, NULL, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read transaction " INT64_FORMAT, source_id);
		if (SPI_processed == 0)
			continue;
		slot = MakeSingleTupleTableSlot(SPI_tuptable->tupdesc, &TTSOpsHeapTuple);
		ExecStoreHeapTuple(SPI_tuptable->vals[0], slot, false);
		EventRead(EventLayoutCreate(SPI_tuptable->tupdesc, kind), slot, event);
		return true;
	}
	return false;
}

/* Read a row of the type purchase or activity as an event. */
void
EventFromDatum(HeapTupleHeader header, RuleEvent kind, Event *event)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(header),
												   HeapTupleHeaderGetTypMod(header));
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	HeapTuple	tuple = palloc0(HEAPTUPLESIZE);

	tuple->t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_data = header;
	ExecStoreHeapTuple(tuple, slot, false);
	EventRead(EventLayoutCreate(desc, kind), slot, event);
}

/* Move the pending lots that a source gave to a day; returns how many points. */
static int64
move_pending(const Program *program, const LotSet *free, const LotSet *posted, int32 today,
			 int32 day, LotSet *delta)
{
	int64		moved = 0;

	for (int i = 0; i < posted->n; i++)
	{
		Lot			lot = posted->lot[i];
		bool		found = false;

		for (int j = 0; j < free->n; j++)
		{
			if (free->lot[j].available_from != lot.available_from ||
				free->lot[j].expires_on != lot.expires_on)
				continue;
			found = true;
			lot.amount = Min(lot.amount, free->lot[j].amount);
		}
		if (!found || lot.amount <= 0 || lot.available_from <= today || lot.available_from == day)
			continue;
		moved += lot.amount;
		lot.amount = -lot.amount;
		LotsRaise(lotset_add_lot(delta, lot));
		lot.amount = -lot.amount;
		lot.available_from = day;
		lot.expires_on = calendar_expires_on(&program->expiry, day);
		LotsRaise(lotset_add_lot(delta, lot));
	}
	return moved;
}

PG_FUNCTION_INFO_V1(loyalty_release_pending);

/* release_pending(source_id, available_from, reason): let pending points become available on a day. */
Datum
loyalty_release_pending(PG_FUNCTION_ARGS)
{
	int64		source_id = PG_GETARG_INT64(0);
	Ledger	   *ledger;
	Posted	   *posted;
	int			n;
	int64		moved = 0;

	SPI_connect();
	ledger = LedgerOpen();
	n = LedgerLockPosted(ledger, &source_id, 1, 0, &posted);
	for (int i = 0; i < n; i++)
	{
		Account    *account = LedgerAccount(ledger, posted[i].account_id);
		Program    *program;
		int32		today;
		int32		day;
		LotSet		scratch;
		LotSet		delta;
		Posting		posting = {.kind = "release", .source_id = source_id, .lots = &delta,
		.reason = text_argument(fcinfo, 2), .occurred_at = LedgerNow(ledger)};

		if (account == NULL)
			continue;			/* nothing was posted */
		program = ProgramPin(account->program_id);
		today = ProgramDay(program, LedgerNow(ledger));
		day = PG_ARGISNULL(1) ? today : PG_GETARG_DATEADT(1);
		if (day < today || DATE_NOT_FINITE(day))
			ereport(ERROR,
					(errcode(ERRCODE_LY_INVALID_TIME),
					 errmsg("pending points become available today or on a day to come")));
		HoldsSettle(ledger, program, account);
		lotset_init(&delta);
		moved += move_pending(program, HoldsFree(account, &scratch), &posted[i].lots, today, day,
							  &delta);
		if (delta.n > 0)
			LedgerPost(ledger, account, &posting);
		ProgramUnpin(program);
	}
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(moved);
}

/* What an account lost by expiry since a day, negative. */
static void
recently_expired(Ledger *ledger, const Program *program, const Account *account, int32 since,
				 LotSet *lots)
{
	LotSet		all;

	lotset_init(lots);
	if (program->expiry.kind == EXPIRY_SLIDING)
	{
		Closing    *closing;
		int			n = LedgerClosings(ledger, account->account_id, &closing);

		/* the lots carry no day; the last event before their closing tells it */
		lotset_init(&all);
		for (int i = 0; i < n; i++)
		{
			if (LifetimeSlidesUntil(program, closing[i].after) >= since)
				LotsRaise(lotset_add(&all, &closing[i].lots));
		}
	}
	else
		LedgerExpired(ledger, account->account_id, &all);
	for (int i = 0; i < all.n; i++)
	{
		if (all.lot[i].amount < 0 && all.lot[i].expires_on >= since)
			LotsRaise(lotset_add_lot(lots, all.lot[i]));
	}
}

/* Post that points which died live again, those that died last first. */
static void
reinstate(Ledger *ledger, const Program *program, Account *account, const LotSet *dead,
		  int64 points, int32 today, const char *reason, const char *key)
{
	LotSet		revived;
	LotSet		delta;
	LotSet		earned;
	Posting		reopening = {.kind = "expire", .lots = &revived, .occurred_at = LedgerNow(ledger)};
	Posting		posting = {.kind = "reinstate", .lots = &delta, .reason = reason, .key = key,
	.occurred_at = LedgerNow(ledger)};
	Lot			lot = {today, today + program->restore_days, points};

	lotset_init(&revived);
	LotsRaise(lotset_part(dead, true, 0, points, &revived));
	LedgerPost(ledger, account, &reopening);
	lotset_copy(&delta, &revived);
	LotsRaise(lotset_negate(&delta));
	lotset_init(&earned);
	LotsRaise(lotset_earn(&account->lots, lot, &earned));
	LotsRaise(lotset_add(&delta, &earned));
	LedgerPost(ledger, account, &posting);
}

PG_FUNCTION_INFO_V1(loyalty_post_reinstatement);

/* post_reinstatement(account_id, points, reason, key): points that died lately live restore_days more. */
Datum
loyalty_post_reinstatement(PG_FUNCTION_ARGS)
{
	Ledger	   *ledger;
	Account    *account;
	Program    *program;
	LotSet		dead;
	int64		most;
	int64		points;
	int32		today;
	int			days;

	SPI_connect();
	ledger = LedgerOpen();
	account = lock_account(ledger, PG_GETARG_INT64(0));
	program = ProgramPin(account->program_id);
	today = ProgramDay(program, LedgerNow(ledger));
	HoldsSettle(ledger, program, account);
	LifetimeClose(ledger, program, account, today, Max(LedgerNow(ledger), account->last_event_at));
	LedgerFlush(ledger);
	days = ProgramReinstateDays(program, account->tier_id);
	recently_expired(ledger, program, account, today - days, &dead);
	LotsRaise(lotset_negate(&dead));
	LotsRaise(lotset_total(&dead, &most));
	points = PG_ARGISNULL(1) ? most : PG_GETARG_INT64(1);
	if (points <= 0 || points > most || program->restore_days == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_NOT_REINSTATED),
				 errmsg("member " INT64_FORMAT " has not lost that many points lately",
						account->account_id),
				 errdetail(INT64_FORMAT " points died within %d days.", most, days),
				 errhint("The programme's policies reinstate_days and restore_days decide this.")));
	reinstate(ledger, program, account, &dead, points, today, text_argument(fcinfo, 2),
			  text_argument(fcinfo, 3));
	ProgramUnpin(program);
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(points);
}

PG_FUNCTION_INFO_V1(loyalty_currency_digits);

/* currency_digits(code): digits of the minor unit. */
Datum
loyalty_currency_digits(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(currency_digits(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}
