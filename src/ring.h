/*
 * ring.h
 *	  What happened in a sliding window, summed by sub-buckets.
 */
#ifndef LOYALTY_RING_H
#define LOYALTY_RING_H

#include "core.h"

#define RING_MAX_BUCKETS	1440
#define RING_MAX_SUM		INT64_C(1000000000000000)	/* most that a window admits */
#define RING_MAX_BUCKET		(INT64_C(1) << 62)
#define RING_EMPTY			INT64_MIN

/*
 * A window is as long as so many buckets; the newest one is the head.  Twice
 * a window is remembered, so that what comes up to a window late is judged
 * like what comes in time.
 */
typedef struct Ring
{
	int			buckets;
	int64		head;			/* RING_EMPTY: nothing yet */
	int64	   *sum;			/* of bucket b at b modulo ring_size */
} Ring;

extern void ring_init(Ring *ring, int buckets);
extern int	ring_size(const Ring *ring);
extern int64 ring_bucket(int64 at, int64 width);
extern int64 ring_sum(const Ring *ring, int64 bucket);
extern bool ring_used(const Ring *ring, int64 bucket, int64 *used);
extern void ring_add(Ring *ring, int64 bucket, int64 amount);
extern size_t ring_encode(const Ring *ring, uint8 *bytes);
extern size_t ring_encoded_size(const Ring *ring);
extern CoreStatus ring_decode(const uint8 *bytes, size_t length, Ring *ring);

#endif							/* LOYALTY_RING_H */
