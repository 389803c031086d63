/* SPDX-License-Identifier: Apache-2.0 */
/* What begins with a dot: settings of the prompt, and questions about the device. */
#include "cli/sql.h"

#include "cli/keys.h"
#include "cli/sql_table.h"

#include <string.h>

#define ARGS_MAX 3

struct args {
    char *text; /* ours; the words point into it */
    char *arg[ARGS_MAX];
    unsigned n;
};

/* Words, or what stands between quotes. */
static int split(const char *line, struct args *out)
{
    char *p;

    *out = (struct args){.text = strdup(line)};
    if (out->text == NULL)
        return -ENOMEM;
    for (p = out->text; out->n < ARGS_MAX;) {
        p += strspn(p, " \t\r\n");
        if (*p == '\0')
            return 0;
        if (*p == '\'' || *p == '"') {
            char *end = strchr(p + 1, *p);

            if (end == NULL)
                return -EINVAL;
            out->arg[out->n++] = p + 1;
            p = end;
        } else {
            out->arg[out->n++] = p;
            p += strcspn(p, " \t\r\n;");
        }
        if (*p != '\0')
            *p++ = '\0';
    }
    return 0;
}

static int set_flag(struct sql *s, const char *name, const char *text, bool *out)
{
    if (text != NULL && strcmp(text, "on") == 0)
        *out = true;
    else if (text != NULL && strcmp(text, "off") == 0)
        *out = false;
    else
        return cli_fail(s->c, -EINVAL, "%s on, or %s off", name, name);
    return 0;
}

/* --- commands --------------------------------------------------------------------------------- */

static int do_help(struct rt_task *t, struct sql *s, const struct args *a)
{
    cli_print(s->c,
              "SELECT ... FROM 'KEY' ... ;   asks one object; 'logs/*' asks several as one table\n"
              ".tables [PREFIX]              the keys of the device\n"
              ".schema KEY                   the columns of an object\n"
              ".mode MODE                    table, line, csv, json, jsonl, parquet, arrow\n"
              ".output [FILE]                answers go to FILE; without FILE back here\n"
              ".read FILE                    statements and commands from FILE\n"
              ".timer on|off                 times and bytes after each answer\n"
              ".types on|off                 types of columns in tables\n"
              ".header on|off                names of columns in csv\n"
              ".null TEXT                    what NULL looks like in tables\n"
              ".width N                      cells of a column in tables, 0: all of them\n"
              ".quit                         or Ctrl-D; Ctrl-C ends what runs\n");
    return sql_flush(t, s, true);
}

static int do_tables(struct rt_task *t, struct sql *s, const struct args *a)
{
    struct cli_key *prefix = calloc(2, sizeof(*prefix)), *key = prefix + 1;
    CLEANUP(keys_free_p) struct keys *walk = NULL;
    struct err why = {""};
    char *text = malloc(CLI_KEY_TEXT_MAX);
    int rc = prefix == NULL || text == NULL ? -ENOMEM : 0;

    if (rc == 0 && a->n > 1)
        rc = cli_key_parse(a->arg[1], true, prefix, &why);
    if (rc == 0) {
        walk = keys_new(s->dev.kv_chan, cli_key_bytes(prefix), NULL);
        rc = walk == NULL ? -ENOMEM : 1;
    }
    while (rc > 0 && (rc = keys_next(t, walk, key)) > 0) {
        cli_print(s->c, "%s\n", cli_key_text(cli_key_bytes(key), text));
        rc = sql_flush(t, s, false) < 0 ? -EPIPE : 1;
    }
    if (rc < 0)
        cli_fail(s->c, rc, "list: %s", why.text[0] != '\0' ? why.text : err_str(rc));
    else
        rc = sql_flush(t, s, true);
    free(prefix);
    free(text);
    return rc;
}

static void put_text(void *arg, const char *text, size_t len)
{
    cli_put(arg, text, len);
}

static int feed_quoted(struct sql_table *tab, const char *text)
{
    int rc = sql_table_feed(tab, "\"", 1);

    for (; *text != '\0' && rc == 0; text++)
        rc = sql_table_feed(tab, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    return rc < 0 ? rc : sql_table_feed(tab, "\"", 1);
}

static int do_schema(struct rt_task *t, struct sql *s, const struct args *a)
{
    struct sql_table_opts o = {.null_text = "", .put = put_text, .arg = s->c};
    const struct sql_columns *cols;
    struct sql_table *tab;
    struct err why = {""};
    uint64_t rows = 0;
    int rc = 0;

    if (a->n < 2)
        return cli_fail(s->c, -EINVAL, ".schema KEY; .tables lists the keys");
    cols = sql_columns_of(t, s, a->arg[1], strlen(a->arg[1]), 0, &why);
    if (cols == NULL) {
        rc = -errno;
        return cli_fail(s->c, rc, "%s", why.text);
    }
    tab = sql_table_new(&o);
    if (tab == NULL)
        return cli_fail(s->c, -ENOMEM, "no memory");
    sql_table_feed(tab, "column,type\n", strlen("column,type\n"));
    for (unsigned i = 0; i < cols->n && rc == 0; i++) {
        rc = feed_quoted(tab, cols->name[i]);
        if (rc == 0)
            rc = sql_table_feed(tab, ",", 1);
        if (rc == 0)
            rc = feed_quoted(tab, cols->type[i]);
        if (rc == 0)
            rc = sql_table_feed(tab, "\n", 1);
    }
    sql_table_end(tab, &rows);
    sql_table_free(tab);
    if (s->interactive)
        cli_print(s->c, "\n");
    return rc < 0 ? cli_fail(s->c, rc, "no memory") : sql_flush(t, s, true);
}

static int do_mode(struct rt_task *t, struct sql *s, const struct args *a)
{
    if (a->n < 2) {
        cli_print(s->c, "%s\n", sql_mode_names[s->mode]);
        return sql_flush(t, s, true);
    }
    if (sql_mode_parse(a->arg[1], &s->mode) < 0)
        return cli_fail(s->c, -EINVAL,
                        "'%s' is no mode: table, line, csv, json, jsonl, parquet, arrow",
                        a->arg[1]);
    return 0;
}

int sql_output_end(struct rt_task *t, struct sql *s)
{
    struct err why = {""};
    int rc = 0;

    if (s->out.fd < 0)
        return 0;
    rc = sql_flush(t, s, true);
    if (rc == 0)
        rc = cli_file_commit(t, &s->out, &why);
    cli_file_close_p(&s->out);
    s->out = CLI_FILE_CLOSED;
    if (rc < 0)
        cli_fail(s->c, rc, "%s: %s", s->out_path, why.text[0] != '\0' ? why.text : err_str(rc));
    return rc;
}

static int do_output(struct rt_task *t, struct sql *s, const struct args *a)
{
    struct err why = {""};
    int rc = sql_output_end(t, s);

    if (rc < 0 || a->n < 2 || strcmp(a->arg[1], "-") == 0)
        return rc;
    free(s->out_path);
    s->out_path = strdup(a->arg[1]);
    if (s->out_path == NULL)
        return cli_fail(s->c, -ENOMEM, "no memory");
    rc = cli_file_create(t, s->out_path, false, &s->out, &why);
    if (rc < 0) {
        s->out = CLI_FILE_CLOSED;
        return cli_fail(s->c, rc, "%s", why.text);
    }
    return 0;
}

static int do_read(struct rt_task *t, struct sql *s, const struct args *a)
{
    if (a->n < 2)
        return cli_fail(s->c, -EINVAL, ".read FILE");
    if (s->read_depth >= 8)
        return cli_fail(s->c, -EINVAL, ".read %s: files that read files, more than 8 deep",
                        a->arg[1]);
    return sql_read_file(t, s, a->arg[1]);
}

static int do_timer(struct rt_task *t, struct sql *s, const struct args *a)
{
    return set_flag(s, ".timer", a->arg[1], &s->timer);
}

static int do_types(struct rt_task *t, struct sql *s, const struct args *a)
{
    return set_flag(s, ".types", a->arg[1], &s->types);
}

static int do_header(struct rt_task *t, struct sql *s, const struct args *a)
{
    return set_flag(s, ".header", a->arg[1], &s->header);
}

static int do_null(struct rt_task *t, struct sql *s, const struct args *a)
{
    if (a->n > 1 && strlen(a->arg[1]) >= sizeof(s->null_text))
        return cli_fail(s->c, -EINVAL, ".null TEXT: at most %zu bytes", sizeof(s->null_text) - 1);
    snprintf(s->null_text, sizeof(s->null_text), "%s", a->n > 1 ? a->arg[1] : "");
    return 0;
}

static int do_width(struct rt_task *t, struct sql *s, const struct args *a)
{
    char *end = NULL;
    unsigned long n = a->n > 1 ? strtoul(a->arg[1], &end, 10) : 0;

    if (a->n < 2 || *end != '\0' || n > 100000)
        return cli_fail(s->c, -EINVAL, ".width N: cells of a column, 0: no limit");
    s->width_max = (unsigned)n;
    return 0;
}

static int do_quit(struct rt_task *t, struct sql *s, const struct args *a)
{
    s->quit = true;
    return 0;
}

/* --- which one -------------------------------------------------------------------------------- */

const char *const sql_command_names[] = {".help",  ".tables", ".schema", ".mode",   ".output",
                                         ".read",  ".timer",  ".types",  ".header", ".null",
                                         ".width", ".quit",   ".exit",   NULL};

static int (*const command_fns[])(struct rt_task *t, struct sql *s, const struct args *a) = {
    do_help,  do_tables, do_schema, do_mode,  do_output, do_read, do_timer,
    do_types, do_header, do_null,   do_width, do_quit,   do_quit};

int sql_command(struct rt_task *t, struct sql *s, const char *line)
{
    struct args a;
    int rc = split(line, &a);

    if (rc == 0 && a.n == 0)
        rc = -EINVAL;
    if (rc < 0)
        cli_fail(s->c, rc, rc == -EINVAL ? "a quote is not closed" : "no memory");
    for (unsigned i = 0; rc == 0; i++) {
        if (sql_command_names[i] == NULL) {
            rc = cli_fail(s->c, -EINVAL, "there is no %s; .help lists what there is", a.arg[0]);
        } else if (strcmp(sql_command_names[i], a.arg[0]) == 0) {
            rc = command_fns[i](t, s, &a);
            break;
        }
    }
    free(a.text);
    return rc;
}
