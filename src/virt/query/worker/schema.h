/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the objects of a query: how to read them and their columns. It goes to the
 * daemon as QW_SCHEMA and comes back as "known" with a later query, so it is JSON, and what comes
 * back is checked like everything that comes from outside:
 *
 *   {"format": "csv"|"json"|"parquet", "compression": "none"|"gzip"|"zstd",
 *    "columns": [[name, type], ...]}                                    csv, json; not with
 *   "wide": true                                                        json, see find_json()
 *   "delim", "quote", "escape", "newline", "comment", "dateformat", "timestampformat": text,
 *   "skip": n, "header": bool, "long_lines": bool                       csv
 */
#ifndef KVASIR_QUERY_WORKER_SCHEMA_H
#define KVASIR_QUERY_WORKER_SCHEMA_H

#include "virt/query/worker/query.h"

/**
 * Writes how much read_csv() may hold of an object, and of a line of it: as much as there is, up
 * to 4 MiB, or with `long_lines` 32 MiB, as for a million columns with their names in one line.
 */
void qw_input_buffers(FILE *f, const struct qw_query *q, bool packed, bool long_lines);

/** Columns from the user's "NAME TYPE, "a name" TYPE(1, 2)"; the types are the engine's. */
int qw_schema_columns(const char *text, json_t **out, struct qw_text *why);
/** Whether this can be used as a schema. */
bool qw_schema_ok(const json_t *schema);

/** sniff.c: finds out what the query does not say. */
int qw_sniff(const struct qw_query *q, json_t **out, struct qw_text *why);

/** From so many columns on the memory that each takes counts. */
#define QW_WIDE_COLUMNS 1000
/** wide.c: says what to do about a query that had too little memory for its many columns; else
 * leaves the text as it is. `schema` may be NULL. Returns rc. */
int qw_wide_failed(int rc, const struct qw_query *q, const json_t *schema, struct qw_text *why);

#endif
