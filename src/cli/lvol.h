/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `kvasir lvol` share. */
#ifndef KVASIR_CLI_LVOL_H
#define KVASIR_CLI_LVOL_H

#include "cli/cli.h"

#include "blob/lvol/lvol.h"

/** The store that a command works on. */
struct lvol_cli {
    struct cli *c;
    const char *device;  /* as it was given: a path or a URI */
    bool by_path;
    char uri[URI_MAX];   /* of the block device */
    char volume[4 * URI_MAX]; /* room for lvol_cli_uri() */
    struct lvs lvs;
};

/** lvol:DEVICE#STORE/NAME, as the other verbs take it, with where its external snapshot is or NULL.
 * Good until the next call. */
const char *lvol_cli_uri(struct lvol_cli *l, const char *name, const char *external);

/** The volume of a name; tells the user when it is not there. */
int lvol_cli_find(struct rt_task *t, struct lvol_cli *l, const char *name, uint64_t *out_id);
/** The same for one that is to be changed: that of a key-value store with --force only. */
int lvol_cli_find_own(struct rt_task *t, struct lvol_cli *l, const char *name, uint64_t *out_id);
/** What a volume is; tells the user about failures. */
int lvol_cli_info(struct rt_task *t, struct lvol_cli *l, uint64_t id, struct lvol_info *out);
/** Tells that a command failed. Returns rc. */
int lvol_cli_fail(struct lvol_cli *l, int rc, const struct err *why);

/* lvol_ls.c */
int lvol_cli_ls(struct rt_task *t, struct lvol_cli *l);
/** One volume: with --json as an object, else its URI. */
int lvol_cli_show(struct rt_task *t, struct lvol_cli *l, uint64_t id);

/* lvol_family.c */
int lvol_cli_snapshot(struct rt_task *t, struct lvol_cli *l);
int lvol_cli_clone(struct rt_task *t, struct lvol_cli *l);
int lvol_cli_inflate(struct rt_task *t, struct lvol_cli *l);
int lvol_cli_decouple(struct rt_task *t, struct lvol_cli *l);
int lvol_cli_shallow_copy(struct rt_task *t, struct lvol_cli *l);

#endif
