/*
 * columns.c
 *	  Rows as arguments of a kept statement: an array a column.
 *
 * Knows nothing of what the rows say.
 */
#include "columns.h"

#include "utils/array.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "compat.h"

/* Make room for n rows of some types. */
void
ColumnsInit(Columns *columns, int n, int ncolumns, const Oid *types)
{
	columns->n = 0;
	columns->ncolumns = ncolumns;
	for (int i = 0; i < ncolumns; i++)
	{
		columns->type[i] = types[i];
		columns->value[i] = palloc0(sizeof(Datum) * Max(n, 1));
		columns->isnull[i] = palloc0(sizeof(bool) * Max(n, 1));
	}
}

/* Put a value into the row that is being made. */
void
ColumnsPut(Columns *columns, int column, Datum value)
{
	columns->value[column][columns->n] = value;
}

/* The array of a column. */
static Datum
column_array(const Columns *columns, int column)
{
	int			lower = 1;
	int16		length;
	bool		byval;
	char		align;

	get_typlenbyvalalign(columns->type[column], &length, &byval, &align);
	return PointerGetDatum(construct_md_array(columns->value[column], columns->isnull[column], 1,
											  (int *) &columns->n, &lower, columns->type[column],
											  length, byval, align));
}

/* Let plans be made by key, whatever the size that a table had when they were made; returns the nest level to leave. */
static int
plan_by_key(void)
{
	static const char *const off[] = {"enable_seqscan", "enable_hashjoin", "enable_mergejoin"};
	int			nest = NewGUCNestLevel();

	for (size_t i = 0; i < lengthof(off); i++)
		(void) set_config_option(off[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return nest;
}

/* Run a kept statement, preparing it at its first use; keyed: whatever its plan was made for. */
static void
run_kept(KeptPlan *kept, int n, Oid *types, Datum *values, bool keyed, int expected)
{
	int			nest = kept->plan == NULL || keyed ? plan_by_key() : 0;
	int			result;

	if (kept->plan == NULL)
	{
		kept->plan = SPI_prepare_cursor(kept->sql, n, types, CURSOR_OPT_GENERIC_PLAN);
		if (kept->plan == NULL)
			elog(ERROR, "could not prepare: %s", kept->sql);
		SPI_keepplan(kept->plan);
	}
	result = SPI_execute_plan(kept->plan, values, NULL, false, 0);
	if (nest != 0)
		AtEOXact_GUC(false, nest);
	if (result != expected)
		elog(ERROR, "%s: %s", SPI_result_code_string(result), kept->sql);
}

/* Run a kept plan on rows. */
void
ColumnsRun(KeptPlan *kept, const Columns *columns, int expected)
{
	Datum		values[MAX_COLUMNS];
	Oid			types[MAX_COLUMNS] = {InvalidOid};

	for (int i = 0; i < columns->ncolumns; i++)
		values[i] = column_array(columns, i);
	for (int i = 0; kept->plan == NULL && i < columns->ncolumns; i++)
		types[i] = get_array_type(columns->type[i]);
	run_kept(kept, columns->ncolumns, types, values, columns->n > 8, expected);
}

/* Run a kept plan on one row, whose columns are its arguments as they are. */
void
ColumnsRunOne(KeptPlan *kept, int n, const Oid *types, Datum *values, int expected)
{
	run_kept(kept, n, (Oid *) types, values, false, expected);
}
