/*
 * earn_internal.h
 *	  What the files of the room share; nobody else includes it.
 */
#ifndef LOYALTY_EARN_INTERNAL_H
#define LOYALTY_EARN_INTERNAL_H

#include "earn.h"


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

extern void EarnSetLine(Program *program, const EventLine *line);
extern void EarnSetFacts(Work *work);
extern void EarnFireRules(Work *work);
extern Numeric EarnAdd(Numeric a, Numeric b);
extern Numeric EarnSubtract(Numeric a, Numeric b);
extern Numeric EarnMultiply(Numeric a, Numeric b);
extern int EarnCompare(Numeric a, Numeric b);
extern Numeric EarnWhole(int64 value);
extern void EarnAddKind(Work *work, RuleKind kind);
extern void EarnApplyMultipliers(Work *work);
extern Numeric EarnScaleFactor(const Program *program);
extern int64 EarnDivideRounding(Numeric amount, Numeric unit, Rounding rounding, const Event *event);
extern void EarnSplitLines(Work *work, Award *award, Numeric scale);
extern Numeric EarnByUnit(const Work *work, Numeric amount);
extern void EarnSplitRules(Work *work, Award *award, Numeric scale);

#endif							/* LOYALTY_EARN_INTERNAL_H */
