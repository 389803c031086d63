/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: named devices, one NVMe/TCP target, and the configuration that makes them, which is
 * a list of method calls in SPDK's form. `kvasird` reads it from a file, `kvasir serve` builds it
 * from flags. All of it runs in tasks of reactor 0.
 */
#ifndef KVASIR_DAEMON_DAEMON_H
#define KVASIR_DAEMON_DAEMON_H

#include "front/nvmf/nvmf.h"

#include <jansson.h>
#include <stdatomic.h>

#define DAEMON_NAME_MAX 256

/** A device under the name that other methods use. */
struct daemon_dev {
    struct list link;
    char name[DAEMON_NAME_MAX];
    struct kv_dev *kv; /* exactly one of the two */
    struct blk_dev *blk;
};

struct daemon_listener {
    struct list link;
    char addr[NET_ADDR_TEXT_MAX];    /* as it was asked for */
    char actual[NET_ADDR_TEXT_MAX];  /* with the port that was picked */
};

/** What a subsystem offers, for the report at start and for statistics. */
struct daemon_ns {
    struct list link;
    char nqn[DAEMON_NAME_MAX];
    uint32_t nsid;
    bool csd; /* a key-value device in the CSD dialect */
    struct daemon_dev *dev;
};

struct daemon {
    struct list devs;
    struct list listeners;
    struct list namespaces;
    struct nvmf_target *target; /* made by the first method that needs it */
    /* Queries. */
    struct query_config query; /* how the service will be started; its texts are ours */
    _Atomic(struct query_service *) queries; /* NULL: not started; set by reactor 0 */
    bool queries_starting;
    struct rt_cond queries_started;
    uint64_t queries_failed_ns;
    struct err queries_why;
};

void daemon_init(struct daemon *d);
/** Ends serving, closes the devices: everything that daemon_apply() has made. */
void daemon_fini(struct rt_task *t, struct daemon *d);

struct daemon_dev *daemon_dev_find(struct daemon *d, const char *name);
/** Opens a device under a name. -EEXIST the name is taken. */
int daemon_kv_add(struct rt_task *t, struct daemon *d, const char *name, const char *uri,
                  struct err *why);
int daemon_blk_add(struct rt_task *t, struct daemon *d, const char *name, const char *uri,
                   struct err *why);
/** The target; made with `cfg` (NULL: defaults) when there is none yet. */
int daemon_target(struct daemon *d, const struct nvmf_config *cfg, struct err *why);

/** Runs a query by the service, which is started when it is not there: for nvmf_set_select(). */
int daemon_select(struct rt_task *t, void *arg, struct kv_chan *chan, const struct kv_select *q,
                  struct kv_select_result *res, struct err *why);
/** The target, which is there, offers SELECT on its KV and CSD namespaces. */
void daemon_queries_offer(struct daemon *d);
/** Writes the counters of the service, if it runs, to the log. */
void daemon_queries_log(struct rt_task *t, struct daemon *d);
/** Nobody asks any more. */
void daemon_queries_end(struct rt_task *t, struct daemon *d);

/**
 * Carries out {"subsystems": [{"subsystem": S, "config": [{"method": M, "params": {...}}]}]}. What
 * was done before a failure stays; daemon_fini() undoes it. -EINVAL with a text that names the
 * method and its place.
 */
int daemon_apply(struct rt_task *t, struct daemon *d, const json_t *config, struct err *why);
/** Looks for mistakes in form, method names and parameters without doing anything. */
int daemon_check(const json_t *config, struct err *why);
/** Reads a configuration file; *out is the caller's to json_decref(). */
int daemon_load(const char *path, json_t **out, struct err *why);

/** Writes the counters of target and devices to the log. */
void daemon_log_stats(struct rt_task *t, struct daemon *d);

struct daemon_run {
    const json_t *config;
    const char *socket; /* where the control plane answers (rpc.h); NULL: nowhere */
    /* Once everything is there; NULL: nothing. A failure stops the daemon. */
    int (*ready)(struct rt_task *t, struct daemon *d, void *arg);
    void *arg;
};

/**
 * Applies the configuration and serves until SIGTERM or SIGINT (which the caller has blocked in all
 * threads, as SIGUSR1), then stops: commands in flight end first; another signal stops at once.
 * SIGUSR1 logs statistics, SIGUSR2 prints the trace (rt/trace.h). 0, or the failure of
 * configuration, with text.
 */
int daemon_run(struct rt_task *t, const struct daemon_run *run, struct err *why);

/** The lines that tell who is served where, as people or programs read them. */
void daemon_print_listening(struct daemon *d, FILE *to, bool json);

#endif
