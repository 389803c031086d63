/* SPDX-License-Identifier: Apache-2.0 */
/* The zygote: started, listened to, and started again when it has died. */
#include "virt/query/service.h"

#include "base/log.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define READY_WITHIN_NS (30 * NS_PER_S) /* it opens the engine, maybe from a slow disk */
#define QUICK_DEATH_NS (10 * NS_PER_S)
#define REST_MIN_NS (100 * NS_PER_MS)
#define REST_MAX_NS (10 * NS_PER_S)
#define MESSAGES_PER_TURN 64
#define CPUS_MAX 256
#define ERRNO_MAX 4095

/* One message: 0, -EAGAIN with nothing there, -ECONNRESET at the end, -EPROTO. */
static int next_message(struct query_service *svc, struct qw_ctl *c)
{
    struct iovec iov = {.iov_base = c, .iov_len = sizeof(*c)};
    ssize_t n = rt_sock_recv(&svc->ctl, &iov, 1);

    if (n < 0)
        return (int)n;
    if (n == 0)
        return -ECONNRESET;
    if (n != (ssize_t)sizeof(*c))
        return -EPROTO;
    c->text[sizeof(c->text) - 1] = '\0';
    return 0;
}

static int wait_message(struct rt_task *t, struct query_service *svc, struct qw_ctl *c)
{
    for (;;) {
        int rc = next_message(svc, c);

        if (rc != -EAGAIN)
            return rc;
        rc = rt_sock_readable(t, &svc->ctl);
        if (rc < 0)
            return rc;
    }
}

int query_zygote_spawn(struct rt_task *t, struct query_service *svc, uint32_t tag, const int fds[2])
{
    struct qw_ctl c = {.type = le32_make(QW_SPAWN),
                       .tag = le32_make(tag),
                       .value = le64_make(svc->cfg.mem_bytes),
                       .cpu_us = le64_make(svc->cfg.cpu_seconds * 1000000ull)};

    for (;;) {
        ssize_t n = svc->state == QUERY_UP ? rt_sock_send_fds(&svc->ctl, &c, sizeof(c), fds, 2)
                                           : -ECONNRESET;

        if (n != -EAGAIN)
            return n < 0 ? (int)n : 0;
        n = rt_sock_writable(t, &svc->ctl);
        if (n < 0)
            return (int)n;
    }
}

void query_zygote_tell(struct query_service *svc, enum qw_ctl_type type, uint32_t tag)
{
    struct qw_ctl c = {.type = le32_make(type), .tag = le32_make(tag)};
    struct iovec iov = {.iov_base = &c, .iov_len = sizeof(c)};

    if (svc->state == QUERY_UP)
        rt_sock_send(&svc->ctl, &iov, 1);
}

static int spawn(struct rt_task *t, struct query_service *svc, struct err *why)
{
    struct query_zygote_start z = {
        .worker = svc->worker, .engine = svc->engine, .mem_bytes = svc->cfg.mem_bytes};
    int cpus[CPUS_MAX];
    int rc;

    for (unsigned i = 0; i < rt_reactors() && z.ncpus < CPUS_MAX; i++)
        if (rt_cpu(i) >= 0)
            cpus[z.ncpus++] = rt_cpu(i);
    z.cpus = cpus;
    rc = rt_offload(t, query_zygote_start, &z);
    if (rc < 0)
        return err_set(why, -ENOTSUP, "cannot start %.150s: %s", svc->worker, err_str(rc));
    svc->zygote_pid = z.pid;
    rc = rt_sock_attach(&svc->ctl, z.fd);
    if (rc < 0)
        svc->ctl.fd = -1;
    return rc;
}

/* Why it cannot begin, in its words: an engine's path may be in them, cut anywhere. */
static int failed(struct err *why, char *text)
{
    json_t *utf8 = json_string(text);

    for (char *at = text; utf8 == NULL && *at != '\0'; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    json_decref(utf8);
    query_text_set(why, text);
    return why->text[0] != '\0' ? -ENOTSUP : err_set(why, -ENOTSUP, "no engine can be opened");
}

/* Waits for QW_READY: the engine is open. */
int query_zygote_greet(struct rt_task *t, struct query_service *svc, struct err *why)
{
    struct qw_ctl c;
    int rc;

    rt_task_deadline(t, rt_now() + READY_WITHIN_NS);
    rc = wait_message(t, svc, &c);
    rt_task_deadline(t, 0);
    if (rc == -ETIMEDOUT)
        return err_set(why, -ENOTSUP, "%.150s has not opened the engine within %d s", svc->worker,
                       (int)(READY_WITHIN_NS / NS_PER_S));
    if (rc == -ECANCELED)
        return rc;
    if (rc < 0)
        return err_set(why, -ENOTSUP, "%.150s ended before it said anything", svc->worker);
    if (le32_get(c.type) == QW_FAILED)
        return failed(why, c.text);
    if (le32_get(c.type) != QW_READY || le64_get(c.value) != QW_VERSION)
        return err_set(why, -ENOTSUP, "%.150s is of another version of Kvasir", svc->worker);
    return 0;
}

static int start(struct rt_task *t, struct query_service *svc, struct err *why)
{
    int rc;

    svc->state = QUERY_STARTING;
    rc = spawn(t, svc, why);
    if (rc == 0)
        rc = query_zygote_greet(t, svc, why);
    if (rc == 0)
        svc->state = QUERY_UP;
    return rc;
}

/* A pid or a negative errno; what wait4() told. */
static bool value_fits(const struct qw_ctl *c)
{
    int64_t value = (int64_t)le64_get(c->value);

    return value <= INT32_MAX && value >= (le32_get(c->type) == QW_SPAWNED ? -ERRNO_MAX : 0);
}

static int message(struct query_service *svc, const struct qw_ctl *c)
{
    struct query_worker *w = query_pool_find(svc, le32_get(c->tag));

    switch (le32_get(c->type)) {
    case QW_SPAWNED:
        if (!value_fits(c))
            return -EPROTO;
        if (w != NULL)
            query_pool_ready(svc, w, (int64_t)le64_get(c->value));
        return 0;
    case QW_EXITED:
        if (!value_fits(c))
            return -EPROTO;
        if (w != NULL)
            query_pool_exited(w, (int)le64_get(c->value), le64_get(c->cpu_us),
                              le64_get(c->rss_bytes));
        return 0;
    default:
        return -EPROTO;
    }
}

int query_zygote_listen(struct rt_task *t, struct query_service *svc)
{
    struct qw_ctl c;
    unsigned n = 0;
    int rc;

    for (;;) {
        rc = wait_message(t, svc, &c);
        if (rc == 0)
            rc = message(svc, &c);
        if (rc == 0 && ++n % MESSAGES_PER_TURN == 0)
            rc = rt_yield(t);
        if (rc < 0)
            return rc;
    }
}

static void end(struct rt_task *t, struct query_service *svc)
{
    struct query_zygote_reap r = {.pid = svc->zygote_pid};

    svc->state = QUERY_DOWN;
    rt_sock_close(&svc->ctl);
    query_pool_lost(svc);
    if (svc->zygote_pid <= 0)
        return;
    rt_task_shield(t, true);
    rt_offload(t, query_zygote_reap, &r);
    rt_task_shield(t, false);
    svc->zygote_pid = 0;
}

static void down(struct query_service *svc, int rc, const struct err *why)
{
    svc->down_rc = rc;
    svc->down_why = *why;
    query_queue_fail(svc, rc, why->text);
    rt_cond_wake_all(&svc->changed);
}

int query_zygote_task(struct rt_task *t, void *arg)
{
    struct query_service *svc = arg;
    uint64_t rest_ns = 0;

    while (!svc->stopping) {
        uint64_t began_ns = rt_now();
        struct err why = {""};
        int rc = start(t, svc, &why);

        if (rc == 0) {
            svc->down_rc = 0;
            rt_cond_wake_all(&svc->changed);
            rt_cond_wake_all(&svc->need);
            rc = query_zygote_listen(t, svc);
        } else if (!rt_task_cancelled(t)) {
            end(t, svc);
            down(svc, rc, &why);
        }
        end(t, svc);
        if (svc->stopping || rt_task_cancelled(t))
            break;
        if (svc->down_rc == 0)
            log_warn("query: %s ended (%s); it is started again", svc->worker, err_str(rc));
        if (rt_now() - began_ns > QUICK_DEATH_NS)
            rest_ns = 0;
        else
            rest_ns = MIN(MAX(rest_ns * 2, REST_MIN_NS), REST_MAX_NS);
        if (rest_ns > 0 && rt_sleep(t, rest_ns) < 0)
            break;
    }
    return 0;
}
