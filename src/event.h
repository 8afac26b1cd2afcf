/*
 * event.h
 *	  What happened, as the engine sees it: a row of a transaction table,
 *	  checked and with money exact.
 */
#ifndef LOYALTY_EVENT_H
#define LOYALTY_EVENT_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "product.h"
#include "program.h"

#define MONEY_DIGITS 4			/* money4 counts 1/10000 of a currency unit */

typedef struct EventLine
{
	Datum		sku;			/* 0: null */
	Datum		quantity;		/* numeric, 0: null */
	Datum		unit_price;		/* numeric, 0: null */
	int64		discount;		/* money4 */
	int64		amount;			/* money4, after its discount */
	int64		net;			/* money4, its share of what may earn */
	const Product *product;
} EventLine;

/* What is to be spent, as limits on redemptions see it */
typedef struct Spending
{
	const char *operation;		/* redeem, hold, transfer or claim */
	int64		points;			/* smallest units */
	Datum		money;			/* numeric, 0: null; likewise below */
	Datum		order_amount;	/* numeric */
	Datum		store;
	Datum		cashier;
	Datum		reference;
} Spending;

typedef struct Event
{
	RuleEvent	kind;			/* ON_PURCHASE, ON_ACTIVITY or ON_REDEMPTION */
	int64		source_id;
	bool		has_member;
	int64		member_id;
	int64		home_id;		/* the account that it earns into */
	TimestampTz occurred_at;
	TimestampTz recorded_at;
	bool		is_void;
	bool		refused;		/* gives no points, whatever the rules say */
	char	   *hold_reason;	/* its award waits for a person; NULL: it does not */
	char	   *hold_detail;
	Numeric		factor;			/* of its points; NULL: 1 */
	TimestampTz known_at;		/* decide with the rules known then; DT_NOEND: now */
	struct EventLimits *limits; /* velocity limits that apply to it; NULL: none are to be asked */
	struct EarnCaps *caps;		/* who is asked about capped rules; NULL: nobody */
	Datum		attributes;		/* jsonb, 0: null; likewise below */
	Datum		source;
	/* purchase */
	Datum		store;
	Datum		channel;
	Datum		currency;
	int64		total;			/* money4, in the programme's currency once converted */
	int64		tax;
	int64		shipping;
	int64		discount;
	int64		paid_points;
	int64		paid_gift_card;
	bool		converted;		/* money is in the programme's currency */
	int64		net;			/* what may earn; set by EventShare */
	int			nlines;
	EventLine  *line;
	/* activity */
	Datum		activity_kind;
	Datum		value;
	Datum		subject;
	/* redemption; its money is in total */
	const Spending *spending;	/* NULL: nothing is known of it but its member */
} Event;

typedef struct EventLayout EventLayout;

extern EventLayout *EventLayoutOf(TupleDesc desc, RuleEvent kind);
extern EventLayout *EventLayoutCreate(TupleDesc desc, RuleEvent kind);
extern void EventRead(const EventLayout *layout, TupleTableSlot *slot, Event *event);
extern void EventReadOrder(const EventLayout *layout, TupleTableSlot *slot, Event *event);
extern AttrNumber EventColumn(const EventLayout *layout, const char *column);
extern void EventConvert(Event *event, const Program *program);
extern void EventShare(Event *event, const Program *program);
extern int64 MoneyFromNumeric(Numeric value, const char *column, int64 source_id);

#endif							/* LOYALTY_EVENT_H */
