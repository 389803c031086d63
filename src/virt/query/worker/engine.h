/* SPDX-License-Identifier: Apache-2.0 */
/* The engine of this process: opened once, before the fork; one connection; errors told apart. */
#ifndef KVASIR_QUERY_WORKER_ENGINE_H
#define KVASIR_QUERY_WORKER_ENGINE_H

#include "virt/query/worker/engine_api.h"
#include "virt/query/worker/worker.h"

/** Opens the library at `path` and an empty database that cannot reach anything. */
int qw_engine_open(const char *path, uint64_t mem_bytes, struct qw_text *why);
/** The engine's own limit: three quarters of what a query has. Nothing is done when it is that
 * already: at a change the engine gives its memory back, which a worker has just been made warm
 * with. */
int qw_engine_limit(uint64_t mem_bytes, struct qw_text *why);
/** Sets it in any case, so that large pieces of memory that are free can be cut up again. */
int qw_engine_give_back(uint64_t mem_bytes, struct qw_text *why);
/** table.c: once, before the first query. */
int qw_table_begin(duckdb_database db, struct qw_text *why);
/** From here on no setting can be changed, whatever a statement manages to say. */
int qw_engine_lock(struct qw_text *why);
duckdb_connection qw_engine_con(void);

/** Runs one statement of ours. With `out` the result is the caller's, also of a failure not. */
int qw_engine_run(const char *sql, duckdb_result *out, struct qw_text *why);
/** The first column of the first row of a statement with text parameters; free() it with duck. */
int qw_engine_text(const char *sql, const char *const *args, unsigned nargs, char **out,
                   struct qw_text *why);

/**
 * The errno for what the engine said, negative, and its text for people: without paths of the
 * worker. `said` may be NULL.
 */
int qw_engine_failed(const char *said, struct qw_text *why);

#endif
