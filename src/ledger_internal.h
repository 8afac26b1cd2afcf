/*
 * ledger_internal.h
 *	  What the files of the ledger room share; nobody else includes it.
 */
#ifndef LOYALTY_LEDGER_INTERNAL_H
#define LOYALTY_LEDGER_INTERNAL_H

#include "ledger.h"

#include "nodes/pg_list.h"

typedef struct QueuedEntry
{
	int64		account_id;
	int64		seq;
	const char *kind;
	int64		points;
	int64		source_id;
	TimestampTz occurred_at;
	Datum		lots;
	Datum		tally;
	bytea	   *breakdown;
	const char *reason;
	const char *key;
	Datum		detail;
	ChainLink	hash;
} QueuedEntry;

typedef struct QueuedTier
{
	int64		account_id;
	int32		tier_id;
	TimestampTz since;
	int32		until;
	const char *cause;
	int64		source_id;
	const char *reason;
} QueuedTier;

struct Ledger
{
	MemoryContext context;
	Account    *account;		/* ascending by account_id */
	int			naccounts;
	bool		has_members;	/* LedgerLoadMembers was called */
	QueuedEntry *entry;
	int			nentries;
	int			entry_capacity;
	List	   *tiers;			/* of QueuedTier */
	TimestampTz now;
	char	   *actor;
	Datum		actor_datum;
};

#define ENTRY_COLUMNS 15
#define ACCOUNT_COLUMNS 11
#define HOLD_COLUMNS 6
#define TIER_COLUMNS 8

typedef enum PlanName
{
	PLAN_LOCK_ONE,
	PLAN_LOCK_MANY,
	PLAN_READ_ONE,
	PLAN_MEMBERS,
	PLAN_MEMBER_ONE,
	PLAN_ENTRY_ONE,
	PLAN_ACCOUNT_ONE,
	PLAN_ENTRY_MANY,
	PLAN_ACCOUNT_MANY,
	PLAN_TIER_ONE,
	PLAN_TIER_MANY,
	PLAN_TIER_AT,
	PLAN_HOLD,
	PLAN_POSTED,
	PLAN_BY_KEY,
	PLAN_SUM_OF_KIND,
	PLAN_EXPIRED,
	PLAN_CLOSINGS,
	PLAN_MERGE,
	PLAN_JOIN,
	PLAN_LEAVE,
	PLAN_BLOCK,
	PLAN_HOUSEHOLDS,
	PLAN_OPEN_WALLETS,
	PLAN_COUNT
} PlanName;

extern Oid	LedgerEntryTypes[ENTRY_COLUMNS];
extern Oid	LedgerAccountTypes[ACCOUNT_COLUMNS];
extern const Oid LedgerTierTypes[TIER_COLUMNS];
extern Oid	LedgerHoldType;

extern void LedgerResolveTypes(void);
extern void LedgerExecute(PlanName name, Datum *values, const char *nulls, int expected);
extern Datum LedgerCopyVarlena(Datum value, bool isnull);

#endif							/* LOYALTY_LEDGER_INTERNAL_H */
