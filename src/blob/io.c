/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing. A request whose clusters lie side by side on the device is one request of
 * the device, which it carries in itself; everything else goes to a worker (slow.c).
 */
#include "blob/slow.h"

#include "base/bytes.h"

struct blob_place blob_locate(const struct blob *b, uint64_t idx)
{
    for (unsigned depth = 0; depth <= BLOB_DEPTH_MAX; depth++) {
        const struct blob_map *m = __atomic_load_n(&b->map, __ATOMIC_ACQUIRE);
        const struct blob *parent;
        uint32_t cluster;

        if (idx >= m->nclusters)
            break;
        cluster = blob_map_get(m, idx);
        if (cluster != 0)
            return (struct blob_place){.where = BLOB_AT_DEVICE, .cluster = cluster};
        /* The parent first: it counts as long as it is there, see blob_stand(). */
        parent = __atomic_load_n(&b->parent, __ATOMIC_ACQUIRE);
        if (parent == NULL && __atomic_load_n(&b->on_esnap, __ATOMIC_ACQUIRE))
            return (struct blob_place){.where = BLOB_AT_ESNAP,
                                       .esnap = __atomic_load_n(&b->esnap, __ATOMIC_ACQUIRE)};
        if (parent == NULL)
            break;
        b = parent;
    }
    return (struct blob_place){.where = BLOB_AT_NONE};
}

/* --- one request of the device ---------------------------------------------------------------- */

static void direct_done(struct rt_req *rreq)
{
    struct blob_req *req = container_of(rreq, struct blob_req, blk.req);

    blob_io_end(req->chan, req->epoch);
    req->req.cancel = NULL;
    rt_req_complete(&req->req, rreq->rc);
}

static void direct_cancel(struct rt_req *rreq)
{
    rt_req_cancel(&container_of(rreq, struct blob_req, req)->blk.req);
}

static void direct(struct blob_chan *chan, struct blob_req *req, uint8_t op, uint64_t lba)
{
    struct blk_req *blk = &req->blk;

    rt_req_init(&blk->req, direct_done);
    blk->req.trace_id = req->req.trace_id;
    blk->op = op;
    blk->flags = req->flags & BLOB_F_FUA ? BLK_F_FUA : 0;
    blk->lba = lba;
    blk->nblocks = (uint32_t)(req->len_bytes >> chan->block_shift);
    blk->iov = req->iov;
    blk->iovcnt = op == BLK_READ || op == BLK_WRITE ? req->iovcnt : 0;
    req->req.cancel = direct_cancel;
    req->epoch = blob_io_begin(chan);
    blk_submit(chan->blk, blk);
}

/* --- which way -------------------------------------------------------------------------------- */

static int check(const struct blob_chan *chan, const struct blob_req *req)
{
    const struct blob_map *m = __atomic_load_n(&req->blob->map, __ATOMIC_ACQUIRE);
    uint64_t size = m->nclusters * chan->bs->super.cluster_bytes;

    if (req->op > BLOB_FLUSH)
        return -EINVAL;
    if (req->op == BLOB_FLUSH)
        return 0;
    if (((req->off_bytes | req->len_bytes) & (chan->bs->block_bytes - 1)) || req->len_bytes == 0)
        return -EINVAL;
    if (req->off_bytes > size || req->len_bytes > size - req->off_bytes)
        return -ERANGE;
    if (req->op != BLOB_READ &&
        (chan->bs->read_only || __atomic_load_n(&req->blob->read_only, __ATOMIC_RELAXED)))
        return -EROFS;
    if (req->op <= BLOB_WRITE && iov_len(req->iov, req->iovcnt) != req->len_bytes)
        return -EINVAL;
    return 0;
}

/* The cluster an operation goes to: writes go to the blob's own only, and not while it is held. */
static struct blob_place place_of(const struct blob_req *req, uint64_t idx)
{
    const struct blob *b = req->blob;
    struct blob_place place = {.where = BLOB_AT_DEVICE};
    const struct blob_map *m;

    if (req->op == BLOB_READ)
        return blob_locate(b, idx);
    m = __atomic_load_n(&b->map, __ATOMIC_ACQUIRE);
    if (idx < m->nclusters && !__atomic_load_n(&b->frozen, __ATOMIC_ACQUIRE))
        place.cluster = blob_map_get(m, idx);
    if (place.cluster == 0)
        place.where = BLOB_AT_NONE;
    return place;
}

/* Whole clusters of a thin blob are given back rather than cleared. */
static bool gives_back(const struct blob_chan *chan, const struct blob_req *req)
{
    return req->op == BLOB_UNMAP && req->len_bytes >= chan->bs->super.cluster_bytes;
}

static const uint8_t blk_op_of[] = {
    [BLOB_READ] = BLK_READ,
    [BLOB_WRITE] = BLK_WRITE,
    [BLOB_WRITE_ZEROES] = BLK_WRITE_ZEROES,
    [BLOB_UNMAP] = BLK_UNMAP,
};

void blob_submit(struct blob_chan *chan, struct blob_req *req)
{
    uint32_t cluster_bytes = chan->bs->super.cluster_bytes;
    struct blob_place place;
    uint64_t first, last;
    int rc;

    rt_req_begin(&req->req);
    req->chan = chan;
    rc = check(chan, req);
    if (UNLIKELY(rc < 0)) {
        rt_req_complete(&req->req, rc);
        return;
    }
    if (req->op == BLOB_FLUSH) {
        blob_flush_submit(chan, req);
        return;
    }
    first = req->off_bytes / cluster_bytes;
    last = (req->off_bytes + req->len_bytes - 1) / cluster_bytes;
    place = place_of(req, first);
    for (uint64_t i = first + 1; i <= last && place.where == BLOB_AT_DEVICE; i++) {
        struct blob_place next = place_of(req, i);

        if (next.where != BLOB_AT_DEVICE || next.cluster != place.cluster + (i - first))
            place.where = BLOB_AT_ESNAP; /* anything but side by side */
    }
    if (LIKELY(place.where == BLOB_AT_DEVICE) && !gives_back(chan, req) &&
        req->len_bytes >> chan->block_shift <= UINT32_MAX) {
        uint64_t at = (uint64_t)place.cluster * cluster_bytes + req->off_bytes % cluster_bytes;

        direct(chan, req, blk_op_of[req->op], at >> chan->block_shift);
        return;
    }
    if (place.where == BLOB_AT_NONE && req->op == BLOB_READ && first == last) {
        iov_fill(req->iov, req->iovcnt, 0, 0, req->len_bytes);
        rt_req_complete(&req->req, 0);
        return;
    }
    blob_slow_submit(chan, req);
}

/* --- for tasks -------------------------------------------------------------------------------- */

static int run(struct rt_task *t, struct blob_chan *chan, struct blob_req *req, struct blob *b,
               uint8_t op, unsigned flags)
{
    rt_req_init_task(&req->req, t);
    req->op = op;
    req->flags = (uint8_t)flags;
    req->blob = b;
    req->job = NULL;
    req->link = (struct list){0};
    blob_submit(chan, req);
    return rt_wait(t, &req->req);
}

static int move(struct rt_task *t, struct blob_chan *chan, struct blob *b, struct iovec iov,
                uint64_t off, uint8_t op, unsigned flags)
{
    struct blob_req req;

    req.iov = &iov;
    req.iovcnt = 1;
    req.off_bytes = off;
    req.len_bytes = iov.iov_len;
    return run(t, chan, &req, b, op, flags);
}

int blob_read(struct rt_task *t, struct blob_chan *chan, struct blob *b, void *buf, uint64_t off,
              uint64_t len)
{
    return move(t, chan, b, (struct iovec){buf, len}, off, BLOB_READ, 0);
}

int blob_write(struct rt_task *t, struct blob_chan *chan, struct blob *b, const void *buf,
               uint64_t off, uint64_t len, unsigned flags)
{
    return move(t, chan, b, (struct iovec){(void *)(uintptr_t)buf, len}, off, BLOB_WRITE, flags);
}

int blob_flush(struct rt_task *t, struct blob_chan *chan, struct blob *b)
{
    return move(t, chan, b, (struct iovec){NULL, 0}, 0, BLOB_FLUSH, 0);
}
