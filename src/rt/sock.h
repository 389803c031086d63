/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream sockets of one reactor. Data moves by calls that never wait (recv and send straight to
 * and from the caller's memory: no copy, and an idle connection holds no buffer); readiness comes
 * as the completion of a request. sim has sockets of its own behind the same calls.
 */
#ifndef KVASIR_RT_SOCK_H
#define KVASIR_RT_SOCK_H

#include "rt/rt.h"

#include <sys/socket.h>
#include <sys/uio.h>

/** Opened by listen, accept or connect; the memory is the caller's and outlives close by nothing.
 */
struct rt_sock {
    int fd;                   /* -1: closed */
    bool readable;            /* recv may have something (or end of stream, or an error) */
    bool writable;            /* send may take something */
    bool hup;                 /* the end of the stream or an error is near: read until you see it */
    struct rt_req *in_waiter; /* of rt_sock_wait_in */
    struct rt_req *out_waiter; /* of rt_sock_wait_out */
    struct rt_reactor *reactor;
    void *slot; /* the backend's own */
};

/** Binds and listens. Returns 0 or a negative errno (-EADDRINUSE and the like pass through). */
int rt_sock_listen(struct rt_sock *s, const struct sockaddr *addr, socklen_t addr_len, int backlog);

/** Takes a connection if one is there: a descriptor for rt_sock_attach() on any reactor; -EAGAIN.
 */
int rt_sock_accept(struct rt_sock *listener);
/** Makes `s` the socket of an accepted descriptor, on the current reactor. Takes the descriptor. */
int rt_sock_attach(struct rt_sock *s, int fd);
/** Closes an accepted descriptor that was never attached. */
void rt_sock_discard(int fd);

/** Connects. Returns 0, -ECONNREFUSED, -EHOSTUNREACH, ...; s is closed on failure. */
int rt_sock_connect(struct rt_task *t, struct rt_sock *s, const struct sockaddr *addr,
                    socklen_t addr_len);

/** Bytes moved; recv 0: the peer has closed; -EAGAIN; other negative errno: the connection is dead.
 */
ssize_t rt_sock_recv(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);
ssize_t rt_sock_send(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);

/**
 * Sends bytes and, with the first of them, descriptors of this process (at most 4) over a Unix
 * socket; they stay open here. -ENOTSUP in sim.
 */
ssize_t rt_sock_send_fds(struct rt_sock *s, const void *buf, size_t len, const int *fds,
                         unsigned nfds);

/**
 * Completes `req` (rc 0) as soon as recv / send may do something; at most one waiter each. Closing
 * the socket completes it with -ECANCELED; so does rt_req_cancel().
 */
void rt_sock_wait_in(struct rt_sock *s, struct rt_req *req);
void rt_sock_wait_out(struct rt_sock *s, struct rt_req *req);

/** The same for tasks. Return 0, -ECANCELED, -ETIMEDOUT. */
int rt_sock_readable(struct rt_task *t, struct rt_sock *s);
int rt_sock_writable(struct rt_task *t, struct rt_sock *s);

int rt_sock_local(const struct rt_sock *s, struct sockaddr_storage *out_addr);
int rt_sock_peer(const struct rt_sock *s, struct sockaddr_storage *out_addr);

/** Sends FIN; what was sent before still arrives. */
void rt_sock_shutdown(struct rt_sock *s);
/** Closes at once. Accepts a closed or zeroed-with-fd--1 socket. Never waits. */
void rt_sock_close(struct rt_sock *s);

#endif
