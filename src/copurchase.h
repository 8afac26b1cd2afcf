/*
 * copurchase.h
 *	  Which items are bought together: exact counts of baskets, items and pairs
 *	  of items.
 *
 * A statistic has three forms.  The stored form, a CopHeader and what follows
 * it, is canonical: items ascending, and for every item a row of all items that
 * were bought with it, those below it and those above it, so that one item's
 * neighbours are one slice.  The wire form holds every pair once, in varints.
 * A CopBuilder takes in baskets and stored forms, and makes the stored form.
 *
 * Pure: neither SPI nor clock.  What a caller may do wrong comes back as a
 * CoreStatus: CORE_INVALID, integers met text; CORE_INSUFFICIENT, a count below
 * zero; CORE_TOO_MANY, beyond the memory allowed; CORE_OVERFLOW; CORE_CORRUPT.
 */
#ifndef LOYALTY_COPURCHASE_H
#define LOYALTY_COPURCHASE_H

#include "core.h"

#define COP_VERSION 1

/* items of one statistic are fewer than this */
#define COP_ITEM_LIMIT UINT32_C(0x7fffffff)

typedef enum CopKind
{
	COP_EMPTY,					/* no item was seen yet */
	COP_INTEGER,
	COP_TEXT
} CopKind;

/* the fixed part of the stored form; in the machine's own byte order */
typedef struct CopHeader
{
	uint8		version;
	uint8		kind;
	uint8		zero[2];
	uint32		nitems;
	int64		baskets;		/* with at least one item */
	int64		capped;			/* baskets too large to count their pairs */
	int64		capped_items;	/* and the items in those */
	int64		pairs;			/* distinct pairs */
	uint32		texts;			/* bytes of the items' texts */
	uint32		rows;			/* bytes of the rows */
} CopHeader;

/*
 * A stored form as it is read.  Behind the header stand, an element an item:
 * counts (int64), keys (int64 the integer, or uint32 where its text ends), middles
 * and ends (uint32, where in rows the upper half of a row begins and where it
 * ends); then the texts, then the rows.  Nothing is aligned.
 */
typedef struct CopView
{
	CopHeader	head;
	const uint8 *counts;
	const uint8 *keys;
	const uint8 *middles;
	const uint8 *ends;
	const uint8 *texts;
	const uint8 *rows;			/* NULL where only what stands before them was read */
} CopView;

/* reads one half of a row, or a whole one */
typedef struct CopRow
{
	const uint8 *at;
	const uint8 *end;
	uint32		next;			/* the least item that may come next */
	uint32		nitems;
} CopRow;

/* what all builders of a process may use together */
typedef struct CopBudget
{
	int64		used;
	int64		limit;
} CopBudget;

typedef struct CopItem
{
	int64		value;			/* the integer, or where its text begins */
	int64		count;			/* baskets that hold it */
	uint32		length;
	uint32		stamp;			/* the last basket that it was seen in */
} CopItem;

/* a stored form that is part of a builder */
typedef struct CopRun
{
	uint8	   *bytes;
	size_t		length;
	int64		sign;
	bool		owned;
	uint32	   *id;				/* of its items, in the builder */
	uint32		cursor;			/* the next of its items, while rows are made */
} CopRun;

typedef struct CopBuilder
{
	CopBudget  *budget;
	int64		charged;		/* of the budget, by this builder */
	CopKind		kind;
	uint32		max_items;		/* a larger basket counts no pairs */
	int64		baskets;
	int64		capped;
	int64		capped_items;

	CopItem    *item;
	size_t		nitems;
	size_t		item_room;
	uint8	   *text;
	size_t		ntext;
	size_t		text_room;
	uint64	   *slot;			/* open addressing: hash << 32 | id + 1 */
	size_t		nslots;

	/* baskets of two and more items: how many, and their ids */
	uint32	   *mark;
	size_t		nmarks;
	size_t		mark_room;
	size_t		basket_start;
	uint32		stamp;

	CopRun	   *run;
	size_t		nruns;
	size_t		run_room;
} CopBuilder;

/* copurchase.c: the builder */
extern void cop_init(CopBuilder *b, CopBudget *budget, uint32 max_items);
extern void cop_free(CopBuilder *b);
extern CoreStatus cop_charge(CopBuilder *b, int64 bytes);
extern CoreStatus cop_grow(CopBuilder *b, void **array, size_t *room, size_t need, size_t size);
extern CoreStatus cop_id_of_integer(CopBuilder *b, int64 value, uint32 *id);
extern CoreStatus cop_id_of_text(CopBuilder *b, const uint8 *text, size_t length, uint32 *id);
extern void cop_basket_begin(CopBuilder *b);
extern CoreStatus cop_basket_add(CopBuilder *b, uint32 id);
extern CoreStatus cop_basket_end(CopBuilder *b);
extern CoreStatus cop_add_stored(CopBuilder *b, uint8 *bytes, size_t length, int sign, bool owned);
extern CoreStatus cop_merge(CopBuilder *b, const CopBuilder *other);
extern CoreStatus cop_merge_items(CopBuilder *b, const CopBuilder *other, uint32 **map);
extern CoreStatus cop_replace(CopBuilder *b, uint8 *bytes, size_t length, uint32 *id);

/* copurchase_rows.c: from a builder to the stored form */
extern CoreStatus cop_finish(CopBuilder *b, size_t prefix, uint8 **bytes, size_t *length);
extern CoreStatus cop_collapse(CopBuilder *b);
extern size_t cop_put_entry(uint8 *at, uint32 delta, int64 count);

/* copurchase_form.c: reading the stored form, and the wire form */
extern CoreStatus cop_view(CopView *view, const uint8 *bytes, size_t length, bool with_rows);
extern size_t cop_directory_size(const CopHeader *head);
extern int64 cop_integer(const CopView *view, uint32 item);
extern CoreStatus cop_text(const CopView *view, uint32 item, const uint8 **text, size_t *length);
extern CoreStatus cop_row_range(const CopView *view, uint32 item, uint32 *start, uint32 *middle, uint32 *end);
extern CoreStatus cop_upper_row(const CopView *view, uint32 item, CopRow *row);
extern int	cop_row_number(CopRow *row, uint64 *value);
extern bool cop_find_integer(const CopView *view, int64 value, uint32 *item);
extern CoreStatus cop_find_text(const CopView *view, const uint8 *text, size_t length, bool *found, uint32 *item);
extern CoreStatus cop_to_wire(const CopView *view, uint8 **wire, size_t *length, size_t prefix);
extern CoreStatus cop_from_wire(const uint8 *wire, size_t length, size_t prefix, CopBuilder *owner,
								uint8 **bytes, size_t *stored);

/* Baskets that hold an item. */
static inline int64
cop_count(const CopView *view, uint32 item)
{
	int64		count;

	memcpy(&count, view->counts + 8 * (size_t) item, 8);
	return count;
}

/* Read the next entry of a row: 1, 0 at the end, -1 where the bytes are no row. */
static inline int
cop_row_next(CopRow *row, uint32 *item, int64 *count)
{
	uint64		value;

	if (row->at >= row->end)
		return 0;
	if (*row->at < 0x80)
		value = *row->at++;
	else if (!cop_row_number(row, &value))
		return -1;
	if (row->next >= row->nitems || (value >> 1) >= row->nitems - row->next)
		return -1;
	*item = row->next + (uint32) (value >> 1);
	row->next = *item + 1;
	*count = 1;
	if ((value & 1) == 0)
		return 1;
	if (row->at < row->end && *row->at < 0x80)
		value = *row->at++;
	else if (!cop_row_number(row, &value) || value > INT64_MAX - 2)
		return -1;
	*count = (int64) value + 2;
	return 1;
}

/* Compare two texts by their bytes, which in UTF-8 is by code point. */
static inline int
cop_compare_text(const uint8 *a, size_t na, const uint8 *b, size_t nb)
{
	int			order = memcmp(a, b, na < nb ? na : nb);

	return order != 0 ? order : (na > nb) - (na < nb);
}

#endif							/* LOYALTY_COPURCHASE_H */
