/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/scenario.h"

#include "sim/fs.h"
#include "sim/job.h"
#include "sim/net.h"
#include "sim/server.h"

#include "base/log.h"
#include "blk/blk.h"
#include "blob/blob.h"
#include "kv/kv.h"

#include <stdio.h>
#include <string.h>

#define JOBS_MAX 16
#define HOSTS_MAX 3
#define DISK_PATH "/srv/disk.img"
#define STORM_MAX_NS (120 * NS_PER_S)
#define STORM_OPS 600 /* of each job; then the storm is over */
#define CALM_NS (1000 * NS_PER_S)
#define BUF_BYTES (8 * MIB)

static struct scenario {
    struct sim_dice dice;
    bool remote;      /* the jobs are behind the network, else beside the devices */
    bool no_kv;       /* only block jobs */
    bool kv_volatile; /* the KV device is memory: the server does not crash */
    bool net_fails, disk_fails, server_fails, hosts_fail;
    uint32_t block_bytes;
    struct sim_machine *server; /* with the devices */
    struct sim_machine *host[HOSTS_MAX];
    unsigned nhosts;
    struct sim_job job[JOBS_MAX];
    unsigned njobs;
    struct sim_event chaos, watch;
    uint64_t hosts_lost;
    bool storm;
} sc;

/* --- set-up ------------------------------------------------------------------------------------
 */

static bool one_in(unsigned n)
{
    return sim_below(&sc.dice, n) == 0;
}

/* One seed in eight has no faults at all: there, no operation may fail. */
static void choose_weather(void)
{
    struct sim_weather *w = &sim.weather;
    struct sim_dice *d = &sc.dice;
    bool fine = one_in(8);

    sc.net_fails = sc.remote && !fine && !one_in(3);
    sc.disk_fails = !fine && !sc.kv_volatile && one_in(4); /* that takes a restart */
    sc.server_fails = !fine && !sc.kv_volatile && !one_in(4);
    sc.hosts_fail = sc.remote && !fine && one_in(2);
    w->net_delay_ns = sim_skewed(d, 5 * NS_PER_US, 2 * NS_PER_MS);
    w->net_jitter_ns = sim_skewed(d, NS_PER_US, 5 * NS_PER_MS);
    w->net_slow_ppm = one_in(3) ? 1000 : 0;
    w->net_split_ppm = (uint32_t)sim_skewed(d, 0, 400000);
    w->net_buf_bytes = (uint32_t)sim_skewed(d, 4 * KIB, MIB);
    w->net_reset_ppm = sc.net_fails && one_in(2) ? (uint32_t)sim_skewed(d, 10000, 500000) : 0;
    w->disk_delay_ns = sim_skewed(d, 5 * NS_PER_US, NS_PER_MS);
    w->disk_jitter_ns = sim_skewed(d, NS_PER_US, 5 * NS_PER_MS);
    w->disk_slow_ppm = one_in(3) ? 2000 : 0;
    w->disk_short_ppm = one_in(2) ? 20000 : 0;
    w->stall_ppm = one_in(3) ? 500 : 0;
}

/* From the storm's begin, when everything is open, to its end. */
static void disk_weather(bool bad)
{
    struct sim_weather *w = &sim.weather;

    w->disk_eio_ppm = bad && sc.disk_fails ? 2000 : 0;
    w->disk_fsync_eio_ppm = bad && sc.disk_fails ? 20000 : 0;
    w->disk_enospc_ppm = bad && sc.disk_fails ? 2000 : 0;
}

static struct sim_job *add_job(const char *what, struct sim_machine *m)
{
    struct sim_job *job = &sc.job[sc.njobs++];

    must(sc.njobs <= JOBS_MAX);
    *job = (struct sim_job){.machine = m,
                            .reactor = (unsigned)sim_below(&sc.dice, m->nreactors),
                            .net_fails = sc.net_fails,
                            .disk_fails = sc.disk_fails,
                            .server_fails = sc.server_fails || sc.disk_fails};
    snprintf(job->name, sizeof(job->name), "%s%u", what, sc.njobs);
    sim_dice_init(&job->dice, sim.seed, job->name);
    return job;
}

static void add_blk_jobs(struct sim_machine *m, unsigned n, const char *uri, uint32_t *first_sector)
{
    uint32_t nsectors = 64 * JOB_SLOTS;

    for (unsigned i = 0; i < n; i++) {
        struct sim_job *job = add_job("blk", m);

        snprintf(job->uri, sizeof(job->uri), "%s", uri);
        sim_job_blk_init(job, *first_sector, nsectors, sc.block_bytes);
        *first_sector += nsectors;
    }
}

static void add_kv_jobs(struct sim_machine *m, unsigned n, const char *uri, uint8_t *prefix)
{
    for (unsigned i = 0; i < n; i++) {
        struct sim_job *job = add_job("kv", m);

        snprintf(job->uri, sizeof(job->uri), "%s", uri);
        sim_job_kv_init(job, (*prefix)++, (unsigned)sim_between(&sc.dice, 2, 24), 2 * MIB);
    }
}

static void set_up_jobs(void)
{
    uint32_t sector = 0;
    uint8_t prefix = 0x41;
    char blk_uri[160], kv_uri[160];

    if (sc.remote) {
        snprintf(blk_uri, sizeof(blk_uri), "nvme+tcp://10.0.0.1:4420/%s?nsid=1", SIM_SERVER_NQN);
        snprintf(kv_uri, sizeof(kv_uri), "nvme+tcp://10.0.0.1:4420/%s?nsid=2", SIM_SERVER_NQN);
    } else {
        snprintf(blk_uri, sizeof(blk_uri), "file:%s?block_size=%u&direct=%s", DISK_PATH,
                 sc.block_bytes, one_in(2) ? "on" : "off");
        snprintf(kv_uri, sizeof(kv_uri), "%s", sc.kv_volatile ? "mem:" : "dir:/srv/kv");
    }
    for (unsigned i = 0; i < sc.nhosts; i++) {
        unsigned n = sc.no_kv ? 3 : (unsigned)sim_below(&sc.dice, 3);

        add_blk_jobs(sc.host[i], n, blk_uri, &sector);
        add_kv_jobs(sc.host[i], 3 - n, kv_uri, &prefix);
    }
    sim_fs_make_file(sc.server->fs, DISK_PATH, MAX((uint64_t)sector * SIM_SECTOR_BYTES, 64 * KIB));
    sim_fs_make_dir(sc.server->fs, "/srv/kv");
}

static void set_up(void)
{
    sc.remote = !one_in(4);
    sc.no_kv = one_in(5);
    sc.kv_volatile = !sc.no_kv && one_in(4);
    sc.block_bytes = one_in(3) ? 4096 : 512;
    choose_weather();
    sc.server = sim_machine_add("server", (unsigned)sim_between(&sc.dice, 1, 3));
    if (!sc.remote) {
        sc.host[sc.nhosts++] = sc.server;
    } else {
        sc.nhosts = (unsigned)sim_between(&sc.dice, 1, HOSTS_MAX);
        for (unsigned i = 0; i < sc.nhosts; i++) {
            static const char *const names[HOSTS_MAX] = {"host1", "host2", "host3"};

            sc.host[i] = sim_machine_add(names[i], (unsigned)sim_between(&sc.dice, 1, 2));
        }
    }
    set_up_jobs();
    sim_trace("scenario: %s, kv %s, blocks of %u, %u hosts, %u jobs; net %d disk %d server %d "
              "hosts %d",
              sc.remote ? "remote" : "embedded",
              sc.no_kv         ? "none"
              : sc.kv_volatile ? "mem"
                               : "dir",
              sc.block_bytes, sc.nhosts, sc.njobs, sc.net_fails, sc.disk_fails, sc.server_fails,
              sc.hosts_fail);
}

/* --- boot, crash -------------------------------------------------------------------------------
 */

static void start_jobs(struct sim_machine *m)
{
    for (unsigned i = 0; i < sc.njobs; i++) {
        if (sc.job[i].machine == m && !sc.job[i].running)
            sim_job_start(&sc.job[i]);
    }
}

static void boot_server(void)
{
    sim_boot(sc.server, BUF_BYTES);
    if (sc.remote)
        sim_server_start(sc.server, sc.block_bytes, sc.kv_volatile, DISK_PATH, "/srv/kv");
    else
        start_jobs(sc.server);
}

static void jobs_crash(struct sim_machine *m)
{
    for (unsigned i = 0; i < sc.njobs; i++) {
        if (sc.job[i].machine == m)
            sim_job_crashed(&sc.job[i]);
    }
}

static void crash_server(bool power)
{
    if (power)
        sim_power_cut(sc.server);
    else
        sim_kill(sc.server);
    sim_server_crashed();
    jobs_crash(sc.server);
    for (unsigned i = 0; i < sc.njobs; i++)
        sc.job[i].kind->server_crash(&sc.job[i], power);
}

static void crash_host(struct sim_machine *m)
{
    sc.hosts_lost++;
    if (one_in(2))
        sim_power_cut(m);
    else
        sim_kill(m);
    jobs_crash(m);
}

/* --- chaos: something every now and then -------------------------------------------------------
 */

static struct sim_event reboot_event[SIM_MACHINES_MAX];

static void reboot(struct sim_event *ev)
{
    struct sim_machine *m = &sim.machine[ev - reboot_event];

    if (m->rt != NULL)
        return;
    if (m == sc.server) {
        boot_server();
        return;
    }
    sim_boot(m, BUF_BYTES);
    start_jobs(m);
}

static void reboot_in(struct sim_machine *m, uint64_t ns)
{
    struct sim_event *ev = &reboot_event[m->idx];

    ev->fn = reboot;
    sim_event_in(ev, ns);
}

static void chaos(struct sim_event *ev)
{
    struct sim_machine *host = sc.host[sim_below(&sc.dice, sc.nhosts)];
    uint64_t roll = sim_below(&sc.dice, 100);

    sim_event_in(ev, sim_skewed(&sc.dice, NS_PER_MS, 20 * NS_PER_S));
    if (roll < 40 && sc.server_fails && sc.server->rt != NULL) {
        crash_server(one_in(2));
        reboot_in(sc.server, sim_skewed(&sc.dice, NS_PER_MS, 20 * NS_PER_S));
    } else if (roll < 60 && sc.hosts_fail && host->rt != NULL) {
        crash_host(host);
        reboot_in(host, sim_skewed(&sc.dice, NS_PER_MS, 40 * NS_PER_S));
    } else if (roll < 80 && sc.net_fails) {
        sim_net_reset_one();
    } else if (roll < 95 && sc.net_fails) {
        sim_net_partition(sc.server, host, sim_skewed(&sc.dice, NS_PER_MS, 30 * NS_PER_S));
    }
}

/* Nothing takes for ever. A server that could not open its devices is started again. */
static void watch(struct sim_event *ev)
{
    sim_event_in(ev, NS_PER_S);
    if (sc.remote && sim_server_failed()) {
        if (!sc.disk_fails)
            sim_fail("the server has ended");
        crash_server(false);
        boot_server();
    }
    for (unsigned i = 0; i < sc.njobs; i++) {
        const struct sim_job *job = &sc.job[i];

        if (job->busy_since_ns != 0 && sim.now_ns - job->busy_since_ns > JOB_OP_MAX_NS)
            sim_fail("%s: a request has not been completed for %llu s", job->name,
                     (unsigned long long)(JOB_OP_MAX_NS / NS_PER_S));
    }
}

/* --- the parts of a run ------------------------------------------------------------------------
 */

static bool storm_over(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < sc.njobs; i++) {
        if (sc.job[i].nops < STORM_OPS)
            return false;
    }
    return true;
}

static bool jobs_over(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < sc.njobs; i++) {
        if (sc.job[i].running)
            return false;
    }
    return true;
}

static bool server_over(void *arg)
{
    (void)arg;
    return !sim_server_running();
}

static bool server_ready(void *arg)
{
    (void)arg;
    return sim_server_ready();
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void calm_down(void)
{
    sim_trace("scenario: calm");
    sim_event_stop(&sc.chaos);
    disk_weather(false);
    sim.weather.net_reset_ppm = 0;
    for (unsigned i = 0; i < sim.nmachines; i++) {
        if (sim.machine[i].rt == NULL)
            reboot_in(&sim.machine[i], 0);
    }
}

static void finish_jobs(void)
{
    for (unsigned i = 0; i < sc.njobs; i++)
        sc.job[i].stopping = true;
    if (!sim_run(jobs_over, NULL, sim.now_ns + CALM_NS)) {
        for (unsigned i = 0; i < sc.njobs; i++) {
            if (sc.job[i].running)
                sim_fail("%s has not come to its end in the calm", sc.job[i].name);
        }
    }
}

/* The disk may have failed in a way that only opening it anew heals. */
static void restart_server(bool power, bool last)
{
    crash_server(power);
    sc.server->doomed = !last;
    boot_server();
    if (sc.remote && !sim_run(server_ready, NULL, sim.now_ns + 100 * NS_PER_S))
        sim_fail("the server does not start again");
}

static void stop_all(void)
{
    for (unsigned i = 0; i < sc.nhosts; i++) {
        if (sc.host[i] != sc.server)
            sim_halt(sc.host[i]);
    }
    if (sc.remote) {
        sim_server_stop();
        if (!sim_run(server_over, NULL, sim.now_ns + CALM_NS))
            sim_fail("the server does not stop");
    }
    sim_run(never, NULL, sim.now_ns + 100 * NS_PER_MS);
    sim_halt(sc.server);
}

static void abandon(void)
{
    blob_abandon();
    blk_abandon();
    kv_abandon();
}

static void log_line(enum log_level level, const char *text, void *arg)
{
    (void)arg;
    sim_trace("log: %s: %s", log_level_name(level), text);
}

void sim_scenario_run(uint64_t seed, bool verbose, struct sim_report *out)
{
    sim_world_init(seed);
    sim.verbose = verbose;
    sim.abandon = abandon;
    log_set_sink(log_line, NULL, LOG_WARN);
    sc = (struct scenario){.chaos.fn = chaos, .watch.fn = watch};
    sim_dice_init(&sc.dice, seed, "scenario");
    set_up();
    for (unsigned i = 0; i < sim.nmachines; i++)
        sim.machine[i].doomed = &sim.machine[i] == sc.server ? !sc.kv_volatile : sc.hosts_fail;
    boot_server();
    if (sc.remote && !sim_run(server_ready, NULL, sim.now_ns + 100 * NS_PER_S))
        sim_fail("the server does not start");
    for (unsigned i = 0; i < sc.nhosts; i++) {
        if (sc.host[i] != sc.server)
            reboot_in(sc.host[i], sim_skewed(&sc.dice, NS_PER_MS, NS_PER_S));
    }
    sim_event_in(&sc.watch, NS_PER_S);
    sim_event_in(&sc.chaos, sim_skewed(&sc.dice, 10 * NS_PER_MS, 10 * NS_PER_S));
    disk_weather(true);
    sim_run(storm_over, NULL, sim.now_ns + STORM_MAX_NS);
    calm_down();
    if (sc.disk_fails && !sc.kv_volatile && sc.server->rt != NULL)
        restart_server(false, false);
    finish_jobs();
    if (!sc.kv_volatile) {
        restart_server(true, true);
        for (unsigned i = 0; sc.remote && i < sc.nhosts; i++)
            start_jobs(sc.host[i]);
        finish_jobs();
    }
    stop_all();
    *out = (struct sim_report){.hash = sim.trace_hash,
                               .virtual_ns = sim.now_ns,
                               .crashes = sim.nkills + sim.npowercuts - sc.hosts_lost,
                               .resets = sim.nresets,
                               .partitions = sim.npartitions,
                               .faults = sim.nfaults,
                               .hosts_lost = sc.hosts_lost};
    for (unsigned i = 0; i < sc.njobs; i++) {
        out->ops += sc.job[i].nops;
        out->checks += sc.job[i].nchecked;
        out->failed_ops += sc.job[i].nfailed;
        sc.job[i].kind->fini(&sc.job[i]);
    }
    sim_world_fini();
}
