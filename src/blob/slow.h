/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of more than one hop: their workers. */
#ifndef KVASIR_BLOB_SLOW_H
#define KVASIR_BLOB_SLOW_H

#include "blob/internal.h"

/** One contiguous range at the device. */
struct blob_piece {
    struct blk_req blk;
    struct iovec iov[BLOB_PIECE_IOVS];
    uint8_t epoch;
    bool counted;
};

/** A task that takes one request after the other from the channel's line. */
struct blob_worker {
    struct blob_chan *chan;
    struct blob_req *now;
    bool cancelled;
    struct blob_piece piece[BLOB_PIECES];
};

/** Where a cluster's bytes are. */
enum blob_where { BLOB_AT_NONE, BLOB_AT_DEVICE, BLOB_AT_ESNAP };
struct blob_place {
    enum blob_where where;
    uint32_t cluster;   /* DEVICE */
    struct blk_dev *esnap; /* ESNAP; NULL: nobody knows it */
};
/** Its own cluster, or the one seen through its parents. Never waits. */
struct blob_place blob_locate(const struct blob *b, uint64_t idx);
void blob_slow_submit(struct blob_chan *chan, struct blob_req *req);
void blob_chan_abandon(struct blob_chan *chan);

/** The first write to a cluster of a thin blob (alloc.c). */
struct blob_first {
    struct blob *blob;
    uint64_t idx;
    const struct iovec *iov; /* NULL: zeroes */
    unsigned iovcnt;
    size_t iov_off;     /* where the bytes for this cluster begin */
    uint32_t off_bytes; /* in the cluster */
    uint32_t len_bytes;
    /* alloc.c's own */
    struct list link;
    uint32_t cluster;
    bool over;
    int rc;
};
/**
 * Gives the cluster to the blob with this content, the rest as it reads now. 1: done. 0: it has one
 * already, or is just getting one: look again. -ERANGE, -EROFS, -ENOSPC, -EIO.
 */
int blob_first_write(struct rt_task *t, struct blob_first *w);

#endif
