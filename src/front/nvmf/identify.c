/* SPDX-License-Identifier: Apache-2.0 */
/* Identify: what initiators want to see, see README.md for who insists on what. */
#include "front/nvmf/internal.h"
#include "proto/nvme_kv_vendor.h"
#include "proto/nvme_select.h"
#include "proto/nvme_vendor.h"

#include <stdio.h>
#include <string.h>

#define INVALID (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define INVALID_NS (NVME_SC_INVALID_NS | NVME_SC_DNR)

static void pad(char *field, size_t len, const char *text)
{
    size_t n = MIN(strlen(text), len);

    memset(field, ' ', len);
    memcpy(field, text, n);
}

static struct nvmf_ns *const *table_of(const struct nvmf_cmd *cmd)
{
    return cmd->conn->table;
}

/* A namespace that this controller shows; the host has chosen which command sets it wants. */
static struct nvmf_ns *visible(const struct nvmf_cmd *cmd, uint32_t nsid)
{
    struct nvmf_ns *ns = nvmf_ns_find(table_of(cmd), nsid);

    if (ns == NULL || (nvmf_ns_is_kv(ns) && !nvmf_ctrlr_iocs(cmd->conn->ctrlr)))
        return NULL;
    return ns;
}

static bool any_volatile(const struct nvmf_cmd *cmd)
{
    for (uint32_t i = 1; i <= NVMF_NSID_MAX; i++) {
        struct nvmf_ns *ns = visible(cmd, i);

        if (ns != NULL && ns->volatile_cache)
            return true;
    }
    return false;
}

/* --- controllers ------------------------------------------------------------------------------ */

static void ctrl_common(const struct nvmf_cmd *cmd, struct nvme_id_ctrl *id)
{
    const struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    const struct nvmf_config *cfg = &ctrlr->tgt->cfg;

    id->vid = id->ssvid = le16_make(0x1b36);
    pad(id->sn, sizeof(id->sn), ctrlr->subsys->serial);
    pad(id->mn, sizeof(id->mn), ctrlr->subsys->model);
    pad(id->fr, sizeof(id->fr), "1");
    id->rab = 6;
    id->cntlid = le16_make(ctrlr->cntlid);
    id->ver = le32_make(NVME_VS_2_0);
    id->rtd3e = le32_make(5000000);
    id->ctratt = le32_make(NVME_CTRATT_HOSTID_128 | NVME_CTRATT_TBKAS);
    id->acl = 3;
    id->aerl = NVMF_AERS - 1;
    id->frmw = 3;
    id->lpa = NVME_LPA_EXTENDED;
    id->elpe = NVMF_ERRORS - 1;
    id->kas = le16_make(NVMF_KAS_MS / 100);
    id->sqes = 0x66;
    id->cqes = 0x44;
    id->maxcmd = le16_make(cfg->queue_entries_max);
    id->sgls = le32_make(NVME_SGLS_SUPPORTED | NVME_SGLS_OFFSET);
    snprintf(id->subnqn, sizeof(id->subnqn), "%s", ctrlr->subsys->nqn);
    id->ioccsz = le32_make((64 + cfg->in_capsule_bytes) / 16);
    id->iorcsz = le32_make(1);
    id->msdbd = 1;
    id->ofcs = le16_make(1);
}

static void ctrl(const struct nvmf_cmd *cmd, struct nvme_id_ctrl *id)
{
    struct nvme_vendor_ctrl *vendor = (struct nvme_vendor_ctrl *)id->vendor;

    ctrl_common(cmd, id);
    if (cmd->conn->ctrlr->discovery) {
        id->cntrltype = NVME_CNTRLTYPE_DISCOVERY;
        id->oaes = le32_make(NVME_OAES_DISCOVERY);
        return;
    }
    id->cntrltype = NVME_CNTRLTYPE_IO;
    id->cmic = NVME_CMIC_MULTI_PORT | NVME_CMIC_MULTI_CTRL;
    id->oaes = le32_make(NVME_OAES_NS_ATTR);
    id->lpa |= NVME_LPA_SMART_PER_NS | NVME_LPA_EFFECTS;
    id->wctemp = le16_make(0x157);
    id->cctemp = le16_make(0x175);
    id->nn = le32_make(NVMF_NSID_MAX);
    id->mnan = le32_make(NVMF_NSID_MAX);
    id->oncs = le16_make(NVME_ONCS_COMPARE | NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES);
    id->fuses = le16_make(NVME_FUSES_COMPARE_WRITE);
    id->vwc = NVME_VWC_FLUSH_ONE | (any_volatile(cmd) ? NVME_VWC_PRESENT : 0);
    id->psd[0].mp = le16_make(2500);
    memcpy(vendor->magic, NVME_VENDOR_CTRL_MAGIC, sizeof(vendor->magic));
    vendor->version = le32_make(NVME_VENDOR_CTRL_VERSION);
}

static uint16_t csi_ctrl(const struct nvmf_cmd *cmd, uint8_t csi, uint8_t *page)
{
    struct nvme_id_ctrl_nvm *nvm = (struct nvme_id_ctrl_nvm *)page;
    struct nvme_id_ctrl_kv *kv = (struct nvme_id_ctrl_kv *)page;

    switch (csi) {
    case NVME_CSI_NVM:
        nvm->dmrl = 255; /* 0 would be no limit as well; a command cannot have more than 256 */
        return NVME_SC_SUCCESS;
    case NVME_CSI_KV:
        kv->ver = le32_make(NVME_KV_VER_1_3);
        return NVME_SC_SUCCESS;
    default:
        return INVALID;
    }
}

/* --- namespaces ------------------------------------------------------------------------------- */

static void put_eui64(uint8_t eui64[8], const struct nvmf_ns *ns)
{
    memset(eui64, 0, 8); /* NGUID and UUID say it */
}

static void ns_nvm(const struct nvmf_ns *ns, struct nvme_id_ns *id)
{
    const struct blk_info *info = blk_info(ns->blk);
    uint64_t nblocks = info->nblocks;
    uint32_t phys = MAX(info->phys_block_bytes, info->block_bytes) / info->block_bytes;

    id->nsze = id->ncap = id->nuse = le64_make(nblocks);
    id->nsfeat = info->caps & BLK_CAP_UNMAP ? NVME_NSFEAT_THIN : 0;
    id->nmic = NVME_NMIC_SHARED;
    id->dlfeat =
        info->caps & BLK_CAP_UNMAP_ZEROES ? NVME_DLFEAT_READS_ZERO | NVME_DLFEAT_WZ_DEALLOCATES : 0;
    if (phys > 1) {
        id->nsfeat |= NVME_NSFEAT_OPTPERF;
        id->npwg = id->npwa = id->npdg = id->npda = id->nows = le16_make((uint16_t)(phys - 1));
    }
    le64_put(id->nvmcap, nblocks * info->block_bytes);
    id->nsattr = ns->read_only ? NVME_NSATTR_WRITE_PROTECTED : 0;
    memcpy(id->nguid, ns->nguid, sizeof(id->nguid));
    put_eui64(id->eui64, ns);
    id->lbaf[0].lbads = (uint8_t)ns->block_shift;
}

/* Bytes of a KV namespace and those in use; a device without a capacity has very many. */
static void kv_size(struct rt_task *t, const struct nvmf_ns *ns, uint64_t *out_size,
                    uint64_t *out_used)
{
    uint64_t keys = 0;

    *out_used = 0;
    kv_usage(t, ns->kv, out_used, &keys);
    *out_size = kv_info(ns->kv)->size_bytes;
    if (*out_size == 0)
        *out_size = 1ull << 62;
    *out_used = MIN(*out_used, *out_size);
}

/*
 * CNS 00h of a KV namespace. The NVM structure says nothing about it, but SPDK takes a namespace
 * without capacity here for inactive, and xNVMe gives up on an error.
 */
static void ns_kv_as_nvm(struct rt_task *t, const struct nvmf_ns *ns, struct nvme_id_ns *id)
{
    uint64_t size, used;

    kv_size(t, ns, &size, &used);
    id->nsze = id->ncap = le64_make(MAX(size / 512, 1u));
    id->nuse = le64_make(used / 512);
    id->nmic = NVME_NMIC_SHARED;
    id->nsattr = ns->read_only ? NVME_NSATTR_WRITE_PROTECTED : 0;
    memcpy(id->nguid, ns->nguid, sizeof(id->nguid));
    id->lbaf[0].lbads = 9;
}

/*
 * A CSD namespace as blocks: they read as zeroes and cannot be written, and say so. Linux makes a
 * block device of every NVM namespace and looks for partitions on it; this lets it do so without
 * an error in its log, and nobody can make a file system in what are not blocks. Its ioctl passes
 * commands to a write-protected namespace as to any other.
 */
static void ns_csd(struct rt_task *t, const struct nvmf_ns *ns, struct nvme_id_ns *id)
{
    uint64_t size, used;

    kv_size(t, ns, &size, &used);
    id->nsze = id->ncap = le64_make(nvmf_csd_blocks(ns));
    id->nuse = le64_make(MIN(used / 512, nvmf_csd_blocks(ns)));
    id->nmic = NVME_NMIC_SHARED;
    id->dlfeat = NVME_DLFEAT_READS_ZERO;
    id->nsattr = NVME_NSATTR_WRITE_PROTECTED;
    memcpy(id->nguid, ns->nguid, sizeof(id->nguid));
    id->lbaf[0].lbads = (uint8_t)ns->block_shift;
}

static uint32_t vendor_caps(uint32_t kv_caps)
{
    uint32_t caps = 0;

    caps |= kv_caps & KV_CAP_RANGE ? NVME_KVV_CAP_RANGE : 0;
    caps |= kv_caps & KV_CAP_VERSION ? NVME_KVV_CAP_VERSION : 0;
    caps |= kv_caps & KV_CAP_APPEND ? NVME_KVV_CAP_APPEND : 0;
    caps |= kv_caps & KV_CAP_UNKNOWN_LEN ? NVME_KVV_CAP_UNKNOWN_LEN : 0;
    caps |= kv_caps & KV_CAP_ORDERED_LIST ? NVME_KVV_CAP_ORDERED_LIST : 0;
    caps |= kv_caps & KV_CAP_BATCH ? NVME_KVV_CAP_BATCH : 0;
    caps |= kv_caps & KV_CAP_SNAPSHOT ? NVME_KVV_CAP_SNAPSHOT : 0;
    return caps;
}

static void ns_kv(struct rt_task *t, const struct nvmf_ns *ns, struct nvme_id_ns_kv *id)
{
    const struct kv_info *info = kv_info(ns->kv);
    struct nvme_kvv_id *v = (struct nvme_kvv_id *)id->vendor;
    uint64_t size, used;

    kv_size(t, ns, &size, &used);
    id->nsze = le64_make(size);
    id->nuse = le64_make(used);
    id->nmic = NVME_NMIC_SHARED;
    id->novg = le32_make(info->optimal_bytes);
    id->nsattr = ns->read_only ? NVME_NSATTR_WRITE_PROTECTED : 0;
    memcpy(id->nguid, ns->nguid, sizeof(id->nguid));
    put_eui64(id->eui64, ns);
    id->kvf[0].kvkml = le16_make((uint16_t)MIN(info->key_max, (uint32_t)NVME_KV_KEY_MAX));
    id->kvf[0].kvvml = le32_make((uint32_t)MIN(info->val_max, (uint64_t)UINT32_MAX));
    id->kvf[0].mnks = le32_make(info->nkeys_max);
    memcpy(v->magic, NVME_KVV_MAGIC, sizeof(v->magic));
    v->version = le32_make(NVME_KVV_VERSION);
    v->caps = le32_make(vendor_caps(info->caps));
    v->key_max = le32_make(info->key_max);
    v->handles_max = le32_make(NVMF_HANDLES);
    v->val_max = le64_make(info->val_max);
    v->idle_ms = le32_make(NVMF_HANDLE_IDLE_MS);
    v->batch_bytes_max = le32_make(NVMF_BATCH_BYTES);
    v->batch_items_max = le32_make(NVMF_BATCH_RECORDS);
}

/* SELECT in its extended form, when the target has queries. */
static void ns_kv_select(const struct nvmf_target *tgt, struct nvme_id_ns_kv *id)
{
    const struct query_results_config *cfg = query_results_config(tgt->results);
    struct nvme_sel_id *v = nvme_sel_id_of(id->vendor);

    if (tgt->select == NULL)
        return;
    memcpy(v->magic, NVME_SEL_MAGIC, sizeof(v->magic));
    v->version = le32_make(NVME_SEL_VERSION);
    v->data_max = le32_make(NVME_SEL_DATA_MAX);
    v->results_max = le32_make(NVMF_SELECT_RESULTS);
    v->timeout_ms = le32_make(tgt->cfg.select_timeout_ms);
    v->bytes_max = le64_make(cfg->owner_bytes_max);
    v->idle_ms = le32_make((uint32_t)(cfg->idle_ns / NS_PER_MS));
}

static uint16_t csi_ns(struct rt_task *t, const struct nvmf_cmd *cmd, uint8_t csi, uint8_t *page)
{
    const struct nvmf_ns *ns = visible(cmd, le32_get(cmd->sqe.nsid));

    if (csi != NVME_CSI_NVM && csi != NVME_CSI_KV)
        return INVALID;
    if (ns == NULL)
        return INVALID_NS;
    if ((csi == NVME_CSI_KV) != nvmf_ns_is_kv(ns))
        return NVME_SC_INVALID_IOCS | NVME_SC_DNR;
    if (nvmf_ns_is_kv(ns)) {
        ns_kv(t, ns, (struct nvme_id_ns_kv *)page);
        ns_kv_select(cmd->conn->tgt, (struct nvme_id_ns_kv *)page);
    }
    return NVME_SC_SUCCESS;
}

static uint16_t ns_basic(struct rt_task *t, const struct nvmf_cmd *cmd, uint8_t *page)
{
    uint32_t nsid = le32_get(cmd->sqe.nsid);
    const struct nvmf_ns *ns = visible(cmd, nsid);

    if (nsid == 0 || nsid > NVMF_NSID_MAX)
        return INVALID_NS;
    if (ns == NULL)
        return NVME_SC_SUCCESS; /* not active: zeroes */
    if (ns->kv == NULL)
        ns_nvm(ns, (struct nvme_id_ns *)page);
    else if (ns->csd)
        ns_csd(t, ns, (struct nvme_id_ns *)page);
    else if (cmd->conn->tgt->cfg.kv_strict_identify)
        return INVALID_NS;
    else
        ns_kv_as_nvm(t, ns, (struct nvme_id_ns *)page);
    return NVME_SC_SUCCESS;
}

static uint16_t ns_indep(const struct nvmf_cmd *cmd, struct nvme_id_ns_indep *id)
{
    const struct nvmf_ns *ns = visible(cmd, le32_get(cmd->sqe.nsid));

    if (ns == NULL)
        return INVALID_NS;
    id->nsfeat = ns->volatile_cache ? 0 : NVME_NSFEAT_INDEP_VWCNP;
    id->nmic = NVME_NMIC_SHARED;
    id->nsattr = ns->read_only || ns->csd ? NVME_NSATTR_WRITE_PROTECTED : 0;
    id->nstat = NVME_NSTAT_NRDY;
    return NVME_SC_SUCCESS;
}

static uint16_t ns_descs(const struct nvmf_cmd *cmd, uint8_t *page)
{
    const struct nvmf_ns *ns = visible(cmd, le32_get(cmd->sqe.nsid));
    struct nvme_ns_ids ids = {.have = 1u << NVME_NIDT_NGUID | 1u << NVME_NIDT_UUID |
                                      1u << NVME_NIDT_CSI};

    if (ns == NULL)
        return INVALID_NS;
    memcpy(ids.nguid, ns->nguid, sizeof(ids.nguid));
    memcpy(ids.uuid, ns->uuid, sizeof(ids.uuid));
    ids.csi = nvmf_ns_is_kv(ns) ? NVME_CSI_KV : NVME_CSI_NVM;
    return nvme_ns_desc_encode(page, NVME_IDENTIFY_BYTES, &ids) < 0 ? NVME_SC_INTERNAL
                                                                    : NVME_SC_SUCCESS;
}

/* Active namespaces above NSID; csi -1: of all command sets. */
static uint16_t ns_list(const struct nvmf_cmd *cmd, int csi, struct nvme_ns_list *list)
{
    uint32_t nsid = le32_get(cmd->sqe.nsid);
    unsigned n = 0;

    if (nsid >= 0xfffffffe)
        return INVALID_NS;
    if (csi > NVME_CSI_KV)
        return INVALID;
    for (uint32_t i = nsid + 1; i <= NVMF_NSID_MAX && n < ARRAY_LEN(list->nsid); i++) {
        const struct nvmf_ns *ns = visible(cmd, i);

        if (ns != NULL && (csi < 0 || nvmf_ns_is_kv(ns) == (csi == NVME_CSI_KV)))
            list->nsid[n++] = le32_make(i);
    }
    return NVME_SC_SUCCESS;
}

/* --- lists of controllers, command sets ------------------------------------------------------- */

struct list_call {
    struct nvmf_subsys *subsys;
    uint16_t from;
    struct nvme_ctrl_list *out;
};

/* Reactor 0. The list is kept sorted by insertion. */
static int ctrl_list_task(struct rt_task *t, void *arg)
{
    struct list_call *l = arg;
    struct nvmf_reg *reg;
    unsigned n = 0;

    list_for_each (reg, &l->subsys->regs, struct nvmf_reg, link) {
        unsigned at = n;

        if (reg->cntlid < l->from || reg->gone || n == ARRAY_LEN(l->out->cntlid))
            continue;
        for (; at > 0 && le16_get(l->out->cntlid[at - 1]) > reg->cntlid; at--)
            l->out->cntlid[at] = l->out->cntlid[at - 1];
        l->out->cntlid[at] = le16_make(reg->cntlid);
        n++;
    }
    l->out->count = le16_make((uint16_t)n);
    return 0;
}

static uint16_t ctrl_list(struct rt_task *t, const struct nvmf_cmd *cmd, bool of_ns, uint8_t *page)
{
    struct list_call l = {.subsys = cmd->conn->subsys,
                          .from = nvme_identify_cntid(&cmd->sqe),
                          .out = (struct nvme_ctrl_list *)page};

    if (of_ns && visible(cmd, le32_get(cmd->sqe.nsid)) == NULL)
        return INVALID_NS;
    rt_task_shield(t, true);
    rt_on(t, rt_reactor(0), ctrl_list_task, &l);
    rt_task_shield(t, false);
    return NVME_SC_SUCCESS;
}

static uint16_t iocs(const struct nvmf_cmd *cmd, struct nvme_id_iocs *id)
{
    uint16_t cntid = nvme_identify_cntid(&cmd->sqe);

    if (cntid != 0xffff && cntid != cmd->conn->ctrlr->cntlid)
        return NVME_SC_INVALID_CTRL_ID | NVME_SC_DNR;
    id->iocsc[0] = le64_make(1u << NVME_CSI_NVM | 1u << NVME_CSI_KV);
    return NVME_SC_SUCCESS;
}

uint16_t nvmf_identify(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t *page)
{
    uint8_t cns = nvme_identify_cns(&cmd->sqe), csi = nvme_identify_csi(&cmd->sqe);

    if (cns == NVME_CNS_CTRL) {
        ctrl(cmd, (struct nvme_id_ctrl *)page);
        return NVME_SC_SUCCESS;
    }
    if (cmd->conn->ctrlr->discovery)
        return INVALID;
    switch (cns) {
    case NVME_CNS_NS:
    case NVME_CNS_NS_ALLOCATED:
        return ns_basic(t, cmd, page);
    case NVME_CNS_NS_ACTIVE_LIST:
    case NVME_CNS_NS_ALLOCATED_LIST:
        return ns_list(cmd, -1, (struct nvme_ns_list *)page);
    case NVME_CNS_CSI_NS_ACTIVE_LIST:
    case NVME_CNS_CSI_NS_ALLOCATED_LIST:
        return ns_list(cmd, csi, (struct nvme_ns_list *)page);
    case NVME_CNS_NS_DESC_LIST:
        return ns_descs(cmd, page);
    case NVME_CNS_CSI_NS:
    case NVME_CNS_CSI_NS_ALLOCATED:
        return csi_ns(t, cmd, csi, page);
    case NVME_CNS_CSI_CTRL:
        return csi_ctrl(cmd, csi, page);
    case NVME_CNS_CSI_INDEP_NS:
        return ns_indep(cmd, (struct nvme_id_ns_indep *)page);
    case NVME_CNS_NS_CTRL_LIST:
        return ctrl_list(t, cmd, true, page);
    case NVME_CNS_CTRL_LIST:
        return ctrl_list(t, cmd, false, page);
    case NVME_CNS_CSI_LIST:
        return iocs(cmd, (struct nvme_id_iocs *)page);
    default:
        return INVALID;
    }
}
