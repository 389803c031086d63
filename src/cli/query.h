/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries of the verbs select and sql: pushed to the device where it can run them, else beside it
 * in workers of this process, which are started with the first query that needs them.
 */
#ifndef KVASIR_CLI_QUERY_H
#define KVASIR_CLI_QUERY_H

#include "cli/dev.h"

#include "kv/select.h"

struct query_service;

struct cli_query {
    struct dev *dev;
    uint64_t mem_bytes; /* of one query; 0: the default */
    struct query_service *svc;
};

/** Options that both verbs have: the form of the objects, limits. */
#define CLI_QUERY_OPTS                                                                             \
    {"input", 'i', OPT_CHOICE, false, "auto|csv|json|jsonl|parquet", "auto",                       \
     "what the objects are; auto looks at their first bytes"},                                     \
        {"header", 0, OPT_FLAG, false, NULL, NULL, "CSV objects begin with the columns' names"},   \
        {"no-header", 0, OPT_FLAG, false, NULL, NULL,                                              \
         "they do not: column0, column1, ... (without either it is found out)"},                   \
        {"delimiter", 0, OPT_STR, false, "C", NULL, "between the fields of CSV; \\t is a tab"},    \
        {"quote", 0, OPT_STR, false, "C", NULL, "around fields of CSV"},                           \
        {"escape", 0, OPT_STR, false, "C", NULL, "before a quote within a field of CSV"},          \
        {"schema", 0, OPT_STR, false, "NAME TYPE,...", NULL,                                       \
         "columns of CSV or JSON; without it they are found out from the data"},                   \
        {"timeout", 0, OPT_TIME, false, "TIME", "60s", "a query that takes longer is ended"},      \
    {                                                                                              \
        "query-mem", 0, OPT_SIZE, false, "SIZE", "256M", "memory of a query that runs here"        \
    }

/** Takes the options above. Tells the user about mistakes (returns -EINVAL then). */
int cli_query_options(struct cli *c, struct kv_select *out);

/** One query; the answer goes to res->data. Errors with text as query_select(). */
int cli_query_run(struct rt_task *t, struct cli_query *cq, const struct kv_select *q,
                  struct kv_select_result *res, struct err *why);
/** Ends the workers, if there are any. */
void cli_query_close(struct rt_task *t, struct cli_query *cq);

#endif
