/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NVM namespace of an NVMe/TCP target: one request is one command. Reconnecting, repeating and
 * deadlines are src/nvme's; what a command is, is written here.
 */
#include "blk/blk.h"

#include "nvme/uri.h"

#include <string.h>

#define BLOCKS_MAX 65536u /* of one command: NLB has 16 bits */

struct nvme_dev {
    struct blk_dev *dev;
    struct nvme_ctrl *ctrl;
    struct rt_reactor *home;
    struct nvme_ns ns;
    uint32_t nsid;     /* asked for; 0: the first */
    bool opened;       /* blk_info is the layer's: changes go by blk_resized() */
    bool may_not_zero; /* Write Zeroes was refused, whatever the controller says it can */
};

struct nvme_chan {
    struct nvme_queue *q;
    struct nvme_dev *dev;
};

/* What one request needs in flight. */
struct nvme_io {
    struct nvme_req req;
    struct nvme_dsm_range range;
    struct iovec iov;
};
static_assert(sizeof(struct nvme_io) <= sizeof(((struct blk_req *)0)->driver), "fits in a blk_req");

static const struct param nvme_params[] = {
    NVME_URI_PARAMS,
    {.name = NULL},
};

/* --- open ------------------------------------------------------------------------------------- */

/* The namespace has to be the one that was opened; its size may be another. */
static int same_namespace(const struct nvme_ns *was, const struct nvme_ns *is, struct err *why)
{
    if (is->csi != was->csi || is->block_bytes != was->block_bytes ||
        memcmp(is->uuid, was->uuid, sizeof(is->uuid)) != 0)
        return err_set(why, -ENODEV, "namespace %u is another one now", was->nsid);
    return 0;
}

static int check(struct rt_task *t, struct nvme_ctrl *ctrl, void *arg, struct err *why)
{
    struct nvme_dev *d = arg;
    struct nvme_ns ns;
    int rc = nvme_ns_find(t, ctrl, NVME_CSI_NVM, d->opened ? d->ns.nsid : d->nsid, &ns, why);

    if (rc < 0)
        return rc;
    if (d->opened) {
        rc = same_namespace(&d->ns, &ns, why);
        if (rc < 0)
            return rc;
        blk_resized(d->dev, ns.nblocks);
    }
    d->ns = ns;
    return 0;
}

static void gone(struct nvme_ctrl *ctrl, void *arg)
{
    struct nvme_dev *d = arg;

    blk_removed(d->dev);
}

static uint32_t caps_of(const struct nvme_dev *d)
{
    const struct nvme_id_ctrl *id = nvme_ctrl_id(d->ctrl);
    uint16_t oncs = le16_get(id->oncs);
    uint32_t caps = BLK_CAP_FUA;

    caps |= id->vwc & NVME_VWC_PRESENT ? BLK_CAP_VOLATILE_CACHE : BLK_CAP_NO_FLUSH;
    if (d->ns.write_protected)
        caps |= BLK_CAP_READ_ONLY;
    if (oncs & NVME_ONCS_WRITE_ZEROES)
        caps |= BLK_CAP_WRITE_ZEROES;
    if (oncs & NVME_ONCS_DSM)
        caps |= BLK_CAP_UNMAP; /* a hint: what the blocks read as afterwards is not promised */
    if (oncs & NVME_ONCS_COMPARE)
        caps |= BLK_CAP_COMPARE;
    return caps;
}

/* Bytes that one Write Zeroes takes: WZSL of the command set's identify data, else MDTS. */
static uint64_t zero_max(struct rt_task *t, const struct nvme_dev *d)
{
    CLEANUP(free_p) struct nvme_id_ctrl_nvm *id = malloc(sizeof(*id));
    uint64_t max = (uint64_t)BLOCKS_MAX * d->ns.block_bytes;
    unsigned shift = 12 + (unsigned)NVME_CAP_MPSMIN(nvme_ctrl_cap(d->ctrl));

    if (id != NULL && nvme_identify(t, d->ctrl, NVME_CNS_CSI_CTRL, 0, NVME_CSI_NVM, id) == 0 &&
        id->wzsl != 0)
        return MIN(max, 1ull << MIN(shift + id->wzsl, 40u));
    return MIN(max, (uint64_t)nvme_ctrl_transfer_max(d->ctrl));
}

static int nvme_open(struct rt_task *t, struct blk_dev *dev, const char *path,
                     const struct param_values *params, struct blk_info *info, struct err *why)
{
    CLEANUP(free_p) struct nvme_ctrl_opts *opts = malloc(sizeof(*opts));
    struct nvme_dev *d = blk_driver_dev(dev);
    int rc;

    if (opts == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    rc = nvme_uri_opts(path, params, opts, &d->nsid, why);
    if (rc < 0)
        return rc;
    opts->check = check;
    opts->gone = gone;
    opts->arg = d;
    d->dev = dev;
    d->home = rt_self();
    rc = nvme_ctrl_open(t, opts, &d->ctrl, why);
    if (rc < 0)
        return rc;
    info->block_bytes = d->ns.block_bytes;
    info->phys_block_bytes = d->ns.preferred_write_bytes;
    info->nblocks = d->ns.nblocks;
    info->caps = caps_of(d);
    info->max_io_bytes = (uint32_t)MIN((uint64_t)BLOCKS_MAX * d->ns.block_bytes,
                                       (uint64_t)nvme_ctrl_transfer_max(d->ctrl));
    info->max_zero_bytes = zero_max(t, d);
    info->buf_align = 1;
    memcpy(info->uuid, d->ns.uuid, sizeof(info->uuid));
    d->opened = true;
    return 0;
}

static int close_fn(struct rt_task *t, void *arg)
{
    struct nvme_dev *d = arg;

    nvme_ctrl_close(t, d->ctrl);
    return 0;
}

static void nvme_close(struct rt_task *t, struct blk_dev *dev)
{
    struct nvme_dev *d = blk_driver_dev(dev);

    rt_on(t, d->home, close_fn, d);
}

static int nvme_chan_open(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan)
{
    struct nvme_chan *c = blk_driver_chan(chan);

    c->dev = blk_driver_dev(dev);
    return nvme_queue_open(t, c->dev->ctrl, false, &c->q, NULL);
}

static void nvme_chan_close(struct rt_task *t, struct blk_chan *chan)
{
    struct nvme_chan *c = blk_driver_chan(chan);

    nvme_queue_close(t, c->q);
}

/* --- requests --------------------------------------------------------------------------------- */

static void io_done(struct rt_req *rreq)
{
    struct nvme_io *io = container_of(rreq, struct nvme_io, req.req);
    struct blk_req *req = container_of(io, struct blk_req, driver);
    int rc = rreq->rc;

    if (UNLIKELY(rc == 0 && io->req.moved != io->req.data_len))
        rc = -EIO; /* the target answered without moving all the data */
    if (UNLIKELY(rc < 0 && req->op == BLK_WRITE_ZEROES && rc == -ENOTSUP)) {
        struct nvme_chan *c = blk_driver_chan(req->chan);

        c->dev->may_not_zero = true;
    }
    blk_complete(req, rc);
}

static void take_data(struct nvme_req *r, const struct blk_req *req, uint32_t block_bytes,
                      enum nvme_dir dir)
{
    r->iov = req->iov;
    r->iovcnt = req->iovcnt;
    r->data_len = req->nblocks * block_bytes;
    r->dir = (uint8_t)dir;
}

/* One range, as data of the command. */
static void take_range(struct nvme_io *io, const struct blk_req *req)
{
    io->range =
        (struct nvme_dsm_range){.nblocks = le32_make(req->nblocks), .slba = le64_make(req->lba)};
    io->iov = (struct iovec){.iov_base = &io->range, .iov_len = sizeof(io->range)};
    io->req.iov = &io->iov;
    io->req.iovcnt = 1;
    io->req.data_len = sizeof(io->range);
    io->req.dir = NVME_DIR_H2C;
    io->req.sqe.cdw10 = le32_make(0); /* one range, 0-based */
    io->req.sqe.cdw11 = le32_make(NVME_DSM_AD);
    io->req.sqe.cdw12 = le32_make(0);
}

static void nvme_blk_submit(struct blk_chan *chan, struct blk_req *req)
{
    struct nvme_chan *c = blk_driver_chan(chan);
    struct nvme_io *io = (struct nvme_io *)req->driver;
    uint32_t cdw12 = (req->nblocks - 1) & NVME_NLB_MASK;
    uint32_t block_bytes = c->dev->ns.block_bytes;

    io->req = (struct nvme_req){.flags = NVME_REQ_REPEAT};
    rt_req_init(&io->req.req, io_done);
    io->req.req.trace_id = req->req.trace_id;
    io->req.sqe.nsid = le32_make(c->dev->ns.nsid);
    if (req->op != BLK_FLUSH) {
        if (req->flags & BLK_F_FUA)
            cdw12 |= NVME_CDW12_FUA;
        nvme_set_slba(&io->req.sqe, req->lba);
        io->req.sqe.cdw12 = le32_make(cdw12);
    }
    switch (req->op) {
    case BLK_READ:
        io->req.sqe.opc = NVME_OPC_READ;
        take_data(&io->req, req, block_bytes, NVME_DIR_C2H);
        break;
    case BLK_WRITE:
        io->req.sqe.opc = NVME_OPC_WRITE;
        take_data(&io->req, req, block_bytes, NVME_DIR_H2C);
        break;
    case BLK_COMPARE:
        io->req.sqe.opc = NVME_OPC_COMPARE;
        take_data(&io->req, req, block_bytes, NVME_DIR_H2C);
        break;
    case BLK_FLUSH:
        io->req.sqe.opc = NVME_OPC_FLUSH;
        break;
    case BLK_WRITE_ZEROES:
        if (c->dev->may_not_zero) {
            blk_complete(req, -ENOTSUP);
            return;
        }
        io->req.sqe.opc = NVME_OPC_WRITE_ZEROES;
        if (req->flags & BLK_F_UNMAP)
            io->req.sqe.cdw12 = le32_make(cdw12 | NVME_CDW12_DEAC);
        break;
    case BLK_UNMAP:
        io->req.sqe.opc = NVME_OPC_DSM;
        take_range(io, req);
        break;
    default:
        must(!"an operation the driver did not offer");
    }
    nvme_submit(c->q, &io->req);
}

static void nvme_blk_cancel(struct blk_chan *chan, struct blk_req *req)
{
    struct nvme_io *io = (struct nvme_io *)req->driver;

    rt_req_cancel(&io->req.req);
}

const struct blk_driver blk_nvme_tcp_driver = {
    .name = "nvme_tcp",
    .help = "block namespace of an NVMe/TCP target: nvme+tcp://HOST:PORT/NQN",
    .params = nvme_params,
    .dev_bytes = sizeof(struct nvme_dev),
    .chan_bytes = sizeof(struct nvme_chan),
    .open = nvme_open,
    .close = nvme_close,
    .chan_open = nvme_chan_open,
    .chan_close = nvme_chan_close,
    .submit = nvme_blk_submit,
    .cancel = nvme_blk_cancel,
};
