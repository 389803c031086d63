/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring holds objects from `tail` (oldest) to `head`, each behind its own head, never across the
 * end of the ring. Offsets count UNITs and only grow; their place is the offset modulo the ring.
 * Chains by sector find them: all that begin in one sector are in one chain.
 */
#include "kv/drivers/blobkv/cache.h"

#include "base/map.h"
#include "base/must.h"
#include "base/util.h"

#include <assert.h>
#include <sys/mman.h>

#define UNIT 16u
#define BUDGET_MIN (256 * KIB)
#define SECOND_CHANCES_MAX 16 /* per put: then even what was used goes */

struct obj {
    uint64_t addr;  /* NONE: filler or forgotten */
    uint32_t next;  /* in the chain: place in units + 1 */
    uint32_t len;   /* of the data that follows */
    uint32_t units; /* head, data, padding */
    uint32_t used;  /* since it came, or since the hand passed */
    uint8_t data[];
};
#define NONE UINT64_MAX
static_assert(sizeof(struct obj) % UNIT == 8, "data of records stays aligned to 8");

struct bkv_cache {
    uint8_t *ring;
    uint32_t *chain; /* place in units + 1 */
    uint64_t ring_units, nchains;
    uint64_t head, tail; /* offsets in units */
    uint64_t top_units;  /* how far the ring has been touched */
};

struct bkv_cache *bkv_cache_new(uint64_t budget_bytes)
{
    struct bkv_cache *c = calloc(1, sizeof(*c));
    uint64_t bytes = MIN(budget_bytes, UINT32_MAX * 8ull);

    if (c == NULL || bytes < BUDGET_MIN)
        return c;
    /* One chain for 128 to 256 bytes of ring. */
    c->nchains = 512;
    while (c->nchains * 256 < bytes)
        c->nchains *= 2;
    c->ring_units = (bytes - c->nchains * sizeof(*c->chain)) / UNIT;
    c->ring = mmap(NULL, c->ring_units * UNIT, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    c->chain = mmap(NULL, c->nchains * sizeof(*c->chain), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->ring == MAP_FAILED || c->chain == MAP_FAILED) {
        c->ring = c->ring == MAP_FAILED ? NULL : c->ring;
        c->chain = c->chain == MAP_FAILED ? NULL : c->chain;
        bkv_cache_free(c);
        return NULL;
    }
    return c;
}

void bkv_cache_free(struct bkv_cache *c)
{
    if (c == NULL)
        return;
    if (c->ring != NULL)
        (void)munmap(c->ring, c->ring_units * UNIT);
    if (c->chain != NULL)
        (void)munmap(c->chain, c->nchains * sizeof(*c->chain));
    free(c);
}

static struct obj *obj_at(const struct bkv_cache *c, uint64_t off)
{
    return (struct obj *)(c->ring + off % c->ring_units * UNIT);
}

static uint32_t *chain_of(const struct bkv_cache *c, uint64_t addr)
{
    return &c->chain[hash_u64(addr / 512) & (c->nchains - 1)];
}

static struct obj *chain_first(const struct bkv_cache *c, uint64_t addr)
{
    uint32_t at = *chain_of(c, addr);

    return at == 0 ? NULL : obj_at(c, at - 1);
}

static struct obj *chain_next(const struct bkv_cache *c, const struct obj *o)
{
    return o->next == 0 ? NULL : obj_at(c, o->next - 1);
}

static void link_obj(struct bkv_cache *c, struct obj *o)
{
    uint32_t *chain = chain_of(c, o->addr);

    o->next = *chain;
    *chain = (uint32_t)(((uint8_t *)o - c->ring) / UNIT) + 1;
}

static void unlink_obj(struct bkv_cache *c, struct obj *o)
{
    uint32_t place = (uint32_t)(((uint8_t *)o - c->ring) / UNIT) + 1;
    uint32_t *at = chain_of(c, o->addr);

    while (*at != place) {
        must(*at != 0);
        at = &obj_at(c, *at - 1)->next;
    }
    *at = o->next;
    o->addr = NONE;
}

static struct obj *find(const struct bkv_cache *c, uint64_t addr)
{
    struct obj *o = NULL;

    if (c->ring != NULL)
        o = chain_first(c, addr);
    while (o != NULL && o->addr != addr)
        o = chain_next(c, o);
    return o;
}

struct bytes bkv_cache_get(struct bkv_cache *c, uint64_t addr)
{
    struct obj *o = find(c, addr);

    if (o == NULL)
        return (struct bytes){0};
    o->used = 1;
    return bytes_make(o->data, o->len);
}

struct bytes bkv_cache_get_in(struct bkv_cache *c, uint64_t sector_addr, uint32_t sector_bytes,
                              bool (*match)(void *arg, uint64_t addr, struct bytes obj), void *arg)
{
    if (c->ring == NULL)
        return (struct bytes){0};
    for (uint64_t at = sector_addr; at < sector_addr + sector_bytes; at += 512 - at % 512) {
        for (struct obj *o = chain_first(c, at); o != NULL; o = chain_next(c, o)) {
            struct bytes data = bytes_make(o->data, o->len);

            if (o->addr >= sector_addr && o->addr - sector_addr < sector_bytes &&
                match(arg, o->addr, data)) {
                o->used = 1;
                return data;
            }
        }
    }
    return (struct bytes){0};
}

/* A filler up to the end of the ring: nothing lies across it. */
static void fill_up(struct bkv_cache *c, uint64_t units)
{
    /* A gap can be smaller than a head: the hand knows by position, see pop_tail(). */
    if (units * UNIT >= sizeof(struct obj))
        *obj_at(c, c->head) = (struct obj){.addr = NONE, .units = (uint32_t)units};
    c->head += units;
}

static uint64_t units_to_end(const struct bkv_cache *c, uint64_t off)
{
    return c->ring_units - off % c->ring_units;
}

/* Takes the oldest object out. With `again`, one that was used goes to the front instead, if it
 * fits there before the end of the ring. True when it did. */
static bool pop_tail(struct bkv_cache *c, bool again)
{
    uint64_t left = units_to_end(c, c->tail);
    struct obj *o = obj_at(c, c->tail);
    struct obj *to;
    uint32_t units, bytes;
    uint64_t addr;

    if (left * UNIT < sizeof(struct obj)) {
        c->tail += left;
        return false;
    }
    units = o->units;
    must(units > 0);
    must(units <= left);
    addr = o->addr;
    c->tail += units;
    if (addr == NONE)
        return false;
    unlink_obj(c, o);
    if (!again || o->used == 0 || units_to_end(c, c->head) < units)
        return false;
    bytes = (uint32_t)(sizeof(*o) + o->len);
    to = obj_at(c, c->head);
    memmove(to, o, bytes); /* they may overlap: what is free may be less than its size */
    to->addr = addr;
    to->used = 0;
    c->head += units;
    link_obj(c, to);
    return true;
}

/* Room for `units` at the head, before the end of the ring. */
static void make_room(struct bkv_cache *c, uint64_t units)
{
    unsigned chances = SECOND_CHANCES_MAX;

    for (;;) {
        uint64_t end = units_to_end(c, c->head);
        uint64_t need = end < units ? end : units;

        if (c->ring_units - (c->head - c->tail) >= need) {
            if (end >= units)
                return;
            fill_up(c, end);
            continue;
        }
        if (pop_tail(c, chances > 0))
            chances--;
    }
}

void bkv_cache_put(struct bkv_cache *c, uint64_t addr, struct bytes data)
{
    uint32_t units = (uint32_t)((sizeof(struct obj) + data.len + UNIT - 1) / UNIT);
    struct obj *o;

    if (c->ring == NULL || data.len > BKV_CACHE_OBJ_MAX)
        return;
    bkv_cache_del(c, addr);
    make_room(c, units);
    o = obj_at(c, c->head);
    *o = (struct obj){.addr = addr, .len = (uint32_t)data.len, .units = units};
    memcpy(o->data, data.ptr, data.len);
    link_obj(c, o);
    c->head += units;
    c->top_units = MAX(c->top_units, MIN(c->head, c->ring_units));
}

void bkv_cache_del(struct bkv_cache *c, uint64_t addr)
{
    struct obj *o = find(c, addr);

    if (o != NULL)
        unlink_obj(c, o);
}

static void drop_sector(struct bkv_cache *c, uint64_t sector, uint64_t from, uint64_t to)
{
    struct obj *o = chain_first(c, sector);

    while (o != NULL) {
        struct obj *next = chain_next(c, o);

        if (o->addr >= from && o->addr < to)
            unlink_obj(c, o);
        o = next;
    }
}

void bkv_cache_drop(struct bkv_cache *c, uint64_t addr, uint64_t len)
{
    if (c->ring == NULL || len == 0)
        return;
    for (uint64_t at = addr; at < addr + len; at += 512 - at % 512)
        drop_sector(c, at, addr, addr + len);
}

uint64_t bkv_cache_bytes(const struct bkv_cache *c)
{
    return c->top_units * UNIT + (c->ring == NULL ? 0 : c->nchains * sizeof(*c->chain));
}
