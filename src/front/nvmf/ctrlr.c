/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Controllers. One belongs to the reactor of its admin queue, and all that changes it runs there;
 * its I/O queues may be anywhere and come and go by rt_on(). Reactor 0 knows it by a nvmf_reg: so
 * an I/O queue's Connect finds it. It ends with its admin connection, after its I/O queues.
 */
#include "front/nvmf/internal.h"

#include <stdio.h>
#include <string.h>

#define CONNECT_FAIL(result, sc, dw)                                                               \
    (*(result) = (struct nvmf_connect_result){.status = (sc) | NVME_SC_DNR, .dw0 = (dw)})
#define BAD_SQE_FIELD(field) (uint32_t) offsetof(struct nvme_connect_cmd, field)
#define BAD_DATA_FIELD(field)                                                                      \
    ((uint32_t)offsetof(struct nvme_connect_data, field) | NVME_CONNECT_IATTR_DATA)

/* --- registers -------------------------------------------------------------------------------- */

uint64_t nvmf_ctrlr_cap(const struct nvmf_ctrlr *ctrlr)
{
    uint64_t mqes = ctrlr->tgt->cfg.queue_entries_max - 1u;
    uint64_t css = NVME_CAP_CSS_NVM;

    /* Said always, not only when there are KV namespaces now: one may be added later. */
    if (!ctrlr->discovery)
        css |= NVME_CAP_CSS_IOCS;
    return mqes | NVME_CAP_CQR | 20ull << NVME_CAP_TO_SHIFT | css << NVME_CAP_CSS_SHIFT;
}

/* --- making one ------------------------------------------------------------------------------- */

/* The admin queue's Connect as reactor 0 sees it: may this host, and under which number? */
struct admit {
    struct nvmf_target *tgt;
    const struct nvme_connect_data *data;
    struct rt_reactor *owner;
    struct nvmf_ctrlr *ctrlr;
    struct nvmf_reg *reg;
    struct nvmf_connect_result result;
};

static bool cntlid_taken(const struct nvmf_subsys *s, uint16_t id)
{
    struct nvmf_reg *reg;

    list_for_each (reg, &s->regs, struct nvmf_reg, link) {
        if (reg->cntlid == id)
            return true;
    }
    return false;
}

static uint16_t cntlid_next(struct nvmf_subsys *s)
{
    do {
        s->next_cntlid = s->next_cntlid >= NVME_CNTLID_MAX ? NVME_CNTLID_MIN : s->next_cntlid + 1;
    } while (cntlid_taken(s, s->next_cntlid));
    return s->next_cntlid;
}

static unsigned ctrlrs_of(const struct nvmf_subsys *s, const char *hostnqn)
{
    struct nvmf_reg *reg;
    unsigned n = 0;

    list_for_each (reg, &s->regs, struct nvmf_reg, link) {
        n += strcmp(reg->hostnqn, hostnqn) == 0;
    }
    return n;
}

static int admit_task(struct rt_task *t, void *arg)
{
    struct admit *a = arg;
    struct nvmf_subsys *s = nvmf_subsys_find(a->tgt, a->data->subnqn);
    struct nvmf_reg *reg;

    if (s == NULL || s->removing || a->tgt->closing)
        return CONNECT_FAIL(&a->result, NVME_SC_CONNECT_INVALID_PARAM, BAD_DATA_FIELD(subnqn)), 0;
    if (!nvmf_host_allowed(s, a->data->hostnqn))
        return CONNECT_FAIL(&a->result, NVME_SC_CONNECT_INVALID_HOST, 0), 0;
    reg = calloc(1, sizeof(*reg));
    if (reg == NULL || ctrlrs_of(s, a->data->hostnqn) >= a->tgt->cfg.ctrlrs_per_host) {
        free(reg);
        a->result.status = NVME_SC_CONNECT_CTRL_BUSY;
        return 0;
    }
    reg->subsys = s;
    reg->ctrlr = a->ctrlr;
    reg->owner = a->owner;
    reg->cntlid = cntlid_next(s);
    memcpy(reg->hostnqn, a->data->hostnqn, sizeof(reg->hostnqn));
    memcpy(reg->hostid, a->data->hostid, sizeof(reg->hostid));
    list_add_tail(&s->regs, &reg->link);
    a->tgt->nregs++;
    a->reg = reg;
    return 0;
}

static void kato_over(struct rt_timer *timer)
{
    struct nvmf_ctrlr *ctrlr = container_of(timer, struct nvmf_ctrlr, kato_timer);
    uint64_t limit = ctrlr->kato_ms * NS_PER_MS;
    uint64_t last = atomic_load_explicit(&ctrlr->last_cmd_ns, memory_order_relaxed);

    if (rt_now() < last + limit) {
        rt_timer_start(timer, last + limit);
        return;
    }
    log_info("nvmf: controller %u of %s: the keep-alive time-out of %u ms has passed",
             ctrlr->cntlid, ctrlr->hostnqn, ctrlr->kato_ms);
    ctrlr->local->stats.kato_expired++;
    ctrlr->csts |= NVME_CSTS_CFS;
    nvmf_conn_kill(ctrlr->admin);
}

void nvmf_ctrlr_set_kato(struct nvmf_ctrlr *ctrlr, uint32_t kato_ms)
{
    uint64_t ms = kato_ms;

    if (ms == 0 && ctrlr->discovery)
        ms = ctrlr->tgt->cfg.kato_default_ms;
    if (ms != 0)
        ms = round_up_u64(MAX(ms, ctrlr->tgt->cfg.kato_min_ms), NVMF_KAS_MS);
    ctrlr->kato_ms = (uint32_t)MIN(ms, UINT32_MAX / 1000u * 1000u);
    rt_timer_stop(&ctrlr->kato_timer);
    atomic_store_explicit(&ctrlr->last_cmd_ns, rt_now(), memory_order_relaxed);
    if (ctrlr->kato_ms != 0)
        rt_timer_start(&ctrlr->kato_timer, rt_now() + ctrlr->kato_ms * NS_PER_MS);
}

void nvmf_ctrlr_seen(struct nvmf_ctrlr *ctrlr)
{
    uint64_t now = rt_now();

    /* Not at each command: the line is shared by all queues. */
    if (UNLIKELY(now - atomic_load_explicit(&ctrlr->last_cmd_ns, memory_order_relaxed) >
                 50 * NS_PER_MS))
        atomic_store_explicit(&ctrlr->last_cmd_ns, now, memory_order_relaxed);
}

static void ctrlr_free(struct nvmf_ctrlr *ctrlr)
{
    if (ctrlr == NULL)
        return;
    pthread_mutex_destroy(&ctrlr->err_lock);
    free(ctrlr->q);
    free(ctrlr);
}

static struct nvmf_ctrlr *ctrlr_new(struct nvmf_conn *c, const struct nvme_connect_data *data)
{
    struct nvmf_ctrlr *ctrlr = calloc(1, sizeof(*ctrlr));

    if (ctrlr == NULL)
        return NULL;
    pthread_mutex_init(&ctrlr->err_lock, NULL);
    ctrlr->tgt = c->tgt;
    ctrlr->id = rt_trace_new();
    ctrlr->local = c->local;
    ctrlr->admin = c;
    ctrlr->queues_granted = c->tgt->cfg.io_queues_max;
    ctrlr->q = calloc(c->tgt->cfg.io_queues_max + 1u, sizeof(*ctrlr->q));
    ctrlr->kato_timer.fn = kato_over;
    ctrlr->temp_over = 0x157;
    memcpy(ctrlr->hostnqn, data->hostnqn, sizeof(ctrlr->hostnqn));
    memcpy(ctrlr->hostid, data->hostid, sizeof(ctrlr->hostid));
    if (ctrlr->q == NULL) {
        ctrlr_free(ctrlr);
        return NULL;
    }
    return ctrlr;
}

void nvmf_connect_admin(struct rt_task *t, struct nvmf_conn *c, const struct nvme_connect_cmd *cmd,
                        const struct nvme_connect_data *data, struct nvmf_connect_result *out)
{
    struct admit a = {.tgt = c->tgt, .data = data, .owner = c->local->reactor};

    a.ctrlr = ctrlr_new(c, data);
    if (a.ctrlr == NULL) {
        out->status = NVME_SC_CONNECT_CTRL_BUSY;
        return;
    }
    rt_task_shield(t, true);
    rt_on(t, rt_reactor(0), admit_task, &a);
    rt_task_shield(t, false);
    *out = a.result;
    if (a.reg == NULL) {
        ctrlr_free(a.ctrlr);
        return;
    }
    a.ctrlr->reg = a.reg;
    a.ctrlr->subsys = a.reg->subsys;
    a.ctrlr->cntlid = a.reg->cntlid;
    a.ctrlr->discovery = a.reg->subsys->discovery;
    a.ctrlr->persistent = a.ctrlr->discovery && le32_get(cmd->kato) != 0;
    list_add_tail(&c->local->ctrlrs, &a.ctrlr->link);
    nvmf_ctrlr_set_kato(a.ctrlr, le32_get(cmd->kato));
    c->ctrlr = a.ctrlr;
    c->subsys = a.reg->subsys;
    c->table = a.reg->subsys->table[rt_index(c->local->reactor)];
    c->qid = 0;
    out->dw0 = a.reg->cntlid;
}

/* --- I/O queues ------------------------------------------------------------------------------- */

struct join {
    struct nvmf_target *tgt;
    struct nvmf_conn *conn;
    struct rt_reactor *reactor; /* the connection's */
    const struct nvme_connect_cmd *cmd;
    const struct nvme_connect_data *data;
    struct nvmf_reg *reg;
    struct nvmf_connect_result result;
};

/* Reactor 0: finds the controller and holds it. */
static int find_task(struct rt_task *t, void *arg)
{
    struct join *j = arg;
    struct nvmf_subsys *s = nvmf_subsys_find(j->tgt, j->data->subnqn);
    struct nvmf_reg *reg;

    if (s == NULL)
        return CONNECT_FAIL(&j->result, NVME_SC_CONNECT_INVALID_PARAM, BAD_DATA_FIELD(subnqn)), 0;
    if (s->discovery)
        return CONNECT_FAIL(&j->result, NVME_SC_CONNECT_INVALID_PARAM, BAD_SQE_FIELD(qid)), 0;
    list_for_each (reg, &s->regs, struct nvmf_reg, link) {
        if (reg->cntlid != le16_get(j->data->cntlid) || reg->gone)
            continue;
        if (strcmp(reg->hostnqn, j->data->hostnqn) != 0)
            break;
        if (memcmp(reg->hostid, j->data->hostid, sizeof(reg->hostid)) != 0)
            return CONNECT_FAIL(&j->result, NVME_SC_CONNECT_INVALID_PARAM, BAD_DATA_FIELD(hostid)),
                   0;
        reg->refs++;
        j->reg = reg;
        return 0;
    }
    return CONNECT_FAIL(&j->result, NVME_SC_CONNECT_INVALID_PARAM, BAD_DATA_FIELD(cntlid)), 0;
}

/* Reactor 0. */
static int unhold_task(struct rt_task *t, void *arg)
{
    struct join *j = arg;

    must(j->reg->refs > 0);
    if (--j->reg->refs == 0)
        rt_cond_wake_all(&j->reg->unref);
    return 0;
}

static bool queue_sizes_ok(const struct nvmf_ctrlr *ctrlr)
{
    return NVME_CC_IOSQES(ctrlr->cc) == 6 && NVME_CC_IOCQES(ctrlr->cc) == 4;
}

/* The owner: gives the queue to the controller. */
static int join_task(struct rt_task *t, void *arg)
{
    struct join *j = arg;
    struct nvmf_ctrlr *ctrlr = j->reg->ctrlr;
    uint16_t qid = le16_get(j->cmd->qid);
    struct nvmf_conn *c = j->conn;

    if (ctrlr->dying || !(ctrlr->csts & NVME_CSTS_RDY) || !(ctrlr->cc & NVME_CC_EN) ||
        (ctrlr->csts & NVME_CSTS_SHST_MASK) != 0 || !queue_sizes_ok(ctrlr))
        return CONNECT_FAIL(&j->result, NVME_SC_CMD_SEQ_ERROR, 0), 0;
    if (qid > ctrlr->queues_granted)
        return CONNECT_FAIL(&j->result, NVME_SC_CONNECT_INVALID_PARAM, BAD_SQE_FIELD(qid)), 0;
    if (ctrlr->q[qid].conn != NULL)
        return CONNECT_FAIL(&j->result, NVME_SC_CMD_SEQ_ERROR, 0), 0;
    ctrlr->q[qid] = (struct nvmf_ctrlr_queue){.conn = c, .reactor = j->reactor};
    ctrlr->nqueues++;
    c->ctrlr = ctrlr;
    c->subsys = ctrlr->subsys;
    c->kv_visible = nvmf_ctrlr_iocs(ctrlr);
    c->qid = qid;
    return 0;
}

void nvmf_connect_io(struct rt_task *t, struct nvmf_conn *c, const struct nvme_connect_cmd *cmd,
                     const struct nvme_connect_data *data, struct nvmf_connect_result *out)
{
    struct join j = {
        .tgt = c->tgt, .conn = c, .reactor = c->local->reactor, .cmd = cmd, .data = data};

    rt_task_shield(t, true);
    rt_on(t, rt_reactor(0), find_task, &j);
    if (j.reg != NULL) {
        rt_on(t, j.reg->owner, join_task, &j);
        rt_on(t, rt_reactor(0), unhold_task, &j);
    }
    rt_task_shield(t, false);
    if (c->ctrlr != NULL) {
        c->table = c->subsys->table[rt_index(c->local->reactor)];
        j.result.dw0 = c->ctrlr->cntlid;
    }
    *out = j.result;
}

static void kill_there(struct rt_msg *msg)
{
    nvmf_conn_kill(container_of(msg, struct nvmf_conn, kill_msg));
}

void nvmf_ctrlr_drop_queues(struct rt_task *t, struct nvmf_ctrlr *ctrlr)
{
    for (unsigned i = 1; i <= ctrlr->tgt->cfg.io_queues_max; i++) {
        struct nvmf_ctrlr_queue *q = &ctrlr->q[i];

        if (q->conn == NULL || q->killed)
            continue;
        q->killed = true;
        if (q->reactor == rt_self()) {
            nvmf_conn_kill(q->conn); /* here it leaves without a message, and could overtake ours */
            continue;
        }
        /* The connection stays until it has left, which it does by a message behind this one. */
        q->conn->kill_msg.fn = kill_there;
        rt_send(q->reactor, &q->conn->kill_msg);
    }
    rt_task_shield(t, true);
    while (ctrlr->nqueues > 0)
        rt_cond_wait(t, &ctrlr->queues_gone);
    rt_task_shield(t, false);
    /* No query of its is under way any more: what is there is all. */
    query_results_drop_session(ctrlr->tgt->results, ctrlr->id);
}

/* --- the end ---------------------------------------------------------------------------------- */

/* The owner: a queue has gone. */
static int leave_task(struct rt_task *t, void *arg)
{
    struct nvmf_conn *c = arg;
    struct nvmf_ctrlr *ctrlr = c->ctrlr;

    must(ctrlr->q[c->qid].conn == c);
    ctrlr->q[c->qid] = (struct nvmf_ctrlr_queue){0};
    if (--ctrlr->nqueues == 0)
        rt_cond_wake_all(&ctrlr->queues_gone);
    return 0;
}

/* Reactor 0: nobody finds the controller any more. */
static int unregister_task(struct rt_task *t, void *arg)
{
    struct nvmf_reg *reg = arg;

    reg->gone = true;
    while (reg->refs > 0)
        rt_cond_wait(t, &reg->unref);
    return 0;
}

static int forget_task(struct rt_task *t, void *arg)
{
    struct nvmf_reg *reg = arg;
    struct nvmf_target *tgt = reg->subsys->tgt;

    list_del(&reg->link);
    free(reg);
    tgt->nregs--;
    rt_cond_wake_all(&tgt->conns_gone);
    return 0;
}

static void ctrlr_end(struct rt_task *t, struct nvmf_ctrlr *ctrlr)
{
    ctrlr->dying = true;
    rt_timer_stop(&ctrlr->kato_timer);
    list_del(&ctrlr->link);
    rt_on(t, rt_reactor(0), unregister_task, ctrlr->reg);
    nvmf_ctrlr_drop_queues(t, ctrlr);
    rt_on(t, rt_reactor(0), forget_task, ctrlr->reg);
    ctrlr_free(ctrlr);
}

void nvmf_ctrlr_leave(struct rt_task *t, struct nvmf_conn *c)
{
    struct nvmf_ctrlr *ctrlr = c->ctrlr;

    if (c->qid == 0)
        ctrlr_end(t, ctrlr);
    else
        rt_on(t, ctrlr->local->reactor, leave_task, c);
    c->ctrlr = NULL;
}

/* --- ending another one of the same host --------------------------------------------------- */

#define END_OTHER_NS (20 * NS_PER_S)

struct end_other {
    const struct nvmf_reg *by;
    uint16_t cntlid;
    struct nvmf_reg *found; /* held */
};

/* Reactor 0: 1 there is one, held in o->found unless it is ending already; 0 none (any more). */
static int other_find_task(struct rt_task *t, void *arg)
{
    struct end_other *o = arg;
    struct nvmf_reg *reg;

    list_for_each (reg, &o->by->subsys->regs, struct nvmf_reg, link) {
        if (reg->cntlid != o->cntlid || strcmp(reg->hostnqn, o->by->hostnqn) != 0 ||
            memcmp(reg->hostid, o->by->hostid, sizeof(reg->hostid)) != 0)
            continue;
        if (!reg->gone) {
            reg->refs++;
            o->found = reg;
        }
        return 1;
    }
    return 0;
}

/* Its owner. Not dying: its admin connection is there. */
static int other_kill_task(struct rt_task *t, void *arg)
{
    struct nvmf_ctrlr *ctrlr = ((struct end_other *)arg)->found->ctrlr;

    if (!ctrlr->dying)
        nvmf_conn_kill(ctrlr->admin);
    return 0;
}

static int other_unhold_task(struct rt_task *t, void *arg)
{
    struct end_other *o = arg;

    if (--o->found->refs == 0)
        rt_cond_wake_all(&o->found->unref);
    o->found = NULL;
    return 0;
}

int nvmf_ctrlr_end_other(struct rt_task *t, struct nvmf_ctrlr *ctrlr, uint16_t cntlid)
{
    struct end_other o = {.by = ctrlr->reg, .cntlid = cntlid};
    uint64_t until_ns = rt_now() + END_OTHER_NS, wait_ns = 100 * NS_PER_US;

    for (;;) {
        int rc = rt_on(t, rt_reactor(0), other_find_task, &o);

        if (rc == 0)
            return 0;
        if (o.found != NULL) {
            rt_task_shield(t, true);
            rt_on(t, o.found->owner, other_kill_task, &o);
            rt_on(t, rt_reactor(0), other_unhold_task, &o);
            rt_task_shield(t, false);
        }
        if (rt_now() > until_ns)
            return -ETIMEDOUT;
        /* This wait can be cancelled: two that end each other do not wait for ever. */
        rc = rt_sleep(t, wait_ns);
        if (rc < 0)
            return rc;
        wait_ns = MIN(wait_ns * 2, 20 * NS_PER_MS);
    }
}

/* --- asynchronous events ---------------------------------------------------------------------- */

static void send_event(struct nvmf_ctrlr *ctrlr, uint32_t dw0)
{
    struct nvmf_cmd *cmd = ctrlr->aer[--ctrlr->naer];

    cmd->dw0 = dw0;
    nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
}

void nvmf_ctrlr_drop_aer(struct nvmf_ctrlr *ctrlr, const struct nvmf_cmd *cmd)
{
    for (unsigned i = 0; i < ctrlr->naer; i++) {
        if (ctrlr->aer[i] == cmd)
            ctrlr->aer[i--] = ctrlr->aer[--ctrlr->naer];
    }
}

void nvmf_ctrlr_events(struct nvmf_ctrlr *ctrlr)
{
    if (ctrlr->ns_event && !ctrlr->ns_masked && ctrlr->naer > 0 &&
        (ctrlr->async_mask & NVME_OAES_NS_ATTR)) {
        ctrlr->ns_event = false;
        ctrlr->ns_masked = true;
        send_event(ctrlr,
                   NVME_AER_DW0(NVME_AER_NOTICE, NVME_AER_NOTICE_NS_CHANGED, NVME_LID_CHANGED_NS));
    }
    if (ctrlr->disc_event && !ctrlr->disc_masked && ctrlr->naer > 0 &&
        (ctrlr->async_mask & NVME_OAES_DISCOVERY)) {
        ctrlr->disc_event = false;
        ctrlr->disc_masked = true;
        send_event(ctrlr,
                   NVME_AER_DW0(NVME_AER_NOTICE, NVME_AER_NOTICE_DISCOVERY, NVME_LID_DISCOVERY));
    }
}

void nvmf_ctrlr_ns_changed(struct nvmf_ctrlr *ctrlr, uint32_t nsid)
{
    ctrlr->changed[nsid / 32] |= 1u << nsid % 32;
    ctrlr->ns_event |= (ctrlr->async_mask & NVME_OAES_NS_ATTR) != 0;
    nvmf_ctrlr_events(ctrlr);
}

void nvmf_ctrlr_discovery_changed(struct nvmf_ctrlr *ctrlr)
{
    if (!ctrlr->persistent)
        return;
    ctrlr->disc_event = true;
    nvmf_ctrlr_events(ctrlr);
}

/* --- errors ----------------------------------------------------------------------------------- */

/* What a host may well expect is no error of the controller. */
static bool is_expected(uint16_t status)
{
    switch (status & NVME_SC_CODE_MASK) {
    case NVME_SC_KV_KEY_NOT_EXIST:
    case NVME_SC_KV_KEY_EXISTS:
    case NVME_SC_COMPARE_FAILED:
    case NVME_SC_ABORT_REQ:
    case NVME_SC_ABORT_QUEUE:
    case NVME_SC_FUSED_FAIL:
        return true;
    default:
        return false;
    }
}

void nvmf_ctrlr_log_error(struct nvmf_ctrlr *ctrlr, const struct nvmf_cmd *cmd, uint16_t status)
{
    struct nvme_log_error *e;
    bool io = cmd->conn->qid != 0;

    if (is_expected(status))
        return;
    /* A lock, not a message: errors are rare, and may be many at once. */
    pthread_mutex_lock(&ctrlr->err_lock);
    e = &ctrlr->err[ctrlr->err_count++ % NVMF_ERRORS];
    *e = (struct nvme_log_error){
        .count = le64_make(ctrlr->err_count),
        .sqid = le16_make(cmd->conn->qid),
        .cid = cmd->sqe.cid,
        .status = nvme_status_field(status),
        .location = le16_make(0xffff),
        .lba = le64_make(io ? nvme_slba(&cmd->sqe) : 0),
        .nsid = cmd->sqe.nsid,
        .trtype = NVME_TRTYPE_TCP,
        .opc = cmd->sqe.opc,
    };
    pthread_mutex_unlock(&ctrlr->err_lock);
}
