/*
 * program.c
 *	  Snapshots of programmes, one a backend and programme, kept until the
 *	  configuration changes.
 *
 * Owns: the cache of programmes and the one relcache callback of the library.  A
 * statement trigger on every configuration table sends a relcache message
 * about itself; the callback here only marks snapshots stale, and the next
 * pin loads anew.  A statement that holds a pin keeps the snapshot it has.
 * Reads through SPI, never writes, knows nothing of the ledger.
 */
#include "program.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "errors.h"

/* Rules that demand a value of one fact, by that value */
typedef struct RuleColumn
{
	int			fact;
	Oid			type;
	uint32		mask;
	struct RuleBucket *bucket;
} RuleColumn;

typedef struct RuleBucket
{
	bool		used;
	Datum		value;
	int			nrules;
	int		   *rules;
} RuleBucket;

static Program *programs[64];	/* newest snapshot of each programme seen */
static int	nprograms = 0;
static Program *orphans = NULL; /* dropped from the cache while somebody used them */
static Oid	watched[16];			/* the configuration tables */
static int	nwatched = 0;
static uint64 generation = 0;	/* of the configuration */
static uint64 relcache_generation = 0;	/* of anything */

/* Mark what was cached as stale; may run in the middle of any catalogue access. */
static void
on_relcache_change(Datum arg, Oid relid)
{
	bool		ours = relid == InvalidOid || nwatched == 0;

	relcache_generation++;
	for (int i = 0; i < nwatched && !ours; i++)
		ours = watched[i] == relid;
	if (!ours)
		return;
	generation++;
	for (int i = 0; i < nprograms; i++)
		programs[i]->stale = true;
}

/* A number that changes whenever the configuration may have changed. */
uint64
ProgramGeneration(void)
{
	return generation;
}

/* A number that changes whenever any relation's definition may have changed. */
uint64
ProgramRelcacheGeneration(void)
{
	return relcache_generation;
}

/* At the end of a transaction nobody uses a snapshot any more, also after an error. */
static void
on_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	for (int i = 0; i < nprograms; i++)
		programs[i]->pins = 0;
	while (orphans != NULL)
	{
		Program    *program = orphans;

		orphans = program->next_orphan;
		ProgramFree(program);
	}
}

/* Register the callbacks of this library. */
void
ProgramInit(void)
{
	CacheRegisterRelcacheCallback(on_relcache_change, (Datum) 0);
	RegisterXactCallback(on_transaction_end, NULL);
}

PG_FUNCTION_INFO_V1(loyalty_configuration_changed);

/* Statement trigger on the configuration tables: tell every backend. */
Datum
loyalty_configuration_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("\"%s\" must be called as a trigger", "configuration_changed")));
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
	return PointerGetDatum(NULL);
}

/* Find a relation of our schema. */
static Oid
our_relation(const char *name)
{
	Oid			oid = get_relname_relid(name, get_namespace_oid("loyalty", false));

	if (!OidIsValid(oid))
		elog(ERROR, "relation loyalty.%s is missing", name);
	return oid;
}

/* Learn the oids of the configuration tables. */
static void
watch_tables(void)
{
	static const char *const names[] = {
		"program", "tier", "product", "rule", "rule_version", "exchange_rate", "stamp_card",
		"challenge", "referral_policy", "activity_policy", "cashier",
		"velocity_limit", "rule_budget"
	};

	for (size_t i = 0; i < lengthof(names); i++)
		watched[i] = our_relation(names[i]);
	nwatched = lengthof(names);
}

/* The scope of named rows that every expression is compiled in. */
static ExpressionScope *
make_scope(MemoryContext context)
{
	static const char *const type[ROW_COUNT] = {
		"member_facts", "purchase_facts", "line_facts", "product_facts", "activity_facts",
		"redemption_facts"
	};
	static const char *const name[ROW_COUNT] = {
		"member", "purchase", "line", "product", "activity", "redemption"
	};
	ExpressionRow rows[ROW_COUNT];
	ExpressionScope *scope;

	for (int i = 0; i < ROW_COUNT; i++)
	{
		rows[i].name = name[i];
		rows[i].relid = our_relation(type[i]);
	}
	scope = ExpressionScopeCreate(context, rows, ROW_COUNT);
	if (scope->tupdesc->natts != FACT_COUNT ||
		scope->first[ROW_PURCHASE] != FACT_PURCHASE_OCCURRED_AT ||
		scope->first[ROW_LINE] != FACT_LINE_SKU ||
		scope->first[ROW_PRODUCT] != FACT_PRODUCT_SKU ||
		scope->first[ROW_ACTIVITY] != FACT_ACTIVITY_KIND ||
		scope->first[ROW_REDEMPTION] != FACT_REDEMPTION_OPERATION)
		elog(ERROR, "the vocabulary of rules is not the one that this library knows");
	return scope;
}

/* Which named rows a rule of an event may use. */
static uint32
visible_rows(RuleEvent event)
{
	switch (event)
	{
		case ON_PURCHASE:
			return 1 << ROW_MEMBER | 1 << ROW_PURCHASE;
		case ON_LINE:
			return 1 << ROW_MEMBER | 1 << ROW_PURCHASE | 1 << ROW_LINE | 1 << ROW_PRODUCT;
		case ON_ACTIVITY:
			return 1 << ROW_MEMBER | 1 << ROW_ACTIVITY;
		case ON_REDEMPTION:
			return 1 << ROW_MEMBER | 1 << ROW_REDEMPTION;
	}
	return 0;
}

/* Which named rows a stamp card may use: none that its own stamps or other purchases change. */
#define CARD_ROWS	(1 << ROW_PURCHASE | 1 << ROW_LINE | 1 << ROW_PRODUCT)

/* ------------------------------------------------------------------------
 * Reading rows of a configuration query
 * ------------------------------------------------------------------------ */

/* A column of a row of the last SPI result as text, NULL where it is null. */
static char *
column_text(int row, const char *name)
{
	int			number = SPI_fnumber(SPI_tuptable->tupdesc, name);

	if (number == SPI_ERROR_NOATTRIBUTE)
		elog(ERROR, "column \"%s\" is missing", name);
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number);
}

/* A column by its datum. */
static Datum
column_datum(int row, const char *name, bool *isnull)
{
	int			number = SPI_fnumber(SPI_tuptable->tupdesc, name);

	if (number == SPI_ERROR_NOATTRIBUTE)
		elog(ERROR, "column \"%s\" is missing", name);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}

static int32
column_int32(int row, const char *name)
{
	bool		isnull;
	Datum		value = column_datum(row, name, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static bool
column_bool(int row, const char *name)
{
	bool		isnull;
	Datum		value = column_datum(row, name, &isnull);

	return !isnull && DatumGetBool(value);
}

static TimestampTz
column_time(int row, const char *name, TimestampTz otherwise)
{
	bool		isnull;
	Datum		value = column_datum(row, name, &isnull);

	return isnull ? otherwise : DatumGetTimestampTz(value);
}

/* The position of a word in a list. */
static int
word_index(const char *word, const char *const *words)
{
	for (int i = 0; words[i] != NULL; i++)
	{
		if (strcmp(word, words[i]) == 0)
			return i;
	}
	elog(ERROR, "unexpected configuration value \"%s\"", word);
}

#define WORD(row, name, ...) \
	word_index(column_text(row, name), (const char *const []) {__VA_ARGS__, NULL})

/* Run a query about one programme; results stay in SPI_tuptable. */
static uint64
query_program(const char *sql, int32 program_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(program_id);

	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the configuration");
	return SPI_processed;
}

/* A number that the programme keeps, NULL where it does not say. */
static Numeric
load_numeric(Program *program, const char *name)
{
	bool		isnull;
	Datum		value = column_datum(0, name, &isnull);
	MemoryContext old;
	Numeric		copy;

	if (isnull)
		return NULL;
	old = MemoryContextSwitchTo(program->context);
	copy = DatumGetNumericCopy(value);
	MemoryContextSwitchTo(old);
	return copy;
}

/* A count of points, otherwise where it is null. */
static int64
column_points(int row, const char *name, int64 otherwise)
{
	bool		isnull;
	Datum		value = column_datum(row, name, &isnull);

	return isnull ? otherwise : DatumGetInt64(value);
}

/* Read the policies. */
static void
load_policies(Program *program)
{
	char	   *fixed_day;

	if (query_program("SELECT *, point_value * 0.1::pg_catalog.numeric ^ points_scale AS unit_value"
					  " FROM loyalty.program WHERE program_id = $1",
					  program->program_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_PROGRAM),
				 errmsg("programme %d does not exist", program->program_id),
				 errhint("loyalty.create_program makes one.")));
	program->name = MemoryContextStrdup(program->context, column_text(0, "name"));
	program->wallet_of = column_text(0, "wallet_of") == NULL ? 0 : column_int32(0, "wallet_of");
	program->catalog_id = program->wallet_of != 0 ? program->wallet_of : program->program_id;
	program->created_at = column_time(0, "created_at", DT_NOBEGIN);
	program->zone = pg_tzset(column_text(0, "time_zone"));
	if (program->zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_PROGRAM),
				 errmsg("time zone \"%s\" of programme \"%s\" is not known",
						column_text(0, "time_zone"), program->name)));
	snprintf(program->currency, sizeof(program->currency), "%s", column_text(0, "currency"));
	program->points_scale = atoi(column_text(0, "points_scale"));
	program->hold_days = column_int32(0, "hold_days");
	program->pending_release = WORD(0, "pending", "days", "release") == 1;
	program->expiry.kind = WORD(0, "expiry", "never", "after", "fixed_day", "sliding");
	program->expiry.months = column_int32(0, "expiry_months");
	program->expiry.days = column_int32(0, "expiry_days");
	program->expiry.rounding = WORD(0, "expiry_round", "day", "month", "year");
	fixed_day = column_text(0, "expiry_fixed_day");
	if (fixed_day != NULL)
	{
		program->expiry.fixed_month = atoi(fixed_day);
		program->expiry.fixed_day = atoi(fixed_day + 3);
	}
	program->rounding = WORD(0, "rounding", "floor", "nearest", "ceil");
	program->best_multiplier = WORD(0, "multipliers", "product", "best") == 1;
	program->earn_on_tax = column_bool(0, "earn_on_tax");
	program->earn_on_shipping = column_bool(0, "earn_on_shipping");
	program->earn_on_gift_card = column_bool(0, "earn_on_gift_card");
	program->earn_on_points = column_bool(0, "earn_on_points");
	program->negative = WORD(0, "negative", "forbid", "clamp", "allow");
	program->negative_limit = column_points(0, "negative_limit", -1);
	program->restore = WORD(0, "restore", "grace", "expired");
	program->restore_days = column_int32(0, "restore_days");
	program->reinstate_days = column_int32(0, "reinstate_days");
	program->redeem_min = column_points(0, "redeem_min", 1);
	program->redeem_step = column_points(0, "redeem_step", 1);
	program->redeem_max = column_points(0, "redeem_max", -1);
	program->transfer_max = column_points(0, "transfer_max", -1);
	program->household_max = column_text(0, "household_max") == NULL ? 0 : column_int32(0, "household_max");
	program->proof_above = column_points(0, "proof_above", -1);
	program->limits_cashiers = column_text(0, "cashier_points_max") != NULL ||
		column_text(0, "cashier_redemptions_max") != NULL;
	program->point_value = load_numeric(program, "point_value");
	program->unit_value = load_numeric(program, "unit_value");
	program->currency_digits = currency_digits(program->currency);
	program->hold_on_error = WORD(0, "on_rule_error", "fail", "hold") == 1;
	program->tier_policy.window =
		WORD(0, "tier_window", "calendar", "rolling", "anniversary", "lifetime");
	program->tier_policy.months = column_int32(0, "tier_months");
	program->tier_policy.downgrade = WORD(0, "downgrade", "none", "one_step", "requalify");
	program->tier_policy.grace_days = column_int32(0, "grace_days");
	program->tier_policy.revoke_days = column_int32(0, "revoke_days");
}

/* Read the tiers; thresholds become whole numbers of the metric's smallest unit. */
static void
load_tiers(Program *program)
{
	MemoryContext old;

	program->ntiers = (int)
		query_program("SELECT t.tier_id, t.rank, t.name, t.metric, t.multiplier,"
					  " t.negative_limit, t.reinstate_days,"
					  " pg_catalog.ceil(t.threshold * CASE t.metric WHEN 'spend' THEN 10000"
					  "  WHEN 'points' THEN 10::pg_catalog.numeric ^ p.points_scale ELSE 1 END)"
					  "  ::pg_catalog.int8 AS threshold"
					  " FROM loyalty.tier t JOIN loyalty.program p USING (program_id)"
					  " WHERE t.program_id = $1 ORDER BY t.rank",
					  program->program_id);
	old = MemoryContextSwitchTo(program->context);
	program->tier = palloc0(sizeof(Tier) * Max(program->ntiers, 1));
	program->tier_info = palloc0(sizeof(ProgramTier) * Max(program->ntiers, 1));
	for (int i = 0; i < program->ntiers; i++)
	{
		Tier	   *tier = &program->tier[i];
		ProgramTier *info = &program->tier_info[i];
		bool		isnull;
		Datum		multiplier = column_datum(i, "multiplier", &isnull);

		tier->tier_id = column_int32(i, "tier_id");
		tier->rank = column_int32(i, "rank");
		tier->metric = WORD(i, "metric", "points", "spend", "visits");
		tier->threshold = DatumGetInt64(column_datum(i, "threshold", &isnull));
		info->name = pstrdup(column_text(i, "name"));
		info->name_datum = CStringGetTextDatum(info->name);
		info->multiplier = DatumGetNumericCopy(multiplier);
		info->negative_limit = column_points(i, "negative_limit", program->negative_limit);
		info->reinstate_days = column_text(i, "reinstate_days") == NULL ?
			program->reinstate_days : column_int32(i, "reinstate_days");
		info->multiplies =
			!DatumGetBool(DirectFunctionCall2(numeric_eq, multiplier,
											  NumericGetDatum(int64_to_numeric(1))));
	}
	MemoryContextSwitchTo(old);
}

/* The number of an exclusive group, from 1. */
static int
group_number(List **groups, const char *group)
{
	ListCell   *cell;

	if (group == NULL)
		return 0;
	foreach(cell, *groups)
	{
		if (strcmp(lfirst(cell), group) == 0)
			return foreach_current_index(cell) + 1;
	}
	*groups = lappend(*groups, pstrdup(group));
	return list_length(*groups);
}

/* The event of a word. */
static RuleEvent
event_of(const char *event)
{
	if (strcmp(event, "purchase") == 0)
		return ON_PURCHASE;
	if (strcmp(event, "line") == 0)
		return ON_LINE;
	if (strcmp(event, "activity") == 0)
		return ON_ACTIVITY;
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_RULE),
			 errmsg("\"%s\" is not an event", event),
			 errhint("Events are purchase, line and activity.")));
}

/* The kind of a word. */
static RuleKind
kind_of(const char *kind)
{
	if (strcmp(kind, "base") == 0)
		return RULE_BASE;
	if (strcmp(kind, "multiply") == 0)
		return RULE_MULTIPLY;
	if (strcmp(kind, "bonus") == 0)
		return RULE_BONUS;
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_RULE),
			 errmsg("\"%s\" is not a kind of rule", kind),
			 errhint("Kinds are base, multiply and bonus.")));
}

/* Learn which wallets the programme has. */
static void
load_wallets(Program *program)
{
	uint64		n = query_program("SELECT program_id FROM loyalty.program WHERE wallet_of = $1 ORDER BY 1",
								  program->program_id);

	program->nwallets = (int) n;
	program->wallet = MemoryContextAlloc(program->context, sizeof(int32) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		program->wallet[i] = column_int32((int) i, "program_id");
}

/* Read the caps and the budget of a rule. */
static void
load_caps(Rule *rule, int row)
{
	bool		isnull;
	Datum		caps = column_datum(row, "caps", &isnull);
	Datum	   *values;
	bool	   *nulls;
	int			n = 0;

	if (!isnull)
		deconstruct_array(DatumGetArrayTypeP(caps), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &values, &nulls, &n);
	for (int period = 0; period < CALENDAR_PERIODS; period++)
	{
		rule->cap[period] = period >= n || nulls[period] ? -1 : DatumGetInt64(values[period]);
		rule->capped |= rule->cap[period] >= 0;
	}
	rule->stock_id = column_points(row, "stock_id", 0);
	rule->budget_since = column_time(row, "budget_since", DT_NOEND);
	rule->capped |= rule->stock_id != 0;
}

/* Compile one rule from a row of the last result. */
static Rule *
load_rule(Program *program, ExpressionScope *scope, int row, List **groups)
{
	Rule	   *rule = MemoryContextAllocZero(program->context, sizeof(Rule));
	char	   *kind = column_text(row, "kind");
	char	   *points = column_text(row, "points");
	char	   *condition = column_text(row, "condition");
	char	   *owner;
	uint32		visible;

	rule->rule_id = column_int32(row, "rule_id");
	rule->program_id = program->program_id;
	rule->version_id = column_int32(row, "rule_version_id");
	rule->version = column_int32(row, "version");
	rule->name = MemoryContextStrdup(program->context, column_text(row, "name"));
	if (kind == NULL || points == NULL)	/* a draft comes unchecked */
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_RULE),
				 errmsg("rule \"%s\" lacks its %s", rule->name, kind == NULL ? "kind" : "points"),
				 errhint("A rule needs a kind and points.")));
	rule->event = event_of(column_text(row, "event"));
	rule->kind = kind_of(kind);
	rule->group = group_number(groups, column_text(row, "exclusive_group"));
	rule->active_from = column_time(row, "active_from", DT_NOBEGIN);
	rule->active_until = column_time(row, "active_until", DT_NOEND);
	rule->created_at = column_time(row, "created_at", DT_NOBEGIN);
	rule->retired_from = column_time(row, "retired_from", DT_NOEND);
	rule->retired_at = column_time(row, "retired_at", DT_NOEND);
	visible = visible_rows(rule->event);
	owner = psprintf("rule \"%s\"", rule->name);
	rule->points = ExpressionCompile(scope, visible, points, NUMERICOID, "points", owner);
	if (condition != NULL)
		rule->condition = ExpressionCompile(scope, visible, condition, BOOLOID,
											"condition", owner);
	load_caps(rule, row);
	program->has_caps |= rule->capped;
	return rule;
}

/* Compile the rules of the last result. */
static void
load_rules(Program *program, ExpressionScope *scope, uint64 count)
{
	SPITupleTable *table = SPI_tuptable;
	List	   *groups = NIL;

	program->nrules = (int) count;
	program->rule = MemoryContextAlloc(program->context, sizeof(Rule *) * Max(count, 1));
	for (uint64 i = 0; i < count; i++)
	{
		SPI_tuptable = table;
		program->rule[i] = load_rule(program, scope, (int) i, &groups);
	}
}

/* Compile one stamp card from a row of the last result. */
static void
load_card(Program *program, ExpressionScope *scope, int row, Card *card)
{
	char	   *condition = column_text(row, "condition");

	card->card_id = column_int32(row, "card_id");
	card->name = MemoryContextStrdup(program->context, column_text(row, "name"));
	card->counts = WORD(row, "counts", "units", "visits", "amount");
	card->valid_from = column_time(row, "valid_from", DT_NOBEGIN);
	card->valid_until = column_time(row, "valid_until", DT_NOEND);
	card->retired_at = column_time(row, "retired_at", DT_NOEND);
	if (condition != NULL)
		card->condition = ExpressionCompile(scope, CARD_ROWS, condition, BOOLOID, "condition",
											psprintf("stamp card \"%s\"", card->name));
}

/* Compile the stamp cards. */
static void
load_cards(Program *program, ExpressionScope *scope)
{
	SPITupleTable *table;

	program->ncards = (int) query_program("SELECT card_id, name, counts, condition, valid_from,"
										  " valid_until, retired_at FROM loyalty.stamp_card"
										  " WHERE program_id = $1 ORDER BY card_id",
										  program->program_id);
	table = SPI_tuptable;
	program->card = MemoryContextAllocZero(program->context,
										   sizeof(Card) * Max(program->ncards, 1));
	for (int i = 0; i < program->ncards; i++)
	{
		SPI_tuptable = table;
		load_card(program, scope, i, &program->card[i]);
	}
}

/* The event of a limit's word: redemptions have limits and no rules. */
static RuleEvent
limit_event_of(const char *event)
{
	return strcmp(event, "redemption") == 0 ? ON_REDEMPTION : event_of(event);
}

/* Compile one expression of a velocity limit; it is evaluated before the history is known. */
static Expression *
compile_limit(ExpressionScope *scope, RuleEvent event, const char *text, Oid type,
			  const char *role, const char *owner)
{
	static const Fact history[] = {
		FACT_MEMBER_TIER, FACT_MEMBER_TIER_RANK, FACT_MEMBER_PURCHASES, FACT_MEMBER_SPEND,
		FACT_MEMBER_AVERAGE_ORDER, FACT_PURCHASE_NUMBER
	};
	Expression *expression = ExpressionCompile(scope, visible_rows(event), text, type, role, owner);

	for (size_t i = 0; i < lengthof(history); i++)
	{
		if (bms_is_member(history[i], expression->columns))
			ereport(ERROR,
					(errcode(ERRCODE_LY_RULE_NOT_ALLOWED),
					 errmsg("%s of %s may not read what the member's history decides", role, owner),
					 errdetail("These are member.tier, tier_rank, purchases, spend, average_order and purchase.number.")));
	}
	return expression;
}

/* Compile one velocity limit from a row of the last result. */
static void
load_limit(Program *program, ExpressionScope *scope, int row, VelocityLimit *limit)
{
	char	   *kind = column_text(row, "subject_kind");
	char	   *subject = column_text(row, "subject");
	char	   *condition = column_text(row, "condition");
	char	   *owner;
	MemoryContext old = MemoryContextSwitchTo(program->context);

	limit->limit_id = column_int32(row, "limit_id");
	limit->program_id = program->program_id;
	limit->name = column_text(row, "name");
	owner = psprintf("limit \"%s\"", limit->name);
	limit->event = limit_event_of(column_text(row, "event"));
	limit->measure = WORD(row, "measure", "count", "amount", "points");
	limit->verdict = WORD(row, "verdict", "allow", "clip", "hold", "reject");
	limit->maximum = column_points(row, "units", 0);
	limit->digits = limit->measure == MEASURE_POINTS ? program->points_scale :
		limit->measure == MEASURE_AMOUNT ? 4 : 0;
	limit->width = column_points(row, "width", 1);
	limit->buckets = column_int32(row, "buckets");
	limit->subject_kind = kind == NULL ? 0 : CStringGetTextDatum(kind);
	limit->active_from = column_time(row, "active_from", DT_NOBEGIN);
	limit->created_at = column_time(row, "created_at", DT_NOBEGIN);
	limit->retired_at = column_time(row, "retired_at", DT_NOEND);
	MemoryContextSwitchTo(old);
	limit->subject = compile_limit(scope, limit->event, subject, TEXTOID, "subject", owner);
	if (condition != NULL)
		limit->condition = compile_limit(scope, limit->event, condition, BOOLOID, "condition", owner);
	limit->of_member = bms_next_member(limit->subject->columns, FACT_MEMBER_ATTRIBUTES) < 0;
}

/* Compile the velocity limits. */
static void
load_limits(Program *program, ExpressionScope *scope)
{
	SPITupleTable *table;

	program->nlimits = (int)
		query_program("SELECT l.*, loyalty.limit_units(l, p.points_scale) AS units,"
					  " loyalty.limit_width(l) AS width"
					  " FROM loyalty.velocity_limit l JOIN loyalty.program p USING (program_id)"
					  " WHERE l.program_id = $1 ORDER BY l.limit_id", program->program_id);
	table = SPI_tuptable;
	program->limit = MemoryContextAllocZero(program->context,
											sizeof(VelocityLimit) * Max(program->nlimits, 1));
	for (int i = 0; i < program->nlimits; i++)
	{
		SPI_tuptable = table;
		load_limit(program, scope, i, &program->limit[i]);
		program->limits_spending |= program->limit[i].event == ON_REDEMPTION;
	}
}

/* Note which facts the rules, cards and limits read. */
static void
note_columns(Program *program)
{
	MemoryContext old = MemoryContextSwitchTo(program->context);

	for (int i = 0; i < program->nrules; i++)
	{
		const Rule *rule = program->rule[i];

		program->columns = bms_add_members(program->columns, rule->points->columns);
		if (rule->condition != NULL)
			program->columns = bms_add_members(program->columns, rule->condition->columns);
	}
	for (int i = 0; i < program->ncards; i++)
	{
		if (program->card[i].condition != NULL)
			program->columns = bms_add_members(program->columns,
											   program->card[i].condition->columns);
	}
	for (int i = 0; i < program->nlimits; i++)
	{
		const VelocityLimit *limit = &program->limit[i];

		program->columns = bms_add_members(program->columns, limit->subject->columns);
		if (limit->condition != NULL)
			program->columns = bms_add_members(program->columns, limit->condition->columns);
	}
	MemoryContextSwitchTo(old);
	for (int fact = FACT_MEMBER_EXTERNAL_ID; fact <= FACT_MEMBER_ATTRIBUTES; fact++)
		program->uses_members |= bms_is_member(fact, program->columns) &&
			(fact < FACT_MEMBER_TIER || fact == FACT_MEMBER_ATTRIBUTES);
	for (int fact = FACT_PRODUCT_SKU; fact <= FACT_PRODUCT_PARTNER; fact++)
		program->uses_products |= bms_is_member(fact, program->columns);
	if (!program->uses_products)
		program->uses_products =
			query_program("SELECT 1 FROM loyalty.product WHERE program_id = $1 AND excluded LIMIT 1",
						  program->catalog_id) > 0;
}

/* ------------------------------------------------------------------------
 * The index over rules
 * ------------------------------------------------------------------------ */

/* Hash a value of a type that ExpressionFindKey gives. */
static uint32
hash_value(Oid type, Datum value)
{
	if (type == TEXTOID)
	{
		struct varlena *text = (struct varlena *) DatumGetPointer(value);

		return hash_bytes((const unsigned char *) VARDATA_ANY(text),
						  (int) VARSIZE_ANY_EXHDR(text));
	}
	if (type == INT8OID)
		return hash_bytes_uint32((uint32) DatumGetInt64(value) ^
								 (uint32) (DatumGetInt64(value) >> 32));
	return hash_bytes_uint32((uint32) DatumGetInt32(value));
}

/* Compare two such values. */
static bool
same_value(Oid type, Datum a, Datum b)
{
	if (type == TEXTOID)
	{
		struct varlena *left = (struct varlena *) DatumGetPointer(a);
		struct varlena *right = (struct varlena *) DatumGetPointer(b);

		return VARSIZE_ANY_EXHDR(left) == VARSIZE_ANY_EXHDR(right) &&
			memcmp(VARDATA_ANY(left), VARDATA_ANY(right), VARSIZE_ANY_EXHDR(left)) == 0;
	}
	if (type == INT8OID)
		return DatumGetInt64(a) == DatumGetInt64(b);
	return DatumGetInt32(a) == DatumGetInt32(b);
}

/* Find the bucket of a value, or the empty one where it would stand. */
static RuleBucket *
find_bucket(const RuleColumn *column, Datum value)
{
	uint32		at = hash_value(column->type, value) & column->mask;

	while (column->bucket[at].used && !same_value(column->type, column->bucket[at].value, value))
		at = (at + 1) & column->mask;
	return &column->bucket[at];
}

/* Append a rule's position to a list of them. */
static int *
append_position(int *list, int n, int position)
{
	if (n == 0)
		list = palloc(sizeof(int) * 4);
	else if (n >= 4 && (n & (n - 1)) == 0)
		list = repalloc(list, sizeof(int) * n * 2);
	list[n] = position;
	return list;
}

/* The index's column for a fact, made where there is none. */
static RuleColumn *
index_column(RuleIndex *index, const ExpressionKey *key, int capacity)
{
	RuleColumn *column;
	uint32		size = 16;

	for (int i = 0; i < index->ncolumns; i++)
	{
		if (index->column[i].fact == key->column)
			return &index->column[i];
	}
	while (size < (uint32) capacity * 2)
		size *= 2;
	column = &index->column[index->ncolumns++];
	column->fact = key->column;
	column->type = key->type;
	column->mask = size - 1;
	column->bucket = palloc0(sizeof(RuleBucket) * size);
	return column;
}

/* Index the rules of one event by the equality that their conditions demand. */
static void
build_index(Program *program, RuleEvent event)
{
	RuleIndex  *index = &program->index[event];
	ExpressionKey *keys = palloc0(sizeof(ExpressionKey) * Max(program->nrules, 1));
	bool	   *keyed = palloc0(Max(program->nrules, 1));
	int			capacity[FACT_COUNT] = {0};
	MemoryContext old = MemoryContextSwitchTo(program->context);

	index->column = palloc0(sizeof(RuleColumn) * FACT_COUNT);
	for (int i = 0; i < program->nrules; i++)
	{
		const Rule *rule = program->rule[i];

		if (rule->event != event)
			continue;
		keyed[i] = rule->condition != NULL &&
			ExpressionFindKey(rule->condition, &keys[i]);
		if (keyed[i])
			capacity[keys[i].column] += keys[i].nvalues;
		else
			index->always = append_position(index->always, index->nalways, i),
				index->nalways++;
	}
	for (int i = 0; i < program->nrules; i++)
	{
		RuleColumn *column;

		if (!keyed[i])
			continue;
		column = index_column(index, &keys[i], capacity[keys[i].column]);
		for (int v = 0; v < keys[i].nvalues; v++)
		{
			RuleBucket *bucket = find_bucket(column, keys[i].values[v]);

			bucket->used = true;
			bucket->value = keys[i].values[v];
			if (bucket->nrules > 0 && bucket->rules[bucket->nrules - 1] == i)
				continue;		/* the same value twice in one list */
			bucket->rules = append_position(bucket->rules, bucket->nrules, i);
			bucket->nrules++;
		}
	}
	MemoryContextSwitchTo(old);
}

static int
compare_positions(const void *a, const void *b)
{
	return *(const int *) a - *(const int *) b;
}

/*
 * Collect the rules of an event that may fire on the facts at hand, in order.
 *
 * candidates has room for Program.nrules.  The work does not grow with the
 * rules whose key does not match.
 */
int
ProgramCandidates(Program *program, RuleEvent event, int *candidates)
{
	const RuleIndex *index = &program->index[event];
	int			n = index->nalways;

	if (n > 0)
		memcpy(candidates, index->always, sizeof(int) * n);
	for (int i = 0; i < index->ncolumns; i++)
	{
		const RuleColumn *column = &index->column[i];
		const RuleBucket *bucket;

		if (program->facts->tts_isnull[column->fact])
			continue;
		bucket = find_bucket(column, program->facts->tts_values[column->fact]);
		if (!bucket->used)
			continue;
		memcpy(candidates + n, bucket->rules, sizeof(int) * bucket->nrules);
		n += bucket->nrules;
	}
	if (n > index->nalways)
		qsort(candidates, n, sizeof(int), compare_positions);
	return n;
}

/* Tell whether a version applies to an event, as far as was known at an instant. */
bool
RuleApplies(const Rule *rule, TimestampTz occurred_at, TimestampTz known_at)
{
	if (rule->created_at > known_at)
		return false;
	if (occurred_at < rule->active_from || occurred_at >= rule->active_until)
		return false;
	return !(rule->retired_at <= known_at && occurred_at >= rule->retired_from);
}

/* ------------------------------------------------------------------------
 * Snapshots
 * ------------------------------------------------------------------------ */

static const char *const rules_query =
"SELECT v.rule_version_id, v.version, r.name, v.event, v.kind, v.points, v.condition,"
" v.exclusive_group, v.active_from, v.active_until, v.created_at, v.retired_from, v.retired_at,"
" r.rule_id, loyalty.cap_units(v.caps, p.points_scale) AS caps, b.stock_id, b.created_at AS budget_since"
" FROM loyalty.rule r JOIN loyalty.rule_version v USING (rule_id)"
"  JOIN loyalty.program p USING (program_id) LEFT JOIN loyalty.rule_budget b USING (rule_id)"
" WHERE r.program_id = $1 ORDER BY v.priority, r.rule_id, v.version";

/*
 * The same shape from draft rules in jsonb ($2), with the rules of the
 * programme that no draft replaces where $3 is true.
 */
static const char *const draft_query =
"SELECT v.rule_version_id, v.version, r.name, v.event, v.kind, v.points, v.condition,"
" v.exclusive_group, v.active_from, v.active_until, v.created_at, v.retired_from, v.retired_at,"
" v.priority, r.rule_id, loyalty.cap_units(v.caps, p.points_scale) AS caps, NULL::int8 AS stock_id, NULL::timestamptz AS budget_since"
" FROM loyalty.rule r JOIN loyalty.rule_version v USING (rule_id) JOIN loyalty.program p USING (program_id)"
" WHERE r.program_id = $1 AND $3 AND NOT EXISTS"
"  (SELECT FROM jsonb_array_elements($2) d WHERE d ->> 'name' = r.name)"
" UNION ALL "
"SELECT (1000000000 + n)::int4, 0, coalesce(d ->> 'name', 'draft ' || n), coalesce(d ->> 'event', 'purchase'),"
" d ->> 'kind', d ->> 'points', d ->> 'condition', d ->> 'exclusive_group',"
" coalesce((d ->> 'active_from')::timestamptz, '-infinity'),"
" coalesce((d ->> 'active_until')::timestamptz, 'infinity'),"
" '-infinity', NULL, NULL, coalesce((d ->> 'priority')::int4, 100), (1000000000 + n)::int4,"
" loyalty.cap_units(nullif(d -> 'caps', 'null'), p.points_scale), NULL, NULL"
" FROM loyalty.program p, jsonb_array_elements($2) WITH ORDINALITY AS e (d, n) WHERE p.program_id = $1"
" ORDER BY 14, 15, 2";

/* Make an empty snapshot with its slot. */
static Program *
make_program(int32 program_id)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "loyalty program",
												  ALLOCSET_DEFAULT_SIZES);
	Program    *program = MemoryContextAllocZero(context, sizeof(Program));

	program->context = context;
	program->program_id = program_id;
	return program;
}

/* Make what evaluation needs. */
static void
prepare_evaluation(Program *program, ExpressionScope *scope)
{
	MemoryContext old = MemoryContextSwitchTo(program->context);

	program->facts = MakeSingleTupleTableSlot(scope->tupdesc, &TTSOpsVirtual);
	program->econtext = CreateStandaloneExprContext();
	program->econtext->ecxt_scantuple = program->facts;
	MemoryContextSwitchTo(old);
}

/* Load a programme with its own rules, or with drafts. */
static Program *
load_program(int32 program_id, Datum drafts, bool keep_existing)
{
	Program    *program = make_program(program_id);
	ExpressionScope *scope;
	uint64		count;
	int			nest = NewGUCNestLevel();

	/* whoever asks first fills the snapshot for all: his operators must not */
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetLatestSnapshot());
	watch_tables();
	scope = make_scope(program->context);
	load_policies(program);
	load_tiers(program);
	load_wallets(program);
	if (drafts == 0)
		count = query_program(rules_query, program_id);
	else
	{
		Oid			types[3] = {INT4OID, JSONBOID, BOOLOID};
		Datum		values[3] = {Int32GetDatum(program_id), drafts, BoolGetDatum(keep_existing)};

		if (SPI_execute_with_args(draft_query, 3, types, values, NULL, true, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not read the draft rules");
		count = SPI_processed;
	}
	load_rules(program, scope, count);
	load_cards(program, scope);
	load_limits(program, scope);
	program->nchallenges =
		(int) query_program("SELECT 1 FROM loyalty.challenge WHERE program_id = $1", program_id);
	program->has_policies =
		query_program("SELECT 1 FROM loyalty.activity_policy WHERE program_id = $1 LIMIT 1", program_id) > 0;
	program->knows_cashiers =
		query_program("SELECT 1 FROM loyalty.cashier WHERE program_id = $1 LIMIT 1",
					  program->catalog_id) > 0;
	note_columns(program);
	for (int event = 0; event < RULE_EVENTS; event++)
		build_index(program, event);
	prepare_evaluation(program, scope);
	PopActiveSnapshot();
	SPI_finish();
	AtEOXact_GUC(true, nest);
	return program;
}

/* Load a programme with draft rules, an array of jsonb objects; the caller frees it. */
Program *
ProgramDraft(int32 program_id, Datum draft_rules, bool keep_existing)
{
	return load_program(program_id, draft_rules, keep_existing);
}

/* Free a snapshot. */
void
ProgramFree(Program *program)
{
	ExecDropSingleTupleTableSlot(program->facts);
	FreeExprContext(program->econtext, true);
	MemoryContextDelete(program->context);
}

/* Load until no configuration change came in between, then publish. */
static Program *
load_published(int32 program_id)
{
	Program    *program;
	uint64		started;

	for (;;)
	{
		started = generation;
		program = load_program(program_id, (Datum) 0, true);
		if (started == generation)
			break;
		ProgramFree(program);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSetParent(program->context, CacheMemoryContext);
	return program;
}

/* Drop a snapshot from the cache; one still pinned goes at the end of the transaction. */
static void
forget_program(int position)
{
	Program    *program = programs[position];

	programs[position] = programs[--nprograms];
	if (program->pins == 0)
		ProgramFree(program);
	else
	{
		program->next_orphan = orphans;
		orphans = program;
	}
}

/* Get the current snapshot of a programme and keep it until ProgramUnpin. */
Program *
ProgramPin(int32 program_id)
{
	Program    *program;

	AcceptInvalidationMessages();
	for (int i = 0; i < nprograms; i++)
	{
		program = programs[i];
		if (program->program_id != program_id)
			continue;
		if (!program->stale)
		{
			program->pins++;
			return program;
		}
		forget_program(i);
		break;
	}
	program = load_published(program_id);
	if (nprograms == lengthof(programs))
		forget_program(0);
	programs[nprograms++] = program;
	program->pins++;
	return program;
}

/* Let go of a snapshot. */
void
ProgramUnpin(Program *program)
{
	if (program->pins > 0)
		program->pins--;
}

/* ------------------------------------------------------------------------
 * Small questions
 * ------------------------------------------------------------------------ */

/* The position of a tier, NO_TIER for none. */
int
ProgramTierIndex(const Program *program, int32 tier_id)
{
	for (int i = 0; i < program->ntiers; i++)
	{
		if (program->tier[i].tier_id == tier_id)
			return i;
	}
	return NO_TIER;
}

/* The most that an account may owe, -1 for any debt: its tier's limit or the programme's. */
int64
ProgramNegativeLimit(const Program *program, int32 tier_id)
{
	int			tier = ProgramTierIndex(program, tier_id);

	return tier == NO_TIER ? program->negative_limit : program->tier_info[tier].negative_limit;
}

/* How many days after their death points may be reinstated: its tier's number or the programme's. */
int
ProgramReinstateDays(const Program *program, int32 tier_id)
{
	int			tier = ProgramTierIndex(program, tier_id);

	return tier == NO_TIER ? program->reinstate_days : program->tier_info[tier].reinstate_days;
}

/* An instant as local time of the programme. */
Timestamp
ProgramLocal(const Program *program, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;
	const char *abbreviation;
	Timestamp	local;

	if (timestamp2tm(at, &tz, &tm, &fsec, &abbreviation, program->zone) != 0 ||
		tm2timestamp(&tm, fsec, NULL, &local) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_TIME), errmsg("time is out of range")));
	return local;
}

/* The day of an instant in the programme's zone. */
int32
ProgramDay(const Program *program, TimestampTz at)
{
	Timestamp	local = ProgramLocal(program, at);

	if (local < 0)
		return (int32) ((local - (USECS_PER_DAY - 1)) / USECS_PER_DAY);
	return (int32) (local / USECS_PER_DAY);
}

/* The rate from a currency to the programme's on a day; NULL where there is none. */
Numeric
ProgramRate(const Program *program, const char *currency, int32 day)
{
	Oid			types[3] = {TEXTOID, TEXTOID, DATEOID};
	Datum		values[3];
	Numeric		rate = NULL;
	MemoryContext caller = CurrentMemoryContext;
	bool		isnull;

	values[0] = CStringGetTextDatum(currency);
	values[1] = CStringGetTextDatum(program->currency);
	values[2] = Int32GetDatum(day);
	SPI_connect();
	if (SPI_execute_with_args("SELECT rate FROM loyalty.exchange_rate"
							  " WHERE from_currency = $1 AND to_currency = $2 AND day = $3",
							  3, types, values, NULL, false, 1) == SPI_OK_SELECT &&
		SPI_processed == 1)
	{
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(caller);

		rate = DatumGetNumericCopy(value);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return rate;
}

/* ------------------------------------------------------------------------
 * Checks of rules before they are saved
 * ------------------------------------------------------------------------ */

/* Compile a rule to raise what is wrong with it; its points where they are constant, else NULL. */
Numeric
ProgramCheckRule(const char *name, const char *event, const char *kind, const char *points,
				 const char *condition)
{
	Expression *compiled;
	Datum		value;
	bool		isnull;

	uint32		visible = visible_rows(event_of(event));
	ExpressionScope *scope = make_scope(CurrentMemoryContext);
	char	   *owner = psprintf("rule \"%s\"", name);

	kind_of(kind);
	compiled = ExpressionCompile(scope, visible, points, NUMERICOID, "points", owner);
	if (condition != NULL)
		ExpressionCompile(scope, visible, condition, BOOLOID, "condition", owner);
	if (!ExpressionIsConstant(compiled, &value, &isnull) || isnull)
		return NULL;
	return DatumGetNumeric(value);
}

/* Compile a stamp card's condition to raise what is wrong with it. */
void
ProgramCheckCard(const char *name, const char *condition)
{
	Expression *expression = ExpressionCompile(make_scope(CurrentMemoryContext), CARD_ROWS,
											   condition, BOOLOID, "condition",
											   psprintf("stamp card \"%s\"", name));

	if (bms_is_member(FACT_PURCHASE_NUMBER, expression->columns))
		ereport(ERROR,
				(errcode(ERRCODE_LY_RULE_NOT_ALLOWED),
				 errmsg("condition of stamp card \"%s\" may not read purchase.number", name),
				 errdetail("A card decides by the purchase alone.")));
}

/* Compile a velocity limit's expressions to raise what is wrong with them. */
void
ProgramCheckLimit(const char *name, const char *event, const char *subject, const char *condition)
{
	ExpressionScope *scope = make_scope(CurrentMemoryContext);
	char	   *owner = psprintf("limit \"%s\"", name);

	compile_limit(scope, limit_event_of(event), subject, TEXTOID, "subject", owner);
	if (condition != NULL)
		compile_limit(scope, limit_event_of(event), condition, BOOLOID, "condition", owner);
}

/* true, false or null where a condition is constant, else NULL. */
const char *
ProgramConstant(const char *condition, const char *event)
{
	Expression *expression = ExpressionCompile(make_scope(CurrentMemoryContext),
											   visible_rows(event_of(event)), condition, BOOLOID,
											   "condition", "the rule");
	Datum		value;
	bool		isnull;

	if (!ExpressionIsConstant(expression, &value, &isnull))
		return NULL;
	return isnull ? "null" : DatumGetBool(value) ? "true" : "false";
}
