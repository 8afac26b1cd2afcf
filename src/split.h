/*
 * split.h
 *	  Splitting a whole amount so that the parts add up: largest remainder.
 */
#ifndef LOYALTY_SPLIT_H
#define LOYALTY_SPLIT_H

#include "core.h"

extern void split_largest_remainder(int64 total, const int64 *weight, int n, int64 *share);

#endif							/* LOYALTY_SPLIT_H */
