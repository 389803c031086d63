/* SPDX-License-Identifier: Apache-2.0 */
/* A worker, from the fork to QW_DONE. It is made ahead, so it may wait long for its query. */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/schema.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STREAM_FD 3

static void *map_window(int fd)
{
    struct stat st;
    void *p;

    if (fstat(fd, &st) < 0 || st.st_size < (off_t)QW_WINDOW_BYTES)
        return NULL;
    p = mmap(NULL, QW_WINDOW_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* The stream is all that stays. */
static void *take_descriptors(int stream_fd, int window_fd)
{
    void *window = map_window(window_fd);
    int flags;

    if (!window || syscall(SYS_dup3, stream_fd, STREAM_FD, 0) < 0)
        return NULL;
    if (syscall(SYS_dup3, STDIN_FILENO, STDERR_FILENO, 0) < 0)
        return NULL;
    close_range(STREAM_FD + 1, ~0u, 0);
    flags = fcntl(STREAM_FD, F_GETFL, NULL);
    fcntl(STREAM_FD, F_SETFL, (void *)(long)(flags & ~O_NONBLOCK));
    qw_stream_open(STREAM_FD);
    return window;
}

static void done(int rc, const char *text, uint64_t rows)
{
    json_t *j = json_pack("{s:i, s:s%, s:I}", "rc", rc, "text", text, strlen(text), "rows",
                          (json_int_t)rows);
    char *s;

    if (!j) /* the text is not UTF-8 */
        j = json_pack("{s:i, s:s, s:I}", "rc", rc, "text",
                      "the engine failed with a text that is not UTF-8", "rows", (json_int_t)rows);
    s = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (!s)
        _exit(1);
    qw_stream_send(QW_DONE, NULL, s, strlen(s));
    qw_stream_end();
}

static int run(struct qw_query *q, uint64_t *out_rows, struct qw_text *why)
{
    struct qw_statement s;
    int rc = qw_statement_check(q->sql, &s, why);

    if (rc == 0)
        rc = qw_input_open(q, &s, why);
    if (rc == 0)
        rc = qw_engine_lock(why);
    if (rc == 0)
        rc = qw_output_run(q, &s, out_rows, why);
    return qw_wide_failed(rc, q, qw_input_schema(), why);
}

static int receive_query(struct qw_query *out, struct qw_text *why)
{
    struct qw_head h;
    char *text;

    qw_stream_recv(&h);
    if (le32_get(h.type) != QW_QUERY)
        return qw_fail(why, -EPROTO, "the worker was told something else than a query");
    text = malloc(le32_get(h.len));
    if (!text)
        return qw_fail(why, -ENOMEM, "no memory for the query");
    qw_stream_recv_body(text, le32_get(h.len));
    return qw_query_parse(text, le32_get(h.len), out, why);
}

/* All that can be done before the query is known: it does not wait for it, and the worker has given
 * up everything when it begins to look at what a user wrote. */
static int get_ready(pid_t zygote, const struct qw_limits *limits, struct qw_text *why)
{
    int rc = qw_sandbox_early(zygote, why);

    if (rc == 0)
        rc = qw_engine_limit(limits->mem_bytes, why);
    if (rc < 0)
        return rc;
    while (qw_warm_some(QW_SCOUT_SMALL))
        ;
    /* With queries that follow each other at once, the processors are needed for those. */
    while (!limits->hurried && !qw_stream_pending() && qw_warm_some(QW_SCOUT_LARGER))
        ;
    return qw_sandbox_enter(STREAM_FD, limits, why);
}

void qw_child_run(int stream_fd, int window_fd, pid_t zygote, const struct qw_limits *limits)
{
    static struct qw_query q;
    static struct qw_text why;
    void *window = take_descriptors(stream_fd, window_fd);
    uint64_t rows = 0;
    int rc;

    if (!window || get_ready(zygote, limits, &why) < 0)
        _exit(1);
    rc = receive_query(&q, &why);
    if (rc == 0) {
        q.mem_bytes = limits->mem_bytes;
        qw_objects_set(q.objects, q.nobjects, window);
        qw_objects_ahead(q.ahead);
        rc = run(&q, &rows, &why);
    }
    done(rc, rc < 0 ? why.s : "", rows);
    __builtin_unreachable();
}
