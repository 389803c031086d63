/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc.h"

#include "base/log.h"
#include "daemon/method.h"
#include "rt/sock.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNS_MAX 16u
#define REQUEST_MAX (64u * 1024u)

/* The numbers of JSON-RPC 2.0; what a method fails with is its errno, below zero. */
#define ERROR_PARSE (-32700)
#define ERROR_REQUEST (-32600)
#define ERROR_METHOD (-32601)
#define ERROR_PARAMS (-32602)

struct conn {
    struct list link;
    struct rpc *rpc;
    struct rt_task *task;
    struct rt_sock sock;
    size_t len;
    char buf[REQUEST_MAX];
};

struct rpc {
    struct daemon *daemon;
    struct rt_sock listener;
    struct rt_task *acceptor;
    struct rt_req accept_done;
    struct list conns;
    unsigned nconns;
    struct rt_cond conn_ended;
    struct sockaddr_un addr;
};

/* --- one request ------------------------------------------------------------------------------ */

static json_t *error_of(int code, const char *text)
{
    json_t *obj = json_pack("{s:i, s:s}", "code", code, "message", text);

    return obj != NULL ? obj : json_pack("{s:i, s:s}", "code", code, "message", "failed");
}

static json_t *answer(const json_t *id, const char *what, json_t *value)
{
    json_t *obj = json_pack("{s:s, s:o}", "jsonrpc", "2.0", what, value);

    json_object_set_new(obj, "id", id != NULL ? json_deep_copy(id) : json_null());
    return obj;
}

static json_t *call(struct rt_task *t, struct rpc *r, const json_t *req)
{
    const json_t *id = json_object_get(req, "id"), *params = json_object_get(req, "params");
    const char *name = json_string_value(json_object_get(req, "method"));
    const struct method *m = name != NULL ? method_find_look(name) : NULL;
    json_t *result = NULL;
    struct err why = {""};
    int rc;

    if (name == NULL)
        return answer(id, "error", error_of(ERROR_REQUEST, "\"method\" is missing or no string"));
    if (m == NULL)
        return answer(id, "error",
                      error_of(ERROR_METHOD, method_find(name) != NULL
                                                 ? "this belongs into the configuration"
                                                 : "there is no such method"));
    if (method_check(m, params, &why) < 0)
        return answer(id, "error", error_of(ERROR_PARAMS, why.text));
    rc = m->call(t, r->daemon, params, &result, &why);
    if (rc < 0) {
        json_decref(result);
        return answer(id, "error", error_of(rc, why.text[0] != '\0' ? why.text : err_str(rc)));
    }
    return answer(id, "result", result != NULL ? result : json_true());
}

/* --- a connection ----------------------------------------------------------------------------- */

static int send_all(struct rt_task *t, struct conn *c, char *text, size_t len)
{
    while (len > 0) {
        struct iovec iov = {text, len};
        ssize_t n = rt_sock_send(&c->sock, &iov, 1);

        if (n == -EAGAIN)
            n = rt_sock_writable(t, &c->sock);
        else if (n >= 0) {
            text += n;
            len -= (size_t)n;
        }
        if (n < 0)
            return (int)n;
    }
    return 0;
}

static int reply(struct rt_task *t, struct conn *c, json_t *obj)
{
    char *text = json_dumps(obj, JSON_COMPACT);
    int rc = text != NULL ? send_all(t, c, text, strlen(text)) : -ENOMEM;

    free(text);
    json_decref(obj);
    return rc == 0 ? send_all(t, c, (char[]){'\n'}, 1) : rc;
}

/* All requests that are whole. An end that is missing is waited for; what is no JSON ends it. */
static int serve_buffered(struct rt_task *t, struct conn *c)
{
    for (;;) {
        size_t skip = strspn(c->buf, " \t\r\n");
        json_error_t error;
        json_t *req;
        int rc;

        if (skip == c->len) {
            c->len = 0;
            return 0;
        }
        req = json_loadb(c->buf, c->len, JSON_DISABLE_EOF_CHECK, &error);
        if (req == NULL && json_error_code(&error) == json_error_premature_end_of_input &&
            c->len < sizeof(c->buf) - 1)
            return 0;
        if (req == NULL) {
            (void)reply(t, c, answer(NULL, "error", error_of(ERROR_PARSE, error.text)));
            return -EPROTO;
        }
        c->len -= (size_t)error.position;
        memmove(c->buf, c->buf + error.position, c->len + 1);
        rc = reply(t, c, call(t, c->rpc, req));
        json_decref(req);
        if (rc < 0)
            return rc;
    }
}

static int conn_serve(struct rt_task *t, struct conn *c)
{
    for (;;) {
        struct iovec iov = {c->buf + c->len, sizeof(c->buf) - 1 - c->len};
        ssize_t n = rt_sock_recv(&c->sock, &iov, 1);
        int rc = 0;

        if (n == 0)
            return 0;
        if (n == -EAGAIN)
            rc = rt_sock_readable(t, &c->sock);
        else if (n < 0)
            return (int)n;
        if (n > 0) {
            c->len += (size_t)n;
            c->buf[c->len] = '\0';
            rc = serve_buffered(t, c);
        }
        if (rc < 0)
            return rc;
    }
}

static int conn_task(struct rt_task *t, void *arg)
{
    struct conn *c = arg;
    struct rpc *r = c->rpc;

    (void)conn_serve(t, c);
    rt_sock_close(&c->sock);
    list_del(&c->link);
    free(c);
    r->nconns--;
    rt_cond_wake_all(&r->conn_ended);
    return 0;
}

/* --- the socket ------------------------------------------------------------------------------- */

static void conn_start(struct rpc *r, int fd)
{
    struct conn *c = r->nconns < CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (c == NULL) {
        rt_sock_discard(fd);
        return;
    }
    c->rpc = r;
    c->sock.fd = -1;
    if (rt_sock_attach(&c->sock, fd) < 0 ||
        rt_task_start("rpc", conn_task, c, NULL, &c->task) < 0) {
        rt_sock_close(&c->sock);
        free(c);
        return;
    }
    r->nconns++;
    list_add_tail(&r->conns, &c->link);
}

static int accept_task(struct rt_task *t, void *arg)
{
    struct rpc *r = arg;
    int rc = 0;

    while (rc == 0) {
        int fd = rt_sock_accept(&r->listener);

        if (fd >= 0)
            conn_start(r, fd);
        else if (fd == -EAGAIN)
            rc = rt_sock_readable(t, &r->listener);
        else
            rc = rt_sleep(t, 100 * NS_PER_MS); /* out of descriptors: not for ever */
    }
    return rc;
}

/* A socket that a daemon has left which is no more: nobody answers on it. */
static void remove_stale(struct rt_task *t, const struct sockaddr_un *addr)
{
    struct rt_sock s = {.fd = -1};
    struct stat st;

    if (lstat(addr->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return;
    if (rt_sock_connect(t, &s, (const struct sockaddr *)addr, sizeof(*addr)) == -ECONNREFUSED)
        (void)unlink(addr->sun_path);
    rt_sock_close(&s);
}

int rpc_open(struct rt_task *t, struct daemon *d, const char *path, struct rpc **out,
             struct err *why)
{
    CLEANUP(free_p) struct rpc *r = calloc(1, sizeof(*r));
    mode_t mask;
    int rc;

    if (r == NULL)
        return err_set(why, -ENOMEM, "no memory");
    r->daemon = d;
    r->listener.fd = -1;
    r->addr.sun_family = AF_UNIX;
    list_init(&r->conns);
    if (strlen(path) >= sizeof(r->addr.sun_path))
        return err_set(why, -ENAMETOOLONG, "--socket: a path has at most %zu bytes",
                       sizeof(r->addr.sun_path) - 1);
    memcpy(r->addr.sun_path, path, strlen(path) + 1);
    remove_stale(t, &r->addr);
    mask = umask(0177); /* the daemon's user alone, from the first moment on */
    rc = rt_sock_listen(&r->listener, (const struct sockaddr *)&r->addr, sizeof(r->addr), 8);
    (void)umask(mask);
    if (rc < 0)
        return err_set(why, rc, "--socket %.150s: %s", path,
                       rc == -EADDRINUSE ? "another daemon answers there" : err_str(rc));
    rt_req_init_task(&r->accept_done, t);
    rc = rt_task_start("rpc accept", accept_task, r, &r->accept_done, &r->acceptor);
    if (rc < 0) {
        rt_sock_close(&r->listener);
        (void)unlink(path);
        return err_set(why, rc, "--socket %.150s: %s", path, err_str(rc));
    }
    *out = take_ptr(&r);
    return 0;
}

void rpc_close(struct rt_task *t, struct rpc *r)
{
    struct conn *c;

    if (r == NULL)
        return;
    rt_task_cancel(r->acceptor);
    (void)rt_wait(t, &r->accept_done);
    rt_sock_close(&r->listener);
    (void)unlink(r->addr.sun_path);
    list_for_each (c, &r->conns, struct conn, link)
        rt_task_cancel(c->task);
    while (r->nconns > 0)
        (void)rt_cond_wait(t, &r->conn_ended);
    free(r);
}
