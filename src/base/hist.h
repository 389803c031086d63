/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histogram of 64-bit values (latencies in ns, sizes in bytes) with 8 steps per power of two: the
 * error of a percentile is below 12.5 %. Fixed size, no allocation, addition in a few instructions.
 */
#ifndef KVASIR_BASE_HIST_H
#define KVASIR_BASE_HIST_H

#include <stdint.h>

#define HIST_STEPS_LOG2 3
#define HIST_BUCKETS (((64 - HIST_STEPS_LOG2) << HIST_STEPS_LOG2) + (1 << HIST_STEPS_LOG2))

struct hist {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint32_t bucket[HIST_BUCKETS];
};

static inline unsigned hist_bucket_of(uint64_t v)
{
    unsigned log2;

    if (v < (1u << HIST_STEPS_LOG2))
        return (unsigned)v;
    log2 = 63 - (unsigned)__builtin_clzll(v);
    return ((log2 - HIST_STEPS_LOG2 + 1) << HIST_STEPS_LOG2) +
           (unsigned)((v >> (log2 - HIST_STEPS_LOG2)) & ((1u << HIST_STEPS_LOG2) - 1));
}

static inline void hist_add(struct hist *h, uint64_t v)
{
    h->count++;
    h->sum += v;
    if (v > h->max)
        h->max = v;
    h->bucket[hist_bucket_of(v)]++;
}

/** Adds all of `src` to `dst`. */
void hist_merge(struct hist *dst, const struct hist *src);

/** The upper edge of the step that holds the given share (0.99 = p99) of values; 0 when empty. */
uint64_t hist_percentile(const struct hist *h, double share);

#endif
