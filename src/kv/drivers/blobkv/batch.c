/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV_BATCH: one block of the log, which is there whole or not at all. Values that are long, or that
 * the block has no room for, are written as chunks before, and the block names them: so a batch is
 * bounded by what its keys and names take, which is one segment, and each value by nothing but what
 * any value is.
 */
#include "kv/drivers/blobkv/large.h"

#include <string.h>

#define CHUNKED_MIN 512u /* shorter values are records always */

struct batch {
    struct bkv_op op; /* first */
    struct kv_req *kv;
    struct bkv_op *part;
    struct iovec *iov; /* of each item; of a part whose value is chunks, what its record holds */
    uint32_t *slot;
    struct bkv_large_out *out; /* of parts whose values are chunks; NULL: there are none */
    uint32_t inline_max;       /* longer values are chunks */
};

static void batch_free(struct batch *b)
{
    if (b == NULL)
        return;
    free(b->part);
    free(b->iov);
    free(b->slot);
    free(b->out);
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

static struct bkv_op part_of(struct bkv *s, const struct kv_batch_item *item, struct iovec *iov)
{
    struct bkv_op part = {
        .key = item->key,
        .hash = bkv_hash(s, item->key),
        .type = item->is_delete ? BKV_DELETE : BKV_VALUE,
    };

    if (item->is_delete)
        return part;
    *iov = (struct iovec){(void *)(uintptr_t)item->val.ptr, item->val.len};
    part.iov = iov;
    part.iovcnt = 1;
    part.value_bytes = (uint32_t)MIN(item->val.len, (size_t)BKV_INLINE_MAX);
    part.value_len = item->val.len;
    return part;
}

/* Bytes that records take when values above `inline_max` are chunks. */
static uint64_t records_len(const struct bkv *s, const struct batch *b, uint32_t inline_max,
                            bool *out_chunked)
{
    uint64_t sum = sizeof(struct bkv_block_head) + (s->nshards > 1 ? BKV_TXN_MARK_BYTES : 0);

    *out_chunked = false;
    for (uint32_t i = 0; i < b->op.nparts; i++) {
        const struct bkv_op *p = &b->part[i];
        uint64_t len = p->value_len;

        if (len > inline_max) {
            len = BKV_LARGE_HEAD_BYTES +
                  (len / s->large->chunk_bytes + 2) * sizeof(struct bkv_extent);
            *out_chunked = true;
        }
        sum += bkv_record_len((uint32_t)p->key.len, (uint32_t)MIN(len, (uint64_t)BKV_INLINE_MAX)) +
               (s->codec != NULL ? BKV_CODEC_EXTRA : 0);
    }
    return sum;
}

/* Which values are chunks: long ones, and shorter ones until the block has room for the rest. */
static int choose_chunked(const struct bkv *s, struct batch *b)
{
    uint64_t room = s->segment_bytes - s->sector_bytes;
    bool chunked;

    b->inline_max = BKV_INLINE_MAX;
    while (records_len(s, b, b->inline_max, &chunked) > room) {
        if (b->inline_max <= CHUNKED_MIN)
            return -EFBIG;
        b->inline_max /= 2;
    }
    if (!chunked)
        return 0;
    b->out = calloc(b->op.nparts, sizeof(*b->out));
    return b->out != NULL ? 0 : -ENOMEM;
}

static int batch_make(struct bkv *s, struct kv_req *kv, struct batch **out)
{
    CLEANUP(batch_free_p) struct batch *b = calloc(1, sizeof(*b));
    uint32_t n = 0, mask = 15;
    int rc;

    if (b == NULL)
        return -ENOMEM;
    while (mask + 1 < 2 * (uint64_t)kv->nbatch)
        mask = 2 * mask + 1;
    b->part = calloc(MAX(kv->nbatch, 1u), sizeof(*b->part));
    b->iov = calloc(MAX(kv->nbatch, 1u), sizeof(*b->iov));
    b->slot = calloc((size_t)mask + 1, sizeof(*b->slot));
    if (b->part == NULL || b->iov == NULL || b->slot == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < kv->nbatch; i++) {
        struct bkv_op part = part_of(s, &kv->batch[i], &b->iov[i]);

        add_part(b, mask, &part, &n);
    }
    b->kv = kv;
    b->op = (struct bkv_op){.part = b->part, .nparts = n, .done = batch_done};
    rc = choose_chunked(s, b);
    if (rc == 0)
        *out = take_ptr(&b);
    return rc;
}

/* --- values that are chunks ------------------------------------------------------------------- */

static bool is_chunked(const struct batch *b, uint32_t i)
{
    return b->part[i].type != BKV_DELETE && b->part[i].value_len > b->inline_max;
}

static int write_values(struct rt_task *t, struct bkv *s, struct batch *b)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < b->op.nparts; i++) {
        const struct bkv_op *p = &b->part[i];

        if (!is_chunked(b, i))
            continue;
        bkv_large_begin(&b->out[i], s, p->key);
        rc = bkv_large_write(t, &b->out[i], p->iov, 1, p->value_len);
    }
    /* The part's own iovec is the user's memory, which is done with when the chunks are written. */
    for (uint32_t i = 0; rc == 0 && i < b->op.nparts; i++)
        if (b->out[i].s != NULL)
            rc = bkv_large_finish(t, &b->out[i], &b->part[i],
                                  (struct iovec *)(uintptr_t)b->part[i].iov);
    return rc;
}

static int batch_task(struct rt_task *t, void *arg)
{
    struct batch *b = arg;
    struct kv_req *kv = b->kv;
    struct bkv *s = bkv_of(kv);
    struct bkv_op flush = {0};
    int rc;

    rt_task_shield(t, true);
    rc = write_values(t, s, b);
    if (rc == 0)
        rc = bkv_commit(t, s, &flush);
    if (rc == 0)
        rc = bkv_commit(t, s, &b->op);
    for (uint32_t i = 0; i < b->op.nparts; i++) {
        if (b->out[i].s == NULL)
            continue;
        if (rc < 0)
            bkv_large_abort(t, &b->out[i]);
        else
            bkv_large_done(&b->out[i]);
    }
    batch_done(&b->op, rc);
    bkv_task_ended(s);
    return 0;
}

/* `part`: of a batch over shards; or NULL. */
static void submit(struct bkv *s, struct kv_req *kv, struct bkv_txn_part *part)
{
    struct batch *b = NULL;
    int rc = batch_make(s, kv, &b);

    if (rc == 0 && part != NULL) {
        b->op.type = BKV_TXN;
        b->op.txn = part;
    }
    if (rc == 0 && b->out != NULL) {
        rc = bkv_task(s, "blobkv batch", batch_task, b);
        if (rc < 0)
            batch_free(b);
    } else if (rc == 0) {
        bkv_commit_submit(s, &b->op);
    }
    if (rc < 0)
        kv_complete(kv, rc);
}

void bkv_batch_submit(struct bkv *s, struct kv_req *kv)
{
    submit(s, kv, NULL);
}

void bkv_batch_part(struct bkv *s, struct kv_req *kv, struct bkv_txn_part *part)
{
    if (UNLIKELY(s->poison != 0))
        kv_complete(kv, -EIO);
    else
        submit(s, kv, part);
}
