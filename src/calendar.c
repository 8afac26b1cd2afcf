/*
 * calendar.c
 *	  The proleptic Gregorian calendar on day numbers, and when points expire.
 *
 * Pure: knows no time zone and no clock.  Day 0 is 2000-01-01, month 0 is
 * January 2000.  Conversions after Howard Hinnant, "chrono-Compatible
 * Low-Level Date Algorithms".
 */
#include "calendar.h"

#define DAYS_TO_EPOCH	10957	/* from 1970-01-01 to 2000-01-01 */
#define LAST_DAY		2145031948	/* 5874897-12-31, the last date */

/* Divide rounding down. */
static int64
floor_divide(int64 a, int64 b)
{
	return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static bool
is_leap(int64 year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int
days_in_month(int64 year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* The day number of a date, in 64 bits. */
static int64
day_number(int64 year, int month, int day)
{
	int64		y = month <= 2 ? year - 1 : year;
	int64		era = floor_divide(y, 400);
	int64		year_of_era = y - era * 400;
	int64		day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	int64		day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return era * 146097 + day_of_era - 719468 - DAYS_TO_EPOCH;
}

/* Keep a day number within what a date can be. */
static int32
clamp_day(int64 day)
{
	if (day > LAST_DAY)
		return CALENDAR_NEVER;
	if (day <= INT32_MIN)
		return CALENDAR_ALWAYS;
	return (int32) day;
}

/* The day number of a date. */
int32
calendar_day(int year, int month, int day)
{
	return clamp_day(day_number(year, month, day));
}

/* The date of a day number. */
void
calendar_civil(int32 day, int *year, int *month, int *day_of_month)
{
	int64		z = (int64) day + DAYS_TO_EPOCH + 719468;
	int64		era = floor_divide(z, 146097);
	int64		day_of_era = z - era * 146097;
	int64		year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 -
							   day_of_era / 146096) / 365;
	int64		day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64		mp = (5 * day_of_year + 2) / 153;

	*day_of_month = (int) (day_of_year - (153 * mp + 2) / 5 + 1);
	*month = (int) (mp < 10 ? mp + 3 : mp - 9);
	*year = (int) (year_of_era + era * 400 + (*month <= 2));
}

/* The month of a day, counted from January 2000. */
int32
calendar_month(int32 day)
{
	int			year;
	int			month;
	int			day_of_month;

	calendar_civil(day, &year, &month, &day_of_month);
	return (year - 2000) * 12 + month - 1;
}

/* The first day of a month. */
int32
calendar_month_start(int32 month)
{
	int64		year = floor_divide(month, 12);

	return clamp_day(day_number(2000 + year, (int) (month - year * 12) + 1, 1));
}

/* Add months, staying within the month reached: 31 January and a month is the last of February. */
int32
calendar_add_months(int32 day, int months)
{
	int			year;
	int			month;
	int			day_of_month;
	int64		total;
	int64		last;

	calendar_civil(day, &year, &month, &day_of_month);
	total = (int64) year * 12 + month - 1 + months;
	year = (int) floor_divide(total, 12);
	month = (int) (total - (int64) year * 12) + 1;
	last = days_in_month(year, month);
	return clamp_day(day_number(year, month, day_of_month > last ? (int) last : day_of_month));
}

/* The ISO day of the week, 1 = Monday. */
int
calendar_weekday(int32 day)
{
	/* 2000-01-01 was a Saturday */
	int64		shifted = (int64) day + 5;

	return (int) (shifted - floor_divide(shifted, 7) * 7) + 1;
}

/* The first day of the period that a day lies in. */
int32
calendar_period_start(int32 day, CalendarPeriod period)
{
	int			year;
	int			month;
	int			day_of_month;

	switch (period)
	{
		case PERIOD_DAY:
			return day;
		case PERIOD_WEEK:
			return day - (calendar_weekday(day) - 1);
		case PERIOD_MONTH:
			calendar_civil(day, &year, &month, &day_of_month);
			return day - (day_of_month - 1);
		case PERIOD_YEAR:
			calendar_civil(day, &year, &month, &day_of_month);
			return calendar_day(year, 1, 1);
		case PERIOD_EVER:
			return CALENDAR_ALWAYS;
	}
	return day;
}

/* The day on which a date is celebrated in a year; 29 February, where there is none, on the day before or after it. */
static int32
celebrated_in(int32 date, int year, bool leaps_to_march)
{
	int			first_year;
	int			month;
	int			day_of_month;

	calendar_civil(date, &first_year, &month, &day_of_month);
	if (month == 2 && day_of_month == 29 && !is_leap(year))
		return clamp_day(leaps_to_march ? day_number(year, 3, 1) : day_number(year, 2, 28));
	return clamp_day(day_number(year, month, day_of_month));
}

/* The year of a day. */
static int
year_of(int32 day)
{
	int			year;
	int			month;
	int			day_of_month;

	calendar_civil(day, &year, &month, &day_of_month);
	return year;
}

/* Tell whether a day is the anniversary of a birthday; 29 February is celebrated on 28 February. */
bool
calendar_is_anniversary(int32 birthday, int32 day)
{
	return day == celebrated_in(birthday, year_of(day), false);
}

/* The last day from first to last on which a date is celebrated, in a year after its own; CALENDAR_NEVER where there is none. */
int32
calendar_celebration(int32 date, int32 first, int32 last, bool leaps_to_march)
{
	/* whatever was celebrated before the year before is longer ago than in that one */
	for (int year = year_of(last); year >= year_of(last) - 1; year--)
	{
		int32		day = celebrated_in(date, year, leaps_to_march);

		if (day >= first && day <= last && year > year_of(date))
			return day;
	}
	return CALENDAR_NEVER;
}

/* The first day after the next fixed day of the year that is later than a day. */
static int32
after_fixed_day(const ExpiryPolicy *policy, int32 after)
{
	int			year;
	int			month;
	int			day_of_month;

	calendar_civil(after, &year, &month, &day_of_month);
	for (;; year++)
	{
		int			last = days_in_month(year, policy->fixed_month);
		int64		day = day_number(year, policy->fixed_month,
									 policy->fixed_day > last ? last : policy->fixed_day);

		if (day > after)
			return clamp_day(day + 1);
	}
}

/* A day moved by the policy's months and days and rounded up to its unit's end. */
static int32
after_policy(const ExpiryPolicy *policy, int32 day)
{
	int64		end = calendar_add_months(day, policy->months);
	int			year;
	int			month;
	int			day_of_month;

	if (end == CALENDAR_NEVER)
		return CALENDAR_NEVER;
	if (policy->kind == EXPIRY_FIXED_DAY)
		return after_fixed_day(policy, (int32) end);
	end += policy->days;
	if (end > LAST_DAY)
		return CALENDAR_NEVER;
	if (policy->rounding == ROUND_DAY)
		return clamp_day(end);
	calendar_civil((int32) end - 1, &year, &month, &day_of_month);
	if (policy->rounding == ROUND_YEAR)
		return clamp_day(day_number(year + 1, 1, 1));
	return clamp_day(month == 12 ? day_number(year + 1, 1, 1) : day_number(year, month + 1, 1));
}

/* The first day on which points that become available on a day are dead. */
int32
calendar_expires_on(const ExpiryPolicy *policy, int32 available_from)
{
	if (policy->kind == EXPIRY_NEVER || policy->kind == EXPIRY_SLIDING ||
		available_from == CALENDAR_NEVER)
		return CALENDAR_NEVER;
	return after_policy(policy, available_from);
}

/* The first day on which all points are dead after the last activity; never but for a sliding policy. */
int32
calendar_slides_until(const ExpiryPolicy *policy, int32 last_day)
{
	if (policy->kind != EXPIRY_SLIDING || last_day == CALENDAR_ALWAYS)
		return CALENDAR_NEVER;
	return after_policy(policy, last_day);
}
