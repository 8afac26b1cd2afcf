/*
 * cipher.h
 *	  Sealing of personal data: XChaCha20-Poly1305, and a keyed blind index.
 */
#ifndef LOYALTY_CIPHER_H
#define LOYALTY_CIPHER_H

#include "core.h"

#define CIPHER_KEY_BYTES 32
#define CIPHER_BLIND_BYTES 16
#define CIPHER_CONTEXT_MAX 128

extern size_t cipher_sealed_length(size_t length);
extern void cipher_seal(const uint8 *key, int key_id, const uint8 *context, size_t context_length,
						const uint8 *plain, size_t length, uint8 *sealed);
extern int	cipher_key_id(const uint8 *sealed, size_t length);
extern bool cipher_open(const uint8 *key, const uint8 *context, size_t context_length,
						const uint8 *sealed, size_t sealed_length, uint8 *plain, size_t *length);
extern void cipher_blind(const uint8 *key, const uint8 *context, size_t context_length,
						 const uint8 *value, size_t length, uint8 *blind);

#endif							/* LOYALTY_CIPHER_H */
