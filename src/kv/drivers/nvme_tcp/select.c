/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries are pushed to the target: by the extended form of SELECT where the target announces it,
 * else by the basic commands where it lists them and the query fits them. The answer is fetched in
 * pieces. -ENOTSUP says that the target cannot, and the query is run here, on objects read from it.
 */
#include "kv/drivers/nvme_tcp/driver.h"

#include <stdio.h>
#include <string.h>

#define PIECE_BYTES (256u << 10)
#define PUSHED_MAX 32u           /* queries of one channel that may hold a result */
#define MARGIN_NS (5 * NS_PER_S) /* between a query's time and the time-out of its command */
#define TIME_MAX_NS (24 * 3600 * NS_PER_S)
#define TRIES_MAX 4u

static_assert((int)KV_SELECT_ARROW == (int)NVME_SEL_F_ARROW, "formats are the same");
static_assert((int)KV_SELECT_HEADER_NO == 2, "header is the same");

/* --- one command that may take long ----------------------------------------------------------- */

struct asking {
    struct nvme_req n;
    rt_req_fn cancel;
    struct rt_req abort_done;
    bool aborting;
};

static int abort_main(struct rt_task *t, void *arg)
{
    struct asking *a = arg;

    return nvme_abort(t, &a->n);
}

/* The task was cancelled, or its time is over: the target is asked to end the query. */
static void ask_cancel(struct rt_req *req)
{
    struct asking *a = container_of(req, struct asking, n.req);

    a->cancel(req);
    if (!a->aborting && req->state == RT_REQ_PENDING)
        a->aborting = rt_task_start("nvme abort", abort_main, a, &a->abort_done, NULL) == 0;
}

static int ask(struct rt_task *t, struct kvn_ctx *ctx, struct asking *a)
{
    int rc;

    a->n.sqe.nsid = le32_make(ctx->dev->ns.nsid);
    rt_req_init_task(&a->n.req, t);
    rt_req_init_task(&a->abort_done, t);
    nvme_submit(ctx->q, &a->n);
    a->cancel = a->n.req.cancel;
    a->n.req.cancel = ask_cancel;
    rc = rt_wait(t, &a->n.req);
    if (a->aborting) {
        rt_task_shield(t, true);
        rt_wait(t, &a->abort_done);
        rt_task_shield(t, false);
    }
    return rc;
}

/* --- fetching --------------------------------------------------------------------------------- */

struct push {
    struct kvn_ctx *ctx;
    const struct kv_select *q;
    struct kv_select_result *res;
    struct err *why;
    bool extended;
    uint32_t id;
    unsigned epoch; /* of the association that has the result */
    uint8_t *buf;   /* of a piece and what comes before it */
    bool delivered; /* the caller has had something of the answer */
};

static void command(struct push *p, struct nvme_req *n, struct iovec *iov, uint64_t off,
                    uint32_t room, uint32_t flags)
{
    struct nvme_sel_get g = {.id = p->id, .off = off, .len = room, .flags = flags};
    struct nvme_sel_receive r = {.id = p->id, .off = off, .len = room};

    *iov = (struct iovec){.iov_base = p->buf, .iov_len = room};
    *n = (struct nvme_req){.iov = iov, .iovcnt = 1, .data_len = room, .dir = NVME_DIR_C2H};
    r.options = flags & NVME_SEL_R_DROP ? 0 : NVME_SEL_KEEP_UNREAD;
    if (p->extended)
        nvme_sel_get_encode(&n->sqe, &g);
    else
        nvme_sel_receive_encode(&n->sqe, &r);
    if (room == 0)
        n->iovcnt = 0;
}

/* Nobody wants the result any more. */
static void drop(struct rt_task *t, struct push *p)
{
    struct nvme_req n;
    struct iovec iov;

    if (p->id == 0)
        return;
    command(p, &n, &iov, 0, 0, NVME_SEL_R_DROP);
    rt_task_shield(t, true);
    (void)kvn_exec(t, p->ctx, &n);
    rt_task_shield(t, false);
    p->id = 0;
}

static void take_info(struct push *p, const struct nvme_sel_info *info)
{
    struct kv_select_result *res = p->res;

    res->object_bytes = le64_get(info->object_bytes);
    res->read_bytes = le64_get(info->read_bytes);
    res->rows = le64_get(info->rows);
    res->queue_ns = le64_get(info->queue_ns);
    res->run_ns = le64_get(info->run_ns);
    res->schema_known = le32_get(info->flags) & NVME_SEL_I_SCHEMA_KNOWN;
}

/* One piece from `off` on: *out_data, *out_len, and whether more follows. */
static int piece(struct rt_task *t, struct push *p, uint64_t off, const uint8_t **out_data,
                 uint32_t *out_len, bool *out_more)
{
    bool info = p->extended && off == 0;
    uint32_t head = info ? (uint32_t)sizeof(struct nvme_sel_info) : 0;
    struct nvme_req n;
    struct iovec iov;
    int rc;

    command(p, &n, &iov, off, head + PIECE_BYTES, NVME_SEL_R_FREE | (info ? NVME_SEL_R_INFO : 0));
    rc = kvn_exec(t, p->ctx, &n);
    if (rc == -ENOENT && p->epoch != nvme_ctrl_epoch(p->ctx->dev->ctrl))
        return -ECONNRESET; /* it went with the association */
    if (rc == -ENOENT)
        return err_set(p->why, -EIO,
                       "the target has dropped the answer before it was read: too "
                       "many others, or a lost connection; try again");
    if (rc < 0)
        return rc;
    if (n.moved < head || n.moved > head + PIECE_BYTES || (p->extended && n.moved != n.dw0))
        return -EPROTO;
    if (info)
        take_info(p, (const struct nvme_sel_info *)p->buf);
    *out_data = p->buf + head;
    *out_len = n.moved - head;
    *out_more = p->extended ? (n.dw1 & NVME_SEL_MORE) != 0 : off + n.moved < n.dw0;
    return *out_more && *out_len == 0 ? -EPROTO : 0;
}

static int fetch(struct rt_task *t, struct push *p)
{
    uint64_t off = 0;
    bool more = true;

    while (more) {
        const uint8_t *data;
        uint32_t len;
        int rc = piece(t, p, off, &data, &len, &more);

        if (rc < 0)
            return rc;
        if (!more)
            p->id = 0; /* free at the target */
        off += len;
        p->res->result_bytes = off;
        p->delivered |= len > 0;
        rc = len > 0 ? p->res->data(t, p->res->arg, data, len) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- asking ----------------------------------------------------------------------------------- */

/* What the target says about a failure: dw0 is the number of a text. */
static void fetch_why(struct rt_task *t, struct push *p, uint32_t dw0, uint16_t status)
{
    const uint8_t *text = (const uint8_t *)nvme_sel_status_text(status);
    uint32_t len = (uint32_t)strlen((const char *)text);
    struct kv_select_result *res = p->res, unused = {0};
    bool more;

    p->id = dw0;
    p->res = &unused;
    if (dw0 != 0 && nvme_sel_id_ok(nvme_sel_id_of(p->ctx->dev->ns.vendor))) {
        const uint8_t *said;
        uint32_t n;

        if (piece(t, p, 0, &said, &n, &more) == 0 && n > 0) {
            text = said;
            len = n;
        }
    }
    p->res = res;
    p->id = 0;
    err_set(p->why, 0, "%.*s", (int)MIN(len, (uint32_t)ERR_TEXT_MAX), (const char *)text);
}

/* The milliseconds that the query may take, which the target is told, and from them how long the
 * command is waited for. A query that says nothing ends before any command is taken for lost. */
static uint32_t time_limit(const struct push *p, struct nvme_req *n)
{
    uint64_t command_ns = p->ctx->dev->timeout_ns != 0 ? p->ctx->dev->timeout_ns : 30 * NS_PER_S;
    uint64_t ns = MIN(p->q->timeout_ns, TIME_MAX_NS);

    if (ns == 0)
        ns = command_ns > 2 * MARGIN_NS ? command_ns - MARGIN_NS : command_ns / 2;
    else
        n->timeout_ns = ns + MARGIN_NS;
    return (uint32_t)MAX(ns / NS_PER_MS, 1u);
}

static int encode_extended(struct push *p, struct nvme_req *n, void **out_data)
{
    const struct kv_select *q = p->q;
    struct nvme_sel_query w = {
        .input = (enum nvme_sel_format)q->input,
        .output = (enum nvme_sel_format)q->output,
        .header = (uint8_t)q->header,
        .flags = q->header_out ? NVME_SEL_Q_HEADER_OUT : 0,
        .delim = q->delim,
        .quote = q->quote,
        .escape = q->escape,
        .nkeys = q->nkeys,
        .timeout_ms = time_limit(p, n),
        .sql = q->sql,
        .schema = q->schema,
        .prefix = q->nkeys > 0 ? (struct bytes){0} : q->prefix,
    };
    size_t len = nvme_sel_query_bytes(&w, q->keys);
    void *data;
    int rc;

    if (len > le32_get(nvme_sel_id_of(p->ctx->dev->ns.vendor)->data_max))
        return err_set(p->why, -ENOTSUP, "the query has %zu bytes, more than the target takes",
                       len);
    data = malloc(len);
    if (data == NULL)
        return -ENOMEM;
    rc = nvme_sel_query_encode(&n->sqe, data, &w, q->keys);
    if (rc < 0) {
        free(data);
        return err_set(p->why, rc == -E2BIG ? -EINVAL : rc,
                       "the statement, the schema or the list "
                       "of keys is too long");
    }
    n->data_len = (uint32_t)len;
    *out_data = data;
    return 0;
}

/* Whether the basic commands can say it. */
static bool fits_basic(const struct kv_select *q)
{
    bool in = (q->input == KV_SELECT_CSV && q->header != KV_SELECT_HEADER_AUTO) ||
              q->input == KV_SELECT_JSON || q->input == KV_SELECT_JSONL ||
              q->input == KV_SELECT_PARQUET;
    bool out = q->output == KV_SELECT_CSV || q->output == KV_SELECT_JSONL ||
               q->output == KV_SELECT_PARQUET;

    return in && out && q->nkeys == 1 && q->keys[0].len > 0 && q->keys[0].len <= NVME_KV_KEY_MAX &&
           q->schema.len == 0 && q->delim == 0 && q->quote == 0 && q->escape == 0 &&
           q->sql.len > 0 && q->sql.len <= NVME_SEL_SQL_MAX;
}

static int encode_basic(struct push *p, struct nvme_req *n, void **out_data)
{
    const struct kv_select *q = p->q;
    struct nvme_sel_send s = {
        .sql_len = (uint32_t)q->sql.len,
        .key_len = (uint8_t)q->keys[0].len,
        .input = q->input == KV_SELECT_CSV       ? NVME_SEL_CSV
                 : q->input == KV_SELECT_PARQUET ? NVME_SEL_PARQUET
                                                 : NVME_SEL_JSON,
        .output = q->output == KV_SELECT_CSV       ? NVME_SEL_CSV
                  : q->output == KV_SELECT_PARQUET ? NVME_SEL_PARQUET
                                                   : NVME_SEL_JSON,
    };

    if (q->header == KV_SELECT_HEADER_YES)
        s.options |= NVME_SEL_HEADER_IN;
    if (q->header_out)
        s.options |= NVME_SEL_HEADER_OUT;
    memcpy(s.key, q->keys[0].ptr, s.key_len);
    nvme_sel_send_encode(&n->sqe, false, &s);
    *out_data = malloc(q->sql.len);
    if (*out_data == NULL)
        return -ENOMEM;
    memcpy(*out_data, q->sql.ptr, q->sql.len);
    n->data_len = (uint32_t)q->sql.len;
    return 0;
}

/* Sends the query: p->id is its result. */
static int send_query(struct rt_task *t, struct push *p)
{
    CLEANUP(free_p) struct asking *a = calloc(1, sizeof(*a));
    CLEANUP(free_p) void *data = NULL;
    struct iovec iov;
    int rc;

    if (a == NULL)
        return -ENOMEM;
    a->n = (struct nvme_req){.dir = NVME_DIR_H2C, .flags = NVME_REQ_REPEAT};
    rc = p->extended ? encode_extended(p, &a->n, &data) : encode_basic(p, &a->n, &data);
    if (rc < 0)
        return rc;
    p->epoch = nvme_ctrl_epoch(p->ctx->dev->ctrl);
    iov = (struct iovec){.iov_base = data, .iov_len = a->n.data_len};
    a->n.iov = &iov;
    a->n.iovcnt = 1;
    rc = ask(t, p->ctx, a);
    if (rc == 0) {
        p->id = a->n.dw0;
        return p->id != 0 ? 0 : -EPROTO;
    }
    if (a->n.status == 0 || rt_task_cancelled(t))
        return rc;
    rc = nvme_sel_errno_of_status(a->n.status);
    fetch_why(t, p, a->n.dw0, a->n.status);
    if (rc == -ETIMEDOUT && p->q->timeout_ns == 0 && p->why != NULL) {
        size_t n = strlen(p->why->text);

        snprintf(p->why->text + n, sizeof(p->why->text) - n,
                 "; say how long it may take to let it take longer (%s)",
                 p->extended ? "--timeout" : "the target's configuration");
    }
    return rc;
}

static int push_once(struct rt_task *t, struct push *p)
{
    int rc = send_query(t, p);

    if (rc == 0)
        rc = fetch(t, p);
    drop(t, p);
    return rc;
}

int kvn_select(struct rt_task *t, struct kv_chan *chan, const struct kv_select *q,
               struct kv_select_result *res, struct err *why)
{
    struct kvn_ctx *ctx = kv_driver_chan(chan);
    CLEANUP(free_p) uint8_t *buf = NULL;
    struct push p = {.ctx = ctx, .q = q, .res = res, .why = why};
    int rc = 0;

    p.extended = ctx->dev->select_extended;
    if (!p.extended && !(ctx->dev->select_basic && fits_basic(q)))
        return err_set(why, -ENOTSUP, "the target does not run this query itself");
    while (ctx->pushed >= PUSHED_MAX && rc == 0)
        rc = rt_cond_wait(t, &ctx->pushed_less);
    if (rc < 0)
        return rc;
    p.buf = buf = malloc(sizeof(struct nvme_sel_info) + PIECE_BYTES);
    if (buf == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    ctx->pushed++;
    res->rows = UINT64_MAX;
    rc = push_once(t, &p);
    /* Nothing has been handed on: it may be done again as a whole. */
    for (unsigned i = 1; rc == -ECONNRESET && !p.delivered && i < TRIES_MAX; i++) {
        rc = rt_sleep(t, KVN_RETRY_NS);
        if (rc == 0)
            rc = push_once(t, &p);
    }
    ctx->pushed--;
    rt_cond_wake_one(&ctx->pushed_less);
    res->pushed = rc != -ENOTSUP;
    return rc;
}

/* --- what the target can ---------------------------------------------------------------------- */

/* The basic commands are in its list of effects. */
static bool lists_basic(struct rt_task *t, struct kvn_dev *d)
{
    CLEANUP(free_p) struct nvme_log_effects *log = calloc(1, sizeof(*log));

    return log != NULL &&
           nvme_get_log(t, d->ctrl, NVME_LID_EFFECTS, d->ns.nsid, NVME_CSI_KV, 0, log,
                        sizeof(*log)) == 0 &&
           (le32_get(log->io[NVME_KV_SELECT_SEND]) & NVME_EFFECT_CSUPP) &&
           (le32_get(log->io[NVME_KV_SELECT_RECEIVE]) & NVME_EFFECT_CSUPP);
}

void kvn_select_look(struct rt_task *t, struct kvn_dev *d)
{
    d->select_extended = d->want_vendor && nvme_sel_id_ok(nvme_sel_id_of(d->ns.vendor));
    d->select_basic = !d->select_extended && lists_basic(t, d);
}
