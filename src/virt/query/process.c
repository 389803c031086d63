/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes, and what they are handed: for threads that may block. A zygote gets its socket and
 * standard error, and nothing else of ours.
 */
#include "virt/query/service.h"

#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKER_NAME "kvasir-query"
#define WORKER_NICE 10

extern char **environ;

/* The path dir[0..len) / WORKER_NAME if that can be run, to be freed; else NULL. */
static char *try_dir(const char *dir, size_t len)
{
    char *path;

    if (asprintf(&path, "%.*s/" WORKER_NAME, (int)len, dir) < 0)
        return NULL;
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static char *beside_us(void)
{
    CLEANUP(free_p) char *self = realpath("/proc/self/exe", NULL);
    const char *slash = self != NULL ? strrchr(self, '/') : NULL;

    return slash != NULL ? try_dir(self, (size_t)(slash - self)) : NULL;
}

char *query_worker_find(const char *told, struct err *why)
{
    char *path;

    if (told == NULL || *told == '\0')
        told = getenv("KVASIR_QUERY_WORKER");
    if (told != NULL && *told != '\0') {
        if (access(told, X_OK) == 0)
            return strdup(told);
        err_set(why, -ENOTSUP, "no program %.150s can be run", told);
        return NULL;
    }
    path = beside_us();
    if (path == NULL)
        path = try_dir(KVASIR_LIBEXECDIR, strlen(KVASIR_LIBEXECDIR));
    if (path == NULL)
        err_set(why, -ENOTSUP,
                "the program " WORKER_NAME " is neither beside this one nor in %.120s: install "
                "Kvasir, or say where by KVASIR_QUERY_WORKER",
                KVASIR_LIBEXECDIR);
    return path;
}

/* Reactors keep the cores they are pinned to; threads that a pinned reactor starts, and what they
 * start in turn, would otherwise stay there too. */
static void place(pid_t pid, const int *cpus, unsigned ncpus)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t set;

    if (ncpus == 0 || online <= 0)
        return;
    CPU_ZERO(&set);
    for (long i = 0; i < online && i < CPU_SETSIZE; i++)
        CPU_SET((size_t)i, &set);
    for (unsigned i = 0; i < ncpus; i++)
        CPU_CLR((size_t)cpus[i], &set);
    if (CPU_COUNT(&set) == 0)
        for (long i = 0; i < online && i < CPU_SETSIZE; i++)
            CPU_SET((size_t)i, &set);
    sched_setaffinity(pid, sizeof(set), &set);
}

/* When memory is short, a query goes before the daemon does. */
static void go_first(pid_t pid)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "800", 3) != 3)
        (void)errno; /* not ours to change here; the query runs all the same */
    close(fd);
}

static int spawn(const struct query_zygote_start *z, int fd, pid_t *out_pid)
{
    char mem[24], *argv[6] = {(char *)(uintptr_t)z->worker, (char *)(uintptr_t) "--mem", mem};
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int rc;

    if (z->engine != NULL) {
        argv[3] = (char *)(uintptr_t) "--engine";
        argv[4] = (char *)(uintptr_t)z->engine;
    }
    snprintf(mem, sizeof(mem), "%lu", z->mem_bytes);
    sigemptyset(&none);
    sigfillset(&all);
    rc = -posix_spawn_file_actions_init(&fa);
    if (rc < 0)
        return rc;
    rc = -posix_spawnattr_init(&attr);
    if (rc < 0) {
        posix_spawn_file_actions_destroy(&fa);
        return rc;
    }
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setpgroup(&attr, 0); /* ^C is for us: it ends when we do */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    rc = -posix_spawn_file_actions_adddup2(&fa, fd, QW_ZYGOTE_FD);
    if (rc == 0)
        rc = -posix_spawn_file_actions_addclosefrom_np(&fa, QW_ZYGOTE_FD + 1);
    if (rc == 0)
        rc = -posix_spawn(out_pid, z->worker, &fa, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&fa);
    return rc;
}

int query_zygote_start(void *arg)
{
    struct query_zygote_start *z = arg;
    int fds[2];
    int rc;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0)
        return -errno;
    rc = spawn(z, fds[1], &z->pid);
    close(fds[1]);
    if (rc < 0) {
        close(fds[0]);
        return rc;
    }
    place(z->pid, z->cpus, z->ncpus);
    setpriority(PRIO_PROCESS, (id_t)z->pid, WORKER_NICE);
    go_first(z->pid);
    z->fd = fds[0];
    return 0;
}

int query_zygote_reap(void *arg)
{
    struct query_zygote_reap *r = arg;

    kill(r->pid, SIGKILL);
    while (waitpid(r->pid, &r->status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/*
 * The window cannot be cut short under our reads, and nobody but we can write to it: a worker that
 * could would change bytes while a driver still looks at them.
 */
static int make_window(struct query_pair *p)
{
    int fd = memfd_create("kvasir-query-window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int rc;

    if (fd < 0)
        return -errno;
    p->window = MAP_FAILED;
    if (ftruncate(fd, QW_WINDOW_BYTES) == 0)
        p->window = mmap(NULL, QW_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p->window != MAP_FAILED &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) ==
            0) {
        p->window_fd = fd;
        return 0;
    }
    rc = -errno;
    if (p->window != MAP_FAILED)
        munmap(p->window, QW_WINDOW_BYTES);
    p->window = NULL;
    close(fd);
    return rc;
}

int query_pair_make(void *arg)
{
    struct query_pair *p = arg;
    int fds[2];
    int rc;

    *p = (struct query_pair){.ours = -1, .theirs = -1, .window_fd = -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return -errno;
    p->ours = fds[0];
    p->theirs = fds[1];
    rc = make_window(p);
    if (rc < 0) {
        close(fds[0]);
        close(fds[1]);
        *p = (struct query_pair){.ours = -1, .theirs = -1, .window_fd = -1};
    }
    return rc;
}

int query_pair_drop(void *arg)
{
    struct query_pair *p = arg;

    if (p->ours >= 0)
        close(p->ours);
    if (p->theirs >= 0)
        close(p->theirs);
    if (p->window_fd >= 0)
        close(p->window_fd);
    if (p->window != NULL)
        munmap(p->window, QW_WINDOW_BYTES);
    *p = (struct query_pair){.ours = -1, .theirs = -1, .window_fd = -1};
    return 0;
}
