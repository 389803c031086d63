/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our initiator and our target, and between them somebody who changes what they say: the input is a
 * list of edits (flip, insert, drop, hold, reset) at places of the byte streams. Whatever he does,
 * both sides end in good order, every request of the initiator completes, and with digests on no
 * value is read that nobody stored. In the simulator's world (sim/), so it is all repeatable.
 */
#include "fuzz/fuzz.h"

#include "front/nvmf/nvmf.h"
#include "sim/net.h"
#include "sim/world.h"

#include <stdio.h>
#include <unistd.h>

#define PORT 4420
#define HOST_NQN "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555"
#define EDITS_MAX 16
#define WIRES 64
#define VALUE_BYTES 20000

enum edit_kind { EDIT_FLIP, EDIT_INSERT, EDIT_DROP, EDIT_HOLD, EDIT_RESET, EDIT_KINDS };

/* 6 bytes of input: connection and direction, le24 place, kind, argument. */
struct edit {
    uint8_t conn;
    bool to_target;
    uint32_t pos;
    enum edit_kind kind;
    uint8_t arg;
    bool done;
};

/* One connection through the middle. */
struct wire {
    struct rt_sock side[2]; /* [0] host, [1] target */
    unsigned idx;
    unsigned pumps;
};

/* One direction of a wire. */
struct pump {
    struct wire *wire;
    unsigned from;
    uint64_t pos;
    uint8_t buf[4096 + 256];
    struct rt_req done;
};

static struct {
    struct edit edit[EDITS_MAX];
    unsigned nedits;
    struct wire wire[WIRES];
    struct pump pump[WIRES * 2];
    unsigned nwires;
    unsigned pumps_running;
    bool digests, vendor;
    bool negotiation_changed; /* then digests may be off */
    struct rt_sock listener;
    bool host_ended, middle_ended;
    struct rt_req target_done, middle_done, host_done;
} w;
static struct sim_machine *target_machine, *middle_machine, *host_machine;

/* sim gives up with _exit(), which libFuzzer does not see. */
void __wrap__exit(int code) __attribute__((noreturn));
void __wrap__exit(int code)
{
    fprintf(stderr, "exit %d\n", code);
    abort();
}

static void on_done(struct rt_req *req)
{
    (void)req;
}

/* --- the middle ------------------------------------------------------------------------------- */

/* Changes the `len` bytes that are about to pass; returns how many pass now, -1: reset. */
static ssize_t apply(struct rt_task *t, struct pump *p, size_t len, const struct edit *e)
{
    size_t at = (size_t)(e->pos - p->pos);
    size_t n;

    if (e->pos < 128)
        w.negotiation_changed = true; /* ICReq, ICResp: not digested */
    switch (e->kind) {
    case EDIT_FLIP:
        p->buf[at] ^= e->arg | 1;
        return (ssize_t)len;
    case EDIT_INSERT:
        n = MIN(1u + e->arg % 64, sizeof(p->buf) - len);
        memmove(p->buf + at + n, p->buf + at, len - at);
        memset(p->buf + at, e->arg, n);
        return (ssize_t)(len + n);
    case EDIT_DROP:
        n = MIN((size_t)e->arg + 1, len - at);
        memmove(p->buf + at, p->buf + at + n, len - at - n);
        return (ssize_t)(len - n);
    case EDIT_HOLD:
        rt_sleep(t, e->arg * 100 * NS_PER_MS);
        return (ssize_t)len;
    default:
        return -1;
    }
}

/* All edits of this place. */
static ssize_t edit_bytes(struct rt_task *t, struct pump *p, size_t len)
{
    size_t raw = len;

    for (unsigned i = 0; i < w.nedits; i++) {
        struct edit *e = &w.edit[i];
        ssize_t n;

        if (e->done || e->conn != p->wire->idx % 4 || e->to_target != (p->from == 0) ||
            e->pos < p->pos || e->pos >= p->pos + MIN(raw, len))
            continue;
        e->done = true;
        n = apply(t, p, len, e);
        if (n < 0)
            return -1;
        len = (size_t)n;
    }
    p->pos += raw;
    return (ssize_t)len;
}

static int pass_on(struct rt_task *t, struct rt_sock *to, const uint8_t *at, size_t len)
{
    while (len > 0 && to->fd >= 0) {
        struct iovec iov = {(void *)(uintptr_t)at, len};
        ssize_t n = rt_sock_send(to, &iov, 1);

        if (n == -EAGAIN) {
            if (rt_sock_writable(t, to) < 0)
                return -ECONNRESET;
            continue;
        }
        if (n < 0)
            return (int)n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static void pump_bytes(struct rt_task *t, struct pump *p)
{
    struct rt_sock *from = &p->wire->side[p->from], *to = &p->wire->side[!p->from];

    while (from->fd >= 0) {
        struct iovec iov = {p->buf, 4096};
        ssize_t n = rt_sock_recv(from, &iov, 1);

        if (n == -EAGAIN) {
            if (rt_sock_readable(t, from) < 0)
                return;
            continue;
        }
        if (n <= 0)
            return;
        n = edit_bytes(t, p, (size_t)n);
        if (n < 0 || pass_on(t, to, p->buf, (size_t)n) < 0)
            return;
    }
}

/* When one direction ends the other is ended too. */
static int pump_task(struct rt_task *t, void *arg)
{
    struct pump *p = arg;

    pump_bytes(t, p);
    for (unsigned i = 0; i < 2; i++)
        rt_sock_close(&p->wire->side[i]);
    w.pumps_running--;
    return 0;
}

static void start_wire(struct rt_task *t, int fd)
{
    struct wire *wire = &w.wire[w.nwires];
    struct net_addr addr;
    char text[64];

    if (w.nwires == WIRES) {
        rt_sock_discard(fd);
        return;
    }
    *wire = (struct wire){.side = {{.fd = -1}, {.fd = -1}}, .idx = w.nwires};
    sim_net_addr_text(target_machine, PORT, text, sizeof(text));
    must(net_addr_parse(text, 0, &addr, NULL) == 0);
    if (rt_sock_attach(&wire->side[0], fd) < 0)
        return;
    if (rt_sock_connect(t, &wire->side[1], (struct sockaddr *)&addr.ss, addr.len) < 0) {
        rt_sock_close(&wire->side[0]);
        return;
    }
    for (unsigned from = 0; from < 2; from++) {
        struct pump *p = &w.pump[w.nwires * 2 + from];

        p->wire = wire;
        p->from = from;
        rt_req_init(&p->done, on_done);
        w.pumps_running++;
        must(rt_task_start("pump", pump_task, p, &p->done, NULL) == 0);
    }
    w.nwires++;
}

static int middle_task(struct rt_task *t, void *arg)
{
    struct net_addr addr;

    (void)arg;
    must(net_addr_parse("0.0.0.0:4420", 0, &addr, NULL) == 0);
    must(rt_sock_listen(&w.listener, (struct sockaddr *)&addr.ss, addr.len, 16) == 0);
    while (!w.host_ended) {
        int fd = rt_sock_accept(&w.listener);

        if (fd >= 0)
            start_wire(t, fd);
        else
            rt_sleep(t, 100 * NS_PER_US);
    }
    rt_sock_close(&w.listener);
    for (unsigned i = 0; i < w.nwires; i++) {
        for (unsigned side = 0; side < 2; side++)
            rt_sock_close(&w.wire[i].side[side]);
    }
    while (w.pumps_running > 0)
        rt_sleep(t, NS_PER_MS);
    w.middle_ended = true;
    return 0;
}

/* --- the initiator ---------------------------------------------------------------------------- */

static uint8_t value[2][VALUE_BYTES], read_back[VALUE_BYTES];

/* What came has to be one of the two values, or their beginning when only that was asked for. */
static void check_read(const uint8_t *got, size_t len, uint64_t value_len)
{
    if (!w.digests || w.negotiation_changed)
        return;
    must(value_len == VALUE_BYTES);
    must(memcmp(got, value[0], len) == 0 || memcmp(got, value[1], len) == 0);
}

/* Without edits all of it works; the way through the middle is no excuse. */
static void check_rc(int rc)
{
    must(rc == 0 || w.nedits > 0);
}

static void use_kv(struct rt_task *t, struct kv_chan *chan, struct bytes key)
{
    uint8_t page[4096];
    uint64_t len, version;
    size_t moved;
    bool more;

    for (unsigned i = 0; i < 2; i++) {
        int rc;

        check_rc(kv_store(t, chan, key, bytes_make(value[i], VALUE_BYTES), 0));
        rc = kv_retrieve(t, chan, key, read_back, VALUE_BYTES, &len);
        check_rc(rc);
        if (rc == 0)
            check_read(read_back, VALUE_BYTES, len);
        rc = kv_retrieve(t, chan, key, read_back, 100, &len);
        check_rc(rc);
        if (rc == 0)
            check_read(read_back, 100, len);
    }
    check_rc(kv_stat(t, chan, key, &len, &version));
    check_rc(kv_list(t, chan, bytes_make(NULL, 0), bytes_make(NULL, 0), 0, page, sizeof(page),
                     &moved, &more));
    check_rc(kv_flush(t, chan));
    check_rc(kv_delete(t, chan, key));
}

static void uri_of(unsigned nsid, char *out, size_t max)
{
    char addr[64];

    sim_net_addr_text(middle_machine, PORT, addr, sizeof(addr));
    snprintf(out, max, "nvme+tcp://%s/%s?nsid=%u&hostnqn=" HOST_NQN "&timeout=3s&ctrl_loss=5s%s%s",
             addr, NVMF_DEFAULT_NQN, nsid, w.digests ? "&hdgst&ddgst" : "",
             nsid == 2 && !w.vendor ? "&vendor=no" : "");
}

static void try_kv(struct rt_task *t)
{
    struct kv_chan *chan;
    struct kv_dev *dev;
    char uri[256];
    int rc;

    uri_of(2, uri, sizeof(uri));
    rc = kv_open(t, uri, &dev, NULL);
    check_rc(rc);
    if (rc < 0)
        return;
    if (kv_chan_get(t, dev, &chan) == 0) {
        use_kv(t, chan, bytes_of_str("short"));
        if (w.vendor)
            use_kv(t, chan, bytes_of_str("a key of more than sixteen bytes"));
        kv_chan_put(t, chan);
    }
    kv_close(t, dev);
}

static void try_blk(struct rt_task *t)
{
    struct blk_chan *chan;
    struct blk_dev *dev;
    char uri[256];
    int rc;

    uri_of(1, uri, sizeof(uri));
    rc = blk_open(t, uri, &dev, NULL);
    check_rc(rc);
    if (rc < 0)
        return;
    if (blk_chan_get(t, dev, &chan) == 0) {
        bool written;

        rc = blk_write(t, chan, value[0], 0, 4, 0);
        check_rc(rc);
        written = rc == 0;
        rc = blk_read(t, chan, read_back, 0, 4);
        check_rc(rc);
        if (rc == 0 && written && w.digests && !w.negotiation_changed)
            must(memcmp(read_back, value[0], 4 * 4096) == 0);
        blk_flush(t, chan);
        blk_chan_put(t, chan);
    }
    blk_close(t, dev);
}

static int host_task(struct rt_task *t, void *arg)
{
    (void)arg;
    rt_sleep(t, 10 * NS_PER_MS); /* both others listen by then */
    try_kv(t);
    try_blk(t);
    w.host_ended = true;
    return 0;
}

/* --- the target ------------------------------------------------------------------------------- */

static int target_task(struct rt_task *t, void *arg)
{
    struct nvmf_subsys_config sub = {.nqn = NVMF_DEFAULT_NQN, .allow_any_host = true};
    struct nvmf_config cfg = {0};
    struct nvmf_ns_config ns = {0};
    struct nvmf_target *tgt;
    struct net_addr addr;
    uint32_t nsid;

    (void)arg;
    must(nvmf_target_new(&cfg, &tgt, NULL) == 0);
    must(nvmf_subsys_add(t, tgt, &sub, NULL) == 0);
    must(blk_open(t, "mem:?size=1M", &ns.blk, NULL) == 0);
    must(nvmf_ns_add(t, tgt, NVMF_DEFAULT_NQN, &ns, &nsid, NULL) == 0);
    blk_close(t, ns.blk);
    ns.blk = NULL;
    must(kv_open(t, "mem:?size=1M", &ns.kv, NULL) == 0);
    must(nvmf_ns_add(t, tgt, NVMF_DEFAULT_NQN, &ns, &nsid, NULL) == 0);
    kv_close(t, ns.kv);
    must(net_addr_parse("0.0.0.0:4420", 0, &addr, NULL) == 0);
    must(nvmf_listen(t, tgt, &addr, NULL, NULL) == 0);
    while (!w.middle_ended)
        rt_sleep(t, 10 * NS_PER_MS);
    nvmf_target_close(t, tgt);
    return 0;
}

static bool all_done(void *arg)
{
    (void)arg;
    return w.target_done.state == RT_REQ_IDLE && w.middle_done.state == RT_REQ_IDLE &&
           w.host_done.state == RT_REQ_IDLE;
}

static void read_script(const uint8_t *data, size_t len)
{
    struct input in = {data, len};
    uint8_t set = input_u8(&in);

    w.digests = set & 1;
    w.vendor = (set & 2) == 0;
    while (in.left > 0 && w.nedits < EDITS_MAX) {
        struct edit *e = &w.edit[w.nedits++];
        uint8_t b[6];

        input_fill(&in, b, sizeof(b));
        e->conn = b[0] & 3;
        e->to_target = b[0] & 4;
        e->pos = b[1] | (uint32_t)b[2] << 8 | (uint32_t)(b[3] & 1) << 16;
        e->kind = (enum edit_kind)(b[4] % EDIT_KINDS);
        e->arg = b[5];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    memset(&w, 0, sizeof(w));
    w.listener.fd = -1;
    read_script(data, len);
    for (size_t i = 0; i < VALUE_BYTES; i++) {
        value[0][i] = (uint8_t)(i * 7 + i / 256);
        value[1][i] = (uint8_t)(i * 13 + 5);
    }
    sim_world_init(1);
    target_machine = sim_machine_add("target", 1);
    middle_machine = sim_machine_add("middle", 1);
    host_machine = sim_machine_add("host", 1);
    sim_boot(target_machine, 4 * MIB);
    sim_boot(middle_machine, MIB);
    sim_boot(host_machine, 4 * MIB);
    rt_req_init(&w.target_done, on_done);
    rt_req_init(&w.middle_done, on_done);
    rt_req_init(&w.host_done, on_done);
    must(sim_start(target_machine, 0, "target", target_task, NULL, &w.target_done) == 0);
    must(sim_start(middle_machine, 0, "middle", middle_task, NULL, &w.middle_done) == 0);
    must(sim_start(host_machine, 0, "host", host_task, NULL, &w.host_done) == 0);
    must(sim_run(all_done, NULL, sim.now_ns + 100000 * NS_PER_S));
    sim_halt(target_machine);
    sim_halt(middle_machine);
    sim_halt(host_machine);
    sim_world_fini();
    return 0;
}
