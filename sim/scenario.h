/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One seed from begin to end: a set-up (machines, devices, jobs, weather), a storm in which all of
 * it works while things break, a calm in which every job verifies what it has and ends, a last
 * power cut of the server, one more look, and a stop in good order.
 */
#ifndef KVASIR_SIM_SCENARIO_H
#define KVASIR_SIM_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

struct sim_report {
    uint64_t hash;
    uint64_t virtual_ns;
    uint64_t ops, checks, failed_ops;
    uint64_t crashes, resets, partitions, faults, hosts_lost;
};

/** Runs a seed to its end. Whatever is wrong ends the process (sim_fail, must). */
void sim_scenario_run(uint64_t seed, bool verbose, struct sim_report *out);

#endif
