/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/server.h"

#include "base/err.h"
#include "daemon/daemon.h"

static struct server {
    uint32_t block_bytes;
    bool kv_volatile;
    const char *disk_path, *kv_path;
    bool running, ready, failed, stop;
    struct rt_req done;
} server;

static json_t *method(const char *name, json_t *params)
{
    return json_pack("{s:s, s:o}", "method", name, "params", params);
}

/* As a configuration file of kvasird says it. */
static json_t *config(void)
{
    json_t *devs = json_array(), *nvmf = json_array();
    const char *nqn = SIM_SERVER_NQN;

    json_array_append_new(devs,
                          method("bdev_kvasir_create",
                                 json_pack("{s:s, s:o}", "name", "disk", "uri",
                                           json_sprintf("file:%s?block_size=%u", server.disk_path,
                                                        server.block_bytes))));
    json_array_append_new(
        devs, method("kvdev_create",
                     json_pack("{s:s, s:o}", "name", "kv", "uri",
                               server.kv_volatile ? json_string("mem:")
                                                  : json_sprintf("dir:%s", server.kv_path))));
    json_array_append_new(nvmf, method("nvmf_create_subsystem",
                                       json_pack("{s:s, s:b}", "nqn", nqn, "allow_any_host", 1)));
    json_array_append_new(nvmf, method("nvmf_subsystem_add_ns",
                                       json_pack("{s:s, s:{s:i, s:s}}", "nqn", nqn, "namespace",
                                                 "nsid", 1, "bdev_name", "disk")));
    json_array_append_new(nvmf, method("nvmf_subsystem_add_kv_ns",
                                       json_pack("{s:s, s:{s:i, s:s}}", "nqn", nqn, "namespace",
                                                 "nsid", 2, "kvdev_name", "kv")));
    json_array_append_new(
        nvmf, method("nvmf_subsystem_add_listener",
                     json_pack("{s:s, s:{s:s, s:s, s:s}}", "nqn", nqn, "listen_address", "trtype",
                               "TCP", "traddr", "0.0.0.0", "trsvcid", "4420")));
    return json_pack("{s:[{s:s, s:o}, {s:s, s:o}]}", "subsystems", "subsystem", "devices", "config",
                     devs, "subsystem", "nvmf", "config", nvmf);
}

static int server_run(struct rt_task *t, void *arg)
{
    struct daemon *d = calloc(1, sizeof(*d));
    json_t *conf = config();
    struct err why = {""};
    int rc;

    (void)arg;
    must(d != NULL);
    daemon_init(d);
    rc = daemon_apply(t, d, conf, &why);
    sim_trace("server: starts: %d %s", rc, why.text);
    server.ready = rc == 0;
    while (rc == 0 && !server.stop)
        rt_sleep(t, 10 * NS_PER_MS);
    daemon_fini(t, d);
    json_decref(conf);
    free(d);
    return rc;
}

static void server_done(struct rt_req *req)
{
    sim_trace("server: has stopped: %d", req->rc);
    server.running = server.ready = false;
    server.failed = req->rc < 0;
}

void sim_server_start(struct sim_machine *m, uint32_t block_bytes, bool kv_volatile,
                      const char *disk_path, const char *kv_path)
{
    json_object_seed(1);
    server = (struct server){.block_bytes = block_bytes,
                             .kv_volatile = kv_volatile,
                             .disk_path = disk_path,
                             .kv_path = kv_path,
                             .running = true};
    rt_req_init(&server.done, server_done);
    if (sim_start(m, 0, "kvasird", server_run, NULL, &server.done) != 0)
        sim_fail("the server cannot be started");
}

void sim_server_stop(void)
{
    server.stop = true;
}

bool sim_server_running(void)
{
    return server.running;
}

bool sim_server_ready(void)
{
    return server.ready;
}

bool sim_server_failed(void)
{
    return server.failed;
}

void sim_server_crashed(void)
{
    server.running = server.ready = server.failed = false;
}
