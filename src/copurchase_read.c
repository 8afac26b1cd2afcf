/*
 * copurchase_read.c
 *	  Reading co-purchase statistics: totals, items, pairs with their measures,
 *	  and what goes with a basket.
 *
 * also_bought fetches of a stored value only what it needs: the directory, and
 * the rows of the basket's items.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "affinity.h"
#include "compat.h"
#include "copurchase_type.h"
#include "errors.h"

#define PAIR_COLUMNS 19
#define MAX_SUGGESTED 1000

/* Some bytes of a value, which may lie in a TOAST table. */
static const uint8 *
slice(Datum value, size_t offset, size_t length)
{
	struct varlena *part = PG_DETOAST_DATUM_SLICE(value, (int32) offset, (int32) length);

	if (VARSIZE_ANY_EXHDR(part) != length)
		CopurchaseRaise(CORE_CORRUPT);
	return (const uint8 *) VARDATA_ANY(part);
}

/* The header of a value. */
static void
read_head(Datum value, CopHeader *head)
{
	memcpy(head, slice(value, 0, sizeof(CopHeader)), sizeof(CopHeader));
	if (head->version != COP_VERSION || head->nitems > COP_ITEM_LIMIT)
		CopurchaseRaise(CORE_CORRUPT);
}

/* All of a value but its rows. */
static void
view_directory(Datum value, CopView *view)
{
	CopHeader	head;
	size_t		length;

	read_head(value, &head);
	length = cop_directory_size(&head) + head.texts;
	CopurchaseRaise(cop_view(view, slice(value, 0, length), length, false));
}

/* All of a value. */
static void
view_whole(Datum value, CopView *view)
{
	struct varlena *stored = PG_DETOAST_DATUM_PACKED(value);

	CopurchaseRaise(cop_view(view, (const uint8 *) VARDATA_ANY(stored), VARSIZE_ANY_EXHDR(stored), true));
}

/* An item as text. */
static Datum
item_text(const CopView *view, uint32 item)
{
	const uint8 *text;
	size_t		length;

	if (view->head.kind == COP_INTEGER)
		return PointerGetDatum(cstring_to_text(psprintf(INT64_FORMAT, cop_integer(view, item))));
	CopurchaseRaise(cop_text(view, item, &text, &length));
	return PointerGetDatum(cstring_to_text_with_len((const char *) text, (int) length));
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_baskets);

/* basket_count(copurchase) */
Datum
loyalty_copurchase_baskets(PG_FUNCTION_ARGS)
{
	CopHeader	head;

	read_head(PG_GETARG_DATUM(0), &head);
	PG_RETURN_INT64(head.baskets);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_totals);

/* totals(copurchase) */
Datum
loyalty_copurchase_totals(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	CopHeader	head;
	Datum		values[5];
	bool		nulls[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	read_head(PG_GETARG_DATUM(0), &head);
	values[0] = Int64GetDatum(head.baskets);
	values[1] = Int64GetDatum(head.nitems);
	values[2] = Int64GetDatum(head.pairs);
	values[3] = Int64GetDatum(head.capped);
	values[4] = Int64GetDatum(head.capped_items);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_items);

/* item_counts(copurchase) */
Datum
loyalty_copurchase_items(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CopView		view;

	InitMaterializedSRF(fcinfo, 0);
	view_directory(PG_GETARG_DATUM(0), &view);
	for (uint32 i = 0; i < view.head.nitems; i++)
	{
		Datum		values[2] = {item_text(&view, i), Int64GetDatum(cop_count(&view, i))};
		bool		nulls[2] = {false};

		CHECK_FOR_INTERRUPTS();
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		pfree(DatumGetPointer(values[0]));
	}
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * Pairs
 * ------------------------------------------------------------------------ */

/* What a reader of all pairs is at. */
typedef struct PairReader
{
	CopView		view;
	int64		min_count;
	Datum	   *text;			/* by item, made when first needed */
	ReturnSetInfo *result;
} PairReader;

static Datum
pair_text(PairReader *reader, uint32 item)
{
	if (reader->text[item] == 0)
		reader->text[item] = item_text(&reader->view, item);
	return reader->text[item];
}

/* The columns of measures. */
static void
put_measures(Datum *values, int64 n, int64 n_a, int64 n_b, int64 n_ab)
{
	Affinity	m;

	affinity_of(n, n_a, n_b, n_ab, &m);
	values[2] = Int64GetDatum(n);
	values[3] = Int64GetDatum(n_a);
	values[4] = Int64GetDatum(n_b);
	values[5] = Int64GetDatum(n_ab);
	values[6] = Float8GetDatum(m.support);
	values[7] = Float8GetDatum(m.confidence_ab);
	values[8] = Float8GetDatum(m.confidence_ba);
	values[9] = Float8GetDatum(m.lift);
	values[10] = Float8GetDatum(m.leverage);
	values[11] = Float8GetDatum(m.conviction_ab);
	values[12] = Float8GetDatum(m.conviction_ba);
	values[13] = Float8GetDatum(m.jaccard);
	values[14] = Float8GetDatum(m.cosine);
	values[15] = Float8GetDatum(m.kulczynski);
	values[16] = Float8GetDatum(m.imbalance_ratio);
	values[17] = Float8GetDatum(m.chi_square);
	values[18] = Float8GetDatum(m.log_likelihood);
}

/* Return the pairs of an item with those above it; counts alone, or all measures. */
static void
put_pairs(PairReader *reader, uint32 a, bool measures)
{
	Datum		values[PAIR_COLUMNS];
	bool		nulls[PAIR_COLUMNS] = {false};
	CopRow		row;
	uint32		b;
	int64		n_ab;
	int			got;

	CopurchaseRaise(cop_upper_row(&reader->view, a, &row));
	while ((got = cop_row_next(&row, &b, &n_ab)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (n_ab < reader->min_count)
			continue;
		values[0] = pair_text(reader, a);
		values[1] = pair_text(reader, b);
		values[2] = Int64GetDatum(n_ab);
		if (measures)
			put_measures(values, reader->view.head.baskets, cop_count(&reader->view, a), cop_count(&reader->view, b), n_ab);
		tuplestore_putvalues(reader->result->setResult, reader->result->setDesc, values, nulls);
	}
	if (got < 0)
		CopurchaseRaise(CORE_CORRUPT);
}

/* Return all pairs of a value. */
static Datum
read_pairs(FunctionCallInfo fcinfo, bool measures)
{
	PairReader	reader = {.min_count = PG_GETARG_INT64(1),.result = (ReturnSetInfo *) fcinfo->resultinfo};

	InitMaterializedSRF(fcinfo, 0);
	view_whole(PG_GETARG_DATUM(0), &reader.view);
	reader.text = palloc_extended(sizeof(Datum) * ((Size) reader.view.head.nitems + 1), MCXT_ALLOC_ZERO | MCXT_ALLOC_HUGE);
	for (uint32 a = 0; a < reader.view.head.nitems; a++)
		put_pairs(&reader, a, measures);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_pairs);

/* pairs(copurchase, min_count) */
Datum
loyalty_copurchase_pairs(PG_FUNCTION_ARGS)
{
	return read_pairs(fcinfo, true);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_pair_counts);

/* pair_counts(copurchase, min_count) */
Datum
loyalty_copurchase_pair_counts(PG_FUNCTION_ARGS)
{
	return read_pairs(fcinfo, false);
}

/* ------------------------------------------------------------------------
 * What goes with a basket
 * ------------------------------------------------------------------------ */

/* An item that goes with the basket, by its best pair. */
typedef struct Candidate
{
	double		score;
	int64		n_ab;
	uint32		item;
	uint32		because;
} Candidate;

typedef struct Search
{
	CopView		view;
	Datum		value;
	size_t		rows_at;
	AffinityMeasure measure;
	int64		min_count;
	bool	   *in_basket;
	Candidate  *best;			/* in order */
	int			nbest;
	int			k;
} Search;

/* Whether a comes before b: by score, count, and the order of items. */
static inline bool
comes_before(const Candidate *a, const Candidate *b)
{
	if (a->score != b->score)
		return a->score > b->score;
	if (a->n_ab != b->n_ab)
		return a->n_ab > b->n_ab;
	return a->item < b->item;
}

/* Put a candidate among the best, in the place of an earlier one of the same item. */
static void
keep(Search *s, const Candidate *new)
{
	int			i = 0;

	while (i < s->nbest && s->best[i].item != new->item)
		i++;
	if (i < s->nbest && !comes_before(new, &s->best[i]))
		return;
	if (i == s->nbest && s->nbest < s->k)
		s->nbest++;
	else if (i == s->nbest)
		i--;
	for (; i > 0 && comes_before(new, &s->best[i - 1]); i--)
		s->best[i] = s->best[i - 1];
	s->best[i] = *new;
}

/* The measure of a pair. */
static double
score_of(const Search *s, int64 n_a, int64 n_b, int64 n_ab)
{
	return affinity_measure(s->measure, s->view.head.baskets, n_a, n_b, n_ab);
}

/*
 * The least count that a pair with a needs to come among the best.  Every
 * measure falls as n_b grows, and n_b is at least n_ab; and as long as b is
 * never bought without a, it grows with n_ab.  So what n_b = n_ab would score is
 * a bound, and it is searched by halves.  Rounding gets a little room.
 */
static int64
least_count(const Search *s, int64 n_a)
{
	int64		low = s->min_count;
	int64		high = n_a + 1;
	double		last;

	if (s->nbest < s->k)
		return low;
	last = s->best[s->k - 1].score;
	last -= fabs(last) * 1e-9;
	while (low < high)
	{
		int64		middle = low + (high - low) / 2;

		if (middle > 0 && score_of(s, n_a, middle, middle) < last)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Look at all neighbours of an item of the basket. */
static void
look_at_item(Search *s, uint32 a)
{
	uint32		start;
	uint32		middle;
	uint32		end;
	uint32		b;
	int64		n_ab;
	int64		n_a = cop_count(&s->view, a);
	int64		least = least_count(s, n_a);
	int			got = 0;
	const uint8 *bytes;

	CopurchaseRaise(cop_row_range(&s->view, a, &start, &middle, &end));
	if (start == end || least > n_a)
		return;
	bytes = slice(s->value, s->rows_at + start, end - start);
	CHECK_FOR_INTERRUPTS();
	for (int half = 0; half < 2; half++)
	{
		CopRow		row = {.at = bytes + (half ? middle - start : 0),.end = bytes + (half ? end : middle) - start,
		.next = half ? a + 1 : 0,.nitems = s->view.head.nitems};

		while ((got = cop_row_next(&row, &b, &n_ab)) > 0)
		{
			Candidate	new = {.n_ab = n_ab,.item = b,.because = a};

			if (n_ab < least || s->in_basket[b])
				continue;
			new.score = score_of(s, n_a, cop_count(&s->view, b), n_ab);
			if (s->nbest == s->k && !comes_before(&new, &s->best[s->k - 1]))
				continue;
			keep(s, &new);
			least = least_count(s, n_a);
		}
		if (got < 0)
			CopurchaseRaise(CORE_CORRUPT);
	}
}

/* Find an item of the basket, given as text. */
static bool
find_item(const CopView *view, struct varlena *text, uint32 *item)
{
	bool		found = false;
	char	   *digits;
	char	   *end;
	int64		value;

	if (view->head.kind == COP_TEXT)
		CopurchaseRaise(cop_find_text(view, (const uint8 *) VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text), &found, item));
	else if (view->head.kind == COP_INTEGER && VARSIZE_ANY_EXHDR(text) > 0 && VARSIZE_ANY_EXHDR(text) <= 20)
	{
		digits = text_to_cstring(text);
		errno = 0;
		value = strtoi64(digits, &end, 10);
		found = errno == 0 && *end == '\0' && cop_find_integer(view, value, item);
	}
	return found;
}

/* Rare items first: their rows are short, and what goes with them goes with few others. */
static int
compare_rarity(const void *x, const void *y, void *view)
{
	uint32		a = *(const uint32 *) x;
	uint32		b = *(const uint32 *) y;
	int64		n_a = cop_count(view, a);
	int64		n_b = cop_count(view, b);

	if (n_a != n_b)
		return n_a < n_b ? -1 : 1;
	return a < b ? -1 : a > b;
}

/* Mark the items of the basket, and look at each once. */
static void
look_at_basket(Search *s, ArrayType *basket)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	uint32	   *item;
	int			nitems = 0;

	deconstruct_array(basket, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	item = palloc(sizeof(uint32) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i] || !find_item(&s->view, (struct varlena *) DatumGetPointer(elements[i]), &item[nitems]) ||
			s->in_basket[item[nitems]])
			continue;
		s->in_basket[item[nitems++]] = true;
	}
	qsort_arg(item, nitems, sizeof(uint32), compare_rarity, &s->view);
	for (int i = 0; i < nitems; i++)
		look_at_item(s, item[i]);
}

/* Read the name of a measure. */
static AffinityMeasure
measure_named(const char *name)
{
	for (int i = 0; i < AFFINITY_MEASURES; i++)
		if (strcmp(name, affinity_measure_name(i)) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_STATISTIC),
			 errmsg("unknown measure \"%s\"", name),
			 errhint("Use count, confidence, lift, leverage, conviction, jaccard, cosine, kulczynski, chi_square or log_likelihood.")));
	return 0;
}

/* Return the best. */
static void
put_best(Search *s, ReturnSetInfo *result)
{
	for (int i = 0; i < s->nbest; i++)
	{
		const Candidate *found = &s->best[i];
		Datum		values[4] = {item_text(&s->view, found->item), item_text(&s->view, found->because),
		Int64GetDatum(found->n_ab), Float8GetDatum(found->score)};
		bool		nulls[4] = {false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_also_bought);

/* also_bought(copurchase, basket, k, measure, min_count) */
Datum
loyalty_copurchase_also_bought(PG_FUNCTION_ARGS)
{
	int32		k = PG_GETARG_INT32(2);
	Search		s = {.value = PG_GETARG_DATUM(0),.min_count = PG_GETARG_INT64(4)};

	if (k < 0 || k > MAX_SUGGESTED)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_STATISTIC),
				 errmsg("k must be from 0 to %d", MAX_SUGGESTED)));
	s.measure = measure_named(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	InitMaterializedSRF(fcinfo, 0);
	view_directory(s.value, &s.view);
	s.rows_at = cop_directory_size(&s.view.head) + s.view.head.texts;
	s.in_basket = palloc0((Size) s.view.head.nitems + 1);
	s.best = palloc(sizeof(Candidate) * (k + 1));
	s.k = k;
	if (k > 0)
		look_at_basket(&s, PG_GETARG_ARRAYTYPE_P(1));
	put_best(&s, (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}
