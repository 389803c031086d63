/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance-nvme-kv [--seed N] [--ops N] [--many N] [--reactors N] [--backend io_uring|epoll]
 *                     [--params TEXT] [--only TEST] URI
 *
 * Serves the KV device of the URI by our NVMe/TCP target in this process, and runs the suite of
 * KV devices against it through our initiator. --params goes to the end of the nvme+tcp URI.
 */
#include "kv_suite.h"
#include "nvme_target.h"
#include "program.h"

struct run {
    struct kvs suite;
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
    rc = kvs_run(t, &r->suite);
    target_close(t, &r->target);
    return rc;
}

int main(int argc, char **argv)
{
    struct program p = {
        .takes = " seed ops many reactors backend params only URI ",
        .cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = 16 * MIB},
        .ops = 400,
        .many = 2000,
        .params = "",
    };
    static struct run r = {.suite.keeps = true};

    if (!program_args(&p, argc, argv))
        return 2;
    r.params = p.params;
    r.target.kv_uri = p.uri;
    r.suite.seed = p.seed;
    r.suite.ops = p.ops;
    r.suite.many = p.many;
    r.suite.only = p.only;
    return program_run(&p, run_task, &r, &r.suite.count, &r.why);
}
