/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir put: a file, or a tree of them, becomes values. */
#include "cli/dev.h"
#include "cli/file.h"
#include "cli/key.h"
#include "cli/tree.h"

#include <string.h>

static struct cli_key put_key; /* a key is too large for a task's stack */

static uint32_t store_flags(struct cli *c)
{
    uint32_t flags = 0;

    if (opt_flag(&c->opts, "if-absent"))
        flags |= KV_F_MUST_NOT_EXIST;
    if (opt_flag(&c->opts, "if-present"))
        flags |= KV_F_MUST_EXIST;
    if (opt_given(&c->opts, "if-version"))
        flags |= KV_F_IF_VERSION;
    if (opt_flag(&c->opts, "append"))
        flags |= KV_F_APPEND;
    return flags;
}

static int report(struct cli *c, const struct xfer_store *st, const struct cli_progress *p)
{
    double s = (double)cli_progress_ns(p) / (double)NS_PER_S;
    char rate[CLI_RATE_TEXT];
    json_t *obj;

    if (!c->json) {
        cli_note(c, "stored %s", cli_rate_text(p, rate));
        return 0;
    }
    obj = json_object();
    cli_key_json(obj, st->key);
    json_object_set_new(obj, "bytes", json_integer((json_int_t)st->moved));
    json_object_set_new(obj, "version", json_integer((json_int_t)st->version));
    json_object_set_new(obj, "seconds", json_real(s));
    json_object_set_new(obj, "bytes_per_s", json_real((double)st->moved / s));
    cli_json(c, obj);
    return 0;
}

/* An input without a length gets one by a temporary file, where the device insists. */
static int give_length(struct rt_task *t, struct cli *c, const struct dev *d, struct xfer *x,
                       struct cli_file *in, uint64_t *out_len)
{
    struct cli_file spool = CLI_FILE_CLOSED;
    struct err why = {""};
    int rc;

    *out_len = in->size_bytes;
    if (in->regular)
        return 0;
    if (opt_given(&c->opts, "length")) {
        *out_len = opt_u64(&c->opts, "length");
        return 0;
    }
    *out_len = KV_LEN_UNKNOWN;
    if (kv_info(d->kv)->caps & KV_CAP_UNKNOWN_LEN)
        return 0;
    rc = cli_file_spool(t, in, x->mem, x->piece_bytes, &spool, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    cli_file_close_p(in);
    *in = spool;
    *out_len = in->size_bytes;
    return 0;
}

static int put_value(struct rt_task *t, struct cli *c, const struct dev *d, struct cli_file *in)
{
    CLEANUP(xfer_free_p) struct xfer *x = xfer_new(XFER_PIECE_BYTES);
    struct xfer_store st = {.key = cli_key_bytes(&put_key),
                            .flags = store_flags(c),
                            .version = opt_u64(&c->opts, "if-version")};
    struct cli_file_source src;
    struct cli_progress progress;
    struct err why = {""};
    int rc;

    if (x == NULL)
        return cli_fail(c, -ENOMEM, "no memory for buffers");
    rc = give_length(t, c, d, x, in, &st.len);
    if (rc < 0)
        return rc;
    cli_progress_start(&progress, c, cli_arg(c, 1), st.len == KV_LEN_UNKNOWN ? 0 : st.len);
    src = cli_file_source(in, &progress);
    rc = xfer_store(t, x, d->kv_chan, &st, &src.source, &why);
    cli_progress_stop(&progress);
    if (rc < 0)
        return dev_kv_fail(c, d, "store", st.key, rc, why.text);
    return report(c, &st, &progress);
}

static int put_one(struct rt_task *t, struct cli *c)
{
    CLEANUP(cli_file_close_p) struct cli_file in = CLI_FILE_CLOSED;
    const char *path = cli_arg(c, 2) != NULL ? cli_arg(c, 2) : "-";
    struct err why = {""};
    struct dev d;
    int rc;

    rc = cli_key_parse(cli_arg(c, 1), false, &put_key, &why);
    if (rc == 0)
        rc = cli_file_open(t, path, &in, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, true, &d);
    if (rc < 0)
        return rc;
    rc = put_value(t, c, &d, &in);
    dev_close(t, &d);
    return rc;
}

static int put_tree(struct rt_task *t, struct cli *c)
{
    struct tree_put job = {.c = c,
                           .flags = store_flags(c),
                           .jobs = (unsigned)opt_u64(&c->opts, "jobs"),
                           .keep_going = opt_flag(&c->opts, "keep-going")};
    const char *prefix = c->opts.nargs > 2 ? cli_arg(c, 1) : "";
    struct err why = {""};
    int rc;

    job.dir = cli_arg(c, c->opts.nargs - 1);
    rc = cli_key_parse(prefix, true, &put_key, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, true, &job.dev);
    if (rc < 0)
        return rc;
    job.prefix = cli_key_bytes(&put_key);
    rc = tree_put(t, &job);
    dev_close(t, &job.dev);
    return rc;
}

static int put_run(struct rt_task *t, struct cli *c)
{
    return opt_flag(&c->opts, "recursive") ? put_tree(t, c) : put_one(t, c);
}

static int put_prepare(struct cli *c, struct rt_config *cfg)
{
    const struct opts *o = &c->opts;

    if (opt_flag(o, "recursive")) {
        if (opt_flag(o, "append") || opt_given(o, "if-version") || opt_given(o, "length"))
            return cli_usage(c, "-r does not go with --append, --if-version or --length");
        return 0;
    }
    if (opt_flag(o, "if-absent") + opt_flag(o, "if-present") + opt_given(o, "if-version") > 1)
        return cli_usage(c, "--if-absent, --if-present and --if-version exclude each other");
    return 0;
}

static const struct opt put_opts[] = {
    {"recursive", 'r', OPT_FLAG, false, NULL, NULL,
     "store each file under DIR; keys are the relative paths"},
    {"if-absent", 0, OPT_FLAG, false, NULL, NULL, "refuse (exit 4) when the key exists"},
    {"if-present", 0, OPT_FLAG, false, NULL, NULL, "refuse (exit 3) when it does not exist"},
    {"if-version", 0, OPT_U64, false, "N", NULL, "refuse (exit 4) unless it has this version"},
    {"append", 'a', OPT_FLAG, false, NULL, NULL, "add to the end of the present value"},
    {"length", 0, OPT_SIZE, false, "SIZE", NULL,
     "bytes that a pipe will bring; without it a device that has to know gets a temporary file"},
    {"jobs", 'j', OPT_U64, false, "N", "8", "with -r: files under way at a time"},
    {"keep-going", 'k', OPT_FLAG, false, NULL, NULL,
     "with -r: go on after a file that cannot be stored; exit with the first error's code"},
    {NULL},
};

const struct cli_verb verb_put = {
    .name = "put",
    .args = "URI KEY [FILE] | -r URI [PREFIX] DIR",
    .summary = "store a value from a file or standard input",
    .about =
        "Stores the bytes of FILE (standard input when absent or \"-\") as the value of KEY. The "
        "value is streamed in pieces, so its size is limited by the device alone, and it "
        "becomes visible whole, at the end, or not at all.\n\n"
        "With -r every regular file under DIR is stored; its key is PREFIX, a slash, and its "
        "path below DIR. Symbolic links and special files are left out with a remark. When "
        "a path is longer than the device's keys, nothing is stored (see --keep-going).",
    .examples =
        "kvasir put dir:/srv/objects report.pdf report.pdf\n"
        "tar c /etc | kvasir put dir:/srv/objects backup/etc.tar\n"
        "kvasir put -r nvme+tcp://127.0.0.1:4420/nqn.2026-11.io.kvasir:default?nsid=1 . ./photos",
    .opts = put_opts,
    .args_min = 2,
    .args_max = 3,
    .drivers = CLI_KV,
    .run = put_run,
    .prepare = put_prepare,
};
