/* SPDX-License-Identifier: Apache-2.0 */
/* The device of a URI, opened for a verb with the claim it needs; mistakes are told to the user. */
#ifndef KVASIR_CLI_DEV_H
#define KVASIR_CLI_DEV_H

#include "cli/cli.h"

#include "blk/blk.h"
#include "kv/kv.h"

enum dev_kind { DEV_NONE = 0, DEV_KV = 1, DEV_BLK = 2, DEV_ANY = 3 };

struct dev {
    enum dev_kind kind; /* DEV_NONE: not open */
    const char *uri;
    bool writes;
    struct kv_dev *kv;
    struct kv_chan *kv_chan; /* of the reactor that opened it */
    struct blk_dev *blk;
    struct blk_chan *blk_chan;
};

/** The kinds that drivers of this URI's scheme have: bits of dev_kind. 0: no driver knows it. */
unsigned dev_kinds(const char *uri);

/**
 * Opens a device of one of the kinds (a bit mask); where a URI can be of both, what is there
 * decides, and key-value is tried first. Tells the user about failures.
 */
int dev_open(struct rt_task *t, struct cli *c, const char *uri, unsigned kinds, bool writes,
             struct dev *out);
/** Accepts a device that is not open. Waits also when the task has been cancelled. */
void dev_close(struct rt_task *t, struct dev *d);

/**
 * Tells the user that `what` ("store", "retrieve") failed for a key, what that means and what can
 * be done; `text` adds detail and may be NULL or empty. Returns rc.
 */
int dev_kv_fail(struct cli *c, const struct dev *d, const char *what, struct bytes key, int rc,
                const char *text);
/** The same for the list of keys. */
int dev_list_fail(struct cli *c, const struct dev *d, int rc);
/** And for blocks. */
int dev_blk_fail(struct cli *c, const struct dev *d, const char *what, uint64_t off, uint64_t len,
                 int rc);

static inline uint64_t dev_blk_bytes(const struct dev *d)
{
    const struct blk_info *info = blk_info(d->blk);

    return info->nblocks * info->block_bytes;
}

#endif
