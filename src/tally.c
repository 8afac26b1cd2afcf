/*
 * tally.c
 *	  The group of tallies: sums by month, and the stored form.
 *
 * Pure: knows no tables, no clock, no server.  A set is sorted by month, months
 * are unique and none is all zero, so that equal values have equal bytes.
 */
#include "tally.h"

#define TALLY_VERSION 1

/* Make an empty set. */
void
tallyset_init(TallySet *set)
{
	set->n = 0;
	set->cap = 0;
	set->month = NULL;
}

/* Free a set's memory. */
void
tallyset_free(TallySet *set)
{
	if (set->month != NULL)
		core_free(set->month);
	tallyset_init(set);
}

/* Make room for a number of months. */
static void
reserve(TallySet *set, int cap)
{
	if (cap <= set->cap)
		return;
	cap = cap < 4 ? 4 : cap + cap / 2;
	if (set->month == NULL)
		set->month = core_alloc(sizeof(TallyMonth) * cap);
	else
		set->month = core_realloc(set->month, sizeof(TallyMonth) * cap);
	set->cap = cap;
}

/* Copy a set. */
void
tallyset_copy(TallySet *copy, const TallySet *set)
{
	tallyset_init(copy);
	if (set->n == 0)
		return;
	reserve(copy, set->n);
	memcpy(copy->month, set->month, sizeof(TallyMonth) * set->n);
	copy->n = set->n;
}

/* Add the sums of one month to another's. */
static CoreStatus
add_sums(TallyMonth *into, const TallyMonth *what)
{
	TallyMonth	sum = *into;

	if (core_add64(into->spend, what->spend, &sum.spend) != CORE_OK ||
		core_add64(into->points, what->points, &sum.points) != CORE_OK ||
		core_add64(into->visits, what->visits, &sum.visits) != CORE_OK)
		return CORE_OVERFLOW;
	*into = sum;
	return CORE_OK;
}

static bool
is_zero(const TallyMonth *month)
{
	return month->spend == 0 && month->points == 0 && month->visits == 0;
}

/* The position of a month, or where it would stand. */
static int
find_month(const TallySet *set, int32 month)
{
	int			low = 0;
	int			high = set->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (set->month[middle].month < month)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Tell whether a month is one that the text form can name. */
bool
tally_month_is_valid(int32 month)
{
	return month == TALLY_BEFORE || (month >= TALLY_FIRST && month <= TALLY_LAST);
}

/* Add to one month. */
CoreStatus
tallyset_add_month(TallySet *set, TallyMonth month)
{
	int			at;

	if (is_zero(&month))
		return CORE_OK;
	at = find_month(set, month.month);
	if (at < set->n && set->month[at].month == month.month)
	{
		if (add_sums(&set->month[at], &month) != CORE_OK)
			return CORE_OVERFLOW;
		if (is_zero(&set->month[at]))
		{
			set->n--;
			memmove(&set->month[at], &set->month[at + 1], sizeof(TallyMonth) * (set->n - at));
		}
		return CORE_OK;
	}
	if (set->n >= TALLY_MAX)
		return CORE_TOO_MANY;
	if (!tally_month_is_valid(month.month))
		return CORE_INVALID;
	reserve(set, set->n + 1);
	memmove(&set->month[at + 1], &set->month[at], sizeof(TallyMonth) * (set->n - at));
	set->month[at] = month;
	set->n++;
	return CORE_OK;
}

/* Add many months at once, in linear time. */
static CoreStatus
merge(TallySet *into, const TallySet *delta)
{
	TallySet	result;
	CoreStatus	status = CORE_OK;
	int			i = 0;
	int			j = 0;

	tallyset_init(&result);
	reserve(&result, into->n + delta->n);
	while (status == CORE_OK && (i < into->n || j < delta->n))
	{
		bool		ours = j == delta->n || (i < into->n && into->month[i].month <= delta->month[j].month);
		TallyMonth	month = ours ? into->month[i++] : delta->month[j++];

		if (ours && j < delta->n && delta->month[j].month == month.month)
			status = add_sums(&month, &delta->month[j++]);
		if (!is_zero(&month))
			result.month[result.n++] = month;
	}
	if (status == CORE_OK && result.n > TALLY_MAX)
		status = CORE_TOO_MANY;
	if (status != CORE_OK)
	{
		tallyset_free(&result);
		return status;
	}
	tallyset_free(into);
	*into = result;
	return CORE_OK;
}

/* Add a set to a set. */
CoreStatus
tallyset_add(TallySet *into, const TallySet *delta)
{
	if (delta->n > 4)
		return merge(into, delta);
	for (int i = 0; i < delta->n; i++)
	{
		CoreStatus	status = tallyset_add_month(into, delta->month[i]);

		if (status != CORE_OK)
			return status;
	}
	return CORE_OK;
}

/* Turn every sign. */
CoreStatus
tallyset_negate(TallySet *set)
{
	for (int i = 0; i < set->n; i++)
	{
		TallyMonth *month = &set->month[i];

		if (core_neg64(month->spend, &month->spend) != CORE_OK ||
			core_neg64(month->points, &month->points) != CORE_OK ||
			core_neg64(month->visits, &month->visits) != CORE_OK)
			return CORE_OVERFLOW;
	}
	return CORE_OK;
}

/* Take a set off a set. */
CoreStatus
tallyset_subtract(TallySet *into, const TallySet *delta)
{
	TallySet	negative;
	CoreStatus	status;

	tallyset_copy(&negative, delta);
	status = tallyset_negate(&negative);
	if (status == CORE_OK)
		status = tallyset_add(into, &negative);
	tallyset_free(&negative);
	return status;
}

/* Equal as values. */
bool
tallyset_equal(const TallySet *a, const TallySet *b)
{
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
	{
		const TallyMonth *left = &a->month[i];
		const TallyMonth *right = &b->month[i];

		if (left->month != right->month || left->spend != right->spend ||
			left->points != right->points || left->visits != right->visits)
			return false;
	}
	return true;
}

/* The sums of the months from one to another, both included. */
CoreStatus
tallyset_sum(const TallySet *set, int32 from_month, int32 to_month, TallyMonth *sums)
{
	memset(sums, 0, sizeof(TallyMonth));
	for (int i = find_month(set, from_month); i < set->n; i++)
	{
		if (set->month[i].month > to_month)
			break;
		if (add_sums(sums, &set->month[i]) != CORE_OK)
			return CORE_OVERFLOW;
	}
	return CORE_OK;
}

/* ------------------------------------------------------------------------
 * The stored form: version, then of each month four varints: the difference
 * from the month before, spend, points, visits.
 * ------------------------------------------------------------------------ */

/* Encode into bytes, or only count them where bytes is NULL. */
static size_t
encode(const TallySet *set, uint8 *bytes)
{
	uint8		scratch[CORE_MAX_VARINT];
	int32		previous = 0;
	size_t		size = 1;

	if (bytes != NULL)
		bytes[0] = TALLY_VERSION;
	for (int i = 0; i < set->n; i++)
	{
		const TallyMonth *month = &set->month[i];
		int64		codes[4];

		codes[0] = (int64) month->month - previous;
		codes[1] = month->spend;
		codes[2] = month->points;
		codes[3] = month->visits;
		for (int c = 0; c < 4; c++)
			size += core_put_varint(bytes == NULL ? scratch : bytes + size, core_zigzag(codes[c]));
		previous = month->month;
	}
	return size;
}

/* The size of the stored form. */
size_t
tallyset_encoded_size(const TallySet *set)
{
	return encode(set, NULL);
}

/* Write the stored form; returns its size. */
size_t
tallyset_encode(const TallySet *set, uint8 *bytes)
{
	return encode(set, bytes);
}

/* Decode one month; returns the bytes read, 0 where they are no month. */
static size_t
decode_month(const uint8 *bytes, size_t length, int32 previous, TallyMonth *month)
{
	uint64		code;
	int64		values[4];
	int64		number;
	size_t		at = 0;

	for (int c = 0; c < 4; c++)
	{
		size_t		n = core_get_varint(bytes + at, length - at, &code);

		if (n == 0)
			return 0;
		at += n;
		values[c] = core_unzigzag(code);
	}
	if (__builtin_add_overflow(values[0], (int64) previous, &number) ||
		number < INT32_MIN || number > INT32_MAX)
		return 0;
	month->month = (int32) number;
	month->spend = values[1];
	month->points = values[2];
	month->visits = values[3];
	return is_zero(month) || !tally_month_is_valid(month->month) ? 0 : at;
}

/* Read the stored form, refusing whatever encode would not write. */
CoreStatus
tallyset_decode(const uint8 *bytes, size_t length, TallySet *set)
{
	size_t		at = 1;

	tallyset_init(set);
	if (length == 0 || bytes[0] != TALLY_VERSION)
		return CORE_CORRUPT;
	while (at < length)
	{
		int32		previous = set->n == 0 ? 0 : set->month[set->n - 1].month;
		TallyMonth	month;
		size_t		n = decode_month(bytes + at, length - at, previous, &month);

		if (n == 0 || set->n == TALLY_MAX || (set->n > 0 && month.month <= previous))
		{
			tallyset_free(set);
			return CORE_CORRUPT;
		}
		reserve(set, set->n + 1);
		set->month[set->n++] = month;
		at += n;
	}
	return CORE_OK;
}
