/*
 * statistics.h
 *	  Models of buying: how often and how much, and who has stopped.
 */
#ifndef LOYALTY_STATISTICS_H
#define LOYALTY_STATISTICS_H

#include "core.h"

/*
 * What BG/NBD knows of a customer: x repeat purchases, the last of them t_x
 * after the first purchase, which is T ago.  weight customers are alike.
 */
typedef struct Customer
{
	double		x;
	double		t_x;
	double		T;
	double		weight;
} Customer;

/* What the gamma-gamma model knows of a customer: x purchases of m each on average. */
typedef struct Spender
{
	double		x;
	double		m;
	double		weight;
} Spender;

typedef struct Bgnbd
{
	double		r;
	double		alpha;
	double		a;
	double		b;
} Bgnbd;

typedef struct GammaGamma
{
	double		p;
	double		q;
	double		v;
} GammaGamma;

typedef struct Fit
{
	double		log_likelihood;
	double		customers;
	int			evaluations;
	bool		converged;
} Fit;

/* A function to be minimised; the hook runs before each evaluation, where it is given. */
typedef double (*Objective) (const double *at, void *state);
typedef void (*Hook) (void);

#define STATISTICS_MAX_DIMENSIONS 4

extern double bgnbd_log_likelihood(const Bgnbd *model, const Customer *customers, int64 n);
extern double bgnbd_alive(const Bgnbd *model, const Customer *customer);
extern double bgnbd_expected(const Bgnbd *model, const Customer *customer, double t);
extern void bgnbd_fit(const Customer *customers, int64 n, Hook hook, Bgnbd *model, Fit *fit);

extern double gamma_gamma_log_likelihood(const GammaGamma *model, const Spender *spenders, int64 n);
extern double gamma_gamma_mean(const GammaGamma *model, const Spender *spender);
extern void gamma_gamma_fit(const Spender *spenders, int64 n, Hook hook, GammaGamma *model, Fit *fit);

extern int64 customers_group(Customer *customers, int64 n);
extern double statistics_gini(double *values, int64 n);
extern double statistics_hypergeometric(double a, double b, double c, double z);
extern bool statistics_minimise(Objective objective, void *state, int n, double *at, double *value, int *evaluations);

#endif							/* LOYALTY_STATISTICS_H */
