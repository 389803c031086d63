/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The committer: takes all operations that wait, looks at their conditions, writes those that pass
 * as one block, flushes once, and only then makes them visible and completes them. Operations that
 * come meanwhile are the next block.
 *
 * A block has at most one record of a key. Of two stores of one key that wait together the first
 * is absorbed by the second; anything else about a key that the block has waits for the next one,
 * so that conditions always look at what is visible.
 */
#include "kv/drivers/blobkv/shards.h"

#include "base/plant.h"

#include <assert.h>
#include <string.h>

#define BLOCK_BYTES (1u * (uint32_t)MIB) /* a block grows to this, or as large as one batch */
#define BLOCK_OPS 4096u                  /* records, but for a batch of more */
#define RESOLVERS_MAX 64u

/* The block that is being made. */
struct bkv_block {
    uint8_t *buf;
    uint32_t buf_bytes;
    /* Records of the block by key: open addressing, emptied by walking rec[]. */
    struct bkv_op **rec;
    uint32_t nrecs, recs_max;
    uint32_t *slot; /* index in rec + 1 */
    uint32_t mask;
    struct list ops;     /* what is in it, batches as one */
    struct list flushes; /* ops that want nothing but the flush */
    struct bkv_op *txn;  /* a part of a batch over shards is a block of its own: this one */
    uint32_t used_max;   /* bytes at most */
    uint32_t room;
    bool progress; /* something of the queue has been dealt with */
    /* The block is durable, and whether it counts will be told: reads of what it has wait. */
    bool undecided;
    struct list readers; /* struct reader */
};

/* In kv_req.driver of a read that has not begun. */
struct reader {
    struct list link;
};
static_assert(sizeof(struct reader) <= sizeof(((struct kv_req *)0)->driver), "room in a request");

/* What a block has besides the records of its operations. */
static uint32_t base_bytes(const struct bkv *s)
{
    return (uint32_t)sizeof(struct bkv_block_head) + (s->nshards > 1 ? BKV_TXN_MARK_BYTES : 0);
}

int bkv_block_new(struct bkv *s)
{
    struct bkv_block *b = calloc(1, sizeof(*b));

    if (b == NULL)
        return -ENOMEM;
    s->block = b;
    list_init(&b->ops);
    list_init(&b->flushes);
    list_init(&b->readers);
    b->buf_bytes = BLOCK_BYTES + BKV_PAGE_BYTES;
    b->recs_max = BLOCK_OPS;
    b->mask = 2 * BLOCK_OPS - 1;
    b->used_max = base_bytes(s);
    b->buf = aligned_alloc(4096, b->buf_bytes);
    b->rec = malloc(b->recs_max * sizeof(struct bkv_op *));
    b->slot = calloc(b->mask + 1, sizeof(*b->slot));
    return b->buf != NULL && b->rec != NULL && b->slot != NULL ? 0 : -ENOMEM;
}

void bkv_block_free(struct bkv *s)
{
    if (s->block == NULL)
        return;
    free(s->block->buf);
    free(s->block->rec);
    free(s->block->slot);
    free(s->block);
    s->block = NULL;
}

static int block_grow(struct bkv_block *b, uint32_t bytes, uint32_t recs)
{
    if (recs > b->recs_max) {
        uint32_t mask = b->mask;
        struct bkv_op **rec;
        uint32_t *slot;

        must(b->nrecs == 0);
        while (mask + 1 < 2 * recs)
            mask = 2 * mask + 1;
        rec = malloc(recs * sizeof(struct bkv_op *));
        slot = calloc(mask + 1, sizeof(*slot));
        if (rec == NULL || slot == NULL) {
            free(rec);
            free(slot);
            return -ENOMEM;
        }
        free(b->rec);
        free(b->slot);
        b->rec = rec;
        b->slot = slot;
        b->recs_max = recs;
        b->mask = mask;
    }
    if (bytes > b->buf_bytes) {
        uint8_t *buf = aligned_alloc(4096, round_up_u64(bytes, 4096));

        if (buf == NULL)
            return -ENOMEM;
        free(b->buf);
        b->buf = buf;
        b->buf_bytes = (uint32_t)round_up_u64(bytes, 4096);
    }
    return 0;
}

/* --- the keys of the block -------------------------------------------------------------------- */

static struct bkv_op *block_find(const struct bkv_block *b, struct bytes key, uint64_t hash,
                                 uint32_t *out_slot)
{
    uint32_t at = (uint32_t)(hash >> 20) & b->mask;

    for (; b->slot[at] != 0; at = (at + 1) & b->mask) {
        struct bkv_op *op = b->rec[b->slot[at] - 1];

        if (op->hash == hash && bytes_eq(op->key, key)) {
            *out_slot = at;
            return op;
        }
    }
    *out_slot = at;
    return NULL;
}

static void block_add_record(struct bkv_block *b, struct bkv_op *op)
{
    uint32_t at;
    struct bkv_op *same = block_find(b, op->key, op->hash, &at);

    if (same != NULL)
        same->absorbed = true;
    must(b->nrecs < b->recs_max);
    b->rec[b->nrecs++] = op;
    b->slot[at] = b->nrecs;
}

static void block_empty(struct bkv *s, struct bkv_block *b)
{
    /* Entries that share a chain are found one by one: clear by walking the chain of each. */
    for (uint32_t i = 0; i < b->nrecs; i++) {
        uint32_t at = (uint32_t)(b->rec[i]->hash >> 20) & b->mask;

        for (; b->slot[at] != 0; at = (at + 1) & b->mask)
            b->slot[at] = 0;
    }
    b->nrecs = 0;
    b->txn = NULL;
    b->used_max = base_bytes(s);
}

/* --- conditions ------------------------------------------------------------------------------- */

static bool asks(const struct bkv_op *op)
{
    return op->must_be_there ||
           (op->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)) != 0;
}

/* What is visible of the op's key. 0; -ENOENT; -EAGAIN a leaf has to be read; or what failed. */
static int visible(struct bkv *s, const struct bkv_op *op, struct bkv_place *out)
{
    const struct bkv_mem_entry *e = bkv_memtab_find(s->active, op->key);

    if (e == NULL && s->frozen != NULL)
        e = bkv_memtab_find(s->frozen, op->key);
    if (e != NULL) {
        *out = e->place;
        return e->place.type == BKV_DELETE ? -ENOENT : 0;
    }
    if (op->found_in == s->checkpoint_no) {
        *out = op->found;
        return op->found_rc;
    }
    return bkv_tree_find_cached(s->tree, op->key, out);
}

static int resolve(struct rt_task *t, void *arg)
{
    struct bkv_op *op = arg;
    struct bkv *s = op->store;
    struct bkv_tree *tree = bkv_tree_ref(s->tree);
    uint64_t no = s->checkpoint_no;

    rt_task_shield(t, true);
    op->found_rc = bkv_tree_find(t, tree, op->key, &op->found, NULL);
    bkv_tree_put(tree);
    /* A leaf that was let go meanwhile may have been overwritten: that is no damage. */
    op->found_in = no == s->checkpoint_no ? no : 0;
    s->nresolving--;
    list_add_head(&s->queue, &op->link);
    bkv_commit_wake(s);
    bkv_task_ended(s);
    return 0;
}

/* 0: may be done; 1: not yet known; else the answer. */
static int judge(struct bkv *s, struct bkv_op *op)
{
    struct bkv_place place;
    int rc;

    if (LIKELY(!asks(op)))
        return 0;
    rc = visible(s, op, &place);
    if (rc == -EAGAIN) {
        if (s->nresolving >= RESOLVERS_MAX || bkv_task(s, "blobkv resolve", resolve, op) < 0)
            return 1;
        s->nresolving++;
        list_del(&op->link);
        return 1;
    }
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if ((op->flags & KV_F_MUST_EXIST) != 0 && rc == -ENOENT)
        return -ENOENT;
    if ((op->flags & KV_F_MUST_NOT_EXIST) != 0 && rc == 0)
        return -EEXIST;
    if (op->must_be_there && rc == -ENOENT)
        return -ENOENT;
    if ((op->flags & KV_F_IF_VERSION) != 0 && (rc == -ENOENT || place.seq != op->if_version))
        return -ESTALE;
    return 0;
}

/* --- collecting ------------------------------------------------------------------------------- */

static uint32_t record_max(const struct bkv *s, const struct bkv_op *op)
{
    return bkv_record_len((uint32_t)op->key.len, op->value_bytes) +
           (s->codec != NULL ? BKV_CODEC_EXTRA : 0);
}

static struct bkv_op *parts_of(struct bkv_op *op, unsigned *out_n)
{
    *out_n = op->nparts > 0 ? op->nparts : op->type != BKV_TXN;
    return op->nparts > 0 ? op->part : op;
}

/* The op does not pass. What it was told by is durable, so it need not wait for the block. */
static void answer(struct bkv *s, struct bkv_op *op, int rc)
{
    list_del(&op->link);
    s->block->progress = true;
    op->done(op, rc);
}

/* Whether a key of the op is in the block already, in a way that has to wait. */
static bool key_busy(struct bkv_block *b, struct bkv_op *op)
{
    unsigned n;
    struct bkv_op *part = parts_of(op, &n);

    if (b->nrecs == 0)
        return false;
    for (unsigned i = 0; i < n; i++) {
        uint32_t slot;
        struct bkv_op *same = block_find(b, part[i].key, part[i].hash, &slot);

        if (same == NULL)
            continue;
        if (op->nparts > 0 || asks(op) || op->type != BKV_VALUE || same->type != BKV_VALUE ||
            list_empty(&same->link))
            return true;
    }
    return false;
}

/* Memtable memory for all keys of an op, or for none. */
static bool reserve_keys(struct bkv *s, struct bkv_op *op)
{
    unsigned n;
    struct bkv_op *part = parts_of(op, &n);

    for (unsigned i = 0; i < n; i++) {
        if (bkv_memtab_reserve(s->active, (uint32_t)part[i].key.len))
            continue;
        while (i-- > 0)
            bkv_memtab_unreserve(s->active, (uint32_t)part[i].key.len);
        return false;
    }
    return true;
}

enum admit { ADMIT, ADMIT_SKIP, ADMIT_STOP_ALONE, ADMIT_STOP_ROOM, ADMIT_STOP_MEMORY };

static void set_room(struct bkv *s, struct bkv_block *b)
{
    const struct bkv_stream_pos *pos = &s->pos[BKV_HOT];
    uint32_t left = pos->segment != 0 ? s->segment_bytes - pos->offset : 0;
    uint32_t buf = b->buf_bytes - s->sector_bytes; /* a segment's head may go with it */

    b->room = MIN(left, buf);
}

/* Room for a batch that is larger than any block so far. 0; -EFBIG; -ENOMEM. */
static int make_fit(struct bkv *s, struct bkv_block *b, const struct bkv_op *op)
{
    uint32_t recs = MAX(op->nparts, 1u);
    uint64_t bytes = (uint64_t)op->record_max + base_bytes(s);
    int rc;

    if (LIKELY(bytes + s->sector_bytes <= b->buf_bytes && recs <= b->recs_max))
        return 0;
    if (bytes > s->segment_bytes - s->sector_bytes)
        return -EFBIG;
    if (b->nrecs > 0)
        return 0; /* the next block is its own */
    rc = block_grow(b, (uint32_t)bytes + 2 * s->sector_bytes, recs);
    set_room(s, b);
    return rc;
}

/* What may use the reserve: it gives space back. The collector moves a large value by an op. */
static bool gives_space(const struct bkv_op *op)
{
    return op->type == BKV_DELETE || op->keep_seq != 0;
}

/* An op that wants nothing but the flush. True: it was one. */
static bool admit_flush(struct bkv_block *b, struct bkv_op *op)
{
    if (op->type != 0 || op->nparts > 0)
        return false;
    list_del(&op->link);
    list_add_tail(&b->flushes, &op->link);
    b->progress = true;
    return true;
}

/* All of them: a store without room for anything else has them, too. */
static void collect_flushes(struct bkv *s, struct bkv_block *b)
{
    struct bkv_op *op;

    list_for_each (op, &s->queue, struct bkv_op, link)
        (void)admit_flush(b, op);
}

static enum admit admit(struct bkv *s, struct bkv_block *b, struct bkv_op *op, bool deletes_only)
{
    unsigned n;
    int rc;

    if (admit_flush(b, op))
        return ADMIT;
    if (b->txn != NULL || (op->type == BKV_TXN && b->nrecs > 0))
        return ADMIT_STOP_ALONE;
    if ((deletes_only && !gives_space(op)) || key_busy(b, op))
        return ADMIT_SKIP;
    rc = judge(s, op);
    if (rc == 0)
        rc = make_fit(s, b, op);
    (void)parts_of(op, &n);
    if (rc == 0)
        rc = bkv_drops_reserve(s, b->nrecs + n);
    if (rc < 0)
        answer(s, op, rc);
    if (rc != 0)
        return ADMIT_SKIP;
    if (b->used_max + op->record_max > b->room || b->nrecs + n > b->recs_max)
        return ADMIT_STOP_ROOM;
    if (!reserve_keys(s, op)) {
        if (b->nrecs > 0 || bkv_memtab_count(s->active) > 0)
            return ADMIT_STOP_MEMORY;
        answer(s, op, -EFBIG); /* a batch of more keys than the budget has room for */
        return ADMIT_SKIP;
    }
    list_del(&op->link);
    list_add_tail(&b->ops, &op->link);
    b->used_max += op->record_max;
    b->progress = true;
    if (op->type == BKV_TXN)
        b->txn = op;
    for (unsigned i = 0; i < n; i++)
        block_add_record(b, op->nparts > 0 ? &op->part[i] : op);
    return ADMIT;
}

/* Fills the block from the queue. Says what stopped it. */
static enum admit collect(struct bkv *s, struct bkv_block *b, bool deletes_only)
{
    struct bkv_op *op;

    list_for_each (op, &s->queue, struct bkv_op, link) {
        enum admit rc = admit(s, b, op, deletes_only);

        if (rc >= ADMIT_STOP_ALONE)
            return rc;
    }
    return ADMIT;
}

/* --- a block ---------------------------------------------------------------------------------- */

/* Encodes the records that were collected at `out`, which will lie at addr. Returns the length. */
static uint32_t encode(struct bkv *s, struct bkv_block *b, uint64_t addr, uint32_t gen,
                       uint8_t *out)
{
    struct bkv_block_info info = {
        .first_seq = s->last_seq + 1,
        .number = s->pos[BKV_HOT].number,
        .durable = s->pos[BKV_HOT].durable,
    };
    uint32_t at = sizeof(struct bkv_block_head), mark;

    mark = bkv_txn_mark(s, b->txn != NULL ? b->txn->txn : NULL, addr + at, gen, out + at,
                        b->room - at);
    at += mark;
    info.nrecords += mark > 0;
    for (uint32_t i = 0; i < b->nrecs; i++) {
        struct bkv_op *op = b->rec[i];
        struct bkv_record_in in = {
            .type = op->type,
            .key = op->key,
            .hash = op->hash,
            .seq = op->keep_seq != 0 ? op->keep_seq : ++s->last_seq,
            .iov = op->iov,
            .iovcnt = op->iovcnt,
            .value_bytes = op->value_bytes,
            .value_len = op->value_len,
            .flags = op->unflushed ? BKV_F_UNFLUSHED : 0,
        };
        int len;

        op->place = (struct bkv_place){
            .addr = addr + at, .seq = in.seq, .value_len = op->value_len, .type = op->type};
        if (op->absorbed)
            continue;
        len = bkv_record_encode(s->codec, &in, addr + at, gen, out + at, b->room - at);
        must(len > 0);
        op->place.rec_len = (uint32_t)len;
        at += (uint32_t)len;
        info.nrecords++;
        s->stats.user_bytes += op->key.len + op->value_bytes;
    }
    info.len_bytes = at;
    bkv_block_head_encode(&info, addr, gen, (uint32_t)s->secret[0], out);
    return at;
}

/* Writes the block that was collected, and a segment's head before it when one was just opened. */
static int write_block(struct rt_task *t, struct bkv *s, struct bkv_block *b,
                       const struct bkv_seg_info *opened)
{
    struct bkv_stream_pos *pos = &s->pos[BKV_HOT];
    uint64_t base = (uint64_t)pos->segment << s->segment_shift;
    uint32_t head = opened != NULL ? s->sector_bytes : 0;
    uint32_t len, whole;
    int rc;

    if (opened != NULL)
        bkv_seg_head_encode(opened, s->super.uuid, base, b->buf, s->sector_bytes);
    len = encode(s, b, base + pos->offset, s->seg[pos->segment].gen, b->buf + head);
    whole = (uint32_t)round_up_u64(len, s->sector_bytes);
    memset(b->buf + head + len, 0, whole - len);
    rc = bkv_write(t, s, b->buf, base + pos->offset - head, head + whole);
    if (rc < 0)
        return rc;
    bkv_txn_marked(s);
    pos->offset += whole;
    pos->number++;
    s->stats.log_bytes += head + whole;
    s->log_since_checkpoint += head + whole;
    if (s->paced_until != 0 && bkv_written(s) >= s->paced_until)
        rt_cond_wake_all(&s->paced);
    return 0;
}

static void apply(struct bkv *s, struct bkv_block *b)
{
    for (uint32_t i = 0; i < b->nrecs; i++) {
        struct bkv_op *op = b->rec[i];
        struct bytes extents = {0};

        if (UNLIKELY(op->absorbed)) {
            bkv_memtab_unreserve(s->active, (uint32_t)op->key.len);
            continue;
        }
        if (op->type == BKV_LARGE_VALUE)
            extents = op->named;
        if (op->type == BKV_DELETE)
            s->full = false;
        bkv_apply(s, op->key, op->hash, &op->place, extents, op->holds, 0);
    }
}

/* Completes everything that was in the block; `flushed`: what the flush came to. */
static void finish(struct bkv *s, struct bkv_block *b, int rc, int flushed)
{
    struct bkv_op *op;

    for (uint32_t i = 0; rc < 0 && i < b->nrecs; i++)
        bkv_memtab_unreserve(s->active, (uint32_t)b->rec[i]->key.len);
    block_empty(s, b);
    while ((op = list_pop_entry(&b->ops, struct bkv_op, link)) != NULL) {
        if (op->nparts > 0)
            op->place = op->part[op->nparts - 1].place;
        s->stats.ops++;
        op->done(op, rc);
    }
    while ((op = list_pop_entry(&b->flushes, struct bkv_op, link)) != NULL)
        op->done(op, flushed);
}

/* All that waits is answered so: nothing can be changed any more, or no room is to be had. */
static void refuse(struct bkv *s, int rc, bool data_only)
{
    struct bkv_op *op;

    list_for_each (op, &s->queue, struct bkv_op, link) {
        if (!data_only || !(gives_space(op) || (op->type == 0 && op->nparts == 0)))
            answer(s, op, rc);
    }
}

/* What the next segment is wanted for when there is no room for data; BKV_NEED_DATA: nothing. */
static enum bkv_need need_of_queue(const struct bkv *s)
{
    enum bkv_need need = BKV_NEED_DATA;
    const struct bkv_op *op;

    list_for_each (op, &s->queue, struct bkv_op, link) {
        if (op->keep_seq != 0)
            return BKV_NEED_MOVE; /* the collector waits for it: nobody else could make room */
        if (op->type == BKV_DELETE)
            need = BKV_NEED_DELETE;
    }
    return need;
}

static void refuse_moves(struct bkv *s)
{
    struct bkv_op *op;

    list_for_each (op, &s->queue, struct bkv_op, link) {
        if (op->keep_seq != 0)
            answer(s, op, -ENOSPC);
    }
}

/* The next segment of the log. 0; 1 not now: bkv_commit_wake() will come; or an errno. */
static int next_segment(struct rt_task *t, struct bkv *s, bool *deletes_only,
                        struct bkv_seg_info *out)
{
    enum bkv_need need = BKV_NEED_DATA;
    int rc = 0;

    /* Else its head could survive a crash that the end of the one before it does not. */
    if (s->pos[BKV_HOT].durable != s->pos[BKV_HOT].number)
        rc = bkv_flush(t, s);
    if (rc < 0)
        return rc;
    rc = bkv_space_room(s, BKV_NEED_DATA);
    if (rc == -ENOSPC)
        refuse(s, -ENOSPC, true);
    *deletes_only = rc < 0;
    if (rc < 0) {
        need = need_of_queue(s);
        if (need == BKV_NEED_DATA)
            return 1;
    }
    bkv_seg_seal(s, BKV_HOT);
    rc = bkv_seg_open(s, BKV_HOT, need, out);
    if (rc == -ENOSPC && need == BKV_NEED_MOVE)
        refuse_moves(s);
    else if (rc == -ENOSPC)
        refuse(s, -ENOSPC, false);
    return rc == -EAGAIN || rc == -ENOSPC ? 1 : rc;
}

/* Fills the block, and opens a segment for it when that is needed. */
static int fill_block(struct rt_task *t, struct bkv *s, struct bkv_block *b,
                      struct bkv_seg_info *opened, bool *out_opened)
{
    bool deletes_only = false;
    enum admit stop;
    int rc;

    /* What the index will need grows with each record: when room is short, each block asks. */
    if (s->pos[BKV_HOT].segment != 0 && s->pos[BKV_HOT].tight) {
        rc = bkv_space_room(s, BKV_NEED_DATA);
        deletes_only = rc < 0;
        if (rc == -ENOSPC)
            refuse(s, -ENOSPC, true);
    }
    collect_flushes(s, b);
    set_room(s, b);
    stop = collect(s, b, deletes_only);
    if (stop == ADMIT_STOP_ROOM && b->nrecs == 0 && b->txn == NULL) {
        rc = next_segment(t, s, &deletes_only, opened);
        if (rc == 1)
            s->stats.waits_space++;
        if (rc != 0)
            return MIN(rc, 0);
        *out_opened = true;
        set_room(s, b);
        stop = collect(s, b, deletes_only);
    }
    s->memory_short = stop == ADMIT_STOP_MEMORY && b->nrecs == 0;
    return 0;
}

/* The block of a batch over shards has been written, or not: what that means for the batch. */
static int settle_txn(struct rt_task *t, struct bkv *s, struct bkv_op *op, int rc)
{
    struct bkv_txn_part *part = op->txn;

    if (part->kind == BKV_TXN_PREPARED) {
        s->block->undecided = rc == 0;
        return rc == 0 ? bkv_txn_wait(t, s, op) : rc;
    }
    part->unknown = rc < 0;
    if (rc == 0)
        bkv_txn_committed(s, part);
    return rc;
}

/*
 * The batch may count already, and be seen in another shard: who reads here what it changes is
 * answered when this shard knows, too. So nobody sees one part of a batch and then misses another.
 */
bool bkv_undecided_hold(struct bkv *s, struct kv_req *kv)
{
    struct bkv_block *b = s->block;
    struct reader *r = (struct reader *)kv->driver;
    uint32_t slot;

    if (LIKELY(!b->undecided) || kv->snap != NULL)
        return false;
    if (kv->op != KV_LIST && block_find(b, kv->key, bkv_hash(s, kv->key), &slot) == NULL)
        return false;
    list_add_tail(&b->readers, &r->link);
    return true;
}

static void decided(struct bkv *s, struct bkv_block *b)
{
    struct reader *r;

    b->undecided = false;
    while ((r = list_pop_entry(&b->readers, struct reader, link)) != NULL)
        bkv_shard_here(s, container_of((void *)r, struct kv_req, driver));
}

static bool wants_flush(const struct bkv *s, const struct bkv_block *b)
{
    if (b->txn != NULL)
        return !(PLANTED("kv-txn-flush") && b->txn->txn->kind == BKV_TXN_PREPARED);
    return (b->nrecs > 0 && s->opts.sync) || !list_empty(&b->flushes);
}

/* Makes one block of what waits, and sees it through. */
static void run_block(struct rt_task *t, struct bkv *s)
{
    struct bkv_block *b = s->block;
    struct bkv_seg_info opened;
    bool is_new = false;
    int rc = fill_block(t, s, b, &opened, &is_new), flushed;

    if (rc == 0 && (b->nrecs > 0 || b->txn != NULL || is_new))
        rc = write_block(t, s, b, is_new ? &opened : NULL);
    if (rc == 0 && wants_flush(s, b) && !PLANTED("kv-early-ack"))
        rc = bkv_flush(t, s);
    flushed = rc;
    if (b->txn != NULL)
        rc = settle_txn(t, s, b->txn, rc);
    if (rc == 0) {
        apply(s, b);
        s->stats.commits += b->nrecs > 0 || b->txn != NULL;
    }
    if (UNLIKELY(b->undecided))
        decided(s, b);
    if (s->quiet)
        bkv_collector_wake(s);
    finish(s, b, rc, flushed);
}

/* The memtable is full: nothing can be done before a checkpoint has taken it. */
static void wait_memory(struct rt_task *t, struct bkv *s)
{
    const struct bkv_memtab *full = s->active;
    uint64_t failures = s->checkpoint_failures;

    s->stats.waits_memtab++;
    while (s->active == full && s->poison == 0 && s->checkpoint_failures == failures) {
        bkv_checkpoint_wake(s);
        (void)rt_cond_wait(t, &s->checkpoint_done);
    }
    if (s->active == full && s->poison == 0)
        refuse(s, s->checkpoint_rc, false);
}

int bkv_committer(struct rt_task *t, void *store)
{
    struct bkv *s = store;

    rt_task_shield(t, true);
    while (!s->closing || s->collecting || !list_empty(&s->queue) || s->nresolving > 0) {
        if (list_empty(&s->queue) || s->freezing || !s->commit_due) {
            rt_cond_wake_all(&s->flushed); /* no flush soon */
            (void)rt_cond_wait(t, &s->queued);
            continue;
        }
        s->block->progress = false;
        if (s->poison != 0) {
            refuse(s, -EIO, false);
            continue;
        }
        s->commit_due = s->memory_short = false;
        s->hot_busy = true;
        run_block(t, s);
        s->hot_busy = false;
        bkv_memory_fit(s);
        if (s->freezing)
            rt_cond_wake_all(&s->idle);
        if (s->memory_short)
            wait_memory(t, s);
        else if (bkv_checkpoint_due(s))
            bkv_checkpoint_wake(s);
        /* Without progress somebody else has to do something first, and tells. */
        s->commit_due |= s->block->progress || s->memory_short;
        /* Those whose operations are done come back with the next before a block is made. */
        (void)rt_yield(t);
    }
    bkv_task_ended(s);
    return 0;
}

/* --- submitting ------------------------------------------------------------------------------- */

void bkv_commit_submit(struct bkv *s, struct bkv_op *op)
{
    unsigned n;
    struct bkv_op *part = parts_of(op, &n);
    uint64_t max = 0;

    op->store = s;
    op->found_in = 0;
    list_init(&op->link);
    for (unsigned i = 0; i < n; i++) {
        list_init(&part[i].link); /* parts are on no list: that is how they are known */
        part[i].absorbed = false;
        max += op->type != 0 || op->nparts > 0 ? record_max(s, &part[i]) : 0;
    }
    op->record_max = (uint32_t)MIN(max, UINT32_MAX / 2);
    list_add_tail(&s->queue, &op->link);
    bkv_commit_wake(s);
}

struct waiting_op {
    struct rt_req req;
};

static void waiting_done(struct bkv_op *op, int rc)
{
    struct waiting_op *w = op->arg;

    rt_req_complete(&w->req, rc);
}

int bkv_commit(struct rt_task *t, struct bkv *s, struct bkv_op *op)
{
    struct waiting_op w = {0};

    rt_req_init_task(&w.req, t);
    rt_req_begin(&w.req);
    op->arg = &w;
    op->done = waiting_done;
    bkv_commit_submit(s, op);
    return rt_wait(t, &w.req);
}
