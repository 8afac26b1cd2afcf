/*
 * award.h
 *	  From events to postings: what the trigger, quotes and releases share.
 */
#ifndef LOYALTY_AWARD_H
#define LOYALTY_AWARD_H

#include "earn.h"
#include "event.h"
#include "ledger.h"
#include "program.h"

typedef struct AwardOutcome
{
	Award		award;
	bool		held;
	Lot			lot;			/* what was earned, before it repaid a debt */
	int			tier_before;	/* index in the programme, or NO_TIER */
	int			tier_after;
} AwardOutcome;

extern void AwardPrepare(Program *program, Event *event);
extern void AwardMemberFacts(Ledger *ledger, Program *program, const Account *account,
							 const Event *event, MemberFacts *facts);
extern void AwardPost(Ledger *ledger, Program *program, Account *account, Event *event,
					  AwardOutcome *outcome);
extern Account *AwardAccount(Ledger *ledger, const Event *event);
extern bool TransactionRead(int64 source_id, Event *event);

#endif							/* LOYALTY_AWARD_H */
