/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the target share. From outside in: target and subsystems (reactor 0),
 * controllers (the reactor of their admin queue), connections (one queue each, any reactor),
 * commands (slots of a connection), transfers from the host (in) and to it (out).
 */
#ifndef KVASIR_FRONT_NVMF_INTERNAL_H
#define KVASIR_FRONT_NVMF_INTERNAL_H

#include "front/nvmf/nvmf.h"

#include "base/crc.h"
#include "base/log.h"
#include "net/stream.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_kv.h"
#include "proto/nvme_tcp.h"
#include "rt/buf.h"

#include <pthread.h>
#include <stdatomic.h>

#define NVMF_INS 4              /* transfers from the host at a time on one connection */
#define NVMF_TASKS 8            /* commands of one connection that run as tasks at a time */
#define NVMF_PIECES 12          /* parts of large transfers to the host queued at a time */
#define NVMF_AERS 4             /* asynchronous event requests of one controller (AERL + 1) */
#define NVMF_ERRORS 16          /* entries of the error log (ELPE + 1) */
#define NVMF_BLOCK_MAX 8192u    /* largest block of an NVM namespace */
#define NVMF_ADMIN_DATA_MAX 8192u
#define NVMF_HANDLES 64         /* of the vendor commands, per queue */
#define NVMF_HANDLE_IDLE_MS 60000u
#define NVMF_SELECT_RESULTS 256u /* of one host, by the extended form */
#define NVMF_BATCH_BYTES RT_BUF_LARGE_BYTES
#define NVMF_BATCH_RECORDS 1024u
#define NVMF_KAS_MS 1000u       /* granularity of keep alive */

struct nvmf_conn;
struct nvmf_cmd;
struct nvmf_ctrlr;
struct nvmf_subsys;

/* --- target ----------------------------------------------------------------------------------- */

/* What one reactor has of a target; touched by that reactor only. */
struct nvmf_local {
    struct nvmf_target *tgt;
    struct rt_reactor *reactor;
    struct list conns;        /* nvmf_conn.link */
    struct list ctrlrs;       /* nvmf_ctrlr.link: owned here */
    struct rt_timer sweep;    /* looks for connections that do not move */
    uint64_t select_log_ns;   /* when the last failed query was logged */
    uint32_t selects_unlogged;
    unsigned nselects;        /* queries that run */
    size_t select_bytes;      /* statements, of those in line too */
    struct nvmf_stats stats;
};

struct nvmf_listener {
    struct nvmf_target *tgt;
    struct list link;
    struct rt_sock sock;
    struct net_addr addr;
    uint16_t portid;
    struct rt_task *task;
    struct rt_req done;
    bool ended;
    struct rt_cond gone;
};

struct nvmf_target {
    struct nvmf_config cfg;
    unsigned nreactors;
    struct nvmf_local **local;
    struct list listeners;
    struct list subsystems;          /* nvmf_subsys.link */
    struct nvmf_subsys *discovery;   /* the built-in one, not on the list */
    uint64_t genctr;                 /* of the discovery log */
    uint16_t next_portid;
    uint32_t nconns;                 /* reactor 0 */
    unsigned next_reactor;
    struct rt_cond conns_gone;
    uint32_t nregs;                  /* controllers registered */
    uint32_t nevents;                /* tasks that see to events of devices */
    bool closing;
    uint64_t started_ns;
    nvmf_select_fn select;           /* NULL: no queries */
    void *select_arg;
    struct query_results *results;   /* from any reactor */
};

struct nvmf_local *nvmf_local_of(struct nvmf_target *tgt);
/** Runs fn(t, arg) as a task on each reactor, one after the other; sum of what they return. */
int nvmf_each_reactor(struct rt_task *t, struct nvmf_target *tgt, rt_task_fn fn, void *arg);

/* --- subsystems, hosts, namespaces (subsys.c) ------------------------------------------------- */

struct nvmf_host {
    struct list link;
    char nqn[NVME_NQN_FIELD];
};

/* The use of a namespace by one reactor. */
struct nvmf_ns_use {
    struct blk_chan *blk;
    struct kv_chan *kv;
    uint32_t inflight;        /* commands that hold the channel */
    bool gone;                /* no new ones */
    struct rt_cond idle;
} __attribute__((aligned(64)));

struct nvmf_ns {
    struct nvmf_subsys *subsys;
    uint64_t id;              /* no other namespace of this target ever has it */
    uint32_t nsid;
    struct blk_dev *blk;      /* exactly one of the two */
    struct kv_dev *kv;
    bool csd;                 /* kv in the CSD dialect, as an NVM namespace */
    uint32_t block_bytes;     /* NVM and CSD */
    unsigned block_shift;
    bool read_only;
    bool volatile_cache;
    bool copies;              /* the device wants aligned memory */
    uint8_t uuid[16];
    uint8_t nguid[16];
    atomic_uint kv_config;    /* feature 20h, NVME_KV_CONFIG_* */
    struct blk_watch blk_watch;
    struct kv_watch kv_watch;
    bool removing;
    unsigned holds;           /* tasks of reactor 0 that use it and wait */
    struct nvmf_ns_use *use;  /* by reactor */
};

/* A controller as reactor 0 knows it. */
struct nvmf_reg {
    struct list link;
    struct nvmf_subsys *subsys;
    struct nvmf_ctrlr *ctrlr;
    struct rt_reactor *owner;
    uint16_t cntlid;
    uint32_t refs;            /* Connects that are looking at it */
    bool gone;                /* no more of them */
    struct rt_cond unref;
    char hostnqn[NVME_NQN_FIELD];
    uint8_t hostid[16];
};

struct nvmf_subsys {
    struct nvmf_target *tgt;
    struct list link;
    char nqn[NVME_NQN_FIELD];
    char serial[21];
    char model[41];
    bool discovery;
    bool any_host;
    bool removing;
    struct list hosts;
    struct list regs;         /* nvmf_reg.link */
    uint16_t next_cntlid;
    struct nvmf_ns ***table;  /* [reactor][nsid] */
    bool taken[NVMF_NSID_MAX + 1]; /* NSIDs that are in the tables, come or go */
};

struct nvmf_subsys *nvmf_subsys_find(struct nvmf_target *tgt, const char *nqn);
bool nvmf_host_allowed(const struct nvmf_subsys *s, const char *host_nqn);
int nvmf_discovery_new(struct nvmf_target *tgt);
/** Removes a subsystem with all it has, the built-in one too. */
void nvmf_subsys_end(struct rt_task *t, struct nvmf_subsys *s);
/** Tells persistent discovery controllers that the log has changed. */
void nvmf_discovery_changed(struct rt_task *t, struct nvmf_target *tgt);

/* By the current reactor's table; NULL when there is no such namespace. */
static inline struct nvmf_ns *nvmf_ns_find(struct nvmf_ns *const *table, uint32_t nsid)
{
    return nsid <= NVMF_NSID_MAX ? table[nsid] : NULL;
}
/** Whether it is of the Key Value command set; CSD namespaces are of the NVM command set. */
static inline bool nvmf_ns_is_kv(const struct nvmf_ns *ns)
{
    return ns->kv != NULL && !ns->csd;
}

/* --- controllers (ctrlr.c) -------------------------------------------------------------------- */

struct nvmf_ctrlr_queue {
    struct nvmf_conn *conn;
    struct rt_reactor *reactor;
    bool killed;
};

struct nvmf_ctrlr {
    struct nvmf_target *tgt;
    struct nvmf_local *local;      /* the owner's */
    struct nvmf_subsys *subsys;
    struct nvmf_reg *reg;
    struct list link;
    struct nvmf_conn *admin;
    uint64_t id;                   /* no other controller of this target ever has it */
    uint16_t cntlid;
    bool discovery;
    bool persistent;               /* discovery with a keep-alive time-out of its own */
    bool dying;                    /* no more queues */
    char hostnqn[NVME_NQN_FIELD];
    uint8_t hostid[16];
    uint32_t cc, csts;
    uint32_t kato_ms;
    struct rt_timer kato_timer;
    _Atomic uint64_t last_cmd_ns;  /* of any of its queues */
    /* I/O queues: [1..io_queues_max] */
    struct nvmf_ctrlr_queue *q;
    uint16_t nqueues;
    uint16_t queues_granted;
    struct rt_cond queues_gone;
    /* Features */
    bool queues_set;
    uint32_t async_mask;
    uint32_t arbitration, power, error_recovery, write_atomic, temp_over, temp_under;
    bool acre;
    /* Asynchronous events */
    struct nvmf_cmd *aer[NVMF_AERS];
    unsigned naer;
    bool ns_event, ns_masked;          /* wanted; sent and the log not yet read */
    bool disc_event, disc_masked;
    uint32_t changed[NVMF_NSID_MAX / 32 + 1];
    /* Error log */
    pthread_mutex_t err_lock;
    uint64_t err_count;
    struct nvme_log_error err[NVMF_ERRORS];
};

/** DW0 of a Connect that failed, or 0. */
struct nvmf_connect_result {
    uint16_t status;
    uint32_t dw0;
};
void nvmf_connect_admin(struct rt_task *t, struct nvmf_conn *c, const struct nvme_connect_cmd *cmd,
                        const struct nvme_connect_data *data, struct nvmf_connect_result *out);
void nvmf_connect_io(struct rt_task *t, struct nvmf_conn *c, const struct nvme_connect_cmd *cmd,
                     const struct nvme_connect_data *data, struct nvmf_connect_result *out);
/** The connection ends: takes its queue from the controller, and ends that with its admin queue. */
void nvmf_ctrlr_leave(struct rt_task *t, struct nvmf_conn *c);
/**
 * Ends controller `cntlid` of the same host and subsystem and waits until nothing of it is left.
 * 0, also when there is none; -ETIMEDOUT; -ECANCELED.
 */
int nvmf_ctrlr_end_other(struct rt_task *t, struct nvmf_ctrlr *ctrlr, uint16_t cntlid);
/** Disconnects all I/O queues and waits until they are gone. */
void nvmf_ctrlr_drop_queues(struct rt_task *t, struct nvmf_ctrlr *ctrlr);
uint64_t nvmf_ctrlr_cap(const struct nvmf_ctrlr *ctrlr);
void nvmf_ctrlr_seen(struct nvmf_ctrlr *ctrlr);
void nvmf_ctrlr_set_kato(struct nvmf_ctrlr *ctrlr, uint32_t kato_ms);
/** Owner's reactor: a namespace has come, gone or changed. */
void nvmf_ctrlr_ns_changed(struct nvmf_ctrlr *ctrlr, uint32_t nsid);
void nvmf_ctrlr_discovery_changed(struct nvmf_ctrlr *ctrlr);
/** Sends events that are wanted and not masked while there are requests for them. */
void nvmf_ctrlr_events(struct nvmf_ctrlr *ctrlr);
/** Forgets a request for events. */
void nvmf_ctrlr_drop_aer(struct nvmf_ctrlr *ctrlr, const struct nvmf_cmd *cmd);
/** Takes a failure down in the error log. Any reactor. */
void nvmf_ctrlr_log_error(struct nvmf_ctrlr *ctrlr, const struct nvmf_cmd *cmd, uint16_t status);
/** Whether KV namespaces are visible: the host has chosen CC.CSS = 110b. */
static inline bool nvmf_ctrlr_iocs(const struct nvmf_ctrlr *ctrlr)
{
    return NVME_CC_CSS(ctrlr->cc) == NVME_CSS_IOCS;
}

/* --- commands (cmd.c) ------------------------------------------------------------------------- */

enum nvmf_cmd_state {
    NVMF_CMD_FREE = 0,
    NVMF_CMD_ACTIVE,   /* being decoded, or an admin command */
    NVMF_CMD_IN,       /* in line for, or has, a transfer from the host */
    NVMF_CMD_OUT,      /* in line for room to send */
    NVMF_CMD_BUF,      /* in line for a buffer */
    NVMF_CMD_DEVICE,   /* one device request is in flight */
    NVMF_CMD_TASK_WAIT,/* in line for a task */
    NVMF_CMD_TASK,     /* a task carries it out */
    NVMF_CMD_AER,      /* waits for an event */
    NVMF_CMD_FUSED,    /* waits for its second half */
    NVMF_CMD_SENDING,  /* the response is queued */
};

/* A receive buffer, counted by those who use what is in it. */
struct nvmf_rxbuf {
    struct rt_buf *buf;  /* NULL: the connection's own */
    uint32_t refs;
};

struct nvmf_out_wait {
    struct list link;
    uint32_t len;
    bool piece;
    void (*granted)(struct nvmf_out_wait *w);
};

struct nvmf_cmd {
    struct nvmf_conn *conn;
    struct nvme_sqe sqe;
    uint64_t trace_id;        /* of everything done for this command */
    uint8_t state;            /* enum nvmf_cmd_state */
    bool is_read;             /* the device request fills iov for the host */
    uint8_t for_what;         /* enum nvme_status_for */
    bool aborted;
    uint32_t sgl_len;         /* what the host's data pointer holds */
    bool in_capsule;          /* and where */
    uint32_t data_len;        /* bytes of iov */
    uint32_t out_len;         /* reserved of the connection's out budget */
    struct iovec iov[2];
    struct rt_buf *buf;
    struct nvmf_rxbuf *rxb;   /* iov is in here */
    struct nvmf_in *in;
    struct nvmf_ns *ns;       /* held (use->inflight) */
    void (*run)(struct nvmf_cmd *cmd); /* when what it waits for is there */
    struct list link;         /* in_wait, task_wait */
    struct nvmf_out_wait out;
    uint32_t dw0, dw1;
    bool csd;                 /* the namespace speaks the CSD dialect */
    uint32_t key_len;
    uint8_t key[NVME_KV_KEY_MAX];
    struct nvmf_cmd *fused;   /* the first half */
    struct nvmf_handle *handle; /* of a vendor command at work on one */
    bool handle_ok;           /* it leaves the handle as it should be */
    struct nvmf_select *select; /* of a SELECT command */
    /* Sending */
    struct net_tx_item tx;
    uint8_t resp[NVME_TCP_RESP_BYTES + NVME_TCP_DIGEST_BYTES + 4];
    uint8_t ddgst[NVME_TCP_DIGEST_BYTES];
    uint8_t hdr[NVME_TCP_PUT_MAX];
    /* Carrying out */
    int (*task_fn)(struct rt_task *t, struct nvmf_cmd *cmd); /* the status, or NVMF_CMD_GOES_ON */
    struct rt_task *task;
    struct rt_req task_done;
    struct rt_buf_waiter waiter;
    union {
        struct blk_req blk;
        struct kv_req kv;
    };
};

#define NVMF_CMD_GOES_ON (-1) /* the task ends and cmd->run(cmd) goes on without it */

struct nvmf_cmd *nvmf_cmd_get(struct nvmf_conn *c);
/** Gives back everything the command holds, without a response. */
void nvmf_cmd_free(struct nvmf_cmd *cmd);
/** Answers. The command is gone afterwards, or when the response has been sent. */
void nvmf_cmd_complete(struct nvmf_cmd *cmd, uint16_t status);
/** Answers a read: the first `len` bytes of cmd->iov, and the response after them. */
void nvmf_cmd_complete_data(struct nvmf_cmd *cmd, uint32_t len);
/** Carries the command out in a task, now or when another of the connection's has ended. */
/** For commands with a transfer from the host: at once, or false. */
bool nvmf_cmd_task(struct nvmf_cmd *cmd, int (*fn)(struct rt_task *t, struct nvmf_cmd *cmd));
void nvmf_cmd_cancel(struct nvmf_cmd *cmd);
/** Takes a reference to its namespace, which ends with the command. Status. */
uint16_t nvmf_cmd_ns(struct nvmf_cmd *cmd);
void nvmf_cmd_release_ns(struct nvmf_cmd *cmd);
/** Gives back what held the data from the host. */
void nvmf_cmd_drop_data(struct nvmf_cmd *cmd);
struct nvmf_ns_use *nvmf_cmd_use(const struct nvmf_cmd *cmd);

/* --- transfers from the host (in.c) ----------------------------------------------------------- */

struct nvmf_part {
    uint8_t *data;
    uint32_t len;
    struct rt_buf *buf;       /* to be put back; NULL: `in_place` */
    bool in_place;
};

struct nvmf_in {
    struct nvmf_conn *conn;
    struct nvmf_cmd *cmd;     /* NULL: free */
    uint32_t total;
    uint32_t got;             /* received */
    uint32_t unit;            /* parts are multiples of this, but for the last */
    struct nvme_tcp_window win;
    bool open;                /* a window is open: the host owes data */
    bool r2t_queued;
    bool stream;              /* a task takes the data in parts */
    bool complete;            /* all is there and its digests are right */
    bool discard;             /* nobody wants the rest */
    uint16_t status;          /* why, when not 0 */
    uint16_t gen;
    struct rt_buf *buf;       /* being filled; begins at got - fill */
    uint32_t fill;
    struct rt_buf_holder holder;
    bool resting;             /* nothing arrives: the pool may ask for the buffer */
    bool yield_later;         /* it has, while the task had enough to do */
    uint8_t *tail;            /* NVMF_BLOCK_MAX bytes: a block that is not whole yet */
    uint32_t tail_len;
    struct nvmf_part ready;   /* for the task */
    struct nvmf_part cur;     /* the task's */
    struct rt_cond more;      /* the task waits for data */
    struct rt_cond room;      /* the connection waits for the task */
    struct net_tx_item tx;
    uint8_t hdr[NVME_TCP_R2T_BYTES + NVME_TCP_DIGEST_BYTES + 4];
};

/**
 * Has `total` bytes brought from the host. Up to a large buffer: cmd->run(cmd) when they are all
 * in cmd->iov, or on request of the pool as if more. More: `task` is started and takes parts.
 * `whole` NULL: always by task. unit: parts are multiples of it.
 */
void nvmf_in_begin(struct nvmf_cmd *cmd, uint32_t total, uint32_t unit,
                   void (*whole)(struct nvmf_cmd *cmd),
                   int (*task)(struct rt_task *t, struct nvmf_cmd *cmd));
/** For the task: asks for the data (the first R2T), unless that has been done. */
void nvmf_in_start(struct nvmf_in *in);
/** The next part: 1, 0 at the end, negative: see in->status. The part before it is given back. */
int nvmf_in_next(struct rt_task *t, struct nvmf_in *in, struct nvmf_part *out);
/** Wants no more; waits until the host has sent what it was asked for. */
void nvmf_in_discard(struct rt_task *t, struct nvmf_in *in);
/** Ends the transfer of a command that is about to be freed. */
void nvmf_in_free(struct nvmf_in *in);
/** One H2CData PDU, whose header stands in the receive buffer. */
int nvmf_in_pdu(struct rt_task *t, struct nvmf_conn *c, const struct nvme_tcp_layout *lay,
                const union nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault);
/** The connection or the namespace goes: nobody waits any more. */
void nvmf_in_fail(struct nvmf_in *in, uint16_t status);

/* --- transfers to the host (out.c) ------------------------------------------------------------ */

/** A part of a transfer by a task. */
struct nvmf_piece {
    struct nvmf_conn *conn;
    struct list link;
    struct rt_buf *buf;
    uint32_t len;             /* reserved */
    struct net_tx_item tx;
    uint8_t ddgst[NVME_TCP_DIGEST_BYTES];
    uint8_t hdr[NVME_TCP_PUT_MAX];
};

/** run(cmd) as soon as there are room to send `len` (<= RT_BUF_LARGE_BYTES) and a buffer of it. */
void nvmf_out_begin(struct nvmf_cmd *cmd, uint32_t len, void (*run)(struct nvmf_cmd *cmd));
void nvmf_out_release(struct nvmf_conn *c, uint32_t len);
void nvmf_out_cancel(struct nvmf_out_wait *w);
/** For tasks: waits for the same. NULL when cancelled. */
struct nvmf_piece *nvmf_out_take(struct rt_task *t, struct nvmf_conn *c, uint32_t len);
void nvmf_out_drop(struct nvmf_piece *p);
/** Queues the first `len` bytes of the piece's buffer as data of `cmd` at `off`. */
void nvmf_out_send(struct nvmf_cmd *cmd, struct nvmf_piece *p, uint32_t off, uint32_t len,
                   bool last);

/* --- connections (conn.c, recv.c) ------------------------------------------------------------- */

struct nvmf_conn {
    struct nvmf_target *tgt;
    struct nvmf_local *local;
    struct list link;
    struct rt_sock sock;
    struct net_rx rx;
    struct net_tx tx;
    struct rt_task *task;
    struct rt_req task_done;
    struct rt_msg msg;         /* to its reactor, and back to 0 at its end */
    struct rt_msg kill_msg;
    int fd;                    /* before it is attached */
    uint16_t portid;
    bool closing;              /* nothing is sent or begun any more */
    bool draining;             /* what is in flight is answered, nothing is begun */
    struct rt_timer drain_timer;
    bool parked;               /* the task waits for the socket */
    struct nvme_tcp_rx prx;
    struct nvme_tcp_tx ptx;
    /* The queue */
    struct nvmf_ctrlr *ctrlr;
    struct nvmf_subsys *subsys;
    struct nvmf_ns *const *table; /* this reactor's namespaces */
    uint16_t qid;
    uint16_t entries;          /* SQSIZE + 1 */
    uint16_t sqhd;
    bool no_sqflow;
    bool kv_visible;
    struct nvmf_cmd *cmds;
    uint16_t *free_cmds;
    uint16_t nfree;            /* on free_cmds */
    uint16_t nused;            /* slots ever used: those above are untouched memory */
    uint16_t ncmds;
    uint16_t nbusy;
    struct rt_cond idle;       /* nbusy == 0 */
    struct nvmf_cmd *fused;    /* a first half that waits for the second */
    /* Receiving */
    uint8_t *own;
    uint32_t own_bytes;
    struct nvmf_rxbuf own_rx;
    struct nvmf_rxbuf *rxb;    /* the current one */
    struct rt_cond rx_free;
    struct nvmf_in in[NVMF_INS];
    unsigned nin;              /* of them in use */
    bool in_pumping;
    uint8_t *tails;
    struct list in_wait;       /* nvmf_cmd.link */
    /* Sending */
    uint32_t out_bytes;
    struct list out_wait;      /* nvmf_out_wait.link */
    struct nvmf_piece pieces[NVMF_PIECES];
    struct list free_pieces;
    /* Tasks */
    unsigned ntasks;
    struct list task_wait;     /* nvmf_cmd.link */
    unsigned nselects;         /* queries that run */
    uint32_t select_bytes;     /* their statements, and those in line */
    struct list select_wait;   /* nvmf_cmd.link */
    struct nvmf_handle *handles; /* NVMF_HANDLES, from the first that is opened on */
    unsigned nhandles;
    struct rt_cond handles_gone;
    /* Progress */
    uint64_t mark_ns, mark_rx, mark_tx;
    /* TermReq */
    struct net_tx_item term_tx;
    uint8_t term[NVME_TCP_PUT_MAX];
    bool term_sent;
};

/** Serves an accepted descriptor on some reactor. Reactor 0; takes the descriptor. */
int nvmf_conn_start(struct nvmf_target *tgt, int fd, uint16_t portid);
/** Ends a connection of this reactor. */
void nvmf_conn_kill(struct nvmf_conn *c);
/** Looks for connections that owe something and do not move. */
void nvmf_conn_sweep(struct rt_timer *timer);
/** Makes the slots of a queue; nothing is in flight. -ENOMEM. */
int nvmf_conn_queue(struct nvmf_conn *c, uint16_t entries);

/* Receiving. The current buffer is the connection's own small one, or one of the pool's large ones
 * while there is much to receive. */
int nvmf_rx_init(struct nvmf_conn *c);
void nvmf_rx_fini(struct nvmf_conn *c);
/** Waits until n bytes are in the current buffer, at net_rx_at(&c->rx). */
int nvmf_rx_need(struct rt_task *t, struct nvmf_conn *c, size_t n);
/** Waits until the socket has something; holds no buffer of the pool meanwhile if it can. */
int nvmf_rx_park(struct rt_task *t, struct nvmf_conn *c);
/** Starts an empty, unused buffer over. */
void nvmf_rx_rewind(struct nvmf_conn *c);
struct nvmf_rxbuf *nvmf_rx_pin(struct nvmf_conn *c);
void nvmf_rx_unpin(struct nvmf_conn *c, struct nvmf_rxbuf *rxb);

/* --- carrying commands out -------------------------------------------------------------------- */

/** Admin queue (and any queue before Connect): carried out by the connection's task, in place. */
void nvmf_admin(struct rt_task *t, struct nvmf_cmd *cmd, struct bytes data);
void nvmf_fabrics(struct rt_task *t, struct nvmf_cmd *cmd, struct bytes data);
uint16_t nvmf_features_set(struct nvmf_cmd *cmd, struct bytes data);
/** Some features return data: *out_len bytes in `page` (4096 bytes, zeroed). */
uint16_t nvmf_features_get(struct nvmf_cmd *cmd, uint8_t *page, uint32_t *out_len);
/** Fills `page` (4096 bytes, zeroed). */
uint16_t nvmf_identify(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t *page);
/** Answers Get Log Page. */
void nvmf_log_page(struct rt_task *t, struct nvmf_cmd *cmd);
/** A whole discovery log, malloced, for the host of this connection. Reactor 0. */
int nvmf_discovery_log(struct nvmf_target *tgt, const char *host_nqn,
                       const struct sockaddr_storage *local, uint8_t **out_log, size_t *out_len);
/** Answers with `len` bytes of `src`, zero-filled or cut to what the host asked for. */
void nvmf_admin_reply(struct rt_task *t, struct nvmf_cmd *cmd, const void *src, size_t len,
                      uint32_t want);

/** I/O queues. `data`: in the capsule. Never waits. */
void nvmf_io_nvm(struct nvmf_cmd *cmd, struct bytes data);
void nvmf_io_kv(struct nvmf_cmd *cmd, struct bytes data);
void nvmf_io_kv_vendor(struct nvmf_cmd *cmd, struct bytes data);
void nvmf_io_csd(struct nvmf_cmd *cmd, struct bytes data);
/** The commands that KV and CSD namespaces share; the key has been taken. */
void nvmf_kv_store(struct nvmf_cmd *cmd, struct bytes data);
void nvmf_kv_retrieve(struct nvmf_cmd *cmd);
void nvmf_kv_list(struct nvmf_cmd *cmd);
void nvmf_kv_delete(struct nvmf_cmd *cmd);
void nvmf_kv_exist(struct nvmf_cmd *cmd);
void nvmf_kv_flush(struct nvmf_cmd *cmd);
/** What the host's buffer in CDW10 is wrong with; 0 when nothing. */
uint16_t nvmf_kv_check_buffer(const struct nvmf_cmd *cmd);
/** The status of an errno in the dialect of the command's namespace. */
uint16_t nvmf_kv_status(const struct nvmf_cmd *cmd, int rc);
/** Queries (select.c): whether an opcode is one of theirs on that namespace. */
bool nvmf_is_select(const struct nvmf_ns *ns, uint8_t opc);
void nvmf_io_select(struct nvmf_cmd *cmd, struct bytes data);
/** The command ends. */
void nvmf_select_free(struct nvmf_cmd *cmd);
uint32_t nvmf_select_effects(uint8_t opc, bool csd);
/** Effects of I/O opcodes by command set: NVME_EFFECT_* or 0 when not supported. */
uint32_t nvmf_nvm_effects(uint8_t opc);
uint32_t nvmf_kv_effects(uint8_t opc);
uint32_t nvmf_kv_vendor_effects(uint8_t opc);
uint32_t nvmf_csd_effects(uint8_t opc);
/** Size of a CSD namespace as an NVM namespace. Blocks. */
uint64_t nvmf_csd_blocks(const struct nvmf_ns *ns);
/** Sends `total` bytes of a stream from `from` on. Status. */
int nvmf_send_stream(struct rt_task *t, struct nvmf_cmd *cmd, struct kv_stream *stream,
                     uint64_t from, uint32_t total);

/**
 * Makes the first `len` bytes of a command's data available in cmd->iov and calls whole(cmd): those
 * in the capsule at once, others by nvmf_in_begin() (by_task: always in parts).
 */
void nvmf_cmd_data(struct nvmf_cmd *cmd, struct bytes data, uint32_t len, uint32_t unit,
                   void (*whole)(struct nvmf_cmd *cmd),
                   int (*task)(struct rt_task *t, struct nvmf_cmd *cmd), bool by_task);
/** Ends a first half that waits for its second. */
void nvmf_fused_missing(struct nvmf_conn *c);

/* --- handles of the vendor commands (handle.c) ------------------------------------------------ */

/* An open value, store, list or snapshot of one queue: docs/protocols/kv-vendor.md. */
struct nvmf_handle {
    struct nvmf_conn *conn;
    struct nvmf_ns *ns;        /* held; NULL: the handle is free */
    struct kv_stream *stream;  /* READ, STORE */
    struct kv_snap *snap;      /* SNAPSHOT */
    struct nvmf_handle *of;    /* the snapshot that this one looks at */
    uint32_t gen;
    uint8_t mode;              /* enum nvme_kvv_mode */
    bool doomed;               /* no command finds it; it ends when the last has left it */
    bool ending;               /* its stream is being ended */
    unsigned busy;             /* commands at work on it, and handles that look at it */
    uint64_t last_ns;
    uint64_t len;              /* READ: of the value; STORE: declared */
    uint64_t pos;              /* STORE: accepted */
    uint64_t version;          /* READ */
    /* LIST */
    uint8_t *keys;             /* KV_KEY_MAX bytes for the last key, as many for the prefix */
    uint32_t last_len, prefix_len;
    bool after, at_end;
    struct rt_cond idle;
    struct kv_req end;
};

/** A free handle of the queue for a namespace (that of cmd), or NULL: all are in use. */
struct nvmf_handle *nvmf_handle_new(struct nvmf_cmd *cmd, uint8_t mode);
uint32_t nvmf_handle_id(const struct nvmf_handle *h);
/** The open handle of a number, in the command's namespace; NULL. */
struct nvmf_handle *nvmf_handle_find(struct nvmf_cmd *cmd, uint32_t id);
/** The command works on the handle until it completes. */
void nvmf_handle_use(struct nvmf_cmd *cmd, struct nvmf_handle *h);
/** The command has completed. A WRITE that has not set handle_ok ends its store. */
void nvmf_handle_leave(struct nvmf_cmd *cmd);
/** Ends a handle as soon as nobody is at work on it. */
void nvmf_handle_end(struct nvmf_handle *h);
/** Ends the handles of one namespace, or all (NULL). */
void nvmf_handles_end(struct nvmf_conn *c, const struct nvmf_ns *ns);
/** Ends those that had no command for long. */
void nvmf_handles_expire(struct nvmf_conn *c, uint64_t now);
/** A command came whose data was damaged: what it writes to is lost. */
void nvmf_kv_vendor_damaged(struct nvmf_cmd *cmd);
/** Does blk/kv work of a task and waits. */
int nvmf_blk(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t op, uint8_t flags, uint64_t lba,
             uint32_t nblocks, void *data);
int nvmf_kv(struct rt_task *t, struct nvmf_cmd *cmd);
/** Fills cmd->kv for an operation on the command's key. */
struct kv_req *nvmf_kv_req(struct nvmf_cmd *cmd, uint8_t op);

#endif
