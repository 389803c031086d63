/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvasir bench: bench.c reads the options and reports, bench_load.c makes the load. One worker per
 * reactor keeps `qd` requests in flight on its channel of each device; completions submit the
 * next request at once, without a task in between.
 */
#ifndef KVASIR_CLI_BENCH_H
#define KVASIR_CLI_BENCH_H

#include "cli/dev.h"

#include "base/hist.h"

#include <stdatomic.h>

#define BENCH_CONNECTIONS_MAX 4096

struct bench_side {
    uint64_t ops;
    uint64_t errors;
    struct hist latency_ns;
};

/** What is to be done; constant while the load runs, but for `written`. */
struct bench_plan {
    bool kv;
    unsigned read_percent;
    bool random;
    bool verify;
    bool check_all;       /* every unit has the pattern from an earlier run */
    uint32_t size_bytes;  /* of one operation */
    uint64_t units;       /* places (of size_bytes) or keys that are used */
    unsigned qd;          /* per device and reactor */
    double rate;          /* operations per second of all; 0: as many as go */
    uint64_t seed;
    uint64_t begin_ns, end_ns; /* what completes between is counted */
    struct dev *dev;
    unsigned ndevs;
    _Atomic uint64_t *written; /* with verify: a bit per unit that this run has written */
};

struct bench_result {
    struct bench_side read, write;
    uint64_t mismatches;
    int first_error;       /* errno of a failed operation */
    uint64_t user_ns, sys_ns;
    uint64_t measured_ns;
};

/** Writes every unit once, `qd` at a time. Tells the user about failures. */
int bench_prefill(struct rt_task *t, struct cli *c, struct bench_plan *plan);
/** Runs the load on all reactors for its time. */
int bench_load(struct rt_task *t, struct bench_plan *plan, uint64_t warmup_ns, uint64_t time_ns,
               struct bench_result *out);

#endif
