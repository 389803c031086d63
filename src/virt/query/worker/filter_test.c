/* SPDX-License-Identifier: Apache-2.0 */
/* The trees are the engine's, recorded, without the members that the filter does not look at. */
#include "virt/query/worker/filter.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TREE(node) "{\"error\":false,\"statements\":[{\"node\":" node ",\"named_param_map\":[]}]}"
#define SELECT(list, from)                                                                         \
    "{\"type\":\"SELECT_NODE\",\"modifiers\":[],\"cte_map\":{\"map\":[]},\"select_list\":[" list   \
    "],\"from_table\":" from ",\"where_clause\":null}"
#define WITH(name, query, list, from)                                                              \
    "{\"type\":\"SELECT_NODE\",\"modifiers\":[],\"cte_map\":{\"map\":[{\"key\":\"" name            \
    "\",\"value\":{\"aliases\":[],\"query\":{\"node\":" query "}}}]},\"select_list\":[" list       \
    "],\"from_table\":" from "}"
#define COLUMN "{\"class\":\"COLUMN_REF\",\"type\":\"COLUMN_REF\",\"column_names\":[\"a\"]}"
#define CALL(name, args)                                                                           \
    "{\"class\":\"FUNCTION\",\"type\":\"FUNCTION\",\"query_location\":7,\"function_name\":\"" name \
    "\",\"schema\":\"\",\"children\":[" args                                                       \
    "],\"order_bys\":{\"type\":\"ORDER_MODIFIER\",\"orders\":[]},\"catalog\":\"\"}"
#define TABLE_IN(catalog, schema, name)                                                            \
    "{\"type\":\"BASE_TABLE\",\"alias\":\"\",\"query_location\":18446744073709551615,"             \
    "\"schema_name\":\"" schema "\",\"table_name\":\"" name "\",\"catalog_name\":\"" catalog       \
    "\",\"at_clause\":null}"
#define TABLE(name) TABLE_IN("", "", name)
#define JOIN(a, b) "{\"type\":\"JOIN\",\"left\":" a ",\"right\":" b ",\"condition\":null}"
#define ROWS_OF(call) "{\"type\":\"TABLE_FUNCTION\",\"alias\":\"\",\"function\":" call "}"
#define SUBQUERY(q)                                                                                \
    "{\"class\":\"SUBQUERY\",\"type\":\"SUBQUERY\",\"subquery\":{\"node\":" q "},\"child\":null}"

static struct filter_result res;

static int check(const char *ast)
{
    return filter_statement(ast, strlen(ast), &res);
}

static void assert_refused(const char *ast, const char *text)
{
    assert_int_equal(check(ast), -EINVAL);
    if (!strstr(res.text, text))
        fail_msg("\"%s\" is not in: %s", text, res.text);
}

static void test_table_has_one_name(void **state)
{
    assert_int_equal(check(TREE(SELECT(COLUMN, TABLE("s3object")))), 0);
    assert_string_equal(res.table, "");
    assert_int_equal(check(TREE(SELECT(COLUMN, JOIN(TABLE("X"), TABLE("x"))))), 0);
    assert_string_equal(res.table, "x");
    assert_int_equal(check(TREE(SELECT(COLUMN, JOIN(TABLE("x"), TABLE("S3Object"))))), 0);
    assert_string_equal(res.table, "x");
    assert_int_equal(check(TREE(SELECT(COLUMN, TABLE("/etc/passwd")))), 0);
    assert_string_equal(res.table, "/etc/passwd"); /* a name like any other: of the object */
    assert_refused(TREE(SELECT(COLUMN, JOIN(TABLE("x"), TABLE("y")))), "two names");
    assert_refused(TREE(SELECT(COLUMN, TABLE_IN("", "information_schema", "tables"))), "one word");
    assert_refused(TREE(SELECT(COLUMN, TABLE_IN("system", "", "duckdb_settings"))), "one word");
    assert_refused(TREE(SELECT(COLUMN, TABLE(""))), "empty");
    assert_refused(TREE(SELECT(COLUMN, TABLE("x\\u0000y"))), "NUL");
    assert_refused(TREE(SELECT(SUBQUERY(SELECT(COLUMN, TABLE("y"))), TABLE("x"))), "two names");
}

static void test_names_of_with(void **state)
{
    assert_int_equal(check(TREE(WITH("Tmp", SELECT(COLUMN, TABLE("x")), COLUMN,
                                     JOIN(TABLE("tmp"), TABLE("x"))))),
                     0);
    assert_string_equal(res.table, "x");
    /* Where the WITH does not reach, the engine would take it for a file. */
    assert_refused(
        TREE(SELECT(SUBQUERY(WITH("/a.csv", SELECT(COLUMN, TABLE("x")), COLUMN, TABLE("/a.csv"))),
                    TABLE("/a.csv"))),
        "word");
}

/* A view of the engine has to stay out of reach where its name is one of WITH elsewhere. */
static void test_names_of_the_engine(void **state)
{
    static const char *const bad[] = {"duckdb_databases", "DuckDB_Settings",
                                      "pg_database",      "PG_SETTINGS",
                                      "sqlite_master",    "pragma_database_list"};
    char ast[4096];

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(ast, sizeof(ast), TREE(WITH("%s", SELECT(COLUMN, TABLE("x")), COLUMN, TABLE("x"))),
                 bad[i]);
        assert_refused(ast, "the engine's own");
    }
}

static void test_functions_are_listed(void **state)
{
    assert_int_equal(check(TREE(SELECT(CALL("count_star", ""), TABLE("x")))), 0);
    assert_int_equal(check(TREE(SELECT(CALL("SUM", CALL("+", COLUMN)), TABLE("x")))), 0);
    assert_refused(TREE(SELECT(CALL("current_setting", ""), TABLE("x"))), "current_setting");
    assert_int_equal(res.at, 7);
    assert_refused(TREE(SELECT(CALL("lower", CALL("getenv", "")), TABLE("x"))), "getenv");
    assert_refused(TREE(SELECT(CALL("lower\\u0000", COLUMN), TABLE("x"))), "not called plainly");
    assert_refused(TREE(SELECT(CALL("json_serialize_plan", COLUMN), TABLE("x"))), "not allowed");
    assert_refused(TREE(SELECT(CALL("nextval", COLUMN), TABLE("x"))), "not allowed");
    assert_refused(TREE(SELECT(CALL("write_log", COLUMN), TABLE("x"))), "not allowed");
    assert_refused(TREE(SELECT("{\"class\":\"WINDOW\",\"type\":\"WINDOW_AGGREGATE\","
                               "\"function_name\":\"evil\",\"catalog\":\"\",\"children\":[]}",
                               TABLE("x"))),
                   "evil");
}

static void test_table_functions_are_listed(void **state)
{
    static const char *const bad[] = {"enable_logging",
                                      "read_csv",
                                      "read_text",
                                      "read_blob",
                                      "glob",
                                      "query",
                                      "sniff_csv",
                                      "query_table",
                                      "parquet_metadata",
                                      "duckdb_settings",
                                      "pragma_version",
                                      "duckdb_secrets",
                                      "json_execute_serialized_sql",
                                      "arrow_scan",
                                      "seq_scan",
                                      "checkpoint",
                                      "read_parquet",
                                      "read_json",
                                      "which_secret"};
    char ast[2048];

    assert_int_equal(check(TREE(SELECT(COLUMN, ROWS_OF(CALL("range", COLUMN))))), 0);
    assert_int_equal(check(TREE(SELECT(COLUMN, ROWS_OF(CALL("UNNEST", CALL("lower", COLUMN)))))),
                     0);
    assert_refused(TREE(SELECT(COLUMN, ROWS_OF(CALL("range", CALL("getenv", ""))))), "getenv");
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(ast, sizeof(ast), TREE(SELECT(COLUMN, ROWS_OF(CALL("%s", "")))), bad[i]);
        assert_refused(ast, bad[i]);
        snprintf(ast, sizeof(ast), TREE(SELECT(CALL("%s", ""), TABLE("x"))), bad[i]);
        assert_refused(ast, bad[i]);
    }
    assert_refused(TREE(SELECT(COLUMN, "{\"type\":\"TABLE_FUNCTION\",\"function\":null}")), "");
}

static void test_what_is_not_known_is_refused(void **state)
{
    assert_refused(TREE(SELECT(COLUMN, "{\"type\":\"PIVOT\"}")), "PIVOT");
    assert_refused(TREE(SELECT(COLUMN, "{\"type\":\"COLUMN_DATA\"}")), "COLUMN_DATA");
    assert_refused(TREE("{\"type\":\"STATEMENT_NODE\"}"), "STATEMENT_NODE");
    assert_refused(TREE(SELECT("{\"class\":\"DEFAULT\"}", TABLE("x"))), "DEFAULT");
    assert_refused(TREE(SELECT("{\"class\":\"PARAMETER\"}", TABLE("x"))), "parameter");
    assert_refused(TREE(SELECT("{\"class\":7}", TABLE("x"))), "not allowed");
    assert_refused(TREE(SELECT(COLUMN, "{\"type\":\"SHOW_REF\",\"table_name\":\"\\\"tables\\\"\","
                                       "\"query\":null,\"show_type\":\"SHOW_UNQUALIFIED\"}")),
                   "SHOW");
    assert_int_equal(
        check(TREE(SELECT(COLUMN,
                          "{\"type\":\"SHOW_REF\",\"table_name\":\"\","
                          "\"query\":" SELECT(COLUMN, TABLE("x")) ","
                                                                  "\"show_type\":\"DESCRIBE\"}"))),
        0);
}

static void test_no_select_no_tree(void **state)
{
    char *deep = malloc(6000);
    size_t n;

    assert_refused("{\"error\":true,\"error_type\":\"not implemented\",\"error_message\":"
                   "\"Only SELECT statements can be serialized to json!\"}",
                   "only SELECT");
    assert_refused("{\"error\":true,\"error_message\":\"syntax error at or near\"}", "syntax");
    assert_refused("{\"error\":false,\"statements\":[]}", "one statement");
    assert_refused("{\"error\":false,\"statements\":[{\"node\":{}},{\"node\":{}}]}",
                   "one statement");
    assert_refused("{\"error\":false,\"statements\":[{\"node\":null}]}", "not understood");
    assert_refused("", "not understood");
    assert_refused("[1", "not understood");
    assert_refused("{}", "only SELECT");
    assert_non_null(deep);
    n = (size_t)snprintf(deep, 6000, "{\"error\":false,\"statements\":[{\"node\":{\"x\":");
    memset(deep + n, '[', 1000);
    memset(deep + n + 1000, ']', 1000);
    snprintf(deep + n + 2000, 6000 - n - 2000, "}}]}");
    assert_refused(deep, "deep");
    free(deep);
}

static void test_lists_are_sorted(void **state)
{
    static const char *const some[] = {
        "!__postfix", "%",  "*",          "abs",  "count",          "list_value", "sum", "year",
        "~~~",        "||", "row_number", "trim", "regexp_replace", "to_json",    "->>"};

    for (unsigned i = 0; i < sizeof(some) / sizeof(some[0]); i++)
        assert_true(filter_function_allowed(some[i]));
    assert_true(filter_table_function_allowed("generate_series"));
    assert_false(filter_table_function_allowed("repeat"));
    assert_false(filter_function_allowed(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_has_one_name),
        cmocka_unit_test(test_names_of_with),
        cmocka_unit_test(test_names_of_the_engine),
        cmocka_unit_test(test_functions_are_listed),
        cmocka_unit_test(test_table_functions_are_listed),
        cmocka_unit_test(test_what_is_not_known_is_refused),
        cmocka_unit_test(test_no_select_no_tree),
        cmocka_unit_test(test_lists_are_sorted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
