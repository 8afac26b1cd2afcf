/*
 * person.c
 *	  The SQL functions that seal and open personal data and make the blind
 *	  indexes of contacts.
 *
 * Reads no table and writes none: what is done with sealed values is decided
 * in sql/69-person.sql.  Plaintext comes in as an argument and leaves sealed;
 * no message holds any of it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "cipher.h"
#include "compat.h"
#include "contact.h"
#include "errors.h"
#include "keys.h"
#include "signature.h"

#define FIELD_DOMAIN "loyalty person v1"
#define CONTACT_DOMAIN "loyalty contact v1"
#define VALUE_MAX 16000
#define BLIND_BYTES (1 + CIPHER_BLIND_BYTES)

/* Where a value belongs: domain, number of the member or programme, name of the field */
typedef struct Place
{
	uint8		bytes[CIPHER_CONTEXT_MAX];
	size_t		length;
} Place;

/* What is being sealed or opened while a key is borrowed */
typedef struct Sealing
{
	Place		place;
	const uint8 *plain;
	size_t		length;
	bytea	   *sealed;
	bool		good;
	uint8	   *opened;
} Sealing;

/* Blind indexes under every key */
typedef struct Blinding
{
	Place		place;
	const char *value;
	size_t		length;
	int			n;
	Datum		blinds[KEYS_MAX];
	bytea	   *room[KEYS_MAX];
} Blinding;

/* ------------------------------------------------------------------------
 * Places and plaintext
 * ------------------------------------------------------------------------ */

/* Refuse what names no field. */
static void
check_field(const text *field)
{
	if (!contact_is_kind(VARDATA_ANY(field), VARSIZE_ANY_EXHDR(field)))
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_FIELD),
				 errmsg("this does not name a field or a kind of contact"),
				 errhint("A name has up to %d small letters, digits and underscores.", CONTACT_KIND_MAX)));
}

/* Write down where a value belongs. */
static void
set_place(Place *place, const char *domain, int64 number, const text *field)
{
	uint64		wire = pg_hton64((uint64) number);
	size_t		domain_length = strlen(domain) + 1;

	check_field(field);
	memcpy(place->bytes, domain, domain_length);
	memcpy(place->bytes + domain_length, &wire, sizeof(wire));
	memcpy(place->bytes + domain_length + sizeof(wire), VARDATA_ANY(field), VARSIZE_ANY_EXHDR(field));
	place->length = domain_length + sizeof(wire) + VARSIZE_ANY_EXHDR(field);
}

/* Normalise a contact into CONTACT_VALUE_MAX bytes, or refuse it. */
static size_t
normalise(const text *kind, const text *country, const text *value, char *normal)
{
	size_t		length;

	check_field(kind);
	length = contact_normalise(text_to_cstring(kind), text_to_cstring(country), VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), normal);
	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_CONTACT),
				 errmsg("the value is not a contact of its kind"),
				 errdetail("The value is not shown."),
				 errhint("A phone number has its country's code behind + (or the programme has a country_code); an e-mail address has one @ and a domain; a card has 6 to 19 digits of which the last one checks the others.")));
	return length;
}

/* ------------------------------------------------------------------------
 * Sealing
 * ------------------------------------------------------------------------ */

/* Seal under a borrowed key. */
static void
seal_with(const uint8 *secret, int key_id, void *context)
{
	Sealing    *s = context;

	cipher_seal(secret, key_id, s->place.bytes, s->place.length, s->plain, s->length,
				(uint8 *) VARDATA(s->sealed));
}

/* Seal bytes under the current key. */
static bytea *
seal_bytes(Sealing *s, const void *plain, size_t length)
{
	size_t		sealed_length = cipher_sealed_length(length);

	if (length > VALUE_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_FIELD),
				 errmsg("a field has up to %d bytes", VALUE_MAX)));
	s->plain = plain;
	s->length = length;
	s->sealed = palloc(VARHDRSZ + sealed_length);
	SET_VARSIZE(s->sealed, VARHDRSZ + sealed_length);
	KeysUseAll(KEY_XCHACHA20, true, seal_with, s);
	return s->sealed;
}

/* Open under a borrowed key. */
static void
open_with(const uint8 *secret, int key_id, void *context)
{
	Sealing    *s = context;

	s->good = cipher_open(secret, s->place.bytes, s->place.length, (uint8 *) VARDATA_ANY(s->sealed),
						  VARSIZE_ANY_EXHDR(s->sealed), s->opened, &s->length);
}

/* Open a sealed value; s->opened has s->length bytes then. */
static void
open_bytes(Sealing *s, bytea *sealed)
{
	int			key_id = cipher_key_id((uint8 *) VARDATA_ANY(sealed), VARSIZE_ANY_EXHDR(sealed));

	s->sealed = sealed;
	s->good = false;
	s->opened = palloc(VARSIZE_ANY_EXHDR(sealed) + 1);
	if (key_id != 0)
		KeysUse(KEY_XCHACHA20, key_id, open_with, s);
	if (!s->good)
		ereport(ERROR,
				(errcode(ERRCODE_LY_DAMAGED_SEAL),
				 errmsg("a sealed value does not open"),
				 errdetail("It was damaged, moved here from another member or field, or sealed with another key of the same number.")));
}

PG_FUNCTION_INFO_V1(loyalty_seal_value);

/* seal_value(member_id, field, value): the value, sealed for this place. */
Datum
loyalty_seal_value(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(2);
	Sealing		s;

	set_place(&s.place, FIELD_DOMAIN, PG_GETARG_INT64(0), PG_GETARG_TEXT_PP(1));
	PG_RETURN_BYTEA_P(seal_bytes(&s, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)));
}

PG_FUNCTION_INFO_V1(loyalty_open_value);

/* open_value(member_id, field, sealed): the value that was sealed for this place. */
Datum
loyalty_open_value(PG_FUNCTION_ARGS)
{
	Sealing		s;

	set_place(&s.place, FIELD_DOMAIN, PG_GETARG_INT64(0), PG_GETARG_TEXT_PP(1));
	open_bytes(&s, PG_GETARG_BYTEA_PP(2));
	PG_RETURN_TEXT_P(cstring_to_text_with_len((char *) s.opened, s.length));
}

PG_FUNCTION_INFO_V1(loyalty_reseal_value);

/* reseal_value(member_id, field, sealed): the same under the current key. */
Datum
loyalty_reseal_value(PG_FUNCTION_ARGS)
{
	Sealing		s;
	bytea	   *result;

	set_place(&s.place, FIELD_DOMAIN, PG_GETARG_INT64(0), PG_GETARG_TEXT_PP(1));
	open_bytes(&s, PG_GETARG_BYTEA_PP(2));
	result = seal_bytes(&s, s.opened, s.length);
	signature_wipe(s.opened, s.length);
	PG_RETURN_BYTEA_P(result);
}

/* Seal one member of a JSON object as text; null stays null. */
static Datum
seal_json(int64 member_id, const text *field, JsonbValue *value, bool *isnull)
{
	Sealing		s;
	Jsonb	   *one;
	char	   *plain;
	bytea	   *sealed;

	set_place(&s.place, FIELD_DOMAIN, member_id, field);
	*isnull = value->type == jbvNull;
	if (*isnull)
		return (Datum) 0;
	one = JsonbValueToJsonb(value);
	plain = JsonbToCString(NULL, &one->root, VARSIZE(one));
	sealed = seal_bytes(&s, plain, strlen(plain));
	signature_wipe(plain, strlen(plain));
	return PointerGetDatum(sealed);
}

/* Make an array of bytea or text. */
static Datum
make_array(Datum *values, bool *nulls, int n, Oid type)
{
	int			lower = 1;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower, type, -1, false, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(loyalty_seal_fields);

/* seal_fields(member_id, fields): the names and the sealed values of an object; null where a field is to go. */
Datum
loyalty_seal_fields(PG_FUNCTION_ARGS)
{
	Jsonb	   *fields = PG_GETARG_JSONB_P(1);
	int			n = JB_ROOT_IS_OBJECT(fields) ? JB_ROOT_COUNT(fields) : -1;
	Datum	   *names = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *sealed = palloc(sizeof(Datum) * Max(n, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(n, 1));
	bool		whole[2] = {false, false};
	Datum		result[2];
	TupleDesc	desc;
	JsonbIterator *it;
	JsonbValue	v;

	if (n < 0 || n > 100)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_FIELD),
				 errmsg("the fields of a person are a JSON object with up to 100 members"),
				 errhint("For example {\"name\": \"...\", \"address\": {\"city\": \"...\"}}; null takes a field away.")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	it = JsonbIteratorInit(&fields->root);
	JsonbIteratorNext(&it, &v, true);
	for (int i = 0; i < n; i++)
	{
		text	   *name;

		JsonbIteratorNext(&it, &v, true);
		name = cstring_to_text_with_len(v.val.string.val, v.val.string.len);
		names[i] = PointerGetDatum(name);
		JsonbIteratorNext(&it, &v, true);
		sealed[i] = seal_json(PG_GETARG_INT64(0), name, &v, &nulls[i]);
	}
	result[0] = make_array(names, NULL, n, TEXTOID);
	result[1] = make_array(sealed, nulls, n, BYTEAOID);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), result, whole)));
}

/* ------------------------------------------------------------------------
 * Contacts
 * ------------------------------------------------------------------------ */

/* Make the blind index under a borrowed key: the key's number and the hash. */
static void
blind_with(const uint8 *secret, int key_id, void *context)
{
	Blinding   *b = context;
	uint8	   *bytes = (uint8 *) VARDATA(b->room[b->n]);

	bytes[0] = (uint8) key_id;
	cipher_blind(secret, b->place.bytes, b->place.length, (const uint8 *) b->value, b->length, bytes + 1);
	b->n++;
}

/* Make the blind indexes of a normalised value, the current key's first. */
static Datum
blind_value(int32 program_id, const text *kind, const char *value, size_t length, bool current_only)
{
	Blinding   *b = palloc(sizeof(Blinding));
	char	   *room = palloc(KEYS_MAX * MAXALIGN(VARHDRSZ + BLIND_BYTES));

	set_place(&b->place, CONTACT_DOMAIN, program_id, kind);
	b->value = value;
	b->length = length;
	b->n = 0;
	for (int i = 0; i < KEYS_MAX; i++)
	{
		b->room[i] = (bytea *) (room + i * MAXALIGN(VARHDRSZ + BLIND_BYTES));
		SET_VARSIZE(b->room[i], VARHDRSZ + BLIND_BYTES);
		b->blinds[i] = PointerGetDatum(b->room[i]);
	}
	KeysUseAll(KEY_INDEX, current_only, blind_with, b);
	if (current_only)
		return b->blinds[0];
	return make_array(b->blinds, NULL, b->n, BYTEAOID);
}

PG_FUNCTION_INFO_V1(loyalty_blind_contact);

/* blind_contact(program_id, kind, country, value): its blind indexes under all keys, the current one's first. */
Datum
loyalty_blind_contact(PG_FUNCTION_ARGS)
{
	text	   *kind = PG_GETARG_TEXT_PP(1);
	char		normal[CONTACT_VALUE_MAX];
	size_t		length = normalise(kind, PG_GETARG_TEXT_PP(2), PG_GETARG_TEXT_PP(3), normal);
	Datum		result = blind_value(PG_GETARG_INT32(0), kind, normal, length, false);

	signature_wipe(normal, sizeof(normal));
	return result;
}

PG_FUNCTION_INFO_V1(loyalty_seal_contact);

/* seal_contact(member_id, kind, country, value): its one spelling, sealed. */
Datum
loyalty_seal_contact(PG_FUNCTION_ARGS)
{
	text	   *kind = PG_GETARG_TEXT_PP(1);
	char		normal[CONTACT_VALUE_MAX];
	size_t		length = normalise(kind, PG_GETARG_TEXT_PP(2), PG_GETARG_TEXT_PP(3), normal);
	Sealing		s;
	bytea	   *sealed;

	set_place(&s.place, CONTACT_DOMAIN, PG_GETARG_INT64(0), kind);
	sealed = seal_bytes(&s, normal, length);
	signature_wipe(normal, sizeof(normal));
	PG_RETURN_BYTEA_P(sealed);
}

PG_FUNCTION_INFO_V1(loyalty_open_contact);

/* open_contact(member_id, kind, sealed): the contact that was sealed. */
Datum
loyalty_open_contact(PG_FUNCTION_ARGS)
{
	Sealing		s;

	set_place(&s.place, CONTACT_DOMAIN, PG_GETARG_INT64(0), PG_GETARG_TEXT_PP(1));
	open_bytes(&s, PG_GETARG_BYTEA_PP(2));
	PG_RETURN_TEXT_P(cstring_to_text_with_len((char *) s.opened, s.length));
}

PG_FUNCTION_INFO_V1(loyalty_reseal_contact);

/* reseal_contact(program_id, member_id, kind, sealed): seal and blind index under the current keys. */
Datum
loyalty_reseal_contact(PG_FUNCTION_ARGS)
{
	text	   *kind = PG_GETARG_TEXT_PP(2);
	bool		nulls[2] = {false, false};
	Datum		result[2];
	TupleDesc	desc;
	Sealing		s;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	set_place(&s.place, CONTACT_DOMAIN, PG_GETARG_INT64(1), kind);
	open_bytes(&s, PG_GETARG_BYTEA_PP(3));
	result[0] = PointerGetDatum(seal_bytes(&s, s.opened, s.length));
	result[1] = blind_value(PG_GETARG_INT32(0), kind, (char *) s.opened, s.length, true);
	signature_wipe(s.opened, s.length);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), result, nulls)));
}

/* Note the number of a borrowed key. */
static void
note_number(const uint8 *secret, int key_id, void *context)
{
	*(int *) context = key_id;
}

PG_FUNCTION_INFO_V1(loyalty_current_key);

/* current_key(kind): the number of the key of that kind that is used for what is new. */
Datum
loyalty_current_key(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	KeyKind		kind;
	int			key_id = 0;

	if (!KeyKindOf(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), &kind))
		elog(ERROR, "no kind of keys has this name");
	KeysUseAll(kind, true, note_number, &key_id);
	PG_RETURN_INT32(key_id);
}
