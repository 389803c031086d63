/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers to the host. Each connection has a budget of bytes that may be read ahead of its
 * socket; what wants to read waits in line for it, and then for a buffer of the pool. In this
 * order: who waits for a buffer holds room in a line of its own connection only.
 */
#include "front/nvmf/internal.h"

static bool fits(const struct nvmf_conn *c, const struct nvmf_out_wait *w)
{
    if (w->piece && list_empty(&c->free_pieces))
        return false;
    return c->out_bytes == 0 || c->out_bytes + w->len <= c->tgt->cfg.out_bytes_max;
}

/* Grants room now (true), or puts the waiter in line. */
static bool ask(struct nvmf_conn *c, struct nvmf_out_wait *w)
{
    if (list_empty(&c->out_wait) && fits(c, w)) {
        c->out_bytes += w->len;
        return true;
    }
    list_init(&w->link);
    list_add_tail(&c->out_wait, &w->link);
    return false;
}

void nvmf_out_release(struct nvmf_conn *c, uint32_t len)
{
    must(c->out_bytes >= len);
    c->out_bytes -= len;
    for (;;) {
        struct nvmf_out_wait *w = list_first(&c->out_wait, struct nvmf_out_wait, link);

        if (w == NULL || c->closing || !fits(c, w))
            return;
        list_del(&w->link);
        c->out_bytes += w->len;
        w->granted(w);
    }
}

void nvmf_out_cancel(struct nvmf_out_wait *w)
{
    list_del(&w->link);
}

/* --- commands of one buffer ------------------------------------------------------------------- */

static void with_buffer(struct nvmf_cmd *cmd, struct rt_buf *buf)
{
    cmd->buf = buf;
    cmd->iov[0] = (struct iovec){.iov_base = buf->data, .iov_len = cmd->out_len};
    cmd->run(cmd);
}

static void waited_for_buffer(struct rt_req *req)
{
    struct rt_buf_waiter *w = container_of(req, struct rt_buf_waiter, req);
    struct nvmf_cmd *cmd = container_of(w, struct nvmf_cmd, waiter);

    cmd->buf = req->rc == 0 ? w->buf : NULL;
    if (req->rc < 0 || cmd->conn->closing)
        nvmf_cmd_complete(cmd, NVME_SC_ABORT_REQ | NVME_SC_DNR);
    else
        with_buffer(cmd, cmd->buf);
}

static void with_room(struct nvmf_cmd *cmd)
{
    struct rt_buf *buf;

    cmd->out_len = cmd->out.len;
    buf = rt_buf_get(cmd->out_len);
    if (LIKELY(buf != NULL)) {
        with_buffer(cmd, buf);
        return;
    }
    cmd->state = NVMF_CMD_BUF;
    rt_req_init(&cmd->waiter.req, waited_for_buffer);
    cmd->waiter.len = cmd->out_len;
    rt_buf_wait(&cmd->waiter);
}

static void room_granted(struct nvmf_out_wait *w)
{
    with_room(container_of(w, struct nvmf_cmd, out));
}

void nvmf_out_begin(struct nvmf_cmd *cmd, uint32_t len, void (*run)(struct nvmf_cmd *cmd))
{
    cmd->run = run;
    cmd->state = NVMF_CMD_OUT;
    cmd->out.len = len;
    cmd->out.piece = false;
    cmd->out.granted = room_granted;
    if (ask(cmd->conn, &cmd->out))
        with_room(cmd);
}

/* --- parts of larger transfers, by tasks ------------------------------------------------------ */

struct piece_wait {
    struct nvmf_out_wait out;
    struct rt_req req;
};

static void piece_granted(struct nvmf_out_wait *w)
{
    rt_req_complete(&container_of(w, struct piece_wait, out)->req, 0);
}

static void piece_wait_cancel(struct rt_req *req)
{
    struct piece_wait *w = container_of(req, struct piece_wait, req);

    nvmf_out_cancel(&w->out);
    rt_req_complete(req, -ECANCELED);
}

struct nvmf_piece *nvmf_out_take(struct rt_task *t, struct nvmf_conn *c, uint32_t len)
{
    struct piece_wait w = {.out = {.len = len, .piece = true, .granted = piece_granted}};
    struct nvmf_piece *p;

    if (c->closing)
        return NULL;
    rt_req_init_task(&w.req, t);
    w.req.cancel = piece_wait_cancel;
    rt_req_begin(&w.req);
    if (ask(c, &w.out))
        rt_req_complete(&w.req, 0);
    /* When the grant and a cancel meet, the grant has won and counts. */
    rt_wait(t, &w.req);
    if (w.req.rc < 0)
        return NULL;
    p = list_pop_entry(&c->free_pieces, struct nvmf_piece, link);
    if (p == NULL) { /* given to another between the grant and now */
        nvmf_out_release(c, len);
        return rt_yield(t) < 0 ? NULL : nvmf_out_take(t, c, len);
    }
    p->len = len;
    p->buf = rt_buf_take(t, len);
    if (p->buf == NULL || c->closing) {
        nvmf_out_drop(p);
        return NULL;
    }
    return p;
}

void nvmf_out_drop(struct nvmf_piece *p)
{
    if (p == NULL)
        return;
    if (p->buf != NULL)
        rt_buf_put(p->buf);
    p->buf = NULL;
    list_add_head(&p->conn->free_pieces, &p->link);
    nvmf_out_release(p->conn, p->len);
}

static void piece_sent(struct net_tx_item *item, int rc)
{
    nvmf_out_drop(container_of(item, struct nvmf_piece, tx));
}

void nvmf_out_send(struct nvmf_cmd *cmd, struct nvmf_piece *p, uint32_t off, uint32_t len,
                   bool last)
{
    struct nvmf_conn *c = cmd->conn;
    size_t hdr_len;

    must(len > 0);
    if (c->closing) {
        nvmf_out_drop(p);
        return;
    }
    c->local->stats.bytes_out += len;
    hdr_len = nvme_tcp_put_c2h_data(p->hdr, &c->ptx, le16_get(cmd->sqe.cid), off, len,
                                    last ? NVME_TCP_F_LAST : 0);
    p->tx.done = piece_sent;
    p->tx.iov[0] = (struct iovec){.iov_base = p->hdr, .iov_len = hdr_len};
    p->tx.iov[1] = (struct iovec){.iov_base = p->buf->data, .iov_len = len};
    p->tx.iovcnt = 2;
    if (c->ptx.ddgst) {
        le32_put(p->ddgst, crc32c(0, p->buf->data, len));
        p->tx.iov[2] = (struct iovec){.iov_base = p->ddgst, .iov_len = sizeof(p->ddgst)};
        p->tx.iovcnt = 3;
    }
    net_tx_add(&c->tx, &p->tx);
}
