/*
 * coupon.c
 *	  The codes of coupons in SQL, with the server's randomness.
 *
 * Which code is whose, and how often it was used, is SQL's business.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "code.h"
#include "compat.h"

/* Fill an array with random letters. */
static void
random_letters(char *letters, int n)
{
	uint8		bytes[CODE_MAX_LENGTH];
	int			filled = 0;

	while (filled < n)
	{
		if (!pg_strong_random(bytes, sizeof(bytes)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not get random bytes")));
		for (size_t i = 0; i < sizeof(bytes) && filled < n; i++)
		{
			if (code_letter(bytes[i], &letters[filled]))
				filled++;
		}
	}
}

PG_FUNCTION_INFO_V1(loyalty_make_code);

/* make_code(length): a random code of so many letters, the last one a check. */
Datum
loyalty_make_code(PG_FUNCTION_ARGS)
{
	int			n = PG_GETARG_INT32(0);
	char		letters[CODE_MAX_LENGTH];
	char		text[CODE_MAX_TEXT];

	if (n < CODE_MIN_LENGTH || n > CODE_MAX_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a code has %d to %d letters", CODE_MIN_LENGTH, CODE_MAX_LENGTH)));
	random_letters(letters, n - 1);
	letters[n - 1] = code_check_letter(letters, n - 1);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(text, code_format(letters, n, text)));
}

PG_FUNCTION_INFO_V1(loyalty_is_code);

/* is_code(text): whether it could be a code of make_code's. */
Datum
loyalty_is_code(PG_FUNCTION_ARGS)
{
	text	   *code = PG_GETARG_TEXT_PP(0);

	PG_RETURN_BOOL(code_is_well_formed(VARDATA_ANY(code), VARSIZE_ANY_EXHDR(code)));
}
