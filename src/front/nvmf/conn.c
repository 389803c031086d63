/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection is one queue and one task: handshake, then PDUs until the end. The commands it
 * decodes are requests (or tasks of their own) that answer through cmd.c. Only the connection's
 * task sets `closing`; whoever wants it to end cancels the task.
 */
#include "front/nvmf/internal.h"

#include "rt/trace.h"

#include <string.h>

#define TERM_WAIT_NS (2 * NS_PER_S)  /* for the host to close after a TermReq */
#define DRAIN_WAIT_NS (5 * NS_PER_S) /* for commands in flight when the target closes */
#define PROGRESS_BYTES 65536u        /* what counts as progress, unless all is done */

/* --- breaking off ----------------------------------------------------------------------------- */

static void term_sent(struct net_tx_item *item, int rc)
{
}

/* The peer has broken the protocol: says so. The caller ends the connection. */
static void send_term(struct nvmf_conn *c, struct nvme_tcp_fault fault, struct bytes bad_header)
{
    char peer[NET_ADDR_TEXT_MAX] = "?";
    struct net_addr addr;
    size_t n;

    if (rt_sock_peer(&c->sock, &addr.ss) == 0)
        net_addr_text(&addr, peer);
    log_info("nvmf: %s: %s (offset %u), ending the connection", peer, nvme_tcp_fes_text(fault.fes),
             fault.fei);
    c->local->stats.term_reqs++;
    if (fault.fes == NVME_TCP_FES_HDGST)
        c->local->stats.hdgst_errors++;
    n = nvme_tcp_put_term(c->term, true, fault, bad_header);
    c->term_tx.done = term_sent;
    c->term_tx.iov[0] = (struct iovec){.iov_base = c->term, .iov_len = n};
    c->term_tx.iovcnt = 1;
    c->term_sent = true;
    net_tx_add(&c->tx, &c->term_tx);
}

/* After a TermReq: lets it get there, and waits a little for the host to close. */
static void linger(struct rt_task *t, struct nvmf_conn *c)
{
    rt_task_deadline(t, rt_now() + TERM_WAIT_NS);
    if (net_tx_drain(t, &c->tx) == 0) {
        rt_sock_shutdown(&c->sock);
        for (;;) {
            ssize_t n;

            nvmf_rx_rewind(c);
            if (c->rx.head == c->rx.tail && c->rxb->refs > 1)
                break;
            c->rx.head = c->rx.tail = 0;
            n = net_rx_fill(&c->rx, SIZE_MAX);
            if (n == -EAGAIN)
                n = rt_sock_readable(t, &c->sock);
            if (n < 0)
                break;
        }
    }
    rt_task_deadline(t, 0);
}

/* --- handshake -------------------------------------------------------------------------------- */

static int handshake(struct rt_task *t, struct nvmf_conn *c, const struct nvme_tcp_icreq *req)
{
    const struct nvmf_config *cfg = &c->tgt->cfg;
    uint8_t dgst = req->dgst & (NVME_TCP_DGST_HEADER | NVME_TCP_DGST_DATA);
    size_t n;

    if (cfg->no_header_digest)
        dgst &= (uint8_t)~NVME_TCP_DGST_HEADER;
    if (cfg->no_data_digest)
        dgst &= (uint8_t)~NVME_TCP_DGST_DATA;
    n = nvme_tcp_put_icresp(c->term, 0, dgst, cfg->maxh2cdata_bytes);
    c->term_tx.done = term_sent;
    c->term_tx.iov[0] = (struct iovec){.iov_base = c->term, .iov_len = n};
    c->term_tx.iovcnt = 1;
    net_tx_add(&c->tx, &c->term_tx);
    c->prx.ready = true;
    c->prx.hdgst = c->ptx.hdgst = dgst & NVME_TCP_DGST_HEADER;
    c->prx.ddgst = c->ptx.ddgst = dgst & NVME_TCP_DGST_DATA;
    c->ptx.pda = req->hpda;
    return net_tx_drain(t, &c->tx);
}

/* --- PDUs ------------------------------------------------------------------------------------- */

/* Whether a command can have data at all: else its data pointer is not looked at. */
static bool has_data(const struct nvme_sqe *sqe)
{
    const struct nvme_fabrics_cmd *f = (const struct nvme_fabrics_cmd *)sqe;

    if (sqe->opc == NVME_OPC_FABRICS)
        return nvme_opc_dir(f->fctype) != NVME_DIR_NONE;
    return nvme_opc_dir(sqe->opc) != NVME_DIR_NONE || sqe->opc == NVME_KV_SELECT_RECEIVE_OLD;
}

static int check_sgl(const struct nvme_tcp_layout *lay, struct nvmf_cmd *cmd,
                     struct nvme_tcp_fault *fault)
{
    if (lay->data_len == 0 && !has_data(&cmd->sqe)) {
        cmd->sgl_len = 0;
        cmd->in_capsule = false;
        return 0;
    }
    return nvme_tcp_sgl_check(lay, &cmd->sqe, &cmd->sgl_len, &cmd->in_capsule, fault);
}

static bool is_fabrics(const struct nvme_sqe *sqe)
{
    return sqe->opc == NVME_OPC_FABRICS;
}

/* Hands a command to who carries it out. `data`: in the capsule, in the receive buffer. */
static void dispatch(struct rt_task *t, struct nvmf_cmd *cmd, struct bytes data)
{
    struct nvmf_conn *c = cmd->conn;
    struct nvmf_ns *ns;
    uint16_t status;

    if (UNLIKELY(c->qid == 0 || is_fabrics(&cmd->sqe))) {
        nvmf_admin(t, cmd, data);
        return;
    }
    c->local->stats.io_cmds++;
    nvmf_ctrlr_seen(c->ctrlr);
    status = nvmf_cmd_ns(cmd);
    if (UNLIKELY(c->fused != NULL) &&
        ((cmd->sqe.flags & NVME_SQE_FUSE_MASK) != NVME_SQE_FUSE_SECOND || cmd->ns == NULL ||
         cmd->ns->kv != NULL))
        nvmf_fused_missing(c);
    if (UNLIKELY(status != NVME_SC_SUCCESS)) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    ns = cmd->ns;
    if (ns->kv == NULL)
        nvmf_io_nvm(cmd, data);
    else if (UNLIKELY(nvmf_is_select(ns, cmd->sqe.opc)))
        nvmf_io_select(cmd, data);
    else if (ns->csd)
        nvmf_io_csd(cmd, data);
    else if (cmd->sqe.opc >= 0xc0)
        nvmf_io_kv_vendor(cmd, data);
    else
        nvmf_io_kv(cmd, data);
}

static int command_pdu(struct rt_task *t, struct nvmf_conn *c, const struct nvme_tcp_layout *lay,
                       struct nvme_tcp_fault *fault)
{
    const uint8_t *pdu = net_rx_at(&c->rx);
    struct nvmf_cmd *cmd = nvmf_cmd_get(c);
    struct bytes data = bytes_make(pdu + lay->data_off, lay->data_len);
    bool damaged = false;
    int rc;

    if (UNLIKELY(cmd == NULL)) {
        *fault = (struct nvme_tcp_fault){.fes = NVME_TCP_FES_SEQUENCE};
        return -EPROTO;
    }
    cmd->sqe = ((const struct nvme_tcp_cmd *)pdu)->sqe;
    rt_trace("nvmf command", cmd->trace_id, c->qid, cmd->sqe.opc);
    rc = check_sgl(lay, cmd, fault);
    if (UNLIKELY(rc < 0)) {
        nvmf_cmd_free(cmd);
        return rc;
    }
    if (lay->ddgst)
        damaged = !nvme_tcp_digest_ok(data.ptr + data.len, crc32c(0, data.ptr, data.len));
    c->local->stats.bytes_in += lay->data_len;
    /* The bytes stay where they are until the buffer is filled again, and longer when pinned. */
    net_rx_consume(&c->rx, lay->plen);
    if (UNLIKELY(damaged)) {
        c->local->stats.ddgst_errors++;
        nvmf_kv_vendor_damaged(cmd);
        nvmf_cmd_complete(cmd, NVME_SC_TRANSIENT_TRANSPORT);
        return 0;
    }
    dispatch(t, cmd, data);
    return 0;
}

/* One PDU. 0, an errno that ends the connection, or -EPROTO with *fault. */
static int one_pdu(struct rt_task *t, struct nvmf_conn *c, struct nvme_tcp_fault *fault)
{
    union nvme_tcp_pdu copy;
    struct nvme_tcp_layout lay;
    int rc;

    rc = nvmf_rx_need(t, c, sizeof(struct nvme_tcp_ch));
    if (rc < 0)
        return rc;
    rc = nvme_tcp_ch_decode(&c->prx, (const struct nvme_tcp_ch *)net_rx_at(&c->rx), &lay, fault);
    if (rc < 0)
        return rc;
    rc = nvmf_rx_need(t, c, lay.type == NVME_TCP_CMD ? lay.plen : lay.hdr_end);
    if (rc < 0)
        return rc;
    rc = nvme_tcp_hdr_check(&lay, (const union nvme_tcp_pdu *)net_rx_at(&c->rx), fault);
    if (rc < 0)
        return rc;
    switch (lay.type) {
    case NVME_TCP_CMD:
        return command_pdu(t, c, &lay, fault);
    case NVME_TCP_H2C_DATA:
        memcpy(&copy, net_rx_at(&c->rx), lay.hlen);
        return nvmf_in_pdu(t, c, &lay, &copy, fault);
    case NVME_TCP_ICREQ:
        memcpy(&copy, net_rx_at(&c->rx), lay.hlen);
        net_rx_consume(&c->rx, lay.plen);
        return handshake(t, c, &copy.icreq);
    default: /* H2CTermReq: never answered */
        log_info(
            "nvmf: the host has ended the connection: %s",
            nvme_tcp_fes_text(le16_get(((const struct nvme_tcp_term *)net_rx_at(&c->rx))->fes)));
        return -ECONNRESET;
    }
}

static int serve(struct rt_task *t, struct nvmf_conn *c)
{
    struct nvme_tcp_fault fault;
    int rc;

    /* A host that connects and says nothing is not kept. */
    rt_task_deadline(t, rt_now() + c->tgt->cfg.progress_ns);
    do {
        rc = one_pdu(t, c, &fault);
    } while (rc == 0 && c->ctrlr == NULL);
    rt_task_deadline(t, 0);
    while (rc == 0)
        rc = one_pdu(t, c, &fault);
    if (rc == -EPROTO) {
        c->closing = true;
        send_term(c, fault,
                  bytes_make(net_rx_at(&c->rx),
                             MIN(net_rx_avail(&c->rx), (size_t)NVME_TCP_TERM_COPY_MAX)));
    }
    return rc;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void cancel_commands(struct nvmf_conn *c)
{
    for (unsigned i = 0; i < NVMF_INS; i++) {
        if (c->in[i].cmd != NULL)
            nvmf_in_fail(&c->in[i], NVME_SC_ABORT_QUEUE);
    }
    for (unsigned i = 0; i < c->nused; i++)
        nvmf_cmd_cancel(&c->cmds[i]);
}

static void drain_over(struct rt_timer *timer)
{
    struct nvmf_conn *c = container_of(timer, struct nvmf_conn, drain_timer);

    c->draining = false;
    rt_cond_wake_all(&c->idle);
    net_tx_stop(&c->tx, -ETIMEDOUT);
}

static bool waits_for_host(const struct nvmf_cmd *cmd)
{
    return cmd->state == NVMF_CMD_AER || cmd->state == NVMF_CMD_FUSED || cmd->in != NULL ||
           cmd->state == NVMF_CMD_IN;
}

/* Lets what is in flight come to its end and be answered; what waits for the host does not. */
static void drain(struct rt_task *t, struct nvmf_conn *c)
{
    for (unsigned i = 0; i < c->nused; i++) {
        if (waits_for_host(&c->cmds[i]))
            nvmf_cmd_cancel(&c->cmds[i]);
    }
    c->drain_timer.fn = drain_over;
    rt_timer_start(&c->drain_timer, rt_now() + DRAIN_WAIT_NS);
    while (c->nbusy > c->nin && c->draining && c->tx.rc == 0)
        rt_cond_wait(t, &c->idle);
    net_tx_drain(t, &c->tx);
    rt_timer_stop(&c->drain_timer);
}

/* Everything that may refer to the connection has ended when this returns. */
static void close_conn(struct rt_task *t, struct nvmf_conn *c)
{
    c->closing = true;
    cancel_commands(c);
    if (c->term_sent)
        linger(t, c);
    rt_task_shield(t, true);
    net_tx_stop(&c->tx, -ECONNRESET);
    rt_sock_shutdown(&c->sock);
    while (c->nbusy > 0)
        rt_cond_wait(t, &c->idle);
    nvmf_handles_end(c, NULL);
    while (c->nhandles > 0)
        rt_cond_wait(t, &c->handles_gone);
    net_tx_fini(t, &c->tx);
    rt_sock_close(&c->sock);
    if (c->ctrlr != NULL)
        nvmf_ctrlr_leave(t, c);
    list_del(&c->link);
    if (list_empty(&c->local->conns))
        rt_timer_stop(&c->local->sweep);
    nvmf_rx_fini(c);
}

static int conn_main(struct rt_task *t, void *arg)
{
    struct nvmf_conn *c = arg;

    serve(t, c);
    rt_task_shield(t, true);
    if (c->draining)
        drain(t, c);
    rt_task_shield(t, false);
    close_conn(t, c);
    return 0;
}

static void conn_free(struct nvmf_conn *c)
{
    free(c->own);
    free(c->cmds);
    free(c->free_cmds);
    free(c->tails);
    free(c->handles);
    free(c);
}

/* Reactor 0. */
static void conn_gone(struct rt_msg *msg)
{
    struct nvmf_conn *c = container_of(msg, struct nvmf_conn, msg);
    struct nvmf_target *tgt = c->tgt;

    conn_free(c);
    must(tgt->nconns > 0);
    if (--tgt->nconns == 0)
        rt_cond_wake_all(&tgt->conns_gone);
}

static void conn_task_done(struct rt_req *req)
{
    struct nvmf_conn *c = container_of(req, struct nvmf_conn, task_done);

    c->task = NULL;
    c->msg.fn = conn_gone;
    rt_send(rt_reactor(0), &c->msg);
}

/* --- the beginning ---------------------------------------------------------------------------- */

static void tx_dead(struct net_tx *tx)
{
    nvmf_conn_kill(container_of(tx, struct nvmf_conn, tx));
}

void nvmf_conn_kill(struct nvmf_conn *c)
{
    if (c->task != NULL)
        rt_task_cancel(c->task);
}

int nvmf_conn_queue(struct nvmf_conn *c, uint16_t entries)
{
    uint16_t n = (uint16_t)(entries + 1);
    /* Not cleared: a slot costs nothing before it is used for the first time. */
    struct nvmf_cmd *cmds = malloc(n * sizeof(*cmds));
    uint16_t *free_cmds = malloc(n * sizeof(*free_cmds));

    if (cmds == NULL || free_cmds == NULL) {
        free(cmds);
        free(free_cmds);
        return -ENOMEM;
    }
    must(c->nbusy == 0);
    free(c->cmds);
    free(c->free_cmds);
    c->cmds = cmds;
    c->free_cmds = free_cmds;
    c->nfree = c->nused = 0;
    c->ncmds = n;
    return 0;
}

static void init_lists(struct nvmf_conn *c)
{
    list_init(&c->in_wait);
    list_init(&c->out_wait);
    list_init(&c->task_wait);
    list_init(&c->select_wait);
    list_init(&c->free_pieces);
    for (unsigned i = 0; i < NVMF_PIECES; i++) {
        c->pieces[i].conn = c;
        list_add_tail(&c->free_pieces, &c->pieces[i].link);
    }
    for (unsigned i = 0; i < NVMF_INS; i++) {
        c->in[i].conn = c;
        c->in[i].tail = c->tails + i * NVMF_BLOCK_MAX;
    }
}

static int conn_init(struct nvmf_conn *c)
{
    int rc;

    c->tails = malloc(NVMF_INS * NVMF_BLOCK_MAX);
    if (c->tails == NULL)
        return -ENOMEM;
    init_lists(c);
    rc = nvmf_rx_init(c);
    c->entries = 2; /* for Connect, which says how many */
    return rc == 0 ? nvmf_conn_queue(c, c->entries) : rc;
}

/* The reactor of the connection. */
static void conn_arrive(struct rt_msg *msg)
{
    struct nvmf_conn *c = container_of(msg, struct nvmf_conn, msg);
    int rc;

    c->local = nvmf_local_of(c->tgt);
    rt_req_init(&c->task_done, conn_task_done);
    rc = rt_sock_attach(&c->sock, c->fd);
    if (rc == 0) {
        net_tx_init(&c->tx, &c->sock, tx_dead, NULL);
        c->prx = (struct nvme_tcp_rx){.controller = true,
                                      .capsule_data_max =
                                          MAX(c->tgt->cfg.in_capsule_bytes, NVMF_ADMIN_DATA_MAX),
                                      .data_max = c->tgt->cfg.maxh2cdata_bytes};
        c->mark_ns = rt_now();
        rc = rt_task_start("nvmf", conn_main, c, &c->task_done, &c->task);
    }
    if (rc < 0) {
        rt_sock_close(&c->sock);
        c->msg.fn = conn_gone;
        rt_send(rt_reactor(0), &c->msg);
        return;
    }
    if (list_empty(&c->local->conns))
        rt_timer_start(&c->local->sweep, rt_now() + c->tgt->cfg.progress_ns / 4);
    list_add_tail(&c->local->conns, &c->link);
    c->local->stats.accepted++;
}

int nvmf_conn_start(struct nvmf_target *tgt, int fd, uint16_t portid)
{
    struct nvmf_conn *c = calloc(1, sizeof(*c));
    int rc = -ENOMEM;

    if (c != NULL) {
        c->tgt = tgt;
        c->portid = portid;
        c->fd = fd;
        c->sock.fd = -1;
        rc = conn_init(c);
    }
    if (rc < 0) {
        rt_sock_discard(fd);
        if (c != NULL)
            conn_free(c);
        return rc;
    }
    tgt->nconns++;
    c->msg.fn = conn_arrive;
    rt_send(rt_reactor(tgt->next_reactor++ % tgt->nreactors), &c->msg);
    return 0;
}

/* --- who does not move ------------------------------------------------------------------------ */

/* Whether we wait for the host: to take what we send, or for the rest of a PDU or data asked for. A
 * task that is not parked waits for a device. */
static bool owes(const struct nvmf_conn *c)
{
    if (c->tx.head != NULL)
        return true;
    if (c->parked && net_rx_avail(&c->rx) > 0)
        return true;
    for (unsigned i = 0; c->parked && i < NVMF_INS; i++) {
        if (c->in[i].open)
            return true;
    }
    return false;
}

static void check_progress(struct nvmf_conn *c, uint64_t now)
{
    uint64_t moved = c->rx.bytes - c->mark_rx + c->tx.bytes - c->mark_tx;

    if (!owes(c) || moved >= PROGRESS_BYTES) {
        c->mark_ns = now;
        c->mark_rx = c->rx.bytes;
        c->mark_tx = c->tx.bytes;
    } else if (now - c->mark_ns >= c->tgt->cfg.progress_ns) {
        c->local->stats.stalled++;
        log_info("nvmf: a host makes no progress for %llu ms, ending its connection",
                 (unsigned long long)((now - c->mark_ns) / NS_PER_MS));
        nvmf_conn_kill(c);
        c->mark_ns = now;
    }
}

void nvmf_conn_sweep(struct rt_timer *timer)
{
    struct nvmf_local *l = container_of(timer, struct nvmf_local, sweep);
    struct nvmf_conn *c;

    list_for_each (c, &l->conns, struct nvmf_conn, link) {
        check_progress(c, rt_now());
        nvmf_handles_expire(c, rt_now());
    }
    query_results_expire(l->tgt->results);
    rt_timer_start(timer, rt_now() + l->tgt->cfg.progress_ns / 4);
}
