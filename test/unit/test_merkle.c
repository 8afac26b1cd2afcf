/*
 * test_merkle.c
 *	  Merkle trees, without a server: the roots and paths that Certificate
 *	  Transparency's own tests have, and every tree of up to 70 leaves.
 */
#include <stdio.h>

#include "merkle.h"

#define MOST 70

static int	passed = 0;
static int	failed = 0;

#define CHECK(condition) \
	do { \
		if (condition) \
			passed++; \
		else \
		{ \
			failed++; \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
		} \
	} while (0)

/* what the eight leaves of the known tree hold, and the roots of its first 1 to 8 */
static const char *const inputs[] = {
	"", "00", "10", "2021", "3031", "40414243", "5051525354555657",
	"606162636465666768696a6b6c6d6e6f"
};
static const char *const roots[] = {
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
	"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
	"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
	"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
	"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
	"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
	"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
	"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
};

/* Bytes of hexadecimal digits; returns how many. */
static size_t
unhex(const char *hex, uint8 *bytes)
{
	size_t		n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++)
	{
		unsigned int byte;

		sscanf(hex + 2 * i, "%2x", &byte);
		bytes[i] = (uint8) byte;
	}
	return n;
}

/* Tell whether a hash has these digits. */
static bool
has_digits(const MerkleHash *hash, const char *hex)
{
	uint8		bytes[MERKLE_HASH_BYTES];

	return unhex(hex, bytes) == MERKLE_HASH_BYTES && memcmp(bytes, hash->bytes, sizeof(bytes)) == 0;
}

/* A tree that keeps its leaves alone. */
static bool
fetch_leaf(void *source, int level, int64 number, MerkleHash *hash)
{
	if (level == 0)
		*hash = ((MerkleHash *) source)[number];
	return level == 0;
}

/* One that keeps the nodes of level 3 as well. */
static bool
fetch_kept(void *source, int level, int64 number, MerkleHash *hash)
{
	MerkleTree	below = {source, fetch_leaf};

	if (level == 3)
		merkle_root(&below, number * 8, 8, hash);
	return level == 3 || fetch_leaf(source, level, number, hash);
}

/* The known tree. */
static void
test_known(void)
{
	MerkleHash	leaves[8];
	MerkleTree	tree = {leaves, fetch_leaf};
	MerkleHash	path[MERKLE_MAX_PATH];
	MerkleHash	root;

	for (int i = 0; i < 8; i++)
	{
		uint8		bytes[16];

		merkle_leaf(bytes, unhex(inputs[i], bytes), &leaves[i]);
	}
	for (int i = 0; i <= 8; i++)
	{
		merkle_root(&tree, 0, i, &root);
		CHECK(has_digits(&root, roots[i]));
	}
	CHECK(merkle_inclusion(&tree, 5, 8, path) == 3);
	CHECK(has_digits(&path[0], "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"));
	CHECK(has_digits(&path[1], "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"));
	CHECK(has_digits(&path[2], "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"));
	CHECK(merkle_inclusion(&tree, 2, 3, path) == 1);
	CHECK(has_digits(&path[0], "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"));
	CHECK(merkle_consistency(&tree, 6, 8, path) == 3);
	CHECK(has_digits(&path[0], "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"));
	CHECK(has_digits(&path[1], "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"));
	CHECK(has_digits(&path[2], "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"));
}

/* Every leaf of every tree is proven, and by no path but its own. */
static void
test_inclusion(const MerkleTree *tree, const MerkleHash *leaves)
{
	MerkleHash	path[MERKLE_MAX_PATH];
	MerkleHash	root;

	for (int size = 1; size <= MOST; size++)
	{
		merkle_root(tree, 0, size, &root);
		for (int leaf = 0; leaf < size; leaf++)
		{
			int			n = merkle_inclusion(tree, leaf, size, path);

			CHECK(merkle_verify_inclusion(&leaves[leaf], leaf, size, path, n, &root));
			CHECK(!merkle_verify_inclusion(&leaves[(leaf + 1) % (MOST + 1)], leaf, size, path, n, &root));
			CHECK(!merkle_verify_inclusion(&leaves[leaf], size, size, path, n, &root));
			CHECK(n == 0 || !merkle_verify_inclusion(&leaves[leaf], leaf, size, path, n - 1, &root));
			for (int i = 0; i < n; i++)
			{
				path[i].bytes[i % 32] ^= 1;
				CHECK(!merkle_verify_inclusion(&leaves[leaf], leaf, size, path, n, &root));
				path[i].bytes[i % 32] ^= 1;
			}
		}
	}
}

/* Every tree is proven to be the beginning of every larger one, and no other is. */
static void
test_consistency(const MerkleTree *tree)
{
	MerkleHash	path[MERKLE_MAX_PATH];
	MerkleHash	root;
	MerkleHash	old_root;

	for (int size = 1; size <= MOST; size++)
	{
		merkle_root(tree, 0, size, &root);
		for (int old = 1; old <= size; old++)
		{
			int			n = merkle_consistency(tree, old, size, path);

			merkle_root(tree, 0, old, &old_root);
			CHECK(merkle_verify_consistency(old, size, path, n, &old_root, &root));
			CHECK(old == size || !merkle_verify_consistency(old, size, path, n - 1, &old_root, &root));
			CHECK(!merkle_verify_consistency(size + 1, size, path, n, &old_root, &root));
			old_root.bytes[7] ^= 1;
			CHECK(!merkle_verify_consistency(old, size, path, n, &old_root, &root));
			old_root.bytes[7] ^= 1;
			for (int i = 0; i < n; i++)
			{
				path[i].bytes[i % 32] ^= 1;
				CHECK(!merkle_verify_consistency(old, size, path, n, &old_root, &root));
				path[i].bytes[i % 32] ^= 1;
			}
		}
	}
}

int
main(void)
{
	MerkleHash	leaves[MOST + 1];
	MerkleTree	plain = {leaves, fetch_leaf};
	MerkleTree	kept = {leaves, fetch_kept};

	for (int i = 0; i <= MOST; i++)
	{
		uint8		byte = (uint8) i;

		merkle_leaf(&byte, 1, &leaves[i]);
	}
	test_known();
	test_inclusion(&plain, leaves);
	test_inclusion(&kept, leaves);
	test_consistency(&plain);
	test_consistency(&kept);
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
