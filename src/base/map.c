/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include "base/endian.h"
#include "base/must.h"
#include "base/util.h"

#include <errno.h>

int map_init(struct map *m, size_t hint)
{
    size_t n = 16;

    while (n < hint)
        n *= 2;
    m->bucket = calloc(n, sizeof(*m->bucket));
    if (m->bucket == NULL)
        return -ENOMEM;
    m->mask = n - 1;
    m->count = 0;
    return 0;
}

void map_fini(struct map *m)
{
    free(m->bucket);
    m->bucket = NULL;
}

static void map_grow(struct map *m)
{
    size_t n = (m->mask + 1) * 2;
    struct map_node **bucket = calloc(n, sizeof(*bucket));

    if (bucket == NULL)
        return;
    for (size_t i = 0; i <= m->mask; i++) {
        struct map_node *next;

        for (struct map_node *e = m->bucket[i]; e != NULL; e = next) {
            next = e->next;
            e->next = bucket[e->hash & (n - 1)];
            bucket[e->hash & (n - 1)] = e;
        }
    }
    free(m->bucket);
    m->bucket = bucket;
    m->mask = n - 1;
}

void map_add(struct map *m, struct map_node *node, uint64_t hash)
{
    if (m->count > m->mask)
        map_grow(m);
    node->hash = hash;
    node->next = m->bucket[hash & m->mask];
    m->bucket[hash & m->mask] = node;
    m->count++;
}

void map_del(struct map *m, struct map_node *node)
{
    struct map_node **p = &m->bucket[node->hash & m->mask];

    while (*p != node) {
        must(*p != NULL);
        p = &(*p)->next;
    }
    *p = node->next;
    node->next = NULL;
    m->count--;
}

struct map_node *map_first(const struct map *m, uint64_t hash)
{
    struct map_node *e = m->bucket[hash & m->mask];

    while (e != NULL && e->hash != hash)
        e = e->next;
    return e;
}

struct map_node *map_next(const struct map_node *node)
{
    struct map_node *e = node->next;

    while (e != NULL && e->hash != node->hash)
        e = e->next;
    return e;
}

static uint64_t seed_k0 = 0x6b76617369720001ull;
static uint64_t seed_k1 = 0x9ae16a3b2f90404full;

void hash_seed(uint64_t k0, uint64_t k1)
{
    seed_k0 = k0;
    seed_k1 = k1;
}

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND                                                                                  \
    do {                                                                                           \
        v0 += v1;                                                                                  \
        v1 = ROTL(v1, 13) ^ v0;                                                                    \
        v0 = ROTL(v0, 32);                                                                         \
        v2 += v3;                                                                                  \
        v3 = ROTL(v3, 16) ^ v2;                                                                    \
        v0 += v3;                                                                                  \
        v3 = ROTL(v3, 21) ^ v0;                                                                    \
        v2 += v1;                                                                                  \
        v1 = ROTL(v1, 17) ^ v2;                                                                    \
        v2 = ROTL(v2, 32);                                                                         \
    } while (0)

/* SipHash (Aumasson, Bernstein 2012) with one compression and three finalization rounds. */
uint64_t hash_bytes_keyed(uint64_t k0, uint64_t k1, struct bytes b)
{
    uint64_t v0 = k0 ^ 0x736f6d6570736575ull;
    uint64_t v1 = k1 ^ 0x646f72616e646f6dull;
    uint64_t v2 = k0 ^ 0x6c7967656e657261ull;
    uint64_t v3 = k1 ^ 0x7465646279746573ull;
    uint64_t last = (uint64_t)b.len << 56;
    size_t whole = b.len & ~(size_t)7;

    for (size_t i = 0; i < whole; i += 8) {
        uint64_t m = le64_at(b.ptr + i);

        v3 ^= m;
        SIP_ROUND;
        v0 ^= m;
    }
    for (size_t i = whole; i < b.len; i++)
        last |= (uint64_t)b.ptr[i] << (8 * (i - whole));
    v3 ^= last;
    SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

uint64_t hash_bytes(struct bytes b)
{
    return hash_bytes_keyed(seed_k0, seed_k1, b);
}
