/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request: one submit and one completion. struct rt_req is embedded first in blk_req, kv_req,
 * rt_io and so on; whoever made it owns the memory until `done` runs.
 *
 * Life: rt_req_init (or rt_req_init_task) -> x_submit, which calls rt_req_begin -> the layer below
 * calls rt_req_complete exactly once -> `done` runs from the reactor loop, never inside submit.
 * After `done` has begun the request may be submitted again or freed.
 */
#ifndef KVASIR_RT_REQ_H
#define KVASIR_RT_REQ_H

#include "base/must.h"
#include "base/util.h"

struct rt_req;
struct rt_task;

typedef void (*rt_req_fn)(struct rt_req *req);

enum rt_req_state {
    RT_REQ_IDLE = 0, /* nobody below knows it */
    RT_REQ_PENDING,  /* submitted */
    RT_REQ_COMPLETE, /* completed; `done` will run, or a task will see it */
};

struct rt_req {
    rt_req_fn done;       /* runs once per submit */
    rt_req_fn cancel;     /* set by whoever carries the request out; NULL: cannot be cancelled */
    struct rt_req *next;  /* reactor's ready list */
    struct rt_task *task; /* the task to wake, for requests made by rt_req_init_task */
    int rc;               /* 0 or positive: success; negative errno. Valid in and after `done` */
    uint8_t state;        /* enum rt_req_state */
    uint64_t trace_id;    /* follows the work through the layers; 0 none */
};

/** A message to a reactor: fn runs there, from its loop. Sent by rt_send(), see rt/rt.h. */
struct rt_msg {
    struct rt_msg *next;
    void (*fn)(struct rt_msg *msg);
};

/** Prepares a request whose completion calls `done`. */
static inline void rt_req_init(struct rt_req *req, rt_req_fn done)
{
    *req = (struct rt_req){.done = done};
}

/** Prepares a request that `t` will wait for with rt_wait(). Takes over the task's trace id. */
void rt_req_init_task(struct rt_req *req, struct rt_task *t);

/** Called by submit functions: marks the request as on its way. */
static inline void rt_req_begin(struct rt_req *req)
{
    must(req->state != RT_REQ_PENDING);
    req->state = RT_REQ_PENDING;
}

/**
 * Completes a pending request with `rc`: puts it on the ready list of the current reactor, whose
 * loop calls `done`. A second completion of one submit is a broken invariant and aborts.
 */
void rt_req_complete(struct rt_req *req, int rc);

/**
 * Asks that a request end soon. It still completes once: with -ECANCELED, or as if nobody had
 * asked. Does nothing when the request is not pending or nobody below can cancel it.
 */
static inline void rt_req_cancel(struct rt_req *req)
{
    if (req->state == RT_REQ_PENDING && req->cancel != NULL)
        req->cancel(req);
}

#endif
