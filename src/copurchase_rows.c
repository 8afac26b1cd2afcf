/*
 * copurchase_rows.c
 *	  From a builder to the stored form: the rows of all pairs.
 *
 * For one item after the other, every basket that holds it and every stored row
 * of it is added up in one array of counters, an element an item.  No pair is
 * ever written down twice, and nothing is sorted but the items.
 */
#include "copurchase.h"

/* baskets are asked of the memory so many ahead */
#define AHEAD 16

/* memory is cleared in steps between which a query can be cancelled */
#define SCRATCH_STEP ((size_t) 1 << 20)

/* An item as it is sorted: integers by value, texts by their bytes. */
typedef struct SortItem
{
	uint64		key;			/* the integer, or the first eight bytes; ascending as unsigned */
	const uint8 *text;			/* NULL for an integer */
	uint32		length;
	uint32		id;
} SortItem;

/* what making rows needs beside the builder */
typedef struct Rows
{
	CopBuilder *b;
	uint32	   *rank;			/* by id: its place among all items, ascending */
	uint32	   *id;				/* by rank */
	uint32	   *final;			/* by rank: its place among the items that stay */
	int64	   *count;			/* by rank: baskets that hold it */
	uint32	   *start;			/* by rank: where in position its baskets begin */
	uint32	   *position;		/* of the basket of every item of every basket, in mark */
	size_t		npositions;
	int64	   *sum;			/* by rank: the counters */
	uint64	   *bits;			/* a bit an item whose counter was touched */
	uint64	   *bits_block;		/* and a bit a word of those */
	size_t		nwords;
	int64		charged;

	CopHeader	head;
	uint8	   *out;
	size_t		nout;
	size_t		out_room;
	size_t		base;			/* where the header stands in out */
} Rows;

static int
compare_items(const void *a, const void *b)
{
	const SortItem *x = a;
	const SortItem *y = b;

	core_check_for_interrupts();
	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->text == NULL ? 0 : cop_compare_text(x->text, x->length, y->text, y->length);
}

/* The first eight bytes of a text, as a number that sorts as they do. */
static uint64
text_key(const uint8 *text, uint32 length)
{
	uint64		key = 0;

	for (uint32 i = 0; i < 8; i++)
		key = key << 8 | (i < length ? text[i] : 0);
	return key;
}

/* Allocate an array of zeros that lasts until the rows are made. */
static CoreStatus
scratch(Rows *r, void *array, size_t n, size_t size)
{
	CoreStatus	status = cop_charge(r->b, (int64) (n * size));
	void	   *zeros;

	if (status != CORE_OK)
		return status;
	r->charged += (int64) (n * size);
	zeros = core_alloc_huge(n * size + 1);
	for (size_t at = 0; at < n * size; at += SCRATCH_STEP)
	{
		core_check_for_interrupts();
		memset((char *) zeros + at, 0, n * size - at < SCRATCH_STEP ? n * size - at : SCRATCH_STEP);
	}
	memcpy(array, &zeros, sizeof(void *));
	return CORE_OK;
}

/* Sort the items. */
static CoreStatus
rank_items(Rows *r)
{
	CopBuilder *b = r->b;
	SortItem   *sorted;
	CoreStatus	status = scratch(r, &sorted, b->nitems, sizeof(SortItem));

	if (status != CORE_OK)
		return status;
	for (size_t i = 0; i < b->nitems; i++)
	{
		const CopItem *item = &b->item[i];
		const uint8 *text = b->kind == COP_TEXT ? b->text + item->value : NULL;

		sorted[i] = (SortItem) {
			.key = text ? text_key(text, item->length) : (uint64) item->value ^ (UINT64_C(1) << 63),
			.text = text,.length = item->length,.id = (uint32) i};
	}
	qsort(sorted, b->nitems, sizeof(SortItem), compare_items);
	for (size_t i = 0; i < b->nitems; i++)
	{
		r->id[i] = sorted[i].id;
		r->rank[sorted[i].id] = (uint32) i;
		r->count[i] = b->item[sorted[i].id].count;
	}
	core_free(sorted);
	return CORE_OK;
}

/* Number the items that stay: those that any basket holds. */
static CoreStatus
number_final(Rows *r)
{
	CopBuilder *b = r->b;
	uint64		texts = 0;
	uint32		n = 0;

	for (size_t i = 0; i < b->nitems; i++)
	{
		if (r->count[i] < 0 || r->count[i] > b->baskets)
			return CORE_INSUFFICIENT;
		r->final[i] = n;
		if (r->count[i] == 0)
			continue;
		n++;
		texts += b->item[r->id[i]].length;
	}
	if (b->baskets < 0 || (n == 0) != (b->baskets == 0) || b->capped < 0 || b->capped > b->baskets ||
		b->capped_items < b->capped || (b->capped_items > 0) != (b->capped > 0))
		return CORE_INSUFFICIENT;
	if (texts > UINT32_MAX)
		return CORE_TOO_MANY;
	r->head = (CopHeader) {.version = COP_VERSION,.kind = n == 0 ? COP_EMPTY : b->kind,.nitems = n,
		.baskets = b->baskets,.capped = b->capped,.capped_items = b->capped_items,.texts = (uint32) texts};
	return CORE_OK;
}

/* Replace ids by ranks in all baskets. */
static void
rank_marks(CopBuilder *b, const uint32 *rank)
{
	for (size_t i = 0; i < b->nmarks;)
	{
		size_t		end = i + 1 + b->mark[i];

		core_check_for_interrupts();
		for (i++; i < end; i++)
			b->mark[i] = rank[b->mark[i]];
	}
}

/* List for every item the baskets that hold it. */
static void
index_marks(Rows *r)
{
	CopBuilder *b = r->b;
	uint32	   *start = r->start;

	for (size_t i = 0; i < b->nmarks;)
	{
		size_t		end = i + 1 + b->mark[i];

		core_check_for_interrupts();
		for (i++; i < end; i++)
			start[b->mark[i] + 2]++;
	}
	for (size_t i = 2; i < b->nitems + 2; i++)
		start[i] += start[i - 1];
	r->npositions = start[b->nitems + 1];
	for (size_t i = 0; i < b->nmarks;)
	{
		size_t		basket = i;
		size_t		end = i + 1 + b->mark[i];

		core_check_for_interrupts();
		for (i++; i < end; i++)
			r->position[start[b->mark[i] + 1]++] = (uint32) basket;
	}
}

static inline void
touch(Rows *r, uint32 rank)
{
	r->bits[rank >> 6] |= UINT64_C(1) << (rank & 63);
	r->bits_block[rank >> 12] |= UINT64_C(1) << ((rank >> 6) & 63);
}

/* Count what is in the baskets that hold an item. */
static void
count_baskets(Rows *r, uint32 rank)
{
	const uint32 *mark = r->b->mark;
	int64	   *sum = r->sum;
	uint64	   *bits = r->bits;
	uint64	   *bits_block = r->bits_block;

	for (size_t i = r->start[rank]; i < r->start[rank + 1]; i++)
	{
		const uint32 *at = mark + r->position[i];
		const uint32 *end = at + *at;

		if (i % 256 == 0)
			core_check_for_interrupts();
		/* the baskets of an item lie anywhere: ask for those to come, of the next items too */
		if (i + AHEAD < r->npositions)
			__builtin_prefetch(mark + r->position[i + AHEAD]);
		while (at < end)
		{
			uint32		other = *++at;

			sum[other]++;
			bits[other >> 6] |= UINT64_C(1) << (other & 63);
			bits_block[other >> 12] |= UINT64_C(1) << ((other >> 6) & 63);
		}
	}
	/* the item itself was counted as well */
	sum[rank] = 0;
}

/* Add the row that a stored form has of an item. */
static CoreStatus
count_run(Rows *r, CopRun *run, uint32 rank)
{
	CopView		view;
	CopRow		row;
	uint32		start;
	uint32		middle;
	uint32		end;
	CoreStatus	status = cop_view(&view, run->bytes, run->length, true);

	if (status != CORE_OK || run->cursor >= view.head.nitems || r->rank[run->id[run->cursor]] != rank)
		return status;
	status = cop_row_range(&view, run->cursor, &start, &middle, &end);
	if (status != CORE_OK)
		return status;
	core_check_for_interrupts();
	for (int half = 0; half < 2; half++)
	{
		uint32		item;
		int64		count;
		int			got;

		row = (CopRow) {.at = view.rows + (half ? middle : start),.end = view.rows + (half ? end : middle),
			.next = half ? run->cursor + 1 : 0,.nitems = view.head.nitems};
		while ((got = cop_row_next(&row, &item, &count)) > 0)
		{
			item = r->rank[run->id[item]];
			if (__builtin_add_overflow(r->sum[item], run->sign < 0 ? -count : count, &r->sum[item]))
				return CORE_OVERFLOW;
			touch(r, item);
		}
		if (got < 0)
			return CORE_CORRUPT;
	}
	run->cursor++;
	return CORE_OK;
}

/* Make room in the output for so many bytes more. */
static CoreStatus
out_room(Rows *r, size_t more)
{
	int64		before = r->b->charged;
	CoreStatus	status = cop_grow(r->b, (void **) &r->out, &r->out_room, r->nout + more, 1);

	r->charged += r->b->charged - before;
	return status;
}

/* Write one neighbour: the distance from the least that might have come, and the count. */
size_t
cop_put_entry(uint8 *at, uint32 delta, int64 count)
{
	size_t		n = core_put_varint(at, (uint64) delta << 1 | (count > 1));

	return count > 1 ? n + core_put_varint(at + n, (uint64) count - 2) : n;
}

/* Write one neighbour, and clear its counter. */
static CoreStatus
write_neighbour(Rows *r, uint32 rank, uint32 other, uint32 *next, size_t *middle)
{
	int64		count = r->sum[other];

	r->sum[other] = 0;
	if (count == 0)
		return CORE_OK;
	if (count < 0 || count > r->count[rank] || count > r->count[other])
		return CORE_INSUFFICIENT;
	if (other > rank)
	{
		if (*middle == 0)
		{
			*middle = r->nout;
			*next = r->final[rank] + 1;
		}
		r->head.pairs++;
	}
	r->nout += cop_put_entry(r->out + r->nout, r->final[other] - *next, count);
	*next = r->final[other] + 1;
	return CORE_OK;
}

/* Write and clear the counters of one word. */
static CoreStatus
write_word(Rows *r, uint32 rank, size_t word, uint32 *next, size_t *middle)
{
	CoreStatus	status = out_room(r, 64 * 2 * CORE_MAX_VARINT);

	for (uint64 bits = r->bits[word]; status == CORE_OK && bits != 0; bits &= bits - 1)
		status = write_neighbour(r, rank, (uint32) (word << 6) + (uint32) __builtin_ctzll(bits), next, middle);
	r->bits[word] = 0;
	return status;
}

/* Write one row, in ascending order, and clear its counters. */
static CoreStatus
write_row(Rows *r, uint32 rank, size_t rows_at)
{
	uint32		next = 0;
	size_t		middle = 0;
	uint32		ends[2];
	uint8	   *directory;

	for (size_t top = 0; top < r->nwords; top++)
	{
		for (uint64 bits = r->bits_block[top]; bits != 0; bits &= bits - 1)
		{
			CoreStatus	status = write_word(r, rank, (top << 6) + (size_t) __builtin_ctzll(bits), &next, &middle);

			if (status != CORE_OK)
				return status;
		}
		r->bits_block[top] = 0;
	}
	if (r->nout - rows_at > UINT32_MAX)
		return CORE_TOO_MANY;
	if (r->count[rank] == 0)
		return CORE_OK;
	ends[0] = (uint32) ((middle == 0 ? r->nout : middle) - rows_at);
	ends[1] = (uint32) (r->nout - rows_at);
	directory = r->out + r->base + sizeof(CopHeader) +
		(size_t) r->head.nitems * (8 + (r->head.kind == COP_TEXT ? 4 : 8));
	memcpy(directory + 4 * (size_t) r->final[rank], &ends[0], 4);
	memcpy(directory + 4 * ((size_t) r->head.nitems + r->final[rank]), &ends[1], 4);
	return CORE_OK;
}

/* Write what stands before the rows, but for where they end. */
static CoreStatus
write_directory(Rows *r)
{
	CopBuilder *b = r->b;
	CoreStatus	status = out_room(r, r->base + cop_directory_size(&r->head) + r->head.texts);
	uint8	   *counts;
	uint8	   *keys;
	uint8	   *texts;
	uint32		text_end = 0;

	if (status != CORE_OK)
		return status;
	counts = r->out + r->base + sizeof(CopHeader);
	keys = counts + 8 * (size_t) r->head.nitems;
	texts = r->out + r->base + cop_directory_size(&r->head);
	for (size_t i = 0; i < b->nitems; i++)
	{
		const CopItem *item = &b->item[r->id[i]];
		size_t		at = r->final[i];

		if (r->count[i] == 0)
			continue;
		memcpy(counts + 8 * at, &r->count[i], 8);
		if (b->kind == COP_INTEGER)
		{
			memcpy(keys + 8 * at, &item->value, 8);
			continue;
		}
		memcpy(texts + text_end, b->text + item->value, item->length);
		text_end += item->length;
		memcpy(keys + 4 * at, &text_end, 4);
	}
	r->nout = r->base + cop_directory_size(&r->head) + r->head.texts;
	return CORE_OK;
}

/* Allocate all arrays but the output. */
static CoreStatus
allocate(Rows *r)
{
	size_t		n = r->b->nitems;
	CoreStatus	status;

	if (r->b->nmarks >= UINT32_MAX)
		return CORE_TOO_MANY;
	r->nwords = (n + 4095) / 4096;
	status = scratch(r, &r->rank, n, sizeof(uint32));
	status = status == CORE_OK ? scratch(r, &r->id, n, sizeof(uint32)) : status;
	status = status == CORE_OK ? scratch(r, &r->final, n, sizeof(uint32)) : status;
	status = status == CORE_OK ? scratch(r, &r->count, n, sizeof(int64)) : status;
	status = status == CORE_OK ? scratch(r, &r->start, n + 2, sizeof(uint32)) : status;
	status = status == CORE_OK ? scratch(r, &r->position, r->b->nmarks, sizeof(uint32)) : status;
	status = status == CORE_OK ? scratch(r, &r->sum, n, sizeof(int64)) : status;
	status = status == CORE_OK ? scratch(r, &r->bits, r->nwords * 64, sizeof(uint64)) : status;
	return status == CORE_OK ? scratch(r, &r->bits_block, r->nwords, sizeof(uint64)) : status;
}

/* Free all but the output and the ids by rank. */
static void
release(Rows *r)
{
	void	   *arrays[] = {r->rank, r->final, r->count, r->start, r->position, r->sum, r->bits, r->bits_block};

	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
		if (arrays[i] != NULL)
			core_free(arrays[i]);
	(void) cop_charge(r->b, -r->charged);
}

/* Write all rows. */
static CoreStatus
write_rows(Rows *r)
{
	CopBuilder *b = r->b;
	size_t		rows_at = r->nout;
	CoreStatus	status = CORE_OK;

	for (size_t i = 0; i < b->nruns; i++)
		b->run[i].cursor = 0;
	for (uint32 rank = 0; status == CORE_OK && rank < b->nitems; rank++)
	{
		core_check_for_interrupts();
		count_baskets(r, rank);
		for (size_t i = 0; status == CORE_OK && i < b->nruns; i++)
			status = count_run(r, &b->run[i], rank);
		if (status == CORE_OK)
			status = write_row(r, rank, rows_at);
	}
	r->head.rows = (uint32) (r->nout - rows_at);
	memcpy(r->out + r->base, &r->head, sizeof(CopHeader));
	return status;
}

/* Make the stored form; its items' ids come back where they are wanted. */
static CoreStatus
make(CopBuilder *b, size_t prefix, uint8 **bytes, size_t *length, uint32 **id)
{
	Rows		r = {.b = b,.base = prefix};
	bool		ranked = false;
	CoreStatus	status = allocate(&r);

	status = status == CORE_OK ? rank_items(&r) : status;
	status = status == CORE_OK ? number_final(&r) : status;
	status = status == CORE_OK ? write_directory(&r) : status;
	if (status == CORE_OK)
	{
		rank_marks(b, r.rank);
		ranked = true;
		index_marks(&r);
		status = write_rows(&r);
	}
	/* the builder may go on: ids again */
	if (ranked)
		rank_marks(b, r.id);
	if (status == CORE_OK && id != NULL)
		for (size_t i = 0; i < b->nitems; i++)
			if (r.count[i] > 0)
				r.id[r.final[i]] = r.id[i];
	release(&r);
	*bytes = r.out;
	*length = r.nout - prefix;
	if (id != NULL)
		*id = r.id;
	else if (r.id != NULL)
		core_free(r.id);
	return status;
}

/* Make the stored form of all that a builder holds, behind so many bytes of room. */
CoreStatus
cop_finish(CopBuilder *b, size_t prefix, uint8 **bytes, size_t *length)
{
	return make(b, prefix, bytes, length, NULL);
}

/* Replace baskets and stored forms by the one that holds them all. */
CoreStatus
cop_collapse(CopBuilder *b)
{
	uint8	   *bytes;
	size_t		length;
	uint32	   *id;
	CopHeader	head;
	CoreStatus	status = make(b, 0, &bytes, &length, &id);

	if (status != CORE_OK)
		return status;
	memcpy(&head, bytes, sizeof(head));
	status = cop_charge(b, (int64) (length + head.nitems * sizeof(uint32)));
	return status == CORE_OK ? cop_replace(b, bytes, length, id) : status;
}
