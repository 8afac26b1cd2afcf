/*
 * tier.c
 *	  Which tier a tally earns, and until when a tier is good.
 *
 * Pure: knows no tables, no clock, no SPI.  A tier is a function of sums by
 * month, so that an award, a review and a check all give the same answer.
 */
#include "tier.h"

#include "calendar.h"

/*
 * The months that qualify on a day.
 *
 * Windows are whole months: the calendar year, the last N months, the year
 * that began in the month of joining, or everything.
 */
void
tier_window_months(const TierPolicy *policy, int32 joined_on, int32 day,
				   int32 *from_month, int32 *to_month)
{
	int32		month = calendar_month(day);
	int32		offset;

	*to_month = month;
	switch (policy->window)
	{
		case WINDOW_CALENDAR:
			offset = ((month % 12) + 12) % 12;
			*from_month = month - offset;
			break;
		case WINDOW_ROLLING:
			*from_month = month - policy->months + 1;
			break;
		case WINDOW_ANNIVERSARY:
			offset = (((month - calendar_month(joined_on)) % 12) + 12) % 12;
			*from_month = month - offset;
			break;
		case WINDOW_LIFETIME:
			*from_month = INT32_MIN;
			break;
	}
}

/* The figure that one tier is measured by. */
static int64
metric_of(const TallyMonth *sums, TierMetric metric)
{
	switch (metric)
	{
		case METRIC_POINTS:
			return sums->points;
		case METRIC_SPEND:
			return sums->spend;
		case METRIC_VISITS:
			return sums->visits;
	}
	return 0;
}

/* Find the highest tier whose threshold the window reaches. */
CoreStatus
tier_earned(const TierPolicy *policy, const Tier *tiers, int ntiers,
			const TallySet *tally, int32 joined_on, int32 day, int *index)
{
	TallyMonth	sums;
	int32		from_month;
	int32		to_month;
	CoreStatus	status;

	*index = NO_TIER;
	if (ntiers == 0)
		return CORE_OK;
	tier_window_months(policy, joined_on, day, &from_month, &to_month);
	status = tallyset_sum(tally, from_month, to_month, &sums);
	if (status != CORE_OK)
		return status;
	for (int i = ntiers - 1; i >= 0; i--)
	{
		if (metric_of(&sums, tiers[i].metric) >= tiers[i].threshold)
		{
			*index = i;
			break;
		}
	}
	return CORE_OK;
}

/* The last day on which a tier reached on a day is good: the end of this period and the next. */
int32
tier_good_until(const TierPolicy *policy, int32 joined_on, int32 day)
{
	int32		month = calendar_month(day);
	int32		offset;

	switch (policy->window)
	{
		case WINDOW_CALENDAR:
			offset = ((month % 12) + 12) % 12;
			return calendar_month_start(month - offset + 24) - 1;
		case WINDOW_ROLLING:
			return calendar_month_start(month + policy->months + 1) - 1;
		case WINDOW_ANNIVERSARY:
			offset = (((month - calendar_month(joined_on)) % 12) + 12) % 12;
			return calendar_month_start(month - offset + 24) - 1;
		case WINDOW_LIFETIME:
			break;
	}
	return INT32_MAX;
}

/* The tier after a review of a member who holds one and earned another. */
int
tier_after_review(const TierPolicy *policy, int current, int earned)
{
	if (earned >= current)
		return earned;
	switch (policy->downgrade)
	{
		case DOWNGRADE_NONE:
			return current;
		case DOWNGRADE_ONE_STEP:
			return current - 1;
		case DOWNGRADE_REQUALIFY:
			return earned;
	}
	return current;
}
