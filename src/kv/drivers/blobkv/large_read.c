/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading large values: per chunk its head and the units that the range touches, several chunks at
 * once. What is aligned goes straight into the user's memory; it is checked there before the
 * request completes.
 */
#include "kv/drivers/blobkv/large.h"

#define READS_MAX 4u /* of one value at a time */

/* --- one chunk -------------------------------------------------------------------------------- */

/* A read of a value under way: chunks are submitted and finished in order. */
struct reading {
    struct bkv *s;
    const struct iovec *iov;
    unsigned iovcnt;
    struct bkv_chunk_buf *buf[READS_MAX]; /* a ring */
    unsigned first, n;
    struct rt_cond changed;
};

static void io_ended(struct bkv_chunk_buf *b, int rc)
{
    if (rc < 0 && b->rc == 0)
        b->rc = rc;
    if (--b->pending == 0)
        rt_cond_wake_all(b->changed);
}

static void data_done(struct rt_req *req)
{
    io_ended(container_of(req, struct bkv_chunk_buf, io.req), req->rc);
}

static void head_done(struct rt_req *req)
{
    io_ended(container_of(req, struct bkv_chunk_buf, head_io.req), req->rc);
}

static void submit(struct bkv_chunk_buf *b, struct blob_req *io, rt_req_fn done,
                   const struct iovec *iov, unsigned iovcnt, uint64_t addr)
{
    *io = (struct blob_req){
        .op = BLOB_READ,
        .iov = iov,
        .iovcnt = iovcnt,
        .off_bytes = addr,
        .len_bytes = iov_len(iov, iovcnt),
        .blob = b->s->blob,
    };
    rt_req_init(&io->req, done);
    b->s->stats.read_bytes += io->len_bytes;
    b->pending++;
    blob_submit(b->s->chan, io);
}

static bool is_transformed(const struct bkv *s, const struct bkv_extent *e)
{
    return bkv_codec_seals(s->codec) || le32_get(e->data_len) != le32_get(e->raw_len);
}

static struct iovec piece(struct bkv_chunk_buf *b, uint32_t from, uint32_t to)
{
    return (struct iovec){b->data + from, to - from};
}

/* Describes data [begin, end) of the chunk: in the user's memory where whole sectors are wanted and
 * everything is aligned, else in the buffer. */
static void map_data(struct reading *r, struct bkv_chunk_buf *b, uint32_t begin, uint32_t end)
{
    const struct bkv *s = r->s;
    struct iovec *at = b->iov + 1;
    uint32_t to = b->to / s->sector_bytes * s->sector_bytes;
    int n = 0;

    b->direct_to = b->from;
    if (!is_transformed(s, &b->e) && b->from % s->sector_bytes == 0 && to > b->from) {
        if (begin < b->from)
            *at++ = piece(b, begin, b->from);
        n = iov_slice(r->iov, r->iovcnt, b->user_off, to - b->from, at, BKV_CHUNK_IOV - 4);
        for (int i = 0; i < n; i++)
            if ((uintptr_t)at[i].iov_base % s->large->align != 0 ||
                at[i].iov_len % s->sector_bytes != 0)
                n = 0;
    }
    if (n > 0) {
        at += n;
        b->direct_to = to;
        if (to < end)
            *at++ = piece(b, to, end);
    } else {
        at = b->iov + 1;
        *at++ = piece(b, begin, end);
    }
    b->data_iovs = (unsigned)(at - b->iov) - 1;
}

/* Begins to read bytes [from, to) of a chunk. */
static void chunk_begin(struct reading *r, struct bkv_chunk_buf *b, const struct bkv_extent *e,
                        uint32_t from, uint32_t to, uint64_t user_off)
{
    struct bkv *s = r->s;
    uint64_t addr = le64_get(e->addr);
    uint32_t data_len = le32_get(e->data_len), head_len = le32_get(e->head_len);
    uint32_t begin, end;

    b->s = s;
    b->used = data_len;
    b->e = *e;
    b->gen = bkv_gen_of(s, addr);
    b->from = from;
    b->to = to;
    b->user_off = user_off;
    b->rc = 0;
    b->pending = 0;
    b->changed = &r->changed;
    b->first = 0;
    b->units = bkv_units(data_len);
    if (data_len == le32_get(e->raw_len)) {
        b->first = from / BKV_UNIT_BYTES;
        b->units = bkv_units(to) - b->first;
    }
    begin = b->first * BKV_UNIT_BYTES;
    end = MIN(begin + b->units * BKV_UNIT_BYTES, (uint32_t)round_up_u64(data_len, s->sector_bytes));
    map_data(r, b, begin, end);
    b->iov[0] = (struct iovec){b->data - head_len, head_len};
    bkv_pin(s, addr);
    if (begin == 0) {
        submit(b, &b->io, data_done, b->iov, 1 + b->data_iovs, addr);
        return;
    }
    submit(b, &b->head_io, head_done, b->iov, 1, addr);
    submit(b, &b->io, data_done, b->iov + 1, b->data_iovs, addr + head_len + begin);
}

static int check(struct bkv_chunk_buf *b)
{
    struct bkv_chunk_head *head = b->iov[0].iov_base;
    uint64_t addr = le64_get(b->e.addr);
    uint32_t head_len = le32_get(b->e.head_len), need;
    int rc = bkv_chunk_head_check((uint8_t *)head, head_len, addr, b->gen, &need);

    if (rc < 0 || le32_get(head->crc) != le32_get(b->e.head_crc) ||
        le32_get(head->data_len) != le32_get(b->e.data_len))
        return -EBADMSG;
    rc = bkv_chunk_units_check(head, addr, b->gen, head_len, b->first, b->units, b->iov + 1,
                               b->data_iovs);
    if (rc < 0)
        return rc;
    return bkv_chunk_units_open(b->s->codec, head, b->first, b->units,
                                b->data + b->first * BKV_UNIT_BYTES);
}

/* What is not yet where the user wants it. */
static int hand_out(struct reading *r, struct bkv_chunk_buf *b)
{
    struct bkv_chunk_head *head = b->iov[0].iov_base;
    uint8_t packing = head->flags & (BKV_F_ZSTD | BKV_F_LZ4);
    const uint8_t *data = b->data;

    if ((packing != 0) != (le32_get(b->e.data_len) != le32_get(b->e.raw_len)))
        return -EBADMSG;
    if (packing != 0) {
        int rc;

        if (b->s->codec == NULL)
            return -EBADMSG;
        rc = bkv_codec_unpack(b->s->codec, packing, bytes_make(data, le32_get(b->e.data_len)),
                              b->s->large->scratch, le32_get(b->e.raw_len));
        if (rc < 0)
            return rc;
        data = b->s->large->scratch;
    }
    (void)iov_copy_in(r->iov, r->iovcnt, b->user_off + (b->direct_to - b->from),
                      data + b->direct_to, b->to - b->direct_to);
    return 0;
}

/* Waits for the oldest chunk and takes it out of the ring. */
static int chunk_end(struct rt_task *t, struct reading *r, bool wanted)
{
    struct bkv_chunk_buf *b = r->buf[r->first];
    int rc;

    while (b->pending > 0)
        (void)rt_cond_wait(t, &r->changed);
    r->first = (r->first + 1) % READS_MAX;
    r->n--;
    rc = b->rc;
    if (rc == 0 && wanted)
        rc = check(b);
    if (rc == 0 && wanted)
        rc = hand_out(r, b);
    bkv_unpin(r->s, le64_get(b->e.addr));
    bkv_chunk_buf_put(b);
    return rc;
}

/* A buffer for the next chunk: waits only if there is nothing that could be finished instead. */
static struct bkv_chunk_buf *buf_for(struct rt_task *t, struct reading *r)
{
    struct bkv_chunk_pool *p = &r->s->large->reads;

    if (r->n == READS_MAX)
        return NULL;
    while (list_empty(&p->free)) {
        if (r->n > 0)
            return NULL;
        (void)rt_cond_wait(t, &p->freed);
    }
    return list_pop_entry(&p->free, struct bkv_chunk_buf, link);
}

int bkv_large_read(struct rt_task *t, struct bkv *s, struct bkv_extents *x, uint64_t off,
                   uint64_t len, const struct iovec *iov, unsigned iovcnt, uint64_t *out_moved)
{
    struct reading r = {.s = s, .iov = iov, .iovcnt = iovcnt};
    uint64_t end = off < x->value_len ? off + MIN(len, x->value_len - off) : off;
    uint64_t at = off, base = off >= x->base ? x->base : 0; /* of extent i */
    unsigned i = off >= x->base ? x->at : 0;
    int rc = 0;

    while (rc == 0 && (at < end || r.n > 0)) {
        struct bkv_chunk_buf *b = at < end ? buf_for(t, &r) : NULL;
        uint32_t raw_len, from, to;

        if (b == NULL) {
            rc = chunk_end(t, &r, true);
            continue;
        }
        while (base + le32_get(x->e[i].raw_len) <= at)
            base += le32_get(x->e[i++].raw_len);
        raw_len = le32_get(x->e[i].raw_len);
        from = (uint32_t)(at - base);
        to = (uint32_t)MIN(raw_len, end - base);
        r.buf[(r.first + r.n++) % READS_MAX] = b;
        chunk_begin(&r, b, &x->e[i], from, to, at - off);
        at = base + to;
        x->at = i;
        x->base = base;
    }
    while (r.n > 0)
        (void)chunk_end(t, &r, false);
    if (rc == 0)
        *out_moved = end - off;
    return rc;
}

int bkv_large_get(struct rt_task *t, struct bkv *s, struct kv_req *kv,
                  const struct bkv_record_out *rec)
{
    CLEANUP(bkv_extents_free) struct bkv_extents x = {0};
    int rc = bkv_extents_of(t, s, rec, &x);

    if (rc == 0)
        rc = bkv_large_read(t, s, &x, kv->off, kv->len, kv->iov, kv->iovcnt, &kv->moved);
    kv->value_len = rec->value_len;
    kv->version = rec->seq;
    return rc;
}
