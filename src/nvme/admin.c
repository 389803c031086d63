/* SPDX-License-Identifier: Apache-2.0 */
/* Admin commands for everybody: identify, logs, and what a namespace is. */
#include "nvme/internal.h"

#include <string.h>

/* --- one command, from any reactor ------------------------------------------------------------ */

struct admin_call {
    struct nvme_ctrl *ctrl;
    struct nvme_req *req;
};

static int admin_fn(struct rt_task *t, void *arg)
{
    struct admin_call *call = arg;

    if (call->ctrl->in_charge == t)
        call->req->flags |= NVME_REQ_CONNECT;
    rt_req_init_task(&call->req->req, t);
    nvme_submit(call->ctrl->admin, call->req);
    return rt_wait(t, &call->req->req);
}

static bool only_reads(uint8_t opc)
{
    return opc == NVME_OPC_IDENTIFY || opc == NVME_OPC_GET_LOG_PAGE || opc == NVME_OPC_GET_FEATURES;
}

int nvme_admin(struct rt_task *t, struct nvme_ctrl *ctrl, const struct nvme_sqe *sqe,
               enum nvme_dir dir, void *buf, uint32_t len, uint32_t *out_dw0)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct nvme_req req = {.sqe = *sqe, .iov = &iov, .iovcnt = 1, .data_len = len};
    struct admin_call call = {.ctrl = ctrl, .req = &req};
    int rc;

    req.dir = (uint8_t)dir;
    if (only_reads(sqe->opc) && ctrl->in_charge != t)
        req.flags = NVME_REQ_REPEAT;
    rc = rt_on(t, ctrl->home, admin_fn, &call);
    if (rc == 0 && out_dw0 != NULL)
        *out_dw0 = req.dw0;
    if (rc == 0 && dir == NVME_DIR_C2H && req.moved < len)
        memset((uint8_t *)buf + req.moved, 0, len - req.moved);
    return rc;
}

int nvme_abort(struct rt_task *t, const struct nvme_req *req)
{
    struct nvme_sqe sqe = {.opc = NVME_OPC_ABORT};

    if (req->slot == NULL)
        return 0;
    sqe.cdw10 = le32_make(req->queue->qid | (uint32_t)req->slot->cid << 16);
    return nvme_admin(t, req->queue->ctrl, &sqe, NVME_DIR_NONE, NULL, 0, NULL);
}

int nvme_identify(struct rt_task *t, struct nvme_ctrl *ctrl, uint8_t cns, uint32_t nsid,
                  uint8_t csi, void *out_page)
{
    struct nvme_sqe sqe = {.opc = NVME_OPC_IDENTIFY,
                           .nsid = le32_make(nsid),
                           .cdw10 = le32_make(cns),
                           .cdw11 = le32_make((uint32_t)csi << 24)};

    return nvme_admin(t, ctrl, &sqe, NVME_DIR_C2H, out_page, NVME_IDENTIFY_BYTES, NULL);
}

int nvme_get_log(struct rt_task *t, struct nvme_ctrl *ctrl, uint8_t lid, uint32_t nsid, uint8_t csi,
                 uint64_t offset, void *out, uint32_t len)
{
    uint32_t step = MIN(nvme_ctrl_transfer_max(ctrl), (uint32_t)(64 * KIB));

    must(len % 4 == 0);
    for (uint32_t done = 0; done < len;) {
        uint32_t n = MIN(step, len - done);
        struct nvme_sqe sqe = {.opc = NVME_OPC_GET_LOG_PAGE, .nsid = le32_make(nsid)};
        int rc;

        nvme_log_put(&sqe, lid, offset + done, n, csi);
        rc = nvme_admin(t, ctrl, &sqe, NVME_DIR_C2H, (uint8_t *)out + done, n, NULL);
        if (rc < 0)
            return rc;
        done += n;
    }
    return 0;
}

/* --- namespaces ------------------------------------------------------------------------------- */

int nvme_ns_ids(struct rt_task *t, struct nvme_ctrl *ctrl, uint32_t after, uint32_t *out_nsids,
                unsigned max)
{
    CLEANUP(free_p) struct nvme_ns_list *page = malloc(sizeof(*page));
    uint32_t last = after;
    unsigned n = 0;
    int rc;

    if (page == NULL)
        return -ENOMEM;
    rc = nvme_identify(t, ctrl, NVME_CNS_NS_ACTIVE_LIST, after, 0, page);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < ARRAY_LEN(page->nsid) && n < max; i++) {
        uint32_t nsid = le32_get(page->nsid[i]);

        if (nsid == 0)
            break;
        if (nsid <= last)
            return -EPROTO;
        out_nsids[n++] = last = nsid;
    }
    return (int)n;
}

static int read_nvm(const struct nvme_id_ns *id, struct nvme_ns *out, struct err *why)
{
    unsigned format = id->flbas & NVME_FLBAS_INDEX_MASK;
    unsigned shift = id->lbaf[format].lbads;
    uint64_t nblocks = le64_get(id->nsze);

    if (nblocks == 0)
        return err_set(why, -ENOENT, "the target has no namespace %u", out->nsid);
    if (shift < 9 || shift > 16 || nblocks > UINT64_MAX >> shift)
        return err_set(why, -EPROTO, "namespace %u has blocks of 2^%u bytes", out->nsid, shift);
    if (le16_get(id->lbaf[format].ms) != 0)
        return err_set(why, -ENOTSUP, "namespace %u has metadata of %u bytes per block", out->nsid,
                       le16_get(id->lbaf[format].ms));
    out->block_bytes = 1u << shift;
    out->nblocks = nblocks;
    out->size_bytes = nblocks << shift;
    out->used_bytes = MIN(le64_get(id->nuse), nblocks) << shift;
    out->dlfeat = id->dlfeat;
    out->write_protected = id->nsattr & NVME_NSATTR_WRITE_PROTECTED;
    out->shared = id->nmic & NVME_NMIC_SHARED;
    if ((id->nsfeat & NVME_NSFEAT_OPTPERF) != 0)
        out->preferred_write_bytes = (le16_get(id->npwg) + 1u) << shift;
    if ((out->ids.have & 1u << NVME_NIDT_NGUID) == 0)
        memcpy(out->ids.nguid, id->nguid, sizeof(id->nguid));
    if ((out->ids.have & 1u << NVME_NIDT_EUI64) == 0)
        memcpy(out->ids.eui64, id->eui64, sizeof(id->eui64));
    return 0;
}

static int read_kv(const struct nvme_id_ns_kv *id, struct nvme_ns *out, struct err *why)
{
    const struct nvme_kv_format *format = &id->kvf[id->kvfc & 0x0f];

    if (le16_get(format->kvkml) == 0 || le16_get(format->kvkml) > NVME_KV_KEY_MAX)
        return err_set(why, -EPROTO, "namespace %u has keys of up to %u bytes", out->nsid,
                       le16_get(format->kvkml));
    out->size_bytes = le64_get(id->nsze);
    out->used_bytes = le64_get(id->nuse);
    out->key_max = le16_get(format->kvkml);
    out->val_max = le32_get(format->kvvml);
    out->nkeys_max = le32_get(format->mnks);
    out->optimal_bytes = le32_get(id->novg);
    out->write_protected = id->nsattr & NVME_NSATTR_WRITE_PROTECTED;
    out->shared = id->nmic & NVME_NMIC_SHARED;
    memcpy(out->vendor, id->vendor, sizeof(out->vendor));
    if ((out->ids.have & 1u << NVME_NIDT_NGUID) == 0)
        memcpy(out->ids.nguid, id->nguid, sizeof(id->nguid));
    if ((out->ids.have & 1u << NVME_NIDT_EUI64) == 0)
        memcpy(out->ids.eui64, id->eui64, sizeof(id->eui64));
    return 0;
}

/* The name that stays when the namespace is opened again. */
static void make_uuid(struct nvme_ns *ns)
{
    if (!bytes_are_zero(ns->ids.uuid, sizeof(ns->ids.uuid)))
        memcpy(ns->uuid, ns->ids.uuid, sizeof(ns->uuid));
    else if (!bytes_are_zero(ns->ids.nguid, sizeof(ns->ids.nguid)))
        memcpy(ns->uuid, ns->ids.nguid, sizeof(ns->uuid));
    else
        memcpy(ns->uuid + 8, ns->ids.eui64, sizeof(ns->ids.eui64));
}

/* A target answers -ENODEV (Invalid Namespace) for one it does not have; so does what is gone. */
static int no_such(const struct nvme_ctrl *ctrl, int rc, uint32_t nsid, struct err *why)
{
    if ((rc == -ENODEV && ctrl->dead) || rc == -ECONNRESET || rc == -ECANCELED || rc == -ETIMEDOUT)
        return err_set(why, rc, "namespace %u: %s", nsid, err_str(rc));
    return err_set(why, -ENOENT, "the target has no namespace %u (%s)", nsid, err_str(rc));
}

/* Which command set; controllers from before the descriptor list have only NVM. */
static int read_ids(struct rt_task *t, struct nvme_ctrl *ctrl, void *page, struct nvme_ns *out,
                    struct err *why)
{
    int rc;

    if (ctrl->vs < 0x00010300u)
        return 0;
    rc = nvme_identify(t, ctrl, NVME_CNS_NS_DESC_LIST, out->nsid, 0, page);
    if (rc < 0)
        return no_such(ctrl, rc, out->nsid, why);
    if (nvme_ns_desc_decode(page, NVME_IDENTIFY_BYTES, &out->ids) < 0)
        return err_set(why, -EPROTO, "namespace %u: its identifiers make no sense", out->nsid);
    out->csi = (out->ids.have & 1u << NVME_NIDT_CSI) != 0 ? out->ids.csi : (uint8_t)NVME_CSI_NVM;
    return 0;
}

int nvme_ns_read(struct rt_task *t, struct nvme_ctrl *ctrl, uint32_t nsid, struct nvme_ns *out,
                 struct err *why)
{
    CLEANUP(free_p) void *page = malloc(NVME_IDENTIFY_BYTES);
    int rc;

    *out = (struct nvme_ns){.nsid = nsid};
    if (page == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    rc = read_ids(t, ctrl, page, out, why);
    if (rc < 0)
        return rc;
    if (out->csi == NVME_CSI_KV)
        rc = nvme_identify(t, ctrl, NVME_CNS_CSI_NS, nsid, NVME_CSI_KV, page);
    else
        rc = nvme_identify(t, ctrl, NVME_CNS_NS, nsid, 0, page);
    if (rc < 0)
        return no_such(ctrl, rc, nsid, why);
    if (out->csi == NVME_CSI_KV)
        rc = read_kv(page, out, why);
    else if (out->csi == NVME_CSI_NVM)
        rc = read_nvm(page, out, why);
    make_uuid(out);
    return rc;
}

static const char *kind_text(uint8_t csi)
{
    if (csi == NVME_CSI_KV)
        return "key-value";
    return csi == NVME_CSI_NVM ? "block" : "zoned or other";
}

static int wrong_kind(const struct nvme_ns *ns, struct err *why)
{
    if (ns->csi == NVME_CSI_NVM)
        return err_set(why, -EINVAL, "namespace %u is a block namespace: use it as a block device",
                       ns->nsid);
    if (ns->csi == NVME_CSI_KV)
        return err_set(why, -EINVAL, "namespace %u is a key-value namespace: use it as a KV device",
                       ns->nsid);
    return err_set(why, -ENOTSUP, "namespace %u has command set %u, which is not supported",
                   ns->nsid, ns->csi);
}

int nvme_ns_find(struct rt_task *t, struct nvme_ctrl *ctrl, uint8_t csi, uint32_t nsid,
                 struct nvme_ns *out, struct err *why)
{
    uint32_t ids[16];
    uint32_t after = 0;
    int n, rc;

    if (nsid != 0) {
        rc = nvme_ns_read(t, ctrl, nsid, out, why);
        if (rc < 0)
            return rc;
        return out->csi == csi ? 0 : wrong_kind(out, why);
    }
    while ((n = nvme_ns_ids(t, ctrl, after, ids, ARRAY_LEN(ids))) > 0) {
        for (int i = 0; i < n; i++) {
            rc = nvme_ns_read(t, ctrl, ids[i], out, why);
            if (rc == 0 && out->csi == csi)
                return 0;
            if (rc < 0 && rc != -ENOENT && rc != -ENOTSUP && rc != -EPROTO)
                return rc;
        }
        after = ids[n - 1];
    }
    if (n < 0)
        return err_set(why, n, "listing namespaces: %s", err_str(n));
    return err_set(why, -ENOENT, "%s has no %s namespace", ctrl->opts.subnqn, kind_text(csi));
}
