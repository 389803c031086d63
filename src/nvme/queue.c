/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of one queue: from nvme_submit() into a slot or into the line, and from the slot to
 * completion. Slots are a table found by CID; nothing is allocated after the queue was made.
 */
#include "nvme/internal.h"

#include <string.h>

static void tick(struct rt_timer *timer);

int nvme_queue_new(struct nvme_ctrl *ctrl, uint16_t qid, unsigned nslots, struct nvme_queue **out_q)
{
    struct nvme_queue *q = calloc(1, sizeof(*q));

    if (q == NULL)
        return -ENOMEM;
    q->ctrl = ctrl;
    q->reactor = rt_self();
    q->qid = qid;
    q->nslots = nslots;
    q->sock.fd = -1;
    q->tick.fn = tick;
    list_init(&q->link);
    list_init(&q->line);
    list_init(&q->retry);
    q->slots = calloc(nslots, sizeof(*q->slots));
    q->rx_buf = malloc(NVME_RX_BYTES);
    if (q->slots == NULL || q->rx_buf == NULL) {
        nvme_queue_free(q);
        return -ENOMEM;
    }
    nvme_slots_reset(q);
    *out_q = q;
    return 0;
}

void nvme_queue_free(struct nvme_queue *q)
{
    if (q == NULL)
        return;
    must(q->in_flight == 0);
    must(!q->task_runs);
    rt_timer_stop(&q->tick);
    free(q->slots);
    free(q->rx_buf);
    free(q);
}

void nvme_slots_reset(struct nvme_queue *q)
{
    q->free_slots = NULL;
    for (unsigned i = q->nslots; i-- > 0;) {
        struct nvme_slot *s = &q->slots[i];

        must(s->req == NULL);
        s->queue = q;
        s->next_free = q->free_slots;
        q->free_slots = s;
    }
}

struct nvme_slot *nvme_slot_of(struct nvme_queue *q, uint16_t cid)
{
    unsigned i = cid & NVME_CID_INDEX_MASK;

    if (i >= q->nslots || q->slots[i].req == NULL || q->slots[i].cid != cid)
        return NULL;
    return &q->slots[i];
}

/* --- submitting ------------------------------------------------------------------------------- */

static void slot_begin(struct nvme_queue *q, struct nvme_req *req)
{
    struct nvme_slot *s = q->free_slots;
    unsigned use = (s->cid >> NVME_CID_INDEX_BITS) + 1;

    q->free_slots = s->next_free;
    s->cid = (uint16_t)((unsigned)(s - q->slots) | use << NVME_CID_INDEX_BITS);
    s->req = req;
    s->answered = s->digest_bad = false;
    s->r2t_left = s->sending = 0;
    s->progress_ns = rt_now();
    req->slot = s;
    req->moved = req->window_off = 0;
    if (q->in_flight++ == 0 && q->tick.heap_pos == 0)
        rt_timer_start(&q->tick, rt_now() + NS_PER_S);
    q->stats.sent++;
    nvme_send_capsule(q, s);
}

static bool may_send(const struct nvme_queue *q, const struct nvme_req *req)
{
    if (q->free_slots == NULL)
        return false;
    if (LIKELY(q->state == NVME_QUEUE_LIVE))
        return true;
    return q->state == NVME_QUEUE_CONNECTING && q->shaken && (req->flags & NVME_REQ_CONNECT) != 0;
}

static void line_add(struct nvme_queue *q, struct nvme_req *req)
{
    list_add_tail(&q->line, &req->link);
    q->in_line++;
}

static void line_del(struct nvme_queue *q, struct nvme_req *req)
{
    list_del(&req->link);
    q->in_line--;
}

static void cancel(struct rt_req *rreq)
{
    struct nvme_req *req = container_of(rreq, struct nvme_req, req);
    struct nvme_queue *q = req->queue;

    req->cancelled = true;
    if (req->slot == NULL) {
        line_del(q, req);
        rt_req_complete(rreq, -ECANCELED);
    } else if (req->fed != NULL) {
        nvme_queue_kill(q, -ECANCELED, "cancelled");
    }
}

void nvme_submit(struct nvme_queue *q, struct nvme_req *req)
{
    rt_req_begin(&req->req);
    req->req.cancel = cancel;
    req->queue = q;
    req->slot = NULL;
    req->tries = 0;
    req->repeated = false;
    req->cancelled = false;
    if (req->fed == NULL)
        req->window_len = req->data_len;
    if (UNLIKELY((req->flags & NVME_REQ_BOUND) != 0) &&
        (q->state != NVME_QUEUE_LIVE || req->connection != nvme_queue_connection(q)))
        rt_req_complete(&req->req, q->state == NVME_QUEUE_DEAD ? -ENODEV : -ECONNRESET);
    else if (LIKELY(may_send(q, req)))
        slot_begin(q, req);
    else if (q->state == NVME_QUEUE_DEAD)
        rt_req_complete(&req->req, -ENODEV);
    else if (q->state != NVME_QUEUE_LIVE && (q->stream || (req->flags & NVME_REQ_CONNECT) != 0))
        rt_req_complete(&req->req, -ECONNRESET);
    else
        line_add(q, req);
}

void nvme_queue_kick(struct nvme_queue *q)
{
    struct nvme_req *req;

    while ((req = list_first(&q->line, struct nvme_req, link)) != NULL && may_send(q, req)) {
        line_del(q, req);
        slot_begin(q, req);
    }
}

void nvme_queue_fail_line(struct nvme_queue *q, int rc)
{
    struct nvme_req *req;

    list_for_each (req, &q->retry, struct nvme_req, link) {
        list_del(&req->link);
        list_add_tail(&q->line, &req->link);
    }
    while ((req = list_first(&q->line, struct nvme_req, link)) != NULL) {
        line_del(q, req);
        rt_req_complete(&req->req, rc);
    }
}

void nvme_req_feed(struct nvme_req *req, const struct iovec *iov, unsigned iovcnt, uint32_t len)
{
    must(req->fed != NULL);
    must(req->moved == req->window_off + req->window_len);
    req->window_off = req->moved;
    req->window_len = len;
    req->iov = iov;
    req->iovcnt = iovcnt;
    if (req->slot == NULL)
        return;
    req->slot->progress_ns = rt_now();
    if (req->dir == NVME_DIR_H2C)
        nvme_send_data(req->queue, req->slot);
    else
        rt_cond_wake_all(&req->queue->changed);
}

/* --- completing ------------------------------------------------------------------------------- */

static struct nvme_req *slot_free(struct nvme_slot *s)
{
    struct nvme_queue *q = s->queue;
    struct nvme_req *req = s->req;

    s->req = NULL;
    s->next_free = q->free_slots;
    q->free_slots = s;
    q->in_flight--;
    req->slot = NULL;
    return req;
}

/* The controller gave the command up because it, or its queue, comes to an end: nobody knows
 * whether it took effect, as when the connection is lost. */
static bool was_given_up(const struct nvme_req *req)
{
    uint16_t code = req->status & NVME_SC_CODE_MASK;

    return !req->cancelled && (code == NVME_SC_ABORT_QUEUE || code == NVME_SC_ABORT_REQ);
}

/* Passing errors (the transport lost data, the namespace is not ready) are tried again soon. */
static bool try_again(struct nvme_queue *q, struct nvme_req *req, bool digest_bad)
{
    if ((req->flags & NVME_REQ_REPEAT) == 0 || req->fed != NULL || req->cancelled)
        return false;
    if (!digest_bad && !nvme_status_may_retry(req->status) && !was_given_up(req))
        return false;
    if (++req->tries >= NVME_TRIES_MAX || q->state != NVME_QUEUE_LIVE)
        return false;
    req->repeated |= was_given_up(req);
    list_add_tail(&q->retry, &req->link);
    q->in_line++;
    q->stats.repeated++;
    rt_timer_start(&q->tick, rt_now() + NVME_RETRY_NS);
    return true;
}

static int rc_of(const struct nvme_req *req)
{
    if (was_given_up(req))
        return -ECONNRESET;
    if (req->sqe.opc == NVME_OPC_FABRICS)
        return nvme_errno_of_fabrics_status(req->status);
    return nvme_errno_of_status(req->status);
}

void nvme_slot_settle(struct nvme_slot *s)
{
    struct nvme_queue *q = s->queue;
    bool digest_bad = s->digest_bad;
    struct nvme_req *req;

    if (!s->answered || s->items_busy > 0 || q->end_rc < 0)
        return;
    req = slot_free(s);
    req->status = s->status;
    req->dw0 = s->dw0;
    req->dw1 = s->dw1;
    q->stats.done++;
    if (UNLIKELY(req->status != 0 || digest_bad)) {
        if (!try_again(q, req, digest_bad))
            rt_req_complete(&req->req, req->status != 0 ? rc_of(req) : -EBADMSG);
    } else {
        rt_req_complete(&req->req, 0);
    }
    if (!list_empty(&q->line))
        nvme_queue_kick(q);
}

void nvme_slot_answer(struct nvme_slot *s, uint16_t status, uint32_t dw0, uint32_t dw1)
{
    s->answered = true;
    s->status = status;
    s->dw0 = dw0;
    s->dw1 = dw1;
    s->r2t_left = 0;
    nvme_slot_settle(s);
}

/* What becomes of a command whose connection was lost. */
static void unsend(struct nvme_queue *q, struct nvme_slot *s, int rc)
{
    bool answered = s->answered && !s->digest_bad;
    struct nvme_req *req = slot_free(s);

    if (answered) {
        req->status = s->status;
        req->dw0 = s->dw0;
        req->dw1 = s->dw1;
        rt_req_complete(&req->req, req->status != 0 ? rc_of(req) : 0);
    } else if (req->cancelled) {
        rt_req_complete(&req->req, -ECANCELED);
    } else if ((req->flags & (NVME_REQ_REPEAT | NVME_REQ_BOUND)) == NVME_REQ_REPEAT &&
               req->fed == NULL && !q->stream && !q->closing && ++req->tries < NVME_TRIES_MAX) {
        req->repeated = true;
        line_add(q, req);
        q->stats.repeated++;
    } else {
        rt_req_complete(&req->req, (req->flags & NVME_REQ_CONNECT) != 0 ? rc : -ECONNRESET);
    }
}

/* Those in line that were meant for the connection that is gone. */
static void fail_bound(struct nvme_queue *q)
{
    struct nvme_req *req;

    list_for_each (req, &q->line, struct nvme_req, link) {
        if ((req->flags & NVME_REQ_BOUND) == 0)
            continue;
        line_del(q, req);
        rt_req_complete(&req->req, -ECONNRESET);
    }
}

void nvme_queue_unsend(struct nvme_queue *q, int rc)
{
    struct nvme_req *req;

    must(q->items_busy == 0);
    for (unsigned i = 0; i < q->nslots; i++) {
        if (q->slots[i].req != NULL)
            unsend(q, &q->slots[i], rc);
    }
    while ((req = list_pop_entry(&q->retry, struct nvme_req, link)) != NULL)
        list_add_tail(&q->line, &req->link);
    fail_bound(q);
    if (q->stream)
        nvme_queue_fail_line(q, -ECONNRESET);
}

/* --- deadlines -------------------------------------------------------------------------------- */

/* A stream whose caller has brought no memory or data is not late. */
static bool waits_for_caller(const struct nvme_req *req)
{
    return req->fed != NULL && req->moved == req->window_off + req->window_len &&
           req->moved < req->data_len;
}

static bool is_late(const struct nvme_queue *q, const struct nvme_slot *s, uint64_t now_ns)
{
    uint64_t max_ns = q->ctrl->opts.timeout_ns;

    if (s->req == NULL || waits_for_caller(s->req) ||
        s->req->sqe.opc == NVME_OPC_ASYNC_EVENT_REQUEST)
        return false;
    max_ns = MAX(max_ns, s->req->timeout_ns);
    if ((s->req->flags & NVME_REQ_CONNECT) != 0)
        max_ns = MIN(max_ns, NVME_CONNECT_NS);
    return now_ns > s->progress_ns + max_ns;
}

static void retry_all(struct nvme_queue *q)
{
    struct nvme_req *req;

    while ((req = list_pop_entry(&q->retry, struct nvme_req, link)) != NULL)
        list_add_tail(&q->line, &req->link);
    nvme_queue_kick(q);
}

/* Once a second while commands are in flight; sooner when some are to be repeated. */
static void tick(struct rt_timer *timer)
{
    struct nvme_queue *q = container_of(timer, struct nvme_queue, tick);
    uint64_t now_ns = rt_now();

    retry_all(q);
    for (unsigned i = 0; i < q->nslots; i++) {
        if (!is_late(q, &q->slots[i], now_ns))
            continue;
        nvme_queue_kill(q, -ETIMEDOUT, "no answer to a command for %u s",
                        (unsigned)((now_ns - q->slots[i].progress_ns) / NS_PER_S));
        break;
    }
    if (q->in_flight > 0)
        rt_timer_start(&q->tick, now_ns + NS_PER_S);
}

/* --- for callers ------------------------------------------------------------------------------ */

bool nvme_queue_live(const struct nvme_queue *q)
{
    return q->state == NVME_QUEUE_LIVE;
}

uint32_t nvme_queue_connection(const struct nvme_queue *q)
{
    return (uint32_t)q->stats.connects;
}

void nvme_queue_stats(const struct nvme_queue *q, struct nvme_queue_stats *out)
{
    *out = q->stats;
    out->in_flight = q->in_flight;
    out->in_line = q->in_line;
}

int nvme_exec(struct rt_task *t, struct nvme_queue *q, const struct nvme_sqe *sqe,
              enum nvme_dir dir, void *buf, uint32_t len, uint32_t *out_dw0)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct nvme_req req = {.sqe = *sqe, .iov = &iov, .iovcnt = 1, .data_len = len};
    int rc;

    req.dir = (uint8_t)dir;
    rt_req_init_task(&req.req, t);
    nvme_submit(q, &req);
    rc = rt_wait(t, &req.req);
    if (rc == 0 && out_dw0 != NULL)
        *out_dw0 = req.dw0;
    return rc;
}
