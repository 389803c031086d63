/* SPDX-License-Identifier: Apache-2.0 */
/* One query from beginning to end. Whatever happens on the way, all is given back. */
#include "virt/query/service.h"

#include <stdlib.h>

static void run_free(struct query_run *run)
{
    free(run->memory_key);
    free(run->known);
    free(run->buf);
    free(run);
}

static int look_up(struct query_run *run)
{
    int rc = query_ask_memory_key(run);

    if (rc == 0 && run->memory_key != NULL)
        run->known =
            query_schemas_get(&run->svc->schemas, bytes_make(run->memory_key, run->memory_key_len));
    run->res->schema_known = run->known != NULL || run->q->schema.len > 0;
    return rc;
}

/* With a worker that is ours. */
static int with_worker(struct rt_task *t, struct query_run *run)
{
    int fd = run->worker->pair.ours;
    int rc;

    run->worker->pair.ours = -1;
    rc = rt_sock_attach(&run->sock, fd);
    if (rc < 0) {
        run->sock.fd = -1;
        return err_set(run->why, rc, "talking to a worker: %s", err_str(rc));
    }
    rc = query_objects_open(t, run);
    if (rc == 0)
        rc = look_up(run);
    if (rc == 0)
        rc = query_serve(t, run);
    rt_sock_close(&run->sock);
    rt_task_shield(t, true);
    query_objects_close(t, run);
    rt_task_shield(t, false);
    return rc;
}

/* How long a query may take. */
static uint64_t time_of(const struct query_service *svc, const struct kv_select *q)
{
    return q->timeout_ns > 0 ? MIN(q->timeout_ns, svc->cfg.timeout_ns) : svc->usual_ns;
}

/* The caller's own deadline stays when it is the earlier one. */
static uint64_t deadline_of(const struct query_service *svc, const struct kv_select *q,
                            uint64_t before)
{
    uint64_t at = rt_now() + time_of(svc, q);

    return before > 0 ? MIN(before, at) : at;
}

static int ended_by_task(struct rt_task *t, struct query_run *run, int rc)
{
    if (rc == -ETIMEDOUT && (run->why == NULL || run->why->text[0] == '\0'))
        return err_set(run->why, rc, "the query was ended: it took longer than it may (%llu ms)",
                       (unsigned long long)(time_of(run->svc, run->q) / NS_PER_MS));
    if (rc < 0 && run->why != NULL && run->why->text[0] == '\0')
        return err_set(run->why, rc, "the query was ended: %s", err_str(rc));
    return rc;
}

static int run_query(struct rt_task *t, struct query_run *run)
{
    uint64_t began_ns = rt_now_exact();
    struct query_turn turn;
    int rc = query_turn_wait(t, run->svc, run->q->who, &turn, run->why);

    run->end.queue_ns = rt_now_exact() - began_ns;
    if (rc < 0)
        return ended_by_task(t, run, rc);
    run->worker = turn.worker;
    rc = ended_by_task(t, run, with_worker(t, run));
    run->end.run_ns = rt_now_exact() - began_ns - run->end.queue_ns;
    run->end.rc = rc;
    query_turn_end(run->worker, &run->end);
    return rc;
}

static void tell(struct kv_select_result *res, const struct query_end *e)
{
    res->result_bytes = e->result_bytes;
    res->object_bytes = e->object_bytes;
    res->read_bytes = e->read_bytes;
    res->queue_ns = e->queue_ns;
    res->run_ns = e->run_ns;
}

int query_select(struct rt_task *t, struct query_service *svc, struct kv_chan *chan,
                 const struct kv_select *q, struct kv_select_result *res, struct err *why)
{
    uint64_t before = rt_task_deadline_at(t);
    struct query_run *run;
    struct err own;
    int rc = query_ask_check(q, why);

    if (rc < 0)
        return rc;
    res->rows = UINT64_MAX;
    rc = kv_select_push(t, chan, q, res, why);
    if (rc != -ENOTSUP) {
        res->pushed = true;
        return rc;
    }
    if (svc == NULL)
        return err_set(why, rc, "no query service runs here");
    if (why == NULL)
        why = &own;
    why->text[0] = '\0';
    run = calloc(1, sizeof(*run));
    if (run == NULL)
        return err_set(why, -ENOMEM, "no memory for the query");
    *run = (struct query_run){.svc = svc, .chan = chan, .q = q, .res = res, .why = why};
    run->sock.fd = -1;
    run->buf = malloc(QW_RESULT_BYTES);
    rc = run->buf == NULL ? err_set(why, -ENOMEM, "no memory for the query") : 0;
    if (rc == 0) {
        rt_task_deadline(t, deadline_of(svc, q, before));
        rc = run_query(t, run);
        rt_task_deadline(t, before);
    }
    tell(res, &run->end);
    run_free(run);
    return rc;
}
