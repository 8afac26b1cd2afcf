/*
 * affinity.h
 *	  Measures of how much two items go together, from four counts.
 *
 * Statistics, not points or money: binary floating point.
 */
#ifndef LOYALTY_AFFINITY_H
#define LOYALTY_AFFINITY_H

#include "core.h"

typedef struct Affinity
{
	double		support;
	double		confidence_ab;
	double		confidence_ba;
	double		lift;
	double		leverage;
	double		conviction_ab;
	double		conviction_ba;
	double		jaccard;
	double		cosine;
	double		kulczynski;
	double		imbalance_ratio;
	double		chi_square;
	double		log_likelihood;
} Affinity;

/* what candidates can be ordered by */
typedef enum AffinityMeasure
{
	AFFINITY_COUNT,
	AFFINITY_CONFIDENCE,
	AFFINITY_LIFT,
	AFFINITY_LEVERAGE,
	AFFINITY_CONVICTION,
	AFFINITY_JACCARD,
	AFFINITY_COSINE,
	AFFINITY_KULCZYNSKI,
	AFFINITY_CHI_SQUARE,
	AFFINITY_LOG_LIKELIHOOD,
	AFFINITY_MEASURES
} AffinityMeasure;

extern void affinity_of(int64 n, int64 n_a, int64 n_b, int64 n_ab, Affinity *affinity);
extern double affinity_measure(AffinityMeasure measure, int64 n, int64 n_a, int64 n_b, int64 n_ab);
extern const char *affinity_measure_name(AffinityMeasure measure);

#endif							/* LOYALTY_AFFINITY_H */
