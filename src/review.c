/*
 * review.c
 *	  What becomes of awards that wait for a person: released or refused.
 *
 * The transaction is locked before its accounts, as an UPDATE of it locks them;
 * many are locked all at once, rows before accounts, in one order.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "award.h"
#include "compat.h"
#include "errors.h"
#include "proof.h"

/* Raise for a transaction of which no award waits. */
static void
raise_not_held(int64 source_id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(source_id);

	if (SPI_execute_with_args("SELECT FROM loyalty.held_award"
							  " WHERE source_id = $1 AND refused_at IS NOT NULL",
							  1, &type, &value, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read held award " INT64_FORMAT, source_id);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_AWARD_REFUSED),
				 errmsg("the award of transaction " INT64_FORMAT " was refused", source_id),
				 errdetail("What was refused gives nothing, for ever."),
				 errhint("loyalty.adjust gives points by hand.")));
	ereport(ERROR,
			(errcode(ERRCODE_LY_NOTHING_HELD),
			 errmsg("no award of transaction " INT64_FORMAT " is held", source_id),
			 errhint("loyalty.review_queue lists those that wait.")));
}

/* Mark a held award as released, and tell with the rules of when it is decided; false where none waits. */
static bool
mark_released(int64 source_id, TimestampTz *known_at)
{
	bool		isnull;
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2];

	values[0] = Int64GetDatum(source_id);
	values[1] = CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false));
	if (SPI_execute_with_args("UPDATE loyalty.held_award SET released_at = pg_catalog.now(),"
							  " released_by = $2::pg_catalog.name"
							  " WHERE source_id = $1 AND released_at IS NULL AND refused_at IS NULL"
							  " RETURNING CASE WHEN failed THEN 'infinity' ELSE held_at END",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not release award " INT64_FORMAT, source_id);
	if (SPI_processed == 0)
		return false;
	*known_at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return true;
}

/* Take back what came back of a purchase while its award was held. */
static void
settle_returns(int64 source_id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(source_id);

	if (SPI_execute_with_args("SELECT loyalty.post_return($1, pg_catalog.now(), NULL,"
							  " 'loyalty:returns of held ' || $1, NULL)"
							  " WHERE EXISTS (SELECT FROM loyalty.returned r WHERE r.purchase_id = $1)",
							  1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not settle the returns of purchase " INT64_FORMAT, source_id);
}

/* Award to the member into whom the event's was merged meanwhile. */
static void
follow_merge(Ledger *ledger, Event *event)
{
	const Account *member = LedgerAccount(ledger, event->member_id);
	int64		into = member == NULL ? 0 : member->merged_into;

	if (into == 0)
		return;
	LedgerLock(ledger, &into, 1);
	event->member_id = into;
}

/* Lock the wallets of an event's member. */
static void
lock_wallets(Ledger *ledger, const Event *event)
{
	const Account *member = LedgerAccount(ledger, event->member_id);
	Program    *program;
	int64	   *ids;

	if (member == NULL || member->closed || member->account_id >= WALLET_SPAN)
		return;
	program = ProgramPin(member->program_id);
	ids = palloc(sizeof(int64) * (program->nwallets + 1));
	for (int w = 0; w < program->nwallets; w++)
		ids[w] = WalletAccount(program->wallet[w], event->member_id);
	LedgerLockWallets(ledger, ids, program->nwallets);
	ProgramUnpin(program);
}

/* Tell whether something of an event stands in an account. */
static bool
stands_in(const Account *account, const Posted *posted, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (posted[i].account_id == account->account_id)
			return true;
	}
	return false;
}

/* Award an event; a rule that raises does so, and parks nothing again. */
static void
award_or_raise(Ledger *ledger, Program *program, Account *account, const Account *history,
			   Event *event, AwardOutcome *outcome)
{
	bool		hold = program->hold_on_error;

	program->hold_on_error = false;
	PG_TRY();
	{
		AwardPost(ledger, program, account, history, event, outcome);
	}
	PG_FINALLY();
	{
		program->hold_on_error = hold;
		ProgramUnpin(program);
	}
	PG_END_TRY();
}

/* Award to the wallets of an event's member what waited with the award; before it, as the trigger does. */
static void
release_wallets(Ledger *ledger, const Program *program, const Account *account, Event *event)
{
	Posted	   *posted;
	int			n;

	if (program->nwallets == 0)
		return;
	n = LedgerLockedPosted(ledger, &event->source_id, 1, &posted);
	for (int w = 0; w < program->nwallets; w++)
	{
		Account    *into = LedgerAccount(ledger, WalletAccount(program->wallet[w], event->member_id));
		Program    *wallet;
		AwardOutcome outcome;

		if (into == NULL || stands_in(into, posted, n))
			continue;
		wallet = ProgramPin(program->wallet[w]);
		if (event->recorded_at >= wallet->created_at)
			award_or_raise(ledger, wallet, into, account, event, &outcome);
		else
			ProgramUnpin(wallet);
	}
}

/* Tell whether a limit was asked about a held award, and let it wait. */
static bool
was_held_by_limit(int64 source_id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(source_id);

	if (SPI_execute_with_args("SELECT FROM loyalty.limit_decision WHERE source_id = $1 AND verdict = 'hold'",
							  1, &type, &value, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the decisions on transaction " INT64_FORMAT, source_id);
	return SPI_processed > 0;
}

/* Forget limits that remember nothing of an event's time: the person alone judges. */
static void
drop_late(EventLimits *limits)
{
	int			n = 0;
	int64		used;

	for (int i = 0; i < limits->nuses; i++)
	{
		if (ring_used(&limits->use[i].state->ring, limits->use[i].bucket, &used))
			limits->use[n++] = limits->use[i];
	}
	limits->nuses = n;
}

/*
 * Find and lock the limits of an award that waited for something else; NULL
 * where there are none.  What a limit let wait was asked already, and its
 * approval is a person's word.
 */
static LimitBook *
limit_release(Ledger *ledger, Program *program, Event *event)
{
	LimitBook  *book;

	if (program->nlimits == 0 || was_held_by_limit(event->source_id))
		return NULL;
	book = LimitsOpen();
	event->limits = LimitsOf(book, event);
	LimitsReadOld(book, &event->source_id, 1);
	AwardLimits(ledger, program, event, book);
	/* it has been looked at: where a limit would let it wait, it is cut */
	event->limits->correcting = true;
	LimitsKeys(book);
	LimitsLock(book);
	drop_late(event->limits);
	return book;
}

/* Count for cards, challenges and sets what did not count while it waited. */
static void
count_released(Event *event)
{
	if (event->kind == ON_PURCHASE)
		StampPurchases(&event->source_id, 1);
	if (ChallengesExist())
		ChallengesTrack(&event->source_id, 1, false);
	if (event->kind == ON_ACTIVITY)
		AdmitComplete(&event, 1);
}

PG_FUNCTION_INFO_V1(loyalty_release_award);

/* release_award(source_id): decide a held award and post it. */
Datum
loyalty_release_award(PG_FUNCTION_ARGS)
{
	int64		source_id = PG_GETARG_INT64(0);
	Ledger	   *ledger;
	Account    *account;
	Program    *program;
	LimitBook  *book;
	Event		event;
	AwardOutcome outcome = {0};
	CapBook    *caps;

	SPI_connect();
	/* the transaction before its account, as an UPDATE of it locks them */
	if (!TransactionRead(source_id, true, &event) || !mark_released(source_id, &event.known_at))
		raise_not_held(source_id);
	if (event.has_member && !event.is_void)
	{
		ledger = LedgerOpen();
		LedgerLock(ledger, &event.member_id, 1);
		follow_merge(ledger, &event);
		lock_wallets(ledger, &event);
		account = AwardAccount(ledger, &event);
		program = ProgramPin(account->program_id);
		CashierRefuseOwn(program, event.member_id, NULL);
		AdmitRead(program, &event);
		book = limit_release(ledger, program, &event);
		caps = CapsOpenFor(&event);
		release_wallets(ledger, program, account, &event);
		award_or_raise(ledger, program, account, account, &event, &outcome);
		LedgerFlush(ledger);
		if (book != NULL)
			LimitsFlush(book);
		LedgerClose(ledger);
		if (caps != NULL)
			CapsFlush(caps);
		settle_returns(source_id);
		count_released(&event);
	}
	SPI_finish();
	PG_RETURN_INT64(outcome.award.points);
}

/* Take back what an event had given: its purchase stands and gives no points. */
static void
take_back(int64 source_id, Event *event)
{
	Ledger	   *ledger = LedgerOpen();
	Posted	   *posted;
	int			n = LedgerLockPosted(ledger, &source_id, 1,
									 event->has_member ? event->member_id : 0, &posted);
	CapBook    *caps = CapsOpenFor(event);

	event->refused = true;
	for (int i = 0; i < n; i++)
	{
		Account    *account = LedgerAccount(ledger, posted[i].account_id);
		Program    *program;

		/* what is void, or of another, is taken back already */
		if (account == NULL || event->is_void || !CorrectConcerns(ledger, event, &posted[i]))
			continue;
		program = ProgramPin(account->program_id);
		CorrectEvent(ledger, program, account, event, &posted[i]);
		/* a correction that does not see the refusal must run into this, even where nothing was posted */
		account->changed = true;
		ProgramUnpin(program);
	}
	LedgerFlush(ledger);
	LedgerClose(ledger);
	if (caps != NULL)
		CapsFlush(caps);
}

PG_FUNCTION_INFO_V1(loyalty_refuse_award);

/* refuse_award(source_id): take back what a held award that is marked as refused had given since. */
Datum
loyalty_refuse_award(PG_FUNCTION_ARGS)
{
	int64		source_id = PG_GETARG_INT64(0);
	Event		event;

	SPI_connect();
	if (!TransactionRead(source_id, true, &event))
		raise_not_held(source_id);
	take_back(source_id, &event);
	SPI_finish();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(loyalty_lock_awards);

/* lock_awards(source_ids): lock transactions, in order of their numbers, and then every account that they concern. */
Datum
loyalty_lock_awards(PG_FUNCTION_ARGS)
{
	Datum	   *datum;
	int			n;
	int			nids = 0;
	int			nposted;
	int64	   *source;
	int64	   *ids;
	Posted	   *posted;
	Ledger	   *ledger;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &datum, NULL, &n);
	SPI_connect();
	source = palloc(sizeof(int64) * (n + 1));
	ledger = LedgerOpen();
	for (int i = 0; i < n; i++)
		source[i] = DatumGetInt64(datum[i]);
	ids = palloc(sizeof(int64) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		Event		event;

		if (!TransactionRead(source[i], true, &event))
			raise_not_held(source[i]);
		if (event.has_member)
			ids[nids++] = event.member_id;
	}
	nposted = LedgerPosted(ledger, source, n, &posted);
	ids = repalloc(ids, sizeof(int64) * (nids + nposted + 1));
	for (int i = 0; i < nposted; i++)
	{
		if (posted[i].account_id != 0)
			ids[nids++] = posted[i].account_id;
	}
	if (nids > 0)
		LedgerLock(ledger, ids, nids);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_VOID();
}
