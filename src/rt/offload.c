/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded pool of threads for what cannot be made asynchronous. Threads start when needed. */
#include "rt/internal.h"

#include <signal.h>

void rt_offload_init(struct rt_offload_pool *pool, unsigned max)
{
    *pool = (struct rt_offload_pool){.max = max};
    pool->tail = &pool->head;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
}

void rt_offload_fini(struct rt_offload_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->nthreads; i++)
        pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
}

static void offload_back(struct rt_msg *msg)
{
    struct rt_offload_req *o = container_of(msg, struct rt_offload_req, msg);

    rt_req_complete(&o->req, o->fn_rc);
}

static void *offload_main(void *arg)
{
    struct rt_offload_pool *pool = arg;

    pthread_setname_np(pthread_self(), "kvasir-offload");
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct rt_offload_req *o;

        while (pool->head == NULL && !pool->stop) {
            pool->idle++;
            pthread_cond_wait(&pool->more, &pool->lock);
            pool->idle--;
        }
        o = pool->head;
        if (o == NULL)
            break;
        pool->head = o->next;
        if (pool->head == NULL)
            pool->tail = &pool->head;
        pthread_mutex_unlock(&pool->lock);
        o->fn_rc = o->fn(o->arg);
        o->msg.fn = offload_back;
        rt_send(o->reactor, &o->msg);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* One more thread, if the bound allows. Without any thread the work cannot be done: that is fatal.
 */
static void offload_grow(struct rt_offload_pool *pool)
{
    sigset_t all, old;

    if (pool->threads == NULL)
        pool->threads = calloc(pool->max, sizeof(*pool->threads));
    must(pool->threads != NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&pool->threads[pool->nthreads], NULL, offload_main, pool) == 0)
        pool->nthreads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    must(pool->nthreads > 0);
}

void rt_offload_thread(struct rt_reactor *r, struct rt_offload_req *o)
{
    struct rt_offload_pool *pool = &r->rt->offload;

    o->reactor = r;
    o->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->tail = o;
    pool->tail = &o->next;
    if (pool->idle == 0 && pool->nthreads < pool->max)
        offload_grow(pool);
    pthread_cond_signal(&pool->more);
    pthread_mutex_unlock(&pool->lock);
}

void rt_offload_submit(struct rt_offload_req *o)
{
    struct rt_reactor *r = self_must();

    rt_req_begin(&o->req);
    r->rt->ops->offload(r, o);
}

int rt_offload(struct rt_task *t, int (*fn)(void *arg), void *arg)
{
    struct rt_offload_req o = {.fn = fn, .arg = arg};

    rt_req_init_task(&o.req, t);
    rt_offload_submit(&o);
    return rt_wait(t, &o.req);
}
