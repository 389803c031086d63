/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/index_io.h"

int bkv_index_place(struct rt_task *t, struct bkv *s, uint32_t max, uint64_t *out_addr,
                    uint32_t *out_n)
{
    struct bkv_stream_pos *pos = &s->pos[BKV_INDEX];
    uint32_t left;

    if (pos->segment != 0 && s->segment_bytes - pos->offset < BKV_PAGE_BYTES)
        bkv_seg_seal(s, BKV_INDEX);
    if (pos->segment == 0) {
        struct bkv_seg_info info;
        int rc = bkv_seg_open_wait(t, s, BKV_INDEX, BKV_NEED_INDEX, &info);

        if (rc == 0)
            rc = bkv_seg_head_write(t, s, &info);
        if (rc < 0)
            return rc;
    }
    left = (s->segment_bytes - pos->offset) / BKV_PAGE_BYTES;
    *out_addr = ((uint64_t)pos->segment << s->segment_shift) + pos->offset;
    *out_n = MIN(left, max);
    pos->offset += *out_n * BKV_PAGE_BYTES;
    return 0;
}

static struct bkv *store_of(struct bkv_tree_io *io)
{
    return container_of(io, struct bkv, tree_io);
}

static int io_place(struct rt_task *t, struct bkv_tree_io *io, unsigned n, uint64_t *out_addr,
                    uint32_t *out_gen)
{
    struct bkv *s = store_of(io);

    for (unsigned i = 0; i < n;) {
        uint64_t addr;
        uint32_t run;
        int rc = bkv_index_place(t, s, n - i, &addr, &run);

        if (rc < 0)
            return rc;
        for (uint32_t k = 0; k < run; k++, i++) {
            out_addr[i] = addr + (uint64_t)k * BKV_PAGE_BYTES;
            out_gen[i] = bkv_gen_of(s, addr);
        }
    }
    return 0;
}

static int io_write(struct rt_task *t, struct bkv_tree_io *io, const uint64_t *addr, unsigned n,
                    const uint8_t *buf)
{
    struct bkv *s = store_of(io);

    for (unsigned i = 0; i < n;) {
        unsigned run = 1;
        int rc;

        while (i + run < n && addr[i + run] == addr[i] + (uint64_t)run * BKV_PAGE_BYTES &&
               bkv_seg_of(s, addr[i + run]) == bkv_seg_of(s, addr[i]))
            run++;
        rc = bkv_write(t, s, buf + (size_t)i * BKV_PAGE_BYTES, addr[i], run * BKV_PAGE_BYTES);
        if (rc < 0)
            return rc;
        s->stats.index_bytes += (uint64_t)run * BKV_PAGE_BYTES;
        i += run;
    }
    return 0;
}

#define READS_AT_ONCE 16u

struct page_read {
    struct blob_req req;
    struct iovec iov;
};

/* Up to READS_AT_ONCE pages, all in flight together. */
static int read_some(struct rt_task *t, struct bkv *s, struct page_read *r, const uint64_t *addr,
                     unsigned n, uint8_t *buf)
{
    int rc = 0;

    for (unsigned i = 0; i < n; i++) {
        r[i].iov =
            (struct iovec){.iov_base = buf + (size_t)i * BKV_PAGE_BYTES, .iov_len = BKV_PAGE_BYTES};
        r[i].req = (struct blob_req){.op = BLOB_READ,
                                     .iov = &r[i].iov,
                                     .iovcnt = 1,
                                     .off_bytes = addr[i],
                                     .len_bytes = BKV_PAGE_BYTES,
                                     .blob = s->blob};
        rt_req_init_task(&r[i].req.req, t);
        blob_submit(s->chan, &r[i].req);
    }
    for (unsigned i = 0; i < n; i++) {
        int got = rt_wait(t, &r[i].req.req);

        rc = rc == 0 ? got : rc;
    }
    s->stats.read_bytes += (uint64_t)n * BKV_PAGE_BYTES;
    return rc;
}

static int io_read(struct rt_task *t, struct bkv_tree_io *io, const uint64_t *addr, unsigned n,
                   uint8_t *buf)
{
    struct bkv *s = store_of(io);
    CLEANUP(free_p) struct page_read *r = NULL;
    int rc = 0;

    if (n == 1)
        return bkv_read_sectors(t, s, addr[0], BKV_PAGE_BYTES, buf);
    r = calloc(MIN(n, READS_AT_ONCE), sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++)
        bkv_pin(s, addr[i]);
    for (unsigned i = 0; i < n && rc == 0; i += READS_AT_ONCE)
        rc = read_some(t, s, r, addr + i, MIN(n - i, READS_AT_ONCE),
                       buf + (size_t)i * BKV_PAGE_BYTES);
    for (unsigned i = 0; i < n; i++)
        bkv_unpin(s, addr[i]);
    return rc;
}

static uint32_t io_gen(struct bkv_tree_io *io, uint64_t addr)
{
    return bkv_gen_of(store_of(io), addr);
}

void bkv_index_io_init(struct bkv *s)
{
    s->tree_io = (struct bkv_tree_io){.read = io_read,
                                      .place = io_place,
                                      .write = io_write,
                                      .gen = io_gen,
                                      .cache = s->cache,
                                      .codec = s->codec};
}
