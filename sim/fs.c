/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept: content, inodes, directories, each now and on the disk; and what a crash leaves. */
#include "sim/fs_internal.h"

#include "base/bytes.h"

#include <limits.h>
#include <string.h>

#define DIRTY_MAX_BYTES (4 * MIB) /* of one file: beyond it the oldest changes go to the disk */
#define SWEEP_EVERY 64

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

void sim_dirty_free(struct inode *n, struct dirty *d)
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
    sim_dirty_free(n, d);
}

void sim_inode_sync(struct inode *n)
{
    while (!list_empty(&n->dirty))
        dirty_to_disk(n, list_first(&n->dirty, struct dirty, link));
}

/* Takes a change in: now for programs, later for the disk. data is copied; NULL means zeroes. */
void sim_inode_change(struct inode *n, uint64_t off, uint64_t len, const uint8_t *data, bool resize)
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

struct inode *sim_inode_new(struct sim_fs *fs, bool is_dir, unsigned mode)
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
        sim_dirty_free(n, list_first(&n->dirty, struct dirty, link));
    entries_free(&n->entries);
    entries_free(&n->disk_entries);
    list_del(&n->link);
    free(n->now.data);
    free(n->disk.data);
    free(n);
}

struct entry *sim_entry_find(struct list *entries, const char *name)
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
    struct entry *e = sim_entry_find(entries, name);
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

void sim_dir_change(struct sim_fs *fs, struct inode *dir, const char *name, struct inode *n,
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
        old = sim_entry_find(&d->dir[i]->entries, d->name[i]);
        if (old != NULL)
            old->inode->nlink--;
        if (d->inode[i] != NULL)
            d->inode[i]->nlink++;
        entry_set(fs, &d->dir[i]->entries, d->name[i], d->inode[i]);
        d->dir[i]->mtime_ns = sim_backend_ops.wall();
    }
    list_add_tail(&fs->dir_changes, &d->link);
}

void sim_dir_sync(struct sim_fs *fs, const struct inode *dir)
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
void sim_fs_sweep(struct sim_fs *fs)
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
            sim_dirty_free(n, d);
        } else if (survives(how, idx, first)) {
            dirty_to_disk(n, d);
        } else {
            sim_dirty_free(n, d);
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
    fs->root = sim_inode_new(fs, true, 0755);
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
        e = sim_entry_find(&dir->entries, name);
        n = e != NULL ? e->inode : sim_inode_new(fs, *at != '\0' || is_dir, 0755);
        if (e == NULL) {
            sim_dir_change(fs, dir, name, n, NULL, NULL, NULL);
            sim_dir_sync(fs, dir);
        }
        dir = n;
    }
    return dir;
}

void sim_fs_make_file(struct sim_fs *fs, const char *path, uint64_t size_bytes)
{
    struct inode *n = make(fs, path, false);

    sim_inode_change(n, size_bytes, 0, NULL, true);
    sim_inode_sync(n);
}

void sim_fs_make_dir(struct sim_fs *fs, const char *path)
{
    make(fs, path, true);
}
