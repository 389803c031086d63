/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive hash map from a 64-bit hash to nodes, chained, growing by doubling. The caller embeds
 * map_node, computes the hash (hash_bytes() for keys that come from outside: seeded, so that a
 * client cannot aim at one bucket) and compares keys itself.
 */
#ifndef KVASIR_BASE_MAP_H
#define KVASIR_BASE_MAP_H

#include "base/bytes.h"

struct map_node {
    struct map_node *next;
    uint64_t hash;
};

struct map {
    struct map_node **bucket;
    size_t mask; /* buckets - 1 */
    size_t count;
};

/** Returns 0 or -ENOMEM. `hint` is the number of nodes expected. */
int map_init(struct map *m, size_t hint);
/** Frees the buckets; the nodes are the caller's. */
void map_fini(struct map *m);

/** Adds a node. Never fails: when the table cannot grow, chains do. */
void map_add(struct map *m, struct map_node *node, uint64_t hash);
/** Takes a node that is in the map out of it. */
void map_del(struct map *m, struct map_node *node);

/** The first node of this hash, and the next one after `node`; NULL when there is none. */
struct map_node *map_first(const struct map *m, uint64_t hash);
struct map_node *map_next(const struct map_node *node);

/** SipHash-1-3 under a seed of this process (hash_seed), which sim sets to its own. */
uint64_t hash_bytes(struct bytes b);
void hash_seed(uint64_t k0, uint64_t k1);
/** The same under a key of the caller's: for hashes that outlive the process. */
uint64_t hash_bytes_keyed(uint64_t k0, uint64_t k1, struct bytes b);

/** Mixes a number into a hash; not keyed. */
static inline uint64_t hash_u64(uint64_t v)
{
    v ^= v >> 32;
    v *= 0xd6e8feb86659fd93ull;
    v ^= v >> 32;
    v *= 0xd6e8feb86659fd93ull;
    return v ^ v >> 32;
}

#endif
