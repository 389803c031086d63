/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance-nvme-restart [--seed N] [--backend io_uring|epoll] [--params TEXT]
 *                          [--kv-params TEXT] [--seconds N]
 *
 * Work on a block and on a KV namespace while connections are cut at random bytes (a proxy between
 * host and target does it) and while the target is closed and started again. What may be repeated
 * has to succeed; what was answered has to have happened, once; what was answered -ECONNRESET may
 * have happened or not, and nothing else.
 */
#include "check.h"
#include "nvme_target.h"
#include "program.h"

#include "base/map.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define WORKERS 8
#define SLOTS 16 /* blocks, or keys, of one worker */

/* --- a proxy that cuts ------------------------------------------------------------------------ */

struct link_conn;

struct pipe_end {
    struct rt_sock *from, *to;
    struct link_conn *link;
    struct rt_req done;
    struct rt_task *task;
    bool runs;
    uint8_t buf[16384];
};

struct link_conn {
    struct rt_sock host, target;
    struct pipe_end up, down;
    struct list link;
};

struct proxy {
    struct rt_sock listener;
    struct rt_task *task;
    struct rt_req done;
    struct net_addr to;
    char addr[NET_ADDR_TEXT_MAX];
    struct list links;
    unsigned tasks;
    uint64_t cuts;
};

static int pump(struct rt_task *t, void *arg)
{
    struct pipe_end *p = arg;

    for (;;) {
        struct iovec iov = {p->buf, sizeof(p->buf)};
        ssize_t n = rt_sock_recv(p->from, &iov, 1);
        int rc = 0;

        if (n == -EAGAIN) {
            rc = rt_sock_readable(t, p->from);
            if (rc < 0)
                return rc;
            continue;
        }
        if (n <= 0)
            return (int)n;
        iov.iov_len = (size_t)n;
        while (iov.iov_len > 0) {
            n = rt_sock_send(p->to, &iov, 1);
            if (n == -EAGAIN)
                rc = rt_sock_writable(t, p->to);
            else if (n < 0)
                return (int)n;
            if (rc < 0)
                return rc;
            if (n > 0) {
                iov.iov_base = (uint8_t *)iov.iov_base + n;
                iov.iov_len -= (size_t)n;
            }
        }
    }
}

/* When one direction ends, so does the other. */
static void pump_done(struct rt_req *req)
{
    struct pipe_end *p = container_of(req, struct pipe_end, done);
    struct link_conn *l = p->link;

    p->runs = false;
    if (l->up.runs)
        rt_task_cancel(l->up.task);
    if (l->down.runs)
        rt_task_cancel(l->down.task);
    if (l->up.runs || l->down.runs)
        return;
    rt_sock_close(&l->host);
    rt_sock_close(&l->target);
    list_del(&l->link);
    free(l);
}

static void pump_start(struct link_conn *l, struct pipe_end *p)
{
    p->link = l;
    p->runs = true;
    rt_req_init(&p->done, pump_done);
    must(rt_task_start("pump", pump, p, &p->done, &p->task) == 0);
}

static void proxy_cut(struct proxy *p)
{
    struct link_conn *l;

    p->cuts++;
    list_for_each (l, &p->links, struct link_conn, link) {
        if (l->up.runs)
            rt_task_cancel(l->up.task);
    }
}

static int connect_through(struct rt_task *t, void *arg)
{
    struct proxy *p = ((void **)arg)[0];
    int fd = (int)(intptr_t)((void **)arg)[1];
    struct link_conn *l = calloc(1, sizeof(*l));

    free(arg);
    rt_sock_attach(&l->host, fd);
    list_add_tail(&p->links, &l->link);
    if (rt_sock_connect(t, &l->target, (struct sockaddr *)&p->to.ss, p->to.len) < 0) {
        rt_sock_close(&l->host);
        list_del(&l->link);
        free(l);
        return 0;
    }
    l->up.from = l->down.to = &l->host;
    l->up.to = l->down.from = &l->target;
    pump_start(l, &l->up);
    pump_start(l, &l->down);
    return 0;
}

static int proxy_task(struct rt_task *t, void *arg)
{
    struct proxy *p = arg;

    for (;;) {
        int fd = rt_sock_accept(&p->listener);
        void **pair;

        if (fd == -EAGAIN) {
            if (rt_sock_readable(t, &p->listener) < 0)
                return 0;
            continue;
        }
        if (fd < 0)
            return fd;
        pair = malloc(2 * sizeof(*pair));
        pair[0] = p;
        pair[1] = (void *)(intptr_t)fd;
        must(rt_task_start("proxy", connect_through, pair, NULL, NULL) == 0);
    }
}

static void proxy_start(struct rt_task *t, struct proxy *p, const char *to)
{
    struct net_addr a;

    list_init(&p->links);
    must(net_addr_parse(to, 0, &p->to, NULL) == 0);
    must(net_addr_parse("127.0.0.1:0", 0, &a, NULL) == 0);
    must(rt_sock_listen(&p->listener, (struct sockaddr *)&a.ss, a.len, 64) == 0);
    must(rt_sock_local(&p->listener, &a.ss) == 0);
    net_addr_text(&a, p->addr);
    rt_req_init_task(&p->done, t);
    must(rt_task_start("proxy", proxy_task, p, &p->done, &p->task) == 0);
}

static void proxy_stop(struct rt_task *t, struct proxy *p)
{
    rt_task_cancel(p->task);
    rt_wait(t, &p->done);
    rt_sock_close(&p->listener);
    while (!list_empty(&p->links)) {
        proxy_cut(p);
        rt_sleep(t, NS_PER_MS);
    }
}

/* --- the work --------------------------------------------------------------------------------- */

struct run {
    struct target blk_target, kv_target;
    struct proxy blk_proxy, kv_proxy;
    struct blk_dev *blk;
    struct kv_dev *kv;
    struct blk_chan *bchan;
    struct kv_chan *kchan;
    const char *params;
    const char *kv_params;
    uint64_t seed;
    unsigned seconds;
    bool stop;
    uint64_t ops, unknown;
    struct err why;
};

struct worker {
    struct run *r;
    unsigned idx;
    struct rt_req done;
    uint64_t rng;
};

#define CHECK_0(call) CHECK_RC(call, 0)

static uint64_t next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ull;
    return hash_u64(*state);
}

static void fill(uint64_t *p, size_t bytes, uint64_t tag)
{
    for (size_t i = 0; i < bytes / 8; i++)
        p[i] = tag + i;
}

static bool is(const uint64_t *p, size_t bytes, uint64_t tag)
{
    for (size_t i = 0; i < bytes / 8; i++) {
        if (p[i] != tag + i)
            return false;
    }
    return true;
}

/* Each worker writes its own blocks and reads back what it wrote last. */
static int blk_worker(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    struct run *r = w->r;
    uint64_t tag[SLOTS] = {0};
    uint64_t *buf = malloc(4 * 4096);
    int rc = 0;

    while (!r->stop && rc == 0) {
        unsigned slot = next(&w->rng) % SLOTS;
        uint64_t lba = ((uint64_t)w->idx * SLOTS + slot) * 4;
        uint64_t new_tag = next(&w->rng);

        if (next(&w->rng) & 1) {
            fill(buf, 4 * 4096, new_tag);
            rc = blk_write(t, r->bchan, buf, lba, 4, 0);
            tag[slot] = new_tag;
        } else if (tag[slot] != 0) {
            rc = blk_read(t, r->bchan, buf, lba, 4);
            if (rc == 0 && !is(buf, 4 * 4096, tag[slot]))
                rc = -EBADMSG;
        }
        r->ops++;
    }
    if (rc < 0)
        fprintf(stderr, "block worker %u: %d (%s)\n", w->idx, rc, err_str(rc));
    free(buf);
    return rc;
}

static int kv_value(struct rt_task *t, struct run *r, struct bytes key, uint64_t *buf, size_t max,
                    uint64_t *out_tag)
{
    uint64_t len;
    int rc = kv_retrieve(t, r->kchan, key, buf, max, &len);

    *out_tag = 0;
    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return rc;
    CHECK(len <= max && len % 8 == 0 && len >= 8 && is(buf, len, buf[0]));
    *out_tag = buf[0];
    return 0;
}

/* Stores, deletes and conditional stores; only -ECONNRESET leaves two possibilities. */
static int kv_step(struct rt_task *t, struct worker *w, uint64_t *tag, struct bytes key,
                   uint64_t *buf)
{
    struct run *r = w->r;
    uint64_t new_tag = next(&w->rng) | 1, is_tag;
    size_t len = (1 + next(&w->rng) % 3000) * 8;
    unsigned what = next(&w->rng) % 4;
    int rc;

    fill(buf, len, new_tag);
    switch (what) {
    case 0:
        CHECK_0(kv_store(t, r->kchan, key, bytes_make(buf, len), 0));
        *tag = new_tag;
        return 0;
    case 1:
        CHECK_0(kv_value(t, r, key, buf, 32768, &is_tag));
        CHECK(is_tag == *tag);
        return 0;
    case 2:
        rc = kv_store(t, r->kchan, key, bytes_make(buf, len), KV_F_MUST_NOT_EXIST);
        if (rc != -ECONNRESET)
            CHECK_RC(rc, *tag != 0 ? -EEXIST : 0);
        if (rc == 0)
            *tag = new_tag;
        break;
    default:
        rc = kv_delete(t, r->kchan, key);
        if (rc != -ECONNRESET)
            CHECK_RC(rc, *tag != 0 ? 0 : -ENOENT);
        if (rc == 0)
            *tag = 0;
        new_tag = 0;
        break;
    }
    if (rc != -ECONNRESET)
        return 0;
    r->unknown++;
    CHECK_0(kv_value(t, r, key, buf, 32768, &is_tag));
    CHECK(is_tag == *tag || is_tag == new_tag);
    *tag = is_tag;
    return 0;
}

static int kv_worker(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    uint64_t tag[SLOTS] = {0};
    uint64_t *buf = malloc(32768);
    int rc = 0;

    while (!w->r->stop && rc == 0) {
        unsigned slot = next(&w->rng) % SLOTS;
        char name[64];

        /* Every other key is longer than an NVMe key, where the target has the commands for it. */
        snprintf(name, sizeof(name), "%s%u-%u",
                 slot % 2 && kv_info(w->r->kv)->key_max > 32 ? "a-key-of-some-length-" : "", w->idx,
                 slot);
        rc = kv_step(t, w, &tag[slot], bytes_of_str(name), buf);
        w->r->ops++;
    }
    free(buf);
    return rc;
}

/* Cuts and restarts until the time is over. */
static int trouble(struct rt_task *t, struct run *r)
{
    uint64_t until_ns = rt_now() + r->seconds * NS_PER_S;
    uint64_t rng = r->seed ^ 77;
    unsigned restarts = 0;

    while (rt_now() < until_ns) {
        rt_sleep(t, (1 + next(&rng) % 60) * NS_PER_MS);
        proxy_cut(next(&rng) & 1 ? &r->blk_proxy : &r->kv_proxy);
        if (next(&rng) % 3 == 0) {
            struct target *x = next(&rng) & 1 ? &r->blk_target : &r->kv_target;

            target_stop(t, x);
            rt_sleep(t, next(&rng) % 200 * NS_PER_MS);
            CHECK_0(target_start(t, x, &r->why));
            restarts++;
        }
        if (next(&rng) % 4 != 0) /* mostly leave time for a whole repair */
            rt_sleep(t, 300 * NS_PER_MS);
    }
    printf("%llu cuts, %u restarts\n", (unsigned long long)(r->blk_proxy.cuts + r->kv_proxy.cuts),
           restarts);
    return 0;
}

static int with_devices(struct rt_task *t, struct run *r)
{
    struct worker w[2 * WORKERS];
    int rc, worst = 0;

    for (unsigned i = 0; i < 2 * WORKERS; i++) {
        w[i] = (struct worker){.r = r, .idx = i % WORKERS, .rng = r->seed + i * 1000003};
        rt_req_init_task(&w[i].done, t);
        must(rt_task_start("worker", i < WORKERS ? blk_worker : kv_worker, &w[i], &w[i].done,
                           NULL) == 0);
    }
    rc = trouble(t, r);
    r->stop = true;
    for (unsigned i = 0; i < 2 * WORKERS; i++)
        worst = MIN(worst, rt_wait(t, &w[i].done));
    return MIN(rc, worst);
}

static int open_devices(struct rt_task *t, struct run *r)
{
    char uri[512];
    int rc;

    snprintf(uri, sizeof(uri), "nvme+tcp://%.60s/%s?nsid=1&%s", r->blk_proxy.addr, TARGET_NQN,
             r->params);
    rc = blk_open(t, uri, &r->blk, &r->why);
    if (rc < 0)
        return rc;
    snprintf(uri, sizeof(uri), "nvme+tcp://%.60s/%s?nsid=1&%s&%s", r->kv_proxy.addr, TARGET_NQN,
             r->params, r->kv_params);
    rc = kv_open(t, uri, &r->kv, &r->why);
    if (rc == 0)
        rc = blk_chan_get(t, r->blk, &r->bchan);
    if (rc == 0)
        rc = kv_chan_get(t, r->kv, &r->kchan);
    if (rc == 0)
        rc = with_devices(t, r);
    if (r->kchan != NULL)
        kv_chan_put(t, r->kchan);
    if (r->bchan != NULL)
        blk_chan_put(t, r->bchan);
    if (r->kv != NULL)
        kv_close(t, r->kv);
    blk_close(t, r->blk);
    return rc;
}

static int run_task(struct rt_task *t, void *arg)
{
    struct run *r = arg;
    int rc = target_open(t, &r->blk_target, &r->why);

    if (rc == 0)
        rc = target_open(t, &r->kv_target, &r->why);
    if (rc < 0)
        return rc;
    proxy_start(t, &r->blk_proxy, r->blk_target.addr);
    proxy_start(t, &r->kv_proxy, r->kv_target.addr);
    rc = open_devices(t, r);
    proxy_stop(t, &r->blk_proxy);
    proxy_stop(t, &r->kv_proxy);
    target_close(t, &r->blk_target);
    target_close(t, &r->kv_target);
    return rc;
}

int main(int argc, char **argv)
{
    struct program p = {
        .takes = " seed backend params kv-params seconds ",
        .cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = 16 * MIB},
        .params = "hdgst=no",
        .kv_params = "vendor=yes",
        .seconds = 4,
    };
    static struct run r;
    int rc;

    if (!program_args(&p, argc, argv))
        return 2;
    r.seed = p.seed;
    r.params = p.params;
    r.kv_params = p.kv_params;
    r.seconds = p.seconds;
    r.blk_target.blk_uri = "mem:?size=16M";
    r.kv_target.kv_uri = "mem:?size=64M";
    rc = program_run(&p, run_task, &r, &r.ops, &r.why);
    printf("%llu of unknown outcome\n", (unsigned long long)r.unknown);
    return rc;
}
