/*
 * core.h
 *	  What the pure rooms stand on: fixed-width integers, checked arithmetic,
 *	  varints, an allocator that is palloc in the server and malloc in a unit
 *	  test (LOYALTY_CORE_ONLY), and a place to be cancelled at.
 */
#ifndef LOYALTY_CORE_H
#define LOYALTY_CORE_H

#ifdef LOYALTY_CORE_ONLY
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int32_t int32;
typedef int64_t int64;
typedef uint8_t uint8;
typedef uint32_t uint32;
typedef uint64_t uint64;

#define core_alloc(size)			malloc(size)
#define core_realloc(pointer, size) realloc((pointer), (size))
#define core_free(pointer)			free(pointer)
#define core_alloc_huge(size)		malloc(size)
#define core_realloc_huge(pointer, size) realloc((pointer), (size))
#define core_check_for_interrupts() ((void) 0)
#else
#include "postgres.h"

#include "miscadmin.h"

#define core_alloc(size)			palloc(size)
#define core_realloc(pointer, size) repalloc((pointer), (size))
#define core_free(pointer)			pfree(pointer)
#define core_alloc_huge(size)		MemoryContextAllocHuge(CurrentMemoryContext, (size))
#define core_realloc_huge(pointer, size) repalloc_huge((pointer), (size))
#define core_check_for_interrupts() CHECK_FOR_INTERRUPTS()
#endif

typedef enum CoreStatus
{
	CORE_OK,
	CORE_OVERFLOW,				/* a sum leaves the range of bigint */
	CORE_CORRUPT,				/* bytes that no encoder wrote */
	CORE_INVALID,				/* a value that the type does not allow */
	CORE_INSUFFICIENT,			/* not enough points */
	CORE_TOO_MANY				/* more elements than a value may have */
} CoreStatus;

/* Add, or tell that the sum overflows. */
static inline CoreStatus
core_add64(int64 a, int64 b, int64 *sum)
{
	return __builtin_add_overflow(a, b, sum) ? CORE_OVERFLOW : CORE_OK;
}

/* Negate, or tell that it overflows. */
static inline CoreStatus
core_neg64(int64 a, int64 *result)
{
	return __builtin_sub_overflow((int64) 0, a, result) ? CORE_OVERFLOW : CORE_OK;
}

/* Map small magnitudes of either sign to small numbers. */
static inline uint64
core_zigzag(int64 value)
{
	return ((uint64) value << 1) ^ (uint64) (value >> 63);
}

static inline int64
core_unzigzag(uint64 value)
{
	return (int64) (value >> 1) ^ -(int64) (value & 1);
}

#define CORE_MAX_VARINT 10

/* Write a LEB128 varint; returns its length. */
static inline size_t
core_put_varint(uint8 *at, uint64 value)
{
	size_t		n = 0;

	while (value >= 0x80)
	{
		at[n++] = (uint8) (value | 0x80);
		value >>= 7;
	}
	at[n++] = (uint8) value;
	return n;
}

/* Read a canonical LEB128 varint; returns its length, 0 where there is none. */
static inline size_t
core_get_varint(const uint8 *at, size_t available, uint64 *value)
{
	uint64		result = 0;

	for (size_t n = 0; n < available && n < CORE_MAX_VARINT; n++)
	{
		uint64		bits = at[n] & 0x7f;

		if (n == CORE_MAX_VARINT - 1 && bits > 1)
			return 0;
		result |= bits << (7 * n);
		if ((at[n] & 0x80) == 0)
		{
			if (n > 0 && bits == 0)
				return 0;		/* overlong */
			*value = result;
			return n + 1;
		}
	}
	return 0;
}

#endif							/* LOYALTY_CORE_H */
