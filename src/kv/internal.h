/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of src/kv share. Drivers and users include kv/kv.h only. */
#ifndef KVASIR_KV_INTERNAL_H
#define KVASIR_KV_INTERNAL_H

#include "kv/kv.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

/* A stream as its user sees it; the driver's own hangs below. */
struct kv_held {
    struct kv_chan *chan;
    struct kv_stream *driver;
    struct kv_held *next_free;
    uint64_t len; /* declared, or KV_LEN_UNKNOWN, or the value's length */
    uint64_t pos; /* written so far, or read so far by a driver without KV_CAP_RANGE */
    uint32_t busy;
    int rc; /* the first failure of a write: commit answers it */
    bool writing;
    bool commit_failed; /* the driver was sent an abort instead */
};
#define KV_HELD_BLOCK 64
struct kv_held_block {
    struct kv_held_block *next;
    struct kv_held held[KV_HELD_BLOCK];
};

/* A request that takes more than one hop: the task that carries it out, and what that needs. */
struct kv_emul {
    struct kv_chan *chan;
    struct kv_req *req; /* NULL: free */
    struct rt_task *task;
    struct list link;
    struct kv_req sub;
    struct iovec iov;
    uint8_t key[KV_KEY_MAX];
};
#define KV_EMULS 16
#define KV_DISCARD_BYTES 65536u

enum kv_chan_state { KV_CHAN_NEW, KV_CHAN_OPENING, KV_CHAN_OPEN, KV_CHAN_CLOSING };

struct kv_chan {
    /* What the fast path reads. */
    void (*submit)(struct kv_chan *chan, struct kv_req *req);
    uint32_t plain_ops; /* 1 << op: the driver takes it as it is, here */
    uint32_t fast_ops;  /* of these, store and retrieve, when they are allowed */
    uint32_t caps;
    uint32_t key_max;
    uint64_t val_max;
    struct kv_dev *dev;
    bool forward; /* the driver's home is another reactor */

    struct kv_held *free_held;
    struct kv_held_block *held_blocks;
    uint32_t held_total, held_out;

    struct kv_emul *emuls; /* KV_EMULS, when the driver needs them */
    struct list free_emuls;
    struct list emul_waiting; /* kv_req.link */
    uint8_t *discard;         /* what is read to be thrown away; never read itself */

    enum kv_chan_state state;
    uint32_t refs;
    struct rt_cond changed;
    struct kv_stats stats;
    _Alignas(max_align_t) uint8_t driver[];
};

struct kv_dev {
    const struct kv_driver *driver;
    struct kv_info info;
    char *uri;
    struct rt_reactor *home;  /* that opened it */
    struct kv_registry *registry;
    unsigned nchans;
    struct kv_chan **chan;    /* by reactor; each touched only there */
    struct kv_chan *home_chan;
    atomic_bool removed;

    /* Under the registry's lock. */
    struct list link;
    uint32_t refs;
    bool opening, closing;

    pthread_mutex_t lock; /* of what follows */
    const char *reader, *writer, *owner; /* holders, for texts: the last of each kind */
    uint32_t readers, writers;
    struct list watches;
    struct kv_stats *closed; /* sums of channels that are gone */
    _Alignas(max_align_t) uint8_t data[];
};

/* chan.c */
void kv_chan_free(struct kv_chan *chan);
/* Sums `src` into `dst`. */
void kv_stats_add(struct kv_stats *dst, const struct kv_stats *src);

/* submit.c: to the driver, on its home reactor. */
void kv_carry(struct kv_chan *chan, struct kv_req *req);
/* The end of a request on the reactor that submitted it. */
void kv_finish(struct kv_req *req, int rc);
void kv_cancel(struct rt_req *req);

/* stream.c: before and after the driver. begin: 0 carry on, 1 finish with *out_rc. */
int kv_stream_begin(struct kv_chan *chan, struct kv_req *req, int *out_rc);
int kv_stream_end(struct kv_req *req, int rc);
void kv_streams_free(struct kv_chan *chan);

/* emul.c */
int kv_emuls_init(struct kv_chan *chan);
bool kv_emul_needed(const struct kv_chan *chan, const struct kv_req *req);
void kv_emul_start(struct kv_chan *chan, struct kv_req *req);
void kv_emul_cancel(struct kv_req *req);

#endif
