/* SPDX-License-Identifier: Apache-2.0 */
/* Leaves: the format byte by byte, searches against what was put in, and damage of every kind. */
#include "kv/drivers/blobkv/leaf.h"
#include "kv/drivers/blobkv/test_rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define ADDR 0x123456000ull
#define GEN 9u

static struct rng rng = {7};
static struct bkv_leaf_build build;
static uint8_t page[BKV_PAGE_BYTES], copy[BKV_PAGE_BYTES], scratch[BKV_KEY_MAX];

static void golden_bytes(void **state)
{
    /* clang-format off */
    static const uint8_t body[] = {
        0x07, 0, 0, 0, 0, 0, 0, 0, /* number */
        0x03, 0, 0x01, 0,          /* entries, restarts */
        0x60, 0, 0, 0,             /* end */
        /* nothing shared, 3 bytes; the record is 4 longer than head, key and value */
        0x00, 0x03, 'a', 'b', 'c', 0x04, 0x80, 0x04, 0x04, 0x05,
        /* "ab" shared; the record is too short to tell the value's length */
        0x02, 0x02, 'd', 'e', 0x10, 0x84, 0x04, 0x03, 0xac, 0x02, 0xa0, 0x1f,
        /* a large value of 2^40 bytes */
        0x00, 0x01, 'b', 0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x05, 0x01,
        0x80, 0x80, 0x80, 0x80, 0x80, 0x20,
    };
    /* clang-format on */
    const struct bkv_place a = {.addr = 8192, .seq = 5, .value_len = 25, .rec_len = 64, .type = 1};
    const struct bkv_place b = {
        .addr = 8256, .seq = 300, .value_len = 4000, .rec_len = 48, .type = 1};
    const struct bkv_place c = {.addr = ((1ull << 41) - 1) * 16,
                                .seq = 1,
                                .value_len = 1ull << 40,
                                .rec_len = 80,
                                .type = 2};
    uint32_t crc;

    (void)state;
    memset(page, 0xee, sizeof(page));
    bkv_leaf_begin(&build, page);
    assert_int_equal(bkv_leaf_add(&build, bytes_of_str("abc"), &a), 1);
    assert_int_equal(bkv_leaf_add(&build, bytes_of_str("abde"), &b), 1);
    assert_int_equal(bkv_leaf_add(&build, bytes_of_str("b"), &c), 1);
    assert_int_equal(bkv_leaf_add(&build, bytes_of_str("az"), &c), -EBADMSG);
    assert_int_equal(bkv_leaf_add(&build, bytes_of_str("b"), &c), -EBADMSG);
    bkv_leaf_end(&build, 7);
    assert_int_equal(bkv_leaf_seal(NULL, page, ADDR, GEN, &crc), 0);
    assert_int_equal(le32_at(page), crc);
    assert_int_equal(crc, bkv_crc(ADDR, GEN, page + 4, 4092));
    assert_memory_equal(page + 4, "BLEF", 4);
    assert_true(bytes_are_zero(page + 8, 32));
    assert_memory_equal(page + 40, body, sizeof(body));
    assert_true(bytes_are_zero(page + 40 + sizeof(body), 4094 - 40 - sizeof(body)));
    assert_int_equal(le16_at(page + 4094), 56);
    assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch), 0);
}

/* A leaf of random keys; returns how many. Keys are made again from their number. */
enum { KEYS_MAX = 600 };
static uint8_t keys[KEYS_MAX][BKV_KEY_MAX];
static uint32_t key_len[KEYS_MAX];
static struct bkv_place places[KEYS_MAX];

static struct bytes key_of(unsigned i)
{
    return bytes_make(keys[i], key_len[i]);
}

static int by_key(const void *a, const void *b)
{
    return bytes_cmp(key_of(*(const unsigned *)a), key_of(*(const unsigned *)b));
}

static struct bkv_place random_place(uint32_t len)
{
    struct bkv_place p = {
        .addr = 16 * (1 + (rng_u64(&rng) >> (20 + rng_below(&rng, 40)))),
        .seq = 1 + (rng_u64(&rng) >> rng_below(&rng, 64)),
        .type = rng_below(&rng, 5) == 0 ? BKV_LARGE_VALUE : BKV_VALUE,
    };

    p.rec_len = (uint32_t)round_up_u64(32 + len + rng_below(&rng, 33000), 16);
    p.value_len = p.type == BKV_LARGE_VALUE || rng_below(&rng, 4) == 0
                      ? rng_u64(&rng) >> rng_below(&rng, 64)
                      : p.rec_len - 32 - len - rng_below(&rng, 16);
    if (p.value_len > p.rec_len && p.type == BKV_VALUE)
        p.value_len = 0;
    return p;
}

/* style 0: short, few different bytes; 1: 16 random bytes; 2: long with a common beginning. */
static unsigned make_leaf(unsigned style, unsigned *order, uint32_t *out_crc)
{
    unsigned n = 0;

    for (unsigned i = 0; i < KEYS_MAX; i++) {
        uint32_t len = style == 0 ? 1 + rng_below(&rng, 12) : style == 1 ? 16 : 800;

        if (style == 2)
            len += rng_below(&rng, 1249);
        for (uint32_t k = 0; k < len; k++)
            keys[i][k] = style == 1 ? (uint8_t)rng_u64(&rng) : (uint8_t)('a' + rng_below(&rng, 3));
        if (style == 2)
            memset(keys[i], 'x', 600);
        key_len[i] = len;
        places[i] = random_place(len);
        order[i] = i;
    }
    qsort(order, KEYS_MAX, sizeof(*order), by_key);
    bkv_leaf_begin(&build, page);
    for (unsigned i = 0; i < KEYS_MAX; i++) {
        int rc;

        if (n > 0 && bytes_eq(key_of(order[n - 1]), key_of(order[i])))
            continue;
        rc = bkv_leaf_add(&build, key_of(order[i]), &places[order[i]]);
        if (rc == 0)
            break;
        assert_int_equal(rc, 1);
        order[n++] = order[i];
    }
    bkv_leaf_end(&build, 1);
    assert_int_equal(bkv_leaf_seal(NULL, page, ADDR, GEN, out_crc), 0);
    return n;
}

static bool same_place(const struct bkv_place *a, const struct bkv_place *b)
{
    return a->addr == b->addr && a->seq == b->seq && a->value_len == b->value_len &&
           a->rec_len == b->rec_len && a->type == b->type;
}

/* The first in order that is >= key, or > key. */
static unsigned model_seek(const unsigned *order, unsigned n, struct bytes key, bool after)
{
    unsigned i = 0;

    while (i < n && bytes_cmp(key_of(order[i]), key) < (after ? 1 : 0))
        i++;
    return i;
}

static void check_seek(const unsigned *order, unsigned n, struct bytes key, bool after)
{
    static uint8_t key_buf[BKV_KEY_MAX];
    unsigned at = model_seek(order, n, key, after);
    struct bkv_leaf_iter it;
    struct bkv_place place;

    bkv_leaf_first(&it, page, key_buf);
    assert_int_equal(bkv_leaf_seek(&it, key, after), 0);
    for (unsigned k = 0; k < 3; k++, at++) {
        int rc = bkv_leaf_next(&it, &place);

        assert_int_equal(rc, at < n ? 1 : 0);
        if (rc == 0)
            return;
        assert_true(bytes_eq(bytes_make(it.key, it.key_len), key_of(order[at])));
        assert_true(same_place(&place, &places[order[at]]));
    }
}

/* A run from the entry at `at` on gives what a walk does: keys with the prefix, below the limit, as
 * many as there is room for. */
static void check_run(const unsigned *order, unsigned n, unsigned at, struct bytes prefix,
                      struct bytes limit, size_t room)
{
    static uint8_t key_buf[BKV_KEY_MAX];
    uint8_t *buf = malloc(room); /* of its size, for ASan to look on */
    unsigned wanted = 0;
    struct bkv_leaf_iter it;
    struct bkv_place place;
    size_t used = MIN(room, 5u), sum = used;
    int got;

    assert_non_null(buf);
    bkv_leaf_first(&it, page, key_buf);
    assert_int_equal(bkv_leaf_seek(&it, key_of(order[at]), false), 0);
    assert_int_equal(bkv_leaf_next(&it, &place), 1);
    while (at + 1 + wanted < n) {
        struct bytes key = key_of(order[at + 1 + wanted]);

        if (!bytes_has_prefix(key, prefix) || (limit.ptr && bytes_cmp(key, limit) >= 0) ||
            sum + 2 + key.len > room)
            break;
        sum += 2 + key.len;
        wanted++;
    }
    got = bkv_leaf_run(&it, prefix, limit, buf, room, &used);
    assert_int_equal(got, wanted);
    assert_int_equal(used, sum);
    used = MIN(room, 5u);
    for (unsigned i = at + 1; i <= at + wanted; i++) {
        assert_int_equal(le16_at(buf + used), key_len[order[i]]);
        assert_memory_equal(buf + used + 2, keys[order[i]], key_len[order[i]]);
        used += 2 + key_len[order[i]];
    }
    /* And a walk goes on behind it. */
    assert_true(bytes_eq(bytes_make(it.key, it.key_len), key_of(order[at + wanted])));
    assert_int_equal(bkv_leaf_next(&it, &place), at + wanted + 1 < n ? 1 : 0);
    if (at + wanted + 1 < n) {
        assert_true(bytes_eq(bytes_make(it.key, it.key_len), key_of(order[at + wanted + 1])));
        assert_true(same_place(&place, &places[order[at + wanted + 1]]));
    }
    free(buf);
}

static void runs_of_keys(void **state)
{
    unsigned order[KEYS_MAX];

    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        uint32_t crc;
        unsigned n = make_leaf(round % 3, order, &crc);
        unsigned at = rng_below(&rng, n);
        struct bytes key = key_of(order[at]), limit = key_of(order[rng_below(&rng, n)]);
        size_t room = rng_below(&rng, 3) == 0 ? 20000 : rng_below(&rng, 3000);

        assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch), 0);
        key.len = rng_below(&rng, (uint32_t)MIN(key.len, 4u) + 1);
        check_run(order, n, at, key, (struct bytes){0}, room);
        check_run(order, n, at, (struct bytes){0}, bytes_cmp(limit, key) > 0 ? limit : key, room);
        check_run(order, n, at, key, limit, room);
    }
}

static void finds_what_was_added(void **state)
{
    unsigned order[KEYS_MAX];

    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        uint32_t crc;
        unsigned n = make_leaf(round % 3, order, &crc);
        struct bkv_place place;

        assert_true(n >= 2 || round % 3 == 2);
        assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch), 0);
        assert_int_equal(bkv_leaf_count(page), n);
        for (unsigned i = 0; i < KEYS_MAX; i++) {
            unsigned at = model_seek(order, n, key_of(i), false);
            bool there = at < n && bytes_eq(key_of(order[at]), key_of(i));

            assert_int_equal(bkv_leaf_find(page, key_of(i), &place), there ? 0 : -ENOENT);
            if (there)
                assert_true(same_place(&place, &places[order[at]]));
            if (i % 7 == 0) {
                check_seek(order, n, key_of(i), false);
                check_seek(order, n, key_of(i), true);
                check_seek(order, n, bytes_make(keys[i], key_len[i] / 2), false);
            }
        }
    }
}

static void longest_keys_fit(void **state)
{
    const struct bkv_place worst = {.addr = (1ull << 48) - 16,
                                    .seq = UINT64_MAX,
                                    .value_len = UINT64_MAX,
                                    .rec_len = UINT32_MAX & ~15u,
                                    .type = BKV_LARGE_VALUE};
    struct bkv_place place;
    uint32_t crc;

    (void)state;
    for (unsigned i = 0; i < BKV_KEY_MAX; i++)
        keys[0][i] = (uint8_t)rng_u64(&rng);
    bkv_leaf_begin(&build, page);
    build.limit = 100;
    assert_int_equal(bkv_leaf_add(&build, bytes_make(keys[0], BKV_KEY_MAX), &worst), 1);
    bkv_leaf_end(&build, UINT64_MAX);
    assert_int_equal(bkv_leaf_seal(NULL, page, ADDR, GEN, &crc), 0);
    assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch), 0);
    assert_int_equal(bkv_leaf_find(page, bytes_make(keys[0], BKV_KEY_MAX), &place), 0);
    assert_true(same_place(&place, &worst));
    assert_int_equal(bkv_leaf_find(page, bytes_make(keys[0], BKV_KEY_MAX - 1), &place), -ENOENT);
}

static void elsewhere_or_flipped(void **state)
{
    unsigned order[KEYS_MAX];
    uint32_t crc;

    (void)state;
    (void)make_leaf(1, order, &crc);
    assert_int_equal(bkv_leaf_open(NULL, page, ADDR + 4096, GEN, crc, scratch), -EBADMSG);
    assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN + 1, crc, scratch), -EBADMSG);
    assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc + 1, scratch), -EBADMSG);
    for (unsigned i = 0; i < BKV_PAGE_BYTES; i++) {
        uint8_t was = page[i];

        page[i] ^= (uint8_t)(1u << rng_below(&rng, 8));
        assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch), -EBADMSG);
        page[i] = was;
    }
    assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch), 0);
}

/* Damage with a checksum that is right: refused, or a leaf in order that can be searched. */
static void wrong_with_right_checksum(void **state)
{
    unsigned order[KEYS_MAX], refused = 0;
    uint32_t crc;

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        (void)make_leaf(round, order, &crc);
        memcpy(copy, page, sizeof(copy));
        for (unsigned i = 4; i < 20000; i++) {
            struct bkv_leaf_iter it;
            struct bkv_place place;
            unsigned n = 0;

            memcpy(page, copy, sizeof(page));
            for (unsigned k = 0; k < 1 + i / BKV_PAGE_BYTES; k++)
                page[4 + rng_below(&rng, 4092)] = (uint8_t)rng_u64(&rng);
            crc = bkv_crc(ADDR, GEN, page + 4, 4092);
            le32_put(page, crc);
            if (bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch) < 0)
                refused++;
            else
                n = bkv_leaf_count(page);
            bkv_leaf_first(&it, page, scratch);
            while (n > 0 && bkv_leaf_next(&it, &place) == 1)
                n--;
            assert_int_equal(n, 0);
            /* Who only searches has looked at the head: nothing leaves the page (ASan looks on). */
            if (bkv_leaf_open(NULL, page, ADDR, GEN, crc, NULL) == 0) {
                static uint8_t buf[4 * BKV_PAGE_BYTES];
                size_t used = 0;

                (void)bkv_leaf_find(page, key_of(order[i % 50]), &place);
                bkv_leaf_first(&it, page, scratch);
                (void)bkv_leaf_run(&it, (struct bytes){0}, (struct bytes){0}, buf, sizeof(buf),
                                   &used);
            }
        }
    }
    assert_true(refused > 20000);
}

static void speed(void **state)
{
    enum { N = 200000 };
    unsigned order[KEYS_MAX];
    struct bkv_place place;
    uint64_t since;
    uint32_t crc;
    unsigned n;

    (void)state;
    for (unsigned i = 0; i < KEYS_MAX; i++)
        order[i] = i;
    n = make_leaf(1, order, &crc);
    since = stopwatch();
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(bkv_leaf_find(page, key_of(order[i % n]), &place), 0);
    stopwatch_say("leaf find", since, N);
    since = stopwatch();
    for (unsigned i = 0; i < N / 100; i++)
        assert_int_equal(bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch), 0);
    stopwatch_say("leaf open", since, N / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_bytes),
        cmocka_unit_test(finds_what_was_added),
        cmocka_unit_test(runs_of_keys),
        cmocka_unit_test(longest_keys_fit),
        cmocka_unit_test(elsewhere_or_flipped),
        cmocka_unit_test(wrong_with_right_checksum),
        cmocka_unit_test(speed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
