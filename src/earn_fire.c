/*
 * earn_fire.c
 *	  Which rules fire on an event, and with what values.
 */
#include "earn_internal.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

#include "errors.h"

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
	return !numeric_is_nan(value) && !numeric_is_inf(value) && EarnCompare(value, EarnWhole(0)) >= 0 &&
		EarnCompare(value, EarnWhole(MAX_AWARD)) <= 0;
}

/* Refuse what no rule may give. */
static void
check_value(const Rule *rule, Numeric value, int64 source_id)
{
	char	   *text;

	if (EarnIsAllowed(value))
		return;
	if (!numeric_is_nan(value) && !numeric_is_inf(value) && EarnCompare(value, EarnWhole(0)) >= 0)
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
			if (EarnCompare(work->firing[i].value, work->firing[j].value) > 0)
				work->firing[j].counts = false;
			else
				work->firing[i].counts = false;
		}
	}
	ResetExprContext(program->econtext);
}

/* Try every rule on the event. */
void
EarnFireRules(Work *work)
{
	Program    *program = work->program;
	Event	   *event = work->event;

	EarnSetFacts(work);
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
		EarnSetLine(program, &event->line[i]);
		try_rules(work, ON_LINE, i);
		CHECK_FOR_INTERRUPTS();
	}
}
