/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir discover: what an NVMe/TCP discovery service offers us. */
#include "cli/nvme_uri.h"

#include <string.h>

static const char *subtype_name(uint8_t subtype)
{
    switch (subtype) {
    case NVME_SUBTYPE_REFERRAL:
        return "referral";
    case NVME_SUBTYPE_NVM:
        return "nvme";
    case NVME_SUBTYPE_CURRENT_DISCOVERY:
        return "discovery";
    default:
        return "unknown";
    }
}

static const char *trtype_name(uint8_t trtype)
{
    switch (trtype) {
    case NVME_TRTYPE_RDMA:
        return "rdma";
    case NVME_TRTYPE_FC:
        return "fc";
    case NVME_TRTYPE_TCP:
        return "tcp";
    default:
        return "other";
    }
}

static void uri_of(const struct nvme_discovery_info *e, char *out, size_t max)
{
    bool v6 = strchr(e->traddr, ':') != NULL;

    snprintf(out, max, "nvme+tcp://%s%s%s:%s/%s", v6 ? "[" : "", e->traddr, v6 ? "]" : "",
             e->trsvcid, e->subnqn);
}

static void print_entry(struct cli *c, const struct nvme_discovery_info *e)
{
    char uri[700] = "";
    json_t *obj;

    if (e->trtype == NVME_TRTYPE_TCP)
        uri_of(e, uri, sizeof(uri));
    if (!c->json) {
        cli_print(c, "%-10s%s%s%s\n", subtype_name(e->subtype), uri[0] != '\0' ? uri : e->subnqn,
                  uri[0] != '\0' ? "" : " over ", uri[0] != '\0' ? "" : trtype_name(e->trtype));
        return;
    }
    obj = json_pack("{s:s, s:s, s:i}", "subtype", subtype_name(e->subtype), "trtype",
                    trtype_name(e->trtype), "portid", (int)e->portid);
    json_object_set_new(obj, "traddr", json_string(e->traddr));
    json_object_set_new(obj, "trsvcid", json_string(e->trsvcid));
    json_object_set_new(obj, "subnqn", json_string(e->subnqn));
    if (uri[0] != '\0')
        json_object_set_new(obj, "uri", json_string(uri));
    cli_json(c, obj);
}

static int discover_run(struct rt_task *t, struct cli *c)
{
    CLEANUP(free_p) struct nvme_discovery *log = NULL;
    struct err why = {""};
    struct nvme_where where;
    int rc;

    if (nvme_where_parse(cli_arg(c, 0), &where, &why) < 0)
        return cli_usage(c, "%s", why.text);
    rc = nvme_discover(t, where.addr, opt_str(&c->opts, "host"), &log, &why);
    if (rc < 0)
        return cli_fail(c, rc, "cannot ask the discovery service at %s: %s", where.addr,
                        why.text[0] != '\0' ? why.text : err_str(rc));
    for (unsigned i = 0; i < log->count; i++)
        print_entry(c, &log->entry[i]);
    if (log->count == 0)
        cli_note(c, "%s offers nothing to this host", where.addr);
    return 0;
}

static const struct opt discover_opts[] = {
    {"host", 0, OPT_STR, false, "NQN", "",
     "name to ask under; this machine's (/etc/nvme/hostnqn) without it"},
    {NULL},
};

const struct cli_verb verb_discover = {
    .name = "discover",
    .args = "HOST[:PORT]",
    .summary = "list the subsystems that an NVMe/TCP server offers",
    .about =
        "Asks the discovery service at HOST:PORT (4420 without a port) and prints one subsystem "
        "a line, with the URI that opens it. `kvasir identify URI` lists the namespaces of "
        "one.",
    .examples = "kvasir discover 127.0.0.1:4420",
    .opts = discover_opts,
    .args_min = 1,
    .args_max = 1,
    .run = discover_run,
};
