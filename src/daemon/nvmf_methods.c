/* SPDX-License-Identifier: Apache-2.0 */
/* Methods of the NVMe/TCP target. */
#include "daemon/method.h"

#include "base/log.h"

#include <string.h>

int daemon_target(struct daemon *d, const struct nvmf_config *cfg, struct err *why)
{
    struct nvmf_config with = {0};

    if (d->target != NULL)
        return 0;
    if (cfg != NULL)
        with = *cfg;
    if (with.results.dir == NULL)
        with.results.dir = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/var/tmp";
    return nvmf_target_new(&with, &d->target, why);
}

static int need_tcp(const char *trtype, struct err *why)
{
    return strcasecmp(trtype, "TCP") == 0
               ? 0
               : err_set(why, -EINVAL, "Invalid transport type '%.40s'", trtype);
}

static const struct method_param create_transport_params[] = {
    {"trtype", METHOD_STR, true, "TCP", NULL},
    {"max_queue_depth", METHOD_U64, false, "entries of a queue at most", NULL},
    {"max_io_qpairs_per_ctrlr", METHOD_U64, false, "I/O queues of a controller at most", NULL},
    {"in_capsule_data_size", METHOD_U64, false, "bytes that a command capsule may carry", NULL},
    {"c2h_success", METHOD_BOOL, false, "end reads without a response capsule", NULL},
    {"max_io_size", METHOD_U64, false, NULL, NULL},
    {"max_aq_depth", METHOD_U64, false, NULL, NULL},
    {"io_unit_size", METHOD_U64, false, NULL, NULL},
    {"num_shared_buffers", METHOD_U64, false, NULL, NULL},
    {"buf_cache_size", METHOD_U64, false, NULL, NULL},
    {"iobuf_small_cache_size", METHOD_U64, false, NULL, NULL},
    {"iobuf_large_cache_size", METHOD_U64, false, NULL, NULL},
    {"zcopy", METHOD_BOOL, false, NULL, NULL},
    {"dif_insert_or_strip", METHOD_BOOL, false, NULL, NULL},
    {"sock_priority", METHOD_U64, false, NULL, NULL},
    {"acceptor_backlog", METHOD_U64, false, NULL, NULL},
    {"acceptor_poll_rate", METHOD_U64, false, NULL, NULL},
    {"abort_timeout_sec", METHOD_U64, false, NULL, NULL},
    {"control_msg_num", METHOD_U64, false, NULL, NULL},
    {"ack_timeout", METHOD_U64, false, NULL, NULL},
    {"data_wr_pool_size", METHOD_U64, false, NULL, NULL},
    {"disable_command_passthru", METHOD_BOOL, false, NULL, NULL},
    {"kas", METHOD_U64, false, NULL, NULL},
    {"min_kato", METHOD_U64, false, "shortest keep-alive time-out in ms", NULL},
    {"select_timeout_ms", METHOD_U64, false,
     "longest time of a query whose host does not say how long it waits; 25000", NULL},
    {"select_results_dir", METHOD_STR, false,
     "directory for large answers until they are fetched; $TMPDIR or /var/tmp", NULL},
    {"select_results_bytes", METHOD_U64, false,
     "bytes of answers held for one host at most; 1073741824", NULL},
    {NULL},
};

static int create_transport(struct rt_task *t, struct daemon *d, const json_t *params,
                            json_t **out_result, struct err *why)
{
    struct nvmf_config cfg = {
        .queue_entries_max = (uint16_t)MIN(method_u64(params, "max_queue_depth", 0), 65535u),
        .io_queues_max = (uint16_t)MIN(method_u64(params, "max_io_qpairs_per_ctrlr", 0), 65535u),
        .in_capsule_bytes =
            (uint32_t)MIN(method_u64(params, "in_capsule_data_size", 0), (uint64_t)UINT32_MAX),
        .kato_min_ms = (uint32_t)MIN(method_u64(params, "min_kato", 0), (uint64_t)UINT32_MAX),
        .select_timeout_ms =
            (uint32_t)MIN(method_u64(params, "select_timeout_ms", 0), (uint64_t)UINT32_MAX),
        .results.dir = method_str(params, "select_results_dir"),
        .results.owner_bytes_max = method_u64(params, "select_results_bytes", 0),
        .success_flag = method_bool(params, "c2h_success", false),
    };
    int rc = need_tcp(method_str(params, "trtype"), why);

    if (rc < 0)
        return rc;
    if (d->target != NULL)
        return err_set(why, -EEXIST, "Transport type 'TCP' already exists");
    rc = daemon_target(d, &cfg, why);
    *out_result = json_true();
    return rc;
}

static const struct method_param create_subsystem_params[] = {
    {"nqn", METHOD_STR, true, "NVMe qualified name of the subsystem", NULL},
    {"serial_number", METHOD_STR, false, "up to 20 characters", NULL},
    {"model_number", METHOD_STR, false, "up to 40 characters", NULL},
    {"allow_any_host", METHOD_BOOL, false, "hosts that are not listed may connect", NULL},
    {"max_namespaces", METHOD_U64, false, NULL, NULL},
    {"admin_label", METHOD_STR, false, NULL, NULL},
    {"ana_reporting", METHOD_BOOL, false, NULL, NULL},
    {"min_cntlid", METHOD_U64, false, NULL, NULL},
    {"max_cntlid", METHOD_U64, false, NULL, NULL},
    {"max_discard_size_kib", METHOD_U64, false, NULL, NULL},
    {"max_write_zeroes_size_kib", METHOD_U64, false, NULL, NULL},
    {"dmrsl", METHOD_U64, false, NULL, NULL},
    {"wzsl", METHOD_U64, false, NULL, NULL},
    {"passthrough", METHOD_BOOL, false, NULL, NULL},
    {"enable_nssr", METHOD_BOOL, false, NULL, NULL},
    {"tgt_name", METHOD_STR, false, NULL, NULL},
    {NULL},
};

static int create_subsystem(struct rt_task *t, struct daemon *d, const json_t *params,
                            json_t **out_result, struct err *why)
{
    struct nvmf_subsys_config cfg = {
        .nqn = method_str(params, "nqn"),
        .serial = method_str(params, "serial_number"),
        .model = method_str(params, "model_number"),
        .allow_any_host = method_bool(params, "allow_any_host", false),
    };
    int rc = daemon_target(d, NULL, why);

    if (rc == 0)
        rc = nvmf_subsys_add(t, d->target, &cfg, why);
    *out_result = json_true();
    return rc;
}

static const struct method_param add_host_params[] = {
    {"nqn", METHOD_STR, true, "subsystem", NULL},
    {"host", METHOD_STR, true, "NQN of the host that may connect", NULL},
    {"tgt_name", METHOD_STR, false, NULL, NULL},
    {NULL},
};

static int add_host(struct rt_task *t, struct daemon *d, const json_t *params, json_t **out_result,
                    struct err *why)
{
    int rc = daemon_target(d, NULL, why);

    if (rc == 0)
        rc =
            nvmf_host_add(t, d->target, method_str(params, "nqn"), method_str(params, "host"), why);
    *out_result = json_true();
    return rc;
}

static const struct method_param allow_any_host_params[] = {
    {"nqn", METHOD_STR, true, "subsystem", NULL},
    {"allow_any_host", METHOD_BOOL, true, "whether hosts that are not listed may connect", NULL},
    {"tgt_name", METHOD_STR, false, NULL, NULL},
    {NULL},
};

static int allow_any_host(struct rt_task *t, struct daemon *d, const json_t *params,
                          json_t **out_result, struct err *why)
{
    int rc = daemon_target(d, NULL, why);

    if (rc == 0)
        rc = nvmf_allow_any_host(t, d->target, method_str(params, "nqn"),
                                 method_bool(params, "allow_any_host", false), why);
    *out_result = json_true();
    return rc;
}

/* 32 hexadecimal digits, dashes allowed where a UUID has them. */
static int parse_id(const char *name, const char *text, uint8_t out[16], struct err *why)
{
    char digits[33];
    size_t n = 0;

    for (const char *p = text; *p != '\0' && n < sizeof(digits); p++) {
        if (*p != '-')
            digits[n++] = *p;
    }
    if (n != 32 || bytes_from_hex(digits, 32, out, 16) != 16)
        return err_set(why, -EINVAL, "%s: '%.60s' is not 32 hexadecimal digits", name, text);
    return 0;
}

static int remember_ns(struct daemon *d, const char *nqn, const struct nvmf_ns_config *cfg,
                       struct daemon_dev *dev)
{
    struct daemon_ns *ns = calloc(1, sizeof(*ns));

    if (ns == NULL)
        return -ENOMEM;
    snprintf(ns->nqn, sizeof(ns->nqn), "%s", nqn);
    ns->nsid = cfg->nsid;
    ns->csd = cfg->csd;
    ns->dev = dev;
    list_add_tail(&d->namespaces, &ns->link);
    return 0;
}

static int add_namespace(struct rt_task *t, struct daemon *d, const json_t *params, bool kv,
                         json_t **out_result, struct err *why)
{
    const json_t *obj = json_object_get(params, "namespace");
    const char *nqn = method_str(params, "nqn"), *uuid = method_str(obj, "uuid");
    const char *nguid = method_str(obj, "nguid");
    const char *name = method_str(obj, kv ? "kvdev_name" : "bdev_name");
    struct daemon_dev *dev = daemon_dev_find(d, name);
    struct nvmf_ns_config cfg = {0};
    uint8_t uuid_bytes[16], nguid_bytes[16];
    uint64_t nsid = method_u64(obj, "nsid", 0);
    int rc;

    if (dev == NULL || (kv ? dev->kv == NULL : dev->blk == NULL))
        return err_set(why, -ENODEV, "there is no %s device '%.80s'%s", kv ? "key-value" : "block",
                       name, dev != NULL ? ": that one is of the other kind" : "");
    if (nsid > NVMF_NSID_MAX)
        return err_set(why, -EINVAL, "nsid %lu is above %d", nsid, NVMF_NSID_MAX);
    cfg.nsid = (uint32_t)nsid;
    cfg.kv = dev->kv;
    cfg.blk = dev->blk;
    cfg.csd = kv && method_bool(obj, "csd", false);
    if (uuid != NULL) {
        rc = parse_id("uuid", uuid, uuid_bytes, why);
        if (rc < 0)
            return rc;
        cfg.uuid = uuid_bytes;
    }
    if (nguid != NULL) {
        rc = parse_id("nguid", nguid, nguid_bytes, why);
        if (rc < 0)
            return rc;
        cfg.nguid = nguid_bytes;
    }
    rc = daemon_target(d, NULL, why);
    if (rc == 0 && kv)
        daemon_queries_offer(d);
    if (rc == 0)
        rc = nvmf_ns_add(t, d->target, nqn, &cfg, &cfg.nsid, why);
    if (rc == 0)
        rc = remember_ns(d, nqn, &cfg, dev);
    *out_result = json_integer(cfg.nsid);
    return rc;
}

static const struct method_param bdev_ns_params[] = {
    {"bdev_name", METHOD_STR, true, "block device", NULL},
    {"nsid", METHOD_U64, false, "namespace identifier; the lowest free one without it", NULL},
    {"uuid", METHOD_STR, false, "identifier; without it one that stays the same", NULL},
    {"nguid", METHOD_STR, false, "32 hexadecimal digits", NULL},
    {"eui64", METHOD_STR, false, NULL, NULL},
    {"anagrpid", METHOD_U64, false, NULL, NULL},
    {"no_auto_visible", METHOD_BOOL, false, NULL, NULL},
    {"hide_metadata", METHOD_BOOL, false, NULL, NULL},
    {NULL},
};

static const struct method_param add_ns_params[] = {
    {"nqn", METHOD_STR, true, "subsystem", NULL},
    {"namespace", METHOD_OBJECT, true, "what to add", bdev_ns_params},
    {"tgt_name", METHOD_STR, false, NULL, NULL},
    {NULL},
};

static int add_ns(struct rt_task *t, struct daemon *d, const json_t *params, json_t **out_result,
                  struct err *why)
{
    return add_namespace(t, d, params, false, out_result, why);
}

static const struct method_param kv_ns_params[] = {
    {"kvdev_name", METHOD_STR, true, "key-value device", NULL},
    {"nsid", METHOD_U64, false, "namespace identifier; the lowest free one without it", NULL},
    {"uuid", METHOD_STR, false, "identifier; without it one that stays the same", NULL},
    {"nguid", METHOD_STR, false, "32 hexadecimal digits", NULL},
    {"csd", METHOD_BOOL, false, "in the CSD dialect, as a namespace of the NVM command set", NULL},
    {NULL},
};

static const struct method_param add_kv_ns_params[] = {
    {"nqn", METHOD_STR, true, "subsystem", NULL},
    {"namespace", METHOD_OBJECT, true, "what to add", kv_ns_params},
    {"tgt_name", METHOD_STR, false, NULL, NULL},
    {NULL},
};

static int add_kv_ns(struct rt_task *t, struct daemon *d, const json_t *params, json_t **out_result,
                     struct err *why)
{
    return add_namespace(t, d, params, true, out_result, why);
}

static const struct method_param listen_address_params[] = {
    {"trtype", METHOD_STR, true, "TCP", NULL},
    {"traddr", METHOD_STR, true, "address of this machine, numeric", NULL},
    {"trsvcid", METHOD_STR, false, "port; 4420 without it, 0 picks one", NULL},
    {"adrfam", METHOD_STR, false, "IPv4 or IPv6", NULL},
    {NULL},
};

static const struct method_param add_listener_params[] = {
    {"nqn", METHOD_STR, true, "subsystem; every listener reaches all of them", NULL},
    {"listen_address", METHOD_OBJECT, true, "where to listen", listen_address_params},
    {"secure_channel", METHOD_BOOL, false, NULL, NULL},
    {"ana_state", METHOD_STR, false, NULL, NULL},
    {"sock_impl", METHOD_STR, false, NULL, NULL},
    {"numa_id", METHOD_U64, false, NULL, NULL},
    {"tgt_name", METHOD_STR, false, NULL, NULL},
    {NULL},
};

static struct daemon_listener *listener_find(struct daemon *d, const char *addr)
{
    struct daemon_listener *l;

    list_for_each (l, &d->listeners, struct daemon_listener, link) {
        if (strcmp(l->addr, addr) == 0)
            return l;
    }
    return NULL;
}

static int listener_start(struct rt_task *t, struct daemon *d, const char *text, struct err *why)
{
    struct net_addr addr, actual;
    struct daemon_listener *l;
    int rc;

    rc = net_addr_parse(text, 4420, &addr, why);
    if (rc < 0)
        return rc;
    l = calloc(1, sizeof(*l));
    if (l == NULL)
        return err_set(why, -ENOMEM, "no memory");
    rc = nvmf_listen(t, d->target, &addr, &actual, why);
    if (rc < 0) {
        free(l);
        return rc;
    }
    snprintf(l->addr, sizeof(l->addr), "%s", text);
    net_addr_text(&actual, l->actual);
    list_add_tail(&d->listeners, &l->link);
    return 0;
}

static int add_listener(struct rt_task *t, struct daemon *d, const json_t *params,
                        json_t **out_result, struct err *why)
{
    const json_t *obj = json_object_get(params, "listen_address");
    const char *traddr = method_str(obj, "traddr"), *port = method_str(obj, "trsvcid");
    char text[NET_ADDR_TEXT_MAX];
    int rc = need_tcp(method_str(obj, "trtype"), why);

    if (rc == 0 && method_bool(params, "secure_channel", false))
        rc = err_set(why, -ENOTSUP, "secure_channel: TLS is not there yet");
    if (rc == 0)
        rc = daemon_target(d, NULL, why);
    if (rc < 0)
        return rc;
    snprintf(text, sizeof(text), strchr(traddr, ':') != NULL ? "[%.200s]:%.16s" : "%.200s:%.16s",
             traddr, port != NULL ? port : "4420");
    if (listener_find(d, text) == NULL)
        rc = listener_start(t, d, text, why);
    *out_result = json_true();
    return rc;
}

const struct method method_nvmf[] = {
    {"nvmf_create_transport",
     "Configures the TCP transport. Without it there is one with defaults.",
     create_transport_params, create_transport},
    {"nvmf_create_subsystem", "Makes an empty subsystem.", create_subsystem_params,
     create_subsystem},
    {"nvmf_subsystem_add_host", "Lets a host connect.", add_host_params, add_host},
    {"nvmf_subsystem_allow_any_host", "Lets all hosts connect, or only listed ones.",
     allow_any_host_params, allow_any_host},
    {"nvmf_subsystem_add_ns", "Makes a block device a namespace.", add_ns_params, add_ns},
    {"nvmf_subsystem_add_kv_ns", "Makes a key-value device a namespace.", add_kv_ns_params,
     add_kv_ns},
    {"nvmf_subsystem_add_listener", "Listens on an address.", add_listener_params, add_listener},
    {NULL},
};
