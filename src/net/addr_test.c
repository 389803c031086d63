/* SPDX-License-Identifier: Apache-2.0 */
#include "net/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void splits_host_and_port(void **state)
{
    char host[64];
    uint16_t port = 0;

    assert_int_equal(net_addr_split("storage.example:4420", 0, host, 64, &port, NULL), 0);
    assert_string_equal(host, "storage.example");
    assert_int_equal(port, 4420);
    assert_int_equal(net_addr_split("[fe80::1%eth0]:8009", 0, host, 64, &port, NULL), 0);
    assert_string_equal(host, "fe80::1%eth0");
    assert_int_equal(port, 8009);
    assert_int_equal(net_addr_split("[::1]", 4420, host, 64, &port, NULL), 0);
    assert_string_equal(host, "::1");
    assert_int_equal(port, 4420);
    assert_int_equal(net_addr_split("h:0", 4420, host, 64, &port, NULL), 0);
    assert_int_equal(port, 0);
}

static void refuses_what_is_no_address(void **state)
{
    static const char *const bad[] = {"",      ":1",   "h",    "h:",     "h:x",  "h:65536", "h:-1",
                                      "::1:1", "[::1", "[]:1", "[::1]x", "h: 1", "[::1]1",  "h:1 "};
    char host[64];
    uint16_t port;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err why = {""};

        if (net_addr_split(bad[i], 0, host, 64, &port, &why) != -EINVAL)
            fail_msg("'%s' was accepted", bad[i]);
        assert_true(strlen(why.text) > 0);
    }
    assert_int_equal(net_addr_split("abcdefgh:1", 0, host, 8, &port, NULL), -EINVAL);
    assert_int_equal(net_addr_split("abcdefg:1", 0, host, 8, &port, NULL), 0);
}

static void text_and_address_match(void **state)
{
    static const char *const good[] = {"127.0.0.1:4420", "[::1]:4420", "[2001:db8::7]:1",
                                       "0.0.0.0:65535"};
    char text[NET_ADDR_TEXT_MAX];
    struct net_addr a;

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(net_addr_parse(good[i], 0, &a, NULL), 0);
        net_addr_text(&a, text);
        assert_string_equal(text, good[i]);
    }
    assert_int_equal(net_addr_parse("[::1]", 8009, &a, NULL), 0);
    assert_int_equal(net_addr_port(&a), 8009);
    net_addr_host_text(&a, text, sizeof(text));
    assert_string_equal(text, "::1");
    assert_int_equal(net_addr_parse("localhost:1", 0, &a, NULL), -EINVAL);
    assert_int_equal(net_addr_parse("1.2.3:1", 0, &a, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_host_and_port),
        cmocka_unit_test(refuses_what_is_no_address),
        cmocka_unit_test(text_and_address_match),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
