/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's inside: one struct bkv is one shard of an open store, and lives on its reactor,
 * where everything here is called. No locks: what does not wait is atomic.
 *
 *   driver.c      the KV driver: opens, dispatches requests       stats.c    what it has done
 *   store.c       finds or makes the blob, super slots, close     super.c    one super slot
 *   commit.c      the committer: conditions, blocks, apply       flush.c    the flush
 *   space.c       segments: live bytes, readers, allocation       supply.c   segments made ready
 *   get.c         the way of a get                                lookup.c   where a key is
 *   list.c        keys in order                                  snap.c     as of a checkpoint
 *   checkpoint.c  memtable into leaves, then the super slot       recover.c  back from all that
 *   gc.c          moves what lives out of segments that are mostly dead: move.c, to cold.c
 *   shards.c      a device is one of these or several: shards.h
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
#include "kv/drivers/blobkv/super.h"
#include "kv/drivers/blobkv/tree.h"
#include "kv/drivers/blobkv/txn.h"

#include "blob/lvol/lvol.h"
#include "rt/buf.h"

#include <stdatomic.h>

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
    uint32_t added, drop; /* what the checkpoint that runs adds and takes off, if it succeeds */
    /* About how much of live_tree and live_frozen memtables have replaced: no account, for the
     * collector's choice only. What the frozen one has replaced, the active one. */
    uint32_t past_frozen, past_active;
    uint32_t readers;   /* reads in flight: not used again meanwhile */
    uint8_t state;      /* enum bkv_seg_state */
    uint8_t stream;     /* enum bkv_stream; 0: free */
    bool allocated;     /* the blob has clusters for it */
    bool written;       /* all of it was written once since then: a flush costs no allocation */
    bool known;         /* `allocated` is of this process, and not only what a table said */
    uint8_t victim;     /* the collector has it, for so many checkpoints more */
    bool damaged;       /* something in it cannot be read: left alone */
    bool emptied;       /* everything current has been moved out of it */
    bool has_large;     /* seen while that was done: a record whose extents a merge has to read */
    bool freeing;       /* the checkpoint that runs frees it, if it succeeds */
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
    uint8_t type;       /* enum bkv_type; 0: nothing but a flush */
    uint8_t flags;      /* KV_F_MUST_EXIST, _MUST_NOT_EXIST, _IF_VERSION: for this op's key */
    bool must_be_there; /* a delete that answers -ENOENT */
    bool holds;         /* LARGE: its extents are counted as held (bkv_large_place), and become
                           live with it; when it fails they stay held */
    bool unflushed;     /* LARGE: its chunks are written, and the flush of its block is theirs */
    uint64_t if_version;
    uint64_t keep_seq;  /* the record is a moved one and keeps this number; else 0 */
    const struct iovec *iov; /* the value; LARGE: value_id and extents, or lists of them */
    unsigned iovcnt;
    uint32_t value_bytes;
    uint64_t value_len;
    struct bytes named; /* LARGE: all extents that live with it, also those in lists */
    /* A batch: all of these ops or none; this one is none itself, its key is not looked at. */
    struct bkv_op *part;
    unsigned nparts;
    /* type BKV_TXN: this shard's part of a batch over shards (txn.h); nparts may be 0. */
    struct bkv_txn_part *txn;
    /* Called once, from the loop or a task of the engine, never inside submit. Must not wait. */
    void (*done)(struct bkv_op *op, int rc);
    void *arg; /* the maker's */
    /* out, when rc is 0: .seq is the version (of a batch: of its last part). */
    struct bkv_place place;

    /* The committer's own. */
    struct list link;
    struct bkv *store;
    struct bkv_place found; /* resolved: what the leaves say of the key */
    uint64_t found_in;      /* the checkpoint that held for; 0: not resolved */
    int found_rc;
    uint32_t record_max;    /* bytes its records take at most */
    bool absorbed;          /* a later op of the block stores the same key */
};

struct bkv;

/* Queues an op. Conditions are looked at in the order of the queue, when its block is made. */
void bkv_commit_submit(struct bkv *s, struct bkv_op *op);
/* The same for tasks: returns the op's rc. */
int bkv_commit(struct rt_task *t, struct bkv *s, struct bkv_op *op);

/* --- the store -------------------------------------------------------------------------------- */

/* Where a stream appends. `last` is its newest segment, also when that is full or torn. */
struct bkv_stream_pos {
    uint32_t segment;  /* 0: none open, the next append opens one */
    uint32_t offset;   /* the next block or page goes there */
    uint32_t number;   /* of blocks in the segment */
    uint32_t durable;  /* of those, how many have been flushed */
    uint64_t last_order; /* of its newest segment; 0: it never had one */
    uint32_t last_end;   /* bytes valid there, when it is not open */
    bool from_reserve;   /* opened when there was no room but for deletes */
    bool tight;          /* opened when there was little room */
};

/* What a segment is wanted for: each leaves more to those before it. */
enum bkv_need { BKV_NEED_INDEX, BKV_NEED_MOVE, BKV_NEED_DELETE, BKV_NEED_DATA };

/* The head of the cold segment that is open (cold.c). */
struct bkv_cold_head {
    struct bkv_seg_info info;
    uint64_t after; /* a later flush than this one has to come before it; 0: none */
    bool due;       /* it is still to be written */
    bool busy;      /* somebody is about it */
    struct rt_cond changed;
};

#define BKV_READY_MAX 64

#define BKV_SHARD_MEMORY_MIN (4 * MIB)

struct bkv_opts {
    char store[LVOL_NAME_MAX - 2];
    bool sync, read_only;
    bool memory_given;
    unsigned nshards; /* 0: as the store has it; a new one: by its size */
    uint64_t memory_bytes, table_bytes, checkpoint_bytes;
    uint64_t segment_bytes; /* 0: by the size of the device */
    uint64_t snapshot_pin_bytes;  /* 0: a quarter of the store */
    uint64_t snapshot_max_age_ns; /* 0: no limit */
    uint32_t extents; /* a record names so many at most; more are in lists */
    struct bkv_codec_opts codec;
};

struct bkv_drop {
    uint64_t addr;
    uint32_t rec_len;
};

struct bkv_block;
struct bkv_checkpoint_state;

struct bkv {
    struct bkv_opts opts;
    char name[LVOL_NAME_MAX + 16]; /* of the blob, and in messages */
    struct bkv_shards *set;       /* shards.h */
    struct rt_reactor *reactor;
    unsigned shard, nshards;      /* which one of how many */
    bool making;                  /* the store is being made: whatever this shard was before */
    uint8_t set_uuid[16];         /* shard 0's, for the others */
    struct bkv_txn_state txn;     /* txn.h */
    struct rt_msg share_msg;      /* look again whether there is room: shard_space.c */
    atomic_bool share_sent;       /* it is on its way */
    atomic_bool share_given;      /* since another one has given segments back */
    bool share_asked;             /* for that, since there was room last */
    struct lvs lvs;
    struct blob *blob;
    struct blob_chan *chan;
    struct bkv_super super; /* the last one written */
    unsigned super_slot;    /* where the next one goes: 0, 1 */
    uint32_t sector_bytes, cluster_bytes, segment_bytes, segment_shift;
    uint64_t secret[2];
    struct bkv_codec *codec;
    struct bkv_large *large; /* large.h */

    /* What is where. */
    struct bkv_hot *hot;
    struct bkv_cache *cache;
    struct bkv_memtab *active, *frozen; /* frozen: NULL unless a checkpoint is under way */
    struct bkv_memtab *spare;
    struct bkv_memtab *replay_memtab; /* the one recovery has filled: of another size */
    uint64_t memtab_bytes;
    struct bkv_tree *tree;
    struct bkv_tree_io tree_io;
    uint64_t checkpoint_no; /* one more each time `tree` changes; from 1 */
    uint64_t tree_order;    /* last_order when what the tree has was frozen */
    bool reclaim_due, reclaiming; /* asked for; that, or under way */
    uint64_t reclaims;      /* tries to free emptied segments, checkpoints included */

    /* Segments. */
    struct bkv_seg *seg;
    uint32_t nsegs;
    uint64_t stamp, freed_at; /* the latter: when a segment became free last */
    struct list holds;      /* struct bkv_hold, oldest first */
    uint32_t ready[BKV_READY_MAX]; /* in the order in which they are taken */
    uint32_t nready;
    uint32_t supplying;     /* one is on its way to being ready */
    uint32_t opened;        /* segments since the store was opened */
    uint32_t opened_large;  /* of those, for large values */
    struct rt_cond space_changed, supply_wanted;
    bool supply_due;        /* the supplier has to look again */
    bool alloc_failed;      /* the blobstore had no clusters for us; tried again when asked */
    bool full;              /* what could be done for space has been done; deletes end that */
    bool want_room;
    bool quiet;             /* nobody changes anything: a time to make the store small */
    bool collector_due;     /* the collector has to look again */
    uint64_t paced_until;   /* the collector waits until so much has been written; 0: it does not */
    struct rt_cond paced;
    bool large_opening;     /* somebody writes the head of the next large segment */
    bool prepare;           /* new segments are written with zeroes before they are used */
    uint32_t incompat;      /* what the next super slot has to say as well: BKV_INCOMPAT_* */
    uint64_t last_order, last_seq;
    struct bkv_stream_pos pos[BKV_STREAMS];
    struct bkv_cold_head cold_head;

    /* Commit. */
    struct list queue;      /* struct bkv_op */
    struct rt_cond queued, idle;
    struct bkv_block *block; /* the one that is being made */
    uint32_t nresolving;
    uint8_t *scratch;       /* BKV_SCRATCH_BYTES, for codecs; nobody waits while using it */
    bool collecting;        /* the collector is there, and may have something to commit */
    bool commit_due;        /* the committer has to look at the queue again */
    bool memory_short;      /* the memtable is full */
    bool hot_busy, cold_busy, freezing;
    uint64_t flush_failures; /* of the device, when the store was opened */
    uint64_t flush_no;       /* of the newest flush that has begun */
    uint64_t flushed_no;     /* and of the newest that has succeeded */
    struct rt_cond flushed;  /* one has ended */
    int poison;             /* not 0: a write or flush has failed; no more changes */
    uint64_t log_since_checkpoint, checkpoint_log_bytes;

    /* LARGE records nobody refers to any more, whose extents are still counted. */
    struct bkv_drop *drops;
    size_t ndrops, drops_max;

    /* Tasks of ours. */
    bool closing;           /* nothing new comes */
    bool stopped;           /* and the last checkpoint is made */
    bool freed;             /* nothing of it is left but this struct */
    unsigned ntasks;
    struct rt_cond task_ended;
    struct rt_cond checkpoint_wanted, checkpoint_done, collector_wanted;
    struct list checkpoint_waiting; /* struct bkv_waiter, see checkpoint.c */
    struct bkv_checkpoint_state *ckpt;
    bool checkpoint_due;
    int checkpoint_rc;      /* of the last one that failed */
    uint64_t checkpoint_failures;
    bool dirty;             /* something has changed since the last checkpoint */

    /* Gets (get.c). */
    struct rt_pool reads;   /* struct bkv_read */
    struct list read_waiting;

    struct bkv_lists *lists; /* list.h */
    struct list snaps;       /* struct bkv_snap, oldest first */

    struct bkv_stats stats;
};

/** The shard a request is for. */
static inline struct bkv *bkv_of(const struct kv_req *kv)
{
    return kv->part;
}

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

/** Waits to be woken, until at_ns at most: false then. */
bool bkv_cond_wait_until(struct rt_task *t, struct rt_cond *cond, uint64_t at_ns);

/* After a failed write or flush: no more changes. Says so once in the log. Returns -EIO. */
int bkv_poison(struct bkv *s, int rc, const char *what);

/** The queue, or what it waits for, has changed. */
static inline void bkv_commit_wake(struct bkv *s)
{
    s->commit_due = true;
    rt_cond_wake_all(&s->queued);
}
/** Segments have been freed or made ready, or there is no more hope for any. */
static inline void bkv_space_wake(struct bkv *s)
{
    rt_cond_wake_all(&s->space_changed);
    bkv_commit_wake(s);
}

/** The collector may have something to do. */
static inline void bkv_collector_wake(struct bkv *s)
{
    s->collector_due = true;
    rt_cond_wake_all(&s->collector_wanted);
}

/** What users have written: what the collector has to keep up with. */
static inline uint64_t bkv_written(const struct bkv *s)
{
    return s->stats.log_bytes + s->stats.large_bytes;
}

/** Flushes the device. After a failure the store is poisoned. */
int bkv_flush(struct rt_task *t, struct bkv *s);
/** The same for who can wait: with the flush of the next commit, if there is one soon. */
int bkv_flush_soon(struct rt_task *t, struct bkv *s);
/** The same, when one that began later than number `no` (of s->flush_no) will do. */
int bkv_flush_after(struct rt_task *t, struct bkv *s, uint64_t no);
/** One write of whole sectors inside a segment; poisons when it fails. */
int bkv_write(struct rt_task *t, struct bkv *s, const void *buf, uint64_t addr, uint32_t len);

/**
 * A change that is in the log becomes visible: memtable (out of a reserve), table, live bytes.
 * `extents`: all that a LARGE record names; `held`: they were counted as held. Room for a drop has
 * been reserved (bkv_drops_reserve). A moved record leaves entries of the table alone that do not
 * name `moved_from` (0: not moved).
 */
void bkv_apply_place(struct bkv *s, struct bytes key, const struct bkv_place *place,
                     struct bytes extents, bool held);
void bkv_apply(struct bkv *s, struct bytes key, uint64_t hash, const struct bkv_place *place,
               struct bytes extents, bool held, uint64_t moved_from);
/** Room in the list of drops for `n` more. 0 or -ENOMEM. */
int bkv_drops_reserve(struct bkv *s, size_t n);

/* The tasks of the store. */
int bkv_committer(struct rt_task *t, void *store);
int bkv_supplier(struct rt_task *t, void *store);
int bkv_checkpointer(struct rt_task *t, void *store);
int bkv_collector(struct rt_task *t, void *store);
int bkv_block_new(struct bkv *s);
void bkv_block_free(struct bkv *s);

/* --- space.c ---------------------------------------------------------------------------------- */

/** Lays out the segments of a blob of `len` bytes: all free, none allocated. 0 or -ENOMEM. */
int bkv_space_init(struct bkv *s, uint32_t nsegs);
void bkv_space_fini(struct bkv *s);
/**
 * Opens a segment for a stream that is ready: gives it its order and next generation. The caller
 * writes its head (bkv_seg_head_encode() of *out). 0; -EAGAIN none is ready now (wait for
 * space_changed); -ENOSPC there is no room for this need. Never waits.
 */
int bkv_seg_open(struct bkv *s, enum bkv_stream stream, enum bkv_need need,
                 struct bkv_seg_info *out);
/** The same, and waits until there is one, or no hope. */
int bkv_seg_open_wait(struct rt_task *t, struct bkv *s, enum bkv_stream stream,
                      enum bkv_need need, struct bkv_seg_info *out);
/** The stream's open segment is full, or done with. */
void bkv_seg_seal(struct bkv *s, enum bkv_stream stream);
/** Whether there is room for a need, now: 0, -EAGAIN or -ENOSPC, as above. */
int bkv_space_room(struct bkv *s, enum bkv_need need);
/** Segments that could be opened at once or after allocation; those held are not. */
uint32_t bkv_space_avail(const struct bkv *s);
/* shard_space.c: what shards have in common. */
/** Lets the others know how much of the free clusters this one may need for more than data. */
void bkv_share_tell(struct bkv *s);
/** Segments that may still be given clusters; with one shard all that have none. */
uint32_t bkv_share_of(const struct bkv *s);
/**
 * Before `n` segments are given clusters: returns how many of them may be: what it said that it
 * may need, and beyond that what leaves the others what they said. bkv_share_taken() is told of
 * that many when it is done, or has failed.
 */
uint32_t bkv_share_take(struct bkv *s, uint32_t n);
void bkv_share_taken(struct bkv *s, uint32_t n);
/** There is little left: what is free shall be free to all. */
bool bkv_share_is_short(const struct bkv *s);
/** There is no room: what the others have and do not need shall be given back. Once, until there is
 * room again. */
void bkv_share_ask(struct bkv *s);
/** Segments have been given back: the others may use them. */
void bkv_share_given(struct bkv *s);
/** Segments the next checkpoint may need. */
uint32_t bkv_space_index_reserve(const struct bkv *s);
/** How many segments a need has to leave. */
uint32_t bkv_space_reserve(const struct bkv *s, enum bkv_need need);
/** Live bytes of the whole store; segments that hold something. */
uint64_t bkv_space_live(const struct bkv *s, uint32_t *out_used_segs);
/** The same without the index: what keys and values take. */
uint64_t bkv_space_data(const struct bkv *s);
void bkv_seg_free(struct bkv *s, uint32_t idx);
/** The supplier has something to do. */
static inline void bkv_supply_wake(struct bkv *s)
{
    s->supply_due = true;
    rt_cond_wake_all(&s->supply_wanted);
}
bool bkv_seg_usable(const struct bkv *s, const struct bkv_seg *g);
/** Writes the head of a segment that was opened. */
int bkv_seg_head_write(struct rt_task *t, struct bkv *s, const struct bkv_seg_info *info);

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
int bkv_large_place(struct rt_task *t, struct bkv *s, enum bkv_need need, uint32_t len,
                    uint64_t *out_addr, uint32_t *out_gen);
uint32_t bkv_large_max(const struct bkv *s);
/** Where the next chunk begins in the stream's segment: at a page. */
static inline uint32_t bkv_large_offset(const struct bkv_stream_pos *pos)
{
    return (uint32_t)round_up_u64(pos->offset, BKV_PAGE_BYTES);
}
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
/** Whether memtables know another place of a key, or that it was deleted. With the checkpoint_no of
 * the time when it was at `addr`, false says that it still is. Never waits. */
bool bkv_has_moved_on(const struct bkv *s, struct bytes key, uint64_t addr);
/** Reads whole sectors of one segment, which is not used again meanwhile. */
int bkv_read_sectors(struct rt_task *t, struct bkv *s, uint64_t addr, uint32_t len, uint8_t *buf);
/** Reads and checks the record at an address. */
int bkv_read_record(struct rt_task *t, struct bkv *s, uint64_t addr, uint32_t rec_len,
                    struct rt_buf **out_buf, struct bkv_record_out *out);
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
bool bkv_checkpoint_due(const struct bkv *s);
/** Wants one soon; does not wait. */
void bkv_checkpoint_wake(struct bkv *s);
int bkv_checkpoint(struct rt_task *t, struct bkv *s, struct bkv_hold *hold,
                   struct bkv_tree **out_tree);
/* Stops the shard at the instant of a checkpoint until all shards have come to theirs. */
struct bkv_stop {
    void (*stopped)(struct bkv_stop *stop); /* called once the shard changes nothing any more */
    bool go;
};
/** The same, with `stop`: a checkpoint is made even when nothing has changed. It may end, in
 * failure, without having stopped. */
int bkv_checkpoint_at(struct rt_task *t, struct bkv *s, struct bkv_hold *hold,
                      struct bkv_tree **out_tree, struct bkv_stop *stop);
/** Goes on from the stop. */
void bkv_stop_end(struct bkv *s, struct bkv_stop *stop);
/** The same; `at` is called when that tree and the accounts that go with it are the store's, before
 * anything else happens. It must not wait. */
int bkv_checkpoint_seen(struct rt_task *t, struct bkv *s, struct bkv_hold *hold,
                        struct bkv_tree **out_tree, void (*at)(void *arg), void *arg);

/**
 * Frees segments that the collector has emptied without merging anything: the tree still has places
 * in them, but for each such key a memtable has another one. Waits. A checkpoint does as well.
 */
void bkv_reclaim(struct rt_task *t, struct bkv *s);
/** The same, without waiting for it. */
void bkv_reclaim_soon(struct bkv *s);
/** How many it would free now; none while a checkpoint is made. */
uint32_t bkv_reclaimable(const struct bkv *s);
/** Writes the head of the cold segment that is open, unless that has a later order; a flush that
 * begins then makes it, and all that was moved to earlier segments, durable. */
int bkv_cold_settle(struct rt_task *t, struct bkv *s, uint64_t order);
/** Whether a place that the tree has is one of those: its segment has been freed since. */
static inline bool bkv_is_stale(const struct bkv *s, uint64_t addr)
{
    const struct bkv_seg *g = &s->seg[bkv_seg_of(s, addr)];

    return g->state == BKV_SEG_FREE || g->state == BKV_SEG_READY || g->order > s->tree_order;
}
int bkv_checkpoints_init(struct bkv *s);
void bkv_checkpoints_fini(struct bkv *s);
/** Writes both slots, one after the other, each flushed; *super becomes s->super. */
int bkv_super_write(struct rt_task *t, struct bkv *s, struct bkv_super *super);

/* --- store.c, recover.c ----------------------------------------------------------------------- */

/** Finds or makes the shard on a block device, brings it back, starts its tasks. With text. */
int bkv_open(struct rt_task *t, struct bkv *s, const char *blk_uri, struct err *why);
/** Nothing is in flight. */
void bkv_close(struct rt_task *t, struct bkv *s);
/** Frees memory only: after a simulated crash. */
void bkv_free(struct bkv *s);
/** From the super slot that was read to the state before the stop. */
int bkv_recover(struct rt_task *t, struct bkv *s, struct err *why);

/** The cache may use what the memtables have not: after these grew or became empty. */
void bkv_memory_fit(struct bkv *s);

/* --- stats.c ---------------------------------------------------------------------------------- */

/** One call for each number: what the store is made of now, what it has done since the open. */
void bkv_counters(const struct bkv *s, void (*each)(void *arg, const char *name, uint64_t value),
                  void *arg);

/* --- requests, each in a file of its own ------------------------------------------------------ */

#define BKV_READS_MAX 512u /* reads of gets in flight; others wait in line */
int bkv_gets_init(struct bkv *s);
/* get.c: KV_RETRIEVE, KV_STAT. */
void bkv_get_submit(struct bkv *s, struct kv_req *req);
/** What a record that is right (and not LARGE) says goes to the request. */
int bkv_get_deliver(struct bkv *s, struct kv_req *kv, const struct bkv_record_out *rec);
/* put.c: KV_STORE, KV_DELETE, KV_BATCH, KV_FLUSH. */
void bkv_put_submit(struct bkv *s, struct kv_req *req);

/* usage.c: the number of keys, exact unless checkpoints come one after the other. Waits. */
int bkv_usage_keys(struct rt_task *t, struct bkv *s, uint64_t *out);

#endif
