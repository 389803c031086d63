/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects lie in chunks, one behind the other as they came, each behind its own head. Chunks stand
 * in a queue: the last one is being filled, and when it is full and no other may have memory, the
 * first one is emptied. What was used there since it came goes once more to the end. So that this
 * has a place, one chunk is kept empty. Chains by sector find objects.
 */
#include "kv/drivers/blobkv/cache.h"

#include "base/map.h"
#include "base/must.h"
#include "base/util.h"

#include <assert.h>
#include <sys/mman.h>

#define UNIT 16u
#define BUDGET_MIN (512 * KIB)
#define CHUNK_BYTES (128 * KIB)
#define CHUNK_UNITS ((uint32_t)(CHUNK_BYTES / UNIT))

struct obj {
    uint64_t addr;  /* NONE: forgotten */
    uint32_t next;  /* in the chain: place in units + 1 */
    uint32_t len;   /* of the data that follows */
    uint32_t units; /* head, data, padding */
    uint32_t used;  /* since it came, or since the hand passed */
    uint8_t data[];
};
#define NONE UINT64_MAX
static_assert(sizeof(struct obj) % UNIT == 8, "data of records stays aligned to 8");

#define UNITS_OF(len) ((uint32_t)((sizeof(struct obj) + (len) + UNIT - 1) / UNIT))
/* So much of a chunk that is emptied may stay: then there is room for the object that comes. */
#define KEPT_UNITS_MAX (CHUNK_UNITS - UNITS_OF(BKV_CACHE_OBJ_MAX))

struct bkv_cache {
    uint8_t *memory; /* NULL: holds nothing */
    uint32_t *chain; /* place in units + 1 */
    uint64_t nchains;
    uint32_t nchunks;     /* that there is address space for */
    uint32_t nchunks_max; /* that may have memory, 2 at least */
    uint32_t *queue;      /* of chunks, round */
    uint32_t first, nqueue;
    uint32_t *cold; /* chunks without memory */
    uint32_t ncold;
    uint32_t *filled; /* units, by chunk */
    uint32_t spare;   /* an empty chunk with memory; nchunks: none */
};

static uint64_t chains_bytes(const struct bkv_cache *c)
{
    return c->nchains * sizeof(*c->chain);
}

static void *reserve(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

struct bkv_cache *bkv_cache_new(uint64_t budget_bytes)
{
    struct bkv_cache *c = calloc(1, sizeof(*c));
    uint64_t bytes = MIN(budget_bytes, UINT32_MAX * 8ull);

    if (c == NULL || bytes < BUDGET_MIN)
        return c;
    /* One chain for 128 to 256 bytes. */
    c->nchains = 512;
    while (c->nchains * 256 < bytes)
        c->nchains *= 2;
    c->nchunks = (uint32_t)((bytes - chains_bytes(c)) / CHUNK_BYTES);
    c->nchunks_max = c->spare = c->nchunks;
    c->memory = reserve(c->nchunks * CHUNK_BYTES);
    c->chain = reserve(chains_bytes(c));
    c->queue = malloc(3 * c->nchunks * sizeof(*c->queue));
    if (c->memory == NULL || c->chain == NULL || c->queue == NULL) {
        bkv_cache_free(c);
        return NULL;
    }
    c->cold = c->queue + c->nchunks;
    c->filled = c->cold + c->nchunks;
    while (c->ncold < c->nchunks) {
        c->cold[c->ncold] = c->nchunks - 1 - c->ncold;
        c->ncold++;
    }
    return c;
}

void bkv_cache_free(struct bkv_cache *c)
{
    if (c == NULL)
        return;
    if (c->memory != NULL)
        (void)munmap(c->memory, c->nchunks * CHUNK_BYTES);
    if (c->chain != NULL)
        (void)munmap(c->chain, chains_bytes(c));
    free(c->queue);
    free(c);
}

static struct obj *obj_at(const struct bkv_cache *c, uint64_t place)
{
    return (struct obj *)(c->memory + place * UNIT);
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
    *chain = (uint32_t)(((uint8_t *)o - c->memory) / UNIT) + 1;
}

static void unlink_obj(struct bkv_cache *c, struct obj *o)
{
    uint32_t place = (uint32_t)(((uint8_t *)o - c->memory) / UNIT) + 1;
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

    if (c->memory != NULL)
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
    if (c->memory == NULL)
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

/* --- chunks ----------------------------------------------------------------------------------- */

static uint32_t last_chunk(const struct bkv_cache *c)
{
    return c->queue[(c->first + c->nqueue - 1) % c->nchunks];
}

/* Room in the chunk that is being filled; NULL: there is none. */
static struct obj *take(struct bkv_cache *c, uint32_t units)
{
    uint32_t chunk, at;

    if (c->nqueue == 0)
        return NULL;
    chunk = last_chunk(c);
    at = c->filled[chunk];
    if (CHUNK_UNITS - at < units)
        return NULL;
    c->filled[chunk] += units;
    return obj_at(c, (uint64_t)chunk * CHUNK_UNITS + at);
}

/* Empties the first chunk of the queue. What was used goes to the end, up to `keep` units. */
static uint32_t empty_first(struct bkv_cache *c, uint32_t keep)
{
    uint32_t chunk = c->queue[c->first], units;

    for (uint32_t at = 0; at < c->filled[chunk]; at += units) {
        struct obj *o = obj_at(c, (uint64_t)chunk * CHUNK_UNITS + at), *to;
        uint64_t addr = o->addr;

        units = o->units;
        must(units > 0);
        if (addr == NONE)
            continue;
        unlink_obj(c, o);
        if (o->used == 0 || units > keep)
            continue;
        to = take(c, units);
        must(to != NULL);
        keep -= units;
        memcpy(to, o, sizeof(*o) + o->len);
        to->addr = addr;
        to->used = 0;
        link_obj(c, to);
    }
    c->first = (c->first + 1) % c->nchunks;
    c->nqueue--;
    return chunk;
}

static void give_back(struct bkv_cache *c, uint32_t chunk)
{
    (void)madvise(c->memory + chunk * CHUNK_BYTES, CHUNK_BYTES, MADV_DONTNEED);
    c->cold[c->ncold++] = chunk;
}

static void add_chunk(struct bkv_cache *c)
{
    bool full = c->nqueue + 1 >= c->nchunks_max;
    uint32_t chunk;

    if (c->spare != c->nchunks) {
        chunk = c->spare;
        c->spare = c->nchunks;
    } else {
        chunk = c->cold[--c->ncold];
    }
    c->queue[(c->first + c->nqueue++) % c->nchunks] = chunk;
    c->filled[chunk] = 0;
    if (full)
        c->spare = empty_first(c, KEPT_UNITS_MAX);
}

void bkv_cache_limit(struct bkv_cache *c, uint64_t bytes)
{
    uint64_t chunks;

    if (c->memory == NULL)
        return;
    chunks = (bytes - MIN(bytes, chains_bytes(c))) / CHUNK_BYTES;
    c->nchunks_max = (uint32_t)MIN(MAX(chunks, 2u), (uint64_t)c->nchunks);
    while (c->nqueue >= c->nchunks_max) {
        if (c->spare != c->nchunks)
            give_back(c, c->spare);
        c->spare = empty_first(c, 0);
    }
}

/* --- in and out ------------------------------------------------------------------------------- */

void bkv_cache_put(struct bkv_cache *c, uint64_t addr, struct bytes data)
{
    uint32_t units = UNITS_OF(data.len);
    struct obj *o;

    if (c->memory == NULL || data.len > BKV_CACHE_OBJ_MAX)
        return;
    bkv_cache_del(c, addr);
    o = take(c, units);
    if (o == NULL) {
        add_chunk(c);
        o = take(c, units);
        must(o != NULL);
    }
    *o = (struct obj){.addr = addr, .len = (uint32_t)data.len, .units = units};
    memcpy(o->data, data.ptr, data.len);
    link_obj(c, o);
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
    if (c->memory == NULL || len == 0)
        return;
    for (uint64_t at = addr; at < addr + len; at += 512 - at % 512)
        drop_sector(c, at, addr, addr + len);
}

uint64_t bkv_cache_bytes(const struct bkv_cache *c)
{
    if (c->memory == NULL)
        return 0;
    return (c->nqueue + (c->spare != c->nchunks)) * CHUNK_BYTES + chains_bytes(c);
}
