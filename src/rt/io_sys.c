/* SPDX-License-Identifier: Apache-2.0 */
/* File operations by plain system calls, for threads that may block. */
#include "rt/internal.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int rc_of(long rc)
{
    return rc < 0 ? -errno : (int)rc;
}

/* What getdents64 writes; glibc does not declare it without a DIR. */
struct sys_dirent {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

/* Turns the kernel's records into ours in place: ours are smaller, so writing never overtakes. */
static int sys_readdir(struct rt_io *io)
{
    uint8_t *buf = io->buf;
    size_t used = 0;
    long n;

    if (io->off == 0 && lseek(io->fd, 0, SEEK_SET) < 0)
        return -errno;
    n = syscall(SYS_getdents64, io->fd, buf, io->len);
    if (n < 0)
        return -errno;
    for (long at = 0; at < n;) {
        const struct sys_dirent *in = (const void *)(buf + at);
        struct rt_dirent *out = (void *)(buf + used);
        size_t name_len = strlen(in->name) + 1;
        uint8_t type = in->type;
        uint16_t size = (uint16_t)round_up_u64(offsetof(struct rt_dirent, name) + name_len, 2);

        at += in->reclen;
        memmove(out->name, in->name, name_len);
        out->size = size;
        out->type = type;
        used += size;
    }
    return (int)used;
}

static int sys_geometry(struct rt_io *io)
{
    struct rt_geometry g = {.logical_block_bytes = 512, .physical_block_bytes = 4096};
    struct stat st;

    if (fstat(io->fd, &st) != 0)
        return -errno;
    if (S_ISREG(st.st_mode)) {
        g.size_bytes = (uint64_t)st.st_size;
        g.physical_block_bytes = (uint32_t)st.st_blksize;
    } else if (S_ISBLK(st.st_mode)) {
        int logical = 512;
        unsigned physical = 4096;

        g.is_block_device = true;
        if (ioctl(io->fd, BLKGETSIZE64, &g.size_bytes) != 0 ||
            ioctl(io->fd, BLKSSZGET, &logical) != 0)
            return -errno;
        ioctl(io->fd, BLKPBSZGET, &physical);
        g.logical_block_bytes = (uint32_t)logical;
        g.physical_block_bytes = physical;
    } else {
        return -EINVAL;
    }
    *io->geo = g;
    return 0;
}

static int sys_stat(struct rt_io *io)
{
    return rc_of(fstatat(io->fd, io->path, io->st, AT_EMPTY_PATH | io->flags));
}

int rt_io_sys(struct rt_io *io)
{
    switch ((enum rt_io_op)io->op) {
    case RT_IO_READV:
        return rc_of(preadv(io->fd, io->iov, (int)io->iovcnt, (off_t)io->off));
    case RT_IO_WRITEV:
        return rc_of(pwritev(io->fd, io->iov, (int)io->iovcnt, (off_t)io->off));
    case RT_IO_FSYNC:
        return rc_of(fsync(io->fd));
    case RT_IO_FDATASYNC:
        return rc_of(fdatasync(io->fd));
    case RT_IO_FALLOCATE:
        return rc_of(fallocate(io->fd, io->flags, (off_t)io->off, (off_t)io->len));
    case RT_IO_FTRUNCATE:
        return rc_of(ftruncate(io->fd, (off_t)io->len));
    case RT_IO_OPEN:
        return rc_of(openat(io->fd, io->path, io->flags | O_CLOEXEC, io->mode));
    case RT_IO_CLOSE:
        return rc_of(close(io->fd));
    case RT_IO_RENAME:
        return rc_of(renameat2(io->fd, io->path, io->fd2, io->path2, (unsigned)io->flags));
    case RT_IO_LINK:
        return rc_of(linkat(io->fd, io->path, io->fd2, io->path2, 0));
    case RT_IO_UNLINK:
        return rc_of(unlinkat(io->fd, io->path, io->flags));
    case RT_IO_MKDIR:
        return rc_of(mkdirat(io->fd, io->path, io->mode));
    case RT_IO_STAT:
        return sys_stat(io);
    case RT_IO_READDIR:
        return sys_readdir(io);
    case RT_IO_LOCK:
        return rc_of(flock(io->fd, io->flags));
    case RT_IO_GEOMETRY:
        return sys_geometry(io);
    }
    return -EINVAL;
}

/* The request that carries an rt_io to the pool lives in the rt_io. */
static_assert(sizeof(struct rt_offload_req) <= sizeof(((struct rt_io *)0)->backend),
              "an offload request fits into rt_io.backend");

static int io_fn(void *arg)
{
    return rt_io_sys(arg);
}

static void io_offload_done(struct rt_req *req)
{
    struct rt_offload_req *o = container_of(req, struct rt_offload_req, req);
    struct rt_io *io = o->arg;

    rt_req_complete(&io->req, req->rc);
}

void rt_io_offload(struct rt_reactor *r, struct rt_io *io)
{
    struct rt_offload_req *o = (struct rt_offload_req *)io->backend;

    *o = (struct rt_offload_req){.fn = io_fn, .arg = io};
    rt_req_init(&o->req, io_offload_done);
    rt_req_begin(&o->req);
    rt_offload_thread(r, o);
}
