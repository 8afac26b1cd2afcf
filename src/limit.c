/*
 * limit.c
 *	  Velocity limits: which apply to an event, and what they say of it.
 *
 * A decision in memory on the rings of subjects that the caller has locked:
 * knows no tables, no clock and no SPI.  Subjects and conditions are found
 * before anything is decided, so that all rows can be locked in one order;
 * therefore they may not read what other events of the statement change.
 */
#include "limit.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"

#define MAX_SUBJECT 500			/* bytes */

/* What limits have to do with an event: nothing so far. */
EventLimits *
LimitsOf(LimitBook *book, const Event *event)
{
	EventLimits *limits = palloc0(sizeof(EventLimits));

	limits->book = book;
	limits->source_id = event->source_id;
	book->events = lappend(book->events, limits);
	return limits;
}

/* ------------------------------------------------------------------------
 * Which limits apply
 * ------------------------------------------------------------------------ */

/* What the data did to a limit's expression is LY203, as with rules. */
static void
name_limit(void *arg)
{
	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_LY_RULE_FAILED);
	errcontext("limit \"%s\"", (*(const VelocityLimit **) arg)->name);
}

/* Tell whether a limit counts events of a time that were recorded then. */
static bool
limit_applies(const VelocityLimit *limit, const Event *event)
{
	return limit->event == event->kind && event->occurred_at >= limit->active_from &&
		event->recorded_at >= limit->created_at && event->recorded_at < limit->retired_at;
}

/* The subject of an event, NULL where the limit does not concern it. */
static text *
find_subject(const VelocityLimit *limit, ExprContext *econtext, bool of_member)
{
	bool		isnull;
	Datum		value;
	text	   *subject;

	if (of_member && !limit->of_member)
		return NULL;
	if (limit->condition != NULL && !of_member)
	{
		value = ExpressionEvaluate(limit->condition, econtext, &isnull);
		if (isnull || !DatumGetBool(value))
			return NULL;
	}
	value = ExpressionEvaluate(limit->subject, econtext, &isnull);
	if (isnull)
		return NULL;
	subject = DatumGetTextPCopy(value);
	if (VARSIZE_ANY_EXHDR(subject) > MAX_SUBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_LY_RULE_FAILED),
				 errmsg("the subject of limit \"%s\" has more than %d bytes", limit->name, MAX_SUBJECT),
				 errhint("Take a digest of it, for example md5(...).")));
	return subject;
}

/*
 * When an event counts: what says that it is of the future counts now, or it
 * would make all others late.
 */
static int64
bucket_of(const VelocityLimit *limit, const Event *event)
{
	return ring_bucket(Min(event->occurred_at, event->recorded_at), limit->width);
}

/* Find the limits that apply to an event and their subjects; its facts are at hand. */
void
LimitsFind(EventLimits *limits, Program *program, const Event *event)
{
	const VelocityLimit *limit = NULL;
	ErrorContextCallback callback = {.callback = name_limit,.arg = &limit,.previous = error_context_stack};

	limits->use = palloc0(sizeof(LimitUse) * Max(program->nlimits, 1));
	error_context_stack = &callback;
	for (int i = 0; i < program->nlimits; i++)
	{
		LimitUse   *use = &limits->use[limits->nuses];

		limit = &program->limit[i];
		if (!limit_applies(limit, event))
			continue;
		use->subject = find_subject(limit, program->econtext, limits->of_member);
		if (use->subject == NULL)
			continue;
		use->limit = limit;
		use->limit_id = limit->limit_id;
		use->program_id = limit->program_id;
		use->bucket = bucket_of(limit, event);
		limits->nuses++;
	}
	error_context_stack = callback.previous;
	ResetExprContext(program->econtext);
}

/* A correction stays with the limits, subjects and times of the award. */
void
LimitsPin(EventLimits *limits, const Program *program)
{
	limits->use = palloc0(sizeof(LimitUse) * Max(limits->nold, 1));
	for (int i = 0; i < limits->nold; i++)
	{
		for (int j = 0; j < program->nlimits; j++)
		{
			if (program->limit[j].limit_id != limits->old[i].limit_id)
				continue;
			limits->use[limits->nuses] = limits->old[i];
			limits->use[limits->nuses].pinned = true;
			limits->use[limits->nuses++].limit = &program->limit[j];
		}
	}
}

/* ------------------------------------------------------------------------
 * Judging
 * ------------------------------------------------------------------------ */

/* Take what an event had used out of the rings, to judge it anew or not at all. */
void
LimitsForget(EventLimits *limits)
{
	for (int i = 0; i < limits->nold; i++)
	{
		LimitUse   *old = &limits->old[i];

		if (!old->active || old->granted == 0)
			continue;
		ring_add(&old->state->ring, old->bucket, -old->granted);
		old->state->changed = true;
	}
}

/* How much of a limit an event wants. */
static int64
wanted_of(const VelocityLimit *limit, const Event *event, int64 points)
{
	switch (limit->measure)
	{
		case MEASURE_COUNT:
			return 1;
		case MEASURE_AMOUNT:
			return event->total;
		case MEASURE_POINTS:
			return points;
	}
	return 0;
}

/* Tell whether a return gave the budget of what is corrected back. */
static bool
was_given_back(const EventLimits *limits, const LimitUse *use)
{
	return use->pinned && limits->returned && !use->active;
}

/* What is left of a limit for an event. */
static int64
left_of(const EventLimits *limits, const LimitUse *use, LimitDecision *decision)
{
	decision->blocked = use->state->blocked;
	/* of what was all returned the budget was given back, and stays so */
	if (was_given_back(limits, use))
		return use->granted;
	decision->late = !ring_used(&use->state->ring, use->bucket, &decision->used);
	if (decision->late)
		return use->granted;	/* nothing, or what it had */
	if (decision->blocked)
		return 0;
	return Max(use->limit->maximum - decision->used, 0);
}

/* What is to be done where a limit does not have all that is wanted. */
static LimitVerdict
verdict_of(const EventLimits *limits, const VelocityLimit *limit)
{
	if (limit->verdict == LIMIT_HOLD && limits->correcting)
		return LIMIT_CLIP;
	return limit->verdict;
}

/* A figure of a limit as people read it. */
static const char *
figure(const VelocityLimit *limit, int64 value)
{
	return numeric_normalize(int64_div_fast_to_numeric(value, limit->digits));
}

/* What a limit had to go by. */
static char *
figures(const LimitDecision *decision)
{
	const VelocityLimit *limit = decision->use->limit;

	if (decision->blocked)
		return pstrdup("Its subject is blocked.");
	if (decision->late)
		return pstrdup("It comes later than the limit remembers.");
	return psprintf("It wants %s; %s of %s are used in the window.", figure(limit, decision->wanted),
					figure(limit, decision->used), figure(limit, limit->maximum));
}

/* Refuse the transaction. */
static void
reject(const LimitDecision *decision)
{
	const VelocityLimit *limit = decision->use->limit;

	ereport(ERROR,
			(errcode(ERRCODE_LY_LIMIT_REACHED),
			 errmsg("limit \"%s\" refuses transaction " INT64_FORMAT, limit->name, decision->source_id),
			 errdetail("%s", figures(decision)),
			 errhint("Try again later; loyalty.limit_status says what is left.")));
}

/* Note a decision that is not a plain pass. */
static void
note(EventLimits *limits, const LimitDecision *decision)
{
	MemoryContext old = MemoryContextSwitchTo(limits->book->context);
	LimitDecision *copy = palloc(sizeof(LimitDecision));

	*copy = *decision;
	if (copy->verdict == LIMIT_HOLD)
		copy->granted = copy->points = 0;
	limits->book->decisions = lappend(limits->book->decisions, copy);
	MemoryContextSwitchTo(old);
}

/*
 * Ask one limit; returns the points that it leaves, and what it says in
 * *decision, whose verdict is allow where all is well.
 */
static int64
ask_limit(EventLimits *limits, LimitUse *use, const Event *event, int64 points,
		  LimitDecision *decision)
{
	int64		left;

	memset(decision, 0, sizeof(LimitDecision));
	decision->source_id = event->source_id;
	decision->use = use;
	decision->wanted = wanted_of(use->limit, event, points);
	left = left_of(limits, use, decision);
	decision->granted = Min(decision->wanted, left);
	use->judged = true;
	use->granted = decision->granted;
	if (decision->wanted <= left && !decision->blocked)
		return points;
	decision->reached = true;
	decision->verdict = verdict_of(limits, use->limit);
	if (decision->verdict == LIMIT_REJECT)
		reject(decision);
	if (decision->verdict == LIMIT_ALLOW)
		/* it is counted all the same, within what a ring can hold */
		use->granted = decision->granted =
			Min(decision->wanted, Max(2 * RING_MAX_SUM - decision->used, 0));
	else if (use->limit->measure == MEASURE_POINTS)
		points = decision->granted;
	else
		points = decision->wanted == 0 ? 0 :
			(int64) ((__int128) points * decision->granted / decision->wanted);
	decision->points = points;
	return points;
}

/* Count what was admitted. */
static void
count_uses(EventLimits *limits)
{
	for (int i = 0; i < limits->nuses; i++)
	{
		LimitUse   *use = &limits->use[i];

		if (was_given_back(limits, use))
			continue;
		use->active = true;
		ring_add(&use->state->ring, use->bucket, use->granted);
		use->state->changed |= use->granted != 0;
	}
}

/*
 * Ask every limit about an event whose award is decided: the award is cut down
 * to what they leave; false, with the reason, where it is to wait.  Limits on
 * points come last, for what the others left.
 */
bool
LimitsJudge(EventLimits *limits, const Event *event, Award *award,
			const char **reason, char **detail)
{
	int64		points = award->points;
	bool		held = false;

	limits->judged = true;
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < limits->nuses; i++)
		{
			LimitUse   *use = &limits->use[i];
			LimitDecision decision;

			if ((use->limit->measure == MEASURE_POINTS) != (pass == 1))
				continue;
			points = ask_limit(limits, use, event, points, &decision);
			if (!decision.reached)
				continue;
			decision.points_wanted = award->points;
			decision.points = points;
			note(limits, &decision);
			if (decision.verdict == LIMIT_HOLD && !held)
			{
				*reason = psprintf("limit \"%s\"", use->limit->name);
				*detail = figures(&decision);
			}
			held |= decision.verdict == LIMIT_HOLD;
		}
	}
	if (held)
		limits->nuses = 0;		/* what waits uses nothing */
	if (!held)
	{
		count_uses(limits);
		EarnClip(award, points);
	}
	return !held;
}

/* ------------------------------------------------------------------------
 * Redemptions
 * ------------------------------------------------------------------------ */

/* From when on a limit has room for what is wanted if nothing else comes; DT_NOEND: never. */
static TimestampTz
room_at(const LimitDecision *decision)
{
	const VelocityLimit *limit = decision->use->limit;
	int64		bucket = decision->use->bucket;
	int64		used;

	if (decision->wanted > limit->maximum)
		return DT_NOEND;
	do
	{
		bucket++;
		if (!ring_used(&decision->use->state->ring, bucket, &used))
			used = limit->maximum;
	} while (decision->wanted > limit->maximum - used);
	return bucket * limit->width;
}

/* What a refused redemption is told of the time when it may come again. */
static const char *
room_sentence(const LimitDecision *decision)
{
	TimestampTz at;

	if (decision->blocked || decision->late)
		return "";
	at = room_at(decision);
	if (at == DT_NOEND)
		return " It is more than the limit ever admits.";
	return psprintf(" There is room again from %s.", timestamptz_to_str(at));
}

/* Refuse a redemption. */
static void
refuse_redemption(const LimitDecision *decision)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_LIMIT_REACHED),
			 errmsg("limit \"%s\" refuses to let these points go", decision->use->limit->name),
			 errdetail("%s%s", figures(decision), room_sentence(decision)),
			 decision->verdict == LIMIT_CLIP ?
			 errhint("redeem and hold with partial => true take what there is room for; loyalty.limit_status says what is left.") :
			 errhint("Try again later; loyalty.limit_status says what is left.")));
}

/* The points of a redemption that a limit has room for. */
static int64
fitting(const LimitDecision *decision, const Program *program, int64 points, PointsWithin within)
{
	switch (decision->use->limit->measure)
	{
		case MEASURE_COUNT:
			return decision->granted > 0 ? points : 0;
		case MEASURE_AMOUNT:
			return decision->granted < decision->wanted ?
				Min(points, within(program, decision->granted)) : points;
		case MEASURE_POINTS:
			return Min(points, decision->granted);
	}
	return 0;
}

/*
 * Ask every limit about a redemption; returns the points that there is room
 * for, fewer than asked for only where it may be partial.  Counts nothing yet.
 */
int64
LimitsAsk(EventLimits *limits, const Program *program, const Event *event, int64 points,
		  bool partial, PointsWithin within)
{
	int64		fit = points;

	limits->asked = palloc0(sizeof(LimitDecision) * Max(limits->nuses, 1));
	for (int i = 0; i < limits->nuses; i++)
	{
		LimitDecision *decision = &limits->asked[i];
		int64		left;

		decision->source_id = event->source_id;
		decision->use = &limits->use[i];
		decision->wanted = wanted_of(decision->use->limit, event, points);
		left = left_of(limits, decision->use, decision);
		decision->granted = Min(decision->wanted, left);
		if (decision->wanted <= left && !decision->blocked && !decision->late)
			continue;
		decision->reached = true;
		decision->verdict = decision->use->limit->verdict;
		if (decision->verdict == LIMIT_ALLOW)
			continue;
		if (decision->verdict == LIMIT_CLIP && partial && !decision->blocked)
			fit = Min(fit, fitting(decision, program, points, within));
		else
			fit = 0;
		if (fit <= 0)
			refuse_redemption(decision);
	}
	return fit;
}

/* Refuse a redemption of which too little is left: in the name of the first limit that cut it. */
void
LimitsRefuse(const EventLimits *limits)
{
	for (int i = 0; i < limits->nuses; i++)
	{
		if (limits->asked[i].reached && limits->asked[i].verdict != LIMIT_ALLOW)
			refuse_redemption(&limits->asked[i]);
	}
	elog(ERROR, "no limit cut the redemption");
}

/* Count a redemption, as it is after all limits, of the points that were wanted. */
void
LimitsTake(EventLimits *limits, const Event *event, int64 points, int64 wanted)
{
	for (int i = 0; i < limits->nuses; i++)
	{
		LimitUse   *use = &limits->use[i];
		LimitDecision *decision = &limits->asked[i];

		use->judged = true;
		use->granted = wanted_of(use->limit, event, points);
		if (decision->reached && decision->verdict == LIMIT_ALLOW)
			/* counted all the same, within what a ring can hold */
			use->granted = Min(use->granted, Max(2 * RING_MAX_SUM - decision->used, 0));
		decision->granted = use->granted;
		decision->points_wanted = wanted;
		decision->points = points;
		if (decision->reached)
			note(limits, decision);
	}
	count_uses(limits);
}

/*
 * Leave so many points and so much money of what a redemption used, which is
 * pinned; a count stands until nothing is left.
 */
void
LimitsLeave(EventLimits *limits, int64 points, int64 money)
{
	for (int i = 0; i < limits->nuses; i++)
	{
		LimitUse   *use = &limits->use[i];
		int64		left = use->granted;

		use->judged = true;
		if (!use->active)
			continue;
		if (use->limit->measure == MEASURE_POINTS)
			left = Min(left, points);
		else if (use->limit->measure == MEASURE_AMOUNT)
			left = Min(left, money);
		if (points == 0)
			left = 0;
		ring_add(&use->state->ring, use->bucket, left - use->granted);
		use->state->changed |= left != use->granted;
		/* what was given back whole keeps its figure */
		if (points == 0)
			use->active = false;
		else
			use->granted = left;
	}
}
