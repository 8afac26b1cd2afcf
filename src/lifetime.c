/*
 * lifetime.c
 *	  Closing what has died.
 *
 * A lot carries the day on which it dies; under a sliding policy lots carry
 * none, and all of them die some time after the account's last event.  Either
 * way death takes effect by date; what is written here is for the books, and
 * so that later events cannot revive what was dead before them.
 */
#include "lifetime.h"

#include "utils/date.h"

#include "compat.h"
#include "hold.h"

/* The first day on which a sliding policy has killed all points; never for other policies. */
int32
LifetimeSlidesUntil(const Program *program, TimestampTz last_event_at)
{
	if (program->expiry.kind != EXPIRY_SLIDING || TIMESTAMP_NOT_FINITE(last_event_at))
		return CALENDAR_NEVER;
	return calendar_slides_until(&program->expiry, ProgramDay(program, last_event_at));
}

/* Give lots the day on which a sliding policy lets them die, for readers. */
void
LifetimeShow(const Program *program, TimestampTz last_event_at, LotSet *lots)
{
	int32		end = LifetimeSlidesUntil(program, last_event_at);
	LotSet		shown;

	if (end == CALENDAR_NEVER)
		return;
	lotset_init(&shown);
	for (int i = 0; i < lots->n; i++)
	{
		Lot			lot = lots->lot[i];

		if (lot.amount > 0 && lot.expires_on == DATEVAL_NOEND && lot.available_from < end)
			lot.expires_on = end;
		LotsRaise(lotset_add_lot(&shown, lot));
	}
	*lots = shown;
}

/* What kills every lot that nobody holds. */
static void
kill_all(const LotSet *lots, LotSet *delta)
{
	for (int i = 0; i < lots->n; i++)
	{
		Lot			lot = lots->lot[i];

		if (lot.amount <= 0)
			continue;
		lot.amount = -lot.amount;
		LotsRaise(lotset_add_lot(delta, lot));
	}
}

/* Post what died by a day; true where something did. */
bool
LifetimeClose(Ledger *ledger, const Program *program, Account *account, int32 day, TimestampTz at)
{
	LotSet		scratch;
	const LotSet *lots = HoldsFree(account, &scratch);
	LotSet		dead;
	Posting		posting = {.kind = "expire", .occurred_at = at, .lots = &dead};

	lotset_init(&dead);
	if (day >= LifetimeSlidesUntil(program, account->last_event_at))
		kill_all(lots, &dead);
	else
		LotsRaise(lotset_close_expired(lots, day, &dead));
	if (dead.n == 0)
		return false;
	LedgerPost(ledger, account, &posting);
	return true;
}
