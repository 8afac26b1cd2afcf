/*
 * ledger.h
 *	  The only writer of accounts, entries and tier changes.
 */
#ifndef LOYALTY_LEDGER_H
#define LOYALTY_LEDGER_H

#include "postgres.h"

#include "utils/array.h"
#include "utils/timestamp.h"

#include "lots.h"
#include "seal.h"
#include "tally.h"

/*
 * Numbers of accounts: members', then households', then wallets'.  Accounts are
 * locked in ascending order, so that whoever holds one waits for none of a lower
 * kind.  A wallet's account says in its number whose it is.
 */
#define WALLET_SPAN		INT64CONST(100000000000)	/* members are numbered below */
#define FIRST_WALLET	INT64CONST(5000000000000000)
#define WalletAccount(wallet_id, member_id) (FIRST_WALLET + (wallet_id) * WALLET_SPAN + (member_id))
#define WalletMember(account_id) ((account_id) < FIRST_WALLET ? (account_id) : ((account_id) - FIRST_WALLET) % WALLET_SPAN)
#define WalletProgram(account_id) ((int32) (((account_id) - FIRST_WALLET) / WALLET_SPAN))
#define FIRST_HOUSEHOLD	INT64CONST(4000000000000001)	/* as household_id_seq begins */

/* Points set aside for a redemption that is still to be captured or released */
typedef struct Hold
{
	int64		hold_id;
	char	   *key;
	TimestampTz held_at;
	TimestampTz held_until;
	LotSet		lots;
	Datum		detail;			/* jsonb */
} Hold;

/* An account under its row lock, with what the decision may know of its owner */
typedef struct Account
{
	int64		account_id;
	int32		program_id;
	int32		tier_id;		/* 0: none */
	TimestampTz tier_since;		/* DT_NOBEGIN: none */
	int32		tier_until;		/* DATEVAL_NOEND: for ever */
	int32		tier_pinned;	/* DATEVAL_NOBEGIN: not pinned */
	TimestampTz last_event_at;	/* DT_NOBEGIN: none */
	int64		seq;
	LotSet		lots;
	TallySet	tally;
	ChainLink	head;

	int			nholds;
	Hold	   *hold;			/* open ones */

	bool		closed;
	bool		frozen;
	int64		merged_into;	/* 0: not merged */
	int64		household_id;	/* the account that the member shares; 0: none */
	bool		household_blocked;	/* the member does not spend from it */
	ArrayType  *left_households;	/* of int8, NULL: none */
	TimestampTz joined_at;

	/* set by LedgerLoadMembers */
	Datum		external_id;
	bool		has_birthday;
	int32		birthday;
	bool		staff;
	Datum		attributes;		/* 0: null */

	bool		changed;
} Account;

typedef struct Posting
{
	const char *kind;
	int64		source_id;		/* 0: none */
	TimestampTz occurred_at;
	LotSet	   *lots;			/* NULL: none */
	TallySet   *tally;			/* NULL: none */
	bytea	   *breakdown;		/* NULL: none */
	const char *reason;			/* NULL: none */
	const char *key;			/* NULL: none */
	Datum		detail;			/* jsonb, 0: none */
} Posting;

/* An entry that closed lots */
typedef struct Closing
{
	LotSet		lots;			/* negative; positive where lots were opened again */
	TimestampTz after;			/* the last event before it */
} Closing;

/* What was posted for a source so far */
typedef struct Posted
{
	int64		source_id;
	int64		account_id;		/* where it stands now */
	int64		member_id;		/* whose it was */
	TimestampTz recorded_at;	/* of the first entry */
	TimestampTz occurred_at;	/* whose days its points have; DT_NOBEGIN: not known */
	LotSet		lots;
	TallySet	tally;
	int			nbreakdowns;
	bytea	  **breakdown;		/* in order of posting */
	bool		held;			/* and not released */
	bool		refused;
	bool		returned;		/* there are returns of it */
} Posted;

/* An entry that a key made */
typedef struct KeyedEntry
{
	int64		account_id;
	int64		seq;
	char	   *kind;
	int64		points;
	int64		source_id;
	LotSet		lots;
	Datum		detail;			/* jsonb, 0: none */
} KeyedEntry;

typedef struct Ledger Ledger;

extern Ledger *LedgerOpen(void);
extern void LedgerLock(Ledger *ledger, int64 *account_ids, int n);
extern void LedgerLockWallets(Ledger *ledger, int64 *account_ids, int n);
extern void LedgerReadWallet(Ledger *ledger, int64 account_id);
extern bool LedgerHasHouseholds(void);
extern int	LedgerLockMembers(Ledger *ledger, int64 *member_ids, int n, Account **accounts);
extern void LedgerRead(Ledger *ledger, int64 account_id);
extern Account *LedgerAccount(Ledger *ledger, int64 account_id);
extern Account *LedgerHome(Ledger *ledger, Account *member);
extern void LedgerLoadMembers(Ledger *ledger);
extern int	LedgerAccounts(Ledger *ledger, Account **accounts);
extern int64 LedgerPost(Ledger *ledger, Account *account, const Posting *posting);
extern void LedgerSetTier(Ledger *ledger, Account *account, int32 tier_id, TimestampTz since,
						  int32 until, const char *cause, int64 source_id, const char *reason);
extern int32 LedgerTierAt(Ledger *ledger, int64 account_id, TimestampTz at);
extern void LedgerHold(Ledger *ledger, int64 source_id, int64 account_id,
					   const char *reason, const char *detail);
extern void LedgerHoldFailed(Ledger *ledger, int64 source_id, int64 account_id,
							 const char *reason, const char *detail);
extern int	LedgerPosted(Ledger *ledger, int64 *source_ids, int n, Posted **posted);
extern bool LedgerFindKey(Ledger *ledger, const Account *member, const char *key, KeyedEntry *entry);
extern int64 LedgerSumOfKind(Ledger *ledger, int64 source_id, const char *kind);
extern void LedgerMerge(Ledger *ledger, int64 account_id, int64 into);
extern void LedgerJoin(Ledger *ledger, const Account *member, int64 household_id, const char *reason);
extern void LedgerLeave(Ledger *ledger, const Account *member, const char *reason);
extern void LedgerBlock(Ledger *ledger, const Account *member, bool blocked);
extern int	LedgerLockPosted(Ledger *ledger, int64 *source_ids, int n, int64 member_id, Posted **posted);
extern int	LedgerLockedPosted(Ledger *ledger, int64 *source_ids, int n, Posted **posted);
extern int	LedgerClosings(Ledger *ledger, int64 account_id, Closing **closings);
extern void LedgerExpired(Ledger *ledger, int64 account_id, LotSet *lots);
extern int64 LedgerNextSource(void);
extern void LedgerFlush(Ledger *ledger);
extern void LedgerClose(Ledger *ledger);
extern TimestampTz LedgerNow(const Ledger *ledger);
extern void HoldsFromDatum(Datum value, Hold **holds, int *nholds);
extern const char *SealedDetail(Datum detail, int *length);

#endif							/* LOYALTY_LEDGER_H */
