/*
 * expression.h
 *	  SQL expressions over named rows: text in, checked and planned tree out.
 */
#ifndef LOYALTY_EXPRESSION_H
#define LOYALTY_EXPRESSION_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/executor.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"

/* A named row: a table or composite type whose columns become facts */
typedef struct ExpressionRow
{
	const char *name;
	Oid			relid;
} ExpressionRow;

/* All rows' columns side by side in one wide virtual tuple */
typedef struct ExpressionScope
{
	MemoryContext context;
	int			nrows;
	char	  **name;
	Oid		   *relid;
	int		   *first;			/* where a row's columns begin, from 0 */
	TupleDesc	tupdesc;
} ExpressionScope;

typedef struct Expression
{
	ExpressionScope *scope;
	char	   *text;
	Oid			type;
	Expr	   *planned;
	Bitmapset  *columns;		/* of the wide tuple, from 0 */
	ExprState  *state;			/* made at the first evaluation */
} Expression;

/* What a condition demands of one column: it equals one of some constants */
typedef struct ExpressionKey
{
	int			column;
	Oid			type;			/* text, int4 or int8 */
	int			nvalues;
	Datum	   *values;
} ExpressionKey;

extern ExpressionScope *ExpressionScopeCreate(MemoryContext context, const ExpressionRow *rows,
											  int nrows);
extern Expression *ExpressionCompile(ExpressionScope *scope, uint32 visible, const char *text,
									 Oid result_type, const char *role, const char *owner);
extern void ExpressionPinSettings(void);
extern void ExpressionPrepare(Expression *expression);
extern bool ExpressionFindKey(const Expression *condition, ExpressionKey *key);
extern bool ExpressionIsConstant(const Expression *expression, Datum *value, bool *isnull);

/* Evaluate on the econtext's scan tuple, in its per-tuple memory. */
static inline Datum
ExpressionEvaluate(Expression *expression, ExprContext *econtext, bool *isnull)
{
	if (expression->state == NULL)
		ExpressionPrepare(expression);
	return ExecEvalExprSwitchContext(expression->state, econtext, isnull);
}

#endif							/* LOYALTY_EXPRESSION_H */
