/*
 * split.c
 *	  The largest remainder method (Hamilton's), in integers.
 *
 * Pure: knows nothing but numbers.
 */
#include "split.h"

/* palloc aligns to 8 bytes, less than the compiler expects of 128 bits */
typedef __int128 Wide __attribute__((aligned(8)));

typedef struct Remainder
{
	Wide		value;
	int			position;
} Remainder;

/* Larger remainders first, then the earlier part. */
static int
compare_remainders(const void *a, const void *b)
{
	const Remainder *left = a;
	const Remainder *right = b;

	if (left->value != right->value)
		return left->value > right->value ? -1 : 1;
	return left->position - right->position;
}

/*
 * Split a total in proportion to weights that are not negative.
 *
 * The shares add up to the total exactly.  Where every weight is zero the
 * first part takes all.  |total| and each weight stay below 2^62, n below 2^20.
 */
void
split_largest_remainder(int64 total, const int64 *weight, int n, int64 *share)
{
	Remainder  *remainder;
	__int128	sum = 0;
	int64		magnitude = total < 0 ? -total : total;
	int64		left = magnitude;

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
	{
		sum += weight[i];
		share[i] = 0;
	}
	if (sum == 0 || n == 1)
	{
		share[0] = total;
		return;
	}
	remainder = core_alloc(sizeof(Remainder) * n);
	for (int i = 0; i < n; i++)
	{
		__int128	product = (__int128) magnitude * weight[i];

		share[i] = (int64) (product / sum);
		left -= share[i];
		remainder[i].value = product % sum;
		remainder[i].position = i;
	}
	if (left > 0)
	{
		qsort(remainder, n, sizeof(Remainder), compare_remainders);
		for (int i = 0; i < left; i++)
			share[remainder[i].position]++;
	}
	core_free(remainder);
	if (total < 0)
	{
		for (int i = 0; i < n; i++)
			share[i] = -share[i];
	}
}
