/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flushes of one device, shared: while one is under way, those who ask for another wait, and all of
 * them have the next one together, whichever reactors they are on. It begins when the one before
 * has ended, so it covers what had completed when each of them asked.
 *
 * One word says it all: IDLE; BUSY, one is under way; or who has asked meanwhile, a list. Who finds
 * IDLE leads; a leader who ends with others waiting hands on to one of them, on its own reactor,
 * since only its channel is known to stay. No lock.
 */
#include "blob/internal.h"

#define IDLE ((uintptr_t)0)
#define BUSY ((uintptr_t)1)

static void start(struct blob_req *leader);

/* Ends one request, where it was submitted. */
static void return_arrives(struct rt_msg *msg)
{
    struct blob_req *req = container_of(msg, struct blob_req, flush.msg);

    rt_req_complete(&req->req, req->flush.rc);
}

static void finish_one(struct blob_req *req, int rc)
{
    if (req->flush.reactor == rt_self()) {
        rt_req_complete(&req->req, rc);
        return;
    }
    req->flush.rc = rc;
    req->flush.msg.fn = return_arrives;
    rt_send(req->flush.reactor, &req->flush.msg);
}

static void finish_all(struct blob_req *group, int rc)
{
    while (group != NULL) {
        struct blob_req *next = group->flush.next;

        finish_one(group, rc);
        group = next;
    }
}

/* Those who have asked meanwhile; NULL: nobody has, and it is idle now. */
static struct blob_req *take_waiting(struct blob_store *bs)
{
    uintptr_t busy = BUSY;

    if (__atomic_compare_exchange_n(&bs->flush_word, &busy, IDLE, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return NULL;
    return (struct blob_req *)__atomic_exchange_n(&bs->flush_word, BUSY, __ATOMIC_ACQ_REL);
}

static void lead_arrives(struct rt_msg *msg)
{
    start(container_of(msg, struct blob_req, flush.msg));
}

/* One of the group leads: one of this reactor, if there is any. */
static void lead(struct blob_req *group)
{
    struct blob_req *leader = group, *before = NULL;

    while (leader != NULL && leader->flush.reactor != rt_self()) {
        before = leader;
        leader = leader->flush.next;
    }
    if (leader == NULL) {
        group->flush.msg.fn = lead_arrives;
        rt_send(group->flush.reactor, &group->flush.msg);
        return;
    }
    if (before != NULL) {
        before->flush.next = leader->flush.next;
        leader->flush.next = group;
    }
    start(leader);
}

static void flush_done(struct rt_req *rreq)
{
    struct blob_req *leader = container_of(rreq, struct blob_req, blk.req);
    struct blob_store *bs = leader->chan->bs;
    struct blob_req *waiting;
    int rc = rreq->rc;

    blob_io_end(leader->chan, leader->epoch);
    if (rc < 0)
        blob_flush_failed(bs);
    waiting = take_waiting(bs);
    finish_all(leader, rc);
    /* What it should have made durable may be theirs, and no later one will tell. */
    while (rc < 0 && waiting != NULL) {
        struct blob_req *more = take_waiting(bs);

        finish_all(waiting, rc);
        waiting = more;
    }
    if (waiting != NULL)
        lead(waiting);
}

static void start(struct blob_req *leader)
{
    struct blk_req *blk = &leader->blk;

    rt_req_init(&blk->req, flush_done);
    blk->req.trace_id = leader->req.trace_id;
    blk->op = BLK_FLUSH;
    blk->flags = 0;
    blk->lba = 0;
    blk->nblocks = 0;
    blk->iov = NULL;
    blk->iovcnt = 0;
    leader->epoch = blob_io_begin(leader->chan);
    blk_submit(leader->chan->blk, blk);
}

void blob_flush_submit(struct blob_chan *chan, struct blob_req *req)
{
    struct blob_store *bs = chan->bs;
    uintptr_t was = __atomic_load_n(&bs->flush_word, __ATOMIC_ACQUIRE);
    uintptr_t now;

    req->req.cancel = NULL;
    req->flush.reactor = rt_self();
    do {
        req->flush.next = was > BUSY ? (struct blob_req *)was : NULL;
        now = was == IDLE ? BUSY : (uintptr_t)req;
    } while (!__atomic_compare_exchange_n(&bs->flush_word, &was, now, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    if (was == IDLE)
        start(req);
    else
        __atomic_add_fetch(&bs->flushes_shared, 1, __ATOMIC_RELAXED);
}

void blob_flush_failed(struct blob_store *bs)
{
    __atomic_add_fetch(&bs->flush_failures, 1, __ATOMIC_ACQ_REL);
}

uint64_t blob_flush_failures(const struct blob_store *bs)
{
    return __atomic_load_n(&bs->flush_failures, __ATOMIC_ACQUIRE);
}
