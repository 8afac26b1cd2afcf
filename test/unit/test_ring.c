/*
 * test_ring.c
 *	  Rings of sub-buckets against an exact log of events: never over the
 *	  maximum in any window, and nothing refused that would not have been in a
 *	  window one bucket longer.
 */
#include <stdio.h>
#include <string.h>

#include "ring.h"

#define CASES	100000
#define EVENTS	40

static long passed = 0;
static long failed = 0;
static uint64 seed = 42;

#define CHECK(condition) \
	do { \
		if (condition) \
			passed++; \
		else if (failed++ < 20) \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
	} while (0)

typedef struct Entry
{
	int64		at;
	int64		amount;
} Entry;

static int64
pick(int64 n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (int64) ((seed >> 33) % (uint64) n);
}

/* The fullest window [t - length, t] of a log that holds an instant; both ends count. */
static int64
fullest(const Entry *log, int n, int64 at, int64 length)
{
	int64		most = 0;

	for (int i = -1; i < n; i++)
	{
		int64		end = i < 0 ? at : log[i].at;
		int64		sum = 0;

		if (end < at || end - length > at)
			continue;
		for (int j = 0; j < n; j++)
		{
			if (log[j].at <= end && log[j].at >= end - length)
				sum += log[j].amount;
		}
		if (sum > most)
			most = sum;
	}
	return most;
}

/* A ring that was written and read is the same. */
static void
check_stored_form(Ring *ring)
{
	uint8	   *bytes = malloc(ring_encoded_size(ring));
	size_t		length = ring_encode(ring, bytes);
	Ring		copy;

	CHECK(ring_decode(bytes, length, &copy) == CORE_OK);
	CHECK(copy.buckets == ring->buckets && copy.head == ring->head);
	CHECK(memcmp(copy.sum, ring->sum, sizeof(int64) * ring_size(ring)) == 0);
	free(copy.sum);
	/* a part of it may be a ring or none, but is never read beyond */
	for (size_t cut = 0; cut < length; cut++)
	{
		copy.sum = NULL;
		(void) ring_decode(bytes, cut, &copy);
		free(copy.sum);
	}
	free(bytes);
}

/* One subject's life: events in time and late, some taken back. */
static void
run_case(void)
{
	int			buckets = 1 + (int) pick(12);
	int64		width = 1 + pick(7);
	int64		length = buckets * width;
	int64		maximum = pick(12);
	int64		now = pick(1000) - 500;
	int64		newest = INT64_MIN;
	Entry		log[EVENTS];
	int			n = 0;
	Ring		ring;

	ring_init(&ring, buckets);
	for (int i = 0; i < EVENTS; i++)
	{
		int64		at = now - (pick(3) == 0 ? pick(3 * length) : 0);
		int64		amount = 1 + pick(3);
		int64		used;
		bool		known = ring_used(&ring, ring_bucket(at, width), &used);
		int64		left = known && maximum > used ? maximum - used : 0;
		int64		given = amount < left ? amount : left;

		now += pick(5) == 0 ? pick(3 * length) : pick(width + 1);
		if (n > 0 && pick(8) == 0)
		{
			int			gone = (int) pick(n);

			ring_add(&ring, ring_bucket(log[gone].at, width), -log[gone].amount);
			log[gone] = log[--n];
			continue;
		}
		/* what is refused although it is not too late would be over in a longer window */
		if (given < amount && known)
			CHECK(fullest(log, n, at, length + width - 1) + amount > maximum);
		if (!known)
			CHECK(newest - at > length - width);
		if (given == 0)
			continue;
		ring_add(&ring, ring_bucket(at, width), given);
		log[n].at = at;
		log[n++].amount = given;
		newest = at > newest ? at : newest;
		CHECK(fullest(log, n, at, length) <= maximum);
	}
	for (int i = 0; i < n; i++)
		CHECK(fullest(log, n, log[i].at, length) <= maximum);
	check_stored_form(&ring);
	free(ring.sum);
}

int
main(void)
{
	for (int i = 0; i < CASES; i++)
		run_case();
	CHECK(ring_bucket(-1, 10) == -1 && ring_bucket(-10, 10) == -1 && ring_bucket(-11, 10) == -2);
	CHECK(ring_bucket(0, 10) == 0 && ring_bucket(9, 10) == 0 && ring_bucket(10, 10) == 1);
	printf("%ld passed, %ld failed\n", passed, failed);
	return failed != 0;
}
