/*
 * cap.c
 *	  Caps and budgets of rules: counted in memory for a chunk of events.
 *
 * A counter is of one member: whoever touches it holds the lock of that
 * member's account, so the counters need none of their own; that a transaction
 * with an old snapshot does not see them is found when it writes them.  A
 * budget's shares are taken from at once, in SQL, after the accounts.
 *
 * What counts is what was posted: the points of the rule in the breakdowns of
 * a source's entries.  A decision reserves, the posting settles.
 */
#include "cap_internal.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"

/* ------------------------------------------------------------------------
 * The gate
 * ------------------------------------------------------------------------ */

#define RESERVE_MOST	INT64CONST(1000000000000)	/* taken ahead at once */

static bool caps_exist;			/* some rule has a cap or a budget, or had one */
static bool budgets_exist;

/* Learn whether there is anything to count; again where the configuration changed. */
static void
learn(void)
{
	static bool known = false;
	static uint64 generation;

	while (!known || generation != ProgramGeneration())
	{
		known = false;
		generation = ProgramGeneration();
		/* what is cached is true for every transaction, whatever this one sees */
		PushActiveSnapshot(GetLatestSnapshot());
		if (SPI_execute("SELECT FROM loyalty.rule_budget LIMIT 1", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read the budgets");
		budgets_exist = SPI_processed > 0;
		if (SPI_execute("SELECT FROM loyalty.rule_version WHERE caps IS NOT NULL LIMIT 1", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read the caps");
		caps_exist = budgets_exist || SPI_processed > 0;
		known = true;
		PopActiveSnapshot();
	}
}

/* Tell whether any rule has a cap or a budget, or had one. */
bool
CapsExist(void)
{
	learn();
	return caps_exist;
}

/* Tell whether any rule has a budget. */
bool
BudgetsExist(void)
{
	learn();
	return budgets_exist;
}

/* Begin with the caps of a chunk; lives in the current memory context. */
CapBook *
CapsOpen(CapMode mode)
{
	CapBook    *book = palloc0(sizeof(CapBook));

	book->mode = mode;
	book->context = CurrentMemoryContext;
	return book;
}

/* ------------------------------------------------------------------------
 * Counters
 * ------------------------------------------------------------------------ */

/* The counter of a rule, a member and the period that a day lies in. */
static Counter *
counter_of(CapBook *book, const CapUse *use, const CapStand *stand, CalendarPeriod period)
{
	CounterKey	key = {.member_id = stand->member_id,.rule_id = use->rule_id,.period = period,
	.from = calendar_period_start(stand->day, period)};
	Counter    *counter;
	int64		used;
	bool		found;

	if (book->counters == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(CounterKey),.entrysize = sizeof(Counter),.hcxt = book->context};

		book->counters = hash_create("loyalty caps", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	counter = hash_search(book->counters, &key, HASH_FIND, NULL);
	if (counter != NULL)
		return counter;
	/* read before it is entered: what fails must leave nothing half known */
	used = book->mode == CAPS_SIMULATE ? 0 : CapReadUsed(&key);
	counter = hash_search(book->counters, &key, HASH_ENTER, &found);
	counter->used = counter->stored = used;
	return counter;
}

/* Put how a use stands into its counters, or take it out of them. */
static void
count_use(CapBook *book, const CapUse *use, int sign)
{
	if (!use->now.there || !use->now.active || use->now.granted == 0)
		return;
	for (int period = 0; period < CALENDAR_PERIODS; period++)
	{
		if (use->cap[period] >= 0)
			counter_of(book, use, &use->now, period)->used += sign * use->now.granted;
	}
}

/* What the caps of a use leave, whose own points are not counted. */
static int64
left_of(CapBook *book, const CapUse *use)
{
	int64		left = PG_INT64_MAX;

	for (int period = 0; period < CALENDAR_PERIODS; period++)
	{
		if (use->cap[period] >= 0)
			left = Min(left, use->cap[period] - counter_of(book, use, &use->now, period)->used);
	}
	return Max(left, 0);
}

/* ------------------------------------------------------------------------
 * Budgets
 * ------------------------------------------------------------------------ */

/* Ask SQL for a number about a stock. */
static int64
ask_stock(const char *sql, int64 stock_id, int64 quantity, bool may_wait)
{
	Oid			types[3] = {INT8OID, INT8OID, BOOLOID};
	Datum		values[3] = {Int64GetDatum(stock_id), Int64GetDatum(quantity), BoolGetDatum(may_wait)};
	bool		isnull;
	int64		result;

	if (SPI_execute_with_args(sql, 3, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not reach stock " INT64_FORMAT, stock_id);
	result = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/* The purse of a budget, made where there is none. */
static Purse *
purse_of(CapBook *book, int64 stock_id)
{
	MemoryContext old;
	Purse	   *purse;
	ListCell   *cell;

	foreach(cell, book->purses)
	{
		purse = lfirst(cell);
		if (purse->stock_id == stock_id)
			return purse;
	}
	old = MemoryContextSwitchTo(book->context);
	purse = palloc0(sizeof(Purse));
	purse->stock_id = stock_id;
	book->purses = lappend(book->purses, purse);
	MemoryContextSwitchTo(old);
	return purse;
}

/*
 * Take so much from the shares of a budget, or all that there is.  A
 * transaction that holds a share of any budget waits for no other, or two
 * might wait for each other.
 */
static int64
take_shares(int64 stock_id, int64 wanted, bool may_wait)
{
	static TransactionId holder = InvalidTransactionId;
	TransactionId self = GetTopTransactionId();
	int64		taken = ask_stock("SELECT loyalty.take_budget($1, $2, $3)", stock_id, wanted,
								  may_wait && holder != self);

	holder = self;
	return taken;
}

/* Take so much for a use, from the purse first; the more often, the more is taken ahead. */
static int64
take_points(CapBook *book, int64 stock_id, int64 wanted)
{
	Purse	   *purse = purse_of(book, stock_id);

	if (purse->points < wanted)
	{
		purse->points += take_shares(stock_id, wanted - purse->points, true);
		if (purse->last > 0 && purse->points >= wanted)
			purse->points += take_shares(stock_id, Min(2 * purse->last, RESERVE_MOST), false);
		purse->last = Min(Max(wanted, 2 * purse->last), RESERVE_MOST);
	}
	wanted = Min(wanted, purse->points);
	purse->points -= wanted;
	return wanted;
}

/* Draw from the budget of a use until it has so many points, or all that there is; how many it has. */
static int64
draw_budget(CapBook *book, CapUse *use, int64 wanted, bool may_roll_back)
{
	if (wanted <= use->drawn)
		return wanted;
	if (book->mode == CAPS_QUOTE)
		return Min(wanted, use->drawn +
				   ask_stock("SELECT loyalty.stock_left($1) - $2 WHERE $3", use->stock_id, 0, true));
	/* what is rolled back with a decision must not come out of a purse */
	use->drawn += may_roll_back ? take_shares(use->stock_id, wanted - use->drawn, true) :
		take_points(book, use->stock_id, wanted - use->drawn);
	return Min(wanted, use->drawn);
}

/* Put what was drawn and is not used into the purse. */
static void
settle_budget(CapBook *book, CapUse *use)
{
	int64		needed = use->now.there && use->now.active && use->now.budgeted ? use->now.granted : 0;

	if (use->drawn <= needed || book->mode != CAPS_AWARD)
		return;
	purse_of(book, use->stock_id)->points += use->drawn - needed;
	use->drawn = needed;
}

/* Give back what is in the purses, much of it in parts, or one share would have it all. */
void
CapEmptyPurses(CapBook *book)
{
	ListCell   *cell;

	foreach(cell, book->purses)
	{
		Purse	   *purse = lfirst(cell);

		while (purse->points > 0)
		{
			int64		part = Max(purse->points / 16, Min(purse->points, 1000));

			(void) ask_stock("SELECT $2 FROM loyalty.give_stock($1, $2) WHERE $3", purse->stock_id,
							 part, true);
			purse->points -= part;
		}
	}
}

/* ------------------------------------------------------------------------
 * Deciding
 * ------------------------------------------------------------------------ */

/* Make room for one more use of an event. */
CapUse *
CapAddUse(EventCaps *caps)
{
	CapUse	   *use;

	if (caps->nuses == caps->size)
	{
		MemoryContext old = MemoryContextSwitchTo(caps->book->context);

		caps->size = caps->size == 0 ? 4 : caps->size * 2;
		caps->use = caps->use == NULL ? palloc(sizeof(CapUse) * caps->size) :
			repalloc(caps->use, sizeof(CapUse) * caps->size);
		MemoryContextSwitchTo(old);
	}
	use = &caps->use[caps->nuses++];
	memset(use, 0, sizeof(CapUse));
	return use;
}

/* The use of a rule version by an event, made where there is none. */
static CapUse *
use_of(EventCaps *caps, const Rule *rule)
{
	CapUse	   *use;

	for (int i = 0; i < caps->nuses; i++)
	{
		if (caps->use[i].version_id == rule->version_id)
			return &caps->use[i];
	}
	use = CapAddUse(caps);
	use->version_id = rule->version_id;
	use->rule_id = rule->rule_id;
	use->program_id = rule->program_id;
	memcpy(use->cap, rule->cap, sizeof(use->cap));
	use->stock_id = rule->stock_id;
	return use;
}

/*
 * Tell whether the same is decided again: then a rule is cut where it was, for
 * what rounding made of it fits into what others left, and nothing changes.
 */
static bool
is_repeated(const CapUse *use, Numeric exact)
{
	return use->stored.there && use->now.member_id == use->stored.member_id && use->now.day == use->stored.day &&
		DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(exact), NumericGetDatum(use->stored.wanted))) == 0;
}

/* Keep a number for as long as the book. */
Numeric
CapKeepNumber(const CapBook *book, Numeric value)
{
	MemoryContext old = MemoryContextSwitchTo(book->context);
	Numeric		copy = DatumGetNumericCopy(NumericGetDatum(value));

	MemoryContextSwitchTo(old);
	return copy;
}

/* Tell to how much what a rule wants to give is cut, and reserve what it may be credited with. */
static int64
reserve(EarnCaps *base, const Program *program, const Rule *rule, TimestampTz known_at,
		Numeric exact, int64 wanted, int64 *limit)
{
	EventCaps  *caps = (EventCaps *) base;
	CapUse	   *use = use_of(caps, rule);
	int64		granted;
	int64		level;

	count_use(caps->book, use, -1);
	if (!use->now.there && !use->stored.there)
	{
		use->now.active = true;
		use->now.budgeted = rule->stock_id != 0 && known_at >= rule->budget_since &&
			caps->book->mode != CAPS_SIMULATE;
	}
	else if (!use->now.there)
		use->now = use->stored;
	use->now.there = true;
	use->now.member_id = caps->event->member_id;
	use->now.day = ProgramDay(program, caps->event->occurred_at);
	granted = Min(wanted, left_of(caps->book, use));
	if (!use->now.active)
		/* what came back whole was given back, and what it had gave stays as it is */
		granted = Min(wanted, Max(granted, use->stored.granted));
	else if (use->now.budgeted)
		granted = draw_budget(caps->book, use, granted, program->hold_on_error);
	level = granted;
	if (is_repeated(use, exact))
		level = use->stored.allowed < 0 ? wanted : Max(level, Min(wanted, use->stored.allowed));
	use->now.granted = *limit = granted;
	use->now.wanted = CapKeepNumber(caps->book, exact);
	use->now.allowed = level < wanted ? level : -1;
	count_use(caps->book, use, 1);
	return level;
}

/* Let capped rules be counted for an event. */
void
CapsAttach(CapBook *book, Event *event)
{
	MemoryContext old = MemoryContextSwitchTo(book->context);
	EventCaps  *caps = palloc0(sizeof(EventCaps));

	caps->base.room = reserve;
	caps->book = book;
	caps->event = event;
	event->caps = &caps->base;
	if (book->mode == CAPS_AWARD)
		book->events = lappend(book->events, caps);
	MemoryContextSwitchTo(old);
}

/* ------------------------------------------------------------------------
 * Settling
 * ------------------------------------------------------------------------ */

/* Let a use stand otherwise. */
static void
restand(CapBook *book, CapUse *use, const CapStand *stand)
{
	count_use(book, use, -1);
	use->now = *stand;
	count_use(book, use, 1);
	settle_budget(book, use);
}

/* The points that a breakdown credits to a rule version; false where it had no part. */
static bool
points_of(const Breakdown *breakdown, int32 version_id, int64 *points)
{
	*points = 0;
	for (int i = 0; i < breakdown->nrules; i++)
	{
		if (breakdown->rule[i].id != version_id)
			continue;
		*points = Max(breakdown->rule[i].points, 0);
		return true;
	}
	return false;
}

/*
 * Count what an event was given by the rules of a programme, in the end; where
 * nothing was posted the entries say what they said, and so do the counters.
 */
void
CapsSettle(Event *event, const Program *program, const Breakdown *given, bool posted)
{
	EventCaps  *caps = (EventCaps *) event->caps;

	for (int i = 0; caps != NULL && i < caps->nuses; i++)
	{
		CapUse	   *use = &caps->use[i];
		CapStand	stand = use->now;
		bool		part = points_of(given, use->version_id, &stand.granted);

		if (use->program_id != program->program_id)
			continue;
		/* what was given nothing is kept too: cut, for who asks why; uncut, to be decided like that again */
		stand.there = stand.there && part;
		if (!posted && (!part || stand.granted != use->stored.granted))
			stand = use->stored;
		restand(caps->book, use, &stand);
	}
}

/* Forget what a decision reserved that was rolled back, with what it drew from budgets. */
void
CapsForget(Event *event, const Program *program)
{
	EventCaps  *caps = (EventCaps *) event->caps;

	for (int i = 0; caps != NULL && i < caps->nuses; i++)
	{
		CapUse	   *use = &caps->use[i];

		if (use->program_id != program->program_id)
			continue;
		use->drawn = use->stored.there && use->stored.active && use->stored.budgeted ? use->stored.granted : 0;
		restand(caps->book, use, &use->stored);
	}
}

/* An event gives nothing any more to whom it was counted for. */
void
CapsLeave(Event *event, const Program *program)
{
	EventCaps  *caps = (EventCaps *) event->caps;
	CapStand	nothing = {0};

	for (int i = 0; caps != NULL && i < caps->nuses; i++)
	{
		CapUse	   *use = &caps->use[i];

		if (use->program_id == program->program_id &&
			(event->is_void || !event->has_member || use->now.member_id != event->member_id))
			restand(caps->book, use, &nothing);
	}
}

/* All of a purchase came back: what it used is given back, once and for ever. */
void
CapsGiveBack(Event *event, const Program *program)
{
	EventCaps  *caps = (EventCaps *) event->caps;

	for (int i = 0; caps != NULL && i < caps->nuses; i++)
	{
		CapUse	   *use = &caps->use[i];
		CapStand	stand = use->now;

		if (use->program_id != program->program_id || !stand.there)
			continue;
		stand.active = false;
		restand(caps->book, use, &stand);
	}
}
