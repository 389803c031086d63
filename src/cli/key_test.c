/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct cli_key key;
static char text[CLI_KEY_TEXT_MAX];

static void text_and_hex_are_read(void **state)
{
    struct err why;

    assert_int_equal(cli_key_parse("photos/a b", false, &key, &why), 0);
    assert_int_equal(key.len, 10);
    assert_memory_equal(key.data, "photos/a b", 10);
    assert_int_equal(cli_key_parse("hex:00fF", false, &key, &why), 0);
    assert_int_equal(key.len, 2);
    assert_memory_equal(key.data, "\x00\xff", 2);
    assert_int_equal(cli_key_parse("", true, &key, &why), 0);
    assert_int_equal(key.len, 0);
}

static void mistakes_are_refused(void **state)
{
    static char longer[4 + 2 * (CLI_KEY_MAX + 1) + 1];
    struct err why;

    assert_int_equal(cli_key_parse("", false, &key, &why), -EINVAL);
    assert_int_equal(cli_key_parse("hex:", false, &key, &why), -EINVAL);
    assert_int_equal(cli_key_parse("hex:0", false, &key, &why), -EINVAL);
    assert_int_equal(cli_key_parse("hex:0g", false, &key, &why), -EINVAL);
    assert_int_equal(cli_key_parse("@/no/such/file", false, &key, &why), -ENOENT);
    memset(longer, 'a', CLI_KEY_MAX + 1);
    assert_int_equal(cli_key_parse(longer, false, &key, &why), -ENAMETOOLONG);
    longer[CLI_KEY_MAX] = '\0';
    assert_int_equal(cli_key_parse(longer, false, &key, &why), 0);
    memset(longer, 'a', sizeof(longer) - 1);
    memcpy(longer, "hex:", 4);
    assert_int_equal(cli_key_parse(longer, false, &key, &why), -ENAMETOOLONG);
}

static void files_hold_keys(void **state)
{
    char path[] = "/tmp/kvasir-key-test.XXXXXX", arg[40];
    int fd = mkstemp(path);
    struct err why;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a\0\n", 3), 3);
    snprintf(arg, sizeof(arg), "@%s", path);
    assert_int_equal(cli_key_parse(arg, false, &key, &why), 0);
    assert_int_equal(key.len, 3);
    assert_memory_equal(key.data, "a\0\n", 3);
    assert_int_equal(ftruncate(fd, CLI_KEY_MAX + 1), 0);
    assert_int_equal(cli_key_parse(arg, false, &key, &why), -ENAMETOOLONG);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(cli_key_parse(arg, false, &key, &why), -EINVAL);
    close(fd);
    unlink(path);
}

static const char *shown(const char *bytes, size_t len)
{
    return cli_key_text(bytes_make(bytes, len), text);
}

static void what_is_printed_is_text_where_that_is_safe(void **state)
{
    assert_string_equal(shown("photos/a b", 10), "photos/a b");
    assert_string_equal(shown("gr\xc3\xbcn", 5), "gr\xc3\xbcn");
    assert_string_equal(shown("\xf0\x9f\x98\x80", 4), "\xf0\x9f\x98\x80");
    assert_string_equal(shown("a\nb", 3), "hex:610A62");
    assert_string_equal(shown("\x1b[2J", 4), "hex:1B5B324A");
    assert_string_equal(shown("\xc2\x9b", 2), "hex:C29B");       /* a control character */
    assert_string_equal(shown("\xc0\xaf", 2), "hex:C0AF");       /* too long a form */
    assert_string_equal(shown("\xed\xa0\x80", 3), "hex:EDA080"); /* half a surrogate pair */
    assert_string_equal(shown("\xe2\x82", 2), "hex:E282");       /* cut */
    assert_string_equal(shown("@file", 5), "hex:4066696C65");    /* would be read as a file */
    assert_string_equal(shown("hex:", 4), "hex:6865783A");
    assert_string_equal(shown("a\0b", 3), "hex:610062");
}

/* Whatever the bytes: what is printed reads back as them. */
static void every_key_reads_back(void **state)
{
    unsigned seed = 1;

    for (int i = 0; i < 20000; i++) {
        uint8_t raw[24];
        size_t len = 1 + (size_t)rand_r(&seed) % sizeof(raw);
        struct err why;

        for (size_t j = 0; j < len; j++)
            raw[j] =
                (uint8_t)(i % 2 != 0 ? rand_r(&seed) : " -az@:hex\xc3\xbc"[rand_r(&seed) % 11]);
        cli_key_text(bytes_make(raw, len), text);
        assert_int_equal(cli_key_parse(text, false, &key, &why), 0);
        assert_int_equal(key.len, len);
        assert_memory_equal(key.data, raw, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_and_hex_are_read),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(files_hold_keys),
        cmocka_unit_test(what_is_printed_is_text_where_that_is_safe),
        cmocka_unit_test(every_key_reads_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
