/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir blob init, create, rm, snapshot and clone: what writes, through src/blob. */
#include "cli/blob.h"

#include "blob/blob.h"

#include <string.h>

/* What the store was made with, or NULL: then the default of the driver is right or wrong alike. */
static int made_with(struct rt_task *t, struct cli *c, uint32_t *out_block)
{
    struct blob_raw raw;
    struct dev d;
    int rc;

    rc = blob_cli_open(t, c, &d);
    if (rc < 0)
        return rc;
    rc = blob_raw_init(t, d.blk_chan, &raw);
    *out_block = raw.super.signature_ok ? raw.super.io_unit_bytes : 0;
    blob_raw_fini(&raw);
    dev_close(t, &d);
    return rc < 0 ? blob_cli_fail(c, d.uri, rc) : 0;
}

static int open_store(struct rt_task *t, struct cli *c, struct blob_store **out_bs)
{
    const char *uri = blob_cli_uri(c, true, 0);
    struct err why = {""};
    uint32_t block = 0;
    int rc;

    if (strcmp(uri, cli_arg(c, 1)) != 0 && !opt_given(&c->opts, "block-size")) {
        rc = made_with(t, c, &block);
        if (rc < 0)
            return rc;
        uri = blob_cli_uri(c, true, block);
    }
    rc = blob_store_open(t, uri, NULL, 0, out_bs, &why);
    if (rc < 0)
        return cli_fail(c, rc == -ENODATA ? -EBADMSG : rc, "cannot open the blobstore: %s",
                        why.text);
    return 0;
}

/* Ids as `ls` prints them; whoever has names uses `kvasir lvol`. */
static int take_id(struct cli *c, uint64_t *out)
{
    const char *text = cli_arg(c, 2);
    uint64_t id;

    if (parse_u64(text, &id) < 0)
        return cli_usage(c, "'%s' is no id; `kvasir blob ls` shows them, as 0x100000001", text);
    *out = id < BLOB_RAW_ID_HIGH ? id | BLOB_RAW_ID_HIGH : id;
    return 0;
}

/* "name=value", stored with its NUL, as SPDK's tools do. */
static int take_attrs(struct cli *c, struct blob_xattr *out, char *names, size_t max,
                      unsigned *out_n)
{
    size_t used = 0;
    unsigned n = 0;

    for (unsigned i = 0; i < c->opts.nrepeats; i++) {
        const char *text = c->opts.repeat[i].text, *eq = strchr(text, '=');
        size_t len = eq != NULL ? (size_t)(eq - text) : 0;

        if (len == 0)
            return cli_usage(c, "--xattr '%s' has to be NAME=VALUE", text);
        if (n == BLOB_CLI_XATTRS || used + len + 1 > max || len + strlen(eq) > BLOB_XATTR_MAX)
            return cli_usage(c, "too many xattrs, or too long ones");
        memcpy(names + used, text, len);
        names[used + len] = '\0';
        out[n++] = (struct blob_xattr){names + used, eq + 1, (uint16_t)(strlen(eq + 1) + 1)};
        used += len + 1;
    }
    *out_n = n;
    return 0;
}

static int told(struct cli *c, const char *what, uint64_t id)
{
    if (c->json)
        cli_json(c, json_pack("{s:o}", "id", blob_cli_id(id)));
    else
        cli_print(c, "0x%lx\n", id);
    cli_note(c, "%s", what);
    return 0;
}

static int change_fail(struct cli *c, const char *what, int rc)
{
    switch (rc) {
    case -ENOENT:
        return cli_fail(c, rc, "cannot %s: no such blob (`kvasir blob ls` lists them)", what);
    case -EBUSY:
        return cli_fail(c, rc, "cannot %s: it is in use, or more than one clone stands on it",
                        what);
    case -ENOSPC:
        return cli_fail(c, rc, "cannot %s: no clusters or no metadata pages are free", what);
    case -EROFS:
        return cli_fail(c, rc, "cannot %s: it is read-only", what);
    case -EINVAL:
        return cli_fail(c, rc, "cannot %s: a clone needs a snapshot or another read-only blob",
                        what);
    default:
        return cli_fail(c, rc, "cannot %s: %s", what, err_str(rc));
    }
}

static int create_in(struct rt_task *t, struct cli *c, struct blob_store *bs)
{
    static struct blob_xattr xattrs[BLOB_CLI_XATTRS];
    static char names[4 * KIB];
    struct blob_create_opts opts = {.xattrs = xattrs};
    struct blob_store_info info;
    uint64_t id = 0;
    int rc;

    rc = take_attrs(c, xattrs, names, sizeof(names), &opts.nxattrs);
    if (rc < 0)
        return rc;
    blob_store_info(bs, &info);
    opts.clusters = (opt_u64(&c->opts, "size") + info.cluster_bytes - 1) / info.cluster_bytes;
    opts.thin = opt_flag(&c->opts, "thin");
    opts.extent_rle = opt_flag(&c->opts, "rle");
    rc = blob_create(t, bs, &opts, &id);
    if (rc < 0)
        return change_fail(c, "create a blob", rc);
    return told(c, "created", id);
}

static int rm_in(struct rt_task *t, struct cli *c, struct blob_store *bs)
{
    struct blob_store_info info;
    uint64_t id;
    int rc;

    rc = take_id(c, &id);
    if (rc < 0)
        return rc;
    blob_store_info(bs, &info);
    if (id == info.super_blob)
        return cli_fail(c, -EINVAL, "0x%lx is the super blob: the store needs it", id);
    rc = blob_delete(t, bs, id);
    if (rc < 0)
        return change_fail(c, "delete the blob", rc);
    cli_note(c, "deleted 0x%lx", id);
    return 0;
}

static int snapshot_in(struct rt_task *t, struct cli *c, struct blob_store *bs)
{
    static struct blob_xattr xattrs[BLOB_CLI_XATTRS];
    static char names[4 * KIB];
    uint64_t id, made = 0;
    struct blob *b;
    unsigned n = 0;
    int rc;

    rc = take_id(c, &id);
    if (rc == 0)
        rc = take_attrs(c, xattrs, names, sizeof(names), &n);
    if (rc < 0)
        return rc;
    rc = blob_open(t, bs, id, &b);
    if (rc < 0)
        return change_fail(c, "open the blob", rc);
    rc = blob_snapshot(t, b, xattrs, n, &made);
    blob_close(t, b);
    if (rc < 0)
        return change_fail(c, "take a snapshot", rc);
    return told(c, "snapshot taken", made);
}

static int clone_in(struct rt_task *t, struct cli *c, struct blob_store *bs)
{
    static struct blob_xattr xattrs[BLOB_CLI_XATTRS];
    static char names[4 * KIB];
    uint64_t id, made = 0;
    unsigned n = 0;
    int rc;

    rc = take_id(c, &id);
    if (rc == 0)
        rc = take_attrs(c, xattrs, names, sizeof(names), &n);
    if (rc < 0)
        return rc;
    rc = blob_clone(t, bs, id, xattrs, n, &made);
    if (rc < 0)
        return change_fail(c, "clone the blob", rc);
    return told(c, "cloned", made);
}

/* An lvolstore with a blob that has no name is refused as a whole. */
static int may_make(struct cli *c, const struct blob_store *bs)
{
    struct blob_store_info info;

    blob_store_info(bs, &info);
    if (memcmp(info.bstype, "LVOLSTORE", 9) != 0)
        return 0;
    return cli_fail(c, -EINVAL, "%s is an lvolstore, whose blobs need names: use `kvasir lvol`",
                    cli_arg(c, 1));
}

static int in_store(struct rt_task *t, struct cli *c, bool makes,
                    int (*fn)(struct rt_task *t, struct cli *c, struct blob_store *bs))
{
    struct blob_store *bs;
    int rc;

    rc = open_store(t, c, &bs);
    if (rc < 0)
        return rc;
    rc = makes ? may_make(c, bs) : 0;
    if (rc == 0)
        rc = fn(t, c, bs);
    blob_store_close(t, bs);
    return rc;
}

int blob_cli_create(struct rt_task *t, struct cli *c)
{
    return in_store(t, c, true, create_in);
}

int blob_cli_rm(struct rt_task *t, struct cli *c)
{
    return in_store(t, c, false, rm_in);
}

int blob_cli_snapshot(struct rt_task *t, struct cli *c)
{
    return in_store(t, c, true, snapshot_in);
}

int blob_cli_clone(struct rt_task *t, struct cli *c)
{
    return in_store(t, c, true, clone_in);
}

/* --- init ------------------------------------------------------------------------------------- */

/* Whether something begins on the device that --force has to be given for. */
static int look_empty(struct rt_task *t, struct cli *c, struct blk_dev *dev)
{
    CLEANUP(free_p) uint8_t *page = aligned_alloc(4096, MAX(blk_info(dev)->block_bytes, 4096u));
    struct blk_chan *chan;
    bool empty;
    int rc;

    if (page == NULL)
        return -ENOMEM;
    rc = blk_chan_get(t, dev, &chan);
    if (rc < 0)
        return rc;
    rc = blk_read(t, chan, page, 0, MAX(4096 / blk_info(dev)->block_bytes, 1u));
    empty = rc == 0 && bytes_are_zero(page, 4096);
    blk_chan_put(t, chan);
    if (rc < 0)
        return cli_fail(c, rc, "cannot read %s: %s", blk_uri(dev), err_str(rc));
    if (!empty && !opt_flag(&c->opts, "force"))
        return cli_fail(c, -EEXIST, "there is something on %s; --force overwrites it",
                        blk_uri(dev));
    return 0;
}

int blob_cli_init(struct rt_task *t, struct cli *c)
{
    struct blob_format_opts opts = {.cluster_bytes = (uint32_t)opt_u64(&c->opts, "cluster-size")};
    const char *uri = blob_cli_uri(c, true, 0);
    struct err why = {""};
    struct blk_dev *dev;
    int rc;

    rc = blk_open(t, uri, &dev, &why);
    if (rc < 0)
        return cli_fail(c, rc, "cannot open %s: %s", uri, why.text);
    rc = look_empty(t, c, dev);
    if (rc == 0) {
        rc = blob_format(t, dev, &opts, &why);
        if (rc < 0)
            cli_fail(c, rc, "cannot make a blobstore: %s", why.text);
    }
    blk_close(t, dev);
    return rc;
}
