/*
 * simulate.c
 *	  What draft rules would have given for the past.
 *
 * Walks the members' timelines in order with the award's own decision, on
 * accounts in memory.  Writes nothing and takes no locks.  Memory does not grow
 * with the past: one row and one account at a time.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "award.h"
#include "compat.h"
#include "errors.h"

#define FETCH_ROWS 500

typedef struct Cell
{
	int64		awards;
	int64		points;
} Cell;

typedef struct Simulation
{
	Program    *program;
	Ledger	   *ledger;
	TimestampTz from_at;
	MemoryContext member_context;
	CapBook    *caps;			/* of the member; begins at nothing */
	MemoryContext row_context;
	Account    *account;
	EventLayout *layout[2];		/* of purchases and activities */
	TupleTableSlot *slot[2];
	Cell	   *cell;			/* [rule + 1][tier + 1]; rule 0: the tiers' multipliers */
} Simulation;

static const char *const timeline_query =
"SELECT member_id, p, a FROM ("
" SELECT p.member_id, p.occurred_at, p.purchase_id AS id, p, NULL::loyalty.activity AS a"
"  FROM loyalty.purchase p JOIN loyalty.member m USING (member_id)"
"  WHERE m.program_id = $1 AND p.occurred_at >= $2 AND p.occurred_at < $3 AND p.status = 'completed'"
" UNION ALL"
" SELECT a.member_id, a.occurred_at, a.activity_id, NULL, a"
"  FROM loyalty.activity a JOIN loyalty.member m USING (member_id)"
"  WHERE m.program_id = $1 AND a.occurred_at >= $2 AND a.occurred_at < $3 AND a.status = 'completed'"
") AS timeline ORDER BY member_id, occurred_at, id";

/* The tally of an account from before the simulation. */
static void
load_tally(Simulation *simulation, Account *account)
{
	Oid			types[2] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[2];
	bool		isnull;
	Datum		tally;

	tallyset_init(&account->tally);
	if (TIMESTAMP_IS_NOBEGIN(simulation->from_at))
		return;
	values[0] = Int64GetDatum(account->account_id);
	values[1] = TimestampTzGetDatum(simulation->from_at);
	SPI_execute_with_args("SELECT loyalty.sum(tally) FROM loyalty.entry"
						  " WHERE account_id = $1 AND occurred_at < $2",
						  2, types, values, NULL, true, 0);
	tally = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		TallyFromDatum(tally, &account->tally);
	SPI_freetuptable(SPI_tuptable);
}

/* Put a member at the start of the simulated time. */
static void
start_member(Simulation *simulation, int64 member_id)
{
	MemoryContext old;
	Account    *account;

	MemoryContextReset(simulation->member_context);
	old = MemoryContextSwitchTo(simulation->member_context);
	simulation->ledger = LedgerOpen();
	LedgerRead(simulation->ledger, member_id);
	account = LedgerAccount(simulation->ledger, member_id);
	if (account == NULL)
		elog(ERROR, "account " INT64_FORMAT " is missing", member_id);
	load_tally(simulation, account);
	account->tier_id = LedgerTierAt(simulation->ledger, member_id, simulation->from_at);
	account->tier_since = DT_NOBEGIN;
	simulation->account = account;
	simulation->caps = CapsOpen(CAPS_SIMULATE);
	MemoryContextSwitchTo(old);
}

/* Count what an award gave, by rule and tier. */
static void
count_award(Simulation *simulation, const Award *award, int tier)
{
	const Program *program = simulation->program;
	int			columns = program->ntiers + 1;

	for (int i = 0; i < award->breakdown.nrules; i++)
	{
		const BreakdownRule *part = &award->breakdown.rule[i];
		int			row = 0;

		for (int r = 0; r < program->nrules && part->id > 0; r++)
		{
			if (program->rule[r]->version_id == part->id)
				row = r + 1;
		}
		simulation->cell[row * columns + tier + 1].awards++;
		LotsRaise(core_add64(simulation->cell[row * columns + tier + 1].points, part->points,
							 &simulation->cell[row * columns + tier + 1].points));
	}
}

/* Move the account in memory on by one event. */
static void
advance_account(Simulation *simulation, const Event *event, int64 points)
{
	Program    *program = simulation->program;
	Account    *account = simulation->account;
	int32		day = ProgramDay(program, event->occurred_at);
	TallyMonth	month = {.month = calendar_month(day), .points = points};
	int			earned;
	MemoryContext old;

	if (event->kind == ON_PURCHASE)
	{
		month.spend = event->total;
		month.visits = 1;
	}
	old = MemoryContextSwitchTo(simulation->member_context);
	TallyRaise(tallyset_add_month(&account->tally, month));
	MemoryContextSwitchTo(old);
	TallyRaise(tier_earned(&program->tier_policy, program->tier, program->ntiers, &account->tally,
						   ProgramDay(program, account->joined_at), day, &earned));
	if (earned > ProgramTierIndex(program, account->tier_id))
		account->tier_id = program->tier[earned].tier_id;
}

/* Simulate one row of the timeline. */
static void
simulate_row(Simulation *simulation, HeapTupleHeader header, RuleEvent kind)
{
	int			which = kind == ON_PURCHASE ? 0 : 1;
	HeapTupleData tuple;
	Event		event;
	MemberFacts facts;
	Award		award;

	if (simulation->slot[which] == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(simulation->program->context);
		TupleDesc	desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(header),
													   HeapTupleHeaderGetTypMod(header));

		simulation->layout[which] = EventLayoutCreate(desc, kind);
		simulation->slot[which] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(old);
	}
	memset(&tuple, 0, sizeof(tuple));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_data = header;
	ExecStoreHeapTuple(&tuple, simulation->slot[which], false);
	EventRead(simulation->layout[which], simulation->slot[which], &event);
	AwardPrepare(simulation->program, &event);
	AwardMemberFacts(simulation->ledger, simulation->program, simulation->account,
					 simulation->account, &event, &facts);
	if (simulation->program->has_caps)
		CapsAttach(simulation->caps, &event);
	EarnDecide(simulation->program, &event, &facts, DT_NOEND, &award);
	CapsSettle(&event, simulation->program, &award.breakdown, true);
	count_award(simulation, &award, ProgramTierIndex(simulation->program, facts.pinned.tier_id));
	advance_account(simulation, &event, award.points);
	ExecClearTuple(simulation->slot[which]);
}

/* Simulate the rows of one fetch. */
static void
simulate_fetch(Simulation *simulation, int64 *member_id)
{
	SPITupleTable *table = SPI_tuptable;
	uint64		count = SPI_processed;

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext old;
		bool		isnull;
		int64		member = DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull));
		Datum		purchase = SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull);
		bool		is_activity = isnull;

		if (member != *member_id)
			start_member(simulation, member);
		*member_id = member;
		MemoryContextReset(simulation->row_context);
		old = MemoryContextSwitchTo(simulation->row_context);
		if (is_activity)
			purchase = SPI_getbinval(table->vals[i], table->tupdesc, 3, &isnull);
		simulate_row(simulation, DatumGetHeapTupleHeader(purchase),
					 is_activity ? ON_ACTIVITY : ON_PURCHASE);
		MemoryContextSwitchTo(old);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_freetuptable(table);
}

/* Walk all timelines. */
static void
simulate_all(Simulation *simulation, Datum program_id, Datum from_at, Datum until_at)
{
	Oid			types[3] = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[3] = {program_id, from_at, until_at};
	Portal		portal = SPI_cursor_open_with_args(NULL, timeline_query, 3, types, values, NULL,
												   true, 0);
	int64		member_id = 0;

	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		simulate_fetch(simulation, &member_id);
	}
	SPI_cursor_close(portal);
}

/* What points cost: their number of whole points times a point's value; 0 where it has none. */
static Datum
cost_of(const Program *program, int64 points)
{
	Numeric		cost = int64_div_fast_to_numeric(points, program->points_scale);

	return DirectFunctionCall2(numeric_mul, NumericGetDatum(cost),
							   NumericGetDatum(program->point_value));
}

/* Emit the cells that are not empty. */
static void
put_cells(ReturnSetInfo *rsinfo, const Simulation *simulation)
{
	const Program *program = simulation->program;

	for (int row = 0; row <= program->nrules; row++)
	{
		for (int tier = -1; tier < program->ntiers; tier++)
		{
			const Cell *cell = &simulation->cell[row * (program->ntiers + 1) + tier + 1];
			Datum		v[5];
			bool		n[5] = {false, false, false, false, false};

			if (cell->awards == 0)
				continue;
			v[0] = CStringGetTextDatum(row == 0 ? "(tier multiplier)" : program->rule[row - 1]->name);
			n[1] = tier < 0;
			v[1] = tier < 0 ? (Datum) 0 : program->tier_info[tier].name_datum;
			v[2] = Int64GetDatum(cell->awards);
			v[3] = Int64GetDatum(cell->points);
			n[4] = program->point_value == NULL;
			v[4] = n[4] ? (Datum) 0 : cost_of(program, cell->points);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
		}
	}
}

/* Refuse drafts that are no array of objects. */
static void
check_drafts(const Jsonb *rules)
{
	bool		valid = JB_ROOT_IS_ARRAY(rules) && !JB_ROOT_IS_SCALAR(rules);

	for (uint32 i = 0; valid && i < JB_ROOT_COUNT(rules); i++)
	{
		JsonbValue *rule = getIthJsonbValueFromContainer((JsonbContainer *) &rules->root, i);

		valid = rule->type == jbvBinary && JsonContainerIsObject(rule->val.binary.data);
	}
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_RULE),
				 errmsg("draft rules are an array of objects"),
				 errhint("For example [{\"name\": \"twice\", \"kind\": \"multiply\", \"points\": \"2\"}]; [] simulates the rules there are.")));
}

PG_FUNCTION_INFO_V1(loyalty_simulate);

/* simulate(program_id, rules, from_at, until_at, keep_existing) */
Datum
loyalty_simulate(PG_FUNCTION_ARGS)
{
	Simulation	simulation = {0};

	check_drafts(PG_GETARG_JSONB_P(1));
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	simulation.program = ProgramDraft(PG_GETARG_INT32(0), PG_GETARG_DATUM(1), PG_GETARG_BOOL(4));
	simulation.from_at = PG_GETARG_TIMESTAMPTZ(2);
	simulation.member_context = AllocSetContextCreate(CurrentMemoryContext, "loyalty member",
													  ALLOCSET_DEFAULT_SIZES);
	simulation.row_context = AllocSetContextCreate(CurrentMemoryContext, "loyalty row",
												   ALLOCSET_DEFAULT_SIZES);
	simulation.cell = palloc0(sizeof(Cell) * (simulation.program->nrules + 1) *
							  (simulation.program->ntiers + 1));
	simulate_all(&simulation, PG_GETARG_DATUM(0), PG_GETARG_DATUM(2), PG_GETARG_DATUM(3));
	put_cells((ReturnSetInfo *) fcinfo->resultinfo, &simulation);
	SPI_finish();
	return (Datum) 0;
}
