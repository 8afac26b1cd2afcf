/*
 * condition.c
 *	  Conditions outside of awards: who may claim a reward.
 *
 * They are written like those of rules, over the row member, and pass the same
 * gate.  A backend keeps what it compiled; an expression may call nothing but
 * immutable built-in functions, so that nothing but the type
 * loyalty.member_facts can make it stale.
 *
 * Knows nothing of rewards, reads no table.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "compat.h"
#include "errors.h"
#include "expression.h"
#include "lots.h"

#define MAX_KEPT	64

/* A condition over the row member, compiled */
typedef struct Condition
{
	MemoryContext context;
	Expression *expression;
	TupleTableSlot *slot;
	ExprContext *econtext;
} Condition;

/* What this backend has compiled */
static Condition *kept[MAX_KEPT];
static int	nkept = 0;

/* Compile in the current memory context. */
static Expression *
compile(const char *text, const char *owner)
{
	ExpressionRow row = {"member", get_typ_typrelid(OurTypeOid("member_facts"))};

	return ExpressionCompile(ExpressionScopeCreate(CurrentMemoryContext, &row, 1), 1, text,
							 BOOLOID, "condition", owner);
}

/* Forget what was compiled. */
static void
forget_conditions(void)
{
	while (nkept > 0)
		MemoryContextDelete(kept[--nkept]->context);
}

/* Compile a condition that stays; one that cannot be compiled leaves nothing behind. */
static Condition *
keep_condition(const char *text)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "loyalty condition",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Condition  *condition = palloc0(sizeof(Condition));

	condition->context = context;
	condition->expression = compile(text, "a reward");
	condition->slot = MakeSingleTupleTableSlot(condition->expression->scope->tupdesc,
											   &TTSOpsVirtual);
	condition->econtext = CreateStandaloneExprContext();
	condition->econtext->ecxt_scantuple = condition->slot;
	MemoryContextSwitchTo(old);
	if (nkept == MAX_KEPT)
		forget_conditions();
	MemoryContextSetParent(context, CacheMemoryContext);
	kept[nkept++] = condition;
	return condition;
}

/* Find a condition among those that were compiled, or compile it; another type is another extension. */
static Condition *
find_condition(const char *text, Oid relid)
{
	for (int i = 0; i < nkept; i++)
	{
		if (kept[i]->expression->scope->relid[0] == relid &&
			strcmp(kept[i]->expression->text, text) == 0)
			return kept[i];
	}
	return keep_condition(text);
}

/* Fill the slot from a row. */
static void
fill_slot(Condition *condition, HeapTupleHeader header)
{
	TupleTableSlot *slot = condition->slot;
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple = {0};

	if (desc->natts != slot->tts_tupleDescriptor->natts)
		elog(ERROR, "the row member is not the one that this library knows");
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_data = header;
	ExecClearTuple(slot);
	heap_deform_tuple(&tuple, desc, slot->tts_values, slot->tts_isnull);
	ExecStoreVirtualTuple(slot);
	ReleaseTupleDesc(desc);
}

/* What the data did to a condition is LY203, as with rules. */
static void
name_condition(void *arg)
{
	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_LY_RULE_FAILED);
	errcontext("condition: %s", (const char *) arg);
}

PG_FUNCTION_INFO_V1(loyalty_check_condition);

/* check_condition(owner, condition): compile it or raise; NULL is no condition. */
Datum
loyalty_check_condition(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(1))
		compile(text_to_cstring(PG_GETARG_TEXT_PP(1)),
				PG_ARGISNULL(0) ? "a reward" : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(loyalty_condition_holds);

/* condition_holds(condition, member): whether it is true of a member; NULL always holds. */
Datum
loyalty_condition_holds(PG_FUNCTION_ARGS)
{
	ErrorContextCallback callback = {.callback = name_condition,.previous = error_context_stack};
	HeapTupleHeader member;
	Condition  *condition;
	Datum		result;
	bool		isnull;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	member = PG_GETARG_HEAPTUPLEHEADER(1);
	condition = find_condition(text_to_cstring(PG_GETARG_TEXT_PP(0)),
							   get_typ_typrelid(HeapTupleHeaderGetTypeId(member)));
	fill_slot(condition, member);
	callback.arg = condition->expression->text;
	error_context_stack = &callback;
	result = ExpressionEvaluate(condition->expression, condition->econtext, &isnull);
	error_context_stack = callback.previous;
	ResetExprContext(condition->econtext);
	ExecClearTuple(condition->slot);
	PG_RETURN_BOOL(!isnull && DatumGetBool(result));
}
