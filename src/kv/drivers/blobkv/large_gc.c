/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves what lives out of a segment of chunks. A chunk is live when the current record of its key
 * names its address. All chunks of one value that are in the segment move together: each is read,
 * checked, written elsewhere as it is (sealed and compressed bytes are not touched), and then a
 * LARGE record with the same number names the new places. Until a checkpoint has that record the
 * old chunks stay where they are, so either copy of the record is a good one after a crash.
 */
#include "kv/drivers/blobkv/gc.h"
#include "kv/drivers/blobkv/large.h"

#define SCAN_BYTES (256u * 1024u)

/* The segment that is being emptied. */
struct evacuation {
    struct bkv *s;
    uint32_t segment, gen;
    struct bkv_chunk_buf *buf; /* the scan, then each chunk */
    int rc;                    /* the first thing that could not be moved */
};

static int read_into(struct rt_task *t, struct evacuation *ev, uint8_t *buf, uint64_t addr,
                     uint32_t len)
{
    return blob_read(t, ev->s->chan, ev->s->blob, buf, addr, len);
}

/* Reads and checks the chunk of an extent, head and data, into the buffer. */
static int chunk_read(struct rt_task *t, struct evacuation *ev, const struct bkv_extent *e)
{
    uint64_t addr = le64_get(e->addr);
    uint32_t head_len = le32_get(e->head_len), data_len = le32_get(e->data_len), need;
    uint8_t *head = ev->buf->data - head_len;
    struct iovec iov = {ev->buf->data, data_len};
    int rc = read_into(t, ev, head, addr, bkv_extent_bytes(ev->s, e));

    ev->buf->used = MAX(ev->buf->used, data_len);
    if (rc < 0)
        return rc;
    rc = bkv_chunk_head_check(head, head_len, addr, ev->gen, &need);
    if (rc < 0 || le32_at(head) != le32_get(e->head_crc) ||
        le32_get(((struct bkv_chunk_head *)head)->data_len) != data_len)
        return -EBADMSG;
    return bkv_chunk_units_check((struct bkv_chunk_head *)head, addr, ev->gen, head_len, 0,
                                 bkv_units(data_len), &iov, 1);
}

/* One chunk to another segment; `w` names the new one. */
static int chunk_move(struct rt_task *t, struct evacuation *ev, struct bkv_large_out *w,
                      const struct bkv_extent *e)
{
    struct bkv *s = ev->s;
    uint32_t len = bkv_extent_bytes(s, e), head_len = le32_get(e->head_len), gen;
    uint8_t *head = ev->buf->data - head_len;
    struct bkv_extent moved = *e;
    uint64_t addr;
    int rc = chunk_read(t, ev, e);

    if (rc == 0)
        rc = bkv_large_place(t, s, BKV_NEED_MOVE, len, &addr, &gen);
    if (rc < 0)
        return rc;
    moved.addr = le64_make(addr);
    moved.head_crc = le32_make(
        bkv_chunk_moved((struct bkv_chunk_head *)head, addr, gen, head_len, ev->buf->data));
    rc = bkv_write(t, s, head, addr, len);
    if (rc == 0)
        rc = bkv_large_share(w, &moved, 1);
    bkv_large_drop(s, addr, len); /* the share holds it now, if there is one */
    s->stats.moved_bytes += len;
    return rc;
}

static bool is_inside(const struct evacuation *ev, const struct bkv_extent *e)
{
    return bkv_seg_of(ev->s, le64_get(e->addr)) == ev->segment;
}

/* Moves the chunks of one value, whose lists are written anew. -ESTALE: the key has changed
 * meanwhile; that is as good. */
static int value_move(struct rt_task *t, struct evacuation *ev, struct bytes key,
                      const struct bkv_place *place, const struct bkv_extents *x)
{
    struct bkv *s = ev->s;
    struct bkv_op op = {
        .key = key,
        .hash = bkv_hash(s, key),
        .flags = KV_F_IF_VERSION,
        .if_version = place->seq,
        .keep_seq = place->seq,
    };
    struct bkv_large_out w;
    int rc = 0;

    bkv_large_begin(&w, s, key);
    w.need = BKV_NEED_MOVE;
    w.value_id = x->value_id;
    for (unsigned i = 0; rc == 0 && i < x->n; i++) {
        if (is_inside(ev, &x->e[i]))
            rc = chunk_move(t, ev, &w, &x->e[i]);
        else
            rc = bkv_large_share(&w, &x->e[i], 1);
    }
    if (rc < 0) {
        bkv_large_abort(t, &w);
        return rc;
    }
    return bkv_large_commit(t, &w, &op);
}

/* Whether a record names a chunk or list at addr. */
static bool names(const struct bkv_extents *x, uint64_t addr)
{
    for (unsigned i = 0; i < x->n + x->nlists; i++)
        if (le64_get(x->e[i].addr) == addr)
            return true;
    return false;
}

/* A chunk at addr says it is of `key`: moves the value if that is so. 1: it was. */
static int chunk_found(struct rt_task *t, struct evacuation *ev, struct bytes key, uint64_t addr)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    CLEANUP(bkv_extents_free) struct bkv_extents x = {0};
    struct bkv *s = ev->s;
    struct bkv_record_out rec;
    struct bkv_place place;
    struct bkv_hold hold;
    int rc;

    bkv_hold(s, &hold);
    rc = bkv_read_key(t, s, key, &place, &buf, &rec);
    if (rc == 0 && rec.type == BKV_LARGE_VALUE)
        rc = bkv_extents_of(t, s, &rec, &x);
    bkv_extents_pin(s, &x);
    bkv_release(s, &hold);
    if (rc == 0 && names(&x, addr)) {
        rc = value_move(t, ev, key, &place, &x);
        rc = rc == -ESTALE || rc == 0 ? 1 : rc;
    }
    bkv_extents_unpin(s, &x);
    return rc == -ENOENT ? 0 : rc;
}

/* The key of the head at buf, if it is one, copied into `key`. 0: none. */
static uint32_t key_of(struct evacuation *ev, const uint8_t *buf, size_t len, uint64_t addr,
                       uint8_t *key)
{
    struct bytes found;
    uint32_t need;

    if (bkv_chunk_head_check(buf, len, addr, ev->gen, &need) < 0)
        return 0;
    if (bkv_chunk_key(ev->s->codec, (const struct bkv_chunk_head *)buf, key, &found) < 0)
        return 0;
    if (found.ptr != key)
        memcpy(key, found.ptr, found.len);
    return (uint32_t)found.len;
}

/* Looks for heads at each sector: what is not live may be anything, also bytes that look like a
 * head, and is not skipped by what it says of itself. */
static int scan(struct rt_task *t, struct evacuation *ev, uint8_t *window, uint8_t *key)
{
    struct bkv *s = ev->s;
    uint64_t base = (uint64_t)ev->segment << s->segment_shift;
    uint32_t end = s->seg[ev->segment].end;
    struct bkv_pace pace = bkv_pace_begin(s);
    uint32_t from = 0, have = 0; /* what is in the window */

    for (uint32_t at = s->sector_bytes; at < end && bkv_seg_live(&s->seg[ev->segment]) > 0;
         at += s->sector_bytes) {
        uint32_t key_len;
        int rc;

        if (s->closing)
            return -ECANCELED;
        if (at < from || at + BKV_CHUNK_HEAD_MAX > from + have) {
            uint32_t n = MIN(SCAN_BYTES, s->segment_bytes - at);

            if (at < from || from + have < s->segment_bytes) {
                rc = read_into(t, ev, window, base + at, n);
                if (rc < 0)
                    return rc;
                from = at;
                have = n;
            }
        }
        key_len = key_of(ev, window + (at - from), from + have - at, base + at, key);
        if (key_len == 0)
            continue;
        rc = chunk_found(t, ev, bytes_make(key, key_len), base + at);
        if (rc < 0 && ev->rc == 0)
            ev->rc = rc;
        if (rc == -ENOSPC || rc == -EIO)
            return rc;
        if (rc == 1)
            bkv_collector_pace(t, s, &pace, at);
    }
    return 0;
}

static struct bkv_chunk_buf *reader_buf(struct rt_task *t, struct bkv *s)
{
    struct bkv_chunk_pool *p = &s->large->reads;

    while (list_empty(&p->free))
        (void)rt_cond_wait(t, &p->freed);
    return list_pop_entry(&p->free, struct bkv_chunk_buf, link);
}

int bkv_large_evacuate(struct rt_task *t, struct bkv *s, uint32_t segment)
{
    struct evacuation ev = {.s = s, .segment = segment, .gen = s->seg[segment].gen};
    uint8_t *window = aligned_alloc(4096, SCAN_BYTES);
    uint8_t *key = malloc(BKV_KEY_MAX);
    int rc = -ENOMEM;

    if (window != NULL && key != NULL) {
        ev.buf = reader_buf(t, s);
        bkv_pin(s, (uint64_t)segment << s->segment_shift);
        rc = scan(t, &ev, window, key);
        bkv_unpin(s, (uint64_t)segment << s->segment_shift);
        bkv_chunk_buf_put(ev.buf);
    }
    free(window);
    free(key);
    return rc < 0 ? rc : ev.rc;
}
