/*
 * copurchase_form.c
 *	  Reading the stored form of co-purchase statistics, and the wire form.
 *
 * Bytes are never trusted: whatever is read is compared with where it must end.
 */
#include "copurchase.h"

/* Bytes of the header and the directory, without the texts. */
size_t
cop_directory_size(const CopHeader *head)
{
	return sizeof(CopHeader) + (size_t) head->nitems * (8 + 4 + 4 + (head->kind == COP_TEXT ? 4 : 8));
}

/* Look at a stored form, or at what stands before its rows. */
CoreStatus
cop_view(CopView *view, const uint8 *bytes, size_t length, bool with_rows)
{
	CopHeader  *head = &view->head;
	size_t		before;

	if (length < sizeof(CopHeader))
		return CORE_CORRUPT;
	memcpy(head, bytes, sizeof(CopHeader));
	if (head->version != COP_VERSION || head->kind > COP_TEXT || head->nitems > COP_ITEM_LIMIT ||
		(head->kind == COP_EMPTY && head->nitems != 0))
		return CORE_CORRUPT;
	before = cop_directory_size(head) + head->texts;
	if (length != before + (with_rows ? head->rows : 0))
		return CORE_CORRUPT;
	view->counts = bytes + sizeof(CopHeader);
	view->keys = view->counts + 8 * (size_t) head->nitems;
	view->middles = view->keys + (head->kind == COP_TEXT ? 4 : 8) * (size_t) head->nitems;
	view->ends = view->middles + 4 * (size_t) head->nitems;
	view->texts = view->ends + 4 * (size_t) head->nitems;
	view->rows = with_rows ? bytes + before : NULL;
	return CORE_OK;
}

static inline uint32
read32(const uint8 *at)
{
	uint32		value;

	memcpy(&value, at, 4);
	return value;
}

static inline int64
read64(const uint8 *at)
{
	int64		value;

	memcpy(&value, at, 8);
	return value;
}

/* An item that is an integer. */
int64
cop_integer(const CopView *view, uint32 item)
{
	return read64(view->keys + 8 * (size_t) item);
}

/* An item that is a text. */
CoreStatus
cop_text(const CopView *view, uint32 item, const uint8 **text, size_t *length)
{
	uint32		start = item == 0 ? 0 : read32(view->keys + 4 * ((size_t) item - 1));
	uint32		end = read32(view->keys + 4 * (size_t) item);

	if (start > end || end > view->head.texts)
		return CORE_CORRUPT;
	*text = view->texts + start;
	*length = end - start;
	return CORE_OK;
}

/* Where an item's row begins, where its upper half does, and where it ends. */
CoreStatus
cop_row_range(const CopView *view, uint32 item, uint32 *start, uint32 *middle, uint32 *end)
{
	*start = item == 0 ? 0 : read32(view->ends + 4 * ((size_t) item - 1));
	*middle = read32(view->middles + 4 * (size_t) item);
	*end = read32(view->ends + 4 * (size_t) item);
	return *start <= *middle && *middle <= *end && *end <= view->head.rows ? CORE_OK : CORE_CORRUPT;
}

/* Begin to read the pairs of an item with those above it. */
CoreStatus
cop_upper_row(const CopView *view, uint32 item, CopRow *row)
{
	uint32		start;
	uint32		middle;
	uint32		end;
	CoreStatus	status = cop_row_range(view, item, &start, &middle, &end);

	if (status == CORE_OK)
		*row = (CopRow) {.at = view->rows + middle,.end = view->rows + end,.next = item + 1,.nitems = view->head.nitems};
	return status;
}

/* Read a number; the common case of one byte was tried before. */
int
cop_row_number(CopRow *row, uint64 *value)
{
	size_t		n = core_get_varint(row->at, (size_t) (row->end - row->at), value);

	row->at += n;
	return n > 0;
}

/* Find an integer. */
bool
cop_find_integer(const CopView *view, int64 value, uint32 *item)
{
	uint32		low = 0;
	uint32		high = view->head.nitems;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;

		if (cop_integer(view, middle) < value)
			low = middle + 1;
		else
			high = middle;
	}
	*item = low;
	return low < view->head.nitems && cop_integer(view, low) == value;
}

/* Find a text. */
CoreStatus
cop_find_text(const CopView *view, const uint8 *text, size_t length, bool *found, uint32 *item)
{
	uint32		low = 0;
	uint32		high = view->head.nitems;
	const uint8 *other;
	size_t		nother;
	CoreStatus	status;

	*found = false;
	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;
		int			order;

		if ((status = cop_text(view, middle, &other, &nother)) != CORE_OK)
			return status;
		order = cop_compare_text(other, nother, text, length);
		if (order == 0)
			*found = true;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*item = low;
	return CORE_OK;
}

/* ------------------------------------------------------------------------
 * The wire form: every number a varint, every pair once.
 *
 *	 version kind baskets capped capped_items nitems
 *	 an item:  (zigzag integer | distance from the one before | length text) count
 *	 an item:  pairs with higher items, and for each the entry of a row
 * ------------------------------------------------------------------------ */

typedef struct Writer
{
	uint8	   *bytes;
	size_t		n;
	size_t		room;
} Writer;

/* Make room for so many bytes more. */
static void
writer_room(Writer *w, size_t more)
{
	if (w->n + more <= w->room)
		return;
	w->room = (w->n + more) + (w->n + more) / 2;
	w->bytes = w->bytes == NULL ? core_alloc_huge(w->room) : core_realloc_huge(w->bytes, w->room);
}

static void
put(Writer *w, uint64 value)
{
	writer_room(w, CORE_MAX_VARINT);
	w->n += core_put_varint(w->bytes + w->n, value);
}

/* Write an item and its count. */
static CoreStatus
put_item(Writer *w, const CopView *view, uint32 i)
{
	const uint8 *text;
	size_t		length;
	CoreStatus	status;

	if (view->head.kind == COP_INTEGER && i == 0)
		put(w, core_zigzag(cop_integer(view, 0)));
	else if (view->head.kind == COP_INTEGER)
		put(w, (uint64) cop_integer(view, i) - (uint64) cop_integer(view, i - 1));
	else
	{
		if ((status = cop_text(view, i, &text, &length)) != CORE_OK)
			return status;
		put(w, length);
		writer_room(w, length);
		memcpy(w->bytes + w->n, text, length);
		w->n += length;
	}
	put(w, (uint64) cop_count(view, i));
	return CORE_OK;
}

/* Write an item's pairs with higher ones. */
static CoreStatus
put_pairs(Writer *w, const CopView *view, uint32 i)
{
	CopRow		row;
	CopRow		copy;
	uint32		item;
	int64		count;
	uint64		n = 0;
	int			got;
	CoreStatus	status = cop_upper_row(view, i, &row);

	if (status != CORE_OK)
		return status;
	core_check_for_interrupts();
	copy = row;
	while ((got = cop_row_next(&row, &item, &count)) > 0)
		n++;
	if (got < 0)
		return CORE_CORRUPT;
	put(w, n);
	writer_room(w, (size_t) (copy.end - copy.at));
	memcpy(w->bytes + w->n, copy.at, (size_t) (copy.end - copy.at));
	w->n += (size_t) (copy.end - copy.at);
	return CORE_OK;
}

/* Write the wire form of a stored one, behind so many bytes of room. */
CoreStatus
cop_to_wire(const CopView *view, uint8 **wire, size_t *length, size_t prefix)
{
	Writer		w = {0};
	CoreStatus	status = CORE_OK;

	writer_room(&w, prefix + 2);
	w.n = prefix;
	w.bytes[w.n++] = COP_VERSION;
	w.bytes[w.n++] = view->head.kind;
	put(&w, (uint64) view->head.baskets);
	put(&w, (uint64) view->head.capped);
	put(&w, (uint64) view->head.capped_items);
	put(&w, view->head.nitems);
	for (uint32 i = 0; status == CORE_OK && i < view->head.nitems; i++)
		status = put_item(&w, view, i);
	for (uint32 i = 0; status == CORE_OK && i < view->head.nitems; i++)
		status = put_pairs(&w, view, i);
	*wire = w.bytes;
	*length = w.n - prefix;
	return status;
}

typedef struct Reader
{
	const uint8 *at;
	const uint8 *end;
	CopBuilder *owner;			/* charged with what reading takes */
	CopHeader	head;
	uint8	   *out;
	size_t		prefix;
	size_t		nout;
	size_t		out_room;
	const uint8 *pairs;			/* where the pairs begin */
	uint32	   *start;			/* by item: where its lower neighbours begin */
	uint32	   *lower;
	int64	   *count;
} Reader;

static bool
get(Reader *r, uint64 *value)
{
	size_t		n = core_get_varint(r->at, (size_t) (r->end - r->at), value);

	r->at += n;
	return n > 0;
}

/* Read a number that may not be negative. */
static bool
get_count(Reader *r, int64 *value)
{
	uint64		number;

	if (!get(r, &number) || number > INT64_MAX)
		return false;
	*value = (int64) number;
	return true;
}

/* Read the totals, and whether they can be. */
static CoreStatus
read_head(Reader *r)
{
	CopHeader  *head = &r->head;
	uint64		nitems;

	if (r->end - r->at < 2 || r->at[0] != COP_VERSION || r->at[1] > COP_TEXT)
		return CORE_CORRUPT;
	head->version = COP_VERSION;
	head->kind = r->at[1];
	r->at += 2;
	/* an item takes two bytes and more */
	if (!get_count(r, &head->baskets) || !get_count(r, &head->capped) || !get_count(r, &head->capped_items) ||
		!get(r, &nitems) || nitems > (uint64) (r->end - r->at) / 2 || nitems > COP_ITEM_LIMIT)
		return CORE_CORRUPT;
	head->nitems = (uint32) nitems;
	if ((nitems == 0) != (head->kind == COP_EMPTY) || (nitems == 0) != (head->baskets == 0) ||
		head->capped > head->baskets || head->capped_items < head->capped ||
		(head->capped_items > 0) != (head->capped > 0))
		return CORE_CORRUPT;
	return CORE_OK;
}

static CoreStatus
reader_room(Reader *r, size_t more)
{
	return cop_grow(r->owner, (void **) &r->out, &r->out_room, r->nout + more, 1);
}

/* Read an item's integer into the directory. */
static CoreStatus
read_integer(Reader *r, uint32 i, uint8 *keys, int64 *previous)
{
	uint64		value;

	if (!get(r, &value))
		return CORE_CORRUPT;
	if (i == 0)
		*previous = core_unzigzag(value);
	else if (value == 0 || value > (uint64) INT64_MAX - (uint64) *previous)
		return CORE_CORRUPT;
	else
		*previous = (int64) ((uint64) *previous + value);
	memcpy(keys + 8 * (size_t) i, previous, 8);
	return CORE_OK;
}

/* Read an item's text. */
static CoreStatus
read_text(Reader *r, uint32 i, uint8 *keys, const uint8 **previous, size_t *nprevious)
{
	uint64		length;

	if (!get(r, &length) || length > (uint64) (r->end - r->at) ||
		(i > 0 && cop_compare_text(*previous, *nprevious, r->at, (size_t) length) >= 0) ||
		length > UINT32_MAX - r->head.texts)
		return CORE_CORRUPT;
	*previous = r->at;
	*nprevious = (size_t) length;
	memcpy(r->out + r->nout, r->at, (size_t) length);
	r->nout += (size_t) length;
	r->head.texts += (uint32) length;
	memcpy(keys + 4 * (size_t) i, &r->head.texts, 4);
	r->at += length;
	return CORE_OK;
}

/* Read the items: the stored form up to the rows, but for where those end. */
static CoreStatus
read_items(Reader *r)
{
	size_t		directory = r->prefix + cop_directory_size(&r->head);
	const uint8 *text = NULL;
	size_t		length = 0;
	int64		integer = 0;
	CoreStatus	status = reader_room(r, directory + (size_t) (r->end - r->at));
	uint8	   *counts;
	uint8	   *keys;

	if (status != CORE_OK)
		return status;
	counts = r->out + r->prefix + sizeof(CopHeader);
	keys = counts + 8 * (size_t) r->head.nitems;
	r->nout = directory;
	for (uint32 i = 0; i < r->head.nitems; i++)
	{
		int64		count;

		core_check_for_interrupts();
		status = r->head.kind == COP_INTEGER ? read_integer(r, i, keys, &integer) : read_text(r, i, keys, &text, &length);
		if (status != CORE_OK)
			return status;
		if (!get_count(r, &count) || count < 1 || count > r->head.baskets)
			return CORE_CORRUPT;
		memcpy(counts + 8 * (size_t) i, &count, 8);
	}
	r->pairs = r->at;
	return CORE_OK;
}

/* Read an item's pairs with higher ones: counted where no array is there yet, else put into the rows of those. */
static CoreStatus
read_pairs(Reader *r, uint32 item)
{
	const uint8 *counts = r->out + r->prefix + sizeof(CopHeader);
	CopRow		row;
	uint64		n;
	uint32		other;
	int64		count;

	if (!get(r, &n) || n > r->head.nitems)
		return CORE_CORRUPT;
	core_check_for_interrupts();
	row = (CopRow) {.at = r->at,.end = r->end,.next = item + 1,.nitems = r->head.nitems};
	for (; n > 0; n--)
	{
		if (cop_row_next(&row, &other, &count) <= 0)
			return CORE_CORRUPT;
		if (r->lower != NULL)
		{
			uint32		at = r->start[other + 1]++;

			r->lower[at] = item;
			r->count[at] = count;
			continue;
		}
		if (count > read64(counts + 8 * (size_t) item) || count > read64(counts + 8 * (size_t) other))
			return CORE_CORRUPT;
		r->start[other + 2]++;
		r->head.pairs++;
	}
	r->at = row.at;
	return CORE_OK;
}

/* Read all pairs, twice: to check and count them, and to turn them around. */
static CoreStatus
turn_pairs(Reader *r)
{
	CoreStatus	status = cop_charge(r->owner, ((int64) r->head.nitems + 2) * (int64) sizeof(uint32));

	if (status != CORE_OK)
		return status;
	r->start = core_alloc_huge(((size_t) r->head.nitems + 2) * sizeof(uint32));
	memset(r->start, 0, ((size_t) r->head.nitems + 2) * sizeof(uint32));
	for (uint32 i = 0; status == CORE_OK && i < r->head.nitems; i++)
		status = read_pairs(r, i);
	if (status == CORE_OK && r->at != r->end)
		status = CORE_CORRUPT;
	if (status == CORE_OK && r->head.pairs >= UINT32_MAX)
		status = CORE_TOO_MANY;
	if (status == CORE_OK)
		status = cop_charge(r->owner, r->head.pairs * (int64) (sizeof(uint32) + sizeof(int64)));
	if (status != CORE_OK)
		return status;
	for (size_t i = 2; i < (size_t) r->head.nitems + 2; i++)
		r->start[i] += r->start[i - 1];
	r->lower = core_alloc_huge((size_t) r->head.pairs * sizeof(uint32) + 1);
	r->count = core_alloc_huge((size_t) r->head.pairs * sizeof(int64) + 1);
	r->at = r->pairs;
	for (uint32 i = 0; status == CORE_OK && i < r->head.nitems; i++)
		status = read_pairs(r, i);
	return status;
}

/* Copy an item's pairs with higher ones, which are in the wire form what they are in a row. */
static CoreStatus
copy_upper(Reader *r, uint32 item)
{
	CopRow		row;
	uint64		n;
	uint32		other;
	int64		count;
	size_t		size;
	CoreStatus	status;

	if (!get(r, &n))
		return CORE_CORRUPT;
	row = (CopRow) {.at = r->at,.end = r->end,.next = item + 1,.nitems = r->head.nitems};
	for (; n > 0; n--)
		if (cop_row_next(&row, &other, &count) <= 0)
			return CORE_CORRUPT;
	size = (size_t) (row.at - r->at);
	status = reader_room(r, size + 1);
	if (status != CORE_OK)
		return status;
	memcpy(r->out + r->nout, r->at, size);
	r->nout += size;
	r->at = row.at;
	return CORE_OK;
}

/* Write an item's pairs with lower ones. */
static CoreStatus
write_lower(Reader *r, uint32 item)
{
	uint32		next = 0;
	CoreStatus	status = reader_room(r, ((size_t) (r->start[item + 1] - r->start[item]) + 1) * 2 * CORE_MAX_VARINT);

	for (uint32 i = r->start[item]; status == CORE_OK && i < r->start[item + 1]; i++)
	{
		r->nout += cop_put_entry(r->out + r->nout, r->lower[i] - next, r->count[i]);
		next = r->lower[i] + 1;
	}
	return status;
}

/* Write all rows, and where they end. */
static CoreStatus
write_rows(Reader *r)
{
	size_t		rows_at = r->nout;
	size_t		middles = r->prefix + cop_directory_size(&r->head) - 8 * (size_t) r->head.nitems;
	CoreStatus	status = CORE_OK;

	r->at = r->pairs;
	for (uint32 i = 0; status == CORE_OK && i < r->head.nitems; i++)
	{
		uint32		middle;
		uint32		end;

		core_check_for_interrupts();
		status = write_lower(r, i);
		middle = (uint32) (r->nout - rows_at);
		status = status == CORE_OK ? copy_upper(r, i) : status;
		if (status == CORE_OK && r->nout - rows_at > UINT32_MAX)
			status = CORE_TOO_MANY;
		end = (uint32) (r->nout - rows_at);
		memcpy(r->out + middles + 4 * (size_t) i, &middle, 4);
		memcpy(r->out + middles + 4 * ((size_t) r->head.nitems + i), &end, 4);
	}
	r->head.rows = (uint32) (r->nout - rows_at);
	memcpy(r->out + r->prefix, &r->head, sizeof(CopHeader));
	return status;
}

/*
 * Read a wire form, whoever wrote it, and make the stored one behind so many
 * bytes of room.  The owner, an empty builder, gives back what it was charged
 * with where reading is interrupted.
 */
CoreStatus
cop_from_wire(const uint8 *wire, size_t length, size_t prefix, CopBuilder *owner, uint8 **bytes, size_t *stored)
{
	Reader		r = {.at = wire,.end = wire + length,.prefix = prefix,.owner = owner};
	CoreStatus	status;

	status = read_head(&r);
	status = status == CORE_OK ? read_items(&r) : status;
	status = status == CORE_OK ? turn_pairs(&r) : status;
	status = status == CORE_OK ? write_rows(&r) : status;
	if (r.start != NULL)
		core_free(r.start);
	if (r.lower != NULL)
	{
		core_free(r.lower);
		core_free(r.count);
	}
	(void) cop_charge(owner, -owner->charged);
	if (status != CORE_OK && r.out != NULL)
		core_free(r.out);
	*bytes = r.out;
	*stored = r.nout - prefix;
	return status;
}
