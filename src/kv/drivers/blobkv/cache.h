/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has been read and checked, by address: records (up to BKV_CACHE_OBJ_MAX bytes) and leaves.
 * Memory is a budget that may become less and more: objects lie in the order they came, so that
 * little space is lost between sizes. Where a new one needs room, the oldest go; what was used
 * since stays once more (CLOCK). Objects are whole and verified; nobody else changes them. For one
 * reactor; what is returned is good until the next call.
 */
#ifndef KVASIR_KV_BLOBKV_CACHE_H
#define KVASIR_KV_BLOBKV_CACHE_H

#include "base/bytes.h"

#define BKV_CACHE_OBJ_MAX 40960u

struct bkv_cache;

/** Reserved, not committed. Below 512 KiB it holds nothing. NULL: no address space. */
struct bkv_cache *bkv_cache_new(uint64_t budget_bytes);
/** How much of the budget it may use from now on; what is above goes at once, but for 256 KiB. */
void bkv_cache_limit(struct bkv_cache *c, uint64_t bytes);
void bkv_cache_free(struct bkv_cache *c);
/** Empty when it is not there. */
struct bytes bkv_cache_get(struct bkv_cache *c, uint64_t addr);
/** The object that begins within one sector (or several: what the location table finds) and that
 * `match` accepts. */
struct bytes bkv_cache_get_in(struct bkv_cache *c, uint64_t sector_addr, uint32_t sector_bytes,
                              bool (*match)(void *arg, uint64_t addr, struct bytes obj), void *arg);
/** Takes a copy; may push others out, or be refused (nothing happens). */
void bkv_cache_put(struct bkv_cache *c, uint64_t addr, struct bytes obj);
void bkv_cache_del(struct bkv_cache *c, uint64_t addr);
/** Forgets everything in [addr, addr + len): the segment begins a new life. */
void bkv_cache_drop(struct bkv_cache *c, uint64_t addr, uint64_t len);
/** Memory in use: what has been touched so far. */
uint64_t bkv_cache_bytes(const struct bkv_cache *c);

#endif
