/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blobstore: growable blobs on one block device, in SPDK's on-disk format (super block version
 * 3; docs/formats/blobstore.md), so that a store SPDK made opens here and the reverse. SPDK sends
 * no flush; we do: when a call that changes metadata returns 0, the change is on the medium, and
 * a crash inside it leaves the old state or the new one.
 *
 * A store is opened once per process and block device and shared. Its metadata lives on the
 * reactor that opened it; every call here may come from a task of any reactor and finds its way.
 * Reads and writes of clusters that are allocated go straight to the device from the reactor that
 * submits them.
 *
 * Lengths and offsets inside a blob are bytes, in multiples of the device's block
 * (blob_store_info.block_bytes), which is SPDK's io unit.
 */
#ifndef KVASIR_BLOB_BLOB_H
#define KVASIR_BLOB_BLOB_H

#include "blk/blk.h"

#define BLOB_ID_NONE UINT64_MAX
#define BLOB_XATTR_MAX 4063 /* name + value, so that the descriptor fits a page */

struct blob_store;
struct blob;
struct blob_chan;

enum blob_clear { BLOB_CLEAR_DEFAULT = 0, BLOB_CLEAR_NONE, BLOB_CLEAR_UNMAP, BLOB_CLEAR_ZEROES };

/** Zeroed means defaults. */
struct blob_format_opts {
    uint32_t cluster_bytes; /* multiple of 4096 and of the block; default 64 KiB below 1 GiB, then
                               growing with the device to 4 MiB (about 16,384 clusters) */
    uint32_t md_pages;      /* default: one per cluster */
    uint8_t bstype[16];     /* all zero: a plain blobstore; "LVOLSTORE" */
    enum blob_clear clear;  /* what happens to the data region: default unmap */
};

/** Writes an empty store over the device, whatever was there. -EINVAL, -ENOSPC (device too small)
 * with text; -EIO. `dev` is not claimed by anybody. */
int blob_format(struct rt_task *t, struct blk_dev *dev, const struct blob_format_opts *opts,
                struct err *why);

#define BLOB_OPEN_READ_ONLY 1u /* nothing is written, not even after an unclean stop */

/**
 * Opens the store on the block device of a URI, or takes another reference to it. Claims the device
 * exclusively (for reading only with READ_ONLY). After an unclean stop the metadata region is
 * replayed. `bstype`: 16 bytes to be met, or NULL for any.
 * With text: what blk_open says; -ENODATA no blobstore there (`blob_format` would make one);
 * -EBADMSG a checksum or structure; -ENOTSUP version or feature unknown; -EINVAL bstype differs;
 * -EBUSY.
 */
int blob_store_open(struct rt_task *t, const char *blk_uri, const uint8_t *bstype, unsigned flags,
                    struct blob_store **out_bs, struct err *why);
/** The same for a device that the caller has open; the store takes a reference of its own. */
int blob_store_open_dev(struct rt_task *t, struct blk_dev *dev, const uint8_t *bstype,
                        unsigned flags, struct blob_store **out_bs, struct err *why);
/** The last reference writes the masks and marks the store clean. Blobs are closed by then. */
void blob_store_close(struct rt_task *t, struct blob_store *bs);
struct blk_dev *blob_store_dev(const struct blob_store *bs);
/** Where its metadata lives. */
struct rt_reactor *blob_store_home(const struct blob_store *bs);

struct blob_store_info {
    uint32_t block_bytes;
    uint32_t cluster_bytes;
    uint64_t size_bytes;           /* of the device, as the store knows it */
    uint64_t max_size_bytes;       /* to which it can grow */
    uint64_t clusters, free_clusters;   /* data clusters */
    uint64_t md_pages, free_md_pages;
    uint64_t super_blob;           /* BLOB_ID_NONE: none */
    uint8_t bstype[16];
    uint64_t flushes_shared;       /* that had one together with another */
    bool was_clean;                /* at load */
    bool read_only;
    uint32_t unreadable;           /* blobs that were skipped at load; `kvasir blob check` names
                                      them */
};
void blob_store_info(const struct blob_store *bs, struct blob_store_info *out);
int blob_store_set_super(struct rt_task *t, struct blob_store *bs, uint64_t id);
/** Takes in a larger device. 0, also when there is nothing to do; -ENOSPC the masks have no room.
 * */
int blob_store_grow(struct rt_task *t, struct blob_store *bs);
/** Writes the masks and marks the store clean while it is open and idle, so that a crash from now
 * on
 * (until the next change of metadata) needs no replay. */
int blob_store_settle(struct rt_task *t, struct blob_store *bs);

/* --- blobs ------------------------------------------------------------------------------------ */

struct blob_xattr {
    const char *name;
    const void *value;
    uint16_t value_len;
};

struct blob_create_opts {
    uint64_t clusters;
    bool thin;                 /* clusters are allocated when first written */
    bool extent_rle;           /* the older encoding, without an extent table */
    enum blob_clear clear;
    const struct blob_xattr *xattrs;
    unsigned nxattrs;
};
/** -ENOSPC clusters or metadata pages; -EINVAL; -EROFS; -EIO. Clusters of a thick blob are
 * cleared. */
int blob_create(struct rt_task *t, struct blob_store *bs, const struct blob_create_opts *opts,
                uint64_t *out_id);
/** Counted. -ENOENT no blob has this id; -EBADMSG it cannot be read; -ENOTSUP unknown flags. */
int blob_open(struct rt_task *t, struct blob_store *bs, uint64_t id, struct blob **out_b);
void blob_close(struct rt_task *t, struct blob *b);
/** -EBUSY open, or a snapshot that more than one clone stands on. A snapshot with one clone is
 * merged into it. */
int blob_delete(struct rt_task *t, struct blob_store *bs, uint64_t id);
/** Ids in ascending order: the first one >= `from`; -ENOENT there is none. */
int blob_next(struct rt_task *t, struct blob_store *bs, uint64_t from, uint64_t *out_id);

struct blob_info {
    uint64_t id;
    uint64_t clusters, allocated_clusters; /* its own */
    uint64_t len_bytes;
    /* The read-only ones: of the blob, whatever the store is (blob_store_info). */
    bool thin, read_only, md_read_only, snapshot, clone, esnap_clone, extent_rle;
    enum blob_clear clear;
    uint64_t parent;  /* BLOB_ID_NONE */
    uint32_t nclones;
};
void blob_info(const struct blob *b, struct blob_info *out);
struct blob_store *blob_store_of(const struct blob *b);

int blob_resize(struct rt_task *t, struct blob *b, uint64_t clusters);
int blob_set_read_only(struct rt_task *t, struct blob *b);
/** Replaces or adds; durable on return. -ENOSPC no metadata page; -EINVAL too long. */
int blob_set_xattr(struct rt_task *t, struct blob *b, const char *name, const void *value,
                   uint16_t len);
int blob_remove_xattr(struct rt_task *t, struct blob *b, const char *name);
/** Points into the blob: good until the next change of its xattrs. -ENOENT. Never waits; home
 * reactor or a blob that nobody changes. */
int blob_get_xattr(const struct blob *b, const char *name, const void **out_value,
                   uint16_t *out_len);
/** The i-th xattr; -ENOENT past the last. */
int blob_xattr_at(const struct blob *b, unsigned i, struct blob_xattr *out);

/* src/blob/snapshot.c */
int blob_snapshot(struct rt_task *t, struct blob *b, const struct blob_xattr *xattrs,
                  unsigned nxattrs, uint64_t *out_id);
int blob_clone(struct rt_task *t, struct blob_store *bs, uint64_t snapshot,
               const struct blob_xattr *xattrs, unsigned nxattrs, uint64_t *out_id);
/** Every cluster becomes its own: allocates and copies all. `progress` may be NULL. */
typedef void (*blob_progress_fn)(void *arg, uint64_t clusters_done, uint64_t clusters);
int blob_inflate(struct rt_task *t, struct blob *b, blob_progress_fn progress, void *arg);
/** Only what its direct parent has; then it stands on the grandparent. */
int blob_decouple(struct rt_task *t, struct blob *b, blob_progress_fn progress, void *arg);
/** Copies the clusters that are the blob's own to the same place of another device. */
int blob_shallow_copy(struct rt_task *t, struct blob *b, struct blk_dev *to,
                      blob_progress_fn progress, void *arg);
/** External snapshots: what a clone reads through, by the id in its EXTSNAP xattr. A device whose
 * blocks are larger than the store's counts as not found. */
typedef int (*blob_esnap_fn)(struct rt_task *t, void *arg, const void *id, uint16_t id_len,
                             struct blk_dev **out_dev, struct err *why);
void blob_store_set_esnap(struct blob_store *bs, blob_esnap_fn fn, void *arg);
/** The id of the external snapshot at the end of what the blob stands on, and whether it is open;
 * -ENOENT there is none. Points into a blob, as blob_get_xattr(). Home reactor. */
int blob_esnap_id(const struct blob *b, const void **out_id, uint16_t *out_len, bool *out_open);
int blob_create_esnap_clone(struct rt_task *t, struct blob_store *bs, const void *id,
                            uint16_t id_len, uint64_t clusters, const struct blob_xattr *xattrs,
                            unsigned nxattrs, uint64_t *out_id);

/**
 * For owners of a thin blob that keep their own account of what they have written: allocates the
 * clusters of [first, first + n) that are not yet, contiguous on the device where that is
 * possible, in one change of metadata. What they contain until written is not defined.
 * -ENOSPC: nothing was allocated.
 */
int blob_allocate(struct rt_task *t, struct blob *b, uint64_t first, uint64_t n);
/** Gives the clusters of [first, first + n) back to the store (and unmaps them), in one change of
 * metadata. A thin blob without a parent. They read as zeroes then. */
int blob_release(struct rt_task *t, struct blob *b, uint64_t first, uint64_t n);

/* --- reading and writing ---------------------------------------------------------------------- */

enum blob_op { BLOB_READ, BLOB_WRITE, BLOB_WRITE_ZEROES, BLOB_UNMAP, BLOB_FLUSH };
#define BLOB_F_FUA 1u

struct blob_req {
    struct rt_req req; /* first */
    uint8_t op;        /* enum blob_op */
    uint8_t flags;     /* BLOB_F_* */
    unsigned iovcnt;
    const struct iovec *iov; /* len_bytes; kept until completion */
    uint64_t off_bytes, len_bytes; /* multiples of the block */
    struct blob *blob;

    /* The blobstore's own. */
    struct blob_chan *chan;
    struct list link;     /* in line for a worker */
    void *job;            /* the worker, when it takes more than one hop */
    uint8_t epoch;        /* which count of I/O in flight has this one */
    struct {              /* flush.c */
        struct blob_req *next;
        struct rt_reactor *reactor;
        struct rt_msg msg;
        int rc;
    } flush;
    struct blk_req blk;   /* when the clusters lie side by side: one hop, no memory */
};

/** The use of a store from one reactor, counted. */
int blob_chan_get(struct rt_task *t, struct blob_store *bs, struct blob_chan **out_chan);
void blob_chan_put(struct rt_task *t, struct blob_chan *chan);
/**
 * Submits one request on a channel of the current reactor. Never waits, never completes inside.
 * rc: 0; -ERANGE past the end of the blob; -EINVAL alignment; -EROFS; -ENOSPC (first write to a
 * cluster of a thin blob); -EIO; -ENODEV; -ECANCELED. Clusters without content read as zeroes, or
 * as the parent has them. A BLOB_FLUSH makes durable what had completed before, in all blobs;
 * those that are asked for while one is under way at the device share the next one.
 */
void blob_submit(struct blob_chan *chan, struct blob_req *req);

/**
 * How many flushes of the device have failed since it was opened. Whoever waited for one has been
 * told; what anybody else had written, and flushes later with success, may be lost as well. Any
 * reactor.
 */
uint64_t blob_flush_failures(const struct blob_store *bs);

/* For tasks. */
int blob_read(struct rt_task *t, struct blob_chan *chan, struct blob *b, void *buf, uint64_t off,
              uint64_t len);
int blob_write(struct rt_task *t, struct blob_chan *chan, struct blob *b, const void *buf,
               uint64_t off, uint64_t len, unsigned flags);
int blob_flush(struct rt_task *t, struct blob_chan *chan, struct blob *b);

/** For sim: as blk_abandon(), to be called before it. */
void blob_abandon(void);

#endif
