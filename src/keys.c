/*
 * keys.c
 *	  The key file that loyalty.key_file names: one key a line,
 *
 *		<id 1 to 255> ed25519 <64 hexadecimal digits> [signing|verifying|retired]
 *		<id 1 to 255> blake2b <64 hexadecimal digits> [chaining|verifying|retired]
 *		<id 1 to 255> xchacha20 <64 hexadecimal digits> [sealing|opening|retired]
 *		<id 1 to 255> index <64 hexadecimal digits> [indexing|finding|retired]
 *
 * with # before a comment.  Read anew whenever a key is needed to sign, wiped
 * before control leaves this file.  The keys of chains, which every entry
 * needs, are kept in guarded memory for as long as the file stays what it was.
 * No secret, and nothing of the file's text, gets into a message: a damaged
 * line may hold a secret anywhere.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "port.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "compat.h"
#include "errors.h"
#include "keys.h"

#define MAX_FILE_BYTES 65536

/* A key with its secret */
typedef struct SecretKey
{
	KeyKind		kind;
	PublicKey	known;
	uint8		seed[SIGNATURE_SEED_BYTES];
} SecretKey;

typedef struct KeyRing
{
	int			n;
	SecretKey	key[KEYS_MAX];
} KeyRing;

static char *key_file = NULL;

static const char *const kind_names[] = {"ed25519", "blake2b", "xchacha20", "index"};
static const char *const kind_verbs[] = {"sign", "chain", "seal", "index"};
static const char *const status_names[][3] = {
	{"signing", "verifying", "retired"},
	{"chaining", "verifying", "retired"},
	{"sealing", "opening", "retired"},
	{"indexing", "finding", "retired"}
};

/* what is said of another status */
static const char *const status_complaints[] = {
	"a status is signing, verifying or retired",
	"a status is chaining, verifying or retired",
	"a status is sealing, opening or retired",
	"a status is indexing, finding or retired"
};

/* Define the setting. */
void
KeysInit(void)
{
	DefineCustomStringVariable("loyalty.key_file",
							   "File with the keys that sign vouchers, chain entries and seal personal data.",
							   "Outside of the data directory, owned by the server's user, "
							   "readable by nobody else.",
							   &key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
}

/* The name of a status. */
const char *
KeyStatusName(KeyKind kind, KeyStatus status)
{
	return status_names[kind][status];
}

/* The name of a kind. */
const char *
KeyKindName(KeyKind kind)
{
	return kind_names[kind];
}

/* ------------------------------------------------------------------------
 * Parsing.  Each function returns what is wrong, NULL where nothing is.
 * ------------------------------------------------------------------------ */

/* Cut the next word off a line; its length, 0 at the end. */
static size_t
next_word(const char **at, const char *end, const char **word)
{
	while (*at < end && (**at == ' ' || **at == '\t' || **at == '\r'))
		(*at)++;
	*word = *at;
	while (*at < end && **at != ' ' && **at != '\t' && **at != '\r')
		(*at)++;
	return (size_t) (*at - *word);
}

/* Tell whether a word is the one expected. */
static bool
is_word(const char *word, size_t length, const char *expected)
{
	return length == strlen(expected) && memcmp(word, expected, length) == 0;
}

/* The value of a hexadecimal digit, -1 where it is none. */
static int
hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

/* Read the number of a key; 0 where it is none. */
static int
parse_id(const char *word, size_t length)
{
	int			id = 0;

	if (length == 0 || length > 3)
		return 0;
	for (size_t i = 0; i < length; i++)
	{
		if (word[i] < '0' || word[i] > '9')
			return 0;
		id = id * 10 + (word[i] - '0');
	}
	return id <= KEYS_MAX ? id : 0;
}

/* Read a seed. */
static bool
parse_seed(const char *word, size_t length, uint8 *seed)
{
	if (length != 2 * SIGNATURE_SEED_BYTES)
		return false;
	for (int i = 0; i < SIGNATURE_SEED_BYTES; i++)
	{
		int			high = hex_value(word[2 * i]);
		int			low = hex_value(word[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		seed[i] = (uint8) (high << 4 | low);
	}
	return true;
}

/* Find a kind by its name. */
bool
KeyKindOf(const char *name, size_t length, KeyKind *kind)
{
	for (int i = 0; i < lengthof(kind_names); i++)
	{
		*kind = (KeyKind) i;
		if (is_word(name, length, kind_names[i]))
			return true;
	}
	return false;
}

/* Read a status; none means the first of the kind. */
static bool
parse_status(const char *word, size_t length, KeyKind kind, KeyStatus *status)
{
	*status = KEY_ACTIVE;
	if (length == 0)
		return true;
	for (int i = 0; i < lengthof(status_names[kind]); i++)
	{
		if (is_word(word, length, status_names[kind][i]))
		{
			*status = (KeyStatus) i;
			return true;
		}
	}
	return false;
}

/* Find a key of the ring, NULL where it has none of that number. */
static SecretKey *
find_key(KeyRing *ring, int key_id)
{
	for (int i = 0; i < ring->n; i++)
	{
		if (ring->key[i].known.key_id == key_id)
			return &ring->key[i];
	}
	return NULL;
}

/* Read one line into the ring. */
static const char *
parse_line(const char *at, const char *end, KeyRing *ring)
{
	const char *comment = memchr(at, '#', end - at);
	const char *word;
	size_t		length;
	SecretKey  *key;
	int			key_id;

	if (comment != NULL)
		end = comment;
	length = next_word(&at, end, &word);
	if (length == 0)
		return NULL;
	key_id = parse_id(word, length);
	if (key_id == 0)
		return "a key's number is from 1 to 255";
	if (find_key(ring, key_id) != NULL)
		return "this number was used above";
	length = next_word(&at, end, &word);
	key = &ring->key[ring->n];
	if (!KeyKindOf(word, length, &key->kind))
		return "behind the number stands ed25519, blake2b, xchacha20 or index";
	length = next_word(&at, end, &word);
	if (!parse_seed(word, length, key->seed))
		return "a seed has 64 hexadecimal digits";
	length = next_word(&at, end, &word);
	if (!parse_status(word, length, key->kind, &key->known.status))
		return status_complaints[key->kind];
	if (next_word(&at, end, &word) != 0)
		return "nothing stands behind the status";
	key->known.key_id = key_id;
	ring->n++;
	return NULL;
}

/* Of the keys of a kind that may sign or chain only the last does; the others verify. */
static void
choose_active(KeyRing *ring, KeyKind kind)
{
	bool		found = false;

	for (int i = ring->n - 1; i >= 0; i--)
	{
		if (ring->key[i].kind != kind || ring->key[i].known.status != KEY_ACTIVE)
			continue;
		if (found)
			ring->key[i].known.status = KEY_VERIFYING;
		found = true;
	}
}

/* Read the file's text into the ring; *line is where it is wrong. */
static const char *
parse_file(const char *text, size_t length, KeyRing *ring, int *line)
{
	const char *at = text;
	const char *end = text + length;

	for (*line = 1; at < end; (*line)++)
	{
		const char *stop = memchr(at, '\n', end - at);
		const char *problem;

		if (stop == NULL)
			stop = end;
		problem = parse_line(at, stop, ring);
		if (problem != NULL)
			return problem;
		at = stop + 1;
	}
	*line = 0;
	for (int kind = 0; kind < lengthof(kind_names); kind++)
		choose_active(ring, (KeyKind) kind);
	return NULL;
}

/* ------------------------------------------------------------------------
 * The file
 * ------------------------------------------------------------------------ */

/* What is unsafe about an open file, NULL where nothing is. */
static const char *
find_danger(const struct stat *info)
{
	char		path[MAXPGPATH];
	char		data[MAXPGPATH];
	char	   *real;

	if (!S_ISREG(info->st_mode))
		return "it is not a regular file";
	if (info->st_uid != geteuid())
		return "it is not owned by the server's user";
	if ((info->st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return "its group or others have rights on it; chmod 600 takes them away";
	if (info->st_size > MAX_FILE_BYTES)
		return "it is larger than 64 kB";
	if (!is_absolute_path(key_file))
		return "its path is not absolute";
	real = realpath(key_file, NULL);
	if (real == NULL)
		return "its path cannot be followed";
	strlcpy(path, real, sizeof(path));
	free(real);
	real = realpath(DataDir, NULL);
	if (real == NULL)
		return "the path of the data directory cannot be followed";
	strlcpy(data, real, sizeof(data));
	free(real);
	if (path_is_prefix_of_path(data, path))
		return "it lies in the data directory, and so in every backup";
	return NULL;
}

/* Read the whole of an open file; -1 where that fails. */
static ssize_t
read_all(int fd, char *buffer)
{
	ssize_t		total = 0;

	while (total < MAX_FILE_BYTES)
	{
		ssize_t		got = read(fd, buffer + total, MAX_FILE_BYTES - total);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		total += got;
	}
	return total;
}

/* Read the file into the ring; what is wrong, NULL where nothing is. */
static const char *
load_keys(KeyRing *ring, char *buffer, int *line)
{
	const char *problem;
	struct stat info;
	ssize_t		length;
	int			fd = OpenTransientFile(key_file, O_RDONLY | O_NONBLOCK | PG_BINARY);

	*line = 0;
	if (fd < 0)
		return errno == ENOENT ? "it does not exist" : "it cannot be opened";
	problem = fstat(fd, &info) == 0 ? find_danger(&info) : "it cannot be examined";
	length = problem == NULL ? read_all(fd, buffer) : 0;
	CloseTransientFile(fd);
	if (length < 0)
		problem = "it cannot be read";
	if (problem == NULL)
		problem = parse_file(buffer, length, ring, line);
	return problem;
}

/* Wipe and free a ring. */
static void
close_ring(KeyRing *ring)
{
	signature_wipe(ring, sizeof(KeyRing));
	pfree(ring);
}

/* Complain about the key file. */
static void
complain(const char *problem, int line)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_KEY_FILE),
			 errmsg("the key file cannot be used"),
			 line == 0 ? errdetail("Of the file: %s.", problem) :
			 errdetail("Of line %d: %s.", line, problem),
			 errhint("loyalty.key_file names a file outside of the data directory that only the server's user may read; loyalty.make_key(id) returns a line for it.")));
}

/* Open the ring; whoever does closes it before anything can raise. */
static KeyRing *
open_ring(void)
{
	KeyRing    *ring;
	char	   *buffer;
	const char *problem;
	int			line;

	if (key_file == NULL || key_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_LY_NO_KEY),
				 errmsg("no key is configured"),
				 errhint("loyalty.key_file names the file of keys; loyalty.make_key(id) returns a line for it.")));
	signature_start();
	ring = palloc0(sizeof(KeyRing));
	buffer = palloc(MAX_FILE_BYTES);
	problem = load_keys(ring, buffer, &line);
	signature_wipe(buffer, MAX_FILE_BYTES);
	pfree(buffer);
	if (problem != NULL)
	{
		close_ring(ring);
		complain(problem, line);
	}
	return ring;
}

/* Find a key of one kind, NULL where the ring has none. */
static SecretKey *
find_kind(KeyRing *ring, int key_id, KeyKind kind)
{
	SecretKey  *key = find_key(ring, key_id);

	return key != NULL && key->kind == kind ? key : NULL;
}

/* Refuse a key that the file does not have, or that it has retired. */
static void
refuse_key(int key_id, bool retired)
{
	ereport(ERROR,
			(errcode(ERRCODE_LY_UNKNOWN_KEY),
			 retired ? errmsg("key %d is retired", key_id) : errmsg("key %d is unknown", key_id),
			 errhint("loyalty.voucher_keys() lists the keys of the key file.")));
}

/* What the world may know of a key. */
static PublicKey
show_key(const SecretKey *key)
{
	PublicKey	shown = key->known;

	signature_public_key(key->seed, shown.public_key);
	return shown;
}

/* List all public keys into an array of KEYS_MAX; returns how many. */
int
KeysList(PublicKey *list)
{
	KeyRing    *ring = open_ring();
	int			n = 0;

	for (int i = 0; i < ring->n; i++)
	{
		if (ring->key[i].kind == KEY_ED25519)
			list[n++] = show_key(&ring->key[i]);
	}
	close_ring(ring);
	return n;
}

/* Find a public key to verify by. */
void
KeysFind(int key_id, PublicKey *found)
{
	KeyRing    *ring = open_ring();
	SecretKey  *key = find_kind(ring, key_id, KEY_ED25519);
	bool		known = key != NULL;

	if (known)
		*found = show_key(key);
	close_ring(ring);
	if (!known || found->status == KEY_RETIRED)
		refuse_key(key_id, known);
}

/* Sign a message with a key. */
void
KeysSign(int key_id, const uint8 *message, size_t length, uint8 *signature)
{
	KeyRing    *ring = open_ring();
	SecretKey  *key = find_kind(ring, key_id, KEY_ED25519);
	bool		known = key != NULL;
	bool		retired = known && key->known.status == KEY_RETIRED;

	if (known && !retired)
		signature_make(key->seed, message, length, signature);
	close_ring(ring);
	if (!known || retired)
		refuse_key(key_id, retired);
}

/* Lend the secret of one key to a user, which must not raise and keeps nothing. */
void
KeysUse(KeyKind kind, int key_id, KeyUser user, void *context)
{
	KeyRing    *ring = open_ring();
	SecretKey  *key = find_kind(ring, key_id, kind);
	bool		known = key != NULL;
	bool		retired = known && key->known.status == KEY_RETIRED;

	if (known && !retired)
		user(key->seed, key_id, context);
	close_ring(ring);
	if (!known || retired)
		refuse_key(key_id, retired);
}

/* Lend the secrets of the keys of a kind that are not retired, the current one first. */
int
KeysUseAll(KeyKind kind, bool current_only, KeyUser user, void *context)
{
	KeyRing    *ring = open_ring();
	int			n = 0;

	for (int status = KEY_ACTIVE; status <= (current_only ? KEY_ACTIVE : KEY_VERIFYING); status++)
	{
		for (int i = 0; i < ring->n && (n > 0 || status == KEY_ACTIVE); i++)
		{
			if (ring->key[i].kind != kind || ring->key[i].known.status != (KeyStatus) status)
				continue;
			user(ring->key[i].seed, ring->key[i].known.key_id, context);
			n++;
		}
	}
	close_ring(ring);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LY_NO_KEY),
				 errmsg("no key of the key file may %s", kind_verbs[kind]),
				 errhint("loyalty.make_key(id, '%s') returns a line for it.", kind_names[kind])));
	return n;
}

/* ------------------------------------------------------------------------
 * The keys of chains
 * ------------------------------------------------------------------------ */

/* What tells one state of the file from another */
typedef struct FileState
{
	char		path[MAXPGPATH];
	bool		exists;
	dev_t		device;
	ino_t		inode;
	off_t		size;
	struct timespec modified;
	struct timespec changed;
} FileState;

static KeyRing *chain_keys = NULL;	/* in guarded memory; NULL: none were read */
static FileState chain_file;

/* Look at the file as it is now; returns whether it is what was read. */
static bool
is_unchanged(FileState *now)
{
	struct stat info;

	memset(now, 0, sizeof(FileState));
	strlcpy(now->path, key_file == NULL ? "" : key_file, sizeof(now->path));
	if (now->path[0] != '\0' && stat(now->path, &info) == 0)
	{
		now->exists = true;
		now->device = info.st_dev;
		now->inode = info.st_ino;
		now->size = info.st_size;
		now->modified = info.st_mtim;
		now->changed = info.st_ctim;
	}
	return strcmp(now->path, chain_file.path) == 0 && now->exists == chain_file.exists &&
		now->device == chain_file.device && now->inode == chain_file.inode &&
		now->size == chain_file.size &&
		memcmp(&now->modified, &chain_file.modified, sizeof(now->modified)) == 0 &&
		memcmp(&now->changed, &chain_file.changed, sizeof(now->changed)) == 0;
}

/* Forget the keys of chains. */
static void
forget_chain_keys(void)
{
	if (chain_keys != NULL)
		secret_free(chain_keys);
	chain_keys = NULL;
}

/* Read the keys of chains; what is wrong, NULL where nothing is. */
static const char *
read_chain_keys(int *line)
{
	KeyRing    *ring = palloc0(sizeof(KeyRing));
	char	   *buffer = palloc(MAX_FILE_BYTES);
	const char *problem = load_keys(ring, buffer, line);
	KeyRing    *kept = problem == NULL ? secret_allocate(sizeof(KeyRing)) : NULL;

	if (problem == NULL && kept == NULL)
		problem = "there is no memory for its keys";
	if (kept != NULL)
	{
		for (int i = 0; i < ring->n; i++)
		{
			if (ring->key[i].kind == KEY_BLAKE2B)
				kept->key[kept->n++] = ring->key[i];
		}
		forget_chain_keys();
		chain_keys = kept;
	}
	signature_wipe(buffer, MAX_FILE_BYTES);
	pfree(buffer);
	close_ring(ring);
	return problem;
}

/*
 * Read the keys of chains where the file has changed.
 *
 * A file that cannot be used is no reason to refuse a sale: what was read
 * before stays good, and where nothing was, entries are chained without a key,
 * which loyalty.verify() shows.
 */
void
KeysRefresh(void)
{
	FileState	now;
	const char *problem;
	int			line;

	if ((key_file == NULL || key_file[0] == '\0') && chain_file.path[0] == '\0')
		return;
	if (is_unchanged(&now))
		return;
	if (strcmp(now.path, chain_file.path) != 0)
		forget_chain_keys();
	chain_file = now;
	if (now.path[0] == '\0')
		return;
	signature_start();
	problem = read_chain_keys(&line);
	if (problem != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_LY_KEY_FILE),
				 errmsg("the key file cannot be used: entries are chained %s",
						chain_keys == NULL ? "without a key" : "with the keys read before"),
				 line == 0 ? errdetail("Of the file: %s.", problem) :
				 errdetail("Of line %d: %s.", line, problem)));
}

/* The key that chains, NULL where there is none; good until the next KeysRefresh. */
const uint8 *
KeysChaining(int *key_id)
{
	*key_id = 0;
	for (int i = 0; chain_keys != NULL && i < chain_keys->n; i++)
	{
		if (chain_keys->key[i].known.status != KEY_ACTIVE)
			continue;
		*key_id = chain_keys->key[i].known.key_id;
		return chain_keys->key[i].seed;
	}
	return NULL;
}

/* The key of a number, NULL where the file has none; good until the next KeysRefresh. */
const uint8 *
KeysOfChain(int key_id, bool *retired)
{
	SecretKey  *key = chain_keys == NULL ? NULL : find_key(chain_keys, key_id);

	*retired = key != NULL && key->known.status == KEY_RETIRED;
	return key == NULL ? NULL : key->seed;
}
