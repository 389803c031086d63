/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance-blk [--seed N] [--ops N] [--reactors N] [--backend io_uring|epoll] [--keeps] URI
 *
 * Runs the suite of block devices against one URI. @DIR@ in it is replaced by a directory made for
 * this run and removed afterwards; --keeps says that content survives close and open.
 */
#include "blk_suite.h"
#include "program.h"

static int suite_task(struct rt_task *t, void *arg)
{
    return blk_suite_run(t, arg);
}

int main(int argc, char **argv)
{
    struct program p = {.takes = " seed ops reactors backend keeps URI ",
                        .cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = 4 * MIB},
                        .ops = 400};
    struct suite s = {0};

    if (!program_args(&p, argc, argv))
        return 2;
    s.uri = p.uri;
    s.seed = p.seed;
    s.ops = p.ops;
    s.keeps = p.keeps;
    return program_run(&p, suite_task, &s, &s.count, NULL);
}
