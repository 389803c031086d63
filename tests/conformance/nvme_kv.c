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

#include <getopt.h>
#include <string.h>
#include <time.h>

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

static uint64_t random_seed(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},     {"ops", required_argument, NULL, 'o'},
        {"reactors", required_argument, NULL, 'r'}, {"backend", required_argument, NULL, 'b'},
        {"params", required_argument, NULL, 'p'},   {"many", required_argument, NULL, 'm'},
        {"only", required_argument, NULL, 'O'},     {NULL, 0, NULL, 0},
    };
    struct rt_config cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = 16 * MIB};
    static struct run r = {.suite.ops = 400, .suite.many = 2000, .suite.keeps = true, .params = ""};
    struct err why = {""};
    int rc;

    r.suite.seed = random_seed();
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's')
            r.suite.seed = strtoull(optarg, NULL, 0);
        else if (c == 'o')
            r.suite.ops = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'r')
            cfg.reactors = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'm')
            r.suite.many = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'O')
            r.suite.only = optarg;
        else if (c == 'p')
            r.params = optarg;
        else if (c == 'b')
            cfg.backend = strcmp(optarg, "epoll") == 0 ? RT_BACKEND_EPOLL : RT_BACKEND_URING;
        else
            return 2;
    }
    if (optind != argc - 1)
        return 2;
    r.target.kv_uri = argv[optind];
    printf("%s by NVMe/TCP, %s: seed %llu, %u reactor(s)\n", argv[optind], r.params,
           (unsigned long long)r.suite.seed, cfg.reactors);
    rc = rt_run(&cfg, run_task, &r, &why);
    if (rc < 0) {
        fprintf(stderr, "failed: %s%s; again with --seed %llu\n", why.text, r.why.text,
                (unsigned long long)r.suite.seed);
        return why.text[0] != '\0' && cfg.backend == RT_BACKEND_URING ? 77 : 1;
    }
    printf("all passed, %llu random or prepared requests\n", (unsigned long long)r.suite.count);
    return 0;
}
