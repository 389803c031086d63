/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of a query as one table, under each name that the statement has for it. */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Empty objects have no rows, and to find columns in them would fail; one of them stays where
 * there is no other. */
bool qw_input_path(const struct qw_query *q, unsigned i, unsigned before, char *out, size_t size)
{
    if (q->objects[i].size == 0 && (i + 1 < q->nobjects || before > 0))
        return false;
    snprintf(out, size, QW_PATH_OBJECT "%u", i);
    return true;
}

void qw_input_paths(FILE *f, const struct qw_query *q)
{
    unsigned n = 0;
    char path[64];

    fputc('[', f);
    for (unsigned i = 0; i < q->nobjects; i++)
        if (qw_input_path(q, i, n, path, sizeof(path)))
            fprintf(f, "%s'%s'", n++ ? ", " : "", path);
    fputc(']', f);
}

const char *qw_input_compression(const char *compression)
{
    return strcmp(compression, "none") == 0 ? "uncompressed" : compression;
}

static struct qw_csv_sizes csv_sizes(const struct qw_query *q, bool packed, bool long_lines)
{
    uint64_t line = long_lines ? 16u << 20 : 2u << 20, size = 2 * line, largest = 0;

    for (unsigned i = 0; i < q->nobjects; i++)
        if (q->objects[i].size > largest)
            largest = q->objects[i].size;
    /* The engine takes memory for a whole buffer, and a small object needs a small one. */
    if (!packed && largest < size)
        size = largest < 32768 ? 32768 : largest + 4096;
    if (line > size)
        line = size;
    return (struct qw_csv_sizes){line, size};
}

void qw_input_buffers(FILE *f, const struct qw_query *q, bool packed, bool long_lines)
{
    struct qw_csv_sizes s = csv_sizes(q, packed, long_lines);

    fprintf(f, ", max_line_size=%llu, buffer_size=%llu", (unsigned long long)s.line,
            (unsigned long long)s.buffer);
}

int qw_input_failed(int rc, const struct qw_query *q, struct qw_text *why)
{
    char *ours = strstr(why->s, "\n\nLINE ");

    if (ours)
        *ours = 0;
    /* Our statement is right, but for the types in a schema that was given. */
    if (rc == -EINVAL && !*q->schema)
        rc = -EBADMSG;
    if (rc == -EINVAL && strncmp(why->s, "Invalid Input", 13) == 0)
        rc = -EBADMSG;
    return rc;
}

static const char *text_of(const json_t *schema, const char *key)
{
    return json_string_value(json_object_get(schema, key));
}

struct qw_csv_sizes qw_input_csv_sizes(const struct qw_query *q, const json_t *schema)
{
    return csv_sizes(q, strcmp(text_of(schema, "compression"), "none") != 0,
                     json_is_true(json_object_get(schema, "long_lines")));
}

static void write_text(FILE *f, const json_t *schema, const char *key, const char *name)
{
    fprintf(f, ", %s=", name);
    qw_sql_string(f, text_of(schema, key));
}

static void write_columns(FILE *f, const json_t *columns)
{
    json_t *column;
    size_t i;

    if (!columns)
        return;
    fputs(", columns={", f);
    json_array_foreach(columns, i, column)
    {
        fputs(i ? ", " : "", f);
        qw_sql_string(f, json_string_value(json_array_get(column, 0)));
        fputs(": ", f);
        qw_sql_string(f, json_string_value(json_array_get(column, 1)));
    }
    fputs("}", f);
}

static void write_csv(FILE *f, const struct qw_query *q, const json_t *schema)
{
    static const char *const optional[][2] = {{"newline", "new_line"},
                                              {"dateformat", "dateformat"},
                                              {"timestampformat", "timestampformat"}};

    fputs(", auto_detect=false", f);
    write_text(f, schema, "delim", "delim");
    write_text(f, schema, "quote", "quote");
    write_text(f, schema, "escape", "escape");
    write_text(f, schema, "comment", "comment");
    for (size_t i = 0; i < sizeof(optional) / sizeof(optional[0]); i++)
        if (*text_of(schema, optional[i][0]))
            write_text(f, schema, optional[i][0], optional[i][1]);
    qw_input_buffers(f, q, strcmp(text_of(schema, "compression"), "none") != 0,
                     json_is_true(json_object_get(schema, "long_lines")));
    fprintf(f, ", skip=%lld, header=%s",
            (long long)json_integer_value(json_object_get(schema, "skip")),
            json_is_true(json_object_get(schema, "header")) ? "true" : "false");
}

static void write_table(FILE *f, const struct qw_query *q, const json_t *schema)
{
    const char *format = text_of(schema, "format");

    fprintf(f, "read_%s(", format);
    qw_input_paths(f, q);
    if (strcmp(format, "parquet") != 0) {
        fprintf(f, ", compression='%s'", qw_input_compression(text_of(schema, "compression")));
        write_columns(f, json_object_get(schema, "columns"));
    }
    if (strcmp(format, "csv") == 0)
        write_csv(f, q, schema);
    if (json_is_true(json_object_get(schema, "wide")))
        fputs(", map_inference_threshold=-1", f);
    fputs(")", f);
}

static int make_view(const struct qw_query *q, const json_t *schema, const char *name,
                     struct qw_text *why)
{
    char *sql = NULL;
    size_t len;
    FILE *f = open_memstream(&sql, &len);
    int rc;

    if (!f)
        return qw_fail(why, -ENOMEM, "no memory for the table");
    fputs("CREATE OR REPLACE TEMP VIEW ", f);
    qw_sql_name(f, name);
    fputs(" AS SELECT * FROM ", f);
    write_table(f, q, schema);
    fclose(f);
    rc = qw_engine_run(sql, NULL, why);
    free(sql);
    return rc;
}

static const json_t *used;

static void set_packing(const json_t *schema)
{
    const char *compression = text_of(schema, "compression");

    if (strcmp(compression, "gzip") == 0)
        qw_packed_set(QW_GZIP);
    else
        qw_packed_set(strcmp(compression, "zstd") == 0 ? QW_ZSTD : QW_PLAIN);
}

static void report(const json_t *schema)
{
    char *text = json_dumps(schema, JSON_COMPACT);

    if (text && strlen(text) <= QW_JSON_BYTES)
        qw_stream_send(QW_SCHEMA, NULL, text, strlen(text));
    free(text);
}

const json_t *qw_input_schema(void)
{
    return used;
}

int qw_input_open(const struct qw_query *q, const struct qw_statement *s, struct qw_text *why)
{
    json_t *known = q->known, *schema = known;
    bool made = false;
    int rc = 0;

    used = NULL;
    if (s->ntables == 0) /* nothing of the objects is asked for */
        return 0;
    /* Another worker has said it, and may have been broken. */
    if (schema && !qw_schema_ok(schema))
        known = schema = NULL;
    if (!known)
        rc = qw_sniff(q, &schema, why);
    if (rc == 0)
        used = schema;
    if (rc == 0 && !known && json_array_size(json_object_get(schema, "columns")) >= QW_WIDE_COLUMNS)
        rc = qw_engine_give_back(q->mem_bytes, why);
    if (rc == 0)
        set_packing(schema);
    if (rc == 0 && qw_table_set(q, s, schema))
        made = true;
    for (unsigned i = 0; rc == 0 && !made && i < s->ntables; i++)
        rc = make_view(q, schema, s->tables[i], why);
    if (rc < 0)
        return qw_input_failed(rc, q, why);
    if (!known && !q->rehearsal)
        report(schema);
    return 0;
}
