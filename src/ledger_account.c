/*
 * ledger_account.c
 *	  Reads and locks accounts.
 *
 * Lock order: those that were merged into others, then all others ascending by
 * account_id, one FOR NO KEY UPDATE lock each; households are numbered above all
 * members and wallets above both, so that whoever holds one waits for no member.
 */
#include "ledger_internal.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/typcache.h"

#include "errors.h"

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
	hold->detail = LedgerCopyVarlena(v[5], n[5]);
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
		LedgerExecute(PLAN_LOCK_ONE, ids, NULL, SPI_OK_SELECT);
	}
	else
	{
		value = PointerGetDatum(construct_array(ids, distinct, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		LedgerExecute(PLAN_LOCK_MANY, &value, NULL, SPI_OK_SELECT);
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
	LedgerExecute(PLAN_OPEN_WALLETS, &array, NULL, SPI_OK_INSERT);
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

	LedgerExecute(PLAN_HOUSEHOLDS, NULL, NULL, SPI_OK_SELECT);
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
	LedgerExecute(PLAN_READ_ONE, &value, NULL, SPI_OK_SELECT);
	add_accounts(ledger);
	if (missing_households(ledger, &household) == 0)
		return;
	value = Int64GetDatum(household[0]);
	LedgerExecute(PLAN_READ_ONE, &value, NULL, SPI_OK_SELECT);
	add_accounts(ledger);
}

/* Read a wallet's account as well; where it is not there yet, an empty one stands for it. */
void
LedgerReadWallet(Ledger *ledger, int64 account_id)
{
	Datum		value = Int64GetDatum(account_id);
	const Account *member = LedgerAccount(ledger, WalletMember(account_id));

	LedgerExecute(PLAN_READ_ONE, &value, NULL, SPI_OK_SELECT);
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
	account->external_id = LedgerCopyVarlena(v[1], n[1]);
	account->has_birthday = !n[2];
	account->birthday = n[2] ? 0 : DatumGetDateADT(v[2]);
	account->staff = DatumGetBool(v[3]);
	account->attributes = LedgerCopyVarlena(v[4], n[4]);
}

/* Select the members of the accounts. */
static void
select_members(const Ledger *ledger)
{
	Datum		one = Int64GetDatum(ledger->account[0].account_id);
	Datum	   *ids;

	if (ledger->naccounts == 1)
	{
		LedgerExecute(PLAN_MEMBER_ONE, &one, NULL, SPI_OK_SELECT);
		return;
	}
	ids = palloc(sizeof(Datum) * ledger->naccounts);
	for (int i = 0; i < ledger->naccounts; i++)
		ids[i] = Int64GetDatum(ledger->account[i].account_id);
	one = PointerGetDatum(construct_array(ids, ledger->naccounts, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	LedgerExecute(PLAN_MEMBERS, &one, NULL, SPI_OK_SELECT);
}

/* Read what rules may know of the members, once for all accounts of the ledger. */
void
LedgerLoadMembers(Ledger *ledger)
{
	MemoryContext old;

	if (ledger->has_members || ledger->naccounts == 0)
		return;
	ledger->has_members = true;
	select_members(ledger);
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
