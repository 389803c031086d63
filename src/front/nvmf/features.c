/* SPDX-License-Identifier: Apache-2.0 */
/* Set Features and Get Features: one table says which there are and what can be done to them. */
#include "front/nvmf/internal.h"
#include "proto/nvme_select.h"

#include <string.h>

#define INVALID (NVME_SC_INVALID_FIELD | NVME_SC_DNR)

struct feature {
    uint8_t fid;
    bool changeable;
    bool per_ns;
    bool discovery; /* discovery controllers have it as well */
    uint32_t by_default;
};

static const struct feature features[] = {
    {.fid = NVME_FID_ARBITRATION, .changeable = true},
    {.fid = NVME_FID_POWER, .changeable = true},
    {.fid = NVME_FID_TEMPERATURE, .changeable = true, .by_default = 0x157},
    {.fid = NVME_FID_ERROR_RECOVERY, .changeable = true},
    {.fid = NVME_FID_WRITE_CACHE, .by_default = 1},
    {.fid = NVME_FID_QUEUES, .changeable = true},
    {.fid = NVME_FID_WRITE_ATOMIC, .changeable = true},
    {.fid = NVME_FID_ASYNC_EVENT, .changeable = true, .discovery = true},
    {.fid = NVME_FID_KATO, .changeable = true, .discovery = true},
    {.fid = NVME_FID_IOCS_PROFILE, .changeable = true},
    {.fid = NVME_FID_KV_CONFIG, .changeable = true, .per_ns = true},
    {.fid = NVME_FID_HOST_ID},
};

static const struct feature *find(const struct nvmf_ctrlr *ctrlr, uint8_t fid)
{
    for (size_t i = 0; i < ARRAY_LEN(features); i++) {
        if (features[i].fid == fid && (!ctrlr->discovery || features[i].discovery))
            return &features[i];
    }
    return NULL;
}

static bool any_cache(const struct nvmf_cmd *cmd)
{
    for (uint32_t i = 1; i <= NVMF_NSID_MAX; i++) {
        struct nvmf_ns *ns = nvmf_ns_find(cmd->conn->table, i);

        if (ns != NULL && ns->volatile_cache)
            return true;
    }
    return false;
}

static struct nvmf_ns *kv_ns(const struct nvmf_cmd *cmd)
{
    struct nvmf_ns *ns = nvmf_ns_find(cmd->conn->table, le32_get(cmd->sqe.nsid));

    return ns != NULL && nvmf_ns_is_kv(ns) && nvmf_ctrlr_iocs(cmd->conn->ctrlr) ? ns : NULL;
}

/* The CSD dialect has another meaning for 20h: what the namespace can do. */
static bool is_csd(const struct nvmf_cmd *cmd)
{
    struct nvmf_ns *ns = nvmf_ns_find(cmd->conn->table, le32_get(cmd->sqe.nsid));

    return ns != NULL && ns->csd && !cmd->conn->ctrlr->discovery;
}

/* --- Set -------------------------------------------------------------------------------------- */

static uint16_t set_queues(struct nvmf_cmd *cmd, uint32_t v)
{
    struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    uint32_t nsq = v & 0xffff, ncq = v >> 16, n;

    if (nsq == 0xffff || ncq == 0xffff)
        return INVALID;
    if (ctrlr->nqueues > 0)
        return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
    n = MIN(MIN(nsq, ncq) + 1, (uint32_t)ctrlr->tgt->cfg.io_queues_max);
    ctrlr->queues_granted = (uint16_t)n;
    ctrlr->queues_set = true;
    cmd->dw0 = (n - 1) | (n - 1) << 16;
    return NVME_SC_SUCCESS;
}

static uint16_t set_temperature(struct nvmf_ctrlr *ctrlr, uint32_t v)
{
    unsigned sensor = v >> 16 & 0xf, type = v >> 20 & 3;

    if ((sensor != 0 && sensor != 0xf) || type > 1)
        return INVALID;
    if (type == 0)
        ctrlr->temp_over = v & 0xffff;
    else
        ctrlr->temp_under = v & 0xffff;
    return NVME_SC_SUCCESS;
}

static uint16_t set_async(struct nvmf_ctrlr *ctrlr, uint32_t v)
{
    ctrlr->async_mask = v & (ctrlr->discovery ? NVME_OAES_DISCOVERY : NVME_OAES_NS_ATTR | 0x1fu);
    nvmf_ctrlr_events(ctrlr);
    return NVME_SC_SUCCESS;
}

static uint16_t set_kv_config(const struct nvmf_cmd *cmd, uint32_t v)
{
    struct nvmf_ns *ns = kv_ns(cmd);

    if (ns == NULL)
        return NVME_SC_INVALID_NS | NVME_SC_DNR;
    atomic_store_explicit(&ns->kv_config, v & NVME_KV_CONFIG_EDNEK, memory_order_relaxed);
    return NVME_SC_SUCCESS;
}

uint16_t nvmf_features_set(struct nvmf_cmd *cmd, struct bytes data)
{
    struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    uint32_t cdw10 = le32_get(cmd->sqe.cdw10), v = le32_get(cmd->sqe.cdw11);
    uint32_t nsid = le32_get(cmd->sqe.nsid);
    const struct feature *f = find(ctrlr, (uint8_t)cdw10);

    if (f == NULL)
        return INVALID;
    if (f->fid == NVME_FID_KV_CONFIG && is_csd(cmd)) {
        cmd->dw0 = NVME_CSD_FEATURES;
        return NVME_SC_SUCCESS;
    }
    if (cdw10 & NVME_FEATURE_SAVE)
        return NVME_SC_FEATURE_NOT_SAVEABLE | NVME_SC_DNR;
    if (f->fid == NVME_FID_HOST_ID)
        return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
    if (!f->changeable)
        return NVME_SC_FEATURE_NOT_CHANGEABLE | NVME_SC_DNR;
    if (!f->per_ns && nsid != 0 && nsid != NVME_NSID_ALL)
        return NVME_SC_FEATURE_NOT_PER_NS | NVME_SC_DNR;
    switch (f->fid) {
    case NVME_FID_ARBITRATION:
        ctrlr->arbitration = v;
        return NVME_SC_SUCCESS;
    case NVME_FID_POWER:
        if ((v & 0x1f) != 0)
            return INVALID; /* there is one power state */
        ctrlr->power = v;
        return NVME_SC_SUCCESS;
    case NVME_FID_TEMPERATURE:
        return set_temperature(ctrlr, v);
    case NVME_FID_ERROR_RECOVERY:
        ctrlr->error_recovery = v & 0xffff;
        return NVME_SC_SUCCESS;
    case NVME_FID_QUEUES:
        return set_queues(cmd, v);
    case NVME_FID_WRITE_ATOMIC:
        ctrlr->write_atomic = v & 1;
        return NVME_SC_SUCCESS;
    case NVME_FID_ASYNC_EVENT:
        return set_async(ctrlr, v);
    case NVME_FID_KATO:
        nvmf_ctrlr_set_kato(ctrlr, v);
        return NVME_SC_SUCCESS;
    case NVME_FID_IOCS_PROFILE:
        return (v & 0x1ff) == 0 ? NVME_SC_SUCCESS : NVME_SC_IOCS_COMBINATION_REJECTED | NVME_SC_DNR;
    default:
        return set_kv_config(cmd, v);
    }
}

/* --- Get -------------------------------------------------------------------------------------- */

static uint16_t get_current(struct nvmf_cmd *cmd, const struct feature *f, uint8_t *page,
                            uint32_t *out_len)
{
    const struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    uint32_t cdw11 = le32_get(cmd->sqe.cdw11), n = ctrlr->queues_granted;

    switch (f->fid) {
    case NVME_FID_ARBITRATION:
        cmd->dw0 = ctrlr->arbitration;
        break;
    case NVME_FID_POWER:
        cmd->dw0 = ctrlr->power;
        break;
    case NVME_FID_TEMPERATURE:
        cmd->dw0 = (cdw11 >> 20 & 3) == 1 ? ctrlr->temp_under : ctrlr->temp_over;
        break;
    case NVME_FID_ERROR_RECOVERY:
        cmd->dw0 = ctrlr->error_recovery;
        break;
    case NVME_FID_WRITE_CACHE:
        cmd->dw0 = 1;
        break;
    case NVME_FID_QUEUES:
        cmd->dw0 = (n - 1) | (n - 1) << 16;
        break;
    case NVME_FID_WRITE_ATOMIC:
        cmd->dw0 = ctrlr->write_atomic;
        break;
    case NVME_FID_ASYNC_EVENT:
        cmd->dw0 = ctrlr->async_mask;
        break;
    case NVME_FID_KATO:
        cmd->dw0 = ctrlr->kato_ms;
        break;
    case NVME_FID_IOCS_PROFILE:
        cmd->dw0 = 0;
        break;
    case NVME_FID_KV_CONFIG:
        cmd->dw0 = atomic_load_explicit(&kv_ns(cmd)->kv_config, memory_order_relaxed);
        break;
    default: /* host identifier */
        if ((cdw11 & 1) == 0)
            return INVALID; /* fabrics have the long form only */
        memcpy(page, ctrlr->hostid, sizeof(ctrlr->hostid));
        *out_len = sizeof(ctrlr->hostid);
        break;
    }
    return NVME_SC_SUCCESS;
}

uint16_t nvmf_features_get(struct nvmf_cmd *cmd, uint8_t *page, uint32_t *out_len)
{
    uint32_t cdw10 = le32_get(cmd->sqe.cdw10);
    const struct feature *f = find(cmd->conn->ctrlr, (uint8_t)cdw10);

    if (f == NULL || (f->fid == NVME_FID_WRITE_CACHE && !any_cache(cmd)))
        return INVALID;
    if (f->fid == NVME_FID_KV_CONFIG && is_csd(cmd)) {
        cmd->dw0 = NVME_CSD_FEATURES;
        return NVME_SC_SUCCESS;
    }
    if (f->per_ns && kv_ns(cmd) == NULL)
        return NVME_SC_INVALID_NS | NVME_SC_DNR;
    switch (NVME_FEATURE_SEL(cdw10)) {
    case NVME_SEL_CURRENT:
        return get_current(cmd, f, page, out_len);
    case NVME_SEL_DEFAULT:
    case NVME_SEL_SAVED: /* nothing is saved: the default */
        cmd->dw0 = f->by_default;
        return NVME_SC_SUCCESS;
    case NVME_SEL_CAPS:
        cmd->dw0 = (f->changeable ? NVME_FEATURE_CAP_CHANGEABLE : 0) |
                   (f->per_ns ? NVME_FEATURE_CAP_PER_NS : 0);
        return NVME_SC_SUCCESS;
    default:
        return INVALID;
    }
}
