/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NVMe/TCP target: block and KV devices as namespaces of subsystems, for Linux, SPDK, xNVMe,
 * nvme-cli and ourselves. README.md tells how it works inside.
 *
 * A target is made, configured, changed and closed by tasks of reactor 0; it serves on all
 * reactors. Subsystems, namespaces, hosts and listeners may come and go at any time: hosts are
 * told by asynchronous events. Devices are referenced (blk_ref, kv_ref), not taken over.
 */
#ifndef KVASIR_FRONT_NVMF_NVMF_H
#define KVASIR_FRONT_NVMF_NVMF_H

#include "net/addr.h"

#include "blk/blk.h"
#include "kv/kv.h"
#include "virt/query/query.h"
#include "virt/query/results.h"

#define NVMF_DEFAULT_NQN "nqn.2026-11.io.kvasir:default"
#define NVMF_NSID_MAX 1024

struct nvmf_target;

/** Zeroed means defaults. */
struct nvmf_config {
    uint32_t in_capsule_bytes;   /* data in a command of an I/O queue; 8192, multiple of 16 */
    uint32_t maxh2cdata_bytes;   /* data of one H2CData; 131072, multiple of 4, at least 4096 */
    uint32_t r2t_window_bytes;   /* data asked for by one R2T; 1 MiB */
    uint32_t out_bytes_max;      /* data queued for one connection at most; 1 MiB */
    uint16_t io_queues_max;      /* of one controller; 64 */
    uint16_t queue_entries_max;  /* of one queue; 1024 */
    uint32_t connections_max;    /* 4096 */
    uint32_t ctrlrs_per_host;    /* controllers one host NQN may have at a time; 64 */
    uint32_t kato_min_ms;        /* shorter keep-alive time-outs are raised to it; 1000 */
    uint32_t kato_default_ms;    /* for discovery controllers that ask for none; 120000 */
    uint64_t progress_ns;        /* a host that moves nothing it owes for so long is gone; 30 s */
    uint32_t select_timeout_ms;  /* a query takes no longer, unless its host says how
                                    long it waits; 25000, below the 30 s of Linux */
    struct query_results_config results; /* of queries, until they are fetched */
    bool no_header_digest;
    bool no_data_digest;
    bool success_flag;           /* C2HData with SUCCESS, for hosts without SQ flow control */
    bool kv_strict_identify;     /* CNS 00h of a KV namespace fails, as the specification has it.
                                    SPDK and xNVMe do not see such namespaces */
};

struct nvmf_subsys_config {
    const char *nqn;
    const char *serial;          /* up to 20 ASCII characters; NULL: from the NQN */
    const char *model;           /* up to 40; NULL: "Kvasir" */
    bool allow_any_host;
};

/** Waits on nothing; reactor 0. 0; -EINVAL, -ENOMEM with text. */
int nvmf_target_new(const struct nvmf_config *cfg, struct nvmf_target **out_tgt, struct err *why);

/** Runs a query as query_select() does, on the reactor of the caller. */
typedef int (*nvmf_select_fn)(struct rt_task *t, void *arg, struct kv_chan *chan,
                              const struct kv_select *q, struct kv_select_result *res,
                              struct err *why);
/**
 * From now on the SELECT commands of KV and CSD namespaces are carried out by fn(t, arg, ...) and
 * announced; without it they are invalid opcodes. Before the first host connects.
 */
void nvmf_set_select(struct nvmf_target *tgt, nvmf_select_fn fn, void *arg);

/**
 * Ends listening, lets commands in flight finish (up to a few seconds), closes all connections and
 * namespaces, and frees the target. NULL is fine.
 */
void nvmf_target_close(struct rt_task *t, struct nvmf_target *tgt);

/**
 * Listens and accepts. Port 0 picks one; *out_addr (may be NULL) is the address as it is.
 * 0; -EADDRINUSE, -EADDRNOTAVAIL, ... with text.
 */
int nvmf_listen(struct rt_task *t, struct nvmf_target *tgt, const struct net_addr *addr,
                struct net_addr *out_addr, struct err *why);
/** Ends a listener (as out_addr named it). Connections stay. -ENOENT. */
int nvmf_unlisten(struct rt_task *t, struct nvmf_target *tgt, const struct net_addr *addr,
                  struct err *why);

/** 0; -EINVAL a text that is no NQN or too long; -EEXIST. */
int nvmf_subsys_add(struct rt_task *t, struct nvmf_target *tgt,
                    const struct nvmf_subsys_config *cfg, struct err *why);
/** Disconnects its hosts, removes its namespaces, and it. -ENOENT. */
int nvmf_subsys_remove(struct rt_task *t, struct nvmf_target *tgt, const char *nqn,
                       struct err *why);
/** Whether hosts that are not listed may connect. Does not touch those that are connected. */
int nvmf_allow_any_host(struct rt_task *t, struct nvmf_target *tgt, const char *nqn, bool allow,
                        struct err *why);
/** Lists a host. -ENOENT no such subsystem; -EEXIST; -EINVAL. */
int nvmf_host_add(struct rt_task *t, struct nvmf_target *tgt, const char *nqn,
                  const char *host_nqn, struct err *why);
/** Takes it off the list and, unless any host is allowed, disconnects it. */
int nvmf_host_remove(struct rt_task *t, struct nvmf_target *tgt, const char *nqn,
                     const char *host_nqn, struct err *why);

struct nvmf_ns_config {
    uint32_t nsid;          /* 0: the lowest that is free */
    struct blk_dev *blk;    /* exactly one of the two */
    struct kv_dev *kv;
    bool csd;               /* kv: as an NVM namespace with the commands of the CSD dialect */
    const uint8_t *uuid;    /* 16 bytes; NULL: from device, subsystem and NSID: stable */
    const uint8_t *nguid;   /* 16 bytes; NULL: same */
};
/**
 * Adds a namespace; hosts are told. A resized device is announced by itself, a removed one is
 * removed here as well. 0; -ENOENT no such subsystem; -EEXIST the NSID is taken; -EINVAL;
 * -ENOTSUP block size above 8192.
 */
int nvmf_ns_add(struct rt_task *t, struct nvmf_target *tgt, const char *nqn,
                const struct nvmf_ns_config *cfg, uint32_t *out_nsid, struct err *why);
/** Commands in flight complete (those that wait for their host fail); hosts are told. -ENOENT. */
int nvmf_ns_remove(struct rt_task *t, struct nvmf_target *tgt, const char *nqn, uint32_t nsid,
                   struct err *why);

struct nvmf_stats {
    uint32_t connections;       /* now */
    uint32_t ctrlrs;            /* now */
    uint64_t accepted;          /* connections ever taken */
    uint64_t refused;           /* connections closed at once: too many */
    uint64_t admin_cmds;
    uint64_t io_cmds;
    uint64_t failed_cmds;       /* completed with a status other than success */
    uint64_t bytes_in, bytes_out; /* data, without headers */
    uint64_t term_reqs;         /* connections ended for breaking the protocol */
    uint64_t hdgst_errors, ddgst_errors;
    uint64_t kato_expired;
    uint64_t stalled;           /* connections ended for making no progress */
    uint64_t selects, selects_failed;
    uint64_t yields;            /* buffers given up by transfers that waited for their host */
};
/** Sums of all reactors, as of now. */
int nvmf_stats(struct rt_task *t, struct nvmf_target *tgt, struct nvmf_stats *out);
/** Results of queries that are held. */
void nvmf_result_stats(struct nvmf_target *tgt, struct query_results_stats *out);

#endif
