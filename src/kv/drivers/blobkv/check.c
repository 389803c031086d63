/* SPDX-License-Identifier: Apache-2.0 */
/* bkv_check(): super slots, segments, the index, and the accounts of live bytes. See check.h. */
#include "kv/drivers/blobkv/check.h"

#include "kv/drivers/blobkv/chunk.h"
#include "kv/drivers/blobkv/fence.h"
#include "kv/drivers/blobkv/leaf.h"
#include "kv/drivers/blobkv/snap.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SLOT_TRIES 20u
#define SLOT_PAUSE_NS (5 * NS_PER_MS)

static const struct bytes no_key;

void bkv_ck_say(struct bkv_ck *ck, enum kv_severity severity, const char *structure, uint64_t off,
                struct bytes key, const char *fmt, ...)
{
    struct kv_finding f = {severity, structure, off, key, ck->text};
    va_list args;

    ck->rep->errors += severity == KV_ERROR;
    ck->rep->warnings += severity == KV_WARNING;
    ck->rep->notes += severity == KV_NOTE;
    if (ck->opts->found == NULL)
        return;
    va_start(args, fmt);
    vsnprintf(ck->text, sizeof(ck->text), fmt, args);
    va_end(args);
    ck->opts->found(ck->opts->arg, &f);
}

static const char *stream_name(unsigned stream)
{
    static const char *const names[] = {"free", "hot", "cold", "large", "index"};

    return stream < BKV_STREAMS ? names[stream] : "unknown";
}

/* The instant that is checked: what is in memory about it, before anything else happens. */
static void instant(void *arg)
{
    struct bkv_ck *ck = arg;
    const struct bkv *s = ck->s;

    ck->super = s->super;
    for (uint32_t i = 0; i < ck->nsegs; i++) {
        const struct bkv_seg *g = &s->seg[i];

        ck->seg[i] = (struct bkv_ck_seg){
            .order = g->order,
            .gen = g->gen,
            .end = g->state == BKV_SEG_OPEN ? s->pos[g->stream].offset : g->end,
            .live = g->live_tree,
            .state = g->state,
            .stream = g->stream,
        };
    }
}

/* Whether there is any use in going on: what is checked may be gone. */
static int go_on(const struct bkv_ck *ck)
{
    if (ck->s->closing)
        return -ECANCELED;
    return ck->snap != NULL && ck->snap->stale ? -ESTALE : 0;
}

static bool in_use(const struct bkv_ck_seg *g)
{
    return g->state == BKV_SEG_OPEN || g->state == BKV_SEG_SEALED;
}

bool bkv_ck_ref(struct bkv_ck *ck, enum bkv_ck_who who, const char *structure, struct bytes key,
                uint64_t addr, uint32_t len, enum bkv_stream one, enum bkv_stream two)
{
    struct bkv *s = ck->s;
    uint32_t idx = bkv_seg_of(s, addr), at = (uint32_t)(addr & (s->segment_bytes - 1));
    const struct bkv_ck_seg *g;

    if (addr >> s->segment_shift >= ck->nsegs || idx == 0) {
        bkv_ck_say(ck, KV_ERROR, structure, addr, key, "it would be outside of all segments");
        return false;
    }
    g = &ck->seg[idx];
    ck->refs[(size_t)idx * BKV_CK_WHOS + who] += len;
    if (!in_use(g) || (g->stream != one && g->stream != two)) {
        bkv_ck_say(ck, KV_ERROR, structure, addr, key, "segment %u is %s", idx,
                   in_use(g) ? stream_name(g->stream) : "free");
        return false;
    }
    if (at < s->sector_bytes || len > g->end || at > g->end - len) {
        bkv_ck_say(ck, KV_ERROR, structure, addr, key,
                   "bytes %u to %u of segment %u, of which %u are in use", at, at + len - 1, idx,
                   g->end);
        return false;
    }
    return true;
}

/* --- super slots and heads -------------------------------------------------------------------- */

/* One slot: 0; -EBADMSG and such, with text. A checkpoint may be writing it: what is half of it is
 * whole when it is looked at again. */
static int check_slot(struct rt_task *t, struct bkv_ck *ck, unsigned slot, bool *out_good,
                      struct err *why)
{
    for (unsigned tries = 0; tries < SLOT_TRIES; tries++) {
        int rc =
            blob_read(t, ck->s->chan, ck->s->blob, ck->page, bkv_super_addr(slot), BKV_PAGE_BYTES);

        if (rc < 0)
            return rc;
        rc = bkv_super_check((const struct bkv_super *)ck->page, slot, why);
        *out_good = rc == 0;
        if (rc == 0 || ck->snap == NULL)
            return 0;
        rc = rt_sleep(t, SLOT_PAUSE_NS);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_slots(struct rt_task *t, struct bkv_ck *ck)
{
    unsigned good = 0;

    for (unsigned slot = 0; slot < 2; slot++) {
        struct err why = {""};
        bool right = false;
        int rc = check_slot(t, ck, slot, &right, &why);

        if (rc < 0)
            return rc;
        if (!right)
            bkv_ck_say(ck, KV_WARNING, "super slot", bkv_super_addr(slot), no_key,
                       "%s; the other one counts until the next checkpoint", why.text);
        good += right;
    }
    if (good == 0)
        bkv_ck_say(ck, KV_ERROR, "super slot", 0, no_key, "neither of the two is valid");
    return 0;
}

static int check_head(struct rt_task *t, struct bkv_ck *ck, uint32_t idx)
{
    struct bkv *s = ck->s;
    const struct bkv_ck_seg *g = &ck->seg[idx];
    uint64_t addr = (uint64_t)idx << s->segment_shift;
    struct bkv_seg_info info;
    int rc;

    rc = bkv_read_sectors(t, s, addr, s->sector_bytes, ck->buf);
    if (rc < 0)
        return rc;
    rc = bkv_seg_head_decode(ck->buf, s->super.uuid, addr, &info);
    if (rc < 0)
        bkv_ck_say(ck, KV_ERROR, "segment", addr, no_key, "%s",
                   rc == -ENODATA ? "it has no head" : "its head is damaged");
    else if (info.segment != idx || info.gen != g->gen || info.stream != g->stream ||
             info.order != g->order)
        bkv_ck_say(ck, KV_ERROR, "segment", addr, no_key,
                   "its head says %u, life %u, %s, order %lu; the table %u, %u, %s, %lu",
                   info.segment, info.gen, stream_name(info.stream), info.order, idx, g->gen,
                   stream_name(g->stream), g->order);
    return 0;
}

/* --- blocks ----------------------------------------------------------------------------------- */

/* Records of one block; what lives of them the index has been asked. -EBADMSG: one is damaged. */
static int walk_records(struct bkv_ck *ck, uint64_t addr, uint32_t gen, const uint8_t *p,
                        const struct bkv_block_info *b)
{
    uint32_t at = sizeof(struct bkv_block_head);

    for (uint32_t i = 0; i < b->nrecords; i++) {
        struct bkv_record_out rec;
        int n = at < b->len_bytes
                    ? bkv_record_decode(p + at, b->len_bytes - at, addr + at, gen, &rec, NULL)
                    : -EBADMSG;

        if (n < 0)
            return -EBADMSG;
        at += (uint32_t)n;
    }
    return at == b->len_bytes ? 0 : -EBADMSG;
}

/* The log: blocks side by side from the head to the end. Damage that hits nothing alive is a
 * warning; what lives is looked at by its place. */
static int walk_blocks(struct rt_task *t, struct bkv_ck *ck, uint32_t idx)
{
    struct bkv *s = ck->s;
    uint64_t base = (uint64_t)idx << s->segment_shift;
    uint32_t end = ck->seg[idx].end, number = 0;

    for (uint32_t at = 0; at < end; at += (uint32_t)MIB) {
        uint32_t n = (uint32_t)MIN((uint64_t)end - at, MIB);
        int rc = bkv_read_sectors(t, s, base + at, (uint32_t)round_up_u64(n, s->sector_bytes),
                                  ck->buf + at);

        if (rc < 0)
            return rc;
    }
    for (uint32_t at = s->sector_bytes; at < end; number++) {
        struct bkv_block_info b;

        if (end - at < sizeof(struct bkv_block_head) ||
            bkv_block_head_decode(ck->buf + at, base + at, ck->seg[idx].gen, (uint32_t)s->secret[0],
                                  &b) < 0 ||
            b.len_bytes > end - at || b.number != number) {
            bkv_ck_say(ck, KV_WARNING, "block", base + at, no_key,
                       "block %u of segment %u is damaged: its records and what follows cannot be "
                       "told apart",
                       number, idx);
            return 0;
        }
        if (walk_records(ck, base + at, ck->seg[idx].gen, ck->buf + at, &b) < 0)
            bkv_ck_say(ck, KV_WARNING, "block", base + at, no_key,
                       "block %u of segment %u has a damaged record", number, idx);
        at += (uint32_t)round_up_u64(b.len_bytes, s->sector_bytes);
    }
    return 0;
}

static int check_segments(struct rt_task *t, struct bkv_ck *ck)
{
    /* The collector may have opened one whose head comes later. */
    int rc = bkv_cold_settle(t, ck->s, ck->s->last_order);

    for (uint32_t i = 1; i < ck->nsegs && rc == 0; i++) {
        const struct bkv_ck_seg *g = &ck->seg[i];

        if (!in_use(g))
            continue;
        ck->rep->segments_used++;
        rc = go_on(ck);
        if (rc == 0)
            rc = check_head(t, ck, i);
        if (rc == 0 && !ck->opts->quick && (g->stream == BKV_HOT || g->stream == BKV_COLD))
            rc = walk_blocks(t, ck, i);
    }
    ck->rep->segments = ck->nsegs - 1;
    return rc;
}

/* --- the index -------------------------------------------------------------------------------- */

/* The root of the checkpoint: fences and segment table. The decoder has read them at open. */
static int check_root(struct rt_task *t, struct bkv_ck *ck)
{
    struct bkv *s = ck->s;

    for (uint32_t i = 0; i < le32_get(ck->super.nextents); i++) {
        const struct bkv_root_extent *e = &ck->super.extent[i];
        uint64_t addr = le64_get(e->addr);
        uint32_t len = le32_get(e->len), crc = bkv_crc(addr, 0, NULL, 0);

        if (!bkv_ck_ref(ck, BKV_CK_TREE, "root", no_key, addr,
                        (uint32_t)round_up_u64(len, BKV_PAGE_BYTES), BKV_INDEX, BKV_INDEX))
            continue;
        for (uint32_t at = 0; at < len; at += BKV_PAGE_BYTES) {
            int rc = bkv_read_sectors(t, s, addr + at, BKV_PAGE_BYTES, ck->page);

            if (rc < 0)
                return rc;
            crc = crc32c(crc, ck->page, MIN(len - at, BKV_PAGE_BYTES));
        }
        if (crc != le32_get(e->crc))
            bkv_ck_say(ck, KV_ERROR, "root", addr, no_key, "%u bytes do not match their checksum",
                       len);
    }
    return 0;
}

/* A leaf's keys lie between its fence and the next. */
static void check_fence(struct bkv_ck *ck, uint64_t leaf, uint64_t addr, struct bytes key,
                        bool first)
{
    const struct bkv_tree *tree = ck->tree;
    uint64_t which = first ? leaf : leaf + 1;
    struct bkv_fence_pos pos;
    struct bytes fence;
    int cmp;

    if (which == tree->nleaves || (first && leaf == 0))
        return;
    pos = bkv_fence_pos(tree, which);
    fence = bytes_make(ck->scratch, bkv_fence_key(tree->block[pos.block], pos.idx, ck->scratch));
    cmp = bytes_cmp(key, fence);
    if (first ? cmp < 0 : cmp >= 0)
        bkv_ck_say(ck, KV_ERROR, "leaf", addr, key, "its %s key is not within its fences",
                   first ? "first" : "last");
}

static int check_entries(struct rt_task *t, struct bkv_ck *ck, uint64_t leaf, uint64_t addr)
{
    struct bkv_leaf_iter it;
    struct bkv_place place;
    bool first = true;
    int rc;

    bkv_leaf_first(&it, ck->page, ck->key);
    while ((rc = bkv_leaf_next(&it, &place)) == 1) {
        struct bytes key = bytes_make(it.key, it.key_len);

        if (ck->nkeys > 0 && bytes_cmp(key, bytes_make(ck->last, ck->last_len)) <= 0)
            bkv_ck_say(ck, KV_ERROR, "leaf", addr, key, "keys do not ascend");
        if (first)
            check_fence(ck, leaf, addr, key, true);
        first = false;
        ck->nkeys++;
        memcpy(ck->last, key.ptr, key.len);
        ck->last_len = (uint32_t)key.len;
        rc = bkv_ck_record(t, ck, BKV_CK_TREE, key, &place);
        if (rc < 0)
            return rc;
    }
    if (rc < 0)
        bkv_ck_say(ck, KV_ERROR, "leaf", addr, no_key, "an entry of it cannot be read");
    else if (!first)
        check_fence(ck, leaf, addr, bytes_make(ck->last, ck->last_len), false);
    return 0;
}

static int check_leaf(struct rt_task *t, struct bkv_ck *ck, uint64_t leaf)
{
    struct bkv *s = ck->s;
    const struct bkv_fence_slot *f = bkv_fence_at(ck->tree, bkv_fence_pos(ck->tree, leaf));
    uint64_t addr = bkv_fence_addr(f);
    int rc;

    if (!bkv_ck_ref(ck, BKV_CK_TREE, "leaf", no_key, addr, BKV_PAGE_BYTES, BKV_INDEX, BKV_INDEX))
        return 0;
    rc = bkv_read_sectors(t, s, addr, BKV_PAGE_BYTES, ck->page);
    if (rc < 0)
        return rc;
    rc = bkv_leaf_open(s->codec, ck->page, addr, bkv_gen_of(s, addr), f->crc, ck->scratch);
    if (rc < 0) {
        bkv_ck_say(ck, KV_ERROR, "leaf", addr, no_key, "%s",
                   rc == -EACCES ? "it is encrypted with another key"
                                 : "damaged, or another page, or of another life of its segment");
        return 0;
    }
    return check_entries(t, ck, leaf, addr);
}

static int check_tree(struct rt_task *t, struct bkv_ck *ck)
{
    int rc = 0;

    for (uint64_t i = 0; i < bkv_tree_nleaves(ck->tree) && rc == 0; i++) {
        rc = go_on(ck);
        if (rc == 0)
            rc = check_leaf(t, ck, i);
    }
    if (rc < 0)
        return rc;
    if (ck->nkeys != bkv_tree_nkeys(ck->tree) || ck->nkeys != le64_get(ck->super.nkeys))
        bkv_ck_say(ck, KV_ERROR, "root", 0, no_key,
                   "leaves have %lu keys, the fences say %lu and the super slot %lu", ck->nkeys,
                   bkv_tree_nkeys(ck->tree), le64_get(ck->super.nkeys));
    return 0;
}

/* What the log has since the checkpoint. */
static int check_memtable(struct rt_task *t, struct bkv_ck *ck)
{
    const struct bkv_mem_entry *e = bkv_memtab_seek(ck->s->active, no_key, false);
    int rc = 0;

    for (; e != NULL && rc == 0; e = bkv_memtab_seek(ck->s->active, art_key_bytes(&e->key), true)) {
        ck->rep->keys++;
        if (e->place.type != BKV_DELETE)
            rc = bkv_ck_record(t, ck, BKV_CK_MEM, art_key_bytes(&e->key), &e->place);
    }
    for (size_t i = 0; i < ck->s->ndrops && rc == 0; i++)
        rc = bkv_ck_drop(t, ck, &ck->s->drops[i]);
    return rc;
}

/* --- accounts --------------------------------------------------------------------------------- */

static void check_account(struct bkv_ck *ck, uint32_t idx)
{
    const struct bkv_ck_seg *was = &ck->seg[idx];
    const struct bkv_seg *g = &ck->s->seg[idx];
    uint64_t addr = (uint64_t)idx << ck->s->segment_shift;
    uint64_t tree = ck->refs[(size_t)idx * BKV_CK_WHOS + BKV_CK_TREE];
    uint64_t mem = ck->refs[(size_t)idx * BKV_CK_WHOS + BKV_CK_MEM];

    ck->rep->live_bytes += tree + mem;
    if (was->live != tree)
        bkv_ck_say(ck, KV_ERROR, "segment table", addr, no_key,
                   "segment %u (%s): %u live bytes, the index refers to %lu", idx,
                   stream_name(was->stream), was->live, tree);
    if (ck->snap != NULL)
        return; /* the others go on changing */
    if (g->live_active != mem)
        bkv_ck_say(ck, KV_ERROR, "segment table", addr, no_key,
                   "segment %u (%s): %u live bytes since the checkpoint, the log refers to %lu",
                   idx, stream_name(g->stream), g->live_active, mem);
    if (g->live_held != 0)
        bkv_ck_say(ck, KV_WARNING, "segment table", addr, no_key,
                   "segment %u: %u bytes are held by streams", idx, g->live_held);
}

static int take_memory(struct bkv_ck *ck)
{
    size_t buf = MAX((size_t)BKV_CHUNK_HEAD_MAX + BKV_CHUNK_MAX + BKV_SLOT_BYTES,
                     (size_t)ck->s->segment_bytes);

    ck->refs = calloc((size_t)ck->nsegs * BKV_CK_WHOS, sizeof(*ck->refs));
    ck->seg = calloc(ck->nsegs, sizeof(*ck->seg));
    ck->page = aligned_alloc(4096, BKV_PAGE_BYTES);
    ck->buf = aligned_alloc(4096, round_up_u64(buf, 4096));
    ck->value = malloc(BKV_INLINE_MAX);
    ck->key = malloc(2 * (size_t)BKV_KEY_MAX);
    ck->scratch = malloc(BKV_SCRATCH_BYTES);
    if (ck->refs == NULL || ck->seg == NULL || ck->page == NULL || ck->buf == NULL ||
        ck->value == NULL || ck->key == NULL || ck->scratch == NULL)
        return -ENOMEM;
    ck->last = ck->key + BKV_KEY_MAX;
    return 0;
}

static void give_memory(struct bkv_ck **pck)
{
    struct bkv_ck *ck = *pck;

    if (ck == NULL)
        return;
    free(ck->refs);
    free(ck->seg);
    free(ck->page);
    free(ck->buf);
    free(ck->value);
    free(ck->key);
    free(ck->scratch);
    free(ck);
}

static int check_all(struct rt_task *t, struct bkv_ck *ck)
{
    int rc = check_slots(t, ck);

    if (rc == 0)
        rc = check_segments(t, ck);
    if (rc == 0)
        rc = check_root(t, ck);
    if (rc == 0)
        rc = check_tree(t, ck);
    ck->rep->keys = ck->nkeys;
    if (rc == 0 && ck->snap == NULL)
        rc = check_memtable(t, ck);
    if (rc == 0)
        rc = go_on(ck);
    for (uint32_t i = 1; i < ck->nsegs && rc == 0; i++)
        check_account(ck, i);
    return rc;
}

/* Through a snapshot, which lasts at least until this returns. */
static int check_snapshot(struct rt_task *t, struct bkv_ck *ck)
{
    struct bkv_snap *snap;
    int rc = bkv_snap_take(t, ck->s, instant, ck, &snap);

    if (rc < 0)
        return rc;
    rc = bkv_snap_enter(snap);
    if (rc == 0) {
        ck->snap = snap;
        ck->tree = snap->tree;
        rc = check_all(t, ck);
        bkv_snap_leave(snap);
    }
    bkv_snap_end(snap);
    return rc;
}

int bkv_check(struct rt_task *t, struct bkv *s, const struct kv_check_opts *opts,
              struct kv_check_report *out)
{
    CLEANUP(give_memory) struct bkv_ck *ck = calloc(1, sizeof(*ck));
    int rc;

    if (ck == NULL)
        return -ENOMEM;
    ck->s = s;
    ck->opts = opts;
    ck->rep = out;
    ck->nsegs = s->nsegs;
    rc = take_memory(ck);
    if (rc < 0)
        return rc;
    if (!s->opts.read_only) {
        s->ntasks++; /* close waits for it, as for a task of the store */
        rc = check_snapshot(t, ck);
        bkv_task_ended(s);
        return rc;
    }
    instant(ck);
    ck->tree = s->tree;
    return check_all(t, ck);
}
