/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a recorded host did, as a list of steps in the order of the recording: open a connection,
 * send a command, have its answer. Data PDUs are folded into their command, because how data is
 * cut into PDUs is each controller's own affair.
 */
#ifndef KVASIR_TESTS_SCRIPT_H
#define KVASIR_TESTS_SCRIPT_H

#include "tests/transcript.h"

#include "proto/nvme_tcp.h"

/* A command and the answer it got then. */
struct script_cmd {
    unsigned conn;
    bool admin;           /* on an admin queue */
    struct nvme_sqe sqe;
    bool in_capsule;      /* its data, if any, came with it */
    uint8_t *out;         /* data to the controller */
    uint32_t out_len;
    bool answered;        /* else: it was still waiting at the end (event requests) */
    struct nvme_cqe cqe;
    uint8_t *in;          /* data to the host */
    uint32_t in_len;
};

enum script_op { SCRIPT_CONNECT, SCRIPT_SEND, SCRIPT_WAIT };

struct script_step {
    enum script_op op;
    unsigned conn;
    const struct transcript_pdu *icreq; /* SCRIPT_CONNECT, and its answer */
    const struct transcript_pdu *icresp;
    struct script_cmd *cmd;
};

struct script {
    struct script_step *steps;
    size_t nsteps;
    unsigned nconns;
};

/** The transcript has to stay. -EBADMSG (an answer without command), -ENOMEM. */
int script_make(const struct transcript *tr, struct script *out);
void script_free(struct script *s);

#endif
