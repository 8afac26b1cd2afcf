/*
 * attachment.c
 *	  The registry of attached tables as a backend keeps it: each with its mapping
 *	  compiled over the layout of the table, or of the leaf that fired.
 *
 * An attachment in use is pinned; one that was forgotten meanwhile is freed when
 * the last user lets go.
 */
#include "attachment.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "errors.h"
#include "program.h"

static const Target purchase_targets[] = {
	{"member", TEXTOID}, {"reference", TEXTOID}, {"occurred_at", TIMESTAMPTZOID},
	{"occurred_local", TIMESTAMPOID}, {"store", TEXTOID}, {"channel", TEXTOID},
	{"currency", TEXTOID}, {"amount", NUMERICOID}, {"tax", NUMERICOID},
	{"shipping", NUMERICOID}, {"discount", NUMERICOID}, {"paid_with_points", NUMERICOID},
	{"paid_with_gift_card", NUMERICOID}, {"lines", JSONBOID}, {"attributes", JSONBOID},
	{"lines_of", TEXTOID}, {NULL, InvalidOid}
};

static const Target activity_targets[] = {
	{"member", TEXTOID}, {"reference", TEXTOID}, {"occurred_at", TIMESTAMPTZOID},
	{"occurred_local", TIMESTAMPOID}, {"kind", TEXTOID}, {"value", NUMERICOID},
	{"subject", TEXTOID}, {"attributes", JSONBOID}, {NULL, InvalidOid}
};

static const Target return_targets[] = {
	{"member", TEXTOID}, {"reference", TEXTOID}, {"occurred_at", TIMESTAMPTZOID},
	{"occurred_local", TIMESTAMPOID}, {"purchase", TEXTOID}, {"purchase_source", TEXTOID},
	{"amount", NUMERICOID}, {"lines", JSONBOID}, {"reason", TEXTOID}, {"attributes", JSONBOID},
	{NULL, InvalidOid}
};

static const Target *const targets_of[ATTACHED_KINDS] = {
	purchase_targets, activity_targets, return_targets
};

static Attachment *attachments[32];
static int	nattachments = 0;

/* A text column of the first row of the last result, NULL where it is null. */
static char *
registry_text(Attachment *attachment, int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return value == NULL ? NULL : MemoryContextStrdup(attachment->context, value);
}

/* The kind of transaction that a name stands for. */
static AttachedKind
attached_kind(const char *name)
{
	if (strcmp(name, "activity") == 0)
		return ATTACHED_ACTIVITY;
	return strcmp(name, "return") == 0 ? ATTACHED_RETURN : ATTACHED_PURCHASE;
}

/*
 * Read the registry's row about a relation, its root or its lines, as a table
 * of returns or of what is returned; false where there is none.
 */
static bool
read_registry(Attachment *attachment, bool returns, Datum *mapping)
{
	Oid			types[2] = {OIDOID, BOOLOID};
	Datum		values[2] = {ObjectIdGetDatum(attachment->relid), BoolGetDatum(returns)};
	Datum		value;
	bool		isnull;
	MemoryContext old;
	char	   *key;

	/* what is cached outlives the transaction, whose own snapshot may be an old one */
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT a.kind, a.program_id, a.source, a.mapping, a.qualifies,"
							  " loyalty.lines_query(a), loyalty.header_query(a), a.lines_key,"
							  " a.lines_relation IN ($1, r.root), $1::pg_catalog.regclass::pg_catalog.text,"
							  " (SELECT c.relname FROM pg_catalog.pg_class c WHERE c.oid = a.relation),"
							  " a.relation::pg_catalog.oid, coalesce(a.lines_relation::pg_catalog.oid, 0::pg_catalog.oid)"
							  " FROM loyalty.attachment a, (SELECT coalesce(pg_catalog.pg_partition_root($1)::pg_catalog.oid, $1)) AS r (root)"
							  " WHERE (a.relation IN ($1, r.root) OR a.lines_relation IN ($1, r.root))"
							  " AND (a.kind = 'return') = $2",
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the registry of attached tables");
	PopActiveSnapshot();
	if (SPI_processed == 0)
		return false;
	attachment->kind = attached_kind(registry_text(attachment, 1));
	attachment->program_id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
														 SPI_tuptable->tupdesc, 2, &isnull));
	attachment->source = registry_text(attachment, 3);
	attachment->lines_query = registry_text(attachment, 6);
	attachment->header_query = registry_text(attachment, 7);
	key = registry_text(attachment, 8);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 9, &isnull);
	attachment->is_lines = !isnull && DatumGetBool(value);
	attachment->label = registry_text(attachment, 10);
	attachment->row_name = registry_text(attachment, 11);
	attachment->relation = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
														  SPI_tuptable->tupdesc, 12, &isnull));
	attachment->lines_relation = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
																SPI_tuptable->tupdesc, 13, &isnull));
	if (attachment->is_lines)
	{
		attachment->key = get_attnum(attachment->relid, key);
		if (attachment->key == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_LY_MAPPING_FAILED),
					 errmsg("table %s has no column \"%s\" any more, which names what its lines belong to",
							attachment->label, key),
					 errhint("Detach it and attach it anew.")));
	}
	old = MemoryContextSwitchTo(attachment->context);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4, &isnull);
	*mapping = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	MemoryContextSwitchTo(old);
	return true;
}

/* A text member of a jsonb object, NULL where it has none, or is none. */
static char *
json_text(Datum object, const char *key)
{
	Jsonb	   *jsonb = DatumGetJsonbP(object);
	JsonbValue	buffer;
	JsonbValue *value = JB_ROOT_IS_OBJECT(jsonb) ?
		getKeyJsonValueFromContainer(&jsonb->root, key, (int) strlen(key), &buffer) : NULL;

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* Compile the mapping over the layout of a relation. */
static void
compile_mapping(Attachment *attachment, Datum mapping, const char *qualifies)
{
	ExpressionRow row = {attachment->row_name, attachment->relid};
	ExpressionScope *scope = ExpressionScopeCreate(attachment->context, &row, 1);
	char	   *owner = psprintf("table %s", attachment->label);
	MemoryContext old;

	attachment->targets = targets_of[attachment->kind];
	for (int i = 0; attachment->targets[i].name != NULL; i++)
	{
		const Target *target = &attachment->targets[i];
		char	   *text = json_text(mapping, target->name);

		attachment->ntargets = i + 1;
		if (text != NULL)
			attachment->expression[i] =
				ExpressionCompile(scope, 1, text, target->type,
								  psprintf("mapping of %s", target->name), owner);
	}
	if (qualifies != NULL)
		attachment->qualifies = ExpressionCompile(scope, 1, qualifies, BOOLOID, "qualifies", owner);
	old = MemoryContextSwitchTo(attachment->context);
	attachment->slot = MakeSingleTupleTableSlot(scope->tupdesc, &TTSOpsVirtual);
	attachment->econtext = CreateStandaloneExprContext();
	MemoryContextSwitchTo(old);
}

/* Load what the registry says of a relation; NULL where it is not attached. */
static Attachment *
load_attachment(Oid relid, bool returns, uint64 generation)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "loyalty attachment",
												  ALLOCSET_DEFAULT_SIZES);
	Attachment *attachment = MemoryContextAllocZero(context, sizeof(Attachment));
	Datum		mapping;
	char	   *qualifies;

	attachment->context = context;
	attachment->relid = relid;
	attachment->generation = generation;
	if (!read_registry(attachment, returns, &mapping))
		return NULL;
	qualifies = registry_text(attachment, 5);
	if (!attachment->is_lines)
		compile_mapping(attachment, mapping, qualifies);
	MemoryContextSetParent(context, CacheMemoryContext);
	return attachment;
}

/* Free an attachment that nobody uses. */
static void
free_attachment(Attachment *attachment)
{
	if (attachment->econtext != NULL)
		FreeExprContext(attachment->econtext, true);
	MemoryContextDelete(attachment->context);
}

/* Forget a cached attachment; one in use is freed when it is unpinned. */
static void
forget_attachment(int position)
{
	Attachment *attachment = attachments[position];

	attachments[position] = attachments[--nattachments];
	attachment->forgotten = true;
	if (attachment->pins == 0)
		free_attachment(attachment);
}

/* Let go of an attachment. */
void
AttachmentUnpin(Attachment *attachment)
{
	if (--attachment->pins == 0 && attachment->forgotten)
		free_attachment(attachment);
}

/*
 * The attachment of a relation as a table of returns or of what is returned,
 * from the cache where nothing changed since; pinned.  NULL where it is none.
 */
Attachment *
AttachmentPin(Oid relid, bool returns)
{
	uint64		generation = ProgramRelcacheGeneration();
	Attachment *attachment;

	for (int i = 0; i < nattachments; i++)
	{
		if (attachments[i]->relid != relid ||
			(attachments[i]->kind == ATTACHED_RETURN) != returns)
			continue;
		if (attachments[i]->generation == generation)
		{
			attachments[i]->pins++;
			return attachments[i];
		}
		forget_attachment(i);
		break;
	}
	attachment = load_attachment(relid, returns, generation);
	if (attachment == NULL)
		return NULL;
	if (nattachments == lengthof(attachments))
		forget_attachment(0);
	attachments[nattachments++] = attachment;
	attachment->pins++;
	return attachment;
}

PG_FUNCTION_INFO_V1(loyalty_check_mapping);

/* check_mapping(relation, kind, mapping, qualifies): compile it to raise what is wrong. */
Datum
loyalty_check_mapping(PG_FUNCTION_ARGS)
{
	Attachment	attachment = {0};

	for (int i = 0; i < 3; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of check_mapping must not be null", i + 1)));
	}
	attachment.context = CurrentMemoryContext;
	attachment.relid = PG_GETARG_OID(0);
	attachment.kind = attached_kind(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	attachment.label = get_rel_name(attachment.relid);
	attachment.row_name = attachment.label;
	if (attachment.label == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LY_MAPPING_FAILED),
				 errmsg("relation %u does not exist", attachment.relid)));
	compile_mapping(&attachment, PG_GETARG_DATUM(2),
					PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3)));
	PG_RETURN_VOID();
}
