/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/large.h"

#include <sys/mman.h>

#define WRITE_BUFS 8u
#define READ_BUFS 8u
#define WRITES_MAX 4u              /* of one value at a time */
#define UNFLUSHED_BYTES (32 * MIB) /* of values that one block has at most without a flush before */

#define MEM_BYTES ((size_t)BKV_CHUNK_HEAD_MAX + BKV_CHUNK_MAX + BKV_PAGE_BYTES)

/* --- buffers ---------------------------------------------------------------------------------- */

/* Memory is reserved here, and used as far as chunks are long. */
static int pool_init(struct bkv_chunk_pool *p, unsigned n)
{
    list_init(&p->free);
    p->buf = calloc(n, sizeof(*p->buf));
    if (p->buf == NULL)
        return -ENOMEM;
    for (; p->n < n; p->n++) {
        struct bkv_chunk_buf *b = &p->buf[p->n];

        b->mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (b->mem == MAP_FAILED)
            return -ENOMEM;
        b->data = b->mem + BKV_CHUNK_HEAD_MAX;
        b->pool = p;
        list_add_tail(&p->free, &b->link);
    }
    return 0;
}

static void pool_fini(struct bkv_chunk_pool *p)
{
    for (unsigned i = 0; i < p->n; i++)
        munmap(p->buf[i].mem, MEM_BYTES);
    free(p->buf);
}

int bkv_large_init(struct bkv *s)
{
    uint32_t quarter = s->segment_bytes / 4 / BKV_UNIT_BYTES * BKV_UNIT_BYTES;
    uint32_t whole =
        (s->segment_bytes - BKV_PAGE_BYTES - BKV_CHUNK_HEAD_MAX) / BKV_PAGE_BYTES * BKV_PAGE_BYTES;
    struct bkv_large *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return -ENOMEM;
    s->large = l;
    list_init(&l->idle);
    list_init(&l->streams);
    list_init(&l->appends);
    list_init(&l->ending);
    l->end_again.fn = bkv_streams_end;
    l->chunk_bytes = MIN(quarter, BKV_CHUNK_USUAL);
    l->huge_bytes = MIN(whole, BKV_CHUNK_MAX);
    l->extents_max = MIN(s->opts.extents != 0 ? s->opts.extents : BKV_EXTENTS_MAX, BKV_EXTENTS_MAX);
    l->list_extents = l->huge_bytes / (uint32_t)sizeof(struct bkv_extent);
    l->list_extents =
        MIN(l->list_extents, s->opts.extents != 0 ? l->extents_max : BKV_LIST_EXTENTS_MAX);
    l->align = MAX(s->sector_bytes, blk_info(blob_store_dev(blob_store_of(s->blob)))->buf_align);
    if (pool_init(&l->writes, WRITE_BUFS) < 0 || pool_init(&l->reads, READ_BUFS) < 0)
        return -ENOMEM;
    if (s->codec != NULL) {
        l->scratch = malloc(BKV_CHUNK_MAX);
        if (l->scratch == NULL)
            return -ENOMEM;
    }
    return 0;
}

void bkv_large_fini(struct bkv *s)
{
    if (s->large == NULL)
        return;
    rt_timer_stop(&s->large->end_again);
    bkv_streams_free(s);
    pool_fini(&s->large->writes);
    pool_fini(&s->large->reads);
    free(s->large->scratch);
    free(s->large);
    s->large = NULL;
}

uint64_t bkv_large_val_max(const struct bkv *s)
{
    const struct bkv_large *l = s->large;
    uint64_t all = (uint64_t)BKV_LIST_REFS_MAX * l->list_extents * l->chunk_bytes;

    all -= all / 16; /* the last chunk of a segment is a shorter one */
    return MIN(all, 1ull << BKV_ADDR_BITS);
}

struct bkv_chunk_buf *bkv_chunk_buf_get(struct rt_task *t, struct bkv *s)
{
    struct bkv_chunk_pool *p = &s->large->writes;

    /* What is being written comes back by itself. */
    while (list_empty(&p->free))
        if (s->large->writing > 0 || !bkv_stream_squeeze(t, s))
            (void)rt_cond_wait(t, &p->freed);
    return list_pop_entry(&p->free, struct bkv_chunk_buf, link);
}

void bkv_chunk_buf_put(struct bkv_chunk_buf *b)
{
    /* Huge values are rare: their memory goes back. */
    if (UNLIKELY(b->used > BKV_CHUNK_USUAL + BKV_PAGE_BYTES))
        (void)madvise(b->data + BKV_CHUNK_USUAL, BKV_CHUNK_MAX - BKV_CHUNK_USUAL, MADV_DONTNEED);
    b->used = 0;
    list_add_head(&b->pool->free, &b->link);
    rt_cond_wake_one(&b->pool->freed);
}

/* --- writing ---------------------------------------------------------------------------------- */

void bkv_large_begin(struct bkv_large_out *w, struct bkv *s, struct bytes key)
{
    *w = (struct bkv_large_out){.s = s, .key = key, .need = BKV_NEED_DATA};
    rt_random(&w->value_id, sizeof(w->value_id));
}

int bkv_large_reserve(struct bkv_large_out *w, unsigned n)
{
    uint64_t most = (uint64_t)BKV_LIST_REFS_MAX * w->s->large->list_extents + BKV_LIST_REFS_MAX;
    uint64_t want = (uint64_t)w->n + w->nlists + n;
    unsigned max = MAX(w->max, 1u);
    uint8_t *more;

    if (want > most)
        return -EFBIG;
    if (want <= w->max)
        return 0;
    while (max < want)
        max = max < 256 ? max * 4 : max * 2;
    more = realloc(w->rec, BKV_LARGE_HEAD_BYTES + (size_t)max * sizeof(struct bkv_extent));
    if (more == NULL)
        return -ENOMEM;
    w->rec = more;
    w->max = max;
    le64_put(w->rec, w->value_id);
    return 0;
}

static uint32_t head_len_of(const struct bkv_large_out *w, uint32_t data_len)
{
    /* Whole pages even on smaller sectors, as data are: what is not aligned to the pages of a file
     * system is written by it one after the other. */
    return bkv_chunk_head_len(bkv_codec_seals(w->s->codec), (uint32_t)w->key.len, data_len,
                              BKV_PAGE_BYTES);
}

uint32_t bkv_large_next(const struct bkv_large_out *w)
{
    const struct bkv *s = w->s;
    const struct bkv_stream_pos *pos = &s->pos[BKV_LARGE];
    uint32_t len = w->n < BKV_CHUNKS_USUAL ? s->large->chunk_bytes : s->large->huge_bytes;
    uint32_t head = head_len_of(w, len);
    uint32_t room = pos->segment != 0 ? s->segment_bytes - bkv_large_offset(pos) : 0;

    /* The rest of a segment is used up by a shorter one, unless that would be very short. */
    if (room >= head + len || room < head + len / 2)
        return len;
    return (room - head) / BKV_PAGE_BYTES * BKV_PAGE_BYTES;
}

static void write_done(struct rt_req *req)
{
    struct bkv_chunk_buf *b = container_of(req, struct bkv_chunk_buf, io.req);
    struct bkv_large_out *w = b->out;

    if (req->rc < 0 && w->rc == 0)
        w->rc = bkv_poison(w->s, req->rc, "writing a chunk");
    w->pending--;
    w->s->large->writing--;
    bkv_chunk_buf_put(b);
    rt_cond_wake_all(&w->changed);
}

/* Whether pieces of memory may go to the device as they are, but for the end of the last one. */
static bool is_aligned(const struct bkv *s, const struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if ((uintptr_t)iov[i].iov_base % s->large->align != 0 ||
            (i + 1 < n && iov[i].iov_len % s->sector_bytes != 0))
            return false;
    return true;
}

/* The data stay where they are; the end that does not fill a sector is copied. */
static bool data_in_place(const struct bkv *s, struct bkv_chunk_buf *b, const struct iovec *iov,
                          unsigned iovcnt, size_t off, uint32_t len)
{
    int n = iov_slice(iov, iovcnt, off, len, b->iov + 1, BKV_CHUNK_IOV - 2);
    uint32_t tail = len % s->sector_bytes;
    struct iovec *last;

    if (n <= 0 || !is_aligned(s, b->iov + 1, (unsigned)n))
        return false;
    b->data_iovs = (unsigned)n;
    if (tail == 0)
        return true;
    last = &b->iov[n];
    if (last->iov_len < tail)
        return false;
    last->iov_len -= tail;
    memcpy(b->data, (uint8_t *)last->iov_base + last->iov_len, tail);
    memset(b->data + tail, 0, s->sector_bytes - tail);
    if (last->iov_len > 0)
        b->data_iovs++;
    b->iov[b->data_iovs] = (struct iovec){b->data, s->sector_bytes};
    return true;
}

static void data_in_buffer(const struct bkv *s, struct bkv_chunk_buf *b, uint32_t len)
{
    uint32_t whole = (uint32_t)round_up_u64(len, s->sector_bytes);

    memset(b->data + len, 0, whole - len);
    b->iov[1] = (struct iovec){b->data, whole};
    b->data_iovs = 1;
}

/* Compressed in place, if that saves a sixteenth at least; returns what is to be stored. */
static uint32_t compress(struct bkv *s, uint8_t *data, uint32_t len, uint8_t *flags)
{
    uint8_t flag;
    size_t n;

    if (bkv_codec_compresses(s->codec) == 0)
        return len;
    n = bkv_codec_pack(s->codec, bytes_make(data, len), s->large->scratch, len - len / 16, &flag);
    if (n == 0)
        return len;
    memcpy(data, s->large->scratch, n);
    *flags |= flag;
    return (uint32_t)n;
}

/* Everything that depends on where the chunk lies. */
static int fill_in(struct bkv_large_out *w, struct bkv_chunk_buf *b, uint64_t addr, uint32_t gen,
                   uint32_t data_len, uint32_t raw_len, uint8_t flags)
{
    struct bkv *s = w->s;
    uint32_t head_len = head_len_of(w, data_len), crc;
    struct bkv_chunk_head *head = (struct bkv_chunk_head *)(b->data - head_len);
    int rc;

    bkv_chunk_begin(head, flags, data_len, (uint32_t)w->key.len, w->value_id, w->len);
    rc = bkv_chunk_seal(s->codec, head, b->data);
    if (rc < 0)
        return rc;
    bkv_chunk_sum(head, addr, gen, head_len, b->iov + 1, b->data_iovs);
    rc = bkv_chunk_finish(s->codec, head, w->key, addr, gen, head_len, &crc);
    if (rc < 0)
        return rc;
    b->iov[0] = (struct iovec){head, head_len};
    *bkv_large_extent(w, w->n) = (struct bkv_extent){
        .addr = le64_make(addr),
        .data_len = le32_make(data_len),
        .head_len = le32_make(head_len),
        .raw_len = le32_make(raw_len),
        .head_crc = le32_make(crc),
    };
    return 0;
}

static void submit(struct bkv_large_out *w, struct bkv_chunk_buf *b, uint64_t addr)
{
    b->out = w;
    b->io = (struct blob_req){
        .op = BLOB_WRITE,
        .iov = b->iov,
        .iovcnt = 1 + b->data_iovs,
        .off_bytes = addr,
        .len_bytes = iov_len(b->iov, 1 + b->data_iovs),
        .blob = w->s->blob,
    };
    rt_req_init(&b->io.req, write_done);
    w->pending++;
    w->s->large->writing++;
    blob_submit(w->s->chan, &b->io);
}

/* Writes a chunk whose data b->iov tells. On failure the buffer is still the caller's. */
static int write_chunk(struct rt_task *t, struct bkv_large_out *w, struct bkv_chunk_buf *b,
                       uint32_t data_len, uint32_t raw_len, uint8_t flags)
{
    struct bkv *s = w->s;
    uint32_t total = head_len_of(w, data_len) + (uint32_t)round_up_u64(data_len, s->sector_bytes);
    uint64_t addr;
    uint32_t gen;
    int rc = bkv_large_reserve(w, 1);

    if (rc == 0)
        rc = bkv_large_place(t, s, BKV_NEED_DATA, total, &addr, &gen);
    if (rc < 0)
        return rc;
    rc = fill_in(w, b, addr, gen, data_len, raw_len, flags);
    if (rc < 0) {
        bkv_large_drop(s, addr, total);
        return rc;
    }
    w->n++;
    w->len += raw_len;
    submit(w, b, addr);
    return 0;
}

int bkv_large_write_buf(struct rt_task *t, struct bkv_large_out *w, struct bkv_chunk_buf *b,
                        uint32_t raw_len)
{
    uint8_t flags = bkv_codec_seals(w->s->codec) ? BKV_F_SEALED : 0;
    uint32_t data_len;
    int rc = w->rc;

    b->used = raw_len;

    while (rc == 0 && w->pending >= WRITES_MAX) {
        (void)rt_cond_wait(t, &w->changed);
        rc = w->rc;
    }
    if (rc == 0) {
        data_len = compress(w->s, b->data, raw_len, &flags);
        data_in_buffer(w->s, b, data_len);
        rc = write_chunk(t, w, b, data_len, raw_len, flags);
    }
    if (rc < 0)
        bkv_chunk_buf_put(b);
    return rc;
}

int bkv_large_write(struct rt_task *t, struct bkv_large_out *w, const struct iovec *iov,
                    unsigned iovcnt, uint64_t len)
{
    struct bkv *s = w->s;

    for (uint64_t at = 0; at < len;) {
        uint32_t n = (uint32_t)MIN(bkv_large_next(w), len - at);
        struct bkv_chunk_buf *b = bkv_chunk_buf_get(t, s);
        int rc;

        if (s->codec == NULL && data_in_place(s, b, iov, iovcnt, at, n)) {
            while (w->rc == 0 && w->pending >= WRITES_MAX)
                (void)rt_cond_wait(t, &w->changed);
            rc = w->rc < 0 ? w->rc : write_chunk(t, w, b, n, n, 0);
            if (rc < 0)
                bkv_chunk_buf_put(b);
        } else {
            iov_copy_out(iov, iovcnt, at, b->data, n);
            rc = bkv_large_write_buf(t, w, b, n);
        }
        if (rc < 0)
            return rc;
        at += n;
    }
    return 0;
}

int bkv_large_share(struct bkv_large_out *w, const struct bkv_extent *e, unsigned n)
{
    int rc = bkv_large_reserve(w, n);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < n; i++) {
        struct bkv_seg *g = &w->s->seg[bkv_seg_of(w->s, le64_get(e[i].addr))];

        g->live_held += bkv_extent_bytes(w->s, &e[i]);
        *bkv_large_extent(w, w->n++) = e[i];
        w->len += le32_get(e[i].raw_len);
    }
    return 0;
}

int bkv_large_settle(struct rt_task *t, struct bkv_large_out *w)
{
    while (w->pending > 0)
        (void)rt_cond_wait(t, &w->changed);
    return w->rc;
}

void bkv_large_abort(struct rt_task *t, struct bkv_large_out *w)
{
    (void)bkv_large_settle(t, w);
    for (unsigned i = 0; i < w->n + w->nlists; i++)
        bkv_large_drop(w->s, le64_get(bkv_large_extent(w, i)->addr),
                       bkv_extent_bytes(w->s, bkv_large_extent(w, i)));
    bkv_large_done(w);
}

void bkv_large_done(struct bkv_large_out *w)
{
    free(w->rec);
    free(w->payload);
    *w = (struct bkv_large_out){.s = w->s};
}

int bkv_large_finish(struct rt_task *t, struct bkv_large_out *w, struct bkv_op *op,
                     struct iovec *iov)
{
    int rc = bkv_large_settle(t, w);

    *iov = (struct iovec){w->rec, BKV_LARGE_HEAD_BYTES + w->n * sizeof(struct bkv_extent)};
    if (rc == 0 && w->n > w->s->large->extents_max)
        rc = bkv_lists_write(t, w, iov);
    if (rc < 0)
        return rc;
    op->type = BKV_LARGE_VALUE;
    op->holds = true;
    op->iov = iov;
    op->iovcnt = 1;
    op->value_bytes = (uint32_t)iov->iov_len;
    op->value_len = w->len;
    op->named = bytes_make(w->rec + BKV_LARGE_HEAD_BYTES,
                           ((size_t)w->n + w->nlists) * sizeof(struct bkv_extent));
    return 0;
}

/* Whether one flush may do for chunks and record: then, after a crash, who opens the store has to
 * read all that may be in the last block. That is to be little, and announced in the super slot. */
static bool is_one_flush_enough(struct bkv_large_out *w, const struct bkv_op *op)
{
    struct bkv *s = w->s;

    if ((le32_get(s->super.incompat) & BKV_INCOMPAT_UNFLUSHED) == 0) {
        s->incompat |= BKV_INCOMPAT_UNFLUSHED; /* the next checkpoint writes it */
        return false;
    }
    return s->opts.sync && op->keep_seq == 0 && w->nlists == 0 && w->len <= BKV_UNFLUSHED_MAX &&
           s->large->unflushed + w->len <= UNFLUSHED_BYTES;
}

int bkv_large_commit(struct rt_task *t, struct bkv_large_out *w, struct bkv_op *op)
{
    struct bkv_op flush = {0};
    struct bkv_large *l = w->s->large;
    uint64_t len = w->len;
    struct iovec iov;
    int rc = bkv_large_finish(t, w, op, &iov);

    op->unflushed = rc == 0 && is_one_flush_enough(w, op);
    /* The committer flushes once for all who wait, records and chunks. */
    if (rc == 0 && !op->unflushed)
        rc = bkv_commit(t, w->s, &flush);
    l->unflushed += op->unflushed ? len : 0;
    if (rc == 0)
        rc = bkv_commit(t, w->s, op);
    l->unflushed -= op->unflushed ? len : 0;
    if (rc < 0) {
        bkv_large_abort(t, w);
        return rc;
    }
    bkv_large_done(w);
    return 0;
}
