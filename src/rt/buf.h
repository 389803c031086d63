/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data buffers of a reactor: two sizes, carved from one region of rt_config.buf_bytes at start,
 * 4 KiB aligned (O_DIRECT). Nothing on the data path allocates: whoever finds the pool empty
 * waits in line. A holder that itself waits for a peer can be asked to give up its buffer.
 */
#ifndef KVASIR_RT_BUF_H
#define KVASIR_RT_BUF_H

#include "rt/rt.h"

#define RT_BUF_SMALL_BYTES 8192u
#define RT_BUF_LARGE_BYTES 131072u

struct rt_buf {
    uint8_t *data;
    uint32_t size_bytes; /* RT_BUF_SMALL_BYTES or RT_BUF_LARGE_BYTES */
    struct list link;    /* free list */
};

/** A buffer of the smaller size that holds `len` (more than LARGE: a large one), or NULL. */
struct rt_buf *rt_buf_get(size_t len);
void rt_buf_put(struct rt_buf *buf);
/** For CLEANUP. */
void rt_buf_put_p(struct rt_buf **pbuf);

/** In line for a buffer: `req` completes with rc 0 and `buf` set. Cancel by rt_buf_unwait(). */
struct rt_buf_waiter {
    struct rt_req req;
    size_t len;
    struct rt_buf *buf;
    struct list link;
};
void rt_buf_wait(struct rt_buf_waiter *w);
/** Leaves the line: the request completes with -ECANCELED, or has completed with a buffer. */
void rt_buf_unwait(struct rt_buf_waiter *w);

/** For tasks: a buffer, or NULL when cancelled. */
struct rt_buf *rt_buf_take(struct rt_task *t, size_t len);

/**
 * A holder that can let go: while it waits for its peer it lists itself here, and `yield` is
 * called (from the loop) when somebody stands in line for a buffer of that size: it passes on
 * what it has and puts the buffer back as soon as it can.
 */
struct rt_buf_holder {
    void (*yield)(struct rt_buf_holder *h);
    uint32_t size_bytes;
    struct list link;
};
void rt_buf_idle(struct rt_buf_holder *h);
void rt_buf_busy(struct rt_buf_holder *h);

struct rt_buf_stats {
    uint32_t small_total, small_free, large_total, large_free, waiting;
};
void rt_buf_stats(struct rt_buf_stats *out);

/** Fixed-size objects of one owner: made at start, taken and given back without allocation. */
struct rt_pool {
    size_t obj_bytes;
    uint32_t total;
    uint32_t free;
    uint8_t *memory;
    void **free_objs; /* stack of `free` pointers */
};
/** Zeroes the objects once, here; later they are as they were put back. 0 or -ENOMEM. */
int rt_pool_init(struct rt_pool *p, size_t obj_bytes, uint32_t count);
/** Every object has to be back. */
void rt_pool_fini(struct rt_pool *p);
/** NULL when none is left. */
void *rt_pool_get(struct rt_pool *p);
void rt_pool_put(struct rt_pool *p, void *obj);

#endif
