/*
 * columns.h
 *	  Rows as arguments of a kept statement: an array a column.
 */
#ifndef LOYALTY_COLUMNS_H
#define LOYALTY_COLUMNS_H

#include "postgres.h"

#include "executor/spi.h"

#define MAX_COLUMNS 10

/* The rows of one statement, a column an array */
typedef struct Columns
{
	int			n;
	int			ncolumns;
	Oid			type[MAX_COLUMNS];
	Datum	   *value[MAX_COLUMNS];
	bool	   *isnull[MAX_COLUMNS];
} Columns;

/* A statement over such rows, whose plan is kept */
typedef struct KeptPlan
{
	const char *sql;
	SPIPlanPtr	plan;
} KeptPlan;

extern void ColumnsInit(Columns *columns, int n, int ncolumns, const Oid *types);
extern void ColumnsPut(Columns *columns, int column, Datum value);
extern void ColumnsRun(KeptPlan *kept, const Columns *columns, int expected);
extern void ColumnsRunOne(KeptPlan *kept, int n, const Oid *types, Datum *values, int expected);

#endif							/* LOYALTY_COLUMNS_H */
