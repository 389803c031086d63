/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of src/blob share. src/blob/README.md tells how it works together. */
#ifndef KVASIR_BLOB_INTERNAL_H
#define KVASIR_BLOB_INTERNAL_H

#include "blob/blob.h"
#include "blob/format.h"
#include "blob/mask.h"

#include "rt/buf.h"

#include "base/map.h"
#include "base/must.h"

#include <string.h>

#define BLOB_IO_BYTES (256 * KIB) /* the buffer of the home reactor's own I/O */
#define BLOB_CHAIN_MAX 65536u     /* pages; a longer chain is damage */
#define BLOB_DEPTH_MAX 1024u      /* snapshots below a clone */
#define BLOB_WORKERS 16u          /* per channel: requests of more than one hop at a time */
#define BLOB_PIECES 4u            /* per worker: at the device at a time */
#define BLOB_PIECE_IOVS 16u

/** Who stands on whom: one for each clone that can be read. */
struct blob_link {
    struct map_node node; /* by id */
    uint64_t id, parent;
};

enum blob_slot_state { BLOB_SLOT_NONE = 0, BLOB_SLOT_OPENING, BLOB_SLOT_OPEN, BLOB_SLOT_CLOSING };

struct blob_worker;

/** The use of a store from one reactor. */
struct blob_chan {
    struct blob_store *bs;
    struct blk_chan *blk;
    uint8_t epoch;          /* which of the two counts new I/O goes to */
    uint64_t in_flight[2];  /* I/O to clusters, at the device */
    struct rt_cond drained; /* the count of the other epoch has come to 0 */
    struct list slow;       /* blob_req that wait for a worker */
    struct rt_pool workers;
    struct rt_cond workers_gone;
    uint8_t block_shift;
};

/** The place of the channel of one reactor. */
struct blob_slot {
    struct rt_reactor *reactor;
    struct blob_chan *chan;
    unsigned users;
    uint8_t state; /* enum blob_slot_state */
    struct rt_cond changed;
} __attribute__((aligned(64)));

struct blob_store {
    struct list link; /* the registry's */
    unsigned refs;
    bool open; /* false: somebody is opening or closing it */
    struct blk_dev *dev;
    struct blk_chan *blk; /* the home reactor's */
    struct rt_reactor *home;
    uint32_t block_bytes;
    uint8_t block_shift;
    bool read_only;
    bool was_clean;
    uint8_t claim; /* enum blk_claim */
    int failed;    /* a metadata write whose outcome nobody knows: no changes from then on */

    /* The metadata, under the lock: one task at a time, on the home reactor. */
    bool locked;
    bool lazy; /* extent pages were written and not yet flushed */
    struct rt_cond unlocked;
    struct blob_super super;
    struct blob_super_disk *super_page; /* as on the disk, reserved bytes and all */
    uint64_t total_clusters;
    struct blob_mask pages, ids, clusters;
    struct blob_mask unreadable; /* ids that were skipped at load */
    uint32_t nunreadable;
    struct map links; /* blob_link */
    struct map blobs; /* open ones */
    uint8_t *io;      /* BLOB_IO_BYTES, aligned */
    struct blob_page_disk *page;
    struct blob_leaf leaf; /* the one being written */
    struct blob_pairs_enc enc;
    blob_esnap_fn esnap_fn;
    void *esnap_arg;
    struct list first_writes; /* alloc.c: those that wait for the lock */
    uint64_t free_clusters; /* what info shows: read by other reactors */
    uint64_t free_pages;

    uintptr_t flush_word; /* flush.c: from any reactor */
    uint64_t flush_failures;
    uint64_t flushes_shared;

    unsigned nslots;
    struct blob_slot *slot;
};

struct blob {
    struct map_node node;
    struct blob_store *bs;
    uint64_t id;
    unsigned users;  /* blob_open */
    unsigned inside; /* clones that are open, operations under way */
    bool rle;
    bool unknown; /* has what we do not know: claimed at load, not opened */
    bool md_read_only;
    bool read_only; /* no writes: a snapshot, or flags that say so */
    bool frozen;    /* writes wait for the lock: a snapshot is being taken */
    struct blob_head head;
    struct blob_map *map; /* other reactors read it; replaced whole */
    struct blob_map *old_maps; /* replaced ones that somebody may still be reading */
    uint64_t nallocated;
    uint64_t parent_id; /* for blob_info() */
    uint32_t nclones;
    uint32_t *chain; /* md pages after the root */
    unsigned nchain;
    struct blob *parent; /* open, as long as the clone is; NULL */
    struct blk_dev *esnap;
    bool on_esnap; /* BLOB_INVALID_ESNAP, for other reactors */
};

/* --- md.c: pages, and changes of one blob ----------------------------------------------------- */

/** Clusters [idx, idx + n) become [cluster, cluster + n), or none when cluster is 0. */
struct blob_run {
    uint64_t idx;
    uint32_t n;
    uint32_t cluster;
};

/**
 * A change of a blob's metadata. What is NULL stays as it is. blob_change_commit() writes it,
 * durably, and then takes it into the blob; head and map become the blob's (and *c is empty).
 */
struct blob_change {
    struct blob_head *head;
    struct blob_map *map;         /* with the md pages of those extent pages that stay */
    const struct blob_run *run;   /* ascending; over `map` or over the blob's */
    unsigned nruns;
    uint32_t fresh_from;          /* leaves from here on are written anew; UINT32_MAX: none */
    bool in_place;                /* no room for fresh pages: one after the other */
    bool ordered;                 /* what was written before must be durable before it */
    bool lazy;                    /* need not be durable on return: the next flush does that */
    bool keeps_pages;             /* extent pages it has no more belong to another blob now */
};
int blob_change_commit(struct rt_task *t, struct blob *b, struct blob_change *c);
/** The same for a blob that is not there yet: leaves from `fresh_from` on, chain, root. */
int blob_write_new(struct rt_task *t, struct blob *b, uint32_t fresh_from);
/** After the head's flags have changed. */
void blob_flags_apply(struct blob *b);

int blob_md_read(struct rt_task *t, struct blob_store *bs, uint32_t page, void *out);
int blob_md_write(struct rt_task *t, struct blob_store *bs, uint32_t page, const void *data);
/** Zeroes over pages; errors are not told: nothing depends on it. */
void blob_md_zero(struct rt_task *t, struct blob_store *bs, const uint32_t *page, unsigned n);
int blob_md_flush(struct rt_task *t, struct blob_store *bs);
/** Before the first change: clean = 0, on the medium. Checks what no change may go on after. */
int blob_md_dirty(struct rt_task *t, struct blob_store *bs);
int blob_super_write(struct rt_task *t, struct blob_store *bs, const struct blob_super *s);
/** A chain and its extent pages; nothing is claimed. -EBADMSG, -ENOTSUP, -EIO, -ENOMEM. */
int blob_md_parse(struct rt_task *t, struct blob_store *bs, uint64_t id, struct blob **out_b);
void blob_free(struct blob *b);
/** What SNAP says, where it counts; BLOB_ID_NONE. */
uint64_t blob_parent_id(const struct blob *b);
static inline uint64_t blob_cluster_lba(const struct blob_store *bs, uint32_t cluster)
{
    return (uint64_t)cluster * bs->super.cluster_bytes >> bs->block_shift;
}
static inline uint64_t blob_cluster_blocks(const struct blob_store *bs)
{
    return bs->super.cluster_bytes >> bs->block_shift;
}
/** Masks to the disk, then the super block with clean = 1. */
int blob_masks_write(struct rt_task *t, struct blob_store *bs);

/* --- load.c ----------------------------------------------------------------------------------- */

/** Empty masks for bs->super. 0 or -ENOMEM. */
int blob_masks_init(struct blob_store *bs);
int blob_store_load(struct rt_task *t, struct blob_store *bs, struct err *why);
/** scan.c: the masks from the disk: 1; 0 they are not to be trusted; an errno. */
int blob_masks_read(struct rt_task *t, struct blob_store *bs);
/** Looks at every md page for roots: their bits in bs->ids. *out_torn: one that looks damaged. */
int blob_roots_find(struct rt_task *t, struct blob_store *bs, uint32_t *out_torn);

/* --- store.c ---------------------------------------------------------------------------------- */

/** Memory only. */
struct blob_store *blob_store_new(struct blk_dev *dev, bool read_only);
void blob_store_free(struct blob_store *bs);
/** Runs fn on the home reactor, alone and not to be cancelled. */
int blob_locked(struct rt_task *t, struct blob_store *bs, rt_task_fn fn, void *arg);
/** Tells info what is free now. */
void blob_store_count(struct blob_store *bs);

/* --- blob.c: under the lock ------------------------------------------------------------------- */

/** The blob of an id, open: found or read; `inside` is one more. */
int blob_get(struct rt_task *t, struct blob_store *bs, uint64_t id, struct blob **out_b);
void blob_put(struct rt_task *t, struct blob *b);
struct blob *blob_find(struct blob_store *bs, uint64_t id);
uint32_t blob_nclones(const struct blob_store *bs, uint64_t id, uint64_t *out_first);
int blob_link_set(struct blob_store *bs, uint64_t id, uint64_t parent);
void blob_link_del(struct blob_store *bs, uint64_t id);
/** Takes `n` clusters, as few runs as possible. -ENOSPC: none taken. The caller frees *out_run. */
int blob_take_clusters(struct blob_store *bs, uint64_t n, struct blob_run **out_run,
                       unsigned *out_nruns);
void blob_free_clusters(struct blob_store *bs, const struct blob_run *run, unsigned nruns);
/** Clears clusters by the blob's method: nothing depends on it. */
void blob_clear_clusters(struct rt_task *t, const struct blob *b, const struct blob_run *run,
                         unsigned nruns);
/** The clusters the blob has in leaves from `idx` on, as runs (run.idx is theirs in the blob). */
int blob_runs_from(const struct blob_map *m, uint64_t idx, uint64_t end, struct blob_run **out_run,
                   unsigned *out_nruns);
/** A blob that is not on the disk yet, with its root page and (thick) its clusters. */
int blob_new(struct blob_store *bs, const struct blob_create_opts *opts, struct blob **out_b);
/** Writes it; in any case frees `b`. Sets *out_id. */
int blob_make(struct rt_task *t, struct blob *b, uint32_t fresh_from, uint64_t *out_id);
int blob_delete_plain(struct rt_task *t, struct blob *b);

/** "Stands on": SNAP, or an external snapshot's id and flag, or nothing; in *head. -ENOMEM. */
int blob_head_stand(struct blob_head *head, uint64_t parent, const struct blob_head *esnap_of);
/** The blob stands on `parent` (whose `inside` the caller gives) from now on. Waits for those who
 * read through the one before; an errno: they may be reading still, and it stays open. */
int blob_stand(struct rt_task *t, struct blob *b, struct blob *parent, struct blk_dev *esnap);
/** merge.c: removes a snapshot that has one clone. */
int blob_delete_merge(struct rt_task *t, struct blob *s, uint64_t clone_id);
/** Zeroes over the root: the end of a blob. */
int blob_root_zero(struct rt_task *t, struct blob *b);

/* --- alloc.c ---------------------------------------------------------------------------------- */

#define BLOB_TOGETHER 32u /* clusters that are filled and named at a time */
/** Gives the blob the clusters of [first, first + n) that it has not (direct: only what its direct
 * parent has), with what shows there now. n at most BLOB_TOGETHER; under the lock. */
int blob_copy_up(struct rt_task *t, struct blob *b, uint64_t first, uint64_t n, bool direct);

/** Whether blob_copy_up() has something to do here. */
bool blob_wanted(const struct blob *b, uint64_t idx, bool direct);
bool blob_shows_below(const struct blob *parent, uint64_t idx);

/* --- flush.c ---------------------------------------------------------------------------------- */

void blob_flush_submit(struct blob_chan *chan, struct blob_req *req);
/** One has failed, here or elsewhere. */
void blob_flush_failed(struct blob_store *bs);

/* --- chan.c ----------------------------------------------------------------------------------- */

/** All I/O that was at the device when this was called has completed when it returns. */
int blob_quiesce(struct rt_task *t, struct blob_store *bs);
static inline uint8_t blob_io_begin(struct blob_chan *chan)
{
    chan->in_flight[chan->epoch]++;
    return chan->epoch;
}
static inline void blob_io_end(struct blob_chan *chan, uint8_t epoch)
{
    if (--chan->in_flight[epoch] == 0 && epoch != chan->epoch)
        rt_cond_wake_all(&chan->drained);
}

#endif
