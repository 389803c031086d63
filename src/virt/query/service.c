/* SPDX-License-Identifier: Apache-2.0 */
/* The service: begun, ended, counted. zygote.c, pool.c and queue.c are its parts. */
#include "virt/query/service.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEM_BYTES (256 * MIB)
#define TIMEOUT_NS (300 * NS_PER_S)
#define USUAL_NS (60 * NS_PER_S)

static void defaults(struct query_config *c)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (c->workers_max == 0)
        c->workers_max = 2 * (unsigned)MAX(cpus, 1l);
    if (c->workers_ready == 0)
        c->workers_ready = 2;
    c->workers_ready = MIN(c->workers_ready, c->workers_max);
    if (c->queue_max == 0)
        c->queue_max = 256;
    if (c->mem_bytes == 0)
        c->mem_bytes = MEM_BYTES;
    if (c->timeout_ns == 0)
        c->timeout_ns = TIMEOUT_NS;
    if (c->cpu_seconds == 0)
        c->cpu_seconds = (unsigned)MIN(c->timeout_ns / NS_PER_S + 1, (uint64_t)INT32_MAX);
    if (c->schemas_max == 0)
        c->schemas_max = 1024;
}

static void task_ended(struct query_service *svc)
{
    svc->ntasks--;
    rt_cond_wake_all(&svc->changed);
}

static void zygote_task_ended(struct rt_req *req)
{
    struct query_service *svc = container_of(req, struct query_service, zygote_done);

    svc->zygote_task = NULL;
    task_ended(svc);
}

static void pool_task_ended(struct rt_req *req)
{
    struct query_service *svc = container_of(req, struct query_service, pool_done);

    svc->pool_task = NULL;
    task_ended(svc);
}

static int start_tasks(struct query_service *svc)
{
    int rc;

    rt_req_init(&svc->zygote_done, zygote_task_ended);
    rt_req_init(&svc->pool_done, pool_task_ended);
    rc =
        rt_task_start("query-zygote", query_zygote_task, svc, &svc->zygote_done, &svc->zygote_task);
    if (rc < 0)
        return rc;
    svc->ntasks++;
    rc = rt_task_start("query-pool", query_pool_task, svc, &svc->pool_done, &svc->pool_task);
    if (rc == 0)
        svc->ntasks++;
    return rc;
}

static struct query_service *make(const struct query_config *cfg, struct err *why)
{
    struct query_service *svc = calloc(1, sizeof(*svc));

    if (svc == NULL) {
        err_set(why, -ENOMEM, "no memory for the query service");
        return NULL;
    }
    if (cfg != NULL)
        svc->cfg = *cfg;
    svc->usual_ns = svc->cfg.timeout_ns != 0 ? svc->cfg.timeout_ns : USUAL_NS;
    defaults(&svc->cfg);
    svc->ctl.fd = -1;
    svc->home = rt_self();
    svc->state = QUERY_STARTING;
    list_init(&svc->workers);
    list_init(&svc->ready);
    list_init(&svc->lines);
    query_schemas_init(&svc->schemas, svc->cfg.schemas_max);
    svc->worker = query_worker_find(svc->cfg.worker, why);
    if (svc->worker != NULL) {
        if (svc->cfg.engine != NULL && *svc->cfg.engine != '\0')
            svc->engine = strdup(svc->cfg.engine);
        return svc;
    }
    query_schemas_fini(&svc->schemas);
    free(svc);
    return NULL;
}

int query_service_new(struct rt_task *t, const struct query_config *cfg,
                      struct query_service **out_svc, struct err *why)
{
    struct query_service *svc = make(cfg, why);
    int rc;

    if (svc == NULL)
        return -ENOTSUP;
    rc = start_tasks(svc);
    while (rc == 0 && svc->state != QUERY_UP && svc->down_rc == 0)
        rc = rt_cond_wait(t, &svc->changed);
    if (rc == 0 && svc->state != QUERY_UP)
        rc = err_set(why, svc->down_rc, "%s", svc->down_why.text);
    if (rc < 0) {
        query_service_free(t, svc);
        return rc;
    }
    *out_svc = svc;
    return 0;
}

static int end_service(struct rt_task *t, void *arg)
{
    struct query_service *svc = arg;
    struct query_worker *w;

    svc->stopping = true;
    query_queue_fail(svc, -ECANCELED, "the query service is ending");
    list_for_each (w, &svc->workers, struct query_worker, link) {
        query_pool_kill(w);
    }
    while (svc->nrunning > 0)
        rt_cond_wait(t, &svc->changed);
    if (svc->zygote_task != NULL)
        rt_task_cancel(svc->zygote_task);
    if (svc->pool_task != NULL)
        rt_task_cancel(svc->pool_task);
    while (svc->ntasks > 0 || svc->nworkers > 0)
        rt_cond_wait(t, &svc->changed);
    return 0;
}

void query_service_free(struct rt_task *t, struct query_service *svc)
{
    if (svc == NULL)
        return;
    rt_task_shield(t, true);
    rt_on(t, svc->home, end_service, svc);
    rt_task_shield(t, false);
    query_schemas_fini(&svc->schemas);
    free(svc->worker);
    free(svc->engine);
    free(svc);
}

struct stats_call {
    struct query_service *svc;
    struct query_stats *out;
};

static int copy_stats(struct rt_task *t, void *arg)
{
    struct stats_call *c = arg;
    struct query_service *svc = c->svc;

    (void)t;
    *c->out = svc->stats;
    c->out->running = svc->nrunning;
    c->out->waiting = svc->nwaiting;
    c->out->workers = svc->nworkers;
    pthread_mutex_lock(&svc->schemas.lock);
    c->out->schemas_sniffed = svc->schemas.sniffed;
    c->out->schemas_remembered = svc->schemas.remembered;
    pthread_mutex_unlock(&svc->schemas.lock);
    return 0;
}

int query_stats(struct rt_task *t, struct query_service *svc, struct query_stats *out)
{
    struct stats_call c = {.svc = svc, .out = out};

    return rt_on(t, svc->home, copy_stats, &c);
}
