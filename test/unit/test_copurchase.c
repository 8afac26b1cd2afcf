/*
 * test_copurchase.c
 *	  Co-purchase statistics against obvious counting: whatever way baskets
 *	  come in, in one builder or many, through collapses, merges, stored forms
 *	  and the wire, the bytes are the same; and damaged bytes are told.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "affinity.h"
#include "copurchase.h"

#define ITEMS	40
#define MAX_BASKETS 60

static long passed = 0;
static long failed = 0;
static uint64 seed = 7;
static CopBudget budget = {0, INT64_C(1) << 30};

#define CHECK(condition) \
	do { \
		if (condition) \
			passed++; \
		else if (failed++ < 20) \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
	} while (0)

typedef struct Model
{
	int64		n;
	int64		capped;
	int64		item[ITEMS];
	int64		pair[ITEMS][ITEMS];
} Model;

static int64
pick(int64 n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (int64) ((seed >> 33) % (uint64) n);
}

/* Items as text are "", "a", "aa", ... and sort as their numbers do. */
static uint32
id_of(CopBuilder *b, bool text, int item)
{
	uint32		id = 0;

	if (text)
		CHECK(cop_id_of_text(b, (const uint8 *) "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", (size_t) item, &id) == CORE_OK);
	else
		CHECK(cop_id_of_integer(b, item * INT64_C(400000000000) - INT64_C(8000000000000), &id) == CORE_OK);
	return id;
}

/* A basket, into a builder and into the model. */
static void
add_basket(CopBuilder *b, Model *m, bool text)
{
	bool		has[ITEMS] = {false};
	int			size = (int) pick(pick(10) == 0 ? ITEMS : 6);
	int			n = 0;

	cop_basket_begin(b);
	for (int i = 0; i < size; i++)
	{
		int			item = (int) pick(pick(3) == 0 ? ITEMS : 8);

		CHECK(cop_basket_add(b, id_of(b, text, item)) == CORE_OK);
		has[item] = true;
	}
	CHECK(cop_basket_end(b) == CORE_OK);
	for (int i = 0; i < ITEMS; i++)
		n += has[i];
	m->n += n > 0;
	m->capped += n > (int) b->max_items;
	for (int i = 0; i < ITEMS; i++)
	{
		m->item[i] += has[i];
		for (int j = 0; j < ITEMS; j++)
			m->pair[i][j] += i != j && has[i] && has[j] && n <= (int) b->max_items;
	}
}

/* The stored form counts what the model counts, in both halves of its rows. */
static void
check_counts(const uint8 *bytes, size_t length, const Model *m, bool text)
{
	CopView		view;
	uint32		place[ITEMS];
	uint32		n = 0;

	CHECK(cop_view(&view, bytes, length, true) == CORE_OK);
	CHECK(view.head.baskets == m->n && view.head.capped == m->capped);
	for (int i = 0; i < ITEMS; i++)
		if (m->item[i] > 0)
		{
			bool		found = true;

			place[n] = (uint32) i;
			CHECK(cop_count(&view, n) == m->item[i]);
			if (text)
				CHECK(cop_find_text(&view, (const uint8 *) "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", (size_t) i, &found, &n) == CORE_OK && found);
			else
				CHECK(cop_find_integer(&view, i * INT64_C(400000000000) - INT64_C(8000000000000), &n));
			n++;
		}
	CHECK(view.head.nitems == n);
	for (uint32 a = 0; a < n; a++)
	{
		uint32		start;
		uint32		middle;
		uint32		end;
		CopRow		row;
		uint32		b;
		int64		count;
		int64		total = 0;
		int64		expected = 0;

		CHECK(cop_row_range(&view, a, &start, &middle, &end) == CORE_OK);
		for (int half = 0; half < 2; half++)
		{
			row = (CopRow) {.at = view.rows + (half ? middle : start),.end = view.rows + (half ? end : middle),
				.next = half ? a + 1 : 0,.nitems = n};
			while (cop_row_next(&row, &b, &count) > 0)
			{
				CHECK(half ? b > a : b < a);
				CHECK(count == m->pair[place[a]][place[b]]);
				total += count;
			}
		}
		for (int i = 0; i < ITEMS; i++)
			expected += m->pair[place[a]][i];
		CHECK(total == expected);
	}
}

static bool
same(const uint8 *a, size_t na, const uint8 *b, size_t nb)
{
	return na == nb && memcmp(a, b, na) == 0;
}

/* The wire form comes back as the stored form it was made of. */
static void
check_wire(const uint8 *bytes, size_t length)
{
	CopBuilder	owner;
	CopView		view;
	uint8	   *wire;
	uint8	   *back;
	size_t		nwire;
	size_t		nback;

	cop_init(&owner, &budget, 0);
	CHECK(cop_view(&view, bytes, length, true) == CORE_OK);
	CHECK(cop_to_wire(&view, &wire, &nwire, 0) == CORE_OK);
	CHECK(cop_from_wire(wire, nwire, 0, &owner, &back, &nback) == CORE_OK);
	CHECK(same(bytes, length, back, nback));
	free(back);
	/* what is damaged is refused, or is another valid form that comes back as it is */
	for (int i = 0; i < 20; i++)
	{
		size_t		at = (size_t) pick((int64) nwire);
		size_t		cut = pick(3) == 0 ? (size_t) pick((int64) nwire) : nwire;
		uint8	   *damaged = malloc(cut + 1);
		uint8	   *again;
		size_t		nagain;

		memcpy(damaged, wire, cut);
		if (at < cut)
			damaged[at] = (uint8) pick(256);
		if (cop_from_wire(damaged, cut, 0, &owner, &back, &nback) == CORE_OK)
		{
			CHECK(cop_view(&view, back, nback, true) == CORE_OK);
			CHECK(cop_to_wire(&view, &again, &nagain, 0) == CORE_OK);
			CHECK(same(damaged, cut, again, nagain));
			free(again);
			free(back);
		}
		free(damaged);
	}
	free(wire);
}

/* A damaged stored form never makes a reader leave its bytes. */
static void
check_damage(const uint8 *bytes, size_t length)
{
	uint8	   *damaged = malloc(length);
	CopBuilder	b;
	uint8	   *out = NULL;
	size_t		nout;

	memcpy(damaged, bytes, length);
	for (int i = (int) pick(4); i >= 0; i--)
		damaged[pick((int64) length)] = (uint8) pick(256);
	cop_init(&b, &budget, 10);
	if (cop_add_stored(&b, damaged, length, 1, false) == CORE_OK)
	{
		(void) cop_finish(&b, 0, &out, &nout);
		free(out);
	}
	cop_free(&b);
	free(damaged);
}

/* One set of baskets, counted at once and in parts. */
static void
check_ways(bool text)
{
	Model		whole = {0};
	Model		part = {0};
	CopBuilder	one;
	CopBuilder	two;
	CopBuilder	both;
	uint8	   *a;
	uint8	   *b;
	uint8	   *ab;
	uint8	   *result;
	size_t		na;
	size_t		nb;
	size_t		nab;
	size_t		nresult;
	int			n = (int) pick(MAX_BASKETS);

	cop_init(&one, &budget, 20);
	cop_init(&two, &budget, 20);
	cop_init(&both, &budget, 20);
	for (int i = 0; i < n; i++)
	{
		add_basket(&one, &part, text);
		if (pick(20) == 0)
			CHECK(cop_collapse(&one) == CORE_OK);
	}
	CHECK(cop_finish(&one, 0, &a, &na) == CORE_OK);
	check_counts(a, na, &part, text);
	check_wire(a, na);
	whole = part;
	memset(&part, 0, sizeof(part));
	for (int i = 0; i < n; i++)
		add_basket(&two, &part, text);
	CHECK(cop_finish(&two, 0, &b, &nb) == CORE_OK);
	whole.n += part.n;
	whole.capped += part.capped;
	for (int i = 0; i < ITEMS; i++)
	{
		whole.item[i] += part.item[i];
		for (int j = 0; j < ITEMS; j++)
			whole.pair[i][j] += part.pair[i][j];
	}
	CHECK(cop_add_stored(&both, a, na, 1, false) == CORE_OK);
	if (pick(2) == 0)
		CHECK(cop_merge(&both, &two) == CORE_OK);
	else
		CHECK(cop_add_stored(&both, b, nb, 1, false) == CORE_OK);
	if (pick(2) == 0)
		CHECK(cop_collapse(&both) == CORE_OK);
	CHECK(cop_finish(&both, 0, &ab, &nab) == CORE_OK);
	check_counts(ab, nab, &whole, text);
	CHECK(cop_merge(&two, &one) == CORE_OK);
	CHECK(cop_finish(&two, 0, &result, &nresult) == CORE_OK);
	CHECK(same(ab, nab, result, nresult));
	free(result);
	/* what was added is taken away again, in a builder that numbers items otherwise */
	cop_free(&both);
	CHECK(cop_add_stored(&both, b, nb, -1, false) == CORE_OK);
	CHECK(cop_add_stored(&both, ab, nab, 1, false) == CORE_OK);
	CHECK(cop_finish(&both, 0, &result, &nresult) == CORE_OK);
	CHECK(same(a, na, result, nresult));
	free(result);
	if (whole.n > part.n)
	{
		cop_free(&both);
		CHECK(cop_add_stored(&both, b, nb, 1, false) == CORE_OK);
		CHECK(cop_add_stored(&both, ab, nab, -1, false) == CORE_OK);
		result = NULL;
		CHECK(cop_finish(&both, 0, &result, &nresult) == CORE_INSUFFICIENT);
		free(result);
	}
	check_damage(ab, nab);
	cop_free(&one);
	cop_free(&two);
	cop_free(&both);
	free(a);
	free(b);
	free(ab);
	CHECK(budget.used == 0);
}

/* Within a small budget the answer is the same, or there is none. */
static void
check_budget(void)
{
	CopBudget	small = {0, 400000};
	CopBuilder	tight;
	CopBuilder	loose;
	Model		m = {0};
	uint8	   *a;
	uint8	   *b;
	size_t		na;
	size_t		nb;
	uint64		before = seed;
	CoreStatus	status = CORE_OK;
	uint32		id;

	cop_init(&tight, &small, 100);
	cop_init(&loose, &budget, 100);
	for (int i = 0; i < 20000; i++)
		add_basket(&tight, &m, true);
	seed = before;
	for (int i = 0; i < 20000; i++)
		add_basket(&loose, &m, true);
	CHECK(tight.nruns == 1 && loose.nruns == 0);
	CHECK(cop_finish(&tight, 0, &a, &na) == CORE_OK);
	CHECK(cop_finish(&loose, 0, &b, &nb) == CORE_OK);
	CHECK(same(a, na, b, nb));
	free(a);
	free(b);
	cop_free(&loose);
	CHECK(cop_id_of_integer(&tight, 1, &id) == CORE_INVALID);
	cop_free(&tight);
	for (int i = 0; status == CORE_OK && i < 1000000; i++)
	{
		cop_basket_begin(&tight);
		status = cop_id_of_integer(&tight, i, &id);
		status = status == CORE_OK ? cop_basket_add(&tight, id) : status;
		status = status == CORE_OK ? cop_basket_end(&tight) : status;
	}
	CHECK(status == CORE_TOO_MANY && small.used <= small.limit);
	cop_free(&tight);
	CHECK(small.used == 0 && budget.used == 0);
}

/* Dunning (1993), Computational Linguistics 19(1): bigrams of a text. */
static void
check_published(void)
{
	static const struct
	{
		int64		k11;
		int64		k10;
		int64		k01;
		int64		k00;
		double		expected;
	}			table[] = {{110, 2442, 111, 29114, 270.72}, {29, 13, 123, 31612, 263.90}, {31, 23, 139, 31584, 256.84}, {10, 0, 3, 31764, 167.23}};
	Affinity	affinity;

	for (int i = 0; i < 4; i++)
	{
		affinity_of(table[i].k11 + table[i].k10 + table[i].k01 + table[i].k00, table[i].k11 + table[i].k10,
					table[i].k11 + table[i].k01, table[i].k11, &affinity);
		CHECK(fabs(affinity.log_likelihood - table[i].expected) < 0.01);
	}
	CHECK(isinf(affinity.conviction_ab));
	affinity_of(4, 4, 2, 2, &affinity);
	CHECK(isnan(affinity.chi_square) && affinity.lift == 1 && isinf(affinity.conviction_ba));
}

int
main(void)
{
	for (int i = 0; i < 3000; i++)
		check_ways(i % 2 == 0);
	check_budget();
	check_published();
	printf("%ld passed, %ld failed\n", passed, failed);
	return failed != 0;
}
