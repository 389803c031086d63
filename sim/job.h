/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job uses one device from one reactor, as a program would, and holds everything it gets against
 * a model that outlives crashes of both sides. The device is told by its URI, so the same job runs
 * beside the device or behind the network.
 */
#ifndef KVASIR_SIM_JOB_H
#define KVASIR_SIM_JOB_H

#include "sim/model_blk.h"
#include "sim/model_kv.h"
#include "sim/world.h"

#define JOB_SLOTS 4 /* requests at a time */
#define JOB_OP_MAX_NS (300 * NS_PER_S)

struct sim_job;

struct sim_job_kind {
    const char *name;
    rt_task_fn run;
    void (*fini)(struct sim_job *job);
    /** The server has crashed. */
    void (*server_crash)(struct sim_job *job, bool power);
    /** The job's own machine has. */
    void (*orphan)(struct sim_job *job);
};

struct sim_job {
    const struct sim_job_kind *kind;
    char name[16];
    char uri[160];
    struct sim_machine *machine;
    unsigned reactor;
    struct sim_dice dice;
    struct rt_req done;
    bool running;
    bool stopping; /* verify all, flush, close, and end */
    /* Which failures are no news here. */
    bool net_fails, disk_fails, server_fails;
    uint64_t busy_since_ns; /* an operation is under way since; 0: none */
    uint64_t nops, nfailed, nchecked;

    struct model_blk blk;
    uint32_t block_bytes;
    uint32_t first_block; /* of its region */
    struct model_kv kv;
    uint64_t val_max;
};

extern const struct sim_job_kind sim_job_blk, sim_job_kv;

/** A region of `nsectors` from sector `first` of a block device. */
void sim_job_blk_init(struct sim_job *job, uint32_t first_sector, uint32_t nsectors,
                      uint32_t block_bytes);
/** `nkeys` keys of a KV device that nobody else touches. */
void sim_job_kv_init(struct sim_job *job, uint8_t prefix, unsigned nkeys, uint64_t val_max);

/** Starts the job's task on its machine, which is up. */
void sim_job_start(struct sim_job *job);
/** The machine it ran on has crashed. */
void sim_job_crashed(struct sim_job *job);

/** An operation begins or has ended; the world fails when one takes longer than JOB_OP_MAX_NS. */
void sim_job_busy(struct sim_job *job);
void sim_job_idle(struct sim_job *job);
/** Ends the world unless such a failure is to be expected. */
void sim_job_failed(struct sim_job *job, const char *what, int rc);

#endif
