/*
 * signature.h
 *	  Ed25519 (RFC 8032), and the wiping of secrets.
 */
#ifndef LOYALTY_SIGNATURE_H
#define LOYALTY_SIGNATURE_H

#include "core.h"

#define SIGNATURE_BYTES 64
#define SIGNATURE_SEED_BYTES 32
#define SIGNATURE_PUBLIC_BYTES 32

extern void signature_start(void);
extern void signature_public_key(const uint8 *seed, uint8 *public_key);
extern void signature_make(const uint8 *seed, const uint8 *message, size_t length,
						   uint8 *signature);
extern bool signature_verify(const uint8 *signature, const uint8 *message, size_t length,
							 const uint8 *public_key);
extern void signature_tag(const uint8 *bytes, size_t length, uint8 *tag, size_t tag_length);
extern void signature_sha256(const uint8 *bytes, size_t length, uint8 *hash);
extern void signature_random(uint8 *bytes, size_t length);
extern void signature_wipe(void *bytes, size_t length);
extern void *secret_allocate(size_t length);
extern void secret_free(void *bytes);

#endif							/* LOYALTY_SIGNATURE_H */
