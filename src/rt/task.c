/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks. Each lives at the top of its own stack; a parked one is a saved stack pointer. The loop
 * resumes a task when the request it waits for is dispatched, so there is one run queue for all.
 */
#include "rt/internal.h"

#include "rt/switch.h"

#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define RT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define RT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RT_TSAN 1
#endif
#endif

#ifdef RT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES (128 * KIB)
#else
#define STACK_BYTES (32 * KIB)
#endif
#ifdef RT_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define RT_VALGRIND 1
#endif
#endif

#define GUARD_BYTES 4096
#define STAGGER_STEPS 16
#define STAGGER_BYTES 192 /* so that the hot frames of many tasks use different cache sets */

struct rt_task {
    struct rt_req run; /* queued to begin or to go on after a yield */
    void *sp;
    const char *name;
    rt_task_fn fn;
    void *arg;
    struct rt_req *done;    /* completes with fn's result; may be NULL */
    struct rt_req *waiting; /* parked on this */
    struct list link;       /* reactor's tasks, or free_tasks */
    struct rt_timer deadline;
    uint64_t trace_id;
    int cancel_rc;
    unsigned shield;
    int rc;
    bool finished;
    uint8_t *map; /* guard page, then the stack, then this struct */
    size_t map_len;
    uint8_t *stack;
    size_t stack_len;
    void *fake_stack; /* ASan */
    void *tsan;
    unsigned valgrind_id;
};

/* --- changing stacks, with the sanitizers told --------------------------------------------------
 */

static void switch_to_task(struct rt_reactor *r, struct rt_task *t)
{
    r->task = t;
#ifdef RT_ASAN
    __sanitizer_start_switch_fiber(&r->main_fake_stack, t->stack, t->stack_len);
#endif
#ifdef RT_TSAN
    r->main_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(t->tsan, 0);
#endif
    rt_switch(&r->main_sp, t->sp);
#ifdef RT_ASAN
    __sanitizer_finish_switch_fiber(r->main_fake_stack, NULL, NULL);
#endif
    r->task = NULL;
}

static void switch_to_loop(struct rt_reactor *r, struct rt_task *t)
{
#ifdef RT_ASAN
    __sanitizer_start_switch_fiber(t->finished ? NULL : &t->fake_stack, r->main_stack,
                                   r->main_stack_len);
#endif
#ifdef RT_TSAN
    __tsan_switch_to_fiber(r->main_tsan, 0);
#endif
    rt_switch(&t->sp, r->main_sp);
#ifdef RT_ASAN
    __sanitizer_finish_switch_fiber(t->fake_stack, &r->main_stack, &r->main_stack_len);
#endif
}

static void task_entry(void *arg)
{
    struct rt_task *t = arg;
    struct rt_reactor *r = self_must();

#ifdef RT_ASAN
    __sanitizer_finish_switch_fiber(NULL, &r->main_stack, &r->main_stack_len);
#endif
    t->rc = t->fn(t, t->arg);
    t->finished = true;
    switch_to_loop(r, t);
    must(!"a finished task was resumed");
}

/* --- stacks -------------------------------------------------------------------------------------
 */

static struct rt_task *task_new(struct rt_reactor *r)
{
    size_t len = GUARD_BYTES + STACK_BYTES;
    uint8_t *map = mmap(NULL, len, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    struct rt_task *t;
    uint8_t *end;

    if (map == MAP_FAILED)
        return NULL;
    if (mprotect(map, GUARD_BYTES, PROT_NONE) != 0) {
        munmap(map, len);
        return NULL;
    }
    end = map + len - (r->nstacks % STAGGER_STEPS) * STAGGER_BYTES;
    t = (struct rt_task *)(((uintptr_t)end - sizeof(*t)) & ~(uintptr_t)63);
    t->map = map;
    t->map_len = len;
    t->stack = map + GUARD_BYTES;
    t->stack_len = (size_t)((uint8_t *)t - t->stack);
#ifdef RT_VALGRIND
    t->valgrind_id = VALGRIND_STACK_REGISTER(t->stack, t->stack + t->stack_len);
#endif
    r->nstacks++;
    return t;
}

static void task_free(struct rt_task *t)
{
#ifdef RT_VALGRIND
    VALGRIND_STACK_DEREGISTER(t->valgrind_id);
#endif
#ifdef RT_ASAN
    __asan_unpoison_memory_region(t->stack, t->stack_len);
#endif
    munmap(t->map, t->map_len);
}

static struct rt_task *task_get(struct rt_reactor *r)
{
    struct rt_task *t = list_pop_entry(&r->free_tasks, struct rt_task, link);
    struct rt_task kept;

    if (t == NULL && r->ntasks < r->rt->cfg.tasks_max)
        t = task_new(r);
    if (t == NULL)
        return NULL;
    kept = (struct rt_task){.map = t->map,
                            .map_len = t->map_len,
                            .stack = t->stack,
                            .stack_len = t->stack_len,
                            .valgrind_id = t->valgrind_id};
    *t = kept;
    r->ntasks++;
    list_init(&t->link);
    list_add_tail(&r->tasks, &t->link);
    return t;
}

static void task_put(struct rt_reactor *r, struct rt_task *t)
{
#ifdef RT_TSAN
    __tsan_destroy_fiber(t->tsan);
#endif
#ifdef RT_ASAN
    __asan_unpoison_memory_region(t->stack, t->stack_len);
#endif
    list_del(&t->link);
    list_add_head(&r->free_tasks, &t->link);
    r->ntasks--;
}

void rt_tasks_init(struct rt_reactor *r)
{
    list_init(&r->tasks);
    list_init(&r->free_tasks);
}

void rt_tasks_fini(struct rt_reactor *r, bool abandon)
{
    struct rt_task *t;

    must(abandon || list_empty(&r->tasks));
    while ((t = list_pop_entry(&r->tasks, struct rt_task, link)) != NULL)
        task_free(t);
    while ((t = list_pop_entry(&r->free_tasks, struct rt_task, link)) != NULL)
        task_free(t);
}

/* --- life ---------------------------------------------------------------------------------------
 */

static void task_resume(struct rt_task *t)
{
    struct rt_reactor *r = self_must();
    struct rt_req *done = t->done;

    must(r->task == NULL);
    switch_to_task(r, t);
    if (!t->finished)
        return;
    rt_timer_stop(&t->deadline);
    if (done != NULL)
        rt_req_complete(done, t->rc);
    task_put(r, t);
}

static void task_run_done(struct rt_req *req)
{
    task_resume(container_of(req, struct rt_task, run));
}

int rt_task_start(const char *name, rt_task_fn fn, void *arg, struct rt_req *done,
                  struct rt_task **out_task)
{
    struct rt_reactor *r = self_must();
    struct rt_task *t = task_get(r);

    if (t == NULL)
        return -ENOMEM;
    t->name = name;
    t->fn = fn;
    t->arg = arg;
    t->done = done;
    t->trace_id = r->task != NULL ? r->task->trace_id : 0;
#ifdef RT_TSAN
    t->tsan = __tsan_create_fiber(0);
#endif
    t->sp = rt_switch_make(t->stack, t->stack_len, task_entry, t);
    if (done != NULL)
        rt_req_begin(done);
    if (out_task != NULL)
        *out_task = t;
    rt_req_init(&t->run, task_run_done);
    rt_req_begin(&t->run);
    rt_req_complete(&t->run, 0);
    return 0;
}

struct rt_task *rt_task_self(void)
{
    return rt_self_reactor != NULL ? rt_self_reactor->task : NULL;
}

static void task_req_done(struct rt_req *req)
{
    struct rt_task *t = req->task;

    if (t->waiting == req)
        task_resume(t);
}

void rt_req_init_task(struct rt_req *req, struct rt_task *t)
{
    rt_req_init(req, task_req_done);
    req->task = t;
    req->trace_id = t->trace_id;
}

static void park(struct rt_task *t, struct rt_req *req)
{
    t->waiting = req;
    switch_to_loop(self_must(), t);
    t->waiting = NULL;
}

static bool wants_end(const struct rt_task *t)
{
    return t->cancel_rc != 0 && t->shield == 0;
}

int rt_wait(struct rt_task *t, struct rt_req *req)
{
    must(rt_task_self() == t);
    if (req->state == RT_REQ_PENDING && wants_end(t))
        rt_req_cancel(req);
    while (req->state != RT_REQ_IDLE)
        park(t, req);
    if (req->rc == -ECANCELED && wants_end(t))
        return t->cancel_rc;
    return req->rc;
}

int rt_yield(struct rt_task *t)
{
    must(rt_task_self() == t);
    rt_req_begin(&t->run);
    rt_req_complete(&t->run, 0);
    park(t, NULL);
    return wants_end(t) ? t->cancel_rc : 0;
}

void rt_task_cancel(struct rt_task *t)
{
    if (t->cancel_rc == 0)
        t->cancel_rc = -ECANCELED;
    if (t->waiting != NULL && wants_end(t))
        rt_req_cancel(t->waiting);
}

bool rt_task_cancelled(const struct rt_task *t)
{
    return t->cancel_rc != 0;
}

void rt_task_shield(struct rt_task *t, bool on)
{
    must(on || t->shield > 0);
    t->shield += on ? 1u : -1u;
}

static void deadline_passed(struct rt_timer *timer)
{
    struct rt_task *t = container_of(timer, struct rt_task, deadline);

    if (t->cancel_rc == 0)
        t->cancel_rc = -ETIMEDOUT;
    if (t->waiting != NULL && wants_end(t))
        rt_req_cancel(t->waiting);
}

void rt_task_deadline(struct rt_task *t, uint64_t at_ns)
{
    if (t->cancel_rc == -ETIMEDOUT)
        t->cancel_rc = 0;
    t->deadline.fn = deadline_passed;
    if (at_ns == 0)
        rt_timer_stop(&t->deadline);
    else
        rt_timer_start(&t->deadline, at_ns);
}

uint64_t rt_task_deadline_at(const struct rt_task *t)
{
    return t->deadline.heap_pos != 0 ? t->deadline.at_ns : 0;
}

void rt_task_set_trace(struct rt_task *t, uint64_t trace_id)
{
    t->trace_id = trace_id;
}

/* --- small things to wait for -------------------------------------------------------------------
 */

struct sleeper {
    struct rt_req req;
    struct rt_timer timer;
};

static void sleep_over(struct rt_timer *timer)
{
    rt_req_complete(&container_of(timer, struct sleeper, timer)->req, 0);
}

static void sleep_cancel(struct rt_req *req)
{
    struct sleeper *s = container_of(req, struct sleeper, req);

    rt_timer_stop(&s->timer);
    rt_req_complete(req, -ECANCELED);
}

int rt_sleep(struct rt_task *t, uint64_t ns)
{
    struct sleeper s = {.timer.fn = sleep_over};

    rt_req_init_task(&s.req, t);
    s.req.cancel = sleep_cancel;
    rt_req_begin(&s.req);
    rt_timer_start(&s.timer, rt_now() + ns);
    return rt_wait(t, &s.req);
}

struct cond_waiter {
    struct rt_req req;
    struct list link;
};

static void cond_cancel(struct rt_req *req)
{
    struct cond_waiter *w = container_of(req, struct cond_waiter, req);

    list_del(&w->link);
    rt_req_complete(req, -ECANCELED);
}

int rt_cond_wait(struct rt_task *t, struct rt_cond *c)
{
    struct cond_waiter w = {0};

    if (c->waiters.next == NULL)
        list_init(&c->waiters);
    rt_req_init_task(&w.req, t);
    w.req.cancel = cond_cancel;
    rt_req_begin(&w.req);
    list_add_tail(&c->waiters, &w.link);
    return rt_wait(t, &w.req);
}

void rt_cond_wake_one(struct rt_cond *c)
{
    struct cond_waiter *w = list_pop_entry(&c->waiters, struct cond_waiter, link);

    if (w != NULL)
        rt_req_complete(&w->req, 0);
}

void rt_cond_wake_all(struct rt_cond *c)
{
    while (!list_empty(&c->waiters))
        rt_cond_wake_one(c);
}

/* --- another reactor ----------------------------------------------------------------------------
 */

struct on_call {
    struct rt_req req;  /* the caller waits for this, at home */
    struct rt_req done; /* the task there */
    struct rt_msg msg;
    struct rt_reactor *home;
    rt_task_fn fn;
    void *arg;
    int rc;
};

static void on_back(struct rt_msg *msg)
{
    struct on_call *c = container_of(msg, struct on_call, msg);

    rt_req_complete(&c->req, c->rc);
}

static void on_return(struct on_call *c, int rc)
{
    c->rc = rc;
    c->msg.fn = on_back;
    rt_send(c->home, &c->msg);
}

static void on_done(struct rt_req *req)
{
    on_return(container_of(req, struct on_call, done), req->rc);
}

static void on_begin(struct rt_msg *msg)
{
    struct on_call *c = container_of(msg, struct on_call, msg);
    int rc;

    rt_req_init(&c->done, on_done);
    rc = rt_task_start("on", c->fn, c->arg, &c->done, NULL);
    if (rc < 0)
        on_return(c, rc);
}

int rt_on(struct rt_task *t, struct rt_reactor *r, rt_task_fn fn, void *arg)
{
    struct on_call c = {.home = rt_self(), .fn = fn, .arg = arg, .msg.fn = on_begin};

    if (r == c.home)
        return fn(t, arg);
    rt_req_init_task(&c.req, t);
    rt_req_begin(&c.req);
    rt_send(r, &c.msg);
    return rt_wait(t, &c.req);
}
