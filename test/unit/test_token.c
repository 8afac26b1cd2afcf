/*
 * test_token.c
 *	  Tokens and signatures, without a server: RFC 8032's examples, the
 *	  stored form, and a decoder that survives whatever comes.
 */
#include <stdio.h>

#include "signature.h"
#include "token.h"

static int	passed = 0;
static int	failed = 0;
static uint64 seed = 42;

#define CHECK(condition) \
	do { \
		if (condition) \
			passed++; \
		else \
		{ \
			failed++; \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
		} \
	} while (0)

/* A repeatable random number (splitmix64). */
static uint64
next_random(void)
{
	uint64		z = (seed += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static int64
between(int64 low, int64 high)
{
	return low + (int64) (next_random() % ((uint64) high - (uint64) low + 1));
}

/* Bytes of hexadecimal digits; returns how many. */
static size_t
unhex(const char *hex, uint8 *bytes)
{
	size_t		n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++)
	{
		unsigned int byte;

		sscanf(hex + 2 * i, "%2x", &byte);
		bytes[i] = (uint8) byte;
	}
	return n;
}

/* RFC 8032, 7.1: seed, public key, message, signature */
static const char *const examples[][4] = {
	{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
		"",
	"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
	{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
		"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
		"72",
	"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
	{"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
		"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
		"af82",
	"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
	{"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
		"ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
		"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
	"dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"},
};

static void
test_signatures(void)
{
	for (size_t e = 0; e < sizeof(examples) / sizeof(examples[0]); e++)
	{
		uint8		key_seed[SIGNATURE_SEED_BYTES];
		uint8		expected_key[SIGNATURE_PUBLIC_BYTES];
		uint8		key[SIGNATURE_PUBLIC_BYTES];
		uint8		message[64];
		uint8		expected[SIGNATURE_BYTES];
		uint8		made[SIGNATURE_BYTES];
		size_t		length;
		int			wrong = 0;

		unhex(examples[e][0], key_seed);
		CHECK(unhex(examples[e][1], expected_key) == SIGNATURE_PUBLIC_BYTES);
		length = unhex(examples[e][2], message);
		unhex(examples[e][3], expected);
		signature_public_key(key_seed, key);
		CHECK(memcmp(key, expected_key, sizeof(key)) == 0);
		signature_make(key_seed, message, length, made);
		CHECK(memcmp(made, expected, sizeof(made)) == 0);
		CHECK(signature_verify(made, message, length, key));
		for (int bit = 0; bit < SIGNATURE_BYTES * 8; bit++)
		{
			made[bit / 8] ^= 1 << bit % 8;
			wrong += signature_verify(made, message, length, key);
			made[bit / 8] ^= 1 << bit % 8;
		}
		for (int bit = 0; bit < (int) length * 8; bit++)
		{
			message[bit / 8] ^= 1 << bit % 8;
			wrong += signature_verify(made, message, length, key);
			message[bit / 8] ^= 1 << bit % 8;
		}
		for (int bit = 0; bit < SIGNATURE_PUBLIC_BYTES * 8; bit++)
		{
			key[bit / 8] ^= 1 << bit % 8;
			wrong += signature_verify(made, message, length, key);
			key[bit / 8] ^= 1 << bit % 8;
		}
		CHECK(wrong == 0);
	}
}

/* A signature whose scalar has the group's order added is another text for the same token: refused. */
static void
test_malleability(void)
{
	static const uint8 order[32] = {
		0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10
	};
	uint8		key_seed[SIGNATURE_SEED_BYTES] = {1};
	uint8		key[SIGNATURE_PUBLIC_BYTES];
	uint8		signature[SIGNATURE_BYTES];
	uint8		nothing[SIGNATURE_BYTES] = {1};
	uint8		small_key[SIGNATURE_PUBLIC_BYTES] = {1};
	int			carry = 0;

	signature_public_key(key_seed, key);
	signature_make(key_seed, key, sizeof(key), signature);
	for (int i = 0; i < 32; i++)
	{
		carry += signature[32 + i] + order[i];
		signature[32 + i] = (uint8) carry;
		carry >>= 8;
	}
	CHECK(!signature_verify(signature, key, sizeof(key), key));
	/* the neutral point as key and R and a scalar of 0 would sign anything */
	CHECK(!signature_verify(nothing, key, sizeof(key), small_key));
}

static void
test_wiping(void)
{
	uint8		secret[64];
	uint8		zero[64] = {0};

	memset(secret, 7, sizeof(secret));
	signature_wipe(secret, sizeof(secret));
	CHECK(memcmp(secret, zero, sizeof(zero)) == 0);
}

/* A random token, every field over its whole range. */
static void
random_token(Token *token)
{
	memset(token, 0, sizeof(Token));
	token->key_id = (int) between(1, 255);
	token->voucher_id = between(0, 1) ? between(1, 100000) : between(1, INT64_MAX);
	token->program_id = (int32) (between(0, 1) ? between(1, 9) : between(1, INT32_MAX));
	token->kind = (int) between(1, TOKEN_KINDS);
	token->value = between(0, 3) == 0 ? 0 : between(1, between(0, 1) ? 1000000 : TOKEN_MAX_VALUE);
	if (between(0, 1))
		memcpy(token->currency, "EUR", 4);
	token->valid_from = (int32) between(0, TOKEN_LAST_DAY);
	token->valid_until = between(0, 2) == 0 ? TOKEN_NO_END : (int32) between(token->valid_from, TOKEN_LAST_DAY);
	token->has_member = between(0, 1);
	for (int i = 0; i < TOKEN_TAG_BYTES && token->has_member; i++)
		token->member_tag[i] = (uint8) next_random();
	if (between(0, 2) == 0)
	{
		int			length = (int) between(1, TOKEN_MAX_SKU);

		for (int i = 0; i < length; i++)
			token->sku[i] = (char) between(0x20, 0x7e);
	}
	for (int i = 0; i < TOKEN_NONCE_BYTES; i++)
		token->nonce[i] = (uint8) next_random();
	for (int i = 0; i < TOKEN_SIGNATURE_BYTES; i++)
		token->signature[i] = (uint8) next_random();
}

/* Encode a token with its signature; returns the length. */
static size_t
encode(const Token *token, uint8 *bytes)
{
	size_t		length = token_encode_body(token, bytes);

	memcpy(bytes + length, token->signature, TOKEN_SIGNATURE_BYTES);
	return length + TOKEN_SIGNATURE_BYTES;
}

static bool
same_token(const Token *a, const Token *b)
{
	return a->key_id == b->key_id && a->voucher_id == b->voucher_id &&
		a->program_id == b->program_id && a->kind == b->kind && a->value == b->value &&
		strcmp(a->currency, b->currency) == 0 && a->valid_from == b->valid_from &&
		a->valid_until == b->valid_until && a->has_member == b->has_member &&
		memcmp(a->member_tag, b->member_tag, TOKEN_TAG_BYTES) == 0 &&
		strcmp(a->sku, b->sku) == 0 && memcmp(a->nonce, b->nonce, TOKEN_NONCE_BYTES) == 0 &&
		memcmp(a->signature, b->signature, TOKEN_SIGNATURE_BYTES) == 0;
}

static void
test_round_trip(void)
{
	int			wrong = 0;

	for (int i = 0; i < 100000; i++)
	{
		Token		token;
		Token		again;
		uint8		bytes[TOKEN_MAX_BYTES];
		uint8		back[TOKEN_MAX_BYTES];
		char		text[TOKEN_MAX_TEXT + 1];
		size_t		length;
		size_t		letters;
		size_t		count;
		size_t		body;

		random_token(&token);
		length = encode(&token, bytes);
		letters = token_to_text(bytes, length, text);
		wrong += letters != strlen(text) || letters != (length * 8 + 4) / 5;
		wrong += token_from_text(text, letters, back, &count) != CORE_OK || count != length ||
			memcmp(bytes, back, length) != 0;
		wrong += token_decode(back, count, &again, &body) != CORE_OK ||
			body != length - TOKEN_SIGNATURE_BYTES || !same_token(&token, &again);
	}
	CHECK(wrong == 0);
}

static void
test_lengths(void)
{
	Token		token;
	uint8		bytes[TOKEN_MAX_BYTES];

	/* what most vouchers are: 10 euros for a year */
	memset(&token, 0, sizeof(token));
	token.key_id = 1;
	token.voucher_id = 100000;
	token.program_id = 1;
	token.kind = token_kind_code("amount");
	token.value = 100000;
	memcpy(token.currency, "EUR", 4);
	token.valid_from = 10000;
	token.valid_until = 10365;
	CHECK(encode(&token, bytes) == 89);	/* 143 letters */
	token.has_member = true;
	CHECK(encode(&token, bytes) == 93);	/* 149 letters */
	/* the largest of all */
	token.voucher_id = INT64_MAX;
	token.program_id = INT32_MAX;
	token.value = TOKEN_MAX_VALUE;
	token.valid_from = 2097152;
	token.valid_until = TOKEN_LAST_DAY;
	memset(token.sku, 'X', TOKEN_MAX_SKU);
	CHECK(encode(&token, bytes) <= TOKEN_MAX_BYTES);
	token.valid_from = 0;
	CHECK(token_encode_body(&token, bytes) <= TOKEN_MAX_BODY);
	CHECK(TOKEN_MAX_TEXT == 232);
	/* what is out of range is not encoded */
	token.voucher_id = 0;
	CHECK(token_encode_body(&token, bytes) == 0);
	token.voucher_id = 1;
	token.valid_until = -1;
	CHECK(token_encode_body(&token, bytes) == 0);
	token.valid_until = TOKEN_LAST_DAY + 1;
	CHECK(token_encode_body(&token, bytes) == 0);
}

static void
test_letters(void)
{
	uint8		bytes[TOKEN_MAX_BYTES];
	char		text[TOKEN_MAX_INPUT + 2];
	size_t		count;

	CHECK(token_to_text((const uint8 *) "\xff\x00\x3a", 3, text) == 5 && strcmp(text, "ZW03M") == 0);
	CHECK(token_from_text("ZW03M", 5, bytes, &count) == CORE_OK && count == 3 && bytes[2] == 0x3a);
	CHECK(token_from_text("-z-wo3--m-", 10, bytes, &count) == CORE_OK && count == 3 && bytes[0] == 0xff);
	CHECK(token_from_text("", 0, bytes, &count) == CORE_OK && count == 0);
	CHECK(token_from_text("iL00", 4, bytes, &count) == CORE_OK && count == 2 && bytes[0] == 0x08);
	/* one letter holds no byte; left-over bits are zero; U, blanks and zero bytes are no letters */
	CHECK(token_from_text("0", 1, bytes, &count) == CORE_CORRUPT);
	CHECK(token_from_text("ZW0", 3, bytes, &count) == CORE_CORRUPT);
	CHECK(token_from_text("ZW03N", 5, bytes, &count) == CORE_CORRUPT);
	CHECK(token_from_text("ZW03U", 5, bytes, &count) == CORE_CORRUPT);
	CHECK(token_from_text("ZW03M ", 6, bytes, &count) == CORE_CORRUPT);
	CHECK(token_from_text("ZW03M\0", 6, bytes, &count) == CORE_CORRUPT);
	CHECK(token_from_text("ZW03\xe9", 5, bytes, &count) == CORE_CORRUPT);
	memset(text, '0', sizeof(text));
	CHECK(token_from_text(text, TOKEN_MAX_TEXT, bytes, &count) == CORE_OK && count == TOKEN_MAX_BYTES);
	CHECK(token_from_text(text, TOKEN_MAX_TEXT + 8, bytes, &count) == CORE_CORRUPT);
	CHECK(token_from_text(text, TOKEN_MAX_INPUT + 1, bytes, &count) == CORE_CORRUPT);
	memset(text, '-', sizeof(text));
	CHECK(token_from_text(text, TOKEN_MAX_INPUT, bytes, &count) == CORE_OK && count == 0);
}

/* Every truncation, every bit flipped, every byte appended: refused, or another canonical token that nobody signed. */
static void
test_damage(void)
{
	uint8		key_seed[SIGNATURE_SEED_BYTES] = {42};
	uint8		key[SIGNATURE_PUBLIC_BYTES];
	int			wrong = 0;
	int			decoded = 0;

	signature_public_key(key_seed, key);
	for (int i = 0; i < 30; i++)
	{
		Token		token;
		uint8		bytes[TOKEN_MAX_BYTES + 1];
		uint8		again[TOKEN_MAX_BYTES];
		uint8		message[TOKEN_MAX_MESSAGE];
		size_t		length;
		size_t		body;

		random_token(&token);
		length = token_encode_body(&token, bytes);
		signature_make(key_seed, message, token_message(bytes, length, message), bytes + length);
		length += TOKEN_SIGNATURE_BYTES;
		wrong += token_decode(bytes, length, &token, &body) != CORE_OK ||
			!signature_verify(token.signature, message, token_message(bytes, body, message), key);
		for (size_t n = 0; n < length; n++)
			wrong += token_decode(bytes, n, &token, &body) == CORE_OK;
		bytes[length] = 0;
		wrong += token_decode(bytes, length + 1, &token, &body) == CORE_OK;
		for (size_t bit = 0; bit < length * 8; bit++)
		{
			bytes[bit / 8] ^= 1 << bit % 8;
			if (token_decode(bytes, length, &token, &body) == CORE_OK)
			{
				decoded++;
				wrong += token_encode_body(&token, again) != body || memcmp(bytes, again, body) != 0;
				wrong += signature_verify(token.signature, message,
										  token_message(bytes, body, message), key);
			}
			bytes[bit / 8] ^= 1 << bit % 8;
		}
	}
	CHECK(wrong == 0 && decoded > 15000);
}

/* Whatever bytes come, decoding refuses or gives a token that encodes to those bytes. */
static void
test_garbage(void)
{
	int			wrong = 0;
	int			decoded = 0;

	for (int i = 0; i < 1000000; i++)
	{
		/* on the heap, so that a byte read too far is seen */
		size_t		length = (size_t) between(0, between(0, 9) == 0 ? 200 : TOKEN_MAX_BYTES);
		uint8	   *bytes = malloc(length + 1);
		uint8		again[TOKEN_MAX_BYTES];
		Token		token;
		size_t		body;

		bytes = realloc(bytes, length > 0 ? length : 1);
		for (size_t b = 0; b < length; b++)
			bytes[b] = (uint8) (b > 20 || between(0, 3) == 0 ? next_random() : (uint64) between(1, 9));
		if (length > 0 && between(0, 99) > 0)
			bytes[0] = TOKEN_VERSION;
		if (length > 86 && between(0, 1))
		{
			/* kinds without options make it likely to be one */
			bytes[2] = 5;
			bytes[3] = 6;
			bytes[4] = (uint8) between(0, 15);
			length = (size_t) between(80, 86);
		}
		if (token_decode(bytes, length, &token, &body) == CORE_OK)
		{
			decoded++;
			wrong += token_encode_body(&token, again) != body || memcmp(bytes, again, body) != 0 ||
				body + TOKEN_SIGNATURE_BYTES != length || body > TOKEN_MAX_BODY;
		}
		free(bytes);
	}
	CHECK(wrong == 0 && decoded > 1000);
}

/* Whatever letters come, reading refuses or gives bytes that write the same text. */
static void
test_garbled_text(void)
{
	static const char pool[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ-iloILOuU \xc3\xa9";
	int			wrong = 0;
	int			read = 0;

	for (int i = 0; i < 300000; i++)
	{
		size_t		length = (size_t) between(0, between(0, 3) == 0 ? TOKEN_MAX_INPUT + 20 : 20);
		bool		wild = between(0, 1);
		char	   *text = malloc(length + 1);
		char		plain[TOKEN_MAX_INPUT + 1];
		char		again[TOKEN_MAX_TEXT + 1];
		uint8		bytes[TOKEN_MAX_BYTES];
		size_t		count;
		size_t		n = 0;

		for (size_t c = 0; c < length; c++)
			text[c] = wild ? pool[between(0, sizeof(pool) - 1)] : pool[between(0, 31)];
		if (token_from_text(text, length, bytes, &count) == CORE_OK)
		{
			read++;
			for (size_t c = 0; c < length; c++)
			{
				char		letter = text[c];

				if (letter == '-')
					continue;
				plain[n++] = strchr("iIlL", letter) ? '1' : strchr("oO", letter) ? '0' : letter;
			}
			plain[n] = '\0';
			token_to_text(bytes, count, again);
			wrong += count > TOKEN_MAX_BYTES || strcmp(plain, again) != 0;
		}
		free(text);
	}
	CHECK(wrong == 0 && read > 10000);
}

/* Numbers that are longer than they need be, and days, kinds, articles that are none. */
static void
test_canonical(void)
{
	static const struct
	{
		const char *hex;
		bool		good;
	}			cases[] = {
		{"0101010101000001" "0102030405060708", true},
		{"0201010101000001" "0102030405060708", false},	/* version */
		{"0100010101000001" "0102030405060708", false},	/* key 0 */
		{"0101000101000001" "0102030405060708", false},	/* voucher 0 */
		{"010181000101000001" "0102030405060708", false},	/* voucher 1, overlong */
		{"0101010001000001" "0102030405060708", false},	/* programme 0 */
		{"010101808080800801000001" "0102030405060708", false}, /* programme 2^31 */
		{"0101010100000001" "0102030405060708", false},	/* kind 0 */
		{"010101010a000001" "0102030405060708", false},	/* kind 10 */
		{"0101010181000001" "0102030405060708", false},	/* a flag of tomorrow */
		{"0101010101800000010102030405060708", false},	/* value 0, overlong */
		{"0101010101818084fea6dee1110001" "0102030405060708", false},	/* value above its limit */
		{"01010101210045555200010102030405060708", true},	/* EUR */
		{"01010101210065555200010102030405060708", false},	/* eUR */
		{"01010101210000555200010102030405060708", false},	/* nothing, flagged */
		{"010101010100d4abb20101" "0102030405060708", false},	/* a first day after the last */
		{"010101010100d3abb20101" "0102030405060708", true},	/* the last day alone */
		{"010101010100d3abb20102" "0102030405060708", false},	/* and the day after */
		{"01010101410000010141" "0102030405060708", true},	/* article A */
		{"010101014100000100" "0102030405060708", false},	/* an empty article */
		{"01010101410000010107" "0102030405060708", false},	/* an article that rings */
	};

	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
	{
		uint8		bytes[TOKEN_MAX_BYTES] = {0};
		Token		token;
		size_t		body;
		size_t		length = unhex(cases[c].hex, bytes);
		bool		good = token_decode(bytes, length + TOKEN_SIGNATURE_BYTES, &token, &body) == CORE_OK;

		if (good != cases[c].good)
			printf("case %d\n", (int) c);
		CHECK(good == cases[c].good);
	}
}

int
main(void)
{
	test_signatures();
	test_malleability();
	test_wiping();
	test_round_trip();
	test_lengths();
	test_letters();
	test_damage();
	test_garbage();
	test_garbled_text();
	test_canonical();
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
