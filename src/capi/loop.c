/* SPDX-License-Identifier: Apache-2.0 */
/* The event-loop form: a runtime without a thread, and operations in the caller's memory. */
#include "capi/capi.h"

#include <stdlib.h>

/* What an operation needs below, in kvasir_op.opaque. */
struct op_inner {
    union {
        struct kv_req kv;
        struct blk_req blk;
    };
    struct iovec iov;
    struct kvasir_op *op;
    struct kv_chan *kv_chan; /* one of the two */
    struct blk_chan *blk_chan;
    struct rt *rt;
};
static_assert(sizeof(struct op_inner) <= sizeof(((struct kvasir_op *)0)->opaque),
              "fits in the caller's memory");

int kvasir_loop_new(struct kvasir_loop **out_loop)
{
    struct rt_config cfg = {.buf_bytes = 16 * MIB, .poll = RT_POLL_NEVER};
    struct kvasir_loop *loop = calloc(1, sizeof(*loop));
    struct err why = {""};
    int rc;

    if (loop == NULL)
        return capi_fail(-ENOMEM, NULL);
    rc = rt_loop_new(&cfg, &loop->rt, &why);
    if (rc < 0) {
        free(loop);
        return capi_fail(rc, why.text);
    }
    *out_loop = loop;
    return 0;
}

void kvasir_loop_free(struct kvasir_loop *loop)
{
    if (loop == NULL)
        return;
    rt_loop_free(loop->rt);
    free(loop);
}

int kvasir_loop_fd(const struct kvasir_loop *loop)
{
    return rt_loop_fd(loop->rt);
}

int kvasir_loop_timeout_ms(const struct kvasir_loop *loop)
{
    return rt_loop_timeout_ms(loop->rt);
}

void kvasir_loop_turn(struct kvasir_loop *loop)
{
    rt_loop_turn(loop->rt);
}

/* --- opening and closing ---------------------------------------------------------------------- */

/* One opening or closing under way. */
struct change {
    struct rt_req done;
    char *uri;
    struct kvasir_kv *kv; /* one of the two */
    struct kvasir_blk *blk;
    void (*opened_kv)(void *arg, int rc, struct kvasir_kv *kv);
    void (*opened_blk)(void *arg, int rc, struct kvasir_blk *blk);
    void (*closed)(void *arg);
    void *arg;
    struct err why;
};

static void change_free(struct change *c)
{
    free(c->uri);
    free(c);
}

static int open_task(struct rt_task *t, void *arg)
{
    struct change *c = arg;
    int rc;

    if (c->kv == NULL)
        return capi_blk_open(t, c->uri, c->blk, &c->why);
    rc = capi_kv_open(t, c->uri, c->kv, &c->why);
    c->kv->loop->kvs += rc == 0;
    return rc;
}

static void open_done(struct rt_req *req)
{
    struct change *c = container_of(req, struct change, done);
    int rc = req->rc;

    if (rc < 0) {
        capi_fail(rc, c->why.text);
        free(take_ptr(&c->kv));
        free(take_ptr(&c->blk));
    }
    if (c->opened_kv != NULL)
        c->opened_kv(c->arg, rc, c->kv);
    else
        c->opened_blk(c->arg, rc, c->blk);
    change_free(c);
}

static int open_start(struct kvasir_loop *loop, struct change *c)
{
    int rc = -ENOMEM;

    if (c->uri != NULL && (c->kv != NULL || c->blk != NULL)) {
        rt_req_init(&c->done, open_done);
        rc = rt_loop_start(loop->rt, "open", open_task, c, &c->done);
    }
    if (rc == 0)
        return 0;
    free(c->kv);
    free(c->blk);
    change_free(c);
    return capi_fail(rc, NULL);
}

int kvasir_loop_open_kv(struct kvasir_loop *loop, const char *uri,
                        void (*opened)(void *arg, int rc, struct kvasir_kv *kv), void *arg)
{
    struct change *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return capi_fail(-ENOMEM, NULL);
    *c = (struct change){.uri = strdup(uri), .opened_kv = opened, .arg = arg};
    c->kv = calloc(1, sizeof(*c->kv));
    if (c->kv != NULL)
        c->kv->loop = loop;
    return open_start(loop, c);
}

int kvasir_loop_open_blk(struct kvasir_loop *loop, const char *uri,
                         void (*opened)(void *arg, int rc, struct kvasir_blk *blk), void *arg)
{
    struct change *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return capi_fail(-ENOMEM, NULL);
    *c = (struct change){.uri = strdup(uri), .opened_blk = opened, .arg = arg};
    c->blk = calloc(1, sizeof(*c->blk));
    if (c->blk != NULL)
        c->blk->loop = loop;
    return open_start(loop, c);
}

static int close_task(struct rt_task *t, void *arg)
{
    struct change *c = arg;

    if (c->kv == NULL) {
        capi_blk_close(t, c->blk);
        return 0;
    }
    capi_kv_close(t, c->kv);
    if (--c->kv->loop->kvs == 0)
        capi_queries_end(t, &c->kv->loop->queries);
    return 0;
}

static void close_done(struct rt_req *req)
{
    struct change *c = container_of(req, struct change, done);

    free(c->kv);
    free(c->blk);
    if (c->closed != NULL)
        c->closed(c->arg);
    change_free(c);
}

static int close_start(struct kvasir_loop *loop, struct change what)
{
    struct change *c;
    int rc;

    if (loop == NULL)
        return capi_fail(-EINVAL, "the device was not opened for an event loop");
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return capi_fail(-ENOMEM, NULL);
    *c = what;
    rt_req_init(&c->done, close_done);
    rc = rt_loop_start(loop->rt, "close", close_task, c, &c->done);
    if (rc < 0) {
        change_free(c);
        return capi_fail(rc, NULL);
    }
    return 0;
}

int kvasir_loop_close_kv(struct kvasir_kv *kv, void (*closed)(void *arg), void *arg)
{
    return close_start(kv->loop, (struct change){.kv = kv, .closed = closed, .arg = arg});
}

int kvasir_loop_close_blk(struct kvasir_blk *blk, void (*closed)(void *arg), void *arg)
{
    return close_start(blk->loop, (struct change){.blk = blk, .closed = closed, .arg = arg});
}

/* --- operations ------------------------------------------------------------------------------- */

static struct op_inner *inner_of(struct kvasir_op *op)
{
    return (struct op_inner *)op->opaque;
}

static void kv_done(struct rt_req *req)
{
    struct op_inner *in = container_of(req, struct op_inner, kv.req);
    struct kvasir_op *op = in->op;

    op->rc = req->rc;
    op->moved = in->kv.moved;
    op->value_len = in->kv.value_len;
    op->version = in->kv.version;
    op->done(op);
}

static void blk_done(struct rt_req *req)
{
    struct op_inner *in = container_of(req, struct op_inner, blk.req);
    struct kvasir_op *op = in->op;

    op->rc = req->rc;
    op->moved = req->rc == 0 ? op->len : 0;
    op->done(op);
}

/* The layer's operation, and the flags it may have. */
static const struct code {
    bool is_kv;
    uint8_t op;
    uint32_t flags;
} codes[] = {
    [KVASIR_OP_PUT] = {true, KV_STORE,
                       KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION | KV_F_APPEND |
                           KV_F_NO_VERSION},
    [KVASIR_OP_GET] = {true, KV_RETRIEVE, KV_F_NO_VERSION},
    [KVASIR_OP_STAT] = {true, KV_STAT, KV_F_NO_VERSION},
    [KVASIR_OP_DELETE] = {true, KV_DELETE, KV_F_IF_VERSION},
    [KVASIR_OP_KV_FLUSH] = {true, KV_FLUSH, 0},
    [KVASIR_OP_READ] = {false, BLK_READ, 0},
    [KVASIR_OP_WRITE] = {false, BLK_WRITE, BLK_F_FUA},
    [KVASIR_OP_ZERO] = {false, BLK_WRITE_ZEROES, BLK_F_FUA | BLK_F_UNMAP},
    [KVASIR_OP_UNMAP] = {false, BLK_UNMAP, 0},
    [KVASIR_OP_BLK_FLUSH] = {false, BLK_FLUSH, 0},
};
static_assert(KVASIR_NO_VERSION == KV_F_NO_VERSION, "flags are the same bits");

static const struct code *code_of(const struct kvasir_op *op, bool is_kv)
{
    if (op->code >= ARRAY_LEN(codes) || codes[op->code].is_kv != is_kv ||
        (op->flags & ~codes[op->code].flags) != 0 || op->done == NULL)
        return NULL;
    return &codes[op->code];
}

/* Runs with the loop's reactor as the current one, inside a turn and outside. */
static void submit_now(void *arg)
{
    struct op_inner *in = arg;

    if (in->kv_chan != NULL)
        kv_submit(in->kv_chan, &in->kv);
    else
        blk_submit(in->blk_chan, &in->blk);
}

int kvasir_kv_submit(struct kvasir_kv *kv, struct kvasir_op *op)
{
    const struct code *code = code_of(op, true);
    struct op_inner *in = inner_of(op);

    if (code == NULL || kv->loop == NULL)
        return capi_fail(-EINVAL, NULL);
    in->op = op;
    in->rt = kv->loop->rt;
    in->kv_chan = kv->chan;
    in->blk_chan = NULL;
    in->iov = (struct iovec){.iov_base = op->buf, .iov_len = op->len};
    in->kv = (struct kv_req){.op = code->op,
                             .flags = op->flags,
                             .key = bytes_make(op->key, op->key_len),
                             .iov = &in->iov,
                             .iovcnt = 1,
                             .off = op->off,
                             .len = op->len,
                             .version = op->version};
    rt_req_init(&in->kv.req, kv_done);
    rt_loop_enter(in->rt, submit_now, in);
    return 0;
}

int kvasir_blk_submit(struct kvasir_blk *blk, struct kvasir_op *op)
{
    const struct code *code = code_of(op, false);
    struct op_inner *in = inner_of(op);
    uint64_t lba, nblocks;

    if (code == NULL || blk->loop == NULL ||
        capi_blocks(blk, op->off, op->len, &lba, &nblocks) < 0 || nblocks > UINT32_MAX)
        return capi_fail(-EINVAL, NULL);
    in->op = op;
    in->rt = blk->loop->rt;
    in->kv_chan = NULL;
    in->blk_chan = blk->chan;
    in->iov = (struct iovec){.iov_base = op->buf, .iov_len = op->len};
    in->blk = (struct blk_req){.op = code->op,
                               .flags = (uint8_t)op->flags,
                               .iov = &in->iov,
                               .iovcnt = 1,
                               .lba = lba,
                               .nblocks = (uint32_t)nblocks};
    rt_req_init(&in->blk.req, blk_done);
    rt_loop_enter(in->rt, submit_now, in);
    return 0;
}

static void cancel_now(void *arg)
{
    struct op_inner *in = arg;

    rt_req_cancel(in->kv_chan != NULL ? &in->kv.req : &in->blk.req);
}

void kvasir_cancel(struct kvasir_op *op)
{
    struct op_inner *in = inner_of(op);

    rt_loop_enter(in->rt, cancel_now, in);
}
