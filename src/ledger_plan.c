/*
 * ledger_plan.c
 *	  The kept plans of the ledger: every statement that reads or writes its tables.
 *
 * Everything goes through the executor, so that constraints, replication and
 * partitioning keep working.
 */
#include "ledger_internal.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "compat.h"

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
	[PLAN_MEMBER_ONE] = "SELECT member_id, external_id, birthday, staff, attributes"
	" FROM loyalty.member WHERE member_id = $1",
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
Oid			LedgerEntryTypes[ENTRY_COLUMNS] = {
	INT8OID, INT8OID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	InvalidOid /* lots */ , InvalidOid /* tally */ , BYTEAOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, BYTEAOID
};
Oid			LedgerAccountTypes[ACCOUNT_COLUMNS] = {
	INT8OID, INT4OID, TIMESTAMPTZOID, DATEOID, DATEOID, TIMESTAMPTZOID, INT8OID,
	InvalidOid /* lots */ , InvalidOid /* tally */ , BYTEAOID, InvalidOid	/* hold[] */
};

const Oid	LedgerTierTypes[TIER_COLUMNS] = {
	INT8OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, DATEOID, TEXTOID, INT8OID, TEXTOID
};

Oid			LedgerHoldType = InvalidOid;

/*
 * Find the oids of our types.  Where they changed, the extension was
 * dropped and made again in this session, and the kept plans are void.
 */
void
LedgerResolveTypes(void)
{
	Oid			lots = LotsTypeOid();

	if (LedgerEntryTypes[7] == lots)
		return;
	LedgerEntryTypes[7] = lots;
	LedgerAccountTypes[7] = lots;
	LedgerEntryTypes[8] = TallyTypeOid();
	LedgerAccountTypes[8] = LedgerEntryTypes[8];
	LedgerHoldType = OurTypeOid("hold");
	LedgerAccountTypes[10] = get_array_type(LedgerHoldType);
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
		case PLAN_MEMBER_ONE:
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
			memcpy(types, LedgerEntryTypes, sizeof(LedgerEntryTypes));
			return ENTRY_COLUMNS;
		case PLAN_ACCOUNT_ONE:
			memcpy(types, LedgerAccountTypes, sizeof(LedgerAccountTypes));
			return ACCOUNT_COLUMNS;
		case PLAN_TIER_ONE:
			memcpy(types, LedgerTierTypes, sizeof(LedgerTierTypes));
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
void
LedgerExecute(PlanName name, Datum *values, const char *nulls, int expected)
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
