/* SPDX-License-Identifier: Apache-2.0 */
/* sim: runs seeds, each in a process of its own, and counts. */
#include "sim/scenario.h"

#include "sim/world.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEED_REAL_S 120 /* a seed that takes longer hangs */

static const char usage[] =
    "sim [--seeds A..B | --seed N] [-v] [--time S] [--jobs N] [--until-failure]\n"
    "  --seeds A..B      these seeds (1..200)\n"
    "  --seed N          one seed; prints the hash of its trace\n"
    "  -v, --verbose     prints the trace\n"
    "  --time S          seeds from A on, for so many seconds\n"
    "  --jobs N          so many at a time (2)\n"
    "  --until-failure   stops at the first seed that fails\n";

struct options {
    uint64_t first, last;
    unsigned seconds, jobs;
    bool one, verbose, until_failure;
    const char *program;
};

struct totals {
    uint64_t passed, failed;
    struct sim_report sum;
};

/* --- one seed ----------------------------------------------------------------------------------
 */

static void on_signal(int sig)
{
    static const char head[] = "sim: the program has broken off; the end of its trace:\n";
    ssize_t n = write(2, head, sizeof(head) - 1);

    (void)n;
    sim_trace_dump(2);
    signal(sig, SIG_DFL);
    raise(sig);
}

static void child(uint64_t seed, const struct options *o, struct sim_report *out)
{
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
#ifndef __SANITIZE_ADDRESS__
    signal(SIGSEGV, on_signal);
#endif
    alarm(o->verbose ? 0 : SEED_REAL_S);
    sim_scenario_run(seed, o->verbose, out);
    fflush(stdout);
    exit(0); /* not _exit: the leak checker looks now */
}

/* --- many --------------------------------------------------------------------------------------
 */

static void add(struct sim_report *sum, const struct sim_report *r)
{
    sum->virtual_ns += r->virtual_ns;
    sum->ops += r->ops;
    sum->checks += r->checks;
    sum->failed_ops += r->failed_ops;
    sum->crashes += r->crashes;
    sum->resets += r->resets;
    sum->partitions += r->partitions;
    sum->faults += r->faults;
    sum->hosts_lost += r->hosts_lost;
}

static void ended(const struct options *o, uint64_t seed, int status, const struct sim_report *r,
                  struct totals *t)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        t->passed++;
        add(&t->sum, r);
        if (o->one)
            printf("seed %llu: hash %016llx, %llu operations, %.1f virtual s\n",
                   (unsigned long long)seed, (unsigned long long)r->hash,
                   (unsigned long long)r->ops, (double)r->virtual_ns / 1e9);
        return;
    }
    t->failed++;
    fflush(stdout);
    if (WIFSIGNALED(status))
        fprintf(stderr, "sim: seed %llu: ended by signal %d (%s)\n", (unsigned long long)seed,
                WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        fprintf(stderr, "sim: seed %llu: failed with exit code %d\n", (unsigned long long)seed,
                WEXITSTATUS(status));
    fprintf(stderr, "sim: to replay it: %s --seed %llu -v\n", o->program, (unsigned long long)seed);
}

static int run(const struct options *o)
{
    unsigned jobs = o->one ? 1 : o->jobs, running = 0;
    struct sim_report *shared = mmap(NULL, jobs * sizeof(*shared), PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct {
        pid_t pid;
        uint64_t seed;
    } slot[64] = {0};
    time_t end = time(NULL) + o->seconds;
    struct totals t = {0};
    uint64_t seed = o->first;
    bool more = true;

    must(shared != MAP_FAILED);
    while (more || running > 0) {
        int status;
        pid_t pid;

        more = more && (o->seconds > 0 ? time(NULL) < end : seed <= o->last) &&
               !(o->until_failure && t.failed > 0);
        if (more && running < jobs) {
            unsigned i = 0;

            while (slot[i].pid != 0)
                i++;
            fflush(stdout);
            pid = fork();
            must(pid >= 0);
            if (pid == 0)
                child(seed, o, &shared[i]);
            slot[i].pid = pid;
            slot[i].seed = seed++;
            running++;
            continue;
        }
        if (running == 0)
            break;
        pid = waitpid(-1, &status, 0);
        for (unsigned i = 0; i < jobs; i++) {
            if (slot[i].pid == pid) {
                ended(o, slot[i].seed, status, &shared[i], &t);
                slot[i].pid = 0;
                running--;
            }
        }
    }
    printf("%llu seeds, %.0f virtual s: %llu operations (%llu failed as expected), %llu checks; "
           "%llu crashes of the server, %llu hosts lost, %llu resets, %llu partitions, %llu disk "
           "faults\n",
           (unsigned long long)(t.passed + t.failed), (double)t.sum.virtual_ns / 1e9,
           (unsigned long long)t.sum.ops, (unsigned long long)t.sum.failed_ops,
           (unsigned long long)t.sum.checks, (unsigned long long)t.sum.crashes,
           (unsigned long long)t.sum.hosts_lost, (unsigned long long)t.sum.resets,
           (unsigned long long)t.sum.partitions, (unsigned long long)t.sum.faults);
    printf("%llu passed, %llu failed\n", (unsigned long long)t.passed,
           (unsigned long long)t.failed);
    return t.failed > 0 ? 1 : 0;
}

static int bad_usage(void)
{
    fputs(usage, stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"seeds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'n'},
        {"verbose", no_argument, NULL, 'v'},     {"time", required_argument, NULL, 't'},
        {"jobs", required_argument, NULL, 'j'},  {"until-failure", no_argument, NULL, 'u'},
        {"help", no_argument, NULL, 'h'},        {0},
    };
    struct options o = {.first = 1, .last = 200, .jobs = 2, .program = argv[0]};
    unsigned long long a, b;
    int c;

    while ((c = getopt_long(argc, argv, "vh", longs, NULL)) != -1) {
        switch (c) {
        case 's':
            if (sscanf(optarg, "%llu..%llu", &a, &b) != 2 || a > b)
                return bad_usage();
            o.first = a;
            o.last = b;
            break;
        case 'n':
            o.first = o.last = strtoull(optarg, NULL, 0);
            o.one = true;
            break;
        case 'v':
            o.verbose = true;
            break;
        case 't':
            o.seconds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'j':
            o.jobs = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'u':
            o.until_failure = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            return bad_usage();
        }
    }
    if (optind < argc || o.jobs < 1 || o.jobs > 64)
        return bad_usage();
    return run(&o);
}
