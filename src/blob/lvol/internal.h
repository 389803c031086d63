/* SPDX-License-Identifier: Apache-2.0 */
/* What lvs.c, lvol.c and driver.c share. */
#ifndef KVASIR_BLOB_LVOL_INTERNAL_H
#define KVASIR_BLOB_LVOL_INTERNAL_H

#include "blob/lvol/lvol.h"

#include <pthread.h>

#define LVOL_NAME_XATTR "name"
#define LVOL_UUID_XATTR "uuid"

/* One per open store. */
struct lvs_shared {
    struct list link; /* under the registry's lock (lvs.c), as is refs */
    unsigned refs;
    struct blob_store *bs;
    struct rt_reactor *home; /* of the blobstore: xattrs are read there */

    /* On the home reactor: one call at a time looks for a name and then takes it. */
    bool naming;
    struct rt_cond named;
    struct list externals; /* external.c */

    pthread_mutex_t lock;
    struct list watches; /* lvol_watch */
};

/* Somebody who has a volume open as a device. Called under `lock`, on any reactor. */
struct lvol_watch {
    struct list link;
    uint64_t id;
    void (*resized)(struct lvol_watch *w, uint64_t len_bytes);
    void (*renamed)(struct lvol_watch *w, const char *name);
};
/* Returns the length of the volume, of which `b` is the blob: later changes come to the watch. */
uint64_t lvol_watch_add(const struct lvs *lvs, struct lvol_watch *w, const struct blob *b);
void lvol_watch_del(const struct lvs *lvs, struct lvol_watch *w);

/* 0, or -EINVAL with text: 1 to 63 characters, none of them control characters. `what` is "store"
 * or "volume". */
int lvol_name_check(const char *what, const char *name, struct err *why);
/* Random, version 4, as text. */
void lvol_uuid_make(char out[LVOL_UUID_TEXT]);
/* 0 or -EINVAL. */
int lvol_uuid_parse(const char *text, uint8_t out[16]);

/* On the home reactor. A text in an xattr, which may be padded with zeroes: -ENOENT; -EBADMSG it is
 * empty, or does not fit `max` with its NUL. */
int lvol_text_get(const struct blob *b, const char *name, char *out, size_t max);

/* --- lvol.c, for family.c --- */

struct lvol_naming;

/* One call on its way to the home reactor. */
struct lvol_call {
    int (*fn)(struct rt_task *t, struct lvol_call *c);
    const struct lvs *lvs;
    uint64_t id;
    const char *name;
    uint64_t len_bytes;
    const struct lvol_create_opts *create;
    struct blk_dev *to; /* or an external snapshot */
    struct lvol_external *external;
    const char *external_uri;
    const struct lvol_progress *progress;
    struct lvol_info *info;
    struct lvol_naming *naming;
    uint64_t out_id;
    struct err *why;
};
int lvol_call(struct rt_task *t, struct lvol_call *c);
/* In turn: for calls that give a name. */
int lvol_call_naming(struct rt_task *t, struct lvol_call *c);
/* Sets the text for an errno of the blobstore: "cannot WHAT NAME: ..."; returns rc. */
int lvol_explain(const struct lvol_call *c, const char *what, const char *name, int rc);

#define LVOL_EXTRA_XATTRS_MAX 16

/* Names for a new blob; on the home reactor, in turn. */
struct lvol_naming {
    char name[LVOL_NAME_MAX + 1]; /* padded with zeroes, as SPDK writes it */
    char uuid[LVOL_UUID_TEXT];
    struct blob_xattr xattrs[2 + LVOL_EXTRA_XATTRS_MAX];
    unsigned nxattrs;
};
/* Checks the name, and that it is free. */
int lvol_naming_begin(struct rt_task *t, struct lvol_call *c, const char *name,
                      struct lvol_naming *n);

/* Clusters that so many bytes take. */
uint64_t lvol_clusters_of(const struct lvs *lvs, uint64_t len_bytes);

/* On the home reactor. Names and more of an open blob. */
int lvol_info_of(const struct lvs *lvs, const struct blob *b, struct lvol_info *out);
int lvol_info_read(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct lvol_info *out);
/* Opens the blob of a call for what needs it open, and closes it again. */
int lvol_with_blob(struct rt_task *t, struct lvol_call *c, const char *what,
                   int (*fn)(struct rt_task *t, struct lvol_call *c, struct blob *b));

/* --- external.c --- */

/* On the home reactor: what the blob stands on outside of the store. */
void lvol_external_read(const struct blob *b, struct lvol_info *out);
/* After a simulated crash: memory only. */
void lvol_external_abandon(struct lvol_external *e);

/* driver.c: the store of a device that is a volume; NULL: it is none. */
struct blob_store *lvol_dev_store(const struct blk_dev *dev);

#endif
