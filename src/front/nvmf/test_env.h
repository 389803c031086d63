/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the target share: checks inside tasks, and a target with a block namespace (1,
 * 64 MiB, blocks of 512 bytes) and a KV namespace (2), both in memory. */
#ifndef KVASIR_FRONT_NVMF_TEST_ENV_H
#define KVASIR_FRONT_NVMF_TEST_ENV_H

#include "front/nvmf/test_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NQN "nqn.2026-11.io.kvasir:test"
#define DNR NVME_SC_DNR

/* Checks inside tasks: the number of the line that failed goes back to the main stack. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)
#define STATUS(reply, want)                                                                        \
    do {                                                                                           \
        if ((reply).status != (uint16_t)(want)) {                                                  \
            fprintf(stderr, "line %d: status %03x (%s)\n", __LINE__, (reply).status,               \
                    nvme_status_text((reply).status));                                             \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)
#define OK(call)                                                                                   \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        if (rc_ != 0) {                                                                            \
            fprintf(stderr, "line %d: %s is %d\n", __LINE__, #call, rc_);                          \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)


struct env {
    struct nvmf_config cfg;
    struct nvmf_target *tgt;
    struct blk_dev *blk;
    struct kv_dev *kv;
    struct net_addr addr;
    int (*body)(struct rt_task *t, struct env *e);
};

/** Runs e->body as a task of reactor 0 with the target open; checks that nothing has leaked. */
void run_env(struct env *e, unsigned reactors, size_t buf_bytes);

#define TEST_ENV(name, reactors, bytes)                                                            \
    static void name(void **state)                                                                 \
    {                                                                                              \
        struct env e = {.body = name##_body};                                                      \
        (void)state;                                                                               \
        run_env(&e, reactors, bytes);                                                              \
    }

/** An NVM command on namespace 1. */
struct nvme_sqe rw(uint8_t opc, uint64_t lba, uint32_t nblocks);
/** A KV command on namespace 2. */
struct nvme_sqe kv_cmd(uint8_t opc, const char *key, uint32_t cdw10, uint8_t options);
void pattern(uint8_t *buf, size_t len, unsigned seed);
/** Waits until cond() is not 0, at most some seconds: 1, or 0. */
int eventually(struct rt_task *t, int (*cond)(struct rt_task *t, void *arg), void *arg);
uint64_t stat_connections(struct rt_task *t, struct env *e);

#endif
