/* SPDX-License-Identifier: Apache-2.0 */
/* KV_STORE of a large value: chunks straight from the user's memory, then the record. */
#include "kv/drivers/blobkv/large.h"

static int store(struct rt_task *t, struct bkv *s, struct kv_req *kv)
{
    struct bkv_op *op = (struct bkv_op *)kv->driver;
    struct bkv_large_out w;
    int rc;

    *op = (struct bkv_op){
        .key = kv->key,
        .hash = bkv_hash(s, kv->key),
        .flags = (uint8_t)(kv->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)),
        .if_version = kv->version,
    };
    bkv_large_begin(&w, s, kv->key);
    rc = bkv_large_write(t, &w, kv->iov, kv->iovcnt, kv->len);
    if (rc < 0) {
        bkv_large_abort(t, &w);
        return rc;
    }
    rc = bkv_large_commit(t, &w, op);
    if (rc == 0)
        kv->version = op->place.seq;
    return rc;
}

static int store_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);

    rt_task_shield(t, true);
    kv_complete(kv, store(t, s, kv));
    bkv_task_ended(s);
    return 0;
}

void bkv_large_store(struct bkv *s, struct kv_req *kv)
{
    int rc = bkv_task(s, "blobkv large store", store_task, kv);

    if (rc < 0)
        kv_complete(kv, rc);
}
