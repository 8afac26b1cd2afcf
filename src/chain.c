/*
 * chain.c
 *	  Looks at the chains of entries: is each entry's hash right, is none
 *	  missing, is every account what its entries add up to?
 *
 * Reads account and entry in the snapshot of the calling query, so that it may
 * run beside the traffic and in parallel workers, and writes nothing.  Entries
 * are streamed from the executor and never collected: a chain of any length
 * takes the same memory.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "compat.h"
#include "errors.h"
#include "keys.h"
#include "ledger.h"
#include "lots.h"
#include "seal.h"
#include "tally.h"

#define ENTRY_COLUMNS 15
#define CHUNK 1000				/* accounts at a time */

/* ------------------------------------------------------------------------
 * An entry as its hash covers it
 * ------------------------------------------------------------------------ */

/* A text column, its length in *length; NULL where it is null. */
static const char *
text_column(Datum value, bool isnull, int *length)
{
	struct varlena *text;

	*length = 0;
	if (isnull)
		return NULL;
	text = PG_DETOAST_DATUM_PACKED(value);
	*length = (int) VARSIZE_ANY_EXHDR(text);
	return VARDATA_ANY(text);
}

/* A column of bytes, NULL where it is null. */
static const struct varlena *
bytes_column(Datum value, bool isnull)
{
	return isnull ? NULL : PG_DETOAST_DATUM_PACKED(value);
}

/* Take an entry from its columns, in the table's order. */
static void
take_entry(const Datum *v, const bool *n, SealedEntry *entry)
{
	entry->account_id = DatumGetInt64(v[0]);
	entry->seq = DatumGetInt64(v[1]);
	entry->kind = text_column(v[2], n[2], &entry->kind_length);
	entry->points = DatumGetInt64(v[3]);
	entry->has_source = !n[4];
	entry->source_id = n[4] ? 0 : DatumGetInt64(v[4]);
	entry->occurred_at = DatumGetTimestampTz(v[5]);
	entry->recorded_at = DatumGetTimestampTz(v[6]);
	entry->lots = bytes_column(v[7], n[7]);
	entry->tally = bytes_column(v[8], n[8]);
	entry->breakdown = bytes_column(v[9], n[9]);
	entry->actor = text_column(v[10], n[10], &entry->actor_length);
	entry->reason = text_column(v[11], n[11], &entry->reason_length);
	entry->key = text_column(v[12], n[12], &entry->key_length);
	entry->detail = NULL;
	entry->detail_length = 0;
	if (!n[13])
		entry->detail = SealedDetail(v[13], &entry->detail_length);
}

/* Take an entry and its link from a composite value. */
static bool
take_composite(HeapTupleHeader header, SealedEntry *entry, ChainLink *link)
{
	HeapTupleData tuple;
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));

	/* somebody may have added columns */
	Datum	   *v = palloc0(sizeof(Datum) * Max(desc->natts, ENTRY_COLUMNS));
	bool	   *n = palloc0(sizeof(bool) * Max(desc->natts, ENTRY_COLUMNS));

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, v, n);
	ReleaseTupleDesc(desc);
	take_entry(v, n, entry);
	return !n[14] && SealReadLink(PG_DETOAST_DATUM_PACKED(v[14]), link);
}

PG_FUNCTION_INFO_V1(loyalty_is_chained);

/*
 * is_chained(previous, entry): whether the entry's hash is right.
 *
 * It compares and does not tell what would be right: whoever may call it
 * forges nothing by it.
 */
Datum
loyalty_is_chained(PG_FUNCTION_ARGS)
{
	SealedEntry entry;
	ChainLink	previous = {0};
	ChainLink	link;
	ChainLink	right;
	const uint8 *key = NULL;
	bool		retired = false;
	int			key_id;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (!PG_ARGISNULL(0) && !SealReadLink(PG_GETARG_BYTEA_PP(0), &previous))
		PG_RETURN_BOOL(false);
	if (!take_composite(PG_GETARG_HEAPTUPLEHEADER(1), &entry, &link) || link.length == 0)
		PG_RETURN_BOOL(false);
	KeysRefresh();
	key_id = SealKeyOf(&link);
	if (key_id != 0)
		key = KeysOfChain(key_id, &retired);
	if (key_id != 0 && key == NULL)
		PG_RETURN_NULL();
	SealEntry(&entry, &previous, key_id, key, &right);
	PG_RETURN_BOOL(SealSameLink(&right, &link));
}

PG_FUNCTION_INFO_V1(loyalty_entry_bytes);

/* entry_bytes(previous, entry): what the entry's hash covers, and that hash. */
Datum
loyalty_entry_bytes(PG_FUNCTION_ARGS)
{
	SealedEntry entry;
	ChainLink	previous = {0};
	ChainLink	link;
	uint8	   *bytes;
	size_t		length;
	bytea	   *result;

	if (PG_ARGISNULL(1) || !take_composite(PG_GETARG_HEAPTUPLEHEADER(1), &entry, &link) ||
		(!PG_ARGISNULL(0) && !SealReadLink(PG_GETARG_BYTEA_PP(0), &previous)))
		PG_RETURN_NULL();
	bytes = SealCanonical(&entry, &previous, SealKeyOf(&link), &length);
	result = palloc(VARHDRSZ + length + link.length);
	SET_VARSIZE(result, VARHDRSZ + length + link.length);
	memcpy(VARDATA(result), bytes, length);
	memcpy(VARDATA(result) + length, link.bytes, link.length);
	PG_RETURN_BYTEA_P(result);
}

/* ------------------------------------------------------------------------
 * verify
 * ------------------------------------------------------------------------ */

/* An account that the entries are held against */
typedef struct Claim
{
	int64		account_id;
	int64		seq;
	ChainLink	head;
	bool		readable;		/* its head is a link */
	LotSet		lots;
	TallySet	tally;
	TimestampTz last_event_at;

	/* where its entries begin: nothing, or what was sealed last */
	int64		base_seq;
	ChainLink	base_head;
	LotSet		base_lots;
	TallySet	base_tally;
} Claim;

typedef struct Verifier
{
	DestReceiver receiver;		/* the first, so that the executor's pointer is ours */
	ReturnSetInfo *result;
	MemoryContext chunk;		/* claims */
	MemoryContext row;			/* one entry */
	MemoryContext running;		/* the sums of the account at hand */
	bool		incremental;
	TimestampTz keyed_from;		/* entries recorded since bear a key */
	bool		key_stays;		/* so do those behind one that does */

	Claim	   *claim;
	int			nclaims;
	int			next;			/* the first that no entry has been seen of */

	/* the account at hand */
	bool		open;
	Claim	   *of;				/* NULL: entries without an account */
	int64		account_id;
	int64		seq;
	ChainLink	link;
	LotSet		lots;
	TallySet	tally;
	TimestampTz last_event_at;
	bool		found;			/* something is wrong with it */
} Verifier;

/* Report what is wrong with the account at hand, once. */
static void
report(Verifier *verifier, int64 seq, const char *problem, const char *detail)
{
	Datum		values[4] = {Int64GetDatum(verifier->account_id), Int64GetDatum(seq)};
	bool		nulls[4] = {false};

	if (verifier->found)
		return;
	verifier->found = true;
	values[2] = CStringGetTextDatum(problem);
	values[3] = CStringGetTextDatum(detail);
	tuplestore_putvalues(verifier->result->setResult, verifier->result->setDesc, values, nulls);
}

/* Begin with an account: with its claim, or with entries that have no account. */
static void
begin_account(Verifier *verifier, int64 account_id, Claim *claim)
{
	MemoryContext old;

	MemoryContextReset(verifier->running);
	verifier->open = true;
	verifier->of = claim;
	verifier->account_id = account_id;
	verifier->found = false;
	verifier->last_event_at = DT_NOBEGIN;
	verifier->seq = claim == NULL ? 0 : claim->base_seq;
	verifier->link.length = 0;
	if (claim != NULL)
		verifier->link = claim->base_head;
	lotset_init(&verifier->lots);
	tallyset_init(&verifier->tally);
	if (claim == NULL)
		return;
	old = MemoryContextSwitchTo(verifier->running);
	lotset_copy(&verifier->lots, &claim->base_lots);
	tallyset_copy(&verifier->tally, &claim->base_tally);
	MemoryContextSwitchTo(old);
}

/* End with an account: is it what its entries add up to? */
static void
finish_account(Verifier *verifier)
{
	const Claim *claim = verifier->of;

	if (!verifier->open)
		return;
	verifier->open = false;
	if (claim == NULL)
		report(verifier, verifier->seq, "no account", "There are entries and no account.");
	else if (claim->seq != verifier->seq)
		report(verifier, Min(claim->seq, verifier->seq) + 1, "cut",
			   psprintf("The account's last entry is " INT64_FORMAT ", the ledger's is " INT64_FORMAT ".",
						claim->seq, verifier->seq));
	else if (!claim->readable || !SealSameLink(&claim->head, &verifier->link))
		report(verifier, verifier->seq, "head", "The account's head is not the hash of its last entry.");
	else if (!lotset_equal(&claim->lots, &verifier->lots))
		report(verifier, verifier->seq, "lots", "The account's lots are not the sum of its entries'.");
	else if (!tallyset_equal(&claim->tally, &verifier->tally))
		report(verifier, verifier->seq, "tally", "The account's tally is not the sum of its entries'.");
	else if (claim->base_seq == 0 && claim->last_event_at != verifier->last_event_at)
		report(verifier, verifier->seq, "last event", "The account's last event is not that of its entries.");
}

/* End with all accounts up to one, which have no further entries. */
static void
pass_accounts(Verifier *verifier, int64 until)
{
	if (verifier->open && verifier->account_id < until)
		finish_account(verifier);
	while (verifier->next < verifier->nclaims &&
		   verifier->claim[verifier->next].account_id < until)
	{
		Claim	   *claim = &verifier->claim[verifier->next++];

		begin_account(verifier, claim->account_id, claim);
		finish_account(verifier);
	}
}

/* Go on to the account of an entry. */
static void
enter_account(Verifier *verifier, int64 account_id)
{
	Claim	   *claim = NULL;

	if (verifier->open && verifier->account_id == account_id)
		return;
	pass_accounts(verifier, account_id);
	if (verifier->next < verifier->nclaims &&
		verifier->claim[verifier->next].account_id == account_id)
		claim = &verifier->claim[verifier->next++];
	begin_account(verifier, account_id, claim);
}

/* Is the key of an entry one that it may have?  Reports where it is not. */
static bool
check_key_of(Verifier *verifier, const SealedEntry *entry, const ChainLink *link, const uint8 **key)
{
	int			key_id = SealKeyOf(link);
	bool		retired = false;

	*key = key_id == 0 ? NULL : KeysOfChain(key_id, &retired);
	if (key_id == 0 && SealKeyOf(&verifier->link) != 0 && verifier->key_stays)
		report(verifier, entry->seq, "no key", "It bears no key, and the entry before it does.");
	else if (key_id == 0 && entry->recorded_at >= verifier->keyed_from)
		report(verifier, entry->seq, "no key", "It bears no key and was recorded when there was one.");
	else if (key_id != 0 && *key == NULL)
		report(verifier, entry->seq, "unknown key",
			   psprintf("Key %d is not in the key file.", key_id));
	else if (retired)
		report(verifier, entry->seq, "retired key",
			   psprintf("Key %d is retired: what it chained proves nothing.", key_id));
	return !verifier->found;
}

/* Add an entry's lots and tally to those of its account; reports where they are not right. */
static void
add_up(Verifier *verifier, const SealedEntry *entry)
{
	LotSet		lots;
	TallySet	tally;
	int64		total = 0;
	CoreStatus	status;

	lotset_init(&lots);
	tallyset_init(&tally);
	status = lotset_decode((const uint8 *) VARDATA_ANY(entry->lots), VARSIZE_ANY_EXHDR(entry->lots), &lots);
	if (status == CORE_OK)
		status = lotset_total(&lots, &total);
	if (status == CORE_OK && total != entry->points)
	{
		report(verifier, entry->seq, "points", "Its points are not the sum of its lots.");
		return;
	}
	if (status == CORE_OK)
		status = tallyset_decode((const uint8 *) VARDATA_ANY(entry->tally), VARSIZE_ANY_EXHDR(entry->tally), &tally);
	MemoryContextSwitchTo(verifier->running);
	if (status == CORE_OK && lots.n > 0)
		status = lotset_add(&verifier->lots, &lots);
	if (status == CORE_OK && tally.n > 0)
		status = tallyset_add(&verifier->tally, &tally);
	if (status != CORE_OK)
		report(verifier, entry->seq, "lots", "Its lots or its tally cannot be added up.");
}

/* Look at one entry. */
static void
examine(Verifier *verifier, const SealedEntry *entry, const struct varlena *stored)
{
	ChainLink	link;
	ChainLink	right;
	const uint8 *key;

	if (entry->seq != verifier->seq + 1)
		report(verifier, verifier->seq + 1, "gap",
			   psprintf("Entry " INT64_FORMAT " follows entry " INT64_FORMAT ".", entry->seq, verifier->seq));
	else if (!SealReadLink(stored, &link) || link.length == 0)
		report(verifier, entry->seq, "hash", "Its hash is none.");
	if (verifier->found || !check_key_of(verifier, entry, &link, &key))
		return;
	SealEntry(entry, &verifier->link, SealKeyOf(&link), key, &right);
	if (!SealSameLink(&link, &right))
	{
		report(verifier, entry->seq, "hash", "Its hash does not follow from its columns and the entry before it.");
		return;
	}
	add_up(verifier, entry);
	verifier->link = link;
	verifier->last_event_at = Max(verifier->last_event_at, entry->occurred_at);
}

/* Take one row from the executor. */
static bool
receive_entry(TupleTableSlot *slot, DestReceiver *self)
{
	Verifier   *verifier = (Verifier *) self;
	MemoryContext old;
	SealedEntry entry;

	slot_getallattrs(slot);
	enter_account(verifier, DatumGetInt64(slot->tts_values[0]));
	if (!verifier->found)
	{
		old = MemoryContextSwitchTo(verifier->row);
		take_entry(slot->tts_values, slot->tts_isnull, &entry);
		examine(verifier, &entry, bytes_column(slot->tts_values[14], false));
		MemoryContextSwitchTo(old);
		MemoryContextReset(verifier->row);
	}
	verifier->seq = DatumGetInt64(slot->tts_values[1]);
	return true;
}

/* The executor's other calls need nothing. */
static void
start_entries(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
end_entries(DestReceiver *self)
{
}

/* Prepare a statement once in a session. */
static SPIPlanPtr
kept_plan(SPIPlanPtr *plan, const char *query, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		*plan = SPI_prepare(query, nargs, types);
		if (*plan == NULL)
			elog(ERROR, "could not prepare a verification");
		SPI_keepplan(*plan);
	}
	return *plan;
}

/* Read lots and tally of a claim. */
static void
read_sums(Datum lots_value, Datum tally_value, LotSet *lots, TallySet *tally)
{
	lotset_init(lots);
	tallyset_init(tally);
	LotsFromDatum(lots_value, lots);
	TallyFromDatum(tally_value, tally);
}

/* Read one account. */
static void
read_claim(Claim *claim, HeapTuple tuple, TupleDesc desc)
{
	Datum		v[10];
	bool		n[10];

	heap_deform_tuple(tuple, desc, v, n);
	claim->account_id = DatumGetInt64(v[0]);
	claim->seq = DatumGetInt64(v[1]);
	claim->readable = SealReadLink(PG_DETOAST_DATUM_PACKED(v[2]), &claim->head);
	read_sums(v[3], v[4], &claim->lots, &claim->tally);
	claim->last_event_at = n[5] ? DT_NOBEGIN : DatumGetTimestampTz(v[5]);
	claim->base_seq = DatumGetInt64(v[6]);
	if (!SealReadLink(PG_DETOAST_DATUM_PACKED(v[7]), &claim->base_head))
		claim->base_head.length = 0;
	read_sums(v[8], v[9], &claim->base_lots, &claim->base_tally);
}

/* Read the next accounts above one; how many. */
static int
read_claims(Verifier *verifier, int64 above, int64 last)
{
	static SPIPlanPtr plans[2];
	Oid			types[3] = {INT8OID, INT8OID, INT8OID};
	Datum		values[3] = {Int64GetDatum(above), Int64GetDatum(last), Int64GetDatum(CHUNK)};
	MemoryContext old;

	kept_plan(&plans[verifier->incremental],
			  verifier->incremental ?
			  "SELECT a.account_id, a.seq, a.head, a.lots, a.tally, a.last_event_at, coalesce(l.seq, 0),"
			  " coalesce(l.head, ''::bytea), coalesce(l.lots, '{}'), coalesce(l.tally, '{}')"
			  " FROM loyalty.account a LEFT JOIN LATERAL (SELECT c.seq, c.head, c.lots, c.tally"
			  "  FROM loyalty.checkpoint_leaf c WHERE c.account_id = a.account_id ORDER BY c.number DESC LIMIT 1) l ON true"
			  " WHERE a.account_id > $1 AND a.account_id <= $2 ORDER BY a.account_id LIMIT $3" :
			  "SELECT a.account_id, a.seq, a.head, a.lots, a.tally, a.last_event_at,"
			  " 0::bigint, ''::bytea, '{}'::loyalty.lots, '{}'::loyalty.tally"
			  " FROM loyalty.account a WHERE a.account_id > $1 AND a.account_id <= $2"
			  " ORDER BY a.account_id LIMIT $3", 3, types);
	if (SPI_execute_plan(plans[verifier->incremental], values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read accounts");
	MemoryContextReset(verifier->chunk);
	old = MemoryContextSwitchTo(verifier->chunk);
	verifier->nclaims = (int) SPI_processed;
	verifier->next = 0;
	verifier->claim = palloc0(sizeof(Claim) * Max(verifier->nclaims, 1));
	for (int i = 0; i < verifier->nclaims; i++)
		read_claim(&verifier->claim[i], SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
	return verifier->nclaims;
}

#define ENTRY_SELECT \
	"SELECT e.account_id, e.seq, e.kind, e.points, e.source_id, e.occurred_at, e.recorded_at," \
	" e.lots, e.tally, e.breakdown, e.actor, e.reason, e.key, e.detail, e.hash"

/* Stream the entries that a plan finds. */
static void
stream_entries(Verifier *verifier, SPIPlanPtr plan, Oid *types, Datum *values)
{
	ParamListInfo params = makeParamList(2);
	SPIExecuteOptions options = {0};

	for (int i = 0; i < 2; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	options.params = params;
	options.read_only = true;
	options.dest = &verifier->receiver;
	if (SPI_execute_plan_extended(plan, &options) != SPI_OK_SELECT)
		elog(ERROR, "could not read entries");
}

/* Stream all entries of the accounts above one, up to another. */
static void
verify_entries(Verifier *verifier, int64 above, int64 last)
{
	static SPIPlanPtr plan;
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum(above), Int64GetDatum(last)};

	kept_plan(&plan, ENTRY_SELECT
			  " FROM loyalty.entry e WHERE e.account_id > $1 AND e.account_id <= $2"
			  " ORDER BY e.account_id, e.seq", 2, types);
	stream_entries(verifier, plan, types, values);
}

/* Stream the entries that the claims have on top of their bases. */
static void
verify_new_entries(Verifier *verifier)
{
	static SPIPlanPtr plan;
	Oid			types[2] = {INT8ARRAYOID, INT8ARRAYOID};
	Datum		values[2];
	Datum	   *accounts = palloc(sizeof(Datum) * Max(verifier->nclaims, 1));
	Datum	   *bases = palloc(sizeof(Datum) * Max(verifier->nclaims, 1));

	for (int i = 0; i < verifier->nclaims; i++)
	{
		accounts[i] = Int64GetDatum(verifier->claim[i].account_id);
		bases[i] = Int64GetDatum(verifier->claim[i].base_seq);
	}
	values[0] = PointerGetDatum(construct_array(accounts, verifier->nclaims, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = PointerGetDatum(construct_array(bases, verifier->nclaims, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	kept_plan(&plan, ENTRY_SELECT
			  " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY AS b (account_id, seq, n)"
			  " CROSS JOIN LATERAL (SELECT * FROM loyalty.entry x WHERE x.account_id = b.account_id AND x.seq > b.seq"
			  "  ORDER BY x.seq OFFSET 0) e", 2, types);
	stream_entries(verifier, plan, types, values);
}

PG_FUNCTION_INFO_V1(loyalty_verify_accounts);

/* verify_accounts(from, to, keyed_from, incremental): what is wrong with each account, the first thing. */
Datum
loyalty_verify_accounts(PG_FUNCTION_ARGS)
{
	Verifier	verifier = {{0}};
	int64		above = PG_ARGISNULL(0) ? PG_INT64_MIN : PG_GETARG_INT64(0);
	int64		last = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT64(1);
	bool		more = true;

	InitMaterializedSRF(fcinfo, 0);
	verifier.result = (ReturnSetInfo *) fcinfo->resultinfo;
	verifier.receiver.receiveSlot = receive_entry;
	verifier.receiver.rStartup = start_entries;
	verifier.receiver.rShutdown = end_entries;
	verifier.receiver.rDestroy = end_entries;
	verifier.receiver.mydest = DestTuplestore;	/* not DestSPI, and not DestNone: any other does */
	verifier.keyed_from = PG_ARGISNULL(2) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(2);
	verifier.key_stays = PG_ARGISNULL(2) || verifier.keyed_from != DT_NOEND;
	verifier.incremental = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	if (above > PG_INT64_MIN)
		above--;
	KeysRefresh();
	SPI_connect();
	verifier.chunk = AllocSetContextCreate(CurrentMemoryContext, "accounts verified", ALLOCSET_DEFAULT_SIZES);
	verifier.row = AllocSetContextCreate(CurrentMemoryContext, "entry verified", ALLOCSET_DEFAULT_SIZES);
	verifier.running = AllocSetContextCreate(CurrentMemoryContext, "account verified", ALLOCSET_DEFAULT_SIZES);
	while (more)
	{
		int			n = read_claims(&verifier, above, last);
		int64		until = n == CHUNK ? verifier.claim[n - 1].account_id : last;

		CHECK_FOR_INTERRUPTS();
		more = n == CHUNK;
		if (verifier.incremental)
			verify_new_entries(&verifier);
		else
			verify_entries(&verifier, above, until);
		finish_account(&verifier);
		pass_accounts(&verifier, PG_INT64_MAX);
		above = until;
	}
	SPI_finish();
	return (Datum) 0;
}
