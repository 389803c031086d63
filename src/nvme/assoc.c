/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making an association with a controller: admin queue, properties, enable, identify, features,
 * then the I/O queues; and ending it. Runs on the home reactor with the controller locked.
 */
#include "nvme/internal.h"

#include "proto/nvme_vendor.h"

#include <string.h>

static bool is_discovery(const struct nvme_ctrl *ctrl)
{
    return strcmp(ctrl->opts.subnqn, NVME_DISCOVERY_NQN) == 0;
}

/* --- properties ------------------------------------------------------------------------------- */

static int property(struct rt_task *t, struct nvme_ctrl *ctrl, struct nvme_property_cmd *cmd,
                    uint64_t *out)
{
    struct nvme_req req = {.flags = NVME_REQ_CONNECT};
    int rc;

    cmd->opc = NVME_OPC_FABRICS;
    memcpy(&req.sqe, cmd, sizeof(*cmd));
    rt_req_init_task(&req.req, t);
    nvme_submit(ctrl->admin, &req);
    rc = rt_wait(t, &req.req);
    if (rc == 0 && out != NULL)
        *out = req.dw0 | (uint64_t)req.dw1 << 32;
    return rc;
}

static int property_get(struct rt_task *t, struct nvme_ctrl *ctrl, uint32_t reg, uint64_t *out)
{
    struct nvme_property_cmd cmd = {
        .fctype = NVME_FC_PROPERTY_GET,
        .attrib = reg == NVME_REG_CAP ? NVME_PROPERTY_8_BYTES : 0,
        .ofst = le32_make(reg),
    };
    int rc = property(t, ctrl, &cmd, out);

    if (rc == 0 && reg != NVME_REG_CAP)
        *out &= UINT32_MAX;
    return rc;
}

static int property_set(struct rt_task *t, struct nvme_ctrl *ctrl, uint32_t reg, uint32_t value)
{
    struct nvme_property_cmd cmd = {
        .fctype = NVME_FC_PROPERTY_SET, .ofst = le32_make(reg), .value = le64_make(value)};

    return property(t, ctrl, &cmd, NULL);
}

/* Polls CSTS until (CSTS & mask) == want. */
static int wait_csts(struct rt_task *t, struct nvme_ctrl *ctrl, uint32_t mask, uint32_t want,
                     uint64_t max_ns)
{
    uint64_t until_ns = rt_now() + max_ns;
    uint64_t delay_ns = NS_PER_MS;
    uint64_t csts;
    int rc;

    for (;;) {
        rc = property_get(t, ctrl, NVME_REG_CSTS, &csts);
        if (rc < 0)
            return rc;
        if ((csts & mask) == want)
            return 0;
        if ((csts & NVME_CSTS_CFS) != 0)
            return -EIO;
        if (rt_now() >= until_ns)
            return -ETIMEDOUT;
        rc = rt_sleep(t, delay_ns);
        if (rc < 0)
            return rc;
        delay_ns = MIN(delay_ns * 2, 100 * NS_PER_MS);
    }
}

static int enable(struct rt_task *t, struct nvme_ctrl *ctrl, struct err *why)
{
    uint64_t vs;
    uint32_t css = NVME_CSS_NVM;
    int rc = property_get(t, ctrl, NVME_REG_CAP, &ctrl->cap);

    if (rc == 0)
        rc = property_get(t, ctrl, NVME_REG_VS, &vs);
    if (rc < 0)
        return err_set(why, rc, "reading the controller's capabilities: %s", err_str(rc));
    ctrl->vs = (uint32_t)vs;
    ctrl->mqes = (uint16_t)MIN(NVME_CAP_MQES(ctrl->cap) + 1, 65535u);
    if (ctrl->mqes < 2)
        return err_set(why, -EPROTO, "the controller offers queues of one entry");
    if ((NVME_CAP_CSS(ctrl->cap) & NVME_CAP_CSS_IOCS) != 0 && !is_discovery(ctrl))
        css = NVME_CSS_IOCS;
    ctrl->cc = NVME_CC_EN | css << NVME_CC_CSS_SHIFT | 6u << NVME_CC_IOSQES_SHIFT |
               4u << NVME_CC_IOCQES_SHIFT;
    rc = property_set(t, ctrl, NVME_REG_CC, ctrl->cc);
    if (rc == 0)
        rc = wait_csts(t, ctrl, NVME_CSTS_RDY, NVME_CSTS_RDY,
                       (NVME_CAP_TO(ctrl->cap) + 2) * 500 * NS_PER_MS);
    if (rc < 0)
        return err_set(why, rc, "the controller does not become ready: %s", err_str(rc));
    return 0;
}

/* --- identify and features -------------------------------------------------------------------- */

static int identify(struct rt_task *t, struct nvme_ctrl *ctrl, struct err *why)
{
    struct nvme_id_ctrl *id = ctrl->id;
    int rc = nvme_identify(t, ctrl, NVME_CNS_CTRL, 0, 0, id);

    if (rc < 0)
        return err_set(why, rc, "identify controller: %s", err_str(rc));
    if (le16_get(id->cntlid) != ctrl->cntlid)
        return err_set(why, -EPROTO, "controller %u identifies itself as %u", ctrl->cntlid,
                       le16_get(id->cntlid));
    if (is_discovery(ctrl))
        return 0;
    if (id->cntrltype != NVME_CNTRLTYPE_IO && id->cntrltype != 0)
        return err_set(why, -EINVAL, "%s is no subsystem with namespaces", ctrl->opts.subnqn);
    if (le32_get(id->ioccsz) < 4 || le32_get(id->ioccsz) > 1u << 20 || le16_get(id->icdoff) != 0)
        return err_set(why, -EPROTO, "the controller's capsule sizes make no sense");
    return 0;
}

static int set_feature(struct rt_task *t, struct nvme_ctrl *ctrl, uint8_t fid, uint32_t value,
                       uint32_t *out_dw0)
{
    struct nvme_sqe sqe = {
        .opc = NVME_OPC_SET_FEATURES, .cdw10 = le32_make(fid), .cdw11 = le32_make(value)};

    return nvme_admin(t, ctrl, &sqe, NVME_DIR_NONE, NULL, 0, out_dw0);
}

static int ask_queues(struct rt_task *t, struct nvme_ctrl *ctrl, struct err *why)
{
    uint32_t n = ctrl->opts.queues - 1u, dw0;
    int rc = set_feature(t, ctrl, NVME_FID_QUEUES, n | n << 16, &dw0);

    if (rc < 0)
        return err_set(why, rc, "asking for %u I/O queues: %s", n + 1, err_str(rc));
    ctrl->granted = (uint16_t)(MIN(MIN(dw0 & 0xffff, dw0 >> 16), n) + 1);
    return 0;
}

/* Events are a convenience: a controller that refuses them is asked nothing more. */
static void ask_events(struct rt_task *t, struct nvme_ctrl *ctrl)
{
    uint32_t want = le32_get(ctrl->id->oaes) & NVME_OAES_NS_ATTR;

    ctrl->naers = 0;
    if (want == 0 || set_feature(t, ctrl, NVME_FID_ASYNC_EVENT, want, NULL) < 0)
        return;
    ctrl->naers = MIN(ctrl->id->aerl + 1u, (unsigned)NVME_AERS_MAX);
    nvme_ctrl_listen(ctrl);
}

static int set_up(struct rt_task *t, struct nvme_ctrl *ctrl, struct err *why)
{
    int rc = net_addr_resolve(t, ctrl->opts.addr,
                              is_discovery(ctrl) ? NVME_TCP_DISCOVERY_PORT : NVME_TCP_PORT,
                              &ctrl->addr, why);

    if (rc < 0)
        return rc;
    ctrl->admin->addr = ctrl->addr;
    rc = nvme_queue_start(t, ctrl->admin);
    if (rc < 0)
        return err_set(why, rc, "%s", ctrl->admin->end_why.text);
    rc = enable(t, ctrl, why);
    if (rc == 0)
        rc = identify(t, ctrl, why);
    if (rc < 0 || is_discovery(ctrl))
        return rc;
    rc = ask_queues(t, ctrl, why);
    if (rc < 0)
        return rc;
    ask_events(t, ctrl);
    if (ctrl->opts.check != NULL) {
        rc = ctrl->opts.check(t, ctrl, ctrl->opts.arg, why);
        ctrl->refused = rc < 0 && ctrl->admin->state == NVME_QUEUE_LIVE;
    }
    return rc;
}

/* --- what is left of earlier associations ----------------------------------------------------- */

/*
 * Before anything is repeated: nothing that was sent to earlier controllers may take effect any
 * more, or it would come after the repeated command and what was written since. Our target can
 * promise that (docs/protocols/end-controller.md). With others this is left to luck, as Linux does.
 */
static int fence(struct rt_task *t, struct nvme_ctrl *ctrl, struct err *why)
{
    while (ctrl->nstale > 0 && nvme_vendor_ends_ctrlrs(ctrl->id)) {
        struct nvme_sqe sqe = {.opc = NVME_OPC_VENDOR_END_CTRLR,
                               .cdw10 = le32_make(ctrl->stale[ctrl->nstale - 1])};
        int rc = 0;

        if (ctrl->stale[ctrl->nstale - 1] != ctrl->cntlid)
            rc = nvme_admin(t, ctrl, &sqe, NVME_DIR_NONE, NULL, 0, NULL);
        if (rc < 0)
            return err_set(why, rc, "controller %u does not end: %s", ctrl->stale[ctrl->nstale - 1],
                           err_str(rc));
        ctrl->nstale--;
    }
    return 0;
}

/* From now on commands go to this controller. */
static void note_stale(struct nvme_ctrl *ctrl)
{
    if (ctrl->nstale == NVME_STALE_MAX)
        memmove(ctrl->stale, ctrl->stale + 1, --ctrl->nstale * sizeof(ctrl->stale[0]));
    ctrl->stale[ctrl->nstale++] = ctrl->cntlid;
}

/* --- all queues ------------------------------------------------------------------------------- */

int nvme_queue_start_fn(struct rt_task *t, void *queue)
{
    return nvme_queue_start(t, queue);
}

static int queue_stop_fn(struct rt_task *t, void *queue)
{
    nvme_queue_stop(t, queue, -ECONNRESET);
    return 0;
}

int nvme_assoc_begin(struct rt_task *t, struct nvme_ctrl *ctrl, struct err *why)
{
    struct nvme_queue *q;
    int rc;

    ctrl->fault = ctrl->ns_changed = ctrl->refused = false;
    rc = set_up(t, ctrl, why);
    if (rc == 0 && !is_discovery(ctrl))
        rc = fence(t, ctrl, why);
    if (rc == 0)
        note_stale(ctrl);
    list_for_each (q, &ctrl->queues, struct nvme_queue, link) {
        if (rc < 0)
            break;
        if (q->stream)
            continue;
        q->addr = ctrl->addr;
        rc = rt_on(t, q->reactor, nvme_queue_start_fn, q);
        if (rc < 0)
            err_set(why, rc, "I/O queue %u: %s", q->qid, q->end_why.text);
    }
    if (rc < 0) {
        nvme_assoc_end(t, ctrl, false);
        return rc;
    }
    ctrl->epoch++;
    ctrl->live = true;
    return 0;
}

static void tell_shutdown(struct rt_task *t, struct nvme_ctrl *ctrl)
{
    uint32_t cc = ctrl->cc | NVME_SHN_NORMAL << NVME_CC_SHN_SHIFT;

    if (ctrl->admin->state == NVME_QUEUE_LIVE && property_set(t, ctrl, NVME_REG_CC, cc) == 0)
        wait_csts(t, ctrl, NVME_CSTS_SHST_MASK, NVME_CSTS_SHST_COMPLETE, NVME_SHUTDOWN_NS);
}

void nvme_assoc_end(struct rt_task *t, struct nvme_ctrl *ctrl, bool shutdown)
{
    struct nvme_queue *q;

    rt_task_shield(t, true);
    ctrl->live = false;
    list_for_each (q, &ctrl->queues, struct nvme_queue, link)
        rt_on(t, q->reactor, queue_stop_fn, q);
    if (shutdown)
        tell_shutdown(t, ctrl);
    nvme_queue_stop(t, ctrl->admin, -ECONNRESET);
    rt_task_shield(t, false);
}
