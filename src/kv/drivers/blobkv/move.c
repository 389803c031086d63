/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving what lives out of a segment of the log. Records are read in windows, those that are the
 * current version of their key are copied into a block of the cold stream, with their numbers, and
 * the memtable says where they are now. No flush: until the next checkpoint, which flushes, the old
 * segment is still there, and recovery finds one of the two.
 *
 * Looking keys up may take reads of leaves and is done first; what may have changed meanwhile a
 * memtable tells when the block is written, and again before the new places are entered.
 */
#include "kv/drivers/blobkv/gc.h"
#include "kv/drivers/blobkv/large.h"

#include "base/log.h"

#include <string.h>

#define WINDOW_BYTES ((uint32_t)(512 * KIB))
#define BLOCK_BYTES ((uint32_t)(256 * KIB))
#define MOVES_MAX 2048u
/* The next window begins so much before the end of this one: there the record is that this one cuts
 * off. */
#define OVERLAP_BYTES ((uint32_t)(64 * KIB))

/* One record that is to be moved; it lies in the block already, with its old checksum. */
struct move {
    uint64_t from, hash;
    uint32_t at; /* in the block */
    uint32_t rec_len;
    bool dead;
};

/* A window that is read while the one before it is dealt with. */
struct ahead {
    struct blob_req req; /* first */
    struct iovec iov;
    struct bkv_mover *mover;
    uint8_t *buf;
    uint32_t idx, gen, off, len; /* idx 0: nothing */
    bool pending;
    int rc;
    struct rt_cond done;
};

struct bkv_mover {
    struct bkv *s;
    uint8_t *window; /* WINDOW_BYTES and a record more */
    struct ahead ahead;
    uint32_t next;  /* the segment that will probably be next; 0: none */
    uint8_t *space; /* a page, and the block */
    uint8_t *block;
    struct move *move;
    uint32_t nmoves, fill;
    uint32_t limit;        /* of the block */
    uint64_t looked_up_in; /* the checkpoint for which the leaves were asked */
};

struct bkv_mover *bkv_mover_new(struct bkv *s)
{
    struct bkv_mover *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->s = s;
    m->window = aligned_alloc(4096, WINDOW_BYTES + 65536);
    m->ahead.buf = aligned_alloc(4096, WINDOW_BYTES + 65536);
    m->ahead.mover = m;
    m->space = aligned_alloc(4096, BLOCK_BYTES + 3 * BKV_PAGE_BYTES);
    m->move = malloc(MOVES_MAX * sizeof(*m->move));
    if (m->window == NULL || m->ahead.buf == NULL || m->space == NULL || m->move == NULL) {
        bkv_mover_free(m);
        return NULL;
    }
    m->block = m->space + BKV_PAGE_BYTES;
    return m;
}

void bkv_mover_free(struct bkv_mover *m)
{
    if (m == NULL)
        return;
    free(m->window);
    free(m->ahead.buf);
    free(m->space);
    free(m->move);
    free(m);
}

/* --- is it the current version ---------------------------------------------------------------- */

/* Whether the table says that the key's current record begins in the sector of addr. */
static bool hot_names(const struct bkv *s, uint64_t hash, uint64_t addr)
{
    struct bkv_hot_hit hit[8];
    unsigned n = bkv_hot_find(s->hot, hash, hit, ARRAY_LEN(hit));

    for (unsigned i = 0; i < n; i++) {
        if (hit[i].addr == (addr & ~511ull))
            return true;
    }
    return false;
}

/* 1 yes; 0 no; or why it cannot be said. `alone`: no other record begins in its sector, so that
 * the table, which knows sectors and a part of the hash, cannot mean a neighbour. */
static int is_current(struct rt_task *t, struct bkv *s, struct bytes key, uint64_t hash,
                      uint64_t addr, bool alone)
{
    struct bkv_place place;
    int rc;

    if (alone && hot_names(s, hash, addr))
        return 1;
    rc = bkv_find(t, s, key, &place);
    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return rc;
    return place.addr == addr;
}

/* --- the block -------------------------------------------------------------------------------- */

static struct bytes key_of_move(struct bkv *s, const uint8_t *at, struct bkv_record_out *rec)
{
    struct bytes key = {0};

    bkv_record_view(at, rec);
    if (bkv_record_key(s->codec, rec, s->scratch, &key) < 0)
        return (struct bytes){0}; /* it could be read a moment ago */
    return key;
}

/* Leaves what has changed since it was looked up out, and takes memory for the rest. */
static int prepare_block(struct bkv *s, struct bkv_mover *m)
{
    int rc = bkv_drops_reserve(s, m->nmoves);

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < m->nmoves; i++) {
        struct move *mv = &m->move[i];
        struct bkv_record_out rec;
        struct bytes key = key_of_move(s, m->block + mv->at, &rec);

        mv->dead = key.len == 0 || bkv_has_moved_on(s, key, mv->from);
        if (!mv->dead && !bkv_memtab_reserve(s->active, (uint32_t)key.len)) {
            while (i-- > 0) {
                bkv_record_view(m->block + m->move[i].at, &rec);
                if (!m->move[i].dead)
                    bkv_memtab_unreserve(s->active, rec.key_len);
            }
            return -EAGAIN;
        }
    }
    return 0;
}

/* Closes the gaps of what is dead, and binds each record to its new place. */
static uint32_t bind_block(struct bkv *s, struct bkv_mover *m, uint64_t addr, uint32_t gen)
{
    struct bkv_block_info info = {.number = s->pos[BKV_COLD].number,
                                  .durable = s->pos[BKV_COLD].durable,
                                  .first_seq = s->last_seq};
    uint32_t at = sizeof(struct bkv_block_head);

    for (uint32_t i = 0; i < m->nmoves; i++) {
        struct move *mv = &m->move[i];
        struct bkv_record *rec = (struct bkv_record *)(m->block + at);
        uint32_t used;

        if (mv->dead)
            continue;
        memmove(rec, m->block + mv->at, mv->rec_len);
        mv->at = at;
        used = (uint32_t)sizeof(*rec) + le16_get(rec->key_len) + le32_get(rec->stored_len);
        rec->crc =
            le32_make(bkv_crc(addr + at, gen, (uint8_t *)rec + sizeof(le32), used - sizeof(le32)));
        at += mv->rec_len;
        info.nrecords++;
    }
    info.len_bytes = at;
    bkv_block_head_encode(&info, addr, gen, (uint32_t)s->secret[0], m->block);
    memset(m->block + at, 0, (uint32_t)round_up_u64(at, s->sector_bytes) - at);
    return info.nrecords > 0 ? (uint32_t)round_up_u64(at, s->sector_bytes) : 0;
}

/* What a LARGE record names; its key may be in the scratch, which others use meanwhile: it goes to
 * `own`, BKV_KEY_MAX bytes. */
static int load_extents(struct rt_task *t, struct bkv *s, const struct bkv_record_out *rec,
                        struct bytes *key, uint8_t *own, struct bkv_extents *out)
{
    if (own == NULL)
        return -ENOMEM;
    memcpy(own, key->ptr, key->len);
    key->ptr = own;
    return bkv_extents_of(t, s, rec, out);
}

static void apply_move(struct rt_task *t, struct bkv *s, const struct move *mv, uint8_t *at,
                       uint64_t addr)
{
    CLEANUP(bkv_extents_free) struct bkv_extents x = {0};
    CLEANUP(free_p) uint8_t *own = NULL;
    const struct bkv_mem_entry *e;
    struct bkv_record_out rec;
    struct bytes key = key_of_move(s, at, &rec);
    struct bkv_place place = {.addr = addr,
                              .seq = rec.seq,
                              .value_len = rec.value_len,
                              .rec_len = rec.rec_len,
                              .type = rec.type};

    if (rec.type == BKV_LARGE_VALUE) {
        own = malloc(BKV_KEY_MAX);
        if (load_extents(t, s, &rec, &key, own, &x) < 0) {
            bkv_memtab_unreserve(s->active, rec.key_len); /* it stays where it is */
            return;
        }
    }
    e = bkv_memtab_find(s->active, key);
    if (e != NULL && (e->place.type == BKV_DELETE || e->place.addr != mv->from)) {
        bkv_memtab_unreserve(s->active, rec.key_len); /* changed while the block was written */
        return;
    }
    bkv_apply(s, key, mv->hash, &place, bkv_extents_bytes(&x), false, mv->from);
    s->stats.gc_records++;
}

static void wait_swap(struct rt_task *t, struct bkv *s)
{
    const struct bkv_memtab *full = s->active;
    uint64_t failures = s->checkpoint_failures;

    while (s->active == full && s->poison == 0 && s->checkpoint_failures == failures) {
        bkv_checkpoint_wake(s);
        (void)rt_cond_wait(t, &s->checkpoint_done);
    }
}

/* What was collected goes to the cold stream. 0; -EAGAIN the memtable was full, or the leaves are
 * others by now: collect again. */
static int write_moves(struct rt_task *t, struct bkv *s, struct bkv_mover *m)
{
    struct bkv_stream_pos *pos = &s->pos[BKV_COLD];
    uint64_t base;
    uint32_t len;
    int rc = bkv_cold_room(t, s, (uint32_t)round_up_u64(m->fill, s->sector_bytes));

    if (rc < 0)
        return rc;
    while (s->freezing)
        (void)rt_cond_wait(t, &s->idle);
    if (m->looked_up_in != s->checkpoint_no)
        return -EAGAIN;
    rc = prepare_block(s, m);
    if (rc == -EAGAIN)
        wait_swap(t, s);
    if (rc < 0)
        return rc;
    s->cold_busy = true;
    base = ((uint64_t)pos->segment << s->segment_shift) + pos->offset;
    len = bind_block(s, m, base, s->seg[pos->segment].gen);
    if (len > 0)
        rc = bkv_cold_write(t, s, m->block, len);
    if (rc == 0 && len > 0) {
        pos->offset += len;
        pos->number++;
        s->stats.moved_bytes += len;
        s->log_since_checkpoint += len;
        for (uint32_t i = 0; i < m->nmoves; i++) {
            if (!m->move[i].dead)
                apply_move(t, s, &m->move[i], m->block + m->move[i].at, base + m->move[i].at);
        }
    }
    s->cold_busy = false;
    bkv_memory_fit(s);
    if (s->freezing)
        rt_cond_wake_all(&s->idle);
    return rc;
}

/* --- a segment -------------------------------------------------------------------------------- */

/* A block goes to the end of the segment, so that little of that is lost; only a record that does
 * not fit there begins another one. */
static bool block_has_room(const struct bkv *s, struct bkv_mover *m, uint32_t rec_len)
{
    if (m->nmoves == 0 && m->fill + rec_len > m->limit)
        m->limit = MIN(BLOCK_BYTES, s->segment_bytes - s->sector_bytes);
    return m->nmoves < MOVES_MAX && m->fill + rec_len <= m->limit;
}

static void empty_block(struct bkv_mover *m)
{
    const struct bkv_stream_pos *pos = &m->s->pos[BKV_COLD];

    m->nmoves = 0;
    m->fill = sizeof(struct bkv_block_head);
    m->limit = pos->segment != 0 ? MIN(BLOCK_BYTES, m->s->segment_bytes - pos->offset) : 0;
    m->looked_up_in = m->s->checkpoint_no;
}

/* Takes the record into the block if it lives. 1: the block has no room for it, nothing is done. */
static int collect(struct rt_task *t, struct bkv_mover *m, const uint8_t *buf,
                   const struct bkv_record_out *rec, uint64_t addr, bool alone)
{
    struct bkv *s = m->s;
    uint8_t *at = m->block + m->fill;
    struct bkv_record_out copy;
    struct bytes key;
    uint64_t hash;
    int rc;

    if (rec->type == BKV_DELETE || rec->type == BKV_TXN)
        return 0;
    if (rec->type == BKV_LARGE_VALUE)
        s->seg[bkv_seg_of(s, addr)].has_large = true;
    if (!block_has_room(s, m, rec->rec_len))
        return 1;
    key = key_of_move(s, buf, &copy);
    if (key.len == 0)
        return -EBADMSG;
    hash = bkv_hash(s, key);
    memcpy(at, buf, rec->rec_len);
    if (copy.key.len == 0) { /* decrypted into the scratch, which others use while we wait */
        rc = alone && hot_names(s, hash, addr) ? 1 : -EAGAIN;
        if (rc == -EAGAIN) {
            CLEANUP(free_p) uint8_t *own = malloc(key.len);

            if (own == NULL)
                return -ENOMEM;
            memcpy(own, key.ptr, key.len);
            rc = is_current(t, s, bytes_make(own, key.len), hash, addr, alone);
        }
    } else {
        rc = is_current(t, s, bytes_make(((struct bkv_record *)at)->data, key.len), hash, addr,
                        alone);
    }
    if (rc <= 0)
        return rc;
    m->move[m->nmoves++] =
        (struct move){.from = addr, .hash = hash, .at = m->fill, .rec_len = rec->rec_len};
    m->fill += rec->rec_len;
    return 0;
}

/* Where in a segment the mover is. */
struct walk {
    uint32_t idx, gen;
    uint32_t off;          /* of the next record, or block */
    uint32_t prev;         /* of the record before it; 0: none */
    uint32_t block_end;    /* of the block that off is in; 0: a block begins at off */
    uint32_t win, win_len; /* what of the segment is in the window */
};

static void ahead_done(struct rt_req *req)
{
    struct ahead *a = container_of(req, struct ahead, req.req);
    struct bkv *s = a->mover->s;

    a->rc = req->rc;
    a->pending = false;
    bkv_unpin(s, (uint64_t)a->idx << s->segment_shift);
    rt_cond_wake_all(&a->done);
}

/* Begins to read a window of a segment that is full. */
static void ahead_start(struct bkv *s, struct ahead *a, uint32_t idx, uint32_t off)
{
    uint32_t end = s->seg[idx].end;
    uint64_t addr = ((uint64_t)idx << s->segment_shift) + off;

    if (a->pending || off >= end)
        return;
    a->idx = idx;
    a->gen = s->seg[idx].gen;
    a->off = off;
    a->len = (uint32_t)round_up_u64(MIN(WINDOW_BYTES, end - off), s->sector_bytes);
    a->iov = (struct iovec){a->buf, a->len};
    a->req = (struct blob_req){.op = BLOB_READ,
                               .iov = &a->iov,
                               .iovcnt = 1,
                               .off_bytes = addr,
                               .len_bytes = a->len,
                               .blob = s->blob};
    rt_req_init(&a->req.req, ahead_done);
    a->pending = true;
    bkv_pin(s, addr);
    s->stats.read_bytes += a->len;
    s->stats.gc_read_bytes += a->len;
    blob_submit(s->chan, &a->req);
}

void bkv_mover_settle(struct rt_task *t, struct bkv_mover *m)
{
    while (m != NULL && m->ahead.pending)
        (void)rt_cond_wait(t, &m->ahead.done);
}

/* What was read ahead becomes the window, if it is what is wanted now: segments that are full do
 * not change in one life. */
static bool ahead_take(struct rt_task *t, struct bkv_mover *m, struct walk *w, uint32_t len)
{
    struct ahead *a = &m->ahead;
    uint32_t end = m->s->seg[w->idx].end;
    uint8_t *window = m->window;

    if (a->idx != w->idx || a->gen != w->gen || w->off < a->off ||
        w->off + MIN(len, end - w->off) > a->off + a->len)
        return false;
    bkv_mover_settle(t, m);
    a->idx = 0;
    if (a->rc < 0)
        return false; /* read again: that tells who waits for it */
    m->window = a->buf;
    a->buf = window;
    w->win = a->off;
    w->win_len = a->len;
    return true;
}

/* The rest of this segment, or the next one. */
static void read_on(struct bkv_mover *m, const struct walk *w)
{
    struct bkv *s = m->s;

    if (w->win + w->win_len < s->seg[w->idx].end)
        ahead_start(s, &m->ahead, w->idx, w->win + w->win_len - OVERLAP_BYTES);
    else if (m->next != 0)
        ahead_start(s, &m->ahead, m->next, 0);
}

/* Makes sure that [off, off + len) is in the window, as far as the segment goes. */
static int fetch(struct rt_task *t, struct bkv_mover *m, struct walk *w, uint32_t len)
{
    struct bkv *s = m->s;
    uint32_t end = s->seg[w->idx].end, from, n;
    int rc;

    if (w->off >= w->win && w->off + MIN(len, end - w->off) <= w->win + w->win_len)
        return 0;
    if (ahead_take(t, m, w, len)) {
        read_on(m, w);
        return 0;
    }
    from = w->off & ~(s->sector_bytes - 1);
    n = (uint32_t)round_up_u64(MIN(WINDOW_BYTES, end - from), s->sector_bytes);
    rc = bkv_read_sectors(t, s, ((uint64_t)w->idx << s->segment_shift) + from, n, m->window);
    if (rc < 0)
        return rc;
    s->stats.gc_read_bytes += n;
    w->win = from;
    w->win_len = n;
    read_on(m, w);
    return 0;
}

/* The next record. 1 and *out_buf, *out; 0 at the end of the segment. w->off is behind it. */
static int next_record(struct rt_task *t, struct bkv_mover *m, struct walk *w,
                       const uint8_t **out_buf, struct bkv_record_out *out)
{
    struct bkv *s = m->s;
    uint64_t base = (uint64_t)w->idx << s->segment_shift;
    const uint8_t *p;
    int rc;

    while (w->block_end == 0 || w->off >= w->block_end) {
        struct bkv_block_info block;

        if (w->block_end != 0)
            w->off = (uint32_t)round_up_u64(w->block_end, s->sector_bytes);
        w->block_end = 0;
        if (w->off >= s->seg[w->idx].end)
            return 0;
        rc = fetch(t, m, w, s->sector_bytes);
        if (rc < 0)
            return rc;
        if (bkv_block_head_decode(m->window + (w->off - w->win), base + w->off, w->gen,
                                  (uint32_t)s->secret[0], &block) < 0 ||
            block.len_bytes > s->seg[w->idx].end - w->off)
            return -EBADMSG;
        w->block_end = w->off + block.len_bytes;
        w->off += sizeof(struct bkv_block_head);
    }
    rc = fetch(t, m, w, MIN(BKV_RECORD_MAX, w->block_end - w->off));
    if (rc < 0)
        return rc;
    p = m->window + (w->off - w->win);
    rc = bkv_record_decode(p, MIN(w->block_end, w->win + w->win_len) - w->off, base + w->off,
                           w->gen, out, NULL);
    if (rc < 0)
        return -EBADMSG;
    *out_buf = p;
    w->off += (uint32_t)rc;
    return 1;
}

/* Writes what is collected; when that has to be done again, from where the block began. */
static int close_block(struct rt_task *t, struct bkv_mover *m, struct walk *w, struct walk *began)
{
    int rc = m->nmoves > 0 ? write_moves(t, m->s, m) : 0;

    if (rc == -EAGAIN) {
        *w = *began;
        w->win_len = 0; /* another window may be there */
        rc = 0;
    }
    *began = *w;
    empty_block(m);
    return rc;
}

static int move_all(struct rt_task *t, struct bkv_mover *m, uint32_t idx)
{
    struct bkv *s = m->s;
    struct walk w = {.idx = idx, .gen = s->seg[idx].gen, .off = s->sector_bytes};
    struct walk began = w;
    struct bkv_pace pace = bkv_pace_begin(s);
    int rc = 0;

    empty_block(m);
    while (rc == 0 && !s->closing) {
        struct walk before = w;
        struct bkv_record_out rec;
        const uint8_t *buf = NULL;

        rc = next_record(t, m, &w, &buf, &rec);
        if (rc == 0 && m->nmoves == 0) {
            s->seg[idx].emptied = s->seg[idx].state == BKV_SEG_SEALED;
            return 0;
        }
        if (rc == 1) {
            uint32_t at = w.off - rec.rec_len;
            bool alone = w.prev / 512 != at / 512 && at % 512 + rec.rec_len >= 512;

            rc = collect(t, m, buf, &rec, ((uint64_t)idx << s->segment_shift) + at, alone);
            w.prev = at;
        } else if (rc == 0) {
            rc = 1; /* the end: what is left */
        }
        if (rc == 1) {
            if (before.off < s->seg[idx].end)
                w = before;
            rc = close_block(t, m, &w, &began);
            bkv_collector_pace(t, s, &pace, w.off);
        }
    }
    return rc;
}

int bkv_move_segment(struct rt_task *t, struct bkv_mover *m, uint32_t idx, uint32_t next)
{
    struct bkv *s = m->s;
    uint64_t addr = (uint64_t)idx << s->segment_shift;
    int rc;

    m->next = next;

    bkv_pin(s, addr); /* a checkpoint may free it while it is read; it is not used again before */
    rc = move_all(t, m, idx);
    bkv_unpin(s, addr);
    return rc;
}
