/* SPDX-License-Identifier: Apache-2.0 */
/* URIs of NVMe/TCP namespaces: nvme+tcp://host:port/NQN?nsid=1&... */
#ifndef KVASIR_NVME_URI_H
#define KVASIR_NVME_URI_H

#include "nvme/host.h"

#include "base/param.h"

/* What both drivers take; to be followed by their own and the end of the table. */
#define NVME_URI_PARAMS                                                                            \
    {"nsid", PARAM_U64, NULL, false, "namespace; without it the first of the right kind"}, \
        {"hostnqn", PARAM_STR, NULL, false, "who we are; /etc/nvme/hostnqn, or made up"},          \
        {"hdgst", PARAM_BOOL, "no", false, "header digests"},                                      \
        {"ddgst", PARAM_BOOL, "no", false, "data digests"},                                        \
        {"queues", PARAM_U64, "0", false, "I/O queues to ask for; 0: one per reactor, and some"},  \
        {"depth", PARAM_U64, "128", false, "commands in flight per queue, 1 to 1022"},             \
        {"kato", PARAM_TIME, "10s", false, "keep alive timeout; 0 for none"},                      \
        {"ctrl_loss", PARAM_TIME, "60s", false,                                                    \
         "how long to try to reconnect before requests fail"},                                     \
        {"timeout", PARAM_TIME, "30s", false,                                                      \
         "a command without an answer for so long ends the connection"}

/**
 * Fills in `out` (but for check, gone, arg) and *out_nsid (0: none given) from the path of a URI
 * and its parameters. -EINVAL with text.
 */
int nvme_uri_opts(const char *path, const struct param_values *params, struct nvme_ctrl_opts *out,
                  uint32_t *out_nsid, struct err *why);

#endif
