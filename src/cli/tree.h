/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory trees in and out of a KV device. The key of a file is PREFIX/path, with the slash only
 * when there is a prefix that does not end in one; every byte of the path as it is. On the way out
 * a key that could name anything outside the directory is refused, and symbolic links inside it
 * are never followed.
 */
#ifndef KVASIR_CLI_TREE_H
#define KVASIR_CLI_TREE_H

#include "cli/dev.h"

struct tree_put {
    struct cli *c;
    struct dev dev;
    const char *dir;
    struct bytes prefix;
    uint32_t flags;
    unsigned jobs;
    bool keep_going;
};
int tree_put(struct rt_task *t, struct tree_put *job);

struct tree_get {
    struct cli *c;
    struct dev dev;
    const char *dir;
    struct bytes prefix;
    unsigned jobs;
    bool keep_going;
};
int tree_get(struct rt_task *t, struct tree_get *job);

/**
 * Whether a key (without its prefix) is a path that stays below a directory: no empty, "." or
 * ".." part, no NUL, no part over 255 bytes. NULL when it is, else why not.
 */
const char *tree_path_wrong(struct bytes rel);

#endif
