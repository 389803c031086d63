/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lvolstore: a blobstore of type LVOLSTORE whose super blob has a name and a uuid, and whose
 * blobs (logical volumes) have them, too; as SPDK's lib/lvol writes it (docs/formats/blobstore.md).
 * The block driver `lvol:` and the KV driver `blob:` find their blobs here by name.
 */
#ifndef KVASIR_BLOB_LVOL_LVOL_H
#define KVASIR_BLOB_LVOL_LVOL_H

#include "blob/blob.h"

#define LVOL_NAME_MAX 63
#define LVOL_UUID_TEXT 37 /* 36 characters, lower case, and NUL */

struct lvs_shared;

/** A shared reference to an open lvolstore. */
struct lvs {
    struct blob_store *bs;
    struct lvs_shared *shared; /* what all references to the store have in common (internal.h) */
    char name[LVOL_NAME_MAX + 1];
    char uuid[LVOL_UUID_TEXT];
    bool formatted; /* this call made the store */
};

struct lvs_format_opts {
    const char *name;       /* NULL: "lvs" */
    struct blob_format_opts blob;
};
/** Makes an empty lvolstore of the device, whatever was there; as blob_format(). */
int lvs_format(struct rt_task *t, struct blk_dev *dev, const struct lvs_format_opts *opts,
               struct err *why);

/** 1 when the device may become a store without loss: its first and last 128 KiB are zero. 0, or a
 * negative errno. */
int lvs_probe_empty(struct rt_task *t, struct blk_dev *dev);

#define LVS_OPEN_READ_ONLY 1u
#define LVS_OPEN_FORMAT 2u /* a device that is empty (lvs_probe_empty) becomes an empty lvolstore */

/**
 * Opens the lvolstore on a block device. With text: as blob_store_open(), and -EBADMSG when the
 * super blob, a name or a uuid is not as it has to be. With LVS_OPEN_FORMAT, `fopts` (or NULL) says
 * how an empty device is formatted; a device with other content is refused.
 */
int lvs_open(struct rt_task *t, const char *blk_uri, unsigned flags,
             const struct lvs_format_opts *fopts, struct lvs *out, struct err *why);
void lvs_close(struct rt_task *t, struct lvs *lvs);
/** For sim, after a crash: forgets the reference without I/O (the store itself: blob_abandon()). */
void lvs_abandon(struct lvs *lvs);

/** How a file or block device of the kernel is opened as the device of a store. */
struct lvol_file_opts {
    const char *path;
    uint64_t block_bytes; /* 0: the file's own; see lvol_file_block_bytes() */
    uint64_t size_bytes;  /* not 0: the file is made when it is not there */
    const char *direct;   /* NULL: auto */
    bool readonly;
};
/** The URI "file:..." of it, so that the same device has the same URI everywhere. -ENAMETOOLONG. */
int lvol_file_uri(const struct lvol_file_opts *o, char *out, size_t max);
/** The block size that the store in a file or on a disk was made with; 0: there is none. What has
 * 4096 shall not be used with 512: partition tables and file systems on volumes depend on it. */
uint64_t lvol_file_block_bytes(struct rt_task *t, const char *path);

/** The blob of a name or of a uuid. -ENOENT. */
int lvol_find(struct rt_task *t, const struct lvs *lvs, const char *name_or_uuid, uint64_t *out_id);
/**
 * The same for what people write behind a '#': "name", "uuid" or "store/name". -ENOENT with text:
 * what there is; -EINVAL nothing was given.
 */
int lvol_lookup(struct rt_task *t, const struct lvs *lvs, const char *what, uint64_t *out_id,
                struct err *why);
/** Ids of volumes in ascending order: the first one >= `from`; -ENOENT there is none. */
int lvol_next(struct rt_task *t, const struct lvs *lvs, uint64_t from, uint64_t *out_id);

/* The xattr by which a key-value store marks its volume; the value is the store's name. Nobody else
 * shall write there. */
#define LVOL_KV_XATTR "kvasir.store"

/* The xattr of a clone of an external snapshot that says, with its NUL, how that was named when the
 * clone was made; for people to read, nothing is opened by it. */
#define LVOL_EXTERNAL_XATTR "kvasir.external"
#define LVOL_EXTERNAL_URI_MAX 400

#define LVOL_UUID_MAX 64 /* a volume without a uuid is called STORE-UUID_ID, as SPDK does it */
struct lvol_info {
    char name[LVOL_NAME_MAX + 1];
    char uuid[LVOL_UUID_MAX];
    uint8_t uuid_bytes[16]; /* zero when it has none */
    char kv[LVOL_NAME_MAX + 1]; /* the key-value store that lives in it; empty: none does */
    /* The id of the external snapshot at the end of what it stands on, as text; empty: there is
     * none. How it was named, if that is known; whether it is open. */
    char external[LVOL_UUID_MAX];
    char external_uri[LVOL_EXTERNAL_URI_MAX];
    bool external_open;
    struct blob_info blob;
};
int lvol_info(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct lvol_info *out);

struct lvol_create_opts {
    const char *name;    /* 1..63 characters, unique in the store */
    uint64_t len_bytes;  /* rounded up to clusters */
    bool thin;
    enum blob_clear clear;
    const struct blob_xattr *xattrs; /* more of them */
    unsigned nxattrs;
};
/** -EEXIST the name is taken; otherwise as blob_create(). With text. */
int lvol_create(struct rt_task *t, const struct lvs *lvs, const struct lvol_create_opts *opts,
                uint64_t *out_id, struct err *why);
int lvol_rename(struct rt_task *t, const struct lvs *lvs, uint64_t id, const char *name,
                struct err *why);
int lvol_snapshot(struct rt_task *t, const struct lvs *lvs, uint64_t id, const char *name,
                  uint64_t *out_id, struct err *why);
int lvol_clone(struct rt_task *t, const struct lvs *lvs, uint64_t snapshot, const char *name,
               uint64_t *out_id, struct err *why);
/** -EBUSY it is in use, or a snapshot with several clones. */
int lvol_delete(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct err *why);
/** Rounded up to clusters. Who has the volume open as a device is told. */
int lvol_resize(struct rt_task *t, const struct lvs *lvs, uint64_t id, uint64_t len_bytes,
                struct err *why);
int lvol_set_read_only(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct err *why);

/**
 * External snapshots: a clone of any block device, which shows that device where it has nothing of
 * its own. The store has the device's UUID; where it is, the caller says: a URI, or the path of a
 * file. It is claimed for reading, and nobody should write it as long as there are clones.
 */
struct lvol_external;
/** Makes a clone of the device, as long as that (`len_bytes` 0) or as asked. With text: as
 * blk_open() and lvol_create(); -EINVAL a volume of the same store, or larger blocks than the
 * store's. */
int lvol_clone_external(struct rt_task *t, const struct lvs *lvs, const char *uri, const char *name,
                        uint64_t len_bytes, uint64_t *out_id, struct err *why);
/**
 * Opens the device for what opens or copies the volume from now on, until it is closed; `uri` NULL:
 * if somebody has it open. *out NULL: the volume stands on none. With text: as blk_open(); -ENODEV
 * nobody has, and where it is has to be said; -EINVAL it is another device than the one the store
 * means, or the volume stands on none; -EBUSY open as another device.
 */
int lvol_external_open(struct rt_task *t, const struct lvs *lvs, uint64_t id, const char *uri,
                       struct lvol_external **out, struct err *why);
/** Accepts NULL. After what was opened with it has been closed. */
void lvol_external_close(struct rt_task *t, struct lvol_external *e);

/* As the functions of the same names in blob.h; `progress` may be NULL. */
struct lvol_progress {
    blob_progress_fn fn;
    void *arg;
};
int lvol_inflate(struct rt_task *t, const struct lvs *lvs, uint64_t id,
                 const struct lvol_progress *progress, struct err *why);
int lvol_decouple(struct rt_task *t, const struct lvs *lvs, uint64_t id,
                  const struct lvol_progress *progress, struct err *why);
int lvol_shallow_copy(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct blk_dev *to,
                      const struct lvol_progress *progress, struct err *why);

#endif
