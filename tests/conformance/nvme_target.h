/* SPDX-License-Identifier: Apache-2.0 */
/* Our target in the process of a test: one device as namespace 1 of one subsystem, on loopback. */
#ifndef KVASIR_TESTS_NVME_TARGET_H
#define KVASIR_TESTS_NVME_TARGET_H

#include "front/nvmf/nvmf.h"

#define TARGET_NQN "nqn.2026-11.io.kvasir:conformance"

struct target {
    const char *blk_uri;  /* exactly one of the two */
    const char *kv_uri;
    struct nvmf_config cfg;
    struct blk_dev *blk;
    struct kv_dev *kv;
    struct nvmf_target *tgt;
    char addr[NET_ADDR_TEXT_MAX]; /* "127.0.0.1:port"; kept by a restart */
};

/** Opens the device and serves it. target_start() after target_stop(): same port, same device. */
int target_open(struct rt_task *t, struct target *x, struct err *why);
void target_close(struct rt_task *t, struct target *x);
int target_start(struct rt_task *t, struct target *x, struct err *why);
void target_stop(struct rt_task *t, struct target *x);
/** "nvme+tcp://addr/NQN?nsid=1&" and `params`. */
void target_uri(const struct target *x, const char *params, char *out, size_t max);

#endif
