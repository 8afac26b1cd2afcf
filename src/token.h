/*
 * token.h
 *	  What a voucher's token carries, its bytes and its text.
 */
#ifndef LOYALTY_TOKEN_H
#define LOYALTY_TOKEN_H

#include "core.h"

#define TOKEN_VERSION 1
#define TOKEN_NONCE_BYTES 8
#define TOKEN_TAG_BYTES 4
#define TOKEN_SIGNATURE_BYTES 64
#define TOKEN_MAX_SKU 32
#define TOKEN_MAX_VALUE INT64_C(10000000000000000)	/* 10^12 in units of 1/10000 */
#define TOKEN_LAST_DAY 2921939	/* 9999-12-31, days since 2000-01-01 */
#define TOKEN_NO_END INT32_MAX
#define TOKEN_KINDS 9			/* codes 1 to 9 */

/* the largest body, and the whole token in bytes and in letters */
#define TOKEN_MAX_BODY 81
#define TOKEN_MAX_BYTES (TOKEN_MAX_BODY + TOKEN_SIGNATURE_BYTES)
#define TOKEN_MAX_TEXT ((TOKEN_MAX_BYTES * 8 + 4) / 5)

/* longer texts are not even looked at; leaves room for hyphens */
#define TOKEN_MAX_INPUT 512

#define TOKEN_DOMAIN "loyalty voucher v1"
#define TOKEN_MAX_MESSAGE (sizeof(TOKEN_DOMAIN) - 1 + TOKEN_MAX_BODY)

typedef struct Token
{
	int			key_id;			/* 1 to 255 */
	int64		voucher_id;		/* above 0 */
	int32		program_id;		/* above 0 */
	int			kind;			/* 1 to TOKEN_KINDS */
	int64		value;			/* in 1/10000; 0: none */
	char		currency[4];	/* "": none */
	int32		valid_from;		/* days since 2000-01-01 */
	int32		valid_until;	/* last valid day; TOKEN_NO_END: for ever */
	bool		has_member;
	uint8		member_tag[TOKEN_TAG_BYTES];
	char		sku[TOKEN_MAX_SKU + 1]; /* "": none */
	uint8		nonce[TOKEN_NONCE_BYTES];
	uint8		signature[TOKEN_SIGNATURE_BYTES];
} Token;

extern const char *token_kind_name(int kind);
extern int	token_kind_code(const char *name);
extern bool token_sku_fits(const char *sku, size_t length);
extern size_t token_encode_body(const Token *token, uint8 *bytes);
extern CoreStatus token_decode(const uint8 *bytes, size_t length, Token *token,
							   size_t *body_length);
extern size_t token_message(const uint8 *body, size_t length, uint8 *message);
extern size_t token_to_text(const uint8 *bytes, size_t length, char *text);
extern CoreStatus token_from_text(const char *text, size_t length, uint8 *bytes, size_t *count);

#endif							/* LOYALTY_TOKEN_H */
