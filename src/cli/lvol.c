/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir lvol: logical volumes, and the stores that hold them. */
#include "cli/lvol.h"

#include "cli/dev.h"

#include <string.h>

struct command {
    const char *name;
    const char *args;    /* after DEVICE */
    const char *options; /* names of those it takes, between spaces */
    unsigned nargs;      /* with DEVICE */
    bool reads;          /* changes nothing */
    int (*run)(struct rt_task *t, struct lvol_cli *l);
};

static struct lvol_cli lvol;

/* Behind what is in l->volume, as the value of a parameter. */
static void uri_add(struct lvol_cli *l, const char *name, const char *value)
{
    size_t max = sizeof(l->volume), len = strlen(l->volume);
    char *out = l->volume;

    len += (size_t)snprintf(out + len, max - len, "%s%s=", strchr(out, '?') ? "&" : "?", name);
    for (const char *p = value; *p != '\0' && len + 4 < max; p++)
        len += (size_t)snprintf(out + len, max - len, strchr("%&#", *p) ? "%%%02x" : "%c", *p);
}

const char *lvol_cli_uri(struct lvol_cli *l, const char *name, const char *external)
{
    uint64_t block_bytes = opt_u64(&l->c->opts, "block-size");
    size_t max = sizeof(l->volume), len;
    char *out = l->volume, number[32];

    snprintf(out, max, "lvol:%s", l->by_path ? l->uri + strlen("file:") : "");
    out[strcspn(out, "?")] = '\0';
    if (!l->by_path)
        uri_add(l, "bdev", l->uri);
    snprintf(number, sizeof(number), "%lu", block_bytes);
    if (l->by_path && block_bytes != 0)
        uri_add(l, "block_size", number);
    if (external != NULL)
        uri_add(l, "external", external);
    len = strlen(out);
    snprintf(out + len, max - len, "#%s/%s", l->lvs.name, name);
    return out;
}

int lvol_cli_fail(struct lvol_cli *l, int rc, const struct err *why)
{
    if (rc >= 0)
        return rc;
    return cli_fail(l->c, rc, "%s", why->text[0] != '\0' ? why->text : err_str(rc));
}

int lvol_cli_find(struct rt_task *t, struct lvol_cli *l, const char *name, uint64_t *out_id)
{
    struct err why = {""};

    return lvol_cli_fail(l, lvol_lookup(t, &l->lvs, name, out_id, &why), &why);
}

int lvol_cli_info(struct rt_task *t, struct lvol_cli *l, uint64_t id, struct lvol_info *out)
{
    int rc = lvol_info(t, &l->lvs, id, out);

    return rc < 0 ? cli_fail(l->c, rc, "volume 0x%lx cannot be read: %s", id, err_str(rc)) : 0;
}

int lvol_cli_find_own(struct rt_task *t, struct lvol_cli *l, const char *name, uint64_t *out_id)
{
    struct lvol_info info;
    int rc = lvol_cli_find(t, l, name, out_id);

    if (rc == 0)
        rc = lvol_cli_info(t, l, *out_id, &info);
    if (rc == 0 && info.kv[0] != '\0' && !opt_flag(&l->c->opts, "force"))
        return cli_fail(l->c, -EACCES,
                        "%s holds the key-value store '%s'; --force does it all the same",
                        info.name, info.kv);
    return rc;
}

/* A device that cannot be opened. */
static int device_fail(struct lvol_cli *l, int rc, const struct err *why)
{
    if (rc == -ENODATA)
        return cli_fail(l->c, -ENOENT,
                        "%s holds no store of volumes; `kvasir lvol init %s` makes one", l->device,
                        l->device);
    if (rc == -ENOENT && l->by_path)
        return cli_fail(l->c, rc,
                        "%s: no such file; `kvasir lvol init --size 10G %s` makes one of that size",
                        l->device, l->device);
    return lvol_cli_fail(l, rc, why);
}

/* --- commands --------------------------------------------------------------------------------- */

static int size_arg(struct lvol_cli *l, unsigned i, uint64_t *out)
{
    const char *text = cli_arg(l->c, i);

    if (parse_size(text, out) < 0 || *out == 0)
        return cli_usage(l->c, "'%s' is no size; write it as 512M, 10G or 1T", text);
    return 0;
}

static int create_run(struct rt_task *t, struct lvol_cli *l)
{
    struct lvol_create_opts opts = {.name = cli_arg(l->c, 2),
                                    .thin = !opt_flag(&l->c->opts, "thick")};
    struct err why = {""};
    uint64_t id;
    int rc = size_arg(l, 3, &opts.len_bytes);

    if (rc == 0)
        rc = lvol_cli_fail(l, lvol_create(t, &l->lvs, &opts, &id, &why), &why);
    return rc < 0 ? rc : lvol_cli_show(t, l, id);
}

static int resize_run(struct rt_task *t, struct lvol_cli *l)
{
    struct lvol_info info;
    struct err why = {""};
    uint64_t id, len;
    char size[CLI_SIZE_TEXT];
    int rc = size_arg(l, 3, &len);

    if (rc == 0)
        rc = lvol_cli_find_own(t, l, cli_arg(l->c, 2), &id);
    if (rc == 0)
        rc = lvol_cli_info(t, l, id, &info);
    if (rc < 0)
        return rc;
    if (len < info.blob.len_bytes && !opt_flag(&l->c->opts, "force"))
        return cli_fail(l->c, -EINVAL,
                        "%s has %s; what lies behind the new end would be lost: say --force to "
                        "make it smaller",
                        info.name, cli_size_text(info.blob.len_bytes, size));
    rc = lvol_cli_fail(l, lvol_resize(t, &l->lvs, id, len, &why), &why);
    return rc < 0 ? rc : lvol_cli_show(t, l, id);
}

static int rename_run(struct rt_task *t, struct lvol_cli *l)
{
    struct err why = {""};
    uint64_t id;
    int rc = lvol_cli_find_own(t, l, cli_arg(l->c, 2), &id);

    if (rc == 0)
        rc = lvol_cli_fail(l, lvol_rename(t, &l->lvs, id, cli_arg(l->c, 3), &why), &why);
    return rc < 0 ? rc : lvol_cli_show(t, l, id);
}

static int rm_run(struct rt_task *t, struct lvol_cli *l)
{
    struct err why = {""};
    uint64_t id;
    int rc = lvol_cli_find_own(t, l, cli_arg(l->c, 2), &id);

    if (rc == 0)
        rc = lvol_cli_fail(l, lvol_delete(t, &l->lvs, id, &why), &why);
    if (rc == 0 && l->c->json)
        cli_json(l->c, json_pack("{s:s}", "removed", cli_arg(l->c, 2)));
    return rc;
}

static int set_read_only_run(struct rt_task *t, struct lvol_cli *l)
{
    struct err why = {""};
    uint64_t id;
    int rc = lvol_cli_find_own(t, l, cli_arg(l->c, 2), &id);

    if (rc == 0)
        rc = lvol_cli_fail(l, lvol_set_read_only(t, &l->lvs, id, &why), &why);
    return rc < 0 ? rc : lvol_cli_show(t, l, id);
}

static int grow_run(struct rt_task *t, struct lvol_cli *l)
{
    struct blob_store_info before, after;
    char size[CLI_SIZE_TEXT], max[CLI_SIZE_TEXT];
    int rc;

    blob_store_info(l->lvs.bs, &before);
    rc = blob_store_grow(t, l->lvs.bs);
    if (rc == -ENOSPC)
        return cli_fail(l->c, rc, "%s cannot grow beyond %s: its masks have no room for more",
                        l->lvs.name, cli_size_text(before.max_size_bytes, max));
    if (rc < 0)
        return cli_fail(l->c, rc, "%s cannot grow: %s", l->lvs.name, err_str(rc));
    blob_store_info(l->lvs.bs, &after);
    if (l->c->json)
        cli_json(l->c, json_pack("{s:s, s:I, s:I}", "store", l->lvs.name, "size_bytes",
                                 (json_int_t)after.size_bytes, "grown_bytes",
                                 (json_int_t)(after.size_bytes - before.size_bytes)));
    else
        cli_print(l->c, "%s has %s\n", l->lvs.name, cli_size_text(after.size_bytes, size));
    return 0;
}

/* --- init ------------------------------------------------------------------------------------- */

/* Nothing that is worth something may be there, unless --force says so. */
static int check_empty(struct rt_task *t, struct lvol_cli *l, struct blk_dev *dev)
{
    int rc;

    if (opt_flag(&l->c->opts, "force"))
        return 0;
    rc = lvs_probe_empty(t, dev);
    if (rc < 0)
        return cli_fail(l->c, rc, "%s cannot be read: %s", l->device, err_str(rc));
    if (rc == 0)
        return cli_fail(l->c, -EEXIST,
                        "%s is not empty; --force makes a store of it, and all that is on it is "
                        "lost",
                        l->device);
    return 0;
}

static int init_dev(struct rt_task *t, struct lvol_cli *l, struct blk_dev *dev)
{
    uint64_t cluster_bytes = opt_u64(&l->c->opts, "cluster-size");
    struct lvs_format_opts opts = {.name = opt_str(&l->c->opts, "name")};
    struct err why = {""};
    int rc;

    if (cluster_bytes > UINT32_MAX)
        return cli_usage(l->c, "--cluster-size has to be less than 4G");
    opts.blob.cluster_bytes = (uint32_t)cluster_bytes;
    rc = check_empty(t, l, dev);
    if (rc < 0)
        return rc;
    return lvol_cli_fail(l, lvs_format(t, dev, &opts, &why), &why);
}

static int init_run(struct rt_task *t, struct lvol_cli *l)
{
    struct err why = {""};
    struct blk_dev *dev;
    int rc = blk_open(t, l->uri, &dev, &why);

    if (rc < 0)
        return device_fail(l, rc, &why);
    rc = init_dev(t, l, dev);
    if (rc == 0)
        rc = lvol_cli_fail(l, lvs_open(t, l->uri, 0, NULL, &l->lvs, &why), &why);
    if (rc == 0) {
        rc = lvol_cli_ls(t, l);
        lvs_close(t, &l->lvs);
    }
    rt_task_shield(t, true);
    blk_close(t, dev);
    rt_task_shield(t, false);
    return rc;
}

/* --- the verb --------------------------------------------------------------------------------- */

static const struct command commands[] = {
    {"init", "", " name cluster-size size force ", 1, false, init_run},
    {"ls", "", " ", 1, true, lvol_cli_ls},
    {"create", " NAME SIZE", " thin thick ", 3, false, create_run},
    {"resize", " NAME SIZE", " force ", 3, false, resize_run},
    {"rename", " NAME NEW-NAME", " force ", 3, false, rename_run},
    {"snapshot", " NAME NEW-NAME", " force ", 3, false, lvol_cli_snapshot},
    {"clone", " SNAPSHOT NEW-NAME", " external ", 3, false, lvol_cli_clone},
    {"inflate", " NAME", " external ", 2, false, lvol_cli_inflate},
    {"decouple", " NAME", " external ", 2, false, lvol_cli_decouple},
    {"shallow-copy", " NAME URI", " ", 3, false, lvol_cli_shallow_copy},
    {"set-read-only", " NAME", " force ", 2, false, set_read_only_run},
    {"rm", " NAME", " force ", 2, false, rm_run},
    {"grow", "", " ", 1, false, grow_run},
    {.name = NULL},
};

static const struct opt lvol_opts[] = {
    {"thin", 0, OPT_FLAG, false, NULL, NULL,
     "create: space is taken when it is written; this is the default"},
    {"thick", 0, OPT_FLAG, false, NULL, NULL, "create: all space is taken at once"},
    {"name", 0, OPT_STR, false, "NAME", "lvs", "init: of the store"},
    {"cluster-size", 0, OPT_SIZE, false, "SIZE", NULL,
     "init: unit of allocation; 64K to 4M by the size of the device without it"},
    {"size", 0, OPT_SIZE, false, "SIZE", NULL, "init: makes the file when it is not there"},
    {"block-size", 0, OPT_SIZE, false, "SIZE", NULL,
     "of a file: 512 or 4096; what the store was made with, if not given"},
    {"external", 0, OPT_STR, false, "URI", NULL,
     "clone: of any block device; inflate, decouple: where the external snapshot of the volume is"},
    {"force", 0, OPT_FLAG, false, NULL, NULL,
     "init: over what is there; resize: also to a smaller size; on volumes of key-value stores"},
    {NULL},
};

static const struct command *command_find(const char *name)
{
    for (const struct command *cmd = commands; cmd->name != NULL; cmd++) {
        if (strcmp(cmd->name, name) == 0)
            return cmd;
    }
    return NULL;
}

static int options_check(struct cli *c, const struct command *cmd)
{
    char word[32];

    for (const struct opt *o = lvol_opts; o->name != NULL; o++) {
        snprintf(word, sizeof(word), " %s ", o->name);
        if (opt_given(&c->opts, o->name) && strcmp(o->name, "block-size") != 0 &&
            strstr(cmd->options, word) == NULL)
            return cli_usage(c, "--%s is not for `lvol %s`", o->name, cmd->name);
    }
    if (opt_flag(&c->opts, "thin") && opt_flag(&c->opts, "thick"))
        return cli_usage(c, "--thin and --thick contradict each other");
    return 0;
}

static int lvol_prepare(struct cli *c, struct rt_config *cfg)
{
    const struct command *cmd = command_find(cli_arg(c, 0));
    char known[256] = "";
    size_t len = 0;

    if (cmd == NULL) {
        for (cmd = commands; cmd->name != NULL; cmd++)
            len += (size_t)snprintf(known + len, sizeof(known) - len, " %s", cmd->name);
        return cli_usage(c, "there is no `lvol %s`; there are%s", cli_arg(c, 0), known);
    }
    if (cmd->run == lvol_cli_clone && opt_given(&c->opts, "external") && c->opts.nargs != 3)
        return cli_usage(c, "`lvol clone --external URI` takes: DEVICE NEW-NAME");
    if (c->opts.nargs != cmd->nargs + 1 && !opt_given(&c->opts, "external"))
        return cli_usage(c, "`lvol %s` takes: DEVICE%s", cmd->name, cmd->args);
    return options_check(c, cmd);
}

/* A device is a URI of a block device, or the path of a file or disk. */
static int device_uri(struct rt_task *t, struct lvol_cli *l, bool reads)
{
    struct opts *o = &l->c->opts;
    struct lvol_file_opts file = {
        .path = l->device,
        .block_bytes = opt_u64(o, "block-size"),
        .size_bytes = opt_u64(o, "size"),
        .readonly = reads,
    };

    if (strncmp(l->device, "lvol:", 5) == 0)
        return cli_usage(l->c, "DEVICE is what holds the store, without lvol: and #NAME");
    l->by_path = (dev_kinds(l->device) & DEV_BLK) == 0;
    if (l->by_path && file.block_bytes == 0)
        file.block_bytes = lvol_file_block_bytes(t, l->device);
    if (l->by_path)
        return lvol_file_uri(&file, l->uri, sizeof(l->uri)) < 0
                   ? cli_usage(l->c, "the path of the device is too long")
                   : 0;
    if (file.block_bytes != 0 || file.size_bytes != 0)
        return cli_usage(l->c, "--block-size and --size are for paths; write them into the URI");
    if (strlen(l->device) >= sizeof(l->uri))
        return cli_usage(l->c, "a URI has at most %d bytes", URI_MAX - 1);
    memcpy(l->uri, l->device, strlen(l->device) + 1);
    return 0;
}

static int lvol_run(struct rt_task *t, struct cli *c)
{
    const struct command *cmd = command_find(cli_arg(c, 0));
    struct lvol_cli *l = &lvol;
    struct err why = {""};
    int rc;

    l->c = c;
    l->device = cli_arg(c, 1);
    rc = device_uri(t, l, cmd->reads);
    if (rc < 0)
        return rc;
    if (cmd->run == init_run)
        return init_run(t, l);
    rc = lvs_open(t, l->uri, cmd->reads ? LVS_OPEN_READ_ONLY : 0, NULL, &l->lvs, &why);
    if (rc < 0)
        return device_fail(l, rc, &why);
    rc = cmd->run(t, l);
    rt_task_shield(t, true);
    lvs_close(t, &l->lvs);
    rt_task_shield(t, false);
    return rc;
}

const struct cli_verb verb_lvol = {
    .name = "lvol",
    .args = "COMMAND DEVICE [ARGUMENT...]",
    .commands = "init|ls|create|resize|rename|snapshot|clone|inflate|decouple|shallow-copy|"
                "set-read-only|rm|grow",
    .summary = "make and manage logical volumes",
    .about =
        "Logical volumes are named block devices that share one device, thin or thick, with "
        "snapshots and clones. They are in SPDK's format (lvolstore, blobstore), so SPDK opens "
        "them "
        "too. DEVICE is the path of a file or disk, or the URI of any block device. The other "
        "verbs "
        "reach a volume as lvol:PATH#NAME.\n\n"
        "init DEVICE makes an empty store of a device that is empty.\n\n"
        "ls DEVICE lists the store and its volumes.\n\n"
        "create DEVICE NAME SIZE makes a volume; sizes are rounded up to clusters.\n\n"
        "resize DEVICE NAME SIZE makes it larger, or smaller with --force.\n\n"
        "rename DEVICE NAME NEW-NAME renames it.\n\n"
        "snapshot DEVICE NAME NEW-NAME keeps what the volume holds now under a new name, for "
        "reading "
        "only; the volume becomes a clone of it.\n\n"
        "clone DEVICE SNAPSHOT NEW-NAME makes a volume that begins as the snapshot is.\n\n"
        "clone --external URI DEVICE NEW-NAME makes one that begins as another block device is (a "
        "file, a volume of another store), which is only read and shall not change any more. The "
        "store keeps that device's UUID, not where it is: who opens the volume says that, as "
        "lvol:PATH?external=URI#NAME. It prints this URI.\n\n"
        "inflate DEVICE NAME copies all that the volume reads from elsewhere, so that it stands on "
        "its own and is thick.\n\n"
        "decouple DEVICE NAME copies what it reads from its snapshot, and leaves it thin. Both "
        "need "
        "--external URI for a volume that stands on an external snapshot.\n\n"
        "shallow-copy DEVICE NAME URI copies the clusters that are the volume's own, not those of "
        "its snapshot, to the same place of another block device.\n\n"
        "set-read-only DEVICE NAME lets nobody write it any more.\n\n"
        "rm DEVICE NAME removes a volume. A snapshot with one clone is merged into that; with "
        "more, "
        "it stays.\n\n"
        "grow DEVICE takes in what a device has become larger by.",
    .examples = "kvasir lvol init --size 10G disk.img\n"
                "kvasir lvol create disk.img root 4G\n"
                "kvasir write lvol:disk.img#root image.iso\n"
                "kvasir lvol snapshot disk.img root before-upgrade\n"
                "kvasir lvol clone --external golden.img disk.img vm1\n"
                "kvasir serve --block root=lvol:disk.img#root",
    .opts = lvol_opts,
    .args_min = 2,
    .args_max = 4,
    .drivers = CLI_BLK,
    .prepare = lvol_prepare,
    .run = lvol_run,
};
