/* SPDX-License-Identifier: Apache-2.0 */
/* One query as QW_QUERY brings it, and the steps of answering it. */
#ifndef KVASIR_QUERY_WORKER_QUERY_H
#define KVASIR_QUERY_WORKER_QUERY_H

#include "virt/query/worker/worker.h"

#include <jansson.h>
#include <stdio.h>

enum qw_format { QW_AUTO, QW_CSV, QW_JSON, QW_JSONL, QW_PARQUET, QW_ARROW };

struct qw_query {
    json_t *root; /* owns the texts below */
    const char *sql;
    enum qw_format input, output;
    const char *header; /* "auto", "yes", "no" */
    bool header_out;
    const char *delim, *quote, *escape; /* "": found out */
    const char *schema;                 /* "": found out */
    json_t *known;                      /* or NULL */
    struct qw_object *objects;
    unsigned nobjects;
    uint32_t ahead; /* bytes of object 0 that come without being asked for */
    bool rehearsal;     /* the zygote's own: nothing goes to a daemon */
    uint64_t mem_bytes; /* of the worker's limits */
};

/** query.c: takes the JSON apart. */
int qw_query_parse(const char *text, size_t len, struct qw_query *out, struct qw_text *why);

/* statement.c */
struct qw_statement {
    char *text; /* without the ';' and comments behind it */
    char **tables;
    unsigned ntables;
};
/** Refuses what is not one SELECT that the filter lets pass. */
int qw_statement_check(const char *sql, struct qw_statement *out, struct qw_text *why);

/** input.c: makes the objects the tables that the statement reads. */
int qw_input_open(const struct qw_query *q, const struct qw_statement *s, struct qw_text *why);
/** What the objects are read as; NULL before that is known. */
const json_t *qw_input_schema(void);

/** The path of the i-th, when `before` of those before it have one; false: it has none. */
bool qw_input_path(const struct qw_query *q, unsigned i, unsigned before, char *out, size_t size);
/** The list of their paths, as SQL. */
void qw_input_paths(FILE *f, const struct qw_query *q);

/** What read_json() calls it; read_csv() takes that too. */
const char *qw_input_compression(const char *compression);
/**
 * An error of the engine about a statement of ours that reads the objects: the fault is in them
 * (-EBADMSG), and our statement is not shown.
 */
int qw_input_failed(int rc, const struct qw_query *q, struct qw_text *why);

struct qw_csv_sizes {
    uint64_t line, buffer;
};
struct qw_csv_sizes qw_input_csv_sizes(const struct qw_query *q, const json_t *schema);

/**
 * table.c: whether the objects are the statement's table without a view. What is handed over has to
 * stay.
 */
bool qw_table_set(const struct qw_query *q, const struct qw_statement *s, const json_t *of);
void qw_table_unset(void);

/** output.c: runs the statement and sends the answer. */
int qw_output_run(const struct qw_query *q, const struct qw_statement *s, uint64_t *out_rows,
                  struct qw_text *why);

/** output_arrow.c: the same as an Arrow stream, from qw_output_run(). */
int qw_output_arrow(const struct qw_statement *s, uint64_t *out_rows, struct qw_text *why);

/** sandbox.c: gives up what a worker does not need, all before it waits for its query. */
int qw_sandbox_early(pid_t zygote, struct qw_text *why);
/** And the rest. `fd` is the stream, the highest descriptor that is open. The memory is what comes
 * to what is in use. */
int qw_sandbox_enter(int fd, const struct qw_limits *limits, struct qw_text *why);

/** Writes a text as SQL: 'it''s', "a ""name""". */
void qw_sql_string(FILE *f, const char *s);
void qw_sql_name(FILE *f, const char *s);

#endif
