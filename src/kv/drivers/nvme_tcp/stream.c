/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values in pieces with the standard commands, which move a value whole: one Store or Retrieve is
 * open from first piece to last, on a connection of its own, and its data is fed or taken window by
 * window. The connection stands still meanwhile, so nobody else uses it; giving up is closing it.
 *
 * A Store counts as soon as its last byte has arrived. So the last bytes written (1 to 4, which
 * also keeps windows multiples of four) are held back until the next come, or the commit.
 */
#include "kv/drivers/nvme_tcp/driver.h"

#include <string.h>

#define CONN_WAIT_NS (20 * NS_PER_MS)

/* --- connections ------------------------------------------------------------------------------ */

static void conn_free(struct rt_task *t, struct kvn_conn *conn)
{
    nvme_queue_close(t, conn->q);
    free(conn);
}

/* One that waits for work, or a new one; when the target grants no more, in line for one. */
static int conn_get(struct rt_task *t, struct kvn_ctx *ctx, struct kvn_conn **out_conn)
{
    uint64_t until_ns = rt_now() + ctx->dev->timeout_ns;
    struct kvn_conn *conn;
    int rc;

    for (;;) {
        while ((conn = list_pop_entry(&ctx->idle, struct kvn_conn, link)) != NULL) {
            if (nvme_queue_live(conn->q)) {
                *out_conn = conn;
                return 0;
            }
            conn_free(t, conn);
        }
        conn = calloc(1, sizeof(*conn));
        if (conn == NULL)
            return -ENOMEM;
        rc = nvme_queue_open(t, ctx->dev->ctrl, true, &conn->q, NULL);
        if (rc == 0) {
            *out_conn = conn;
            return 0;
        }
        free(conn);
        if (rc != -EBUSY)
            return rc;
        if (rt_now() >= until_ns)
            return -ETIMEDOUT;
        rc = rt_sleep(t, CONN_WAIT_NS);
        if (rc < 0)
            return rc;
    }
}

static void conn_put(struct rt_task *t, struct kvn_ctx *ctx, struct kvn_conn *conn)
{
    if (nvme_queue_live(conn->q))
        list_add_tail(&ctx->idle, &conn->link);
    else
        conn_free(t, conn);
}

void kvn_std_fini(struct rt_task *t, struct kvn_ctx *ctx)
{
    struct kvn_conn *conn;

    while ((conn = list_pop_entry(&ctx->idle, struct kvn_conn, link)) != NULL)
        conn_free(t, conn);
}

/* --- the one command -------------------------------------------------------------------------- */

static void stream_fed(struct nvme_req *n)
{
    struct kvn_stream *st = container_of(n, struct kvn_stream, req);

    st->hungry = true;
    rt_cond_wake_all(&st->changed);
}

static void stream_done(struct rt_req *rreq)
{
    struct kvn_stream *st = container_of(rreq, struct kvn_stream, req.req);

    st->done = true;
    rt_cond_wake_all(&st->changed);
}

static int start(struct rt_task *t, struct kvn_stream *st, uint8_t opc, enum nvme_dir dir)
{
    uint32_t len = (uint32_t)st->len;
    int rc = conn_get(t, st->ctx, &st->conn);

    if (rc < 0)
        return rc;
    st->req = (struct nvme_req){.sqe.opc = opc,
                                .sqe.nsid = le32_make(st->ctx->dev->ns.nsid),
                                .sqe.cdw10 = le32_make(len),
                                .dir = (uint8_t)(len > 0 ? dir : NVME_DIR_NONE),
                                .data_len = len,
                                .fed = stream_fed};
    rc = nvme_kv_key_put(&st->req.sqe, bytes_make(st->key, st->key_len));
    must(rc == 0);
    nvme_kv_set_options(&st->req.sqe, st->options);
    rt_req_init(&st->req.req, stream_done);
    st->started = true;
    nvme_submit(st->conn->q, &st->req);
    return 0;
}

/*
 * Until the target asks for data, or sends some, or is done: then it has looked at what the key
 * holds, and what happens to the key afterwards is none of this stream's business (of a Store until
 * its commit).
 */
static int wait_begun(struct rt_task *t, struct kvn_stream *st)
{
    int rc = 0;

    while (rc == 0 && !st->hungry && !st->done)
        rc = rt_cond_wait(t, &st->changed);
    if (rc == 0 && st->done)
        rc = st->req.req.rc < 0 ? st->req.req.rc : -ESTALE;
    return rc;
}

/* Gives a window and waits until it has been moved, or the command is over. */
static int move(struct rt_task *t, struct kvn_stream *st, unsigned iovcnt, uint32_t len)
{
    int rc = 0;

    while (rc == 0 && !st->hungry && !st->done)
        rc = rt_cond_wait(t, &st->changed);
    if (rc < 0 || st->done)
        return rc < 0 ? rc : st->req.req.rc;
    st->hungry = false;
    nvme_req_feed(&st->req, st->iov, iovcnt, len);
    while (rc == 0 && !st->hungry && !st->done)
        rc = rt_cond_wait(t, &st->changed);
    if (rc < 0)
        nvme_queue_drop(st->conn->q); /* it may still use the caller's memory: until it is over */
    while (rc < 0 && !st->done) {
        rt_task_shield(t, true);
        rt_cond_wait(t, &st->changed);
        rt_task_shield(t, false);
    }
    return rc < 0 ? rc : (st->done ? st->req.req.rc : 0);
}

/* The command ends, one way or the other, and gives its connection back. */
static void finish(struct rt_task *t, struct kvn_stream *st)
{
    if (!st->started)
        return;
    rt_task_shield(t, true);
    if (!st->done)
        nvme_queue_drop(st->conn->q);
    while (!st->done)
        rt_cond_wait(t, &st->changed);
    conn_put(t, st->ctx, st->conn);
    rt_task_shield(t, false);
    st->started = false;
    st->conn = NULL;
}

void kvn_std_end(struct rt_task *t, struct kvn_stream *st)
{
    finish(t, st);
    rt_pool_put(&st->ctx->streams, st);
}

static struct kvn_stream *stream_new(struct kvn_ctx *ctx, struct bytes key)
{
    struct kvn_stream *st = rt_pool_get(&ctx->streams);

    if (st == NULL)
        return NULL;
    *st = (struct kvn_stream){.ctx = ctx, .key_len = (uint8_t)key.len};
    memcpy(st->key, key.ptr, key.len);
    return st;
}

/* --- storing ---------------------------------------------------------------------------------- */

/* What will be refused at the end is better refused before all the data. */
static int check_condition(struct rt_task *t, struct kvn_ctx *ctx, const struct kv_req *req)
{
    struct nvme_req n = {.sqe.opc = NVME_KV_EXIST, .flags = NVME_REQ_REPEAT};
    int rc;

    if ((req->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST)) == 0)
        return 0;
    rc = nvme_kv_key_put(&n.sqe, req->key);
    if (rc == 0)
        rc = kvn_exec(t, ctx, &n);
    if ((req->flags & KV_F_MUST_EXIST) != 0)
        return rc;
    if (rc == -ENOENT)
        return 0;
    return rc == 0 ? -EEXIST : rc;
}

int kvn_std_store_open(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    int rc = check_condition(t, ctx, req);
    struct kvn_stream *st;

    if (rc < 0)
        return rc;
    st = stream_new(ctx, req->key);
    if (st == NULL)
        return -ENOMEM;
    st->len = req->len;
    st->options = kvn_store_options(req->flags);
    if (st->len > 0) /* a Store without data would count at once: it is sent by the commit */
        rc = start(t, st, NVME_KV_STORE, NVME_DIR_H2C);
    if (rc == 0 && st->len > 0)
        rc = wait_begun(t, st);
    if (rc < 0) {
        kvn_std_end(t, st);
        return rc;
    }
    req->version = 0;
    req->stream = (struct kv_stream *)st;
    return 0;
}

/* A window of what was held back (of writers) and `len` bytes of the caller's from `off`, as far as
 * it fits. */
static uint32_t gather(struct kvn_stream *st, const struct kv_req *req, uint64_t off, uint64_t len,
                       unsigned *out_n)
{
    uint64_t got = st->nheld, skip = off;
    unsigned n = 0;

    memcpy(st->sending, st->held, st->nheld);
    if (st->nheld > 0)
        st->iov[n++] = (struct iovec){.iov_base = st->sending, .iov_len = st->nheld};
    len = MIN(len + got, (uint64_t)(1u << 30));
    for (unsigned i = 0; i < req->iovcnt && n < KVN_STREAM_IOV && got < len; i++) {
        size_t here = req->iov[i].iov_len;

        if (skip >= here) {
            skip -= here;
            continue;
        }
        here = MIN(here - skip, len - got);
        st->iov[n++] = (struct iovec){(uint8_t *)req->iov[i].iov_base + skip, here};
        got += here;
        skip = 0;
    }
    *out_n = n;
    return (uint32_t)got;
}

/* Takes `cut` bytes off the end of the window. */
static void shorten(struct kvn_stream *st, unsigned *n, uint32_t cut)
{
    while (cut > 0) {
        struct iovec *last = &st->iov[*n - 1];
        uint32_t here = MIN(cut, (uint32_t)last->iov_len);

        last->iov_len -= here;
        cut -= here;
        if (last->iov_len == 0)
            --*n;
    }
}

int kvn_std_write(struct rt_task *t, struct kvn_stream *st, struct kv_req *req)
{
    uint64_t off = 0;

    while (off < req->len) {
        unsigned n;
        uint32_t got = gather(st, req, off, req->len - off, &n);
        uint32_t keep = (got - 1) % 4 + 1;
        uint64_t next = off + got - st->nheld;
        int rc = 0;

        shorten(st, &n, keep);
        if (got > keep)
            rc = move(t, st, n, got - keep);
        if (rc < 0)
            return rc;
        if (st->done && got > keep)
            return -EPROTO; /* stored before it was whole */
        if (next - off >= keep) {
            iov_copy_out(req->iov, req->iovcnt, next - keep, st->held, keep);
        } else { /* all of this piece joins what was held */
            iov_copy_out(req->iov, req->iovcnt, off, st->held + st->nheld, next - off);
        }
        st->nheld = (uint8_t)keep;
        off = next;
    }
    return 0;
}

int kvn_std_commit(struct rt_task *t, struct kvn_stream *st)
{
    int rc = 0;

    if (st->len == 0)
        rc = start(t, st, NVME_KV_STORE, NVME_DIR_H2C);
    if (rc == 0 && st->len > 0) {
        memcpy(st->sending, st->held, st->nheld);
        st->iov[0] = (struct iovec){.iov_base = st->sending, .iov_len = st->nheld};
        rc = move(t, st, 1, st->nheld);
    }
    while (rc == 0 && !st->done)
        rc = rt_cond_wait(t, &st->changed);
    if (rc == 0)
        rc = st->req.req.rc;
    kvn_std_end(t, st);
    return rc;
}

/* --- retrieving ------------------------------------------------------------------------------- */

/* The length of the value comes with its first bytes. */
static int ask_len(struct rt_task *t, struct kvn_ctx *ctx, struct bytes key, uint64_t *out_len)
{
    uint8_t first[4];
    struct iovec iov = {.iov_base = first, .iov_len = sizeof(first)};
    struct nvme_req n = {.sqe.opc = NVME_KV_RETRIEVE,
                         .sqe.cdw10 = le32_make(sizeof(first)),
                         .dir = NVME_DIR_C2H,
                         .flags = NVME_REQ_REPEAT,
                         .iov = &iov,
                         .iovcnt = 1,
                         .data_len = sizeof(first)};
    int rc = nvme_kv_key_put(&n.sqe, key);

    if (rc == 0)
        rc = kvn_exec(t, ctx, &n);
    if (rc == 0)
        *out_len = n.dw0;
    return rc;
}

static int begin_retrieve(struct rt_task *t, struct kvn_stream *st)
{
    int rc = ask_len(t, st->ctx, bytes_make(st->key, st->key_len), &st->len);

    if (rc < 0 || st->len == 0)
        return rc;
    rc = start(t, st, NVME_KV_RETRIEVE, NVME_DIR_C2H);
    return rc < 0 ? rc : wait_begun(t, st);
}

int kvn_std_retrieve_open(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req)
{
    struct kvn_stream *st = stream_new(ctx, req->key);
    int rc;

    if (st == NULL)
        return -ENOMEM;
    rc = begin_retrieve(t, st);
    if (rc < 0) {
        kvn_std_end(t, st);
        return rc;
    }
    req->version = 0;
    req->value_len = st->len;
    req->stream = (struct kv_stream *)st;
    return 0;
}

/* The layer reads in order. A value replaced between our two questions has another length. */
int kvn_std_read(struct rt_task *t, struct kvn_stream *st, struct kv_req *req)
{
    uint64_t want = MIN(req->len, st->len - st->pos);

    must(req->off == st->pos);
    while (req->moved < want) {
        uint32_t before = st->req.moved;
        unsigned n;
        uint32_t len = gather(st, req, req->moved, want - req->moved, &n);
        int rc = move(t, st, n, len);

        if (rc < 0)
            return rc;
        req->moved += st->req.moved - before;
        st->pos += st->req.moved - before;
        if (st->done && (st->req.moved != st->len || st->req.dw0 != st->len))
            return -ESTALE;
    }
    return 0;
}
