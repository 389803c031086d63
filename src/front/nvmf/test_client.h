/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A raw NVMe/TCP host for tests: it sends exactly the bytes it is told to. Runs as a task in the
 * process of the target it tests.
 */
#ifndef KVASIR_FRONT_NVMF_TEST_CLIENT_H
#define KVASIR_FRONT_NVMF_TEST_CLIENT_H

#include "front/nvmf/nvmf.h"
#include "net/stream.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_kv_vendor.h"
#include "proto/nvme_tcp.h"

#define CL_HOST "nqn.2026-11.io.kvasir:test-host"

struct cl {
    struct rt_sock sock;
    struct net_rx rx;
    uint8_t *buf;
    struct nvme_tcp_rx prx;
    struct nvme_tcp_tx ptx;
    uint32_t capsule_max;   /* of data; larger goes by R2T */
    uint32_t maxh2cdata;
    uint32_t h2c_len;       /* bytes of one H2CData; 0: as many as allowed */
    uint32_t send_step;     /* bytes of one send; 0: all */
    uint16_t next_cid;
    uint16_t cntlid;
    bool bad_ddgst;         /* spoils the data digests sent */
    const char *hostnqn;
    uint8_t hostid[16];
};

struct cl_reply {
    uint16_t status;
    uint16_t sqhd;
    uint16_t cid;
    uint32_t dw0, dw1;
    uint32_t data_len;      /* of C2HData */
    unsigned r2ts;
};

/** Connects the socket and shakes hands. dgst: NVME_TCP_DGST_*. */
int cl_open(struct rt_task *t, struct cl *cl, const struct net_addr *addr, uint8_t dgst,
            uint8_t hpda);
/** Only the socket. */
int cl_socket(struct rt_task *t, struct cl *cl, const struct net_addr *addr);
void cl_close(struct cl *cl);
/** Fabrics Connect; status. */
int cl_connect(struct rt_task *t, struct cl *cl, const char *subnqn, uint16_t qid, uint16_t sqsize,
               uint32_t kato, struct cl_reply *out);
/** Connect to the admin queue and enable the controller (CC.CSS = css). 0 or negative. */
int cl_admin(struct rt_task *t, struct cl *cl, const struct net_addr *addr, const char *subnqn,
             uint8_t dgst, unsigned css);
/** An I/O queue of an admin connection. */
int cl_io(struct rt_task *t, struct cl *cl, const struct cl *admin, const struct net_addr *addr,
          const char *subnqn, uint16_t qid, uint8_t dgst);
int cl_property_get(struct rt_task *t, struct cl *cl, uint32_t ofst, bool wide, uint64_t *out);
int cl_property_set(struct rt_task *t, struct cl *cl, uint32_t ofst, uint32_t value);

/** Sends raw bytes. */
int cl_send(struct rt_task *t, struct cl *cl, const void *data, size_t len);
/** Sends a command with its data in the capsule (or none); gives it a CID. */
int cl_send_cmd(struct rt_task *t, struct cl *cl, struct nvme_sqe *sqe, const void *data,
                uint32_t len);
/** Receives one PDU: header to *pdu, data appended to `data`. 0 or negative. */
int cl_recv_pdu(struct rt_task *t, struct cl *cl, union nvme_tcp_pdu *pdu,
                struct nvme_tcp_layout *lay, void *data, uint32_t max);
/** Answers an R2T with the bytes of `data`. */
int cl_answer_r2t(struct rt_task *t, struct cl *cl, const struct nvme_tcp_r2t *r2t,
                  const uint8_t *data);
/** Waits for the response of a command; takes its data, answers its R2Ts. */
int cl_wait(struct rt_task *t, struct cl *cl, const void *out, void *in, uint32_t in_max,
            struct cl_reply *reply);
/** Sends and waits. `out`: data to the controller; `in`: from it. 0 or negative. */
int cl_cmd(struct rt_task *t, struct cl *cl, struct nvme_sqe *sqe, const void *out,
           uint32_t out_len, void *in, uint32_t in_len, struct cl_reply *reply);
/** Expects a C2HTermReq and the end of the connection: its FES, or negative. */
int cl_expect_term(struct rt_task *t, struct cl *cl, uint32_t *out_fei);

#endif
