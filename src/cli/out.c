/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard output. A reader that is slow (a pager) must not stop the reactor, which keeps
 * connections alive meanwhile: lines collect in memory and are written by the offload pool.
 */
#include "cli/cli.h"

#include "base/must.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_AT_BYTES (64 * KIB)

static void reserve(struct cli_out *out, size_t more)
{
    size_t cap = MAX(out->cap, 4 * KIB);

    if (out->len + more <= out->cap)
        return;
    while (cap < out->len + more)
        cap *= 2;
    out->buf = realloc(out->buf, cap);
    must(out->buf != NULL);
    out->cap = cap;
}

void cli_put(struct cli *c, const void *bytes, size_t len)
{
    reserve(&c->out, len);
    memcpy(c->out.buf + c->out.len, bytes, len);
    c->out.len += len;
}

void cli_print(struct cli *c, const char *fmt, ...)
{
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    must(len >= 0);
    reserve(&c->out, (size_t)len + 1);
    va_start(args, fmt);
    vsnprintf(c->out.buf + c->out.len, (size_t)len + 1, fmt, args);
    va_end(args);
    c->out.len += (size_t)len;
}

void cli_json(struct cli *c, json_t *obj)
{
    char *line;

    if (obj == NULL)
        obj = json_pack("{s:s}", "error", "a text of the result is not valid UTF-8");
    line = json_dumps(obj, JSON_COMPACT | JSON_REAL_PRECISION(6));
    must(line != NULL);
    cli_put(c, line, strlen(line));
    cli_put(c, "\n", 1);
    free(line);
    json_decref(obj);
}

static int write_out(void *arg)
{
    struct cli_out *out = arg;
    size_t at = 0;

    while (at < out->len && out->rc == 0) {
        ssize_t n = write(STDOUT_FILENO, out->buf + at, out->len - at);

        if (n >= 0)
            at += (size_t)n;
        else if (errno != EINTR)
            out->rc = -errno;
    }
    out->len = 0;
    return out->rc;
}

int cli_flush(struct rt_task *t, struct cli *c, bool all)
{
    if (c->out.rc < 0)
        return c->out.rc;
    if (c->out.len == 0 || (!all && c->out.len < FLUSH_AT_BYTES))
        return 0;
    return rt_offload(t, write_out, &c->out);
}

int cli_flush_now(struct cli *c)
{
    return write_out(&c->out);
}

const char *cli_size_text(uint64_t bytes, char *out)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    unsigned u = 0;

    while (v >= 1024 && u < ARRAY_LEN(units) - 1) {
        v /= 1024;
        u++;
    }
    snprintf(out, CLI_SIZE_TEXT, u == 0 ? "%.0f %s" : v < 10 ? "%.2f %s" : "%.1f %s", v, units[u]);
    return out;
}
