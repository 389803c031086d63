/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of keys, synchronous: a page at a time, each after the last key of the one before. */
#include "capi/capi.h"

#include <stdlib.h>

#define LIST_BYTES 65536u

static_assert(KVASIR_AFTER == KV_F_AFTER, "flags are the same bits");

struct kvasir_iter {
    struct kvasir_kv *kv;
    struct kv_list_iter page;
    bool more;       /* there are keys after those of the page */
    unsigned flags;  /* of the next page */
    size_t from_len; /* where it begins */
    size_t prefix_len;
    uint8_t from[KV_KEY_MAX];
    uint8_t prefix[KV_KEY_MAX];
    uint8_t buf[LIST_BYTES];
};

int kvasir_iter_begin(struct kvasir_kv *kv, const void *prefix, size_t prefix_len,
                      const void *start, size_t start_len, unsigned flags,
                      struct kvasir_iter **out_iter)
{
    struct kvasir_iter *it;

    if ((flags & ~KVASIR_AFTER) != 0)
        return capi_fail(-EINVAL, NULL);
    if (prefix_len > KV_KEY_MAX || start_len > KV_KEY_MAX)
        return capi_fail(-ENAMETOOLONG, NULL);
    it = malloc(sizeof(*it));
    if (it == NULL)
        return capi_fail(-ENOMEM, NULL);
    it->kv = kv;
    it->page = kv_list_begin(it->buf, 0);
    it->more = true;
    it->flags = start_len > 0 ? flags : 0;
    it->from_len = start_len;
    it->prefix_len = prefix_len;
    if (start_len > 0)
        memcpy(it->from, start, start_len);
    if (prefix_len > 0)
        memcpy(it->prefix, prefix, prefix_len);
    *out_iter = it;
    return 0;
}

static int next_page(struct kvasir_iter *it)
{
    struct iovec iov = {.iov_base = it->buf, .iov_len = sizeof(it->buf)};
    struct capi_request c = {.kv = it->kv,
                             .req = {.op = KV_LIST,
                                     .flags = it->flags,
                                     .key = bytes_make(it->from, it->from_len),
                                     .prefix = bytes_make(it->prefix, it->prefix_len),
                                     .iov = &iov,
                                     .iovcnt = 1}};
    int rc = capi_run(&c);

    if (rc < 0)
        return rc;
    it->page = kv_list_begin(it->buf, c.req.moved);
    it->more = c.req.more && c.req.moved > 0;
    it->flags = KV_F_AFTER;
    return 0;
}

int kvasir_iter_next(struct kvasir_iter *it, const void **out_key, size_t *out_key_len)
{
    struct bytes key;

    while (!kv_list_next(&it->page, &key)) {
        int rc = it->more ? next_page(it) : 0;

        if (rc < 0)
            return rc;
        if (!it->more && it->page.at == it->page.end)
            return 0;
    }
    memcpy(it->from, key.ptr, key.len);
    it->from_len = key.len;
    *out_key = key.ptr;
    *out_key_len = key.len;
    return 1;
}

void kvasir_iter_end(struct kvasir_iter *it)
{
    free(it);
}

int kvasir_kv_list(struct kvasir_kv *kv, const void *prefix, size_t prefix_len, const void *start,
                   size_t start_len, int (*each)(void *arg, const void *key, size_t key_len),
                   void *arg)
{
    struct kvasir_iter *it;
    const void *key;
    size_t key_len;
    int rc = kvasir_iter_begin(kv, prefix, prefix_len, start, start_len, 0, &it);

    if (rc < 0)
        return rc;
    while ((rc = kvasir_iter_next(it, &key, &key_len)) == 1) {
        rc = each(arg, key, key_len);
        if (rc != 0)
            break;
    }
    kvasir_iter_end(it);
    return rc;
}
