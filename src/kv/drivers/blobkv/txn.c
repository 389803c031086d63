/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/shards.h"

#include <string.h>

/* What the mark says is its value; a record has a key, and this one's is one zero byte. */
static const struct bytes mark_key = {.ptr = (const uint8_t *)"", .len = 1};

uint32_t bkv_txn_mark(struct bkv *s, const struct bkv_txn_part *part, uint64_t addr, uint32_t gen,
                      uint8_t *out, uint32_t room)
{
    struct bkv_txn_mark mark = {
        .prev_id = le64_make(s->txn.told_id),
        .prev_counts = s->txn.told_id != 0 && s->txn.told_counts,
    };
    struct iovec iov = {.iov_base = &mark, .iov_len = sizeof(mark)};
    struct bkv_record_in in = {
        .type = BKV_TXN,
        .key = mark_key,
        .seq = s->last_seq,
        .iov = &iov,
        .iovcnt = 1,
        .value_bytes = sizeof(mark),
        .value_len = sizeof(mark),
    };
    int len;

    if (part == NULL && s->txn.told_id == 0)
        return 0;
    if (part != NULL) {
        mark.id = le64_make(part->id);
        mark.shards = le64_make(part->shards);
        mark.kind = part->kind;
    }
    len = bkv_record_encode(s->codec, &in, addr, gen, out, room);
    must(len > 0 && (uint32_t)len <= BKV_TXN_MARK_BYTES);
    return (uint32_t)len;
}

void bkv_txn_marked(struct bkv *s)
{
    s->txn.told_id = 0;
}

int bkv_txn_wait(struct rt_task *t, struct bkv *s, struct bkv_op *op)
{
    enum bkv_verdict verdict;

    s->txn.verdict = BKV_TXN_OPEN;
    op->txn->prepared(op->txn);
    while (s->txn.verdict == BKV_TXN_OPEN)
        (void)rt_cond_wait(t, &s->txn.decided);
    verdict = s->txn.verdict;
    if (verdict == BKV_TXN_UNKNOWN)
        return bkv_poison(s, -EIO, "a batch over shards");
    s->txn.told_id = op->txn->id;
    s->txn.told_counts = verdict == BKV_TXN_COUNTS;
    return verdict == BKV_TXN_COUNTS ? 0 : -ECANCELED;
}

void bkv_txn_decide(struct bkv *s, enum bkv_verdict verdict)
{
    must(s->txn.verdict == BKV_TXN_OPEN);
    s->txn.verdict = verdict;
    rt_cond_wake_all(&s->txn.decided);
}

void bkv_txn_committed(struct bkv *s, const struct bkv_txn_part *part)
{
    for (unsigned i = 0; i < BKV_SHARDS_MAX; i++) {
        if ((part->shards >> i & 1) != 0)
            s->txn.last[i] = le64_make(part->id);
    }
}
