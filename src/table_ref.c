/*
 * table_ref.c
 *	  How the registry of attached tables names a table: like regclass, but
 *	  that a name which stands for no table is no error.
 *
 * A dump may leave an attached table out.  Were its row in the registry an
 * error, COPY would lose the rows of all others with it, and their sales.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

/* Not InvalidOid: that would say of a table of lines that there never was one. */
#define NO_TABLE 1

PG_FUNCTION_INFO_V1(loyalty_table_ref_in);

/* table_ref_in(cstring): digits are the number of a table that was dropped before the dump. */
Datum
loyalty_table_ref_in(PG_FUNCTION_ARGS)
{
	char	   *name = PG_GETARG_CSTRING(0);
	Datum		relation;

	LOCAL_FCINFO(call, 1);

	if (strspn(name, "0123456789") == strlen(name) || strcmp(name, "-") == 0)
		PG_RETURN_OID(NO_TABLE);
	InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
	call->args[0].value = CStringGetTextDatum(name);
	call->args[0].isnull = false;
	relation = to_regclass(call);
	return call->isnull ? ObjectIdGetDatum(NO_TABLE) : relation;
}
