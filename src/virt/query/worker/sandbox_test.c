/* SPDX-License-Identifier: Apache-2.0 */
/* In the sandbox, without an engine: what a statement that broke out of everything else meets. */
#include "virt/query/worker/query.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MEM_BYTES (64u << 20)
#define STREAM 3

static void leave(int status)
{
    syscall(SYS_exit_group, status);
}

static pid_t parent;

/* Runs `attempt` in a worker's sandbox; what became of the process. */
static int in_sandbox(void (*attempt)(void))
{
    static const struct qw_limits limits = {MEM_BYTES, 1};
    static struct qw_text why;
    int status = 0, sv[2];
    pid_t pid;

    parent = getpid();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    pid = fork();
    if (pid == 0) {
        if (sv[1] != STREAM && dup2(sv[1], STREAM) < 0)
            leave(90);
        if (qw_sandbox_early(parent, &why) < 0)
            leave(91);
        if (qw_sandbox_enter(STREAM, &limits, &why) < 0)
            leave(92);
        attempt();
        leave(0);
    }
    close(sv[0]);
    close(sv[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void must_die(void (*attempt)(void), int sig)
{
    int status = in_sandbox(attempt);

    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), sig);
}

/* An attempt calls leave(0) when it was refused as it should be. */
static void must_fail(void (*attempt)(void))
{
    int status = in_sandbox(attempt);

    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void refused(long rc, int e)
{
    leave(rc == -1 && errno == e ? 0 : 1);
}

static void try_open(void)
{
    refused(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY), EPERM);
}

static void try_create(void)
{
    refused(syscall(SYS_openat, AT_FDCWD, "/tmp/kvasir-sandbox-test", O_CREAT | O_WRONLY, 0600),
            EPERM);
}

static void try_stat(void)
{
    char buf[256];

    refused(syscall(SYS_newfstatat, AT_FDCWD, "/", buf, 0), EPERM);
}

static void try_unlink(void)
{
    refused(syscall(SYS_unlinkat, AT_FDCWD, "/tmp/none", 0), EPERM);
}

static void try_limits(void)
{
    uint64_t r[2] = {~0ull, ~0ull};

    refused(syscall(SYS_prlimit64, 0, 9 /* RLIMIT_AS */, r, NULL), EPERM);
}

static void try_much_memory(void)
{
    void *p = mmap(NULL, MEM_BYTES + (1u << 20), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    leave(p == MAP_FAILED && errno == ENOMEM ? 0 : 1);
}

static void test_is_told_no(void **state)
{
    must_fail(try_open);
    must_fail(try_create);
    must_fail(try_stat);
    must_fail(try_unlink);
    must_fail(try_limits);
    must_fail(try_much_memory);
}

static void try_socket(void)
{
    syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}

static void try_connect(void)
{
    char addr[16] = {AF_INET};

    syscall(SYS_connect, STREAM, addr, sizeof(addr));
}

static void try_execve(void)
{
    char *const argv[] = {"/bin/true", NULL};

    syscall(SYS_execve, argv[0], argv, argv + 1);
}

static void try_clone(void)
{
    syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void try_ptrace(void)
{
    syscall(SYS_ptrace, PTRACE_ATTACH, parent, 0, 0);
}

static void try_read_memory(void)
{
    syscall(SYS_process_vm_readv, parent, NULL, 0, NULL, 0, 0);
}

static void try_kill(void)
{
    syscall(SYS_kill, parent, SIGKILL);
}

static void try_tgkill(void)
{
    syscall(SYS_tgkill, parent, parent, SIGKILL);
}

static void try_code(void)
{
    syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void try_make_code(void)
{
    static char page[8192];

    syscall(SYS_mprotect, ((uintptr_t)page + 4095) & ~(uintptr_t)4095, 4096,
            PROT_READ | PROT_WRITE | PROT_EXEC);
}

static void try_map_file(void)
{
    syscall(SYS_mmap, NULL, 4096, PROT_READ, MAP_PRIVATE, STREAM, 0);
}

static void try_other_descriptor(void)
{
    char byte;

    syscall(SYS_read, 0, &byte, 1);
}

static void try_write_elsewhere(void)
{
    syscall(SYS_write, 2, "x", 1);
}

static void try_pass_descriptors(void)
{
    char msg[64] = {0};

    syscall(SYS_recvmsg, STREAM, msg, 0);
}

static void try_io_uring(void)
{
    char params[128] = {0};

    syscall(SYS_io_uring_setup, 8, params);
}

static void try_namespace(void)
{
    syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */);
}

static void try_memfd(void)
{
    syscall(SYS_memfd_create, "x", 0);
}

static void try_loosen(void)
{
    syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void test_is_killed(void **state)
{
    static void (*const attempts[])(void) = {
        try_socket,          try_connect,     try_execve,
        try_clone,           try_ptrace,      try_kill,
        try_tgkill,          try_read_memory, try_code,
        try_map_file,        try_make_code,   try_other_descriptor,
        try_io_uring,        try_memfd,       try_loosen,
        try_write_elsewhere, try_namespace,   try_pass_descriptors,
    };

    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
        must_die(attempts[i], SIGSYS);
}

static void spin(void)
{
    for (volatile unsigned long i = 0;; i++)
        ;
}

static void test_cpu_ends(void **state)
{
    must_die(spin, SIGXCPU);
}

static void use_what_is_given(void)
{
    char *p = mmap(NULL, MEM_BYTES / 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        leave(1);
    p[0] = 1;
    if (munmap(p, MEM_BYTES / 4) < 0 || syscall(SYS_getpid) <= 0)
        leave(2);
    leave(0);
}

static void test_can_work(void **state)
{
    must_fail(use_what_is_given); /* it leaves with 0 when all that succeeded */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_can_work),
        cmocka_unit_test(test_is_told_no),
        cmocka_unit_test(test_is_killed),
        cmocka_unit_test(test_cpu_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
