/*
 * currency.c
 *	  Minor units of currencies, after ISO 4217 list one.
 *
 * Pure: knows no tables, no clock, no server.
 */
#include "currency.h"

#include <stddef.h>
#include <string.h>

/* Tell whether a code stands in a list of codes of three letters. */
static int
is_listed(const char *code, const char *list)
{
	for (const char *at = list; *at != '\0'; at += 4)
	{
		if (strncmp(at, code, 3) == 0)
			return 1;
	}
	return 0;
}

/* The digits of a currency's minor unit; 2 where the standard names no other. */
int
currency_digits(const char *code)
{
	if (is_listed(code, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF "))
		return 0;
	if (is_listed(code, "BHD IQD JOD KWD LYD OMR TND "))
		return 3;
	if (is_listed(code, "CLF UYW "))
		return 4;
	return 2;
}
