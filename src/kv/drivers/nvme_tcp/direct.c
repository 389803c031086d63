/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that are one command: standard ones for keys of up to 16 bytes, a vendor OPEN that
 * opens nothing, a BATCH of one record for longer keys, and commands on handles. Nothing is copied:
 * the key, too, goes out from where the caller has it.
 */
#include "kv/drivers/nvme_tcp/driver.h"

#include <string.h>

static uint64_t pair(const struct nvme_req *n)
{
    return n->dw0 | (uint64_t)n->dw1 << 32;
}

static int take_handle(struct kvn_ctx *ctx, struct kvn_stream *st, uint32_t handle)
{
    st->handle = handle;
    st->connection = nvme_queue_connection(ctx->q);
    return handle != 0 ? 0 : -EPROTO;
}

/* Takes what the answer says into the request. 1: more commands are needed after all. */
static int take_answer(struct kvn_ctx *ctx, struct kv_req *req, struct kvn_io *io)
{
    const struct nvme_req *n = &io->req;

    switch (req->op) {
    case KV_RETRIEVE:
        req->version = 0;
        if (n->dw0 == UINT32_MAX && ctx->dev->vendor)
            return 1; /* that or more */
        req->moved = n->moved;
        req->value_len = MAX(n->dw0, n->moved); /* some targets leave DW0 0 */
        return 0;
    case KV_STAT:
        req->version = 0;
        if (n->sqe.opc == NVME_KVV_OPEN)
            req->value_len = pair(n);
        else
            req->value_len = n->dw0;
        return 0;
    case KV_STORE:
        req->version = 0;
        return 0;
    case KV_STORE_OPEN:
        req->version = 0;
        return take_handle(ctx, kvn_stream_of(req), n->dw0);
    case KV_SNAP_OPEN:
        return take_handle(ctx, (struct kvn_stream *)req->snap, n->dw0);
    case KV_READ:
        req->moved = n->dw0;
        return n->dw0 == n->moved ? 0 : -EPROTO;
    case KV_COMMIT:
        req->version = pair(n);
        return 0;
    default:
        return 0;
    }
}

static void free_stream(struct kvn_stream *st)
{
    rt_pool_put(&st->ctx->streams, st);
}

/* What becomes of the object of a stream or snapshot when its command has ended. */
static int end_object(struct kv_req *req, int rc)
{
    switch (req->op) {
    case KV_STORE_OPEN:
        if (rc < 0)
            free_stream(kvn_stream_of(req));
        return kvn_store_rc(req->flags, rc);
    case KV_SNAP_OPEN:
        if (rc < 0)
            free_stream((struct kvn_stream *)req->snap);
        return rc;
    case KV_COMMIT:
        rc = kvn_store_rc(kvn_stream_of(req)->flags, rc);
        free_stream(kvn_stream_of(req));
        return rc;
    case KV_ABORT:
    case KV_READ_CLOSE:
        free_stream(kvn_stream_of(req));
        return 0; /* a handle that has gone by itself is as good */
    case KV_SNAP_CLOSE:
        free_stream((struct kvn_stream *)req->snap);
        return 0;
    default:
        return rc;
    }
}

static void direct_done(struct rt_req *rreq)
{
    struct kvn_io *io = container_of(rreq, struct kvn_io, req.req);
    struct kv_req *req = kvn_req_of(io);
    int rc = kvn_rc(&io->req, rreq->rc);
    int more = rc == 0 ? take_answer(io->ctx, req, io) : 0;

    if (more == 1) {
        kvn_op_start(io->ctx, req);
        return;
    }
    kv_complete(req, end_object(req, more < 0 ? more : rc));
}

/* --- building commands ------------------------------------------------------------------------ */

static struct nvme_req *begin(struct kvn_ctx *ctx, struct kv_req *req, uint8_t opc)
{
    struct kvn_io *io = kvn_io_of(req);

    io->ctx = ctx;
    io->op = NULL;
    io->req = (struct nvme_req){.sqe.opc = opc, .sqe.nsid = le32_make(ctx->dev->ns.nsid)};
    rt_req_init(&io->req.req, direct_done);
    io->req.req.trace_id = req->req.trace_id;
    return &io->req;
}

static bool go(struct kvn_ctx *ctx, struct nvme_req *n)
{
    nvme_submit(ctx->q, n);
    return true;
}

static void data(struct nvme_req *n, enum nvme_dir dir, const struct iovec *iov, unsigned iovcnt,
                 uint32_t len)
{
    n->dir = (uint8_t)(len > 0 ? dir : NVME_DIR_NONE);
    n->iov = iov;
    n->iovcnt = iovcnt;
    n->data_len = len;
}

static bool standard(struct kvn_ctx *ctx, struct kv_req *req, uint8_t opc)
{
    struct nvme_req *n = begin(ctx, req, opc);
    struct kvn_io *io = kvn_io_of(req);
    int rc = nvme_kv_key_put(&n->sqe, req->key);

    must(rc == 0);
    switch (opc) {
    case NVME_KV_STORE:
        nvme_kv_set_options(&n->sqe, kvn_store_options(req->flags));
        if ((req->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST)) == 0)
            n->flags = NVME_REQ_REPEAT;
        n->sqe.cdw10 = le32_make((uint32_t)req->len);
        data(n, NVME_DIR_H2C, req->iov, req->iovcnt, (uint32_t)req->len);
        break;
    case NVME_KV_RETRIEVE:
        n->flags = NVME_REQ_REPEAT;
        if (req->op == KV_STAT) { /* the length comes with the first bytes */
            io->iov[0] = (struct iovec){.iov_base = io->small, .iov_len = 4};
            n->sqe.cdw10 = le32_make(4);
            data(n, NVME_DIR_C2H, io->iov, 1, 4);
        } else {
            uint32_t len = (uint32_t)MIN(req->len, (uint64_t)UINT32_MAX);

            n->sqe.cdw10 = le32_make(len);
            data(n, NVME_DIR_C2H, req->iov, req->iovcnt, len);
        }
        break;
    }
    return go(ctx, n);
}

/* A vendor OPEN: head and key, from their places. */
static bool open_command(struct kvn_ctx *ctx, struct kv_req *req, enum nvme_kvv_mode mode,
                         bool repeat)
{
    struct nvme_req *n = begin(ctx, req, NVME_KVV_OPEN);
    struct kvn_io *io = kvn_io_of(req);
    const struct kvn_stream *snap = (const struct kvn_stream *)req->snap;
    bool takes_snap = mode == NVME_KVV_MODE_READ || mode == NVME_KVV_MODE_STAT;
    struct nvme_kvv_open open = {
        .mode = mode,
        .flags = req->flags & (NVME_KVV_F_MUST_EXIST | NVME_KVV_F_MUST_NOT_EXIST |
                               NVME_KVV_F_IF_VERSION | NVME_KVV_F_APPEND),
        .declared_len = mode == NVME_KVV_MODE_STORE ? req->len : 0,
        .version = (req->flags & KV_F_IF_VERSION) != 0 ? req->version : 0,
    };
    int len;

    if (mode != NVME_KVV_MODE_SNAPSHOT)
        open.key = req->key;
    if (takes_snap && snap != NULL) {
        open.snapshot = snap->handle;
        n->flags |= NVME_REQ_BOUND;
        n->connection = snap->connection;
    }
    len = nvme_kvv_open_head(&n->sqe, &io->open, &open);
    must(len > 0);
    io->iov[0] = (struct iovec){.iov_base = &io->open, .iov_len = sizeof(io->open)};
    io->iov[1] =
        (struct iovec){.iov_base = (void *)(uintptr_t)req->key.ptr, .iov_len = open.key.len};
    data(n, NVME_DIR_H2C, io->iov, open.key.len > 0 ? 2 : 1, (uint32_t)len);
    if (repeat)
        n->flags |= NVME_REQ_REPEAT;
    return go(ctx, n);
}

/* A BATCH of one record: head, key, value. */
static bool batch_of_one(struct kvn_ctx *ctx, struct kv_req *req)
{
    struct nvme_req *n = begin(ctx, req, NVME_KVV_BATCH);
    struct kvn_io *io = kvn_io_of(req);
    uint32_t len = (uint32_t)(sizeof(io->record) + req->key.len + req->len);
    uint64_t left = req->len;
    unsigned at = 2;

    io->record = (struct nvme_kvv_record){.op = NVME_KVV_PUT,
                                          .key_len = le16_make((uint16_t)req->key.len),
                                          .val_len = le32_make((uint32_t)req->len)};
    io->iov[0] = (struct iovec){.iov_base = &io->record, .iov_len = sizeof(io->record)};
    io->iov[1] =
        (struct iovec){.iov_base = (void *)(uintptr_t)req->key.ptr, .iov_len = req->key.len};
    for (unsigned i = 0; i < req->iovcnt && left > 0; i++) {
        io->iov[at] = req->iov[i];
        io->iov[at].iov_len = MIN(io->iov[at].iov_len, left);
        left -= io->iov[at++].iov_len;
    }
    nvme_kvv_batch_encode(&n->sqe, len, 1);
    data(n, NVME_DIR_H2C, io->iov, at, len);
    n->flags = NVME_REQ_REPEAT;
    return go(ctx, n);
}

/* A command on the handle of a stream or snapshot. */
static bool on_handle(struct kvn_ctx *ctx, struct kv_req *req, const struct kvn_stream *st,
                      enum nvme_kvv_opcode opc)
{
    struct nvme_req *n = begin(ctx, req, (uint8_t)opc);
    struct nvme_kvv_io h = {.handle = st->handle};

    if (opc == NVME_KVV_READ || opc == NVME_KVV_WRITE) {
        h.len = (uint32_t)MIN(req->len, (uint64_t)UINT32_MAX);
        h.offset = req->off;
        data(n, opc == NVME_KVV_READ ? NVME_DIR_C2H : NVME_DIR_H2C, req->iov, req->iovcnt, h.len);
    }
    nvme_kvv_io_encode(&n->sqe, opc, &h);
    n->flags = NVME_REQ_BOUND | (opc == NVME_KVV_READ ? NVME_REQ_REPEAT : 0);
    n->connection = st->connection;
    return go(ctx, n);
}

/* --- which request is one command ------------------------------------------------------------- */

uint8_t kvn_store_options(uint32_t flags)
{
    uint8_t options = 0;

    if ((flags & KV_F_MUST_EXIST) != 0)
        options |= NVME_KV_STORE_MUST_EXIST;
    if ((flags & KV_F_MUST_NOT_EXIST) != 0)
        options |= NVME_KV_STORE_MUST_NOT_EXIST;
    return options;
}

static bool fits(const struct kvn_ctx *ctx, const struct kv_req *req)
{
    return req->key.len <= ctx->dev->ns.key_max && req->snap == NULL;
}

static bool wants_version(const struct kvn_ctx *ctx, const struct kv_req *req)
{
    return ctx->dev->versions && (req->flags & KV_F_NO_VERSION) == 0;
}

static bool store(struct kvn_ctx *ctx, struct kv_req *req)
{
    const struct kvn_dev *d = ctx->dev;

    if ((req->flags & (KV_F_IF_VERSION | KV_F_APPEND)) != 0 || wants_version(ctx, req))
        return false;
    if (fits(ctx, req) && req->len <= d->ns.val_max)
        return standard(ctx, req, NVME_KV_STORE);
    if ((d->caps & KV_CAP_BATCH) != 0 && req->iovcnt <= KVN_INLINE_IOV &&
        (req->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST)) == 0 &&
        req->len + req->key.len + sizeof(struct nvme_kvv_record) <= d->batch_bytes_max)
        return batch_of_one(ctx, req);
    return false;
}

static bool stat_key(struct kvn_ctx *ctx, struct kv_req *req)
{
    if (wants_version(ctx, req))
        return false;
    if (ctx->dev->vendor)
        return open_command(ctx, req, NVME_KVV_MODE_STAT, true);
    return standard(ctx, req, NVME_KV_RETRIEVE);
}

static bool delete_key(struct kvn_ctx *ctx, struct kv_req *req)
{
    if (ctx->dev->vendor)
        return open_command(ctx, req, NVME_KVV_MODE_DELETE, false);
    if (ctx->dev->delete_tells)
        return standard(ctx, req, NVME_KV_DELETE);
    return false;
}

/* The object of the stream or snapshot is taken before the command is sent. */
static bool open_object(struct kvn_ctx *ctx, struct kv_req *req)
{
    struct kvn_stream *st = rt_pool_get(&ctx->streams);

    if (st == NULL) {
        kv_complete(req, -ENOMEM);
        return true;
    }
    *st = (struct kvn_stream){.ctx = ctx, .flags = req->flags, .len = req->len};
    if (req->op == KV_SNAP_OPEN) {
        req->snap = (struct kv_snap *)st;
        return open_command(ctx, req, NVME_KVV_MODE_SNAPSHOT, true);
    }
    req->stream = (struct kv_stream *)st;
    return open_command(ctx, req, NVME_KVV_MODE_STORE, true);
}

bool kvn_direct(struct kvn_ctx *ctx, struct kv_req *req)
{
    struct kvn_stream *st;

    switch (req->op) {
    case KV_STORE:
        return store(ctx, req);
    case KV_RETRIEVE:
        return req->off == 0 && fits(ctx, req) && !wants_version(ctx, req) &&
               standard(ctx, req, NVME_KV_RETRIEVE);
    case KV_STAT:
        return stat_key(ctx, req);
    case KV_DELETE:
        return delete_key(ctx, req);
    case KV_FLUSH:
        begin(ctx, req, NVME_OPC_FLUSH)->flags = NVME_REQ_REPEAT;
        return go(ctx, &kvn_io_of(req)->req);
    case KV_STORE_OPEN:
        return ctx->dev->vendor && open_object(ctx, req);
    case KV_SNAP_OPEN:
        return open_object(ctx, req);
    case KV_SNAP_CLOSE:
        return on_handle(ctx, req, (struct kvn_stream *)req->snap, NVME_KVV_CLOSE);
    case KV_WRITE:
    case KV_READ:
    case KV_COMMIT:
    case KV_ABORT:
    case KV_READ_CLOSE:
        st = kvn_stream_of(req);
        if (st->handle == 0)
            return false;
        if (req->op == KV_WRITE && req->len > UINT32_MAX)
            return kv_complete(req, -EFBIG), true;
        return on_handle(ctx, req, st,
                         req->op == KV_WRITE    ? NVME_KVV_WRITE
                         : req->op == KV_READ   ? NVME_KVV_READ
                         : req->op == KV_COMMIT ? NVME_KVV_COMMIT
                                                : NVME_KVV_CLOSE);
    default:
        return false;
    }
}
