/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/blkio.h"

struct blkio *blkio_new(void)
{
    struct blkio *x = calloc(1, sizeof(*x));

    if (x == NULL)
        return NULL;
    /* Pieces never cross a multiple of their size, and blocks have at most 64 KiB. */
    x->mem = aligned_alloc(4096, BLKIO_PIECES * BLKIO_PIECE_BYTES + 65536);
    if (x->mem == NULL) {
        free(x);
        return NULL;
    }
    for (unsigned i = 0; i < BLKIO_PIECES; i++)
        x->piece[i].buf = x->mem + i * BLKIO_PIECE_BYTES;
    x->edge = x->mem + BLKIO_PIECES * BLKIO_PIECE_BYTES;
    return x;
}

void blkio_free_p(struct blkio **px)
{
    struct blkio *x = *px;

    if (x == NULL)
        return;
    for (unsigned i = 0; i < BLKIO_PIECES; i++)
        must(!x->piece[i].busy);
    free(x->mem);
    free(x);
}

static void piece_submit(struct rt_task *t, const struct dev *d, struct blkio_piece *p, uint8_t op,
                         uint8_t flags)
{
    uint32_t bs = blk_info(d->blk)->block_bytes;

    p->iov = (struct iovec){.iov_base = p->buf, .iov_len = p->end - p->begin};
    p->req = (struct blk_req){.op = op,
                              .flags = flags,
                              .lba = p->begin / bs,
                              .nblocks = (uint32_t)((p->end - p->begin) / bs)};
    if (op == BLK_READ || op == BLK_WRITE) {
        p->req.iov = &p->iov;
        p->req.iovcnt = 1;
    }
    rt_req_init_task(&p->req.req, t);
    p->busy = true;
    blk_submit(d->blk_chan, &p->req);
}

/* The result of a piece; 0 when it is not under way. */
static int piece_wait(struct rt_task *t, struct cli *c, const struct dev *d, struct blkio_piece *p,
                      const char *what)
{
    int rc;

    if (!p->busy)
        return 0;
    rc = rt_wait(t, &p->req.req);
    p->busy = false;
    if (rc < 0)
        return dev_blk_fail(c, d, what, p->begin, p->end - p->begin, rc);
    return 0;
}

static void drain(struct rt_task *t, struct blkio *x)
{
    for (unsigned i = 0; i < BLKIO_PIECES; i++) {
        if (x->piece[i].busy)
            rt_wait(t, &x->piece[i].req.req);
        x->piece[i].busy = false;
    }
}

/* Pieces end at multiples of their size on the device, so all but the first begin there too. */
static uint64_t piece_end(uint64_t at)
{
    return (at / BLKIO_PIECE_BYTES + 1) * BLKIO_PIECE_BYTES;
}

static int read_pieces(struct rt_task *t, struct cli *c, struct blkio *x, const struct dev *d,
                       uint64_t off, uint64_t end, struct xfer_sink *sink)
{
    uint32_t bs = blk_info(d->blk)->block_bytes;
    uint64_t asked = off, at = off;
    unsigned head = 0, tail = 0;
    int rc;

    while (at < end) {
        struct blkio_piece *p;
        uint64_t to;

        while (asked < end && head - tail < BLKIO_PIECES) {
            p = &x->piece[head++ % BLKIO_PIECES];
            p->begin = asked / bs * bs;
            asked = MIN(end, piece_end(asked));
            p->end = round_up_u64(asked, bs);
            piece_submit(t, d, p, BLK_READ, 0);
        }
        p = &x->piece[tail++ % BLKIO_PIECES];
        rc = piece_wait(t, c, d, p, "read");
        if (rc < 0)
            return rc;
        to = MIN(end, p->end);
        rc = sink->write(t, sink, p->buf + (at - p->begin), to - at);
        if (rc < 0)
            return cli_fail(c, rc, "writing %s: %s", sink->name, err_str(rc));
        at = to;
    }
    return 0;
}

int blkio_read(struct rt_task *t, struct cli *c, struct blkio *x, const struct dev *d, uint64_t off,
               uint64_t len, struct xfer_sink *sink)
{
    int rc = read_pieces(t, c, x, d, off, off + len, sink);

    rt_task_shield(t, true);
    drain(t, x);
    rt_task_shield(t, false);
    return rc;
}

/* The parts of the first and the last block of a piece that are not written keep what they had. */
static int fill_edges(struct rt_task *t, struct cli *c, struct blkio *x, const struct dev *d,
                      struct blkio_piece *p, uint64_t from, uint64_t to)
{
    uint32_t bs = blk_info(d->blk)->block_bytes;
    int rc;

    if (from > p->begin) {
        rc = blk_read(t, d->blk_chan, x->edge, p->begin / bs, 1);
        if (rc < 0)
            return dev_blk_fail(c, d, "read", p->begin, bs, rc);
        memcpy(p->buf, x->edge, from - p->begin);
    }
    if (to < p->end) {
        rc = blk_read(t, d->blk_chan, x->edge, p->end / bs - 1, 1);
        if (rc < 0)
            return dev_blk_fail(c, d, "read", p->end - bs, bs, rc);
        memcpy(p->buf + (to - p->begin), x->edge + bs - (p->end - to), p->end - to);
    }
    return 0;
}

static int write_pieces(struct rt_task *t, struct cli *c, struct blkio *x, const struct dev *d,
                        uint64_t off, uint64_t end, struct xfer_source *src, uint64_t *out_moved)
{
    uint32_t bs = blk_info(d->blk)->block_bytes;
    uint64_t at = off;
    bool ended = false;
    int rc;

    for (unsigned i = 0; at < end && !ended; i = (i + 1) % BLKIO_PIECES) {
        struct blkio_piece *p = &x->piece[i];
        uint64_t want = MIN(end, piece_end(at)) - at;
        bool zero;
        ssize_t n;

        rc = piece_wait(t, c, d, p, "write");
        if (rc < 0)
            return rc;
        p->begin = at / bs * bs;
        n = src->read(t, src, p->buf + (at - p->begin), want);
        if (n < 0)
            return cli_fail(c, (int)n, "reading %s: %s", src->name, err_str((int)n));
        ended = (uint64_t)n < want;
        if (n == 0)
            break;
        p->end = round_up_u64(at + (uint64_t)n, bs);
        rc = fill_edges(t, c, x, d, p, at, at + (uint64_t)n);
        if (rc < 0)
            return rc;
        zero = bytes_are_zero(p->buf, p->end - p->begin);
        piece_submit(t, d, p, zero ? BLK_WRITE_ZEROES : BLK_WRITE, zero ? BLK_F_UNMAP : 0);
        at += (uint64_t)n;
        *out_moved = at - off;
    }
    for (unsigned i = 0; i < BLKIO_PIECES; i++) {
        rc = piece_wait(t, c, d, &x->piece[i], "write");
        if (rc < 0)
            return rc;
    }
    rc = blk_flush(t, d->blk_chan);
    if (rc < 0)
        return cli_fail(c, rc, "cannot flush %s: %s", d->uri, err_str(rc));
    return 0;
}

int blkio_write(struct rt_task *t, struct cli *c, struct blkio *x, const struct dev *d,
                uint64_t off, uint64_t max, struct xfer_source *src, uint64_t *out_moved)
{
    int rc;

    *out_moved = 0;
    rc = write_pieces(t, c, x, d, off, off + max, src, out_moved);
    rt_task_shield(t, true);
    drain(t, x);
    rt_task_shield(t, false);
    return rc;
}
