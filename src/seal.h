/*
 * seal.h
 *	  Hash chains.  The only room that knows libsodium.
 */
#ifndef LOYALTY_SEAL_H
#define LOYALTY_SEAL_H

#include "postgres.h"

#include "utils/timestamp.h"

#define SEAL_HASH_BYTES 32
#define SEAL_KEY_BYTES 32
#define SEAL_LINK_BYTES (1 + SEAL_HASH_BYTES)

/*
 * A link of a chain, as entry.hash and account.head keep it: a hash, behind its
 * key's number where it has a key.  Of no length before the first entry.
 */
typedef struct ChainLink
{
	int			length;
	uint8		bytes[SEAL_LINK_BYTES];
} ChainLink;

/* Every column of an entry that its hash covers */
typedef struct SealedEntry
{
	int64		account_id;
	int64		seq;
	const char *kind;
	int			kind_length;
	int64		points;
	bool		has_source;
	int64		source_id;
	TimestampTz occurred_at;
	TimestampTz recorded_at;
	const struct varlena *lots;
	const struct varlena *tally;
	const struct varlena *breakdown;	/* NULL: null, and likewise below */
	const char *actor;
	int			actor_length;
	const char *reason;
	int			reason_length;
	const char *key;
	int			key_length;
	const char *detail;			/* its text form */
	int			detail_length;
} SealedEntry;

extern void SealEntry(const SealedEntry *entry, const ChainLink *previous, int key_id,
					  const uint8 *key, ChainLink *link);
extern uint8 *SealCanonical(const SealedEntry *entry, const ChainLink *previous, int key_id,
							size_t *length);
extern bool SealReadLink(const struct varlena *value, ChainLink *link);
extern int	SealKeyOf(const ChainLink *link);
extern bool SealSameLink(const ChainLink *a, const ChainLink *b);

#endif							/* LOYALTY_SEAL_H */
