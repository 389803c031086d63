/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admin commands. The connection's own task carries them out, one after the other: they are rare,
 * and some wait for other reactors.
 */
#include "front/nvmf/internal.h"

#include "proto/nvme_vendor.h"

#include <string.h>

/* Sends `want` bytes to the host: of `src`, and zeroes after its `len`. */
static void reply_large(struct rt_task *t, struct nvmf_cmd *cmd, const uint8_t *src, size_t len,
                        uint32_t want)
{
    for (uint32_t off = 0; off < want;) {
        uint32_t n = MIN(want - off, RT_BUF_LARGE_BYTES);
        size_t have = off < len ? MIN((size_t)n, len - off) : 0;
        struct nvmf_piece *p = nvmf_out_take(t, cmd->conn, n);

        if (p == NULL) {
            nvmf_cmd_complete(cmd, NVME_SC_ABORT_REQ | NVME_SC_DNR);
            return;
        }
        if (have > 0)
            memcpy(p->buf->data, src + off, have);
        memset(p->buf->data + have, 0, n - have);
        nvmf_out_send(cmd, p, off, n, off + n == want);
        off += n;
    }
    nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
}

void nvmf_admin_reply(struct rt_task *t, struct nvmf_cmd *cmd, const void *src, size_t len,
                      uint32_t want)
{
    if (want > cmd->sgl_len || cmd->in_capsule) {
        nvmf_cmd_complete(cmd, NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR);
        return;
    }
    reply_large(t, cmd, src, len, want);
}

static void identify(struct rt_task *t, struct nvmf_cmd *cmd)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *page = rt_buf_take(t, NVME_IDENTIFY_BYTES);
    uint16_t status = NVME_SC_ABORT_REQ;

    if (page != NULL) {
        memset(page->data, 0, NVME_IDENTIFY_BYTES);
        status = nvmf_identify(t, cmd, page->data);
    }
    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    if (cmd->in_capsule || cmd->sgl_len < NVME_IDENTIFY_BYTES) {
        nvmf_cmd_complete(cmd, NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR);
        return;
    }
    cmd->buf = take_ptr(&page);
    cmd->iov[0] = (struct iovec){.iov_base = cmd->buf->data, .iov_len = NVME_IDENTIFY_BYTES};
    nvmf_cmd_complete_data(cmd, NVME_IDENTIFY_BYTES);
}

static void get_features(struct rt_task *t, struct nvmf_cmd *cmd)
{
    uint8_t data[512] = {0};
    uint32_t len = 0;
    uint16_t status = nvmf_features_get(cmd, data, &len);

    if (status != NVME_SC_SUCCESS || len == 0)
        nvmf_cmd_complete(cmd, status);
    else
        nvmf_admin_reply(t, cmd, data, len, len);
}

static void async_event_request(struct nvmf_cmd *cmd)
{
    struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;

    if (ctrlr->naer == NVMF_AERS) {
        nvmf_cmd_complete(cmd, NVME_SC_ASYNC_LIMIT | NVME_SC_DNR);
        return;
    }
    cmd->state = NVMF_CMD_AER;
    ctrlr->aer[ctrlr->naer++] = cmd;
    nvmf_ctrlr_events(ctrlr);
}

/* --- Abort ------------------------------------------------------------------------------------ */

struct abort_call {
    struct nvmf_conn *conn;
    uint16_t cid;
    bool aborted;
};

/* The reactor of the queue. What waits is ended now; what a device is at work on is asked to end,
 * and may or may not. */
static int abort_task(struct rt_task *t, void *arg)
{
    struct abort_call *a = arg;

    for (unsigned i = 0; i < a->conn->nused; i++) {
        struct nvmf_cmd *cmd = &a->conn->cmds[i];

        if (cmd->state == NVMF_CMD_FREE || cmd->state == NVMF_CMD_ACTIVE ||
            cmd->state == NVMF_CMD_SENDING || le16_get(cmd->sqe.cid) != a->cid)
            continue;
        nvmf_cmd_cancel(cmd);
        a->aborted = cmd->state == NVMF_CMD_SENDING;
        break;
    }
    return 0;
}

static bool abort_aer(struct nvmf_ctrlr *ctrlr, uint16_t cid)
{
    for (unsigned i = 0; i < ctrlr->naer; i++) {
        struct nvmf_cmd *cmd = ctrlr->aer[i];

        if (le16_get(cmd->sqe.cid) != cid)
            continue;
        nvmf_ctrlr_drop_aer(ctrlr, cmd);
        nvmf_cmd_complete(cmd, NVME_SC_ABORT_REQ);
        return true;
    }
    return false;
}

static void abort_command(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    uint32_t cdw10 = le32_get(cmd->sqe.cdw10);
    uint16_t sqid = (uint16_t)cdw10;
    struct abort_call a = {.cid = (uint16_t)(cdw10 >> 16)};

    if (sqid == 0) {
        a.aborted = abort_aer(ctrlr, a.cid);
    } else if (sqid <= ctrlr->tgt->cfg.io_queues_max && ctrlr->q[sqid].conn != NULL) {
        /* The queue cannot go meanwhile: it leaves by a message behind this one. */
        a.conn = ctrlr->q[sqid].conn;
        rt_task_shield(t, true);
        rt_on(t, ctrlr->q[sqid].reactor, abort_task, &a);
        rt_task_shield(t, false);
    }
    cmd->dw0 = a.aborted ? 0 : 1;
    nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
}

static void end_controller(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    uint32_t cntlid = le32_get(cmd->sqe.cdw10);

    if (ctrlr->discovery)
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
    else if (cntlid > UINT16_MAX || cntlid == ctrlr->cntlid)
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
    else if (nvmf_ctrlr_end_other(t, ctrlr, (uint16_t)cntlid) < 0)
        nvmf_cmd_complete(cmd, NVME_SC_INTERNAL);
    else
        nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
}

/* --- all -------------------------------------------------------------------------------------- */

/* Data that an admin command brings: 0 when it has none. */
static uint32_t data_wanted(const struct nvme_sqe *sqe)
{
    const struct nvme_fabrics_cmd *f = (const struct nvme_fabrics_cmd *)sqe;

    if (sqe->opc == NVME_OPC_FABRICS && f->fctype == NVME_FC_CONNECT)
        return sizeof(struct nvme_connect_data);
    return 0;
}

static void run_by_task(struct nvmf_cmd *cmd)
{
    must(!"the connection's task carries admin commands out");
}

static void run(struct rt_task *t, struct nvmf_cmd *cmd, struct bytes data)
{
    switch (cmd->sqe.opc) {
    case NVME_OPC_FABRICS:
        nvmf_fabrics(t, cmd, data);
        break;
    case NVME_OPC_IDENTIFY:
        identify(t, cmd);
        break;
    case NVME_OPC_GET_LOG_PAGE:
        nvmf_log_page(t, cmd);
        break;
    case NVME_OPC_SET_FEATURES:
        nvmf_cmd_complete(cmd, nvmf_features_set(cmd, data));
        break;
    case NVME_OPC_GET_FEATURES:
        get_features(t, cmd);
        break;
    case NVME_OPC_ASYNC_EVENT_REQUEST:
        async_event_request(cmd);
        break;
    case NVME_OPC_ABORT:
        abort_command(t, cmd);
        break;
    case NVME_OPC_KEEP_ALIVE:
        nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
        break;
    case NVME_OPC_VENDOR_END_CTRLR:
        end_controller(t, cmd);
        break;
    default:
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
        break;
    }
}

/* Whether a command may come in this state of the controller. */
static bool in_sequence(const struct nvmf_cmd *cmd)
{
    const struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;

    if (cmd->sqe.opc == NVME_OPC_FABRICS)
        return true;
    return ctrlr != NULL && cmd->conn->qid == 0 && (ctrlr->csts & NVME_CSTS_RDY);
}

void nvmf_admin(struct rt_task *t, struct nvmf_cmd *cmd, struct bytes data)
{
    struct nvmf_conn *c = cmd->conn;
    uint32_t want = data_wanted(&cmd->sqe);

    c->local->stats.admin_cmds++;
    if (c->ctrlr != NULL)
        nvmf_ctrlr_seen(c->ctrlr);
    if (!in_sequence(cmd)) {
        nvmf_cmd_complete(cmd, NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
        return;
    }
    if (want > 0 && (cmd->sgl_len < want || cmd->sgl_len > NVMF_ADMIN_DATA_MAX)) {
        nvmf_cmd_complete(cmd, NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR);
        return;
    }
    if (want > 0 && data.len == 0) {
        nvmf_in_begin(cmd, want, 1, run_by_task, NULL);
        return;
    }
    run(t, cmd, data);
}
