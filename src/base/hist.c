/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hist.h"

#include "base/util.h"

void hist_merge(struct hist *dst, const struct hist *src)
{
    dst->count += src->count;
    dst->sum += src->sum;
    dst->max = MAX(dst->max, src->max);
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        dst->bucket[i] += src->bucket[i];
}

static uint64_t bucket_end(unsigned b)
{
    unsigned log2;
    uint64_t step;

    if (b < (1u << HIST_STEPS_LOG2))
        return b;
    log2 = (b >> HIST_STEPS_LOG2) + HIST_STEPS_LOG2 - 1;
    step = 1ull << (log2 - HIST_STEPS_LOG2);
    return (1ull << log2) + ((b & ((1u << HIST_STEPS_LOG2) - 1)) + 1) * step - 1;
}

uint64_t hist_percentile(const struct hist *h, double share)
{
    uint64_t want = (uint64_t)((double)h->count * share + 0.5);
    uint64_t seen = 0;

    if (h->count == 0)
        return 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= MAX(want, 1u))
            return MIN(bucket_end(i), h->max);
    }
    return h->max;
}
