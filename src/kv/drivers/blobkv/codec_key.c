/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the user's key comes from: a file that not everybody may read, or what a command prints
 * (a key manager's client, systemd-creds). Either is 32 bytes, or 64 hexadecimal digits.
 */
#include "kv/drivers/blobkv/codec.h"

#include "rt/io.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX 128u /* a key in hexadecimal and some white space around it */
#define COMMAND_TIMEOUT_MS 30000

extern char **environ;

void bkv_wipe(void *p, size_t len)
{
    explicit_bzero(p, len);
}

static int parse_key(uint8_t *text, size_t len, uint8_t *out_key, const char *what, struct err *why)
{
    if (len == BKV_USER_KEY_BYTES) {
        memcpy(out_key, text, len);
        return 0;
    }
    while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
        len--;
    if (len == 2 * BKV_USER_KEY_BYTES &&
        bytes_from_hex((const char *)text, len, out_key, BKV_USER_KEY_BYTES) > 0)
        return 0;
    return err_set(why, -EINVAL,
                   "%s does not give a key: 64 hexadecimal digits or 32 bytes "
                   "(openssl rand -hex 32)",
                   what);
}

static int read_file(struct rt_task *t, const char *path, uint8_t *text, size_t *out_len,
                     struct err *why)
{
    CLEANUP(rt_close_p) int fd = rt_open(t, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    struct stat st;
    ssize_t n;
    int rc;

    if (fd < 0)
        return err_set(why, fd, "cannot open key file %s: %s", path, err_str(fd));
    rc = rt_stat(t, fd, "", &st);
    if (rc < 0)
        return err_set(why, rc, "cannot look at key file %s: %s", path, err_str(rc));
    if (S_ISREG(st.st_mode) && (st.st_mode & (S_IROTH | S_IWOTH)) != 0)
        return err_set(why, -EACCES, "everybody may read or write key file %s: chmod 600 it", path);
    n = rt_pread(t, fd, text, TEXT_MAX, 0);
    if (n < 0)
        return err_set(why, (int)n, "cannot read key file %s: %s", path, err_str((int)n));
    *out_len = (size_t)n;
    return 0;
}

struct command {
    const char *line;
    uint8_t *text;
    size_t len;
    int status;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* What comes through the pipe until its end. */
static int collect(int fd, struct command *cmd)
{
    int64_t deadline = now_ms() + COMMAND_TIMEOUT_MS;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - now_ms();
        ssize_t n;

        if (left <= 0 || poll(&p, 1, (int)left) == 0)
            return -ETIMEDOUT;
        n = read(fd, cmd->text + cmd->len, TEXT_MAX - cmd->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        cmd->len += (size_t)n;
        if (n == 0 || cmd->len == TEXT_MAX)
            return 0;
    }
}

static int spawn_shell(const char *line, int out_fd, pid_t *out_pid)
{
    char *argv[] = {"sh", "-c", (char *)(uintptr_t)line, NULL};
    posix_spawn_file_actions_t fa;
    int rc = -posix_spawn_file_actions_init(&fa);

    if (rc < 0)
        return rc;
    rc = -posix_spawn_file_actions_adddup2(&fa, out_fd, STDOUT_FILENO);
    if (rc == 0)
        rc = -posix_spawn(out_pid, "/bin/sh", &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    return rc;
}

/* On a thread of the offload pool. */
static int run_command(void *arg)
{
    struct command *cmd = arg;
    int fds[2];
    pid_t pid;
    int rc;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    rc = spawn_shell(cmd->line, fds[1], &pid);
    close(fds[1]);
    if (rc == 0) {
        rc = collect(fds[0], cmd);
        if (rc < 0)
            kill(pid, SIGKILL);
    }
    close(fds[0]);
    if (rc == 0 || rc == -ETIMEDOUT)
        while (waitpid(pid, &cmd->status, 0) < 0 && errno == EINTR)
            ;
    return rc;
}

static int read_command(struct rt_task *t, const char *line, uint8_t *text, size_t *out_len,
                        struct err *why)
{
    struct command cmd = {.line = line, .text = text};
    int rc = rt_offload(t, run_command, &cmd);

    if (rc == -ETIMEDOUT)
        return err_set(why, rc, "key_command has not ended after %d s", COMMAND_TIMEOUT_MS / 1000);
    if (rc < 0)
        return err_set(why, rc, "cannot run key_command: %s", err_str(rc));
    if (cmd.len == TEXT_MAX)
        return err_set(why, -EINVAL, "key_command printed more than a key");
    if (!WIFEXITED(cmd.status) || WEXITSTATUS(cmd.status) != 0)
        return err_set(why, -EACCES, "key_command failed (%s %d)",
                       WIFEXITED(cmd.status) ? "exit status" : "signal",
                       WIFEXITED(cmd.status) ? WEXITSTATUS(cmd.status) : WTERMSIG(cmd.status));
    *out_len = cmd.len;
    return 0;
}

int bkv_user_key(struct rt_task *t, const struct bkv_codec_opts *opts,
                 uint8_t out_key[BKV_USER_KEY_BYTES], struct err *why)
{
    uint8_t text[TEXT_MAX];
    size_t len = 0;
    int rc;

    if (opts->key_file != NULL && opts->key_command != NULL)
        return err_set(why, -EINVAL, "give either key_file or key_command");
    if (opts->key_file != NULL)
        rc = read_file(t, opts->key_file, text, &len, why);
    else
        rc = read_command(t, opts->key_command, text, &len, why);
    if (rc == 0)
        rc = parse_key(text, len, out_key, opts->key_file != NULL ? opts->key_file : "key_command",
                       why);
    bkv_wipe(text, sizeof(text));
    return rc;
}
