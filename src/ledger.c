/*
 * ledger.c
 *	  The only writer of account, entry, tier_change and held_award.
 *
 * Owns the sequence and the hash chain of entries, and the law that an account
 * is the sum of its entries: LedgerPost applies to the account in memory exactly
 * what it queues as an entry, and LedgerFlush writes both in one go.  It does not
 * know why a posting exists.
 *
 * The room has more files: ledger_account.c reads and locks accounts,
 * ledger_posted.c reads what was posted before, ledger_write.c writes what is
 * queued, and ledger_plan.c keeps the plans.  A ledger lives for one statement, or
 * for one chunk of a large one.
 */
#include "ledger_internal.h"

#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "errors.h"
#include "keys.h"

/* Open a ledger; SPI must be connected.  It lives in the current memory context. */
Ledger *
LedgerOpen(void)
{
	Ledger	   *ledger = palloc0(sizeof(Ledger));

	LedgerResolveTypes();
	KeysRefresh();
	ledger->context = CurrentMemoryContext;
	ledger->now = GetCurrentTransactionStartTimestamp();
	ledger->actor = GetUserNameFromId(GetSessionUserId(), false);
	ledger->actor_datum = CStringGetTextDatum(ledger->actor);
	ledger->entry_capacity = 4;
	ledger->entry = palloc(sizeof(QueuedEntry) * ledger->entry_capacity);
	return ledger;
}

/* Copy a varlena column, 0 where it is null. */
Datum
LedgerCopyVarlena(Datum value, bool isnull)
{
	return isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

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
	entry->detail = LedgerCopyVarlena(posting->detail, posting->detail == 0);
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

	LedgerExecute(PLAN_TIER_AT, values, NULL, SPI_OK_SELECT);
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
	LedgerExecute(PLAN_HOLD, values, nulls, SPI_OK_INSERT);
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

/* A number for something that entries will name as their source. */
int64
LedgerNextSource(void)
{
	Oid			schema = get_namespace_oid("loyalty", false);

	return nextval_internal(get_relname_relid("transaction_id_seq", schema), false);
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
