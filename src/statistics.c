/*
 * statistics.c
 *	  Models of buying: BG/NBD (Fader, Hardie and Lee 2005, "Counting Your
 *	  Customers" the Easy Way) and gamma-gamma (Fader and Hardie 2013), fitted by
 *	  maximum likelihood, and Gini's coefficient.
 *
 * Pure: knows nothing but numbers.  The only room but for its callers in which
 * a float is right: nothing here is points or money.
 */
#include "statistics.h"

#include <math.h>

#define MAX_EVALUATIONS	4000
#define MAX_TERMS		200000

/* Order customers by what is known of them. */
static int
compare_customers(const void *left, const void *right)
{
	const Customer *a = left;
	const Customer *b = right;

	if (a->x != b->x)
		return a->x < b->x ? -1 : 1;
	if (a->t_x != b->t_x)
		return a->t_x < b->t_x ? -1 : 1;
	if (a->T != b->T)
		return a->T < b->T ? -1 : 1;
	return 0;
}

/*
 * Sort customers and make those that are alike one, with the sum of their
 * weights; returns how many are left.  A likelihood is then a sum over fewer,
 * and does not depend on the order in which they came.
 */
int64
customers_group(Customer *customers, int64 n)
{
	int64		kept = 0;

	qsort(customers, n, sizeof(Customer), compare_customers);
	for (int64 i = 0; i < n; i++)
	{
		if (kept > 0 && compare_customers(&customers[kept - 1], &customers[i]) == 0)
			customers[kept - 1].weight += customers[i].weight;
		else
			customers[kept++] = customers[i];
	}
	return kept;
}

/* Order numbers. */
static int
compare_doubles(const void *left, const void *right)
{
	double		a = *(const double *) left;
	double		b = *(const double *) right;

	return (a > b) - (a < b);
}

/* Gini's coefficient of n values, which it sorts; NaN where they sum to nothing. */
double
statistics_gini(double *values, int64 n)
{
	double		total = 0;
	double		ranked = 0;

	qsort(values, n, sizeof(double), compare_doubles);
	for (int64 i = 0; i < n; i++)
	{
		total += values[i];
		ranked += (double) (i + 1) * values[i];
	}
	if (n == 0 || total == 0)
		return NAN;
	return 2 * ranked / ((double) n * total) - ((double) n + 1) / (double) n;
}

/* Gauss's series 2F1(a, b; c; z) for 0 <= z < 1. */
double
statistics_hypergeometric(double a, double b, double c, double z)
{
	double		term = 1;
	double		sum = 1;

	for (int n = 0; n < MAX_TERMS; n++)
	{
		term *= (a + n) * (b + n) / ((c + n) * (n + 1)) * z;
		sum += term;
		/* the ratio of terms has settled once n is past the parameters */
		if (fabs(term) <= 1e-15 * fabs(sum) && n > fabs(a) + fabs(b) + fabs(c))
			break;
	}
	return sum;
}

/* The log-likelihood of one customer (equation 6 of the paper, in logarithms). */
static double
customer_log_likelihood(const Bgnbd *m, const Customer *c, double constant)
{
	double		purchases = lgamma(m->r + c->x);
	double		beta = lgamma(m->b + c->x) - lgamma(m->a + m->b + c->x);
	double		still = -(m->r + c->x) * log(m->alpha + c->T);
	double		gone;

	if (c->x <= 0)
		return constant + purchases + beta + still;
	gone = log(m->a) - log(m->b + c->x - 1) - (m->r + c->x) * log(m->alpha + c->t_x);
	if (gone > still)
		return constant + purchases + beta + gone + log1p(exp(still - gone));
	return constant + purchases + beta + still + log1p(exp(gone - still));
}

/* The log-likelihood of n customers. */
double
bgnbd_log_likelihood(const Bgnbd *m, const Customer *customers, int64 n)
{
	double		constant = m->r * log(m->alpha) - lgamma(m->r) + lgamma(m->a + m->b) - lgamma(m->b);
	double		sum = 0;

	for (int64 i = 0; i < n; i++)
		sum += customers[i].weight * customer_log_likelihood(m, &customers[i], constant);
	return sum;
}

/* The odds of having gone against still being there, after a customer's last purchase. */
static double
odds_of_gone(const Bgnbd *m, const Customer *c)
{
	if (c->x <= 0)
		return 0;				/* whoever has not bought again has had no chance to go */
	return m->a / (m->b + c->x - 1) * exp((m->r + c->x) * log((m->alpha + c->T) / (m->alpha + c->t_x)));
}

/* The probability that a customer is still one. */
double
bgnbd_alive(const Bgnbd *model, const Customer *customer)
{
	return 1 / (1 + odds_of_gone(model, customer));
}

/* The expectation away from its removable singularities. */
static double
expected_plain(const Bgnbd *m, const Customer *c, double t)
{
	double		z = t / (m->alpha + c->T + t);
	double		top = m->a + m->b + c->x - 1;

	/* Euler's transformation of the paper's series: converges faster, and 1 - z goes with it */
	double		series = statistics_hypergeometric(m->a + m->b - 1 - m->r, m->a - 1, top, z);
	double		lost = exp((m->a - 1) * log1p(-z)) * series;

	return top / (m->a - 1) * (1 - lost) / (1 + odds_of_gone(m, c));
}

/* The expected number of purchases in the time t from now (equation 10 of the paper). */
double
bgnbd_expected(const Bgnbd *model, const Customer *customer, double t)
{
	const double step = 1e-5;
	Bgnbd		below = *model;
	Bgnbd		above = *model;

	if (t <= 0)
		return 0;
	if (fabs(model->a - 1) > step && fabs(model->a + model->b + customer->x - 1) > step)
		return expected_plain(model, customer, t);
	/* 0 / 0 there, though the value is smooth */
	below.a -= 3 * step;
	above.a += 3 * step;
	return (expected_plain(&below, customer, t) + expected_plain(&above, customer, t)) / 2;
}

/* The mean of the log-likelihoods: equation 1 of Fader and Hardie 2013. */
double
gamma_gamma_log_likelihood(const GammaGamma *g, const Spender *spenders, int64 n)
{
	double		sum = 0;

	for (int64 i = 0; i < n; i++)
	{
		const Spender *s = &spenders[i];
		double		px = g->p * s->x;

		sum += s->weight * (lgamma(px + g->q) - lgamma(px) - lgamma(g->q) + g->q * log(g->v)
							+ (px - 1) * log(s->m) + px * log(s->x)
							- (px + g->q) * log(s->x * s->m + g->v));
	}
	return sum;
}

/*
 * The expected mean worth of a customer's purchases: between the customer's own
 * mean and that of all (equation 5).  NaN where all have none (q at most 1).
 */
double
gamma_gamma_mean(const GammaGamma *g, const Spender *s)
{
	double		px = g->p * s->x;

	if (px + g->q <= 1)
		return NAN;
	return g->p * (g->v + s->x * s->m) / (px + g->q - 1);
}

typedef struct Simplex
{
	Objective	objective;
	void	   *state;
	int			n;
	int			evaluations;
	double		at[STATISTICS_MAX_DIMENSIONS + 1][STATISTICS_MAX_DIMENSIONS];
	double		value[STATISTICS_MAX_DIMENSIONS + 1];
} Simplex;

/* Evaluate; what is no number is as bad as can be. */
static double
evaluate(Simplex *s, const double *at)
{
	double		value = s->objective(at, s->state);

	s->evaluations++;
	return isfinite(value) ? value : HUGE_VAL;
}

/* Keep the corners in order, best first. */
static void
sort_simplex(Simplex *s)
{
	for (int i = 1; i <= s->n; i++)
	{
		for (int j = i; j > 0 && s->value[j] < s->value[j - 1]; j--)
		{
			double		value = s->value[j];

			s->value[j] = s->value[j - 1];
			s->value[j - 1] = value;
			for (int k = 0; k < s->n; k++)
			{
				double		x = s->at[j][k];

				s->at[j][k] = s->at[j - 1][k];
				s->at[j - 1][k] = x;
			}
		}
	}
}

/* The point on the line from the worst corner through the middle of the others. */
static double
probe(Simplex *s, double factor, double *point)
{
	for (int k = 0; k < s->n; k++)
	{
		double		middle = 0;

		for (int i = 0; i < s->n; i++)
			middle += s->at[i][k] / s->n;
		point[k] = middle + factor * (s->at[s->n][k] - middle);
	}
	return evaluate(s, point);
}

/* Put a point in place of the worst corner. */
static void
replace_worst(Simplex *s, const double *point, double value)
{
	memcpy(s->at[s->n], point, sizeof(double) * s->n);
	s->value[s->n] = value;
}

/* Draw all corners half the way to the best one. */
static void
shrink(Simplex *s)
{
	for (int i = 1; i <= s->n; i++)
	{
		for (int k = 0; k < s->n; k++)
			s->at[i][k] = (s->at[i][k] + s->at[0][k]) / 2;
		s->value[i] = evaluate(s, s->at[i]);
	}
}

/* One step of Nelder and Mead's method. */
static void
improve(Simplex *s)
{
	double		point[STATISTICS_MAX_DIMENSIONS];
	double		other[STATISTICS_MAX_DIMENSIONS];
	double		reflected = probe(s, -1, point);

	if (reflected < s->value[0])
	{
		double		expanded = probe(s, -2, other);

		if (expanded < reflected)
			replace_worst(s, other, expanded);
		else
			replace_worst(s, point, reflected);
	}
	else if (reflected < s->value[s->n - 1])
		replace_worst(s, point, reflected);
	else
	{
		bool		outside = reflected < s->value[s->n];
		double		contracted = probe(s, outside ? -0.5 : 0.5, other);

		if (contracted < (outside ? reflected : s->value[s->n]))
			replace_worst(s, other, contracted);
		else
			shrink(s);
	}
	sort_simplex(s);
}

/* Go down from a corner until the simplex is small and flat; tells whether it came to be so. */
static bool
descend(Simplex *s, const double *start, double size)
{
	for (int i = 0; i <= s->n; i++)
	{
		memcpy(s->at[i], start, sizeof(double) * s->n);
		if (i > 0)
			s->at[i][i - 1] += size;
		s->value[i] = evaluate(s, s->at[i]);
	}
	sort_simplex(s);
	while (s->evaluations < MAX_EVALUATIONS)
	{
		double		extent = 0;

		for (int k = 0; k < s->n; k++)
			extent = fmax(extent, fabs(s->at[s->n][k] - s->at[0][k]));
		if (extent < 1e-7 && s->value[s->n] - s->value[0] <= 1e-9 * (1 + fabs(s->value[0])))
			return true;
		improve(s);
	}
	return false;
}

/*
 * Minimise by Nelder and Mead's method, begun again from where it ended until
 * that gains nothing: a simplex may collapse before the bottom.  Tells whether
 * it got there; at holds the start, then the best point.
 */
bool
statistics_minimise(Objective objective, void *state, int n, double *at, double *value, int *evaluations)
{
	Simplex		s = {.objective = objective,.state = state,.n = n};
	bool		converged = descend(&s, at, 0.5);

	for (int again = 0; again < 5 && converged; again++)
	{
		double		before = s.value[0];
		double		start[STATISTICS_MAX_DIMENSIONS];

		memcpy(start, s.at[0], sizeof(double) * n);
		converged = descend(&s, start, 0.2);
		if (before - s.value[0] <= 1e-8 * (1 + fabs(before)))
			break;
	}
	memcpy(at, s.at[0], sizeof(double) * n);
	*value = s.value[0];
	*evaluations = s.evaluations;
	return converged;
}

typedef struct Data
{
	const void *rows;
	int64		n;
	Hook		hook;
} Data;

/* A parameter from its logarithm, which stays where the logarithms of gamma are exact. */
static double
parameter(double logarithm)
{
	if (logarithm < -12 || logarithm > 14)
		return NAN;
	return exp(logarithm);
}

/* The negative log-likelihood at the logarithms of r, alpha, a and b. */
static double
bgnbd_objective(const double *at, void *state)
{
	Data	   *data = state;
	Bgnbd		m = {parameter(at[0]), parameter(at[1]), parameter(at[2]), parameter(at[3])};

	if (data->hook)
		data->hook();
	if (isnan(m.r + m.alpha + m.a + m.b))
		return NAN;
	return -bgnbd_log_likelihood(&m, data->rows, data->n);
}

/* Fit r, alpha, a and b to customers. */
void
bgnbd_fit(const Customer *customers, int64 n, Hook hook, Bgnbd *model, Fit *fit)
{
	Data		data = {customers, n, hook};
	double		at[4] = {0, 0, 0, 0};
	double		time = 0;
	double		value;

	fit->customers = 0;
	for (int64 i = 0; i < n; i++)
	{
		fit->customers += customers[i].weight;
		time += customers[i].weight * customers[i].T;
	}
	/* begin where a customer buys some times in the time looked at, whatever its unit */
	if (time > 0)
		at[1] = log(time / fit->customers / 4);
	fit->converged = statistics_minimise(bgnbd_objective, &data, 4, at, &value, &fit->evaluations);
	fit->log_likelihood = -value;
	*model = (Bgnbd) {exp(at[0]), exp(at[1]), exp(at[2]), exp(at[3])};
}

/* The negative log-likelihood at the logarithms of p, q and v. */
static double
gamma_gamma_objective(const double *at, void *state)
{
	Data	   *data = state;
	GammaGamma	g = {parameter(at[0]), parameter(at[1]), parameter(at[2])};

	if (data->hook)
		data->hook();
	if (isnan(g.p + g.q + g.v))
		return NAN;
	return -gamma_gamma_log_likelihood(&g, data->rows, data->n);
}

/* Fit p, q and v to spenders. */
void
gamma_gamma_fit(const Spender *spenders, int64 n, Hook hook, GammaGamma *model, Fit *fit)
{
	Data		data = {spenders, n, hook};
	double		at[3] = {1, 1, 0};
	double		money = 0;
	double		value;

	fit->customers = 0;
	for (int64 i = 0; i < n; i++)
	{
		fit->customers += spenders[i].weight;
		money += spenders[i].weight * spenders[i].m;
	}
	if (money > 0)
		at[2] = log(money / fit->customers);
	fit->converged = statistics_minimise(gamma_gamma_objective, &data, 3, at, &value, &fit->evaluations);
	fit->log_likelihood = -value;
	*model = (GammaGamma) {exp(at[0]), exp(at[1]), exp(at[2])};
}
