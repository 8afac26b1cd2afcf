/*
 * cipher.c
 *	  XChaCha20-Poly1305 and keyed BLAKE2b by libsodium.  Pure: knows no
 *	  files, no tables, no members.
 *
 * A sealed value is version 1, the key's number, 24 random bytes, and the
 * ciphertext with its tag.  The plaintext is padded to 32, 64, 128... bytes
 * first, so that its length says little.  Version, key number and the caller's
 * context are authenticated: a value moved to another place does not open.
 */
#include "cipher.h"

#include <sodium.h>

#include "signature.h"

#define VERSION 1
#define HEADER_BYTES 2
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES crypto_aead_xchacha20poly1305_ietf_ABYTES
#define BODY_AT (HEADER_BYTES + NONCE_BYTES)
#define OVERHEAD (BODY_AT + TAG_BYTES)
#define SMALLEST_BUCKET 32

/* How long a value is with its padding, of which there is at least a byte. */
static size_t
padded_length(size_t length)
{
	size_t		bucket = SMALLEST_BUCKET;

	while (bucket < length + 1)
		bucket *= 2;
	return bucket;
}

/* The number of bytes that a value of this length is sealed into. */
size_t
cipher_sealed_length(size_t length)
{
	return OVERHEAD + padded_length(length);
}

/* Write what is authenticated: the header and the context, of up to CIPHER_CONTEXT_MAX bytes; returns its length. */
static size_t
write_context(const uint8 *header, const uint8 *context, size_t context_length, uint8 *written)
{
	memcpy(written, header, HEADER_BYTES);
	memcpy(written + HEADER_BYTES, context, context_length);
	return HEADER_BYTES + context_length;
}

/* Seal a value into cipher_sealed_length() bytes. */
void
cipher_seal(const uint8 *key, int key_id, const uint8 *context, size_t context_length,
			const uint8 *plain, size_t length, uint8 *sealed)
{
	uint8		written[HEADER_BYTES + CIPHER_CONTEXT_MAX];
	size_t		bucket = padded_length(length);
	size_t		n;

	signature_start();
	sealed[0] = VERSION;
	sealed[1] = (uint8) key_id;
	n = write_context(sealed, context, context_length, written);
	randombytes_buf(sealed + HEADER_BYTES, NONCE_BYTES);
	/* padded where the ciphertext comes to stand, as ISO 7816-4 does */
	memcpy(sealed + BODY_AT, plain, length);
	sealed[BODY_AT + length] = 0x80;
	memset(sealed + BODY_AT + length + 1, 0, bucket - length - 1);
	crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + BODY_AT, NULL, sealed + BODY_AT, bucket,
											   written, n, NULL, sealed + HEADER_BYTES, key);
}

/* The number of the key that sealed a value, 0 where it is no sealed value. */
int
cipher_key_id(const uint8 *sealed, size_t length)
{
	return length >= OVERHEAD + SMALLEST_BUCKET && sealed[0] == VERSION ? sealed[1] : 0;
}

/* Open a value into a buffer as large as the sealed one; false where it was damaged. */
bool
cipher_open(const uint8 *key, const uint8 *context, size_t context_length,
			const uint8 *sealed, size_t sealed_length, uint8 *plain, size_t *length)
{
	uint8		written[HEADER_BYTES + CIPHER_CONTEXT_MAX];
	size_t		n;

	signature_start();
	if (cipher_key_id(sealed, sealed_length) == 0)
		return false;
	n = write_context(sealed, context, context_length, written);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, NULL, NULL, sealed + BODY_AT, sealed_length - BODY_AT,
												   written, n, sealed + HEADER_BYTES, key) != 0)
		return false;
	for (*length = sealed_length - OVERHEAD; *length > 0 && plain[*length - 1] == 0; (*length)--)
		;
	if (*length == 0 || plain[*length - 1] != 0x80)
		return false;
	(*length)--;
	return true;
}

/* The keyed hash by which a value is found: of the context behind its length, then the value. */
void
cipher_blind(const uint8 *key, const uint8 *context, size_t context_length,
			 const uint8 *value, size_t length, uint8 *blind)
{
	crypto_generichash_state state;
	uint8		prefix = (uint8) context_length;

	signature_start();
	crypto_generichash_init(&state, key, CIPHER_KEY_BYTES, CIPHER_BLIND_BYTES);
	crypto_generichash_update(&state, &prefix, 1);
	crypto_generichash_update(&state, context, context_length);
	crypto_generichash_update(&state, value, length);
	crypto_generichash_final(&state, blind, CIPHER_BLIND_BYTES);
	sodium_memzero(&state, sizeof(state));
}
