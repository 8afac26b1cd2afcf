/*
 * apply.c
 *	  One event on one account: made ready, decided, posted, its tier promoted.
 *
 * The account is locked by the caller, who also flushes.  Knows no trigger and
 * no transition table, so that awards, quotes, simulations and releases are
 * the same code.
 */
#include "award.h"

#include "access/xact.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "calendar.h"
#include "compat.h"
#include "detail.h"
#include "errors.h"
#include "hold.h"
#include "lifetime.h"

/* Find the articles of a purchase's lines. */
static void
find_products(Program *program, Event *event)
{
	Datum	   *skus = palloc(sizeof(Datum) * event->nlines);
	int		   *line = palloc(sizeof(int) * event->nlines);
	const Product **found = palloc(sizeof(Product *) * event->nlines);
	int			n = 0;

	for (int i = 0; i < event->nlines; i++)
	{
		if (event->line[i].sku == 0)
			continue;
		line[n] = i;
		skus[n++] = event->line[i].sku;
	}
	if (n > 0)
		ProductFind(program->catalog_id, skus, n, found);
	for (int i = 0; i < n; i++)
		event->line[line[i]].product = found[i];
	pfree(skus);
	pfree(line);
	pfree(found);
}

/* Make an event ready for a decision: currency, articles, shares. */
void
AwardPrepare(Program *program, Event *event)
{
	EventConvert(event, program);
	if (event->nlines > 0 && program->uses_products)
		find_products(program, event);
	EventShare(event, program);
}

/* What rules may know of the person who bought. */
void
AwardPersonFacts(Ledger *ledger, const Program *program, const Event *event, MemberFacts *facts)
{
	const Account *member = LedgerAccount(ledger, event->member_id);

	if (program->uses_members)
		LedgerLoadMembers(ledger);
	facts->member_id = event->member_id;
	facts->external_id = member->external_id;
	facts->joined_at = member->joined_at;
	facts->has_birthday = member->has_birthday;
	facts->birthday = member->birthday;
	facts->staff = member->staff;
	facts->attributes = member->attributes;
}

/*
 * What rules may know of the member, as of the event: the person, the orders
 * and spend of one account and the tier of another; they differ for a wallet.
 */
void
AwardMemberFacts(Ledger *ledger, Program *program, const Account *account,
				 const Account *history, const Event *event, MemberFacts *facts)
{
	TallyMonth	life;

	AwardPersonFacts(ledger, program, event, facts);
	TallyRaise(tallyset_sum(&history->tally, INT32_MIN, INT32_MAX, &life));
	facts->pinned.purchases = life.visits;
	facts->pinned.spend = life.spend;
	facts->pinned.tier_id = account->tier_id;
	if (event->occurred_at < account->tier_since && program->ntiers > 0)
		facts->pinned.tier_id = LedgerTierAt(ledger, account->account_id, event->occurred_at);
}

/* The account that an event's member earns into; the member must be there and not be closed. */
Account *
AwardAccount(Ledger *ledger, const Event *event)
{
	Account    *member = LedgerAccount(ledger, event->member_id);

	/* a wallet earns with its member, never alone */
	if (member == NULL || event->member_id >= FIRST_WALLET)
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_MEMBER),
				 errmsg("member " INT64_FORMAT " does not exist", event->member_id),
				 errdetail("Transaction " INT64_FORMAT " names it.", event->source_id),
				 errhint("loyalty.enroll makes a member; leave member_id null for a guest.")));
	if (member->closed && !event->is_void)
		ereport(ERROR,
				(errcode(ERRCODE_LY_MEMBER_CLOSED),
				 errmsg("member " INT64_FORMAT " is closed", event->member_id),
				 errdetail("Transaction " INT64_FORMAT " names it.", event->source_id),
				 member->merged_into != 0 ?
				 errhint("It was merged into member " INT64_FORMAT ".", member->merged_into) :
				 errhint("Leave member_id null to keep the purchase as a guest's.")));
	return LedgerHome(ledger, member);
}

/* The lot that points earned on a day make. */
Lot
AwardLot(const Program *program, int32 day, int64 points)
{
	Lot			lot;

	lot.available_from = program->pending_release ? CALENDAR_NEVER : day + program->hold_days;
	lot.expires_on = calendar_expires_on(&program->expiry, lot.available_from);
	lot.amount = points;
	return lot;
}

/* The tally of an event that earned points; spend and visits count in the programme, not again in its wallets. */
void
AwardTally(const Program *program, const Event *event, int32 day, int64 points, TallySet *tally)
{
	TallyMonth	month = {.month = calendar_month(day), .points = points};

	if (event->kind == ON_PURCHASE && program->wallet_of == 0)
	{
		month.spend = event->total;
		month.visits = 1;
	}
	tallyset_init(tally);
	TallyRaise(tallyset_add_month(tally, month));
}

/* Promote the account where its window now earns a higher tier. */
void
AwardPromote(Ledger *ledger, const Program *program, Account *account, int64 source_id)
{
	int32		joined_on;
	int32		day;
	int			earned;

	if (ProgramTierIndex(program, account->tier_id) == program->ntiers - 1)
		return;					/* there is none above */
	joined_on = ProgramDay(program, account->joined_at);
	day = ProgramDay(program, account->last_event_at);
	TallyRaise(tier_earned(&program->tier_policy, program->tier, program->ntiers,
						   &account->tally, joined_on, day, &earned));
	if (earned > ProgramTierIndex(program, account->tier_id))
		LedgerSetTier(ledger, account, program->tier[earned].tier_id, account->last_event_at,
					  tier_good_until(&program->tier_policy, joined_on, day),
					  "earned", source_id, NULL);
}

/* Demote after a take-back, where the promotion is recent enough to be revoked. */
void
AwardRevokePromotion(Ledger *ledger, const Program *program, Account *account, int64 source_id)
{
	int32		joined_on = ProgramDay(program, account->joined_at);
	int32		today = ProgramDay(program, LedgerNow(ledger));
	int			current = ProgramTierIndex(program, account->tier_id);
	int			earned;

	if (current == NO_TIER || account->tier_pinned >= today ||
		today - ProgramDay(program, account->tier_since) > program->tier_policy.revoke_days)
		return;
	TallyRaise(tier_earned(&program->tier_policy, program->tier, program->ntiers,
						   &account->tally, joined_on,
						   ProgramDay(program, account->last_event_at), &earned));
	if (earned < current)
		LedgerSetTier(ledger, account, earned == NO_TIER ? 0 : program->tier[earned].tier_id,
					  LedgerNow(ledger),
					  earned == NO_TIER ? DATEVAL_NOEND :
					  tier_good_until(&program->tier_policy, joined_on, today),
					  "revoked", source_id, NULL);
}

/*
 * In a household's account an entry says whose event it is of, and one that
 * gives points the days of another time says which.
 */
Datum
AwardDetail(const Account *account, const Event *event, bool redated)
{
	bool		shared = account->account_id >= FIRST_HOUSEHOLD &&
		account->account_id < FIRST_WALLET && account->account_id != event->member_id;
	Detail		detail;

	if (!shared && !redated)
		return (Datum) 0;
	DetailBegin(&detail);
	if (shared)
		DetailInteger(&detail, "member", event->member_id);
	if (redated)
		DetailTime(&detail, "occurred_at", event->occurred_at);
	return DetailEnd(&detail);
}

/* What an entry of an award says besides its points: whose it is, and what was wanted where limits cut it. */
static Datum
award_detail(const Account *account, const Event *event, int64 points, int64 wanted)
{
	Detail		detail;

	if (points == wanted)
		return AwardDetail(account, event, false);
	DetailBegin(&detail);
	if (AwardDetail(account, event, false) != (Datum) 0)
		DetailInteger(&detail, "member", event->member_id);
	DetailInteger(&detail, "wanted", wanted);
	return DetailEnd(&detail);
}

/* Find the velocity limits that apply to an event; the member's account is locked or read. */
void
AwardLimits(Ledger *ledger, Program *program, Event *event, LimitBook *book)
{
	MemberFacts facts;

	if (event->limits == NULL)
		event->limits = LimitsOf(book, event);
	if (program->nlimits == 0)
		return;
	memset(&facts, 0, sizeof(facts));
	AwardPrepare(program, event);
	AwardPersonFacts(ledger, program, event, &facts);
	EarnFacts(program, event, &facts);
	LimitsFind(event->limits, program, event);
}

/* Ask the limits about a decided award; false where it is to wait, which is then written down. */
static bool
pass_limits(Ledger *ledger, const Account *account, const Event *event, Award *award)
{
	const char *reason;
	char	   *detail;

	if (event->limits == NULL || account->account_id >= FIRST_WALLET ||
		LimitsJudge(event->limits, event, award, &reason, &detail))
		return true;
	if (!event->limits->quoting)
		LedgerHold(ledger, event->source_id, account->account_id, reason, detail);
	return false;
}

/* Post what a decided event gives; false where that is nothing. */
static bool
post_award(Ledger *ledger, const Program *program, Account *account, const Event *event,
		   int64 wanted, AwardOutcome *outcome)
{
	int32		day = ProgramDay(program, event->occurred_at);
	LotSet		lots;
	TallySet	tally;
	Posting		posting = {.kind = "earn", .source_id = event->source_id,
	.occurred_at = event->occurred_at};

	outcome->lot = AwardLot(program, day, outcome->award.points);
	if ((event->kind == ON_ACTIVITY || program->wallet_of != 0) && outcome->award.points == 0)
		return false;
	LifetimeClose(ledger, program, account, day, event->occurred_at);
	lotset_init(&lots);
	if (outcome->award.points > 0)
		LotsRaise(lotset_earn(&account->lots, outcome->lot, &lots));
	AwardTally(program, event, day, outcome->award.points, &tally);
	posting.lots = &lots;
	posting.tally = &tally;
	posting.breakdown = BreakdownEncode(&outcome->award.breakdown);
	posting.detail = award_detail(account, event, outcome->award.points, wanted);
	LedgerPost(ledger, account, &posting);
	AwardPromote(ledger, program, account, event->source_id);
	return true;
}

/* Tell an error of a rule from one of the server or of a transaction that is to be tried again. */
static bool
is_of_rule(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return true;
	}
}

/*
 * Decide where a rule that raises must not fail the sale: the decision runs in
 * a subtransaction, and an error in it parks the award; false where it did.
 */
static bool
decide_or_hold(Ledger *ledger, Program *program, const Account *account, Event *event,
			   const MemberFacts *facts, Award *award)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		EarnDecide(program, event, facts, event->known_at, award);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (!is_of_rule(error->sqlerrcode))
			ReThrowError(error);
		/* what was said may quote what somebody is called: reports read the reason */
		LedgerHoldFailed(ledger, event->source_id, account->account_id, "a rule failed",
						 error->context == NULL ? error->message :
						 psprintf("%s; %s", error->message, error->context));
		CapsForget(event, program);
		FreeErrorData(error);
		return false;
	}
	PG_END_TRY();
	return true;
}

/* Award an event to an account; the orders and spend that rules know of stand in history. */
void
AwardPost(Ledger *ledger, Program *program, Account *account, const Account *history,
		  Event *event, AwardOutcome *outcome)
{
	MemberFacts facts;
	int64		wanted;
	bool		posted = false;

	memset(outcome, 0, sizeof(AwardOutcome));
	if (program->has_caps && event->caps == NULL)
		elog(ERROR, "nobody counts for the caps of programme %d", program->program_id);
	HoldsSettle(ledger, program, account);
	AwardPrepare(program, event);
	AwardMemberFacts(ledger, program, account, history, event, &facts);
	if (event->hold_reason != NULL)
	{
		outcome->held = true;
		/* its wallets' part waits with it */
		if (program->wallet_of == 0)
			LedgerHold(ledger, event->source_id, account->account_id, event->hold_reason,
					   event->hold_detail);
		return;
	}
	outcome->tier_before = ProgramTierIndex(program, facts.pinned.tier_id);
	if (event->refused)
		outcome->award.breakdown.pinned = facts.pinned;
	else if (!program->hold_on_error)
		EarnDecide(program, event, &facts, event->known_at, &outcome->award);
	else
		outcome->held = !decide_or_hold(ledger, program, account, event, &facts, &outcome->award);
	wanted = outcome->award.points;
	outcome->held = outcome->held || !pass_limits(ledger, account, event, &outcome->award);
	if (outcome->held)
		memset(&outcome->award, 0, sizeof(Award));
	else
		posted = post_award(ledger, program, account, event, wanted, outcome);
	CapsSettle(event, program, &outcome->award.breakdown, posted);
	outcome->tier_after = ProgramTierIndex(program, account->tier_id);
}
