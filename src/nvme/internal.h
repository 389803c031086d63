/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of src/nvme.
 *
 *   queue.c      command slots: submit, line, completion, deadlines
 *   send.c       command capsules and H2CData
 *   receive.c    what comes: responses, C2HData, R2T
 *   connect.c    the life of one connection: a task from connect to teardown
 *   assoc.c      making and ending an association: handshakes of the admin queue, enable
 *   ctrl.c       the controller's task: keep alive, events, repair; queues of other reactors
 *   admin.c      identify, logs, namespaces;   discovery.c;   identity.c
 */
#ifndef KVASIR_NVME_INTERNAL_H
#define KVASIR_NVME_INTERNAL_H

#include "nvme/host.h"

#include "net/stream.h"
#include "proto/nvme_tcp.h"

#define NVME_RX_BYTES 131072u
#define NVME_ADMIN_SLOTS 31u
#define NVME_ADMIN_CAPSULE_BYTES 8192u /* of admin and fabrics commands: every target */
#define NVME_CONNECT_NS (10 * NS_PER_S)
#define NVME_TERM_NS (200 * NS_PER_MS)
#define NVME_SHUTDOWN_NS (2 * NS_PER_S)
#define NVME_TRIES_MAX 8 /* of one command: then it may be what breaks the connection */
#define NVME_RETRY_NS (20 * NS_PER_MS)
#define NVME_STREAM_QUEUES 8 /* asked for besides one queue per reactor */
#define NVME_AERS_MAX 4

/* A PDU's data in the two items of a slot: header + 3, then 3 + digest. */
#define NVME_SEND_IOV_MAX (2 * NET_TX_IOV_MAX - 2)
/* CID: slot index and a few bits that change with each use, to notice late answers. */
#define NVME_CID_INDEX_BITS 10
#define NVME_CID_INDEX_MASK ((1u << NVME_CID_INDEX_BITS) - 1)
static_assert(NVME_DEPTH_MAX < NVME_CID_INDEX_MASK, "CID FFFFh is never used");

/** One command in flight. */
struct nvme_slot {
    struct nvme_req *req;       /* NULL: free */
    struct nvme_slot *next_free;
    struct nvme_queue *queue;
    uint16_t cid;
    uint8_t items_busy;         /* of item[], with net_tx */
    bool answered;              /* completes as soon as no item is busy */
    bool digest_bad;
    uint16_t status;
    uint32_t dw0, dw1;
    uint32_t r2t_left;          /* bytes the controller has asked for and we have not queued */
    uint16_t ttag;
    uint32_t sending;           /* data bytes of the PDU with net_tx */
    uint64_t progress_ns;
    struct net_tx_item item[2];
    uint8_t digest[NVME_TCP_DIGEST_BYTES];
    uint8_t hdr[NVME_TCP_PUT_MAX];
};

enum nvme_queue_state {
    NVME_QUEUE_DOWN = 0,   /* no connection; commands wait in line */
    NVME_QUEUE_CONNECTING, /* TCP, ICReq, Connect: only NVME_REQ_CONNECT goes out */
    NVME_QUEUE_LIVE,
    NVME_QUEUE_DEAD,       /* for good: -ENODEV */
};

struct nvme_queue {
    struct nvme_ctrl *ctrl;
    struct rt_reactor *reactor;
    struct list link;           /* ctrl->queues, home reactor's */
    uint16_t qid;               /* 0: admin */
    bool stream;
    bool closing;
    uint8_t state;              /* enum nvme_queue_state */

    /* The connection. */
    struct net_addr addr;
    struct rt_sock sock;
    struct net_rx rx;
    struct net_tx tx;
    struct nvme_tcp_rx in;      /* what the decoder has to know */
    struct nvme_tcp_tx out;
    uint32_t capsule_data_max;
    uint32_t h2c_data_max;      /* MAXH2CDATA */
    bool shaken;                /* ICResp was good */
    bool task_runs;
    int end_rc;                 /* why the connection ended; 0 while it goes */
    struct err end_why;
    struct rt_task *task;       /* receives */
    struct rt_req task_done;
    struct rt_cond changed;     /* shaken, task_runs, items drained, window fed, connect done */
    struct net_tx_item term_item;
    uint8_t term[NVME_TCP_PUT_MAX];
    bool term_busy;
    uint8_t *rx_buf;

    /* Commands. */
    struct nvme_slot *slots;
    unsigned nslots;
    struct nvme_slot *free_slots;
    unsigned in_flight;
    unsigned items_busy;        /* sum over the slots */
    struct list line;           /* nvme_req not sent */
    unsigned in_line;
    struct list retry;          /* nvme_req that failed in passing; sent again by the tick */
    struct rt_timer tick;
    struct rt_msg fault_msg;    /* to the home reactor: the connection has ended */
    struct nvme_queue_stats stats;
};

#define NVME_STALE_MAX 16

struct nvme_ctrl {
    struct nvme_ctrl_opts opts;
    struct rt_reactor *home;
    struct nvme_queue *admin;
    struct list queues;         /* I/O queues */
    uint8_t *qid_used;          /* by qid - 1, `granted` of them */
    uint16_t qid_next;

    /* The present association. */
    uint16_t cntlid;
    uint64_t cap;
    uint32_t vs;
    uint32_t cc;
    uint16_t granted;
    uint16_t mqes;              /* entries of the largest I/O queue */
    bool sqflow;                /* the controller wants submission queue flow control */
    unsigned epoch;
    struct nvme_id_ctrl *id;

    /* Controllers of earlier associations, whose commands may still be about: see fence(). */
    uint16_t stale[NVME_STALE_MAX];
    unsigned nstale;

    bool live;                  /* queues may be connected */
    bool dead;
    bool stop;                  /* closing */
    bool fault;
    bool ns_changed;
    bool locked;                /* list of queues, making and ending of associations */
    bool refused;               /* opts.check said that what we had is not there any more */
    struct net_addr addr;
    struct rt_cond changed;     /* any of the above */
    /*
     * The task in charge: the opener's, then the keeper. Its own commands are marked
     * NVME_REQ_CONNECT: they fail with the connection instead of waiting for it to be repaired,
     * which is what this task does.
     */
    struct rt_task *in_charge;
    struct rt_task *keeper;
    bool keeper_runs;
    struct rt_req keeper_done;
    struct nvme_req keep_alive;
    bool keep_alive_busy;
    struct nvme_req aer[NVME_AERS_MAX];
    unsigned naers;
    unsigned aers_busy;
};

/* --- queue.c --- */
int nvme_queue_new(struct nvme_ctrl *ctrl, uint16_t qid, unsigned nslots,
                   struct nvme_queue **out_q);
void nvme_queue_free(struct nvme_queue *q);
/** All slots free, as for a new connection. */
void nvme_slots_reset(struct nvme_queue *q);
/** The slot of a CID from the wire; NULL when it names no command in flight. */
struct nvme_slot *nvme_slot_of(struct nvme_queue *q, uint16_t cid);
/** The controller has answered; completes the command when its items are back. */
void nvme_slot_answer(struct nvme_slot *s, uint16_t status, uint32_t dw0, uint32_t dw1);
/** Completes an answered command whose items are back. */
void nvme_slot_settle(struct nvme_slot *s);
/** After the connection's end: completes what cannot be repeated, puts the rest in line. */
void nvme_queue_unsend(struct nvme_queue *q, int rc);
/** Sends from the line as far as there are slots. */
void nvme_queue_kick(struct nvme_queue *q);
/** Everything in line ends with rc. */
void nvme_queue_fail_line(struct nvme_queue *q, int rc);

/* --- send.c --- */
void nvme_send_capsule(struct nvme_queue *q, struct nvme_slot *s);
/** Sends the next H2CData if one is wanted, its data is there and the slot's items are free. */
void nvme_send_data(struct nvme_queue *q, struct nvme_slot *s);
void nvme_send_term(struct nvme_queue *q, struct nvme_tcp_fault fault, struct bytes header);

/* --- receive.c --- */
/** Receives one PDU and acts on it. 0, or why the connection has to end. */
int nvme_receive(struct rt_task *t, struct nvme_queue *q);

/* --- connect.c --- */
/**
 * Connects a queue (TCP, ICReq, Connect command) on its reactor, which is the current one. 0, or a
 * negative errno with q->end_why; then the queue is down again. May be called again.
 */
int nvme_queue_start(struct rt_task *t, struct nvme_queue *q);
/** Ends the connection and waits until its task has ended; commands are in line or completed. */
void nvme_queue_stop(struct rt_task *t, struct nvme_queue *q, int rc);
/** Asks the connection to end; never waits. */
void nvme_queue_kill(struct nvme_queue *q, int rc, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* --- assoc.c --- */
/** Makes the association, connects the I/O queues there are. On failure nothing is connected. */
int nvme_assoc_begin(struct rt_task *t, struct nvme_ctrl *ctrl, struct err *why);
/** Ends all connections; `shutdown` tells the controller before. */
void nvme_assoc_end(struct rt_task *t, struct nvme_ctrl *ctrl, bool shutdown);
/** On the reactor of the queue, by rt_on(). */
int nvme_queue_start_fn(struct rt_task *t, void *queue);

/* --- ctrl.c --- */
/** A queue's connection has ended; on the queue's reactor. */
void nvme_ctrl_fault(struct nvme_queue *q);
/** Submits the event requests that are not with the controller. */
void nvme_ctrl_listen(struct nvme_ctrl *ctrl);

/* --- identity.c --- */
/** The host id for a host NQN: ours when it is ours, the UUID in it, else made from its text. */
void nvme_host_id_of(const char *hostnqn, const char *our_hostnqn, const uint8_t our_hostid[16],
                     uint8_t out_hostid[16]);

#endif
