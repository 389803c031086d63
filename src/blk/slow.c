/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of more than one hop: too large for the driver, in memory that does not suit it, or
 * something it cannot do. A channel has a few workers; each is a task that takes one request after
 * the other from the line and carries it out in pieces. What a worker needs it has, pieces and a
 * buffer of its own: it never waits for memory, which those who wait for it may be holding.
 */
#include "blk/internal.h"

const uint8_t blk_zeroes[BLK_ZEROES_BYTES] __attribute__((aligned(4096)));

/* Where a walk through iovecs stands. */
struct cursor {
    const struct iovec *iov;
    unsigned left; /* entries, iov included */
    size_t off;    /* into *iov */
};

static uint64_t req_bytes(const struct blk_req *req)
{
    return (uint64_t)req->nblocks << req->chan->block_shift;
}

/* Waits for a piece; a piece ends in any case, so nothing ends the wait before. */
static int piece_wait(struct rt_task *t, struct blk_piece *p)
{
    return rt_wait(t, &p->req.req);
}

static void piece_start(struct rt_task *t, struct blk_worker *w, struct blk_piece *p, uint8_t op,
                        uint8_t flags, uint64_t lba, uint32_t nblocks)
{
    rt_req_init_task(&p->req.req, t);
    p->req.req.trace_id = w->now->req.trace_id;
    p->req.op = op;
    p->req.flags = flags & (uint8_t)~w->chan->slow_flags;
    p->req.lba = lba;
    p->req.nblocks = nblocks;
    p->req.iov = p->iov;
    p->req.chan = w->chan;
    p->req.parent = w->now;
    p->req.holds_lock = w->now->op == BLK_COMPARE_AND_WRITE;
    rt_req_begin(&p->req.req);
    if (w->cancelled)
        rt_req_complete(&p->req.req, -ECANCELED);
    else
        blk_issue(w->chan, &p->req);
}

/* One piece from contiguous memory that suits the driver, and its end. */
static int piece_run(struct rt_task *t, struct blk_worker *w, uint8_t op, uint8_t flags,
                     uint64_t lba, uint32_t nblocks, void *data)
{
    struct blk_piece *p = &w->piece[0];

    p->iov[0] =
        (struct iovec){.iov_base = data, .iov_len = (size_t)nblocks << w->chan->block_shift};
    p->req.iovcnt = data != NULL;
    piece_start(t, w, p, op, flags, lba, nblocks);
    return piece_wait(t, p);
}

/* A request that its driver did not make durable on the way is made so by a flush after it. */
static int flush_if_fua(struct rt_task *t, struct blk_worker *w, const struct blk_req *req)
{
    if (!(req->flags & w->chan->slow_flags & BLK_F_FUA))
        return 0;
    return piece_run(t, w, BLK_FLUSH, 0, 0, 0, NULL);
}

/* How many blocks go through a worker's buffer at a time. */
static uint32_t buf_blocks(const struct blk_chan *chan)
{
    return (uint32_t)(MIN((uint64_t)BLK_BUF_BYTES, chan->max_io_bytes) >> chan->block_shift);
}

/* Moves blocks [from, nblocks) of a READ or WRITE through the worker's buffer. */
static int move_by_copy(struct rt_task *t, struct blk_worker *w, struct blk_req *req, uint32_t from)
{
    unsigned shift = w->chan->block_shift;

    for (uint32_t n; from < req->nblocks; from += n) {
        size_t off = (size_t)from << shift;
        size_t len;
        int rc;

        n = MIN(req->nblocks - from, buf_blocks(w->chan));
        len = (size_t)n << shift;
        if (req->op == BLK_WRITE)
            iov_copy_out(req->iov, req->iovcnt, off, w->buf, len);
        rc = piece_run(t, w, req->op, req->flags, req->lba + from, n, w->buf);
        if (rc < 0)
            return rc;
        if (req->op == BLK_READ)
            iov_copy_in(req->iov, req->iovcnt, off, w->buf, len);
    }
    return 0;
}

/*
 * Describes the next bytes in p->iov: whole blocks, within the driver's limits, all of it in
 * memory that suits. Returns the number of blocks; 0 when only a copy can do it.
 */
static uint32_t piece_cut(struct blk_worker *w, struct blk_piece *p, struct cursor *c)
{
    const struct blk_chan *chan = w->chan;
    unsigned max = MIN((uint32_t)BLK_PIECE_IOVS, chan->max_iovcnt);
    struct cursor at = *c;
    uint64_t len = 0, whole;

    for (p->req.iovcnt = 0; at.left > 0 && p->req.iovcnt < max && len < chan->max_io_bytes;) {
        size_t n = MIN(at.iov->iov_len - at.off, chan->max_io_bytes - len);
        uint8_t *base = (uint8_t *)at.iov->iov_base + at.off;

        if (((uintptr_t)base | n) & chan->align_mask)
            break;
        if (n > 0)
            p->iov[p->req.iovcnt++] = (struct iovec){.iov_base = base, .iov_len = n};
        len += n;
        at.off += n;
        if (at.off == at.iov->iov_len)
            at = (struct cursor){.iov = at.iov + 1, .left = at.left - 1};
    }
    whole = len >> chan->block_shift << chan->block_shift;
    /* Give back what is more than whole blocks. */
    for (uint64_t over = len - whole; over > 0;) {
        struct iovec *last = &p->iov[p->req.iovcnt - 1];
        size_t n = MIN(last->iov_len, over);

        last->iov_len -= n;
        over -= n;
        if (last->iov_len == 0)
            p->req.iovcnt--;
    }
    for (uint64_t n = whole; n > 0;) {
        size_t step = MIN(c->iov->iov_len - c->off, n);

        c->off += step;
        n -= step;
        if (c->off == c->iov->iov_len)
            *c = (struct cursor){.iov = c->iov + 1, .left = c->left - 1};
    }
    return (uint32_t)(whole >> chan->block_shift);
}

/* Moves the data of a READ or WRITE by pieces, several at a time. */
static int move(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    struct cursor at = {.iov = req->iov, .left = req->iovcnt};
    unsigned started = 0, ended = 0;
    uint32_t done = 0;
    bool copy = false;
    int rc = 0, ended_rc;

    for (;;) {
        while (rc == 0 && !copy && done < req->nblocks && started - ended < BLK_PIECES) {
            struct blk_piece *p = &w->piece[started % BLK_PIECES];
            uint32_t n = piece_cut(w, p, &at);

            copy = n == 0;
            if (copy)
                break;
            piece_start(t, w, p, req->op, req->flags, req->lba + done, n);
            started++;
            done += n;
        }
        if (started == ended)
            break;
        ended_rc = piece_wait(t, &w->piece[ended++ % BLK_PIECES]);
        if (rc == 0)
            rc = ended_rc;
    }
    if (rc == 0 && done < req->nblocks)
        rc = move_by_copy(t, w, req, done);
    return rc;
}

/* Zeroes or unmaps by the driver, in pieces of what it takes at a time. */
static int zero_by_driver(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    uint64_t max_bytes = w->chan->dev->info.max_zero_bytes;
    uint64_t max = max_bytes != 0 ? max_bytes >> w->chan->block_shift : UINT32_MAX;
    int rc = 0;

    for (uint32_t done = 0, n; done < req->nblocks && rc == 0; done += n) {
        n = (uint32_t)MIN(req->nblocks - done, max);
        rc = piece_run(t, w, req->op, req->flags, req->lba + done, n, NULL);
    }
    return rc;
}

/* Zeroes by writing zeroes, over and over the same memory. */
static int zero_by_write(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    unsigned shift = w->chan->block_shift;
    unsigned max_iov = MIN((uint32_t)BLK_PIECE_IOVS, w->chan->max_iovcnt);
    uint64_t max = MIN((uint64_t)max_iov * BLK_ZEROES_BYTES, w->chan->max_io_bytes) >> shift;
    struct blk_piece *p = &w->piece[0];
    int rc = 0;

    for (uint32_t done = 0, n; done < req->nblocks && rc == 0; done += n) {
        uint64_t len;

        n = (uint32_t)MIN(req->nblocks - done, max);
        len = (uint64_t)n << shift;
        for (p->req.iovcnt = 0; len > 0; len -= p->iov[p->req.iovcnt++].iov_len) {
            p->iov[p->req.iovcnt] = (struct iovec){.iov_base = (void *)(uintptr_t)blk_zeroes,
                                                   .iov_len = MIN(len, BLK_ZEROES_BYTES)};
        }
        piece_start(t, w, p, BLK_WRITE, req->flags, req->lba + done, n);
        rc = piece_wait(t, p);
    }
    return rc;
}

static int zero(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    int rc = -ENOTSUP;

    if (w->chan->dev->info.caps & BLK_CAP_WRITE_ZEROES)
        rc = zero_by_driver(t, w, req);
    if (rc == -ENOTSUP)
        rc = zero_by_write(t, w, req);
    return rc;
}

/* Whether the iovecs hold from `off` on what `data` holds. */
static bool iov_equal(const struct blk_req *req, size_t off, const uint8_t *data, size_t len)
{
    for (unsigned i = 0; i < req->iovcnt && len > 0; i++) {
        const struct iovec *v = &req->iov[i];
        size_t n;

        if (off >= v->iov_len) {
            off -= v->iov_len;
            continue;
        }
        n = MIN(v->iov_len - off, len);
        if (memcmp((const uint8_t *)v->iov_base + off, data, n) != 0)
            return false;
        data += n;
        len -= n;
        off = 0;
    }
    return len == 0;
}

/* Reads the blocks piece by piece and compares them with the iovecs' beginning. */
static int compare(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    unsigned shift = w->chan->block_shift;

    for (uint32_t done = 0, n; done < req->nblocks; done += n) {
        int rc;

        n = MIN(req->nblocks - done, buf_blocks(w->chan));
        rc = piece_run(t, w, BLK_READ, 0, req->lba + done, n, w->buf);
        if (rc < 0)
            return rc;
        if (!iov_equal(req, (size_t)done << shift, w->buf, (size_t)n << shift))
            return -EILSEQ;
    }
    return 0;
}

/* Writes the second half of the iovecs. */
static int write_half(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    unsigned shift = w->chan->block_shift;
    int rc = 0;

    for (uint32_t done = 0, n; done < req->nblocks && rc == 0; done += n) {
        n = MIN(req->nblocks - done, buf_blocks(w->chan));
        iov_copy_out(req->iov, req->iovcnt, req_bytes(req) + ((size_t)done << shift), w->buf,
                     (size_t)n << shift);
        rc = piece_run(t, w, BLK_WRITE, req->flags, req->lba + done, n, w->buf);
    }
    return rc;
}

static int compare_and_write(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    struct blk_range range = {.lba = req->lba, .nblocks = req->nblocks};
    int rc;

    blk_lock(t, &w->turn, w->chan->dev, range);
    rc = compare(t, w, req);
    if (rc == 0 && w->cancelled)
        rc = -ECANCELED;
    if (rc == 0) {
        req->req.cancel = NULL; /* from here on it is carried out, or fails */
        rc = write_half(t, w, req);
    }
    blk_unlock(t, &w->turn);
    return rc;
}

static int run(struct rt_task *t, struct blk_worker *w, struct blk_req *req)
{
    int rc = -ENOTSUP;

    switch (req->op) {
    case BLK_READ:
    case BLK_WRITE:
        rc = move(t, w, req);
        break;
    case BLK_WRITE_ZEROES:
        rc = zero(t, w, req);
        break;
    case BLK_UNMAP:
        rc = zero_by_driver(t, w, req);
        break;
    case BLK_COMPARE:
        return compare(t, w, req);
    case BLK_COMPARE_AND_WRITE:
        rc = compare_and_write(t, w, req);
        break;
    default:
        must(!"an operation of one hop");
    }
    if (rc == 0 && blk_op_writes(req->op))
        rc = flush_if_fua(t, w, req);
    return rc;
}

static int worker_main(struct rt_task *t, void *arg)
{
    struct blk_worker *w = arg;
    struct blk_chan *chan = w->chan;

    for (;;) {
        struct blk_req *req = list_pop_entry(&chan->slow, struct blk_req, link);

        if (req == NULL)
            break;
        w->now = req;
        w->cancelled = false;
        req->worker = w;
        rt_task_set_trace(t, req->req.trace_id);
        blk_finish(req, run(t, w, req));
        w->now = NULL;
    }
    rt_pool_put(&chan->workers, w);
    if (chan->workers.free == chan->workers.total)
        rt_cond_wake_all(&chan->workers_gone);
    return 0;
}

static void cancel_slow(struct rt_req *req)
{
    struct blk_req *breq = container_of(req, struct blk_req, req);
    struct blk_worker *w = breq->worker;

    if (w == NULL) {
        list_del(&breq->link);
        blk_finish(breq, -ECANCELED);
        return;
    }
    w->cancelled = true;
    for (unsigned i = 0; i < BLK_PIECES; i++)
        rt_req_cancel(&w->piece[i].req.req);
}

void blk_slow_submit(struct blk_chan *chan, struct blk_req *req)
{
    struct blk_worker *w;
    size_t idx;

    req->worker = NULL;
    req->req.cancel = cancel_slow;
    list_add_tail(&chan->slow, &req->link);
    w = rt_pool_get(&chan->workers);
    if (w == NULL)
        return;
    w->chan = chan;
    idx = (size_t)((uint8_t *)w - chan->workers.memory) / chan->workers.obj_bytes;
    w->buf = chan->worker_bufs + idx * BLK_BUF_BYTES;
    if (rt_task_start("blk request", worker_main, w, NULL, NULL) == 0)
        return;
    rt_pool_put(&chan->workers, w);
    if (chan->workers.free < chan->workers.total)
        return; /* the workers there are will come to it */
    list_del(&req->link);
    blk_finish(req, -ENOMEM);
}
