/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance-kv [--seed N] [--ops N] [--many N] [--len-max BYTES] [--reactors N]
 *                [--backend io_uring|epoll] [--keeps] [--faulty] [--only TEST] URI
 *
 * Runs the suite of KV devices against one URI. @DIR@ in it is replaced by a directory made for
 * this run and removed afterwards; --keeps says that content survives close and open, --faulty that
 * -EIO may come at any time.
 */
#include "kv_suite.h"
#include "program.h"

static int suite_task(struct rt_task *t, void *arg)
{
    return kvs_run(t, arg);
}

int main(int argc, char **argv)
{
    struct program p = {
        .takes = " seed ops many len-max reactors backend keeps faulty only URI ",
        .cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = 4 * MIB},
        .ops = 400,
        .many = 2000,
    };
    struct kvs s = {0};

    if (!program_args(&p, argc, argv))
        return 2;
    s = (struct kvs){.uri = p.uri,
                     .seed = p.seed,
                     .ops = p.ops,
                     .many = p.many,
                     .len_max = p.len_max,
                     .keeps = p.keeps,
                     .faulty = p.faulty,
                     .only = p.only};
    return program_run(&p, suite_task, &s, &s.count, NULL);
}
