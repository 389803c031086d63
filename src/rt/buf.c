/* SPDX-License-Identifier: Apache-2.0 */
#include "rt/internal.h"

#include <string.h>
#include <sys/mman.h>

enum { SMALL, LARGE, CLASSES };
static const uint32_t class_bytes[CLASSES] = {RT_BUF_SMALL_BYTES, RT_BUF_LARGE_BYTES};

struct buf_class {
    struct list free;
    struct list waiters; /* rt_buf_waiter, in order of arrival */
    struct list idle;    /* rt_buf_holder that can let go */
    uint32_t total;
    uint32_t nfree;
    uint32_t nwaiting;
};

struct rt_bufs {
    struct buf_class cls[CLASSES];
    struct rt_req ask; /* asks idle holders from the loop */
    uint8_t *region;
    size_t region_len;
    struct rt_buf *bufs;
};

static struct rt_bufs *self_bufs(void)
{
    return self_must()->bufs;
}

static struct buf_class *class_of(size_t len)
{
    return &self_bufs()->cls[len <= RT_BUF_SMALL_BYTES ? SMALL : LARGE];
}

/* Those who wait are served by those who hold and do not need, one for one. */
static void ask_done(struct rt_req *req)
{
    struct rt_bufs *b = container_of(req, struct rt_bufs, ask);

    for (int c = 0; c < CLASSES; c++) {
        for (uint32_t n = b->cls[c].nwaiting; n > 0; n--) {
            struct rt_buf_holder *h = list_pop_entry(&b->cls[c].idle, struct rt_buf_holder, link);

            if (h == NULL)
                break;
            h->yield(h);
        }
    }
}

static void ask_holders(struct rt_bufs *b)
{
    if (b->ask.state != RT_REQ_IDLE)
        return;
    rt_req_begin(&b->ask);
    rt_req_complete(&b->ask, 0);
}

int rt_bufs_init(struct rt_reactor *r, size_t bytes)
{
    struct rt_bufs *b = calloc(1, sizeof(*b));
    uint32_t count[CLASSES];
    struct rt_buf *next;
    uint8_t *at;

    if (b == NULL)
        return -ENOMEM;
    r->bufs = b;
    rt_req_init(&b->ask, ask_done);
    count[SMALL] = (uint32_t)MAX(bytes / 4 / RT_BUF_SMALL_BYTES, 16u);
    count[LARGE] = (uint32_t)MAX(bytes / 4 * 3 / RT_BUF_LARGE_BYTES, 4u);
    b->region_len =
        (size_t)count[SMALL] * RT_BUF_SMALL_BYTES + (size_t)count[LARGE] * RT_BUF_LARGE_BYTES;
    b->region =
        mmap(NULL, b->region_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    b->bufs = calloc(count[SMALL] + count[LARGE], sizeof(*b->bufs));
    if (b->region == MAP_FAILED || b->bufs == NULL)
        return -ENOMEM;
    at = b->region;
    next = b->bufs;
    for (int c = 0; c < CLASSES; c++) {
        struct buf_class *k = &b->cls[c];

        list_init(&k->free);
        list_init(&k->waiters);
        list_init(&k->idle);
        k->total = k->nfree = count[c];
        for (uint32_t i = 0; i < count[c]; i++, next++, at += class_bytes[c]) {
            *next = (struct rt_buf){.data = at, .size_bytes = class_bytes[c]};
            list_add_tail(&k->free, &next->link);
        }
    }
    return 0;
}

void rt_bufs_fini(struct rt_reactor *r)
{
    struct rt_bufs *b = r->bufs;

    if (b == NULL)
        return;
    if (b->region != NULL && b->region != MAP_FAILED)
        munmap(b->region, b->region_len);
    free(b->bufs);
    free(b);
    r->bufs = NULL;
}

struct iovec rt_bufs_small(const struct rt_reactor *r)
{
    const struct rt_bufs *b = r->bufs;

    if (b == NULL)
        return (struct iovec){0};
    return (struct iovec){b->region, (size_t)b->cls[SMALL].total * RT_BUF_SMALL_BYTES};
}

struct rt_buf *rt_buf_get(size_t len)
{
    struct buf_class *k = class_of(len);
    struct rt_buf *buf;

    if (UNLIKELY(!list_empty(&k->waiters)))
        return NULL;
    buf = list_pop_entry(&k->free, struct rt_buf, link);
    if (LIKELY(buf != NULL))
        k->nfree--;
    return buf;
}

void rt_buf_put(struct rt_buf *buf)
{
    struct buf_class *k = class_of(buf->size_bytes);
    struct rt_buf_waiter *w = list_pop_entry(&k->waiters, struct rt_buf_waiter, link);

    if (w != NULL) {
        k->nwaiting--;
        w->buf = buf;
        rt_req_complete(&w->req, 0);
        return;
    }
    list_add_head(&k->free, &buf->link);
    k->nfree++;
}

void rt_buf_put_p(struct rt_buf **pbuf)
{
    if (*pbuf != NULL)
        rt_buf_put(*pbuf);
}

void rt_buf_wait(struct rt_buf_waiter *w)
{
    struct buf_class *k = class_of(w->len);

    rt_req_begin(&w->req);
    w->buf = rt_buf_get(w->len);
    if (w->buf != NULL) {
        rt_req_complete(&w->req, 0);
        return;
    }
    list_init(&w->link);
    list_add_tail(&k->waiters, &w->link);
    k->nwaiting++;
    if (!list_empty(&k->idle))
        ask_holders(self_bufs());
}

void rt_buf_unwait(struct rt_buf_waiter *w)
{
    if (w->req.state != RT_REQ_PENDING)
        return;
    list_del(&w->link);
    class_of(w->len)->nwaiting--;
    rt_req_complete(&w->req, -ECANCELED);
}

static void buf_wait_cancel(struct rt_req *req)
{
    rt_buf_unwait(container_of(req, struct rt_buf_waiter, req));
}

struct rt_buf *rt_buf_take(struct rt_task *t, size_t len)
{
    struct rt_buf_waiter w = {.len = len};

    rt_req_init_task(&w.req, t);
    w.req.cancel = buf_wait_cancel;
    rt_buf_wait(&w);
    rt_wait(t, &w.req);
    return w.buf;
}

void rt_buf_idle(struct rt_buf_holder *h)
{
    struct buf_class *k = class_of(h->size_bytes);

    list_del(&h->link);
    list_add_tail(&k->idle, &h->link);
    if (k->nwaiting > 0)
        ask_holders(self_bufs());
}

void rt_buf_busy(struct rt_buf_holder *h)
{
    list_del(&h->link);
}

void rt_buf_stats(struct rt_buf_stats *out)
{
    const struct rt_bufs *b = self_bufs();

    *out = (struct rt_buf_stats){
        .small_total = b->cls[SMALL].total,
        .small_free = b->cls[SMALL].nfree,
        .large_total = b->cls[LARGE].total,
        .large_free = b->cls[LARGE].nfree,
        .waiting = b->cls[SMALL].nwaiting + b->cls[LARGE].nwaiting,
    };
}

int rt_pool_init(struct rt_pool *p, size_t obj_bytes, uint32_t count)
{
    *p = (struct rt_pool){.obj_bytes = round_up_u64(obj_bytes, 64), .total = count, .free = count};
    p->memory = aligned_alloc(64, p->obj_bytes * MAX(count, 1u));
    p->free_objs = malloc(sizeof(void *) * MAX(count, 1u));
    if (p->memory == NULL || p->free_objs == NULL) {
        p->free = p->total;
        rt_pool_fini(p);
        return -ENOMEM;
    }
    memset(p->memory, 0, p->obj_bytes * count);
    for (uint32_t i = 0; i < count; i++)
        p->free_objs[i] = p->memory + (size_t)(count - 1 - i) * p->obj_bytes;
    return 0;
}

void rt_pool_fini(struct rt_pool *p)
{
    must(p->free == p->total);
    free(p->memory);
    free(p->free_objs);
    *p = (struct rt_pool){0};
}

void *rt_pool_get(struct rt_pool *p)
{
    return p->free > 0 ? p->free_objs[--p->free] : NULL;
}

void rt_pool_put(struct rt_pool *p, void *obj)
{
    must(p->free < p->total);
    p->free_objs[p->free++] = obj;
}
