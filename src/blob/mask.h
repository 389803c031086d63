/* SPDX-License-Identifier: Apache-2.0 */
/* A mask: bits in the order of the disk, 1 is used; counted, and searched from the lowest up. */
#ifndef KVASIR_BLOB_MASK_H
#define KVASIR_BLOB_MASK_H

#include "base/util.h"

#define BLOB_MASK_NONE UINT64_MAX

struct blob_mask {
    uint8_t *bits; /* rounded up to 8 bytes */
    uint64_t n;
    uint64_t used;
    uint64_t lowest; /* no clear bit below */
};

/** All clear. 0 or -ENOMEM. */
int blob_mask_init(struct blob_mask *m, uint64_t n);
void blob_mask_fini(struct blob_mask *m);
/** The bits have been written from outside: counts them; those from n on are cleared. */
void blob_mask_count(struct blob_mask *m);
/** More bits, clear. 0 or -ENOMEM. */
int blob_mask_grow(struct blob_mask *m, uint64_t n);

static inline size_t blob_mask_bytes(const struct blob_mask *m)
{
    return (size_t)((m->n + 7) / 8);
}
static inline bool blob_mask_test(const struct blob_mask *m, uint64_t i)
{
    return (m->bits[i >> 3] >> (i & 7) & 1) != 0;
}
static inline uint64_t blob_mask_free(const struct blob_mask *m)
{
    return m->n - m->used;
}
/** Sets a bit; false when it was set. */
bool blob_mask_set(struct blob_mask *m, uint64_t i);
/** Clears a bit; false when it was clear. */
bool blob_mask_clear(struct blob_mask *m, uint64_t i);
/** The first bit from `from` on that is clear, or set; BLOB_MASK_NONE. */
uint64_t blob_mask_next_clear(struct blob_mask *m, uint64_t from);
uint64_t blob_mask_next_set(const struct blob_mask *m, uint64_t from);
/** Takes the lowest clear bit: sets and returns it, or BLOB_MASK_NONE. */
uint64_t blob_mask_take(struct blob_mask *m);
/**
 * Takes up to `want` neighbouring clear bits: the lowest run that is long enough, or else the
 * longest. Returns the first and sets *out_n; BLOB_MASK_NONE when none is clear.
 */
uint64_t blob_mask_take_run(struct blob_mask *m, uint64_t want, uint64_t *out_n);

#endif
