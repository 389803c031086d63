/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime_opts.h"

#include "base/param.h"
#include "rt/io.h"

#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define CPUS_MAX 256

static int cpu_list[CPUS_MAX];

static int bad_cores(const char *text, struct err *why)
{
    return err_set(why, -EINVAL,
                   "--cores: '%.60s' is neither a number of cores (2) nor a list of CPUs (0-1,4)",
                   text);
}

/* "4": so many reactors; "0-2,5": one pinned to each of these CPUs. */
static int parse_cores(const char *text, struct rt_config *cfg, struct err *why)
{
    uint64_t n;

    if (strpbrk(text, ",-") == NULL) {
        if (parse_u64(text, &n) < 0 || n == 0 || n > CPUS_MAX)
            return bad_cores(text, why);
        cfg->reactors = (unsigned)n;
        return 0;
    }
    cfg->cpus = cpu_list;
    for (const char *at = text; *at != '\0';) {
        char *end;
        unsigned long from = strtoul(at, &end, 10), to = from;

        if (end == at)
            return bad_cores(text, why);
        if (*end == '-') {
            at = end + 1;
            to = strtoul(at, &end, 10);
        }
        if (end == at || to < from || to >= 4096 || (*end != ',' && *end != '\0'))
            return bad_cores(text, why);
        for (; from <= to && cfg->reactors < CPUS_MAX; from++)
            cpu_list[cfg->reactors++] = (int)from;
        at = *end == ',' ? end + 1 : end;
    }
    return cfg->reactors > 0 ? 0 : bad_cores(text, why);
}

int runtime_opts(const struct opts *o, struct rt_config *cfg, struct err *why)
{
    static const enum rt_poll polls[] = {RT_POLL_ADAPTIVE, RT_POLL_ALWAYS, RT_POLL_NEVER};
    static const enum rt_backend backends[] = {RT_BACKEND_AUTO, RT_BACKEND_URING, RT_BACKEND_EPOLL};

    cfg->poll = polls[opt_choice(o, "poll")];
    cfg->backend = backends[opt_choice(o, "backend")];
    cfg->buf_bytes = opt_u64(o, "mem");
    cfg->trace_events = (unsigned)MIN(opt_u64(o, "trace"), 1u << 24);
    if (cfg->buf_bytes < 4 * MIB)
        return err_set(why, -EINVAL, "--mem: a reactor needs at least 4M of buffers");
    return opt_str(o, "cores") == NULL ? 0 : parse_cores(opt_str(o, "cores"), cfg, why);
}

static sigset_t signal_set(bool users)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (users) {
        sigaddset(&set, SIGUSR1);
        sigaddset(&set, SIGUSR2);
    }
    return set;
}

void runtime_block_signals(void)
{
    sigset_t set = signal_set(true);

    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int runtime_signals_open(bool users)
{
    sigset_t set = signal_set(users);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

int runtime_signals_next(struct rt_task *t, int fd)
{
    struct signalfd_siginfo info;
    int rc;

    for (;;) {
        rc = rt_fd_readable(t, fd);
        if (rc < 0)
            return rc;
        if (read(fd, &info, sizeof(info)) == sizeof(info))
            return (int)info.ssi_signo;
    }
}
