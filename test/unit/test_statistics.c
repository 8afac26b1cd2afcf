/*
 * test_statistics.c
 *	  Models of buying against what can be had by other ways: integrals done
 *	  numerically, published figures, and the recovery of parameters from made-up
 *	  customers.
 */
#include <math.h>
#include <stdio.h>

#include "statistics.h"

#define PI 3.14159265358979323846

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

static const Bgnbd cdnow = {0.243, 4.414, 0.793, 2.426};

static int
near(double value, double expected, double relative)
{
	if (fabs(value - expected) <= relative * fmax(1e-300, fabs(expected)))
		return 1;
	printf("%.15g is not %.15g\n", value, expected);
	return 0;
}

/* A number between 0 and 1, both excluded. */
static double
uniform(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return ((double) (seed >> 11) + 0.5) / 9007199254740992.0;
}

/* Marsaglia and Tsang's gamma variate. */
static double
gamma_variate(double shape)
{
	double		d;
	double		c;

	if (shape < 1)
		return gamma_variate(shape + 1) * pow(uniform(), 1 / shape);
	d = shape - 1.0 / 3;
	c = 1 / sqrt(9 * d);
	for (;;)
	{
		double		x = sqrt(-2 * log(uniform())) * cos(2 * PI * uniform());
		double		v = pow(1 + c * x, 3);

		if (1 + c * x > 0 && log(uniform()) < x * x / 2 + d - d * v + d * log(v))
			return d * v;
	}
}

static double
beta_variate(double a, double b)
{
	double		x = gamma_variate(a);

	return x / (x + gamma_variate(b));
}

/*
 * The likelihood by its definition: the integral over the rate and the chance to
 * go of p(x, t_x, T | rate, chance), that is
 *   (1 - q)^x l^x e^(-l T) + [x > 0] q (1 - q)^(x - 1) l^x e^(-l t_x).
 * The chance's part is integrated on a grid, after a substitution that takes
 * the ends' infinities away.
 */
static double
likelihood_by_integration(const Bgnbd *m, const Customer *c)
{
	const int	steps = 400000;
	double		rate_alive = exp(lgamma(m->r + c->x) - lgamma(m->r) + m->r * log(m->alpha) - (m->r + c->x) * log(m->alpha + c->T));
	double		rate_gone = exp(lgamma(m->r + c->x) - lgamma(m->r) + m->r * log(m->alpha) - (m->r + c->x) * log(m->alpha + c->t_x));
	double		norm = exp(lgamma(m->a) + lgamma(m->b) - lgamma(m->a + m->b));
	double		sum = 0;

	for (int i = 0; i < steps; i++)
	{
		/* q = y^(1/a): the density q^(a-1) dq becomes dy / a */
		double		y = (i + 0.5) / steps;
		double		q = pow(y, 1 / m->a);
		double		density = pow(1 - q, m->b - 1) / m->a / norm;
		double		value = pow(1 - q, c->x) * rate_alive;

		if (c->x > 0)
			value += q * pow(1 - q, c->x - 1) * rate_gone;
		sum += density * value / steps;
	}
	return log(sum);
}

static void
test_likelihood(void)
{
	static const Customer customers[] = {
		{0, 0, 38.86, 1}, {1, 10, 10, 1}, {2, 30.43, 38.86, 1}, {7, 12, 30, 1}, {26, 36, 38, 1}
	};
	double		sum = 0;

	for (int i = 0; i < 5; i++)
	{
		CHECK(near(bgnbd_log_likelihood(&cdnow, &customers[i], 1), likelihood_by_integration(&cdnow, &customers[i]), 1e-4));
		sum += bgnbd_log_likelihood(&cdnow, &customers[i], 1);
	}
	CHECK(near(bgnbd_log_likelihood(&cdnow, customers, 5), sum, 1e-14));
}

/*
 * What a customer with a given rate and chance buys in a time t is (1 - e^(-l q t)) / q.
 * Weighed by the posterior of both, on a grid.
 */
static double
expected_by_integration(const Bgnbd *m, const Customer *c, double t)
{
	const int	grid = 1500;
	double		top = 0;
	double		bottom = 0;

	for (int i = 0; i < grid; i++)
	{
		double		q = pow((i + 0.5) / grid, 1 / m->a);
		double		weight_q = pow(1 - q, m->b - 1);

		for (int j = 0; j < grid; j++)
		{
			/* l = u / (1 - u), then to a power for the infinity at 0 */
			double		u = pow((j + 0.5) / grid, 1 / m->r);
			double		l = u / (1 - u);
			double		density = weight_q * exp(-m->alpha * l) * pow(1 - u, -m->r - 1);
			double		alive = pow(1 - q, c->x) * pow(l, c->x) * exp(-l * c->T);
			double		gone = c->x > 0 ? q * pow(1 - q, c->x - 1) * pow(l, c->x) * exp(-l * c->t_x) : 0;

			bottom += density * (alive + gone);
			top += density * alive * (1 - exp(-l * q * t)) / q;
		}
	}
	return top / bottom;
}

static void
test_expected(void)
{
	static const Customer customers[] = {{0, 0, 38.86, 1}, {2, 30.43, 38.86, 1}, {5, 3, 38, 1}, {12, 36, 38, 1}};
	Customer	nobody = {0, 0, 0, 1};

	/* printed in Fader, Hardie and Lee's note on the model in a spreadsheet */
	CHECK(fabs(bgnbd_expected(&cdnow, &customers[1], 39) - 1.226) < 0.0005);
	for (int i = 0; i < 4; i++)
		CHECK(near(bgnbd_expected(&cdnow, &customers[i], 39), expected_by_integration(&cdnow, &customers[i], 39), 5e-3));
	CHECK(bgnbd_expected(&cdnow, &customers[1], 0) == 0);
	CHECK(near(bgnbd_expected(&cdnow, &nobody, 20), expected_by_integration(&cdnow, &nobody, 20), 5e-3));
	/* smooth over the removable singularities */
	for (double d = 1e-3; d > 1e-9; d /= 10)
	{
		Bgnbd		below = {0.243, 4.414, 1 - d, 2.426};
		Bgnbd		at = {0.243, 4.414, 1, 2.426};

		CHECK(near(bgnbd_expected(&below, &customers[1], 39), bgnbd_expected(&at, &customers[1], 39), d + 1e-6));
	}
	CHECK(bgnbd_alive(&cdnow, &customers[0]) == 1);
	CHECK(bgnbd_alive(&cdnow, &customers[2]) < 0.01);
}

static void
test_hypergeometric(void)
{
	/* 2F1(1, 1; 2; z) = -ln(1 - z) / z; 2F1(a, b; b; z) = (1 - z)^-a */
	CHECK(near(statistics_hypergeometric(1, 1, 2, 0.5), -log(0.5) / 0.5, 1e-14));
	CHECK(near(statistics_hypergeometric(1, 1, 2, 0.999), -log(0.001) / 0.999, 1e-11));
	CHECK(near(statistics_hypergeometric(0.3, 2.5, 2.5, 0.9), pow(0.1, -0.3), 1e-13));
	CHECK(near(statistics_hypergeometric(-2, 3, 4, 0.5), 1 - 2 * 3 / 4.0 * 0.5 + 2 * 1 * 3 * 4 / (4.0 * 5 * 2) * 0.25, 1e-15));
}

/* Customers that buy as the model says, looked at for a time each. */
static void
make_customers(const Bgnbd *m, Customer *customers, int n)
{
	for (int i = 0; i < n; i++)
	{
		double		rate = gamma_variate(m->r) / m->alpha;
		double		chance = beta_variate(m->a, m->b);
		Customer	c = {0, 0, 27 + 12 * uniform(), 1};
		double		at = 0;

		for (;;)
		{
			at += -log(uniform()) / rate;
			if (at > c.T)
				break;
			c.x++;
			c.t_x = at;
			if (uniform() < chance)
				break;
		}
		customers[i] = c;
	}
}

static void
test_recovery(void)
{
	enum {N = 40000};
	static Customer customers[N];
	static Customer doubled[2 * N];
	Bgnbd		m = {0.8, 5, 0.9, 2.5};
	Bgnbd		found;
	Bgnbd		again;
	Fit			fit;
	Fit			fit_again;

	make_customers(&m, customers, N);
	bgnbd_fit(customers, N, NULL, &found, &fit);
	CHECK(fit.converged && fit.customers == N);
	CHECK(near(found.r, m.r, 0.05) && near(found.alpha, m.alpha, 0.06));
	CHECK(near(found.a / (found.a + found.b), m.a / (m.a + m.b), 0.05));
	CHECK(fit.log_likelihood >= bgnbd_log_likelihood(&m, customers, N));
	CHECK(fit.log_likelihood < bgnbd_log_likelihood(&m, customers, N) + 20);
	/* alike customers are one with a weight; the order does not matter */
	for (int i = 0; i < N; i++)
		doubled[2 * N - 1 - i] = doubled[i] = customers[i];
	CHECK(customers_group(doubled, 2 * N) <= N);
	bgnbd_fit(doubled, customers_group(doubled, N), NULL, &again, &fit_again);
	CHECK(near(again.r, found.r, 1e-4) && near(again.b, found.b, 1e-3));
	/* in another unit of time alpha alone changes */
	for (int i = 0; i < N; i++)
	{
		customers[i].t_x *= 7;
		customers[i].T *= 7;
	}
	bgnbd_fit(customers, N, NULL, &again, &fit_again);
	CHECK(near(again.r, found.r, 1e-4) && near(again.alpha, 7 * found.alpha, 1e-4) && near(again.a, found.a, 1e-3));
}

static void
test_spending(void)
{
	enum {N = 20000};
	static Spender spenders[N];
	GammaGamma	g = {6.25, 3.74, 15.44};
	GammaGamma	found;
	Fit			fit;
	Spender		one = {1, 20, 1};

	for (int i = 0; i < N; i++)
	{
		double		scale = gamma_variate(g.q) / g.v;
		double		x = 1 + floor(6 * uniform());

		/* the mean of x purchases of shape p */
		spenders[i] = (Spender) {x, gamma_variate(g.p * x) / scale / x, 1};
	}
	gamma_gamma_fit(spenders, N, NULL, &found, &fit);
	CHECK(fit.converged);
	CHECK(near(found.p, g.p, 0.08) && near(found.q, g.q, 0.06) && near(found.v, g.v, 0.12));
	CHECK(fit.log_likelihood >= gamma_gamma_log_likelihood(&g, spenders, N));
	/* the mean is between the own one and that of all, and nearer to the own one the more is known */
	CHECK(near(gamma_gamma_mean(&g, &one), 6.25 * (15.44 + 20) / (6.25 + 2.74), 1e-14));
	one.x = 1000000;
	CHECK(near(gamma_gamma_mean(&g, &one), 20, 1e-5));
	CHECK(isnan(gamma_gamma_mean(&(GammaGamma) {0.1, 0.5, 1}, &(Spender) {1, 1, 1})));
}

/* A valley that turns, at whose end is 1, 1. */
static double
banana(const double *at, void *state)
{
	(void) state;
	return 100 * pow(at[1] - at[0] * at[0], 2) + pow(1 - at[0], 2);
}

static void
test_minimise(void)
{
	double		at[2] = {-1.2, 1};
	double		value;
	int			evaluations;

	CHECK(statistics_minimise(banana, NULL, 2, at, &value, &evaluations));
	CHECK(value < 1e-9 && near(at[0], 1, 1e-4) && near(at[1], 1, 1e-4) && evaluations < 2000);
}

static void
test_gini(void)
{
	double		alike[] = {3, 3, 3};
	double		steps[] = {4, 1, 3, 2};
	double		none[] = {0, 0};

	CHECK(fabs(statistics_gini(alike, 3)) < 1e-15);
	CHECK(near(statistics_gini(steps, 4), 0.25, 1e-14));
	CHECK(isnan(statistics_gini(none, 2)));
}

int
main(void)
{
	test_hypergeometric();
	test_likelihood();
	test_expected();
	test_recovery();
	test_spending();
	test_minimise();
	test_gini();
	printf("%ld passed, %ld failed\n", passed, failed);
	return failed > 0;
}
