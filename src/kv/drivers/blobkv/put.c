/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that change: each becomes an operation of the committer. */
#include "kv/drivers/blobkv/large.h"

static void put_done(struct bkv_op *op, int rc)
{
    struct kv_req *kv = container_of((void *)op, struct kv_req, driver);

    if (rc == 0)
        kv->version = op->place.seq;
    kv_complete(kv, rc);
}

static struct bkv_op *op_of(struct bkv *s, struct kv_req *kv, uint8_t type)
{
    struct bkv_op *op = (struct bkv_op *)kv->driver;

    static_assert(sizeof(*op) <= sizeof(kv->driver), "room in a request");
    *op = (struct bkv_op){
        .key = kv->key,
        .hash = bkv_hash(s, kv->key),
        .type = type,
        .flags = (uint8_t)(kv->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)),
        .if_version = kv->version,
        .done = put_done,
    };
    return op;
}

static void store(struct bkv *s, struct kv_req *kv)
{
    struct bkv_op *op = op_of(s, kv, BKV_VALUE);

    op->iov = kv->iov;
    op->iovcnt = kv->iovcnt;
    op->value_bytes = (uint32_t)kv->len;
    op->value_len = kv->len;
    bkv_commit_submit(s, op);
}

static void delete (struct bkv *s, struct kv_req *kv)
{
    struct bkv_op *op = op_of(s, kv, BKV_DELETE);

    op->must_be_there = true;
    bkv_commit_submit(s, op);
}

static void flush(struct bkv *s, struct kv_req *kv)
{
    struct bkv_op *op = (struct bkv_op *)kv->driver;

    *op = (struct bkv_op){.done = put_done};
    bkv_commit_submit(s, op);
}

/* --- submit ----------------------------------------------------------------------------------- */

void bkv_put_submit(struct bkv *s, struct kv_req *kv)
{
    if (UNLIKELY(s->poison != 0)) {
        kv_complete(kv, -EIO);
        return;
    }
    switch (kv->op) {
    case KV_STORE:
        if ((kv->flags & KV_F_APPEND) != 0)
            bkv_append_submit(s, kv);
        else if (kv->len > BKV_INLINE_MAX)
            bkv_large_store(s, kv);
        else
            store(s, kv);
        break;
    case KV_DELETE:
        delete (s, kv);
        break;
    case KV_BATCH:
        bkv_batch_submit(s, kv);
        break;
    default:
        flush(s, kv);
        break;
    }
}
