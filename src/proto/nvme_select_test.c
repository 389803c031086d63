/* SPDX-License-Identifier: Apache-2.0 */
/* The SELECT commands, byte by byte. */
#include "proto/nvme_select.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define DNR NVME_SC_DNR

static struct bytes b(const char *s)
{
    return bytes_of_str(s);
}

static void send_select_of_the_examples(void **state)
{
    /* nvme io-passthru --opcode=0x85 --cdw10=37 --cdw11=0x01000308 --cdw15=0x74657374
     * --cdw14=0x5f6b6579: key "test_key", CSV in, JSON out, both headers */
    struct nvme_sqe sqe = {.opc = 0x85,
                           .cdw10 = le32_make(37),
                           .cdw11 = le32_make(0x01000308),
                           .cdw15 = le32_make(0x74657374),
                           .cdw14 = le32_make(0x5f6b6579)};
    struct nvme_sqe again = {0};
    struct nvme_sel_send s;

    assert_int_equal(nvme_sel_send_decode(&sqe, true, &s), 0);
    assert_int_equal(s.sql_len, 37);
    assert_int_equal(s.key_len, 8);
    assert_memory_equal(s.key, "test_key", 8);
    assert_int_equal(s.options, NVME_SEL_HEADER_IN | NVME_SEL_HEADER_OUT);
    assert_int_equal(s.input, NVME_SEL_CSV);
    assert_int_equal(s.output, NVME_SEL_JSON);
    assert_int_equal(nvme_sel_send_encode(&again, true, &s), 0);
    assert_memory_equal(&again, &sqe, sizeof(sqe));

    /* On a KV namespace the same key stands in order. */
    again = (struct nvme_sqe){0};
    assert_int_equal(nvme_sel_send_encode(&again, false, &s), 0);
    assert_int_equal(le32_get(again.cdw2), 0x74736574);
    assert_int_equal(le32_get(again.cdw3), 0x79656b5f);
    assert_int_equal(nvme_sel_send_decode(&again, false, &s), 0);
    assert_memory_equal(s.key, "test_key", 8);
}

static void send_select_is_checked(void **state)
{
    for (unsigned kl = 0; kl < 256; kl++) {
        struct nvme_sqe sqe = {.cdw11 = le32_make(kl)};
        uint16_t want = kl >= 1 && kl <= 16 ? 0 : 0x86 | DNR;
        struct nvme_sel_send s;

        assert_int_equal(nvme_sel_send_decode(&sqe, true, &s), want);
        assert_int_equal(nvme_sel_send_decode(&sqe, false, &s), want);
    }
    for (unsigned type = 0; type < 256; type++) {
        struct nvme_sqe in = {.cdw11 = le32_make(type << 16 | 4)};
        struct nvme_sqe out = {.cdw11 = le32_make(type << 24 | 4)};
        struct nvme_sel_send s;

        assert_int_equal(nvme_sel_send_decode(&in, true, &s), type < 3 ? 0 : 0x90 | DNR);
        assert_int_equal(nvme_sel_send_decode(&out, false, &s), type < 3 ? 0 : 0x90 | DNR);
    }
}

static void retrieve_select_says_what_is_freed(void **state)
{
    /* --opcode=0x86 --cdw10=65536 --cdw11=2 --cdw12=100 --cdw13=33 */
    struct nvme_sqe sqe = {.opc = 0x86,
                           .cdw10 = le32_make(65536),
                           .cdw11 = le32_make(2),
                           .cdw12 = le32_make(100),
                           .cdw13 = le32_make(33)};
    struct nvme_sqe again = {0};
    struct nvme_sel_receive r;

    nvme_sel_receive_decode(&sqe, &r);
    assert_int_equal(r.len, 65536);
    assert_int_equal(r.off, 100);
    assert_int_equal(r.id, 33);
    assert_true(nvme_sel_receive_frees(&r, 65636));
    assert_false(nvme_sel_receive_frees(&r, 65637));
    nvme_sel_receive_encode(&again, &r);
    assert_memory_equal(&again, &sqe, sizeof(sqe));
    r.options = 0;
    assert_true(nvme_sel_receive_frees(&r, UINT64_MAX));
    r.options = NVME_SEL_KEEP;
    assert_false(nvme_sel_receive_frees(&r, 1));
    r.options = NVME_SEL_KEEP | NVME_SEL_KEEP_UNREAD;
    assert_false(nvme_sel_receive_frees(&r, 1));
    /* No sum of 32 bits. */
    r = (struct nvme_sel_receive){
        .options = NVME_SEL_KEEP_UNREAD, .len = UINT32_MAX, .off = UINT32_MAX};
    assert_true(nvme_sel_receive_frees(&r, 0x1fffffffeull));
    assert_false(nvme_sel_receive_frees(&r, 0x1ffffffffull));
}

static void list_pads_the_key_only(void **state)
{
    static const uint8_t want[] = {4,   0,   0,   0,                               /* NRK */
                                   1,   0,   'a', 0,   0,   0,                     /* 6 */
                                   4,   0,   'b', 'c', 'd', 'e',                   /* 6 */
                                   5,   0,   'f', 'f', 'f', 'f', 'f', 0,   0,   0, /* 10 */
                                   16,  0,   '0', '1', '2', '3', '4', '5', '6', '7',
                                   '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'}; /* 18 */
    static const char *const keys[] = {"a", "bcde", "fffff", "0123456789abcdef"};
    struct nvme_kv_list_page page;
    struct nvme_kv_list_iter it;
    uint8_t buf[sizeof(want)];
    struct bytes key;

    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(nvme_kv_list_init(&page, buf, sizeof(buf)), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_true(nvme_csd_list_put(&page, b(keys[i])));
    assert_false(nvme_csd_list_put(&page, b("x")));
    assert_int_equal(page.used, sizeof(want));
    assert_memory_equal(buf, want, sizeof(want));

    assert_int_equal(nvme_kv_list_begin(&it, buf, sizeof(buf)), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(nvme_csd_list_next(&it, &key));
        assert_true(bytes_eq(key, b(keys[i])));
    }
    assert_false(nvme_csd_list_next(&it, &key));
    assert_int_equal(it.rc, 0);
    /* Cut short anywhere it is refused, never read past. */
    for (size_t len = 4; len < sizeof(want); len++) {
        uint8_t *cut = malloc(len);

        memcpy(cut, want, len);
        assert_int_equal(nvme_kv_list_begin(&it, cut, len), 0);
        while (nvme_csd_list_next(&it, &key))
            continue;
        assert_int_equal(it.rc, -EBADMSG);
        free(cut);
    }
}

/* --- the extended form ------------------------------------------------------------------------ */

static const uint8_t golden[] = {
    1,    1,   5,   2,   1,   0,   0,   0,   ';', '\'', '\\', 0,   2,
    0,    0,   0, /* head: CSV to Arrow, no header */
    8,    0,   0,   0,   5,   0,   0,   0,   0,   0,    0,    0,   8,
    0,    0,   0, /* 8 SQL, 5 schema, no prefix, 8 keys */
    0xe8, 3,   0,   0,   0,   0,   0,   0,   0,   0,    0,    0,   0,
    0,    0,   0, /* 1000 ms */
    0,    0,   0,   0,   0,   0,   0,   0,   0,   0,    0,    0,   0,
    0,    0,   0,                                                       /* */
    's',  'e', 'l', 'e', 'c', 't', ' ', '1', 'a', ' ',  'i',  'n', 't', /* */
    1,    0,   'k', 3,   0,   'k', 'e', 'y',
};

static struct nvme_sel_query a_query(void)
{
    return (struct nvme_sel_query){
        .input = NVME_SEL_F_CSV,
        .output = NVME_SEL_F_ARROW,
        .header = 2,
        .flags = NVME_SEL_Q_HEADER_OUT,
        .delim = ';',
        .quote = '\'',
        .escape = '\\',
        .nkeys = 2,
        .timeout_ms = 1000,
        .sql = b("select 1"),
        .schema = b("a int"),
    };
}

static void query_has_these_bytes(void **state)
{
    struct bytes keys[] = {b("k"), b("key")}, key;
    struct nvme_sel_query q = a_query(), back;
    struct nvme_sqe sqe = {0};
    uint8_t data[sizeof(golden)];

    assert_int_equal(nvme_sel_query_bytes(&q, keys), sizeof(golden));
    assert_int_equal(nvme_sel_query_encode(&sqe, data, &q, keys), 0);
    assert_memory_equal(data, golden, sizeof(golden));
    assert_int_equal(sqe.opc, 0xcd);
    assert_int_equal(le32_get(sqe.cdw10), sizeof(golden));

    assert_int_equal(nvme_sel_query_decode(&sqe, data, sizeof(data), 16, &back), 0);
    assert_int_equal(back.input, q.input);
    assert_int_equal(back.output, q.output);
    assert_int_equal(back.header, 2);
    assert_int_equal(back.flags, q.flags);
    assert_int_equal(back.timeout_ms, 1000);
    assert_int_equal(back.delim, ';');
    assert_int_equal(back.nkeys, 2);
    assert_true(bytes_eq(back.sql, q.sql));
    assert_true(bytes_eq(back.schema, q.schema));
    assert_true(nvme_sel_key_next(&back.keys, &key));
    assert_true(bytes_eq(key, keys[0]));
    assert_true(nvme_sel_key_next(&back.keys, &key));
    assert_true(bytes_eq(key, keys[1]));
    assert_false(nvme_sel_key_next(&back.keys, &key));
}

static void query_by_prefix(void **state)
{
    struct nvme_sel_query q = {.output = NVME_SEL_F_CSV, .sql = b("s"), .prefix = b("logs/")};
    struct nvme_sel_query back;
    struct nvme_sqe sqe = {0};
    uint8_t data[128];
    size_t len = nvme_sel_query_bytes(&q, NULL);

    assert_int_equal(len, 64 + 1 + 5);
    assert_int_equal(nvme_sel_query_encode(&sqe, data, &q, NULL), 0);
    assert_int_equal(nvme_sel_query_decode(&sqe, data, len, 5, &back), 0);
    assert_true(bytes_eq(back.prefix, q.prefix));
    assert_int_equal(back.nkeys, 0);
    assert_int_equal(nvme_sel_query_decode(&sqe, data, len, 4, &back), 0x86 | DNR);
}

/* One byte of the golden data changed to `v`. */
static uint16_t changed(size_t at, uint8_t v)
{
    struct nvme_sqe sqe = {.opc = 0xcd, .cdw10 = le32_make(sizeof(golden))};
    uint8_t data[sizeof(golden)];
    struct nvme_sel_query q;

    memcpy(data, golden, sizeof(data));
    data[at] = v;
    return nvme_sel_query_decode(&sqe, data, sizeof(data), 16, &q);
}

static void query_is_checked(void **state)
{
    struct nvme_sqe sqe = {.opc = 0xcd, .cdw10 = le32_make(sizeof(golden))};
    struct nvme_sel_query q;

    assert_int_equal(changed(0, 1), 0);
    assert_int_equal(changed(0, 2), 0x02 | DNR); /* version */
    assert_int_equal(changed(1, 5), 0x02 | DNR); /* Arrow in */
    assert_int_equal(changed(2, 0), 0x02 | DNR); /* out: auto */
    assert_int_equal(changed(2, 6), 0x02 | DNR);
    assert_int_equal(changed(3, 3), 0x02 | DNR);
    assert_int_equal(changed(4, 2), 0x02 | DNR);  /* unknown flag */
    assert_int_equal(changed(11, 1), 0x02 | DNR); /* reserved */
    assert_int_equal(changed(36, 1), 0x02 | DNR);
    assert_int_equal(changed(63, 1), 0x02 | DNR);
    assert_int_equal(changed(12, 1), 0x02 | DNR); /* keys: fewer, more than there are */
    assert_int_equal(changed(12, 3), 0x02 | DNR);
    assert_int_equal(changed(16, 9), 0x02 | DNR); /* lengths that are not the data's */
    assert_int_equal(changed(31, 1), 0x02 | DNR);
    assert_int_equal(changed(77, 0), 0x86 | DNR); /* an empty key */
    assert_int_equal(changed(78, 1), 0x02 | DNR); /* a key past the end */
    assert_int_equal(nvme_sel_query_decode(&sqe, golden, sizeof(golden), 2, &q), 0x86 | DNR);
    assert_int_equal(nvme_sel_query_decode(&sqe, golden, sizeof(golden) - 1, 16, &q), 0x0f | DNR);
    sqe.cdw12 = le32_make(1);
    assert_int_equal(nvme_sel_query_decode(&sqe, golden, sizeof(golden), 16, &q), 0x02 | DNR);
    for (uint32_t len = 0; len < 64; len++) {
        sqe = (struct nvme_sqe){.cdw10 = le32_make(len)};
        assert_int_equal(nvme_sel_query_decode(&sqe, golden, len, 16, &q), 0x02 | DNR);
    }
}

static void result_has_these_fields(void **state)
{
    struct nvme_sel_get g = {.len = 4096, .id = 34, .off = 0x500000001ull, .flags = 5}, back;
    struct nvme_sqe sqe = {0};

    nvme_sel_get_encode(&sqe, &g);
    assert_int_equal(sqe.opc, 0xce);
    assert_int_equal(le32_get(sqe.cdw10), 4096);
    assert_int_equal(le32_get(sqe.cdw11), 34);
    assert_int_equal(le32_get(sqe.cdw12), 1);
    assert_int_equal(le32_get(sqe.cdw13), 5);
    assert_int_equal(le32_get(sqe.cdw14), 5);
    assert_int_equal(nvme_sel_get_decode(&sqe, &back), 0);
    assert_true(back.off == g.off && back.id == 34 && back.len == 4096 && back.flags == 5);
    sqe.cdw10 = le32_make(63); /* no room for the info */
    assert_int_equal(nvme_sel_get_decode(&sqe, &back), 0x02 | DNR);
    sqe.cdw14 = le32_make(8);
    assert_int_equal(nvme_sel_get_decode(&sqe, &back), 0x02 | DNR);
}

static void statuses_and_errnos(void **state)
{
    static const int rcs[] = {-EINVAL, -EBADMSG, -ENOMEM, -ETIMEDOUT, -EDQUOT,   -EAGAIN,
                              -EPIPE,  -ESTALE,  -ENOENT, -ENOTSUP,   -ECANCELED};

    for (size_t i = 0; i < ARRAY_LEN(rcs); i++) {
        uint16_t status = nvme_sel_status_of_errno(rcs[i], true);

        assert_int_equal(nvme_sel_errno_of_status(status), rcs[i]);
        assert_int_equal((status & DNR) == 0, rcs[i] == -EAGAIN);
        assert_true(strlen(nvme_sel_status_text(status)) > 5);
    }
    assert_int_equal(nvme_sel_status_of_errno(-EINVAL, false), 0x88 | DNR);
    assert_int_equal(nvme_sel_status_of_errno(-EBADMSG, false), 0x88 | DNR);
    assert_int_equal(nvme_sel_status_of_errno(-EIO, false), 0x88 | DNR);
    assert_int_equal(nvme_sel_status_of_errno(-ENOENT, false), 0x87 | DNR);
    assert_int_equal(nvme_sel_status_of_errno(-ETIMEDOUT, false), 0x1d3 | DNR);
    assert_int_equal(nvme_sel_status_of_errno(-EAGAIN, false), 0x1d5);
    assert_int_equal(nvme_sel_status_of_errno(-ENOTSUP, false), 0x01 | DNR);
    assert_int_equal(nvme_sel_status_of_errno(0, false), 0);
}

static void namespace_says_it(void **state)
{
    struct nvme_id_ns_kv id = {0};
    struct nvme_sel_id *sel = nvme_sel_id_of(id.vendor);

    assert_ptr_equal(sel, (uint8_t *)&id + 3968);
    assert_false(nvme_sel_id_ok(sel));
    memcpy(sel->magic, NVME_SEL_MAGIC, sizeof(sel->magic));
    assert_false(nvme_sel_id_ok(sel));
    sel->version = le32_make(1);
    assert_true(nvme_sel_id_ok(sel));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(send_select_of_the_examples),
        cmocka_unit_test(send_select_is_checked),
        cmocka_unit_test(retrieve_select_says_what_is_freed),
        cmocka_unit_test(list_pads_the_key_only),
        cmocka_unit_test(query_has_these_bytes),
        cmocka_unit_test(query_by_prefix),
        cmocka_unit_test(query_is_checked),
        cmocka_unit_test(result_has_these_fields),
        cmocka_unit_test(statuses_and_errnos),
        cmocka_unit_test(namespace_says_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
