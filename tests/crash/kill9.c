/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill9 KVASIR DEVICE [--rounds N] [--seed N]: serves a key-value device by the program, works on
 * it through NVMe/TCP, kills the server with SIGKILL in the middle, starts it again, and compares
 * what is there with what was acknowledged. Everything it knows it has from the answers it got.
 */
#include "kv.h"
#include "own.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_S 20 /* until a server is up, recovery included */

struct server {
    pid_t pid;
    char uri[512];
    double start_s;
};

struct round {
    unsigned reactors_max;
    struct server server;
    uint64_t seed, number;
    struct kv_work work;
    struct look look;
    uint64_t kill_ns;
};

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* --- the server ------------------------------------------------------------------------------- */

static void exec_server(const char *kvasir, const char *device, unsigned reactors, int out)
{
    char dev[600], cores[16];

    snprintf(dev, sizeof(dev), "store=%s", device);
    dup2(out, STDOUT_FILENO);
    snprintf(cores, sizeof(cores), "%u", reactors);
    execl(kvasir, kvasir, "serve", "--kv", dev, "--listen", "127.0.0.1:0", "--mem", "16M",
          "--cores", cores, "-q", (char *)NULL);
    _exit(127);
}

/* Reads "listening ADDRESS NQN" and makes the URI of it. */
static bool read_address(int fd, struct server *s)
{
    char line[512] = "", addr[128], nqn[256];
    size_t used = 0;

    alarm(START_S);
    while (used < sizeof(line) - 1 && strchr(line, '\n') == NULL) {
        ssize_t n = read(fd, line + used, sizeof(line) - 1 - used);

        if (n <= 0)
            return false;
        used += (size_t)n;
        line[used] = '\0';
    }
    alarm(0);
    if (sscanf(line, "listening %127s %255s", addr, nqn) != 2)
        return false;
    snprintf(s->uri, sizeof(s->uri), "nvme+tcp://%s/%s?nsid=1&ctrl_loss=1ms&queues=2", addr, nqn);
    return true;
}

static bool server_start(const char *kvasir, const char *device, unsigned reactors,
                         struct server *s)
{
    double begin = seconds();
    int fd[2];
    bool ok;

    must(pipe(fd) == 0);
    fflush(stdout);
    s->pid = fork();
    must(s->pid >= 0);
    if (s->pid == 0) {
        close(fd[0]);
        exec_server(kvasir, device, reactors, fd[1]);
    }
    close(fd[1]);
    ok = read_address(fd[0], s);
    close(fd[0]);
    s->start_s = seconds() - begin;
    return ok;
}

static void server_kill(struct server *s)
{
    kill(s->pid, SIGKILL);
}

/* --- one round -------------------------------------------------------------------------------- */

static int killer(struct rt_task *t, void *arg)
{
    struct round *r = arg;

    rt_sleep(t, r->kill_ns);
    server_kill(&r->server);
    return 0;
}

static int look(struct rt_task *t, struct kv_dev *dev, struct round *r)
{
    uint8_t at[KVM_KEYS];
    int rc;

    kvm_to(UINT32_MAX);
    rc = kv_look(t, dev, &r->look, at);
    if (rc < 0)
        return rc;
    for (unsigned k = 0; k < KVM_KEYS; k++)
        kv_present[k] = (struct kv_present){.state = kvm_view(k)->maybe[at[k]].state};
    kvm_settle(at);
    return 0;
}

static int round_run(struct rt_task *t, void *arg)
{
    struct round *r = arg;
    struct err why = {""};
    struct kv_dev *dev;
    struct rt_req killed;
    int rc = kv_open(t, r->server.uri, &dev, &why);

    if (rc < 0)
        return look_bad(&r->look, "cannot be reached: %s", why.text);
    rc = look(t, dev, r);
    if (rc < 0) {
        kv_close(t, dev);
        return rc;
    }
    rt_req_init_task(&killed, t);
    must(rt_task_start("killer", killer, r, &killed, NULL) == 0);
    rc = kv_work(t, dev, &r->work);
    rt_wait(t, &killed);
    kv_close(t, dev);
    if (rc < 0)
        look_bad(&r->look, "%s", r->work.why);
    return rc;
}

static int one_round(const char *kvasir, const char *device, struct round *r)
{
    struct dice dice = dice_of(r->seed, r->number);
    struct err why = {""};
    int rc, status;

    /* Another number of reactors at each start. */
    if (!server_start(kvasir, device, 1 + (unsigned)(r->number % r->reactors_max), &r->server)) {
        server_kill(&r->server);
        waitpid(r->server.pid, &status, 0);
        return look_bad(&r->look, "the server did not start");
    }
    r->kill_ns = dice_between(&dice, 5, 120) * NS_PER_MS;
    r->work = (struct kv_work){.seed = r->seed * 100003 + r->number,
                               .ops = 1000000,
                               .faulty = true,
                               .remote = true,
                               .errors_max = 1};
    rc = rt_run(NULL, round_run, r, &why);
    server_kill(&r->server);
    waitpid(r->server.pid, &status, 0);
    return rc;
}

static int usage(void)
{
    fprintf(stderr, "usage: kill9 KVASIR DEVICE [--rounds N] [--seed N] [--reactors MAX]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rounds", 1, NULL, 'r'},
                                            {"seed", 1, NULL, 's'},
                                            {"reactors", 1, NULL, 'R'},
                                            {NULL, 0, NULL, 0}};
    struct round r = {.seed = 1, .reactors_max = 1};
    uint64_t rounds = 200, ops = 0, errors = 0;
    double begin = seconds(), slowest = 0;
    int c, rc = 0;

    for (optind = 3; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        uint64_t n = optarg != NULL ? strtoull(optarg, NULL, 10) : 0;

        if (c == '?')
            return usage();
        if (c == 'r')
            rounds = n;
        else if (c == 'R')
            r.reactors_max = MAX(1u, (unsigned)n);
        else
            r.seed = n;
    }
    if (argc < 3)
        return usage();
    signal(SIGPIPE, SIG_IGN);
    kvm_init();
    kv_work_reset(true);
    for (r.number = 0; rc == 0 && r.number < rounds; r.number++) {
        rc = one_round(argv[1], argv[2], &r);
        ops += r.work.done;
        errors += r.work.errors;
        slowest = MAX(slowest, r.server.start_s);
    }
    printf(
        "crash: kill -9: seed %llu: %llu rounds, %llu operations, %llu cut off; slowest start %.0f "
        "ms; %.0f s%s%s\n",
        (unsigned long long)r.seed, (unsigned long long)r.number, (unsigned long long)ops,
        (unsigned long long)errors, slowest * 1000, seconds() - begin, rc < 0 ? ": " : "",
        r.look.why);
    printf("%llu passed, %d failed\n", (unsigned long long)(rc < 0 ? r.number - 1 : r.number),
           rc < 0);
    return rc < 0;
}
