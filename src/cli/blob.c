/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir blob: blobstores. The verb, its device, and `ls`. */
#include "cli/blob.h"

#include <string.h>
#include <strings.h>

/* --- the device ------------------------------------------------------------------------------- */

/* A path as part of a URI. */
static void escape(const char *path, char *out, size_t max)
{
    size_t n = 0;

    for (; *path != '\0' && n + 4 < max; path++) {
        unsigned char ch = (unsigned char)*path;

        if (ch <= ' ' || ch >= 0x7f || strchr("%?#", ch) != NULL)
            n += (size_t)snprintf(out + n, max - n, "%%%02x", ch);
        else
            out[n++] = (char)ch;
    }
    out[n] = '\0';
}

const char *blob_cli_uri(struct cli *c, bool writes, uint32_t block_bytes)
{
    static char uri[URI_MAX];
    char path[URI_MAX - 64];
    const char *device = cli_arg(c, 1);
    uint64_t block =
        opt_given(&c->opts, "block-size") ? opt_u64(&c->opts, "block-size") : block_bytes;
    size_t n;

    if (dev_kinds(device) & DEV_BLK)
        return device;
    escape(device, path, sizeof(path));
    n = (size_t)snprintf(uri, sizeof(uri), "file:%s", path);
    if (!writes)
        n += (size_t)snprintf(uri + n, sizeof(uri) - n, "?readonly=yes");
    if (block != 0)
        snprintf(uri + n, sizeof(uri) - n, "%cblock_size=%lu", writes ? '?' : '&', block);
    return uri;
}

int blob_cli_open(struct rt_task *t, struct cli *c, struct dev *out)
{
    return dev_open(t, c, blob_cli_uri(c, false, 0), DEV_BLK, false, out);
}

int blob_cli_fail(struct cli *c, const char *uri, int rc)
{
    switch (rc) {
    case -ENODATA:
        return cli_fail(c, -EBADMSG, "there is no blobstore on %s", uri);
    case -EBADMSG:
        return cli_fail(c, rc, "the super block on %s is broken (`kvasir blob check` tells more)",
                        uri);
    case -ENOTSUP:
        return cli_fail(c, rc, "the blobstore on %s has a version that is not known", uri);
    case -ENOMEM:
        return cli_fail(c, rc, "the blobstore on %s needs more than 1 GiB to be looked at", uri);
    default:
        return cli_fail(c, rc, "cannot read the blobstore on %s: %s", uri, err_str(rc));
    }
}

/* --- blobs ------------------------------------------------------------------------------------ */

static void add_blob(void *arg, const struct blob_check_blob *b)
{
    struct cli_blobs *list = arg;

    if (list->n == list->cap) {
        size_t cap = MAX(list->cap * 2, 64u);
        struct cli_blob *more = realloc(list->blob, cap * sizeof(*more));

        if (more == NULL) {
            list->no_memory = true;
            return;
        }
        list->blob = more;
        list->cap = cap;
    }
    list->blob[list->n] = (struct cli_blob){.b = *b};
    snprintf(list->blob[list->n].name, sizeof(list->blob->name), "%s", b->name);
    snprintf(list->blob[list->n].uuid, sizeof(list->blob->uuid), "%s", b->uuid);
    list->n++;
}

int blob_cli_list(struct rt_task *t, struct cli *c, const struct dev *d, struct cli_blobs *out)
{
    struct blob_check_opts opts = {.blob = add_blob, .arg = out};
    int rc;

    *out = (struct cli_blobs){0};
    rc = blob_check(t, d->blk_chan, &opts, &out->rep);
    if (rc == 0 && out->no_memory)
        rc = -ENOMEM;
    return rc < 0 ? blob_cli_fail(c, d->uri, rc) : 0;
}

void blob_cli_blobs_fini_p(struct cli_blobs *list)
{
    free(list->blob);
}

int blob_cli_find(struct cli *c, const struct dev *d, const struct cli_blobs *list,
                  const char *which, const struct cli_blob **out)
{
    uint64_t id = 0;
    bool number = parse_u64(which, &id) == 0;

    for (size_t i = 0; i < list->n; i++) {
        const struct cli_blob *b = &list->blob[i];

        if (strcmp(b->name, which) == 0 || strcasecmp(b->uuid, which) == 0 ||
            (number && (b->b.id == id || b->b.id == (BLOB_RAW_ID_HIGH | id)))) {
            *out = b;
            return 0;
        }
    }
    return cli_fail(c, -ENOENT, "no blob '%s' on %s (`kvasir blob ls` lists them)", which, d->uri);
}

const char *blob_cli_flags(const struct blob_check_blob *b, char *out)
{
    const struct {
        bool on;
        const char *name;
    } flags[] = {
        {(b->invalid & BLOB_RAW_THIN) != 0, "thin"},
        {b->nclones > 0, "snapshot"},
        {b->parent != UINT64_MAX, "clone"},
        {(b->invalid & BLOB_RAW_EXTERNAL) != 0, "external"},
        {(b->data_ro & BLOB_RAW_READ_ONLY) != 0, "read-only"},
        {!b->table && b->clusters > 0, "rle"},
        {b->making, "being-made"},
        {b->removing, "being-removed"},
        {b->broken, "broken"},
    };
    size_t n = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++) {
        if (flags[i].on)
            n += (size_t)snprintf(out + n, BLOB_FLAGS_TEXT - n, "%s%s", n > 0 ? "," : "",
                                  flags[i].name);
    }
    return out;
}

json_t *blob_cli_id(uint64_t id)
{
    return id == UINT64_MAX ? json_null() : json_sprintf("0x%lx", id);
}

/* --- ls --------------------------------------------------------------------------------------- */

static void print_blob(struct cli *c, const struct cli_blobs *list, const struct cli_blob *x)
{
    uint64_t size = x->b.clusters * list->rep.super.cluster_bytes;
    char flags[BLOB_FLAGS_TEXT], text[CLI_SIZE_TEXT];

    blob_cli_flags(&x->b, flags);
    if (c->json)
        cli_json(c,
                 json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:s, s:o, s:I, s:b}", "id",
                           blob_cli_id(x->b.id), "name", x->name, "uuid", x->uuid, "bytes",
                           (json_int_t)size, "clusters", (json_int_t)x->b.clusters,
                           "allocated_clusters", (json_int_t)x->b.allocated, "flags", flags,
                           "parent", blob_cli_id(x->b.parent), "clones", (json_int_t)x->b.nclones,
                           "super", x->b.id == list->rep.super.super_blob));
    else
        cli_print(c, "0x%-12lx%12s  %8lu of %-8lu  %-28s  %s%s\n", x->b.id,
                  cli_size_text(size, text), x->b.allocated, x->b.clusters,
                  flags[0] != '\0' ? flags : "-", x->name,
                  x->b.id == list->rep.super.super_blob ? " (super blob)" : "");
}

int blob_cli_ls(struct rt_task *t, struct cli *c)
{
    CLEANUP(blob_cli_blobs_fini_p) struct cli_blobs list = {0};
    struct dev d;
    int rc;

    rc = blob_cli_open(t, c, &d);
    if (rc < 0)
        return rc;
    rc = blob_cli_list(t, c, &d, &list);
    for (size_t i = 0; i < list.n && rc == 0; i++) {
        print_blob(c, &list, &list.blob[i]);
        rc = cli_flush(t, c, false);
    }
    dev_close(t, &d);
    return rc;
}

/* --- the verb --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(struct rt_task *t, struct cli *c);
    unsigned args_min, args_max; /* DEVICE is the first */
    const char *usage;
} commands[] = {
    {"ls", blob_cli_ls, 1, 1, "ls DEVICE"},
    {"show", blob_cli_show, 1, 2, "show DEVICE [BLOB]"},
    {"check", blob_cli_check, 1, 1, "check DEVICE"},
    {"dump", blob_cli_dump, 1, 1, "dump DEVICE [--blob BLOB] [--all]"},
    {"init", blob_cli_init, 1, 1, "init DEVICE [--cluster-size SIZE] [--force]"},
    {"create", blob_cli_create, 1, 1, "create DEVICE [--size SIZE] [--thin] [--xattr NAME=VALUE]"},
    {"rm", blob_cli_rm, 2, 2, "rm DEVICE ID"},
    {"snapshot", blob_cli_snapshot, 2, 2, "snapshot DEVICE ID [--xattr NAME=VALUE]"},
    {"clone", blob_cli_clone, 2, 2, "clone DEVICE ID [--xattr NAME=VALUE]"},
};

static int find_command(struct cli *c, unsigned *out)
{
    const char *name = cli_arg(c, 0);
    char list[128] = "";
    size_t n = 0;

    for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
        n += (size_t)snprintf(list + n, sizeof(list) - n, " %s", commands[i].name);
        if (strcmp(commands[i].name, name) != 0)
            continue;
        if (c->opts.nargs - 1 < commands[i].args_min || c->opts.nargs - 1 > commands[i].args_max)
            return cli_usage(c, "it is: kvasir blob %s", commands[i].usage);
        *out = i;
        return 0;
    }
    return cli_usage(c, "there is no '%s'; there are%s", name, list);
}

static int blob_prepare(struct cli *c, struct rt_config *cfg)
{
    unsigned i;

    (void)cfg;
    return find_command(c, &i);
}

static int blob_run(struct rt_task *t, struct cli *c)
{
    unsigned i = 0;
    int rc = find_command(c, &i);

    if (rc < 0)
        return rc;
    rc = commands[i].run(t, c);
    return rc < 0 ? rc : cli_flush(t, c, true);
}

static const struct opt blob_opts[] = {
    {"block-size", 0, OPT_SIZE, false, "SIZE", NULL,
     "of a DEVICE that is a path; what the store was made with, if not given"},
    {"blob", 0, OPT_STR, false, "BLOB", NULL, "dump: only this one"},
    {"all", 'a', OPT_FLAG, false, NULL, NULL, "dump: empty pages too, each cluster on its line"},
    {"size", 's', OPT_SIZE, false, "SIZE", NULL,
     "create: rounded up to clusters; none if not given"},
    {"thin", 0, OPT_FLAG, false, NULL, NULL, "create: clusters are taken when first written"},
    {"rle", 0, OPT_FLAG, false, NULL, NULL, "create: the older encoding, without an extent table"},
    {"xattr", 'x', OPT_STR, true, "NAME=VALUE", NULL, "create, snapshot, clone: set this xattr"},
    {"cluster-size", 0, OPT_SIZE, false, "SIZE", NULL,
     "init: 64K to 4M by the size of the device, if not given"},
    {"force", 0, OPT_FLAG, false, NULL, NULL, "init: overwrite what is there"},
    {NULL},
};

const struct cli_verb verb_blob = {
    .name = "blob",
    .args = "COMMAND DEVICE [BLOB]",
    .commands = "ls|show|check|dump|init|create|rm|snapshot|clone",
    .summary = "look at, check and change blobstores",
    .about =
        "Blobstores are in SPDK's format; DEVICE is the path of a file or disk, or the URI of a "
        "block device. BLOB is an id as `ls` prints it, or the name or uuid of a volume.\n\n"
        "ls lists the blobs. show tells about the store, or all about one blob: flags, xattrs, "
        "extents.\n\n"
        "check verifies everything that can be verified, without opening the store, and repairs "
        "nothing: checksums, chains of pages, extents, that no cluster is used twice, snapshots "
        "and clones, the rules of lvolstores, and that the masks say the same as the blobs. A note "
        "tells what an interrupted operation left, which the next opening undoes. It ends "
        "with 7 when there are warnings or errors.\n\n"
        "dump prints every structure with its byte offset, also of stores that cannot be opened. "
        "Neither of these writes anything.\n\n"
        "init makes an empty blobstore, create a blob in one, rm deletes a blob, snapshot takes a "
        "snapshot of one, clone makes a writable blob that stands on a snapshot; create, snapshot "
        "and clone print the new id. In an lvolstore blobs have names: use `kvasir lvol` there.",
    .examples = "kvasir blob ls disk.img\n"
                "kvasir blob show disk.img 0x100000001\n"
                "kvasir blob check --json /dev/nvme0n1\n"
                "kvasir blob dump disk.img --blob volume1\n"
                "kvasir blob create disk.img --size 1G --thin --xattr owner=me",
    .opts = blob_opts,
    .args_min = 2,
    .args_max = 4,
    .drivers = CLI_BLK,
    .run = blob_run,
    .prepare = blob_prepare,
};
