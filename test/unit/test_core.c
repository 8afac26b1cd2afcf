/*
 * test_core.c
 *	  The pure core, without a server: laws of the groups, the stored forms,
 *	  the calendar, splitting, tiers.
 */
#include <stdio.h>

#include "calendar.h"
#include "lots.h"
#include "split.h"
#include "tally.h"
#include "tier.h"

static int	passed = 0;
static int	failed = 0;
static uint64 seed = 42;

#define CHECK(condition) \
	do { \
		if (condition) \
			passed++; \
		else \
		{ \
			failed++; \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
		} \
	} while (0)

/* A repeatable random number (splitmix64). */
static uint64
next_random(void)
{
	uint64		z = (seed += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static int64
between(int64 low, int64 high)
{
	return low + (int64) (next_random() % (uint64) (high - low + 1));
}

/* A random set of lots. */
static void
random_lots(LotSet *set, int most, int64 largest)
{
	int			n = (int) between(0, most);

	lotset_init(set);
	for (int i = 0; i < n; i++)
	{
		Lot			lot;

		lot.available_from = between(0, 9) == 0 ? INT32_MIN : (int32) between(0, 20);
		lot.expires_on = between(0, 9) == 0 ? INT32_MAX :
			(lot.available_from == INT32_MIN ? 0 : lot.available_from) + (int32) between(1, 20);
		lot.amount = between(-largest, largest);
		lotset_add_lot(set, lot);
	}
}

static void
test_lots_laws(void)
{
	int			wrong = 0;

	for (int i = 0; i < 100000; i++)
	{
		LotSet		a;
		LotSet		b;
		LotSet		c;
		LotSet		left;
		LotSet		right;
		LotSet		zero;
		uint8		bytes[2048];
		size_t		length;

		random_lots(&a, 8, 1000);
		random_lots(&b, 8, 1000);
		random_lots(&c, 8, 1000);
		lotset_copy(&left, &a);
		lotset_add(&left, &b);
		lotset_copy(&right, &b);
		lotset_add(&right, &a);
		wrong += !lotset_equal(&left, &right);
		lotset_add(&left, &c);
		lotset_free(&right);
		lotset_copy(&right, &b);
		lotset_add(&right, &c);
		lotset_add(&right, &a);
		wrong += !lotset_equal(&left, &right);
		lotset_subtract(&left, &c);
		lotset_subtract(&left, &b);
		wrong += !lotset_equal(&left, &a);
		lotset_copy(&zero, &a);
		lotset_subtract(&zero, &a);
		wrong += zero.n != 0;
		length = lotset_encode(&a, bytes);
		wrong += length != lotset_encoded_size(&a);
		lotset_free(&right);
		wrong += lotset_decode(bytes, length, &right) != CORE_OK || !lotset_equal(&a, &right);
		lotset_free(&a);
		lotset_free(&b);
		lotset_free(&c);
		lotset_free(&left);
		lotset_free(&right);
		lotset_free(&zero);
	}
	CHECK(wrong == 0);
}

/* Whatever bytes come, decoding refuses or gives a value that encodes to those bytes. */
static void
test_decoding_garbage(void)
{
	int			wrong = 0;

	for (int i = 0; i < 1000000; i++)
	{
		uint8		bytes[24];
		uint8		again[64];
		size_t		length = (size_t) between(0, sizeof(bytes));
		LotSet		lots;
		TallySet	tally;

		for (size_t b = 0; b < length; b++)
			bytes[b] = (uint8) (between(0, 2) == 0 ? next_random() : (uint64) between(0, 9));
		if (length > 0)
			bytes[0] = 1;
		if (lotset_decode(bytes, length, &lots) == CORE_OK)
			wrong += lotset_encode(&lots, again) != length || memcmp(bytes, again, length) != 0;
		lotset_free(&lots);
		if (tallyset_decode(bytes, length, &tally) == CORE_OK)
			wrong += tallyset_encode(&tally, again) != length || memcmp(bytes, again, length) != 0;
		tallyset_free(&tally);
	}
	CHECK(wrong == 0);
}

static void
test_lots_by_day(void)
{
	LotSet		set;
	LotSet		delta;
	LotSet		posted;
	int64		points;
	int64		taken;
	int32		day;

	lotset_init(&set);
	lotset_add_lot(&set, (Lot) {10, 20, 100});
	lotset_add_lot(&set, (Lot) {15, INT32_MAX, 30});
	lotset_add_lot(&set, (Lot) {INT32_MAX, INT32_MAX, 7});
	CHECK(lotset_available(&set, 9, &points) == CORE_OK && points == 0);
	CHECK(lotset_available(&set, 10, &points) == CORE_OK && points == 100);
	CHECK(lotset_available(&set, 19, &points) == CORE_OK && points == 130);
	CHECK(lotset_available(&set, 20, &points) == CORE_OK && points == 30);
	CHECK(lotset_pending(&set, 10, &points) == CORE_OK && points == 37);
	CHECK(lotset_pending(&set, INT32_MAX - 1, &points) == CORE_OK && points == 7);
	CHECK(lotset_expired(&set, 20, &points) == CORE_OK && points == 100);
	CHECK(lotset_next_expiry(&set, 10, &day, &points) && day == 20 && points == 100);
	CHECK(!lotset_next_expiry(&set, 20, &day, &points));

	/* spending takes what dies soonest */
	lotset_init(&delta);
	CHECK(lotset_spend(&set, 110, 16, &delta) == CORE_OK);
	CHECK(delta.n == 2 && delta.lot[0].amount == -100 && delta.lot[1].amount == -10);
	lotset_free(&delta);
	CHECK(lotset_spend(&set, 131, 16, &delta) == CORE_INSUFFICIENT);

	/* what is taken back comes from the lots posted, the rest leaves a debt */
	lotset_init(&posted);
	lotset_add_lot(&posted, (Lot) {15, INT32_MAX, 50});
	CHECK(lotset_take_back(&set, &posted, 50, 12, NEGATIVE_ALLOW, -1, &delta, &taken) == CORE_OK);
	CHECK(taken == 50 && delta.n == 3 && delta.lot[1].amount == -30 && delta.lot[2].amount == -7);
	lotset_free(&delta);
	CHECK(lotset_take_back(&set, &posted, 200, 12, NEGATIVE_FORBID, -1, &delta, &taken) == CORE_INSUFFICIENT);
	lotset_free(&delta);
	CHECK(lotset_take_back(&set, &posted, 200, 12, NEGATIVE_CLAMP, -1, &delta, &taken) == CORE_OK && taken == 137);
	lotset_free(&delta);
	CHECK(lotset_take_back(&set, &posted, 200, 12, NEGATIVE_ALLOW, 62, &delta, &taken) == CORE_INSUFFICIENT);
	lotset_free(&delta);
	CHECK(lotset_take_back(&set, &posted, 200, 12, NEGATIVE_ALLOW, 63, &delta, &taken) == CORE_OK && taken == 200);
	lotset_add(&set, &delta);
	CHECK(lotset_debt(&set) == 63);

	/* and later earnings repay it first */
	lotset_free(&delta);
	CHECK(lotset_earn(&set, (Lot) {30, 40, 100}, &delta) == CORE_OK);
	CHECK(delta.n == 2 && delta.lot[0].amount == 63 && delta.lot[1].amount == 37);
	lotset_free(&delta);
	lotset_free(&set);
	lotset_free(&posted);
}

static void
test_overflow(void)
{
	LotSet		set;
	int64		points;

	lotset_init(&set);
	CHECK(lotset_add_lot(&set, (Lot) {1, 2, INT64_MAX}) == CORE_OK);
	CHECK(lotset_add_lot(&set, (Lot) {1, 2, 1}) == CORE_OVERFLOW);
	CHECK(lotset_add_lot(&set, (Lot) {1, 3, 1}) == CORE_OK);
	CHECK(lotset_total(&set, &points) == CORE_OVERFLOW);
	lotset_free(&set);
	lotset_add_lot(&set, (Lot) {1, 2, INT64_MIN});
	CHECK(lotset_negate(&set) == CORE_OVERFLOW);
	lotset_free(&set);
}

static void
test_tally(void)
{
	TallySet	set;
	TallyMonth	sums;
	uint8		bytes[256];
	TallySet	again;

	tallyset_init(&set);
	tallyset_add_month(&set, (TallyMonth) {5, 100, 1, 1});
	tallyset_add_month(&set, (TallyMonth) {7, 10, 2, 1});
	tallyset_add_month(&set, (TallyMonth) {TALLY_BEFORE, 1000, 9, 3});
	CHECK(tallyset_sum(&set, 5, 6, &sums) == CORE_OK && sums.spend == 100);
	CHECK(tallyset_sum(&set, INT32_MIN, INT32_MAX, &sums) == CORE_OK && sums.visits == 5);
	CHECK(tallyset_decode(bytes, tallyset_encode(&set, bytes), &again) == CORE_OK &&
		  tallyset_equal(&set, &again));
	CHECK(tallyset_add_month(&set, (TallyMonth) {5, INT64_MAX, 0, 0}) == CORE_OVERFLOW);
	tallyset_subtract(&again, &set);
	CHECK(again.n == 0);
	tallyset_free(&set);
	tallyset_free(&again);
}

static void
test_calendar(void)
{
	int			wrong = 0;
	int32		previous = calendar_day(1799, 12, 31);
	ExpiryPolicy month = {EXPIRY_AFTER, 12, 0, ROUND_MONTH, 0, 0};
	ExpiryPolicy day = {EXPIRY_AFTER, 1, 0, ROUND_DAY, 0, 0};
	ExpiryPolicy year = {EXPIRY_AFTER, 0, 30, ROUND_YEAR, 0, 0};
	ExpiryPolicy fixed = {EXPIRY_FIXED_DAY, 0, 0, ROUND_DAY, 2, 29};

	CHECK(calendar_day(2000, 1, 1) == 0 && calendar_day(1999, 12, 31) == -1);
	CHECK(calendar_weekday(0) == 6 && calendar_weekday(-1) == 5 && calendar_weekday(2) == 1);
	for (int32 d = previous + 1; d < calendar_day(2300, 1, 1); d++)
	{
		int			y;
		int			m;
		int			n;

		calendar_civil(d, &y, &m, &n);
		wrong += calendar_day(y, m, n) != d || calendar_month(d) != (y - 2000) * 12 + m - 1 ||
			calendar_month_start(calendar_month(d)) != d - n + 1;
	}
	CHECK(wrong == 0);
	CHECK(calendar_period_start(calendar_day(2024, 2, 29), PERIOD_DAY) == calendar_day(2024, 2, 29));
	CHECK(calendar_period_start(calendar_day(2024, 2, 29), PERIOD_WEEK) == calendar_day(2024, 2, 26));
	CHECK(calendar_period_start(calendar_day(2023, 1, 1), PERIOD_WEEK) == calendar_day(2022, 12, 26));
	CHECK(calendar_period_start(calendar_day(1999, 12, 27), PERIOD_WEEK) == calendar_day(1999, 12, 27));
	CHECK(calendar_period_start(calendar_day(2024, 2, 29), PERIOD_MONTH) == calendar_day(2024, 2, 1));
	CHECK(calendar_period_start(calendar_day(1998, 12, 31), PERIOD_YEAR) == calendar_day(1998, 1, 1));
	CHECK(calendar_period_start(calendar_day(2024, 2, 29), PERIOD_EVER) == INT32_MIN);
	CHECK(calendar_add_months(calendar_day(2024, 1, 31), 1) == calendar_day(2024, 2, 29));
	CHECK(calendar_add_months(calendar_day(2024, 3, 31), -13) == calendar_day(2023, 2, 28));
	CHECK(calendar_is_anniversary(calendar_day(2000, 2, 29), calendar_day(2023, 2, 28)));
	CHECK(!calendar_is_anniversary(calendar_day(2000, 2, 29), calendar_day(2024, 2, 28)));
	CHECK(calendar_is_anniversary(calendar_day(2000, 2, 29), calendar_day(2024, 2, 29)));
	CHECK(calendar_celebration(calendar_day(2000, 2, 29), calendar_day(2023, 2, 20), calendar_day(2023, 3, 5), false) == calendar_day(2023, 2, 28));
	CHECK(calendar_celebration(calendar_day(2000, 2, 29), calendar_day(2023, 2, 20), calendar_day(2023, 3, 5), true) == calendar_day(2023, 3, 1));
	CHECK(calendar_celebration(calendar_day(2000, 2, 29), calendar_day(2024, 2, 20), calendar_day(2024, 3, 5), true) == calendar_day(2024, 2, 29));
	CHECK(calendar_celebration(calendar_day(1990, 12, 30), calendar_day(2023, 12, 27), calendar_day(2024, 1, 3), false) == calendar_day(2023, 12, 30));
	CHECK(calendar_celebration(calendar_day(1990, 12, 30), calendar_day(2023, 12, 31), calendar_day(2024, 1, 6), false) == CALENDAR_NEVER);
	CHECK(calendar_celebration(calendar_day(2024, 1, 3), calendar_day(2024, 1, 1), calendar_day(2024, 1, 6), false) == CALENDAR_NEVER);
	CHECK(calendar_expires_on(&month, calendar_day(2024, 5, 17)) == calendar_day(2025, 6, 1));
	CHECK(calendar_expires_on(&month, calendar_day(2024, 5, 1)) == calendar_day(2025, 5, 1));
	CHECK(calendar_expires_on(&day, calendar_day(2024, 1, 31)) == calendar_day(2024, 2, 29));
	CHECK(calendar_expires_on(&year, calendar_day(2024, 12, 15)) == calendar_day(2026, 1, 1));
	CHECK(calendar_expires_on(&fixed, calendar_day(2023, 2, 27)) == calendar_day(2023, 3, 1));
	CHECK(calendar_expires_on(&fixed, calendar_day(2023, 2, 28)) == calendar_day(2024, 3, 1));
	CHECK(calendar_expires_on(&month, INT32_MAX) == INT32_MAX);
	CHECK(calendar_expires_on(&month, 2145031948) == INT32_MAX);
}

static void
test_split(void)
{
	int			wrong = 0;
	int64		weight[8];
	int64		share[8];

	for (int i = 0; i < 100000; i++)
	{
		int			n = (int) between(1, 8);
		int64		total = between(-1000, 1000);
		int64		sum = 0;

		for (int w = 0; w < n; w++)
			weight[w] = between(0, 3) == 0 ? 0 : between(0, INT64_C(1) << 50);
		split_largest_remainder(total, weight, n, share);
		for (int w = 0; w < n; w++)
		{
			sum += share[w];
			wrong += (total > 0 && share[w] < 0) || (total < 0 && share[w] > 0);
		}
		wrong += sum != total;
	}
	CHECK(wrong == 0);
	split_largest_remainder(10, (int64[]) {1, 1, 1}, 3, share);
	CHECK(share[0] == 4 && share[1] == 3 && share[2] == 3);
}

static void
test_tiers(void)
{
	Tier		tiers[] = {{1, 1, METRIC_SPEND, 0}, {2, 2, METRIC_SPEND, 100}, {3, 3, METRIC_SPEND, 200}};
	TierPolicy	calendar = {WINDOW_CALENDAR, 12, DOWNGRADE_ONE_STEP, 0, 0};
	TierPolicy	rolling = {WINDOW_ROLLING, 3, DOWNGRADE_REQUALIFY, 0, 0};
	TierPolicy	anniversary = {WINDOW_ANNIVERSARY, 12, DOWNGRADE_NONE, 0, 0};
	int32		joined = calendar_day(2023, 5, 20);
	TallySet	tally;
	int			index;

	for (int64 spend = 99; spend <= 101; spend++)
	{
		tallyset_init(&tally);
		tallyset_add_month(&tally, (TallyMonth) {calendar_month(calendar_day(2024, 6, 1)), spend, 0, 0});
		tier_earned(&calendar, tiers, 3, &tally, joined, calendar_day(2024, 12, 31), &index);
		CHECK(index == (spend < 100 ? 0 : 1));
		tier_earned(&calendar, tiers, 3, &tally, joined, calendar_day(2025, 1, 1), &index);
		CHECK(index == 0);
		tier_earned(&rolling, tiers, 3, &tally, joined, calendar_day(2024, 8, 31), &index);
		CHECK(index == (spend < 100 ? 0 : 1));
		tier_earned(&rolling, tiers, 3, &tally, joined, calendar_day(2024, 9, 1), &index);
		CHECK(index == 0);
		tier_earned(&anniversary, tiers, 3, &tally, joined, calendar_day(2025, 4, 30), &index);
		CHECK(index == (spend < 100 ? 0 : 1));
		tier_earned(&anniversary, tiers, 3, &tally, joined, calendar_day(2025, 5, 1), &index);
		CHECK(index == 0);
		tallyset_free(&tally);
	}
	CHECK(tier_good_until(&calendar, joined, calendar_day(2024, 2, 3)) == calendar_day(2025, 12, 31));
	CHECK(tier_good_until(&anniversary, joined, calendar_day(2024, 2, 3)) == calendar_day(2025, 4, 30));
	CHECK(tier_after_review(&calendar, 2, 0) == 1 && tier_after_review(&rolling, 2, 0) == 0 &&
		  tier_after_review(&anniversary, 2, 0) == 2);
}

int
main(void)
{
	test_lots_laws();
	test_decoding_garbage();
	test_lots_by_day();
	test_overflow();
	test_tally();
	test_calendar();
	test_split();
	test_tiers();
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
