/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir ls: the keys of a device, page by page. */
#include "cli/dev.h"
#include "cli/key.h"

#define PAGE_BYTES (64 * KIB)
#define STATS 16 /* of --long, in flight */

static struct ls {
    struct cli_key prefix, start;
    char text[CLI_KEY_TEXT_MAX];
    struct kv_req stat[STATS];
    uint8_t page[PAGE_BYTES];
    uint64_t keys;
    uint64_t limit;
} ls;

static void print_key(struct cli *c, struct bytes key, const struct kv_req *stat)
{
    if (c->json) {
        json_t *obj = json_object();

        cli_key_json(obj, key);
        if (stat != NULL) {
            json_object_set_new(obj, "bytes", json_integer((json_int_t)stat->value_len));
            json_object_set_new(obj, "version", json_integer((json_int_t)stat->version));
        }
        cli_json(c, obj);
        return;
    }
    if (stat != NULL)
        cli_print(c, "%12lu  ", stat->value_len);
    cli_print(c, "%s%c", cli_key_text(key, ls.text), opt_flag(&c->opts, "null") ? '\0' : '\n');
}

/* Prints up to STATS keys with their lengths; a key that has gone meanwhile is left out. */
static int print_long(struct rt_task *t, struct cli *c, const struct dev *d,
                      struct kv_list_iter *it, unsigned max, unsigned *out_n)
{
    struct bytes key;
    unsigned n = 0;
    int rc = 0;

    for (; n < max && kv_list_next(it, &key); n++) {
        ls.stat[n] = (struct kv_req){.op = KV_STAT, .key = key};
        rt_req_init_task(&ls.stat[n].req, t);
        kv_submit(d->kv_chan, &ls.stat[n]);
    }
    for (unsigned i = 0; i < n; i++) {
        int one = rt_wait(t, &ls.stat[i].req);

        if (one == 0)
            print_key(c, ls.stat[i].key, &ls.stat[i]);
        else if (one != -ENOENT && rc == 0)
            rc = dev_kv_fail(c, d, "look at", ls.stat[i].key, one, NULL);
    }
    *out_n = n;
    return rc;
}

static int print_page(struct rt_task *t, struct cli *c, const struct dev *d, size_t moved)
{
    struct kv_list_iter it = kv_list_begin(ls.page, moved), last = it;
    bool wants_stat = opt_flag(&c->opts, "long");
    struct bytes key;
    unsigned n = 1;
    int rc = 0;

    while (rc == 0 && n > 0 && ls.keys < ls.limit) {
        if (wants_stat) {
            rc = print_long(t, c, d, &it, (unsigned)MIN(STATS, ls.limit - ls.keys), &n);
        } else {
            n = kv_list_next(&it, &key);
            if (n > 0)
                print_key(c, key, NULL);
        }
        ls.keys += n;
        if (rc == 0)
            rc = cli_flush(t, c, false);
    }
    while (kv_list_next(&last, &key)) {
        memcpy(ls.start.data, key.ptr, key.len);
        ls.start.len = key.len;
    }
    return rc;
}

static int list(struct rt_task *t, struct cli *c, const struct dev *d)
{
    bool after = opt_given(&c->opts, "after");
    bool more = true;
    size_t moved;
    int rc = 0;

    if (!after)
        ls.start = ls.prefix;
    while (more && ls.keys < ls.limit) {
        moved = 0;
        rc = kv_list(t, d->kv_chan, cli_key_bytes(&ls.start), cli_key_bytes(&ls.prefix),
                     after ? KV_F_AFTER : 0, ls.page, PAGE_BYTES, &moved, &more);
        if (rc < 0)
            return dev_list_fail(c, d, rc);
        rc = print_page(t, c, d, moved);
        if (rc < 0)
            return rc;
        after = true;
        more = more && moved > 0;
    }
    return cli_flush(t, c, true);
}

static int ls_run(struct rt_task *t, struct cli *c)
{
    const char *prefix = cli_arg(c, 1) != NULL ? cli_arg(c, 1) : "";
    const char *after = opt_str(&c->opts, "after");
    struct err why = {""};
    struct dev d;
    int rc;

    ls.limit = opt_given(&c->opts, "limit") ? opt_u64(&c->opts, "limit") : UINT64_MAX;
    rc = cli_key_parse(prefix, true, &ls.prefix, &why);
    if (rc == 0 && after != NULL)
        rc = cli_key_parse(after, false, &ls.start, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, false, &d);
    if (rc < 0)
        return rc;
    rc = list(t, c, &d);
    dev_close(t, &d);
    return rc;
}

static const struct opt ls_opts[] = {
    {"long", 'l', OPT_FLAG, false, NULL, NULL, "with the length of each value"},
    {"after", 0, OPT_STR, false, "KEY", NULL, "begin with the first key after this one"},
    {"limit", 'n', OPT_U64, false, "N", NULL, "stop after so many keys"},
    {"null", '0', OPT_FLAG, false, NULL, NULL, "end each key with a zero byte, for xargs -0"},
    {NULL},
};

const struct cli_verb verb_ls = {
    .name = "ls",
    .args = "URI [PREFIX]",
    .summary = "list the keys of a device",
    .about = "Prints one key a line: those that begin with PREFIX, or all. Devices with an ordered "
             "list give them in the order of their bytes, others in an order of their own that "
             "stays the same. Keys that are not printable text appear as hex:DIGITS; what is "
             "printed can be given to the other verbs as it is.",
    .examples = "kvasir ls dir:/srv/objects photos/\n"
                "kvasir ls --json --long dir:/srv/objects",
    .opts = ls_opts,
    .args_min = 1,
    .args_max = 2,
    .run = ls_run,
};
