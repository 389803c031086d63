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
    sqe = kv_cmd(NVME_KV_STORE, "a", 3,
                 NVME_KV_STORE_MUST_NOT_EXIST | NVME_KV_STORE_MUST_EXIST);
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
    sqe = (struct nvme_sqe){.opc = NVME_OPC_SET_FEATURES, .nsid = le32_make(2),
                            .cdw10 = le32_make(NVME_FID_KV_CONFIG), .cdw11 = le32_make(1)};
    OK(cl_cmd(t, &admin, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    sqe = kv_cmd(NVME_KV_DELETE, "bc", 0, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, (NVME_SC_KV_KEY_NOT_EXIST | DNR));
    return 0;
}
TEST_ENV(kv_basic, 1, 8 * MIB)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nvm_plain),
        cmocka_unit_test(nvm_digests),
        cmocka_unit_test(nvm_split),
        cmocka_unit_test(kv_basic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
