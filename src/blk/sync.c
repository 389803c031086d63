/* SPDX-License-Identifier: Apache-2.0 */
/* Block devices for tasks: one call, one request. */
#include "blk/internal.h"

static int run(struct rt_task *t, struct blk_chan *chan, struct blk_req *req)
{
    rt_req_init_task(&req->req, t);
    blk_submit(chan, req);
    return rt_wait(t, &req->req);
}

/* Only what has to be is set: the driver's part is large. */
static void prepare(struct blk_req *req, uint8_t op, uint8_t flags, uint64_t lba, uint32_t nblocks)
{
    req->op = op;
    req->flags = flags;
    req->lba = lba;
    req->nblocks = nblocks;
    req->iov = NULL;
    req->iovcnt = 0;
}

static int move(struct rt_task *t, struct blk_chan *chan, uint8_t op, uint8_t flags, void *buf,
                uint64_t lba, uint32_t nblocks)
{
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)nblocks << chan->block_shift};
    struct blk_req req;

    prepare(&req, op, flags, lba, nblocks);
    req.iov = &iov;
    req.iovcnt = 1;
    return run(t, chan, &req);
}

int blk_read(struct rt_task *t, struct blk_chan *chan, void *buf, uint64_t lba, uint32_t nblocks)
{
    return move(t, chan, BLK_READ, 0, buf, lba, nblocks);
}

int blk_write(struct rt_task *t, struct blk_chan *chan, const void *buf, uint64_t lba,
              uint32_t nblocks, unsigned flags)
{
    return move(t, chan, BLK_WRITE, (uint8_t)flags, (void *)(uintptr_t)buf, lba, nblocks);
}

int blk_flush(struct rt_task *t, struct blk_chan *chan)
{
    struct blk_req req;

    prepare(&req, BLK_FLUSH, 0, 0, 0);
    return run(t, chan, &req);
}

/* A range of any length, in requests of at most 2^31 blocks. */
static int range(struct rt_task *t, struct blk_chan *chan, uint8_t op, uint8_t flags, uint64_t lba,
                 uint64_t nblocks)
{
    struct blk_req req;
    int rc = 0;

    while (nblocks > 0 && rc == 0) {
        uint32_t n = (uint32_t)MIN(nblocks, UINT64_C(1) << 31);

        prepare(&req, op, flags, lba, n);
        rc = run(t, chan, &req);
        lba += n;
        nblocks -= n;
    }
    return rc;
}

int blk_zero(struct rt_task *t, struct blk_chan *chan, uint64_t lba, uint64_t nblocks,
             unsigned flags)
{
    return range(t, chan, BLK_WRITE_ZEROES, (uint8_t)flags, lba, nblocks);
}

int blk_unmap(struct rt_task *t, struct blk_chan *chan, uint64_t lba, uint64_t nblocks)
{
    return range(t, chan, BLK_UNMAP, 0, lba, nblocks);
}
