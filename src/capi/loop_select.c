/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SELECT on an event loop: a task of the loop. The program's functions do not run in it, whose
 * stack is small, but from the loop; the query waits until they have dealt with a piece.
 */
#include "capi/capi.h"

#include <stdlib.h>

struct ask {
    struct kvasir_select_op *op;
    struct kvasir_kv *kv;
    struct bytes *keys;
    struct kv_select q;
    struct kv_select_result res;
    struct err why;
    struct rt_req done;
    struct rt_task *task; /* NULL: it has not begun to run */
    struct rt_msg msg;
    struct rt_cond changed;
    const void *piece; /* not NULL: for the caller to take */
    size_t piece_len;
    int piece_rc; /* what the caller made of it, when that is the end */
    bool sent;    /* msg is on its way */
    bool cancelled;
};

static struct ask *ask_of(struct kvasir_select_op *op)
{
    return op->opaque[0];
}

/* From the loop. */
static void hand_over(struct rt_msg *msg)
{
    struct ask *a = container_of(msg, struct ask, msg);
    int rc = 0;

    a->sent = false;
    if (!a->cancelled)
        rc = a->op->data(a->op, a->piece, a->piece_len);
    if (rc < 0)
        a->piece_rc = rc;
    /* One that waits may have been resumed or cancelled inside. */
    if (rc != KVASIR_SELECT_WAIT)
        a->piece = NULL;
    rt_cond_wake_all(&a->changed);
}

/* In the query. Deadlines do not end this wait, since the caller may look at the bytes. */
static int give(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct ask *a = arg;

    a->piece = buf;
    a->piece_len = len;
    a->sent = true;
    a->msg.fn = hand_over;
    rt_send(rt_self(), &a->msg);
    rt_task_shield(t, true);
    while (a->sent || (a->piece != NULL && !a->cancelled))
        rt_cond_wait(t, &a->changed);
    rt_task_shield(t, false);
    a->piece = NULL;
    return a->cancelled ? -ECANCELED : a->piece_rc;
}

static int ask_task(struct rt_task *t, void *arg)
{
    struct ask *a = arg;

    a->task = t;
    if (a->cancelled)
        return -ECANCELED;
    return capi_select_run(t, a->kv, &a->kv->loop->queries, &a->q, &a->res, &a->why);
}

static void ask_free(struct ask *a)
{
    free(a->keys);
    free(a);
}

static void ask_done(struct rt_req *req)
{
    struct ask *a = container_of(req, struct ask, done);
    struct kvasir_select_op *op = a->op;

    op->rc = a->piece_rc < 0 ? a->piece_rc : a->cancelled && req->rc < 0 ? -ECANCELED : req->rc;
    capi_select_result(&a->res, &op->result);
    if (op->rc < 0)
        capi_fail(op->rc, op->rc == req->rc ? a->why.text : NULL);
    op->opaque[0] = NULL;
    ask_free(a);
    op->done(op);
}

int kvasir_kv_select_submit(struct kvasir_kv *kv, struct kvasir_select_op *op)
{
    struct ask *a;
    int rc;

    if (kv->loop == NULL)
        return capi_fail(-EINVAL, "the device was not opened for an event loop");
    if (op->data == NULL || op->done == NULL)
        return capi_fail(-EINVAL, "data and done are functions");
    a = calloc(1, sizeof(*a));
    if (a == NULL)
        return capi_fail(-ENOMEM, NULL);
    *a = (struct ask){.op = op, .kv = kv, .res = {.data = give, .arg = a, .rows = UINT64_MAX}};
    a->keys = calloc(MIN(op->question.nkeys, (size_t)KV_SELECT_KEYS_MAX) + 1, sizeof(*a->keys));
    rc = a->keys == NULL ? capi_fail(-ENOMEM, NULL)
                         : capi_select_understand(&op->question, a->keys, &a->q);
    op->opaque[0] = a;
    if (rc == 0) {
        rt_req_init(&a->done, ask_done);
        rc = rt_loop_start(kv->loop->rt, "select", ask_task, a, &a->done);
        if (rc < 0)
            capi_fail(rc, NULL);
    }
    if (rc < 0)
        ask_free(a);
    return rc;
}

static void resume_now(void *arg)
{
    struct ask *a = arg;

    if (a->sent) /* it is not the caller's yet */
        return;
    a->piece = NULL;
    rt_cond_wake_all(&a->changed);
}

static void cancel_now(void *arg)
{
    struct ask *a = arg;

    if (a->cancelled)
        return;
    a->cancelled = true;
    rt_cond_wake_all(&a->changed);
    if (a->task != NULL)
        rt_task_cancel(a->task);
}

void kvasir_select_resume(struct kvasir_select_op *op)
{
    struct ask *a = ask_of(op);

    rt_loop_enter(a->kv->loop->rt, resume_now, a);
}

void kvasir_select_cancel(struct kvasir_select_op *op)
{
    struct ask *a = ask_of(op);

    if (a != NULL)
        rt_loop_enter(a->kv->loop->rt, cancel_now, a);
}
