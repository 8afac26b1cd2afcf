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

/* Canonical bytes while they are written */
typedef struct Writer
{
	uint8	   *bytes;
	size_t		length;
	size_t		capacity;
} Writer;

/* Make room for so many more bytes. */
static void
reserve(Writer *writer, size_t more)
{
	if (writer->length + more <= writer->capacity)
		return;
	while (writer->length + more > writer->capacity)
		writer->capacity *= 2;
	writer->bytes = repalloc_huge(writer->bytes, writer->capacity);
}

/* Write an integer, big-endian. */
static void
write_int64(Writer *writer, int64 value)
{
	uint64		wire = pg_hton64((uint64) value);

	reserve(writer, sizeof(wire));
	memcpy(writer->bytes + writer->length, &wire, sizeof(wire));
	writer->length += sizeof(wire);
}

/* Write a byte string behind its length; NULL is length -1. */
static void
write_bytes(Writer *writer, const void *bytes, int64 length)
{
	if (bytes == NULL)
	{
		write_int64(writer, -1);
		return;
	}
	write_int64(writer, length);
	reserve(writer, length);
	memcpy(writer->bytes + writer->length, bytes, length);
	writer->length += length;
}

/* Write the payload of an untoasted varlena. */
static void
write_varlena(Writer *writer, const struct varlena *value)
{
	if (value == NULL)
		write_bytes(writer, NULL, 0);
	else
		write_bytes(writer, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* Write the canonical form of an entry that follows a link; the caller frees it. */
uint8 *
SealCanonical(const SealedEntry *entry, const ChainLink *previous, int key_id, size_t *length)
{
	Writer		writer = {palloc(512), sizeof(domain_tag), 512};

	memcpy(writer.bytes, domain_tag, sizeof(domain_tag));
	write_int64(&writer, key_id);
	write_bytes(&writer, previous->length == 0 ? NULL : previous->bytes, previous->length);
	write_int64(&writer, entry->account_id);
	write_int64(&writer, entry->seq);
	write_bytes(&writer, entry->kind, entry->kind_length);
	write_int64(&writer, entry->points);
	write_int64(&writer, entry->has_source ? 1 : 0);
	write_int64(&writer, entry->source_id);
	write_int64(&writer, entry->occurred_at);
	write_int64(&writer, entry->recorded_at);
	write_varlena(&writer, entry->lots);
	write_varlena(&writer, entry->tally);
	write_varlena(&writer, entry->breakdown);
	write_bytes(&writer, entry->actor, entry->actor_length);
	write_bytes(&writer, entry->reason, entry->reason_length);
	write_bytes(&writer, entry->key, entry->key_length);
	write_bytes(&writer, entry->detail, entry->detail_length);
	*length = writer.length;
	return writer.bytes;
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
