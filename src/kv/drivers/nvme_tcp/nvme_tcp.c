/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KV namespace of an NVMe/TCP target. With Kvasir's vendor commands it has all that the target's
 * device has; with the standard commands of any target, the core. Begin reading at kvn_submit().
 */
#include "kv/drivers/nvme_tcp/driver.h"

#include <string.h>

static const struct param kvn_params[] = {
    NVME_URI_PARAMS,
    {"vendor", PARAM_BOOL, "yes", false, "use Kvasir's vendor commands where the target has them"},
    {.name = NULL},
};

int kvn_rc(const struct nvme_req *req, int rc)
{
    uint16_t code = req->status & NVME_SC_CODE_MASK;

    if (rc < 0 && code >= NVME_SC_KVV_BAD_HANDLE && code <= NVME_SC_KVV_SEQUENCE)
        return nvme_kvv_errno_of_status(req->status);
    /* "Full and unchanged" is true of the last try; one before it may have stored the value. */
    if (rc == -ENOSPC && req->repeated)
        return -ECONNRESET;
    return rc;
}

int kvn_store_rc(uint32_t flags, int rc)
{
    bool absent_is_stale = (flags & (KV_F_IF_VERSION | KV_F_MUST_EXIST)) == KV_F_IF_VERSION;

    return rc == -ENOENT && absent_is_stale ? -ESTALE : rc;
}

/* --- device ----------------------------------------------------------------------------------- */

static int check(struct rt_task *t, struct nvme_ctrl *ctrl, void *arg, struct err *why)
{
    struct kvn_dev *d = arg;
    CLEANUP(free_p) struct nvme_ns *ns = malloc(sizeof(*ns));
    int rc;

    if (ns == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    rc = nvme_ns_find(t, ctrl, NVME_CSI_KV, d->opened ? d->ns.nsid : d->nsid, ns, why);
    if (rc < 0)
        return rc;
    if (d->opened && memcmp(ns->uuid, d->ns.uuid, sizeof(ns->uuid)) != 0)
        return err_set(why, -ENODEV, "namespace %u is another one now", ns->nsid);
    if (d->opened && memcmp(ns->vendor, d->ns.vendor, NVME_SEL_ID_OFFSET) != 0)
        return err_set(why, -ENODEV, "namespace %u has other commands now", ns->nsid);
    d->ns = *ns;
    return 0;
}

static void gone(struct nvme_ctrl *ctrl, void *arg)
{
    kv_removed(((struct kvn_dev *)arg)->dev);
}

/* Feature 20h bit 0: Delete of a key that is not there is an error, as we want it. */
static bool asks_delete(struct rt_task *t, const struct kvn_dev *d)
{
    struct nvme_sqe sqe = {.opc = NVME_OPC_GET_FEATURES,
                           .nsid = le32_make(d->ns.nsid),
                           .cdw10 = le32_make(NVME_FID_KV_CONFIG)};
    uint32_t dw0;

    return nvme_admin(t, d->ctrl, &sqe, NVME_DIR_NONE, NULL, 0, &dw0) == 0 &&
           (dw0 & NVME_KV_CONFIG_EDNEK) != 0;
}

static void take_vendor(struct kvn_dev *d, struct kv_info *info)
{
    const struct nvme_kvv_id *id = (const struct nvme_kvv_id *)d->ns.vendor;

    d->vendor = true;
    info->caps |= le32_get(id->caps) & NVME_KVV_CAPS;
    info->key_max = MAX(MIN(le32_get(id->key_max), (uint32_t)KV_KEY_MAX), d->ns.key_max);
    info->val_max = MAX(le64_get(id->val_max), (uint64_t)d->ns.val_max);
    d->versions = info->caps & KV_CAP_VERSION;
    d->handles_max = MIN(MAX(le32_get(id->handles_max), 1u), (uint32_t)KV_STREAMS_MAX);
    d->batch_bytes_max = le32_get(id->batch_bytes_max);
    d->batch_items_max = le32_get(id->batch_items_max);
}

static void describe(struct rt_task *t, struct kvn_dev *d, struct kv_info *info)
{
    const struct nvme_kvv_id *id = (const struct nvme_kvv_id *)d->ns.vendor;

    info->key_max = d->ns.key_max;
    info->val_max = MIN(d->ns.val_max, nvme_ctrl_transfer_max(d->ctrl));
    info->size_bytes = d->ns.size_bytes;
    info->nkeys_max = d->ns.nkeys_max;
    info->optimal_bytes = d->ns.optimal_bytes;
    memcpy(info->uuid, d->ns.uuid, sizeof(info->uuid));
    if (d->ns.write_protected)
        info->caps |= KV_CAP_READ_ONLY;
    if ((nvme_ctrl_id(d->ctrl)->vwc & NVME_VWC_PRESENT) != 0)
        info->caps |= KV_CAP_VOLATILE_CACHE;
    if (d->want_vendor && nvme_kvv_id_ok(id))
        take_vendor(d, info);
    else
        d->delete_tells = asks_delete(t, d);
    kvn_select_look(t, d);
    d->caps = info->caps;
}

static int kvn_open(struct rt_task *t, struct kv_dev *dev, const char *path,
                    const struct param_values *params, struct kv_info *info, struct err *why)
{
    CLEANUP(free_p) struct nvme_ctrl_opts *opts = malloc(sizeof(*opts));
    struct kvn_dev *d = kv_driver_dev(dev);
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
    d->timeout_ns = opts->timeout_ns;
    d->want_vendor = param_flag(params, "vendor");
    rc = nvme_ctrl_open(t, opts, &d->ctrl, why);
    if (rc < 0)
        return rc;
    describe(t, d, info);
    d->opened = true;
    return 0;
}

static void kvn_close(struct rt_task *t, struct kv_dev *dev)
{
    struct kvn_dev *d = kv_driver_dev(dev);

    nvme_ctrl_close(t, d->ctrl);
}

static int kvn_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used, uint64_t *out_keys)
{
    struct kvn_dev *d = kv_driver_dev(dev);
    CLEANUP(free_p) struct nvme_ns *ns = malloc(sizeof(*ns));
    int rc;

    if (ns == NULL)
        return -ENOMEM;
    rc = nvme_ns_read(t, d->ctrl, d->ns.nsid, ns, NULL);
    if (rc < 0)
        return rc;
    *out_used = ns->used_bytes;
    *out_keys = 0;
    return 0;
}

/* --- channels --------------------------------------------------------------------------------- */

static void ctx_free(struct kvn_ctx *ctx)
{
    free(ctx->ops);
    rt_pool_fini(&ctx->streams);
}

static int kvn_chan_open(struct rt_task *t, struct kv_dev *dev, struct kv_chan *chan)
{
    struct kvn_ctx *ctx = kv_driver_chan(chan);
    int rc;

    ctx->dev = kv_driver_dev(dev);
    ctx->reactor = rt_self();
    list_init(&ctx->free_ops);
    list_init(&ctx->line);
    list_init(&ctx->idle);
    list_init(&ctx->pushed_less.waiters);
    rc = rt_pool_init(&ctx->streams, sizeof(struct kvn_stream),
                      ctx->dev->vendor ? ctx->dev->handles_max : KVN_STREAMS_STD);
    if (rc < 0)
        return rc;
    ctx->ops = calloc(KVN_OPS, sizeof(*ctx->ops));
    rc = ctx->ops == NULL ? -ENOMEM : nvme_queue_open(t, ctx->dev->ctrl, false, &ctx->q, NULL);
    if (rc < 0) {
        ctx_free(ctx);
        return rc;
    }
    for (unsigned i = 0; i < KVN_OPS; i++) {
        ctx->ops[i].ctx = ctx;
        list_add_tail(&ctx->free_ops, &ctx->ops[i].link);
    }
    return 0;
}

static void kvn_chan_close(struct rt_task *t, struct kv_chan *chan)
{
    struct kvn_ctx *ctx = kv_driver_chan(chan);

    must(list_empty(&ctx->line));
    kvn_std_fini(t, ctx);
    nvme_queue_close(t, ctx->q);
    ctx_free(ctx);
}

/* --- requests of several commands ------------------------------------------------------------- */

static int op_task(struct rt_task *t, void *arg)
{
    struct kvn_op *op = arg;
    struct kvn_ctx *ctx = op->ctx;
    struct kv_req *req = op->req;
    struct kvn_io *next;
    int rc;

    rt_task_set_trace(t, req->req.trace_id);
    rc = kvn_steps(t, ctx, req);
    op->req = NULL;
    op->task = NULL;
    list_add_head(&ctx->free_ops, &op->link);
    kv_complete(req, rc);
    next = list_pop_entry(&ctx->line, struct kvn_io, link);
    if (next != NULL)
        kvn_op_start(ctx, kvn_req_of(next));
    return 0;
}

void kvn_op_start(struct kvn_ctx *ctx, struct kv_req *req)
{
    struct kvn_op *op = list_pop_entry(&ctx->free_ops, struct kvn_op, link);
    struct kvn_io *io = kvn_io_of(req);
    int rc;

    io->ctx = ctx;
    io->op = op;
    io->in_line = op == NULL;
    if (op == NULL) {
        list_init(&io->link);
        list_add_tail(&ctx->line, &io->link);
        return;
    }
    op->req = req;
    rc = rt_task_start("nvme kv request", op_task, op, NULL, &op->task);
    if (rc < 0) {
        op->req = NULL;
        list_add_head(&ctx->free_ops, &op->link);
        kv_complete(req, rc);
    }
}

/* Handles are the target's, of one queue: snapshots, and streams opened on them, live on that of
 * the home reactor. */
static bool belongs_home(const struct kvn_ctx *ctx, const struct kv_req *req)
{
    switch (req->op) {
    case KV_SNAP_OPEN:
    case KV_SNAP_CLOSE:
        return ctx->reactor != ctx->dev->home;
    case KV_WRITE:
    case KV_READ:
    case KV_COMMIT:
    case KV_ABORT:
    case KV_READ_CLOSE:
        return kvn_stream_of(req)->ctx->reactor != ctx->reactor;
    default:
        return req->snap != NULL && ctx->reactor != ctx->dev->home;
    }
}

static void kvn_submit(struct kv_chan *chan, struct kv_req *req)
{
    struct kvn_ctx *ctx = kv_driver_chan(chan);
    struct kvn_io *io = kvn_io_of(req);

    io->op = NULL;
    io->in_line = false;
    if (UNLIKELY(belongs_home(ctx, req)))
        kv_to_home(req);
    else if (!kvn_direct(ctx, req))
        kvn_op_start(ctx, req);
}

static void kvn_cancel(struct kv_chan *chan, struct kv_req *req)
{
    struct kvn_io *io = kvn_io_of(req);

    if (io->op != NULL) {
        rt_task_cancel(io->op->task);
    } else if (io->in_line) {
        list_del(&io->link);
        kv_complete(req, -ECANCELED);
    } else {
        rt_req_cancel(&io->req.req);
    }
}

const struct kv_driver kv_nvme_tcp_driver = {
    .name = "nvme_tcp",
    .help = "key-value namespace of an NVMe/TCP target: nvme+tcp://HOST:PORT/NQN",
    .params = kvn_params,
    .dev_bytes = sizeof(struct kvn_dev),
    .chan_bytes = sizeof(struct kvn_ctx),
    .some_home = true,
    .open = kvn_open,
    .close = kvn_close,
    .chan_open = kvn_chan_open,
    .chan_close = kvn_chan_close,
    .submit = kvn_submit,
    .cancel = kvn_cancel,
    .select = kvn_select,
    .usage = kvn_usage,
};
