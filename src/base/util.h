/* SPDX-License-Identifier: Apache-2.0 */
/* The few macros everything uses: scope cleanup, containers, arithmetic. */
#ifndef KVASIR_BASE_UTIL_H
#define KVASIR_BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/** Runs fn(&variable) when the variable leaves its scope; fn accepts NULL and half-made objects. */
#define CLEANUP(fn) __attribute__((cleanup(fn)))

/** Hands the pointer in *pp over: returns it and leaves NULL behind, so a CLEANUP does nothing. */
#define take_ptr(pp)                                                                               \
    ({                                                                                             \
        __typeof__(*(pp)) taken_ = *(pp);                                                          \
        *(pp) = NULL;                                                                              \
        taken_;                                                                                    \
    })

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define UNUSED __attribute__((unused))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull
#define KIB 1024ull
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)

static inline uint64_t round_up_u64(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

/** For CLEANUP(free_p). */
static inline void free_p(void *pp)
{
    free(*(void **)pp);
}

#endif
