/*
 * keys.h
 *	  The key file.
 */
#ifndef LOYALTY_KEYS_H
#define LOYALTY_KEYS_H

#include "signature.h"

#define KEYS_MAX 255

typedef enum KeyStatus
{
	KEY_ACTIVE,					/* the last such key of its kind signs or chains */
	KEY_VERIFYING,
	KEY_RETIRED
} KeyStatus;

typedef enum KeyKind
{
	KEY_ED25519,
	KEY_BLAKE2B
} KeyKind;

/* What the world may know of a key */
typedef struct PublicKey
{
	int			key_id;
	KeyStatus	status;
	uint8		public_key[SIGNATURE_PUBLIC_BYTES];
} PublicKey;

extern void KeysInit(void);
extern int	KeysList(PublicKey *list);
extern void KeysFind(int key_id, PublicKey *found);
extern void KeysSign(int key_id, const uint8 *message, size_t length, uint8 *signature);
extern const char *KeyStatusName(KeyKind kind, KeyStatus status);
extern const char *KeyKindName(KeyKind kind);
extern bool KeyKindOf(const char *name, size_t length, KeyKind *kind);
extern void KeysRefresh(void);
extern const uint8 *KeysChaining(int *key_id);
extern const uint8 *KeysOfChain(int key_id, bool *retired);

#endif							/* LOYALTY_KEYS_H */
