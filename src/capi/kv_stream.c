/* SPDX-License-Identifier: Apache-2.0 */
/* Values in pieces, synchronous. */
#include "capi/capi.h"

#include <stdlib.h>

/* Both kinds are the same inside. */
struct stream {
    struct kvasir_kv *kv;
    struct kv_stream *stream;
};

static int begin(struct capi_request *c, struct stream **out)
{
    struct stream *s = malloc(sizeof(*s));
    int rc;

    if (s == NULL)
        return capi_fail(-ENOMEM, NULL);
    rc = capi_run(c);
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
    struct capi_request c = {.kv = s->kv, .req = {.op = (uint8_t)op, .stream = s->stream}};
    int rc = capi_run(&c);

    if (rc == 0 && out_version != NULL)
        *out_version = c.req.version;
    if (rc != -EDEADLK)
        free(s);
    return rc;
}

int kvasir_put_begin(struct kvasir_kv *kv, const void *key, size_t key_len, uint64_t len,
                     unsigned flags, uint64_t version, struct kvasir_put **out_put)
{
    struct capi_request c = {.kv = kv,
                             .req = {.op = KV_STORE_OPEN,
                                     .flags = flags,
                                     .key = bytes_make(key, key_len),
                                     .len = len,
                                     .version = version}};

    if ((flags & ~CAPI_STORE_FLAGS) != 0)
        return capi_fail(-EINVAL, NULL);
    return begin(&c, (struct stream **)out_put);
}

int kvasir_put_data(struct kvasir_put *put, const void *data, size_t len)
{
    const struct stream *s = (struct stream *)put;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct capi_request c = {
        .kv = s->kv,
        .req = {.op = KV_WRITE, .stream = s->stream, .iov = &iov, .iovcnt = 1, .len = len}};

    return capi_run(&c);
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
    struct capi_request c = {.kv = kv,
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
    struct capi_request c = {
        .kv = s->kv,
        .req = {
            .op = KV_READ, .stream = s->stream, .off = off, .iov = &iov, .iovcnt = 1, .len = len}};
    int rc = capi_run(&c);

    if (rc == 0)
        *out_moved = c.req.moved;
    return rc;
}

int kvasir_get_end(struct kvasir_get *get)
{
    return get == NULL ? 0 : end((struct stream *)get, KV_READ_CLOSE, NULL);
}
