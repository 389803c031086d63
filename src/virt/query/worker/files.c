/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file calls of the engine. libduckdb.so imports them by name, and what the executable
 * exports comes before the C library: so an object is a file to the engine, and there is no
 * other. Until qw_files_begin() the calls are the kernel's, since the engine reads /proc and /sys
 * while it starts. This is how bytes get in and out, not what keeps the statement in: that is
 * sandbox.c.
 */
/* Here open() is open() and open64() another name of it, not one renamed to the other. */
#undef _FILE_OFFSET_BITS
#include "virt/query/worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define FD_FIRST (1 << 20) /* far from those of the kernel */
#define FILES_MAX 256
#define ANSWER UINT_MAX

static_assert(sizeof(off_t) == 8, "offsets of files are 64 bits");

static struct file {
    bool open;
    unsigned object; /* or ANSWER */
    uint64_t pos;
    uint64_t next;  /* where the read before ended */
    unsigned again; /* reads in a row that began there */
} files[FILES_MAX];
static bool begun;

void qw_files_begin(void)
{
    begun = true;
}

void qw_files_reset(void)
{
    memset(files, 0, sizeof(files));
}

static int fail(int e)
{
    errno = e;
    return -1;
}

static struct file *file_of(int fd)
{
    if (fd < FD_FIRST || fd >= FD_FIRST + FILES_MAX || !files[fd - FD_FIRST].open)
        return NULL;
    return &files[fd - FD_FIRST];
}

/* Which object a path names, or ANSWER. */
static bool lookup(const char *path, unsigned *out)
{
    unsigned long n;
    char *end;

    if (strcmp(path, QW_PATH_ANSWER) == 0) {
        *out = ANSWER;
        return true;
    }
    if (strncmp(path, QW_PATH_OBJECT, strlen(QW_PATH_OBJECT)) != 0)
        return false;
    path += strlen(QW_PATH_OBJECT);
    if (*path < '0' || *path > '9')
        return false;
    n = strtoul(path, &end, 10);
    if (*end || n >= qw_objects_count())
        return false;
    *out = (unsigned)n;
    return true;
}

static int open_path(const char *path, int flags)
{
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    unsigned object;

    if (!lookup(path, &object))
        return fail(writes ? EACCES : ENOENT);
    if (writes != (object == ANSWER))
        return fail(EACCES);
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].open)
            continue;
        files[i] = (struct file){.open = true, .object = object};
        return FD_FIRST + i;
    }
    return fail(EMFILE);
}

static void fill_stat(unsigned object, struct stat *st)
{
    *st = (struct stat){.st_nlink = 1, .st_blksize = 4096, .st_ino = object + 1u};
    if (object == ANSWER) {
        st->st_mode = S_IFREG | 0200;
        return;
    }
    st->st_mode = S_IFREG | 0400;
    st->st_size = (off_t)qw_object_at(object)->size;
}

static int stat_path(const char *path, struct stat *st, int flags)
{
    unsigned object;

    if (!begun)
        return (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, flags);
    /* The answer is not there before it is written. */
    if (!lookup(path, &object) || object == ANSWER)
        return fail(ENOENT);
    fill_stat(object, st);
    return 0;
}

static ssize_t read_at(struct file *f, void *buf, size_t len, uint64_t off)
{
    bool ahead;
    ssize_t n;

    if (f->object == ANSWER)
        return fail(EBADF);
    f->again = off == f->next ? f->again + 1 : 0;
    /* A file's first read from its beginning says nothing yet about the second. */
    ahead = f->again >= 2 || (off == 0 && len >= QW_SLOT_BYTES);
    n = qw_object_read(f->object, off, buf, len, ahead);
    if (n > 0 && !qw_packed_whole(f, off, buf, (size_t)n, qw_object_at(f->object)->size)) {
        qw_object_fail(-EBADMSG);
        n = -1;
    }
    if (n < 0)
        return fail(EIO);
    f->next = off + (uint64_t)n;
    return n;
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list ap;
    int mode;

    va_start(ap, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
    va_end(ap);
    if (!begun)
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    return open_path(path, flags);
}

EXPORT int open64(const char *path, int flags, ...) __attribute__((alias("open")));

EXPORT int openat(int dir, const char *path, int flags, ...)
{
    va_list ap;
    int mode;

    va_start(ap, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
    va_end(ap);
    if (!begun)
        return (int)syscall(SYS_openat, dir, path, flags, mode);
    return open_path(path, flags);
}

EXPORT int openat64(int dir, const char *path, int flags, ...) __attribute__((alias("openat")));

EXPORT int creat(const char *path, mode_t mode)
{
    return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

EXPORT int close(int fd)
{
    struct file *f = file_of(fd);

    if (!f)
        return (int)syscall(SYS_close, fd);
    f->open = false;
    return 0;
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
    struct file *f = file_of(fd);
    ssize_t n;

    if (!f)
        return syscall(SYS_read, fd, buf, len);
    n = read_at(f, buf, len, f->pos);
    if (n > 0)
        f->pos += (uint64_t)n;
    return n;
}

EXPORT ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
    struct file *f = file_of(fd);

    if (!f)
        return syscall(SYS_pread64, fd, buf, len, off);
    if (off < 0)
        return fail(EINVAL);
    return read_at(f, buf, len, (uint64_t)off);
}

EXPORT ssize_t pread64(int fd, void *buf, size_t len, off_t off) __attribute__((alias("pread")));

EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
    struct file *f = file_of(fd);

    if (!f)
        return syscall(SYS_write, fd, buf, len);
    if (f->object != ANSWER)
        return fail(EBADF);
    if (len && qw_answer_put(NULL, buf, len) < 0)
        return fail(EIO);
    f->pos += len;
    return (ssize_t)len;
}

/* The answer goes out in order and cannot be corrected. */
EXPORT ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
    struct file *f = file_of(fd);

    if (!f)
        return syscall(SYS_pwrite64, fd, buf, len, off);
    if (off < 0 || (uint64_t)off != f->pos)
        return fail(ESPIPE);
    return write(fd, buf, len);
}

EXPORT ssize_t pwrite64(int fd, const void *buf, size_t len, off_t off)
    __attribute__((alias("pwrite")));

EXPORT off_t lseek(int fd, off_t off, int whence)
{
    struct file *f = file_of(fd);
    int64_t base = 0;

    if (!f)
        return syscall(SYS_lseek, fd, off, whence);
    if (whence == SEEK_CUR)
        base = (int64_t)f->pos;
    else if (whence == SEEK_END && f->object != ANSWER)
        base = (int64_t)qw_object_at(f->object)->size;
    else if (whence == SEEK_END)
        base = (int64_t)f->pos;
    else if (whence != SEEK_SET)
        return fail(EINVAL);
    if (__builtin_add_overflow(base, off, &base) || base < 0)
        return fail(EINVAL);
    if (f->object == ANSWER && (uint64_t)base != f->pos)
        return fail(ESPIPE);
    f->pos = (uint64_t)base;
    return base;
}

EXPORT off_t lseek64(int fd, off_t off, int whence) __attribute__((alias("lseek")));

EXPORT int fstat(int fd, struct stat *st)
{
    struct file *f = file_of(fd);

    if (!f)
        return (int)syscall(SYS_fstat, fd, st);
    fill_stat(f->object, st);
    return 0;
}

EXPORT int stat(const char *path, struct stat *st)
{
    return stat_path(path, st, 0);
}

EXPORT int lstat(const char *path, struct stat *st)
{
    return stat_path(path, st, AT_SYMLINK_NOFOLLOW);
}

/* The library was linked where fstat() and stat() were these. */
EXPORT int __fxstat(int version, int fd, struct stat *st);
EXPORT int __xstat(int version, const char *path, struct stat *st);
EXPORT int __lxstat(int version, const char *path, struct stat *st);

int __fxstat(int version, int fd, struct stat *st)
{
    (void)version;
    return fstat(fd, st);
}

int __xstat(int version, const char *path, struct stat *st)
{
    (void)version;
    return stat_path(path, st, 0);
}

int __lxstat(int version, const char *path, struct stat *st)
{
    (void)version;
    return stat_path(path, st, AT_SYMLINK_NOFOLLOW);
}

EXPORT int access(const char *path, int mode)
{
    struct stat st;

    if (!begun)
        return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
    if (stat_path(path, &st, 0) < 0)
        return -1;
    return mode & (W_OK | X_OK) ? fail(EACCES) : 0;
}

EXPORT char *realpath(const char *path, char *out)
{
    struct stat st;

    if (begun && stat_path(path, &st, 0) < 0)
        return NULL;
    if (!begun) {
        char *real = canonicalize_file_name(path);

        if (!real || !out)
            return real;
        snprintf(out, PATH_MAX, "%s", real);
        free(real);
        return out;
    }
    if (!out)
        return strdup(path);
    memcpy(out, path, strlen(path) + 1);
    return out;
}

/* Locks are asked for and not needed: nobody else has these files. */
EXPORT int fcntl(int fd, int cmd, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, cmd);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (!file_of(fd))
        return (int)syscall(SYS_fcntl, fd, cmd, arg);
    return 0;
}

EXPORT int fcntl64(int fd, int cmd, ...) __attribute__((alias("fcntl")));

EXPORT int ftruncate(int fd, off_t len)
{
    struct file *f = file_of(fd);

    if (!f)
        return (int)syscall(SYS_ftruncate, fd, len);
    return f->object == ANSWER && (uint64_t)len == f->pos ? 0 : fail(EINVAL);
}

EXPORT int fsync(int fd)
{
    return file_of(fd) ? 0 : (int)syscall(SYS_fsync, fd);
}
