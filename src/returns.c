/*
 * returns.c
 *	  Taking back what returned goods had earned.
 *
 * The trigger on purchase_return, in SQL, registers the return and has locked
 * the purchase and its account; the difference is posted here.  How much of a
 * purchase was returned is computed by SQL too (returned_share): it is exact
 * arithmetic over a few rows.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "award.h"
#include "compat.h"
#include "errors.h"

/* A text argument, NULL where it is null. */
static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

PG_FUNCTION_INFO_V1(loyalty_post_return);

/*
 * post_return(purchase_id, occurred_at, reason, key, detail): post what the
 * returns of a purchase take back and have not taken yet; returns the points.
 */
Datum
loyalty_post_return(PG_FUNCTION_ARGS)
{
	int64		purchase_id = PG_GETARG_INT64(0);
	Ledger	   *ledger;
	Posted	   *posted;
	Event		event;
	CapBook    *caps;
	int			n;
	int64		taken = 0;

	SPI_connect();
	if (!TransactionRead(purchase_id, false, &event))
		elog(ERROR, "purchase " INT64_FORMAT " vanished under its lock", purchase_id);
	ledger = LedgerOpen();
	n = LedgerLockPosted(ledger, &purchase_id, 1, event.has_member ? event.member_id : 0,
						 &posted);
	caps = CapsOpenFor(&event);
	for (int i = 0; i < n; i++)
	{
		Account    *account = LedgerAccount(ledger, posted[i].account_id);
		Program    *program;
		int64		back;
		Posting		posting = {.kind = "return", .source_id = purchase_id};

		if (account == NULL || event.is_void || !CorrectConcerns(ledger, &event, &posted[i]))
			continue;
		posting.occurred_at = PG_GETARG_TIMESTAMPTZ(1);
		posting.reason = text_argument(fcinfo, 2);
		posting.key = text_argument(fcinfo, 3);
		posting.detail = PG_ARGISNULL(4) ? (Datum) 0 : PG_GETARG_DATUM(4);
		program = ProgramPin(account->program_id);
		back = CorrectReturn(ledger, program, account, &event, &posted[i], &posting);
		ProgramUnpin(program);
		if (account->account_id < FIRST_WALLET)
			taken += back;
	}
	LedgerFlush(ledger);
	LedgerClose(ledger);
	if (caps != NULL)
		CapsFlush(caps);
	SPI_finish();
	PG_RETURN_INT64(taken);
}
