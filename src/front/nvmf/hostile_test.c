/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts that break the protocol: each gets the TermReq or status that the specification names. */
#include "front/nvmf/test_env.h"

#include "base/crc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* --- before and during the handshake ---------------------------------------------------------- */

static int term_after(struct rt_task *t, struct env *e, const void *bytes, size_t len,
                      uint32_t *out_fei)
{
    CLEANUP(cl_close) struct cl cl = {0};

    OK(cl_socket(t, &cl, &e->addr));
    OK(cl_send(t, &cl, bytes, len));
    return cl_expect_term(t, &cl, out_fei);
}

static int handshake_body(struct rt_task *t, struct env *e)
{
    uint8_t req[NVME_TCP_IC_BYTES];
    struct nvme_tcp_icreq *ic = (struct nvme_tcp_icreq *)req;
    uint32_t fei = 0;

    nvme_tcp_put_icreq(req, 0, 0, 0);
    ic->pfv = le16_make(1);
    CHECK(term_after(t, e, req, sizeof(req), &fei) == NVME_TCP_FES_UNSUPPORTED && fei == 8);
    nvme_tcp_put_icreq(req, 32, 0, 0);
    CHECK(term_after(t, e, req, sizeof(req), &fei) == NVME_TCP_FES_INVALID_FIELD && fei == 10);
    nvme_tcp_put_icreq(req, 0, 0, 0);
    ic->ch.hlen = 64;
    CHECK(term_after(t, e, req, sizeof(req), &fei) == NVME_TCP_FES_INVALID_FIELD && fei == 2);
    nvme_tcp_put_icreq(req, 0, 0, 0);
    ic->ch.plen = le32_make(129);
    CHECK(term_after(t, e, req, sizeof(req), &fei) == NVME_TCP_FES_INVALID_FIELD && fei == 4);
    /* Anything else first. */
    nvme_tcp_put_icreq(req, 0, 0, 0);
    ic->ch.type = NVME_TCP_CMD;
    ic->ch.hlen = 72;
    ic->ch.plen = le32_make(72);
    CHECK(term_after(t, e, req, 72, &fei) == NVME_TCP_FES_SEQUENCE);
    ic->ch.type = 0x0b;
    CHECK(term_after(t, e, req, 72, &fei) == NVME_TCP_FES_INVALID_FIELD && fei == 0);
    return 0;
}
TEST_ENV(handshake, 1, 1 * MIB)

/* --- an open connection: `spoil` sends something wrong ---------------------------------------- */

static int second_icreq(struct rt_task *t, struct cl *cl)
{
    uint8_t req[NVME_TCP_IC_BYTES];

    nvme_tcp_put_icreq(req, 0, 0, 0);
    return cl_send(t, cl, req, sizeof(req));
}

static int send_hdr(struct rt_task *t, struct cl *cl, struct nvme_sqe *sqe, uint8_t flags,
                    uint32_t plen_more)
{
    uint8_t hdr[NVME_TCP_PUT_MAX] = {0};
    size_t n = nvme_tcp_put_cmd(hdr, &cl->ptx, sqe, 0);
    struct nvme_tcp_ch *ch = (struct nvme_tcp_ch *)hdr;

    ch->flags ^= flags;
    ch->plen = le32_make(le32_get(ch->plen) + plen_more);
    if (cl->ptx.hdgst)
        le32_put(hdr + 72, crc32c(0, hdr, 72));
    return cl_send(t, cl, hdr, n);
}

static int missing_digest_flag(struct rt_task *t, struct cl *cl)
{
    struct nvme_sqe sqe = rw(NVME_OPC_FLUSH, 0, 1);

    return send_hdr(t, cl, &sqe, NVME_TCP_F_HDGST, 0);
}

static int too_much_in_capsule(struct rt_task *t, struct cl *cl)
{
    struct nvme_sqe sqe = rw(NVME_OPC_WRITE, 0, 32);
    uint8_t hdr[NVME_TCP_PUT_MAX];

    nvme_tcp_sgl_in_capsule(&sqe, 16384);
    return cl_send(t, cl, hdr, nvme_tcp_put_cmd(hdr, &cl->ptx, &sqe, 16384));
}

static int wrong_sgl_type(struct rt_task *t, struct cl *cl)
{
    struct nvme_sqe sqe = rw(NVME_OPC_READ, 0, 1);

    sqe.sgl.type = NVME_SGL_DATA_BLOCK;
    return cl_send_cmd(t, cl, &sqe, NULL, 0);
}

static int sgl_offset(struct rt_task *t, struct cl *cl)
{
    static uint8_t data[512];
    struct nvme_sqe sqe = rw(NVME_OPC_WRITE, 0, 1);

    nvme_tcp_sgl_in_capsule(&sqe, 512);
    sqe.sgl.addr = le64_make(8);
    return cl_send_cmd(t, cl, &sqe, data, 512);
}

static int sgl_not_capsule(struct rt_task *t, struct cl *cl)
{
    static uint8_t data[512];
    struct nvme_sqe sqe = rw(NVME_OPC_WRITE, 0, 1);

    nvme_tcp_sgl_in_capsule(&sqe, 1024);
    return cl_send_cmd(t, cl, &sqe, data, 512);
}

static int data_unasked(struct rt_task *t, struct cl *cl)
{
    uint8_t hdr[NVME_TCP_PUT_MAX];

    return cl_send(t, cl, hdr, nvme_tcp_put_h2c_data(hdr, &cl->ptx, 1, 1, 0, 512, true));
}

/* A write of 64 KiB that has got its R2T; then H2CData with these fields. */
static int data_wrong(struct rt_task *t, struct cl *cl, uint32_t off, uint32_t len, int ttag_add,
                      int cid_add, bool last)
{
    struct nvme_sqe sqe = rw(NVME_OPC_WRITE, 0, 128);
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout lay;
    uint8_t hdr[NVME_TCP_PUT_MAX];

    nvme_tcp_sgl_transport(&sqe, 65536);
    OK(cl_send_cmd(t, cl, &sqe, NULL, 0));
    OK(cl_recv_pdu(t, cl, &pdu, &lay, NULL, 0));
    CHECK(lay.type == NVME_TCP_R2T);
    return cl_send(
        t, cl, hdr,
        nvme_tcp_put_h2c_data(hdr, &cl->ptx, (uint16_t)(le16_get(pdu.r2t.cccid) + cid_add),
                              (uint16_t)(le16_get(pdu.r2t.ttag) + ttag_add), off, len, last));
}

static int data_off(struct rt_task *t, struct cl *cl)
{
    return data_wrong(t, cl, 4, 512, 0, 0, false);
}

static int data_long(struct rt_task *t, struct cl *cl)
{
    return data_wrong(t, cl, 0, 65540, 0, 0, true);
}

static int data_ttag(struct rt_task *t, struct cl *cl)
{
    return data_wrong(t, cl, 0, 512, 4, 0, false);
}

static int data_cid(struct rt_task *t, struct cl *cl)
{
    return data_wrong(t, cl, 0, 512, 0, 1, false);
}

static int data_last(struct rt_task *t, struct cl *cl)
{
    return data_wrong(t, cl, 0, 512, 0, 0, true);
}

static int data_limit(struct rt_task *t, struct cl *cl)
{
    return data_wrong(t, cl, 0, 131076, 0, 0, false);
}

static int too_many_commands(struct rt_task *t, struct cl *cl)
{
    struct nvme_sqe sqe = rw(NVME_OPC_WRITE, 0, 128);

    /* None gets its data, so none completes. */
    nvme_tcp_sgl_transport(&sqe, 65536);
    for (int i = 0; i < 140; i++)
        OK(cl_send_cmd(t, cl, &sqe, NULL, 0));
    return 0;
}

static const struct {
    int (*spoil)(struct rt_task *t, struct cl *cl);
    uint8_t dgst;
    uint16_t fes;
    int fei; /* -1: any */
} breaches[] = {
    {second_icreq, 0, NVME_TCP_FES_SEQUENCE, -1},
    {missing_digest_flag, NVME_TCP_DGST_HEADER, NVME_TCP_FES_INVALID_FIELD, 1},
    {too_much_in_capsule, 0, NVME_TCP_FES_LIMIT, -1},
    {wrong_sgl_type, 0, NVME_TCP_FES_UNSUPPORTED, 32},
    {sgl_offset, 0, NVME_TCP_FES_UNSUPPORTED, 32},
    {sgl_not_capsule, 0, NVME_TCP_FES_INVALID_FIELD, 4},
    {data_unasked, 0, NVME_TCP_FES_INVALID_FIELD, 10},
    {data_off, 0, NVME_TCP_FES_OUT_OF_RANGE, -1},
    {data_long, 0, NVME_TCP_FES_OUT_OF_RANGE, -1},
    {data_ttag, 0, NVME_TCP_FES_INVALID_FIELD, 10},
    {data_cid, 0, NVME_TCP_FES_INVALID_FIELD, 8},
    {data_last, 0, NVME_TCP_FES_INVALID_FIELD, 1},
    {data_limit, 0, NVME_TCP_FES_LIMIT, -1},
    {too_many_commands, 0, NVME_TCP_FES_SEQUENCE, -1},
};

static int breaches_of_protocol_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl good_admin = {0};
    CLEANUP(cl_close) struct cl good = {0};
    struct nvmf_stats st;

    OK(cl_admin(t, &good_admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &good, &good_admin, &e->addr, NQN, 1, 0));
    for (size_t i = 0; i < ARRAY_LEN(breaches); i++) {
        CLEANUP(cl_close) struct cl admin = {0};
        CLEANUP(cl_close) struct cl io = {0};
        struct nvme_sqe sqe = rw(NVME_OPC_FLUSH, 0, 1);
        struct cl_reply r;
        uint32_t fei = 0;
        int fes;

        OK(cl_admin(t, &admin, &e->addr, NQN, breaches[i].dgst, NVME_CSS_IOCS));
        OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, breaches[i].dgst));
        OK(breaches[i].spoil(t, &io));
        fes = cl_expect_term(t, &io, &fei);
        if (fes != breaches[i].fes || (breaches[i].fei >= 0 && fei != (uint32_t)breaches[i].fei))
            fprintf(stderr, "breach %zu: fes %d fei %u\n", i, fes, fei);
        CHECK(fes == breaches[i].fes);
        CHECK(breaches[i].fei < 0 || fei == (uint32_t)breaches[i].fei);
        /* Nobody else notices. */
        OK(cl_cmd(t, &good, &sqe, NULL, 0, NULL, 0, &r));
        STATUS(r, 0);
    }
    OK(nvmf_stats(t, e->tgt, &st));
    CHECK(st.term_reqs == ARRAY_LEN(breaches));
    return 0;
}
TEST_ENV(breaches_of_protocol, 1, 4 * MIB)

/* --- digests ---------------------------------------------------------------------------------- */

static int digests_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    static uint8_t data[200000], back[200000];
    uint8_t hdr[NVME_TCP_PUT_MAX];
    struct nvme_sqe sqe;
    struct cl_reply r;
    size_t n;

    OK(cl_admin(t, &admin, &e->addr, NQN, 3, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 3));
    sqe = kv_cmd(NVME_KV_STORE, "good", 100000, 0);
    OK(cl_cmd(t, &io, &sqe, data, 100000, NULL, 0, &r));
    STATUS(r, 0);

    /* A wrong data digest fails the command, in the capsule and after R2T; the value stays. */
    io.bad_ddgst = true;
    memset(data, 1, sizeof(data));
    sqe = rw(NVME_OPC_WRITE, 0, 8);
    OK(cl_cmd(t, &io, &sqe, data, 4096, NULL, 0, &r));
    STATUS(r, NVME_SC_TRANSIENT_TRANSPORT);
    sqe = rw(NVME_OPC_WRITE, 0, 64);
    OK(cl_cmd(t, &io, &sqe, data, 32768, NULL, 0, &r));
    STATUS(r, NVME_SC_TRANSIENT_TRANSPORT);
    sqe = kv_cmd(NVME_KV_STORE, "good", 100000, 0);
    OK(cl_cmd(t, &io, &sqe, data, 100000, NULL, 0, &r));
    STATUS(r, NVME_SC_TRANSIENT_TRANSPORT);
    sqe = kv_cmd(NVME_KV_STORE, "good", 200000, 0);
    OK(cl_cmd(t, &io, &sqe, data, 200000, NULL, 0, &r));
    STATUS(r, NVME_SC_TRANSIENT_TRANSPORT);
    io.bad_ddgst = false;
    sqe = kv_cmd(NVME_KV_RETRIEVE, "good", 200000, 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, back, 200000, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == 100000 && back[0] == 0 && back[99999] == 0);

    /* A wrong header digest ends the connection. */
    sqe = rw(NVME_OPC_FLUSH, 0, 1);
    n = nvme_tcp_put_cmd(hdr, &io.ptx, &sqe, 0);
    hdr[20] ^= 1;
    OK(cl_send(t, &io, hdr, n));
    CHECK(cl_expect_term(t, &io, NULL) == NVME_TCP_FES_HDGST);
    return 0;
}
TEST_ENV(digests, 1, 4 * MIB)

/* --- Connect ---------------------------------------------------------------------------------- */

struct connect_case {
    const char *subnqn;
    const char *hostnqn;
    uint16_t qid, cntlid, sqsize, recfmt;
    uint16_t status;
    uint32_t dw0;
};

#define IATTR NVME_CONNECT_IATTR_DATA

static const struct connect_case connects[] = {
    {"nqn.2026-11.io.kvasir:none", CL_HOST, 0, 0xffff, 31, 0, NVME_SC_CONNECT_INVALID_PARAM,
     IATTR | 256},
    {"", CL_HOST, 0, 0xffff, 31, 0, NVME_SC_CONNECT_INVALID_PARAM, IATTR | 256},
    {NQN, "h\nst", 0, 0xffff, 31, 0, NVME_SC_CONNECT_INVALID_PARAM, IATTR | 512},
    {"nqn.2026-11.io.kvasir:closed", "", 0, 0xffff, 31, 0, NVME_SC_CONNECT_INVALID_HOST, 0},
    {NQN, CL_HOST, 0, 5, 31, 0, NVME_SC_CONNECT_INVALID_PARAM, IATTR | 16},
    {NQN, CL_HOST, 0, 0xffff, 0, 0, NVME_SC_CONNECT_INVALID_PARAM, 44},
    {NQN, CL_HOST, 0, 0xffff, 5000, 0, NVME_SC_CONNECT_INVALID_PARAM, 44},
    {NQN, CL_HOST, 0, 0xffff, 31, 1, NVME_SC_CONNECT_FORMAT, 0},
    {NQN, CL_HOST, 1, 0xff00, 31, 0, NVME_SC_CONNECT_INVALID_PARAM, IATTR | 16},
    {NQN, CL_HOST, 1, 0xffff, 31, 0, NVME_SC_CONNECT_INVALID_PARAM, IATTR | 16},
    {NQN, CL_HOST, 60000, 1, 31, 0, NVME_SC_CONNECT_INVALID_PARAM, 42},
    {NVME_DISCOVERY_NQN, CL_HOST, 1, 1, 31, 0, NVME_SC_CONNECT_INVALID_PARAM, 42},
    {"nqn.2026-11.io.kvasir:closed", CL_HOST, 0, 0xffff, 31, 0, NVME_SC_CONNECT_INVALID_HOST, 0},
};

static int try_connect(struct rt_task *t, struct cl *cl, const struct connect_case *cc,
                       struct cl_reply *r)
{
    struct nvme_connect_cmd cmd = {.opc = NVME_OPC_FABRICS,
                                   .fctype = NVME_FC_CONNECT,
                                   .recfmt = le16_make(cc->recfmt),
                                   .qid = le16_make(cc->qid),
                                   .sqsize = le16_make(cc->sqsize)};
    struct nvme_connect_data d = {.cntlid = le16_make(cc->cntlid)};
    struct nvme_sqe sqe;

    snprintf(d.subnqn, sizeof(d.subnqn), "%s", cc->subnqn);
    snprintf(d.hostnqn, sizeof(d.hostnqn), "%s", cc->hostnqn);
    memcpy(&sqe, &cmd, sizeof(sqe));
    return cl_cmd(t, cl, &sqe, &d, sizeof(d), NULL, 0, r);
}

static int connect_errors_body(struct rt_task *t, struct env *e)
{
    struct nvmf_subsys_config closed = {.nqn = "nqn.2026-11.io.kvasir:closed"};
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    CLEANUP(cl_close) struct cl again = {0};
    CLEANUP(cl_close) struct cl other = {.hostnqn = "nqn.2026-11.io.kvasir:other-host"};
    CLEANUP(cl_close) struct cl early = {0};
    struct nvme_sqe sqe = rw(NVME_OPC_READ, 0, 1);
    struct cl_reply r;

    OK(nvmf_subsys_add(t, e->tgt, &closed, NULL));
    for (size_t i = 0; i < ARRAY_LEN(connects); i++) {
        CLEANUP(cl_close) struct cl cl = {0};

        OK(cl_open(t, &cl, &e->addr, 0, 0));
        OK(try_connect(t, &cl, &connects[i], &r));
        if (r.status != (connects[i].status | DNR) || r.dw0 != connects[i].dw0)
            fprintf(stderr, "connect %zu: status %x dw0 %x\n", i, r.status, r.dw0);
        STATUS(r, connects[i].status | DNR);
        CHECK(r.dw0 == connects[i].dw0);
        /* Not connected: everything else is out of sequence, and Connect can be tried again. */
        sqe = (struct nvme_sqe){.opc = NVME_OPC_IDENTIFY};
        OK(cl_cmd(t, &cl, &sqe, NULL, 0, NULL, 0, &r));
        STATUS(r, NVME_SC_CMD_SEQ_ERROR | DNR);
        OK(cl_connect(t, &cl, NQN, 0, 31, 0, &r));
        STATUS(r, 0);
        /* Twice is not. */
        OK(cl_connect(t, &cl, NQN, 0, 31, 0, &r));
        STATUS(r, NVME_SC_CMD_SEQ_ERROR | DNR);
    }
    OK(nvmf_host_add(t, e->tgt, closed.nqn, CL_HOST, NULL));
    OK(cl_admin(t, &admin, &e->addr, closed.nqn, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, closed.nqn, 1, 0));
    /* A queue that is there; another host's controller; a controller that is not enabled. */
    CHECK(cl_io(t, &again, &admin, &e->addr, closed.nqn, 1, 0) == -EACCES);
    CHECK(cl_io(t, &other, &admin, &e->addr, closed.nqn, 2, 0) == -EACCES);
    OK(cl_property_set(t, &admin, NVME_REG_CC, 0));
    CHECK(cl_io(t, &early, &admin, &e->addr, closed.nqn, 3, 0) == -EACCES);
    /* A host that is taken off the list is disconnected. */
    OK(nvmf_host_remove(t, e->tgt, closed.nqn, CL_HOST, NULL));
    sqe = (struct nvme_sqe){.opc = NVME_OPC_KEEP_ALIVE};
    CHECK(cl_cmd(t, &admin, &sqe, NULL, 0, NULL, 0, &r) < 0);
    return 0;
}
TEST_ENV(connect_errors, 2, 4 * MIB)

/* More connections than allowed are closed; those that are there stay. */
static int too_many_body(struct rt_task *t, struct env *e)
{
    struct cl cl[5] = {0};
    struct nvmf_stats st;

    for (int i = 0; i < 3; i++)
        OK(cl_open(t, &cl[i], &e->addr, 0, 0));
    CHECK(cl_open(t, &cl[3], &e->addr, 0, 0) < 0);
    cl_close(&cl[1]);
    for (int i = 0; i < 100 && stat_connections(t, e) > 2; i++)
        rt_sleep(t, NS_PER_MS);
    OK(cl_open(t, &cl[4], &e->addr, 0, 0));
    OK(nvmf_stats(t, e->tgt, &st));
    CHECK(st.refused == 1);
    for (int i = 0; i < 5; i++)
        cl_close(&cl[i]);
    return 0;
}

static void too_many(void **state)
{
    struct env e = {.body = too_many_body, .cfg = {.connections_max = 3}};

    (void)state;
    run_env(&e, 1, 1 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshake), cmocka_unit_test(breaches_of_protocol),
        cmocka_unit_test(digests),   cmocka_unit_test(connect_errors),
        cmocka_unit_test(too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
