/*
 * correct.c
 *	  Moving what was posted for a source towards what it should have earned.
 *
 * An UPDATE decides anew, with the rule versions, the tier and the history
 * that the award pinned; a return takes a share of what the award gave and
 * decides nothing.  Both post the difference, so that doing it twice posts
 * nothing the second time.  The accounts are locked by the caller, who also
 * flushes.
 */
#include "award.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/date.h"

#include "calendar.h"
#include "compat.h"
#include "errors.h"
#include "hold.h"
#include "lifetime.h"

/* What the posted breakdowns of a source add up to. */
static void
subtract_posted(Breakdown *target, const Posted *posted)
{
	for (int i = 0; i < posted->nbreakdowns; i++)
	{
		Breakdown	earlier;

		BreakdownDecode(posted->breakdown[i], &earlier);
		BreakdownSubtract(target, &earlier);
	}
}

/* Decide anew what a source should have earned, with what its award pinned. */
static void
decide_target(Ledger *ledger, Program *program, Event *event, const Posted *posted,
			  Award *target)
{
	MemberFacts facts;
	Breakdown	first;

	memset(&facts, 0, sizeof(facts));
	if (program->has_caps && event->caps == NULL)
		elog(ERROR, "nobody counts for the caps of programme %d", program->program_id);
	AwardPersonFacts(ledger, program, event, &facts);
	if (posted->nbreakdowns > 0)
	{
		BreakdownDecode(posted->breakdown[0], &first);
		facts.pinned = first.pinned;
	}
	AwardPrepare(program, event);
	memset(target, 0, sizeof(Award));
	target->breakdown.pinned = facts.pinned;
	if (!event->refused)
		EarnDecide(program, event, &facts, posted->recorded_at, target);
}

/* What returns took back of a source so far */
typedef struct Returned
{
	int64		points;
	int64		spend;			/* money4 */
	bool		complete;
} Returned;

/* Ask SQL for the share of a purchase that was returned, in points of its lines and in spend. */
static void
read_returned(int64 source_id, const Award *gross, int64 spend, Returned *returned)
{
	static Oid	types[4] = {INT8OID, INT8ARRAYOID, INT8OID, INT8OID};
	Datum	   *lines = palloc(sizeof(Datum) * Max(gross->breakdown.nlines, 1));
	Datum		values[4];
	bool		isnull;

	for (int i = 0; i < gross->breakdown.nlines; i++)
		lines[i] = Int64GetDatum(gross->breakdown.line[i]);
	values[0] = Int64GetDatum(source_id);
	values[1] = PointerGetDatum(construct_array(lines, gross->breakdown.nlines, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[2] = Int64GetDatum(gross->points);
	values[3] = Int64GetDatum(spend);
	if (SPI_execute_with_args("SELECT s.points, s.spend, s.complete"
							  " FROM loyalty.returned_share($1, $2, $3, $4) s",
							  4, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the returns of purchase " INT64_FORMAT, source_id);
	returned->points = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	returned->spend = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	returned->complete = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull));
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Open lots again that died and were closed, as far as the points to be taken
 * back lie in them: whoever lost points by their dying does not lose them a
 * second time.
 */
static void
reopen_expired(Ledger *ledger, const Program *program, Account *account, const Posted *posted,
			   int64 points, int32 today)
{
	LotSet		scratch;
	LotSet		closed;
	LotSet		delta;
	Posting		posting = {.kind = "expire", .occurred_at = LedgerNow(ledger), .lots = &delta};
	bool		dead = program->expiry.kind == EXPIRY_SLIDING;

	for (int i = 0; i < posted->lots.n; i++)
		dead |= posted->lots.lot[i].amount > 0 && posted->lots.lot[i].expires_on <= today;
	if (!dead)
		return;
	LedgerExpired(ledger, account->account_id, &closed);
	lotset_init(&delta);
	LotsRaise(lotset_reopen(HoldsFree(account, &scratch), &posted->lots, &closed, points, &delta));
	if (delta.n > 0)
		LedgerPost(ledger, account, &posting);
}

/* The lots that move what was posted by a difference. */
static void
difference_lots(Ledger *ledger, const Program *program, Account *account, const Event *event,
				const Posted *posted, int64 difference, LotSet *lots)
{
	int32		today = ProgramDay(program, LedgerNow(ledger));
	int64		taken;
	LotSet		scratch;
	CoreStatus	status;

	lotset_init(lots);
	if (difference > 0)
		LotsRaise(lotset_earn(&account->lots,
							  AwardLot(program, ProgramDay(program, event->occurred_at), difference),
							  lots));
	if (difference >= 0)
		return;
	reopen_expired(ledger, program, account, posted, -difference, today);
	status = lotset_take_back(HoldsFree(account, &scratch), &posted->lots, -difference, today,
							  program->negative,
							  ProgramNegativeLimit(program, account->tier_id), lots, &taken);
	if (status == CORE_INSUFFICIENT)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INSUFFICIENT_POINTS),
				 errmsg("member " INT64_FORMAT " does not have the points that a correction of transaction " INT64_FORMAT " takes back",
						account->account_id, event->source_id),
				 errdetail(INT64_FORMAT " points are to be taken back, and the programme forbids the debt that this leaves.",
						   -difference),
				 errhint("The programme's policy negative and negative_limit decide this.")));
	LotsRaise(status);
}

/* Tell whether an event occurred on another day than the one whose days its points have. */
static bool
is_redated(const Program *program, const Event *event, const Posted *posted)
{
	return posted->occurred_at != DT_NOBEGIN &&
		ProgramDay(program, posted->occurred_at) != ProgramDay(program, event->occurred_at);
}

/*
 * Give what is still there of an event's points the days that they would have
 * had; those that died too early live again.  What was spent stays spent.
 */
static void
redate_lots(Ledger *ledger, const Program *program, Account *account, const Event *event,
			const Posted *posted, LotSet *lots)
{
	int32		today = ProgramDay(program, LedgerNow(ledger));
	int64		points;
	LotSet		scratch;
	LotSet		standing;
	LotSet		balance;
	LotSet		delta;

	lotset_copy(&standing, &posted->lots);
	LotsRaise(lotset_add(&standing, lots));
	LotsRaise(lotset_total(&standing, &points));
	reopen_expired(ledger, program, account, posted, points, today);
	lotset_copy(&balance, HoldsFree(account, &scratch));
	LotsRaise(lotset_add(&balance, lots));
	lotset_init(&delta);
	LotsRaise(lotset_redate(&balance, &standing,
							AwardLot(program, ProgramDay(program, event->occurred_at), 0), &delta));
	LotsRaise(lotset_add(lots, &delta));
}

/*
 * Post a difference of points alone, without a tally: what the source gave to
 * the account before (NULL: nothing) says which lots go first; the points posted.
 */
int64
CorrectPoints(Ledger *ledger, const Program *program, Account *account, const Event *event,
			  const Posted *posted, int64 difference, const Posting *like)
{
	LotSet		lots;
	int64		total;
	Posting		posting = *like;

	if (difference < 0 && posted == NULL)
		elog(ERROR, "nothing was given that could be taken back");
	HoldsSettle(ledger, program, account);
	if (difference > 0)
		LifetimeClose(ledger, program, account, ProgramDay(program, event->occurred_at),
					  event->occurred_at);
	difference_lots(ledger, program, account, event, posted, difference, &lots);
	if (lots.n == 0)
		return 0;
	LotsRaise(lotset_total(&lots, &total));
	posting.lots = &lots;
	LedgerPost(ledger, account, &posting);
	return total;
}

/* The tally that a source should have: its award's, less what was returned. */
static void
target_tally(const Program *program, const Event *event, int64 points, const Returned *returned,
			 TallySet *tally)
{
	int32		day = ProgramDay(program, event->occurred_at);
	TallyMonth	back = {.month = calendar_month(day), .points = -returned->points,
	.spend = -returned->spend, .visits = returned->complete ? -1 : 0};

	if (program->wallet_of != 0)
	{
		back.spend = 0;
		back.visits = 0;
	}
	AwardTally(program, event, day, points, tally);
	TallyRaise(tallyset_add_month(tally, back));
}

/*
 * The points to post so that a source has given its target.
 *
 * Where the policy clamps, less was taken back than was asked: what the tallies
 * say that the source gives is less than what it gave.  That was forgiven, so
 * going down starts at the tallies; going up starts at what was given.
 */
static int64
owed_points(const Posted *posted, int64 target)
{
	int64		given;
	int64		claimed = 0;

	LotsRaise(lotset_total(&posted->lots, &given));
	if (target >= given)
		return target - given;
	for (int i = 0; i < posted->tally.n; i++)
		claimed += posted->tally.month[i].points;
	return Min(target - Min(claimed, given), 0);
}

/*
 * Post the difference between what a source should have given (NULL: nothing),
 * less what was returned of it, and what was posted; the points posted, and in
 * *done whether anything was.
 */
static int64
post_difference(Ledger *ledger, Program *program, Account *account, Event *event,
				const Posted *posted, const Award *target, const Posting *like, bool *done)
{
	Returned	returned = {0};
	TallySet	tally;
	LotSet		lots;
	int64		after = 0;
	Posting		posting = *like;

	HoldsSettle(ledger, program, account);
	tallyset_init(&tally);
	if (target != NULL && posted->returned)
		read_returned(event->source_id, target, event->total, &returned);
	if (target != NULL)
	{
		after = target->points - returned.points;
		target_tally(program, event, target->points, &returned, &tally);
	}
	difference_lots(ledger, program, account, event, posted, owed_points(posted, after), &lots);
	if (target != NULL && is_redated(program, event, posted))
		redate_lots(ledger, program, account, event, posted, &lots);
	TallyRaise(tallyset_subtract(&tally, &posted->tally));
	if (lots.n == 0 && tally.n == 0 && posting.key == NULL &&
		(posting.detail == (Datum) 0 || posted->member_id == event->member_id))
		return 0;
	LotsRaise(lotset_total(&lots, &after));
	posting.lots = &lots;
	posting.tally = &tally;
	LedgerPost(ledger, account, &posting);
	*done = true;
	if (returned.complete)
		CapsGiveBack(event, program);
	AwardPromote(ledger, program, account, event->source_id);
	AwardRevokePromotion(ledger, program, account, event->source_id);
	return after;
}

/* A posting of a correction: its breakdown is the difference to what was posted. */
static Posting
correction(const Ledger *ledger, const Event *event, const Posted *posted, const Award *target)
{
	Posting		posting = {.kind = "correct", .source_id = event->source_id,
	.occurred_at = LedgerNow(ledger)};
	Breakdown	difference = {0};

	if (target != NULL)
	{
		difference = target->breakdown;
		difference.line = palloc(sizeof(int64) * Max(difference.nlines, 1));
		if (difference.nlines > 0)
			memcpy(difference.line, target->breakdown.line, sizeof(int64) * difference.nlines);
		difference.rule = palloc(sizeof(BreakdownRule) * Max(difference.nrules, 1));
		if (difference.nrules > 0)
			memcpy(difference.rule, target->breakdown.rule, sizeof(BreakdownRule) * difference.nrules);
	}
	subtract_posted(&difference, posted);
	posting.breakdown = BreakdownEncode(&difference);
	return posting;
}

/* Tell whether what was posted is of the event's member, or stands where that member earns. */
bool
CorrectConcerns(Ledger *ledger, const Event *event, const Posted *posted)
{
	const Account *member = event->has_member ? LedgerAccount(ledger, event->member_id) : NULL;

	if (!event->has_member)
		return false;
	if (WalletMember(posted->member_id) == event->member_id ||
		WalletMember(posted->account_id) == event->member_id)
		return true;
	return member != NULL && (posted->account_id == member->household_id ||
							  WalletMember(posted->account_id) == member->merged_into);
}

/* Correct what an event gave to the account that it still concerns. */
void
CorrectEvent(Ledger *ledger, Program *program, Account *account, Event *event,
			 const Posted *posted)
{
	Award		target;
	Posting		posting;
	const char *reason;
	char	   *detail;
	bool		done = false;

	decide_target(ledger, program, event, posted, &target);
	if (event->limits != NULL && !event->limits->judged && account->account_id < FIRST_WALLET)
		/* the sale stands: nothing waits */
		(void) LimitsJudge(event->limits, event, &target, &reason, &detail);
	posting = correction(ledger, event, posted, &target);
	posting.detail = AwardDetail(account, event, is_redated(program, event, posted));
	post_difference(ledger, program, account, event, posted, &target, &posting, &done);
	CapsSettle(event, program, &target.breakdown, done);
}

/* Take back all that an event gave to an account that it concerns no more. */
void
CorrectAway(Ledger *ledger, Program *program, Account *account, Event *event,
			const Posted *posted)
{
	Posting		posting = correction(ledger, event, posted, NULL);
	bool		done = false;

	post_difference(ledger, program, account, event, posted, NULL, &posting, &done);
	if (done)
		CapsLeave(event, program);
}

/* What an award gave and corrections made of it, before returns. */
static void
read_gross(const Posted *posted, Award *gross)
{
	Breakdown	nothing = {0};

	memset(gross, 0, sizeof(Award));
	gross->breakdown = nothing;
	subtract_posted(&gross->breakdown, posted);
	for (int i = 0; i < gross->breakdown.nlines; i++)
		gross->breakdown.line[i] = -gross->breakdown.line[i];
	for (int i = 0; i < gross->breakdown.nrules; i++)
		gross->points -= gross->breakdown.rule[i].points;
}

/* Take back what was returned of an event and is not taken back yet; returns the points. */
int64
CorrectReturn(Ledger *ledger, Program *program, Account *account, Event *event,
			  const Posted *posted, const Posting *posting)
{
	Award		gross;
	bool		done = false;

	read_gross(posted, &gross);
	EventConvert(event, program);
	return -post_difference(ledger, program, account, event, posted, &gross, posting, &done);
}
