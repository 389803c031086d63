/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk in memory, below the runtime: the file "/disk" of the backend in backend.c. It keeps a
 * log of everything that was sent to it, from which states a power cut could leave are made, and
 * an undo log, so that thousands of such states are tried on one image without copying it.
 *
 * Time is counted in ticks: one for each submission and each completion of a write, a punched hole
 * or a flush. A cut at tick T is a power cut after the first T of them.
 */
#ifndef KVASIR_CRASH_DISK_H
#define KVASIR_CRASH_DISK_H

#include "dice.h"

#include "base/util.h"

#include <stdint.h>
#include <sys/uio.h>

#define DISK_PATH "/disk"
#define DISK_SECTOR_BYTES 512u
#define DISK_PAGE_BYTES 4096u
#define DISK_NOT_YET UINT32_MAX
#define DISK_WHOLES_MAX 8

enum disk_kind { DISK_WRITE, DISK_ZERO, DISK_FLUSH };

struct disk_op {
    uint8_t kind;
    bool failed;      /* answered with an error; a write has happened in any part, or not */
    bool lost;        /* a flush that should have kept it failed: no later one does */
    bool durable;
    uint64_t off, len;
    uint8_t *data;    /* WRITE */
    uint32_t submit;  /* the tick of its submission */
    uint32_t complete; /* and of its completion, or DISK_NOT_YET */
};

struct disk_log {
    struct disk_op *op;
    uint32_t n, cap;
    uint32_t ticks;
    struct disk_event {
        uint32_t op;
        bool completes;
    } *event; /* one per tick */
    uint32_t event_cap;
};

/** What is to fail: the nth (from 1) operation of the kinds in `kinds`, once or from then on. */
enum disk_fault_kind {
    DISK_FAULT_READ = 1,
    DISK_FAULT_WRITE = 2,
    DISK_FAULT_FLUSH = 4,
    DISK_FAULT_ZERO = 8,
};
struct disk_fault {
    unsigned kinds; /* 0: nothing fails */
    uint32_t nth;
    uint32_t seen;
    int rc;         /* -EIO, -ENOSPC; 0: a short transfer */
    bool lasting;
    uint32_t hits;
};

struct disk_undo {
    uint64_t off, len;
    uint8_t *old;
};

struct disk_arena {
    uint8_t *base;
    size_t used, size;
};

struct disk {
    uint8_t *mem;
    uint64_t bytes;
    uint32_t block_bytes;
    struct disk_log log;          /* of the present session */
    struct disk_arena *log_arena; /* NULL: writes are not recorded */
    struct disk_arena *undo_arena; /* NULL: there is no way back */
    struct disk_undo *undo;
    uint32_t nundo, undo_cap;
    struct disk_fault fault;
    struct dice dice;             /* delays, order, what a failed write leaves */
    uint64_t now_ns;
    uint64_t writes, flushes, reads, bytes_written;
    uint32_t inflight;
    bool sparse;                  /* a file that says it has no blocks yet */
    /* Ranges in which 4096 bytes are written whole or not at all, and not 512: pages of the
     * blobstore's metadata, which its format rewrites in place. */
    struct disk_whole {
        uint64_t off, len;
    } whole[DISK_WHOLES_MAX];
    unsigned nwholes;
};
extern struct disk disk;

void disk_init(uint64_t bytes, uint32_t block_bytes);
void disk_whole_add(uint64_t off, uint64_t len);
/** How many of `len` bytes at `off` are written whole or not at all. */
uint64_t disk_atom(uint64_t off, uint64_t len);

void disk_arena_init(struct disk_arena *a, size_t size);
void *disk_arena_get(struct disk_arena *a, size_t len);

/** Begins a log. Memory of the last one's arrays is used again. */
void disk_log_begin(struct disk_log *log);
/** Takes the log out of the disk: it is the caller's, the disk begins an empty one. */
struct disk_log disk_log_take(void);

/** The last `n` operations, for people. */
void disk_log_show(const struct disk_log *log, uint32_t n);

/* For the backend: an operation is submitted, and completes. */
uint32_t disk_submit(enum disk_kind kind, uint64_t off, uint64_t len, const struct iovec *iov,
                     unsigned iovcnt);
/** Applies it to the image. Returns the rc of the rt_io: bytes moved, 0, or an errno. */
int disk_complete(uint32_t op);
int disk_read(uint64_t off, const struct iovec *iov, unsigned iovcnt);
/** Counts a read, which may be one that is to fail: an errno, or 0 and the bytes it may get. */
int disk_read_begin(uint64_t *out_max);

/** Changes the image, remembering what was there if there is a way back. */
void disk_poke(uint64_t off, const void *data, uint64_t len); /* data NULL: zeroes */
/** Forgets or takes back everything since the undo log was at `mark`. */
uint32_t disk_mark(void);
void disk_back(uint32_t mark);

/* --- cuts: cut.c ------------------------------------------------------------------------------ */

/** Walks a log from its beginning; what is durable by then is in the image for good. */
struct disk_cut {
    struct disk_log *log;
    uint32_t tick;
    uint32_t *pending; /* ops submitted and not durable, in the order of submission */
    uint32_t npending, cap;
    uint32_t *newer; /* of each sector: the submission of what is durable there */
    bool undoable; /* what becomes durable is in the undo log, too: cuts of what follows a cut */
};
void disk_cut_begin(struct disk_cut *c, struct disk_log *log);
void disk_cut_end(struct disk_cut *c);
/** To a later tick. */
void disk_cut_to(struct disk_cut *c, uint32_t tick);
/** Applies some of what is pending, as a power cut now might leave it; disk_back() undoes it.
 * `out_how` gets a few words. */
void disk_cut_image(struct disk_cut *c, struct dice *dice, char out_how[64]);

/* --- running: backend.c -----------------------------------------------------------------------
 */

struct rt_task;

struct disk_boot {
    int (*fn)(struct rt_task *t, void *arg);
    void *arg;
    uint32_t cut_at;    /* the run is cut at this tick; 0: not at all */
    uint32_t reactors;  /* 0: 1 */
    bool abandon;       /* cut as soon as fn has returned: nobody closed anything */
    /* out */
    bool was_cut;
    bool stuck;         /* nothing to do and fn has not returned */
};
/** Runs fn on a new runtime whose only file is the disk. Returns its value; -ECANCELED when cut. */
int disk_boot(struct disk_boot *b);

#endif
