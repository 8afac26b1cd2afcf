/*
 * hold.h
 *	  Points set aside for a redemption: frozen while the hold is open.
 */
#ifndef LOYALTY_HOLD_H
#define LOYALTY_HOLD_H

#include "ledger.h"
#include "program.h"

extern void HoldsSettle(Ledger *ledger, const Program *program, Account *account);
extern const LotSet *HoldsFree(const Account *account, LotSet *scratch);
extern Hold *HoldFind(Account *account, const char *key);
extern void HoldAdd(Ledger *ledger, Account *account, const Hold *hold);
extern void HoldRemove(Account *account, Hold *hold);
extern void HoldsAt(const Program *program, const Hold *holds, int nholds, TimestampTz at,
					LotSet *lots, LotSet *held);

#endif							/* LOYALTY_HOLD_H */
