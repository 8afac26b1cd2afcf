/*
 * signature.c
 *	  Ed25519 by libsodium.  Pure: knows no files, no tables, no tokens.
 *
 * libsodium refuses what RFC 8032 lets a verifier refuse: a signature whose
 * scalar is not reduced, points of small order, keys that are not canonical.
 */
#include "signature.h"

#include <sodium.h>

/* Make libsodium ready; the other functions do it themselves. */
void
signature_start(void)
{
	static bool ready = false;

	if (ready)
		return;
	if (sodium_init() < 0)
#ifdef LOYALTY_CORE_ONLY
		abort();
#else
		elog(ERROR, "could not initialise libsodium");
#endif
	ready = true;
}

/* The public key of a seed. */
void
signature_public_key(const uint8 *seed, uint8 *public_key)
{
	unsigned char secret[crypto_sign_SECRETKEYBYTES];

	signature_start();
	crypto_sign_seed_keypair(public_key, secret, seed);
	sodium_memzero(secret, sizeof(secret));
}

/* Sign a message. */
void
signature_make(const uint8 *seed, const uint8 *message, size_t length, uint8 *signature)
{
	unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
	unsigned char secret[crypto_sign_SECRETKEYBYTES];

	signature_start();
	crypto_sign_seed_keypair(public_key, secret, seed);
	crypto_sign_detached(signature, NULL, message, length, secret);
	sodium_memzero(secret, sizeof(secret));
}

/* Tell whether a signature is the key's over the message. */
bool
signature_verify(const uint8 *signature, const uint8 *message, size_t length,
				 const uint8 *public_key)
{
	signature_start();
	return crypto_sign_verify_detached(signature, message, length, public_key) == 0;
}

/* The first bytes of SHA-512, which whoever verifies Ed25519 has at hand. */
void
signature_tag(const uint8 *bytes, size_t length, uint8 *tag, size_t tag_length)
{
	unsigned char digest[crypto_hash_sha512_BYTES];

	signature_start();
	crypto_hash_sha512(digest, bytes, length);
	memcpy(tag, digest, tag_length);
}

/* SHA-256, of which Merkle trees are made. */
void
signature_sha256(const uint8 *bytes, size_t length, uint8 *hash)
{
	signature_start();
	crypto_hash_sha256(hash, bytes, length);
}

/* Random bytes, for seeds and nonces. */
void
signature_random(uint8 *bytes, size_t length)
{
	signature_start();
	randombytes_buf(bytes, length);
}

/* Zero a secret in a way that no compiler leaves out. */
void
signature_wipe(void *bytes, size_t length)
{
	sodium_memzero(bytes, length);
}

/* Memory for secrets: zeroed, between guard pages, kept out of swap and core dumps; NULL where there is none left. */
void *
secret_allocate(size_t length)
{
	void	   *bytes;

	signature_start();
	bytes = sodium_malloc(length);
	if (bytes != NULL)
		sodium_memzero(bytes, length);
	return bytes;
}

/* Wipe and free such memory. */
void
secret_free(void *bytes)
{
	sodium_free(bytes);
}
