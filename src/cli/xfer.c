/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/xfer.h"

struct xfer *xfer_new(size_t piece_bytes)
{
    struct xfer *x = calloc(1, sizeof(*x));

    if (x == NULL)
        return NULL;
    x->piece_bytes = piece_bytes;
    x->mem = aligned_alloc(4096, piece_bytes * XFER_PIECES);
    if (x->mem == NULL) {
        free(x);
        return NULL;
    }
    for (unsigned i = 0; i < XFER_PIECES; i++)
        x->piece[i].buf = x->mem + i * piece_bytes;
    return x;
}

void xfer_free(struct xfer *x)
{
    if (x == NULL)
        return;
    for (unsigned i = 0; i < XFER_PIECES; i++)
        must(!x->piece[i].busy);
    free(x->mem);
    free(x);
}

void xfer_free_p(struct xfer **px)
{
    xfer_free(*px);
}

static int source_failed(struct xfer_source *src, int rc, struct err *why)
{
    return err_set(why, rc, "reading %s: %s", src->name, err_str(rc));
}

static int device_failed(int rc, struct err *why)
{
    return err_set(why, rc, "%s", err_str(rc));
}

/* Waits for a piece that is under way; its result, or 0 when it is not. */
static int piece_wait(struct rt_task *t, struct xfer_piece *p)
{
    int rc;

    if (!p->busy)
        return 0;
    rc = rt_wait(t, &p->req.req);
    p->busy = false;
    return rc;
}

/* Until nothing is in flight, whatever comes of it. */
static void pieces_drain(struct rt_task *t, struct xfer *x)
{
    for (unsigned i = 0; i < XFER_PIECES; i++)
        piece_wait(t, &x->piece[i]);
}

static void piece_submit(struct rt_task *t, struct xfer_piece *p, struct kv_chan *chan,
                         const struct kv_req *tmpl, size_t len)
{
    p->req = *tmpl;
    rt_req_init_task(&p->req.req, t);
    p->iov = (struct iovec){.iov_base = p->buf, .iov_len = len};
    p->req.iov = &p->iov;
    p->req.iovcnt = 1;
    p->req.len = len;
    p->busy = true;
    kv_submit(chan, &p->req);
}

/* One request of a task, without data. */
static int simple(struct rt_task *t, struct kv_chan *chan, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(chan, req);
    return rt_wait(t, &req->req);
}

/* Refuses a source that goes on after the declared length. */
static int check_end(struct rt_task *t, struct xfer_source *src, uint64_t len, struct err *why)
{
    uint8_t more;
    ssize_t n = src->read(t, src, &more, 1);

    if (n < 0)
        return source_failed(src, (int)n, why);
    if (n > 0)
        return err_set(why, -EFBIG, "%s has become longer than the %lu bytes it had at the begin",
                       src->name, len);
    return 0;
}

static int too_short(struct xfer_source *src, uint64_t got, uint64_t len, struct err *why)
{
    return err_set(why, -EIO, "%s ended after %lu of %lu bytes", src->name, got, len);
}

/* A value that fits into one piece goes in one request. */
static int store_small(struct rt_task *t, struct xfer *x, struct kv_chan *chan,
                       struct xfer_store *st, struct xfer_source *src, struct err *why)
{
    struct kv_req tmpl = {
        .op = KV_STORE, .key = st->key, .flags = st->flags, .version = st->version};
    struct xfer_piece *p = &x->piece[0];
    ssize_t n = st->len == 0 ? 0 : src->read(t, src, p->buf, st->len);
    int rc;

    if (n < 0)
        return source_failed(src, (int)n, why);
    if ((uint64_t)n < st->len)
        return too_short(src, (uint64_t)n, st->len, why);
    rc = check_end(t, src, st->len, why);
    if (rc < 0)
        return rc;
    piece_submit(t, p, chan, &tmpl, (size_t)n);
    rc = piece_wait(t, p);
    if (rc < 0)
        return device_failed(rc, why);
    st->moved = (uint64_t)n;
    st->version = p->req.version;
    return 0;
}

/*
 * Fills and sends piece after piece. A stream takes one write at a time; the next piece is filled
 * meanwhile.
 */
static int store_pieces(struct rt_task *t, struct xfer *x, struct kv_chan *chan,
                        struct kv_stream *stream, struct xfer_store *st, struct xfer_source *src,
                        struct err *why)
{
    struct kv_req tmpl = {.op = KV_WRITE, .stream = stream};
    struct xfer_piece *p, *before = &x->piece[1];
    bool ended = false;
    int rc;

    for (unsigned i = 0; !ended && st->moved < st->len; i = !i) {
        size_t want = MIN(x->piece_bytes, st->len - st->moved);
        ssize_t n;

        p = &x->piece[i];
        n = src->read(t, src, p->buf, want);
        rc = piece_wait(t, before);
        if (n < 0)
            return source_failed(src, (int)n, why);
        if (rc < 0)
            return device_failed(rc, why);
        ended = (size_t)n < want;
        if (n == 0)
            break;
        piece_submit(t, p, chan, &tmpl, (size_t)n);
        st->moved += (uint64_t)n;
        before = p;
    }
    rc = piece_wait(t, before);
    if (rc < 0)
        return device_failed(rc, why);
    if (st->len == KV_LEN_UNKNOWN)
        return 0;
    return st->moved < st->len ? too_short(src, st->moved, st->len, why)
                               : check_end(t, src, st->len, why);
}

int xfer_store(struct rt_task *t, struct xfer *x, struct kv_chan *chan, struct xfer_store *st,
               struct xfer_source *src, struct err *why)
{
    struct kv_req req = {.op = KV_STORE_OPEN,
                         .key = st->key,
                         .len = st->len,
                         .flags = st->flags,
                         .version = st->version};
    int rc;

    st->moved = 0;
    if (st->len <= x->piece_bytes)
        return store_small(t, x, chan, st, src, why);
    rc = simple(t, chan, &req);
    if (rc < 0)
        return device_failed(rc, why);
    rc = store_pieces(t, x, chan, req.stream, st, src, why);
    if (rc < 0) {
        rt_task_shield(t, true);
        pieces_drain(t, x);
        req = (struct kv_req){.op = KV_ABORT, .stream = req.stream};
        simple(t, chan, &req);
        rt_task_shield(t, false);
        return rc;
    }
    req = (struct kv_req){.op = KV_COMMIT, .stream = req.stream};
    rc = simple(t, chan, &req);
    if (rc < 0)
        return device_failed(rc, why);
    st->version = req.version;
    return 0;
}

/*
 * Reads ahead and hands the pieces to the sink in order. Where the device has no ranges, reads
 * follow each other, one at a time.
 */
static int retrieve_pieces(struct rt_task *t, struct xfer *x, struct kv_chan *chan,
                           struct kv_stream *stream, struct xfer_retrieve *re, uint64_t end,
                           struct xfer_sink *sink, struct err *why)
{
    bool range = (kv_info(kv_chan_dev(chan))->caps & KV_CAP_RANGE) != 0;
    uint64_t asked = re->off, off = re->off;
    unsigned head = 0, tail = 0, depth = range ? XFER_PIECES : 1;
    int rc;

    while (off < end) {
        struct xfer_piece *p;

        while (asked < end && head - tail < depth) {
            struct kv_req tmpl = {.op = KV_READ, .stream = stream, .off = asked};
            size_t len = MIN(x->piece_bytes, end - asked);

            piece_submit(t, &x->piece[head++ % XFER_PIECES], chan, &tmpl, len);
            asked += len;
        }
        p = &x->piece[tail++ % XFER_PIECES];
        rc = piece_wait(t, p);
        if (rc < 0)
            return device_failed(rc, why);
        if (p->req.moved != p->iov.iov_len)
            return err_set(why, -EBADMSG, "the value ended at byte %lu, its length is %lu",
                           off + p->req.moved, re->value_len);
        rc = sink->write(t, sink, p->buf, p->req.moved);
        if (rc < 0)
            return err_set(why, rc, "writing %s: %s", sink->name, err_str(rc));
        off += p->req.moved;
        re->moved += p->req.moved;
    }
    return 0;
}

static int past_end(const struct xfer_retrieve *re, struct err *why)
{
    return err_set(why, -ERANGE, "offset %lu is past the end of the value, which has %lu bytes",
                   re->off, re->value_len);
}

/* One request brings the begin of the value; true when that was all of it. */
static int retrieve_small(struct rt_task *t, struct xfer *x, struct kv_chan *chan,
                          struct xfer_retrieve *re, struct xfer_sink *sink, bool *out_whole,
                          struct err *why)
{
    struct kv_req tmpl = {.op = KV_RETRIEVE, .flags = re->flags, .key = re->key};
    struct xfer_piece *p = &x->piece[0];
    uint64_t end;
    int rc;

    piece_submit(t, p, chan, &tmpl, x->piece_bytes);
    rc = piece_wait(t, p);
    if (rc < 0)
        return device_failed(rc, why);
    re->value_len = p->req.value_len;
    re->version = p->req.version;
    *out_whole = re->value_len <= x->piece_bytes;
    if (!*out_whole)
        return 0;
    if (re->off > re->value_len)
        return past_end(re, why);
    end = re->off + MIN(re->len, re->value_len - re->off);
    re->moved = end - re->off;
    rc = sink->write(t, sink, p->buf + re->off, re->moved);
    if (rc < 0)
        return err_set(why, rc, "writing %s: %s", sink->name, err_str(rc));
    return 0;
}

int xfer_retrieve(struct rt_task *t, struct xfer *x, struct kv_chan *chan, struct xfer_retrieve *re,
                  struct xfer_sink *sink, struct err *why)
{
    struct kv_req req = {.op = KV_RETRIEVE_OPEN, .flags = re->flags, .key = re->key};
    bool whole = false;
    int rc;

    re->moved = 0;
    if (re->off < x->piece_bytes) {
        rc = retrieve_small(t, x, chan, re, sink, &whole, why);
        if (rc < 0 || whole)
            return rc;
    }
    rc = simple(t, chan, &req);
    if (rc < 0)
        return device_failed(rc, why);
    re->value_len = req.value_len;
    re->version = req.version;
    if (re->off > re->value_len)
        rc = past_end(re, why);
    else
        rc = retrieve_pieces(t, x, chan, req.stream, re,
                             re->off + MIN(re->len, re->value_len - re->off), sink, why);
    rt_task_shield(t, true);
    pieces_drain(t, x);
    req = (struct kv_req){.op = KV_READ_CLOSE, .stream = req.stream};
    simple(t, chan, &req);
    rt_task_shield(t, false);
    return rc;
}

static ssize_t value_read(struct rt_task *t, struct xfer_source *src, void *buf, size_t len)
{
    struct xfer_value *v = container_of(src, struct xfer_value, source);
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct kv_req req = {
        .op = KV_READ, .stream = v->stream, .off = v->off, .len = len, .iov = &iov, .iovcnt = 1};
    int rc;

    if (v->off >= v->value_len)
        return 0;
    rc = simple(t, v->chan, &req);
    if (rc < 0)
        return rc;
    v->off += req.moved;
    return (ssize_t)req.moved;
}

int xfer_value_open(struct rt_task *t, struct kv_chan *chan, struct bytes key,
                    struct xfer_value *out)
{
    struct kv_req req = {.op = KV_RETRIEVE_OPEN, .key = key};
    int rc = simple(t, chan, &req);

    if (rc < 0)
        return rc;
    *out = (struct xfer_value){.source = {.read = value_read, .name = "the value"},
                               .chan = chan,
                               .stream = req.stream,
                               .value_len = req.value_len,
                               .version = req.version};
    return 0;
}

void xfer_value_close(struct rt_task *t, struct xfer_value *v)
{
    struct kv_req req = {.op = KV_READ_CLOSE, .stream = v->stream};

    rt_task_shield(t, true);
    simple(t, v->chan, &req);
    rt_task_shield(t, false);
}
