/*
 * lots.c
 *	  The group of lots: sums, balances on a day, earning, taking back,
 *	  spending, and the stored form.
 *
 * Pure: knows no tables, no clock, no server.  A set is sorted by
 * (available_from, expires_on), its keys are unique and no amount is zero, so
 * that equal values have equal bytes.
 */
#include "lots.h"

#define LOTS_VERSION	1
#define DAY_FIRST		INT32_MIN	/* -infinity */
#define DAY_LAST		INT32_MAX	/* infinity */
#define DATE_FIRST		(-2451545)	/* 4714-11-24 BC, the first date */
#define DATE_LAST		2145031948	/* 5874897-12-31, the last date */

static const Lot debt_key = {DAY_FIRST, DAY_LAST, 0};

/* Make an empty set. */
void
lotset_init(LotSet *set)
{
	set->n = 0;
	set->cap = 0;
	set->lot = NULL;
}

/* Free a set's memory. */
void
lotset_free(LotSet *set)
{
	if (set->lot != NULL)
		core_free(set->lot);
	lotset_init(set);
}

/* Make room for a number of lots. */
static void
reserve(LotSet *set, int cap)
{
	if (cap <= set->cap)
		return;
	cap = cap < 8 ? 8 : cap + cap / 2;
	if (set->lot == NULL)
		set->lot = core_alloc(sizeof(Lot) * cap);
	else
		set->lot = core_realloc(set->lot, sizeof(Lot) * cap);
	set->cap = cap;
}

/* Copy a set. */
void
lotset_copy(LotSet *copy, const LotSet *set)
{
	lotset_init(copy);
	if (set->n == 0)
		return;
	reserve(copy, set->n);
	memcpy(copy->lot, set->lot, sizeof(Lot) * set->n);
	copy->n = set->n;
}

/* Tell whether a day is one that a date can be. */
static bool
is_date(int32 day)
{
	return day == DAY_FIRST || day == DAY_LAST || (day >= DATE_FIRST && day <= DATE_LAST);
}

/* A lot's days are dates in order; one that waits for a release is [infinity, infinity). */
bool
lot_is_valid(Lot lot)
{
	if (!is_date(lot.available_from) || !is_date(lot.expires_on))
		return false;
	if (lot.available_from == DAY_LAST)
		return lot.expires_on == DAY_LAST;
	return lot.available_from < lot.expires_on;
}

/* Order of keys. */
static int
compare_keys(const Lot *a, const Lot *b)
{
	if (a->available_from != b->available_from)
		return a->available_from < b->available_from ? -1 : 1;
	if (a->expires_on != b->expires_on)
		return a->expires_on < b->expires_on ? -1 : 1;
	return 0;
}

/* The position of a key, or where it would stand. */
static int
find_key(const LotSet *set, const Lot *key, bool *found)
{
	int			low = 0;
	int			high = set->n;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		int			order = compare_keys(&set->lot[middle], key);

		if (order == 0)
		{
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*found = false;
	return low;
}

/* The amount that a set has under a key. */
static int64
amount_of(const LotSet *set, const Lot *key)
{
	bool		found;
	int			at = find_key(set, key, &found);

	return found ? set->lot[at].amount : 0;
}

/* Add one lot. */
CoreStatus
lotset_add_lot(LotSet *set, Lot lot)
{
	bool		found;
	int			at;

	if (lot.amount == 0)
		return CORE_OK;
	at = find_key(set, &lot, &found);
	if (found)
	{
		int64		sum;

		if (core_add64(set->lot[at].amount, lot.amount, &sum) != CORE_OK)
			return CORE_OVERFLOW;
		set->lot[at].amount = sum;
		if (sum == 0)
		{
			set->n--;
			memmove(&set->lot[at], &set->lot[at + 1], sizeof(Lot) * (set->n - at));
		}
		return CORE_OK;
	}
	if (set->n >= LOTS_MAX)
		return CORE_TOO_MANY;
	reserve(set, set->n + 1);
	memmove(&set->lot[at + 1], &set->lot[at], sizeof(Lot) * (set->n - at));
	set->lot[at] = lot;
	set->n++;
	return CORE_OK;
}

/* Merge two sorted sets, which takes time linear in both. */
static CoreStatus
merge(LotSet *into, const LotSet *delta)
{
	LotSet		result;
	int			i = 0;
	int			j = 0;

	lotset_init(&result);
	reserve(&result, into->n + delta->n);
	while (i < into->n || j < delta->n)
	{
		int			order = i == into->n ? 1 : j == delta->n ? -1 :
			compare_keys(&into->lot[i], &delta->lot[j]);
		Lot			lot = order <= 0 ? into->lot[i++] : delta->lot[j++];

		if (order == 0 && core_add64(lot.amount, delta->lot[j++].amount, &lot.amount) != CORE_OK)
		{
			lotset_free(&result);
			return CORE_OVERFLOW;
		}
		if (lot.amount != 0)
			result.lot[result.n++] = lot;
	}
	if (result.n > LOTS_MAX)
	{
		lotset_free(&result);
		return CORE_TOO_MANY;
	}
	lotset_free(into);
	*into = result;
	return CORE_OK;
}

/* Add a set to a set. */
CoreStatus
lotset_add(LotSet *into, const LotSet *delta)
{
	if (delta->n == 0)
		return CORE_OK;
	if (delta->n > 4)
		return merge(into, delta);
	for (int i = 0; i < delta->n; i++)
	{
		CoreStatus	status = lotset_add_lot(into, delta->lot[i]);

		if (status != CORE_OK)
			return status;
	}
	return CORE_OK;
}

/* Turn every sign. */
CoreStatus
lotset_negate(LotSet *set)
{
	for (int i = 0; i < set->n; i++)
	{
		if (core_neg64(set->lot[i].amount, &set->lot[i].amount) != CORE_OK)
			return CORE_OVERFLOW;
	}
	return CORE_OK;
}

/* Take a set off a set. */
CoreStatus
lotset_subtract(LotSet *into, const LotSet *delta)
{
	LotSet		negative;
	CoreStatus	status;

	lotset_copy(&negative, delta);
	status = lotset_negate(&negative);
	if (status == CORE_OK)
		status = lotset_add(into, &negative);
	lotset_free(&negative);
	return status;
}

/* Equal as values. */
bool
lotset_equal(const LotSet *a, const LotSet *b)
{
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
	{
		if (compare_keys(&a->lot[i], &b->lot[i]) != 0 || a->lot[i].amount != b->lot[i].amount)
			return false;
	}
	return true;
}

/* Sum amounts in 128 bits and tell whether the result is a bigint. */
static CoreStatus
narrow(__int128 sum, int64 *points)
{
	*points = (int64) sum;
	return sum == (__int128) *points ? CORE_OK : CORE_OVERFLOW;
}

/* All points, whatever their days. */
CoreStatus
lotset_total(const LotSet *set, int64 *points)
{
	__int128	sum = 0;

	for (int i = 0; i < set->n; i++)
		sum += set->lot[i].amount;
	return narrow(sum, points);
}

/* Points spendable on a day; a debt counts against them. */
CoreStatus
lotset_available(const LotSet *set, int32 day, int64 *points)
{
	__int128	sum = 0;

	for (int i = 0; i < set->n && set->lot[i].available_from <= day; i++)
	{
		if (day < set->lot[i].expires_on && set->lot[i].available_from != DAY_LAST)
			sum += set->lot[i].amount;
	}
	return narrow(sum, points);
}

/* Points that become spendable later than a day. */
CoreStatus
lotset_pending(const LotSet *set, int32 day, int64 *points)
{
	__int128	sum = 0;

	for (int i = set->n - 1; i >= 0; i--)
	{
		if (set->lot[i].available_from <= day && set->lot[i].available_from != DAY_LAST)
			break;
		sum += set->lot[i].amount;
	}
	return narrow(sum, points);
}

/* Points that are dead on a day. */
CoreStatus
lotset_expired(const LotSet *set, int32 day, int64 *points)
{
	__int128	sum = 0;

	for (int i = 0; i < set->n; i++)
	{
		if (set->lot[i].expires_on <= day && set->lot[i].expires_on != DAY_LAST)
			sum += set->lot[i].amount;
	}
	return narrow(sum, points);
}

/* The debt, as a number that is not negative. */
int64
lotset_debt(const LotSet *set)
{
	int64		amount = amount_of(set, &debt_key);

	return amount < 0 && amount != INT64_MIN ? -amount : amount < 0 ? INT64_MAX : 0;
}

/* The soonest day after a day on which points die, and how many do. */
bool
lotset_next_expiry(const LotSet *set, int32 day, int32 *expires_on, int64 *points)
{
	__int128	sum = 0;

	*expires_on = DAY_LAST;
	for (int i = 0; i < set->n; i++)
	{
		if (set->lot[i].amount > 0 && set->lot[i].expires_on > day &&
			set->lot[i].expires_on < *expires_on)
			*expires_on = set->lot[i].expires_on;
	}
	if (*expires_on == DAY_LAST)
		return false;
	for (int i = 0; i < set->n; i++)
	{
		if (set->lot[i].expires_on == *expires_on && set->lot[i].amount > 0)
			sum += set->lot[i].amount;
	}
	return narrow(sum, points) == CORE_OK;
}

/* What closes the lots that are dead on a day. */
CoreStatus
lotset_close_expired(const LotSet *balance, int32 day, LotSet *delta)
{
	for (int i = 0; i < balance->n; i++)
	{
		Lot			lot = balance->lot[i];

		if (lot.amount <= 0 || lot.expires_on > day || lot.expires_on == DAY_LAST)
			continue;
		lot.amount = -lot.amount;
		if (lotset_add_lot(delta, lot) != CORE_OK)
			return CORE_OVERFLOW;
	}
	return CORE_OK;
}

/* What earning a lot posts: a debt is repaid first, less what the delta repays already. */
CoreStatus
lotset_earn(const LotSet *balance, Lot earned, LotSet *delta)
{
	Lot			repaid = debt_key;
	int64		debt = lotset_debt(balance) - amount_of(delta, &debt_key);

	if (earned.amount < 0 || !lot_is_valid(earned))
		return CORE_INVALID;
	repaid.amount = debt < earned.amount ? debt : earned.amount;
	earned.amount -= repaid.amount;
	if (lotset_add_lot(delta, repaid) != CORE_OK)
		return CORE_OVERFLOW;
	return lotset_add_lot(delta, earned);
}

/* Take at most some points from one lot of a balance that a delta already draws on. */
static CoreStatus
draw(const LotSet *balance, LotSet *delta, const Lot *key, int64 most, int64 *left)
{
	Lot			lot = *key;
	int64		amount = amount_of(balance, key) + amount_of(delta, key);

	if (amount > most)
		amount = most;
	if (amount > *left)
		amount = *left;
	if (amount <= 0)
		return CORE_OK;
	lot.amount = -amount;
	*left -= amount;
	return lotset_add_lot(delta, lot);
}

static bool
is_debt(const Lot *lot)
{
	return lot->available_from == DAY_FIRST && lot->expires_on == DAY_LAST;
}

/* Draw on the very lots that were posted, the pending ones first, the latest first. */
static CoreStatus
draw_posted(const LotSet *balance, const LotSet *posted, LotSet *delta, int64 *left)
{
	for (int i = posted->n - 1; i >= 0 && *left > 0; i--)
	{
		CoreStatus	status;

		if (posted->lot[i].amount <= 0 || is_debt(&posted->lot[i]))
			continue;
		status = draw(balance, delta, &posted->lot[i], posted->lot[i].amount, left);
		if (status != CORE_OK)
			return status;
	}
	return CORE_OK;
}

/* Spending order: soonest expiry first, then the oldest. */
static int
compare_spending(const void *a, const void *b)
{
	const Lot  *left = *(const Lot *const *) a;
	const Lot  *right = *(const Lot *const *) b;

	if (left->expires_on != right->expires_on)
		return left->expires_on < right->expires_on ? -1 : 1;
	return (left->available_from > right->available_from) -
		(left->available_from < right->available_from);
}

/* The positive lots of a set in spending order; the caller frees the array. */
static const Lot **
in_spending_order(const LotSet *set, int *n)
{
	const Lot **order = core_alloc(sizeof(Lot *) * (set->n + 1));

	*n = 0;
	for (int i = 0; i < set->n; i++)
	{
		if (set->lot[i].amount > 0)
			order[(*n)++] = &set->lot[i];
	}
	qsort(order, *n, sizeof(Lot *), compare_spending);
	return order;
}

/*
 * A part of a set's positive lots: so many points in spending order, or from
 * its end, after skipping some.
 */
CoreStatus
lotset_part(const LotSet *set, bool last_first, int64 skip, int64 points, LotSet *part)
{
	int			n;
	const Lot **order = in_spending_order(set, &n);
	CoreStatus	status = CORE_OK;

	for (int i = 0; i < n && points > 0 && status == CORE_OK; i++)
	{
		Lot			lot = *order[last_first ? n - 1 - i : i];
		int64		skipped = lot.amount < skip ? lot.amount : skip;

		skip -= skipped;
		lot.amount -= skipped;
		if (lot.amount > points)
			lot.amount = points;
		points -= lot.amount;
		status = lotset_add_lot(part, lot);
	}
	core_free(order);
	return status == CORE_OK && points > 0 ? CORE_INSUFFICIENT : status;
}

/* The lot that points which died live on in. */
static Lot
revived(Lot lot, int32 day, int grace_days)
{
	lot.available_from = day;
	lot.expires_on = day > DATE_LAST - grace_days ? DATE_LAST : day + grace_days;
	return lot;
}

/* Tell whether a lot that died is to live again. */
static bool
lives_again(const Lot *lot, int32 day, RestorePolicy policy, int grace_days)
{
	return policy == RESTORE_WITH_GRACE && grace_days > 0 && lot->expires_on <= day &&
		lot->expires_on != DAY_LAST;
}

/* What giving lots back posts: the very same, those that died by policy; a debt is repaid first. */
CoreStatus
lotset_restore(const LotSet *balance, const LotSet *given, int32 day, RestorePolicy policy,
			   int grace_days, LotSet *delta)
{
	for (int i = 0; i < given->n; i++)
	{
		Lot			lot = given->lot[i];
		CoreStatus	status;

		if (lives_again(&lot, day, policy, grace_days))
			lot = revived(lot, day, grace_days);
		status = lotset_earn(balance, lot, delta);
		if (status != CORE_OK)
			return status;
	}
	return CORE_OK;
}

/* What thawing lots posts that are in the balance already: those that died meanwhile may live again. */
CoreStatus
lotset_revive(const LotSet *frozen, int32 day, RestorePolicy policy, int grace_days, LotSet *delta)
{
	for (int i = 0; i < frozen->n; i++)
	{
		Lot			lot = frozen->lot[i];

		if (!lives_again(&lot, day, policy, grace_days))
			continue;
		if (lotset_add_lot(delta, revived(lot, day, grace_days)) != CORE_OK)
			return CORE_OVERFLOW;
		lot.amount = -lot.amount;
		if (lotset_add_lot(delta, lot) != CORE_OK)
			return CORE_OVERFLOW;
	}
	return CORE_OK;
}

/* Draw on the living lots of a balance in spending order; pending or available ones. */
static CoreStatus
draw_living(const LotSet *balance, int32 day, bool pending, LotSet *delta, int64 *left)
{
	const Lot **order = core_alloc(sizeof(Lot *) * (balance->n + 1));
	CoreStatus	status = CORE_OK;
	int			n = 0;

	for (int i = 0; i < balance->n; i++)
	{
		const Lot  *lot = &balance->lot[i];
		bool		later = lot->available_from > day || lot->available_from == DAY_LAST;

		if (lot->amount > 0 && lot->expires_on > day && later == pending)
			order[n++] = lot;
	}
	qsort(order, n, sizeof(Lot *), compare_spending);
	for (int i = 0; i < n && *left > 0 && status == CORE_OK; i++)
		status = draw(balance, delta, order[i], INT64_MAX, left);
	core_free(order);
	return status;
}

/* Let what is left become a debt, as far as the policy allows. */
static CoreStatus
draw_debt(const LotSet *balance, NegativePolicy policy, int64 limit, LotSet *delta, int64 *left)
{
	Lot			lot = debt_key;
	int64		debt;

	if (*left == 0 || policy == NEGATIVE_CLAMP)
		return CORE_OK;
	if (policy == NEGATIVE_FORBID)
		return CORE_INSUFFICIENT;
	if (core_add64(lotset_debt(balance), *left, &debt) != CORE_OK)
		return CORE_OVERFLOW;
	if (limit >= 0 && debt > limit)
		return CORE_INSUFFICIENT;
	lot.amount = -*left;
	*left = 0;
	return lotset_add_lot(delta, lot);
}

/*
 * What taking points back posts.
 *
 * First the very lots that were posted, pending ones before available ones;
 * then any other pending lots, then available ones, soonest expiry first; what
 * then remains follows the policy: refused, left, or a debt up to a limit
 * (negative: none).
 */
CoreStatus
lotset_take_back(const LotSet *balance, const LotSet *posted, int64 points, int32 day,
				 NegativePolicy policy, int64 limit, LotSet *delta, int64 *taken)
{
	int64		left = points;
	CoreStatus	status;

	if (points < 0)
		return CORE_INVALID;
	status = draw_posted(balance, posted, delta, &left);
	if (status == CORE_OK && left > 0)
		status = draw_living(balance, day, true, delta, &left);
	if (status == CORE_OK && left > 0)
		status = draw_living(balance, day, false, delta, &left);
	if (status == CORE_OK)
		status = draw_debt(balance, policy, limit, delta, &left);
	*taken = points - left;
	return status;
}

/*
 * What opens dead lots again of which points are to be taken back.
 *
 * Goes through the posted lots in the order of taking back; what a lot does
 * not hold any more but has lost by dying (expired: the sum of the closing
 * entries, negative) is opened.
 */
CoreStatus
lotset_reopen(const LotSet *balance, const LotSet *posted, const LotSet *expired, int64 points,
			  LotSet *delta)
{
	for (int i = posted->n - 1; i >= 0 && points > 0; i--)
	{
		Lot			lot = posted->lot[i];
		int64		there = amount_of(balance, &lot);
		int64		died = amount_of(expired, &lot);
		int64		wanted = lot.amount < points ? lot.amount : points;

		if (lot.amount <= 0 || is_debt(&lot))
			continue;
		points -= wanted;
		lot.amount = wanted - (there > 0 ? there : 0);
		if (died >= 0 || lot.amount <= 0)
			continue;
		if (lot.amount > -died)
		{
			points += lot.amount + died;
			lot.amount = -died;
		}
		if (lotset_add_lot(delta, lot) != CORE_OK)
			return CORE_OVERFLOW;
	}
	return CORE_OK;
}

/*
 * What giving posted points other days posts: as many as are still there of the
 * very lots become points of the days of another lot, and repay a debt first.
 */
CoreStatus
lotset_redate(const LotSet *balance, const LotSet *posted, Lot days, LotSet *delta)
{
	LotSet		after;
	LotSet		again;
	int64		left = INT64_MAX;
	CoreStatus	status = draw_posted(balance, posted, delta, &left);

	days.amount = INT64_MAX - left;
	if (status != CORE_OK || days.amount == 0)
		return status;
	lotset_copy(&after, balance);
	lotset_init(&again);
	status = lotset_add(&after, delta);
	if (status == CORE_OK)
		status = lotset_earn(&after, days, &again);
	if (status == CORE_OK)
		status = lotset_add(delta, &again);
	lotset_free(&after);
	lotset_free(&again);
	return status;
}

/* What spending points on a day posts: soonest expiry first, never-expiring last. */
CoreStatus
lotset_spend(const LotSet *balance, int64 points, int32 day, LotSet *delta)
{
	int64		available;
	int64		left = points;
	CoreStatus	status;

	if (points <= 0)
		return CORE_INVALID;
	status = lotset_available(balance, day, &available);
	if (status != CORE_OK)
		return status;
	if (available < points)
		return CORE_INSUFFICIENT;
	return draw_living(balance, day, false, delta, &left);
}

/* ------------------------------------------------------------------------
 * The stored form: version, then of each lot three varints: the first day as
 * the difference from the lot before, the days it lasts (0: for ever, and one
 * more than the number otherwise), the amount.
 * ------------------------------------------------------------------------ */

/* The varints of one lot. */
static void
lot_codes(const Lot *lot, int32 previous, uint64 codes[3])
{
	codes[0] = core_zigzag((int64) lot->available_from - previous);
	codes[1] = lot->expires_on == DAY_LAST ? 0 :
		(uint64) ((int64) lot->expires_on - lot->available_from) + 1;
	codes[2] = core_zigzag(lot->amount);
}

/* Encode into bytes, or only count them where bytes is NULL. */
static size_t
encode(const LotSet *set, uint8 *bytes)
{
	uint8		scratch[CORE_MAX_VARINT];
	int32		previous = 0;
	size_t		size = 1;

	if (bytes != NULL)
		bytes[0] = LOTS_VERSION;
	for (int i = 0; i < set->n; i++)
	{
		uint64		codes[3];

		lot_codes(&set->lot[i], previous, codes);
		for (int c = 0; c < 3; c++)
			size += core_put_varint(bytes == NULL ? scratch : bytes + size, codes[c]);
		previous = set->lot[i].available_from;
	}
	return size;
}

/* The size of the stored form. */
size_t
lotset_encoded_size(const LotSet *set)
{
	return encode(set, NULL);
}

/* Write the stored form; returns its size. */
size_t
lotset_encode(const LotSet *set, uint8 *bytes)
{
	return encode(set, bytes);
}

/* Decode one lot; returns the bytes read, 0 where they are no lot. */
static size_t
decode_lot(const uint8 *bytes, size_t length, int32 previous, Lot *lot)
{
	uint64		codes[3];
	size_t		at = 0;
	int64		first;
	int64		last;

	for (int c = 0; c < 3; c++)
	{
		size_t		n = core_get_varint(bytes + at, length - at, &codes[c]);

		if (n == 0)
			return 0;
		at += n;
	}
	if (__builtin_add_overflow(core_unzigzag(codes[0]), (int64) previous, &first) ||
		first < DAY_FIRST || first > DAY_LAST || codes[1] > UINT64_C(4294967296))
		return 0;
	last = codes[1] == 0 ? DAY_LAST : first + (int64) codes[1] - 1;
	if (last > DAY_LAST || (codes[1] != 0 && last == DAY_LAST))
		return 0;
	lot->available_from = (int32) first;
	lot->expires_on = (int32) last;
	lot->amount = core_unzigzag(codes[2]);
	return lot->amount != 0 && lot_is_valid(*lot) ? at : 0;
}

/* Read the stored form, refusing whatever encode would not write. */
CoreStatus
lotset_decode(const uint8 *bytes, size_t length, LotSet *set)
{
	size_t		at = 1;

	lotset_init(set);
	if (length == 0 || bytes[0] != LOTS_VERSION)
		return CORE_CORRUPT;
	while (at < length)
	{
		const Lot  *previous = set->n == 0 ? NULL : &set->lot[set->n - 1];
		Lot			lot;
		size_t		n = decode_lot(bytes + at, length - at,
								   previous == NULL ? 0 : previous->available_from, &lot);

		if (n == 0 || set->n == LOTS_MAX ||
			(previous != NULL && compare_keys(previous, &lot) >= 0))
		{
			lotset_free(set);
			return CORE_CORRUPT;
		}
		reserve(set, set->n + 1);
		set->lot[set->n++] = lot;
		at += n;
	}
	return CORE_OK;
}
