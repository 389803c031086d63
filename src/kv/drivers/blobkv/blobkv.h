/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's inside: one struct bkv is one open store, and lives on its home reactor, where
 * everything here is called. No locks: what does not wait is atomic.
 *
 *   driver.c      the KV driver: opens, dispatches requests       stats.c    what it has done
 *   store.c       finds or makes the blob, super slots, close     super.c    one super slot
 *   commit.c      the committer: conditions, blocks, flush, apply
 *   space.c       segments: live bytes, readers, allocation       supply.c   segments made ready
 *   get.c         the way of a get                                lookup.c   where a key is
 *   checkpoint.c  memtable into leaves, then the super slot       recover.c  back from all that
 *   gc.c          moves what lives out of segments that are mostly dead
 */
#ifndef KVASIR_KV_BLOBKV_BLOBKV_H
#define KVASIR_KV_BLOBKV_BLOBKV_H

#include "kv/kv.h"

#include "kv/drivers/blobkv/cache.h"
#include "kv/drivers/blobkv/codec.h"
#include "kv/drivers/blobkv/format.h"
#include "kv/drivers/blobkv/hot.h"
#include "kv/drivers/blobkv/memtab.h"
#include "kv/drivers/blobkv/record.h"
#include "kv/drivers/blobkv/stats.h"
#include "kv/drivers/blobkv/tree.h"

#include "blob/lvol/lvol.h"
#include "rt/buf.h"

/* --- segments (space.c) ----------------------------------------------------------------------- */

enum bkv_seg_state {
    BKV_SEG_FREE = 0, /* nothing the index needs is in it */
    BKV_SEG_READY,    /* has clusters and waits to be opened */
    BKV_SEG_OPEN,     /* its stream appends to it */
    BKV_SEG_SEALED,
};

struct bkv_seg {
    uint64_t order;     /* of its present or last life */
    uint64_t freed_at;  /* bkv.stamp when it became free: a hold that is older keeps it */
    uint32_t gen;       /* 0: never used */
    uint32_t end;       /* bytes valid in it */
    /* Live bytes by who refers to them; their sum is what the segment's are worth. */
    uint32_t live_tree, live_frozen, live_active;
    uint32_t live_held; /* placed, but not yet referred to: streams under way */
    uint32_t drop;      /* what the merge that runs takes off live_tree, if it succeeds */
    uint32_t readers;   /* reads in flight: not used again meanwhile */
    uint8_t state;      /* enum bkv_seg_state */
    uint8_t stream;     /* enum bkv_stream; 0: free */
    bool allocated;     /* the blob has clusters for it */
    bool written;       /* all of it was written once since then: a flush costs no allocation */
    bool victim;        /* the collector has it */
};

static inline uint64_t bkv_seg_live(const struct bkv_seg *g)
{
    return (uint64_t)g->live_tree + g->live_frozen + g->live_active + g->live_held;
}

/* As long as it is there, no segment that was in use when it began is used again. */
struct bkv_hold {
    struct list link;
    uint64_t stamp;
};

/* --- operations (commit.c) -------------------------------------------------------------------- */

/**
 * One change of one key on its way into the log. The maker fills in the first part, keeps it all
 * (key, iov too) until `done` and gives it to bkv_commit_submit().
 */
struct bkv_op {
    struct bytes key;
    uint64_t hash;      /* bkv_key_hash() of it */
    uint8_t type;       /* enum bkv_type */
    uint8_t flags;      /* KV_F_MUST_EXIST, _MUST_NOT_EXIST, _IF_VERSION: for this op's key */
    bool must_be_there; /* a delete that answers -ENOENT */
    bool holds;         /* LARGE: its extents are counted as held (bkv_large_place), and become
                           live with it; when it fails they stay held */
    uint64_t if_version;
    const struct iovec *iov; /* the value; LARGE: value_id and extents, in one piece */
    unsigned iovcnt;
    uint32_t value_bytes;
    uint64_t value_len;
    /* A batch: all of these ops or none; this one is none itself, its key is not looked at. */
    struct bkv_op *part;
    unsigned nparts;
    /* Called once, from the loop or a task of the engine, never inside submit. Must not wait. */
    void (*done)(struct bkv_op *op, int rc);
    /* out, when rc is 0: .seq is the version (of a batch: of its last part). */
    struct bkv_place place;

    /* The committer's own. */
    struct list link;
    struct bkv_place found; /* resolved: what the leaves say of the key */
    uint64_t found_in;      /* the checkpoint that held for; 0: not resolved */
    int found_rc;
    int rc;
    uint32_t record_max;    /* bytes its records take at most */
    uint32_t chain;         /* next op of the block with the same slot, + 1 */
};

struct bkv;

/* Queues an op. Conditions are looked at in the order of the queue, when its block is made. */
void bkv_commit_submit(struct bkv *s, struct bkv_op *op);
/* The same for tasks: returns the op's rc. */
int bkv_commit(struct rt_task *t, struct bkv *s, struct bkv_op *op);

/* --- the store -------------------------------------------------------------------------------- */

struct bkv_stream_pos {
    uint32_t segment; /* 0: none open */
    uint32_t offset;  /* the next block or page goes there */
    uint32_t number;  /* of blocks in the segment */
    uint64_t order;   /* of the segment, or of the last one when none is open: prev_order */
    uint32_t prev_end; /* when none is open: bytes valid in the last one */
};

struct bkv_opts {
    char store[LVOL_NAME_MAX - 2];
    bool sync, read_only;
    uint64_t memory_bytes, checkpoint_bytes;
    uint64_t segment_bytes; /* 0: by the size of the device */
};

struct bkv_drop {
    uint64_t addr;
    uint32_t rec_len;
};

struct bkv {
    struct bkv_opts opts;
    struct lvs lvs;
    struct blob *blob;
    struct blob_chan *chan;
    struct bkv_super super; /* the last one written */
    unsigned super_slot;    /* where the next one goes: 0, 1 */
    uint32_t sector_bytes, cluster_bytes, segment_bytes, segment_shift;
    uint64_t secret[2];
    struct bkv_codec *codec;

    /* What is where. */
    struct bkv_hot *hot;
    struct bkv_cache *cache;
    struct bkv_memtab *active, *frozen; /* frozen: NULL unless a checkpoint is under way */
    struct bkv_memtab *spare;
    struct bkv_tree *tree;
    struct bkv_tree_io tree_io;
    uint64_t checkpoint_no; /* one more each time `tree` changes; from 1 */

    /* Segments. */
    struct bkv_seg *seg;
    uint32_t nsegs;
    uint32_t nfree, nready;
    uint64_t stamp;
    struct list holds;      /* struct bkv_hold, oldest first */
    uint32_t next_free;     /* where the search for a free one begins */
    uint32_t ready[16];     /* in the order in which they are taken */
    struct rt_cond space_changed;
    uint64_t last_order, last_seq;
    struct bkv_stream_pos pos[BKV_STREAMS];

    /* Commit. */
    struct list queue;      /* struct bkv_op */
    struct rt_cond queued, idle;
    uint8_t *staging;
    uint32_t staging_bytes;
    bool hot_busy, cold_busy, freezing;
    int poison;             /* not 0: a write or flush has failed; no more changes */
    uint64_t log_since_checkpoint;

    /* LARGE records nobody refers to any more, whose extents are still counted. */
    struct bkv_drop *drops;
    size_t ndrops, drops_max;

    /* Tasks of ours. */
    bool closing;
    unsigned ntasks;
    struct rt_cond task_ended;
    struct rt_cond checkpoint_wanted, checkpoint_done;
    bool want_checkpoint, in_checkpoint;
    int checkpoint_rc;

    /* Gets (get.c). */
    struct rt_pool reads;   /* struct bkv_read */
    struct list read_waiting;

    struct bkv_stats stats;
};

/** The segment an address is in. */
static inline uint32_t bkv_seg_of(const struct bkv *s, uint64_t addr)
{
    return (uint32_t)(addr >> s->segment_shift);
}

/** The generation an address is read under; 0 (never right) outside the store. */
static inline uint32_t bkv_gen_of(const struct bkv *s, uint64_t addr)
{
    uint32_t i = bkv_seg_of(s, addr);

    return i < s->nsegs ? s->seg[i].gen : 0;
}

/* Starts one of the store's tasks; close waits for all of them. */
int bkv_task(struct bkv *s, const char *name, rt_task_fn fn, void *arg);
void bkv_task_ended(struct bkv *s);

/* After a failed write or flush: no more changes. Says so once in the log. Returns -EIO. */
int bkv_poison(struct bkv *s, int rc, const char *what);

/* --- space.c ---------------------------------------------------------------------------------- */

/** Keeps the segment of `addr` from being used again until bkv_unpin(). */
static inline void bkv_pin(struct bkv *s, uint64_t addr)
{
    s->seg[bkv_seg_of(s, addr)].readers++;
}
void bkv_unpin(struct bkv *s, uint64_t addr);
/** Keeps all segments in use now. */
void bkv_hold(struct bkv *s, struct bkv_hold *h);
void bkv_release(struct bkv *s, struct bkv_hold *h);

/**
 * A place for `len` bytes (multiple of the sector, at most what bkv_large_max() says) in the large
 * stream: what is written there belongs to the caller, and counts as held until an op with `holds`
 * has committed, or bkv_large_drop(). Waits for space. 0; -ENOSPC; -EIO; -ECANCELED.
 */
int bkv_large_place(struct rt_task *t, struct bkv *s, uint32_t len, uint64_t *out_addr,
                    uint32_t *out_gen);
uint32_t bkv_large_max(const struct bkv *s);
/** Gives what was placed and not committed back. */
void bkv_large_drop(struct bkv *s, uint64_t addr, uint32_t len);
/** Bytes that an extent takes in its segment. */
static inline uint32_t bkv_extent_bytes(const struct bkv *s, const struct bkv_extent *e)
{
    return le32_get(e->head_len) +
           (uint32_t)round_up_u64(le32_get(e->data_len), s->sector_bytes);
}

/* --- lookup.c --------------------------------------------------------------------------------- */

static inline uint64_t bkv_hash(const struct bkv *s, struct bytes key)
{
    return bkv_key_hash(s->secret, key);
}

/** Where the current version of a key is, exactly. 0; -ENOENT; -EAGAIN a leaf has to be read. Never
 * waits. */
int bkv_find_cached(struct bkv *s, struct bytes key, struct bkv_place *out);
/** The same; may wait: what it says held at its return. 0; -ENOENT; -EBADMSG; -EIO; ... */
int bkv_find(struct rt_task *t, struct bkv *s, struct bytes key, struct bkv_place *out);
/**
 * Reads the record at a place that is current, or held; checks that it is of `key` (empty: of any).
 * *out points into *out_buf, which the caller puts back.
 */
int bkv_read_place(struct rt_task *t, struct bkv *s, const struct bkv_place *place,
                   struct bytes key, struct rt_buf **out_buf, struct bkv_record_out *out);
/** bkv_find() and bkv_read_place(), again when the record moved in between. */
int bkv_read_key(struct rt_task *t, struct bkv *s, struct bytes key, struct bkv_place *out_place,
                 struct rt_buf **out_buf, struct bkv_record_out *out);

/* --- checkpoint.c ----------------------------------------------------------------------------- */

/**
 * Makes a checkpoint of everything applied before the call and waits for it. `hold` and `out_tree`
 * (both or neither): a hold on all segments and a reference to the tree as of the checkpoint's
 * instant: a snapshot. 0; -ENOSPC, -ENOMEM nothing lost, may be tried again; -EIO.
 */
int bkv_checkpoint(struct rt_task *t, struct bkv *s, struct bkv_hold *hold,
                   struct bkv_tree **out_tree);

/* --- requests, each in a file of its own ------------------------------------------------------ */

/* get.c: KV_RETRIEVE, KV_STAT. */
void bkv_get_submit(struct bkv *s, struct kv_req *req);
/* put.c: KV_STORE, KV_DELETE, KV_BATCH. */
void bkv_put_submit(struct bkv *s, struct kv_req *req);

#endif
