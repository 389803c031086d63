/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small NVMe/TCP target for tests of the host side: one subsystem, namespace 1 (256 KiB of
 * blocks) and namespace 2 (KV, a few values in memory), in the same process on a loopback port of
 * the system's choice. A test can step in before any PDU or command and misbehave.
 */
#ifndef KVASIR_NVME_FAKE_TARGET_H
#define KVASIR_NVME_FAKE_TARGET_H

#include "net/stream.h"
#include "nvme/host.h"
#include "proto/nvme_tcp.h"

#define FAKE_NQN "nqn.2026-11.io.kvasir:fake"
#define FAKE_BLOCK_BYTES 512u
#define FAKE_NBLOCKS 512u
#define FAKE_VALUES 32u
#define FAKE_VALUE_MAX 65536u

struct fake;

struct fake_conn {
    struct fake *fake;
    struct rt_sock sock;
    struct net_rx rx;
    uint8_t rx_buf[16384];
    struct nvme_tcp_rx in;
    struct nvme_tcp_tx out;
    uint16_t qid;
    uint16_t aer_cid;
    bool has_aer;
    struct rt_req done;
    struct rt_task *task;
    struct list link;
};

struct fake_value {
    uint8_t key[16];
    unsigned key_len;
    uint8_t *data;
    uint32_t len;
    bool used;
};

struct fake {
    struct rt_sock listener;
    char addr[NET_ADDR_TEXT_MAX];
    struct rt_task *task;
    struct rt_req done;
    bool runs;
    struct list conns;
    uint8_t *blocks;
    uint32_t nblocks;
    struct fake_value value[FAKE_VALUES];
    uint32_t maxh2cdata;
    uint32_t r2t_bytes;      /* window of one R2T; 0: all */
    uint32_t c2h_bytes;      /* data of one C2HData; 0: all */
    bool success;            /* SUCCESS flag on NVM reads */
    uint16_t queues;         /* granted */
    bool kv_only_bad_type;   /* namespace 2 is NVM as well */
    unsigned connections, commands, retrieves;
    bool refuse;             /* closes what it accepts */
    /*
     * A test's own behaviour. Returns 1: handled here; 0: go on as usual; negative: the connection
     * ends. `sqe` is NULL for ICReq.
     */
    int (*script)(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe);
    unsigned script_left;    /* how often; it is not asked any more at 0 */
    uint16_t term_fes;       /* of the last H2CTermReq */
    unsigned terms;
};

/** Starts on 127.0.0.1, port 0; fake->addr is "127.0.0.1:port". Stop before the task ends. */
void fake_start(struct rt_task *t, struct fake *f);
void fake_stop(struct rt_task *t, struct fake *f);
/** Cuts all connections; new ones are taken. */
void fake_cut(struct fake *f);
/** Completes the event request with a namespace notice; waits until there is one. */
void fake_notify(struct rt_task *t, struct fake *f);

/* For scripts. */
int fake_send(struct rt_task *t, struct fake_conn *c, const void *data, size_t len);
int fake_respond(struct rt_task *t, struct fake_conn *c, uint16_t cid, uint16_t status,
                 uint32_t dw0, uint32_t dw1);
int fake_data(struct rt_task *t, struct fake_conn *c, uint16_t cid, uint32_t datao,
              const void *data, uint32_t len, uint8_t flags, bool bad_digest);
int fake_r2t(struct rt_task *t, struct fake_conn *c, uint16_t cid, uint32_t off, uint32_t len);

#endif
