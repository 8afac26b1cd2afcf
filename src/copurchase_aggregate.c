/*
 * copurchase_aggregate.c
 *	  The aggregates copurchase(items), copurchase_rows(basket, item) and
 *	  sum(copurchase).
 *
 * The state is a CopBuilder.  Workers of a parallel plan hand over items and
 * baskets as they are, four bytes an item, and the pairs are counted once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "compat.h"
#include "copurchase_type.h"
#include "errors.h"

/* A number of items, as an aggregate's last argument. */
static uint32
max_items_argument(FunctionCallInfo fcinfo, int argument)
{
	int32		max_items = COP_MAX_ITEMS;

	if (PG_NARGS() > argument && !PG_ARGISNULL(argument))
		max_items = PG_GETARG_INT32(argument);
	if (max_items < 1)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_STATISTIC),
				 errmsg("max_items must be at least 1")));
	return (uint32) max_items;
}

/* The aggregate's own memory. */
static MemoryContext
aggregate_context(FunctionCallInfo fcinfo)
{
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "aggregate function called in non-aggregate context");
	return context;
}

/* ------------------------------------------------------------------------
 * Items of a basket
 * ------------------------------------------------------------------------ */

/* Put a text into the basket. */
static void
add_text(CopBuilder *builder, struct varlena *packed)
{
	uint32		id;

	CopurchaseRaise(cop_id_of_text(builder, (const uint8 *) VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed), &id));
	CopurchaseRaise(cop_basket_add(builder, id));
}

static void
add_integer(CopBuilder *builder, int64 value)
{
	uint32		id;

	CopurchaseRaise(cop_id_of_integer(builder, value, &id));
	CopurchaseRaise(cop_basket_add(builder, id));
}

/* Put the articles of lines into the basket: the first column of loyalty.line. */
static void
add_line(CopBuilder *builder, Datum line)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(line);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header),.t_data = header};
	bool		isnull;
	Datum		sku = heap_getattr(&tuple, 1, desc, &isnull);

	if (!isnull)
		add_text(builder, PG_DETOAST_DATUM_PACKED(sku));
	ReleaseTupleDesc(desc);
}

/* Put one element of an array into the basket. */
static void
add_element(CopBuilder *builder, Oid type, Datum element)
{
	switch (type)
	{
		case INT8OID:
			add_integer(builder, DatumGetInt64(element));
			break;
		case INT4OID:
			add_integer(builder, DatumGetInt32(element));
			break;
		case TEXTOID:
			add_text(builder, (struct varlena *) DatumGetPointer(element));
			break;
		default:
			add_line(builder, element);
	}
}

/* Add one basket, the elements of an array without NULLs. */
static void
add_array(CopBuilder *builder, ArrayType *array)
{
	Oid			type = ARR_ELEMTYPE(array);
	char	   *at = ARR_DATA_PTR(array);
	bits8	   *present = ARR_NULLBITMAP(array);
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	int16		length = type == INT8OID ? 8 : type == INT4OID ? 4 : -1;
	bool		byval = length > 0;
	char		align = type == INT8OID ? TYPALIGN_DOUBLE : type == INT4OID || type == TEXTOID ? TYPALIGN_INT : TYPALIGN_DOUBLE;

	cop_basket_begin(builder);
	for (int i = 0; i < n; i++)
	{
		if (present != NULL && (present[i / 8] & (1 << (i % 8))) == 0)
			continue;
		add_element(builder, type, fetch_att(at, byval, length));
		at = att_addlength_pointer(at, length, at);
		at = (char *) att_align_nominal(at, align);
		if (i % 1024 == 0)
			CHECK_FOR_INTERRUPTS();
	}
	CopurchaseRaise(cop_basket_end(builder));
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_step);

/* copurchase_step(state, items [, max_items]) */
Datum
loyalty_copurchase_step(PG_FUNCTION_ARGS)
{
	MemoryContext context = aggregate_context(fcinfo);
	CopBuilder *builder = PG_ARGISNULL(0) ? NULL : (CopBuilder *) PG_GETARG_POINTER(0);
	ArrayType  *array;

	if (PG_ARGISNULL(1) && builder != NULL)
		PG_RETURN_POINTER(builder);
	array = PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1);
	context = MemoryContextSwitchTo(context);
	if (builder == NULL)
		builder = CopurchaseBegin(max_items_argument(fcinfo, 2));
	(void) CopurchaseBudget();
	if (array != NULL)
		add_array(builder, array);
	MemoryContextSwitchTo(context);
	PG_RETURN_POINTER(builder);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_sum_step);

/* copurchase_sum_step(state, copurchase) */
Datum
loyalty_copurchase_sum_step(PG_FUNCTION_ARGS)
{
	MemoryContext context = aggregate_context(fcinfo);
	CopBuilder *builder = PG_ARGISNULL(0) ? NULL : (CopBuilder *) PG_GETARG_POINTER(0);
	struct varlena *value;
	uint8	   *bytes;

	if (PG_ARGISNULL(1))
	{
		if (builder == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(builder);
	}
	value = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(1));
	context = MemoryContextSwitchTo(context);
	if (builder == NULL)
		builder = CopurchaseBegin(COP_MAX_ITEMS);
	(void) CopurchaseBudget();
	bytes = palloc(VARSIZE_ANY_EXHDR(value));
	memcpy(bytes, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	CopurchaseRaise(cop_add_stored(builder, bytes, VARSIZE_ANY_EXHDR(value), 1, true));
	MemoryContextSwitchTo(context);
	PG_RETURN_POINTER(builder);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_final);

/* copurchase_final(state) */
Datum
loyalty_copurchase_final(PG_FUNCTION_ARGS)
{
	(void) aggregate_context(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	(void) CopurchaseBudget();
	PG_RETURN_DATUM(CopurchaseFinish((CopBuilder *) PG_GETARG_POINTER(0)));
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_combine);

/* copurchase_combine(state, state) */
Datum
loyalty_copurchase_combine(PG_FUNCTION_ARGS)
{
	MemoryContext context = aggregate_context(fcinfo);
	CopBuilder *builder = PG_ARGISNULL(0) ? NULL : (CopBuilder *) PG_GETARG_POINTER(0);
	CopBuilder *other = PG_ARGISNULL(1) ? NULL : (CopBuilder *) PG_GETARG_POINTER(1);

	if (other != NULL)
	{
		context = MemoryContextSwitchTo(context);
		if (builder == NULL)
			builder = CopurchaseBegin(other->max_items);
		(void) CopurchaseBudget();
		CopurchaseRaise(cop_merge(builder, other));
		MemoryContextSwitchTo(context);
	}
	if (builder == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(builder);
}

/* ------------------------------------------------------------------------
 * A state on its way from a worker to the leader, of the same server
 * ------------------------------------------------------------------------ */

/* the fixed part */
typedef struct Packed
{
	int32		kind;
	uint32		max_items;
	int64		baskets;
	int64		capped;
	int64		capped_items;
	uint64		nitems;
	uint64		ntext;
	uint64		nmarks;
	uint64		nruns;
} Packed;

static size_t
packed_size(const CopBuilder *b)
{
	size_t		size = sizeof(Packed) + b->nitems * sizeof(CopItem) + b->ntext + b->nmarks * sizeof(uint32);

	for (size_t i = 0; i < b->nruns; i++)
	{
		CopHeader	head;

		memcpy(&head, b->run[i].bytes, sizeof(head));
		size += sizeof(uint64) + b->run[i].length + head.nitems * sizeof(uint32);
	}
	return size;
}

static uint8 *
put(uint8 *at, const void *bytes, size_t length)
{
	if (length > 0)
		memcpy(at, bytes, length);
	return at + length;
}

/* Write a builder where packed_size bytes are free; returns where they end. */
static uint8 *
pack(const CopBuilder *b, uint8 *at)
{
	Packed		head = {.kind = b->kind,.max_items = b->max_items,.baskets = b->baskets,.capped = b->capped,
	.capped_items = b->capped_items,.nitems = b->nitems,.ntext = b->ntext,.nmarks = b->nmarks,.nruns = b->nruns};

	at = put(at, &head, sizeof(head));
	at = put(at, b->item, b->nitems * sizeof(CopItem));
	at = put(at, b->text, b->ntext);
	at = put(at, b->mark, b->nmarks * sizeof(uint32));
	for (size_t i = 0; i < b->nruns; i++)
	{
		uint64		length = b->run[i].length;
		CopHeader	run;

		memcpy(&run, b->run[i].bytes, sizeof(run));
		at = put(at, &length, sizeof(length));
		at = put(at, b->run[i].bytes, length);
		at = put(at, b->run[i].id, run.nitems * sizeof(uint32));
	}
	return at;
}

/*
 * Look at a packed builder as a builder that owns nothing: good for
 * cop_merge, while the bytes are there.  Returns where it ends.
 */
static const uint8 *
unpack(const uint8 *at, CopBuilder *b)
{
	Packed		head;

	memcpy(&head, at, sizeof(head));
	at += sizeof(head);
	cop_init(b, CopurchaseBudget(), head.max_items);
	b->kind = (CopKind) head.kind;
	b->baskets = head.baskets;
	b->capped = head.capped;
	b->capped_items = head.capped_items;
	b->nitems = head.nitems;
	b->ntext = head.ntext;
	b->nmarks = head.nmarks;
	b->nruns = head.nruns;
	b->item = MemoryContextAllocHuge(CurrentMemoryContext, head.nitems * sizeof(CopItem) + 1);
	memcpy(b->item, at, head.nitems * sizeof(CopItem));
	at += head.nitems * sizeof(CopItem);
	b->text = (uint8 *) at;
	at += head.ntext;
	b->mark = MemoryContextAllocHuge(CurrentMemoryContext, head.nmarks * sizeof(uint32) + 1);
	memcpy(b->mark, at, head.nmarks * sizeof(uint32));
	at += head.nmarks * sizeof(uint32);
	b->run = palloc0(head.nruns * sizeof(CopRun) + 1);
	for (size_t i = 0; i < head.nruns; i++)
	{
		uint64		length;
		CopHeader	run;

		memcpy(&length, at, sizeof(length));
		at += sizeof(length);
		memcpy(&run, at, sizeof(run));
		b->run[i] = (CopRun) {.bytes = (uint8 *) at,.length = length,.sign = 1};
		at += length;
		b->run[i].id = MemoryContextAllocHuge(CurrentMemoryContext, run.nitems * sizeof(uint32) + 1);
		memcpy(b->run[i].id, at, run.nitems * sizeof(uint32));
		at += run.nitems * sizeof(uint32);
	}
	return at;
}

/* Room for a packed state, as a bytea. */
static bytea *
packed_room(size_t size)
{
	bytea	   *packed;

	if (size + VARHDRSZ > MaxAllocSize)
		CopurchaseRaise(CORE_TOO_MANY);
	packed = palloc(size + VARHDRSZ);
	SET_VARSIZE(packed, size + VARHDRSZ);
	return packed;
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_serial);

/* copurchase_serial(state) */
Datum
loyalty_copurchase_serial(PG_FUNCTION_ARGS)
{
	CopBuilder *builder = (CopBuilder *) PG_GETARG_POINTER(0);
	MemoryContext context = MemoryContextSwitchTo(aggregate_context(fcinfo));
	bytea	   *packed;

	(void) CopurchaseBudget();
	if (packed_size(builder) + VARHDRSZ > MaxAllocSize)
		CopurchaseRaise(cop_collapse(builder));
	MemoryContextSwitchTo(context);
	packed = packed_room(packed_size(builder));
	(void) pack(builder, (uint8 *) VARDATA(packed));
	PG_RETURN_BYTEA_P(packed);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_deserial);

/* copurchase_deserial(bytea, internal) */
Datum
loyalty_copurchase_deserial(PG_FUNCTION_ARGS)
{
	bytea	   *packed = PG_GETARG_BYTEA_PP(0);
	CopBuilder *builder = palloc(sizeof(CopBuilder));

	(void) aggregate_context(fcinfo);
	(void) unpack((const uint8 *) VARDATA_ANY(packed), builder);
	PG_RETURN_POINTER(builder);
}

/* ------------------------------------------------------------------------
 * Rows of basket and item, in any order
 * ------------------------------------------------------------------------ */

/* what is known before it is known which rows are one basket */
typedef struct RowsState
{
	CopBuilder *basket;			/* numbers the baskets, as if they were items */
	CopBuilder *item;
	uint64	   *row;			/* basket << 32 | item */
	size_t		nrows;
	size_t		room;
} RowsState;

static RowsState *
begin_rows(uint32 max_items)
{
	RowsState  *state = palloc0(sizeof(RowsState));

	state->basket = CopurchaseBegin(max_items);
	state->item = CopurchaseBegin(max_items);
	return state;
}

/* The number of a basket or an item, of any type of integer or text. */
static uint32
number_of(CopBuilder *builder, FunctionCallInfo fcinfo, int argument)
{
	uint32		id;
	struct varlena *text;

	switch (getBaseType(get_fn_expr_argtype(fcinfo->flinfo, argument)))
	{
		case INT2OID:
			CopurchaseRaise(cop_id_of_integer(builder, PG_GETARG_INT16(argument), &id));
			break;
		case INT4OID:
			CopurchaseRaise(cop_id_of_integer(builder, PG_GETARG_INT32(argument), &id));
			break;
		case INT8OID:
			CopurchaseRaise(cop_id_of_integer(builder, PG_GETARG_INT64(argument), &id));
			break;
		case TEXTOID:
		case VARCHAROID:
			text = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(argument));
			CopurchaseRaise(cop_id_of_text(builder, (const uint8 *) VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text), &id));
			if ((Pointer) text != DatumGetPointer(PG_GETARG_DATUM(argument)))
				pfree(text);
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_LY_INVALID_STATISTIC),
					 errmsg("baskets and items are integers or texts"),
					 errdetail("Argument %d is of type %s.", argument, format_type_be(get_fn_expr_argtype(fcinfo->flinfo, argument))),
					 errhint("Cast it to text.")));
	}
	return id;
}

/* Append rows. */
static void
append_rows(RowsState *state, size_t n)
{
	CopurchaseRaise(cop_grow(state->item, (void **) &state->row, &state->room, state->nrows + n, sizeof(uint64)));
	state->nrows += n;
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_rows_step);

/* copurchase_rows_step(state, basket, item [, max_items]) */
Datum
loyalty_copurchase_rows_step(PG_FUNCTION_ARGS)
{
	MemoryContext context = MemoryContextSwitchTo(aggregate_context(fcinfo));
	RowsState  *state = PG_ARGISNULL(0) ? NULL : (RowsState *) PG_GETARG_POINTER(0);

	(void) CopurchaseBudget();
	if (state == NULL)
		state = begin_rows(max_items_argument(fcinfo, 3));
	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2))
	{
		uint64		basket = number_of(state->basket, fcinfo, 1);
		uint32		item = number_of(state->item, fcinfo, 2);

		append_rows(state, 1);
		state->row[state->nrows - 1] = basket << 32 | item;
	}
	MemoryContextSwitchTo(context);
	PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_rows_combine);

/* copurchase_rows_combine(state, state) */
Datum
loyalty_copurchase_rows_combine(PG_FUNCTION_ARGS)
{
	MemoryContext context = MemoryContextSwitchTo(aggregate_context(fcinfo));
	RowsState  *state = PG_ARGISNULL(0) ? NULL : (RowsState *) PG_GETARG_POINTER(0);
	RowsState  *other = PG_ARGISNULL(1) ? NULL : (RowsState *) PG_GETARG_POINTER(1);
	uint32	   *basket;
	uint32	   *item;

	(void) CopurchaseBudget();
	if (other != NULL && state == NULL)
		state = begin_rows(other->item->max_items);
	if (other != NULL)
	{
		size_t		before = state->nrows;

		CopurchaseRaise(cop_merge_items(state->basket, other->basket, &basket));
		CopurchaseRaise(cop_merge_items(state->item, other->item, &item));
		append_rows(state, other->nrows);
		for (size_t i = 0; i < other->nrows; i++)
			state->row[before + i] = (uint64) basket[other->row[i] >> 32] << 32 | item[(uint32) other->row[i]];
		pfree(basket);
		pfree(item);
	}
	MemoryContextSwitchTo(context);
	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(state);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_rows_serial);

/* copurchase_rows_serial(state) */
Datum
loyalty_copurchase_rows_serial(PG_FUNCTION_ARGS)
{
	RowsState  *state = (RowsState *) PG_GETARG_POINTER(0);
	uint64		nrows = state->nrows;
	bytea	   *packed = packed_room(packed_size(state->basket) + packed_size(state->item) + sizeof(nrows) +
									 state->nrows * sizeof(uint64));
	uint8	   *at = pack(state->item, pack(state->basket, (uint8 *) VARDATA(packed)));

	(void) aggregate_context(fcinfo);
	at = put(at, &nrows, sizeof(nrows));
	(void) put(at, state->row, state->nrows * sizeof(uint64));
	PG_RETURN_BYTEA_P(packed);
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_rows_deserial);

/* copurchase_rows_deserial(bytea, internal) */
Datum
loyalty_copurchase_rows_deserial(PG_FUNCTION_ARGS)
{
	bytea	   *packed = PG_GETARG_BYTEA_PP(0);
	RowsState  *state = palloc0(sizeof(RowsState));
	const uint8 *at = (const uint8 *) VARDATA_ANY(packed);
	uint64		nrows;

	(void) aggregate_context(fcinfo);
	state->basket = palloc(sizeof(CopBuilder));
	state->item = palloc(sizeof(CopBuilder));
	at = unpack(unpack(at, state->basket), state->item);
	memcpy(&nrows, at, sizeof(nrows));
	state->nrows = nrows;
	state->row = MemoryContextAllocHuge(CurrentMemoryContext, nrows * sizeof(uint64) + 1);
	memcpy(state->row, at + sizeof(nrows), nrows * sizeof(uint64));
	PG_RETURN_POINTER(state);
}

/* Where each basket's items begin, and the items, basket by basket. */
static uint32 *
sort_rows(RowsState *state, size_t **start)
{
	size_t		nbaskets = state->basket->nitems;
	uint32	   *item;

	CopurchaseRaise(cop_charge(state->item, (nbaskets + 2) * sizeof(size_t) + state->nrows * sizeof(uint32)));
	*start = MemoryContextAllocHuge(CurrentMemoryContext, (nbaskets + 2) * sizeof(size_t));
	memset(*start, 0, (nbaskets + 2) * sizeof(size_t));
	item = MemoryContextAllocHuge(CurrentMemoryContext, state->nrows * sizeof(uint32) + 1);
	for (size_t i = 0; i < state->nrows; i++)
		(*start)[(state->row[i] >> 32) + 2]++;
	for (size_t i = 2; i < nbaskets + 2; i++)
		(*start)[i] += (*start)[i - 1];
	for (size_t i = 0; i < state->nrows; i++)
	{
		if (i % 65536 == 0)
			CHECK_FOR_INTERRUPTS();
		item[(*start)[(state->row[i] >> 32) + 1]++] = (uint32) state->row[i];
	}
	return item;
}

PG_FUNCTION_INFO_V1(loyalty_copurchase_rows_final);

/* copurchase_rows_final(state) */
Datum
loyalty_copurchase_rows_final(PG_FUNCTION_ARGS)
{
	RowsState  *state = PG_ARGISNULL(0) ? NULL : (RowsState *) PG_GETARG_POINTER(0);
	MemoryContext context = MemoryContextSwitchTo(aggregate_context(fcinfo));
	uint32	   *item;
	size_t	   *start;

	if (state == NULL)
	{
		MemoryContextSwitchTo(context);
		PG_RETURN_NULL();
	}
	(void) CopurchaseBudget();
	item = sort_rows(state, &start);
	for (size_t basket = 0; basket < state->basket->nitems; basket++)
	{
		cop_basket_begin(state->item);
		for (size_t i = start[basket]; i < start[basket + 1]; i++)
			CopurchaseRaise(cop_basket_add(state->item, item[i]));
		CopurchaseRaise(cop_basket_end(state->item));
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(context);
	PG_RETURN_DATUM(CopurchaseFinish(state->item));
}
