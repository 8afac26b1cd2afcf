/*
 * redeem.c
 *	  Points after they are earned: redeem, hold, capture, release, undo,
 *	  what pays for a reward, transfer, write-off.
 *
 * Each locks its accounts in ascending order, looks its key up under the lock,
 * decides with the pure rooms, posts and flushes.  A key with the content that
 * it had gives the first result; with other content it is an error.  Knows
 * nothing of rules.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/numeric.h"

#include "award.h"
#include "compat.h"
#include "detail.h"
#include "errors.h"
#include "hold.h"
#include "ledger.h"
#include "lifetime.h"
#include "program.h"
#include "proof.h"
#include "spend.h"

#define MAX_KEY		500
#define MAX_TTL		(INT64CONST(3650) * USECS_PER_DAY)
#define CLAIM_KEY	"loyalty:claim "	/* of the redemption that paid for a reward */

/* An operation on one account, under its lock */
typedef struct Operation
{
	Ledger	   *ledger;
	Account    *account;		/* of the member, its household or the one that it was merged into */
	int64		member_id;
	Account		member;			/* as the member's own account says */
	Program    *program;
	int32		today;
	const char *key;
	bool		replayed;		/* the key was used before */
	KeyedEntry	first;			/* what it made then */
} Operation;

/* What somebody asks to redeem or to hold */
typedef struct Request
{
	int64		points;
	bool		partial;
	Datum		content;		/* jsonb: all that was asked for */
	Datum		payable;		/* numeric: most money that points may pay; 0: no limit */
	Spending	spending;		/* as velocity limits see it */
	Event		event;			/* that they counted; its source_id is 0 where none did */
} Request;

/* What a redemption comes to */
typedef struct Redeemed
{
	int64		redemption_id;
	int64		points;
	Datum		money;			/* numeric, 0: null */
	char	   *currency;
	int64		proof_id;		/* of the one-time code that let it through, 0: none */
	Datum		more;			/* the last column: of a redemption what was undone, of a hold its end */
} Redeemed;

/* ------------------------------------------------------------------------
 * Arguments
 * ------------------------------------------------------------------------ */

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

/* A key argument, which must not be empty. */
static char *
key_argument(FunctionCallInfo fcinfo, int number)
{
	char	   *key = text_argument(fcinfo, number);

	if (key == NULL || key[0] == '\0' || strlen(key) > MAX_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_POINTS),
				 errmsg("an operation on points needs a key"),
				 errdetail("Expected a text of up to %d bytes that is not empty.", MAX_KEY),
				 errhint("A key of the caller's makes a retry harmless; an order number is a good one.")));
	return key;
}

/* A key argument of a new operation: the engine's own keys are not for callers. */
static char *
new_key_argument(FunctionCallInfo fcinfo, int number)
{
	char	   *key = key_argument(fcinfo, number);

	if (strncmp(key, "loyalty:", 8) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_POINTS),
				 errmsg("keys that begin with \"loyalty:\" are the engine's own"),
				 errhint("Take another key.")));
	return key;
}

/* A number of points above zero. */
static int64
points_argument(FunctionCallInfo fcinfo, int number)
{
	int64		points = PG_ARGISNULL(number) ? 0 : PG_GETARG_INT64(number);

	if (points <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_POINTS),
				 errmsg("points must be above zero"),
				 PG_ARGISNULL(number) ? errdetail("Got NULL.") :
				 errdetail("Got " INT64_FORMAT ".", points)));
	return points;
}

/* ------------------------------------------------------------------------
 * Operations
 * ------------------------------------------------------------------------ */

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

/*
 * Go on with the account that the member's was merged into.
 *
 * Merged accounts are locked before all others, so that it comes after the
 * member's own whatever their numbers are.
 */
static Account *
follow_merge(const Operation *op, int64 other_id)
{
	int64		into = op->member.merged_into;
	int64		ids[2] = {into, other_id};

	LedgerLock(op->ledger, ids, other_id == 0 ? 1 : 2);
	return locked_account(op->ledger, into);
}

/* Find what a key made for the member, or for the one that it was merged into. */
static bool
find_key(const Operation *op, const char *key, KeyedEntry *entry)
{
	if (LedgerFindKey(op->ledger, &op->member, key, entry))
		return true;
	return op->member.merged_into != 0 &&
		LedgerFindKey(op->ledger, locked_account(op->ledger, op->member.merged_into), key, entry);
}

/*
 * Tell whether a hold has the key.  In the member's own account no entry bears
 * the key of an open hold, so that nobody needs to look for one.
 */
static bool
is_held(const Operation *op, const char *key)
{
	return op->account->account_id == op->member_id && op->member.left_households == NULL &&
		HoldFind(op->account, key) != NULL;
}

/* Open the ledger for an operation. */
static void
open_operation(Operation *op, const char *key)
{
	SPI_connect();
	op->ledger = LedgerOpen();
	op->key = key;
}

/* Lock the accounts of an operation, the member's first of ids; pin the programme, look the key up. */
static void
lock_operation(Operation *op, int64 *ids, int n, int64 other_id)
{
	int64		member_id = ids[0];
	Account    *own;

	LedgerLock(op->ledger, ids, n);
	own = locked_account(op->ledger, member_id);
	op->member = *own;
	op->member_id = member_id;
	if (own->merged_into != 0)
		own = follow_merge(op, other_id);
	op->account = LedgerHome(op->ledger, own);
	op->program = ProgramPin(op->account->program_id);
	op->today = ProgramDay(op->program, LedgerNow(op->ledger));
	op->replayed = !is_held(op, op->key) && find_key(op, op->key, &op->first);
}

/* Begin an operation of a member, with another or with none (0). */
static void
begin_operation(Operation *op, int64 member_id, int64 other_id, const char *key)
{
	int64		ids[2] = {member_id, other_id};

	open_operation(op, key);
	lock_operation(op, ids, other_id == 0 ? 1 : 2, other_id);
}

/*
 * Begin to undo a redemption.  What a household spent goes back to it, also by
 * a member who left it: all that is concerned is locked in one order.
 */
static void
begin_undo(Operation *op, int64 member_id, const char *redemption_key, const char *key)
{
	int64		ids[3] = {member_id, 0, 0};
	int			n = 1;
	int64		id = member_id;
	Account    *member;
	KeyedEntry	redemption;

	open_operation(op, key);
	if (LedgerLockMembers(op->ledger, &id, 1, &member) == 1 && member->left_households != NULL)
	{
		if (member->household_id != 0)
			ids[n++] = member->household_id;
		if (LedgerFindKey(op->ledger, member, redemption_key, &redemption) &&
			redemption.account_id != member_id)
			ids[n++] = redemption.account_id;
	}
	lock_operation(op, ids, n, 0);
}

/* End an operation: write what is queued. */
static void
end_operation(Operation *op)
{
	LedgerFlush(op->ledger);
	LedgerClose(op->ledger);
	ProgramUnpin(op->program);
}

/* Refuse a key that was used for something else. */
static void
raise_key_reused(const Operation *op, Datum asked)
{
	int			length;

	ereport(ERROR,
			(errcode(ERRCODE_LY_KEY_REUSED),
			 errmsg("key \"%s\" of member " INT64_FORMAT " was used for something else",
					op->key, op->account->account_id),
			 op->first.detail == (Datum) 0 ?
			 errdetail("Entry " INT64_FORMAT " is %s; this call asks for %s.", op->first.seq,
					   op->first.kind, SealedDetail(asked, &length)) :
			 errdetail("Entry " INT64_FORMAT " is %s with %s; this call asks for %s.",
					   op->first.seq, op->first.kind, SealedDetail(op->first.detail, &length),
					   SealedDetail(asked, &length)),
			 errhint("A key belongs to one operation for ever; take another.")));
}

/* Refuse a new operation the key of an open hold. */
static void
refuse_held_key(const Operation *op)
{
	if (HoldFind(op->account, op->key) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_KEY_REUSED),
				 errmsg("key \"%s\" of member " INT64_FORMAT " is a hold", op->key,
						op->account->account_id),
				 errhint("loyalty.capture redeems a hold; anything else takes a key of its own.")));
}

/* Demand that the key's first use was of this kind and asked for the same. */
static void
check_replay(const Operation *op, const char *kind, const char *other_kind, const char *member,
			 Datum asked)
{
	bool		same_kind = strcmp(op->first.kind, kind) == 0 ||
		(other_kind != NULL && strcmp(op->first.kind, other_kind) == 0);

	if (!same_kind || !DetailEqual(DetailMember(op->first.detail, member), asked))
		raise_key_reused(op, asked);
}

/* Write down what happened to the account by itself: holds that ended, points that died. */
static void
settle(const Operation *op, Account *account)
{
	HoldsSettle(op->ledger, op->program, account);
	if (op->program->expiry.kind == EXPIRY_SLIDING)
		LifetimeClose(op->ledger, op->program, account, op->today, LedgerNow(op->ledger));
}

/* Demand that the member may spend. */
static void
check_may_spend(const Operation *op)
{
	const Account *account = op->account;
	int64		debt = lotset_debt(&account->lots);

	if (op->member.closed || account->closed)
		ereport(ERROR,
				(errcode(ERRCODE_LY_MEMBER_CLOSED),
				 errmsg("member " INT64_FORMAT " is closed",
						op->member.closed ? op->member_id : account->account_id),
				 op->member.merged_into == 0 ? 0 :
				 errhint("It was merged into member " INT64_FORMAT ".", op->member.merged_into)));
	if (op->member.frozen || account->frozen)
		ereport(ERROR,
				(errcode(ERRCODE_LY_MEMBER_FROZEN),
				 errmsg("member " INT64_FORMAT " is frozen",
						op->member.frozen ? op->member_id : account->account_id),
				 errdetail("A frozen member earns and does not spend."),
				 errhint("loyalty.set_member_status(member_id, 'active') thaws it.")));
	if (op->member.household_blocked)
		ereport(ERROR,
				(errcode(ERRCODE_LY_BLOCKED_IN_HOUSEHOLD),
				 errmsg("member " INT64_FORMAT " does not spend from household " INT64_FORMAT,
						op->member_id, op->member.household_id),
				 errdetail("The household blocked it; what it earns still goes there."),
				 errhint("loyalty.block_in_household(member_id, false) lets it spend again.")));
	if (debt > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_IN_DEBT),
				 errmsg("member " INT64_FORMAT " owes points", account->account_id),
				 errdetail("The debt is " INT64_FORMAT " points.", debt),
				 errhint("What is earned next repays it; loyalty.write_off forgives it.")));
}

/* ------------------------------------------------------------------------
 * Money
 * ------------------------------------------------------------------------ */

static Datum
numeric_of(int64 value)
{
	return NumericGetDatum(int64_to_numeric(value));
}

/* Cut a number to the digits of the currency's minor unit. */
static Datum
cut_money(Datum money, const Program *program)
{
	return DirectFunctionCall2(numeric_trunc, money, Int32GetDatum(program->currency_digits));
}

/* What points are worth, in whole minor units. */
static Datum
money_of(const Program *program, int64 points)
{
	return cut_money(DirectFunctionCall2(numeric_mul, numeric_of(points),
										 NumericGetDatum(program->unit_value)), program);
}

/* A part of an amount of money, in whole minor units. */
static Datum
money_share(const Program *program, Datum money, int64 part, int64 whole)
{
	Datum		scale = numeric_of(1);
	Datum		units;

	for (int i = 0; i < program->currency_digits; i++)
		scale = DirectFunctionCall2(numeric_mul, scale, numeric_of(10));
	units = DirectFunctionCall2(numeric_mul, DirectFunctionCall2(numeric_mul, money, scale),
								numeric_of(part));
	units = DirectFunctionCall2(numeric_div_trunc, units, numeric_of(whole));
	return cut_money(DirectFunctionCall2(numeric_div, units, scale), program);
}

static int
compare_numeric(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

static bool
has_value(const Program *program)
{
	return program->unit_value != NULL &&
		compare_numeric(NumericGetDatum(program->unit_value), numeric_of(0)) > 0;
}

/* An integral number of points, or the most that there can be. */
static int64
points_from(Datum number)
{
	if (compare_numeric(number, numeric_of(PG_INT64_MAX)) >= 0)
		return PG_INT64_MAX;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

/* The most points whose money does not exceed an amount. */
static int64
points_within(const Program *program, Datum amount)
{
	Datum		minor = numeric_of(1);
	Datum		beyond;
	Datum		points;

	for (int i = 0; i < program->currency_digits; i++)
		minor = DirectFunctionCall2(numeric_mul, minor, numeric_of(10));
	/* the first amount beyond the limit, in minor units, then in points */
	beyond = DirectFunctionCall2(numeric_add,
								 DirectFunctionCall1(numeric_floor,
													 DirectFunctionCall2(numeric_mul, amount, minor)),
								 numeric_of(1));
	points = DirectFunctionCall2(numeric_div_trunc, beyond,
								 DirectFunctionCall2(numeric_mul, minor,
													 NumericGetDatum(program->unit_value)));
	if (compare_numeric(DirectFunctionCall2(numeric_mul,
											DirectFunctionCall2(numeric_mul, points, minor),
											NumericGetDatum(program->unit_value)), beyond) == 0)
		points = DirectFunctionCall2(numeric_sub, points, numeric_of(1));
	return points_from(points);
}

/* The fewest points that are worth the money of so many. */
static int64
points_needed(const Program *program, int64 points)
{
	Datum		money = money_of(program, points);
	Datum		value = NumericGetDatum(program->unit_value);
	Datum		needed = DirectFunctionCall2(numeric_div_trunc, money, value);

	if (compare_numeric(DirectFunctionCall2(numeric_mul, needed, value), money) < 0)
		needed = DirectFunctionCall2(numeric_add, needed, numeric_of(1));
	return points_from(needed);
}

/* ------------------------------------------------------------------------
 * How many points may be redeemed
 * ------------------------------------------------------------------------ */

/* Refuse a redemption that is out of the programme's limits. */
static void
raise_limit(int code, const char *message, int64 asked, int64 bound)
{
	ereport(ERROR,
			(errcode(code), errmsg("%s", message),
			 errdetail("Asked for " INT64_FORMAT " points; the limit is " INT64_FORMAT ".",
					   asked, bound),
			 errhint("The programme's policies redeem_min, redeem_step, redeem_max, redeem_max_share and redeem_line_max set the limits; partial => true takes what they allow.")));
}

/* The most points that limits other than the balance allow. */
static int64
most_redeemable(const Program *program, const Request *request)
{
	int64		most = program->redeem_max < 0 ? PG_INT64_MAX : program->redeem_max;

	if (request->payable == (Datum) 0)
		return most;
	if (!has_value(program))
		ereport(ERROR,
				(errcode(ERRCODE_LY_NO_POINT_VALUE),
				 errmsg("programme \"%s\" does not say what a point is worth", program->name),
				 errhint("Set its point_value to let points pay for a share of an order.")));
	return Min(most, points_within(program, request->payable));
}

/* Refuse more points than are available. */
static void
raise_insufficient(const Account *account, int64 asked, int64 available, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_INSUFFICIENT_POINTS),
			 errmsg("member " INT64_FORMAT " does not have " INT64_FORMAT " points",
					account->account_id, asked),
			 errdetail(INT64_FORMAT " points are available.", Max(available, 0)),
			 hint == NULL ? 0 : errhint("%s", hint)));
}

/*
 * Decide how many points to redeem.
 *
 * Limits apply in this order: what was asked for, what is available, the most
 * that the programme and the order allow, whole steps, the minimum.
 */
static int64
decide_points(const Operation *op, const Request *request, int64 available)
{
	const Program *program = op->program;
	int64		most = most_redeemable(program, request);
	int64		points = request->points;

	if (request->partial)
	{
		points = Min(points, Min(available, most));
		points -= points % program->redeem_step;
		if (points > 0 && program->redeem_step == 1 && has_value(program))
			points = points_needed(program, points);
		if (points < program->redeem_min && available < program->redeem_min)
			raise_insufficient(op->account, Max(program->redeem_min, 1), available, NULL);
	}
	if (points < program->redeem_min)
		raise_limit(ERRCODE_LY_BELOW_MINIMUM, "fewer points than the programme redeems at once",
					points, program->redeem_min);
	if (points % program->redeem_step != 0)
		raise_limit(ERRCODE_LY_NOT_A_STEP, "points are redeemed in whole steps", points,
					program->redeem_step);
	if (points > most)
		raise_limit(ERRCODE_LY_ABOVE_MAXIMUM, "more points than this redemption allows", points,
					most);
	if (points > available)
		raise_insufficient(op->account, points, available,
						   "partial => true redeems what there is.");
	return points;
}

/* What points are worth to the member, 0 where the programme does not say. */
static Datum
worth_of(const Operation *op, int64 points)
{
	Datum		money;

	if (op->program->unit_value == NULL)
		return (Datum) 0;
	money = money_of(op->program, points);
	if (has_value(op->program) && compare_numeric(money, numeric_of(0)) == 0)
		raise_limit(ERRCODE_LY_BELOW_MINIMUM, "so few points are worth nothing in whole minor units",
					points, points_within(op->program, numeric_of(0)) + 1);
	return money;
}

/* ------------------------------------------------------------------------
 * Velocity limits
 * ------------------------------------------------------------------------ */

/* Money as limits count it. */
static int64
limit_money(Datum money)
{
	return money == (Datum) 0 ? 0 : MoneyFromNumeric(DatumGetNumeric(money), "money", 0);
}

/* What points are worth to a limit. */
static Datum
limit_worth(const Program *program, int64 points)
{
	return program->unit_value == NULL ? (Datum) 0 : money_of(program, points);
}

/* The most points whose money a limit has room for. */
static int64
points_of_money(const Program *program, int64 money)
{
	return points_within(program, NumericGetDatum(int64_div_fast_to_numeric(money, MONEY_DIGITS)));
}

/* What remains of a redemption that limits cut: whole steps, and no points that buy nothing. */
static int64
cut_to_steps(const Operation *op, const Event *event, int64 points)
{
	const Program *program = op->program;

	points -= points % program->redeem_step;
	if (points > 0 && program->redeem_step == 1 && has_value(program))
		points = points_needed(program, points);
	if (points <= 0 || points < program->redeem_min)
		LimitsRefuse(event->limits);
	return points;
}

/*
 * Ask the programme's velocity limits about points that are to go, and count
 * what they admit; returns how many that are.  *event becomes what they counted,
 * its source_id 0 where no limit concerns it.
 */
static int64
pass_limits(const Operation *op, Spending *spending, int64 points, bool partial, Event *event)
{
	int64		wanted = points;

	memset(event, 0, sizeof(Event));
	if (!op->program->limits_spending)
		return points;
	spending->points = points;
	spending->money = limit_worth(op->program, points);
	event->kind = ON_REDEMPTION;
	event->has_member = true;
	event->member_id = op->member_id;
	event->occurred_at = event->recorded_at = LedgerNow(op->ledger);
	event->spending = spending;
	event->total = limit_money(spending->money);
	if (!SpendAsk(op->ledger, op->program, event))
		return points;
	points = LimitsAsk(event->limits, op->program, event, points, partial, points_of_money);
	if (points < wanted)
		points = cut_to_steps(op, event, points);
	event->total = limit_money(limit_worth(op->program, points));
	LimitsTake(event->limits, event, points, wanted);
	SpendCount(event);
	return points;
}

/* Take points from the lots that nobody holds; returns how many. */
static int64
take_points(const Operation *op, Request *request, LotSet *delta)
{
	LotSet		scratch;
	const LotSet *lots = HoldsFree(op->account, &scratch);
	int64		available;
	int64		points;

	LotsRaise(lotset_available(lots, op->today, &available));
	points = decide_points(op, request, available);
	points = pass_limits(op, &request->spending, points, request->partial, &request->event);
	lotset_init(delta);
	LotsRaise(lotset_spend(lots, points, op->today, delta));
	return points;
}

/* Take so many points from the lots that nobody holds, limits or not. */
static void
take_exactly(const Operation *op, int64 points, LotSet *taken)
{
	LotSet		scratch;
	const LotSet *lots = HoldsFree(op->account, &scratch);
	int64		available;

	LotsRaise(lotset_available(lots, op->today, &available));
	if (points > available)
		raise_insufficient(op->account, points, available, NULL);
	lotset_init(taken);
	LotsRaise(lotset_spend(lots, points, op->today, taken));
}

/* ------------------------------------------------------------------------
 * Requests and results
 * ------------------------------------------------------------------------ */

/* Ask SQL how much of an order points may pay, and for a digest of its lines. */
static char *
read_payable(const Operation *op, FunctionCallInfo fcinfo, int amount, int lines, Request *request)
{
	Oid			types[3] = {INT4OID, NUMERICOID, get_fn_expr_argtype(fcinfo->flinfo, lines)};
	Datum		values[3];
	char		nulls[3] = {' ', ' ', ' '};
	bool		isnull;
	Datum		payable;

	if (PG_ARGISNULL(amount) && PG_ARGISNULL(lines))
		return NULL;
	values[0] = Int32GetDatum(op->program->program_id);
	values[1] = PG_ARGISNULL(amount) ? (Datum) 0 : PG_GETARG_DATUM(amount);
	values[2] = PG_ARGISNULL(lines) ? (Datum) 0 : PG_GETARG_DATUM(lines);
	nulls[1] = PG_ARGISNULL(amount) ? 'n' : ' ';
	nulls[2] = PG_ARGISNULL(lines) ? 'n' : ' ';
	if (SPI_execute_with_args("SELECT loyalty.payable_with_points($1, $2, $3),"
							  " pg_catalog.md5($3::pg_catalog.text)",
							  3, types, values, nulls, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read what points may pay");
	payable = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	request->payable = isnull ? (Datum) 0 : payable;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
}

/* Read the arguments that redeem and hold share. */
static void
read_request(const Operation *op, FunctionCallInfo fcinfo, const char *name, int first,
			 Request *request)
{
	Detail		detail;
	char	   *lines;

	request->points = points_argument(fcinfo, 1);
	request->partial = !PG_ARGISNULL(first) && PG_GETARG_BOOL(first);
	request->payable = (Datum) 0;
	lines = read_payable(op, fcinfo, first + 1, first + 2, request);
	DetailBegin(&detail);
	DetailText(&detail, "operation", name);
	DetailInteger(&detail, "points", request->points);
	DetailBool(&detail, "partial", request->partial);
	DetailNumeric(&detail, "order_amount", PG_GETARG_DATUM(first + 1), PG_ARGISNULL(first + 1));
	DetailText(&detail, "lines", lines);
	DetailText(&detail, "reference", text_argument(fcinfo, first + 3));
	DetailText(&detail, "store", text_argument(fcinfo, first + 4));
	DetailText(&detail, "cashier", text_argument(fcinfo, first + 5));
	request->content = DetailEnd(&detail);
	memset(&request->spending, 0, sizeof(Spending));
	request->spending.operation = name;
	request->spending.order_amount = PG_ARGISNULL(first + 1) ? 0 : PG_GETARG_DATUM(first + 1);
	request->spending.reference = PG_ARGISNULL(first + 3) ? 0 : PG_GETARG_DATUM(first + 3);
	request->spending.store = PG_ARGISNULL(first + 4) ? 0 : PG_GETARG_DATUM(first + 4);
	request->spending.cashier = PG_ARGISNULL(first + 5) ? 0 : PG_GETARG_DATUM(first + 5);
	memset(&request->event, 0, sizeof(Event));
}

/* In a household's account a detail says who acted. */
static void
name_member(const Operation *op, Detail *detail)
{
	if (op->member.household_id != 0)
		DetailInteger(detail, "member", op->member_id);
}

/* A detail says which one-time code let the points go. */
static void
name_proof(int64 proof_id, Detail *detail)
{
	if (proof_id != 0)
		DetailInteger(detail, "proof", proof_id);
}

/* Number a redemption that its member and its cashier may make, where no limit gave it a number. */
static void
admit(const Operation *op, FunctionCallInfo fcinfo, int cashier, int proof, Redeemed *redeemed)
{
	CashierRefuseOwn(op->program, op->member_id, text_argument(fcinfo, cashier));
	if (redeemed->redemption_id == 0)
		redeemed->redemption_id = LedgerNextSource();
	redeemed->proof_id = ProofDemand(op->program, op->member_id, op->account->account_id, op->today,
									 redeemed->points, text_argument(fcinfo, proof),
									 redeemed->redemption_id);
	CashierCount(op->program, text_argument(fcinfo, cashier), op->today, redeemed->points);
}

/* The detail of an entry or hold: the request and its worth. */
static Datum
worth_detail(const Operation *op, Datum content, const Redeemed *redeemed)
{
	Detail		detail;

	DetailBegin(&detail);
	DetailObject(&detail, "request", content);
	name_member(op, &detail);
	name_proof(redeemed->proof_id, &detail);
	if (redeemed->money != (Datum) 0)
	{
		DetailNumeric(&detail, "money", redeemed->money, false);
		DetailText(&detail, "currency", op->program->currency);
	}
	return DetailEnd(&detail);
}

/* A numeric member of a detail, 0 where there is none. */
static Datum
detail_numeric(const Operation *op, Datum detail, const char *name)
{
	Datum		member = DetailMember(detail, name);

	if (member == (Datum) 0)
		return (Datum) 0;
	return DirectFunctionCall2(numeric_round, DirectFunctionCall1(jsonb_numeric, member),
							   Int32GetDatum(op->program->currency_digits));
}

/* Return a row past SPI_finish. */
static Datum
finish_with_row(FunctionCallInfo fcinfo, const Redeemed *redeemed)
{
	TupleDesc	desc;
	Datum		v[5];
	bool		n[5] = {false};
	HeapTuple	tuple;
	Datum		result;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	v[0] = Int64GetDatum(redeemed->redemption_id);
	v[1] = Int64GetDatum(redeemed->points);
	v[2] = redeemed->money;
	n[2] = redeemed->money == (Datum) 0;
	v[3] = CStringGetTextDatum(redeemed->currency);
	v[4] = redeemed->more;
	tuple = heap_form_tuple(BlessTupleDesc(desc), v, n);
	result = SPI_datumTransfer(HeapTupleGetDatum(tuple), false, -1);
	SPI_finish();
	return result;
}

/* ------------------------------------------------------------------------
 * Redeem
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_redeem);

/*
 * redeem(member_id, points, key, partial, order_amount, lines, reference, store, cashier, reason, proof)
 */
Datum
loyalty_redeem(PG_FUNCTION_ARGS)
{
	char	   *key = new_key_argument(fcinfo, 2);
	Operation	op;
	Request		request;
	Redeemed	redeemed = {0};
	LotSet		delta;
	Posting		posting = {.kind = "redeem", .lots = &delta, .key = key};

	begin_operation(&op, member_argument(fcinfo, 0), 0, key);
	read_request(&op, fcinfo, "redeem", 3, &request);
	redeemed.currency = op.program->currency;
	if (op.replayed)
	{
		check_replay(&op, "redeem", NULL, "request", request.content);
		redeemed.redemption_id = op.first.source_id;
		redeemed.points = -op.first.points;
		redeemed.money = detail_numeric(&op, op.first.detail, "money");
		redeemed.more = Int64GetDatum(LedgerSumOfKind(op.ledger, op.first.source_id, "undo"));
	}
	else
	{
		refuse_held_key(&op);
		check_may_spend(&op);
		settle(&op, op.account);
		redeemed.points = take_points(&op, &request, &delta);
		redeemed.redemption_id = request.event.source_id;
		redeemed.money = worth_of(&op, redeemed.points);
		admit(&op, fcinfo, 8, 10, &redeemed);
		posting.source_id = redeemed.redemption_id;
		posting.occurred_at = LedgerNow(op.ledger);
		posting.detail = worth_detail(&op, request.content, &redeemed);
		posting.reason = text_argument(fcinfo, 9);
		LedgerPost(op.ledger, op.account, &posting);
	}
	end_operation(&op);
	return finish_with_row(fcinfo, &redeemed);
}

/* ------------------------------------------------------------------------
 * Hold, capture, release
 * ------------------------------------------------------------------------ */

/* Tell whether an interval is of some years at most, so that adding it to a time is safe. */
static bool
is_short(const Interval *interval)
{
	return abs(interval->month) <= 240 && abs(interval->day) <= 7300 &&
		interval->time > -MAX_TTL * 2 && interval->time < MAX_TTL * 2;
}

/* How long a hold lasts. */
static TimestampTz
hold_end(const Operation *op, FunctionCallInfo fcinfo, int number)
{
	TimestampTz now = LedgerNow(op->ledger);
	TimestampTz until = now;

	if (!PG_ARGISNULL(number) && is_short(PG_GETARG_INTERVAL_P(number)))
		until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														TimestampTzGetDatum(now),
														PG_GETARG_DATUM(number)));
	if (until <= now || until > now + MAX_TTL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_HOLD),
				 errmsg("a hold lasts longer than no time and at most ten years"),
				 errhint("For example ttl => '15 minutes'.")));
	return until;
}

/* Tell a hold's caller what the first call made; op->replayed or an open hold. */
static void
replay_hold(const Operation *op, const Hold *hold, Datum content, Redeemed *redeemed)
{
	Datum		detail = hold != NULL ? hold->detail : op->first.detail;
	Datum		held;

	if (hold == NULL)
		check_replay(op, "capture", "release", "request", content);
	else if (!DetailEqual(DetailMember(hold->detail, "request"), content))
		ereport(ERROR,
				(errcode(ERRCODE_LY_KEY_REUSED),
				 errmsg("key \"%s\" of member " INT64_FORMAT " holds something else", op->key,
						op->account->account_id),
				 errhint("A key belongs to one operation for ever; take another.")));
	held = DetailMember(detail, "held");
	redeemed->redemption_id = hold != NULL ? hold->hold_id : op->first.source_id;
	redeemed->points = held == (Datum) 0 ? 0 :
		DatumGetInt64(DirectFunctionCall1(numeric_int8, DirectFunctionCall1(jsonb_numeric, held)));
	redeemed->money = detail_numeric(op, detail, "held_money");
	redeemed->more = hold != NULL ? TimestampTzGetDatum(hold->held_until) :
		DirectFunctionCall3(timestamptz_in,
							CStringGetDatum(TextDatumGetCString(DirectFunctionCall2(jsonb_object_field_text, op->first.detail, CStringGetTextDatum("held_until")))),
							ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* What a hold remembers: the request, what was held and its worth. */
static Datum
hold_detail(const Operation *op, Datum content, const Redeemed *redeemed)
{
	Detail		detail;

	DetailBegin(&detail);
	DetailObject(&detail, "request", content);
	name_member(op, &detail);
	name_proof(redeemed->proof_id, &detail);
	DetailInteger(&detail, "held", redeemed->points);
	if (redeemed->money != (Datum) 0)
	{
		DetailNumeric(&detail, "held_money", redeemed->money, false);
		DetailText(&detail, "currency", op->program->currency);
	}
	return DetailEnd(&detail);
}

PG_FUNCTION_INFO_V1(loyalty_hold);

/*
 * hold(member_id, points, key, ttl, partial, order_amount, lines, reference, store, cashier, proof)
 */
Datum
loyalty_hold(PG_FUNCTION_ARGS)
{
	char	   *key = new_key_argument(fcinfo, 2);
	Operation	op;
	Request		request;
	Redeemed	redeemed = {0};
	Hold	   *open;

	begin_operation(&op, member_argument(fcinfo, 0), 0, key);
	read_request(&op, fcinfo, "hold", 4, &request);
	redeemed.currency = op.program->currency;
	open = HoldFind(op.account, key);
	if (op.replayed || open != NULL)
		replay_hold(&op, open, request.content, &redeemed);
	else
	{
		Hold		hold = {.key = key, .held_at = LedgerNow(op.ledger)};

		check_may_spend(&op);
		settle(&op, op.account);
		redeemed.points = take_points(&op, &request, &hold.lots);
		redeemed.redemption_id = request.event.source_id;
		LotsRaise(lotset_negate(&hold.lots));
		redeemed.money = worth_of(&op, redeemed.points);
		admit(&op, fcinfo, 9, 10, &redeemed);
		hold.held_until = hold_end(&op, fcinfo, 3);
		hold.hold_id = redeemed.redemption_id;
		redeemed.more = TimestampTzGetDatum(hold.held_until);
		hold.detail = hold_detail(&op, request.content, &redeemed);
		if (request.event.source_id != 0)
			SpendHold(&request.event, hold.held_until);
		HoldAdd(op.ledger, op.account, &hold);
	}
	end_operation(&op);
	return finish_with_row(fcinfo, &redeemed);
}

/* Refuse a key that names no hold and no redemption. */
static void
raise_unknown(const Operation *op, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_UNKNOWN_REDEMPTION),
			 errmsg("member " INT64_FORMAT " has no %s with key \"%s\"",
					op->account->account_id, what, op->key)));
}

/* The detail of an entry that resolves a hold. */
static Datum
resolution_detail(const Hold *hold, const char *name, Datum asked,
				  Datum money)
{
	Detail		detail;

	DetailBegin(&detail);
	DetailCopy(&detail, "request", hold->detail);
	DetailCopy(&detail, "member", hold->detail);
	DetailCopy(&detail, "proof", hold->detail);
	DetailCopy(&detail, "held", hold->detail);
	DetailCopy(&detail, "held_money", hold->detail);
	DetailCopy(&detail, "currency", hold->detail);
	DetailText(&detail, "held_lots", LotsToText(&hold->lots));
	DetailTime(&detail, "held_at", hold->held_at);
	DetailTime(&detail, "held_until", hold->held_until);
	DetailNumeric(&detail, "money", money, money == (Datum) 0);
	DetailObject(&detail, name, asked);
	return DetailEnd(&detail);
}

/* Refuse to resolve a hold twice in different ways. */
static void
raise_resolved(const Operation *op)
{
	if (DetailMember(op->first.detail, "lapsed") != (Datum) 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_HOLD_EXPIRED),
				 errmsg("hold \"%s\" of member " INT64_FORMAT " has expired", op->key,
						op->account->account_id),
				 errhint("Its points are available again: hold or redeem them anew.")));
	ereport(ERROR,
			(errcode(ERRCODE_LY_HOLD_RESOLVED),
			 errmsg("hold \"%s\" of member " INT64_FORMAT " is resolved already", op->key,
					op->account->account_id),
			 errdetail("Entry " INT64_FORMAT " is its %s.", op->first.seq, op->first.kind)));
}

/* Give the part of a hold that was not captured back; it never left the account. */
static void
thaw_rest(const Operation *op, const Hold *hold, const LotSet *captured)
{
	LotSet		rest;
	LotSet		delta;
	Posting		posting = {.kind = "release", .source_id = hold->hold_id, .lots = &delta};

	lotset_copy(&rest, &hold->lots);
	LotsRaise(lotset_subtract(&rest, captured));
	lotset_init(&delta);
	LotsRaise(lotset_revive(&rest, op->today, op->program->restore, op->program->restore_days,
							&delta));
	posting.occurred_at = LedgerNow(op->ledger);
	if (delta.n > 0)
		LedgerPost(op->ledger, op->account, &posting);
}

/* Refuse to capture a hold that ended. */
static void
raise_expired(const Operation *op)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_HOLD_EXPIRED),
			 errmsg("hold \"%s\" of member " INT64_FORMAT " has expired", op->key,
					op->account->account_id),
			 errhint("Its points are available again: hold or redeem them anew.")));
}

/* Capture points of an open hold. */
static void
capture_hold(const Operation *op, Hold *hold, FunctionCallInfo fcinfo, Datum asked,
			 Redeemed *redeemed)
{
	LotSet		part;
	LotSet		delta;
	int64		held;
	Datum		money = detail_numeric(op, hold->detail, "held_money");
	Posting		posting = {.kind = "capture", .source_id = hold->hold_id, .lots = &delta,
	.key = op->key, .occurred_at = LedgerNow(op->ledger)};

	LotsRaise(lotset_total(&hold->lots, &held));
	redeemed->points = PG_ARGISNULL(2) ? held : points_argument(fcinfo, 2);
	if (redeemed->points > held)
		ereport(ERROR,
				(errcode(ERRCODE_LY_ABOVE_HOLD),
				 errmsg("hold \"%s\" of member " INT64_FORMAT " is of fewer points", op->key,
						op->account->account_id),
				 errdetail("It holds " INT64_FORMAT " points; " INT64_FORMAT " were to be captured.",
						   held, redeemed->points)));
	redeemed->redemption_id = hold->hold_id;
	redeemed->money = money == (Datum) 0 ? money :
		money_share(op->program, money, redeemed->points, held);
	lotset_init(&part);
	LotsRaise(lotset_part(&hold->lots, false, 0, redeemed->points, &part));
	lotset_copy(&delta, &part);
	LotsRaise(lotset_negate(&delta));
	posting.detail = resolution_detail(hold, "capture", asked, redeemed->money);
	if (op->program->limits_spending &&
		!SpendLeave(op->program, hold->hold_id, redeemed->points, limit_money(redeemed->money), true))
		raise_expired(op);		/* by now, and its room went to others */
	LedgerPost(op->ledger, op->account, &posting);
	thaw_rest(op, hold, &part);
	HoldRemove(op->account, hold);
}

PG_FUNCTION_INFO_V1(loyalty_capture);

/* capture(member_id, key, points, reference): spend a hold, whole or in part. */
Datum
loyalty_capture(PG_FUNCTION_ARGS)
{
	Operation	op;
	Redeemed	redeemed = {0};
	Detail		asked;
	Datum		content;
	Hold	   *hold;

	begin_operation(&op, member_argument(fcinfo, 0), 0, key_argument(fcinfo, 1));
	DetailBegin(&asked);
	if (!PG_ARGISNULL(2))
		DetailInteger(&asked, "points", PG_GETARG_INT64(2));
	DetailText(&asked, "reference", text_argument(fcinfo, 3));
	content = DetailEnd(&asked);
	redeemed.currency = op.program->currency;
	hold = HoldFind(op.account, op.key);
	if (op.replayed)
	{
		if (strcmp(op.first.kind, "release") == 0)
			raise_resolved(&op);
		if (strcmp(op.first.kind, "capture") != 0)
			raise_unknown(&op, "hold");
		check_replay(&op, "capture", NULL, "capture", content);
		redeemed.redemption_id = op.first.source_id;
		redeemed.points = -op.first.points;
		redeemed.money = detail_numeric(&op, op.first.detail, "money");
	}
	else if (hold == NULL)
		raise_unknown(&op, "hold");
	else if (hold->held_until <= LedgerNow(op.ledger))
		raise_expired(&op);
	else
	{
		CashierRefuseOwn(op.program, op.member_id, NULL);
		capture_hold(&op, hold, fcinfo, content, &redeemed);
	}
	end_operation(&op);
	return finish_with_row(fcinfo, &redeemed);
}

PG_FUNCTION_INFO_V1(loyalty_release);

/* release(member_id, key, reason): give a hold back. */
Datum
loyalty_release(PG_FUNCTION_ARGS)
{
	Operation	op;
	Hold	   *hold;
	int64		points = 0;

	begin_operation(&op, member_argument(fcinfo, 0), 0, key_argument(fcinfo, 1));
	hold = HoldFind(op.account, op.key);
	if (op.replayed)
	{
		if (strcmp(op.first.kind, "capture") == 0)
			raise_resolved(&op);
		if (strcmp(op.first.kind, "release") != 0)
			raise_unknown(&op, "hold");
	}
	else if (hold == NULL)
		raise_unknown(&op, "hold");
	else if (hold->held_until <= LedgerNow(op.ledger))
	{
		LotsRaise(lotset_total(&hold->lots, &points));
		HoldsSettle(op.ledger, op.program, op.account);
	}
	else
	{
		LotSet		delta;
		Detail		nothing;
		Posting		posting = {.kind = "release", .source_id = hold->hold_id, .lots = &delta,
		.key = op.key, .reason = text_argument(fcinfo, 2),
		.occurred_at = LedgerNow(op.ledger)};

		LotsRaise(lotset_total(&hold->lots, &points));
		lotset_init(&delta);
		LotsRaise(lotset_revive(&hold->lots, op.today, op.program->restore,
								op.program->restore_days, &delta));
		DetailBegin(&nothing);
		posting.detail = resolution_detail(hold, "release", DetailEnd(&nothing), (Datum) 0);
		if (op.program->limits_spending)
			SpendLeave(op.program, hold->hold_id, 0, 0, true);
		LedgerPost(op.ledger, op.account, &posting);
		HoldRemove(op.account, hold);
	}
	if (op.replayed)
	{
		Datum		held = DetailMember(op.first.detail, "held");

		if (held != (Datum) 0)
			points = DatumGetInt64(DirectFunctionCall1(numeric_int8, DirectFunctionCall1(jsonb_numeric, held)));
	}
	end_operation(&op);
	SPI_finish();
	PG_RETURN_INT64(points);
}

/* ------------------------------------------------------------------------
 * Undo
 * ------------------------------------------------------------------------ */

/* The redemption that a key made, which an undo concerns. */
static void
find_redemption(const Operation *op, const char *key, KeyedEntry *redemption)
{
	if (!find_key(op, key, redemption) ||
		(strcmp(redemption->kind, "redeem") != 0 && strcmp(redemption->kind, "capture") != 0))
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_REDEMPTION),
				 errmsg("member " INT64_FORMAT " has no redemption with key \"%s\"",
						op->account->account_id, key),
				 HoldFind(op->account, key) == NULL ? 0 :
				 errhint("It is a hold: loyalty.release gives it back.")));
}

/* What a household spent goes back to it, also by a member who left it. */
static void
follow_redemption(Operation *op, const KeyedEntry *redemption)
{
	int64		ids[2] = {redemption->account_id, op->member_id};

	if (redemption->account_id < FIRST_HOUSEHOLD || redemption->account_id >= FIRST_WALLET ||
		redemption->account_id == op->account->account_id)
		return;
	/* begin_undo has locked it, but for members who were merged */
	if (LedgerAccount(op->ledger, redemption->account_id) == NULL)
		LedgerLock(op->ledger, ids, 2);
	op->account = locked_account(op->ledger, redemption->account_id);
}

/* The money that goes with points given back, so that all parts add up to the whole. */
static Datum
money_back(const Operation *op, const KeyedEntry *redemption, int64 before, int64 points)
{
	Datum		money = detail_numeric(op, redemption->detail, "money");
	int64		whole = -redemption->points;

	if (money == (Datum) 0)
		return money;
	return DirectFunctionCall2(numeric_sub,
							   money_share(op->program, money, before + points, whole),
							   money_share(op->program, money, before, whole));
}

/* Give the room of points that are given back to the limits that they used. */
static void
give_room_back(const Operation *op, const KeyedEntry *redemption, int64 undone)
{
	int64		whole = -redemption->points;
	Datum		money = detail_numeric(op, redemption->detail, "money");

	if (!op->program->limits_spending)
		return;
	if (money != (Datum) 0)
		money = DirectFunctionCall2(numeric_sub, money,
									money_share(op->program, money, undone, whole));
	SpendLeave(op->program, redemption->source_id, whole - undone, limit_money(money), false);
}

/* Give points of a redemption back: the very lots, the last taken first. */
static void
undo_points(const Operation *op, const KeyedEntry *redemption, int64 before, int64 points,
			const char *reason, Datum asked, Redeemed *redeemed)
{
	LotSet		spent;
	LotSet		part;
	LotSet		delta;
	Posting		posting = {.kind = "undo", .source_id = redemption->source_id, .lots = &delta,
	.key = op->key, .reason = reason, .occurred_at = LedgerNow(op->ledger)};

	lotset_copy(&spent, &redemption->lots);
	LotsRaise(lotset_negate(&spent));
	lotset_init(&part);
	LotsRaise(lotset_part(&spent, true, before, points, &part));
	lotset_init(&delta);
	LotsRaise(lotset_restore(&op->account->lots, &part, op->today, op->program->restore,
							 op->program->restore_days, &delta));
	redeemed->points = points;
	redeemed->money = money_back(op, redemption, before, points);
	posting.detail = worth_detail(op, asked, redeemed);
	give_room_back(op, redemption, before + points);
	LedgerPost(op->ledger, op->account, &posting);
}

/* Give a redemption back, whole or in part. */
static Datum
undo(FunctionCallInfo fcinfo, const char *redemption_key, const char *undo_key)
{
	Operation	op;
	KeyedEntry	redemption;
	Redeemed	redeemed = {0};
	Detail		asked;
	Datum		content;

	if (!PG_ARGISNULL(2) && PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_POINTS),
				 errmsg("undoing a part of a redemption needs an undo_key"),
				 errhint("Without one a retry could not be told from a second part.")));
	begin_undo(&op, member_argument(fcinfo, 0), redemption_key, undo_key);
	DetailBegin(&asked);
	DetailText(&asked, "operation", "undo");
	DetailText(&asked, "redemption", redemption_key);
	if (!PG_ARGISNULL(2))
		DetailInteger(&asked, "points", points_argument(fcinfo, 2));
	content = DetailEnd(&asked);
	redeemed.currency = op.program->currency;
	find_redemption(&op, redemption_key, &redemption);
	follow_redemption(&op, &redemption);
	redeemed.redemption_id = redemption.source_id;
	if (op.replayed)
	{
		check_replay(&op, "undo", NULL, "request", content);
		redeemed.points = op.first.points;
		redeemed.money = detail_numeric(&op, op.first.detail, "money");
	}
	else
	{
		int64		before = LedgerSumOfKind(op.ledger, redemption.source_id, "undo");
		int64		left = -redemption.points - before;
		int64		points = PG_ARGISNULL(2) ? left : PG_GETARG_INT64(2);

		refuse_held_key(&op);
		if (points > left || left == 0)
			ereport(ERROR,
					(errcode(ERRCODE_LY_ABOVE_REDEMPTION),
					 errmsg("redemption \"%s\" of member " INT64_FORMAT " has fewer points left to undo",
							redemption_key, op.account->account_id),
					 errdetail("It took " INT64_FORMAT " points, of which " INT64_FORMAT " were given back.",
							   -redemption.points, before)));
		settle(&op, op.account);
		undo_points(&op, &redemption, before, points, text_argument(fcinfo, 4), content, &redeemed);
	}
	end_operation(&op);
	return finish_with_row(fcinfo, &redeemed);
}

PG_FUNCTION_INFO_V1(loyalty_undo);

/* undo(member_id, key, points, undo_key, reason): for callers. */
Datum
loyalty_undo(PG_FUNCTION_ARGS)
{
	char	   *key = key_argument(fcinfo, 1);

	if (strncmp(key, CLAIM_KEY, strlen(CLAIM_KEY)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_REDEMPTION),
				 errmsg("\"%s\" paid for a reward", key),
				 errhint("loyalty.undo_claim gives the points back, and takes the reward back.")));
	return undo(fcinfo, key, PG_ARGISNULL(3) ? psprintf("undo %s", key) : new_key_argument(fcinfo, 3));
}

PG_FUNCTION_INFO_V1(loyalty_undo_tender);

/* undo_tender(member_id, key, points, undo_key, reason): for returns, with a key of the engine's own. */
Datum
loyalty_undo_tender(PG_FUNCTION_ARGS)
{
	return undo(fcinfo, key_argument(fcinfo, 1), key_argument(fcinfo, 3));
}

/* ------------------------------------------------------------------------
 * Claims
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_redeem_claim);

/*
 * redeem_claim(member_id, points, claim_id, reward, cashier, proof): pay for a reward; returns
 * the redemption.
 *
 * The claim is new and its member is locked.  A reward has its price: the
 * limits of paying with points do not concern it.
 */
Datum
loyalty_redeem_claim(PG_FUNCTION_ARGS)
{
	int64		points = points_argument(fcinfo, 1);
	Operation	op;
	LotSet		delta;
	Detail		request;
	Detail		detail;
	Redeemed	redeemed = {.points = points};
	Posting		posting = {.kind = "redeem", .lots = &delta};
	Event		event;
	Spending	spending = {.operation = "claim",
		.reference = PG_ARGISNULL(3) ? 0 : PG_GETARG_DATUM(3),
	.cashier = PG_ARGISNULL(4) ? 0 : PG_GETARG_DATUM(4)};

	begin_operation(&op, member_argument(fcinfo, 0), 0,
					psprintf(CLAIM_KEY INT64_FORMAT, PG_GETARG_INT64(2)));
	check_may_spend(&op);
	settle(&op, op.account);
	take_exactly(&op, points, &delta);
	pass_limits(&op, &spending, points, false, &event);
	redeemed.redemption_id = event.source_id;
	admit(&op, fcinfo, 4, 5, &redeemed);
	DetailBegin(&request);
	DetailText(&request, "operation", "claim");
	DetailInteger(&request, "points", points);
	DetailInteger(&request, "claim", PG_GETARG_INT64(2));
	DetailText(&request, "reward", text_argument(fcinfo, 3));
	DetailText(&request, "cashier", text_argument(fcinfo, 4));
	DetailBegin(&detail);
	DetailObject(&detail, "request", DetailEnd(&request));
	name_member(&op, &detail);
	name_proof(redeemed.proof_id, &detail);
	posting.key = op.key;
	posting.source_id = redeemed.redemption_id;
	posting.occurred_at = LedgerNow(op.ledger);
	posting.detail = DetailEnd(&detail);
	LedgerPost(op.ledger, op.account, &posting);
	end_operation(&op);
	SPI_finish();
	PG_RETURN_INT64(posting.source_id);
}

PG_FUNCTION_INFO_V1(loyalty_undo_redeem_claim);

/* undo_redeem_claim(member_id, claim_id, reason): give a reward's points back, once; returns how many. */
Datum
loyalty_undo_redeem_claim(PG_FUNCTION_ARGS)
{
	int64		claim_id = PG_GETARG_INT64(1);
	char	   *claim_key = psprintf(CLAIM_KEY INT64_FORMAT, claim_id);
	Operation	op;
	KeyedEntry	redemption;
	Redeemed	redeemed = {0};
	Detail		asked;

	begin_operation(&op, member_argument(fcinfo, 0), 0,
					psprintf("loyalty:undo claim " INT64_FORMAT, claim_id));
	find_redemption(&op, claim_key, &redemption);
	follow_redemption(&op, &redemption);
	settle(&op, op.account);
	DetailBegin(&asked);
	DetailText(&asked, "operation", "undo");
	DetailText(&asked, "redemption", claim_key);
	undo_points(&op, &redemption, 0, -redemption.points, text_argument(fcinfo, 2),
				DetailEnd(&asked), &redeemed);
	end_operation(&op);
	SPI_finish();
	PG_RETURN_INT64(redeemed.points);
}

/* ------------------------------------------------------------------------
 * Transfer and write-off
 * ------------------------------------------------------------------------ */

/* Demand that a member may receive points. */
static void
check_receiver(const Account *to)
{
	if (to->closed)
		ereport(ERROR,
				(errcode(ERRCODE_LY_MEMBER_CLOSED),
				 errmsg("member " INT64_FORMAT " is closed", to->account_id)));
}

/* Demand that points may go from one account to another. */
static void
check_transfer(const Operation *op, const Account *to, int64 points)
{
	int64		most = op->program->transfer_max;

	if (to->program_id != op->account->program_id)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_TRANSFER),
				 errmsg("members " INT64_FORMAT " and " INT64_FORMAT " are of different programmes",
						op->account->account_id, to->account_id)));
	if (to == op->account)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_TRANSFER),
				 errmsg("members of household " INT64_FORMAT " share their points", to->account_id)));
	if (most >= 0 && points > most)
		ereport(ERROR,
				(errcode(ERRCODE_LY_ABOVE_MAXIMUM),
				 errmsg("the programme does not allow a transfer of " INT64_FORMAT " points", points),
				 errdetail("The most is " INT64_FORMAT ".", most),
				 errhint("The programme's policy transfer_max decides this.")));
}

/* Move points: the same lots leave one account and enter the other. */
static void
move_points(const Operation *op, Account *to, int64 points, int64 source_id, const char *reason,
			const char *proof, Datum asked)
{
	LotSet		taken;
	LotSet		given;
	LotSet		received;
	Posting		posting = {.kind = "transfer", .reason = reason, .key = op->key};
	Detail		detail;

	take_exactly(op, points, &taken);
	lotset_copy(&given, &taken);
	LotsRaise(lotset_negate(&given));
	lotset_init(&received);
	LotsRaise(lotset_restore(&to->lots, &given, op->today, RESTORE_EXPIRED, 0, &received));
	DetailBegin(&detail);
	DetailObject(&detail, "request", asked);
	DetailInteger(&detail, "from", op->account->account_id);
	DetailInteger(&detail, "to", to->account_id);
	posting.source_id = source_id != 0 ? source_id : LedgerNextSource();
	name_proof(ProofDemand(op->program, op->member_id, op->account->account_id, op->today, points,
						   proof, posting.source_id), &detail);
	posting.detail = DetailEnd(&detail);
	posting.occurred_at = LedgerNow(op->ledger);
	posting.lots = &taken;
	LedgerPost(op->ledger, op->account, &posting);
	posting.lots = &received;
	posting.key = NULL;
	LedgerPost(op->ledger, to, &posting);
}

PG_FUNCTION_INFO_V1(loyalty_transfer);

/* transfer(from_member, to_member, points, key, reason, proof, cashier): move points; returns how many. */
Datum
loyalty_transfer(PG_FUNCTION_ARGS)
{
	int64		from_id = member_argument(fcinfo, 0);
	int64		to_id = member_argument(fcinfo, 1);
	int64		points = points_argument(fcinfo, 2);
	Operation	op;
	Detail		asked;
	Datum		content;
	Account    *receiver;
	Account    *to;
	Event		event;
	Spending	spending = {.operation = "transfer",
	.cashier = PG_ARGISNULL(6) ? 0 : PG_GETARG_DATUM(6)};

	if (from_id == to_id)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_TRANSFER),
				 errmsg("a member cannot transfer points to itself")));
	begin_operation(&op, from_id, to_id, new_key_argument(fcinfo, 3));
	receiver = locked_account(op.ledger, to_id);
	to = LedgerHome(op.ledger, receiver);
	DetailBegin(&asked);
	DetailText(&asked, "operation", "transfer");
	DetailInteger(&asked, "to", to_id);
	DetailInteger(&asked, "points", points);
	DetailText(&asked, "cashier", text_argument(fcinfo, 6));
	content = DetailEnd(&asked);
	if (op.replayed)
		check_replay(&op, "transfer", NULL, "request", content);
	else
	{
		refuse_held_key(&op);
		check_may_spend(&op);
		settle(&op, op.account);
		settle(&op, to);
		check_receiver(receiver);
		CashierRefuseOwn(op.program, from_id, text_argument(fcinfo, 6));
		CashierRefuseOwn(op.program, to_id, text_argument(fcinfo, 6));
		check_transfer(&op, to, points);
		pass_limits(&op, &spending, points, false, &event);
		move_points(&op, to, points, event.source_id, text_argument(fcinfo, 4), text_argument(fcinfo, 5),
					content);
		CashierCount(op.program, text_argument(fcinfo, 6), op.today, points);
	}
	end_operation(&op);
	SPI_finish();
	PG_RETURN_INT64(points);
}

PG_FUNCTION_INFO_V1(loyalty_write_off);

/* write_off(member_id, reason, key, points): forgive a debt; returns the points forgiven. */
Datum
loyalty_write_off(PG_FUNCTION_ARGS)
{
	char	   *reason = text_argument(fcinfo, 1);
	Operation	op;
	Detail		asked;
	Datum		content;
	Detail		detail;
	Lot			lot = {DATEVAL_NOBEGIN, DATEVAL_NOEND, 0};
	LotSet		delta;
	Posting		posting = {.kind = "write_off", .reason = reason, .lots = &delta};
	int64		debt;

	if (reason == NULL || strspn(reason, " \t\n") == strlen(reason))
		ereport(ERROR,
				(errcode(ERRCODE_LY_REASON_REQUIRED),
				 errmsg("a write-off needs a reason"),
				 errhint("Say why, for the auditor.")));
	begin_operation(&op, member_argument(fcinfo, 0), 0, new_key_argument(fcinfo, 2));
	DetailBegin(&asked);
	DetailText(&asked, "operation", "write_off");
	if (!PG_ARGISNULL(3))
		DetailInteger(&asked, "points", points_argument(fcinfo, 3));
	content = DetailEnd(&asked);
	if (op.replayed)
	{
		check_replay(&op, "write_off", NULL, "request", content);
		lot.amount = op.first.points;
	}
	else
	{
		refuse_held_key(&op);
		CashierRefuseOwn(op.program, op.member_id, NULL);
		debt = lotset_debt(&op.account->lots);
		lot.amount = PG_ARGISNULL(3) ? debt : PG_GETARG_INT64(3);
		if (debt == 0 || lot.amount > debt)
			ereport(ERROR,
					(errcode(ERRCODE_LY_NO_DEBT),
					 errmsg("member " INT64_FORMAT " does not owe that many points",
							op.account->account_id),
					 errdetail("The debt is " INT64_FORMAT " points.", debt)));
		lotset_init(&delta);
		LotsRaise(lotset_add_lot(&delta, lot));
		DetailBegin(&detail);
		DetailObject(&detail, "request", content);
		posting.detail = DetailEnd(&detail);
		posting.key = op.key;
		posting.occurred_at = LedgerNow(op.ledger);
		LedgerPost(op.ledger, op.account, &posting);
	}
	end_operation(&op);
	SPI_finish();
	PG_RETURN_INT64(lot.amount);
}

PG_FUNCTION_INFO_V1(loyalty_lots_at);

/* lots_at(program_id, lots, holds, last_event_at, at): the free lots and the held ones at an instant. */
Datum
loyalty_lots_at(PG_FUNCTION_ARGS)
{
	Program    *program;
	TupleDesc	desc;
	LotSet		lots;
	LotSet		held;
	Hold	   *holds = NULL;
	int			nholds = 0;
	Datum		v[2];
	bool		n[2] = {false, false};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(4))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	LotsFromDatum(PG_GETARG_DATUM(1), &lots);
	lotset_init(&held);
	if (!PG_ARGISNULL(2))
		HoldsFromDatum(PG_GETARG_DATUM(2), &holds, &nholds);
	program = ProgramPin(PG_GETARG_INT32(0));
	HoldsAt(program, holds, nholds, PG_GETARG_TIMESTAMPTZ(4), &lots, &held);
	LifetimeShow(program, PG_ARGISNULL(3) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(3), &lots);
	ProgramUnpin(program);
	v[0] = LotsToDatum(&lots);
	v[1] = LotsToDatum(&held);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), v, n)));
}
