/*
 * seal.h
 *	  Hash chains.  The only room that knows libsodium.
 */
#ifndef LOYALTY_SEAL_H
#define LOYALTY_SEAL_H

#include "postgres.h"

#include "utils/timestamp.h"

#define SEAL_HASH_BYTES 32

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

extern void SealEntry(const SealedEntry *entry, const uint8 *previous, bool has_previous,
					  uint8 *hash);

#endif							/* LOYALTY_SEAL_H */
