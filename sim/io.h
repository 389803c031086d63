/* SPDX-License-Identifier: Apache-2.0 */
/* Operations that take virtual time: file I/O and what is offloaded. */
#ifndef KVASIR_SIM_IO_H
#define KVASIR_SIM_IO_H

#include "sim/world.h"

/** Begins a file operation of the reactor that runs now. */
void sim_io_submit(struct rt_io *io);
/** It may end with -ECANCELED if it has not taken effect. */
void sim_io_cancel(struct rt_io *io);
/** Runs the function later, inline, from the reactor's poll. */
void sim_io_offload(struct rt_offload_req *oreq);
/** What is in flight has taken effect or has not; nothing is told. */
void sim_io_crash(struct sim_machine *m);

#endif
