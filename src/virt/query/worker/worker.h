/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of kvasir-query and how they hang together. A worker is one thread, sees one query
 * and exits, so what belongs to the query is static in the file that owns it.
 *
 *   main.c     finds and opens the engine, becomes the zygote
 *   rehearse.c, warm.c     so that a worker starts warm
 *   zygote.c   forks workers, kills and reaps them
 *   child.c    a worker from the query to QW_DONE
 *   sandbox.c  what a worker gives up before it looks at the query
 *   stream.c   messages on the worker's stream
 *   object.c   the bytes of objects: the window and reading ahead
 *   packed.c   whether compressed objects are whole
 *   files.c    the file calls of the engine, answered from object.c and the answer
 *   engine.c   the engine: opened once, statements run, errors told apart
 *   statement.c, filter.c   what the user may say
 *   input.c, table.c, schema.c, sniff.c, wide.c   objects as one table
 *   output.c, arrow.c       the answer's form
 */
#ifndef KVASIR_QUERY_WORKER_H
#define KVASIR_QUERY_WORKER_H

#include "virt/query/wire.h"

#include <sys/types.h>

#define QW_TEXT_MAX 4096 /* of the text of an error, the NUL included */

struct qw_text { /* of an error */
    char s[QW_TEXT_MAX];
};
/** Writes the text and returns `rc`. */
int qw_fail(struct qw_text *why, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* stream.c. The stream is blocking. When the daemon is gone the process ends: nobody waits for
 * what it has. */
void qw_stream_open(int fd);
void qw_stream_send(enum qw_type type, const struct qw_head *h, const void *body, size_t len);
void qw_stream_recv(struct qw_head *out);
void qw_stream_recv_body(void *buf, size_t len);
/** Whether something is there to be received, or the end. Not in the sandbox. */
bool qw_stream_pending(void);
/** Exits when the daemon has closed its end, and a little later: to take a process apart takes as
 * long as a small query, and whoever waits for the answer may need this processor. */
__attribute__((noreturn)) void qw_stream_end(void);

/* object.c */
struct qw_object {
    const char *name;
    uint64_t size;
    const void *bytes; /* not NULL: these, and no window (the zygote's rehearsal) */
};
/** The objects of the query, which have to stay, and the window (NULL with `bytes`). */
void qw_objects_set(const struct qw_object *objects, unsigned nobjects, void *window);
/** The daemon reads that much of the first one into slot 0 without being asked. */
void qw_objects_ahead(uint32_t len);
unsigned qw_objects_count(void);
const struct qw_object *qw_object_at(unsigned object);
/** At most `len` bytes from `off`; short only at the end. `ahead`: more of it will follow. */
ssize_t qw_object_read(unsigned object, uint64_t off, void *buf, size_t len, bool ahead);
/** The first error that a read of an object met, or 0; the daemon's errno, negative. */
int qw_object_error(void);
/** Sets it; the reads that follow fail. */
void qw_object_fail(int rc);

/* files.c */
#define QW_PATH_OBJECT "/kvasir/object/"
#define QW_PATH_ANSWER "/kvasir/answer"
/** From here on only the virtual paths exist for the engine. */
void qw_files_begin(void);
/** Closes what the engine left open. */
void qw_files_reset(void);

/* packed.c */
enum qw_packing { QW_PLAIN, QW_GZIP, QW_ZSTD };
/** How the objects are compressed that the statement reads from here on. */
void qw_packed_set(enum qw_packing packing);
/** Looks at what an open file has read; false: that was its end, and not that of its data. */
bool qw_packed_whole(const void *file, uint64_t off, const void *buf, size_t len, uint64_t size);

/** Whether it has said so. */
bool qw_packed_cut(void);

/* output.c */
/** Takes the next bytes of the answer. */
int qw_answer_put(void *arg, const void *buf, size_t len);
/** While on, no answer leaves; the last one, if it was small, can be looked at. */
void qw_answer_rehearse(bool on);
const void *qw_answer_last(size_t *out_len);

/* rehearse.c */
/** Runs small queries of each form, so that workers start warm. */
int qw_rehearse(struct qw_text *why);
/** What a scout plays, in a process that is a fork as a worker is. */
enum qw_scout {
    QW_SCOUT_SMALL, /* a filter over few rows */
    QW_SCOUT_LARGER,
    QW_SCOUTS,
};
int qw_rehearse_scout(enum qw_scout scout);

/* warm.c */
/** Before anything is allocated. */
void qw_warm_begin(void);
/** In the zygote, with the engine open and not running. */
void qw_warm_engine(void);
/** After that: scouts find out which pages a query writes to, and which of files it reads. */
void qw_warm_learn(void);
/**
 * In a worker that has no query yet: makes some of the pages its own that the scouts as far as this
 * one had. To copy them one by one, when the query first writes to each, takes longer than a small
 * query does. False: it has all of them.
 */
bool qw_warm_some(enum qw_scout scout);

struct qw_limits { /* of a worker */
    uint64_t mem_bytes;
    unsigned cpu_seconds;
    bool hurried; /* workers are made one after the other: its query may come at once */
};

/* zygote.c */
int qw_zygote_run(int ctl_fd);

/* child.c */
/** A worker: never returns. */
__attribute__((noreturn)) void qw_child_run(int stream_fd, int window_fd, pid_t zygote,
                                            const struct qw_limits *limits);

#endif
