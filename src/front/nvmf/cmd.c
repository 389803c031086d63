/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: slots of a connection, made at Connect. Whatever a command holds (buffer, room to
 * send, namespace, transfer) is given back in one place, nvmf_cmd_free().
 */
#include "front/nvmf/internal.h"

#include "rt/trace.h"

#include <string.h>

struct nvmf_cmd *nvmf_cmd_get(struct nvmf_conn *c)
{
    struct nvmf_cmd *cmd;

    if (c->nfree > 0)
        cmd = &c->cmds[c->free_cmds[--c->nfree]];
    else if (c->nused < c->ncmds)
        cmd = memset(&c->cmds[c->nused++], 0, sizeof(*cmd));
    else
        return NULL;
    must(cmd->state == NVMF_CMD_FREE);
    cmd->conn = c;
    cmd->state = NVMF_CMD_ACTIVE;
    cmd->is_read = false;
    cmd->aborted = false;
    cmd->for_what = NVME_FOR_OTHER;
    cmd->data_len = 0;
    cmd->out_len = 0;
    cmd->dw0 = cmd->dw1 = 0;
    cmd->fused = NULL;
    cmd->csd = false;
    cmd->trace_id = rt_trace_new();
    c->nbusy++;
    return cmd;
}

struct nvmf_ns_use *nvmf_cmd_use(const struct nvmf_cmd *cmd)
{
    return &cmd->ns->use[rt_index(cmd->conn->local->reactor)];
}

uint16_t nvmf_cmd_ns(struct nvmf_cmd *cmd)
{
    struct nvmf_ns *ns = nvmf_ns_find(cmd->conn->table, le32_get(cmd->sqe.nsid));

    if (ns == NULL || (nvmf_ns_is_kv(ns) && !cmd->conn->kv_visible))
        return NVME_SC_INVALID_NS | NVME_SC_DNR;
    cmd->ns = ns;
    nvmf_cmd_use(cmd)->inflight++;
    return NVME_SC_SUCCESS;
}

void nvmf_cmd_release_ns(struct nvmf_cmd *cmd)
{
    struct nvmf_ns_use *use;

    if (cmd->ns == NULL)
        return;
    use = nvmf_cmd_use(cmd);
    cmd->ns = NULL;
    must(use->inflight > 0);
    if (--use->inflight == 0 && UNLIKELY(use->gone))
        rt_cond_wake_all(&use->idle);
}

/* Gives back what the device part needed; what is being sent stays. */
static void release_inputs(struct nvmf_cmd *cmd)
{
    if (cmd->in != NULL)
        nvmf_in_free(cmd->in);
    if (cmd->rxb != NULL)
        nvmf_rx_unpin(cmd->conn, cmd->rxb);
    cmd->rxb = NULL;
    if (UNLIKELY(cmd->handle != NULL))
        nvmf_handle_leave(cmd);
    if (UNLIKELY(cmd->select != NULL))
        nvmf_select_free(cmd);
    nvmf_cmd_release_ns(cmd);
}

void nvmf_cmd_drop_data(struct nvmf_cmd *cmd)
{
    must(cmd->out_len == 0);
    if (cmd->in != NULL)
        nvmf_in_free(cmd->in);
    if (cmd->rxb != NULL)
        nvmf_rx_unpin(cmd->conn, cmd->rxb);
    cmd->rxb = NULL;
    if (cmd->buf != NULL)
        rt_buf_put(cmd->buf);
    cmd->buf = NULL;
}

static void release_buffer(struct nvmf_cmd *cmd)
{
    uint32_t len = cmd->out_len;

    if (cmd->buf != NULL)
        rt_buf_put(cmd->buf);
    cmd->buf = NULL;
    cmd->out_len = 0;
    if (len > 0)
        nvmf_out_release(cmd->conn, len);
}

void nvmf_cmd_free(struct nvmf_cmd *cmd)
{
    struct nvmf_conn *c = cmd->conn;

    release_inputs(cmd);
    release_buffer(cmd);
    must(cmd->state != NVMF_CMD_FREE);
    cmd->state = NVMF_CMD_FREE;
    c->free_cmds[c->nfree++] = (uint16_t)(cmd - c->cmds);
    c->nbusy--;
    if (UNLIKELY(c->nbusy == 0 || c->draining))
        rt_cond_wake_all(&c->idle);
}

/* --- answering -------------------------------------------------------------------------------- */

static void response_sent(struct net_tx_item *item, int rc)
{
    struct nvmf_cmd *cmd = container_of(item, struct nvmf_cmd, tx);

    rt_trace("nvmf sent", cmd->trace_id, cmd->conn->qid, le16_get(cmd->sqe.cid));
    nvmf_cmd_free(cmd);
}

/* Writes the CapsuleResp; its length. */
static size_t put_response(struct nvmf_cmd *cmd, uint16_t status)
{
    struct nvmf_conn *c = cmd->conn;
    struct nvme_cqe cqe = {
        .dw0 = le32_make(cmd->dw0),
        .dw1 = le32_make(cmd->dw1),
        .sqhd = le16_make(c->no_sqflow ? 0xffff : c->sqhd),
        .cid = cmd->sqe.cid,
        .status = nvme_status_field(status),
    };

    return nvme_tcp_put_resp(cmd->resp, &c->ptx, &cqe);
}

/* The queue's head moves with each completion: that bounds what a host may have outstanding. */
static void advance_sqhd(struct nvmf_conn *c)
{
    if (++c->sqhd >= c->entries)
        c->sqhd = 0;
}

static void count_failure(struct nvmf_cmd *cmd, uint16_t status)
{
    struct nvmf_conn *c = cmd->conn;

    c->local->stats.failed_cmds++;
    if (c->ctrlr != NULL)
        nvmf_ctrlr_log_error(c->ctrlr, cmd, status);
}

void nvmf_cmd_complete(struct nvmf_cmd *cmd, uint16_t status)
{
    struct nvmf_conn *c = cmd->conn;

    if (UNLIKELY(c->closing)) {
        nvmf_cmd_free(cmd);
        return;
    }
    if (status != NVME_SC_SUCCESS)
        count_failure(cmd, status);
    release_inputs(cmd);
    release_buffer(cmd);
    advance_sqhd(c);
    cmd->state = NVMF_CMD_SENDING;
    cmd->tx.done = response_sent;
    cmd->tx.iov[0] = (struct iovec){.iov_base = cmd->resp, .iov_len = put_response(cmd, status)};
    cmd->tx.iovcnt = 1;
    net_tx_add(&c->tx, &cmd->tx);
}

static bool may_use_success(const struct nvmf_cmd *cmd)
{
    const struct nvmf_conn *c = cmd->conn;

    return c->tgt->cfg.success_flag && c->no_sqflow && cmd->dw0 == 0 && cmd->dw1 == 0;
}

void nvmf_cmd_complete_data(struct nvmf_cmd *cmd, uint32_t len)
{
    struct nvmf_conn *c = cmd->conn;
    uint8_t flags = NVME_TCP_F_LAST;
    bool success;
    size_t hdr_len;
    unsigned n = 2;

    if (UNLIKELY(c->closing || len == 0)) {
        nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
        return;
    }
    release_inputs(cmd);
    advance_sqhd(c);
    success = may_use_success(cmd);
    if (success)
        flags |= NVME_TCP_F_SUCCESS;
    c->local->stats.bytes_out += len;
    cmd->state = NVMF_CMD_SENDING;
    cmd->tx.done = response_sent;
    hdr_len = nvme_tcp_put_c2h_data(cmd->hdr, &c->ptx, le16_get(cmd->sqe.cid), 0, len, flags);
    cmd->tx.iov[0] = (struct iovec){.iov_base = cmd->hdr, .iov_len = hdr_len};
    cmd->tx.iov[1] = (struct iovec){.iov_base = cmd->iov[0].iov_base, .iov_len = len};
    if (c->ptx.ddgst) {
        le32_put(cmd->ddgst, crc32c(0, cmd->iov[0].iov_base, len));
        cmd->tx.iov[n++] = (struct iovec){.iov_base = cmd->ddgst, .iov_len = sizeof(cmd->ddgst)};
    }
    if (!success)
        cmd->tx.iov[n++] =
            (struct iovec){.iov_base = cmd->resp, .iov_len = put_response(cmd, NVME_SC_SUCCESS)};
    cmd->tx.iovcnt = (uint8_t)n;
    net_tx_add(&c->tx, &cmd->tx);
}

/* --- commands that take more than one step ---------------------------------------------------- */

static int cmd_task_main(struct rt_task *t, void *arg)
{
    struct nvmf_cmd *cmd = arg;
    int status;

    rt_task_set_trace(t, cmd->trace_id);
    status = cmd->task_fn(t, cmd);

    /* What the host has been asked for still comes, whoever wants it. */
    if (cmd->in != NULL)
        nvmf_in_discard(t, cmd->in);
    return status;
}

static void task_next(struct nvmf_conn *c);

static void cmd_task_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, task_done);
    struct nvmf_conn *c = cmd->conn;

    cmd->task = NULL;
    c->ntasks--;
    if (req->rc == NVMF_CMD_GOES_ON)
        cmd->run(cmd);
    else
        nvmf_cmd_complete(cmd, (uint16_t)req->rc);
    task_next(c);
}

static bool task_begin(struct nvmf_cmd *cmd)
{
    rt_req_init(&cmd->task_done, cmd_task_done);
    if (rt_task_start("nvmf-cmd", cmd_task_main, cmd, &cmd->task_done, &cmd->task) < 0)
        return false;
    cmd->state = NVMF_CMD_TASK;
    cmd->conn->ntasks++;
    return true;
}

static void task_next(struct nvmf_conn *c)
{
    struct nvmf_cmd *cmd;

    while (c->ntasks < NVMF_TASKS && !c->closing &&
           (cmd = list_pop_entry(&c->task_wait, struct nvmf_cmd, link)) != NULL) {
        if (!task_begin(cmd))
            nvmf_cmd_complete(cmd, NVME_SC_CMD_INTERRUPTED);
    }
}

bool nvmf_cmd_task(struct nvmf_cmd *cmd, int (*fn)(struct rt_task *t, struct nvmf_cmd *cmd))
{
    struct nvmf_conn *c = cmd->conn;

    cmd->task_fn = fn;
    /* Transfers from the host have a bound of their own, and do not wait for those that read. */
    if (cmd->in != NULL)
        return task_begin(cmd);
    if (c->ntasks >= NVMF_TASKS) {
        cmd->state = NVMF_CMD_TASK_WAIT;
        list_init(&cmd->link);
        list_add_tail(&c->task_wait, &cmd->link);
    } else if (!task_begin(cmd)) {
        /* As many tasks as the runtime allows: the host may try again. */
        nvmf_cmd_complete(cmd, NVME_SC_CMD_INTERRUPTED);
    }
    return true;
}

/* Ends a command soon, wherever it is: it completes (or, on a closing connection, is freed) by the
 * way it is on. */
void nvmf_cmd_cancel(struct nvmf_cmd *cmd)
{
    uint16_t status = NVME_SC_ABORT_REQ | NVME_SC_DNR;

    cmd->aborted = true;
    switch ((enum nvmf_cmd_state)cmd->state) {
    case NVMF_CMD_IN:
        /* What the host has been asked for still comes. */
        if (cmd->in != NULL && !cmd->conn->closing) {
            nvmf_in_fail(cmd->in, status);
            break;
        }
        list_del(&cmd->link);
        nvmf_cmd_complete(cmd, status);
        break;
    case NVMF_CMD_TASK_WAIT:
        list_del(&cmd->link);
        nvmf_cmd_complete(cmd, status);
        break;
    case NVMF_CMD_OUT:
        nvmf_out_cancel(&cmd->out);
        nvmf_cmd_complete(cmd, status);
        break;
    case NVMF_CMD_BUF:
        rt_buf_unwait(&cmd->waiter);
        break;
    case NVMF_CMD_DEVICE:
        rt_req_cancel(&cmd->blk.req); /* the same place in kv */
        break;
    case NVMF_CMD_TASK:
        if (cmd->in != NULL)
            nvmf_in_fail(cmd->in, status);
        rt_task_cancel(cmd->task);
        break;
    case NVMF_CMD_FUSED:
        cmd->conn->fused = NULL;
        nvmf_cmd_complete(cmd, status);
        break;
    case NVMF_CMD_AER:
        nvmf_ctrlr_drop_aer(cmd->conn->ctrlr, cmd);
        nvmf_cmd_complete(cmd, status);
        break;
    case NVMF_CMD_FREE:
    case NVMF_CMD_ACTIVE:
    case NVMF_CMD_SENDING:
        break;
    }
}
