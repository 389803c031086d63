/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection: a task that connects, shakes hands, receives until something ends it, and then
 * takes everything down in the one order that is safe: stop sending, close, wait until nobody
 * below knows our memory, and only then decide about the commands.
 */
#include "nvme/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void nvme_queue_kill(struct nvme_queue *q, int rc, const char *fmt, ...)
{
    va_list args;

    if (!q->task_runs || q->end_rc < 0)
        return;
    q->end_rc = rc;
    va_start(args, fmt);
    vsnprintf(q->end_why.text, sizeof(q->end_why.text), fmt, args);
    va_end(args);
    if (q->state == NVME_QUEUE_LIVE)
        q->state = NVME_QUEUE_DOWN;
    rt_task_cancel(q->task);
    rt_cond_wake_all(&q->changed);
}

static void tx_error(struct net_tx *tx)
{
    struct nvme_queue *q = container_of(tx, struct nvme_queue, tx);

    nvme_queue_kill(q, -ECONNRESET, "connection lost while sending");
}

static void wait_changed(struct rt_task *t, struct nvme_queue *q)
{
    int rc = rt_cond_wait(t, &q->changed);

    must(rc == 0); /* shielded */
}

/* Says what the errno of a socket call means for this connection. */
static int say(struct nvme_queue *q, int rc)
{
    char text[NET_ADDR_TEXT_MAX];

    net_addr_text(&q->addr, text);
    return err_set(&q->end_why, rc, "%s: %s", text,
                   rc == -ECONNREFUSED ? "connection refused: no target listens there"
                                       : err_str(rc));
}

static void ic_done(struct net_tx_item *item, int rc)
{
    struct nvme_queue *q = container_of(item, struct nvme_queue, term_item);

    (void)rc;
    q->term_busy = false;
    rt_cond_wake_all(&q->changed);
}

/* TCP and ICReq; the answer is received like everything else. */
static int shake(struct rt_task *t, struct nvme_queue *q)
{
    const struct nvme_ctrl_opts *opts = &q->ctrl->opts;
    uint8_t dgst =
        (opts->hdgst ? NVME_TCP_DGST_HEADER : 0) | (opts->ddgst ? NVME_TCP_DGST_DATA : 0);
    int rc = rt_sock_connect(t, &q->sock, (const struct sockaddr *)&q->addr.ss, q->addr.len);

    if (rc < 0)
        return say(q, rc);
    net_rx_init(&q->rx, &q->sock, q->rx_buf, NVME_RX_BYTES);
    net_tx_init(&q->tx, &q->sock, tx_error, NULL);
    q->term_busy = true;
    q->term_item = (struct net_tx_item){.done = ic_done, .iovcnt = 1};
    q->term_item.iov[0].iov_base = q->term;
    q->term_item.iov[0].iov_len = nvme_tcp_put_icreq(q->term, 0, dgst, 0);
    net_tx_add(&q->tx, &q->term_item);
    while (rc == 0 && !q->shaken)
        rc = nvme_receive(t, q);
    if (rc < 0 && q->end_why.text[0] == '\0')
        return say(q, rc);
    return rc;
}

static void reset_connection(struct nvme_queue *q)
{
    nvme_slots_reset(q);
    q->sock.fd = -1;
    q->in = (struct nvme_tcp_rx){.controller = false};
    q->out = (struct nvme_tcp_tx){.pda = 0};
    q->capsule_data_max = NVME_ADMIN_CAPSULE_BYTES;
    q->h2c_data_max = NVME_TCP_MAXH2CDATA_MIN;
    q->tx = (struct net_tx){.rc = -ECONNRESET};
    q->shaken = false;
    q->end_rc = 0;
    q->end_why.text[0] = '\0';
}

/* Nothing of ours is left with the socket, the loop's deferred work or the kernel. */
static bool quiet(const struct nvme_queue *q)
{
    return q->items_busy == 0 && !q->term_busy && !q->tx.flush.queued &&
           q->tx.out_wait.state == RT_REQ_IDLE;
}

/* Gives an H2CTermReq time to arrive: closing at once, with data not read, would destroy it. */
static void let_term_through(struct rt_task *t, struct nvme_queue *q)
{
    uint64_t until_ns = rt_now() + NVME_TERM_NS;
    struct iovec iov = {.iov_base = q->rx_buf, .iov_len = NVME_RX_BYTES};

    while (q->term_busy && q->tx.rc == 0 && rt_now() < until_ns)
        rt_sleep(t, NS_PER_MS);
    rt_sock_shutdown(&q->sock);
    while (rt_now() < until_ns) {
        ssize_t n = rt_sock_recv(&q->sock, &iov, 1);

        if (n == -EAGAIN)
            rt_sleep(t, NS_PER_MS);
        else if (n <= 0)
            return;
    }
}

static void take_down(struct rt_task *t, struct nvme_queue *q, int rc)
{
    rt_task_shield(t, true);
    if (q->end_rc == 0)
        q->end_rc = rc;
    q->state = q->state == NVME_QUEUE_DEAD ? NVME_QUEUE_DEAD : NVME_QUEUE_DOWN;
    if (rc == -EPROTO)
        let_term_through(t, q);
    if (q->sock.fd >= 0) {
        net_tx_stop(&q->tx, -ECONNRESET);
        rt_sock_close(&q->sock);
        while (!quiet(q))
            rt_yield(t);
    }
    if (q->end_why.text[0] == '\0')
        say(q, q->end_rc);
    nvme_queue_unsend(q, q->end_rc);
    rt_task_shield(t, false);
}

static int queue_task(struct rt_task *t, void *arg)
{
    struct nvme_queue *q = arg;
    int rc;

    rt_task_deadline(t, rt_now() + MIN(NVME_CONNECT_NS, q->ctrl->opts.timeout_ns));
    rc = shake(t, q);
    rt_task_deadline(t, 0);
    while (rc == 0)
        rc = nvme_receive(t, q);
    take_down(t, q, rc);
    return q->end_rc;
}

static void queue_task_done(struct rt_req *req)
{
    struct nvme_queue *q = container_of(req, struct nvme_queue, task_done);

    q->task_runs = false;
    q->task = NULL;
    rt_cond_wake_all(&q->changed);
    nvme_ctrl_fault(q);
}

/* --- the Connect command ---------------------------------------------------------------------- */

static int connect_failed(struct nvme_queue *q, const struct nvme_req *req, int rc)
{
    const struct nvme_ctrl_opts *opts = &q->ctrl->opts;

    if (q->end_rc < 0)
        return rc; /* the connection's own text */
    switch (req->status & NVME_SC_CODE_MASK) {
    case NVME_SC_CMD_SEQ_ERROR:
        if (q->qid == 0)
            break;
        return err_set(&q->end_why, -ECONNRESET, "the target ends controller %u", q->ctrl->cntlid);
    case NVME_SC_CONNECT_INVALID_HOST:
        return err_set(&q->end_why, -EACCES, "subsystem %s does not allow host %s", opts->subnqn,
                       opts->hostnqn);
    case NVME_SC_CONNECT_INVALID_PARAM:
        if (req->dw0 == (NVME_CONNECT_IATTR_DATA | offsetof(struct nvme_connect_data, subnqn)))
            return err_set(&q->end_why, -ENOENT, "the target has no subsystem %s", opts->subnqn);
        if (q->qid != 0 &&
            req->dw0 == (NVME_CONNECT_IATTR_DATA | offsetof(struct nvme_connect_data, cntlid)))
            return err_set(&q->end_why, -ECONNRESET, "the target has ended controller %u",
                           q->ctrl->cntlid);
        return err_set(&q->end_why, -EPROTO,
                       "the target refuses Connect: parameter at byte %u of the %s",
                       req->dw0 & 0xffff, req->dw0 & NVME_CONNECT_IATTR_DATA ? "data" : "command");
    default:
        break;
    }
    return err_set(&q->end_why, rc, "Connect to %s: %s", opts->subnqn,
                   nvme_fabrics_status_text(req->status));
}

static int send_connect(struct rt_task *t, struct nvme_queue *q, uint8_t cattr,
                        struct nvme_req *req)
{
    const struct nvme_ctrl *ctrl = q->ctrl;
    struct nvme_connect_data data = {
        .cntlid = le16_make(q->qid == 0 ? NVME_CNTLID_DYNAMIC : ctrl->cntlid)};
    struct nvme_connect_cmd cmd = {
        .opc = NVME_OPC_FABRICS,
        .fctype = NVME_FC_CONNECT,
        .qid = le16_make(q->qid),
        .sqsize = le16_make((uint16_t)q->nslots), /* 0-based: one entry more than slots */
        .cattr = cattr,
        .kato = le32_make(q->qid == 0 ? ctrl->opts.kato_ms : 0),
    };
    struct iovec iov = {.iov_base = &data, .iov_len = sizeof(data)};

    memcpy(data.hostid, ctrl->opts.hostid, sizeof(data.hostid));
    memcpy(data.subnqn, ctrl->opts.subnqn, sizeof(data.subnqn));
    memcpy(data.hostnqn, ctrl->opts.hostnqn, sizeof(data.hostnqn));
    *req = (struct nvme_req){.iov = &iov,
                             .iovcnt = 1,
                             .data_len = sizeof(data),
                             .dir = NVME_DIR_H2C,
                             .flags = NVME_REQ_CONNECT};
    memcpy(&req->sqe, &cmd, sizeof(cmd));
    rt_req_init_task(&req->req, t);
    nvme_submit(q, req);
    return rt_wait(t, &req->req);
}

/* Without flow control of the submission queue a read needs no response of its own; controllers
 * that insist on it get it. */
static int connect_command(struct rt_task *t, struct nvme_queue *q)
{
    struct nvme_ctrl *ctrl = q->ctrl;
    struct nvme_req req;
    int rc = send_connect(t, q, ctrl->sqflow ? 0 : NVME_CATTR_DISABLE_SQFLOW, &req);

    if (rc < 0 && q->end_rc == 0 && !ctrl->sqflow &&
        (req.status & NVME_SC_CODE_MASK) == NVME_SC_CONNECT_INVALID_PARAM &&
        req.dw0 == offsetof(struct nvme_connect_cmd, cattr)) {
        ctrl->sqflow = true;
        rc = send_connect(t, q, 0, &req);
    }
    if (rc < 0)
        return connect_failed(q, &req, rc);
    if ((req.dw0 & NVME_CONNECT_ATR) != 0)
        return err_set(&q->end_why, -EACCES,
                       "subsystem %s wants authentication, which this release cannot do",
                       ctrl->opts.subnqn);
    if (q->qid == 0)
        ctrl->cntlid = (uint16_t)(req.dw0 & NVME_CONNECT_CNTLID_MASK);
    return 0;
}

/* --- for the controller ----------------------------------------------------------------------- */

int nvme_queue_start(struct rt_task *t, struct nvme_queue *q)
{
    int rc;

    must(!q->task_runs);
    if (q->state == NVME_QUEUE_DEAD)
        return -ENODEV;
    reset_connection(q);
    rt_req_init(&q->task_done, queue_task_done);
    rc = rt_task_start("nvme queue", queue_task, q, &q->task_done, &q->task);
    if (rc < 0)
        return err_set(&q->end_why, rc, "too many tasks");
    q->task_runs = true;
    q->state = NVME_QUEUE_CONNECTING;
    while (rc == 0 && !q->shaken && q->task_runs)
        rc = rt_cond_wait(t, &q->changed);
    if (rc == 0)
        rc = q->task_runs ? connect_command(t, q) : q->end_rc;
    if (rc == 0 && q->end_rc < 0)
        rc = q->end_rc;
    if (rc < 0) {
        struct err why = q->end_why;

        nvme_queue_stop(t, q, rc);
        if (why.text[0] != '\0')
            q->end_why = why;
        return rc;
    }
    if (q->qid != 0)
        q->capsule_data_max =
            le32_get(q->ctrl->id->ioccsz) * 16 - (uint32_t)sizeof(struct nvme_sqe);
    q->stats.connects++;
    q->state = NVME_QUEUE_LIVE;
    nvme_queue_kick(q);
    return 0;
}

void nvme_queue_stop(struct rt_task *t, struct nvme_queue *q, int rc)
{
    rt_task_shield(t, true);
    nvme_queue_kill(q, rc, "closed");
    while (q->task_runs)
        wait_changed(t, q);
    rt_task_shield(t, false);
}
