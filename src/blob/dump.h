/* SPDX-License-Identifier: Apache-2.0 */
/* Prints what is on a blobstore, from its raw bytes and also when it is broken. */
#ifndef KVASIR_BLOB_DUMP_H
#define KVASIR_BLOB_DUMP_H

#include "blob/raw.h"

/** One line: `field` of a structure has `value`, at byte `offset` of the device. */
struct blob_dump_line {
    uint64_t offset;
    const char *structure;
    const char *field, *value; /* good until `line` returns */
};
struct blob_dump_opts {
    /* May wait. A negative result ends the dump. */
    int (*line)(struct rt_task *t, void *arg, const struct blob_dump_line *l);
    void *arg;
    uint64_t blob; /* only its pages; 0: everything */
    bool all;      /* pages of zeroes, too, and each entry of extents on a line of its own */
};
/**
 * Super block, masks as runs, metadata pages with their descriptors, extent pages, in the order of
 * the device. 0; what `line` returned; -ENOENT no such blob; -ENODATA no signature; -EBADMSG the
 * super block says nothing that could be followed (it has been printed); -EIO; -ENOMEM.
 */
int blob_dump(struct rt_task *t, struct blk_chan *chan, const struct blob_dump_opts *opts);

#endif
