/*
 * ring.c
 *	  A sliding window over sub-buckets: what is used of it, adding, taking
 *	  back, and the stored form.
 *
 * Pure: knows no tables, no clock, no server.
 *
 * A window of W = n buckets touches n + 1 of them at most, so that whoever
 * admits no more than the maximum into any n + 1 buckets in a row admits no
 * more into any window, both of its ends included; the price is that it may
 * refuse what comes up to one bucket's width after the window.
 */
#include "ring.h"

/* How many buckets are remembered. */
int
ring_size(const Ring *ring)
{
	return 2 * ring->buckets + 1;
}

/* Make an empty ring. */
void
ring_init(Ring *ring, int buckets)
{
	ring->buckets = buckets;
	ring->head = RING_EMPTY;
	ring->sum = core_alloc(sizeof(int64) * ring_size(ring));
	memset(ring->sum, 0, sizeof(int64) * ring_size(ring));
}

/* The bucket of an instant: whole widths towards minus infinity. */
int64
ring_bucket(int64 at, int64 width)
{
	int64		quotient = at / width;

	return at % width < 0 ? quotient - 1 : quotient;
}

/* Where a bucket's sum stands. */
static int64 *
place(const Ring *ring, int64 bucket)
{
	int64		size = ring_size(ring);
	int64		at = bucket % size;

	return &ring->sum[at < 0 ? at + size : at];
}

/* The sum of a bucket: none before what is remembered, none after the head. */
int64
ring_sum(const Ring *ring, int64 bucket)
{
	if (ring->head == RING_EMPTY || bucket > ring->head || bucket <= ring->head - ring_size(ring))
		return 0;
	return *place(ring, bucket);
}

/*
 * What is used of the fullest window that an event of a bucket falls into;
 * false where too much is forgotten to tell.
 */
bool
ring_used(const Ring *ring, int64 bucket, int64 *used)
{
	int64		sum = 0;

	*used = 0;
	if (ring->head == RING_EMPTY)
		return true;
	if (bucket < ring->head - ring->buckets)
		return false;
	for (int64 b = bucket - ring->buckets; b <= bucket; b++)
		sum += ring_sum(ring, b);
	*used = sum;
	for (int64 last = bucket + 1; last <= bucket + ring->buckets && last <= ring->head; last++)
	{
		sum += ring_sum(ring, last) - ring_sum(ring, last - ring->buckets - 1);
		if (sum > *used)
			*used = sum;
	}
	return true;
}

/* Make a bucket the newest one, and forget what is then too old. */
static void
advance(Ring *ring, int64 bucket)
{
	int			size = ring_size(ring);

	if (ring->head == RING_EMPTY || bucket - ring->head >= size)
		memset(ring->sum, 0, sizeof(int64) * size);
	else
	{
		for (int64 b = ring->head + 1; b <= bucket; b++)
			*place(ring, b) = 0;
	}
	ring->head = bucket;
}

/* Add an amount, or take one back; what is forgotten stays so. */
void
ring_add(Ring *ring, int64 bucket, int64 amount)
{
	if (amount == 0)
		return;
	if (ring->head == RING_EMPTY || bucket > ring->head)
		advance(ring, bucket);
	if (bucket > ring->head - ring_size(ring))
		*place(ring, bucket) += amount;
}

/* The most bytes that a ring takes. */
size_t
ring_encoded_size(const Ring *ring)
{
	return CORE_MAX_VARINT * (2 + 2 * (size_t) ring_size(ring));
}

/* Write a ring: buckets, head, and for each sum that is not zero its distance from the last one. */
size_t
ring_encode(const Ring *ring, uint8 *bytes)
{
	size_t		n = core_put_varint(bytes, (uint64) ring->buckets);
	int			last = -1;

	if (ring->head == RING_EMPTY)
		return n;
	n += core_put_varint(bytes + n, core_zigzag(ring->head));
	for (int age = 0; age < ring_size(ring); age++)
	{
		int64		sum = *place(ring, ring->head - age);

		if (sum == 0)
			continue;
		n += core_put_varint(bytes + n, (uint64) (age - last));
		n += core_put_varint(bytes + n, core_zigzag(sum));
		last = age;
	}
	return n;
}

/* Read the next number; false where there is none. */
static bool
next_number(const uint8 **at, const uint8 *end, uint64 *value)
{
	size_t		length = core_get_varint(*at, end - *at, value);

	*at += length;
	return length > 0;
}

/* Read the sums of a ring. */
static CoreStatus
decode_sums(const uint8 *at, const uint8 *end, Ring *ring)
{
	int64		age = -1;
	uint64		gap;
	uint64		sum;

	while (at < end)
	{
		if (!next_number(&at, end, &gap) || !next_number(&at, end, &sum))
			return CORE_CORRUPT;
		if (gap < 1 || gap > (uint64) (ring_size(ring) - 1 - age))
			return CORE_CORRUPT;
		age += (int64) gap;
		*place(ring, ring->head - age) = core_unzigzag(sum);
	}
	return CORE_OK;
}

/* Read what ring_encode wrote. */
CoreStatus
ring_decode(const uint8 *bytes, size_t length, Ring *ring)
{
	const uint8 *at = bytes;
	const uint8 *end = bytes + length;
	uint64		value;

	if (!next_number(&at, end, &value) || value < 1 || value > RING_MAX_BUCKETS)
		return CORE_CORRUPT;
	ring_init(ring, (int) value);
	if (at == end)
		return CORE_OK;
	if (!next_number(&at, end, &value))
		return CORE_CORRUPT;
	ring->head = core_unzigzag(value);
	if (ring->head < -RING_MAX_BUCKET || ring->head > RING_MAX_BUCKET)
		return CORE_CORRUPT;
	return decode_sums(at, end, ring);
}
