/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fences: what the tree keeps in memory of each leaf: address, checksum, and a separator, which is
 * above all keys of the leaf before and not above any of its own, and as short as that allows.
 * They lie in blocks of up to BKV_FENCES_MAX leaves that never change and are counted, so that
 * trees share what is the same in them. About 20 bytes a leaf.
 */
#ifndef KVASIR_KV_BLOBKV_FENCE_H
#define KVASIR_KV_BLOBKV_FENCE_H

#include "kv/drivers/blobkv/tree.h"

#define BKV_FENCES_MAX 64u

struct bkv_fence_slot {
    uint32_t addr_low;
    uint16_t addr_high;
    uint16_t key_end; /* of what follows the prefix, in the block's key bytes */
    uint32_t crc;
};

struct bkv_fences {
    uint32_t refs;
    uint32_t bytes; /* of this block */
    uint16_t n;
    uint16_t prefix_len; /* what all separators share; these bytes come first */
    struct bkv_fence_slot slot[];
};

struct bkv_tree {
    struct bkv_tree_io *io;
    uint32_t refs;
    uint64_t number;  /* one more for each merge */
    uint64_t nkeys;
    uint64_t nleaves;
    uint64_t bytes;
    uint32_t nblocks;
    struct bkv_fences **block;
    uint64_t *first; /* leaves before each block; one more at the end */
};

/** Where a leaf's fence is. */
struct bkv_fence_pos {
    uint32_t block;
    uint32_t idx;
};

static inline uint64_t bkv_fence_addr(const struct bkv_fence_slot *s)
{
    return (uint64_t)s->addr_high << 32 | s->addr_low;
}
static inline const struct bkv_fence_slot *bkv_fence_at(const struct bkv_tree *tree,
                                                        struct bkv_fence_pos pos)
{
    return &tree->block[pos.block]->slot[pos.idx];
}
static inline uint64_t bkv_fence_leaf(const struct bkv_tree *tree, struct bkv_fence_pos pos)
{
    return tree->first[pos.block] + pos.idx;
}
/** False at the end. */
static inline bool bkv_fence_next(const struct bkv_tree *tree, struct bkv_fence_pos *pos)
{
    if (++pos->idx < tree->block[pos->block]->n)
        return true;
    pos->idx = 0;
    return ++pos->block < tree->nblocks;
}
/** Leaf i < nleaves. */
struct bkv_fence_pos bkv_fence_pos(const struct bkv_tree *tree, uint64_t leaf);
/** The leaf that would have the key; the tree has leaves. */
struct bkv_fence_pos bkv_fence_find(const struct bkv_tree *tree, struct bytes key);
/** A separator's length, and byte i of it. */
static inline uint32_t bkv_fence_key_len(const struct bkv_fences *b, uint32_t idx)
{
    uint32_t from = idx == 0 ? b->prefix_len : b->slot[idx - 1].key_end;

    return b->prefix_len + b->slot[idx].key_end - from;
}
static inline uint8_t bkv_fence_key_byte(const struct bkv_fences *b, uint32_t idx, uint32_t i)
{
    const uint8_t *bytes = (const uint8_t *)&b->slot[b->n];
    uint32_t from = idx == 0 ? b->prefix_len : b->slot[idx - 1].key_end;

    return i < b->prefix_len ? bytes[i] : bytes[from + i - b->prefix_len];
}
/** Copies a separator to `out` (BKV_KEY_MAX bytes); its length. */
uint32_t bkv_fence_key(const struct bkv_fences *b, uint32_t idx, uint8_t *out);

/** Collects the fences of a new tree, in order. Big: never on a stack. */
struct bkv_fence_build {
    struct bkv_fences **block;
    uint32_t nblocks, max_blocks;
    uint32_t n; /* in the block that is being made */
    uint32_t key_bytes;
    struct bkv_fence_slot slot[BKV_FENCES_MAX]; /* key_end: in key[] */
    uint8_t key[49152];
};
/** 0 or -ENOMEM. */
int bkv_fence_add(struct bkv_fence_build *b, struct bytes key, uint64_t addr, uint32_t crc);
/** Leaves [from, to) of another tree: whole blocks are shared where that leaves no small ones. */
int bkv_fence_add_range(struct bkv_fence_build *b, const struct bkv_tree *tree, uint64_t from,
                        uint64_t to, uint8_t *key_buf);
/** The tree of what was collected, or NULL: no memory. Either way nothing is collected any more. */
struct bkv_tree *bkv_fence_tree(struct bkv_fence_build *b, struct bkv_tree_io *io);
void bkv_fence_discard(struct bkv_fence_build *b);

/** A leaf that is wanted, and where it is then. */
struct bkv_leaf_ref {
    struct bkv_fence_pos pos;
    uint8_t *page;
    bool cached; /* it came from the cache */
};
/**
 * Leaves, from the cache or, all that are missing at once, from the device, checked; in `pages` (n
 * pages, 4096-aligned), in any order. `keep`: those read go to the cache. `scratch`: as for
 * bkv_leaf_open(). With t NULL it does not read: -EAGAIN.
 */
#define BKV_LEAVES_MAX 32u
int bkv_tree_read_leaves(struct rt_task *t, struct bkv_tree *tree, struct bkv_leaf_ref *ref,
                         unsigned n, uint8_t *pages, uint8_t *scratch, bool keep);

#endif
