/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on the worker's stream. read() and write() of this program are the engine's
 * (files.c), so the kernel is asked directly here.
 */
#include "virt/query/worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define END_REST_NS 2000000 /* the daemon hands the answer on meanwhile */

static int stream_fd = -1;

void qw_stream_open(int fd)
{
    stream_fd = fd;
}

static void gone(void)
{
    syscall(SYS_exit_group, 1);
}

static void send_all(struct iovec *iov, int n)
{
    while (n > 0) {
        ssize_t did = syscall(SYS_writev, stream_fd, iov, n);

        if (did < 0 && errno == EINTR)
            continue;
        if (did < 0)
            gone();
        for (; n > 0 && (size_t)did >= iov->iov_len; iov++, n--)
            did -= (ssize_t)iov->iov_len;
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + did;
            iov->iov_len -= (size_t)did;
        }
    }
}

void qw_stream_send(enum qw_type type, const struct qw_head *h, const void *body, size_t len)
{
    struct qw_head head = {0};
    struct iovec iov[2];

    if (h)
        head = *h;
    head.type = le32_make(type);
    head.len = le32_make((uint32_t)len);
    iov[0] = (struct iovec){&head, sizeof(head)};
    iov[1] = (struct iovec){(void *)body, len};
    send_all(iov, len ? 2 : 1);
}

void qw_stream_recv_body(void *buf, size_t len)
{
    char *p = buf;

    while (len) {
        ssize_t did = syscall(SYS_read, stream_fd, p, len);

        if (did < 0 && errno == EINTR)
            continue;
        if (did <= 0)
            gone();
        p += did;
        len -= (size_t)did;
    }
}

void qw_stream_recv(struct qw_head *out)
{
    qw_stream_recv_body(out, sizeof(*out));
    if (!qw_head_ok(out, false))
        gone();
}

bool qw_stream_pending(void)
{
    struct pollfd p = {.fd = stream_fd, .events = POLLIN};

    return poll(&p, 1, 0) != 0;
}

void qw_stream_end(void)
{
    const struct timespec rest = {.tv_nsec = END_REST_NS};
    char c;

    while (syscall(SYS_read, stream_fd, &c, 1) > 0)
        ;
    syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &rest, NULL);
    syscall(SYS_exit_group, 0);
    __builtin_unreachable();
}
