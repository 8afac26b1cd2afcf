/*
 * ledger_posted.c
 *	  Reads what was posted before: for a source, under a key, by expiry.
 */
#include "ledger_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

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
	posted->breakdown[posted->nbreakdowns++] = (bytea *) DatumGetPointer(LedgerCopyVarlena(v[4], false));
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
	LedgerExecute(PLAN_POSTED, &value, NULL, SPI_OK_SELECT);
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

	LedgerExecute(PLAN_BY_KEY, values, NULL, SPI_OK_SELECT);
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
		entry->detail = LedgerCopyVarlena(v[6], n[6]);
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

	LedgerExecute(PLAN_SUM_OF_KIND, values, NULL, SPI_OK_SELECT);
	sum = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return sum;
}

/* What an account lost by expiry: the sum of its closing entries, negative. */
void
LedgerExpired(Ledger *ledger, int64 account_id, LotSet *lots)
{
	Datum		value = Int64GetDatum(account_id);

	LedgerExecute(PLAN_EXPIRED, &value, NULL, SPI_OK_SELECT);
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

	LedgerExecute(PLAN_CLOSINGS, &value, NULL, SPI_OK_SELECT);
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
