/* SPDX-License-Identifier: Apache-2.0 */
/* Key-value commands, standard and vendor. */
#include "proto/nvme_kv.h"

#include "proto/nvme_kv_vendor.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct bytes b(const char *s)
{
    return bytes_of_str(s);
}

static void keys_sit_where_others_put_them(void **state)
{
    struct nvme_sqe sqe = {.cdw11 = le32_make(0xffff0000)};
    uint8_t key[16];

    /* nvme-cli: --cdw2=0x6c6c6568 --cdw3=0x6f --cdw11=5 is "hello" */
    assert_int_equal(nvme_kv_key_put(&sqe, b("hello")), 0);
    assert_int_equal(le32_get(sqe.cdw2), 0x6c6c6568);
    assert_int_equal(le32_get(sqe.cdw3), 0x6f);
    assert_int_equal(le32_get(sqe.cdw11), 0xffff0005);
    assert_int_equal(nvme_kv_key_get(&sqe, false, key), 5);
    assert_memory_equal(key, "hello", 5);
    assert_int_equal(nvme_kv_key_put(&sqe, b("0123456789abcdef")), 0);
    assert_int_equal(le32_get(sqe.cdw14), 0x62613938);
    assert_int_equal(nvme_kv_key_get(&sqe, false, key), 16);
    assert_memory_equal(key, "0123456789abcdef", 16);
    assert_int_equal(nvme_kv_key_put(&sqe, b("0123456789abcdefg")), -ENAMETOOLONG);

    /* --cdw15=0x74657374 --cdw14=0x5f6b6579 is "test_key" in the other order */
    assert_int_equal(nvme_kv_key_put_be(&sqe, b("test_key")), 0);
    assert_int_equal(le32_get(sqe.cdw15), 0x74657374);
    assert_int_equal(le32_get(sqe.cdw14), 0x5f6b6579);
    assert_int_equal(nvme_kv_key_get_be(&sqe, false, key), 8);
    assert_memory_equal(key, "test_key", 8);
}

static void key_lengths_are_checked(void **state)
{
    uint8_t key[16];

    for (unsigned kl = 0; kl < 256; kl++) {
        struct nvme_sqe sqe = {.cdw11 = le32_make(kl | 0xff00)};
        int want = kl <= 16 ? (int)kl : -ENAMETOOLONG;

        assert_int_equal(nvme_kv_key_get(&sqe, true, key), want);
        assert_int_equal(nvme_kv_key_get(&sqe, false, key), kl == 0 ? -ENAMETOOLONG : want);
        assert_int_equal(nvme_kv_options(&sqe), 0xff);
    }
}

static void list_entries_fill_four_bytes(void **state)
{
    static const unsigned sizes[] = {0, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 20, 20};
    struct nvme_kv_list_page page;
    struct nvme_kv_list_iter it;
    uint8_t buf[64];
    struct bytes key;

    for (unsigned kl = 1; kl <= 16; kl++)
        assert_int_equal(nvme_kv_list_entry_bytes(kl), sizes[kl]);
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(nvme_kv_list_init(&page, buf, 4 + 4 + 8 + 3), 0);
    assert_true(nvme_kv_list_put(&page, b("a")));
    assert_true(nvme_kv_list_put(&page, b("bcdef")));
    assert_false(nvme_kv_list_put(&page, b("g"))); /* 3 bytes are left */
    assert_int_equal(page.used, 16);
    assert_memory_equal(buf, "\x02\0\0\0\x01\0a\0\x05\0bcdef\0\xee", 17);

    assert_int_equal(nvme_kv_list_begin(&it, buf, 16), 0);
    assert_true(nvme_kv_list_next(&it, 16, &key));
    assert_true(bytes_eq(key, b("a")));
    assert_true(nvme_kv_list_next(&it, 16, &key));
    assert_true(bytes_eq(key, b("bcdef")));
    assert_false(nvme_kv_list_next(&it, 16, &key));
    assert_int_equal(it.rc, 0);
    assert_int_equal(nvme_kv_list_init(&page, buf, 3), -EINVAL);
}

static int walk(const void *page, size_t len, size_t key_max)
{
    struct nvme_kv_list_iter it;
    struct bytes key;
    int n = 0;

    if (nvme_kv_list_begin(&it, page, len) < 0)
        return -EBADMSG;
    while (nvme_kv_list_next(&it, key_max, &key))
        n++;
    return it.rc < 0 ? it.rc : n;
}

static void hostile_lists_end(void **state)
{
    assert_int_equal(walk("\0\0\0", 3, 16), -EBADMSG);
    assert_int_equal(walk("\0\0\0\0", 4, 16), 0);
    assert_int_equal(walk("\x01\0\0\0", 4, 16), -EBADMSG);
    assert_int_equal(walk("\xff\xff\xff\xff\x01\0a\0", 8, 16), -EBADMSG);
    assert_int_equal(walk("\x01\0\0\0\0\0\0\0", 8, 16), -EBADMSG); /* KL 0 */
    assert_int_equal(walk("\x01\0\0\0\x11\0abcdefghijklmnopqr", 24, 16), -EBADMSG);
    assert_int_equal(walk("\x01\0\0\0\x11\0abcdefghijklmnopqr", 24, 17), 1);
    assert_int_equal(walk("\x01\0\0\0\x03\0abc", 9, 16), -EBADMSG); /* padding is missing */
    assert_int_equal(walk("\x01\0\0\0\xff\xff", 6, 65535), -EBADMSG);
}

/* --- vendor commands -------------------------------------------------------------------------- */

static void open_goes_both_ways(void **state)
{
    struct nvme_kvv_open in = {.mode = NVME_KVV_MODE_STORE,
                               .flags = NVME_KVV_F_IF_VERSION | NVME_KVV_F_MUST_EXIST,
                               .declared_len = NVME_KVV_LEN_UNKNOWN,
                               .version = 0x1122334455667788,
                               .key = b("a long key, longer than sixteen")};
    struct nvme_kvv_open out;
    struct nvme_sqe sqe = {0};
    uint8_t data[64];
    int len = nvme_kvv_open_encode(&sqe, data, sizeof(data), &in);

    assert_int_equal(len, 8 + 31);
    assert_int_equal(sqe.opc, 0xc1);
    assert_int_equal(le32_get(sqe.cdw11), 0x501);
    assert_memory_equal(data, "\x1f\0\0\0\0\0\0\0a long", 14);
    assert_int_equal(nvme_kvv_open_decode(&sqe, data, (size_t)len, 2048, &out), 0);
    assert_int_equal(out.mode, in.mode);
    assert_int_equal(out.flags, in.flags);
    assert_true(out.declared_len == in.declared_len);
    assert_true(out.version == in.version);
    assert_true(bytes_eq(out.key, in.key));
    assert_int_equal(out.prefix.len, 0);
    assert_int_equal(nvme_kvv_open_decode(&sqe, data, (size_t)len, 30, &out), 0x4086);
    assert_int_equal(nvme_kvv_open_decode(&sqe, data, (size_t)len - 1, 2048, &out), 0x400f);
    assert_int_equal(nvme_kvv_open_encode(&sqe, data, 38, &in), -E2BIG);

    in = (struct nvme_kvv_open){.mode = NVME_KVV_MODE_LIST,
                                .flags = NVME_KVV_F_AFTER,
                                .snapshot = 7,
                                .key = b("ab"),
                                .prefix = b("a")};
    len = nvme_kvv_open_encode(&sqe, data, sizeof(data), &in);
    assert_int_equal(nvme_kvv_open_decode(&sqe, data, (size_t)len, 2, &out), 0);
    assert_true(bytes_eq(out.prefix, b("a")));
    assert_int_equal(out.snapshot, 7);
}

/* One OPEN after the other that has one thing wrong. */
static void hostile_opens_are_refused(void **state)
{
    static const struct {
        struct nvme_kvv_open open;
        uint16_t status;
    } cases[] = {
        {{.mode = NVME_KVV_MODE_READ, .key = {(const uint8_t *)"k", 1}}, 0},
        {{.mode = NVME_KVV_MODE_READ}, 0x4086},
        {{.mode = (enum nvme_kvv_mode)6, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = (enum nvme_kvv_mode)255, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_READ, .flags = 1, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_STORE, .flags = 3, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_STORE, .flags = 0x20, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_STORE, .version = 1, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_STORE, .snapshot = 1, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_READ, .declared_len = 1, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_READ,
          .key = {(const uint8_t *)"k", 1},
          .prefix = {(const uint8_t *)"k", 1}},
         0x4002},
        {{.mode = NVME_KVV_MODE_SNAPSHOT, .key = {(const uint8_t *)"k", 1}}, 0x4002},
        {{.mode = NVME_KVV_MODE_SNAPSHOT}, 0},
        {{.mode = NVME_KVV_MODE_LIST}, 0},
        {{.mode = NVME_KVV_MODE_LIST, .prefix = {(const uint8_t *)"12345", 5}}, 0x4086},
        {{.mode = NVME_KVV_MODE_DELETE, .flags = 4, .version = 9, .key = {(const uint8_t *)"k", 1}},
         0},
    };
    struct nvme_kvv_open out;
    uint8_t data[64];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct nvme_sqe sqe = {0};
        int len = nvme_kvv_open_encode(&sqe, data, sizeof(data), &cases[i].open);

        assert_true(len >= 8);
        assert_int_equal(nvme_kvv_open_decode(&sqe, data, (size_t)len, 4, &out), cases[i].status);
    }
}

static void hostile_open_data_is_refused(void **state)
{
    struct nvme_sqe sqe = {.cdw10 = le32_make(9)};
    struct nvme_kvv_open out;

    assert_int_equal(nvme_kvv_open_decode(&sqe, "\1\0\0\0\0\0\0\0k", 9, 16, &out), 0);
    assert_int_equal(nvme_kvv_open_decode(&sqe, "\2\0\0\0\0\0\0\0k", 9, 16, &out), 0x4002);
    assert_int_equal(nvme_kvv_open_decode(&sqe, "\0\0\0\0\0\0\0\0k", 9, 16, &out), 0x4002);
    assert_int_equal(nvme_kvv_open_decode(&sqe, "\xff\xff\xff\xff\0\0\0\0k", 9, 16, &out), 0x4002);
    assert_int_equal(nvme_kvv_open_decode(&sqe, "\1\0\0\0\1\0\0\0k", 9, 16, &out), 0x4002);
    sqe.cdw10 = le32_make(7);
    assert_int_equal(nvme_kvv_open_decode(&sqe, "\0\0\0\0\0\0\0", 7, 16, &out), 0x4002);
    sqe.cdw10 = le32_make(0);
    assert_int_equal(nvme_kvv_open_decode(&sqe, NULL, 0, 16, &out), 0x4002);
}

static void handle_commands_go_both_ways(void **state)
{
    struct nvme_kvv_io in = {.len = 4096, .handle = 7, .offset = 0x100000000, .flags = 1}, out;
    struct nvme_sqe sqe = {0};

    nvme_kvv_io_encode(&sqe, NVME_KVV_WRITE, &in);
    assert_int_equal(sqe.opc, 0xc5);
    assert_int_equal(nvme_kvv_io_decode(&sqe, &out), 0);
    assert_int_equal(out.len, in.len);
    assert_int_equal(out.handle, in.handle);
    assert_true(out.offset == in.offset);
    assert_int_equal(out.flags, in.flags);
    sqe.cdw14 = le32_make(2);
    assert_int_equal(nvme_kvv_io_decode(&sqe, &out), 0x4002);
    in.offset = UINT64_MAX - 4095;
    in.flags = 0;
    nvme_kvv_io_encode(&sqe, NVME_KVV_READ, &in);
    assert_int_equal(nvme_kvv_io_decode(&sqe, &out), 0x4002); /* the end overflows */
    sqe.opc = NVME_KVV_COMMIT;
    assert_int_equal(nvme_kvv_io_decode(&sqe, &out), 0x4002); /* no length, no offset */
    in = (struct nvme_kvv_io){.handle = 7};
    nvme_kvv_io_encode(&sqe, NVME_KVV_COMMIT, &in);
    assert_int_equal(nvme_kvv_io_decode(&sqe, &out), 0);
    nvme_kvv_io_encode(&sqe, NVME_KVV_INFO, &in);
    assert_int_equal(nvme_kvv_io_decode(&sqe, &out), 0x4002); /* 32 bytes are needed */
}

static const struct nvme_kvv_batch_limits limits = {
    .key_max = 16, .val_max = 8, .bytes_max = 256, .items_max = 4};

static void batches_go_both_ways(void **state)
{
    struct nvme_kvv_item in[2] = {{.key = b("a"), .val = b("xyz")},
                                  {.is_delete = true, .key = b("bc")}};
    struct nvme_kvv_item out[4];
    struct nvme_sqe sqe = {0};
    uint8_t data[24];
    size_t used = 0;
    uint32_t n;

    assert_true(nvme_kvv_batch_put(data, sizeof(data), &used, &in[0]));
    assert_true(nvme_kvv_batch_put(data, sizeof(data), &used, &in[1]));
    assert_int_equal(used, 22);
    assert_false(nvme_kvv_batch_put(data, sizeof(data), &used, &in[1]));
    assert_memory_equal(data, "\0\0\x01\0\x03\0\0\0axyz\x01\0\x02\0\0\0\0\0bc", 22);
    nvme_kvv_batch_encode(&sqe, (uint32_t)used, 2);
    assert_int_equal(nvme_kvv_batch_decode(&sqe, data, used, &limits, out, 4, &n), 0);
    assert_int_equal(n, 2);
    assert_true(bytes_eq(out[0].key, b("a")));
    assert_true(bytes_eq(out[0].val, b("xyz")));
    assert_true(out[1].is_delete);
    assert_true(bytes_eq(out[1].key, b("bc")));
}

static uint32_t batch_status(const char *data, size_t len, uint32_t cdw10, uint32_t nitems,
                             uint32_t *out_at)
{
    struct nvme_kvv_item items[4];
    struct nvme_sqe sqe = {0};

    nvme_kvv_batch_encode(&sqe, cdw10, nitems);
    return nvme_kvv_batch_decode(&sqe, data, len, &limits, items, ARRAY_LEN(items), out_at);
}

static void hostile_batches_are_refused(void **state)
{
    static const char two[] = "\0\0\1\0\1\0\0\0kv\0\0\1\0\1\0\0\0kw";
    uint32_t at;

    assert_int_equal(batch_status(two, 20, 20, 2, &at), 0);
    assert_int_equal(batch_status(two, 20, 20, 0, &at), 0x4002);
    assert_int_equal(batch_status(two, 20, 20, 1, &at), 0x4002); /* bytes are left */
    assert_int_equal(at, 1);
    assert_int_equal(batch_status(two, 20, 20, 3, &at), 0x4002);
    assert_int_equal(at, 2);
    assert_int_equal(batch_status(two, 20, 20, 5, &at), 0x4002);
    assert_int_equal(batch_status(two, 20, 19, 2, &at), 0x400f);
    assert_int_equal(batch_status(two, 19, 19, 2, &at), 0x4002);
    assert_int_equal(at, 1);
    assert_int_equal(batch_status(two, 257, 257, 2, &at), 0x4002);
    assert_int_equal(batch_status("\2\0\1\0\0\0\0\0k", 9, 9, 1, &at), 0x4002); /* op */
    assert_int_equal(batch_status("\0\1\1\0\0\0\0\0k", 9, 9, 1, &at), 0x4002); /* reserved */
    assert_int_equal(batch_status("\0\0\0\0\1\0\0\0k", 9, 9, 1, &at), 0x4086); /* no key */
    assert_int_equal(batch_status("\0\0\1\0\x09\0\0\0k123456789", 18, 18, 1, &at), 0x4085);
    assert_int_equal(batch_status("\1\0\1\0\1\0\0\0kv", 10, 10, 1, &at),
                     0x4002); /* delete, value */
    assert_int_equal(batch_status("\0\0\1\0\xff\xff\xff\xffk", 9, 9, 1, &at), 0x4002);
    assert_int_equal(batch_status("\0\0\xff\xff\xff\xff\xff\xffk", 9, 9, 1, &at), 0x4002);
}

static void the_vendor_part_is_recognised(void **state)
{
    struct nvme_kvv_id id = {.version = le32_make(1)};

    assert_false(nvme_kvv_id_ok(&id));
    memcpy(id.magic, "KVASIRKV", 8);
    assert_true(nvme_kvv_id_ok(&id));
    id.version = le32_make(2);
    assert_false(nvme_kvv_id_ok(&id));
    assert_int_equal(nvme_kvv_errno_of_status(0x41c2), -ESTALE);
    assert_string_equal(nvme_kvv_status_text(0x01c1), "all handles of the queue are in use");
    assert_string_equal(nvme_kvv_status_text(0x4087), "key does not exist");
    assert_string_equal(nvme_kv_opcode_name(NVME_KVV_BATCH), "batch");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_sit_where_others_put_them),
        cmocka_unit_test(key_lengths_are_checked),
        cmocka_unit_test(list_entries_fill_four_bytes),
        cmocka_unit_test(hostile_lists_end),
        cmocka_unit_test(open_goes_both_ways),
        cmocka_unit_test(hostile_opens_are_refused),
        cmocka_unit_test(hostile_open_data_is_refused),
        cmocka_unit_test(handle_commands_go_both_ways),
        cmocka_unit_test(batches_go_both_ways),
        cmocka_unit_test(hostile_batches_are_refused),
        cmocka_unit_test(the_vendor_part_is_recognised),
    };

    return cmocka_run_group_tests_name("proto/nvme_kv", tests, NULL, NULL);
}
