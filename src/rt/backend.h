/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam below the runtime: clock, sleeping, sockets, files, threads. Three implementations:
 * io_uring (uring.c), epoll with the offload pool (epoll.c), and the simulator (sim/). Private to
 * src/rt and sim/; everything above speaks rt.h, io.h and sock.h.
 */
#ifndef KVASIR_RT_BACKEND_H
#define KVASIR_RT_BACKEND_H

#include "rt/io.h"
#include "rt/rt.h"
#include "rt/sock.h"

struct rt_backend_ops {
    const char *name;

    /* Once per reactor, on its thread. `r->backend` is the implementation's. */
    int (*init)(struct rt_reactor *r, struct err *why);
    void (*fini)(struct rt_reactor *r);

    /* Takes in what has happened: completes requests (rt_req_complete), sets sockets readable and
     * writable. timeout_ns 0: only look; UINT64_MAX: sleep until something happens; else at most so
     * long. Returns whether anything had happened. */
    bool (*poll)(struct rt_reactor *r, uint64_t timeout_ns);
    /* Ends a sleep of poll, from any thread. */
    void (*wake)(struct rt_reactor *r);

    /* A descriptor that is readable when poll has something to take in; NULL in sim. */
    int (*fd)(struct rt_reactor *r);

    void (*io_submit)(struct rt_reactor *r, struct rt_io *io);
    void (*io_cancel)(struct rt_reactor *r, struct rt_io *io); /* may do nothing */
    void (*fd_wait)(struct rt_reactor *r,
                    struct rt_io *io); /* until io->fd is readable; io->op unused */
    void (*offload)(struct rt_reactor *r, struct rt_offload_req *oreq);

    int (*sock_listen)(struct rt_sock *s, const struct sockaddr *addr, socklen_t len, int backlog);
    int (*sock_accept)(struct rt_sock *s);
    int (*sock_attach)(struct rt_sock *s, int fd);
    void (*sock_discard)(int fd);
    /* 0 connected, -EINPROGRESS: wait until writable, then sock_connected(), or a failure. */
    int (*sock_connect)(struct rt_sock *s, const struct sockaddr *addr, socklen_t len);
    int (*sock_connected)(struct rt_sock *s);
    ssize_t (*sock_recv)(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);
    ssize_t (*sock_send)(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);
    /* NULL: descriptors cannot be sent. */
    ssize_t (*sock_send_fds)(struct rt_sock *s, const struct iovec *iov, const int *fds,
                             unsigned nfds);
    /* Sees to it that `readable` / `writable` will be set; called when a waiter was added. */
    void (*sock_arm)(struct rt_sock *s);
    int (*sock_addr)(const struct rt_sock *s, bool peer, struct sockaddr_storage *out);
    void (*sock_shutdown)(struct rt_sock *s);
    void (*sock_close)(struct rt_sock *s);

    uint64_t (*now)(void);
    uint64_t (*wall)(void);
    void (*random)(void *buf, size_t len);
};

extern const struct rt_backend_ops rt_uring_ops;
extern const struct rt_backend_ops rt_epoll_ops;

/** A reactor's data for its backend: set by init, cleared by fini. */
void *rt_backend_of(const struct rt_reactor *r);
void rt_backend_set(struct rt_reactor *r, void *backend);

/** Called by backends: something may be read from or written to the socket. Completes waiters. */
void rt_sock_ready(struct rt_sock *s, bool in, bool out);

/**
 * For sim: a runtime whose reactors are all turned by the calling thread. rt_manual_turn() makes
 * one reactor run what is ready (polling its backend once, without sleep) and says whether it did
 * anything; rt_manual_next_timer() is the earliest deadline, UINT64_MAX when there is none.
 */
int rt_manual_new(const struct rt_config *cfg, const struct rt_backend_ops *ops, struct rt **out_rt,
                  struct err *why);
bool rt_manual_turn(struct rt *rt, unsigned idx);
uint64_t rt_manual_next_timer(struct rt *rt, unsigned idx);
/** Makes `idx` the calling thread's reactor, so that tasks can be started and messages sent. */
void rt_manual_enter(struct rt *rt, unsigned idx);
/**
 * Frees the runtime. With `abandon` whatever still runs is dropped where it stands (a crash):
 * tasks' stacks are freed without unwinding, requests never complete.
 */
void rt_manual_free(struct rt *rt, bool abandon);

#endif
