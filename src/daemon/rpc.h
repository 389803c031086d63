/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON-RPC 2.0 on a Unix socket, as SPDK has it: requests one after the other, each an object, the
 * answers in the same order. What it offers looks and changes nothing (method_look): devices are
 * made by the configuration. Who may open the socket's file may ask; that is the daemon's user.
 */
#ifndef KVASIR_DAEMON_RPC_H
#define KVASIR_DAEMON_RPC_H

#include "daemon/daemon.h"

struct rpc;

/** Listens on `path`, which is made; one that nobody answers on is replaced. On reactor 0. */
int rpc_open(struct rt_task *t, struct daemon *d, const char *path, struct rpc **out,
             struct err *why);
/** Ends what is under way and takes the socket away. NULL is fine. */
void rpc_close(struct rt_task *t, struct rpc *r);

#endif
