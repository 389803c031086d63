/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir select: one SQL statement over objects; only the answer moves. */
#include "cli/file.h"
#include "cli/key.h"
#include "cli/query.h"

#include <string.h>
#include <unistd.h>

#define KEYS_MAX 256 /* on a command line */

struct job {
    struct cli *c;
    struct dev dev;
    struct cli_query query;
    struct kv_select q;
    struct cli_file out;
    struct cli_progress progress;
    int out_rc; /* where the answer goes takes no more */
    char *sql;  /* of -f; ours */
    struct cli_key *keys;
    struct bytes key_bytes[KEYS_MAX];
    struct cli_key prefix;
};

static int put(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct job *job = arg;
    int rc = cli_file_write(t, &job->out, buf, len);

    cli_progress_add(&job->progress, len);
    job->out_rc = rc;
    return rc;
}

/* --- what is asked ---------------------------------------------------------------------------- */

static int read_sql(struct rt_task *t, struct job *job, const char *path)
{
    CLEANUP(cli_file_close_p) struct cli_file in = CLI_FILE_CLOSED;
    struct err why = {""};
    size_t len = 0;
    ssize_t n = 1;
    int rc = cli_file_open(t, path, &in, &why);

    if (rc < 0)
        return cli_fail(job->c, rc, "%s", why.text);
    job->sql = malloc(KV_SELECT_SQL_MAX + 1);
    if (job->sql == NULL)
        return cli_fail(job->c, -ENOMEM, "no memory for the statement");
    while (n > 0 && len <= KV_SELECT_SQL_MAX) {
        n = cli_file_read(t, &in, job->sql + len, KV_SELECT_SQL_MAX + 1 - len);
        if (n < 0)
            return cli_fail(job->c, (int)n, "cannot read '%s': %s", path, err_str((int)n));
        len += (size_t)n;
    }
    job->q.sql = bytes_make(job->sql, len);
    return 0;
}

static int take_keys(struct job *job, unsigned first, unsigned n)
{
    struct err why = {""};
    int rc;

    job->keys = calloc(MAX(n, 1u), sizeof(*job->keys));
    if (job->keys == NULL)
        return cli_fail(job->c, -ENOMEM, "no memory for keys");
    for (unsigned i = 0; i < n; i++) {
        rc = cli_key_parse(cli_arg(job->c, first + i), false, &job->keys[i], &why);
        if (rc < 0)
            return cli_fail(job->c, rc, "%s", why.text);
        job->key_bytes[i] = cli_key_bytes(&job->keys[i]);
    }
    job->q.keys = job->key_bytes;
    job->q.nkeys = n;
    if (opt_str(&job->c->opts, "prefix") == NULL)
        return 0;
    rc = cli_key_parse(opt_str(&job->c->opts, "prefix"), true, &job->prefix, &why);
    job->q.prefix = cli_key_bytes(&job->prefix);
    return rc < 0 ? cli_fail(job->c, rc, "%s", why.text) : 0;
}

static int take_question(struct rt_task *t, struct job *job)
{
    const struct opts *o = &job->c->opts;
    const char *file = opt_str(o, "file");
    unsigned nkeys = o->nargs - (file != NULL ? 1 : 2);
    int rc = 0;

    if (file != NULL)
        rc = read_sql(t, job, file);
    else
        job->q.sql = bytes_of_str(cli_arg(job->c, o->nargs - 1));
    if (rc == 0 && job->q.sql.len > KV_SELECT_SQL_MAX)
        return cli_fail(job->c, -EINVAL, "a statement has at most %u bytes", KV_SELECT_SQL_MAX);
    if (rc == 0)
        rc = take_keys(job, 1, nkeys);
    if (rc == 0)
        rc = cli_query_options(job->c, &job->q);
    kv_select_format_parse(bytes_of_str(opt_str(o, "output")), &job->q.output);
    job->q.header_out = !opt_flag(o, "no-header-out");
    job->query.mem_bytes = opt_u64(o, "query-mem");
    return rc;
}

/* --- what is told ----------------------------------------------------------------------------- */

static json_t *report_json(const struct job *job, const struct kv_select_result *res)
{
    json_t *obj = json_pack(
        "{s:I, s:I, s:I, s:f, s:f, s:b, s:b}", "object_bytes", (json_int_t)res->object_bytes,
        "read_bytes", (json_int_t)res->read_bytes, "result_bytes", (json_int_t)res->result_bytes,
        "run_seconds", (double)res->run_ns / (double)NS_PER_S, "queue_seconds",
        (double)res->queue_ns / (double)NS_PER_S, "schema_known", (int)res->schema_known, "pushed",
        (int)res->pushed);

    json_object_set_new(obj, "uri", json_string(job->dev.uri));
    if (res->rows != UINT64_MAX)
        json_object_set_new(obj, "rows", json_integer((json_int_t)res->rows));
    return obj;
}

/* To standard error, where standard output is the answer's. */
static void report(struct job *job, const struct kv_select_result *res)
{
    char object[CLI_SIZE_TEXT], moved[CLI_SIZE_TEXT], answer[CLI_SIZE_TEXT], rows[40] = "";
    struct cli *c = job->c;

    if (c->json && !job->out.std) {
        cli_json(c, report_json(job, res));
        return;
    }
    if (!opt_flag(&c->opts, "stats"))
        return;
    if (c->json) {
        json_t *obj = report_json(job, res);
        char *line = json_dumps(obj, JSON_COMPACT);

        fprintf(stderr, "%s\n", line != NULL ? line : "{}");
        free(line);
        json_decref(obj);
        return;
    }
    if (res->rows != UINT64_MAX)
        snprintf(rows, sizeof(rows), "%lu rows, ", res->rows);
    fprintf(stderr, "%s%s of answer from %s of objects, of which %s were read, in %.1f ms, %s%s\n",
            rows, cli_size_text(res->result_bytes, answer),
            cli_size_text(res->object_bytes, object), cli_size_text(res->read_bytes, moved),
            (double)res->run_ns / 1e6, res->pushed ? "at the device" : "here",
            res->schema_known ? "" : ", columns found out");
}

/* --- the verb --------------------------------------------------------------------------------- */

static int ask(struct rt_task *t, struct job *job)
{
    struct kv_select_result res = {.data = put, .arg = job, .rows = UINT64_MAX};
    const char *path = opt_str(&job->c->opts, "output-file");
    struct err why = {""};
    int rc = cli_file_create(t, path != NULL ? path : "-", false, &job->out, &why);

    if (rc < 0)
        return cli_fail(job->c, rc, "%s", why.text);
    cli_progress_start(&job->progress, job->c, "answer", 0);
    rc = cli_query_run(t, &job->query, &job->q, &res, &why);
    cli_progress_stop(&job->progress);
    if (rc == -EPIPE && job->out_rc == 0)
        rc = -EIO; /* the worker's end, not that of who reads the answer */
    if (rc < 0)
        return cli_fail(job->c, rc, "%s", why.text[0] != '\0' ? why.text : err_str(rc));
    rc = cli_file_commit(t, &job->out, &why);
    if (rc < 0)
        return cli_fail(job->c, rc, "%s", why.text);
    report(job, &res);
    return 0;
}

static int select_run(struct rt_task *t, struct cli *c)
{
    struct job *job = calloc(1, sizeof(*job));
    int rc;

    if (job == NULL)
        return cli_fail(c, -ENOMEM, "no memory");
    job->c = c;
    job->out = CLI_FILE_CLOSED;
    job->query.dev = &job->dev;
    rc = take_question(t, job);
    if (rc == 0)
        rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, false, &job->dev);
    if (rc == 0)
        rc = ask(t, job);
    cli_query_close(t, &job->query);
    dev_close(t, &job->dev);
    cli_file_close_p(&job->out);
    free(job->sql);
    free(job->keys);
    free(job);
    return rc;
}

static int select_prepare(struct cli *c, struct rt_config *cfg)
{
    const struct opts *o = &c->opts;
    unsigned others = opt_str(o, "file") != NULL ? 1 : 2; /* URI, SQL */
    const char *to = opt_str(o, "output-file");
    bool binary =
        strcmp(opt_str(o, "output"), "parquet") == 0 || strcmp(opt_str(o, "output"), "arrow") == 0;

    if (o->nargs < others)
        return cli_usage(c, "which SQL? It comes last, in quotes, or in a file by -f");
    if (opt_str(o, "prefix") == NULL && o->nargs == others)
        return cli_usage(c, "which KEY? Several are one table; --prefix takes all that begin so");
    if (opt_str(o, "prefix") != NULL && o->nargs > others)
        return cli_usage(c, "keys or --prefix, not both");
    if (o->nargs - others > KEYS_MAX)
        return cli_usage(c, "at most %d keys; --prefix takes more", KEYS_MAX);
    if (binary && (to == NULL || strcmp(to, "-") == 0) && isatty(STDOUT_FILENO))
        return cli_usage(c, "%s is nothing for a terminal: give -o FILE", opt_str(o, "output"));
    return 0;
}

static const struct opt select_opts[] = {
    {"output", 0, OPT_CHOICE, false, "csv|json|jsonl|parquet|arrow", "csv", "form of the answer"},
    {"output-file", 'o', OPT_FILE, false, "FILE", NULL, "where to; standard output without it"},
    {"prefix", 0, OPT_STR, false, "PREFIX", NULL,
     "all keys that begin so, in their order, as one table; \"\" is all"},
    {"file", 'f', OPT_FILE, false, "FILE", NULL,
     "the statement is in FILE (\"-\": standard input)"},
    {"no-header-out", 0, OPT_FLAG, false, NULL, NULL, "CSV answers without the columns' names"},
    {"stats", 0, OPT_FLAG, false, NULL, NULL,
     "afterwards, on standard error: rows, bytes of objects, bytes read, time"},
    CLI_QUERY_OPTS,
    {NULL},
};

const struct cli_verb verb_select = {
    .name = "select",
    .args = "URI KEY... SQL | URI --prefix PREFIX SQL",
    .summary = "ask objects in SQL; only the answer moves",
    .about =
        "Runs one SELECT over the object of KEY: CSV, JSON or Parquet, CSV and JSON also as gzip "
        "or "
        "zstd. Several keys, or all with a prefix, are one table, one after the other. After FROM "
        "stands s3object, or any other name.\n\n"
        "A target that can run queries (nvme+tcp: to kvasir serve) runs it beside the data and "
        "sends the answer. With other devices it runs here, and reads from the device what it "
        "needs: of Parquet the columns it names.\n\n"
        "The engine is DuckDB's, its SQL with it: joins of the table with itself, WITH, windows, "
        "lists, regular expressions, JSON. It runs in a process of its own that has no files and "
        "no network; functions that read files or settings are refused.\n\n"
        "The columns of CSV and JSON are found out from the data; --schema saves that and says "
        "what they are: --schema 'id INTEGER, name VARCHAR'.\n\n"
        "The answer is CSV with the columns' names, at a terminal as in a pipe; kvasir sql URI SQL "
        "puts it into columns.",
    .examples =
        "kvasir select dir:./data cars.csv \"select Origin, count(*) from s3object group by 1\"\n"
        "kvasir select --output parquet -o big.parquet dir:./data cars.csv "
        "\"select * from s3object where Cylinders > 6\"\n"
        "kvasir select --stats nvme+tcp://127.0.0.1:4420/nqn.2026-11.io.kvasir:default?nsid=1 "
        "--prefix logs/ \"select status, count(*) n from s3object group by all order by n desc\"",
    .opts = select_opts,
    .args_min = 1,
    .args_max = KEYS_MAX + 2,
    .drivers = CLI_KV,
    .run = select_run,
    .prepare = select_prepare,
};
