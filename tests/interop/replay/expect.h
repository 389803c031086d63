/* SPDX-License-Identifier: Apache-2.0 */
/* What an answer has to be like, given the answer that a recorded host got for the same command. */
#ifndef KVASIR_TESTS_EXPECT_H
#define KVASIR_TESTS_EXPECT_H

#include "host.h"
#include "script.h"

#define EXPECT_BLOCKS_MAX 65536

/* What is known about one recorded file while it is replayed. */
struct expect {
    const char *nqn;    /* of the subsystem of ours that stands for the recorded one */
    uint16_t port;      /* where it listens */
    uint32_t vs;        /* as Property Get said */
    uint64_t cap;
    uint16_t cntlid[EXPECT_BLOCKS_MAX]; /* ours for each recorded one */
    bool known[EXPECT_BLOCKS_MAX];      /* blocks whose content comes from this recording */
    unsigned answers;   /* compared */
    unsigned fields;    /* of identify data, logs and properties, checked */
    uint64_t read_bytes, written_bytes, compared_bytes;
    unsigned wrong;
};

/** Compares; prints a line for each difference and counts it in e->wrong. */
void expect_answer(struct expect *e, const struct host_conn *h, const struct script_cmd *then,
                   const struct host_cmd *now);
/** A name for messages: "identify 01h (controller)". */
void expect_name(const struct nvme_sqe *sqe, bool admin, char *out, size_t max);

#endif
