/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"
#include "base/crc.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/hist.h"
#include "base/list.h"
#include "base/map.h"
#include "base/param.h"
#include "base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct bytes b(const char *s)
{
    return bytes_of_str(s);
}

static void bytes_are_ordered_as_unsigned(void **state)
{
    assert_true(bytes_cmp(b("a"), b("b")) < 0);
    assert_true(bytes_cmp(b("a"), b("a")) == 0);
    assert_true(bytes_cmp(b("a"), b("aa")) < 0);
    assert_true(bytes_cmp(b("\x80"), b("\x7f")) > 0);
    assert_true(bytes_cmp(b(""), b("a")) < 0);
    assert_true(bytes_cmp(bytes_make("a\0", 2), bytes_make("a", 1)) > 0);
    assert_true(bytes_has_prefix(b("abc"), b("ab")));
    assert_false(bytes_has_prefix(b("ab"), b("abc")));
    assert_true(bytes_has_prefix(b("ab"), b("")));
    assert_false(bytes_eq(b("a"), bytes_make("a\0", 2)));
    assert_true(bytes_are_zero("\0\0\0", 3));
    assert_false(bytes_are_zero("\0\0\1", 3));
    assert_false(bytes_are_zero("\1\0\0", 3));
    assert_true(bytes_eq_consttime("abc", "abc", 3));
    assert_false(bytes_eq_consttime("abc", "abd", 3));
}

static void hex_goes_both_ways(void **state)
{
    uint8_t raw[4];
    char text[9];

    bytes_to_hex(bytes_make("\x00\xff\x4b\x42", 4), text);
    assert_string_equal(text, "00FF4B42");
    assert_int_equal(bytes_from_hex("00ff4B42", 8, raw, sizeof(raw)), 4);
    assert_memory_equal(raw, "\x00\xff\x4b\x42", 4);
    assert_int_equal(bytes_from_hex("0", 1, raw, sizeof(raw)), -EINVAL);
    assert_int_equal(bytes_from_hex("0g", 2, raw, sizeof(raw)), -EINVAL);
    assert_int_equal(bytes_from_hex("0011223344", 10, raw, sizeof(raw)), -E2BIG);
}

static void iovecs_are_copied_and_cut(void **state)
{
    char x[4] = "abcd", y[3] = "efg", out[8] = {0};
    struct iovec iov[3] = {{x, 4}, {NULL, 0}, {y, 3}};
    struct iovec cut[3];

    assert_int_equal(iov_len(iov, 3), 7);
    assert_int_equal(iov_copy_out(iov, 3, 2, out, 8), 5);
    assert_memory_equal(out, "cdefg", 5);
    assert_int_equal(iov_copy_in(iov, 3, 3, "XYZ", 3), 3);
    assert_memory_equal(x, "abcX", 4);
    assert_memory_equal(y, "YZg", 3);
    assert_int_equal(iov_fill(iov, 3, 6, '!', 10), 1);
    assert_memory_equal(y, "YZ!", 3);
    assert_int_equal(iov_copy_out(iov, 3, 7, out, 1), 0);

    assert_int_equal(iov_slice(iov, 3, 1, 4, cut, 3), 2);
    assert_ptr_equal(cut[0].iov_base, x + 1);
    assert_int_equal(cut[0].iov_len, 3);
    assert_ptr_equal(cut[1].iov_base, y);
    assert_int_equal(cut[1].iov_len, 1);
    assert_int_equal(iov_slice(iov, 3, 1, 4, cut, 1), -E2BIG);
    assert_int_equal(iov_slice(iov, 3, 5, 4, cut, 3), -EINVAL);
}

static void integers_have_their_order(void **state)
{
    uint8_t raw[8];

    le32_put(raw, 0x11223344);
    assert_memory_equal(raw, "\x44\x33\x22\x11", 4);
    be32_put(raw, 0x11223344);
    assert_memory_equal(raw, "\x11\x22\x33\x44", 4);
    le16_put(raw, 0x1122);
    assert_memory_equal(raw, "\x22\x11", 2);
    be64_put(raw, 0x1122334455667788);
    assert_memory_equal(raw, "\x11\x22\x33\x44\x55\x66\x77\x88", 8);
    assert_true(le64_at(raw) == 0x8877665544332211);
    assert_true(be16_get(be16_make(0xfffe)) == 0xfffe);
    assert_int_equal(sizeof(le64), 8);
    assert_int_equal(_Alignof(le64), 1);
}

static void crc32c_has_its_check_value(void **state)
{
    char text[] = "123456789";
    struct iovec iov[2] = {{text, 4}, {text + 4, 5}};
    uint8_t zeroes[32] = {0};

    assert_int_equal(crc32c(0, text, 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, text, 5), text + 5, 4), 0xe3069283);
    assert_int_equal(crc32c_iov(0, iov, 2), 0xe3069283);
    assert_int_equal(crc32c(0, zeroes, 32), 0x8a9136aa); /* RFC 3720, B.4 */
    assert_int_equal(crc32c(0, NULL, 0), 0);
}

static void hist_keeps_its_error_bound(void **state)
{
    static struct hist h, sum;
    uint64_t p;

    assert_int_equal(hist_percentile(&h, 0.5), 0);
    for (uint64_t v = 1; v <= 100000; v++)
        hist_add(&h, v);
    for (unsigned share = 1; share < 100; share++) {
        uint64_t exact = share * 1000;

        p = hist_percentile(&h, share / 100.0);
        assert_true(p >= exact);
        assert_true(p - exact <= exact / 8 + 1);
    }
    assert_int_equal(hist_percentile(&h, 1.0), 100000);
    hist_merge(&sum, &h);
    hist_merge(&sum, &h);
    assert_int_equal(sum.count, 200000);
    assert_int_equal(sum.max, 100000);
    hist_add(&sum, UINT64_MAX);
    assert_true(hist_percentile(&sum, 1.0) == UINT64_MAX);
    /* Every value is in a bucket, and buckets only grow with values. */
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t v = 1ull << bit;

        assert_true(hist_bucket_of(v) < HIST_BUCKETS);
        assert_true(hist_bucket_of(v - 1) <= hist_bucket_of(v));
    }
    assert_int_equal(hist_bucket_of(UINT64_MAX), HIST_BUCKETS - 1);
}

struct item {
    struct map_node node;
    struct list link;
    uint64_t key;
};

static struct item *map_find(const struct map *m, uint64_t key)
{
    for (struct map_node *n = map_first(m, hash_u64(key)); n != NULL; n = map_next(n)) {
        struct item *it = container_of(n, struct item, node);

        if (it->key == key)
            return it;
    }
    return NULL;
}

static void map_finds_what_was_added(void **state)
{
    enum { N = 5000 };
    static struct item items[N];
    struct map m;

    assert_int_equal(map_init(&m, 0), 0);
    for (uint64_t i = 0; i < N; i++) {
        items[i].key = i;
        map_add(&m, &items[i].node, hash_u64(i));
    }
    assert_int_equal(m.count, N);
    for (uint64_t i = 0; i < N; i++)
        assert_ptr_equal(map_find(&m, i), &items[i]);
    assert_null(map_find(&m, N));
    for (uint64_t i = 0; i < N; i += 2)
        map_del(&m, &items[i].node);
    for (uint64_t i = 0; i < N; i++)
        assert_ptr_equal(map_find(&m, i), i % 2 ? &items[i] : NULL);
    map_fini(&m);
}

static void map_keeps_equal_hashes_apart(void **state)
{
    struct item items[3] = {0};
    struct map m;
    unsigned n = 0;

    assert_int_equal(map_init(&m, 0), 0);
    map_add(&m, &items[0].node, 7);
    map_add(&m, &items[1].node, 7);
    map_add(&m, &items[2].node, 7 + 1024); /* the same bucket, another hash */
    for (struct map_node *e = map_first(&m, 7); e != NULL; e = map_next(e))
        n++;
    assert_int_equal(n, 2);
    map_fini(&m);
}

/* Published test vectors of SipHash-1-3: the bytes 0..n-1 under the key 0..15. */
static void hash_is_siphash13(void **state)
{
    uint8_t in[16];
    uint64_t before;

    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)i;
    before = hash_bytes(bytes_make(in, 15));
    hash_seed(0x0706050403020100, 0x0f0e0d0c0b0a0908);
    assert_true(hash_bytes(bytes_make(in, 0)) == 0xabac0158050fc4dc);
    assert_true(hash_bytes(bytes_make(in, 15)) == 0xd320d86d2a519956);
    hash_seed(1, 2);
    assert_true(hash_bytes(bytes_make(in, 15)) != before);
}

static void list_takes_entries_off(void **state)
{
    struct item items[4] = {0};
    struct item *pos;
    struct list head;
    unsigned n = 0;

    list_init(&head);
    assert_true(list_empty(&head));
    list_del(&items[0].link); /* on no list: nothing happens */
    for (unsigned i = 0; i < 4; i++) {
        items[i].key = i;
        list_add_tail(&head, &items[i].link);
    }
    list_for_each (pos, &head, struct item, link) {
        assert_int_equal(pos->key, n++);
        if (pos->key == 1)
            list_del(&pos->link);
    }
    assert_int_equal(n, 4);
    assert_ptr_equal(list_first(&head, struct item, link), &items[0]);
    assert_ptr_equal(list_pop_entry(&head, struct item, link), &items[0]);
    assert_ptr_equal(list_pop_entry(&head, struct item, link), &items[2]);
    list_add_head(&head, &items[1].link);
    assert_ptr_equal(list_pop_entry(&head, struct item, link), &items[1]);
    assert_ptr_equal(list_pop_entry(&head, struct item, link), &items[3]);
    assert_null(list_pop_entry(&head, struct item, link));
    assert_null(list_first(&head, struct item, link));
}

static void errors_have_texts(void **state)
{
    struct err e;

    assert_int_equal(err_set(&e, -ENOENT, "%s %d", "x", 1), -ENOENT);
    assert_string_equal(e.text, "x 1");
    assert_int_equal(err_set(NULL, -EIO, "x"), -EIO);
    assert_string_equal(err_str(-ENOSPC), "the device is full");
    assert_string_equal(err_str(0), "success");
    assert_non_null(err_str(-99999));
}

/* --- parameters and URIs ---------------------------------------------------------------------- */

static uint64_t size_of(const char *text)
{
    uint64_t v = 0;

    return parse_size(text, &v) == 0 ? v : UINT64_MAX;
}

static uint64_t time_of(const char *text)
{
    uint64_t v = 0;

    return parse_time(text, &v) == 0 ? v : UINT64_MAX;
}

static void sizes_and_times_are_read(void **state)
{
    static const char *const bad_sizes[] = {"",
                                            "K",
                                            "-1",
                                            "1.5",
                                            "1.K",
                                            ".5K",
                                            "1KB",
                                            "0x10",
                                            " 1",
                                            "1 ",
                                            "1.0000000000K",
                                            "16384P",
                                            "18446744073709551616",
                                            "1e3",
                                            "1,5K"};
    static const char *const bad_times[] = {"", "5", "5x", "1.5ns", "-1s", "99999999999d", "s"};
    uint64_t v = 77;

    assert_int_equal(size_of("4096"), 4096);
    assert_int_equal(size_of("64K"), 65536);
    assert_int_equal(size_of("1.5G"), GIB + GIB / 2);
    assert_int_equal(size_of("0.5k"), 512);
    assert_int_equal(size_of("2TiB"), 2 * KIB * GIB);
    assert_int_equal(size_of("18446744073709551614"), UINT64_MAX - 1);
    for (size_t i = 0; i < ARRAY_LEN(bad_sizes); i++)
        assert_int_equal(parse_size(bad_sizes[i], &v), -EINVAL);
    assert_int_equal(time_of("0"), 0);
    assert_int_equal(time_of("10us"), 10000);
    assert_int_equal(time_of("1.5ms"), 1500000);
    assert_int_equal(time_of("2s"), 2 * NS_PER_S);
    assert_int_equal(time_of("1m"), 60 * NS_PER_S);
    for (size_t i = 0; i < ARRAY_LEN(bad_times); i++)
        assert_int_equal(parse_time(bad_times[i], &v), -EINVAL);
    assert_int_equal(v, 77); /* untouched on failure */
    assert_int_equal(parse_u64("0xFFffFFffFFffFFff", &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(parse_u64("0x10000000000000000", &v), -EINVAL);
    assert_int_equal(parse_u64("0x", &v), -EINVAL);
    assert_int_equal(parse_u64("12x", &v), -EINVAL);
}

static void uris_come_apart(void **state)
{
    struct uri u;
    struct err e;

    assert_int_equal(uri_parse("nvme+tcp://[::1]:4420/nqn.x:demo?nsid=1&hdgst", &u, &e), 0);
    assert_string_equal(u.scheme, "nvme+tcp");
    assert_string_equal(u.path, "[::1]:4420/nqn.x:demo");
    assert_string_equal(u.query, "nsid=1&hdgst");
    assert_null(u.fragment);
    assert_int_equal(uri_parse("lvol:/srv/a%20b%3f?block_size=512#store/name%23", &u, &e), 0);
    assert_string_equal(u.path, "/srv/a b?");
    assert_string_equal(u.query, "block_size=512");
    assert_string_equal(u.fragment, "store/name#");
    assert_int_equal(uri_parse("MEM:", &u, &e), 0);
    assert_string_equal(u.scheme, "mem");
    assert_string_equal(u.path, "");
    assert_null(u.query);
    assert_int_equal(uri_parse("file:///srv/disk.img?", &u, &e), 0);
    assert_string_equal(u.path, "/srv/disk.img");
    assert_string_equal(u.query, "");
    assert_int_equal(uri_parse("mem:#a?b", &u, &e), 0);
    assert_string_equal(u.fragment, "a?b");
    assert_null(u.query);
}

static void hostile_uris_are_refused(void **state)
{
    static const char *const bad[] = {
        "",       ":",       "/srv/disk", "1mem:",    "me m:",   "mem",    "mem:%",
        "mem:%4", "mem:%zz", "mem:%00",   "mem:a\nb", "mem:#%f", "\xff:x", "mem:%4%41"};
    char longest[URI_MAX + 16];
    struct uri u;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        e.text[0] = '\0';
        assert_int_equal(uri_parse(bad[i], &u, &e), -EINVAL);
        assert_true(e.text[0] != '\0');
    }
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "mem:", 4);
    longest[URI_MAX - 1] = '\0';
    assert_int_equal(uri_parse(longest, &u, &e), 0);
    assert_int_equal(strlen(u.path), URI_MAX - 5);
    longest[URI_MAX - 1] = 'a';
    longest[URI_MAX] = '\0';
    assert_int_equal(uri_parse(longest, &u, &e), -ENAMETOOLONG);
    assert_int_equal(uri_parse("nonsense", &u, NULL), -EINVAL);
}

static const struct param table[] = {
    {"name", PARAM_STR, NULL, false, "a text"},
    {"size", PARAM_SIZE, "64M", false, "a size"},
    {"count", PARAM_U64, NULL, true, "how many"},
    {"delay", PARAM_TIME, "5ms", false, "a time"},
    {"sync", PARAM_BOOL, "no", false, "a switch"},
    {"share", PARAM_F64, "0.25", false, "a share"},
    {NULL},
};

static int params_of(const char *query, struct uri *u, struct param_values *v, struct err *e)
{
    char text[URI_MAX];

    snprintf(text, sizeof(text), "mem:?%s", query);
    assert_int_equal(uri_parse(text, u, e), 0);
    return uri_params(u, table, v, e);
}

static void parameters_have_types_and_defaults(void **state)
{
    struct param_values v;
    struct uri u;
    struct err e;

    assert_int_equal(params_of("count=0x10", &u, &v, &e), 0);
    assert_null(param_str(&v, "name"));
    assert_int_equal(param_u64(&v, "size"), 64 * MIB);
    assert_int_equal(param_u64(&v, "count"), 16);
    assert_int_equal(param_u64(&v, "delay"), 5 * NS_PER_MS);
    assert_false(param_flag(&v, "sync"));
    assert_true(param_f64(&v, "share") == 0.25);
    assert_true(param_given(&v, "count"));
    assert_false(param_given(&v, "size"));

    assert_int_equal(
        params_of("&count=1&&sync&name=a%26b%3Dc=d&share=1&delay=0&size=1.5K&", &u, &v, &e), 0);
    assert_string_equal(param_str(&v, "name"), "a&b=c=d");
    assert_true(param_flag(&v, "sync"));
    assert_true(param_f64(&v, "share") == 1.0);
    assert_int_equal(param_u64(&v, "delay"), 0);
    assert_int_equal(param_u64(&v, "size"), 1536);
}

static void bad_parameters_are_named(void **state)
{
    static const struct {
        const char *query, *says;
    } bad[] = {
        {"count=1&colour=red", "no parameter 'colour'; there are: name, size, count"},
        {"", "'count' has to be given"},
        {"count=1&count=2", "'count' is given twice"},
        {"count", "'count' needs a value"},
        {"count=", "count=: has to be a number"},
        {"count=-1", "has to be a number"},
        {"count=1&sync=perhaps", "sync=perhaps: has to be yes or no"},
        {"count=1&size=big", "has to be a size"},
        {"count=1&share=nan", "has to be a number"},
        {"count=1&name=%0", "two hexadecimal digits"},
        {"count=1&=x", "no parameter ''"},
    };
    struct param_values v;
    struct uri u;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(params_of(bad[i].query, &u, &v, &e), -EINVAL);
        if (strstr(e.text, bad[i].says) == NULL)
            fail_msg("?%s says: %s", bad[i].query, e.text);
    }
    assert_int_equal(uri_parse("mem:?x", &u, &e), 0);
    assert_int_equal(uri_params(&u, NULL, &v, &e), -EINVAL);
    assert_int_equal(uri_parse("mem:", &u, &e), 0);
    assert_int_equal(uri_params(&u, NULL, &v, &e), 0);
    assert_null(v.fragment);
    assert_int_equal(uri_parse("lvol:/d?#store/%61", &u, &e), 0);
    assert_int_equal(uri_params(&u, NULL, &v, &e), 0);
    assert_string_equal(v.fragment, "store/a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_ordered_as_unsigned),
        cmocka_unit_test(hex_goes_both_ways),
        cmocka_unit_test(iovecs_are_copied_and_cut),
        cmocka_unit_test(integers_have_their_order),
        cmocka_unit_test(crc32c_has_its_check_value),
        cmocka_unit_test(hist_keeps_its_error_bound),
        cmocka_unit_test(map_finds_what_was_added),
        cmocka_unit_test(map_keeps_equal_hashes_apart),
        cmocka_unit_test(hash_is_siphash13),
        cmocka_unit_test(list_takes_entries_off),
        cmocka_unit_test(errors_have_texts),
        cmocka_unit_test(sizes_and_times_are_read),
        cmocka_unit_test(uris_come_apart),
        cmocka_unit_test(hostile_uris_are_refused),
        cmocka_unit_test(parameters_have_types_and_defaults),
        cmocka_unit_test(bad_parameters_are_named),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
