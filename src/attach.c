/*
 * attach.c
 *	  The trigger on tables of the DBA's own: their rows, mapped by expressions,
 *	  become rows of loyalty.purchase, activity or purchase_return, whose
 *	  triggers award and take back.
 *
 * Owns the registry's cache and the mapped rows.  Knows nothing of points.  The
 * mapped row is kept as the evidence of what an award was decided upon.  An
 * INSERT, UPDATE or DELETE on the table, or on its table of lines, ends as an
 * insert, an update or a void of the mapped row, so that doing it twice posts
 * nothing the second time.  A return is neither changed nor taken back.  One
 * table may hold sales and returns: it is then attached twice.
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "compat.h"
#include "errors.h"
#include "expression.h"
#include "program.h"
#include "source.h"

/* The columns of a mapped row */
typedef struct Target
{
	const char *name;
	Oid			type;
} Target;

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

/* What the rows of an attached table are; the statements below stand in this order */
typedef enum AttachedKind
{
	ATTACHED_PURCHASE,
	ATTACHED_ACTIVITY,
	ATTACHED_RETURN
} AttachedKind;

#define ATTACHED_KINDS 3

static const Target *const targets_of[ATTACHED_KINDS] = {
	purchase_targets, activity_targets, return_targets
};

#define MAX_TARGETS 16
#define TARGET_REFERENCE 1

typedef struct Attachment
{
	MemoryContext context;
	Oid			relid;			/* the table or leaf whose layout the expressions read */
	uint64		generation;
	bool		is_lines;		/* relid is the table of lines */
	AttachedKind kind;
	int32		program_id;
	char	   *source;
	char	   *row_name;		/* of the attached table, also where relid is a leaf */
	char	   *label;			/* for messages */
	const Target *targets;
	int			ntargets;
	Expression *expression[MAX_TARGETS];
	Expression *qualifies;		/* NULL: always */
	Oid			relation;		/* as registered: the header, and its lines or InvalidOid */
	Oid			lines_relation;
	char	   *lines_query;	/* NULL: no table of lines */
	char	   *header_query;
	AttrNumber	key;			/* of the lines: the column that names the header */
	TupleTableSlot *slot;
	ExprContext *econtext;
	int			pins;			/* statements that use it now */
	bool		forgotten;		/* not in the cache any more */
} Attachment;

static Attachment *attachments[32];
static int	nattachments = 0;

/* ------------------------------------------------------------------------
 * The registry
 * ------------------------------------------------------------------------ */

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

/* A text member of a jsonb object, NULL where it has none. */
static char *
json_text(Datum object, const char *key)
{
	Jsonb	   *jsonb = DatumGetJsonbP(object);
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&jsonb->root, key, (int) strlen(key), &buffer);

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
static void
unpin_attachment(Attachment *attachment)
{
	if (--attachment->pins == 0 && attachment->forgotten)
		free_attachment(attachment);
}

/*
 * The attachment of a relation as a table of returns or of what is returned,
 * from the cache where nothing changed since; pinned.  NULL where it is none.
 */
static Attachment *
pin_attachment(Oid relid, bool returns)
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

/* ------------------------------------------------------------------------
 * Mapping
 * ------------------------------------------------------------------------ */

typedef struct MappingContext
{
	const Attachment *attachment;
	const char *column;
	const char *reference;
} MappingContext;

/* Name table, column and row in an error that a mapping raises. */
static void
name_mapping(void *arg)
{
	const MappingContext *context = arg;

	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_LY_MAPPING_FAILED);
	errcontext("mapping of %s of table %s, reference %s", context->column,
			   context->attachment->label,
			   context->reference == NULL ? "not known yet" : context->reference);
}

/* The row type of mapped rows: the targets and whether the row qualifies. */
static TupleDesc
mapped_desc(const Attachment *attachment)
{
	TupleDesc	desc = CreateTemplateTupleDesc(attachment->ntargets + 1);

	for (int i = 0; i < attachment->ntargets; i++)
		TupleDescInitEntry(desc, i + 1, attachment->targets[i].name,
						   attachment->targets[i].type, -1, 0);
	TupleDescInitEntry(desc, attachment->ntargets + 1, "qualifies", BOOLOID, -1, 0);
	return desc;
}

/* Evaluate one target. */
static void
map_column(Attachment *attachment, MappingContext *context, int i, Datum *values, bool *nulls)
{
	nulls[i] = true;
	values[i] = (Datum) 0;
	context->column = attachment->targets[i].name;
	if (attachment->expression[i] != NULL)
		values[i] = ExpressionEvaluate(attachment->expression[i], attachment->econtext, &nulls[i]);
}

/* Refuse a row that counts and lacks what its kind of transaction cannot do without. */
static void
check_needed(const Attachment *attachment, const char *reference, const bool *nulls)
{
	static const struct
	{
		AttachedKind kind;
		const char *name;
		int			code;
	}			needed[] = {
		{ATTACHED_PURCHASE, "amount", ERRCODE_LY_INVALID_AMOUNT},
		{ATTACHED_ACTIVITY, "member", ERRCODE_LY_UNKNOWN_MEMBER},
		{ATTACHED_ACTIVITY, "kind", ERRCODE_LY_INVALID_ACTIVITY}
	};

	for (int i = 0; i < attachment->ntargets; i++)
	{
		for (int j = 0; nulls[i] && j < lengthof(needed); j++)
		{
			if (needed[j].kind == attachment->kind &&
				strcmp(needed[j].name, attachment->targets[i].name) == 0)
				ereport(ERROR,
						(errcode(needed[j].code),
						 errmsg("row %s of table %s has no %s", reference, attachment->label,
								needed[j].name),
						 errhint("Let qualifies leave out rows that do not count yet.")));
		}
	}
}

/* Map a row into the rows to be received; a row without a reference is an error. */
static void
map_row(Attachment *attachment, TupleTableSlot *row, bool removed, Tuplestorestate *mapped,
		TupleDesc desc)
{
	MappingContext context = {attachment, "reference", NULL};
	ErrorContextCallback callback = {error_context_stack, name_mapping, &context};
	Datum		values[MAX_TARGETS + 1];
	bool		nulls[MAX_TARGETS + 1];
	bool		isnull = false;
	bool		qualifies = !removed;
	MemoryContext old;

	attachment->econtext->ecxt_scantuple = row;
	error_context_stack = &callback;
	map_column(attachment, &context, TARGET_REFERENCE, values, nulls);
	if (nulls[TARGET_REFERENCE])
		ereport(ERROR,
				(errcode(ERRCODE_LY_MAPPING_FAILED),
				 errmsg("a row of table %s has no reference", attachment->label)));
	old = MemoryContextSwitchTo(attachment->econtext->ecxt_per_tuple_memory);
	context.reference = TextDatumGetCString(values[TARGET_REFERENCE]);
	MemoryContextSwitchTo(old);
	context.column = "qualifies";
	if (qualifies && attachment->qualifies != NULL)
	{
		qualifies = DatumGetBool(ExpressionEvaluate(attachment->qualifies, attachment->econtext,
													&isnull));
		qualifies = qualifies && !isnull;
	}
	for (int i = 0; i < attachment->ntargets; i++)
	{
		if (i == TARGET_REFERENCE)
			continue;
		if (qualifies)
			map_column(attachment, &context, i, values, nulls);
		else
			nulls[i] = true;
	}
	error_context_stack = callback.previous;
	if (qualifies)
		check_needed(attachment, context.reference, nulls);
	values[attachment->ntargets] = BoolGetDatum(qualifies);
	nulls[attachment->ntargets] = false;
	tuplestore_putvalues(mapped, desc, values, nulls);
	ResetExprContext(attachment->econtext);
}

/* Map every row of a transition table. */
static void
map_rows(Attachment *attachment, Tuplestorestate *rows, TupleDesc row_desc, bool removed,
		 Tuplestorestate *mapped, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(row_desc, &TTSOpsMinimalTuple);
	int			pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(rows, pointer);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		map_row(attachment, slot, removed, mapped, desc);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* ------------------------------------------------------------------------
 * Receiving
 * ------------------------------------------------------------------------ */

/* whoever was merged into another member buys as that one */
#define MEMBER_OF "(SELECT COALESCE(a.merged_into, m.member_id) FROM loyalty.member m" \
	" LEFT JOIN loyalty.account a ON a.account_id = m.member_id" \
	" WHERE m.program_id = $1 AND m.external_id = n.member)"
#define MAPPED_AT "n.occurred_at, n.occurred_local AT TIME ZONE" \
	" (SELECT g.time_zone FROM loyalty.program g WHERE g.program_id = $1)"
#define OCCURRED_AT "coalesce(" MAPPED_AT ", pg_catalog.now())"
/* where no time is mapped, a row that comes again keeps the one that it was given */
#define OCCURRED_AT_OF(table) "coalesce(" MAPPED_AT ", (SELECT q.occurred_at FROM loyalty." table " q" \
	" WHERE q.source = $2 AND q.reference = n.reference), pg_catalog.now())"

/* once a kind, since a plan is bound to the row type of one kind of transaction */
static const char *const unknown_member_sql[ATTACHED_KINDS] = {
	"SELECT n.reference, n.member FROM loyalty_mapped n WHERE n.qualifies AND n.member IS NOT NULL AND $2 IS NOT NULL"
	" AND NOT EXISTS (SELECT FROM loyalty.member m WHERE m.program_id = $1 AND m.external_id = n.member) LIMIT 1",
	"SELECT n.reference, n.member FROM loyalty_mapped n WHERE n.qualifies AND n.member IS NOT NULL AND ($2 IS NOT NULL)"
	" AND NOT EXISTS (SELECT FROM loyalty.member m WHERE m.program_id = $1 AND m.external_id = n.member) LIMIT 1",
	"SELECT n.reference, n.member FROM loyalty_mapped n WHERE n.qualifies AND n.member IS NOT NULL AND (($2 IS NOT NULL))"
	" AND NOT EXISTS (SELECT FROM loyalty.member m WHERE m.program_id = $1 AND m.external_id = n.member) LIMIT 1"
};

/*
 * The row that a mapped one was received as before.  LIMIT keeps the mapped rows
 * on the outer side: plans are made while tables are small, and a tuplestore
 * that is read anew for every row of a table takes quadratic time.
 */
#define RECEIVED(table) "(SELECT q.* FROM loyalty." table " q WHERE q.source = $2 AND q.reference = n.reference LIMIT 1)"

#define SAME_RETURN "(r.amount, r.lines::pg_catalog.text, r.purchase_source, r.purchase_reference)" \
	" IS NOT DISTINCT FROM (n.amount, loyalty.return_lines(n.lines)::pg_catalog.text," \
	" coalesce(n.purchase_source, 'purchase'), n.purchase)"

/* references that a statement has twice; that they stand for one thing is nothing a statement can say */
static const char *const twice_sql[ATTACHED_KINDS] = {
	"SELECT n.reference FROM loyalty_mapped n WHERE n.qualifies AND $1 IS NOT NULL AND $2 IS NOT NULL"
	" GROUP BY n.reference HAVING pg_catalog.count(*) > 1 LIMIT 1",
	"SELECT n.reference FROM loyalty_mapped n WHERE n.qualifies AND $1 IS NOT NULL AND ($2 IS NOT NULL)"
	" GROUP BY n.reference HAVING pg_catalog.count(*) > 1 LIMIT 1",
	"SELECT n.reference FROM loyalty_mapped n WHERE n.qualifies AND $1 IS NOT NULL AND (($2 IS NOT NULL))"
	" GROUP BY n.reference HAVING pg_catalog.count(*) > 1 LIMIT 1"
};

static const char *const duplicate_sql[ATTACHED_KINDS] = {
	"SELECT n.reference FROM loyalty_mapped n CROSS JOIN LATERAL " RECEIVED("purchase") " p"
	" WHERE n.qualifies AND p.status = 'completed' AND (p.amount <> n.amount OR p.member_id IS DISTINCT FROM " MEMBER_OF ") LIMIT 1",
	"SELECT n.reference FROM loyalty_mapped n CROSS JOIN LATERAL " RECEIVED("activity") " p"
	" WHERE n.qualifies AND p.status = 'completed' AND (p.kind <> n.kind OR p.member_id IS DISTINCT FROM " MEMBER_OF ") LIMIT 1",
	"SELECT n.reference FROM loyalty_mapped n CROSS JOIN LATERAL " RECEIVED("purchase_return") " r"
	" WHERE n.qualifies AND $1 IS NOT NULL AND NOT (" SAME_RETURN ") LIMIT 1"
};

/* references of which no row qualifies any more; grouped, since mapped rows have no index to join them by */
#define GONE_REFERENCES "(SELECT g.reference FROM loyalty_mapped g GROUP BY g.reference" \
	" HAVING NOT pg_catalog.bool_or(g.qualifies)) n"

/* returns that a statement would change or take back */
static const char *const kept_return_sql =
"SELECT r.reference FROM " GONE_REFERENCES " CROSS JOIN LATERAL " RECEIVED("purchase_return") " r"
" WHERE $1 IS NOT NULL LIMIT 1";

static const char *const void_sql[ATTACHED_RETURN] = {
	"UPDATE loyalty.purchase p SET status = 'void' WHERE $1 IS NOT NULL AND p.status <> 'void' AND p.purchase_id = ANY (ARRAY("
	"SELECT (SELECT q.purchase_id FROM loyalty.purchase q WHERE q.source = $2 AND q.reference = n.reference) FROM " GONE_REFERENCES "))",
	"UPDATE loyalty.activity p SET status = 'void' WHERE $1 IS NOT NULL AND p.status <> 'void' AND p.activity_id = ANY (ARRAY("
	"SELECT (SELECT q.activity_id FROM loyalty.activity q WHERE q.source = $2 AND q.reference = n.reference) FROM " GONE_REFERENCES "))"
};

static const char *const receive_sql[ATTACHED_KINDS] = {
	"INSERT INTO loyalty.purchase AS p (member_id, occurred_at, store, channel, currency, amount, tax, shipping,"
	" discount, paid_with_points, paid_with_gift_card, lines, attributes, source, reference)"
	" SELECT " MEMBER_OF ", " OCCURRED_AT_OF("purchase") ", n.store, n.channel, n.currency, n.amount, n.tax, n.shipping,"
	" n.discount, n.paid_with_points, n.paid_with_gift_card, loyalty.lines(n.lines), n.attributes, $2, n.reference"
	" FROM loyalty_mapped n WHERE n.qualifies"
	" ON CONFLICT (source, reference) DO UPDATE SET status = 'completed', member_id = excluded.member_id,"
	" occurred_at = excluded.occurred_at, store = excluded.store, channel = excluded.channel, currency = excluded.currency, amount = excluded.amount,"
	" tax = excluded.tax, shipping = excluded.shipping, discount = excluded.discount,"
	" paid_with_points = excluded.paid_with_points, paid_with_gift_card = excluded.paid_with_gift_card,"
	" lines = excluded.lines, attributes = excluded.attributes"
	" WHERE (p.status, p.member_id, p.occurred_at, p.store, p.channel, p.currency, p.amount, p.tax, p.shipping, p.discount,"
	"  p.paid_with_points, p.paid_with_gift_card, p.lines::pg_catalog.text, p.attributes)"
	" IS DISTINCT FROM ('completed', excluded.member_id, excluded.occurred_at, excluded.store, excluded.channel, excluded.currency,"
	"  excluded.amount, excluded.tax, excluded.shipping, excluded.discount, excluded.paid_with_points,"
	"  excluded.paid_with_gift_card, excluded.lines::pg_catalog.text, excluded.attributes)",
	"INSERT INTO loyalty.activity AS p (member_id, occurred_at, kind, value, subject, attributes, source, reference)"
	" SELECT " MEMBER_OF ", " OCCURRED_AT_OF("activity") ", n.kind, n.value, n.subject, n.attributes, $2, n.reference"
	" FROM loyalty_mapped n WHERE n.qualifies"
	" ON CONFLICT (source, reference) DO UPDATE SET status = 'completed', member_id = excluded.member_id,"
	" occurred_at = excluded.occurred_at, kind = excluded.kind, value = excluded.value, subject = excluded.subject, attributes = excluded.attributes"
	" WHERE (p.status, p.member_id, p.occurred_at, p.kind, p.value, p.subject, p.attributes)"
	" IS DISTINCT FROM ('completed', excluded.member_id, excluded.occurred_at, excluded.kind, excluded.value, excluded.subject,"
	"  excluded.attributes)",
	"INSERT INTO loyalty.purchase_return AS r (member_id, occurred_at, purchase_source, purchase_reference, amount, lines,"
	" reason, attributes, source, reference)"
	" SELECT " MEMBER_OF ", " OCCURRED_AT ", coalesce(n.purchase_source, 'purchase'), n.purchase, n.amount,"
	" loyalty.return_lines(n.lines), n.reason, n.attributes, $2, n.reference"
	" FROM loyalty_mapped n WHERE n.qualifies ON CONFLICT (source, reference) DO NOTHING"
};

/* The kept plan of one of the statements above; the mapped rows are registered by then. */
static SPIPlanPtr
kept_plan(const char *sql)
{
	static struct
	{
		const char *sql;
		SPIPlanPtr	plan;
	}			kept[16];
	Oid			types[2] = {INT4OID, TEXTOID};
	int			i = 0;

	while (kept[i].sql != NULL && kept[i].sql != sql)
		i++;
	if (kept[i].sql == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare_cursor(sql, 2, types, CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		kept[i].sql = sql;
		kept[i].plan = plan;
	}
	return kept[i].plan;
}

/* Run one of the statements above over the mapped rows. */
static void
run_over_mapped(const Attachment *attachment, const char *sql, int expected)
{
	Datum		values[2];

	values[0] = Int32GetDatum(attachment->program_id);
	values[1] = CStringGetTextDatum(attachment->source);
	if (SPI_execute_plan(kept_plan(sql), values, NULL, false, 0) != expected)
		elog(ERROR, "could not receive the rows of table %s", attachment->label);
}

/* Refuse a reference that stands twice in one statement. */
static void
check_twice(const Attachment *attachment)
{
	run_over_mapped(attachment, twice_sql[attachment->kind], SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_DUPLICATE_REFERENCE),
				 errmsg("reference \"%s\" of table %s stands twice in one statement",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
						attachment->label),
				 errhint("A row that comes again is harmless in a statement of its own.")));
}

/* Refuse members that do not exist, and on INSERT references that stand for something else. */
static void
check_mapped(const Attachment *attachment, bool inserting, int64 nrows)
{
	run_over_mapped(attachment, unknown_member_sql[attachment->kind], SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_UNKNOWN_MEMBER),
				 errmsg("member \"%s\" does not exist",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2)),
				 errdetail("Row %s of table %s names it.",
						   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
						   attachment->label),
				 errhint("loyalty.enroll makes a member; map member to null for guests.")));
	if (nrows > 1)
		check_twice(attachment);
	if (!inserting && attachment->kind != ATTACHED_RETURN)
		return;
	run_over_mapped(attachment, duplicate_sql[attachment->kind], SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_DUPLICATE_REFERENCE),
				 errmsg("reference \"%s\" of table %s was used for something else",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
						attachment->label),
				 attachment->kind == ATTACHED_RETURN ?
				 errhint("The same row again would have been harmless; a return never changes.") :
				 errhint("The same row again would have been harmless; change a row with UPDATE.")));
}

/* Refuse to take a return back: what it took was taken for good. */
static void
keep_returns(const Attachment *attachment)
{
	run_over_mapped(attachment, kept_return_sql, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_RETURN_KEPT),
				 errmsg("return \"%s\" of table %s stays",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
						attachment->label),
				 errdetail("A return is neither changed nor taken back."),
				 errhint("Enter a new purchase for what was bought again.")));
}

/*
 * Read a table of the DBA's own, with the rights of its owner.
 *
 * The query names the table, and its owner decides what stands behind the name
 * and behind the types of its columns: a view, a cast, a policy.  None of that
 * may run as the owner of this extension, nor leave a setting behind for what
 * runs as that owner afterwards.  Names and literals are read as in a rule,
 * whatever the session has set.
 */
static void
read_as_owner(const Attachment *attachment, Oid relation, const char *sql, int nargs, Oid *types,
			  Datum *values)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;
	Oid			caller;
	int			context;
	int			nest;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_LY_MAPPING_FAILED),
				 errmsg("a table that table %s was attached with does not exist any more",
						attachment->label),
				 errhint("Detach it and attach it anew.")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	GetUserIdAndSecContext(&caller, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	nest = NewGUCNestLevel();
	ExpressionPinSettings();
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read what table %s was attached with", attachment->label);
	AtEOXact_GUC(false, nest);
	SetUserIdAndSecContext(caller, context);
}

/* Name the table of lines in an error that their mapping raises. */
static void
name_lines_mapping(void *arg)
{
	const Attachment *attachment = arg;

	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_LY_MAPPING_FAILED);
	errcontext("mapping of the lines of table %s, in %s", attachment->label,
			   get_rel_name(attachment->lines_relation));
}

/* Attach the lines that stand in a table of their own to the mapped rows. */
static Tuplestorestate *
add_lines(const Attachment *attachment, Tuplestorestate *mapped)
{
	ErrorContextCallback callback = {error_context_stack, name_lines_mapping, unconstify(Attachment *, attachment)};
	Tuplestorestate *with_lines;

	if (!OidIsValid(attachment->lines_relation))
		return mapped;
	error_context_stack = &callback;
	read_as_owner(attachment, attachment->lines_relation, attachment->lines_query, 0, NULL, NULL);
	error_context_stack = callback.previous;
	with_lines = tuplestore_begin_heap(false, false, work_mem);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(with_lines, SPI_tuptable->vals[i]);
	SPI_freetuptable(SPI_tuptable);
	return with_lines;
}

/* Let the SQL of this SPI connection see the mapped rows under a name. */
static void
register_mapped(const char *name, Tuplestorestate *mapped, TupleDesc desc)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = (double) tuplestore_tuple_count(mapped);
	relation->reldata = mapped;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register %s", name);
}

/* Insert the mapped rows, whose source nobody else may use. */
static void
insert_mapped(const Attachment *attachment)
{
	bool		before = SourceReceiving(true);

	PG_TRY();
	{
		run_over_mapped(attachment, receive_sql[attachment->kind], SPI_OK_INSERT);
	}
	PG_FINALLY();
	{
		SourceReceiving(before);
	}
	PG_END_TRY();
}

/* Void, insert or update what the mapped rows say. */
static void
receive_mapped(const Attachment *attachment, Tuplestorestate *mapped, TupleDesc desc,
			   bool inserting)
{
	Tuplestorestate *complete;

	register_mapped("loyalty_header", mapped, desc);
	complete = add_lines(attachment, mapped);
	register_mapped("loyalty_mapped", complete, desc);
	check_mapped(attachment, inserting, tuplestore_tuple_count(complete));
	if (attachment->kind == ATTACHED_RETURN)
		keep_returns(attachment);
	else if (!inserting)
		run_over_mapped(attachment, void_sql[attachment->kind], SPI_OK_UPDATE);
	insert_mapped(attachment);
	SPI_unregister_relation("loyalty_mapped");
	SPI_unregister_relation("loyalty_header");
	if (complete != mapped)
		tuplestore_end(complete);
}

/* ------------------------------------------------------------------------
 * Lines in a table of their own
 * ------------------------------------------------------------------------ */

/* Collect the headers' keys, as text, that a transition table of lines names. */
static ArrayBuildState *
collect_keys(const Attachment *attachment, Tuplestorestate *rows, TupleDesc desc,
			 ArrayBuildState *keys)
{
	TupleTableSlot *slot;
	Oid			output;
	bool		is_varlena;
	int			pointer;
	char	   *last = NULL;

	if (rows == NULL)
		return keys;
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	getTypeOutputInfo(TupleDescAttr(desc, attachment->key - 1)->atttypid, &output, &is_varlena);
	pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(rows, pointer);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool		isnull;
		Datum		key = slot_getattr(slot, attachment->key, &isnull);
		char	   *text;

		CHECK_FOR_INTERRUPTS();
		if (isnull)
			continue;
		text = OidOutputFunctionCall(output, key);
		/* the lines of one header mostly follow each other */
		if (last == NULL || strcmp(text, last) != 0)
			keys = accumArrayResult(keys, CStringGetTextDatum(text), false, TEXTOID,
									CurrentMemoryContext);
		if (last != NULL)
			pfree(last);
		last = text;
	}
	ExecDropSingleTupleTableSlot(slot);
	return keys;
}

/* Map the header rows that a query gave, in its first column. */
static void
map_headers(Attachment *header, SPITupleTable *table, uint64 count, Tuplestorestate *mapped,
			TupleDesc desc)
{
	Oid			type = SPI_gettypeid(table->tupdesc, 1);
	TupleDesc	row_desc = lookup_rowtype_tupdesc_copy(type, -1);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(row_desc, &TTSOpsHeapTuple);

	for (uint64 i = 0; i < count; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull);
		HeapTupleHeader row = DatumGetHeapTupleHeader(value);
		HeapTupleData tuple = {0};

		CHECK_FOR_INTERRUPTS();
		tuple.t_len = HeapTupleHeaderGetDatumLength(row);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_data = row;
		ExecStoreHeapTuple(&tuple, slot, false);
		map_row(header, slot, false, mapped, desc);
		ExecClearTuple(slot);
		if ((Pointer) row != DatumGetPointer(value))
			pfree(row);
	}
	ExecDropSingleTupleTableSlot(slot);
	FreeTupleDesc(row_desc);
}

/*
 * Receive anew the headers whose lines changed.
 *
 * The query locks them, and what it gives is what they are after the wait; the
 * lines are read by a later statement, which sees all that was done under that
 * lock.  So two sessions that change lines of one header, or its header and its
 * lines, receive in turn, and the last one receives everything.
 */
static void
receive_headers(const Attachment *lines, ArrayBuildState *keys, Attachment **pinned)
{
	Oid			type = TEXTARRAYOID;
	Datum		value = makeArrayResult(keys, CurrentMemoryContext);
	Tuplestorestate *mapped;
	TupleDesc	desc;
	SPITupleTable *table;
	uint64		count;

	read_as_owner(lines, lines->relation, lines->header_query, 1, &type, &value);
	table = SPI_tuptable;
	count = SPI_processed;
	/* the name may stand for something else by now */
	if (SPI_gettypeid(table->tupdesc, 1) != get_rel_type_id(lines->relation))
		ereport(ERROR,
				(errcode(ERRCODE_LY_MAPPING_FAILED),
				 errmsg("the rows that the lines of table %s belong to are not those it was attached with",
						lines->label),
				 errhint("Detach it and attach it anew.")));
	if (count == 0)
		return;
	*pinned = pin_attachment(lines->relation, false);
	if (*pinned == NULL)
		elog(ERROR, "the header of table %s is not attached", lines->label);
	desc = mapped_desc(*pinned);
	mapped = tuplestore_begin_heap(false, false, work_mem);
	map_headers(*pinned, table, count, mapped, desc);
	SPI_freetuptable(table);
	receive_mapped(*pinned, mapped, desc, false);
	tuplestore_end(mapped);
}

/* ------------------------------------------------------------------------
 * The trigger
 * ------------------------------------------------------------------------ */

/* Receive the rows of an attached table. */
static void
receive_rows(Attachment *attachment, TriggerData *trigger)
{
	TupleDesc	row_desc = RelationGetDescr(trigger->tg_relation);
	TupleDesc	desc = mapped_desc(attachment);
	Tuplestorestate *mapped = tuplestore_begin_heap(false, false, work_mem);

	if (trigger->tg_newtable != NULL)
		map_rows(attachment, trigger->tg_newtable, row_desc, false, mapped, desc);
	if (trigger->tg_oldtable != NULL)
		map_rows(attachment, trigger->tg_oldtable, row_desc, true, mapped, desc);
	if (tuplestore_tuple_count(mapped) > 0)
		receive_mapped(attachment, mapped, desc, trigger->tg_oldtable == NULL);
	tuplestore_end(mapped);
}

/* Receive anew the headers of the lines that a statement touched. */
static void
receive_lines(Attachment *attachment, TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	ArrayBuildState *keys = collect_keys(attachment, trigger->tg_newtable, desc, NULL);
	Attachment *volatile header = NULL;

	keys = collect_keys(attachment, trigger->tg_oldtable, desc, keys);
	if (keys == NULL)
		return;
	PG_TRY();
	{
		receive_headers(attachment, keys, (Attachment **) &header);
	}
	PG_FINALLY();
	{
		if (header != NULL)
			unpin_attachment(header);
	}
	PG_END_TRY();
}

/* Receive what a statement did to a table as one that is attached; false where it is not. */
static bool
receive_as(TriggerData *trigger, bool returns)
{
	Attachment *attachment = pin_attachment(RelationGetRelid(trigger->tg_relation), returns);

	if (attachment == NULL)
		return false;
	PG_TRY();
	{
		if (!TRIGGER_FIRED_AFTER(trigger->tg_event) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
			ereport(ERROR,
					(errcode(ERRCODE_LY_FORGED_CALL),
					 errmsg("the trigger on table \"%s\" is not one that loyalty.attach made",
							RelationGetRelationName(trigger->tg_relation))));
		if (attachment->is_lines)
			receive_lines(attachment, trigger);
		else
			receive_rows(attachment, trigger);
	}
	PG_FINALLY();
	{
		unpin_attachment(attachment);
	}
	PG_END_TRY();
	return true;
}

PG_FUNCTION_INFO_V1(loyalty_receive);

/* Statement trigger on attached tables and on their tables of lines. */
Datum
loyalty_receive(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		known;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("\"%s\" must be called as a trigger", "receive")));
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_LY_TRUNCATE_REFUSED),
				 errmsg("table \"%s\" is attached to loyalty and is not truncated",
						RelationGetRelationName(trigger->tg_relation)),
				 errhint("DELETE takes back what its rows earned; loyalty.detach lets go of the table.")));
	SPI_connect();
	/* sales before returns: one statement may bring both */
	known = receive_as(trigger, false);
	known = receive_as(trigger, true) || known;
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_LY_FORGED_CALL),
				 errmsg("table \"%s\" is not attached to loyalty",
						RelationGetRelationName(trigger->tg_relation)),
				 errhint("loyalty.attach attaches a table.")));
	SPI_finish();
	return PointerGetDatum(NULL);
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
