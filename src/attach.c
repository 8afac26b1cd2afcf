/*
 * attach.c
 *	  The trigger on tables of the DBA's own: maps their rows by the attachment's
 *	  expressions and has them received.
 *
 * Knows nothing of points.  Lines in a table of their own are read with the
 * header that they belong to.  One table may hold sales and returns: it is then
 * attached twice.
 */
#include "attachment.h"

#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "errors.h"
#include "receive.h"

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

	ReceiveAsOwner(lines, lines->relation, lines->header_query, 1, &type, &value);
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
	*pinned = AttachmentPin(lines->relation, false);
	if (*pinned == NULL)
		elog(ERROR, "the header of table %s is not attached", lines->label);
	desc = mapped_desc(*pinned);
	mapped = tuplestore_begin_heap(false, false, work_mem);
	map_headers(*pinned, table, count, mapped, desc);
	SPI_freetuptable(table);
	ReceiveMapped(*pinned, mapped, desc, false);
	tuplestore_end(mapped);
}

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
		ReceiveMapped(attachment, mapped, desc, trigger->tg_oldtable == NULL);
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
			AttachmentUnpin(header);
	}
	PG_END_TRY();
}

/* Receive what a statement did to a table as one that is attached; false where it is not. */
static bool
receive_as(TriggerData *trigger, bool returns)
{
	Attachment *attachment = AttachmentPin(RelationGetRelid(trigger->tg_relation), returns);

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
		AttachmentUnpin(attachment);
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
