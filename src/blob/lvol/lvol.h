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

/** A shared reference to an open lvolstore. */
struct lvs {
    struct blob_store *bs;
    char name[LVOL_NAME_MAX + 1];
    char uuid[LVOL_UUID_TEXT];
};

struct lvs_format_opts {
    const char *name;       /* NULL: "lvs" */
    struct blob_format_opts blob;
};
int lvs_format(struct rt_task *t, struct blk_dev *dev, const struct lvs_format_opts *opts,
               struct err *why);

#define LVS_OPEN_READ_ONLY 1u
#define LVS_OPEN_FORMAT 2u /* a device that is all zeroes at its start becomes an empty lvolstore */

/**
 * Opens the lvolstore on a block device. With text: as blob_store_open(), and -EBADMSG when the
 * super blob, a name or a uuid is not as it has to be. With LVS_OPEN_FORMAT, `fopts` (or NULL) says
 * how an empty device is formatted; a device with other content is refused.
 */
int lvs_open(struct rt_task *t, const char *blk_uri, unsigned flags,
             const struct lvs_format_opts *fopts, struct lvs *out, struct err *why);
void lvs_close(struct rt_task *t, struct lvs *lvs);

/** The blob of a name or of a uuid. -ENOENT. */
int lvol_find(struct rt_task *t, const struct lvs *lvs, const char *name_or_uuid, uint64_t *out_id);

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
int lvol_delete(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct err *why);

#endif
