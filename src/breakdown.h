/*
 * breakdown.h
 *	  How an award came about: which rule versions gave what, each line's
 *	  share, and the facts of the member that it pinned.
 */
#ifndef LOYALTY_BREAKDOWN_H
#define LOYALTY_BREAKDOWN_H

#include "postgres.h"

#include "utils/numeric.h"

/* What the member was when the event was decided */
typedef struct PinnedFacts
{
	int32		tier_id;		/* 0: none */
	int64		purchases;		/* before the event */
	int64		spend;			/* money4, before the event */
} PinnedFacts;

typedef struct BreakdownRule
{
	int32		id;				/* rule version, or minus the tier for its multiplier */
	int64		points;			/* share of the posted points */
	Numeric		exact;			/* in smallest units of a point */
} BreakdownRule;

typedef struct Breakdown
{
	PinnedFacts pinned;
	int			nrules;
	BreakdownRule *rule;
	int			nlines;
	int64	   *line;			/* points of each line */
} Breakdown;

extern bytea *BreakdownEncode(const Breakdown *breakdown);
extern void BreakdownDecode(const bytea *bytes, Breakdown *breakdown);
extern void BreakdownSubtract(Breakdown *from, const Breakdown *what);

#endif							/* LOYALTY_BREAKDOWN_H */
