/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that change: each becomes an operation of the committer. */
#include "kv/drivers/blobkv/blobkv.h"

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

/* --- append ----------------------------------------------------------------------------------- */

/* What of the user's conditions does not hold for what is there. */
static int check_conditions(const struct kv_req *kv, int found, uint64_t version)
{
    if ((kv->flags & KV_F_MUST_EXIST) != 0 && found == -ENOENT)
        return -ENOENT;
    if ((kv->flags & KV_F_MUST_NOT_EXIST) != 0 && found == 0)
        return -EEXIST;
    if ((kv->flags & KV_F_IF_VERSION) != 0 && (found == -ENOENT || version != kv->version))
        return -ESTALE;
    return 0;
}

/* The old value and the new bytes, if the key is then still what it was. */
static int append_once(struct rt_task *t, struct bkv *s, struct kv_req *kv, struct bkv_op *op,
                       uint8_t *joined)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    struct bkv_record_out rec = {0};
    struct iovec iov = {.iov_base = joined, .iov_len = BKV_INLINE_MAX};
    struct bkv_place place;
    uint64_t old_len = 0;
    int found = bkv_read_key(t, s, kv->key, &place, &buf, &rec);
    int rc;

    if (found < 0 && found != -ENOENT)
        return found;
    rc = check_conditions(kv, found, place.seq);
    if (rc < 0)
        return rc;
    if (kv->len > BKV_INLINE_MAX || (found == 0 && rec.value_len + kv->len > BKV_INLINE_MAX))
        return -EFBIG;
    if (found == 0)
        rc = bkv_record_value(s->codec, &rec, 0, rec.value_len, &iov, 1, s->scratch, &old_len);
    if (rc < 0)
        return rc;
    (void)iov_copy_out(kv->iov, kv->iovcnt, 0, joined + old_len, kv->len);
    iov.iov_len = old_len + kv->len;
    *op = (struct bkv_op){
        .key = kv->key,
        .hash = bkv_hash(s, kv->key),
        .type = BKV_VALUE,
        .flags = found == 0 ? KV_F_IF_VERSION : KV_F_MUST_NOT_EXIST,
        .if_version = found == 0 ? place.seq : 0,
        .iov = &iov,
        .iovcnt = 1,
        .value_bytes = (uint32_t)iov.iov_len,
        .value_len = iov.iov_len,
    };
    rc = bkv_commit(t, s, op);
    return rc == -ESTALE || rc == -EEXIST ? -EAGAIN : rc;
}

static int append_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = kv_driver_dev(kv_chan_dev(kv->chan));
    struct bkv_op *op = (struct bkv_op *)kv->driver;
    CLEANUP(free_p) uint8_t *joined = malloc(BKV_INLINE_MAX);
    int rc = joined != NULL ? -EAGAIN : -ENOMEM;

    rt_task_shield(t, true);
    while (rc == -EAGAIN)
        rc = append_once(t, s, kv, op, joined);
    if (rc == 0)
        kv->version = op->place.seq;
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

static void append(struct bkv *s, struct kv_req *kv)
{
    int rc = bkv_task(s, "blobkv append", append_task, kv);

    if (rc < 0)
        kv_complete(kv, rc);
}

void bkv_put_submit(struct bkv *s, struct kv_req *kv)
{
    if (UNLIKELY(s->poison != 0)) {
        kv_complete(kv, -EIO);
        return;
    }
    switch (kv->op) {
    case KV_STORE:
        if ((kv->flags & KV_F_APPEND) != 0)
            append(s, kv);
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
