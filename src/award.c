/*
 * award.c
 *	  The trigger on the transaction tables: rows become events, events are
 *	  decided, decisions are posted.
 *
 * A statement is a batch.  Its rows are taken in order of (member, time, id),
 * a chunk at a time, so that the memory is bounded and accounts are locked in
 * ascending order; the result is that of the same rows inserted one by one.
 *
 * An UPDATE posts the difference between what the row should have earned and
 * what was posted for it.  The correction uses the rule versions, the tier and
 * the history that the award pinned.
 */
#include "award.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_oper.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

#include "calendar.h"
#include "compat.h"
#include "errors.h"

#define CHUNK_EVENTS	4096
#define CHUNK_BYTES		(16 * 1024 * 1024)

/* The programmes that a statement has pinned */
typedef struct Pins
{
	Program    *program[16];
	int			n;
} Pins;

typedef struct Batch
{
	EventLayout *layout;
	bool		correcting;		/* an UPDATE */
	Pins		pins;
	MemoryContext chunk;		/* the events and their ledger */
	MemoryContext scratch;		/* the decision on one event */
	Event	  **event;
	int			nevents;
} Batch;

/* ------------------------------------------------------------------------
 * One event
 * ------------------------------------------------------------------------ */

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
		ProductFind(program->program_id, skus, n, found);
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

/* What rules may know of the member, as of the event. */
void
AwardMemberFacts(Ledger *ledger, Program *program, const Account *account,
				 const Event *event, MemberFacts *facts)
{
	TallyMonth	life;

	if (program->uses_members)
		LedgerLoadMembers(ledger);
	TallyRaise(tallyset_sum(&account->tally, INT32_MIN, INT32_MAX, &life));
	facts->member_id = account->account_id;
	facts->external_id = account->external_id;
	facts->joined_at = account->joined_at;
	facts->has_birthday = account->has_birthday;
	facts->birthday = account->birthday;
	facts->staff = account->staff;
	facts->attributes = account->attributes;
	facts->pinned.purchases = life.visits;
	facts->pinned.spend = life.spend;
	facts->pinned.tier_id = account->tier_id;
	if (event->occurred_at < account->tier_since && program->ntiers > 0)
		facts->pinned.tier_id = LedgerTierAt(ledger, account->account_id, event->occurred_at);
}

/* The account of an event's member, which must be there and not be closed. */
Account *
AwardAccount(Ledger *ledger, const Event *event)
{
	Account    *account = LedgerAccount(ledger, event->member_id);

	if (account == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_MEMBER),
				 errmsg("member " INT64_FORMAT " does not exist", event->member_id),
				 errdetail("Transaction " INT64_FORMAT " names it.", event->source_id),
				 errhint("loyalty.enroll makes a member; leave member_id null for a guest.")));
	if (account->closed && !event->is_void)
		ereport(ERROR,
				(errcode(ERRCODE_LY_MEMBER_CLOSED),
				 errmsg("member " INT64_FORMAT " is closed", event->member_id),
				 errdetail("Transaction " INT64_FORMAT " names it.", event->source_id),
				 errhint("Leave member_id null to keep the purchase as a guest's.")));
	return account;
}

/* Post what died by a day, for the books. */
static void
close_expired(Ledger *ledger, Account *account, int32 day, TimestampTz at)
{
	LotSet		dead;
	Posting		posting = {.kind = "expire", .occurred_at = at, .lots = &dead};

	lotset_init(&dead);
	LotsRaise(lotset_close_expired(&account->lots, day, &dead));
	if (dead.n > 0)
		LedgerPost(ledger, account, &posting);
}

/* The lot that points earned on a day make. */
static Lot
lot_of(const Program *program, int32 day, int64 points)
{
	Lot			lot;

	lot.available_from = day + program->hold_days;
	lot.expires_on = calendar_expires_on(&program->expiry, lot.available_from);
	lot.amount = points;
	return lot;
}

/* The tally of an event that earned points. */
static void
tally_of(const Event *event, int32 day, int64 points, TallySet *tally)
{
	TallyMonth	month = {.month = calendar_month(day), .points = points};

	if (event->kind == ON_PURCHASE)
	{
		month.spend = event->total;
		month.visits = 1;
	}
	tallyset_init(tally);
	TallyRaise(tallyset_add_month(tally, month));
}

/* Promote the account where its window now earns a higher tier. */
static void
promote(Ledger *ledger, const Program *program, Account *account, int64 source_id)
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
static void
revoke_promotion(Ledger *ledger, const Program *program, Account *account, int64 source_id)
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

/* Decide a prepared event and post it. */
static void
decide_and_post(Ledger *ledger, Program *program, Account *account, Event *event,
				AwardOutcome *outcome)
{
	int32		day = ProgramDay(program, event->occurred_at);
	MemberFacts facts;
	LotSet		lots;
	TallySet	tally;
	Posting		posting = {.kind = "earn", .source_id = event->source_id,
	.occurred_at = event->occurred_at};

	AwardPrepare(program, event);
	AwardMemberFacts(ledger, program, account, event, &facts);
	outcome->tier_before = ProgramTierIndex(program, facts.pinned.tier_id);
	EarnDecide(program, event, &facts, DT_NOEND, &outcome->award);
	outcome->lot = lot_of(program, day, outcome->award.points);
	if (event->kind == ON_ACTIVITY && outcome->award.points == 0)
		return;
	close_expired(ledger, account, day, event->occurred_at);
	lotset_init(&lots);
	if (outcome->award.points > 0)
		LotsRaise(lotset_earn(&account->lots, outcome->lot, &lots));
	tally_of(event, day, outcome->award.points, &tally);
	posting.lots = &lots;
	posting.tally = &tally;
	posting.breakdown = BreakdownEncode(&outcome->award.breakdown);
	LedgerPost(ledger, account, &posting);
	promote(ledger, program, account, event->source_id);
}

/*
 * The same where a rule that raises must not fail the sale: the decision runs
 * in a subtransaction, and an error in it parks the award.
 */
static void
decide_or_hold(Ledger *ledger, Program *program, Account *account, Event *event,
			   AwardOutcome *outcome)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemberFacts facts;
	Event		probe = *event;
	Award		award;

	AwardPrepare(program, &probe);
	AwardMemberFacts(ledger, program, account, &probe, &facts);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		EarnDecide(program, &probe, &facts, DT_NOEND, &award);
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
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(error);
		outcome->held = true;
		LedgerHold(ledger, event->source_id, account->account_id, error->message,
				   error->context);
		FreeErrorData(error);
		return;
	}
	PG_END_TRY();
	decide_and_post(ledger, program, account, event, outcome);
}

/* Award an event to its account. */
void
AwardPost(Ledger *ledger, Program *program, Account *account, Event *event,
		  AwardOutcome *outcome)
{
	memset(outcome, 0, sizeof(AwardOutcome));
	if (program->hold_on_error)
		decide_or_hold(ledger, program, account, event, outcome);
	else
		decide_and_post(ledger, program, account, event, outcome);
	outcome->tier_after = ProgramTierIndex(program, account->tier_id);
}

/* ------------------------------------------------------------------------
 * Corrections
 * ------------------------------------------------------------------------ */

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
decide_target(Ledger *ledger, Program *program, const Account *account, Event *event,
			  const Posted *posted, Award *target)
{
	MemberFacts facts;
	Breakdown	first;

	if (program->uses_members)
		LedgerLoadMembers(ledger);
	memset(&facts, 0, sizeof(facts));
	facts.member_id = account->account_id;
	facts.external_id = account->external_id;
	facts.joined_at = account->joined_at;
	facts.has_birthday = account->has_birthday;
	facts.birthday = account->birthday;
	facts.staff = account->staff;
	facts.attributes = account->attributes;
	if (posted->nbreakdowns > 0)
	{
		BreakdownDecode(posted->breakdown[0], &first);
		facts.pinned = first.pinned;
	}
	AwardPrepare(program, event);
	EarnDecide(program, event, &facts, posted->recorded_at, target);
}

/* The lots that move what was posted towards a target. */
static void
difference_lots(Ledger *ledger, const Program *program, const Account *account,
				const Event *event, const Posted *posted, int64 difference, LotSet *lots)
{
	int32		today = ProgramDay(program, LedgerNow(ledger));
	int64		taken;
	CoreStatus	status;

	lotset_init(lots);
	if (difference > 0)
		LotsRaise(lotset_earn(&account->lots,
							  lot_of(program, ProgramDay(program, event->occurred_at), difference),
							  lots));
	if (difference >= 0)
		return;
	status = lotset_take_back(&account->lots, &posted->lots, -difference, today,
							  program->negative, program->negative_limit, lots, &taken);
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

/* Post the difference between a source's target (NULL: nothing) and what was posted. */
static void
post_difference(Ledger *ledger, Program *program, Account *account, Event *event,
				const Posted *posted, Award *target)
{
	Award		nothing = {0};
	TallySet	tally;
	LotSet		lots;
	int64		before;
	Posting		posting = {.kind = "correct", .source_id = event->source_id,
	.occurred_at = LedgerNow(ledger)};

	tallyset_init(&tally);
	if (target == NULL)
		target = &nothing;
	else
		tally_of(event, ProgramDay(program, event->occurred_at), target->points, &tally);
	LotsRaise(lotset_total(&posted->lots, &before));
	difference_lots(ledger, program, account, event, posted, target->points - before, &lots);
	TallyRaise(tallyset_subtract(&tally, &posted->tally));
	if (lots.n == 0 && tally.n == 0)
		return;
	subtract_posted(&target->breakdown, posted);
	posting.lots = &lots;
	posting.tally = &tally;
	posting.breakdown = BreakdownEncode(&target->breakdown);
	LedgerPost(ledger, account, &posting);
	promote(ledger, program, account, event->source_id);
	revoke_promotion(ledger, program, account, event->source_id);
}

/* ------------------------------------------------------------------------
 * Chunks
 * ------------------------------------------------------------------------ */

/* The programme of an account, pinned for the statement. */
static Program *
pin_program(Pins *pins, int32 program_id)
{
	Program    *program;

	for (int i = 0; i < pins->n; i++)
	{
		if (pins->program[i]->program_id == program_id)
			return pins->program[i];
	}
	if (pins->n == lengthof(pins->program))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("one statement concerns more than %d programmes",
						(int) lengthof(pins->program)),
				 errhint("Insert the rows of each programme with a statement of its own.")));
	program = ProgramPin(program_id);
	pins->program[pins->n++] = program;
	return program;
}

/* By member, time and id: the order of a member's timeline. */
static int
compare_events(const void *a, const void *b)
{
	const Event *left = *(Event *const *) a;
	const Event *right = *(Event *const *) b;

	if (left->member_id != right->member_id)
		return left->member_id < right->member_id ? -1 : 1;
	if (left->occurred_at != right->occurred_at)
		return left->occurred_at < right->occurred_at ? -1 : 1;
	return (left->source_id > right->source_id) - (left->source_id < right->source_id);
}

/* Award the events of a chunk. */
static void
award_chunk(Batch *batch, Ledger *ledger)
{
	int64	   *ids = palloc(sizeof(int64) * batch->nevents);

	for (int i = 0; i < batch->nevents; i++)
		ids[i] = batch->event[i]->member_id;
	LedgerLock(ledger, ids, batch->nevents);
	for (int i = 0; i < batch->nevents; i++)
	{
		Event	   *event = batch->event[i];
		Account    *account = AwardAccount(ledger, event);
		AwardOutcome outcome;
		MemoryContext old;

		if (event->is_void)
			continue;
		old = MemoryContextSwitchTo(batch->scratch);
		AwardPost(ledger, pin_program(&batch->pins, account->program_id), account, event,
				  &outcome);
		MemoryContextSwitchTo(old);
		MemoryContextReset(batch->scratch);
	}
}

/* Correct one event, given all that was posted for it. */
static void
correct_event(Batch *batch, Ledger *ledger, Event *event, const Posted *posted, int nposted)
{
	bool		wanted = event->has_member && !event->is_void;
	bool		done = false;

	for (int i = 0; i < nposted; i++)
	{
		Account    *account;
		Program    *program;
		Award		target;

		if (posted[i].account_id == 0)
			continue;
		account = LedgerAccount(ledger, posted[i].account_id);
		program = pin_program(&batch->pins, account->program_id);
		if (wanted && posted[i].account_id == event->member_id)
		{
			done = true;
			decide_target(ledger, program, account, event, &posted[i], &target);
			post_difference(ledger, program, account, event, &posted[i], &target);
		}
		else
			post_difference(ledger, program, account, event, &posted[i], NULL);
	}
	if (wanted && !done && !posted[0].held)
	{
		Account    *account = AwardAccount(ledger, event);
		AwardOutcome outcome;

		AwardPost(ledger, pin_program(&batch->pins, account->program_id), account, event,
				  &outcome);
	}
}

/* The elements of what was posted that concern one source. */
static int
posted_of(const Posted *posted, int n, int64 source_id, int *first)
{
	int			count = 0;

	for (int i = 0; i < n; i++)
	{
		if (posted[i].source_id != source_id)
			continue;
		if (count++ == 0)
			*first = i;
	}
	return count;
}

/* Correct the events of a chunk. */
static void
correct_chunk(Batch *batch, Ledger *ledger)
{
	int64	   *sources = palloc(sizeof(int64) * batch->nevents);
	int64	   *ids;
	Posted	   *posted;
	int			nposted;
	int			n = 0;

	for (int i = 0; i < batch->nevents; i++)
		sources[i] = batch->event[i]->source_id;
	nposted = LedgerPosted(ledger, sources, batch->nevents, &posted);
	ids = palloc(sizeof(int64) * (batch->nevents + nposted));
	for (int i = 0; i < batch->nevents; i++)
	{
		if (batch->event[i]->has_member)
			ids[n++] = batch->event[i]->member_id;
	}
	for (int i = 0; i < nposted; i++)
	{
		if (posted[i].account_id != 0)
			ids[n++] = posted[i].account_id;
	}
	LedgerLock(ledger, ids, n);
	for (int i = 0; i < batch->nevents; i++)
	{
		int			first = 0;
		int			count = posted_of(posted, nposted, batch->event[i]->source_id, &first);

		correct_event(batch, ledger, batch->event[i], &posted[first], count);
	}
}

/* Process the events collected so far and forget them. */
static void
process_chunk(Batch *batch)
{
	MemoryContext old;
	Ledger	   *ledger;

	if (batch->nevents == 0)
		return;
	old = MemoryContextSwitchTo(batch->chunk);
	qsort(batch->event, batch->nevents, sizeof(Event *), compare_events);
	ledger = LedgerOpen();
	if (batch->correcting)
		correct_chunk(batch, ledger);
	else
		award_chunk(batch, ledger);
	LedgerFlush(ledger);
	LedgerClose(ledger);
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->chunk);
	batch->nevents = 0;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Tell whether a row is restored from a dump or copied by replication.
 *
 * Its entries come the same way.  The default of recorded_at is the start of
 * the transaction; grant_app lets nobody set it.
 */
static bool
is_restored(const Batch *batch, const Event *event)
{
	return !batch->correcting && event->recorded_at != GetCurrentTransactionStartTimestamp();
}

/* Collect a row; process the chunk when it is full. */
static void
collect_row(Batch *batch, TupleTableSlot *row, TupleTableSlot *scratch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->chunk);
	Event	   *event = palloc(sizeof(Event));

	ExecStoreMinimalTuple(ExecCopySlotMinimalTuple(row), scratch, false);
	EventReadOrder(batch->layout, scratch, event);
	if (!is_restored(batch, event))
	{
		EventRead(batch->layout, scratch, event);
		if (event->has_member || batch->correcting)
			batch->event[batch->nevents++] = event;
	}
	ExecClearTuple(scratch);
	MemoryContextSwitchTo(old);
	if (batch->nevents == CHUNK_EVENTS ||
		(batch->nevents % 64 == 0 && MemoryContextMemAllocated(batch->chunk, true) > CHUNK_BYTES))
		process_chunk(batch);
}

/* Sort a large statement's rows by member, time and id. */
static Tuplesortstate *
sort_rows(Batch *batch, Tuplestorestate *rows, TupleTableSlot *slot)
{
	AttrNumber	columns[3];
	Oid			operators[3];
	Oid			collations[3] = {InvalidOid, InvalidOid, InvalidOid};
	bool		nulls_first[3] = {false, false, false};
	Tuplesortstate *sort;

	for (int i = 0; i < 3; i++)
		get_sort_group_operators(i == 1 ? TIMESTAMPTZOID : INT8OID, true, false, false,
								 &operators[i], NULL, NULL, NULL);
	columns[0] = EventColumn(batch->layout, "member_id");
	columns[1] = EventColumn(batch->layout, "occurred_at");
	columns[2] = EventColumn(batch->layout, "id");
	sort = tuplesort_begin_heap(slot->tts_tupleDescriptor, 3, columns, operators, collations,
								nulls_first, work_mem, NULL, TUPLESORT_NONE);
	while (tuplestore_gettupleslot(rows, true, false, slot))
		tuplesort_puttupleslot(sort, slot);
	tuplesort_performsort(sort);
	return sort;
}

/* Take every row of a transition table. */
static void
process_rows(Batch *batch, Tuplestorestate *rows, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	TupleTableSlot *scratch = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	int			pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(rows, pointer);
	tuplestore_rescan(rows);
	if (tuplestore_tuple_count(rows) <= CHUNK_EVENTS)
	{
		while (tuplestore_gettupleslot(rows, true, false, slot))
			collect_row(batch, slot, scratch);
	}
	else
	{
		Tuplesortstate *sort = sort_rows(batch, rows, slot);

		while (tuplesort_gettupleslot(sort, true, false, slot, NULL))
			collect_row(batch, slot, scratch);
		tuplesort_end(sort);
	}
	process_chunk(batch);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(scratch);
}

/* ------------------------------------------------------------------------
 * The trigger
 * ------------------------------------------------------------------------ */

/* Refuse calls that are not ours: the trigger stands on our two tables alone. */
static RuleEvent
check_call(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	relation;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("\"%s\" must be called as a trigger", "award")));
	relation = trigger->tg_relation;
	if (TRIGGER_FIRED_AFTER(trigger->tg_event) && TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) &&
		trigger->tg_newtable != NULL &&
		RelationGetNamespace(relation) == get_namespace_oid("loyalty", true))
	{
		if (strcmp(RelationGetRelationName(relation), "purchase") == 0)
			return ON_PURCHASE;
		if (strcmp(RelationGetRelationName(relation), "activity") == 0)
			return ON_ACTIVITY;
	}
	ereport(ERROR,
			(errcode(ERRCODE_LY_FORGED_CALL),
			 errmsg("table \"%s\" may not award points", RelationGetRelationName(relation)),
			 errhint("loyalty.attach lets a table of your own award points.")));
}

PG_FUNCTION_INFO_V1(loyalty_award);

/* Statement trigger after INSERT or UPDATE on purchase and activity. */
Datum
loyalty_award(PG_FUNCTION_ARGS)
{
	RuleEvent	kind = check_call(fcinfo);
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Batch	   *batch;
	bool		many;

	if (tuplestore_tuple_count(trigger->tg_newtable) == 0)
		return PointerGetDatum(NULL);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	batch = palloc0(sizeof(Batch));
	batch->layout = EventLayoutOf(RelationGetDescr(trigger->tg_relation), kind);
	batch->correcting = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	batch->event = palloc(sizeof(Event *) *
						  Min(CHUNK_EVENTS, tuplestore_tuple_count(trigger->tg_newtable)));
	/* many rows: keep the pages of a chunk for the next one */
	many = tuplestore_tuple_count(trigger->tg_newtable) > CHUNK_EVENTS;
	batch->chunk = AllocSetContextCreate(CurrentMemoryContext, "loyalty chunk",
										 many ? CHUNK_BYTES / 4 : 0, ALLOCSET_DEFAULT_INITSIZE,
										 ALLOCSET_DEFAULT_MAXSIZE);
	batch->scratch = AllocSetContextCreate(CurrentMemoryContext, "loyalty decision",
										   many ? 64 * 1024 : 0, ALLOCSET_DEFAULT_INITSIZE,
										   ALLOCSET_DEFAULT_MAXSIZE);
	PG_TRY();
	{
		process_rows(batch, trigger->tg_newtable, RelationGetDescr(trigger->tg_relation));
	}
	PG_FINALLY();
	{
		for (int i = 0; i < batch->pins.n; i++)
			ProgramUnpin(batch->pins.program[i]);
	}
	PG_END_TRY();
	SPI_finish();
	return PointerGetDatum(NULL);
}
