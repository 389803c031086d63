/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks: the bytes as documented, damage of any of them, moves, sealing. */
#include "kv/drivers/blobkv/chunk.h"

#include "config.h"
#include "rt/rt.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define ADDR 0x40000u
#define GEN 9u
#define LEN (2 * BKV_UNIT_BYTES + 100)

static uint8_t head_buf[BKV_CHUNK_HEAD_MAX], data[LEN], was[LEN];

static struct bkv_chunk_head *head_of(void)
{
    return (struct bkv_chunk_head *)head_buf;
}

/* A chunk of LEN bytes at ADDR; returns its head_len. */
static uint32_t make(struct bkv_codec *codec, uint32_t *out_crc)
{
    bool sealed = bkv_codec_seals(codec);
    uint32_t head_len = bkv_chunk_head_len(sealed, 3, LEN, 512);
    struct iovec iov[3] = {{data, 5}, {data + 5, 20000}, {data + 20005, LEN - 20005}};

    for (uint32_t i = 0; i < LEN; i++)
        data[i] = was[i] = (uint8_t)(i * 3 + i / 255);
    memset(head_buf, 0xee, sizeof(head_buf));
    bkv_chunk_begin(head_of(), sealed ? BKV_F_SEALED : 0, LEN, 3, 0x1234, 77);
    assert_int_equal(bkv_chunk_seal(codec, head_of(), data), 0);
    bkv_chunk_sum(head_of(), ADDR, GEN, head_len, iov, 3);
    assert_int_equal(
        bkv_chunk_finish(codec, head_of(), bytes_of_str("key"), ADDR, GEN, head_len, out_crc), 0);
    assert_int_equal(head_buf[head_len], 0xee);
    return head_len;
}

static void bytes_are_the_documented_ones(void **state)
{
    static const uint8_t want[28] = {
        'B', 'C', 'K', 'N', 0x64, 0x80, 0,  0, 3, 0, 0, 0, 0x34, 0x12,
        0,   0,   0,   0,   0,    0,    77, 0, 0, 0, 0, 0, 0,    0,
    };
    uint32_t crc, need;
    uint32_t head_len = make(NULL, &crc);

    assert_int_equal(head_len, 512);
    assert_memory_equal(head_buf + 4, want, sizeof(want));
    assert_int_equal(le32_at(head_buf), crc);
    assert_int_equal(crc, bkv_crc(ADDR, GEN, head_buf + 4, 28 + 12 + 3));
    assert_int_equal(le32_at(head_buf + 32), bkv_crc(ADDR + 512, GEN, data, 16384));
    assert_int_equal(le32_at(head_buf + 40), bkv_crc(ADDR + 512 + 32768, GEN, data + 32768, 100));
    assert_memory_equal(head_buf + 44, "key", 3);
    assert_true(bytes_are_zero(head_buf + 47, 512 - 47));
    assert_int_equal(bkv_chunk_head_check(head_buf, 512, ADDR, GEN, &need), 47);
    assert_int_equal(bkv_chunk_head_check(head_buf, 46, ADDR, GEN, &need), -E2BIG);
    assert_int_equal(need, 47);
}

static void damage_is_seen(void **state)
{
    uint32_t crc, need;
    uint32_t head_len = make(NULL, &crc);
    struct iovec iov = {data, LEN};

    for (uint32_t bit = 0; bit < 47 * 8; bit++) {
        int rc;

        head_buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        rc = bkv_chunk_head_check(head_buf, sizeof(head_buf), ADDR, GEN, &need);
        assert_int_equal(rc, -EBADMSG);
        head_buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(bkv_chunk_head_check(head_buf, 512, ADDR + 512, GEN, &need), -EBADMSG);
    assert_int_equal(bkv_chunk_head_check(head_buf, 512, ADDR, GEN - 1, &need), -EBADMSG);
    assert_int_equal(bkv_chunk_units_check(head_of(), ADDR, GEN, head_len, 0, 3, &iov, 1), 0);
    for (uint32_t at = 0; at < LEN; at += 997) {
        data[at] ^= 0x10;
        for (uint32_t unit = 0; unit < 3; unit++) {
            struct iovec part = {data + unit * BKV_UNIT_BYTES, bkv_unit_len(LEN, unit)};

            assert_int_equal(
                bkv_chunk_units_check(head_of(), ADDR, GEN, head_len, unit, 1, &part, 1),
                unit == at / BKV_UNIT_BYTES ? -EBADMSG : 0);
        }
        data[at] ^= 0x10;
    }
}

static void heads_are_as_long_as_they_say(void **state)
{
    static const uint32_t lens[] = {1, BKV_UNIT_BYTES, BKV_UNIT_BYTES + 1, 1u << 20, BKV_CHUNK_MAX};

    for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
        assert_true(bkv_chunk_head_len(true, BKV_KEY_MAX, lens[i], 4096) <= BKV_CHUNK_HEAD_MAX);
        assert_int_equal(bkv_chunk_head_len(false, 1, lens[i], 512) % 512, 0);
    }
    assert_int_equal(bkv_chunk_head_len(false, 16, 1u << 20, 512), 512);
    assert_int_equal(bkv_chunk_head_len(false, 16, 1u << 20, 4096), 4096);
}

static void chunks_move(void **state)
{
    uint32_t crc, need, moved;
    uint32_t head_len = make(NULL, &crc);
    struct iovec iov = {data, LEN};
    struct bytes key;

    moved = bkv_chunk_moved(head_of(), ADDR * 2, GEN + 1, head_len, data);
    assert_int_not_equal(moved, crc);
    assert_int_equal(bkv_chunk_head_check(head_buf, 512, ADDR, GEN, &need), -EBADMSG);
    assert_int_equal(bkv_chunk_head_check(head_buf, 512, ADDR * 2, GEN + 1, &need), 47);
    assert_int_equal(bkv_chunk_units_check(head_of(), ADDR * 2, GEN + 1, head_len, 0, 3, &iov, 1),
                     0);
    assert_int_equal(bkv_chunk_key(NULL, head_of(), NULL, &key), 0);
    assert_true(bytes_eq(key, bytes_of_str("key")));
}

#ifdef HAVE_LIBCRYPTO

struct made {
    struct bkv_super super;
    struct bkv_codec *codec;
    struct err why;
};

static int codec_task(struct rt_task *t, void *arg)
{
    struct bkv_codec_opts opts = {.key_command = "echo 000102030405060708090a0b0c0d0e0f"
                                                 "101112131415161718191a1b1c1d1e1f"};
    struct made *m = arg;
    int rc = bkv_codec_create(t, &opts, &m->super, &m->codec, &m->why);

    if (rc == 0)
        bkv_codec_start(m->codec, 1);
    return rc;
}

static void sealed_chunks_come_back_and_move(void **state)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};
    static struct made m;
    uint32_t head_len, crc, need, used = 32 + 3 * (4 + 28) + 3 + 28;
    uint8_t scratch[BKV_KEY_MAX];
    struct iovec iov = {data, LEN};
    struct bytes key;

    assert_int_equal(rt_run(&cfg, codec_task, &m, &m.why), 0);
    head_len = make(m.codec, &crc);
    assert_int_equal(bkv_chunk_head_check(head_buf, sizeof(head_buf), ADDR, GEN, &need), used);
    assert_null(memmem(head_buf, head_len, "key", 3));
    assert_memory_not_equal(data, was, 100);
    (void)bkv_chunk_moved(head_of(), 2 * ADDR, 1, head_len, data);
    assert_int_equal(bkv_chunk_head_check(head_buf, sizeof(head_buf), 2 * ADDR, 1, &need), used);
    assert_int_equal(bkv_chunk_units_check(head_of(), 2 * ADDR, 1, head_len, 0, 3, &iov, 1), 0);
    assert_int_equal(bkv_chunk_key(NULL, head_of(), scratch, &key), -EACCES);
    assert_int_equal(bkv_chunk_key(m.codec, head_of(), scratch, &key), 0);
    assert_true(bytes_eq(key, bytes_of_str("key")));
    /* A unit in the place of another one is not it. */
    assert_int_equal(bkv_chunk_units_open(m.codec, head_of(), 1, 1, data), -EBADMSG);
    make(m.codec, &crc);
    assert_int_equal(bkv_chunk_units_open(m.codec, head_of(), 1, 2, data + BKV_UNIT_BYTES), 0);
    assert_memory_equal(data + BKV_UNIT_BYTES, was + BKV_UNIT_BYTES, LEN - BKV_UNIT_BYTES);
    data[3] ^= 1;
    assert_int_equal(bkv_chunk_units_open(m.codec, head_of(), 0, 1, data), -EBADMSG);
    bkv_codec_free(m.codec);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_documented_ones),    cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(heads_are_as_long_as_they_say),    cmocka_unit_test(chunks_move),
#ifdef HAVE_LIBCRYPTO
        cmocka_unit_test(sealed_chunks_come_back_and_move),
#endif
    };

    return cmocka_run_group_tests_name("kv/blobkv/chunk", tests, NULL, NULL);
}
