/*
 * copurchase_type.h
 *	  What the SQL surface of co-purchase statistics shares: errors, the budget
 *	  of memory of this backend, and builders that live in a memory context.
 */
#ifndef LOYALTY_COPURCHASE_TYPE_H
#define LOYALTY_COPURCHASE_TYPE_H

#include "postgres.h"

#include "copurchase.h"

#define COP_MAX_ITEMS 500		/* of a basket, unless a query says otherwise */

extern void CopurchaseInit(void);
extern void CopurchaseRaise(CoreStatus status);
extern CopBuilder *CopurchaseBegin(uint32 max_items);
extern CopBudget *CopurchaseBudget(void);
extern Datum CopurchaseFinish(CopBuilder *builder);

#endif							/* LOYALTY_COPURCHASE_TYPE_H */
