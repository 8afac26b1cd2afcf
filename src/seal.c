/*
 * seal.c
 *	  Hash chains over ledger entries: BLAKE2b-256 (RFC 7693), keyed where there
 *	  is a key, over the entry's canonical bytes.
 *
 * Owns the canonical form.  Knows nothing of the schema: callers hand over
 * every column.  The form is a domain tag, the key's number (0: no key), the
 * previous link, then every column in the table's order: integers big-endian,
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

/* The fields of the canonical form that are 8 bytes in it, and those that stand behind their length */
#define FIXED_FIELDS 8
#define BYTE_FIELDS 9

/* The length of a byte string; it says nothing where there is none. */
static inline size_t
length_of(const void *bytes, int length)
{
	return bytes == NULL ? 0 : (size_t) length;
}

/* The length of a varlena's payload. */
static inline size_t
payload_of(const struct varlena *value)
{
	return value == NULL ? 0 : VARSIZE_ANY_EXHDR(value);
}

/* Write an integer, big-endian; returns where to go on. */
static inline uint8 *
write_int64(uint8 *at, int64 value)
{
	uint64		wire = pg_hton64((uint64) value);

	memcpy(at, &wire, sizeof(wire));
	return at + sizeof(wire);
}

/* Write a byte string behind its length; NULL is length -1. */
static inline uint8 *
write_bytes(uint8 *at, const void *bytes, size_t length)
{
	if (bytes == NULL)
		return write_int64(at, -1);
	at = write_int64(at, (int64) length);
	memcpy(at, bytes, length);
	return at + length;
}

/* Write the payload of an untoasted varlena. */
static inline uint8 *
write_varlena(uint8 *at, const struct varlena *value)
{
	return write_bytes(at, value == NULL ? NULL : VARDATA_ANY(value), payload_of(value));
}

/* How many bytes the canonical form of an entry takes. */
static size_t
canonical_size(const SealedEntry *entry, const ChainLink *previous)
{
	return sizeof(domain_tag) + sizeof(int64) * (FIXED_FIELDS + BYTE_FIELDS) + previous->length +
		payload_of(entry->lots) + payload_of(entry->tally) + payload_of(entry->breakdown) +
		length_of(entry->kind, entry->kind_length) + length_of(entry->actor, entry->actor_length) +
		length_of(entry->reason, entry->reason_length) + length_of(entry->key, entry->key_length) +
		length_of(entry->detail, entry->detail_length);
}

/* Write the canonical form of an entry that follows a link; the caller frees it. */
uint8 *
SealCanonical(const SealedEntry *entry, const ChainLink *previous, int key_id, size_t *length)
{
	uint8	   *bytes = palloc_extended(canonical_size(entry, previous), MCXT_ALLOC_HUGE);
	uint8	   *at = bytes + sizeof(domain_tag);

	memcpy(bytes, domain_tag, sizeof(domain_tag));
	at = write_int64(at, key_id);
	at = write_bytes(at, previous->length == 0 ? NULL : previous->bytes, previous->length);
	at = write_int64(at, entry->account_id);
	at = write_int64(at, entry->seq);
	at = write_bytes(at, entry->kind, entry->kind_length);
	at = write_int64(at, entry->points);
	at = write_int64(at, entry->has_source ? 1 : 0);
	at = write_int64(at, entry->source_id);
	at = write_int64(at, entry->occurred_at);
	at = write_int64(at, entry->recorded_at);
	at = write_varlena(at, entry->lots);
	at = write_varlena(at, entry->tally);
	at = write_varlena(at, entry->breakdown);
	at = write_bytes(at, entry->actor, entry->actor_length);
	at = write_bytes(at, entry->reason, entry->reason_length);
	at = write_bytes(at, entry->key, entry->key_length);
	at = write_bytes(at, entry->detail, entry->detail_length);
	*length = at - bytes;
	Assert(*length == canonical_size(entry, previous));
	return bytes;
}

/* Compute the link of an entry that follows the previous one; key NULL: without a key. */
void
SealEntry(const SealedEntry *entry, const ChainLink *previous, int key_id, const uint8 *key,
		  ChainLink *link)
{
	size_t		length;
	uint8	   *bytes = SealCanonical(entry, previous, key == NULL ? 0 : key_id, &length);
	int			at = key == NULL ? 0 : 1;

	ensure_sodium();
	link->bytes[0] = (uint8) key_id;
	link->length = at + SEAL_HASH_BYTES;
	crypto_generichash(link->bytes + at, SEAL_HASH_BYTES, bytes, length, key,
					   key == NULL ? 0 : SEAL_KEY_BYTES);
	pfree(bytes);
}

/* Read a link as it is stored; false where it is none. */
bool
SealReadLink(const struct varlena *value, ChainLink *link)
{
	Size		length = VARSIZE_ANY_EXHDR(value);

	link->length = 0;
	if (length != 0 && length != SEAL_HASH_BYTES && length != SEAL_LINK_BYTES)
		return false;
	memcpy(link->bytes, VARDATA_ANY(value), length);
	link->length = (int) length;
	return true;
}

/* The number of a link's key, 0 where it has none. */
int
SealKeyOf(const ChainLink *link)
{
	return link->length == SEAL_LINK_BYTES ? link->bytes[0] : 0;
}

/* Tell whether two links are one. */
bool
SealSameLink(const ChainLink *a, const ChainLink *b)
{
	return a->length == b->length && sodium_memcmp(a->bytes, b->bytes, a->length) == 0;
}
