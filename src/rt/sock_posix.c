/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets, clocks and random numbers of this kernel, for both real backends. */
#include "rt/internal.h"

#include "base/bytes.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static void tune(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* Takes the descriptor, also when it fails. */
static int attach(struct rt_sock *s, int fd)
{
    return s->reactor->rt->ops->sock_attach(s, fd);
}

int rt_posix_listen(struct rt_sock *s, const struct sockaddr *addr, socklen_t len, int backlog)
{
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    int rc;

    if (fd < 0)
        return -errno;
    if (addr->sa_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (addr->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, addr, len) == 0 && listen(fd, backlog) == 0)
        return attach(s, fd);
    rc = -errno;
    close(fd);
    return rc;
}

int rt_posix_accept(struct rt_sock *s)
{
    int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0)
        tune(fd);
    /* A connection that died in the queue is as good as none. */
    if (fd < 0 && (errno == ECONNABORTED || errno == EINTR || errno == EPROTO))
        return rt_posix_accept(s);
    return fd < 0 ? -errno : fd;
}

int rt_posix_connect(struct rt_sock *s, const struct sockaddr *addr, socklen_t len)
{
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc, attached;

    if (fd < 0)
        return -errno;
    tune(fd);
    rc = connect(fd, addr, len) == 0 ? 0 : -errno;
    if (rc < 0 && rc != -EINPROGRESS) {
        close(fd);
        return rc;
    }
    attached = attach(s, fd);
    return attached < 0 ? attached : rc;
}

int rt_posix_connected(struct rt_sock *s)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        return -errno;
    return -err;
}

ssize_t rt_posix_recv(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt)
{
    ssize_t n;

    if (iovcnt == 1) {
        n = recv(s->fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT);
    } else {
        struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = iovcnt};

        n = recvmsg(s->fd, &msg, MSG_DONTWAIT);
    }
    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    /* Less than asked for: the socket is empty, and what comes next raises an event of its own.
     * Saves the call that would only answer EAGAIN. */
    if ((size_t)n < iov_len(iov, iovcnt) && !s->hup)
        s->readable = n == 0;
    return n;
}

ssize_t rt_posix_send(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt)
{
    ssize_t n;

    if (iovcnt == 1) {
        n = send(s->fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = iovcnt};

        n = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    return n;
}

ssize_t rt_posix_send_fds(struct rt_sock *s, const struct iovec *iov, const int *fds, unsigned nfds)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = CMSG_SPACE(nfds * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    ssize_t n;

    must(nfds > 0 && nfds <= 4);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
    memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    n = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    return n;
}

int rt_posix_addr(const struct rt_sock *s, bool peer, struct sockaddr_storage *out)
{
    socklen_t len = sizeof(*out);
    struct sockaddr *sa = (struct sockaddr *)out;
    int rc = peer ? getpeername(s->fd, sa, &len) : getsockname(s->fd, sa, &len);

    return rc != 0 ? -errno : 0;
}

void rt_posix_shutdown(struct rt_sock *s)
{
    shutdown(s->fd, SHUT_WR);
}

void rt_posix_discard(int fd)
{
    close(fd);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t rt_posix_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t rt_posix_wall(void)
{
    return clock_ns(CLOCK_REALTIME);
}

void rt_posix_random(void *buf, size_t len)
{
    uint8_t *at = buf;

    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);

        must(n > 0 || errno == EINTR);
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}
