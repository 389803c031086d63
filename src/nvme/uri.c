/* SPDX-License-Identifier: Apache-2.0 */
#include "nvme/uri.h"

#include "proto/nvme_tcp.h"

#include <stdio.h>
#include <string.h>

static int copy_text(char *out, size_t max, const char *text, size_t len, const char *what,
                     struct err *why)
{
    if (len == 0 || len >= max)
        return err_set(why, -EINVAL, "nvme+tcp: the %s is %s", what,
                       len == 0 ? "missing" : "too long");
    memcpy(out, text, len);
    out[len] = '\0';
    return 0;
}

static int in_range(const struct param_values *params, const char *name, uint64_t min, uint64_t max,
                    struct err *why)
{
    uint64_t v = param_u64(params, name);

    if (v < min || v > max)
        return err_set(why, -EINVAL, "nvme+tcp: %s is from %llu to %llu", name,
                       (unsigned long long)min, (unsigned long long)max);
    return 0;
}

static int numbers(const struct param_values *params, struct nvme_ctrl_opts *out,
                   uint32_t *out_nsid, struct err *why)
{
    int rc = in_range(params, "depth", 1, NVME_DEPTH_MAX, why);

    if (rc == 0)
        rc = in_range(params, "queues", 0, NVME_QUEUES_MAX, why);
    if (rc == 0 && param_given(params, "nsid"))
        rc = in_range(params, "nsid", 1, NVME_NSID_ALL - 1, why);
    if (rc == 0)
        rc = in_range(params, "kato", 0, 3600 * NS_PER_S, why);
    if (rc == 0)
        rc = in_range(params, "timeout", NS_PER_MS, 3600 * NS_PER_S, why);
    if (rc < 0)
        return rc;
    out->depth = (uint16_t)param_u64(params, "depth");
    out->queues = (uint16_t)param_u64(params, "queues");
    out->kato_ms = (uint32_t)(param_u64(params, "kato") / NS_PER_MS);
    if (out->kato_ms == 0)
        out->kato_ms = NVME_KATO_NONE;
    out->ctrl_loss_ns = param_u64(params, "ctrl_loss");
    out->timeout_ns = param_u64(params, "timeout");
    *out_nsid = param_given(params, "nsid") ? (uint32_t)param_u64(params, "nsid") : 0;
    return 0;
}

int nvme_uri_opts(const char *path, const struct param_values *params, struct nvme_ctrl_opts *out,
                  uint32_t *out_nsid, struct err *why)
{
    const char *slash = strchr(path, '/');
    const char *nqn = slash != NULL ? slash + 1 : "";
    const char *hostnqn = param_str(params, "hostnqn");
    char host[NET_ADDR_TEXT_MAX];
    uint16_t port;
    int rc;

    *out = (struct nvme_ctrl_opts){0};
    if (*nqn == '\0')
        return err_set(why, -EINVAL,
                       "nvme+tcp: which subsystem? Write nvme+tcp://HOST:PORT/NQN; "
                       "'kvasir discover HOST:PORT' lists what there is");
    rc = copy_text(out->addr, sizeof(out->addr), path, (size_t)(slash - path), "address", why);
    if (rc == 0)
        rc = net_addr_split(out->addr, NVME_TCP_PORT, host, sizeof(host), &port, why);
    if (rc == 0)
        rc = copy_text(out->subnqn, sizeof(out->subnqn), nqn, strlen(nqn), "NQN", why);
    if (rc == 0 && hostnqn != NULL)
        rc =
            copy_text(out->hostnqn, sizeof(out->hostnqn), hostnqn, strlen(hostnqn), "hostnqn", why);
    if (rc < 0)
        return rc;
    if (strcmp(out->subnqn, NVME_DISCOVERY_NQN) == 0)
        return err_set(why, -EINVAL,
                       "nvme+tcp: the discovery service has no namespaces; "
                       "'kvasir discover %s' asks it what there is",
                       out->addr);
    out->hdgst = param_flag(params, "hdgst");
    out->ddgst = param_flag(params, "ddgst");
    return numbers(params, out, out_nsid, why);
}
