/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir identify: what an NVMe controller and its namespaces say of themselves. */
#include "cli/nvme_uri.h"

#include <string.h>

#define NSIDS_MAX 1024

static void add_text(json_t *obj, const char *name, const char *text, size_t max)
{
    size_t len = strnlen(text, max);

    while (len > 0 && text[len - 1] == ' ')
        len--;
    json_object_set_new(obj, name, json_stringn(text, len));
}

static void add_uuid(json_t *obj, const uint8_t *u)
{
    char hex[33];

    bytes_to_hex(bytes_make(u, 16), hex);
    for (char *p = hex; *p != '\0'; p++)
        *p = (char)(*p >= 'A' ? *p + 'a' - 'A' : *p);
    json_object_set_new(
        obj, "uuid",
        json_sprintf("%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20));
}

/* As JSON, or as lines "name: value" under a heading. */
static void print_object(struct cli *c, const char *heading, json_t *obj)
{
    const char *name;
    json_t *v;

    if (c->json) {
        cli_json(c, json_pack("{s:o}", heading, obj));
        return;
    }
    cli_print(c, "%s\n", heading);
    json_object_foreach(obj, name, v)
    {
        char size[CLI_SIZE_TEXT];

        cli_print(c, "  %-22s", name);
        if (json_is_string(v))
            cli_print(c, "%s", json_string_value(v));
        else if (json_is_boolean(v))
            cli_print(c, "%s", json_is_true(v) ? "yes" : "no");
        else
            cli_print(c, "%lld", (long long)json_integer_value(v));
        if (json_is_integer(v) && strstr(name, "_bytes") != NULL && json_integer_value(v) >= 1024)
            cli_print(c, " (%s)", cli_size_text((uint64_t)json_integer_value(v), size));
        cli_print(c, "\n");
    }
    json_decref(obj);
}

static void print_ctrl(struct cli *c, struct nvme_ctrl *ctrl)
{
    const struct nvme_id_ctrl *id = nvme_ctrl_id(ctrl);
    uint32_t vs = nvme_ctrl_vs(ctrl), max = nvme_ctrl_transfer_max(ctrl);
    json_t *obj = json_object();

    add_text(obj, "subnqn", id->subnqn, sizeof(id->subnqn));
    add_text(obj, "model", id->mn, sizeof(id->mn));
    add_text(obj, "serial", id->sn, sizeof(id->sn));
    add_text(obj, "firmware", id->fr, sizeof(id->fr));
    json_object_set_new(obj, "version",
                        json_sprintf("%u.%u.%u", vs >> 16, vs >> 8 & 0xff, vs & 0xff));
    json_object_set_new(obj, "controller", json_integer(le16_get(id->cntlid)));
    json_object_set_new(obj, "io_queues", json_integer(nvme_ctrl_queues(ctrl)));
    json_object_set_new(obj, "namespaces_max", json_integer(le32_get(id->nn)));
    if (max != UINT32_MAX)
        json_object_set_new(obj, "transfer_max_bytes", json_integer(max));
    json_object_set_new(obj, "write_cache", json_boolean(id->vwc & 1));
    print_object(c, "controller", obj);
}

static void print_ns(struct cli *c, const struct nvme_ns *ns)
{
    json_t *obj = json_object();

    json_object_set_new(obj, "nsid", json_integer(ns->nsid));
    json_object_set_new(obj, "kind",
                        json_string(ns->csi == NVME_CSI_KV    ? "key-value"
                                    : ns->csi == NVME_CSI_NVM ? "block"
                                                              : "other"));
    add_uuid(obj, ns->uuid);
    if (ns->csi == NVME_CSI_KV) {
        json_object_set_new(obj, "size_bytes", json_integer((json_int_t)ns->size_bytes));
        json_object_set_new(obj, "key_max_bytes", json_integer(ns->key_max));
        json_object_set_new(obj, "value_max_bytes", json_integer(ns->val_max));
        if (ns->nkeys_max > 0)
            json_object_set_new(obj, "keys_max", json_integer(ns->nkeys_max));
    } else {
        json_object_set_new(obj, "size_bytes",
                            json_integer((json_int_t)(ns->nblocks * ns->block_bytes)));
        json_object_set_new(obj, "block_bytes", json_integer(ns->block_bytes));
    }
    json_object_set_new(obj, "used_bytes", json_integer((json_int_t)ns->used_bytes));
    json_object_set_new(obj, "shared", json_boolean(ns->shared));
    json_object_set_new(obj, "write_protected", json_boolean(ns->write_protected));
    print_object(c, "namespace", obj);
}

static int print_namespaces(struct rt_task *t, struct cli *c, struct nvme_ctrl *ctrl, uint32_t only)
{
    CLEANUP(free_p) uint32_t *nsids = calloc(NSIDS_MAX, sizeof(*nsids));
    CLEANUP(free_p) struct nvme_ns *ns = calloc(1, sizeof(*ns));
    uint32_t after = 0;
    struct err why = {""};
    int n, rc = 0;

    if (nsids == NULL || ns == NULL)
        return -ENOMEM;
    do {
        n = nvme_ns_ids(t, ctrl, after, nsids, NSIDS_MAX);
        if (n < 0)
            return cli_fail(c, n, "cannot list the namespaces: %s", err_str(n));
        for (int i = 0; i < n; i++) {
            after = nsids[i];
            if (only != 0 && nsids[i] != only)
                continue;
            why.text[0] = '\0';
            rc = nvme_ns_read(t, ctrl, nsids[i], ns, &why);
            if (rc < 0)
                return cli_fail(c, rc, "namespace %u: %s", nsids[i],
                                why.text[0] != '\0' ? why.text : err_str(rc));
            print_ns(c, ns);
            if (only != 0)
                return 0;
        }
    } while (n == NSIDS_MAX);
    return only != 0 ? cli_fail(c, -ENOENT, "there is no namespace %u", only) : 0;
}

static int identify_run(struct rt_task *t, struct cli *c)
{
    CLEANUP(free_p) struct nvme_ctrl_opts *o = calloc(1, sizeof(*o));
    struct nvme_where where;
    struct nvme_ctrl *ctrl;
    struct err why = {""};
    int rc;

    if (o == NULL)
        return -ENOMEM;
    if (nvme_where_parse(cli_arg(c, 0), &where, &why) < 0)
        return cli_usage(c, "%s", why.text);
    if (where.subnqn[0] == '\0')
        return cli_usage(c, "which subsystem? nvme+tcp://%s/NQN (`kvasir discover %s` lists them)",
                         where.addr, where.addr);
    snprintf(o->addr, sizeof(o->addr), "%s", where.addr);
    snprintf(o->subnqn, sizeof(o->subnqn), "%s", where.subnqn);
    snprintf(o->hostnqn, sizeof(o->hostnqn), "%s", opt_str(&c->opts, "host"));
    rc = nvme_ctrl_open(t, o, &ctrl, &why);
    if (rc < 0)
        return cli_fail(c, rc, "cannot connect to %s at %s: %s", where.subnqn, where.addr,
                        why.text[0] != '\0' ? why.text : err_str(rc));
    print_ctrl(c, ctrl);
    rc = print_namespaces(t, c, ctrl, where.nsid);
    rt_task_shield(t, true);
    nvme_ctrl_close(t, ctrl);
    rt_task_shield(t, false);
    return rc;
}

static const struct opt identify_opts[] = {
    {"host", 0, OPT_STR, false, "NQN", "",
     "name to connect under; this machine's (/etc/nvme/hostnqn) without it"},
    {NULL},
};

const struct cli_verb verb_identify = {
    .name = "identify",
    .args = "nvme+tcp://HOST:PORT/NQN[?nsid=N]",
    .summary = "tell what an NVMe controller and its namespaces are",
    .about =
        "Connects to a subsystem and prints what its controller and its namespaces (or the one "
        "of ?nsid=N) say of themselves. `kvasir stat` tells about devices of any kind.",
    .examples = "kvasir identify nvme+tcp://127.0.0.1:4420/nqn.2026-11.io.kvasir:default",
    .opts = identify_opts,
    .args_min = 1,
    .args_max = 1,
    .run = identify_run,
};
