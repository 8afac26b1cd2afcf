/*
 * source.c
 *	  Sources of transactions that belong to attached tables.
 *
 * The source of an attached table is for its rows alone: whoever could take a
 * reference there first would keep the table's own row out for ever.  The list
 * is kept for the session and read again when any relation changed.  Sources
 * "loyalty:..." are the engine's own and its owner's, whose jobs use them.
 */
#include "source.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "errors.h"
#include "program.h"

static bool is_receiving = false;	/* rows of an attached table, or the engine's own, are being inserted */
static MemoryContext context = NULL;
static List *sources = NIL;		/* of char */
static bool fresh = false;		/* the list was read, when the generation was: */
static uint64 generation = 0;

/* Let rows of attached tables, or of the engine, in, or no more; returns what was so before. */
bool
SourceReceiving(bool receiving)
{
	bool		before = is_receiving;

	is_receiving = receiving;
	return before;
}

/* Read the list where it may have changed. */
static void
read_sources(void)
{
	uint64		now = ProgramRelcacheGeneration();
	MemoryContext old;

	if (fresh && generation == now)
		return;
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "loyalty sources", ALLOCSET_SMALL_SIZES);
	fresh = false;
	SPI_connect();
	/* what is cached outlives the transaction, whose own snapshot may be an old one */
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute("SELECT source FROM loyalty.attachment", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the sources of attached tables");
	PopActiveSnapshot();
	sources = NIL;
	MemoryContextReset(context);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
		sources = lappend(sources, pstrdup(SPI_getvalue(SPI_tuptable->vals[i],
														 SPI_tuptable->tupdesc, 1)));
	MemoryContextSwitchTo(old);
	SPI_finish();
	generation = now;
	fresh = true;
}

/* Refuse a source of the engine's to whoever is not its owner, as whom the triggers run. */
static void
check_own(const text *value)
{
	static const char own[] = "loyalty:";

	if (VARSIZE_ANY_EXHDR(value) < sizeof(own) - 1 ||
		memcmp(VARDATA_ANY(value), own, sizeof(own) - 1) != 0 ||
		has_privs_of_role(GetOuterUserId(), GetUserId()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_LY_FORGED_CALL),
			 errmsg("sources that begin with \"%s\" are the engine's own", own),
			 errhint("Give another source.")));
}

/* Refuse a source that belongs to an attached table, except to the rows of that table. */
void
SourceCheck(Datum source)
{
	ListCell   *cell;
	text	   *value;

	if (is_receiving || source == (Datum) 0)
		return;
	value = DatumGetTextPP(source);
	check_own(value);
	read_sources();
	foreach(cell, sources)
	{
		const char *reserved = lfirst(cell);

		if (strlen(reserved) == VARSIZE_ANY_EXHDR(value) &&
			memcmp(reserved, VARDATA_ANY(value), strlen(reserved)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_LY_FORGED_CALL),
					 errmsg("source \"%s\" belongs to an attached table", reserved),
					 errhint("Give another source, or insert into that table.")));
	}
}

PG_FUNCTION_INFO_V1(loyalty_check_source);

/* check_source(source): for tables whose triggers are in SQL. */
Datum
loyalty_check_source(PG_FUNCTION_ARGS)
{
	SourceCheck(PG_GETARG_DATUM(0));
	PG_RETURN_VOID();
}
