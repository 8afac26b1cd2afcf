/*
 * lifetime.h
 *	  When the points of an account die.
 */
#ifndef LOYALTY_LIFETIME_H
#define LOYALTY_LIFETIME_H

#include "ledger.h"
#include "program.h"

extern int32 LifetimeSlidesUntil(const Program *program, TimestampTz last_event_at);
extern void LifetimeShow(const Program *program, TimestampTz last_event_at, LotSet *lots);
extern bool LifetimeClose(Ledger *ledger, const Program *program, Account *account, int32 day,
						  TimestampTz at);

#endif							/* LOYALTY_LIFETIME_H */
