/*
 * event.c
 *	  Rows of the transaction tables as events: columns by name, amounts exact
 *	  and plausible, lines that add up.
 *
 * Owns the checks of what a shop may claim to have happened (LY1xx).  Knows
 * nothing of rules' results, points or the ledger.
 */
#include "event.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "compat.h"
#include "core.h"
#include "errors.h"
#include "split.h"

#define MAX_MONEY		INT64CONST(10000000000000000)	/* 10^12 units, as money4 */
#define MAX_LINES		10000
#define MAX_EARLY_DAYS	1		/* how far in the future a till's clock may be */

typedef enum Column
{
	COLUMN_ID,
	COLUMN_MEMBER,
	COLUMN_OCCURRED_AT,
	COLUMN_RECORDED_AT,
	COLUMN_STATUS,
	COLUMN_ATTRIBUTES,
	COLUMN_SOURCE,
	COLUMN_STORE,
	COLUMN_CHANNEL,
	COLUMN_CURRENCY,
	COLUMN_AMOUNT,
	COLUMN_TAX,
	COLUMN_SHIPPING,
	COLUMN_DISCOUNT,
	COLUMN_PAID_WITH_POINTS,
	COLUMN_PAID_WITH_GIFT_CARD,
	COLUMN_LINES,
	COLUMN_KIND,
	COLUMN_VALUE,
	COLUMN_SUBJECT,
	COLUMN_COUNT
} Column;

struct EventLayout
{
	RuleEvent	kind;
	AttrNumber	attnum[COLUMN_COUNT];
	TupleDesc	desc;
};

static const char *const column_name[COLUMN_COUNT] = {
	"", "member_id", "occurred_at", "recorded_at", "status", "attributes", "source",
	"store", "channel", "currency", "amount", "tax", "shipping", "discount",
	"paid_with_points", "paid_with_gift_card", "lines",
	"kind", "value", "subject"
};

/* Find a column by name. */
static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute->attnum;
	}
	elog(ERROR, "column \"%s\" of a transaction table is missing", name);
}

/* Find every column of a transaction table. */
static void
fill_layout(EventLayout *layout, TupleDesc desc, RuleEvent kind)
{
	int			from = kind == ON_PURCHASE ? COLUMN_STORE : COLUMN_KIND;
	int			to = kind == ON_PURCHASE ? COLUMN_LINES : COLUMN_SUBJECT;

	layout->kind = kind;
	layout->desc = desc;
	layout->attnum[COLUMN_ID] =
		find_column(desc, kind == ON_PURCHASE ? "purchase_id" : "activity_id");
	for (int column = COLUMN_MEMBER; column <= COLUMN_SOURCE; column++)
		layout->attnum[column] = find_column(desc, column_name[column]);
	for (int column = from; column <= to; column++)
		layout->attnum[column] = find_column(desc, column_name[column]);
}

/* The layout of a transaction table, from the cache where no relation changed since. */
EventLayout *
EventLayoutOf(TupleDesc desc, RuleEvent kind)
{
	static EventLayout cached[RULE_EVENTS];	/* filled in place: an outer statement may be using it */
	static uint64 generation[RULE_EVENTS];

	if (cached[kind].desc == NULL || generation[kind] != ProgramRelcacheGeneration())
	{
		fill_layout(&cached[kind], desc, kind);
		generation[kind] = ProgramRelcacheGeneration();
	}
	cached[kind].desc = desc;
	return &cached[kind];
}

/* Map the columns of a transaction table. */
EventLayout *
EventLayoutCreate(TupleDesc desc, RuleEvent kind)
{
	EventLayout *layout = palloc0(sizeof(EventLayout));

	fill_layout(layout, desc, kind);
	return layout;
}

/* The attribute number of a named column, for sorting. */
AttrNumber
EventColumn(const EventLayout *layout, const char *column)
{
	if (strcmp(column, "id") == 0)
		return layout->attnum[COLUMN_ID];
	return find_column(layout->desc, column);
}

/* Raise LY101 about one amount. */
static void
raise_amount(const char *column, int64 source_id, Numeric value, const char *expected)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value)));

	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_AMOUNT),
			 errmsg("%s of transaction " INT64_FORMAT " is not valid", column, source_id),
			 errdetail("Expected %s; got %s.", expected,
					   strlen(text) > 60 ? "a number of over 60 digits" : text),
			 errhint("Correct the row and insert it again; nothing of this statement was kept.")));
}

/* Convert an amount of money exactly: at most four decimals, not negative, not absurd. */
int64
MoneyFromNumeric(Numeric value, const char *column, int64 source_id)
{
	Datum		scaled;
	Datum		whole;
	int64		result;

	if (numeric_is_nan(value) || numeric_is_inf(value))
		raise_amount(column, source_id, value, "a finite amount");
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, NumericGetDatum(value),
										 NumericGetDatum(int64_to_numeric(0)))))
		raise_amount(column, source_id, value, "an amount that is not negative");
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(value),
										 NumericGetDatum(int64_to_numeric(MAX_MONEY / 10000)))))
		raise_amount(column, source_id, value, "an amount up to 1000000000000");
	scaled = DirectFunctionCall2(numeric_mul, NumericGetDatum(value),
								 NumericGetDatum(int64_to_numeric(10000)));
	whole = DirectFunctionCall2(numeric_trunc, scaled, Int32GetDatum(0));
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, scaled, whole)))
		raise_amount(column, source_id, value, "at most four decimals");
	result = DatumGetInt64(DirectFunctionCall1(numeric_int8, whole));
	return result;
}

/* Read a column, 0 where it is null; varlena values are detoasted. */
static Datum
read_column(const EventLayout *layout, TupleTableSlot *slot, Column column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, layout->attnum[column], &isnull);

	if (isnull)
		return (Datum) 0;
	if (TupleDescAttr(layout->desc, layout->attnum[column] - 1)->attlen == -1)
		return PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
	return value;
}

/* Read an amount, 0 where it is null. */
static int64
read_money(const EventLayout *layout, TupleTableSlot *slot, Column column, int64 source_id)
{
	Datum		value = read_column(layout, slot, column);

	return value == 0 ? 0 :
		MoneyFromNumeric(DatumGetNumeric(value), column_name[column], source_id);
}

/* Check the time at which an event claims to have occurred. */
static void
check_time(const Event *event)
{
	static const TimestampTz earliest = -(INT64CONST(100) * 36525 * USECS_PER_DAY / 100);

	if (TIMESTAMP_NOT_FINITE(event->recorded_at) || TIMESTAMP_NOT_FINITE(event->occurred_at) ||
		event->occurred_at < earliest ||
		event->occurred_at - MAX_EARLY_DAYS * USECS_PER_DAY > event->recorded_at)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_TIME),
				 errmsg("occurred_at of transaction " INT64_FORMAT " is out of range",
						event->source_id),
				 errdetail("Expected a time from the year 1900 to one day after recorded_at; got %s.",
						   timestamptz_to_str(event->occurred_at)),
				 errhint("Check the clock and the time zone of the till.")));
}

/* Raise LY106 about one line. */
static void
raise_line(const Event *event, int line, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_LINE),
			 errmsg("line %d of purchase " INT64_FORMAT " is not valid", line, event->source_id),
			 errdetail("%s", detail)));
}

/* What a line costs where its amount is not given: quantity x unit price - discount. */
static int64
computed_amount(const Event *event, int number, const EventLine *line)
{
	Datum		amount;

	if (line->quantity == 0 || line->unit_price == 0)
		raise_line(event, number, "Expected an amount, or a quantity and a unit price.");
	amount = DirectFunctionCall2(numeric_mul, line->quantity, line->unit_price);
	amount = DirectFunctionCall2(numeric_sub, amount,
								 NumericGetDatum(int64_div_fast_to_numeric(line->discount,
																		   MONEY_DIGITS)));
	return MoneyFromNumeric(DatumGetNumeric(amount), "lines.amount", event->source_id);
}

/* Refuse a quantity or price that is negative or not finite. */
static void
check_figure(const Event *event, int number, Datum figure, const char *name)
{
	Numeric		value;

	if (figure == 0)
		return;
	value = DatumGetNumeric(figure);
	if (numeric_is_nan(value) || numeric_is_inf(value) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, figure,
										 NumericGetDatum(int64_to_numeric(0)))))
		raise_line(event, number,
				   psprintf("Expected a finite %s that is not negative.", name));
}

/* Read one element of lines. */
static void
read_line(Event *event, int number, HeapTupleHeader header, TupleDesc desc)
{
	EventLine  *line = &event->line[number - 1];
	HeapTupleData tuple;
	Datum	   *values = palloc0(sizeof(Datum) * Max(desc->natts, 5));	/* somebody may have added attributes */
	bool	   *nulls = palloc0(sizeof(bool) * Max(desc->natts, 5));

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);

	line->product = NULL;
	line->net = 0;
	line->sku = nulls[0] ? 0 : PointerGetDatum(PG_DETOAST_DATUM_PACKED(values[0]));
	line->quantity = nulls[1] ? 0 : NumericGetDatum(DatumGetNumeric(values[1]));
	line->unit_price = nulls[2] ? 0 : NumericGetDatum(DatumGetNumeric(values[2]));
	check_figure(event, number, line->quantity, "quantity");
	check_figure(event, number, line->unit_price, "unit price");
	line->discount = nulls[4] ? 0 :
		MoneyFromNumeric(DatumGetNumeric(values[4]), "lines.discount", event->source_id);
	line->amount = nulls[3] ? computed_amount(event, number, line) :
		MoneyFromNumeric(DatumGetNumeric(values[3]), "lines.amount", event->source_id);
	pfree(values);
	pfree(nulls);
}

/* Read the array of lines. */
static void
read_lines(Event *event, ArrayType *array)
{
	Oid			type = ARR_ELEMTYPE(array);
	Datum	   *elements;
	bool	   *nulls;
	TupleDesc	desc;

	deconstruct_array(array, type, -1, false, TYPALIGN_DOUBLE, &elements, &nulls, &event->nlines);
	if (event->nlines > MAX_LINES)
		raise_line(event, MAX_LINES + 1,
				   psprintf("A purchase has at most %d lines.", MAX_LINES));
	if (event->nlines == 0)
		return;
	desc = lookup_rowtype_tupdesc(type, -1);
	event->line = palloc(sizeof(EventLine) * event->nlines);
	for (int i = 0; i < event->nlines; i++)
	{
		if (nulls[i])
			raise_line(event, i + 1, "Expected a line; got null.");
		read_line(event, i + 1, DatumGetHeapTupleHeader(elements[i]), desc);
	}
	ReleaseTupleDesc(desc);
}

/* Print money for a message. */
static char *
money_text(int64 amount)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out,
											   NumericGetDatum(int64_div_fast_to_numeric(amount, MONEY_DIGITS))));
}

/* Check that the lines, less the order's discount, plus shipping, are the amount. */
static void
check_sum(const Event *event)
{
	int64		sum = event->shipping - event->discount;

	if (event->nlines == 0)
		return;
	for (int i = 0; i < event->nlines; i++)
	{
		if (core_add64(sum, event->line[i].amount, &sum) != CORE_OK || sum > MAX_MONEY)
			raise_line(event, i + 1, "The sum of the lines is out of range.");
	}
	if (sum != event->total)
		ereport(ERROR,
				(errcode(ERRCODE_LY_LINES_DISAGREE),
				 errmsg("lines of purchase " INT64_FORMAT " do not add up to its amount",
						event->source_id),
				 errdetail("The %d lines, less the order's discount, plus shipping, are %s; amount is %s.",
						   event->nlines, money_text(sum), money_text(event->total)),
				 errhint("A line's amount is what it costs after its own discount; leave it null for quantity x unit_price - discount.")));
}

/* Read the columns that only a purchase has. */
static void
read_purchase(const EventLayout *layout, TupleTableSlot *slot, Event *event)
{
	int64		id = event->source_id;
	Datum		lines;
	Datum		amount = read_column(layout, slot, COLUMN_AMOUNT);

	event->store = read_column(layout, slot, COLUMN_STORE);
	event->channel = read_column(layout, slot, COLUMN_CHANNEL);
	event->currency = read_column(layout, slot, COLUMN_CURRENCY);
	if (amount == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_AMOUNT),
				 errmsg("amount of transaction " INT64_FORMAT " is null", id)));
	event->total = MoneyFromNumeric(DatumGetNumeric(amount), "amount", id);
	event->tax = read_money(layout, slot, COLUMN_TAX, id);
	event->shipping = read_money(layout, slot, COLUMN_SHIPPING, id);
	event->discount = read_money(layout, slot, COLUMN_DISCOUNT, id);
	event->paid_points = read_money(layout, slot, COLUMN_PAID_WITH_POINTS, id);
	event->paid_gift_card = read_money(layout, slot, COLUMN_PAID_WITH_GIFT_CARD, id);
	if (event->tax > event->total || event->shipping > event->total ||
		event->paid_points + event->paid_gift_card > event->total)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_AMOUNT),
				 errmsg("parts of purchase " INT64_FORMAT " exceed its amount", id),
				 errdetail("Amount %s contains tax %s, shipping %s, paid with points %s and gift cards %s.",
						   money_text(event->total), money_text(event->tax),
						   money_text(event->shipping), money_text(event->paid_points),
						   money_text(event->paid_gift_card))));
	event->nlines = 0;
	event->converted = false;
	event->line = NULL;
	lines = read_column(layout, slot, COLUMN_LINES);
	if (lines != 0)
		read_lines(event, DatumGetArrayTypeP(lines));
	check_sum(event);
}

/* Read the columns that only an activity has. */
static void
read_activity(const EventLayout *layout, TupleTableSlot *slot, Event *event)
{
	event->activity_kind = read_column(layout, slot, COLUMN_KIND);
	event->value = read_column(layout, slot, COLUMN_VALUE);
	if (event->activity_kind == 0 ||
		VARSIZE_ANY_EXHDR(DatumGetPointer(event->activity_kind)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_ACTIVITY),
				 errmsg("kind of activity " INT64_FORMAT " is empty", event->source_id)));
	event->subject = read_column(layout, slot, COLUMN_SUBJECT);
	if (event->value != 0 &&
		(numeric_is_nan(DatumGetNumeric(event->value)) || numeric_is_inf(DatumGetNumeric(event->value))))
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_ACTIVITY),
				 errmsg("value of activity " INT64_FORMAT " is not a finite number",
						event->source_id)));
}

/* Read what decides the order of events alone. */
void
EventReadOrder(const EventLayout *layout, TupleTableSlot *slot, Event *event)
{
	bool		isnull;
	Datum		member = slot_getattr(slot, layout->attnum[COLUMN_MEMBER], &isnull);

	memset(event, 0, sizeof(Event));
	event->kind = layout->kind;
	event->known_at = DT_NOEND;
	event->has_member = !isnull;
	event->member_id = isnull ? 0 : DatumGetInt64(member);
	event->source_id = DatumGetInt64(slot_getattr(slot, layout->attnum[COLUMN_ID], &isnull));
	event->occurred_at =
		DatumGetTimestampTz(slot_getattr(slot, layout->attnum[COLUMN_OCCURRED_AT], &isnull));
	event->recorded_at =
		DatumGetTimestampTz(slot_getattr(slot, layout->attnum[COLUMN_RECORDED_AT], &isnull));
}

/* Tell completed from void; nothing else is a status. */
static bool
is_void_status(Datum status, int64 source_id)
{
	struct varlena *word = (struct varlena *) DatumGetPointer(status);

	if (word != NULL && VARSIZE_ANY_EXHDR(word) == 9 && memcmp(VARDATA_ANY(word), "completed", 9) == 0)
		return false;
	if (word != NULL && VARSIZE_ANY_EXHDR(word) == 4 && memcmp(VARDATA_ANY(word), "void", 4) == 0)
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_STATUS),
			 errmsg("status of transaction " INT64_FORMAT " is not valid", source_id),
			 errhint("A status is completed or void.")));
}

/* Read and check an event; what it points to lives in the slot or the current context. */
void
EventRead(const EventLayout *layout, TupleTableSlot *slot, Event *event)
{
	Datum		status;

	EventReadOrder(layout, slot, event);
	event->limits = NULL;
	event->spending = NULL;
	check_time(event);
	status = read_column(layout, slot, COLUMN_STATUS);
	event->is_void = is_void_status(status, event->source_id);
	event->attributes = read_column(layout, slot, COLUMN_ATTRIBUTES);
	event->source = read_column(layout, slot, COLUMN_SOURCE);
	if (layout->kind == ON_PURCHASE)
		read_purchase(layout, slot, event);
	else
		read_activity(layout, slot, event);
}

/* Multiply money by a rate, rounding half away from zero to money4. */
static int64
convert_money(int64 amount, Numeric rate, int64 source_id)
{
	Datum		product = DirectFunctionCall2(numeric_mul,
											  NumericGetDatum(int64_to_numeric(amount)),
											  NumericGetDatum(rate));
	Datum		rounded = DirectFunctionCall2(numeric_round, product, Int32GetDatum(0));

	if (DatumGetBool(DirectFunctionCall2(numeric_gt, rounded,
										 NumericGetDatum(int64_to_numeric(MAX_MONEY)))))
		raise_amount("amount", source_id, DatumGetNumeric(rounded),
					 "a converted amount up to 1000000000000");
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, rounded));
}

/* Convert a purchase's money to the programme's currency by the rate of its day. */
void
EventConvert(Event *event, const Program *program)
{
	text	   *currency = (text *) DatumGetPointer(event->currency);
	char	   *code;
	Numeric		rate;

	if (currency == NULL || event->kind != ON_PURCHASE || event->converted)
		return;
	if (VARSIZE_ANY_EXHDR(currency) == 3 &&
		memcmp(VARDATA_ANY(currency), program->currency, 3) == 0)
		return;
	code = text_to_cstring(currency);
	rate = ProgramRate(program, code, ProgramDay(program, event->occurred_at));
	if (rate == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_CURRENCY_MISMATCH),
				 errmsg("purchase " INT64_FORMAT " is in %s, and there is no rate for its day",
						event->source_id, strlen(code) == 3 ? code : "an unknown currency"),
				 errdetail("Programme \"%s\" reckons in %s.", program->name, program->currency),
				 errhint("Insert the rate of that day into loyalty.exchange_rate.")));
	event->total = convert_money(event->total, rate, event->source_id);
	event->tax = convert_money(event->tax, rate, event->source_id);
	event->shipping = convert_money(event->shipping, rate, event->source_id);
	event->discount = convert_money(event->discount, rate, event->source_id);
	event->paid_points = convert_money(event->paid_points, rate, event->source_id);
	event->paid_gift_card = convert_money(event->paid_gift_card, rate, event->source_id);
	for (int i = 0; i < event->nlines; i++)
		event->line[i].amount = convert_money(event->line[i].amount, rate, event->source_id);
	event->converted = true;
}

/* What of a purchase's total may earn, before articles are excluded. */
static int64
earning_total(const Event *event, const Program *program)
{
	int64		net = event->total;

	if (!program->earn_on_tax)
		net -= event->tax;
	if (!program->earn_on_shipping)
		net -= event->shipping;
	if (!program->earn_on_points)
		net -= event->paid_points;
	if (!program->earn_on_gift_card)
		net -= event->paid_gift_card;
	return Max(net, 0);
}

/*
 * Set what of a purchase may earn, and each line's share of it.
 *
 * The order's deductions are spread over the lines in proportion to their
 * amounts by largest remainder; then excluded articles fall out.
 */
void
EventShare(Event *event, const Program *program)
{
	int64	   *weight;
	int64	   *share;

	event->net = earning_total(event, program);
	if (event->nlines == 0)
		return;
	weight = palloc(sizeof(int64) * event->nlines * 2);
	share = weight + event->nlines;
	for (int i = 0; i < event->nlines; i++)
		weight[i] = event->line[i].amount;
	split_largest_remainder(event->net, weight, event->nlines, share);
	event->net = 0;
	for (int i = 0; i < event->nlines; i++)
	{
		const Product *product = event->line[i].product;

		event->line[i].net = (product != NULL && product->excluded) ? 0 : share[i];
		event->net += event->line[i].net;
	}
	pfree(weight);
}
