/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/worker/schema.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static const char *skip_space(const char *p)
{
    while (isspace((unsigned char)*p))
        p++;
    return p;
}

/* A name: a word, or anything in double quotes. NULL: none is here. */
static const char *parse_name(const char *p, char *out, size_t size)
{
    size_t n = 0;

    if (*p == '"') {
        for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
            if (*p == '"')
                p++;
            if (n + 1 < size)
                out[n++] = *p;
        }
        if (*p++ != '"')
            return NULL;
    } else {
        for (; isalnum((unsigned char)*p) || *p == '_' || *p == '$' || (*p & 0x80); p++)
            if (n + 1 < size)
                out[n++] = *p;
    }
    out[n] = 0;
    return n && n + 1 < size ? p : NULL;
}

/* The end of a type: a comma that is in no parentheses, or the end. NULL: it makes no sense. */
static const char *type_end(const char *p)
{
    unsigned depth = 0;

    for (; *p && (*p != ',' || depth); p++) {
        if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                ;
            if (!*p)
                return NULL;
        } else if (*p == '(') {
            depth++;
        } else if (*p == ')') {
            if (depth-- == 0)
                return NULL;
        } else if (!isalnum((unsigned char)*p) && !strchr("_ \t\r\n,[]", *p)) {
            return NULL;
        }
    }
    return depth ? NULL : p;
}

static const char *parse_column(const char *p, json_t *columns)
{
    char name[1024];
    const char *end;
    size_t len;

    p = parse_name(skip_space(p), name, sizeof(name));
    if (!p || !isspace((unsigned char)*p))
        return NULL;
    p = skip_space(p);
    end = type_end(p);
    if (!end)
        return NULL;
    for (len = (size_t)(end - p); len && isspace((unsigned char)p[len - 1]); len--)
        ;
    if (len == 0 || json_array_append_new(columns, json_pack("[s, s%]", name, p, len)) < 0)
        return NULL;
    return end;
}

int qw_schema_columns(const char *text, json_t **out, struct qw_text *why)
{
    json_t *columns = json_array();
    const char *p = text;

    for (;;) {
        const char *end = columns ? parse_column(p, columns) : NULL;

        if (!end)
            break;
        if (!*end) {
            *out = columns;
            return 0;
        }
        p = end + 1;
    }
    json_decref(columns);
    p = skip_space(p);
    return qw_fail(why, -EINVAL,
                   "the schema is not understood at \"%.40s\": it reads NAME TYPE, NAME TYPE, ... "
                   "with types such as BIGINT, DOUBLE, VARCHAR, DATE, DECIMAL(12,2)",
                   p);
}

static bool one_of(const json_t *schema, const char *key, const char *const *values)
{
    const char *s = json_string_value(json_object_get(schema, key));

    for (; s && *values; values++)
        if (strcmp(s, *values) == 0)
            return true;
    return false;
}

static bool columns_ok(const json_t *columns)
{
    json_t *column;
    size_t i;

    json_array_foreach(columns, i, column)
    {
        if (!json_is_array(column) || json_array_size(column) != 2 ||
            !json_is_string(json_array_get(column, 0)) ||
            !json_is_string(json_array_get(column, 1)))
            return false;
    }
    return json_array_size(columns) > 0;
}

static bool csv_ok(const json_t *schema)
{
    static const char *const texts[] = {"delim",   "quote",      "escape",         "newline",
                                        "comment", "dateformat", "timestampformat"};
    json_t *skip = json_object_get(schema, "skip");

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (!json_is_string(json_object_get(schema, texts[i])))
            return false;
    return json_is_integer(skip) && json_integer_value(skip) >= 0 &&
           json_is_boolean(json_object_get(schema, "header")) &&
           json_is_boolean(json_object_get(schema, "long_lines"));
}

bool qw_schema_ok(const json_t *schema)
{
    static const char *const formats[] = {"csv", "json", "parquet", NULL};
    static const char *const compressions[] = {"none", "gzip", "zstd", NULL};
    const char *format = json_string_value(json_object_get(schema, "format"));
    const json_t *columns = json_object_get(schema, "columns");

    if (!one_of(schema, "format", formats) || !one_of(schema, "compression", compressions))
        return false;
    if (strcmp(format, "parquet") == 0)
        return true;
    if (strcmp(format, "csv") == 0)
        return csv_ok(schema) && columns_ok(columns);
    return !columns || columns_ok(columns);
}
