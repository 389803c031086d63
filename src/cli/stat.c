/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir stat: what a value or a device is. */
#include "cli/dev.h"
#include "cli/key.h"

#include <string.h>

static struct cli_key stat_key;

struct cap_name {
    uint32_t bit;
    const char *name;
};

static const struct cap_name kv_caps[] = {
    {KV_CAP_RANGE, "range"},
    {KV_CAP_VERSION, "version"},
    {KV_CAP_APPEND, "append"},
    {KV_CAP_UNKNOWN_LEN, "unknown-length"},
    {KV_CAP_ORDERED_LIST, "ordered-list"},
    {KV_CAP_BATCH, "batch"},
    {KV_CAP_SNAPSHOT, "snapshot"},
    {KV_CAP_READ_ONLY, "read-only"},
    {KV_CAP_VOLATILE_CACHE, "volatile-cache"},
    {0},
};

static const struct cap_name blk_caps[] = {
    {BLK_CAP_READ_ONLY, "read-only"},
    {BLK_CAP_FUA, "fua"},
    {BLK_CAP_WRITE_ZEROES, "write-zeroes"},
    {BLK_CAP_UNMAP, "unmap"},
    {BLK_CAP_UNMAP_ZEROES, "unmap-zeroes"},
    {BLK_CAP_COMPARE, "compare"},
    {BLK_CAP_COMPARE_AND_WRITE, "compare-and-write"},
    {BLK_CAP_VOLATILE_CACHE, "volatile-cache"},
    {0},
};

static json_t *cap_list(const struct cap_name *names, uint32_t caps)
{
    json_t *list = json_array();

    for (; names->name != NULL; names++) {
        if (caps & names->bit)
            json_array_append_new(list, json_string(names->name));
    }
    return list;
}

static json_t *uuid_json(const uint8_t *u)
{
    return json_sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                        u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
                        u[12], u[13], u[14], u[15]);
}

static void add_u64(json_t *obj, const char *name, uint64_t v)
{
    json_object_set_new(obj, name, json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX)));
}

/* Prints an object as "name: value" lines for people; sizes in bytes get a readable form. */
static void print_object(struct cli *c, json_t *obj)
{
    const char *name;
    json_t *v;

    if (c->json) {
        cli_json(c, obj);
        return;
    }
    json_object_foreach(obj, name, v)
    {
        size_t len = strlen(name);
        char size[CLI_SIZE_TEXT];
        size_t i;
        json_t *word;

        cli_print(c, "%-22s", name);
        if (json_is_string(v))
            cli_print(c, "%s", json_string_value(v));
        else if (json_is_integer(v))
            cli_print(c, "%lld", (long long)json_integer_value(v));
        json_array_foreach(v, i, word)
            cli_print(c, "%s%s", i > 0 ? " " : "", json_string_value(word));
        if (json_is_integer(v) && len >= 5 && strcmp(name + len - 5, "bytes") == 0 &&
            json_integer_value(v) >= 1024)
            cli_print(c, " (%s)", cli_size_text((uint64_t)json_integer_value(v), size));
        cli_print(c, "\n");
    }
    json_decref(obj);
}

static int stat_value(struct rt_task *t, struct cli *c, const struct dev *d)
{
    struct bytes key;
    struct err why = {""};
    uint64_t len = 0, version = 0;
    json_t *obj;
    int rc;

    if (d->kind != DEV_KV)
        return cli_usage(c, "'%s' is a block device: it has no keys", d->uri);
    rc = cli_key_parse(cli_arg(c, 1), false, &stat_key, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    key = cli_key_bytes(&stat_key);
    rc = kv_stat(t, d->kv_chan, key, &len, &version);
    if (rc < 0)
        return dev_kv_fail(c, d, "look at", key, rc, NULL);
    obj = json_object();
    cli_key_json(obj, key);
    add_u64(obj, "key_length", key.len);
    add_u64(obj, "bytes", len);
    if (kv_info(d->kv)->caps & KV_CAP_VERSION)
        json_object_set_new(obj, "version", json_sprintf("%lu", version));
    print_object(c, obj);
    return 0;
}

static int stat_kv(struct rt_task *t, struct cli *c, const struct dev *d)
{
    const struct kv_info *info = kv_info(d->kv);
    uint64_t used = 0, keys = 0;
    json_t *obj = json_object();
    int rc = kv_usage(t, d->kv, &used, &keys);

    json_object_set_new(obj, "uri", json_string(d->uri));
    json_object_set_new(obj, "kind", json_string("key-value"));
    json_object_set_new(obj, "driver", json_string(kv_driver_of(d->kv)->name));
    json_object_set_new(obj, "uuid", uuid_json(info->uuid));
    add_u64(obj, "key_max_bytes", info->key_max);
    add_u64(obj, "value_max_bytes", info->val_max);
    if (info->size_bytes > 0)
        add_u64(obj, "size_bytes", info->size_bytes);
    if (rc == 0 && (used > 0 || keys > 0)) {
        add_u64(obj, "used_bytes", used);
        add_u64(obj, "keys", keys);
    }
    json_object_set_new(obj, "capabilities", cap_list(kv_caps, info->caps));
    print_object(c, obj);
    return 0;
}

static int stat_blk(struct rt_task *t, struct cli *c, const struct dev *d)
{
    const struct blk_info *info = blk_info(d->blk);
    json_t *obj = json_object();

    json_object_set_new(obj, "uri", json_string(d->uri));
    json_object_set_new(obj, "kind", json_string("block"));
    json_object_set_new(obj, "driver", json_string(blk_driver_of(d->blk)->name));
    json_object_set_new(obj, "uuid", uuid_json(info->uuid));
    add_u64(obj, "size_bytes", dev_blk_bytes(d));
    add_u64(obj, "blocks", info->nblocks);
    add_u64(obj, "block_bytes", info->block_bytes);
    if (info->phys_block_bytes > 0)
        add_u64(obj, "physical_block_bytes", info->phys_block_bytes);
    json_object_set_new(obj, "capabilities", cap_list(blk_caps, info->caps));
    print_object(c, obj);
    return 0;
}

static int stat_run(struct rt_task *t, struct cli *c)
{
    static const unsigned kinds[] = {DEV_ANY, DEV_KV, DEV_BLK};
    struct dev d;
    int rc;

    rc = dev_open(t, c, cli_arg(c, 0), kinds[opt_choice(&c->opts, "kind")], false, &d);
    if (rc < 0)
        return rc;
    if (cli_arg(c, 1) != NULL)
        rc = stat_value(t, c, &d);
    else
        rc = d.kind == DEV_KV ? stat_kv(t, c, &d) : stat_blk(t, c, &d);
    dev_close(t, &d);
    return rc;
}

static const struct opt stat_opts[] = {
    {"kind", 0, OPT_CHOICE, false, "any|kv|block", "any",
     "what the URI is, where it could be both"},
    {NULL},
};

const struct cli_verb verb_stat = {
    .name = "stat",
    .args = "URI [KEY]",
    .summary = "tell what a value or a device is",
    .about = "With KEY: the length of its value, and its version where the device has versions. "
             "Without: the device's kind, size, limits and capabilities.",
    .examples = "kvasir stat dir:/srv/objects report.pdf\n"
                "kvasir stat --json file:/srv/disk.img",
    .opts = stat_opts,
    .args_min = 1,
    .args_max = 2,
    .drivers = CLI_KV | CLI_BLK,
    .run = stat_run,
};
