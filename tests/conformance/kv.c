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

#include <ftw.h>
#include <getopt.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int suite_task(struct rt_task *t, void *arg)
{
    return kvs_run(t, arg);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* Replaces each @DIR@; the result is the caller's to free. */
static char *with_dir(const char *uri, const char *dir)
{
    char *out = NULL;
    size_t len;
    FILE *f = open_memstream(&out, &len);

    must(f != NULL);
    for (const char *at; (at = strstr(uri, "@DIR@")) != NULL; uri = at + 5)
        fprintf(f, "%.*s%s", (int)(at - uri), uri, dir);
    fputs(uri, f);
    fclose(f);
    must(out != NULL);
    return out;
}

static uint64_t random_seed(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int usage(void)
{
    fprintf(stderr, "conformance-kv [--seed N] [--ops N] [--many N] [--len-max BYTES] "
                    "[--reactors N] [--backend io_uring|epoll]\n"
                    "               [--keeps] [--faulty] [--only TEST] URI\n");
    return 2;
}

static bool parse(int argc, char **argv, struct kvs *s, struct rt_config *cfg)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},     {"ops", required_argument, NULL, 'o'},
        {"many", required_argument, NULL, 'm'},     {"len-max", required_argument, NULL, 'l'},
        {"reactors", required_argument, NULL, 'r'}, {"backend", required_argument, NULL, 'b'},
        {"keeps", no_argument, NULL, 'k'},          {"faulty", no_argument, NULL, 'f'},
        {"only", required_argument, NULL, 'O'},     {NULL, 0, NULL, 0},
    };

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's')
            s->seed = strtoull(optarg, NULL, 0);
        else if (c == 'o')
            s->ops = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'm')
            s->many = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'l')
            s->len_max = strtoull(optarg, NULL, 0);
        else if (c == 'r')
            cfg->reactors = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'k')
            s->keeps = true;
        else if (c == 'f')
            s->faulty = true;
        else if (c == 'O')
            s->only = optarg;
        else if (c == 'b' && strcmp(optarg, "epoll") == 0)
            cfg->backend = RT_BACKEND_EPOLL;
        else if (c == 'b' && strcmp(optarg, "io_uring") == 0)
            cfg->backend = RT_BACKEND_URING;
        else
            return false;
    }
    return optind == argc - 1;
}

int main(int argc, char **argv)
{
    struct rt_config cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = 4 * MIB};
    struct kvs s = {.ops = 400, .many = 2000, .seed = random_seed()};
    char dir[] = "conformance-kv-XXXXXX";
    CLEANUP(free_p) char *uri = NULL;
    struct err why = {""};
    int rc;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!parse(argc, argv, &s, &cfg))
        return usage();
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    s.uri = uri = with_dir(argv[optind], dir);
    printf("%s: seed %llu, %u reactor(s)\n", uri, (unsigned long long)s.seed, cfg.reactors);
    rc = rt_run(&cfg, suite_task, &s, &why);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    if (rc < 0) {
        fprintf(stderr, "failed%s%s; again with --seed %llu\n", why.text[0] ? ": " : "", why.text,
                (unsigned long long)s.seed);
        return why.text[0] != '\0' && cfg.backend == RT_BACKEND_URING ? 77 : 1;
    }
    printf("all passed, %llu random or prepared requests\n", (unsigned long long)s.count);
    return 0;
}
