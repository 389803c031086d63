/* SPDX-License-Identifier: Apache-2.0 */
#include "base/opt.h"

#include "base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static const struct opt own[] = {
    {"offset", 'o', OPT_SIZE, false, "SIZE", "0", "where"},
    {"if-absent", 0, OPT_FLAG, false, NULL, NULL, "only then"},
    {"kv", 0, OPT_STR, true, "NAME=URI", NULL, "a device"},
    {"block", 0, OPT_STR, true, "NAME=URI", NULL, "a device"},
    {"poll", 0, OPT_CHOICE, false, "adaptive|always|never", "adaptive", "how"},
    {"time", 't', OPT_TIME, false, "TIME", "5s", "how long"},
    {"ratio", 0, OPT_F64, false, "X", NULL, "share"},
    {NULL},
};
static const struct opt common[] = {
    {"help", 'h', OPT_FLAG, false, NULL, NULL, "this text"},
    {NULL},
};

static int parse(struct opts *o, struct err *why, ...)
{
    static char *argv[20];
    va_list args;
    int argc = 0;

    argv[argc++] = (char *)"verb";
    va_start(args, why);
    while ((argv[argc] = va_arg(args, char *)) != NULL)
        argc++;
    va_end(args);
    return opts_parse(o, own, common, argc, argv, why);
}

static void test_values(void **state)
{
    static struct opts o;
    struct err why = {""};

    assert_int_equal(parse(&o, &why, "a", "--offset", "4K", "--if-absent", "b", "-t10ms",
                           "--poll=never", "--ratio", "0.25", NULL),
                     0);
    assert_int_equal(opt_u64(&o, "offset"), 4096);
    assert_true(opt_flag(&o, "if-absent"));
    assert_false(opt_flag(&o, "help"));
    assert_int_equal(opt_u64(&o, "time"), 10 * NS_PER_MS);
    assert_int_equal(opt_choice(&o, "poll"), 2);
    assert_true(opt_f64(&o, "ratio") == 0.25);
    assert_int_equal(o.nargs, 2);
    assert_string_equal(o.args[0], "a");
    assert_string_equal(o.args[1], "b");
}

static void test_defaults(void **state)
{
    static struct opts o;
    struct err why = {""};

    assert_int_equal(parse(&o, &why, NULL), 0);
    assert_int_equal(opt_u64(&o, "time"), 5 * NS_PER_S);
    assert_int_equal(opt_choice(&o, "poll"), 0);
    assert_false(opt_given(&o, "time"));
    assert_null(opt_str(&o, "ratio"));
}

static void test_order_of_repeats(void **state)
{
    static struct opts o;
    struct err why = {""};

    assert_int_equal(parse(&o, &why, "--kv", "a=1", "--block", "b=2", "--kv", "c=3", NULL), 0);
    assert_int_equal(o.nrepeats, 3);
    assert_string_equal(o.repeat[0].text, "a=1");
    assert_string_equal(o.repeat[1].def->name, "block");
    assert_string_equal(o.repeat[2].text, "c=3");
}

static void test_dashes(void **state)
{
    static struct opts o;
    struct err why = {""};

    assert_int_equal(parse(&o, &why, "-", "--", "--offset", "-x", NULL), 0);
    assert_int_equal(o.nargs, 3);
    assert_string_equal(o.args[0], "-");
    assert_string_equal(o.args[1], "--offset");
    assert_string_equal(o.args[2], "-x");
}

static void test_mistakes(void **state)
{
    static struct opts o;
    struct err why;

    assert_int_equal(parse(&o, &why, "--ofset", "4K", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "unknown option '--ofset'"));
    assert_non_null(strstr(why.text, "--offset"));
    assert_int_equal(parse(&o, &why, "-z", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "'-z'"));
    assert_int_equal(parse(&o, &why, "--offset", "much", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "'much'"));
    assert_int_equal(parse(&o, &why, "--offset", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "wants a value"));
    assert_int_equal(parse(&o, &why, "--poll", "alw", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "adaptive|always|never"));
    assert_int_equal(parse(&o, &why, "--if-absent=yes", NULL), -EINVAL);
    assert_int_equal(parse(&o, &why, "--ratio", "0.5x", NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),           cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_order_of_repeats), cmocka_unit_test(test_dashes),
        cmocka_unit_test(test_mistakes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
