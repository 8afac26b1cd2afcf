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
#include "earn_internal.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

#include "errors.h"
#include "split.h"

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
	work->order = EarnWhole(0);
	work->unit = EarnWhole(1);
	work->line = palloc(sizeof(Numeric) * (event->nlines + 1));
	for (int i = 0; i < event->nlines; i++)
		work->line[i] = work->order;
}

/* Multiply all that was added up by the event's own factor. */
static void
apply_factor(Work *work, Numeric factor)
{
	work->order = EarnMultiply(work->order, factor);
	for (int i = 0; i < work->event->nlines; i++)
		work->line[i] = EarnMultiply(work->line[i], factor);
	for (int i = 0; i < work->nparts; i++)
	{
		Part	   *part = &work->part[i];

		part->amount = EarnMultiply(part->amount, factor);
		for (int j = 0; part->share != NULL && j <= work->event->nlines; j++)
			part->share[j] = EarnMultiply(part->share[j], factor);
	}
}

/* Take what caps cut from a part out of the sums that it stands in; these only weigh from here on. */
static void
cut_sums(Work *work, const Part *part, Numeric cut)
{
	for (int line = -1; line < work->event->nlines; line++)
	{
		Numeric    *sum = line < 0 ? &work->order : &work->line[line];
		Numeric		product = EarnMultiply(part->share[line + 1], cut);

		*sum = EarnSubtract(*sum, DatumGetNumeric(DirectFunctionCall2(numeric_div, NumericGetDatum(product),
																	NumericGetDatum(part->amount))));
	}
}

/* Cut what each capped rule contributed to what it may still give; what all that cuts off, times unit. */
static Numeric
cut_parts(Work *work, Numeric scale)
{
	Numeric		all = EarnWhole(0);

	for (int i = 0; i < work->nparts; i++)
	{
		Part	   *part = &work->part[i];
		Numeric		exact;
		Numeric		kept;
		Numeric		cut;
		int64		level;

		/* what takes away needs no cap */
		if (part->share == NULL || EarnCompare(part->amount, EarnWhole(0)) <= 0)
			continue;
		exact = EarnMultiply(part->amount, scale);
		level = work->event->caps->room(work->event->caps, work->program,
										work->program->rule[part->position], work->known_at,
										EarnByUnit(work, exact),
										EarnDivideRounding(exact, work->unit, ROUNDING_CEIL, work->event),
										&part->limit);
		work->capped = true;
		kept = EarnMultiply(int64_div_fast_to_numeric(level, work->program->points_scale), work->unit);
		if (EarnCompare(kept, part->amount) >= 0)
			continue;
		cut = EarnSubtract(part->amount, kept);
		part->kept = kept;
		cut_sums(work, part, cut);
		all = EarnAdd(all, cut);
	}
	return all;
}

/* Add up what fired, round once, split back. */
static void
finish_work(Work *work, Award *award)
{
	Numeric		scale = EarnScaleFactor(work->program);
	Numeric		total;
	Numeric		cut;

	memset(award, 0, sizeof(Award));
	award->breakdown.pinned = work->member->pinned;
	if (work->nfirings == 0)
		return;
	work->part = palloc(sizeof(Part) * (work->nfirings + 1));
	EarnAddKind(work, RULE_BASE);
	EarnApplyMultipliers(work);
	EarnAddKind(work, RULE_BONUS);
	if (work->event->factor != NULL)
		apply_factor(work, work->event->factor);
	total = work->order;
	for (int i = 0; i < work->event->nlines; i++)
		total = EarnAdd(total, work->line[i]);
	if (work->event->caps != NULL && work->program->has_caps)
	{
		cut = cut_parts(work, scale);
		total = EarnSubtract(total, cut);
		/* a multiplier below one took from what was cut */
		if (EarnCompare(total, EarnWhole(0)) < 0)
			total = EarnWhole(0);
	}
	award->points = EarnDivideRounding(EarnMultiply(total, scale), work->unit,
									work->program->rounding, work->event);
	EarnSplitRules(work, award, scale);
	EarnSplitLines(work, award, scale);
}

/* Decide what an event earns; EventConvert and EventShare have been called. */
void
EarnDecide(Program *program, Event *event, const MemberFacts *member,
		   TimestampTz known_at, Award *award)
{
	Work		work;

	start_work(&work, program, event, member, known_at);
	EarnFireRules(&work);
	finish_work(&work, award);
}

/* Fill the facts of an event for whoever evaluates expressions of its programme. */
void
EarnFacts(Program *program, Event *event, const MemberFacts *member)
{
	Work		work = {.program = program,.event = event,.member = member};

	EarnSetFacts(&work);
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
	EarnFireRules(&work);
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
											 NumericGetDatum(EarnMultiply(DatumGetNumeric(quantity),
																	  EarnWhole(STAMP_UNIT)))));
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

	EarnSetFacts(&work);
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
		EarnSetLine(program, line);
		if (card_counts(program, card))
			stamps[i] = stamps_of(card, line->quantity, line->net);
	}
	error_context_stack = callback.previous;
	ResetExprContext(program->econtext);
}
