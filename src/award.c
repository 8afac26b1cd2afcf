/*
 * award.c
 *	  The trigger on the transaction tables: rows become events, events are
 *	  decided, decisions are posted.
 *
 * A statement is a batch.  Its rows are taken in order of (member, time, id),
 * a chunk at a time, so that the memory is bounded and accounts are locked in
 * ascending order; the result is that of the same rows inserted one by one.
 *
 * The decision on one event stands in apply, corrections in correct.
 */
#include "award.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_oper.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

#include "calendar.h"
#include "compat.h"
#include "errors.h"
#include "hold.h"
#include "source.h"

#define CHUNK_EVENTS	4096
#define CHUNK_BYTES		(16 * 1024 * 1024)

/* The programmes that a statement has pinned */
typedef struct Pins
{
	Program    *program[16];
	int			n;
} Pins;

/* A member that shares an account */
typedef struct Home
{
	int64		member_id;
	int64		household_id;
} Home;

/* Those of a statement, in order of the members */
typedef struct Homes
{
	Home	   *home;
	int			n;
	int			size;
} Homes;

typedef struct Batch
{
	EventLayout *layout;
	bool		correcting;		/* an UPDATE */
	bool		admits;			/* something was asked before the chunk was awarded */
	Pins		pins;
	MemoryContext chunk;		/* the events and their ledger */
	MemoryContext scratch;		/* the decision on one event */
	Event	  **event;
	int			nevents;
	Referred	referred;		/* of the whole statement */
	LimitBook  *book;			/* of the chunk; NULL: there are no limits */
	CapBook    *caps;			/* likewise of caps */
} Batch;

/* ------------------------------------------------------------------------
 * Chunks
 * ------------------------------------------------------------------------ */

/* The programme of an account, pinned for the statement. */
static Program *
pin_program(Pins *pins, int32 program_id)
{
	Program    *program;

	for (int i = 0; i < pins->n; i++)
	{
		if (pins->program[i]->program_id == program_id)
			return pins->program[i];
	}
	if (pins->n == lengthof(pins->program))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("one statement concerns more than %d programmes",
						(int) lengthof(pins->program)),
				 errhint("Insert the rows of each programme with a statement of its own.")));
	program = ProgramPin(program_id);
	pins->program[pins->n++] = program;
	return program;
}

/* By account, time and id: the order of an account's timeline. */
static int
compare_events(const void *a, const void *b)
{
	const Event *left = *(Event *const *) a;
	const Event *right = *(Event *const *) b;

	if (left->home_id != right->home_id)
		return left->home_id < right->home_id ? -1 : 1;
	if (left->occurred_at != right->occurred_at)
		return left->occurred_at < right->occurred_at ? -1 : 1;
	return (left->source_id > right->source_id) - (left->source_id < right->source_id);
}

/* By time, account and id: the order in which limits and budgets are asked. */
static int
compare_times(const void *a, const void *b)
{
	const Event *left = *(Event *const *) a;
	const Event *right = *(Event *const *) b;

	if (left->occurred_at != right->occurred_at)
		return left->occurred_at < right->occurred_at ? -1 : 1;
	return compare_events(a, b);
}

/* Put the events of locked members into the order of the accounts that they earn into. */
static void
order_by_home(Batch *batch, Ledger *ledger)
{
	bool		shared = false;

	for (int i = 0; i < batch->nevents; i++)
	{
		Event	   *event = batch->event[i];

		event->home_id = AwardAccount(ledger, event)->account_id;
		shared |= event->home_id != event->member_id;
	}
	if (shared)
		qsort(batch->event, batch->nevents, sizeof(Event *), compare_events);
}

/* The programme whose wallets an event feeds; NULL where it feeds none. */
static Program *
program_with_wallets(Batch *batch, Ledger *ledger, const Event *event)
{
	const Account *member = event->has_member ? LedgerAccount(ledger, event->member_id) : NULL;
	Program    *program;

	/* a household has none: wallets are a person's own */
	if (member == NULL || member->closed || member->account_id >= WALLET_SPAN)
		return NULL;
	program = pin_program(&batch->pins, member->program_id);
	return program->nwallets > 0 ? program : NULL;
}

/* Lock the wallets of the events' members, and those to which something was posted. */
static void
lock_wallets(Batch *batch, Ledger *ledger, const Posted *posted, int nposted)
{
	int64	   *ids;
	int			n = 0;
	int			size = nposted;

	for (int i = 0; i < batch->nevents; i++)
	{
		const Program *program = program_with_wallets(batch, ledger, batch->event[i]);

		size += program == NULL ? 0 : program->nwallets;
	}
	if (size == 0)
		return;
	ids = palloc(sizeof(int64) * size);
	for (int i = 0; i < batch->nevents; i++)
	{
		const Program *program = program_with_wallets(batch, ledger, batch->event[i]);

		for (int w = 0; program != NULL && w < program->nwallets; w++)
			ids[n++] = WalletAccount(program->wallet[w], batch->event[i]->member_id);
	}
	for (int i = 0; i < nposted; i++)
	{
		if (posted[i].account_id >= FIRST_WALLET)
			ids[n++] = posted[i].account_id;
	}
	LedgerLockWallets(ledger, ids, n);
}

/*
 * The account of a member in a wallet.  The configuration is the newest there
 * is; a transaction with an older snapshot may know a wallet that it cannot open.
 */
static Account *
wallet_account(Ledger *ledger, const Program *wallet, int64 member_id)
{
	Account    *account = LedgerAccount(ledger, WalletAccount(wallet->program_id, member_id));

	if (account == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a wallet was added meanwhile"),
				 errhint("Try again.")));
	return account;
}

/* Award an event to its member's wallets; first, so that their rules know the history before it. */
static void
award_wallets(Batch *batch, Ledger *ledger, const Account *account, Event *event)
{
	Program    *program = program_with_wallets(batch, ledger, event);

	for (int w = 0; program != NULL && w < program->nwallets; w++)
	{
		Program    *wallet = pin_program(&batch->pins, program->wallet[w]);
		Account    *into = wallet_account(ledger, wallet, event->member_id);
		AwardOutcome outcome;

		AwardPost(ledger, wallet, into, account, event, &outcome);
	}
}

/* Ask what must be known of a chunk's events before they are awarded, where a programme asks something. */
static void
admit_chunk(Batch *batch, Ledger *ledger)
{
	RuleEvent	kind = batch->event[0]->kind;

	/* no purchase is entered anew by a correction */
	if (batch->correcting && kind != ON_ACTIVITY)
		return;
	for (int i = 0; i < batch->nevents; i++)
	{
		Account    *member = batch->event[i]->has_member ?
			LedgerAccount(ledger, batch->event[i]->member_id) : NULL;

		if (member == NULL || member->account_id >= FIRST_WALLET ||
			!AdmitConcerns(pin_program(&batch->pins, member->program_id), kind))
			continue;
		batch->admits = true;
		/* a decision of an older snapshot must run into this one, even where nothing is posted */
		member->changed |= kind == ON_ACTIVITY;
	}
	if (batch->admits)
		AdmitEvents(batch->event, batch->nevents);
}

/* Find and lock the velocity limits of a chunk, whose accounts are locked; put the events in order of time. */
static void
limit_awards(Batch *batch, Ledger *ledger)
{
	batch->book = LimitsOpen();
	for (int i = 0; i < batch->nevents; i++)
	{
		Event	   *event = batch->event[i];

		if (!event->is_void)
			AwardLimits(ledger, pin_program(&batch->pins, AwardAccount(ledger, event)->program_id),
						event, batch->book);
	}
	LimitsKeys(batch->book);
	LimitsLock(batch->book);
	qsort(batch->event, batch->nevents, sizeof(Event *), compare_times);
}

/* The members of a chunk's events, 0 where there is none. */
static int64 *
chunk_members(const Batch *batch)
{
	int64	   *ids = palloc(sizeof(int64) * batch->nevents);

	for (int i = 0; i < batch->nevents; i++)
		ids[i] = batch->event[i]->member_id;
	return ids;
}

/* The ids of a chunk's events, in their order. */
static int64 *
chunk_sources(const Batch *batch)
{
	int64	   *ids = palloc(sizeof(int64) * batch->nevents);

	for (int i = 0; i < batch->nevents; i++)
		ids[i] = batch->event[i]->source_id;
	return ids;
}

/* Add those who referred a chunk's members to the accounts to be locked. */
static int64 *
add_referrers(Batch *batch, int64 *ids, int *n)
{
	if (batch->event[0]->kind != ON_PURCHASE || !ReferralsExist())
		return ids;
	return ReferralsFind(&batch->referred, chunk_members(batch), chunk_sources(batch),
						 batch->nevents, !batch->correcting, ids, n);
}

/* Let the caps of rules be counted for the events of a chunk, where there are any. */
static void
open_caps(Batch *batch)
{
	batch->caps = CapsExist() ? CapsOpen(CAPS_AWARD) : NULL;
	for (int i = 0; batch->caps != NULL && i < batch->nevents; i++)
		CapsAttach(batch->caps, batch->event[i]);
}

/* Award the events of a chunk. */
static void
award_chunk(Batch *batch, Ledger *ledger)
{
	int			n = batch->nevents;
	int64	   *ids = add_referrers(batch, chunk_members(batch), &n);

	LedgerLock(ledger, ids, n);
	order_by_home(batch, ledger);
	lock_wallets(batch, ledger, NULL, 0);
	admit_chunk(batch, ledger);
	if (LimitsExist())
		limit_awards(batch, ledger);
	open_caps(batch);
	if (batch->caps != NULL && BudgetsExist())
		qsort(batch->event, batch->nevents, sizeof(Event *), compare_times);
	for (int i = 0; i < batch->nevents; i++)
	{
		Event	   *event = batch->event[i];
		Account    *account = AwardAccount(ledger, event);
		Program    *program = pin_program(&batch->pins, account->program_id);
		AwardOutcome outcome;
		MemoryContext old;

		if (event->is_void)
			continue;
		old = MemoryContextSwitchTo(batch->scratch);
		award_wallets(batch, ledger, account, event);
		AwardPost(ledger, program, account, account, event, &outcome);
		MemoryContextSwitchTo(old);
		MemoryContextReset(batch->scratch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Take back from a new award what had come back of its purchase before it was this account's. */
static void
return_earlier(Ledger *ledger, Program *program, Account *account, Event *event)
{
	Posted	   *posted;
	int			n;
	Posting		posting = {.kind = "correct", .source_id = event->source_id,
	.occurred_at = LedgerNow(ledger)};

	LedgerFlush(ledger);
	n = LedgerPosted(ledger, &event->source_id, 1, &posted);
	for (int i = 0; i < n; i++)
	{
		if (posted[i].account_id == account->account_id)
			CorrectReturn(ledger, program, account, event, &posted[i], &posting);
	}
}

/* Award a changed event to an account that it gave nothing before. */
static void
award_late(Ledger *ledger, Program *program, Account *account,
		   const Account *history, Event *event, bool returned)
{
	AwardOutcome outcome;

	AwardPost(ledger, program, account, history, event, &outcome);
	if (returned && !outcome.held)
		return_earlier(ledger, program, account, event);
}

/* Tell whether something was posted to an account. */
static bool
was_posted_to(const Account *account, const Posted *posted, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (posted[i].account_id == account->account_id)
			return true;
	}
	return false;
}

/* Award a changed event to its member's wallets to which it gave nothing before. */
static void
award_missing_wallets(Batch *batch, Ledger *ledger, Event *event, const Posted *posted, int n)
{
	Program    *program = program_with_wallets(batch, ledger, event);

	for (int w = 0; program != NULL && w < program->nwallets; w++)
	{
		Program    *wallet = pin_program(&batch->pins, program->wallet[w]);
		Account    *into = wallet_account(ledger, wallet, event->member_id);

		/* what was there before the wallet stays without it */
		if (event->recorded_at >= wallet->created_at && !was_posted_to(into, posted, n))
			award_late(ledger, wallet, into, AwardAccount(ledger, event), event, posted[0].returned);
	}
}

/* Correct one event, given all that was posted for it. */
static void
correct_event(Batch *batch, Ledger *ledger, Event *event, const Posted *posted, int nposted)
{
	bool		wanted = event->has_member && !event->is_void;
	bool		done = false;

	event->refused |= posted[0].refused;
	for (int i = 0; i < nposted; i++)
	{
		Account    *account;
		Program    *program;

		if (posted[i].account_id == 0)
			continue;
		account = LedgerAccount(ledger, posted[i].account_id);
		program = pin_program(&batch->pins, account->program_id);
		if (wanted && CorrectConcerns(ledger, event, &posted[i]))
		{
			done |= posted[i].account_id < FIRST_WALLET;
			CorrectEvent(ledger, program, account, event, &posted[i]);
		}
		else
			CorrectAway(ledger, program, account, event, &posted[i]);
	}
	if (wanted)
		award_missing_wallets(batch, ledger, event, posted, nposted);
	if (wanted && !done && !posted[0].held)
	{
		Account    *account = AwardAccount(ledger, event);

		award_late(ledger, pin_program(&batch->pins, account->program_id), account, account, event,
				   posted[0].returned);
	}
	else if (event->has_member && posted[0].held)
	{
		Account    *account = LedgerAccount(ledger, event->member_id);

		/* its award waits, its stamps do not */
		if (account != NULL)
			(void) pin_program(&batch->pins, account->program_id);
	}
}

/* The elements of what was posted that concern one source; they stand in the order of the sources. */
static int
posted_of(const Posted *posted, int n, int64 source_id, int *first)
{
	int			high = n;
	int			last;

	*first = 0;
	while (*first < high)
	{
		int			middle = *first + (high - *first) / 2;

		if (posted[middle].source_id < source_id)
			*first = middle + 1;
		else
			high = middle;
	}
	for (last = *first; last < n && posted[last].source_id == source_id; last++)
		;
	return last - *first;
}

/* Find the limits of a corrected event: those of its award, or new ones where it earns elsewhere now. */
static void
limit_correction(Batch *batch, Ledger *ledger, Event *event, const Posted *posted, int nposted)
{
	event->limits->correcting = true;
	event->limits->returned = posted[0].returned;
	if (event->is_void || !event->has_member || posted[0].held || posted[0].refused)
		return;
	for (int i = 0; i < nposted; i++)
	{
		if (posted[i].account_id == 0 || posted[i].account_id >= FIRST_WALLET ||
			!CorrectConcerns(ledger, event, &posted[i]))
			continue;
		LimitsPin(event->limits,
				  pin_program(&batch->pins, LedgerAccount(ledger, posted[i].account_id)->program_id));
		return;
	}
	AwardLimits(ledger, pin_program(&batch->pins, AwardAccount(ledger, event)->program_id), event,
				batch->book);
}

/* Find and lock the limits of the events of a chunk, and take out what these used so far. */
static void
limit_corrections(Batch *batch, Ledger *ledger, const int64 *sources, const Posted *posted, int nposted)
{
	batch->book = LimitsOpen();
	for (int i = 0; i < batch->nevents; i++)
		batch->event[i]->limits = LimitsOf(batch->book, batch->event[i]);
	LimitsReadOld(batch->book, sources, batch->nevents);
	for (int i = 0; i < batch->nevents; i++)
	{
		int			first = 0;
		int			count = posted_of(posted, nposted, batch->event[i]->source_id, &first);

		limit_correction(batch, ledger, batch->event[i], &posted[first], count);
	}
	LimitsKeys(batch->book);
	LimitsLock(batch->book);
	for (int i = 0; i < batch->nevents; i++)
		LimitsForget(batch->event[i]->limits);
}

/* Correct the events of a chunk. */
static void
correct_chunk(Batch *batch, Ledger *ledger)
{
	int64	   *sources = chunk_sources(batch);
	int64	   *ids;
	Posted	   *posted;
	int			nposted;
	int			n = 0;

	nposted = LedgerPosted(ledger, sources, batch->nevents, &posted);
	ids = palloc(sizeof(int64) * (batch->nevents + 2 * nposted));
	for (int i = 0; i < batch->nevents; i++)
	{
		if (batch->event[i]->has_member)
			ids[n++] = batch->event[i]->member_id;
	}
	for (int i = 0; i < nposted; i++)
	{
		if (posted[i].account_id == 0 || posted[i].account_id >= FIRST_WALLET)
			continue;
		ids[n++] = posted[i].account_id;
		/* challenges will ask for the member whose it was, which comes before its household */
		if (posted[i].member_id != 0)
			ids[n++] = WalletMember(posted[i].member_id);
	}
	ids = add_referrers(batch, ids, &n);
	if (n > 0)
		LedgerLock(ledger, ids, n);
	lock_wallets(batch, ledger, posted, nposted);
	nposted = LedgerLockedPosted(ledger, sources, batch->nevents, &posted);
	admit_chunk(batch, ledger);
	if (LimitsExist())
		limit_corrections(batch, ledger, sources, posted, nposted);
	open_caps(batch);
	if (batch->caps != NULL)
		CapsReadOld(batch->caps, sources, batch->nevents);
	for (int i = 0; i < batch->nevents; i++)
	{
		int			first = 0;
		int			count = posted_of(posted, nposted, batch->event[i]->source_id, &first);

		correct_event(batch, ledger, batch->event[i], &posted[first], count);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Stamp the cards of a chunk's members, where a programme has cards. */
static void
stamp_chunk(Batch *batch)
{
	bool		cards = false;

	for (int i = 0; i < batch->pins.n; i++)
		cards |= batch->pins.program[i]->ncards > 0;
	if (cards && batch->event[0]->kind == ON_PURCHASE)
		StampPurchases(chunk_sources(batch), batch->nevents);
}

/* Count a chunk's events for challenges, where a programme has some. */
static void
track_chunk(Batch *batch)
{
	bool		challenges = false;

	for (int i = 0; i < batch->pins.n; i++)
		challenges |= batch->pins.program[i]->nchallenges > 0;
	/* what gave nothing, and is nobody's now, pinned no programme */
	if (challenges || (batch->correcting && ChallengesExist()))
		ChallengesTrack(chunk_sources(batch), batch->nevents, !batch->correcting);
}

/* Process the events collected so far and forget them. */
static void
process_chunk(Batch *batch)
{
	MemoryContext old;
	Ledger	   *ledger;

	if (batch->nevents == 0)
		return;
	old = MemoryContextSwitchTo(batch->chunk);
	qsort(batch->event, batch->nevents, sizeof(Event *), compare_events);
	ledger = LedgerOpen();
	if (batch->correcting)
		correct_chunk(batch, ledger);
	else
		award_chunk(batch, ledger);
	LedgerFlush(ledger);
	LedgerClose(ledger);
	if (batch->book != NULL)
		LimitsFlush(batch->book);
	batch->book = NULL;
	if (batch->caps != NULL)
		CapsFlush(batch->caps);
	batch->caps = NULL;
	stamp_chunk(batch);
	track_chunk(batch);
	if (batch->admits && batch->event[0]->kind == ON_ACTIVITY)
		AdmitComplete(batch->event, batch->nevents);
	batch->admits = false;
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->chunk);
	batch->nevents = 0;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Tell whether a row is restored from a dump or copied by replication.
 *
 * Its entries come the same way.  The default of recorded_at is the start of
 * the transaction; grant_app lets nobody set it.
 */
static bool
is_restored(const Batch *batch, const Event *event)
{
	return !batch->correcting && event->recorded_at != GetCurrentTransactionStartTimestamp();
}

/* Check a guest's row, of which nothing is kept. */
static void
check_guest(Batch *batch, TupleTableSlot *row)
{
	MemoryContext old = MemoryContextSwitchTo(batch->scratch);
	Event		event;

	EventRead(batch->layout, row, &event);
	SourceCheck(event.source);
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->scratch);
}

/* Collect a row; true when the chunk is full. */
static bool
collect_row(Batch *batch, TupleTableSlot *row, TupleTableSlot *scratch)
{
	MemoryContext old;
	Event		order;
	Event	   *event;

	EventReadOrder(batch->layout, row, &order);
	if (is_restored(batch, &order))
		return false;
	if (!order.has_member && !batch->correcting)
	{
		check_guest(batch, row);
		return false;
	}
	old = MemoryContextSwitchTo(batch->chunk);
	event = palloc(sizeof(Event));
	ExecStoreMinimalTuple(ExecCopySlotMinimalTuple(row), scratch, false);
	EventRead(batch->layout, scratch, event);
	if (!batch->correcting)
		SourceCheck(event->source);
	event->home_id = event->member_id;
	batch->event[batch->nevents++] = event;
	ExecClearTuple(scratch);
	MemoryContextSwitchTo(old);
	return batch->nevents == CHUNK_EVENTS ||
		(batch->nevents % 64 == 0 && MemoryContextMemAllocated(batch->chunk, true) > CHUNK_BYTES);
}

/* Collect every row as one chunk, in any order; false where they are too many or too large for one. */
static bool
collect_all(Batch *batch, Tuplestorestate *rows, TupleTableSlot *slot, TupleTableSlot *scratch)
{
	if (tuplestore_tuple_count(rows) >= CHUNK_EVENTS)
		return false;
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		if (collect_row(batch, slot, scratch))
		{
			MemoryContextReset(batch->chunk);
			batch->nevents = 0;
			tuplestore_rescan(rows);
			return false;
		}
	}
	return true;
}

/* Begin to sort by an account or member, a time and an id. */
static Tuplesortstate *
begin_sort(TupleDesc desc, AttrNumber *columns, int options)
{
	Oid			operators[3];
	Oid			collations[3] = {InvalidOid, InvalidOid, InvalidOid};
	bool		nulls_first[3] = {false, false, false};

	for (int i = 0; i < 3; i++)
		get_sort_group_operators(TupleDescAttr(desc, columns[i] - 1)->atttypid, true, false, false,
								 &operators[i], NULL, NULL, NULL);
	return tuplesort_begin_heap(desc, 3, columns, operators, collations, nulls_first, work_mem,
								NULL, options);
}

/* Sort a large statement's rows by member, time and id. */
static Tuplesortstate *
sort_rows(Batch *batch, Tuplestorestate *rows, TupleTableSlot *slot, int options)
{
	AttrNumber	columns[3] = {EventColumn(batch->layout, "member_id"),
	EventColumn(batch->layout, "occurred_at"), EventColumn(batch->layout, "id")};
	Tuplesortstate *sort = begin_sort(slot->tts_tupleDescriptor, columns, options);

	while (tuplestore_gettupleslot(rows, true, false, slot))
		tuplesort_puttupleslot(sort, slot);
	tuplesort_performsort(sort);
	return sort;
}

/* Lock the members collected so far; note which of them share an account. */
static void
lock_members(Batch *batch, int64 *members, int n, Homes *homes)
{
	MemoryContext old = MemoryContextSwitchTo(batch->chunk);
	Ledger	   *ledger = LedgerOpen();
	Account    *account;

	n = LedgerLockMembers(ledger, members, n, &account);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < n; i++)
	{
		if (account[i].household_id == 0)
			continue;
		if (homes->n == homes->size)
		{
			homes->size = homes->size * 2 + 64;
			homes->home = homes->home == NULL ? palloc(sizeof(Home) * homes->size) :
				repalloc_huge(homes->home, sizeof(Home) * homes->size);
		}
		homes->home[homes->n].member_id = account[i].account_id;
		homes->home[homes->n++].household_id = account[i].household_id;
	}
	MemoryContextReset(batch->chunk);
}

/* Lock the households. */
static void
lock_households(Batch *batch, const Homes *homes)
{
	MemoryContext old = MemoryContextSwitchTo(batch->chunk);
	int64	   *ids = MemoryContextAllocHuge(batch->chunk, sizeof(int64) * homes->n);

	for (int i = 0; i < homes->n; i++)
		ids[i] = homes->home[i].household_id;
	LedgerLock(LedgerOpen(), ids, homes->n);
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->chunk);
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/* Read the next row of a sorted statement that is to be awarded or corrected; false at the end. */
static bool
next_order(Batch *batch, Tuplesortstate *sort, TupleTableSlot *slot, Event *order)
{
	while (tuplesort_gettupleslot(sort, true, false, slot, NULL))
	{
		EventReadOrder(batch->layout, slot, order);
		if (!is_restored(batch, order))
			return true;
	}
	return false;
}

/* The other accounts of the referrals that a sorted statement concerns, ascending. */
static int64 *
referred_accounts(Batch *batch, Tuplesortstate *sort, TupleTableSlot *slot, int *count)
{
	int64	   *members = palloc(sizeof(int64) * CHUNK_EVENTS);
	int64	   *sources = palloc(sizeof(int64) * CHUNK_EVENTS);
	int64	   *ids = NULL;
	bool		more = ReferralsExist();

	*count = 0;
	while (more)
	{
		Event		order;
		int			n = 0;

		while (n < CHUNK_EVENTS && (more = next_order(batch, sort, slot, &order)))
		{
			members[n] = order.member_id;
			sources[n++] = order.source_id;
		}
		if (n > 0 && order.kind == ON_PURCHASE)
			ids = ReferralsFind(NULL, members, sources, n, !batch->correcting, ids, count);
	}
	tuplesort_rescan(sort);
	if (*count > 0)
		qsort(ids, *count, sizeof(int64), compare_ids);
	return ids;
}

/* Take an account to be locked; lock those taken so far when they are a chunk. */
static void
take_member(Batch *batch, int64 *members, int *n, int64 member_id, Homes *homes)
{
	if (*n > 0 && members[*n - 1] == member_id)
		return;
	members[(*n)++] = member_id;
	if (*n < CHUNK_EVENTS)
		return;
	lock_members(batch, members, *n, homes);
	*n = 0;
}

/* Lock every member of a sorted statement and of its referrals, then every household. */
static void
lock_in_order(Batch *batch, Tuplesortstate *sort, TupleTableSlot *slot, Homes *homes)
{
	int			nreferred;
	int64	   *referred = referred_accounts(batch, sort, slot, &nreferred);
	int64	   *members = palloc(sizeof(int64) * CHUNK_EVENTS);
	int			next = 0;
	int			n = 0;
	Event		order;

	while (next_order(batch, sort, slot, &order))
	{
		if (!order.has_member)
			continue;
		while (next < nreferred && referred[next] < order.member_id)
			take_member(batch, members, &n, referred[next++], homes);
		take_member(batch, members, &n, order.member_id, homes);
	}
	while (next < nreferred)
		take_member(batch, members, &n, referred[next++], homes);
	if (n > 0)
		lock_members(batch, members, n, homes);
	if (homes->n > 0)
		lock_households(batch, homes);
	pfree(members);
	tuplesort_rescan(sort);
}

static int
compare_homes(const void *a, const void *b)
{
	int64		left = ((const Home *) a)->member_id;
	int64		right = ((const Home *) b)->member_id;

	return (left > right) - (left < right);
}

/* Begin to sort keys of rows of limits. */
static Tuplesortstate *
begin_keys(TupleDesc *desc)
{
	AttrNumber	columns[2] = {1, 2};
	Oid			operators[2];
	Oid			collations[2] = {InvalidOid, C_COLLATION_OID};
	bool		nulls_first[2] = {false, false};

	*desc = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(*desc, 1, "program_id", INT4OID, -1, 0);
	TupleDescInitEntry(*desc, 2, "subject", TEXTOID, -1, 0);
	get_sort_group_operators(INT4OID, true, false, false, &operators[0], NULL, NULL, NULL);
	get_sort_group_operators(TEXTOID, true, false, false, &operators[1], NULL, NULL, NULL);
	return tuplesort_begin_heap(*desc, 2, columns, operators, collations, nulls_first, work_mem,
								NULL, TUPLESORT_NONE);
}

/* Collect the keys of the limits that a chunk's events may need, and forget the events. */
static void
collect_keys(Batch *batch, Tuplesortstate *keys, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(batch->chunk);
	Ledger	   *ledger = LedgerOpen();
	LimitBook  *book = LimitsOpen();
	int64	   *ids = palloc(sizeof(int64) * Max(batch->nevents, 1));
	int			n = 0;

	for (int i = 0; i < batch->nevents; i++)
	{
		if (batch->event[i]->has_member)
			ids[n++] = batch->event[i]->member_id;
		batch->event[i]->limits = LimitsOf(book, batch->event[i]);
	}
	if (n > 0)
		LedgerLock(ledger, ids, n);
	if (batch->correcting && batch->nevents > 0)
		LimitsReadOld(book, chunk_sources(batch), batch->nevents);
	for (int i = 0; i < batch->nevents; i++)
	{
		Event	   *event = batch->event[i];
		const Account *member = event->has_member ? LedgerAccount(ledger, event->member_id) : NULL;

		/* whose member is not there or closed, it is corrected with what it used or refused later */
		if (member != NULL && !member->closed && !event->is_void)
			AwardLimits(ledger, pin_program(&batch->pins, AwardAccount(ledger, event)->program_id), event, book);
	}
	LimitsKeys(book);
	for (int i = 0; i < book->nstates; i++)
	{
		ExecClearTuple(slot);
		slot->tts_values[0] = Int32GetDatum(book->state[i].program_id);
		slot->tts_values[1] = PointerGetDatum(book->state[i].subject);
		slot->tts_isnull[0] = slot->tts_isnull[1] = false;
		ExecStoreVirtualTuple(slot);
		tuplesort_puttupleslot(keys, slot);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->chunk);
	batch->nevents = 0;
}

/* Lock sorted keys, so many at a time. */
static void
lock_keys(Batch *batch, Tuplesortstate *keys, TupleTableSlot *slot)
{
	bool		more = true;

	while (more)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->chunk);
		LimitBook  *book = LimitsOpen();

		book->state = palloc0(sizeof(SubjectState) * CHUNK_EVENTS);
		while (book->nstates < CHUNK_EVENTS &&
			   (more = tuplesort_gettupleslot(keys, true, false, slot, NULL)))
		{
			bool		isnull;

			book->state[book->nstates].program_id = DatumGetInt32(slot_getattr(slot, 1, &isnull));
			book->state[book->nstates++].subject = DatumGetTextPCopy(slot_getattr(slot, 2, &isnull));
		}
		LimitsLockKeys(book);
		MemoryContextSwitchTo(old);
		MemoryContextReset(batch->chunk);
	}
}

/* Lock all limits that a statement of several chunks may need, in one order. */
static void
lock_limits(Batch *batch, Tuplesortstate *sort, TupleTableSlot *row)
{
	TupleDesc	desc;
	Tuplesortstate *keys = begin_keys(&desc);
	TupleTableSlot *in = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	TupleTableSlot *out = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	TupleTableSlot *scratch = MakeSingleTupleTableSlot(row->tts_tupleDescriptor, &TTSOpsMinimalTuple);

	while (tuplesort_gettupleslot(sort, true, false, row, NULL))
	{
		if (collect_row(batch, row, scratch))
			collect_keys(batch, keys, in);
	}
	collect_keys(batch, keys, in);
	tuplesort_performsort(keys);
	lock_keys(batch, keys, out);
	tuplesort_end(keys);
	tuplesort_rescan(sort);
	ExecDropSingleTupleTableSlot(in);
	ExecDropSingleTupleTableSlot(out);
	ExecDropSingleTupleTableSlot(scratch);
}

/* Sort a statement's rows, whose slot has the account as one more column, by that, time and id; by time where limits are asked. */
static Tuplesortstate *
sort_by_home(Batch *batch, Tuplesortstate *rows, TupleTableSlot *slot, TupleTableSlot *wide,
			 const Homes *homes)
{
	int			natts = slot->tts_tupleDescriptor->natts;
	AttrNumber	columns[3] = {natts + 1, EventColumn(batch->layout, "occurred_at"),
	EventColumn(batch->layout, "id")};
	Tuplesortstate *sort;

	if (LimitsExist() || BudgetsExist())
	{
		columns[0] = EventColumn(batch->layout, "occurred_at");
		columns[1] = natts + 1;
	}
	sort = begin_sort(wide->tts_tupleDescriptor, columns, TUPLESORT_NONE);
	while (tuplesort_gettupleslot(rows, true, false, slot, NULL))
	{
		Event		order;
		Home		key;
		const Home *found;

		EventReadOrder(batch->layout, slot, &order);
		key.member_id = order.has_member ? order.member_id : 0;
		found = homes->n == 0 ? NULL :
			bsearch(&key, homes->home, homes->n, sizeof(Home), compare_homes);
		ExecClearTuple(wide);
		slot_getallattrs(slot);
		memcpy(wide->tts_values, slot->tts_values, sizeof(Datum) * natts);
		memcpy(wide->tts_isnull, slot->tts_isnull, sizeof(bool) * natts);
		wide->tts_values[natts] = Int64GetDatum(found == NULL ? key.member_id : found->household_id);
		wide->tts_isnull[natts] = false;
		ExecStoreVirtualTuple(wide);
		tuplesort_puttupleslot(sort, wide);
	}
	tuplesort_performsort(sort);
	return sort;
}

/* Process sorted rows, a chunk at a time. */
static void
process_sorted(Batch *batch, Tuplesortstate *sort, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	TupleTableSlot *scratch = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	while (tuplesort_gettupleslot(sort, true, false, slot, NULL))
	{
		if (collect_row(batch, slot, scratch))
			process_chunk(batch);
	}
	process_chunk(batch);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(scratch);
}

/*
 * Process a large statement whose members may share accounts, or be referred.
 *
 * All is locked before the first chunk, members first: in the order of the
 * members the households are in no order.  Then rows are taken in the order of
 * the accounts, so that a household's timeline is one.
 */
static void
process_shared(Batch *batch, Tuplesortstate *sort, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	TupleDesc	wide = CreateTemplateTupleDesc(desc->natts + 1);
	TupleTableSlot *wide_slot;
	Tuplesortstate *by_home;
	Homes		homes = {0};

	for (int i = 1; i <= desc->natts; i++)
		TupleDescCopyEntry(wide, i, desc, i);
	TupleDescInitEntry(wide, desc->natts + 1, "loyalty_home", INT8OID, -1, 0);
	wide_slot = MakeSingleTupleTableSlot(wide, &TTSOpsVirtual);
	lock_in_order(batch, sort, slot, &homes);
	if (LimitsExist())
		lock_limits(batch, sort, slot);
	by_home = sort_by_home(batch, sort, slot, wide_slot, &homes);
	process_sorted(batch, by_home, wide);
	tuplesort_end(by_home);
	ExecDropSingleTupleTableSlot(wide_slot);
}

/* Take every row of a transition table. */
static void
process_rows(Batch *batch, Tuplestorestate *rows, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	TupleTableSlot *scratch = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	int			pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(rows, pointer);
	tuplestore_rescan(rows);
	if (collect_all(batch, rows, slot, scratch))
		process_chunk(batch);
	else
	{
		bool		shared = LedgerHasHouseholds() || LimitsExist() || BudgetsExist() || ReferralsExist();
		Tuplesortstate *sort = sort_rows(batch, rows, slot,
										 shared ? TUPLESORT_RANDOMACCESS : TUPLESORT_NONE);

		if (shared)
			process_shared(batch, sort, slot);
		else
			process_sorted(batch, sort, desc);
		tuplesort_end(sort);
	}
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(scratch);
}

/* ------------------------------------------------------------------------
 * The trigger
 * ------------------------------------------------------------------------ */

/* Refuse calls that are not ours: the trigger stands on our two tables alone. */
static RuleEvent
check_call(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	relation;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("\"%s\" must be called as a trigger", "award")));
	relation = trigger->tg_relation;
	if (TRIGGER_FIRED_AFTER(trigger->tg_event) && TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) &&
		trigger->tg_newtable != NULL &&
		RelationGetNamespace(relation) == get_namespace_oid("loyalty", true))
	{
		if (strcmp(RelationGetRelationName(relation), "purchase") == 0)
			return ON_PURCHASE;
		if (strcmp(RelationGetRelationName(relation), "activity") == 0)
			return ON_ACTIVITY;
	}
	ereport(ERROR,
			(errcode(ERRCODE_LY_FORGED_CALL),
			 errmsg("table \"%s\" may not award points", RelationGetRelationName(relation)),
			 errhint("loyalty.attach lets a table of your own award points.")));
}

PG_FUNCTION_INFO_V1(loyalty_award);

/* Statement trigger after INSERT or UPDATE on purchase and activity. */
Datum
loyalty_award(PG_FUNCTION_ARGS)
{
	RuleEvent	kind = check_call(fcinfo);
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Batch	   *batch;
	bool		many;

	if (tuplestore_tuple_count(trigger->tg_newtable) == 0)
		return PointerGetDatum(NULL);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	batch = palloc0(sizeof(Batch));
	batch->layout = EventLayoutOf(RelationGetDescr(trigger->tg_relation), kind);
	batch->correcting = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	batch->referred.context = CurrentMemoryContext;
	batch->event = palloc(sizeof(Event *) *
						  Min(CHUNK_EVENTS, tuplestore_tuple_count(trigger->tg_newtable)));
	/* many rows: keep the pages of a chunk for the next one */
	many = tuplestore_tuple_count(trigger->tg_newtable) > CHUNK_EVENTS;
	batch->chunk = AllocSetContextCreate(CurrentMemoryContext, "loyalty chunk",
										 many ? CHUNK_BYTES / 4 : 0, ALLOCSET_DEFAULT_INITSIZE,
										 ALLOCSET_DEFAULT_MAXSIZE);
	batch->scratch = AllocSetContextCreate(CurrentMemoryContext, "loyalty decision",
										   many ? 64 * 1024 : 0, ALLOCSET_DEFAULT_INITSIZE,
										   ALLOCSET_DEFAULT_MAXSIZE);
	PG_TRY();
	{
		process_rows(batch, trigger->tg_newtable, RelationGetDescr(trigger->tg_relation));
		ReferralsSettle(&batch->referred);
	}
	PG_FINALLY();
	{
		for (int i = 0; i < batch->pins.n; i++)
			ProgramUnpin(batch->pins.program[i]);
	}
	PG_END_TRY();
	SPI_finish();
	return PointerGetDatum(NULL);
}
