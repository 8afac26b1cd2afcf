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
	KEY_SIGNING,
	KEY_VERIFYING,
	KEY_RETIRED
} KeyStatus;

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
extern const char *KeyStatusName(KeyStatus status);

#endif							/* LOYALTY_KEYS_H */
