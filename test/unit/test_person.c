/*
 * test_person.c
 *	  Sealing, blind indexes and the spelling of contacts, without a server.
 */
#include <stdio.h>

#include "cipher.h"
#include "contact.h"

static int	passed = 0;
static int	failed = 0;

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

static uint8 key[CIPHER_KEY_BYTES];
static const uint8 place[] = "here";

/* Every length up to a few buckets opens again, and shows no more than its bucket. */
static void
test_lengths(void)
{
	uint8		plain[600];
	uint8		sealed[1200];
	uint8		opened[1200];
	size_t		length;

	for (size_t n = 0; n <= sizeof(plain); n++)
	{
		memset(plain, n % 3 == 0 ? 0 : 0x80, sizeof(plain));
		cipher_seal(key, 200, place, sizeof(place), plain, n, sealed);
		CHECK(cipher_key_id(sealed, cipher_sealed_length(n)) == 200);
		CHECK(cipher_open(key, place, sizeof(place), sealed, cipher_sealed_length(n), opened, &length));
		CHECK(length == n && memcmp(plain, opened, n) == 0);
	}
	CHECK(cipher_sealed_length(0) == cipher_sealed_length(31));
	CHECK(cipher_sealed_length(31) != cipher_sealed_length(32));
}

/* Whatever was changed, cut, prolonged or moved does not open. */
static void
test_damage(void)
{
	uint8		sealed[128];
	uint8		opened[128];
	size_t		n = cipher_sealed_length(5);
	size_t		length;

	cipher_seal(key, 1, place, sizeof(place), (const uint8 *) "12345", 5, sealed);
	for (size_t i = 0; i < n * 8; i++)
	{
		sealed[i / 8] ^= 1 << i % 8;
		CHECK(!cipher_open(key, place, sizeof(place), sealed, n, opened, &length));
		sealed[i / 8] ^= 1 << i % 8;
	}
	for (size_t i = 0; i < n; i++)
		CHECK(!cipher_open(key, place, sizeof(place), sealed, i, opened, &length));
	CHECK(!cipher_open(key, place, sizeof(place), sealed, n + 1, opened, &length));
	CHECK(!cipher_open(key, place, sizeof(place) - 1, sealed, n, opened, &length));
	key[31] ^= 1;
	CHECK(!cipher_open(key, place, sizeof(place), sealed, n, opened, &length));
	key[31] ^= 1;
	CHECK(cipher_open(key, place, sizeof(place), sealed, n, opened, &length));
}

/* The blind index is what Python's hashlib.blake2b says. */
static void
test_blind(void)
{
	static const uint8 expected[] = {0xa6, 0xe9, 0x2e, 0x14, 0x4a, 0xb8, 0x1d, 0xa8, 0x08, 0x2f, 0x87, 0x17, 0xab, 0xa6, 0xaf, 0x1f};
	uint8		index_key[CIPHER_KEY_BYTES];
	uint8		context[] = "loyalty contact v1\0\0\0\0\0\0\0\0\001" "email";
	uint8		blind[CIPHER_BLIND_BYTES];

	for (int i = 0; i < CIPHER_KEY_BYTES; i++)
		index_key[i] = (uint8) (32 + i);
	cipher_blind(index_key, context, sizeof(context) - 1, (const uint8 *) "ann@x.example", 13, blind);
	CHECK(memcmp(blind, expected, sizeof(blind)) == 0);
}

/* Tell whether a value comes out in a spelling; NULL: is refused. */
static bool
is_spelt(const char *kind, const char *country, const char *value, const char *expected)
{
	char	   *copy = malloc(strlen(value) + 1);	/* so that the sanitizer sees its end */
	char		normal[CONTACT_VALUE_MAX];
	size_t		length;

	memcpy(copy, value, strlen(value));
	length = contact_normalise(kind, country, copy, strlen(value), normal);
	free(copy);
	if (expected == NULL)
		return length == 0;
	return length == strlen(expected) && memcmp(normal, expected, length) == 0;
}

/* Contacts have one spelling. */
static void
test_contacts(void)
{
	char		longest[CONTACT_VALUE_MAX + 2];

	CHECK(is_spelt("phone", "", "+44 (20) 7946-0018", "+442079460018"));
	CHECK(is_spelt("phone", "44", "020 7946 0018", "+442079460018"));
	CHECK(is_spelt("phone", "7", "8 912 345 67 89", "+79123456789"));
	CHECK(is_spelt("phone", "39", "06 6982 1234", "+390669821234"));
	CHECK(is_spelt("phone", "", "020 7946 0018", NULL));
	CHECK(is_spelt("phone", "44", "+", NULL));
	CHECK(is_spelt("phone", "44", "00", NULL));
	CHECK(is_spelt("phone", "44", "0000000000", NULL));
	CHECK(is_spelt("phone", "44", "+44+20", NULL));
	CHECK(is_spelt("phone", "44", "+12345678901234567", NULL));
	CHECK(is_spelt("email", "", "\t A@B.C\n", "a@b.c"));
	CHECK(is_spelt("email", "", "a@b", NULL));
	CHECK(is_spelt("email", "", "@", NULL));
	CHECK(is_spelt("card", "", "4006 3813 3393-1", "4006381333931"));
	CHECK(is_spelt("card", "", "4111 1111 1111 1111", "4111111111111111"));
	CHECK(is_spelt("card", "", "4111 1111 1111 1112", NULL));
	CHECK(is_spelt("vk", "", " @Ann ", "ann"));
	CHECK(is_spelt("vk", "", "", NULL));
	CHECK(is_spelt("vk", "", " ", NULL));
	memset(longest, '1', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	CHECK(is_spelt("vk", "", longest, NULL));
	CHECK(is_spelt("card", "", longest, NULL));
	CHECK(is_spelt("vk", "", longest + 1, longest + 1));
	CHECK(contact_is_kind("phone", 5) && contact_is_kind("a_1", 3));
	CHECK(!contact_is_kind("", 0) && !contact_is_kind("1a", 2) && !contact_is_kind("A", 1) && !contact_is_kind("a b", 3));
}

int
main(void)
{
	test_lengths();
	test_damage();
	test_blind();
	test_contacts();
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
