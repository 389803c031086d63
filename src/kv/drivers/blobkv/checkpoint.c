/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint: the memtable, frozen between two commits, is merged into the leaves; then the
 * fences and the table of segments are written, the device is flushed, and the two super slots are
 * written one after the other, each flushed. From then on nothing before the frozen positions of
 * the log is needed, and segments in which nothing lives are free. Serving goes on meanwhile.
 *
 * It fails without loss: what it has changed in memory is kept apart (bkv_seg.added, .drop) until
 * the first super slot is durable, and the frozen memtable stays for the next try.
 */
#include "kv/drivers/blobkv/index_io.h"
#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/snap.h"

#include "base/log.h"
#include "base/plant.h"

#include <string.h>

#define TIGHT_SEGMENTS 16u

/* Who waits for a checkpoint. */
struct waiter {
    struct rt_req req;
    struct list link;
    struct bkv_hold *hold;
    struct bkv_tree **out_tree;
    struct bkv_stop *stop;
    void (*at)(void *arg); /* NULL: nobody wants to know */
    void *arg;
};

/* One that is under way, or failed and will be tried again. */
struct bkv_checkpoint_state {
    struct bkv_merge merge; /* first */
    struct bkv *s;
    struct bkv_stream_pos pos[BKV_STREAMS]; /* of the log's streams, at the freeze */
    uint64_t last_seq, last_order;
    struct list waiters;    /* those whose changes it has */
    struct bkv_drop *drops; /* LARGE records whose extents are to be taken off */
    size_t ndrops, drops_max;
    bool short_of_memory; /* a drop could not be noted */
    bool is_valid;        /* the last one succeeded: pos and last_order are the super slot's */
    struct bkv_super super;
};

int bkv_checkpoints_init(struct bkv *s)
{
    struct bkv_checkpoint_state *ck = calloc(1, sizeof(*ck));

    if (ck == NULL)
        return -ENOMEM;
    ck->s = s;
    list_init(&ck->waiters);
    list_init(&s->checkpoint_waiting);
    s->ckpt = ck;
    return 0;
}

void bkv_checkpoints_fini(struct bkv *s)
{
    if (s->ckpt != NULL)
        free(s->ckpt->drops);
    free(s->ckpt);
    s->ckpt = NULL;
}

/* --- the freeze ------------------------------------------------------------------------------- */

/* The instant: everything applied so far is in the frozen memtable or in leaves. */
static void freeze_now(struct bkv *s, struct bkv_checkpoint_state *ck)
{
    struct waiter *w;

    s->frozen = s->active;
    s->active = take_ptr(&s->spare);
    memcpy(ck->pos, s->pos, sizeof(ck->pos));
    ck->last_seq = s->last_seq;
    ck->last_order = s->last_order;
    ck->short_of_memory = ck->is_valid = false;
    for (uint32_t i = 1; i < s->nsegs; i++) {
        must(s->seg[i].live_frozen == 0);
        s->seg[i].live_frozen = s->seg[i].live_active;
        s->seg[i].live_active = 0;
        s->seg[i].past_frozen = s->seg[i].past_active;
        s->seg[i].past_active = 0;
    }
    free(ck->drops);
    ck->drops = take_ptr(&s->drops);
    ck->ndrops = s->ndrops;
    ck->drops_max = s->drops_max;
    s->ndrops = s->drops_max = 0;
    s->log_since_checkpoint = 0;
    s->dirty = false;
    while ((w = list_pop_entry(&s->checkpoint_waiting, struct waiter, link)) != NULL) {
        list_add_tail(&ck->waiters, &w->link);
        if (w->hold != NULL)
            bkv_hold(s, w->hold);
    }
}

/* Who makes a snapshot over shards stops each here, so that all have the same instant. */
static void stop(struct rt_task *t, struct bkv *s)
{
    struct waiter *w;

    list_for_each (w, &s->checkpoint_waiting, struct waiter, link) {
        if (w->stop == NULL || w->stop->go)
            continue;
        w->stop->stopped(w->stop);
        while (!w->stop->go)
            (void)rt_cond_wait(t, &s->idle);
    }
}

void bkv_stop_end(struct bkv *s, struct bkv_stop *stop)
{
    stop->go = true;
    rt_cond_wake_all(&s->idle);
}

/* Waits until nobody is inside a commit or a move. */
static int freeze(struct rt_task *t, struct bkv *s, struct bkv_checkpoint_state *ck)
{
    if (s->spare == NULL)
        s->spare = bkv_memtab_new(s->memtab_bytes);
    if (s->spare == NULL)
        return -ENOMEM;
    s->freezing = true;
    while (s->hot_busy || s->cold_busy)
        (void)rt_cond_wait(t, &s->idle);
    stop(t, s);
    freeze_now(s, ck);
    s->freezing = false;
    rt_cond_wake_all(&s->idle);
    rt_cond_wake_all(&s->checkpoint_done); /* there is room in the memtable again */
    bkv_commit_wake(s);
    return 0;
}

/* --- the merge -------------------------------------------------------------------------------- */

static struct bkv_checkpoint_state *state_of(struct bkv_merge *m)
{
    return container_of(m, struct bkv_checkpoint_state, merge);
}

static struct bkv_seg *seg_at(struct bkv *s, uint64_t addr)
{
    uint32_t i = bkv_seg_of(s, addr);

    return i < s->nsegs ? &s->seg[i] : NULL;
}

static void note_drop(struct bkv_checkpoint_state *ck, const struct bkv_place *old)
{
    if (ck->ndrops == ck->drops_max) {
        size_t max = MAX(2 * ck->drops_max, (size_t)64);
        struct bkv_drop *more = realloc(ck->drops, max * sizeof(*more));

        if (more == NULL) {
            ck->short_of_memory = true;
            return;
        }
        ck->drops = more;
        ck->drops_max = max;
    }
    ck->drops[ck->ndrops++] = (struct bkv_drop){.addr = old->addr, .rec_len = old->rec_len};
}

static void ignored(struct bkv_merge *m, const struct bkv_place *old)
{
    struct bkv_checkpoint_state *ck = state_of(m);
    struct bkv_seg *g = seg_at(ck->s, old->addr);

    if (g == NULL || old->type == BKV_DELETE)
        return;
    g->drop += old->rec_len;
    if (old->type == BKV_LARGE_VALUE)
        note_drop(ck, old);
}

/* What was in a segment that has been reclaimed counts no more: not even if the record has come to
 * the very same place in the segment's next life, where the memtable's entry counts. */
static void replaced(struct bkv_merge *m, const struct bkv_place *old)
{
    if (seg_at(state_of(m)->s, old->addr) != NULL && !bkv_is_stale(state_of(m)->s, old->addr))
        ignored(m, old);
}

static void dropped(struct bkv_merge *m, uint64_t addr)
{
    struct bkv_seg *g = seg_at(state_of(m)->s, addr);

    if (g != NULL)
        g->drop += BKV_PAGE_BYTES;
}

static void added(struct bkv_merge *m, uint64_t addr)
{
    seg_at(state_of(m)->s, addr)->added += BKV_PAGE_BYTES;
}

static bool must_rewrite(struct bkv_merge *m, uint64_t addr)
{
    const struct bkv_seg *g = seg_at(state_of(m)->s, addr);

    return g != NULL && g->victim > 0;
}

/* Takes what a LARGE record refers to off the segments its extents are in. When it cannot be read
 * they stay counted: space is lost, and nothing else. */
static int drop_extents(struct rt_task *t, struct bkv_checkpoint_state *ck,
                        const struct bkv_drop *drop)
{
    struct bkv *s = ck->s;
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    CLEANUP(bkv_extents_free) struct bkv_extents x = {0};
    struct bkv_record_out rec;
    int rc;

    rc = bkv_read_record(t, s, drop->addr, drop->rec_len, &buf, &rec);
    if (rc == 0)
        rc = bkv_extents_of(t, s, &rec, &x);
    if (rc == -EBADMSG) {
        log_error(
            "%s: the chunks of a value that is no more cannot be told: its record at %llu, or "
            "a list of it, is damaged; their space stays in use",
            s->name, (unsigned long long)drop->addr);
        return 0;
    }
    for (unsigned i = 0; rc == 0 && i < x.n + x.nlists; i++) {
        struct bkv_seg *g = seg_at(s, le64_get(x.e[i].addr));

        if (g != NULL)
            g->drop += bkv_extent_bytes(s, &x.e[i]);
    }
    return rc;
}

/* Index segments of which little lives are emptied along: else each checkpoint would leave one
 * behind for the leaves that outlive it. As many as there is room for, more when that is short. */
static bool choose_index_victims(struct bkv *s)
{
    uint32_t avail = bkv_space_avail(s), reserve = bkv_space_index_reserve(s);
    bool tight = avail < reserve + TIGHT_SEGMENTS, any = false;
    uint64_t room = (avail > reserve ? avail - reserve + 1ull : 1ull) * s->segment_bytes;
    uint32_t limit = tight ? s->segment_bytes / 2 : s->segment_bytes / 4;

    for (uint32_t i = 1; i < s->nsegs; i++) {
        struct bkv_seg *g = &s->seg[i];

        if (g->stream != BKV_INDEX || g->state != BKV_SEG_SEALED)
            continue;
        if (g->live_tree <= limit && g->live_tree <= room) {
            g->victim = MAX(g->victim, 1u);
            room -= g->live_tree;
        }
        any |= g->victim > 0;
    }
    return any;
}

static int merge(struct rt_task *t, struct bkv_checkpoint_state *ck, struct bkv_tree **out_tree)
{
    struct bkv *s = ck->s;
    int rc;

    if (!choose_index_victims(s) && bkv_memtab_count(s->frozen) == 0) {
        *out_tree = bkv_tree_ref(s->tree);
    } else {
        ck->merge = (struct bkv_merge){.replaced = replaced,
                                       .ignored = ignored,
                                       .dropped = dropped,
                                       .added = added,
                                       .must_rewrite = must_rewrite};
        rc = bkv_tree_merge(t, s->tree, s->frozen, &ck->merge, out_tree);
        if (rc < 0)
            return rc;
    }
    if (ck->short_of_memory)
        return -ENOMEM;
    for (size_t i = 0; i < ck->ndrops; i++) {
        rc = drop_extents(t, ck, &ck->drops[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- what is written -------------------------------------------------------------------------- */

/* What the index refers to in a segment, as of the checkpoint. */
static uint64_t live_after(const struct bkv_seg *g)
{
    uint64_t live = (uint64_t)g->live_tree + g->live_frozen + g->added;

    must(live >= g->drop);
    return live - g->drop;
}

static bool frees(const struct bkv_checkpoint_state *ck, uint32_t idx)
{
    const struct bkv_seg *g = &ck->s->seg[idx];

    return g->state == BKV_SEG_SEALED && live_after(g) == 0 && g->live_active == 0 &&
           g->live_held == 0 && g->order <= ck->last_order && idx != ck->pos[g->stream].segment;
}

/* A line of the table. What was opened since the freeze is free in it and has its generation of
 * before, for that is how recovery finds it; but for the index, which the table belongs to. */
static struct bkv_seg_entry entry_of(const struct bkv_checkpoint_state *ck, uint32_t idx)
{
    const struct bkv_seg *g = &ck->s->seg[idx];
    bool open = g->state == BKV_SEG_OPEN || g->state == BKV_SEG_SEALED;
    bool later = open && g->order > ck->last_order && g->stream != BKV_INDEX;
    struct bkv_seg_entry e = {
        .gen = le32_make(later ? g->gen - 1 : g->gen),
        .order = le64_make(g->order),
        .flags = g->allocated ? BKV_SEG_ALLOCATED : 0,
    };

    if (g->written)
        e.flags |= BKV_SEG_WRITTEN;
    if (idx == 0 || !open || later || g->freeing)
        return e;
    e.stream = g->stream;
    e.live_bytes = le32_make((uint32_t)live_after(g));
    e.end = le32_make(g->state == BKV_SEG_SEALED ? g->end : ck->s->pos[g->stream].offset);
    return e;
}

static size_t encode_table(const struct bkv_checkpoint_state *ck, uint64_t *pos, uint8_t *out,
                           size_t room)
{
    size_t n = 0;

    for (; *pos < ck->s->nsegs && n + sizeof(struct bkv_seg_entry) <= room; (*pos)++) {
        struct bkv_seg_entry e = entry_of(ck, (uint32_t)*pos);

        memcpy(out + n, &e, sizeof(e));
        n += sizeof(e);
    }
    return n;
}

/* Extents for `len` bytes, in pages, counted as added. */
static int place_root(struct rt_task *t, struct bkv_checkpoint_state *ck, uint64_t len)
{
    struct bkv *s = ck->s;
    uint32_t n = le32_get(ck->super.nextents);

    while (len > 0) {
        uint64_t pages = (len + BKV_PAGE_BYTES - 1) / BKV_PAGE_BYTES;
        uint64_t addr = 0, got;
        uint32_t run = 0;
        int rc;

        if (n == BKV_ROOT_EXTENTS)
            return -ENOSPC;
        rc = bkv_index_place(t, s, (uint32_t)MIN(pages, UINT32_MAX), &addr, &run);
        if (rc < 0)
            return rc;
        got = MIN(len, (uint64_t)run * BKV_PAGE_BYTES);
        seg_at(s, addr)->added += run * BKV_PAGE_BYTES;
        ck->super.extent[n++] =
            (struct bkv_root_extent){.addr = le64_make(addr), .len = le32_make((uint32_t)got)};
        len -= got;
    }
    ck->super.nextents = le32_make(n);
    return 0;
}

/* Streams bytes into the extents that were placed. */
struct root_writer {
    struct bkv_checkpoint_state *ck;
    uint8_t *buf;
    size_t fill;
    uint32_t extent; /* that is being filled */
    uint32_t done;   /* bytes of it that are written */
    uint32_t crc;
};
#define ROOT_BUF_BYTES (256u * 1024)

/* Writes what is in the buffer, as far as it goes; all of it at the end of a part. */
static int root_flush(struct rt_task *t, struct root_writer *w, bool all)
{
    struct bkv *s = w->ck->s;

    for (size_t at = 0;;) {
        struct bkv_root_extent *e = &w->ck->super.extent[w->extent];
        uint64_t addr = le64_get(e->addr);
        uint32_t left = w->fill > at ? le32_get(e->len) - w->done : 0;
        uint32_t n = (uint32_t)MIN((uint64_t)left, w->fill - at);
        uint32_t whole = (uint32_t)round_up_u64(n, BKV_PAGE_BYTES);
        int rc;

        if (n < left && !all) {
            n -= n % BKV_PAGE_BYTES;
            whole = n;
        }
        if (n == 0) {
            memmove(w->buf, w->buf + at, w->fill - at);
            w->fill -= at;
            return 0;
        }
        if (whole > n) /* the last page of an extent, and then of the part: nothing follows */
            memset(w->buf + at + n, 0, whole - n);
        rc = bkv_codec_crypt_root(s->codec, addr + w->done, w->buf + at, whole, true);
        if (rc < 0)
            return rc;
        if (w->done == 0)
            w->crc = bkv_crc(addr, 0, NULL, 0);
        w->crc = crc32c(w->crc, w->buf + at, n);
        rc = bkv_write(t, s, w->buf + at, addr + w->done, whole);
        if (rc < 0)
            return rc;
        s->stats.checkpoint_bytes += whole;
        w->done += n;
        at += n;
        if (w->done == le32_get(e->len)) {
            e->crc = le32_make(w->crc);
            w->extent++;
            w->done = 0;
        }
    }
}

typedef size_t (*root_encode_fn)(const struct bkv_checkpoint_state *ck, const void *arg,
                                 uint64_t *pos, uint8_t *out, size_t room);

static size_t fences_part(const struct bkv_checkpoint_state *ck, const void *arg, uint64_t *pos,
                          uint8_t *out, size_t room)
{
    return bkv_tree_encode(arg, pos, out, room);
}

static size_t table_part(const struct bkv_checkpoint_state *ck, const void *arg, uint64_t *pos,
                         uint8_t *out, size_t room)
{
    return encode_table(ck, pos, out, room);
}

static int write_part(struct rt_task *t, struct root_writer *w, root_encode_fn encode,
                      const void *arg, uint64_t len)
{
    uint64_t pos = 0, sum = 0;

    while (sum < len) {
        size_t n = encode(w->ck, arg, &pos, w->buf + w->fill, ROOT_BUF_BYTES - w->fill);
        int rc;

        must(n > 0 || w->fill > 0);
        w->fill += n;
        sum += n;
        must(sum <= len);
        rc = root_flush(t, w, sum == len);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* What `n` extents of the last root take is nobody's any more. */
static void drop_root(struct bkv *s, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < n; i++) {
        const struct bkv_root_extent *e = &s->super.extent[i];

        seg_at(s, le64_get(e->addr))->drop +=
            (uint32_t)round_up_u64(le32_get(e->len), BKV_PAGE_BYTES);
    }
}

static int write_root(struct rt_task *t, struct bkv_checkpoint_state *ck,
                      const struct bkv_tree *tree)
{
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, ROOT_BUF_BYTES + BKV_PAGE_BYTES);
    struct root_writer w = {.ck = ck, .buf = buf};
    struct bkv *s = ck->s;
    uint64_t fences = bkv_tree_encoded_bytes(tree);
    uint64_t table = (uint64_t)s->nsegs * sizeof(struct bkv_seg_entry);
    int rc;

    if (buf == NULL)
        return -ENOMEM;
    /* The root of the checkpoint before this one is not needed any more then. */
    drop_root(s, 0, le32_get(s->super.nextents));
    ck->super.nextents = le32_make(0);
    memset(ck->super.extent, 0, sizeof(ck->super.extent));
    rc = place_root(t, ck, fences);
    if (rc == 0)
        rc = place_root(t, ck, table);
    if (rc < 0)
        return rc;
    for (uint32_t i = 1; i < s->nsegs; i++)
        s->seg[i].freeing = frees(ck, i);
    ck->super.table_epoch = s->super.epoch;
    rc = write_part(t, &w, fences_part, tree, fences);
    if (rc == 0)
        rc = write_part(t, &w, table_part, NULL, table);
    return rc;
}

static struct bkv_position position_of(const struct bkv_stream_pos *pos)
{
    return (struct bkv_position){
        .segment = le32_make(pos->segment),
        .offset = le32_make(pos->offset),
        .number = le32_make(pos->number),
    };
}

int bkv_super_write(struct rt_task *t, struct bkv *s, struct bkv_super *super)
{
    CLEANUP(free_p) struct bkv_super *page = aligned_alloc(4096, sizeof(*page));

    if (page == NULL)
        return -ENOMEM;
    super->slot_seq = le64_make(le64_get(super->slot_seq) + 1);
    super->incompat = le32_make(le32_get(super->incompat) | s->incompat);
    for (unsigned i = 0; i < 2; i++) {
        unsigned slot = (s->super_slot + i) % 2;
        int rc;

        *page = *super;
        bkv_super_seal(page, slot);
        rc = bkv_write(t, s, page, bkv_super_addr(slot), sizeof(*page));
        if (rc == 0)
            rc = bkv_flush_soon(t, s);
        if (rc < 0)
            return rc;
        s->stats.checkpoint_bytes += sizeof(*page);
    }
    s->super = *super;
    return 0;
}

static int write_super(struct rt_task *t, struct bkv_checkpoint_state *ck,
                       const struct bkv_tree *tree)
{
    struct bkv *s = ck->s;
    struct bkv_super *super = &ck->super;

    super->nsegments = le32_make(s->nsegs);
    super->last_seq = le64_make(ck->last_seq);
    super->last_order = le64_make(MAX(ck->last_order, s->pos[BKV_INDEX].last_order));
    super->nkeys = le64_make(bkv_tree_nkeys(tree));
    super->pos[BKV_HOT] = position_of(&ck->pos[BKV_HOT]);
    super->pos[BKV_COLD] = position_of(&ck->pos[BKV_COLD]);
    super->pos[BKV_LARGE] = position_of(&ck->pos[BKV_LARGE]);
    super->pos[BKV_INDEX] = position_of(&s->pos[BKV_INDEX]);
    memcpy(super->shards.txn, s->txn.last, sizeof(super->shards.txn));
    return bkv_super_write(t, s, super);
}

/* --- one checkpoint --------------------------------------------------------------------------- */

/* The checkpoint is durable: what was kept apart counts now. */
static void adopt(struct bkv *s, struct bkv_checkpoint_state *ck, struct bkv_tree *tree)
{
    struct bkv_tree *old = s->tree;
    struct bkv_memtab *memtab = take_ptr(&s->frozen);

    for (uint32_t i = 1; i < s->nsegs; i++) {
        struct bkv_seg *g = &s->seg[i];

        g->live_tree = (uint32_t)live_after(g);
        g->live_frozen = g->added = g->drop = 0;
        g->past_frozen = 0;
        if (g->freeing)
            bkv_seg_free(s, i);
        else if (g->victim > 0)
            g->victim--;
        g->freeing = false;
    }
    s->tree = tree;
    s->tree_order = ck->last_order;
    s->checkpoint_no++;
    bkv_tree_put(old);
    ck->ndrops = 0;
    if (memtab == s->replay_memtab) {
        s->replay_memtab = NULL;
        bkv_memtab_free(memtab);
    } else {
        must(s->spare == NULL);
        bkv_memtab_reset(memtab);
        s->spare = memtab;
    }
    bkv_memory_fit(s);
    bkv_snaps_trim(s);
    bkv_supply_wake(s);
    bkv_space_wake(s);
    bkv_collector_wake(s);
}

static void forget(struct bkv *s, size_t ndrops, struct bkv_checkpoint_state *ck)
{
    for (uint32_t i = 1; i < s->nsegs; i++) {
        s->seg[i].added = s->seg[i].drop = 0;
        s->seg[i].freeing = false;
    }
    ck->ndrops = MIN(ck->ndrops, ndrops);
}

static int run(struct rt_task *t, struct bkv *s, struct bkv_checkpoint_state *ck)
{
    struct bkv_tree *tree = NULL;
    size_t ndrops = ck->ndrops;
    int rc;

    ck->super = s->super;
    rc = merge(t, ck, &tree);
    if (rc == 0)
        rc = write_root(t, ck, tree);
    if (rc == 0)
        rc = bkv_cold_settle(t, s, ck->last_order);
    /* Everything the new super slot speaks of: leaves, root, and records that nobody flushed. */
    if (rc == 0 && !PLANTED("kv-order"))
        rc = bkv_flush_soon(t, s);
    if (rc == 0)
        rc = write_super(t, ck, tree);
    if (rc == 0) {
        adopt(s, ck, tree);
        ck->is_valid = true;
        return 0;
    }
    if (tree != NULL)
        bkv_tree_put(tree);
    forget(s, ndrops, ck);
    return rc;
}

/* --- reclaiming without a merge --------------------------------------------------------------- */

static bool can_reclaim(const struct bkv_checkpoint_state *ck, uint32_t idx)
{
    const struct bkv_seg *g = &ck->s->seg[idx];

    return g->state == BKV_SEG_SEALED && g->emptied && !g->has_large && g->live_active == 0 &&
           g->live_held == 0 && g->order <= ck->last_order && idx != ck->pos[g->stream].segment;
}

/* The table of now, beside the fences that are there. */
static int write_table(struct rt_task *t, struct bkv_checkpoint_state *ck)
{
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, ROOT_BUF_BYTES + BKV_PAGE_BYTES);
    struct bkv *s = ck->s;
    uint64_t table = (uint64_t)s->nsegs * sizeof(struct bkv_seg_entry), old = 0;
    uint64_t old_table = (uint64_t)le32_get(s->super.nsegments) * sizeof(struct bkv_seg_entry);
    uint32_t n = le32_get(s->super.nextents);
    struct root_writer w = {.ck = ck, .buf = buf};
    int rc;

    if (buf == NULL)
        return -ENOMEM;
    while (n > 0 && old < old_table)
        old += le32_get(s->super.extent[--n].len);
    must(old == old_table);
    drop_root(s, n, le32_get(s->super.nextents));
    w.extent = n;
    ck->super.nextents = le32_make(n);
    ck->super.table_epoch = s->super.epoch;
    rc = place_root(t, ck, table);
    return rc == 0 ? write_part(t, &w, table_part, NULL, table) : rc;
}

static int reclaim_now(struct rt_task *t, struct bkv *s, struct bkv_checkpoint_state *ck)
{
    uint64_t now = s->last_order;
    int rc;

    ck->super = s->super;
    rc = write_table(t, ck);
    if (rc == 0 && !PLANTED("kv-cold-head"))
        rc = bkv_cold_settle(t, s, now);
    /* Before the super slot speaks of it; and what was moved, before the place it came from is used
     * again. */
    if (rc == 0)
        rc = bkv_flush_soon(t, s);
    if (rc < 0)
        return rc;
    ck->super.nsegments = le32_make(s->nsegs);
    ck->super.pos[BKV_INDEX] = position_of(&s->pos[BKV_INDEX]);
    rc = bkv_super_write(t, s, &ck->super);
    if (rc < 0)
        return rc;
    for (uint32_t i = 1; i < s->nsegs; i++) {
        struct bkv_seg *g = &s->seg[i];

        g->live_tree = g->freeing ? 0 : (uint32_t)live_after(g);
        g->added = g->drop = 0;
        if (g->freeing)
            bkv_seg_free(s, i);
        g->freeing = false;
    }
    bkv_supply_wake(s);
    bkv_space_wake(s);
    bkv_collector_wake(s);
    return 0;
}

static void reclaim(struct rt_task *t, struct bkv *s)
{
    struct bkv_checkpoint_state *ck = s->ckpt;
    uint32_t n = 0;

    /* Only what a checkpoint of this process tells the place of in the log. */
    if (s->poison != 0 || s->frozen != NULL || !ck->is_valid)
        return;
    for (uint32_t i = 1; i < s->nsegs; i++) {
        s->seg[i].freeing = can_reclaim(ck, i);
        n += s->seg[i].freeing;
    }
    if (n > 0 && reclaim_now(t, s, ck) < 0)
        forget(s, ck->ndrops, ck);
}

uint32_t bkv_reclaimable(const struct bkv *s)
{
    uint32_t n = 0;

    for (uint32_t i = 1; s->ckpt->is_valid && i < s->nsegs; i++)
        n += can_reclaim(s->ckpt, i);
    return n;
}

void bkv_reclaim_soon(struct bkv *s)
{
    s->reclaim_due = s->reclaiming = true;
    rt_cond_wake_all(&s->checkpoint_wanted);
}

void bkv_reclaim(struct rt_task *t, struct bkv *s)
{
    uint64_t before = s->reclaims;

    while (s->reclaims == before && s->poison == 0 && !s->stopped) {
        bkv_reclaim_soon(s);
        (void)rt_cond_wait(t, &s->checkpoint_done);
    }
}

static void answer(struct bkv *s, struct bkv_checkpoint_state *ck, int rc)
{
    struct waiter *w;

    while ((w = list_pop_entry(&ck->waiters, struct waiter, link)) != NULL) {
        if (w->hold != NULL && rc == 0)
            *w->out_tree = bkv_tree_ref(s->tree);
        if (w->at != NULL && rc == 0)
            w->at(w->arg);
        if (w->hold != NULL && rc < 0)
            bkv_release(s, w->hold);
        rt_req_complete(&w->req, rc);
    }
}

static void one(struct rt_task *t, struct bkv *s)
{
    struct bkv_checkpoint_state *ck = s->ckpt;
    uint64_t began = rt_now();
    int rc = s->poison != 0 ? -EIO : 0;

    if (rc == 0 && s->frozen == NULL)
        rc = freeze(t, s, ck);
    if (rc == 0)
        rc = run(t, s, ck);
    if (rc < 0) {
        struct waiter *w;

        if (s->poison == 0)
            log_warn("%s: a checkpoint failed: %s", s->name, err_str(rc));
        s->checkpoint_rc = rc;
        s->checkpoint_failures++;
        s->dirty = true;
        /* Those who came since the freeze, too. */
        while ((w = list_pop_entry(&s->checkpoint_waiting, struct waiter, link)) != NULL) {
            w->hold = NULL;
            list_add_tail(&ck->waiters, &w->link);
        }
    } else {
        s->stats.checkpoints++;
        s->stats.checkpoint_ns += rt_now() - began;
    }
    answer(s, ck, rc);
    s->reclaims++;
    rt_cond_wake_all(&s->checkpoint_done);
    if (!list_empty(&s->checkpoint_waiting))
        s->checkpoint_due = true;
}

bool bkv_checkpoint_due(const struct bkv *s)
{
    return s->frozen == NULL && (bkv_memtab_bytes(s->active) >= s->memtab_bytes / 4 * 3 ||
                                 s->log_since_checkpoint >= s->checkpoint_log_bytes);
}

void bkv_checkpoint_wake(struct bkv *s)
{
    s->checkpoint_due = true;
    rt_cond_wake_all(&s->checkpoint_wanted);
}

int bkv_checkpointer(struct rt_task *t, void *store)
{
    struct bkv *s = store;

    rt_task_shield(t, true);
    while (!s->stopped || s->checkpoint_due) {
        if (!s->checkpoint_due && !s->reclaim_due) {
            (void)rt_cond_wait(t, &s->checkpoint_wanted);
            continue;
        }
        if (!s->checkpoint_due) {
            s->reclaim_due = false;
            reclaim(t, s);
            s->reclaiming = s->reclaim_due;
            s->reclaims++;
            rt_cond_wake_all(&s->checkpoint_done);
            continue;
        }
        s->checkpoint_due = false;
        if (s->dirty || s->frozen != NULL || !list_empty(&s->checkpoint_waiting))
            one(t, s);
    }
    bkv_task_ended(s);
    return 0;
}

static int wait_for(struct rt_task *t, struct bkv *s, struct waiter *w)
{
    if (!s->dirty && s->frozen == NULL && w->stop == NULL) {
        if (w->hold != NULL) {
            bkv_hold(s, w->hold);
            *w->out_tree = bkv_tree_ref(s->tree);
        }
        if (w->at != NULL)
            w->at(w->arg);
        return 0;
    }
    rt_req_init_task(&w->req, t);
    rt_req_begin(&w->req);
    list_add_tail(&s->checkpoint_waiting, &w->link);
    bkv_checkpoint_wake(s);
    return rt_wait(t, &w->req);
}

int bkv_checkpoint(struct rt_task *t, struct bkv *s, struct bkv_hold *hold,
                   struct bkv_tree **out_tree)
{
    return bkv_checkpoint_at(t, s, hold, out_tree, NULL);
}

int bkv_checkpoint_at(struct rt_task *t, struct bkv *s, struct bkv_hold *hold,
                      struct bkv_tree **out_tree, struct bkv_stop *stop)
{
    struct waiter w = {.hold = hold, .out_tree = out_tree, .stop = stop};

    return wait_for(t, s, &w);
}

int bkv_checkpoint_seen(struct rt_task *t, struct bkv *s, struct bkv_hold *hold,
                        struct bkv_tree **out_tree, void (*at)(void *arg), void *arg)
{
    struct waiter w = {.hold = hold, .out_tree = out_tree, .at = at, .arg = arg};

    return wait_for(t, s, &w);
}
