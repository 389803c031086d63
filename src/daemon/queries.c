/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The query service of the daemon. It is started by the first query: opening the engine takes a
 * moment and memory, which a daemon that nobody asks does not need. Where it cannot be started the
 * log says why and what to do, hosts are told that the commands are not there, and all else works.
 */
#include "daemon/daemon.h"

#include "base/log.h"

#include <string.h>

#define TRY_AGAIN_NS (30 * NS_PER_S) /* somebody may have installed the engine meanwhile */

struct queries_start {
    struct daemon *d;
    struct err why;
};

/* Reactor 0. */
static int start_task(struct rt_task *t, void *arg)
{
    struct queries_start *s = arg;
    struct daemon *d = s->d;
    struct query_service *svc;
    int rc;

    while (d->queries_starting) {
        rc = rt_cond_wait(t, &d->queries_started);
        if (rc < 0)
            return rc;
    }
    if (atomic_load(&d->queries) != NULL)
        return 0;
    if (d->queries_failed_ns != 0 && rt_now() - d->queries_failed_ns < TRY_AGAIN_NS) {
        s->why = d->queries_why;
        return -ENOTSUP;
    }
    d->queries_starting = true;
    rt_task_shield(t, true);
    rc = query_service_new(t, &d->query, &svc, &s->why);
    rt_task_shield(t, false);
    d->queries_starting = false;
    rt_cond_wake_all(&d->queries_started);
    if (rc == 0) {
        atomic_store(&d->queries, svc);
        log_info("queries: the engine is ready");
        return 0;
    }
    d->queries_failed_ns = rt_now();
    d->queries_why = s->why;
    log_warn("queries: SELECT does not work here: %s; `make deps` brings the engine",
             s->why.text[0] != '\0' ? s->why.text : err_str(rc));
    return -ENOTSUP;
}

int daemon_select(struct rt_task *t, void *arg, struct kv_chan *chan, const struct kv_select *q,
                  struct kv_select_result *res, struct err *why)
{
    struct daemon *d = arg;

    if (atomic_load(&d->queries) == NULL) {
        struct queries_start s = {.d = d};
        int rc = rt_on(t, rt_reactor(0), start_task, &s);

        if (rc < 0)
            return err_set(why, rc, "%s", s.why.text[0] != '\0' ? s.why.text : err_str(rc));
    }
    return query_select(t, atomic_load(&d->queries), chan, q, res, why);
}

void daemon_queries_offer(struct daemon *d)
{
    /* Not in simulated machines: they have no processes. */
    if (strcmp(rt_backend_name(), "sim") != 0)
        nvmf_set_select(d->target, daemon_select, d);
}

void daemon_queries_end(struct rt_task *t, struct daemon *d)
{
    struct query_service *svc = atomic_exchange(&d->queries, NULL);

    if (svc != NULL)
        query_service_free(t, svc);
    free((void *)(uintptr_t)d->query.engine);
    free((void *)(uintptr_t)d->query.worker);
    d->query = (struct query_config){0};
}

/* Histograms are large: on the heap. */
void daemon_queries_log(struct rt_task *t, struct daemon *d)
{
    struct query_service *svc = atomic_load(&d->queries);
    CLEANUP(free_p) struct query_stats *s = svc != NULL ? calloc(1, sizeof(*s)) : NULL;

    if (s == NULL || query_stats(t, svc, s) < 0)
        return;
    log_info("stats: queries: %lu done, %lu failed, %lu cancelled, %lu took too long; %u run, %u "
             "wait, %u processes, of which %lu died",
             s->done, s->failed, s->cancelled, s->timed_out, s->running, s->waiting, s->workers,
             s->worker_deaths);
    log_info("stats: queries: workers made in p50 %llu us, p99 %llu us",
             hist_percentile(&s->spawn_ns, 0.5) / NS_PER_US,
             hist_percentile(&s->spawn_ns, 0.99) / NS_PER_US);
    log_info(
        "stats: queries: %lu of %lu bytes read, %lu bytes of answers; run p50 %llu us, p99 "
        "%llu us; waited p50 %llu us, p99 %llu us; schemas found out %lu, remembered %lu",
        s->read_bytes, s->object_bytes, s->result_bytes,
        hist_percentile(&s->run_ns, 0.5) / NS_PER_US, hist_percentile(&s->run_ns, 0.99) / NS_PER_US,
        hist_percentile(&s->queue_ns, 0.5) / NS_PER_US,
        hist_percentile(&s->queue_ns, 0.99) / NS_PER_US, s->schemas_sniffed, s->schemas_remembered);
}
