/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block devices. A device is opened once per process by its URI and shared; a channel is its use
 * from one reactor. The layer checks range, alignment, read-only and capability, splits what is
 * too large, emulates what the driver lacks, and keeps the statistics; drivers move bytes.
 *
 * block_bytes is 512 or 4096 (any power of two from 512 to 65536). src/blk/README.md tells how the
 * parts work together.
 */
#ifndef KVASIR_BLK_BLK_H
#define KVASIR_BLK_BLK_H

#include "rt/rt.h"

#include "base/bytes.h"
#include "base/err.h"
#include "base/hist.h"
#include "base/param.h"

enum blk_op {
    BLK_READ,              /* iov <- blocks */
    BLK_WRITE,             /* iov -> blocks; BLK_F_FUA: durable before completion */
    BLK_FLUSH,             /* all writes completed before it are durable */
    BLK_WRITE_ZEROES,      /* BLK_F_UNMAP: may deallocate instead */
    BLK_UNMAP,             /* gives blocks back; read as zeroes then if BLK_CAP_UNMAP_ZEROES */
    BLK_COMPARE,           /* iov == blocks, or -EILSEQ */
    BLK_COMPARE_AND_WRITE, /* first half of iov == blocks: second half -> blocks; atomic; -EILSEQ */
    BLK_OPS
};
const char *blk_op_name(enum blk_op op);

#define BLK_F_FUA 1u
#define BLK_F_UNMAP 2u

/* Capabilities of a driver. What is missing the layer emulates (FUA by flush, zeroes and compare
 * by read and write) or ignores (unmap: success without effect). */
#define BLK_CAP_READ_ONLY (1u << 0)
#define BLK_CAP_FUA (1u << 1)
#define BLK_CAP_WRITE_ZEROES (1u << 2)
#define BLK_CAP_UNMAP (1u << 3)
#define BLK_CAP_UNMAP_ZEROES (1u << 4)
#define BLK_CAP_COMPARE (1u << 5)
#define BLK_CAP_COMPARE_AND_WRITE (1u << 6)
#define BLK_CAP_VOLATILE_CACHE (1u << 7) /* completed writes need a flush to be durable */
#define BLK_CAP_NO_FLUSH (1u << 8)       /* flush is answered by the layer at once (mem) */

struct blk_driver;
struct blk_dev;
struct blk_chan;
struct blk_worker;

struct blk_op_stats {
    uint64_t ops, bytes, errors;
    struct hist latency_ns;
};
struct blk_stats {
    struct blk_op_stats op[BLK_OPS];
};

/** What a device is. Constant while open, but for nblocks, which may grow (see blk_watch). */
struct blk_info {
    uint32_t block_bytes;
    uint32_t phys_block_bytes;  /* 0: same */
    uint64_t nblocks;
    uint32_t caps;
    uint32_t max_io_bytes;      /* the driver's limit of one request; 0: none. The layer splits */
    uint32_t max_iovcnt;        /* and of its iovecs; 0: none */
    uint64_t max_zero_bytes;    /* and of one WRITE_ZEROES or UNMAP; 0: none */
    uint32_t buf_align;         /* of memory; 1 when it does not matter. The layer copies */
    uint8_t uuid[16];           /* stable across opens; the layer derives it from the URI if zero */
};

/** A UUID that is always the same for the same text. */
void blk_uuid_of(const char *text, uint8_t out_uuid[16]);

struct blk_req {
    struct rt_req req; /* first; done and rc here */
    uint8_t op;        /* enum blk_op */
    uint8_t flags;     /* BLK_F_* */
    unsigned iovcnt;
    uint32_t nblocks;
    uint64_t lba;
    const struct iovec *iov; /* nblocks * block_bytes (the last op: twice); kept until completion */
    struct blk_chan *chan; /* set by blk_submit */

    /* The layer's own. */
    uint8_t epoch;             /* which count of requests in flight has this one */
    bool holds_lock;           /* the write of a compare-and-write: passes its own lock */
    uint64_t start_ns;
    struct blk_req *parent;    /* whose piece this is; NULL: a user's request */
    struct blk_worker *worker; /* the task that carries it out, when it takes more than one hop */
    struct list link;          /* in line for a worker, or behind a lock */
    /* The driver's own: what one request needs in flight, so that drivers allocate nothing. */
    union {
        uint64_t align_;
        uint8_t driver[320];
    };
};

/**
 * Opens the device of a URI, or takes another reference to it when this process has it open.
 * Waits. Errors with text: -EINVAL the URI, -ENOENT, -EACCES, -EBUSY held by another process, ...
 */
int blk_open(struct rt_task *t, const char *uri, struct blk_dev **out_dev, struct err *why);
/** Gives a reference back; the last one closes the device, whose channels are closed by then. */
void blk_close(struct rt_task *t, struct blk_dev *dev);
struct blk_dev *blk_ref(struct blk_dev *dev);
const struct blk_info *blk_info(const struct blk_dev *dev);
const char *blk_uri(const struct blk_dev *dev);
const struct blk_driver *blk_driver_of(const struct blk_dev *dev);

/** The channel of the current reactor: one per reactor and device, counted and shared. */
int blk_chan_get(struct rt_task *t, struct blk_dev *dev, struct blk_chan **out_chan);
void blk_chan_put(struct rt_task *t, struct blk_chan *chan);
struct blk_dev *blk_chan_dev(const struct blk_chan *chan);

/**
 * Submits one request on a channel of the current reactor. Never waits, never completes inside.
 * rc: 0; -ERANGE past the end; -EINVAL no blocks, or the iovecs do not hold exactly what op says;
 * -EROFS; -ENOSPC; -EIO; -EILSEQ; -ENODEV; -ENOMEM; -ECANCELED. A write that fails has written any
 * part of itself, block by block; requests that overlap and are in flight together happen in any
 * order. Flush and FUA look at nothing but what had completed before they were submitted.
 */
void blk_submit(struct blk_chan *chan, struct blk_req *req);

/* For tasks: one contiguous buffer. */
int blk_read(struct rt_task *t, struct blk_chan *chan, void *buf, uint64_t lba, uint32_t nblocks);
int blk_write(struct rt_task *t, struct blk_chan *chan, const void *buf, uint64_t lba,
              uint32_t nblocks, unsigned flags);
int blk_flush(struct rt_task *t, struct blk_chan *chan);
int blk_zero(struct rt_task *t, struct blk_chan *chan, uint64_t lba, uint64_t nblocks,
             unsigned flags);
int blk_unmap(struct rt_task *t, struct blk_chan *chan, uint64_t lba, uint64_t nblocks);

/**
 * Claims: who may use the device how. Readers and shared writers (the front ends of one daemon) get
 * on with each other; exclusive (a layer that owns the format) gets on with nobody.
 */
enum blk_claim { BLK_CLAIM_READ, BLK_CLAIM_SHARED_WRITE, BLK_CLAIM_EXCLUSIVE };
/**
 * `holder` is a static name for error texts. -EBUSY with text naming who holds it; -EROFS when the
 * device is read-only and the claim is not; -ENODEV.
 */
int blk_claim(struct blk_dev *dev, enum blk_claim claim, const char *holder, struct err *why);
void blk_unclaim(struct blk_dev *dev, enum blk_claim claim, const char *holder);

/**
 * Told, on the reactor that watches, when the device has been resized or has gone. Events that
 * come before the first was delivered are delivered as one. Set `fn`, zero the rest.
 */
enum blk_event { BLK_EVENT_RESIZED, BLK_EVENT_REMOVED };
struct blk_watch {
    void (*fn)(struct blk_watch *w, enum blk_event ev);
    struct rt_reactor *reactor;
    struct list link;
    struct rt_msg msg;
    uint32_t pending;
};
/** The current reactor watches. A device that has already gone says so at once (from the loop). */
void blk_watch_add(struct blk_dev *dev, struct blk_watch *w);
/** Any reactor. `fn` is not called any more once this has returned. */
void blk_watch_del(struct rt_task *t, struct blk_dev *dev, struct blk_watch *w);
/**
 * For drivers and administration, from any reactor: the device has a new size, or is gone: requests
 * get -ENODEV, the next open of the URI opens anew. What is in flight the driver completes.
 */
void blk_resized(struct blk_dev *dev, uint64_t nblocks);
void blk_removed(struct blk_dev *dev);

/** Looks whether the device has another size now (a file that has grown). 0 or an errno. */
int blk_refresh(struct rt_task *t, struct blk_dev *dev);

/** Sums of all channels, as of now, those closed included. Waits (it asks each reactor). */
int blk_stats(struct rt_task *t, struct blk_dev *dev, struct blk_stats *out);

/* --- for drivers ------------------------------------------------------------------------------ */

struct blk_driver {
    const char *name;          /* directory and URI scheme, "_" for "+" */
    const char *help;          /* one sentence for --help and the man page */
    const struct param *params; /* accepted in ?name=value&...; see base/param.h */
    bool fragment;              /* its URIs may end in #name (params->fragment) */
    size_t dev_bytes;           /* the driver's part of a device, zeroed: blk_driver_dev() */
    size_t chan_bytes;          /* and of a channel */
    /* path: what stands between "scheme:" and "?"; fill in `info`. May wait. */
    int (*open)(struct rt_task *t, struct blk_dev *dev, const char *path,
                const struct param_values *params, struct blk_info *info, struct err *why);
    /* Whether an open device is the one this URI names: 1, 0, or an errno with text when it is but
     * contradicts. NULL: it is when the URIs are the same text. Never waits; any reactor. */
    int (*same)(struct blk_dev *dev, const char *path, const struct param_values *params,
                struct err *why);
    void (*close)(struct rt_task *t, struct blk_dev *dev);  /* nothing is in flight */
    /* Both may be NULL. */
    int (*chan_open)(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan);
    void (*chan_close)(struct rt_task *t, struct blk_chan *chan);
    /* Checked and within caps and limits. A driver may find out late that it cannot zero: -ENOTSUP
     * to WRITE_ZEROES makes the layer write zeroes instead. */
    void (*submit)(struct blk_chan *chan, struct blk_req *req);
    void (*cancel)(struct blk_chan *chan, struct blk_req *req); /* may be NULL */
    /* The present size; NULL: it does not change behind our back. May wait. */
    int (*refresh)(struct rt_task *t, struct blk_dev *dev, uint64_t *out_nblocks);
    void (*abandon)(struct blk_dev *dev); /* see blk_abandon(); NULL: nothing to free */
};

void *blk_driver_dev(const struct blk_dev *dev);
void *blk_driver_chan(const struct blk_chan *chan);
/** Completes a request from the driver (rc 0 or a negative errno), on the reactor it came from. */
void blk_complete(struct blk_req *req, int rc);

/**
 * For sim, after a simulated crash of the current runtime (rt_manual_enter, before
 * rt_manual_free with `abandon`): forgets its devices and frees their memory without any I/O.
 */
void blk_abandon(void);

/** All drivers, NULL-terminated; generated from the list in meson.build. */
extern const struct blk_driver *const blk_drivers[];

#endif
