/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the objects of a query: how to read them and their columns. It goes to the
 * daemon as QW_SCHEMA and comes back as "known" with a later query, so it is JSON, and what comes
 * back is checked like everything that comes from outside:
 *
 *   {"format": "csv"|"json"|"parquet", "compression": "none"|"gzip"|"zstd",
 *    "columns": [[name, type], ...]}                                    csv, json
 *   "delim", "quote", "escape", "newline", "comment", "dateformat", "timestampformat": text,
 *   "skip": n, "header": bool                                           csv
 */
#ifndef KVASIR_QUERY_WORKER_SCHEMA_H
#define KVASIR_QUERY_WORKER_SCHEMA_H

#include "virt/query/worker/query.h"

/* Lines of CSV may be that long: a million columns have their names in the first. */
#define QW_CSV_BUFFERS "max_line_size=16777216, buffer_size=33554432"

/** Columns from the user's "NAME TYPE, "a name" TYPE(1, 2)"; the types are the engine's. */
int qw_schema_columns(const char *text, json_t **out, struct qw_text *why);
/** Whether this can be used as a schema. */
bool qw_schema_ok(const json_t *schema);

/** sniff.c: finds out what the query does not say. */
int qw_sniff(const struct qw_query *q, json_t **out, struct qw_text *why);

#endif
