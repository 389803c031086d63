/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir write: bytes of a file onto a block device. */
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
        cli_note(c, "wrote %s", cli_rate_text(p, rate));
    return 0;
}

static int no_room(struct cli *c, const struct dev *d, uint64_t off, const char *what)
{
    return cli_fail(c, -ENOSPC, "%s has %lu bytes: %s does not fit behind byte %lu", d->uri,
                    dev_blk_bytes(d), what, off);
}

static int write_dev(struct rt_task *t, struct cli *c, const struct dev *d, struct cli_file *in)
{
    CLEANUP(blkio_free_p) struct blkio *x = blkio_new();
    uint64_t size = dev_blk_bytes(d), off = opt_u64(&c->opts, "offset"), max, moved;
    struct cli_file_source src;
    struct cli_progress progress;
    uint8_t more;
    int rc;

    if (x == NULL)
        return -ENOMEM;
    if (off > size)
        return no_room(c, d, off, "nothing");
    max = opt_given(&c->opts, "length") ? opt_u64(&c->opts, "length") : UINT64_MAX;
    if (in->regular)
        max = MIN(max, in->size_bytes);
    if (max != UINT64_MAX && max > size - off)
        return no_room(c, d, off, in->name);
    cli_progress_start(&progress, c, d->uri, max == UINT64_MAX ? 0 : max);
    src = cli_file_source(in, &progress);
    rc = blkio_write(t, c, x, d, off, MIN(max, size - off), &src.source, &moved);
    cli_progress_stop(&progress);
    if (rc < 0)
        return rc;
    if (opt_given(&c->opts, "length") && moved < max)
        return cli_fail(c, -EIO, "%s ended after %lu of %lu bytes", in->name, moved, max);
    if (max == UINT64_MAX && moved == size - off && cli_file_read(t, in, &more, 1) > 0)
        return no_room(c, d, off, "the rest of the input");
    return report(c, d, off, &progress);
}

static int write_run(struct rt_task *t, struct cli *c)
{
    CLEANUP(cli_file_close_p) struct cli_file in = CLI_FILE_CLOSED;
    struct err why = {""};
    struct dev d;
    int rc;

    rc = cli_file_open(t, cli_arg(c, 1) != NULL ? cli_arg(c, 1) : "-", &in, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    rc = dev_open(t, c, cli_arg(c, 0), DEV_BLK, true, &d);
    if (rc < 0)
        return rc;
    rc = write_dev(t, c, &d, &in);
    dev_close(t, &d);
    return rc;
}

static const struct opt write_opts[] = {
    {"offset", 0, OPT_SIZE, false, "SIZE", "0", "first byte of the device"},
    {"length", 0, OPT_SIZE, false, "SIZE", NULL, "bytes to take; all of the input without it"},
    {NULL},
};

const struct cli_verb verb_write = {
    .name = "write",
    .args = "URI [FILE]",
    .summary = "write a file or standard input onto a block device",
    .about = "Writes the bytes of FILE (standard input when absent or \"-\") to the device from "
             "--offset on; the rest of the device stays. A file that is larger than the room "
             "there is refused before anything is written. Runs of zeroes are written as such, "
             "which lets the device give the blocks back. What was written is durable at the end.",
    .examples = "kvasir write file:/srv/disk.img image.iso\n"
                "gunzip -c image.gz | kvasir write "
                "nvme+tcp://127.0.0.1:4420/nqn.2026-11.io.kvasir:default?nsid=2\n"
                "kvasir write file:/srv/disk.img boot.bin --offset 1M",
    .opts = write_opts,
    .args_min = 1,
    .args_max = 2,
    .drivers = CLI_BLK,
    .run = write_run,
};
