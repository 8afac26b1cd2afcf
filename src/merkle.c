/*
 * merkle.c
 *	  Merkle trees over SHA-256 (RFC 6962, 2.1): roots, the path that proves a
 *	  leaf, the path that proves that an older tree is the beginning of a newer
 *	  one, and both verifications (RFC 9162, 2.1.3.2 and 2.1.4.2).  Pure.
 */
#include "merkle.h"

#include "signature.h"

/* Hash two nodes into the one above them. */
static void
merkle_node(const MerkleHash *left, const MerkleHash *right, MerkleHash *node)
{
	uint8		bytes[1 + 2 * MERKLE_HASH_BYTES];

	bytes[0] = 1;
	memcpy(bytes + 1, left->bytes, MERKLE_HASH_BYTES);
	memcpy(bytes + 1 + MERKLE_HASH_BYTES, right->bytes, MERKLE_HASH_BYTES);
	signature_sha256(bytes, sizeof(bytes), node->bytes);
}

/* Hash what a leaf holds. */
void
merkle_leaf(const uint8 *bytes, size_t length, MerkleHash *hash)
{
	uint8	   *tagged = core_alloc(length + 1);

	tagged[0] = 0;
	if (length > 0)
		memcpy(tagged + 1, bytes, length);
	signature_sha256(tagged, length + 1, hash->bytes);
	core_free(tagged);
}

/* The largest power of two below a number above one. */
static int64
split_of(int64 size)
{
	int64		k = 1;

	while (k < size - k)
		k *= 2;
	return k;
}

/* The level of a complete subtree, -1 where the size is no power of two. */
static int
level_of(int64 size)
{
	int			level = 0;

	if ((size & (size - 1)) != 0)
		return -1;
	while (size > 1)
	{
		size >>= 1;
		level++;
	}
	return level;
}

/* The root of the tree over the leaves from start on. */
void
merkle_root(const MerkleTree *tree, int64 start, int64 size, MerkleHash *root)
{
	int			level;
	int64		k;
	MerkleHash	left;
	MerkleHash	right;

	if (size == 0)
	{
		signature_sha256((const uint8 *) "", 0, root->bytes);
		return;
	}
	level = level_of(size);
	if (level >= 0 && start % size == 0 &&
		tree->fetch(tree->source, level, start / size, root))
		return;
	k = split_of(size);
	merkle_root(tree, start, k, &left);
	merkle_root(tree, start + k, size - k, &right);
	merkle_node(&left, &right, root);
}

/* PATH(leaf, D[start:start+size]); returns how many hashes it has. */
static int
append_inclusion(const MerkleTree *tree, int64 leaf, int64 start, int64 size, MerkleHash *path)
{
	int64		k;
	int			n;

	if (size <= 1)
		return 0;
	k = split_of(size);
	if (leaf < k)
	{
		n = append_inclusion(tree, leaf, start, k, path);
		merkle_root(tree, start + k, size - k, &path[n]);
	}
	else
	{
		n = append_inclusion(tree, leaf - k, start + k, size - k, path);
		merkle_root(tree, start, k, &path[n]);
	}
	return n + 1;
}

/* The hashes that lead from a leaf to the root of the first so many leaves. */
int
merkle_inclusion(const MerkleTree *tree, int64 leaf, int64 size, MerkleHash *path)
{
	return append_inclusion(tree, leaf, 0, size, path);
}

/* SUBPROOF(old, D[start:start+size], known) */
static int
append_consistency(const MerkleTree *tree, int64 old_size, int64 start, int64 size, bool known,
				   MerkleHash *path)
{
	int64		k;
	int			n;

	if (old_size == size)
	{
		if (known)
			return 0;
		merkle_root(tree, start, size, &path[0]);
		return 1;
	}
	k = split_of(size);
	if (old_size <= k)
	{
		n = append_consistency(tree, old_size, start, k, known, path);
		merkle_root(tree, start + k, size - k, &path[n]);
	}
	else
	{
		n = append_consistency(tree, old_size - k, start + k, size - k, false, path);
		merkle_root(tree, start, k, &path[n]);
	}
	return n + 1;
}

/* The hashes that prove that the tree of old_size leaves is the beginning of that of size. */
int
merkle_consistency(const MerkleTree *tree, int64 old_size, int64 size, MerkleHash *path)
{
	if (old_size <= 0)
		return 0;
	return append_consistency(tree, old_size, 0, size, true, path);
}

/* Tell whether two hashes are one. */
static bool
is_same(const MerkleHash *a, const MerkleHash *b)
{
	return memcmp(a->bytes, b->bytes, MERKLE_HASH_BYTES) == 0;
}

/* Tell whether a path leads from a leaf's hash to a root. */
bool
merkle_verify_inclusion(const MerkleHash *hash, int64 leaf, int64 size, const MerkleHash *path,
						int n, const MerkleHash *root)
{
	MerkleHash	at = *hash;
	int64		fn = leaf;
	int64		sn;

	if (leaf < 0 || leaf >= size)
		return false;
	sn = size - 1;
	for (int i = 0; i < n; i++)
	{
		if (sn == 0)
			return false;
		if ((fn & 1) == 1 || fn == sn)
		{
			merkle_node(&path[i], &at, &at);
			while ((fn & 1) == 0 && fn != 0)
			{
				fn >>= 1;
				sn >>= 1;
			}
		}
		else
			merkle_node(&at, &path[i], &at);
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0 && is_same(&at, root);
}

/* Tell whether a path proves that the old tree is the beginning of the new one. */
bool
merkle_verify_consistency(int64 old_size, int64 size, const MerkleHash *path, int n,
						  const MerkleHash *old_root, const MerkleHash *root)
{
	int64		fn;
	int64		sn;
	MerkleHash	fr;
	MerkleHash	sr;
	int			i = 0;

	if (old_size < 0 || old_size > size)
		return false;
	if (old_size == size)
		return n == 0 && is_same(old_root, root);
	if (old_size == 0)
		return n == 0;
	fn = old_size - 1;
	sn = size - 1;
	if ((old_size & (old_size - 1)) == 0)
		fr = *old_root;
	else if (n == 0)
		return false;
	else
		fr = path[i++];
	sr = fr;
	while ((fn & 1) == 1)
	{
		fn >>= 1;
		sn >>= 1;
	}
	for (; i < n; i++)
	{
		if (sn == 0)
			return false;
		if ((fn & 1) == 1 || fn == sn)
		{
			merkle_node(&path[i], &fr, &fr);
			merkle_node(&path[i], &sr, &sr);
			while ((fn & 1) == 0 && fn != 0)
			{
				fn >>= 1;
				sn >>= 1;
			}
		}
		else
			merkle_node(&sr, &path[i], &sr);
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0 && is_same(&fr, old_root) && is_same(&sr, root);
}
