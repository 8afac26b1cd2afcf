/*
 * seal.c
 *	  Hash chains over ledger entries: BLAKE2b-256 (RFC 7693) of the previous
 *	  hash and the entry's canonical bytes.
 *
 * Owns the canonical form.  Knows nothing of the schema: callers hand over
 * every column.  The form is a domain tag, the key's number (0: no key), the
 * previous hash, then every column in the table's order: integers big-endian,
 * byte strings behind their length, nulls as length -1.
 */
#include "seal.h"

#include <sodium.h>

#include "port/pg_bswap.h"

#include "compat.h"

static const char domain_tag[] = "loyalty.entry.v1";

/* Initialise libsodium once in a process. */
static void
ensure_sodium(void)
{
	static bool ready = false;

	if (ready)
		return;
	if (sodium_init() < 0)
		elog(ERROR, "could not initialise libsodium");
	ready = true;
}

/* Feed an integer, big-endian. */
static void
feed_int64(crypto_generichash_state *state, int64 value)
{
	uint64		wire = pg_hton64((uint64) value);

	crypto_generichash_update(state, (const unsigned char *) &wire, sizeof(wire));
}

/* Feed a byte string behind its length; NULL is length -1. */
static void
feed_bytes(crypto_generichash_state *state, const void *bytes, int64 length)
{
	if (bytes == NULL)
	{
		feed_int64(state, -1);
		return;
	}
	feed_int64(state, length);
	crypto_generichash_update(state, bytes, length);
}

/* Feed the payload of an untoasted varlena. */
static void
feed_varlena(crypto_generichash_state *state, const struct varlena *value)
{
	if (value == NULL)
		feed_bytes(state, NULL, 0);
	else
		feed_bytes(state, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* Compute the hash of an entry that follows the entry with the previous hash. */
void
SealEntry(const SealedEntry *entry, const uint8 *previous, bool has_previous, uint8 *hash)
{
	crypto_generichash_state state;

	ensure_sodium();
	crypto_generichash_init(&state, NULL, 0, SEAL_HASH_BYTES);
	crypto_generichash_update(&state, (const unsigned char *) domain_tag, sizeof(domain_tag));
	feed_int64(&state, 0);
	feed_bytes(&state, has_previous ? previous : NULL, SEAL_HASH_BYTES);
	feed_int64(&state, entry->account_id);
	feed_int64(&state, entry->seq);
	feed_bytes(&state, entry->kind, entry->kind_length);
	feed_int64(&state, entry->points);
	feed_int64(&state, entry->has_source ? 1 : 0);
	feed_int64(&state, entry->source_id);
	feed_int64(&state, entry->occurred_at);
	feed_int64(&state, entry->recorded_at);
	feed_varlena(&state, entry->lots);
	feed_varlena(&state, entry->tally);
	feed_varlena(&state, entry->breakdown);
	feed_bytes(&state, entry->actor, entry->actor_length);
	feed_bytes(&state, entry->reason, entry->reason_length);
	feed_bytes(&state, entry->key, entry->key_length);
	feed_bytes(&state, entry->detail, entry->detail_length);
	crypto_generichash_final(&state, hash, SEAL_HASH_BYTES);
}
