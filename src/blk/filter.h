/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For drivers whose parameter is another device: the base device with its claim, watch and
 * channels, and requests that go on to it. The base does for itself what a device needs (split,
 * copy, emulate), so a filter takes everything.
 */
#ifndef KVASIR_BLK_FILTER_H
#define KVASIR_BLK_FILTER_H

#include "blk/blk.h"

#include "rt/buf.h"

#include <assert.h>

/** First in the driver's part of a device. */
struct blk_filter {
    struct blk_dev *dev;  /* the filter itself */
    struct blk_dev *base;
    struct blk_watch watch;
    enum blk_claim claim;
    /* The base has another size; NULL: so has the filter, the same. */
    void (*resized)(struct blk_filter *f, uint64_t base_nblocks);
};

/** First in the driver's part of a channel. */
struct blk_filter_chan {
    struct blk_chan *base;
    struct rt_pool pool;  /* of blk_req for the base */
    struct list waiting;  /* requests that found it empty */
};

/** What a filter keeps in blk_req.driver: the request as it goes on to the base. */
struct blk_filter_req {
    struct blk_req *child; /* NULL: waits for one, or is held by the filter */
    struct list link;
    uint64_t lba;
    uint32_t nblocks;
    unsigned iovcnt;
    const struct iovec *iov;
    void (*done)(struct blk_req *req, int rc); /* gets the base's result; NULL: passes it on */
    uint64_t user[16];                         /* for the filter */
};

static inline struct blk_filter_req *blk_filter_req(struct blk_req *req)
{
    static_assert(sizeof(struct blk_filter_req) <= sizeof(req->driver), "room in a request");
    return (struct blk_filter_req *)req->driver;
}

/**
 * Opens the base and claims it (shared writing, or reading when it is read-only); `info` becomes
 * the base's, without its limits. `name` is the filter's, for error texts.
 */
int blk_filter_open(struct rt_task *t, struct blk_dev *dev, const char *base_uri, const char *name,
                    struct blk_info *info, struct err *why);
void blk_filter_close(struct rt_task *t, struct blk_dev *dev);
int blk_filter_chan_open(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan);
void blk_filter_chan_close(struct rt_task *t, struct blk_chan *chan);

/** Prepares the filter's part: the same place, the same memory. */
struct blk_filter_req *blk_filter_prepare(struct blk_req *req);
/** Sends a prepared request on to the base. */
void blk_filter_pass(struct blk_chan *chan, struct blk_req *req);
/** Cancels a request that was passed on. */
void blk_filter_cancel(struct blk_chan *chan, struct blk_req *req);

#endif
