/*
 * token.c
 *	  The token of a voucher: bytes, and letters for a QR code.  Pure.
 *
 * Bytes: version, key id, voucher id, programme id, kind with flags, value in
 * 1/10000, [currency], first day, days of validity (0: no end), [member tag],
 * [length and article], nonce, signature.  Numbers are LEB128 varints in their
 * shortest form; what stands in brackets is there when its flag is.  Letters
 * are Crockford's base32.  Every token has one byte form: the decoder refuses
 * what the encoder would not write.
 */
#include "token.h"

#define KIND_MASK 0x0f
#define FLAG_MEMBER 0x10
#define FLAG_CURRENCY 0x20
#define FLAG_SKU 0x40
#define FLAG_RESERVED 0x80

static const char letters[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static const char *const kind_names[TOKEN_KINDS] = {
	"amount", "percent", "product", "service", "shipping", "event", "donation", "partner", "points"
};

/* The name of a kind. */
const char *
token_kind_name(int kind)
{
	return kind_names[kind - 1];
}

/* The code of a kind, 0 where there is none of that name. */
int
token_kind_code(const char *name)
{
	for (int i = 0; i < TOKEN_KINDS; i++)
	{
		if (strcmp(kind_names[i], name) == 0)
			return i + 1;
	}
	return 0;
}

/* Tell whether a token can carry an article: 1 to 32 printable ASCII characters. */
bool
token_sku_fits(const char *sku, size_t length)
{
	if (length == 0 || length > TOKEN_MAX_SKU)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		if (sku[i] < 0x20 || sku[i] > 0x7e)
			return false;
	}
	return true;
}

/* Tell whether a currency is three capital letters, or none. */
static bool
is_currency(const char *currency)
{
	if (currency[0] == '\0')
		return true;
	for (int i = 0; i < 3; i++)
	{
		if (currency[i] < 'A' || currency[i] > 'Z')
			return false;
	}
	return currency[3] == '\0';
}

/* Tell whether a token's fields are in their ranges. */
static bool
is_valid(const Token *token)
{
	return token->key_id >= 1 && token->key_id <= 255 &&
		token->voucher_id >= 1 && token->program_id >= 1 &&
		token->kind >= 1 && token->kind <= TOKEN_KINDS &&
		token->value >= 0 && token->value <= TOKEN_MAX_VALUE &&
		is_currency(token->currency) &&
		token->valid_from >= 0 && token->valid_from <= TOKEN_LAST_DAY &&
		token->valid_until >= token->valid_from &&
		(token->valid_until <= TOKEN_LAST_DAY || token->valid_until == TOKEN_NO_END) &&
		(token->sku[0] == '\0' || token_sku_fits(token->sku, strlen(token->sku)));
}

/* Write all but the signature; returns the length, 0 where a field is out of its range. */
size_t
token_encode_body(const Token *token, uint8 *bytes)
{
	uint8	   *at = bytes;
	size_t		sku_length;

	if (!is_valid(token))
		return 0;
	sku_length = strlen(token->sku);
	*at++ = TOKEN_VERSION;
	*at++ = (uint8) token->key_id;
	at += core_put_varint(at, (uint64) token->voucher_id);
	at += core_put_varint(at, (uint64) token->program_id);
	*at++ = (uint8) (token->kind | (token->has_member ? FLAG_MEMBER : 0) |
					 (token->currency[0] != '\0' ? FLAG_CURRENCY : 0) |
					 (sku_length > 0 ? FLAG_SKU : 0));
	at += core_put_varint(at, (uint64) token->value);
	if (token->currency[0] != '\0')
	{
		memcpy(at, token->currency, 3);
		at += 3;
	}
	at += core_put_varint(at, (uint64) token->valid_from);
	at += core_put_varint(at, token->valid_until == TOKEN_NO_END ? 0 :
						  (uint64) (token->valid_until - token->valid_from) + 1);
	if (token->has_member)
	{
		memcpy(at, token->member_tag, TOKEN_TAG_BYTES);
		at += TOKEN_TAG_BYTES;
	}
	if (sku_length > 0)
	{
		*at++ = (uint8) sku_length;
		memcpy(at, token->sku, sku_length);
		at += sku_length;
	}
	memcpy(at, token->nonce, TOKEN_NONCE_BYTES);
	at += TOKEN_NONCE_BYTES;
	return (size_t) (at - bytes);
}

/* What is still to be read of a token; bad once anything was wrong */
typedef struct Reader
{
	const uint8 *at;
	size_t		left;
	bool		bad;
} Reader;

/* Take bytes; zeros where there are too few. */
static void
take_bytes(Reader *reader, void *into, size_t length)
{
	if (reader->bad || reader->left < length)
	{
		reader->bad = true;
		memset(into, 0, length);
		return;
	}
	memcpy(into, reader->at, length);
	reader->at += length;
	reader->left -= length;
}

/* Take one byte. */
static uint8
take_byte(Reader *reader)
{
	uint8		byte;

	take_bytes(reader, &byte, 1);
	return byte;
}

/* Take a number up to a limit; 0 where there is none. */
static int64
take_number(Reader *reader, int64 limit)
{
	uint64		value = 0;
	size_t		length = reader->bad ? 0 : core_get_varint(reader->at, reader->left, &value);

	if (length == 0 || value > (uint64) limit)
	{
		reader->bad = true;
		return 0;
	}
	reader->at += length;
	reader->left -= length;
	return (int64) value;
}

/* Take an article behind its length. */
static void
take_sku(Reader *reader, char *sku)
{
	size_t		length = take_byte(reader);

	if (length > TOKEN_MAX_SKU)
	{
		reader->bad = true;
		return;
	}
	take_bytes(reader, sku, length);
	if (!token_sku_fits(sku, length))
		reader->bad = true;
}

/* Take the days of validity. */
static void
take_days(Reader *reader, Token *token)
{
	int64		days;

	token->valid_from = (int32) take_number(reader, TOKEN_LAST_DAY);
	days = take_number(reader, TOKEN_LAST_DAY - token->valid_from + 1);
	token->valid_until = days == 0 ? TOKEN_NO_END : (int32) (token->valid_from + days - 1);
}

/* Read a token's bytes; CORE_CORRUPT for all that the encoder does not write. */
CoreStatus
token_decode(const uint8 *bytes, size_t length, Token *token, size_t *body_length)
{
	Reader		reader = {bytes, length, false};
	uint8		kind;

	memset(token, 0, sizeof(Token));
	if (take_byte(&reader) != TOKEN_VERSION)
		return CORE_CORRUPT;
	token->key_id = take_byte(&reader);
	token->voucher_id = take_number(&reader, INT64_MAX);
	token->program_id = (int32) take_number(&reader, INT32_MAX);
	kind = take_byte(&reader);
	token->kind = kind & KIND_MASK;
	token->has_member = (kind & FLAG_MEMBER) != 0;
	token->value = take_number(&reader, TOKEN_MAX_VALUE);
	if ((kind & FLAG_CURRENCY) != 0)
	{
		take_bytes(&reader, token->currency, 3);
		reader.bad |= token->currency[0] == '\0';
	}
	take_days(&reader, token);
	if (token->has_member)
		take_bytes(&reader, token->member_tag, TOKEN_TAG_BYTES);
	if ((kind & FLAG_SKU) != 0)
		take_sku(&reader, token->sku);
	take_bytes(&reader, token->nonce, TOKEN_NONCE_BYTES);
	*body_length = length - reader.left;
	take_bytes(&reader, token->signature, TOKEN_SIGNATURE_BYTES);
	if (reader.bad || reader.left != 0 || (kind & FLAG_RESERVED) != 0 || !is_valid(token))
		return CORE_CORRUPT;
	return CORE_OK;
}

/* Write what is signed: the domain and the body; returns the length. */
size_t
token_message(const uint8 *body, size_t length, uint8 *message)
{
	size_t		domain = sizeof(TOKEN_DOMAIN) - 1;

	memcpy(message, TOKEN_DOMAIN, domain);
	memcpy(message + domain, body, length);
	return domain + length;
}

/* Write bytes as letters, with a zero behind them; returns how many letters. */
size_t
token_to_text(const uint8 *bytes, size_t length, char *text)
{
	unsigned int waiting = 0;
	int			bits = 0;
	size_t		n = 0;

	for (size_t i = 0; i < length; i++)
	{
		waiting = (waiting << 8 | bytes[i]) & 0xfff;
		bits += 8;
		while (bits >= 5)
		{
			bits -= 5;
			text[n++] = letters[waiting >> bits & 31];
		}
	}
	if (bits > 0)
		text[n++] = letters[waiting << (5 - bits) & 31];
	text[n] = '\0';
	return n;
}

/* The five bits of a letter, -1 where it is none. */
static int
letter_value(char letter)
{
	if (letter >= 'a' && letter <= 'z')
		letter -= 'a' - 'A';
	if (letter == 'I' || letter == 'L')
		letter = '1';
	if (letter == 'O')
		letter = '0';
	for (int i = 0; i < 32; i++)
	{
		if (letters[i] == letter)
			return i;
	}
	return -1;
}

/*
 * Read letters into TOKEN_MAX_BYTES bytes or less.  Hyphens do not count,
 * small letters do as capitals, I and L as 1, O as 0; what is left over of
 * the last letter must be zero and less than a letter.
 */
CoreStatus
token_from_text(const char *text, size_t length, uint8 *bytes, size_t *count)
{
	unsigned int waiting = 0;
	int			bits = 0;
	size_t		n = 0;

	if (length > TOKEN_MAX_INPUT)
		return CORE_CORRUPT;
	for (size_t i = 0; i < length; i++)
	{
		int			value;

		if (text[i] == '-')
			continue;
		value = letter_value(text[i]);
		if (value < 0)
			return CORE_CORRUPT;
		waiting = (waiting << 5 | (unsigned int) value) & 0xfff;
		bits += 5;
		if (bits < 8)
			continue;
		bits -= 8;
		if (n == TOKEN_MAX_BYTES)
			return CORE_CORRUPT;
		bytes[n++] = (uint8) (waiting >> bits);
	}
	if (bits >= 5 || (waiting & ((1U << bits) - 1)) != 0)
		return CORE_CORRUPT;
	*count = n;
	return CORE_OK;
}
