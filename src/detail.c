/*
 * detail.c
 *	  The jsonb beside an entry or a hold: what was asked for, and what it was
 *	  worth.  Members that are null are left out, so that equal requests are
 *	  equal values.
 *
 * Knows nothing of what the members mean.
 */
#include "detail.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "compat.h"

/* Open an object. */
void
DetailBegin(Detail *detail)
{
	detail->state = NULL;
	pushJsonbValue(&detail->state, WJB_BEGIN_OBJECT, NULL);
}

/* Push a member's name. */
static void
push_name(Detail *detail, const char *name)
{
	JsonbValue	key = {.type = jbvString};

	key.val.string.val = pstrdup(name);
	key.val.string.len = (int) strlen(name);
	pushJsonbValue(&detail->state, WJB_KEY, &key);
}

/* Add a text; NULL adds nothing. */
void
DetailText(Detail *detail, const char *name, const char *value)
{
	JsonbValue	text = {.type = jbvString};

	if (value == NULL)
		return;
	push_name(detail, name);
	text.val.string.val = pstrdup(value);
	text.val.string.len = (int) strlen(value);
	pushJsonbValue(&detail->state, WJB_VALUE, &text);
}

/* Add a number; null adds nothing.  Trailing zeros are no difference. */
void
DetailNumeric(Detail *detail, const char *name, Datum value, bool isnull)
{
	JsonbValue	number = {.type = jbvNumeric};

	if (isnull)
		return;
	push_name(detail, name);
	number.val.numeric = DatumGetNumeric(DirectFunctionCall1(numeric_trim_scale, value));
	pushJsonbValue(&detail->state, WJB_VALUE, &number);
}

/* Add an integer. */
void
DetailInteger(Detail *detail, const char *name, int64 value)
{
	DetailNumeric(detail, name, NumericGetDatum(int64_to_numeric(value)), false);
}

/* Add true; false adds nothing. */
void
DetailBool(Detail *detail, const char *name, bool value)
{
	JsonbValue	boolean = {.type = jbvBool};

	if (!value)
		return;
	push_name(detail, name);
	boolean.val.boolean = true;
	pushJsonbValue(&detail->state, WJB_VALUE, &boolean);
}

/* Add an instant, in UTC whatever the session's zone. */
void
DetailTime(Detail *detail, const char *name, TimestampTz value)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm((Timestamp) value, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "time out of range");
	DetailText(detail, name, psprintf("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year, tm.tm_mon,
									  tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, fsec));
}

/* Add a jsonb object as it is. */
void
DetailObject(Detail *detail, const char *name, Datum value)
{
	JsonbValue	object = {.type = jbvBinary};
	Jsonb	   *jsonb;

	if (value == (Datum) 0)
		return;
	jsonb = DatumGetJsonbP(value);
	push_name(detail, name);
	object.val.binary.data = &jsonb->root;
	object.val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
	pushJsonbValue(&detail->state, WJB_VALUE, &object);
}

/* Add a member of another object; where it has none, add nothing. */
void
DetailCopy(Detail *detail, const char *name, Datum from)
{
	JsonbValue	value;
	Jsonb	   *jsonb;

	if (from == (Datum) 0)
		return;
	jsonb = DatumGetJsonbP(from);
	if (!JB_ROOT_IS_OBJECT(jsonb) ||
		getKeyJsonValueFromContainer(&jsonb->root, name, (int) strlen(name), &value) == NULL)
		return;
	push_name(detail, name);
	pushJsonbValue(&detail->state, WJB_VALUE, &value);
}

/* Close the object. */
Datum
DetailEnd(Detail *detail)
{
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&detail->state, WJB_END_OBJECT, NULL)));
}

/* A member of an object, 0 where there is none. */
Datum
DetailMember(Datum object, const char *name)
{
	JsonbValue	value;
	Jsonb	   *jsonb;

	if (object == (Datum) 0)
		return (Datum) 0;
	jsonb = DatumGetJsonbP(object);
	if (!JB_ROOT_IS_OBJECT(jsonb) ||
		getKeyJsonValueFromContainer(&jsonb->root, name, (int) strlen(name), &value) == NULL)
		return (Datum) 0;
	return JsonbPGetDatum(JsonbValueToJsonb(&value));
}

/* Equal as values; 0 equals 0 alone. */
bool
DetailEqual(Datum a, Datum b)
{
	if (a == (Datum) 0 || b == (Datum) 0)
		return a == b;
	return compareJsonbContainers(&DatumGetJsonbP(a)->root, &DatumGetJsonbP(b)->root) == 0;
}
