/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of a mem device and the versions of their values. Two ways in: a hash table for single
 * keys, a radix tree for order. Every change has a sequence number; a version is visible to a
 * snapshot taken at S when seq <= S < end_seq. Versions that no snapshot can see leave at once,
 * others hang on the newest snapshot that can.
 */
#ifndef KVASIR_KV_MEM_INDEX_H
#define KVASIR_KV_MEM_INDEX_H

#include "kv/drivers/mem/value.h"

#include "base/art.h"
#include "base/list.h"

struct mem_entry {
    struct mem_entry *hash_next;
    struct mem_value *newest; /* may have been deleted: then older snapshots see it */
    uint32_t hash;
    struct art_key key;
};

struct mem_snap {
    struct list link;
    uint64_t seq;
    struct mem_value *pins; /* versions that no newer snapshot sees */
};

struct mem_index {
    struct slab slab;
    struct art order;
    struct mem_entry **bucket; /* linear hashing: the table grows by one bucket at a time */
    uint64_t nbuckets;
    uint64_t low;              /* power of two, <= nbuckets < 2 * low */
    uint64_t buckets_room;
    uint64_t nentries;
    uint64_t nkeys;            /* visible now */
    uint64_t seq;              /* of the last change */
    struct list snaps;         /* oldest first */
    uint64_t secret[3];        /* of the hash: nobody outside can aim at one bucket */
};

/** `secret`: random. 0, -EINVAL (size), -ENOMEM. */
int mem_index_init(struct mem_index *ix, uint64_t size_bytes, const uint64_t secret[3]);
void mem_index_fini(struct mem_index *ix);

/** The entry of a key, or NULL. */
struct mem_entry *mem_find(struct mem_index *ix, struct bytes key);
/** The same, made when it is not there; without a value it has to be given to mem_entry_tidy(). */
struct mem_entry *mem_find_or_add(struct mem_index *ix, struct bytes key);
/** Frees an entry that has no version left. NULL is fine. */
void mem_entry_tidy(struct mem_index *ix, struct mem_entry *e);

/** The value now, and as a snapshot sees it (NULL: now); NULL: none. */
static inline struct mem_value *mem_live(const struct mem_entry *e)
{
    return e != NULL && e->newest != NULL && e->newest->end_seq == MEM_SEQ_LIVE ? e->newest : NULL;
}
struct mem_value *mem_visible(const struct mem_entry *e, const struct mem_snap *snap);

/** Makes `v` (whose reference it takes) the value of the entry, as change number `seq`. */
void mem_publish(struct mem_index *ix, struct mem_entry *e, struct mem_value *v, uint64_t seq);
/** Deletes the live value. The entry may have no version left: see mem_entry_tidy(). */
void mem_remove(struct mem_index *ix, struct mem_entry *e, uint64_t seq);

/** NULL: no space. */
struct mem_snap *mem_snap_open(struct mem_index *ix);
/** From now on nobody sees through it; what it pins is released by mem_snap_release(). */
void mem_snap_retire(struct mem_index *ix, struct mem_snap *snap);
/** Releases up to `max` versions; true: none is left and the snapshot is freed. */
bool mem_snap_release(struct mem_index *ix, struct mem_snap *snap, unsigned max);

#endif
