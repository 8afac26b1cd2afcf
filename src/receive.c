/*
 * receive.c
 *	  Mapped rows of attached tables become rows of loyalty.purchase, activity or
 *	  purchase_return, whose triggers award and take back.
 *
 * The mapped row is kept as the evidence of what an award was decided upon.  An
 * insert, update or delete ends as an insert, an update or a void of it, so that
 * doing it twice posts nothing the second time.  A return is neither changed nor
 * taken back.
 */
#include "receive.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "errors.h"
#include "source.h"

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
void
ReceiveAsOwner(const Attachment *attachment, Oid relation, const char *sql, int nargs, Oid *types,
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
	ReceiveAsOwner(attachment, attachment->lines_relation, attachment->lines_query, 0, NULL, NULL);
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
void
ReceiveMapped(const Attachment *attachment, Tuplestorestate *mapped, TupleDesc desc,
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
