/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local files, pipes and terminals of a verb. All of it may block, so it runs in the offload pool;
 * descriptors are the kernel's own, not those of rt/io.h. "-" is standard input or output.
 */
#ifndef KVASIR_CLI_FILE_H
#define KVASIR_CLI_FILE_H

#include "cli/cli.h"
#include "cli/xfer.h"

#include <fcntl.h>

struct cli_file {
    int fd;
    const char *name;  /* for error texts; the caller's */
    bool std;          /* "-": not closed */
    bool regular;      /* has a size, can be read and written anywhere */
    bool sparse;       /* runs of zeroes are not written; set by the user for regular new files */
    uint64_t size_bytes; /* regular: when it was opened */
    char *temp;        /* written under this name until commit; NULL: in place */
    int dirfd;         /* what `temp` and `final` are relative to; ours when not AT_FDCWD */
    const char *final; /* the name that commit gives */
};

#define CLI_FILE_CLOSED ((struct cli_file){.fd = -1, .dirfd = AT_FDCWD})

int cli_file_open(struct rt_task *t, const char *path, struct cli_file *out, struct err *why);
/**
 * A file to write. A regular file appears under its name at commit, whole, and until then keeps
 * what it had; pipes and devices, and with `in_place` all, are written as they are.
 */
int cli_file_create(struct rt_task *t, const char *path, bool in_place, struct cli_file *out,
                    struct err *why);
/**
 * The same for a path of a tree: directories on the way are made, symbolic links on the way are
 * refused (-ELOOP). `rel` has been checked by tree_path_wrong() and stays until close.
 */
int cli_file_create_below(struct rt_task *t, int rootfd, const char *rel, struct cli_file *out,
                          struct err *why);
/** Makes what was written the file of that name. Closes it. */
int cli_file_commit(struct rt_task *t, struct cli_file *f, struct err *why);
/** For CLEANUP: closes; takes an uncommitted temporary away. */
void cli_file_close_p(struct cli_file *f);

/** The next bytes: len unless the input ends before; 0 at its end. Negative errno. */
ssize_t cli_file_read(struct rt_task *t, struct cli_file *f, void *buf, size_t len);
/** All of them. 0 or a negative errno. */
int cli_file_write(struct rt_task *t, struct cli_file *f, const void *buf, size_t len);
/** An unnamed temporary file with what is left of `in`, rewound: gives a stream a length. */
int cli_file_spool(struct rt_task *t, struct cli_file *in, void *buf, size_t buf_bytes,
                   struct cli_file *out, struct err *why);

/** A file as the source or sink of a value, counted by a progress line (which may be NULL). */
struct cli_file_source {
    struct xfer_source source; /* first */
    struct cli_file *file;
    struct cli_progress *progress;
};
struct cli_file_sink {
    struct xfer_sink sink; /* first */
    struct cli_file *file;
    struct cli_progress *progress;
};
struct cli_file_source cli_file_source(struct cli_file *f, struct cli_progress *p);
struct cli_file_sink cli_file_sink(struct cli_file *f, struct cli_progress *p);

#endif
