/*
 * ledger_write.c
 *	  Writes what is queued: entries, accounts and changes of tiers; and whose
 *	  account is whose, at once.
 *
 * One account and one entry take plans with parameters; more go through
 * tuplestores that the plans see as named relations.
 */
#include "ledger_internal.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

static const char *const entry_names[ENTRY_COLUMNS] = {
	"account_id", "seq", "kind", "points", "source_id", "occurred_at", "recorded_at",
	"lots", "tally", "breakdown", "actor", "reason", "key", "detail", "hash"
};

static const char *const account_names[ACCOUNT_COLUMNS] = {
	"account_id", "tier_id", "tier_since", "tier_until", "tier_pinned", "last_event_at",
	"seq", "lots", "tally", "head", "holds"
};

static const char *const tier_names[TIER_COLUMNS] = {
	"account_id", "tier_id", "changed_at", "recorded_at", "until", "cause", "source_id", "reason"
};

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
	TupleDesc	desc = lookup_rowtype_tupdesc(LedgerHoldType, -1);
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
	return PointerGetDatum(construct_array(elements, account->nholds, LedgerHoldType, -1, false,
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
	LedgerExecute(PLAN_ENTRY_ONE, v, nulls, SPI_OK_INSERT);
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
	LedgerExecute(PLAN_ACCOUNT_ONE, v, nulls, SPI_OK_UPDATE);
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
	LedgerExecute(plan, NULL, NULL, expected);
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
	TupleDesc	desc = make_desc(entry_names, LedgerEntryTypes, ENTRY_COLUMNS);
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
	TupleDesc	desc = make_desc(account_names, LedgerAccountTypes, ACCOUNT_COLUMNS);
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
		LedgerExecute(PLAN_TIER_ONE, v, nulls, SPI_OK_INSERT);
	}
	if (list_length(ledger->tiers) > 1)
	{
		desc = make_desc(tier_names, LedgerTierTypes, TIER_COLUMNS);
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

/* Let one account, and those merged into it before, be taken over by another; both are locked. */
void
LedgerMerge(Ledger *ledger, int64 account_id, int64 into)
{
	Datum		values[2] = {Int64GetDatum(account_id), Int64GetDatum(into)};

	LedgerExecute(PLAN_MERGE, values, NULL, SPI_OK_UPDATE);
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

	LedgerExecute(PLAN_JOIN, values, nulls, SPI_OK_INSERT);
}

/* Let a member have an account of its own again; both are locked and flushed. */
void
LedgerLeave(Ledger *ledger, const Account *member, const char *reason)
{
	Datum		values[3] = {Int64GetDatum(member->account_id), TimestampTzGetDatum(ledger->now),
		reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason)
	};
	char		nulls[3] = {' ', ' ', reason == NULL ? 'n' : ' '};

	LedgerExecute(PLAN_LEAVE, values, nulls, SPI_OK_UPDATE);
}

/* Let a member spend from its household's account, or not; it is locked. */
void
LedgerBlock(Ledger *ledger, const Account *member, bool blocked)
{
	Datum		values[2] = {Int64GetDatum(member->account_id), BoolGetDatum(blocked)};

	LedgerExecute(PLAN_BLOCK, values, NULL, SPI_OK_UPDATE);
}
