/*
 * tier.h
 *	  Pure decisions about tiers: what a tally earns, how long it is good.
 */
#ifndef LOYALTY_TIER_H
#define LOYALTY_TIER_H

#include "core.h"
#include "tally.h"

typedef enum TierMetric
{
	METRIC_POINTS,
	METRIC_SPEND,
	METRIC_VISITS
} TierMetric;

typedef enum TierWindow
{
	WINDOW_CALENDAR,
	WINDOW_ROLLING,
	WINDOW_ANNIVERSARY,
	WINDOW_LIFETIME
} TierWindow;

typedef enum Downgrade
{
	DOWNGRADE_NONE,
	DOWNGRADE_ONE_STEP,
	DOWNGRADE_REQUALIFY
} Downgrade;

typedef struct Tier
{
	int32		tier_id;
	int			rank;
	TierMetric	metric;
	int64		threshold;		/* smallest unit of points, money4, or visits */
} Tier;

typedef struct TierPolicy
{
	TierWindow	window;
	int			months;			/* of a rolling window */
	Downgrade	downgrade;
	int			grace_days;
	int			revoke_days;
} TierPolicy;

/* A member's place in the tiers; index -1 is below the lowest */
#define NO_TIER (-1)

extern void tier_window_months(const TierPolicy *policy, int32 joined_on, int32 day,
							   int32 *from_month, int32 *to_month);
extern CoreStatus tier_earned(const TierPolicy *policy, const Tier *tiers, int ntiers,
							  const TallySet *tally, int32 joined_on, int32 day, int *index);
extern int32 tier_good_until(const TierPolicy *policy, int32 joined_on, int32 day);
extern int	tier_after_review(const TierPolicy *policy, int current, int earned);

#endif							/* LOYALTY_TIER_H */
