/*
 * hold.c
 *	  Open holds of an account.
 *
 * A hold moves no points: its lots stay in the account, frozen, until they are
 * captured.  It ends by itself: from held_until on it counts as released, and
 * whoever touches the account next writes that down.  Writes through the
 * ledger only, under the account's lock.
 */
#include "hold.h"

#include "utils/date.h"
#include "utils/memutils.h"

#include "compat.h"
#include "detail.h"
#include "errors.h"

#define MAX_HOLDS 1000

/* What an entry that resolves a lapsed hold says. */
static Datum
lapsed_detail(const Hold *hold)
{
	Detail		detail;

	DetailBegin(&detail);
	DetailCopy(&detail, "request", hold->detail);
	DetailCopy(&detail, "held", hold->detail);
	DetailCopy(&detail, "held_money", hold->detail);
	DetailCopy(&detail, "currency", hold->detail);
	DetailText(&detail, "held_lots", LotsToText(&hold->lots));
	DetailTime(&detail, "held_at", hold->held_at);
	DetailTime(&detail, "held_until", hold->held_until);
	DetailBool(&detail, "lapsed", true);
	return DetailEnd(&detail);
}

/* Write down that a hold ended by itself. */
static void
release_lapsed(Ledger *ledger, const Program *program, Account *account, const Hold *hold)
{
	LotSet		delta;
	Posting		posting = {.kind = "release", .source_id = hold->hold_id,
	.occurred_at = hold->held_until, .lots = &delta, .key = hold->key};

	lotset_init(&delta);
	LotsRaise(lotset_revive(&hold->lots, ProgramDay(program, hold->held_until),
							program->restore, program->restore_days, &delta));
	posting.detail = lapsed_detail(hold);
	LedgerPost(ledger, account, &posting);
}

/* Resolve the holds of an account that ended by themselves. */
void
HoldsSettle(Ledger *ledger, const Program *program, Account *account)
{
	for (int i = account->nholds - 1; i >= 0; i--)
	{
		if (account->hold[i].held_until > LedgerNow(ledger))
			continue;
		release_lapsed(ledger, program, account, &account->hold[i]);
		HoldRemove(account, &account->hold[i]);
	}
}

/* The lots of an account that no open hold has frozen; where none is open, its own. */
const LotSet *
HoldsFree(const Account *account, LotSet *scratch)
{
	if (account->nholds == 0)
		return &account->lots;
	lotset_copy(scratch, &account->lots);
	for (int i = 0; i < account->nholds; i++)
		LotsRaise(lotset_subtract(scratch, &account->hold[i].lots));
	return scratch;
}

/* An open hold by its key, NULL where there is none. */
Hold *
HoldFind(Account *account, const char *key)
{
	for (int i = 0; i < account->nholds; i++)
	{
		if (strcmp(account->hold[i].key, key) == 0)
			return &account->hold[i];
	}
	return NULL;
}

/* Open a hold; what it points to must live until the flush. */
void
HoldAdd(Ledger *ledger, Account *account, const Hold *hold)
{
	Hold	   *holds;

	if (account->nholds >= MAX_HOLDS)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_HOLD),
				 errmsg("member " INT64_FORMAT " has %d open holds already", account->account_id,
						account->nholds),
				 errhint("Capture or release them first.")));
	holds = palloc(sizeof(Hold) * (account->nholds + 1));
	if (account->nholds > 0)
		memcpy(holds, account->hold, sizeof(Hold) * account->nholds);
	holds[account->nholds++] = *hold;
	account->hold = holds;
	account->changed = true;
}

/* Close a hold. */
void
HoldRemove(Account *account, Hold *hold)
{
	int			at = (int) (hold - account->hold);

	account->nholds--;
	memmove(hold, hold + 1, sizeof(Hold) * (account->nholds - at));
	account->changed = true;
}

/*
 * What lots and holds are worth at an instant: the free lots, and the held
 * ones.  Holds that lapsed by then count as released.
 */
void
HoldsAt(const Program *program, const Hold *holds, int nholds, TimestampTz at,
		LotSet *lots, LotSet *held)
{
	for (int i = 0; i < nholds; i++)
	{
		LotSet		revived;

		if (holds[i].held_until > at)
		{
			LotsRaise(lotset_subtract(lots, &holds[i].lots));
			LotsRaise(lotset_add(held, &holds[i].lots));
			continue;
		}
		lotset_init(&revived);
		LotsRaise(lotset_revive(&holds[i].lots, ProgramDay(program, holds[i].held_until),
								program->restore, program->restore_days, &revived));
		LotsRaise(lotset_add(lots, &revived));
	}
}
