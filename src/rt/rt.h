/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime: reactors (one thread and one event backend each), their clock, timers, mailboxes
 * and memory. Work enters and completes on the same reactor; another one is reached by rt_send().
 */
#ifndef KVASIR_RT_RT_H
#define KVASIR_RT_RT_H

#include "rt/req.h"
#include "rt/task.h"

#include "base/err.h"
#include "base/list.h"

struct rt;
struct rt_reactor;

enum rt_poll {
    RT_POLL_ADAPTIVE = 0, /* spin for a while after work, then sleep in the kernel */
    RT_POLL_ALWAYS,       /* never sleep: lowest latency, a whole core */
    RT_POLL_NEVER,        /* always sleep when nothing is ready */
};

enum rt_backend {
    RT_BACKEND_AUTO = 0, /* io_uring, or epoll where the kernel refuses it */
    RT_BACKEND_URING,
    RT_BACKEND_EPOLL,
};

/** Zeroed means defaults everywhere. */
struct rt_config {
    unsigned reactors; /* default 1 */
    const int *cpus;   /* `reactors` CPU numbers to pin to; NULL: not pinned */
    enum rt_poll poll;
    enum rt_backend backend;
    unsigned tasks_max;       /* per reactor; default 4096 */
    unsigned offload_threads; /* default 4 */
    size_t buf_bytes;         /* data buffers per reactor (rt/buf.h); default 64 MiB */
    uint64_t spin_ns;         /* adaptive: how long to spin; default 50 us */
    unsigned trace_events;    /* rt/trace.h: how many each reactor keeps; default 0: off */
};

/**
 * Runs a program: starts the reactors (reactor 0 on the calling thread), runs fn as a task on
 * reactor 0, and when it has returned stops the reactors and returns its value. Whatever fn
 * started has to have ended by then. Returns a negative errno, with text, when it cannot start.
 */
int rt_run(const struct rt_config *cfg, rt_task_fn fn, void *arg, struct err *why);

/**
 * For libraries: starts the reactors on threads of their own.
 * rt_call() runs fn as a task on reactor `idx` and blocks the calling thread (not a reactor's)
 * until it returns. rt_stop() ends and frees everything; no call may be under way.
 */
int rt_start(const struct rt_config *cfg, struct rt **out_rt, struct err *why);
int rt_call(struct rt *rt, unsigned idx, rt_task_fn fn, void *arg);
void rt_stop(struct rt *rt);

/**
 * For event loops: one reactor without a thread. rt_loop_turn() runs what is ready and returns;
 * it is called when rt_loop_fd() is readable, or after rt_loop_timeout_ms() (-1: no limit).
 * All calls come from one thread at a time, which is the reactor's thread during the call.
 */
int rt_loop_new(const struct rt_config *cfg, struct rt **out_rt, struct err *why);
int rt_loop_fd(struct rt *rt);
int rt_loop_timeout_ms(struct rt *rt);
void rt_loop_turn(struct rt *rt);
/** Begins a task from outside rt_loop_turn(); as rt_task_start(). */
int rt_loop_start(struct rt *rt, const char *name, rt_task_fn fn, void *arg, struct rt_req *done);
/** Runs fn(arg) now, with the loop's reactor as the current one: for submitting from outside. */
void rt_loop_enter(struct rt *rt, void (*fn)(void *arg), void *arg);
void rt_loop_free(struct rt *rt);

/** The reactor of the calling thread; NULL on other threads. */
struct rt_reactor *rt_self(void);
unsigned rt_index(const struct rt_reactor *r);
unsigned rt_reactors(void);
struct rt_reactor *rt_reactor(unsigned idx);
/** The CPU that a reactor is pinned to; -1: none. */
int rt_cpu(unsigned idx);
/** "io_uring", "epoll" or "sim". */
const char *rt_backend_name(void);

/**
 * What would be a global of a layer (its table of open devices, say), one per runtime, so that
 * several runtimes in one process, and the machines of sim, do not see each other's: `bytes`
 * zeroed bytes that belong to `key`, the address of something static. The first call makes them;
 * they are freed with the runtime. From any reactor. Never fails, never waits.
 */
void *rt_local(const void *key, size_t bytes);

/** Monotonic time in ns, read once per turn of the loop; virtual in sim. */
uint64_t rt_now(void);
/** The same, read now: for measuring. */
uint64_t rt_now_exact(void);
/** Wall clock in ns since 1970; virtual in sim. */
uint64_t rt_wall_ns(void);
/** Random numbers: unpredictable outside sim, from the seed in sim. */
void rt_random(void *buf, size_t len);
/** A new trace id, never 0. */
uint64_t rt_trace_new(void);

/** A timer: calls fn from the loop at or after the deadline, once. Zeroed memory is stopped. */
struct rt_timer {
    void (*fn)(struct rt_timer *timer);
    uint64_t at_ns;
    uint32_t heap_pos; /* 1-based place in the heap; 0 = not started */
};
/** Starts or moves a timer of the current reactor. fn has to be set. */
void rt_timer_start(struct rt_timer *timer, uint64_t at_ns);
void rt_timer_stop(struct rt_timer *timer);

/** Sends a message to a reactor, from any thread; fn runs there, in the order of sending. */
void rt_send(struct rt_reactor *to, struct rt_msg *msg);

/**
 * Runs fn once at the end of the current batch of ready work, before the loop looks for new
 * events: the place to send what the batch has queued. Adding one that is queued does nothing.
 */
struct rt_defer {
    struct rt_defer *next;
    void (*fn)(struct rt_defer *d);
    bool queued;
};
void rt_defer(struct rt_defer *d);

/**
 * Runs fn(t, arg) as a task on another reactor and waits for its result. Runs in place when that
 * is the current reactor.
 */
int rt_on(struct rt_task *t, struct rt_reactor *r, rt_task_fn fn, void *arg);

#endif
