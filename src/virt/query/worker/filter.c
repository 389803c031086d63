/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three kinds of nodes are told apart: expressions have a "class", queries, tables and modifiers
 * a "type" that is a text, and all else (values, lists, flags) is only walked through.
 */
#include "virt/query/worker/filter.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DEPTH_MAX 600 /* of the tree; the walk is as deep */
#define OBJECT_TABLE "s3object"

struct walk {
    struct filter_result *out;
    json_t *ctes; /* the names of all WITH, folded; values are true */
    unsigned depth;
};

static const char *text_of(const json_t *node, const char *key)
{
    const char *s = json_string_value(json_object_get(node, key));

    return s ? s : "";
}

__attribute__((format(printf, 3, 4))) static int refuse(struct walk *w, const json_t *node,
                                                        const char *fmt, ...)
{
    double at = json_number_value(json_object_get(node, "query_location"));
    va_list ap;

    w->out->at = at >= 0 && at < 1e9 && json_object_get(node, "query_location") ? (long)at : -1;
    va_start(ap, fmt);
    vsnprintf(w->out->text, sizeof(w->out->text), fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static bool one_of(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(s, *list) == 0)
            return true;
    return false;
}

/* Letters of ASCII as the engine folds names. */
static bool fold(const char *name, char *out, size_t size)
{
    size_t i;

    for (i = 0; name[i] && i + 1 < size; i++)
        out[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] | 0x20) : name[i];
    out[i] = '\0';
    return name[i] == '\0';
}

static int check_function(struct walk *w, const json_t *node, bool as_table)
{
    const char *name = text_of(node, "function_name");

    if (strlen(name) != json_string_length(json_object_get(node, "function_name")) ||
        text_of(node, "catalog")[0] || json_is_true(json_object_get(node, "export_state")))
        return refuse(w, node, "the function %.200s is not called plainly", name);
    if (as_table && !filter_table_function_allowed(name))
        return refuse(w, node,
                      "the table function %.200s is not allowed: a query reads its own object, as "
                      "FROM s3object",
                      name);
    if (!as_table && !filter_function_allowed(name))
        return refuse(w, node, "the function %.200s does not exist or is not allowed in a query",
                      name);
    return 0;
}

static int check_expression(struct walk *w, const json_t *node)
{
    static const char *const plain[] = {
        "BETWEEN",  "CASE",        "CAST",   "COLLATE",    "COLUMN_REF", "COMPARISON",
        "CONSTANT", "CONJUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR",   "POSITIONAL_REFERENCE",
        "STAR",     "SUBQUERY",    NULL};
    const char *class = text_of(node, "class");

    if (strcmp(class, "FUNCTION") == 0 || strcmp(class, "WINDOW") == 0)
        return check_function(w, node, false);
    if (strcmp(class, "PARAMETER") == 0)
        return refuse(w, node, "a parameter has no value here: write the value");
    if (!one_of(class, plain))
        return refuse(w, node, "an expression of the kind %.60s is not allowed", class);
    return 0;
}

/* The table of the object, under any one name; or something that WITH has named. */
static int check_table(struct walk *w, const json_t *node)
{
    const char *name = text_of(node, "table_name");
    char folded[FILTER_TABLE_MAX], known[FILTER_TABLE_MAX];

    if (text_of(node, "schema_name")[0] || text_of(node, "catalog_name")[0])
        return refuse(w, node, "%.200s.%.200s: a table's name is one word here, or quoted",
                      text_of(node, "schema_name"), name);
    if (json_object_get(node, "at_clause") && !json_is_null(json_object_get(node, "at_clause")))
        return refuse(w, node, "AT is not allowed: a query reads the object as it is");
    if (!name[0] || strlen(name) != json_string_length(json_object_get(node, "table_name")))
        return refuse(w, node, "a table's name is empty or has a NUL in it");
    if (!fold(name, folded, sizeof(folded)))
        return refuse(w, node, "a table's name has more than %d bytes", FILTER_TABLE_MAX - 1);
    if (strcmp(folded, OBJECT_TABLE) == 0)
        w->out->s3object = true;
    if (json_object_get(w->ctes, folded) || strcmp(folded, OBJECT_TABLE) == 0)
        return 0;
    if (w->out->table[0] && fold(w->out->table, known, sizeof(known)) && strcmp(folded, known) != 0)
        return refuse(w, node,
                      "a query has one table: %.200s and %.200s are two names (both may be "
                      "%.200s AS another name)",
                      w->out->table, name, w->out->table);
    memcpy(w->out->table, name, strlen(name) + 1);
    return 0;
}

/* DESCRIBE and SUMMARIZE of something that is checked like any query. */
static int check_show(struct walk *w, const json_t *node)
{
    static const char *const kinds[] = {"DESCRIBE", "SUMMARY", NULL};

    if (!one_of(text_of(node, "show_type"), kinds) ||
        !json_is_object(json_object_get(node, "query")) || text_of(node, "table_name")[0])
        return refuse(w, node, "SHOW is not allowed in a query over an object (DESCRIBE is)");
    return 0;
}

static int check_node(struct walk *w, const json_t *node, const char *type)
{
    static const char *const plain[] = {/* queries */ "SELECT_NODE",
                                        "SET_OPERATION_NODE",
                                        "RECURSIVE_CTE_NODE",
                                        "CTE_NODE",
                                        /* tables */ "SUBQUERY",
                                        "JOIN",
                                        "EXPRESSION_LIST",
                                        "EMPTY",
                                        /* modifiers */ "ORDER_MODIFIER",
                                        "LIMIT_MODIFIER",
                                        "LIMIT_PERCENT_MODIFIER",
                                        "DISTINCT_MODIFIER",
                                        /* orders */ "ORDER_DEFAULT",
                                        "ASCENDING",
                                        "DESCENDING",
                                        /* types of casts */ "DECIMAL_TYPE_INFO",
                                        "STRING_TYPE_INFO",
                                        "LIST_TYPE_INFO",
                                        "STRUCT_TYPE_INFO",
                                        "ARRAY_TYPE_INFO",
                                        "ENUM_TYPE_INFO",
                                        "UNBOUND_TYPE_INFO",
                                        "GENERIC_TYPE_INFO",
                                        "ANY_TYPE_INFO",
                                        "INTEGER_LITERAL_TYPE_INFO",
                                        "GEO_TYPE_INFO",
                                        NULL};

    if (strcmp(type, "BASE_TABLE") == 0)
        return check_table(w, node);
    if (strcmp(type, "TABLE_FUNCTION") == 0) /* its function is looked at by walk_table_function */
        return check_function(w, json_object_get(node, "function"), true);
    if (strcmp(type, "SHOW_REF") == 0)
        return check_show(w, node);
    if (!one_of(type, plain))
        return refuse(w, node, "%.60s is not allowed in a query over an object", type);
    return 0;
}

static int walk_any(struct walk *w, const json_t *node);

/* The function of FROM name(...) itself has been checked as such; its arguments have not. */
static int walk_table_function(struct walk *w, const json_t *node)
{
    const json_t *child;
    const char *key;
    int rc = 0;

    json_object_foreach((json_t *)node, key, child)
    {
        if (rc == 0 && strcmp(key, "function") == 0 && json_is_object(child))
            rc = walk_any(w, json_object_get(child, "children"));
        else if (rc == 0)
            rc = walk_any(w, child);
    }
    return rc;
}

static int walk_children(struct walk *w, const json_t *node)
{
    const json_t *child;
    const char *key;
    size_t i;
    int rc = 0;

    if (json_is_object(node)) {
        json_object_foreach((json_t *)node, key, child)
        {
            if (rc == 0)
                rc = walk_any(w, child);
        }
    } else if (json_is_array(node)) {
        json_array_foreach(node, i, child)
        {
            if (rc == 0)
                rc = walk_any(w, child);
        }
    }
    return rc;
}

static int walk_any(struct walk *w, const json_t *node)
{
    const json_t *type = json_object_get(node, "type");
    int rc = 0;

    if (++w->depth > DEPTH_MAX)
        return refuse(w, node, "the statement is nested too deep");
    if (json_object_get(node, "class"))
        rc = check_expression(w, node);
    else if (json_is_string(type))
        rc = check_node(w, node, json_string_value(type));
    if (rc == 0) {
        bool function = !json_object_get(node, "class") && json_is_string(type) &&
                        strcmp(json_string_value(type), "TABLE_FUNCTION") == 0;

        rc = function ? walk_table_function(w, node) : walk_children(w, node);
    }
    w->depth--;
    return rc;
}

/* Only words: outside of its WITH a name like 'x.csv' would mean a file to the engine. */
static int add_cte(struct walk *w, const json_t *node, const char *name)
{
    char folded[FILTER_TABLE_MAX];

    for (const char *p = name; *p; p++)
        if (!(*p & 0x80) && !isalnum((unsigned char)*p) && *p != '_' && *p != ' ')
            return refuse(w, node, "the name %.200s after WITH has to be a word", name);
    if (!name[0] || !fold(name, folded, sizeof(folded)))
        return refuse(w, node, "a name after WITH is empty or too long");
    /* Where its WITH does not reach (also in itself, without RECURSIVE), a name means something
     * else to the engine: a view of its own, if one has that name. */
    if (filter_engines_name(folded))
        return refuse(w, node, "the name %.200s after WITH is the engine's own: take another",
                      name);
    return json_object_set_new(w->ctes, folded, json_true()) < 0 ? -ENOMEM : 0;
}

/* The names of WITH may be used before the walk has come to where they are made. */
static int find_ctes(struct walk *w, const json_t *node)
{
    const json_t *map = json_object_get(json_object_get(node, "cte_map"), "map"), *child;
    const char *key;
    size_t i;
    int rc = 0;

    if (++w->depth > DEPTH_MAX)
        return refuse(w, node, "the statement is nested too deep");
    json_array_foreach(map, i, child) rc = rc ? rc : add_cte(w, node, text_of(child, "key"));
    if (json_is_object(node)) {
        json_object_foreach((json_t *)node, key, child) rc = rc ? rc : find_ctes(w, child);
    } else {
        json_array_foreach(node, i, child) rc = rc ? rc : find_ctes(w, child);
    }
    w->depth--;
    return rc;
}

static int check_tree(struct walk *w, const json_t *root)
{
    const json_t *all = json_object_get(root, "statements");
    const json_t *node;
    int rc;

    if (!json_is_false(json_object_get(root, "error"))) {
        const char *text = text_of(root, "error_message");

        return refuse(w, root, "%.1000s",
                      strncmp(text, "Only SELECT", 11) == 0 || !text[0]
                          ? "only SELECT can be run over an object"
                          : text);
    }
    if (json_array_size(all) != 1)
        return refuse(w, root, "one statement at a time");
    node = json_object_get(json_array_get(all, 0), "node");
    if (!json_is_object(node))
        return refuse(w, root, "the statement is not understood");
    rc = find_ctes(w, node);
    return rc < 0 ? rc : walk_any(w, node);
}

int filter_statement(const char *ast, size_t len, struct filter_result *out)
{
    struct walk w = {.out = out, .ctes = json_object()};
    json_error_t error;
    json_t *root;
    int rc;

    *out = (struct filter_result){.at = -1};
    /* Places that are not known are 2^64-1, which is no integer of jansson's. */
    root = json_loadb(ast, len, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
    if (!root)
        rc = refuse(&w, NULL, "the statement is not understood: %.200s", error.text);
    else
        rc = w.ctes ? check_tree(&w, root) : -ENOMEM;
    if (rc == -ENOMEM)
        snprintf(out->text, sizeof(out->text), "no memory to check the statement");
    json_decref(root);
    json_decref(w.ctes);
    return rc;
}
