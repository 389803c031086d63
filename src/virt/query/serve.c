/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The talk with one worker: ranges of the objects to it, the answer from it. Reads complete in any
 * order and answer the worker by themselves; this task only listens. Whatever the worker says is
 * checked; one that breaks the rules loses its query.
 */
#include "virt/query/service.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define BYTES_PER_TURN (1u << 20) /* then the storage commands of this reactor go first */

static int broken(struct query_run *run, const char *what)
{
    return err_set(run->why, -EPIPE, "the query was ended: its worker %s", what);
}

/* From a completion: ends the talk, the task finds `broken`. */
static void break_off(struct query_run *run, int rc)
{
    if (run->broken == 0)
        run->broken = rc;
    rt_sock_close(&run->sock);
}

/* The stream has room for the answers to all slots; a worker that lets them pile up is broken. */
static void tell_data(struct query_run *run, uint32_t slot, int64_t value)
{
    struct qw_head h = {
        .type = le32_make(QW_DATA), .slot = le32_make(slot), .a = le64_make((uint64_t)value)};
    struct iovec iov = {.iov_base = &h, .iov_len = sizeof(h)};
    ssize_t n;

    if (run->sock.fd < 0)
        return;
    n = rt_sock_send(&run->sock, &iov, 1);
    if (n == (ssize_t)sizeof(h))
        return;
    /* Its end is closed: what it said before is still to be read. */
    if (n == -EPIPE || n == -ECONNRESET)
        return;
    break_off(run, -EPIPE);
}

static void read_done(struct rt_req *req)
{
    struct query_slot *s = container_of(req, struct query_slot, req.req);
    struct query_run *run = s->run;
    int64_t value = req->rc < 0 ? req->rc : (int64_t)s->req.moved;

    s->busy = false;
    run->reading--;
    if (req->rc < 0 && run->read_rc == 0) {
        run->read_rc = req->rc;
        run->read_object = s->object;
    }
    if (req->rc >= 0)
        run->end.read_bytes += s->req.moved;
    tell_data(run, (uint32_t)(s - run->slots), value);
    if (run->reading == 0)
        rt_cond_wake_all(&run->quiet);
}

static int start_read(struct query_run *run, const struct qw_head *h)
{
    uint64_t object = le64_get(h->a), off = le64_get(h->b);
    uint32_t slot = le32_get(h->slot), want = le32_get(h->want);
    struct query_slot *s = &run->slots[slot];
    const struct query_object *o;

    if (object >= run->nobjects)
        return broken(run, "asked for an object that is not its own");
    if (s->busy)
        return broken(run, "used a slot of its window twice");
    o = &run->objects[object];
    if (off >= o->size) {
        tell_data(run, slot, 0);
        return 0;
    }
    s->iov = (struct iovec){.iov_base = (uint8_t *)run->worker->pair.window + slot * QW_SLOT_BYTES,
                            .iov_len = MIN((uint64_t)want, o->size - off)};
    s->req = (struct kv_req){.op = KV_READ,
                             .stream = o->stream,
                             .off = off,
                             .iov = &s->iov,
                             .iovcnt = 1,
                             .len = s->iov.iov_len};
    s->run = run;
    s->object = (uint32_t)object;
    s->busy = true;
    run->reading++;
    rt_req_init(&s->req.req, read_done);
    kv_submit(run->chan, &s->req);
    return 0;
}

/* All of `len`: 0, -ECONNRESET at the end of the stream, an end of the task. */
static int recv_all(struct rt_task *t, struct query_run *run, void *buf, size_t len)
{
    while (len > 0) {
        struct iovec iov = {.iov_base = buf, .iov_len = len};
        ssize_t n = rt_sock_recv(&run->sock, &iov, 1);

        if (n == -EAGAIN) {
            n = rt_sock_readable(t, &run->sock);
            if (n < 0)
                return run->broken < 0 ? run->broken : (int)n;
            continue;
        }
        if (n <= 0)
            return run->broken < 0 ? run->broken : -ECONNRESET;
        buf = (uint8_t *)buf + n;
        len -= (size_t)n;
    }
    return 0;
}

static int send_all(struct rt_task *t, struct query_run *run, const void *buf, size_t len)
{
    while (len > 0) {
        struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
        ssize_t n = rt_sock_send(&run->sock, &iov, 1);

        if (n == -EAGAIN) {
            n = rt_sock_writable(t, &run->sock);
            if (n < 0)
                return (int)n;
            continue;
        }
        if (n < 0)
            return -ECONNRESET;
        buf = (const uint8_t *)buf + n;
        len -= (size_t)n;
    }
    return 0;
}

static int send_query(struct rt_task *t, struct query_run *run)
{
    CLEANUP(free_p) char *text = NULL;
    struct qw_head h = {.type = le32_make(QW_QUERY)};
    size_t len;
    int rc = query_ask_make(run, &text, &len, run->why);

    if (rc < 0)
        return rc;
    h.len = le32_make((uint32_t)len);
    rc = send_all(t, run, &h, sizeof(h));
    if (rc == 0)
        rc = send_all(t, run, text, len);
    if (rc == 0 && query_ask_ahead(run) > 0) {
        /* As if the worker had asked, which it does not have to. */
        h = (struct qw_head){.want = le32_make(query_ask_ahead(run))};
        rc = start_read(run, &h);
    }
    return rc;
}

static int take_result(struct rt_task *t, struct query_run *run, size_t len)
{
    uint64_t max = run->svc->cfg.result_bytes_max;
    int rc = recv_all(t, run, run->buf, len);

    if (rc < 0)
        return rc;
    if (max > 0 && run->end.result_bytes + len > max)
        return err_set(run->why, -EDQUOT,
                       "the answer is longer than the %llu bytes that an answer may have",
                       (unsigned long long)max);
    run->end.result_bytes += len;
    rc = run->res->data(t, run->res->arg, run->buf, len);
    if (rc < 0 && run->why != NULL && run->why->text[0] == '\0')
        err_set(run->why, rc, "the answer was not taken: %s", err_str(rc));
    return rc < 0 ? rc : 0;
}

static int take_schema(struct rt_task *t, struct query_run *run, size_t len)
{
    CLEANUP(free_p) char *text = NULL;
    int rc;

    if (run->told_schema)
        return broken(run, "told the schema twice");
    run->told_schema = true;
    text = malloc(len);
    if (text == NULL)
        return -ENOMEM;
    rc = recv_all(t, run, text, len);
    if (rc == 0 && run->memory_key != NULL)
        query_schemas_put(&run->svc->schemas, bytes_make(run->memory_key, run->memory_key_len),
                          text, len);
    return rc;
}

static int take_done(struct rt_task *t, struct query_run *run, size_t len)
{
    CLEANUP(free_p) char *text = malloc(len);
    int rc;

    if (text == NULL)
        return -ENOMEM;
    rc = recv_all(t, run, text, len);
    if (rc < 0)
        return rc;
    run->end.answered = true;
    rc = query_ask_done(run, text, len);
    return rc < 0 ? rc : 1;
}

/* 0: go on; 1: the query is done; or it has failed. */
static int message(struct rt_task *t, struct query_run *run, const struct qw_head *h)
{
    size_t len = le32_get(h->len);

    switch (le32_get(h->type)) {
    case QW_READ:
        return start_read(run, h);
    case QW_RESULT:
        return take_result(t, run, len);
    case QW_SCHEMA:
        return take_schema(t, run, len);
    default:
        return take_done(t, run, len);
    }
}

static int talk(struct rt_task *t, struct query_run *run)
{
    size_t turn = 0;
    struct qw_head h;

    for (;;) {
        int rc = recv_all(t, run, &h, sizeof(h));

        if (rc < 0)
            return rc;
        if (!qw_head_ok(&h, true))
            return broken(run, "said what makes no sense");
        rc = message(t, run, &h);
        if (rc != 0)
            return rc;
        turn += sizeof(h) + le32_get(h.len) + (le32_get(h.type) == QW_READ ? le32_get(h.want) : 0);
        if (turn >= BYTES_PER_TURN) {
            turn = 0;
            rc = rt_yield(t);
            if (rc < 0)
                return rc;
        }
    }
}

/* Nothing writes into the window any more. */
static void quiet(struct rt_task *t, struct query_run *run)
{
    for (unsigned i = 0; i < QW_SLOTS; i++)
        if (run->slots[i].busy)
            rt_req_cancel(&run->slots[i].req.req);
    while (run->reading > 0)
        rt_cond_wait(t, &run->quiet);
}

/* --- how a worker ended that did not say so --------------------------------------------------- */

#define GONE_CLOSED (-2) /* it closed its end and stayed */

static int wait_gone(struct rt_task *t, void *arg)
{
    struct query_worker *w = arg;

    query_pool_expect_exit(w);
    while (!w->exited && !w->killed)
        rt_cond_wait(t, &w->gone);
    return w->exited ? w->status : GONE_CLOSED;
}

static int gone_text(struct query_run *run, int status)
{
    if (run->svc->stopping)
        return err_set(run->why, -ECANCELED, "the query service is ending");
    if (status == -1)
        return broken(run, "is gone, with the process that made it; try again");
    if (status == GONE_CLOSED)
        return broken(run, "closed its end without an answer");
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        return err_set(run->why, -ETIMEDOUT, "the query took more than %u seconds of a processor",
                       run->svc->cfg.cpu_seconds);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        return broken(run, "touched what it may not");
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return broken(run, "was killed from outside");
    if (WIFSIGNALED(status))
        return err_set(run->why, -EPIPE, "the query was ended: its worker crashed (signal %d)",
                       WTERMSIG(status));
    return err_set(run->why, -EPIPE,
                   "the query was ended: its worker ended without an answer (exit status %d)",
                   WEXITSTATUS(status));
}

static int gone(struct rt_task *t, struct query_run *run)
{
    int status;

    run->end.died = true;
    rt_sock_close(&run->sock);
    rt_task_shield(t, true);
    status = rt_on(t, run->svc->home, wait_gone, run->worker);
    rt_task_shield(t, false);
    return gone_text(run, status);
}

static int read_failed(struct query_run *run)
{
    char name[96];

    query_key_text(&run->objects[run->read_object], name, sizeof(name));
    if (run->read_rc == -ESTALE)
        return err_set(run->why, -ESTALE, "object %s was changed while the query read it", name);
    return err_set(run->why, run->read_rc, "reading object %s: %s", name, err_str(run->read_rc));
}

int query_serve(struct rt_task *t, struct query_run *run)
{
    int rc = send_query(t, run);

    if (rc == 0)
        rc = talk(t, run);
    rt_task_shield(t, true);
    quiet(t, run);
    rt_task_shield(t, false);
    if (run->broken < 0)
        return broken(run, "does not take what it asked for");
    if (rc == -ECONNRESET)
        rc = gone(t, run);
    rt_sock_close(&run->sock);
    /* What the engine made of a read that failed says less than the failure. */
    if (run->read_rc < 0 && run->read_rc != -ECANCELED && rc != -ECANCELED && rc != -ETIMEDOUT)
        return read_failed(run);
    return rc > 0 ? 0 : rc;
}
