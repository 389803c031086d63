/* SPDX-License-Identifier: Apache-2.0 */
#include "blk/lockfile.h"

#include "rt/io.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LOCKS_MAX_BYTES 65536
#define LOOK_AGAIN_NS (5 * NS_PER_MS)
#define LOOK_AGAIN_MAX 400    /* two seconds for a process that has ended */
#define LOOK_AGAIN_UNKNOWN 40 /* and 200 ms when nobody is found: the lock may be gone by then */

/* One line of /proc/locks: "12: FLOCK  ADVISORY  WRITE 4242 fe:00:1234 0 EOF". */
static bool line_names(const char *line, const struct stat *st, long *out_pid)
{
    unsigned major_no, minor_no;
    unsigned long long ino;
    long pid;

    if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", &pid, &major_no, &minor_no, &ino) != 4)
        return false;
    if (ino != st->st_ino || major_no != major(st->st_dev) || minor_no != minor(st->st_dev))
        return false;
    *out_pid = pid;
    return true;
}

struct find {
    char *text;
    const struct stat *st;
    long pid;
};

/* Offloaded: sscanf needs more stack than a task has. */
static int find_line(void *arg)
{
    struct find *f = arg;
    char *save = NULL;

    for (char *line = strtok_r(f->text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (line_names(line, f->st, &f->pid))
            return 0;
    }
    return -ENOENT;
}

/* The process that holds a lock on the file; 0 when the kernel does not tell. */
static long find_holder(struct rt_task *t, int fd)
{
    CLEANUP(free_p) char *text = calloc(1, LOCKS_MAX_BYTES);
    struct stat st;
    struct find f = {.text = text, .st = &st};
    size_t len = 0;
    ssize_t n = 0;
    int locks;

    if (text == NULL || rt_stat(t, fd, "", &st) < 0)
        return 0;
    locks = rt_open(t, AT_FDCWD, "/proc/locks", O_RDONLY | O_CLOEXEC, 0);
    if (locks < 0)
        return 0;
    do {
        len += (size_t)n;
        n = rt_pread(t, locks, text + len, LOCKS_MAX_BYTES - 1 - len, len);
    } while (n > 0 && len < LOCKS_MAX_BYTES - 1);
    rt_close(t, locks);
    return rt_offload(t, find_line, &f) == 0 ? f.pid : 0;
}

/* Whether a process is no more. Its lock may outlive it: the kernel takes an io_uring apart, and
 * lets go of the files that it refers to, after the process has ended. */
static bool has_ended(long pid)
{
    return pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

int blk_file_lock(struct rt_task *t, int fd, const char *path, bool writes, struct err *why)
{
    long pid = 0;
    int rc;

    for (unsigned n = 0;; n++) {
        rc = rt_flock(t, fd, (writes ? LOCK_EX : LOCK_SH) | LOCK_NB);
        if (rc == 0)
            return 0;
        if (rc != -EAGAIN)
            return err_set(why, rc, "%s: cannot be locked: %s", path, err_str(rc));
        pid = find_holder(t, fd);
        if (pid == 0 ? n >= LOOK_AGAIN_UNKNOWN : !has_ended(pid) || n >= LOOK_AGAIN_MAX)
            break;
        rc = rt_sleep(t, LOOK_AGAIN_NS);
        if (rc < 0)
            return err_set(why, rc, "%s: cannot be locked: %s", path, err_str(rc));
    }
    if (pid == getpid())
        return err_set(why, -EBUSY, "%s: this process has it open already, by another URI", path);
    if (pid > 0)
        return err_set(why, -EBUSY, "%s: another process (pid %ld) has it open", path, pid);
    return err_set(why, -EBUSY, "%s: another process has it open", path);
}
