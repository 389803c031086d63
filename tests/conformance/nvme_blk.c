/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance-nvme-blk [--seed N] [--ops N] [--reactors N] [--backend io_uring|epoll]
 *                      [--params TEXT] URI
 *
 * Serves the block device of the URI by our NVMe/TCP target in this process, and runs the suite of
 * block devices against it through our initiator. --params goes to the end of the nvme+tcp URI.
 */
#include "blk_suite.h"
#include "nvme_target.h"
#include "program.h"

struct run {
    struct suite suite;
    struct target target;
    const char *params;
    struct err why;
};

static int run_task(struct rt_task *t, void *arg)
{
    struct run *r = arg;
    char uri[512];
    int rc = target_open(t, &r->target, &r->why);

    if (rc < 0)
        return rc;
    target_uri(&r->target, r->params, uri, sizeof(uri));
    r->suite.uri = uri;
    rc = blk_suite_run(t, &r->suite);
    target_close(t, &r->target);
    return rc;
}

int main(int argc, char **argv)
{
    struct program p = {
        .takes = " seed ops reactors backend params URI ",
        .cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = 16 * MIB},
        .ops = 400,
        .params = "",
    };
    static struct run r = {.suite.keeps = true};

    if (!program_args(&p, argc, argv))
        return 2;
    r.params = p.params;
    r.target.blk_uri = p.uri;
    r.suite.seed = p.seed;
    r.suite.ops = p.ops;
    return program_run(&p, run_task, &r, &r.suite.count, &r.why);
}
