/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of a request: checked, then straight to the driver when that is here and takes it as it
 * is; else by way of the stream table, a task of emul.c, or the home reactor. Coming back it is
 * counted and completed where it was submitted.
 */
#include "kv/internal.h"

#include "rt/trace.h"

/* What an operation needs. */
#define N_KEY (1u << 0)
#define N_WRITABLE (1u << 1)
#define N_IOV (1u << 2) /* iov holds len bytes */
#define N_LEN (1u << 3) /* len is the length of a value */
#define N_STREAM (1u << 4)
#define N_ENDS (1u << 5) /* gives something back: works on a removed device too */
#define N_ODD (1u << 6)  /* see check_odd() */

static const struct rule {
    uint8_t needs;
    uint8_t flags; /* that may be set */
    uint8_t caps;  /* that the driver has to have */
} rules[KV_OPS] = {
    [KV_STORE] = {.needs = N_KEY | N_WRITABLE | N_IOV | N_LEN,
                  .flags = KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION | KV_F_APPEND |
                           KV_F_NO_VERSION},
    [KV_RETRIEVE] = {.needs = N_KEY | N_IOV, .flags = KV_F_NO_VERSION},
    [KV_STAT] = {.needs = N_KEY, .flags = KV_F_NO_VERSION},
    [KV_DELETE] = {.needs = N_KEY | N_WRITABLE, .flags = KV_F_IF_VERSION},
    [KV_LIST] = {.needs = N_ODD, .flags = KV_F_AFTER},
    [KV_FLUSH] = {.needs = N_ODD},
    [KV_STORE_OPEN] = {.needs = N_KEY | N_WRITABLE | N_LEN | N_ODD,
                       .flags = KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION |
                                KV_F_APPEND | KV_F_NO_VERSION},
    [KV_WRITE] = {.needs = N_STREAM | N_IOV},
    [KV_COMMIT] = {.needs = N_STREAM | N_ENDS},
    [KV_ABORT] = {.needs = N_STREAM | N_ENDS},
    [KV_RETRIEVE_OPEN] = {.needs = N_KEY, .flags = KV_F_NO_VERSION},
    [KV_READ] = {.needs = N_STREAM | N_IOV},
    [KV_READ_CLOSE] = {.needs = N_STREAM | N_ENDS},
    [KV_BATCH] = {.needs = N_WRITABLE | N_ODD, .caps = KV_CAP_BATCH},
    [KV_SNAP_OPEN] = {.caps = KV_CAP_SNAPSHOT},
    [KV_SNAP_CLOSE] = {.needs = N_ENDS | N_ODD, .caps = KV_CAP_SNAPSHOT},
};

static int check_key(const struct kv_chan *chan, struct bytes key)
{
    if (key.len == 0)
        return -EINVAL;
    return key.len > chan->key_max ? -ENAMETOOLONG : 0;
}

static int check_flags(const struct kv_chan *chan, const struct kv_req *req)
{
    uint32_t f = req->flags;

    if ((f & ~rules[req->op].flags) != 0)
        return -EINVAL;
    if ((f & KV_F_MUST_NOT_EXIST) != 0 && (f & (KV_F_MUST_EXIST | KV_F_IF_VERSION)) != 0)
        return -EINVAL;
    if ((f & KV_F_IF_VERSION) != 0 && (chan->caps & KV_CAP_VERSION) == 0)
        return -ENOTSUP;
    if ((f & KV_F_APPEND) != 0 && (chan->caps & KV_CAP_APPEND) == 0)
        return -ENOTSUP;
    return 0;
}

static int check_batch(const struct kv_chan *chan, const struct kv_req *req)
{
    for (unsigned i = 0; i < req->nbatch; i++) {
        int rc = check_key(chan, req->batch[i].key);

        if (rc < 0)
            return rc;
        if (!req->batch[i].is_delete && req->batch[i].val.len > chan->val_max)
            return -EFBIG;
    }
    return 0;
}

/* What only one operation asks for. 1: there is nothing to do. */
static int check_odd(const struct kv_chan *chan, const struct kv_req *req)
{
    switch (req->op) {
    case KV_LIST:
        if (req->key.len > chan->key_max || req->prefix.len > chan->key_max)
            return -ENAMETOOLONG;
        return req->iovcnt == 1 ? 0 : -EINVAL;
    case KV_FLUSH:
        return (chan->caps & KV_CAP_VOLATILE_CACHE) != 0 ? 0 : 1;
    case KV_STORE_OPEN:
        return req->len == KV_LEN_UNKNOWN && (chan->caps & KV_CAP_UNKNOWN_LEN) == 0 ? -ENOTSUP : 0;
    case KV_BATCH:
        return req->nbatch == 0 ? 1 : check_batch(chan, req);
    case KV_SNAP_CLOSE:
        return req->snap != NULL ? 0 : -EINVAL;
    default:
        return 0;
    }
}

static bool takes_snap(uint8_t op)
{
    return op == KV_RETRIEVE || op == KV_STAT || op == KV_LIST || op == KV_RETRIEVE_OPEN ||
           op == KV_SNAP_CLOSE || op == KV_SNAP_OPEN;
}

/* 0: go on; 1: done, with success; or why not. */
static int check(const struct kv_chan *chan, const struct kv_req *req)
{
    const struct rule *r;

    if (UNLIKELY(req->op >= KV_OPS))
        return -EINVAL;
    r = &rules[req->op];
    if (UNLIKELY(atomic_load_explicit(&chan->dev->removed, memory_order_relaxed)) &&
        (r->needs & N_ENDS) == 0)
        return -ENODEV;
    if ((r->needs & N_KEY) != 0 && UNLIKELY(req->key.len - 1 >= chan->key_max))
        return check_key(chan, req->key);
    if (UNLIKELY(req->flags != 0)) {
        int rc = check_flags(chan, req);

        if (rc < 0)
            return rc;
    }
    if (UNLIKELY((r->caps & ~chan->caps) != 0))
        return -ENOTSUP;
    if ((r->needs & N_WRITABLE) != 0 && UNLIKELY((chan->caps & KV_CAP_READ_ONLY) != 0))
        return -EROFS;
    if ((r->needs & N_IOV) != 0 && req->len > 0 &&
        UNLIKELY(req->iovcnt == 0 ||
                 (req->iov[0].iov_len < req->len && iov_len(req->iov, req->iovcnt) < req->len)))
        return -EINVAL;
    if ((r->needs & N_LEN) != 0 && UNLIKELY(req->len > chan->val_max) && req->len != KV_LEN_UNKNOWN)
        return -EFBIG;
    if (UNLIKELY(req->snap != NULL) && takes_snap(req->op) && (chan->caps & KV_CAP_SNAPSHOT) == 0)
        return -ENOTSUP;
    if ((r->needs & N_STREAM) != 0 && req->stream == NULL)
        return -EINVAL;
    return (r->needs & N_ODD) != 0 ? check_odd(chan, req) : 0;
}

static void count(struct kv_chan *chan, const struct kv_req *req, int rc)
{
    struct kv_op_stats *st = &chan->stats.op[req->op];

    st->ops++;
    if (UNLIKELY(rc < 0))
        st->errors++;
    else
        st->bytes += req->op == KV_STORE || req->op == KV_WRITE ? req->len : req->moved;
    hist_add(&st->latency_ns, rt_now() - req->start_ns);
    rt_trace("kv done", req->req.trace_id, req->op, (uint64_t)-rc);
}

void kv_finish(struct kv_req *req, int rc)
{
    if (UNLIKELY(req->held != NULL))
        rc = kv_stream_end(req, rc);
    if (LIKELY(!req->inner))
        count(req->chan, req, rc);
    rt_req_complete(&req->req, rc);
}

/* --- to the home reactor and back ------------------------------------------------------------- */

static void fwd_return(struct rt_msg *msg)
{
    struct kv_req *req = container_of(msg, struct kv_req, msg);

    req->returned = true;
    if (req->cancel_sent)
        return; /* cancel_return() finishes: until then the home reactor may look at the request */
    req->origin = NULL;
    kv_finish(req, req->fwd_rc);
}

static void fwd_arrive(struct rt_msg *msg)
{
    struct kv_req *req = container_of(msg, struct kv_req, msg);
    struct kv_dev *dev = req->chan->dev;
    struct kv_chan *home = dev->home_chan;

    req->at_home = true;
    if (dev->driver->arrive != NULL)
        dev->driver->arrive(dev, req);
    else
        home->submit(home, req);
}

static void cancel_return(struct rt_msg *msg)
{
    struct kv_req *req = container_of(msg, struct kv_req, cancel_msg);

    req->cancel_sent = false;
    if (!req->returned)
        return;
    req->origin = NULL;
    kv_finish(req, req->fwd_rc);
}

static void cancel_arrive(struct rt_msg *msg)
{
    struct kv_req *req = container_of(msg, struct kv_req, cancel_msg);
    struct kv_dev *dev = req->chan->dev;

    msg->fn = cancel_return;
    if (req->at_home)
        dev->driver->cancel(dev->home_chan, req);
    rt_send(req->origin, msg);
}

void kv_complete(struct kv_req *req, int rc)
{
    if (LIKELY(req->origin == NULL)) {
        kv_finish(req, rc);
        return;
    }
    req->at_home = false;
    req->fwd_rc = rc;
    req->msg.fn = fwd_return;
    rt_send(req->origin, &req->msg);
}

static void carry_to(struct kv_req *req, struct rt_reactor *to)
{
    must(req->origin == NULL);
    req->origin = rt_self();
    req->there = to;
    req->at_home = false;
    req->returned = false;
    req->cancel_sent = false;
    req->msg.fn = fwd_arrive;
    rt_send(to, &req->msg);
}

void kv_to_home(struct kv_req *req)
{
    carry_to(req, req->chan->dev->home);
}

void kv_to_reactor(struct kv_req *req, struct rt_reactor *to)
{
    const struct kv_driver *driver = req->chan->dev->driver;

    must(driver->arrive != NULL && driver->cancel == NULL);
    carry_to(req, to);
}

void kv_begin_step(struct kv_chan *chan, struct kv_req *step)
{
    rt_req_begin(&step->req);
    step->req.cancel = kv_cancel;
    step->chan = chan;
    step->start_ns = rt_now();
    step->held = NULL;
    step->emul = NULL;
    step->origin = NULL;
    step->inner = true;
    step->moved = 0;
}

void kv_carry(struct kv_chan *chan, struct kv_req *req)
{
    if (chan->forward)
        kv_to_home(req);
    else
        chan->submit(chan, req);
}

void kv_cancel(struct rt_req *rreq)
{
    struct kv_req *req = container_of(rreq, struct kv_req, req);
    const struct kv_driver *driver = req->chan->dev->driver;

    if (req->emul != NULL) {
        kv_emul_cancel(req);
    } else if (driver->cancel == NULL) {
        return;
    } else if (req->origin == NULL) {
        driver->cancel(req->chan, req);
    } else if (!req->cancel_sent && !req->returned) {
        req->cancel_sent = true;
        req->cancel_msg.fn = cancel_arrive;
        rt_send(req->there, &req->cancel_msg);
    }
}

/* --- submit ----------------------------------------------------------------------------------- */

static void reject(struct kv_req *req, int rc)
{
    req->req.cancel = NULL;
    if (req->op >= KV_OPS)
        rt_req_complete(&req->req, rc);
    else
        kv_finish(req, MIN(rc, 0));
}

/* Everything that is not one plain call of the driver's submit. */
static void route(struct kv_chan *chan, struct kv_req *req)
{
    int rc = 0;

    if ((rules[req->op].needs & N_STREAM) != 0 || req->op == KV_STORE_OPEN ||
        req->op == KV_RETRIEVE_OPEN) {
        if (kv_stream_begin(chan, req, &rc) != 0) {
            reject(req, rc);
            return;
        }
    }
    if (kv_emul_needed(chan, req))
        kv_emul_start(chan, req);
    else
        kv_carry(chan, req);
}

/* A plain store or retrieve with nothing out of the ordinary: what check() would find good. */
static inline bool is_plain(const struct kv_chan *chan, const struct kv_req *req)
{
    return req->op < KV_OPS && (chan->fast_ops & 1u << req->op) != 0 &&
           req->key.len - 1 < chan->key_max && (req->flags & ~KV_F_NO_VERSION) == 0 &&
           req->snap == NULL && req->iovcnt == 1 && req->iov[0].iov_len >= req->len &&
           req->len <= chan->val_max &&
           !atomic_load_explicit(&chan->dev->removed, memory_order_relaxed);
}

void kv_submit(struct kv_chan *chan, struct kv_req *req)
{
    int rc;

    rt_req_begin(&req->req);
    req->req.cancel = kv_cancel;
    req->chan = chan;
    req->start_ns = rt_now();
    rt_trace("kv submit", req->req.trace_id, req->op, req->len);
    req->held = NULL;
    req->emul = NULL;
    req->origin = NULL;
    req->inner = false;
    req->moved = 0;
    if (LIKELY(is_plain(chan, req))) {
        chan->submit(chan, req);
        return;
    }
    rc = check(chan, req);
    if (UNLIKELY(rc != 0))
        reject(req, rc);
    else if (LIKELY((chan->plain_ops & 1u << req->op) != 0))
        chan->submit(chan, req);
    else
        route(chan, req);
}
