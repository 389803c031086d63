/* SPDX-License-Identifier: Apache-2.0 */
/* What Tab offers: keys after FROM, columns of what was asked, words of SQL, commands. */
#include "cli/sql.h"

#include "cli/keys.h"
#include "cli/sql_scan.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define KEYS_OFFERED 500
#define COLUMNS_WAIT_NS (3 * NS_PER_S)

static const char *const sql_words[] = {
    "SELECT",       "FROM",       "WHERE",
    "GROUP BY",     "ORDER BY",   "HAVING",
    "LIMIT",        "OFFSET",     "DISTINCT",
    "AS",           "AND",        "OR",
    "NOT",          "NULL",       "IS",
    "IN",           "LIKE",       "ILIKE",
    "BETWEEN",      "EXISTS",     "CASE",
    "WHEN",         "THEN",       "ELSE",
    "END",          "CAST",       "TRY_CAST",
    "JOIN",         "LEFT JOIN",  "USING",
    "ON",           "UNION ALL",  "EXCEPT",
    "INTERSECT",    "WITH",       "OVER",
    "PARTITION BY", "QUALIFY",    "ASC",
    "DESC",         "NULLS LAST", "ALL",
    "COUNT",        "SUM",        "AVG",
    "MIN",          "MAX",        "MEDIAN",
    "ROUND",        "LENGTH",     "LOWER",
    "UPPER",        "SUBSTRING",  "COALESCE",
    "EXTRACT",      "DATE_TRUNC", "REGEXP_MATCHES",
    "STRING_AGG",   "LIST",       "UNNEST",
    "ROW_NUMBER",   "INTEGER",    "BIGINT",
    "DOUBLE",       "VARCHAR",    "DATE",
    "TIMESTAMP",    "TRUE",       "FALSE",
    NULL,
};

static bool begins(const char *word, const char *with, size_t len)
{
    return strncasecmp(word, with, len) == 0;
}

static bool identifier(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return false;
    while (isalnum((unsigned char)*s) || *s == '_')
        s++;
    return *s == '\0';
}

/* `text` with `quote` around it, the first one left out when it is there already. */
static void offer_quoted(struct edit_words *out, const char *text, char quote, bool opened)
{
    char *word = malloc(2 * strlen(text) + 3);
    size_t n = 0;

    if (word == NULL)
        return;
    if (!opened)
        word[n++] = quote;
    for (; *text != '\0'; text++) {
        word[n++] = *text;
        if (*text == quote)
            word[n++] = quote;
    }
    word[n++] = quote;
    edit_word_add(out, word, n);
    free(word);
}

/* Keys that begin with `begin`; quote 0: with quotes of their own, space: without any. */
static void offer_keys(struct rt_task *t, struct sql *s, const char *begin, size_t len, char quote,
                       struct edit_words *out)
{
    struct keys *walk = keys_new(s->dev.kv_chan, bytes_make(begin, len), NULL);
    struct cli_key *key = malloc(sizeof(*key));
    char *text = malloc(CLI_KEY_TEXT_MAX);
    unsigned n = 0;

    while (walk != NULL && key != NULL && text != NULL && n++ < KEYS_OFFERED &&
           keys_next(t, walk, key) > 0) {
        cli_key_text(cli_key_bytes(key), text);
        if (quote == ' ')
            edit_word_add(out, text, strlen(text));
        else
            offer_quoted(out, text, quote != 0 ? quote : '\'', quote != 0);
    }
    keys_free(walk);
    free(key);
    free(text);
}

static void offer_columns(struct rt_task *t, struct sql *s, const char *sql, size_t len,
                          const char *word, size_t word_len, char quote, struct edit_words *out)
{
    const struct sql_columns *cols = NULL;
    struct sql_name name = {0};
    struct err why = {""};

    if (sql_scan_name(sql, len, &name, NULL) == 0 && name.text_len > 0)
        cols = sql_columns_of(t, s, name.text, name.text_len, COLUMNS_WAIT_NS, &why);
    else if (s->last_key != NULL)
        cols = sql_columns_of(t, s, s->last_key, strlen(s->last_key), COLUMNS_WAIT_NS, &why);
    for (unsigned i = 0; cols != NULL && i < cols->n; i++) {
        if (!begins(cols->name[i], word, word_len))
            continue;
        if (quote == 0 && identifier(cols->name[i]))
            edit_word_add(out, cols->name[i], strlen(cols->name[i]));
        else
            offer_quoted(out, cols->name[i], '"', quote != 0);
    }
    sql_name_free(&name);
}

/* In the case that was begun. */
static void offer_words(const char *word, size_t len, struct edit_words *out)
{
    char text[32];

    for (unsigned i = 0; len > 0 && sql_words[i] != NULL; i++) {
        if (!begins(sql_words[i], word, len))
            continue;
        snprintf(text, sizeof(text), "%s", sql_words[i]);
        for (char *p = text; islower((unsigned char)word[0]) && *p != '\0'; p++)
            *p = (char)tolower((unsigned char)*p);
        edit_word_add(out, text, strlen(text));
    }
}

static void offer_list(const char *const *list, const char *word, size_t len,
                       struct edit_words *out)
{
    for (; *list != NULL; list++) {
        if (strncmp(*list, word, len) == 0)
            edit_word_add(out, *list, strlen(*list));
    }
}

static void complete_command(struct rt_task *t, struct sql *s, const char *line, size_t cursor,
                             struct edit_words *out)
{
    static const char *const on_off[] = {"off", "on", NULL};
    static const char *const flags[] = {".timer", ".types", ".header", NULL};
    size_t verb = strcspn(line, " "), at = cursor;

    while (at > 0 && line[at - 1] != ' ')
        at--;
    out->from = at;
    if (at == 0) {
        offer_list(sql_command_names, line, cursor, out);
    } else if (strncmp(line, ".mode", verb) == 0) {
        offer_list(sql_mode_names, line + at, cursor - at, out);
    } else if (strncmp(line, ".schema", verb) == 0 || strncmp(line, ".tables", verb) == 0) {
        offer_keys(t, s, line + at, cursor - at, ' ', out);
    } else {
        for (unsigned i = 0; flags[i] != NULL; i++) {
            if (strncmp(line, flags[i], verb) == 0)
                offer_list(on_off, line + at, cursor - at, out);
        }
    }
}

void sql_complete(struct rt_task *t, void *arg, const char *line, size_t cursor,
                  struct edit_words *out)
{
    struct sql *s = arg;
    size_t before = s->text_len, len = strlen(line);
    struct sql_tail tail;
    char *sql;

    if (line[0] == '.' && sql_scan_blank(s->text, s->text_len)) {
        complete_command(t, s, line, cursor, out);
        return;
    }
    sql = malloc(before + len + 1);
    if (sql == NULL)
        return;
    memcpy(sql, s->text, before);
    memcpy(sql + before, line, len + 1);
    tail = sql_scan_tail(sql, before + cursor);
    if (tail.at >= before) {
        const char *word = sql + tail.at;
        size_t word_len = before + cursor - tail.at;

        out->from = tail.at - before;
        if (tail.table) {
            offer_keys(t, s, word, word_len, tail.quote, out);
        } else if (tail.quote != '\'') {
            offer_columns(t, s, sql, before + len, word, word_len, tail.quote, out);
            if (tail.quote == 0)
                offer_words(word, word_len, out);
        }
    }
    free(sql);
}
