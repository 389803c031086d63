/* SPDX-License-Identifier: Apache-2.0 */
#include "blob/mask.h"

#include "base/endian.h"
#include "base/err.h"
#include "base/must.h"

static size_t room_bytes(uint64_t n)
{
    return (size_t)(n + 63) / 64 * 8;
}

int blob_mask_init(struct blob_mask *m, uint64_t n)
{
    *m = (struct blob_mask){.n = n};
    m->bits = calloc(1, room_bytes(n) + 8);
    return m->bits != NULL ? 0 : -ENOMEM;
}

void blob_mask_fini(struct blob_mask *m)
{
    free(m->bits);
    m->bits = NULL;
}

void blob_mask_count(struct blob_mask *m)
{
    for (uint64_t i = m->n; i < room_bytes(m->n) * 8; i++)
        m->bits[i >> 3] &= (uint8_t) ~(1u << (i & 7));
    m->used = 0;
    m->lowest = 0;
    for (size_t at = 0; at < room_bytes(m->n); at += 8)
        m->used += (uint64_t)__builtin_popcountll(le64_at(m->bits + at));
}

int blob_mask_grow(struct blob_mask *m, uint64_t n)
{
    size_t had = room_bytes(m->n) + 8, has = room_bytes(n) + 8;
    uint8_t *bits = realloc(m->bits, has);

    if (bits == NULL)
        return -ENOMEM;
    memset(bits + had, 0, has - had);
    m->bits = bits;
    m->n = n;
    return 0;
}

bool blob_mask_set(struct blob_mask *m, uint64_t i)
{
    if (blob_mask_test(m, i))
        return false;
    m->bits[i >> 3] |= (uint8_t)(1u << (i & 7));
    m->used++;
    return true;
}

bool blob_mask_clear(struct blob_mask *m, uint64_t i)
{
    if (!blob_mask_test(m, i))
        return false;
    m->bits[i >> 3] &= (uint8_t) ~(1u << (i & 7));
    m->used--;
    m->lowest = MIN(m->lowest, i);
    return true;
}

/* The first bit from `from` on that is not as in `skip` (all ones or all zeroes). */
static uint64_t next(const struct blob_mask *m, uint64_t from, uint64_t skip)
{
    while (from < m->n) {
        uint64_t word = (le64_at(m->bits + (from >> 6) * 8) ^ skip) >> (from & 63);

        if (word != 0) {
            from += (unsigned)__builtin_ctzll(word);
            return from < m->n ? from : BLOB_MASK_NONE;
        }
        from = (from | 63) + 1;
    }
    return BLOB_MASK_NONE;
}

uint64_t blob_mask_next_clear(struct blob_mask *m, uint64_t from)
{
    bool all = from <= m->lowest;
    uint64_t i = next(m, MAX(from, m->lowest), UINT64_MAX);

    if (all)
        m->lowest = i == BLOB_MASK_NONE ? m->n : i;
    return i;
}

uint64_t blob_mask_next_set(const struct blob_mask *m, uint64_t from)
{
    return next(m, from, 0);
}

uint64_t blob_mask_take(struct blob_mask *m)
{
    uint64_t i = blob_mask_next_clear(m, 0);

    if (i != BLOB_MASK_NONE)
        must(blob_mask_set(m, i));
    return i;
}

uint64_t blob_mask_take_run(struct blob_mask *m, uint64_t want, uint64_t *out_n)
{
    uint64_t best = BLOB_MASK_NONE, best_n = 0;

    for (uint64_t at = 0; best_n < want;) {
        uint64_t first = blob_mask_next_clear(m, at), end;

        if (first == BLOB_MASK_NONE)
            break;
        end = MIN(blob_mask_next_set(m, first), m->n);
        if (end - first > best_n) {
            best = first;
            best_n = end - first;
        }
        at = end;
    }
    if (best == BLOB_MASK_NONE)
        return BLOB_MASK_NONE;
    *out_n = MIN(best_n, want);
    for (uint64_t i = 0; i < *out_n; i++)
        must(blob_mask_set(m, best + i));
    return best;
}
