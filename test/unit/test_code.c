/*
 * test_code.c
 *	  Codes of coupons, without a server: every wrong letter and every pair of
 *	  neighbours exchanged is found.
 */
#include <stdio.h>
#include <string.h>

#include "code.h"

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

/* Make a code of n letters from a seed. */
static void
make(uint64 seed, int n, char *letters)
{
	for (int i = 0; i < n - 1; i++)
	{
		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		letters[i] = CODE_LETTERS[(seed >> 33) % CODE_BASE];
	}
	letters[n - 1] = code_check_letter(letters, n - 1);
}

/* No wrong letter and no exchange of neighbours passes. */
static void
test_errors_are_found(int n)
{
	char		good[CODE_MAX_LENGTH];
	char		bad[CODE_MAX_LENGTH];

	make(n, n, good);
	CHECK(code_is_well_formed(good, n));
	for (int i = 0; i < n; i++)
	{
		memcpy(bad, good, n);
		for (int l = 0; l < CODE_BASE; l++)
		{
			bad[i] = CODE_LETTERS[l];
			CHECK(code_is_well_formed(bad, n) == (bad[i] == good[i]));
		}
		memcpy(bad, good, n);
		if (i + 1 < n && good[i] != good[i + 1])
		{
			bad[i] = good[i + 1];
			bad[i + 1] = good[i];
			CHECK(!code_is_well_formed(bad, n));
		}
	}
}

/* Every letter comes from as many bytes as every other. */
static void
test_letters_are_even(void)
{
	int			count[256] = {0};
	char		letter;

	for (int b = 0; b < 256; b++)
	{
		if (code_letter((uint8) b, &letter))
			count[(unsigned char) letter]++;
	}
	for (int l = 0; l < CODE_BASE; l++)
		CHECK(count[(unsigned char) CODE_LETTERS[l]] == 256 / CODE_BASE);
}

/* Case, spaces and hyphens do not count; lengths have their bounds. */
static void
test_forms(void)
{
	char		letters[CODE_MAX_LENGTH];
	char		text[CODE_MAX_TEXT];
	int			length;

	make(7, 12, letters);
	length = code_format(letters, 12, text);
	CHECK(length == 14 && text[4] == '-' && text[9] == '-');
	CHECK(code_is_well_formed(text, length));
	for (int i = 0; i < length; i++)
		text[i] = text[i] == '-' ? ' ' : text[i] >= 'A' ? (char) (text[i] + 32) : text[i];
	CHECK(code_is_well_formed(text, length));
	CHECK(!code_is_well_formed("", 0));
	CHECK(!code_is_well_formed("3333333", 7));
	CHECK(!code_is_well_formed("0000-0000", 9));
	make(9, CODE_MAX_LENGTH, letters);
	CHECK(code_format(letters, CODE_MAX_LENGTH, text) <= CODE_MAX_TEXT);
}

int
main(void)
{
	for (int n = CODE_MIN_LENGTH; n <= CODE_MAX_LENGTH; n++)
		test_errors_are_found(n);
	test_letters_are_even();
	test_forms();
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
