/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir serve: the daemon in the foreground, from flags alone. */
#include "cli/cli.h"

#include "daemon/daemon.h"

#include <string.h>
#include <unistd.h>

static json_t *serve_config; /* what the flags mean, as kvasird would read it */

static int add(json_t *list, const char *method, json_t *params)
{
    if (params == NULL)
        return -EINVAL; /* a text that is no UTF-8 */
    return json_array_append_new(list, json_pack("{s:s, s:o}", "method", method, "params", params));
}

/* "NAME=URI", or a URI alone, which gets a name. */
static const char *split_name(const char *text, unsigned nsid, char *name, size_t max)
{
    size_t len = strcspn(text, "=:?/");

    if (text[len] == '=' && len > 0 && len < max) {
        snprintf(name, max, "%.*s", (int)len, text);
        return text + len + 1;
    }
    snprintf(name, max, "ns%u", nsid);
    return text;
}

/* The devices, in the order of the command line: namespaces 1, 2, ... */
static int add_devices(struct cli *c, json_t *devs, json_t *nvmf, const char *nqn)
{
    unsigned nsid = 0;
    char name[64];

    for (unsigned i = 0; i < c->opts.nrepeats; i++) {
        const char *kind = c->opts.repeat[i].def->name, *uri;
        bool csd = strcmp(kind, "csd") == 0, kv = csd || strcmp(kind, "kv") == 0;
        json_t *ns;

        if (!kv && strcmp(kind, "block") != 0)
            continue;
        uri = split_name(c->opts.repeat[i].text, ++nsid, name, sizeof(name));
        ns = json_pack("{s:i, s:s}", "nsid", (int)nsid, kv ? "kvdev_name" : "bdev_name", name);
        if (csd)
            json_object_set_new(ns, "csd", json_true());
        if (add(devs, kv ? "kvdev_create" : "bdev_kvasir_create",
                json_pack("{s:s, s:s}", "name", name, "uri", uri)) < 0 ||
            add(nvmf, kv ? "nvmf_subsystem_add_kv_ns" : "nvmf_subsystem_add_ns",
                json_pack("{s:s, s:o}", "nqn", nqn, "namespace", ns)) < 0)
            return cli_usage(c, "--%s %s: not valid UTF-8", kind, c->opts.repeat[i].text);
    }
    if (nsid == 0)
        return cli_usage(
            c, "nothing to serve: give --kv NAME=URI, --csd NAME=URI or --block NAME=URI");
    return 0;
}

static int add_hosts(struct cli *c, json_t *nvmf, const char *nqn)
{
    for (unsigned i = 0; i < c->opts.nrepeats; i++) {
        if (strcmp(c->opts.repeat[i].def->name, "host") == 0 &&
            add(nvmf, "nvmf_subsystem_add_host",
                json_pack("{s:s, s:s}", "nqn", nqn, "host", c->opts.repeat[i].text)) < 0)
            return cli_usage(c, "--host: not valid UTF-8");
    }
    return 0;
}

static int add_listener(struct cli *c, json_t *nvmf, const char *nqn, const char *text)
{
    char host[NET_ADDR_TEXT_MAX];
    struct err why = {""};
    uint16_t port;
    json_t *addr;

    if (net_addr_split(text, 4420, host, sizeof(host), &port, &why) < 0)
        return cli_usage(c, "--listen %s: %s", text, why.text);
    addr = json_pack("{s:s, s:s, s:o}", "trtype", "TCP", "traddr", host, "trsvcid",
                     json_sprintf("%u", port));
    add(nvmf, "nvmf_subsystem_add_listener",
        json_pack("{s:s, s:o}", "nqn", nqn, "listen_address", addr));
    return 0;
}

static int add_listeners(struct cli *c, json_t *nvmf, const char *nqn)
{
    bool any = false;
    int rc = 0;

    for (unsigned i = 0; i < c->opts.nrepeats && rc == 0; i++) {
        if (strcmp(c->opts.repeat[i].def->name, "listen") != 0)
            continue;
        any = true;
        rc = add_listener(c, nvmf, nqn, c->opts.repeat[i].text);
    }
    return any ? rc : add_listener(c, nvmf, nqn, "127.0.0.1:4420");
}

/* Limits of queries, when any is given. */
static int add_queries(struct cli *c, json_t *devs)
{
    static const struct {
        const char *opt, *param;
    } numbers[] = {{"query-workers", "workers_max"},
                   {"query-mem", "mem_bytes"},
                   {"query-result", "result_bytes_max"},
                   {"query-cpu", "cpu_seconds"}};
    json_t *params = json_object();

    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (opt_given(&c->opts, numbers[i].opt))
            json_object_set_new(params, numbers[i].param,
                                json_integer((json_int_t)opt_u64(&c->opts, numbers[i].opt)));
    if (opt_given(&c->opts, "query-timeout"))
        json_object_set_new(
            params, "timeout_ms",
            json_integer((json_int_t)MAX(opt_u64(&c->opts, "query-timeout") / NS_PER_MS, 1ul)));
    if (opt_given(&c->opts, "query-engine") &&
        json_object_set_new(params, "engine", json_string(opt_str(&c->opts, "query-engine"))) < 0) {
        json_decref(params);
        return cli_usage(c, "--query-engine: not valid UTF-8");
    }
    if (json_object_size(params) > 0)
        return add(devs, "query_set_options", params);
    json_decref(params);
    return 0;
}

static int serve_prepare(struct cli *c, struct rt_config *cfg)
{
    const char *nqn = opt_str(&c->opts, "nqn");
    json_t *devs = json_array(), *nvmf = json_array();
    struct err why = {""};
    int rc;

    serve_config = json_pack("{s:[{s:s, s:o}, {s:s, s:o}]}", "subsystems", "subsystem", "devices",
                             "config", devs, "subsystem", "nvmf", "config", nvmf);
    if (add(nvmf, "nvmf_create_subsystem",
            json_pack("{s:s, s:b}", "nqn", nqn, "allow_any_host", !opt_given(&c->opts, "host"))) <
        0)
        return cli_usage(c, "--nqn: not valid UTF-8");
    rc = add_queries(c, devs);
    if (rc == 0)
        rc = add_devices(c, devs, nvmf, nqn);
    if (rc == 0)
        rc = add_hosts(c, nvmf, nqn);
    if (rc == 0)
        rc = add_listeners(c, nvmf, nqn);
    if (rc == 0 && daemon_check(serve_config, &why) < 0)
        rc = cli_usage(c, "%s", why.text);
    return rc;
}

static int ready(struct rt_task *t, struct daemon *d, void *arg)
{
    struct cli *c = arg;

    daemon_print_listening(d, stdout, c->json);
    cli_note(c, "Ctrl-C stops; `kill -USR1 %ld` logs statistics", (long)getpid());
    return 0;
}

static int serve_run(struct rt_task *t, struct cli *c)
{
    struct daemon_run run = {
        .config = serve_config, .socket = opt_str(&c->opts, "socket"), .ready = ready, .arg = c};
    struct err why = {""};
    int rc;

    rc = daemon_run(t, &run, &why);
    json_decref(serve_config);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text[0] != '\0' ? why.text : err_str(rc));
    return 0;
}

static const struct opt serve_opts[] = {
    {"kv", 0, OPT_STR, true, "NAME=URI", NULL, "serve a key-value device; may be given many times"},
    {"csd", 0, OPT_STR, true, "NAME=URI", NULL,
     "serve a key-value device in the CSD dialect, as a namespace of the NVM command set; may be "
     "given many times"},
    {"block", 0, OPT_STR, true, "NAME=URI", NULL, "serve a block device; may be given many times"},
    {"listen", 0, OPT_STR, true, "ADDR:PORT", NULL,
     "where to listen, 127.0.0.1:4420 without it; port 0 picks one; may be given many times"},
    {"nqn", 0, OPT_STR, false, "NQN", NVMF_DEFAULT_NQN, "name of the subsystem"},
    {"host", 0, OPT_STR, true, "NQN", NULL,
     "a host that may connect; without it all may; may be given many times"},
    {"query-workers", 0, OPT_U64, false, "N", NULL,
     "queries (SELECT) that run at a time; two for each processor without it"},
    {"query-mem", 0, OPT_SIZE, false, "SIZE", NULL, "memory of one query; 256M without it"},
    {"query-cpu", 0, OPT_U64, false, "SECONDS", NULL,
     "processor time of one query; as long as it may take without it"},
    {"query-timeout", 0, OPT_TIME, false, "TIME", NULL,
     "longest time of a query, waiting included; 300s without it, and 60s for one that does not "
     "say"},
    {"query-result", 0, OPT_SIZE, false, "SIZE", NULL,
     "longest answer of a query; no limit without it"},
    {"query-engine", 0, OPT_STR, false, "PATH", NULL,
     "libduckdb.so; where `make deps` or installing puts it without it"},
    {"socket", 0, OPT_FILE, false, "PATH", NULL,
     "answer kvasir check and kvasir stats there, by JSON-RPC"},
    {NULL},
};

const struct cli_verb verb_serve = {
    .name = "serve",
    .args = "--kv NAME=URI... --csd NAME=URI... --block NAME=URI...",
    .summary = "serve devices over NVMe/TCP, in the foreground",
    .about =
        "Opens the devices and offers them as namespaces 1, 2, ... (in the order given) of one "
        "subsystem, until Ctrl-C or SIGTERM. When it is ready it prints a line \"listening "
        "ADDRESS:PORT NQN\" for each address, and below it the URI of each namespace. "
        "SIGUSR1 logs statistics, SIGUSR2 prints the events kept by --trace. The discovery "
        "service answers on the same addresses.\n\n"
        "A key-value device may be served twice, by --kv and by --csd with the same URI: both are "
        "views of the same keys. See docs/protocols/csd.md for the commands of --csd.\n\n"
        "This is kvasird from flags; larger set-ups have a configuration file, see "
        "kvasird(8).",
    .examples =
        "kvasir serve --kv demo=dir:./data --block disk=mem:?size=1G --listen 127.0.0.1:4420\n"
        "kvasir serve --kv a=mem: --listen '[::1]:0' --json",
    .opts = serve_opts,
    .args_max = 0,
    .drivers = CLI_KV | CLI_BLK,
    .own_signals = true,
    .run = serve_run,
    .prepare = serve_prepare,
};
