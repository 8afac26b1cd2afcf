/*
 * ledger.c
 *	  The only writer of account, entry, tier_change and held_award.
 *
 * Owns: the lock order (accounts ascending by account_id, one FOR NO KEY UPDATE
 * lock each; households are numbered above all members and wallets above both,
 * so that whoever holds one waits for no member), kept plans, the sequence and the hash chain of entries, and the
 * law that an account is the sum of its entries: LedgerPost applies to the
 * account in memory exactly what it queues as an entry, and LedgerFlush writes
 * both in one go.  It does not know why a posting exists.
 *
 * A ledger lives for one statement, or for one chunk of a large one.  One
 * account and one entry take plans with parameters; more go through tuplestores
 * that the plans see as named relations.  Everything goes through the executor,
 * so that constraints, replication and partitioning keep working.
 */
#include "ledger.h"

#include "access/xact.h"
#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "compat.h"
#include "errors.h"
#include "keys.h"

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

/* ------------------------------------------------------------------------
 * Plans
 * ------------------------------------------------------------------------ */

typedef enum PlanName
{
	PLAN_LOCK_ONE,
	PLAN_LOCK_MANY,
	PLAN_READ_ONE,
	PLAN_MEMBERS,
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

#define ACCOUNT_SELECT \
	"SELECT account_id, program_id, closed, joined_at, tier_id, tier_since, tier_until, tier_pinned," \
	" last_event_at, seq, lots, tally, head, frozen, holds, merged_into, household_id, household_blocked, left_households" \
	" FROM loyalty.account"

#define ENTRY_INSERT \
	"INSERT INTO loyalty.entry (account_id, seq, kind, points, source_id, occurred_at," \
	" recorded_at, lots, tally, breakdown, actor, reason, key, detail, hash)"

#define TIER_INSERT \
	"INSERT INTO loyalty.tier_change (account_id, tier_id, changed_at, recorded_at, until, cause," \
	" source_id, reason)"

static const char *const plan_sql[PLAN_COUNT] = {
	[PLAN_LOCK_ONE] = ACCOUNT_SELECT " WHERE account_id = $1 FOR NO KEY UPDATE",
	[PLAN_LOCK_MANY] = ACCOUNT_SELECT " WHERE account_id = ANY ($1)"
	" ORDER BY merged_into IS NULL, account_id FOR NO KEY UPDATE",
	[PLAN_READ_ONE] = ACCOUNT_SELECT " WHERE account_id = $1",
	[PLAN_MEMBERS] = "SELECT member_id, external_id, birthday, staff, attributes"
	" FROM loyalty.member WHERE member_id = ANY ($1)",
	[PLAN_ENTRY_ONE] = ENTRY_INSERT
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
	[PLAN_ACCOUNT_ONE] = "UPDATE loyalty.account SET tier_id = $2, tier_since = $3,"
	" tier_until = $4, tier_pinned = $5, last_event_at = $6, seq = $7, lots = $8, tally = $9,"
	" head = $10, holds = $11 WHERE account_id = $1",
	[PLAN_ENTRY_MANY] = ENTRY_INSERT " SELECT account_id, seq, kind, points, source_id,"
	" occurred_at, recorded_at, lots, tally, breakdown, actor, reason, key, detail, hash"
	" FROM loyalty_entries",
	[PLAN_ACCOUNT_MANY] = "UPDATE loyalty.account a SET tier_id = n.tier_id,"
	" tier_since = n.tier_since, tier_until = n.tier_until, tier_pinned = n.tier_pinned,"
	" last_event_at = n.last_event_at, seq = n.seq, lots = n.lots, tally = n.tally,"
	" head = n.head, holds = n.holds FROM loyalty_accounts n WHERE a.account_id = n.account_id",
	[PLAN_TIER_ONE] = TIER_INSERT " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
	[PLAN_TIER_MANY] = TIER_INSERT " SELECT account_id, tier_id, changed_at, recorded_at, until,"
	" cause, source_id, reason FROM loyalty_tiers",
	[PLAN_TIER_AT] = "SELECT tier_id FROM loyalty.tier_change"
	" WHERE account_id = $1 AND changed_at <= $2 ORDER BY number DESC LIMIT 1",
	[PLAN_HOLD] = "INSERT INTO loyalty.held_award (source_id, account_id, held_at, reason, detail, failed)"
	" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (source_id) DO UPDATE SET account_id = $2,"
	" held_at = $3, reason = $4, detail = $5, failed = $6, released_at = NULL, released_by = NULL,"
	" release_reason = NULL",
	[PLAN_POSTED] = "SELECT s.source_id, COALESCE(h.household_id, a.merged_into, e.account_id), e.lots, e.tally, e.breakdown,"
	" w.source_id IS NOT NULL AND w.released_at IS NULL AS held,"
	/* an award that was reviewed is decided with the rules of when it was held */
	" CASE WHEN w.failed THEN e.recorded_at ELSE LEAST(e.recorded_at, w.held_at) END,"
	" EXISTS (SELECT FROM loyalty.returned r WHERE r.purchase_id = s.source_id) AS returned,"
	" e.account_id, (e.detail ->> 'member')::pg_catalog.int8, w.refused_at IS NOT NULL AS refused,"
	" CASE WHEN e.kind = 'earn' THEN e.occurred_at ELSE (e.detail ->> 'occurred_at')::pg_catalog.timestamptz END"
	" FROM (SELECT DISTINCT u FROM pg_catalog.unnest($1) u) AS s (source_id)"
	" LEFT JOIN loyalty.entry e ON e.source_id = s.source_id"
	" LEFT JOIN loyalty.account a ON a.account_id = e.account_id AND a.merged_into IS NOT NULL"
	/* what a member had earned when it joined a household stays with that household */
	" LEFT JOIN LATERAL (SELECT q.household_id FROM loyalty.household_member q"
	" WHERE q.member_id = e.account_id AND q.joined_seq >= e.seq ORDER BY q.joined_seq LIMIT 1) h ON true"
	" LEFT JOIN loyalty.held_award w ON w.source_id = s.source_id"
	" ORDER BY s.source_id, 2, e.recorded_at, e.account_id, e.seq",
	[PLAN_BY_KEY] = "SELECT account_id, seq, kind, points, source_id, lots, detail FROM loyalty.entry"
	" WHERE account_id = $1 AND key = $2",
	[PLAN_EXPIRED] = "SELECT lots FROM loyalty.entry WHERE account_id = $1 AND kind = 'expire'",
	[PLAN_CLOSINGS] = "SELECT e.lots, (SELECT pg_catalog.max(b.occurred_at) FROM loyalty.entry b"
	" WHERE b.account_id = e.account_id AND b.seq < e.seq) FROM loyalty.entry e"
	" WHERE e.account_id = $1 AND e.kind = 'expire'",
	[PLAN_SUM_OF_KIND] = "SELECT COALESCE(pg_catalog.sum(points), 0)::pg_catalog.int8"
	" FROM loyalty.entry WHERE source_id = $1 AND kind = $2",
	[PLAN_MERGE] = "UPDATE loyalty.account SET merged_into = $2 WHERE account_id = $1 OR merged_into = $1",
	[PLAN_JOIN] = "WITH joined AS (UPDATE loyalty.account SET household_id = $2, household_blocked = false"
	" WHERE account_id = $1)"
	" INSERT INTO loyalty.household_member (household_id, member_id, joined_at, joined_seq, reason)"
	" VALUES ($2, $1, $3, $4, $5)",
	[PLAN_LEAVE] = "WITH gone AS (UPDATE loyalty.account SET household_id = NULL, household_blocked = false,"
	" left_households = pg_catalog.array_append(pg_catalog.array_remove(left_households, household_id), household_id)"
	" WHERE account_id = $1)"
	" UPDATE loyalty.household_member SET left_at = $2, leave_reason = $3"
	" WHERE member_id = $1 AND left_at IS NULL",
	[PLAN_OPEN_WALLETS] = "INSERT INTO loyalty.account (account_id, program_id, closed, frozen, joined_at)"
	" SELECT w.id, p.program_id, m.closed, m.frozen, m.joined_at FROM pg_catalog.unnest($1) w (id)"
	" JOIN loyalty.account m ON m.account_id = (w.id - 5000000000000000) % 100000000000"
	" JOIN loyalty.program p ON p.program_id = ((w.id - 5000000000000000) / 100000000000)::pg_catalog.int4"
	" AND p.wallet_of = m.program_id ORDER BY w.id ON CONFLICT (account_id) DO NOTHING",
	[PLAN_HOUSEHOLDS] = "SELECT FROM loyalty.household_member LIMIT 1",
	[PLAN_BLOCK] = "UPDATE loyalty.account SET household_blocked = $2 WHERE account_id = $1",
};

static SPIPlanPtr plans[PLAN_COUNT];

/* Types of an entry's columns; also the row type of loyalty_entries. */
static Oid	entry_types[ENTRY_COLUMNS] = {
	INT8OID, INT8OID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	InvalidOid /* lots */ , InvalidOid /* tally */ , BYTEAOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, BYTEAOID
};
static const char *const entry_names[ENTRY_COLUMNS] = {
	"account_id", "seq", "kind", "points", "source_id", "occurred_at", "recorded_at",
	"lots", "tally", "breakdown", "actor", "reason", "key", "detail", "hash"
};
static Oid	account_types[ACCOUNT_COLUMNS] = {
	INT8OID, INT4OID, TIMESTAMPTZOID, DATEOID, DATEOID, TIMESTAMPTZOID, INT8OID,
	InvalidOid /* lots */ , InvalidOid /* tally */ , BYTEAOID, InvalidOid	/* hold[] */
};
static const char *const account_names[ACCOUNT_COLUMNS] = {
	"account_id", "tier_id", "tier_since", "tier_until", "tier_pinned", "last_event_at",
	"seq", "lots", "tally", "head", "holds"
};

static const Oid tier_types[TIER_COLUMNS] = {
	INT8OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, DATEOID, TEXTOID, INT8OID, TEXTOID
};
static const char *const tier_names[TIER_COLUMNS] = {
	"account_id", "tier_id", "changed_at", "recorded_at", "until", "cause", "source_id", "reason"
};

static Oid	hold_type = InvalidOid;

/*
 * Find the oids of our types.  Where they changed, the extension was
 * dropped and made again in this session, and the kept plans are void.
 */
static void
resolve_types(void)
{
	Oid			lots = LotsTypeOid();

	if (entry_types[7] == lots)
		return;
	entry_types[7] = lots;
	account_types[7] = lots;
	entry_types[8] = TallyTypeOid();
	account_types[8] = entry_types[8];
	hold_type = OurTypeOid("hold");
	account_types[10] = get_array_type(hold_type);
	for (int i = 0; i < PLAN_COUNT; i++)
	{
		if (plans[i] != NULL)
			SPI_freeplan(plans[i]);
		plans[i] = NULL;
	}
}

/* The parameter types of a plan. */
static int
plan_types(PlanName name, Oid *types)
{
	static const Oid hold[] = {INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, BOOLOID};
	static const Oid join[] = {INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID};

	types[0] = INT8OID;
	switch (name)
	{
		case PLAN_LOCK_ONE:
		case PLAN_READ_ONE:
		case PLAN_EXPIRED:
		case PLAN_CLOSINGS:
			return 1;
		case PLAN_LOCK_MANY:
		case PLAN_OPEN_WALLETS:
		case PLAN_MEMBERS:
		case PLAN_POSTED:
			types[0] = INT8ARRAYOID;
			return 1;
		case PLAN_TIER_AT:
			types[1] = TIMESTAMPTZOID;
			return 2;
		case PLAN_BY_KEY:
			types[1] = TEXTOID;
			return 2;
		case PLAN_SUM_OF_KIND:
			types[1] = TEXTOID;
			return 2;
		case PLAN_MERGE:
			types[1] = INT8OID;
			return 2;
		case PLAN_JOIN:
			memcpy(types, join, sizeof(join));
			return lengthof(join);
		case PLAN_LEAVE:
			types[1] = TIMESTAMPTZOID;
			types[2] = TEXTOID;
			return 3;
		case PLAN_BLOCK:
			types[1] = BOOLOID;
			return 2;
		case PLAN_ENTRY_ONE:
			memcpy(types, entry_types, sizeof(entry_types));
			return ENTRY_COLUMNS;
		case PLAN_ACCOUNT_ONE:
			memcpy(types, account_types, sizeof(account_types));
			return ACCOUNT_COLUMNS;
		case PLAN_TIER_ONE:
			memcpy(types, tier_types, sizeof(tier_types));
			return TIER_COLUMNS;
		case PLAN_HOLD:
			memcpy(types, hold, sizeof(hold));
			return lengthof(hold);
		default:
			return 0;
	}
}

/* Tell whether a plan works on many rows at once. */
static bool
is_bulk(PlanName name)
{
	return name == PLAN_LOCK_MANY || name == PLAN_OPEN_WALLETS || name == PLAN_MEMBERS || name == PLAN_POSTED ||
		name == PLAN_ENTRY_MANY || name == PLAN_ACCOUNT_MANY || name == PLAN_TIER_MANY;
}

/*
 * Make the planner go by key, until AtEOXact_GUC.
 *
 * A plan may be made while the tables are still empty and used when they hold
 * millions of rows; every statement here names the keys that it wants.
 */
static int
plan_by_key(void)
{
	static const char *const settings[] = {"enable_seqscan", "enable_hashjoin", "enable_mergejoin"};
	int			nest = NewGUCNestLevel();

	for (size_t i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i], "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return nest;
}

/* Execute a kept plan, preparing it at its first use; named relations are registered by then. */
static void
execute(PlanName name, Datum *values, const char *nulls, int expected)
{
	int			nest = plans[name] == NULL || is_bulk(name) ? plan_by_key() : 0;
	int			result;

	if (plans[name] == NULL)
	{
		Oid			types[ENTRY_COLUMNS];
		int			ntypes;

		ntypes = plan_types(name, types);
		plans[name] = SPI_prepare_cursor(plan_sql[name], ntypes, types, CURSOR_OPT_GENERIC_PLAN);
		if (plans[name] == NULL)
			elog(ERROR, "could not prepare plan %d: %s", name,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plans[name]);
	}
	result = SPI_execute_plan(plans[name], values, nulls, false, 0);
	if (nest != 0)
		AtEOXact_GUC(false, nest);
	if (result != expected)
		elog(ERROR, "plan %d failed: %s", name, SPI_result_code_string(result));
}

/* ------------------------------------------------------------------------
 * Accounts
 * ------------------------------------------------------------------------ */

/* Open a ledger; SPI must be connected.  It lives in the current memory context. */
Ledger *
LedgerOpen(void)
{
	Ledger	   *ledger = palloc0(sizeof(Ledger));

	resolve_types();
	KeysRefresh();
	ledger->context = CurrentMemoryContext;
	ledger->now = GetCurrentTransactionStartTimestamp();
	ledger->actor = GetUserNameFromId(GetSessionUserId(), false);
	ledger->actor_datum = CStringGetTextDatum(ledger->actor);
	ledger->entry_capacity = 4;
	ledger->entry = palloc(sizeof(QueuedEntry) * ledger->entry_capacity);
	return ledger;
}

/* Copy a varlena column of an account, 0 where it is null. */
static Datum
copy_varlena(Datum value, bool isnull)
{
	return isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

/* Read the chain's head. */
static void
read_head(Account *account, Datum value)
{
	if (!SealReadLink(PG_DETOAST_DATUM_PACKED(value), &account->head))
		ereport(ERROR,
				(errcode(ERRCODE_LY_BROKEN_BOOKS),
				 errmsg("head of account " INT64_FORMAT " is not a hash", account->account_id)));
}

/* Refuse a hold that the ledger did not write. */
static void
raise_broken_hold(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_BROKEN_BOOKS),
			 errmsg("a hold is not readable"),
			 errdetail("It is null, or lacks what every hold has.")));
}

/* Read one open hold. */
static void
read_hold(Hold *hold, Datum value)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header), .t_data = header};
	/* somebody may have added attributes */
	Datum	   *v = palloc0(sizeof(Datum) * Max(desc->natts, HOLD_COLUMNS));
	bool	   *n = palloc0(sizeof(bool) * Max(desc->natts, HOLD_COLUMNS));

	heap_deform_tuple(&tuple, desc, v, n);
	ReleaseTupleDesc(desc);
	if (n[0] || n[1] || n[2] || n[3] || n[4])
		raise_broken_hold();
	hold->hold_id = DatumGetInt64(v[0]);
	hold->key = TextDatumGetCString(v[1]);
	hold->held_at = DatumGetTimestampTz(v[2]);
	hold->held_until = DatumGetTimestampTz(v[3]);
	LotsFromDatum(v[4], &hold->lots);
	hold->detail = copy_varlena(v[5], n[5]);
}

/* Read the open holds of an account. */
void
HoldsFromDatum(Datum value, Hold **holds, int *nholds)
{
	Datum	   *elements;
	bool	   *nulls;

	deconstruct_array(DatumGetArrayTypePCopy(value), OurTypeOid("hold"), -1,
					  false, TYPALIGN_DOUBLE, &elements, &nulls, nholds);
	*holds = palloc(sizeof(Hold) * Max(*nholds, 1));
	for (int i = 0; i < *nholds; i++)
	{
		if (nulls[i])
			raise_broken_hold();
		read_hold(&(*holds)[i], elements[i]);
	}
}

/* Read an account from a row of ACCOUNT_SELECT. */
static void
read_account(Account *account, HeapTuple tuple, TupleDesc desc)
{
	Datum		v[19];
	bool		n[19];

	heap_deform_tuple(tuple, desc, v, n);
	memset(account, 0, sizeof(Account));
	account->account_id = DatumGetInt64(v[0]);
	account->program_id = DatumGetInt32(v[1]);
	account->closed = DatumGetBool(v[2]);
	account->joined_at = DatumGetTimestampTz(v[3]);
	account->tier_id = n[4] ? 0 : DatumGetInt32(v[4]);
	account->tier_since = n[5] ? DT_NOBEGIN : DatumGetTimestampTz(v[5]);
	account->tier_until = n[6] ? DATEVAL_NOEND : DatumGetDateADT(v[6]);
	account->tier_pinned = n[7] ? DATEVAL_NOBEGIN : DatumGetDateADT(v[7]);
	account->last_event_at = n[8] ? DT_NOBEGIN : DatumGetTimestampTz(v[8]);
	account->seq = DatumGetInt64(v[9]);
	LotsFromDatum(v[10], &account->lots);
	TallyFromDatum(v[11], &account->tally);
	read_head(account, v[12]);
	account->frozen = DatumGetBool(v[13]);
	if (!n[14])
		HoldsFromDatum(v[14], &account->hold, &account->nholds);
	account->merged_into = n[15] ? 0 : DatumGetInt64(v[15]);
	account->household_id = n[16] ? 0 : DatumGetInt64(v[16]);
	account->household_blocked = DatumGetBool(v[17]);
	account->left_households = n[18] ? NULL : DatumGetArrayTypePCopy(v[18]);
}

/* Add the accounts of the last result to those of the ledger. */
static void
add_accounts(Ledger *ledger)
{
	MemoryContext old = MemoryContextSwitchTo(ledger->context);
	int			n = ledger->naccounts + (int) SPI_processed;
	Account    *account = palloc(sizeof(Account) * Max(n, 1));

	ledger->has_members = false;
	if (ledger->naccounts > 0)
		memcpy(account, ledger->account, sizeof(Account) * ledger->naccounts);
	for (uint64 i = 0; i < SPI_processed; i++)
		read_account(&account[ledger->naccounts + i], SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	ledger->account = account;
	ledger->naccounts = n;
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/* By account_id, which comes first. */
static int
compare_accounts(const void *a, const void *b)
{
	return compare_ids(&((const Account *) a)->account_id, &((const Account *) b)->account_id);
}

static void sort_accounts(Ledger *ledger);

/*
 * Lock accounts in ascending order and add them to the ledger; ids are sorted in place.
 *
 * Those that were merged into others come before all that were not: whoever
 * begins with one finds out under its lock that it needs the other.
 */
static void
lock_accounts(Ledger *ledger, int64 *account_ids, int n)
{
	Datum		value;
	Datum	   *ids;
	int			distinct = 0;

	qsort(account_ids, n, sizeof(int64), compare_ids);
	ids = palloc(sizeof(Datum) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (i == 0 || account_ids[i] != account_ids[i - 1])
			ids[distinct++] = Int64GetDatum(account_ids[i]);
	}
	if (distinct == 1)
	{
		execute(PLAN_LOCK_ONE, ids, NULL, SPI_OK_SELECT);
	}
	else
	{
		value = PointerGetDatum(construct_array(ids, distinct, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		execute(PLAN_LOCK_MANY, &value, NULL, SPI_OK_SELECT);
	}
	pfree(ids);
	add_accounts(ledger);
	if (distinct > 1)
		sort_accounts(ledger);
}

/* The households of the ledger's members that it does not have yet. */
static int
missing_households(Ledger *ledger, int64 **ids)
{
	int			n = 0;

	*ids = NULL;
	for (int i = 0; i < ledger->naccounts; i++)
	{
		int64		household_id = ledger->account[i].household_id;

		if (household_id == 0 || LedgerAccount(ledger, household_id) != NULL)
			continue;
		if (*ids == NULL)
			*ids = palloc(sizeof(int64) * ledger->naccounts);
		(*ids)[n++] = household_id;
	}
	return n;
}

/* Put the accounts of the ledger into their order. */
static void
sort_accounts(Ledger *ledger)
{
	qsort(ledger->account, ledger->naccounts, sizeof(Account), compare_accounts);
}

/* Move wallets to the end; how many of the ids are not wallets. */
static int
wallets_last(int64 *ids, int n)
{
	int			count = 0;

	for (int i = 0; i < n; i++)
	{
		int64		id = ids[i];

		if (id >= FIRST_WALLET)
			continue;
		ids[i] = ids[count];
		ids[count++] = id;
	}
	return count;
}

/* Open the accounts of wallets that were not used before; their members are locked, or nobody cares who is first. */
static void
open_wallets(const int64 *ids, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * n);
	Datum		array;

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(ids[i]);
	array = PointerGetDatum(construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
											TYPALIGN_DOUBLE));
	execute(PLAN_OPEN_WALLETS, &array, NULL, SPI_OK_INSERT);
	pfree(values);
}

/* Lock wallets' accounts after everything else, and open those that are not there yet. */
void
LedgerLockWallets(Ledger *ledger, int64 *account_ids, int n)
{
	int			before = ledger->naccounts;
	int			missing = 0;

	if (n == 0)
		return;
	lock_accounts(ledger, account_ids, n);
	if (ledger->naccounts - before < n)
	{
		/* sorted above, with repetitions */
		sort_accounts(ledger);
		for (int i = 0; i < n; i++)
		{
			if (LedgerAccount(ledger, account_ids[i]) == NULL &&
				(missing == 0 || account_ids[missing - 1] != account_ids[i]))
				account_ids[missing++] = account_ids[i];
		}
		if (missing > 0)
		{
			open_wallets(account_ids, missing);
			lock_accounts(ledger, account_ids, missing);
		}
	}
	sort_accounts(ledger);
}

/* Lock accounts, after them the households of their members, and wallets last; ids are put in order. */
void
LedgerLock(Ledger *ledger, int64 *account_ids, int n)
{
	int			plain = wallets_last(account_ids, n);
	int64	   *households;
	int			count;

	ledger->naccounts = 0;
	if (plain > 0)
		lock_accounts(ledger, account_ids, plain);
	count = missing_households(ledger, &households);
	if (count > 0)
	{
		lock_accounts(ledger, households, count);
		sort_accounts(ledger);
	}
	LedgerLockWallets(ledger, account_ids + plain, n - plain);
}

/* Tell whether there are members who share an account, or were. */
bool
LedgerHasHouseholds(void)
{
	bool		found;

	execute(PLAN_HOUSEHOLDS, NULL, NULL, SPI_OK_SELECT);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* Lock members without their households. */
int
LedgerLockMembers(Ledger *ledger, int64 *member_ids, int n, Account **accounts)
{
	ledger->naccounts = 0;
	lock_accounts(ledger, member_ids, n);
	*accounts = ledger->account;
	return ledger->naccounts;
}

/* Read one account, and its household's, without a lock, for questions that write nothing. */
void
LedgerRead(Ledger *ledger, int64 account_id)
{
	Datum		value = Int64GetDatum(account_id);
	int64	   *household;

	ledger->naccounts = 0;
	execute(PLAN_READ_ONE, &value, NULL, SPI_OK_SELECT);
	add_accounts(ledger);
	if (missing_households(ledger, &household) == 0)
		return;
	value = Int64GetDatum(household[0]);
	execute(PLAN_READ_ONE, &value, NULL, SPI_OK_SELECT);
	add_accounts(ledger);
}

/* Read a wallet's account as well; where it is not there yet, an empty one stands for it. */
void
LedgerReadWallet(Ledger *ledger, int64 account_id)
{
	Datum		value = Int64GetDatum(account_id);
	const Account *member = LedgerAccount(ledger, WalletMember(account_id));

	execute(PLAN_READ_ONE, &value, NULL, SPI_OK_SELECT);
	add_accounts(ledger);
	if (LedgerAccount(ledger, account_id) == NULL && member != NULL)
	{
		Account    *account = MemoryContextAllocZero(ledger->context, sizeof(Account) * (ledger->naccounts + 1));

		memcpy(account, ledger->account, sizeof(Account) * ledger->naccounts);
		ledger->account = account;
		account = &account[ledger->naccounts++];
		account->account_id = account_id;
		account->program_id = WalletProgram(account_id);
		account->tier_since = DT_NOBEGIN;
		account->tier_until = DATEVAL_NOEND;
		account->tier_pinned = DATEVAL_NOBEGIN;
		account->last_event_at = DT_NOBEGIN;
		account->joined_at = member->joined_at;
		lotset_init(&account->lots);
		tallyset_init(&account->tally);
	}
	sort_accounts(ledger);
}

/* The account that a member earns into and spends from: its own, or its household's. */
Account *
LedgerHome(Ledger *ledger, Account *member)
{
	if (member->household_id == 0)
		return member;
	return LedgerAccount(ledger, member->household_id);
}

/* The account of a member; NULL where there is none. */
Account *
LedgerAccount(Ledger *ledger, int64 account_id)
{
	int			low = 0;
	int			high = ledger->naccounts - 1;

	while (low <= high)
	{
		int			middle = low + (high - low) / 2;
		Account    *account = &ledger->account[middle];

		if (account->account_id == account_id)
			return account;
		if (account->account_id < account_id)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return NULL;
}

/* Copy what rules may know of a member into the account. */
static void
read_member(Account *account, HeapTuple tuple, TupleDesc desc)
{
	Datum		v[5];
	bool		n[5];

	heap_deform_tuple(tuple, desc, v, n);
	account->external_id = copy_varlena(v[1], n[1]);
	account->has_birthday = !n[2];
	account->birthday = n[2] ? 0 : DatumGetDateADT(v[2]);
	account->staff = DatumGetBool(v[3]);
	account->attributes = copy_varlena(v[4], n[4]);
}

/* Read what rules may know of the members, once for all accounts of the ledger. */
void
LedgerLoadMembers(Ledger *ledger)
{
	MemoryContext old;
	Datum	   *ids;
	Datum		value;

	if (ledger->has_members || ledger->naccounts == 0)
		return;
	ledger->has_members = true;
	ids = palloc(sizeof(Datum) * ledger->naccounts);
	for (int i = 0; i < ledger->naccounts; i++)
		ids[i] = Int64GetDatum(ledger->account[i].account_id);
	value = PointerGetDatum(construct_array(ids, ledger->naccounts, INT8OID, sizeof(int64),
											FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	execute(PLAN_MEMBERS, &value, NULL, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(ledger->context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		HeapTuple	tuple = SPI_tuptable->vals[i];
		Account    *account = LedgerAccount(ledger, DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull)));

		if (account != NULL)
			read_member(account, tuple, SPI_tuptable->tupdesc);
	}
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
}

/* All accounts of the ledger. */
int
LedgerAccounts(Ledger *ledger, Account **accounts)
{
	*accounts = ledger->account;
	return ledger->naccounts;
}

/* ------------------------------------------------------------------------
 * Posting
 * ------------------------------------------------------------------------ */

/* The text of an entry's detail, as its hash covers it. */
const char *
SealedDetail(Datum detail, int *length)
{
	Jsonb	   *jsonb = DatumGetJsonbP(detail);
	char	   *text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));

	*length = (int) strlen(text);
	return text;
}

/* Hash a queued entry onto its account's chain. */
static void
chain_entry(Ledger *ledger, Account *account, QueuedEntry *entry)
{
	SealedEntry sealed;
	const uint8 *key;
	int			key_id;

	sealed.account_id = entry->account_id;
	sealed.seq = entry->seq;
	sealed.kind = entry->kind;
	sealed.kind_length = (int) strlen(entry->kind);
	sealed.points = entry->points;
	sealed.has_source = entry->source_id != 0;
	sealed.source_id = entry->source_id;
	sealed.occurred_at = entry->occurred_at;
	sealed.recorded_at = ledger->now;
	sealed.lots = (struct varlena *) DatumGetPointer(entry->lots);
	sealed.tally = (struct varlena *) DatumGetPointer(entry->tally);
	sealed.breakdown = (struct varlena *) entry->breakdown;
	sealed.actor = ledger->actor;
	sealed.actor_length = (int) strlen(ledger->actor);
	sealed.reason = entry->reason;
	sealed.reason_length = entry->reason == NULL ? 0 : (int) strlen(entry->reason);
	sealed.key = entry->key;
	sealed.key_length = entry->key == NULL ? 0 : (int) strlen(entry->key);
	sealed.detail = entry->detail == 0 ? NULL : SealedDetail(entry->detail, &sealed.detail_length);
	key = KeysChaining(&key_id);
	SealEntry(&sealed, &account->head, key_id, key, &entry->hash);
	account->head = entry->hash;
}

/* Take a queue slot for one more entry. */
static QueuedEntry *
next_entry(Ledger *ledger)
{
	if (ledger->nentries == ledger->entry_capacity)
	{
		ledger->entry_capacity *= 2;
		ledger->entry = repalloc_huge(ledger->entry,
									  sizeof(QueuedEntry) * ledger->entry_capacity);
	}
	return &ledger->entry[ledger->nentries++];
}

/* Copy bytes into the current memory context. */
static bytea *
copy_bytes(const bytea *bytes)
{
	bytea	   *copy;

	if (bytes == NULL)
		return NULL;
	copy = palloc(VARSIZE_ANY(bytes));
	memcpy(copy, bytes, VARSIZE_ANY(bytes));
	return copy;
}

/* Refuse a key that something else has. */
static void
raise_key_taken(const Posting *posting, int64 account_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_KEY_REUSED),
			 errmsg("key \"%s\" of member " INT64_FORMAT " is a hold", posting->key, account_id),
			 errhint("A key belongs to one operation for ever; take another.")));
}

/*
 * Refuse a key that a hold has, except to what resolves the hold.
 *
 * The entry that resolves the hold will bear the key; an account on which
 * another entry bears it could not be written any more once the hold lapses.
 * A hold that lapsed just now has its entry in the queue.
 */
static void
check_key(const Ledger *ledger, const Account *account, const Posting *posting)
{
	for (int i = 0; i < account->nholds; i++)
	{
		if (strcmp(account->hold[i].key, posting->key) == 0 &&
			account->hold[i].hold_id != posting->source_id)
			raise_key_taken(posting, account->account_id);
	}
	for (int i = 0; i < ledger->nentries; i++)
	{
		const QueuedEntry *entry = &ledger->entry[i];

		if (entry->account_id == account->account_id && entry->key != NULL &&
			strcmp(entry->key, posting->key) == 0)
			raise_key_taken(posting, account->account_id);
	}
}

/*
 * Queue an entry and apply it to its account; returns its number.
 *
 * Lots, tally and breakdown are copied; kind, reason and key must live until
 * the flush.
 */
int64
LedgerPost(Ledger *ledger, Account *account, const Posting *posting)
{
	static const LotSet no_lots;
	static const TallySet no_tally;
	const LotSet *lots = posting->lots != NULL ? posting->lots : &no_lots;
	const TallySet *tally = posting->tally != NULL ? posting->tally : &no_tally;
	MemoryContext old = MemoryContextSwitchTo(ledger->context);
	QueuedEntry *entry;

	if (posting->key != NULL)
		check_key(ledger, account, posting);
	entry = next_entry(ledger);
	entry->account_id = account->account_id;
	entry->seq = account->seq + 1;
	entry->kind = posting->kind;
	entry->source_id = posting->source_id;
	entry->occurred_at = posting->occurred_at;
	entry->breakdown = copy_bytes(posting->breakdown);
	entry->reason = posting->reason;
	entry->key = posting->key;
	entry->detail = copy_varlena(posting->detail, posting->detail == 0);
	entry->lots = LotsToDatum(lots);
	entry->tally = TallyToDatum(tally);
	LotsRaise(lotset_total(lots, &entry->points));
	LotsRaise(lotset_add(&account->lots, lots));
	TallyRaise(tallyset_add(&account->tally, tally));
	account->seq++;
	account->last_event_at = Max(account->last_event_at, posting->occurred_at);
	account->changed = true;
	chain_entry(ledger, account, entry);
	MemoryContextSwitchTo(old);
	return entry->seq;
}

/* Queue a change of tier. */
void
LedgerSetTier(Ledger *ledger, Account *account, int32 tier_id, TimestampTz since, int32 until,
			  const char *cause, int64 source_id, const char *reason)
{
	MemoryContext old = MemoryContextSwitchTo(ledger->context);
	QueuedTier *change = palloc(sizeof(QueuedTier));

	change->account_id = account->account_id;
	change->tier_id = tier_id;
	change->since = since;
	change->until = until;
	change->cause = cause;
	change->source_id = source_id;
	change->reason = reason;
	ledger->tiers = lappend(ledger->tiers, change);
	MemoryContextSwitchTo(old);
	account->tier_id = tier_id;
	account->tier_since = since;
	account->tier_until = until;
	account->changed = true;
}

/* The tier that an account held at an instant before its present tier; 0: none. */
int32
LedgerTierAt(Ledger *ledger, int64 account_id, TimestampTz at)
{
	Datum		values[2] = {Int64GetDatum(account_id), TimestampTzGetDatum(at)};
	bool		isnull = true;
	Datum		tier = (Datum) 0;

	execute(PLAN_TIER_AT, values, NULL, SPI_OK_SELECT);
	if (SPI_processed == 1)
		tier = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	SPI_freetuptable(SPI_tuptable);
	return isnull ? 0 : DatumGetInt32(tier);
}

/* Park an award. */
static void
park_award(const Ledger *ledger, int64 source_id, int64 account_id, const char *reason,
		   const char *detail, bool failed)
{
	Datum		values[6];
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = Int64GetDatum(source_id);
	values[1] = Int64GetDatum(account_id);
	values[2] = TimestampTzGetDatum(ledger->now);
	values[3] = CStringGetTextDatum(reason);
	nulls[4] = detail == NULL ? 'n' : ' ';
	values[4] = detail == NULL ? (Datum) 0 : CStringGetTextDatum(detail);
	values[5] = BoolGetDatum(failed);
	execute(PLAN_HOLD, values, nulls, SPI_OK_INSERT);
}

/* Park the award of a source until a person approves it; it is decided with the rules that are known now. */
void
LedgerHold(Ledger *ledger, int64 source_id, int64 account_id, const char *reason,
		   const char *detail)
{
	park_award(ledger, source_id, account_id, reason, detail, false);
}

/* Park an award whose rules raised: once they are put right it is decided with the new ones. */
void
LedgerHoldFailed(Ledger *ledger, int64 source_id, int64 account_id, const char *reason,
				 const char *detail)
{
	park_award(ledger, source_id, account_id, reason, detail, true);
}

/* ------------------------------------------------------------------------
 * What was posted before
 * ------------------------------------------------------------------------ */

/* Add one entry to what was posted for its source. */
static void
add_posted(Posted *posted, Datum *v, bool *n)
{
	LotSet		lots;
	TallySet	tally;

	if (n[1])
		return;
	posted->account_id = DatumGetInt64(v[1]);
	/* in a household's account the entries themselves say whose they are */
	if (!n[9])
		posted->member_id = DatumGetInt64(v[9]);
	else if (posted->member_id == 0 || DatumGetInt64(v[8]) < FIRST_HOUSEHOLD ||
			 DatumGetInt64(v[8]) >= FIRST_WALLET)
		posted->member_id = DatumGetInt64(v[8]);
	if (!n[11])
		posted->occurred_at = DatumGetTimestampTz(v[11]);
	LotsFromDatum(v[2], &lots);
	LotsRaise(lotset_add(&posted->lots, &lots));
	TallyFromDatum(v[3], &tally);
	TallyRaise(tallyset_add(&posted->tally, &tally));
	if (n[4])
		return;
	if (posted->nbreakdowns == 0)
		posted->breakdown = palloc(sizeof(bytea *));
	else
		posted->breakdown = repalloc(posted->breakdown,
									 sizeof(bytea *) * (posted->nbreakdowns + 1));
	posted->breakdown[posted->nbreakdowns++] = (bytea *) DatumGetPointer(copy_varlena(v[4], false));
}

/*
 * Read what was posted for sources, one element for every source and account.
 *
 * A source for which nothing was posted has one element with account 0.  The
 * accounts concerned must be locked, or be locked and read again.
 */
int
LedgerPosted(Ledger *ledger, int64 *source_ids, int n, Posted **result)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(n, 1));
	Datum		value;
	Posted	   *posted;
	int			count = 0;

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(source_ids[i]);
	value = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64),
											FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	execute(PLAN_POSTED, &value, NULL, SPI_OK_SELECT);
	posted = MemoryContextAllocZero(ledger->context, sizeof(Posted) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(ledger->context);
		Datum		v[12];
		bool		nulls[12];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, v, nulls);
		if (count == 0 || posted[count - 1].source_id != DatumGetInt64(v[0]) ||
			(!nulls[1] && posted[count - 1].account_id != DatumGetInt64(v[1])))
		{
			count++;
			posted[count - 1].source_id = DatumGetInt64(v[0]);
			lotset_init(&posted[count - 1].lots);
			tallyset_init(&posted[count - 1].tally);
			posted[count - 1].held = DatumGetBool(v[5]);
			posted[count - 1].refused = DatumGetBool(v[10]);
			posted[count - 1].returned = DatumGetBool(v[7]);
			posted[count - 1].occurred_at = DT_NOBEGIN;
			posted[count - 1].recorded_at = nulls[6] ? DT_NOEND : DatumGetTimestampTz(v[6]);
		}
		add_posted(&posted[count - 1], v, nulls);
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(SPI_tuptable);
	*result = posted;
	return count;
}

/* Demand that every account to which something was posted is locked. */
static void
check_locked(Ledger *ledger, const Posted *posted, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (posted[i].account_id != 0 && LedgerAccount(ledger, posted[i].account_id) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("what was posted for transaction " INT64_FORMAT " moved to another account meanwhile",
							posted[i].source_id),
					 errhint("Try again.")));
	}
}

/* Read what was posted for sources to accounts that are locked; see LedgerPosted. */
int
LedgerLockedPosted(Ledger *ledger, int64 *source_ids, int n, Posted **posted)
{
	int			count = LedgerPosted(ledger, source_ids, n, posted);

	check_locked(ledger, *posted, count);
	return count;
}

/* Lock every account to which something was posted for sources, and a member (0: none) whose they are now; read what was. */
int
LedgerLockPosted(Ledger *ledger, int64 *source_ids, int n, int64 member_id, Posted **posted)
{
	int			count = LedgerPosted(ledger, source_ids, n, posted);
	int64	   *ids = palloc(sizeof(int64) * (count + 1));
	int			nids = 0;

	if (member_id != 0)
		ids[nids++] = member_id;
	for (int i = 0; i < count; i++)
	{
		if ((*posted)[i].account_id != 0)
			ids[nids++] = (*posted)[i].account_id;
	}
	if (nids == 0)
		return count;
	LedgerLock(ledger, ids, nids);
	return LedgerLockedPosted(ledger, source_ids, n, posted);
}

/* Find the entry that a key made in one account. */
static bool
find_key(Ledger *ledger, int64 account_id, const char *key, KeyedEntry *entry)
{
	Datum		values[2] = {Int64GetDatum(account_id), CStringGetTextDatum(key)};
	MemoryContext old;
	Datum		v[7];
	bool		n[7];
	bool		found;

	execute(PLAN_BY_KEY, values, NULL, SPI_OK_SELECT);
	found = SPI_processed > 0;
	if (found)
	{
		old = MemoryContextSwitchTo(ledger->context);
		heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, v, n);
		entry->account_id = DatumGetInt64(v[0]);
		entry->seq = DatumGetInt64(v[1]);
		entry->kind = TextDatumGetCString(v[2]);
		entry->points = DatumGetInt64(v[3]);
		entry->source_id = n[4] ? 0 : DatumGetInt64(v[4]);
		LotsFromDatum(v[5], &entry->lots);
		entry->detail = copy_varlena(v[6], n[6]);
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* Find the entry that a key made for a member: in its own account, in its household's or in one that it left. */
bool
LedgerFindKey(Ledger *ledger, const Account *member, const char *key, KeyedEntry *entry)
{
	Datum	   *left;
	int			n = 0;

	if (find_key(ledger, member->account_id, key, entry) ||
		(member->household_id != 0 && find_key(ledger, member->household_id, key, entry)))
		return true;
	if (member->left_households != NULL)
		deconstruct_array(member->left_households, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &left, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		if (find_key(ledger, DatumGetInt64(left[i]), key, entry))
			return true;
	}
	return false;
}

/* The points that entries of one kind posted for a source. */
int64
LedgerSumOfKind(Ledger *ledger, int64 source_id, const char *kind)
{
	Datum		values[2] = {Int64GetDatum(source_id), CStringGetTextDatum(kind)};
	bool		isnull;
	int64		sum;

	execute(PLAN_SUM_OF_KIND, values, NULL, SPI_OK_SELECT);
	sum = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return sum;
}

/* Let one account, and those merged into it before, be taken over by another; both are locked. */
void
LedgerMerge(Ledger *ledger, int64 account_id, int64 into)
{
	Datum		values[2] = {Int64GetDatum(account_id), Int64GetDatum(into)};

	execute(PLAN_MERGE, values, NULL, SPI_OK_UPDATE);
}

/* Let a member share the account of a household from now on; both are locked and flushed. */
void
LedgerJoin(Ledger *ledger, const Account *member, int64 household_id, const char *reason)
{
	Datum		values[5] = {Int64GetDatum(member->account_id), Int64GetDatum(household_id),
		TimestampTzGetDatum(ledger->now), Int64GetDatum(member->seq),
		reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason)
	};
	char		nulls[5] = {' ', ' ', ' ', ' ', reason == NULL ? 'n' : ' '};

	execute(PLAN_JOIN, values, nulls, SPI_OK_INSERT);
}

/* Let a member have an account of its own again; both are locked and flushed. */
void
LedgerLeave(Ledger *ledger, const Account *member, const char *reason)
{
	Datum		values[3] = {Int64GetDatum(member->account_id), TimestampTzGetDatum(ledger->now),
		reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason)
	};
	char		nulls[3] = {' ', ' ', reason == NULL ? 'n' : ' '};

	execute(PLAN_LEAVE, values, nulls, SPI_OK_UPDATE);
}

/* Let a member spend from its household's account, or not; it is locked. */
void
LedgerBlock(Ledger *ledger, const Account *member, bool blocked)
{
	Datum		values[2] = {Int64GetDatum(member->account_id), BoolGetDatum(blocked)};

	execute(PLAN_BLOCK, values, NULL, SPI_OK_UPDATE);
}

/* What an account lost by expiry: the sum of its closing entries, negative. */
void
LedgerExpired(Ledger *ledger, int64 account_id, LotSet *lots)
{
	Datum		value = Int64GetDatum(account_id);

	execute(PLAN_EXPIRED, &value, NULL, SPI_OK_SELECT);
	lotset_init(lots);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		LotSet		entry;

		LotsFromDatum(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull),
					  &entry);
		LotsRaise(lotset_add(lots, &entry));
	}
	SPI_freetuptable(SPI_tuptable);
}

/* The entries that closed lots of an account, in no order. */
int
LedgerClosings(Ledger *ledger, int64 account_id, Closing **closings)
{
	Datum		value = Int64GetDatum(account_id);
	int			n;

	execute(PLAN_CLOSINGS, &value, NULL, SPI_OK_SELECT);
	n = (int) SPI_processed;
	*closings = palloc(sizeof(Closing) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		Closing    *closing = &(*closings)[i];
		Datum		lots;
		bool		isnull;

		lots = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		LotsFromDatum(lots, &closing->lots);
		closing->after = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i],
														   SPI_tuptable->tupdesc, 2, &isnull));
		if (isnull)
			closing->after = DT_NOBEGIN;
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* A number for something that entries will name as their source. */
int64
LedgerNextSource(void)
{
	Oid			schema = get_namespace_oid("loyalty", false);

	return nextval_internal(get_relname_relid("transaction_id_seq", schema), false);
}

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------ */

/* Make a bytea of a link of the chain. */
static Datum
link_datum(const ChainLink *link)
{
	bytea	   *result = palloc(VARHDRSZ + SEAL_LINK_BYTES);

	SET_VARSIZE(result, VARHDRSZ + link->length);
	memcpy(VARDATA(result), link->bytes, link->length);
	return PointerGetDatum(result);
}

/* Text of a C string, 0 for NULL. */
static Datum
text_datum(const char *string)
{
	return string == NULL ? (Datum) 0 : CStringGetTextDatum(string);
}

/* The columns of an entry. */
static void
entry_columns(const Ledger *ledger, const QueuedEntry *entry, Datum *v, bool *n)
{
	memset(n, false, sizeof(bool) * ENTRY_COLUMNS);
	v[0] = Int64GetDatum(entry->account_id);
	v[1] = Int64GetDatum(entry->seq);
	v[2] = CStringGetTextDatum(entry->kind);
	v[3] = Int64GetDatum(entry->points);
	v[4] = Int64GetDatum(entry->source_id);
	n[4] = entry->source_id == 0;
	v[5] = TimestampTzGetDatum(entry->occurred_at);
	v[6] = TimestampTzGetDatum(ledger->now);
	v[7] = entry->lots;
	v[8] = entry->tally;
	v[9] = PointerGetDatum(entry->breakdown);
	n[9] = entry->breakdown == NULL;
	v[10] = ledger->actor_datum;
	v[11] = text_datum(entry->reason);
	n[11] = entry->reason == NULL;
	v[12] = text_datum(entry->key);
	n[12] = entry->key == NULL;
	v[13] = entry->detail;
	n[13] = entry->detail == 0;
	v[14] = link_datum(&entry->hash);
}

/* Make an array of an account's open holds. */
static Datum
holds_datum(const Account *account)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(hold_type, -1);
	Datum	   *elements = palloc(sizeof(Datum) * account->nholds);
	Datum	   *v = palloc0(sizeof(Datum) * desc->natts);
	bool	   *n = palloc(sizeof(bool) * desc->natts);

	memset(n, true, sizeof(bool) * desc->natts);
	for (int i = 0; i < account->nholds; i++)
	{
		const Hold *hold = &account->hold[i];

		memset(n, false, sizeof(bool) * HOLD_COLUMNS);

		v[0] = Int64GetDatum(hold->hold_id);
		v[1] = CStringGetTextDatum(hold->key);
		v[2] = TimestampTzGetDatum(hold->held_at);
		v[3] = TimestampTzGetDatum(hold->held_until);
		v[4] = LotsToDatum(&hold->lots);
		v[5] = hold->detail;
		n[5] = hold->detail == 0;
		elements[i] = HeapTupleGetDatum(heap_form_tuple(desc, v, n));
	}
	ReleaseTupleDesc(desc);
	return PointerGetDatum(construct_array(elements, account->nholds, hold_type, -1, false,
										   TYPALIGN_DOUBLE));
}

/* The columns of an account. */
static void
account_columns(const Account *account, Datum *v, bool *n)
{
	memset(n, false, sizeof(bool) * (ACCOUNT_COLUMNS));
	v[0] = Int64GetDatum(account->account_id);
	v[1] = Int32GetDatum(account->tier_id);
	n[1] = account->tier_id == 0;
	v[2] = TimestampTzGetDatum(account->tier_since);
	n[2] = TIMESTAMP_NOT_FINITE(account->tier_since);
	v[3] = DateADTGetDatum(account->tier_until);
	n[3] = account->tier_until == DATEVAL_NOEND;
	v[4] = DateADTGetDatum(account->tier_pinned);
	n[4] = account->tier_pinned == DATEVAL_NOBEGIN;
	v[5] = TimestampTzGetDatum(account->last_event_at);
	n[5] = TIMESTAMP_NOT_FINITE(account->last_event_at);
	v[6] = Int64GetDatum(account->seq);
	v[7] = LotsToDatum(&account->lots);
	v[8] = TallyToDatum(&account->tally);
	v[9] = link_datum(&account->head);
	n[10] = account->nholds == 0;
	v[10] = n[10] ? (Datum) 0 : holds_datum(account);
}

/* SPI's form of nulls. */
static void
spi_nulls(const bool *n, int count, char *nulls)
{
	for (int i = 0; i < count; i++)
		nulls[i] = n[i] ? 'n' : ' ';
}

/* Write the one queued entry. */
static void
write_entry(Ledger *ledger)
{
	Datum		v[ENTRY_COLUMNS];
	bool		n[ENTRY_COLUMNS];
	char		nulls[ENTRY_COLUMNS];

	entry_columns(ledger, &ledger->entry[0], v, n);
	spi_nulls(n, ENTRY_COLUMNS, nulls);
	execute(PLAN_ENTRY_ONE, v, nulls, SPI_OK_INSERT);
}

/* Write one changed account. */
static void
write_account(Account *account)
{
	Datum		v[ACCOUNT_COLUMNS];
	bool		n[ACCOUNT_COLUMNS];
	char		nulls[ACCOUNT_COLUMNS];

	account_columns(account, v, n);
	spi_nulls(n, ACCOUNT_COLUMNS, nulls);
	execute(PLAN_ACCOUNT_ONE, v, nulls, SPI_OK_UPDATE);
	if (SPI_processed != 1)
		elog(ERROR, "account " INT64_FORMAT " vanished under its lock", account->account_id);
	account->changed = false;
}

/* Execute a plan over rows of our own, which it sees as a named relation. */
static void
execute_over(PlanName plan, const char *name, Tuplestorestate *rows, TupleDesc desc,
			 int64 count, int expected)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = (double) count;
	relation->reldata = rows;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register %s", name);
	execute(plan, NULL, NULL, expected);
	if (SPI_processed != (uint64) count)
		elog(ERROR, "wrote " UINT64_FORMAT " rows of " INT64_FORMAT, SPI_processed, count);
	SPI_unregister_relation(name);
}

/* A row type from names and types. */
static TupleDesc
make_desc(const char *const *names, const Oid *types, int n)
{
	TupleDesc	desc;

	desc = CreateTemplateTupleDesc(n);
	for (int i = 0; i < n; i++)
		TupleDescInitEntry(desc, i + 1, names[i], types[i], -1, 0);
	return desc;
}

/* Write every queued entry, in order of the accounts. */
static void
write_entries(Ledger *ledger)
{
	TupleDesc	desc = make_desc(entry_names, entry_types, ENTRY_COLUMNS);
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "loyalty entries",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	for (int i = 0; i < ledger->nentries; i++)
	{
		Datum		v[ENTRY_COLUMNS];
		bool		n[ENTRY_COLUMNS];

		entry_columns(ledger, &ledger->entry[i], v, n);
		tuplestore_putvalues(rows, desc, v, n);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	execute_over(PLAN_ENTRY_MANY, "loyalty_entries", rows, desc, ledger->nentries, SPI_OK_INSERT);
	tuplestore_end(rows);
}

/* Write every changed account. */
static void
write_accounts(Ledger *ledger, int nchanged)
{
	TupleDesc	desc = make_desc(account_names, account_types, ACCOUNT_COLUMNS);
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "loyalty accounts",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	for (int i = 0; i < ledger->naccounts; i++)
	{
		Datum		v[ACCOUNT_COLUMNS];
		bool		n[ACCOUNT_COLUMNS];

		if (!ledger->account[i].changed)
			continue;
		account_columns(&ledger->account[i], v, n);
		tuplestore_putvalues(rows, desc, v, n);
		MemoryContextReset(scratch);
		ledger->account[i].changed = false;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	execute_over(PLAN_ACCOUNT_MANY, "loyalty_accounts", rows, desc, nchanged, SPI_OK_UPDATE);
	tuplestore_end(rows);
}

/* The columns of a change of tier. */
static void
tier_columns(const Ledger *ledger, const QueuedTier *change, Datum *v, bool *n)
{
	memset(n, false, sizeof(bool) * TIER_COLUMNS);
	v[0] = Int64GetDatum(change->account_id);
	v[1] = Int32GetDatum(change->tier_id);
	n[1] = change->tier_id == 0;
	v[2] = TimestampTzGetDatum(change->since);
	v[3] = TimestampTzGetDatum(ledger->now);
	v[4] = DateADTGetDatum(change->until);
	n[4] = change->until == DATEVAL_NOEND;
	v[5] = CStringGetTextDatum(change->cause);
	v[6] = Int64GetDatum(change->source_id);
	n[6] = change->source_id == 0;
	v[7] = text_datum(change->reason);
	n[7] = change->reason == NULL;
}

/* Write the queued changes of tiers. */
static void
write_tiers(Ledger *ledger)
{
	Datum		v[TIER_COLUMNS];
	bool		n[TIER_COLUMNS];
	char		nulls[TIER_COLUMNS];
	TupleDesc	desc;
	Tuplestorestate *rows;
	ListCell   *cell;

	if (list_length(ledger->tiers) == 1)
	{
		tier_columns(ledger, linitial(ledger->tiers), v, n);
		spi_nulls(n, TIER_COLUMNS, nulls);
		execute(PLAN_TIER_ONE, v, nulls, SPI_OK_INSERT);
	}
	if (list_length(ledger->tiers) > 1)
	{
		desc = make_desc(tier_names, tier_types, TIER_COLUMNS);
		rows = tuplestore_begin_heap(false, false, work_mem);
		foreach(cell, ledger->tiers)
		{
			tier_columns(ledger, lfirst(cell), v, n);
			tuplestore_putvalues(rows, desc, v, n);
		}
		execute_over(PLAN_TIER_MANY, "loyalty_tiers", rows, desc, list_length(ledger->tiers),
					 SPI_OK_INSERT);
		tuplestore_end(rows);
	}
	ledger->tiers = NIL;
}

/* Write everything that is queued. */
void
LedgerFlush(Ledger *ledger)
{
	int			nchanged = 0;
	Account    *one = NULL;

	for (int i = 0; i < ledger->naccounts; i++)
	{
		if (ledger->account[i].changed)
		{
			one = &ledger->account[i];
			nchanged++;
		}
	}
	if (ledger->nentries == 1)
		write_entry(ledger);
	else if (ledger->nentries > 1)
		write_entries(ledger);
	if (nchanged == 1)
		write_account(one);
	else if (nchanged > 1)
		write_accounts(ledger, nchanged);
	write_tiers(ledger);
	ledger->nentries = 0;
}

/* Forget a ledger; nothing may be queued. */
void
LedgerClose(Ledger *ledger)
{
	if (ledger->nentries > 0 || ledger->tiers != NIL)
		elog(ERROR, "a ledger was closed with postings that were not written");
}

/* The instant at which this ledger's entries are recorded. */
TimestampTz
LedgerNow(const Ledger *ledger)
{
	return ledger->now;
}
