/*
 * earn.c
 *	  What an event earns: base rules, times multipliers, plus bonuses, rounded
 *	  once, split back to rules and lines.
 *
 * A decision: facts in, points out.  It evaluates compiled expressions and
 * does exact arithmetic; it knows no tables, no clock and no SPI.
 *
 * Order of the work (the programme's terms and conditions, in code):
 *	1. base rules of the order and of each line add up;
 *	2. multipliers: the tier's, then the rules' by (priority, rule id), either
 *	   all of them or only the best one; a line's multiplier works on the line's
 *	   own base points and on its share of the order's;
 *	3. bonus rules of the order and of each line are added;
 *	4. what each capped rule contributed is cut to what it may still give;
 *	5. one rounding;
 *	6. the posted points are split over the rules' parts and over the lines by
 *	   largest remainder.
 * Shares of the order's base are never divided: where a line's multiplier
 * needs them, all sums are kept times the order's amount, and the division
 * happens once, inside the rounding.
 */
#include "earn.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

#include "calendar.h"
#include "compat.h"
#include "errors.h"
#include "split.h"

#define MAX_AWARD	INT64CONST(1000000000000000)	/* 10^15 smallest units */

/* One firing of a rule: on the order (line -1) or on a line */
typedef struct Firing
{
	int			position;		/* of the rule; -1: the tier's multiplier */
	int			line;
	Numeric		value;			/* points or factor as the expression gave it */
	bool		counts;			/* not crowded out by its group */
} Firing;

/* The exact contribution of one rule, times unit; position -1: the tier's multiplier */
typedef struct Part
{
	int			position;
	Numeric		amount;			/* what it wants to give */
	Numeric		kept;			/* what its caps leave of it */
	int64		limit;			/* smallest units that it may give; -1: no limit */
	Numeric    *share;			/* of a capped rule: in the order's sum, then in each line's */
} Part;

typedef struct Work
{
	Program    *program;
	Event	   *event;
	const MemberFacts *member;
	TimestampTz known_at;
	int		   *candidates;
	Firing	   *firing;
	int			nfirings;
	int			capacity;
	struct Part *part;			/* what each rule contributed, by position */
	int			nparts;
	bool		capped;			/* some part has a limit */
	Numeric		order;			/* the order's running sum, times unit */
	Numeric    *line;			/* each line's running sum, times unit */
	bool		by_line;		/* the order's base has been spread over the lines */
	Numeric		unit;			/* 1, or the order's net amount when by_line */
	RuleVerdict *verdict;		/* NULL unless explaining */
} Work;

/* ------------------------------------------------------------------------
 * Exact arithmetic
 * ------------------------------------------------------------------------ */

static Numeric
add(Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(a), NumericGetDatum(b)));
}

static Numeric
subtract(Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(numeric_sub, NumericGetDatum(a), NumericGetDatum(b)));
}

static Numeric
multiply(Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(numeric_mul, NumericGetDatum(a), NumericGetDatum(b)));
}

static int
compare(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a), NumericGetDatum(b)));
}

static Numeric
whole(int64 value)
{
	return int64_to_numeric(value);
}

/* ------------------------------------------------------------------------
 * Facts
 * ------------------------------------------------------------------------ */

/* Set a fact of the wide tuple. */
static void
set_fact(Program *program, Fact fact, Datum value)
{
	program->facts->tts_values[fact] = value;
	program->facts->tts_isnull[fact] = false;
}

/* Set a fact by reference, null where it is 0. */
static void
set_reference(Program *program, Fact fact, Datum value)
{
	program->facts->tts_values[fact] = value;
	program->facts->tts_isnull[fact] = value == 0;
}

/* Tell whether some rule reads a fact. */
static bool
wanted(const Program *program, Fact fact)
{
	return bms_is_member(fact, program->columns);
}

/* Money as a numeric. */
static Datum
money_datum(int64 money)
{
	return NumericGetDatum(int64_div_fast_to_numeric(money, MONEY_DIGITS));
}

/* The facts of a member's history. */
static void
set_history(Program *program, const PinnedFacts *pinned)
{
	int			tier = ProgramTierIndex(program, pinned->tier_id);

	set_reference(program, FACT_MEMBER_TIER,
				  tier == NO_TIER ? 0 : program->tier_info[tier].name_datum);
	set_fact(program, FACT_MEMBER_TIER_RANK,
			 Int32GetDatum(tier == NO_TIER ? 0 : program->tier[tier].rank));
	set_fact(program, FACT_MEMBER_PURCHASES, Int64GetDatum(pinned->purchases));
	if (wanted(program, FACT_MEMBER_SPEND))
		set_fact(program, FACT_MEMBER_SPEND, money_datum(pinned->spend));
	if (wanted(program, FACT_MEMBER_AVERAGE_ORDER) && pinned->purchases > 0)
		set_fact(program, FACT_MEMBER_AVERAGE_ORDER,
				 DirectFunctionCall2(numeric_div, money_datum(pinned->spend),
									 NumericGetDatum(whole(pinned->purchases))));
}

/* The row member. */
static void
set_member(Program *program, const MemberFacts *member, int32 day)
{
	set_reference(program, FACT_MEMBER_EXTERNAL_ID, member->external_id);
	if (wanted(program, FACT_MEMBER_JOINED_ON))
		set_fact(program, FACT_MEMBER_JOINED_ON,
				 DateADTGetDatum(ProgramDay(program, member->joined_at)));
	if (member->has_birthday)
		set_fact(program, FACT_MEMBER_BIRTHDAY, DateADTGetDatum(member->birthday));
	set_fact(program, FACT_MEMBER_IS_BIRTHDAY,
			 BoolGetDatum(member->has_birthday &&
						  calendar_is_anniversary(member->birthday, day)));
	set_fact(program, FACT_MEMBER_STAFF, BoolGetDatum(member->staff));
	set_reference(program, FACT_MEMBER_ATTRIBUTES, member->attributes);
	set_history(program, &member->pinned);
}

/* The units of all lines. */
static Datum
total_quantity(const Event *event)
{
	Numeric		sum = whole(0);

	for (int i = 0; i < event->nlines; i++)
	{
		if (event->line[i].quantity != 0)
			sum = add(sum, DatumGetNumeric(event->line[i].quantity));
	}
	return NumericGetDatum(sum);
}

/* The row purchase. */
static void
set_purchase(Program *program, const Event *event, const MemberFacts *member,
			 Timestamp local, int32 day)
{
	set_fact(program, FACT_PURCHASE_OCCURRED_AT, TimestampGetDatum(local));
	set_fact(program, FACT_PURCHASE_DAY, DateADTGetDatum(day));
	set_fact(program, FACT_PURCHASE_TIME,
			 TimeADTGetDatum(local - (Timestamp) day * USECS_PER_DAY));
	set_fact(program, FACT_PURCHASE_WEEKDAY, Int32GetDatum(calendar_weekday(day)));
	set_reference(program, FACT_PURCHASE_STORE, event->store);
	set_reference(program, FACT_PURCHASE_CHANNEL, event->channel);
	set_reference(program, FACT_PURCHASE_CURRENCY, event->currency);
	set_reference(program, FACT_PURCHASE_ATTRIBUTES, event->attributes);
	set_reference(program, FACT_PURCHASE_SOURCE, event->source);
	set_fact(program, FACT_PURCHASE_AMOUNT, money_datum(event->net));
	if (wanted(program, FACT_PURCHASE_TOTAL))
		set_fact(program, FACT_PURCHASE_TOTAL, money_datum(event->total));
	if (wanted(program, FACT_PURCHASE_SHIPPING))
		set_fact(program, FACT_PURCHASE_SHIPPING, money_datum(event->shipping));
	if (wanted(program, FACT_PURCHASE_DISCOUNT))
		set_fact(program, FACT_PURCHASE_DISCOUNT, money_datum(event->discount));
	if (wanted(program, FACT_PURCHASE_QUANTITY))
		set_fact(program, FACT_PURCHASE_QUANTITY, total_quantity(event));
	set_fact(program, FACT_PURCHASE_NUMBER, Int64GetDatum(member->pinned.purchases + 1));
	set_fact(program, FACT_PURCHASE_LINE_COUNT, Int32GetDatum(event->nlines));
}

/* The row activity. */
static void
set_activity(Program *program, const Event *event, Timestamp local, int32 day)
{
	set_reference(program, FACT_ACTIVITY_KIND, event->activity_kind);
	set_reference(program, FACT_ACTIVITY_VALUE, event->value);
	set_reference(program, FACT_ACTIVITY_SUBJECT, event->subject);
	set_reference(program, FACT_ACTIVITY_ATTRIBUTES, event->attributes);
	set_reference(program, FACT_ACTIVITY_SOURCE, event->source);
	set_fact(program, FACT_ACTIVITY_OCCURRED_AT, TimestampGetDatum(local));
	set_fact(program, FACT_ACTIVITY_DAY, DateADTGetDatum(day));
	set_fact(program, FACT_ACTIVITY_TIME,
			 TimeADTGetDatum(local - (Timestamp) day * USECS_PER_DAY));
	set_fact(program, FACT_ACTIVITY_WEEKDAY, Int32GetDatum(calendar_weekday(day)));
}

/* The rows line and product. */
static void
set_line(Program *program, const EventLine *line)
{
	const Product *product = line->product;
	bool		known = product != NULL && product->known;

	set_reference(program, FACT_LINE_SKU, line->sku);
	set_reference(program, FACT_LINE_QUANTITY, line->quantity);
	set_reference(program, FACT_LINE_UNIT_PRICE, line->unit_price);
	set_fact(program, FACT_LINE_AMOUNT, money_datum(line->net));
	if (wanted(program, FACT_LINE_DISCOUNT))
		set_fact(program, FACT_LINE_DISCOUNT, money_datum(line->discount));
	set_reference(program, FACT_PRODUCT_SKU, known ? product->sku : 0);
	set_reference(program, FACT_PRODUCT_CATEGORY, known ? product->category : 0);
	set_reference(program, FACT_PRODUCT_BRAND, known ? product->brand : 0);
	set_reference(program, FACT_PRODUCT_MARGIN, known ? product->margin : 0);
	set_reference(program, FACT_PRODUCT_PARTNER, known ? product->partner : 0);
	program->facts->tts_values[FACT_PRODUCT_OWN_BRAND] = BoolGetDatum(known && product->own_brand);
	program->facts->tts_isnull[FACT_PRODUCT_OWN_BRAND] = !known;
}

/* Fill the facts of the event and its member. */
static void
set_facts(Work *work)
{
	Program    *program = work->program;
	Timestamp	local = ProgramLocal(program, work->event->occurred_at);
	int32		day = ProgramDay(program, work->event->occurred_at);

	ExecClearTuple(program->facts);
	memset(program->facts->tts_isnull, true, sizeof(bool) * FACT_COUNT);
	set_member(program, work->member, day);
	if (work->event->kind == ON_ACTIVITY)
		set_activity(program, work->event, local, day);
	else
		set_purchase(program, work->event, work->member, local, day);
	ExecStoreVirtualTuple(program->facts);
}

/* ------------------------------------------------------------------------
 * Firing
 * ------------------------------------------------------------------------ */

typedef struct RuleContext
{
	const Rule *rule;
	int64		source_id;
} RuleContext;

/* Name the rule in an error that its expression raises; what its data did is LY203. */
static void
name_rule(void *arg)
{
	const RuleContext *context = arg;

	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_LY_RULE_FAILED);
	errcontext("rule \"%s\" version %d on transaction " INT64_FORMAT,
			   context->rule->name, context->rule->version, context->source_id);
}

/* Tell whether a rule may give this: a finite number that is not negative and not beyond all bounds. */
bool
EarnIsAllowed(Numeric value)
{
	return !numeric_is_nan(value) && !numeric_is_inf(value) && compare(value, whole(0)) >= 0 &&
		compare(value, whole(MAX_AWARD)) <= 0;
}

/* Refuse what no rule may give. */
static void
check_value(const Rule *rule, Numeric value, int64 source_id)
{
	char	   *text;

	if (EarnIsAllowed(value))
		return;
	if (!numeric_is_nan(value) && !numeric_is_inf(value) && compare(value, whole(0)) >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_POINTS_OVERFLOW),
				 errmsg("rule \"%s\" gives too many points on transaction " INT64_FORMAT,
						rule->name, source_id),
				 errdetail("One rule gives at most " INT64_FORMAT ".", MAX_AWARD)));
	text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value)));
	ereport(ERROR,
			(errcode(ERRCODE_LY_RULE_FAILED),
			 errmsg("rule \"%s\" gives %s on transaction " INT64_FORMAT,
					rule->name, strlen(text) > 40 ? "a very long negative number" : text, source_id),
			 errdetail("A rule gives a finite number that is not negative."),
			 errhint("Guard the expression, for example with greatest(0, ...).")));
}

/* Evaluate a rule on the facts at hand: true and its value where it fires. */
static bool
evaluate_rule(Work *work, const Rule *rule, Numeric *value, bool *null_points)
{
	ExprContext *econtext = work->program->econtext;
	bool		isnull;
	Datum		result;

	*null_points = false;
	if (rule->condition != NULL)
	{
		result = ExpressionEvaluate(rule->condition, econtext, &isnull);
		if (isnull || !DatumGetBool(result))
			return false;
	}
	result = ExpressionEvaluate(rule->points, econtext, &isnull);
	if (isnull)
	{
		*null_points = true;
		return false;
	}
	*value = DatumGetNumericCopy(result);
	check_value(rule, *value, work->event->source_id);
	return true;
}

/* Note a firing. */
static void
add_firing(Work *work, int position, int line, Numeric value)
{
	Firing	   *firing;

	if (work->nfirings == work->capacity)
	{
		work->capacity *= 2;
		work->firing = repalloc(work->firing, sizeof(Firing) * work->capacity);
	}
	firing = &work->firing[work->nfirings++];
	firing->position = position;
	firing->line = line;
	firing->value = value;
	firing->counts = true;
}

/* Try the rules of one event on the facts at hand. */
static void
try_rules(Work *work, RuleEvent event, int line)
{
	Program    *program = work->program;
	int			n = ProgramCandidates(program, event, work->candidates);
	int			first = work->nfirings;
	RuleContext context;
	ErrorContextCallback callback;

	context.source_id = work->event->source_id;
	callback.callback = name_rule;
	callback.arg = &context;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	for (int i = 0; i < n; i++)
	{
		int			position = work->candidates[i];
		const Rule *rule = program->rule[position];
		Numeric		value;
		bool		null_points;

		if (!RuleApplies(rule, work->event->occurred_at, work->known_at))
			continue;
		context.rule = rule;
		if (evaluate_rule(work, rule, &value, &null_points))
			add_firing(work, position, line, value);
		else if (null_points && work->verdict != NULL)
			work->verdict[position].null_points = true;
	}
	error_context_stack = callback.previous;

	/* of one exclusive group only the best stays; the first of equals */
	for (int i = first; i < work->nfirings; i++)
	{
		const Rule *rule = program->rule[work->firing[i].position];

		for (int j = first; j < i && rule->group != 0; j++)
		{
			const Rule *other = program->rule[work->firing[j].position];

			if (!work->firing[j].counts || other->group != rule->group || other->kind != rule->kind)
				continue;
			if (compare(work->firing[i].value, work->firing[j].value) > 0)
				work->firing[j].counts = false;
			else
				work->firing[i].counts = false;
		}
	}
	ResetExprContext(program->econtext);
}

/* Try every rule on the event. */
static void
fire_rules(Work *work)
{
	Program    *program = work->program;
	Event	   *event = work->event;

	set_facts(work);
	if (event->kind == ON_ACTIVITY)
	{
		try_rules(work, ON_ACTIVITY, -1);
		return;
	}
	try_rules(work, ON_PURCHASE, -1);
	if (program->index[ON_LINE].nalways + program->index[ON_LINE].ncolumns == 0)
		return;
	for (int i = 0; i < event->nlines; i++)
	{
		if (event->line[i].product != NULL && event->line[i].product->excluded)
			continue;
		set_line(program, &event->line[i]);
		try_rules(work, ON_LINE, i);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ------------------------------------------------------------------------
 * Adding up
 * ------------------------------------------------------------------------ */

/* Tell whether somebody is to be asked about a rule before it gives. */
static bool
is_capped(const Work *work, int position)
{
	return work->event->caps != NULL && position >= 0 && work->program->rule[position]->capped;
}

/* The part of a rule, made where there is none. */
static Part *
part_of(Work *work, int position)
{
	int			at = 0;
	Part	   *part;

	while (at < work->nparts && work->part[at].position < position)
		at++;
	part = &work->part[at];
	if (at < work->nparts && part->position == position)
		return part;
	memmove(part + 1, part, sizeof(Part) * (work->nparts - at));
	memset(part, 0, sizeof(Part));
	part->position = position;
	part->limit = -1;
	work->nparts++;
	if (is_capped(work, position))
	{
		part->share = palloc(sizeof(Numeric) * (work->event->nlines + 1));
		for (int i = 0; i <= work->event->nlines; i++)
			part->share[i] = whole(0);
	}
	return part;
}

/* Credit a rule with an exact contribution to a line's sum, or at -1 to the order's. */
static void
credit(Work *work, int position, int line, Numeric amount)
{
	Part	   *part = part_of(work, position);

	part->amount = part->amount == NULL ? amount : add(part->amount, amount);
	if (part->share != NULL)
		part->share[line + 1] = add(part->share[line + 1], amount);
}

/* Add the firings of one kind to the running sums, times unit. */
static void
add_kind(Work *work, RuleKind kind)
{
	for (int i = 0; i < work->nfirings; i++)
	{
		const Firing *firing = &work->firing[i];
		Numeric		amount;

		if (!firing->counts || work->program->rule[firing->position]->kind != kind)
			continue;
		amount = work->by_line ? multiply(firing->value, work->unit) : firing->value;
		if (firing->line < 0)
			work->order = add(work->order, amount);
		else
			work->line[firing->line] = add(work->line[firing->line], amount);
		credit(work, firing->position, firing->line, amount);
	}
}

/* Spread the order's base over the lines: from here on all sums are times the net amount. */
static void
spread_order(Work *work)
{
	Event	   *event = work->event;

	if (event->net == 0)
		return;
	work->by_line = true;
	work->unit = whole(event->net);
	for (int i = 0; i < event->nlines; i++)
		work->line[i] = add(multiply(work->line[i], work->unit),
							multiply(work->order, whole(event->line[i].net)));
	work->order = whole(0);
	for (int i = 0; i < work->nparts; i++)
	{
		Part	   *part = &work->part[i];

		part->amount = multiply(part->amount, work->unit);
		for (int j = 1; part->share != NULL && j <= event->nlines; j++)
			part->share[j] = add(multiply(part->share[j], work->unit),
								 multiply(part->share[0], whole(event->line[j - 1].net)));
		if (part->share != NULL)
			part->share[0] = work->order;
	}
}

/* Multiply one running sum by a factor and credit the difference. */
static void
multiply_sum(Work *work, int line, Numeric factor, int position)
{
	Numeric    *sum = line < 0 ? &work->order : &work->line[line];
	Numeric		product = multiply(*sum, factor);

	credit(work, position, line, subtract(product, *sum));
	*sum = product;
}

/* Multiply what a firing covers: a line, or the order and all its lines. */
static void
apply_multiplier(Work *work, Numeric factor, int line, int position)
{
	if (line >= 0)
	{
		multiply_sum(work, line, factor, position);
		return;
	}
	for (int i = -1; i < work->event->nlines; i++)
		multiply_sum(work, i, factor, position);
}

/* Tell whether a firing multiplies. */
static bool
multiplies(const Work *work, const Firing *firing)
{
	return firing->counts && work->program->rule[firing->position]->kind == RULE_MULTIPLY;
}

/* Apply every multiplier, the tier's first. */
static void
apply_all_multipliers(Work *work, const ProgramTier *tier)
{
	if (tier != NULL)
		apply_multiplier(work, tier->multiplier, -1, -1);
	for (int i = 0; i < work->nfirings; i++)
	{
		const Firing *firing = &work->firing[i];

		if (multiplies(work, firing))
			apply_multiplier(work, firing->value, firing->line, firing->position);
	}
}

/* The better of two multipliers, either of which may be NULL: the greater, then the first. */
static const Firing *
better(const Firing *a, const Firing *b)
{
	int			order;

	if (a == NULL || b == NULL)
		return a == NULL ? b : a;
	order = compare(a->value, b->value);
	return order > 0 || (order == 0 && a < b) ? a : b;
}

/* The best multiplier of each line alone, NULL where there is none, and at -1 that of the order, which covers all lines. */
static const Firing **
best_multipliers(const Work *work)
{
	const Firing **best = (const Firing **) palloc0(sizeof(Firing *) * (work->event->nlines + 1)) + 1;

	for (int i = 0; i < work->nfirings; i++)
	{
		const Firing *firing = &work->firing[i];

		if (multiplies(work, firing))
			best[firing->line] = better(best[firing->line], firing);
	}
	return best;
}

/* Apply to each running sum only the best multiplier that covers it. */
static void
apply_best_multiplier(Work *work, const ProgramTier *tier)
{
	const Firing **bests = best_multipliers(work);

	for (int line = -1; line < work->event->nlines; line++)
	{
		const Firing *best = better(bests[-1], bests[line]);

		if (tier != NULL && (best == NULL || compare(tier->multiplier, best->value) >= 0))
			multiply_sum(work, line, tier->multiplier, -1);
		else if (best != NULL)
			multiply_sum(work, line, best->value, best->position);
	}
}

/* Apply the multipliers to the base. */
static void
apply_multipliers(Work *work)
{
	const Program *program = work->program;
	int			index = ProgramTierIndex(program, work->member->pinned.tier_id);
	const ProgramTier *tier = index == NO_TIER || !program->tier_info[index].multiplies ?
		NULL : &program->tier_info[index];

	for (int i = 0; i < work->nfirings && !work->by_line; i++)
	{
		if (multiplies(work, &work->firing[i]) && work->firing[i].line >= 0)
		{
			spread_order(work);
			break;
		}
	}
	if (program->best_multiplier)
		apply_best_multiplier(work, tier);
	else
		apply_all_multipliers(work, tier);
}

/* 10^points_scale. */
static Numeric
scale_factor(const Program *program)
{
	int64		factor = 1;

	for (int i = 0; i < program->points_scale; i++)
		factor *= 10;
	return whole(factor);
}

/* Divide by the unit, towards minus infinity in whole numbers; all operands are not negative. */
static int64
divide_rounding(Numeric amount, Numeric unit, Rounding rounding, const Event *event)
{
	Numeric		divisor = unit;
	Numeric		two = whole(2);
	Datum		quotient;

	if (rounding == ROUNDING_CEIL)
	{
		quotient = DirectFunctionCall2(numeric_div_trunc, NumericGetDatum(amount),
									   NumericGetDatum(divisor));
		if (compare(multiply(DatumGetNumeric(quotient), divisor), amount) < 0)
			quotient = NumericGetDatum(add(DatumGetNumeric(quotient), whole(1)));
	}
	else
	{
		if (rounding == ROUNDING_NEAREST)
		{
			amount = add(multiply(amount, two), divisor);
			divisor = multiply(divisor, two);
		}
		quotient = DirectFunctionCall2(numeric_div_trunc, NumericGetDatum(amount),
									   NumericGetDatum(divisor));
	}
	if (compare(DatumGetNumeric(quotient), whole(MAX_AWARD)) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_POINTS_OVERFLOW),
				 errmsg("transaction " INT64_FORMAT " earns too many points", event->source_id),
				 errdetail("One transaction earns at most " INT64_FORMAT ".", MAX_AWARD)));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, quotient));
}

/* ------------------------------------------------------------------------
 * Splitting back
 * ------------------------------------------------------------------------ */

/* A weight for splitting: whole ten-thousandths of a smallest unit, not negative. */
static int64
split_weight(Numeric exact, Numeric unit)
{
	Numeric		scaled = multiply(exact, whole(10000));
	Datum		quotient = DirectFunctionCall2(numeric_div_trunc, NumericGetDatum(scaled),
											   NumericGetDatum(unit));

	if (compare(DatumGetNumeric(quotient), whole(0)) <= 0)
		return 0;
	if (compare(DatumGetNumeric(quotient), whole(INT64CONST(1) << 61)) > 0)
		return INT64CONST(1) << 61;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, quotient));
}

/* Split the points over the lines: each line's own, and its share of the order's by net amount. */
static void
split_lines(Work *work, Award *award, Numeric scale)
{
	Event	   *event = work->event;
	int			n = event->nlines;
	int64	   *weight;
	int64	   *net;
	int64		order;

	if (n == 0)
		return;
	award->breakdown.nlines = n;
	award->breakdown.line = palloc0(sizeof(int64) * n);
	weight = palloc(sizeof(int64) * n * 2);
	net = weight + n;
	for (int i = 0; i < n; i++)
		net[i] = event->line[i].net;
	order = split_weight(multiply(work->order, scale), work->unit);
	split_largest_remainder(order, net, n, weight);
	for (int i = 0; i < n; i++)
	{
		if (compare(work->line[i], whole(0)) != 0)
			weight[i] += split_weight(multiply(work->line[i], scale), work->unit);
	}
	split_largest_remainder(award->points, weight, n, award->breakdown.line);
	pfree(weight);
}

/* What is left of a part after its caps. */
static Numeric
kept_of(const Part *part)
{
	return part->kept == NULL ? part->amount : part->kept;
}

/* An amount as it is, not times the unit. */
static Numeric
by_unit(const Work *work, Numeric amount)
{
	if (!work->by_line)
		return amount;
	return DatumGetNumeric(DirectFunctionCall2(numeric_div, NumericGetDatum(amount),
											   NumericGetDatum(work->unit)));
}

/*
 * Let no capped rule's part be more than the rule may give, whatever rounding
 * made of it: others take the rest, and what none may take is not given.
 * Exact amounts say what was wanted.
 */
static void
keep_limits(Work *work, Award *award, Numeric scale)
{
	Breakdown  *breakdown = &award->breakdown;
	int64		left = 0;

	for (int i = 0; i < work->nparts; i++)
	{
		const Part *part = &work->part[i];
		BreakdownRule *rule = &breakdown->rule[i];

		if (part->limit < 0)
			continue;
		rule->exact = by_unit(work, multiply(part->amount, scale));
		left += Max(rule->points - part->limit, 0);
		rule->points = Min(rule->points, part->limit);
	}
	/* a part that has no limit takes all */
	for (int pass = 0; pass < 2 && left > 0; pass++)
	{
		for (int i = 0; i < work->nparts && left > 0; i++)
		{
			int64		limit = work->part[i].limit;
			BreakdownRule *rule = &breakdown->rule[i];
			int64		taken = limit < 0 ? left : Min(left, limit - rule->points);

			if ((limit >= 0) != (pass == 1))
				continue;
			rule->points += taken;
			left -= taken;
		}
	}
	award->points -= left;
}

/* Whole points of a rule's part, towards zero: parts that cancel out may each be beyond all bounds. */
static int64
part_points(const Work *work, int position, Numeric part)
{
	const Program *program = work->program;
	Numeric		quotient = DatumGetNumeric(DirectFunctionCall2(numeric_div_trunc, NumericGetDatum(part),
															   NumericGetDatum(work->unit)));
	Numeric		limit = whole(INT64CONST(1) << 61);

	if (compare(quotient, limit) <= 0 && compare(add(quotient, limit), whole(0)) >= 0)
		return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(quotient)));
	ereport(ERROR,
			(errcode(ERRCODE_LY_POINTS_OVERFLOW),
			 position < 0 ?
			 errmsg("the tier's multiplier gives too many points on transaction " INT64_FORMAT, work->event->source_id) :
			 errmsg("rule \"%s\" gives too many points on transaction " INT64_FORMAT,
					program->rule[position]->name, work->event->source_id),
			 errhint("Multipliers that take back what others gave must not pass through numbers as large.")));
}

/*
 * Split the points over the rules' parts.
 *
 * A multiplier below one takes away, so parts may be negative: each part is
 * rounded towards zero, and what is left goes one by one to the parts with the
 * largest remainders, or to the first part.
 */
static void
split_rules(Work *work, Award *award, Numeric scale)
{
	Program    *program = work->program;
	Breakdown  *breakdown = &award->breakdown;
	int64		left = award->points;
	int64	   *weight;
	int64	   *extra;
	int			n = work->nparts;

	breakdown->rule = palloc(sizeof(BreakdownRule) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		BreakdownRule *rule = &breakdown->rule[i];
		int			position = work->part[i].position;
		Numeric		part = multiply(kept_of(&work->part[i]), scale);

		rule->id = position < 0 ? -work->member->pinned.tier_id :
			program->rule[position]->version_id;
		rule->points = part_points(work, position, part);
		rule->exact = by_unit(work, part);
		left -= rule->points;
	}
	breakdown->nrules = n;
	if (n > 0 && left != 0)
	{
		weight = palloc(sizeof(int64) * n * 2);
		extra = weight + n;
		for (int i = 0; i < n; i++)
			weight[i] = split_weight(subtract(breakdown->rule[i].exact,
											  whole(breakdown->rule[i].points)), whole(1));
		split_largest_remainder(left, weight, n, extra);
		for (int i = 0; i < n; i++)
			breakdown->rule[i].points += extra[i];
		pfree(weight);
	}
	if (work->capped)
		keep_limits(work, award, scale);
}

/* ------------------------------------------------------------------------
 * The decision
 * ------------------------------------------------------------------------ */

/* Make room for the work on one event. */
static void
start_work(Work *work, Program *program, Event *event, const MemberFacts *member,
		   TimestampTz known_at)
{
	memset(work, 0, sizeof(Work));
	work->program = program;
	work->event = event;
	work->member = member;
	work->known_at = known_at;
	work->capacity = 16;
	work->firing = palloc(sizeof(Firing) * work->capacity);
	work->candidates = palloc(sizeof(int) * (program->nrules + 1));
	work->order = whole(0);
	work->unit = whole(1);
	work->line = palloc(sizeof(Numeric) * (event->nlines + 1));
	for (int i = 0; i < event->nlines; i++)
		work->line[i] = work->order;
}

/* Multiply all that was added up by the event's own factor. */
static void
apply_factor(Work *work, Numeric factor)
{
	work->order = multiply(work->order, factor);
	for (int i = 0; i < work->event->nlines; i++)
		work->line[i] = multiply(work->line[i], factor);
	for (int i = 0; i < work->nparts; i++)
	{
		Part	   *part = &work->part[i];

		part->amount = multiply(part->amount, factor);
		for (int j = 0; part->share != NULL && j <= work->event->nlines; j++)
			part->share[j] = multiply(part->share[j], factor);
	}
}

/* Take what caps cut from a part out of the sums that it stands in; these only weigh from here on. */
static void
cut_sums(Work *work, const Part *part, Numeric cut)
{
	for (int line = -1; line < work->event->nlines; line++)
	{
		Numeric    *sum = line < 0 ? &work->order : &work->line[line];
		Numeric		product = multiply(part->share[line + 1], cut);

		*sum = subtract(*sum, DatumGetNumeric(DirectFunctionCall2(numeric_div, NumericGetDatum(product),
																	NumericGetDatum(part->amount))));
	}
}

/* Cut what each capped rule contributed to what it may still give; what all that cuts off, times unit. */
static Numeric
cut_parts(Work *work, Numeric scale)
{
	Numeric		all = whole(0);

	for (int i = 0; i < work->nparts; i++)
	{
		Part	   *part = &work->part[i];
		Numeric		exact;
		Numeric		kept;
		Numeric		cut;
		int64		level;

		/* what takes away needs no cap */
		if (part->share == NULL || compare(part->amount, whole(0)) <= 0)
			continue;
		exact = multiply(part->amount, scale);
		level = work->event->caps->room(work->event->caps, work->program,
										work->program->rule[part->position], work->known_at,
										by_unit(work, exact),
										divide_rounding(exact, work->unit, ROUNDING_CEIL, work->event),
										&part->limit);
		work->capped = true;
		kept = multiply(int64_div_fast_to_numeric(level, work->program->points_scale), work->unit);
		if (compare(kept, part->amount) >= 0)
			continue;
		cut = subtract(part->amount, kept);
		part->kept = kept;
		cut_sums(work, part, cut);
		all = add(all, cut);
	}
	return all;
}

/* Add up what fired, round once, split back. */
static void
finish_work(Work *work, Award *award)
{
	Numeric		scale = scale_factor(work->program);
	Numeric		total;
	Numeric		cut;

	memset(award, 0, sizeof(Award));
	award->breakdown.pinned = work->member->pinned;
	if (work->nfirings == 0)
		return;
	work->part = palloc(sizeof(Part) * (work->nfirings + 1));
	add_kind(work, RULE_BASE);
	apply_multipliers(work);
	add_kind(work, RULE_BONUS);
	if (work->event->factor != NULL)
		apply_factor(work, work->event->factor);
	total = work->order;
	for (int i = 0; i < work->event->nlines; i++)
		total = add(total, work->line[i]);
	if (work->event->caps != NULL && work->program->has_caps)
	{
		cut = cut_parts(work, scale);
		total = subtract(total, cut);
		/* a multiplier below one took from what was cut */
		if (compare(total, whole(0)) < 0)
			total = whole(0);
	}
	award->points = divide_rounding(multiply(total, scale), work->unit,
									work->program->rounding, work->event);
	split_rules(work, award, scale);
	split_lines(work, award, scale);
}

/* Decide what an event earns; EventConvert and EventShare have been called. */
void
EarnDecide(Program *program, Event *event, const MemberFacts *member,
		   TimestampTz known_at, Award *award)
{
	Work		work;

	start_work(&work, program, event, member, known_at);
	fire_rules(&work);
	finish_work(&work, award);
}

/* Fill the facts of an event for whoever evaluates expressions of its programme. */
void
EarnFacts(Program *program, Event *event, const MemberFacts *member)
{
	Work		work = {.program = program,.event = event,.member = member};

	set_facts(&work);
}

/* Cut an award down to so many points: every rule and line keeps its share, exact amounts stay what was wanted. */
void
EarnClip(Award *award, int64 points)
{
	Breakdown  *breakdown = &award->breakdown;
	int64	   *line = palloc(sizeof(int64) * Max(breakdown->nlines, 1));
	int64		left = points;
	int			largest = 0;
	int64	   *before = palloc(sizeof(int64) * Max(breakdown->nrules, 1));

	if (points >= award->points)
		return;
	for (int i = 0; i < breakdown->nrules; i++)
	{
		BreakdownRule *rule = &breakdown->rule[i];

		if (rule->points > breakdown->rule[largest].points)
			largest = i;
	}
	for (int i = 0; i < breakdown->nrules; i++)
	{
		BreakdownRule *rule = &breakdown->rule[i];

		before[i] = rule->points;
		rule->points = (int64) ((__int128) rule->points * points / award->points);
		left -= rule->points;
	}
	/* the largest first; none is made more than it was */
	for (int n = 0; n < breakdown->nrules && left > 0; n++)
	{
		int			i = (largest + n) % breakdown->nrules;
		int64		taken = Min(left, Max(before[i] - breakdown->rule[i].points, 0));

		breakdown->rule[i].points += taken;
		left -= taken;
	}
	if (breakdown->nrules > 0)
		breakdown->rule[largest].points += left;
	split_largest_remainder(points, breakdown->line, breakdown->nlines, line);
	breakdown->line = line;
	award->points = points;
}

/* Decide and tell of every rule of the event's kind why it fired or not. */
RuleVerdict *
EarnExplain(Program *program, Event *event, const MemberFacts *member,
			TimestampTz known_at, Award *award, int *nverdicts)
{
	Work		work;
	RuleVerdict *verdict = palloc0(sizeof(RuleVerdict) * (program->nrules + 1));

	start_work(&work, program, event, member, known_at);
	work.verdict = verdict;
	for (int i = 0; i < program->nrules; i++)
	{
		verdict[i].rule = program->rule[i];
		verdict[i].in_time = RuleApplies(program->rule[i], event->occurred_at, known_at);
	}
	fire_rules(&work);
	finish_work(&work, award);
	for (int i = 0; i < work.nfirings; i++)
	{
		RuleVerdict *mine = &verdict[work.firing[i].position];

		if (work.firing[i].counts)
			mine->fired = true;
		else
			mine->crowded_out = true;
	}
	for (int i = 0; i < award->breakdown.nrules; i++)
	{
		for (int j = 0; j < program->nrules; j++)
		{
			if (program->rule[j]->version_id == award->breakdown.rule[i].id)
			{
				verdict[j].exact = award->breakdown.rule[i].exact;
				verdict[j].points = award->breakdown.rule[i].points;
			}
		}
	}
	*nverdicts = program->nrules;
	return verdict;
}

/* ------------------------------------------------------------------------
 * Stamps
 * ------------------------------------------------------------------------ */

/* Name the stamp card in an error that its condition raises. */
static void
name_card(void *arg)
{
	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_LY_RULE_FAILED);
	errcontext("stamp card \"%s\"", ((const Card *) arg)->name);
}

/* Tell whether a card's condition is true of the facts at hand. */
static bool
card_counts(Program *program, const Card *card)
{
	bool		isnull;
	Datum		result;

	if (card->condition == NULL)
		return true;
	result = ExpressionEvaluate(card->condition, program->econtext, &isnull);
	return !isnull && DatumGetBool(result);
}

/* The stamps of so many units; a line that does not say is of one. */
static int64
stamps_of_units(Datum quantity)
{
	if (quantity == 0)
		return STAMP_UNIT;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8,
											 NumericGetDatum(multiply(DatumGetNumeric(quantity),
																	  whole(STAMP_UNIT)))));
}

/* What a line, or a purchase without lines, gives to a card that counts it. */
static int64
stamps_of(const Card *card, Datum quantity, int64 net)
{
	switch (card->counts)
	{
		case COUNT_UNITS:
			return Max(stamps_of_units(quantity), 0);
		case COUNT_VISITS:
			return STAMP_UNIT;
		case COUNT_AMOUNT:
			return Max(net, 0);
	}
	return 0;
}

/*
 * Decide what each line of a purchase gives to a stamp card; a purchase
 * without lines counts as one line of no article, and of no units.
 */
void
EarnStamps(Program *program, Event *event, const Card *card, int64 *stamps)
{
	MemberFacts nobody = {0};
	Work		work = {.program = program, .event = event, .member = &nobody};
	ErrorContextCallback callback = {.callback = name_card, .arg = unconstify(Card *, card),
	.previous = error_context_stack};

	set_facts(&work);
	error_context_stack = &callback;
	if (event->nlines == 0)
		stamps[0] = card->counts != COUNT_UNITS && card_counts(program, card) ?
			stamps_of(card, 0, event->net) : 0;
	for (int i = 0; i < event->nlines; i++)
	{
		const EventLine *line = &event->line[i];

		stamps[i] = 0;
		if (line->product != NULL && line->product->excluded)
			continue;
		set_line(program, line);
		if (card_counts(program, card))
			stamps[i] = stamps_of(card, line->quantity, line->net);
	}
	error_context_stack = callback.previous;
	ResetExprContext(program->econtext);
}
