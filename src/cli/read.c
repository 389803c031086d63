/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir read: bytes of a block device into a file. */
#include "cli/blkio.h"
#include "cli/file.h"

#include <string.h>

static int report(struct cli *c, const struct dev *d, uint64_t off, const struct cli_progress *p)
{
    double s = (double)cli_progress_ns(p) / (double)NS_PER_S;
    char rate[CLI_RATE_TEXT];

    if (c->json)
        cli_json(c, json_pack("{s:s, s:I, s:I, s:f, s:f}", "uri", d->uri, "offset", (json_int_t)off,
                              "bytes", (json_int_t)p->done_bytes, "seconds", s, "bytes_per_s",
                              (double)p->done_bytes / s));
    else
        cli_note(c, "read %s", cli_rate_text(p, rate));
    return 0;
}

/* What of the device was asked for. */
static int range(struct cli *c, const struct dev *d, uint64_t *out_off, uint64_t *out_len)
{
    uint64_t size = dev_blk_bytes(d), off = opt_u64(&c->opts, "offset");
    uint64_t len =
        opt_given(&c->opts, "length") ? opt_u64(&c->opts, "length") : size - MIN(size, off);

    if (off > size || len > size - off)
        return cli_fail(c, -ERANGE, "%s has %lu bytes: %lu bytes from byte %lu are not on it",
                        d->uri, size, len, off);
    *out_off = off;
    *out_len = len;
    return 0;
}

static int read_dev(struct rt_task *t, struct cli *c, const struct dev *d, struct cli_file *out)
{
    CLEANUP(blkio_free_p) struct blkio *x = blkio_new();
    struct cli_file_sink sink;
    struct cli_progress progress;
    struct err why = {""};
    uint64_t off = 0, len = 0;
    int rc;

    if (x == NULL)
        return -ENOMEM;
    rc = range(c, d, &off, &len);
    if (rc < 0)
        return rc;
    out->sparse = out->regular && out->temp != NULL;
    cli_progress_start(&progress, c, d->uri, len);
    sink = cli_file_sink(out, &progress);
    rc = blkio_read(t, c, x, d, off, len, &sink.sink);
    cli_progress_stop(&progress);
    if (rc < 0)
        return rc;
    rc = cli_file_commit(t, out, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    return out->std ? 0 : report(c, d, off, &progress);
}

static int read_run(struct rt_task *t, struct cli *c)
{
    CLEANUP(cli_file_close_p) struct cli_file out = CLI_FILE_CLOSED;
    const char *path = opt_str(&c->opts, "output");
    struct err why = {""};
    struct dev d;
    int rc;

    rc = dev_open(t, c, cli_arg(c, 0), DEV_BLK, false, &d);
    if (rc < 0)
        return rc;
    rc = cli_file_create(t, path != NULL ? path : "-", false, &out, &why);
    if (rc < 0)
        cli_fail(c, rc, "%s", why.text);
    else
        rc = read_dev(t, c, &d, &out);
    dev_close(t, &d);
    return rc;
}

static const struct opt read_opts[] = {
    {"output", 'o', OPT_FILE, false, "FILE", NULL, "where to; standard output without it"},
    {"offset", 0, OPT_SIZE, false, "SIZE", "0", "first byte of the device"},
    {"length", 0, OPT_SIZE, false, "SIZE", NULL, "bytes; to the end of the device without it"},
    {NULL},
};

const struct cli_verb verb_read = {
    .name = "read",
    .args = "URI [-o FILE]",
    .summary = "read a block device into a file or standard output",
    .about =
        "Reads the whole block device, or the part that --offset and --length name (any bytes, "
        "not only whole blocks). Runs of zeroes become holes of a regular FILE, which "
        "appears under its name when it is complete.",
    .examples =
        "kvasir read 'mem:?size=64M' -o zeroes.img\n"
        "kvasir read nvme+tcp://127.0.0.1:4420/nqn.2026-11.io.kvasir:default?nsid=2 -o disk.img\n"
        "kvasir read file:/srv/disk.img --length 512 | hexdump -C",
    .opts = read_opts,
    .args_min = 1,
    .args_max = 1,
    .drivers = CLI_BLK,
    .run = read_run,
};
