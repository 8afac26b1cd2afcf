/*
 * copurchase.c
 *	  The builder of co-purchase statistics: takes in baskets and stored
 *	  statistics, within a budget of memory.
 *
 * Baskets are kept as they came, as small numbers of items: four bytes an item.
 * Pairs are counted only when rows are made, item by item, in counters that fit
 * the processor's caches (copurchase_rows.c).  When the budget fills, what there
 * is becomes one stored form and the baskets are forgotten: still exact.
 */
#include "copurchase.h"

#define FIRST_ROOM 16
#define MAX_RUNS 1024

/* Begin with nothing. */
void
cop_init(CopBuilder *b, CopBudget *budget, uint32 max_items)
{
	memset(b, 0, sizeof(*b));
	b->budget = budget;
	b->max_items = max_items;
}

/* Take from the budget, or give back what is negative. */
CoreStatus
cop_charge(CopBuilder *b, int64 bytes)
{
	if (bytes > 0 && b->budget->used > b->budget->limit - bytes)
		return CORE_TOO_MANY;
	b->budget->used += bytes;
	b->charged += bytes;
	return CORE_OK;
}

/* Make room for so many elements, by a quarter more each time once there are many. */
CoreStatus
cop_grow(CopBuilder *b, void **array, size_t *room, size_t need, size_t size)
{
	size_t		more = *room * size < 65536 ? *room * 2 : *room + *room / 4;
	CoreStatus	status;

	if (need <= *room)
		return CORE_OK;
	if (more < need)
		more = need < FIRST_ROOM ? FIRST_ROOM : need;
	status = cop_charge(b, (int64) ((more - *room) * size));
	if (status != CORE_OK && more > need)
	{
		more = need;
		status = cop_charge(b, (int64) ((more - *room) * size));
	}
	if (status != CORE_OK)
		return status;
	*array = *array == NULL ? core_alloc_huge(more * size) : core_realloc_huge(*array, more * size);
	*room = more;
	return CORE_OK;
}

/* Free an array, and give back what it took of the budget. */
static void
give_back(CopBuilder *b, void *array, size_t room, size_t size)
{
	if (array == NULL)
		return;
	core_free(array);
	(void) cop_charge(b, -(int64) (room * size));
}

static void
free_runs(CopBuilder *b)
{
	for (size_t i = 0; i < b->nruns; i++)
	{
		CopRun	   *run = &b->run[i];
		CopView		view;

		if (cop_view(&view, run->bytes, run->length, true) == CORE_OK)
			give_back(b, run->id, view.head.nitems, sizeof(uint32));
		if (run->owned)
			give_back(b, run->bytes, run->length, 1);
	}
	b->nruns = 0;
}

/* Free all that a builder holds. */
void
cop_free(CopBuilder *b)
{
	free_runs(b);
	give_back(b, b->run, b->run_room, sizeof(CopRun));
	give_back(b, b->mark, b->mark_room, sizeof(uint32));
	give_back(b, b->slot, b->nslots, sizeof(uint64));
	give_back(b, b->text, b->text_room, 1);
	give_back(b, b->item, b->item_room, sizeof(CopItem));
	cop_init(b, b->budget, b->max_items);
}

/* ------------------------------------------------------------------------
 * Items
 * ------------------------------------------------------------------------ */

static inline uint32
hash_integer(int64 value)
{
	uint64		hash = ((uint64) value + UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xBF58476D1CE4E5B9);

	hash = (hash ^ (hash >> 29)) * UINT64_C(0x94D049BB133111EB);
	return (uint32) (hash >> 32);
}

static inline uint32
hash_text(const uint8 *text, size_t length)
{
	uint64		hash = length * UINT64_C(0x9E3779B97F4A7C15);
	uint64		word;

	for (; length >= 8; length -= 8, text += 8)
	{
		memcpy(&word, text, 8);
		hash = (hash ^ word) * UINT64_C(0xBF58476D1CE4E5B9);
		hash ^= hash >> 32;
	}
	word = 0;
	memcpy(&word, text, length);
	hash = (hash ^ word) * UINT64_C(0x94D049BB133111EB);
	hash = (hash ^ (hash >> 29)) * UINT64_C(0xBF58476D1CE4E5B9);
	return (uint32) (hash >> 32);
}

/* Double the hash table. */
static CoreStatus
grow_slots(CopBuilder *b)
{
	size_t		n = b->nslots == 0 ? 2 * FIRST_ROOM : b->nslots * 2;
	uint64	   *slot;
	CoreStatus	status = cop_charge(b, (int64) (n * sizeof(uint64)));

	if (status != CORE_OK)
		return status;
	slot = core_alloc_huge(n * sizeof(uint64));
	memset(slot, 0, n * sizeof(uint64));
	for (size_t i = 0; i < b->nslots; i++)
	{
		size_t		at = (size_t) (b->slot[i] >> 32) & (n - 1);

		if (b->slot[i] == 0)
			continue;
		while (slot[at] != 0)
			at = (at + 1) & (n - 1);
		slot[at] = b->slot[i];
	}
	give_back(b, b->slot, b->nslots, sizeof(uint64));
	b->slot = slot;
	b->nslots = n;
	return CORE_OK;
}

/* Whether an item is this integer, or where text is given this text. */
static inline bool
is_item(const CopBuilder *b, const CopItem *item, int64 value, const uint8 *text, size_t length)
{
	if (text == NULL)
		return item->value == value;
	return item->length == length && memcmp(b->text + item->value, text, length) == 0;
}

/* Append an item that is not there yet. */
static CoreStatus
new_item(CopBuilder *b, int64 value, const uint8 *text, size_t length)
{
	CopItem    *item;
	CoreStatus	status = cop_grow(b, (void **) &b->item, &b->item_room, b->nitems + 1, sizeof(CopItem));

	if (status == CORE_OK && text != NULL)
		status = cop_grow(b, (void **) &b->text, &b->text_room, b->ntext + length + 1, 1);
	if (status == CORE_OK && (b->nitems >= COP_ITEM_LIMIT || b->ntext + length > UINT32_MAX))
		status = CORE_TOO_MANY;
	if (status != CORE_OK)
		return status;
	item = &b->item[b->nitems++];
	item->value = value;
	item->count = 0;
	item->length = (uint32) length;
	item->stamp = 0;
	if (text != NULL)
	{
		item->value = (int64) b->ntext;
		memcpy(b->text + b->ntext, text, length);
		b->ntext += length;
	}
	return CORE_OK;
}

/* The number of an item; a new one where it was not seen before. */
static CoreStatus
find_or_add(CopBuilder *b, CopKind kind, uint32 hash, int64 value, const uint8 *text, size_t length, uint32 *id)
{
	CoreStatus	status;
	size_t		at;

	if (b->kind != kind)
	{
		if (b->kind != COP_EMPTY)
			return CORE_INVALID;
		b->kind = kind;
	}
	if (2 * (b->nitems + 1) > b->nslots && (status = grow_slots(b)) != CORE_OK)
		return status;
	for (at = hash & (b->nslots - 1); b->slot[at] != 0; at = (at + 1) & (b->nslots - 1))
	{
		*id = (uint32) b->slot[at] - 1;
		if ((uint32) (b->slot[at] >> 32) == hash && is_item(b, &b->item[*id], value, text, length))
			return CORE_OK;
	}
	status = new_item(b, value, text, length);
	if (status != CORE_OK)
		return status;
	*id = (uint32) b->nitems - 1;
	b->slot[at] = (uint64) hash << 32 | (*id + 1);
	return CORE_OK;
}

CoreStatus
cop_id_of_integer(CopBuilder *b, int64 value, uint32 *id)
{
	return find_or_add(b, COP_INTEGER, hash_integer(value), value, NULL, 0, id);
}

CoreStatus
cop_id_of_text(CopBuilder *b, const uint8 *text, size_t length, uint32 *id)
{
	return find_or_add(b, COP_TEXT, hash_text(text, length), 0, text, length, id);
}

/* ------------------------------------------------------------------------
 * Baskets
 * ------------------------------------------------------------------------ */

/* Begin a basket: what cop_basket_add names until cop_basket_end is in it. */
void
cop_basket_begin(CopBuilder *b)
{
	b->basket_start = b->nmarks;
	if (++b->stamp == 0)
	{
		for (size_t i = 0; i < b->nitems; i++)
			b->item[i].stamp = 0;
		b->stamp = 1;
	}
}

/* Put an item into the basket, once. */
CoreStatus
cop_basket_add(CopBuilder *b, uint32 id)
{
	CopItem    *item = &b->item[id];
	CoreStatus	status;

	if (item->stamp == b->stamp)
		return CORE_OK;
	item->stamp = b->stamp;
	item->count++;
	/* room for the number of items too, which is written in the end */
	if (b->nmarks + 2 > b->mark_room &&
		(status = cop_grow(b, (void **) &b->mark, &b->mark_room, b->nmarks + 2, sizeof(uint32))) != CORE_OK)
		return status;
	if (b->nmarks == b->basket_start)
		b->nmarks++;
	b->mark[b->nmarks++] = id;
	return CORE_OK;
}

/* Make one stored form of all there is, when half of the budget is used and it is worth the while. */
static CoreStatus
collapse_when_full(CopBuilder *b)
{
	int64		part = b->budget->limit / 16;
	int64		marks = (int64) (b->nmarks * sizeof(uint32));
	int64		runs = 0;

	/* to make rows takes as much again as the marks */
	if (b->nruns < MAX_RUNS && b->budget->used + marks < b->budget->limit / 2)
		return CORE_OK;
	for (size_t i = 1; i < b->nruns; i++)
		runs += (int64) b->run[i].length;
	if (b->nruns >= MAX_RUNS || marks >= part || runs >= part)
		return cop_collapse(b);
	return CORE_OK;
}

/* End a basket: nothing where it is empty, no pairs where it is too large. */
CoreStatus
cop_basket_end(CopBuilder *b)
{
	size_t		n = b->nmarks - b->basket_start;

	if (n == 0)
		return CORE_OK;
	n--;
	b->baskets++;
	if (n > b->max_items)
	{
		b->capped++;
		b->capped_items += (int64) n;
	}
	if (n == 1 || n > b->max_items)
	{
		b->nmarks = b->basket_start;
		return CORE_OK;
	}
	b->mark[b->basket_start] = (uint32) n;
	return collapse_when_full(b);
}

/* ------------------------------------------------------------------------
 * Statistics into statistics
 * ------------------------------------------------------------------------ */

/* Add, with a sign, to what is counted. */
static CoreStatus
add_signed(int64 *sum, int64 value, int sign)
{
	return core_add64(*sum, sign < 0 ? -value : value, sum);
}

static CoreStatus
add_totals(CopBuilder *b, int64 baskets, int64 capped, int64 capped_items, int sign)
{
	CoreStatus	status = add_signed(&b->baskets, baskets, sign);

	if (status == CORE_OK)
		status = add_signed(&b->capped, capped, sign);
	if (status == CORE_OK)
		status = add_signed(&b->capped_items, capped_items, sign);
	return status;
}

/* The builder's numbers of all items of a stored form, whose counts are added. */
static CoreStatus
number_items(CopBuilder *b, const CopView *view, int sign, uint32 *id)
{
	const uint8 *text;
	size_t		length;
	CoreStatus	status = CORE_OK;

	for (uint32 i = 0; status == CORE_OK && i < view->head.nitems; i++)
	{
		core_check_for_interrupts();
		if (view->head.kind == COP_INTEGER)
			status = cop_id_of_integer(b, cop_integer(view, i), &id[i]);
		else if ((status = cop_text(view, i, &text, &length)) == CORE_OK)
			status = cop_id_of_text(b, text, length, &id[i]);
		if (status == CORE_OK)
			status = add_signed(&b->item[id[i]].count, cop_count(view, i), sign);
	}
	return status;
}

/* Append a run; what it holds is charged by the caller. */
static CoreStatus
append_run(CopBuilder *b, uint8 *bytes, size_t length, int64 sign, bool owned, uint32 *id)
{
	CoreStatus	status = cop_grow(b, (void **) &b->run, &b->run_room, b->nruns + 1, sizeof(CopRun));

	if (status != CORE_OK)
		return status;
	b->run[b->nruns++] = (CopRun) {.bytes = bytes, .length = length, .sign = sign, .owned = owned, .id = id};
	return CORE_OK;
}

/* Add a stored form, or take it away; owned: it was allocated where the builder was, and is freed with it. */
CoreStatus
cop_add_stored(CopBuilder *b, uint8 *bytes, size_t length, int sign, bool owned)
{
	CopView		view;
	uint32	   *id;
	CoreStatus	status = cop_view(&view, bytes, length, true);

	if (status == CORE_OK)
		status = add_totals(b, view.head.baskets, view.head.capped, view.head.capped_items, sign);
	if (status == CORE_OK)
		status = cop_charge(b, (int64) (view.head.nitems * sizeof(uint32) + (owned ? length : 0)));
	if (status != CORE_OK)
		return status;
	id = core_alloc_huge((view.head.nitems + 1) * sizeof(uint32));
	status = append_run(b, bytes, length, sign, owned, id);
	if (status == CORE_OK)
		status = number_items(b, &view, sign, id);
	return status == CORE_OK ? collapse_when_full(b) : status;
}

/* Copy a run of another builder, whose items have other numbers here. */
static CoreStatus
copy_run(CopBuilder *b, const CopRun *run, const uint32 *map)
{
	CopView		view;
	uint32	   *id;
	uint8	   *bytes;
	CoreStatus	status = cop_view(&view, run->bytes, run->length, true);

	if (status == CORE_OK)
		status = cop_charge(b, (int64) (view.head.nitems * sizeof(uint32) + run->length));
	if (status != CORE_OK)
		return status;
	id = core_alloc_huge((view.head.nitems + 1) * sizeof(uint32));
	bytes = core_alloc_huge(run->length);
	memcpy(bytes, run->bytes, run->length);
	for (uint32 i = 0; i < view.head.nitems; i++)
		id[i] = map[run->id[i]];
	return append_run(b, bytes, run->length, run->sign, true, id);
}

/* The numbers here of all items of another builder, whose counts are added. */
static CoreStatus
map_items(CopBuilder *b, const CopBuilder *other, uint32 *map)
{
	CoreStatus	status = CORE_OK;

	for (size_t i = 0; status == CORE_OK && i < other->nitems; i++)
	{
		const CopItem *item = &other->item[i];

		core_check_for_interrupts();
		status = other->kind == COP_INTEGER ? cop_id_of_integer(b, item->value, &map[i]) :
			cop_id_of_text(b, other->text + item->value, item->length, &map[i]);
		if (status == CORE_OK)
			status = core_add64(b->item[map[i]].count, item->count, &b->item[map[i]].count);
	}
	return status;
}

/* Take over the items of another builder alone; map: its numbers, here. */
CoreStatus
cop_merge_items(CopBuilder *b, const CopBuilder *other, uint32 **map)
{
	*map = core_alloc_huge((other->nitems + 1) * sizeof(uint32));
	return map_items(b, other, *map);
}

/* Append another builder's baskets. */
static CoreStatus
append_marks(CopBuilder *b, const CopBuilder *other, const uint32 *map)
{
	CoreStatus	status = cop_grow(b, (void **) &b->mark, &b->mark_room, b->nmarks + other->nmarks, sizeof(uint32));

	if (status != CORE_OK)
		return status;
	for (size_t i = 0; i < other->nmarks;)
	{
		uint32		n = other->mark[i];

		core_check_for_interrupts();
		b->mark[b->nmarks + i] = n;
		for (size_t end = ++i + n; i < end; i++)
			b->mark[b->nmarks + i] = map[other->mark[i]];
	}
	b->nmarks += other->nmarks;
	return CORE_OK;
}

/* Add all that another builder holds, and leave that as it is. */
CoreStatus
cop_merge(CopBuilder *b, const CopBuilder *other)
{
	uint32	   *map = core_alloc_huge((other->nitems + 1) * sizeof(uint32));
	CoreStatus	status = map_items(b, other, map);

	if (status == CORE_OK)
		status = add_totals(b, other->baskets, other->capped, other->capped_items, 1);
	if (status == CORE_OK && other->nmarks > 0)
		status = append_marks(b, other, map);
	for (size_t i = 0; status == CORE_OK && i < other->nruns; i++)
		status = copy_run(b, &other->run[i], map);
	core_free(map);
	return status == CORE_OK ? collapse_when_full(b) : status;
}

/* Forget baskets and runs for the one stored form that holds them all; called with its items' numbers. */
CoreStatus
cop_replace(CopBuilder *b, uint8 *bytes, size_t length, uint32 *id)
{
	free_runs(b);
	give_back(b, b->mark, b->mark_room, sizeof(uint32));
	b->mark = NULL;
	b->nmarks = b->mark_room = b->basket_start = 0;
	return append_run(b, bytes, length, 1, true, id);
}
