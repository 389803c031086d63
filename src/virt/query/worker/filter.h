/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a statement may contain, decided on the tree the engine's own parser makes of it (the
 * result of json_serialize_sql), before anything of it is bound or run. What is not known here
 * is refused: a node, a table function, a function.
 *
 * Allowed: one SELECT, with everything that is made of its table, of constants and of functions
 * without effects: WITH, subqueries, joins with itself, set operations, windows, lambdas. One
 * table: any single name, or s3object; the names of WITH; table functions that make rows from
 * their arguments. Not allowed: names of schemas and catalogs, functions that read files,
 * settings, the catalog or the clock of the session, or that have effects (filter_names.c).
 */
#ifndef KVASIR_QUERY_WORKER_FILTER_H
#define KVASIR_QUERY_WORKER_FILTER_H

#include <stdbool.h>
#include <stddef.h>

#define FILTER_TABLE_MAX 1024

struct filter_result {
    char table[FILTER_TABLE_MAX]; /* the name the statement gives to its table, not s3object; "":
                                     it has none */
    bool s3object;                /* it names s3object */
    long at;                      /* where in the statement the error is, in bytes; -1: not known */
    char text[1280];              /* of the error */
};

/**
 * `ast`: what json_serialize_sql returned, `len` bytes. 0; -EINVAL with text: refused, or no
 * SELECT, or not understood; -ENOMEM with text.
 */
int filter_statement(const char *ast, size_t len, struct filter_result *out);

/** Whether a table's name begins as those of the engine's own views do. */
bool filter_engines_name(const char *name);
/** Whether a function of that name may be called; upper and lower case do not matter. */
bool filter_function_allowed(const char *name);
/** The same for FROM name(...). */
bool filter_table_function_allowed(const char *name);

#endif
