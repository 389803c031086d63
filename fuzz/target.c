/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole NVMe/TCP target with hostile hosts, in the simulator's world (sim/): the input is a
 * script of what up to four connections send. Three things must hold whatever it is: every PDU that
 * the target sends is right by the codec and belongs to the connection's state; a host that comes
 * after all that is served; and the target closes with nothing left behind (memory, descriptors,
 * requests: sim and ASan look).
 */
#include "fuzz/fuzz.h"

#include "base/crc.h"
#include "front/nvmf/nvmf.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_kv_vendor.h"
#include "proto/nvme_tcp.h"
#include "sim/net.h"
#include "sim/world.h"

#include <stdio.h>
#include <unistd.h>

#define PORT 4420
#define HOSTS 4
#define DATA_MAX 70000
#define OPS_MAX 300
#define HOST_NQN "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555"

/* The script: one byte says what, the bytes after it how. */
enum op {
    OP_OPEN,    /* u8 host: (again) a connection without a word */
    OP_HOST,    /* u8 host: the ones that follow are about this connection */
    OP_RAW,     /* le16 length, bytes: just sent */
    OP_IC,      /* u8 digests, u8 HPDA: a proper ICReq */
    OP_CONNECT, /* u8 queue, u8 sort: a proper Connect */
    OP_ENABLE,  /* Property Set CC, as Linux does */
    OP_COMMAND, /* 64 bytes of SQE, u8 how, le16 length of the data */
    OP_SHORT,   /* u8 opcode, u8 NSID, le32 CDW10, CDW11, CDW12, u8 how, le16 length */
    OP_H2C,     /* u8 how: answers the last R2T */
    OP_QUIET,   /* everything the target has to say is read */
    OP_SLEEP,   /* u8: so many tenths of a second */
    OP_END,     /* FIN */
    OP_CLOSE,
    OP_COUNT
};

/* One connection as its host sees it. */
struct host {
    struct rt_sock sock;
    bool open;
    bool is_ready; /* ICResp has come */
    struct nvme_tcp_rx rx;
    struct nvme_tcp_tx tx;
    uint8_t pda;
    uint16_t cntlid; /* of the last admin Connect on it */
    struct nvme_tcp_r2t r2t;
    bool have_r2t;
    size_t got;
    uint8_t in[NVME_TCP_HDR_MAX + DATA_MAX]; /* the beginning of a PDU */
    size_t skip;                             /* bytes of a large PDU still to come */
    bool is_dead;                            /* TermReq has come */
};

struct world {
    struct input script;
    struct host host[HOSTS];
    unsigned current;
    uint16_t cntlid;
    uint32_t handle; /* the last that came */
    uint32_t result; /* of a query, likewise */
    uint8_t out[NVME_TCP_PUT_MAX + DATA_MAX + 8];
    struct nvmf_target *tgt;
    struct blk_dev *blk;
    struct kv_dev *kv;
    struct rt_req target_done, host_done;
    bool stop;
};
static struct world w;
static struct sim_machine *target_machine, *host_machine;

/* sim gives up with _exit(), which libFuzzer does not see. */
void __wrap__exit(int code) __attribute__((noreturn));
void __wrap__exit(int code)
{
    fprintf(stderr, "exit %d\n", code);
    abort();
}

/* --- what comes back -------------------------------------------------------------------------- */

/* Any result may be a controller's id or a handle; a wrong one is only one more thing to try. */
static void got_result(uint32_t dw0, uint16_t status)
{
    if (status != NVME_SC_SUCCESS || dw0 == 0)
        return;
    w.cntlid = (uint16_t)dw0;
    w.result = dw0;
    if (dw0 > 0xff) /* the number of a place, and how often it was used */
        w.handle = dw0;
}

static void got_pdu(struct host *h, const struct nvme_tcp_layout *l, const union nvme_tcp_pdu *pdu)
{
    switch (l->type) {
    case NVME_TCP_ICRESP:
        h->rx.ready = true;
        h->rx.hdgst = h->tx.hdgst = pdu->icresp.dgst & NVME_TCP_DGST_HEADER;
        h->rx.ddgst = h->tx.ddgst = pdu->icresp.dgst & NVME_TCP_DGST_DATA;
        h->tx.pda = pdu->icresp.cpda;
        break;
    case NVME_TCP_R2T:
        h->r2t = pdu->r2t;
        h->have_r2t = true;
        break;
    case NVME_TCP_C2H_TERM:
        h->is_dead = true;
        break;
    case NVME_TCP_RESP:
        got_result(le32_get(pdu->resp.cqe.dw0), nvme_cqe_status(&pdu->resp.cqe));
        must((le16_get(pdu->resp.cqe.status) & 1) == 0);
        must(le16_get(pdu->resp.cqe.sqid) == 0);
        break;
    }
}

/* Takes one PDU off h->in; false when it is not whole. */
static bool take_pdu(struct host *h)
{
    union nvme_tcp_pdu pdu = {.bytes = {0}};
    struct nvme_tcp_fault fault = {0};
    struct nvme_tcp_layout l;

    if (h->got < sizeof(pdu.ch))
        return false;
    memcpy(&pdu, h->in, sizeof(pdu.ch));
    must(!h->is_dead); /* nothing follows a TermReq */
    must(nvme_tcp_ch_decode(&h->rx, &pdu.ch, &l, &fault) == 0);
    must(l.plen <= sizeof(h->in) || l.type == NVME_TCP_C2H_DATA);
    if (h->got < MIN(l.plen, sizeof(h->in)))
        return false;
    memcpy(&pdu, h->in, l.data_off);
    must(nvme_tcp_hdr_check(&l, &pdu, &fault) == 0);
    if (l.ddgst && l.plen <= sizeof(h->in))
        must(nvme_tcp_digest_ok(h->in + l.data_off + l.data_len,
                                crc32c(0, h->in + l.data_off, l.data_len)));
    got_pdu(h, &l, &pdu);
    if (l.plen > h->got) {
        h->skip = l.plen - h->got;
        h->got = 0;
        return false;
    }
    h->got -= l.plen;
    memmove(h->in, h->in + l.plen, h->got);
    return true;
}

static void host_drop(struct host *h)
{
    if (h->open)
        rt_sock_close(&h->sock);
    h->open = false;
}

/* Reads what is there. Returns false when there was nothing. */
static bool host_read(struct host *h)
{
    struct iovec iov;
    ssize_t n;

    if (!h->open)
        return false;
    iov = (struct iovec){h->in + h->got, sizeof(h->in) - h->got};
    if (h->skip > 0)
        iov = (struct iovec){h->in, MIN(h->skip, sizeof(h->in))};
    n = rt_sock_recv(&h->sock, &iov, 1);
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        host_drop(h);
        return true;
    }
    if (h->skip > 0) {
        h->skip -= (size_t)n;
        return true;
    }
    h->got += (size_t)n;
    while (take_pdu(h))
        ;
    return true;
}

static void read_all(void)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        while (host_read(&w.host[i]))
            ;
    }
}

/* --- what is sent ----------------------------------------------------------------------------- */

static void host_write(struct rt_task *t, struct host *h, const void *data, size_t len)
{
    const uint8_t *at = data;
    unsigned patience = 50;

    while (len > 0 && h->open) {
        struct iovec iov = {(void *)(uintptr_t)at, len};
        ssize_t n = rt_sock_send(&h->sock, &iov, 1);

        if (n == -EAGAIN && patience-- > 0) {
            read_all();
            rt_sleep(t, NS_PER_MS);
            continue;
        }
        if (n < 0) {
            host_drop(h);
            return;
        }
        at += n;
        len -= (size_t)n;
    }
}

static void host_connect(struct rt_task *t, struct host *h)
{
    struct net_addr addr;
    char text[64];

    host_drop(h);
    *h = (struct host){.sock.fd = -1};
    sim_net_addr_text(target_machine, PORT, text, sizeof(text));
    must(net_addr_parse(text, 0, &addr, NULL) == 0);
    h->open = rt_sock_connect(t, &h->sock, (struct sockaddr *)&addr.ss, addr.len) == 0;
}

static void send_ic(struct rt_task *t, struct host *h, uint8_t dgst, uint8_t hpda)
{
    uint8_t pdu[NVME_TCP_IC_BYTES];

    h->rx.pda = hpda;
    host_write(t, h, pdu, nvme_tcp_put_icreq(pdu, hpda, dgst, 0));
}

/* A capsule with or without data. how: bit 0 the data is in it, bit 1 the SGL is as it was given,
 * bit 2 CDW11 is the last handle that came, bit 3 CDW13 the last result. */
static void send_command(struct rt_task *t, struct host *h, struct nvme_sqe *sqe, uint8_t how,
                         const void *data, uint32_t len)
{
    uint32_t in_capsule = how & 1 ? MIN(len, 8192u) : 0;
    size_t n;

    if (how & 4)
        sqe->cdw11 = le32_make(w.handle);
    if (how & 8)
        sqe->cdw13 = le32_make(w.result);
    if ((how & 2) == 0 && in_capsule > 0)
        nvme_tcp_sgl_in_capsule(sqe, in_capsule);
    else if ((how & 2) == 0)
        nvme_tcp_sgl_transport(sqe, len);
    n = nvme_tcp_put_cmd(w.out, &h->tx, sqe, in_capsule);
    if (in_capsule > 0)
        memcpy(w.out + n, data, in_capsule);
    if (in_capsule > 0 && h->tx.ddgst) {
        le32_put(w.out + n + in_capsule, crc32c(0, w.out + n, in_capsule));
        n += 4;
    }
    host_write(t, h, w.out, n + in_capsule);
}

static void send_connect(struct rt_task *t, struct host *h, uint16_t qid, uint8_t sort)
{
    struct nvme_connect_cmd cmd = {.opc = NVME_OPC_FABRICS,
                                   .fctype = NVME_FC_CONNECT,
                                   .qid = le16_make(qid),
                                   .sqsize = le16_make(31),
                                   .kato = le32_make(sort & 2 ? 5000 : 0),
                                   .cattr = sort & 4 ? NVME_CATTR_DISABLE_SQFLOW : 0};
    struct nvme_connect_data d = {.cntlid = le16_make(qid == 0 ? 0xffff : w.cntlid),
                                  .hostnqn = HOST_NQN};

    snprintf(d.subnqn, sizeof(d.subnqn), "%s", sort & 1 ? NVME_DISCOVERY_NQN : NVMF_DEFAULT_NQN);
    send_command(t, h, (void *)&cmd, 1, &d, sizeof(d));
}

static void send_property_set_cc(struct rt_task *t, struct host *h, uint32_t cc)
{
    struct nvme_property_cmd cmd = {.opc = NVME_OPC_FABRICS,
                                    .cid = le16_make(1),
                                    .fctype = NVME_FC_PROPERTY_SET,
                                    .ofst = le32_make(NVME_REG_CC),
                                    .value = le64_make(cc)};

    send_command(t, h, (void *)&cmd, 0, NULL, 0);
}

/* how: bits 1:0 all, half without LAST, half with LAST, one byte too many; bit 2 another tag. */
static void send_h2c(struct rt_task *t, struct host *h, uint8_t how)
{
    uint32_t len = MIN(le32_get(h->r2t.r2tl), (uint32_t)DATA_MAX - 1);
    bool whole = len == le32_get(h->r2t.r2tl);
    uint16_t ttag = (uint16_t)(le16_get(h->r2t.ttag) + (how & 4 ? 1 : 0));
    size_t n;

    if (!h->have_r2t)
        return;
    if ((how & 3) == 3)
        len++;
    else if ((how & 3) != 0 && len > 1)
        len /= 2;
    n = nvme_tcp_put_h2c_data(w.out, &h->tx, le16_get(h->r2t.cccid), ttag, le32_get(h->r2t.r2to),
                              len, (how & 3) == 0 ? whole : (how & 3) == 2);
    memset(w.out + n, how, len);
    if (h->tx.ddgst)
        le32_put(w.out + n + len, crc32c(0, w.out + n, len) ^ (how >> 7));
    host_write(t, h, w.out, n + len + (h->tx.ddgst ? 4 : 0));
    h->r2t.r2to = le32_make(le32_get(h->r2t.r2to) + len);
    h->r2t.r2tl = le32_make(le32_get(h->r2t.r2tl) - MIN(len, le32_get(h->r2t.r2tl)));
    h->have_r2t = le32_get(h->r2t.r2tl) > 0;
}

/* --- the script ------------------------------------------------------------------------------- */

static uint16_t script_u16(void)
{
    le16 v;

    input_fill(&w.script, &v, sizeof(v));
    return le16_get(v);
}

static void op_data_command(struct rt_task *t, struct host *h, struct nvme_sqe *sqe)
{
    uint8_t how = input_u8(&w.script);
    uint32_t len = script_u16();
    size_t have = 0;
    uint8_t *data = input_take(&w.script, how & 1 ? len : 0, &have);

    send_command(t, h, sqe, how, data, how & 1 ? (uint32_t)have : len);
    free(data);
}

static void op_short(struct rt_task *t, struct host *h)
{
    struct nvme_sqe sqe = {.opc = input_u8(&w.script)};

    sqe.nsid = le32_make(input_u8(&w.script));
    sqe.cid = le16_make((uint16_t)(w.script.left % 61));
    input_fill(&w.script, &sqe.cdw10, 12);
    nvme_kv_key_put(&sqe, bytes_make("key", nvme_kv_key_len(&sqe) % 4));
    op_data_command(t, h, &sqe);
}

static void op_raw(struct rt_task *t, struct host *h)
{
    size_t have;
    uint8_t *data = input_take(&w.script, script_u16(), &have);

    host_write(t, h, data, have);
    free(data);
}

static void op_quiet(struct rt_task *t)
{
    for (unsigned i = 0; i < 20; i++) {
        rt_sleep(t, NS_PER_MS);
        read_all();
    }
}

static void run_op(struct rt_task *t, enum op op)
{
    struct host *h = &w.host[w.current];
    struct nvme_sqe sqe;
    uint8_t a, b;

    switch (op) {
    case OP_OPEN:
        w.current = input_u8(&w.script) % HOSTS;
        host_connect(t, &w.host[w.current]);
        break;
    case OP_HOST:
        w.current = input_u8(&w.script) % HOSTS;
        break;
    case OP_RAW:
        op_raw(t, h);
        break;
    case OP_IC:
        a = input_u8(&w.script);
        b = input_u8(&w.script);
        send_ic(t, h, a, b);
        break;
    case OP_CONNECT:
        a = input_u8(&w.script);
        b = input_u8(&w.script);
        send_connect(t, h, a, b);
        break;
    case OP_ENABLE:
        send_property_set_cc(t, h, 0x460061);
        break;
    case OP_COMMAND:
        input_fill(&w.script, &sqe, sizeof(sqe));
        op_data_command(t, h, &sqe);
        break;
    case OP_SHORT:
        op_short(t, h);
        break;
    case OP_H2C:
        send_h2c(t, h, input_u8(&w.script));
        break;
    case OP_QUIET:
        op_quiet(t);
        break;
    case OP_SLEEP:
        rt_sleep(t, input_u8(&w.script) * 100 * NS_PER_MS);
        break;
    case OP_END:
        if (h->open)
            rt_sock_shutdown(&h->sock);
        break;
    case OP_CLOSE:
        host_drop(h);
        break;
    case OP_COUNT:
        break;
    }
    read_all();
}

/* A well-behaved host: it has to get its controller, and the answer to one command. */
static void check_alive(struct rt_task *t)
{
    struct host *h = &w.host[0];
    unsigned i;

    host_connect(t, h);
    must(h->open);
    send_ic(t, h, 3, 0);
    for (i = 0; i < 1000 && !h->rx.ready; i++) {
        must(h->open);
        rt_sleep(t, NS_PER_MS);
        read_all();
    }
    must(h->rx.ready);
    w.cntlid = 0;
    send_connect(t, h, 0, 1); /* discovery: no limit of controllers is reached */
    for (i = 0; i < 1000 && w.cntlid == 0; i++) {
        must(h->open);
        rt_sleep(t, NS_PER_MS);
        read_all();
    }
    must(w.cntlid != 0);
}

static int host_task(struct rt_task *t, void *arg)
{
    (void)arg;
    rt_sleep(t, 10 * NS_PER_MS); /* the target listens by then */
    for (unsigned n = 0; n < OPS_MAX && w.script.left > 0; n++)
        run_op(t, (enum op)(input_u8(&w.script) % OP_COUNT));
    op_quiet(t);
    for (unsigned i = 0; i < HOSTS; i++)
        host_drop(&w.host[i]);
    check_alive(t);
    host_drop(&w.host[0]);
    w.stop = true;
    return 0;
}

/* --- the target ------------------------------------------------------------------------------- */

/* Queries: as their first byte says they fail, take all their time, or answer so many KiB. */
static int run_query(struct rt_task *t, void *arg, struct kv_chan *chan, const struct kv_select *q,
                     struct kv_select_result *res, struct err *why)
{
    static const uint8_t kib[1024];
    int rc = 0;

    must(q->sql.len > 0);
    must(q->who.len > 0);
    must(q->nkeys == 0 || q->keys[0].len > 0);
    if (q->sql.ptr[0] == 'f')
        return err_set(why, -EINVAL, "it was to fail");
    if (q->sql.ptr[0] == 's')
        return rt_sleep(t, q->timeout_ns) < 0 ? -ECANCELED : -ETIMEDOUT;
    for (unsigned i = 0; i < q->sql.ptr[0] && rc == 0; i++)
        rc = res->data(t, res->arg, kib, sizeof(kib));
    return rc;
}

static void add_namespace(struct rt_task *t, struct blk_dev *blk, struct kv_dev *kv, bool csd)
{
    struct nvmf_ns_config ns = {.blk = blk, .kv = kv, .csd = csd};
    uint32_t nsid;

    must(nvmf_ns_add(t, w.tgt, NVMF_DEFAULT_NQN, &ns, &nsid, NULL) == 0);
}

static int target_task(struct rt_task *t, void *arg)
{
    struct nvmf_config cfg = {.connections_max = 16, .results.mem_bytes_max = MIB};
    struct nvmf_subsys_config sub = {.nqn = NVMF_DEFAULT_NQN, .allow_any_host = true};
    struct net_addr addr;

    (void)arg;
    must(blk_open(t, "mem:?size=1M", &w.blk, NULL) == 0);
    must(kv_open(t, "mem:?size=1M", &w.kv, NULL) == 0);
    must(nvmf_target_new(&cfg, &w.tgt, NULL) == 0);
    must(nvmf_subsys_add(t, w.tgt, &sub, NULL) == 0);
    nvmf_set_select(w.tgt, run_query, NULL);
    add_namespace(t, w.blk, NULL, false);
    add_namespace(t, NULL, w.kv, false);
    add_namespace(t, NULL, w.kv, true);
    must(net_addr_parse("0.0.0.0:4420", 0, &addr, NULL) == 0);
    must(nvmf_listen(t, w.tgt, &addr, NULL, NULL) == 0);
    while (!w.stop)
        rt_sleep(t, 10 * NS_PER_MS);
    nvmf_target_close(t, w.tgt);
    blk_close(t, w.blk);
    kv_close(t, w.kv);
    return 0;
}

static void on_done(struct rt_req *req)
{
    (void)req;
}

static bool both_done(void *arg)
{
    (void)arg;
    return w.target_done.state == RT_REQ_IDLE && w.host_done.state == RT_REQ_IDLE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    sim_world_init(1);
    target_machine = sim_machine_add("target", 2);
    host_machine = sim_machine_add("host", 1);
    sim_boot(target_machine, 4 * MIB);
    sim_boot(host_machine, MIB);
    memset(&w, 0, sizeof(w));
    w.script = (struct input){data, len};
    for (unsigned i = 0; i < HOSTS; i++)
        w.host[i].sock.fd = -1;
    rt_req_init(&w.target_done, on_done);
    rt_req_init(&w.host_done, on_done);
    must(sim_start(target_machine, 0, "target", target_task, NULL, &w.target_done) == 0);
    must(sim_start(host_machine, 0, "host", host_task, NULL, &w.host_done) == 0);
    must(sim_run(both_done, NULL, sim.now_ns + 100000 * NS_PER_S));
    sim_halt(target_machine);
    sim_halt(host_machine);
    sim_world_fini();
    return 0;
}
