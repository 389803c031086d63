/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host's end of one NVMe/TCP connection with blocking sockets, for tests: it knows nothing of
 * what it sends and answers R2Ts from the data it was given. Strict about what comes back.
 */
#ifndef KVASIR_TESTS_HOST_H
#define KVASIR_TESTS_HOST_H

#include "proto/nvme_tcp.h"

#include "base/err.h"

#define HOST_RUNNING_MAX 64

/* A command on its way. */
struct host_cmd {
    bool used;
    bool done;
    bool is_event;      /* may stay without an answer for ever */
    uint16_t cid;
    struct bytes out;
    uint32_t asked;     /* bytes of `out` that R2Ts asked for */
    uint8_t *in;        /* room for in_max bytes */
    uint32_t in_max;
    uint32_t in_len;    /* bytes that came */
    bool in_last;
    unsigned data_pdus;
    unsigned r2ts;
    struct nvme_cqe cqe;
};

struct host_conn {
    int fd;
    struct nvme_tcp_rx rx;
    struct nvme_tcp_tx tx;
    uint32_t maxh2cdata;
    struct host_cmd running[HOST_RUNNING_MAX];
    unsigned sent;      /* commands */
    unsigned completed;
};

/** Connects to "127.0.0.1:port". -errno with text. */
int host_open(struct host_conn *h, const char *addr, struct err *why);
void host_close(struct host_conn *h);
/** Sends an ICReq and checks the answer. *out_resp is it. */
int host_init(struct host_conn *h, const struct nvme_tcp_icreq *req,
              struct nvme_tcp_icresp *out_resp, struct err *why);
/** Sends a command; `out` stays until it is done, and comes in the capsule when `in_capsule`. */
int host_send(struct host_conn *h, const struct nvme_sqe *sqe, struct bytes out, bool in_capsule,
              struct err *why);
/** Serves the connection until the command is done. The caller gives it back with host_put. */
int host_wait(struct host_conn *h, uint16_t cid, struct host_cmd **out_cmd, struct err *why);
void host_put(struct host_cmd *cmd);

#endif
