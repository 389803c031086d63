/* SPDX-License-Identifier: Apache-2.0 */
/* The cache against what was put last, its budget, and what stays of what is used. */
#include "kv/drivers/blobkv/cache.h"
#include "kv/drivers/blobkv/test_rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static uint8_t buf[BKV_CACHE_OBJ_MAX];

/* An object tells its address and its version all over. */
static struct bytes object(uint64_t addr, uint32_t version, uint32_t len)
{
    struct rng r = {addr * 1000 + version};

    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = rng_u64(&r);

        memcpy(buf + i, &v, MIN(len - i, 8u));
    }
    return bytes_make(buf, len);
}

enum { SLOTS = 3000, SLOT_BYTES = 176 };

static void random_history(void **state)
{
    uint64_t budget = MIB;
    struct rng rng = {3};
    struct bkv_cache *c = bkv_cache_new(budget);
    CLEANUP(free_p) uint32_t *version = calloc(SLOTS, sizeof(*version)); /* 0: not put */
    CLEANUP(free_p) uint32_t *len = calloc(SLOTS, sizeof(*len));
    unsigned hits = 0;

    (void)state;
    for (uint32_t i = 1; i < 300000; i++) {
        unsigned k = rng_below(&rng, SLOTS), what = rng_below(&rng, 100);
        uint64_t addr = 4096 + k * SLOT_BYTES;

        if (what < 45) {
            struct bytes got = bkv_cache_get(c, addr);

            if (got.ptr == NULL)
                continue;
            hits++;
            assert_int_not_equal(version[k], 0);
            assert_true(bytes_eq(got, object(addr, version[k], len[k])));
        } else if (what < 90) {
            version[k] = i;
            len[k] = rng_below(&rng, 20) == 0 ? 1 + rng_below(&rng, BKV_CACHE_OBJ_MAX)
                                              : 1 + rng_below(&rng, 900);
            bkv_cache_put(c, addr, object(addr, version[k], len[k]));
        } else if (what < 99) {
            version[k] = 0;
            bkv_cache_del(c, addr);
        } else if (rng_below(&rng, 4) == 0) {
            budget = 512 * KIB + rng_below(&rng, 512 * KIB + 1);
            bkv_cache_limit(c, budget);
        } else {
            unsigned n = 1 + rng_below(&rng, 20);

            bkv_cache_drop(c, addr, n * SLOT_BYTES);
            for (unsigned j = k; j < MIN(k + n, (unsigned)SLOTS); j++)
                version[j] = 0;
        }
        assert_true(bkv_cache_bytes(c) <= budget);
    }
    assert_true(hits > 10000);
    bkv_cache_free(c);
}

static bool is_version(void *arg, uint64_t addr, struct bytes obj)
{
    return bytes_eq(obj, object(addr, *(uint32_t *)arg, 100));
}

static void finds_by_sector(void **state)
{
    struct bkv_cache *c = bkv_cache_new(MIB);

    (void)state;
    for (uint32_t i = 0; i < 64; i++)
        bkv_cache_put(c, 8192 + i * 112, object(8192 + i * 112, i, 100));
    for (uint32_t i = 0; i < 64; i++) {
        uint64_t addr = 8192 + i * 112;
        struct bytes got = bkv_cache_get_in(c, addr / 512 * 512, 512, is_version, &i);

        assert_true(bytes_eq(got, object(addr, i, 100)));
        got = bkv_cache_get_in(c, addr / 4096 * 4096, 4096, is_version, &i);
        assert_true(bytes_eq(got, object(addr, i, 100)));
        got = bkv_cache_get_in(c, addr / 512 * 512 + 512, 512, is_version, &i);
        assert_null(got.ptr);
    }
    bkv_cache_free(c);
}

/* What is used now and then survives a long scan of what is not. */
static void keeps_what_is_used(void **state)
{
    struct bkv_cache *c = bkv_cache_new(4 * MIB);
    unsigned kept = 0;

    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t used = 4096 * (1 + i % 400);

        if (bkv_cache_get(c, used).ptr == NULL)
            bkv_cache_put(c, used, object(used, 0, 4096));
        bkv_cache_put(c, GIB + i * 4096, object(i, 0, 4096));
    }
    for (uint64_t i = 0; i < 400; i++)
        kept += bkv_cache_get(c, 4096 * (1 + i)).ptr != NULL;
    assert_true(kept > 390);
    /* It does fill its budget, up to a chunk. */
    assert_true(bkv_cache_bytes(c) > 4 * MIB - 192 * KIB);
    bkv_cache_free(c);
}

/* What is over the limit goes at once, the oldest first; without one it fills up again. */
static void shrinks_and_grows(void **state)
{
    struct bkv_cache *c = bkv_cache_new(4 * MIB);
    uint64_t n = 2000;

    (void)state;
    for (int round = 0; round < 20; round++) {
        uint64_t kept = 0;

        bkv_cache_limit(c, 4 * MIB);
        for (uint64_t i = 0; i < n; i++)
            bkv_cache_put(c, 4096 * (1 + i), object(i, 0, 4096));
        assert_true(bkv_cache_bytes(c) > 4 * MIB - 192 * KIB);
        bkv_cache_limit(c, MIB);
        assert_true(bkv_cache_bytes(c) <= MIB);
        while (kept < n && bkv_cache_get(c, 4096 * (n - kept)).ptr != NULL)
            kept++;
        assert_true(kept > 150);
        assert_true(kept < 256);
        for (uint64_t i = 0; i < n - kept; i++)
            assert_null(bkv_cache_get(c, 4096 * (1 + i)).ptr);
    }
    bkv_cache_limit(c, 0);
    assert_true(bkv_cache_bytes(c) <= 320 * KIB);
    bkv_cache_put(c, 4096, object(7, 0, 4096));
    assert_true(bytes_eq(bkv_cache_get(c, 4096), object(7, 0, 4096)));
    bkv_cache_free(c);
}

static void none(void **state)
{
    struct bkv_cache *c = bkv_cache_new(1000);
    uint32_t version = 1;

    (void)state;
    bkv_cache_put(c, 4096, object(4096, 1, 100));
    assert_null(bkv_cache_get(c, 4096).ptr);
    assert_null(bkv_cache_get_in(c, 4096, 512, is_version, &version).ptr);
    bkv_cache_del(c, 4096);
    bkv_cache_drop(c, 0, 1 << 20);
    assert_int_equal(bkv_cache_bytes(c), 0);
    bkv_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_history),
        cmocka_unit_test(finds_by_sector),
        cmocka_unit_test(keeps_what_is_used),
        cmocka_unit_test(shrinks_and_grows),
        cmocka_unit_test(none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
