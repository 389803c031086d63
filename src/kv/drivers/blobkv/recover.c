/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back from a stop of any kind. The checkpoint's fences and segment table are read; segments that
 * were free in it and have a newer head have been used since; the log's streams are followed from
 * their positions (cold first: a moved record is older than what the hot stream may say of its
 * key), block by block, into a memtable. How much that is the checkpoints bound, not the data.
 *
 * Where a stream ends is told from damage: a segment that has a successor ends where that says; in
 * the last one nothing may follow that says the bad block was durable.
 */
#include "kv/drivers/blobkv/large.h"

#include "base/log.h"
#include "base/plant.h"

#include <stdio.h>
#include <string.h>

#define REPLAY_MEMTAB_BYTES (2 * GIB) /* address space; what it needs is what the log has */
#define READ_BYTES ((uint32_t)(1 * MIB))
#define SCAN_AT_ONCE 64u
#define PIECE_BYTES ((size_t)256 * 1024)
#define EPOCHS_MAX 1024u /* crashes since the last table, of which blocks are looked for */

/* What a head told of a segment that has been used since the checkpoint. */
struct newer {
    struct bkv_seg_info info;
    bool seen; /* it is in a chain */
};

struct recovery {
    struct bkv *s;
    struct err *why;
    struct newer *newer;
    uint32_t nnewer;
    uint32_t *headless; /* segments with a block, but no head */
    uint32_t nheadless;
    uint32_t epochs; /* since the table was written */
    uint8_t *buf;    /* a segment */
    uint64_t blocks, records, max_seq;
    struct bkv_stream_pos end[BKV_STREAMS];
    /* The last prepared block (txn.h) of the log, until what follows tells whether it counts. */
    struct {
        uint64_t id; /* 0: there is none */
        uint64_t addr;
        uint32_t len;
        uint8_t *copy;
    } open;
};

/* --- the root --------------------------------------------------------------------------------- */

static bool extent_fits(const struct bkv *s, const struct bkv_root_extent *e)
{
    uint64_t addr = le64_get(e->addr);
    uint32_t len = le32_get(e->len);

    return addr % BKV_PAGE_BYTES == 0 && len > 0 && addr >= s->segment_bytes &&
           bkv_seg_of(s, addr) < s->nsegs && addr >> BKV_ADDR_BITS == 0 &&
           (addr & (s->segment_bytes - 1)) + round_up_u64(len, BKV_PAGE_BYTES) <= s->segment_bytes;
}

/* Bytes of the root as they come: fences to the decoder, then the table. */
struct root_reader {
    struct bkv_tree_decoder *decoder;
    uint64_t fences_left;
    uint8_t *table;
    uint64_t table_fill;
};

static int root_take(struct root_reader *r, const uint8_t *p, size_t len)
{
    size_t n = (size_t)MIN(r->fences_left, (uint64_t)len);
    int rc = n > 0 ? bkv_tree_decode(r->decoder, p, n) : 0;

    r->fences_left -= n;
    memcpy(r->table + r->table_fill, p + n, len - n);
    r->table_fill += len - n;
    return rc;
}

static int read_extent(struct rt_task *t, struct bkv *s, const struct bkv_root_extent *e,
                       uint8_t *buf, struct root_reader *r)
{
    uint64_t addr = le64_get(e->addr);
    uint32_t len = le32_get(e->len);
    uint32_t crc = bkv_crc(addr, 0, NULL, 0);

    for (uint32_t at = 0; at < len;) {
        uint32_t n = (uint32_t)MIN(PIECE_BYTES, (size_t)(len - at));
        uint32_t whole = (uint32_t)round_up_u64(n, BKV_PAGE_BYTES);
        int rc = blob_read(t, s->chan, s->blob, buf, addr + at, whole);

        if (rc == 0) {
            crc = crc32c(crc, buf, n);
            rc = bkv_codec_crypt_root(s->codec, addr + at, buf, whole, false);
        }
        if (rc == 0)
            rc = root_take(r, buf, n);
        if (rc < 0)
            return rc;
        at += n;
    }
    return crc == le32_get(e->crc) ? 0 : -EBADMSG;
}

static int read_root(struct rt_task *t, struct bkv *s, struct root_reader *r)
{
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, PIECE_BYTES);
    uint64_t total = 0, table = le32_get(s->super.nsegments) * sizeof(struct bkv_seg_entry);
    uint32_t n = le32_get(s->super.nextents);
    struct bkv_tree *tree = NULL;
    int rc = buf != NULL ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < n; i++) {
        if (!extent_fits(s, &s->super.extent[i]))
            return -EBADMSG;
        total += le32_get(s->super.extent[i].len);
    }
    if (total < table)
        return -EBADMSG;
    r->fences_left = total - table;
    r->table = malloc(table);
    r->decoder = bkv_tree_decoder_new(&s->tree_io);
    if (r->table == NULL || r->decoder == NULL)
        rc = -ENOMEM;
    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = read_extent(t, s, &s->super.extent[i], buf, r);
    if (rc < 0) {
        if (r->decoder != NULL)
            (void)bkv_tree_decoded(r->decoder, NULL);
        return rc;
    }
    if (total == table) {
        (void)bkv_tree_decoded(r->decoder, NULL);
        return 0; /* no key yet: the tree is empty */
    }
    rc = bkv_tree_decoded(r->decoder, &tree);
    if (rc < 0)
        return rc;
    bkv_tree_put(s->tree);
    s->tree = tree;
    return bkv_tree_nkeys(tree) == le64_get(s->super.nkeys) ? 0 : -EBADMSG;
}

static int take_table(struct bkv *s, const uint8_t *table)
{
    for (uint32_t i = 1; i < le32_get(s->super.nsegments); i++) {
        const struct bkv_seg_entry *e =
            (const struct bkv_seg_entry *)(table + i * sizeof(struct bkv_seg_entry));
        struct bkv_seg *g = &s->seg[i];

        if (e->stream >= BKV_STREAMS || le32_get(e->end) > s->segment_bytes)
            return -EBADMSG;
        *g = (struct bkv_seg){
            .gen = le32_get(e->gen),
            .order = le64_get(e->order),
            .end = le32_get(e->end),
            .live_tree = le32_get(e->live_bytes),
            .stream = e->stream,
            .state = e->stream != 0 ? BKV_SEG_SEALED : BKV_SEG_FREE,
            .allocated = (e->flags & BKV_SEG_ALLOCATED) != 0,
            .written = (e->flags & BKV_SEG_WRITTEN) != 0,
            .known = e->stream != 0,
        };
    }
    return 0;
}

static int load_root(struct rt_task *t, struct bkv *s, struct err *why)
{
    struct root_reader r = {0};
    int rc = 0;

    if (le32_get(s->super.nextents) == 0)
        return 0; /* made, and never checkpointed */
    rc = read_root(t, s, &r);
    if (rc == 0)
        rc = take_table(s, r.table);
    free(r.table);
    return rc < 0 ? err_set(why, rc, "%s: the checkpoint's root cannot be read: %s", s->name,
                            err_str(rc))
                  : 0;
}

/* --- segments used since ---------------------------------------------------------------------- */

struct scan_read {
    struct blob_req req;
    struct iovec iov;
    uint32_t segment;
};

static int note_newer(struct recovery *r, const struct bkv_seg_info *info)
{
    if ((r->nnewer & (r->nnewer - 1)) == 0) {
        struct newer *more = realloc(r->newer, MAX(2 * r->nnewer, 1u) * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        r->newer = more;
    }
    r->newer[r->nnewer++] = (struct newer){.info = *info};
    return 0;
}

static int note_headless(struct recovery *r, uint32_t idx)
{
    if ((r->nheadless & (r->nheadless - 1)) == 0) {
        uint32_t *more = realloc(r->headless, MAX(2 * r->nheadless, 1u) * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        r->headless = more;
    }
    r->headless[r->nheadless++] = idx;
    return 0;
}

/* Whether a block begins at `buf` that a life since the table has written. */
static bool is_newer_block(const struct recovery *r, uint32_t idx, const uint8_t *buf,
                           uint64_t addr, struct bkv_block_info *out)
{
    const struct bkv_block_head *head = (const struct bkv_block_head *)buf;
    uint32_t newest = r->s->seg[idx].gen + 1 + r->epochs;

    if (le32_get(head->magic) != BKV_BLOCK_MAGIC)
        return false;
    for (uint32_t back = 0; back <= MIN(r->epochs, EPOCHS_MAX); back++) {
        if (bkv_block_head_decode(buf, addr, newest - back, (uint32_t)r->s->secret[0], out) == 0)
            return true;
    }
    return false;
}

/* The first two sectors of a segment that was free. */
static int look_at(struct recovery *r, uint32_t idx, const uint8_t *buf)
{
    struct bkv *s = r->s;
    struct bkv_seg *g = &s->seg[idx];
    uint64_t addr = (uint64_t)idx << s->segment_shift;
    struct bkv_seg_info info;
    struct bkv_block_info block;
    int rc = bkv_seg_head_decode(buf, s->super.uuid, addr, &info);

    if (rc == 0 && info.segment == idx && info.gen > g->gen)
        return note_newer(r, &info);
    if (rc == 0 && info.segment == idx)
        return 0;
    if (is_newer_block(r, idx, buf + s->sector_bytes, addr + s->sector_bytes, &block))
        return note_headless(r, idx);
    return 0;
}

static int scan_some(struct rt_task *t, struct recovery *r, struct scan_read *reads, unsigned n)
{
    struct bkv *s = r->s;
    int rc = 0;

    for (unsigned i = 0; i < n; i++) {
        reads[i].iov = (struct iovec){.iov_base = r->buf + (size_t)i * 2 * s->sector_bytes,
                                      .iov_len = 2 * s->sector_bytes};
        reads[i].req = (struct blob_req){
            .op = BLOB_READ,
            .iov = &reads[i].iov,
            .iovcnt = 1,
            .off_bytes = (uint64_t)reads[i].segment << s->segment_shift,
            .len_bytes = 2 * s->sector_bytes,
            .blob = s->blob,
        };
        rt_req_init_task(&reads[i].req.req, t);
        blob_submit(s->chan, &reads[i].req);
    }
    for (unsigned i = 0; i < n; i++) {
        int got = rt_wait(t, &reads[i].req.req);

        rc = rc == 0 ? got : rc;
    }
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = look_at(r, reads[i].segment, reads[i].iov.iov_base);
    return rc;
}

static int read_segment(struct rt_task *t, struct bkv *s, uint32_t idx, uint32_t from, uint32_t to,
                        uint8_t *buf)
{
    uint64_t addr = (uint64_t)idx << s->segment_shift;

    for (uint32_t at = from; at < to;) {
        uint32_t n = MIN(READ_BYTES, to - at);
        int rc = blob_read(t, s->chan, s->blob, buf + at, addr + at, n);

        if (rc < 0)
            return rc;
        at += n;
    }
    return 0;
}

/*
 * A segment with a block and without a head. Both are sent together, so a crash may keep one and
 * lose the other: nobody was told of what is in it then. A later block that says that one had been
 * durable tells that the head was, too.
 */
static int judge_headless(struct rt_task *t, struct recovery *r, uint32_t idx)
{
    struct bkv *s = r->s;
    uint64_t base = (uint64_t)idx << s->segment_shift;
    int rc = read_segment(t, s, idx, 0, s->segment_bytes, r->buf);

    if (rc < 0)
        return rc;
    for (uint32_t at = s->sector_bytes; at < s->segment_bytes; at += s->sector_bytes) {
        struct bkv_block_info block;

        if (is_newer_block(r, idx, r->buf + at, base + at, &block) && block.durable > 0)
            return err_set(r->why, -EBADMSG, "%s: segment %u: its head is damaged", s->name, idx);
    }
    return 0;
}

static int scan(struct rt_task *t, struct recovery *r)
{
    CLEANUP(free_p) struct scan_read *reads = calloc(SCAN_AT_ONCE, sizeof(*reads));
    struct bkv *s = r->s;
    unsigned n = 0;
    int rc = 0;

    if (reads == NULL)
        return -ENOMEM;
    for (uint32_t i = 1; i < s->nsegs && rc == 0; i++) {
        if (s->seg[i].state != BKV_SEG_FREE)
            continue;
        reads[n++].segment = i;
        if (n == SCAN_AT_ONCE) {
            rc = scan_some(t, r, reads, n);
            n = 0;
        }
    }
    if (n > 0 && rc == 0)
        rc = scan_some(t, r, reads, n);
    for (uint32_t i = 0; i < r->nheadless && rc == 0; i++)
        rc = judge_headless(t, r, r->headless[i]);
    return rc;
}

/* What the heads say becomes the state of their segments; the others are past all generations
 * that may have been used since the table. */
static void adopt_newer(struct recovery *r)
{
    struct bkv *s = r->s;

    for (uint32_t i = 1; i < s->nsegs; i++) {
        if (s->seg[i].state == BKV_SEG_FREE)
            s->seg[i].gen += r->epochs;
    }
    for (uint32_t i = 0; i < r->nnewer; i++) {
        const struct bkv_seg_info *info = &r->newer[i].info;
        struct bkv_seg *g = &s->seg[info->segment];

        g->order = info->order;
        g->allocated = g->known = true;
        s->last_order = MAX(s->last_order, info->order);
        /* Pages of a checkpoint that was not finished are nobody's. */
        if (info->stream == BKV_INDEX)
            continue;
        g->gen = info->gen;
        g->state = BKV_SEG_SEALED;
        g->stream = info->stream;
        g->end = s->sector_bytes;
    }
}

/* The segment that follows the one of `order` in a stream; with order 0 the first new one. */
static struct newer *successor(struct recovery *r, enum bkv_stream stream, uint64_t order)
{
    struct newer *first = NULL;

    for (uint32_t i = 0; i < r->nnewer; i++) {
        struct newer *n = &r->newer[i];

        if (n->info.stream != stream || n->seen)
            continue;
        if (order != 0 && n->info.prev_order == order)
            return n;
        if (order == 0 && (first == NULL || n->info.order < first->info.order))
            first = n;
    }
    return first;
}

/* --- replay ----------------------------------------------------------------------------------- */

/* Whether the block at `off` is whole: head, and each record in it. */
static bool block_is_good(const struct recovery *r, uint32_t idx, uint32_t off, uint32_t limit,
                          uint32_t number, struct bkv_block_info *out)
{
    const struct bkv *s = r->s;
    uint64_t base = (uint64_t)idx << s->segment_shift;
    uint32_t gen = s->seg[idx].gen, at = sizeof(struct bkv_block_head), n = 0;

    if (limit - off < s->sector_bytes ||
        bkv_block_head_decode(r->buf + off, base + off, gen, (uint32_t)s->secret[0], out) < 0)
        return false;
    if (out->number != number || out->len_bytes > limit - off)
        return false;
    while (at < out->len_bytes) {
        struct bkv_record_out rec;
        int len = bkv_record_decode(r->buf + off + at, out->len_bytes - at, base + off + at, gen,
                                    &rec, NULL);

        if (len < 0)
            return false;
        at += (uint32_t)len;
        n++;
    }
    return n == out->nrecords;
}

/* Extents have to be places that can be. */
static int check_extents(const struct bkv *s, const struct bkv_extents *x)
{
    for (unsigned i = 0; i < x->n + x->nlists; i++) {
        const struct bkv_extent *e = &x->e[i];
        uint64_t addr = le64_get(e->addr), off = addr & (s->segment_bytes - 1);
        uint64_t len = le32_get(e->head_len) + round_up_u64(le32_get(e->data_len), s->sector_bytes);
        uint32_t idx = bkv_seg_of(s, addr);

        if (addr >> BKV_ADDR_BITS != 0 || idx == 0 || idx >= s->nsegs ||
            off + len > s->segment_bytes || s->seg[idx].stream != BKV_LARGE)
            return -EBADMSG;
    }
    return 0;
}

/* The last one that a record names tells where the chunks of its segment end. */
static void take_ends(struct bkv *s, const struct bkv_extents *x)
{
    for (unsigned i = 0; i < x->n + x->nlists; i++) {
        uint64_t addr = le64_get(x->e[i].addr);
        struct bkv_seg *g = &s->seg[bkv_seg_of(s, addr)];
        uint32_t off = (uint32_t)(addr & (s->segment_bytes - 1));

        g->end = MAX(g->end, off + bkv_extent_bytes(s, &x->e[i]));
    }
}

/* Reads the value of a record whose chunks may not be there. 0; -EBADMSG: they are not. */
static int look_at_value(struct rt_task *t, struct bkv *s, const struct bkv_record_out *rec)
{
    CLEANUP(bkv_extents_free) struct bkv_extents x = {0};
    CLEANUP(free_p) uint8_t *buf = NULL;
    struct iovec iov;
    uint64_t moved;
    int rc = bkv_extents_of(t, s, rec, &x);

    if (rc == 0)
        rc = check_extents(s, &x);
    if (rc < 0)
        return rc;
    iov.iov_len = (size_t)round_up_u64(rec->value_len, BKV_PAGE_BYTES);
    iov.iov_base = buf = aligned_alloc(4096, iov.iov_len);
    if (buf == NULL)
        return -ENOMEM;
    return bkv_large_read(t, s, &x, 0, rec->value_len, &iov, 1, &moved);
}

/* The chunks of a block of which nobody says that it was durable. 0: they are there; -EBADMSG. */
static int look_at_chunks(struct rt_task *t, struct recovery *r, const uint8_t *buf, uint32_t len)
{
    uint32_t at = sizeof(struct bkv_block_head);
    int rc = 0;

    while (at < len && rc == 0) {
        struct bkv_record_out rec;

        bkv_record_view(buf + at, &rec);
        if ((rec.flags & BKV_F_UNFLUSHED) != 0 && !PLANTED("kv-unflushed"))
            rc = look_at_value(t, r->s, &rec);
        at += rec.rec_len;
    }
    return rc;
}

/* One record of the log. What the memtable has already counts if it is newer, or a later copy. */
static int replay_record(struct rt_task *t, struct recovery *r, const struct bkv_record_out *rec,
                         uint64_t addr)
{
    struct bkv *s = r->s;
    struct bkv_place place = {.addr = addr,
                              .seq = rec->seq,
                              .value_len = rec->value_len,
                              .rec_len = rec->rec_len,
                              .type = rec->type};
    CLEANUP(bkv_extents_free) struct bkv_extents x = {0};
    const struct bkv_mem_entry *e;
    struct bytes key;
    int rc = bkv_record_key(s->codec, rec, s->scratch, &key);

    if (rc < 0)
        return rc;
    r->max_seq = MAX(r->max_seq, rec->seq);
    r->records++;
    e = bkv_memtab_find(s->active, key);
    if (e != NULL && (e->place.seq > rec->seq ||
                      (e->place.seq == rec->seq && s->seg[bkv_seg_of(s, e->place.addr)].order >
                                                       s->seg[bkv_seg_of(s, addr)].order)))
        return 0;
    rc = bkv_drops_reserve(s, 1);
    if (rc == 0 && !bkv_memtab_reserve(s->active, (uint32_t)key.len))
        rc = -ENOMEM;
    if (rc == 0 && rec->type == BKV_LARGE_VALUE) {
        rc = bkv_extents_of(t, s, rec, &x);
        if (rc == 0)
            rc = check_extents(s, &x);
        if (rc == 0)
            take_ends(s, &x);
    }
    if (rc == 0)
        bkv_apply_place(s, key, &place, bkv_extents_bytes(&x), false);
    return rc;
}

/* The records of the block in `buf`, which lies at `addr`. */
static int replay_records(struct rt_task *t, struct recovery *r, const uint8_t *buf, uint64_t addr,
                          uint32_t len)
{
    uint32_t at = sizeof(struct bkv_block_head);

    while (at < len) {
        struct bkv_record_out rec;
        int rc;

        bkv_record_view(buf + at, &rec);
        rc = rec.type == BKV_TXN ? 0 : replay_record(t, r, &rec, addr + at);
        if (rc < 0)
            return rc;
        at += rec.rec_len;
    }
    return 0;
}

/* A part that does not count has used its numbers up. */
static void skip_records(struct recovery *r, const uint8_t *buf, uint32_t len)
{
    uint32_t at = sizeof(struct bkv_block_head);

    while (at < len) {
        struct bkv_record_out rec;

        bkv_record_view(buf + at, &rec);
        r->max_seq = MAX(r->max_seq, rec.seq);
        at += rec.rec_len;
    }
}

static int close_open(struct rt_task *t, struct recovery *r, bool counts)
{
    int rc = 0;

    if (counts)
        rc = replay_records(t, r, r->open.copy, r->open.addr, r->open.len);
    else
        skip_records(r, r->open.copy, r->open.len);
    free(take_ptr(&r->open.copy));
    r->open.id = 0;
    return rc;
}

static int keep_open(struct recovery *r, const uint8_t *buf, uint64_t addr, uint32_t len,
                     uint64_t id)
{
    r->open.copy = malloc(len);
    if (r->open.copy == NULL)
        return -ENOMEM;
    memcpy(r->open.copy, buf, len);
    r->open.addr = addr;
    r->open.len = len;
    r->open.id = id;
    return 0;
}

/* What the log ends with: only shard 0 knows. The next block will tell. */
static int end_open(struct rt_task *t, struct recovery *r)
{
    struct bkv_txn_state *txn = &r->s->txn;
    uint64_t id = r->open.id;

    if (id == 0)
        return 0;
    txn->told_id = id;
    txn->told_counts = id == txn->counted || PLANTED("kv-txn-guess");
    return close_open(t, r, txn->told_counts);
}

/* The mark a block begins with. 0: *out; 1: it has none. */
static int mark_of(struct recovery *r, const uint8_t *buf, uint32_t len, struct bkv_txn_mark *out)
{
    struct iovec iov = {.iov_base = out, .iov_len = sizeof(*out)};
    struct bkv_record_out rec;
    uint64_t moved = 0;
    int rc;

    if (len <= sizeof(struct bkv_block_head))
        return 1;
    bkv_record_view(buf + sizeof(struct bkv_block_head), &rec);
    if (rec.type != BKV_TXN)
        return 1;
    rc = bkv_record_value(r->s->codec, &rec, 0, sizeof(*out), &iov, 1, r->s->scratch, &moved);
    if (rc < 0)
        return rc;
    return moved == sizeof(*out) && out->kind <= BKV_TXN_COMMITTED ? 0 : -EBADMSG;
}

static int replay_block(struct rt_task *t, struct recovery *r, uint32_t idx, uint32_t off,
                        const struct bkv_block_info *block)
{
    uint64_t addr = ((uint64_t)idx << r->s->segment_shift) + off;
    const uint8_t *buf = r->buf + off;
    struct bkv_txn_mark mark = {.kind = 0};
    int rc = mark_of(r, buf, block->len_bytes, &mark);

    if (rc < 0)
        return rc;
    r->blocks++;
    if (r->open.id != 0) {
        if (le64_get(mark.prev_id) != r->open.id)
            return -EBADMSG;
        rc = close_open(t, r, mark.prev_counts != 0);
        if (rc < 0)
            return rc;
    }
    if (mark.kind == BKV_TXN_PREPARED)
        return keep_open(r, buf, addr, block->len_bytes, le64_get(mark.id));
    if (mark.kind == BKV_TXN_COMMITTED) {
        struct bkv_txn_part part = {.id = le64_get(mark.id), .shards = le64_get(mark.shards)};

        bkv_txn_committed(r->s, &part);
    }
    return replay_records(t, r, buf, addr, block->len_bytes);
}

/* Behind the end of the log: whether anything says that more had been durable (-EBADMSG), or was at
 * least written (1: nothing may be appended here). */
static int look_behind(struct recovery *r, uint32_t idx, uint32_t off, uint32_t number)
{
    struct bkv *s = r->s;
    uint64_t base = (uint64_t)idx << s->segment_shift;
    int rc = 0;

    for (uint32_t at = off; at < s->segment_bytes; at += s->sector_bytes) {
        struct bkv_block_info block;

        if (bkv_block_head_decode(r->buf + at, base + at, s->seg[idx].gen, (uint32_t)s->secret[0],
                                  &block) < 0)
            continue;
        if (block.durable > number)
            return err_set(r->why, -EBADMSG,
                           "%s: segment %u: the block at %u (number %u) is damaged: a later one, "
                           "at %u, says it had been written",
                           s->name, idx, off, number, at);
        if (at > off)
            rc = 1;
    }
    return rc;
}

/* How many blocks of a segment were durable for sure, by what those from `pos` on say. */
static uint32_t durable_blocks(const struct recovery *r, const struct bkv_stream_pos *pos)
{
    const struct bkv *s = r->s;
    uint64_t base = (uint64_t)pos->segment << s->segment_shift;
    uint32_t durable = 0, number = pos->number;

    for (uint32_t at = pos->offset; s->segment_bytes - at >= s->sector_bytes; number++) {
        struct bkv_block_info block;

        if (bkv_block_head_decode(r->buf + at, base + at, s->seg[pos->segment].gen,
                                  (uint32_t)s->secret[0], &block) < 0 ||
            block.number != number || block.len_bytes > s->segment_bytes - at)
            break;
        durable = MAX(durable, block.durable);
        at += (uint32_t)round_up_u64(block.len_bytes, s->sector_bytes);
    }
    return durable;
}

/* Replays one segment of a stream from pos->offset on; `next` follows it, or NULL. */
static int replay_segment(struct rt_task *t, struct recovery *r, struct bkv_stream_pos *pos,
                          const struct newer *next)
{
    struct bkv *s = r->s;
    uint32_t idx = pos->segment;
    uint32_t limit = next != NULL ? next->info.prev_end : s->segment_bytes;
    uint32_t durable = UINT32_MAX; /* all of a segment that has a successor; what was moved */
    bool lost = false;
    int rc;

    if (limit > s->segment_bytes || limit < pos->offset)
        return err_set(r->why, -EBADMSG, "%s: segment %u: its successor contradicts it", s->name,
                       idx);
    rc = read_segment(t, s, idx, pos->offset, limit, r->buf);
    if (rc < 0)
        return err_set(r->why, rc, "%s: segment %u: %s", s->name, idx, err_str(rc));
    if (next == NULL && s->seg[idx].stream == BKV_HOT)
        durable = durable_blocks(r, pos);
    while (pos->offset < limit) {
        struct bkv_block_info block;

        if (!block_is_good(r, idx, pos->offset, limit, pos->number, &block))
            break;
        rc = pos->number >= durable ? look_at_chunks(t, r, r->buf + pos->offset, block.len_bytes)
                                    : 0;
        lost = rc == -EBADMSG;
        if (lost)
            break;
        if (rc == 0)
            rc = replay_block(t, r, idx, pos->offset, &block);
        if (rc < 0)
            return err_set(r->why, rc, "%s: segment %u: block at %u: %s", s->name, idx, pos->offset,
                           err_str(rc));
        pos->offset += (uint32_t)round_up_u64(block.len_bytes, s->sector_bytes);
        pos->number++;
    }
    pos->durable = pos->number;
    s->seg[idx].end = pos->offset;
    if (next != NULL)
        return pos->offset == limit
                   ? 0
                   : err_set(r->why, -EBADMSG, "%s: segment %u: the block at %u is damaged",
                             s->name, idx, pos->offset);
    rc = look_behind(r, idx, pos->offset, pos->number);
    return rc == 0 && lost ? 1 : rc;
}

/* Follows a stream to its end, and leaves its position there. */
static int replay_stream(struct rt_task *t, struct recovery *r, enum bkv_stream stream)
{
    struct bkv *s = r->s;
    const struct bkv_position *from = &s->super.pos[stream];
    struct bkv_stream_pos pos = {.segment = le32_get(from->segment),
                                 .offset = le32_get(from->offset),
                                 .number = le32_get(from->number)};
    int rc = 0;

    if (pos.segment >= s->nsegs || pos.offset > s->segment_bytes ||
        (pos.segment != 0 && s->seg[pos.segment].stream != stream))
        return err_set(r->why, -EBADMSG, "%s: a position of the log cannot be", s->name);
    pos.last_order = pos.segment != 0 ? s->seg[pos.segment].order : 0;
    for (;;) {
        struct newer *next = successor(r, stream, pos.last_order);

        if (pos.segment != 0)
            rc = replay_segment(t, r, &pos, next);
        if (rc < 0 || next == NULL)
            break;
        next->seen = true;
        pos = (struct bkv_stream_pos){.segment = next->info.segment,
                                      .offset = s->sector_bytes,
                                      .last_order = next->info.order};
    }
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < r->nnewer; i++) {
        if (r->newer[i].info.stream == stream && !r->newer[i].seen)
            return err_set(r->why, -EBADMSG, "%s: segment %u: nothing leads to it", s->name,
                           r->newer[i].info.segment);
    }
    if (pos.segment != 0 && rc == 0 && s->segment_bytes - pos.offset >= s->sector_bytes) {
        s->seg[pos.segment].state = BKV_SEG_OPEN; /* goes on where it stopped */
    } else if (pos.segment != 0) {
        pos.last_end = pos.offset;
        pos.segment = 0;
    }
    s->pos[stream] = pos;
    return 0;
}

/* The streams that are not replayed. */
static int take_index_position(struct bkv *s, struct err *why)
{
    const struct bkv_position *from = &s->super.pos[BKV_INDEX];
    struct bkv_stream_pos *pos = &s->pos[BKV_INDEX];
    uint32_t idx = le32_get(from->segment), off = le32_get(from->offset);

    if (idx >= s->nsegs || off > s->segment_bytes || off % BKV_PAGE_BYTES != 0 ||
        (idx != 0 && s->seg[idx].stream != BKV_INDEX))
        return err_set(why, -EBADMSG, "%s: the position of the index cannot be", s->name);
    if (idx == 0)
        return 0;
    *pos = (struct bkv_stream_pos){.segment = idx, .offset = off, .last_order = s->seg[idx].order};
    s->seg[idx].state = BKV_SEG_OPEN;
    return 0;
}

/* Chunks go on behind the last one that a record refers to. */
static void take_large_position(struct bkv *s)
{
    uint32_t newest = 0;

    for (uint32_t i = 1; i < s->nsegs; i++) {
        if (s->seg[i].stream == BKV_LARGE &&
            (newest == 0 || s->seg[i].order > s->seg[newest].order))
            newest = i;
    }
    if (newest == 0 || s->seg[newest].end > s->segment_bytes - s->sector_bytes)
        return;
    s->pos[BKV_LARGE] = (struct bkv_stream_pos){
        .segment = newest,
        .offset = (uint32_t)round_up_u64(MAX(s->seg[newest].end, s->sector_bytes), s->sector_bytes),
        .last_order = s->seg[newest].order,
    };
    s->seg[newest].state = BKV_SEG_OPEN;
}

/* The location table learns what the log has told. */
static void learn(struct bkv *s)
{
    const struct bkv_mem_entry *e = bkv_memtab_seek(s->active, (struct bytes){0}, false);

    for (; e != NULL; e = bkv_memtab_seek(s->active, art_key_bytes(&e->key), true)) {
        if (e->place.type != BKV_DELETE)
            bkv_hot_set(s->hot, bkv_hash(s, art_key_bytes(&e->key)), e->place.addr,
                        e->place.rec_len);
    }
}

static void recovery_fini(struct recovery *r)
{
    free(r->newer);
    free(r->headless);
    free(r->open.copy);
    free(r->buf);
}

int bkv_recover(struct rt_task *t, struct bkv *s, struct err *why)
{
    CLEANUP(recovery_fini) struct recovery r = {.s = s, .why = why};
    size_t buf = MAX((size_t)s->segment_bytes, (size_t)SCAN_AT_ONCE * 2 * s->sector_bytes);
    int rc = load_root(t, s, why);

    if (rc < 0)
        return rc;
    r.epochs = bkv_epochs(&s->super);
    memcpy(s->txn.last, s->super.shards.txn, sizeof(s->txn.last));
    s->last_seq = r.max_seq = le64_get(s->super.last_seq);
    s->last_order = s->tree_order = le64_get(s->super.last_order);
    for (uint32_t i = 1; i < s->nsegs;
         i++) /* pages of the index may be newer than what they tell */
        s->last_order = MAX(s->last_order, s->seg[i].order);
    bkv_memtab_free(s->active);
    s->active = s->replay_memtab = bkv_memtab_new(REPLAY_MEMTAB_BYTES / s->nshards);
    r.buf = aligned_alloc(4096, buf);
    if (s->active == NULL || r.buf == NULL)
        return err_set(why, -ENOMEM, "%s: no memory", s->name);
    if (why != NULL)
        why->text[0] = '\0';
    rc = scan(t, &r);
    if (rc == 0) {
        adopt_newer(&r);
        rc = replay_stream(t, &r, BKV_COLD);
    }
    if (rc == 0)
        rc = replay_stream(t, &r, BKV_HOT);
    if (rc == 0)
        rc = end_open(t, &r);
    if (rc == 0)
        rc = take_index_position(s, why);
    if (rc == 0 && r.blocks > 0 && !s->opts.read_only)
        rc = bkv_flush(t, s); /* what has been found has to stay */
    if (rc < 0) {
        if (why != NULL && why->text[0] == '\0')
            err_set(why, rc, "%s: cannot be recovered: %s", s->name, err_str(rc));
        return rc;
    }
    take_large_position(s);
    s->last_seq = r.max_seq;
    s->dirty = r.records > 0;
    bkv_hot_expect(s->hot, bkv_tree_nkeys(s->tree) + bkv_memtab_count(s->active));
    learn(s);
    if (r.records > 0)
        log_info("%s: replayed %llu records in %llu blocks", s->name, (unsigned long long)r.records,
                 (unsigned long long)r.blocks);
    return 0;
}
