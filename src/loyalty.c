/*
 * loyalty.c
 *	  The module: its magic block and what runs when it is loaded.
 */
#include "postgres.h"

#include "fmgr.h"

#include "compat.h"
#include "copurchase_type.h"
#include "keys.h"
#include "program.h"

LOYALTY_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/* Register what outlives a statement. */
void
_PG_init(void)
{
	ProgramInit();
	KeysInit();
	CopurchaseInit();
}
