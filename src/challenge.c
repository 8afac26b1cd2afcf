/*
 * challenge.c
 *	  What counts for challenges, and the points that they give.
 *
 * The award of a statement comes here where a programme that it concerns has
 * challenges; elsewhere it costs one comparison a statement.  What a
 * transaction is worth to each challenge is asked of the rules' own machinery:
 * a challenge is a rule whose points are what it counts.  Progress and targets
 * are reckoned in SQL; the difference is posted here.
 *
 * The award has locked the accounts of a statement before.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "award.h"
#include "compat.h"
#include "errors.h"

#define FIRST_DRAFT	1000000001	/* the version id of the first draft rule */

/* The challenges of a programme, compiled as draft rules */
typedef struct Tracker
{
	Program    *program;
	uint64		generation;
	bool		uses_history;	/* some challenge asks for what the award pinned */
	int			n;
	int32	   *challenge_id;
} Tracker;

static Tracker trackers[16];
static int	ntrackers = 0;
static bool any_challenge;
static bool any_known = false;
static uint64 any_generation;

/* ------------------------------------------------------------------------
 * The gate
 * ------------------------------------------------------------------------ */

/* Tell whether any programme has a challenge. */
bool
ChallengesExist(void)
{
	while (!any_known || any_generation != ProgramGeneration())
	{
		any_known = false;
		any_generation = ProgramGeneration();
		/* what is cached is true for every transaction, whatever this one sees */
		PushActiveSnapshot(GetLatestSnapshot());
		if (SPI_execute("SELECT FROM loyalty.challenge LIMIT 1", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read the challenges");
		any_challenge = SPI_processed > 0;
		any_known = true;
		PopActiveSnapshot();
	}
	return any_challenge;
}

/* Count purchases or activities for challenges, as they are now, or where they are new; their accounts are locked by the caller. */
void
ChallengesTrack(const int64 *sources, int n, bool fresh)
{
	Oid			types[2] = {INT8ARRAYOID, BOOLOID};
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum		values[2];

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(sources[i]);
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[1] = BoolGetDatum(fresh);
	if (SPI_execute_with_args("SELECT loyalty.track_all($1, $2)", 2, types, values, NULL, false,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not count for challenges");
}

/* ------------------------------------------------------------------------
 * What a transaction is worth
 * ------------------------------------------------------------------------ */

static const char *const tracker_query =
"SELECT array_agg(c.challenge_id ORDER BY c.challenge_id),"
" jsonb_agg(jsonb_build_object('name', c.name, 'event', c.event, 'kind', 'bonus', 'points', loyalty.counted(c.metric, c.event),"
" 'condition', c.condition, 'active_from', c.active_from, 'active_until', c.active_until) ORDER BY c.challenge_id)"
" FROM loyalty.challenge c WHERE c.program_id = $1";

/* Read and compile the challenges of a programme. */
static void
load_tracker(Tracker *tracker, int32 program_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(program_id);
	Datum		ids;
	Datum		drafts;
	bool		isnull;
	Datum	   *id;

	memset(tracker, 0, sizeof(Tracker));
	tracker->generation = ProgramGeneration();
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(tracker_query, 1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the challenges of programme %d", program_id);
	ids = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	drafts = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (isnull)
		drafts = DirectFunctionCall1(jsonb_in, CStringGetDatum("[]"));
	else
		deconstruct_array(DatumGetArrayTypeP(ids), INT4OID, sizeof(int32), true, TYPALIGN_INT,
						  &id, NULL, &tracker->n);
	tracker->program = ProgramDraft(program_id, drafts, false);
	tracker->program->points_scale = 0; /* what is counted are no points */
	tracker->challenge_id = MemoryContextAlloc(tracker->program->context,
											   sizeof(int32) * (tracker->n + 1));
	for (int i = 0; i < tracker->n; i++)
		tracker->challenge_id[i] = DatumGetInt32(id[i]);
	for (int fact = FACT_MEMBER_EXTERNAL_ID; fact <= FACT_MEMBER_ATTRIBUTES; fact++)
		tracker->uses_history |= bms_is_member(fact, tracker->program->columns);
	tracker->uses_history |= bms_is_member(FACT_PURCHASE_NUMBER, tracker->program->columns);
	PopActiveSnapshot();
}

/* The compiled challenges of a programme. */
static Tracker *
tracker_of(int32 program_id)
{
	Tracker		fresh;

	for (int i = 0; i < ntrackers; i++)
	{
		if (trackers[i].program->program_id != program_id)
			continue;
		if (trackers[i].generation == ProgramGeneration())
			return &trackers[i];
		ProgramFree(trackers[i].program);
		trackers[i] = trackers[--ntrackers];
		break;
	}
	load_tracker(&fresh, program_id);
	MemoryContextSetParent(fresh.program->context, CacheMemoryContext);
	if (ntrackers == lengthof(trackers))
		ProgramFree(trackers[--ntrackers].program);
	trackers[ntrackers] = fresh;
	return &trackers[ntrackers++];
}

/* The kind of event that a row argument is. */
static RuleEvent
kind_of(HeapTupleHeader header)
{
	Oid			activity = get_relname_relid("activity", get_namespace_oid("loyalty", false));

	return HeapTupleHeaderGetTypeId(header) == get_rel_type_id(activity) ? ON_ACTIVITY : ON_PURCHASE;
}

/* What conditions may know of the member: what the award pinned, as a correction takes it. */
static void
member_facts(Program *program, const Event *event, MemberFacts *facts)
{
	Ledger	   *ledger = LedgerOpen();
	int64		source_id = event->source_id;
	Posted	   *posted;
	int			n = LedgerPosted(ledger, &source_id, 1, &posted);
	Account    *account;
	Breakdown	first;

	LedgerRead(ledger, event->member_id);
	account = LedgerAccount(ledger, event->member_id);
	if (account == NULL)
		return;
	account = LedgerHome(ledger, account);
	AwardMemberFacts(ledger, program, account, account, event, facts);
	/* of what earned nothing no more is known than the tier of its time */
	facts->pinned.purchases = 0;
	facts->pinned.spend = 0;
	for (int i = 0; i < n; i++)
	{
		if (posted[i].nbreakdowns == 0 || !CorrectConcerns(ledger, event, &posted[i]))
			continue;
		BreakdownDecode(posted[i].breakdown[0], &first);
		facts->pinned = first.pinned;
		return;
	}
}

/* Emit what an event is worth to each challenge. */
static void
put_values(ReturnSetInfo *rsinfo, const Tracker *tracker, Event *event)
{
	MemberFacts facts = {0};
	Award		award;
	RuleVerdict *verdicts;
	int			n;

	if (tracker->uses_history)
		member_facts(tracker->program, event, &facts);
	AwardPrepare(tracker->program, event);
	verdicts = EarnExplain(tracker->program, event, &facts, DT_NOEND, &award, &n);
	for (int i = 0; i < n; i++)
	{
		Datum		v[2];
		bool		nulls[2] = {false, false};

		if (!verdicts[i].fired || verdicts[i].exact == NULL)
			continue;
		v[0] = Int32GetDatum(tracker->challenge_id[verdicts[i].rule->version_id - FIRST_DRAFT]);
		v[1] = NumericGetDatum(verdicts[i].exact);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
	}
}

PG_FUNCTION_INFO_V1(loyalty_challenge_values);

/* challenge_values(program_id, purchase or activity): what it is worth to each challenge, where it counts. */
Datum
loyalty_challenge_values(PG_FUNCTION_ARGS)
{
	Event		event;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	EventFromDatum(PG_GETARG_HEAPTUPLEHEADER(1), kind_of(PG_GETARG_HEAPTUPLEHEADER(1)), &event);
	if (event.has_member && !event.is_void)
		put_values((ReturnSetInfo *) fcinfo->resultinfo, tracker_of(PG_GETARG_INT32(0)), &event);
	SPI_finish();
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * What a challenge gives
 * ------------------------------------------------------------------------ */

/* Give the points of a grant to the account that its member earns into. */
static int64
give(Ledger *ledger, const Event *event, int64 points, Posting posting)
{
	Account    *account = AwardAccount(ledger, event);
	Program    *program = ProgramPin(account->program_id);
	int64		given;

	posting.occurred_at = event->occurred_at;
	posting.detail = AwardDetail(account, event, false);
	given = CorrectPoints(ledger, program, account, event, NULL, points, &posting);
	ProgramUnpin(program);
	return given;
}

/* Take back what a grant had given to one account. */
static int64
take_back(Ledger *ledger, const Event *event, const Posted *posted, Posting posting)
{
	Account    *account = LedgerAccount(ledger, posted->account_id);
	Program    *program;
	int64		before;
	int64		given;

	LotsRaise(lotset_total(&posted->lots, &before));
	if (account == NULL || before <= 0)
		return 0;
	program = ProgramPin(account->program_id);
	posting.key = psprintf("%s back", posting.key);
	posting.occurred_at = LedgerNow(ledger);
	posting.detail = AwardDetail(account, event, false);
	given = CorrectPoints(ledger, program, account, event, posted, -before, &posting);
	ProgramUnpin(program);
	return given;
}

/* Lock the member and the accounts to which a grant was posted, in one order; read what was. */
static int
lock_grant(Ledger *ledger, int64 grant_id, int64 member_id, Posted **posted)
{
	int			n = LedgerPosted(ledger, &grant_id, 1, posted);
	int64	   *ids = palloc(sizeof(int64) * (n + 1));
	int			nids = 0;

	ids[nids++] = member_id;
	for (int i = 0; i < n; i++)
	{
		if ((*posted)[i].account_id != 0)
			ids[nids++] = (*posted)[i].account_id;
	}
	LedgerLock(ledger, ids, nids);
	return LedgerLockedPosted(ledger, &grant_id, 1, posted);
}

PG_FUNCTION_INFO_V1(loyalty_post_grant);

/*
 * post_grant(grant_id, member_id, points, at, reason, key): give points (0:
 * none) and take back what the grant had given before; returns the difference.
 * Giving comes first, so that a grant can move to another day where the
 * programme forbids debts.
 */
Datum
loyalty_post_grant(PG_FUNCTION_ARGS)
{
	int64		grant_id = PG_GETARG_INT64(0);
	int64		member_id = PG_GETARG_INT64(1);
	int64		points = PG_GETARG_INT64(2);
	Event		event = {.kind = ON_ACTIVITY, .source_id = grant_id, .has_member = true,
	.member_id = member_id, .occurred_at = PG_GETARG_TIMESTAMPTZ(3)};
	Posting		posting = {.kind = "challenge", .source_id = grant_id,
	.reason = text_to_cstring(PG_GETARG_TEXT_PP(4)), .key = text_to_cstring(PG_GETARG_TEXT_PP(5))};
	Ledger	   *ledger;
	Posted	   *posted;
	int			n;
	int64		difference = 0;

	SPI_connect();
	ledger = LedgerOpen();
	n = lock_grant(ledger, grant_id, member_id, &posted);
	if (points > 0)
		difference = give(ledger, &event, points, posting);
	for (int i = 0; i < n; i++)
	{
		if (posted[i].account_id != 0)
			difference += take_back(ledger, &event, &posted[i], posting);
	}
	LedgerFlush(ledger);
	LedgerClose(ledger);
	SPI_finish();
	PG_RETURN_INT64(difference);
}
