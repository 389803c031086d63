/* SPDX-License-Identifier: Apache-2.0 */
/* KV devices, synchronous: each call is one task on the library's reactor. */
#include "capi/capi.h"

#include <stdlib.h>

#define LIST_BYTES 65536u
#define STORE_FLAGS (KVASIR_MUST_EXIST | KVASIR_MUST_NOT_EXIST | KVASIR_IF_VERSION | KVASIR_APPEND)

static_assert(KVASIR_CAP_RANGE == KV_CAP_RANGE, "capabilities are the same bits");
static_assert(KVASIR_CAP_SNAPSHOT == KV_CAP_SNAPSHOT, "capabilities are the same bits");
static_assert(KVASIR_CAP_VOLATILE_CACHE == KV_CAP_VOLATILE_CACHE, "capabilities are the same bits");
static_assert(KVASIR_MUST_EXIST == KV_F_MUST_EXIST, "flags are the same bits");
static_assert(KVASIR_MUST_NOT_EXIST == KV_F_MUST_NOT_EXIST, "flags are the same bits");
static_assert(KVASIR_IF_VERSION == KV_F_IF_VERSION, "flags are the same bits");
static_assert(KVASIR_APPEND == KV_F_APPEND, "flags are the same bits");
static_assert(KVASIR_LEN_UNKNOWN == KV_LEN_UNKNOWN, "the same value");

/* --- open and close --------------------------------------------------------------------------- */

int capi_kv_open(struct rt_task *t, const char *uri, struct kvasir_kv *kv, struct err *why)
{
    int rc = kv_open(t, uri, &kv->dev, why);

    if (rc < 0)
        return rc;
    rc = kv_chan_get(t, kv->dev, &kv->chan);
    if (rc < 0) {
        kv_close(t, kv->dev);
        return err_set(why, rc, "%.200s: %s", uri, err_str(rc));
    }
    return 0;
}

void capi_kv_close(struct rt_task *t, struct kvasir_kv *kv)
{
    kv_chan_put(t, kv->chan);
    kv_close(t, kv->dev);
}

struct open_call {
    const char *uri;
    struct kvasir_kv *kv;
    struct err why;
};

static int open_task(struct rt_task *t, void *arg)
{
    struct open_call *c = arg;

    return capi_kv_open(t, c->uri, c->kv, &c->why);
}

int kvasir_open_kv(const char *uri, struct kvasir_kv **out_kv)
{
    struct open_call c = {.uri = uri};
    int rc = capi_enter();

    if (rc < 0)
        return rc;
    c.kv = calloc(1, sizeof(*c.kv));
    rc = c.kv == NULL ? -ENOMEM : capi_call(open_task, &c);
    if (rc < 0) {
        free(c.kv);
        capi_leave();
        return capi_fail(rc, c.why.text);
    }
    *out_kv = c.kv;
    return 0;
}

static int close_task(struct rt_task *t, void *arg)
{
    capi_kv_close(t, arg);
    return 0;
}

int kvasir_close_kv(struct kvasir_kv *kv)
{
    int rc;

    if (kv == NULL)
        return 0;
    if (kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    rc = capi_call(close_task, kv);
    if (rc < 0)
        return capi_fail(rc, NULL);
    free(kv);
    capi_leave();
    return 0;
}

void kvasir_kv_info(const struct kvasir_kv *kv, struct kvasir_kv_info *out_info)
{
    const struct kv_info *i = kv_info(kv->dev);

    *out_info = (struct kvasir_kv_info){
        .key_max = i->key_max,
        .val_max = i->val_max,
        .caps = i->caps,
        .size_bytes = i->size_bytes,
        .nkeys_max = i->nkeys_max,
        .optimal_bytes = i->optimal_bytes,
    };
    memcpy(out_info->uuid, i->uuid, sizeof(out_info->uuid));
}

/* --- one request ------------------------------------------------------------------------------ */

struct request_call {
    struct kvasir_kv *kv;
    struct kv_req req;
};

static int request_task(struct rt_task *t, void *arg)
{
    struct request_call *c = arg;

    rt_req_init_task(&c->req.req, t);
    kv_submit(c->kv->chan, &c->req);
    return rt_wait(t, &c->req.req);
}

static int run(struct request_call *c)
{
    int rc;

    if (c->kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    rc = capi_call(request_task, c);
    return rc < 0 ? capi_fail(rc, NULL) : 0;
}

int kvasir_kv_put_version(struct kvasir_kv *kv, const void *key, size_t key_len, const void *val,
                          size_t val_len, unsigned flags, uint64_t version, uint64_t *out_version)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)val, .iov_len = val_len};
    struct request_call c = {.kv = kv,
                             .req = {.op = KV_STORE,
                                     .flags = flags,
                                     .key = bytes_make(key, key_len),
                                     .iov = &iov,
                                     .iovcnt = 1,
                                     .len = val_len,
                                     .version = version}};
    int rc;

    if ((flags & ~STORE_FLAGS) != 0)
        return capi_fail(-EINVAL, NULL);
    if (out_version == NULL)
        c.req.flags |= KV_F_NO_VERSION;
    rc = run(&c);
    if (rc == 0 && out_version != NULL)
        *out_version = c.req.version;
    return rc;
}

int kvasir_kv_put(struct kvasir_kv *kv, const void *key, size_t key_len, const void *val,
                  size_t val_len, unsigned flags)
{
    return kvasir_kv_put_version(kv, key, key_len, val, val_len, flags, 0, NULL);
}

int kvasir_kv_get_range(struct kvasir_kv *kv, const void *key, size_t key_len, uint64_t off,
                        void *buf, size_t len, size_t *out_moved, uint64_t *out_len,
                        uint64_t *out_version)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct request_call c = {.kv = kv,
                             .req = {.op = KV_RETRIEVE,
                                     .flags = out_version == NULL ? KV_F_NO_VERSION : 0,
                                     .key = bytes_make(key, key_len),
                                     .off = off,
                                     .iov = &iov,
                                     .iovcnt = 1,
                                     .len = len}};
    int rc = run(&c);

    if (rc < 0)
        return rc;
    if (out_moved != NULL)
        *out_moved = c.req.moved;
    if (out_len != NULL)
        *out_len = c.req.value_len;
    if (out_version != NULL)
        *out_version = c.req.version;
    return 0;
}

int kvasir_kv_get(struct kvasir_kv *kv, const void *key, size_t key_len, void *buf, size_t max,
                  uint64_t *out_len)
{
    return kvasir_kv_get_range(kv, key, key_len, 0, buf, max, NULL, out_len, NULL);
}

int kvasir_kv_stat(struct kvasir_kv *kv, const void *key, size_t key_len, uint64_t *out_len,
                   uint64_t *out_version)
{
    struct request_call c = {.kv = kv,
                             .req = {.op = KV_STAT,
                                     .flags = out_version == NULL ? KV_F_NO_VERSION : 0,
                                     .key = bytes_make(key, key_len)}};
    int rc = run(&c);

    if (rc == 0 && out_len != NULL)
        *out_len = c.req.value_len;
    if (rc == 0 && out_version != NULL)
        *out_version = c.req.version;
    return rc;
}

int kvasir_kv_delete(struct kvasir_kv *kv, const void *key, size_t key_len, unsigned flags,
                     uint64_t version)
{
    struct request_call c = {
        .kv = kv,
        .req = {
            .op = KV_DELETE, .flags = flags, .key = bytes_make(key, key_len), .version = version}};

    if ((flags & ~KVASIR_IF_VERSION) != 0)
        return capi_fail(-EINVAL, NULL);
    return run(&c);
}

int kvasir_kv_flush(struct kvasir_kv *kv)
{
    struct request_call c = {.kv = kv, .req = {.op = KV_FLUSH}};

    return run(&c);
}

/* --- lists ------------------------------------------------------------------------------------ */

/* A page, and the key it ended with, from where the next one goes on. */
struct list_state {
    uint8_t buf[LIST_BYTES];
    uint8_t last[KV_KEY_MAX];
};

static int give_page(struct list_state *s, size_t moved, struct bytes *after,
                     int (*each)(void *arg, const void *key, size_t key_len), void *arg)
{
    struct kv_list_iter it = kv_list_begin(s->buf, moved);
    struct bytes key;

    while (kv_list_next(&it, &key)) {
        int rc = each(arg, key.ptr, key.len);

        if (rc != 0)
            return rc;
        memcpy(s->last, key.ptr, key.len);
        *after = bytes_make(s->last, key.len);
    }
    return 0;
}

int kvasir_kv_list(struct kvasir_kv *kv, const void *prefix, size_t prefix_len, const void *start,
                   size_t start_len, int (*each)(void *arg, const void *key, size_t key_len),
                   void *arg)
{
    CLEANUP(free_p) struct list_state *s = malloc(sizeof(*s));
    struct bytes from = bytes_make(start, start_len);
    uint32_t flags = 0;
    bool more = true;

    if (s == NULL)
        return capi_fail(-ENOMEM, NULL);
    while (more) {
        struct iovec iov = {.iov_base = s->buf, .iov_len = sizeof(s->buf)};
        struct request_call c = {.kv = kv,
                                 .req = {.op = KV_LIST,
                                         .flags = flags,
                                         .key = from,
                                         .prefix = bytes_make(prefix, prefix_len),
                                         .iov = &iov,
                                         .iovcnt = 1}};
        int rc = run(&c);

        if (rc == 0)
            rc = give_page(s, c.req.moved, &from, each, arg);
        if (rc != 0)
            return rc;
        more = c.req.more && c.req.moved > 0;
        flags = KV_F_AFTER;
    }
    return 0;
}

/* --- streams ---------------------------------------------------------------------------------- */

/* Both kinds are the same inside. */
struct stream {
    struct kvasir_kv *kv;
    struct kv_stream *stream;
};

static int begin(struct request_call *c, struct stream **out)
{
    struct stream *s = malloc(sizeof(*s));
    int rc;

    if (s == NULL)
        return capi_fail(-ENOMEM, NULL);
    rc = run(c);
    if (rc < 0) {
        free(s);
        return rc;
    }
    *s = (struct stream){.kv = c->kv, .stream = c->req.stream};
    *out = s;
    return 0;
}

/* The stream is gone, whatever comes back; only a call that could not be made leaves it. */
static int end(struct stream *s, enum kv_op op, uint64_t *out_version)
{
    struct request_call c = {.kv = s->kv, .req = {.op = (uint8_t)op, .stream = s->stream}};
    int rc = run(&c);

    if (rc == 0 && out_version != NULL)
        *out_version = c.req.version;
    if (rc != -EDEADLK)
        free(s);
    return rc;
}

int kvasir_put_begin(struct kvasir_kv *kv, const void *key, size_t key_len, uint64_t len,
                     unsigned flags, uint64_t version, struct kvasir_put **out_put)
{
    struct request_call c = {.kv = kv,
                             .req = {.op = KV_STORE_OPEN,
                                     .flags = flags,
                                     .key = bytes_make(key, key_len),
                                     .len = len,
                                     .version = version}};

    if ((flags & ~STORE_FLAGS) != 0)
        return capi_fail(-EINVAL, NULL);
    return begin(&c, (struct stream **)out_put);
}

int kvasir_put_data(struct kvasir_put *put, const void *data, size_t len)
{
    const struct stream *s = (struct stream *)put;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct request_call c = {
        .kv = s->kv,
        .req = {.op = KV_WRITE, .stream = s->stream, .iov = &iov, .iovcnt = 1, .len = len}};

    return run(&c);
}

int kvasir_put_commit(struct kvasir_put *put, uint64_t *out_version)
{
    return end((struct stream *)put, KV_COMMIT, out_version);
}

int kvasir_put_abort(struct kvasir_put *put)
{
    return put == NULL ? 0 : end((struct stream *)put, KV_ABORT, NULL);
}

int kvasir_get_begin(struct kvasir_kv *kv, const void *key, size_t key_len,
                     struct kvasir_get **out_get, uint64_t *out_len, uint64_t *out_version)
{
    struct request_call c = {.kv = kv,
                             .req = {.op = KV_RETRIEVE_OPEN,
                                     .flags = out_version == NULL ? KV_F_NO_VERSION : 0,
                                     .key = bytes_make(key, key_len)}};
    int rc = begin(&c, (struct stream **)out_get);

    if (rc == 0 && out_len != NULL)
        *out_len = c.req.value_len;
    if (rc == 0 && out_version != NULL)
        *out_version = c.req.version;
    return rc;
}

int kvasir_get_data(struct kvasir_get *get, uint64_t off, void *buf, size_t len, size_t *out_moved)
{
    const struct stream *s = (struct stream *)get;
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct request_call c = {
        .kv = s->kv,
        .req = {
            .op = KV_READ, .stream = s->stream, .off = off, .iov = &iov, .iovcnt = 1, .len = len}};
    int rc = run(&c);

    if (rc == 0)
        *out_moved = c.req.moved;
    return rc;
}

int kvasir_get_end(struct kvasir_get *get)
{
    return get == NULL ? 0 : end((struct stream *)get, KV_READ_CLOSE, NULL);
}
