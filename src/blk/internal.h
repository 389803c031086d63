/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of src/blk share. Drivers include blk.h (and filter.h, lockfile.h) only. */
#ifndef KVASIR_BLK_INTERNAL_H
#define KVASIR_BLK_INTERNAL_H

#include "blk/blk.h"

#include "rt/buf.h"

#include <pthread.h>

#define BLK_WORKERS 16       /* per channel: tasks for requests of more than one hop */
#define BLK_PIECES 4         /* of one such request, in flight at a time */
#define BLK_PIECE_IOVS 32
#define BLK_BUF_BYTES 65536u /* of a worker; holds the largest block */
#define BLK_ZEROES_BYTES 65536u

extern const uint8_t blk_zeroes[BLK_ZEROES_BYTES];

/* A range that nobody but the holder writes: a compare-and-write is under way (lock.c). */
struct blk_range {
    uint64_t lba;
    uint32_t nblocks; /* 0: no lock */
};

/* One request for the device's lock, on its way from the worker to the home reactor and back. */
struct blk_turn {
    struct rt_req req; /* completes on `origin` when the range is locked, or unlocked again */
    struct rt_msg msg;
    struct rt_reactor *origin;
    struct blk_dev *dev;
    struct blk_range range;
    struct list link;
};

struct blk_piece {
    struct blk_req req;
    struct iovec iov[BLK_PIECE_IOVS];
};

/* Carries out one request after the other, as a task, while there are any in line (slow.c). */
struct blk_worker {
    struct blk_chan *chan;
    struct blk_req *now;
    bool cancelled; /* `now` was asked to end */
    uint8_t *buf;   /* BLK_BUF_BYTES, aligned to 4096 */
    struct blk_turn turn;
    struct blk_piece piece[BLK_PIECES];
};

enum blk_slot_state { BLK_SLOT_NONE, BLK_SLOT_OPENING, BLK_SLOT_OPEN, BLK_SLOT_CLOSING };

/* A reactor's place in a device. Only that reactor touches it. */
struct blk_slot {
    _Alignas(64) struct blk_dev *dev;
    struct rt_reactor *reactor;
    struct blk_chan *chan;
    enum blk_slot_state state;
    struct rt_cond changed;
    unsigned users;
    struct blk_range lock; /* as the home reactor has announced it */
    struct rt_msg lock_msg, unlock_msg, ack_msg;
};

struct blk_chan {
    /* What the fast path of blk_submit reads, in one cache line. */
    void *driver_part;
    struct blk_dev *dev;
    const struct blk_driver *drv;
    void (*cancel)(struct rt_req *req); /* NULL when the driver has none */
    uint64_t max_io_bytes;
    uint32_t align_mask;
    uint32_t max_iovcnt;
    uint32_t direct;     /* bit per op: goes to the driver without more ado */
    uint8_t slow_flags;  /* BLK_F_* that the driver does not take */
    uint8_t block_shift;
    uint8_t epoch;       /* flips when a lock is taken */
    bool draining;       /* a lock waits until the requests of the other epoch have ended */
    uint32_t in_flight[2]; /* at the driver, by epoch */

    struct blk_slot *slot;
    uint32_t direct_unlocked; /* what `direct` is without a lock */
    struct list parked;       /* requests behind the lock */
    struct list slow;         /* in line for a worker */
    struct rt_pool workers;
    uint8_t *worker_bufs;     /* one for each; mapped at open, touched when used */
    struct rt_cond workers_gone;
    struct blk_stats stats;
};

struct blk_holder {
    struct list link;
    enum blk_claim claim;
    const char *name;
};

enum blk_dev_state { BLK_DEV_OPENING, BLK_DEV_OPEN, BLK_DEV_CLOSING };

struct blk_dev {
    uint64_t limit; /* nblocks, or 0 when the device has gone: what the fast path checks. Atomic */
    uint8_t block_shift;
    bool gone;      /* atomic */
    void *driver_part;
    const struct blk_driver *drv;
    struct blk_info info;
    char *uri;
    struct rt_reactor *rt0;  /* reactor 0 of the runtime it belongs to */
    struct rt_reactor *home; /* that opened it; keeps the order of compare-and-writes */
    struct blk_slot *slot;   /* one per reactor */
    unsigned nslots;

    /* Under the registry's lock (dev.c). */
    struct list link;
    enum blk_dev_state state;
    struct rt_task *opener; /* the task that is opening it; else NULL */
    unsigned refs;

    /* Under `lock`. */
    pthread_mutex_t lock;
    struct list holders;
    struct list watches;
    struct blk_stats closed; /* of channels that are closed */

    struct blk_range lock_range; /* set before the reactors are told */

    /* On the home reactor. */
    struct list turns; /* blk_turn in line; the first one has the lock or is getting it */
    unsigned acks_due;
    bool locked_ever;
};

static inline bool blk_op_writes(unsigned op)
{
    return op == BLK_WRITE || op == BLK_WRITE_ZEROES || op == BLK_UNMAP ||
           op == BLK_COMPARE_AND_WRITE;
}

static inline bool blk_dev_gone(const struct blk_dev *dev)
{
    return __atomic_load_n(&dev->gone, __ATOMIC_RELAXED);
}

/* submit.c */
/* Ends a user's request: counts it and completes it. */
void blk_finish(struct blk_req *req, int rc);
/* Gives a checked request, or a piece of one, to the driver, or parks it behind the lock. */
void blk_issue(struct blk_chan *chan, struct blk_req *req);
/* Sets what the fast path reads from the device's description. */
void blk_chan_tune(struct blk_chan *chan);

/* slow.c */
void blk_slow_submit(struct blk_chan *chan, struct blk_req *req);

/* lock.c */
/* Locks a range on all reactors; the task waits. Always succeeds. */
void blk_lock(struct rt_task *t, struct blk_turn *turn, struct blk_dev *dev,
              struct blk_range range);
void blk_unlock(struct rt_task *t, struct blk_turn *turn);
/* The last request of the other epoch has ended. */
void blk_drained(struct blk_chan *chan);
/* A channel opens while the device is locked. */
void blk_lock_apply(struct blk_chan *chan);
/* Waits until no message of the lock is on its way. */
void blk_lock_flush(struct rt_task *t, struct blk_dev *dev);

/* notice.c */
void blk_notices_init(struct blk_dev *dev);
void blk_notices_fini(struct blk_dev *dev);

/* dev.c */
/* Takes the device off the registry, so that nobody else finds it. */
void blk_dev_unlist(struct blk_dev *dev);

/* chan.c */
/* Frees a channel of a crashed runtime as it stands; NULL is fine. */
void blk_chan_abandon(struct blk_chan *chan);
void blk_stats_add(struct blk_stats *dst, const struct blk_stats *src);

#endif
