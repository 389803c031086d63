/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this driver share. README.md tells the layout on disk and what it promises. */
#ifndef KVASIR_KV_DIR_H
#define KVASIR_KV_DIR_H

#include "kv/kv.h"
#include "rt/buf.h"
#include "rt/io.h"

#include "base/art.h"
#include "base/map.h"

#define DIR_PIECE_KEY_BYTES 127u /* of a key in one file name */
#define DIR_PIECE_HEX 254u
#define DIR_NAME_MAX 256u        /* with the NUL */
#define DIR_SPREAD_MARK '_'      /* ends the name of a directory that holds longer keys */
#define DIR_TEMP ".kvasir"       /* files being written; no key's name */
#define DIR_VAL_MAX (1ull << 43)
#define DIR_COPY_BYTES 131072u
#define DIR_READDIR_BYTES 65536u

struct dir;

/* --- name.c: keys and file names -------------------------------------------------------------- */

enum dir_name { DIR_NAME_OTHER, DIR_NAME_KEY, DIR_NAME_SPREAD };

/** Where a key's file stands: a directory and a name in it. */
struct dir_place {
    int fd;
    bool own_fd; /* of a spread directory: dir_place_close() closes it */
    char name[DIR_NAME_MAX];
};

/** What a file name means; its key bytes (at most 127) go to `out`. */
enum dir_name dir_name_parse(const char *name, uint8_t *out, size_t *out_len);
/**
 * Finds the place of a key, through the spread directories of a long one. `make`: makes them where
 * they are missing, durably. 0; -ENOENT a directory is missing.
 */
int dir_place_open(struct rt_task *t, struct dir *d, struct bytes key, bool make,
                   struct dir_place *out);
void dir_place_close(struct rt_task *t, struct dir *d, struct dir_place *p);
/** After a delete: takes away the spread directories of a long key that are empty now. */
void dir_place_prune(struct rt_task *t, struct dir *d, struct bytes key);
/** Opens the spread directory of a prefix of k * 127 bytes (k = 0: the namespace) to be scanned. */
int dir_spread_open(struct rt_task *t, struct dir *d, struct bytes prefix);

/* --- temp.c: files being written -------------------------------------------------------------- */

struct dir_temp {
    int fd;
    char name[24];
};

/** Makes this process's temporary directory, and removes those of processes that are gone. */
int dir_temps_open(struct rt_task *t, struct dir *d, struct err *why);
void dir_temps_close(struct rt_task *t, struct dir *d);
int dir_temp_new(struct rt_task *t, struct dir *d, struct dir_temp *out);
/** Closes and removes; `name` empty: it has been renamed and is only closed. */
void dir_temp_drop(struct rt_task *t, struct dir *d, struct dir_temp *tmp);

/* --- list.c: the sorted index ----------------------------------------------------------------- */

/* A name in the index. */
#define LEAF_FILE (1u << 0)
#define LEAF_SPREAD (1u << 1)   /* a directory with longer keys that begin with this one */
#define LEAF_EXPANDED (1u << 2) /* ... whose content is in the index */
#define LEAF_GONE (1u << 3)     /* deleted during a scan, which may still come upon it */
struct dir_leaf {
    uint8_t flags;
    struct art_key key;
};

/** All names of a range of the namespace, as many as memory allows, in order. */
struct dir_index {
    struct slab slab;
    struct art names;
    bool valid;          /* complete for [lo, hi), but for what others have changed since */
    bool scanning;
    bool busy;           /* one list at a time works on it */
    struct rt_cond idle;

    uint8_t *lo, *hi, *at, *probe; /* KV_KEY_MAX bytes each */
    size_t lo_len, hi_len;
    bool lo_after;       /* lo itself is not in the range */
    bool to_end;         /* there is no hi: the range has no end */

    struct timespec mtime; /* of the namespace directory when the scan began */
    bool racy;             /* it was so young that a later change may not show in it */
    bool expanded;         /* it holds names of spread directories too */
    bool fits;             /* the whole namespace did, or may, fit */
    uint64_t scanned_ns;   /* when the scan began */
    uint64_t scan_took_ns;
    uint64_t own_changes;  /* since then, by this process: they are in the index */
    uint64_t seen;         /* names the last scan came upon */
    uint64_t capacity;     /* names that fitted when memory ran out */
    uint8_t *entries;      /* DIR_READDIR_BYTES */
};

int dir_index_init(struct dir_index *x, uint64_t memory_bytes);
void dir_index_fini(struct dir_index *x);
int dir_list(struct rt_task *t, struct dir *d, struct kv_req *req);
/** This process has just made or deleted the key's file. */
void dir_index_note(struct dir *d, struct bytes key, bool stored);

/* --- dir.c and value.c ------------------------------------------------------------------------ */

/** fsync of one directory for all who wait: each is served by one that began after it asked. */
struct dir_sync {
    uint64_t asked, done;
    uint64_t failed_from, failed_to; /* those asked in (from, to] get failed_rc */
    int failed_rc;
    bool busy;
    struct rt_cond turned;
};

struct dir {
    struct kv_dev *dev;
    int fd;              /* <root>/<bus>/<ns> */
    int temps_fd;        /* <fd>/.kvasir */
    int temp_fd;         /* <fd>/.kvasir/<temp_id> */
    int temp_lock_fd;
    char temp_id[20];
    uint64_t temp_count;
    bool sync;
    bool read_only;
    char *root;          /* as in the URI */
    uint64_t bus, ns;
    uint64_t index_bytes;

    unsigned running, running_max;
    struct list queue;   /* struct job, in line */
    struct map locks;    /* struct dir_lock, by key */
    struct dir_sync names_sync;
    uint8_t *copy;       /* DIR_COPY_BYTES, for appends, one at a time */
    bool copying;
    struct rt_cond copied;
    struct rt_pool streams; /* struct dir_stream */
    struct dir_index index;
};

/** The errnos of the layer for those of a file system. */
int dir_errno(int rc);
/** Makes the names in the namespace directory durable. */
int dir_sync_names(struct rt_task *t, struct dir *d);

int dir_store(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_retrieve(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_stat(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_delete(struct rt_task *t, struct dir *d, struct kv_req *req);

/** A stream, the driver's half. */
struct dir_stream {
    int fd;
    struct dir_temp tmp; /* of a store */
    uint64_t len;        /* written; or the value's length */
    uint64_t version;
    uint32_t flags;
    uint16_t key_len;
    uint8_t key[KV_KEY_MAX];
};
int dir_store_open(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_write(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_commit(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_retrieve_open(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_read(struct rt_task *t, struct dir *d, struct kv_req *req);
int dir_read_close(struct rt_task *t, struct dir *d, struct kv_req *req);

#endif
