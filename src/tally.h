/*
 * tally.h
 *	  What a member did, by month: spend, points earned, visits.  The pure
 *	  part, and the glue to the type loyalty.tally.
 */
#ifndef LOYALTY_TALLY_H
#define LOYALTY_TALLY_H

#include "core.h"

#define TALLY_BEFORE	INT32_MIN	/* the month of sums from before the books */
#define TALLY_MAX		100000
#define TALLY_FIRST		((1 - 2000) * 12)	/* January of the year 1 */
#define TALLY_LAST		((290000 - 2000) * 12 + 11)

typedef struct TallyMonth
{
	int32		month;			/* from January 2000 */
	int64		spend;			/* 1/10000 of a currency unit */
	int64		points;			/* smallest unit */
	int64		visits;
} TallyMonth;

/* Sorted by month, months unique, none all zero */
typedef struct TallySet
{
	int			n;
	int			cap;
	TallyMonth *month;
} TallySet;

extern void tallyset_init(TallySet *set);
extern void tallyset_free(TallySet *set);
extern void tallyset_copy(TallySet *copy, const TallySet *set);
extern bool tally_month_is_valid(int32 month);
extern CoreStatus tallyset_add_month(TallySet *set, TallyMonth month);
extern CoreStatus tallyset_add(TallySet *into, const TallySet *delta);
extern CoreStatus tallyset_subtract(TallySet *into, const TallySet *delta);
extern CoreStatus tallyset_negate(TallySet *set);
extern bool tallyset_equal(const TallySet *a, const TallySet *b);
extern CoreStatus tallyset_sum(const TallySet *set, int32 from_month, int32 to_month,
							   TallyMonth *sums);
extern size_t tallyset_encoded_size(const TallySet *set);
extern size_t tallyset_encode(const TallySet *set, uint8 *bytes);
extern CoreStatus tallyset_decode(const uint8 *bytes, size_t length, TallySet *set);

#ifndef LOYALTY_CORE_ONLY
extern TallySet *TallyFromDatum(Datum value, TallySet *set);
extern Datum TallyToDatum(const TallySet *set);
extern void TallyRaise(CoreStatus status);
extern Oid	TallyTypeOid(void);
#endif

#endif							/* LOYALTY_TALLY_H */
