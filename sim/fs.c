/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/fs.h"

#include "base/bytes.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#define DIRTY_MAX_BYTES (4 * MIB) /* of one file: beyond it the oldest changes go to the disk */
#define FILE_MAX_BYTES (1 * GIB)
#define SWEEP_EVERY 64

/* A change of a file's data or size, on its way to the disk. */
struct dirty {
    struct list link;
    uint64_t off;
    uint64_t len;
    bool resize; /* to off; else bytes, or zeroes when data is NULL */
    uint8_t *data;
};

struct content {
    uint8_t *data;
    uint64_t size;
    uint64_t cap;
};

struct entry {
    struct list link;
    struct inode *inode;
    uint64_t cookie; /* place in the order of readdir */
    char name[];
};

struct inode {
    struct list link; /* fs->inodes */
    uint64_t ino;
    bool is_dir;
    unsigned nlink; /* entries that name it now */
    unsigned opens;
    unsigned locks_shared;
    unsigned failed_syncs; /* of which the program has not heard yet */
    bool locked;
    uint64_t mtime_ns;
    unsigned mode;
    struct content now, disk;
    struct list dirty;
    uint64_t dirty_bytes;
    struct list entries;      /* of a directory, now */
    struct list disk_entries; /* and on the disk */
    bool reached;             /* by the walk after a crash */
};

/* A change of directories, on its way to the disk: up to two entries are set, or removed. */
struct dir_change {
    struct list link;
    struct inode *dir[2]; /* NULL: unused */
    char *name[2];
    struct inode *inode[2]; /* NULL: removed */
};

struct sim_fs {
    struct list inodes;
    struct list dir_changes;
    struct inode *root;
    uint64_t next_ino;
    uint64_t next_cookie;
    unsigned sweep_in;
};

/* An open file. */
struct file {
    struct inode *inode;
    int flags;
    uint64_t dir_pos; /* cookie of the last entry given */
    int lock;         /* 0, LOCK_SH or LOCK_EX */
};

/* --- content -----------------------------------------------------------------------------------
 */

static void content_resize(struct content *c, uint64_t size)
{
    if (size > c->cap) {
        uint64_t cap = MAX(size, c->cap * 2);

        c->data = realloc(c->data, cap);
        must(c->data != NULL);
        c->cap = cap;
    }
    if (size > c->size)
        memset(c->data + c->size, 0, size - c->size);
    c->size = size;
}

static void content_write(struct content *c, uint64_t off, uint64_t len, const uint8_t *data)
{
    if (len == 0)
        return;
    if (off + len > c->size)
        content_resize(c, off + len);
    if (data == NULL)
        memset(c->data + off, 0, len);
    else
        memcpy(c->data + off, data, len);
}

static void dirty_free(struct inode *n, struct dirty *d)
{
    n->dirty_bytes -= d->data != NULL ? d->len : 0;
    list_del(&d->link);
    free(d->data);
    free(d);
}

static void dirty_to_disk(struct inode *n, struct dirty *d)
{
    if (d->resize)
        content_resize(&n->disk, d->off);
    else
        content_write(&n->disk, d->off, d->len, d->data);
    dirty_free(n, d);
}

static void sync_data(struct inode *n)
{
    while (!list_empty(&n->dirty))
        dirty_to_disk(n, list_first(&n->dirty, struct dirty, link));
}

/* Takes a change in: now for programs, later for the disk. data is copied; NULL means zeroes. */
static void change(struct inode *n, uint64_t off, uint64_t len, const uint8_t *data, bool resize)
{
    struct dirty *d = calloc(1, sizeof(*d));

    must(d != NULL);
    *d = (struct dirty){.off = off, .len = len, .resize = resize};
    if (resize)
        content_resize(&n->now, off);
    else
        content_write(&n->now, off, len, data);
    if (data != NULL) {
        d->data = malloc(MAX(len, 1u));
        must(d->data != NULL);
        memcpy(d->data, data, len);
        n->dirty_bytes += len;
    }
    list_add_tail(&n->dirty, &d->link);
    n->mtime_ns = sim_backend_ops.wall();
    while (n->dirty_bytes > DIRTY_MAX_BYTES)
        dirty_to_disk(n, list_first(&n->dirty, struct dirty, link));
}

/* --- inodes and directories --------------------------------------------------------------------
 */

static struct inode *inode_new(struct sim_fs *fs, bool is_dir, unsigned mode)
{
    struct inode *n = calloc(1, sizeof(*n));

    must(n != NULL);
    *n = (struct inode){.ino = fs->next_ino++, .is_dir = is_dir, .mode = mode & 07777};
    n->mtime_ns = sim_backend_ops.wall();
    list_init(&n->dirty);
    list_init(&n->entries);
    list_init(&n->disk_entries);
    list_add_tail(&fs->inodes, &n->link);
    return n;
}

static void entries_free(struct list *entries)
{
    struct entry *e;

    while ((e = list_pop_entry(entries, struct entry, link)) != NULL)
        free(e);
}

static void inode_free(struct inode *n)
{
    while (!list_empty(&n->dirty))
        dirty_free(n, list_first(&n->dirty, struct dirty, link));
    entries_free(&n->entries);
    entries_free(&n->disk_entries);
    list_del(&n->link);
    free(n->now.data);
    free(n->disk.data);
    free(n);
}

static struct entry *entry_find(struct list *entries, const char *name)
{
    struct entry *e;

    list_for_each (e, entries, struct entry, link) {
        if (strcmp(e->name, name) == 0)
            return e;
    }
    return NULL;
}

static void entry_set(struct sim_fs *fs, struct list *entries, const char *name, struct inode *n)
{
    struct entry *e = entry_find(entries, name);
    size_t len = strlen(name) + 1;

    if (e != NULL) {
        list_del(&e->link);
        free(e);
    }
    if (n == NULL)
        return;
    e = malloc(sizeof(*e) + len);
    must(e != NULL);
    e->inode = n;
    e->cookie = fs->next_cookie++;
    memcpy(e->name, name, len);
    list_add_tail(entries, &e->link);
}

static void dir_change_free(struct dir_change *d)
{
    list_del(&d->link);
    free(d->name[0]);
    free(d->name[1]);
    free(d);
}

static void dir_change_to_disk(struct sim_fs *fs, struct dir_change *d)
{
    for (int i = 0; i < 2; i++) {
        if (d->dir[i] != NULL)
            entry_set(fs, &d->dir[i]->disk_entries, d->name[i], d->inode[i]);
    }
    dir_change_free(d);
}

static void dir_change(struct sim_fs *fs, struct inode *dir, const char *name, struct inode *n,
                       struct inode *dir2, const char *name2, struct inode *n2)
{
    struct dir_change *d = calloc(1, sizeof(*d));
    struct entry *old;

    must(d != NULL);
    *d = (struct dir_change){.dir = {dir, dir2}, .inode = {n, n2}};
    d->name[0] = strdup(name);
    d->name[1] = dir2 != NULL ? strdup(name2) : NULL;
    for (int i = 0; i < 2; i++) {
        if (d->dir[i] == NULL)
            continue;
        old = entry_find(&d->dir[i]->entries, d->name[i]);
        if (old != NULL)
            old->inode->nlink--;
        if (d->inode[i] != NULL)
            d->inode[i]->nlink++;
        entry_set(fs, &d->dir[i]->entries, d->name[i], d->inode[i]);
        d->dir[i]->mtime_ns = sim_backend_ops.wall();
    }
    list_add_tail(&fs->dir_changes, &d->link);
}

static void sync_dir(struct sim_fs *fs, const struct inode *dir)
{
    struct dir_change *d;

    list_for_each (d, &fs->dir_changes, struct dir_change, link) {
        if (d->dir[0] == dir || d->dir[1] == dir)
            dir_change_to_disk(fs, d);
    }
}

static void mark_entries(const struct list *entries)
{
    const struct entry *e;

    list_for_each (e, entries, struct entry, link)
        e->inode->reached = true;
}

/* Frees what no entry, open file, disk or change under way names any more; now and then. */
static void sweep(struct sim_fs *fs)
{
    const struct dir_change *d;
    struct inode *n;

    if (--fs->sweep_in > 0)
        return;
    fs->sweep_in = SWEEP_EVERY;
    list_for_each (n, &fs->inodes, struct inode, link)
        n->reached = n->nlink > 0 || n->opens > 0 || n == fs->root;
    list_for_each (n, &fs->inodes, struct inode, link)
        mark_entries(&n->disk_entries);
    list_for_each (d, &fs->dir_changes, struct dir_change, link) {
        for (int i = 0; i < 2; i++) {
            if (d->dir[i] != NULL)
                d->dir[i]->reached = true;
            if (d->inode[i] != NULL)
                d->inode[i]->reached = true;
        }
    }
    list_for_each (n, &fs->inodes, struct inode, link) {
        if (!n->reached)
            inode_free(n);
    }
}

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
        e = entry_find(&dir->entries, out_last);
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
    e = entry_find(&out->dir->entries, out->name);
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
        p.inode = inode_new(fs, false, io->mode);
        dir_change(fs, p.dir, p.name, p.inode, NULL, NULL, NULL);
    } else if ((io->flags & O_CREAT) != 0 && (io->flags & O_EXCL) != 0) {
        return -EEXIST;
    }
    if (p.inode->is_dir && (io->flags & O_ACCMODE) != O_RDONLY)
        return -EISDIR;
    if (!p.inode->is_dir && (io->flags & O_DIRECTORY) != 0)
        return -ENOTDIR;
    if ((io->flags & O_TRUNC) != 0 && p.inode->now.size > 0)
        change(p.inode, 0, 0, NULL, true);
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
    sweep(m->fs);
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

/* A transfer may move less than all: reads past O_DIRECT any bytes, else whole sectors. */
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
    change(n, io->off, len, copy, false);
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
                dirty_free(n, d);
        }
        return -EIO;
    }
    if (n->is_dir)
        sync_dir(m->fs, n);
    else
        sync_data(n);
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
            change(n, io->off, end - io->off, NULL, false);
        return 0;
    }
    if (mode != 0)
        return -EOPNOTSUPP;
    if (end > n->now.size && !keep)
        change(n, end, 0, NULL, true);
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
    change(f->inode, io->len, 0, NULL, true);
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
    dir_change(m->fs, to.dir, to.name, from.inode, from.dir, from.name, NULL);
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
    dir_change(m->fs, to.dir, to.name, from.inode, NULL, NULL, NULL);
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
    dir_change(m->fs, p.dir, p.name, NULL, NULL, NULL, NULL);
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
    dir_change(m->fs, p.dir, p.name, inode_new(m->fs, true, io->mode), NULL, NULL, NULL);
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

/* --- crashes -----------------------------------------------------------------------------------
 */

void sim_fs_killed(struct sim_fs *fs)
{
    struct inode *n;

    list_for_each (n, &fs->inodes, struct inode, link) {
        n->opens = n->locks_shared = n->failed_syncs = 0;
        n->locked = false;
    }
}

/* How much of what was under way has come to the disk. */
enum survival {
    SURVIVES_NONE,
    SURVIVES_ALL,
    SURVIVES_FIRST,
    SURVIVES_ANY,
    SURVIVES_SECTORS,
    SURVIVALS
};

static bool survives(enum survival how, uint64_t idx, uint64_t first)
{
    switch (how) {
    case SURVIVES_NONE:
        return false;
    case SURVIVES_ALL:
        return true;
    case SURVIVES_FIRST:
        return idx < first;
    default:
        return sim_chance(&sim.disk, 500000);
    }
}

static uint64_t list_count(const struct list *l)
{
    uint64_t n = 0;

    for (const struct list *e = l->next; e != l; e = e->next)
        n++;
    return n;
}

/* Of one write any of its sectors. */
static void sectors_to_disk(struct inode *n, const struct dirty *d)
{
    for (uint64_t at = d->off, end = d->off + d->len; at < end;) {
        uint64_t len = MIN(SIM_SECTOR_BYTES - at % SIM_SECTOR_BYTES, end - at);

        if (sim_chance(&sim.disk, 500000))
            content_write(&n->disk, at, len, d->data != NULL ? d->data + (at - d->off) : NULL);
        at += len;
    }
}

static void data_cut(struct inode *n)
{
    enum survival how = (enum survival)sim_below(&sim.disk, SURVIVALS);
    uint64_t count = list_count(&n->dirty), idx = 0;
    uint64_t first = sim_below(&sim.disk, count + 1);
    struct dirty *d;

    list_for_each (d, &n->dirty, struct dirty, link) {
        if (how == SURVIVES_SECTORS && !d->resize) {
            sectors_to_disk(n, d);
            dirty_free(n, d);
        } else if (survives(how, idx, first)) {
            dirty_to_disk(n, d);
        } else {
            dirty_free(n, d);
        }
        idx++;
    }
    content_resize(&n->now, 0);
    content_write(&n->now, 0, n->disk.size, n->disk.data);
}

static void dirs_cut(struct sim_fs *fs)
{
    enum survival how = (enum survival)sim_below(&sim.disk, SURVIVALS);
    uint64_t count = list_count(&fs->dir_changes), idx = 0;
    uint64_t first = sim_below(&sim.disk, count + 1);
    struct dir_change *d;

    list_for_each (d, &fs->dir_changes, struct dir_change, link) {
        if (survives(how, idx++, first))
            dir_change_to_disk(fs, d);
        else
            dir_change_free(d);
    }
}

/* Makes what programs see from what is on the disk, below a directory. */
static void remount(struct sim_fs *fs, struct inode *dir)
{
    const struct entry *e;

    dir->reached = true;
    list_for_each (e, &dir->disk_entries, struct entry, link) {
        entry_set(fs, &dir->entries, e->name, e->inode);
        e->inode->nlink++;
        if (e->inode->is_dir && !e->inode->reached)
            remount(fs, e->inode);
        e->inode->reached = true;
    }
}

void sim_fs_power_cut(struct sim_fs *fs)
{
    struct inode *n;

    dirs_cut(fs);
    list_for_each (n, &fs->inodes, struct inode, link) {
        data_cut(n);
        n->opens = n->nlink = n->locks_shared = n->failed_syncs = 0;
        n->locked = false;
        n->reached = false;
        entries_free(&n->entries);
        list_init(&n->entries);
    }
    remount(fs, fs->root);
    list_for_each (n, &fs->inodes, struct inode, link) {
        if (!n->reached)
            inode_free(n);
    }
}

/* --- making ------------------------------------------------------------------------------------
 */

struct sim_fs *sim_fs_new(void)
{
    struct sim_fs *fs = calloc(1, sizeof(*fs));

    must(fs != NULL);
    fs->next_ino = 2;
    fs->sweep_in = SWEEP_EVERY;
    fs->next_cookie = 1;
    list_init(&fs->inodes);
    list_init(&fs->dir_changes);
    fs->root = inode_new(fs, true, 0755);
    return fs;
}

void sim_fs_free(struct sim_fs *fs)
{
    while (!list_empty(&fs->dir_changes))
        dir_change_free(list_first(&fs->dir_changes, struct dir_change, link));
    while (!list_empty(&fs->inodes))
        inode_free(list_first(&fs->inodes, struct inode, link));
    free(fs);
}

/* The inode of a path, made with all above it when it is not there. */
static struct inode *make(struct sim_fs *fs, const char *path, bool is_dir)
{
    struct inode *dir = fs->root;
    char name[NAME_MAX + 1];

    for (const char *at = path + strspn(path, "/"); *at != '\0';) {
        size_t len = strcspn(at, "/");
        struct entry *e;
        struct inode *n;

        must(len <= NAME_MAX);
        memcpy(name, at, len);
        name[len] = '\0';
        at += len;
        at += strspn(at, "/");
        e = entry_find(&dir->entries, name);
        n = e != NULL ? e->inode : inode_new(fs, *at != '\0' || is_dir, 0755);
        if (e == NULL) {
            dir_change(fs, dir, name, n, NULL, NULL, NULL);
            sync_dir(fs, dir);
        }
        dir = n;
    }
    return dir;
}

void sim_fs_make_file(struct sim_fs *fs, const char *path, uint64_t size_bytes)
{
    struct inode *n = make(fs, path, false);

    change(n, size_bytes, 0, NULL, true);
    sync_data(n);
}

void sim_fs_make_dir(struct sim_fs *fs, const char *path)
{
    make(fs, path, true);
}
