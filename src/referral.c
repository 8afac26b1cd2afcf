/*
 * referral.c
 *	  Whose referrers a statement may credit, and the points of referrals.
 *
 * Before the accounts of a chunk are locked, the award asks here which other
 * accounts its purchases may concern: the referrers of its buyers, and both
 * sides of what its purchases had brought.  They join the chunk's own accounts,
 * so that all are locked once, in one order.  When all chunks are posted the
 * purchases that concern a referral are settled together, in SQL, in order of
 * their time; the points are posted here.
 *
 * Where no programme rewards referrals this costs one comparison a chunk.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "award.h"
#include "compat.h"
#include "detail.h"
#include "errors.h"

static bool any_policy;
static bool any_known = false;
static uint64 any_generation;

/* ------------------------------------------------------------------------
 * The gate
 * ------------------------------------------------------------------------ */

/* Tell whether any programme rewards referrals, or did. */
bool
ReferralsExist(void)
{
	while (!any_known || any_generation != ProgramGeneration())
	{
		any_known = false;
		any_generation = ProgramGeneration();
		/* what is cached is true for every transaction, whatever this one sees */
		PushActiveSnapshot(GetLatestSnapshot());
		if (SPI_execute("SELECT FROM loyalty.referral_policy LIMIT 1", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read the policies of referrals");
		any_policy = SPI_processed > 0;
		any_known = true;
		PopActiveSnapshot();
	}
	return any_policy;
}

/* ------------------------------------------------------------------------
 * Whom a chunk concerns
 * ------------------------------------------------------------------------ */

typedef enum FindName
{
	FIND_ONE,					/* a new purchase of one member */
	FIND_MANY,					/* new purchases */
	FIND_CHANGED,				/* purchases of which some may have qualified before */
	FIND_COUNT
} FindName;

#define FIND_SELECT "SELECT r.friend_id, r.referrer_id, r.purchase_id FROM loyalty.referral r"

static const char *const find_sql[FIND_COUNT] = {
	[FIND_ONE] = FIND_SELECT " WHERE r.friend_id = $1 AND r.state = 'registered'",
	[FIND_MANY] = FIND_SELECT " WHERE r.friend_id = ANY ($1) AND r.state = 'registered'",
	/* what was given may stand in a household that its member has left */
	[FIND_CHANGED] = FIND_SELECT " WHERE r.friend_id = ANY ($1) AND r.state = 'registered'"
	" UNION ALL"
	" SELECT r.friend_id, x.account_id, r.purchase_id FROM loyalty.referral r"
	" CROSS JOIN LATERAL (SELECT r.referrer_id UNION ALL"
	" SELECT pg_catalog.unnest(a.left_households) FROM loyalty.account a"
	" WHERE a.account_id IN (r.friend_id, r.referrer_id)) x (account_id)"
	" WHERE r.purchase_id = ANY ($2) AND r.state IN ('review', 'rewarded')",
};

/*
 * Run a query by its kept plan, planned once: to plan it takes longer than to
 * run it.  The plan goes by key, since the table may be empty when it is made.
 */
static void
find(FindName name, Datum *values)
{
	static SPIPlanPtr plans[FIND_COUNT];
	Oid			types[2] = {name == FIND_ONE ? INT8OID : INT8ARRAYOID, INT8ARRAYOID};
	int			nest = 0;

	if (plans[name] == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare_cursor(find_sql[name], name == FIND_CHANGED ? 2 : 1, types,
											  CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the query for referrals");
		plans[name] = plan;
		nest = NewGUCNestLevel();
		(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	if (SPI_execute_plan(plans[name], values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for referrals");
	if (nest != 0)
		AtEOXact_GUC(false, nest);
}

/* An array of bigints for a query. */
static Datum
bigints(const int64 *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	ArrayType  *array;

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	array = construct_array(elements, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	pfree(elements);
	return PointerGetDatum(array);
}

/* A column of the i-th row found, 0 where it is null. */
static int64
found_column(uint64 i, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/* Remember the sources whose purchase or buyer was found. */
static void
remember(Referred *referred, const int64 *members, const int64 *sources, int n)
{
	uint64		found = SPI_processed;
	int64	   *hits = palloc(sizeof(int64) * 2 * found);
	int			nhits = 0;

	/* members and, below zero, purchases: numbers of the one are numbers of the other */
	for (uint64 i = 0; i < found; i++)
	{
		hits[nhits++] = found_column(i, 1);
		if (found_column(i, 3) != 0)
			hits[nhits++] = -found_column(i, 3);
	}
	qsort(hits, nhits, sizeof(int64), compare_ids);
	for (int i = 0; i < n; i++)
	{
		int64		source = -sources[i];

		if (bsearch(&members[i], hits, nhits, sizeof(int64), compare_ids) == NULL &&
			bsearch(&source, hits, nhits, sizeof(int64), compare_ids) == NULL)
			continue;
		if (referred->n == referred->size)
		{
			referred->size = referred->size * 2 + 64;
			referred->source = referred->source == NULL ?
				MemoryContextAlloc(referred->context, sizeof(int64) * referred->size) :
				repalloc_huge(referred->source, sizeof(int64) * referred->size);
		}
		referred->source[referred->n++] = sources[i];
	}
	pfree(hits);
}

/*
 * Find the referrals that purchases of members (0: a guest) may concern: add
 * their accounts to ids, which has room for nids and is moved where it grows,
 * and remember the purchases (referred NULL: do not).
 */
int64 *
ReferralsFind(Referred *referred, const int64 *members, const int64 *sources, int n, bool fresh,
			  int64 *ids, int *nids)
{
	FindName	name = !fresh ? FIND_CHANGED : n == 1 ? FIND_ONE : FIND_MANY;
	Datum		values[2] = {0, 0};

	values[0] = name == FIND_ONE ? Int64GetDatum(members[0]) : bigints(members, n);
	if (name == FIND_CHANGED)
		values[1] = bigints(sources, n);
	find(name, values);
	if (name != FIND_ONE)
		pfree(DatumGetPointer(values[0]));
	if (name == FIND_CHANGED)
		pfree(DatumGetPointer(values[1]));
	if (SPI_processed > 0)
	{
		Size		size = sizeof(int64) * (*nids + 2 * SPI_processed);

		ids = ids == NULL ? MemoryContextAllocHuge(CurrentMemoryContext, size) : repalloc_huge(ids, size);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			ids[(*nids)++] = found_column(i, 1);
			ids[(*nids)++] = found_column(i, 2);
		}
		if (referred != NULL)
			remember(referred, members, sources, n);
	}
	SPI_freetuptable(SPI_tuptable);
	return ids;
}

/* Settle the referrals that a statement's purchases concern. */
void
ReferralsSettle(const Referred *referred)
{
	Oid			type = INT8ARRAYOID;
	Datum		value;

	if (referred->n == 0)
		return;
	value = bigints(referred->source, referred->n);
	if (SPI_execute_with_args("SELECT loyalty.settle_referrals($1)", 1, &type, &value, NULL, false,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not settle referrals");
}

PG_FUNCTION_INFO_V1(loyalty_referral_worth);

/*
 * referral_worth(program_id, purchase): what a purchase costs in the programme's
 * currency, less what points and gift cards paid of it.
 */
Datum
loyalty_referral_worth(PG_FUNCTION_ARGS)
{
	Event		event;
	Program    *program;
	Datum		worth;

	SPI_connect();
	EventFromDatum(PG_GETARG_HEAPTUPLEHEADER(1), ON_PURCHASE, &event);
	program = ProgramPin(PG_GETARG_INT32(0));
	EventConvert(&event, program);
	ProgramUnpin(program);
	SPI_finish();
	worth = NumericGetDatum(int64_div_fast_to_numeric(event.total - event.paid_points - event.paid_gift_card,
													  MONEY_DIGITS));
	PG_RETURN_DATUM(worth);
}

/* ------------------------------------------------------------------------
 * What a referral gives
 * ------------------------------------------------------------------------ */

/* The detail of an entry: which side of which referral. */
static Datum
referral_detail(const Account *account, const Event *event, bool to_friend)
{
	Detail		detail;

	DetailBegin(&detail);
	DetailInteger(&detail, "referral", event->source_id);
	DetailText(&detail, "side", to_friend ? "friend" : "referrer");
	if (account->account_id != event->member_id)
		DetailInteger(&detail, "member", event->member_id);
	return DetailEnd(&detail);
}

PG_FUNCTION_INFO_V1(loyalty_give_referral);

/*
 * give_referral(referral_id, member_id, to_friend, points, at, hold_days, reason):
 * give one side its points, of the day of the friend's purchase; they become
 * available after hold_days (below 0: when the programme's own would).
 */
Datum
loyalty_give_referral(PG_FUNCTION_ARGS)
{
	Event		event = {.kind = ON_ACTIVITY, .source_id = PG_GETARG_INT64(0), .has_member = true,
	.member_id = PG_GETARG_INT64(1), .occurred_at = PG_GETARG_TIMESTAMPTZ(4)};
	bool		to_friend = PG_GETARG_BOOL(2);
	int			hold_days = PG_GETARG_INT32(5);
	int64		member_id = event.member_id;
	Posting		posting = {.kind = "referral", .source_id = event.source_id,
	.occurred_at = event.occurred_at, .reason = text_to_cstring(PG_GETARG_TEXT_PP(6))};
	Ledger	   *ledger;
	Account    *account;
	Program    *program;
	Program		terms;
	int64		given;

	SPI_connect();
	ledger = LedgerOpen();
	LedgerLock(ledger, &member_id, 1);
	account = AwardAccount(ledger, &event);
	program = ProgramPin(account->program_id);
	terms = *program;
	if (hold_days >= 0)
	{
		terms.hold_days = hold_days;
		terms.pending_release = false;
	}
	posting.key = psprintf("loyalty:referral " INT64_FORMAT " %s", event.source_id,
						   to_friend ? "friend" : "referrer");
	posting.detail = referral_detail(account, &event, to_friend);
	given = CorrectPoints(ledger, &terms, account, &event, NULL, PG_GETARG_INT64(3), &posting);
	ProgramUnpin(program);
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(given);
}

/* Take back what a referral gave to one account, as far as the programme's policy can. */
static int64
take_back(Ledger *ledger, const Event *event, const Posted *posted, Posting posting)
{
	Account    *account = LedgerAccount(ledger, posted->account_id);
	Program    *program;
	Program		terms;
	Detail		detail;
	int64		before;
	int64		given;

	LotsRaise(lotset_total(&posted->lots, &before));
	if (account == NULL || before <= 0)
		return 0;
	DetailBegin(&detail);
	DetailInteger(&detail, "referral", event->source_id);
	if (account->account_id >= FIRST_HOUSEHOLD && posted->member_id != 0)
		DetailInteger(&detail, "member", posted->member_id);
	posting.detail = DetailEnd(&detail);
	program = ProgramPin(account->program_id);
	terms = *program;
	/* the friend's return does not fail because the referrer has spent */
	if (terms.negative == NEGATIVE_FORBID || ProgramNegativeLimit(program, account->tier_id) >= 0)
		terms.negative = NEGATIVE_CLAMP;
	given = CorrectPoints(ledger, &terms, account, event, posted, -before, &posting);
	ProgramUnpin(program);
	return given;
}

PG_FUNCTION_INFO_V1(loyalty_take_referral);

/* take_referral(referral_id, member_id, reason): take back all that it gave; the points posted. */
Datum
loyalty_take_referral(PG_FUNCTION_ARGS)
{
	Event		event = {.kind = ON_ACTIVITY, .source_id = PG_GETARG_INT64(0), .has_member = true,
	.member_id = PG_GETARG_INT64(1)};
	Posting		posting = {.kind = "referral", .source_id = event.source_id,
	.reason = text_to_cstring(PG_GETARG_TEXT_PP(2))};
	Ledger	   *ledger;
	Posted	   *posted;
	int			n;
	int64		taken = 0;

	SPI_connect();
	ledger = LedgerOpen();
	n = LedgerLockPosted(ledger, &event.source_id, 1, event.member_id, &posted);
	event.occurred_at = LedgerNow(ledger);
	posting.occurred_at = LedgerNow(ledger);
	posting.key = psprintf("loyalty:referral " INT64_FORMAT " back", event.source_id);
	for (int i = 0; i < n; i++)
	{
		if (posted[i].account_id != 0)
			taken += take_back(ledger, &event, &posted[i], posting);
	}
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(taken);
}
