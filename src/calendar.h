/*
 * calendar.h
 *	  Pure calendar arithmetic on days since 2000-01-01.
 */
#ifndef LOYALTY_CALENDAR_H
#define LOYALTY_CALENDAR_H

#include "core.h"

#define CALENDAR_NEVER	INT32_MAX	/* the day that never comes */
#define CALENDAR_ALWAYS INT32_MIN	/* before all days */

typedef enum ExpiryKind
{
	EXPIRY_NEVER,
	EXPIRY_AFTER,
	EXPIRY_FIXED_DAY,
	EXPIRY_SLIDING				/* all points, some time after the last activity */
} ExpiryKind;

typedef enum ExpiryRounding
{
	ROUND_DAY,
	ROUND_MONTH,
	ROUND_YEAR
} ExpiryRounding;

/* What a cap counts in */
typedef enum CalendarPeriod
{
	PERIOD_DAY,
	PERIOD_WEEK,				/* from Monday */
	PERIOD_MONTH,
	PERIOD_YEAR,
	PERIOD_EVER
} CalendarPeriod;

#define CALENDAR_PERIODS 5

typedef struct ExpiryPolicy
{
	ExpiryKind	kind;
	int			months;
	int			days;
	ExpiryRounding rounding;
	int			fixed_month;
	int			fixed_day;
} ExpiryPolicy;

extern int32 calendar_day(int year, int month, int day);
extern void calendar_civil(int32 day, int *year, int *month, int *day_of_month);
extern int32 calendar_month(int32 day);
extern int32 calendar_month_start(int32 month);
extern int32 calendar_add_months(int32 day, int months);
extern int	calendar_weekday(int32 day);
extern int32 calendar_period_start(int32 day, CalendarPeriod period);
extern bool calendar_is_anniversary(int32 birthday, int32 day);
extern int32 calendar_celebration(int32 date, int32 first, int32 last, bool leaps_to_march);
extern int32 calendar_slides_until(const ExpiryPolicy *policy, int32 last_day);
extern int32 calendar_expires_on(const ExpiryPolicy *policy, int32 available_from);

#endif							/* LOYALTY_CALENDAR_H */
