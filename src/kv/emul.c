/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The written way for what a driver lacks, in tasks of a channel: ranges by reading from 0 and
 * throwing away (KV_CAP_RANGE), prefixes by filtering (KV_CAP_ORDERED_LIST). At most KV_EMULS run;
 * others stand in line. The steps are requests of the same channel that are not counted.
 */
#include "kv/internal.h"

int kv_emuls_init(struct kv_chan *chan)
{
    const uint32_t both = KV_CAP_RANGE | KV_CAP_ORDERED_LIST;

    list_init(&chan->free_emuls);
    list_init(&chan->emul_waiting);
    if ((chan->caps & both) == both)
        return 0;
    chan->emuls = calloc(KV_EMULS, sizeof(*chan->emuls));
    chan->discard = malloc(KV_DISCARD_BYTES);
    if (chan->emuls == NULL || chan->discard == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < KV_EMULS; i++) {
        chan->emuls[i].chan = chan;
        list_add_tail(&chan->free_emuls, &chan->emuls[i].link);
    }
    return 0;
}

bool kv_emul_needed(const struct kv_chan *chan, const struct kv_req *req)
{
    switch (req->op) {
    case KV_RETRIEVE:
        return req->off > 0 && (chan->caps & KV_CAP_RANGE) == 0;
    case KV_READ:
        return (chan->caps & KV_CAP_RANGE) == 0 && req->off > req->held->pos;
    case KV_LIST:
        return req->prefix.len > 0 && (chan->caps & KV_CAP_ORDERED_LIST) == 0;
    default:
        return false;
    }
}

/* Prepares a step with the fields that all of them share. */
static struct kv_req *step(struct rt_task *t, struct kv_emul *e, enum kv_op op)
{
    struct kv_req *sub = &e->sub;

    rt_req_init_task(&sub->req, t);
    sub->op = (uint8_t)op;
    sub->flags = 0;
    sub->iov = NULL;
    sub->iovcnt = 0;
    sub->off = 0;
    sub->len = 0;
    sub->version = 0;
    sub->snap = e->req->snap;
    sub->moved = 0;
    return sub;
}

static int run(struct rt_task *t, struct kv_emul *e)
{
    struct kv_req *sub = &e->sub;

    kv_begin_step(e->chan, sub);
    kv_carry(e->chan, sub);
    return rt_wait(t, &sub->req);
}

/* Reads [from, to) of the open stream and throws it away. 1: the value ended before. */
static int skip(struct rt_task *t, struct kv_emul *e, struct kv_stream *stream, uint64_t from,
                uint64_t to)
{
    while (from < to) {
        struct kv_req *sub = step(t, e, KV_READ);
        int rc;

        e->iov = (struct iovec){.iov_base = e->chan->discard, .iov_len = KV_DISCARD_BYTES};
        sub->stream = stream;
        sub->iov = &e->iov;
        sub->iovcnt = 1;
        sub->off = from;
        sub->len = MIN(to - from, KV_DISCARD_BYTES);
        rc = run(t, e);
        if (rc < 0)
            return rc;
        if (sub->moved == 0)
            return 1;
        from += sub->moved;
    }
    return 0;
}

static int read_at(struct rt_task *t, struct kv_emul *e, struct kv_stream *stream, uint64_t from)
{
    struct kv_req *req = e->req;
    struct kv_req *sub;
    int rc;

    rc = skip(t, e, stream, from, req->off);
    if (rc != 0)
        return MIN(rc, 0);
    sub = step(t, e, KV_READ);
    sub->stream = stream;
    sub->iov = req->iov;
    sub->iovcnt = req->iovcnt;
    sub->off = req->off;
    sub->len = req->len;
    rc = run(t, e);
    if (rc == 0)
        req->moved = sub->moved;
    return rc;
}

static int retrieve_range(struct rt_task *t, struct kv_emul *e)
{
    struct kv_req *req = e->req;
    struct kv_req *sub = step(t, e, KV_RETRIEVE_OPEN);
    struct kv_stream *stream;
    int rc;

    sub->key = req->key;
    rc = run(t, e);
    if (rc < 0)
        return rc;
    stream = sub->stream;
    req->value_len = sub->value_len;
    req->version = sub->version;
    if (req->off < sub->value_len && req->len > 0)
        rc = read_at(t, e, stream, 0);
    rt_task_shield(t, true);
    sub = step(t, e, KV_READ_CLOSE);
    sub->stream = stream;
    (void)run(t, e);
    rt_task_shield(t, false);
    return rc;
}

/* Moves the keys with the prefix to the front of the buffer, and keeps the last key of all. */
static void filter(struct kv_emul *e, size_t used, size_t *out_used, uint32_t *out_n)
{
    struct kv_req *req = e->req;
    uint8_t *buf = req->iov[0].iov_base;
    struct kv_list_iter it = kv_list_begin(buf, used);
    struct bytes key;
    size_t kept = 0;
    uint32_t n = 0;

    while (kv_list_next(&it, &key)) {
        memcpy(e->key, key.ptr, key.len);
        e->sub.key = bytes_make(e->key, key.len);
        if (!bytes_has_prefix(key, req->prefix))
            continue;
        memmove(buf + kept, key.ptr - 2, key.len + 2);
        kept += key.len + 2;
        n++;
    }
    *out_used = kept;
    *out_n = n;
}

static int list_filtered(struct rt_task *t, struct kv_emul *e)
{
    struct kv_req *req = e->req;
    uint32_t flags = req->flags;
    size_t used = 0;
    uint32_t n = 0;

    e->sub.key = req->key;
    for (;;) {
        struct kv_req *sub = step(t, e, KV_LIST);
        int rc;

        sub->flags = flags;
        sub->prefix = bytes_make(NULL, 0);
        sub->iov = req->iov;
        sub->iovcnt = 1;
        rc = run(t, e);
        if (rc < 0)
            return rc;
        filter(e, sub->moved, &used, &n);
        if (n > 0 || !sub->more || sub->moved == 0) {
            req->moved = used;
            req->nkeys = n;
            req->more = sub->more;
            return 0;
        }
        flags = KV_F_AFTER;
    }
}

static int emul_task(struct rt_task *t, void *arg)
{
    struct kv_emul *e = arg;
    struct kv_chan *chan = e->chan;
    struct kv_req *req = e->req;
    int rc;

    rt_task_set_trace(t, req->req.trace_id);
    switch (req->op) {
    case KV_RETRIEVE:
        rc = retrieve_range(t, e);
        break;
    case KV_READ:
        rc = read_at(t, e, req->stream, req->held->pos);
        break;
    default:
        rc = list_filtered(t, e);
        break;
    }
    e->req = NULL;
    e->task = NULL;
    req->emul = NULL;
    list_add_head(&chan->free_emuls, &e->link);
    kv_finish(req, rc);
    req = list_pop_entry(&chan->emul_waiting, struct kv_req, link);
    if (req != NULL)
        kv_emul_start(chan, req);
    return 0;
}

void kv_emul_start(struct kv_chan *chan, struct kv_req *req)
{
    struct kv_emul *e = list_pop_entry(&chan->free_emuls, struct kv_emul, link);
    int rc;

    if (e == NULL) {
        req->emul = &chan->emuls[0]; /* only says that it is in line: the emul is not its own */
        list_add_tail(&chan->emul_waiting, &req->link);
        return;
    }
    e->req = req;
    rc = rt_task_start("kv emulation", emul_task, e, NULL, &e->task);
    if (rc < 0) {
        e->req = NULL;
        req->emul = NULL;
        list_add_head(&chan->free_emuls, &e->link);
        kv_finish(req, rc);
        return;
    }
    req->emul = e;
}

void kv_emul_cancel(struct kv_req *req)
{
    struct kv_emul *e = req->emul;

    if (e->req == req) {
        rt_task_cancel(e->task);
        return;
    }
    list_del(&req->link);
    req->emul = NULL;
    kv_finish(req, -ECANCELED);
}
