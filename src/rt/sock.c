/* SPDX-License-Identifier: Apache-2.0 */
#include "rt/sock.h"

#include "rt/internal.h"

static const struct rt_backend_ops *ops(void)
{
    return self_must()->rt->ops;
}

int rt_sock_listen(struct rt_sock *s, const struct sockaddr *addr, socklen_t addr_len, int backlog)
{
    *s = (struct rt_sock){.fd = -1, .reactor = self_must()};
    return ops()->sock_listen(s, addr, addr_len, backlog);
}

int rt_sock_accept(struct rt_sock *listener)
{
    int fd = ops()->sock_accept(listener);

    if (fd == -EAGAIN)
        listener->readable = false;
    return fd;
}

int rt_sock_attach(struct rt_sock *s, int fd)
{
    *s = (struct rt_sock){.fd = -1, .reactor = self_must(), .readable = true, .writable = true};
    return ops()->sock_attach(s, fd);
}

void rt_sock_discard(int fd)
{
    ops()->sock_discard(fd);
}

int rt_sock_connect(struct rt_task *t, struct rt_sock *s, const struct sockaddr *addr,
                    socklen_t addr_len)
{
    int rc;

    *s = (struct rt_sock){.fd = -1, .reactor = self_must()};
    rc = ops()->sock_connect(s, addr, addr_len);
    if (rc == -EINPROGRESS) {
        rc = rt_sock_writable(t, s);
        if (rc == 0)
            rc = ops()->sock_connected(s);
    }
    if (rc < 0) {
        rt_sock_close(s);
        return rc;
    }
    s->readable = true;
    s->writable = true;
    return 0;
}

ssize_t rt_sock_recv(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt)
{
    ssize_t n;

    if (s->fd < 0)
        return -ECONNRESET;
    n = ops()->sock_recv(s, iov, iovcnt);
    if (n == -EAGAIN)
        s->readable = false;
    return n;
}

ssize_t rt_sock_send(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt)
{
    ssize_t n;

    if (s->fd < 0)
        return -ECONNRESET;
    n = ops()->sock_send(s, iov, iovcnt);
    if (n == -EAGAIN)
        s->writable = false;
    return n;
}

ssize_t rt_sock_send_fds(struct rt_sock *s, const void *buf, size_t len, const int *fds,
                         unsigned nfds)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    ssize_t n;

    if (s->fd < 0)
        return -ECONNRESET;
    if (ops()->sock_send_fds == NULL)
        return -ENOTSUP;
    n = ops()->sock_send_fds(s, &iov, fds, nfds);
    if (n == -EAGAIN)
        s->writable = false;
    return n;
}

/* A waiter knows its socket by the `next` link, which is free while the request is pending. */
static void wait_cancel(struct rt_req *req)
{
    struct rt_sock *s = (struct rt_sock *)req->next;

    if (s->in_waiter == req)
        s->in_waiter = NULL;
    else if (s->out_waiter == req)
        s->out_waiter = NULL;
    else
        return;
    rt_req_complete(req, -ECANCELED);
}

static void wait_for(struct rt_sock *s, struct rt_req *req, struct rt_req **waiter, bool ready)
{
    rt_req_begin(req);
    if (s->fd < 0) {
        rt_req_complete(req, -ECANCELED);
        return;
    }
    if (ready) {
        rt_req_complete(req, 0);
        return;
    }
    must(*waiter == NULL);
    *waiter = req;
    req->cancel = wait_cancel;
    req->next = (struct rt_req *)s;
    ops()->sock_arm(s);
}

void rt_sock_wait_in(struct rt_sock *s, struct rt_req *req)
{
    wait_for(s, req, &s->in_waiter, s->readable);
}

void rt_sock_wait_out(struct rt_sock *s, struct rt_req *req)
{
    wait_for(s, req, &s->out_waiter, s->writable);
}

static void wake(struct rt_req **waiter, int rc)
{
    struct rt_req *req = *waiter;

    if (req == NULL)
        return;
    *waiter = NULL;
    rt_req_complete(req, rc);
}

void rt_sock_ready(struct rt_sock *s, bool in, bool out)
{
    if (in) {
        s->readable = true;
        wake(&s->in_waiter, 0);
    }
    if (out) {
        s->writable = true;
        wake(&s->out_waiter, 0);
    }
}

int rt_sock_readable(struct rt_task *t, struct rt_sock *s)
{
    struct rt_req req;

    rt_req_init_task(&req, t);
    rt_sock_wait_in(s, &req);
    return rt_wait(t, &req);
}

int rt_sock_writable(struct rt_task *t, struct rt_sock *s)
{
    struct rt_req req;

    rt_req_init_task(&req, t);
    rt_sock_wait_out(s, &req);
    return rt_wait(t, &req);
}

int rt_sock_local(const struct rt_sock *s, struct sockaddr_storage *out_addr)
{
    return ops()->sock_addr(s, false, out_addr);
}

int rt_sock_peer(const struct rt_sock *s, struct sockaddr_storage *out_addr)
{
    return ops()->sock_addr(s, true, out_addr);
}

void rt_sock_shutdown(struct rt_sock *s)
{
    if (s->fd >= 0)
        ops()->sock_shutdown(s);
}

void rt_sock_close(struct rt_sock *s)
{
    if (s->fd >= 0)
        ops()->sock_close(s);
    s->fd = -1;
    wake(&s->in_waiter, -ECANCELED);
    wake(&s->out_waiter, -ECANCELED);
}
