/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SELECT: what both forms share, and the synchronous one. There the query is a task on the
 * library's reactor; its answer is handed to the calling thread a piece at a time, and the query
 * waits until that has dealt with it.
 */
#include "capi/capi.h"

#include "virt/query/query.h"

#include <stdlib.h>

struct call {
    struct kvasir_kv *kv;
    struct kv_select q;
    struct kv_select_result res;
    struct err why;
    struct rt_req done;
    struct rt_cond changed;
    const void *piece; /* not NULL: for the caller to take */
    size_t piece_len;
    int piece_rc; /* what the caller made of it */
    bool ended;
    int rc;
};

/*
 * In the query: waits until the caller has dealt with the piece, which it may look at until then,
 * so neither deadline nor cancelling ends this wait; they do the next.
 */
static int give(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct call *c = arg;

    c->piece = buf;
    c->piece_len = len;
    rt_cond_wake_all(&c->changed);
    rt_task_shield(t, true);
    while (c->piece != NULL)
        rt_cond_wait(t, &c->changed);
    rt_task_shield(t, false);
    return c->piece_rc;
}

static int queries_get(struct rt_task *t, struct capi_queries *q, struct err *why)
{
    int rc = 0;

    while (q->starting && rc == 0)
        rc = rt_cond_wait(t, &q->started);
    if (rc < 0 || q->svc != NULL)
        return rc;
    q->starting = true;
    rc = query_service_new(t, NULL, &q->svc, why);
    q->starting = false;
    rt_cond_wake_all(&q->started);
    return rc;
}

int capi_select_run(struct rt_task *t, const struct kvasir_kv *kv, struct capi_queries *queries,
                    const struct kv_select *q, struct kv_select_result *res, struct err *why)
{
    int rc = kv_select_push(t, kv->chan, q, res, why);

    if (rc != -ENOTSUP) {
        res->pushed = true;
        return rc;
    }
    rc = queries_get(t, queries, why);
    return rc < 0 ? rc : query_select(t, queries->svc, kv->chan, q, res, why);
}

void capi_select_result(const struct kv_select_result *res, struct kvasir_select_result *out)
{
    *out = (struct kvasir_select_result){
        .rows = res->rows,
        .result_bytes = res->result_bytes,
        .object_bytes = res->object_bytes,
        .read_bytes = res->read_bytes,
        .pushed = res->pushed,
    };
}

static int query_task(struct rt_task *t, void *arg)
{
    struct call *c = arg;

    return capi_select_run(t, c->kv, capi_lib_queries(), &c->q, &c->res, &c->why);
}

static void query_done(struct rt_req *req)
{
    struct call *c = container_of(req, struct call, done);

    c->rc = req->rc;
    c->ended = true;
    rt_cond_wake_all(&c->changed);
}

/* Until there is a piece, or the end. */
static int wait_piece(struct rt_task *t, struct call *c)
{
    while (c->piece == NULL && !c->ended)
        rt_cond_wait(t, &c->changed);
    return 0;
}

static int begin_task(struct rt_task *t, void *arg)
{
    struct call *c = arg;
    int rc;

    rt_req_init(&c->done, query_done);
    rc = rt_task_start("select", query_task, c, &c->done, NULL);
    return rc < 0 ? rc : wait_piece(t, c);
}

static int next_task(struct rt_task *t, void *arg)
{
    struct call *c = arg;

    c->piece = NULL;
    rt_cond_wake_all(&c->changed);
    return wait_piece(t, c);
}

static int format(const char *name, const char *otherwise, enum kv_select_format *out)
{
    return kv_select_format_parse(bytes_of_str(name != NULL ? name : otherwise), out);
}

int capi_select_understand(const struct kvasir_select *q, struct bytes *keys, struct kv_select *out)
{
    if (q->nkeys > KV_SELECT_KEYS_MAX)
        return capi_fail(-EINVAL, "too many objects");
    *out = (struct kv_select){
        .keys = keys,
        .nkeys = (unsigned)q->nkeys,
        .prefix = bytes_make(q->prefix, q->prefix_len),
        .sql = bytes_of_str(q->sql != NULL ? q->sql : ""),
        .header = q->header == KVASIR_HEADER_YES  ? KV_SELECT_HEADER_YES
                  : q->header == KVASIR_HEADER_NO ? KV_SELECT_HEADER_NO
                                                  : KV_SELECT_HEADER_AUTO,
        .header_out = q->header_out != 0,
        .delim = q->delim,
        .quote = q->quote,
        .escape = q->escape,
        .schema = bytes_of_str(q->schema != NULL ? q->schema : ""),
        .timeout_ns = q->timeout_ms * NS_PER_MS,
    };
    for (size_t i = 0; i < q->nkeys; i++)
        keys[i] = bytes_make(q->keys[i].ptr, q->keys[i].len);
    if (format(q->input, "auto", &out->input) < 0)
        return capi_fail(-EINVAL, "input is csv, json, jsonl, parquet or auto");
    if (format(q->output, "csv", &out->output) < 0)
        return capi_fail(-EINVAL, "output is csv, json, jsonl, parquet or arrow");
    return 0;
}

/* Pieces and their taking, in the calling thread. What `data` answers ends the query. */
static int run(struct call *c, int (*data)(void *arg, const void *buf, size_t len), void *arg)
{
    int rc = capi_call(begin_task, c), said = 0;

    while (rc == 0 && c->piece != NULL) {
        if (said == 0)
            said = data(arg, c->piece, c->piece_len);
        c->piece_rc = said == 0 ? 0 : -ECANCELED;
        rc = capi_call(next_task, c);
    }
    if (rc < 0)
        return capi_fail(rc, NULL);
    if (said != 0)
        return said;
    return c->rc < 0 ? capi_fail(c->rc, c->why.text) : 0;
}

int kvasir_kv_select(struct kvasir_kv *kv, const struct kvasir_select *q,
                     int (*data)(void *arg, const void *buf, size_t len), void *arg,
                     struct kvasir_select_result *out_result)
{
    CLEANUP(free_p) struct bytes *keys = NULL;
    CLEANUP(free_p) struct call *c = NULL;
    int rc;

    if (kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    if (kv->snap != NULL)
        return capi_fail(-EINVAL, "a snapshot cannot be asked: ask its device");
    keys = calloc(MIN(q->nkeys, (size_t)KV_SELECT_KEYS_MAX) + 1, sizeof(*keys));
    c = calloc(1, sizeof(*c));
    if (keys == NULL || c == NULL)
        return capi_fail(-ENOMEM, NULL);
    *c = (struct call){.kv = kv, .res.data = give, .res.arg = c};
    rc = capi_select_understand(q, keys, &c->q);
    if (rc < 0)
        return rc;
    rc = run(c, data, arg);
    if (out_result != NULL)
        capi_select_result(&c->res, out_result);
    return rc;
}
