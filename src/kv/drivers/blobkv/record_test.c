/* SPDX-License-Identifier: Apache-2.0 */
/* Records: the bytes as documented, and that nothing else passes for one. */
#include "kv/drivers/blobkv/record.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define ADDR 0x123456789ab0u
#define GEN 7u
#define HASH 0x1122334455667788u

static uint8_t buf[2 * BKV_INLINE_MAX], scratch[BKV_SCRATCH_BYTES];

static struct bkv_record_in value_in(const char *key, const struct iovec *iov, unsigned iovcnt)
{
    return (struct bkv_record_in){
        .type = BKV_VALUE,
        .key = bytes_of_str(key),
        .hash = HASH,
        .seq = 42,
        .iov = iov,
        .iovcnt = iovcnt,
        .value_bytes = (uint32_t)iov_len(iov, iovcnt),
        .value_len = iov_len(iov, iovcnt),
    };
}

static void bytes_are_the_documented_ones(void **state)
{
    static const uint8_t want[48] = {
        0x00, 0x00, 0x00, 0x00, 0x88, 0x77, 0x66, 0x55, 5,  0, 0, 0, 3, 0, 1, 0,
        5,    0,    0,    0,    0,    0,    0,    0,    42, 0, 0, 0, 0, 0, 0, 0,
        'k',  'e',  'y',  'v',  'a',  'l',  'u',  'e',  0,  0, 0, 0, 0, 0, 0, 0,
    };
    uint8_t where[12] = {0xb0, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 7, 0, 0, 0};
    struct iovec iov[2] = {{"val", 3}, {"uexyz", 5}};
    struct bkv_record_in in = value_in("key", iov, 2);

    in.value_bytes = 5; /* of the 8 that the iovecs hold */
    in.value_len = 5;
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(bkv_record_encode(NULL, &in, ADDR, GEN, buf, 47), -E2BIG);
    assert_int_equal(bkv_record_encode(NULL, &in, ADDR, GEN, buf, sizeof(buf)), 48);
    assert_memory_equal(buf + 4, want + 4, 44);
    assert_int_equal(buf[48], 0xee);
    assert_int_equal(le32_at(buf), crc32c(crc32c(0, where, 12), want + 4, 36));
}

static void decoding_gives_back_what_was_encoded(void **state)
{
    uint8_t *value = malloc(BKV_INLINE_MAX);

    for (unsigned i = 0; i < BKV_INLINE_MAX; i++)
        value[i] = (uint8_t)(i * 7 + i / 251);
    for (uint32_t len = 0; len <= BKV_INLINE_MAX; len = len < 20 ? len + 1 : len * 2 + 9) {
        struct iovec iov[3] = {
            {value, len / 3}, {value + len / 3, 0}, {value + len / 3, len - len / 3}};
        struct bkv_record_in in = value_in("a key", iov, 3);
        struct bkv_record_out out;
        uint8_t back[64];
        struct iovec biov[2] = {{back, 10}, {back + 10, 54}};
        uint64_t moved = 99;
        struct bytes key;
        int n = bkv_record_encode(NULL, &in, ADDR, GEN, buf, sizeof(buf));

        assert_int_equal(n, bkv_record_len(5, len));
        assert_int_equal(bkv_record_decode(buf, (size_t)n, ADDR, GEN, &out, NULL), n);
        assert_int_equal(out.type, BKV_VALUE);
        assert_int_equal(out.seq, 42);
        assert_int_equal(out.value_len, len);
        assert_int_equal(out.rec_len, n);
        assert_int_equal(out.key_hash, (uint32_t)HASH);
        assert_int_equal(bkv_record_key(NULL, &out, scratch, &key), 0);
        assert_true(bytes_eq(key, in.key));
        assert_true(bytes_eq(out.stored, bytes_make(value, len)));
        assert_int_equal(bkv_record_value(NULL, &out, len / 2, 64, biov, 2, scratch, &moved), 0);
        assert_int_equal(moved, MIN(64, len - len / 2));
        assert_memory_equal(back, value + len / 2, moved);
        assert_int_equal(bkv_record_value(NULL, &out, len + 1, 64, biov, 2, scratch, &moved), 0);
        assert_int_equal(moved, 0);
    }
    free(value);
}

static void longest_key_and_other_types_pass(void **state)
{
    static const uint8_t types[] = {BKV_VALUE, BKV_LARGE_VALUE, BKV_DELETE};
    static char key[BKV_KEY_MAX + 1];
    struct iovec iov = {"0123456789abcdef01234567", 24};

    memset(key, 'k', BKV_KEY_MAX);
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        struct bkv_record_in in = value_in(key, &iov, 1);
        struct bkv_record_out out;
        int n;

        in.type = types[i];
        if (types[i] == BKV_LARGE_VALUE)
            in.value_len = 1ull << 40;
        if (types[i] == BKV_DELETE) {
            in.value_bytes = 0;
            in.value_len = 0;
        }
        n = bkv_record_encode(NULL, &in, ADDR, GEN, buf, sizeof(buf));
        assert_int_equal(bkv_record_decode(buf, sizeof(buf), ADDR, GEN, &out, NULL), n);
        assert_int_equal(out.type, types[i]);
        assert_int_equal(out.value_len, in.value_len);
        assert_true(bytes_eq(out.key, in.key));
    }
}

static void damage_is_seen(void **state)
{
    struct iovec iov = {"some value, not long", 20};
    struct bkv_record_in in = value_in("key", &iov, 1);
    int n = bkv_record_encode(NULL, &in, ADDR, GEN, buf, sizeof(buf));
    struct bkv_record_out out;

    assert_int_equal(n, 64);
    for (int bit = 0; bit < n * 8; bit++) {
        int rc;

        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        /* A flipped length may ask for more bytes first. */
        rc = bkv_record_decode(buf, sizeof(buf), ADDR, GEN, &out, NULL);
        assert_int_equal(rc, -EBADMSG);
        rc = bkv_record_decode(buf, (size_t)n, ADDR, GEN, &out, NULL);
        assert_true(rc == -EBADMSG || rc == -E2BIG);
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(bkv_record_decode(buf, (size_t)n, ADDR, GEN, &out, NULL), n);
    assert_int_equal(bkv_record_decode(buf, (size_t)n, ADDR + 16, GEN, &out, NULL), -EBADMSG);
    assert_int_equal(bkv_record_decode(buf, (size_t)n, ADDR, GEN + 1, &out, NULL), -EBADMSG);
    memset(buf, 0, 64);
    assert_int_equal(bkv_record_decode(buf, 64, ADDR, GEN, &out, NULL), -EBADMSG);
}

static void short_buffers_say_what_they_need(void **state)
{
    struct iovec iov = {"some value, not long", 20};
    struct bkv_record_in in = value_in("key", &iov, 1);
    int n = bkv_record_encode(NULL, &in, ADDR, GEN, buf, sizeof(buf));
    struct bkv_record_out out;

    for (int len = 0; len < n; len++) {
        uint32_t need = 0;

        assert_int_equal(bkv_record_decode(buf, (size_t)len, ADDR, GEN, &out, &need), -E2BIG);
        assert_int_equal(need, len < 32 ? 32 : n);
    }
}

/* Writes a record at `at` of the sector that begins at buf and ADDR. */
static int put_at(uint32_t at, const char *key, uint64_t hash, const char *value)
{
    struct iovec iov = {(void *)(uintptr_t)value, strlen(value)};
    struct bkv_record_in in = value_in(key, &iov, 1);

    in.hash = hash;
    return bkv_record_encode(NULL, &in, ADDR + at, GEN, buf + at, sizeof(buf) - at);
}

static int search(const char *key, uint64_t hash, size_t len, struct bkv_record_out *out,
                  uint32_t *out_need)
{
    return bkv_record_search(NULL, buf, len, ADDR, GEN, 512, bytes_of_str(key), hash, scratch, out,
                             out_need);
}

static void search_finds_the_key_in_its_sector(void **state)
{
    struct bkv_record_out out;
    uint32_t need = 0;

    memset(buf, 0, 4096);
    put_at(32, "one", HASH, "first");
    put_at(80, "two", HASH + 1, "second");
    put_at(128, "six", HASH, "third"); /* the hash of "one" */
    put_at(496, "end", HASH + 2, "begins here, ends in the next sector");
    put_at(592, "out", HASH + 3, "begins there");
    assert_int_equal(search("one", HASH, 4096, &out, &need), 32);
    assert_true(bytes_eq(out.stored, bytes_of_str("first")));
    assert_int_equal(search("two", HASH + 1, 4096, &out, &need), 80);
    assert_int_equal(search("six", HASH, 4096, &out, &need), 128);
    assert_int_equal(search("end", HASH + 2, 4096, &out, &need), 496);
    assert_int_equal(search("out", HASH + 3, 4096, &out, &need), -ENOENT);
    assert_int_equal(search("ten", HASH, 4096, &out, &need), -ENOENT);
    assert_int_equal(search("end", HASH + 2, 512, &out, &need), -E2BIG);
    assert_int_equal(need, 528); /* to see the head */
    assert_int_equal(search("end", HASH + 2, need, &out, &need), -E2BIG);
    assert_int_equal(need, 576);
    assert_int_equal(search("end", HASH + 2, need, &out, &need), 496);
    buf[90] ^= 1;
    assert_int_equal(search("two", HASH + 1, 4096, &out, &need), -ENOENT);
    buf[90] ^= 1;
    buf[120] ^= 1;
    assert_int_equal(search("two", HASH + 1, 4096, &out, &need), -EBADMSG);
}

static void search_skips_what_only_looks_alike(void **state)
{
    struct bkv_record_out out;
    uint32_t need = 0;

    memset(buf, 0, 4096);
    /* A value that contains a whole record of the key, of another place, longer and shorter. */
    put_at(0, "key", HASH, "what was here in another life");
    memmove(buf + 48, buf, 80);
    put_at(0, "big", HASH + 1, "");
    le32_put(buf + 48 + 8, 30000);
    put_at(160, "key", HASH, "it");
    assert_int_equal(search("key", HASH, 512, &out, &need), 160);
    assert_true(bytes_eq(out.stored, bytes_of_str("it")));
    le32_put(buf + 48 + 8, 29);
    assert_int_equal(search("key", HASH, 512, &out, &need), 160);
    memset(buf + 160, 0, 64);
    assert_int_equal(search("key", HASH, 1024, &out, &need), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_documented_ones),
        cmocka_unit_test(decoding_gives_back_what_was_encoded),
        cmocka_unit_test(longest_key_and_other_types_pass),
        cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(short_buffers_say_what_they_need),
        cmocka_unit_test(search_finds_the_key_in_its_sector),
        cmocka_unit_test(search_skips_what_only_looks_alike),
    };

    return cmocka_run_group_tests_name("kv/blobkv/record", tests, NULL, NULL);
}
