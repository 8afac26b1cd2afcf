/*
 * occasion.c
 *	  On which day a birthday or an anniversary is celebrated.
 *
 * The arithmetic stands in calendar.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/date.h"

#include "calendar.h"

PG_FUNCTION_INFO_V1(loyalty_celebration);

/* celebration(date, first_day, last_day, leaps_to_march): the last day of these on which a date is celebrated. */
Datum
loyalty_celebration(PG_FUNCTION_ARGS)
{
	DateADT		date = PG_GETARG_DATEADT(0);
	DateADT		first = PG_GETARG_DATEADT(1);
	DateADT		last = PG_GETARG_DATEADT(2);
	int32		day;

	if (DATE_NOT_FINITE(date) || DATE_NOT_FINITE(first) || DATE_NOT_FINITE(last))
		PG_RETURN_NULL();
	day = calendar_celebration(date, first, last, PG_GETARG_BOOL(3));
	if (day == CALENDAR_NEVER)
		PG_RETURN_NULL();
	PG_RETURN_DATEADT(day);
}
