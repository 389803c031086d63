/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of `kvasir sql` share: sql.c reads statements and commands, sql_ask.c asks,
 * sql_command.c does what begins with a dot, sql_words.c completes.
 */
#ifndef KVASIR_CLI_SQL_H
#define KVASIR_CLI_SQL_H

#include "cli/edit.h"
#include "cli/file.h"
#include "cli/key.h"
#include "cli/query.h"

enum sql_mode {
    SQL_MODE_TABLE,
    SQL_MODE_LINE,
    SQL_MODE_CSV,
    SQL_MODE_JSON,
    SQL_MODE_JSONL,
    SQL_MODE_PARQUET,
    SQL_MODE_ARROW,
    SQL_MODES
};
extern const char *const sql_mode_names[SQL_MODES + 1]; /* NULL ends */
/** -EINVAL: none of them. */
int sql_mode_parse(const char *name, enum sql_mode *out);

/** The columns of an object, as they were found once. */
struct sql_columns {
    struct list link;
    char *key;
    char **name;
    char **type;
    unsigned n;
};

struct sql {
    struct cli *c;
    struct dev dev;
    struct cli_query query;
    struct kv_select form; /* the options; keys and statement not set */
    enum sql_mode mode;
    bool interactive;
    bool timer, types, header, keep_going;
    unsigned width_max;
    char null_text[32];
    struct cli_file out; /* of .output; fd -1: standard output */
    char *out_path;
    bool out_used;       /* it holds an answer */
    struct rt_task *running; /* what Ctrl-C ends; NULL: nothing */
    bool quit;
    unsigned read_depth;
    struct edit *edit;
    char *text;            /* the statement as far as it has come */
    size_t text_len, text_cap;
    char *last_key;        /* asked last, for completion */
    struct list columns;   /* struct sql_columns */
};

/** Runs one statement and writes its answer. Tells the user about failures. */
int sql_ask(struct rt_task *t, struct sql *s, const char *sql, size_t len);
/** The columns of an object (text as in FROM); remembered. NULL with `why` set. */
const struct sql_columns *sql_columns_of(struct rt_task *t, struct sql *s, const char *key,
                                         size_t len, uint64_t timeout_ns, struct err *why);
void sql_columns_free(struct sql *s);

/** A line that begins with a dot. */
int sql_command(struct rt_task *t, struct sql *s, const char *line);
extern const char *const sql_command_names[]; /* NULL ends */
/** Statements and commands of a file, or of standard input ("-"). */
int sql_read_file(struct rt_task *t, struct sql *s, const char *path);

/** For struct edit_config. */
void sql_complete(struct rt_task *t, void *arg, const char *line, size_t cursor,
                  struct edit_words *out);

/** Writes out what cli_print() has collected, to where answers go. */
int sql_flush(struct rt_task *t, struct sql *s, bool all);
/** The file of .output gets its name; 0 when there is none. Tells about failures. */
int sql_output_end(struct rt_task *t, struct sql *s);

#endif
