/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ordered set of byte strings: an adaptive radix tree (Leis, Kemper, Neumann 2013). Keys of any
 * length from 1 to 65535 and of any bytes, also prefixes of each other; order is that of
 * bytes_cmp(). A step costs one node per byte that tells keys apart, so 16-byte keys take three to
 * five nodes among millions. There are no iterators: art_seek() from the last key is as fast, and
 * stays right whatever was added or taken away in between.
 *
 * The caller embeds struct art_key as the last member of its own object and owns that memory;
 * inner nodes come from a slab. For one thread.
 */
#ifndef KVASIR_BASE_ART_H
#define KVASIR_BASE_ART_H

#include "base/bytes.h"
#include "base/slab.h"

struct art_key {
    uint16_t len;
    uint8_t bytes[];
};

static inline struct bytes art_key_bytes(const struct art_key *k)
{
    return bytes_make(k->bytes, k->len);
}

struct art {
    struct slab *slab;
    void *root;
    uint64_t count;
    uint32_t nodes[4]; /* inner nodes, by size */
};

void art_init(struct art *a, struct slab *slab);

/** Adds a key. 0; -EEXIST it is there; -ENOMEM the slab is full. Unchanged on failure. */
int art_add(struct art *a, struct art_key *k);
/** Takes a key that is in the set out of it. Never fails. */
void art_del(struct art *a, struct art_key *k);
/** How many spans the next `adds` calls of art_add() take from the slab at most, when nobody else
 * uses it and nothing is taken out: for those that must not fail later. */
uint64_t art_spans_worst(const struct art *a, uint64_t adds);
/** The key itself, or NULL. */
struct art_key *art_find(const struct art *a, struct bytes key);
/** The smallest key >= `key` (with `after`: > `key`), or NULL. An empty `key` is before all. */
struct art_key *art_seek(const struct art *a, struct bytes key, bool after);
/** The largest key, or NULL. */
struct art_key *art_last(const struct art *a);

#endif
