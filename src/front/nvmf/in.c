/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers from the host, by R2T. A connection has NVMF_INS of them at a time; each has one
 * window open, and takes a buffer of the pool only while its data is arriving.
 *
 * What fits one buffer is collected there and carried out by one request. What does not goes in
 * parts to a task of the command. A transfer that waits for its host is registered with the pool:
 * when somebody else needs its buffer, it becomes one in parts and hands over what it has. When
 * the pool has no buffer at all, data is passed on from where it was received. So a transfer never
 * waits for the pool, and a host that stops sending holds nothing that others need.
 */
#include "front/nvmf/internal.h"

#include <string.h>

static bool waiting_in_line(const struct nvmf_conn *c)
{
    return !list_empty(&c->in_wait);
}

/* --- beginning, asking ------------------------------------------------------------------------ */

static void r2t_sent(struct net_tx_item *item, int rc)
{
    container_of(item, struct nvmf_in, tx)->r2t_queued = false;
}

/* Asks for the next window. */
static void send_r2t(struct nvmf_in *in)
{
    struct nvmf_conn *c = in->conn;
    uint32_t len = MIN(in->total - in->got, c->tgt->cfg.r2t_window_bytes);
    uint16_t ttag = (uint16_t)(++in->gen * NVMF_INS + (unsigned)(in - c->in));
    uint16_t cid = le16_get(in->cmd->sqe.cid);
    size_t n = nvme_tcp_put_r2t(in->hdr, &c->ptx, cid, ttag, in->got, len);

    in->win =
        (struct nvme_tcp_window){.cccid = cid, .ttag = ttag, .next = in->got, .end = in->got + len};
    in->open = true;
    in->r2t_queued = true;
    in->tx.done = r2t_sent;
    in->tx.iov[0] = (struct iovec){.iov_base = in->hdr, .iov_len = n};
    in->tx.iovcnt = 1;
    net_tx_add(&c->tx, &in->tx);
}

void nvmf_in_start(struct nvmf_in *in)
{
    if (!in->open && in->got == 0 && !in->discard)
        send_r2t(in);
}

static void yield(struct rt_buf_holder *h);

/* Has a task take the data in parts. False: none can be had, and the transfer fails (the host may
 * try again). */
static bool to_stream(struct nvmf_in *in)
{
    if (in->stream)
        return true;
    in->stream = in->cmd->task_fn != NULL && nvmf_cmd_task(in->cmd, in->cmd->task_fn);
    if (!in->stream)
        nvmf_in_fail(in, NVME_SC_CMD_INTERRUPTED);
    return in->stream;
}

/* Gives the command a transfer and sets out. */
static void in_attach(struct nvmf_in *in, struct nvmf_cmd *cmd)
{
    struct nvmf_conn *c = in->conn;

    in->cmd = cmd;
    cmd->in = in;
    in->total = cmd->data_len;
    in->unit = cmd->out.len;
    in->got = in->fill = in->tail_len = 0;
    in->open = in->stream = in->complete = in->discard = in->yield_later = in->resting = false;
    in->status = 0;
    in->holder.yield = yield;
    c->nin++;
    if (cmd->run != NULL && in->total <= RT_BUF_LARGE_BYTES)
        send_r2t(in);
    else if (!to_stream(in))
        nvmf_cmd_complete(cmd, in->status);
}

void nvmf_in_begin(struct nvmf_cmd *cmd, uint32_t total, uint32_t unit,
                   void (*whole)(struct nvmf_cmd *cmd),
                   int (*task)(struct rt_task *t, struct nvmf_cmd *cmd))
{
    struct nvmf_conn *c = cmd->conn;

    must(total > 0);
    cmd->state = NVMF_CMD_IN;
    cmd->data_len = total;
    cmd->out.len = unit; /* kept there until the transfer has its turn */
    cmd->run = whole;
    cmd->task_fn = task;
    list_init(&cmd->link);
    if (!waiting_in_line(c)) {
        for (unsigned i = 0; i < NVMF_INS; i++) {
            if (c->in[i].cmd == NULL && !c->in[i].r2t_queued) {
                in_attach(&c->in[i], cmd);
                return;
            }
        }
    }
    list_add_tail(&c->in_wait, &cmd->link);
}

/* --- giving back ------------------------------------------------------------------------------ */

static void part_put(struct nvmf_in *in, struct nvmf_part *part)
{
    if (part->buf != NULL)
        rt_buf_put(part->buf);
    *part = (struct nvmf_part){0};
    rt_cond_wake_all(&in->room);
}

static void buf_put(struct nvmf_in *in)
{
    if (in->buf == NULL)
        return;
    rt_buf_busy(&in->holder);
    rt_buf_put(in->buf);
    in->buf = NULL;
    in->fill = 0;
}

void nvmf_in_free(struct nvmf_in *in)
{
    struct nvmf_conn *c = in->conn;

    must(!in->open || c->closing);
    buf_put(in);
    part_put(in, &in->ready);
    part_put(in, &in->cur);
    in->cmd->in = NULL;
    in->cmd = NULL;
    in->open = false;
    c->nin--;
    if (c->in_pumping)
        return;
    /* The next may end at once; that is for this loop, not for one inside it. */
    c->in_pumping = true;
    while (in->cmd == NULL && !c->closing) {
        struct nvmf_cmd *next = list_pop_entry(&c->in_wait, struct nvmf_cmd, link);

        if (next == NULL)
            break;
        in_attach(in, next);
    }
    c->in_pumping = false;
}

void nvmf_in_fail(struct nvmf_in *in, uint16_t status)
{
    if (in->status == 0)
        in->status = status;
    in->discard = true;
    buf_put(in);
    if (!in->stream)
        nvmf_cmd_release_ns(in->cmd);
    rt_cond_wake_all(&in->more);
    rt_cond_wake_all(&in->room);
}

/* --- the task's side -------------------------------------------------------------------------- */

int nvmf_in_next(struct rt_task *t, struct nvmf_in *in, struct nvmf_part *out)
{
    part_put(in, &in->cur);
    if (in->yield_later && in->resting && in->buf != NULL)
        rt_buf_idle(&in->holder);
    in->yield_later = false;
    for (;;) {
        int rc;

        if (in->conn->closing || nvmf_cmd_use(in->cmd)->gone)
            nvmf_in_fail(in, NVME_SC_INVALID_NS | NVME_SC_DNR);
        if (in->discard)
            return -EIO;
        if (in->ready.len > 0)
            break;
        if (in->complete)
            return 0;
        rc = rt_cond_wait(t, &in->more);
        if (rc < 0)
            nvmf_in_fail(in, NVME_SC_ABORT_REQ | NVME_SC_DNR);
    }
    in->cur = in->ready;
    in->ready = (struct nvmf_part){0};
    rt_cond_wake_all(&in->room);
    *out = in->cur;
    return 1;
}

void nvmf_in_discard(struct rt_task *t, struct nvmf_in *in)
{
    nvmf_in_fail(in, in->status);
    part_put(in, &in->ready);
    part_put(in, &in->cur);
    nvmf_cmd_release_ns(in->cmd);
    rt_task_shield(t, true);
    while (in->open && !in->conn->closing)
        rt_cond_wait(t, &in->more);
    rt_task_shield(t, false);
}

/* --- handing over ----------------------------------------------------------------------------- */

static void hand_over(struct nvmf_in *in, struct nvmf_part part)
{
    must(in->ready.len == 0);
    in->ready = part;
    rt_cond_wake_all(&in->more);
}

/* The whole units of the buffer go to the task, the rest of a unit to the side. */
static void hand_over_buffer(struct nvmf_in *in)
{
    uint32_t rest = in->got < in->total ? in->fill % in->unit : 0;
    uint32_t len = in->fill - rest;

    if (rest > 0)
        memcpy(in->tail, in->buf->data + len, rest);
    in->tail_len = rest;
    if (len == 0) {
        buf_put(in);
        return;
    }
    rt_buf_busy(&in->holder);
    hand_over(in, (struct nvmf_part){.data = in->buf->data, .len = len, .buf = in->buf});
    in->buf = NULL;
    in->fill = 0;
}

/* Somebody needs a buffer, and this transfer waits for its host. From the loop. */
static void yield(struct rt_buf_holder *h)
{
    struct nvmf_in *in = container_of(h, struct nvmf_in, holder);

    if (in->fill == 0) {
        buf_put(in);
        return;
    }
    if (in->ready.len > 0) { /* the task has two already: they come back soon */
        in->yield_later = true;
        return;
    }
    if (!to_stream(in))
        return;
    in->conn->local->stats.yields++;
    hand_over_buffer(in);
}

/* --- receiving -------------------------------------------------------------------------------- */

/* Waits until the task has room for another part. */
static int wait_room(struct rt_task *t, struct nvmf_in *in)
{
    while (in->ready.len > 0 && !in->discard) {
        int rc = rt_cond_wait(t, &in->room);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* A buffer for what comes next, if the pool has one. */
static bool get_buffer(struct nvmf_in *in)
{
    size_t want = (size_t)(in->total - in->got) + in->tail_len;

    in->buf = rt_buf_get(MIN(want, (size_t)RT_BUF_LARGE_BYTES));
    if (in->buf == NULL)
        return false;
    in->holder.size_bytes = in->buf->size_bytes;
    memcpy(in->buf->data, in->tail, in->tail_len);
    in->fill = in->tail_len;
    in->tail_len = 0;
    return true;
}

static void count_in(struct nvmf_in *in, size_t n, const void *data, uint32_t *crc)
{
    in->got += (uint32_t)n;
    in->conn->local->stats.bytes_in += n;
    if (in->conn->prx.ddgst)
        *crc = crc32c(*crc, data, n);
}

/* Throws away up to `len` bytes that are there, or waits for some. */
static ssize_t drop_some(struct rt_task *t, struct nvmf_in *in, uint32_t len, uint32_t *crc)
{
    struct nvmf_conn *c = in->conn;
    int rc = nvmf_rx_need(t, c, 1);
    size_t n = MIN(net_rx_avail(&c->rx), (size_t)len);

    if (rc < 0)
        return rc;
    count_in(in, n, net_rx_at(&c->rx), crc);
    net_rx_consume(&c->rx, n);
    return (ssize_t)n;
}

/* While nothing arrives the pool may ask for the buffer. */
static void rest(struct nvmf_in *in, bool on)
{
    in->resting = on;
    if (in->buf != NULL && on)
        rt_buf_idle(&in->holder);
    else if (in->buf != NULL)
        rt_buf_busy(&in->holder);
}

/* Receives into the transfer's buffer. */
static ssize_t fill_buffer(struct rt_task *t, struct nvmf_in *in, uint32_t len, uint32_t *crc)
{
    struct nvmf_conn *c = in->conn;
    uint8_t *at = in->buf->data + in->fill;
    struct iovec iov = {.iov_base = at, .iov_len = MIN(in->buf->size_bytes - in->fill, len)};
    size_t cap = c->rx.cap;
    ssize_t n;
    int rc;

    nvmf_rx_rewind(c);
    /* What comes after it is looked at in small steps: it may be data with a place of its own. */
    c->rx.cap = MIN(cap, c->rx.tail + 512);
    n = net_rx_read_now(&c->rx, &iov, 1, 0, iov.iov_len);
    c->rx.cap = cap;
    if (n == -EAGAIN) {
        rest(in, true);
        rc = nvmf_rx_park(t, c);
        rest(in, false);
        return rc;
    }
    if (n > 0) {
        in->fill += (uint32_t)n;
        count_in(in, (size_t)n, at, crc);
    }
    return n;
}

/* The pool is empty: units are passed on from the receive buffer, or put together at the side. */
static ssize_t pass_on(struct rt_task *t, struct nvmf_in *in, uint32_t len, uint32_t *crc)
{
    struct nvmf_conn *c = in->conn;
    struct nvmf_part part = {.in_place = true};
    bool at_end;
    size_t n;
    int rc;

    if (!to_stream(in))
        return 0;
    rc = nvmf_rx_need(t, c, 1);
    if (rc == 0)
        rc = wait_room(t, in);
    if (rc < 0 || in->discard)
        return rc;
    n = MIN(net_rx_avail(&c->rx), (size_t)len);
    at_end = in->got + n == in->total;
    if (in->tail_len > 0 || (n < in->unit && !at_end)) {
        n = MIN(n, (size_t)(in->unit - in->tail_len));
        memcpy(in->tail + in->tail_len, net_rx_at(&c->rx), n);
        in->tail_len += (uint32_t)n;
        if (in->tail_len == in->unit || in->got + n == in->total)
            part = (struct nvmf_part){.data = in->tail, .len = in->tail_len, .in_place = true};
    } else {
        if (!at_end)
            n -= n % in->unit;
        part.data = c->rx.buf + c->rx.head;
        part.len = (uint32_t)n;
    }
    count_in(in, n, net_rx_at(&c->rx), crc);
    if (part.len > 0) {
        hand_over(in, part);
        if (part.data == in->tail)
            in->tail_len = 0;
        while ((in->ready.in_place || in->cur.in_place) && !in->discard) {
            rc = rt_cond_wait(t, &in->room);
            if (rc < 0)
                break;
        }
        /* The task may still be at work on it: it stays until that has ended. */
        rt_task_shield(t, true);
        while (in->cur.in_place)
            rt_cond_wait(t, &in->room);
        rt_task_shield(t, false);
        if (in->ready.in_place)
            in->ready = (struct nvmf_part){0};
    }
    net_rx_consume(&c->rx, n);
    return rc < 0 ? rc : (ssize_t)n;
}

/* Takes the `len` bytes of one PDU's data. */
static int take_data(struct rt_task *t, struct nvmf_in *in, uint32_t len, uint32_t *crc)
{
    while (len > 0) {
        uint32_t before = in->got;
        ssize_t n;

        if (in->discard) {
            n = drop_some(t, in, len, crc);
        } else if (in->buf != NULL || get_buffer(in)) {
            if (in->fill == in->buf->size_bytes) {
                n = to_stream(in) ? wait_room(t, in) : 0;
                if (n == 0 && !in->discard)
                    hand_over_buffer(in);
            } else {
                n = fill_buffer(t, in, len, crc);
            }
        } else {
            n = pass_on(t, in, len, crc);
        }
        if (n < 0)
            return (int)n;
        len -= in->got - before;
    }
    return 0;
}

/* Everything is there. */
static int finish(struct rt_task *t, struct nvmf_in *in)
{
    struct nvmf_cmd *cmd = in->cmd;

    in->open = false;
    if (in->stream) {
        if (in->fill > 0 && !in->discard) {
            int rc = wait_room(t, in);

            if (rc < 0)
                return rc;
            if (!in->discard && in->fill > 0)
                hand_over_buffer(in);
        }
        in->complete = true;
        rt_cond_wake_all(&in->more);
        return 0;
    }
    if (in->discard) {
        nvmf_cmd_complete(cmd, in->status);
        return 0;
    }
    cmd->buf = in->buf;
    cmd->iov[0] = (struct iovec){.iov_base = in->buf->data, .iov_len = in->total};
    in->buf = NULL;
    in->fill = 0;
    nvmf_in_free(in);
    cmd->state = NVMF_CMD_ACTIVE;
    if (cmd->conn->qid == 0)
        nvmf_admin(t, cmd, bytes_make(cmd->iov[0].iov_base, cmd->data_len));
    else
        cmd->run(cmd);
    return 0;
}

/* The host has sent what it was asked for. */
static int window_done(struct rt_task *t, struct nvmf_in *in)
{
    if (in->got == in->total)
        return finish(t, in);
    in->open = false;
    if (!in->discard) {
        send_r2t(in);
        return 0;
    }
    if (in->stream)
        rt_cond_wake_all(&in->more);
    else
        nvmf_cmd_complete(in->cmd, in->status);
    return 0;
}

/* A wrong data digest fails the command, not the connection. */
static int check_digest(struct rt_task *t, struct nvmf_conn *c, struct nvmf_in *in, uint32_t crc)
{
    int rc = nvmf_rx_need(t, c, NVME_TCP_DIGEST_BYTES);

    if (rc < 0)
        return rc;
    if (!nvme_tcp_digest_ok(net_rx_at(&c->rx), crc)) {
        c->local->stats.ddgst_errors++;
        nvmf_in_fail(in, NVME_SC_TRANSIENT_TRANSPORT);
    }
    net_rx_consume(&c->rx, NVME_TCP_DIGEST_BYTES);
    return 0;
}

int nvmf_in_pdu(struct rt_task *t, struct nvmf_conn *c, const struct nvme_tcp_layout *lay,
                const union nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault)
{
    struct nvmf_in *in = &c->in[le16_get(pdu->data.ttag) % NVMF_INS];
    uint32_t crc = 0;
    int last, rc;

    if (in->cmd == NULL || !in->open || in->r2t_queued) {
        *fault = (struct nvme_tcp_fault){.fes = NVME_TCP_FES_INVALID_FIELD,
                                         .fei = offsetof(struct nvme_tcp_data, ttag)};
        return -EPROTO;
    }
    last = nvme_tcp_h2c_check(&in->win, &pdu->data, fault);
    if (last < 0)
        return last;
    rc = nvmf_rx_need(t, c, lay->data_off);
    if (rc < 0)
        return rc;
    net_rx_consume(&c->rx, lay->data_off);
    rest(in, false);
    rc = take_data(t, in, lay->data_len, &crc);
    if (rc == 0 && lay->ddgst)
        rc = check_digest(t, c, in, crc);
    if (rc < 0)
        return rc;
    if (last)
        rc = window_done(t, in);
    if (in->cmd != NULL)
        rest(in, true);
    return rc;
}
