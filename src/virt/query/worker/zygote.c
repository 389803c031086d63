/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zygote: the engine is open, and a worker is a fork of it. One thread, which never runs a
 * statement of a user, so there is no lock in the engine that a fork could find taken.
 */
#include "virt/query/worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 4096
#define QUIET_MS 20 /* between two workers: their queries do not follow each other at once */

static struct worker {
    pid_t pid;
    uint32_t tag;
} * workers;
static unsigned nworkers;

static int say(int ctl, enum qw_ctl_type type, uint32_t tag, int64_t value,
               const struct rusage *used)
{
    struct qw_ctl c = {
        .type = le32_make(type), .tag = le32_make(tag), .value = le64_make((uint64_t)value)};

    if (used) {
        uint64_t us = (uint64_t)(used->ru_utime.tv_sec + used->ru_stime.tv_sec) * 1000000u +
                      (uint64_t)(used->ru_utime.tv_usec + used->ru_stime.tv_usec);

        c.cpu_us = le64_make(us);
        c.rss_bytes = le64_make((uint64_t)used->ru_maxrss * 1024u);
    }
    return send(ctl, &c, sizeof(c), MSG_NOSIGNAL) == (ssize_t)sizeof(c) ? 0 : -errno;
}

/* A message and the descriptors that came with it, -1 where none. 0: the daemon is gone. */
static ssize_t receive(int ctl, struct qw_ctl *out, int fds[2])
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {out, sizeof(*out)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof(control.buf)};
    ssize_t n = recvmsg(ctl, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

    fds[0] = fds[1] = -1;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(c),
               c->cmsg_len >= CMSG_LEN(2 * sizeof(int)) ? 2 * sizeof(int) : sizeof(int));
    return n;
}

static struct worker *worker_with(uint32_t tag)
{
    for (unsigned i = 0; i < nworkers; i++)
        if (workers[i].tag == tag)
            return &workers[i];
    return NULL;
}

/* Whether the last one was made just now. */
static bool in_a_hurry(void)
{
    static uint64_t last_ms;
    struct timespec t;
    uint64_t before_ms = last_ms;

    clock_gettime(CLOCK_MONOTONIC, &t);
    last_ms = (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
    return last_ms - before_ms < QUIET_MS;
}

static int limits_of(const struct qw_ctl *c, struct qw_limits *out)
{
    uint64_t seconds = le64_get(c->cpu_us) / 1000000u;

    *out = (struct qw_limits){le64_get(c->value), (unsigned)seconds, in_a_hurry()};
    return out->mem_bytes == 0 || seconds == 0 || seconds >= UINT32_MAX ? -EINVAL : 0;
}

static int64_t spawn(const struct qw_ctl *c, const int fds[2])
{
    uint32_t tag = le32_get(c->tag);
    struct qw_limits limits;
    pid_t self = getpid();
    sigset_t none;
    pid_t pid;

    if (fds[0] < 0 || fds[1] < 0)
        return -EPROTO;
    if (limits_of(c, &limits) < 0)
        return -EINVAL;
    if (worker_with(tag))
        return -EEXIST;
    if (nworkers == WORKERS_MAX)
        return -EAGAIN;
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        qw_child_run(fds[0], fds[1], self, &limits);
    }
    workers[nworkers++] = (struct worker){pid, tag};
    return pid;
}

static int message(int ctl, const struct qw_ctl *c, const int fds[2])
{
    uint32_t tag = le32_get(c->tag);
    struct worker *w;

    switch (le32_get(c->type)) {
    case QW_SPAWN:
        return say(ctl, QW_SPAWNED, tag, spawn(c, fds), NULL);
    case QW_KILL:
        w = worker_with(tag);
        if (w)
            kill(w->pid, SIGKILL);
        return 0;
    default:
        return -EPROTO;
    }
}

static int reap(int ctl)
{
    struct rusage used;
    int status, rc = 0;
    pid_t pid;

    while (rc == 0 && (pid = wait4(-1, &status, WNOHANG, &used)) > 0) {
        for (unsigned i = 0; i < nworkers; i++) {
            if (workers[i].pid != pid)
                continue;
            rc = say(ctl, QW_EXITED, workers[i].tag, status, &used);
            workers[i] = workers[--nworkers];
            break;
        }
    }
    return rc;
}

static int turn(int ctl)
{
    struct qw_ctl c;
    int fds[2];
    ssize_t n = receive(ctl, &c, fds);
    int rc;

    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -errno;
    if (n == 0)
        return -ECONNRESET;
    rc = n == (ssize_t)sizeof(c) ? message(ctl, &c, fds) : -EPROTO;
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return rc;
}

int qw_zygote_run(int ctl)
{
    struct signalfd_siginfo ignored;
    struct pollfd fds[2];
    sigset_t set;
    int rc, sig;

    workers = calloc(WORKERS_MAX, sizeof(*workers));
    if (!workers)
        return -ENOMEM;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sig = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (sig < 0)
        return -errno;
    fds[0] = (struct pollfd){.fd = ctl, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = sig, .events = POLLIN};
    rc = say(ctl, QW_READY, 0, QW_VERSION, NULL);
    while (rc == 0) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (fds[1].revents) {
            while (syscall(SYS_read, sig, &ignored, sizeof(ignored)) > 0)
                ;
            rc = reap(ctl);
        }
        if (rc == 0 && fds[0].revents)
            rc = turn(ctl);
    }
    return rc;
}
