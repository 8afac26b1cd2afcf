/*
 * cap.h
 *	  Caps of rules: how much a rule may still give to a member in a period,
 *	  or to all of them out of its budget.
 */
#ifndef LOYALTY_CAP_H
#define LOYALTY_CAP_H

#include "earn.h"

typedef struct CapBook CapBook;

/* What a book is for */
typedef enum CapMode
{
	CAPS_AWARD,					/* counters are read and written */
	CAPS_QUOTE,					/* read, and forgotten */
	CAPS_SIMULATE				/* begin at nothing; budgets are not asked */
} CapMode;

extern bool CapsExist(void);
extern bool BudgetsExist(void);
extern CapBook *CapsOpen(CapMode mode);
extern void CapsAttach(CapBook *book, Event *event);
extern CapBook *CapsOpenFor(Event *event);
extern void CapsReadOld(CapBook *book, const int64 *sources, int n);
extern void CapsSettle(Event *event, const Program *program, const Breakdown *given, bool posted);
extern void CapsForget(Event *event, const Program *program);
extern void CapsLeave(Event *event, const Program *program);
extern void CapsGiveBack(Event *event, const Program *program);
extern void CapsFlush(CapBook *book);

#endif							/* LOYALTY_CAP_H */
