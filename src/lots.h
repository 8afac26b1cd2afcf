/*
 * lots.h
 *	  Points as a group: how many become spendable on which day and die on
 *	  which day.  The pure part, and the glue to the type loyalty.lots.
 */
#ifndef LOYALTY_LOTS_H
#define LOYALTY_LOTS_H

#include "core.h"

#define LOTS_MAX	1000000

/* Spendable while available_from <= day < expires_on; the debt lot spans all days */
typedef struct Lot
{
	int32		available_from;
	int32		expires_on;
	int64		amount;
} Lot;

/* Sorted by (available_from, expires_on), keys unique, no zero amounts */
typedef struct LotSet
{
	int			n;
	int			cap;
	Lot		   *lot;
} LotSet;

/* What happens when points are taken back that are not there any more */
typedef enum NegativePolicy
{
	NEGATIVE_FORBID,
	NEGATIVE_CLAMP,
	NEGATIVE_ALLOW
} NegativePolicy;

/* What becomes of points that died before they are given back */
typedef enum RestorePolicy
{
	RESTORE_WITH_GRACE,			/* they live again for some days */
	RESTORE_EXPIRED				/* they come back as they are: dead */
} RestorePolicy;

extern void lotset_init(LotSet *set);
extern void lotset_free(LotSet *set);
extern void lotset_copy(LotSet *copy, const LotSet *set);
extern CoreStatus lotset_add_lot(LotSet *set, Lot lot);
extern CoreStatus lotset_add(LotSet *into, const LotSet *delta);
extern CoreStatus lotset_subtract(LotSet *into, const LotSet *delta);
extern CoreStatus lotset_negate(LotSet *set);
extern bool lotset_equal(const LotSet *a, const LotSet *b);
extern CoreStatus lotset_total(const LotSet *set, int64 *points);
extern CoreStatus lotset_available(const LotSet *set, int32 day, int64 *points);
extern CoreStatus lotset_pending(const LotSet *set, int32 day, int64 *points);
extern CoreStatus lotset_expired(const LotSet *set, int32 day, int64 *points);
extern int64 lotset_debt(const LotSet *set);
extern bool lotset_next_expiry(const LotSet *set, int32 day, int32 *expires_on, int64 *points);
extern CoreStatus lotset_close_expired(const LotSet *balance, int32 day, LotSet *delta);
extern CoreStatus lotset_earn(const LotSet *balance, Lot earned, LotSet *delta);
extern CoreStatus lotset_take_back(const LotSet *balance, const LotSet *posted, int64 points,
								   int32 day, NegativePolicy policy, int64 limit,
								   LotSet *delta, int64 *taken);
extern CoreStatus lotset_reopen(const LotSet *balance, const LotSet *posted,
								const LotSet *expired, int64 points, LotSet *delta);
extern CoreStatus lotset_redate(const LotSet *balance, const LotSet *posted, Lot days, LotSet *delta);
extern CoreStatus lotset_spend(const LotSet *balance, int64 points, int32 day, LotSet *delta);
extern CoreStatus lotset_restore(const LotSet *balance, const LotSet *given, int32 day,
								 RestorePolicy policy, int grace_days, LotSet *delta);
extern CoreStatus lotset_revive(const LotSet *frozen, int32 day, RestorePolicy policy,
								int grace_days, LotSet *delta);
extern CoreStatus lotset_part(const LotSet *set, bool last_first, int64 skip, int64 points,
							  LotSet *part);
extern bool lot_is_valid(Lot lot);
extern size_t lotset_encoded_size(const LotSet *set);
extern size_t lotset_encode(const LotSet *set, uint8 *bytes);
extern CoreStatus lotset_decode(const uint8 *bytes, size_t length, LotSet *set);

#ifndef LOYALTY_CORE_ONLY
extern LotSet *LotsFromDatum(Datum value, LotSet *set);
extern Datum LotsToDatum(const LotSet *set);
extern char *LotsToText(const LotSet *set);
extern void LotsRaise(CoreStatus status);
extern Oid	LotsTypeOid(void);
extern Oid	OurTypeOid(const char *name);
#endif

#endif							/* LOYALTY_LOTS_H */
