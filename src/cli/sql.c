/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir sql: a prompt that asks the objects of a device, or the same from a file or a pipe. */
#include "cli/sql.h"

#include "cli/sql_scan.h"

#include "daemon/runtime_opts.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (16 * KIB)
#define TEXT_MAX (1 * MIB) /* of statements that have not ended */
#define WIDTH_DEFAULT 50

const char *const sql_mode_names[SQL_MODES + 1] = {"table", "line",    "csv",   "json",
                                                   "jsonl", "parquet", "arrow", NULL};

int sql_mode_parse(const char *name, enum sql_mode *out)
{
    for (unsigned i = 0; i < SQL_MODES; i++) {
        if (strcmp(name, sql_mode_names[i]) == 0) {
            *out = (enum sql_mode)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* --- statements ------------------------------------------------------------------------------- */

/* After a failure: a prompt goes on, a file ends unless told otherwise. */
static int after(struct sql *s, int rc, int *first)
{
    if (rc < 0 && *first == 0)
        *first = rc;
    if (rc == -EPIPE || rc == -ECANCELED)
        return s->interactive && rc == -ECANCELED ? 0 : rc;
    return s->interactive || s->keep_going ? 0 : rc;
}

static int add_text(struct sql *s, const char *text, size_t len)
{
    if (s->text_len + len + 1 > s->text_cap) {
        size_t cap = MAX(2 * s->text_cap, s->text_len + len + 1024);
        char *bigger = realloc(s->text, cap);

        if (bigger == NULL || s->text_len + len > TEXT_MAX) {
            s->text = bigger != NULL ? bigger : s->text;
            return cli_fail(s->c, -EFBIG, "a statement of more than 1 MiB");
        }
        s->text = bigger;
        s->text_cap = cap;
    }
    memcpy(s->text + s->text_len, text, len);
    s->text_len += len;
    return 0;
}

/* Runs the statements that are whole; with `all` also the rest. */
static int run_text(struct rt_task *t, struct sql *s, bool all, int *first)
{
    size_t end;
    int rc = 0;

    while (rc == 0 && !s->quit) {
        end = sql_scan_end(s->text, s->text_len);
        if (end == 0 && (!all || s->text_len == 0))
            break;
        end = end == 0 ? s->text_len : end;
        if (!sql_scan_blank(s->text, end))
            rc = after(s, sql_ask(t, s, s->text, end), first);
        s->text_len -= end;
        memmove(s->text, s->text + end, s->text_len);
    }
    if (rc < 0)
        s->text_len = 0;
    return rc;
}

/* One line, without its end. */
static int take_line(struct rt_task *t, struct sql *s, const char *line, size_t len, int *first)
{
    int rc;

    if (len > 0 && line[0] == '.' && sql_scan_blank(s->text, s->text_len)) {
        char *copy = strndup(line, len);

        s->text_len = 0;
        rc = copy == NULL ? -ENOMEM : sql_command(t, s, copy);
        free(copy);
        return after(s, rc, first);
    }
    rc = add_text(s, line, len);
    if (rc == 0)
        rc = add_text(s, "\n", 1);
    return rc < 0 ? rc : run_text(t, s, false, first);
}

/* --- files, pipes ----------------------------------------------------------------------------- */

struct lines {
    struct cli_file file;
    char *buf;
    size_t len, cap;
};

static int more_bytes(struct rt_task *t, struct lines *in)
{
    ssize_t n;

    if (in->len + READ_BYTES > in->cap) {
        char *bigger = realloc(in->buf, 2 * in->cap + READ_BYTES);

        if (bigger == NULL || in->len > TEXT_MAX) {
            in->buf = bigger != NULL ? bigger : in->buf;
            return -EFBIG;
        }
        in->buf = bigger;
        in->cap = 2 * in->cap + READ_BYTES;
    }
    n = cli_file_read(t, &in->file, in->buf + in->len, READ_BYTES);
    if (n > 0)
        in->len += (size_t)n;
    return (int)n;
}

static int read_lines(struct rt_task *t, struct sql *s, struct lines *in)
{
    int first = 0, rc = 0, n;

    while (rc == 0 && !s->quit) {
        char *end = in->len > 0 ? memchr(in->buf, '\n', in->len) : NULL;

        if (end == NULL) {
            n = more_bytes(t, in);
            if (n < 0)
                return cli_fail(s->c, n, "%s: %s", in->file.name, err_str(n));
            if (n > 0)
                continue;
            if (in->len > 0)
                rc = take_line(t, s, in->buf, in->len, &first);
            if (rc == 0)
                rc = run_text(t, s, true, &first);
            break;
        }
        rc = take_line(t, s, in->buf, (size_t)(end - in->buf), &first);
        in->len -= (size_t)(end + 1 - in->buf);
        memmove(in->buf, end + 1, in->len);
    }
    return first < 0 ? first : rc;
}

int sql_read_file(struct rt_task *t, struct sql *s, const char *path)
{
    struct lines in = {.file = CLI_FILE_CLOSED};
    struct err why = {""};
    int rc = cli_file_open(t, path, &in.file, &why);

    if (rc < 0)
        return cli_fail(s->c, rc, "%s", why.text);
    s->read_depth++;
    rc = read_lines(t, s, &in);
    s->read_depth--;
    cli_file_close_p(&in.file);
    free(in.buf);
    return rc;
}

/* --- the prompt ------------------------------------------------------------------------------- */

static int prompt(struct rt_task *t, struct sql *s)
{
    char *history = history_path("sql_history");
    struct edit_config cfg = {.in = STDIN_FILENO,
                              .out = STDOUT_FILENO,
                              .history = history,
                              .complete = sql_complete,
                              .arg = s};
    int ignored = 0, rc = 0;

    s->edit = edit_new(&cfg);
    if (s->edit == NULL) {
        free(history);
        return cli_fail(s->c, -ENOMEM, "no memory");
    }
    cli_print(s->c, "%s\n.help tells what there is; a statement ends with ';'\n", s->dev.uri);
    rc = cli_flush(t, s->c, true);
    while (rc == 0 && !s->quit) {
        char *line = NULL;

        rc = edit_line(t, s->edit, sql_scan_blank(s->text, s->text_len) ? "kvasir> " : "   ...> ",
                       &line);
        if (rc == -EINTR) {
            s->text_len = 0;
            rc = 0;
        } else if (rc == 1) {
            edit_remember(s->edit, line);
            rc = take_line(t, s, line, strlen(line), &ignored);
            free(line);
        } else if (rc == 0) {
            s->quit = true;
        }
    }
    edit_free(s->edit);
    free(history);
    return rc;
}

/* Ctrl-C ends the statement that runs; without a prompt, and SIGTERM, everything. */
static int signals(struct rt_task *t, void *arg)
{
    struct sql *s = arg;
    int fd = runtime_signals_open(false);
    int sig;

    if (fd < 0)
        return fd;
    while ((sig = runtime_signals_next(t, fd)) > 0) {
        if (sig == SIGINT && s->interactive) {
            if (s->running != NULL)
                rt_task_cancel(s->running);
            continue;
        }
        if (s->c->signal != 0)
            _exit(CLI_EXIT_SIGNAL + s->c->signal);
        s->c->signal = sig;
        rt_task_cancel(s->c->main_task);
    }
    close(fd);
    return 0;
}

static int session(struct rt_task *t, struct sql *s)
{
    const char *sql = cli_arg(s->c, 1), *file = opt_str(&s->c->opts, "file");
    const char *term = getenv("TERM");
    int first = 0, rc;

    s->interactive = sql == NULL && file == NULL && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) &&
                     (term == NULL || strcmp(term, "dumb") != 0);
    if (s->interactive) {
        rc = prompt(t, s);
    } else if (sql != NULL) {
        rc = add_text(s, sql, strlen(sql));
        if (rc == 0)
            rc = run_text(t, s, true, &first);
        rc = first < 0 ? first : rc;
    } else {
        rc = sql_read_file(t, s, file != NULL ? file : "-");
    }
    if (rc == 0)
        rc = sql_output_end(t, s);
    return rc;
}

static int sql_run(struct rt_task *t, struct cli *c)
{
    struct sql *s = calloc(1, sizeof(*s));
    struct rt_task *sig = NULL;
    struct rt_req sig_done;
    int rc;

    if (s == NULL)
        return cli_fail(c, -ENOMEM, "no memory");
    s->c = c;
    s->out = CLI_FILE_CLOSED;
    s->query.dev = &s->dev;
    s->query.mem_bytes = opt_u64(&c->opts, "query-mem");
    s->types = s->header = true;
    s->timer = opt_flag(&c->opts, "stats");
    s->keep_going = opt_flag(&c->opts, "keep-going");
    s->width_max = WIDTH_DEFAULT;
    snprintf(s->null_text, sizeof(s->null_text), "NULL");
    sql_mode_parse(c->json ? "jsonl" : opt_str(&c->opts, "mode"), &s->mode);
    list_init(&s->columns);
    rt_req_init_task(&sig_done, t);
    if (rt_task_start("signals", signals, s, &sig_done, &sig) < 0)
        sig = NULL;
    rc = cli_query_options(c, &s->form);
    if (rc == 0)
        rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, false, &s->dev);
    if (rc == 0)
        rc = session(t, s);
    cli_query_close(t, &s->query);
    dev_close(t, &s->dev);
    if (sig != NULL) {
        rt_task_cancel(sig);
        rt_wait(t, &sig_done);
    }
    cli_file_close_p(&s->out);
    sql_columns_free(s);
    free(s->out_path);
    free(s->last_key);
    free(s->text);
    free(s);
    return rc;
}

static const struct opt sql_opts[] = {
    {"mode", 0, OPT_CHOICE, false, "table|line|csv|json|jsonl|parquet|arrow", "table",
     "how answers are written"},
    {"file", 'f', OPT_FILE, false, "FILE", NULL,
     "statements and commands from FILE (\"-\": standard input)"},
    {"keep-going", 'k', OPT_FLAG, false, NULL, NULL,
     "without a prompt: go on after a failure; exit with the first error's code"},
    {"stats", 0, OPT_FLAG, false, NULL, NULL, "begin with .timer on"},
    CLI_QUERY_OPTS,
    {NULL},
};

const struct cli_verb verb_sql = {
    .name = "sql",
    .args = "URI [SQL]",
    .summary = "a prompt that asks the objects of a device in SQL",
    .about =
        "The objects of a device are tables by their keys: SELECT ... FROM 'dir/key.csv'. Quotes "
        "may be left out where there is nothing but letters, digits, dots, dashes and slashes; a "
        "key in other bytes is 'hex:DIGITS'. A pattern such as 'logs/*' or 'logs/2026-0?.csv' asks "
        "all that match as one table. One statement asks one table, as often as it likes.\n\n"
        "At a terminal a statement ends with ';' and may have many lines; Tab completes keys, "
        "columns and words, Ctrl-R searches what was typed before (kept in kvasir/sql_history in "
        "$XDG_STATE_HOME or ~/.local/state), Ctrl-C ends the statement that runs, Ctrl-D the "
        "prompt. What begins with a dot is a command: .help lists them.\n\n"
        "With SQL, -f, or when standard input is no terminal, the statements there are run one "
        "after the other, and the first that fails ends it with its exit code. --json is --mode "
        "jsonl, with errors as JSON.\n\n"
        "Tables show NULL as NULL (.null changes that) and cut columns at 50 cells (.width). What "
        "runs where, and what SQL there is, is told by kvasir select --help.",
    .examples = "kvasir sql dir:./data\n"
                "kvasir sql dir:./data \"select Origin, count(*) from cars.csv group by 1\"\n"
                "kvasir sql --mode csv dir:./data -f report.sql >report.csv\n"
                "echo \"select * from 'logs/*' limit 3;\" | kvasir sql dir:./data",
    .opts = sql_opts,
    .args_min = 1,
    .args_max = 2,
    .drivers = CLI_KV,
    .own_signals = true,
    .run = sql_run,
};
