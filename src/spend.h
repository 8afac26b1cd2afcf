/*
 * spend.h
 *	  Velocity limits on redemptions, under the account's lock.
 */
#ifndef LOYALTY_SPEND_H
#define LOYALTY_SPEND_H

#include "award.h"

extern bool SpendAsk(Ledger *ledger, Program *program, Event *event);
extern void SpendCount(const Event *event);
extern void SpendHold(const Event *event, TimestampTz held_until);
extern bool SpendLeave(Program *program, int64 source_id, int64 points, int64 money, bool held);

#endif							/* LOYALTY_SPEND_H */
