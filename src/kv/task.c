/* SPDX-License-Identifier: Apache-2.0 */
/* The calls for tasks: one request each, waited for. And the form of a list. */
#include "kv/kv.h"

#include "base/endian.h"

static const char *const op_names[KV_OPS] = {
    [KV_STORE] = "store",
    [KV_RETRIEVE] = "retrieve",
    [KV_STAT] = "stat",
    [KV_DELETE] = "delete",
    [KV_LIST] = "list",
    [KV_FLUSH] = "flush",
    [KV_STORE_OPEN] = "store_open",
    [KV_WRITE] = "write",
    [KV_COMMIT] = "commit",
    [KV_ABORT] = "abort",
    [KV_RETRIEVE_OPEN] = "retrieve_open",
    [KV_READ] = "read",
    [KV_READ_CLOSE] = "read_close",
    [KV_BATCH] = "batch",
    [KV_SNAP_OPEN] = "snap_open",
    [KV_SNAP_CLOSE] = "snap_close",
};

const char *kv_op_name(enum kv_op op)
{
    return (unsigned)op < KV_OPS ? op_names[op] : "unknown";
}

bool kv_list_put(uint8_t *buf, size_t max, size_t *used, struct bytes key)
{
    if (max - *used < key.len + 2)
        return false;
    le16_put(buf + *used, (uint16_t)key.len);
    memcpy(buf + *used + 2, key.ptr, key.len);
    *used += key.len + 2;
    return true;
}

static int run(struct rt_task *t, struct kv_chan *chan, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(chan, req);
    return rt_wait(t, &req->req);
}

int kv_store(struct rt_task *t, struct kv_chan *chan, struct bytes key, struct bytes val,
             uint32_t flags)
{
    struct iovec iov = {.iov_base = (void *)val.ptr, .iov_len = val.len};
    struct kv_req req = {.op = KV_STORE,
                         .flags = flags | KV_F_NO_VERSION,
                         .key = key,
                         .iov = &iov,
                         .iovcnt = 1,
                         .len = val.len};

    return run(t, chan, &req);
}

int kv_retrieve(struct rt_task *t, struct kv_chan *chan, struct bytes key, void *buf, size_t max,
                uint64_t *out_len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = max};
    struct kv_req req = {.op = KV_RETRIEVE,
                         .flags = KV_F_NO_VERSION,
                         .key = key,
                         .iov = &iov,
                         .iovcnt = 1,
                         .len = max};
    int rc = run(t, chan, &req);

    if (rc >= 0)
        *out_len = req.value_len;
    return rc;
}

int kv_stat(struct rt_task *t, struct kv_chan *chan, struct bytes key, uint64_t *out_len,
            uint64_t *out_version)
{
    uint32_t flags = out_version == NULL ? KV_F_NO_VERSION : 0;
    struct kv_req req = {.op = KV_STAT, .flags = flags, .key = key};
    int rc = run(t, chan, &req);

    if (rc < 0)
        return rc;
    if (out_len != NULL)
        *out_len = req.value_len;
    if (out_version != NULL)
        *out_version = req.version;
    return rc;
}

int kv_delete(struct rt_task *t, struct kv_chan *chan, struct bytes key)
{
    struct kv_req req = {.op = KV_DELETE, .key = key};

    return run(t, chan, &req);
}

int kv_list(struct rt_task *t, struct kv_chan *chan, struct bytes start, struct bytes prefix,
            uint32_t flags, void *buf, size_t max, size_t *out_moved, bool *out_more)
{
    struct iovec iov = {.iov_base = buf, .iov_len = max};
    struct kv_req req = {
        .op = KV_LIST, .flags = flags, .key = start, .prefix = prefix, .iov = &iov, .iovcnt = 1};
    int rc = run(t, chan, &req);

    if (rc < 0)
        return rc;
    *out_moved = req.moved;
    *out_more = req.more;
    return rc;
}

int kv_flush(struct rt_task *t, struct kv_chan *chan)
{
    struct kv_req req = {.op = KV_FLUSH};

    return run(t, chan, &req);
}
