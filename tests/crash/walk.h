/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is tried (a subject: raw blocks, a blobstore, a KV store), and the walk through the crashes
 * of one recorded workload.
 */
#ifndef KVASIR_CRASH_WALK_H
#define KVASIR_CRASH_WALK_H

#include "disk.h"

#include "rt/rt.h"

#define WHY_MAX 400

/** For subjects: opening and looking at what a crash has left. */
struct look {
    bool go_on;      /* make more changes afterwards, and look at those as well */
    bool after;      /* the changes of go_on are there */
    bool close;      /* in good order; else left where it is */
    bool tolerant;   /* an error is an answer: counted, where a wrong value is none */
    unsigned errors; /* out: such answers */
    struct dice dice;
    char why[WHY_MAX]; /* what is wrong */
};
/** Notes what is wrong; -EILSEQ. */
int look_bad(struct look *l, const char *fmt, ...) PRINTF_LIKE(2, 3);

struct subject {
    const char *name;
    uint64_t disk_bytes;
    uint32_t block_bytes;
    unsigned reactors;
    bool data_unchecked; /* only metadata has checksums: the first range of disk_whole_add() */
    /* Makes what the workload begins with, and closes it. Called on an empty disk. */
    int (*format)(struct rt_task *t, void *seed);
    /* The workload. Every change is noted in the subject's model, with ticks. */
    int (*work)(struct rt_task *t, void *seed);
    /* A short workload in which things fail: 0 whatever they answer, -EILSEQ for a lie. */
    int (*trouble)(struct rt_task *t, void *seed);
    /* The model as it is after the first `tick` ticks; ascending calls, from 0 after begin. */
    void (*model_begin)(void);
    void (*model_to)(uint32_t tick);
    /* Opens, compares with the model; 0 or -EILSEQ with text. */
    int (*look)(struct rt_task *t, void *look);
    void (*show)(void); /* the model, for people; may be NULL */
};

struct walk_opts {
    uint64_t seed;
    uint64_t images;     /* about so many */
    unsigned jobs;
    uint32_t cut_from, cut_to; /* 0: all */
    uint32_t image;      /* this one of the cut only, with cut_from == cut_to; from 1 */
    bool verbose;
    const char *save;    /* the image that failed is written to this file, as the crash left it */
    unsigned failures_max;
};
struct walk_result {
    uint64_t writes, flushes, ticks, bytes;
    uint64_t cuts, images, nested, failures;
    uint64_t first_found; /* images tried until the first failure */
};
/** 0: everything held. Failures are printed with the command that replays them. */
int walk(const struct subject *s, const struct walk_opts *o, struct walk_result *out);

/** The workload alone, logged: the disk is left as it was before it; for walk and faults. */
int walk_record(const struct subject *s, uint64_t seed, struct disk_log *out_log, char *why);
/** Options of the subject, for the command that shows a failure again. */
#define WALK_MORE_MAX 256
extern char walk_more[WALK_MORE_MAX];
/** The size of disks made from now on; 0: the subject's own. */
void walk_disk_bytes(uint64_t bytes);
/** Makes the disk and what the workload begins with. 0, or -EILSEQ with text. */
int walk_format(const struct subject *s, uint64_t seed, char *why);
/** Memory for the log and the undo log of short sessions on one image. */
void walk_sessions(struct disk_arena *session);

/** An error where one is no answer: notes it (-EILSEQ), or counts it when tolerant (0). */
int look_error(struct look *l, const char *what, int rc);

extern const struct subject subject_blk, subject_blob, subject_kv;

#endif
