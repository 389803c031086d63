/* SPDX-License-Identifier: Apache-2.0 */
/* The location table: what it keeps, what it costs, and that it never names an old place. */
#include "kv/drivers/blobkv/hot.h"
#include "kv/drivers/blobkv/test_rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static uint64_t hash_of(uint64_t n)
{
    struct rng r = {n * 0x2545f4914f6cdd1dull + 99};

    return rng_u64(&r);
}

static uint64_t addr_of(uint64_t n, uint32_t life)
{
    return 512 + n * 4144 / 16 * 16 + (uint64_t)life * 16 * MIB * 512;
}

/* How many of the keys first..first+n-1 it finds, and where they are in this life. */
static uint64_t found(const struct bkv_hot *h, uint64_t first, uint64_t n, uint32_t life,
                      uint64_t *out_right)
{
    uint64_t hits = 0;

    *out_right = 0;
    for (uint64_t i = first; i < first + n; i++) {
        struct bkv_hot_hit hit;

        if (bkv_hot_find(h, hash_of(i), &hit, 1) == 0)
            continue;
        hits++;
        if (hit.addr == addr_of(i, life) / 512 * 512) {
            assert_true(hit.read_bytes >= addr_of(i, life) % 512 + 4144);
            assert_true(hit.read_bytes <= 5120);
            (*out_right)++;
        }
    }
    return hits;
}

/* At any size: 10 bytes a key, 98 % kept, few false candidates; while it grows as well. */
static void keeps_what_comes(void **state)
{
    struct bkv_hot *h = bkv_hot_new(64 * MIB);
    const uint64_t n = 1500000;
    uint64_t check_at = 100000, right, wrong;

    (void)state;
    assert_true(bkv_hot_bytes(h) < 256 * KIB);
    for (uint64_t i = 0; i < n; i++) {
        bkv_hot_set(h, hash_of(i), addr_of(i, 0), 4144);
        if (i + 1 == check_at) {
            (void)found(h, 0, i + 1, 0, &right);
            assert_true(right * 100 >= (i + 1) * 98);
            assert_true(bkv_hot_bytes(h) <= (i + 1) * 10);
            assert_true(bkv_hot_count(h) >= right);
            assert_true(found(h, 10 * n, 100000, 0, &wrong) < 2000);
            check_at += check_at / 13;
        }
    }
    bkv_hot_free(h);
}

/* A table that was told what will come holds it at once, and goes on growing from there. */
static void expects_what_comes(void **state)
{
    for (uint64_t n = 1000; n < 400000; n = n * 3 / 2) {
        struct bkv_hot *h = bkv_hot_new(64 * MIB);
        uint64_t right, before;

        (void)state;
        bkv_hot_expect(h, n);
        before = bkv_hot_bytes(h);
        assert_true(before <= MAX(n * 10, 256 * KIB));
        for (uint64_t i = 0; i < n; i++)
            bkv_hot_learn(h, hash_of(i), addr_of(i, 0), 4144);
        assert_true(bkv_hot_bytes(h) <= MAX(n * 10, 256 * KIB));
        bkv_hot_expect(h, 10 * n); /* not while it holds something */
        for (uint64_t i = n; i < 2 * n; i++)
            bkv_hot_set(h, hash_of(i), addr_of(i, 0), 4144);
        (void)found(h, 0, 2 * n, 0, &right);
        assert_true(right * 100 >= 2 * n * 98);
        assert_true(bkv_hot_bytes(h) <= MAX(2 * n * 10, 256 * KIB));
        bkv_hot_free(h);
    }
}

/* Sets, deletes and moves of keys that come and go: a hit that is not of another key is current. */
static void never_names_an_old_place(void **state)
{
    enum { KEYS = 40000 };
    struct rng rng = {5};
    struct bkv_hot *h = bkv_hot_new(KEYS * 6ull);                 /* so small that it forgets */
    CLEANUP(free_p) uint32_t *life = calloc(KEYS, sizeof(*life)); /* 0: not there */
    CLEANUP(free_p) uint32_t *past = calloc(KEYS, sizeof(*past));
    unsigned kept = 0;

    (void)state;
    for (unsigned i = 0; i < 1000000; i++) {
        unsigned k = rng_below(&rng, KEYS), what = rng_below(&rng, 10);
        struct bkv_hot_hit hit;

        if (what < 4) {
            life[k] = ++past[k] % 200 + 1;
            bkv_hot_set(h, hash_of(k), addr_of(k, life[k]), 100 + what);
        } else if (what < 6) {
            life[k] = 0;
            bkv_hot_del(h, hash_of(k));
        } else if (what == 6 && life[k] != 0) {
            bkv_hot_learn(h, hash_of(k), addr_of(k, life[k]), 100);
        } else if (what == 7 && life[k] != 0) {
            uint32_t from = life[k];

            life[k] = ++past[k] % 200 + 1;
            bkv_hot_move(h, hash_of(k), addr_of(k, from), addr_of(k, life[k]), 100);
            /* A place it has no more is not moved. */
            bkv_hot_move(h, hash_of(k), addr_of(k, from), addr_of(k, 250), 100);
        } else if (bkv_hot_find(h, hash_of(k), &hit, 1) == 1) {
            for (uint32_t l = 1; l <= 250; l++) {
                if (hit.addr == addr_of(k, l) / 512 * 512)
                    assert_int_equal(l, life[k]);
            }
        }
    }
    for (unsigned k = 0; k < KEYS; k++) {
        struct bkv_hot_hit hit;

        if (bkv_hot_find(h, hash_of(k), &hit, 1) == 1)
            kept++;
    }
    assert_true(bkv_hot_bytes(h) <= KEYS * 6ull);
    assert_true(bkv_hot_count(h) <= KEYS * 6ull / 8);
    assert_true(kept > KEYS / 3);
    bkv_hot_free(h);
}

static void sizes_and_limits(void **state)
{
    struct bkv_hot *h = bkv_hot_new(4096);
    struct bkv_hot_hit hit;

    (void)state;
    for (uint32_t off = 0; off < 512; off += 16) {
        for (uint32_t len = 16; len < 40000; len += 16) {
            bkv_hot_set(h, 7, 65536 + off, len);
            assert_int_equal(bkv_hot_find(h, 7, &hit, 4), 1);
            assert_int_equal(hit.addr, 65536);
            assert_true(hit.read_bytes >= off + len);
            assert_true(hit.read_bytes < off + len + 1536);
            assert_int_equal(hit.read_bytes % 512, 0);
        }
    }
    /* What it cannot say it forgets. */
    bkv_hot_set(h, 7, 1ull << 45, 100);
    assert_int_equal(bkv_hot_find(h, 7, &hit, 4), 0);
    bkv_hot_free(h);
    h = bkv_hot_new(0);
    bkv_hot_set(h, 7, 65536, 100);
    bkv_hot_learn(h, 7, 65536, 100);
    bkv_hot_move(h, 7, 65536, 131072, 100);
    bkv_hot_del(h, 7);
    assert_int_equal(bkv_hot_find(h, 7, &hit, 4), 0);
    assert_int_equal(bkv_hot_bytes(h), 0);
    bkv_hot_free(h);
}

static void speed(void **state)
{
    enum { KEYS = 100000 };
    struct bkv_hot *h = bkv_hot_new(64 * MIB);
    CLEANUP(free_p) uint64_t *hash = calloc(KEYS, sizeof(*hash));
    uint64_t since, hits = 0;

    (void)state;
    for (unsigned i = 0; i < KEYS; i++)
        hash[i] = hash_of(i);
    since = stopwatch();
    for (unsigned i = 0; i < KEYS; i++)
        bkv_hot_set(h, hash[i], addr_of(i, 0), 4144);
    stopwatch_say("hot set, growing", since, KEYS);
    for (unsigned round = 0; round < 3; round++) {
        struct bkv_hot_hit hit;

        since = stopwatch();
        for (unsigned i = 0; i < KEYS; i++)
            hits += bkv_hot_find(h, hash[i], &hit, 1);
        stopwatch_say("hot find", since, KEYS);
    }
    assert_true(hits > 3 * KEYS / 100 * 98);
    bkv_hot_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_comes),
        cmocka_unit_test(expects_what_comes),
        cmocka_unit_test(never_names_an_old_place),
        cmocka_unit_test(sizes_and_limits),
        cmocka_unit_test(speed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
