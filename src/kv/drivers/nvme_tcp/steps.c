/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that take several commands, written down as they go: the vendor commands open a handle
 * and work on it; the standard Delete asks first whether the key is there.
 */
#include "kv/drivers/nvme_tcp/driver.h"

#include <string.h>

int kvn_exec(struct rt_task *t, struct kvn_ctx *ctx, struct nvme_req *n)
{
    n->sqe.nsid = le32_make(ctx->dev->ns.nsid);
    rt_req_init_task(&n->req, t);
    nvme_submit(ctx->q, n);
    return kvn_rc(n, rt_wait(t, &n->req));
}

/* --- handles ---------------------------------------------------------------------------------- */

struct handle {
    struct kvn_ctx *ctx;
    uint32_t number; /* 0: none */
    uint32_t connection;
};

/* Opens by head, key and prefix where they are. */
static int open_handle(struct rt_task *t, struct kvn_ctx *ctx, const struct nvme_kvv_open *open,
                       const struct kvn_stream *snap, struct handle *out_h, uint32_t *out_dw1)
{
    struct nvme_kvv_open_head head;
    struct nvme_req n = {.flags = NVME_REQ_REPEAT, .dir = NVME_DIR_H2C};
    struct iovec iov[3] = {{.iov_base = &head, .iov_len = sizeof(head)}};
    int len = nvme_kvv_open_head(&n.sqe, &head, open);
    int rc;

    must(len > 0);
    n.iov = iov;
    n.iovcnt = 1;
    n.data_len = (uint32_t)len;
    if (open->key.len > 0)
        iov[n.iovcnt++] = (struct iovec){(void *)(uintptr_t)open->key.ptr, open->key.len};
    if (open->prefix.len > 0)
        iov[n.iovcnt++] = (struct iovec){(void *)(uintptr_t)open->prefix.ptr, open->prefix.len};
    if (snap != NULL) {
        n.flags |= NVME_REQ_BOUND;
        n.connection = snap->connection;
    }
    rc = kvn_exec(t, ctx, &n);
    if (rc < 0)
        return rc;
    if (n.dw0 == 0)
        return -EPROTO;
    *out_h = (struct handle){.ctx = ctx, .number = n.dw0};
    out_h->connection = nvme_queue_connection(ctx->q);
    *out_dw1 = n.dw1;
    return 0;
}

static int on_handle(struct rt_task *t, const struct handle *h, enum nvme_kvv_opcode opc,
                     const struct nvme_kvv_io *io, struct nvme_req *n)
{
    struct nvme_kvv_io filled = *io;

    filled.handle = h->number;
    nvme_kvv_io_encode(&n->sqe, opc, &filled);
    n->flags |= NVME_REQ_BOUND;
    n->connection = h->connection;
    return kvn_exec(t, h->ctx, n);
}

/* Whatever happened: a handle left open would keep an old version alive at the target. */
static void close_handle(struct rt_task *t, struct handle *h)
{
    struct nvme_req n = {.dir = NVME_DIR_NONE};

    if (h->number == 0)
        return;
    rt_task_shield(t, true);
    (void)on_handle(t, h, NVME_KVV_CLOSE, &(struct nvme_kvv_io){0}, &n);
    rt_task_shield(t, false);
    h->number = 0;
}

static int info(struct rt_task *t, const struct handle *h, bool last, uint64_t *out_len,
                uint64_t *out_version)
{
    struct nvme_kvv_info data;
    struct iovec iov = {.iov_base = &data, .iov_len = sizeof(data)};
    struct nvme_req n = {.dir = NVME_DIR_C2H,
                         .iov = &iov,
                         .iovcnt = 1,
                         .data_len = sizeof(data),
                         .flags = last ? 0 : NVME_REQ_REPEAT};
    struct nvme_kvv_io io = {.len = sizeof(data), .flags = last ? NVME_KVV_IO_CLOSE : 0};
    int rc = on_handle(t, h, NVME_KVV_INFO, &io, &n);

    if (rc < 0)
        return rc;
    if (n.moved != sizeof(data))
        return -EPROTO;
    *out_len = le64_get(data.value_len);
    *out_version = le64_get(data.version);
    return 0;
}

static bool wants_version(const struct kvn_ctx *ctx, const struct kv_req *req)
{
    return ctx->dev->versions && (req->flags & KV_F_NO_VERSION) == 0;
}

/* Opens the value for reading and learns length and version as far as they are wanted. */
static int open_value(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req,
                      struct handle *out_h)
{
    struct kvn_stream *snap = (struct kvn_stream *)req->snap;
    struct nvme_kvv_open open = {
        .mode = NVME_KVV_MODE_READ, .key = req->key, .snapshot = snap != NULL ? snap->handle : 0};
    uint32_t len;
    int rc = open_handle(t, ctx, &open, snap, out_h, &len);

    if (rc < 0)
        return rc;
    req->value_len = len;
    req->version = 0;
    if (wants_version(ctx, req) || len == UINT32_MAX)
        rc = info(t, out_h, false, &req->value_len, &req->version);
    return rc;
}

/* --- requests --------------------------------------------------------------------------------- */

static int retrieve(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct handle h = {0};
    int rc = open_value(t, ctx, req, &h);

    if (rc == 0 && req->off < req->value_len && req->len > 0) {
        uint64_t len = MIN(MIN(req->len, req->value_len - req->off), (uint64_t)UINT32_MAX);
        struct nvme_kvv_io io = {
            .len = (uint32_t)len, .offset = req->off, .flags = NVME_KVV_IO_CLOSE};
        struct nvme_req n = {
            .dir = NVME_DIR_C2H, .iov = req->iov, .iovcnt = req->iovcnt, .data_len = (uint32_t)len};

        rc = on_handle(t, &h, NVME_KVV_READ, &io, &n);
        if (rc == 0 && n.moved != len)
            rc = -EPROTO;
        if (rc == 0)
            h.number = 0;
        req->moved = rc == 0 ? len : 0;
    }
    close_handle(t, &h);
    return rc;
}

static int stat_versioned(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct kvn_stream *snap = (struct kvn_stream *)req->snap;
    struct nvme_kvv_open open = {
        .mode = NVME_KVV_MODE_READ, .key = req->key, .snapshot = snap != NULL ? snap->handle : 0};
    struct handle h = {0};
    uint32_t len;
    int rc = open_handle(t, ctx, &open, snap, &h, &len);

    if (rc == 0)
        rc = info(t, &h, true, &req->value_len, &req->version);
    if (rc == 0)
        h.number = 0;
    close_handle(t, &h);
    return rc;
}

/* One WRITE with COMMIT; nothing has happened before it, so failing before is failing cleanly. */
static int store(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct nvme_kvv_open open = {
        .mode = NVME_KVV_MODE_STORE,
        .flags = req->flags & (NVME_KVV_F_MUST_EXIST | NVME_KVV_F_MUST_NOT_EXIST |
                               NVME_KVV_F_IF_VERSION | NVME_KVV_F_APPEND),
        .declared_len = req->len,
        .version = (req->flags & KV_F_IF_VERSION) != 0 ? req->version : 0,
        .key = req->key,
    };
    struct nvme_kvv_io io = {.len = (uint32_t)req->len, .flags = NVME_KVV_IO_COMMIT};
    struct nvme_req n = {.dir = req->len > 0 ? NVME_DIR_H2C : NVME_DIR_NONE,
                         .iov = req->iov,
                         .iovcnt = req->iovcnt,
                         .data_len = (uint32_t)req->len};
    struct handle h = {0};
    uint32_t ignored;
    int rc;

    if (req->len > UINT32_MAX)
        return -EFBIG; /* in one piece; as a stream it can be larger */
    rc = open_handle(t, ctx, &open, NULL, &h, &ignored);
    if (rc == 0)
        rc = on_handle(t, &h, NVME_KVV_WRITE, &io, &n);
    if (rc == 0) {
        req->version = n.dw0 | (uint64_t)n.dw1 << 32;
        h.number = 0;
    }
    close_handle(t, &h);
    return rc;
}

static int retrieve_open(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct kvn_stream *st = rt_pool_get(&ctx->streams);
    struct handle h = {0};
    int rc;

    if (st == NULL)
        return -ENOMEM;
    rc = open_value(t, ctx, req, &h);
    if (rc < 0) {
        close_handle(t, &h);
        rt_pool_put(&ctx->streams, st);
        return rc;
    }
    *st = (struct kvn_stream){
        .ctx = ctx, .handle = h.number, .connection = h.connection, .len = req->value_len};
    req->stream = (struct kv_stream *)st;
    return 0;
}

/* --- lists ------------------------------------------------------------------------------------ */

/*
 * A page on the wire is a little larger than what it becomes. It is taken into the caller's buffer
 * and packed there when that is large, else by way of a buffer that holds any key.
 */
struct page {
    uint8_t *buf;
    uint32_t room;
    uint32_t len;
    struct iovec iov;
};

static struct page page_for(struct kv_req *req)
{
    struct page p = {.buf = req->iov[0].iov_base};

    p.room = (uint32_t)MIN(req->iov[0].iov_len, (size_t)(1u << 20)) & ~3u;
    if (req->iov[0].iov_len < KVN_PAGE_BYTES) {
        p.buf = kvn_io_of(req)->op->page;
        p.room = KVN_PAGE_BYTES;
    }
    p.iov = (struct iovec){.iov_base = p.buf, .iov_len = p.room};
    return p;
}

/* Into the form of kv_list_next(); entries only become shorter. `skip` is left out. */
static int repack(struct kv_req *req, const struct page *p, struct bytes skip)
{
    uint8_t *out = req->iov[0].iov_base;
    struct nvme_kv_list_iter it;
    struct bytes key;
    size_t used = 0;
    uint32_t n = 0;

    if (nvme_kv_list_begin(&it, p->buf, p->len) < 0)
        return -EPROTO;
    while (nvme_kv_list_next(&it, KV_KEY_MAX, &key)) {
        if (skip.len > 0 && bytes_eq(key, skip))
            continue;
        if (used + 2 + key.len > req->iov[0].iov_len) {
            req->more = true;
            break;
        }
        memmove(out + used + 2, key.ptr, key.len);
        le16_put(out + used, (uint16_t)key.len);
        used += key.len + 2;
        n++;
    }
    if (it.rc < 0)
        return -EPROTO;
    req->moved = used;
    req->nkeys = n;
    return 0;
}

static int list_vendor(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct kvn_stream *snap = (struct kvn_stream *)req->snap;
    struct nvme_kvv_open open = {
        .mode = NVME_KVV_MODE_LIST,
        .flags = (req->flags & KV_F_AFTER) != 0 && req->key.len > 0 ? NVME_KVV_F_AFTER : 0,
        .snapshot = snap != NULL ? snap->handle : 0,
        .key = req->key,
        .prefix = req->prefix,
    };
    struct page p = page_for(req);
    struct nvme_kvv_io io = {.len = p.room, .flags = NVME_KVV_IO_CLOSE};
    struct nvme_req n = {.dir = NVME_DIR_C2H, .iov = &p.iov, .iovcnt = 1, .data_len = p.room};
    struct handle h = {0};
    uint32_t ignored;
    int rc = open_handle(t, ctx, &open, snap, &h, &ignored);

    if (rc < 0)
        return rc;
    rc = on_handle(t, &h, NVME_KVV_READ, &io, &n);
    if (rc == 0)
        h.number = 0;
    close_handle(t, &h);
    if (rc < 0)
        return rc;
    if (n.dw0 != n.moved)
        return -EPROTO;
    p.len = n.moved;
    req->more = (n.dw1 & NVME_KVV_MORE) != 0;
    return repack(req, &p, bytes_make(NULL, 0));
}

/*
 * The standard List does not say whether it is at the end: it is when room for one more key was
 * left. It begins with the start key itself, which KV_F_AFTER leaves out.
 */
static int list_standard(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct page p = page_for(req);
    struct nvme_req n = {.dir = NVME_DIR_C2H,
                         .iov = &p.iov,
                         .iovcnt = 1,
                         .data_len = p.room,
                         .flags = NVME_REQ_REPEAT,
                         .sqe.opc = NVME_KV_LIST};
    struct bytes skip = (req->flags & KV_F_AFTER) != 0 ? req->key : bytes_make(NULL, 0);
    struct nvme_kv_list_iter it;
    struct bytes key;
    size_t used = NVME_KV_LIST_HEAD_BYTES;
    int rc;

    if (nvme_kv_key_put(&n.sqe, req->key) < 0)
        return -ENAMETOOLONG;
    n.sqe.cdw10 = le32_make(p.room);
    rc = kvn_exec(t, ctx, &n);
    if (rc < 0)
        return rc;
    p.len = n.moved;
    if (nvme_kv_list_begin(&it, p.buf, p.len) < 0)
        return -EPROTO;
    while (nvme_kv_list_next(&it, NVME_KV_KEY_MAX, &key))
        used += nvme_kv_list_entry_bytes(key.len);
    req->more = p.room - used < NVME_KV_LIST_ENTRY_MAX;
    return repack(req, &p, skip);
}

/* --- batches ---------------------------------------------------------------------------------- */

static int batch(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    const struct kvn_dev *d = ctx->dev;
    CLEANUP(free_p) struct nvme_kvv_record *head = NULL;
    CLEANUP(free_p) struct iovec *iov = NULL;
    struct nvme_req n = {.dir = NVME_DIR_H2C, .flags = NVME_REQ_REPEAT};
    uint64_t bytes = 0;
    unsigned at = 0;

    if (req->nbatch > d->batch_items_max)
        return -EFBIG;
    head = calloc(req->nbatch, sizeof(*head));
    iov = calloc((size_t)req->nbatch * 3, sizeof(*iov));
    if (head == NULL || iov == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < req->nbatch; i++) {
        const struct kv_batch_item *item = &req->batch[i];
        size_t val_len = item->is_delete ? 0 : item->val.len;

        head[i] = (struct nvme_kvv_record){
            .op = item->is_delete ? NVME_KVV_DELETE : NVME_KVV_PUT,
            .key_len = le16_make((uint16_t)item->key.len),
            .val_len = le32_make((uint32_t)val_len),
        };
        iov[at++] = (struct iovec){.iov_base = &head[i], .iov_len = sizeof(head[i])};
        iov[at++] = (struct iovec){(void *)(uintptr_t)item->key.ptr, item->key.len};
        if (val_len > 0)
            iov[at++] = (struct iovec){(void *)(uintptr_t)item->val.ptr, val_len};
        bytes += sizeof(head[i]) + item->key.len + val_len;
    }
    if (bytes > d->batch_bytes_max)
        return -EFBIG;
    n.iov = iov;
    n.iovcnt = at;
    n.data_len = (uint32_t)bytes;
    nvme_kvv_batch_encode(&n.sqe, (uint32_t)bytes, req->nbatch);
    return kvn_exec(t, ctx, &n);
}

/* --- standard Delete -------------------------------------------------------------------------- */

/* Between the two another host may delete the key: then both are told that they did. */
static int delete_standard(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct nvme_req n = {.sqe.opc = NVME_KV_EXIST, .flags = NVME_REQ_REPEAT};
    int rc = nvme_kv_key_put(&n.sqe, req->key);

    if (rc == 0)
        rc = kvn_exec(t, ctx, &n);
    if (rc < 0)
        return rc;
    n = (struct nvme_req){.sqe.opc = NVME_KV_DELETE};
    rc = nvme_kv_key_put(&n.sqe, req->key);
    return rc < 0 ? rc : kvn_exec(t, ctx, &n);
}

static int by_steps(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    bool vendor = ctx->dev->vendor;
    struct kvn_stream *st;

    switch (req->op) {
    case KV_STORE:
        return vendor ? kvn_store_rc(req->flags, store(t, ctx, req)) : -ENOTSUP;
    case KV_RETRIEVE:
        return vendor ? retrieve(t, ctx, req) : -ENOTSUP;
    case KV_STAT:
        return vendor ? stat_versioned(t, ctx, req) : -ENOTSUP;
    case KV_DELETE:
        return delete_standard(t, ctx, req);
    case KV_LIST:
        return vendor ? list_vendor(t, ctx, req) : list_standard(t, ctx, req);
    case KV_BATCH:
        return batch(t, ctx, req);
    case KV_STORE_OPEN:
        return kvn_std_store_open(t, ctx, req);
    case KV_RETRIEVE_OPEN:
        return vendor ? retrieve_open(t, ctx, req) : kvn_std_retrieve_open(t, ctx, req);
    case KV_WRITE:
        return kvn_std_write(t, kvn_stream_of(req), req);
    case KV_READ:
        return kvn_std_read(t, kvn_stream_of(req), req);
    case KV_COMMIT:
        st = kvn_stream_of(req);
        return kvn_std_commit(t, st);
    case KV_ABORT:
    case KV_READ_CLOSE:
        kvn_std_end(t, kvn_stream_of(req));
        return 0;
    default:
        return -ENOTSUP;
    }
}

/* Requests that may be done twice, as a whole, when the connection was lost in the middle. Handles
 * of a snapshot are lost with it. */
static bool may_repeat(const struct kv_req *req)
{
    switch (req->op) {
    case KV_STORE:
        return (req->flags & ~KV_F_NO_VERSION) == 0;
    case KV_RETRIEVE:
    case KV_STAT:
    case KV_LIST:
    case KV_STORE_OPEN:
    case KV_RETRIEVE_OPEN:
        return req->snap == NULL;
    default:
        return false;
    }
}

int kvn_steps(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    int rc = by_steps(t, ctx, req);
    bool repeated = false;

    /* -ESTALE: the value was replaced between the question for its length and the Retrieve. */
    for (unsigned i = 1; i < KVN_TRIES_MAX && may_repeat(req) &&
                         (rc == -ECONNRESET || (rc == -ESTALE && req->op == KV_RETRIEVE_OPEN));
         i++) {
        repeated |= rc == -ECONNRESET;
        rc = rt_sleep(t, KVN_RETRY_NS);
        if (rc == 0)
            rc = by_steps(t, ctx, req);
    }
    /* See kvn_rc(): the last try changed nothing, one before it may have. */
    return rc == -ENOSPC && repeated ? -ECONNRESET : rc;
}
