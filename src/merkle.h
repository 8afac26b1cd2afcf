/*
 * merkle.h
 *	  Merkle trees as RFC 6962 (2.1) says.  Pure.
 */
#ifndef LOYALTY_MERKLE_H
#define LOYALTY_MERKLE_H

#include "core.h"

#define MERKLE_HASH_BYTES 32
#define MERKLE_MAX_PATH 128		/* of a tree of fewer than 2^63 leaves */

typedef struct MerkleHash
{
	uint8		bytes[MERKLE_HASH_BYTES];
} MerkleHash;

/*
 * Where hashes come from.  fetch gives the root of the complete subtree of
 * 2^level leaves that has this number among those of its level, or tells that
 * it is not kept; those of level 0, the leaves, always are.
 */
typedef struct MerkleTree
{
	void	   *source;
	bool		(*fetch) (void *source, int level, int64 number, MerkleHash *hash);
} MerkleTree;

extern void merkle_leaf(const uint8 *bytes, size_t length, MerkleHash *hash);
extern void merkle_root(const MerkleTree *tree, int64 start, int64 size, MerkleHash *root);
extern int	merkle_inclusion(const MerkleTree *tree, int64 leaf, int64 size, MerkleHash *path);
extern int	merkle_consistency(const MerkleTree *tree, int64 old_size, int64 size, MerkleHash *path);
extern bool merkle_verify_inclusion(const MerkleHash *hash, int64 leaf, int64 size,
									const MerkleHash *path, int n, const MerkleHash *root);
extern bool merkle_verify_consistency(int64 old_size, int64 size, const MerkleHash *path, int n,
									  const MerkleHash *old_root, const MerkleHash *root);

#endif							/* LOYALTY_MERKLE_H */
