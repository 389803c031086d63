/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon on a machine: what kvasird does, from a configuration, until it is told to stop. */
#ifndef KVASIR_SIM_SERVER_H
#define KVASIR_SIM_SERVER_H

#include "sim/world.h"

#define SIM_SERVER_NQN "nqn.2026-11.io.kvasir:sim"

/** Starts it: namespace 1 is the file as a block device, namespace 2 a KV device. */
void sim_server_start(struct sim_machine *m, uint32_t block_bytes, bool kv_volatile,
                      const char *disk_path, const char *kv_path);
/** Asks it to stop; it does while sim_server_running(). */
void sim_server_stop(void);
bool sim_server_running(void);
/** Whether it listens. */
bool sim_server_ready(void);
/** Whether it has ended by itself, because its devices could not be opened; its machine is up. */
bool sim_server_failed(void);
/** Its machine has crashed. */
void sim_server_crashed(void);

#endif
