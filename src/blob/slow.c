/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of more than one hop: over clusters that do not lie side by side, through an external
 * snapshot, or the first write to a cluster. A channel has a few workers; each is a task that takes
 * one request after the other from the line and carries it out piece by piece, several at a time.
 */
#include "blob/slow.h"

#include "base/bytes.h"

/* A request on its way. */
struct walk {
    struct rt_task *t;
    struct blob_worker *w;
    struct blob_req *req;
    uint64_t done; /* bytes: begun, or ended */
    unsigned started, ended;
    int rc;
};

/* --- pieces ----------------------------------------------------------------------------------- */

/* Waits for the oldest piece. */
static void piece_end(struct walk *k)
{
    struct blob_piece *p = &k->w->piece[k->ended++ % BLOB_PIECES];
    int rc = rt_wait(k->t, &p->blk.req);

    blob_io_end(k->w->chan, p->epoch);
    if (k->rc == 0)
        k->rc = rc;
}

/* Before any other wait: who has the lock may be waiting for this I/O to be over. */
static void pieces_end(struct walk *k)
{
    while (k->ended < k->started)
        piece_end(k);
}

static struct blob_piece *piece_get(struct walk *k)
{
    if (k->started - k->ended == BLOB_PIECES)
        piece_end(k);
    return &k->w->piece[k->started % BLOB_PIECES];
}

/* From here to the submit nothing waits: the place stays where it was found. */
static void piece_start(struct walk *k, struct blob_piece *p, uint8_t op, uint64_t lba,
                        uint64_t len)
{
    struct blob_chan *chan = k->w->chan;

    rt_req_init_task(&p->blk.req, k->t);
    p->blk.req.trace_id = k->req->req.trace_id;
    p->blk.op = op;
    p->blk.flags = k->req->flags & BLOB_F_FUA ? BLK_F_FUA : 0;
    p->blk.lba = lba;
    p->blk.nblocks = (uint32_t)(len >> chan->block_shift);
    p->blk.iov = p->iov;
    p->epoch = blob_io_begin(chan);
    k->started++;
    blk_submit(chan->blk, &p->blk);
}

/* Describes up to `len` of the next bytes in p->iov: whole blocks; 0 when they are in too many
 * parts for that. */
static uint64_t piece_cut(const struct walk *k, struct blob_piece *p, uint64_t len,
                          uint32_t block_bytes)
{
    const struct blob_req *req = k->req;
    uint64_t skip = k->done, got = 0, over;

    p->blk.iovcnt = 0;
    for (unsigned i = 0; i < req->iovcnt && got < len && p->blk.iovcnt < BLOB_PIECE_IOVS; i++) {
        uint64_t n = req->iov[i].iov_len;

        if (skip >= n) {
            skip -= n;
            continue;
        }
        n = MIN(n - skip, len - got);
        p->iov[p->blk.iovcnt++] = (struct iovec){(uint8_t *)req->iov[i].iov_base + skip, (size_t)n};
        skip = 0;
        got += n;
    }
    over = got & (block_bytes - 1);
    got -= over;
    while (over > 0) {
        struct iovec *last = &p->iov[p->blk.iovcnt - 1];
        uint64_t n = MIN(last->iov_len, over);

        last->iov_len -= (size_t)n;
        over -= n;
        if (last->iov_len == 0)
            p->blk.iovcnt--;
    }
    return got;
}

/* --- the ways of a part ----------------------------------------------------------------------- */

static uint32_t cluster_bytes(const struct walk *k)
{
    return k->w->chan->bs->super.cluster_bytes;
}

static uint64_t index_at(const struct walk *k)
{
    return (k->req->off_bytes + k->done) / cluster_bytes(k);
}

static uint32_t off_in_cluster(const struct walk *k)
{
    return (uint32_t)((k->req->off_bytes + k->done) % cluster_bytes(k));
}

/* What is left, but not beyond the cluster. */
static uint64_t left_in_cluster(const struct walk *k)
{
    return MIN(k->req->len_bytes - k->done, (uint64_t)cluster_bytes(k) - off_in_cluster(k));
}

static uint64_t lba_at(const struct walk *k, uint32_t cluster)
{
    return ((uint64_t)cluster * cluster_bytes(k) + off_in_cluster(k)) >> k->w->chan->block_shift;
}

static uint32_t own_cluster(const struct blob *b, uint64_t idx)
{
    const struct blob_map *m = __atomic_load_n(&b->map, __ATOMIC_ACQUIRE);

    if (idx >= m->nclusters || __atomic_load_n(&b->frozen, __ATOMIC_ACQUIRE))
        return 0;
    return blob_map_get(m, idx);
}

/* One block in very many parts goes through a buffer. If it has moved meanwhile: look again. */
static int block_by_copy(struct walk *k, uint8_t op)
{
    const struct blob_req *req = k->req;
    uint32_t len = k->w->chan->bs->block_bytes, cluster;
    struct blob_piece *p;
    struct rt_buf *buf;

    pieces_end(k);
    buf = rt_buf_take(k->t, len);
    if (buf == NULL)
        return -ECANCELED;
    p = piece_get(k);
    cluster = op == BLK_READ ? blob_locate(req->blob, index_at(k)).cluster
                             : own_cluster(req->blob, index_at(k));
    if (cluster != 0) {
        p->iov[0] = (struct iovec){buf->data, len};
        p->blk.iovcnt = 1;
        if (op == BLK_WRITE)
            iov_copy_out(req->iov, req->iovcnt, k->done, buf->data, len);
        piece_start(k, p, op, lba_at(k, cluster), len);
        pieces_end(k);
        if (op == BLK_READ && k->rc == 0)
            iov_copy_in(req->iov, req->iovcnt, k->done, buf->data, len);
        k->done += len;
    }
    rt_buf_put(buf);
    return 0;
}

/* A piece of the cluster that has been found; `p` is free. */
static int at_device(struct walk *k, struct blob_piece *p, uint8_t op, uint32_t cluster)
{
    uint64_t len = left_in_cluster(k), lba = lba_at(k, cluster);

    p->blk.iovcnt = 0;
    if (op == BLK_READ || op == BLK_WRITE) {
        len = piece_cut(k, p, len, k->w->chan->bs->block_bytes);
        if (len == 0)
            return -EMSGSIZE; /* too many parts: block_by_copy() */
    }
    piece_start(k, p, op, lba, len);
    k->done += len;
    return 0;
}

/* Whole blocks straight to where they are wanted: whoever waits for this request may have all the
 * buffers there are. */
static int esnap_blocks(struct walk *k, struct blk_chan *chan, struct blob_piece *p, uint64_t len)
{
    uint32_t block_bytes = blk_info(blk_chan_dev(chan))->block_bytes;
    uint64_t off = k->req->off_bytes + k->done;
    struct rt_buf *buf = NULL;
    int rc;

    len = piece_cut(k, p, len, block_bytes);
    if (len == 0) { /* one block in very many parts */
        len = block_bytes;
        buf = rt_buf_take(k->t, len);
        if (buf == NULL)
            return -ECANCELED;
        p->iov[0] = (struct iovec){buf->data, len};
        p->blk.iovcnt = 1;
    }
    rt_req_init_task(&p->blk.req, k->t);
    p->blk.req.trace_id = k->req->req.trace_id;
    p->blk.op = BLK_READ;
    p->blk.flags = 0;
    p->blk.lba = off / block_bytes;
    p->blk.nblocks = (uint32_t)(len / block_bytes);
    p->blk.iov = p->iov;
    blk_submit(chan, &p->blk);
    rc = rt_wait(k->t, &p->blk.req);
    if (buf != NULL) {
        if (rc == 0)
            iov_copy_in(k->req->iov, k->req->iovcnt, k->done, buf->data, len);
        rt_buf_put(buf);
    }
    k->done += len;
    return rc;
}

/* The blob may leave the device while we are at it: until then it stays open. */
static int read_esnap(struct walk *k, struct blob_piece *p, struct blk_dev *esnap)
{
    uint64_t off = k->req->off_bytes + k->done, len = left_in_cluster(k), size;
    struct blk_chan *chan;
    int rc;

    if (esnap == NULL)
        return -ENODEV;
    size = blk_info(esnap)->nblocks * blk_info(esnap)->block_bytes;
    if (off >= size) {
        iov_fill(k->req->iov, k->req->iovcnt, k->done, 0, len);
        k->done += len;
        return 0;
    }
    blk_ref(esnap);
    pieces_end(k);
    rc = blk_chan_get(k->t, esnap, &chan);
    if (rc == 0) {
        rc = esnap_blocks(k, chan, p, MIN(len, size - off));
        blk_chan_put(k->t, chan);
    }
    blk_close(k->t, esnap);
    return rc;
}

static int read_part(struct walk *k)
{
    struct blob_piece *p = piece_get(k);
    struct blob_place place = blob_locate(k->req->blob, index_at(k));
    int rc = 0;

    switch (place.where) {
    case BLOB_AT_DEVICE:
        rc = at_device(k, p, BLK_READ, place.cluster);
        if (rc == -EMSGSIZE)
            rc = block_by_copy(k, BLK_READ);
        break;
    case BLOB_AT_ESNAP:
        rc = read_esnap(k, p, place.esnap);
        break;
    case BLOB_AT_NONE:
        iov_fill(k->req->iov, k->req->iovcnt, k->done, 0, left_in_cluster(k));
        k->done += left_in_cluster(k);
        break;
    }
    return rc;
}

static int write_part(struct walk *k, uint8_t op)
{
    struct blob_req *req = k->req;
    struct blob_piece *p = piece_get(k);
    uint32_t cluster = own_cluster(req->blob, index_at(k));
    struct blob_first first;
    int rc;

    if (cluster != 0) {
        rc = at_device(k, p, op, cluster);
        return rc == -EMSGSIZE ? block_by_copy(k, op) : rc;
    }
    first = (struct blob_first){.blob = req->blob,
                                .idx = index_at(k),
                                .iov = req->op == BLOB_WRITE ? req->iov : NULL,
                                .iovcnt = req->iovcnt,
                                .iov_off = k->done,
                                .off_bytes = off_in_cluster(k),
                                .len_bytes = (uint32_t)left_in_cluster(k)};
    pieces_end(k); /* who has the lock may be waiting for them */
    rc = blob_first_write(k->t, &first);
    if (rc == 1)
        k->done += first.len_bytes;
    return MIN(rc, 0);
}

/* Whole clusters go back to the store where nothing shows through; the rest is the device's. */
static int unmap_part(struct walk *k)
{
    struct blob_req *req = k->req;
    struct blob *b = req->blob;
    uint64_t whole = (req->len_bytes - k->done) / cluster_bytes(k);
    struct blob_piece *p;
    uint32_t cluster;
    int rc;

    if (off_in_cluster(k) == 0 && whole > 0) {
        pieces_end(k); /* it waits until no I/O is at the device */
        rc = blob_release(k->t, b, index_at(k), whole);
        if (rc == 0)
            k->done += whole * cluster_bytes(k);
        if (rc != -EINVAL) /* a thick blob, or a clone */
            return rc;
    }
    p = piece_get(k);
    cluster = own_cluster(b, index_at(k));
    if (cluster != 0)
        return at_device(k, p, BLK_UNMAP, cluster);
    k->done += left_in_cluster(k);
    return 0;
}

static int part(struct walk *k)
{
    switch (k->req->op) {
    case BLOB_READ:
        return read_part(k);
    case BLOB_WRITE:
        return write_part(k, BLK_WRITE);
    case BLOB_WRITE_ZEROES:
        return write_part(k, BLK_WRITE_ZEROES);
    default:
        return unmap_part(k);
    }
}

static int serve(struct rt_task *t, struct blob_worker *w, struct blob_req *req)
{
    struct walk k = {.t = t, .w = w, .req = req};
    int rc = 0;

    while (k.done < req->len_bytes && rc == 0 && k.rc == 0)
        rc = w->cancelled ? -ECANCELED : part(&k);
    pieces_end(&k);
    if (rc == 0)
        rc = k.rc;
    /* First writes are durable together with the metadata only after a flush. */
    if (rc == 0 && req->flags & BLOB_F_FUA && req->op != BLOB_READ)
        rc = blk_flush(t, w->chan->blk);
    return rc;
}

/* --- workers ---------------------------------------------------------------------------------- */

static void finish(struct blob_req *req, int rc)
{
    req->req.cancel = NULL;
    req->job = NULL;
    rt_req_complete(&req->req, rc);
}

static int worker_main(struct rt_task *t, void *arg)
{
    struct blob_worker *w = arg;
    struct blob_chan *chan = w->chan;
    struct blob_req *req;

    while ((req = list_pop_entry(&chan->slow, struct blob_req, link)) != NULL) {
        w->now = req;
        w->cancelled = false;
        req->job = w;
        rt_task_set_trace(t, req->req.trace_id);
        finish(req, serve(t, w, req));
        w->now = NULL;
    }
    rt_pool_put(&chan->workers, w);
    if (chan->workers.free == chan->workers.total)
        rt_cond_wake_all(&chan->workers_gone);
    return 0;
}

static void slow_cancel(struct rt_req *rreq)
{
    struct blob_req *req = container_of(rreq, struct blob_req, req);
    struct blob_worker *w = req->job;

    if (w == NULL) {
        list_del(&req->link);
        finish(req, -ECANCELED);
        return;
    }
    w->cancelled = true;
    for (unsigned i = 0; i < BLOB_PIECES; i++)
        rt_req_cancel(&w->piece[i].blk.req);
}

void blob_slow_submit(struct blob_chan *chan, struct blob_req *req)
{
    struct blob_worker *w;

    req->job = NULL;
    req->req.cancel = slow_cancel;
    list_add_tail(&chan->slow, &req->link);
    w = rt_pool_get(&chan->workers);
    if (w == NULL)
        return;
    w->chan = chan;
    if (rt_task_start("blob request", worker_main, w, NULL, NULL) == 0)
        return;
    rt_pool_put(&chan->workers, w);
    if (chan->workers.free < chan->workers.total)
        return; /* the workers there are will come to it */
    list_del(&req->link);
    finish(req, -ENOMEM);
}
