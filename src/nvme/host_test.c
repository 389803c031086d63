/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host against a small target that can misbehave. Each test is a task on one reactor; it
 * returns 0, or the number of the line that was wrong.
 */
#include "nvme/fake_target.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return __LINE__;                                                                       \
    } while (0)

struct test {
    struct fake fake;
    struct nvme_ctrl_opts opts;
    struct nvme_ctrl *ctrl;
    struct nvme_queue *q;
    int (*body)(struct rt_task *t, struct test *x);
    int checks;
    int gone;
    int check_rc;
};

static int count_check(struct rt_task *t, struct nvme_ctrl *ctrl, void *arg, struct err *why)
{
    struct test *x = arg;
    struct nvme_ns ns;

    x->checks++;
    if (x->check_rc < 0)
        return err_set(why, x->check_rc, "refused by the test");
    return nvme_ns_read(t, ctrl, 1, &ns, why);
}

static void count_gone(struct nvme_ctrl *ctrl, void *arg)
{
    ((struct test *)arg)->gone++;
}

static int connect_all(struct rt_task *t, struct test *x)
{
    struct err why = {""};

    snprintf(x->opts.addr, sizeof(x->opts.addr), "%s", x->fake.addr);
    snprintf(x->opts.subnqn, sizeof(x->opts.subnqn), FAKE_NQN);
    x->opts.check = count_check;
    x->opts.gone = count_gone;
    x->opts.arg = x;
    if (x->opts.ctrl_loss_ns == 0)
        x->opts.ctrl_loss_ns = 20 * NS_PER_S;
    CHECK(nvme_ctrl_open(t, &x->opts, &x->ctrl, &why) == 0);
    CHECK(nvme_queue_open(t, x->ctrl, false, &x->q, &why) == 0);
    return 0;
}

static void disconnect_all(struct rt_task *t, struct test *x)
{
    if (x->q != NULL)
        nvme_queue_close(t, x->q);
    if (x->ctrl != NULL)
        nvme_ctrl_close(t, x->ctrl);
}

static int connected_task(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    int line;

    fake_start(t, &x->fake);
    line = connect_all(t, x);
    if (line == 0)
        line = x->body(t, x);
    disconnect_all(t, x);
    fake_stop(t, &x->fake);
    return line;
}

static int alone_task(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    int line;

    fake_start(t, &x->fake);
    line = x->body(t, x);
    fake_stop(t, &x->fake);
    return line;
}

static void run(rt_task_fn fn, struct test *x, enum rt_backend backend)
{
    struct rt_config cfg = {.buf_bytes = 4 * MIB, .backend = backend, .poll = RT_POLL_NEVER};
    int line = rt_run(&cfg, fn, x, NULL);

    if (line != 0)
        fail_msg("line %d", line);
}

#define RUN_CONNECTED(fn, ...)                                                                     \
    run(connected_task, &(struct test){.body = fn, ##__VA_ARGS__}, RT_BACKEND_AUTO)

/* --- what commands look like ------------------------------------------------------------------ */

static struct nvme_sqe rw(uint8_t opc, uint64_t lba, uint32_t nblocks)
{
    struct nvme_sqe sqe = {.opc = opc, .nsid = le32_make(1), .cdw12 = le32_make(nblocks - 1)};

    nvme_set_slba(&sqe, lba);
    return sqe;
}

static int do_rw(struct rt_task *t, struct test *x, uint8_t opc, uint64_t lba, void *buf,
                 uint32_t nblocks, uint8_t flags)
{
    struct iovec iov = {.iov_base = buf, .iov_len = nblocks * 512};
    struct nvme_req req = {.sqe = rw(opc, lba, nblocks),
                           .iov = &iov,
                           .iovcnt = 1,
                           .flags = flags,
                           .data_len = nblocks * 512,
                           .dir = opc == NVME_OPC_READ ? NVME_DIR_C2H : NVME_DIR_H2C};
    int rc;

    rt_req_init_task(&req.req, t);
    nvme_submit(x->q, &req);
    rc = rt_wait(t, &req.req);
    return rc < 0 ? rc : (int)req.moved;
}

static void pattern(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* --- good behaviour --------------------------------------------------------------------------- */

static int writes_and_reads(struct rt_task *t, struct test *x)
{
    static const uint32_t sizes[] = {1, 8, 16, 17, 33, 256};
    uint8_t *out = malloc(256 * 512), *in = malloc(256 * 512);
    int line = 0;

    for (unsigned i = 0; line == 0 && i < ARRAY_LEN(sizes); i++) {
        uint32_t n = sizes[i];

        pattern(out, n * 512, i);
        memset(in, 0, n * 512);
        if (do_rw(t, x, NVME_OPC_WRITE, i, out, n, 0) != (int)(n * 512))
            line = __LINE__;
        if (memcmp(x->fake.blocks + i * 512, out, n * 512) != 0)
            line = __LINE__;
        if (do_rw(t, x, NVME_OPC_READ, i, in, n, 0) != (int)(n * 512))
            line = __LINE__;
        if (memcmp(in, out, n * 512) != 0)
            line = __LINE__;
    }
    free(out);
    free(in);
    return line;
}

static void moves_data(void **state)
{
    for (int digests = 0; digests < 4; digests++) {
        for (int split = 0; split < 2; split++) {
            RUN_CONNECTED(writes_and_reads, .opts.hdgst = digests & 1, .opts.ddgst = digests & 2,
                          .fake.success = split, .fake.c2h_bytes = split ? 4096 : 0,
                          .fake.r2t_bytes = split ? 5000 : 0, .fake.maxh2cdata = 4096);
        }
    }
}

static void moves_data_on_epoll(void **state)
{
    run(connected_task, &(struct test){.body = writes_and_reads}, RT_BACKEND_EPOLL);
}

/* Data from many small pieces of memory, also odd ones. */
static int gathers(struct rt_task *t, struct test *x)
{
    static uint8_t out[512 * 40], in[512 * 40];
    struct iovec iov[64];
    struct nvme_req req;
    unsigned n = 0;
    size_t at = 0;

    pattern(out, sizeof(out), 3);
    while (at < sizeof(out)) {
        size_t len = n < 63 ? 1 + n * 5 % 97 : sizeof(out) - at;

        iov[n++] = (struct iovec){.iov_base = out + at, .iov_len = len};
        at += len;
    }
    req = (struct nvme_req){.sqe = rw(NVME_OPC_WRITE, 0, 40),
                            .iov = iov,
                            .iovcnt = n,
                            .data_len = sizeof(out),
                            .dir = NVME_DIR_H2C};
    rt_req_init_task(&req.req, t);
    nvme_submit(x->q, &req);
    CHECK(rt_wait(t, &req.req) == 0);
    CHECK(memcmp(x->fake.blocks, out, sizeof(out)) == 0);
    for (unsigned i = 0; i < n; i++)
        iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
    req = (struct nvme_req){.sqe = rw(NVME_OPC_READ, 0, 40),
                            .iov = iov,
                            .iovcnt = n,
                            .data_len = sizeof(in),
                            .dir = NVME_DIR_C2H};
    rt_req_init_task(&req.req, t);
    nvme_submit(x->q, &req);
    CHECK(rt_wait(t, &req.req) == 0);
    CHECK(memcmp(in, out, sizeof(out)) == 0);
    return 0;
}

static void gathers_and_scatters(void **state)
{
    RUN_CONNECTED(gathers, .opts.ddgst = true);
}

/* More commands than slots: the rest waits in line. */
static int floods(struct rt_task *t, struct test *x)
{
    static struct nvme_req req[200];
    static uint8_t buf[200][512];
    struct iovec iov[200];

    for (unsigned i = 0; i < 200; i++)
        memset(x->fake.blocks + i * 512, (int)i, 512);
    for (unsigned i = 0; i < 200; i++) {
        iov[i] = (struct iovec){.iov_base = buf[i], .iov_len = 512};
        req[i] = (struct nvme_req){.sqe = rw(NVME_OPC_READ, i, 1),
                                   .iov = &iov[i],
                                   .iovcnt = 1,
                                   .data_len = 512,
                                   .dir = NVME_DIR_C2H,
                                   .flags = NVME_REQ_REPEAT};
        rt_req_init_task(&req[i].req, t);
        nvme_submit(x->q, &req[i]);
    }
    rt_req_cancel(&req[199].req); /* in line: ends at once */
    CHECK(rt_wait(t, &req[199].req) == -ECANCELED);
    for (unsigned i = 0; i < 199; i++) {
        CHECK(rt_wait(t, &req[i].req) == 0);
        CHECK(buf[i][0] == (uint8_t)i && buf[i][511] == (uint8_t)i);
    }
    return 0;
}

static void keeps_to_the_depth(void **state)
{
    RUN_CONNECTED(floods, .opts.depth = 16);
    RUN_CONNECTED(floods, .opts.depth = 1);
}

static int finds(struct rt_task *t, struct test *x)
{
    struct err why = {""};
    struct nvme_ns ns;

    CHECK(nvme_ns_find(t, x->ctrl, NVME_CSI_NVM, 0, &ns, &why) == 0);
    CHECK(ns.nsid == 1 && ns.block_bytes == 512 && ns.nblocks == FAKE_NBLOCKS && ns.uuid[0] == 1);
    CHECK(nvme_ns_find(t, x->ctrl, NVME_CSI_KV, 0, &ns, &why) == 0);
    CHECK(ns.nsid == 2 && ns.key_max == 16 && ns.val_max == FAKE_VALUE_MAX);
    CHECK(nvme_ns_find(t, x->ctrl, NVME_CSI_KV, 1, &ns, &why) == -EINVAL);
    CHECK(strcmp(why.text, "namespace 1 is a block namespace: use it as a block device") == 0);
    CHECK(nvme_ns_find(t, x->ctrl, NVME_CSI_NVM, 2, &ns, &why) == -EINVAL);
    CHECK(strstr(why.text, "KV device") != NULL);
    CHECK(nvme_ns_find(t, x->ctrl, NVME_CSI_ZNS, 0, &ns, &why) == -ENOENT);
    CHECK(nvme_ctrl_queues(x->ctrl) == 4);
    return 0;
}

static void finds_namespaces(void **state)
{
    RUN_CONNECTED(finds);
}

static int too_many(struct rt_task *t, struct test *x)
{
    struct nvme_queue *q[3];
    struct nvme_queue *more;
    struct err why;

    for (int i = 0; i < 3; i++)
        CHECK(nvme_queue_open(t, x->ctrl, false, &q[i], &why) == 0);
    CHECK(nvme_queue_open(t, x->ctrl, false, &more, &why) == -EBUSY);
    for (int i = 0; i < 3; i++)
        nvme_queue_close(t, q[i]);
    CHECK(nvme_queue_open(t, x->ctrl, true, &more, &why) == 0);
    nvme_queue_close(t, more);
    return 0;
}

static void grants_are_kept(void **state)
{
    RUN_CONNECTED(too_many);
}

/* --- streams ---------------------------------------------------------------------------------- */

struct fed {
    struct nvme_req req;
    struct rt_cond cond;
    bool hungry;
};

static void stream_fed(struct nvme_req *req)
{
    struct fed *f = container_of(req, struct fed, req);

    f->hungry = true;
    rt_cond_wake_all(&f->cond);
}

static int feed(struct rt_task *t, struct fed *f, struct iovec *iov, uint8_t *buf, uint32_t len)
{
    while (!f->hungry)
        CHECK(rt_cond_wait(t, &f->cond) == 0);
    f->hungry = false;
    *iov = (struct iovec){.iov_base = buf, .iov_len = len};
    nvme_req_feed(&f->req, iov, 1, len);
    return 0;
}

static int streams(struct rt_task *t, struct test *x)
{
    static uint8_t out[60000], in[60000];
    struct nvme_sqe sqe = {.opc = NVME_KV_STORE, .nsid = le32_make(2)};
    struct fed f = {.hungry = true};
    struct nvme_queue *q;
    struct iovec iov;

    CHECK(nvme_queue_open(t, x->ctrl, true, &q, NULL) == 0);
    pattern(out, sizeof(out), 9);
    nvme_kv_key_put(&sqe, bytes_of_str("key"));
    sqe.cdw10 = le32_make(sizeof(out));
    f.req = (struct nvme_req){
        .sqe = sqe, .data_len = sizeof(out), .dir = NVME_DIR_H2C, .fed = stream_fed};
    rt_req_init_task(&f.req.req, t);
    nvme_submit(q, &f.req);
    for (uint32_t at = 0; at < sizeof(out); at += 4000) {
        CHECK(feed(t, &f, &iov, out + at, 4000) == 0);
        if (at == 20000)
            rt_sleep(t, 20 * NS_PER_MS);
    }
    CHECK(rt_wait(t, &f.req.req) == 0);
    CHECK(x->fake.value[FAKE_VALUES - 1].len == sizeof(out));
    CHECK(memcmp(x->fake.value[FAKE_VALUES - 1].data, out, sizeof(out)) == 0);

    sqe.opc = NVME_KV_RETRIEVE;
    f.hungry = true;
    f.req = (struct nvme_req){
        .sqe = sqe, .data_len = sizeof(in), .dir = NVME_DIR_C2H, .fed = stream_fed};
    rt_req_init_task(&f.req.req, t);
    nvme_submit(q, &f.req);
    f.hungry = false;
    for (uint32_t at = 0; at < sizeof(in); at += 7500) {
        CHECK(feed(t, &f, &iov, in + at, 7500) == 0);
        CHECK(do_rw(t, x, NVME_OPC_READ, 0, out, 1, 0) == 512); /* the other queue goes on */
    }
    CHECK(rt_wait(t, &f.req.req) == 0);
    CHECK(f.req.dw0 == sizeof(in) && f.req.moved == sizeof(in));
    pattern(out, sizeof(out), 9);
    CHECK(memcmp(in, out, sizeof(in)) == 0);
    nvme_queue_close(t, q);
    return 0;
}

static void streams_by_windows(void **state)
{
    RUN_CONNECTED(streams);
    RUN_CONNECTED(streams, .opts.ddgst = true, .opts.hdgst = true, .fake.c2h_bytes = 5000,
                  .fake.r2t_bytes = 9000, .fake.maxh2cdata = 4096);
}

/* Given up in the middle: the value is not stored, and the other queue does not notice. */
static int gives_up(struct rt_task *t, struct test *x)
{
    static uint8_t out[60000];
    struct nvme_sqe sqe = {.opc = NVME_KV_STORE, .nsid = le32_make(2)};
    struct fed f = {.hungry = true};
    struct nvme_queue *q;
    struct iovec iov;

    CHECK(nvme_queue_open(t, x->ctrl, true, &q, NULL) == 0);
    nvme_kv_key_put(&sqe, bytes_of_str("key"));
    sqe.cdw10 = le32_make(sizeof(out));
    f.req = (struct nvme_req){
        .sqe = sqe, .data_len = sizeof(out), .dir = NVME_DIR_H2C, .fed = stream_fed};
    rt_req_init_task(&f.req.req, t);
    nvme_submit(q, &f.req);
    CHECK(feed(t, &f, &iov, out, 4000) == 0);
    while (!f.hungry)
        rt_sleep(t, NS_PER_MS);
    rt_req_cancel(&f.req.req);
    CHECK(rt_wait(t, &f.req.req) == -ECANCELED);
    nvme_queue_close(t, q);
    CHECK(!x->fake.value[FAKE_VALUES - 1].used);
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, out, 1, 0) == 512);
    CHECK(nvme_ctrl_epoch(x->ctrl) == 1);
    return 0;
}

static void streams_can_be_given_up(void **state)
{
    RUN_CONNECTED(gives_up);
}

/* --- lost connections ------------------------------------------------------------------------- */

static int cut_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    return sqe != NULL && c->qid != 0 && sqe->opc != NVME_OPC_FABRICS ? -ECONNRESET : 0;
}

static int repeats(struct rt_task *t, struct test *x)
{
    uint8_t buf[512];

    memset(x->fake.blocks, 0x5a, 512);
    x->fake.script = cut_script;
    x->fake.script_left = 3;
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, buf, 1, NVME_REQ_REPEAT) == 512);
    CHECK(buf[0] == 0x5a && buf[511] == 0x5a);
    CHECK(nvme_ctrl_epoch(x->ctrl) == 4);
    CHECK(x->checks == 4);
    /* What must not be repeated is answered: nobody knows what became of it. */
    x->fake.script_left = 1;
    CHECK(do_rw(t, x, NVME_OPC_WRITE, 0, buf, 1, 0) == -ECONNRESET);
    CHECK(do_rw(t, x, NVME_OPC_WRITE, 0, buf, 1, 0) == 512);
    return 0;
}

static void repeats_what_may_be(void **state)
{
    RUN_CONNECTED(repeats);
}

static int restarted(struct rt_task *t, struct test *x)
{
    static struct nvme_req req[8];
    static uint8_t buf[8][512];
    struct iovec iov[8];

    fake_stop(t, &x->fake);
    for (int i = 0; i < 8; i++) {
        iov[i] = (struct iovec){.iov_base = buf[i], .iov_len = 512};
        req[i] = (struct nvme_req){.sqe = rw(NVME_OPC_READ, (unsigned)i, 1),
                                   .iov = &iov[i],
                                   .iovcnt = 1,
                                   .data_len = 512,
                                   .dir = NVME_DIR_C2H,
                                   .flags = NVME_REQ_REPEAT};
        rt_req_init_task(&req[i].req, t);
        nvme_submit(x->q, &req[i]);
    }
    rt_sleep(t, 300 * NS_PER_MS);
    for (int i = 0; i < 8; i++)
        CHECK(req[i].req.state == RT_REQ_PENDING);
    fake_start(t, &x->fake); /* on the same port */
    for (int i = 0; i < 8; i++)
        CHECK(rt_wait(t, &req[i].req) == 0);
    CHECK(x->gone == 0);
    return 0;
}

static void waits_for_a_restart(void **state)
{
    RUN_CONNECTED(restarted);
}

static int lost_for_good(struct rt_task *t, struct test *x)
{
    uint8_t buf[512];

    x->fake.refuse = true;
    fake_cut(&x->fake);
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, buf, 1, NVME_REQ_REPEAT) == -ENODEV);
    CHECK(do_rw(t, x, NVME_OPC_WRITE, 0, buf, 1, 0) == -ENODEV);
    CHECK(x->gone == 1);
    return 0;
}

static void gives_up_after_ctrl_loss(void **state)
{
    RUN_CONNECTED(lost_for_good, .opts.ctrl_loss_ns = 300 * NS_PER_MS);
}

/* Somebody else's data under the same NSID after a reconnect must not be written to. */
static int other_namespace(struct rt_task *t, struct test *x)
{
    uint8_t buf[512];

    x->check_rc = -ENODEV;
    fake_cut(&x->fake);
    CHECK(do_rw(t, x, NVME_OPC_WRITE, 0, buf, 1, NVME_REQ_REPEAT) == -ENODEV);
    CHECK(x->gone == 1);
    return 0;
}

static void checks_before_going_on(void **state)
{
    RUN_CONNECTED(other_namespace);
}

static int hears(struct rt_task *t, struct test *x)
{
    CHECK(x->checks == 1);
    for (int i = 0; i < 6; i++) { /* more than there are event requests: they are renewed */
        fake_notify(t, &x->fake);
        for (int k = 0; k < 10000 && x->checks < i + 2; k++)
            rt_sleep(t, NS_PER_MS);
        CHECK(x->checks == i + 2);
    }
    return 0;
}

static void hears_of_changes(void **state)
{
    RUN_CONNECTED(hears);
}

static int silent_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    return sqe != NULL && c->qid != 0 && sqe->opc == NVME_OPC_READ;
}

static int silence(struct rt_task *t, struct test *x)
{
    uint8_t buf[512];

    x->fake.script = silent_script;
    x->fake.script_left = 1;
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, buf, 1, NVME_REQ_REPEAT) == 512);
    CHECK(nvme_ctrl_epoch(x->ctrl) == 2);
    return 0;
}

static void does_not_wait_for_ever(void **state)
{
    RUN_CONNECTED(silence, .opts.timeout_ns = 200 * NS_PER_MS);
}

/* --- hostile targets -------------------------------------------------------------------------- */

static int hostile_case; /* the runtime of a test has one thread */

static int hostile_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    static uint8_t data[4096];
    uint16_t cid;

    if (sqe == NULL || c->qid == 0 || (sqe->opc != NVME_OPC_READ && sqe->opc != NVME_OPC_WRITE))
        return 0;
    cid = le16_get(sqe->cid);
    switch (hostile_case) {
    case 0: /* answers to nobody */
        fake_respond(t, c, cid ^ 1, 0, 0, 0);
        break;
    case 1:
        fake_respond(t, c, 0xffff, 0, 0, 0);
        break;
    case 2: /* data: not from the start */
        fake_data(t, c, cid, 512, data, 512, NVME_TCP_F_LAST, false);
        break;
    case 3: /* more than was asked for */
        fake_data(t, c, cid, 0, data, 1024, NVME_TCP_F_LAST, false);
        break;
    case 4: /* the same twice */
        fake_data(t, c, cid, 0, data, 512, 0, false);
        fake_data(t, c, cid, 0, data, 512, NVME_TCP_F_LAST, false);
        break;
    case 5: /* for nobody */
        fake_data(t, c, cid ^ 1, 0, data, 512, NVME_TCP_F_LAST, false);
        break;
    case 6: /* R2T for a read */
        fake_r2t(t, c, cid, 0, 512);
        break;
    case 7: /* SUCCESS without LAST */
        fake_data(t, c, cid, 0, data, 512, NVME_TCP_F_SUCCESS, false);
        break;
    case 8: /* a PDU type that hosts send */
        fake_send(t, c, (uint8_t[8]){NVME_TCP_CMD, 0, 72, 0, 72, 0, 0, 0}, 8);
        break;
    case 9: /* noise */
        fake_send(t, c, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        break;
    case 10: /* a second ICResp */
        fake_send(t, c, (uint8_t[128]){NVME_TCP_ICRESP, 0, 128, 0, 128}, 128);
        break;
    case 11: /* PLEN of 4 GiB */
        fake_send(t, c, (uint8_t[8]){NVME_TCP_RESP, 0, 24, 0, 0xff, 0xff, 0xff, 0xff}, 8);
        break;
    default:
        return 0;
    }
    rt_sleep(t, 5 * NS_PER_MS);
    return 1;
}
#define HOSTILE_CASES 12

static int hostile_reads(struct rt_task *t, struct test *x)
{
    uint8_t buf[512];

    memset(x->fake.blocks, 0x77, 512);
    for (hostile_case = 0; hostile_case < HOSTILE_CASES; hostile_case++) {
        unsigned epoch = nvme_ctrl_epoch(x->ctrl);

        x->fake.script = hostile_script;
        x->fake.script_left = 1;
        x->fake.terms = 0;
        memset(buf, 0, sizeof(buf));
        if (do_rw(t, x, NVME_OPC_READ, 0, buf, 1, NVME_REQ_REPEAT) != 512 || buf[0] != 0x77) {
            printf("case %d\n", hostile_case);
            return __LINE__;
        }
        if (nvme_ctrl_epoch(x->ctrl) != epoch + 1 || x->fake.terms != 1) {
            printf("case %d: epoch %u -> %u, %u H2CTermReq\n", hostile_case, epoch,
                   nvme_ctrl_epoch(x->ctrl), x->fake.terms);
            return __LINE__;
        }
    }
    return 0;
}

static void ends_with_hostile_targets(void **state)
{
    RUN_CONNECTED(hostile_reads);
    RUN_CONNECTED(hostile_reads, .opts.hdgst = true);
}

static int hostile_r2t_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    uint16_t cid;

    if (sqe == NULL || c->qid == 0 || sqe->opc != NVME_OPC_WRITE)
        return 0;
    cid = le16_get(sqe->cid);
    switch (hostile_case) {
    case 0: /* beyond the data */
        fake_r2t(t, c, cid, 0, 32769);
        break;
    case 1: /* not from where we are */
        fake_r2t(t, c, cid, 4096, 4096);
        break;
    case 2: /* wraps around */
        fake_r2t(t, c, cid, 0xfffffff0u, 0x20);
        break;
    case 3: /* C2HData for a write */
        fake_data(t, c, cid, 0, "data", 4, NVME_TCP_F_LAST, false);
        break;
    case 4: /* nothing asked for */
        fake_r2t(t, c, cid, 0, 0);
        break;
    }
    rt_sleep(t, 5 * NS_PER_MS);
    return 1;
}

static int hostile_writes(struct rt_task *t, struct test *x)
{
    static uint8_t buf[32768];

    for (hostile_case = 0; hostile_case < 5; hostile_case++) {
        x->fake.script = hostile_r2t_script;
        x->fake.script_left = 1;
        x->fake.terms = 0;
        if (do_rw(t, x, NVME_OPC_WRITE, 0, buf, 64, NVME_REQ_REPEAT) != 32768 ||
            x->fake.terms != 1) {
            printf("case %d\n", hostile_case);
            return __LINE__;
        }
    }
    return 0;
}

static void ends_with_hostile_r2ts(void **state)
{
    RUN_CONNECTED(hostile_writes);
}

static int digest_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    if (sqe == NULL || c->qid == 0 || sqe->opc != NVME_OPC_READ)
        return 0;
    fake_data(t, c, le16_get(sqe->cid), 0, c->fake->blocks, 512, NVME_TCP_F_LAST, true);
    fake_respond(t, c, le16_get(sqe->cid), 0, 0, 0);
    return 1;
}

static int bad_data_digest(struct rt_task *t, struct test *x)
{
    uint8_t buf[512];

    x->fake.script = digest_script;
    x->fake.script_left = 2;
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, buf, 1, NVME_REQ_REPEAT) == 512);
    CHECK(nvme_ctrl_epoch(x->ctrl) == 1); /* a matter of the command, not of the connection */
    x->fake.script_left = 1;
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, buf, 1, 0) == -EBADMSG);
    x->fake.script_left = 1000;
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, buf, 1, NVME_REQ_REPEAT) == -EBADMSG);
    x->fake.script_left = 0;
    return 0;
}

static void reads_again_after_a_bad_digest(void **state)
{
    RUN_CONNECTED(bad_data_digest, .opts.ddgst = true);
}

static int header_digest_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    struct nvme_cqe cqe = {0};
    uint8_t pdu[NVME_TCP_PUT_MAX];
    size_t len;

    if (sqe == NULL || c->qid == 0 || sqe->opc != NVME_OPC_READ)
        return 0;
    cqe.cid = sqe->cid;
    len = nvme_tcp_put_resp(pdu, &c->out, &cqe);
    pdu[len - 1] ^= 1;
    fake_send(t, c, pdu, len);
    rt_sleep(t, 5 * NS_PER_MS);
    return 1;
}

static int bad_header_digest(struct rt_task *t, struct test *x)
{
    uint8_t buf[512];

    x->fake.script = header_digest_script;
    x->fake.script_left = 1;
    CHECK(do_rw(t, x, NVME_OPC_READ, 0, buf, 1, NVME_REQ_REPEAT) == 512);
    CHECK(x->fake.terms == 1 && x->fake.term_fes == NVME_TCP_FES_HDGST);
    return 0;
}

static void ends_after_a_bad_header_digest(void **state)
{
    RUN_CONNECTED(bad_header_digest, .opts.hdgst = true);
}

/* --- connecting ------------------------------------------------------------------------------- */

static int bad_icresp_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    struct nvme_tcp_icresp resp = {
        .ch = {.type = NVME_TCP_ICRESP, .hlen = 128, .plen = {{128}}},
        .maxh2cdata = le32_make(4096),
    };

    if (sqe != NULL)
        return 0;
    switch (hostile_case) {
    case 0:
        resp.dgst = NVME_TCP_DGST_HEADER;
        break;
    case 1:
        resp.maxh2cdata = le32_make(4095);
        break;
    case 2:
        resp.maxh2cdata = le32_make(0);
        break;
    case 3:
        resp.pfv = le16_make(1);
        break;
    case 4:
        resp.cpda = 32;
        break;
    case 5:
        resp.ch.hlen = 24;
        break;
    case 6:
        return -ECONNRESET;
    default: /* says nothing */
        rt_sleep(t, NS_PER_S);
        return -ECONNRESET;
    }
    fake_send(t, c, &resp, sizeof(resp));
    return 1;
}

static int refused_connects(struct rt_task *t, struct test *x)
{
    snprintf(x->opts.addr, sizeof(x->opts.addr), "%s", x->fake.addr);
    snprintf(x->opts.subnqn, sizeof(x->opts.subnqn), FAKE_NQN);
    x->opts.timeout_ns = 300 * NS_PER_MS;
    x->fake.script = bad_icresp_script;
    x->fake.script_left = 1000;
    for (hostile_case = 0; hostile_case < 8; hostile_case++) {
        int want = hostile_case < 6 ? -EPROTO : hostile_case == 6 ? -ECONNRESET : -ETIMEDOUT;
        struct err why = {""};
        int rc = nvme_ctrl_open(t, &x->opts, &x->ctrl, &why);

        if (rc != want || why.text[0] == '\0') {
            printf("case %d: %d, '%s'\n", hostile_case, rc, why.text);
            return __LINE__;
        }
    }
    return 0;
}

static void refuses_bad_greetings(void **state)
{
    run(alone_task, &(struct test){.body = refused_connects}, RT_BACKEND_AUTO);
}

static uint16_t connect_status;
static uint32_t connect_dw0;

static int connect_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    if (sqe == NULL || sqe->opc != NVME_OPC_FABRICS ||
        ((const struct nvme_fabrics_cmd *)sqe)->fctype != NVME_FC_CONNECT)
        return 0;
    net_rx_need(t, &c->rx, 1024, &(const uint8_t *){NULL});
    net_rx_consume(&c->rx, 1024);
    fake_respond(t, c, le16_get(sqe->cid), connect_status, connect_dw0, 0);
    return 1;
}

static int connect_statuses(struct rt_task *t, struct test *x)
{
    static const struct {
        uint16_t status;
        uint32_t dw0;
        int rc;
        const char *text;
    } cases[] = {
        {NVME_SC_CONNECT_INVALID_HOST | NVME_SC_DNR, 0, -EACCES, "does not allow host"},
        {NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR, 1 << 16 | 256, -ENOENT,
         "no subsystem " FAKE_NQN},
        {NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR, 44, -EPROTO, "byte 44 of the command"},
        {0, NVME_CONNECT_ATR | 1, -EACCES, "authentication"},
    };

    snprintf(x->opts.addr, sizeof(x->opts.addr), "%s", x->fake.addr);
    snprintf(x->opts.subnqn, sizeof(x->opts.subnqn), FAKE_NQN);
    x->fake.script = connect_script;
    x->fake.script_left = 1000;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct err why = {""};
        int rc;

        connect_status = cases[i].status;
        connect_dw0 = cases[i].dw0;
        rc = nvme_ctrl_open(t, &x->opts, &x->ctrl, &why);
        if (rc != cases[i].rc || strstr(why.text, cases[i].text) == NULL) {
            printf("case %u: %d, '%s'\n", i, rc, why.text);
            return __LINE__;
        }
    }
    return 0;
}

static void tells_why_connect_failed(void **state)
{
    run(alone_task, &(struct test){.body = connect_statuses}, RT_BACKEND_AUTO);
}

static int nobody_there(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    struct err why = {""};

    fake_start(t, &x->fake); /* to have a port that is surely free afterwards */
    fake_stop(t, &x->fake);
    snprintf(x->opts.addr, sizeof(x->opts.addr), "%s", x->fake.addr);
    snprintf(x->opts.subnqn, sizeof(x->opts.subnqn), FAKE_NQN);
    CHECK(nvme_ctrl_open(t, &x->opts, &x->ctrl, &why) == -ECONNREFUSED);
    CHECK(strstr(why.text, "no target listens there") != NULL);
    snprintf(x->opts.subnqn, sizeof(x->opts.subnqn), "disk1");
    CHECK(nvme_ctrl_open(t, &x->opts, &x->ctrl, &why) == -EINVAL);
    return 0;
}

static void tells_when_nobody_is_there(void **state)
{
    run(nobody_there, &(struct test){0}, RT_BACKEND_AUTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_data),
        cmocka_unit_test(moves_data_on_epoll),
        cmocka_unit_test(gathers_and_scatters),
        cmocka_unit_test(keeps_to_the_depth),
        cmocka_unit_test(finds_namespaces),
        cmocka_unit_test(grants_are_kept),
        cmocka_unit_test(streams_by_windows),
        cmocka_unit_test(streams_can_be_given_up),
        cmocka_unit_test(repeats_what_may_be),
        cmocka_unit_test(waits_for_a_restart),
        cmocka_unit_test(gives_up_after_ctrl_loss),
        cmocka_unit_test(checks_before_going_on),
        cmocka_unit_test(hears_of_changes),
        cmocka_unit_test(does_not_wait_for_ever),
        cmocka_unit_test(ends_with_hostile_targets),
        cmocka_unit_test(ends_with_hostile_r2ts),
        cmocka_unit_test(reads_again_after_a_bad_digest),
        cmocka_unit_test(ends_after_a_bad_header_digest),
        cmocka_unit_test(refuses_bad_greetings),
        cmocka_unit_test(tells_why_connect_failed),
        cmocka_unit_test(tells_when_nobody_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
