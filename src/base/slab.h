/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects of 1 byte to 64 KiB out of one reserved mapping of a fixed size: a bounded allocator for
 * stores that keep their data in memory. The mapping is reserved, not committed: what has never
 * been used costs nothing. Allocation and release are a few dozen instructions; spans of 64 KiB
 * serve one size class each and go back to a common list when their last object is freed.
 *
 * For one thread. Memory that belongs to the same budget but lies elsewhere is added by
 * slab_charge().
 */
#ifndef KVASIR_BASE_SLAB_H
#define KVASIR_BASE_SLAB_H

#include "base/util.h"

#define SLAB_SPAN_BYTES 65536u
#define SLAB_CLASSES 48

struct slab_span;

struct slab {
    uint8_t *base;
    struct slab_span *span;   /* one per 64 KiB of the mapping */
    uint32_t nspans;          /* in the mapping */
    uint32_t fresh;           /* spans from here on have never been used */
    uint32_t free_span;       /* list of spans given back; index + 1 */
    uint32_t used_spans;
    uint64_t limit_bytes;
    uint64_t charged_bytes;
    uint64_t object_bytes;    /* sum of the sizes of the objects that are out */
    uint32_t partial[SLAB_CLASSES]; /* spans with room, by class; index + 1 */
    uint8_t class_of[513];    /* by (bytes + 15) / 16, up to 8 KiB */
};

/** Reserves the mapping. 0, -EINVAL when `size_bytes` is below 1 MiB or above 64 TiB, -ENOMEM. */
int slab_init(struct slab *s, uint64_t size_bytes);
/** Gives everything back, whatever is still out. Zeroed memory is fine. */
void slab_fini(struct slab *s);
/** Frees every object at once and returns the memory to the kernel. */
void slab_reset(struct slab *s);

/** An object of at least `len` (1..65536) bytes, 16-byte aligned, not zeroed; NULL: no budget. */
void *slab_alloc(struct slab *s, size_t len);
/** Takes an object back; NULL is fine. One that was shared is only released by its last owner. */
void slab_free(struct slab *s, void *obj);
/** One more owner of an object of exactly 64 KiB. */
void slab_share(struct slab *s, void *obj);

/** Counts `len` bytes kept elsewhere against the budget: false when they do not fit. */
bool slab_charge(struct slab *s, uint64_t len);
void slab_uncharge(struct slab *s, uint64_t len);

/** Bytes of objects out and of what was charged. */
static inline uint64_t slab_used(const struct slab *s)
{
    return s->object_bytes + s->charged_bytes;
}

#endif
