/* SPDX-License-Identifier: Apache-2.0 */
/* The memtable against a sorted array, and its budget against all there is to reserve. */
#include "kv/drivers/blobkv/memtab.h"
#include "kv/drivers/blobkv/test_rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define KEYS 2000

static struct rng rng = {1};

struct model {
    uint8_t key[KEYS][48];
    uint32_t len[KEYS];
    uint64_t seq[KEYS]; /* 0: not there */
};

static struct bytes key_of(const struct model *m, unsigned i)
{
    return bytes_make(m->key[i], m->len[i]);
}

static int by_key(const void *a, const void *b, void *arg)
{
    return bytes_cmp(key_of(arg, *(const unsigned *)a), key_of(arg, *(const unsigned *)b));
}

/* Keys of all kinds, no two the same. */
static void make_keys(struct model *m)
{
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned len = 2 + rng_below(&rng, 38);

        for (unsigned k = 0; k < len; k++)
            m->key[i][k] = rng_below(&rng, 3) == 0 ? (uint8_t)rng_u64(&rng) : 7;
        m->key[i][len++] = (uint8_t)i;
        m->key[i][len++] = (uint8_t)(i >> 8);
        m->len[i] = len;
    }
}

static void put_finds_and_seeks(void **state)
{
    CLEANUP(free_p) struct model *model = calloc(1, sizeof(*model));
    struct bkv_memtab *m = bkv_memtab_new(4 * MIB);
    CLEANUP(free_p) unsigned *sorted = calloc(KEYS, sizeof(*sorted));
    const struct bkv_mem_entry *e;
    unsigned nsorted = 0, at = 0;

    (void)state;
    make_keys(model);
    for (unsigned n = 1; n <= 6000; n++) {
        unsigned i = rng_below(&rng, KEYS);
        struct bkv_place place = {.addr = 16 * n, .seq = n, .rec_len = 16}, old = {0};
        uint64_t changes = bkv_memtab_changes(m);
        bool was;

        assert_true(bkv_memtab_reserve(m, model->len[i]));
        was = bkv_memtab_put(m, key_of(model, i), &place, &old);
        assert_int_equal(was, model->seq[i] != 0);
        assert_int_equal(old.seq, model->seq[i]);
        assert_int_equal(bkv_memtab_changes(m) != changes, !was);
        model->seq[i] = n;
    }
    for (unsigned i = 0; i < KEYS; i++) {
        e = bkv_memtab_find(m, key_of(model, i));
        assert_int_equal(e == NULL ? 0 : e->place.seq, model->seq[i]);
        if (e != NULL)
            sorted[nsorted++] = i;
    }
    assert_int_equal(bkv_memtab_count(m), nsorted);
    qsort_r(sorted, nsorted, sizeof(*sorted), by_key, model);
    for (e = bkv_memtab_seek(m, bytes_make(NULL, 0), false); e != NULL;
         e = bkv_memtab_seek(m, art_key_bytes(&e->key), true)) {
        assert_true(at < nsorted);
        assert_true(bytes_eq(art_key_bytes(&e->key), key_of(model, sorted[at])));
        assert_ptr_equal(bkv_memtab_seek(m, key_of(model, sorted[at]), false), e);
        at++;
    }
    assert_int_equal(at, nsorted);
    bkv_memtab_reset(m);
    assert_int_equal(bkv_memtab_count(m), 0);
    assert_int_equal(bkv_memtab_bytes(m), 0);
    assert_null(bkv_memtab_find(m, key_of(model, 0)));
    assert_null(bkv_memtab_seek(m, bytes_make(NULL, 0), false));
    bkv_memtab_free(m);
}

enum { RANDOM16, DECIMAL, LONG_PREFIX, FANOUT, STYLES };

static struct bytes style_key(unsigned style, uint32_t n, uint8_t *buf)
{
    memset(buf, 'x', 2048);
    switch (style) {
    case RANDOM16:
        for (unsigned i = 0; i < 16; i += 8) {
            uint64_t v = rng_u64(&rng);

            memcpy(buf + i, &v, 8);
        }
        return bytes_make(buf, 16);
    case DECIMAL:
        return bytes_make(buf, (size_t)snprintf((char *)buf, 2048, "key-%09u", n));
    case LONG_PREFIX:
        for (unsigned i = 0; i < 4; i++)
            buf[500 * (i + 1)] = (uint8_t)rng_u64(&rng);
        return bytes_make(buf, 2048);
    default: /* every node grows through all its kinds at about the same time */
        buf[0] = (uint8_t)(n % 64);
        buf[1] = (uint8_t)(n / 64 % 256);
        buf[2] = (uint8_t)(n / 64 / 256);
        return bytes_make(buf, 3);
    }
}

/* Whatever the keys are: what was reserved can be put, and the budget holds. The reserves are taken
 * in lots, so that many are out at once. */
static void budget_holds(void **state)
{
    CLEANUP(free_p) uint8_t *buf = malloc(2048);

    (void)state;
    for (unsigned style = 0; style < STYLES; style++) {
        for (unsigned lot = 1; lot <= 1024; lot *= 32) {
            const uint64_t budget = 3 * MIB;
            struct bkv_memtab *m = bkv_memtab_new(budget);
            uint32_t n = 0, reserved, len;

            do {
                len = (uint32_t)style_key(style, n, buf).len;
                for (reserved = 0; reserved < lot && bkv_memtab_reserve(m, len); reserved++)
                    ;
                assert_true(bkv_memtab_bytes(m) <= budget);
                for (uint32_t i = 0; i < reserved; i++) {
                    struct bkv_place place = {.seq = n + 1};

                    bkv_memtab_put(m, style_key(style, n++, buf), &place, NULL);
                    assert_true(bkv_memtab_bytes(m) <= budget);
                }
            } while (reserved == lot);
            assert_true(bkv_memtab_share(m) > 0.4);
            if (lot == 1) {
                assert_true(bkv_memtab_share(m) > 0.95);
                assert_true(bkv_memtab_share(m) <= 1.1);
            }
            bkv_memtab_free(m);
        }
    }
}

static void unreserve_gives_back(void **state)
{
    struct bkv_memtab *m = bkv_memtab_new(1);
    unsigned n = 0;

    (void)state;
    assert_int_equal(bkv_memtab_bytes(m), 0);
    while (bkv_memtab_reserve(m, 2048))
        n++;
    assert_true(n > 100);
    assert_true(bkv_memtab_bytes(m) <= MIB);
    while (n-- > 0)
        bkv_memtab_unreserve(m, 2048);
    assert_int_equal(bkv_memtab_bytes(m), 0);
    bkv_memtab_free(m);
}

static void speed(void **state)
{
    const uint32_t n = 200000;
    struct bkv_memtab *m = bkv_memtab_new(64 * MIB);
    CLEANUP(free_p) uint64_t(*keys)[2] = malloc(n * sizeof(*keys));
    const struct bkv_mem_entry *e;
    uint32_t count = 0;
    uint64_t since;

    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        keys[i][0] = rng_u64(&rng);
        keys[i][1] = rng_u64(&rng);
    }
    since = stopwatch();
    for (uint32_t i = 0; i < n; i++) {
        struct bkv_place place = {.addr = i, .seq = i + 1};

        assert_true(bkv_memtab_reserve(m, 16));
        bkv_memtab_put(m, bytes_make(keys[i], 16), &place, NULL);
    }
    stopwatch_say("memtab reserve and put", since, n);
    since = stopwatch();
    for (e = bkv_memtab_seek(m, bytes_make(NULL, 0), false); e != NULL;
         e = bkv_memtab_seek(m, art_key_bytes(&e->key), true))
        count++;
    stopwatch_say("memtab next", since, n);
    assert_int_equal(count, n);
    assert_true(bkv_memtab_bytes(m) < n * 140ull);
    bkv_memtab_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_finds_and_seeks),
        cmocka_unit_test(budget_holds),
        cmocka_unit_test(unreserve_gives_back),
        cmocka_unit_test(speed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
