/*
 * voucher.c
 *	  The SQL functions around tokens and keys: making keys, signing a voucher,
 *	  reading and verifying a token.
 *
 * Reads no table and writes none: what becomes of a voucher is decided in
 * sql/66-voucher.sql, under the lock on its row.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "compat.h"
#include "errors.h"
#include "keys.h"
#include "token.h"

#define MEMBER_DOMAIN "loyalty member v1"
#define TOKEN_COLUMNS 12

/* Make a bytea of bytes. */
static Datum
make_bytea(const uint8 *bytes, size_t length)
{
	bytea	   *result = palloc(VARHDRSZ + length);

	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), bytes, length);
	return PointerGetDatum(result);
}

/* ------------------------------------------------------------------------
 * Keys
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(loyalty_make_key);

/* make_key(id, kind): a line for the key file with a fresh key. */
Datum
loyalty_make_key(PG_FUNCTION_ARGS)
{
	static const char digits[] = "0123456789abcdef";
	int32		key_id = PG_GETARG_INT32(0);
	uint8		seed[SIGNATURE_SEED_BYTES];
	char		hex[2 * SIGNATURE_SEED_BYTES + 1];
	text	   *line;
	text	   *name = PG_GETARG_TEXT_PP(1);
	KeyKind		kind;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may make a key")));
	if (key_id < 1 || key_id > KEYS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_LY_KEY_FILE),
				 errmsg("a key's number is from 1 to %d", KEYS_MAX)));
	if (!KeyKindOf(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), &kind))
		ereport(ERROR,
				(errcode(ERRCODE_LY_KEY_FILE),
				 errmsg("a key's kind is ed25519, which signs, blake2b, which chains, xchacha20, which seals, or index")));
	signature_random(seed, sizeof(seed));
	for (int i = 0; i < SIGNATURE_SEED_BYTES; i++)
	{
		hex[2 * i] = digits[seed[i] >> 4];
		hex[2 * i + 1] = digits[seed[i] & 15];
	}
	hex[sizeof(hex) - 1] = '\0';
	line = palloc(VARHDRSZ + 128);
	SET_VARSIZE(line, VARHDRSZ + snprintf(VARDATA(line), 128, "%d %s %s %s", key_id,
										  KeyKindName(kind), hex, KeyStatusName(kind, KEY_ACTIVE)));
	signature_wipe(seed, sizeof(seed));
	signature_wipe(hex, sizeof(hex));
	PG_RETURN_TEXT_P(line);
}

PG_FUNCTION_INFO_V1(loyalty_voucher_keys);

/* voucher_keys(): the public keys of the key file. */
Datum
loyalty_voucher_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PublicKey  *list = palloc(sizeof(PublicKey) * KEYS_MAX);
	int			n = KeysList(list);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		values[0] = Int32GetDatum(list[i].key_id);
		values[1] = make_bytea(list[i].public_key, SIGNATURE_PUBLIC_BYTES);
		values[2] = CStringGetTextDatum(KeyStatusName(KEY_ED25519, list[i].status));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(loyalty_make_nonce);

/* make_nonce(): the random bytes that tell a voucher from every other. */
Datum
loyalty_make_nonce(PG_FUNCTION_ARGS)
{
	uint8		nonce[TOKEN_NONCE_BYTES];

	signature_random(nonce, sizeof(nonce));
	return make_bytea(nonce, sizeof(nonce));
}

/* ------------------------------------------------------------------------
 * Signing
 * ------------------------------------------------------------------------ */

/* What stands in a token for a member: 4 bytes of SHA-512 over domain, nonce and id. */
static void
member_tag(int64 member_id, const uint8 *nonce, uint8 *tag)
{
	uint8		bytes[sizeof(MEMBER_DOMAIN) - 1 + TOKEN_NONCE_BYTES + sizeof(uint64)];
	uint64		wire = pg_hton64((uint64) member_id);

	memcpy(bytes, MEMBER_DOMAIN, sizeof(MEMBER_DOMAIN) - 1);
	memcpy(bytes + sizeof(MEMBER_DOMAIN) - 1, nonce, TOKEN_NONCE_BYTES);
	memcpy(bytes + sizeof(bytes) - sizeof(wire), &wire, sizeof(wire));
	signature_tag(bytes, sizeof(bytes), tag, TOKEN_TAG_BYTES);
}

/* Copy a bytea of exactly so many bytes. */
static void
copy_exactly(Datum value, uint8 *into, size_t length)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	if (VARSIZE_ANY_EXHDR(bytes) != length)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_VOUCHER),
				 errmsg("expected %d bytes", (int) length),
				 errdetail("Got %d.", (int) VARSIZE_ANY_EXHDR(bytes))));
	memcpy(into, VARDATA_ANY(bytes), length);
}

/* A column of a voucher that must not be null. */
static Datum
column(HeapTupleHeader row, const char *name)
{
	bool		isnull;
	Datum		value = GetAttributeByName(row, name, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_VOUCHER),
				 errmsg("a voucher without %s cannot be signed", name)));
	return value;
}

/* Copy a currency of three letters. */
static void
copy_currency(const char *value, char *currency)
{
	if (strlen(value) != 3)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_VOUCHER),
				 errmsg("a currency has three letters")));
	strcpy(currency, value);
}

/* Read the columns that may be null. */
static void
read_options(HeapTupleHeader row, Token *token)
{
	bool		isnull;
	Datum		value;

	value = GetAttributeByName(row, "value", &isnull);
	if (!isnull)
		token->value = DatumGetInt64(DirectFunctionCall1(numeric_int8,
														 DirectFunctionCall2(numeric_mul, value,
																			 NumericGetDatum(int64_to_numeric(10000)))));
	value = GetAttributeByName(row, "currency", &isnull);
	if (!isnull)
		copy_currency(TextDatumGetCString(value), token->currency);
	value = GetAttributeByName(row, "valid_until", &isnull);
	token->valid_until = isnull ? TOKEN_NO_END : DatumGetDateADT(value);
	value = GetAttributeByName(row, "member_id", &isnull);
	token->has_member = !isnull;
	if (!isnull)
		member_tag(DatumGetInt64(value), token->nonce, token->member_tag);
	value = GetAttributeByName(row, "sku", &isnull);
	if (!isnull)
	{
		char	   *sku = TextDatumGetCString(value);

		if (token_sku_fits(sku, strlen(sku)))
			strlcpy(token->sku, sku, sizeof(token->sku));
	}
}

/* Read a row of loyalty.voucher, whose constraints keep every column in range. */
static void
read_voucher(HeapTupleHeader row, int key_id, Token *token)
{
	memset(token, 0, sizeof(Token));
	token->key_id = key_id;
	token->voucher_id = DatumGetInt64(column(row, "voucher_id"));
	token->program_id = DatumGetInt32(column(row, "program_id"));
	token->kind = token_kind_code(TextDatumGetCString(column(row, "kind")));
	token->valid_from = DatumGetDateADT(column(row, "valid_from"));
	copy_exactly(column(row, "nonce"), token->nonce, TOKEN_NONCE_BYTES);
	read_options(row, token);
}

PG_FUNCTION_INFO_V1(loyalty_sign_voucher);

/* sign_voucher(voucher, key_id): its token. */
Datum
loyalty_sign_voucher(PG_FUNCTION_ARGS)
{
	Token		token;
	uint8		bytes[TOKEN_MAX_BYTES];
	uint8		message[TOKEN_MAX_MESSAGE];
	char		letters[TOKEN_MAX_TEXT + 1];
	size_t		length;

	read_voucher(PG_GETARG_HEAPTUPLEHEADER(0), PG_GETARG_INT32(1), &token);
	length = token_encode_body(&token, bytes);
	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_INVALID_VOUCHER),
				 errmsg("voucher " INT64_FORMAT " does not fit into a token", token.voucher_id)));
	KeysSign(token.key_id, message, token_message(bytes, length, message), bytes + length);
	token_to_text(bytes, length + SIGNATURE_BYTES, letters);
	PG_RETURN_TEXT_P(cstring_to_text(letters));
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

/* A token with the bytes that its signature covers */
typedef struct ReadToken
{
	Token		token;
	uint8		message[TOKEN_MAX_MESSAGE];
	size_t		length;
} ReadToken;

/* Read a token; false where it is damaged.  A huge text is not even fetched. */
static bool
read_text(Datum value, ReadToken *read)
{
	uint8		bytes[TOKEN_MAX_BYTES];
	text	   *letters;
	size_t		count;
	size_t		body_length;

	if (toast_raw_datum_size(value) - VARHDRSZ > TOKEN_MAX_INPUT)
		return false;
	letters = DatumGetTextPP(value);
	if (token_from_text(VARDATA_ANY(letters), VARSIZE_ANY_EXHDR(letters), bytes, &count) != CORE_OK ||
		token_decode(bytes, count, &read->token, &body_length) != CORE_OK)
		return false;
	read->length = token_message(bytes, body_length, read->message);
	return true;
}

/* Tell whether a token bears the signature of a key. */
static bool
is_authentic(const ReadToken *read, const uint8 *public_key)
{
	return signature_verify(read->token.signature, read->message, read->length, public_key);
}

/* A text that may be empty for none. */
static Datum
optional_text(const char *value, bool *isnull)
{
	*isnull = value[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(value);
}

/* Make the row that describes a token. */
static Datum
describe_token(FunctionCallInfo fcinfo, const Token *token, bool authentic)
{
	TupleDesc	desc;
	Datum		v[TOKEN_COLUMNS];
	bool		n[TOKEN_COLUMNS] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != TOKEN_COLUMNS)
		elog(ERROR, "read_token must return loyalty.token");
	v[0] = BoolGetDatum(authentic);
	v[1] = Int32GetDatum(token->key_id);
	v[2] = Int64GetDatum(token->voucher_id);
	v[3] = Int32GetDatum(token->program_id);
	v[4] = CStringGetTextDatum(token_kind_name(token->kind));
	n[5] = token->value == 0;
	v[5] = DirectFunctionCall1(numeric_trim_scale,
							   NumericGetDatum(int64_div_fast_to_numeric(token->value, 4)));
	v[6] = optional_text(token->currency, &n[6]);
	v[7] = optional_text(token->sku, &n[7]);
	v[8] = DateADTGetDatum(token->valid_from);
	n[9] = token->valid_until == TOKEN_NO_END;
	v[9] = DateADTGetDatum(token->valid_until);
	n[10] = !token->has_member;
	v[10] = make_bytea(token->member_tag, TOKEN_TAG_BYTES);
	v[11] = make_bytea(token->nonce, TOKEN_NONCE_BYTES);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), v, n));
}

PG_FUNCTION_INFO_V1(loyalty_read_token);

/* read_token(token [, public_key]): what it says, and whether its signature is good. */
Datum
loyalty_read_token(PG_FUNCTION_ARGS)
{
	ReadToken	read;
	PublicKey	key = {0};

	if (!read_text(PG_GETARG_DATUM(0), &read))
		ereport(ERROR,
				(errcode(ERRCODE_LY_FORGED_TOKEN),
				 errmsg("the token is forged or damaged"),
				 errhint("Scan it again; if that does not help, it was not made here.")));
	if (PG_NARGS() > 1)
		copy_exactly(PG_GETARG_DATUM(1), key.public_key, SIGNATURE_PUBLIC_BYTES);
	else
		KeysFind(read.token.key_id, &key);
	return describe_token(fcinfo, &read.token, is_authentic(&read, key.public_key));
}

PG_FUNCTION_INFO_V1(loyalty_verify_token);

/* verify_token(token, public_key): whether it is whole and signed by that key. */
Datum
loyalty_verify_token(PG_FUNCTION_ARGS)
{
	ReadToken	read;
	uint8		public_key[SIGNATURE_PUBLIC_BYTES];

	copy_exactly(PG_GETARG_DATUM(1), public_key, sizeof(public_key));
	PG_RETURN_BOOL(read_text(PG_GETARG_DATUM(0), &read) && is_authentic(&read, public_key));
}

PG_FUNCTION_INFO_V1(loyalty_member_tag);

/* member_tag(member_id, nonce): what stands in a token for a member. */
Datum
loyalty_member_tag(PG_FUNCTION_ARGS)
{
	uint8		nonce[TOKEN_NONCE_BYTES];
	uint8		tag[TOKEN_TAG_BYTES];

	copy_exactly(PG_GETARG_DATUM(1), nonce, sizeof(nonce));
	member_tag(PG_GETARG_INT64(0), nonce, tag);
	return make_bytea(tag, sizeof(tag));
}
