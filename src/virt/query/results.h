/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of queries that are fetched later, as NVMe's SELECT has it: made as a whole, held under a
 * number, read in pieces, dropped. In memory while small, in a file without a name when not.
 *
 * Each result belongs to an owner (a host, say), a place (a namespace) and a session (a
 * controller). It is found by owner and place, and goes with its session or its place, by age, or
 * because its owner makes more than it may have: then the oldest goes. What is being read stays
 * readable until the reader lets go of it.
 *
 * One store is used from all reactors; a lock guards its tables, never while anything waits.
 */
#ifndef KVASIR_VIRT_QUERY_RESULTS_H
#define KVASIR_VIRT_QUERY_RESULTS_H

#include "base/bytes.h"
#include "base/err.h"
#include "rt/rt.h"

struct query_results;
struct query_result;

#define QUERY_RESULTS_DEFAULT 32u
#define QUERY_RESULTS_MAX 1024u /* of one owner */
#define QUERY_ERRORS_MAX 4u     /* of them, error texts */

/** Zeroes mean defaults. */
struct query_results_config {
    const char *dir;          /* for files; NULL: none, and then no result larger than memory */
    uint64_t mem_bytes_max;   /* memory of all results; 64 MiB */
    uint64_t mem_one_max;     /* of one; a larger one goes to a file; 1 MiB */
    uint64_t owner_bytes_max; /* of all results of one owner, memory and files; 1 GiB */
    uint64_t bytes_max;       /* of all results; 8 GiB */
    uint64_t idle_ns;         /* dropped when not read for so long; 10 min */
};

/** -ENOMEM. */
int query_results_new(const struct query_results_config *cfg, struct query_results **out);
/** Drops everything. Nobody makes or holds a result any more. NULL is fine. */
void query_results_free(struct query_results *s);
/** What holds, defaults filled in. */
const struct query_results_config *query_results_config(const struct query_results *s);

struct query_result_of {
    struct bytes owner;   /* up to 512 bytes */
    unsigned results_max; /* of this owner, always the same; 0: QUERY_RESULTS_DEFAULT */
    uint64_t place;
    uint64_t session;
};

/** What is known of a result beside its bytes. */
struct query_result_about {
    uint64_t object_bytes, read_bytes, rows;
    uint64_t queue_ns, run_ns;
    bool schema_known;
    bool is_error; /* a text that tells why there is none */
};

/** Begins a result. -ENOMEM. */
int query_result_new(struct query_results *s, const struct query_result_of *of,
                     struct query_result **out_r);
/**
 * Adds bytes. Waits when they go to a file. -EDQUOT more than the owner, or all, may have;
 * -ENOSPC, -EIO, -EACCES, ... of the file.
 */
int query_result_add(struct rt_task *t, struct query_result *r, const void *buf, size_t len);
/**
 * It is whole: from now on it is found. Returns its number, not 0: as the CSD project has them,
 * slot + results_max * generation, the first of an owner being results_max. Keep on holding it, or
 * put it.
 */
uint32_t query_result_finish(struct query_result *r, const struct query_result_about *about);
/** Lets go of it. One that is not finished is gone. NULL is fine. */
void query_result_put(struct query_result *r);

/** The finished result of a number, held; NULL: there is none (any more), or it is another's. */
struct query_result *query_result_get(struct query_results *s, const struct query_result_of *of,
                                      uint32_t id);
uint64_t query_result_bytes(const struct query_result *r);
const struct query_result_about *query_result_about(const struct query_result *r);
/** Where its bytes are, when they are in memory; else NULL. */
const uint8_t *query_result_mem(const struct query_result *r);
/** Reads `len` bytes, all of which are there. Waits when they are in a file. */
int query_result_read(struct rt_task *t, struct query_result *r, uint64_t off, void *buf,
                      size_t len);
/** Is not found any more. The caller's hold remains. */
void query_result_drop(struct query_result *r);

void query_results_drop_session(struct query_results *s, uint64_t session);
void query_results_drop_place(struct query_results *s, uint64_t place);
/** Drops those that nobody has read for too long. */
void query_results_expire(struct query_results *s);

struct query_results_stats {
    uint64_t made;
    uint64_t evicted, expired, dropped; /* by a limit, by age, by session or place */
    uint64_t spilled;                   /* went to a file */
    uint64_t bytes, mem_bytes;          /* now */
    unsigned results, owners;           /* now; results: that can be found */
};
void query_results_stats(struct query_results *s, struct query_results_stats *out);

#endif
