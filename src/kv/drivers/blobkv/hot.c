/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key is its number H, HASH_BITS of its hash. Among n buckets its home is H * n >> HASH_BITS, so
 * buckets lie in the order of H, all equally full at any n. A slot keeps the low TAG_BITS of H; as
 * a bucket covers at most 2^TAG_BITS numbers (n is 1024 or more whenever the table grows), home and
 * tag give H back. That is what growing needs: a slot's new home.
 *
 * Growing from n to m buckets goes from the last bucket down to the first, in place: the new home
 * of what is in bucket i is i or above, where everything has been moved already. `frontier` is the
 * first bucket that has moved; homes below it are counted among n, the others among m.
 *
 * A key whose home is full goes into the bucket after it, marked as spilled; if that is full too,
 * somebody who is at home there makes room in the same way. When a bucket moves, what was spilled
 * into it belongs to a home that has not moved yet: it waits in `limbo`.
 *
 * No two slots have the same H: a key that comes replaces what could be itself.
 */
#include "kv/drivers/blobkv/hot.h"

#include "base/must.h"
#include "base/plant.h"

#include <string.h>
#include <sys/mman.h>

#define SLOTS 16u
#define TAG_BITS 25
#define HASH_BITS 35
#define BUCKETS_MIN (1u << (HASH_BITS - TAG_BITS)) /* 1024: from here on it can grow */
#define BUCKETS_MAX (1u << 26)
/* A table grows when this many of 160 slots are taken, and by a sixteenth: 9.2 to 9.8 bytes a key.
 */
#define FULL_OF_160 139u
#define GROW_BY(n) ((n) / 16)
#define MOVES_PER_ADD 3
#define PATH_MAX_BUCKETS 24u

/* A slot: tag (25), spilled (1), size class (6), sector (32). 0: empty (no record is in sector 0,
 * which is the super slot's). */
#define SLOT_SPILLED (1ull << 38)
#define SLOT_MATCH (~0ull << 38) /* tag and spilled */

struct bucket {
    uint64_t slot[SLOTS];
};

struct bkv_hot {
    struct bucket *bucket; /* one more than there are: the last one spills too */
    uint64_t map_bytes;
    uint64_t nbuckets, nbuckets_max;
    uint64_t next_nbuckets; /* while growing, else nbuckets */
    uint64_t frontier;      /* while growing: homes from here on have moved; else nbuckets */
    uint64_t count;
    uint32_t rotor;      /* which slot a full bucket forgets */
    struct bucket limbo; /* spilled slots of home frontier - 1 */
};

struct bkv_hot *bkv_hot_new(uint64_t max_bytes)
{
    struct bkv_hot *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    if (max_bytes < 2 * sizeof(struct bucket))
        return h;
    h->nbuckets_max = MIN(max_bytes / sizeof(struct bucket) - 1, BUCKETS_MAX);
    h->nbuckets = MIN(h->nbuckets_max, BUCKETS_MIN);
    h->next_nbuckets = h->frontier = h->nbuckets;
    h->map_bytes = (h->nbuckets_max + 1) * sizeof(struct bucket);
    h->bucket = mmap(NULL, h->map_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (h->bucket == MAP_FAILED) {
        free(h);
        return NULL;
    }
    return h;
}

void bkv_hot_expect(struct bkv_hot *h, uint64_t nkeys)
{
    uint64_t n = MIN(nkeys, UINT32_MAX * 16ull) * 10 / FULL_OF_160 + 1;

    if (h->nbuckets == 0 || h->count > 0)
        return;
    h->nbuckets = MIN(MAX(n, (uint64_t)BUCKETS_MIN), h->nbuckets_max);
    h->next_nbuckets = h->frontier = h->nbuckets;
}

void bkv_hot_free(struct bkv_hot *h)
{
    if (h == NULL)
        return;
    if (h->bucket != NULL)
        (void)munmap(h->bucket, h->map_bytes);
    free(h);
}

/* --- slots ------------------------------------------------------------------------------------ */

/* Up to 32 sectors exactly, from there on in steps of two. */
static uint64_t class_of(uint64_t addr, uint32_t rec_len)
{
    uint64_t sectors = (addr % 512 + MAX(rec_len, 1u) + 511) / 512;

    if (sectors <= 32)
        return sectors - 1;
    return MIN(32 + (sectors - 33) / 2, 63u);
}

static uint32_t class_bytes(uint64_t class)
{
    return (uint32_t)(class < 32 ? class + 1 : 32 + 2 * (class - 31)) * 512;
}

static uint64_t slot_make(uint64_t num, uint64_t addr, uint32_t rec_len)
{
    return (num & ((1ull << TAG_BITS) - 1)) << 39 | class_of(addr, rec_len) << 32 | addr / 512;
}

/* The key's number from its home among n and its tag. */
static uint64_t number_of(uint64_t home, uint64_t n, uint64_t slot)
{
    const uint64_t mask = (1ull << TAG_BITS) - 1;
    uint64_t first = ((home << HASH_BITS) + n - 1) / n;

    return first + (((slot >> 39) - first) & mask);
}

/* The two buckets in which a key can be. */
struct home {
    struct bucket *own;
    struct bucket *spill;
};

static struct home home_of(const struct bkv_hot *h, uint64_t num)
{
    uint64_t i = (num * h->nbuckets) >> HASH_BITS;

    if (i >= h->frontier)
        i = (num * h->next_nbuckets) >> HASH_BITS;
    else if (i + 1 == h->frontier && h->next_nbuckets != h->nbuckets)
        return (struct home){&h->bucket[i], (struct bucket *)&h->limbo};
    return (struct home){&h->bucket[i], &h->bucket[i + 1]};
}

static uint64_t *slot_find(const struct home *home, uint64_t num)
{
    uint64_t want = (num & ((1ull << TAG_BITS) - 1)) << 39;

    /* An empty slot looks like tag 0, not spilled. */
    for (unsigned i = 0; i < SLOTS; i++) {
        if ((home->own->slot[i] & SLOT_MATCH) == want && home->own->slot[i] != 0)
            return &home->own->slot[i];
    }
    want |= SLOT_SPILLED;
    for (unsigned i = 0; i < SLOTS; i++) {
        if ((home->spill->slot[i] & SLOT_MATCH) == want)
            return &home->spill->slot[i];
    }
    return NULL;
}

static uint64_t *slot_empty(struct bucket *b)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (b->slot[i] == 0)
            return &b->slot[i];
    }
    return NULL;
}

/* The bucket that b spills into; NULL: none. The limbo is what bucket frontier - 1 spills into. */
static struct bucket *spill_of(struct bkv_hot *h, struct bucket *b)
{
    uint64_t i = (uint64_t)(b - h->bucket);

    if (b == &h->limbo || i == h->next_nbuckets)
        return NULL;
    if (i + 1 == h->frontier && h->next_nbuckets != h->nbuckets)
        return &h->limbo;
    return b + 1;
}

/* Makes room in a bucket: one that is at home there spills, if need be after others further on
 * have. NULL: nobody can. */
static uint64_t *slot_free_up(struct bkv_hot *h, struct bucket *b)
{
    struct bucket *path[PATH_MAX_BUCKETS];
    uint64_t *hole = NULL;
    unsigned n = 0;

    for (; b != NULL && n < PATH_MAX_BUCKETS; b = spill_of(h, b)) {
        path[n++] = b;
        hole = slot_empty(b);
        if (hole != NULL)
            break;
    }
    if (hole == NULL)
        return NULL;
    while (--n > 0) {
        uint64_t *slot = path[n - 1]->slot;
        uint64_t *end = slot + SLOTS;

        while (slot < end && (*slot & SLOT_SPILLED) != 0)
            slot++;
        if (slot == end)
            return NULL;
        *hole = *slot | SLOT_SPILLED;
        *slot = 0;
        hole = slot;
    }
    return hole;
}

/* Puts a slot (not spilled) where there is room for it; true when another one had to go. */
static bool slot_put(struct bkv_hot *h, const struct home *home, uint64_t slot)
{
    uint64_t *at = slot_empty(home->own);

    if (LIKELY(at != NULL)) {
        *at = slot;
        return false;
    }
    at = slot_empty(home->spill);
    if (at != NULL) {
        *at = slot | SLOT_SPILLED;
        return false;
    }
    at = slot_free_up(h, home->own);
    if (at != NULL) {
        *at = slot;
        return false;
    }
    /* Any of them may go: it costs somebody a read of a leaf. */
    home->own->slot[h->rotor++ % SLOTS] = slot;
    return true;
}

/* --- growing ---------------------------------------------------------------------------------- */

/* Moves the bucket below the frontier. */
static void move_bucket(struct bkv_hot *h)
{
    uint64_t i = --h->frontier;
    struct bucket old = h->bucket[i];
    struct bucket waiting = h->limbo;
    unsigned nlimbo = 0;

    memset(&h->limbo, 0, sizeof(h->limbo));
    memset(&h->bucket[i], 0, sizeof(h->bucket[i]));
    for (unsigned k = 0; k < 2 * SLOTS; k++) {
        uint64_t slot = k < SLOTS ? old.slot[k] : waiting.slot[k - SLOTS];
        uint64_t num;
        struct home home;

        if (slot == 0)
            continue;
        if (k < SLOTS && (slot & SLOT_SPILLED) != 0) {
            h->limbo.slot[nlimbo++] = slot;
            continue;
        }
        num = number_of(i, h->nbuckets, slot);
        home = home_of(h, num);
        if (slot_put(h, &home, slot & ~SLOT_SPILLED))
            h->count--;
    }
    if (h->frontier == 0) {
        h->nbuckets = h->next_nbuckets;
        h->frontier = h->nbuckets;
    }
}

static void grow(struct bkv_hot *h)
{
    if (h->next_nbuckets != h->nbuckets) {
        for (unsigned i = 0; i < MOVES_PER_ADD && h->next_nbuckets != h->nbuckets; i++)
            move_bucket(h);
        return;
    }
    if (h->count * 10 < h->nbuckets * FULL_OF_160 || h->nbuckets < BUCKETS_MIN ||
        h->nbuckets == h->nbuckets_max)
        return;
    h->next_nbuckets = MIN(h->nbuckets + GROW_BY(h->nbuckets), h->nbuckets_max);
    h->frontier = h->nbuckets;
    /* What the last bucket has spilled lies where a bucket begins now. */
    h->limbo = h->bucket[h->nbuckets];
    memset(&h->bucket[h->nbuckets], 0, sizeof(h->bucket[h->nbuckets]));
}

/* --- the table -------------------------------------------------------------------------------- */

static uint64_t number(uint64_t hash)
{
    return hash >> (64 - HASH_BITS);
}

unsigned bkv_hot_find(const struct bkv_hot *h, uint64_t hash, struct bkv_hot_hit *out, unsigned max)
{
    struct home home;
    const uint64_t *slot;

    if (h->nbuckets == 0 || max == 0)
        return 0;
    home = home_of(h, number(hash));
    slot = slot_find(&home, number(hash));
    if (slot == NULL)
        return 0;
    out->addr = (*slot & UINT32_MAX) * 512;
    out->read_bytes = class_bytes(*slot >> 32 & 63);
    return 1;
}

static void set(struct bkv_hot *h, uint64_t hash, uint64_t addr, uint32_t rec_len, bool replace)
{
    uint64_t num = number(hash);
    struct home home;
    uint64_t *slot, made;

    if (h->nbuckets == 0)
        return;
    home = home_of(h, num);
    slot = slot_find(&home, num);
    if (addr / 512 > UINT32_MAX || addr < 512) {
        if (slot != NULL && replace)
            bkv_hot_del(h, hash);
        return;
    }
    made = slot_make(num, addr, rec_len);
    if (slot != NULL) {
        if (replace && !(PLANTED("kv-stale") && num % 8 == 7))
            *slot = made | (*slot & SLOT_SPILLED);
        return;
    }
    if (!slot_put(h, &home, made))
        h->count++;
    grow(h);
}

void bkv_hot_set(struct bkv_hot *h, uint64_t hash, uint64_t addr, uint32_t rec_len)
{
    set(h, hash, addr, rec_len, true);
}

void bkv_hot_learn(struct bkv_hot *h, uint64_t hash, uint64_t addr, uint32_t rec_len)
{
    set(h, hash, addr, rec_len, false);
}

void bkv_hot_del(struct bkv_hot *h, uint64_t hash)
{
    struct home home;
    uint64_t *slot;

    if (h->nbuckets == 0)
        return;
    home = home_of(h, number(hash));
    slot = slot_find(&home, number(hash));
    if (slot == NULL)
        return;
    *slot = 0;
    h->count--;
}

void bkv_hot_move(struct bkv_hot *h, uint64_t hash, uint64_t from, uint64_t to, uint32_t rec_len)
{
    struct home home;
    const uint64_t *slot;

    if (h->nbuckets == 0)
        return;
    home = home_of(h, number(hash));
    slot = slot_find(&home, number(hash));
    if (slot != NULL && (*slot & UINT32_MAX) == from / 512)
        bkv_hot_set(h, hash, to, rec_len);
}

uint64_t bkv_hot_bytes(const struct bkv_hot *h)
{
    return h->nbuckets == 0 ? 0 : (h->next_nbuckets + 1) * sizeof(struct bucket);
}

uint64_t bkv_hot_count(const struct bkv_hot *h)
{
    return h->count;
}
