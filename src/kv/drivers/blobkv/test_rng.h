/* SPDX-License-Identifier: Apache-2.0 */
/* What the index's unit tests share: numbers that are the same each time, and a stopwatch that
 * talks when KVASIR_TEST_SPEED is set. */
#ifndef KVASIR_KV_BLOBKV_TEST_RNG_H
#define KVASIR_KV_BLOBKV_TEST_RNG_H

#include "base/util.h"

#include <stdio.h>
#include <time.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t x = (r->state += 0x9e3779b97f4a7c15ull);

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static inline uint32_t rng_below(struct rng *r, uint32_t below)
{
    return (uint32_t)((rng_u64(r) >> 32) * below >> 32);
}

static inline uint64_t stopwatch(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static inline void stopwatch_say(const char *what, uint64_t since_ns, uint64_t n)
{
    if (getenv("KVASIR_TEST_SPEED") != NULL && n > 0)
        fprintf(stderr, "%s: %.1f ns each\n", what, (double)(stopwatch() - since_ns) / (double)n);
}

#endif
