/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reactors: their loop, and the forms in which a program, a library, an event loop or the
 * simulator runs them. Read turn() first: it is all that ever happens.
 */
#include "rt/internal.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define BATCH_MAX 1024 /* requests dispatched before deferred work has its turn */
#define ROUNDS_MAX 16  /* of ready work and deferred work in one turn */
#define CLOCK_EVERY 32 /* requests between two looks at the clock */
/* After so long a turn ends, whatever is ready: others wait for the outside to be looked at. */
#define TURN_NS (200 * NS_PER_US)

__thread struct rt_reactor *rt_self_reactor;

struct rt_reactor *rt_self(void)
{
    return rt_self_reactor;
}

unsigned rt_index(const struct rt_reactor *r)
{
    return r->idx;
}

void *rt_backend_of(const struct rt_reactor *r)
{
    return r->backend;
}

void rt_backend_set(struct rt_reactor *r, void *backend)
{
    r->backend = backend;
}

unsigned rt_reactors(void)
{
    return self_must()->rt->nreactors;
}

struct rt_reactor *rt_reactor(unsigned idx)
{
    struct rt *rt = self_must()->rt;

    must(idx < rt->nreactors);
    return &rt->reactors[idx];
}

const char *rt_backend_name(void)
{
    return self_must()->rt->ops->name;
}

uint64_t rt_now(void)
{
    return self_must()->now_ns;
}

uint64_t rt_now_exact(void)
{
    struct rt_reactor *r = rt_self_reactor;

    return r != NULL ? r->rt->ops->now() : rt_posix_now();
}

uint64_t rt_wall_ns(void)
{
    return self_must()->rt->ops->wall();
}

void rt_random(void *buf, size_t len)
{
    struct rt_reactor *r = self_must();

    if (len > sizeof(r->random)) {
        r->rt->ops->random(buf, len);
        return;
    }
    if (len > r->random_left) {
        r->rt->ops->random(r->random, sizeof(r->random));
        r->random_left = sizeof(r->random);
    }
    r->random_left -= (uint32_t)len;
    memcpy(buf, r->random + r->random_left, len);
}

uint64_t rt_trace_new(void)
{
    struct rt_reactor *r = self_must();

    return (uint64_t)(r->idx + 1) << 48 | ++r->trace_count;
}

void rt_req_complete(struct rt_req *req, int rc)
{
    struct rt_reactor *r = self_must();

    must(req->state == RT_REQ_PENDING);
    req->state = RT_REQ_COMPLETE;
    req->rc = rc;
    req->next = NULL;
    *r->ready_tail = req;
    r->ready_tail = &req->next;
}

static struct rt_local *local_new(struct rt *rt, size_t bytes)
{
    size_t len = (size_t)round_up_u64(sizeof(struct rt_local) + bytes, _Alignof(max_align_t));
    struct rt_local *l;

    if (len <= sizeof(rt->locals_room) - rt->locals_used) {
        l = (struct rt_local *)(rt->locals_room + rt->locals_used);
        rt->locals_used += len;
        return l;
    }
    l = calloc(1, len);
    must(l != NULL);
    l->allocated = true;
    return l;
}

void *rt_local(const void *key, size_t bytes)
{
    struct rt *rt = self_must()->rt;
    struct rt_local *l;

    pthread_mutex_lock(&rt->locals_lock);
    for (l = rt->locals; l != NULL && l->key != key; l = l->next)
        continue;
    if (l == NULL) {
        l = local_new(rt, bytes);
        l->key = key;
        l->next = rt->locals;
        rt->locals = l;
    }
    pthread_mutex_unlock(&rt->locals_lock);
    return l->data;
}

void rt_defer(struct rt_defer *d)
{
    struct rt_reactor *r = self_must();

    if (d->queued)
        return;
    d->queued = true;
    d->next = NULL;
    *r->defer_tail = d;
    r->defer_tail = &d->next;
}

/* --- mailboxes
 * ------------------------------------------------------------------------------------ */

void rt_send(struct rt_reactor *to, struct rt_msg *msg)
{
    struct rt_msg *head = atomic_load_explicit(&to->inbox, memory_order_relaxed);

    do {
        msg->next = head;
    } while (!atomic_compare_exchange_weak(&to->inbox, &head, msg));
    if (atomic_exchange(&to->sleeping, false))
        to->rt->ops->wake(to);
}

static bool run_inbox(struct rt_reactor *r)
{
    struct rt_msg *newest, *oldest = NULL;

    if (atomic_load_explicit(&r->inbox, memory_order_relaxed) == NULL)
        return false;
    newest = atomic_exchange(&r->inbox, NULL);
    while (newest != NULL) {
        struct rt_msg *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct rt_msg *msg = oldest;

        oldest = msg->next;
        msg->fn(msg);
    }
    return true;
}

/* --- the loop
 * --------------------------------------------------------------------------------------- */

static bool turn_is_over(const struct rt_reactor *r)
{
    return r->rt->ops->now() - r->now_ns > TURN_NS;
}

static bool run_ready(struct rt_reactor *r)
{
    unsigned n = 0;

    while (r->ready_head != NULL && n < BATCH_MAX) {
        struct rt_req *req = r->ready_head;

        r->ready_head = req->next;
        if (r->ready_head == NULL)
            r->ready_tail = &r->ready_head;
        must(req->state == RT_REQ_COMPLETE);
        req->state = RT_REQ_IDLE;
        req->done(req);
        n++;
        if (n % CLOCK_EVERY == 0 && turn_is_over(r))
            break;
    }
    return n > 0;
}

static bool run_deferred(struct rt_reactor *r)
{
    struct rt_defer *d = r->defer_head;

    if (d == NULL)
        return false;
    r->defer_head = NULL;
    r->defer_tail = &r->defer_head;
    while (d != NULL) {
        struct rt_defer *next = d->next;

        d->queued = false;
        d->fn(d);
        d = next;
    }
    return true;
}

/* One turn: what has come in, timers, then ready and deferred work until there is none or it is
 * time to look outside again. Returns whether anything was done. */
static bool turn(struct rt_reactor *r, uint64_t timeout_ns)
{
    bool worked = r->rt->ops->poll(r, timeout_ns);

    r->now_ns = r->rt->ops->now();
    worked |= run_inbox(r);
    if (rt_timers_next(r) <= r->now_ns) {
        rt_timers_run(r);
        worked = true;
    }
    for (int round = 0; round < ROUNDS_MAX; round++) {
        bool ran = run_ready(r);

        ran |= run_deferred(r);
        if (!ran)
            break;
        worked = true;
        if (turn_is_over(r))
            break;
    }
    return worked;
}

/* How long the loop may sleep: not at all while there is work or spinning is asked for. */
static uint64_t may_sleep_ns(struct rt_reactor *r)
{
    const struct rt_config *cfg = &r->rt->cfg;
    uint64_t next;

    if (r->ready_head != NULL || r->defer_head != NULL || cfg->poll == RT_POLL_ALWAYS)
        return 0;
    if (cfg->poll == RT_POLL_ADAPTIVE && r->now_ns - r->last_work_ns < cfg->spin_ns)
        return 0;
    next = rt_timers_next(r);
    if (next == UINT64_MAX)
        return UINT64_MAX;
    return next > r->now_ns ? next - r->now_ns : 0;
}

/* Sleeping is announced before the inbox is looked at for the last time: no message is missed. */
static uint64_t go_to_sleep(struct rt_reactor *r, uint64_t timeout_ns)
{
    if (timeout_ns == 0)
        return 0;
    atomic_store(&r->sleeping, true);
    if (atomic_load(&r->inbox) == NULL && !atomic_load(&r->stop))
        return timeout_ns;
    atomic_store(&r->sleeping, false);
    return 0;
}

static void loop(struct rt_reactor *r)
{
    uint64_t timeout_ns = 0;

    r->now_ns = r->last_work_ns = r->rt->ops->now();
    while (!atomic_load_explicit(&r->stop, memory_order_relaxed)) {
        bool slept = timeout_ns > 0;

        if (turn(r, timeout_ns) || slept)
            r->last_work_ns = r->now_ns;
        if (slept)
            atomic_store(&r->sleeping, false);
        timeout_ns = go_to_sleep(r, may_sleep_ns(r));
    }
    /* What was completed and sent last still runs. */
    while (turn(r, 0))
        continue;
}

/* --- making and freeing
 * ------------------------------------------------------------------------------- */

static void fill_defaults(struct rt_config *cfg)
{
    if (cfg->reactors == 0)
        cfg->reactors = 1;
    if (cfg->tasks_max == 0)
        cfg->tasks_max = 4096;
    if (cfg->offload_threads == 0)
        cfg->offload_threads = 4;
    if (cfg->buf_bytes == 0)
        cfg->buf_bytes = 64 * MIB;
    if (cfg->spin_ns == 0)
        cfg->spin_ns = 50 * NS_PER_US;
}

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef RUNNING_ON_VALGRIND
#define RUNNING_ON_VALGRIND 0
#endif

/* Whether the kernel gives us a ring at all. Valgrind 3.19 does, but keeps every other thread from
 * running while one waits in it. */
static bool uring_works(void)
{
    struct rt rt = {.ops = &rt_uring_ops, .nreactors = 1};
    struct rt_reactor r = {.rt = &rt};

    if (RUNNING_ON_VALGRIND)
        return false;
    if (rt_uring_ops.init(&r, NULL) < 0)
        return false;
    rt_uring_ops.fini(&r);
    return true;
}

static const struct rt_backend_ops *choose_backend(enum rt_backend want)
{
    if (want == RT_BACKEND_AUTO)
        want = uring_works() ? RT_BACKEND_URING : RT_BACKEND_EPOLL;
    return want == RT_BACKEND_URING ? &rt_uring_ops : &rt_epoll_ops;
}

static struct rt *rt_new(const struct rt_config *cfg, const struct rt_backend_ops *ops)
{
    struct rt *rt = calloc(1, sizeof(*rt));

    if (rt == NULL)
        return NULL;
    if (cfg != NULL)
        rt->cfg = *cfg;
    fill_defaults(&rt->cfg);
    rt->ops = ops != NULL ? ops : choose_backend(rt->cfg.backend);
    rt->nreactors = rt->cfg.reactors;
    rt->reactors = aligned_alloc(64, rt->nreactors * sizeof(*rt->reactors));
    if (rt->reactors == NULL) {
        free(rt);
        return NULL;
    }
    memset(rt->reactors, 0, rt->nreactors * sizeof(*rt->reactors));
    for (unsigned i = 0; i < rt->nreactors; i++) {
        rt->reactors[i].rt = rt;
        rt->reactors[i].idx = i;
    }
    rt_offload_init(&rt->offload, rt->cfg.offload_threads);
    pthread_mutex_init(&rt->locals_lock, NULL);
    return rt;
}

static void rt_free(struct rt *rt)
{
    while (rt->locals != NULL) {
        struct rt_local *l = rt->locals;

        rt->locals = l->next;
        if (l->allocated)
            free(l);
    }
    pthread_mutex_destroy(&rt->locals_lock);
    free(rt->reactors);
    free(rt);
}

/* On the reactor's thread. */
static int reactor_init(struct rt_reactor *r, struct err *why)
{
    int rc;

    rt_self_reactor = r;
    r->ready_tail = &r->ready_head;
    r->defer_tail = &r->defer_head;
    rt_tasks_init(r);
    rc = rt_bufs_init(r, r->rt->cfg.buf_bytes);
    if (rc < 0)
        return err_set(why, rc, "cannot get %zu MiB for data buffers",
                       (size_t)(r->rt->cfg.buf_bytes / MIB));
    rc = rt_timers_init(r);
    if (rc < 0)
        return err_set(why, rc, "no memory for timers");
    rc = rt_trace_init(r, r->rt->cfg.trace_events);
    if (rc < 0)
        return err_set(why, rc, "no memory for %u trace events", r->rt->cfg.trace_events);
    rc = r->rt->ops->init(r, why);
    if (rc < 0)
        return rc;
    r->now_ns = r->rt->ops->now();
    return 0;
}

static void reactor_fini(struct rt_reactor *r, bool abandon)
{
    rt_self_reactor = r;
    rt_tasks_fini(r, abandon);
    r->rt->ops->fini(r);
    rt_bufs_fini(r);
    rt_timers_fini(r);
    rt_trace_fini(r);
    rt_self_reactor = NULL;
}

static void pin(const struct rt_reactor *r)
{
    const int *cpus = r->rt->cfg.cpus;
    cpu_set_t set;

    if (cpus == NULL)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpus[r->idx], &set);
    pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

int rt_cpu(unsigned idx)
{
    const struct rt *rt = self_must()->rt;

    must(idx < rt->nreactors);
    return rt->cfg.cpus == NULL ? -1 : rt->cfg.cpus[idx];
}

struct start {
    struct rt_reactor *r;
    struct err why;
    int rc;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ready;
};

static void *reactor_main(void *arg)
{
    struct start *start = arg;
    struct rt_reactor *r = start->r;
    char name[16];
    int rc;

    snprintf(name, sizeof(name), "kvasir-%u", r->idx);
    pthread_setname_np(pthread_self(), name);
    pin(r);
    rc = reactor_init(r, &start->why);
    pthread_mutex_lock(&start->lock);
    start->rc = rc;
    start->ready = true;
    pthread_cond_signal(&start->cond);
    pthread_mutex_unlock(&start->lock);
    if (rc == 0)
        loop(r);
    return NULL;
}

/* Starts the reactor on a thread of its own and waits until it is up. Signals stay with the others.
 */
static int reactor_start(struct rt_reactor *r, struct err *why)
{
    struct start start = {
        .r = r, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&r->thread, NULL, reactor_main, &start);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return err_set(why, -rc, "cannot start a thread: %s", strerror(rc));
    r->has_thread = true;
    pthread_mutex_lock(&start.lock);
    while (!start.ready)
        pthread_cond_wait(&start.cond, &start.lock);
    pthread_mutex_unlock(&start.lock);
    if (start.rc < 0 && why != NULL)
        *why = start.why;
    return start.rc;
}

/* Ends the reactors from `first` on: those with threads, all at once. */
static void reactors_stop(struct rt *rt, unsigned first)
{
    for (unsigned i = first; i < rt->nreactors; i++) {
        struct rt_reactor *r = &rt->reactors[i];

        if (!r->has_thread)
            continue;
        atomic_store(&r->stop, true);
        if (r->backend != NULL)
            rt->ops->wake(r);
    }
    for (unsigned i = first; i < rt->nreactors; i++) {
        if (rt->reactors[i].has_thread)
            pthread_join(rt->reactors[i].thread, NULL);
    }
}

static void free_all(struct rt *rt)
{
    /* Before the reactors go: a thread of the pool may still be about to wake one. */
    rt_offload_fini(&rt->offload);
    for (unsigned i = 0; i < rt->nreactors; i++) {
        if (rt->reactors[i].bufs != NULL)
            reactor_fini(&rt->reactors[i], false);
    }
    rt_free(rt);
}

/* --- a program
 * ------------------------------------------------------------------------------------------ */

static void main_done(struct rt_req *req)
{
    (void)req;
    atomic_store(&self_must()->stop, true);
}

int rt_run(const struct rt_config *cfg, rt_task_fn fn, void *arg, struct err *why)
{
    struct rt *rt = rt_new(cfg, NULL);
    struct rt_req done;
    int rc;

    if (rt == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    pin(&rt->reactors[0]);
    rc = reactor_init(&rt->reactors[0], why);
    for (unsigned i = 1; rc == 0 && i < rt->nreactors; i++)
        rc = reactor_start(&rt->reactors[i], why);
    if (rc == 0) {
        rt_self_reactor = &rt->reactors[0];
        rt_req_init(&done, main_done);
        rc = rt_task_start("main", fn, arg, &done, NULL);
        must(rc == 0);
        loop(&rt->reactors[0]);
        rc = done.rc;
    }
    reactors_stop(rt, 1);
    free_all(rt);
    rt_self_reactor = NULL;
    return rc;
}

/* --- a library with threads of its own
 * ------------------------------------------------------------------- */

int rt_start(const struct rt_config *cfg, struct rt **out_rt, struct err *why)
{
    struct rt *rt = rt_new(cfg, NULL);
    int rc = 0;

    if (rt == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    for (unsigned i = 0; rc == 0 && i < rt->nreactors; i++)
        rc = reactor_start(&rt->reactors[i], why);
    if (rc < 0) {
        reactors_stop(rt, 0);
        free_all(rt);
        return rc;
    }
    *out_rt = rt;
    return 0;
}

void rt_stop(struct rt *rt)
{
    must(rt_self_reactor == NULL);
    reactors_stop(rt, 0);
    free_all(rt);
}

struct call {
    struct rt_msg msg;
    struct rt_req done;
    rt_task_fn fn;
    void *arg;
    int rc;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool over;
};

static void call_over(struct call *c, int rc)
{
    pthread_mutex_lock(&c->lock);
    c->rc = rc;
    c->over = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->lock);
}

static void call_done(struct rt_req *req)
{
    call_over(container_of(req, struct call, done), req->rc);
}

static void call_begin(struct rt_msg *msg)
{
    struct call *c = container_of(msg, struct call, msg);
    int rc;

    rt_req_init(&c->done, call_done);
    rc = rt_task_start("call", c->fn, c->arg, &c->done, NULL);
    if (rc < 0)
        call_over(c, rc);
}

int rt_call(struct rt *rt, unsigned idx, rt_task_fn fn, void *arg)
{
    struct call c = {.msg.fn = call_begin,
                     .fn = fn,
                     .arg = arg,
                     .lock = PTHREAD_MUTEX_INITIALIZER,
                     .cond = PTHREAD_COND_INITIALIZER};

    must(idx < rt->nreactors);
    if (rt_self_reactor != NULL)
        return -EDEADLK;
    rt_send(&rt->reactors[idx], &c.msg);
    pthread_mutex_lock(&c.lock);
    while (!c.over)
        pthread_cond_wait(&c.cond, &c.lock);
    pthread_mutex_unlock(&c.lock);
    return c.rc;
}

/* --- somebody else's event loop
 * --------------------------------------------------------------------------- */

int rt_loop_new(const struct rt_config *cfg, struct rt **out_rt, struct err *why)
{
    struct rt_config one = cfg != NULL ? *cfg : (struct rt_config){0};
    struct rt_reactor *before = rt_self_reactor;
    struct rt *rt;
    int rc;

    one.reactors = 1;
    one.cpus = NULL;
    rt = rt_new(&one, NULL);
    if (rt == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    rt->loop_form = true;
    rc = reactor_init(&rt->reactors[0], why);
    rt_self_reactor = before;
    if (rc < 0) {
        free_all(rt);
        return rc;
    }
    *out_rt = rt;
    return 0;
}

int rt_loop_fd(struct rt *rt)
{
    return rt->ops->fd(&rt->reactors[0]);
}

int rt_loop_timeout_ms(struct rt *rt)
{
    struct rt_reactor *r = &rt->reactors[0];
    uint64_t next = rt_timers_next(r);
    uint64_t now = rt->ops->now();

    if (r->ready_head != NULL || r->defer_head != NULL || atomic_load(&r->inbox) != NULL)
        return 0;
    if (next == UINT64_MAX)
        return -1;
    return next <= now ? 0 : (int)MIN((next - now + NS_PER_MS - 1) / NS_PER_MS, 1000000000u);
}

void rt_loop_turn(struct rt *rt)
{
    struct rt_reactor *r = &rt->reactors[0];
    struct rt_reactor *before = rt_self_reactor;

    must(before == NULL);
    rt_self_reactor = r;
    atomic_store(&r->sleeping, false);
    while (turn(r, 0))
        continue;
    atomic_store(&r->sleeping, true);
    rt_self_reactor = NULL;
}

int rt_loop_start(struct rt *rt, const char *name, rt_task_fn fn, void *arg, struct rt_req *done)
{
    struct rt_reactor *before = rt_self_reactor;
    int rc;

    rt_self_reactor = &rt->reactors[0];
    rc = rt_task_start(name, fn, arg, done, NULL);
    rt_self_reactor = before;
    return rc;
}

void rt_loop_enter(struct rt *rt, void (*fn)(void *arg), void *arg)
{
    struct rt_reactor *before = rt_self_reactor;

    must(before == NULL || before == &rt->reactors[0]);
    rt_self_reactor = &rt->reactors[0];
    if (before == NULL)
        rt_self_reactor->now_ns = rt->ops->now();
    fn(arg);
    rt_self_reactor = before;
}

void rt_loop_free(struct rt *rt)
{
    struct rt_reactor *before = rt_self_reactor;

    free_all(rt);
    rt_self_reactor = before;
}

/* --- the simulator
 * ------------------------------------------------------------------------------------------ */

int rt_manual_new(const struct rt_config *cfg, const struct rt_backend_ops *backend,
                  struct rt **out_rt, struct err *why)
{
    struct rt *rt = rt_new(cfg, backend);
    int rc = 0;

    if (rt == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    for (unsigned i = 0; rc == 0 && i < rt->nreactors; i++)
        rc = reactor_init(&rt->reactors[i], why);
    rt_self_reactor = NULL;
    if (rc < 0) {
        free_all(rt);
        return rc;
    }
    *out_rt = rt;
    return 0;
}

bool rt_manual_turn(struct rt *rt, unsigned idx)
{
    bool worked;

    rt_manual_enter(rt, idx);
    worked = turn(&rt->reactors[idx], 0);
    rt_self_reactor = NULL;
    return worked;
}

uint64_t rt_manual_next_timer(struct rt *rt, unsigned idx)
{
    return rt_timers_next(&rt->reactors[idx]);
}

void rt_manual_enter(struct rt *rt, unsigned idx)
{
    must(idx < rt->nreactors);
    rt_self_reactor = &rt->reactors[idx];
}

void rt_manual_free(struct rt *rt, bool abandon)
{
    rt_offload_fini(&rt->offload);
    for (unsigned i = 0; i < rt->nreactors; i++)
        reactor_fini(&rt->reactors[i], abandon);
    rt_free(rt);
}
