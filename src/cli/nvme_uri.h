/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs about NVMe/TCP itself are pointed at: "HOST[:PORT]" or an nvme+tcp: URI. */
#ifndef KVASIR_CLI_NVME_URI_H
#define KVASIR_CLI_NVME_URI_H

#include "cli/cli.h"

#include "nvme/host.h"

struct nvme_where {
    char addr[NET_ADDR_TEXT_MAX];
    char subnqn[NVME_NQN_FIELD]; /* "": none was given */
    uint32_t nsid;               /* 0: none was given */
};

/** 0, or -EINVAL with text. */
int nvme_where_parse(const char *text, struct nvme_where *out, struct err *why);

#endif
