/*
 * merge.c
 *	  Whole accounts that move: a member merged into another, a member that
 *	  joins or leaves a household.
 *
 * Everything that an account holds leaves it with one entry and arrives with
 * another; lots keep their days.  Accounts are locked in ascending order.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "award.h"
#include "compat.h"
#include "detail.h"
#include "errors.h"
#include "hold.h"
#include "ledger.h"
#include "lifetime.h"
#include "program.h"

/* A text argument, NULL where it is null. */
static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

/* A member argument, which must not be null. */
static int64
member_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_MEMBER), errmsg("member must not be null")));
	return PG_GETARG_INT64(number);
}

/* The own account of a member under its lock. */
static Account *
locked_account(Ledger *ledger, int64 member_id)
{
	Account    *account = LedgerAccount(ledger, member_id);

	if (account == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_MEMBER),
				 errmsg("member " INT64_FORMAT " does not exist", member_id),
				 errhint("loyalty.enroll makes a member.")));
	return account;
}

/* ------------------------------------------------------------------------
 * Merge
 * ------------------------------------------------------------------------ */

/* Tell whether an account is a household's. */
static bool
is_household(const Account *account)
{
	return account->account_id >= FIRST_HOUSEHOLD && account->account_id < FIRST_WALLET;
}

/* Demand that one member may be merged into another. */
static void
check_merge(const Account *from, const Account *to)
{
	const char *problem = NULL;

	if (from->account_id == to->account_id)
		problem = "A member cannot be merged into itself.";
	else if (from->program_id != to->program_id)
		problem = "They are of different programmes.";
	else if (from->merged_into != 0)
		problem = "The first was merged into another member before.";
	else if (to->closed)
		problem = "The second is closed.";
	else if (from->nholds > 0)
		problem = "The first has points on hold.";
	else if (is_household(from) || is_household(to))
		problem = "One of them is a household; its members may leave it and join another.";
	else if (from->household_id != 0 || to->household_id != 0)
		problem = "One of them shares the account of a household, which it must leave first.";
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_MERGE),
				 errmsg("member " INT64_FORMAT " cannot be merged into member " INT64_FORMAT,
						from->account_id, to->account_id),
				 errdetail("%s", problem)));
}

/* What taking over lots posts: debts are settled on either side, but not with what is dead. */
static void
take_over(const Account *to, const LotSet *lots, int32 today, LotSet *delta)
{
	LotSet		none;
	LotSet		scratch;
	LotSet		balance;
	int64		taken;

	lotset_init(&none);
	lotset_init(delta);
	for (int i = 0; i < lots->n; i++)
	{
		if (lots->lot[i].expires_on <= today)
			LotsRaise(lotset_add_lot(delta, lots->lot[i]));
		else if (lots->lot[i].amount > 0)
			LotsRaise(lotset_earn(&to->lots, lots->lot[i], delta));
	}
	lotset_copy(&balance, HoldsFree(to, &scratch));
	LotsRaise(lotset_add(&balance, delta));
	LotsRaise(lotset_take_back(&balance, &none, lotset_debt(lots), today, NEGATIVE_ALLOW, -1, &none,
							   &taken));
	LotsRaise(lotset_add(delta, &none));
}

/* Keep the better of two accounts' tiers, and what both together have earned. */
static void
keep_better_tier(Ledger *ledger, const Program *program, const Account *from, Account *to,
			int64 source_id)
{
	int			theirs = ProgramTierIndex(program, from->tier_id);
	int			ours = ProgramTierIndex(program, to->tier_id);

	if (theirs > ours || (theirs == ours && theirs != NO_TIER && from->tier_until > to->tier_until))
		LedgerSetTier(ledger, to, from->tier_id, from->tier_since, from->tier_until, "merged",
					  source_id, NULL);
	AwardPromote(ledger, program, to, source_id);
}

/* Close what died of an account. */
static void
close_dead(Ledger *ledger, const Program *program, Account *account, int32 today)
{
	LifetimeClose(ledger, program, account, today, Max(LedgerNow(ledger), account->last_event_at));
}

/*
 * Open again what died and was closed, on the eve of a move: the account that
 * it goes to closes it, where returns and reinstatements will look for it.
 */
static void
reopen_dead(Ledger *ledger, Account *account, int32 today)
{
	LotSet		closed;
	LotSet		dead;
	Posting		posting = {.kind = "expire", .occurred_at = LedgerNow(ledger), .lots = &dead};

	LedgerFlush(ledger);
	LedgerExpired(ledger, account->account_id, &closed);
	LotsRaise(lotset_negate(&closed));
	lotset_init(&dead);
	for (int i = 0; i < closed.n; i++)
	{
		if (closed.lot[i].amount > 0 && closed.lot[i].expires_on <= today)
			LotsRaise(lotset_add_lot(&dead, closed.lot[i]));
	}
	if (dead.n > 0)
		LedgerPost(ledger, account, &posting);
}

/* Move everything of one account to another; the points that live. */
static int64
move_account(Ledger *ledger, const Program *program, Account *from, Account *to,
			 const char *kind, const char *reason)
{
	int32		today = ProgramDay(program, LedgerNow(ledger));
	LotSet		given;
	LotSet		taken;
	TallySet	tally;
	int64		points;
	Detail		detail;
	Posting		posting = {.kind = kind, .reason = reason, .occurred_at = LedgerNow(ledger),
	.source_id = LedgerNextSource()};

	close_dead(ledger, program, from, today);
	close_dead(ledger, program, to, today);
	LotsRaise(lotset_total(&from->lots, &points));
	reopen_dead(ledger, from, today);
	lotset_copy(&given, &from->lots);
	tallyset_copy(&tally, &from->tally);
	take_over(to, &given, today, &taken);
	DetailBegin(&detail);
	DetailInteger(&detail, "from", from->account_id);
	DetailInteger(&detail, "to", to->account_id);
	posting.detail = DetailEnd(&detail);
	posting.lots = &taken;
	posting.tally = &tally;
	LedgerPost(ledger, to, &posting);
	LotsRaise(lotset_negate(&given));
	TallyRaise(tallyset_negate(&tally));
	posting.lots = &given;
	LedgerPost(ledger, from, &posting);
	close_dead(ledger, program, to, today);
	keep_better_tier(ledger, program, from, to, posting.source_id);
	return points;
}

PG_FUNCTION_INFO_V1(loyalty_post_merge);

/* post_merge(from, to, reason): move everything of one member to another; the points moved. */
Datum
loyalty_post_merge(PG_FUNCTION_ARGS)
{
	int64		ids[2] = {member_argument(fcinfo, 0), member_argument(fcinfo, 1)};
	int64		from_id = ids[0];
	int64		to_id = ids[1];
	Ledger	   *ledger;
	Account    *from;
	Account    *to;
	Program    *program;
	int64		points = 0;

	SPI_connect();
	ledger = LedgerOpen();
	LedgerLock(ledger, ids, 2);
	from = locked_account(ledger, from_id);
	to = locked_account(ledger, to_id);
	if (from->merged_into != to_id || from_id == to_id)
	{
		program = ProgramPin(from->program_id);
		HoldsSettle(ledger, program, from);
		HoldsSettle(ledger, program, to);
		check_merge(from, to);
		points = move_account(ledger, program, from, to, "merge", text_argument(fcinfo, 2));
		ProgramUnpin(program);
		LedgerFlush(ledger);
		LedgerMerge(ledger, from_id, to_id);
	}
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(points);
}

/* ------------------------------------------------------------------------
 * Households
 * ------------------------------------------------------------------------ */

/* Refuse what a household cannot do. */
static void
raise_household(int64 member_id, int64 household_id, const char *what, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_HOUSEHOLD),
			 household_id == 0 ? errmsg("member " INT64_FORMAT " cannot %s a household", member_id, what) :
			 errmsg("member " INT64_FORMAT " cannot %s household " INT64_FORMAT, member_id, what,
					household_id),
			 errdetail("%s", why)));
}

/* Demand that a member may join a household. */
static void
check_join(const Account *member, const Account *household)
{
	const char *problem = NULL;

	if (household->account_id < FIRST_HOUSEHOLD || member->account_id >= FIRST_HOUSEHOLD)
		problem = "A member joins a household that loyalty.create_household made.";
	else if (member->program_id != household->program_id)
		problem = "They are of different programmes.";
	else if (member->household_id != 0)
		problem = "It is in another household, which it must leave first.";
	else if (member->closed)
		problem = "The member is closed.";
	else if (household->closed)
		problem = "The household is closed.";
	else if (member->nholds > 0)
		problem = "The member has points on hold.";
	if (problem != NULL)
		raise_household(member->account_id, household->account_id, "join", problem);
}

/* How many members share an account now, whatever the transaction's snapshot: its row is locked. */
static int64
count_sharers(int64 household_id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(household_id);
	bool		isnull;

	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT pg_catalog.count(*) FROM loyalty.household_member h"
							  " WHERE h.household_id = $1 AND h.left_at IS NULL", 1, &type, &value,
							  NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count the members of a household");
	PopActiveSnapshot();
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Demand that a household has room for one more. */
static void
check_room(const Program *program, const Account *member, const Account *household)
{
	if (program->household_max > 0 && count_sharers(household->account_id) >= program->household_max)
		raise_household(member->account_id, household->account_id, "join",
						psprintf("It has %d members already, which is the programme's household_max.",
								 program->household_max));
}

/* Let a tier go with the history that earned it, unless it was given by hand for a time. */
static void
leave_tier(Ledger *ledger, const Program *program, Account *member)
{
	int32		today = ProgramDay(program, LedgerNow(ledger));
	int32		joined_on = ProgramDay(program, member->joined_at);
	int			earned;

	if (member->tier_pinned >= today)
		return;
	TallyRaise(tier_earned(&program->tier_policy, program->tier, program->ntiers, &member->tally,
						   joined_on, today, &earned));
	if (earned >= ProgramTierIndex(program, member->tier_id))
		return;
	LedgerSetTier(ledger, member, earned == NO_TIER ? 0 : program->tier[earned].tier_id,
				  LedgerNow(ledger),
				  earned == NO_TIER ? DATEVAL_NOEND :
				  tier_good_until(&program->tier_policy, joined_on, today),
				  "joined", 0, NULL);
}

PG_FUNCTION_INFO_V1(loyalty_join_household);

/* join_household(member_id, household_id, reason): share its account; the points moved there. */
Datum
loyalty_join_household(PG_FUNCTION_ARGS)
{
	int64		ids[2] = {member_argument(fcinfo, 0), member_argument(fcinfo, 1)};
	int64		member_id = ids[0];
	int64		household_id = ids[1];
	char	   *reason = text_argument(fcinfo, 2);
	Ledger	   *ledger;
	Account    *member;
	Account    *household;
	int64		points = 0;

	SPI_connect();
	ledger = LedgerOpen();
	LedgerLock(ledger, ids, 2);
	member = locked_account(ledger, member_id);
	household = locked_account(ledger, household_id);
	if (member->household_id != household_id)
	{
		Program    *program = ProgramPin(member->program_id);

		HoldsSettle(ledger, program, member);
		HoldsSettle(ledger, program, household);
		check_join(member, household);
		check_room(program, member, household);
		points = move_account(ledger, program, member, household, "join", reason);
		leave_tier(ledger, program, member);
		ProgramUnpin(program);
		LedgerFlush(ledger);
		LedgerJoin(ledger, member, household_id, reason);
	}
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(points);
}

/* Demand that a member who leaves has no points of the household on hold. */
static void
check_leave(const Account *household, int64 member_id)
{
	for (int i = 0; i < household->nholds; i++)
	{
		Datum		whose = DetailMember(household->hold[i].detail, "member");

		if (whose == (Datum) 0 ||
			DatumGetInt64(DirectFunctionCall1(numeric_int8, DirectFunctionCall1(jsonb_numeric, whose))) != member_id)
			continue;
		raise_household(member_id, household->account_id, "leave",
						psprintf("It has points on hold there, with key \"%s\", to be captured or released first.",
								 household->hold[i].key));
	}
}

/* Let a leaving member take points along, those that die soonest first. */
static void
take_along(Ledger *ledger, const Program *program, Account *household, Account *member,
		   int64 points, const char *reason)
{
	int32		today = ProgramDay(program, LedgerNow(ledger));
	LotSet		scratch;
	const LotSet *lots = HoldsFree(household, &scratch);
	LotSet		taken;
	LotSet		given;
	LotSet		received;
	int64		available;
	Detail		detail;
	Posting		posting = {.kind = "leave", .reason = reason, .occurred_at = LedgerNow(ledger)};

	LotsRaise(lotset_available(lots, today, &available));
	if (points > available)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INSUFFICIENT_POINTS),
				 errmsg("household " INT64_FORMAT " does not have " INT64_FORMAT " points to give along",
						household->account_id, points),
				 errdetail(INT64_FORMAT " points are available.", Max(available, 0))));
	lotset_init(&taken);
	LotsRaise(lotset_spend(lots, points, today, &taken));
	lotset_copy(&given, &taken);
	LotsRaise(lotset_negate(&given));
	lotset_init(&received);
	LotsRaise(lotset_restore(&member->lots, &given, today, RESTORE_EXPIRED, 0, &received));
	DetailBegin(&detail);
	DetailInteger(&detail, "from", household->account_id);
	DetailInteger(&detail, "to", member->account_id);
	posting.detail = DetailEnd(&detail);
	posting.source_id = LedgerNextSource();
	posting.lots = &taken;
	LedgerPost(ledger, household, &posting);
	posting.lots = &received;
	LedgerPost(ledger, member, &posting);
}

PG_FUNCTION_INFO_V1(loyalty_leave_household);

/* leave_household(member_id, points, reason): have an account of one's own again, with so many points. */
Datum
loyalty_leave_household(PG_FUNCTION_ARGS)
{
	int64		member_id = member_argument(fcinfo, 0);
	int64		points = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	char	   *reason = text_argument(fcinfo, 2);
	Ledger	   *ledger;
	Account    *member;
	Account    *household;
	Program    *program;

	if (points < 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_POINTS),
				 errmsg("points must not be below zero"),
				 errdetail("Got " INT64_FORMAT ".", points)));
	SPI_connect();
	ledger = LedgerOpen();
	LedgerLock(ledger, &member_id, 1);
	member = locked_account(ledger, PG_GETARG_INT64(0));
	if (member->household_id == 0)
		raise_household(member_id, 0, "leave", "It is in none.");
	household = LedgerHome(ledger, member);
	program = ProgramPin(member->program_id);
	HoldsSettle(ledger, program, household);
	check_leave(household, member_id);
	if (points > 0)
		take_along(ledger, program, household, member, points, reason);
	ProgramUnpin(program);
	LedgerFlush(ledger);
	LedgerLeave(ledger, member, reason);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(points);
}

PG_FUNCTION_INFO_V1(loyalty_block_in_household);

/* block_in_household(member_id, blocked): it does not spend the household's points, or does again. */
Datum
loyalty_block_in_household(PG_FUNCTION_ARGS)
{
	int64		member_id = member_argument(fcinfo, 0);
	bool		blocked = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	Ledger	   *ledger;
	Account    *member;

	SPI_connect();
	ledger = LedgerOpen();
	LedgerLock(ledger, &member_id, 1);
	member = locked_account(ledger, PG_GETARG_INT64(0));
	if (member->household_id == 0)
		raise_household(member_id, 0, blocked ? "be blocked in" : "be unblocked in", "It is in none.");
	LedgerBlock(ledger, member, blocked);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_VOID();
}
