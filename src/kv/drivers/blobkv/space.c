/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: who is in which state, how many live bytes it has, and whether there is room for
 * another one. Clusters are supply.c's. A segment goes free -> ready -> open -> sealed -> free;
 * the last step is a checkpoint's.
 */
#include "kv/drivers/blobkv/blobkv.h"

#include <string.h>

#define GC_RESERVE_MIN 6u    /* segments the collector works with: these, or */
#define GC_RESERVE_SHARE 64u /* one in so many */
#define DELETE_RESERVE 2u    /* and those deletes may still use; other shards may err by one each */
#define TIGHT_SEGMENTS 16u
#define LEAF_KEYS_MIN 30u /* a page of the index has at least so many keys, of usual length */

int bkv_space_init(struct bkv *s, uint32_t nsegs)
{
    s->seg = calloc(nsegs, sizeof(*s->seg));
    if (s->seg == NULL)
        return -ENOMEM;
    s->nsegs = nsegs;
    s->seg[0].state = BKV_SEG_OPEN; /* the super slots: never anything else */
    list_init(&s->holds);
    return 0;
}

void bkv_space_fini(struct bkv *s)
{
    free(s->seg);
    free(s->drops);
    s->seg = NULL;
    s->drops = NULL;
}

/* --- who keeps a segment ---------------------------------------------------------------------- */

void bkv_unpin(struct bkv *s, uint64_t addr)
{
    struct bkv_seg *g = &s->seg[bkv_seg_of(s, addr)];

    must(g->readers > 0);
    if (--g->readers == 0 && UNLIKELY(g->state == BKV_SEG_FREE))
        bkv_supply_wake(s);
}

void bkv_hold(struct bkv *s, struct bkv_hold *h)
{
    h->stamp = s->stamp++;
    list_add_tail(&s->holds, &h->link);
}

void bkv_release(struct bkv *s, struct bkv_hold *h)
{
    list_del(&h->link);
    if (s->freed_at <= h->stamp)
        return; /* it has kept nothing that anybody could have used */
    s->full = false;
    bkv_supply_wake(s);
    bkv_space_wake(s);
}

/** Whether a free segment may begin another life. */
bool bkv_seg_usable(const struct bkv *s, const struct bkv_seg *g)
{
    const struct bkv_hold *oldest = list_first(&s->holds, struct bkv_hold, link);

    return g->state == BKV_SEG_FREE && g->readers == 0 &&
           (oldest == NULL || g->freed_at <= oldest->stamp);
}

void bkv_seg_free(struct bkv *s, uint32_t idx)
{
    struct bkv_seg *g = &s->seg[idx];

    must(g->state == BKV_SEG_SEALED);
    must(bkv_seg_live(g) == 0);
    g->state = BKV_SEG_FREE;
    g->stream = 0;
    g->end = 0;
    g->victim = 0;
    g->damaged = g->emptied = g->has_large = false;
    g->past_frozen = g->past_active = 0;
    g->freed_at = s->freed_at = ++s->stamp;
    s->full = false;
}

/* --- room ------------------------------------------------------------------------------------- */

uint32_t bkv_space_avail(const struct bkv *s)
{
    uint32_t n = s->nready + s->supplying, bare = 0;

    for (uint32_t i = 1; i < s->nsegs; i++) {
        const struct bkv_seg *g = &s->seg[i];

        if (!bkv_seg_usable(s, g))
            continue;
        if (g->allocated)
            n++;
        else
            bare++;
    }
    return bare > 0 ? n + MIN(bare, bkv_share_of(s)) : n;
}

uint64_t bkv_space_live(const struct bkv *s, uint32_t *out_used_segs)
{
    uint64_t live = 0;
    uint32_t used = 0;

    for (uint32_t i = 1; i < s->nsegs; i++) {
        live += bkv_seg_live(&s->seg[i]);
        if (s->seg[i].state >= BKV_SEG_OPEN)
            used++;
    }
    if (out_used_segs != NULL)
        *out_used_segs = used;
    return live;
}

uint64_t bkv_space_data(const struct bkv *s)
{
    uint64_t live = 0;

    for (uint32_t i = 1; i < s->nsegs; i++)
        live += s->seg[i].stream != BKV_INDEX ? bkv_seg_live(&s->seg[i]) : 0;
    return live;
}

uint32_t bkv_space_index_reserve(const struct bkv *s)
{
    uint64_t entries = bkv_memtab_count(s->active);
    uint64_t leaves = bkv_tree_nleaves(s->tree);
    uint64_t pages;

    if (s->frozen != NULL)
        entries += bkv_memtab_count(s->frozen);
    /*
     * Each entry touches a leaf of its own at worst, and some of them split. All leaves, also when
     * there are few entries now: what the collector moves to make room touches the others.
     */
    pages = leaves + entries / LEAF_KEYS_MIN + 2;
    pages += (leaves * 96 + (uint64_t)s->nsegs * sizeof(struct bkv_seg_entry)) / BKV_PAGE_BYTES + 2;
    /* One is begun, and one more for what is rewritten to empty others. */
    return (uint32_t)(pages / (s->segment_bytes / BKV_PAGE_BYTES - 1)) + 2;
}

static uint32_t gc_reserve(const struct bkv *s)
{
    return MAX(s->nsegs / GC_RESERVE_SHARE / s->nshards, GC_RESERVE_MIN);
}

uint32_t bkv_space_reserve(const struct bkv *s, enum bkv_need need)
{
    switch (need) {
    case BKV_NEED_INDEX:
        return 0;
    case BKV_NEED_MOVE:
        return bkv_space_index_reserve(s);
    /* Twice: pages of the index lie in segments that are half dead. */
    case BKV_NEED_DELETE:
        return 2 * bkv_space_index_reserve(s) + gc_reserve(s);
    default:
        return 2 * bkv_space_index_reserve(s) + gc_reserve(s) + DELETE_RESERVE + s->nshards - 1;
    }
}

int bkv_space_room(struct bkv *s, enum bkv_need need)
{
    bkv_share_tell(s);
    if (bkv_space_avail(s) > bkv_space_reserve(s, need)) {
        s->share_asked = false;
        return 0;
    }
    bkv_share_ask(s);
    /* What the checkpoint or the collector cannot have nobody can make room for. */
    if (s->full || need == BKV_NEED_INDEX || need == BKV_NEED_MOVE)
        return -ENOSPC;
    s->want_room = true;
    rt_cond_wake_all(&s->paced);
    bkv_collector_wake(s);
    return -EAGAIN;
}

/* Takes one that is ready: large values leave those that have been written to the log, where each
 * flush would have to allocate. */
static uint32_t take_ready(struct bkv *s, enum bkv_stream stream)
{
    uint32_t at = 0, idx;

    while (at < s->nready && s->seg[s->ready[at]].written == (stream == BKV_LARGE))
        at++;
    if (at == s->nready)
        at = 0;
    idx = s->ready[at];
    memmove(s->ready + at, s->ready + at + 1, (--s->nready - at) * sizeof(s->ready[0]));
    return idx;
}

int bkv_seg_open(struct bkv *s, enum bkv_stream stream, enum bkv_need need,
                 struct bkv_seg_info *out)
{
    struct bkv_stream_pos *pos = &s->pos[stream];
    struct bkv_seg *g;
    uint32_t idx;
    int rc = bkv_space_room(s, need);

    must(pos->segment == 0);
    if (rc < 0)
        return rc;
    bkv_supply_wake(s);
    if (s->nready == 0)
        return -EAGAIN;
    idx = take_ready(s, stream);
    g = &s->seg[idx];
    must(g->state == BKV_SEG_READY);
    must(g->readers == 0);
    g->state = BKV_SEG_OPEN;
    g->stream = (uint8_t)stream;
    g->gen++;
    g->order = ++s->last_order;
    g->end = 0;
    *out = (struct bkv_seg_info){
        .segment = idx,
        .gen = g->gen,
        .stream = (uint8_t)stream,
        .order = g->order,
        .prev_order = pos->last_order,
        .prev_end = pos->last_end,
        .first_seq = s->last_seq + 1,
    };
    *pos = (struct bkv_stream_pos){
        .segment = idx,
        .offset = stream == BKV_INDEX ? BKV_PAGE_BYTES : s->sector_bytes,
        .last_order = g->order,
        .from_reserve = need != BKV_NEED_DATA,
        .tight = bkv_space_avail(s) < bkv_space_reserve(s, BKV_NEED_DATA) + TIGHT_SEGMENTS,
    };
    s->opened++;
    s->opened_large += stream == BKV_LARGE;
    bkv_share_tell(s);
    bkv_collector_wake(s);
    return 0;
}

int bkv_seg_open_wait(struct rt_task *t, struct bkv *s, enum bkv_stream stream, enum bkv_need need,
                      struct bkv_seg_info *out)
{
    for (;;) {
        int rc = s->poison != 0 ? -EIO : bkv_seg_open(s, stream, need, out);

        if (rc != -EAGAIN)
            return rc;
        rc = rt_cond_wait(t, &s->space_changed);
        if (rc < 0)
            return rc;
    }
}

void bkv_seg_seal(struct bkv *s, enum bkv_stream stream)
{
    struct bkv_stream_pos *pos = &s->pos[stream];

    if (pos->segment == 0)
        return;
    s->seg[pos->segment].state = BKV_SEG_SEALED;
    s->seg[pos->segment].end = pos->offset;
    /* But for a rest that is not worth zeroes. */
    if (s->segment_bytes - pos->offset <= s->segment_bytes / 16)
        s->seg[pos->segment].written = true;
    pos->last_end = pos->offset;
    pos->segment = 0;
}

/* --- live bytes ------------------------------------------------------------------------------- */

int bkv_drops_reserve(struct bkv *s, size_t n)
{
    struct bkv_drop *more;
    size_t max;

    if (LIKELY(s->ndrops + n <= s->drops_max))
        return 0;
    max = MAX(s->drops_max * 2, s->ndrops + n + 64);
    more = realloc(s->drops, max * sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    s->drops = more;
    s->drops_max = max;
    return 0;
}

/* A memtable entry is replaced: its record is worth nothing any more, unless a leaf has it, too. */
static void drop_active(struct bkv *s, const struct bkv_place *old)
{
    struct bkv_seg *g;

    if (old->type == BKV_DELETE)
        return;
    g = &s->seg[bkv_seg_of(s, old->addr)];
    must(g->live_active >= old->rec_len);
    g->live_active -= old->rec_len;
    if (old->type != BKV_LARGE_VALUE)
        return;
    must(s->ndrops < s->drops_max);
    s->drops[s->ndrops++] = (struct bkv_drop){.addr = old->addr, .rec_len = old->rec_len};
}

static void ref_extents(struct bkv *s, struct bytes extents, bool held)
{
    for (size_t at = 0; at < extents.len; at += sizeof(struct bkv_extent)) {
        const struct bkv_extent *e = (const struct bkv_extent *)(extents.ptr + at);
        struct bkv_seg *g = &s->seg[bkv_seg_of(s, le64_get(e->addr))];
        uint32_t len = bkv_extent_bytes(s, e);

        g->live_active += len;
        if (held) {
            must(g->live_held >= len);
            g->live_held -= len;
        }
    }
}

void bkv_apply_place(struct bkv *s, struct bytes key, const struct bkv_place *place,
                     struct bytes extents, bool held)
{
    struct bkv_place old;

    if (place->type != BKV_DELETE)
        s->seg[bkv_seg_of(s, place->addr)].live_active += place->rec_len;
    if (place->type == BKV_LARGE_VALUE)
        ref_extents(s, extents, held);
    if (bkv_memtab_put(s->active, key, place, &old))
        drop_active(s, &old);
    s->dirty = true;
}

/* What the table names is about to be replaced by a record in the active memtable; when that had
 * none of the key before, a leaf or the frozen memtable goes on counting the old one. */
static void note_past(struct bkv *s, uint64_t hash, uint32_t rec_len)
{
    struct bkv_hot_hit hit;

    if (bkv_hot_find(s->hot, hash, &hit, 1) > 0 && bkv_seg_of(s, hit.addr) < s->nsegs)
        s->seg[bkv_seg_of(s, hit.addr)].past_active += MIN(hit.read_bytes, rec_len);
}

void bkv_apply(struct bkv *s, struct bytes key, uint64_t hash, const struct bkv_place *place,
               struct bytes extents, bool held, uint64_t moved_from)
{
    uint64_t changes = bkv_memtab_changes(s->active);

    bkv_apply_place(s, key, place, extents, held);
    if (bkv_memtab_changes(s->active) != changes)
        note_past(s, hash, place->type != BKV_DELETE ? place->rec_len : UINT32_MAX);
    if (moved_from != 0)
        bkv_hot_move(s->hot, hash, moved_from, place->addr, place->rec_len);
    else if (place->type == BKV_DELETE)
        bkv_hot_del(s->hot, hash);
    else
        bkv_hot_set(s->hot, hash, place->addr, place->rec_len);
}

void bkv_large_drop(struct bkv *s, uint64_t addr, uint32_t len)
{
    struct bkv_seg *g = &s->seg[bkv_seg_of(s, addr)];

    must(g->live_held >= len);
    g->live_held -= len;
    s->full = false;
}

uint32_t bkv_large_max(const struct bkv *s)
{
    return s->segment_bytes - BKV_PAGE_BYTES;
}

/* The next large segment; its head is written before anybody places something in it, for else a
 * value could be committed that the head does not vouch for yet. */
static int large_open(struct rt_task *t, struct bkv *s, enum bkv_need need)
{
    struct bkv_seg_info info;
    int rc;

    bkv_seg_seal(s, BKV_LARGE);
    rc = bkv_seg_open(s, BKV_LARGE, need, &info);
    if (rc < 0)
        return rc;
    s->large_opening = true;
    rc = bkv_seg_head_write(t, s, &info);
    s->large_opening = false;
    bkv_space_wake(s);
    return rc;
}

/* One step towards a large segment with room for `len`: the collector's needs go before. */
static int large_step(struct rt_task *t, struct bkv *s, enum bkv_need need, uint32_t len)
{
    struct bkv_stream_pos *pos = &s->pos[BKV_LARGE];
    int rc;

    if (s->poison != 0)
        return -EIO;
    if (s->large_opening)
        return rt_cond_wait(t, &s->space_changed);
    if (pos->segment == 0 || s->segment_bytes - bkv_large_offset(pos) < len) {
        rc = large_open(t, s, need);
    } else {
        rc = bkv_space_room(s, BKV_NEED_DATA);
        if (rc == 0)
            pos->from_reserve = false;
    }
    return rc == -EAGAIN ? rt_cond_wait(t, &s->space_changed) : rc;
}

static bool large_is_ready(const struct bkv *s, enum bkv_need need, uint32_t len)
{
    const struct bkv_stream_pos *pos = &s->pos[BKV_LARGE];

    return !s->large_opening && pos->segment != 0 &&
           s->segment_bytes - bkv_large_offset(pos) >= len &&
           (need != BKV_NEED_DATA || !pos->from_reserve);
}

int bkv_large_place(struct rt_task *t, struct bkv *s, enum bkv_need need, uint32_t len,
                    uint64_t *out_addr, uint32_t *out_gen)
{
    struct bkv_stream_pos *pos = &s->pos[BKV_LARGE];

    must(len % s->sector_bytes == 0);
    must(len <= bkv_large_max(s));
    while (!large_is_ready(s, need, len)) {
        int rc = large_step(t, s, need, len);

        if (rc < 0)
            return rc;
    }
    pos->offset = bkv_large_offset(pos);
    *out_addr = ((uint64_t)pos->segment << s->segment_shift) + pos->offset;
    *out_gen = s->seg[pos->segment].gen;
    pos->offset += len;
    s->seg[pos->segment].live_held += len;
    s->stats.large_bytes += len;
    return 0;
}
