/* SPDX-License-Identifier: Apache-2.0 */
/* Log pages. */
#include "front/nvmf/internal.h"

#include "proto/nvme_vendor.h"

#include <string.h>

#define INVALID (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define NO_PAGE (NVME_SC_INVALID_LOG_PAGE | NVME_SC_DNR)

static const uint8_t io_lids[] = {NVME_LID_SUPPORTED, NVME_LID_ERROR,      NVME_LID_SMART,
                                  NVME_LID_FIRMWARE,  NVME_LID_CHANGED_NS, NVME_LID_EFFECTS};
static const uint8_t discovery_lids[] = {NVME_LID_SUPPORTED, NVME_LID_ERROR, NVME_LID_DISCOVERY};

static bool has_page(const struct nvmf_ctrlr *ctrlr, uint8_t lid)
{
    if (ctrlr->discovery)
        return memchr(discovery_lids, lid, sizeof(discovery_lids)) != NULL;
    return memchr(io_lids, lid, sizeof(io_lids)) != NULL;
}

static void supported(const struct nvmf_ctrlr *ctrlr, struct nvme_log_supported *log)
{
    for (unsigned i = 0; i < 256; i++) {
        if (has_page(ctrlr, (uint8_t)i))
            log->lids[i] = le32_make(1);
    }
}

/* Newest first. */
static void errors(struct nvmf_ctrlr *ctrlr, struct nvme_log_error *log)
{
    uint64_t n;

    pthread_mutex_lock(&ctrlr->err_lock);
    n = MIN(ctrlr->err_count, (uint64_t)NVMF_ERRORS);
    for (uint64_t i = 0; i < n; i++)
        log[i] = ctrlr->err[(ctrlr->err_count - 1 - i) % NVMF_ERRORS];
    pthread_mutex_unlock(&ctrlr->err_lock);
}

/* --- SMART: from the statistics of the device layers ------------------------------------------ */

struct usage {
    uint64_t reads, writes, bytes_read, bytes_written, errors;
};

static void add_blk(struct rt_task *t, struct blk_dev *dev, struct usage *u)
{
    struct blk_stats *st = calloc(1, sizeof(*st));

    if (st != NULL && blk_stats(t, dev, st) == 0) {
        u->reads += st->op[BLK_READ].ops;
        u->writes += st->op[BLK_WRITE].ops;
        u->bytes_read += st->op[BLK_READ].bytes;
        u->bytes_written += st->op[BLK_WRITE].bytes;
        u->errors += st->op[BLK_READ].errors + st->op[BLK_WRITE].errors;
    }
    free(st);
}

static void add_kv(struct rt_task *t, struct kv_dev *dev, struct usage *u)
{
    struct kv_stats *st = calloc(1, sizeof(*st));

    if (st != NULL && kv_stats(t, dev, st) == 0) {
        u->reads += st->op[KV_RETRIEVE].ops + st->op[KV_RETRIEVE_OPEN].ops;
        u->writes += st->op[KV_STORE].ops + st->op[KV_COMMIT].ops;
        u->bytes_read += st->op[KV_RETRIEVE].bytes + st->op[KV_READ].bytes;
        u->bytes_written += st->op[KV_STORE].bytes + st->op[KV_WRITE].bytes;
    }
    free(st);
}

static void smart(struct rt_task *t, const struct nvmf_cmd *cmd, struct nvme_log_smart *log)
{
    uint32_t nsid = le32_get(cmd->sqe.nsid);
    struct nvmf_target *tgt = cmd->conn->tgt;
    struct usage u = {0};

    for (uint32_t i = 1; i <= NVMF_NSID_MAX; i++) {
        struct nvmf_ns *ns = nvmf_ns_find(cmd->conn->table, i);
        struct nvmf_ns_use *use;

        if (ns == NULL || (nsid != 0 && nsid != NVME_NSID_ALL && nsid != i))
            continue;
        /* Held, so that it stays while we wait. */
        use = &ns->use[rt_index(cmd->conn->local->reactor)];
        use->inflight++;
        if (ns->blk != NULL)
            add_blk(t, ns->blk, &u);
        else
            add_kv(t, ns->kv, &u);
        if (--use->inflight == 0 && use->gone)
            rt_cond_wake_all(&use->idle);
    }
    log->temperature = le16_make(300);
    log->avail_spare = 100;
    log->spare_thresh = 10;
    le64_put(log->units_read, (u.bytes_read + 511999) / 512000);
    le64_put(log->units_written, (u.bytes_written + 511999) / 512000);
    le64_put(log->host_reads, u.reads);
    le64_put(log->host_writes, u.writes);
    le64_put(log->power_cycles, 1);
    le64_put(log->power_hours, (rt_now() - tgt->started_ns) / (3600 * NS_PER_S));
    le64_put(log->media_errors, u.errors);
    le64_put(log->error_entries, cmd->conn->ctrlr->err_count);
}

/* --- the others ------------------------------------------------------------------------------- */

static void firmware(struct nvme_log_firmware *log)
{
    log->afi = 1;
    memcpy(log->frs[0], "1       ", 8);
}

static void changed(struct nvmf_ctrlr *ctrlr, struct nvme_ns_list *list)
{
    unsigned n = 0;

    for (uint32_t i = 1; i <= NVMF_NSID_MAX && n < ARRAY_LEN(list->nsid); i++) {
        if (ctrlr->changed[i / 32] & 1u << i % 32)
            list->nsid[n++] = le32_make(i);
    }
}

static bool any_csd(const struct nvmf_cmd *cmd)
{
    for (uint32_t i = 1; i <= NVMF_NSID_MAX; i++) {
        const struct nvmf_ns *ns = nvmf_ns_find(cmd->conn->table, i);

        if (ns != NULL && ns->csd)
            return true;
    }
    return false;
}

static uint32_t io_effects(uint8_t csi, uint8_t opc, bool csd, bool select)
{
    bool kv = csi == NVME_CSI_KV;
    uint32_t e = kv ? nvmf_kv_effects(opc) : nvmf_nvm_effects(opc);

    if (!kv && csd)
        e |= nvmf_csd_effects(opc);
    if (select && (kv || csd))
        e |= nvmf_select_effects(opc, !kv);
    return e;
}

static uint16_t effects(const struct nvmf_cmd *cmd, struct nvme_log_effects *log)
{
    uint8_t csi = nvme_log_csi(&cmd->sqe);
    bool csd = any_csd(cmd);

    static const uint8_t admin[] = {NVME_OPC_GET_LOG_PAGE, NVME_OPC_IDENTIFY,
                                    NVME_OPC_ABORT,        NVME_OPC_SET_FEATURES,
                                    NVME_OPC_GET_FEATURES, NVME_OPC_ASYNC_EVENT_REQUEST,
                                    NVME_OPC_KEEP_ALIVE,   NVME_OPC_VENDOR_END_CTRLR};

    if (csi != NVME_CSI_NVM && csi != NVME_CSI_KV)
        return INVALID;
    for (size_t i = 0; i < sizeof(admin); i++)
        log->admin[admin[i]] = le32_make(NVME_EFFECT_CSUPP);
    for (unsigned i = 0; i < 256; i++)
        log->io[i] = le32_make(io_effects(csi, (uint8_t)i, csd, cmd->conn->tgt->select != NULL));
    return NVME_SC_SUCCESS;
}

/* Reading a page without RAE lets the next event of its kind come. */
static void clear_event(struct nvmf_ctrlr *ctrlr, uint8_t lid)
{
    if (lid == NVME_LID_CHANGED_NS) {
        memset(ctrlr->changed, 0, sizeof(ctrlr->changed));
        ctrlr->ns_masked = false;
    } else if (lid == NVME_LID_DISCOVERY) {
        ctrlr->disc_masked = false;
    }
    nvmf_ctrlr_events(ctrlr);
}

/* Fills `page` (4096 zeroed bytes); *out_len is what the page has. */
static uint16_t fill(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t *page, size_t *out_len)
{
    struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;

    switch (nvme_log_lid(&cmd->sqe)) {
    case NVME_LID_SUPPORTED:
        supported(ctrlr, (struct nvme_log_supported *)page);
        *out_len = sizeof(struct nvme_log_supported);
        return NVME_SC_SUCCESS;
    case NVME_LID_ERROR:
        errors(ctrlr, (struct nvme_log_error *)page);
        *out_len = NVMF_ERRORS * sizeof(struct nvme_log_error);
        return NVME_SC_SUCCESS;
    case NVME_LID_SMART:
        smart(t, cmd, (struct nvme_log_smart *)page);
        *out_len = sizeof(struct nvme_log_smart);
        return NVME_SC_SUCCESS;
    case NVME_LID_FIRMWARE:
        firmware((struct nvme_log_firmware *)page);
        *out_len = sizeof(struct nvme_log_firmware);
        return NVME_SC_SUCCESS;
    case NVME_LID_CHANGED_NS:
        changed(ctrlr, (struct nvme_ns_list *)page);
        *out_len = sizeof(struct nvme_ns_list);
        return NVME_SC_SUCCESS;
    default:
        *out_len = sizeof(struct nvme_log_effects);
        return effects(cmd, (struct nvme_log_effects *)page);
    }
}

struct discovery_call {
    struct nvmf_conn *conn;
    struct sockaddr_storage local;
    uint8_t *log;
    size_t len;
};

static int discovery_task(struct rt_task *t, void *arg)
{
    struct discovery_call *d = arg;

    return nvmf_discovery_log(d->conn->tgt, d->conn->ctrlr->hostnqn, &d->local, &d->log, &d->len);
}

static uint16_t fill_discovery(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t **out_log,
                               size_t *out_len)
{
    struct discovery_call d = {.conn = cmd->conn};
    int rc = rt_sock_local(&cmd->conn->sock, &d.local);

    rt_task_shield(t, true);
    if (rc == 0)
        rc = rt_on(t, rt_reactor(0), discovery_task, &d);
    rt_task_shield(t, false);
    *out_log = d.log;
    *out_len = d.len;
    return nvme_status_of_errno(rc, NVME_FOR_OTHER);
}

void nvmf_log_page(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    uint8_t lid = nvme_log_lid(&cmd->sqe);
    uint64_t want = nvme_log_len(&cmd->sqe), off = nvme_log_offset(&cmd->sqe);
    CLEANUP(free_p) uint8_t *log = NULL;
    size_t len = 0;
    uint16_t status = NO_PAGE;

    if (has_page(ctrlr, lid)) {
        if (lid == NVME_LID_DISCOVERY) {
            status = fill_discovery(t, cmd, &log, &len);
        } else {
            log = calloc(1, 4096);
            status = log != NULL ? fill(t, cmd, log, &len) : NVME_SC_INTERNAL;
        }
    }
    /* Offsets by index (CDW14 bit 23) are of pages that we do not have. */
    if (status == NVME_SC_SUCCESS &&
        (off % 4 != 0 || off > len || (le32_get(cmd->sqe.cdw14) & 1u << 23) != 0))
        status = INVALID;
    if (status == NVME_SC_SUCCESS && want > UINT32_MAX)
        status = INVALID;
    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    if ((le32_get(cmd->sqe.cdw10) & NVME_LOG_RAE) == 0)
        clear_event(ctrlr, lid);
    nvmf_admin_reply(t, cmd, log + off, len - off, (uint32_t)want);
}
