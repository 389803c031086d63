/* SPDX-License-Identifier: Apache-2.0 */
/* The workload on a blobstore, and the look at it afterwards. */
#ifndef KVASIR_CRASH_BLOBS_H
#define KVASIR_CRASH_BLOBS_H

#include "blobm.h"
#include "walk.h"

#include "blob/blob.h"

#define BLOBS_URI "file:" DISK_PATH "?block_size=512"
#define BLOBS_DISK_BYTES (8 * MIB)

struct blobs_work {
    uint64_t seed;
    unsigned ops;  /* of each worker */
    unsigned external_ops; /* of the one that has to do with external clones */
    bool faulty;   /* operations may fail; what they answer then is noted, not judged */
    uint64_t done, refused, errors; /* out */
    char why[WHY_MAX];
};
/** Tells the disk where a formatted blobstore's metadata is: pages there are written whole. */
void blobs_find_metadata(void);

/** What external clones stand on, kept open: that is quick, and nothing waits for it. */
struct blobs_held {
    struct blk_dev *dev[EXTERNALS];
    struct blk_chan *chan[EXTERNALS];
};
/** For blob_store_set_esnap(): with a struct blobs_held, or NULL, then it is the blob's alone. */
int blobs_external(struct rt_task *t, void *held, const void *id, uint16_t id_len,
                   struct blk_dev **out_dev, struct err *why);
void blobs_let_go(struct rt_task *t, struct blobs_held *held);

/** The checker on the disk, which nobody has open: errors are bad, or counted when tolerant. */
int blobs_check(struct rt_task *t, struct look *l);

/** Runs the workers on a store that has just been made (or nothing of theirs is in it). */
int blobs_work(struct rt_task *t, struct blob_store *bs, struct blobs_work *w);

/** Reads the whole store and compares it with the model. 0 or -EILSEQ. */
int blobs_look(struct rt_task *t, struct blob_store *bs, struct look *l);
/** Makes, changes and checks more blobs, and removes them. */
int blobs_go_on(struct rt_task *t, struct blob_store *bs, struct look *l);

#endif
