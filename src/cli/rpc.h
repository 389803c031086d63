/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a daemon through its socket (daemon/rpc.h). */
#ifndef KVASIR_CLI_RPC_H
#define KVASIR_CLI_RPC_H

#include "cli/cli.h"

/** One call; takes the reference of `params`. 0 and *out_result, the caller's; or a negative errno,
 * after telling. */
int rpc_call(struct rt_task *t, struct cli *c, const char *path, const char *method,
             json_t *params, json_t **out_result);

#endif
