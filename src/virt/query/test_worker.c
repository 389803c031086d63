/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/test_worker.h"

#include "virt/query/wire.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *mode;
static int stream;
static char *window;

static int is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static void say(enum qw_type type, const struct qw_head *like, const void *body, size_t len)
{
    struct qw_head h = {0};
    const char *p = body;

    if (like != NULL)
        h = *like;
    h.type = le32_make(type);
    h.len = le32_make((uint32_t)len);
    if (send(stream, &h, sizeof(h), MSG_NOSIGNAL) != sizeof(h))
        _exit(9);
    while (len > 0) {
        ssize_t n = send(stream, p, len, MSG_NOSIGNAL);

        if (n <= 0)
            _exit(9);
        p += n;
        len -= (size_t)n;
    }
}

static void hear(void *buf, size_t len)
{
    if (recv(stream, buf, len, MSG_WAITALL) != (ssize_t)len)
        _exit(8);
}

static void done(int rc, const char *text)
{
    char json[256];

    snprintf(json, sizeof(json), "{\"rc\":%d,\"text\":\"%s\",\"rows\":1}", rc, text);
    say(QW_DONE, NULL, json, strlen(json));
    _exit(0);
}

static void ask(uint64_t object, uint64_t off, uint32_t slot, uint32_t want)
{
    struct qw_head h = {.a = le64_make(object),
                        .b = le64_make(off),
                        .slot = le32_make(slot),
                        .want = le32_make(want)};

    say(QW_READ, &h, NULL, 0);
}

/* The objects as they are, one after the other, by turns of all slots: the honest mode. */
static void echo(unsigned objects, const char *query)
{
    const char *told = strstr(query, "\"ahead\":");
    unsigned long ahead = told != NULL ? strtoul(told + 8, NULL, 10) : 0; /* comes unasked */

    for (unsigned o = 0; o < objects; o++) {
        for (uint64_t off = 0;;) {
            uint32_t slot = (uint32_t)(off / QW_SLOT_BYTES % QW_SLOTS);
            struct qw_head h;
            int64_t n;

            if (o > 0 || off > 0 || ahead == 0)
                ask(o, off, slot, QW_SLOT_BYTES);
            hear(&h, sizeof(h));
            n = (int64_t)le64_get(h.a);
            if (n < 0)
                done((int)n, "a read failed");
            for (int64_t at = 0; at < n; at += QW_RESULT_BYTES) {
                int64_t left = n - at;

                say(QW_RESULT, NULL, window + (size_t)slot * QW_SLOT_BYTES + at,
                    (size_t)(left < (int64_t)QW_RESULT_BYTES ? left : (int64_t)QW_RESULT_BYTES));
            }
            if (n < (int64_t)QW_SLOT_BYTES)
                break;
            off += (uint64_t)n;
        }
    }
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;

    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

static void flood(void)
{
    static char block[QW_RESULT_BYTES];

    for (;;)
        say(QW_RESULT, NULL, block, sizeof(block));
}

/* What goes wrong before the answer is whole; what is not named here is not a mode. */
static void misbehave(void)
{
    struct qw_head h = {.type = le32_make(QW_RESULT), .len = le32_make(QW_RESULT_BYTES + 1)};

    if (is("silent") || is("stubborn")) {
        if (is("stubborn"))
            close(stream);
        for (;;)
            pause();
    }
    if (is("exit"))
        _exit(3);
    if (is("crash"))
        raise(SIGSEGV);
    if (is("sigsys"))
        raise(SIGSYS);
    if (is("sigxcpu"))
        raise(SIGXCPU);
    if (is("bad-type"))
        say(77, NULL, NULL, 0);
    if (is("daemons-type"))
        say(QW_DATA, NULL, NULL, 0);
    if (is("oversized"))
        send(stream, &h, sizeof(h), MSG_NOSIGNAL);
    if (is("half-head"))
        send(stream, &h, 7, MSG_NOSIGNAL);
    if (is("half-result")) {
        h.len = le32_make(1000);
        send(stream, &h, sizeof(h), MSG_NOSIGNAL);
        send(stream, "half", 4, MSG_NOSIGNAL);
    }
    if (is("bad-object"))
        ask(1, 0, 0, 100);
    if (is("bad-slot"))
        ask(0, 0, QW_SLOTS, 100);
    if (is("bad-want"))
        ask(0, 0, 0, QW_SLOT_BYTES + 1);
    if (is("slot-twice")) {
        struct qw_head twice[2] = {{.type = le32_make(QW_READ), .want = le32_make(8)}};

        twice[1] = twice[0];
        send(stream, twice, sizeof(twice), MSG_NOSIGNAL);
    }
    if (is("deaf"))
        for (;;)
            ask(0, UINT64_MAX, 0, 100);
    if (is("not-json"))
        say(QW_DONE, NULL, "rc 0", 4);
    if (is("no-rc"))
        say(QW_DONE, NULL, "{}", 2);
    if (is("schema-twice")) {
        say(QW_SCHEMA, NULL, "{}", 2);
        say(QW_SCHEMA, NULL, "{}", 2);
    }
    if (is("odd-rc"))
        done(-4095, "odd\\u001b[2J");
    if (is("write-window"))
        window[0] = 1; /* mapped for reading: a signal */
    if (is("flood"))
        flood();
}

/* It leaves no room for a statement beside it. */
static void long_schema(const char *query)
{
    size_t len = QW_JSON_BYTES;
    char *text = malloc(len);

    if (strstr(query, "\"known\":null") == NULL)
        done(-EINVAL, "it came back");
    memset(text, 'x', len);
    memcpy(text, "{\"x\":\"", 6);
    memcpy(text + len - 2, "\"}", 2);
    say(QW_SCHEMA, NULL, text, len);
    done(0, "");
}

static void work(void)
{
    struct qw_head h;
    char *text;
    unsigned objects;

    hear(&h, sizeof(h));
    text = malloc(le32_get(h.len) + 1);
    hear(text, le32_get(h.len));
    text[le32_get(h.len)] = '\0';
    misbehave();
    if (is("long-schema"))
        long_schema(text);
    if (!is("echo"))
        _exit(3);
    if (strstr(text, "\"known\":null") == NULL) /* what was remembered comes back */
        say(QW_RESULT, NULL, "known:", 6);
    else
        say(QW_SCHEMA, NULL, "{\"columns\":1}", 13);
    objects = count(text, "\"size\":");
    if (strstr(text, "wait") != NULL)
        usleep(100 * 1000);
    if (strstr(text, "hang") != NULL)
        pause();
    if (strstr(text, "kill zygote") != NULL)
        kill(getppid(), SIGKILL);
    echo(objects, text);
    done(strstr(text, "wrong") != NULL ? -EINVAL : 0, strstr(text, "wrong") != NULL ? "no" : "");
}

static pid_t fork_worker(const struct qw_ctl *c, int stream_fd, int window_fd)
{
    struct qw_ctl reply = *c;
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGSEGV, SIG_DFL); /* a sanitizer's report would take a second */
        signal(SIGBUS, SIG_DFL);
        close(QW_ZYGOTE_FD);
        stream = stream_fd;
        window = mmap(NULL, QW_WINDOW_BYTES, PROT_READ, MAP_SHARED, window_fd, 0);
        /* What the daemon promises of the window. */
        if (window == MAP_FAILED || ftruncate(window_fd, 0) == 0 ||
            mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, window_fd, 0) != MAP_FAILED)
            _exit(7);
        work();
    }
    close(stream_fd);
    close(window_fd);
    reply.type = le32_make(QW_SPAWNED);
    reply.value = le64_make((uint64_t)(int64_t)pid);
    send(QW_ZYGOTE_FD, &reply, sizeof(reply), MSG_NOSIGNAL);
    return pid;
}

static struct {
    uint32_t tag;
    pid_t pid;
} children[4096];
static unsigned nchildren;

static void reap(void)
{
    struct qw_ctl c = {.type = le32_make(QW_EXITED)};
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 0; i < nchildren; i++) {
            if (children[i].pid != pid)
                continue;
            c.tag = le32_make(children[i].tag);
            c.value = le64_make((uint64_t)status);
            send(QW_ZYGOTE_FD, &c, sizeof(c), MSG_NOSIGNAL);
            children[i] = children[--nchildren];
        }
    }
}

static void told(const struct qw_ctl *c, const int *fds)
{
    if (le32_get(c->type) == QW_SPAWN) {
        children[nchildren].tag = le32_get(c->tag);
        children[nchildren++].pid = fork_worker(c, fds[0], fds[1]);
    } else {
        for (unsigned i = 0; i < nchildren; i++)
            if (children[i].tag == le32_get(c->tag))
                kill(children[i].pid, SIGKILL);
    }
}

static void zygote(void)
{
    struct qw_ctl c = {.type = le32_make(QW_READY), .value = le64_make(QW_VERSION)};
    struct pollfd p = {.fd = QW_ZYGOTE_FD, .events = POLLIN};

    if (is("no-engine")) {
        c.type = le32_make(QW_FAILED);
        snprintf(c.text, sizeof(c.text), "the engine is not here: `make deps` brings it");
    }
    if (is("odd-engine")) {
        c.type = le32_make(QW_FAILED);
        snprintf(c.text, sizeof(c.text), "no \xc3\xa9ngine\x1b[1m here \xc3");
    }
    if (is("other-version"))
        c.value = le64_make(QW_VERSION + 1);
    if (is("dies"))
        _exit(1);
    send(QW_ZYGOTE_FD, &c, sizeof(c), MSG_NOSIGNAL);
    for (;;) {
        union {
            struct cmsghdr align;
            char buf[CMSG_SPACE(2 * sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = &c, .iov_len = sizeof(c)};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.buf,
                             .msg_controllen = sizeof(control.buf)};
        int fds[2] = {-1, -1};

        reap();
        if (poll(&p, 1, 5) <= 0)
            continue;
        if (recvmsg(QW_ZYGOTE_FD, &msg, 0) <= 0)
            _exit(0);
        if (CMSG_FIRSTHDR(&msg) != NULL)
            memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fds));
        told(&c, fds);
    }
}

void test_worker_main(int argc, char **argv)
{
    if (argc != 5 || strcmp(argv[3], "--engine") != 0)
        return;
    mode = argv[4];
    zygote();
}
