/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task: a function on its own small stack (32 KiB, 128 under ASan) that may wait for requests.
 * A function that may wait takes `struct rt_task *t` first. Tasks stay on the reactor where they
 * began. No VLA, no alloca, own frames under 2 KiB; what is deep or blocks goes to rt_offload().
 */
#ifndef KVASIR_RT_TASK_H
#define KVASIR_RT_TASK_H

#include "rt/req.h"

#include "base/list.h"

typedef int (*rt_task_fn)(struct rt_task *t, void *arg);

/**
 * Starts a task on the current reactor; it first runs from the loop, not inside this call.
 * @name  static string, shown by `kvasir tasks` and tools/gdb.py.
 * @done  NULL, or a request that completes with what fn returned (join by rt_wait() in another
 *        task, or any rt_req). It is begun by this call.
 * Returns 0, or -ENOMEM when the reactor has as many tasks as its configuration allows.
 */
int rt_task_start(const char *name, rt_task_fn fn, void *arg, struct rt_req *done,
                  struct rt_task **out_task);

/** The task that runs now on this reactor; NULL in a request's done function or a hook. */
struct rt_task *rt_task_self(void);

/**
 * Waits for a request made by rt_req_init_task(req, t) that has been submitted. Returns its rc.
 * When the task was cancelled or its deadline passed, the request is asked to end first, and
 * -ECANCELED from it is reported as -ETIMEDOUT if the deadline was the reason. The wait always
 * lasts until the request has completed: until then it owns its buffers.
 */
int rt_wait(struct rt_task *t, struct rt_req *req);

/** Lets everything else that is ready run. Returns 0, or -ECANCELED / -ETIMEDOUT as rt_wait. */
int rt_yield(struct rt_task *t);

/** Waits `ns`. Returns 0, or -ECANCELED / -ETIMEDOUT at once when cancelled. */
int rt_sleep(struct rt_task *t, uint64_t ns);

/**
 * Asks a task to end: what it waits for is cancelled, and so is each later wait. The task has to
 * live: its starter knows by its `done` request.
 */
void rt_task_cancel(struct rt_task *t);
bool rt_task_cancelled(const struct rt_task *t);

/** Waits between shield(true) and shield(false) are not cancelled: for closing what was opened. */
void rt_task_shield(struct rt_task *t, bool on);

/** From `at_ns` (rt_now) on waits end with -ETIMEDOUT; 0 takes the deadline away. */
void rt_task_deadline(struct rt_task *t, uint64_t at_ns);
/** The deadline that has not passed yet; 0: none. */
uint64_t rt_task_deadline_at(const struct rt_task *t);

void rt_task_set_trace(struct rt_task *t, uint64_t trace_id);

/** Something to wait for: a list of tasks, woken one or all. Zeroed memory is a valid rt_cond. */
struct rt_cond {
    struct list waiters;
};

/** Waits to be woken. Returns 0, or -ECANCELED / -ETIMEDOUT. Check the condition again after it. */
int rt_cond_wait(struct rt_task *t, struct rt_cond *c);
void rt_cond_wake_one(struct rt_cond *c);
void rt_cond_wake_all(struct rt_cond *c);

/**
 * Runs fn(arg) on a thread of the bounded offload pool and returns what it returned. fn touches
 * only its argument. Not cancelled: the wait lasts until fn has ended. In sim/ fn runs inline.
 */
int rt_offload(struct rt_task *t, int (*fn)(void *arg), void *arg);

/** The same as a request, for code that has no task. */
struct rt_offload_req {
    struct rt_req req;
    int (*fn)(void *arg);
    void *arg;
    struct rt_offload_req *next; /* the pool's queue */
    struct rt_reactor *reactor;  /* where it completes */
    struct rt_msg msg;           /* the way back */
    int fn_rc;
};
void rt_offload_submit(struct rt_offload_req *oreq);

#endif
