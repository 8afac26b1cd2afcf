/*
 * code.h
 *	  Codes of coupons: letters that nobody confuses, the last one a check.
 */
#ifndef LOYALTY_CODE_H
#define LOYALTY_CODE_H

#include "core.h"

#define CODE_LETTERS		"34679ACDEFGHJKMNPQRTWXY"
#define CODE_BASE			23	/* prime, so that the check finds what it should */
#define CODE_MIN_LENGTH		8
#define CODE_MAX_LENGTH		32
#define CODE_MAX_TEXT		(CODE_MAX_LENGTH + CODE_MAX_LENGTH / 4)

extern bool code_letter(uint8 random, char *letter);
extern char code_check_letter(const char *letters, int n);
extern int	code_format(const char *letters, int n, char *text);
extern bool code_is_well_formed(const char *text, size_t length);

#endif							/* LOYALTY_CODE_H */
