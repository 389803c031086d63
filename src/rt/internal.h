/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of src/rt share. Nobody else includes this. */
#ifndef KVASIR_RT_INTERNAL_H
#define KVASIR_RT_INTERNAL_H

#include "rt/backend.h"
#include "rt/buf.h"

#include <pthread.h>
#include <stdatomic.h>

struct rt_bufs;       /* buf.c */
struct rt_trace_ring; /* trace.c */

struct rt_timers {
    struct rt_timer **heap; /* 1-based */
    uint32_t count;
    uint32_t cap;
};

struct rt_reactor {
    struct rt *rt;
    unsigned idx;
    void *backend;
    uint64_t now_ns;
    uint64_t last_work_ns;

    struct rt_req
        *ready_head; /* completed requests, tasks to resume among them: the one run queue */
    struct rt_req **ready_tail;
    struct rt_defer *defer_head;
    struct rt_defer **defer_tail;
    struct rt_timers timers;
    struct rt_bufs *bufs;
    struct rt_trace_ring *trace; /* NULL: not traced */

    struct rt_task *task; /* that runs now */
    void *main_sp;        /* where the loop continues when it parks */
    void *main_fake_stack;
    const void *main_stack;
    size_t main_stack_len;
    void *main_tsan;
    struct list tasks;      /* all that live */
    struct list free_tasks; /* stacks to use again, last in first out */
    uint32_t ntasks;
    uint32_t nstacks;
    uint64_t trace_count;

    uint8_t random[256]; /* what the kernel gave and nobody took yet */
    uint32_t random_left;

    _Alignas(64) _Atomic(struct rt_msg *) inbox; /* pushed by anybody, newest first */
    atomic_bool sleeping;
    atomic_bool stop;
    pthread_t thread;
    bool has_thread;
};

struct rt_offload_pool {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct rt_offload_req *head;
    struct rt_offload_req **tail;
    pthread_t *threads;
    unsigned nthreads;
    unsigned max;
    unsigned idle;
    bool stop;
};

/* One layer's data of this runtime: rt_local(). Never removed before the runtime is freed. */
#define RT_LOCALS_BYTES 4096u
struct rt_local {
    struct rt_local *next;
    const void *key;
    bool allocated;
    _Alignas(max_align_t) uint8_t data[];
};

struct rt {
    struct rt_config cfg; /* defaults filled in */
    const struct rt_backend_ops *ops;
    unsigned nreactors;
    struct rt_reactor *reactors;
    struct rt_offload_pool offload;
    pthread_mutex_t locals_lock;
    struct rt_local *locals;
    /* Room for them, so that making one cannot fail; what is too large for it is allocated. */
    _Alignas(max_align_t) uint8_t locals_room[RT_LOCALS_BYTES];
    size_t locals_used;
    bool loop_form; /* turned by the user's event loop */
};

extern __thread struct rt_reactor *rt_self_reactor;

static inline struct rt_reactor *self_must(void)
{
    struct rt_reactor *r = rt_self_reactor;

    must(r != NULL);
    return r;
}

/* timer.c */
int rt_timers_init(struct rt_reactor *r);
void rt_timers_run(struct rt_reactor *r);
uint64_t rt_timers_next(const struct rt_reactor *r);
void rt_timers_fini(struct rt_reactor *r);

/* task.c */
void rt_tasks_init(struct rt_reactor *r);
void rt_tasks_fini(struct rt_reactor *r, bool abandon);

/* buf.c */
int rt_bufs_init(struct rt_reactor *r, size_t bytes);
void rt_bufs_fini(struct rt_reactor *r);
/* Where the small ones lie; nothing before they are made. */
struct iovec rt_bufs_small(const struct rt_reactor *r);

/* trace.c */
int rt_trace_init(struct rt_reactor *r, unsigned events);
void rt_trace_fini(struct rt_reactor *r);

/* offload.c */
void rt_offload_init(struct rt_offload_pool *pool, unsigned max);
void rt_offload_fini(struct rt_offload_pool *pool);
/* The way of the real backends: a thread of the pool runs it. */
void rt_offload_thread(struct rt_reactor *r, struct rt_offload_req *oreq);

/* io_sys.c: carries an operation out by system calls on the calling thread; its rc. */
int rt_io_sys(struct rt_io *io);
/* ... on a thread of the offload pool. */
void rt_io_offload(struct rt_reactor *r, struct rt_io *io);

/* sock_posix.c: the socket calls of both real backends; a new descriptor goes to sock_attach. */
int rt_posix_listen(struct rt_sock *s, const struct sockaddr *addr, socklen_t len, int backlog);
int rt_posix_accept(struct rt_sock *s);
int rt_posix_connect(struct rt_sock *s, const struct sockaddr *addr, socklen_t len);
int rt_posix_connected(struct rt_sock *s);
ssize_t rt_posix_recv(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);
ssize_t rt_posix_send(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);
ssize_t rt_posix_send_fds(struct rt_sock *s, const struct iovec *iov, const int *fds,
                          unsigned nfds);
int rt_posix_addr(const struct rt_sock *s, bool peer, struct sockaddr_storage *out);
void rt_posix_shutdown(struct rt_sock *s);
void rt_posix_discard(int fd);
uint64_t rt_posix_now(void);
uint64_t rt_posix_wall(void);
void rt_posix_random(void *buf, size_t len);

#endif
