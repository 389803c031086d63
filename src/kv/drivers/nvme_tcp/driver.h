/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of the driver.
 *
 *   nvme_tcp.c   device, channels, and where a request goes
 *   direct.c     requests that are one command
 *   steps.c      requests that are several, as tasks
 *   select.c     queries that the target runs
 *   stream.c     values in pieces by one standard Store or Retrieve, on a connection of its own
 */
#ifndef KVASIR_KV_NVME_TCP_DRIVER_H
#define KVASIR_KV_NVME_TCP_DRIVER_H

#include "kv/kv.h"
#include "kv/select.h"

#include "nvme/uri.h"
#include "proto/nvme_kv_vendor.h"
#include "proto/nvme_select.h"
#include "rt/buf.h"

#define KVN_OPS 64u          /* requests of several commands under way, per channel */
#define KVN_STREAMS_STD 64u  /* streams open, per channel, with standard commands */
#define KVN_STREAM_IOV 16u   /* entries of one window of a standard stream */
#define KVN_TRIES_MAX 8u     /* of what may be repeated when the connection is lost in the middle */
#define KVN_PAGE_BYTES 4096u /* holds the longest key and what a list puts around it */
#define KVN_RETRY_NS (10 * NS_PER_MS)
#define KVN_INLINE_IOV 5u    /* entries of the caller's that a BATCH of one record takes */

struct kvn_dev {
    struct kv_dev *dev;
    struct nvme_ctrl *ctrl;
    struct rt_reactor *home;
    struct nvme_ns ns;
    uint32_t nsid;              /* asked for; 0: the first */
    uint64_t timeout_ns;
    bool opened;
    bool want_vendor;           /* use the vendor commands where they are */
    bool vendor;                /* they are */
    bool versions;              /* and versions are real */
    bool delete_tells;          /* the standard Delete says when there was no key */
    uint32_t caps;              /* KV_CAP_* offered */
    uint32_t handles_max;
    uint32_t batch_bytes_max, batch_items_max;
    bool select_extended;       /* the target runs any query, */
    bool select_basic;          /* or those that the basic commands can say */
};

/** A channel: its queue and what its requests need. */
struct kvn_ctx {
    struct kvn_dev *dev;
    struct rt_reactor *reactor;
    struct nvme_queue *q;
    struct kvn_op *ops;
    struct list free_ops;
    struct list line;           /* kvn_io, waiting for an op */
    struct rt_pool streams;     /* struct kvn_stream */
    unsigned pushed;            /* queries under way at the target */
    struct rt_cond pushed_less;
    struct list idle;           /* kvn_conn: connections for standard streams that wait for work */
};

/** A task that carries out a request of several commands. */
struct kvn_op {
    struct kvn_ctx *ctx;
    struct kv_req *req;
    struct rt_task *task;
    struct list link;
    uint8_t page[KVN_PAGE_BYTES]; /* of a list, when the caller's buffer is small */
};

/** The driver's part of a kv_req. */
struct kvn_io {
    struct kvn_ctx *ctx;
    struct kvn_op *op;          /* carries it out */
    bool in_line;
    union {
        struct list link;       /* in line for an op */
        struct {                /* one command */
            struct nvme_req req;
            struct iovec iov[2 + KVN_INLINE_IOV];
            union {
                struct nvme_kvv_open_head open;
                struct nvme_kvv_record record;
                uint8_t small[8]; /* what is thrown away */
            };
        };
    };
};
static_assert(sizeof(struct kvn_io) <= sizeof(((struct kv_req *)0)->driver), "fits in a kv_req");

/** A connection for one standard stream at a time. */
struct kvn_conn {
    struct nvme_queue *q;
    struct list link;
};

struct kvn_stream {
    struct kvn_ctx *ctx;
    uint64_t len;               /* declared, or of the value */
    uint32_t flags;             /* of STORE_OPEN */
    /* Vendor commands. */
    uint32_t handle;            /* 0: a standard stream */
    uint32_t connection;
    /* Standard commands; see stream.c. */
    struct kvn_conn *conn;      /* NULL: nothing under way */
    struct nvme_req req;
    struct iovec iov[KVN_STREAM_IOV];
    struct rt_cond changed;
    bool hungry;                /* the window is used up */
    bool started, done;
    uint64_t pos;
    uint8_t key[NVME_KV_KEY_MAX];
    uint8_t key_len;
    uint8_t options;
    uint8_t held[4];            /* last bytes written, kept back until more come */
    uint8_t sending[4];
    uint8_t nheld;
};

static inline struct kvn_io *kvn_io_of(struct kv_req *req)
{
    return (struct kvn_io *)req->driver;
}
static inline struct kvn_stream *kvn_stream_of(const struct kv_req *req)
{
    return (struct kvn_stream *)req->stream;
}
static inline struct kv_req *kvn_req_of(struct kvn_io *io)
{
    return container_of((uint8_t *)io, struct kv_req, driver);
}

/* nvme_tcp.c */
/** Carries it out by a task, or puts it in line. */
void kvn_op_start(struct kvn_ctx *ctx, struct kv_req *req);
/** rc of a command, knowing the vendor statuses. */
int kvn_rc(const struct nvme_req *req, int rc);
/** Of a store: a key that is not there has another version, which the target reports apart. */
int kvn_store_rc(uint32_t flags, int rc);

/* direct.c: true when the request is on its way as one command. */
bool kvn_direct(struct kvn_ctx *ctx, struct kv_req *req);
uint8_t kvn_store_options(uint32_t flags);

/* steps.c: a request by the vendor commands, or a standard one that takes two. */
int kvn_steps(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req);
/** One command of a task. */
int kvn_exec(struct rt_task *t, struct kvn_ctx *ctx, struct nvme_req *nreq);

/* select.c */
int kvn_select(struct rt_task *t, struct kv_chan *chan, const struct kv_select *q,
               struct kv_select_result *res, struct err *why);
/** Finds out how queries can be pushed. */
void kvn_select_look(struct rt_task *t, struct kvn_dev *d);

/* stream.c */
int kvn_std_store_open(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req);
int kvn_std_write(struct rt_task *t, struct kvn_stream *st, struct kv_req *req);
int kvn_std_commit(struct rt_task *t, struct kvn_stream *st);
int kvn_std_retrieve_open(struct rt_task *t, struct kvn_ctx *ctx, struct kv_req *req);
int kvn_std_read(struct rt_task *t, struct kvn_stream *st, struct kv_req *req);
/** Ends a stream (abort, read close), whatever its state, and frees it. */
void kvn_std_end(struct rt_task *t, struct kvn_stream *st);
/** Closes connections that wait for work. */
void kvn_std_fini(struct rt_task *t, struct kvn_ctx *ctx);

#endif
