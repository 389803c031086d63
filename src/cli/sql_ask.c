/* SPDX-License-Identifier: Apache-2.0 */
/* One statement of the prompt: which objects it asks, the question, the answer in its form. */
#include "cli/sql.h"

#include "cli/keys.h"
#include "cli/sql_scan.h"
#include "cli/sql_table.h"

#include <fnmatch.h>
#include <string.h>
#include <unistd.h>

#define SMALL_ANSWER_MAX (4 * MIB) /* names and types of columns */

/* --- which objects ---------------------------------------------------------------------------- */

struct target {
    struct cli_key key; /* or the prefix */
    struct bytes one;   /* its bytes */
    struct bytes *many; /* of a pattern, NULL: one key or a prefix */
    unsigned n, cap;
};

static void target_free(struct target *tg)
{
    for (unsigned i = 0; i < tg->n; i++)
        free((void *)tg->many[i].ptr);
    free(tg->many);
    free(tg);
}

static int add_key(struct target *tg, struct bytes key)
{
    void *copy;

    if (tg->n == tg->cap) {
        unsigned cap = MAX(64u, 2 * tg->cap);
        struct bytes *bigger = realloc(tg->many, cap * sizeof(*bigger));

        if (bigger == NULL)
            return -ENOMEM;
        tg->many = bigger;
        tg->cap = cap;
    }
    copy = malloc(key.len);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, key.ptr, key.len);
    tg->many[tg->n++] = bytes_make(copy, key.len);
    return 0;
}

/* The keys that a pattern such as logs/2026-*.csv means; tg->key is what stands before it. */
static int match_keys(struct rt_task *t, struct sql *s, const char *pattern, struct target *tg,
                      struct kv_select *q, struct err *why)
{
    struct keys *walk = keys_new(s->dev.kv_chan, cli_key_bytes(&tg->key), NULL);
    struct cli_key *key = malloc(sizeof(*key));
    int rc = walk == NULL || key == NULL ? -ENOMEM : 1;

    while (rc > 0 && (rc = keys_next(t, walk, key)) > 0) {
        char *text = strndup((char *)key->data, key->len);

        if (text == NULL)
            rc = -ENOMEM;
        else if (strlen(text) == key->len && fnmatch(pattern, text, 0) == 0)
            rc = add_key(tg, cli_key_bytes(key)) < 0 ? -ENOMEM : 1;
        free(text);
        if (rc > 0 && tg->n > KV_SELECT_KEYS_MAX)
            rc = err_set(why, -EINVAL, "'%s' means more than %u objects; a prefix may", pattern,
                         KV_SELECT_KEYS_MAX);
    }
    keys_free(walk);
    free(key);
    if (rc < 0)
        return why->text[0] != '\0' ? rc : err_set(why, rc, "list: %s", err_str(rc));
    if (tg->n == 0)
        return err_set(why, -ENOENT, "no key matches '%s'", pattern);
    q->keys = tg->many;
    q->nkeys = tg->n;
    return 0;
}

/* From the name in FROM; `text` is terminated. */
static int find_target(struct rt_task *t, struct sql *s, const char *text, struct target *tg,
                       struct kv_select *q, struct err *why)
{
    size_t len = strlen(text), fixed = strcspn(text, "*?[");
    int rc;

    if (fixed == len && text[0] != '@') {
        rc = cli_key_parse(text, false, &tg->key, why);
        if (rc < 0)
            return rc;
    } else if (len > CLI_KEY_MAX) {
        return err_set(why, -ENAMETOOLONG, "a key has at most %u bytes", CLI_KEY_MAX);
    } else {
        memcpy(tg->key.data, text, fixed);
        tg->key.len = fixed;
    }
    if (fixed == len) {
        tg->one = cli_key_bytes(&tg->key);
        q->keys = &tg->one;
        q->nkeys = 1;
        return 0;
    }
    if (fixed + 1 < len || text[fixed] != '*')
        return match_keys(t, s, text, tg, q, why);
    q->nkeys = 0;
    q->prefix = cli_key_bytes(&tg->key);
    return 0;
}

/* --- small answers, held whole ---------------------------------------------------------------- */

struct held {
    char *p;
    size_t len;
};

static int held_put(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct held *h = arg;
    char *bigger;

    if (h->len + len > SMALL_ANSWER_MAX)
        return -ENOMEM;
    bigger = realloc(h->p, h->len + len + 1);
    if (bigger == NULL)
        return -ENOMEM;
    h->p = bigger;
    memcpy(h->p + h->len, buf, len);
    h->len += len;
    return 0;
}

/* Asks objects with a statement made of three parts; the answer is CSV. */
static int ask_small(struct rt_task *t, struct sql *s, const struct kv_select *base,
                     const char *before, struct bytes sql, const char *after, bool header,
                     struct held *out, struct err *why)
{
    struct kv_select_result res = {.data = held_put, .arg = out, .rows = UINT64_MAX};
    struct kv_select q = *base;
    char *text = NULL;
    int n = asprintf(&text, "%s%.*s%s", before, (int)sql.len, (const char *)sql.ptr, after), rc;

    if (n < 0)
        return -ENOMEM;
    q.sql = bytes_make(text, (size_t)n);
    q.output = KV_SELECT_CSV;
    q.header_out = header;
    rc = q.sql.len > KV_SELECT_SQL_MAX ? -EINVAL : cli_query_run(t, &s->query, &q, &res, why);
    free(text);
    return rc;
}

/* The types of a statement's columns, one record. The engine need not read rows to know. */
static int ask_types(struct rt_task *t, struct sql *s, const struct kv_select *q, struct held *out,
                     struct err *why)
{
    struct bytes sql = q->sql;
    const char *p = (const char *)sql.ptr;

    while (sql.len > 0 && (p[sql.len - 1] == ';' || strchr(" \t\r\n", p[sql.len - 1]) != NULL))
        sql.len--;
    return ask_small(t, s, q, "SELECT typeof(any_value(COLUMNS(*))) FROM (SELECT * FROM (", sql,
                     "\n) LIMIT 0)", false, out, why);
}

/* --- columns ---------------------------------------------------------------------------------- */

struct collect {
    char **text;
    unsigned n;
};

static int collect_first(void *arg, const struct sql_field *f, unsigned n)
{
    struct collect *col = arg;

    col->text = calloc(n, sizeof(*col->text));
    for (unsigned i = 0; i < n && col->text != NULL; i++) {
        col->text[i] = strndup(f[i].text, f[i].len);
        if (col->text[i] == NULL)
            break;
        col->n++;
    }
    return col->n == n ? 1 : -ENOMEM;
}

static void columns_free(struct sql_columns *cols)
{
    for (unsigned i = 0; i < cols->n; i++) {
        free(cols->name[i]);
        free(cols->type[i]);
    }
    free(cols->name);
    free(cols->type);
    free(cols->key);
    free(cols);
}

void sql_columns_free(struct sql *s)
{
    struct sql_columns *cols;

    while ((cols = list_pop_entry(&s->columns, struct sql_columns, link)) != NULL)
        columns_free(cols);
}

static int find_columns(struct rt_task *t, struct sql *s, struct sql_columns *cols,
                        uint64_t timeout_ns, struct err *why)
{
    static const char all[] = "SELECT * FROM s3object";
    struct target *tg = calloc(1, sizeof(*tg));
    struct kv_select q = s->form;
    struct held names = {0}, types = {0};
    struct collect a = {0}, b = {0};
    int rc = tg == NULL ? -ENOMEM : find_target(t, s, cols->key, tg, &q, why);

    if (timeout_ns != 0)
        q.timeout_ns = timeout_ns;
    q.sql = bytes_of_str(all);
    if (rc == 0)
        rc = ask_small(t, s, &q, "", q.sql, " LIMIT 0", true, &names, why);
    if (rc == 0)
        rc = ask_types(t, s, &q, &types, why);
    if (rc == 0)
        rc = MIN(sql_csv_each(names.p, names.len, collect_first, &a), 0);
    if (rc == 0)
        rc = MIN(sql_csv_each(types.p, types.len, collect_first, &b), 0);
    if (rc == 0 && a.n != b.n)
        rc = err_set(why, -EBADMSG, "%u names, but %u types of columns", a.n, b.n);
    cols->name = a.text;
    cols->type = b.text;
    cols->n = MIN(a.n, b.n);
    for (unsigned i = cols->n; i < MAX(a.n, b.n); i++)
        free(i < a.n ? a.text[i] : b.text[i]);
    free(names.p);
    free(types.p);
    if (tg != NULL)
        target_free(tg);
    return rc;
}

const struct sql_columns *sql_columns_of(struct rt_task *t, struct sql *s, const char *key,
                                         size_t len, uint64_t timeout_ns, struct err *why)
{
    struct sql_columns *cols;
    int rc;

    list_for_each (cols, &s->columns, struct sql_columns, link) {
        if (strlen(cols->key) == len && memcmp(cols->key, key, len) == 0)
            return cols;
    }
    cols = calloc(1, sizeof(*cols));
    if (cols == NULL)
        return NULL;
    cols->key = strndup(key, len);
    rc = cols->key == NULL ? -ENOMEM : find_columns(t, s, cols, timeout_ns, why);
    if (rc < 0) {
        if (why->text[0] == '\0')
            err_set(why, rc, "%s", err_str(rc));
        columns_free(cols);
        errno = -rc;
        return NULL;
    }
    list_add_tail(&s->columns, &cols->link);
    return cols;
}

/* --- the answer ------------------------------------------------------------------------------- */

struct answer {
    struct sql *s;
    struct sql_table *table; /* NULL: as it comes */
    uint64_t rows;
    int out_rc; /* where it goes takes no more */
};

int sql_flush(struct rt_task *t, struct sql *s, bool all)
{
    struct cli_out *out = &s->c->out;
    int rc;

    if (s->out.fd < 0)
        return cli_flush(t, s->c, all);
    rc = cli_file_write(t, &s->out, out->buf, out->len);
    out->len = 0;
    return rc;
}

static int take(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct answer *a = arg;
    int rc = 0;

    if (a->table != NULL)
        rc = sql_table_feed(a->table, buf, len);
    else
        cli_put(a->s->c, buf, len);
    if (rc == 0)
        rc = a->out_rc = sql_flush(t, a->s, false);
    return rc;
}

static void put_text(void *arg, const char *text, size_t len)
{
    cli_put(arg, text, len);
}

static void footer(struct sql *s, const struct kv_select_result *res, uint64_t rows,
                   uint64_t took_ns)
{
    char object[CLI_SIZE_TEXT], moved[CLI_SIZE_TEXT], answer[CLI_SIZE_TEXT], text[200] = "";

    if (s->timer)
        snprintf(text, sizeof(text), "%.1f ms, %s read of %s, answer %s%s", (double)took_ns / 1e6,
                 cli_size_text(res->read_bytes, moved), cli_size_text(res->object_bytes, object),
                 cli_size_text(res->result_bytes, answer), res->pushed ? ", at the device" : "");
    if (s->mode == SQL_MODE_TABLE)
        cli_print(s->c, "(%lu row%s%s%s)\n%s", rows, rows == 1 ? "" : "s", s->timer ? ", " : "",
                  text, s->interactive ? "\n" : "");
    else if (s->timer)
        fprintf(stderr, "(%s)\n", text);
}

static int run_query(struct rt_task *t, struct sql *s, struct kv_select *q, struct held *types,
                     struct err *why)
{
    static const enum kv_select_format formats[SQL_MODES] = {
        KV_SELECT_CSV,   KV_SELECT_CSV,     KV_SELECT_CSV,  KV_SELECT_JSON,
        KV_SELECT_JSONL, KV_SELECT_PARQUET, KV_SELECT_ARROW};
    bool text = s->mode == SQL_MODE_TABLE || s->mode == SQL_MODE_LINE;
    struct sql_table_opts o = {.style = s->mode == SQL_MODE_LINE ? SQL_LINE : SQL_TABLE,
                               .width_max = s->width_max,
                               .null_text = s->null_text,
                               .types = types->p,
                               .types_len = types->len,
                               .put = put_text,
                               .arg = s->c};
    struct answer a = {.s = s};
    struct kv_select_result res = {.data = take, .arg = &a, .rows = UINT64_MAX};
    uint64_t start_ns = rt_now();
    int rc;

    q->output = formats[s->mode];
    q->header_out = text || s->header;
    if (text)
        a.table = sql_table_new(&o);
    rc = text && a.table == NULL ? -ENOMEM : cli_query_run(t, &s->query, q, &res, why);
    if (rc == -EPIPE && a.out_rc == 0)
        rc = -EIO; /* the worker's end, not that of who reads the answer */
    if (a.table != NULL) {
        int end_rc = sql_table_end(a.table, &a.rows);

        rc = rc == 0 ? end_rc : rc;
    }
    sql_table_free(a.table);
    if (rc == 0)
        footer(s, &res, a.rows, rt_now() - start_ns);
    if (rc == 0 || s->out.fd < 0)
        rc = sql_flush(t, s, true) < 0 && rc == 0 ? -EPIPE : rc;
    return rc;
}

/* --- a statement ------------------------------------------------------------------------------ */

struct ask {
    struct sql *s;
    struct bytes sql;
    char *rewritten; /* with quotes around a name that has none */
    struct sql_name name;
    struct target *target;
    struct kv_select q;
    struct err why;
};

static int quote_name(struct ask *a)
{
    const char *sql = (const char *)a->sql.ptr;
    size_t n = a->name.at;
    char *out = malloc(a->sql.len + a->name.text_len + 3);

    if (out == NULL)
        return -ENOMEM;
    memcpy(out, sql, n);
    out[n++] = '"';
    for (size_t i = 0; i < a->name.text_len; i++)
        out[n++] = a->name.text[i]; /* a quote would have ended it */
    out[n++] = '"';
    memcpy(out + n, sql + a->name.at + a->name.len, a->sql.len - a->name.at - a->name.len);
    a->rewritten = out;
    a->sql = bytes_make(out, n + a->sql.len - a->name.at - a->name.len);
    return 0;
}

static int prepare_ask(struct rt_task *t, struct ask *a)
{
    struct sql *s = a->s;
    int rc = sql_scan_name((const char *)a->sql.ptr, a->sql.len, &a->name, &a->why);

    if (rc < 0)
        return rc;
    if (a->name.len == 0)
        return err_set(&a->why, -EINVAL,
                       "it asks no object: say FROM 'KEY'; .tables lists the keys");
    a->name.text[a->name.text_len] = '\0';
    if (strlen(a->name.text) != a->name.text_len || a->name.text_len == 0)
        return err_set(&a->why, -EINVAL, "the name after FROM is no key");
    if (a->name.bare)
        rc = quote_name(a);
    a->q = s->form;
    a->q.sql = a->sql;
    if (rc == 0)
        rc = find_target(t, s, a->name.text, a->target, &a->q, &a->why);
    if (rc == 0) {
        free(s->last_key);
        s->last_key = strdup(a->name.text);
    }
    return rc;
}

static int ask_task(struct rt_task *t, void *arg)
{
    struct ask *a = arg;
    struct sql *s = a->s;
    struct held types = {0};
    struct err ignored = {""};
    int rc = prepare_ask(t, a);

    if (rc == 0 && a->sql.len > KV_SELECT_SQL_MAX)
        rc = err_set(&a->why, -EINVAL, "a statement has at most %u bytes", KV_SELECT_SQL_MAX);
    /* What is wrong with a statement is better said of the statement itself. */
    if (rc == 0 && s->types && s->mode == SQL_MODE_TABLE &&
        ask_types(t, s, &a->q, &types, &ignored) < 0)
        types.len = 0;
    if (types.len == 0) {
        free(types.p);
        types.p = NULL;
    }
    if (rc == 0)
        rc = run_query(t, s, &a->q, &types, &a->why);
    free(types.p);
    return rc;
}

static int tell(struct sql *s, int rc, const struct err *why)
{
    const char *text = why->text[0] != '\0' ? why->text : err_str(rc);

    if (s->out.fd >= 0) {
        cli_file_close_p(&s->out);
        s->out = CLI_FILE_CLOSED;
        fprintf(stderr, "kvasir sql: '%s' is not written\n", s->out_path);
    }
    if (rc == -ECANCELED && s->interactive)
        fprintf(stderr, "interrupted\n");
    else if (rc == -ENOENT && s->interactive)
        cli_fail(s->c, rc, "%s (.tables lists the keys)", text);
    else
        cli_fail(s->c, rc, "%s", text);
    return rc;
}

/* Parquet and Arrow: one answer is one file. */
static int one_file_each(struct rt_task *t, struct sql *s)
{
    if (s->mode != SQL_MODE_PARQUET && s->mode != SQL_MODE_ARROW)
        return 0;
    if (s->out.fd >= 0)
        return sql_output_end(t, s);
    return 0;
}

int sql_ask(struct rt_task *t, struct sql *s, const char *sql, size_t len)
{
    struct ask *a = calloc(1, sizeof(*a));
    struct rt_req done;
    int rc;

    if (a == NULL)
        return cli_fail(s->c, -ENOMEM, "no memory");
    a->s = s;
    a->sql = bytes_make(sql, len);
    a->target = calloc(1, sizeof(*a->target));
    rt_req_init_task(&done, t);
    if ((s->mode == SQL_MODE_PARQUET || s->mode == SQL_MODE_ARROW) && s->out.fd < 0 &&
        isatty(STDOUT_FILENO))
        rc = err_set(&a->why, -EINVAL, "%s is nothing for a terminal: .output FILE first",
                     sql_mode_names[s->mode]);
    else
        rc = a->target == NULL ? -ENOMEM : rt_task_start("sql", ask_task, a, &done, &s->running);
    if (rc == 0)
        rc = rt_wait(t, &done);
    s->running = NULL;
    if (rc < 0)
        tell(s, rc, &a->why);
    else
        rc = one_file_each(t, s);
    if (a->target != NULL)
        target_free(a->target);
    sql_name_free(&a->name);
    free(a->rewritten);
    free(a);
    return rc;
}
