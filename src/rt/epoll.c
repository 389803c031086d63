/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The epoll backend, for kernels and containers that refuse io_uring: sockets by edge-triggered
 * epoll, every file operation by the offload pool.
 */
#include "rt/internal.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_MAX 256

struct epoll {
    int fd;
    int wake_fd;
};

static struct epoll *epoll_of(struct rt_reactor *r)
{
    return r->backend;
}

static int epoll_init(struct rt_reactor *r, struct err *why)
{
    struct epoll *e = calloc(1, sizeof(*e));
    struct epoll_event ev = {.events = EPOLLIN};
    int rc;

    if (e == NULL)
        return -ENOMEM;
    e->fd = epoll_create1(EPOLL_CLOEXEC);
    e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e->fd < 0 || e->wake_fd < 0 || epoll_ctl(e->fd, EPOLL_CTL_ADD, e->wake_fd, &ev) != 0) {
        rc = -errno;
        free(e);
        return err_set(why, rc, "epoll: %s", strerror(-rc));
    }
    r->backend = e;
    return 0;
}

static void epoll_fini(struct rt_reactor *r)
{
    struct epoll *e = epoll_of(r);

    if (e == NULL)
        return;
    close(e->wake_fd);
    close(e->fd);
    free(e);
    r->backend = NULL;
}

/* data.ptr: NULL the wake descriptor; low bit 1 an rt_io that waits for a descriptor; else a
 * socket. */
static void epoll_event(struct epoll *e, const struct epoll_event *ev)
{
    uintptr_t ptr = (uintptr_t)ev->data.ptr;
    struct rt_sock *s = ev->data.ptr;
    struct rt_io *io;
    uint64_t count;

    if (ptr == 0) {
        ssize_t n = read(e->wake_fd, &count, sizeof(count));

        (void)n;
        return;
    }
    if (ptr & 1) {
        io = (struct rt_io *)(ptr & ~(uintptr_t)1);
        epoll_ctl(e->fd, EPOLL_CTL_DEL, io->fd, NULL);
        rt_req_complete(&io->req, 0);
        return;
    }
    if (ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        s->hup = true;
    rt_sock_ready(s, (ev->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0,
                  (ev->events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0);
}

static int timeout_ms(uint64_t timeout_ns)
{
    if (timeout_ns == UINT64_MAX)
        return -1;
    return (int)MIN((timeout_ns + NS_PER_MS - 1) / NS_PER_MS, 1000000000u);
}

static bool epoll_poll(struct rt_reactor *r, uint64_t timeout_ns)
{
    struct epoll *e = epoll_of(r);
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(e->fd, events, EVENTS_MAX, timeout_ms(timeout_ns));

    for (int i = 0; i < n; i++)
        epoll_event(e, &events[i]);
    return n > 0;
}

static void epoll_wake(struct rt_reactor *r)
{
    uint64_t one = 1;
    ssize_t n = write(epoll_of(r)->wake_fd, &one, sizeof(one));

    (void)n;
}

static int epoll_fd(struct rt_reactor *r)
{
    return epoll_of(r)->fd;
}

static void epoll_io_cancel(struct rt_reactor *r, struct rt_io *io)
{
    /* Only waits for descriptors can end early; what a thread does runs to its end. */
    if (io->op != RT_IO_READV || io->iov != NULL)
        return;
    if (epoll_ctl(epoll_of(r)->fd, EPOLL_CTL_DEL, io->fd, NULL) == 0)
        rt_req_complete(&io->req, -ECANCELED);
}

static void epoll_fd_wait(struct rt_reactor *r, struct rt_io *io)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = (void *)((uintptr_t)io | 1)};

    io->op = RT_IO_READV;
    io->iov = NULL;
    if (epoll_ctl(epoll_of(r)->fd, EPOLL_CTL_ADD, io->fd, &ev) != 0) {
        int rc = -errno;

        /* Regular files are always readable, and epoll does not take them. */
        rt_req_complete(&io->req, rc == -EPERM ? 0 : rc);
    }
}

static int sock_take(struct rt_sock *s, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};
    int rc;

    if (epoll_ctl(epoll_of(s->reactor)->fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        rc = -errno;
        close(fd);
        return rc;
    }
    s->fd = fd;
    return 0;
}

static void epoll_sock_arm(struct rt_sock *s)
{
    (void)s; /* registered for its whole life */
}

static void epoll_sock_close(struct rt_sock *s)
{
    epoll_ctl(epoll_of(s->reactor)->fd, EPOLL_CTL_DEL, s->fd, NULL);
    close(s->fd);
}

const struct rt_backend_ops rt_epoll_ops = {
    .name = "epoll",
    .init = epoll_init,
    .fini = epoll_fini,
    .poll = epoll_poll,
    .wake = epoll_wake,
    .fd = epoll_fd,
    .io_submit = rt_io_offload,
    .io_cancel = epoll_io_cancel,
    .fd_wait = epoll_fd_wait,
    .offload = rt_offload_thread,
    .sock_listen = rt_posix_listen,
    .sock_accept = rt_posix_accept,
    .sock_attach = sock_take,
    .sock_discard = rt_posix_discard,
    .sock_connect = rt_posix_connect,
    .sock_connected = rt_posix_connected,
    .sock_recv = rt_posix_recv,
    .sock_send = rt_posix_send,
    .sock_send_fds = rt_posix_send_fds,
    .sock_arm = epoll_sock_arm,
    .sock_addr = rt_posix_addr,
    .sock_shutdown = rt_posix_shutdown,
    .sock_close = epoll_sock_close,
    .now = rt_posix_now,
    .wall = rt_posix_wall,
    .random = rt_posix_random,
};
