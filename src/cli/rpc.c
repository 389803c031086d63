/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/rpc.h"

#include "rt/sock.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#define ANSWER_MAX ((size_t)64 * MIB)

static int send_all(struct rt_task *t, struct rt_sock *s, char *text, size_t len)
{
    while (len > 0) {
        struct iovec iov = {text, len};
        ssize_t n = rt_sock_send(s, &iov, 1);

        if (n == -EAGAIN)
            n = rt_sock_writable(t, s);
        else if (n >= 0) {
            text += n;
            len -= (size_t)n;
        }
        if (n < 0)
            return (int)n;
    }
    return 0;
}

/* The line that answers, without its end. */
static int receive(struct rt_task *t, struct rt_sock *s, char **out, size_t *out_len)
{
    size_t len = 0, max = 0;

    for (;;) {
        struct iovec iov;
        ssize_t n;

        if (len == max) {
            char *more = realloc(*out, max = MAX(2 * max, (size_t)4096));

            if (more == NULL || max > ANSWER_MAX)
                return -ENOMEM;
            *out = more;
        }
        iov = (struct iovec){*out + len, max - len};
        n = rt_sock_recv(s, &iov, 1);
        if (n == 0)
            return -ECONNRESET;
        if (n == -EAGAIN)
            n = rt_sock_readable(t, s);
        if (n < 0)
            return (int)n;
        len += (size_t)n;
        *out_len = len - 1;
        if (len > 0 && (*out)[len - 1] == '\n')
            return 0;
    }
}

static int transact(struct rt_task *t, const char *path, json_t *request, char **out, size_t *len)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    CLEANUP(free_p) char *text = json_dumps(request, JSON_COMPACT);
    struct rt_sock s = {.fd = -1};
    int rc;

    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    if (text == NULL)
        return -EINVAL;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    rc = rt_sock_connect(t, &s, (const struct sockaddr *)&addr, sizeof(addr));
    if (rc == 0)
        rc = send_all(t, &s, text, strlen(text));
    if (rc == 0)
        rc = receive(t, &s, out, len);
    rt_sock_close(&s);
    return rc;
}

/* What a method failed with is its errno; the numbers of JSON-RPC itself are far below. */
static int code_of(const json_t *error)
{
    json_int_t code = json_integer_value(json_object_get(error, "code"));

    return code < 0 && code > -1000 ? (int)code : -EINVAL;
}

int rpc_call(struct rt_task *t, struct cli *c, const char *path, const char *method, json_t *params,
             json_t **out_result)
{
    json_t *request = json_pack("{s:s, s:i, s:s, s:o}", "jsonrpc", "2.0", "id", 1, "method", method,
                                "params", params);
    CLEANUP(free_p) char *text = NULL;
    json_t *reply, *error;
    size_t len = 0;
    int rc;

    if (request == NULL)
        return cli_usage(c, "a name is no valid UTF-8");
    rc = transact(t, path, request, &text, &len);
    json_decref(request);
    if (rc < 0)
        return cli_fail(c, rc, "%s: %s%s", path, err_str(rc),
                        rc == -ECONNREFUSED || rc == -ENOENT
                            ? " (no daemon answers there; it is started with --socket PATH)"
                            : "");
    reply = json_loadb(text, len, 0, NULL);
    error = json_object_get(reply, "error");
    *out_result = json_incref(json_object_get(reply, "result"));
    if (error != NULL) {
        const char *why = json_string_value(json_object_get(error, "message"));

        rc = cli_fail(c, code_of(error), "%s: %s", path, why != NULL ? why : "it failed");
    } else if (*out_result == NULL) {
        rc = cli_fail(c, -EPROTO, "%s: the answer is no JSON-RPC", path);
    }
    json_decref(reply);
    return rc;
}
