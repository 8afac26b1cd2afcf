/*
 * earn_facts.c
 *	  What rules may know of an event: sets the facts that some rule asks for.
 */
#include "earn_internal.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

/* Set a fact of the wide tuple. */
static void
set_fact(Program *program, Fact fact, Datum value)
{
	program->facts->tts_values[fact] = value;
	program->facts->tts_isnull[fact] = false;
}

/* Set a fact by reference, null where it is 0. */
static void
set_reference(Program *program, Fact fact, Datum value)
{
	program->facts->tts_values[fact] = value;
	program->facts->tts_isnull[fact] = value == 0;
}

/* Tell whether some rule reads a fact. */
static bool
wanted(const Program *program, Fact fact)
{
	return bms_is_member(fact, program->columns);
}

/* Money as a numeric. */
static Datum
money_datum(int64 money)
{
	return NumericGetDatum(int64_div_fast_to_numeric(money, MONEY_DIGITS));
}

/* The facts of a member's history. */
static void
set_history(Program *program, const PinnedFacts *pinned)
{
	int			tier = ProgramTierIndex(program, pinned->tier_id);

	set_reference(program, FACT_MEMBER_TIER,
				  tier == NO_TIER ? 0 : program->tier_info[tier].name_datum);
	set_fact(program, FACT_MEMBER_TIER_RANK,
			 Int32GetDatum(tier == NO_TIER ? 0 : program->tier[tier].rank));
	set_fact(program, FACT_MEMBER_PURCHASES, Int64GetDatum(pinned->purchases));
	if (wanted(program, FACT_MEMBER_SPEND))
		set_fact(program, FACT_MEMBER_SPEND, money_datum(pinned->spend));
	if (wanted(program, FACT_MEMBER_AVERAGE_ORDER) && pinned->purchases > 0)
		set_fact(program, FACT_MEMBER_AVERAGE_ORDER,
				 DirectFunctionCall2(numeric_div, money_datum(pinned->spend),
									 NumericGetDatum(EarnWhole(pinned->purchases))));
}

/* The row member. */
static void
set_member(Program *program, const MemberFacts *member, int32 day)
{
	set_reference(program, FACT_MEMBER_EXTERNAL_ID, member->external_id);
	if (wanted(program, FACT_MEMBER_JOINED_ON))
		set_fact(program, FACT_MEMBER_JOINED_ON,
				 DateADTGetDatum(ProgramDay(program, member->joined_at)));
	if (member->has_birthday)
		set_fact(program, FACT_MEMBER_BIRTHDAY, DateADTGetDatum(member->birthday));
	set_fact(program, FACT_MEMBER_IS_BIRTHDAY,
			 BoolGetDatum(member->has_birthday &&
						  calendar_is_anniversary(member->birthday, day)));
	set_fact(program, FACT_MEMBER_STAFF, BoolGetDatum(member->staff));
	set_reference(program, FACT_MEMBER_ATTRIBUTES, member->attributes);
	set_history(program, &member->pinned);
}

/* The units of all lines. */
static Datum
total_quantity(const Event *event)
{
	Numeric		sum = EarnWhole(0);

	for (int i = 0; i < event->nlines; i++)
	{
		if (event->line[i].quantity != 0)
			sum = EarnAdd(sum, DatumGetNumeric(event->line[i].quantity));
	}
	return NumericGetDatum(sum);
}

/* The row purchase. */
static void
set_purchase(Program *program, const Event *event, const MemberFacts *member,
			 Timestamp local, int32 day)
{
	set_fact(program, FACT_PURCHASE_OCCURRED_AT, TimestampGetDatum(local));
	set_fact(program, FACT_PURCHASE_DAY, DateADTGetDatum(day));
	set_fact(program, FACT_PURCHASE_TIME,
			 TimeADTGetDatum(local - (Timestamp) day * USECS_PER_DAY));
	set_fact(program, FACT_PURCHASE_WEEKDAY, Int32GetDatum(calendar_weekday(day)));
	set_reference(program, FACT_PURCHASE_STORE, event->store);
	set_reference(program, FACT_PURCHASE_CHANNEL, event->channel);
	set_reference(program, FACT_PURCHASE_CURRENCY, event->currency);
	set_reference(program, FACT_PURCHASE_ATTRIBUTES, event->attributes);
	set_reference(program, FACT_PURCHASE_SOURCE, event->source);
	set_fact(program, FACT_PURCHASE_AMOUNT, money_datum(event->net));
	if (wanted(program, FACT_PURCHASE_TOTAL))
		set_fact(program, FACT_PURCHASE_TOTAL, money_datum(event->total));
	if (wanted(program, FACT_PURCHASE_SHIPPING))
		set_fact(program, FACT_PURCHASE_SHIPPING, money_datum(event->shipping));
	if (wanted(program, FACT_PURCHASE_DISCOUNT))
		set_fact(program, FACT_PURCHASE_DISCOUNT, money_datum(event->discount));
	if (wanted(program, FACT_PURCHASE_QUANTITY))
		set_fact(program, FACT_PURCHASE_QUANTITY, total_quantity(event));
	set_fact(program, FACT_PURCHASE_NUMBER, Int64GetDatum(member->pinned.purchases + 1));
	set_fact(program, FACT_PURCHASE_LINE_COUNT, Int32GetDatum(event->nlines));
}

/* The row activity. */
static void
set_activity(Program *program, const Event *event, Timestamp local, int32 day)
{
	set_reference(program, FACT_ACTIVITY_KIND, event->activity_kind);
	set_reference(program, FACT_ACTIVITY_VALUE, event->value);
	set_reference(program, FACT_ACTIVITY_SUBJECT, event->subject);
	set_reference(program, FACT_ACTIVITY_ATTRIBUTES, event->attributes);
	set_reference(program, FACT_ACTIVITY_SOURCE, event->source);
	set_fact(program, FACT_ACTIVITY_OCCURRED_AT, TimestampGetDatum(local));
	set_fact(program, FACT_ACTIVITY_DAY, DateADTGetDatum(day));
	set_fact(program, FACT_ACTIVITY_TIME,
			 TimeADTGetDatum(local - (Timestamp) day * USECS_PER_DAY));
	set_fact(program, FACT_ACTIVITY_WEEKDAY, Int32GetDatum(calendar_weekday(day)));
}

/* The row redemption. */
static void
set_redemption(Program *program, const Spending *spending, Timestamp local, int32 day)
{
	if (spending != NULL)
	{
		set_fact(program, FACT_REDEMPTION_OPERATION, CStringGetTextDatum(spending->operation));
		set_fact(program, FACT_REDEMPTION_POINTS, Int64GetDatum(spending->points));
		set_reference(program, FACT_REDEMPTION_MONEY, spending->money);
		set_reference(program, FACT_REDEMPTION_ORDER_AMOUNT, spending->order_amount);
		set_reference(program, FACT_REDEMPTION_STORE, spending->store);
		set_reference(program, FACT_REDEMPTION_CASHIER, spending->cashier);
		set_reference(program, FACT_REDEMPTION_REFERENCE, spending->reference);
	}
	set_fact(program, FACT_REDEMPTION_OCCURRED_AT, TimestampGetDatum(local));
	set_fact(program, FACT_REDEMPTION_DAY, DateADTGetDatum(day));
	set_fact(program, FACT_REDEMPTION_TIME,
			 TimeADTGetDatum(local - (Timestamp) day * USECS_PER_DAY));
	set_fact(program, FACT_REDEMPTION_WEEKDAY, Int32GetDatum(calendar_weekday(day)));
}

/* The rows line and product. */
void
EarnSetLine(Program *program, const EventLine *line)
{
	const Product *product = line->product;
	bool		known = product != NULL && product->known;

	set_reference(program, FACT_LINE_SKU, line->sku);
	set_reference(program, FACT_LINE_QUANTITY, line->quantity);
	set_reference(program, FACT_LINE_UNIT_PRICE, line->unit_price);
	set_fact(program, FACT_LINE_AMOUNT, money_datum(line->net));
	if (wanted(program, FACT_LINE_DISCOUNT))
		set_fact(program, FACT_LINE_DISCOUNT, money_datum(line->discount));
	set_reference(program, FACT_PRODUCT_SKU, known ? product->sku : 0);
	set_reference(program, FACT_PRODUCT_CATEGORY, known ? product->category : 0);
	set_reference(program, FACT_PRODUCT_BRAND, known ? product->brand : 0);
	set_reference(program, FACT_PRODUCT_MARGIN, known ? product->margin : 0);
	set_reference(program, FACT_PRODUCT_PARTNER, known ? product->partner : 0);
	program->facts->tts_values[FACT_PRODUCT_OWN_BRAND] = BoolGetDatum(known && product->own_brand);
	program->facts->tts_isnull[FACT_PRODUCT_OWN_BRAND] = !known;
}

/* Fill the facts of the event and its member. */
void
EarnSetFacts(Work *work)
{
	Program    *program = work->program;
	Timestamp	local = ProgramLocal(program, work->event->occurred_at);
	int32		day = ProgramDay(program, work->event->occurred_at);

	ExecClearTuple(program->facts);
	memset(program->facts->tts_isnull, true, sizeof(bool) * FACT_COUNT);
	set_member(program, work->member, day);
	if (work->event->kind == ON_ACTIVITY)
		set_activity(program, work->event, local, day);
	else if (work->event->kind == ON_REDEMPTION)
		set_redemption(program, work->event->spending, local, day);
	else
		set_purchase(program, work->event, work->member, local, day);
	ExecStoreVirtualTuple(program->facts);
}
