/* SPDX-License-Identifier: Apache-2.0 */
/* crash SUBJECT [options]: see README.md. */
#include "faults.h"
#include "history.h"
#include "kv.h"
#include "kvm.h"
#include "walk.h"

#include "base/log.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct subject *const subjects[] = {&subject_blk, &subject_blob, &subject_kv};

static int usage(void)
{
    fprintf(stderr,
            "usage: crash SUBJECT [--seed N] [--seeds N] [--images N] [--jobs N] [--cut N[..N]]\n"
            "             [--image N] [--until-failure] [--save FILE] [--disk MIB]\n"
            "             [--shards N] [--churn] [--opts PARAMS] [-v]\n"
            "       crash history URI [--seed N] [--ops N] [--round N] [--reactors N] [--keeps]\n"
            "             [--hold BLOCK-URI] [--churn]\n"
            "       crash faults SUBJECT [--seed N] [--jobs N] [--memory | --disk] [--stride N]\n"
            "             [--kind N --nth N] [--shards N] [--churn]\n"
            "       crash rot SUBJECT [--seed N] [--jobs N] [--flips N] [--at N] [--shards N]\n"
            "subjects:");
    for (unsigned i = 0; i < ARRAY_LEN(subjects); i++)
        fprintf(stderr, " %s", subjects[i]->name);
    fprintf(stderr, "\n");
    return 2;
}

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int run_walk(const struct subject *s, struct walk_opts *o, uint64_t seeds)
{
    unsigned bad = 0;

    for (uint64_t i = 0; i < seeds; i++, o->seed++) {
        struct walk_result r;
        double begin = seconds();

        if (walk(s, o, &r) < 0)
            bad++;
        printf("crash: %s: seed %llu: %llu writes (%.1f MiB), %llu flushes; %llu cuts, %llu images "
               "(%llu cut "
               "twice), %llu failures; %.1f s\n",
               s->name, (unsigned long long)o->seed, (unsigned long long)r.writes,
               (double)r.bytes / (double)MIB, (unsigned long long)r.flushes,
               (unsigned long long)r.cuts, (unsigned long long)r.images,
               (unsigned long long)r.nested, (unsigned long long)r.failures, seconds() - begin);
        if (r.failures > 0)
            printf("crash: %s: found after %llu images\n", s->name,
                   (unsigned long long)r.first_found);
    }
    printf("%llu passed, %u failed\n", (unsigned long long)(seeds - bad), bad);
    return bad > 0;
}

static int main_history(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", 1, NULL, 's'},     {"ops", 1, NULL, 'o'},   {"round", 1, NULL, 'r'},
        {"reactors", 1, NULL, 'R'}, {"keeps", 0, NULL, 'k'}, {"hold", 1, NULL, 'H'},
        {"churn", 0, NULL, 'C'},    {NULL, 0, NULL, 0},
    };
    struct history_opts o = {.uri = argv[2], .seed = 1, .ops = 100000, .round = 500, .reactors = 1};
    int c, rc;

    for (optind = 3; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        uint64_t n = optarg != NULL ? strtoull(optarg, NULL, 10) : 0;

        switch (c) {
        case 's':
            o.seed = n;
            break;
        case 'o':
            o.ops = n;
            break;
        case 'r':
            o.round = (unsigned)n;
            break;
        case 'R':
            o.reactors = (unsigned)n;
            break;
        case 'H':
            o.hold = optarg;
            break;
        case 'k':
            o.keeps = true;
            break;
        case 'C':
            o.churn = true;
            break;
        default:
            return usage();
        }
    }
    rc = history(&o);
    printf("%d passed, %d failed\n", rc == 0, rc != 0);
    return rc != 0;
}

static int main_faults(const struct subject *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", 1, NULL, 's'},   {"jobs", 1, NULL, 'j'},   {"memory", 0, NULL, 'm'},
        {"disk", 0, NULL, 'd'},   {"kind", 1, NULL, 'k'},   {"nth", 1, NULL, 'n'},
        {"stride", 1, NULL, 't'}, {"shards", 1, NULL, 'H'}, {"churn", 0, NULL, 'C'},
        {NULL, 0, NULL, 0},
    };
    struct faults_opts o = {
        .seed = 1, .jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), .stride = 1};
    int c, rc;

    for (optind = 3; (c = getopt_long(argc, argv, "v", options, NULL)) != -1;) {
        uint64_t n = optarg != NULL ? strtoull(optarg, NULL, 10) : 0;

        switch (c) {
        case 's':
            o.seed = n;
            break;
        case 'j':
            o.jobs = (unsigned)n;
            break;
        case 'm':
            o.memory = true;
            break;
        case 'd':
            o.disk = true;
            break;
        case 'k':
            o.kind = (unsigned)n;
            break;
        case 'n':
            o.nth = (uint32_t)n;
            break;
        case 't':
            o.stride = MAX(1u, (unsigned)n);
            break;
        case 'H':
            kv_subject_shards((unsigned)n);
            break;
        case 'C':
            kv_subject_churn();
            walk_disk_bytes(KV_CHURN_BYTES);
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            return usage();
        }
    }
    if (!o.memory && !o.disk)
        o.memory = o.disk = true;
    rc = faults(s, &o);
    printf("%d passed, %d failed\n", rc == 0, rc != 0);
    return rc != 0;
}

static int main_rot(const struct subject *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", 1, NULL, 's'}, {"jobs", 1, NULL, 'j'},   {"flips", 1, NULL, 'f'},
        {"at", 1, NULL, 'a'},   {"shards", 1, NULL, 'H'}, {NULL, 0, NULL, 0},
    };
    struct rot_opts o = {.seed = 1,
                         .jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN),
                         .flips = 10000,
                         .at = UINT64_MAX};
    int c, rc;

    for (optind = 3; (c = getopt_long(argc, argv, "v", options, NULL)) != -1;) {
        uint64_t n = optarg != NULL ? strtoull(optarg, NULL, 10) : 0;

        switch (c) {
        case 's':
            o.seed = n;
            break;
        case 'j':
            o.jobs = (unsigned)n;
            break;
        case 'f':
            o.flips = n;
            break;
        case 'a':
            o.at = n;
            break;
        case 'H':
            kv_subject_shards((unsigned)n);
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            return usage();
        }
    }
    rc = rot(s, &o);
    printf("%d passed, %d failed\n", rc == 0, rc != 0);
    return rc != 0;
}

static const struct subject *subject_of(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(subjects); i++)
        if (strcmp(name, subjects[i]->name) == 0)
            return subjects[i];
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", 1, NULL, 's'},   {"seeds", 1, NULL, 'S'},         {"images", 1, NULL, 'n'},
        {"jobs", 1, NULL, 'j'},   {"cut", 1, NULL, 'c'},           {"image", 1, NULL, 'i'},
        {"disk", 1, NULL, 'd'},   {"until-failure", 0, NULL, 'u'}, {"save", 1, NULL, 'w'},
        {"shards", 1, NULL, 'H'}, {"opts", 1, NULL, 'p'},          {"churn", 0, NULL, 'C'},
        {NULL, 0, NULL, 0},
    };
    struct walk_opts o = {.seed = 1,
                          .images = 10000,
                          .jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN),
                          .failures_max = 3};
    const struct subject *s = NULL;
    uint64_t seeds = 1;
    int c;

    kvm_init();
    if (argc > 2 && strcmp(argv[1], "history") == 0)
        return main_history(argc, argv);
    log_set_sink(NULL, NULL, LOG_ERROR); /* failing is what things do here */
    if (argc > 2 && strcmp(argv[1], "faults") == 0 && subject_of(argv[2]) != NULL)
        return main_faults(subject_of(argv[2]), argc, argv);
    if (argc > 2 && strcmp(argv[1], "rot") == 0 && subject_of(argv[2]) != NULL)
        return main_rot(subject_of(argv[2]), argc, argv);
    s = argc > 1 ? subject_of(argv[1]) : NULL;
    if (s == NULL)
        return usage();
    for (optind = 2; (c = getopt_long(argc, argv, "v", options, NULL)) != -1;) {
        char *end = optarg;
        uint64_t n = optarg != NULL ? strtoull(optarg, &end, 10) : 0;

        switch (c) {
        case 's':
            o.seed = n;
            break;
        case 'S':
            seeds = n;
            break;
        case 'n':
            o.images = n;
            break;
        case 'j':
            o.jobs = (unsigned)n;
            break;
        case 'c':
            o.cut_from = o.cut_to = (uint32_t)n;
            if (strncmp(end, "..", 2) == 0)
                o.cut_to = (uint32_t)strtoul(end + 2, NULL, 10);
            else
                o.jobs = 1;
            break;
        case 'i':
            o.image = (uint32_t)n;
            break;
        case 'd':
            walk_disk_bytes(n * MIB);
            break;
        case 'w':
            o.save = optarg;
            break;
        case 'H':
            kv_subject_shards((unsigned)n);
            break;
        case 'C':
            kv_subject_churn();
            break;
        case 'p':
            kv_subject_opts(optarg);
            break;
        case 'u':
            o.failures_max = 1;
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            return usage();
        }
    }
    return run_walk(s, &o, seeds);
}
