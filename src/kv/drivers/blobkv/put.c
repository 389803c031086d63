/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that change: each becomes an operation of the committer. */
#include "kv/drivers/blobkv/large.h"

#include <string.h>

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

/* --- batches ---------------------------------------------------------------------------------- */

struct batch {
    struct bkv_op op; /* first */
    struct kv_req *kv;
    struct bkv_op *part;
    struct iovec *iov;
    uint32_t *slot;
};

static void batch_free(struct batch *b)
{
    if (b == NULL)
        return;
    free(b->part);
    free(b->iov);
    free(b->slot);
    free(b);
}

static void batch_free_p(struct batch **pb)
{
    batch_free(*pb);
}

static void batch_done(struct bkv_op *op, int rc)
{
    struct batch *b = container_of(op, struct batch, op);
    struct kv_req *kv = b->kv;

    if (rc == 0)
        kv->version = op->place.seq;
    batch_free(b);
    kv_complete(kv, rc);
}

/* Of several items of one key only the last counts: a block has one record of a key. */
static void add_part(struct batch *b, uint32_t mask, const struct bkv_op *part, uint32_t *n)
{
    uint32_t at = (uint32_t)part->hash & mask;

    for (; b->slot[at] != 0; at = (at + 1) & mask) {
        struct bkv_op *same = &b->part[b->slot[at] - 1];

        if (same->hash == part->hash && bytes_eq(same->key, part->key)) {
            *same = *part;
            return;
        }
    }
    b->part[(*n)++] = *part;
    b->slot[at] = *n;
}

static int batch_make(struct bkv *s, struct kv_req *kv, struct batch **out)
{
    CLEANUP(batch_free_p) struct batch *b = calloc(1, sizeof(*b));
    uint32_t n = 0, mask = 15;

    if (b == NULL)
        return -ENOMEM;
    while (mask + 1 < 2 * (uint64_t)kv->nbatch)
        mask = 2 * mask + 1;
    b->part = calloc(kv->nbatch, sizeof(*b->part));
    b->iov = calloc(kv->nbatch, sizeof(*b->iov));
    b->slot = calloc((size_t)mask + 1, sizeof(*b->slot));
    if (b->part == NULL || b->iov == NULL || b->slot == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < kv->nbatch; i++) {
        const struct kv_batch_item *item = &kv->batch[i];
        struct bkv_op part = {
            .key = item->key,
            .hash = bkv_hash(s, item->key),
            .type = item->is_delete ? BKV_DELETE : BKV_VALUE,
        };

        if (!item->is_delete) {
            if (item->val.len > BKV_INLINE_MAX)
                return -EFBIG;
            b->iov[i] = (struct iovec){.iov_base = (void *)item->val.ptr, .iov_len = item->val.len};
            part.iov = &b->iov[i];
            part.iovcnt = 1;
            part.value_bytes = (uint32_t)item->val.len;
            part.value_len = item->val.len;
        }
        add_part(b, mask, &part, &n);
    }
    b->kv = kv;
    b->op = (struct bkv_op){.part = b->part, .nparts = n, .done = batch_done};
    *out = take_ptr(&b);
    return 0;
}

static void batch(struct bkv *s, struct kv_req *kv)
{
    struct batch *b = NULL;
    int rc = batch_make(s, kv, &b);

    if (rc < 0)
        kv_complete(kv, rc);
    else
        bkv_commit_submit(s, &b->op);
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
        batch(s, kv);
        break;
    default:
        flush(s, kv);
        break;
    }
}
