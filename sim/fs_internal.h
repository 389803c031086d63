/* SPDX-License-Identifier: Apache-2.0 */
/* What fs.c (what is kept, and what a crash leaves of it) and fs_ops.c (operations) share. */
#ifndef KVASIR_SIM_FS_INTERNAL_H
#define KVASIR_SIM_FS_INTERNAL_H

#include "sim/fs.h"

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

/** Takes a change in: now for programs, later for the disk. data is copied; NULL means zeroes. */
void sim_inode_change(struct inode *n, uint64_t off, uint64_t len, const uint8_t *data,
                      bool resize);
/** All changes of the data go to the disk. */
void sim_inode_sync(struct inode *n);
/** One change of the data is lost. */
void sim_dirty_free(struct inode *n, struct dirty *d);

struct inode *sim_inode_new(struct sim_fs *fs, bool is_dir, unsigned mode);
struct entry *sim_entry_find(struct list *entries, const char *name);
/** Sets one or two entries (dir2 NULL: one) to inodes, or removes them (NULL). */
void sim_dir_change(struct sim_fs *fs, struct inode *dir, const char *name, struct inode *n,
                    struct inode *dir2, const char *name2, struct inode *n2);
/** All changes of a directory's entries go to the disk. */
void sim_dir_sync(struct sim_fs *fs, const struct inode *dir);
/** Frees what nothing names any more; now and then. */
void sim_fs_sweep(struct sim_fs *fs);

#endif
