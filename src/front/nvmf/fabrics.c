/* SPDX-License-Identifier: Apache-2.0 */
/* Fabrics commands: Connect, properties, Disconnect. */
#include "front/nvmf/internal.h"

#include <string.h>

#define INVALID (NVME_SC_INVALID_FIELD | NVME_SC_DNR)

/* --- Connect ---------------------------------------------------------------------------------- */

/* What the codec cannot know. An empty host NQN passes (SPDK's tools send it): it is nobody's on a
 * list of hosts. */
static uint16_t check_limits(const struct nvmf_conn *c, const struct nvme_connect_cmd *cmd,
                             uint32_t *out_dw0)
{
    uint32_t entries = le16_get(cmd->sqsize) + 1u;

    if (entries > c->tgt->cfg.queue_entries_max) {
        *out_dw0 = offsetof(struct nvme_connect_cmd, sqsize);
        return NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR;
    }
    if (le16_get(cmd->qid) > c->tgt->cfg.io_queues_max) {
        *out_dw0 = offsetof(struct nvme_connect_cmd, qid);
        return NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR;
    }
    return NVME_SC_SUCCESS;
}

static void do_connect(struct rt_task *t, struct nvmf_cmd *cmd, struct bytes data)
{
    struct nvme_connect_cmd con;
    struct nvme_connect_data d;
    struct nvmf_conn *c = cmd->conn;
    struct nvmf_connect_result r = {0};

    memcpy(&con, &cmd->sqe, sizeof(con));
    r.status = nvme_connect_check(&con, data.ptr, data.len, &r.dw0);
    if (r.status == NVME_SC_SUCCESS)
        r.status = check_limits(c, &con, &r.dw0);
    if (r.status == NVME_SC_SUCCESS) {
        memcpy(&d, data.ptr, sizeof(d));
        if (le16_get(con.qid) == 0)
            nvmf_connect_admin(t, c, &con, &d, &r);
        else
            nvmf_connect_io(t, c, &con, &d, &r);
    }
    cmd->dw0 = r.dw0;
    if (r.status == NVME_SC_SUCCESS) {
        c->no_sqflow = con.cattr & NVME_CATTR_DISABLE_SQFLOW;
        c->entries = (uint16_t)(le16_get(con.sqsize) + 1);
        c->sqhd = 0;
    }
    nvmf_cmd_complete(cmd, r.status);
    if (r.status != NVME_SC_SUCCESS)
        return;
    /* The slots of the queue take the place of the one that Connect used. */
    if (net_tx_drain(t, &c->tx) < 0)
        return;
    must(c->nbusy == 0);
    if (nvmf_conn_queue(c, c->entries) < 0) {
        log_warn("nvmf: no memory for a queue of %u entries", c->entries);
        nvmf_conn_kill(c);
    }
}

/* --- properties ------------------------------------------------------------------------------- */

static uint16_t property_get(struct nvmf_cmd *cmd)
{
    const struct nvme_property_cmd *p = (const struct nvme_property_cmd *)&cmd->sqe;
    const struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    bool wide = (p->attrib & NVME_PROPERTY_SIZE_MASK) == NVME_PROPERTY_8_BYTES;
    uint64_t value;

    if ((p->attrib & NVME_PROPERTY_SIZE_MASK) > NVME_PROPERTY_8_BYTES)
        return INVALID;
    if (wide != (le32_get(p->ofst) == NVME_REG_CAP))
        return INVALID;
    switch (le32_get(p->ofst)) {
    case NVME_REG_CAP:
        value = nvmf_ctrlr_cap(ctrlr);
        break;
    case NVME_REG_VS:
        value = NVME_VS_2_0;
        break;
    case NVME_REG_CC:
        value = ctrlr->cc;
        break;
    case NVME_REG_CSTS:
        value = ctrlr->csts;
        break;
    case NVME_REG_CRTO: /* CAP.CRMS is 0: not there, and 0 for those who look anyway */
    case NVME_REG_NSSR:
        value = 0;
        break;
    default:
        return INVALID;
    }
    cmd->dw0 = (uint32_t)value;
    cmd->dw1 = (uint32_t)(value >> 32);
    return NVME_SC_SUCCESS;
}

static bool cc_ok(const struct nvmf_ctrlr *ctrlr, uint32_t cc)
{
    unsigned css = NVME_CC_CSS(cc);

    if (NVME_CC_MPS(cc) != 0 || NVME_CC_AMS(cc) != 0)
        return false;
    return css == NVME_CSS_NVM || (css == NVME_CSS_IOCS && !ctrlr->discovery);
}

/* Events that nobody will ask for again are answered, so that the slots come back. */
static void abort_aers(struct nvmf_ctrlr *ctrlr)
{
    while (ctrlr->naer > 0)
        nvmf_cmd_complete(ctrlr->aer[--ctrlr->naer], NVME_SC_ABORT_QUEUE | NVME_SC_DNR);
}

static void reset(struct rt_task *t, struct nvmf_ctrlr *ctrlr)
{
    nvmf_ctrlr_drop_queues(t, ctrlr);
    abort_aers(ctrlr);
    ctrlr->queues_set = false;
    ctrlr->queues_granted = ctrlr->tgt->cfg.io_queues_max;
    ctrlr->async_mask = 0;
    ctrlr->ns_event = ctrlr->ns_masked = false;
    ctrlr->disc_event = ctrlr->disc_masked = false;
    memset(ctrlr->changed, 0, sizeof(ctrlr->changed));
    ctrlr->csts = 0;
}

static void shut_down(struct rt_task *t, struct nvmf_ctrlr *ctrlr)
{
    nvmf_ctrlr_drop_queues(t, ctrlr);
    rt_timer_stop(&ctrlr->kato_timer);
    ctrlr->csts = (ctrlr->csts & ~NVME_CSTS_SHST_MASK) | NVME_CSTS_SHST_COMPLETE;
}

static uint16_t set_cc(struct rt_task *t, struct nvmf_ctrlr *ctrlr, uint32_t cc)
{
    bool was = ctrlr->cc & NVME_CC_EN, on = cc & NVME_CC_EN;
    unsigned shn_was = NVME_CC_SHN(ctrlr->cc), shn = NVME_CC_SHN(cc);

    /* What an enabled controller has cannot change under it. */
    if ((!was || !on) && !cc_ok(ctrlr, cc))
        return INVALID;
    if (was && on && NVME_CC_CSS(cc) != NVME_CC_CSS(ctrlr->cc))
        return INVALID;
    ctrlr->cc = cc;
    if (shn != NVME_SHN_NONE && shn_was == NVME_SHN_NONE)
        shut_down(t, ctrlr);
    if (was && !on) {
        reset(t, ctrlr);
    } else if (!was && on) {
        ctrlr->csts = NVME_CSTS_RDY;
        nvmf_ctrlr_set_kato(ctrlr, ctrlr->kato_ms);
    }
    return NVME_SC_SUCCESS;
}

static uint16_t property_set(struct rt_task *t, struct nvmf_cmd *cmd)
{
    const struct nvme_property_cmd *p = (const struct nvme_property_cmd *)&cmd->sqe;

    if ((p->attrib & NVME_PROPERTY_SIZE_MASK) != 0 || le32_get(p->ofst) != NVME_REG_CC)
        return INVALID;
    return set_cc(t, cmd->conn->ctrlr, (uint32_t)le64_get(p->value));
}

/* --- all -------------------------------------------------------------------------------------- */

void nvmf_fabrics(struct rt_task *t, struct nvmf_cmd *cmd, struct bytes data)
{
    const struct nvme_fabrics_cmd *f = (const struct nvme_fabrics_cmd *)&cmd->sqe;
    struct nvmf_conn *c = cmd->conn;
    uint16_t status = NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;

    if (f->fctype == NVME_FC_CONNECT && c->ctrlr == NULL) {
        do_connect(t, cmd, data);
        return;
    }
    if (c->ctrlr == NULL || f->fctype == NVME_FC_CONNECT) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    switch (f->fctype) {
    case NVME_FC_PROPERTY_GET:
        if (c->qid == 0)
            status = property_get(cmd);
        break;
    case NVME_FC_PROPERTY_SET:
        if (c->qid == 0)
            status = property_set(t, cmd);
        break;
    case NVME_FC_DISCONNECT:
        if (c->qid != 0) {
            nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
            net_tx_drain(t, &c->tx);
            nvmf_conn_kill(c);
            return;
        }
        break;
    default:
        status = NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
        break;
    }
    nvmf_cmd_complete(cmd, status);
}
