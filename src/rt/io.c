/* SPDX-License-Identifier: Apache-2.0 */
#include "rt/io.h"

#include "rt/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

static void io_cancel(struct rt_req *req)
{
    struct rt_reactor *r = self_must();

    r->rt->ops->io_cancel(r, container_of(req, struct rt_io, req));
}

void rt_io_submit(struct rt_io *io)
{
    struct rt_reactor *r = self_must();

    io->req.cancel = io_cancel;
    rt_req_begin(&io->req);
    r->rt->ops->io_submit(r, io);
}

static int io_run(struct rt_task *t, struct rt_io *io)
{
    rt_req_init_task(&io->req, t);
    rt_io_submit(io);
    return rt_wait(t, &io->req);
}

int rt_open(struct rt_task *t, int dirfd, const char *path, int flags, unsigned mode)
{
    struct rt_io io = {.op = RT_IO_OPEN, .fd = dirfd, .path = path, .flags = flags, .mode = mode};

    return io_run(t, &io);
}

int rt_close(struct rt_task *t, int fd)
{
    struct rt_io io = {.op = RT_IO_CLOSE, .fd = fd};
    int rc;

    rt_task_shield(t, true);
    rc = io_run(t, &io);
    rt_task_shield(t, false);
    return rc;
}

static void close_done(struct rt_req *req)
{
    free(container_of(req, struct rt_io, req));
}

void rt_close_p(int *fd)
{
    struct rt_io *io;

    if (*fd < 0)
        return;
    io = calloc(1, sizeof(*io));
    must(io != NULL);
    io->op = RT_IO_CLOSE;
    io->fd = *fd;
    rt_req_init(&io->req, close_done);
    rt_io_submit(io);
    *fd = -1;
}

static ssize_t io_data(struct rt_task *t, int op, int fd, void *buf, size_t len, uint64_t off)
{
    struct iovec iov = {.iov_base = buf, .iov_len = MIN(len, (size_t)INT_MAX & ~(size_t)4095)};
    struct rt_io io = {.op = (uint8_t)op, .fd = fd, .iov = &iov, .iovcnt = 1, .off = off};

    return io_run(t, &io);
}

ssize_t rt_pread(struct rt_task *t, int fd, void *buf, size_t len, uint64_t off)
{
    return io_data(t, RT_IO_READV, fd, buf, len, off);
}

ssize_t rt_pwrite(struct rt_task *t, int fd, const void *buf, size_t len, uint64_t off)
{
    return io_data(t, RT_IO_WRITEV, fd, (void *)(uintptr_t)buf, len, off);
}

static int io_data_all(struct rt_task *t, int op, int fd, void *buf, size_t len, uint64_t off)
{
    while (len > 0) {
        ssize_t n = io_data(t, op, fd, buf, len, off);

        if (n == -EINTR)
            continue;
        if (n < 0)
            return (int)n;
        if (n == 0)
            return -EIO;
        buf = (uint8_t *)buf + n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

int rt_pread_all(struct rt_task *t, int fd, void *buf, size_t len, uint64_t off)
{
    return io_data_all(t, RT_IO_READV, fd, buf, len, off);
}

int rt_pwrite_all(struct rt_task *t, int fd, const void *buf, size_t len, uint64_t off)
{
    return io_data_all(t, RT_IO_WRITEV, fd, (void *)(uintptr_t)buf, len, off);
}

int rt_fsync(struct rt_task *t, int fd)
{
    struct rt_io io = {.op = RT_IO_FSYNC, .fd = fd};

    return io_run(t, &io);
}

int rt_fdatasync(struct rt_task *t, int fd)
{
    struct rt_io io = {.op = RT_IO_FDATASYNC, .fd = fd};

    return io_run(t, &io);
}

int rt_fallocate(struct rt_task *t, int fd, int mode, uint64_t off, uint64_t len)
{
    struct rt_io io = {.op = RT_IO_FALLOCATE, .fd = fd, .flags = mode, .off = off, .len = len};

    return io_run(t, &io);
}

int rt_ftruncate(struct rt_task *t, int fd, uint64_t len)
{
    struct rt_io io = {.op = RT_IO_FTRUNCATE, .fd = fd, .len = len};

    return io_run(t, &io);
}

int rt_rename(struct rt_task *t, int dirfd, const char *from, int dirfd2, const char *to,
              unsigned flags)
{
    struct rt_io io = {.op = RT_IO_RENAME,
                       .fd = dirfd,
                       .path = from,
                       .fd2 = dirfd2,
                       .path2 = to,
                       .flags = (int)flags};

    return io_run(t, &io);
}

int rt_link(struct rt_task *t, int dirfd, const char *from, int dirfd2, const char *to)
{
    struct rt_io io = {.op = RT_IO_LINK, .fd = dirfd, .path = from, .fd2 = dirfd2, .path2 = to};

    return io_run(t, &io);
}

int rt_unlink(struct rt_task *t, int dirfd, const char *path, int flags)
{
    struct rt_io io = {.op = RT_IO_UNLINK, .fd = dirfd, .path = path, .flags = flags};

    return io_run(t, &io);
}

int rt_mkdir(struct rt_task *t, int dirfd, const char *path, unsigned mode)
{
    struct rt_io io = {.op = RT_IO_MKDIR, .fd = dirfd, .path = path, .mode = mode};

    return io_run(t, &io);
}

/* Makes the entry for path[0..len) durable by a sync of the directory it stands in. */
static int sync_parent(struct rt_task *t, char *path, size_t len)
{
    char last = path[len];
    char *slash;
    int fd, rc;

    path[len] = '\0';
    slash = strrchr(path, '/');
    if (slash == NULL) {
        fd = rt_open(t, AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0);
    } else {
        char kept = slash == path ? slash[1] : *slash;
        char *cut = slash == path ? slash + 1 : slash;

        *cut = '\0';
        fd = rt_open(t, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
        *cut = kept;
    }
    path[len] = last;
    if (fd < 0)
        return fd;
    rc = rt_fsync(t, fd);
    rt_close(t, fd);
    return rc;
}

int rt_mkdir_all(struct rt_task *t, const char *path, unsigned mode, bool sync)
{
    CLEANUP(free_p) char *p = strdup(path);
    size_t len = strlen(path);

    if (p == NULL)
        return -ENOMEM;
    for (size_t i = 1; i <= len; i++) {
        char kept = p[i];
        int rc;

        if (kept != '/' && kept != '\0')
            continue;
        if (p[i - 1] == '/')
            continue;
        p[i] = '\0';
        rc = rt_mkdir(t, AT_FDCWD, p, mode);
        p[i] = kept;
        if (rc < 0 && rc != -EEXIST)
            return rc;
        if (sync) {
            /* What was there may be the work of a process that was killed before its sync. */
            int sync_rc = sync_parent(t, p, i);

            if (sync_rc < 0 && (rc == 0 || sync_rc == -EIO))
                return sync_rc;
        }
    }
    return 0;
}

int rt_stat(struct rt_task *t, int dirfd, const char *path, struct stat *out_st)
{
    struct stat st;
    struct rt_io io = {.op = RT_IO_STAT, .fd = dirfd, .path = path, .st = &st};
    int rc = io_run(t, &io);

    if (rc == 0)
        *out_st = st;
    return rc;
}

int rt_readdir(struct rt_task *t, int fd, bool rewind, void *buf, size_t len)
{
    struct rt_io io = {
        .op = RT_IO_READDIR, .fd = fd, .off = rewind ? 0 : 1, .buf = buf, .len = len};

    return io_run(t, &io);
}

int rt_flock(struct rt_task *t, int fd, int flags)
{
    struct rt_io io = {.op = RT_IO_LOCK, .fd = fd, .flags = flags};

    return io_run(t, &io);
}

int rt_geometry(struct rt_task *t, int fd, struct rt_geometry *out_geo)
{
    struct rt_io io = {.op = RT_IO_GEOMETRY, .fd = fd, .geo = out_geo};

    return io_run(t, &io);
}

int rt_fd_readable(struct rt_task *t, int fd)
{
    struct rt_reactor *r = self_must();
    struct rt_io io = {.fd = fd};

    rt_req_init_task(&io.req, t);
    io.req.cancel = io_cancel;
    rt_req_begin(&io.req);
    r->rt->ops->fd_wait(r, &io);
    return rt_wait(t, &io.req);
}
