/*
 * affinity.c
 *	  Measures of how much two items go together, from four counts: n baskets,
 *	  of which n_a hold the one item, n_b the other, n_ab both.
 *
 * The definitions and where they come from stand in doc/copurchase.md.  Where
 * baskets were too large for their pairs to be counted, a cell of the table of
 * two by two can come out below zero; it counts as zero.
 */
#include "affinity.h"

#include <math.h>

static const char *const measure_name[AFFINITY_MEASURES] = {
	"count", "confidence", "lift", "leverage", "conviction", "jaccard", "cosine", "kulczynski", "chi_square",
	"log_likelihood"
};

/* A measure's name. */
const char *
affinity_measure_name(AffinityMeasure measure)
{
	return measure_name[measure];
}

/* How much less often a is without b than it would be by chance. */
static double
conviction(int64 n, int64 n_a, int64 n_b, int64 n_ab)
{
	if (n_ab == n_a)
		return INFINITY;
	return (1 - (double) n_b / n) / (1 - (double) n_ab / n_a);
}

/* Pearson's chi-square of the table of two by two, without a correction for continuity. */
static double
chi_square(int64 n, int64 n_a, int64 n_b, int64 n_ab)
{
	double		both = (double) n_ab;
	double		a = (double) (n_a - n_ab);
	double		b = (double) (n_b - n_ab);
	double		neither = (double) (n - n_a - n_b + n_ab);
	double		product = both * neither - a * b;
	double		below = (double) n_a * (double) (n - n_a) * (double) n_b * (double) (n - n_b);

	return below > 0 ? (double) n * product * product / below : NAN;
}

/* One cell's part of the log-likelihood ratio. */
static double
likelihood_part(int64 n, int64 cell, int64 row, int64 column)
{
	if (cell <= 0 || row <= 0 || column <= 0)
		return 0;
	return (double) cell * log((double) cell * (double) n / ((double) row * (double) column));
}

/* Dunning's log-likelihood ratio of the table of two by two. */
static double
log_likelihood(int64 n, int64 n_a, int64 n_b, int64 n_ab)
{
	double		sum = likelihood_part(n, n_ab, n_a, n_b);

	sum += likelihood_part(n, n_a - n_ab, n_a, n - n_b);
	sum += likelihood_part(n, n_b - n_ab, n - n_a, n_b);
	sum += likelihood_part(n, n - n_a - n_b + n_ab, n - n_a, n - n_b);
	return sum > 0 ? 2 * sum : 0;
}

/* All measures. */
void
affinity_of(int64 n, int64 n_a, int64 n_b, int64 n_ab, Affinity *affinity)
{
	double		either = (double) (n_a + n_b - n_ab);
	double		product = (double) n_a * (double) n_b;

	affinity->support = (double) n_ab / n;
	affinity->confidence_ab = (double) n_ab / n_a;
	affinity->confidence_ba = (double) n_ab / n_b;
	affinity->lift = (double) n_ab * n / product;
	affinity->leverage = (double) n_ab / n - product / ((double) n * n);
	affinity->conviction_ab = conviction(n, n_a, n_b, n_ab);
	affinity->conviction_ba = conviction(n, n_b, n_a, n_ab);
	affinity->jaccard = (double) n_ab / either;
	affinity->cosine = (double) n_ab / sqrt(product);
	affinity->kulczynski = (affinity->confidence_ab + affinity->confidence_ba) / 2;
	affinity->imbalance_ratio = fabs((double) (n_a - n_b)) / either;
	affinity->chi_square = chi_square(n, n_a, n_b, n_ab);
	affinity->log_likelihood = log_likelihood(n, n_a, n_b, n_ab);
}

/*
 * One measure of the step from a to b, larger is closer.  Chi-square and the
 * log-likelihood ratio say how sure it is that two items have to do with each
 * other, either way: below chance they are taken as negative.
 */
double
affinity_measure(AffinityMeasure measure, int64 n, int64 n_a, int64 n_b, int64 n_ab)
{
	double		product = (double) n_a * (double) n_b;
	double		sign = (double) n_ab * (double) n >= product ? 1 : -1;

	switch (measure)
	{
		case AFFINITY_COUNT:
			return (double) n_ab;
		case AFFINITY_CONFIDENCE:
			return (double) n_ab / n_a;
		case AFFINITY_LIFT:
			return (double) n_ab * n / product;
		case AFFINITY_LEVERAGE:
			return (double) n_ab / n - product / ((double) n * n);
		case AFFINITY_CONVICTION:
			return conviction(n, n_a, n_b, n_ab);
		case AFFINITY_JACCARD:
			return (double) n_ab / (double) (n_a + n_b - n_ab);
		case AFFINITY_COSINE:
			return (double) n_ab / sqrt(product);
		case AFFINITY_KULCZYNSKI:
			return ((double) n_ab / n_a + (double) n_ab / n_b) / 2;
		case AFFINITY_CHI_SQUARE:
			{
				double		chi = chi_square(n, n_a, n_b, n_ab);

				return isnan(chi) ? 0 : sign * chi;
			}
		default:
			return sign * log_likelihood(n, n_a, n_b, n_ab);
	}
}
