/*
 * cap.c
 *	  Caps and budgets of rules: counted in memory for a chunk of events, read
 *	  when a capped rule first asks, written back once.
 *
 * Owns cap_state and cap_use.  A counter is of one member: whoever touches it
 * holds the lock of that member's account, so the counters need none of their
 * own; that a transaction with an old snapshot does not see them is found when
 * it writes them.  A budget's shares are taken from at once, in SQL.
 *
 * What counts is what was posted: the points of the rule in the breakdowns of
 * a source's entries.  A decision reserves, the posting settles.
 */
#include "cap.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "columns.h"
#include "compat.h"

/* How a rule's points for one source stand in the counters */
typedef struct CapStand
{
	bool		there;
	int64		member_id;
	int32		day;
	int64		granted;		/* smallest units */
	bool		active;			/* it counts; false: given back with the whole purchase */
	bool		budgeted;		/* it is of the rule's budget */
	Numeric		wanted;			/* exactly */
	int64		allowed;		/* what was left where more was wanted; -1: all was */
} CapStand;

/* What a source used of one version of a capped rule */
typedef struct CapUse
{
	int32		version_id;
	int32		rule_id;
	int32		program_id;
	int64		cap[CALENDAR_PERIODS];	/* -1: none */
	int64		stock_id;		/* 0: none */
	int64		drawn;			/* from the shares of the budget, for now.granted */
	CapStand	stored;			/* as its row says */
	CapStand	now;			/* as the counters in memory say */
} CapUse;

/* What capped rules have to do with one event */
typedef struct EventCaps
{
	EarnCaps	base;
	CapBook    *book;
	Event	   *event;
	int			nuses;
	int			size;
	CapUse	   *use;
} EventCaps;

/* A counter: what a rule gave to a member in a period */
typedef struct CounterKey
{
	int64		member_id;
	int32		rule_id;
	int32		period;
	int32		from;
	int32		padding;
} CounterKey;

typedef struct Counter
{
	CounterKey	key;
	int64		used;
	int64		stored;
} Counter;

struct CapBook
{
	CapMode		mode;
	MemoryContext context;
	List	   *events;			/* of EventCaps */
	HTAB	   *counters;		/* NULL: none was asked for */
};

static const char *const period_name[CALENDAR_PERIODS] = {"day", "week", "month", "year", "ever"};

static KeptPlan read_counter = {"SELECT s.used FROM loyalty.cap_state s"
	" JOIN ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) u (rule_id, period, member_id, from_day)"
	" ON s.rule_id = u.rule_id AND s.period = u.period AND s.member_id = u.member_id AND s.from_day = u.from_day"};
static KeptPlan write_counters = {"INSERT INTO loyalty.cap_state AS s (rule_id, period, member_id, from_day, used)"
	" SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5)) u"
	" ON CONFLICT (rule_id, period, member_id, from_day) DO UPDATE SET used = excluded.used"};
static KeptPlan read_uses = {"SELECT u.source_id, u.rule_version_id, v.rule_id, r.program_id,"
	" loyalty.cap_units(v.caps, p.points_scale), b.stock_id, u.member_id, u.day, u.granted, u.active, u.budgeted, u.allowed, u.wanted"
	" FROM loyalty.cap_use u JOIN loyalty.rule_version v USING (rule_version_id) JOIN loyalty.rule r USING (rule_id)"
	" JOIN loyalty.program p USING (program_id) LEFT JOIN loyalty.rule_budget b USING (rule_id)"
	" WHERE u.source_id = ANY ($1) ORDER BY u.source_id, u.rule_version_id"};
static KeptPlan write_uses = {"INSERT INTO loyalty.cap_use AS w (source_id, rule_version_id, member_id, day, granted, active, budgeted, allowed, wanted)"
	" SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),"
	" pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9)) u"
	" ON CONFLICT (source_id, rule_version_id) DO UPDATE SET member_id = excluded.member_id, day = excluded.day,"
	" granted = excluded.granted, active = excluded.active, budgeted = excluded.budgeted, allowed = excluded.allowed, wanted = excluded.wanted"};
static KeptPlan remove_uses = {"DELETE FROM loyalty.cap_use w"
	" USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u (source_id, rule_version_id)"
	" WHERE w.source_id = u.source_id AND w.rule_version_id = u.rule_version_id"};

/* ------------------------------------------------------------------------
 * The gate
 * ------------------------------------------------------------------------ */

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

/* The key of a counter as arguments. */
static void
key_columns(Columns *columns, const CounterKey *key)
{
	ColumnsPut(columns, 0, Int32GetDatum(key->rule_id));
	ColumnsPut(columns, 1, CStringGetTextDatum(period_name[key->period]));
	ColumnsPut(columns, 2, Int64GetDatum(key->member_id));
	ColumnsPut(columns, 3, DateADTGetDatum(key->from));
}

/* What a counter stands at in its row. */
static int64
read_used(const CounterKey *key)
{
	static const Oid types[4] = {INT4OID, TEXTOID, INT8OID, DATEOID};
	Columns		columns;
	bool		isnull;
	int64		used = 0;

	ColumnsInit(&columns, 1, 4, types);
	key_columns(&columns, key);
	columns.n = 1;
	ColumnsRun(&read_counter, &columns, SPI_OK_SELECT);
	if (SPI_processed > 0)
		used = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return used;
}

/* The counter of a rule, a member and the period that a day lies in. */
static Counter *
counter_of(CapBook *book, const CapUse *use, const CapStand *stand, CalendarPeriod period)
{
	CounterKey	key = {.member_id = stand->member_id,.rule_id = use->rule_id,.period = period,
	.from = calendar_period_start(stand->day, period)};
	Counter    *counter;
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
	{
		int64		used = book->mode == CAPS_SIMULATE ? 0 : read_used(&key);

		counter = hash_search(book->counters, &key, HASH_ENTER, &found);
		counter->used = counter->stored = used;
	}
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

/*
 * Draw from the budget of a use until it has so many points, or all that there
 * is; how many it has.  A transaction that holds a share of any budget waits
 * for no other, or two might wait for each other.
 */
static int64
draw_budget(const CapBook *book, CapUse *use, int64 wanted)
{
	static TransactionId holder = InvalidTransactionId;
	TransactionId self;

	if (wanted <= use->drawn)
		return wanted;
	if (book->mode == CAPS_QUOTE)
		return Min(wanted, use->drawn +
				   ask_stock("SELECT loyalty.stock_left($1) - $2 WHERE $3", use->stock_id, 0, true));
	self = GetTopTransactionId();
	use->drawn += ask_stock("SELECT loyalty.take_budget($1, $2, $3)", use->stock_id,
							wanted - use->drawn, holder != self);
	holder = self;
	return Min(wanted, use->drawn);
}

/* Give back what was drawn and is not used. */
static void
settle_budget(const CapBook *book, CapUse *use)
{
	int64		needed = use->now.there && use->now.active && use->now.budgeted ? use->now.granted : 0;

	if (use->drawn <= needed || book->mode != CAPS_AWARD)
		return;
	(void) ask_stock("SELECT $2 FROM loyalty.give_stock($1, $2) WHERE $3", use->stock_id,
					 use->drawn - needed, true);
	use->drawn = needed;
}

/* ------------------------------------------------------------------------
 * Deciding
 * ------------------------------------------------------------------------ */

/* Make room for one more use of an event. */
static CapUse *
add_use(EventCaps *caps)
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
	use = add_use(caps);
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
static Numeric
keep_number(const CapBook *book, Numeric value)
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
		granted = draw_budget(caps->book, use, granted);
	level = granted;
	if (is_repeated(use, exact))
		level = use->stored.allowed < 0 ? wanted : Max(level, Min(wanted, use->stored.allowed));
	use->now.granted = *limit = granted;
	use->now.wanted = keep_number(caps->book, exact);
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

/* ------------------------------------------------------------------------
 * Rows of uses
 * ------------------------------------------------------------------------ */

/* An integer of a row of a result, otherwise where it is null. */
static int64
number_at(SPITupleTable *table, uint64 row, int column, int64 otherwise)
{
	bool		isnull;
	Datum		value = SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull);

	if (isnull)
		return otherwise;
	switch (SPI_gettypeid(table->tupdesc, column))
	{
		case BOOLOID:
			return DatumGetBool(value);
		case INT8OID:
			return DatumGetInt64(value);
		default:
			return DatumGetInt32(value);	/* or a date */
	}
}

/* The caps of a version, of a row of a result. */
static void
caps_at(SPITupleTable *table, uint64 row, int column, int64 *cap)
{
	bool		isnull;
	Datum		value = SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull);
	Datum	   *values;
	bool	   *nulls;
	int			n = 0;

	if (!isnull)
		deconstruct_array(DatumGetArrayTypeP(value), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &values, &nulls, &n);
	for (int period = 0; period < CALENDAR_PERIODS; period++)
		cap[period] = period >= n || nulls[period] ? -1 : DatumGetInt64(values[period]);
}

/* Take one use of an event from its row. */
static void
take_use(EventCaps *caps, SPITupleTable *table, uint64 row)
{
	CapUse	   *use = add_use(caps);
	CapStand   *stored = &use->stored;
	bool		isnull;

	use->version_id = (int32) number_at(table, row, 2, 0);
	use->rule_id = (int32) number_at(table, row, 3, 0);
	use->program_id = (int32) number_at(table, row, 4, 0);
	caps_at(table, row, 5, use->cap);
	use->stock_id = number_at(table, row, 6, 0);
	stored->there = true;
	stored->member_id = number_at(table, row, 7, 0);
	stored->day = (int32) number_at(table, row, 8, 0);
	stored->granted = number_at(table, row, 9, 0);
	stored->active = number_at(table, row, 10, 0) != 0;
	stored->budgeted = number_at(table, row, 11, 0) != 0;
	stored->allowed = number_at(table, row, 12, -1);
	stored->wanted = keep_number(caps->book, DatumGetNumeric(SPI_getbinval(table->vals[row], table->tupdesc, 13, &isnull)));
	use->now = *stored;
	use->drawn = stored->active && stored->budgeted ? stored->granted : 0;
}

/* The first row of a source, or of those after it. */
static uint64
first_row(SPITupleTable *table, uint64 count, int64 source_id)
{
	uint64		first = 0;
	uint64		last = count;

	while (first < last)
	{
		uint64		middle = (first + last) / 2;

		if (number_at(table, middle, 1, 0) < source_id)
			first = middle + 1;
		else
			last = middle;
	}
	return first;
}

/* Read what sources used so far into the events of a book. */
void
CapsReadOld(CapBook *book, const int64 *sources, int n)
{
	static const Oid type = INT8OID;
	Columns		columns;
	SPITupleTable *table;
	uint64		count;
	ListCell   *cell;

	ColumnsInit(&columns, n, 1, &type);
	for (int i = 0; i < n; i++)
	{
		ColumnsPut(&columns, 0, Int64GetDatum(sources[i]));
		columns.n++;
	}
	ColumnsRun(&read_uses, &columns, SPI_OK_SELECT);
	table = SPI_tuptable;
	count = SPI_processed;
	foreach(cell, book->events)
	{
		EventCaps  *caps = lfirst(cell);
		uint64		row = first_row(table, count, caps->event->source_id);

		for (; row < count && number_at(table, row, 1, 0) == caps->event->source_id; row++)
			take_use(caps, table, row);
	}
	SPI_freetuptable(table);
}

/* Open a book for one event that may have used something; NULL where no rule has caps. */
CapBook *
CapsOpenFor(Event *event)
{
	CapBook    *book;

	if (!CapsExist())
		return NULL;
	book = CapsOpen(CAPS_AWARD);
	CapsAttach(book, event);
	CapsReadOld(book, &event->source_id, 1);
	return book;
}

/* Tell whether a use stands otherwise than its row says. */
static bool
use_changed(const CapUse *use)
{
	const CapStand *a = &use->now;
	const CapStand *b = &use->stored;

	if (!a->there || !b->there)
		return a->there != b->there;
	return a->member_id != b->member_id || a->day != b->day || a->granted != b->granted ||
		a->active != b->active || a->budgeted != b->budgeted || a->allowed != b->allowed ||
		DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a->wanted), NumericGetDatum(b->wanted))) != 0;
}

/* Add a use to the rows to be written. */
static void
put_use(Columns *columns, int64 source_id, const CapUse *use)
{
	ColumnsPut(columns, 0, Int64GetDatum(source_id));
	ColumnsPut(columns, 1, Int32GetDatum(use->version_id));
	ColumnsPut(columns, 2, Int64GetDatum(use->now.member_id));
	ColumnsPut(columns, 3, DateADTGetDatum(use->now.day));
	ColumnsPut(columns, 4, Int64GetDatum(use->now.granted));
	ColumnsPut(columns, 5, BoolGetDatum(use->now.active));
	ColumnsPut(columns, 6, BoolGetDatum(use->now.budgeted));
	ColumnsPut(columns, 7, Int64GetDatum(use->now.allowed));
	columns->isnull[7][columns->n] = use->now.allowed < 0;
	ColumnsPut(columns, 8, NumericGetDatum(use->now.wanted));
	columns->n++;
}

/* Write the uses that changed. */
static void
flush_uses(CapBook *book)
{
	static const Oid types[9] = {INT8OID, INT4OID, INT8OID, DATEOID, INT8OID, BOOLOID, BOOLOID, INT8OID, NUMERICOID};
	Columns		written;
	Columns		removed;
	ListCell   *cell;
	int			size = 0;

	foreach(cell, book->events)
		size += ((EventCaps *) lfirst(cell))->nuses;
	ColumnsInit(&written, size, 9, types);
	ColumnsInit(&removed, size, 2, types);
	foreach(cell, book->events)
	{
		const EventCaps *caps = lfirst(cell);

		for (int i = 0; i < caps->nuses; i++)
		{
			CapUse	   *use = &caps->use[i];

			if (!use_changed(use))
				continue;
			if (use->now.there)
				put_use(&written, caps->event->source_id, use);
			else
			{
				ColumnsPut(&removed, 0, Int64GetDatum(caps->event->source_id));
				ColumnsPut(&removed, 1, Int32GetDatum(use->version_id));
				removed.n++;
			}
			use->stored = use->now;
		}
	}
	if (written.n > 0)
		ColumnsRun(&write_uses, &written, SPI_OK_INSERT);
	if (removed.n > 0)
		ColumnsRun(&remove_uses, &removed, SPI_OK_DELETE);
}

/* Write the counters that changed. */
static void
flush_counters(CapBook *book)
{
	static const Oid types[5] = {INT4OID, TEXTOID, INT8OID, DATEOID, INT8OID};
	HASH_SEQ_STATUS status;
	Columns		columns;
	Counter    *counter;

	if (book->counters == NULL)
		return;
	ColumnsInit(&columns, (int) hash_get_num_entries(book->counters), 5, types);
	hash_seq_init(&status, book->counters);
	while ((counter = hash_seq_search(&status)) != NULL)
	{
		if (counter->used == counter->stored)
			continue;
		key_columns(&columns, &counter->key);
		ColumnsPut(&columns, 4, Int64GetDatum(counter->used));
		columns.n++;
		counter->stored = counter->used;
	}
	if (columns.n > 0)
		ColumnsRun(&write_counters, &columns, SPI_OK_INSERT);
}

/* Write all that changed. */
void
CapsFlush(CapBook *book)
{
	flush_uses(book);
	flush_counters(book);
}
