/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime on both real backends: tasks, requests, timers, mailboxes, sockets, files, buffers.
 */
#include "rt/buf.h"
#include "rt/io.h"
#include "rt/sock.h"
#include "rt/trace.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* Checks inside tasks: the number of the line that failed goes back to the main stack. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

static void run_on(enum rt_backend backend, unsigned reactors, enum rt_poll poll, rt_task_fn fn)
{
    struct rt_config cfg = {
        .reactors = reactors, .backend = backend, .poll = poll, .buf_bytes = MIB};
    struct err why = {""};
    int rc = rt_run(&cfg, fn, NULL, &why);

    if (rc < 0)
        print_error("line %d (%s)\n", -rc, why.text);
    assert_int_equal(rc, 0);
}

#define ON_BOTH(name, reactors, fn)                                                                \
    static void name##_uring(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        run_on(RT_BACKEND_AUTO, reactors, RT_POLL_ADAPTIVE, fn);                                   \
    }                                                                                              \
    static void name##_epoll(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        run_on(RT_BACKEND_EPOLL, reactors, RT_POLL_NEVER, fn);                                     \
    }
#define BOTH(name) cmocka_unit_test(name##_uring), cmocka_unit_test(name##_epoll)

/* --- tasks ---------------------------------------------------------------------------------------
 */

static int add_one(struct rt_task *t, void *arg)
{
    for (int i = 0; i < 10; i++) {
        ++*(int *)arg;
        rt_yield(t);
    }
    return 7;
}

static int sleeper(struct rt_task *t, void *arg)
{
    (void)arg;
    return rt_sleep(t, 100 * NS_PER_S);
}

static int tasks(struct rt_task *t, void *arg)
{
    int counter = 0;
    struct rt_req done[20];
    struct rt_task *child;
    uint64_t begin = rt_now();

    (void)arg;
    for (int i = 0; i < 20; i++) {
        rt_req_init_task(&done[i], t);
        CHECK(rt_task_start("child", add_one, &counter, &done[i], NULL) == 0);
    }
    for (int i = 19; i >= 0; i--)
        CHECK(rt_wait(t, &done[i]) == 7);
    CHECK(counter == 200);

    CHECK(rt_sleep(t, 3 * NS_PER_MS) == 0);
    CHECK(rt_now() - begin >= 3 * NS_PER_MS);

    rt_req_init_task(&done[0], t);
    CHECK(rt_task_start("sleeper", sleeper, NULL, &done[0], &child) == 0);
    rt_yield(t);
    rt_task_cancel(child);
    CHECK(rt_wait(t, &done[0]) == -ECANCELED);
    rt_req_init_task(&done[0], t);
    CHECK(rt_task_start("sleeper", sleeper, NULL, &done[0], &child) == 0);
    rt_task_cancel(child); /* before it first runs */
    CHECK(rt_wait(t, &done[0]) == -ECANCELED);

    rt_task_deadline(t, rt_now() + 2 * NS_PER_MS);
    CHECK(rt_sleep(t, 100 * NS_PER_S) == -ETIMEDOUT);
    CHECK(rt_sleep(t, 100 * NS_PER_S) == -ETIMEDOUT);
    rt_task_shield(t, true);
    CHECK(rt_sleep(t, NS_PER_MS) == 0);
    rt_task_shield(t, false);
    rt_task_deadline(t, 0);
    CHECK(rt_sleep(t, NS_PER_MS) == 0);
    return 0;
}

static int cond_waiter(struct rt_task *t, void *arg)
{
    return rt_cond_wait(t, arg);
}

static int conds(struct rt_task *t, void *arg)
{
    struct rt_cond c = {0};
    struct rt_req done[3];
    struct rt_task *task[3];

    (void)arg;
    rt_cond_wake_all(&c);
    for (int i = 0; i < 3; i++) {
        rt_req_init_task(&done[i], t);
        CHECK(rt_task_start("waiter", cond_waiter, &c, &done[i], &task[i]) == 0);
    }
    rt_yield(t);
    rt_task_cancel(task[1]);
    CHECK(rt_wait(t, &done[1]) == -ECANCELED);
    rt_cond_wake_one(&c);
    CHECK(rt_wait(t, &done[0]) == 0);
    CHECK(done[2].state == RT_REQ_PENDING);
    rt_cond_wake_all(&c);
    CHECK(rt_wait(t, &done[2]) == 0);
    return 0;
}

static int slow_square(void *arg)
{
    usleep(2000);
    return *(int *)arg * *(int *)arg;
}

static int offloads(struct rt_task *t, void *arg)
{
    struct rt_offload_req o[20];
    int n[20];

    (void)arg;
    for (int i = 0; i < 20; i++) {
        n[i] = i;
        o[i] = (struct rt_offload_req){.fn = slow_square, .arg = &n[i]};
        rt_req_init_task(&o[i].req, t);
        rt_offload_submit(&o[i]);
    }
    for (int i = 0; i < 20; i++)
        CHECK(rt_wait(t, &o[i].req) == i * i);
    CHECK(rt_offload(t, slow_square, &n[9]) == 81);
    return 0;
}

/* --- timers and reactors
 * ---------------------------------------------------------------------------- */

static int fired[64];
static unsigned nfired;
static struct rt_timer timers[64];

static void timer_fires(struct rt_timer *timer)
{
    fired[nfired++] = (int)(timer - timers);
}

static int timer_order(struct rt_task *t, void *arg)
{
    uint64_t now = rt_now();

    (void)arg;
    nfired = 0;
    for (int i = 0; i < 64; i++) {
        timers[i] = (struct rt_timer){.fn = timer_fires};
        rt_timer_start(&timers[i], now + 100000 + (uint64_t)(i * 37 % 64) * 10000);
    }
    for (int i = 0; i < 64; i += 2)
        rt_timer_stop(&timers[i]);
    rt_timer_start(&timers[63], now + 50000);
    CHECK(rt_sleep(t, 3 * NS_PER_MS) == 0);
    CHECK(nfired == 32);
    CHECK(fired[0] == 63);
    for (unsigned i = 2; i < nfired; i++)
        CHECK(fired[i - 1] * 37 % 64 < fired[i] * 37 % 64);
    return 0;
}

static int where(struct rt_task *t, void *arg)
{
    rt_sleep(t, NS_PER_MS);
    *(unsigned *)arg = rt_index(rt_self());
    return 5;
}

static const char local_key, other_key;

/* Adds one to what the runtime keeps under a key, and returns it. */
static int local_count(struct rt_task *t, void *arg)
{
    int *count = rt_local(arg, sizeof(*count));

    (void)t;
    return ++*count;
}

static int reactors(struct rt_task *t, void *arg)
{
    unsigned idx = 99;

    (void)arg;
    CHECK(rt_reactors() == 3);
    for (int i = 0; i < 3; i++)
        CHECK(rt_on(t, rt_reactor((unsigned)i), local_count, (void *)&local_key) == i + 1);
    CHECK(local_count(t, (void *)&other_key) == 1);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 3; i++) {
            CHECK(rt_on(t, rt_reactor(i), where, &idx) == 5);
            CHECK(idx == i);
        }
    }
    return 0;
}

/* --- sockets
 * ------------------------------------------------------------------------------------------ */

static int read_all(struct rt_task *t, struct rt_sock *s, uint8_t *buf, size_t len)
{
    while (len > 0) {
        struct iovec iov = {buf, len};
        ssize_t n = rt_sock_recv(s, &iov, 1);

        if (n == -EAGAIN) {
            int rc = rt_sock_readable(t, s);

            if (rc < 0)
                return rc;
            continue;
        }
        if (n <= 0)
            return n == 0 ? -ECONNRESET : (int)n;
        buf += n;
        len -= (size_t)n;
    }
    return 0;
}

static int write_all(struct rt_task *t, struct rt_sock *s, const uint8_t *buf, size_t len)
{
    while (len > 0) {
        struct iovec iov = {(void *)(uintptr_t)buf, len};
        ssize_t n = rt_sock_send(s, &iov, 1);

        if (n == -EAGAIN) {
            int rc = rt_sock_writable(t, s);

            if (rc < 0)
                return rc;
            continue;
        }
        if (n < 0)
            return (int)n;
        buf += n;
        len -= (size_t)n;
    }
    return 0;
}

#define BIG (4u << 20)

static int echo_server(struct rt_task *t, void *arg)
{
    struct rt_sock *listener = arg;
    struct rt_sock s;
    uint8_t *buf = malloc(BIG);
    int fd, rc;

    while ((fd = rt_sock_accept(listener)) == -EAGAIN)
        rt_sock_readable(t, listener);
    CHECK(fd >= 0);
    CHECK(rt_sock_attach(&s, fd) == 0);
    for (;;) {
        rc = read_all(t, &s, buf, 1000);
        if (rc < 0)
            break;
        CHECK(write_all(t, &s, buf, 1000) == 0);
        if (buf[0] == 'B') {
            CHECK(read_all(t, &s, buf, BIG) == 0);
            CHECK(write_all(t, &s, buf, BIG) == 0);
        }
    }
    rt_sock_close(&s);
    free(buf);
    return rc == -ECONNRESET ? 0 : -__LINE__;
}

static int writer(struct rt_task *t, void *arg)
{
    void **a = arg;

    return write_all(t, a[0], a[1], BIG);
}

static int sockets(struct rt_task *t, void *arg)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_storage local;
    struct rt_sock listener, s, dead;
    struct rt_req done, wdone;
    uint8_t buf[1000];
    uint8_t *big = malloc(BIG), *back = malloc(BIG);
    void *wargs[2] = {&s, big};

    (void)arg;
    CHECK(rt_sock_listen(&listener, (struct sockaddr *)&in, sizeof(in), 10) == 0);
    CHECK(rt_sock_local(&listener, &local) == 0);
    rt_req_init_task(&done, t);
    CHECK(rt_task_start("server", echo_server, &listener, &done, NULL) == 0);
    CHECK(rt_sock_connect(t, &s, (struct sockaddr *)&local, sizeof(in)) == 0);
    for (int i = 0; i < 200; i++) {
        memset(buf, i == 100 ? 'B' : 'a', sizeof(buf));
        CHECK(write_all(t, &s, buf, sizeof(buf)) == 0);
        CHECK(read_all(t, &s, buf, sizeof(buf)) == 0);
        if (i != 100)
            continue;
        for (unsigned k = 0; k < BIG; k++)
            big[k] = (uint8_t)(k * 7 + k / 251);
        rt_req_init_task(&wdone, t);
        CHECK(rt_task_start("writer", writer, wargs, &wdone, NULL) == 0);
        CHECK(read_all(t, &s, back, BIG) == 0);
        CHECK(rt_wait(t, &wdone) == 0);
        CHECK(memcmp(big, back, BIG) == 0);
    }
    CHECK(rt_sock_recv(&s, &(struct iovec){buf, 1}, 1) == -EAGAIN);
    rt_task_deadline(t, rt_now() + 2 * NS_PER_MS);
    CHECK(rt_sock_readable(t, &s) == -ETIMEDOUT);
    rt_task_deadline(t, 0);
    rt_sock_close(&s);
    CHECK(rt_wait(t, &done) == 0);
    rt_sock_close(&listener);
    rt_sleep(t, NS_PER_MS);
    CHECK(rt_sock_connect(t, &dead, (struct sockaddr *)&local, sizeof(in)) == -ECONNREFUSED);
    free(big);
    free(back);
    return 0;
}

/* --- files
 * ---------------------------------------------------------------------------------------------- */

static int list_dir(struct rt_task *t, const char *dir, unsigned *out_n)
{
    char buf[512];
    unsigned n = 0;
    bool rewind = true;
    int rc, fd = rt_open(t, AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0)
        return fd;
    while ((rc = rt_readdir(t, fd, rewind, buf, sizeof(buf))) > 0) {
        rewind = false;
        for (int at = 0; at < rc; at += ((struct rt_dirent *)(buf + at))->size)
            n++;
    }
    rt_close(t, fd);
    *out_n = n;
    return rc;
}

static int files(struct rt_task *t, void *arg)
{
    char dir[] = "/tmp/kvasir-rt-XXXXXX";
    char path[128], buf[64];
    struct stat st;
    struct rt_geometry geo;
    unsigned n;
    int fd, d;

    (void)arg;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/a/b//c", dir);
    CHECK(rt_mkdir_all(t, path, 0755, true) == 0);
    CHECK(rt_mkdir_all(t, path, 0755, true) == 0);
    d = rt_open(t, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK(d >= 0);
    CHECK(rt_open(t, d, "none", O_RDONLY, 0) == -ENOENT);
    fd = rt_open(t, d, "file", O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    CHECK(rt_pwrite_all(t, fd, "hello world", 11, 5) == 0);
    CHECK(rt_fdatasync(t, fd) == 0);
    CHECK(rt_fsync(t, fd) == 0);
    CHECK(rt_pread_all(t, fd, buf, 11, 5) == 0);
    CHECK(memcmp(buf, "hello world", 11) == 0);
    CHECK(rt_pread_all(t, fd, buf, 12, 5) == -EIO);
    CHECK(rt_stat(t, d, "file", &st) == 0 && st.st_size == 16);
    CHECK(rt_ftruncate(t, fd, 8192) == 0);
    CHECK(rt_stat(t, fd, "", &st) == 0 && st.st_size == 8192);
    CHECK(rt_geometry(t, fd, &geo) == 0 && geo.size_bytes == 8192 && !geo.is_block_device);
    CHECK(rt_flock(t, fd, 2 /* LOCK_EX */ | 4 /* LOCK_NB */) == 0);
    CHECK(rt_close(t, fd) == 0);
    CHECK(rt_link(t, d, "file", d, "other") == 0);
    CHECK(rt_link(t, d, "file", d, "other") == -EEXIST);
    CHECK(rt_rename(t, d, "file", d, "third", 0) == 0);
    CHECK(rt_rename(t, d, "other", d, "third", 1 /* RENAME_NOREPLACE */) == -EEXIST);
    for (int i = 0; i < 100; i++) {
        snprintf(buf, sizeof(buf), "entry-%d", i);
        fd = rt_open(t, d, buf, O_WRONLY | O_CREAT, 0600);
        CHECK(fd >= 0);
        rt_close_p(&fd);
        CHECK(fd == -1);
    }
    CHECK(list_dir(t, path, &n) == 0);
    CHECK(n == 104);
    CHECK(rt_unlink(t, d, "third", 0) == 0);
    CHECK(rt_unlink(t, d, "third", 0) == -ENOENT);
    CHECK(rt_close(t, d) == 0);
    snprintf(buf, sizeof(buf), "rm -r %s", dir);
    return system(buf);
}

static int pipe_reader(struct rt_task *t, void *arg)
{
    return rt_fd_readable(t, *(int *)arg);
}

static int descriptors(struct rt_task *t, void *arg)
{
    struct rt_task *child;
    struct rt_req done;
    int p[2];

    (void)arg;
    CHECK(pipe(p) == 0);
    for (int round = 0; round < 2; round++) {
        rt_req_init_task(&done, t);
        CHECK(rt_task_start("pipe", pipe_reader, &p[0], &done, &child) == 0);
        rt_sleep(t, NS_PER_MS);
        CHECK(done.state == RT_REQ_PENDING);
        if (round == 0) {
            rt_task_cancel(child);
            CHECK(rt_wait(t, &done) == -ECANCELED);
        } else {
            CHECK(write(p[1], "x", 1) == 1);
            CHECK(rt_wait(t, &done) >= 0);
        }
    }
    close(p[0]);
    close(p[1]);
    return 0;
}

/* --- buffers
 * ---------------------------------------------------------------------------------------------- */

struct holder {
    struct rt_buf_holder h;
    struct rt_buf *buf;
};

static void holder_yields(struct rt_buf_holder *h)
{
    rt_buf_put(container_of(h, struct holder, h)->buf);
}

static int buffers(struct rt_task *t, void *arg)
{
    struct rt_buf *large[64];
    struct rt_buf_stats st;
    struct rt_buf_waiter w = {.len = 100000};
    struct holder holder;
    unsigned n = 0;

    (void)arg;
    while ((large[n] = rt_buf_get(RT_BUF_LARGE_BYTES)) != NULL)
        n++;
    CHECK(n == 6); /* three quarters of 1 MiB */
    CHECK(rt_buf_get(1) != NULL);
    rt_req_init_task(&w.req, t);
    rt_buf_wait(&w);
    rt_yield(t);
    CHECK(w.req.state == RT_REQ_PENDING);
    rt_buf_unwait(&w);
    CHECK(rt_wait(t, &w.req) == -ECANCELED);
    rt_req_init_task(&w.req, t);
    rt_buf_wait(&w);
    rt_buf_put(large[--n]);
    CHECK(rt_wait(t, &w.req) == 0);
    CHECK(w.buf == large[n]);
    holder =
        (struct holder){.h.yield = holder_yields, .h.size_bytes = RT_BUF_LARGE_BYTES, .buf = w.buf};
    rt_buf_idle(&holder.h);
    CHECK(rt_buf_take(t, 9000) == large[n]);
    rt_buf_busy(&holder.h);
    rt_buf_put(large[n]);
    while (n > 0)
        rt_buf_put(large[--n]);
    rt_buf_stats(&st);
    CHECK(st.large_free == st.large_total);
    return 0;
}

static void count_line(const char *text, void *arg)
{
    if (strstr(text, " id 1-7 point 3 4") != NULL)
        ++*(int *)arg;
}

static int traces(struct rt_task *t, void *arg)
{
    int found = 0;

    (void)arg;
    CHECK(rt_trace_dump(t, count_line, &found) == 0);
    for (int i = 0; i < 1000; i++)
        rt_trace("other", rt_trace_new(), 1, 2);
    rt_trace("point", 1ull << 48 | 7, 3, 4);
    CHECK(rt_trace_dump(t, count_line, &found) == 128); /* the last 128 */
    CHECK(found == 1);
    return 0;
}

static void tracing(void **state)
{
    (void)state;
    assert_int_equal(rt_run(&(struct rt_config){.trace_events = 100}, traces, NULL, NULL), 0);
}

/* Data in buffers of the pool, which the kernel may know already: pieces of them in any place, and
 * what lies around a piece stays as it is. */
static int buffer_io(struct rt_task *t, void *arg)
{
    struct rt_buf *from[8], *to;
    FILE *file = tmpfile();
    int fd;

    (void)arg;
    CHECK(file != NULL);
    fd = fileno(file);
    for (unsigned i = 0; i < ARRAY_LEN(from); i++) {
        from[i] = rt_buf_take(t, i % 4 == 3 ? RT_BUF_LARGE_BYTES : 1);
        CHECK(from[i] != NULL);
        memset(from[i]->data, (int)(i + 1), RT_BUF_SMALL_BYTES);
        CHECK(rt_pwrite_all(t, fd, from[i]->data + i, 5000, i * 5000ull) == 0);
    }
    to = rt_buf_take(t, RT_BUF_SMALL_BYTES);
    CHECK(to != NULL);
    for (unsigned i = 0; i < ARRAY_LEN(from); i++) {
        memset(to->data, 99, to->size_bytes);
        CHECK(rt_pread_all(t, fd, to->data + 512 + i, 5000, i * 5000ull) == 0);
        CHECK(memcmp(to->data + 512 + i, from[i]->data, 5000) == 0);
        CHECK(to->data[511 + i] == 99 && to->data[5512 + i] == 99);
        rt_buf_put(from[i]);
    }
    CHECK(rt_pread(t, fd, to->data, RT_BUF_SMALL_BYTES, 8 * 5000 - 10) == 10);
    rt_buf_put(to);
    fclose(file);
    return 0;
}

ON_BOTH(tasks, 1, tasks)
ON_BOTH(conds, 1, conds)
ON_BOTH(offloads, 1, offloads)
ON_BOTH(timer_order, 1, timer_order)
ON_BOTH(reactors, 3, reactors)
ON_BOTH(sockets, 1, sockets)
ON_BOTH(files, 1, files)
ON_BOTH(descriptors, 1, descriptors)
ON_BOTH(buffers, 1, buffers)
ON_BOTH(buffer_io, 1, buffer_io)

/* --- the library forms
 * -------------------------------------------------------------------------------------- */

static void library(void **state)
{
    struct rt *rt;
    unsigned idx = 99;

    (void)state;
    assert_int_equal(rt_start(&(struct rt_config){.reactors = 2}, &rt, NULL), 0);
    assert_int_equal(rt_call(rt, 1, where, &idx), 5);
    assert_int_equal(idx, 1);
    assert_int_equal(rt_call(rt, 0, tasks, NULL), 0);
    rt_stop(rt);
}

static void loop_done(struct rt_req *req)
{
    (void)req;
}

static void event_loop(void **state)
{
    struct rt *rt;
    struct rt_req done;
    struct pollfd pfd = {.events = POLLIN};

    (void)state;
    for (int backend = 1; backend <= 2; backend++) {
        struct rt_config cfg = {.backend = (enum rt_backend)backend};

        if (rt_loop_new(&cfg, &rt, NULL) < 0)
            continue;
        pfd.fd = rt_loop_fd(rt);
        rt_req_init(&done, loop_done);
        assert_int_equal(rt_loop_start(rt, "files", files, NULL, &done), 0);
        while (done.state != RT_REQ_IDLE) {
            rt_loop_turn(rt);
            if (done.state != RT_REQ_IDLE)
                poll(&pfd, 1, rt_loop_timeout_ms(rt));
        }
        assert_int_equal(done.rc, 0);
        rt_loop_free(rt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(tasks),
        BOTH(conds),
        BOTH(offloads),
        BOTH(timer_order),
        BOTH(reactors),
        BOTH(sockets),
        BOTH(files),
        BOTH(descriptors),
        BOTH(buffers),
        BOTH(buffer_io),
        cmocka_unit_test(library),
        cmocka_unit_test(event_loop),
        cmocka_unit_test(tracing),
    };

    return cmocka_run_group_tests_name("rt", tests, NULL, NULL);
}
