/* SPDX-License-Identifier: Apache-2.0 */
#include "blk/filter.h"

#define CHILDREN 256 /* per channel, in flight at the base; more wait in line */

struct child {
    struct blk_req req; /* first */
    struct blk_req *parent;
};

static struct blk_filter_chan *filter_chan(const struct blk_chan *chan)
{
    return blk_driver_chan(chan);
}

static void base_event(struct blk_watch *w, enum blk_event ev)
{
    struct blk_filter *f = container_of(w, struct blk_filter, watch);

    if (ev == BLK_EVENT_REMOVED)
        blk_removed(f->dev);
    else if (f->resized != NULL)
        f->resized(f, blk_info(f->base)->nblocks);
    else
        blk_resized(f->dev, blk_info(f->base)->nblocks);
}

int blk_filter_open(struct rt_task *t, struct blk_dev *dev, const char *base_uri, const char *name,
                    struct blk_info *info, struct err *why)
{
    struct blk_filter *f = blk_driver_dev(dev);
    int rc = blk_open(t, base_uri, &f->base, why);

    if (rc < 0)
        return rc;
    f->dev = dev;
    f->claim = BLK_CLAIM_SHARED_WRITE;
    if (blk_info(f->base)->caps & BLK_CAP_READ_ONLY)
        f->claim = BLK_CLAIM_READ;
    rc = blk_claim(f->base, f->claim, name, why);
    if (rc < 0) {
        blk_close(t, f->base);
        return rc;
    }
    f->watch.fn = base_event;
    blk_watch_add(f->base, &f->watch);
    *info = *blk_info(f->base);
    /* The base splits, copies and emulates: one lock for compare-and-write for all its users. */
    info->max_io_bytes = 0;
    info->max_iovcnt = 0;
    info->max_zero_bytes = 0;
    info->buf_align = 1;
    info->caps |= BLK_CAP_FUA | BLK_CAP_WRITE_ZEROES | BLK_CAP_COMPARE | BLK_CAP_COMPARE_AND_WRITE;
    memset(info->uuid, 0, sizeof(info->uuid));
    return 0;
}

void blk_filter_close(struct rt_task *t, struct blk_dev *dev)
{
    struct blk_filter *f = blk_driver_dev(dev);
    const char *name = blk_driver_of(dev)->name;

    blk_watch_del(t, f->base, &f->watch);
    blk_unclaim(f->base, f->claim, name);
    blk_close(t, f->base);
}

int blk_filter_chan_open(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan)
{
    struct blk_filter *f = blk_driver_dev(dev);
    struct blk_filter_chan *c = filter_chan(chan);
    int rc = rt_pool_init(&c->pool, sizeof(struct child), CHILDREN);

    if (rc < 0)
        return rc;
    list_init(&c->waiting);
    rc = blk_chan_get(t, f->base, &c->base);
    if (rc < 0)
        rt_pool_fini(&c->pool);
    return rc;
}

void blk_filter_chan_close(struct rt_task *t, struct blk_chan *chan)
{
    struct blk_filter_chan *c = filter_chan(chan);

    must(list_empty(&c->waiting));
    blk_chan_put(t, c->base);
    rt_pool_fini(&c->pool);
}

static void child_done(struct rt_req *rreq);

static void child_submit(struct blk_req *req, struct child *child)
{
    struct blk_filter_req *f = blk_filter_req(req);

    f->child = &child->req;
    child->parent = req;
    rt_req_init(&child->req.req, child_done);
    child->req.req.trace_id = req->req.trace_id;
    child->req.op = req->op;
    child->req.flags = req->flags;
    child->req.lba = f->lba;
    child->req.nblocks = f->nblocks;
    child->req.iov = f->iov;
    child->req.iovcnt = f->iovcnt;
    blk_submit(filter_chan(req->chan)->base, &child->req);
}

static void child_done(struct rt_req *rreq)
{
    struct child *child = container_of(rreq, struct child, req.req);
    struct blk_req *req = child->parent;
    struct blk_filter_chan *c = filter_chan(req->chan);
    struct blk_filter_req *f = blk_filter_req(req);
    struct blk_filter_req *next = list_pop_entry(&c->waiting, struct blk_filter_req, link);

    f->child = NULL;
    if (next != NULL)
        child_submit(container_of((void *)next, struct blk_req, driver), child);
    else
        rt_pool_put(&c->pool, child);
    if (f->done != NULL)
        f->done(req, rreq->rc);
    else
        blk_complete(req, rreq->rc);
}

struct blk_filter_req *blk_filter_prepare(struct blk_req *req)
{
    struct blk_filter_req *f = blk_filter_req(req);

    f->child = NULL;
    list_init(&f->link);
    f->lba = req->lba;
    f->nblocks = req->nblocks;
    f->iov = req->iov;
    f->iovcnt = req->iovcnt;
    f->done = NULL;
    return f;
}

void blk_filter_pass(struct blk_chan *chan, struct blk_req *req)
{
    struct blk_filter_chan *c = filter_chan(chan);
    struct child *child = rt_pool_get(&c->pool);

    if (child != NULL)
        child_submit(req, child);
    else
        list_add_tail(&c->waiting, &blk_filter_req(req)->link);
}

void blk_filter_cancel(struct blk_chan *chan, struct blk_req *req)
{
    struct blk_filter_req *f = blk_filter_req(req);

    if (f->child != NULL) {
        rt_req_cancel(&f->child->req);
        return;
    }
    list_del(&f->link);
    blk_complete(req, -ECANCELED);
}
