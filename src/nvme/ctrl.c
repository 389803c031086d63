/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A controller as its users see it, and its keeper: the task that keeps the association alive,
 * listens to events, and makes the association anew when a connection was lost.
 */
#include "nvme/internal.h"

#include "base/log.h"

#include <string.h>

#define BACKOFF_MIN_NS (50 * NS_PER_MS)
#define BACKOFF_MAX_NS (2 * NS_PER_S)

/* --- the lock of the list of queues --- */

static void lock(struct rt_task *t, struct nvme_ctrl *ctrl)
{
    rt_task_shield(t, true);
    while (ctrl->locked)
        rt_cond_wait(t, &ctrl->changed);
    ctrl->locked = true;
    rt_task_shield(t, false);
}

static void unlock(struct nvme_ctrl *ctrl)
{
    ctrl->locked = false;
    rt_cond_wake_all(&ctrl->changed);
}

/* --- faults ----------------------------------------------------------------------------------- */

static void fault_here(struct nvme_queue *q)
{
    q->ctrl->fault = true;
    rt_cond_wake_all(&q->ctrl->changed);
}

static void fault_msg(struct rt_msg *msg)
{
    fault_here(container_of(msg, struct nvme_queue, fault_msg));
}

/* Sent once per connection; the next one begins only after the home reactor has seen this. */
void nvme_ctrl_fault(struct nvme_queue *q)
{
    if (q->stream || q->closing)
        return;
    if (q->reactor == q->ctrl->home) {
        fault_here(q);
        return;
    }
    q->fault_msg.fn = fault_msg;
    rt_send(q->ctrl->home, &q->fault_msg);
}

/* --- keep alive and events -------------------------------------------------------------------- */

static void keep_alive_done(struct rt_req *rreq)
{
    struct nvme_ctrl *ctrl = container_of(rreq, struct nvme_ctrl, keep_alive.req);

    ctrl->keep_alive_busy = false;
    rt_cond_wake_all(&ctrl->changed);
}

static void keep_alive(struct nvme_ctrl *ctrl)
{
    if (ctrl->keep_alive_busy) {
        nvme_queue_kill(ctrl->admin, -ETIMEDOUT, "no answer to keep alive");
        return;
    }
    ctrl->keep_alive_busy = true;
    ctrl->keep_alive = (struct nvme_req){.sqe.opc = NVME_OPC_KEEP_ALIVE, .flags = NVME_REQ_CONNECT};
    rt_req_init(&ctrl->keep_alive.req, keep_alive_done);
    nvme_submit(ctrl->admin, &ctrl->keep_alive);
}

static bool is_ns_notice(uint32_t dw0)
{
    return (dw0 & 7) == NVME_AER_NOTICE && (dw0 >> 8 & 0xff) == NVME_AER_NOTICE_NS_CHANGED;
}

static void aer_done(struct rt_req *rreq)
{
    struct nvme_req *req = container_of(rreq, struct nvme_req, req);
    struct nvme_ctrl *ctrl = req->queue->ctrl;

    ctrl->aers_busy--;
    if (rreq->rc < 0)
        ctrl->naers = 0; /* refused, or the connection is gone and asks anew */
    else if (is_ns_notice(req->dw0))
        ctrl->ns_changed = true;
    rt_cond_wake_all(&ctrl->changed);
}

void nvme_ctrl_listen(struct nvme_ctrl *ctrl)
{
    for (unsigned i = 0; i < ctrl->naers; i++) {
        struct nvme_req *req = &ctrl->aer[i];

        if (req->req.state != RT_REQ_IDLE)
            continue;
        *req =
            (struct nvme_req){.sqe.opc = NVME_OPC_ASYNC_EVENT_REQUEST, .flags = NVME_REQ_CONNECT};
        rt_req_init(&req->req, aer_done);
        ctrl->aers_busy++;
        nvme_submit(ctrl->admin, req);
    }
}

/* Reading the log is what lets the controller report the next change. */
static void namespaces_changed(struct rt_task *t, struct nvme_ctrl *ctrl)
{
    CLEANUP(free_p) struct nvme_ns_list *log = calloc(1, sizeof(*log));
    struct err why = {""};

    ctrl->ns_changed = false;
    if (log != NULL)
        nvme_get_log(t, ctrl, NVME_LID_CHANGED_NS, NVME_NSID_ALL, 0, 0, log, sizeof(*log));
    if (ctrl->opts.check == NULL || ctrl->opts.check(t, ctrl, ctrl->opts.arg, &why) == 0)
        return;
    if (ctrl->admin->state != NVME_QUEUE_LIVE)
        return; /* asked again after the reconnect */
    log_warn("nvme %s: %s", ctrl->opts.subnqn, why.text);
    ctrl->refused = true;
    ctrl->fault = true;
}

/* --- the keeper ------------------------------------------------------------------------------- */

/* Until the association has a fault or is to end. */
static void serve(struct rt_task *t, struct nvme_ctrl *ctrl)
{
    uint64_t step_ns = ctrl->opts.kato_ms * NS_PER_MS / 2;
    uint64_t next_ns = rt_now() + step_ns;

    while (!ctrl->stop && !ctrl->fault) {
        if (ctrl->ns_changed) {
            namespaces_changed(t, ctrl);
            continue;
        }
        nvme_ctrl_listen(ctrl);
        if (step_ns > 0 && rt_now() >= next_ns) {
            keep_alive(ctrl);
            next_ns = rt_now() + step_ns;
        }
        rt_task_deadline(t, step_ns > 0 ? next_ns : 0);
        rt_cond_wait(t, &ctrl->changed);
        rt_task_deadline(t, 0);
    }
}

static void pause_for(struct rt_task *t, struct nvme_ctrl *ctrl, uint64_t ns)
{
    uint64_t until_ns = rt_now() + ns;

    rt_task_deadline(t, until_ns);
    while (!ctrl->stop && rt_now() < until_ns) {
        if (rt_cond_wait(t, &ctrl->changed) < 0)
            break;
    }
    rt_task_deadline(t, 0);
}

/*
 * Tries until it works (true), or it is time to give up. An association that ended as soon as it
 * had begun is no success to build on: something we send may be what ends it.
 */
static bool reconnect(struct rt_task *t, struct nvme_ctrl *ctrl, uint64_t lived_ns)
{
    uint64_t lost_ns = rt_now();
    uint64_t delay_ns = BACKOFF_MIN_NS;
    struct err why = {""};
    int rc;

    if (lived_ns < BACKOFF_MAX_NS)
        pause_for(t, ctrl, 4 * BACKOFF_MIN_NS);
    while (!ctrl->stop && !ctrl->refused) {
        lock(t, ctrl);
        rc = nvme_assoc_begin(t, ctrl, &why);
        unlock(ctrl);
        if (rc == 0) {
            log_info("nvme %s: connected again after %u ms", ctrl->opts.subnqn,
                     (unsigned)((rt_now() - lost_ns) / NS_PER_MS));
            return true;
        }
        if (rt_now() - lost_ns >= ctrl->opts.ctrl_loss_ns)
            break;
        pause_for(t, ctrl, delay_ns);
        delay_ns = MIN(delay_ns * 2, BACKOFF_MAX_NS);
    }
    if (!ctrl->stop)
        log_error("nvme %s at %s: given up: %s", ctrl->opts.subnqn, ctrl->opts.addr, why.text);
    return false;
}

static int queue_dead_fn(struct rt_task *t, void *arg)
{
    struct nvme_queue *q = arg;

    (void)t;
    q->state = NVME_QUEUE_DEAD;
    nvme_queue_fail_line(q, -ENODEV);
    return 0;
}

static void give_up(struct rt_task *t, struct nvme_ctrl *ctrl)
{
    struct nvme_queue *q;

    rt_task_shield(t, true);
    lock(t, ctrl);
    ctrl->dead = true;
    queue_dead_fn(t, ctrl->admin);
    list_for_each (q, &ctrl->queues, struct nvme_queue, link)
        rt_on(t, q->reactor, queue_dead_fn, q);
    unlock(ctrl);
    rt_task_shield(t, false);
    if (ctrl->opts.gone != NULL)
        ctrl->opts.gone(ctrl, ctrl->opts.arg);
}

static int keeper(struct rt_task *t, void *arg)
{
    struct nvme_ctrl *ctrl = arg;

    ctrl->in_charge = t;
    while (!ctrl->stop && !ctrl->dead) {
        uint64_t began_ns = rt_now();

        serve(t, ctrl);
        if (ctrl->stop)
            break;
        log_warn("nvme %s at %s: connection lost: %s", ctrl->opts.subnqn, ctrl->opts.addr,
                 ctrl->admin->end_rc < 0 ? ctrl->admin->end_why.text : "an I/O queue ended");
        lock(t, ctrl);
        nvme_assoc_end(t, ctrl, false);
        unlock(ctrl);
        if (!reconnect(t, ctrl, rt_now() - began_ns))
            give_up(t, ctrl);
    }
    lock(t, ctrl);
    nvme_assoc_end(t, ctrl, true);
    unlock(ctrl);
    return 0;
}

static void keeper_done(struct rt_req *req)
{
    struct nvme_ctrl *ctrl = container_of(req, struct nvme_ctrl, keeper_done);

    ctrl->keeper_runs = false;
    rt_cond_wake_all(&ctrl->changed);
}

/* --- opening and closing ---------------------------------------------------------------------- */

static int fill_options(struct rt_task *t, struct nvme_ctrl_opts *o, struct err *why)
{
    bool discovery = strcmp(o->subnqn, NVME_DISCOVERY_NQN) == 0;
    uint8_t hostid[16];
    char hostnqn[NVME_NQN_FIELD];
    int rc;

    if (!nvme_nqn_ok(o->subnqn))
        return err_set(why, -EINVAL, "'%.223s' is no NQN", o->subnqn);
    rc = nvme_host_identity(t, hostnqn, hostid);
    if (rc < 0)
        return rc;
    if (o->hostnqn[0] == '\0')
        memcpy(o->hostnqn, hostnqn, sizeof(hostnqn));
    if (!nvme_nqn_ok(o->hostnqn))
        return err_set(why, -EINVAL, "host NQN '%.220s' is no NQN", o->hostnqn);
    if (bytes_are_zero(o->hostid, sizeof(o->hostid)))
        nvme_host_id_of(o->hostnqn, hostnqn, hostid, o->hostid);
    if (o->queues == 0)
        o->queues = (uint16_t)MIN(rt_reactors() + NVME_STREAM_QUEUES, (unsigned)NVME_QUEUES_MAX);
    o->queues = MIN(o->queues, (uint16_t)NVME_QUEUES_MAX);
    o->depth = o->depth == 0 ? NVME_DEPTH_DEFAULT : MIN(o->depth, (uint16_t)NVME_DEPTH_MAX);
    if (o->kato_ms == 0 && !discovery)
        o->kato_ms = 10000;
    if (o->kato_ms == NVME_KATO_NONE)
        o->kato_ms = 0;
    if (o->timeout_ns == 0)
        o->timeout_ns = 30 * NS_PER_S;
    return 0;
}

static void ctrl_free(struct nvme_ctrl *ctrl)
{
    if (ctrl == NULL)
        return;
    nvme_queue_free(ctrl->admin);
    free(ctrl->id);
    free(ctrl->qid_used);
    free(ctrl);
}

static void ctrl_free_p(struct nvme_ctrl **ctrl)
{
    ctrl_free(*ctrl);
}

static int ctrl_new(const struct nvme_ctrl_opts *opts, struct nvme_ctrl **out_ctrl)
{
    struct nvme_ctrl *ctrl = calloc(1, sizeof(*ctrl));
    int rc;

    if (ctrl == NULL)
        return -ENOMEM;
    ctrl->opts = *opts;
    ctrl->home = rt_self();
    list_init(&ctrl->queues);
    ctrl->id = calloc(1, sizeof(*ctrl->id));
    ctrl->qid_used = calloc(NVME_QUEUES_MAX, 1);
    rc = nvme_queue_new(ctrl, 0, NVME_ADMIN_SLOTS, &ctrl->admin);
    if (ctrl->id == NULL || ctrl->qid_used == NULL || rc < 0) {
        ctrl_free(ctrl);
        return -ENOMEM;
    }
    *out_ctrl = ctrl;
    return 0;
}

int nvme_ctrl_open(struct rt_task *t, const struct nvme_ctrl_opts *opts,
                   struct nvme_ctrl **out_ctrl, struct err *why)
{
    CLEANUP(ctrl_free_p) struct nvme_ctrl *ctrl = NULL;
    int rc = ctrl_new(opts, &ctrl);

    if (rc < 0)
        return err_set(why, rc, "out of memory");
    rc = fill_options(t, &ctrl->opts, why);
    if (rc < 0)
        return rc;
    ctrl->in_charge = t;
    rc = nvme_assoc_begin(t, ctrl, why);
    if (rc < 0)
        return rc;
    rt_req_init(&ctrl->keeper_done, keeper_done);
    rc = rt_task_start("nvme controller", keeper, ctrl, &ctrl->keeper_done, &ctrl->keeper);
    if (rc < 0) {
        nvme_assoc_end(t, ctrl, true);
        return err_set(why, rc, "too many tasks");
    }
    ctrl->keeper_runs = true;
    *out_ctrl = take_ptr(&ctrl);
    return 0;
}

void nvme_ctrl_close(struct rt_task *t, struct nvme_ctrl *ctrl)
{
    must(rt_self() == ctrl->home);
    must(list_empty(&ctrl->queues));
    rt_task_shield(t, true);
    ctrl->stop = true;
    if (ctrl->keeper_runs)
        rt_task_cancel(ctrl->keeper);
    while (ctrl->keeper_runs)
        rt_cond_wait(t, &ctrl->changed);
    rt_task_shield(t, false);
    must(ctrl->aers_busy == 0);
    ctrl_free(ctrl);
}

const struct nvme_id_ctrl *nvme_ctrl_id(const struct nvme_ctrl *ctrl)
{
    return ctrl->id;
}

uint64_t nvme_ctrl_cap(const struct nvme_ctrl *ctrl)
{
    return ctrl->cap;
}

uint32_t nvme_ctrl_vs(const struct nvme_ctrl *ctrl)
{
    return ctrl->vs;
}

unsigned nvme_ctrl_queues(const struct nvme_ctrl *ctrl)
{
    return ctrl->granted;
}

uint32_t nvme_ctrl_transfer_max(const struct nvme_ctrl *ctrl)
{
    unsigned shift = 12 + (unsigned)NVME_CAP_MPSMIN(ctrl->cap) + ctrl->id->mdts;

    return ctrl->id->mdts == 0 || shift >= 32 ? UINT32_MAX : 1u << shift;
}

unsigned nvme_ctrl_epoch(const struct nvme_ctrl *ctrl)
{
    return ctrl->epoch;
}

/* --- I/O queues ------------------------------------------------------------------------------- */

/* The lowest free QID; for streams the next one, because the controller may not have noticed yet
 * that the last stream's connection is gone. */
static uint16_t take_qid(struct nvme_ctrl *ctrl, bool stream)
{
    for (unsigned i = 0; i < ctrl->granted; i++) {
        unsigned at = stream ? (ctrl->qid_next + i) % ctrl->granted : i;

        if (ctrl->qid_used[at])
            continue;
        ctrl->qid_used[at] = 1;
        if (stream)
            ctrl->qid_next = (uint16_t)(at + 1);
        return (uint16_t)(at + 1);
    }
    return 0;
}

struct attach {
    struct nvme_ctrl *ctrl;
    struct nvme_queue *q;
    struct err *why;
};

static int attach_locked(struct rt_task *t, struct attach *a)
{
    struct nvme_ctrl *ctrl = a->ctrl;
    struct nvme_queue *q = a->q;
    int rc = 0;

    if (ctrl->dead)
        return err_set(a->why, -ENODEV, "the target is gone");
    if (!ctrl->live && q->stream)
        return err_set(a->why, -ECONNRESET, "the connection to the target is lost");
    q->qid = take_qid(ctrl, q->stream);
    if (q->qid == 0)
        return err_set(a->why, -EBUSY, "the target grants %u I/O queues, and all are in use",
                       ctrl->granted);
    list_add_tail(&ctrl->queues, &q->link);
    q->addr = ctrl->addr;
    if (ctrl->live)
        rc = rt_on(t, q->reactor, nvme_queue_start_fn, q);
    if (rc < 0) {
        err_set(a->why, rc, "I/O queue %u: %s", q->qid, q->end_why.text);
        list_del(&q->link);
        ctrl->qid_used[q->qid - 1] = 0;
    }
    return rc;
}

static int attach_fn(struct rt_task *t, void *arg)
{
    struct attach *a = arg;
    int rc;

    lock(t, a->ctrl);
    rc = attach_locked(t, a);
    unlock(a->ctrl);
    return rc;
}

static int detach_fn(struct rt_task *t, void *arg)
{
    struct nvme_queue *q = arg;

    lock(t, q->ctrl);
    list_del(&q->link);
    unlock(q->ctrl);
    return 0;
}

static int give_qid_fn(struct rt_task *t, void *arg)
{
    struct nvme_queue *q = arg;

    (void)t;
    q->ctrl->qid_used[q->qid - 1] = 0;
    return 0;
}

int nvme_queue_open(struct rt_task *t, struct nvme_ctrl *ctrl, bool stream,
                    struct nvme_queue **out_q, struct err *why)
{
    unsigned nslots = stream ? 1 : MIN(ctrl->opts.depth, ctrl->mqes - 1u);
    struct attach a = {.ctrl = ctrl, .why = why};
    int rc = nvme_queue_new(ctrl, 0, nslots, &a.q);

    if (rc < 0)
        return err_set(why, rc, "out of memory");
    a.q->stream = stream;
    rc = rt_on(t, ctrl->home, attach_fn, &a);
    if (rc < 0) {
        nvme_queue_free(a.q);
        return rc;
    }
    *out_q = a.q;
    return 0;
}

void nvme_queue_close(struct rt_task *t, struct nvme_queue *q)
{
    must(rt_self() == q->reactor);
    rt_task_shield(t, true);
    q->closing = true; /* from here on it reports nothing to the home reactor */
    rt_on(t, q->ctrl->home, detach_fn, q);
    nvme_queue_stop(t, q, -ECONNRESET);
    nvme_queue_fail_line(q, -ECONNRESET);
    rt_on(t, q->ctrl->home, give_qid_fn, q);
    rt_task_shield(t, false);
    nvme_queue_free(q);
}

void nvme_queue_drop(struct nvme_queue *q)
{
    nvme_queue_kill(q, -ECANCELED, "given up");
}
