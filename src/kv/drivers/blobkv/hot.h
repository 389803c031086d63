/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The location table: 8 bytes a key that say in which sector the key's record begins and about how
 * long it is, found by hash, without the key. It is a cache with one promise (decisions/0009, rule
 * 3): when the record it names is of the key that was asked for, it is the current version.
 *
 * Buckets of 16 slots (two cache lines); a full one spills into the next. The table grows by a
 * sixteenth at a time, some buckets with each new key, up to its limit; there a full bucket
 * forgets a slot. hot.c tells how.
 */
#ifndef KVASIR_KV_BLOBKV_HOT_H
#define KVASIR_KV_BLOBKV_HOT_H

#include "base/util.h"

struct bkv_hot;

/** `max_bytes`: the limit of memory; reserved, not committed. With less than 256 it holds nothing.
 * NULL: no address space. */
struct bkv_hot *bkv_hot_new(uint64_t max_bytes);
void bkv_hot_free(struct bkv_hot *h);
/** So many keys may come to an empty table: it begins with the size it would grow to. */
void bkv_hot_expect(struct bkv_hot *h, uint64_t nkeys);

/** Up to `max` candidates, newest first: sector addresses and how many bytes to read from there.
 * Returns how many. */
struct bkv_hot_hit {
    uint64_t addr;      /* of the sector, a multiple of 512 */
    uint32_t read_bytes; /* a multiple of 512 that holds the record unless it says otherwise */
};
unsigned bkv_hot_find(const struct bkv_hot *h, uint64_t hash, struct bkv_hot_hit *out,
                      unsigned max);

/** The key of `hash` is now at addr: what could be an older place of it is forgotten. A place that
 * cannot be told (above 2 TiB) is only forgotten. */
void bkv_hot_set(struct bkv_hot *h, uint64_t hash, uint64_t addr, uint32_t rec_len);
/** The key is no more. */
void bkv_hot_del(struct bkv_hot *h, uint64_t hash);
/** A record has moved: only a slot that names `from` is changed. */
void bkv_hot_move(struct bkv_hot *h, uint64_t hash, uint64_t from, uint64_t to, uint32_t rec_len);
/** Learned by reading the index: adds the place unless the table has a candidate for this hash. */
void bkv_hot_learn(struct bkv_hot *h, uint64_t hash, uint64_t addr, uint32_t rec_len);
/** Memory in use, and slots that name a place. */
uint64_t bkv_hot_bytes(const struct bkv_hot *h);
uint64_t bkv_hot_count(const struct bkv_hot *h);

#endif
