/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker gives up before it looks at its query. A statement needs memory, the clock and
 * its stream, and so it gets no more: the list below is what the engine was seen to call, and
 * what the C library calls for it. README.md says what each layer stops.
 */
#include "virt/query/worker/query.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY 65534
#define NICE 10 /* whoever reads and writes on this machine goes first */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#define ARCH 0 /* not known: no system call is let through, so no query runs */
#endif

static int drop_user(void)
{
    if (geteuid() != 0)
        return 0;
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
        setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return -errno;
    return 0;
}

/* When memory is short, a worker is what has to go. */
static void volunteer(void)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (syscall(SYS_write, fd, "1000", 4) < 0)
        errno = 0; /* then it goes when its turn comes */
    syscall(SYS_close, fd);
}

int qw_sandbox_early(pid_t zygote, struct qw_text *why)
{
    int rc;

    volunteer();
    rc = drop_user();
    if (rc < 0)
        return qw_fail(why, rc, "the worker cannot become nobody: %s", strerror(-rc));
    /* After the change of user, which would undo it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_DUMPABLE, 0) < 0 || setpriority(PRIO_PROCESS, 0, NICE) < 0)
        return qw_fail(why, -errno, "prctl: %s", strerror(errno));
    if (getppid() != zygote) /* it died before */
        return qw_fail(why, -ECONNRESET, "the zygote is gone");
    return 0;
}

/* The address space that is in use now, in bytes; 0: not known. The directory /proc/self belongs
 * to root once the process is not dumpable, and this file can be read all the same. */
static uint64_t own_size(void)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/statm", O_RDONLY | O_CLOEXEC);
    char text[64] = "";

    if (fd < 0)
        return 0;
    if (syscall(SYS_read, fd, text, sizeof(text) - 1) < 0)
        text[0] = 0;
    syscall(SYS_close, fd);
    return strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int limit(int resource, uint64_t soft, uint64_t hard)
{
    struct rlimit r = {soft, hard};

    return setrlimit(resource, &r) < 0 ? -errno : 0;
}

static int set_limits(int fd, const struct qw_limits *l)
{
    uint64_t size = own_size();
    int rc;

    if (size == 0)
        return -EIO;
    if ((rc = limit(RLIMIT_AS, size + l->mem_bytes, size + l->mem_bytes)) < 0 ||
        /* SIGXCPU, then SIGKILL */
        (rc = limit(RLIMIT_CPU, l->cpu_seconds, l->cpu_seconds + 1u)) < 0 ||
        (rc = limit(RLIMIT_CORE, 0, 0)) < 0 || (rc = limit(RLIMIT_FSIZE, 0, 0)) < 0 ||
        (rc = limit(RLIMIT_NPROC, 0, 0)) < 0)
        return rc;
    return limit(RLIMIT_NOFILE, (unsigned)fd + 1, (unsigned)fd + 1);
}

/* --- system calls --- */

#define RULES_MAX 256

struct rules {
    struct sock_filter f[RULES_MAX];
    unsigned short n;
};

static void add(struct rules *r, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
    if (r->n < RULES_MAX)
        r->f[r->n++] = (struct sock_filter)BPF_JUMP(code, k, jt, jf);
}

static void load(struct rules *r, size_t offset)
{
    add(r, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void answer(struct rules *r, uint32_t action)
{
    add(r, BPF_RET | BPF_K, action, 0, 0);
}

static void call(struct rules *r, long nr, uint32_t action)
{
    add(r, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1);
    answer(r, action);
}

#define ARG_LOW(i) (offsetof(struct seccomp_data, args[i]))

/* A call that may be made with one value of an argument, which is an int. */
static void call_with(struct rules *r, long nr, unsigned arg, uint32_t value)
{
    add(r, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 4);
    load(r, ARG_LOW(arg));
    add(r, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    answer(r, SECCOMP_RET_ALLOW);
    answer(r, SECCOMP_RET_KILL_PROCESS);
}

/* Memory that is never code; `anonymous`: and comes from no file. */
static void call_memory(struct rules *r, long nr, bool anonymous)
{
    add(r, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, anonymous ? 6 : 4);
    load(r, ARG_LOW(2));
    add(r, BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, anonymous ? 3 : 1, 0);
    if (anonymous) {
        load(r, ARG_LOW(3));
        add(r, BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS, 0, 1);
    }
    answer(r, SECCOMP_RET_ALLOW);
    answer(r, SECCOMP_RET_KILL_PROCESS);
}

/* Memory, locks, time, and the end. */
static const int allowed[] = {
    SYS_brk,           SYS_munmap,         SYS_mremap,       SYS_madvise,   SYS_futex,
    SYS_clock_gettime, SYS_clock_getres,   SYS_gettimeofday, SYS_nanosleep, SYS_clock_nanosleep,
    SYS_sched_yield,   SYS_getcpu,         SYS_getrandom,    SYS_getpid,    SYS_gettid,
    SYS_rt_sigreturn,  SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_getrusage, SYS_restart_syscall,
    SYS_exit,          SYS_exit_group,
#ifdef SYS_time
    SYS_time,
#endif
};

/* What a library asks for by the way and does without: it is told no, and goes on. */
static const int denied[] = {
    SYS_openat,    SYS_close,      SYS_newfstatat, SYS_fstat,     SYS_statx,
    SYS_faccessat, SYS_readlinkat, SYS_lseek,      SYS_pread64,   SYS_pwrite64,
    SYS_fcntl,     SYS_ioctl,      SYS_getdents64, SYS_statfs,    SYS_fstatfs,
    SYS_getcwd,    SYS_uname,      SYS_sysinfo,    SYS_prlimit64, SYS_sched_getaffinity,
    SYS_getuid,    SYS_geteuid,    SYS_getgid,     SYS_getegid,   SYS_getppid,
    SYS_unlinkat,  SYS_mkdirat,    SYS_ftruncate,  SYS_fsync,     SYS_mlock,
#ifdef SYS_open
    SYS_open,      SYS_stat,       SYS_lstat,      SYS_access,    SYS_readlink,
    SYS_unlink,    SYS_mkdir,      SYS_rmdir,      SYS_rename,    SYS_getrlimit,
#endif
};

static void write_rules(struct rules *r, int fd)
{
    load(r, offsetof(struct seccomp_data, arch));
    add(r, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    answer(r, SECCOMP_RET_KILL_PROCESS);
    load(r, offsetof(struct seccomp_data, nr));
    call_with(r, SYS_read, 0, (uint32_t)fd);
    call_with(r, SYS_writev, 0, (uint32_t)fd);
    call_memory(r, SYS_mmap, true);
    call_memory(r, SYS_mprotect, false);
    call_with(r, SYS_tgkill, 0, (uint32_t)getpid()); /* abort() */
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
        call(r, allowed[i], SECCOMP_RET_ALLOW);
    for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++)
        call(r, denied[i], SECCOMP_RET_ERRNO | EPERM);
    answer(r, SECCOMP_RET_KILL_PROCESS);
}

static int forbid_calls(int fd)
{
    struct rules r = {.n = 0};
    struct sock_fprog prog;

    write_rules(&r, fd);
    if (r.n == RULES_MAX) /* some of them may be missing */
        return -EOVERFLOW;
    prog = (struct sock_fprog){r.n, r.f};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0 ? -errno : 0;
}

int qw_sandbox_enter(int fd, const struct qw_limits *limits, struct qw_text *why)
{
    int rc = set_limits(fd, limits);

    if (rc < 0)
        return qw_fail(why, rc, "the worker's limits cannot be set: %s", strerror(-rc));
    rc = forbid_calls(fd);
    if (rc < 0)
        return qw_fail(why, rc, "the worker cannot give up system calls (seccomp): %s",
                       strerror(-rc));
    return 0;
}
