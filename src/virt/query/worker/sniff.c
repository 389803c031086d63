/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds out what kind of objects there are and their columns, once: the view is then made with
 * everything said, or the engine would find it out for the view and again for the statement.
 */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_BYTES (16u << 10)

/* The first object that has bytes; the first one where none has. */
static unsigned first_object(const struct qw_query *q)
{
    for (unsigned i = 0; i < q->nobjects; i++)
        if (q->objects[i].size)
            return i;
    return 0;
}

static const char *compression_of(const unsigned char *p, size_t len)
{
    if (len >= 2 && p[0] == 0x1f && p[1] == 0x8b)
        return "gzip";
    if (len >= 4 && memcmp(p, "\x28\xb5\x2f\xfd", 4) == 0)
        return "zstd";
    return "none";
}

/* The first byte that says something tells JSON from CSV. */
static bool is_json(const char *p, size_t len)
{
    size_t i = len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

    while (i < len && strchr(" \t\r\n", p[i]) && p[i])
        i++;
    return i < len && (p[i] == '{' || p[i] == '[');
}

/* What is inside a compressed object: its first line that is not empty, as the engine unpacks it.
 * A line without end is more likely an array in JSON. */
static bool packed_is_json(unsigned object, const char *compression)
{
    struct qw_text ignored;
    bool json = true;
    char *line = NULL;
    char *sql = NULL;

    if (asprintf(&sql,
                 "SELECT coalesce((SELECT l FROM read_csv('" QW_PATH_OBJECT
                 "%u', compression='%s', columns={'l': 'VARCHAR'}, auto_detect=false, "
                 "delim='\x01', quote='', escape='', header=false) "
                 "WHERE trim(l) <> '' LIMIT 1), '')",
                 object, compression) < 0)
        return false;
    if (qw_engine_text(sql, NULL, 0, &line, &ignored) == 0) {
        json = is_json(line, strlen(line));
        duck.free(line);
    }
    free(sql);
    return json;
}

static const char *format_name(const struct qw_query *q, unsigned object, const char *compression,
                               const unsigned char *p, size_t len)
{
    switch (q->input) {
    case QW_CSV:
        return "csv";
    case QW_JSON:
    case QW_JSONL:
        return "json";
    case QW_PARQUET:
        return "parquet";
    default:
        break;
    }
    if (len >= 4 && memcmp(p, "PAR1", 4) == 0)
        return "parquet";
    if (strcmp(compression, "none") != 0)
        return packed_is_json(object, compression) ? "json" : "csv";
    return is_json((const char *)p, len) ? "json" : "csv";
}

static void write_argument(FILE *f, const char *name, const char *value)
{
    if (!*value)
        return;
    fprintf(f, ", %s=", name);
    qw_sql_string(f, value);
}

/* The options of CSV that the user gave. */
static void write_given(FILE *f, const struct qw_query *q)
{
    write_argument(f, "delim", q->delim);
    write_argument(f, "quote", q->quote);
    write_argument(f, "escape", q->escape);
    if (strcmp(q->header, "auto") != 0)
        fprintf(f, ", header=%s", strcmp(q->header, "yes") == 0 ? "true" : "false");
}

static int select_json(char *sql, json_t **out, struct qw_text *why)
{
    char *text = NULL;
    int rc = qw_engine_text(sql, NULL, 0, &text, why);

    free(sql);
    if (rc < 0)
        return rc;
    *out = json_loads(text, 0, NULL);
    duck.free(text);
    return *out ? 0 : qw_fail(why, -EBADMSG, "the columns of the object have no names in UTF-8");
}

/* What the first bytes say of an object. */
struct look {
    const char *compression;
    bool quotes; /* some are there */
    bool plain;  /* nothing hints at other quotes than the usual, or at comments */
};

static int ask_sniffer(const struct qw_query *q, unsigned object, const struct look *look,
                       const char *more, bool long_lines, json_t **out, struct qw_text *why)
{
    char *sql = NULL;
    size_t len;
    FILE *f = open_memstream(&sql, &len);

    if (!f)
        return qw_fail(why, -ENOMEM, "no memory to look at the object");
    fprintf(f, "SELECT to_json(t)::VARCHAR FROM sniff_csv('" QW_PATH_OBJECT "%u', compression='%s'",
            object, look->compression);
    write_given(f, q);
    qw_input_buffers(f, q, strcmp(look->compression, "none") != 0, long_lines);
    fprintf(f, "%s) t", more);
    fclose(f);
    return select_json(sql, out, why);
}

/* The engine tries every delimiter with every quote, escape and comment. Most objects have the
 * usual ones, which a fraction of that finds; and few have lines that need large buffers. */
static int sniff_csv(const struct qw_query *q, unsigned object, const struct look *look,
                     json_t **out, bool *out_long_lines, struct qw_text *why)
{
    *out_long_lines = false;
    if (look->plain && !*q->quote && !*q->escape &&
        ask_sniffer(q, object, look, ", quote='\"', escape='\"', comment=''", false, out, why) == 0)
        return 0;
    if (ask_sniffer(q, object, look, "", false, out, why) == 0)
        return 0;
    *out_long_lines = true;
    return ask_sniffer(q, object, look, "", true, out, why);
}

/* What sniff_csv() calls a text that there is none of. */
static const char *text_of(const json_t *sniffed, const char *key)
{
    const char *s = json_string_value(json_object_get(sniffed, key));

    return s && strcmp(s, "(empty)") != 0 ? s : "";
}

static json_t *pairs(const json_t *columns)
{
    json_t *list = json_array(), *column;
    size_t i;

    json_array_foreach(columns, i, column)
        json_array_append_new(list, json_pack("[O, O]", json_object_get(column, "name"),
                                              json_object_get(column, "type")));
    return list;
}

/* No quote was seen where the engine looked, and one may follow: it is the usual one then. */
static bool may_quote(const struct qw_query *q, const json_t *sniffed, const struct look *look)
{
    return !*text_of(sniffed, "Quote") && !*q->quote && !look->quotes;
}

static json_t *csv_schema(const struct qw_query *q, const json_t *sniffed, const struct look *look,
                          bool long_lines)
{
    const char *quote = text_of(sniffed, "Quote"), *escape = text_of(sniffed, "Escape");
    const char *newline = text_of(sniffed, "NewLineDelimiter");

    if (may_quote(q, sniffed, look))
        quote = escape = "\"";
    else if (*quote && !*escape && !*q->escape)
        escape = quote;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:O, s:O, s:b, s:o}", "format", "csv",
        "compression", look->compression, "delim", text_of(sniffed, "Delimiter"), "quote", quote,
        "escape", escape, "newline", newline, "comment", text_of(sniffed, "Comment"), "dateformat",
        text_of(sniffed, "DateFormat"), "timestampformat", text_of(sniffed, "TimestampFormat"),
        "skip", json_object_get(sniffed, "SkipRows"), "header",
        json_object_get(sniffed, "HasHeader"), "long_lines", long_lines, "columns",
        pairs(json_object_get(sniffed, "Columns")));
}

static int same_names(const json_t *a, const json_t *b)
{
    json_t *column;
    size_t i;

    if (json_array_size(a) != json_array_size(b))
        return 0;
    json_array_foreach(a, i, column)
    {
        const char *x = json_string_value(json_array_get(column, 0));
        const char *y = json_string_value(json_array_get(json_array_get(b, i), 0));

        if (strcasecmp(x, y) != 0)
            return 0;
    }
    return 1;
}

static bool is_number(const char *type)
{
    return strcmp(type, "BIGINT") == 0 || strcmp(type, "DOUBLE") == 0;
}

/* The types of `columns` become such that the values of `more` fit. */
static void widen(json_t *columns, const json_t *more)
{
    json_t *column;
    size_t i;

    json_array_foreach(columns, i, column)
    {
        const char *a = json_string_value(json_array_get(column, 1));
        const char *b = json_string_value(json_array_get(json_array_get(more, i), 1));

        if (strcmp(a, b) != 0)
            json_array_set_new(column, 1,
                               json_string(is_number(a) && is_number(b) ? "DOUBLE" : "VARCHAR"));
    }
}

/* Other objects of the table have the same columns, or it is none. */
static int add_object(const struct qw_query *q, unsigned first, unsigned object,
                      const struct look *look, json_t *schema, struct qw_text *why)
{
    json_t *columns = json_object_get(schema, "columns"), *more, *sniffed = NULL;
    bool long_lines;
    int rc = sniff_csv(q, object, look, &sniffed, &long_lines, why);

    if (rc < 0)
        return rc;
    if (long_lines)
        json_object_set(schema, "long_lines", json_true());
    more = pairs(json_object_get(sniffed, "Columns"));
    if (!same_names(columns, more))
        rc = qw_fail(why, -EBADMSG,
                     "%s and %s do not have the same columns in the same order: they are not one "
                     "table",
                     q->objects[first].name, q->objects[object].name);
    else
        widen(columns, more);
    json_decref(more);
    json_decref(sniffed);
    return rc;
}

static int given_columns(const struct qw_query *q, json_t *schema, struct qw_text *why)
{
    size_t found = json_array_size(json_object_get(schema, "columns"));
    json_t *columns;
    int rc = qw_schema_columns(q->schema, &columns, why);

    if (rc < 0)
        return rc;
    if (found && found != json_array_size(columns) && q->objects[first_object(q)].size)
        rc = qw_fail(why, -EINVAL, "the schema has %zu columns, and the object has %zu",
                     json_array_size(columns), found);
    json_object_set_new(schema, "columns", columns);
    return rc;
}

/* All that matters was said: nothing has to be found out. */
static json_t *csv_as_told(const struct qw_query *q, const char *compression)
{
    const char *quote = *q->quote ? q->quote : "\"";

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:b, s:b}", "format",
                     "csv", "compression", compression, "delim", q->delim, "quote", quote, "escape",
                     *q->escape ? q->escape : quote, "newline", "", "comment", "", "dateformat", "",
                     "timestampformat", "", "skip", 0, "header", strcmp(q->header, "yes") == 0,
                     "long_lines", 0);
}

static int find_csv(const struct qw_query *q, unsigned first, const struct look *look, json_t **out,
                    struct qw_text *why)
{
    json_t *sniffed = NULL, *schema;
    bool long_lines;
    int rc = 0;

    if (*q->schema && *q->delim && strcmp(q->header, "auto") != 0) {
        schema = csv_as_told(q, look->compression);
    } else {
        rc = sniff_csv(q, first, look, &sniffed, &long_lines, why);
        if (rc < 0)
            return rc;
        schema = csv_schema(q, sniffed, look, long_lines);
        json_decref(sniffed);
    }
    if (!schema)
        return qw_fail(why, -ENOMEM, "no memory for the columns");
    if (*q->schema)
        rc = given_columns(q, schema, why);
    for (unsigned i = first + 1; rc == 0 && !*q->schema && i < q->nobjects; i++)
        if (q->objects[i].size)
            rc = add_object(q, first, i, look, schema, why);
    *out = schema;
    return rc;
}

static int describe_json(const struct qw_query *q, const char *compression, const char *more,
                         json_t **out, struct qw_text *why)
{
    char *sql = NULL;
    size_t len;
    FILE *f = open_memstream(&sql, &len);

    if (!f)
        return qw_fail(why, -ENOMEM, "no memory to look at the object");
    fputs("SELECT json_group_array({'name': column_name, 'type': column_type})::VARCHAR FROM "
          "(DESCRIBE SELECT * FROM read_json(",
          f);
    qw_input_paths(f, q);
    fprintf(f, ", compression='%s'%s))", qw_input_compression(compression), more);
    fclose(f);
    return select_json(sql, out, why);
}

/* What the engine calls one column "json": records that are no objects, or objects that have so
 * many names that it takes them for keys of one map. */
static const char *json_alone(const json_t *found)
{
    const json_t *column = json_array_get(found, 0);

    if (json_array_size(found) != 1 ||
        strcmp(json_string_value(json_object_get(column, "name")), "json") != 0)
        return NULL;
    return json_string_value(json_object_get(column, "type"));
}

/* DESCRIBE finds the columns of all objects, since those of JSON need not be the same. Records
 * that are no objects the engine has to find itself, and where there are very many columns it had
 * better: the list of them would take it more memory than the rows do (wide.c). */
static int find_json(const struct qw_query *q, const char *compression, json_t **out,
                     struct qw_text *why)
{
    json_t *schema = json_pack("{s:s, s:s}", "format", "json", "compression", compression);
    json_t *found = NULL;
    const char *alone;
    int rc;

    *out = schema;
    if (!schema)
        return qw_fail(why, -ENOMEM, "no memory to look at the object");
    if (*q->schema)
        return given_columns(q, schema, why);
    rc = describe_json(q, compression, "", &found, why);
    alone = rc == 0 ? json_alone(found) : NULL;
    if (alone && strncmp(alone, "MAP(", 4) == 0) {
        json_decref(found);
        found = NULL;
        rc = describe_json(q, compression, ", map_inference_threshold=-1", &found, why);
        alone = rc == 0 ? json_alone(found) : NULL;
    }
    if (rc < 0)
        return rc;
    if (json_array_size(found) >= QW_WIDE_COLUMNS)
        json_object_set_new(schema, "wide", json_true());
    else if (!alone)
        json_object_set_new(schema, "columns", pairs(found));
    json_decref(found);
    return 0;
}

static struct look look_at(const char *p, size_t len)
{
    struct look look = {.compression = compression_of((const unsigned char *)p, len)};

    look.quotes = memchr(p, '"', len) != NULL;
    look.plain = strcmp(look.compression, "none") == 0 && !memchr(p, '\'', len) &&
                 !memchr(p, '#', len) && !memmem(p, len, "\\\"", 2);
    return look;
}

int qw_sniff(const struct qw_query *q, json_t **out, struct qw_text *why)
{
    static char head[LOOK_BYTES];
    unsigned first = first_object(q);
    ssize_t len = qw_object_read(first, 0, head, sizeof(head), false);
    struct look look;
    const char *format;

    if (len < 0)
        return qw_fail(why, (int)len, "reading %s failed: %s", q->objects[first].name,
                       strerror((int)-len));
    look = look_at(head, (size_t)len);
    format = format_name(q, first, look.compression, (const unsigned char *)head, (size_t)len);
    if (strcmp(format, "csv") == 0)
        return find_csv(q, first, &look, out, why);
    if (strcmp(format, "json") == 0)
        return find_json(q, look.compression, out, why);
    if (*q->schema)
        return qw_fail(why, -EINVAL, "a Parquet object has its own schema: leave the option out");
    *out = json_pack("{s:s, s:s}", "format", "parquet", "compression", "none");
    return 0;
}
