/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers that follow from a seed and a purpose. */
#ifndef KVASIR_CRASH_DICE_H
#define KVASIR_CRASH_DICE_H

#include <stdbool.h>
#include <stdint.h>

struct dice {
    uint64_t state;
};

static inline uint64_t dice_roll(struct dice *d)
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/** The dice of a seed for one purpose (any number): one more roll here changes nothing there. */
static inline struct dice dice_of(uint64_t seed, uint64_t purpose)
{
    struct dice d = {seed * 0x2545f4914f6cdd1du + purpose};

    d.state = dice_roll(&d) ^ purpose;
    return d;
}

/** 0 .. n-1 */
static inline uint64_t dice_below(struct dice *d, uint64_t n)
{
    return dice_roll(d) % n;
}

/** lo .. hi, both included. */
static inline uint64_t dice_between(struct dice *d, uint64_t lo, uint64_t hi)
{
    return lo + dice_below(d, hi - lo + 1);
}

static inline bool dice_one_in(struct dice *d, uint64_t n)
{
    return dice_below(d, n) == 0;
}

#endif
