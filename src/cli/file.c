/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/file.h"

#include "base/bytes.h"
#include "rt/io.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One blocking call, carried to the offload pool. */
struct call {
    struct cli_file *f;
    int rootfd;
    const char *path;
    void *buf;
    size_t len;
    bool flag;
    ssize_t moved;
};

static void look_at(struct cli_file *f)
{
    struct stat st;

    if (fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode)) {
        off_t at = f->std ? lseek(f->fd, 0, SEEK_CUR) : 0;

        f->regular = true;
        f->size_bytes = at > 0 && at < st.st_size ? (uint64_t)(st.st_size - at)
                                                  : (uint64_t)(at > 0 ? 0 : st.st_size);
    }
}

static int open_fn(void *arg)
{
    struct call *call = arg;
    struct stat st;

    call->f->fd = open(call->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (call->f->fd < 0)
        return -errno;
    if (fstat(call->f->fd, &st) == 0 && S_ISDIR(st.st_mode))
        return -EISDIR;
    posix_fadvise(call->f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    look_at(call->f);
    return 0;
}

int cli_file_open(struct rt_task *t, const char *path, struct cli_file *out, struct err *why)
{
    struct call call = {.f = out, .path = path};
    int rc;

    *out = CLI_FILE_CLOSED;
    out->name = path;
    if (strcmp(path, "-") == 0) {
        out->name = "standard input";
        out->fd = STDIN_FILENO;
        out->std = true;
        look_at(out);
        return 0;
    }
    rc = rt_offload(t, open_fn, &call);
    if (rc == -EISDIR)
        err_set(why, rc, "'%s' is a directory (-r takes whole trees)", path);
    else if (rc < 0)
        err_set(why, rc, "cannot open '%s': %s", path, err_str(rc));
    if (rc < 0)
        cli_file_close_p(out);
    return rc;
}

/* The name to write under until commit: ".NAME.PID.kvasir" in the same directory. */
static char *temp_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    int dir_len = slash != NULL ? (int)(slash + 1 - path) : 0;
    char *out = NULL;

    if (asprintf(&out, "%.*s.%.200s.%ld.kvasir", dir_len, path, path + dir_len, (long)getpid()) < 0)
        return NULL;
    return out;
}

static int create_fn(void *arg)
{
    struct call *call = arg;
    struct cli_file *f = call->f;
    struct stat st;
    bool there = stat(call->path, &st) == 0;

    if (there && S_ISDIR(st.st_mode))
        return -EISDIR;
    if (call->flag || (there && !S_ISREG(st.st_mode))) {
        f->fd = open(call->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
    } else {
        f->temp = temp_name(call->path);
        if (f->temp == NULL)
            return -ENOMEM;
        unlink(f->temp);
        f->fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                     there ? st.st_mode & 07777 : 0666);
    }
    if (f->fd < 0) {
        int rc = -errno;

        free(take_ptr(&f->temp));
        return rc;
    }
    look_at(f);
    return 0;
}

int cli_file_create(struct rt_task *t, const char *path, bool in_place, struct cli_file *out,
                    struct err *why)
{
    struct call call = {.f = out, .path = path, .flag = in_place};
    int rc;

    *out = CLI_FILE_CLOSED;
    out->name = path;
    out->final = path;
    if (strcmp(path, "-") == 0) {
        out->name = "standard output";
        out->fd = STDOUT_FILENO;
        out->std = true;
        return 0;
    }
    rc = rt_offload(t, create_fn, &call);
    if (rc < 0) {
        cli_file_close_p(out);
        return err_set(why, rc, "cannot write '%s': %s", path,
                       rc == -EISDIR ? "it is a directory" : err_str(rc));
    }
    return 0;
}

/* Opens the directory of `rel` below the root, part by part; *out_base is what follows it. */
static int open_parent(int rootfd, const char *rel, const char **out_base)
{
    int fd = fcntl(rootfd, F_DUPFD_CLOEXEC, 3);
    const char *slash;

    for (; fd >= 0 && (slash = strchr(rel, '/')) != NULL; rel = slash + 1) {
        char part[NAME_MAX + 1];
        int next;

        must((size_t)(slash - rel) < sizeof(part));
        memcpy(part, rel, (size_t)(slash - rel));
        part[slash - rel] = '\0';
        if (mkdirat(fd, part, 0777) < 0 && errno != EEXIST)
            next = -1;
        else
            next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0) {
            int rc = -errno;

            close(fd);
            return rc;
        }
        close(fd);
        fd = next;
    }
    *out_base = rel;
    return fd < 0 ? -errno : fd;
}

static int create_below_fn(void *arg)
{
    struct call *call = arg;
    struct cli_file *f = call->f;
    struct stat st;
    int dirfd = open_parent(call->rootfd, call->path, &f->final);

    if (dirfd < 0)
        return dirfd;
    f->dirfd = dirfd;
    if (fstatat(dirfd, f->final, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        return -EISDIR;
    f->temp = temp_name(f->final);
    if (f->temp == NULL)
        return -ENOMEM;
    unlinkat(dirfd, f->temp, 0);
    f->fd = openat(dirfd, f->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        int rc = -errno;

        free(take_ptr(&f->temp));
        return rc;
    }
    look_at(f);
    return 0;
}

int cli_file_create_below(struct rt_task *t, int rootfd, const char *rel, struct cli_file *out,
                          struct err *why)
{
    struct call call = {.f = out, .rootfd = rootfd, .path = rel};
    int rc;

    *out = CLI_FILE_CLOSED;
    out->name = rel;
    rc = rt_offload(t, create_below_fn, &call);
    if (rc < 0) {
        cli_file_close_p(out);
        return err_set(why, rc, "cannot write '%s': %s", rel,
                       rc == -EISDIR    ? "it is a directory"
                       : rc == -ELOOP   ? "a symbolic link is in the way"
                       : rc == -ENOTDIR ? "a file (or symbolic link) is where a directory should be"
                                        : err_str(rc));
    }
    return 0;
}

static int commit_fn(void *arg)
{
    struct call *call = arg;
    struct cli_file *f = call->f;
    int rc = 0;

    if (f->sparse && ftruncate(f->fd, lseek(f->fd, 0, SEEK_CUR)) < 0)
        rc = -errno;
    if (close(f->fd) < 0)
        rc = -errno;
    f->fd = -1;
    if (rc == 0 && f->temp != NULL && renameat(f->dirfd, f->temp, f->dirfd, f->final) < 0)
        rc = -errno;
    if (rc == 0)
        free(take_ptr(&f->temp));
    return rc;
}

int cli_file_commit(struct rt_task *t, struct cli_file *f, struct err *why)
{
    struct call call = {.f = f};
    int rc;

    if (f->std)
        return 0;
    rc = rt_offload(t, commit_fn, &call);
    if (rc < 0)
        return err_set(why, rc, "cannot finish '%s': %s", f->name, err_str(rc));
    return 0;
}

void cli_file_close_p(struct cli_file *f)
{
    if (f->fd >= 0 && !f->std)
        close(f->fd);
    f->fd = -1;
    if (f->temp != NULL) {
        unlinkat(f->dirfd, f->temp, 0);
        free(take_ptr(&f->temp));
    }
    if (f->dirfd != AT_FDCWD)
        close(f->dirfd);
    f->dirfd = AT_FDCWD;
}

static int read_fn(void *arg)
{
    struct call *call = arg;

    while ((size_t)call->moved < call->len) {
        ssize_t n =
            read(call->f->fd, (char *)call->buf + call->moved, call->len - (size_t)call->moved);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        call->moved += n;
        if (n == 0 || call->flag)
            break;
    }
    return 0;
}

ssize_t cli_file_read(struct rt_task *t, struct cli_file *f, void *buf, size_t len)
{
    size_t at = 0;

    /* What may make us wait for ever (a terminal, a pipe) is waited for where a signal ends it. */
    while (at < len) {
        struct call call = {.f = f, .buf = (char *)buf + at, .len = len - at, .flag = !f->regular};
        int rc = f->regular ? 0 : rt_fd_readable(t, f->fd);

        if (rc == -EPERM) /* a device that is always readable, such as /dev/zero */
            rc = 0;
        if (rc >= 0)
            rc = rt_offload(t, read_fn, &call);
        if (rc < 0)
            return rc;
        at += (size_t)call.moved;
        if (call.moved == 0 || f->regular)
            break;
    }
    return (ssize_t)at;
}

static int write_all(int fd, const char *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, buf, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        buf += n;
        len -= (size_t)n;
    }
    return 0;
}

#define SPARSE_BYTES 65536u

/* Skips the pieces that are zero; commit sets the length. */
static int write_sparse(int fd, const char *buf, size_t len)
{
    while (len > 0) {
        size_t run = MIN(len, SPARSE_BYTES);
        bool zero = bytes_are_zero(buf, run);
        int rc = 0;

        while (run < len && bytes_are_zero(buf + run, MIN(len - run, SPARSE_BYTES)) == zero)
            run += MIN(len - run, SPARSE_BYTES);
        if (!zero)
            rc = write_all(fd, buf, run);
        else if (lseek(fd, (off_t)run, SEEK_CUR) < 0)
            rc = -errno;
        if (rc < 0)
            return rc;
        buf += run;
        len -= run;
    }
    return 0;
}

static int write_fn(void *arg)
{
    struct call *call = arg;

    if (call->f->sparse)
        return write_sparse(call->f->fd, call->buf, call->len);
    return write_all(call->f->fd, call->buf, call->len);
}

int cli_file_write(struct rt_task *t, struct cli_file *f, const void *buf, size_t len)
{
    struct call call = {.f = f, .buf = (void *)buf, .len = len};

    return len == 0 ? 0 : rt_offload(t, write_fn, &call);
}

static int spool_open_fn(void *arg)
{
    struct call *call = arg;
    const char *dir = getenv("TMPDIR");
    FILE *file;

    if (dir == NULL)
        dir = "/tmp";
    call->f->fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (call->f->fd >= 0)
        return 0;
    file = tmpfile(); /* file systems without O_TMPFILE */
    if (file == NULL)
        return -errno;
    call->f->fd = fcntl(fileno(file), F_DUPFD_CLOEXEC, 3);
    fclose(file);
    return call->f->fd < 0 ? -errno : 0;
}

static int rewind_fn(void *arg)
{
    struct call *call = arg;

    if (lseek(call->f->fd, 0, SEEK_SET) < 0)
        return -errno;
    look_at(call->f);
    return 0;
}

int cli_file_spool(struct rt_task *t, struct cli_file *in, void *buf, size_t buf_bytes,
                   struct cli_file *out, struct err *why)
{
    struct call call = {.f = out};
    ssize_t n;
    int rc;

    *out = CLI_FILE_CLOSED;
    out->name = in->name;
    rc = rt_offload(t, spool_open_fn, &call);
    while (rc == 0) {
        n = cli_file_read(t, in, buf, buf_bytes);
        if (n <= 0) {
            rc = (int)n;
            break;
        }
        rc = cli_file_write(t, out, buf, (size_t)n);
    }
    if (rc == 0)
        rc = rt_offload(t, rewind_fn, &call);
    if (rc < 0) {
        cli_file_close_p(out);
        return err_set(why, rc, "keeping %s in a temporary file (TMPDIR): %s", in->name,
                       err_str(rc));
    }
    return 0;
}

static ssize_t source_read(struct rt_task *t, struct xfer_source *src, void *buf, size_t len)
{
    struct cli_file_source *s = container_of(src, struct cli_file_source, source);
    ssize_t n = cli_file_read(t, s->file, buf, len);

    if (n > 0 && s->progress != NULL)
        cli_progress_add(s->progress, (uint64_t)n);
    return n;
}

struct cli_file_source cli_file_source(struct cli_file *f, struct cli_progress *p)
{
    return (struct cli_file_source){
        .source = {.read = source_read, .name = f->name}, .file = f, .progress = p};
}

static int sink_write(struct rt_task *t, struct xfer_sink *sink, const void *buf, size_t len)
{
    struct cli_file_sink *s = container_of(sink, struct cli_file_sink, sink);
    int rc = cli_file_write(t, s->file, buf, len);

    if (rc == 0 && s->progress != NULL)
        cli_progress_add(s->progress, len);
    return rc;
}

struct cli_file_sink cli_file_sink(struct cli_file *f, struct cli_progress *p)
{
    return (struct cli_file_sink){
        .sink = {.write = sink_write, .name = f->name}, .file = f, .progress = p};
}
