/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes in and out of block devices at any offset: a few large pieces in flight, single blocks
 * at the edges read, changed and written back.
 */
#ifndef KVASIR_CLI_BLKIO_H
#define KVASIR_CLI_BLKIO_H

#include "cli/dev.h"
#include "cli/xfer.h"

#define BLKIO_PIECES 4
#define BLKIO_PIECE_BYTES (1 * MIB)

struct blkio_piece {
    struct blk_req req;
    struct iovec iov;
    uint8_t *buf;
    uint64_t begin, end; /* bytes of the device: whole blocks */
    bool busy;
};

struct blkio {
    uint8_t *mem;
    uint8_t *edge; /* one block */
    struct blkio_piece piece[BLKIO_PIECES];
};

struct blkio *blkio_new(void);
void blkio_free_p(struct blkio **px);

/** Hands [off, off + len), which is on the device, to the sink. Tells the user about failures. */
int blkio_read(struct rt_task *t, struct cli *c, struct blkio *x, const struct dev *d,
               uint64_t off, uint64_t len, struct xfer_sink *sink);

/**
 * Writes what the source has, at most `max` bytes, from `off`; pieces of zeroes are written as
 * such (they may be deallocated). Everything is durable at the end. *out_moved: how many bytes.
 */
int blkio_write(struct rt_task *t, struct cli *c, struct blkio *x, const struct dev *d,
                uint64_t off, uint64_t max, struct xfer_source *src, uint64_t *out_moved);

#endif
