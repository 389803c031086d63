/* SPDX-License-Identifier: Apache-2.0 */
/* Start, signals, stop. */
#include "daemon/rpc.h"
#include "daemon/runtime_opts.h"

#include "base/log.h"
#include "rt/io.h"
#include "rt/trace.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

void daemon_init(struct daemon *d)
{
    *d = (struct daemon){0};
    list_init(&d->devs);
    list_init(&d->listeners);
    list_init(&d->namespaces);
    list_init(&d->queries_started.waiters);
}

void daemon_fini(struct rt_task *t, struct daemon *d)
{
    struct daemon_listener *l;
    struct daemon_ns *ns;
    struct daemon_dev *dev;

    nvmf_target_close(t, take_ptr(&d->target));
    daemon_queries_end(t, d);
    while ((l = list_pop_entry(&d->listeners, struct daemon_listener, link)) != NULL)
        free(l);
    while ((ns = list_pop_entry(&d->namespaces, struct daemon_ns, link)) != NULL)
        free(ns);
    while ((dev = list_pop_entry(&d->devs, struct daemon_dev, link)) != NULL) {
        if (dev->kv != NULL)
            kv_close(t, dev->kv);
        if (dev->blk != NULL)
            blk_close(t, dev->blk);
        free(dev);
    }
}

/* While we stop: another signal means at once. */
static int impatience_task(struct rt_task *t, void *arg)
{
    const int *fd = arg;
    int sig;

    do
        sig = runtime_signals_next(t, *fd);
    while (sig == SIGUSR1 || sig == SIGUSR2);
    if (sig > 0) {
        log_warn("second signal: stopping at once, commands in flight are lost");
        _exit(1);
    }
    return 0;
}

static void trace_line(const char *text, void *arg)
{
    fprintf(stderr, "trace: %s\n", text);
    ++*(int *)arg;
}

static void print_trace(struct rt_task *t)
{
    int n = 0;

    if (rt_trace_dump(t, trace_line, &n) == 0)
        log_warn("no trace events: start with --trace EVENTS to keep some");
}

static void serve(struct rt_task *t, struct daemon *d, int signals)
{
    for (;;) {
        int sig = runtime_signals_next(t, signals);

        if (sig == SIGUSR1) {
            daemon_log_stats(t, d);
            continue;
        }
        if (sig == SIGUSR2) {
            print_trace(t);
            continue;
        }
        if (sig > 0)
            log_info("signal %d: stopping", sig);
        return;
    }
}

static void stop(struct rt_task *t, struct daemon *d, struct rpc *rpc, int *signals)
{
    struct rt_task *impatience = NULL;
    struct rt_req done;

    rt_req_init_task(&done, t);
    if (rt_task_start("impatience", impatience_task, signals, &done, &impatience) < 0)
        impatience = NULL;
    rt_task_shield(t, true);
    rpc_close(t, rpc);
    daemon_fini(t, d);
    if (impatience != NULL) {
        rt_task_cancel(impatience);
        rt_wait(t, &done);
    }
    rt_task_shield(t, false);
}

int daemon_run(struct rt_task *t, const struct daemon_run *run, struct err *why)
{
    struct rpc *rpc = NULL;
    struct daemon d;
    int signals = runtime_signals_open(true);
    int rc;

    if (signals < 0)
        return err_set(why, signals, "signalfd: %s", err_str(signals));
    daemon_init(&d);
    rc = daemon_apply(t, &d, run->config, why);
    if (rc == 0 && run->socket != NULL)
        rc = rpc_open(t, &d, run->socket, &rpc, why);
    if (rc == 0 && run->ready != NULL)
        rc = run->ready(t, &d, run->arg);
    if (rc == 0)
        serve(t, &d, signals);
    stop(t, &d, rpc, &signals);
    close(signals);
    if (rc == 0)
        log_info("stopped");
    return rc;
}
