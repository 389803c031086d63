/* SPDX-License-Identifier: Apache-2.0 */
/* What is special about mem: its bound, versions under snapshots, shared chunks of appends. */
#include "kv/drivers/mem/index.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static const uint64_t secret[3] = {0x1234567, 0x89abcdef01, 0x5555aaaa3333};

static struct mem_value *value_of(struct mem_index *ix, uint64_t len, uint8_t fill)
{
    struct mem_value *v = mem_value_new(&ix->slab, len);
    uint8_t *buf = malloc(len + 1);
    struct iovec iov = {.iov_base = buf, .iov_len = len};

    if (v != NULL && len > 0) {
        for (uint64_t i = 0; i < len; i++)
            buf[i] = (uint8_t)(fill + i / 4096);
        assert_int_equal(mem_value_write(&ix->slab, v, 0, &iov, 1, len), 0);
    }
    free(buf);
    return v;
}

static void check_value(struct mem_value *v, uint64_t len, uint8_t fill)
{
    uint8_t *buf = malloc(len + 1);
    struct iovec iov = {.iov_base = buf, .iov_len = len};

    assert_non_null(v);
    assert_int_equal(v->len, len);
    mem_value_read(v, 0, &iov, 1, len);
    for (uint64_t i = 0; i < len; i++)
        assert_int_equal(buf[i], (uint8_t)(fill + i / 4096));
    free(buf);
}

static bool put(struct mem_index *ix, const char *key, uint64_t len, uint8_t fill)
{
    struct mem_value *v = value_of(ix, len, fill);
    struct mem_entry *e;

    if (v == NULL)
        return false;
    e = mem_find_or_add(ix, bytes_of_str(key));
    if (e == NULL) {
        mem_value_put(&ix->slab, v);
        return false;
    }
    mem_publish(ix, e, v, ++ix->seq);
    return true;
}

static void drop(struct mem_index *ix, const char *key)
{
    struct mem_entry *e = mem_find(ix, bytes_of_str(key));

    mem_remove(ix, e, ++ix->seq);
    mem_entry_tidy(ix, e);
}

static struct mem_value *seen(struct mem_index *ix, const char *key, struct mem_snap *snap)
{
    return mem_visible(mem_find(ix, bytes_of_str(key)), snap);
}

static void snap_close(struct mem_index *ix, struct mem_snap *snap)
{
    mem_snap_retire(ix, snap);
    while (!mem_snap_release(ix, snap, 1))
        continue;
}

static void test_full_and_empty(void **state)
{
    struct mem_index ix;
    uint64_t empty;
    char key[32];

    assert_int_equal(mem_index_init(&ix, 8 * MIB, secret), 0);
    empty = slab_used(&ix.slab);
    for (unsigned round = 0; round < 3; round++) {
        static const uint64_t lens[] = {20, 4096, 300000};
        unsigned n = 0;

        for (;; n++) {
            snprintf(key, sizeof(key), "key %u", n);
            if (!put(&ix, key, lens[round], (uint8_t)n))
                break;
        }
        assert_true(n > 10);
        assert_true(slab_used(&ix.slab) <= 8 * MIB);
        assert_null(seen(&ix, key, NULL)); /* the one that did not fit */
        assert_int_equal(ix.nkeys, n);
        for (unsigned i = 0; i < n; i++) {
            snprintf(key, sizeof(key), "key %u", i);
            check_value(seen(&ix, key, NULL), lens[round], (uint8_t)i);
            drop(&ix, key);
        }
        assert_int_equal(ix.nkeys, 0);
        assert_int_equal(ix.nentries, 0);
        assert_int_equal(slab_used(&ix.slab), empty);
    }
    mem_index_fini(&ix);
}

static void test_snapshots(void **state)
{
    struct mem_index ix;
    struct mem_snap *s1, *s2, *s3;
    uint64_t empty;

    assert_int_equal(mem_index_init(&ix, 8 * MIB, secret), 0);
    empty = slab_used(&ix.slab);
    assert_true(put(&ix, "a", 100, 1));
    s1 = mem_snap_open(&ix);
    assert_true(put(&ix, "a", 100, 2));
    assert_true(put(&ix, "b", 100, 3));
    s2 = mem_snap_open(&ix);
    drop(&ix, "a");
    drop(&ix, "b");
    s3 = mem_snap_open(&ix);
    assert_true(put(&ix, "b", 100, 4));
    assert_true(put(&ix, "b", 100, 5)); /* 4 was seen by nobody and is gone */

    check_value(seen(&ix, "a", s1), 100, 1);
    assert_null(seen(&ix, "b", s1));
    check_value(seen(&ix, "a", s2), 100, 2);
    check_value(seen(&ix, "b", s2), 100, 3);
    assert_null(seen(&ix, "a", s3));
    assert_null(seen(&ix, "b", s3));
    assert_null(seen(&ix, "a", NULL));
    check_value(seen(&ix, "b", NULL), 100, 5);

    snap_close(&ix, s2);
    check_value(seen(&ix, "a", s1), 100, 1);
    assert_null(seen(&ix, "b", s1));
    snap_close(&ix, s1);
    assert_null(mem_find(&ix, bytes_of_str("a")));
    snap_close(&ix, s3);
    drop(&ix, "b");
    assert_int_equal(slab_used(&ix.slab), empty);
    mem_index_fini(&ix);
}

static void test_append_shares_chunks(void **state)
{
    struct mem_index ix;
    struct mem_value *v, *longer;
    uint64_t len = 40 * MEM_CHUNK_BYTES + 50000, before;

    assert_int_equal(mem_index_init(&ix, 16 * MIB, secret), 0);
    before = slab_used(&ix.slab);
    v = value_of(&ix, len, 7);
    before = slab_used(&ix.slab);
    longer = mem_value_append(&ix.slab, v, 10);
    assert_non_null(longer);
    assert_true(slab_used(&ix.slab) - before < 3 * MEM_CHUNK_BYTES);
    mem_value_put(&ix.slab, v);
    longer->len -= 10;
    check_value(longer, len, 7);
    longer->len += 10;
    mem_value_put(&ix.slab, longer);
    mem_index_fini(&ix);
}

static void test_many_keys(void **state)
{
    struct mem_index ix;
    char key[32];

    assert_int_equal(mem_index_init(&ix, 64 * MIB, secret), 0);
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(key, sizeof(key), "%016u", i * 7919 % 100003);
        assert_true(put(&ix, key, 0, 0));
    }
    assert_true(ix.nbuckets > 90000);
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(key, sizeof(key), "%016u", i * 7919 % 100003);
        assert_non_null(seen(&ix, key, NULL));
        if (i % 10 != 0)
            drop(&ix, key);
    }
    assert_int_equal(ix.nkeys, 10000);
    assert_true(ix.nbuckets < 30000);
    assert_int_equal(ix.order.count, 10000);
    mem_index_fini(&ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_empty),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_append_shares_chunks),
        cmocka_unit_test(test_many_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
