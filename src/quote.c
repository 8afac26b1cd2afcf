/*
 * quote.c
 *	  Questions that write nothing: what a purchase would earn, why an award
 *	  came out as it did, what draft rules would have given.
 *
 * All three run the code of the award itself, on accounts in memory that are
 * never flushed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"

#include "award.h"
#include "compat.h"
#include "errors.h"

/* Text of a tier's name, null below the lowest. */
static Datum
tier_name(const Program *program, int index, bool *isnull)
{
	*isnull = index == NO_TIER;
	return *isnull ? (Datum) 0 : CStringGetTextDatum(program->tier_info[index].name);
}

/* Fill the answer of a quote. */
static void
quote_columns(const Program *program, const AwardOutcome *outcome, Datum *v, bool *n)
{
	memset(n, false, sizeof(bool) * 6);
	v[0] = Int64GetDatum(outcome->award.points);
	v[1] = DateADTGetDatum(outcome->lot.available_from);
	v[2] = DateADTGetDatum(outcome->lot.expires_on);
	v[3] = tier_name(program, outcome->tier_before, &n[3]);
	v[4] = tier_name(program, outcome->tier_after, &n[4]);
	v[5] = PointerGetDatum(BreakdownEncode(&outcome->award.breakdown));
}

/* Let a quote ask the velocity limits as they stand, without locking or counting anything. */
static void
quote_limits(Ledger *ledger, Program *program, Event *event)
{
	LimitBook  *book = LimitsOpen();

	AwardLimits(ledger, program, event, book);
	event->limits->quoting = true;
	LimitsKeys(book);
	LimitsRead(book);
}

PG_FUNCTION_INFO_V1(loyalty_quote_purchase);

/* quote_purchase(purchase): award it in memory and tell the outcome. */
Datum
loyalty_quote_purchase(PG_FUNCTION_ARGS)
{
	Ledger	   *ledger;
	Account    *account;
	Account    *history;
	int64		account_id;
	Program    *program;
	Event		event;
	AwardOutcome outcome;
	TupleDesc	desc;
	Datum		v[6];
	bool		n[6];
	Datum		result;
	bool		hold;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "quote_purchase must return a row");
	desc = BlessTupleDesc(desc);
	SPI_connect();
	EventFromDatum(PG_GETARG_HEAPTUPLEHEADER(0), ON_PURCHASE, &event);
	ledger = LedgerOpen();
	account_id = event.member_id;
	event.member_id = WalletMember(account_id);
	LedgerRead(ledger, event.member_id);
	if (account_id >= FIRST_WALLET)
		LedgerReadWallet(ledger, account_id);
	history = AwardAccount(ledger, &event);
	account = account_id >= FIRST_WALLET ? LedgerAccount(ledger, account_id) : history;
	program = ProgramPin(account->program_id);
	hold = program->hold_on_error;
	program->hold_on_error = false;
	PG_TRY();
	{
		if (program->nlimits > 0)
			quote_limits(ledger, program, &event);
		if (program->has_caps)
			CapsAttach(CapsOpen(CAPS_QUOTE), &event);
		AwardPost(ledger, program, account, history, &event, &outcome);
		quote_columns(program, &outcome, v, n);
		result = SPI_datumTransfer(HeapTupleGetDatum(heap_form_tuple(desc, v, n)), false, -1);
	}
	PG_FINALLY();
	{
		program->hold_on_error = hold;
		ProgramUnpin(program);
	}
	PG_END_TRY();
	SPI_finish();
	PG_RETURN_DATUM(result);
}

PG_FUNCTION_INFO_V1(loyalty_limit_subjects);

/* limit_subjects(member_id): the limits whose subject follows from the member, what it is, and now's bucket. */
Datum
loyalty_limit_subjects(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	LimitBook  *book;
	Ledger	   *ledger;
	Program    *program;
	Event		event = {.has_member = true,.is_void = true,.member_id = PG_GETARG_INT64(0),.occurred_at = now,.recorded_at = now};

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	ledger = LedgerOpen();
	LedgerRead(ledger, event.member_id);
	program = ProgramPin(AwardAccount(ledger, &event)->program_id);
	book = LimitsOpen();
	for (int kind = 0; kind < 3; kind++)
	{
		event.kind = kind == 0 ? ON_PURCHASE : kind == 1 ? ON_ACTIVITY : ON_REDEMPTION;
		event.limits = NULL;
		event.limits = LimitsOf(book, &event);
		event.limits->of_member = true;
		AwardLimits(ledger, program, &event, book);
		for (int i = 0; i < event.limits->nuses; i++)
		{
			const LimitUse *use = &event.limits->use[i];
			Datum		v[3] = {Int32GetDatum(use->limit_id), PointerGetDatum(use->subject), Int64GetDatum(use->bucket)};
			bool		n[3] = {false};

			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
		}
	}
	ProgramUnpin(program);
	SPI_finish();
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * Explain
 * ------------------------------------------------------------------------ */

/* One sentence on why a rule fired or did not. */
static char *
verdict_sentence(const Program *program, const RuleVerdict *verdict, const Event *event)
{
	const Rule *rule = verdict->rule;

	if (verdict->fired)
	{
		if (rule->condition == NULL)
			return pstrdup("It has no condition.");
		return psprintf("Its condition is true: %s", rule->condition->text);
	}
	if (event->occurred_at < rule->active_from)
		return psprintf("It is active only from %s.", timestamptz_to_str(rule->active_from));
	if (event->occurred_at >= rule->active_until)
		return psprintf("It was active only until %s.", timestamptz_to_str(rule->active_until));
	if (!verdict->in_time && rule->retired_at != DT_NOEND && event->occurred_at >= rule->retired_from)
		return psprintf("It was retired from %s.", timestamptz_to_str(rule->retired_from));
	if (!verdict->in_time)
		return pstrdup("It was made after the award.");
	if (verdict->crowded_out)
		return pstrdup("Another rule of its exclusive group gave more.");
	if (verdict->null_points)
		return psprintf("Its points are null: %s", rule->points->text);
	if (rule->event == ON_LINE)
		return event->nlines == 0 ? pstrdup("The purchase has no lines.") :
			psprintf("Its condition is true on no line: %s",
					 rule->condition == NULL ? "every line is excluded from earning" :
					 rule->condition->text);
	return psprintf("Its condition is not true: %s",
					rule->condition == NULL ? "" : rule->condition->text);
}

/* Emit one verdict. */
static void
put_verdict(ReturnSetInfo *rsinfo, const Program *program, const RuleVerdict *verdict,
			const Event *event)
{
	static const char *const events[] = {"purchase", "line", "activity"};
	static const char *const kinds[] = {"base", "multiply", "bonus"};
	Datum		v[8];
	bool		n[8] = {false};

	v[0] = CStringGetTextDatum(verdict->rule->name);
	v[1] = Int32GetDatum(verdict->rule->version);
	v[2] = CStringGetTextDatum(events[verdict->rule->event]);
	v[3] = CStringGetTextDatum(kinds[verdict->rule->kind]);
	v[4] = BoolGetDatum(verdict->fired);
	v[5] = Int64GetDatum(verdict->points);
	v[6] = NumericGetDatum(verdict->exact);
	n[6] = verdict->exact == NULL;
	v[7] = CStringGetTextDatum(verdict_sentence(program, verdict, event));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
}

/* Emit the tier's multiplier where it had a part. */
static void
put_tier(ReturnSetInfo *rsinfo, const Program *program, const Breakdown *breakdown)
{
	for (int i = 0; i < breakdown->nrules; i++)
	{
		int			index = ProgramTierIndex(program, -breakdown->rule[i].id);
		Datum		v[8];
		bool		n[8] = {false};

		if (breakdown->rule[i].id > 0 || index == NO_TIER)
			continue;
		v[0] = CStringGetTextDatum(psprintf("tier %s", program->tier_info[index].name));
		n[1] = true;
		n[2] = true;
		v[3] = CStringGetTextDatum("multiply");
		v[4] = BoolGetDatum(true);
		v[5] = Int64GetDatum(breakdown->rule[i].points);
		v[6] = NumericGetDatum(breakdown->rule[i].exact);
		v[7] = CStringGetTextDatum(psprintf("The member was in tier %s, which multiplies the base by %s.",
											program->tier_info[index].name,
											numeric_normalize(program->tier_info[index].multiplier)));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	}
}

/* Decide a transaction again, with what its award pinned, and emit every verdict. */
static void
explain_event(ReturnSetInfo *rsinfo, Ledger *ledger, Program *program, Account *account,
			  Event *event, const Posted *posted)
{
	MemberFacts facts;
	Award		award;
	Breakdown	first;
	TimestampTz known_at = DT_NOEND;
	RuleVerdict *verdicts;
	int			n;

	AdmitRead(program, event);
	AwardPrepare(program, event);
	AwardMemberFacts(ledger, program, account, account, event, &facts);
	if (posted != NULL && posted->nbreakdowns > 0)
	{
		BreakdownDecode(posted->breakdown[0], &first);
		facts.pinned = first.pinned;
		known_at = posted->recorded_at;
	}
	verdicts = EarnExplain(program, event, &facts, known_at, &award, &n);
	for (int i = 0; i < n; i++)
	{
		if ((verdicts[i].rule->event == ON_ACTIVITY) == (event->kind == ON_ACTIVITY))
			put_verdict(rsinfo, program, &verdicts[i], event);
	}
	put_tier(rsinfo, program, &award.breakdown);
}

/* What the event's member earned by it; NULL where it is nothing. */
static const Posted *
posted_for(Ledger *ledger, const Posted *posted, int n, const Event *event)
{
	for (int i = 0; i < n; i++)
	{
		if (posted[i].account_id < FIRST_WALLET && CorrectConcerns(ledger, event, &posted[i]))
			return &posted[i];
	}
	return NULL;
}

PG_FUNCTION_INFO_V1(loyalty_explain_source);

/* explain_source(source_id): why each rule fired, or why it did not. */
Datum
loyalty_explain_source(PG_FUNCTION_ARGS)
{
	int64		source_id = PG_GETARG_INT64(0);
	Ledger	   *ledger;
	Account    *account;
	Program    *program;
	Event		event;
	Posted	   *posted;
	int			nposted;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	if (!TransactionRead(source_id, false, &event))
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_TRANSACTION),
				 errmsg("transaction " INT64_FORMAT " does not exist", source_id),
				 errhint("Give the number of a purchase or an activity.")));
	if (!event.has_member)
	{
		SPI_finish();
		return (Datum) 0;
	}
	ledger = LedgerOpen();
	nposted = LedgerPosted(ledger, &source_id, 1, &posted);
	LedgerRead(ledger, event.member_id);
	account = LedgerAccount(ledger, event.member_id);
	if (account != NULL)
	{
		program = ProgramPin(account->program_id);
		PG_TRY();
		{
			explain_event((ReturnSetInfo *) fcinfo->resultinfo, ledger, program,
						  LedgerHome(ledger, account), &event,
						  posted_for(ledger, posted, nposted, &event));
		}
		PG_FINALLY();
		{
			ProgramUnpin(program);
		}
		PG_END_TRY();
	}
	SPI_finish();
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * Checks of rules before they are saved
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_check_rule);

/* check_rule(name, event, kind, points, condition): compile or raise. */
Datum
loyalty_check_rule(PG_FUNCTION_ARGS)
{
	char	   *arguments[5];
	Numeric		constant;

	for (int i = 0; i < 5; i++)
		arguments[i] = PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
	if (arguments[0] == NULL || arguments[1] == NULL || arguments[2] == NULL ||
		arguments[3] == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_RULE),
				 errmsg("a rule needs a name, an event, a kind and points")));
	constant = ProgramCheckRule(arguments[0], arguments[1], arguments[2], arguments[3],
								arguments[4]);
	if (constant != NULL && !EarnIsAllowed(constant))
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_RULE),
				 errmsg("rule \"%s\" could never give its points: %s", arguments[0], arguments[3]),
				 errdetail("A rule gives a finite number that is not negative."),
				 errhint("loyalty.adjust takes points away.")));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(loyalty_rule_constant);

/* rule_constant(condition, event): the value of a condition that is constant. */
Datum
loyalty_rule_constant(PG_FUNCTION_ARGS)
{
	const char *value = ProgramConstant(text_to_cstring(PG_GETARG_TEXT_PP(0)),
										text_to_cstring(PG_GETARG_TEXT_PP(1)));

	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(value));
}
