/* SPDX-License-Identifier: Apache-2.0 */
/* The tree against a sorted array, with keys that share prefixes and are prefixes of others. */
#include "base/art.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define KEYS 3000

static uint64_t rng_state = 88172645463325252ull;

static uint32_t rnd(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 16) % below;
}

static int by_key(const void *a, const void *b)
{
    return bytes_cmp(art_key_bytes(*(struct art_key *const *)a),
                     art_key_bytes(*(struct art_key *const *)b));
}

/* Few different bytes and long runs, so that every kind of split and merge happens. */
static struct art_key *make_key(unsigned style)
{
    unsigned len = style == 0 ? 1 + rnd(40) : style == 1 ? 16 : 1 + rnd(3);
    struct art_key *k = malloc(sizeof(*k) + len);

    k->len = (uint16_t)len;
    for (unsigned i = 0; i < len; i++)
        k->bytes[i] = (uint8_t)(style == 0 ? (rnd(12) == 0 ? 255 * rnd(2) : 7) : rnd(256));
    return k;
}

static size_t place(struct art_key **sorted, size_t n, struct bytes key)
{
    size_t lo = 0, hi = n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (bytes_cmp(art_key_bytes(sorted[mid]), key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void check_against(const struct art *a, struct art_key **sorted, size_t n)
{
    struct art_key *k = art_seek(a, bytes_make(NULL, 0), false);

    assert_int_equal(a->count, n);
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(k, sorted[i]);
        k = art_seek(a, art_key_bytes(k), true);
    }
    assert_null(k);
    assert_ptr_equal(art_last(a), n == 0 ? NULL : sorted[n - 1]);
    for (unsigned i = 0; i < 500; i++) {
        struct art_key *probe = make_key(rnd(3));
        size_t at = place(sorted, n, art_key_bytes(probe));
        bool there = at < n && bytes_eq(art_key_bytes(sorted[at]), art_key_bytes(probe));

        assert_ptr_equal(art_find(a, art_key_bytes(probe)), there ? sorted[at] : NULL);
        assert_ptr_equal(art_seek(a, art_key_bytes(probe), false), at < n ? sorted[at] : NULL);
        at += there;
        assert_ptr_equal(art_seek(a, art_key_bytes(probe), true), at < n ? sorted[at] : NULL);
        free(probe);
    }
}

static void test_model(void **state)
{
    struct slab slab;
    struct art a;
    static struct art_key *keys[KEYS];
    size_t n = 0;

    assert_int_equal(slab_init(&slab, 16 * MIB), 0);
    art_init(&a, &slab);
    for (unsigned round = 0; round < 6; round++) {
        size_t target = round % 2 == 0 ? KEYS : 20 * round;

        while (n < target) {
            struct art_key *k = make_key(rnd(3));

            if (art_add(&a, k) == 0)
                keys[n++] = k;
            else
                free(k);
        }
        while (n > target) {
            size_t i = rnd((uint32_t)n);

            art_del(&a, keys[i]);
            free(keys[i]);
            keys[i] = keys[--n];
        }
        qsort(keys, n, sizeof(*keys), by_key);
        check_against(&a, keys, n);
    }
    while (n > 0) {
        art_del(&a, keys[--n]);
        free(keys[n]);
    }
    assert_null(a.root);
    assert_int_equal(slab_used(&slab), 0);
    slab_fini(&slab);
}

static void test_full_slab_leaves_tree_whole(void **state)
{
    struct slab slab;
    struct art a;
    static struct art_key *keys[200000];
    size_t n = 0, refused = 0;

    assert_int_equal(slab_init(&slab, MIB), 0);
    art_init(&a, &slab);
    while (refused < 100 && n < ARRAY_LEN(keys)) {
        struct art_key *k = make_key(rnd(2));
        int rc = art_add(&a, k);

        if (rc == 0)
            keys[n++] = k;
        else
            free(k);
        refused += rc == -ENOMEM;
    }
    assert_int_equal(refused, 100);
    qsort(keys, n, sizeof(*keys), by_key);
    check_against(&a, keys, n);
    for (size_t i = 0; i < n; i++) {
        art_del(&a, keys[i]);
        free(keys[i]);
    }
    slab_fini(&slab);
}

static void test_slab_bound(void **state)
{
    struct slab slab;
    static uint8_t *obj[70000];
    size_t n = 0;

    assert_int_equal(slab_init(&slab, 512 * KIB), -EINVAL);
    assert_int_equal(slab_init(&slab, 4 * MIB), 0);
    for (unsigned round = 0; round < 4; round++) {
        for (;;) {
            size_t len = 1 + rnd(round % 2 == 0 ? SLAB_SPAN_BYTES : 5000);
            uint8_t *o = slab_alloc(&slab, len);

            if (o == NULL)
                break;
            memset(o, (int)(n & 0xff), len);
            memcpy(o, &len, MIN(len, sizeof(len)));
            obj[n++] = o;
        }
        assert_true(slab_used(&slab) <= 4 * MIB);
        assert_true(slab_used(&slab) > 2 * MIB);
        while (n > 0)
            slab_free(&slab, obj[--n]);
        assert_int_equal(slab_used(&slab), 0);
    }
    assert_true(slab_charge(&slab, 3 * MIB));
    assert_false(slab_charge(&slab, 2 * MIB));
    slab_uncharge(&slab, 3 * MIB);
    obj[0] = slab_alloc(&slab, SLAB_SPAN_BYTES);
    slab_share(&slab, obj[0]);
    slab_free(&slab, obj[0]);
    assert_int_equal(slab_used(&slab), SLAB_SPAN_BYTES);
    slab_free(&slab, obj[0]);
    assert_int_equal(slab_used(&slab), 0);
    slab_fini(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_full_slab_leaves_tree_whole),
        cmocka_unit_test(test_slab_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
