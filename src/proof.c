/*
 * proof.c
 *	  Who may spend: one-time codes, and what a cashier may redeem in a day.
 *
 * Decides when SQL is asked; SQL (sql/62-proof.sql) keeps the codes and the
 * counters.  Called under the lock of the account, from which it goes on to the
 * member's code and then to the cashier's counter.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/date.h"

#include "errors.h"
#include "proof.h"

/* What went from an account on a day without a code, where a programme asks for one at all. */
static int64
spent_without_proof(const Program *program, int64 account_id, int32 day)
{
	Oid			types[3] = {INT4OID, INT8OID, DATEOID};
	Datum		values[3] = {Int32GetDatum(program->program_id), Int64GetDatum(account_id),
	DateADTGetDatum(day)};
	bool		isnull;

	if (program->proof_above < 0)
		return 0;
	if (SPI_execute_with_args("SELECT loyalty.spent_without_proof($1, $2, $3)", 3, types, values,
							  NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not sum what was spent without a proof");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * Use the member's one-time code up; returns its number, 0 where none was given
 * and none is needed.  A code that is given must be good, needed or not.
 */
int64
ProofDemand(const Program *program, int64 member_id, int64 account_id, int32 day, int64 points,
			const char *proof, int64 source_id)
{
	Oid			types[4] = {INT8OID, INT8OID, TEXTOID, INT8OID};
	Datum		values[4] = {Int64GetDatum(member_id), Int64GetDatum(points), (Datum) 0,
	Int64GetDatum(source_id)};
	bool		isnull;

	if (proof == NULL)
	{
		int64		spent = spent_without_proof(program, account_id, day);

		if (program->proof_above >= 0 && points > program->proof_above - spent)
			ereport(ERROR,
					(errcode(ERRCODE_LY_PROOF_NEEDED),
					 errmsg("so many points of member " INT64_FORMAT " leave only with a proof",
							member_id),
					 errdetail("This takes " INT64_FORMAT " points; up to " INT64_FORMAT " a day need none, and "
							   INT64_FORMAT " went today.", points, program->proof_above, spent),
					 errhint("Pass proof, the code that loyalty.issue_proof made and the member was sent.")));
		return 0;
	}
	values[2] = CStringGetTextDatum(proof);
	if (SPI_execute_with_args("SELECT loyalty.use_proof($1, $2, $3, $4)", 4, types, values, NULL,
							  false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not use a proof");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Refuse what a cashier, or the role that connected, would do for itself or its household. */
void
CashierRefuseOwn(const Program *program, int64 member_id, const char *cashier)
{
	Oid			types[3] = {INT4OID, INT8OID, TEXTOID};
	Datum		values[3] = {Int32GetDatum(program->program_id), Int64GetDatum(member_id), (Datum) 0};
	char		nulls[3] = {' ', ' ', 'n'};

	if (!program->knows_cashiers)
		return;
	if (cashier != NULL)
	{
		values[2] = CStringGetTextDatum(cashier);
		nulls[2] = ' ';
	}
	if (SPI_execute_with_args("SELECT loyalty.refuse_own($1, $2, $3)", 3, types, values, nulls,
							  false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not tell whose account it is");
}

/* Count what a cashier redeems against the limits of the day, where there are any. */
void
CashierCount(const Program *program, const char *cashier, int32 day, int64 points)
{
	Oid			types[4] = {INT4OID, TEXTOID, DATEOID, INT8OID};
	Datum		values[4] = {Int32GetDatum(program->program_id), (Datum) 0, DateADTGetDatum(day),
	Int64GetDatum(points)};
	char		nulls[4] = {' ', 'n', ' ', ' '};

	if (!program->limits_cashiers)
		return;
	if (cashier != NULL)
	{
		values[1] = CStringGetTextDatum(cashier);
		nulls[1] = ' ';
	}
	if (SPI_execute_with_args("SELECT loyalty.count_cashier($1, $2, $3, $4)", 4, types, values,
							  nulls, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count what a cashier redeems");
}
