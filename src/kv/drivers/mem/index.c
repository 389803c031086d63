/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/mem/index.h"

#include "base/must.h"

#include <errno.h>
#include <sys/mman.h>

#define BUCKETS_MIN 16u
#define ENTRY_BYTES_MIN 64u /* less than any entry with its value takes: bounds the table */

/* --- hash table ------------------------------------------------------------------------------- */

static inline uint64_t mum(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)a * b;

    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint32_t hash_end(const struct mem_index *ix, const uint64_t w[2], uint64_t h)
{
    h = mum(w[0] ^ ix->secret[0], w[1] ^ h);
    return (uint32_t)mum(h ^ ix->secret[1], ix->secret[2]);
}

static uint32_t hash_long(const struct mem_index *ix, struct bytes key)
{
    const uint8_t *p = key.ptr;
    size_t left = key.len;
    uint64_t h = ix->secret[2] ^ left;
    uint64_t w[2];

    for (; left > 16; left -= 16, p += 16) {
        memcpy(w, p, 16);
        h = mum(w[0] ^ ix->secret[0], w[1] ^ h);
    }
    w[0] = w[1] = 0;
    memcpy(w, p, left);
    return hash_end(ix, w, h);
}

static inline uint32_t hash_of(const struct mem_index *ix, struct bytes key)
{
    uint64_t w[2];

    if (UNLIKELY(key.len != 16))
        return hash_long(ix, key);
    memcpy(w, key.ptr, 16);
    return hash_end(ix, w, ix->secret[2] ^ 16);
}

static inline uint64_t bucket_of(const struct mem_index *ix, uint32_t hash)
{
    uint64_t b = hash & (2 * ix->low - 1);

    return b < ix->nbuckets ? b : b - ix->low;
}

/* Splits one bucket; when there is no memory for another the chains grow instead. */
static void table_grow(struct mem_index *ix)
{
    uint64_t from = ix->nbuckets - ix->low;
    uint64_t to = ix->nbuckets;
    struct mem_entry **keep = &ix->bucket[from];
    struct mem_entry **move = &ix->bucket[to];

    if (to == ix->buckets_room || !slab_charge(&ix->slab, sizeof(*ix->bucket)))
        return;
    ix->nbuckets++;
    if (ix->nbuckets == 2 * ix->low)
        ix->low *= 2;
    for (struct mem_entry *e = *keep, *next; e != NULL; e = next) {
        next = e->hash_next;
        if (bucket_of(ix, e->hash) == to) {
            *move = e;
            move = &e->hash_next;
        } else {
            *keep = e;
            keep = &e->hash_next;
        }
    }
    *keep = NULL;
    *move = NULL;
}

/* Joins the last bucket to the one it was split from. */
static void table_shrink(struct mem_index *ix)
{
    struct mem_entry **last = &ix->bucket[ix->nbuckets - 1];
    struct mem_entry **to;

    if (ix->nbuckets == BUCKETS_MIN)
        return;
    ix->nbuckets--;
    if (ix->nbuckets < ix->low)
        ix->low /= 2;
    to = &ix->bucket[ix->nbuckets - ix->low];
    while (*to != NULL)
        to = &(*to)->hash_next;
    *to = *last;
    *last = NULL;
    slab_uncharge(&ix->slab, sizeof(*ix->bucket));
}

static inline bool key_is(const struct mem_entry *e, struct bytes key)
{
    uint64_t a[2], b[2];

    if (e->key.len != key.len)
        return false;
    if (UNLIKELY(key.len != 16))
        return memcmp(e->key.bytes, key.ptr, key.len) == 0;
    memcpy(a, e->key.bytes, 16);
    memcpy(b, key.ptr, 16);
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0;
}

static inline struct mem_entry *find_hashed(struct mem_index *ix, struct bytes key, uint32_t hash)
{
    struct mem_entry *e = ix->bucket[bucket_of(ix, hash)];

    while (e != NULL && (e->hash != hash || !key_is(e, key)))
        e = e->hash_next;
    return e;
}

struct mem_entry *mem_find(struct mem_index *ix, struct bytes key)
{
    return find_hashed(ix, key, hash_of(ix, key));
}

struct mem_entry *mem_find_or_add(struct mem_index *ix, struct bytes key)
{
    uint32_t hash = hash_of(ix, key);
    struct mem_entry *e = find_hashed(ix, key, hash);
    struct mem_entry **bucket;

    if (e != NULL)
        return e;
    e = slab_alloc(&ix->slab, sizeof(*e) + key.len);
    if (e == NULL)
        return NULL;
    e->newest = NULL;
    e->hash = hash;
    e->key.len = (uint16_t)key.len;
    memcpy(e->key.bytes, key.ptr, key.len);
    if (art_add(&ix->order, &e->key) < 0) {
        slab_free(&ix->slab, e);
        return NULL;
    }
    if (++ix->nentries > ix->nbuckets)
        table_grow(ix);
    bucket = &ix->bucket[bucket_of(ix, hash)];
    e->hash_next = *bucket;
    *bucket = e;
    return e;
}

void mem_entry_tidy(struct mem_index *ix, struct mem_entry *e)
{
    struct mem_entry **p;

    if (e == NULL || e->newest != NULL)
        return;
    p = &ix->bucket[bucket_of(ix, e->hash)];
    while (*p != e) {
        must(*p != NULL);
        p = &(*p)->hash_next;
    }
    *p = e->hash_next;
    art_del(&ix->order, &e->key);
    slab_free(&ix->slab, e);
    ix->nentries--;
    for (unsigned i = 0; i < 2 && ix->nentries < ix->nbuckets / 2; i++)
        table_shrink(ix); /* by two, to catch up with deletes that take one entry each */
}

/* --- versions --------------------------------------------------------------------------------- */

struct mem_value *mem_visible(const struct mem_entry *e, const struct mem_snap *snap)
{
    struct mem_value *v;

    if (LIKELY(snap == NULL))
        return mem_live(e);
    v = e != NULL ? e->newest : NULL;
    while (v != NULL && v->seq > snap->seq)
        v = v->older;
    return v != NULL && v->end_seq > snap->seq ? v : NULL;
}

static void version_unlink(struct mem_index *ix, struct mem_value *v)
{
    struct mem_value **p = &v->entry->newest;

    while (*p != v) {
        must(*p != NULL);
        p = &(*p)->older;
    }
    *p = v->older;
    mem_value_put(&ix->slab, v);
}

/* A version that has ended: hangs on the newest snapshot that sees it, or leaves. */
static void version_settle(struct mem_index *ix, struct mem_value *v)
{
    for (struct list *l = ix->snaps.prev; l != &ix->snaps; l = l->prev) {
        struct mem_snap *snap = container_of(l, struct mem_snap, link);

        if (snap->seq >= v->end_seq)
            continue;
        if (snap->seq < v->seq)
            break;
        v->pin_next = snap->pins;
        snap->pins = v;
        return;
    }
    version_unlink(ix, v);
}

static void version_end(struct mem_index *ix, struct mem_value *v, uint64_t seq)
{
    v->end_seq = seq;
    ix->nkeys--;
    version_settle(ix, v);
}

void mem_publish(struct mem_index *ix, struct mem_entry *e, struct mem_value *v, uint64_t seq)
{
    struct mem_value *old = mem_live(e);

    v->entry = e;
    v->seq = seq;
    v->older = e->newest;
    e->newest = v;
    ix->nkeys++;
    if (old != NULL)
        version_end(ix, old, seq);
}

void mem_remove(struct mem_index *ix, struct mem_entry *e, uint64_t seq)
{
    version_end(ix, e->newest, seq);
}

/* --- snapshots -------------------------------------------------------------------------------- */

struct mem_snap *mem_snap_open(struct mem_index *ix)
{
    struct mem_snap *snap = slab_alloc(&ix->slab, sizeof(*snap));

    if (snap == NULL)
        return NULL;
    *snap = (struct mem_snap){.seq = ix->seq};
    list_add_tail(&ix->snaps, &snap->link);
    return snap;
}

void mem_snap_retire(struct mem_index *ix, struct mem_snap *snap)
{
    list_del(&snap->link);
}

bool mem_snap_release(struct mem_index *ix, struct mem_snap *snap, unsigned max)
{
    for (; snap->pins != NULL && max > 0; max--) {
        struct mem_value *v = snap->pins;
        struct mem_entry *e = v->entry;

        snap->pins = v->pin_next;
        version_settle(ix, v);
        mem_entry_tidy(ix, e);
    }
    if (snap->pins != NULL)
        return false;
    slab_free(&ix->slab, snap);
    return true;
}

/* --- life ------------------------------------------------------------------------------------- */

int mem_index_init(struct mem_index *ix, uint64_t size_bytes, const uint64_t secret[3])
{
    int rc;

    *ix = (struct mem_index){.nbuckets = BUCKETS_MIN, .low = BUCKETS_MIN};
    memcpy(ix->secret, secret, sizeof(ix->secret));
    ix->secret[2] |= 1;
    list_init(&ix->snaps);
    rc = slab_init(&ix->slab, size_bytes);
    if (rc < 0)
        return rc;
    ix->buckets_room = size_bytes / ENTRY_BYTES_MIN;
    ix->bucket = mmap(NULL, ix->buckets_room * sizeof(*ix->bucket), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ix->bucket == MAP_FAILED) {
        ix->bucket = NULL;
        slab_fini(&ix->slab);
        return -ENOMEM;
    }
    must(slab_charge(&ix->slab, BUCKETS_MIN * sizeof(*ix->bucket)));
    art_init(&ix->order, &ix->slab);
    return 0;
}

void mem_index_fini(struct mem_index *ix)
{
    if (ix->bucket != NULL)
        (void)munmap(ix->bucket, ix->buckets_room * sizeof(*ix->bucket));
    ix->bucket = NULL;
    slab_fini(&ix->slab);
}
