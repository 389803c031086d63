/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifies a blobstore without opening it. Reads raw bytes by raw.h, shares nothing with the code
 * that loads stores, repairs nothing and writes nothing. `kvasir blob check`, and the judge of the
 * crash tests.
 */
#ifndef KVASIR_BLOB_CHECK_H
#define KVASIR_BLOB_CHECK_H

#include "blob/raw.h"

enum blob_check_severity {
    BLOB_CHECK_NOTE,    /* worth knowing: what an interrupted operation left, undone at load */
    BLOB_CHECK_WARNING, /* a loss of space, or a rule that is broken without harm to content */
    BLOB_CHECK_ERROR,   /* something cannot be read, or is not what it has to be */
};
const char *blob_check_severity_name(enum blob_check_severity s);

struct blob_check_finding {
    enum blob_check_severity severity;
    const char *structure; /* "super block", "cluster mask", "metadata page", ... */
    uint64_t offset;       /* of it on the device, bytes */
    uint64_t blob;         /* UINT64_MAX: of none */
    const char *text;      /* good until `found` returns */
};

/** What was learned of one blob that could be read. */
struct blob_check_blob {
    uint64_t id, parent; /* UINT64_MAX: none */
    uint64_t clusters, allocated;
    uint64_t invalid, data_ro, md_ro; /* its flags */
    uint32_t md_pages, extent_pages;
    uint32_t nclones;
    bool table;
    bool broken;      /* an error was found in it */
    bool making;      /* marked SNAPTMP */
    bool removing;    /* marked SNAPRM */
    const char *name; /* xattr "name" as far as it is text, else "" */
    const char *uuid;
};

/** Zeroed means defaults. */
struct blob_check_opts {
    /* Neither may wait. */
    void (*found)(void *arg, const struct blob_check_finding *f);
    void (*blob)(void *arg, const struct blob_check_blob *b); /* ascending ids, at the end */
    void *arg;
    /* Memory: about 5 bytes a metadata page, 4 a cluster, 256 a blob. Default 1 GiB. */
    uint64_t mem_max_bytes;
    bool ignore_masks; /* as if the store were not clean: what replay would find */
};

struct blob_check_report {
    uint64_t errors, warnings, notes;
    bool clean;              /* the super block says so, so the masks were compared */
    uint64_t clusters;       /* of the device, the reserved ones included */
    uint64_t reserved_clusters;
    uint64_t used_clusters;  /* named by blobs, each counted once */
    uint64_t free_clusters;  /* as a load would count them: by the mask when clean, else the rest */
    uint64_t md_pages, used_md_pages;
    uint64_t blobs;          /* that have a root */
    struct blob_raw_super super;
};

/**
 * Checks the store on a channel of the current reactor, which the caller has claimed for reading.
 * Nobody may write meanwhile. 0 when it was checked, whatever was found (see *out); -ENODATA no
 * blobstore; -ENOTSUP its version; -EBADMSG the super block describes nothing that could be walked
 * (all three are findings, too); -EIO and so on: the device; -ENOMEM.
 */
int blob_check(struct rt_task *t, struct blk_chan *chan, const struct blob_check_opts *opts,
               struct blob_check_report *out);

#endif
