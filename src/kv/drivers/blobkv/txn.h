/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches over several shards. Shard 0's reactor leads: every other shard that has a part appends
 * it as a prepared block, flushes it, and does nothing to its log until it is told what becomes of
 * it; when all are durable shard 0 commits with a block of its own, and that block decides. Who
 * reads what a prepared block has waits for that, too. So a crash leaves a shard with one undecided
 * block at most, the last one of its log, and shard 0 knows of each shard which of its parts
 * counted last. docs/decisions/0011-shards.md.
 */
#ifndef KVASIR_KV_BLOBKV_TXN_H
#define KVASIR_KV_BLOBKV_TXN_H

#include "kv/drivers/blobkv/format.h"

#include "rt/task.h"

struct bkv;
struct bkv_op;
struct kv_req;

enum bkv_verdict { BKV_TXN_OPEN, BKV_TXN_COUNTS, BKV_TXN_VOID, BKV_TXN_UNKNOWN };

/* A shard's part of a batch. */
struct bkv_txn_part {
    uint64_t id;
    uint64_t shards;  /* COMMITTED: those that are prepared */
    uint8_t kind;     /* BKV_TXN_PREPARED or _COMMITTED */
    bool unknown;     /* out: whether it is durable nobody knows */
    /* PREPARED: called when it is durable. The committer waits for the verdict then. */
    void (*prepared)(struct bkv_txn_part *part);
};

/* What a shard remembers. */
struct bkv_txn_state {
    uint64_t told_id;     /* the next block tells of this one; 0: nothing to tell */
    bool told_counts;
    enum bkv_verdict verdict; /* of the part that the committer waits with */
    struct rt_cond decided;
    uint64_t counted;     /* at open, from shard 0: the last batch of this shard that counts */
    le64 last[BKV_SHARDS_MAX]; /* shard 0: the same, of each shard */
};

/** Bytes that the mark takes in a block at most. */
#define BKV_TXN_MARK_BYTES 128u
/** Writes the mark of a block that needs one at `out`: 0 or its length. `part` NULL: of none. */
uint32_t bkv_txn_mark(struct bkv *s, const struct bkv_txn_part *part, uint64_t addr, uint32_t gen,
                      uint8_t *out, uint32_t room);
/** The block with the mark has been written. */
void bkv_txn_marked(struct bkv *s);
/** In the committer, with a prepared block that is durable: waits for the verdict. 0; -ECANCELED it
 * does not count; -EIO nobody knows, and the store is poisoned. */
int bkv_txn_wait(struct rt_task *t, struct bkv *s, struct bkv_op *op);
/** What the committer waits for has been decided. */
void bkv_txn_decide(struct bkv *s, enum bkv_verdict verdict);
/** A committed block is durable. */
void bkv_txn_committed(struct bkv *s, const struct bkv_txn_part *part);

#endif
