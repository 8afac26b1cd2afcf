/*
 * product.c
 *	  Articles as rules know them: a backend's cache of loyalty.product.
 *
 * Owns the cache, which is emptied when the configuration changes or when it
 * has grown large.  Reads through SPI, never writes.
 */
#include "product.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "program.h"

#define MAX_PRODUCTS_CACHED 200000
#define MAX_PRODUCT_BYTES (64 * 1024 * 1024)
#define FIRST_PRODUCT_SLOTS 1024

/* Articles by programme and sku, known ones and unknown ones */
typedef struct ProductSlot
{
	int32		program_id;
	struct varlena *sku;
	Product    *product;
} ProductSlot;

static ProductSlot *product_slots = NULL;
static uint32 product_mask = 0;
static uint32 products_cached = 0;
static MemoryContext products_context = NULL;
static uint64 products_generation = 0;


/* Hash the key of an article. */
static uint32
hash_sku(int32 program_id, const struct varlena *sku)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(sku),
					  (int) VARSIZE_ANY_EXHDR(sku)) ^ (uint32) program_id * 0x9E3779B9U;
}

/* Compare the key of an article. */
static bool
same_sku(const ProductSlot *slot, int32 program_id, const struct varlena *sku)
{
	return slot->program_id == program_id &&
		VARSIZE_ANY_EXHDR(slot->sku) == VARSIZE_ANY_EXHDR(sku) &&
		memcmp(VARDATA_ANY(slot->sku), VARDATA_ANY(sku), VARSIZE_ANY_EXHDR(sku)) == 0;
}

/* Empty the cache of articles. */
static void
reset_products(void)
{
	MemoryContext old;

	if (products_context == NULL)
		products_context = AllocSetContextCreate(CacheMemoryContext, "loyalty articles",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(products_context);
	products_cached = 0;
	product_mask = FIRST_PRODUCT_SLOTS - 1;
	products_generation = ProgramGeneration();
	old = MemoryContextSwitchTo(products_context);
	product_slots = palloc0(sizeof(ProductSlot) * (product_mask + 1));
	MemoryContextSwitchTo(old);
}

/* Find the slot of an article, or the free one where it would stand. */
static ProductSlot *
find_product(int32 program_id, const struct varlena *sku)
{
	uint32		at = hash_sku(program_id, sku) & product_mask;

	while (product_slots[at].product != NULL && !same_sku(&product_slots[at], program_id, sku))
		at = (at + 1) & product_mask;
	return &product_slots[at];
}

/* Double the slots. */
static void
grow_products(void)
{
	ProductSlot *old_slots = product_slots;
	uint32		old_size = product_mask + 1;

	product_slots = MemoryContextAllocExtended(products_context,
											   sizeof(ProductSlot) * old_size * 2,
											   MCXT_ALLOC_ZERO | MCXT_ALLOC_HUGE);
	product_mask = old_size * 2 - 1;
	for (uint32 i = 0; i < old_size; i++)
	{
		if (old_slots[i].product != NULL)
			*find_product(old_slots[i].program_id, old_slots[i].sku) = old_slots[i];
	}
	pfree(old_slots);
}

/* Copy a text column of the current SPI row, 0 where it is null. */
static Datum
copy_column(int row, int number, bool is_numeric)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, &isnull);

	if (isnull)
		return (Datum) 0;
	return is_numeric ? NumericGetDatum(DatumGetNumericCopy(value)) :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

/* Add an article to the cache; row -1: it is not in the table. */
static void
cache_product(int32 program_id, struct varlena *sku, int row)
{
	ProductSlot *slot;
	MemoryContext old = MemoryContextSwitchTo(products_context);
	Product    *product = palloc0(sizeof(Product));
	bool		isnull;

	if (row >= 0)
	{
		product->known = true;
		product->category = copy_column(row, 2, false);
		product->brand = copy_column(row, 3, false);
		product->own_brand =
			DatumGetBool(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 4, &isnull));
		product->margin = copy_column(row, 5, true);
		product->partner = copy_column(row, 6, false);
		product->excluded =
			DatumGetBool(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 7, &isnull));
	}
	product->sku = PointerGetDatum(PG_DETOAST_DATUM_COPY(PointerGetDatum(sku)));
	slot = find_product(program_id, sku);
	if (slot->product == NULL && ++products_cached > product_mask / 2)
	{
		grow_products();
		slot = find_product(program_id, sku);
	}
	slot->program_id = program_id;
	slot->sku = (struct varlena *) DatumGetPointer(product->sku);
	slot->product = product;
	MemoryContextSwitchTo(old);
}

/* Read articles that the cache lacks. */
static void
read_products(int32 program_id, Datum *skus, int n)
{
	static SPIPlanPtr plan = NULL;
	Datum		values[2];

	SPI_connect();
	if (plan == NULL)
	{
		Oid			types[2] = {INT4OID, TEXTARRAYOID};

		plan = SPI_prepare("SELECT sku, category, brand, own_brand, margin, partner, excluded"
						   " FROM loyalty.product WHERE program_id = $1 AND sku = ANY ($2)",
						   2, types);
		SPI_keepplan(plan);
	}
	values[0] = Int32GetDatum(program_id);
	values[1] = PointerGetDatum(construct_array(skus, n, TEXTOID, -1, false, TYPALIGN_INT));
	/* what is cached outlives the transaction, whose own snapshot may be an old one */
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_execute_plan(plan, values, NULL, true, 0);
	PopActiveSnapshot();
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		sku = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		cache_product(program_id, PG_DETOAST_DATUM_PACKED(sku), (int) i);
	}
	for (int i = 0; i < n; i++)
	{
		struct varlena *sku = (struct varlena *) DatumGetPointer(skus[i]);

		if (find_product(program_id, sku)->product == NULL)
			cache_product(program_id, sku, -1);
	}
	SPI_finish();
}

/*
 * Find articles by sku (text, not null), reading those that are not cached.
 *
 * found stays valid until the next call.  One call covers a chunk of a batch.
 */
void
ProductFind(int32 program_id, Datum *skus, int n, const Product **found)
{
	Datum	   *missing = palloc(sizeof(Datum) * Max(n, 1));
	int			nmissing = 0;

	if (product_slots == NULL || products_generation != ProgramGeneration() ||
		products_cached > MAX_PRODUCTS_CACHED ||
		MemoryContextMemAllocated(products_context, true) > MAX_PRODUCT_BYTES)
		reset_products();
	for (int i = 0; i < n; i++)
	{
		if (find_product(program_id,
						 (struct varlena *) DatumGetPointer(skus[i]))->product == NULL)
			missing[nmissing++] = skus[i];
	}
	if (nmissing > 0)
		read_products(program_id, missing, nmissing);
	for (int i = 0; i < n; i++)
		found[i] = find_product(program_id,
								(struct varlena *) DatumGetPointer(skus[i]))->product;
	pfree(missing);
}

