/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The query service: SELECT over the objects of any KV device, run in worker processes that can
 * touch nothing but what they are handed (worker/README.md). One service a process.
 */
#ifndef KVASIR_VIRT_QUERY_H
#define KVASIR_VIRT_QUERY_H

#include "kv/select.h"

struct query_service;

struct query_config {
    const char *worker;       /* path of the worker program; NULL: beside ours, or libexec */
    const char *engine;       /* path of libduckdb.so; NULL: beside the worker, or build's */
    unsigned workers_max;     /* queries at a time; 0: 2 per processor */
    unsigned workers_ready;   /* processes made ahead; 0: 2 */
    unsigned queue_max;       /* queries that wait for their turn; 0: 256, then -EAGAIN */
    uint64_t mem_bytes;       /* of one query; 0: 256 MiB */
    /* Longest a query may take, waiting included; one that does not say gets all of it. 0: 300 s
     * for those that say so, 60 s for others. */
    uint64_t timeout_ns;
    unsigned cpu_seconds;     /* of one query; 0: as long as it may take */
    uint64_t result_bytes_max; /* of one answer; 0: no limit */
    unsigned schemas_max;     /* remembered; 0: 1,024 */
};

/** Starts the service on the current reactor (its home). -ENOTSUP with text: no engine here. */
int query_service_new(struct rt_task *t, const struct query_config *cfg,
                      struct query_service **out_svc, struct err *why);
/** Ends what runs and the processes. */
void query_service_free(struct rt_task *t, struct query_service *svc);

/**
 * Runs one query on the device of a channel, on the current reactor, or pushes it further. Waits;
 * cancelling the task cancels the query. Nothing of the answer may be used when it fails.
 * Errors, each with text: -EINVAL the statement, or it is not allowed; -ENOENT no such object;
 * -EBADMSG the object is not what the format says; -ENOMEM, -ETIMEDOUT, -EDQUOT its limit of
 * memory, time or answer; -EAGAIN too many wait; -ENOTSUP no engine; -EIO; -ESTALE an object
 * changed meanwhile and could not be read as it was; -ECANCELED; -EPIPE the worker died.
 */
int query_select(struct rt_task *t, struct query_service *svc, struct kv_chan *chan,
                 const struct kv_select *q, struct kv_select_result *res, struct err *why);

struct query_stats {
    uint64_t done, failed, cancelled, timed_out, worker_deaths;
    uint64_t object_bytes, read_bytes, result_bytes;
    uint64_t schemas_sniffed, schemas_remembered;
    unsigned running, waiting, workers;
    struct hist run_ns, queue_ns;
    struct hist spawn_ns; /* making a worker ahead */
};
/** From any reactor. */
int query_stats(struct rt_task *t, struct query_service *svc, struct query_stats *out);

#endif
