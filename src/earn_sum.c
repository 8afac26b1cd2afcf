/*
 * earn_sum.c
 *	  Adds up what fired: base rules, times multipliers, plus bonuses; exact
 * arithmetic over sums that are kept times the order's amount where a line's
 * multiplier needs its share.
 */
#include "earn_internal.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

#include "errors.h"

Numeric
EarnAdd(Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(a), NumericGetDatum(b)));
}

Numeric
EarnSubtract(Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(numeric_sub, NumericGetDatum(a), NumericGetDatum(b)));
}

Numeric
EarnMultiply(Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(numeric_mul, NumericGetDatum(a), NumericGetDatum(b)));
}

int
EarnCompare(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a), NumericGetDatum(b)));
}

Numeric
EarnWhole(int64 value)
{
	return int64_to_numeric(value);
}

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
			part->share[i] = EarnWhole(0);
	}
	return part;
}

/* Credit a rule with an exact contribution to a line's sum, or at -1 to the order's. */
static void
credit(Work *work, int position, int line, Numeric amount)
{
	Part	   *part = part_of(work, position);

	part->amount = part->amount == NULL ? amount : EarnAdd(part->amount, amount);
	if (part->share != NULL)
		part->share[line + 1] = EarnAdd(part->share[line + 1], amount);
}

/* Add the firings of one kind to the running sums, times unit. */
void
EarnAddKind(Work *work, RuleKind kind)
{
	for (int i = 0; i < work->nfirings; i++)
	{
		const Firing *firing = &work->firing[i];
		Numeric		amount;

		if (!firing->counts || work->program->rule[firing->position]->kind != kind)
			continue;
		amount = work->by_line ? EarnMultiply(firing->value, work->unit) : firing->value;
		if (firing->line < 0)
			work->order = EarnAdd(work->order, amount);
		else
			work->line[firing->line] = EarnAdd(work->line[firing->line], amount);
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
	work->unit = EarnWhole(event->net);
	for (int i = 0; i < event->nlines; i++)
		work->line[i] = EarnAdd(EarnMultiply(work->line[i], work->unit),
							EarnMultiply(work->order, EarnWhole(event->line[i].net)));
	work->order = EarnWhole(0);
	for (int i = 0; i < work->nparts; i++)
	{
		Part	   *part = &work->part[i];

		part->amount = EarnMultiply(part->amount, work->unit);
		for (int j = 1; part->share != NULL && j <= event->nlines; j++)
			part->share[j] = EarnAdd(EarnMultiply(part->share[j], work->unit),
								 EarnMultiply(part->share[0], EarnWhole(event->line[j - 1].net)));
		if (part->share != NULL)
			part->share[0] = work->order;
	}
}

/* Multiply one running sum by a factor and credit the difference. */
static void
multiply_sum(Work *work, int line, Numeric factor, int position)
{
	Numeric    *sum = line < 0 ? &work->order : &work->line[line];
	Numeric		product = EarnMultiply(*sum, factor);

	credit(work, position, line, EarnSubtract(product, *sum));
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
	order = EarnCompare(a->value, b->value);
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

		if (tier != NULL && (best == NULL || EarnCompare(tier->multiplier, best->value) >= 0))
			multiply_sum(work, line, tier->multiplier, -1);
		else if (best != NULL)
			multiply_sum(work, line, best->value, best->position);
	}
}

/* Apply the multipliers to the base. */
void
EarnApplyMultipliers(Work *work)
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
Numeric
EarnScaleFactor(const Program *program)
{
	int64		factor = 1;

	for (int i = 0; i < program->points_scale; i++)
		factor *= 10;
	return EarnWhole(factor);
}

/* Divide by the unit, towards minus infinity in whole numbers; all operands are not negative. */
int64
EarnDivideRounding(Numeric amount, Numeric unit, Rounding rounding, const Event *event)
{
	Numeric		divisor = unit;
	Numeric		two = EarnWhole(2);
	Datum		quotient;

	if (rounding == ROUNDING_CEIL)
	{
		quotient = DirectFunctionCall2(numeric_div_trunc, NumericGetDatum(amount),
									   NumericGetDatum(divisor));
		if (EarnCompare(EarnMultiply(DatumGetNumeric(quotient), divisor), amount) < 0)
			quotient = NumericGetDatum(EarnAdd(DatumGetNumeric(quotient), EarnWhole(1)));
	}
	else
	{
		if (rounding == ROUNDING_NEAREST)
		{
			amount = EarnAdd(EarnMultiply(amount, two), divisor);
			divisor = EarnMultiply(divisor, two);
		}
		quotient = DirectFunctionCall2(numeric_div_trunc, NumericGetDatum(amount),
									   NumericGetDatum(divisor));
	}
	if (EarnCompare(DatumGetNumeric(quotient), EarnWhole(MAX_AWARD)) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_POINTS_OVERFLOW),
				 errmsg("transaction " INT64_FORMAT " earns too many points", event->source_id),
				 errdetail("One transaction earns at most " INT64_FORMAT ".", MAX_AWARD)));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, quotient));
}
