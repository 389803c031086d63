/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model of a blobstore: families of blobs, one per worker, that only their worker changes. A
 * change of metadata is there whole or not at all, in the order of the worker's changes; data is
 * there when a flush covered it, else sector by sector old or new.
 */
#ifndef KVASIR_CRASH_BLOBM_H
#define KVASIR_CRASH_BLOBM_H

#include "external.h"
#include "sectors.h"

#include <stddef.h>

#define BLOBM_FAMILIES 4u
#define BLOBM_SLOTS 6u /* blobs of a family */
#define BLOBM_CLUSTER_BYTES 16384u
#define BLOBM_CLUSTER_SECTORS (BLOBM_CLUSTER_BYTES / SECTOR_BYTES)
#define BLOBM_CLUSTERS_MAX 12u
#define BLOBM_SECTORS (BLOBM_CLUSTERS_MAX * BLOBM_CLUSTER_SECTORS)
#define BLOBM_XATTRS 3u
#define BLOBM_ANY UINT32_MAX /* content: never written, not defined */

struct blobm_slot {
    bool there, snapshot, thin;
    uint8_t parent;     /* slot + 1; 0: none */
    uint8_t external;   /* it stands on this one of external.h + 1; 0: on none */
    uint32_t clusters;
    uint32_t allocated; /* clusters that are its own for sure: a bit each */
    uint64_t id;
    struct blobm_xattr {
        uint32_t content; /* 0: not there */
        uint16_t len;
    } xattr[BLOBM_XATTRS];
    struct sector *sector; /* BLOBM_SECTORS */
};

struct blobm_family {
    struct blobm_slot slot[BLOBM_SLOTS];
};

enum blobm_kind {
    BLOBM_CREATE,
    BLOBM_DELETE,
    BLOBM_RESIZE,
    BLOBM_XATTR,
    BLOBM_SNAPSHOT, /* slot -> slot2 */
    BLOBM_CLONE,    /* slot -> slot2 */
    BLOBM_INFLATE,
    BLOBM_DECOUPLE,
    BLOBM_ALLOCATE,
    BLOBM_RELEASE,
    BLOBM_WRITE, /* from here on: data */
    BLOBM_ZERO,
    BLOBM_UNMAP,
    BLOBM_FLUSH,
};

struct blobm_op {
    uint8_t kind, family, slot, slot2;
    uint8_t external; /* CREATE: as in blobm_slot */
    bool thin;
    uint32_t first, n; /* clusters; sectors of data */
    uint32_t content;
    uint64_t id;       /* of the blob it made */
    uint32_t issued;   /* event */
};

enum blobm_end { BLOBM_DONE, BLOBM_NOT_DONE, BLOBM_UNKNOWN };

/** Forgets everything. */
void blobm_reset(void);
uint32_t blobm_issue(const struct blobm_op *op);
/** `id`: of the blob that was made. */
void blobm_end(uint32_t op, enum blobm_end how, uint64_t id);
uint32_t blobm_content(void); /* a new one */

/* What may be there: as after the first `tick` ticks. */
void blobm_begin(void);
void blobm_to(uint32_t tick);
const struct blobm_family *blobm_family(unsigned f);
/** The family as it is when the change that is under way is done; false: there is none. Good until
 * the next call. `out_unknown`: it, or one before, failed: nobody knows. */
bool blobm_next(unsigned f, struct blobm_family *out);

/** The same change on the worker's own copy. */
void blobm_apply(struct blobm_family *fam, const struct blobm_op *op);

/** The external one at the end of what the blob stands on; 0: none. */
unsigned blobm_external(const struct blobm_family *fam, const struct blobm_slot *s);

void blobm_show(void);
void blobm_xattr_fill(uint8_t *out, uint32_t content, size_t len);
/** Whether the sector may be this. */
bool blobm_sector_is(const struct blobm_slot *s, uint32_t sector, const uint8_t *bytes);

#endif
