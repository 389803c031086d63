/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sql_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void check_end(const char *sql, size_t want)
{
    assert_int_equal(sql_scan_end(sql, strlen(sql)), want);
}

static void test_end(void **state)
{
    check_end("select 1", 0);
    check_end("select 1;", 9);
    check_end("select 1; select 2;", 9);
    check_end("select ';'", 0);
    check_end("select ';';", 11);
    check_end("select 'it''s;';", 16);
    check_end("select \"a;\"\"b\";", 15);
    check_end("select 1 -- no; end\n;", 21);
    check_end("select 1 /* no; /* within; */ */;", 33);
    check_end("select 1 /* no; ", 0);
    check_end("select $$a;b$$;", 15);
    check_end("select $x$a;$$;$x$;", 19);
    check_end("select e'a\\';b';", 16);
    check_end(";", 1);
    check_end("", 0);
}

static void test_blank(void **state)
{
    assert_true(sql_scan_blank(" \n-- words\n/* more */ ; ", 23));
    assert_true(sql_scan_blank("", 0));
    assert_false(sql_scan_blank("/* open", 7));
    assert_false(sql_scan_blank("x", 1));
}

static void check_name(const char *sql, const char *want, const char *where)
{
    struct sql_name name;
    struct err why = {""};

    assert_int_equal(sql_scan_name(sql, strlen(sql), &name, &why), 0);
    if (want == NULL) {
        assert_int_equal(name.len, 0);
    } else {
        assert_int_equal(name.text_len, strlen(want));
        assert_memory_equal(name.text, want, name.text_len);
        assert_int_equal(name.len, strlen(where));
        assert_memory_equal(sql + name.at, where, name.len);
        assert_int_equal(name.bare, where[0] != '\'' && where[0] != '"' && strpbrk(where, "./-"));
    }
    sql_name_free(&name);
}

static void test_name(void **state)
{
    check_name("select 1", NULL, NULL);
    check_name("select * from 'cars.csv'", "cars.csv", "'cars.csv'");
    check_name("select * from \"a\"\"b\" t where x = 'y'", "a\"b", "\"a\"\"b\"");
    check_name("select * from 'it''s' limit 1", "it's", "'it''s'");
    check_name("SELECT * FROM cars", "cars", "cars");
    check_name("select * from dir/cars-1.csv, (select 1)", "dir/cars-1.csv", "dir/cars-1.csv");
    check_name("from 'k' select a", "k", "'k'");
    check_name("select * from 'logs/*';", "logs/*", "'logs/*'");
    check_name("describe 'cars.csv'", "cars.csv", "'cars.csv'");
    check_name("summarize select a from k", "k", "k");
    check_name("select * from/**/'k'--from 'x'", "k", "'k'");
    check_name("select * from k where a in (select b from k)", "k", "k");
    check_name("select * from (select * from 'k') s", "k", "'k'");
    check_name("select * from ('k' a join 'k' b using (x))", "k", "'k'");
    check_name("select * from k a, k b, lateral (select 1) c, unnest(a.l)", "k", "k");
}

static void test_not_names(void **state)
{
    check_name("select extract(year from d) from k", "k", "k");
    check_name("select substring(s from 2), trim(both ' ' from t) from 'k'", "k", "'k'");
    check_name("select a is distinct from b, c is not distinct from d from k", "k", "k");
    check_name("with x as (select * from 'k'), y(a, b) as (select * from x) select * from X, y",
               "k", "'k'");
    check_name("with recursive r as (select 1 union all select a from r, k) select * from r", "k",
               "k");
    check_name("select * from range(10)", NULL, NULL);
    check_name("select 'from x' from k", "k", "k");
}

static void test_two_names(void **state)
{
    static const char *const sqls[] = {
        "select * from a, b",
        "select * from 'a' join 'b' using (x)",
        "select * from a where x in (select y from b)",
        "select * from a union select * from b",
        "with q as (select * from a) select * from q, b",
    };

    for (size_t i = 0; i < ARRAY_LEN(sqls); i++) {
        struct err why = {""};
        struct sql_name name;

        assert_int_equal(sql_scan_name(sqls[i], strlen(sqls[i]), &name, &why), -EINVAL);
        assert_non_null(strstr(why.text, "asks one object"));
        sql_name_free(&name);
    }
}

static void check_tail(const char *sql, const char *word, char quote, bool table)
{
    struct sql_tail tail = sql_scan_tail(sql, strlen(sql));

    assert_string_equal(sql + tail.at, word);
    assert_int_equal(tail.quote, quote);
    assert_int_equal(tail.table, table);
}

static void test_tail(void **state)
{
    check_tail("", "", 0, false);
    check_tail("sel", "sel", 0, false);
    check_tail("select a, b", "b", 0, false);
    check_tail("select a ", "", 0, false);
    check_tail("select * from ", "", 0, true);
    check_tail("select * from", "from", 0, false);
    check_tail("select * from ca", "ca", 0, true);
    check_tail("select * from 'dir/c", "dir/c", '\'', true);
    check_tail("select * from \"dir/c", "dir/c", '"', true);
    check_tail("select * from dir/c", "dir/c", 0, true);
    check_tail("select * from 'k' where \"Na", "Na", '"', false);
    check_tail("select * from 'k' where N", "N", 0, false);
    check_tail("select * from 'k'", "", 0, false);
}

/* Nothing that is typed leads outside of it: every beginning and every end of a long statement. */
static void test_pieces(void **state)
{
    static const char sql[] =
        "with x as (select $a$;$a$ from 'k''s/*' -- c\n) select e'\\'', \"q\"\"\""
        " from x join 'k''s/*' /* /* */ */ on (a is distinct from b);";

    for (size_t i = 0; i < sizeof(sql); i++) {
        for (size_t k = i; k < sizeof(sql); k++) {
            size_t len = k - i;
            char *copy = test_malloc(len + 1);
            struct sql_name name;

            memcpy(copy, sql + i, len);
            assert_true(sql_scan_end(copy, len) <= len);
            assert_true(sql_scan_tail(copy, len).at <= len);
            if (sql_scan_name(copy, len, &name, NULL) == 0)
                assert_true(name.at + name.len <= len);
            sql_name_free(&name);
            test_free(copy);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end),       cmocka_unit_test(test_blank),
        cmocka_unit_test(test_name),      cmocka_unit_test(test_not_names),
        cmocka_unit_test(test_two_names), cmocka_unit_test(test_tail),
        cmocka_unit_test(test_pieces),
    };

    return cmocka_run_group_tests_name("sql_scan", tests, NULL, NULL);
}
