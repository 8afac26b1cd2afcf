/*
 * award.h
 *	  From events to postings: what the trigger, quotes, corrections and
 *	  releases share.
 */
#ifndef LOYALTY_AWARD_H
#define LOYALTY_AWARD_H

#include "cap.h"
#include "earn.h"
#include "event.h"
#include "ledger.h"
#include "limit.h"
#include "program.h"

typedef struct AwardOutcome
{
	Award		award;
	bool		held;
	Lot			lot;			/* what was earned, before it repaid a debt */
	int			tier_before;	/* index in the programme, or NO_TIER */
	int			tier_after;
} AwardOutcome;

/* The purchases of a statement that concern a referral */
typedef struct Referred
{
	MemoryContext context;
	int64	   *source;
	int			n;
	int			size;
} Referred;

extern void AwardPrepare(Program *program, Event *event);
extern void AwardPersonFacts(Ledger *ledger, const Program *program, const Event *event,
							 MemberFacts *facts);
extern void AwardMemberFacts(Ledger *ledger, Program *program, const Account *account,
							 const Account *history, const Event *event, MemberFacts *facts);
extern void AwardPost(Ledger *ledger, Program *program, Account *account,
					  const Account *history, Event *event, AwardOutcome *outcome);
extern void AwardLimits(Ledger *ledger, Program *program, Event *event, LimitBook *book);
extern Datum AwardDetail(const Account *account, const Event *event, bool redated);
extern Account *AwardAccount(Ledger *ledger, const Event *event);
extern Lot	AwardLot(const Program *program, int32 day, int64 points);
extern void AwardTally(const Program *program, const Event *event, int32 day, int64 points,
					   TallySet *tally);
extern void AwardPromote(Ledger *ledger, const Program *program, Account *account,
						 int64 source_id);
extern void AwardRevokePromotion(Ledger *ledger, const Program *program, Account *account,
								 int64 source_id);
extern void CorrectEvent(Ledger *ledger, Program *program, Account *account, Event *event,
						 const Posted *posted);
extern bool CorrectConcerns(Ledger *ledger, const Event *event, const Posted *posted);
extern void CorrectAway(Ledger *ledger, Program *program, Account *account, Event *event,
						const Posted *posted);
extern int64 CorrectReturn(Ledger *ledger, Program *program, Account *account, Event *event,
						   const Posted *posted, const Posting *posting);
extern bool AdmitConcerns(const Program *program, RuleEvent kind);
extern void AdmitEvents(Event **event, int n);
extern void AdmitRead(const Program *program, Event *event);
extern void AdmitComplete(Event **event, int n);
extern void StampPurchases(const int64 *purchase_ids, int n);
extern void EventFromDatum(HeapTupleHeader header, RuleEvent kind, Event *event);
extern bool ChallengesExist(void);
extern void ChallengesTrack(const int64 *sources, int n, bool fresh);
extern bool ReferralsExist(void);
extern int64 *ReferralsFind(Referred *referred, const int64 *members, const int64 *sources, int n,
							bool fresh, int64 *ids, int *nids);
extern void ReferralsSettle(const Referred *referred);
extern int64 CorrectPoints(Ledger *ledger, const Program *program, Account *account,
						   const Event *event, const Posted *posted, int64 difference,
						   const Posting *like);
extern bool TransactionRead(int64 source_id, bool lock, Event *event);

#endif							/* LOYALTY_AWARD_H */
