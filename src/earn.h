/*
 * earn.h
 *	  Pure decision: what an event earns under a programme.
 */
#ifndef LOYALTY_EARN_H
#define LOYALTY_EARN_H

#define STAMP_UNIT	10000			/* stamps are counted in 1/10000: as money, and units of up to four decimals */

#include "breakdown.h"
#include "event.h"
#include "program.h"

/* What rules may know of the member, as of the event */
typedef struct MemberFacts
{
	int64		member_id;
	Datum		external_id;
	TimestampTz joined_at;
	bool		has_birthday;
	int32		birthday;
	bool		staff;
	Datum		attributes;		/* 0: null */
	PinnedFacts pinned;
} MemberFacts;

typedef struct Award
{
	int64		points;			/* smallest unit */
	Breakdown	breakdown;
} Award;

/* Whoever knows how much rules with caps or a budget may still give for one event */
typedef struct EarnCaps
{
	/*
	 * To how many smallest units of a point what a rule wants to give, exactly
	 * and rounded up, is cut; in *limit, how many it may be credited with once
	 * all is rounded.
	 */
	int64		(*room) (struct EarnCaps *caps, const Program *program, const Rule *rule,
						 TimestampTz known_at, Numeric exact, int64 wanted, int64 *limit);
} EarnCaps;

/* Why a rule did or did not fire */
typedef struct RuleVerdict
{
	const Rule *rule;
	bool		in_time;
	bool		fired;
	bool		crowded_out;	/* another rule of its exclusive group was better */
	bool		null_points;
	Numeric		exact;
	int64		points;
} RuleVerdict;

extern bool EarnIsAllowed(Numeric value);
extern void EarnDecide(Program *program, Event *event, const MemberFacts *member,
					   TimestampTz known_at, Award *award);
extern void EarnFacts(Program *program, Event *event, const MemberFacts *member);
extern void EarnClip(Award *award, int64 points);
extern void EarnStamps(Program *program, Event *event, const Card *card, int64 *stamps);
extern RuleVerdict *EarnExplain(Program *program, Event *event, const MemberFacts *member,
								TimestampTz known_at, Award *award, int *nverdicts);

#endif							/* LOYALTY_EARN_H */
