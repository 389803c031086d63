/* SPDX-License-Identifier: Apache-2.0 */
/* A device URI with its parameters, sizes, times and addresses: what people and RPCs write. */
#include "fuzz/fuzz.h"

#include "base/param.h"
#include "net/addr.h"

static const struct param table[] = {
    {"name", PARAM_STR, NULL, false, "a text"},
    {"size", PARAM_SIZE, "64M", false, "a size"},
    {"nsid", PARAM_U64, "1", false, "a number"},
    {"delay", PARAM_TIME, "5ms", false, "a time"},
    {"sync", PARAM_BOOL, "no", false, "a switch"},
    {"share", PARAM_F64, "0.25", false, "a share"},
    {NULL},
};

static bool within(const struct uri *u, const char *s)
{
    return s == NULL || (s >= u->text && s + strlen(s) < u->text + sizeof(u->text));
}

static void check_uri(const char *text)
{
    struct param_values v;
    struct err why = {""};
    struct uri u;

    if (uri_parse(text, &u, &why) < 0) {
        must(memchr(why.text, '\0', sizeof(why.text)) != NULL);
        must(why.text[0] != '\0');
        return;
    }
    must(within(&u, u.scheme));
    must(within(&u, u.path));
    must(within(&u, u.query));
    must(within(&u, u.fragment));
    if (uri_params(&u, table, &v, &why) < 0) {
        must(why.text[0] != '\0');
        return;
    }
    must(within(&u, param_str(&v, "name")));
    must(param_f64(&v, "share") >= 0);
}

static void check_addr(const char *text)
{
    char again[NET_ADDR_TEXT_MAX];
    struct net_addr a, b;
    struct err why = {""};

    if (net_addr_parse(text, 4420, &a, &why) < 0)
        return;
    net_addr_text(&a, again);
    must(net_addr_parse(again, 0, &b, &why) == 0);
    must(net_addr_port(&a) == net_addr_port(&b));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct input in = {input, input_len};
    char *text = malloc(in.left + 1);
    uint64_t v = 77;

    must(text != NULL);
    if (input_len > 0)
        memcpy(text, input, input_len);
    text[input_len] = '\0';
    check_uri(text);
    check_addr(text);
    must(parse_size(text, &v) == 0 || v == 77);
    v = 77;
    must(parse_time(text, &v) == 0 || v == 77);
    v = 77;
    must(parse_u64(text, &v) == 0 || v == 77);
    free(text);
    return 0;
}
