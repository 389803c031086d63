/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The changes since the last checkpoint, in key order: for each key its newest place, or that it
 * was deleted. An adaptive radix tree (base/art.h) over entries that are packed one after the
 * other: none is taken out before all are. It cannot grow past its budget. Applying a durable
 * change must not fail: room is reserved before the change is written.
 */
#ifndef KVASIR_KV_BLOBKV_MEMTAB_H
#define KVASIR_KV_BLOBKV_MEMTAB_H

#include "kv/drivers/blobkv/place.h"

#include "base/art.h"

struct bkv_mem_entry {
    struct bkv_place place;
    struct art_key key; /* last */
};

struct bkv_memtab;

/** The budget is at least 1 MiB, whatever is asked for; reserved, not committed. NULL: no address
 * space. */
struct bkv_memtab *bkv_memtab_new(uint64_t budget_bytes);
void bkv_memtab_free(struct bkv_memtab *m);
/** Empties it and gives the memory back. Nothing is reserved then. */
void bkv_memtab_reset(struct bkv_memtab *m);

/** Sets memory aside for a key of this length; false: there is none, checkpoint first. Each reserve
 * is used up by one put, or given back. */
bool bkv_memtab_reserve(struct bkv_memtab *m, uint32_t key_len);
void bkv_memtab_unreserve(struct bkv_memtab *m, uint32_t key_len);
/** Sets the key's place, out of a reserve. True when there was an entry: *out_old (may be NULL).
 * Entries stay where they are until the reset, their places change. */
bool bkv_memtab_put(struct bkv_memtab *m, struct bytes key, const struct bkv_place *place,
                    struct bkv_place *out_old);
const struct bkv_mem_entry *bkv_memtab_find(const struct bkv_memtab *m, struct bytes key);
/** The first entry >= key (after: > key), NULL at the end. */
const struct bkv_mem_entry *bkv_memtab_seek(const struct bkv_memtab *m, struct bytes key,
                                            bool after);
uint64_t bkv_memtab_count(const struct bkv_memtab *m);
/** A number that is another one after each new key and each reset: what was found by seek may have
 * a new neighbour. */
uint64_t bkv_memtab_changes(const struct bkv_memtab *m);
uint64_t bkv_memtab_bytes(const struct bkv_memtab *m); /* used and reserved */
/** How full it is, 0 to 1: a checkpoint is due at about 0.75. */
double bkv_memtab_share(const struct bkv_memtab *m);

#endif
