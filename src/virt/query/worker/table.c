/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The objects as a table without a view: to make one costs as much as a third of a small query,
 * since the engine binds it when it is made and again when it is read. Here a name that it does not
 * know is asked of us, and is the call of a macro that was made before the first fork.
 *
 * It asks only when it knows no table, view or file of that name, so this serves plain words that
 * are no view of its own; for other names, and other formats than CSV, input.c makes the view.
 */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/filter.h"
#include "virt/query/worker/query.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MACRO "kvasir_csv"

static const struct qw_query *query; /* NULL: there is no such table */
static const struct qw_statement *statement;
static const json_t *schema;

static void give(duckdb_replacement info, duckdb_value v)
{
    duck.replacement_scan_add_parameter(info, v);
    duck.destroy_value(&v);
}

static void give_text(duckdb_replacement info, const char *name)
{
    give(info, duck.create_varchar(json_string_value(json_object_get(schema, name))));
}

static void give_paths(duckdb_replacement info)
{
    duckdb_value *paths = calloc(query->nobjects, sizeof(duckdb_value));
    duckdb_type text = duck.create_logical_type(DUCKDB_TYPE_VARCHAR);
    unsigned n = 0;

    for (unsigned i = 0; paths && i < query->nobjects; i++) {
        char path[64];

        if (qw_input_path(query, i, n, path, sizeof(path)))
            paths[n++] = duck.create_varchar(path);
    }
    give(info, duck.create_list_value(text, paths, n));
    while (n > 0)
        duck.destroy_value(&paths[--n]);
    free(paths);
    duck.destroy_logical_type(&text);
}

/* {'NAME': 'TYPE', ...} */
static void give_columns(duckdb_replacement info)
{
    const json_t *columns = json_object_get(schema, "columns"), *column;
    size_t i, n = json_array_size(columns);
    duckdb_type text = duck.create_logical_type(DUCKDB_TYPE_VARCHAR), type;
    duckdb_type *types = calloc(n, sizeof(*types));
    duckdb_value *values = calloc(n, sizeof(duckdb_value));
    const char **names = calloc(n, sizeof(*names));

    if (types && values && names) {
        json_array_foreach(columns, i, column)
        {
            types[i] = text;
            names[i] = json_string_value(json_array_get(column, 0));
            values[i] = duck.create_varchar(json_string_value(json_array_get(column, 1)));
        }
        type = duck.create_struct_type(types, names, n);
        give(info, duck.create_struct_value(type, values));
        duck.destroy_logical_type(&type);
        for (i = 0; i < n; i++)
            duck.destroy_value(&values[i]);
    }
    free(names);
    free(values);
    free(types);
    duck.destroy_logical_type(&text);
}

static bool is_ours(const char *name)
{
    for (unsigned i = 0; query && i < statement->ntables; i++)
        if (strcasecmp(statement->tables[i], name) == 0)
            return true;
    return false;
}

/* The engine asks for a table. */
static void find(duckdb_replacement info, const char *name, void *arg)
{
    struct qw_csv_sizes sizes;

    (void)arg;
    if (!is_ours(name))
        return;
    sizes = qw_input_csv_sizes(query, schema);
    duck.replacement_scan_set_function_name(info, MACRO);
    give_paths(info);
    give(info, duck.create_varchar(qw_input_compression(
                   json_string_value(json_object_get(schema, "compression")))));
    give_columns(info);
    give_text(info, "delim");
    give_text(info, "quote");
    give_text(info, "escape");
    give_text(info, "comment");
    give_text(info, "newline");
    give(info, duck.create_uint64(sizes.line));
    give(info, duck.create_uint64(sizes.buffer));
    give(info, duck.create_int64(json_integer_value(json_object_get(schema, "skip"))));
    give(info, duck.create_bool(json_is_true(json_object_get(schema, "header"))));
}

static bool is_plain(const char *name)
{
    if (filter_engines_name(name) || isdigit((unsigned char)*name))
        return false;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && *name != '_')
            return false;
    return true;
}

static bool has_text(const json_t *s, const char *key)
{
    return *json_string_value(json_object_get(s, key));
}

bool qw_table_set(const struct qw_query *q, const struct qw_statement *s, const json_t *of)
{
    query = NULL;
    if (strcmp(json_string_value(json_object_get(of, "format")), "csv") != 0 ||
        !has_text(of, "newline") || has_text(of, "dateformat") || has_text(of, "timestampformat"))
        return false;
    for (unsigned i = 0; i < s->ntables; i++)
        if (!is_plain(s->tables[i]))
            return false;
    query = q;
    statement = s;
    schema = of;
    return true;
}

void qw_table_unset(void)
{
    query = NULL;
}

int qw_table_begin(duckdb_database db, struct qw_text *why)
{
    duck.add_replacement_scan(db, find, NULL, NULL);
    return qw_engine_run("CREATE TEMP MACRO " MACRO "(p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, "
                         "p11) AS TABLE SELECT * FROM read_csv(p0, compression=p1, columns=p2, "
                         "auto_detect=false, delim=p3, quote=p4, escape=p5, comment=p6, "
                         "new_line=p7, max_line_size=p8, buffer_size=p9, skip=p10, header=p11)",
                         NULL, why);
}
