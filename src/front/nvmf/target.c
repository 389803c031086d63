/* SPDX-License-Identifier: Apache-2.0 */
/* The target as a whole: making and closing it, listeners, statistics. */
#include "front/nvmf/internal.h"

#include <stdio.h>
#include <string.h>

struct nvmf_local *nvmf_local_of(struct nvmf_target *tgt)
{
    return tgt->local[rt_index(rt_self())];
}

int nvmf_each_reactor(struct rt_task *t, struct nvmf_target *tgt, rt_task_fn fn, void *arg)
{
    int rc = 0;

    rt_task_shield(t, true);
    for (unsigned i = 0; i < tgt->nreactors && rc >= 0; i++)
        rc = rt_on(t, rt_reactor(i), fn, arg);
    rt_task_shield(t, false);
    return rc;
}

/* --- making ----------------------------------------------------------------------------------- */

#define DEFAULT(field, value)                                                                      \
    do {                                                                                           \
        if (cfg->field == 0)                                                                       \
            cfg->field = (value);                                                                  \
    } while (0)

static void defaults(struct nvmf_config *cfg)
{
    DEFAULT(in_capsule_bytes, 8192);
    DEFAULT(maxh2cdata_bytes, RT_BUF_LARGE_BYTES);
    DEFAULT(r2t_window_bytes, 1024 * 1024);
    DEFAULT(out_bytes_max, 1024 * 1024);
    DEFAULT(io_queues_max, 64);
    DEFAULT(queue_entries_max, 1024);
    DEFAULT(connections_max, 4096);
    DEFAULT(ctrlrs_per_host, 64);
    DEFAULT(kato_min_ms, 1000);
    DEFAULT(kato_default_ms, 120000);
    DEFAULT(progress_ns, 30 * NS_PER_S);
    DEFAULT(select_timeout_ms, 25000);
}

static int check(const struct nvmf_config *cfg, struct err *why)
{
    if (cfg->in_capsule_bytes % 16 != 0 || cfg->in_capsule_bytes > 65536)
        return err_set(why, -EINVAL, "in-capsule data: a multiple of 16, at most 65536");
    if (cfg->maxh2cdata_bytes < NVME_TCP_MAXH2CDATA_MIN || cfg->maxh2cdata_bytes % 4 != 0)
        return err_set(why, -EINVAL, "data of one H2CData: a multiple of 4, at least 4096");
    if (cfg->queue_entries_max < 32 || cfg->queue_entries_max > 16384)
        return err_set(why, -EINVAL, "queues have 32 to 16384 entries");
    if (cfg->io_queues_max > 1024)
        return err_set(why, -EINVAL, "a controller has at most 1024 I/O queues");
    if (cfg->r2t_window_bytes < 4096 || cfg->out_bytes_max < 4096)
        return err_set(why, -EINVAL, "transfers move at least 4096 bytes at a time");
    return 0;
}

static void target_free(struct nvmf_target *tgt)
{
    for (unsigned i = 0; tgt->local != NULL && i < tgt->nreactors; i++)
        free(tgt->local[i]);
    free(tgt->local);
    query_results_free(tgt->results);
    free(tgt);
}

int nvmf_target_new(const struct nvmf_config *cfg, struct nvmf_target **out_tgt, struct err *why)
{
    struct nvmf_target *tgt = calloc(1, sizeof(*tgt));
    int rc;

    if (tgt == NULL)
        return err_set(why, -ENOMEM, "no memory for a target");
    if (cfg != NULL)
        tgt->cfg = *cfg;
    defaults(&tgt->cfg);
    rc = check(&tgt->cfg, why);
    if (rc == 0 && query_results_new(&tgt->cfg.results, &tgt->results) < 0)
        rc = err_set(why, -ENOMEM, "no memory for a target");
    tgt->nreactors = rt_reactors();
    tgt->started_ns = rt_now();
    tgt->genctr = 1;
    list_init(&tgt->listeners);
    list_init(&tgt->subsystems);
    list_init(&tgt->conns_gone.waiters);
    tgt->local = calloc(tgt->nreactors, sizeof(*tgt->local));
    for (unsigned i = 0; rc == 0 && tgt->local != NULL && i < tgt->nreactors; i++) {
        struct nvmf_local *l = aligned_alloc(64, round_up_u64(sizeof(*l), 64));

        tgt->local[i] = l;
        if (l == NULL) {
            rc = err_set(why, -ENOMEM, "no memory for a target");
            break;
        }
        *l = (struct nvmf_local){.tgt = tgt, .reactor = rt_reactor(i), .sweep.fn = nvmf_conn_sweep};
        list_init(&l->conns);
        list_init(&l->ctrlrs);
    }
    if (rc == 0 && (tgt->local == NULL || nvmf_discovery_new(tgt) < 0))
        rc = err_set(why, -ENOMEM, "no memory for a target");
    if (rc < 0) {
        target_free(tgt);
        return rc;
    }
    *out_tgt = tgt;
    return 0;
}

void nvmf_set_select(struct nvmf_target *tgt, nvmf_select_fn fn, void *arg)
{
    tgt->select = fn;
    tgt->select_arg = arg;
}

/* --- listeners -------------------------------------------------------------------------------- */

/* Takes connections until it is cancelled. Out of descriptors: waits a little, and tries again. */
static int accept_main(struct rt_task *t, void *arg)
{
    struct nvmf_listener *l = arg;
    struct nvmf_target *tgt = l->tgt;

    for (;;) {
        int fd = rt_sock_accept(&l->sock);
        int rc;

        if (fd == -EAGAIN) {
            rc = rt_sock_readable(t, &l->sock);
        } else if (fd < 0) {
            log_warn("nvmf: cannot accept a connection: %s", err_str(fd));
            rc = rt_sleep(t, 100 * NS_PER_MS);
        } else if (tgt->nconns >= tgt->cfg.connections_max) {
            tgt->local[0]->stats.refused++;
            rt_sock_discard(fd);
            rc = rt_yield(t);
        } else {
            rc = nvmf_conn_start(tgt, fd, l->portid);
            if (rc < 0)
                log_warn("nvmf: no memory for a connection");
            rc = rt_yield(t);
        }
        if (rc < 0)
            return 0;
    }
}

static void accept_done(struct rt_req *req)
{
    struct nvmf_listener *l = container_of(req, struct nvmf_listener, done);

    l->ended = true;
    rt_cond_wake_all(&l->gone);
}

int nvmf_listen(struct rt_task *t, struct nvmf_target *tgt, const struct net_addr *addr,
                struct net_addr *out_addr, struct err *why)
{
    struct nvmf_listener *l = calloc(1, sizeof(*l));
    char text[NET_ADDR_TEXT_MAX];
    int rc;

    if (l == NULL)
        return err_set(why, -ENOMEM, "no memory for a listener");
    l->tgt = tgt;
    l->addr = *addr;
    rc = rt_sock_listen(&l->sock, (const struct sockaddr *)&addr->ss, addr->len, 1024);
    if (rc == 0)
        rc = rt_sock_local(&l->sock, &l->addr.ss);
    if (rc == 0) {
        rt_req_init(&l->done, accept_done);
        rc = rt_task_start("nvmf-accept", accept_main, l, &l->done, &l->task);
    }
    if (rc < 0) {
        net_addr_text(addr, text);
        err_set(why, rc, "cannot listen on %s: %s", text, err_str(rc));
        rt_sock_close(&l->sock);
        free(l);
        return rc;
    }
    l->portid = ++tgt->next_portid;
    list_add_tail(&tgt->listeners, &l->link);
    if (out_addr != NULL)
        *out_addr = l->addr;
    nvmf_discovery_changed(t, tgt);
    return 0;
}

static void listener_end(struct rt_task *t, struct nvmf_listener *l)
{
    rt_task_cancel(l->task);
    rt_task_shield(t, true);
    while (!l->ended)
        rt_cond_wait(t, &l->gone);
    rt_task_shield(t, false);
    rt_sock_close(&l->sock);
    list_del(&l->link);
    free(l);
}

static bool same_addr(const struct net_addr *a, const struct net_addr *b)
{
    char x[NET_ADDR_TEXT_MAX], y[NET_ADDR_TEXT_MAX];

    net_addr_text(a, x);
    net_addr_text(b, y);
    return strcmp(x, y) == 0;
}

int nvmf_unlisten(struct rt_task *t, struct nvmf_target *tgt, const struct net_addr *addr,
                  struct err *why)
{
    char text[NET_ADDR_TEXT_MAX];
    struct nvmf_listener *l;

    list_for_each (l, &tgt->listeners, struct nvmf_listener, link) {
        if (!same_addr(&l->addr, addr))
            continue;
        listener_end(t, l);
        nvmf_discovery_changed(t, tgt);
        return 0;
    }
    net_addr_text(addr, text);
    return err_set(why, -ENOENT, "there is no listener on %s", text);
}

/* --- closing ---------------------------------------------------------------------------------- */

static int kill_local(struct rt_task *t, void *arg)
{
    struct nvmf_local *l = nvmf_local_of(arg);
    struct nvmf_conn *c;

    list_for_each (c, &l->conns, struct nvmf_conn, link) {
        c->draining = true;
        nvmf_conn_kill(c);
    }
    return 0;
}

void nvmf_target_close(struct rt_task *t, struct nvmf_target *tgt)
{
    struct nvmf_listener *l;
    struct nvmf_subsys *s;

    if (tgt == NULL)
        return;
    rt_task_shield(t, true);
    tgt->closing = true;
    while ((l = list_first(&tgt->listeners, struct nvmf_listener, link)) != NULL)
        listener_end(t, l);
    nvmf_each_reactor(t, tgt, kill_local, tgt);
    while (tgt->nconns > 0 || tgt->nregs > 0 || tgt->nevents > 0)
        rt_cond_wait(t, &tgt->conns_gone);
    while ((s = list_first(&tgt->subsystems, struct nvmf_subsys, link)) != NULL)
        nvmf_subsys_end(t, s);
    while (tgt->nevents > 0)
        rt_cond_wait(t, &tgt->conns_gone);
    nvmf_subsys_end(t, tgt->discovery);
    rt_task_shield(t, false);
    target_free(tgt);
}

/* --- statistics ------------------------------------------------------------------------------- */

struct stats_call {
    struct nvmf_target *tgt;
    struct nvmf_stats *out;
};

static uint32_t count(const struct list *head)
{
    uint32_t n = 0;

    for (const struct list *l = head->next; l != head; l = l->next)
        n++;
    return n;
}

static int stats_local(struct rt_task *t, void *arg)
{
    const struct stats_call *call = arg;
    const struct nvmf_local *l = nvmf_local_of(call->tgt);
    const struct nvmf_stats *in = &l->stats;
    struct nvmf_stats *out = call->out;

    out->connections += count(&l->conns);
    out->ctrlrs += count(&l->ctrlrs);
    out->accepted += in->accepted;
    out->refused += in->refused;
    out->admin_cmds += in->admin_cmds;
    out->io_cmds += in->io_cmds;
    out->failed_cmds += in->failed_cmds;
    out->bytes_in += in->bytes_in;
    out->bytes_out += in->bytes_out;
    out->term_reqs += in->term_reqs;
    out->hdgst_errors += in->hdgst_errors;
    out->ddgst_errors += in->ddgst_errors;
    out->kato_expired += in->kato_expired;
    out->stalled += in->stalled;
    out->yields += in->yields;
    out->selects += in->selects;
    out->selects_failed += in->selects_failed;
    return 0;
}

int nvmf_stats(struct rt_task *t, struct nvmf_target *tgt, struct nvmf_stats *out)
{
    struct nvmf_stats sum = {0};
    struct stats_call call = {.tgt = tgt, .out = &sum};
    int rc = nvmf_each_reactor(t, tgt, stats_local, &call);

    if (rc == 0)
        *out = sum;
    return rc;
}

void nvmf_result_stats(struct nvmf_target *tgt, struct query_results_stats *out)
{
    query_results_stats(tgt->results, out);
}
