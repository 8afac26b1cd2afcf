/*
 * expression.c
 *	  Compiles SQL expressions over named rows.
 *
 * PostgreSQL's own parser reads the text, its own analysis types it, its own
 * planner folds it and its own executor evaluates it.  This room owns only the
 * gate between: what may be named and what may be called.  Expressions are
 * written by people who are trusted to make offers, not to own the database,
 * so that they may call nothing but immutable functions that initdb made in
 * pg_catalog, and hold no subquery, parameter or row.  The gate stands before
 * analysis as well as after it, since analysis itself reads literals.
 *
 * Knows nothing of points, rules or the ledger, and does no SPI.
 */
#include "expression.h"

#include <ctype.h>

#include "access/relation.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parse_type.h"
#include "parser/parser.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "errors.h"

#define MAX_LENGTH	8192
#define MAX_NODES	2000
#define INT8_EQUAL_OPERATOR 410 /* of pg_operator; the headers name only those of int4 and text */

/* What the walk over a tree carries */
typedef struct Walk
{
	const char *text;
	const char *role;
	const char *owner;
	const ExpressionScope *scope;
	const int  *row_of_varno;	/* scope row of each range table entry, from 1 */
	List	   *literals;		/* string literals of the parse tree, as A_Const */
	int			nodes;
	bool		planned;		/* the walk after planning: SQL functions must be gone */
} Walk;

/* ------------------------------------------------------------------------
 * Scope
 * ------------------------------------------------------------------------ */

/* Lay the columns of some rows side by side. */
ExpressionScope *
ExpressionScopeCreate(MemoryContext context, const ExpressionRow *rows, int nrows)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ExpressionScope *scope = palloc0(sizeof(ExpressionScope));
	Relation   *relation = palloc(sizeof(Relation) * nrows);
	int			natts = 0;

	scope->context = context;
	scope->nrows = nrows;
	scope->name = palloc(sizeof(char *) * nrows);
	scope->relid = palloc(sizeof(Oid) * nrows);
	scope->first = palloc(sizeof(int) * nrows);
	for (int i = 0; i < nrows; i++)
	{
		scope->name[i] = pstrdup(rows[i].name);
		scope->relid[i] = rows[i].relid;
		scope->first[i] = natts;
		relation[i] = relation_open(rows[i].relid, AccessShareLock);
		natts += RelationGetNumberOfAttributes(relation[i]);
	}
	scope->tupdesc = CreateTemplateTupleDesc(natts);
	for (int i = 0; i < nrows; i++)
	{
		for (int a = 1; a <= RelationGetNumberOfAttributes(relation[i]); a++)
			TupleDescCopyEntry(scope->tupdesc, (AttrNumber) (scope->first[i] + a),
							   RelationGetDescr(relation[i]), (AttrNumber) a);
		relation_close(relation[i], AccessShareLock);
	}
	pfree(relation);
	MemoryContextSwitchTo(old);
	return scope;
}

/* ------------------------------------------------------------------------
 * Errors
 * ------------------------------------------------------------------------ */

/* The expression with a mark under a byte position, -1: without. */
static char *
marked_text(const char *text, int location)
{
	int			column;

	if (location < 0 || location >= (int) strlen(text) || strchr(text, '\n') != NULL ||
		strlen(text) > 500)
		return psprintf("The expression is: %.500s", text);
	column = pg_mbstrlen_with_len(text, location);
	return psprintf("%s\n%*s^", text, column, "");
}

/* Refuse something that expressions may not hold. */
static void
refuse(const Walk *walk, int location, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_RULE_NOT_ALLOWED),
			 errmsg("%s of %s may not use %s", walk->role, walk->owner, what),
			 errdetail("%s", marked_text(walk->text, location)),
			 errhint("Only immutable built-in functions and operators over the named rows may be used: no subqueries, no functions of your own, no clock.")));
}

/* Refuse an expression that is too large. */
static void
refuse_size(const char *role, const char *owner)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_RULE_NOT_ALLOWED),
			 errmsg("%s of %s is too long", role, owner),
			 errdetail("An expression has at most %d characters and %d parts.",
					   MAX_LENGTH, MAX_NODES),
			 errhint("Split the rule in two.")));
}

/* Raise what PostgreSQL said of an expression in our own words. */
static void
rethrow(ErrorData *error, const ExpressionScope *scope, const char *text, const char *role,
		const char *owner)
{
	int			class = ERRCODE_TO_CATEGORY(error->sqlerrcode);
	int			position = error->cursorpos > 0 ? error->cursorpos : error->internalpos;

	if (class != ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION && class != ERRCODE_DATA_EXCEPTION &&
		class != ERRCODE_FEATURE_NOT_SUPPORTED && class != ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
		class != ERRCODE_INVALID_SCHEMA_NAME)
		ReThrowError(error);
	ereport(ERROR,
			(errcode(ERRCODE_LY_INVALID_RULE),
			 errmsg("%s of %s is not valid: %s", role, owner, error->message),
			 errdetail("%s", marked_text(text, position > 0 ?
										 pg_mbcharcliplen(text, (int) strlen(text), position - 1) : -1)),
			 error->hint != NULL ? errhint("%s", error->hint) :
			 scope->nrows == 1 ? errhint("Name the columns of %s.", scope->name[0]) :
			 errhint("The rows are member, purchase, line, product, activity and redemption, as far as the event has them; \\d+ loyalty.purchase_facts shows a row's columns.")));
}

/* ------------------------------------------------------------------------
 * What is allowed
 * ------------------------------------------------------------------------ */

/* Check one function: immutable, of pg_catalog, made by initdb, returning no set. */
static void
check_function(Oid function, const Walk *walk, int location)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool		allowed;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	allowed = form->pronamespace == PG_CATALOG_NAMESPACE && form->oid < FirstNormalObjectId &&
		form->provolatile == PROVOLATILE_IMMUTABLE && !form->proretset &&
		form->prokind == PROKIND_FUNCTION &&
		!(walk->planned && form->prolang == SQLlanguageId);
	ReleaseSysCache(tuple);
	if (!allowed)
		refuse(walk, location, psprintf("function %s", format_procedure(function)));
}

/* check_functions_in_node's callback; 0 means: go on. */
static bool
function_is_refused(Oid function, void *context)
{
	Walk	   *walk = context;

	check_function(function, walk, -1);
	return false;
}

/* Tell whether a node is of a kind that may stand in an expression. */
static bool
is_allowed_node(const Node *node)
{
	switch (nodeTag(node))
	{
		case T_Const:
		case T_Var:
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayExpr:
		case T_CollateExpr:
		case T_List:
			return true;
		default:
			return false;
	}
}

/* What a refused node is called. */
static const char *
node_name(const Node *node)
{
	switch (nodeTag(node))
	{
		case T_SubLink:
			return "a subquery";
		case T_Param:
			return "a parameter";
		case T_Aggref:
			return "an aggregate function";
		case T_WindowFunc:
			return "a window function";
		case T_SQLValueFunction:
			return "the clock or the session, such as current_date";
		case T_CoerceToDomain:
			return "a domain";
		case T_RowExpr:
			return "a row";
		default:
			return "this construct";
	}
}

/* Check a type: built in or an enum, and no row; a column may be of a domain over one. */
static void
check_type(Oid type, const Walk *walk, int location)
{
	Oid			base = getBaseType(type);

	if ((base >= FirstNormalObjectId && get_typtype(base) != TYPTYPE_ENUM) ||
		get_typtype(base) == TYPTYPE_COMPOSITE || base == RECORDOID ||
		get_typtype(get_element_type(base)) == TYPTYPE_COMPOSITE)
		refuse(walk, location, psprintf("type %s", format_type_be(type)));
}

/* Check a column reference. */
static void
check_var(const Var *var, const Walk *walk)
{
	if (var->varattno == 0)
		refuse(walk, var->location, "a whole row");
	if (var->varattno < 0)
		refuse(walk, var->location, "a system column");
	if (var->varlevelsup != 0)
		refuse(walk, var->location, "an outer query");
}

/* The type inside domains, arrays, ranges and multiranges. */
static Oid
innermost_type(Oid type)
{
	for (;;)
	{
		Oid			base = getBaseType(type);

		type = get_element_type(base);
		if (!OidIsValid(type))
			type = get_multirange_range(base);
		if (!OidIsValid(type))
			type = get_range_subtype(base);
		if (!OidIsValid(type))
			return base;
	}
}

/* The word of the clock that a literal of dates or times holds, NULL: none. */
static const char *
clock_word(const char *literal)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
	char	   *run = palloc(strlen(literal) + 1);
	int			length = 0;

	for (const char *c = literal;; c++)
	{
		if (isalpha((unsigned char) *c))
			run[length++] = *c;
		else if (*c != '"' && *c != '\\')	/* an array's quoting parts no words */
		{
			run[length] = '\0';
			for (size_t i = 0; i < lengthof(words); i++)
			{
				if (pg_strcasecmp(run, words[i]) == 0)
					return words[i];
			}
			length = 0;
		}
		if (*c == '\0')
			return NULL;
	}
}

/* Refuse words that mean the clock, frozen at the moment of saving. */
static void
check_const(const Const *constant, const Walk *walk)
{
	ListCell   *cell;
	Oid			type = innermost_type(constant->consttype);

	if (walk->planned || (type != DATEOID && type != TIMESTAMPOID && type != TIMESTAMPTZOID &&
						  type != TIMEOID && type != TIMETZOID))
		return;
	foreach(cell, walk->literals)
	{
		A_Const    *literal = lfirst_node(A_Const, cell);
		const char *word;

		if (literal->location != constant->location)
			continue;
		word = clock_word(strVal(&literal->val));
		if (word != NULL)
			refuse(walk, constant->location, psprintf("the clock's word '%s'", word));
	}
}

/*
 * Refuse the text of values whose output follows a setting of the session
 * although its function is called immutable: whoever connects would choose the
 * subject of a limit.
 */
static void
check_output(const CoerceViaIO *cast, const Walk *walk)
{
	Oid			type = innermost_type(exprType((Node *) cast->arg));
	char		category;
	bool		preferred;

	get_type_category_preferred(type, &category, &preferred);
	if (type == BYTEAOID || type == FLOAT4OID || type == FLOAT8OID || type == INTERVALOID ||
		category == TYPCATEGORY_GEOMETRIC)
		refuse(walk, cast->location,
			   psprintf("the text of type %s, which depends on the session", format_type_be(type)));
}

/* Walk a tree and refuse whatever is not allowed. */
static bool
check_walker(Node *node, void *context)
{
	Walk	   *walk = context;

	if (node == NULL)
		return false;
	check_stack_depth();
	if (++walk->nodes > MAX_NODES)
		refuse_size(walk->role, walk->owner);
	if (!is_allowed_node(node))
		refuse(walk, exprLocation(node), node_name(node));
	if (IsA(node, Var))
		check_var((const Var *) node, walk);
	if (IsA(node, Const))
		check_const((const Const *) node, walk);
	if (IsA(node, FuncExpr))
		check_function(((FuncExpr *) node)->funcid, walk, exprLocation(node));
	if (IsA(node, OpExpr))
	{
		set_opfuncid((OpExpr *) node);
		check_function(((OpExpr *) node)->opfuncid, walk, ((OpExpr *) node)->location);
	}
	if (IsA(node, CoerceViaIO))
		check_output((const CoerceViaIO *) node, walk);
	if (!IsA(node, List) && !IsA(node, CaseWhen))
		check_type(exprType(node), walk, exprLocation(node));
	check_functions_in_node(node, function_is_refused, walk);
	return expression_tree_walker(node, check_walker, context);
}

/* ------------------------------------------------------------------------
 * Compilation
 * ------------------------------------------------------------------------ */

/* Tell whether a target is a bare *, which transformExpr cannot take. */
static bool
is_star(const Node *target)
{
	return IsA(target, ColumnRef) && IsA(linitial(((const ColumnRef *) target)->fields), A_Star);
}

/* Parse text that must be one expression and nothing else. */
static Node *
parse_expression(const char *text)
{
	List	   *statements = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = castNode(SelectStmt, linitial_node(RawStmt, statements)->stmt);

	if (list_length(select->targetList) != 1 || select->distinctClause != NIL ||
		select->fromClause != NIL || select->whereClause != NULL || select->groupClause != NIL ||
		select->havingClause != NULL || select->windowClause != NIL ||
		select->sortClause != NIL || select->limitCount != NULL || select->limitOffset != NULL ||
		select->lockingClause != NIL || select->withClause != NULL || select->intoClause != NULL ||
		select->op != SETOP_NONE || select->valuesLists != NIL ||
		linitial_node(ResTarget, select->targetList)->name != NULL ||
		is_star(linitial_node(ResTarget, select->targetList)->val))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("expected one expression and nothing else")));
	return linitial_node(ResTarget, select->targetList)->val;
}

/* Tell whether a name is qualified with a schema other than pg_catalog. */
static bool
is_foreign_name(const List *name)
{
	return list_length(name) > 1 && strcmp(strVal(linitial(name)), "pg_catalog") != 0;
}

/* Check a type by its name, where there is one of that name. */
static void
check_type_name(const TypeName *name, const Walk *walk)
{
	Oid			type = LookupTypeNameOid(NULL, name, true);

	if (OidIsValid(type))
		check_type(type, walk, name->location);
}

/*
 * Refuse in the parse tree what must not even be analysed.
 *
 * Analysis reads a literal with the input function of the type that it is
 * compared with, cast to or passed as, and that of a row or of an array of
 * domains runs the CHECKs of the domains, which are anybody's code.  So no type
 * of a user's may be reached: not by a cast, a function or an operator here,
 * nor by a column in check_column.
 */
static bool
guard_walker(Node *node, void *context)
{
	Walk	   *walk = context;

	if (node == NULL || IsA(node, SubLink))
		return false;			/* analysis refuses subqueries unread */
	check_stack_depth();
	if (IsA(node, TypeName))
		check_type_name((TypeName *) node, walk);
	if (IsA(node, FuncCall) && is_foreign_name(((FuncCall *) node)->funcname))
		refuse(walk, ((FuncCall *) node)->location,
			   psprintf("function %s", NameListToString(((FuncCall *) node)->funcname)));
	if (IsA(node, A_Expr) && is_foreign_name(((A_Expr *) node)->name))
		refuse(walk, ((A_Expr *) node)->location,
			   psprintf("operator %s", NameListToString(((A_Expr *) node)->name)));
	if (IsA(node, A_Const) && !((A_Const *) node)->isnull &&
		IsA(&((A_Const *) node)->val, String))
		walk->literals = lappend(walk->literals, node);
	return raw_expression_tree_walker(node, guard_walker, context);
}

/* Check a column as soon as the parser has found it, before a literal takes its type. */
static Node *
check_column(ParseState *pstate, ColumnRef *reference, Node *found)
{
	Walk		walk = *(Walk *) pstate->p_ref_hook_state;

	if (found != NULL)
		check_walker(found, &walk);
	return NULL;
}

/* Let the visible rows be named; row_of_varno is filled. */
static void
add_rows(ParseState *pstate, const ExpressionScope *scope, uint32 visible, int *row_of_varno)
{
	int			varno = 0;

	for (int i = 0; i < scope->nrows; i++)
	{
		Relation	relation;
		ParseNamespaceItem *item;

		if ((visible & (UINT32_C(1) << i)) == 0)
			continue;
		relation = relation_open(scope->relid[i], AccessShareLock);
		item = addRangeTableEntryForRelation(pstate, relation, AccessShareLock,
											 makeAlias(scope->name[i], NIL), false, false);
		addNSItemToQuery(pstate, item, false, true, true);
		relation_close(relation, NoLock);
		row_of_varno[++varno] = i;
	}
}

/* Type the parse tree over the visible rows; row_of_varno is filled. */
static Node *
analyse(ExpressionScope *scope, uint32 visible, Oid result_type, Walk *walk, int *row_of_varno)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *raw = parse_expression(walk->text);
	Node	   *node;
	Oid			type;

	guard_walker(raw, walk);
	pstate->p_sourcetext = walk->text;
	pstate->p_post_columnref_hook = check_column;
	pstate->p_ref_hook_state = walk;
	add_rows(pstate, scope, visible, row_of_varno);
	node = transformExpr(pstate, raw, EXPR_KIND_CHECK_CONSTRAINT);
	type = exprType(node);
	if (result_type == BOOLOID)
		node = coerce_to_boolean(pstate, node, walk->role);
	else
	{
		node = coerce_to_target_type(pstate, node, type, result_type, -1, COERCION_ASSIGNMENT,
									 COERCE_IMPLICIT_CAST, -1);
		if (node == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("it is of type %s, which does not become %s",
							format_type_be(type), format_type_be(result_type))));
	}
	assign_expr_collations(pstate, node);
	free_parsestate(pstate);
	return node;
}

/* Point every column reference at the wide tuple. */
static Node *
widen_mutator(Node *node, void *context)
{
	Walk	   *walk = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) copyObjectImpl(node);

		var->varattno = (AttrNumber) (walk->scope->first[walk->row_of_varno[var->varno]] +
									  var->varattno);
		var->varno = 1;
		return (Node *) var;
	}
	return expression_tree_mutator(node, widen_mutator, context);
}

/* Collect the columns that a tree reads. */
static bool
columns_walker(Node *node, void *context)
{
	Bitmapset **columns = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		*columns = bms_add_member(*columns, ((Var *) node)->varattno - 1);
	return expression_tree_walker(node, columns_walker, context);
}

/*
 * Pin the settings that names and literals are read with: a rule means the same
 * in every session.  Until the caller's AtEOXact_GUC, or an error.
 */
void
ExpressionPinSettings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"datestyle", "ISO, MDY"},
		{"intervalstyle", "postgres"},
		{"timezone", "UTC"},
		{"standard_conforming_strings", "on"},
		{"transform_null_equals", "off"},
		{"array_nulls", "on"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/* Parse, check and plan with only pg_catalog in sight. */
static Expr *
compile_tree(ExpressionScope *scope, uint32 visible, const char *text, Oid result_type,
			 const char *role, const char *owner)
{
	int			row_of_varno[33];
	Walk		walk = {.text = text,.role = role,.owner = owner,.scope = scope};
	Node	   *node;
	Expr	   *planned;

	walk.row_of_varno = row_of_varno;
	node = analyse(scope, visible, result_type, &walk, row_of_varno);
	check_walker(node, &walk);
	planned = expression_planner((Expr *) widen_mutator(node, &walk));
	walk.planned = true;
	walk.nodes = 0;
	check_walker((Node *) planned, &walk);
	return planned;
}

/*
 * Compile an expression to a type; visible has bit i where row i may be named.
 *
 * role and owner name it in errors: LY201 where it is wrong, LY202 where it is
 * not allowed.  The result lives in the scope's memory context.
 */
Expression *
ExpressionCompile(ExpressionScope *scope, uint32 visible, const char *text, Oid result_type,
				  const char *role, const char *owner)
{
	MemoryContext caller = CurrentMemoryContext;
	Expression *expression;
	Expr	   *planned = NULL;
	int			nest;

	if (strlen(text) > MAX_LENGTH)
		refuse_size(role, owner);
	nest = NewGUCNestLevel();
	ExpressionPinSettings();
	PG_TRY();
	{
		planned = compile_tree(scope, visible, text, result_type, role, owner);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		AtEOXact_GUC(false, nest);
		rethrow(error, scope, text, role, owner);
	}
	PG_END_TRY();
	AtEOXact_GUC(false, nest);

	MemoryContextSwitchTo(scope->context);
	expression = palloc0(sizeof(Expression));
	expression->scope = scope;
	expression->text = pstrdup(text);
	expression->type = result_type;
	expression->planned = copyObject(planned);
	columns_walker((Node *) expression->planned, &expression->columns);
	MemoryContextSwitchTo(caller);
	return expression;
}

/*
 * Make the executor's state of an expression.
 *
 * It is kept as long as the scope: what may be called is immutable, built in
 * and written in C, and keeps nothing of a transaction.
 */
void
ExpressionPrepare(Expression *expression)
{
	MemoryContext old = MemoryContextSwitchTo(expression->scope->context);

	expression->state = ExecInitExpr(expression->planned, NULL);
	MemoryContextSwitchTo(old);
}

/* Tell whether an expression has been folded to a constant. */
bool
ExpressionIsConstant(const Expression *expression, Datum *value, bool *isnull)
{
	const Const *constant = (const Const *) expression->planned;

	if (!IsA(expression->planned, Const))
		return false;
	*value = constant->constvalue;
	*isnull = constant->constisnull;
	return true;
}

/* ------------------------------------------------------------------------
 * Keys
 * ------------------------------------------------------------------------ */

/* Look through relabelling. */
static Node *
strip(Node *node)
{
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* Tell whether an operator is the plain equality of text, int4 or int8. */
static bool
is_key_equality(Oid operator, Oid collation, Oid *type)
{
	switch (operator)
	{
		case TextEqualOperator:
			*type = TEXTOID;
			return !OidIsValid(collation) || get_collation_isdeterministic(collation);
		case Int4EqualOperator:
			*type = INT4OID;
			return true;
		case INT8_EQUAL_OPERATOR:
			*type = INT8OID;
			return true;
		default:
			return false;
	}
}

/* Column = constant, either way round. */
static bool
key_of_equality(const OpExpr *op, ExpressionKey *key)
{
	Node	   *left;
	Node	   *right;

	if (list_length(op->args) != 2 || !is_key_equality(op->opno, op->inputcollid, &key->type))
		return false;
	left = strip(linitial(op->args));
	right = strip(lsecond(op->args));
	if (IsA(left, Const))
	{
		Node	   *swap = left;

		left = right;
		right = swap;
	}
	if (!IsA(left, Var) || !IsA(right, Const) || ((Const *) right)->constisnull ||
		((Var *) left)->vartype != key->type)
		return false;
	key->column = ((Var *) left)->varattno - 1;
	key->nvalues = 1;
	key->values = palloc(sizeof(Datum));
	key->values[0] = ((Const *) right)->constvalue;
	return true;
}

/* Column = ANY (constant array), which is what IN (...) becomes. */
static bool
key_of_list(const ScalarArrayOpExpr *op, ExpressionKey *key)
{
	Node	   *left = strip(linitial(op->args));
	Node	   *right = strip(lsecond(op->args));
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int16		length;
	bool		by_value;
	char		alignment;

	if (!op->useOr || !is_key_equality(op->opno, op->inputcollid, &key->type) ||
		!IsA(left, Var) || !IsA(right, Const) || ((Const *) right)->constisnull ||
		((Var *) left)->vartype != key->type)
		return false;
	get_typlenbyvalalign(key->type, &length, &by_value, &alignment);
	deconstruct_array(DatumGetArrayTypeP(((Const *) right)->constvalue), key->type, length,
					  by_value, alignment, &values, &nulls, &n);
	key->column = ((Var *) left)->varattno - 1;
	key->values = palloc(sizeof(Datum) * Max(n, 1));
	key->nvalues = 0;
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			key->values[key->nvalues++] = values[i];
	}
	return true;
}

/* The demand of one conjunct. */
static bool
key_of(Node *node, ExpressionKey *key)
{
	if (IsA(node, OpExpr))
		return key_of_equality((OpExpr *) node, key);
	if (IsA(node, ScalarArrayOpExpr))
		return key_of_list((ScalarArrayOpExpr *) node, key);
	return false;
}

/* Text before integers, fewer values before more. */
static bool
is_better(const ExpressionKey *a, const ExpressionKey *b)
{
	if ((a->type == TEXTOID) != (b->type == TEXTOID))
		return a->type == TEXTOID;
	return a->nvalues < b->nvalues;
}

/*
 * Find an equality that a condition's top-level AND demands of a column.
 *
 * Where the column has none of the key's values the condition is not true.
 * Values live as long as the expression, the array in the current context.
 */
bool
ExpressionFindKey(const Expression *condition, ExpressionKey *key)
{
	List	   *conjuncts = make_ands_implicit(condition->planned);
	ListCell   *cell;
	bool		found = false;

	foreach(cell, conjuncts)
	{
		ExpressionKey candidate;

		if (key_of(lfirst(cell), &candidate) && (!found || is_better(&candidate, key)))
		{
			*key = candidate;
			found = true;
		}
	}
	return found;
}
