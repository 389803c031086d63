/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of programs, with the faults of the weather. */
#include "sim/fs_internal.h"

#include "base/bytes.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#define FILE_MAX_BYTES (1 * GIB)

/* --- names -------------------------------------------------------------------------------------
 */

/* Finds the directory of the last part of a path, and that part ("" for the root). */
static int walk(struct sim_fs *fs, struct inode *from, const char *path, struct inode **out_dir,
                char out_last[NAME_MAX + 1])
{
    struct inode *dir = path[0] == '/' ? fs->root : from;
    const char *at = path + strspn(path, "/");

    for (;;) {
        size_t len = strcspn(at, "/");
        struct entry *e;

        if (len > NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(out_last, at, len);
        out_last[len] = '\0';
        at += len;
        at += strspn(at, "/");
        if (*at == '\0')
            break;
        if (strcmp(out_last, ".") == 0)
            continue;
        e = sim_entry_find(&dir->entries, out_last);
        if (e == NULL)
            return -ENOENT;
        if (!e->inode->is_dir)
            return -ENOTDIR;
        dir = e->inode;
    }
    *out_dir = dir;
    return 0;
}

/* The directory an operation starts from. */
static struct inode *base_of(struct sim_machine *m, int fd)
{
    struct file *f;

    if (fd == AT_FDCWD)
        return m->fs->root;
    f = sim_fd_get(m, fd, SIM_FD_FILE);
    return f != NULL ? f->inode : NULL;
}

struct place {
    struct inode *dir;
    struct inode *inode; /* NULL: nothing has that name */
    char name[NAME_MAX + 1];
};

static int place_find(struct sim_machine *m, int fd, const char *path, struct place *out)
{
    struct inode *from = base_of(m, fd);
    struct entry *e;
    int rc;

    if (from == NULL)
        return -EBADF;
    if (!from->is_dir)
        return -ENOTDIR;
    rc = walk(m->fs, from, path, &out->dir, out->name);
    if (rc < 0)
        return rc;
    out->inode = NULL;
    if (out->name[0] == '\0' || strcmp(out->name, ".") == 0) {
        out->inode = out->dir;
        return 0;
    }
    e = sim_entry_find(&out->dir->entries, out->name);
    if (e != NULL)
        out->inode = e->inode;
    return 0;
}

/* --- operations --------------------------------------------------------------------------------
 */

static uint64_t used_bytes(const struct sim_fs *fs)
{
    const struct inode *n;
    uint64_t used = 0;

    list_for_each (n, &fs->inodes, struct inode, link)
        used += n->nlink > 0 || n->opens > 0 ? n->now.size : 0;
    return used;
}

static bool is_full(const struct sim_fs *fs, uint64_t more)
{
    if (sim_chance(&sim.disk, sim.weather.disk_enospc_ppm)) {
        sim.nfaults++;
        return true;
    }
    return sim.weather.disk_bytes > 0 && used_bytes(fs) + more > sim.weather.disk_bytes;
}

static bool fault(uint32_t ppm)
{
    if (!sim_chance(&sim.disk, ppm))
        return false;
    sim.nfaults++;
    return true;
}

static int fs_open(struct sim_machine *m, struct rt_io *io)
{
    struct sim_fs *fs = m->fs;
    struct place p;
    struct file *f;
    int rc = place_find(m, io->fd, io->path, &p);

    if (rc < 0)
        return rc;
    if ((io->flags & O_TMPFILE) == O_TMPFILE)
        return -EOPNOTSUPP;
    if (p.inode == NULL) {
        if ((io->flags & O_CREAT) == 0)
            return -ENOENT;
        if (is_full(fs, 0))
            return -ENOSPC;
        p.inode = sim_inode_new(fs, false, io->mode);
        sim_dir_change(fs, p.dir, p.name, p.inode, NULL, NULL, NULL);
    } else if ((io->flags & O_CREAT) != 0 && (io->flags & O_EXCL) != 0) {
        return -EEXIST;
    }
    if (p.inode->is_dir && (io->flags & O_ACCMODE) != O_RDONLY)
        return -EISDIR;
    if (!p.inode->is_dir && (io->flags & O_DIRECTORY) != 0)
        return -ENOTDIR;
    if ((io->flags & O_TRUNC) != 0 && p.inode->now.size > 0)
        sim_inode_change(p.inode, 0, 0, NULL, true);
    f = calloc(1, sizeof(*f));
    must(f != NULL);
    *f = (struct file){.inode = p.inode, .flags = io->flags};
    p.inode->opens++;
    rc = sim_fd_new(m, SIM_FD_FILE, f);
    must(rc >= 0);
    return rc;
}

static void file_unlock(struct file *f)
{
    if (f->lock == LOCK_EX)
        f->inode->locked = false;
    else if (f->lock == LOCK_SH)
        f->inode->locks_shared--;
    f->lock = 0;
}

static int fs_close(struct sim_machine *m, struct rt_io *io)
{
    struct file *f = sim_fd_get(m, io->fd, SIM_FD_FILE);

    if (f == NULL)
        return -EBADF;
    file_unlock(f);
    f->inode->opens--;
    free(f);
    sim_fd_free(m, io->fd);
    sim_fs_sweep(m->fs);
    return 0;
}

/* O_DIRECT asks for alignment of memory, offset and length. */
static bool aligned(const struct file *f, const struct rt_io *io)
{
    if ((f->flags & O_DIRECT) == 0)
        return true;
    if (io->off % SIM_SECTOR_BYTES != 0)
        return false;
    for (unsigned i = 0; i < io->iovcnt; i++) {
        if ((uintptr_t)io->iov[i].iov_base % SIM_SECTOR_BYTES != 0 ||
            io->iov[i].iov_len % SIM_SECTOR_BYTES != 0)
            return false;
    }
    return true;
}

/* A transfer may move less than all: a read through the cache any bytes, else whole sectors. */
static size_t may_be_short(const struct file *f, size_t len, bool read)
{
    size_t unit = (f->flags & O_DIRECT) != 0 || !read ? SIM_SECTOR_BYTES : 1;

    if (len <= unit || !fault(sim.weather.disk_short_ppm))
        return len;
    return sim_between(&sim.disk, 1, len / unit) * unit;
}

static int fs_read(const struct file *f, const struct rt_io *io)
{
    const struct content *c = &f->inode->now;
    size_t len = iov_len(io->iov, io->iovcnt);

    if (f->inode->is_dir)
        return -EISDIR;
    if ((f->flags & O_ACCMODE) == O_WRONLY)
        return -EBADF;
    if (!aligned(f, io))
        return -EINVAL;
    if (fault(sim.weather.disk_eio_ppm))
        return -EIO;
    if (io->off >= c->size)
        return 0;
    len = may_be_short(f, (size_t)MIN((uint64_t)len, c->size - io->off), true);
    iov_copy_in(io->iov, io->iovcnt, 0, c->data + io->off, len);
    return (int)len;
}

static int fs_write(struct sim_machine *m, const struct file *f, const struct rt_io *io)
{
    struct inode *n = f->inode;
    size_t len = iov_len(io->iov, io->iovcnt);
    uint8_t *copy;

    if (n->is_dir || (f->flags & O_ACCMODE) == O_RDONLY)
        return -EBADF;
    if (!aligned(f, io))
        return -EINVAL;
    if (io->off + len > FILE_MAX_BYTES)
        return -EFBIG;
    if (fault(sim.weather.disk_eio_ppm))
        return -EIO;
    if (io->off + len > n->now.size && is_full(m->fs, io->off + len - n->now.size))
        return -ENOSPC;
    len = may_be_short(f, len, false);
    copy = malloc(MAX(len, 1u));
    must(copy != NULL);
    iov_copy_out(io->iov, io->iovcnt, 0, copy, len);
    sim_inode_change(n, io->off, len, copy, false);
    free(copy);
    return (int)len;
}

/*
 * A failed sync forgets: what it did not write counts as written. While the program has not heard
 * of it, other syncs of the file fail as well: no program could tell which came first.
 */
static int fs_sync(struct sim_machine *m, const struct file *f)
{
    struct inode *n = f->inode;
    struct dirty *d;

    if (n->failed_syncs > 0 || fault(sim.weather.disk_fsync_eio_ppm)) {
        n->failed_syncs++;
        list_for_each (d, &n->dirty, struct dirty, link) {
            if (!d->resize && sim_chance(&sim.disk, 500000))
                sim_dirty_free(n, d);
        }
        return -EIO;
    }
    if (n->is_dir)
        sim_dir_sync(m->fs, n);
    else
        sim_inode_sync(n);
    return 0;
}

void sim_fs_sync_told(struct sim_machine *m, const struct rt_io *io)
{
    struct file *f = sim_fd_get(m, io->fd, SIM_FD_FILE);

    must(f != NULL);
    must(f->inode->failed_syncs > 0);
    f->inode->failed_syncs--;
}

static int fs_fallocate(struct sim_machine *m, const struct file *f, const struct rt_io *io)
{
    struct inode *n = f->inode;
    int mode = io->flags & ~FALLOC_FL_KEEP_SIZE;
    bool keep = (io->flags & FALLOC_FL_KEEP_SIZE) != 0;
    uint64_t end = io->off + io->len;

    if (io->len == 0 || n->is_dir || (f->flags & O_ACCMODE) == O_RDONLY)
        return -EINVAL;
    if (fault(sim.weather.disk_eio_ppm))
        return -EIO;
    if (end > n->now.size && !keep && is_full(m->fs, end - n->now.size))
        return -ENOSPC;
    if (mode == FALLOC_FL_PUNCH_HOLE || mode == FALLOC_FL_ZERO_RANGE) {
        if (mode == FALLOC_FL_PUNCH_HOLE && !keep)
            return -EOPNOTSUPP;
        if (keep)
            end = MIN(end, n->now.size);
        if (io->off < end)
            sim_inode_change(n, io->off, end - io->off, NULL, false);
        return 0;
    }
    if (mode != 0)
        return -EOPNOTSUPP;
    if (end > n->now.size && !keep)
        sim_inode_change(n, end, 0, NULL, true);
    return 0;
}

static int fs_truncate(struct sim_machine *m, const struct file *f, const struct rt_io *io)
{
    if (f->inode->is_dir || (f->flags & O_ACCMODE) == O_RDONLY)
        return -EINVAL;
    if (io->len > FILE_MAX_BYTES)
        return -EFBIG;
    if (io->len > f->inode->now.size && is_full(m->fs, 0))
        return -ENOSPC;
    sim_inode_change(f->inode, io->len, 0, NULL, true);
    return 0;
}

static bool dir_empty(const struct inode *n)
{
    return list_empty(&n->entries);
}

static int fs_rename(struct sim_machine *m, const struct rt_io *io)
{
    struct place from, to;
    int rc = place_find(m, io->fd, io->path, &from);

    if (rc == 0)
        rc = place_find(m, io->fd2, io->path2, &to);
    if (rc < 0)
        return rc;
    if (from.inode == NULL)
        return -ENOENT;
    if (to.inode != NULL && (io->flags & 1 /* RENAME_NOREPLACE */) != 0)
        return -EEXIST;
    if (fault(sim.weather.disk_eio_ppm))
        return -EIO;
    if (from.inode == to.inode)
        return 0;
    if (to.inode != NULL && to.inode->is_dir != from.inode->is_dir)
        return to.inode->is_dir ? -EISDIR : -ENOTDIR;
    if (to.inode != NULL && to.inode->is_dir && !dir_empty(to.inode))
        return -ENOTEMPTY;
    sim_dir_change(m->fs, to.dir, to.name, from.inode, from.dir, from.name, NULL);
    return 0;
}

static int fs_link(struct sim_machine *m, const struct rt_io *io)
{
    struct place from, to;
    int rc = place_find(m, io->fd, io->path, &from);

    if (rc == 0)
        rc = place_find(m, io->fd2, io->path2, &to);
    if (rc < 0)
        return rc;
    if (from.inode == NULL)
        return -ENOENT;
    if (from.inode->is_dir)
        return -EPERM;
    if (to.inode != NULL)
        return -EEXIST;
    if (fault(sim.weather.disk_eio_ppm))
        return -EIO;
    sim_dir_change(m->fs, to.dir, to.name, from.inode, NULL, NULL, NULL);
    return 0;
}

static int fs_unlink(struct sim_machine *m, const struct rt_io *io)
{
    bool want_dir = (io->flags & AT_REMOVEDIR) != 0;
    struct place p;
    int rc = place_find(m, io->fd, io->path, &p);

    if (rc < 0)
        return rc;
    if (p.inode == NULL)
        return -ENOENT;
    if (p.inode->is_dir != want_dir)
        return want_dir ? -ENOTDIR : -EISDIR;
    if (want_dir && !dir_empty(p.inode))
        return -ENOTEMPTY;
    if (fault(sim.weather.disk_eio_ppm))
        return -EIO;
    sim_dir_change(m->fs, p.dir, p.name, NULL, NULL, NULL, NULL);
    return 0;
}

static int fs_mkdir(struct sim_machine *m, const struct rt_io *io)
{
    struct place p;
    int rc = place_find(m, io->fd, io->path, &p);

    if (rc < 0)
        return rc;
    if (p.inode != NULL)
        return -EEXIST;
    if (is_full(m->fs, 0))
        return -ENOSPC;
    sim_dir_change(m->fs, p.dir, p.name, sim_inode_new(m->fs, true, io->mode), NULL, NULL, NULL);
    return 0;
}

static int fs_stat(struct sim_machine *m, const struct rt_io *io)
{
    struct inode *n;
    struct place p;
    int rc;

    if (io->path[0] == '\0') {
        n = base_of(m, io->fd);
        if (n == NULL)
            return -EBADF;
    } else {
        rc = place_find(m, io->fd, io->path, &p);
        if (rc < 0)
            return rc;
        if (p.inode == NULL)
            return -ENOENT;
        n = p.inode;
    }
    memset(io->st, 0, sizeof(*io->st));
    io->st->st_dev = 1;
    io->st->st_ino = n->ino;
    io->st->st_mode = (n->is_dir ? S_IFDIR : S_IFREG) | n->mode;
    io->st->st_nlink = n->nlink;
    io->st->st_size = (off_t)n->now.size;
    io->st->st_blksize = 4096;
    io->st->st_blocks = (blkcnt_t)((n->now.size + 511) / 512);
    io->st->st_mtim = (struct timespec){.tv_sec = (time_t)(n->mtime_ns / NS_PER_S),
                                        .tv_nsec = (long)(n->mtime_ns % NS_PER_S)};
    io->st->st_ctim = io->st->st_atim = io->st->st_mtim;
    return 0;
}

/* Entries are given by cookie: what is there from begin to end of a walk appears exactly once. */
static int fs_readdir(struct file *f, const struct rt_io *io)
{
    const struct entry *e;
    size_t used = 0;

    if (!f->inode->is_dir)
        return -ENOTDIR;
    if (io->off == 0)
        f->dir_pos = 0;
    list_for_each (e, &f->inode->entries, struct entry, link) {
        size_t name_len = strlen(e->name) + 1;
        size_t size = round_up_u64(offsetof(struct rt_dirent, name) + name_len, 2);
        struct rt_dirent *out = (void *)((uint8_t *)io->buf + used);

        if (e->cookie <= f->dir_pos)
            continue;
        if (used + size > io->len)
            return used > 0 ? (int)used : -EINVAL;
        out->size = (uint16_t)size;
        out->type = e->inode->is_dir ? DT_DIR : DT_REG;
        memcpy(out->name, e->name, name_len);
        used += size;
        f->dir_pos = e->cookie;
    }
    return (int)used;
}

static int fs_lock(struct file *f, const struct rt_io *io)
{
    struct inode *n = f->inode;
    int want = io->flags & (LOCK_SH | LOCK_EX);

    file_unlock(f);
    if ((io->flags & LOCK_UN) != 0)
        return 0;
    if (n->locked || (want == LOCK_EX && n->locks_shared > 0))
        return -EWOULDBLOCK;
    if (want == LOCK_EX)
        n->locked = true;
    else
        n->locks_shared++;
    f->lock = want;
    return 0;
}

static int fs_geometry(const struct file *f, const struct rt_io *io)
{
    if (f->inode->is_dir)
        return -EINVAL;
    *io->geo = (struct rt_geometry){.size_bytes = f->inode->now.size,
                                    .logical_block_bytes = SIM_SECTOR_BYTES,
                                    .physical_block_bytes = 4096};
    return 0;
}

static int with_file(struct sim_machine *m, struct rt_io *io)
{
    struct file *f = sim_fd_get(m, io->fd, SIM_FD_FILE);

    if (f == NULL)
        return -EBADF;
    switch ((enum rt_io_op)io->op) {
    case RT_IO_READV:
        return fs_read(f, io);
    case RT_IO_WRITEV:
        return fs_write(m, f, io);
    case RT_IO_FSYNC:
    case RT_IO_FDATASYNC:
        return fs_sync(m, f);
    case RT_IO_FALLOCATE:
        return fs_fallocate(m, f, io);
    case RT_IO_FTRUNCATE:
        return fs_truncate(m, f, io);
    case RT_IO_READDIR:
        return fs_readdir(f, io);
    case RT_IO_LOCK:
        return fs_lock(f, io);
    case RT_IO_GEOMETRY:
        return fs_geometry(f, io);
    default:
        return -EINVAL;
    }
}

int sim_fs_do(struct sim_machine *m, struct rt_io *io)
{
    switch ((enum rt_io_op)io->op) {
    case RT_IO_OPEN:
        return fs_open(m, io);
    case RT_IO_CLOSE:
        return fs_close(m, io);
    case RT_IO_RENAME:
        return fs_rename(m, io);
    case RT_IO_LINK:
        return fs_link(m, io);
    case RT_IO_UNLINK:
        return fs_unlink(m, io);
    case RT_IO_MKDIR:
        return fs_mkdir(m, io);
    case RT_IO_STAT:
        return fs_stat(m, io);
    default:
        return with_file(m, io);
    }
}

const char *sim_fs_text(const struct rt_io *io)
{
    static const char *const names[] = {
        "readv",  "writev", "fsync",  "fdatasync", "fallocate", "ftruncate", "open",  "close",
        "rename", "link",   "unlink", "mkdir",     "stat",      "readdir",   "flock", "geometry"};
    static char text[160];

    switch ((enum rt_io_op)io->op) {
    case RT_IO_OPEN:
    case RT_IO_UNLINK:
    case RT_IO_MKDIR:
    case RT_IO_STAT:
        snprintf(text, sizeof(text), "%s %.100s", names[io->op], io->path);
        break;
    case RT_IO_RENAME:
    case RT_IO_LINK:
        snprintf(text, sizeof(text), "%s %.60s %.60s", names[io->op], io->path, io->path2);
        break;
    case RT_IO_READV:
    case RT_IO_WRITEV:
        snprintf(text, sizeof(text), "%s %d off %llu len %zu", names[io->op], io->fd,
                 (unsigned long long)io->off, iov_len(io->iov, io->iovcnt));
        break;
    default:
        snprintf(text, sizeof(text), "%s %d off %llu len %llu flags %x", names[io->op], io->fd,
                 (unsigned long long)io->off, (unsigned long long)io->len, (unsigned)io->flags);
        break;
    }
    return text;
}
