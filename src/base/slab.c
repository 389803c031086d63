/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slab.h"

#include "base/must.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLAB_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_ASAN 1
#endif
#endif
#ifdef SLAB_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) __asan_poison_memory_region(p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define FREE_LINK_BYTES sizeof(void *)

struct slab_span {
    void *free;    /* objects given back, linked through their first bytes */
    uint32_t next; /* partial list of the class, or list of free spans; index + 1 */
    uint32_t prev;
    uint16_t fresh; /* objects from here on have never been out */
    uint16_t out;
    uint32_t shares; /* owners besides the first; spans of one object only */
    uint8_t class;
    bool listed;
};

/* The sizes: fine steps where keys and index nodes are; 4160 and 2080 are a page and half of one
 * with a header; the large ones divide a span without rest. */
static const uint32_t class_bytes[] = {
    16,   32,   48,   64,   80,   96,   112,  128,   144,   160,   176,   192,   224,   256,
    320,  384,  448,  512,  576,  672,  768,  896,   1024,  1280,  1536,  1792,  2080,  2560,
    3072, 3584, 4160, 5120, 6144, 8192, 9344, 10912, 13104, 16384, 21840, 32768, 65536,
};
#define NCLASSES ARRAY_LEN(class_bytes)
static_assert(NCLASSES <= SLAB_CLASSES, "a partial list per class");

int slab_init(struct slab *s, uint64_t size_bytes)
{
    const uint64_t per_span = SLAB_SPAN_BYTES + sizeof(struct slab_span);
    unsigned class = 0;

    *s = (struct slab){.limit_bytes = size_bytes};
    if (size_bytes < MIB || size_bytes > 64 * 1024 * GIB)
        return -EINVAL;
    s->nspans = (uint32_t)(size_bytes / per_span);
    s->base = mmap(NULL, (size_t)s->nspans * SLAB_SPAN_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    s->span = mmap(NULL, s->nspans * sizeof(*s->span), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->base == MAP_FAILED || s->span == MAP_FAILED) {
        s->base = s->base == MAP_FAILED ? NULL : s->base;
        s->span = s->span == MAP_FAILED ? NULL : s->span;
        slab_fini(s);
        return -ENOMEM;
    }
    /* Fewer page faults and TLB misses where the system allows it; without it all works too. */
    (void)madvise(s->base, (size_t)s->nspans * SLAB_SPAN_BYTES, MADV_HUGEPAGE);
    for (unsigned i = 1; i < ARRAY_LEN(s->class_of); i++) {
        while (class_bytes[class] < i * 16)
            class ++;
        s->class_of[i] = (uint8_t) class;
    }
    return 0;
}

void slab_fini(struct slab *s)
{
    if (s->base != NULL) {
        UNPOISON(s->base, (size_t)s->fresh * SLAB_SPAN_BYTES);
        (void)munmap(s->base, (size_t)s->nspans * SLAB_SPAN_BYTES);
    }
    if (s->span != NULL)
        (void)munmap(s->span, s->nspans * sizeof(*s->span));
    s->base = NULL;
    s->span = NULL;
}

void slab_reset(struct slab *s)
{
    UNPOISON(s->base, (size_t)s->fresh * SLAB_SPAN_BYTES);
    (void)madvise(s->base, (size_t)s->fresh * SLAB_SPAN_BYTES, MADV_DONTNEED);
    (void)madvise(s->span, s->fresh * sizeof(*s->span), MADV_DONTNEED);
    s->fresh = 0;
    s->free_span = 0;
    s->used_spans = 0;
    s->charged_bytes = 0;
    s->object_bytes = 0;
    memset(s->partial, 0, sizeof(s->partial));
}

static unsigned class_for(const struct slab *s, size_t len)
{
    unsigned class;

    if (LIKELY(len <= 8192))
        return s->class_of[(len + 15) / 16];
    class = s->class_of[512];
    while (class_bytes[class] < len)
        class ++;
    return class;
}

static uint64_t span_bytes_used(const struct slab *s)
{
    return (uint64_t)s->used_spans * (SLAB_SPAN_BYTES + sizeof(struct slab_span));
}

static void partial_add(struct slab *s, uint32_t idx)
{
    struct slab_span *sp = &s->span[idx];
    uint32_t *head = &s->partial[sp->class];

    sp->next = *head;
    sp->prev = 0;
    if (*head != 0)
        s->span[*head - 1].prev = idx + 1;
    *head = idx + 1;
    sp->listed = true;
}

static void partial_del(struct slab *s, uint32_t idx)
{
    struct slab_span *sp = &s->span[idx];

    if (sp->next != 0)
        s->span[sp->next - 1].prev = sp->prev;
    if (sp->prev != 0)
        s->span[sp->prev - 1].next = sp->next;
    else
        s->partial[sp->class] = sp->next;
    sp->listed = false;
}

/* Takes a span for a class and lists it; false when the budget is used up. */
static bool span_take(struct slab *s, unsigned class)
{
    uint32_t idx;

    if (span_bytes_used(s) + s->charged_bytes + SLAB_SPAN_BYTES + sizeof(struct slab_span) >
        s->limit_bytes)
        return false;
    if (s->free_span != 0) {
        idx = s->free_span - 1;
        s->free_span = s->span[idx].next;
    } else if (s->fresh < s->nspans) {
        idx = s->fresh++;
    } else {
        return false;
    }
    s->used_spans++;
    s->span[idx] = (struct slab_span){.class = (uint8_t) class};
    POISON(s->base + (size_t)idx * SLAB_SPAN_BYTES, SLAB_SPAN_BYTES);
    partial_add(s, idx);
    return true;
}

void *slab_alloc(struct slab *s, size_t len)
{
    unsigned class;
    struct slab_span *sp;
    uint32_t idx;
    uint8_t *obj;

    must(len - 1 < SLAB_SPAN_BYTES);
    class = class_for(s, len);
    if (UNLIKELY(s->partial[class] == 0) && !span_take(s, class))
        return NULL;
    idx = s->partial[class] - 1;
    sp = &s->span[idx];
    if (LIKELY(sp->free != NULL)) {
        obj = sp->free;
        UNPOISON(obj, class_bytes[class]);
        memcpy(&sp->free, obj, FREE_LINK_BYTES);
    } else {
        obj = s->base + (size_t)idx * SLAB_SPAN_BYTES + (size_t)sp->fresh * class_bytes[class];
        sp->fresh++;
        UNPOISON(obj, class_bytes[class]);
    }
    sp->out++;
    s->object_bytes += class_bytes[class];
    if (sp->free == NULL && ((size_t)sp->fresh + 1) * class_bytes[class] > SLAB_SPAN_BYTES)
        partial_del(s, idx);
    return obj;
}

static struct slab_span *span_of(struct slab *s, void *obj, uint32_t *out_idx)
{
    size_t off = (size_t)((uint8_t *)obj - s->base);

    must((uint8_t *)obj >= s->base);
    *out_idx = (uint32_t)(off / SLAB_SPAN_BYTES);
    must(*out_idx < s->fresh);
    return &s->span[*out_idx];
}

void slab_free(struct slab *s, void *obj)
{
    struct slab_span *sp;
    uint32_t idx;

    if (obj == NULL)
        return;
    sp = span_of(s, obj, &idx);
    must(sp->out > 0);
    if (sp->shares > 0) {
        sp->shares--;
        return;
    }
    memcpy(obj, &sp->free, FREE_LINK_BYTES);
    POISON(obj, class_bytes[sp->class]);
    sp->free = obj;
    sp->out--;
    s->object_bytes -= class_bytes[sp->class];
    if (LIKELY(sp->out > 0)) {
        if (!sp->listed)
            partial_add(s, idx);
        return;
    }
    if (sp->listed)
        partial_del(s, idx);
    sp->next = s->free_span;
    s->free_span = idx + 1;
    s->used_spans--;
}

void slab_share(struct slab *s, void *obj)
{
    uint32_t idx;
    struct slab_span *sp = span_of(s, obj, &idx);

    must(class_bytes[sp->class] == SLAB_SPAN_BYTES);
    sp->shares++;
}

bool slab_charge(struct slab *s, uint64_t len)
{
    if (span_bytes_used(s) + s->charged_bytes + len > s->limit_bytes)
        return false;
    s->charged_bytes += len;
    return true;
}

void slab_uncharge(struct slab *s, uint64_t len)
{
    must(s->charged_bytes >= len);
    s->charged_bytes -= len;
}
