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
	KEY_ACTIVE,					/* the last such key of its kind signs, chains, seals or indexes */
	KEY_VERIFYING,
	KEY_RETIRED
} KeyStatus;

typedef enum KeyKind
{
	KEY_ED25519,
	KEY_BLAKE2B,
	KEY_XCHACHA20,
	KEY_INDEX
} KeyKind;

/* What the world may know of a key */
typedef struct PublicKey
{
	int			key_id;
	KeyStatus	status;
	uint8		public_key[SIGNATURE_PUBLIC_BYTES];
} PublicKey;

/* Borrows a secret */
typedef void (*KeyUser) (const uint8 *secret, int key_id, void *context);

extern void KeysInit(void);
extern int	KeysList(PublicKey *list);
extern void KeysFind(int key_id, PublicKey *found);
extern void KeysSign(int key_id, const uint8 *message, size_t length, uint8 *signature);
extern void KeysUse(KeyKind kind, int key_id, KeyUser user, void *context);
extern int	KeysUseAll(KeyKind kind, bool current_only, KeyUser user, void *context);
extern const char *KeyStatusName(KeyKind kind, KeyStatus status);
extern const char *KeyKindName(KeyKind kind);
extern bool KeyKindOf(const char *name, size_t length, KeyKind *kind);
extern void KeysRefresh(void);
extern const uint8 *KeysChaining(int *key_id);
extern const uint8 *KeysOfChain(int key_id, bool *retired);

#endif							/* LOYALTY_KEYS_H */
