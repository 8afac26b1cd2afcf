/*
 * analysis.c
 *	  Aggregates and functions for whoever asks what customers do: shares of
 *	  the best, Gini's coefficient, net promoter score, and models of buying.
 *
 * Knows no tables.  Money goes in and comes out as numeric and is added up as
 * numeric; what is a float is a statistic.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "compat.h"
#include "errors.h"
#include "statistics.h"

/* Rows of one size, gathered by a transition function. */
typedef struct Rows
{
	int64		n;
	int64		room;
	Size		size;
	char	   *data;
	Datum		share;			/* of pareto_share: the first row's */
} Rows;

/* The state of an aggregate, made on its first row. */
static Rows *
rows_state(FunctionCallInfo fcinfo, Size size)
{
	MemoryContext context;
	Rows	   *rows;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "aggregate function called outside of an aggregate");
	if (!PG_ARGISNULL(0))
		return (Rows *) PG_GETARG_POINTER(0);
	rows = MemoryContextAllocZero(context, sizeof(Rows));
	rows->room = 64;
	rows->size = size;
	rows->data = MemoryContextAlloc(context, rows->room * size);
	return rows;
}

/* A place for one more row. */
static void *
rows_add(Rows *rows)
{
	if (rows->n == rows->room)
	{
		rows->room *= 2;
		rows->data = repalloc_huge(rows->data, rows->room * rows->size);
	}
	return rows->data + rows->n++ * rows->size;
}

/* A copy of the rows, which a final function may reorder. */
static void *
rows_copy(const Rows *rows)
{
	void	   *copy = MemoryContextAllocHuge(CurrentMemoryContext, Max(rows->n, 1) * rows->size);

	memcpy(copy, rows->data, rows->n * rows->size);
	return copy;
}

/* Refuse a number that a statistic cannot be taken of. */
static void
refuse_argument(const char *what, const char *expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_SAMPLE),
			 errmsg("%s is not valid", what),
			 errdetail("Expected %s.", expected)));
}

/* --- shares of the best ------------------------------------------------- */

/* Refuse NaN and infinity: they have no place in a sum of money. */
static void
check_amount(Numeric amount)
{
	if (numeric_is_nan(amount) || numeric_is_inf(amount))
		refuse_argument("an amount", "a finite number");
}

/* Refuse a share that is not from 0 to 1. */
static void
check_share(Datum share)
{
	Datum		zero = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	Datum		one = DirectFunctionCall1(int8_numeric, Int64GetDatum(1));

	if (numeric_is_nan(DatumGetNumeric(share)) || DatumGetInt32(DirectFunctionCall2(numeric_cmp, share, zero)) < 0
		|| DatumGetInt32(DirectFunctionCall2(numeric_cmp, share, one)) > 0)
		refuse_argument("a share of members", "a number from 0 to 1, as 0.2 for a fifth");
}

PG_FUNCTION_INFO_V1(loyalty_pareto_step);

Datum
loyalty_pareto_step(PG_FUNCTION_ARGS)
{
	Rows	   *rows = rows_state(fcinfo, sizeof(Datum));
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(rows));

	if (PG_NARGS() > 2 && !PG_ARGISNULL(2) && rows->share == (Datum) 0)
	{
		check_share(PG_GETARG_DATUM(2));
		rows->share = PointerGetDatum(PG_GETARG_NUMERIC_COPY(2));
	}
	if (!PG_ARGISNULL(1))
	{
		check_amount(PG_GETARG_NUMERIC(1));
		*(Datum *) rows_add(rows) = PointerGetDatum(PG_GETARG_NUMERIC_COPY(1));
	}
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(rows);
}

/* Order amounts, the greatest first. */
static int
compare_amounts(const void *a, const void *b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, *(const Datum *) b, *(const Datum *) a));
}

/* Sums of the first 0, 1, 2 ... n amounts, the greatest first. */
static Datum *
running_sums(const Rows *rows)
{
	Datum	   *amount = rows_copy(rows);
	Datum	   *sum = MemoryContextAllocHuge(CurrentMemoryContext, (rows->n + 1) * sizeof(Datum));

	qsort(amount, rows->n, sizeof(Datum), compare_amounts);
	sum[0] = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	for (int64 i = 0; i < rows->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		sum[i + 1] = DirectFunctionCall2(numeric_add, sum[i], amount[i]);
	}
	return sum;
}

/* The part of the total that the first k amounts make. */
static Datum
part_of_total(const Datum *sum, int64 n, int64 k)
{
	return DirectFunctionCall2(numeric_div, sum[k], sum[n]);
}

/* Tell whether a total is nothing, of which there are no parts. */
static bool
is_zero(Datum number)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, number, DirectFunctionCall1(int8_numeric, Int64GetDatum(0)))) == 0;
}

PG_FUNCTION_INFO_V1(loyalty_pareto_share);

Datum
loyalty_pareto_share(PG_FUNCTION_ARGS)
{
	Rows	   *rows = PG_ARGISNULL(0) ? NULL : (Rows *) PG_GETARG_POINTER(0);
	Datum	   *sum;
	Datum		k;

	if (rows == NULL || rows->n == 0 || rows->share == (Datum) 0)
		PG_RETURN_NULL();
	sum = running_sums(rows);
	if (is_zero(sum[rows->n]))
		PG_RETURN_NULL();
	k = DirectFunctionCall1(numeric_ceil, DirectFunctionCall2(numeric_mul, rows->share, DirectFunctionCall1(int8_numeric, Int64GetDatum(rows->n))));
	PG_RETURN_DATUM(part_of_total(sum, rows->n, DatumGetInt64(DirectFunctionCall1(numeric_int8, k))));
}

PG_FUNCTION_INFO_V1(loyalty_pareto_curve);

Datum
loyalty_pareto_curve(PG_FUNCTION_ARGS)
{
	Rows	   *rows = PG_ARGISNULL(0) ? NULL : (Rows *) PG_GETARG_POINTER(0);
	Datum		curve[100];
	Datum	   *sum;

	if (rows == NULL || rows->n == 0)
		PG_RETURN_NULL();
	sum = running_sums(rows);
	if (is_zero(sum[rows->n]))
		PG_RETURN_NULL();
	for (int percent = 1; percent <= 100; percent++)
		curve[percent - 1] = part_of_total(sum, rows->n, rows->n / 100 * percent + (rows->n % 100 * percent + 99) / 100);
	PG_RETURN_ARRAYTYPE_P(construct_array(curve, 100, NUMERICOID, -1, false, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(loyalty_gini_step);

Datum
loyalty_gini_step(PG_FUNCTION_ARGS)
{
	Rows	   *rows = rows_state(fcinfo, sizeof(double));

	if (!PG_ARGISNULL(1))
	{
		double		value = PG_GETARG_FLOAT8(1);

		if (!isfinite(value))
			refuse_argument("an amount", "a finite number");
		*(double *) rows_add(rows) = value;
	}
	PG_RETURN_POINTER(rows);
}

PG_FUNCTION_INFO_V1(loyalty_gini);

Datum
loyalty_gini(PG_FUNCTION_ARGS)
{
	Rows	   *rows = PG_ARGISNULL(0) ? NULL : (Rows *) PG_GETARG_POINTER(0);
	double		gini = rows == NULL ? NAN : statistics_gini(rows_copy(rows), rows->n);

	if (isnan(gini))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(gini);
}

/* --- net promoter score ------------------------------------------------- */

/* The three counts in an array of bigint: detractors, passives, promoters. */
static int64 *
nps_counts(ArrayType *array)
{
	if (ARR_NDIM(array) != 1 || ARR_DIMS(array)[0] != 3 || ARR_HASNULL(array) || ARR_ELEMTYPE(array) != INT8OID)
		refuse_argument("the state of nps", "the counts of detractors, passives and promoters");
	return (int64 *) ARR_DATA_PTR(array);
}

PG_FUNCTION_INFO_V1(loyalty_nps_step);

Datum
loyalty_nps_step(PG_FUNCTION_ARGS)
{
	ArrayType  *array = AggCheckCallContext(fcinfo, NULL) ? PG_GETARG_ARRAYTYPE_P(0) : PG_GETARG_ARRAYTYPE_P_COPY(0);
	int32		score = PG_GETARG_INT32(1);

	if (score < 0 || score > 10)
		refuse_argument("a score", "an integer from 0 to 10");
	nps_counts(array)[score >= 9 ? 2 : score >= 7 ? 1 : 0]++;
	PG_RETURN_ARRAYTYPE_P(array);
}

PG_FUNCTION_INFO_V1(loyalty_nps_combine);

Datum
loyalty_nps_combine(PG_FUNCTION_ARGS)
{
	ArrayType  *array = AggCheckCallContext(fcinfo, NULL) ? PG_GETARG_ARRAYTYPE_P(0) : PG_GETARG_ARRAYTYPE_P_COPY(0);
	int64	   *other = nps_counts(PG_GETARG_ARRAYTYPE_P(1));

	for (int i = 0; i < 3; i++)
		nps_counts(array)[i] += other[i];
	PG_RETURN_ARRAYTYPE_P(array);
}

PG_FUNCTION_INFO_V1(loyalty_nps);

Datum
loyalty_nps(PG_FUNCTION_ARGS)
{
	int64	   *count = nps_counts(PG_GETARG_ARRAYTYPE_P(0));
	Datum		all = DirectFunctionCall1(int8_numeric, Int64GetDatum(count[0] + count[1] + count[2]));
	Datum		more = DirectFunctionCall1(int8_numeric, Int64GetDatum(100 * (count[2] - count[0])));

	if (is_zero(all))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall2(numeric_round, DirectFunctionCall2(numeric_div, more, all), Int32GetDatum(2)));
}

/* --- BG/NBD ------------------------------------------------------------- */

/* A customer from three arguments, checked. */
static Customer
customer_argument(FunctionCallInfo fcinfo, int at)
{
	Customer	c = {PG_GETARG_FLOAT8(at), PG_GETARG_FLOAT8(at + 1), PG_GETARG_FLOAT8(at + 2), 1};

	if (!isfinite(c.x) || !isfinite(c.t_x) || !isfinite(c.T) || c.x < 0 || c.x != floor(c.x) || c.t_x < 0 || c.t_x > c.T)
		refuse_argument("a customer's history", "x repeat purchases, a whole number from 0; t_x from 0 to T; T, time since the first purchase");
	if (c.x == 0 && c.t_x != 0)
		refuse_argument("a customer's history", "t_x = 0 where x = 0: the first purchase is the last");
	return c;
}

/* The parameters from four arguments, checked. */
static Bgnbd
bgnbd_argument(FunctionCallInfo fcinfo)
{
	Bgnbd		m = {PG_GETARG_FLOAT8(0), PG_GETARG_FLOAT8(1), PG_GETARG_FLOAT8(2), PG_GETARG_FLOAT8(3)};

	if (!(m.r > 0 && m.alpha > 0 && m.a > 0 && m.b > 0 && isfinite(m.r + m.alpha + m.a + m.b)))
		refuse_argument("a model", "r, alpha, a and b above 0");
	return m;
}

PG_FUNCTION_INFO_V1(loyalty_bgnbd_step);

Datum
loyalty_bgnbd_step(PG_FUNCTION_ARGS)
{
	Rows	   *rows = rows_state(fcinfo, sizeof(Customer));

	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2) && !PG_ARGISNULL(3))
	{
		Customer	c = customer_argument(fcinfo, 1);

		*(Customer *) rows_add(rows) = c;
	}
	PG_RETURN_POINTER(rows);
}

/* Let a long fit be cancelled. */
static void
check_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
}

/* A row of the function's result type. */
static Datum
make_row(FunctionCallInfo fcinfo, Datum *values)
{
	TupleDesc	type;
	bool		nulls[8] = {false};

	if (get_call_result_type(fcinfo, NULL, &type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "expected a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(type), values, nulls));
}

PG_FUNCTION_INFO_V1(loyalty_bgnbd_fit);

Datum
loyalty_bgnbd_fit(PG_FUNCTION_ARGS)
{
	Rows	   *rows = PG_ARGISNULL(0) ? NULL : (Rows *) PG_GETARG_POINTER(0);
	Customer   *customers;
	int64		repeat = 0;
	int64		n;
	Bgnbd		m;
	Fit			fit;

	if (rows == NULL || rows->n == 0)
		PG_RETURN_NULL();
	customers = rows_copy(rows);
	for (int64 i = 0; i < rows->n; i++)
		repeat += customers[i].x > 0;
	/* where nobody came again any model in which nobody does is as good as the next */
	if (repeat == 0)
		PG_RETURN_NULL();
	n = customers_group(customers, rows->n);
	bgnbd_fit(customers, n, check_interrupts, &m, &fit);
	PG_RETURN_DATUM(make_row(fcinfo, (Datum[]) {
		Float8GetDatum(m.r), Float8GetDatum(m.alpha), Float8GetDatum(m.a), Float8GetDatum(m.b),
		Float8GetDatum(fit.log_likelihood), Int64GetDatum(rows->n), Int32GetDatum(fit.evaluations), BoolGetDatum(fit.converged)
	}));
}

PG_FUNCTION_INFO_V1(loyalty_bgnbd_log_likelihood);

Datum
loyalty_bgnbd_log_likelihood(PG_FUNCTION_ARGS)
{
	Bgnbd		m = bgnbd_argument(fcinfo);
	Customer	c = customer_argument(fcinfo, 4);

	PG_RETURN_FLOAT8(bgnbd_log_likelihood(&m, &c, 1));
}

PG_FUNCTION_INFO_V1(loyalty_bgnbd_alive);

Datum
loyalty_bgnbd_alive(PG_FUNCTION_ARGS)
{
	Bgnbd		m = bgnbd_argument(fcinfo);
	Customer	c = customer_argument(fcinfo, 4);

	PG_RETURN_FLOAT8(bgnbd_alive(&m, &c));
}

PG_FUNCTION_INFO_V1(loyalty_bgnbd_expected);

Datum
loyalty_bgnbd_expected(PG_FUNCTION_ARGS)
{
	Bgnbd		m = bgnbd_argument(fcinfo);
	Customer	c = customer_argument(fcinfo, 4);
	double		t = PG_GETARG_FLOAT8(7);

	if (!isfinite(t) || t < 0)
		refuse_argument("a time to come", "a number from 0, in the unit of T");
	PG_RETURN_FLOAT8(bgnbd_expected(&m, &c, t));
}

/* --- gamma-gamma -------------------------------------------------------- */

/* A spender from two arguments, checked. */
static Spender
spender_argument(FunctionCallInfo fcinfo, int at)
{
	Spender		s = {PG_GETARG_FLOAT8(at), PG_GETARG_FLOAT8(at + 1), 1};

	if (!isfinite(s.x) || !isfinite(s.m) || s.x < 1 || s.x != floor(s.x) || s.m <= 0)
		refuse_argument("a customer's spending", "x purchases, a whole number from 1, of m on average, above 0");
	return s;
}

/* The parameters from three arguments, checked. */
static GammaGamma
gamma_gamma_argument(FunctionCallInfo fcinfo)
{
	GammaGamma	g = {PG_GETARG_FLOAT8(0), PG_GETARG_FLOAT8(1), PG_GETARG_FLOAT8(2)};

	if (!(g.p > 0 && g.q > 0 && g.v > 0 && isfinite(g.p + g.q + g.v)))
		refuse_argument("a model", "p, q and v above 0");
	return g;
}

PG_FUNCTION_INFO_V1(loyalty_gamma_gamma_step);

Datum
loyalty_gamma_gamma_step(PG_FUNCTION_ARGS)
{
	Rows	   *rows = rows_state(fcinfo, sizeof(Spender));

	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2))
	{
		Spender		s = spender_argument(fcinfo, 1);

		*(Spender *) rows_add(rows) = s;
	}
	PG_RETURN_POINTER(rows);
}

/* Order spenders, so that a fit does not depend on the order in which they came. */
static int
compare_spenders(const void *left, const void *right)
{
	const Spender *a = left;
	const Spender *b = right;

	if (a->x != b->x)
		return a->x < b->x ? -1 : 1;
	return (a->m > b->m) - (a->m < b->m);
}

PG_FUNCTION_INFO_V1(loyalty_gamma_gamma_fit);

Datum
loyalty_gamma_gamma_fit(PG_FUNCTION_ARGS)
{
	Rows	   *rows = PG_ARGISNULL(0) ? NULL : (Rows *) PG_GETARG_POINTER(0);
	Spender    *spenders;
	GammaGamma	g;
	Fit			fit;

	/* one customer says nothing of how customers differ */
	if (rows == NULL || rows->n < 2)
		PG_RETURN_NULL();
	spenders = rows_copy(rows);
	qsort(spenders, rows->n, sizeof(Spender), compare_spenders);
	gamma_gamma_fit(spenders, rows->n, check_interrupts, &g, &fit);
	PG_RETURN_DATUM(make_row(fcinfo, (Datum[]) {
		Float8GetDatum(g.p), Float8GetDatum(g.q), Float8GetDatum(g.v),
		Float8GetDatum(fit.log_likelihood), Int64GetDatum(rows->n), Int32GetDatum(fit.evaluations), BoolGetDatum(fit.converged)
	}));
}

PG_FUNCTION_INFO_V1(loyalty_gamma_gamma_log_likelihood);

Datum
loyalty_gamma_gamma_log_likelihood(PG_FUNCTION_ARGS)
{
	GammaGamma	g = gamma_gamma_argument(fcinfo);
	Spender		s = spender_argument(fcinfo, 3);

	PG_RETURN_FLOAT8(gamma_gamma_log_likelihood(&g, &s, 1));
}

PG_FUNCTION_INFO_V1(loyalty_gamma_gamma_mean);

Datum
loyalty_gamma_gamma_mean(PG_FUNCTION_ARGS)
{
	GammaGamma	g = gamma_gamma_argument(fcinfo);
	Spender		s = spender_argument(fcinfo, 3);
	double		mean = gamma_gamma_mean(&g, &s);

	if (isnan(mean))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(mean);
}
