/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values in and out of KV devices, of any size through a few pieces: while the device works on
 * some of them, the others are filled or emptied. Memory does not grow with the value.
 */
#ifndef KVASIR_CLI_XFER_H
#define KVASIR_CLI_XFER_H

#include "kv/kv.h"

#define XFER_PIECES 4
#define XFER_PIECE_BYTES (1 * MIB) /* for one value at a time */
#define XFER_LANE_BYTES (128 * KIB) /* for many at a time */

struct xfer_piece {
    struct kv_req req;
    struct iovec iov;
    uint8_t *buf;
    uint64_t off;
    bool busy;
};

/** The pieces of one value under way; used by one task at a time. */
struct xfer {
    size_t piece_bytes;
    uint8_t *mem;
    struct xfer_piece piece[XFER_PIECES];
};

/** NULL: no memory. */
struct xfer *xfer_new(size_t piece_bytes);
void xfer_free(struct xfer *x);
/** For CLEANUP. */
void xfer_free_p(struct xfer **px);

/** Where bytes come from and go to. Both may wait. */
struct xfer_source {
    /* The next `len` bytes, fewer only at the end, 0 after it; negative errno. */
    ssize_t (*read)(struct rt_task *t, struct xfer_source *src, void *buf, size_t len);
    const char *name;
};
struct xfer_sink {
    int (*write)(struct rt_task *t, struct xfer_sink *sink, const void *buf, size_t len);
    const char *name;
};

struct xfer_store {
    struct bytes key;
    uint64_t len;     /* KV_LEN_UNKNOWN: until the source ends, if the device can */
    uint32_t flags;   /* KV_F_* */
    uint64_t version; /* for KV_F_IF_VERSION; out: of what was stored */
    uint64_t moved;   /* out */
};

/**
 * Stores one value. On failure nothing is visible. Errors: those of the device; those of the
 * source; -EIO when it holds fewer bytes than `len`, -EFBIG when more (`why` says so).
 */
int xfer_store(struct rt_task *t, struct xfer *x, struct kv_chan *chan, struct xfer_store *st,
               struct xfer_source *src, struct err *why);

struct xfer_retrieve {
    struct bytes key;
    uint32_t flags;     /* KV_F_NO_VERSION */
    uint64_t off;
    uint64_t len;       /* UINT64_MAX: to the end */
    uint64_t value_len; /* out */
    uint64_t version;   /* out */
    uint64_t moved;     /* out */
};

/**
 * Retrieves [off, off + len) of one version of a value, as far as it goes. -ERANGE when `off` is
 * past its end. On failure the sink may have received a part.
 */
int xfer_retrieve(struct rt_task *t, struct xfer *x, struct kv_chan *chan,
                  struct xfer_retrieve *re, struct xfer_sink *sink, struct err *why);

/** An open value to be read from begin to end, as a source. */
struct xfer_value {
    struct xfer_source source; /* first */
    struct kv_chan *chan;
    struct kv_stream *stream;
    uint64_t off;
    uint64_t value_len;
    uint64_t version;
};
int xfer_value_open(struct rt_task *t, struct kv_chan *chan, struct bytes key,
                    struct xfer_value *out);
void xfer_value_close(struct rt_task *t, struct xfer_value *v);

#endif
