/*
 * code.c
 *	  Codes of coupons.
 *
 * 23 letters and digits: without 0 O, 1 I L, 2 Z, 5 S, 8 B, U V, which people
 * confuse on paper and on the telephone.  The last letter makes the sum of the
 * letters' values times their places (from the right: 1, 2, ... 22, 1, ...)
 * divisible by 23.  23 is prime, so that one wrong letter and two neighbours
 * exchanged are always found.
 *
 * Pure: knows no tables, no clock, no server; randomness is an argument.
 */
#include "code.h"

#include <string.h>

/* The value of a letter of either case, -1 where it is none. */
static int
value_of(char letter)
{
	const char *at;

	if (letter >= 'a' && letter <= 'z')
		letter = (char) (letter - 'a' + 'A');
	at = letter == '\0' ? NULL : strchr(CODE_LETTERS, letter);
	return at == NULL ? -1 : (int) (at - CODE_LETTERS);
}

/* Make a letter of a random byte; false: take another byte, so that no letter comes up more often. */
bool
code_letter(uint8 random, char *letter)
{
	if (random >= 256 / CODE_BASE * CODE_BASE)
		return false;
	*letter = CODE_LETTERS[random % CODE_BASE];
	return true;
}

/* The check letter that comes after n letters. */
char
code_check_letter(const char *letters, int n)
{
	int			sum = 0;

	for (int i = 0; i < n; i++)
		sum += value_of(letters[i]) * ((n - i) % (CODE_BASE - 1) + 1);
	return CODE_LETTERS[(CODE_BASE - sum % CODE_BASE) % CODE_BASE];
}

/* Write letters in groups of four, parted by hyphens; returns the length. */
int
code_format(const char *letters, int n, char *text)
{
	int			length = 0;

	for (int i = 0; i < n; i++)
	{
		if (i > 0 && i % 4 == 0)
			text[length++] = '-';
		text[length++] = letters[i];
	}
	return length;
}

/* Tell whether a text is a code with the right check letter; spaces, hyphens and case do not count. */
bool
code_is_well_formed(const char *text, size_t length)
{
	char		letters[CODE_MAX_LENGTH];
	int			n = 0;

	for (size_t i = 0; i < length; i++)
	{
		if (text[i] == ' ' || text[i] == '-')
			continue;
		if (n == CODE_MAX_LENGTH || value_of(text[i]) < 0)
			return false;
		letters[n++] = text[i];
	}
	return n >= CODE_MIN_LENGTH &&
		value_of(letters[n - 1]) == value_of(code_check_letter(letters, n - 1));
}
