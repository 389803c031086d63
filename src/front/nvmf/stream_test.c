/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data that is larger than memory, hosts that stop in the middle, hosts that go away at any point:
 * nobody else notices, and nothing leaks (run_env checks the buffers).
 */
#include "front/nvmf/test_env.h"

#include "rt/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define HUGE_BYTES (300u * 1024 * 1024)
#define STALLED 150

/* A Store of which only the first bytes come. */
static int stall_store(struct rt_task *t, struct env *e, const struct cl *admin, struct cl *io,
                       uint16_t qid, uint32_t total, uint32_t sent)
{
    static uint8_t zeroes[65536];
    char key[17];
    struct nvme_sqe sqe;
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout lay;
    uint8_t hdr[NVME_TCP_PUT_MAX];
    size_t n;

    snprintf(key, sizeof(key), "stall%u", qid);
    OK(cl_io(t, io, admin, &e->addr, NQN, qid, 0));
    sqe = kv_cmd(NVME_KV_STORE, key, total, 0);
    nvme_tcp_sgl_transport(&sqe, total);
    OK(cl_send_cmd(t, io, &sqe, NULL, 0));
    OK(cl_recv_pdu(t, io, &pdu, &lay, NULL, 0));
    CHECK(lay.type == NVME_TCP_R2T);
    n = nvme_tcp_put_h2c_data(hdr, &io->ptx, le16_get(pdu.r2t.cccid), le16_get(pdu.r2t.ttag), 0,
                              MIN(131072, le32_get(pdu.r2t.r2tl)),
                              le32_get(pdu.r2t.r2tl) <= 131072);
    OK(cl_send(t, io, hdr, n));
    return cl_send(t, io, zeroes, sent);
}

/* Sends a value of any length that is never in memory whole, and reads it back. */
static uint8_t byte_at(uint32_t off)
{
    return (uint8_t)(off * 2654435761u >> 24);
}

static int huge_store(struct rt_task *t, struct cl *io, const char *key, uint32_t total)
{
    CLEANUP(free_p) uint8_t *step = malloc(131072);
    struct nvme_sqe sqe = kv_cmd(NVME_KV_STORE, key, total, 0);
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout lay;

    nvme_tcp_sgl_transport(&sqe, total);
    OK(cl_send_cmd(t, io, &sqe, NULL, 0));
    for (;;) {
        uint32_t off, end;

        OK(cl_recv_pdu(t, io, &pdu, &lay, NULL, 0));
        if (lay.type == NVME_TCP_RESP)
            return nvme_cqe_status(&pdu.resp.cqe);
        CHECK(lay.type == NVME_TCP_R2T);
        off = le32_get(pdu.r2t.r2to);
        end = off + le32_get(pdu.r2t.r2tl);
        while (off < end) {
            uint32_t n = MIN(131072, end - off);
            uint8_t hdr[NVME_TCP_PUT_MAX];
            size_t hdr_len = nvme_tcp_put_h2c_data(hdr, &io->ptx, le16_get(pdu.r2t.cccid),
                                                   le16_get(pdu.r2t.ttag), off, n, off + n == end);

            for (uint32_t i = 0; i < n; i++)
                step[i] = byte_at(off + i);
            OK(cl_send(t, io, hdr, hdr_len));
            OK(cl_send(t, io, step, n));
            off += n;
        }
    }
}

static int huge_retrieve(struct rt_task *t, struct cl *io, const char *key, uint32_t total)
{
    CLEANUP(free_p) uint8_t *part = malloc(131072);
    struct nvme_sqe sqe = kv_cmd(NVME_KV_RETRIEVE, key, UINT32_MAX, 0);
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout lay;
    uint32_t off = 0;

    nvme_tcp_sgl_transport(&sqe, UINT32_MAX);
    OK(cl_send_cmd(t, io, &sqe, NULL, 0));
    for (;;) {
        OK(cl_recv_pdu(t, io, &pdu, &lay, part, 131072));
        if (lay.type == NVME_TCP_RESP)
            break;
        CHECK(lay.type == NVME_TCP_C2H_DATA && le32_get(pdu.data.datao) == off);
        for (uint32_t i = 0; i < lay.data_len; i++)
            CHECK(part[i] == byte_at(off + i));
        off += lay.data_len;
    }
    CHECK(nvme_cqe_status(&pdu.resp.cqe) == 0);
    CHECK(le32_get(pdu.resp.cqe.dw0) == total && off == total);
    return 0;
}

static void close_all(struct cl **clients)
{
    for (unsigned i = 0; *clients != NULL && i < STALLED; i++)
        cl_close(&(*clients)[i]);
    free(*clients);
}

/* 300 MiB go through 16 MiB of buffers, past more half-received Stores than there are buffers. */
static int huge_value_body(struct rt_task *t, struct env *e)
{
    CLEANUP(close_all) struct cl *stalled = calloc(STALLED, sizeof(*stalled));
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    struct nvmf_stats st;
    struct rt_buf_stats bufs;

    rt_buf_stats(&bufs);
    CHECK(bufs.large_total < STALLED);
    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    /* Some as large as a buffer, some larger; cut off in the middle of a PDU. */
    for (unsigned i = 0; i < STALLED; i++)
        OK(stall_store(t, e, &admin, &stalled[i], (uint16_t)(i + 2),
                       i % 2 ? 131072 : 10 * 1024 * 1024, 1 + i * 300));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
    OK(huge_store(t, &io, "huge", HUGE_BYTES));
    OK(huge_retrieve(t, &io, "huge", HUGE_BYTES));
    OK(nvmf_stats(t, e->tgt, &st));
    CHECK(st.yields > 0 && st.stalled == 0);
    return 0;
}

static void huge_value(void **state)
{
    struct env e = {.body = huge_value_body, .cfg = {.io_queues_max = STALLED + 2}};

    (void)state;
    run_env(&e, 1, 16 * MIB);
}

/* What was interrupted by others' need for its buffer still arrives whole: KV, and NVM with its
 * blocks, in many small PDUs that fit no block. */
static int finish_slowly(struct rt_task *t, struct env *e, bool kv)
{
    enum { N = 24, LEN = 131072 };
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl reader = {0};
    struct cl io[N] = {0};
    union nvme_tcp_pdu r2t[N];
    struct nvme_tcp_layout lay;
    CLEANUP(free_p) uint8_t *data = malloc(LEN);
    CLEANUP(free_p) uint8_t *in = malloc(LEN);
    struct nvmf_stats st;
    uint32_t step = 1020;

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &reader, &admin, &e->addr, NQN, N + 1, 0));
    for (unsigned i = 0; i < N; i++) {
        struct nvme_sqe sqe = rw(NVME_OPC_WRITE, i * 256, 256);
        char key[8];

        snprintf(key, sizeof(key), "s%u", i);
        if (kv)
            sqe = kv_cmd(NVME_KV_STORE, key, LEN, 0);
        OK(cl_io(t, &io[i], &admin, &e->addr, NQN, (uint16_t)(i + 1), 0));
        nvme_tcp_sgl_transport(&sqe, LEN);
        OK(cl_send_cmd(t, &io[i], &sqe, NULL, 0));
        OK(cl_recv_pdu(t, &io[i], &r2t[i], &lay, NULL, 0));
        CHECK(lay.type == NVME_TCP_R2T && le32_get(r2t[i].r2t.r2tl) == LEN);
    }
    /* Round by round, a little of each. */
    for (uint32_t off = 0; off < LEN; off += step) {
        for (unsigned i = 0; i < N; i++) {
            uint32_t n = MIN(step, LEN - off);
            uint8_t hdr[NVME_TCP_PUT_MAX];
            size_t hdr_len =
                nvme_tcp_put_h2c_data(hdr, &io[i].ptx, le16_get(r2t[i].r2t.cccid),
                                      le16_get(r2t[i].r2t.ttag), off, n, off + n == LEN);

            pattern(data, LEN, i);
            OK(cl_send(t, &io[i], hdr, hdr_len));
            OK(cl_send(t, &io[i], data + off, n));
        }
        if (off % (8 * step) == 0) { /* somebody who waits for a buffer, and gets one */
            struct nvme_sqe sqe = rw(NVME_OPC_READ, 20000, 256);

            OK(cl_cmd(t, &reader, &sqe, NULL, 0, in, LEN, NULL));
        }
        rt_sleep(t, NS_PER_MS / 4);
    }
    for (unsigned i = 0; i < N; i++) {
        struct nvme_sqe sqe = rw(NVME_OPC_READ, i * 256, 256);
        struct cl_reply r;
        char key[8];

        snprintf(key, sizeof(key), "s%u", i);
        if (kv)
            sqe = kv_cmd(NVME_KV_RETRIEVE, key, LEN, 0);
        OK(cl_wait(t, &io[i], NULL, NULL, 0, &r));
        STATUS(r, 0);
        OK(cl_cmd(t, &io[i], &sqe, NULL, 0, in, LEN, &r));
        STATUS(r, 0);
        pattern(data, LEN, i);
        CHECK(r.data_len == LEN && memcmp(in, data, LEN) == 0);
        cl_close(&io[i]);
    }
    OK(nvmf_stats(t, e->tgt, &st));
    CHECK(st.yields > 0);
    return 0;
}

static int slow_kv_body(struct rt_task *t, struct env *e)
{
    return finish_slowly(t, e, true);
}
TEST_ENV(slow_kv, 1, 1 * MIB)

static int slow_nvm_body(struct rt_task *t, struct env *e)
{
    return finish_slowly(t, e, false);
}
TEST_ENV(slow_nvm, 1, 1 * MIB)

/* --- without progress ------------------------------------------------------------------------- */

static int none_left(struct rt_task *t, void *arg)
{
    return stat_connections(t, arg) <= 1;
}

static int no_progress_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl half = {0};
    CLEANUP(cl_close) struct cl silent = {0};
    CLEANUP(cl_close) struct cl deaf = {0};
    struct nvmf_stats st;
    struct nvme_sqe sqe;

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(stall_store(t, e, &admin, &half, 1, 1000000, 5000));
    OK(cl_socket(t, &silent, &e->addr));
    OK(cl_io(t, &deaf, &admin, &e->addr, NQN, 2, 0));
    for (int i = 0; i < 4; i++) {
        sqe = rw(NVME_OPC_READ, 0, 65536);
        nvme_tcp_sgl_transport(&sqe, 65536 * 512);
        OK(cl_send_cmd(t, &deaf, &sqe, NULL, 0));
    }
    CHECK(eventually(t, none_left, e));
    OK(nvmf_stats(t, e->tgt, &st));
    CHECK(st.stalled == 2); /* and one that never said a word */
    CHECK(st.ctrlrs == 1);
    sqe = (struct nvme_sqe){.opc = NVME_OPC_KEEP_ALIVE};
    OK(cl_cmd(t, &admin, &sqe, NULL, 0, NULL, 0, NULL));
    return 0;
}

static void no_progress(void **state)
{
    struct env e = {.body = no_progress_body, .cfg = {.progress_ns = 200 * NS_PER_MS}};

    (void)state;
    run_env(&e, 1, 8 * MIB);
}

/* --- hosts that go away ----------------------------------------------------------------------- */

static uint32_t random_u32(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Some commands of all kinds, of which none is waited for. */
static int send_some(struct rt_task *t, struct cl *io, uint32_t *rnd)
{
    static uint8_t data[8192];

    for (uint32_t i = 0, n = random_u32(rnd) % 20; i < n; i++) {
        uint32_t nblocks = 1 + random_u32(rnd) % 600, len = random_u32(rnd) % 400000;
        struct nvme_sqe sqe;

        switch (random_u32(rnd) % 6) {
        case 0:
            sqe = rw(NVME_OPC_READ, random_u32(rnd) % 1000, nblocks);
            nvme_tcp_sgl_transport(&sqe, nblocks * 512);
            OK(cl_send_cmd(t, io, &sqe, NULL, 0));
            break;
        case 1:
            sqe = rw(NVME_OPC_WRITE, random_u32(rnd) % 1000, nblocks);
            nvme_tcp_sgl_transport(&sqe, nblocks * 512);
            OK(cl_send_cmd(t, io, &sqe, NULL, 0));
            break;
        case 2:
            sqe = rw(NVME_OPC_WRITE, random_u32(rnd) % 1000, 16);
            nvme_tcp_sgl_in_capsule(&sqe, 8192);
            OK(cl_send_cmd(t, io, &sqe, data, 8192));
            break;
        case 3:
            sqe = kv_cmd(NVME_KV_STORE, "k", len, random_u32(rnd) % 3);
            nvme_tcp_sgl_transport(&sqe, len);
            OK(cl_send_cmd(t, io, &sqe, NULL, 0));
            break;
        case 4:
            sqe = kv_cmd(NVME_KV_RETRIEVE, "seed", len, 0);
            nvme_tcp_sgl_transport(&sqe, len);
            OK(cl_send_cmd(t, io, &sqe, NULL, 0));
            break;
        default:
            sqe = kv_cmd(NVME_KV_LIST, "", 4096, 0);
            nvme_tcp_sgl_transport(&sqe, 4096);
            OK(cl_send_cmd(t, io, &sqe, NULL, 0));
            break;
        }
    }
    return 0;
}

/* Takes what comes, and answers some of it. */
static int take_some(struct rt_task *t, struct cl *io, uint32_t *rnd)
{
    CLEANUP(free_p) uint8_t *data = calloc(1, 400000);
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout lay;

    for (uint32_t i = 0, n = random_u32(rnd) % 12; i < n; i++) {
        int rc;

        rt_task_deadline(t, rt_now() + 3 * NS_PER_MS);
        rc = cl_recv_pdu(t, io, &pdu, &lay, data, 400000);
        rt_task_deadline(t, 0);
        if (rc < 0)
            return 0;
        if (lay.type == NVME_TCP_R2T) {
            uint32_t half = le32_get(pdu.r2t.r2tl) / 2;

            if (random_u32(rnd) % 3 == 0 && half > 0) { /* not all of it */
                uint8_t hdr[NVME_TCP_PUT_MAX];
                size_t hl = nvme_tcp_put_h2c_data(hdr, &io->ptx, le16_get(pdu.r2t.cccid),
                                                  le16_get(pdu.r2t.ttag), le32_get(pdu.r2t.r2to),
                                                  half, false);

                if (cl_send(t, io, hdr, hl) == 0)
                    cl_send(t, io, data, random_u32(rnd) % half);
                return 0;
            }
            cl_answer_r2t(t, io, &pdu.r2t, data);
        }
    }
    return 0;
}

static int all_gone(struct rt_task *t, void *arg)
{
    return stat_connections(t, arg) == 0;
}

static int going_away_body(struct rt_task *t, struct env *e)
{
    uint32_t rnd = 12345;

    for (int round = 0; round < 120; round++) {
        CLEANUP(cl_close) struct cl admin = {0};
        CLEANUP(cl_close) struct cl io = {0};
        CLEANUP(cl_close) struct cl io2 = {0};
        uint8_t dgst = (uint8_t)(random_u32(&rnd) % 4);

        OK(cl_admin(t, &admin, &e->addr, NQN, dgst, NVME_CSS_IOCS));
        OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, dgst));
        OK(cl_io(t, &io2, &admin, &e->addr, NQN, 2, dgst));
        if (round == 0) {
            CLEANUP(free_p) uint8_t *seed = calloc(1, 300000);
            struct nvme_sqe sqe = kv_cmd(NVME_KV_STORE, "seed", 300000, 0);

            OK(cl_cmd(t, &io, &sqe, seed, 300000, NULL, 0, NULL));
        }
        OK(send_some(t, &io, &rnd));
        OK(send_some(t, &io2, &rnd));
        OK(take_some(t, &io, &rnd));
        switch (random_u32(&rnd) % 4) {
        case 0: /* reset */
            cl_property_set(t, &admin, NVME_REG_CC, 0);
            break;
        case 1: /* shutdown */
            cl_property_set(t, &admin, NVME_REG_CC,
                            NVME_CC_EN | NVME_CSS_IOCS << 4 | 1u << NVME_CC_SHN_SHIFT);
            break;
        case 2: /* the admin queue goes first */
            cl_close(&admin);
            break;
        default:
            break;
        }
    }
    CHECK(eventually(t, all_gone, e));
    return 0;
}
TEST_ENV(going_away, 2, 4 * MIB)

/* The target is closed with everything in flight. */
static int closed_body(struct rt_task *t, struct env *e)
{
    static struct cl admin, io;
    uint32_t rnd = 99;

    admin = io = (struct cl){0};
    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
    for (int i = 0; i < 4; i++)
        OK(send_some(t, &io, &rnd));
    rt_sleep(t, NS_PER_MS);
    nvmf_target_close(t, e->tgt);
    e->tgt = NULL;
    cl_close(&io);
    cl_close(&admin);
    return 0;
}
TEST_ENV(closed, 2, 4 * MIB)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(huge_value),  cmocka_unit_test(slow_kv),    cmocka_unit_test(slow_nvm),
        cmocka_unit_test(no_progress), cmocka_unit_test(going_away), cmocka_unit_test(closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
