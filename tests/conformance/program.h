/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs of this directory have in common: options, a directory of the run, its end. */
#ifndef KVASIR_TESTS_PROGRAM_H
#define KVASIR_TESTS_PROGRAM_H

#include "rt/rt.h"

struct program {
    const char *takes; /* names of its options, each between blanks; with " URI " it needs one */
    struct rt_config cfg; /* --reactors N, --backend io_uring|epoll */

    /* Set by the options of the same names; what they are before is the default. */
    uint64_t seed; /* 0: of the clock */
    unsigned ops, many, seconds;
    uint64_t len_max;
    bool keeps, faulty;
    const char *only, *params, *kv_params;

    char *uri; /* each @DIR@ in it is a directory made for the run; freed at its end */
    char dir[32];
};

/** Reads the command line. False after saying what the program takes: it ends with 2. */
bool program_args(struct program *p, int argc, char **argv);

/**
 * Runs `fn` on reactor 0, having said with which seed; removes the directory. `count`: what was
 * done, to be told at the end; `more`: why it failed, if it knows more than its errno. Returns the
 * exit code: 0; 1; 77 when this machine has no such backend.
 */
int program_run(struct program *p, rt_task_fn fn, void *arg, const uint64_t *count,
                const struct err *more);

#endif
