/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the user may say: exactly one statement, a SELECT, which the filter has looked at as the
 * engine's own parser sees it. Nothing of it has run by then.
 */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/filter.h"
#include "virt/query/worker/query.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Behind a comment, or NULL where none begins. Comments of the second kind nest. */
static const char *skip_comment(const char *p)
{
    unsigned depth = 0;

    if (p[0] == '-' && p[1] == '-')
        return p + strcspn(p, "\n");
    if (p[0] != '/' || p[1] != '*')
        return NULL;
    for (; *p; p++) {
        if (p[0] == '/' && p[1] == '*') {
            depth++;
            p++;
        } else if (p[0] == '*' && p[1] == '/') {
            depth--;
            p++;
            if (depth == 0)
                return p + 1;
        }
    }
    return p;
}

/* Behind a quoted text: 'it''s', E'it\'s', "name". */
static const char *skip_quoted(const char *p, bool backslash)
{
    char quote = *p++;

    for (; *p; p++) {
        if (backslash && *p == '\\' && p[1])
            p++;
        else if (*p == quote && p[1] == quote)
            p++;
        else if (*p == quote)
            return p + 1;
    }
    return p;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
}

/* Behind $tag$ ... $tag$, or NULL where none begins. */
static const char *skip_dollars(const char *p)
{
    const char *tag = p++;
    size_t len;

    if (isdigit((unsigned char)*p))
        return NULL;
    while (is_word(*p))
        p++;
    if (*p != '$')
        return NULL;
    len = (size_t)(p + 1 - tag);
    for (p++; *p; p++)
        if (strncmp(p, tag, len) == 0)
            return p + len;
    return p;
}

static const char *skip_token(const char *p)
{
    const char *end;

    if (*p == '\'' || *p == '"')
        return skip_quoted(p, false);
    if (*p == '$' && (end = skip_dollars(p)))
        return end;
    if (!is_word(*p))
        return p + 1;
    if ((*p == 'e' || *p == 'E') && p[1] == '\'')
        return skip_quoted(p + 1, true);
    while (is_word(*p) || *p == '$')
        p++;
    return p;
}

/* Behind white space and comments. */
static const char *skip_blank(const char *p)
{
    const char *end;

    for (;;) {
        if (isspace((unsigned char)*p))
            p++;
        else if ((end = skip_comment(p)))
            p = end;
        else
            return p;
    }
}

/* The length of the statement without ';', white space and comments at its end. */
static size_t trimmed_len(const char *sql)
{
    const char *p, *end = sql;

    for (p = skip_blank(sql); *p; p = skip_blank(p)) {
        if (*p == ';')
            p++;
        else
            p = end = skip_token(p);
    }
    return (size_t)(end - sql);
}

/* The engine's parser finds one statement, and it is of that kind. */
static int one_statement(const char *sql, struct qw_text *why)
{
    duckdb_extracted all = NULL;
    idx_t n = duck.extract_statements(qw_engine_con(), sql, &all);
    int rc = 0;

    if (n == 0 && duck.extract_statements_error(all))
        rc = qw_engine_failed(duck.extract_statements_error(all), why);
    else if (n != 1)
        rc = qw_fail(why, -EINVAL, "one SELECT statement is expected, this is %s",
                     n == 0 ? "none" : "more than one");
    duck.destroy_extracted(&all);
    return rc;
}

static int add_table(struct qw_statement *s, const char *name)
{
    char **more;

    for (unsigned i = 0; i < s->ntables; i++)
        if (strcasecmp(s->tables[i], name) == 0)
            return 0;
    more = realloc(s->tables, (s->ntables + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    s->tables = more;
    s->tables[s->ntables] = strdup(name);
    if (!s->tables[s->ntables])
        return -ENOMEM;
    s->ntables++;
    return 0;
}

/* The engine's tree of the statement. What makes it is prepared once, before the first fork. */
static int parse(const char *text, char **out, struct qw_text *why)
{
    static duckdb_prepared ps;
    duckdb_result result;
    int rc = 0;

    if (!ps &&
        duck.prepare(qw_engine_con(), "SELECT json_serialize_sql(?::VARCHAR)", &ps) != DUCKDB_OK)
        return qw_engine_failed(duck.prepare_error(ps), why);
    duck.bind_varchar_length(ps, 1, text, strlen(text));
    if (duck.execute_prepared(ps, &result) != DUCKDB_OK)
        rc = qw_engine_failed(duck.result_error(&result), why);
    else if (!(*out = duck.value_varchar(&result, 0, 0)))
        rc = qw_fail(why, -ENOMEM, "the engine gave no text");
    duck.destroy_result(&result);
    return rc;
}

/* It goes through the filter. */
static int filter(struct qw_statement *s, struct qw_text *why)
{
    struct filter_result res;
    char *ast = NULL;
    int rc = parse(s->text, &ast, why);

    if (rc < 0)
        return rc;
    rc = filter_statement(ast, strlen(ast), &res);
    duck.free(ast);
    if (rc < 0 && res.at >= 0)
        return qw_fail(why, rc, "%s (at byte %ld of the statement)", res.text, res.at);
    if (rc < 0)
        return qw_fail(why, rc, "%s", res.text);
    if (res.table[0])
        rc = add_table(s, res.table);
    if (rc == 0 && (res.s3object || !res.table[0]))
        rc = add_table(s, "s3object");
    return rc < 0 ? qw_fail(why, rc, "no memory for the statement") : 0;
}

/* DESCRIBE and SUMMARIZE are no query that COPY takes, but may be a table of one. */
static int as_query(struct qw_statement *s)
{
    const char *p = skip_blank(s->text);
    char *text;

    if (strncasecmp(p, "describe", 8) != 0 && strncasecmp(p, "summarize", 9) != 0)
        return 0;
    if (asprintf(&text, "SELECT * FROM (%s\n)", s->text) < 0)
        return -ENOMEM;
    free(s->text);
    s->text = text;
    return 0;
}

int qw_statement_check(const char *sql, struct qw_statement *out, struct qw_text *why)
{
    struct qw_statement s = {0};
    int rc;

    s.text = strndup(sql, trimmed_len(sql));
    if (!s.text)
        return qw_fail(why, -ENOMEM, "no memory for the statement");
    rc = one_statement(s.text, why);
    if (rc == 0)
        rc = filter(&s, why);
    if (rc == 0 && as_query(&s) < 0)
        rc = qw_fail(why, -ENOMEM, "no memory for the statement");
    if (rc == 0)
        *out = s;
    return rc;
}
