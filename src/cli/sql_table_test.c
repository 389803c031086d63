/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sql_table.h"

#include "base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct text {
    char buf[1 << 16];
    size_t len, total;
};

static void put(void *arg, const char *p, size_t len)
{
    struct text *out = arg;

    out->total += len;
    len = MIN(len, sizeof(out->buf) - 1 - out->len);
    memcpy(out->buf + out->len, p, len);
    out->len += len;
    out->buf[out->len] = '\0';
}

/* The same answer in pieces of every size gives the same table. */
static void check(struct sql_table_opts o, const char *csv, const char *want, uint64_t want_rows)
{
    for (size_t piece = 1; piece <= strlen(csv); piece++) {
        static struct text out;
        struct sql_table *tab;
        uint64_t rows = 0;

        out.len = 0;
        o.put = put;
        o.arg = &out;
        tab = sql_table_new(&o);
        for (size_t i = 0; i < strlen(csv); i += piece)
            assert_int_equal(sql_table_feed(tab, csv + i, MIN(piece, strlen(csv) - i)), 0);
        assert_int_equal(sql_table_end(tab, &rows), 0);
        sql_table_free(tab);
        assert_string_equal(out.buf, want);
        assert_int_equal(rows, want_rows);
    }
}

static void test_types(void **state)
{
    check(
        (struct sql_table_opts){.null_text = "NULL", .types = "VARCHAR,INTEGER\n", .types_len = 16},
        "name,n\nAda,1\n\"B, \"\"C\"\"\",\n\"\",-20\n",
        " name    |       n\n"
        " VARCHAR | INTEGER\n"
        "---------+---------\n"
        " Ada     |       1\n"
        " B, \"C\"  |    NULL\n"
        "         |     -20\n",
        3);
}

static void test_no_types(void **state)
{
    check((struct sql_table_opts){.null_text = "-"}, "a,b\n1,x\n,y\n23,\n",
          "  a | b\n"
          "----+---\n"
          "  1 | x\n"
          "  - | y\n"
          " 23 | -\n",
          3);
    check((struct sql_table_opts){.null_text = "NULL"}, "only\n\n1\n",
          " only\n"
          "------\n"
          " NULL\n"
          "    1\n",
          2);
    check((struct sql_table_opts){.null_text = "NULL"}, "a,b\n", " a | b\n---+---\n", 0);
}

static void test_width(void **state)
{
    check((struct sql_table_opts){.null_text = "NULL", .width_max = 4},
          "s,t\nabcd,x\nabcde,y\n漢字漢,é\n",
          " s    | t\n"
          "------+---\n"
          " abcd | x\n"
          " abc… | y\n"
          " 漢…  | é\n",
          3);
}

/* What a terminal would obey is shown, not sent. */
static void test_control(void **state)
{
    check((struct sql_table_opts){.null_text = "NULL"},
          "s\n\"\033[2J\na\tb\"\n\377\n\"\302\233x\"\n",
          " s\n"
          "---------------\n"
          " \\x1B[2J\\na\\tb\n"
          " \\xFF\n"
          " \\x9Bx\n",
          3);
}

static void test_lines(void **state)
{
    check((struct sql_table_opts){.null_text = "NULL", .style = SQL_LINE}, "a,long\n1,x\n2,\n",
          "   a = 1\n"
          "long = x\n"
          "\n"
          "   a = 2\n"
          "long = NULL\n",
          2);
}

/* After the rows that are held the others come as they are fed. */
static void test_many_rows(void **state)
{
    static struct text out;
    struct sql_table_opts o = {.null_text = "NULL", .put = put, .arg = &out};
    struct sql_table *tab = sql_table_new(&o);
    uint64_t rows = 0;
    size_t before;
    char line[32];

    out.len = out.total = 0;
    sql_table_feed(tab, "n\n", 2);
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(line, sizeof(line), "%u\n", i);
        assert_int_equal(sql_table_feed(tab, line, strlen(line)), 0);
    }
    before = out.total;
    assert_true(before > 5000 * 5);
    assert_int_equal(sql_table_end(tab, &rows), 0);
    assert_int_equal(out.total, before);
    assert_int_equal(rows, 5000);
    sql_table_free(tab);
}

static int join(void *arg, const struct sql_field *f, unsigned n)
{
    struct text *out = arg;

    for (unsigned i = 0; i < n; i++) {
        put(out, f[i].null ? "null" : f[i].text, f[i].null ? 4 : f[i].len);
        put(out, ";", 1);
    }
    put(out, "\n", 1);
    return 0;
}

static void test_csv_each(void **state)
{
    static const char csv[] = "a,\"b,c\"\n\"\",\n";
    static struct text got;

    assert_int_equal(sql_csv_each(csv, strlen(csv), join, &got), 0);
    assert_string_equal(got.buf, "a;b,c;\n;null;\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),    cmocka_unit_test(test_no_types),
        cmocka_unit_test(test_width),    cmocka_unit_test(test_control),
        cmocka_unit_test(test_lines),    cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_csv_each),
    };

    return cmocka_run_group_tests_name("sql_table", tests, NULL, NULL);
}
