/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File I/O as requests. io_uring carries most operations itself; what it lacks, and everything
 * under the epoll backend, goes through the offload pool; sim has files of its own. Descriptors
 * are those of the backend: never hand them to a system call outside src/rt.
 */
#ifndef KVASIR_RT_IO_H
#define KVASIR_RT_IO_H

#include "rt/rt.h"

#include <sys/stat.h>
#include <sys/uio.h>

enum rt_io_op {
    RT_IO_READV,     /* fd, iov, iovcnt, off; len: of all, or 0; rc = bytes, may be short */
    RT_IO_WRITEV,    /* the same */
    RT_IO_FSYNC,     /* fd */
    RT_IO_FDATASYNC, /* fd */
    RT_IO_FALLOCATE, /* fd, flags (FALLOC_FL_*), off, len */
    RT_IO_FTRUNCATE, /* fd, len */
    RT_IO_OPEN,      /* fd (directory or AT_FDCWD), path, flags (O_*), mode; rc = descriptor */
    RT_IO_CLOSE,     /* fd */
    RT_IO_RENAME,    /* fd, path -> fd2, path2; flags (RENAME_NOREPLACE) */
    RT_IO_LINK,      /* fd, path -> fd2, path2: a hard link; -EEXIST when path2 is there */
    RT_IO_UNLINK,    /* fd, path, flags (AT_REMOVEDIR) */
    RT_IO_MKDIR,     /* fd, path, mode */
    RT_IO_STAT,      /* fd, path ("" = the descriptor itself); out: st */
    RT_IO_READDIR,   /* fd: directory; buf, len; out: rt_dirent records; rc = bytes used, 0 = end.
                        off 0 rewinds, 1 continues */
    RT_IO_LOCK,      /* fd, flags (LOCK_EX, LOCK_SH, with LOCK_NB): flock */
    RT_IO_GEOMETRY,  /* fd; out: geo */
};

/** One directory entry in the buffer of RT_IO_READDIR; the next one begins `size` bytes further. */
struct rt_dirent {
    uint16_t size;
    uint8_t type; /* DT_REG, DT_DIR, DT_UNKNOWN, ... */
    char name[];  /* NUL terminated */
};

/** What a file or block device is, for drivers that store blocks in it. */
struct rt_geometry {
    uint64_t size_bytes;
    uint32_t
        logical_block_bytes; /* alignment that O_DIRECT needs; 512 for regular files if unknown */
    uint32_t physical_block_bytes;
    bool is_block_device;
};

struct rt_io {
    struct rt_req req;
    uint8_t op; /* enum rt_io_op */
    int fd;
    int fd2;
    unsigned iovcnt;
    const struct iovec *iov;
    uint64_t off;
    uint64_t len;
    const char *path;
    const char *path2;
    void *buf;
    int flags;
    unsigned mode;
    struct stat *st;
    struct rt_geometry *geo;
    void *backend[16]; /* the backend's own */
};

/**
 * Begins the operation described by the fields; req has been initialised. Everything it points to
 * stays until completion. Errors come by completion, as negative errno.
 */
void rt_io_submit(struct rt_io *io);

/* The same for tasks. Each returns what the operation's rc is (see the table above). */
int rt_open(struct rt_task *t, int dirfd, const char *path, int flags, unsigned mode);
int rt_close(struct rt_task *t, int fd);
/** For CLEANUP: closes `*fd` when it is not negative, without waiting. */
void rt_close_p(int *fd);
/** Read/write exactly len bytes at off, in as many steps as needed. 0; -EIO at an early end of
 * file. */
int rt_pread_all(struct rt_task *t, int fd, void *buf, size_t len, uint64_t off);
int rt_pwrite_all(struct rt_task *t, int fd, const void *buf, size_t len, uint64_t off);
/** One step: bytes moved, may be short, 0 at the end of the file. */
ssize_t rt_pread(struct rt_task *t, int fd, void *buf, size_t len, uint64_t off);
ssize_t rt_pwrite(struct rt_task *t, int fd, const void *buf, size_t len, uint64_t off);
int rt_fsync(struct rt_task *t, int fd);
int rt_fdatasync(struct rt_task *t, int fd);
int rt_fallocate(struct rt_task *t, int fd, int mode, uint64_t off, uint64_t len);
int rt_ftruncate(struct rt_task *t, int fd, uint64_t len);
int rt_rename(struct rt_task *t, int dirfd, const char *from, int dirfd2, const char *to,
              unsigned flags);
int rt_link(struct rt_task *t, int dirfd, const char *from, int dirfd2, const char *to);
int rt_unlink(struct rt_task *t, int dirfd, const char *path, int flags);
int rt_mkdir(struct rt_task *t, int dirfd, const char *path, unsigned mode);
/** As mkdir -p; existing directories are fine. With `sync` all levels are durable then. */
int rt_mkdir_all(struct rt_task *t, const char *path, unsigned mode, bool sync);
int rt_stat(struct rt_task *t, int dirfd, const char *path, struct stat *out_st);
int rt_readdir(struct rt_task *t, int fd, bool rewind, void *buf, size_t len);
int rt_flock(struct rt_task *t, int fd, int flags);
int rt_geometry(struct rt_task *t, int fd, struct rt_geometry *out_geo);
/** Waits until a descriptor of this process (signalfd, terminal) is readable. Not in sim. */
int rt_fd_readable(struct rt_task *t, int fd);

#endif
