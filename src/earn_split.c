/*
 * earn_split.c
 *	  Splits the posted points back to rules and lines, by largest remainder.
 */
#include "earn_internal.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

#include "errors.h"
#include "split.h"

/* A weight for splitting: whole ten-thousandths of a smallest unit, not negative. */
static int64
split_weight(Numeric exact, Numeric unit)
{
	Numeric		scaled = EarnMultiply(exact, EarnWhole(10000));
	Datum		quotient = DirectFunctionCall2(numeric_div_trunc, NumericGetDatum(scaled),
											   NumericGetDatum(unit));

	if (EarnCompare(DatumGetNumeric(quotient), EarnWhole(0)) <= 0)
		return 0;
	if (EarnCompare(DatumGetNumeric(quotient), EarnWhole(INT64CONST(1) << 61)) > 0)
		return INT64CONST(1) << 61;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, quotient));
}

/* Split the points over the lines: each line's own, and its share of the order's by net amount. */
void
EarnSplitLines(Work *work, Award *award, Numeric scale)
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
	order = split_weight(EarnMultiply(work->order, scale), work->unit);
	split_largest_remainder(order, net, n, weight);
	for (int i = 0; i < n; i++)
	{
		if (EarnCompare(work->line[i], EarnWhole(0)) != 0)
			weight[i] += split_weight(EarnMultiply(work->line[i], scale), work->unit);
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
Numeric
EarnByUnit(const Work *work, Numeric amount)
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
		rule->exact = EarnByUnit(work, EarnMultiply(part->amount, scale));
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
	Numeric		limit = EarnWhole(INT64CONST(1) << 61);

	if (EarnCompare(quotient, limit) <= 0 && EarnCompare(EarnAdd(quotient, limit), EarnWhole(0)) >= 0)
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
void
EarnSplitRules(Work *work, Award *award, Numeric scale)
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
		Numeric		part = EarnMultiply(kept_of(&work->part[i]), scale);

		rule->id = position < 0 ? -work->member->pinned.tier_id :
			program->rule[position]->version_id;
		rule->points = part_points(work, position, part);
		rule->exact = EarnByUnit(work, part);
		left -= rule->points;
	}
	breakdown->nrules = n;
	if (n > 0 && left != 0)
	{
		weight = palloc(sizeof(int64) * n * 2);
		extra = weight + n;
		for (int i = 0; i < n; i++)
			weight[i] = split_weight(EarnSubtract(breakdown->rule[i].exact,
											  EarnWhole(breakdown->rule[i].points)), EarnWhole(1));
		split_largest_remainder(left, weight, n, extra);
		for (int i = 0; i < n; i++)
			breakdown->rule[i].points += extra[i];
		pfree(weight);
	}
	if (work->capped)
		keep_limits(work, award, scale);
}
