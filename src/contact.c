/*
 * contact.c
 *	  Brings contacts to one spelling, so that equal ones have equal blind
 *	  indexes.  Pure; works on bytes, in any encoding that contains ASCII.
 */
#include "contact.h"

/* Tell whether a byte is a blank. */
static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Tell whether a byte is a digit. */
static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Make an ASCII letter small. */
static char
make_small(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

/* Tell whether text names a kind of contact: small letters, digits, underscores. */
bool
contact_is_kind(const char *kind, size_t length)
{
	if (length == 0 || length > CONTACT_KIND_MAX || kind[0] < 'a' || kind[0] > 'z')
		return false;
	for (size_t i = 1; i < length; i++)
	{
		if (!(kind[i] >= 'a' && kind[i] <= 'z') && !is_digit(kind[i]) && kind[i] != '_')
			return false;
	}
	return true;
}

/* Take the digits out of a value; false where it has more than digits and the marks allowed. */
static bool
take_digits(const char *value, size_t length, const char *marks, char *digits, size_t *n)
{
	*n = 0;
	for (size_t i = 0; i < length; i++)
	{
		if (is_digit(value[i]))
		{
			if (*n == CONTACT_VALUE_MAX)
				return false;
			digits[(*n)++] = value[i];
		}
		else if (!is_blank(value[i]) && (value[i] == '\0' || strchr(marks, value[i]) == NULL))
			return false;
	}
	return true;
}

/*
 * How many leading digits of a national number are its trunk prefix: the 1 of
 * North America and the 8 of Russia before ten digits, elsewhere a 0, which
 * Italy and San Marino dial from abroad, too.
 */
static size_t
trunk_digits(const char *country, const char *digits, size_t n)
{
	if (strcmp(country, "1") == 0)
		return n == 11 && digits[0] == '1' ? 1 : 0;
	if (strcmp(country, "7") == 0)
		return n == 11 && (digits[0] == '8' || digits[0] == '7') ? 1 : 0;
	if (strcmp(country, "39") == 0 || strcmp(country, "378") == 0)
		return 0;
	return n > 0 && digits[0] == '0' ? 1 : 0;
}

/* A phone number as E.164 writes it; 0 where it is none. */
static size_t
normalise_phone(const char *country, const char *value, size_t length, char *normal)
{
	char		digits[CONTACT_VALUE_MAX];
	size_t		n;
	size_t		skip = 0;
	size_t		prefix = 0;
	bool		international = length > 0 && value[0] == '+';

	if (international)
	{
		value++;
		length--;
	}
	if (!take_digits(value, length, "-./()", digits, &n))
		return 0;
	if (!international && n > 2 && digits[0] == '0' && digits[1] == '0')
	{
		international = true;
		skip = 2;
	}
	else if (!international)
	{
		if (country[0] == '\0')
			return 0;
		skip = trunk_digits(country, digits, n);
		prefix = strlen(country);
	}
	/* no country's code begins with 0; the shortest numbers have 7 digits with it */
	if (n - skip + prefix < 7 || n - skip + prefix > 15 || (international && digits[skip] == '0'))
		return 0;
	normal[0] = '+';
	memcpy(normal + 1, country, prefix);
	memcpy(normal + 1 + prefix, digits + skip, n - skip);
	return 1 + prefix + n - skip;
}

/* Tell whether the last digit checks the others, each second from the right weighed. */
static bool
is_checked(const char *digits, size_t n, int weight)
{
	int			sum = 0;

	for (size_t i = 0; i < n; i++)
	{
		int			digit = (digits[n - 1 - i] - '0') * (i % 2 == 1 ? weight : 1);

		sum += weight == 2 && digit > 9 ? digit - 9 : digit;
	}
	return sum % 10 == 0;
}

/* A card's digits, checked by Luhn's rule or the one of bar codes; 0 where they are none. */
static size_t
normalise_card(const char *value, size_t length, char *normal)
{
	size_t		n;

	if (!take_digits(value, length, "-", normal, &n) || n < 6 || n > 19)
		return 0;
	return is_checked(normal, n, 2) || is_checked(normal, n, 3) ? n : 0;
}

/* Any other text in small letters; 0 where it holds control characters. */
static size_t
normalise_name(const char *value, size_t length, char *normal)
{
	for (size_t i = 0; i < length; i++)
	{
		if ((unsigned char) value[i] < ' ' || value[i] == 0x7f)
			return 0;
		normal[i] = make_small(value[i]);
	}
	return length;
}

/* An e-mail address in small letters; 0 where it is none. */
static size_t
normalise_email(const char *value, size_t length, char *normal)
{
	const char *at = memchr(value, '@', length);
	const char *end = value + length;
	const char *dot;

	if (at == NULL || at == value || at - value > 64 || memchr(value, ' ', length) != NULL ||
		memchr(at + 1, '@', end - at - 1) != NULL)
		return 0;
	dot = memchr(at + 1, '.', end - at - 1);
	if (dot == NULL || dot == at + 1 || end[-1] == '.')
		return 0;
	return normalise_name(value, length, normal);
}

/*
 * Write the one spelling of a contact into CONTACT_VALUE_MAX bytes; its
 * length, 0 where the value is not one of the kind.  country is the dialling
 * code of numbers without one, or empty.
 */
size_t
contact_normalise(const char *kind, const char *country, const char *value, size_t length, char *normal)
{
	while (length > 0 && is_blank(value[0]))
	{
		value++;
		length--;
	}
	while (length > 0 && is_blank(value[length - 1]))
		length--;
	if (length == 0 || length > CONTACT_VALUE_MAX)
		return 0;
	if (strcmp(kind, "phone") == 0)
		return normalise_phone(country, value, length, normal);
	if (strcmp(kind, "email") == 0)
		return normalise_email(value, length, normal);
	if (strcmp(kind, "card") == 0)
		return normalise_card(value, length, normal);
	if (value[0] == '@')
		return normalise_name(value + 1, length - 1, normal);
	return normalise_name(value, length, normal);
}
