/* SPDX-License-Identifier: Apache-2.0 */
/* `kvasir blob`: what its parts share. blob.c has the verb, and what only reads raw bytes. */
#ifndef KVASIR_CLI_BLOB_H
#define KVASIR_CLI_BLOB_H

#include "cli/dev.h"

#include "blob/check.h"

/** A blob as the raw reader knows it; the texts are copies. */
struct cli_blob {
    struct blob_check_blob b;
    char name[65], uuid[38];
};

/** All blobs of a store, in the order of their ids. */
struct cli_blobs {
    struct cli_blob *blob;
    size_t n, cap;
    bool no_memory;
    struct blob_check_report rep;
};

#define BLOB_CLI_XATTRS 32u /* --xattr of one command */

/** The argument DEVICE as the URI of a block device: that, or the path of a file, with blocks as
 * --block-size says, else as `block_bytes` does (0: the driver's). Good until the next call. */
const char *blob_cli_uri(struct cli *c, bool writes, uint32_t block_bytes);
/** Opens DEVICE for reading its raw bytes. Tells the user about failures, as all of these. */
int blob_cli_open(struct rt_task *t, struct cli *c, struct dev *out);
int blob_cli_list(struct rt_task *t, struct cli *c, const struct dev *d, struct cli_blobs *out);
void blob_cli_blobs_fini_p(struct cli_blobs *list);
/** An id (0x100000001, or the number of its first page), the name or the uuid of a volume. */
int blob_cli_find(struct cli *c, const struct dev *d, const struct cli_blobs *list,
                  const char *which, const struct cli_blob **out);
/** "cannot read the blobstore on ...", with what can be done. Returns rc. */
int blob_cli_fail(struct cli *c, const char *uri, int rc);
/** "thin, snapshot, read-only" into out (BLOB_FLAGS_TEXT). */
#define BLOB_FLAGS_TEXT 128
const char *blob_cli_flags(const struct blob_check_blob *b, char *out);
json_t *blob_cli_id(uint64_t id);

/* The subcommands; DEVICE is argument 1. */
int blob_cli_ls(struct rt_task *t, struct cli *c);
int blob_cli_show(struct rt_task *t, struct cli *c);
int blob_cli_check(struct rt_task *t, struct cli *c);
int blob_cli_dump(struct rt_task *t, struct cli *c);
int blob_cli_init(struct rt_task *t, struct cli *c);
int blob_cli_create(struct rt_task *t, struct cli *c);
int blob_cli_rm(struct rt_task *t, struct cli *c);
int blob_cli_snapshot(struct rt_task *t, struct cli *c);
int blob_cli_clone(struct rt_task *t, struct cli *c);

#endif
