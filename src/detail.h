/*
 * detail.h
 *	  Building the jsonb that says what an entry was asked for.
 */
#ifndef LOYALTY_DETAIL_H
#define LOYALTY_DETAIL_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/timestamp.h"

typedef struct Detail
{
	JsonbParseState *state;
} Detail;

extern void DetailBegin(Detail *detail);
extern void DetailText(Detail *detail, const char *name, const char *value);
extern void DetailInteger(Detail *detail, const char *name, int64 value);
extern void DetailNumeric(Detail *detail, const char *name, Datum value, bool isnull);
extern void DetailBool(Detail *detail, const char *name, bool value);
extern void DetailTime(Detail *detail, const char *name, TimestampTz value);
extern void DetailObject(Detail *detail, const char *name, Datum value);
extern void DetailCopy(Detail *detail, const char *name, Datum from);
extern Datum DetailEnd(Detail *detail);
extern Datum DetailMember(Datum object, const char *name);
extern bool DetailEqual(Datum a, Datum b);

#endif							/* LOYALTY_DETAIL_H */
