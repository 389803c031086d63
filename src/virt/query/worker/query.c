/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/worker/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int parse_format(const char *name, enum qw_format *out)
{
    static const char *const names[] = {"auto", "csv", "json", "jsonl", "parquet", "arrow"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum qw_format)i;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_objects(json_t *list, struct qw_query *q)
{
    json_t *o;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) == 0)
        return -EINVAL;
    q->nobjects = (unsigned)json_array_size(list);
    q->objects = calloc(q->nobjects, sizeof(*q->objects));
    if (!q->objects)
        return -ENOMEM;
    json_array_foreach(list, i, o)
    {
        const char *name = json_string_value(json_object_get(o, "name"));
        json_t *size = json_object_get(o, "size");

        if (!name || !json_is_integer(size) || json_integer_value(size) < 0)
            return -EINVAL;
        q->objects[i] =
            (struct qw_object){.name = name, .size = (uint64_t)json_integer_value(size)};
    }
    return 0;
}

static int parse_root(struct qw_query *q)
{
    const char *input, *output;
    json_t *objects;
    json_int_t ahead = 0;
    int header_out, rc;

    q->delim = q->quote = q->escape = q->schema = "";
    q->header = "auto";
    if (json_unpack(q->root, "{s:s, s:s, s:s, s?s, s?b, s?s, s?s, s?s, s?s, s?o, s:o, s?I}", "sql",
                    &q->sql, "input", &input, "output", &output, "header", &q->header, "header_out",
                    &header_out, "delim", &q->delim, "quote", &q->quote, "escape", &q->escape,
                    "schema", &q->schema, "known", &q->known, "objects", &objects, "ahead",
                    &ahead) < 0)
        return -EINVAL;
    q->header_out = json_is_true(json_object_get(q->root, "header_out"));
    if (json_is_null(q->known))
        q->known = NULL;
    rc = parse_format(input, &q->input);
    if (rc == 0)
        rc = parse_format(output, &q->output);
    if (rc == 0 && (q->input == QW_ARROW || q->output == QW_AUTO))
        rc = -EINVAL;
    if (rc == 0)
        rc = parse_objects(objects, q);
    if (rc == 0 && (ahead < 0 || ahead > QW_SLOT_BYTES || (uint64_t)ahead > q->objects[0].size))
        rc = -EINVAL;
    q->ahead = (uint32_t)ahead;
    return rc;
}

int qw_query_parse(const char *text, size_t len, struct qw_query *out, struct qw_text *why)
{
    struct qw_query q = {.root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL)};
    int rc = q.root ? parse_root(&q) : -EINVAL;

    if (rc < 0) {
        free(q.objects);
        json_decref(q.root);
        return qw_fail(why, rc, "the worker does not understand the query's form");
    }
    *out = q;
    return 0;
}

static void quoted(FILE *f, const char *s, char quote)
{
    fputc(quote, f);
    for (; *s; s++) {
        if (*s == quote)
            fputc(quote, f);
        fputc(*s, f);
    }
    fputc(quote, f);
}

void qw_sql_string(FILE *f, const char *s)
{
    quoted(f, s, '\'');
}

void qw_sql_name(FILE *f, const char *s)
{
    quoted(f, s, '"');
}
