/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries lie packed in one mapping, nodes in a slab over another one; both count against the
 * budget as they are used. What is reserved is the entry in full, and of nodes the most that so
 * many additions can take (art_spans_worst()).
 */
#include "kv/drivers/blobkv/memtab.h"

#include "base/must.h"

#include <sys/mman.h>

/* A span of the slab with what the slab keeps about it. */
#define SPAN_COST (SLAB_SPAN_BYTES + 64u)
#define ENTRY_ALIGN 8u

struct bkv_memtab {
    struct slab slab; /* of nodes */
    struct art art;
    uint8_t *entries;
    uint64_t entries_used;
    uint64_t budget_bytes;
    uint64_t reserved_bytes; /* of entries */
    uint64_t nreserved;
    uint64_t changes;
};

static uint64_t entry_bytes(uint32_t key_len)
{
    return round_up_u64(offsetof(struct bkv_mem_entry, key.bytes) + key_len, ENTRY_ALIGN);
}

struct bkv_memtab *bkv_memtab_new(uint64_t budget_bytes)
{
    struct bkv_memtab *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->budget_bytes = MAX(budget_bytes, MIB);
    m->entries = mmap(NULL, m->budget_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->entries == MAP_FAILED) {
        m->entries = NULL;
        bkv_memtab_free(m);
        return NULL;
    }
    if (slab_init(&m->slab, m->budget_bytes) < 0) {
        bkv_memtab_free(m);
        return NULL;
    }
    art_init(&m->art, &m->slab);
    return m;
}

void bkv_memtab_free(struct bkv_memtab *m)
{
    if (m == NULL)
        return;
    slab_fini(&m->slab);
    if (m->entries != NULL)
        (void)munmap(m->entries, m->budget_bytes);
    free(m);
}

void bkv_memtab_reset(struct bkv_memtab *m)
{
    must(m->nreserved == 0);
    slab_reset(&m->slab);
    art_init(&m->art, &m->slab);
    (void)madvise(m->entries, m->entries_used, MADV_DONTNEED);
    m->entries_used = 0;
    m->changes++;
}

/* What is used, and what `more` new keys with entries of `bytes` could take besides. */
static uint64_t bytes_with(const struct bkv_memtab *m, uint64_t more, uint64_t bytes)
{
    uint64_t spans = m->slab.used_spans + art_spans_worst(&m->art, m->nreserved + more);

    return m->entries_used + m->reserved_bytes + bytes + spans * SPAN_COST;
}

bool bkv_memtab_reserve(struct bkv_memtab *m, uint32_t key_len)
{
    uint64_t bytes = entry_bytes(key_len);

    if (bytes_with(m, 1, bytes) > m->budget_bytes)
        return false;
    m->nreserved++;
    m->reserved_bytes += bytes;
    return true;
}

void bkv_memtab_unreserve(struct bkv_memtab *m, uint32_t key_len)
{
    uint64_t bytes = entry_bytes(key_len);

    must(m->nreserved > 0);
    must(m->reserved_bytes >= bytes);
    m->nreserved--;
    m->reserved_bytes -= bytes;
}

bool bkv_memtab_put(struct bkv_memtab *m, struct bytes key, const struct bkv_place *place,
                    struct bkv_place *out_old)
{
    struct art_key *k = art_find(&m->art, key);
    struct bkv_mem_entry *e;
    int rc;

    bkv_memtab_unreserve(m, (uint32_t)key.len);
    if (k != NULL) {
        e = container_of(k, struct bkv_mem_entry, key);
        if (out_old != NULL)
            *out_old = e->place;
        e->place = *place;
        return true;
    }
    e = (struct bkv_mem_entry *)(m->entries + m->entries_used);
    m->entries_used += entry_bytes((uint32_t)key.len);
    must(m->entries_used <= m->budget_bytes);
    e->place = *place;
    e->key.len = (uint16_t)key.len;
    memcpy(e->key.bytes, key.ptr, key.len);
    rc = art_add(&m->art, &e->key);
    must(rc == 0);
    m->changes++;
    return false;
}

static const struct bkv_mem_entry *entry_of(struct art_key *k)
{
    return k == NULL ? NULL : container_of(k, struct bkv_mem_entry, key);
}

const struct bkv_mem_entry *bkv_memtab_find(const struct bkv_memtab *m, struct bytes key)
{
    return entry_of(art_find(&m->art, key));
}

const struct bkv_mem_entry *bkv_memtab_seek(const struct bkv_memtab *m, struct bytes key,
                                            bool after)
{
    return entry_of(art_seek(&m->art, key, after));
}

uint64_t bkv_memtab_count(const struct bkv_memtab *m)
{
    return m->art.count;
}

uint64_t bkv_memtab_changes(const struct bkv_memtab *m)
{
    return m->changes;
}

uint64_t bkv_memtab_bytes(const struct bkv_memtab *m)
{
    return bytes_with(m, 0, 0);
}

double bkv_memtab_share(const struct bkv_memtab *m)
{
    return (double)bytes_with(m, 1, entry_bytes(0)) / (double)m->budget_bytes;
}
