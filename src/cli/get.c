/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir get: a value, a part of one, or a tree of them, becomes files. */
#include "cli/dev.h"
#include "cli/file.h"
#include "cli/key.h"
#include "cli/tree.h"

#include <string.h>

static struct cli_key get_key;

static void report(struct cli *c, const struct xfer_retrieve *re, const struct cli_progress *p,
                   bool to_file)
{
    double s = (double)cli_progress_ns(p) / (double)NS_PER_S;
    char rate[CLI_RATE_TEXT];
    json_t *obj;

    if (!to_file)
        return; /* standard output is the value's */
    if (!c->json) {
        cli_note(c, "retrieved %s", cli_rate_text(p, rate));
        return;
    }
    obj = json_object();
    cli_key_json(obj, re->key);
    json_object_set_new(obj, "bytes", json_integer((json_int_t)re->moved));
    json_object_set_new(obj, "value_bytes", json_integer((json_int_t)re->value_len));
    json_object_set_new(obj, "version", json_integer((json_int_t)re->version));
    json_object_set_new(obj, "seconds", json_real(s));
    json_object_set_new(obj, "bytes_per_s", json_real((double)re->moved / s));
    cli_json(c, obj);
}

static int get_value(struct rt_task *t, struct cli *c, const struct dev *d, struct cli_file *out)
{
    CLEANUP(xfer_free_p) struct xfer *x = xfer_new(XFER_PIECE_BYTES);
    struct xfer_retrieve re = {
        .key = cli_key_bytes(&get_key), .off = opt_u64(&c->opts, "offset"), .len = UINT64_MAX};
    struct cli_file_sink sink;
    struct cli_progress progress;
    struct err why = {""};
    uint64_t total = 0;
    int rc;

    if (x == NULL)
        return cli_fail(c, -ENOMEM, "no memory for buffers");
    if (opt_given(&c->opts, "length"))
        re.len = opt_u64(&c->opts, "length");
    rc = kv_stat(t, d->kv_chan, re.key, &total, &re.version);
    if (rc < 0)
        return dev_kv_fail(c, d, "retrieve", re.key, rc, NULL);
    cli_progress_start(&progress, c, cli_arg(c, 1), MIN(re.len, total - MIN(total, re.off)));
    sink = cli_file_sink(out, &progress);
    rc = xfer_retrieve(t, x, d->kv_chan, &re, &sink.sink, &why);
    cli_progress_stop(&progress);
    if (rc < 0)
        return dev_kv_fail(c, d, "retrieve", re.key, rc, why.text);
    rc = cli_file_commit(t, out, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    report(c, &re, &progress, !out->std);
    return 0;
}

static int get_one(struct rt_task *t, struct cli *c)
{
    CLEANUP(cli_file_close_p) struct cli_file out = CLI_FILE_CLOSED;
    const char *path = opt_str(&c->opts, "output");
    struct err why = {""};
    struct dev d;
    int rc;

    rc = cli_key_parse(cli_arg(c, 1), false, &get_key, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, false, &d);
    if (rc < 0)
        return rc;
    rc = cli_file_create(t, path != NULL ? path : "-", false, &out, &why);
    if (rc < 0)
        cli_fail(c, rc, "%s", why.text);
    else
        rc = get_value(t, c, &d, &out);
    dev_close(t, &d);
    return rc;
}

static int get_tree(struct rt_task *t, struct cli *c)
{
    struct tree_get job = {.c = c,
                           .dir = opt_str(&c->opts, "output"),
                           .jobs = (unsigned)opt_u64(&c->opts, "jobs"),
                           .keep_going = opt_flag(&c->opts, "keep-going")};
    struct err why = {""};
    int rc;

    rc = cli_key_parse(cli_arg(c, 1) != NULL ? cli_arg(c, 1) : "", true, &get_key, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, false, &job.dev);
    if (rc < 0)
        return rc;
    job.prefix = cli_key_bytes(&get_key);
    rc = tree_get(t, &job);
    dev_close(t, &job.dev);
    return rc;
}

static int get_run(struct rt_task *t, struct cli *c)
{
    return opt_flag(&c->opts, "recursive") ? get_tree(t, c) : get_one(t, c);
}

static int get_prepare(struct cli *c, struct rt_config *cfg)
{
    const struct opts *o = &c->opts;

    if (!opt_flag(o, "recursive")) {
        if (o->nargs < 2)
            return cli_usage(c, "which KEY? (-r takes all)");
        return 0;
    }
    if (opt_given(o, "offset") || opt_given(o, "length"))
        return cli_usage(c, "-r takes whole values: no --offset or --length");
    if (opt_str(o, "output") == NULL || strcmp(opt_str(o, "output"), "-") == 0)
        return cli_usage(c, "-r wants the directory to write to: -o DIR");
    return 0;
}

static const struct opt get_opts[] = {
    {"output", 'o', OPT_FILE, false, "FILE", NULL,
     "where to; standard output without it; with -r a directory"},
    {"offset", 0, OPT_SIZE, false, "SIZE", "0", "first byte of the value"},
    {"length", 0, OPT_SIZE, false, "SIZE", NULL, "bytes; to the end of the value without it"},
    {"recursive", 'r', OPT_FLAG, false, NULL, NULL,
     "retrieve every key below PREFIX into a tree of files"},
    {"jobs", 'j', OPT_U64, false, "N", "8", "with -r: values under way at a time"},
    {"keep-going", 'k', OPT_FLAG, false, NULL, NULL,
     "with -r: go on after a failure; exit with the first error's code"},
    {NULL},
};

const struct cli_verb verb_get = {
    .name = "get",
    .args = "URI KEY [-o FILE] | -r URI [PREFIX] -o DIR",
    .summary = "retrieve a value into a file or standard output",
    .about = "Writes the value of KEY, or the part that --offset and --length name, to FILE or to "
             "standard output. A file appears under its name when it is complete; until then "
             "one that was there stays.\n\n"
             "With -r each key below PREFIX becomes a file below the directory of -o. Keys that "
             "would lead outside of it (a part that is \"..\", a slash at the begin) or that are "
             "no path at all are refused, and symbolic links in it are not followed.",
    .examples = "kvasir get dir:/srv/objects report.pdf -o report.pdf\n"
                "kvasir get dir:/srv/objects backup/etc.tar | tar t\n"
                "kvasir get --offset 1M --length 4K dir:/srv/objects hex:00FF | hexdump -C\n"
                "kvasir get -r dir:/srv/objects photos -o ./restored",
    .opts = get_opts,
    .args_min = 1,
    .args_max = 2,
    .drivers = CLI_KV,
    .run = get_run,
    .prepare = get_prepare,
};
