/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of a request: checked, given to the driver, counted, completed. A plain request (within
 * every limit of the driver) takes the first lines of blk_submit and of blk_complete only.
 */
#include "blk/internal.h"

#include "rt/trace.h"

static const char *const op_names[BLK_OPS] = {
    [BLK_READ] = "read",
    [BLK_WRITE] = "write",
    [BLK_FLUSH] = "flush",
    [BLK_WRITE_ZEROES] = "write_zeroes",
    [BLK_UNMAP] = "unmap",
    [BLK_COMPARE] = "compare",
    [BLK_COMPARE_AND_WRITE] = "compare_and_write",
};

const char *blk_op_name(enum blk_op op)
{
    must(op < BLK_OPS);
    return op_names[op];
}

void *blk_driver_chan(const struct blk_chan *chan)
{
    return chan->driver_part;
}

struct blk_dev *blk_chan_dev(const struct blk_chan *chan)
{
    return chan->dev;
}

static void cancel_at_driver(struct rt_req *req)
{
    struct blk_req *breq = container_of(req, struct blk_req, req);

    breq->chan->drv->cancel(breq->chan, breq);
}

void blk_chan_tune(struct blk_chan *chan)
{
    const struct blk_info *info = &chan->dev->info;
    uint32_t direct = 1u << BLK_READ;

    chan->cancel = chan->drv->cancel != NULL ? cancel_at_driver : NULL;
    chan->max_io_bytes = info->max_io_bytes != 0
                             ? info->max_io_bytes / info->block_bytes * info->block_bytes
                             : UINT64_MAX;
    chan->max_iovcnt = info->max_iovcnt != 0 ? info->max_iovcnt : UINT32_MAX;
    chan->align_mask = info->buf_align > 1 ? info->buf_align - 1 : 0;
    chan->block_shift = chan->dev->block_shift;
    if (!(info->caps & BLK_CAP_READ_ONLY))
        direct |= 1u << BLK_WRITE;
    /* A device without a volatile cache has nothing to flush: FUA means nothing to it. */
    if ((info->caps & BLK_CAP_VOLATILE_CACHE) && !(info->caps & BLK_CAP_FUA))
        chan->slow_flags = BLK_F_FUA;
    chan->direct = chan->direct_unlocked = direct;
}

/* Whether the iovecs hold exactly `len` bytes and suit the driver. */
static inline bool iov_plain(const struct blk_chan *chan, const struct blk_req *req, uint64_t len)
{
    uintptr_t misfit = 0;
    uint64_t sum = 0;

    for (unsigned i = 0; i < req->iovcnt; i++) {
        sum += req->iov[i].iov_len;
        misfit |= (uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len;
    }
    return sum == len && (misfit & chan->align_mask) == 0 && req->iovcnt <= chan->max_iovcnt;
}

static inline bool is_plain(const struct blk_chan *chan, const struct blk_req *req)
{
    uint64_t limit = __atomic_load_n(&chan->dev->limit, __ATOMIC_RELAXED);
    uint64_t len = (uint64_t)req->nblocks << chan->block_shift;

    return (chan->direct >> req->op & 1) && !(req->flags & chan->slow_flags) &&
           (uint64_t)req->nblocks - 1 < limit && req->lba <= limit - req->nblocks &&
           len <= chan->max_io_bytes && iov_plain(chan, req, len);
}

static inline void give_to_driver(struct blk_chan *chan, struct blk_req *req)
{
    req->epoch = chan->epoch;
    chan->in_flight[req->epoch]++;
    req->req.cancel = chan->cancel;
    chan->drv->submit(chan, req);
}

/* 0, or why the request cannot be. */
static int check(const struct blk_chan *chan, const struct blk_req *req)
{
    uint64_t limit = __atomic_load_n(&chan->dev->limit, __ATOMIC_RELAXED);
    uint64_t len = (uint64_t)req->nblocks << chan->block_shift;

    if (blk_dev_gone(chan->dev))
        return -ENODEV;
    if (req->op == BLK_FLUSH)
        return 0;
    if (req->nblocks == 0)
        return -EINVAL;
    if (req->nblocks > limit || req->lba > limit - req->nblocks)
        return -ERANGE;
    if (blk_op_writes(req->op) && (chan->dev->info.caps & BLK_CAP_READ_ONLY))
        return -EROFS;
    if (req->op == BLK_COMPARE_AND_WRITE)
        len *= 2;
    if (req->op != BLK_WRITE_ZEROES && req->op != BLK_UNMAP &&
        iov_len(req->iov, req->iovcnt) != len)
        return -EINVAL;
    return 0;
}

/* Whether the driver takes a checked request as it is. */
static bool driver_takes(const struct blk_chan *chan, const struct blk_req *req)
{
    const struct blk_info *info = &chan->dev->info;
    uint64_t len = (uint64_t)req->nblocks << chan->block_shift;

    if (blk_op_writes(req->op) && (req->flags & chan->slow_flags))
        return false;
    switch (req->op) {
    case BLK_WRITE_ZEROES:
        return (info->caps & BLK_CAP_WRITE_ZEROES) &&
               (info->max_zero_bytes == 0 || len <= info->max_zero_bytes);
    case BLK_UNMAP:
        return info->max_zero_bytes == 0 || len <= info->max_zero_bytes;
    case BLK_COMPARE:
        if (!(info->caps & BLK_CAP_COMPARE))
            return false;
        break;
    case BLK_COMPARE_AND_WRITE:
        if (!(info->caps & BLK_CAP_COMPARE_AND_WRITE))
            return false;
        len *= 2;
        break;
    case BLK_FLUSH:
        return true;
    default:
        break;
    }
    return len <= chan->max_io_bytes && iov_plain(chan, req, len);
}

/*
 * All that is not plain: wrong, without effect, for the driver after a closer look, or slow. Kept
 * out of line, as it would make blk_submit save registers for nothing.
 */
static __attribute__((noinline)) void submit_other(struct blk_chan *chan, struct blk_req *req)
{
    const struct blk_info *info = &chan->dev->info;
    int rc = check(chan, req);
    bool nothing_to_do = (req->op == BLK_FLUSH && (info->caps & BLK_CAP_NO_FLUSH)) ||
                         (req->op == BLK_UNMAP && !(info->caps & BLK_CAP_UNMAP));

    if (rc < 0 || nothing_to_do)
        blk_finish(req, rc);
    else if (driver_takes(chan, req))
        blk_issue(chan, req);
    else
        blk_slow_submit(chan, req);
}

void blk_submit(struct blk_chan *chan, struct blk_req *req)
{
    must(req->op < BLK_OPS);
    rt_req_begin(&req->req);
    req->chan = chan;
    req->parent = NULL;
    req->holds_lock = false;
    req->start_ns = rt_now();
    rt_trace("blk submit", req->req.trace_id, req->op, req->lba);
    if (LIKELY(is_plain(chan, req)))
        give_to_driver(chan, req);
    else
        submit_other(chan, req);
}

static void cancel_parked(struct rt_req *req)
{
    struct blk_req *breq = container_of(req, struct blk_req, req);

    list_del(&breq->link);
    if (breq->parent != NULL)
        rt_req_complete(req, -ECANCELED);
    else
        blk_finish(breq, -ECANCELED);
}

void blk_issue(struct blk_chan *chan, struct blk_req *req)
{
    const struct blk_range *lock = &chan->slot->lock;

    if (UNLIKELY(lock->nblocks != 0) && blk_op_writes(req->op) && !req->holds_lock &&
        req->lba < lock->lba + lock->nblocks && lock->lba < req->lba + req->nblocks) {
        req->req.cancel = cancel_parked;
        list_add_tail(&chan->parked, &req->link);
        return;
    }
    if (UNLIKELY(blk_dev_gone(chan->dev))) {
        if (req->parent != NULL)
            rt_req_complete(&req->req, -ENODEV);
        else
            blk_finish(req, -ENODEV);
        return;
    }
    give_to_driver(chan, req);
}

static inline void finish(struct blk_req *req, int rc)
{
    struct blk_chan *chan = req->chan;
    struct blk_op_stats *s = &chan->stats.op[req->op];

    s->ops++;
    if (LIKELY(rc == 0))
        s->bytes += req->op == BLK_FLUSH ? 0 : (uint64_t)req->nblocks << chan->block_shift;
    else
        s->errors++;
    hist_add(&s->latency_ns, rt_now() - req->start_ns);
    rt_trace("blk done", req->req.trace_id, req->op, (uint64_t)-rc);
    rt_req_complete(&req->req, rc);
}

void blk_finish(struct blk_req *req, int rc)
{
    finish(req, rc);
}

/* A piece, or a request that goes on. */
static __attribute__((noinline)) void complete_other(struct blk_req *req, int rc)
{
    if (req->parent != NULL)
        rt_req_complete(&req->req, rc);
    else if (rc == -ENOTSUP && req->op == BLK_WRITE_ZEROES)
        blk_slow_submit(req->chan, req);
    else
        finish(req, rc);
}

void blk_complete(struct blk_req *req, int rc)
{
    struct blk_chan *chan = req->chan;

    must(rc <= 0);
    must(chan->in_flight[req->epoch] > 0);
    chan->in_flight[req->epoch]--;
    if (UNLIKELY(chan->draining) && chan->in_flight[!chan->epoch] == 0)
        blk_drained(chan);
    if (LIKELY(req->parent == NULL) && LIKELY(rc == 0))
        finish(req, 0);
    else
        complete_other(req, rc);
}
