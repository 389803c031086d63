/* SPDX-License-Identifier: Apache-2.0 */
/* The target, through a raw host: handshake, Connect, identify, NVM and KV commands. */
#include "front/nvmf/test_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int write_read(struct rt_task *t, struct cl *io, uint64_t lba, uint32_t nblocks,
                      unsigned seed)
{
    uint32_t len = nblocks * 512;
    CLEANUP(free_p) uint8_t *out = malloc(len);
    CLEANUP(free_p) uint8_t *in = malloc(len);
    struct nvme_sqe sqe = rw(NVME_OPC_WRITE, lba, nblocks);
    struct cl_reply r;

    pattern(out, len, seed);
    OK(cl_cmd(t, io, &sqe, out, len, NULL, 0, &r));
    STATUS(r, 0);
    sqe = rw(NVME_OPC_READ, lba, nblocks);
    OK(cl_cmd(t, io, &sqe, NULL, 0, in, len, &r));
    STATUS(r, 0);
    CHECK(r.data_len == len);
    CHECK(memcmp(in, out, len) == 0);
    return 0;
}

static int nvm_with(struct rt_task *t, struct env *e, uint8_t dgst, uint32_t send_step,
                    uint32_t h2c_len)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {.send_step = send_step, .h2c_len = h2c_len};

    OK(cl_admin(t, &admin, &e->addr, NQN, dgst, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, dgst));
    OK(write_read(t, &io, 0, 1, 1));
    OK(write_read(t, &io, 3, 16, 2));
    OK(write_read(t, &io, 100, 17, 3));
    OK(write_read(t, &io, 7, 256, 4));
    if (send_step == 0) {
        OK(write_read(t, &io, 1001, 2048, 5));
        OK(write_read(t, &io, 5, 65536, 6));
    }
    return 0;
}

static int nvm_plain_body(struct rt_task *t, struct env *e)
{
    return nvm_with(t, e, 0, 0, 0);
}
TEST_ENV(nvm_plain, 1, 8 * MIB)

static int nvm_digests_body(struct rt_task *t, struct env *e)
{
    OK(nvm_with(t, e, NVME_TCP_DGST_HEADER | NVME_TCP_DGST_DATA, 0, 0));
    OK(nvm_with(t, e, NVME_TCP_DGST_HEADER, 0, 4096));
    return nvm_with(t, e, NVME_TCP_DGST_DATA, 0, 1000);
}
TEST_ENV(nvm_digests, 2, 8 * MIB)

static int nvm_split_body(struct rt_task *t, struct env *e)
{
    OK(nvm_with(t, e, 0, 1, 1500));
    return nvm_with(t, e, NVME_TCP_DGST_HEADER | NVME_TCP_DGST_DATA, 3, 4);
}
TEST_ENV(nvm_split, 1, 8 * MIB)

static int kv_round(struct rt_task *t, struct cl *io, const char *key, uint32_t len, unsigned seed)
{
    CLEANUP(free_p) uint8_t *out = malloc(len + 1);
    CLEANUP(free_p) uint8_t *in = malloc(len + 1);
    struct nvme_sqe sqe = kv_cmd(NVME_KV_STORE, key, len, 0);
    struct cl_reply r;

    pattern(out, len, seed);
    OK(cl_cmd(t, io, &sqe, out, len, NULL, 0, &r));
    STATUS(r, 0);
    sqe = kv_cmd(NVME_KV_RETRIEVE, key, len + 1, 0);
    OK(cl_cmd(t, io, &sqe, NULL, 0, in, len + 1, &r));
    STATUS(r, 0);
    CHECK(r.data_len == len && r.dw0 == len);
    CHECK(memcmp(in, out, len) == 0);
    return 0;
}

static int kv_basic_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    struct nvme_sqe sqe;
    struct cl_reply r;
    uint8_t in[64];

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
    OK(kv_round(t, &io, "a", 0, 1));
    OK(kv_round(t, &io, "a", 5, 1));
    OK(kv_round(t, &io, "bc", 8192, 2));
    OK(kv_round(t, &io, "bc", 8193, 3));
    OK(kv_round(t, &io, "0123456789abcdef", 131072, 4));
    OK(kv_round(t, &io, "key", 131073, 5));
    OK(kv_round(t, &io, "key", 5000001, 6));

    /* Conditions. */
    sqe = kv_cmd(NVME_KV_STORE, "new", 3, NVME_KV_STORE_MUST_EXIST);
    OK(cl_cmd(t, &io, &sqe, "abc", 3, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_KEY_NOT_EXIST | DNR));
    sqe = kv_cmd(NVME_KV_STORE, "a", 3, NVME_KV_STORE_MUST_NOT_EXIST);
    OK(cl_cmd(t, &io, &sqe, "abc", 3, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_KEY_EXISTS | DNR));
    sqe = kv_cmd(NVME_KV_STORE, "a", 3, NVME_KV_STORE_MUST_NOT_EXIST | NVME_KV_STORE_MUST_EXIST);
    OK(cl_cmd(t, &io, &sqe, "abc", 3, NULL, 0, &r));
    STATUS(r, (NVME_SC_INVALID_FIELD | DNR));
    /* Refused before the host is asked for the data. */
    sqe = kv_cmd(NVME_KV_STORE, "a", 100000, NVME_KV_STORE_MUST_NOT_EXIST);
    nvme_tcp_sgl_transport(&sqe, 100000);
    OK(cl_send_cmd(t, &io, &sqe, NULL, 0));
    OK(cl_wait(t, &io, NULL, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_KEY_EXISTS | DNR));
    CHECK(r.r2ts == 0);

    /* Sizes. */
    sqe = kv_cmd(NVME_KV_RETRIEVE, "a", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == 5 && r.data_len == 0);
    sqe = kv_cmd(NVME_KV_RETRIEVE, "a", 2, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, in, 2, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == 5 && r.data_len == 2);
    sqe = kv_cmd(NVME_KV_RETRIEVE, "a", 64, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, in, 60, &r));
    STATUS(r, (NVME_SC_SGL_INVALID_LENGTH | DNR));
    sqe = kv_cmd(NVME_KV_RETRIEVE, "none", 64, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, in, 64, &r));
    STATUS(r, (NVME_SC_KV_KEY_NOT_EXIST | DNR));
    CHECK(r.data_len == 0);
    sqe = kv_cmd(NVME_KV_EXIST, "", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_INVALID_KEY_SIZE | DNR));
    sqe = kv_cmd(NVME_KV_EXIST, "a", 0, 0);
    sqe.cdw11 = le32_make(17);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_INVALID_KEY_SIZE | DNR));

    /* Exist, Delete. */
    sqe = kv_cmd(NVME_KV_EXIST, "bc", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    sqe = kv_cmd(NVME_KV_DELETE, "bc", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    sqe = kv_cmd(NVME_KV_EXIST, "bc", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_KEY_NOT_EXIST | DNR));
    sqe = kv_cmd(NVME_KV_DELETE, "bc", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    sqe = (struct nvme_sqe){.opc = NVME_OPC_SET_FEATURES,
                            .nsid = le32_make(2),
                            .cdw10 = le32_make(NVME_FID_KV_CONFIG),
                            .cdw11 = le32_make(1)};
    OK(cl_cmd(t, &admin, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    sqe = kv_cmd(NVME_KV_DELETE, "bc", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_KEY_NOT_EXIST | DNR));
    return 0;
}
TEST_ENV(kv_basic, 1, 8 * MIB)

/* --- List ------------------------------------------------------------------------------------- */

static int list_body(struct rt_task *t, struct env *e)
{
    enum { N = 3000 };
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    CLEANUP(free_p) uint8_t *page = malloc(200000);
    struct nvme_kv_list_iter it;
    struct nvme_sqe sqe;
    struct cl_reply r;
    struct bytes key;
    char name[17], last[17] = "";
    unsigned seen = 0;

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "%0*d", 4 + i % 13, i);
        sqe = kv_cmd(NVME_KV_STORE, name, 1, 0);
        OK(cl_cmd(t, &io, &sqe, "x", 1, NULL, 0, &r));
        STATUS(r, 0);
    }
    /* Page by page, each beginning with the last key of the one before. */
    for (;;) {
        unsigned fresh = 0;

        sqe = kv_cmd(NVME_KV_LIST, last, 4096, 0);
        OK(cl_cmd(t, &io, &sqe, NULL, 0, page, 4096, &r));
        STATUS(r, 0);
        CHECK(r.dw0 == 0 && r.data_len % 4 == 0);
        OK(nvme_kv_list_begin(&it, page, r.data_len));
        while (nvme_kv_list_next(&it, 16, &key)) {
            if (bytes_eq(key, bytes_of_str(last)))
                continue;
            CHECK(bytes_cmp(bytes_of_str(last), key) < 0);
            memset(last, 0, sizeof(last));
            memcpy(last, key.ptr, key.len);
            fresh++;
        }
        OK(it.rc);
        seen += fresh;
        if (fresh == 0)
            break;
    }
    CHECK(seen == N);
    /* All at once; from a key that is not there; into next to no room. */
    sqe = kv_cmd(NVME_KV_LIST, "", 200000, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, page, 200000, &r));
    STATUS(r, 0);
    CHECK(le32_at(page) == N);
    sqe = kv_cmd(NVME_KV_LIST, "00000000000", 64, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, page, 64, &r));
    STATUS(r, 0);
    OK(nvme_kv_list_begin(&it, page, r.data_len));
    CHECK(nvme_kv_list_next(&it, 16, &key));
    CHECK(bytes_cmp(bytes_of_str("00000000000"), key) < 0);
    sqe = kv_cmd(NVME_KV_LIST, "", 7, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, page, 7, &r));
    STATUS(r, 0);
    CHECK(r.data_len == 4 && le32_at(page) == 0);
    sqe = kv_cmd(NVME_KV_LIST, "", 3, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, page, 64, &r));
    STATUS(r, NVME_SC_INVALID_FIELD | DNR);
    return 0;
}
TEST_ENV(list, 1, 2 * MIB)

/* --- vendor commands -------------------------------------------------------------------------- */

static int vopen(struct rt_task *t, struct cl *io, struct nvme_kvv_open open, struct cl_reply *r)
{
    uint8_t data[8192];
    struct nvme_sqe sqe = {.nsid = le32_make(2)};
    int n = nvme_kvv_open_encode(&sqe, data, sizeof(data), &open);

    CHECK(n > 0);
    sqe.opc = NVME_KVV_OPEN;
    return cl_cmd(t, io, &sqe, data, (uint32_t)n, NULL, 0, r);
}

static int vio(struct rt_task *t, struct cl *io, enum nvme_kvv_opcode opc, struct nvme_kvv_io v,
               const void *out, void *in, struct cl_reply *r)
{
    struct nvme_sqe sqe = {.nsid = le32_make(2)};

    nvme_kvv_io_encode(&sqe, opc, &v);
    return cl_cmd(t, io, &sqe, out, out != NULL ? v.len : 0, in, in != NULL ? v.len : 0, r);
}
#define VIO(opc, out, in, ...) OK(vio(t, &io, opc, (struct nvme_kvv_io){__VA_ARGS__}, out, in, &r))
#define VOPEN(...) OK(vopen(t, &io, (struct nvme_kvv_open){__VA_ARGS__}, &r))

static int vendor_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    CLEANUP(free_p) uint8_t *data = malloc(1000000);
    CLEANUP(free_p) uint8_t *back = malloc(1000000);
    struct nvme_kvv_info info;
    char long_key[601];
    struct bytes key;
    struct cl_reply r;
    uint64_t version;
    uint32_t h, snap;

    memset(long_key, 'k', 600);
    long_key[600] = 0;
    key = bytes_of_str(long_key);
    pattern(data, 1000000, 3);
    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));

    /* A store of unknown length in three writes; wrong offsets change nothing. */
    VOPEN(.mode = NVME_KVV_MODE_STORE, .key = key, .declared_len = NVME_KVV_LEN_UNKNOWN);
    STATUS(r, 0);
    h = r.dw0;
    VIO(NVME_KVV_WRITE, data, NULL, .handle = h, .len = 5000);
    STATUS(r, 0);
    VIO(NVME_KVV_WRITE, data, NULL, .handle = h, .len = 5000);
    STATUS(r, NVME_SC_KVV_SEQUENCE | DNR);
    VIO(NVME_KVV_WRITE, data + 5000, NULL, .handle = h, .len = 100000, .offset = 5000);
    STATUS(r, 0);
    VIO(NVME_KVV_INFO, NULL, &info, .handle = h, .len = 32);
    STATUS(r, 0);
    CHECK(le64_get(info.value_len) == 105000 && le32_get(info.mode) == NVME_KVV_MODE_STORE);
    VIO(NVME_KVV_WRITE, data + 105000, NULL, .handle = h, .len = 895000, .offset = 105000,
        .flags = NVME_KVV_IO_COMMIT);
    STATUS(r, 0);
    version = r.dw0 | (uint64_t)r.dw1 << 32;
    VIO(NVME_KVV_COMMIT, NULL, NULL, .handle = h);
    STATUS(r, NVME_SC_KVV_BAD_HANDLE | DNR);

    /* Reading it, in ranges, small and larger than a buffer. */
    VOPEN(.mode = NVME_KVV_MODE_READ, .key = key);
    STATUS(r, 0);
    CHECK(r.dw1 == 1000000);
    h = r.dw0;
    VIO(NVME_KVV_READ, NULL, back, .handle = h, .len = 1000, .offset = 777);
    STATUS(r, 0);
    CHECK(r.dw0 == 1000 && r.dw1 == NVME_KVV_MORE && memcmp(back, data + 777, 1000) == 0);
    VIO(NVME_KVV_READ, NULL, back, .handle = h, .len = 1000000, .offset = 300000);
    STATUS(r, 0);
    CHECK(r.dw0 == 700000 && r.dw1 == 0 && memcmp(back, data + 300000, 700000) == 0);
    VIO(NVME_KVV_READ, NULL, back, .handle = h, .len = 10, .offset = 1000000);
    STATUS(r, 0);
    CHECK(r.dw0 == 0 && r.data_len == 0);
    VIO(NVME_KVV_INFO, NULL, &info, .handle = h, .len = 32, .flags = NVME_KVV_IO_CLOSE);
    STATUS(r, 0);
    CHECK(le64_get(info.version) == version && le64_get(info.value_len) == 1000000);
    VIO(NVME_KVV_READ, NULL, back, .handle = h, .len = 10);
    STATUS(r, NVME_SC_KVV_BAD_HANDLE | DNR);

    /* Versions and conditions. */
    VOPEN(.mode = NVME_KVV_MODE_STORE, .key = key, .declared_len = 1, .version = version + 1,
          .flags = NVME_KVV_F_IF_VERSION);
    STATUS(r, NVME_SC_KVV_STALE | DNR);
    VOPEN(.mode = NVME_KVV_MODE_STORE, .key = key, .declared_len = 1,
          .flags = NVME_KVV_F_MUST_NOT_EXIST);
    STATUS(r, NVME_SC_KV_KEY_EXISTS | DNR);
    VOPEN(.mode = NVME_KVV_MODE_STAT, .key = bytes_of_str("none"));
    STATUS(r, NVME_SC_KV_KEY_NOT_EXIST | DNR);
    VOPEN(.mode = NVME_KVV_MODE_DELETE, .key = bytes_of_str("none"));
    STATUS(r, NVME_SC_KV_KEY_NOT_EXIST | DNR);

    /* More than declared ends the store; less fails the commit; the old value stays. */
    VOPEN(.mode = NVME_KVV_MODE_STORE, .key = key, .declared_len = 10);
    h = r.dw0;
    VIO(NVME_KVV_WRITE, data, NULL, .handle = h, .len = 11);
    STATUS(r, NVME_SC_KV_INVALID_VALUE_SIZE | DNR);
    VIO(NVME_KVV_CLOSE, NULL, NULL, .handle = h);
    STATUS(r, NVME_SC_KVV_BAD_HANDLE | DNR);
    VOPEN(.mode = NVME_KVV_MODE_STORE, .key = key, .declared_len = 10);
    h = r.dw0;
    VIO(NVME_KVV_WRITE, data, NULL, .handle = h, .len = 9);
    STATUS(r, 0);
    VIO(NVME_KVV_COMMIT, NULL, NULL, .handle = h);
    STATUS(r, NVME_SC_INVALID_FIELD | DNR);
    VOPEN(.mode = NVME_KVV_MODE_STAT, .key = key);
    STATUS(r, 0);
    CHECK(r.dw0 == 1000000);

    /* A batch; a list with a prefix, in small pages; a snapshot that stays as it was. */
    {
        struct nvme_sqe sqe = {.nsid = le32_make(2)};
        struct nvme_kvv_item item = {.val = bytes_of_str("v")};
        size_t used = 0;
        char name[16];

        for (int i = 0; i < 100; i++) {
            snprintf(name, sizeof(name), "p/%03d", i);
            item.key = bytes_of_str(name);
            CHECK(nvme_kvv_batch_put(data, 100000, &used, &item));
        }
        nvme_kvv_batch_encode(&sqe, (uint32_t)used, 100);
        OK(cl_cmd(t, &io, &sqe, data, (uint32_t)used, NULL, 0, &r));
        STATUS(r, 0);
        nvme_kvv_batch_encode(&sqe, (uint32_t)used - 1, 100);
        OK(cl_cmd(t, &io, &sqe, data, (uint32_t)used - 1, NULL, 0, &r));
        STATUS(r, NVME_SC_INVALID_FIELD | DNR);
        CHECK(r.dw0 == 99);
    }
    VOPEN(.mode = NVME_KVV_MODE_SNAPSHOT);
    STATUS(r, 0);
    snap = r.dw0;
    VOPEN(.mode = NVME_KVV_MODE_DELETE, .key = bytes_of_str("p/050"));
    STATUS(r, 0);
    for (int with_snap = 0; with_snap < 2; with_snap++) {
        struct nvme_kv_list_iter it;
        struct bytes k;
        int n = 0;

        VOPEN(.mode = NVME_KVV_MODE_LIST, .key = bytes_of_str("p/010"),
              .prefix = bytes_of_str("p/"), .flags = NVME_KVV_F_AFTER,
              .snapshot = with_snap ? snap : 0);
        STATUS(r, 0);
        h = r.dw0;
        do {
            VIO(NVME_KVV_READ, NULL, back, .handle = h, .len = 100);
            STATUS(r, 0);
            OK(nvme_kv_list_begin(&it, back, r.data_len));
            while (nvme_kv_list_next(&it, 2048, &k))
                n++;
        } while (r.dw1 & NVME_KVV_MORE);
        CHECK(n == 88 + with_snap);
        VIO(NVME_KVV_READ, NULL, back, .handle = h, .len = 5);
        STATUS(r, 0); /* at the end: a count of 0 */
        CHECK(r.dw0 == 4);
    }
    VIO(NVME_KVV_CLOSE, NULL, NULL, .handle = snap);
    STATUS(r, 0);
    VIO(NVME_KVV_CLOSE, NULL, NULL, .handle = snap);
    STATUS(r, NVME_SC_KVV_BAD_HANDLE | DNR);

    /* As many handles as there are, and no more; they end with the queue. */
    for (unsigned i = 0;; i++) {
        VOPEN(.mode = NVME_KVV_MODE_STORE, .key = key, .declared_len = 1);
        if (r.status != 0)
            break;
        CHECK(i < 64);
    }
    STATUS(r, NVME_SC_KVV_NO_HANDLE);
    return 0;
}
TEST_ENV(vendor, 1, 4 * MIB)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nvm_plain), cmocka_unit_test(nvm_digests), cmocka_unit_test(nvm_split),
        cmocka_unit_test(kv_basic),  cmocka_unit_test(list),        cmocka_unit_test(vendor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
