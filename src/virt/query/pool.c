/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers, made ahead so that a query does not wait for a process. A worker and its window see one
 * query: to clean a window for the next would cost as much as new pages do.
 */
#include "virt/query/service.h"

#include "base/log.h"
#include "rt/io.h"

#include <stdlib.h>
#include <sys/wait.h>

#define PATIENCE_NS (5 * NS_PER_S)       /* a killed process is gone sooner */
#define EXIT_WITHIN_NS (200 * NS_PER_MS) /* after its stream has ended */
#define AGAIN_NS (100 * NS_PER_MS)

struct query_worker *query_pool_find(struct query_service *svc, uint32_t tag)
{
    struct query_worker *w;

    list_for_each (w, &svc->workers, struct query_worker, link) {
        if (w->tag == tag)
            return w;
    }
    return NULL;
}

static void dropped(struct rt_req *req)
{
    struct query_worker *w = container_of(req, struct query_worker, drop.req);
    struct query_service *svc = w->svc;

    list_del(&w->link);
    svc->nworkers--;
    free(w);
    rt_cond_wake_all(&svc->changed);
}

/* Nobody uses it any more. */
static void drop(struct query_worker *w)
{
    rt_timer_stop(&w->patience);
    w->state = QUERY_ENDING;
    w->drop = (struct rt_offload_req){.fn = query_pair_drop, .arg = &w->pair};
    rt_req_init(&w->drop.req, dropped);
    rt_offload_submit(&w->drop);
}

static void forget_ready(struct query_worker *w)
{
    if (w->state == QUERY_READY) {
        list_del(&w->ready_link);
        w->svc->nready--;
    } else if (w->state == QUERY_SPAWNING) {
        w->svc->nspawning--;
    }
}

void query_pool_exited(struct query_worker *w, int status, uint64_t cpu_us, uint64_t rss_bytes)
{
    enum query_worker_state was = w->state;

    if (w->exited)
        return;
    rt_timer_stop(&w->patience);
    w->exited = true;
    w->status = status;
    w->cpu_us = cpu_us;
    w->rss_bytes = rss_bytes;
    rt_cond_wake_all(&w->gone);
    if (was == QUERY_TAKEN)
        return;
    forget_ready(w);
    if (was == QUERY_READY)
        w->svc->stats.worker_deaths++;
    drop(w);
    rt_cond_wake_all(&w->svc->need);
}

void query_pool_ready(struct query_service *svc, struct query_worker *w, int64_t value)
{
    if (w->state != QUERY_SPAWNING)
        return;
    if (value <= 0) {
        log_warn("query: a worker could not be made: %s", err_str((int)value));
        query_pool_exited(w, -1, 0, 0);
        return;
    }
    w->pid = (pid_t)value;
    svc->nspawning--;
    hist_add(&svc->stats.spawn_ns, rt_now_exact() - w->asked_ns);
    w->state = QUERY_READY;
    list_add_tail(&svc->ready, &w->ready_link);
    svc->nready++;
    query_queue_run(svc);
}

struct query_worker *query_pool_take(struct query_service *svc)
{
    struct query_worker *w = list_pop_entry(&svc->ready, struct query_worker, ready_link);

    if (w == NULL)
        return NULL;
    svc->nready--;
    svc->nrunning++;
    w->state = QUERY_TAKEN;
    rt_cond_wake_all(&svc->need);
    return w;
}

static void out_of_patience(struct rt_timer *timer)
{
    query_pool_exited(container_of(timer, struct query_worker, patience), -1, 0, 0);
}

void query_pool_kill(struct query_worker *w)
{
    if (w->exited || w->killed)
        return;
    w->killed = true;
    rt_cond_wake_all(&w->gone);
    query_zygote_tell(w->svc, QW_KILL, w->tag);
    w->patience.fn = out_of_patience;
    rt_timer_start(&w->patience, rt_now() + PATIENCE_NS);
}

static void still_there(struct rt_timer *timer)
{
    query_pool_kill(container_of(timer, struct query_worker, patience));
}

void query_pool_expect_exit(struct query_worker *w)
{
    if (w->exited || w->killed)
        return;
    w->patience.fn = still_there;
    rt_timer_start(&w->patience, rt_now() + EXIT_WITHIN_NS);
}

void query_pool_end(struct query_worker *w)
{
    struct query_service *svc = w->svc;

    svc->nrunning--;
    w->state = QUERY_ENDING;
    if (w->exited)
        drop(w);
    else if (w->end.answered)
        query_pool_expect_exit(w);
    else
        query_pool_kill(w);
    rt_cond_wake_all(&svc->need);
    rt_cond_wake_all(&svc->changed);
}

void query_pool_lost(struct query_service *svc)
{
    struct query_worker *w;

    list_for_each (w, &svc->workers, struct query_worker, link) {
        query_pool_exited(w, -1, 0, 0);
    }
}

/* As many as shall be ready, more when queries wait, and never more than may run besides. */
static bool wanted(const struct query_service *svc)
{
    unsigned ahead = svc->nready + svc->nspawning;

    if (svc->stopping || svc->state != QUERY_UP)
        return false;
    return ahead < MAX(svc->cfg.workers_ready, MIN(svc->nwaiting, svc->cfg.workers_max)) &&
           ahead + svc->nrunning < svc->cfg.workers_max + svc->cfg.workers_ready;
}

static int make(struct rt_task *t, struct query_service *svc)
{
    struct query_worker *w = calloc(1, sizeof(*w));
    uint32_t tag = ++svc->next_tag;
    int rc, theirs[2];

    if (w == NULL)
        return -ENOMEM;
    rc = rt_offload(t, query_pair_make, &w->pair);
    if (rc < 0) {
        free(w);
        return rc;
    }
    theirs[0] = w->pair.theirs;
    theirs[1] = w->pair.window_fd;
    w->pair.theirs = w->pair.window_fd = -1;
    w->svc = svc;
    w->tag = tag;
    w->status = -1;
    w->state = QUERY_SPAWNING;
    list_add_tail(&svc->workers, &w->link);
    svc->nworkers++;
    svc->nspawning++;
    w->asked_ns = rt_now_exact();
    rc = query_zygote_spawn(t, svc, tag, theirs);
    rt_close_p(&theirs[0]);
    rt_close_p(&theirs[1]);
    /* That was a wait: the zygote may have gone, and the worker with it. */
    w = query_pool_find(svc, tag);
    if (rc < 0 && w != NULL)
        query_pool_exited(w, -1, 0, 0);
    return rc;
}

int query_pool_task(struct rt_task *t, void *arg)
{
    struct query_service *svc = arg;
    int rc = 0;

    while (rc == 0) {
        if (!wanted(svc)) {
            rc = rt_cond_wait(t, &svc->need);
            continue;
        }
        rc = make(t, svc);
        if (rc < 0 && !rt_task_cancelled(t)) {
            log_warn("query: no worker could be made: %s", err_str(rc));
            rc = rt_sleep(t, AGAIN_NS);
        }
    }
    return rc;
}
